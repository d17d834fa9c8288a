//! The semantic digest of rules, tables and exceptions: SHA-256 over what decides, written in one way whatever the YAML
//! looked like.
//!
//! Equal digests mean equal matches. The form is part of every finding's id; it must not change without a new version.
//! Every text is written with its length, so that no text can be read as two.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use pipeproof_engine::rule::{
    AffixKind, Bounds, Comparison, Condition, CorrelationRule, DetectionRule, Filter, Lookup, Metric, Number, Operator,
    Predicate, SqlRule, Table, TableRows, Taxonomy, TemporalClause, TextTest, WildcardPart,
};
use pipeproof_engine::source::Logsource;
use sha2::{Digest, Sha256};

/// Digests of tables by name: a rule that looks things up decides otherwise when the table does.
pub(crate) type Tables = BTreeMap<String, String>;

/// Digest of a detection: logsource, taxonomy, condition with all lists filled in.
pub(crate) fn detection(rule: &DetectionRule, tables: &Tables) -> String {
    hash(&format!(
        "pipeproof detection v1\n{}taxonomy {}\n{}\n",
        logsource(&rule.logsource),
        taxonomy(rule.taxonomy),
        condition(&rule.condition, tables),
    ))
}

/// Digest of a correlation: operator, members by their digests in order, grouping, window, aliases, mode.
pub(crate) fn correlation(rule: &CorrelationRule, members: &[(&str, Option<&str>, &str)]) -> String {
    let mut text = format!("pipeproof correlation v1\n{}", operator(&rule.operator));
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
    text.push_str(&format!("timespan {}\n", micros(rule.timespan)));
    if let Some(gap) = rule.session_gap {
        text.push_str(&format!("session {}\n", micros(gap)));
    }
    text.push_str(&format!("early {}\ntaxonomy {}\n", rule.early, taxonomy(rule.taxonomy)));
    hash(&text)
}

/// Digest of a rule that asks the lake.
pub(crate) fn sql(rule: &SqlRule) -> String {
    let key: String = rule.key.iter().map(|column| format!("key {}\n", quoted(column))).collect();
    hash(&format!(
        "pipeproof sql v1\nevery {}\nlookback {}\n{key}query {}\n",
        micros(rule.every),
        micros(rule.lookback),
        quoted(&rule.query),
    ))
}

/// Digest of a table; `rules` are the digests of the rules its rows come from, by the names it uses.
pub(crate) fn table(table: &Table, rules: &dyn Fn(&str) -> String) -> String {
    let mut text = format!("pipeproof table v1\ngrace {}\n", micros(table.grace));
    match &table.rows {
        TableRows::Derived { key, open, close, columns, max_open, retain, taxonomy: own } => {
            for (what, names) in [("open", open), ("close", close)] {
                // In which order the rules are named decides nothing.
                let mut digests: Vec<String> = names.iter().map(|name| rules(name)).collect();
                digests.sort_unstable();
                digests.iter().for_each(|digest| text.push_str(&format!("{what} {digest}\n")));
            }
            key.iter().for_each(|field| text.push_str(&format!("key {}\n", quoted(field))));
            for (column, field) in columns {
                text.push_str(&format!("column {} {}\n", quoted(column), quoted(field)));
            }
            let (max_open, retain) = (micros(*max_open), micros(*retain));
            text.push_str(&format!("max_open {max_open}\nretain {retain}\ntaxonomy {}\n", taxonomy(*own)));
        }
        TableRows::Given(rows) => {
            let mut lines: Vec<String> = rows
                .iter()
                .map(|row| row.iter().map(|(column, cell)| format!(" {} {}", quoted(column), quoted(cell))).collect())
                .collect();
            lines.sort_unstable();
            lines.dedup();
            lines.iter().for_each(|line| text.push_str(&format!("row{line}\n")));
        }
    }
    hash(&text)
}

/// Digest of an exception: what it lets go, of which rules, and until when.
pub(crate) fn filter(filter: &Filter) -> String {
    let mut rules: Vec<String> = filter.rules.iter().flatten().map(|name| format!("rule {}\n", quoted(name))).collect();
    rules.sort_unstable();
    let rules = if filter.rules.is_none() { "rules any\n".to_owned() } else { rules.concat() };
    hash(&format!(
        "pipeproof filter v1\n{rules}{}taxonomy {}\nexpires {}\n{}\n",
        logsource(&filter.logsource),
        taxonomy(filter.taxonomy),
        filter.expires.map_or_else(|| "never".to_owned(), |time| time.as_micros().to_string()),
        condition(&filter.condition, &Tables::new()),
    ))
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn micros(duration: Duration) -> u128 {
    duration.as_micros()
}

fn logsource(logsource: &Logsource) -> String {
    let part = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), quoted);
    let Logsource { product, service, category } = logsource;
    format!("logsource {} {} {}\n", part(product), part(service), part(category))
}

