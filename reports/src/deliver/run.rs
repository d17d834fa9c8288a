//! The delivery loop: one lane per target, each with its own pace, so that a broken receiver delays nobody else.
//!
//! It decides when to ask the outbox and how much to send at once; what an answer means is decided in
//! [`super::retry`], and order within an incident by the outbox.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pipeproof_engine::clock::Clock;
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::time::Timestamp;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::outbox::{Due, Outbox};
use super::receipt::Receipt;
use super::retry::{RETRY_AFTER_MAX, Verdict};
use super::send::{Attempted, PAUSE, Sender, Timeouts};
use super::target::{CONCURRENCY, Target, TargetError};

/// How often the outbox is asked although nobody said that a message is there.
const POLL: Duration = Duration::from_secs(1);
/// How often it is said that the outbox cannot be used.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// Failures in a row after which a target is asked with one message at a time.
const BREAK_AFTER: u32 = 5;
/// Longest wait between such probes.
const PROBE_EVERY_MAX: Duration = Duration::from_secs(60);

/// Randomness for back-off, uniform in `[0, 1)`.
pub type Random = Arc<dyn Fn() -> f64 + Send + Sync>;

/// How a deliverer behaves, apart from its targets.
#[derive(Clone)]
pub struct DeliverOptions {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Randomness of the back-off.
    pub random: Random,
    /// Timeouts of an attempt.
    pub timeouts: Timeouts,
}

impl fmt::Debug for DeliverOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DeliverOptions").field("timeouts", &self.timeouts).finish_non_exhaustive()
    }
}

impl DeliverOptions {
    /// With the machine's randomness and the usual timeouts.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, random: Arc::new(rand::random::<f64>), timeouts: Timeouts::default() }
    }
}

/// Whether a target is sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TargetState {
    /// It is.
    Active,
    /// It refuses our credentials, or egress refuses it; it is asked again with one message after `until`.
    Paused {
        /// When.
        until: Timestamp,
        /// Why.
        reason: String,
    },
    /// It answered that it wants nothing any more (410); nothing is sent until somebody resumes it.
    Disabled {
        /// Why.
        reason: String,
    },
}

/// How a target does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetStatus {
    /// Its name.
    #[serde(rename = "target")]
    pub name: String,
    /// Whether it is sent to.
    pub state: TargetState,
    /// Messages that were given up since this deliverer was made.
    pub given_up: u64,
}

#[derive(Debug)]
struct Pace {
    state: TargetState,
    /// Retryable failures in a row.
    failures: u32,
    /// The receiver asked not to be called before.
    hold: Option<Timestamp>,
    /// After failures in a row, when to ask again.
    probe: Option<Timestamp>,
}

impl Pace {
    const FRESH: Self = Self { state: TargetState::Active, failures: 0, hold: None, probe: None };
}

#[derive(Debug)]
struct Lane {
    sender: Sender,
    pace: Mutex<Pace>,
    given_up: AtomicU64,
    registered: tokio::sync::OnceCell<()>,
}

impl Lane {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings the outbox's messages to every target.
pub struct Deliverer<O> {
    outbox: Arc<O>,
    lanes: Arc<[Arc<Lane>]>,
    options: DeliverOptions,
    nudge: Arc<Notify>,
}

impl<O> fmt::Debug for Deliverer<O> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Deliverer").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl<O> Clone for Deliverer<O> {
    fn clone(&self) -> Self {
        Self {
            outbox: Arc::clone(&self.outbox),
            lanes: Arc::clone(&self.lanes),
            options: self.options.clone(),
            nudge: Arc::clone(&self.nudge),
        }
    }
}

impl<O: Outbox> Deliverer<O> {
    /// A deliverer to these targets. Nothing is sent before [`Self::run`] or [`Self::run_once`].
    ///
    /// # Errors
    /// [`TargetError::Client`] if the HTTP client of a target cannot be built.
    pub fn new(
        outbox: Arc<O>,
        targets: impl IntoIterator<Item = Target>,
        options: DeliverOptions,
    ) -> Result<Self, TargetError> {
        let lanes: Result<Vec<_>, _> = targets
            .into_iter()
            .map(|target| {
                let sender = Sender::new(target, options.timeouts)?;
                let pace = Mutex::new(Pace::FRESH);
                let registered = tokio::sync::OnceCell::new();
                Ok(Arc::new(Lane { sender, pace, given_up: AtomicU64::new(0), registered }))
            })
            .collect();
        Ok(Self { outbox, lanes: lanes?.into(), options, nudge: Arc::new(Notify::new()) })
    }

