//! The oracle: the semantics of rules written down once more, as simply as can be, on `serde_json` values, one rule and
//! one event at a time. It shares nothing with the plan but the rule's own types.

use serde_json::Value;

use crate::event::Event;
use crate::fields::Field;
use crate::rule::{AffixKind, Comparison, Condition, Number, Predicate, Taxonomy, TextTest, WildcardPart};

pub(super) fn matches(taxonomy: Taxonomy, condition: &Condition, event: &Event) -> bool {
    let native: Value = serde_json::from_slice(&event.native).unwrap();
    holds(taxonomy, condition, event, &native)
}

fn holds(taxonomy: Taxonomy, condition: &Condition, event: &Event, native: &Value) -> bool {
    match condition {
        Condition::And(parts) => parts.iter().all(|part| holds(taxonomy, part, event, native)),
        Condition::Or(parts) => parts.iter().any(|part| holds(taxonomy, part, event, native)),
        Condition::Not(part) => !holds(taxonomy, part, event, native),
        Condition::Field { field, predicate } => {
            let values = values_of(taxonomy, field, event, native);
            match predicate {
                Predicate::Exists(present) => values.is_empty() != *present,
                Predicate::Null => values.is_empty() || values.iter().any(Value::is_null),
                Predicate::FieldRef { field: other, kind, cased } => {
                    let others = values_of(taxonomy, other, event, native);
                    values
                        .iter()
                        .filter_map(scalar)
                        .any(|left| others.iter().filter_map(scalar).any(|right| affix(&left, *kind, &right, *cased)))
                }
                test => values.iter().any(|value| value_holds(test, value)),
            }
        }
        Condition::Lookup(_) => unreachable!("no row of these tests has one"),
        Condition::Keyword(test) => {
            let mut all = Vec::new();
            leaves(native, &mut all);
            all.iter().any(|value| value_holds(test, value))
        }
    }
}

fn leaves(value: &Value, all: &mut Vec<Value>) {
    match value {
        Value::Null => {}
        Value::Array(items) => items.iter().for_each(|item| leaves(item, all)),
        Value::Object(members) => members.values().for_each(|member| leaves(member, all)),
        scalar => all.push(scalar.clone()),
    }
}

fn values_of(taxonomy: Taxonomy, field: &str, event: &Event, native: &Value) -> Vec<Value> {
    if taxonomy == Taxonomy::Cicd
        && let Some(field) = Field::from_name(field)
    {
        return event.fields.get(field).map(crate::fields::Value::to_json).into_iter().collect();
    }
    let mut found = Vec::new();
    at_path(native, &field.split('.').collect::<Vec<_>>(), &mut found);
    found
}

fn at_path(value: &Value, path: &[&str], found: &mut Vec<Value>) {
    match value {
        Value::Array(items) if items.is_empty() && path.is_empty() => found.push(value.clone()),
        Value::Array(items) => items.iter().for_each(|item| at_path(item, path, found)),
        _ if path.is_empty() => found.push(value.clone()),
        Value::Object(members) => {
            for taken in 1..=path.len() {
                if let Some(member) = members.get(&path[..taken].join(".")) {
                    at_path(member, &path[taken..], found);
                }
            }
        }
        _ => {}
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

fn lower(text: &str) -> Vec<char> {
    let single = |char: char| if char.to_lowercase().count() == 1 { char.to_lowercase().next().unwrap() } else { char };
    text.chars().map(single).collect()
}

fn affix(text: &str, kind: AffixKind, part: &str, cased: bool) -> bool {
    let (text, part): (Vec<char>, Vec<char>) =
        if cased { (text.chars().collect(), part.chars().collect()) } else { (lower(text), lower(part)) };
    match kind {
        AffixKind::Equals => text == part,
        AffixKind::Contains => (0..=text.len()).any(|at| text[at..].starts_with(&part)),
        AffixKind::StartsWith => text.starts_with(&part),
        AffixKind::EndsWith => text.ends_with(&part),
    }
}

fn glob(pattern: &[Option<Option<char>>], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((None, rest)) => (0..=text.len()).any(|at| glob(rest, &text[at..])),
        Some((Some(one), rest)) => match text.split_first() {
            Some((char, more)) => one.is_none_or(|one| one == *char) && glob(rest, more),
            None => false,
        },
    }
}

/// `None` is `*`, `Some(None)` is `?`, `Some(Some(c))` is a character.
fn pattern(parts: &[WildcardPart], cased: bool) -> Vec<Option<Option<char>>> {
    let chars = |text: &str| if cased { text.chars().collect() } else { lower(text) };
    parts
        .iter()
        .flat_map(|part| match part {
            WildcardPart::Any => vec![None],
            WildcardPart::One => vec![Some(None)],
            WildcardPart::Literal(text) => chars(text).into_iter().map(|char| Some(Some(char))).collect(),
        })
        .collect()
}

fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Number(number) => {
            Some(number.as_i128().map_or_else(|| Number::Float(number.as_f64().unwrap()), Number::Int))
        }
        Value::String(text) => {
            let unsigned = text.strip_prefix('-').unwrap_or(text);
            if !unsigned.starts_with(|char: char| char.is_ascii_digit()) {
                return None;
            }
            text.parse().map(Number::Int).ok().or_else(|| text.parse().map(Number::Float).ok())
        }
        _ => None,
    }
}

