//! Buildkite: logs of finished jobs, and builds as a ledger.
//!
//! Sources: Buildkite "Builds API" (`GET /v2/organizations/{org}/builds`, `finished_from`, `Link`), "Jobs API" (`…/jobs/{id}/log`:
//! the text is `content`). The base is `https://api.buildkite.com/v2`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde_json::Value;

use super::changed::{Changed, Question};
use super::entry::{Kind, entry};
use super::http::{Answer, Api, escaped};
use super::rounds::Rounds;
use super::waiting::{Logs, Recent, Wanted};
use super::{CollectError, Collector, Cursors, FinishedJob, Next, Page};

const STREAM: &str = "builds";

/// Builds of an organisation that finished.
#[derive(Debug)]
struct Builds {
    api: Arc<Api>,
    organization: String,
    since: Duration,
}

impl Builds {
    async fn look(
        &self,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<(Vec<(Bytes, Value)>, bool), CollectError> {
        let path = format!("/organizations/{}/builds?per_page=100&state=finished", escaped(&self.organization));
        let question = Question { path, after: "finished_from", before: None, time: "finished_at" };
        Changed::follow(&self.api, &question, (STREAM.to_owned(), self.since), cursors, now, page).await
    }
}

fn text(value: &Value, path: &[&str]) -> Option<String> {
    path.iter().try_fold(value, |value, key| value.get(key))?.as_str().map(ToOwned::to_owned)
}

/// Collects job logs for a source of type `buildkite.joblog`.
#[derive(Debug)]
pub struct JobLogs {
    builds: Builds,
    every: Duration,
    rounds: Rounds,
    recent: Recent,
}

impl JobLogs {
    /// Logs of jobs of builds that finished from `since` before the first time on.
    #[must_use]
    pub fn new(api: Arc<Api>, organization: String, since: Duration, every: Duration) -> Self {
        let builds = Builds { api, organization, since };
        Self { builds, every, rounds: Rounds::default(), recent: Recent::default() }
    }

    fn want(&self, build: &Value, wanted: &mut Wanted) {
        let (Some(run), Some(slug)) = (text(build, &["id"]), text(build, &["pipeline", "slug"])) else { return };
        let number = build.get("number").and_then(Value::as_u64).unwrap_or_default();
        for job in build.get("jobs").and_then(Value::as_array).into_iter().flatten() {
            // Steps that wait, block or trigger print nothing.
            let ran = text(job, &["type"]).as_deref() == Some("script") && text(job, &["started_at"]).is_some();
            let Some(id) = text(job, &["id"]).filter(|_| ran) else { continue };
            let repository = text(build, &["pipeline", "repository"]);
            wanted.want(
                FinishedJob {
                    repo: repository.as_deref().and_then(crate::decode::remote).unwrap_or_else(|| slug.clone()),
                    run: run.clone(),
                    address: Some(format!("pipelines/{}/builds/{number}/jobs/{}", escaped(&slug), escaped(&id))),
                    job: id,
                    attempt: job.get("retries_count").and_then(Value::as_i64).unwrap_or(0).saturating_add(1),
                    name: text(job, &["name"]),
                    workflow: Some(slug.clone()),
                    reference: text(build, &["branch"]).map(|branch| format!("refs/heads/{branch}")),
                    sha: text(build, &["commit"]).filter(|commit| commit != "HEAD"),
                },
                &self.recent,
            );
        }
    }
}

#[async_trait]
impl Logs for JobLogs {
    fn has(&self, _job: &FinishedJob) -> bool {
        true
    }

    async fn log(&self, job: &FinishedJob, body_max: usize) -> Result<Answer, CollectError> {
        let organization = escaped(&self.builds.organization);
        let path = job.address.as_deref().unwrap_or_default();
        let listed = self.builds.api.get(&format!("/organizations/{organization}/{path}/log")).await?;
        let content = listed.json()?.get("content").and_then(Value::as_str).map(ToOwned::to_owned);
        let mut text = content.ok_or_else(|| listed.wrong("the log has no content"))?;
        let cut = text.len() > body_max;
        text.truncate(text.floor_char_boundary(body_max));
        Ok(Answer { body: text.into(), cut, ..Answer::default() })
    }
}

#[async_trait]
impl Collector for JobLogs {
    fn name(&self) -> String {
        format!("buildkite.job-logs/{}", self.builds.organization)
    }

