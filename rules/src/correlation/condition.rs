//! The condition of a correlation that computes something: a field, and what its number is compared with.

use std::time::Duration;

use pipeproof_engine::rule::{Bounds, Comparison, Learn, Metric, Number, Operator};

use crate::diagnostic::{Code, Place, Report, did_you_mean};
use crate::metadata::{closed, duration_of, text, texts};
use crate::yaml::{Node, Scalar};

/// How the comparisons of a condition are written.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("lt", Comparison::Lt),
    ("lte", Comparison::Lte),
    ("gt", Comparison::Gt),
    ("gte", Comparison::Gte),
    ("eq", Comparison::Eq),
    ("neq", Comparison::Neq),
];
/// Buckets that must have come before in a group for it not to be cold, unless the rule says how many.
const LEARN_BUCKETS: u64 = 5;
/// Most buckets of a baseline.
const BUCKETS_MAX: u128 = 100_000;
/// Most fields whose values are taken together.
const FIELDS_MAX: usize = 16;

/// The keys that comparisons may stand under, before those a type has besides.
pub(crate) fn keys(besides: &[&'static str]) -> Vec<&'static str> {
    besides.iter().copied().chain(COMPARISONS.iter().map(|(name, _)| *name)).collect()
}

/// The condition of a correlation, which must be a mapping with `keys`.
pub(crate) fn mapping<'n>(
    node: &'n Node,
    kind: &str,
    keys: &[&str],
    report: &mut Report<'_>,
) -> Option<&'n Node> {
    let Some(condition) = node.get("condition") else {
        report.add(Code::MissingKey, node.place, format!("`{kind}` has no `condition`"));
        return None;
    };
    if condition.map().is_none() {
        let help = Some("a mapping, as in `condition: {gte: 10}`".to_owned());
        report.add_help(Code::CorrelationUse, condition.place, format!("`{kind}` compares a number"), help);
        return None;
    }
    closed(condition, "condition", keys, report);
    Some(condition)
}

/// All comparisons of a condition, at least one.
pub(crate) fn bounds(condition: &Node, counts: bool, report: &mut Report<'_>) -> Option<Bounds> {
    let before = report.errors();
    let mut found = Vec::new();
    for (name, comparison) in COMPARISONS {
        let Some(node) = condition.get(name) else { continue };
        match node.scalar() {
            Some(Scalar::Int(number)) if !counts || number >= 0 => found.push((comparison, Number::Int(number))),
            Some(Scalar::Float(number)) if !counts && number.is_finite() => {
                found.push((comparison, Number::Float(number)));
            }
            _ if counts => report.add(Code::WrongType, node.place, "a count is a whole number from 0"),
            _ => report.add(Code::WrongType, node.place, format!("`{name}` takes a number")),
        }
    }
    if found.is_empty() && report.errors() == before {
        let help = Some("one or several of lt, lte, gt, gte, eq, neq".to_owned());
        report.add_help(Code::CorrelationUse, condition.place, "the condition compares with nothing", help);
    }
    (report.errors() == before).then_some(Bounds(found))
}

/// The fields under `field`: one, or several taken together.
pub(crate) fn fields(condition: &Node, kind: &str, report: &mut Report<'_>) -> Option<Vec<(String, Place)>> {
    let found = texts(condition, "field", report);
    let unfit = found.iter().any(|(name, _)| name.trim().is_empty());
    if found.is_empty() || unfit || found.len() > FIELDS_MAX {
        let message = format!("the condition of `{kind}` needs `field`: one field, or up to {FIELDS_MAX}");
        report.add(Code::MissingKey, condition.get("field").map_or(condition.place, |node| node.place), message);
        return None;
    }
    Some(found)
}

