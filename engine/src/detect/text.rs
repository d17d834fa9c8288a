//! What findings and messages say: titles, entities, reasons.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::commit::Message;
use crate::correlate::{Deviation, Fired, What};
use crate::event::Event;
use crate::fields::Field;
use crate::finding::{Anchor, Finding, short_hex};
use crate::rule::{Bounds, Comparison, CorrelationRule, Metric, Number, Operator, RuleMeta, TemporalClause};
use crate::time::Timestamp;

/// A finding with what its rule says of itself; the caller fills in the rest.
pub(super) fn described(meta: &RuleMeta, fired: Timestamp) -> Finding {
    Finding {
        id: String::new(),
        rule_id: meta.id.clone(),
        rule_title: meta.title.clone(),
        rule_digest: meta.digest.clone(),
        level: meta.level,
        risk: meta.risk,
        state: meta.state,
        title: String::new(),
        time: fired,
        occurred: None,
        available: fired,
        fired,
        retro: false,
        key: BTreeMap::new(),
        entities: Vec::new(),
        events: Vec::new(),
        because: Vec::new(),
        controls: meta.controls.clone(),
        tags: meta.tags.clone(),
        incident: None,
    }
}

pub(super) fn anchor(event: &Event) -> Anchor {
    Anchor { source: event.source.to_string(), item: event.item.to_string(), sub: event.id.sub }
}

pub(super) fn message(anchor: &str, kind: &str, incident: &str, at: Timestamp, body: serde_json::Value) -> Message {
    let hash =
        Sha256::new_with_prefix(b"pipeproof message v1\n").chain_update(kind).chain_update([0]).chain_update(anchor);
    Message {
        id: format!("m-{}", short_hex(&hash.finalize())),
        kind: kind.to_owned(),
        incident: Some(incident.to_owned()),
        at,
        body,
    }
}

/// `kind:value` of every entity the rule names and the event has; without any named, repository and identity.
pub(super) fn entities(meta: &RuleMeta, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let default = [("repo", Field::CiRepo.name()), ("identity", Field::ActorId.name())];
    let named: Vec<(&str, &str)> = if meta.alert.entity.is_empty() {
        default.to_vec()
    } else {
        meta.alert.entity.iter().map(|(kind, field)| (kind.as_str(), field.as_str())).collect()
    };
    let mut entities: Vec<String> = Vec::new();
    for (kind, field) in named {
        if let Some(value) = read(field) {
            let entity = format!("{kind}:{value}");
            if !entities.contains(&entity) {
                entities.push(entity);
            }
        }
    }
    entities
}

/// The alert's title with `{field}` filled in; `?` stands for a field the event lacks.
pub(super) fn alert_title(meta: &RuleMeta, read: &dyn Fn(&str) -> Option<String>) -> String {
    let Some(template) = &meta.alert.title else { return meta.title.clone() };
    let mut title = String::new();
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        title.push_str(before);
        let Some((field, after)) = after.split_once('}') else {
            title.push('{');
            rest = after;
            continue;
        };
        title.push_str(&read(field).unwrap_or_else(|| "?".to_owned()));
        rest = after;
    }
    title.push_str(rest);
    title
}

/// What a member rule is called in reasons.
fn called(meta: &RuleMeta) -> &str {
    meta.name.as_deref().unwrap_or(&meta.title)
}

const fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Lt => "<",
        Comparison::Lte => "≤",
        Comparison::Gt => ">",
        Comparison::Gte => "≥",
        Comparison::Eq => "=",
        Comparison::Neq => "≠",
    }
}

fn bounds_text(bounds: &Bounds) -> String {
    let part = |(comparison, number): &(Comparison, Number)| match number {
        Number::Int(number) => format!("{} {number}", sign(*comparison)),
        Number::Float(number) => format!("{} {number}", sign(*comparison)),
    };
    bounds.0.iter().map(part).collect::<Vec<_>>().join(" and ")
}

