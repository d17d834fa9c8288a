//! Workflow runs of a repository, each once when it has finished.
//!
//! Source: GitHub "List workflow runs for a repository". `created` selects by the time of creation; a search gives a thousand
//! results at most, so that a window with more is halved. Runs that had not finished when they were listed are kept in the
//! cursor and asked for one by one. The question stays the same until something new was created: its ETag saves the quota.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ELEMENTS_MAX, repository};
use crate::collect::cursors::moved;
use crate::collect::etags::Etags;
use crate::collect::http::Api;
use crate::collect::{CollectError, Cursors, Page};

/// Results of a search at most.
const RESULTS_MAX: u64 = 1_000;
/// Runs may become visible out of order by this much.
const OVERLAP: Duration = Duration::from_secs(60);
/// Most runs that are asked for one by one.
const OPEN_MAX: usize = 500;
/// Those that are asked for in a turn.
const ASKED_MAX: usize = 100;
/// Narrower than this a window is not halved.
const NARROW: Duration = Duration::from_secs(2);

/// How far a repository's runs were listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runs {
    /// Runs created before are listed.
    from: Timestamp,
    /// Those created since that are listed too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    edge: Vec<u64>,
    /// Listed before they had finished.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open: Vec<u64>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Runs that finished: their bytes and their JSON.
    pub(super) finished: Vec<(Bytes, Value)>,
    /// What cannot be told any more.
    lost: Vec<String>,
    /// Whether there are more now.
    pub(super) more: bool,
}

impl Runs {
    const fn since(from: Timestamp) -> Self {
        Self { from, edge: Vec::new(), open: Vec::new() }
    }