    /// Says that a message was committed, so that it goes out at once instead of at the next poll.
    pub fn nudge(&self) {
        self.nudge.notify_waiters();
    }

    /// How every target does.
    #[must_use]
    pub fn states(&self) -> Vec<TargetStatus> {
        let status = |lane: &Arc<Lane>| TargetStatus {
            name: lane.sender.target.name.clone(),
            state: lane.pace().state.clone(),
            given_up: lane.given_up.load(Ordering::Relaxed),
        };
        self.lanes.iter().map(status).collect()
    }

    /// Sends to a paused or disabled target again. Returns whether there is such a target.
    pub fn resume(&self, target: &str) -> bool {
        let Some(lane) = self.lanes.iter().find(|lane| lane.sender.target.name == target) else { return false };
        *lane.pace() = Pace::FRESH;
        self.nudge();
        true
    }

    /// Makes every target known to the outbox, so that messages committed from now on wait for it.
    ///
    /// # Errors
    /// Whatever the outbox fails with.
    pub async fn register(&self) -> Result<(), O::Error> {
        for lane in self.lanes.iter() {
            self.register_lane(lane).await?;
        }
        Ok(())
    }

    /// Sends everything that is due now to every target and returns when something is due next, if anything waits.
    ///
    /// # Errors
    /// Whatever the outbox fails with. Nothing is lost: what was sent without a receipt is sent again under its id.
    pub async fn run_once(&self) -> Result<Option<Timestamp>, O::Error> {
        let mut tasks = JoinSet::new();
        for lane in self.lanes.iter() {
            let (this, lane) = (self.clone(), Arc::clone(lane));
            tasks.spawn(async move { this.drain(&lane, &|| false).await });
        }
        let mut next: Option<Timestamp> = None;
        while let Some(done) = tasks.join_next().await {
            if let Ok(wake) = done {
                next = earliest(next, wake?);
            }
        }
        Ok(next)
    }