/// Why a correlation fired, with its numbers. `member` gives a member rule's own words, `read` a field's value.
pub(super) fn reasons<'p>(
    rule: &CorrelationRule,
    fired: &Fired,
    member: &dyn Fn(u16) -> Option<&'p RuleMeta>,
    read: &dyn Fn(&str) -> Option<String>,
) -> Vec<String> {
    let secs = rule.timespan.as_secs_f64();
    let within = if rule.session_gap.is_some() {
        format!("within a session of at most {secs} s")
    } else {
        format!("within {secs} s")
    };
    let values = |fields: &[String]| {
        let value = |field: &String| format!("{field}={}", read(field).unwrap_or_default());
        fields.iter().map(value).collect::<Vec<_>>().join(", ")
    };
    match (&fired.what, &rule.operator) {
        (What::Aggregate { value, count }, Operator::Aggregate { metric, bounds }) => {
            let what = match metric {
                Metric::Events => format!("{value} events"),
                Metric::Distinct(fields) => format!("{value} distinct values of {}", fields.join(", ")),
                Metric::Sum(field) => format!("{field} sums up to {value} over {count} events"),
                Metric::Average(field) => format!("{field} is {value} on average of {count} events"),
                Metric::Percentile(field, 50.0) => format!("the median of {field} is {value} over {count} events"),
                Metric::Percentile(field, percentile) => {
                    format!("percentile {percentile} of {field} is {value} over {count} events")
                }
            };
            vec![format!("{what} {within} (condition: {})", bounds_text(bounds))]
        }
        (What::Temporal { clause }, Operator::Temporal { ordered, clauses }) => {
            let title = |number| member(number).map_or("", |meta| meta.title.as_str());
            let mut reasons: Vec<String> =
                fired.signals.iter().map(|signal| format!("{} at {}", title(signal.member), signal.time)).collect();
            if let Some(clause) = clauses.get(usize::from(*clause)) {
                reasons.extend(missing(clause, *ordered, secs, &|number| member(number).map_or("", called)));
            }
            reasons
        }
        (What::New { events, since }, Operator::New { fields, .. }) => {
            vec![format!("{} is new after {events} events since {since}", values(fields))]
        }
        (What::Rare { own, all }, Operator::Rare { fields, bounds, .. }) => {
            let share = *own as f64 / (*all).max(1) as f64;
            let condition = bounds_text(bounds);
            vec![format!(
                "{} in {own} of {all} events {within}: a share of {share:.4} (condition: {condition})",
                values(fields)
            )]
        }
        (What::Spike(found) | What::Drop(found), Operator::Spike { field, comparison, deviation, floor, .. }) => {
            let counted =
                field.as_ref().map_or_else(|| "events".to_owned(), |field| format!("distinct values of {field}"));
            vec![deviates(found, &counted, secs, (*comparison, *deviation, *floor))]
        }
        _ => Vec::new(),
    }
}

fn missing<'p>(
    clause: &TemporalClause,
    ordered: bool,
    secs: f64,
    name: &dyn Fn(u16) -> &'p str,
) -> impl Iterator<Item = String> {
    let last = clause.present.last().copied().unwrap_or(0);
    clause.absent.iter().map(move |absent| {
        let name = name(*absent);
        if !ordered {
            format!("{name} did not happen within {secs} s before or after")
        } else if *absent < last {
            format!("{name} did not happen in the {secs} s before")
        } else {
            format!("{name} did not follow within {secs} s")
        }
    })
}

fn deviates(
    found: &Deviation,
    counted: &str,
    secs: f64,
    (comparison, deviation, floor): (Comparison, f64, u64),
) -> String {
    let Deviation { count, start, median, z, buckets } = *found;
    match z {
        Some(z) => format!(
            "{count} {counted} in the {secs} s from {start}, against a median of {median} in {buckets} earlier ones: \
             a deviation of {z:.2} (condition: {} {deviation}, at least {floor})",
            sign(comparison)
        ),
        None => format!(
            "{count} {counted} in the {secs} s from {start}, with {buckets} earlier ones to compare with: too few, so at \
             least {floor} is enough"
        ),
    }
}
