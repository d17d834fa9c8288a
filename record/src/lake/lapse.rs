//! How much time has passed for the lake: what a day is measured by before old files go.
//!
//! The machine's clock can be put forward, by hand or by a machine that starts with a wrong one, and files that somebody outside still
//! reads would be a day old at once. So the lake's time follows that clock at twice the pace at most, by how long the process has run:
//! a day takes half of one at least. Time during which nothing ran is made up for in the same way. It is kept beside the tables.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::time::Timestamp;
use pipeproof_engine as engine;

/// File in the lake's folder: microseconds since 1970.
const FILE: &str = "time";
/// How far it goes on before it is written down again.
const WRITTEN_EVERY: Duration = Duration::from_secs(3_600);

/// The lake's time.
#[derive(Debug)]
pub(super) struct Lapse {
    path: PathBuf,
    at: Option<Timestamp>,
    written: Option<Timestamp>,
    awake: Option<Duration>,
}

impl Lapse {
    /// As it was written down; without that it begins with the first question. Losing the file makes old files go no sooner than the
    /// clock says.
    pub(super) fn load(lake: &Path) -> Self {
        let path = lake.join(FILE);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let at = text.trim().parse().ok().map(Timestamp::from_micros);
        Self { path, at, written: at, awake: None }
    }

    /// The lake's time, where the clock says `now` and the process has run for so long.
    pub(super) fn until(&mut self, now: Timestamp, awake: Duration) -> Timestamp {
        let ran = awake.saturating_sub(self.awake.unwrap_or(awake));
        self.awake = Some(awake);
        let at = self.at.map_or(now, |at| now.min(at.plus(ran * 2)));
        self.at = Some(at);
        let is_due = |written: Timestamp| at < written || at >= written.plus(WRITTEN_EVERY);
        if self.written.is_none_or(is_due) {
            self.write(at);
        }
        at
    }

    fn write(&mut self, at: Timestamp) {
        let next = self.path.with_extension("staged");
        let text = format!("{}\n", at.as_micros());
        match fs::write(&next, text).and_then(|()| fs::rename(&next, &self.path)) {
            Ok(()) => self.written = Some(at),
            Err(error) => tracing::warn!(%error, "cannot write down how far the lake's time has come"),
        }
    }
}
