//! The semantic digest of a rule: SHA-256 over what decides a match, written in one way whatever the YAML looked like.
//!
//! Equal digests mean equal matches. The form is part of every finding's id; it must not change without a new version.

use std::fmt::Write as _;

use pipeproof_engine::rule::{
    AffixKind, Comparison, Condition, CorrelationRule, DetectionRule, Number, Operator, Predicate, Taxonomy, TextTest,
    WildcardPart,
};
use sha2::{Digest, Sha256};

/// Digest of a detection: logsource, taxonomy, condition with all lists filled in.
pub(crate) fn detection(rule: &DetectionRule) -> String {
    let part = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), quoted);
    let logsource = &rule.logsource;
    hash(&format!(
        "pipeproof detection v1\nlogsource {} {} {}\ntaxonomy {}\n{}\n",
        part(&logsource.product),
        part(&logsource.service),
        part(&logsource.category),
        taxonomy(rule.taxonomy),
        condition(&rule.condition),
    ))
}

/// Digest of a correlation: operator, members by their digests in order, grouping, window, aliases, mode.
pub(crate) fn correlation(rule: &CorrelationRule, members: &[(&str, Option<&str>, &str)]) -> String {
    let mut text = String::from("pipeproof correlation v1\n");
    match &rule.operator {
        Operator::Aggregate { bounds, .. } => {
            for (comparison, bound) in &bounds.0 {
                text.push_str(&format!("event_count {} {}\n", sign(*comparison), number(*bound)));
            }
        }
        _ => text.push_str("temporal_ordered\n"),
    }
    for (_, _, digest) in members {
        text.push_str(&format!("member {digest}\n"));
    }
    for field in &rule.group_by {
        text.push_str(&format!("group {}\n", quoted(field)));
    }
    for (alias, fields) in &rule.aliases {
        // By the member's place, since names and ids decide nothing.
        for (number, (id, name, _)) in members.iter().enumerate() {
            let field = fields.get(*id).or_else(|| name.and_then(|name| fields.get(name)));
            if let Some(field) = field {
                text.push_str(&format!("alias {} {number} {}\n", quoted(alias), quoted(field)));
            }
        }
    }
    let micros = rule.timespan.as_micros();
    text.push_str(&format!("timespan {micros}\nearly {}\ntaxonomy {}\n", rule.early, taxonomy(rule.taxonomy)));
    hash(&text)
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn taxonomy(taxonomy: Taxonomy) -> &'static str {
    match taxonomy {
        Taxonomy::Cicd => "cicd",
        Taxonomy::Sigma => "sigma",
    }
}

fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Lt => "lt",
        Comparison::Lte => "lte",
        Comparison::Gt => "gt",
        Comparison::Gte => "gte",
        Comparison::Eq => "eq",
        Comparison::Neq => "neq",
    }
}

fn affix(kind: AffixKind) -> &'static str {
    match kind {
        AffixKind::Equals => "equals",
        AffixKind::Contains => "contains",
        AffixKind::StartsWith => "startswith",
        AffixKind::EndsWith => "endswith",
    }
}

/// A text with its length, so that no text can be read as two.
fn quoted(text: &str) -> String {
    format!("{}:{text}", text.len())
}

fn condition(of: &Condition) -> String {
    match of {
        // The order of alternatives and of joined tests decides nothing, nor does saying one twice.
        Condition::And(parts) => format!("(and{})", sorted(parts)),
        Condition::Or(parts) => format!("(or{})", sorted(parts)),
        Condition::Not(part) => format!("(not {})", condition(part)),
        Condition::Field { field, predicate } => format!("({} {})", quoted(field), test(predicate)),
        Condition::Keyword(predicate) => format!("(* {})", test(predicate)),
        Condition::Lookup(lookup) => format!("(lookup {lookup:?})"),
    }
}

fn sorted(parts: &[Condition]) -> String {
    let mut texts: Vec<_> = parts.iter().map(condition).collect();
    texts.sort_unstable();
    texts.dedup();
    texts.iter().fold(String::new(), |mut all, text| {
        all.push(' ');
        all.push_str(text);
        all
    })
}

fn number(number: Number) -> String {
    match number {
        Number::Int(int) => format!("int {int}"),
        Number::Float(float) => format!("float {:016x}", float.to_bits()),
    }
}

fn test(predicate: &Predicate) -> String {
    match predicate {
        Predicate::Text { test: TextTest::Plain { kind, text }, cased } => {
            format!("{} {cased} {}", affix(*kind), quoted(text))
        }
        Predicate::Text { test: TextTest::Wildcard(parts), cased } => {
            let mut text = format!("wildcard {cased}");
            for part in parts {
                // Writing to a string does not fail.
                match part {
                    WildcardPart::Literal(literal) => write!(text, " {}", quoted(literal)).ok(),
                    WildcardPart::One => write!(text, " ?").ok(),
                    WildcardPart::Any => write!(text, " *").ok(),
                };
            }
            text
        }
        Predicate::Number(value) => number(*value),
        Predicate::Bool(truth) => format!("bool {truth}"),
        Predicate::Null => "null".to_owned(),
        Predicate::Exists(present) => format!("exists {present}"),
        Predicate::Regex(pattern) => format!("re {}", quoted(pattern)),
        Predicate::Cidr(net) => format!("cidr {net}"),
        Predicate::Compare(comparison, value) => format!("{} {}", sign(*comparison), number(*value)),
        Predicate::TimePart(part, comparison, value) => {
            format!("{part:?} {} {value}", sign(*comparison)).to_lowercase()
        }
        Predicate::FieldRef { field, kind, cased } => format!("ref {} {cased} {}", affix(*kind), quoted(field)),
    }
}
