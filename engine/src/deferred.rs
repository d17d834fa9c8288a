//! Candidates: events a rule with lookups may match, until the tables can be asked.
//!
//! A candidate waits until the watermark over the rule's own sources and those that feed its tables has passed its time
//! and the tables' graces. One that would be a match because something was not found is parked while a source that would
//! have shown it is silent, and decided once that is heard again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::correlate::{Moment, Signal};
use crate::event::EventId;
use crate::lookup::Question;
use crate::time::Timestamp;

/// Candidates of one rule that wait in a lane at most; of those furthest in the future one is evicted and counted.
pub const CANDIDATES_MAX: usize = 1 << 18;

/// An event that may be a match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The event, as far as it is needed.
    pub signal: Signal,
    /// What the tables are asked.
    pub question: Question,
    /// Id and digest of the exception that lets it go if it is a match.
    pub let_go: Option<(String, String)>,
    /// Those of expired exceptions that would have.
    pub expired: Vec<(String, String)>,
}

type Name = (Timestamp, EventId);

/// A change of what waits, as deltas keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A candidate began to wait.
    Wait(Box<Candidate>),
    /// These were decided or dropped.
    Gone(Vec<Name>),
    /// These were parked.
    Park(Vec<Name>),
    /// Those parked wait for the watermark again.
    Unpark,
    /// Since when every source has been heard again.
    Heard(Option<Timestamp>),
}

/// The candidates of one rule in one lane.
#[derive(Clone, Debug, Default)]
pub struct Deferred {
    waiting: BTreeMap<Name, Candidate>,
    parked: BTreeMap<Name, Candidate>,
    /// Since when every source has been heard again, in record time; kept only while something is parked.
    heard: Option<Timestamp>,
    changes: Vec<Change>,
    evicted: u64,
}

impl Deferred {
    /// Lets a candidate wait.
    pub fn wait(&mut self, candidate: Candidate) {
        self.changes.push(Change::Wait(Box::new(candidate.clone())));
        self.put(candidate);
        if self.waiting.len() + self.parked.len() > CANDIDATES_MAX
            && let Some((name, _)) = self.waiting.pop_last()
        {
            self.changes.push(Change::Gone(vec![name]));
            self.evicted += 1;
        }
    }

    /// The candidates that can be decided at this moment, in the order of time and record.
    pub fn take(&mut self, moment: Moment, settle: Duration) -> Vec<Candidate> {
        self.look(moment.blind, moment.now, settle);
        let mut ready = Vec::new();
        let (mut gone, mut parked) = (Vec::new(), Vec::new());
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= moment.watermark) {
            let (name, candidate) = entry.remove_entry();
            if moment.blind && candidate.question.residual.seeks_absence() {
                parked.push(name);
                self.parked.insert(name, candidate);
            } else {
                gone.push(name);
                ready.push(candidate);
            }
        }
        self.changes.extend((!gone.is_empty()).then_some(Change::Gone(gone)));
        self.changes.extend((!parked.is_empty()).then_some(Change::Park(parked)));
        ready
    }

    fn look(&mut self, blind: bool, now: Timestamp, settle: Duration) {
        if self.parked.is_empty() {
            return;
        }
        let heard = if blind { None } else { Some(self.heard.unwrap_or(now)) };
        if heard != self.heard {
            self.changes.push(Change::Heard(heard));
            self.heard = heard;
        }
        if heard.is_some_and(|heard| heard <= now.minus(settle)) {
            self.changes.push(Change::Unpark);
            self.unpark();
        }
    }

    fn unpark(&mut self) {
        self.waiting.append(&mut self.parked);
        self.heard = None;
    }

    fn put(&mut self, candidate: Candidate) {
        self.waiting.insert((candidate.signal.time, candidate.signal.event), candidate);
    }

    /// Forgets candidates that are events `of` says.
    pub fn forget(&mut self, of: impl Fn(EventId) -> bool) {
        let names = self.waiting.keys().chain(self.parked.keys()).filter(|(_, event)| of(*event));
        let gone: Vec<Name> = names.copied().collect();
        self.waiting.retain(|(_, event), _| !of(*event));
        self.parked.retain(|(_, event), _| !of(*event));
        self.changes.extend((!gone.is_empty()).then_some(Change::Gone(gone)));
    }

    /// Time of the earliest candidate that is not decided.
    #[must_use]
    pub fn earliest(&self) -> Option<Timestamp> {
        let first = |of: &BTreeMap<Name, Candidate>| of.first_key_value().map(|((time, _), _)| *time);
        first(&self.waiting).into_iter().chain(first(&self.parked)).min()
    }

    /// How many wait, parked ones included, and how many are parked.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.waiting.len() + self.parked.len(), self.parked.len())
    }

    /// How many were dropped at the bound since the process started.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The changes since they were last taken.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// All of it as changes from nothing, for a snapshot.
    #[must_use]
    pub fn as_changes(&self) -> Vec<Change> {
        let all = self.waiting.values().chain(self.parked.values());
        let mut changes: Vec<Change> = all.map(|candidate| Change::Wait(Box::new(candidate.clone()))).collect();
        if !self.parked.is_empty() {
            changes.push(Change::Park(self.parked.keys().copied().collect()));
            changes.push(Change::Heard(self.heard));
        }
        changes
    }

    /// Repeats a change, as restoring does.
    pub fn restore(&mut self, change: Change) {
        match change {
            Change::Wait(candidate) => self.put(*candidate),
            Change::Gone(names) => names.iter().for_each(|name| {
                self.waiting.remove(name);
                self.parked.remove(name);
            }),
            Change::Park(names) => {
                for name in names {
                    if let Some(candidate) = self.waiting.remove(&name) {
                        self.parked.insert(name, candidate);
                    }
                }
            }
            Change::Unpark => self.unpark(),
            Change::Heard(heard) => self.heard = heard,
        }
    }
}
