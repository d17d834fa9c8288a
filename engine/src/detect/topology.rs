//! How rules hang together: which correlation looks at which rule, in which order they are advanced, which sources they
//! wait for, and which fields of a match they need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::correlate::journal::CorrelationName;
use crate::correlate::{Names, Shape, names_read};
use crate::fields::Field;
use crate::plan::Plan;
use crate::rule::{Condition, CorrelationRule, Operator, Rule, RuleMeta, RuleState, Taxonomy};
use crate::source::SourceType;

/// Fields every signal keeps, for people who read a finding.
const KEPT: &[Field] = &[
    Field::Action,
    Field::Outcome,
    Field::ActorId,
    Field::SrcIp,
    Field::CiRepo,
    Field::CiRunId,
    Field::CiRef,
    Field::TokenId,
    Field::SecretPath,
    Field::ArtifactDigest,
    Field::K8sCluster,
    Field::K8sNamespace,
    Field::CloudAccount,
];

/// A field of an event that a signal keeps.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Number of its name.
    pub(super) name: u32,
    /// The name.
    pub(super) text: String,
    /// The normalised field.
    pub(super) field: Option<Field>,
    /// The name is a path into the native JSON.
    pub(super) native: bool,
}

/// A correlation of the plan.
#[derive(Debug)]
pub(crate) struct Link {
    /// Number of the rule.
    pub(crate) number: usize,
    /// What its state is kept under.
    pub(crate) name: CorrelationName,
    pub(crate) shape: Shape,
    /// The source types its watermark is over.
    pub(super) types: Vec<SourceType>,
    /// How much later than their watermark its members match.
    pub(super) lag: Duration,
    /// The correlations among its members, which are advanced before it.
    pub(super) inner: Vec<usize>,
    /// Of each of these, some source must be heard for the rule to say that something did not happen.
    pub(super) needs: Vec<Vec<SourceType>>,
    /// It learns from history and finds nothing in it.
    pub(crate) learns: bool,
}

/// All correlations, members before the rules that look at them.
#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) links: Vec<Link>,
    /// By rule: the correlations it is a member of, with its number there.
    pub(super) feeds: Vec<Vec<(usize, u16)>>,
    /// By rule: the fields its signals keep.
    pub(super) wanted: Vec<Vec<Wanted>>,
}

impl Topology {
    /// Works out a plan.
    pub(crate) fn new(plan: &Plan, names: &mut Names) -> Self {
        let rules = plan.rules();
        let mut order: Vec<usize> = Vec::new();
        let mut settled: BTreeSet<usize> =
            (0..rules.len()).filter(|number| !matches!(rules.get(*number), Some(Rule::Correlation(_)))).collect();
        // The plan has no circles, so every round settles one at least.
        loop {
            let ready: Vec<usize> = (0..rules.len())
                .filter(|number| !settled.contains(number))
                .filter(|number| plan.members(*number).iter().all(|member| settled.contains(member)))
                .collect();
            if ready.is_empty() {
                break;
            }
            settled.extend(&ready);
            order.extend(ready);
        }
        let place_of: BTreeMap<usize, usize> =
            order.iter().enumerate().map(|(place, number)| (*number, place)).collect();
        let mut feeds: Vec<Vec<(usize, u16)>> = vec![Vec::new(); rules.len()];
        let mut links: Vec<Link> = Vec::new();
        for number in order {
            let Some(Rule::Correlation(rule)) = rules.get(number) else { continue };
            let members = plan.members(number);
            if rule.meta.state != RuleState::Paused {
                for (member, place) in members.iter().zip(0..) {
                    if let Some(feeds) = feeds.get_mut(*member) {
                        feeds.push((links.len(), place));
                    }
                }
            }
            let inner: Vec<usize> = members.iter().filter_map(|member| place_of.get(member).copied()).collect();
            let lag_of = |member: &usize| match rules.get(*member) {
                Some(Rule::Detection(rule)) => table_grace(plan, &rule.condition),
                _ => place_of.get(member).and_then(|place| links.get(*place)).map_or(Duration::ZERO, |link| link.lag),
            };
            let lag = members.iter().map(lag_of).max().unwrap_or_default();
            let types = source_types(plan, number, 0);
            let resolve = rule.meta.alert.resolve_on.as_deref().and_then(|name| {
                let called = |member: &usize| {
                    rules
                        .get(*member)
                        .is_some_and(|rule| rule.meta().id == name || rule.meta().name.as_deref() == Some(name))
                };
                members.iter().position(called).and_then(|place| u16::try_from(place).ok())
            });
            let settle = types.iter().map(|kind| kind.info().lateness).max().unwrap_or_default();
            let field = |member: u16, name: &str| {
                let meta = members.get(usize::from(member)).and_then(|member| rules.get(*member)).map(Rule::meta);
                meta.and_then(|meta| aliased(rule, meta, name)).unwrap_or(name).to_owned()
            };
            links.push(Link {
                number,
                name: (rule.meta.id.clone(), rule.meta.digest.clone()),
                shape: Shape::new(rule, names, field, resolve, settle),
                lag,
                inner,
                needs: heard_for(plan, number),
                learns: matches!(rule.operator, Operator::New { .. } | Operator::Rare { .. } | Operator::Spike { .. }),
                types,
            });
        }
        let wanted = (0..rules.len()).map(|number| wanted(plan, number, &feeds, &links, names)).collect();
        Self { links, feeds, wanted }
    }
}

