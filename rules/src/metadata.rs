//! What a rule document says besides its logic: name, severity, controls, alert text.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeproof_engine::feed;
use pipeproof_engine::rule::{AlertSpec, Level, RuleMeta, RuleState};
use pipeproof_engine::time::parse_span;

use crate::diagnostic::{Code, Place, Report, did_you_mean, nearest};
use crate::yaml::{Node, Scalar};

/// Keys of a rule document: Sigma's and ours. Others are kept out of the rule, but are allowed.
pub(crate) const KEYS: &[&str] = &[
    "alert",
    "approved_by",
    "author",
    "controls",
    "correlation",
    "custom_attributes",
    "date",
    "description",
    "detection",
    "emit",
    "expires",
    "falsepositives",
    "fields",
    "filter",
    "generate",
    "id",
    "level",
    "license",
    "logsource",
    "modified",
    "name",
    "reason",
    "references",
    "related",
    "requires",
    "risk",
    "rsigma.exemplars",
    "scope",
    "sigma-version",
    "sql",
    "state",
    "status",
    "table",
    "tags",
    "taxonomy",
    "tests",
    "ticket",
    "title",
    "version",
];

/// A text under `key`; reports anything else.
pub(crate) fn text<'n>(document: &'n Node, key: &str, report: &mut Report<'_>) -> Option<&'n str> {
    let node = document.get(key)?;
    let text = node.text().filter(|text| !text.trim().is_empty());
    if text.is_none() {
        report.add(Code::WrongType, node.place, format!("`{key}` must be a text, not {}", node.kind()));
    }
    text
}

/// A list of texts under `key`, or a single text.
pub(crate) fn texts(document: &Node, key: &str, report: &mut Report<'_>) -> Vec<(String, Place)> {
    let Some(node) = document.get(key) else { return Vec::new() };
    let items: Vec<&Node> = match node.list() {
        Some(items) => items.iter().collect(),
        None if node.scalar() == Some(Scalar::Null) => Vec::new(),
        None => vec![node],
    };
    let mut found = Vec::new();
    for item in items {
        match item.text() {
            Some(text) => found.push((text.to_owned(), item.place)),
            None => report.add(Code::WrongType, item.place, format!("`{key}` holds {}, not texts", item.kind())),
        }
    }
    found
}

/// One of a closed set of words under `key`.
pub(crate) fn word<T: Copy>(document: &Node, key: &str, words: &[(&str, T)], report: &mut Report<'_>) -> Option<T> {
    let node = document.get(key)?;
    let text = node.text().unwrap_or_default();
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, value)| *value);
    if found.is_none() {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let help = did_you_mean(text, known.iter().copied()).or_else(|| Some(format!("one of {}", known.join(", "))));
        report.add_help(Code::WrongType, node.place, format!("`{key}` cannot be `{text}`"), help);
    }
    found
}

/// A length of time: numbers with units, as in `15m` or `2d5m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let unit = rest.find(|char: char| !char.is_ascii_digit())?;
        let end = unit + rest.get(unit..)?.chars().next()?.len_utf8();
        total = total.checked_add(parse_span(rest.get(..end)?)?)?;
        rest = rest.get(end..)?;
    }
    Some(total)
}

/// A length of time under `key`.
pub(crate) fn duration_of(document: &Node, key: &str, report: &mut Report<'_>) -> Option<Duration> {
    let node = document.get(key)?;
    let found = node.text().and_then(duration);
    if found.is_none() {
        let help = Some("a whole number and one of s, m, h, d, w, M, y".to_owned());
        report.add_help(Code::Duration, node.place, format!("`{key}` is no length of time"), help);
    }
    found
}

/// Reports every key of a closed mapping that is not known.
pub(crate) fn closed(node: &Node, what: &str, known: &[&str], report: &mut Report<'_>) {
    for (key, _) in node.map().unwrap_or_default() {
        if !known.contains(&key.text.as_str()) {
            let near = (!report.is_crowded()).then(|| did_you_mean(&key.text, known.iter().copied())).flatten();
            let help = near.or_else(|| Some(format!("known keys: {}", known.join(", "))));
            report.add_help(Code::UnknownKey, key.place, format!("`{what}` has no key `{}`", key.text), help);
        }
    }
}

/// A field of the events that a document names, with its place.
pub(crate) type NamedField = (String, Place);

/// Metadata of a rule, and the fields it names; the digest is filled in once the logic is compiled.
pub(crate) fn read(document: &Node, report: &mut Report<'_>) -> (RuleMeta, Vec<NamedField>) {
    check_keys(document, report);
    let title = title(document, "rule", report);
    let (id, name) = handles(document, &title, "rule", report);
    let levels = [
        ("informational", Level::Informational),
        ("low", Level::Low),
        ("medium", Level::Medium),
        ("high", Level::High),
        ("critical", Level::Critical),
    ];
    let states = [("active", RuleState::Active), ("staging", RuleState::Staging), ("paused", RuleState::Paused)];
    let author = text(document, "author", report);
    let license = text(document, "license", report);
    let author = match (author, license) {
        (Some(author), Some(license)) => Some(format!("{author} ({license})")),
        (author, license) => author.or(license).map(str::to_owned),
    };
    let (alert, fields) = alert(document, report);
    let level = word(document, "level", &levels, report).unwrap_or_default();
    let meta = RuleMeta {
        id,
        name,
        title,
        level,
        risk: risk(document, report).unwrap_or_else(|| level.risk()),
        version: version(document, report),
        digest: String::new(),
        state: word(document, "state", &states, report).unwrap_or_default(),
        emits: true,
        alert,
        tags: texts(document, "tags", report).into_iter().map(|(tag, _)| tag).collect(),
        controls: controls(document, report),
        requires: requires(document, report),
        author,
    };
    (meta, fields)
}

