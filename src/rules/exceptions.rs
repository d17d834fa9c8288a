//! Exceptions that are added at run time: Sigma filters with a reason and an end, one file each in a layer of their own.

use std::collections::BTreeMap;

use pipeproof_engine::detect::ExceptionStatus;
use pipeproof_engine::rule::{Filter, Rule, Taxonomy};
use pipeproof_engine::source::Logsource;
use pipeproof_engine::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::content::{Content, Layer};
use super::deploy::ChangeError;
use super::in_force::Set;

/// An exception as somebody asks for it.
#[derive(Clone, Debug)]
pub(crate) enum Draft {
    /// A filter document.
    Document(String),
    /// One rule, and what events must have to be let go.
    Fields(Fields),
}

/// What a filter document is written from.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    /// Id or name.
    pub(crate) rule: String,
    pub(crate) title: Option<String>,
    /// Field, with modifiers, and value: all fields must fit, one of the values of each.
    pub(crate) conditions: Vec<(String, String)>,
    pub(crate) reason: String,
    pub(crate) approved_by: Option<String>,
    pub(crate) ticket: Option<String>,
    pub(crate) expires: Timestamp,
}

impl Draft {
    /// Path in the layer and text of the document.
    pub(super) fn write(&self, set: &Set) -> Result<(String, String), ChangeError> {
        match self {
            Self::Document(text) => Ok((path_of(&id_of(text)?)?, text.clone())),
            Self::Fields(fields) => {
                let id = new_id();
                Ok((path_of(&id)?, fields.write(&id, set)?))
            }
        }
    }
}

#[derive(Deserialize)]
struct Identified {
    id: Option<String>,
}

fn id_of(text: &str) -> Result<String, ChangeError> {
    let usage =
        |problem: String| ChangeError::Usage(format!("the exception is one YAML document with an `id`: {problem}"));
    let document: Identified = serde_saphyr::from_str(text).map_err(|error| usage(error.to_string()))?;
    document.id.filter(|id| !id.is_empty()).ok_or_else(|| usage("it has none".to_owned()))
}

fn path_of(id: &str) -> Result<String, ChangeError> {
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    if id.len() <= 64 && id.chars().all(plain) && !id.starts_with('.') {
        return Ok(format!("{id}.yml"));
    }
    Err(ChangeError::Usage("the id of an exception is up to 64 of A-Z a-z 0-9 . _ -".to_owned()))
}

/// A random UUID (version 4).
fn new_id() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    let part = |range| hex.get(range).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
}

impl Fields {
    fn write(&self, id: &str, set: &Set) -> Result<String, ChangeError> {
        let Some(rule) = set.find(&self.rule) else {
            return Err(ChangeError::Missing(format!("there is no rule with id or name `{}`", self.rule)));
        };
        let Rule::Detection(rule) = rule else {
            let text = "an exception lets go of events, so it is for a rule that looks at single events: name the rule that this one builds on";
            return Err(ChangeError::Usage(text.to_owned()));
        };
        if self.conditions.is_empty() {
            return Err(ChangeError::Usage("say what is let go: --where FIELD=VALUE".to_owned()));
        }
        let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (field, value) in &self.conditions {
            fields.entry(field).or_default().push(value);
        }
        let default = format!("Exception to: {}", rule.meta.title);
        let mut text = format!("title: {}\nid: {id}\n", quoted(self.title.as_deref().unwrap_or(&default))?);
        text.push_str(match rule.taxonomy {
            Taxonomy::Cicd => "taxonomy: cicd\n",
            Taxonomy::Sigma => "taxonomy: sigma\n",
        });
        text.push_str(&logsource(&rule.logsource)?);
        text.push_str(&format!("filter:\n    rules: [{}]\n    let_go:\n", quoted(&rule.meta.id)?));
        for (field, values) in fields {
            let values: Result<Vec<String>, ChangeError> = values.into_iter().map(quoted).collect();
            text.push_str(&format!("        {}: [{}]\n", quoted(field)?, values?.join(", ")));
        }
        text.push_str("    condition: not let_go\n");
        text.push_str(&format!("expires: {}\nreason: {}\n", quoted(&self.expires.to_string())?, quoted(&self.reason)?));
        if let Some(name) = &self.approved_by {
            text.push_str(&format!("approved_by: [{}]\n", quoted(name)?));
        }
        if let Some(ticket) = &self.ticket {
            text.push_str(&format!("ticket: {}\n", quoted(ticket)?));
        }
        Ok(text)
    }
}

