//! Sigma, as the specification has it, on one rule and one event at a time: as simple as can be, and slow. It shares
//! nothing with the crate under test but the libraries for regular expressions and addresses.

use std::net::IpAddr;

use base64::Engine as _;
use serde_json::{Map, Value};

/// A rule text as a tree of JSON values.
pub(crate) fn read(rule: &str) -> Value {
    serde_saphyr::from_str(rule).unwrap_or_else(|error| panic!("{rule}\n{error}"))
}

/// Whether the rule matches.
pub(crate) fn matches(rule: &Value, event: &Value) -> bool {
    let detection = rule["detection"].as_object().unwrap();
    match &detection["condition"] {
        Value::Array(conditions) => conditions.iter().any(|text| condition(text.as_str().unwrap(), detection, event)),
        text => condition(text.as_str().unwrap(), detection, event),
    }
}

/// The condition language: every function takes words off the front.
fn condition(text: &str, detection: &Map<String, Value>, event: &Value) -> bool {
    let text = text.replace('(', " ( ").replace(')', " ) ");
    let mut words = text.split_whitespace().peekable();
    let held = or(&mut words, detection, event);
    assert!(words.next().is_none(), "{text}");
    held
}

type Words<'w> = std::iter::Peekable<std::str::SplitWhitespace<'w>>;

fn or(words: &mut Words<'_>, detection: &Map<String, Value>, event: &Value) -> bool {
    let mut held = and(words, detection, event);
    while words.next_if_eq(&"or").is_some() {
        held |= and(words, detection, event);
    }
    held
}

fn and(words: &mut Words<'_>, detection: &Map<String, Value>, event: &Value) -> bool {
    let mut held = not(words, detection, event);
    while words.next_if_eq(&"and").is_some() {
        held &= not(words, detection, event);
    }
    held
}

fn not(words: &mut Words<'_>, detection: &Map<String, Value>, event: &Value) -> bool {
    if words.next_if_eq(&"not").is_some() {
        return !not(words, detection, event);
    }
    let word = words.next().unwrap();
    if word == "(" {
        let held = or(words, detection, event);
        assert_eq!(words.next(), Some(")"));
        return held;
    }
    if words.next_if_eq(&"of").is_none() {
        return search(&detection[word], event);
    }
    let pattern = words.next().unwrap();
    let pattern = if pattern == "them" { "*" } else { pattern };
    let chosen = |name: &&String| {
        *name != "condition"
            && (!name.starts_with('_') || pattern.starts_with('_'))
            && glob(
                &pattern.chars().map(|char| if char == '*' { Part::Many } else { Part::Is(char) }).collect::<Vec<_>>(),
                name,
            )
    };
    let mut names = detection.keys().filter(chosen);
    if word == "all" {
        names.all(|name| search(&detection[name], event))
    } else {
        names.any(|name| search(&detection[name], event))
    }
}

fn search(search: &Value, event: &Value) -> bool {
    match search {
        Value::Object(items) => items.iter().all(|(key, values)| item(key, values, event)),
        Value::Array(parts) => parts.iter().any(|part| self::search(part, event)),
        keyword => item("", keyword, event),
    }
}

fn item(key: &str, values: &Value, event: &Value) -> bool {
    let mut parts = key.split('|');
    let field = parts.next().unwrap();
    let modifiers: Vec<&str> = parts.collect();
    let values = values.as_array().cloned().unwrap_or_else(|| vec![values.clone()]);
    let found = if field.is_empty() { everything(event) } else { at(field, event) };
    let holds = |value: &Value| value_holds(value, &modifiers, field.is_empty(), &found, event);
    let held = if modifiers.contains(&"all") { values.iter().all(holds) } else { values.iter().any(holds) };
    held != modifiers.contains(&"neq")
}

/// Every value at a path: dots lead into objects or belong to names, arrays stand for their members. An empty array
/// is there, but no value.
fn at<'e>(path: &str, value: &'e Value) -> Vec<&'e Value> {
    match value {
        Value::Array(members) if members.is_empty() && path.is_empty() => vec![value],
        Value::Array(members) => members.iter().flat_map(|member| at(path, member)).collect(),
        _ if path.is_empty() => vec![value],
        Value::Object(members) => {
            let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
            let inner = ends.filter_map(|end| Some((members.get(&path[..end])?, path[end..].trim_start_matches('.'))));
            inner.flat_map(|(member, rest)| at(rest, member)).collect()
        }
        _ => Vec::new(),
    }
}