/// What an alias stands for in the events of a member.
fn aliased<'r>(rule: &'r CorrelationRule, member: &RuleMeta, name: &str) -> Option<&'r str> {
    let by_rule = rule.aliases.get(name)?;
    let field = by_rule.get(&member.id).or_else(|| member.name.as_ref().and_then(|handle| by_rule.get(handle)));
    field.map(String::as_str)
}

/// The fields the signals of a rule keep: what the rules above it group by, judge and say.
fn wanted(plan: &Plan, number: usize, feeds: &[Vec<(usize, u16)>], links: &[Link], names: &mut Names) -> Vec<Wanted> {
    let Some(rule) = plan.rules().get(number) else { return Vec::new() };
    let taxonomy = match rule {
        Rule::Detection(rule) => rule.taxonomy,
        Rule::Correlation(_) | Rule::Sql(_) => Taxonomy::Cicd,
    };
    // Name → whether it decides something, and so is read as the rule's taxonomy says and in no other way.
    let mut wanted: BTreeMap<String, bool> = BTreeMap::new();
    let mut open: Vec<(usize, usize)> = Vec::new();
    let above = |number: usize| feeds.get(number).into_iter().flatten().map(move |(link, _)| (number, *link));
    open.extend(above(number));
    let mut seen = BTreeSet::new();
    while let Some((member, link)) = open.pop() {
        let Some((above_number, Rule::Correlation(outer))) =
            links.get(link).and_then(|link| Some((link.number, plan.rules().get(link.number)?)))
        else {
            continue;
        };
        if !seen.insert((member, link)) {
            continue;
        }
        let member = plan.rules().get(member).map(Rule::meta);
        for name in names_read(outer) {
            let name = member.and_then(|member| aliased(outer, member, name)).unwrap_or(name);
            wanted.insert(name.to_owned(), true);
        }
        for name in said(&outer.meta) {
            wanted.entry(name.to_owned()).or_insert(false);
        }
        open.extend(above(above_number));
    }
    if wanted.is_empty() && feeds.get(number).is_none_or(Vec::is_empty) {
        return Vec::new();
    }
    for field in KEPT {
        wanted.entry(field.name().to_owned()).or_insert(false);
    }
    let read = |(text, decides): (String, bool)| {
        let field = Field::from_name(&text);
        let native = match taxonomy {
            Taxonomy::Cicd => field.is_none(),
            Taxonomy::Sigma => decides || field.is_none(),
        };
        Wanted { name: names.number(&text), field: field.filter(|_| !native), native, text }
    };
    wanted.into_iter().map(read).collect()
}

