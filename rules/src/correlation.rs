//! Sigma correlations: several matches of other rules, together in a window.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeproof_engine::rule::{Comparison, CorrelationRule, Metric, Operator, RuleMeta, Taxonomy, TemporalClause};

use crate::diagnostic::{Code, Place, Report, did_you_mean};
use crate::metadata::{closed, duration_of, text, texts};
use crate::yaml::{Node, Scalar};

mod clauses;
mod condition;

/// The types, Sigma's and ours, with the keys each has besides those of all.
const TYPES: &[(&str, &[&str])] = &[
    ("event_count", &[]),
    ("temporal", &[]),
    ("temporal_extended", &[]),
    ("temporal_ordered", &[]),
    ("temporal_ordered_extended", &[]),
    ("value_avg", &[]),
    ("value_count", &[]),
    ("value_median", &[]),
    ("value_new", &["learn"]),
    ("value_percentile", &[]),
    ("value_rare", &[]),
    ("value_spike", &["learn", "baseline", "season"]),
    ("value_sum", &[]),
];
const KEYS: &[&str] =
    &["type", "rules", "group-by", "timespan", "condition", "aliases", "generate", "emit"];
/// Most rules one correlation looks at.
const MEMBERS_MAX: usize = 1_000;

/// A correlation as written, with the places its names stand at.
pub(crate) struct Draft {
    pub(crate) rule: CorrelationRule,
    /// Whether the taxonomy was written; if not, its members' is taken.
    pub(crate) taxonomy_said: bool,
    /// Whether the members report findings of their own.
    pub(crate) generate: bool,
    pub(crate) members: Vec<(String, Place)>,
    pub(crate) place: Place,
    /// Places of the names used in aliases.
    pub(crate) alias_names: Vec<(String, Place)>,
    /// Fields to group by, aliases left out.
    pub(crate) group_fields: Vec<(String, Place)>,
    /// Other fields of the events that are named.
    pub(crate) fields: Vec<(String, Place)>,
    /// Where the windows are said, for what is wrong with their length.
    pub(crate) timespan_place: Place,
}

/// Reads the `correlation` mapping of a document.
pub(crate) fn read(
    document: &Node,
    node: &Node,
    meta: RuleMeta,
    taxonomy: Option<Taxonomy>,
    report: &mut Report<'_>,
) -> Option<Draft> {
    if node.map().is_none() {
        report.add(Code::WrongType, node.place, format!("`correlation` must be a mapping, not {}", node.kind()));
        return None;
    }
    let before = report.errors();
    let members = texts(node, "rules", report);
    if members.is_empty() {
        report.add(Code::MissingKey, node.place, "the correlation has no `rules`");
    }
    if members.len() > MEMBERS_MAX {
        report.add(Code::CorrelationUse, node.place, format!("the correlation has more than {MEMBERS_MAX} rules"));
        return None;
    }
    let (timespan, session_gap) = timespan(node, report);
    let Found { operator, mut fields } = operator(node, &members, timespan, report);
    let (aliases, alias_names) = aliases(node, report);
    let group_by = texts(node, "group-by", report);
    let group_fields: Vec<_> = group_by.iter().filter(|(field, _)| !aliases.contains_key(field)).cloned().collect();
    fields.extend(aliases.values().flat_map(BTreeMap::values).map(|field| (field.clone(), node.place)));
    let early = early(document, node, operator.as_ref(), report);
    let generate = generate(node, report) | generate(document, report);
    if session_gap.is_some() && !matches!(operator, Some(Operator::Aggregate { .. })) {
        let place = node.get("timespan").map_or(node.place, |found| found.place);
        report.add(Code::CorrelationUse, place, "sessions go with counts and values; other types have a `timespan`");
    }
    if report.errors() > before {
        return None;
    }
    let rule = CorrelationRule {
        meta,
        operator: operator?,
        members: members.iter().map(|(name, _)| name.clone()).collect(),
        group_by: group_by.into_iter().map(|(field, _)| field).collect(),
        aliases,
        timespan: timespan?,
        session_gap,
        early,
        taxonomy: taxonomy.unwrap_or_default(),
    };
    let timespan_place = node.get("timespan").map_or(node.place, |found| found.place);
    Some(Draft {
        rule,
        taxonomy_said: taxonomy.is_some(),
        generate,
        members,
        place: node.place,
        alias_names,
        group_fields,
        fields,
        timespan_place,
    })
}