/// `value_sum`, `value_avg`, `value_median`, `value_percentile`.
pub(crate) fn value(node: &Node, kind: &str, report: &mut Report<'_>) -> Option<(Operator, Vec<(String, Place)>)> {
    let percentile = kind == "value_percentile";
    let keys = keys(if percentile { &["field", "percentile"] } else { &["field"] });
    let condition = mapping(node, kind, &keys, report)?;
    let fields = fields(condition, kind, report)?;
    let [(field, _)] = fields.as_slice() else {
        report.add(Code::CorrelationUse, condition.place, format!("`{kind}` computes over a single field"));
        return None;
    };
    let field = field.clone();
    let metric = match kind {
        "value_sum" => Metric::Sum(field),
        "value_avg" => Metric::Average(field),
        "value_median" => Metric::Percentile(field, 50.0),
        _ => Metric::Percentile(field, percent(condition, report)?),
    };
    let bounds = bounds(condition, false, report)?;
    Some((Operator::Aggregate { metric, bounds }, fields))
}

#[allow(clippy::cast_precision_loss, reason = "only 0 to 100 is let through")]
fn percent(condition: &Node, report: &mut Report<'_>) -> Option<f64> {
    let Some(node) = condition.get("percentile") else {
        let help = Some("for example `percentile: 95`".to_owned());
        report.add_help(Code::MissingKey, condition.place, "`value_percentile` needs `percentile`", help);
        return None;
    };
    let number = match node.scalar() {
        Some(Scalar::Int(number)) => number as f64,
        Some(Scalar::Float(number)) => number,
        _ => f64::NAN,
    };
    if !(0.0..=100.0).contains(&number) {
        report.add(Code::WrongType, node.place, "a percentile is a number from 0 to 100");
        return None;
    }
    Some(number)
}

/// `value_new`.
pub(crate) fn new(node: &Node, report: &mut Report<'_>) -> Option<(Operator, Vec<(String, Place)>)> {
    let condition = mapping(node, "value_new", &["field"], report)?;
    let fields = fields(condition, "value_new", report)?;
    let learn = match node.get("learn") {
        None => {
            let help = Some("for example `learn: {for: 14d}` or `learn: {events: 20}`".to_owned());
            let message = "without `learn`, the first value of every group is found as new";
            report.add_help(Code::NoLearn, node.place, message, help);
            Learn::default()
        }
        Some(learn) => {
            closed(learn, "learn", &["events", "for"], report);
            let events = whole(learn, "events", report);
            let for_ = duration_of(learn, "for", report);
            if events.is_none() && for_.is_none() {
                report.add(Code::CorrelationUse, learn.place, "`learn` of `value_new` says `events`, `for`, or both");
                return None;
            }
            Learn { events: events.unwrap_or_default(), for_: for_.unwrap_or_default() }
        }
    };
    Some((Operator::New { fields: names(&fields), learn }, fields))
}

/// `value_rare`.
pub(crate) fn rare(node: &Node, report: &mut Report<'_>) -> Option<(Operator, Vec<(String, Place)>)> {
    let condition = mapping(node, "value_rare", &keys(&["field", "min"]), report)?;
    let fields = fields(condition, "value_rare", report)?;
    let bounds = bounds(condition, false, report)?;
    for (_, number) in &bounds.0 {
        let share = match number {
            Number::Int(number) => (0..=1).contains(number),
            Number::Float(number) => (0.0..=1.0).contains(number),
        };
        if !share {
            report.add(Code::CorrelationUse, condition.place, "a share lies between 0 and 1, as in `lte: 0.01`");
            return None;
        }
    }
    let Some(min) = whole(condition, "min", report).filter(|min| *min > 0) else {
        let help = Some("the fewest events of a group on which a share is judged, as in `min: 200`".to_owned());
        report.add_help(Code::MissingKey, condition.place, "`value_rare` needs `min`, a number from 1", help);
        return None;
    };
    Some((Operator::Rare { fields: names(&fields), bounds, min }, fields))
}

