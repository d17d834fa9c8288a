//! Correlation: rules over several matches of other rules, evaluated in (time, record) order as the watermark passes.
//!
//! A match of a member is a [`Signal`]. Signals wait until the rule's watermark has passed their time and are then fed
//! to the operator in order, so that findings do not depend on the order of arrival within lateness. A rule with
//! `emit: early` takes them on arrival instead, unless they say they happen in the future.
//!
//! A [`Correlation`] is the state of one rule in one lane. It changes only by [`Correlation::admit`] and
//! [`Correlation::advance`], which depend on nothing but their arguments: restoring repeats them.
//!
//! What is kept of a group is bounded, and so are the groups and the signals that wait; what is dropped at a bound is
//! counted. A group is let go when nothing of it can matter any more, the one with the oldest last signal first.

mod absence;
mod clauses;
mod forget;
mod groups;
pub(crate) mod journal;
mod key;
mod learned;
mod numbers;
mod recency;
mod shape;
mod signal;
mod spike;
mod temporal;
mod waiting;
mod window;

use serde::{Deserialize, Serialize};

pub use absence::RESOLVED_WITHIN;
use absence::{Obligation, Obligations};
use groups::Groups;
pub(crate) use key::values as key_values;
use learned::{Seen, Shares};
pub use shape::Shape;
pub(crate) use shape::names_read;
pub use signal::{Detail, DetailWriter, FieldValue, Head, Names, Signal};
use spike::Buckets;
pub use spike::Deviation;
use temporal::Sequences;
use waiting::Waiting;
use window::{Added, Outcome, Window};

use crate::rule::{CorrelationRule, Operator};
use crate::time::Timestamp;
use crate::watermark::Lane;

/// Groups one rule keeps at most in a lane; the one with the oldest last signal is evicted and counted.
pub const GROUPS_MAX: usize = 1 << 20;
/// Signals of one rule that wait in a lane at most; of those furthest in the future one is evicted and counted.
pub const WAITING_MAX: usize = 1 << 21;
/// Groups that all rules of a plan together keep at most in a lane: each has an equal share, so that none takes another's.
pub const GROUPS_IN_ALL: usize = 1 << 22;
/// Signals of all rules of a plan together that wait in a lane at most, shared alike.
pub const WAITING_IN_ALL: usize = 1 << 22;
/// Events a finding cites at most.
pub const CITED_MAX: usize = 64;

/// Why a rule fired.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A number over the window came to lie within the bounds.
    Aggregate {
        /// The number, as people write it.
        value: String,
        /// Matches, or distinct values of a distinct count, in the window.
        count: u64,
    },
    /// A clause came true.
    Temporal {
        /// Its number.
        clause: u16,
    },
    /// A value that its group did not have.
    New {
        /// Matches the group had had before.
        events: u64,
        /// Since when.
        since: Timestamp,
    },
    /// A value that makes up little.
    Rare {
        /// Matches with the value, this one included.
        own: u64,
        /// Matches of the group.
        all: u64,
    },
    /// A spike, while it grows.
    Spike(Deviation),
    /// A drop, at the end of its bucket.
    Drop(Deviation),
    /// What was missing has come after all: the finding with this anchor is resolved by the last of the signals.
    Resolved(Box<Signal>),
}

/// What fired.
#[derive(Clone, Debug)]
pub struct Fired {
    /// The group, see [`Fired::key`].
    key: Box<str>,
    /// The finding's time: see the table of anchors in [`crate::finding`].
    pub time: Timestamp,
    /// The signals it rests on, in order. At most [`CITED_MAX`], the latest.
    pub signals: Vec<Signal>,
    /// The signal it hangs on; a drop has none.
    pub anchor: Option<Signal>,
    /// Why.
    pub what: What,
}

impl Fired {
    /// The values of the group-by fields, in their order.
    #[must_use]
    pub fn key(&self) -> Vec<String> {
        key_values(&self.key)
    }
}

/// What a rule may know when time moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Everything up to here has been seen.
    pub watermark: Timestamp,
    /// Record time.
    pub now: Timestamp,
    /// A source that would have shown what must not happen is silent.
    pub blind: bool,
}

