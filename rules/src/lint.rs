//! What is well formed and probably not meant: rules that cannot find anything, or find it too early, or let go too much.

use std::collections::{BTreeMap, BTreeSet};

use pipeproof_engine::feed;
use pipeproof_engine::fields::Field;
use pipeproof_engine::rule::{CorrelationRule, Filter, Operator, Rule, Taxonomy};
use pipeproof_engine::source::{Logsource, SourceType};

use crate::correlation::Draft;
use crate::diagnostic::{Code, Place, Report, did_you_mean};
use crate::link::Linker;

/// Looks at a correlation together with its members, which are in the order of its list.
pub(crate) fn correlation(draft: &Draft, rule: &CorrelationRule, members: &[&Rule], report: &mut Report<'_>) {
    for ((name, place), member) in draft.members.iter().zip(members) {
        if let Rule::Detection(detection) = member
            && feed::of_logsource(&detection.logsource).is_empty()
        {
            let message = format!("no source type feeds the rule `{name}`: its logsource is {}", detection.logsource);
            report.add(Code::UnboundSource, *place, message);
        }
    }
    for (field, place) in &draft.group_fields {
        if rule.taxonomy == Taxonomy::Cicd && Field::from_name(field).is_none() {
            let help = did_you_mean(field, Field::ALL.iter().map(|known| known.name()));
            let message = format!("`{field}` is not in the cicd taxonomy; events are grouped by that path of their JSON");
            report.add_help(Code::UnknownGroupKey, *place, message, help);
        }
    }
    let Operator::Temporal { clauses, .. } = &rule.operator else { return };
    let absent: BTreeSet<u16> = clauses.iter().flat_map(|clause| &clause.absent).copied().collect();
    let required = feed::resolve_all(&rule.meta.requires);
    for number in absent {
        let number = usize::from(number);
        let (Some((name, place)), Some(member)) = (draft.members.get(number), members.get(number)) else { continue };
        absence(name, *place, sources(member), &required, draft, rule, report);
    }
}

/// What must not happen is believed not to have happened only while its source speaks.
fn absence(
    name: &str,
    place: Place,
    from: BTreeSet<SourceType>,
    required: &BTreeSet<SourceType>,
    draft: &Draft,
    rule: &CorrelationRule,
    report: &mut Report<'_>,
) {
    let awaited: BTreeSet<SourceType> = from.intersection(required).copied().collect();
    if awaited.is_empty() {
        let known: Vec<&str> = from.iter().filter(|kind| **kind != SourceType::Json).map(|kind| kind.name()).collect();
        let help = (!known.is_empty()).then(|| format!("it comes from {}", known.join(", ")));
        let message = format!("nothing under `requires` brings `{name}`: were its source silent, it would seem missing");
        report.add_help(Code::AbsenceSource, place, message, help);
        return;
    }
    let latest = awaited.iter().max_by_key(|kind| kind.info().lateness);
    if let Some(kind) = latest.filter(|kind| rule.timespan < kind.info().lateness) {
        let late = kind.info().lateness.as_secs();
        let message = format!("`{name}` is awaited for {} s, and {kind} may be {late} s late", rule.timespan.as_secs());
        report.add(Code::AbsenceShort, draft.timespan_place, message);
    }
}

/// The source types a rule's events come from, as far as its logsource says.
fn sources(rule: &Rule) -> BTreeSet<SourceType> {
    let required = feed::resolve_all(&rule.meta().requires);
    match rule {
        _ if !required.is_empty() => required,
        Rule::Detection(rule) => feed::of_logsource(&rule.logsource),
        Rule::Correlation(_) | Rule::Sql(_) => SourceType::ALL.iter().copied().collect(),
    }
}

/// Looks at an exception together with the rules it is for.
pub(crate) fn filter(
    filter: &Filter,
    targets: &[(String, Place)],
    place: Place,
    linker: &Linker<'_>,
    report: &mut Report<'_>,
) {
    if filter.rules.is_none() {
        let covered = linker.set.rules.iter().filter(|rule| {
            matches!(rule, Rule::Detection(rule) if covers(&filter.logsource, &rule.logsource))
        });
        let message = format!("`rules: any` makes an exception to every rule its logsource covers: {}", covered.count());
        report.add(Code::WideFilter, place, message);
    }
    for (name, place) in targets {
        let Some((_, Rule::Detection(rule))) = linker.find(name) else { continue };
        let (wide, narrow) = (&filter.logsource, &rule.logsource);
        if !covers(wide, narrow) {
            let message = format!("the logsource {wide} does not cover `{name}`, which is for {narrow}");
            report.add(Code::UnusedFilter, *place, message);
        } else if wide != narrow {
            let help = Some("give the exception the logsource of the rule".to_owned());
            let message = format!("the logsource {wide} is wider than that of `{name}`, {narrow}");
            report.add_help(Code::WideFilter, *place, message, help);
        }
    }
}

/// Whether all events of `narrow` are events of `wide`.
fn covers(wide: &Logsource, narrow: &Logsource) -> bool {
    let part = |wide: &Option<String>, narrow: &Option<String>| wide.is_none() || wide == narrow;
    part(&wide.product, &narrow.product) && part(&wide.service, &narrow.service) && part(&wide.category, &narrow.category)
}

/// Tells of rules that decide the same: one of them is probably a copy that was meant to be changed.
pub(crate) fn same_digests(linker: &Linker<'_>, reports: &mut [Report<'_>]) {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, rule) in linker.set.rules.iter().enumerate() {
        let meta = rule.meta();
        let earlier = *first.entry(&meta.digest).or_insert(number);
        if earlier == number {
            continue;
        }
        let (Some((file, place)), Some(origin)) = (linker.place(number), linker.set.origins.get(earlier)) else {
            continue;
        };
        if let Some(report) = reports.get_mut(file) {
            let message = format!("`{}` finds just what the rule at {}:{} finds", meta.title, origin.file, origin.line);
            report.add(Code::SameDigest, place, message);
        }
    }
}
