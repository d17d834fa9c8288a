//! One line of the report: what was sent, what became of it, and whether it holds.

use std::process::Command;
use std::sync::LazyLock;

use pipeproof_engine::clock::{Clock as _, SystemClock};
use pipeproof_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The commit of the tree the runs are made from, with `+` behind it if files differ from it. Read once: a tree goes on while a long
/// run takes its time.
static COMMIT: LazyLock<String> = LazyLock::new(|| {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        // It must not write to the repository, not even what it has looked up.
        git.args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).env("GIT_OPTIONAL_LOCKS", "0");
        let output = git.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let differs = git(&["status", "--porcelain"]).is_none_or(|changed| !changed.is_empty());
    if differs { format!("{commit}+") } else { commit }
});

/// The commit of the tree the runs are made from.
pub(crate) fn commit() -> &'static str {
    &COMMIT
}

/// The counts of one run, or of several runs of one fault added up. Printed as one JSON line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    /// Its number in the fault matrix.
    pub(crate) fault: String,
    pub(crate) seed: u64,
    /// When it was begun (RFC 3339, UTC).
    #[serde(default)]
    pub(crate) started: String,
    /// Of which tree it is; see [`commit`].
    #[serde(default)]
    pub(crate) commit: String,
    /// How often the fault was made.
    pub(crate) runs: u64,
    /// What of this was counted; the rest was not measured.
    #[serde(default)]
    pub(crate) counted: Counted,
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    /// Batches that came again, as they had not been answered.
    #[serde(default)]
    pub(crate) again: u64,
    pub(crate) stored: u64,
    pub(crate) lost_acked: u64,
    pub(crate) dup_stored: u64,
    pub(crate) evaluated: u64,
    pub(crate) findings_expected: u64,
    /// Those of them that rest on several events.
    #[serde(default)]
    pub(crate) correlated: u64,
    pub(crate) findings_lost: u64,
    pub(crate) findings_dup: u64,
    pub(crate) alerts_required: u64,
    pub(crate) alerts_delivered: u64,
    pub(crate) alerts_lost: u64,
    /// Attempts that brought a message again under the same key.
    pub(crate) alerts_dup_wire: u64,
    /// Messages that say the same under another key.
    pub(crate) alerts_dup_key: u64,
    /// Longest time from a start to ready, in seconds.
    pub(crate) recovery_s: f64,
    /// Acknowledged events that were not there after the recovery.
    pub(crate) rpo_events: u64,
    /// Damaged bytes that were noticed.
    pub(crate) bytes_corrupt_detected: u64,
    pub(crate) wall_s: f64,
    pub(crate) holds: Holds,
    /// What a reader should know, or why it does not hold.
    pub(crate) note: String,
}

/// Which columns of a row hold numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) events: bool,
    pub(crate) findings: bool,
    pub(crate) alerts: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Holds {
    #[default]
    Yes,
    No,
    /// It measures, and nothing is promised.
    NotJudged,
    /// It could not run here; the note says what it needs.
    LeftOut,
}

impl Row {
    pub(crate) fn new(fault: &str, scenario: &str, seed: u64) -> Self {
        let started = Timestamp::from_secs(SystemClock.now().as_micros() / 1_000_000).to_string();
        let (scenario, fault, commit) = (scenario.to_owned(), fault.to_owned(), commit().to_owned());
        Self { scenario, fault, seed, started, commit, ..Self::default() }
    }

    /// A row of a fault that cannot be made here.
    pub(crate) fn left_out(fault: &str, scenario: &str, needs: &str) -> Self {
        Self { holds: Holds::LeftOut, note: needs.to_owned(), ..Self::new(fault, scenario, 0) }
    }

    /// Notes something that does not hold.
    pub(crate) fn fail(&mut self, why: impl AsRef<str>) {
        self.holds = Holds::No;
        self.say(why);
    }

    /// Notes `why` unless it holds.
    pub(crate) fn expect(&mut self, holds: bool, why: impl AsRef<str>) {
        if !holds {
            self.fail(why);
        }
    }

    /// Notes something at any length.
    pub(crate) fn note_all(&mut self, what: impl AsRef<str>) {
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(what.as_ref());
    }

    pub(crate) fn say(&mut self, what: impl AsRef<str>) {
        let what = what.as_ref();
        // Two hundred runs with one cause are one sentence.
        if !self.note.contains(what) && self.note.len() < 600 {
            if !self.note.is_empty() {
                self.note.push_str("; ");
            }
            self.note.push_str(what);
        }
    }

    /// Adds another run of the same fault.
    pub(crate) fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.counted.events |= other.counted.events;
        self.counted.findings |= other.counted.findings;
        self.counted.alerts |= other.counted.alerts;
        self.again += other.again;
        self.correlated += other.correlated;
        self.sent += other.sent;
        self.acked += other.acked;
        self.stored += other.stored;
        self.lost_acked += other.lost_acked;
        self.dup_stored += other.dup_stored;
        self.evaluated += other.evaluated;
        self.findings_expected += other.findings_expected;
        self.findings_lost += other.findings_lost;
        self.findings_dup += other.findings_dup;
        self.alerts_required += other.alerts_required;
        self.alerts_delivered += other.alerts_delivered;
        self.alerts_lost += other.alerts_lost;
        self.alerts_dup_wire += other.alerts_dup_wire;
        self.alerts_dup_key += other.alerts_dup_key;
        self.recovery_s = self.recovery_s.max(other.recovery_s);
        self.rpo_events += other.rpo_events;
        self.bytes_corrupt_detected += other.bytes_corrupt_detected;
        self.wall_s += other.wall_s;
        if other.holds == Holds::No {
            self.holds = Holds::No;
        }
        if !other.note.is_empty() {
            self.say(&other.note);
        }
    }
}