/// Counts of one rule in one lane. They start with the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Signals that came after the watermark had passed their time.
    pub late: u64,
    /// What was dropped because a bound was reached.
    pub evicted: u64,
}

/// How much one rule holds in one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Groups.
    pub groups: usize,
    /// Signals that wait for the watermark.
    pub waiting: usize,
    /// Clauses that wait for what must not happen.
    pub obligations: usize,
    /// Of those, how many are parked because a source is silent.
    pub blind: usize,
    /// Groups that have not seen enough to find anything.
    pub learning: usize,
    /// When the last of them will have been watched for as long as the rule asks, as far as that is a matter of time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_until: Option<Timestamp>,
}

/// The state of one correlation rule in one lane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Correlation {
    waiting: Waiting,
    passed: Option<Timestamp>,
    body: Body,
    #[serde(skip)]
    scratch: String,
    #[serde(skip)]
    counts: Counts,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
enum Body {
    /// Nothing has come yet.
    #[default]
    Empty,
    Aggregate(Groups<Window>),
    Temporal(Groups<Sequences>, Obligations),
    New(Groups<Seen>),
    Rare(Groups<Shares>),
    Spike(Groups<Buckets>, std::collections::BTreeSet<(i64, Box<str>)>),
}

impl Body {
    fn of(rule: &CorrelationRule) -> Self {
        match rule.operator {
            Operator::Aggregate { .. } => Self::Aggregate(Groups::default()),
            Operator::Temporal { .. } => Self::Temporal(Groups::default(), Obligations::default()),
            Operator::New { .. } => Self::New(Groups::default()),
            Operator::Rare { .. } => Self::Rare(Groups::default()),
            Operator::Spike { .. } => Self::Spike(Groups::default(), std::collections::BTreeSet::new()),
        }
    }
}

/// Makes room for one more group if the bound is reached; under another plan it may have become less.
fn make_room<T: Default>(groups: &mut Groups<T>, most: usize, evicted: &mut u64) {
    while groups.len() > most
        && let Some((slot, _)) = groups.oldest()
    {
        groups.remove(slot);
        *evicted += 1;
    }
}

/// Lets go of groups last touched before `limit`.
fn expire<T: Default>(groups: &mut Groups<T>, limit: Timestamp) {
    while let Some((slot, _)) = groups.oldest().filter(|(_, last)| *last < limit) {
        groups.remove(slot);
    }
}

impl Correlation {
    /// Takes in a signal at record time `now`; a rule that fires early evaluates it at once.
    pub fn admit(&mut self, rule: &CorrelationRule, shape: &Shape, signal: Signal, now: Timestamp) -> Vec<Fired> {
        let mut fired = Vec::new();
        if shape.early && signal.time <= now {
            self.feed(rule, shape, &signal, false, false, &mut fired);
            return fired;
        }
        if !shape.early && self.passed.is_some_and(|passed| signal.time <= passed) {
            self.counts.late += 1;
            if shape.is_counter(signal.member) {
                self.feed(rule, shape, &signal, true, false, &mut fired);
            }
            return fired;
        }
        self.waiting.push(signal);
        if self.waiting.len() > shape.waiting_max {
            self.waiting.drop_last();
            self.counts.evicted += 1;
        }
        fired
    }