/// The fields a rule's alert names.
fn said(meta: &RuleMeta) -> impl Iterator<Item = &str> {
    let title = meta.alert.title.as_deref().unwrap_or_default();
    let placeholders = title.split('{').skip(1).filter_map(|part| part.split_once('}').map(|(name, _)| name));
    let placeholders = placeholders.filter(|name| !matches!(*name, "count" | "value"));
    let entities = meta.alert.entity.iter().map(|(_, field)| field.as_str());
    placeholders.chain(entities).chain(meta.alert.dedup.iter().map(String::as_str))
}

/// The largest grace of the tables a condition looks things up in.
fn table_grace(plan: &Plan, condition: &Condition) -> Duration {
    match condition {
        Condition::And(parts) | Condition::Or(parts) => {
            parts.iter().map(|part| table_grace(plan, part)).max().unwrap_or_default()
        }
        Condition::Not(part) => table_grace(plan, part),
        Condition::Lookup(lookup) => {
            let table = plan.tables().iter().find(|table| table.name == lookup.table);
            table.map_or(Duration::ZERO, |table| table.grace)
        }
        Condition::Field { .. } | Condition::Keyword(_) => Duration::ZERO,
    }
}

/// The source types a name under `requires` stands for; none if it is unknown.
fn required_types(name: &str) -> Vec<SourceType> {
    name.parse().into_iter().collect()
}

/// The source types whose watermarks a rule waits for: those it requires, or those its members' logsources are fed by.
pub(super) fn source_types(plan: &Plan, number: usize, depth: usize) -> Vec<SourceType> {
    let Some(rule) = plan.rules().get(number) else { return Vec::new() };
    let required: BTreeSet<SourceType> = rule.meta().requires.iter().flat_map(|name| required_types(name)).collect();
    if !required.is_empty() {
        return required.into_iter().collect();
    }
    match rule {
        Rule::Correlation(_) if depth < 8 => {
            let members = plan.members(number).iter().flat_map(|member| source_types(plan, *member, depth + 1));
            let types: BTreeSet<SourceType> = members.collect();
            types.into_iter().collect()
        }
        Rule::Correlation(_) | Rule::Sql(_) => Vec::new(),
        Rule::Detection(detection) => {
            let wanted = |kind: &SourceType| {
                let fits = |part: &Option<String>, of: &str| part.as_ref().is_none_or(|name| name == of);
                detection.logsource.product.as_deref() == Some("cicd")
                    || kind.info().native.is_some_and(|(product, service)| {
                        fits(&detection.logsource.product, product) && fits(&detection.logsource.service, service)
                    })
            };
            SourceType::ALL.iter().copied().filter(|kind| kind.is_external()).filter(wanted).collect()
        }
    }
}

/// The sources without which a rule cannot say that something did not happen: of each list, one of its types must be
/// heard. They are those the rule requires and those that feed members that must not match.
pub(super) fn heard_for(plan: &Plan, number: usize) -> Vec<Vec<SourceType>> {
    let Some(Rule::Correlation(rule)) = plan.rules().get(number) else { return Vec::new() };
    let Operator::Temporal { clauses, .. } = &rule.operator else { return Vec::new() };
    let absent: BTreeSet<u16> = clauses.iter().flat_map(|clause| clause.absent.iter().copied()).collect();
    if absent.is_empty() {
        return Vec::new();
    }
    let feeding = absent
        .iter()
        .filter_map(|member| plan.members(number).get(usize::from(*member)))
        .map(|member| source_types(plan, *member, 0));
    let required = rule.meta.requires.iter().map(|name| required_types(name));
    let needs: BTreeSet<Vec<SourceType>> = required.chain(feeding).filter(|types| !types.is_empty()).collect();
    needs.into_iter().collect()
}