fn taxonomy(taxonomy: Taxonomy) -> &'static str {
    match taxonomy {
        Taxonomy::Cicd => "cicd",
        Taxonomy::Sigma => "sigma",
    }
}

fn operator(of: &Operator) -> String {
    let fields = |fields: &[String]| fields.iter().map(|field| format!(" {}", quoted(field))).collect::<String>();
    match of {
        Operator::Aggregate { metric: of, bounds: limits } => format!("{}\n{}", metric(of), bounds(limits)),
        Operator::Temporal { ordered, clauses } => {
            let mut text = format!("temporal {ordered}\n");
            let mut clauses: Vec<&TemporalClause> = clauses.iter().collect();
            clauses.sort_unstable();
            for TemporalClause { present, absent } in clauses {
                text.push_str(&format!("clause {present:?} {absent:?}\n"));
            }
            text
        }
        Operator::New { fields: of, learn } => {
            format!("new{}\nlearn {} {}\n", fields(of), learn.events, micros(learn.for_))
        }
        Operator::Rare { fields: of, bounds: limits, min } => {
            format!("rare{}\nmin {min}\n{}", fields(of), bounds(limits))
        }
        Operator::Spike { field, comparison, deviation, floor, baseline, hour_of_week, learn_buckets } => format!(
            "spike {}\n{} {}\nfloor {floor}\nbaseline {}\nhour_of_week {hour_of_week}\nlearn {learn_buckets}\n",
            field.as_deref().map_or_else(|| "-".to_owned(), quoted),
            sign(*comparison),
            number(Number::Float(*deviation)),
            micros(*baseline),
        ),
    }
}

fn metric(metric: &Metric) -> String {
    match metric {
        Metric::Events => "events".to_owned(),
        Metric::Distinct(fields) => {
            format!("distinct{}", fields.iter().map(|field| format!(" {}", quoted(field))).collect::<String>())
        }
        Metric::Sum(field) => format!("sum {}", quoted(field)),
        Metric::Average(field) => format!("average {}", quoted(field)),
        Metric::Percentile(field, percent) => {
            format!("percentile {} {}", number(Number::Float(*percent)), quoted(field))
        }
    }
}

fn bounds(Bounds(bounds): &Bounds) -> String {
    // All of them have to hold, so their order decides nothing.
    let mut lines: Vec<String> = bounds
        .iter()
        .map(|(comparison, bound)| format!("bound {} {}\n", sign(*comparison), number(*bound)))
        .collect();
    lines.sort_unstable();
    lines.concat()
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

fn condition(of: &Condition, tables: &Tables) -> String {
    match of {
        // The order of alternatives and of joined tests decides nothing, nor does saying one twice.
        Condition::And(parts) => format!("(and{})", sorted(parts, tables)),
        Condition::Or(parts) => format!("(or{})", sorted(parts, tables)),
        Condition::Not(part) => format!("(not {})", condition(part, tables)),
        Condition::Field { field, predicate } => format!("({} {})", quoted(field), test(predicate)),
        Condition::Keyword(predicate) => format!("(* {})", test(predicate)),
        Condition::Lookup(of) => lookup(of, tables),
    }
}

/// The table stands in it by its digest: what it is called decides nothing.
fn lookup(of: &Lookup, tables: &Tables) -> String {
    let table = tables.get(&of.table).map_or_else(|| quoted(&of.table), Clone::clone);
    let mut lines: Vec<String> =
        of.keys.iter().map(|(field, column)| format!("(key {} {})", quoted(field), quoted(column))).collect();
    lines.extend(of.columns.iter().map(|(column, predicate)| format!("(column {} {})", quoted(column), test(predicate))));
    lines.extend(of.during.iter().map(|field| format!("(during {})", quoted(field))));
    lines.sort_unstable();
    lines.dedup();
    format!("(lookup {table} {})", lines.join(" "))
}

fn sorted(parts: &[Condition], tables: &Tables) -> String {
    let mut texts: Vec<_> = parts.iter().map(|part| condition(part, tables)).collect();
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
