//! The audit log of an organisation or enterprise, oldest first, by cursor.
//!
//! Source: GitHub "REST API endpoints for enterprise/organization audit log": `include=all` (web and Git events), `order=asc`,
//! `per_page=100`, `after` out of the `Link` header. There is no next page at the end: the last page is asked again, and what it
//! had before is passed over.

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
}

impl AuditLog {
    /// The log of an organisation or enterprise from `since` before the first time on, looked at `every` so often.
    #[must_use]
    pub const fn new(api: Arc<Api>, scope: Scope, since: Duration, every: Duration) -> Self {
        Self { api, scope, since, every }
    }

    fn first(&self, now: Timestamp) -> Cursor {
        let path = match &self.scope {
            Scope::Enterprise(name) => format!("/enterprises/{}", escaped(name)),
            other => format!("/orgs/{}", escaped(&other.name())),
        };
        // Whole days are what the search takes in every version.
        let from = now.minus(self.since).date();
        let page = format!("{path}/audit-log?include=all&order=asc&per_page=100&phrase=created%3A%3E%3D{from}");
        Cursor { page, had: Vec::new() }
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
        let cursor = cursors.read(STREAM)?.unwrap_or_else(|| self.first(now));
        let listed = self.api.get(&cursor.page).await?;
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
        let (next, when) = match listed.next {
            Some(next) => (Cursor { page: next, had: Vec::new() }, Next::Now),
            None => (Cursor { page: cursor.page, had: names }, Next::After(self.every)),
        };
        if !fresh.is_empty() || when == Next::Now {
            page.cursors.push(moved(STREAM, &next)?);
        }
        page.next = when;
        Ok(page)
    }
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
}
