//! Where the time of day comes from: the one port through which anything outside detection reads a clock.
//!
//! Detection itself never does: the times in the records are its clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::time::{Timestamp, micros};

/// A source of the present time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock. In a debug build, `PIPEPROOF_CLOCK=FILE` moves it by the seconds that stand in the file, which may change
/// meanwhile: the fault tests make it jump. Release builds have none of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_micros(micros(since));
        #[cfg(debug_assertions)]
        let now = Timestamp::from_micros(now.as_micros() + moved_by());
        now
    }
}

/// Microseconds by which tests move the machine's clock.
#[cfg(debug_assertions)]
fn moved_by() -> i64 {
    static FILE: std::sync::LazyLock<Option<std::path::PathBuf>> =
        std::sync::LazyLock::new(|| std::env::var_os("PIPEPROOF_CLOCK").map(Into::into));
    static LAST: AtomicI64 = AtomicI64::new(0);
    let Some(file) = FILE.as_ref() else { return 0 };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    if let Ok(seconds) = text.trim().parse::<i64>() {
        LAST.store(seconds * 1_000_000, Ordering::SeqCst);
    }
    LAST.load(Ordering::SeqCst)
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
}