/// The operator, and the fields that its condition names.
#[derive(Default)]
struct Found {
    operator: Option<Operator>,
    fields: Vec<(String, Place)>,
}

impl From<Option<(Operator, Vec<(String, Place)>)>> for Found {
    fn from(found: Option<(Operator, Vec<(String, Place)>)>) -> Self {
        let (operator, fields) = found.unzip();
        Self { operator, fields: fields.unwrap_or_default() }
    }
}

fn operator(
    node: &Node,
    members: &[(String, Place)],
    timespan: Option<Duration>,
    report: &mut Report<'_>,
) -> Found {
    let Some(kind) = text(node, "type", report) else {
        if node.get("type").is_none() {
            report.add(Code::MissingKey, node.place, "the correlation has no `type`");
        }
        return Found::default();
    };
    let Some((_, besides)) = TYPES.iter().find(|(name, _)| *name == kind) else {
        let place = node.get("type").map_or(node.place, |value| value.place);
        let help = did_you_mean(kind, TYPES.iter().map(|(name, _)| *name));
        report.add_help(Code::UnknownCorrelation, place, format!("unknown correlation type `{kind}`"), help);
        return Found::default();
    };
    let known: Vec<&str> = KEYS.iter().chain(*besides).copied().collect();
    closed(node, "correlation", &known, report);
    match kind {
        "event_count" => condition::mapping(node, kind, &condition::keys(&[]), report)
            .and_then(|found| condition::bounds(found, true, report))
            .map(|bounds| (Operator::Aggregate { metric: Metric::Events, bounds }, Vec::new()))
            .into(),
        "value_count" => count_of_values(node, report).into(),
        "value_new" => condition::new(node, report).into(),
        "value_rare" => condition::rare(node, report).into(),
        "value_spike" => condition::spike(node, timespan, report).into(),
        "value_sum" | "value_avg" | "value_median" | "value_percentile" => condition::value(node, kind, report).into(),
        _ => temporal(node, kind, members, report),
    }
}

fn count_of_values(node: &Node, report: &mut Report<'_>) -> Option<(Operator, Vec<(String, Place)>)> {
    let found = condition::mapping(node, "value_count", &condition::keys(&["field"]), report)?;
    let fields = condition::fields(found, "value_count", report)?;
    let bounds = condition::bounds(found, true, report)?;
    let names = fields.iter().map(|(name, _)| name.clone()).collect();
    Some((Operator::Aggregate { metric: Metric::Distinct(names), bounds }, fields))
}

fn temporal(node: &Node, kind: &str, members: &[(String, Place)], report: &mut Report<'_>) -> Found {
    let ordered = kind.starts_with("temporal_ordered");
    let extended = kind.ends_with("_extended");
    let clauses = match node.get("condition").map(|found| (found, found.text())) {
        None if extended => {
            report.add(Code::MissingKey, node.place, format!("`{kind}` has no `condition` over its rules"));
            None
        }
        None => Some(clauses::all(members.len())),
        Some((found, Some(text))) => clauses::read(text, found.place, members, report),
        Some((found, None)) => how_many(found, kind, members.len(), report),
    };
    let Some(clauses) = clauses else { return Found::default() };
    let lone = |clause: &TemporalClause| clause.present.len() + clause.absent.len() < 2;
    if members.len() == 1 && clauses.iter().all(lone) {
        let message = format!("`{kind}` needs at least two rules, or one and its absence");
        report.add(Code::CorrelationUse, node.place, message);
    }
    Found { operator: Some(Operator::Temporal { ordered, clauses }), fields: Vec::new() }
}

/// `condition: {gte: 2}`: so many of the rules have to match.
fn how_many(found: &Node, kind: &str, members: usize, report: &mut Report<'_>) -> Option<Vec<TemporalClause>> {
    closed(found, "condition", &["gt", "gte"], report);
    let ((Some(at_least), None) | (None, Some(at_least))) = (
        found.get("gte").map(|node| (node, 0)),
        found.get("gt").map(|node| (node, 1)),
    ) else {
        let help = Some("rules joined with `and`, `or` and `not`, or how many of them as in `gte: 2`".to_owned());
        report.add_help(Code::CorrelationCondition, found.place, format!("`{kind}` cannot have this condition"), help);
        return None;
    };
    let (node, more) = at_least;
    let count = match node.scalar() {
        Some(Scalar::Int(number)) => usize::try_from(number).ok().and_then(|number| number.checked_add(more)),
        _ => None,
    };
    let clauses = count.filter(|count| (1..=members).contains(count)).map(|count| clauses::some(members, count));
    match clauses {
        Some(Some(clauses)) => Some(clauses),
        Some(None) => {
            report.add(Code::CorrelationCondition, node.place, "there are too many ways to choose so many rules");
            None
        }
        None => {
            report.add(Code::CorrelationCondition, node.place, format!("of {members} rules so many cannot match"));
            None
        }
    }
}

