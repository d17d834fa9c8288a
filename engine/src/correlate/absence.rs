//! What must not happen: clauses that were completed and wait for the end of the window after them.
//!
//! An obligation is decided when the watermark passes its end. A match of an absent member takes it back, also one that
//! comes late, as long as nothing was said. While a source that would have shown such a match is silent, obligations whose
//! time has come are parked: they are neither found nor forgotten. What was found may be resolved later by the member the
//! rule names for it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::signal::Signal;
use crate::event::EventId;
use crate::time::Timestamp;

/// Obligations one rule keeps at most; a further one is evicted and counted.
pub(super) const OBLIGATIONS_MAX: usize = 200_000;
/// Obligations of one group at most.
const OF_GROUP_MAX: usize = 1_024;
/// Findings one rule waits to see resolved at most; the oldest are let go.
const RESOLVABLE_MAX: usize = 100_000;
/// How long after it was made a finding can be resolved by what was missing.
pub const RESOLVED_WITHIN: Duration = Duration::from_secs(30 * 86_400);

/// When an obligation is due, and what completed which clause: its name.
pub(super) type Due = (Timestamp, EventId, u16, u16);

/// A clause that was completed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Obligation {
    pub(super) key: Box<str>,
    pub(super) clause: u16,
    /// What completed it, in order; never empty.
    pub(super) used: Vec<Signal>,
}

/// All obligations of one rule.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Obligations {
    due: BTreeMap<Due, Obligation>,
    parked: BTreeMap<Due, Obligation>,
    by_key: BTreeMap<Box<str>, Vec<Due>>,
    /// What was found and may be resolved: until when, in which group, by its anchor.
    found: BTreeMap<Box<str>, Vec<Signal>>,
    found_order: VecDeque<(Timestamp, Box<str>)>,
    /// Since when every source has been heard again, in record time.
    heard: Option<Timestamp>,
}

impl Obligations {
    /// Takes on an obligation; gives how many were dropped for it.
    pub(super) fn add(&mut self, at: Timestamp, obligation: Obligation) -> u64 {
        let Some(end) = obligation.used.last() else { return 0 };
        let due = (at, end.event, end.member, obligation.clause);
        let of_group = self.by_key.entry(obligation.key.clone()).or_default();
        if self.due.len() + self.parked.len() >= OBLIGATIONS_MAX || of_group.len() >= OF_GROUP_MAX {
            if of_group.is_empty() {
                self.by_key.remove(&obligation.key);
            }
            return 1;
        }
        if let Err(place) = of_group.binary_search(&due) {
            of_group.insert(place, due);
        }
        self.due.insert(due, obligation);
        0
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.first_key_value().map(|(due, _)| due.0)
    }

    /// Takes back those of a group that `of` says.
    pub(super) fn cancel(&mut self, key: &str, of: impl Fn(&Obligation) -> bool) {
        let Some(dues) = self.by_key.get_mut(key) else { return };
        let (due, parked) = (&mut self.due, &mut self.parked);
        dues.retain(|name| {
            let gone = due.get(name).or_else(|| parked.get(name)).is_none_or(&of);
            if gone {
                due.remove(name);
                parked.remove(name);
            }
            !gone
        });
        if dues.is_empty() {
            self.by_key.remove(key);
        }
    }

    /// The next one that is due at or before `until`; parked instead while `blind` says so.
    pub(super) fn take_due(
        &mut self,
        until: Timestamp,
        blind: impl Fn(&Obligation) -> bool,
    ) -> Option<(Due, Obligation)> {
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= until) {
            let (due, obligation) = entry.remove_entry();
            if !blind(&obligation) {
                self.forget_name(&obligation.key, &due);
                return Some((due, obligation));
            }
            self.parked.insert(due, obligation);
        }
        None
    }

    /// Notes whether every source is heard; what is parked comes due again once they have been for `settle`.
    pub(super) fn look(&mut self, blind: bool, now: Timestamp, settle: Duration) {
        if blind {
            self.heard = None;
        } else if *self.heard.get_or_insert(now) <= now.minus(settle) {
            self.due.append(&mut self.parked);
        }
    }

    /// Whether [`Obligations::look`] would change anything.
    pub(super) fn sees(&self, blind: bool) -> bool {
        !self.parked.is_empty() && (!blind || self.heard.is_some())
    }

    fn forget_name(&mut self, key: &str, name: &Due) {
        if let Some(dues) = self.by_key.get_mut(key) {
            dues.retain(|due| due != name);
            if dues.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    /// Remembers a finding that may be resolved.
    pub(super) fn remember(&mut self, key: &str, anchor: Signal, found: Timestamp) {
        self.found.entry(key.into()).or_default().push(anchor);
        self.found_order.push_back((found, key.into()));
        while self.found_order.len() > RESOLVABLE_MAX
            || self.found_order.front().is_some_and(|(time, _)| *time < found.minus(RESOLVED_WITHIN))
        {
            let Some((_, key)) = self.found_order.pop_front() else { break };
            if let Some(anchors) = self.found.get_mut(&key) {
                anchors.remove(0);
                if anchors.is_empty() {
                    self.found.remove(&key);
                }
            }
        }
    }

    /// The findings of a group that something resolves now.
    pub(super) fn resolve(&mut self, key: &str) -> Vec<Signal> {
        let resolved = self.found.remove(key).unwrap_or_default();
        if !resolved.is_empty() {
            self.found_order.retain(|(_, other)| **other != *key);
        }
        resolved
    }

    /// Takes back what rests on a signal that `of` says, and forgets findings that hang on one.
    pub(super) fn forget(&mut self, of: impl Fn(&Signal) -> bool) {
        let rests = |obligation: &Obligation| obligation.used.iter().any(&of);
        let gone = self.due.iter().chain(&self.parked).filter(|(_, obligation)| rests(obligation));
        let gone: Vec<(Due, Box<str>)> = gone.map(|(due, obligation)| (*due, obligation.key.clone())).collect();
        for (due, key) in gone {
            self.due.remove(&due);
            self.parked.remove(&due);
            self.forget_name(&key, &due);
        }
        let keys: Vec<Box<str>> = self.found.keys().cloned().collect();
        for key in keys {
            let Some(anchors) = self.found.get_mut(&key) else { continue };
            // They stand in the order in which their key stands in `found_order`.
            let kept: Vec<bool> = anchors.iter().map(|anchor| !of(anchor)).collect();
            if kept.iter().all(|kept| *kept) {
                continue;
            }
            let mut keeps = kept.iter();
            anchors.retain(|_| keeps.next().copied().unwrap_or(true));
            if anchors.is_empty() {
                self.found.remove(&key);
            }
            let mut keeps = kept.iter();
            self.found_order.retain(|(_, other)| *other != key || keeps.next().copied().unwrap_or(true));
        }
    }

    /// How many wait, and how many of them are parked.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.due.len() + self.parked.len(), self.parked.len())
    }
}
