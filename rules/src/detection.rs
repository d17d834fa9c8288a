//! Searches of a Sigma detection: maps and lists of `field|modifiers: values` compiled to conditions.

use std::collections::BTreeSet;

use ipnet::IpNet;
use pipeproof_engine::fields::Field;
use pipeproof_engine::rule::{AffixKind, Comparison, Condition, Number, Predicate, Taxonomy, WildcardPart};

use crate::condition::{Searches, parse};
use crate::diagnostic::{Code, Place, Report, did_you_mean};
use crate::lists::Lists;
use crate::value;
use crate::yaml::{Data, Key, Node, Scalar};

/// Every modifier of Sigma v2.1 that is understood.
const MODIFIERS: &[&str] = &[
    "all",
    "base64",
    "base64offset",
    "cased",
    "cidr",
    "contains",
    "dotall",
    "endswith",
    "exists",
    "expand",
    "fieldref",
    "gt",
    "gte",
    "i",
    "ignorecase",
    "lt",
    "lte",
    "m",
    "multiline",
    "neq",
    "re",
    "s",
    "startswith",
    "utf16",
    "utf16be",
    "utf16le",
    "wide",
    "windash",
];
/// Modifiers that exist, in Sigma or in our additions to it, and are not supported yet.
const LATER: &[&str] = &["minute", "hour", "day", "week", "month", "year", "lookup", "during"];

/// What compiling a detection needs to know.
pub(crate) struct Context<'c> {
    pub(crate) taxonomy: Taxonomy,
    pub(crate) lists: &'c Lists,
}

/// Compiles the `detection` mapping to one condition.
pub(crate) fn compile(detection: &Node, context: &Context<'_>, report: &mut Report<'_>) -> Option<Condition> {
    let Some(entries) = detection.map() else {
        report.add(
            Code::WrongType,
            detection.place,
            format!("`detection` must be a mapping, not {}", detection.kind()),
        );
        return None;
    };
    let before = report.errors();
    let mut searches = Searches::new();
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
            name => {
                places.push((name, key.place));
                if let Some(search) = search(node, context, report) {
                    searches.insert(name.to_owned(), search);
                }
            }
        }
    }
    let Some(condition) = condition else {
        report.add(Code::MissingKey, detection.place, "the detection has no `condition`");
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
            Some(text) => parts.extend(parse(text, node.place, &searches, &mut used, report)),
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
            let items: Vec<_> = entries.iter().map(|(key, value)| item(key, value, context, report)).collect();
            let items: Option<Vec<Condition>> = items.into_iter().collect();
            items.map(|mut items| if items.len() == 1 { items.remove(0) } else { Condition::And(items) })
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

/// The names of modifiers after a field, checked.
struct Modifiers<'m> {
    names: Vec<&'m str>,
}

impl Modifiers<'_> {
    fn has(&self, name: &str) -> bool {
        self.names.contains(&name)
    }

    fn first_of(&self, names: &[&str]) -> Option<&str> {
        self.names.iter().copied().find(|name| names.contains(name))
    }

    fn affix(&self) -> Option<AffixKind> {
        self.names.iter().find_map(|name| match *name {
            "contains" => Some(AffixKind::Contains),
            "startswith" => Some(AffixKind::StartsWith),
            "endswith" => Some(AffixKind::EndsWith),
            _ => None,
        })
    }
}

fn modifiers<'m>(key: &'m Key, report: &mut Report<'_>) -> Option<(&'m str, Modifiers<'m>)> {
    let mut parts = key.text.split('|');
    let field = parts.next().unwrap_or_default();
    let names: Vec<&str> = parts.collect();
    let mut fine = true;
    for name in &names {
        if LATER.contains(name) {
            fine = false;
            report.add(Code::UnsupportedModifier, key.place, format!("the modifier `{name}` is not supported yet"));
        } else if !MODIFIERS.contains(name) {
            fine = false;
            let help = did_you_mean(name, MODIFIERS.iter().copied());
            report.add_help(Code::UnknownModifier, key.place, format!("unknown modifier `{name}`"), help);
        }
    }
    let modifiers = Modifiers { names };
    fine.then_some(())?;
    if let Some(problem) = misuse(field, &modifiers) {
        report.add(Code::ModifierUse, key.place, problem);
        return None;
    }
    Some((field, modifiers))
}