    /// What finished of a repository since its cursor, or since `since` before the first time; `page` moves it.
    pub(super) async fn follow(
        api: &Api,
        repo: &str,
        etags: &Etags,
        since: Duration,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<Found, CollectError> {
        let stream = format!("runs/{repo}");
        let before: Option<Self> = cursors.read(&stream)?;
        let mut runs = before.clone().unwrap_or_else(|| Self::since(now.minus(since)));
        let mut found = runs.look(api, repo, etags, now).await?;
        page.lost.append(&mut found.lost);
        if before.as_ref() != Some(&runs) {
            page.cursors.push(moved(&stream, &runs)?);
        }
        Ok(found)
    }

    /// Looks once; moves on.
    async fn look(&mut self, api: &Api, repo: &str, etags: &Etags, now: Timestamp) -> Result<Found, CollectError> {
        let mut found = Found::default();
        if self.ask_open(api, repo, etags, now, &mut found).await? {
            // An error stopped it; what was had counts, and the error comes again.
            found.more = true;
            return Ok(found);
        }
        let mut to = None;
        let base = repository(repo);
        let (question, first) = loop {
            let created = match to {
                None => format!("%3E%3D{}", whole(self.from)),
                Some(to) => format!("{}..{}", whole(self.from), whole(to)),
            };
            let question = format!("{base}/actions/runs?per_page=100&created={created}");
            let etag = to.is_none().then(|| etags.get(repo, &question, now)).flatten();
            let Some(listed) = api.list(&question, etag.as_deref()).await? else { return Ok(found) };
            let total = listed.json()?.get("total_count").and_then(Value::as_u64).unwrap_or(0);
            let end = to.unwrap_or(now);
            let width = Duration::from_micros(u64::try_from(end.micros_since(self.from)).unwrap_or(0));
            if total <= RESULTS_MAX || width <= NARROW {
                break (question, listed);
            }
            to = Some(self.from.plus(width / 2));
        };
        let etag = first.etag.clone();
        let (mut newest, mut created) = (self.from, Vec::new());
        let mut listed = Some(first);
        while let Some(page) = listed.take() {
            for (bytes, run) in page.elements(Some("workflow_runs"), ELEMENTS_MAX)? {
                let id = run.get("id").and_then(Value::as_u64).ok_or_else(|| page.wrong("a run has no id"))?;
                let at = run.get("created_at").and_then(Value::as_str).and_then(Timestamp::parse);
                let at = at.ok_or_else(|| page.wrong("a run has no created_at"))?;
                newest = newest.max(at);
                created.push((at, id));
                if self.edge.contains(&id) {
                    continue;
                }
                if is_finished(&run) {
                    found.finished.push((bytes, run));
                } else if !self.open.contains(&id) {
                    self.open.push(id);
                }
            }
            if let Some(next) = &page.next {
                listed = Some(api.get(next).await?);
            }
        }
        let from = to.unwrap_or(newest).minus(if to.is_some() { Duration::ZERO } else { OVERLAP }).max(self.from);
        let known = |id: &u64| created.iter().all(|(_, listed)| listed != id);
        // What was listed before and is in the overlap still.
        let mut edge: Vec<u64> =
            if from == self.from { self.edge.iter().copied().filter(known).collect() } else { Vec::new() };
        edge.extend(created.iter().filter(|(at, _)| *at >= from).map(|(_, id)| *id));
        (self.from, self.edge) = (from, edge);
        while self.open.len() > OPEN_MAX {
            found.lost.push(format!("run {} of {repo}: too many wait for their end", self.open.remove(0)));
        }
        found.more = to.is_some();
        if to.is_none() {
            etags.set(repo, &question, etag, now);
        }
        // Oldest first.
        found.finished.reverse();
        Ok(found)
    }

    /// Asks for some of those that had not finished. That one still has not costs nothing to be told. Whether an error stopped it
    /// after something was had.
    async fn ask_open(
        &mut self,
        api: &Api,
        repo: &str,
        etags: &Etags,
        now: Timestamp,
        found: &mut Found,
    ) -> Result<bool, CollectError> {
        let rest = self.open.split_off(self.open.len().min(ASKED_MAX));
        let mut asked = VecDeque::from(std::mem::replace(&mut self.open, rest));
        let (mut still, mut stopped) = (Vec::new(), None);
        while !api.is_scarce()
            && let Some(id) = asked.pop_front()
        {
            let question = format!("{}/actions/runs/{id}", repository(repo));
            match api.list(&question, etags.get(&question, &question, now).as_deref()).await {
                Ok(None) => still.push(id),
                Ok(Some(answer)) => {
                    let run = answer.json()?;
                    let finished = is_finished(&run);
                    etags.set(&question, &question, answer.etag.filter(|_| !finished), now);
                    if finished {
                        found.finished.push((answer.body, run));
                    } else {
                        still.push(id);
                    }
                }
                Err(CollectError::Missing { .. }) => {
                    found.lost.push(format!("run {id} of {repo} was deleted before it had finished"));
                }
                Err(error) => {
                    asked.push_front(id);
                    stopped = Some(error);
                    break;
                }
            }
        }
        let had = !found.finished.is_empty() || !found.lost.is_empty();
        // Who was not asked comes first next time.
        let mut open = Vec::from(asked);
        open.append(&mut self.open);
        open.append(&mut still);
        self.open = open;
        match stopped {
            Some(error) if !had => Err(error),
            stopped => Ok(stopped.is_some()),
        }
    }
}

fn is_finished(run: &Value) -> bool {
    run.get("status").and_then(Value::as_str) == Some("completed")
}

/// A time in whole seconds, as the search takes it.
pub(super) fn whole(time: Timestamp) -> String {
    Timestamp::from_secs(time.as_micros().div_euclid(1_000_000)).to_string().replace(':', "%3A")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::script::{Script, at};

    const FROM: i64 = 1_795_690_800;

    fn run(id: u64, created: i64, status: &str) -> String {
        format!(r#"{{"id":{id},"status":"{status}","created_at":"{}"}}"#, at(created))
    }

    fn runs(total: u64, runs: &[String]) -> String {
        format!(r#"{{"total_count":{total},"workflow_runs":[{}]}}"#, runs.join(","))
    }

    fn open_ended(from: i64) -> String {
        format!("/repos/acme/shop/actions/runs?per_page=100&created=%3E%3D{}", whole(at(from)))
    }

    async fn look(script: &std::sync::Arc<Script>, runs: &mut Runs, etags: &Etags) -> (Vec<u64>, bool) {
        let found = runs.look(&script.api(), "acme/shop", etags, at(FROM + 7_200)).await.unwrap();
        (found.finished.iter().map(|(_, run)| run["id"].as_u64().unwrap()).collect(), found.more)
    }

    #[tokio::test]
    async fn each_run_comes_once_when_it_has_finished() {
        let script = Script::new();
        let (mut cursor, etags) = (Runs::since(at(FROM)), Etags::default());
        let listed =
            [run(3, FROM + 500, "completed"), run(2, FROM + 480, "in_progress"), run(1, FROM + 10, "completed")];
        script.json(&open_ended(FROM), &runs(3, &listed));
        assert_eq!(look(&script, &mut cursor, &etags).await, (vec![1, 3], false));
        assert_eq!((cursor.open.clone(), cursor.from), (vec![2], at(FROM + 440)));
        // Within the overlap 2 and 3 are listed again.
        script.json(&open_ended(FROM + 440), &runs(2, &listed[..2]));
        script.json("/repos/acme/shop/actions/runs/2", &run(2, FROM + 480, "in_progress"));
        assert_eq!(look(&script, &mut cursor, &etags).await.0, [] as [u64; 0]);
        script.json("/repos/acme/shop/actions/runs/2", &run(2, FROM + 480, "completed"));
        assert_eq!(look(&script, &mut cursor, &etags).await.0, [2]);
        assert_eq!(look(&script, &mut cursor, &etags).await.0, [] as [u64; 0]);
    }

    #[tokio::test]
    async fn what_did_not_change_costs_nothing() {
        let script = Script::new();
        let (mut cursor, etags) = (Runs::since(at(FROM)), Etags::default());
        script.json_with(&open_ended(FROM), &runs(1, &[run(1, FROM + 10, "completed")]), &[("etag", "W/\"a\"")]);
        assert_eq!(look(&script, &mut cursor, &etags).await.0, [1]);
        script.asked();
        assert_eq!(look(&script, &mut cursor, &etags).await.0, [] as [u64; 0]);
        assert_eq!(script.asked()[0].1["if-none-match"], "W/\"a\"");
    }

    #[tokio::test]
    async fn a_window_with_too_many_results_is_halved() {
        let script = Script::new();
        let (mut cursor, etags) = (Runs::since(at(FROM)), Etags::default());
        script.json(&open_ended(FROM), &runs(1_800, &[]));
        let half = |from: i64, to: i64| {
            format!("/repos/acme/shop/actions/runs?per_page=100&created={}..{}", whole(at(from)), whole(at(to)))
        };
        let next = [("link", "<https://api.example/repos/acme/shop/actions/runs?page=2>; rel=\"next\"")];
        script.json_with(&half(FROM, FROM + 3_600), &runs(900, &[run(2, FROM + 20, "completed")]), &next);
        script.json("/repos/acme/shop/actions/runs?page=2", &runs(900, &[run(1, FROM + 10, "completed")]));
        assert_eq!(look(&script, &mut cursor, &etags).await, (vec![1, 2], true));
        assert_eq!(cursor.from, at(FROM + 3_600));
    }

    #[tokio::test]
    async fn a_run_that_was_deleted_is_lost() {
        let script = Script::new();
        let mut cursor = Runs { open: vec![9], ..Runs::since(at(FROM)) };
        script.answer("/repos/acme/shop/actions/runs/9", 404, &[], "");
        script.json(&open_ended(FROM), &runs(0, &[]));
        let found = cursor.look(&script.api(), "acme/shop", &Etags::default(), at(FROM)).await.unwrap();
        assert!(found.lost[0].contains("run 9"), "{:?}", found.lost);
    }
}