/// Every scalar of the event.
fn everything(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(members) => members.iter().flat_map(everything).collect(),
        Value::Object(members) => members.values().flat_map(everything).collect(),
        Value::Null => Vec::new(),
        scalar => vec![scalar],
    }
}

/// A value as the text it is written as in JSON.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

fn value_holds(wanted: &Value, modifiers: &[&str], keyword: bool, found: &[&Value], event: &Value) -> bool {
    let has = |name: &str| modifiers.contains(&name);
    let affix = ["contains", "startswith", "endswith"].into_iter().find(|name| has(name));
    if has("exists") {
        return found.is_empty() != wanted.as_bool().unwrap();
    }
    if has("fieldref") {
        let others = at(wanted.as_str().unwrap(), event);
        let pairs = found.iter().filter_map(|own| text(own));
        return pairs.into_iter().any(|own| {
            others.iter().filter_map(|other| text(other)).any(|other| {
                let (own, other) = (lower(&own), lower(&other));
                match affix {
                    None => own == other,
                    Some("contains") => own.contains(&other),
                    Some("startswith") => own.starts_with(&other),
                    _ => own.ends_with(&other),
                }
            })
        });
    }
    if wanted.is_null() {
        return found.is_empty() || found.iter().any(|value| value.is_null());
    }
    if has("re") {
        let flags: String = modifiers.iter().filter(|name| matches!(**name, "i" | "m" | "s")).copied().collect();
        let flags = if flags.is_empty() { flags } else { format!("(?{flags})") };
        let regex = regex::Regex::new(&format!("{flags}{}", text(wanted).unwrap())).unwrap();
        let object = |value: &&Value| value.is_object().then(|| value.to_string());
        return found
            .iter()
            .any(|value| text(value).or_else(|| object(value)).is_some_and(|text| regex.is_match(&text)));
    }
    if has("cidr") {
        let net: ipnet::IpNet = wanted.as_str().unwrap().parse().unwrap();
        let inside = |address: IpAddr| net.contains(&address.to_canonical());
        return found.iter().any(|value| value.as_str().is_some_and(|text| text.parse().is_ok_and(inside)));
    }
    if let Some(name) = ["lt", "lte", "gt", "gte"].into_iter().find(|name| has(name)) {
        return found.iter().filter_map(|value| number(value)).any(|own| {
            let order = own.cmp(&number(wanted).unwrap());
            match name {
                "lt" => order.is_lt(),
                "lte" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }
        });
    }
    if !keyword && !modifiers.iter().any(|name| !matches!(*name, "all" | "neq")) {
        if let Value::Number(_) = wanted {
            let written = wanted.to_string();
            let same = |value: &&&Value| match value {
                Value::Number(_) => number(value) == number(wanted),
                Value::String(text) => *text == written,
                _ => false,
            };
            return found.iter().find(same).is_some();
        }
        if let Value::Bool(truth) = wanted {
            return found.iter().filter_map(|value| text(value)).any(|text| text.to_lowercase() == truth.to_string());
        }
    }
    let cased = has("cased") || has("base64") || has("base64offset");
    let affix = affix.or(keyword.then_some("contains"));
    let written = text(wanted).unwrap();
    forms(&written, modifiers).into_iter().any(|mut pattern| {
        if matches!(affix, Some("contains" | "endswith")) {
            pattern.insert(0, Part::Many);
        }
        if matches!(affix, Some("contains" | "startswith")) {
            pattern.push(Part::Many);
        }
        found.iter().any(|value| fits(&pattern, value, cased))
    })
}

