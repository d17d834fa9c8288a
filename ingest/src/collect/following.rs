//! Logs of jobs: of those this node saw end, and of all jobs of runs that are listed, which finds those it did not see.
//!
//! What is found is written down before the next step: runs whose jobs are not listed yet, jobs whose logs are wanted. So an
//! error or the end of the process costs the step it meets, and no other.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};

use super::rounds::Rounds;
use super::waiting::{Logs, Recent, Wanted};
use super::{CollectError, Cursors, FinishedJob, Held, Page, troubled};

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndedRun {
    /// Repository or project.
    pub(super) member: String,
    /// Its id there.
    pub(super) id: u64,
    /// Its commit, where jobs do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha: Option<String>,
    /// How often its jobs could not be listed.
    #[serde(default)]
    pub(super) tries: u32,
    /// When they are asked for again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Timestamp>,
}

impl EndedRun {
    /// One whose jobs are not listed yet.
    pub(super) const fn new(member: String, id: u64, sha: Option<String>) -> Self {
        Self { member, id, sha, tries: 0, after: None }
    }

    /// What a person calls it.
    pub(super) fn name(&self) -> String {
        format!("run {} of {}", self.id, self.member)
    }
}

/// Where runs, jobs and logs are had.
#[async_trait]
pub(super) trait Runs: Logs {
    /// The repositories or projects whose runs are listed.
    async fn members(&self) -> Result<Vec<String>, CollectError>;

    /// Runs of a member that ended since the cursor, which moves with `page`, and whether there are more now.
    async fn ended(
        &self,
        member: &str,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<(Vec<EndedRun>, bool), CollectError>;

    /// Jobs of a run that ran; none if it was deleted meanwhile.
    async fn jobs(&self, run: &EndedRun) -> Result<Vec<FinishedJob>, CollectError>;
}

/// What is kept between pages.
#[derive(Debug)]
pub(super) struct Following {
    held: Arc<dyn Held>,
    /// The source whose webhooks tell that a job has ended.
    seen_by: Option<String>,
    every: Duration,
    rounds: Rounds,
    recent: Recent,
}

impl Following {
    pub(super) fn new(held: Arc<dyn Held>, seen_by: Option<String>, every: Duration) -> Self {
        Self { held, seen_by, every, rounds: Rounds::default(), recent: Recent::default() }
    }

    /// The next page.
    pub(super) async fn page<R: Runs>(&self, of: &R, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        let mut page = Page::default();
        let before = Wanted::read(cursors, &self.recent)?;
        let mut wanted = before.clone();
        let mut more = false;
        if let Some(source) = &self.seen_by {
            more = wanted.look(&*self.held, source, of, &self.recent).await?;
        }
        if !wanted.is_due(now) && !wanted.is_full() {
            if wanted.has_runs(now) {
                wanted.list_jobs(of, &self.recent, cursors, now, &mut page).await?;
            } else {
                if self.rounds.wants_members(now) {
                    let members = of.members().await?;
                    troubled::gone(&members, cursors, &mut page);
                    self.rounds.members(members, now);
                }
                if let Some(member) = self.rounds.turn(now, self.every) {
                    let ended = of.ended(&member, cursors, now, &mut page).await;
                    let ended = self.rounds.settle(("runs", &member), ended, cursors, now, &mut page)?;
                    let (ended, again) = ended.unwrap_or_default();
                    wanted.add_runs(ended);
                    if !again {
                        self.rounds.done();
                    }
                }
            }
        }
        // What is wanted is written down before it is fetched: the next page brings it.
        if wanted == before {
            wanted.fetch(of, &self.recent, cursors, now, &mut page).await?;
        }
        wanted.moved(&before, &mut page)?;
        page.next = wanted.next(more, self.seen_by.is_some(), now, self.rounds.wait(now, self.every));
        Ok(page)
    }
}
