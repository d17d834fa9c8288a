//! The oracle: the semantics of rules written down once more, as simply as can be, on trees of values, one rule and one
//! event at a time. It shares nothing with the plan but the rule's own types.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::event::Event;
use crate::fields::Field;
use crate::rule::{AffixKind, Comparison, Condition, Number, Predicate, Taxonomy, TextTest, WildcardPart};

/// JSON in which a key may be repeated.
#[derive(Clone, Debug)]
enum Tree {
    Scalar(Value),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Tree;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar(Value::Null))
            }
            fn visit_bool<E>(self, truth: bool) -> Result<Tree, E> {
                Ok(Tree::Scalar(truth.into()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
                Ok(Tree::Scalar(number.into()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
                Ok(Tree::Scalar(number.into()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
                Ok(Tree::Scalar(number.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Scalar(text.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Tree::Array(all))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    all.push(member);
                }
                Ok(Tree::Object(all))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

impl Tree {
    fn compact(&self) -> String {
        match self {
            Self::Scalar(value) => value.to_string(),
            Self::Array(items) => format!("[{}]", items.iter().map(Self::compact).collect::<Vec<_>>().join(",")),
            Self::Object(members) => {
                let member =
                    |(key, value): &(String, Self)| format!("{}:{}", Value::from(key.as_str()), value.compact());
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }
        }
    }
}

pub(super) fn matches(taxonomy: Taxonomy, condition: &Condition, event: &Event) -> bool {
    let native: Tree = serde_json::from_slice(&event.native).unwrap();
    holds(taxonomy, condition, event, &native)
}

fn holds(taxonomy: Taxonomy, condition: &Condition, event: &Event, native: &Tree) -> bool {
    match condition {
        Condition::And(parts) => parts.iter().all(|part| holds(taxonomy, part, event, native)),
        Condition::Or(parts) => parts.iter().any(|part| holds(taxonomy, part, event, native)),
        Condition::Not(part) => !holds(taxonomy, part, event, native),
        Condition::Field { field, predicate } => {
            let values = values_of(taxonomy, field, event, native);
            match predicate {
                Predicate::Exists(present) => values.is_empty() != *present,
                Predicate::Null => values.is_empty() || values.iter().any(|v| matches!(v, Tree::Scalar(Value::Null))),
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

fn leaves(value: &Tree, all: &mut Vec<Tree>) {
    match value {
        Tree::Scalar(Value::Null) => {}
        Tree::Array(items) => items.iter().for_each(|item| leaves(item, all)),
        Tree::Object(members) => members.iter().for_each(|(_, member)| leaves(member, all)),
        scalar => all.push(scalar.clone()),
    }
}

fn values_of(taxonomy: Taxonomy, field: &str, event: &Event, native: &Tree) -> Vec<Tree> {
    if taxonomy == Taxonomy::Cicd
        && let Some(field) = Field::from_name(field)
    {
        return event.fields.get(field).map(|value| Tree::Scalar(value.to_json())).into_iter().collect();
    }
    let mut found = Vec::new();
    for name in names(field) {
        at_path(native, &name.split('.').collect::<Vec<_>>(), &mut found);
    }
    found
}

/// What rules for Google Cloud call the parts of a log entry.
fn names(field: &str) -> Vec<String> {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    if ["gcp.audit.method_name", "protoPayload.methodName", "data.protoPayload.methodName"].contains(&field) {
        own(&["gcp.audit.method_name", "protoPayload.methodName", "data.protoPayload.methodName"])
    } else if field.starts_with("data.protoPayload.") {
        own(&[field, field.trim_start_matches("data.")])
    } else if field.starts_with("protoPayload.") {
        own(&[field, &format!("data.{field}")])
    } else {
        own(&[field])
    }
}

fn at_path(value: &Tree, path: &[&str], found: &mut Vec<Tree>) {
    match value {
        Tree::Array(items) if items.is_empty() && path.is_empty() => found.push(value.clone()),
        Tree::Array(items) => items.iter().for_each(|item| at_path(item, path, found)),
        _ if path.is_empty() => found.push(value.clone()),
        Tree::Object(members) => {
            for taken in 1..=path.len() {
                let key = path[..taken].join(".");
                for (_, member) in members.iter().filter(|(name, _)| *name == key) {
                    at_path(member, &path[taken..], found);
                }
            }
        }
        Tree::Scalar(_) => {}
    }
}

fn scalar(value: &Tree) -> Option<String> {
    match value {
        Tree::Scalar(Value::String(text)) => Some(text.clone()),
        Tree::Scalar(value @ (Value::Bool(_) | Value::Number(_))) => Some(value.to_string()),
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

fn value_holds(test: &Predicate, tree: &Tree) -> bool {
    let composite = matches!(tree, Tree::Object(_));
    let text = if composite { tree.compact() } else { scalar(tree).unwrap_or_default() };
    let value = match tree {
        Tree::Scalar(Value::Null) | Tree::Array(_) => return false,
        Tree::Scalar(value) => value.clone(),
        Tree::Object(_) => Value::Null,
    };
    let value = &value;
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
