//! Job logs: of jobs this node saw end, and of all jobs of runs that are listed, which finds those it did not see.
//!
//! Source: GitHub "Download job logs for a workflow run": `GET /repos/{owner}/{repo}/actions/jobs/{id}/logs` answers 302 to an
//! address that expires after a minute; a log is not there at once when its job has ended, and 410 when it is kept no more.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde_json::Value;

use super::runs::Runs;
use super::{ELEMENTS_MAX, Scope, repositories, repository};
use crate::collect::etags::Etags;
use crate::collect::following::{self, EndedRun, Following};
use crate::collect::http::{Answer, Api, escaped};
use crate::collect::waiting::Logs;
use crate::collect::{CollectError, Collector, Cursors, FinishedJob, Held, Page};

/// Collects job logs for a source of type `github.joblog`.
#[derive(Debug)]
pub struct JobLogs {
    api: Arc<Api>,
    scope: Scope,
    since: Duration,
    etags: Etags,
    following: Following,
}

impl JobLogs {
    /// Logs of jobs that `seen_by` told to have ended, and of runs created from `since` before the first time on.
    #[must_use]
    pub fn new(
        api: Arc<Api>,
        scope: Scope,
        held: Arc<dyn Held>,
        seen_by: Option<String>,
        since: Duration,
        every: Duration,
    ) -> Self {
        Self { api, scope, since, etags: Etags::default(), following: Following::new(held, seen_by, every) }
    }
}

#[async_trait]
impl following::Runs for JobLogs {
    async fn members(&self) -> Result<Vec<String>, CollectError> {
        repositories(&self.api, &self.scope).await
    }

    async fn ended(
        &self,
        member: &str,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<(Vec<EndedRun>, bool), CollectError> {
        let found = Runs::follow(&self.api, member, &self.etags, self.since, cursors, now, page).await?;
        let id = |run: &Value| run.get("id").and_then(Value::as_u64).unwrap_or_default();
        let ended = found.finished.iter().map(|(_, run)| EndedRun::new(member.to_owned(), id(run), None));
        Ok((ended.collect(), found.more))
    }

    async fn jobs(&self, run: &EndedRun) -> Result<Vec<FinishedJob>, CollectError> {
        let mut jobs = Vec::new();
        let list = format!("{}/actions/runs/{}/jobs?filter=all&per_page=100", repository(&run.member), run.id);
        let mut next = Some(list);
        while let Some(path) = next {
            let listed = match self.api.get(&path).await {
                Err(CollectError::Missing { .. }) => return Ok(jobs),
                listed => listed?,
            };
            for (_, job) in listed.elements(Some("jobs"), ELEMENTS_MAX)? {
                let text = |key: &str| job.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
                let ended =
                    text("status").as_deref() == Some("completed") && text("conclusion").as_deref() != Some("skipped");
                let Some(id) = job.get("id").and_then(Value::as_u64).filter(|_| ended) else { continue };
                jobs.push(FinishedJob {
                    repo: run.member.clone(),
                    run: run.id.to_string(),
                    job: id.to_string(),
                    attempt: job.get("run_attempt").and_then(Value::as_i64).unwrap_or(1),
                    name: text("name"),
                    workflow: text("workflow_name"),
                    // A job does not say whose branch `head_branch` is: it may be a fork's, or a tag.
                    reference: None,
                    sha: text("head_sha"),
                    address: None,
                });
            }
            next = listed.next;
        }
        Ok(jobs)
    }
}

#[async_trait]
impl Logs for JobLogs {
    fn has(&self, job: &FinishedJob) -> bool {
        let (owner, _) = job.repo.split_once('/').unwrap_or_default();
        match &self.scope {
            Scope::Repositories(names) => names.iter().any(|name| name.eq_ignore_ascii_case(&job.repo)),
            Scope::Organization(name) | Scope::Enterprise(name) => name.eq_ignore_ascii_case(owner),
        }
    }

    async fn log(&self, job: &FinishedJob, body_max: usize) -> Result<Answer, CollectError> {
        let path = format!("{}/actions/jobs/{}/logs", repository(&job.repo), escaped(&job.job));
        self.api.file(&path, body_max).await
    }
}

#[async_trait]
impl Collector for JobLogs {
    fn name(&self) -> String {
        format!("github.job-logs/{}", self.scope.name())
    }