fn logsource(logsource: &Logsource) -> Result<String, ChangeError> {
    let parts = [("product", &logsource.product), ("service", &logsource.service), ("category", &logsource.category)];
    let mut written = Vec::new();
    for (name, part) in parts {
        if let Some(part) = part {
            written.push(format!("{name}: {}", quoted(part)?));
        }
    }
    Ok(format!("logsource: {{{}}}\n", written.join(", ")))
}

/// A text as YAML in single quotes.
fn quoted(text: &str) -> Result<String, ChangeError> {
    if text.chars().any(char::is_control) {
        return Err(ChangeError::Usage(format!("{text:?} holds a control character")));
    }
    Ok(format!("'{}'", text.replace('\'', "''")))
}

/// The ids of exceptions that `after` has and `before` has not; refuses what is no exception with an end and a reason.
pub(super) fn added(before: &Set, after: &Set, now: Timestamp) -> Result<Vec<String>, ChangeError> {
    let usage = |text: String| Err(ChangeError::Usage(text));
    if after.plan().rules().len() != before.plan().rules().len() {
        return usage("an exception is a `filter:` document; deploy rules with `rules deploy`".to_owned());
    }
    let known = |filter: &&Filter| !before.plan().filters().iter().any(|other| other == *filter);
    let new: Vec<&Filter> = after.plan().filters().iter().filter(known).collect();
    if new.is_empty() {
        return usage("this exception is in force already, or the file holds none".to_owned());
    }
    for filter in &new {
        match filter.expires {
            None => return usage("an exception needs an end: `expires`, a date or time".to_owned()),
            Some(expires) if expires <= now => return usage(format!("the exception has expired at {expires}")),
            Some(_) => {}
        }
        if filter.reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) {
            return usage("an exception needs a `reason`".to_owned());
        }
    }
    Ok(new.into_iter().map(|filter| filter.id.clone()).collect())
}

/// The content without an exception that was added here.
pub(super) fn without(set: &Set, id: &str) -> Result<Content, ChangeError> {
    let mut content = set.content.clone();
    if content.remove(Layer::Exceptions, &path_of(id)?) {
        return Ok(content);
    }
    let known = set.plan().filters().iter().any(|filter| filter.id == id);
    Err(if known {
        ChangeError::Usage(format!("the exception `{id}` stands in a rule file: take it out there"))
    } else {
        ChangeError::Missing(format!("there is no exception `{id}`"))
    })
}

/// The exceptions of a set for people: what they let go of, until when, and how often they did.
pub(crate) fn listed(set: &Set, now: Timestamp, used: &[ExceptionStatus]) -> Vec<Value> {
    let row = |filter: &Filter| {
        let expired = filter.expires.is_some_and(|expires| expires <= now);
        let count = used.iter().find(|used| used.id == filter.id).map(|used| used.count).unwrap_or_default();
        json!({
            "id": filter.id, "title": filter.title, "state": if expired { "expired" } else { "in force" },
            "expires": filter.expires, "reason": filter.reason, "approved_by": filter.approved_by,
            "ticket": filter.ticket, "rules": filter.rules, "logsource": filter.logsource,
            "digest": filter.digest, "let_go": count.let_go, "first": count.first,
            "last": count.last, "found_since_expiry": count.unfiltered,
        })
    };
    set.plan().filters().iter().map(row).collect()
}