    /// Runs until `shutdown` turns true or its sender is gone. Attempts under way then are finished first.
    pub async fn run(&self, shutdown: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        for lane in self.lanes.iter() {
            let (this, lane, shutdown) = (self.clone(), Arc::clone(lane), shutdown.clone());
            tasks.spawn(async move { this.run_lane(&lane, shutdown).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn run_lane(&self, lane: &Arc<Lane>, mut shutdown: watch::Receiver<bool>) {
        // When it was last said that the outbox cannot be used: while that lasts each poll meets it, or finds nothing to do.
        let mut said: Option<Instant> = None;
        loop {
            let nudged = self.nudge.notified();
            if *shutdown.borrow_and_update() {
                return;
            }
            let stopping = || *shutdown.borrow();
            let wait = match self.drain(lane, &stopping).await {
                Ok(next) => {
                    let until = next.map_or(i64::MAX, |next| next.micros_since(self.options.clock.now()));
                    Duration::from_micros(u64::try_from(until).unwrap_or(0)).clamp(Duration::from_millis(10), POLL)
                }
                Err(error) => {
                    if said.is_none_or(|at| at.elapsed() >= SAID_AGAIN) {
                        let target = &lane.sender.target.name;
                        tracing::error!(target_name = %target, error = %chain(&error), "cannot read or write the outbox");
                        said = Some(Instant::now());
                    }
                    POLL
                }
            };
            tokio::select! {
                () = nudged => {}
                () = tokio::time::sleep(wait) => {}
                changed = shutdown.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn register_lane(&self, lane: &Lane) -> Result<(), O::Error> {
        lane.registered.get_or_try_init(|| self.outbox.register(&lane.sender.target.name)).await.copied()
    }

    /// Sends what is due on one lane, until `stopping` says so; returns when it is due next.
    async fn drain(
        &self,
        lane: &Arc<Lane>,
        stopping: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Timestamp>, O::Error> {
        self.register_lane(lane).await?;
        loop {
            let now = self.options.clock.now();
            if stopping() {
                return Ok(Some(now));
            }
            let limit = match Self::admit(lane, now) {
                Admission::Wait(until) => return Ok(until),
                Admission::Send(limit) => limit,
            };
            let Due { messages, next } = self.outbox.due(&lane.sender.target.name, now, limit).await?;
            if messages.is_empty() {
                return Ok(next);
            }
            let mut tasks = JoinSet::new();
            for queued in messages {
                let (lane, options) = (Arc::clone(lane), self.options.clone());
                tasks.spawn(async move {
                    let random = (options.random)();
                    Failpoint::DeliverBeforeSend.pass();
                    lane.sender.attempt(&queued, options.clock.as_ref(), random).await
                });
            }
            let mut recorded = false;
            let mut failed = None;
            while let Some(done) = tasks.join_next().await {
                let Ok(attempted) = done else { continue };
                Failpoint::DeliverAfterSend.pass();
                self.follow(lane, &attempted);
                match self.outbox.record(attempted.delivery, &attempted.receipt).await {
                    Ok(()) => {
                        Failpoint::DeliverAfterReceipt.pass();
                        if attempted.verdict == Verdict::DeadLetter {
                            lane.given_up.fetch_add(1, Ordering::Relaxed);
                        }
                        recorded = true;
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            // Without a receipt the same messages would come again at once.
            if !recorded {
                return Ok(Some(now.plus(POLL)));
            }
        }
    }

    fn admit(lane: &Lane, now: Timestamp) -> Admission {
        let mut pace = lane.pace();
        match &pace.state {
            TargetState::Disabled { .. } => return Admission::Wait(None),
            TargetState::Paused { until, .. } if *until > now => return Admission::Wait(Some(*until)),
            TargetState::Paused { .. } => return Admission::Send(1),
            TargetState::Active => {}
        }
        if let Some(until) = pace.hold.max(pace.probe) {
            // Nothing waits longer than this: a clock that went back by more ends the wait.
            if until > now && until <= now.plus(PAUSE.max(RETRY_AFTER_MAX)) {
                return Admission::Wait(Some(until));
            }
            (pace.hold, pace.probe) = (None, None);
        }
        Admission::Send(if pace.failures >= BREAK_AFTER { 1 } else { CONCURRENCY })
    }

    /// Lets the lane's pace follow what an attempt came to.
    fn follow(&self, lane: &Lane, attempted: &Attempted) {
        let now = self.options.clock.now();
        let Receipt { message, attempt, status, error, latency_ms, .. } = &attempted.receipt;
        let target = &lane.sender.target.name;
        let reason = error.clone().or_else(|| status.map(|status| format!("status {status}"))).unwrap_or_default();
        let mut pace = lane.pace();
        match attempted.verdict {
            Verdict::Delivered => {
                // What another answer asked for still stands.
                *pace = Pace { hold: pace.hold, ..Pace::FRESH };
                tracing::info!(target_name = %target, %message, attempt, latency_ms, "delivered");
            }
            Verdict::Retry => {
                pace.failures = pace.failures.saturating_add(1);
                let over = pace.failures.saturating_sub(BREAK_AFTER);
                pace.probe = (pace.failures >= BREAK_AFTER)
                    .then(|| now.plus(Duration::from_secs(1 << over.min(6)).min(PROBE_EVERY_MAX)));
                pace.hold = pace.hold.max(attempted.hold);
                tracing::warn!(target_name = %target, %message, attempt, %reason, "delivery failed; it will be tried again");
            }
            Verdict::DeadLetter => {
                tracing::error!(target_name = %target, %message, attempt, %reason, "delivery failed for good");
            }
            Verdict::PauseTarget => {
                tracing::error!(target_name = %target, %message, %reason, "target paused");
                pace.state = TargetState::Paused { until: now.plus(PAUSE), reason };
            }
            Verdict::DisableTarget => {
                tracing::error!(target_name = %target, %message, %reason, "target disabled");
                pace.state = TargetState::Disabled { reason };
            }
        }
    }
}

enum Admission {
    /// Send up to so many.
    Send(usize),
    /// Send nothing; until then, or until somebody resumes the target.
    Wait(Option<Timestamp>),
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
