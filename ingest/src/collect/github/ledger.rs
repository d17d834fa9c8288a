//! What GitHub says ran, was deployed and was merged: its own lists, to hold ours against.
//!
//! Sources: GitHub "List workflow runs for a repository", "List deployments", "List deployment statuses", "List pull requests".
//! Deployments and pull requests have no selection by time: lists are walked from the newest back to where they were known.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::runs::Runs;
use super::{ELEMENTS_MAX, Scope, repositories, repository};
use crate::collect::cursors::moved;
use crate::collect::entry::{Kind, entry};
use crate::collect::etags::Etags;
use crate::collect::http::Api;
use crate::collect::rounds::Rounds;
use crate::collect::{CollectError, Collector, Cursors, Page};

/// Most deployments that wait for their end.
const OPEN_MAX: usize = 300;
/// What pages of a list are walked at a time.
const PAGES_MAX: usize = 20;
/// States in which a deployment stays.
const ENDED: &[&str] = &["success", "failure", "error", "inactive"];

/// Collects lists for a source of type `provider.ledger`.
#[derive(Debug)]
pub struct Ledger {
    api: Arc<Api>,
    scope: Scope,
    kinds: Vec<Kind>,
    since: Duration,
    every: Duration,
    rounds: Rounds,
    etags: Etags,
}

/// How far a list without times was walked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Walked {
    /// What was created (deployments) or changed (pull requests) up to then is listed.
    to: Timestamp,
    /// Ids at that very time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    edge: Vec<u64>,
    /// Deployments that had not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open: Vec<u64>,
}

impl Ledger {
    /// Lists of these kinds, from `since` before the first time on.
    #[must_use]
    pub fn new(api: Arc<Api>, scope: Scope, kinds: Vec<Kind>, since: Duration, every: Duration) -> Self {
        Self { api, scope, kinds, since, every, rounds: Rounds::default(), etags: Etags::default() }
    }

    async fn runs(&self, repo: &str, cursors: &Cursors, now: Timestamp, page: &mut Page) -> Result<bool, CollectError> {
        let found = Runs::follow(&self.api, repo, &self.etags, self.since, cursors, now, page).await?;
        for (bytes, run) in &found.finished {
            let part = |key: &str| run.get(key).and_then(Value::as_u64).unwrap_or_default();
            let id = format!("{}/{}", part("id"), part("run_attempt").max(1));
            page.items.push(entry("github", Kind::Run, repo, &id, bytes, None));
        }
        Ok(found.more)
    }

    /// What a list has that is new by `time`, oldest first.
    async fn fresh(
        &self,
        list: String,
        time: &str,
        walked: &mut Walked,
    ) -> Result<Vec<(u64, Bytes, Value)>, CollectError> {
        let (mut found, mut next) = (Vec::new(), Some(list));
        let before = walked.clone();
        let mut pages = 0;
        while let Some(path) = next {
            let listed = self.api.get(&path).await?;
            next = listed.next.clone();
            for (bytes, object) in listed.elements(None, ELEMENTS_MAX)? {
                let key = if time == "updated_at" { "number" } else { "id" };
                let id = object.get(key).and_then(Value::as_u64).ok_or_else(|| listed.wrong("an entry has no id"))?;
                let at = object.get(time).and_then(Value::as_str).and_then(Timestamp::parse);
                let at = at.ok_or_else(|| listed.wrong("an entry has no time"))?;
                if at < before.to {
                    next = None;
                    continue;
                }
                if at > walked.to {
                    (walked.to, walked.edge) = (at, Vec::new());
                }
                if at == walked.to && !walked.edge.contains(&id) {
                    walked.edge.push(id);
                }
                if at > before.to || !before.edge.contains(&id) {
                    found.push((id, bytes, object));
                }
            }
            pages += 1;
            if pages >= PAGES_MAX && next.is_some() {
                // Going on from here would mean to keep all of it; the list would have to be of thousands since the last look.
                return Err(listed.wrong("more is new than is walked at a time: begin later (`since`)"));
            }
        }
        found.reverse();
        Ok(found)
    }