    /// Takes in history without finding anything: what a learning rule learns from.
    pub fn teach(&mut self, rule: &CorrelationRule, shape: &Shape, signal: &Signal) {
        if matches!(self.body, Body::Empty) {
            self.body = Body::of(rule);
        }
        let mut key = std::mem::take(&mut self.scratch);
        if let Some(value) = shape.value(signal, &mut key)
            && shape.key(signal, &mut key)
        {
            let evicted = &mut self.counts.evicted;
            match (&mut self.body, &rule.operator) {
                (Body::New(groups), Operator::New { learn, .. }) => {
                    let (slot, last) = groups.touch(&key, signal.time);
                    if let (Some(seen), Added::Value(value)) = (groups.get_mut(slot), value) {
                        seen.add(rule, learn, last, (value, signal.time), evicted);
                    }
                    make_room(groups, shape.groups_max, evicted);
                }
                (Body::Rare(groups), Operator::Rare { bounds, min, .. }) => {
                    let (slot, _) = groups.touch(&key, signal.time);
                    if let (Some(shares), Added::Value(value)) = (groups.get_mut(slot), value) {
                        shares.add(rule, (bounds, *min), value, signal.time, evicted);
                    }
                    make_room(groups, shape.groups_max, evicted);
                }
                (Body::Spike(groups, _), Operator::Spike { .. }) => {
                    let (slot, _) = groups.touch(&key, signal.time);
                    let value = if let Added::Value(value) = value { Some(value) } else { None };
                    if let (Some(buckets), Some(spike)) = (groups.get_mut(slot), shape.spike) {
                        buckets.add(&spike, signal.time, value, None, evicted);
                    }
                    make_room(groups, shape.groups_max, evicted);
                }
                _ => {}
            }
        }
        self.scratch = key;
    }

    /// Whether [`Correlation::advance`] would change anything.
    #[must_use]
    pub fn is_ready(&self, rule: &CorrelationRule, shape: &Shape, moment: Moment) -> bool {
        if self.waiting.is_ready(shape.until(moment)) {
            return true;
        }
        let limit = shape.kept(rule).map(|kept| moment.watermark.minus(kept));
        let old = |oldest: Option<(u32, Timestamp)>| limit.zip(oldest).is_some_and(|(limit, (_, last))| last < limit);
        match &self.body {
            Body::Empty => false,
            Body::Aggregate(groups) => old(groups.oldest()),
            Body::New(groups) => old(groups.oldest()),
            Body::Rare(groups) => old(groups.oldest()),
            Body::Temporal(groups, obligations) => {
                old(groups.oldest())
                    || obligations.next().is_some_and(|due| due <= moment.watermark)
                    || obligations.sees(moment.blind)
            }
            Body::Spike(groups, ends) => {
                let end = |(bucket, _): &(i64, Box<str>)| {
                    shape.spike.is_some_and(|spike| spike.end(*bucket).as_micros() - 1 <= moment.watermark.as_micros())
                };
                old(groups.oldest()) || ends.first().is_some_and(end)
            }
        }
    }

    /// Feeds every signal whose time the watermark has passed, decides what was due, and lets go of groups that can no
    /// longer matter.
    pub fn advance(&mut self, rule: &CorrelationRule, shape: &Shape, moment: Moment, lane: Lane) -> Vec<Fired> {
        let mut fired = Vec::new();
        if let Body::Temporal(_, obligations) = &mut self.body {
            obligations.look(moment.blind, moment.now, shape.settle);
        }
        let until = shape.until(moment);
        for signal in self.waiting.take(until) {
            self.decide(
                rule,
                shape,
                Timestamp::from_micros(signal.time.as_micros().saturating_sub(1)),
                moment.blind,
                &mut fired,
            );
            self.feed(rule, shape, &signal, false, moment.blind, &mut fired);
        }
        self.decide(rule, shape, moment.watermark, moment.blind, &mut fired);
        self.passed = self.passed.max(Some(moment.watermark));
        if let Some(limit) = shape.kept(rule).map(|kept| moment.watermark.minus(kept)) {
            match &mut self.body {
                Body::Empty => {}
                Body::Aggregate(groups) => expire(groups, limit),
                Body::Temporal(groups, _) => expire(groups, limit),
                Body::New(groups) => expire(groups, limit),
                Body::Rare(groups) => expire(groups, limit),
                Body::Spike(groups, _) => expire(groups, limit),
            }
        }
        if lane == Lane::Backfill && moment.watermark == Timestamp::MAX {
            // The backfill is over. The next one is another history.
            *self = Self { counts: self.counts, ..Self::default() };
        }
        fired
    }

