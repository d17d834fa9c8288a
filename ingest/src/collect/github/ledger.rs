//! What GitHub says ran, was deployed and was merged: its own lists, to hold ours against.
//!
//! Sources: GitHub "List workflow runs for a repository", "List deployments", "List deployment statuses", "List pull requests".
//! Deployments and pull requests have no selection by time: lists are walked from the newest back to where they were known.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::runs::Runs;
use super::walk::{Found, List, Walked};
use super::{ELEMENTS_MAX, Scope, repositories, repository};
use crate::collect::cursors::moved;
use crate::collect::entry::{Kind, entry};
use crate::collect::etags::Etags;
use crate::collect::http::Api;
use crate::collect::rounds::Rounds;
use crate::collect::turn::Turn;
use crate::collect::{CollectError, Collector, Cursors, Page, troubled};

/// Most deployments that wait for their end.
const OPEN_MAX: usize = 300;
/// Deployments whose end is asked for in a turn.
const ASKED_MAX: usize = 100;
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
    turn: Turn,
    etags: Etags,
}

/// How far a repository's deployments are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Deployments {
    /// How far they are listed.
    #[serde(flatten)]
    walked: Walked,
    /// Listed, and not asked yet how they ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unasked: Vec<u64>,
    /// Those that had not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open: Vec<u64>,
}

/// What became of a deployment.
enum Status {
    /// It goes on.
    Open,
    /// It came to an end: its object and how.
    Ended(Bytes, Bytes),
    Deleted,
}

impl Ledger {
    /// Lists of these kinds, from `since` before the first time on.
    #[must_use]
    pub fn new(api: Arc<Api>, scope: Scope, kinds: Vec<Kind>, since: Duration, every: Duration) -> Self {
        let (rounds, turn, etags) = (Rounds::default(), Turn::default(), Etags::default());
        Self { api, scope, kinds, since, every, rounds, turn, etags }
    }

