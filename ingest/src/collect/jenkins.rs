//! Jenkins: console logs of finished builds, and builds as a ledger.
//!
//! Source: Jenkins "Remote Access API": `/api/json?tree=…` selects members and ranges, `/job/A/job/B/N/consoleText` is a build's
//! log. A user and an API token by Basic authentication; the permissions are Overall/Read and Job/Read.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cursors::moved;
use super::entry::{Kind, entry};
use super::http::{Answer, Api, escaped};
use super::rounds::Rounds;
use super::waiting::{Logs, Recent, Wanted};
use super::{CollectError, Collector, Cursors, FinishedJob, Page, troubled};

/// Folders inside folders.
const DEPTH: usize = 6;
/// Builds of a job listed at a time, newest first. Jenkins lists no pages; older ones are in `allBuilds`.
const BUILDS_MAX: usize = 500;
/// Most builds of a job that are waited for.
const OPEN_MAX: usize = 200;
const BUILD: &str = "number,result,building,timestamp,duration,url,builtOn,displayName";

/// What is fetched of builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Their logs, for a source of type `jenkins.joblog`.
    Logs,
    /// That they were, for a source of type `provider.ledger`.
    Ledger,
}

/// Collects finished builds.
#[derive(Debug)]
pub struct Builds {
    api: Arc<Api>,
    /// Full names of jobs; empty: all of them.
    jobs: Vec<String>,
    what: What,
    since: Duration,
    every: Duration,
    rounds: Rounds,
    recent: Recent,
}

/// How far a job's builds were listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    /// Builds up to this number are listed.
    done: u64,
    /// Listed before they had finished.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open: Vec<u64>,
}

impl Builds {
    /// Builds of these jobs, or of all, that began from `since` before the first time on.
    #[must_use]
    pub fn new(api: Arc<Api>, jobs: Vec<String>, what: What, since: Duration, every: Duration) -> Self {
        Self { api, jobs, what, since, every, rounds: Rounds::default(), recent: Recent::default() }
    }

