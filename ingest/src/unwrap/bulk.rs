//! Elastic's `_bulk`: a line that says what to do, and the document on the next (Elasticsearch reference, "Bulk API").

use bytes::Bytes;

use super::wrappers::Peel;
use super::{Item, lines};
use crate::skim;

/// Something that a bulk request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// `create`, `index`, `update` or `delete`; another word as it was sent.
    pub verb: String,
    /// `_index`, if it names one.
    pub index: Option<String>,
    /// `_id`, if it names one.
    pub id: Option<String>,
}

impl Action {
    /// Whether a document follows.
    #[must_use]
    pub fn has_document(&self) -> bool {
        self.verb != "delete"
    }
}

/// What the lines of a body ask for, in order; no more than `max`.
#[must_use]
pub fn actions(body: &[u8], max: usize) -> Vec<Action> {
    let text = skim::trim(body);
    let mut found = Vec::new();
    let mut at = lines(text);
    while let Some(line) = at.next().filter(|_| found.len() < max) {
        let action = text.get(line).and_then(action);
        if action.as_ref().is_none_or(Action::has_document) {
            at.next();
        }
        let unknown = || Action { verb: "index".to_owned(), index: None, id: None };
        found.push(action.unwrap_or_else(unknown));
    }
    found
}

fn action(line: &[u8]) -> Option<Action> {
    let (verb, value) = skim::members(line).next()?;
    let about = line.get(value)?;
    let text = |name: &str| skim::text_at(about, &[name]).filter(|text| !text.is_empty());
    let verb = String::from_utf8_lossy(verb).into_owned();
    Some(Action { verb, index: text("_index"), id: text("_id") })
}

/// The documents. A line that should say what to do and does not is kept beside what follows it.
pub(super) fn documents(peel: &mut Peel, text: &Bytes) {
    let mut at = lines(text);
    while let Some(range) = at.next() {
        if peel.is_full() {
            return;
        }
        let line = text.slice(range);
        let Some(action) = action(&line) else {
            peel.push(line, &Item::unread("not_bulk"));
            continue;
        };
        if !action.has_document() {
            // Nothing here can be deleted: that it was asked for is kept.
            peel.push(line, &Item::unread("deletion"));
            continue;
        }
        let Some(document) = at.next().map(|range| text.slice(range)) else {
            peel.push(line, &Item::unread("not_bulk"));
            return;
        };
        let mut about = Item::default();
        if let Some(id) = action.id {
            about.id = Some(format!("bulk/{}/{id}", action.index.as_deref().unwrap_or_default()));
        }
        if let Some(index) = action.index {
            about.attributes.push(("bulk.index", index));
        }
        let inner = if action.verb == "update" { skim::member(&document, "doc") } else { None };
        let document = inner.map_or_else(|| document.clone(), |inner| document.slice_ref(inner));
        peel.object(document, &about, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let body = b"{\"create\":{\"_index\":\"logs\",\"_id\":\"1\"}}\n{\"a\":1}\n{\"delete\":{\"_id\":\"2\"}}\n{\"index\":{}}\n{}\n";
        let all = actions(body, 10);
        let verbs: Vec<&str> = all.iter().map(|action| action.verb.as_str()).collect();
        assert_eq!(verbs, ["create", "delete", "index"]);
        assert_eq!((all[0].index.as_deref(), all[0].id.as_deref()), (Some("logs"), Some("1")));
        assert_eq!(actions(body, 1).len(), 1);
        assert_eq!(actions(b"nonsense", 10).len(), 1);
        assert_eq!(actions(b"", 10).len(), 0);
    }
}
