//! Jobs whose logs are wanted: known to have ended, not yet had. They are part of a cursor, so that none is forgotten.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};

use super::cursors::moved;
use super::following::{EndedRun, Runs};
use super::http::Answer;
use super::{CollectError, Cursors, Fetched, Held, Next, PAGE_BYTES, Page, troubled};
use crate::limits::Limits;
use crate::unwrap::whole_words;

const STREAM: &str = "wanted";
/// Most jobs that wait for their first try: beyond it none are looked for. And most jobs, and runs, that wait for another.
const WAITING_MAX: usize = 500;
/// Logs tried, and runs whose jobs are listed, at a time.
const TRIES: usize = 10;
/// How often a log that is not there yet is asked for: over about twenty minutes.
const TRIES_MAX: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// How often what is refused, or fails each time, is asked for: over about a day. Somebody may mend it.
const PATIENT_TRIES_MAX: u32 = 32;
/// The longest wait between two such tries.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// How often in a row something may fail in a way that passes before the others go on without it.
const FAILURES_MAX: u32 = 3;
/// How often what was seen is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Jobs remembered so that one that is seen and listed is fetched once.
const RECENT: usize = 20_000;
/// Records of our log that may have to be read again after a restart.
const BEHIND_MAX: u64 = 100_000;

/// Jobs that wait, and how far what was seen was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// Where to go on in our log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    jobs: Vec<Waiting>,
    /// Runs that ended, whose jobs are not listed yet.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    runs: VecDeque<EndedRun>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    job: super::FinishedJob,
    #[serde(default)]
    tries: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Timestamp>,
}

/// Where logs are had.
#[async_trait]
pub(super) trait Logs: Send + Sync {
    /// Whether this job's log may be asked for here.
    fn has(&self, job: &super::FinishedJob) -> bool;

    /// A job's log.
    async fn log(&self, job: &super::FinishedJob, body_max: usize) -> Result<Answer, CollectError>;
}

/// Jobs asked for lately, and how far our log was read for more.
#[derive(Debug, Default)]
pub(super) struct Recent {
    jobs: Mutex<(BTreeSet<String>, VecDeque<String>)>,
    read: AtomicU64,
    /// Failures in a row of what is asked for next: that a page failed is written down nowhere.
    failed: Mutex<BTreeMap<String, u32>>,
}

impl Recent {
    fn has(&self, key: &str) -> bool {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).0.contains(key)
    }

    fn add(&self, key: String) {
        let mut recent = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *recent;
        if !known.insert(key.clone()) {
            return;
        }
        order.push_back(key);
        if order.len() > RECENT
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }

    /// It failed in a way that passes; whether so often in a row that the others go on without it.
    fn fails_on(&self, key: &str) -> bool {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let times = failed.entry(key.to_owned()).or_default();
        *times += 1;
        let on = *times >= FAILURES_MAX;
        if on {
            failed.remove(key);
        }
        on
    }

    /// Failures in a row: who fails is asked after the others.
    fn failures(&self, key: &str) -> u32 {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or(0)
    }

    fn went_well(&self, key: &str) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// How long to wait after so many tries of what is refused.
fn patience(tries: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_WAIT)
}

impl Wanted {
    pub(super) fn read(cursors: &Cursors, recent: &Recent) -> Result<Self, CollectError> {
        let wanted: Self = cursors.read(STREAM)?.unwrap_or_default();
        for waiting in &wanted.jobs {
            recent.add(waiting.job.key());
        }
        Ok(wanted)
    }

    pub(super) fn moved(&self, before: &Self, page: &mut Page) -> Result<(), CollectError> {
        if self != before {
            page.cursors.push(moved(STREAM, self)?);
        }
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.jobs.iter().filter(|waiting| waiting.tries == 0).count() >= WAITING_MAX
    }

