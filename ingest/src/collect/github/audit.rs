//! The audit log of an organisation or enterprise, oldest first, by cursor.
//!
//! Source: GitHub "REST API endpoints for enterprise/organization audit log": `include=all` (web and Git events), `order=asc`,
//! `per_page=100`, `after` out of the `Link` header. There is no next page at the end: the last page is asked again, and what it
//! had before is passed over. How long such a cursor is good is not documented: where one is refused, the log is asked for by
//! time again, from a day before the newest event that was had; what is had twice is recognised.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ELEMENTS_MAX, Scope, together};
use crate::collect::cursors::moved;
use crate::collect::http::{Api, escaped};
use crate::collect::{CollectError, Collector, Cursors, Fetched, Next, Page};

const STREAM: &str = "audit-log";
/// What is asked for again when a cursor is refused: the search takes whole days, and events become visible out of order.
const OVERLAP: Duration = Duration::from_secs(24 * 3_600);

/// Collects an audit log for a source of type `github.audit`.
#[derive(Debug)]
pub struct AuditLog {
    api: Arc<Api>,
    scope: Scope,
    /// How far back to begin.
    since: Duration,
    every: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    /// Path and query of the page to ask for.
    page: String,
    /// What of it was had.
    #[serde(default)]
    had: Vec<String>,
    /// Time of the newest event that was had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<Timestamp>,
    /// The page is one that is asked for by time, not by a cursor of GitHub's.
    #[serde(default)]
    by_time: bool,
}

impl AuditLog {
    /// The log of an organisation or enterprise from `since` before the first time on, looked at `every` so often.
    #[must_use]
    pub const fn new(api: Arc<Api>, scope: Scope, since: Duration, every: Duration) -> Self {
        Self { api, scope, since, every }
    }

    /// The first page of what was created since a time.
    fn by_time(&self, from: Timestamp, newest: Option<Timestamp>) -> Cursor {
        let path = match &self.scope {
            Scope::Enterprise(name) => format!("/enterprises/{}", escaped(name)),
            other => format!("/orgs/{}", escaped(&other.name())),
        };
        // Whole days are what the search takes in every version.
        let from = from.date();
        let page = format!("{path}/audit-log?include=all&order=asc&per_page=100&phrase=created%3A%3E%3D{from}");
        Cursor { page, had: Vec::new(), newest, by_time: true }
    }
}

#[async_trait]
impl Collector for AuditLog {
    fn name(&self) -> String {
        format!("github.audit-log/{}", self.scope.name())
    }

    fn left(&self) -> Option<u64> {
        self.api.left()
    }

    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        let cursor = cursors.read(STREAM)?.unwrap_or_else(|| self.by_time(now.minus(self.since), None));
        let listed = match self.api.get(&cursor.page).await {
            Err(error) if error.is_no_page() && !cursor.by_time => return self.again(&cursor, &error, now),
            listed => listed?,
        };
        let elements = listed.elements(None, ELEMENTS_MAX)?;
        let names: Vec<String> = elements.iter().map(|(bytes, _)| name(bytes)).collect();
        let fresh: Vec<_> = elements
            .iter()
            .zip(&names)
            .filter(|(_, name)| !cursor.had.contains(name))
            .map(|((bytes, _), _)| bytes)
            .collect();
        let mut page = Page::default();
        if !fresh.is_empty() {
            page.items.push(Fetched::new(together(fresh.iter().copied())));
        }
        let newest = elements.iter().filter_map(|(_, event)| time(event)).max().max(cursor.newest);
        let (next, when) = match listed.next {
            Some(next) => (Cursor { page: next, had: Vec::new(), newest, by_time: false }, Next::Now),
            None => (Cursor { had: names, newest, ..cursor }, Next::After(self.every)),
        };
        if !fresh.is_empty() || when == Next::Now {
            page.cursors.push(moved(STREAM, &next)?);
        }
        page.next = when;
        Ok(page)
    }
}

impl AuditLog {
    /// GitHub does not take its cursor any more.
    fn again(&self, cursor: &Cursor, error: &CollectError, now: Timestamp) -> Result<Page, CollectError> {
        let mut page = Page::default();
        let from = cursor.newest.map(|newest| newest.minus(OVERLAP));
        tracing::warn!(error = %error, "GitHub does not take the cursor of its audit log any more: it is asked for by time");
        if from.is_none() {
            page.lost.push(format!("the audit log may have a gap before {}: {error}", now.minus(self.since)));
        }
        let from = from.unwrap_or_else(|| now.minus(self.since));
        page.cursors.push(moved(STREAM, &self.by_time(from, cursor.newest))?);
        Ok(page)
    }
}