/// What is wrong with a combination of modifiers, by Sigma's rules on types and order.
fn misuse(field: &str, modifiers: &Modifiers<'_>) -> Option<String> {
    const KINDS: &[&str] = &["re", "cidr", "exists", "fieldref", "lt", "lte", "gt", "gte"];
    const ENCODERS: &[&str] = &["base64", "base64offset", "wide", "utf16le", "utf16be", "utf16"];
    let mut seen = BTreeSet::new();
    if let Some(twice) = modifiers.names.iter().find(|name| !seen.insert(**name)) {
        return Some(format!("the modifier `{twice}` stands twice"));
    }
    let affixes = ["contains", "startswith", "endswith"].iter().filter(|name| modifiers.has(name)).count();
    if affixes > 1 {
        return Some("`contains`, `startswith` and `endswith` exclude each other".to_owned());
    }
    let kinds: Vec<_> = modifiers.names.iter().filter(|name| KINDS.contains(name)).collect();
    if let [first, second, ..] = kinds.as_slice() {
        return Some(format!("`{first}` and `{second}` exclude each other"));
    }
    if let Some(kind) = kinds.first() {
        // `expand` fills in the values before anything else reads them.
        let before: Vec<_> = modifiers.names.iter().take_while(|name| *name != *kind).collect();
        if matches!(**kind, "re" | "cidr") && before.iter().any(|name| **name != "expand") {
            return Some(format!("`{kind}` must be the first modifier"));
        }
        let allowed: &[&str] = match **kind {
            "re" => &[
                "re",
                "i",
                "ignorecase",
                "m",
                "multiline",
                "s",
                "dotall",
                "all",
                "neq",
                "expand",
                "contains",
                "startswith",
                "endswith",
            ],
            "cidr" => &["cidr", "all", "neq", "expand"],
            "exists" => &["exists"],
            "fieldref" => &["fieldref", "neq", "cased", "all", "contains", "startswith", "endswith"],
            _ => &["lt", "lte", "gt", "gte", "neq", "all"],
        };
        if let Some(other) = modifiers.names.iter().find(|name| !allowed.contains(name)) {
            return Some(format!("`{kind}` does not go with `{other}`"));
        }
        if field.is_empty() && **kind != "re" {
            return Some(format!("`{kind}` needs a field"));
        }
        return None;
    }
    if let Some(flag) = modifiers.first_of(&["i", "ignorecase", "m", "multiline", "s", "dotall"]) {
        return Some(format!("`{flag}` belongs to `re`"));
    }
    let wide = modifiers.names.iter().position(|name| matches!(*name, "wide" | "utf16le" | "utf16be" | "utf16"));
    let base = modifiers.names.iter().position(|name| matches!(*name, "base64" | "base64offset"));
    if let Some(wide) = wide
        && base.is_none_or(|base| base < wide)
    {
        return Some("an UTF-16 encoding has to be followed by `base64` or `base64offset`".to_owned());
    }
    let encoder = modifiers.names.iter().rposition(|name| ENCODERS.contains(name));
    let affix = modifiers.names.iter().position(|name| matches!(*name, "contains" | "startswith" | "endswith"));
    if let (Some(encoder), Some(affix)) = (encoder, affix)
        && affix < encoder
    {
        return Some("`contains`, `startswith` and `endswith` come after encodings".to_owned());
    }
    None
}

/// One `field|modifiers: values`.
fn item(key: &Key, node: &Node, context: &Context<'_>, report: &mut Report<'_>) -> Option<Condition> {
    let (field, modifiers) = modifiers(key, report)?;
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
        report.add(Code::SingleAll, key.place, "`all` has no effect on a single value");
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
    if taxonomy == Taxonomy::Cicd && Field::from_name(field).is_none() {
        let help = did_you_mean(field, Field::ALL.iter().map(|known| known.name()));
        let message = format!("`{field}` is not in the cicd taxonomy; it is looked up as a path into the native JSON");
        report.add_help(Code::UnknownField, place, message, help);
    }
}

/// The predicates one value stands for: alternatives.
fn predicates(
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
    built.map_err(|message| report.add(Code::Value, node.place, message)).ok()
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
    let mut all = Vec::new();
    for text in texts {
        match build(field, &Scalar::Text(&text), &text, modifiers) {
            Ok(predicates) => all.extend(predicates),
            Err(message) => {
                report.add(Code::Value, node.place, message);
                return None;
            }
        }
    }
    Some(all)
}