    /// Decides what is due at or before `until`.
    fn decide(&mut self, rule: &CorrelationRule, shape: &Shape, until: Timestamp, blind: bool, fired: &mut Vec<Fired>) {
        match &mut self.body {
            Body::Temporal(groups, obligations) => {
                let clauses = shape.clauses(rule);
                let parks = |obligation: &Obligation| {
                    blind
                        && clauses
                            .get(usize::from(obligation.clause))
                            .is_some_and(|clause| !temporal::seeks_silence(clause))
                };
                while let Some((due, obligation)) = obligations.take_due(until, parks) {
                    let Obligation { key, clause, used } = obligation;
                    if let Some(sequences) = groups.find(&key).and_then(|slot| groups.get_mut(slot)) {
                        sequences.consume(&used);
                    }
                    clauses::fire(rule, shape, obligations, &key, (clause, due.0), used, fired);
                }
            }
            Body::Spike(groups, ends) => {
                let Some(spike) = shape.spike else { return };
                // A bucket ends before what happens at its end.
                while let Some((bucket, key)) =
                    ends.first().filter(|(bucket, _)| spike.end(*bucket).as_micros() - 1 <= until.as_micros()).cloned()
                {
                    ends.pop_first();
                    let Some(buckets) = groups.find(&key).and_then(|slot| groups.get_mut(slot)) else { continue };
                    let found = buckets.end(&spike, bucket);
                    if let Some(found) = found {
                        let signals = buckets.cited();
                        let time = spike.end(bucket);
                        fired.push(Fired { key: key.clone(), time, signals, anchor: None, what: What::Drop(found) });
                    }
                    if let Some(next) = buckets.next {
                        ends.insert((next, key));
                    }
                }
            }
            Body::Empty | Body::Aggregate(_) | Body::New(_) | Body::Rare(_) => {}
        }
    }

