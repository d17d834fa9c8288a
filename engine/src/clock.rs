//! Where the time of day comes from: the one port through which anything outside detection reads a clock.
//!
//! Detection itself never does: the times in the records are its clock.

mod steady;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use self::steady::SteadyClock;
use crate::time::{Timestamp, micros};

/// A source of the present time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present time.
    fn now(&self) -> Timestamp;

    /// What has passed since some moment before, whatever anybody does to the time of day.
    fn passed(&self) -> Duration;

    /// How far another clock is ahead that this one does not believe.
    fn ahead(&self) -> Duration {
        Duration::ZERO
    }
}

/// The machine's clock. In a debug build, `PIPEPROOF_CLOCK=FILE` moves it by the seconds that stand in the file, which may change
/// meanwhile: so much has passed, or where `wrong` stands behind them, the clock says so and nothing has. Release builds have none of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_micros(micros(since));
        #[cfg(debug_assertions)]
        let now = Timestamp::from_micros(now.as_micros() + moved_by().0);
        now
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn passed(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let passed = START.elapsed();
        #[cfg(debug_assertions)]
        let passed = passed + Duration::from_micros(u64::try_from(moved_by().1).unwrap_or(0));
        passed
    }
}

/// Microseconds by which tests move the machine's clock, and how many of them have passed.
#[cfg(debug_assertions)]
fn moved_by() -> (i64, i64) {
    static FILE: LazyLock<Option<std::path::PathBuf>> =
        LazyLock::new(|| std::env::var_os("PIPEPROOF_CLOCK").map(Into::into));
    static MOVED: AtomicI64 = AtomicI64::new(0);
    static PASSED: AtomicI64 = AtomicI64::new(0);
    let Some(file) = FILE.as_ref() else { return (0, 0) };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let (seconds, wrong) = text.trim().split_once(' ').map_or((text.trim(), false), |(seconds, _)| (seconds, true));
    if let Ok(seconds) = seconds.parse::<i64>() {
        MOVED.store(seconds * 1_000_000, Ordering::SeqCst);
        if !wrong {
            PASSED.fetch_max(seconds * 1_000_000, Ordering::SeqCst);
        }
    }
    (MOVED.load(Ordering::SeqCst), PASSED.load(Ordering::SeqCst))
}

/// A clock that tests move by hand.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub const fn new(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.as_micros()))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(micros(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }

    fn passed(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.now().as_micros()).unwrap_or(0))
    }
}