    fn left(&self) -> Option<u64> {
        self.builds.api.left()
    }

    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        let mut page = Page::default();
        let before = Wanted::read(cursors, &self.recent)?;
        let mut wanted = before.clone();
        if !wanted.is_due(now) && !wanted.is_full() {
            if self.rounds.wants_members(now) {
                self.rounds.members(vec![String::new()], now);
            }
            if self.rounds.turn(now, self.every).is_some() {
                let (found, more) = self.builds.look(cursors, now, &mut page).await?;
                for (_, build) in &found {
                    self.want(build, &mut wanted);
                }
                if !more {
                    self.rounds.done();
                }
            }
        }
        if wanted == before {
            wanted.fetch(self, &self.recent, cursors, now, &mut page).await?;
        }
        wanted.moved(&before, &mut page)?;
        page.next = wanted.next(false, false, now, self.rounds.wait(now, self.every));
        Ok(page)
    }
}

/// Collects builds for a source of type `provider.ledger`.
#[derive(Debug)]
pub struct Ledger {
    builds: Builds,
    every: Duration,
}

impl Ledger {
    /// Builds that finished from `since` before the first time on.
    #[must_use]
    pub const fn new(api: Arc<Api>, organization: String, since: Duration, every: Duration) -> Self {
        Self { builds: Builds { api, organization, since }, every }
    }
}

#[async_trait]
impl Collector for Ledger {
    fn name(&self) -> String {
        format!("buildkite.ledger/{}", self.builds.organization)
    }

    fn left(&self) -> Option<u64> {
        self.builds.api.left()
    }

    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        let mut page = Page::default();
        let (found, more) = self.builds.look(cursors, now, &mut page).await?;
        for (bytes, build) in &found {
            if let (Some(id), Some(slug)) = (text(build, &["id"]), text(build, &["pipeline", "slug"])) {
                page.items.push(entry("buildkite", Kind::Run, &slug, &id, bytes, None));
            }
        }
        page.next = if more { Next::Now } else { Next::After(self.every) };
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::script::{Script, at};

    const NOW: i64 = 1_795_694_400;
    const HOUR: Duration = Duration::from_secs(3_600);

    fn script() -> Arc<Script> {
        let script = Script::new();
        let from = at(NOW - 3_600).to_string().replace(':', "%3A");
        let builds = format!(
            r#"[{{"id":"b-1","number":12,"state":"passed","finished_at":"{}","branch":"main","commit":"abc","pipeline":{{"slug":"shop","repository":"git@github.com:acme/shop.git"}},"jobs":[{{"id":"j-1","type":"script","name":"build","started_at":"2026-11-26T00:00:00Z"}},{{"id":"j-2","type":"waiter"}}]}}]"#,
            at(NOW - 60)
        );
        script.json(&format!("/organizations/acme/builds?per_page=100&state=finished&finished_from={from}"), &builds);
        script.json("/organizations/acme/pipelines/shop/builds/12/jobs/j-1/log", r#"{"content":"hello","size":5}"#);
        script
    }

    #[tokio::test]
    async fn logs_of_jobs_that_ran_are_fetched() {
        let (script, mut cursors, mut items) = (script(), Cursors::default(), Vec::new());
        let logs = JobLogs::new(script.api(), "acme".into(), HOUR, HOUR);
        for _ in 0..3 {
            let page = logs.page(&cursors, at(NOW)).await.unwrap();
            items.extend(page.items);
            cursors.extend(page.cursors);
        }
        assert_eq!(items.len(), 1);
        let query = &items[0].query;
        assert_eq!(
            (&items[0].body[..], &*query["repo"], &*query["run_id"], &*query["job_id"]),
            (&b"hello"[..], "acme/shop", "b-1", "j-1")
        );
    }

    #[tokio::test]
    async fn builds_are_entered_in_the_ledger() {
        let script = script();
        let ledger = Ledger::new(script.api(), "acme".into(), HOUR, HOUR);
        let page = ledger.page(&Cursors::default(), at(NOW)).await.unwrap();
        assert!(
            page.items[0]
                .body
                .starts_with(br#"{"provider":"buildkite","kind":"run","scope":"shop","id":"b-1","object":{"#)
        );
        assert_eq!(page.next, Next::After(HOUR));
    }
}