    fn feed(
        &mut self,
        rule: &CorrelationRule,
        shape: &Shape,
        signal: &Signal,
        late: bool,
        blind: bool,
        fired: &mut Vec<Fired>,
    ) {
        if matches!(self.body, Body::Empty) {
            self.body = Body::of(rule);
        }
        let mut key = std::mem::take(&mut self.scratch);
        if let Some(added) = shape.value(signal, &mut key)
            && shape.key(signal, &mut key)
        {
            self.feed_group(rule, shape, &key, signal, added, (late, blind), fired);
        }
        self.scratch = key;
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one call site; a struct for it would be built and taken apart at once"
    )]
    fn feed_group(
        &mut self,
        rule: &CorrelationRule,
        shape: &Shape,
        key: &str,
        signal: &Signal,
        added: Added,
        (late, blind): (bool, bool),
        fired: &mut Vec<Fired>,
    ) {
        let Counts { late: lates, evicted } = &mut self.counts;
        let one = |what: What, signals: Vec<Signal>| Fired {
            key: key.into(),
            time: signal.time,
            signals,
            anchor: Some(signal.clone()),
            what,
        };
        match (&mut self.body, &rule.operator) {
            (Body::Aggregate(groups), _) => {
                let (slot, last) = groups.touch(key, signal.time);
                let Some(window) = groups.get_mut(slot) else { return };
                match window.add(rule, (shape.countable, !shape.early), last, signal, added, evicted) {
                    Outcome::Counted => {}
                    Outcome::Late => *lates += 1,
                    Outcome::Fired { value, count } => {
                        fired.push(one(What::Aggregate { value, count }, window.cited()));
                    }
                }
                make_room(groups, shape.groups_max, evicted);
            }
            (Body::Temporal(groups, obligations), Operator::Temporal { ordered, clauses }) => {
                let ordered = *ordered;
                if shape.is_counter(signal.member) {
                    obligations.cancel(key, |obligation| {
                        let clause = clauses.get(usize::from(obligation.clause));
                        clause
                            .zip(obligation.used.last())
                            .is_some_and(|(clause, end)| temporal::contradicts(rule, ordered, clause, end, signal))
                    });
                }
                if shape.resolve == Some(signal.member) {
                    for anchor in obligations.resolve(key) {
                        fired.push(one(What::Resolved(Box::new(anchor.clone())), vec![anchor, signal.clone()]));
                    }
                }
                let (slot, last) = groups.touch(key, signal.time);
                let Some(sequences) = groups.get_mut(slot) else { return };
                let only_absent = shape.is_only_absent(signal.member);
                let entered = sequences.enter(rule, only_absent, last, signal, evicted);
                if !entered {
                    *lates += u64::from(!late);
                } else if !late && !only_absent {
                    let ends = if shape.early { sequences.ends(rule, signal) } else { vec![signal.clone()] };
                    for end in ends {
                        clauses::complete(rule, shape, (key, &end), sequences, obligations, blind, fired, evicted);
                    }
                }
                make_room(groups, shape.groups_max, evicted);
            }
            (Body::New(groups), Operator::New { learn, .. }) => {
                let (slot, last) = groups.touch(key, signal.time);
                let (Some(seen), Added::Value(value)) = (groups.get_mut(slot), added) else { return };
                let (events, since) = (seen.events, seen.first);
                if seen.add(rule, learn, last, (value, signal.time), evicted) {
                    fired.push(one(What::New { events, since }, vec![signal.clone()]));
                }
                make_room(groups, shape.groups_max, evicted);
            }
            (Body::Rare(groups), Operator::Rare { bounds, min, .. }) => {
                let (slot, _) = groups.touch(key, signal.time);
                let (Some(shares), Added::Value(value)) = (groups.get_mut(slot), added) else { return };
                if let Some((own, all)) = shares.add(rule, (bounds, *min), value, signal.time, evicted) {
                    fired.push(one(What::Rare { own, all }, vec![signal.clone()]));
                }
                make_room(groups, shape.groups_max, evicted);
            }
            (Body::Spike(groups, ends), Operator::Spike { .. }) => {
                let (slot, _) = groups.touch(key, signal.time);
                let (Some(buckets), Some(spike)) = (groups.get_mut(slot), shape.spike) else { return };
                let value = if let Added::Value(value) = added { Some(value) } else { None };
                if let Some(found) = buckets.add(&spike, signal.time, value, Some(signal), evicted) {
                    fired.push(one(What::Spike(found), buckets.cited()));
                }
                if spike.at_end() && buckets.next.is_none() {
                    let bucket = spike.bucket(signal.time);
                    buckets.next = Some(bucket);
                    ends.insert((bucket, key.into()));
                }
                make_room(groups, shape.groups_max, evicted);
            }
            _ => {}
        }
    }

    /// How much is held. Walks all groups of a learning rule.
    #[must_use]
    pub fn size(&self, rule: &CorrelationRule) -> Size {
        let mut size = Size { waiting: self.waiting.len(), ..Size::default() };
        let now = self.passed.unwrap_or(Timestamp::MIN);
        match (&self.body, &rule.operator) {
            (Body::Aggregate(groups), _) => size.groups = groups.len(),
            (Body::Temporal(groups, obligations), _) => {
                size.groups = groups.len();
                (size.obligations, size.blind) = obligations.len();
            }
            (Body::New(groups), Operator::New { learn, .. }) => {
                size.groups = groups.len();
                for (_, _, seen) in groups.iter().filter(|(_, last, seen)| !seen.is_warm(learn, now.max(*last))) {
                    size.learning += 1;
                    size.learning_until = size.learning_until.max(seen.watched_until(learn));
                }
            }
            (Body::Rare(groups), Operator::Rare { min, .. }) => {
                size.groups = groups.len();
                size.learning = groups.iter().filter(|(_, _, shares)| shares.total() < *min).count();
            }
            (Body::Spike(groups, _), Operator::Spike { learn_buckets, .. }) => {
                size.groups = groups.len();
                size.learning = groups.iter().filter(|(_, _, buckets)| (buckets.len() as u64) < *learn_buckets).count();
            }
            _ => {}
        }
        size
    }

    /// Counts since the process started.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Begins counting anew, as after restoring.
    pub fn reset_counts(&mut self) {
        self.counts = Counts::default();
    }
}

#[cfg(test)]
mod tests;