    fn left(&self) -> Option<u64> {
        self.api.left()
    }

    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        self.following.page(self, cursors, now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Next;
    use crate::collect::script::{Here, Script, at};

    const NOW: i64 = 1_795_694_400;

    fn job(id: &str) -> FinishedJob {
        FinishedJob { repo: "acme/shop".into(), run: "5".into(), job: id.into(), attempt: 1, ..FinishedJob::default() }
    }

    fn collector(script: &Arc<Script>, held: &Arc<Here>) -> JobLogs {
        let held = Arc::clone(held) as Arc<dyn Held>;
        let scope = Scope::Repositories(vec!["acme/shop".into()]);
        let (since, every) = (Duration::from_secs(3_600), Duration::from_secs(300));
        JobLogs::new(script.api(), scope, held, Some("hooks".into()), since, every)
    }

    fn no_runs(script: &Script) {
        let from = super::super::runs::whole(at(NOW - 3_600));
        let path = format!("/repos/acme/shop/actions/runs?per_page=100&created=%3E%3D{from}");
        script.json(&path, r#"{"total_count":0,"workflow_runs":[]}"#);
    }

    fn log(script: &Script, id: &str, text: &str) {
        let signed = format!("https://logs.example/{id}?sig=secret");
        script.answer(&format!("/repos/acme/shop/actions/jobs/{id}/logs"), 302, &[("location", &signed)], "");
        script.answer(&signed, 200, &[], text.to_owned());
    }

    /// Pages until there is nothing more for now.
    async fn drain(collector: &JobLogs, cursors: &mut Cursors, now: i64) -> (Vec<String>, Vec<String>) {
        let (mut logs, mut lost) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            let page = collector.page(cursors, at(now)).await.unwrap();
            logs.extend(
                page.items
                    .iter()
                    .map(|item| format!("{} {}", item.query["job_id"], String::from_utf8_lossy(&item.body))),
            );
            lost.extend(page.lost);
            cursors.extend(page.cursors);
            if page.next != Next::Now {
                return (logs, lost);
            }
        }
        panic!("it never comes to an end");
    }

    #[tokio::test]
    async fn the_log_of_a_job_that_was_seen_to_end_is_fetched_without_our_token() {
        let (script, held) = (Script::new(), Arc::new(Here::default()));
        no_runs(&script);
        let collector = collector(&script, &held);
        let mut cursors = Cursors::default();
        assert!(drain(&collector, &mut cursors, NOW).await.0.is_empty());
        held.finish(job("77"));
        log(&script, "77", "hello");
        script.asked();
        assert_eq!(drain(&collector, &mut cursors, NOW + 2).await.0, ["77 hello"]);
        let asked = script.asked();
        let to = |part: &str| asked.iter().find(|(path, _)| path.contains(part)).unwrap();
        assert!(to("/jobs/77/logs").1.contains_key("authorization"));
        assert!(!to("logs.example").1.contains_key("authorization"));
        assert!(drain(&collector, &mut cursors, NOW + 4).await.0.is_empty(), "once");
    }

    #[tokio::test]
    async fn what_was_wanted_before_a_crash_is_fetched_after_it() {
        let (script, held) = (Script::new(), Arc::new(Here::default()));
        no_runs(&script);
        let mut cursors = Cursors::default();
        drain(&collector(&script, &held), &mut cursors, NOW).await;
        held.finish(job("77"));
        let page = collector(&script, &held).page(&cursors, at(NOW)).await.unwrap();
        assert!(page.items.is_empty() && page.next == Next::Now, "it is written down first");
        cursors.extend(page.cursors);
        log(&script, "77", "hello");
        assert_eq!(drain(&collector(&script, &held), &mut cursors, NOW).await.0, ["77 hello"]);
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_yet_is_asked_for_again_and_lost_in_the_end() {
        let (script, held) = (Script::new(), Arc::new(Here::default()));
        no_runs(&script);
        let collector = collector(&script, &held);
        let mut cursors = Cursors::default();
        drain(&collector, &mut cursors, NOW).await;
        held.finish(job("1"));
        held.finish(job("2"));
        script.answer("/repos/acme/shop/actions/jobs/1/logs", 404, &[], "");
        script.answer("/repos/acme/shop/actions/jobs/2/logs", 410, &[], "");
        let (logs, lost) = drain(&collector, &mut cursors, NOW).await;
        assert!(logs.is_empty() && lost.len() == 1 && lost[0].contains("acme/shop/5/2/1"), "{lost:?}");
        assert!(drain(&collector, &mut cursors, NOW + 5).await.1.is_empty());
        let mut lost = Vec::new();
        for round in 1..30 {
            lost.extend(drain(&collector, &mut cursors, NOW + 120 * round).await.1);
        }
        assert!(lost.len() == 1 && lost[0].contains("acme/shop/5/1/1"), "{lost:?}");
    }

    #[tokio::test]
    async fn what_an_error_took_back_is_wanted_again() {
        let (script, held) = (Script::new(), Arc::new(Here::default()));
        let from = super::super::runs::whole(at(NOW - 3_600));
        let list = format!("/repos/acme/shop/actions/runs?per_page=100&created=%3E%3D{from}");
        let run = |id: u64| format!(r#"{{"id":{id},"status":"completed","created_at":"{}"}}"#, at(NOW - 600));
        script.answer(&list, 502, &[], "");
        let (collector, mut cursors) = (collector(&script, &held), Cursors::default());
        assert!(collector.page(&cursors, at(NOW)).await.is_err(), "the list cannot be had");
        script.json(&list, &format!(r#"{{"total_count":2,"workflow_runs":[{},{}]}}"#, run(6), run(5)));
        let jobs = |run: u64| format!("/repos/acme/shop/actions/runs/{run}/jobs?filter=all&per_page=100");
        let one = |id: u64| {
            format!(r#"{{"jobs":[{{"id":{id},"run_attempt":1,"status":"completed","conclusion":"success"}}]}}"#)
        };
        script.json(&jobs(5), &one(78));
        script.answer(&jobs(6), 502, &[], "");
        for id in ["78", "79"] {
            log(&script, id, "hello");
        }
        let mut had = Vec::new();
        for turn in 0..12 {
            if turn == 6 {
                script.json(&jobs(6), &one(79));
            }
            let Ok(page) = collector.page(&cursors, at(NOW + turn)).await else { continue };
            had.extend(page.items.iter().map(|item| item.query["job_id"].clone()));
            cursors.extend(page.cursors);
        }
        had.sort();
        assert_eq!(had, ["78", "79"], "each once, whatever failed in between");
    }

    #[tokio::test]
    async fn jobs_of_listed_runs_are_found_without_webhooks_and_not_fetched_twice() {
        let (script, held) = (Script::new(), Arc::new(Here::default()));
        let from = super::super::runs::whole(at(NOW - 3_600));
        let created = at(NOW - 600);
        script.json(
            &format!("/repos/acme/shop/actions/runs?per_page=100&created=%3E%3D{from}"),
            &format!(
                r#"{{"total_count":1,"workflow_runs":[{{"id":5,"status":"completed","created_at":"{created}"}}]}}"#
            ),
        );
        script.json(
            "/repos/acme/shop/actions/runs/5/jobs?filter=all&per_page=100",
            r#"{"total_count":2,"jobs":[{"id":77,"run_attempt":1,"status":"completed","conclusion":"success","name":"build"},{"id":78,"run_attempt":1,"status":"completed","conclusion":"skipped"}]}"#,
        );
        log(&script, "77", "hello");
        let collector = collector(&script, &held);
        let mut cursors = Cursors::default();
        assert_eq!(drain(&collector, &mut cursors, NOW).await.0, ["77 hello"]);
        held.finish(job("77"));
        assert!(drain(&collector, &mut cursors, NOW).await.0.is_empty(), "it was had");
    }

    #[tokio::test]
    async fn a_log_that_is_refused_waits_and_the_others_come() {
        let (script, held) = (Script::new(), Arc::new(Here::default()));
        no_runs(&script);
        let collector = collector(&script, &held);
        let mut cursors = Cursors::default();
        drain(&collector, &mut cursors, NOW).await;
        held.finish(job("1"));
        held.finish(job("2"));
        script.answer("/repos/acme/shop/actions/jobs/1/logs", 403, &[], r#"{"message":"Must have admin rights"}"#);
        log(&script, "2", "hello");
        assert_eq!(drain(&collector, &mut cursors, NOW + 2).await.0, ["2 hello"]);
        // Who mends it within a day has it.
        log(&script, "1", "late");
        let mut had = Vec::new();
        for minute in 1..130 {
            had.extend(drain(&collector, &mut cursors, NOW + 60 * minute).await.0);
        }
        assert_eq!(had, ["1 late"]);
        assert!(!cursors.has("troubled/logs/acme/shop"));
    }
}
