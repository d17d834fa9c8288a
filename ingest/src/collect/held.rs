//! What this node has already: which items, and which jobs it saw end.

use std::collections::BTreeSet;

use async_trait::async_trait;
use engine::event::Event;
use engine::fields::Field;
use pipeproof_engine as engine;

use super::CollectError;

/// What this node has, for collectors that fetch what is missing.
#[async_trait]
pub trait Held: Send + Sync + std::fmt::Debug {
    /// Which of these items of a source came in the last days and are durable here. `items` are the source's own ids. It may
    /// not know the newest yet: what is fetched twice is recognised.
    ///
    /// # Errors
    /// [`CollectError::Held`].
    async fn known(&self, source: &str, items: &[String]) -> Result<BTreeSet<String>, CollectError>;

    /// Jobs of a source that ended, from a place in the log on; `None`: from its end on.
    ///
    /// # Errors
    /// [`CollectError::Held`].
    async fn finished(&self, source: &str, from: Option<u64>) -> Result<Seen, CollectError>;
}

/// Jobs that were seen to end.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The jobs.
    pub jobs: Vec<FinishedJob>,
    /// Where to go on.
    pub next: u64,
    /// Whether there is more.
    pub more: bool,
}

/// A job that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FinishedJob {
    /// Repository or project, or the pipeline where the provider knows no other.
    pub repo: String,
    /// Run, pipeline or build.
    pub run: String,
    /// Job.
    pub job: String,
    /// Attempt, from 1.
    pub attempt: i64,
    /// What a person calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Workflow or pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Git reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Where its provider has it, if not by what is above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha: Option<String>,
}

impl FinishedJob {
    /// The job an event says has ended, if it says so and the job did run.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        let fields = &event.fields;
        let text = |field| fields.get_text(field).map(ToOwned::to_owned);
        if fields.get_text(Field::Action) != Some("job.finished") || fields.get_text(Field::Reason) == Some("skipped") {
            return None;
        }
        Some(Self {
            repo: text(Field::CiRepo)?,
            run: text(Field::CiRunId)?,
            job: text(Field::CiJobId)?,
            attempt: fields.get(Field::CiAttempt).and_then(|attempt| attempt.to_string().parse().ok()).unwrap_or(1),
            name: text(Field::Message),
            workflow: text(Field::CiWorkflow),
            reference: text(Field::CiRef),
            address: None,
            sha: text(Field::CiSha),
        })
    }

    /// What names it, whoever names it.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}/{}/{}", self.repo, self.run, self.job, self.attempt)
    }

    /// It as the query parameters that a pushed log has.
    pub(super) fn query(&self) -> std::collections::BTreeMap<String, String> {
        let optional =
            [("name", &self.name), ("workflow", &self.workflow), ("ref", &self.reference), ("sha", &self.sha)];
        let mut query: std::collections::BTreeMap<String, String> =
            optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect();
        query.insert("repo".to_owned(), self.repo.clone());
        query.insert("run_id".to_owned(), self.run.clone());
        query.insert("job_id".to_owned(), self.job.clone());
        query.insert("attempt".to_owned(), self.attempt.to_string());
        query
    }
}
