//! Searches of a Sigma detection: maps and lists of `field|modifiers: values` compiled to conditions.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use ipnet::IpNet;
use pipeproof_engine::fields::Field;
use pipeproof_engine::json::DEPTH_MAX;
use pipeproof_engine::rule::{AffixKind, Comparison, Condition, Number, Predicate, Taxonomy};

use crate::condition::{Searches, parse};
use crate::diagnostic::{Code, Place, Report, did_you_mean};
use crate::lists::Lists;
use crate::lookup::{self, TableUse};
use crate::modifiers::{self, Modifiers};
use crate::value::{self, Form};
use crate::yaml::{Data, Key, Node, Scalar};

/// Longest part of a regular expression that a message repeats, in characters.
const REGEX_SHOWN_MAX: usize = 200;
/// Most tests one detection may compile to, values of lists filled in.
const TESTS_MAX: usize = 1_000_000;

/// What compiling a detection needs to know.
pub(crate) struct Context<'c> {
    pub(crate) taxonomy: Taxonomy,
    pub(crate) lists: &'c Lists,
    /// Tables and columns that were named.
    pub(crate) tables: RefCell<Vec<TableUse>>,
    /// Tests compiled so far.
    tests: Cell<usize>,
}

impl<'c> Context<'c> {
    pub(crate) fn new(taxonomy: Taxonomy, lists: &'c Lists) -> Self {
        Self { taxonomy, lists, tables: RefCell::default(), tests: Cell::new(0) }
    }
}

/// Compiles the `detection` mapping to one condition.
pub(crate) fn compile(detection: &Node, context: &Context<'_>, report: &mut Report<'_>) -> Option<Condition> {
    compile_but(detection, "detection", &[], context, report)
}