fn equal(left: Number, right: Number) -> bool {
    match (left, right) {
        (Number::Int(left), Number::Int(right)) => left == right,
        (Number::Float(left), Number::Float(right)) => left == right,
        (Number::Int(int), Number::Float(float)) | (Number::Float(float), Number::Int(int)) => int as f64 == float,
    }
}

fn less(left: Number, right: Number) -> bool {
    match (left, right) {
        (Number::Int(left), Number::Int(right)) => left < right,
        (Number::Float(left), Number::Float(right)) => left < right,
        (Number::Int(left), Number::Float(right)) => (left as f64) < right,
        (Number::Float(left), Number::Int(right)) => left < right as f64,
    }
}

fn value_holds(test: &Predicate, value: &Value) -> bool {
    let composite = value.is_object();
    let text = if composite { serde_json::to_string(value).unwrap() } else { scalar(value).unwrap_or_default() };
    if value.is_null() || value.is_array() {
        return false;
    }
    match test {
        Predicate::Text { test: TextTest::Plain { kind, text: part }, cased } => {
            if composite && *kind != AffixKind::Contains {
                return *kind != AffixKind::Equals && part.is_empty();
            }
            affix(&text, *kind, part, *cased)
        }
        Predicate::Text { test: TextTest::Wildcard(parts), cased } => {
            let own: Vec<char> = if *cased { text.chars().collect() } else { lower(&text) };
            let solid = |part: &&WildcardPart| !matches!(part, WildcardPart::Literal(text) if text.is_empty());
            let open = parts.iter().find(solid) == Some(&WildcardPart::Any)
                && parts.iter().rev().find(solid) == Some(&WildcardPart::Any);
            (open || !composite) && glob(&pattern(parts, *cased), &own)
        }
        Predicate::Regex(regex) => regex::Regex::new(regex).unwrap().is_match(&text),
        _ if composite => false,
        Predicate::Number(wanted) => match value {
            Value::Number(_) => equal(number(value).unwrap(), *wanted),
            Value::String(text) => match wanted {
                Number::Int(int) => *text == int.to_string(),
                Number::Float(float) => {
                    text.eq_ignore_ascii_case(&format!("{float}")) || text.eq_ignore_ascii_case(&format!("{float:?}"))
                }
            },
            _ => false,
        },
        Predicate::Bool(wanted) => text.to_lowercase() == wanted.to_string(),
        Predicate::Cidr(net) => value
            .as_str()
            .and_then(|text| text.parse().ok())
            .is_some_and(|address: std::net::IpAddr| net.contains(&address.to_canonical())),
        Predicate::Compare(comparison, right) => number(value).is_some_and(|left| match comparison {
            Comparison::Lt => less(left, *right),
            Comparison::Lte => less(left, *right) || equal(left, *right),
            Comparison::Gt => less(*right, left),
            Comparison::Gte => less(*right, left) || equal(left, *right),
            Comparison::Eq => equal(left, *right),
            Comparison::Neq => !equal(left, *right),
        }),
        Predicate::TimePart(part, comparison, wanted) => crate::predicate::written_date(&text)
            .is_some_and(|date| comparison.holds(&crate::predicate::time_part(&date, *part), wanted)),
        Predicate::Null | Predicate::Exists(_) | Predicate::FieldRef { .. } => unreachable!("handled above"),
    }
}
