//! GitLab: gitlab.com, Dedicated or Self-Managed.
//!
//! Sources: GitLab "Audit events API", "Jobs API", "Pipelines API", "Deployments API", "Merge requests API", "REST API: keyset
//! pagination". The base is `https://HOST/api/v4`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde_json::Value;

use super::changed::{Changed, Question};
use super::entry::{Kind, entry};
use super::following::{EndedRun, Following, Runs};
use super::http::{Answer, Api, escaped};
use super::rounds::Rounds;
use super::turn::Turn;
use super::waiting::Logs;
use super::{CollectError, Collector, Cursors, Fetched, FinishedJob, Held, Page, troubled};

/// Elements of a page at most.
const ELEMENTS_MAX: usize = 1_000;
/// States in which a pipeline or deployment stays.
const ENDED: &[&str] = &["success", "failed", "canceled", "skipped"];

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of it, which only an administrator may see. Audit events only.
    Instance,
    /// A group with its subgroups, by its full path.
    Group(String),
    /// Projects, by their full paths.
    Projects(Vec<String>),
}

impl Scope {
    fn name(&self) -> String {
        match self {
            Self::Instance => "instance".to_owned(),
            Self::Group(name) => name.clone(),
            Self::Projects(names) => names.join(","),
        }
    }

    /// Whether a project is part of it.
    fn has(&self, project: &str) -> bool {
        match self {
            Self::Instance => true,
            Self::Group(group) => project.strip_prefix(group.as_str()).is_some_and(|rest| rest.starts_with('/')),
            Self::Projects(names) => names.iter().any(|name| name == project),
        }
    }
}

fn project(path: &str) -> String {
    format!("/projects/{}", escaped(path))
}

async fn projects(api: &Api, scope: &Scope) -> Result<Vec<String>, CollectError> {
    let list = match scope {
        Scope::Projects(names) => return Ok(names.clone()),
        Scope::Group(group) => format!("/groups/{}/projects?include_subgroups=true", escaped(group)),
        Scope::Instance => "/projects?membership=false".to_owned(),
    };
    let mut next = Some(format!("{list}&archived=false&simple=true&per_page=100"));
    let mut found = Vec::new();
    while let Some(path) = next {
        let listed = api.get(&path).await?;
        for (_, project) in listed.elements(None, ELEMENTS_MAX)? {
            found.extend(project.get("path_with_namespace").and_then(Value::as_str).map(ToOwned::to_owned));
        }
        next = listed.next;
    }
    Ok(found)
}

fn pipelines(path: &str) -> Question {
    changed_list(format!("{}/pipelines?order_by=updated_at&sort=asc&per_page=100", project(path)))
}

const fn changed_list(path: String) -> Question {
    Question { path, after: "updated_after", before: Some("updated_before"), time: "updated_at" }
}

fn has_ended(object: &Value) -> bool {
    object.get("status").and_then(Value::as_str).is_some_and(|status| ENDED.contains(&status))
}

/// Collects audit events for a source of type `gitlab.audit`.
#[derive(Debug)]
pub struct AuditEvents {
    api: Arc<Api>,
    scope: Scope,
    since: Duration,
    every: Duration,
    rounds: Rounds,
}

impl AuditEvents {
    /// Events of the instance, a group or projects, from `since` before the first time on.
    #[must_use]
    pub fn new(api: Arc<Api>, scope: Scope, since: Duration, every: Duration) -> Self {
        Self { api, scope, since, every, rounds: Rounds::default() }
    }
}

#[async_trait]
impl Collector for AuditEvents {
    fn name(&self) -> String {
        format!("gitlab.audit-events/{}", self.scope.name())
    }

    fn left(&self) -> Option<u64> {
        self.api.left()
    }

    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        let mut page = Page::default();
        if self.rounds.wants_members(now) {
            let members = match &self.scope {
                Scope::Instance => vec![String::new()],
                Scope::Group(group) => vec![format!("/groups/{}", escaped(group))],
                Scope::Projects(names) => names.iter().map(|name| project(name)).collect(),
            };
            self.rounds.members(members, now);
        }
        if let Some(member) = self.rounds.turn(now, self.every) {
            let path = format!("{member}/audit_events?pagination=keyset&order_by=id&per_page=100");
            let (after, before, time) = ("created_after", Some("created_before"), "created_at");
            let question = Question { path, after, before, time };
            let stream = (format!("audit-events{member}"), self.since);
            let found = Changed::follow(&self.api, &question, stream, cursors, now, &mut page).await;
            let asked = ("audit events", member.as_str());
            let found = self.rounds.settle(asked, found, cursors, now, &mut page)?;
            let (found, more) = found.unwrap_or_default();
            page.items.extend(found.into_iter().map(|(bytes, _)| Fetched::new(bytes)));
            if !more {
                self.rounds.done();
            }
        }
        page.next = self.rounds.next(now, self.every);
        Ok(page)
    }
}