/// `value_spike`; `bucket` is the rule's timespan.
#[allow(clippy::cast_precision_loss, reason = "deviations are small numbers")]
pub(crate) fn spike(
    node: &Node,
    bucket: Option<Duration>,
    report: &mut Report<'_>,
) -> Option<(Operator, Vec<(String, Place)>)> {
    let condition = mapping(node, "value_spike", &["field", "floor", "gt", "gte", "lt", "lte"], report)?;
    let counted = match condition.get("field") {
        None => Vec::new(),
        Some(_) => fields(condition, "value_spike", report)?,
    };
    if counted.len() > 1 {
        report.add(Code::CorrelationUse, condition.place, "`value_spike` counts the values of a single field");
        return None;
    }
    let Bounds(found) = bounds(condition, false, report)?;
    let [(comparison, deviation)] = found.as_slice() else {
        report.add(Code::CorrelationUse, condition.place, "`value_spike` has one comparison, with a deviation");
        return None;
    };
    let rise = matches!(comparison, Comparison::Gt | Comparison::Gte);
    let deviation = match deviation {
        Number::Int(number) => *number as f64,
        Number::Float(number) => *number,
    };
    if (rise && deviation <= 0.0) || (!rise && deviation >= 0.0) {
        let help = Some("`gte: 8` for a spike, `lte: -5` for a drop".to_owned());
        report.add_help(Code::CorrelationUse, condition.place, "a spike lies above zero, a drop below", help);
        return None;
    }
    let floor = whole(condition, "floor", report);
    if rise && floor.is_none_or(|floor| floor == 0) {
        let help = Some("the smallest count that may be a spike, as in `floor: 10`".to_owned());
        report.add_help(Code::MissingKey, condition.place, "`value_spike` needs `floor`, a number from 1", help);
        return None;
    }
    let learn_buckets = match node.get("learn") {
        None => LEARN_BUCKETS,
        Some(learn) => {
            closed(learn, "learn", &["buckets"], report);
            whole(learn, "buckets", report).unwrap_or(LEARN_BUCKETS)
        }
    };
    let baseline = duration_of(node, "baseline", report);
    if node.get("baseline").is_none() {
        let help = Some("how far back earlier buckets count, as in `baseline: 28d`".to_owned());
        report.add_help(Code::MissingKey, node.place, "`value_spike` has no `baseline`", help);
    }
    let season = match node.get("season").map(|_| text(node, "season", report)) {
        None => false,
        Some(Some("hour_of_week")) => true,
        Some(other) => {
            let help = did_you_mean(other.unwrap_or_default(), ["hour_of_week"]);
            let help = help.or_else(|| Some("there is `hour_of_week`".to_owned()));
            let place = node.get("season").map_or(node.place, |season| season.place);
            report.add_help(Code::CorrelationUse, place, "no such `season`", help);
            false
        }
    };
    let (baseline, bucket) = (baseline?, bucket?);
    let buckets = baseline.as_micros().checked_div(bucket.as_micros()).unwrap_or(u128::MAX);
    if !(1..=BUCKETS_MAX).contains(&buckets) {
        let message = format!("`baseline` holds from 1 to {BUCKETS_MAX} buckets of the length of `timespan`");
        report.add(Code::CorrelationUse, node.get("baseline").map_or(node.place, |found| found.place), message);
        return None;
    }
    let operator = Operator::Spike {
        field: counted.first().map(|(field, _)| field.clone()),
        comparison: *comparison,
        deviation,
        floor: floor.unwrap_or_default(),
        baseline,
        hour_of_week: season,
        learn_buckets,
    };
    Some((operator, counted))
}

fn names(fields: &[(String, Place)]) -> Vec<String> {
    fields.iter().map(|(name, _)| name.clone()).collect()
}

/// A whole number from 0 under `key`.
fn whole(node: &Node, key: &str, report: &mut Report<'_>) -> Option<u64> {
    let found = node.get(key)?;
    let number = match found.scalar() {
        Some(Scalar::Int(number)) => u64::try_from(number).ok(),
        _ => None,
    };
    if number.is_none() {
        report.add(Code::WrongType, found.place, format!("`{key}` is a whole number from 0"));
    }
    number
}