    /// When to come again: `more` was seen, or rounds go on after `wait`.
    pub(super) fn next(&self, more: bool, sees: bool, now: Timestamp, wait: Duration) -> Next {
        if more || self.is_due(now) || self.has_runs(now) || wait.is_zero() {
            return Next::Now;
        }
        if sees {
            return Next::After(LOOK.min(wait));
        }
        // What is not there yet is asked for again when its time has come.
        let jobs = self.jobs.iter().map(|waiting| waiting.after);
        let due = jobs.chain(self.runs.iter().map(|run| run.after)).map(|after| after.unwrap_or(now)).min();
        let due = due.map(|due| Duration::from_micros(u64::try_from(due.micros_since(now)).unwrap_or(0)).max(LOOK));
        Next::After(due.map_or(wait, |due| due.min(wait)))
    }

    /// Whether a log may be asked for now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.jobs.iter().any(|waiting| waiting.after.is_none_or(|after| after <= now))
    }

    /// Wants a job's log, if it is not wanted or had already.
    pub(super) fn want(&mut self, job: super::FinishedJob, recent: &Recent) {
        let key = job.key();
        // It is remembered once it is written down: what an error takes back is wanted again.
        if !recent.has(&key) && self.jobs.iter().all(|waiting| waiting.job.key() != key) {
            self.jobs.push(Waiting { job, tries: 0, after: None });
        }
    }

    /// Whether jobs of a run may be listed now.
    pub(super) fn has_runs(&self, now: Timestamp) -> bool {
        self.runs.iter().any(|run| run.after.is_none_or(|after| after <= now))
    }

    pub(super) fn add_runs(&mut self, runs: impl IntoIterator<Item = EndedRun>) {
        self.runs.extend(runs);
    }

    /// Wants the logs of some runs' jobs. A run whose jobs are refused waits, the others go on. Any other error ends it; it is
    /// told if nothing was had.
    pub(super) async fn list_jobs(
        &mut self,
        of: &dyn Runs,
        recent: &Recent,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<(), CollectError> {
        for turn in 0..TRIES {
            let due = self.runs.iter().enumerate().filter(|(_, run)| run.after.is_none_or(|after| after <= now));
            let due = due.min_by_key(|(_, run)| recent.failures(&run.name())).map(|(at, _)| at);
            let Some(mut run) = due.and_then(|at| self.runs.remove(at)) else { break };
            let key = run.name();
            match of.jobs(&run).await {
                Ok(jobs) => {
                    recent.went_well(&key);
                    troubled::over(("jobs", &run.member), cursors, page);
                    jobs.into_iter().for_each(|job| self.want(job, recent));
                }
                Err(error) if error.is_of_one() || (error.is_passing() && recent.fails_on(&key)) => {
                    troubled::begins(("jobs", &run.member), &error, cursors, now, page)?;
                    run.tries += 1;
                    if run.tries >= PATIENT_TRIES_MAX {
                        page.lost.push(format!("logs of {key}: {error}"));
                    } else {
                        run.after = Some(now.plus(patience(run.tries)));
                        self.runs.push_back(run);
                    }
                }
                Err(error) => {
                    self.runs.push_front(run);
                    return if turn == 0 { Err(error) } else { Ok(()) };
                }
            }
        }
        while self.runs.iter().filter(|run| run.tries > 0).count() > WAITING_MAX
            && let Some(oldest) = self.runs.iter().position(|run| run.tries > 0)
            && let Some(run) = self.runs.remove(oldest)
        {
            page.lost.push(format!("logs of {}: too many wait for another try", run.name()));
        }
        Ok(())
    }

    /// Looks for jobs that this node saw end.
    pub(super) async fn look(
        &mut self,
        held: &dyn Held,
        source: &str,
        logs: &dyn Logs,
        recent: &Recent,
    ) -> Result<bool, CollectError> {
        if self.is_full() {
            return Ok(false);
        }
        // What is written down may be behind what was read: that other sources wrote is worth no record of its own.
        let from = self.seen.map(|seen| seen.max(recent.read.load(Ordering::Relaxed)));
        let seen = held.finished(source, from).await?;
        if seen.jobs.is_empty() {
            recent.read.store(seen.next, Ordering::Relaxed);
        }
        if !seen.jobs.is_empty() || self.seen.is_none_or(|before| seen.next.saturating_sub(before) > BEHIND_MAX) {
            self.seen = Some(seen.next);
        }
        for job in seen.jobs.into_iter().filter(|job| logs.has(job)) {
            self.want(job, recent);
        }
        Ok(seen.more)
    }

    /// Fetches what is due, as much as fits a page. A log that is refused waits, the others go on. An error that concerns all
    /// of them ends it; it is told if nothing was had.
    pub(super) async fn fetch(
        &mut self,
        logs: &dyn Logs,
        recent: &Recent,
        cursors: &Cursors,
        now: Timestamp,
        page: &mut Page,
    ) -> Result<(), CollectError> {
        let (mut tried, mut bytes) = (0, 0);
        let mut kept = Vec::new();
        let body_max = Limits::default().body_bytes_max;
        let mut jobs = std::mem::take(&mut self.jobs);
        jobs.sort_by_key(|waiting| recent.failures(&waiting.job.key()));
        let mut jobs = jobs.into_iter();
        let mut trouble = None;
        for mut waiting in jobs.by_ref() {
            if tried == TRIES || bytes > PAGE_BYTES || waiting.after.is_some_and(|after| after > now) {
                kept.push(waiting);
                continue;
            }
            tried += 1;
            let key = waiting.job.key();
            let logs_of = ("logs", waiting.job.repo.as_str());
            match logs.log(&waiting.job, body_max).await {
                Ok(mut answer) => {
                    recent.went_well(&key);
                    troubled::over(logs_of, cursors, page);
                    if answer.cut {
                        // Its secrets are still in it, and half of one must not stay.
                        answer.body.truncate(whole_words(&answer.body));
                        page.lost.push(format!("log of {key}: only its first {body_max} bytes were fetched"));
                    }
                    bytes += answer.body.len();
                    let mut item = Fetched::new(answer.body);
                    item.query = waiting.job.query();
                    page.items.push(item);
                }
                Err(CollectError::Missing { status: 410, .. }) => {
                    page.lost.push(format!("log of {key}: its provider keeps it no more"));
                }
                // A log may be written after its job has ended; an address may have expired.
                Err(
                    error @ (CollectError::Missing { .. } | CollectError::Answer { .. } | CollectError::Content { .. }),
                ) => {
                    waiting.tries += 1;
                    if waiting.tries >= TRIES_MAX {
                        page.lost.push(format!("log of {key}: {error}"));
                    } else {
                        waiting.after = Some(now.plus(FIRST_WAIT * (1 << waiting.tries)));
                        kept.push(waiting);
                    }
                }
                Err(error) if error.is_of_one() || (error.is_passing() && recent.fails_on(&key)) => {
                    troubled::begins(logs_of, &error, cursors, now, page)?;
                    waiting.tries += 1;
                    if waiting.tries >= PATIENT_TRIES_MAX {
                        page.lost.push(format!("log of {key}: {error}"));
                    } else {
                        waiting.after = Some(now.plus(patience(waiting.tries)));
                        kept.push(waiting);
                    }
                }
                Err(error) => {
                    kept.push(waiting);
                    trouble = Some(error);
                    break;
                }
            }
        }
        kept.extend(jobs);
        while kept.iter().filter(|waiting| waiting.tries > 0).count() > WAITING_MAX
            && let Some(oldest) = kept.iter().position(|waiting| waiting.tries > 0)
        {
            let waiting = kept.remove(oldest);
            page.lost.push(format!("log of {}: too many wait for another try", waiting.job.key()));
        }
        self.jobs = kept;
        match trouble {
            // What was put aside is to be written down; the error comes again.
            Some(error) if page.items.is_empty() && tried <= 1 => Err(error),
            _ => Ok(()),
        }
    }
}