/// Collects job traces for a source of type `gitlab.joblog`.
#[derive(Debug)]
pub struct Traces {
    api: Arc<Api>,
    scope: Scope,
    since: Duration,
    following: Following,
}

impl Traces {
    /// Traces of jobs that `seen_by` told to have ended, and of pipelines that ended from `since` before the first time on.
    #[must_use]
    pub fn new(
        api: Arc<Api>,
        scope: Scope,
        held: Arc<dyn Held>,
        seen_by: Option<String>,
        since: Duration,
        every: Duration,
    ) -> Self {
        Self { api, scope, since, following: Following::new(held, seen_by, every) }
    }
}

#[async_trait]
impl Logs for Traces {
    fn has(&self, job: &FinishedJob) -> bool {
        self.scope.has(&job.repo)
    }

    async fn log(&self, job: &FinishedJob, body_max: usize) -> Result<Answer, CollectError> {
        self.api.file(&format!("{}/jobs/{}/trace", project(&job.repo), escaped(&job.job)), body_max).await
    }
}

#[async_trait]
impl Runs for Traces {
    async fn members(&self) -> Result<Vec<String>, CollectError> {
        projects(&self.api, &self.scope).await
    }

    async fn ended(
        &self,
        member: &str,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<(Vec<EndedRun>, bool), CollectError> {
        let stream = (format!("pipelines/{member}"), self.since);
        let (found, more) = Changed::follow(&self.api, &pipelines(member), stream, cursors, now, page).await?;
        let ended = found.iter().filter(|(_, pipeline)| has_ended(pipeline)).map(|(_, pipeline)| {
            let id = pipeline.get("id").and_then(Value::as_u64).unwrap_or_default();
            EndedRun::new(member.to_owned(), id, pipeline.get("sha").and_then(Value::as_str).map(ToOwned::to_owned))
        });
        Ok((ended.collect(), more))
    }

    async fn jobs(&self, run: &EndedRun) -> Result<Vec<FinishedJob>, CollectError> {
        let mut jobs = Vec::new();
        let list = format!("{}/pipelines/{}/jobs?include_retried=true&per_page=100", project(&run.member), run.id);
        let mut next = Some(list);
        while let Some(list) = next {
            let listed = match self.api.get(&list).await {
                Err(CollectError::Missing { .. }) => return Ok(jobs),
                listed => listed?,
            };
            for (_, job) in listed.elements(None, ELEMENTS_MAX)? {
                let text = |key: &str| job.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
                // What never ran printed nothing.
                let ran = has_ended(&job) && text("started_at").is_some();
                let Some(id) = job.get("id").and_then(Value::as_u64).filter(|_| ran) else { continue };
                jobs.push(FinishedJob {
                    repo: run.member.clone(),
                    run: run.id.to_string(),
                    job: id.to_string(),
                    attempt: 1,
                    name: text("name"),
                    reference: text("ref"),
                    sha: run.sha.clone(),
                    ..FinishedJob::default()
                });
            }
            next = listed.next;
        }
        Ok(jobs)
    }
}

#[async_trait]
impl Collector for Traces {
    fn name(&self) -> String {
        format!("gitlab.traces/{}", self.scope.name())
    }

    fn left(&self) -> Option<u64> {
        self.api.left()
    }

    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        self.following.page(self, cursors, now).await
    }
}

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
}

impl Ledger {
    /// Lists of these kinds, from `since` before the first time on.
    #[must_use]
    pub fn new(api: Arc<Api>, scope: Scope, kinds: Vec<Kind>, since: Duration, every: Duration) -> Self {
        Self { api, scope, kinds, since, every, rounds: Rounds::default(), turn: Turn::default() }
    }

    /// What is new of one kind in a project, and whether there is more.
    async fn list(
        &self,
        kind: Kind,
        path: &str,
        cursors: &Cursors,
        now: Timestamp,
    ) -> Result<(Page, bool), CollectError> {
        let base = project(path);
        let question = match kind {
            Kind::Run => pipelines(path),
            Kind::Deployment => changed_list(format!("{base}/deployments?order_by=updated_at&sort=asc&per_page=100")),
            Kind::Change => changed_list(format!(
                "{base}/merge_requests?state=merged&scope=all&order_by=updated_at&sort=asc&per_page=100"
            )),
        };
        let mut page = Page::default();
        let stream = (format!("{}/{path}", kind.plural()), self.since);
        let (found, more) = Changed::follow(&self.api, &question, stream, cursors, now, &mut page).await?;
        for (bytes, object) in found.iter().filter(|(_, object)| kind == Kind::Change || has_ended(object)) {
            // Merge requests are counted per project, which is how people and webhooks call them.
            let key = if kind == Kind::Change { "iid" } else { "id" };
            let Some(id) = object.get(key).and_then(Value::as_u64) else { continue };
            page.items.push(entry("gitlab", kind, path, &id.to_string(), bytes, None));
        }
        Ok((page, more))
    }
}