/// Compiles a mapping of searches and a condition; `besides` are keys of it that are neither.
pub(crate) fn compile_but(
    detection: &Node,
    what: &str,
    besides: &[&str],
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Option<Condition> {
    let Some(entries) = detection.map() else {
        report.add(Code::WrongType, detection.place, format!("`{what}` must be a mapping, not {}", detection.kind()));
        return None;
    };
    let before = report.errors();
    let mut searches = Searches::default();
    let mut places: Vec<(&str, Place)> = Vec::new();
    let mut condition = None;
    for (key, node) in entries {
        match key.text.as_str() {
            "condition" => condition = Some(node),
            "timeframe" => report.add_help(
                Code::Obsolete,
                key.place,
                "`timeframe` belongs to aggregations, which are obsolete",
                Some("write a correlation rule with a `timespan`".to_owned()),
            ),
            name if besides.contains(&name) => {}
            name => {
                places.push((name, key.place));
                if let Some(search) = search(node, context, report) {
                    searches.insert(name.to_owned(), search);
                }
            }
        }
    }
    let Some(condition) = condition else {
        report.add(Code::MissingKey, detection.place, format!("the {what} has no `condition`"));
        return None;
    };
    if report.errors() > before {
        return None;
    }
    let mut used = BTreeSet::new();
    let conditions: Vec<&Node> = condition.list().map_or_else(|| vec![condition], |items| items.iter().collect());
    let mut parts = Vec::new();
    for node in conditions {
        match node.text() {
            Some(text) => parts.extend(parse(text, node.place, &mut searches, &mut used, report)),
            None => report.add(Code::WrongType, node.place, format!("a condition must be a text, not {}", node.kind())),
        }
    }
    if report.errors() > before {
        return None;
    }
    for (name, place) in places {
        if !used.contains(name) && !name.starts_with('_') {
            report.add(Code::UnusedSearch, place, format!("no condition names the search `{name}`"));
        }
    }
    if parts.len() == 1 { parts.pop() } else { Some(Condition::Or(parts)) }
}

/// A search: a map is all of its items, a list is any of its elements, a lone text is a keyword.
fn search(node: &Node, context: &Context<'_>, report: &mut Report<'_>) -> Option<Condition> {
    match &node.data {
        Data::Map(entries) => {
            let (lookups, others) = lookup::take(entries, context, report)?;
            // All lines are read, so that all that is wrong is told.
            let items: Vec<_> = others.into_iter().map(|(key, value)| item(key, value, context, report)).collect();
            let mut items: Vec<Condition> = items.into_iter().collect::<Option<_>>()?;
            items.extend(lookups);
            Some(if items.len() == 1 { items.remove(0) } else { Condition::And(items) })
        }
        Data::List(elements) if elements.is_empty() => {
            report.add(Code::EmptyList, node.place, "an empty list matches nothing");
            None
        }
        Data::List(elements) => {
            let parts: Vec<_> = elements.iter().map(|element| search(element, context, report)).collect();
            parts.into_iter().collect::<Option<Vec<_>>>().map(Condition::Or)
        }
        Data::Scalar(..) => {
            let key = Key { place: node.place, text: String::new() };
            item(&key, node, context, report)
        }
    }
}

/// One `field|modifiers: values`.
fn item(key: &Key, node: &Node, context: &Context<'_>, report: &mut Report<'_>) -> Option<Condition> {
    let (field, modifiers) = modifiers::read(key, report)?;
    if !field.is_empty() {
        check_field(field, key.place, context.taxonomy, report);
    }
    let values: Vec<&Node> = match &node.data {
        Data::List(items) if items.is_empty() => {
            report.add(Code::EmptyList, node.place, format!("`{}` has an empty list, which matches nothing", key.text));
            return None;
        }
        Data::List(items) => items.iter().collect(),
        Data::Map(_) => {
            let help = Some("nested fields are written with dots".to_owned());
            report.add_help(Code::WrongType, node.place, format!("`{}` holds a mapping", key.text), help);
            return None;
        }
        Data::Scalar(..) => vec![node],
    };
    if modifiers.has("all") && values.len() == 1 && !modifiers.has("expand") {
        report.add(Code::ModifierUse, key.place, "`all` needs a list of several values");
        return None;
    }
    if let (true, Some(null)) = (values.len() > 1, values.iter().find(|value| value.scalar() == Some(Scalar::Null))) {
        let help = Some("write a search of its own for the missing field".to_owned());
        report.add_help(Code::Value, null.place, "null cannot be one of several values", help);
        return None;
    }
    let mut parts = Vec::new();
    for value in values {
        let predicates = predicates(field, value, &modifiers, context, report)?;
        // What one value expands to are alternatives, also under `all`.
        let mut alternatives: Vec<Condition> = predicates
            .into_iter()
            .map(|predicate| match field {
                "" => Condition::Keyword(predicate),
                field => Condition::Field { field: field.to_owned(), predicate },
            })
            .collect();
        parts.push(if alternatives.len() == 1 { alternatives.remove(0) } else { Condition::Or(alternatives) });
    }
    let joined = match parts.len() {
        1 => parts.remove(0),
        _ if modifiers.has("all") => Condition::And(parts),
        _ => Condition::Or(parts.into_iter().flat_map(flatten).collect()),
    };
    Some(if modifiers.has("neq") { Condition::Not(Box::new(joined)) } else { joined })
}

fn flatten(condition: Condition) -> Vec<Condition> {
    match condition {
        Condition::Or(parts) => parts,
        other => vec![other],
    }
}

/// A name under `taxonomy: cicd` that looks like one of the table but is not.
pub(crate) fn check_field(field: &str, place: Place, taxonomy: Taxonomy, report: &mut Report<'_>) {
    if field.split('.').count() > DEPTH_MAX {
        report.add(
            Code::Value,
            place,
            format!("a field has more than {DEPTH_MAX} parts, deeper than any event is read"),
        );
        return;
    }
    if taxonomy == Taxonomy::Cicd && Field::from_name(field).is_none() {
        let help = did_you_mean(field, Field::ALL.iter().map(|known| known.name()));
        let message = format!("`{field}` is not in the cicd taxonomy; it is looked up as a path into the native JSON");
        report.add_help(Code::UnknownField, place, message, help);
    }
}

/// The predicates one value stands for: alternatives.
pub(crate) fn predicates(
    field: &str,
    node: &Node,
    modifiers: &Modifiers<'_>,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Option<Vec<Predicate>> {
    let Some(scalar) = node.scalar() else {
        report.add(Code::WrongType, node.place, format!("a value cannot be {}", node.kind()));
        return None;
    };
    if let (Data::Scalar(text, true), Scalar::Text(_)) = (&node.data, &scalar)
        && matches!(text.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off")
    {
        report.add(Code::YesNo, node.place, format!("`{text}` is read as text; put it in quotes to make that clear"));
    }
    if modifiers.has("expand") {
        return expanded(field, node, modifiers, context, report);
    }
    let built = build(field, &scalar, node.text().unwrap_or_default(), modifiers);
    let built = built.map_err(|problem| report.add(problem.code, node.place, problem.message)).ok()?;
    if let (Taxonomy::Cicd, [Predicate::FieldRef { field, .. }]) = (context.taxonomy, built.as_slice()) {
        check_field(field, node.place, context.taxonomy, report);
    }
    count(built, node, context, report)
}

/// Passes on predicates as long as the detection does not have too many.
fn count(built: Vec<Predicate>, node: &Node, context: &Context<'_>, report: &mut Report<'_>) -> Option<Vec<Predicate>> {
    let tests = context.tests.get().saturating_add(built.len());
    context.tests.set(tests);
    if tests > TESTS_MAX {
        report.add(Code::Value, node.place, format!("the detection has more than {TESTS_MAX} tests"));
        return None;
    }
    Some(built)
}

/// Fills in `%name%` from the lists, then goes on with each value.
fn expanded(
    field: &str,
    node: &Node,
    modifiers: &Modifiers<'_>,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Option<Vec<Predicate>> {
    let text = node.text().unwrap_or_default();
    let texts = match context.lists.expand(text) {
        Ok(texts) => texts,
        Err(missing) => {
            let help = did_you_mean(&missing, context.lists.names());
            let help = help.or_else(|| Some(format!("define it in a file named {missing}.txt in a folder `lists`")));
            report.add_help(Code::Placeholder, node.place, format!("no list is called `{missing}`"), help);
            return None;
        }
    };
    if texts.is_empty() {
        let help = Some("nothing equals a value of it; put values in, one a line".to_owned());
        report.add_help(Code::EmptyNamedList, node.place, format!("a list in `{text}` is empty"), help);
    }
    let mut all = Vec::new();
    for text in texts {
        match build(field, &Scalar::Text(&text), &text, modifiers) {
            Ok(predicates) => all.extend(predicates),
            Err(problem) => {
                report.add(problem.code, node.place, problem.message);
                return None;
            }
        }
    }
    count(all, node, context, report)
}

/// What is wrong with a value.
struct Problem {
    code: Code,
    message: String,
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self { code: Code::Value, message }
    }
}

impl From<&str> for Problem {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

fn build(field: &str, scalar: &Scalar<'_>, text: &str, modifiers: &Modifiers<'_>) -> Result<Vec<Predicate>, Problem> {
    if modifiers.has("exists") {
        return match scalar {
            Scalar::Bool(present) => Ok(vec![Predicate::Exists(*present)]),
            _ => Err("`exists` takes true or false".into()),
        };
    }
    if modifiers.has("fieldref") {
        let kind = modifiers.affix().unwrap_or(AffixKind::Equals);
        let plain = value::plain(&value::parse(text)).filter(|name| !name.is_empty());
        let field = plain.ok_or_else(|| format!("`{text}` is no field name"))?;
        return Ok(vec![Predicate::FieldRef { field, kind, cased: modifiers.has("cased") }]);
    }
    if modifiers.has("re") {
        return regex(text, modifiers).map(|pattern| vec![Predicate::Regex(pattern)]);
    }
    if modifiers.has("cidr") {
        return network(text).map(|net| vec![Predicate::Cidr(net)]);
    }
    if let Some((name, part, least, greatest)) = modifiers.time_part() {
        let comparison = modifiers.comparison().map_or(Comparison::Eq, |(_, comparison)| comparison);
        return match scalar {
            Scalar::Int(number) if (least..=greatest).contains(number) => {
                let number = i64::try_from(*number).unwrap_or_default();
                Ok(vec![Predicate::TimePart(part, comparison, number)])
            }
            _ => Err(format!("`{name}` takes a whole number from {least} to {greatest}, not `{text}`").into()),
        };
    }
    if let Some((name, comparison)) = modifiers.comparison() {
        return match scalar {
            Scalar::Int(number) => Ok(vec![Predicate::Compare(comparison, Number::Int(*number))]),
            Scalar::Float(number) if number.is_finite() => {
                Ok(vec![Predicate::Compare(comparison, Number::Float(*number))])
            }
            _ => Err(format!("`{name}` takes a number, not `{text}`").into()),
        };
    }
    let keyword = field.is_empty();
    let textual = keyword || modifiers.names.iter().any(|name| !matches!(*name, "all" | "neq" | "expand"));
    match scalar {
        Scalar::Null if textual => Err("a missing value has no text to compare".into()),
        Scalar::Null => Ok(vec![Predicate::Null]),
        Scalar::Bool(truth) if !textual => Ok(vec![Predicate::Bool(*truth)]),
        Scalar::Int(number) if !textual => Ok(vec![Predicate::Number(Number::Int(*number))]),
        Scalar::Float(number) if !textual && number.is_finite() => Ok(vec![Predicate::Number(Number::Float(*number))]),
        _ => texts(text, keyword, modifiers),
    }
}

fn texts(text: &str, keyword: bool, modifiers: &Modifiers<'_>) -> Result<Vec<Predicate>, Problem> {
    let mut forms = vec![Form::Pattern(value::parse(text))];
    for name in &modifiers.names {
        let mut next = Vec::with_capacity(forms.len());
        for form in forms {
            form.apply(name, &mut next)?;
        }
        forms = next;
    }
    // A keyword is looked for anywhere in a value.
    let kind = modifiers.affix().unwrap_or(if keyword { AffixKind::Contains } else { AffixKind::Equals });
    let cased = modifiers.has("cased") || modifiers.has("base64") || modifiers.has("base64offset");
    let finish = |form: Form| Ok(value::predicate(form.text()?, kind, cased));
    forms.into_iter().map(finish).collect()
}

fn regex(text: &str, modifiers: &Modifiers<'_>) -> Result<String, Problem> {
    let flags = modifiers.flags();
    // In PCRE `\<` and `\>` are plain characters; here they would be borders of words.
    let mut pattern = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, chars.clone().next()) {
            ('\\', Some(next @ ('<' | '>'))) => {
                pattern.push(next);
                chars.next();
            }
            ('\\', Some(next)) => {
                pattern.push('\\');
                pattern.push(next);
                chars.next();
            }
            (other, _) => pattern.push(other),
        }
    }
    pattern = match modifiers.affix() {
        Some(AffixKind::StartsWith) => format!("^(?:{pattern})"),
        Some(AffixKind::EndsWith) => format!("(?:{pattern})$"),
        _ => pattern,
    };
    if !flags.is_empty() {
        pattern = format!("(?{flags}){pattern}");
    }
    let problem = match regex::Regex::new(&pattern) {
        Ok(_) => return Ok(pattern),
        Err(regex::Error::Syntax(message)) => {
            message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
        Err(error) => error.to_string(),
    };
    let shown: String = text.chars().take(REGEX_SHOWN_MAX).collect();
    let dots = if shown.len() < text.len() { "…" } else { "" };
    let message = format!("the regular expression `{shown}{dots}` cannot be used: {problem}");
    Err(Problem { code: Code::Regex, message })
}

fn network(text: &str) -> Result<IpNet, Problem> {
    let parsed = text.parse::<IpNet>().map(|net| net.trunc());
    parsed
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("`{text}` is no network in CIDR notation").into())
}

#[cfg(test)]
#[path = "detection/tests.rs"]
mod tests;