    /// What is new of a kind, and whether there is more now.
    async fn list(
        &self,
        kind: Kind,
        repo: &str,
        cursors: &Cursors,
        now: Timestamp,
    ) -> Result<(Page, bool), CollectError> {
        let mut page = Page::default();
        let more = match kind {
            Kind::Run => self.runs(repo, cursors, now, &mut page).await?,
            Kind::Deployment => self.deployments(repo, cursors, now, &mut page).await?,
            Kind::Change => self.changes(repo, cursors, now, &mut page).await?,
        };
        Ok((page, more))
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

    async fn deployments(
        &self,
        repo: &str,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<bool, CollectError> {
        let stream = format!("deployments/{repo}");
        let before: Option<Deployments> = cursors.read(&stream)?;
        let begin = || Deployments { walked: self.begin(now), unasked: Vec::new(), open: Vec::new() };
        let mut all = before.clone().unwrap_or_else(begin);
        let path = format!("{}/deployments?per_page=100", repository(repo));
        let list = List { path: &path, time: "created_at", id: "id" };
        let mut found = Found::default();
        if all.unasked.is_empty() {
            found = all.walked.follow(&self.api, list, &self.etags, now).await?;
        }
        page.lost.extend(found.lost.map(|lost| format!("deployments of {repo}: {lost}")));
        let mut objects = BTreeMap::new();
        for (id, bytes, _) in found.new {
            if !all.unasked.contains(&id) && !all.open.contains(&id) {
                all.unasked.push(id);
            }
            objects.insert(id, bytes);
        }
        self.ask(repo, &mut all, &mut objects, now, page).await?;
        while all.open.len() > OPEN_MAX {
            page.lost.push(format!("deployment {} of {repo}: too many wait for their end", all.open.remove(0)));
        }
        if before.as_ref() != Some(&all) {
            page.cursors.push(moved(&stream, &all)?);
        }
        // With few requests left the rest waits for another round: others want to ask, too.
        Ok((found.more || !all.unasked.is_empty()) && !self.api.is_scarce())
    }

    /// Asks how deployments ended, the new ones first. What was had before an error counts.
    async fn ask(
        &self,
        repo: &str,
        all: &mut Deployments,
        objects: &mut BTreeMap<u64, Bytes>,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<(), CollectError> {
        let new = all.unasked.len().min(ASKED_MAX);
        let old = all.open.len().min(ASKED_MAX - new);
        let mut asked: VecDeque<(u64, bool)> = all.unasked.drain(..new).map(|id| (id, true)).collect();
        asked.extend(all.open.drain(..old).map(|id| (id, false)));
        let (mut still, mut some, mut trouble) = (Vec::new(), false, None);
        while let Some((id, is_new)) = asked.pop_front() {
            let status =
                if self.api.is_scarce() { Ok(None) } else { self.status(repo, id, objects, now).await.map(Some) };
            match status {
                Ok(Some(Status::Open)) => still.push(id),
                Ok(Some(Status::Ended(object, status))) => {
                    let id = id.to_string();
                    page.items.push(entry("github", Kind::Deployment, repo, &id, &object, Some(&status)));
                }
                Ok(Some(Status::Deleted)) => {
                    page.lost.push(format!("deployment {id} of {repo} was deleted before it had ended"));
                }
                stopped => {
                    asked.push_front((id, is_new));
                    trouble = stopped.err();
                    break;
                }
            }
            some = true;
        }
        // Who was not asked comes first next time; who goes on comes last.
        let (unasked, open): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, is_new)| *is_new);
        drop(all.unasked.splice(..0, unasked.into_iter().map(|(id, _)| id)));
        drop(all.open.splice(..0, open.into_iter().map(|(id, _)| id)));
        all.open.extend(still);
        match trouble {
            Some(error) if !some => Err(error),
            _ => Ok(()),
        }
    }

    /// How a deployment stands. That it goes on still costs nothing to be told.
    async fn status(
        &self,
        repo: &str,
        id: u64,
        objects: &mut BTreeMap<u64, Bytes>,
        now: Timestamp,
    ) -> Result<Status, CollectError> {
        let path = format!("{}/deployments/{id}", repository(repo));
        let question = format!("{path}/statuses?per_page=1");
        let etag = self.etags.get(&question, &question, now);
        let statuses = match self.api.list(&question, etag.as_deref()).await {
            Ok(Some(statuses)) => statuses,
            Ok(None) => return Ok(Status::Open),
            Err(CollectError::Missing { .. }) => return Ok(Status::Deleted),
            Err(error) => return Err(error),
        };
        // The newest status comes first.
        let status = statuses.elements(None, ELEMENTS_MAX)?.into_iter().next();
        let ended = status.filter(|(_, status)| {
            status.get("state").and_then(Value::as_str).is_some_and(|state| ENDED.contains(&state))
        });
        let Some((status, _)) = ended else {
            self.etags.set(&question, &question, statuses.etag, now);
            return Ok(Status::Open);
        };
        let object = match objects.remove(&id) {
            Some(object) => object,
            None => match self.api.get(&path).await {
                Ok(answer) => answer.body,
                Err(CollectError::Missing { .. }) => return Ok(Status::Deleted),
                Err(error) => return Err(error),
            },
        };
        self.etags.set(&question, &question, None, now);
        Ok(Status::Ended(object, status))
    }

    async fn changes(
        &self,
        repo: &str,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<bool, CollectError> {
        let stream = format!("changes/{repo}");
        let before: Option<Walked> = cursors.read(&stream)?;
        let mut walked = before.clone().unwrap_or_else(|| self.begin(now));
        let began = walked.to.minus(self.since);
        let path = format!("{}/pulls?state=closed&sort=updated&direction=desc&per_page=100", repository(repo));
        let list = List { path: &path, time: "updated_at", id: "number" };
        let found = walked.follow(&self.api, list, &self.etags, now).await?;
        page.lost.extend(found.lost.map(|lost| format!("changes of {repo}: {lost}")));
        for (number, bytes, change) in found.new {
            // One that was merged long ago and commented on now was listed then.
            let merged = change.get("merged_at").and_then(Value::as_str).and_then(Timestamp::parse);
            if merged.is_some_and(|merged| merged >= began) {
                page.items.push(entry("github", Kind::Change, repo, &number.to_string(), &bytes, None));
            }
        }
        if before.as_ref() != Some(&walked) {
            page.cursors.push(moved(&stream, &walked)?);
        }
        Ok(found.more)
    }

    fn begin(&self, now: Timestamp) -> Walked {
        Walked::since(now.minus(self.since))
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
            let members = repositories(&self.api, &self.scope).await?;
            troubled::gone(&members, cursors, &mut page);
            self.rounds.members(members, now);
        }
        if let Some(repo) = self.rounds.turn(now, self.every) {
            for kind in self.turn.kinds(&repo, &self.kinds) {
                let listed = self.list(kind, &repo, cursors, now).await;
                match self.rounds.settle((kind.plural(), &repo), listed, cursors, now, &mut page) {
                    Ok(found) => {
                        let (found, more) = found.unwrap_or_default();
                        page.add(found);
                        if !more {
                            self.turn.done(kind);
                        }
                    }
                    // What was had of the others counts.
                    Err(_) if page.has_news() => return Ok(page),
                    Err(error) => return Err(error),
                }
            }
            if self.turn.kinds(&repo, &self.kinds).is_empty() {
                self.rounds.done();
                self.turn.over();
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

    /// Pages of a ledger of two repositories until there is nothing more for now.
    async fn drain(ledger: &Ledger, cursors: &mut Cursors, now: i64) -> (Vec<String>, Vec<String>) {
        let (mut ids, mut lost) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let page = ledger.page(cursors, at(now)).await.unwrap();
            cursors.extend(page.cursors);
            lost.extend(page.lost);
            for item in &page.items {
                let entry: Value = serde_json::from_slice(&item.body).unwrap();
                ids.push(format!("{} {}", entry["scope"].as_str().unwrap(), entry["id"].as_str().unwrap()));
            }
            if page.next != crate::collect::Next::Now {
                return (ids, lost);
            }
        }
        panic!("it never comes to an end");
    }

    fn pulls(repo: &str) -> String {
        format!("/repos/acme/{repo}/pulls?state=closed&sort=updated&direction=desc&per_page=100")
    }

    fn merged(number: u64) -> String {
        let at = at(NOW).minus(Duration::from_secs(10));
        format!(r#"[{{"number":{number},"updated_at":"{at}","merged_at":"{at}"}}]"#)
    }

    #[tokio::test]
    async fn a_repository_that_is_gone_or_refused_costs_the_others_nothing() {
        let script = Script::new();
        let repos = r#"[{"full_name":"acme/gone"},{"full_name":"acme/off"},{"full_name":"acme/shop"}]"#;
        script.json("/orgs/acme/repos?per_page=100", repos);
        script.answer(&pulls("gone"), 404, &[], r#"{"message":"Not Found"}"#);
        script.answer(&pulls("off"), 403, &[], r#"{"message":"Resource not accessible"}"#);
        script.json(&pulls("shop"), &merged(7));
        let scope = Scope::Organization("acme".into());
        let every = Duration::from_secs(60);
        let ledger = || Ledger::new(script.api(), scope.clone(), vec![Kind::Change], Duration::from_secs(3_600), every);
        let (running, mut cursors) = (ledger(), Cursors::default());
        assert_eq!(drain(&running, &mut cursors, NOW).await, (vec!["acme/shop 7".to_owned()], vec![]));
        let troubled = |cursors: &Cursors| {
            let troubled = cursors.iter().filter_map(|(stream, cursor)| crate::collect::Troubled::of(stream, cursor));
            troubled.map(|one| (one.what, one.member)).collect::<Vec<_>>()
        };
        let about = |repo: &str| ("changes".to_owned(), format!("acme/{repo}"));
        assert_eq!(troubled(&cursors), [about("gone"), about("off")]);
        // It lasts over a restart, is written down once, and ends.
        script.json(&pulls("off"), &merged(9));
        let restarted = ledger();
        assert_eq!(drain(&restarted, &mut cursors, NOW + 60).await, (vec!["acme/off 9".to_owned()], vec![]));
        assert_eq!(troubled(&cursors), [about("gone")]);
        let before = cursors.clone();
        assert_eq!(drain(&restarted, &mut cursors, NOW + 120).await, (vec![], vec![]));
        assert_eq!(cursors, before);
        // Once it is not listed any more, what could not be had of it is lost.
        script.json("/orgs/acme/repos?per_page=100", r#"[{"full_name":"acme/off"},{"full_name":"acme/shop"}]"#);
        let (_, lost) = drain(&restarted, &mut cursors, NOW + 4_000).await;
        assert!(lost.len() == 1 && lost[0].contains("changes of acme/gone"), "{lost:?}");
        assert!(troubled(&cursors).is_empty());
    }

    #[tokio::test]
    async fn credentials_that_are_refused_are_no_matter_of_a_repository() {
        let script = Script::new();
        script.answer(&pulls("shop"), 401, &[], r#"{"message":"Bad credentials"}"#);
        let (ledger, cursors) = (ledger(&script, Kind::Change), Cursors::default());
        for _ in 0..3 {
            assert!(ledger.page(&cursors, at(NOW)).await.is_err());
        }
    }

    #[tokio::test]
    async fn deployments_that_go_on_cost_next_to_nothing_and_leave_requests_to_others() {
        let script = Script::new();
        let deployment =
            |id: u64| format!(r#"{{"id":{id},"created_at":"{}"}}"#, at(NOW).minus(Duration::from_secs(900 - id)));
        let all: Vec<String> = (1..=250).rev().map(deployment).collect();
        script.json("/repos/acme/shop/deployments?per_page=100", &format!("[{}]", all.join(",")));
        let status = |id: u64| format!("/repos/acme/shop/deployments/{id}/statuses?per_page=1");
        for id in 1..=250 {
            script.json_with(&status(id), r#"[{"state":"in_progress"}]"#, &[("etag", &format!("W/\"{id}\""))]);
        }
        let (ledger, mut cursors) = (ledger(&script, Kind::Deployment), Cursors::default());
        let turn = async |cursors: &mut Cursors, now: i64| {
            let page = ledger.page(cursors, at(now)).await.unwrap();
            cursors.extend(page.cursors);
            let asked = script.asked();
            let statuses = asked.iter().filter(|(path, _)| path.contains("/statuses"));
            let free = statuses.clone().filter(|(_, headers)| headers.contains_key("if-none-match")).count();
            (statuses.count(), free, page.items.len())
        };
        // The new ones are asked about in turns, then the old ones with what is known of them.
        assert_eq!(turn(&mut cursors, NOW).await, (100, 0, 0));
        assert_eq!(turn(&mut cursors, NOW).await, (100, 0, 0));
        assert_eq!(turn(&mut cursors, NOW).await, (100, 50, 0));
        assert_eq!(turn(&mut cursors, NOW + 60).await, (100, 100, 0));
        // Few requests are left: others come first. The list itself says when there are more again.
        let scarce = [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "40")];
        script.json_with("/repos/acme/shop/deployments?per_page=100", &format!("[{}]", all.join(",")), &scarce);
        assert_eq!(turn(&mut cursors, NOW + 120).await, (0, 0, 0));
        let plenty = [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "4000")];
        script.json_with("/repos/acme/shop/deployments?per_page=100", &format!("[{}]", all.join(",")), &plenty);
        for id in 1..=250 {
            script.json_with(&status(id), r#"[{"state":"success"}]"#, &[("etag", "W/\"done\"")]);
            script.json(&format!("/repos/acme/shop/deployments/{id}"), &deployment(id));
        }
        let mut ended = 0;
        for round in 3..6 {
            ended += turn(&mut cursors, NOW + 60 * round).await.2;
        }
        assert_eq!(ended, 250);
    }
}