/// How much a finding counts, where the document says it.
fn risk(document: &Node, report: &mut Report<'_>) -> Option<u8> {
    let node = document.get("risk")?;
    let found = match node.scalar() {
        Some(Scalar::Int(number)) => u8::try_from(number).ok().filter(|number| *number <= 100),
        _ => None,
    };
    if found.is_none() {
        report.add(Code::WrongType, node.place, "`risk` is a whole number from 0 to 100");
    }
    found
}

/// Reports keys of a document that look like misspelt ones; others are allowed, and have no meaning for us.
pub(crate) fn check_keys(document: &Node, report: &mut Report<'_>) {
    for (key, _) in document.map().unwrap_or_default() {
        if report.is_crowded() {
            return;
        }
        let known = KEYS.contains(&key.text.as_str());
        if let Some(near) = (!known).then(|| nearest(&key.text, KEYS.iter().copied())).flatten() {
            let help = Some(format!("did you mean `{near}`?"));
            report.add_help(Code::SimilarKey, key.place, format!("the key `{}` has no meaning here", key.text), help);
        }
    }
}

/// The title every document has.
pub(crate) fn title(document: &Node, what: &str, report: &mut Report<'_>) -> String {
    if document.get("title").is_none() {
        report.add(Code::MissingKey, document.place, format!("the {what} has no `title`"));
    }
    text(document, "title", report).unwrap_or_default().to_owned()
}

/// Id and name of a document; what has neither goes by its title.
pub(crate) fn handles(document: &Node, title: &str, what: &str, report: &mut Report<'_>) -> (String, Option<String>) {
    let name = text(document, "name", report).map(str::to_owned);
    let id = text(document, "id", report).map(str::to_owned).or_else(|| name.clone());
    let id = id.unwrap_or_else(|| {
        let help = Some("an id keeps findings the same when the title changes".to_owned());
        let message = format!("the {what} has neither id nor name; its title stands for it");
        report.add_help(Code::NoId, document.place, message, help);
        title.to_owned()
    });
    (id, name)
}

fn version(document: &Node, report: &mut Report<'_>) -> Option<u64> {
    let node = document.get("version")?;
    match node.scalar() {
        Some(Scalar::Int(number)) => u64::try_from(number).ok(),
        // Some Sigma rules carry a text here, which means nothing to us.
        Some(Scalar::Text(_) | Scalar::Float(_)) => None,
        _ => {
            report.add(Code::WrongType, node.place, format!("`version` must be a whole number, not {}", node.kind()));
            None
        }
    }
}

fn controls(document: &Node, report: &mut Report<'_>) -> BTreeMap<String, Vec<String>> {
    let Some(node) = document.get("controls") else { return BTreeMap::new() };
    let Some(entries) = node.map() else {
        report.add(Code::WrongType, node.place, "`controls` must map frameworks to lists of control ids");
        return BTreeMap::new();
    };
    let ids = |key: &str, report: &mut Report<'_>| texts(node, key, report).into_iter().map(|(id, _)| id).collect();
    entries.iter().map(|(key, _)| (key.text.clone(), ids(&key.text, report))).collect()
}

fn requires(document: &Node, report: &mut Report<'_>) -> Vec<String> {
    let named = texts(document, "requires", report);
    for (name, place) in &named {
        if feed::resolve(name).is_err() && !report.is_crowded() {
            let help = did_you_mean(name, feed::names());
            let help = help.or_else(|| Some(format!("known: {}", feed::names().collect::<Vec<_>>().join(", "))));
            report.add_help(Code::UnknownSource, *place, format!("`{name}` is neither a source type nor a feed"), help);
        }
    }
    named.into_iter().map(|(name, _)| name).collect()
}

fn alert(document: &Node, report: &mut Report<'_>) -> (AlertSpec, Vec<NamedField>) {
    let Some(node) = document.get("alert") else { return Default::default() };
    if node.map().is_none() {
        report.add(Code::WrongType, node.place, format!("`alert` must be a mapping, not {}", node.kind()));
        return Default::default();
    }
    closed(node, "alert", &["title", "entity", "dedup", "quiet", "resolve_on"], report);
    let mut entity = Vec::new();
    let mut fields = Vec::new();
    for (text, place) in texts(node, "entity", report) {
        match text.split_once(':') {
            Some((kind, field)) if !kind.is_empty() && !field.is_empty() => {
                fields.push((field.to_owned(), place));
                entity.push((kind.to_owned(), field.to_owned()));
            }
            _ => {
                let help = Some("write KIND:FIELD, as in `repo:ci.repo`".to_owned());
                report.add_help(Code::WrongType, place, format!("`{text}` is no entity"), help);
            }
        }
    }
    let dedup = texts(node, "dedup", report);
    fields.extend(dedup.iter().cloned());
    let alert = AlertSpec {
        title: text(node, "title", report).map(str::to_owned),
        entity,
        dedup: dedup.into_iter().map(|(field, _)| field).collect(),
        quiet: duration_of(node, "quiet", report),
        resolve_on: text(node, "resolve_on", report).map(str::to_owned),
    };
    (alert, fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, secs) in
            [("0s", Some(0)), ("15m", Some(900)), ("2d5m", Some(173_100)), ("5", None), ("", None), ("m", None)]
        {
            assert_eq!(duration(text), secs.map(Duration::from_secs), "{text}");
        }
    }
}
