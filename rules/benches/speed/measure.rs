//! Time, memory and allocations, by what the system says of this process.

use std::time::Instant;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Time spent by this thread, not by others on the same core.
pub(crate) struct Stopwatch {
    wall: Instant,
    own: Timespec,
}

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), own: clock_gettime(ClockId::ThreadCPUTime) }
    }

    /// Seconds of this thread's own time.
    pub(crate) fn own_secs(&self) -> f64 {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        (now.tv_sec - self.own.tv_sec) as f64 + (now.tv_nsec - self.own.tv_nsec) as f64 / 1e9
    }

    pub(crate) fn wall_secs(&self) -> f64 {
        self.wall.elapsed().as_secs_f64()
    }
}

/// Most memory this process ever held, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1_024)
}

pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}