/// When an event happened: milliseconds since 1970.
fn time(event: &serde_json::Value) -> Option<Timestamp> {
    let millis = |key: &str| event.get(key).and_then(serde_json::Value::as_i64);
    millis("@timestamp").or_else(|| millis("created_at")).map(Timestamp::from_millis)
}

/// What tells an event from the others of its page.
fn name(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes).get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::script::{Script, at};

    #[tokio::test]
    async fn the_log_is_read_to_its_end_and_goes_on_there() {
        let script = Script::new();
        let first = "/orgs/acme/audit-log?include=all&order=asc&per_page=100&phrase=created%3A%3E%3D2026-11-25";
        script.json_with(
            first,
            r#"[{"_document_id":"a"},{"_document_id":"b"}]"#,
            &[("link", "<https://api.example/orgs/acme/audit-log?after=X&per_page=100>; rel=\"next\"")],
        );
        let last = "/orgs/acme/audit-log?after=X&per_page=100";
        script.json(last, r#"[{"_document_id":"c"}]"#);
        let log = AuditLog::new(
            script.api(),
            Scope::Organization("acme".into()),
            Duration::from_secs(86_400),
            super::super::EVERY,
        );
        let mut cursors = Cursors::default();
        let mut bodies = Vec::new();
        for _ in 0..2 {
            let page = log.page(&cursors, at(1_795_694_400)).await.unwrap();
            bodies.extend(page.items.iter().map(|item| item.body.clone()));
            cursors.extend(page.cursors);
        }
        assert_eq!(bodies, [&br#"[{"_document_id":"a"},{"_document_id":"b"}]"#[..], br#"[{"_document_id":"c"}]"#]);
        let idle = log.page(&cursors, at(0)).await.unwrap();
        assert!(idle.items.is_empty() && idle.cursors.is_empty());
        assert_eq!(idle.next, Next::After(super::super::EVERY));
        script.json(last, r#"[{"_document_id":"c"},{"_document_id":"d"}]"#);
        let more = log.page(&cursors, at(0)).await.unwrap();
        assert_eq!(more.items[0].body, br#"[{"_document_id":"d"}]"#[..]);
    }

    #[tokio::test]
    async fn where_a_cursor_is_refused_the_log_is_asked_for_by_time() {
        let script = Script::new();
        let scope = Scope::Organization("acme".into());
        let log = AuditLog::new(script.api(), scope, Duration::from_secs(86_400), super::super::EVERY);
        let event = |id: &str, secs: i64| format!(r#"{{"_document_id":"{id}","@timestamp":{}}}"#, secs * 1_000);
        let (now, then) = (1_795_694_400, 1_795_694_400 - 20 * 86_400);
        let by_time =
            |day: &str| format!("/orgs/acme/audit-log?include=all&order=asc&per_page=100&phrase=created%3A%3E%3D{day}");
        let link = "<https://api.example/orgs/acme/audit-log?after=X&per_page=100>; rel=\"next\"";
        script.json_with(&by_time("2026-11-05"), &format!("[{}]", event("a", then)), &[("link", link)]);
        let mut cursors = Cursors::default();
        cursors.extend(log.page(&cursors, at(then)).await.unwrap().cursors);
        // Twenty days of not running later.
        script.answer("/orgs/acme/audit-log?after=X&per_page=100", 422, &[], r#"{"message":"invalid cursor"}"#);
        let page = log.page(&cursors, at(now)).await.unwrap();
        assert_eq!((page.items.len(), page.lost.len(), page.next), (0, 0, Next::Now));
        cursors.extend(page.cursors);
        script.json(&by_time("2026-11-05"), &format!("[{},{}]", event("a", then), event("b", then + 60)));
        let page = log.page(&cursors, at(now)).await.unwrap();
        assert_eq!(page.items[0].body, format!("[{},{}]", event("a", then), event("b", then + 60)).into_bytes());
        // What is refused by time is no matter of the cursor.
        cursors.extend(page.cursors);
        script.answer(&by_time("2026-11-05"), 404, &[], "");
        assert!(log.page(&cursors, at(now)).await.is_err());
    }
}
