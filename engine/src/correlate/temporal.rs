//! Matches of several members inside a window: `temporal` and `temporal_ordered`.
//!
//! A group keeps the matches of each member in order. A match completes a clause if the latest possible matches of the
//! other members fit into the window that ends at it: each is found by search, not by walking the window. What a finding
//! used is taken out, so that each occurrence is one finding.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::signal::Signal;
use crate::event::EventId;
use crate::redaction::Forgotten;
use crate::rule::{CorrelationRule, TemporalClause};
use crate::time::{Timestamp, micros};

/// Matches of one member a group keeps at most; the oldest are evicted and counted.
pub(super) const MEMBER_SIGNALS_MAX: usize = 1_024;

/// One group: the matches of each member, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sequences {
    members: Vec<VecDeque<Signal>>,
    /// Time of the first match of the session.
    first: Timestamp,
}

type Order = (Timestamp, EventId, u16);

/// Members that must not match, by the side of the last present one.
pub(super) fn before(clause: &TemporalClause, ordered: bool) -> impl Iterator<Item = u16> {
    let last = clause.present.last().copied().unwrap_or(0);
    clause.absent.iter().copied().filter(move |absent| !ordered || *absent < last)
}

/// See [`before`].
pub(super) fn after(clause: &TemporalClause, ordered: bool) -> impl Iterator<Item = u16> {
    let last = clause.present.last().copied().unwrap_or(0);
    clause.absent.iter().copied().filter(move |absent| !ordered || *absent >= last)
}

/// Whether the silence of a source is what the clause looks for: it misses a member that it also wants.
pub(super) fn seeks_silence(clause: &TemporalClause) -> bool {
    clause.absent.iter().any(|absent| clause.present.contains(absent))
}

impl Sequences {
    /// Takes in a match and forgets what its window has passed by; false if it is older than that window itself.
    pub(super) fn enter(
        &mut self,
        rule: &CorrelationRule,
        only_absent: bool,
        last: Option<Timestamp>,
        signal: &Signal,
        evicted: &mut u64,
    ) -> bool {
        self.members.resize_with(rule.members.len(), VecDeque::new);
        let newest = last.map_or(signal.time, |last| last.max(signal.time));
        let mut limit = newest.minus(rule.timespan);
        if let Some(gap) = rule.session_gap {
            let over = last.is_none_or(|last| signal.time.micros_since(last) > micros(gap))
                || signal.time.micros_since(self.first) > micros(rule.timespan);
            if over {
                self.first = signal.time;
            }
            limit = limit.max(self.first);
        }
        for list in &mut self.members {
            while list.front().is_some_and(|first| first.time < limit) {
                list.pop_front();
            }
        }
        if signal.time < limit {
            return false;
        }
        let Some(list) = self.members.get_mut(usize::from(signal.member)) else { return false };
        let at = list.partition_point(|other| other.order() <= signal.order());
        list.insert(at, signal.clone());
        // Of what must be missing, the latest says all.
        let most = if only_absent { 1 } else { MEMBER_SIGNALS_MAX };
        if list.len() > most {
            list.pop_front();
            *evicted += u64::from(!only_absent);
        }
        true
    }

    /// The matches that complete a clause with `end` as the last of them, in order. `end` must be in the group.
    pub(super) fn complete(
        &self,
        rule: &CorrelationRule,
        ordered: bool,
        clause: &TemporalClause,
        end: &Signal,
    ) -> Option<Vec<Signal>> {
        let limit = end.time.minus(rule.timespan);
        let mut used = vec![end.clone()];
        if ordered {
            let (last, earlier) = clause.present.split_last()?;
            if *last != end.member {
                return None;
            }
            for member in earlier.iter().rev() {
                let next = used.last()?;
                let list = self.members.get(usize::from(*member))?;
                let place = list.partition_point(|other| other.order() < next.order());
                // One event that matches two members does not follow itself.
                let found = list.range(..place).rev().find(|other| other.event != next.event)?;
                if found.time < limit {
                    return None;
                }
                used.push(found.clone());
            }
            used.reverse();
        } else {
            for member in clause.present.iter().filter(|member| **member != end.member) {
                let list = self.members.get(usize::from(*member))?;
                let place = list.partition_point(|other| other.order() < end.order());
                let found = list.get(place.checked_sub(1)?)?;
                if found.time < limit {
                    return None;
                }
                used.push(found.clone());
            }
            used.sort_by_key(Signal::order);
        }
        Some(used)
    }

    /// What clauses may be completed at after `signal` came: itself, and, if it came late, what followed it.
    pub(super) fn ends(&self, rule: &CorrelationRule, signal: &Signal) -> Vec<Signal> {
        let until = signal.time.plus(rule.timespan);
        let mut ends = vec![signal.clone()];
        for list in &self.members {
            let place = list.partition_point(|other| other.order() <= signal.order());
            ends.extend(list.range(place..).take_while(|other| other.time <= until).cloned());
        }
        ends.sort_by_key(Signal::order);
        ends
    }

    /// Whether a member matched in the window up to `end`.
    pub(super) fn precedes(&self, rule: &CorrelationRule, member: u16, end: &Signal) -> bool {
        let Some(list) = self.members.get(usize::from(member)) else { return false };
        let place = list.partition_point(|other| other.order() < end.order());
        let found = place.checked_sub(1).and_then(|at| list.get(at));
        found.is_some_and(|found| found.time >= end.time.minus(rule.timespan))
    }

    /// Whether a member matched after `end` and inside the window that follows it.
    pub(super) fn follows(&self, rule: &CorrelationRule, member: u16, end: &Signal) -> bool {
        let Some(list) = self.members.get(usize::from(member)) else { return false };
        let place = list.partition_point(|other| other.order() <= end.order());
        list.get(place).is_some_and(|found| found.time <= end.time.plus(rule.timespan))
    }

    /// Forgets matches that are of records; true if nothing is left.
    pub(super) fn forget(&mut self, of: &Forgotten) -> bool {
        self.members.iter_mut().for_each(|list| list.retain(|signal| !of.has(signal.event)));
        self.members.iter().all(VecDeque::is_empty)
    }

    /// Takes out what a finding used.
    pub(super) fn consume(&mut self, used: &[Signal]) {
        for signal in used {
            if let Some(list) = self.members.get_mut(usize::from(signal.member)) {
                let at = list.partition_point(|other| other.order() < signal.order());
                if list.get(at).is_some_and(|other| other.order() == signal.order()) {
                    list.remove(at);
                }
            }
        }
    }
}

/// Whether a match of an absent member counts against a clause that `end` completed.
pub(super) fn contradicts(
    rule: &CorrelationRule,
    ordered: bool,
    clause: &TemporalClause,
    end: &Signal,
    signal: &Signal,
) -> bool {
    let (at, order): (Timestamp, Order) = (end.time, end.order());
    let earlier = signal.order() < order && signal.time >= at.minus(rule.timespan);
    let later = signal.order() > order && signal.time <= at.plus(rule.timespan);
    (earlier && before(clause, ordered).any(|member| member == signal.member))
        || (later && after(clause, ordered).any(|member| member == signal.member))
}