#[async_trait]
impl Collector for Ledger {
    fn name(&self) -> String {
        format!("gitlab.ledger/{}", self.scope.name())
    }

    fn left(&self) -> Option<u64> {
        self.api.left()
    }

    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        let mut page = Page::default();
        if self.rounds.wants_members(now) {
            let members = projects(&self.api, &self.scope).await?;
            troubled::gone(&members, cursors, &mut page);
            self.rounds.members(members, now);
        }
        if let Some(path) = self.rounds.turn(now, self.every) {
            for kind in self.turn.kinds(&path, &self.kinds) {
                let listed = self.list(kind, &path, cursors, now).await;
                match self.rounds.settle((kind.plural(), &path), listed, cursors, now, &mut page) {
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
            if self.turn.kinds(&path, &self.kinds).is_empty() {
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
    use crate::collect::Next;
    use crate::collect::auth::{Credentials, SecretText};
    use crate::collect::script::{Here, Script, at};

    const NOW: i64 = 1_795_694_400;
    const HOUR: Duration = Duration::from_secs(3_600);

    fn from() -> String {
        at(NOW - 3_600).to_string().replace(':', "%3A")
    }

    fn when(ago: u64) -> Timestamp {
        at(NOW).minus(Duration::from_secs(ago))
    }

    fn api(script: &Arc<Script>) -> Arc<Api> {
        script.api_as(Credentials::PrivateToken(SecretText::new("glpat")))
    }

    async fn drain(collector: &dyn Collector, cursors: &mut Cursors) -> Vec<Fetched> {
        let mut items = Vec::new();
        for _ in 0..20 {
            let page = collector.page(cursors, at(NOW)).await.unwrap();
            items.extend(page.items);
            cursors.extend(page.cursors);
            if page.next != Next::Now {
                return items;
            }
        }
        panic!("it never comes to an end");
    }

    #[tokio::test]
    async fn audit_events_of_a_group_are_read_by_keyset_pages() {
        let script = Script::new();
        let first = format!(
            "/groups/acme%2Fshop/audit_events?pagination=keyset&order_by=id&per_page=100&created_after={}",
            from()
        );
        let event = |id: u64, ago: u64| {
            format!(r#"{{"id":{id},"author_id":1,"entity_type":"Group","created_at":"{}"}}"#, when(ago))
        };
        let next =
            [("link", "<http://inner:8080/groups/acme%2Fshop/audit_events?cursor=eyJpZCI6IjIifQ>; rel=\"next\"")];
        script.json_with(&first, &format!("[{}]", event(2, 200)), &next);
        script.json("/groups/acme%2Fshop/audit_events?cursor=eyJpZCI6IjIifQ", &format!("[{}]", event(1, 300)));
        let events = AuditEvents::new(api(&script), Scope::Group("acme/shop".into()), HOUR, HOUR);
        let mut cursors = Cursors::default();
        let items = drain(&events, &mut cursors).await;
        assert_eq!(items.len(), 2);
        assert!(items[0].body.starts_with(b"{\"id\":1,"), "oldest first");
        assert_eq!(script.asked()[0].1["private-token"], "glpat");
        assert!(drain(&events, &mut cursors).await.is_empty());
    }

    #[tokio::test]
    async fn traces_of_finished_pipelines_are_fetched_once() {
        let script = Script::new();
        let pipelines = format!(
            "/projects/acme%2Fshop/pipelines?order_by=updated_at&sort=asc&per_page=100&updated_after={}",
            from()
        );
        let list = format!(
            r#"[{{"id":5,"status":"success","sha":"abc","updated_at":"{0}"}},{{"id":6,"status":"running","updated_at":"{0}"}}]"#,
            when(600)
        );
        script.json(&pipelines, &list);
        script.json(
            "/projects/acme%2Fshop/pipelines/5/jobs?include_retried=true&per_page=100",
            r#"[{"id":77,"status":"success","started_at":"2026-11-26T00:00:00Z","name":"build","ref":"main"},{"id":78,"status":"skipped","started_at":null}]"#,
        );
        script.answer("/projects/acme%2Fshop/jobs/77/trace", 200, &[], "Running with gitlab-runner");
        let held = Arc::new(Here::default()) as Arc<dyn Held>;
        let traces = Traces::new(api(&script), Scope::Projects(vec!["acme/shop".into()]), held, None, HOUR, HOUR);
        let mut cursors = Cursors::default();
        let items = drain(&traces, &mut cursors).await;
        assert_eq!((items.len(), items[0].query["job_id"].as_str(), items[0].query["run_id"].as_str()), (1, "77", "5"));
        assert!(drain(&traces, &mut cursors).await.is_empty());
    }

    #[tokio::test]
    async fn a_ledger_enters_what_has_ended() {
        let script = Script::new();
        let base = "/projects/acme%2Fshop";
        let order = "order_by=updated_at&sort=asc&per_page=100";
        let after = from();
        let state =
            |id: u64, status: &str| format!(r#"{{"id":{id},"iid":1,"status":"{status}","updated_at":"{}"}}"#, when(60));
        script.json(
            &format!("{base}/pipelines?{order}&updated_after={after}"),
            &format!("[{},{}]", state(5, "failed"), state(6, "pending")),
        );
        script
            .json(&format!("{base}/deployments?{order}&updated_after={after}"), &format!("[{}]", state(8, "success")));
        script.json(
            &format!("{base}/merge_requests?state=merged&scope=all&{order}&updated_after={after}"),
            &format!("[{}]", state(901, "-")),
        );
        let ledger =
            Ledger::new(api(&script), Scope::Projects(vec!["acme/shop".into()]), Kind::ALL.to_vec(), HOUR, HOUR);
        let items = drain(&ledger, &mut Cursors::default()).await;
        let entries: Vec<Value> = items.iter().map(|item| serde_json::from_slice(&item.body).unwrap()).collect();
        let named: Vec<_> = entries
            .iter()
            .map(|entry| format!("{} {}", entry["kind"].as_str().unwrap(), entry["id"].as_str().unwrap()))
            .collect();
        assert_eq!(named, ["run 5", "deployment 8", "change 1"]);
    }

    #[tokio::test]
    async fn a_feature_that_is_off_in_one_project_costs_the_others_nothing() {
        let script = Script::new();
        let list = |project: &str| {
            format!(
                "/projects/acme%2F{project}/deployments?order_by=updated_at&sort=asc&per_page=100&updated_after={}",
                from()
            )
        };
        script.answer(&list("off"), 403, &[], r#"{"message":"403 Forbidden"}"#);
        let deployment = format!(r#"[{{"id":8,"status":"success","updated_at":"{}"}}]"#, when(60));
        script.json(&list("shop"), &deployment);
        let scope = Scope::Projects(vec!["acme/off".into(), "acme/shop".into()]);
        let ledger = Ledger::new(api(&script), scope.clone(), vec![Kind::Deployment], HOUR, HOUR);
        let mut cursors = Cursors::default();
        assert_eq!(drain(&ledger, &mut cursors).await.len(), 1);
        assert!(cursors.has("troubled/deployments/acme/off"));
        // The same for the traces of a project whose pipelines are refused, and of one whose jobs are.
        let pipelines = |project: &str| {
            format!(
                "/projects/acme%2F{project}/pipelines?order_by=updated_at&sort=asc&per_page=100&updated_after={}",
                from()
            )
        };
        let pipeline = |id: u64| format!(r#"[{{"id":{id},"status":"success","updated_at":"{}"}}]"#, when(600));
        script.json(&pipelines("off"), &pipeline(4));
        script.json(&pipelines("shop"), &pipeline(5));
        let jobs = |project: &str, id: u64| {
            format!("/projects/acme%2F{project}/pipelines/{id}/jobs?include_retried=true&per_page=100")
        };
        script.answer(&jobs("off", 4), 403, &[], r#"{"message":"403 Forbidden"}"#);
        script.json(&jobs("shop", 5), r#"[{"id":77,"status":"success","started_at":"2026-11-26T00:00:00Z"}]"#);
        script.answer("/projects/acme%2Fshop/jobs/77/trace", 200, &[], "Running with gitlab-runner");
        let held = Arc::new(Here::default()) as Arc<dyn Held>;
        let traces = Traces::new(api(&script), scope, held, None, HOUR, HOUR);
        let mut cursors = Cursors::default();
        assert_eq!(drain(&traces, &mut cursors).await.len(), 1);
        assert!(cursors.has("troubled/jobs/acme/off") && !cursors.has("troubled/jobs/acme/shop"));
    }
}
