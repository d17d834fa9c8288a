//! Work behind the events: nothing is lost when it fails, and it is tried again. But while it goes on failing the log grows, or what came
//! lately is not sealed, so each failure is counted.

use crate::node::Shared;

/// A kind of such work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upkeep {
    Seal,
    Retire,
    Merge,
    ForgetCommits,
    ForgetVerdicts,
    Snapshot,
    GiveBack,
}

impl Upkeep {
    pub(crate) const ALL: &[Self] = &[
        Self::Seal,
        Self::Retire,
        Self::Merge,
        Self::ForgetCommits,
        Self::ForgetVerdicts,
        Self::Snapshot,
        Self::GiveBack,
    ];

    /// The label of its metric.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Retire => "retire",
            Self::Merge => "merge",
            Self::ForgetCommits => "forget_commits",
            Self::ForgetVerdicts => "forget_verdicts",
            Self::Snapshot => "snapshot",
            Self::GiveBack => "give_back",
        }
    }

    const fn doing(self) -> &'static str {
        match self {
            Self::Seal => "seal a checkpoint",
            Self::Retire => "retire segments of the log",
            // A lake of small files is slow and right.
            Self::Merge => "merge small files of the lake",
            Self::ForgetCommits => "remove commits of old versions of the lake",
            Self::ForgetVerdicts => "forget which records repeated others",
            // The deltas are still there: a restart only takes longer.
            Self::Snapshot => "write a snapshot of the state of detection",
            Self::GiveBack => "give back free space of the store",
        }
    }
}

impl Shared {
    /// Says and counts that such work failed.
    pub(crate) fn put_off(&self, work: Upkeep, error: &str) {
        tracing::warn!(error, "cannot {}", work.doing());
        self.metrics.upkeep_failures.with_label_values(&[work.name()]).inc();
    }
}