/// The length of the window, or the longest session and the gap that ends one.
fn timespan(node: &Node, report: &mut Report<'_>) -> (Option<Duration>, Option<Duration>) {
    let Some(found) = node.get("timespan") else {
        report.add(Code::MissingKey, node.place, "the correlation has no `timespan`");
        return (None, None);
    };
    let (timespan, gap) = if found.map().is_some() {
        closed(found, "timespan", &["session", "max"], report);
        for key in ["session", "max"] {
            if found.get(key).is_none() {
                let help = Some("write `timespan: {session: 10m, max: 2h}`".to_owned());
                report.add_help(Code::MissingKey, found.place, format!("a session window needs `{key}`"), help);
            }
        }
        (duration_of(found, "max", report), duration_of(found, "session", report))
    } else {
        (duration_of(node, "timespan", report), None)
    };
    if timespan.is_some_and(|span| span.is_zero()) || gap.is_some_and(|gap| gap.is_zero()) {
        report.add(Code::CorrelationUse, found.place, "a window of no length holds nothing");
    }
    if let (Some(longest), Some(gap)) = (timespan, gap)
        && gap > longest
    {
        report.add(Code::CorrelationUse, found.place, "the gap that ends a session is longer than a session may be");
    }
    (timespan, gap)
}

fn generate(node: &Node, report: &mut Report<'_>) -> bool {
    match node.get("generate").map(|found| (found, found.scalar())) {
        None => false,
        Some((_, Some(Scalar::Bool(generate)))) => generate,
        Some((found, _)) => {
            report.add(Code::WrongType, found.place, "`generate` must be true or false");
            false
        }
    }
}

/// `emit: early` beside or inside the correlation. Only what a further event can never undo may use it: counts of at
/// least so many, and rules that match together with none that must not.
fn early(document: &Node, node: &Node, operator: Option<&Operator>, report: &mut Report<'_>) -> bool {
    let Some(emit) = node.get("emit").or_else(|| document.get("emit")) else { return false };
    match emit.text() {
        Some("early") => {
            let monotone = match operator {
                Some(Operator::Aggregate { metric: Metric::Events | Metric::Distinct(_), bounds }) => {
                    bounds.0.iter().all(|(comparison, _)| matches!(comparison, Comparison::Gt | Comparison::Gte))
                }
                Some(Operator::Temporal { clauses, .. }) => clauses.iter().all(|clause| clause.absent.is_empty()),
                _ => false,
            };
            if operator.is_some() && !monotone {
                let message = "`emit: early` needs a count with `gt` or `gte`, or rules of which none must be absent: \
                               others can change with a late event";
                report.add(Code::CorrelationUse, emit.place, message);
            }
            monotone
        }
        Some("watermark") => false,
        _ => {
            let help = Some("`early`, or `watermark`, which is the default".to_owned());
            report.add_help(Code::WrongType, emit.place, "`emit` cannot be that", help);
            false
        }
    }
}

type Aliases = BTreeMap<String, BTreeMap<String, String>>;

fn aliases(node: &Node, report: &mut Report<'_>) -> (Aliases, Vec<(String, Place)>) {
    let Some(aliases) = node.get("aliases") else { return Default::default() };
    let mut names = Vec::new();
    let mut found = Aliases::new();
    let Some(entries) = aliases.map() else {
        report.add(Code::WrongType, aliases.place, "`aliases` must map names to rules and their fields");
        return Default::default();
    };
    for (alias, by_rule) in entries {
        let Some(fields) = by_rule.map() else {
            report.add(Code::WrongType, by_rule.place, format!("the alias `{}` must map rules to fields", alias.text));
            continue;
        };
        for (rule, field) in fields {
            names.push((rule.text.clone(), rule.place));
            match field.text() {
                Some(field) => {
                    found.entry(alias.text.clone()).or_default().insert(rule.text.clone(), field.to_owned());
                }
                None => report.add(Code::WrongType, field.place, "a field must be a text"),
            }
        }
    }
    (found, names)
}