fn build(field: &str, scalar: &Scalar<'_>, text: &str, modifiers: &Modifiers<'_>) -> Result<Vec<Predicate>, String> {
    if modifiers.has("exists") {
        return match scalar {
            Scalar::Bool(present) => Ok(vec![Predicate::Exists(*present)]),
            _ => Err("`exists` takes true or false".to_owned()),
        };
    }
    if modifiers.has("fieldref") {
        let kind = modifiers.affix().unwrap_or(AffixKind::Equals);
        return Ok(vec![Predicate::FieldRef { field: text.to_owned(), kind, cased: modifiers.has("cased") }]);
    }
    if modifiers.has("re") {
        return regex(text, modifiers).map(|pattern| vec![Predicate::Regex(pattern)]);
    }
    if modifiers.has("cidr") {
        return network(text).map(|net| vec![Predicate::Cidr(net)]);
    }
    if let Some(name) = modifiers.first_of(&["lt", "lte", "gt", "gte"]) {
        let comparison = match name {
            "lt" => Comparison::Lt,
            "lte" => Comparison::Lte,
            "gt" => Comparison::Gt,
            _ => Comparison::Gte,
        };
        return match scalar {
            Scalar::Int(number) => Ok(vec![Predicate::Compare(comparison, Number::Int(*number))]),
            Scalar::Float(number) => Ok(vec![Predicate::Compare(comparison, Number::Float(*number))]),
            _ => Err(format!("`{name}` takes a number, not `{text}`")),
        };
    }
    let keyword = field.is_empty();
    let textual = keyword || modifiers.names.iter().any(|name| !matches!(*name, "all" | "neq" | "expand"));
    match scalar {
        Scalar::Null if textual => Err("a missing value has no text to compare".to_owned()),
        Scalar::Null => Ok(vec![Predicate::Null]),
        Scalar::Bool(truth) if !textual => Ok(vec![Predicate::Bool(*truth)]),
        Scalar::Int(number) if !textual => Ok(vec![Predicate::Number(Number::Int(*number))]),
        Scalar::Float(number) if !textual => Ok(vec![Predicate::Number(Number::Float(*number))]),
        _ => texts(text, keyword, modifiers),
    }
}

/// What a string is turned into by the modifiers, from left to right.
enum Form {
    Pattern(Vec<WildcardPart>),
    Bytes(Vec<u8>),
}

fn texts(text: &str, keyword: bool, modifiers: &Modifiers<'_>) -> Result<Vec<Predicate>, String> {
    let mut forms = vec![Form::Pattern(value::parse(text))];
    for name in &modifiers.names {
        let mut next = Vec::with_capacity(forms.len());
        for form in forms {
            apply(name, form, &mut next)?;
        }
        forms = next;
    }
    // A keyword is looked for anywhere in a value.
    let kind = modifiers.affix().unwrap_or(if keyword { AffixKind::Contains } else { AffixKind::Equals });
    let cased = modifiers.has("cased") || modifiers.has("base64") || modifiers.has("base64offset");
    forms
        .into_iter()
        .map(|form| match form {
            Form::Pattern(parts) => Ok(value::predicate(parts, kind, cased)),
            Form::Bytes(_) => Err("encoded bytes are no text".to_owned()),
        })
        .collect()
}

fn apply(name: &str, form: Form, next: &mut Vec<Form>) -> Result<(), String> {
    let literal = |form: &Form| match form {
        Form::Bytes(bytes) => Ok(bytes.clone()),
        Form::Pattern(parts) => value::plain(parts)
            .map(String::into_bytes)
            .ok_or_else(|| format!("`{name}` cannot encode a value with wildcards")),
    };
    let text = |form: &Form| match form {
        Form::Pattern(parts) => {
            value::plain(parts).ok_or_else(|| format!("`{name}` cannot encode a value with wildcards"))
        }
        Form::Bytes(_) => Err(format!("`{name}` cannot encode what is encoded already")),
    };
    let encoded = |text: String| Form::Pattern(vec![WildcardPart::Literal(text)]);
    match name {
        "windash" => match &form {
            Form::Pattern(parts) => next.extend(value::windash(parts)?.into_iter().map(Form::Pattern)),
            Form::Bytes(_) => return Err("`windash` comes before encodings".to_owned()),
        },
        "wide" | "utf16le" => next.push(Form::Bytes(value::utf16(&text(&form)?, true, false))),
        "utf16be" => next.push(Form::Bytes(value::utf16(&text(&form)?, false, false))),
        "utf16" => next.push(Form::Bytes(value::utf16(&text(&form)?, true, true))),
        "base64" => next.push(encoded(value::base64(&literal(&form)?))),
        "base64offset" => next.extend(value::base64_offsets(&literal(&form)?).into_iter().map(encoded)),
        _ => next.push(form),
    }
    Ok(())
}

fn regex(text: &str, modifiers: &Modifiers<'_>) -> Result<String, String> {
    let mut flags = String::new();
    for (flag, names) in [('i', ["i", "ignorecase"]), ('m', ["m", "multiline"]), ('s', ["s", "dotall"])] {
        if modifiers.first_of(&names).is_some() {
            flags.push(flag);
        }
    }
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
    match regex::Regex::new(&pattern) {
        Ok(_) => Ok(pattern),
        Err(regex::Error::Syntax(message)) => {
            let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Err(format!("the regular expression `{text}` cannot be used: {last}"))
        }
        Err(error) => Err(format!("the regular expression `{text}` cannot be used: {error}")),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().map(|net| net.trunc());
    parsed
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("`{text}` is no network in CIDR notation"))
}

/// All modifiers that are understood, for the documentation.
#[must_use]
pub fn known_modifiers() -> &'static [&'static str] {
    MODIFIERS
}

#[cfg(test)]
#[path = "detection/tests.rs"]
mod tests;