fn fits(pattern: &[Part], value: &Value, cased: bool) -> bool {
    let only_stars = !pattern.is_empty() && pattern.iter().all(|part| *part == Part::Many);
    let open = pattern.first() == Some(&Part::Many) && pattern.last() == Some(&Part::Many);
    let text = match value {
        Value::Object(_) if only_stars => return true,
        Value::Object(_) if open => value.to_string(),
        _ => match text(value) {
            Some(text) => text,
            None => return false,
        },
    };
    if cased {
        return glob(pattern, &text);
    }
    let folded: Vec<Part> = pattern
        .iter()
        .map(|part| match part {
            Part::Is(char) => Part::Is(lower(&char.to_string()).chars().next().unwrap()),
            other => *other,
        })
        .collect();
    glob(&folded, &lower(&text))
}

fn lower(text: &str) -> String {
    text.to_lowercase()
}

/// Exact enough for the numbers of these tests: in halves.
fn number(value: &Value) -> Option<i128> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    if !text.strip_prefix('-').unwrap_or(&text).starts_with(|char: char| char.is_ascii_digit()) {
        return None;
    }
    if let Ok(whole) = text.parse::<i128>() {
        return Some(whole * 2);
    }
    text.parse::<f64>().ok().map(|half| (half * 2.0) as i128)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Is(char),
    One,
    Many,
}

/// A backslash takes the meaning from a wildcard or a backslash after it, and is itself before anything else.
fn pattern(written: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let chars: Vec<char> = written.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let next = chars.get(at + 1).copied();
        parts.push(match (chars[at], next) {
            ('\\', Some(escaped @ ('*' | '?' | '\\'))) => {
                at += 1;
                Part::Is(escaped)
            }
            ('*', _) => Part::Many,
            ('?', _) => Part::One,
            (plain, _) => Part::Is(plain),
        });
        at += 1;
    }
    parts
}

fn glob(pattern: &[Part], text: &str) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((Part::Many, rest)) => {
            let places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            places.into_iter().any(|at| glob(rest, &text[at..]))
        }
        Some((one, rest)) => {
            let mut chars = text.chars();
            let fits = chars.next().is_some_and(|char| *one == Part::One || *one == Part::Is(char));
            fits && glob(rest, chars.as_str())
        }
    }
}

/// The patterns a value stands for after its modifiers, from left to right.
fn forms(written: &str, modifiers: &[&str]) -> Vec<Vec<Part>> {
    let mut forms = vec![pattern(written)];
    let mut bytes: Vec<u8> = written.bytes().collect();
    let literal = |text: &str| text.chars().map(Part::Is).collect::<Vec<_>>();
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    for name in modifiers {
        match *name {
            "wide" => bytes = written.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            "base64" => forms = vec![literal(&base64(&bytes))],
            "base64offset" => {
                // What is the same whatever stands before and after: the characters all of whose bits are the value's.
                forms = (0..3).map(|before| literal(&inner(&bytes, before, &base64))).collect();
            }
            "windash" => forms = forms.iter().flat_map(|form| dashes(form)).collect(),
            _ => {}
        }
    }
    forms
}

fn inner(bytes: &[u8], before: usize, base64: &dyn Fn(&[u8]) -> String) -> String {
    let wrapped = |filler: u8| {
        let after = (3 - (bytes.len() + before) % 3) % 3;
        let fill = |count| std::iter::repeat_n(filler, count);
        base64(&fill(before).chain(bytes.iter().copied()).chain(fill(after)).collect::<Vec<u8>>())
    };
    let (low, high) = (wrapped(0), wrapped(255));
    low.chars().zip(high.chars()).filter(|(low, high)| low == high).map(|(low, _)| low).collect()
}

fn dashes(form: &[Part]) -> Vec<Vec<Part>> {
    let word = |part: Option<&Part>| matches!(part, Some(Part::Is(char)) if char.is_alphanumeric() || *char == '_');
    let mut all: Vec<Vec<Part>> = vec![Vec::new()];
    for (at, part) in form.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| form.get(before));
        let dash = matches!(part, Part::Is('-' | '/' | '–' | '—' | '―')) && !word(before) && word(form.get(at + 1));
        let choices = if dash { "-/–—―".chars().map(Part::Is).collect() } else { vec![*part] };
        all = all
            .iter()
            .flat_map(|start| choices.iter().map(move |choice| start.iter().copied().chain([*choice]).collect()))
            .collect();
    }
    all
}