    /// Full names of jobs that have builds.
    async fn members(&self) -> Result<Vec<String>, CollectError> {
        if !self.jobs.is_empty() {
            return Ok(self.jobs.clone());
        }
        let mut tree = "fullName,color".to_owned();
        for _ in 0..DEPTH {
            tree = format!("fullName,color,jobs[{tree}]");
        }
        let listed = self.api.get(&format!("/api/json?tree=jobs%5B{}%5D", escape_tree(&tree))).await?;
        let mut found = Vec::new();
        let json = listed.json()?;
        let mut rest: Vec<&Value> = json.get("jobs").and_then(Value::as_array).into_iter().flatten().collect();
        while let Some(job) = rest.pop() {
            rest.extend(job.get("jobs").and_then(Value::as_array).into_iter().flatten());
            // Folders have no colour.
            if job.get("color").is_some() {
                found.extend(job.get("fullName").and_then(Value::as_str).map(ToOwned::to_owned));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Builds of a job that finished since the last look.
    async fn look(
        &self,
        job: &str,
        listed: &mut Listed,
        known: bool,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<Vec<(u64, Bytes)>, CollectError> {
        let tree = escape_tree(&format!("builds[{BUILD}]{{0,{BUILDS_MAX}}}"));
        let answer = self.api.get(&format!("{}/api/json?tree={tree}", path(job))).await?;
        let mut finished = Vec::new();
        let open = std::mem::take(&mut listed.open);
        let mut seen = Vec::new();
        let (done, mut newest, mut oldest) = (listed.done, listed.done, u64::MAX);
        for (bytes, build) in answer.elements(Some("builds"), BUILDS_MAX)? {
            let number =
                build.get("number").and_then(Value::as_u64).ok_or_else(|| answer.wrong("a build has no number"))?;
            (newest, oldest) = (newest.max(number), oldest.min(number));
            seen.push(number);
            let began = build.get("timestamp").and_then(Value::as_i64).map(Timestamp::from_millis);
            if !known && began.is_some_and(|began| began < now.minus(self.since)) {
                continue;
            }
            if number <= done && !open.contains(&number) {
                continue;
            }
            if build.get("building").and_then(Value::as_bool) == Some(false) {
                finished.push((number, bytes));
            } else {
                listed.open.push(number);
            }
        }
        listed.done = newest;
        for number in open.iter().filter(|number| !seen.contains(number)) {
            page.lost.push(format!("build {job}#{number} was deleted before it had finished"));
        }
        if known && oldest != u64::MAX && oldest > done + 1 {
            page.lost.push(format!("builds of {job} between {done} and {oldest} are not listed any more"));
        }
        while listed.open.len() > OPEN_MAX {
            page.lost.push(format!("build {job}#{}: too many wait for their end", listed.open.remove(0)));
        }
        finished.sort_by_key(|(number, _)| *number);
        Ok(finished)
    }

    async fn turn(
        &self,
        job: &str,
        wanted: &mut Wanted,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<(), CollectError> {
        let stream = format!("builds/{job}");
        let before: Option<Listed> = cursors.read(&stream)?;
        let mut listed = before.clone().unwrap_or_default();
        for (number, bytes) in self.look(job, &mut listed, before.is_some(), now, page).await? {
            match self.what {
                What::Ledger => {
                    page.items.push(entry("jenkins", Kind::Run, job, &format!("{job}#{number}"), &bytes, None))
                }
                What::Logs => wanted.want(
                    FinishedJob {
                        repo: job.to_owned(),
                        run: format!("{job}#{number}"),
                        job: number.to_string(),
                        attempt: 1,
                        workflow: Some(job.to_owned()),
                        ..FinishedJob::default()
                    },
                    &self.recent,
                ),
            }
        }
        if before.as_ref() != Some(&listed) {
            page.cursors.push(moved(&stream, &listed)?);
        }
        Ok(())
    }
}

/// The path of a job by its full name: each folder is a job.
fn path(job: &str) -> String {
    job.split('/').map(|part| format!("/job/{}", escaped(part))).collect()
}

fn escape_tree(tree: &str) -> String {
    tree.replace('[', "%5B").replace(']', "%5D").replace('{', "%7B").replace('}', "%7D")
}

#[async_trait]
impl Logs for Builds {
    fn has(&self, _job: &FinishedJob) -> bool {
        true
    }

    async fn log(&self, job: &FinishedJob, body_max: usize) -> Result<Answer, CollectError> {
        self.api.file(&format!("{}/{}/consoleText", path(&job.repo), escaped(&job.job)), body_max).await
    }
}

#[async_trait]
impl Collector for Builds {
    fn name(&self) -> String {
        let what = if self.what == What::Logs { "console" } else { "ledger" };
        format!("jenkins.{what}/{}", self.api.host())
    }

    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        let mut page = Page::default();
        let before = Wanted::read(cursors, &self.recent)?;
        let mut wanted = before.clone();
        if !wanted.is_due(now) && !wanted.is_full() {
            if self.rounds.wants_members(now) {
                let members = self.members().await?;
                troubled::gone(&members, cursors, &mut page);
                self.rounds.members(members, now);
            }
            if let Some(job) = self.rounds.turn(now, self.every) {
                let turn = self.turn(&job, &mut wanted, cursors, now, &mut page).await;
                self.rounds.settle(("builds", &job), turn, cursors, now, &mut page)?;
                self.rounds.done();
            }
        }
        if wanted == before {
            wanted.fetch(self, &self.recent, cursors, now, &mut page).await?;
        }
        wanted.moved(&before, &mut page)?;
        page.next = match self.what {
            What::Logs => wanted.next(false, false, now, self.rounds.wait(now, self.every)),
            What::Ledger => self.rounds.next(now, self.every),
        };
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Next;
    use crate::collect::auth::{Credentials, SecretText};
    use crate::collect::script::{Script, at};

    const NOW: i64 = 1_795_694_400;
    const HOUR: Duration = Duration::from_secs(3_600);

    fn api(script: &Arc<Script>) -> Arc<Api> {
        let password = SecretText::new("11aa");
        script.api_as(Credentials::Basic { user: "pp".into(), password })
    }

    fn builds(script: &Script, builds: &[(u64, bool, i64)]) {
        let one = |(number, building, ago): &(u64, bool, i64)| {
            format!(
                r#"{{"number":{number},"building":{building},"result":"SUCCESS","timestamp":{}}}"#,
                (NOW - ago) * 1_000
            )
        };
        let tree = escape_tree(&format!("builds[{BUILD}]{{0,{BUILDS_MAX}}}"));
        let list: Vec<String> = builds.iter().map(one).collect();
        script.json(
            &format!("/job/acme/job/shop/api/json?tree={tree}"),
            &format!(r#"{{"_class":"x","builds":[{}]}}"#, list.join(",")),
        );
    }

    async fn drain(collector: &Builds, cursors: &mut Cursors, now: i64) -> (Vec<String>, Vec<String>) {
        let (mut items, mut lost) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let page = collector.page(cursors, at(now)).await.unwrap();
            items.extend(page.items.iter().map(|item| String::from_utf8_lossy(&item.body).into_owned()));
            lost.extend(page.lost);
            cursors.extend(page.cursors);
            if page.next != Next::Now {
                return (items, lost);
            }
        }
        panic!("it never comes to an end");
    }

    #[tokio::test]
    async fn console_logs_come_once_their_builds_have_finished() {
        let script = Script::new();
        builds(&script, &[(3, true, 10), (2, false, 100), (1, false, 9_000)]);
        script.answer("/job/acme/job/shop/2/consoleText", 200, &[], "two");
        script.answer("/job/acme/job/shop/3/consoleText", 200, &[], "three");
        let collector = Builds::new(api(&script), vec!["acme/shop".into()], What::Logs, HOUR, HOUR);
        let mut cursors = Cursors::default();
        assert_eq!(drain(&collector, &mut cursors, NOW).await.0, ["two"]);
        assert_eq!(script.asked()[0].1["authorization"], "Basic cHA6MTFhYQ==");
        builds(&script, &[(3, false, 10), (2, false, 100), (1, false, 9_000)]);
        assert_eq!(drain(&collector, &mut cursors, NOW + 3_600).await.0, ["three"]);
        assert!(drain(&collector, &mut cursors, NOW + 7_200).await.0.is_empty());
    }

    #[tokio::test]
    async fn every_job_of_every_folder_is_looked_at_and_gaps_are_told() {
        let script = Script::new();
        let mut tree = "fullName,color".to_owned();
        for _ in 0..DEPTH {
            tree = format!("fullName,color,jobs[{tree}]");
        }
        script.json(
            &format!("/api/json?tree=jobs%5B{}%5D", escape_tree(&tree)),
            r#"{"jobs":[{"fullName":"acme","jobs":[{"fullName":"acme/shop","color":"blue"}]}]}"#,
        );
        builds(&script, &[(1, false, 100)]);
        let collector = Builds::new(api(&script), Vec::new(), What::Ledger, HOUR, HOUR);
        let mut cursors = Cursors::default();
        let (items, _) = drain(&collector, &mut cursors, NOW).await;
        assert!(
            items[0]
                .starts_with(r#"{"provider":"jenkins","kind":"run","scope":"acme/shop","id":"acme/shop#1","object":{"#)
        );
        builds(&script, &[(9, false, 0), (8, false, 0)]);
        let (items, lost) = drain(&collector, &mut cursors, NOW + 3_600).await;
        assert_eq!(items.len(), 2);
        assert!(lost[0].contains("between 1 and 8"), "{lost:?}");
    }
}
