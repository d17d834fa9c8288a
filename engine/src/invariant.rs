//! What must hold at every moment, as functions: the simulation and the fault tests assert them, and a running node counts
//! what violates them in `pipeproof_invariant_violations_total`.
//!
//! Positions and the tree are checked all the time. What takes the records themselves to know (that none is lost, stored twice, or
//! found otherwise) a node counts when `doctor --verify` derives them again from what it holds. What was sent, and what another
//! process finds in it, only a reference outside can say: the simulation and the fault runs have one.

use std::collections::{BTreeMap, BTreeSet};

/// Something that must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Detection has read nothing beyond the durable mark.
    DetectedIsDurable,
    /// The lake has taken in nothing that detection has not passed.
    ArchivedIsDetected,
    /// Nothing was retired from the log that the lake has not taken in.
    RetiredIsArchived,
    /// The tree has a leaf for each durable record.
    TreeIsWhole,
    /// A batch of detection begins where the store stands.
    CommitContinues,
    /// What was acknowledged is stored.
    AcknowledgedIsStored,
    /// Nothing is stored twice.
    StoredOnce,
    /// Nothing is found twice, and exactly what the reference finds.
    FoundAsReference,
}

impl Invariant {
    /// Every invariant.
    pub const ALL: &'static [Self] = &[
        Self::DetectedIsDurable,
        Self::ArchivedIsDetected,
        Self::RetiredIsArchived,
        Self::TreeIsWhole,
        Self::CommitContinues,
        Self::AcknowledgedIsStored,
        Self::StoredOnce,
        Self::FoundAsReference,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DetectedIsDurable => "detected_is_durable",
            Self::ArchivedIsDetected => "archived_is_detected",
            Self::RetiredIsArchived => "retired_is_archived",
            Self::TreeIsWhole => "tree_is_whole",
            Self::CommitContinues => "commit_continues",
            Self::AcknowledgedIsStored => "acknowledged_is_stored",
            Self::StoredOnce => "stored_once",
            Self::FoundAsReference => "found_as_reference",
        }
    }
}

/// Positions of everything that goes through one log partition, read in the order of the fields. Each only grows, and none may pass the
/// one after it, so nothing that moves meanwhile looks like a violation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Records removed from the log as data.
    pub retired: u64,
    /// Records the lake has taken in.
    pub archived: u64,
    /// Records evaluated and committed.
    pub detected: u64,
    /// Records on stable storage.
    pub durable: u64,
    /// Leaves of the tree: each has one before it counts as durable.
    pub leaves: u64,
}

impl Positions {
    /// What is violated.
    pub fn violated(&self) -> impl Iterator<Item = Invariant> {
        [
            (self.detected > self.durable, Invariant::DetectedIsDurable),
            (self.archived > self.detected, Invariant::ArchivedIsDetected),
            (self.retired > self.archived, Invariant::RetiredIsArchived),
            (self.durable > self.leaves, Invariant::TreeIsWhole),
        ]
        .into_iter()
        .filter_map(|(violated, invariant)| violated.then_some(invariant))
    }
}

/// What became of the items of a generator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Acknowledged and not stored.
    pub lost: Vec<u64>,
    /// Stored more than once.
    pub twice: Vec<u64>,
    /// Stored and never sent.
    pub unknown: Vec<u64>,
}

impl Balance {
    /// Compares what was sent and acknowledged with how often each item is stored.
    #[must_use]
    pub fn of(sent: &BTreeSet<u64>, acknowledged: &BTreeSet<u64>, stored: &BTreeMap<u64, u64>) -> Self {
        Self {
            lost: acknowledged.iter().filter(|item| !stored.contains_key(item)).copied().collect(),
            twice: stored.iter().filter(|(_, times)| **times > 1).map(|(item, _)| *item).collect(),
            unknown: stored.keys().filter(|item| !sent.contains(item)).copied().collect(),
        }
    }

    /// What is violated.
    pub fn violated(&self) -> impl Iterator<Item = Invariant> {
        [
            (!self.lost.is_empty(), Invariant::AcknowledgedIsStored),
            (!self.twice.is_empty() || !self.unknown.is_empty(), Invariant::StoredOnce),
        ]
        .into_iter()
        .filter_map(|(violated, invariant)| violated.then_some(invariant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_out_of_order_are_named() {
        let fine = Positions { retired: 1, archived: 2, detected: 3, durable: 4, leaves: 4 };
        assert_eq!(fine.violated().count(), 0);
        assert_eq!(Positions { leaves: 5, ..fine }.violated().count(), 0, "a leaf comes before its mark");
        assert_eq!(Positions { leaves: 3, ..fine }.violated().collect::<Vec<_>>(), [Invariant::TreeIsWhole]);
        let ahead = Positions { retired: 3, detected: 5, ..fine };
        assert_eq!(ahead.violated().collect::<Vec<_>>(), [Invariant::DetectedIsDurable, Invariant::RetiredIsArchived]);
    }

    #[test]
    fn a_balance_names_what_is_lost_and_what_is_there_twice() {
        let sent = BTreeSet::from([1, 2, 3]);
        let balance = Balance::of(&sent, &BTreeSet::from([1, 2]), &BTreeMap::from([(1, 1), (3, 2), (9, 1)]));
        assert_eq!(balance, Balance { lost: vec![2], twice: vec![3], unknown: vec![9] });
        assert_eq!(balance.violated().count(), 2);
    }
}