    async fn deployments(
        &self,
        repo: &str,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<(), CollectError> {
        let stream = format!("deployments/{repo}");
        let before: Option<Walked> = cursors.read(&stream)?;
        let mut walked = before.clone().unwrap_or_else(|| self.begin(now));
        let base = repository(repo);
        let mut open = Vec::new();
        for id in std::mem::take(&mut walked.open) {
            match self.api.get(&format!("{base}/deployments/{id}")).await {
                Ok(answer) => open.push((id, answer.body)),
                Err(CollectError::Missing { .. }) => {
                    page.lost.push(format!("deployment {id} of {repo} was deleted before it had ended"));
                }
                Err(error) => return Err(error),
            }
        }
        let new = self.fresh(format!("{base}/deployments?per_page=100"), "created_at", &mut walked).await?;
        open.extend(new.into_iter().map(|(id, bytes, _)| (id, bytes)));
        for (id, object) in open {
            // The newest status comes first.
            let statuses = self.api.get(&format!("{base}/deployments/{id}/statuses?per_page=1")).await?;
            let status = statuses.elements(None, ELEMENTS_MAX)?.into_iter().next();
            let state = status.as_ref().and_then(|(_, status)| status.get("state")?.as_str());
            if state.is_some_and(|state| ENDED.contains(&state)) {
                let status = status.map(|(bytes, _)| bytes);
                page.items.push(entry("github", Kind::Deployment, repo, &id.to_string(), &object, status.as_ref()));
            } else {
                walked.open.push(id);
            }
        }
        while walked.open.len() > OPEN_MAX {
            page.lost.push(format!("deployment {} of {repo}: too many wait for their end", walked.open.remove(0)));
        }
        if before.as_ref() != Some(&walked) {
            page.cursors.push(moved(&stream, &walked)?);
        }
        Ok(())
    }

    async fn changes(
        &self,
        repo: &str,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<(), CollectError> {
        let stream = format!("changes/{repo}");
        let before: Option<Walked> = cursors.read(&stream)?;
        let mut walked = before.clone().unwrap_or_else(|| self.begin(now));
        let began = walked.to.minus(self.since);
        let list = format!("{}/pulls?state=closed&sort=updated&direction=desc&per_page=100", repository(repo));
        for (number, bytes, change) in self.fresh(list, "updated_at", &mut walked).await? {
            // One that was merged long ago and commented on now was listed then.
            let merged = change.get("merged_at").and_then(Value::as_str).and_then(Timestamp::parse);
            if merged.is_some_and(|merged| merged >= began) {
                page.items.push(entry("github", Kind::Change, repo, &number.to_string(), &bytes, None));
            }
        }
        if before.as_ref() != Some(&walked) {
            page.cursors.push(moved(&stream, &walked)?);
        }
        Ok(())
    }

    fn begin(&self, now: Timestamp) -> Walked {
        Walked { to: now.minus(self.since), edge: Vec::new(), open: Vec::new() }
    }
}

#[async_trait]
impl Collector for Ledger {
    fn name(&self) -> String {
        format!("github.ledger/{}", self.scope.name())
    }

    fn left(&self) -> Option<u64> {
        self.api.left()
    }

    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        let mut page = Page::default();
        if self.rounds.wants_members(now) {
            self.rounds.members(repositories(&self.api, &self.scope).await?, now);
        }
        if let Some(repo) = self.rounds.turn(now, self.every) {
            let mut more = false;
            for kind in &self.kinds {
                let mut found = Page::default();
                let listed = match kind {
                    Kind::Run => self.runs(&repo, cursors, now, &mut found).await.map(|left| more = left),
                    Kind::Deployment => self.deployments(&repo, cursors, now, &mut found).await,
                    Kind::Change => self.changes(&repo, cursors, now, &mut found).await,
                };
                match listed {
                    Ok(()) => page.add(found),
                    // What was had of the others counts.
                    Err(_) if page.has_news() => return Ok(page),
                    Err(error) => return Err(error),
                }
            }
            if !more {
                self.rounds.done();
            }
        }
        page.next = self.rounds.next(now, self.every);
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::script::{Script, at};

    const NOW: i64 = 1_795_694_400;

    fn ledger(script: &Arc<Script>, kind: Kind) -> Ledger {
        let scope = Scope::Repositories(vec!["acme/shop".into()]);
        Ledger::new(script.api(), scope, vec![kind], Duration::from_secs(3_600), Duration::from_secs(60))
    }

    async fn round(ledger: &Ledger, cursors: &mut Cursors, now: i64) -> Vec<Value> {
        let page = ledger.page(cursors, at(now)).await.unwrap();
        cursors.extend(page.cursors);
        page.items.iter().map(|item| serde_json::from_slice(&item.body).unwrap()).collect()
    }

    #[tokio::test]
    async fn deployments_are_entered_when_they_have_ended() {
        let script = Script::new();
        let deployment = |id: u64, ago: u64| {
            format!(r#"{{"id":{id},"sha":"abc","created_at":"{}"}}"#, at(NOW).minus(Duration::from_secs(ago)))
        };
        let list = "/repos/acme/shop/deployments?per_page=100";
        script.json(list, &format!("[{},{},{}]", deployment(3, 10), deployment(2, 20), deployment(1, 9_000)));
        script.json("/repos/acme/shop/deployments/3", &deployment(3, 10));
        script.json("/repos/acme/shop/deployments/2/statuses?per_page=1", r#"[{"id":9,"state":"success"}]"#);
        script.json("/repos/acme/shop/deployments/3/statuses?per_page=1", r#"[{"id":8,"state":"in_progress"}]"#);
        let (ledger, mut cursors) = (ledger(&script, Kind::Deployment), Cursors::default());
        let first = round(&ledger, &mut cursors, NOW).await;
        assert_eq!(first.len(), 1);
        assert_eq!(
            (&first[0]["id"], &first[0]["status"]["state"], &first[0]["object"]["sha"]),
            (&"2".into(), &"success".into(), &"abc".into())
        );
        assert!(round(&ledger, &mut cursors, NOW + 60).await.is_empty());
        script.json("/repos/acme/shop/deployments/3/statuses?per_page=1", r#"[{"id":10,"state":"failure"}]"#);
        assert_eq!(round(&ledger, &mut cursors, NOW + 120).await[0]["id"], "3");
        assert!(round(&ledger, &mut cursors, NOW + 180).await.is_empty());
    }

    #[tokio::test]
    async fn merged_changes_are_entered_and_closed_ones_are_not() {
        let script = Script::new();
        let change = |number: u64, ago: u64, merged: bool| {
            let at = at(NOW).minus(Duration::from_secs(ago));
            let merged = if merged { format!("\"{at}\"") } else { "null".to_owned() };
            format!(r#"{{"number":{number},"updated_at":"{at}","merged_at":{merged}}}"#)
        };
        let list = "/repos/acme/shop/pulls?state=closed&sort=updated&direction=desc&per_page=100";
        let next = [("link", "<https://api.example/repos/acme/shop/pulls?page=2>; rel=\"next\"")];
        script.json_with(list, &format!("[{},{}]", change(7, 10, true), change(6, 20, false)), &next);
        script.json("/repos/acme/shop/pulls?page=2", &format!("[{},{}]", change(5, 30, true), change(4, 9_000, true)));
        let (ledger, mut cursors) = (ledger(&script, Kind::Change), Cursors::default());
        let first: Vec<_> =
            round(&ledger, &mut cursors, NOW).await.into_iter().map(|entry| entry["id"].clone()).collect();
        assert_eq!(first, ["5", "7"]);
        let after = cursors.clone();
        for turn in 1..4 {
            assert!(round(&ledger, &mut cursors, NOW + 60 * turn).await.is_empty());
        }
        assert_eq!(cursors, after, "what did not change moves nothing");
    }
}
