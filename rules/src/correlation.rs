//! Sigma correlations: several matches of other rules, together in a window.

use std::collections::BTreeMap;

use pipeproof_engine::rule::{
    Bounds, Comparison, CorrelationRule, Metric, Number, Operator, RuleMeta, Taxonomy, TemporalClause,
};

use crate::detection::check_field;
use crate::diagnostic::{Code, Place, Report, did_you_mean};
use crate::metadata::{closed, duration_of, text, texts};
use crate::yaml::{Node, Scalar};

/// Types that exist, in Sigma or in our additions to it, and are not supported yet.
const LATER: &[&str] = &[
    "temporal",
    "temporal_extended",
    "temporal_ordered_extended",
    "value_avg",
    "value_count",
    "value_median",
    "value_new",
    "value_percentile",
    "value_rare",
    "value_spike",
    "value_sum",
];
const NOW: &[&str] = &["event_count", "temporal_ordered"];

/// A correlation as written, with the places its names stand at.
pub(crate) struct Draft {
    pub(crate) rule: CorrelationRule,
    /// Whether the members report findings of their own.
    pub(crate) generate: bool,
    pub(crate) members: Vec<(String, Place)>,
    pub(crate) place: Place,
    /// Places of the names used in aliases.
    pub(crate) alias_names: Vec<(String, Place)>,
}

/// Reads the `correlation` mapping of a document.
pub(crate) fn read(
    document: &Node,
    node: &Node,
    meta: RuleMeta,
    taxonomy: Taxonomy,
    report: &mut Report<'_>,
) -> Option<Draft> {
    if node.map().is_none() {
        report.add(Code::WrongType, node.place, format!("`correlation` must be a mapping, not {}", node.kind()));
        return None;
    }
    let before = report.errors();
    let known = [
        "type",
        "rules",
        "group-by",
        "timespan",
        "condition",
        "aliases",
        "generate",
        "emit",
        "learn",
        "baseline",
        "season",
    ];
    closed(node, "correlation", &known, report);
    let operator = operator(node, report);
    let members = texts(node, "rules", report);
    if members.is_empty() {
        report.add(Code::MissingKey, node.place, "the correlation has no `rules`");
    }
    let timespan = duration_of(node, "timespan", report);
    if node.get("timespan").is_none() {
        report.add(Code::MissingKey, node.place, "the correlation has no `timespan`");
    }
    let (aliases, alias_names) = aliases(node, report);
    let group_by = texts(node, "group-by", report);
    for (field, place) in &group_by {
        if !aliases.contains_key(field) {
            check_field(field, *place, taxonomy, report);
        }
    }
    for fields in aliases.values().flat_map(BTreeMap::values) {
        check_field(fields, node.place, taxonomy, report);
    }
    let early = early(document, node, operator.as_ref(), report);
    let generate = match node.get("generate") {
        None => false,
        Some(value) => match value.scalar() {
            Some(Scalar::Bool(generate)) => generate,
            _ => {
                report.add(Code::WrongType, value.place, "`generate` must be true or false");
                false
            }
        },
    };
    if matches!(operator, Some(Operator::Temporal { .. })) && members.len() < 2 {
        report.add(Code::CorrelationUse, node.place, "`temporal_ordered` needs at least two rules");
    }
    if report.errors() > before {
        return None;
    }
    let mut operator = operator?;
    if let Operator::Temporal { clauses, .. } = &mut operator {
        let present = (0..members.len()).filter_map(|number| u16::try_from(number).ok()).collect();
        clauses.push(TemporalClause { present, absent: Vec::new() });
    }
    let rule = CorrelationRule {
        meta,
        operator,
        members: members.iter().map(|(name, _)| name.clone()).collect(),
        group_by: group_by.into_iter().map(|(field, _)| field).collect(),
        aliases,
        timespan: timespan?,
        session_gap: None,
        early,
        taxonomy,
    };
    Some(Draft { rule, generate, members, place: node.place, alias_names })
}

fn operator(node: &Node, report: &mut Report<'_>) -> Option<Operator> {
    let Some(kind) = text(node, "type", report) else {
        report.add(Code::MissingKey, node.place, "the correlation has no `type`");
        return None;
    };
    let place = node.get("type").map_or(node.place, |value| value.place);
    match kind {
        "event_count" => event_count(node, report),
        "temporal_ordered" => {
            if let Some(condition) = node.get("condition") {
                let message = "a condition of `temporal_ordered` is not supported yet: all its rules have to match";
                report.add(Code::UnsupportedCorrelation, condition.place, message);
                return None;
            }
            Some(Operator::Temporal { ordered: true, clauses: Vec::new() })
        }
        later if LATER.contains(&later) => {
            let message = format!("the correlation type `{later}` is not supported yet");
            report.add(Code::UnsupportedCorrelation, place, message);
            None
        }
        other => {
            let help = did_you_mean(other, NOW.iter().chain(LATER).copied());
            report.add_help(Code::UnknownCorrelation, place, format!("unknown correlation type `{other}`"), help);
            None
        }
    }
}

fn event_count(node: &Node, report: &mut Report<'_>) -> Option<Operator> {
    let Some(condition) = node.get("condition") else {
        report.add(Code::MissingKey, node.place, "`event_count` has no `condition`");
        return None;
    };
    let Some(entries) = condition.map() else {
        let help = Some("for example `gte: 10`".to_owned());
        let message = "the condition of `event_count` compares a count with a number";
        report.add_help(Code::CorrelationUse, condition.place, message, help);
        return None;
    };
    let [(key, value)] = entries else {
        let message = "a condition with several comparisons is not supported yet";
        report.add(Code::UnsupportedCorrelation, condition.place, message);
        return None;
    };
    let comparison = match key.text.as_str() {
        "lt" => Comparison::Lt,
        "lte" => Comparison::Lte,
        "gt" => Comparison::Gt,
        "gte" => Comparison::Gte,
        "eq" => Comparison::Eq,
        "neq" => Comparison::Neq,
        other => {
            let help = did_you_mean(other, ["lt", "lte", "gt", "gte", "eq", "neq"]);
            report.add_help(Code::CorrelationUse, key.place, format!("`{other}` compares no counts"), help);
            return None;
        }
    };
    match value.scalar() {
        Some(Scalar::Int(count)) if count >= 0 => {
            let bounds = Bounds(vec![(comparison, Number::Int(count))]);
            Some(Operator::Aggregate { metric: Metric::Events, bounds })
        }
        _ => {
            report.add(Code::WrongType, value.place, "a count is a whole number from 0");
            None
        }
    }
}

/// `emit: early` beside or inside the correlation. Only what a further event can never undo may use it: a count of at
/// least so many, and a sequence.
fn early(document: &Node, node: &Node, operator: Option<&Operator>, report: &mut Report<'_>) -> bool {
    let Some(emit) = node.get("emit").or_else(|| document.get("emit")) else { return false };
    match emit.text() {
        Some("early") => {
            let monotone = match operator {
                Some(Operator::Aggregate { metric: Metric::Events, bounds }) => {
                    bounds.0.iter().all(|(comparison, _)| matches!(comparison, Comparison::Gt | Comparison::Gte))
                }
                Some(Operator::Temporal { ordered: true, .. }) => true,
                _ => false,
            };
            if operator.is_some() && !monotone {
                let message = "`emit: early` needs a sequence, or an `event_count` with `gt` or `gte`: others can change \
                               with a late event";
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
