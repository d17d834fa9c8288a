//! What evaluating a rule needs to know, worked out once: which numbers of fields make its keys and values, how much it keeps.

use std::time::Duration;

use super::key::{self, ValueId};
use super::numbers::Decimal;
use super::signal::{Names, Signal};
use super::spike::Settings;
use super::window::{Added, Countable};
use super::{GROUPS_IN_ALL, GROUPS_MAX, Moment, WAITING_IN_ALL, WAITING_MAX};
use crate::rule::{Comparison, CorrelationRule, Metric, Operator, TemporalClause};
use crate::time::Timestamp;

/// A rule's fields by number, and what follows from its settings.
#[derive(Clone, Debug)]
pub struct Shape {
    /// By member: the fields of the group key.
    keys: Vec<Vec<u32>>,
    /// By member: the fields whose values are judged.
    values: Vec<Vec<u32>>,
    counts: Counted,
    /// By member: it must not match in some clause; it must match in none.
    absent: Vec<(bool, bool)>,
    pub(super) countable: Countable,
    pub(super) early: bool,
    pub(super) resolve: Option<u16>,
    pub(super) spike: Option<Settings>,
    pub(super) settle: Duration,
    /// Bounds, which tests make smaller.
    pub(super) groups_max: usize,
    pub(super) waiting_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Matches,
    Values,
    Numbers,
}

impl Shape {
    /// Works out a rule. `field` says what a name stands for in the events of a member; `resolve` is the number of the
    /// member that resolves findings; `settle` is how long sources must be heard again before what was parked is decided.
    pub fn new(
        rule: &CorrelationRule,
        names: &mut Names,
        field: impl Fn(u16, &str) -> String,
        resolve: Option<u16>,
        settle: Duration,
    ) -> Self {
        let (judged, counts) = judged(rule);
        let members = 0..u16::try_from(rule.members.len()).unwrap_or(u16::MAX);
        let mut numbers = |fields: &[String]| -> Vec<Vec<u32>> {
            let of = |member| fields.iter().map(|name| names.number(&field(member, name))).collect();
            members.clone().map(of).collect()
        };
        let keys = numbers(&rule.group_by);
        let values = numbers(judged);
        let clauses: &[TemporalClause] = match &rule.operator {
            Operator::Temporal { clauses, .. } => clauses,
            _ => &[],
        };
        let absent = members
            .map(|member| {
                let absent = clauses.iter().any(|clause| clause.absent.contains(&member));
                (absent, absent && !clauses.iter().any(|clause| clause.present.contains(&member)))
            })
            .collect();
        Self {
            keys,
            values,
            counts,
            absent,
            countable: match &rule.operator {
                Operator::Aggregate { bounds, .. } => Countable::of(bounds),
                _ => Countable::default(),
            },
            early: rule.early && may_be_early(rule),
            resolve,
            spike: Settings::of(rule),
            settle,
            groups_max: GROUPS_MAX,
            waiting_max: WAITING_MAX,
        }
    }

    /// Keeps to this rule's share of what so many rules may keep together.
    pub(crate) fn share_with(&mut self, rules: usize) {
        let share = |in_all: usize, own: usize| (in_all / rules.max(1)).clamp(1, own);
        self.groups_max = share(GROUPS_IN_ALL, self.groups_max);
        self.waiting_max = share(WAITING_IN_ALL, self.waiting_max);
    }

    /// Whether signals are evaluated on arrival.
    #[must_use]
    pub const fn is_early(&self) -> bool {
        self.early
    }

    /// Writes the group key of a signal; false if it lacks a field, and is not counted.
    pub(super) fn key(&self, signal: &Signal, to: &mut String) -> bool {
        self.keys.get(usize::from(signal.member)).is_some_and(|names| key::write(&signal.detail, names, to))
    }

    /// What a signal adds; `None` if it lacks a field or its field is no number, and it is not counted.
    pub(super) fn value(&self, signal: &Signal, scratch: &mut String) -> Option<Added> {
        let names = self.values.get(usize::from(signal.member))?;
        match self.counts {
            Counted::Matches => Some(Added::Match),
            Counted::Values => key::write(&signal.detail, names, scratch).then(|| Added::Value(ValueId::of(scratch))),
            Counted::Numbers => {
                names.first().and_then(|name| signal.detail.get(*name)).and_then(Decimal::of).map(Added::Number)
            }
        }
    }

    /// Whether a signal counts for the rule at all.
    #[must_use]
    pub fn counts(&self, signal: &Signal, scratch: &mut String) -> bool {
        self.value(signal, scratch).is_some() && self.key(signal, scratch)
    }

    /// Up to when signals are ready.
    pub(super) fn until(&self, moment: Moment) -> Timestamp {
        if self.early { moment.watermark.max(moment.now) } else { moment.watermark }
    }

    pub(super) fn is_counter(&self, member: u16) -> bool {
        self.absent.get(usize::from(member)).is_some_and(|(absent, _)| *absent)
            || self.resolve.is_some_and(|resolve| resolve == member)
    }

    pub(super) fn is_only_absent(&self, member: u16) -> bool {
        self.absent.get(usize::from(member)).is_some_and(|(_, only)| *only)
    }

    pub(super) fn clauses<'r>(&self, rule: &'r CorrelationRule) -> &'r [TemporalClause] {
        match &rule.operator {
            Operator::Temporal { clauses, .. } => clauses,
            _ => &[],
        }
    }

    /// How long after its last signal a group may still matter.
    pub(super) fn kept(&self, rule: &CorrelationRule) -> Option<Duration> {
        Some(match &rule.operator {
            Operator::Aggregate { .. } | Operator::Temporal { .. } => rule.session_gap.unwrap_or(rule.timespan),
            Operator::New { .. } => rule.timespan.saturating_mul(2),
            // Its timespan is kept in parts, the oldest of which leaves late.
            Operator::Rare { .. } => rule.timespan.saturating_add(rule.timespan / 32),
            Operator::Spike { .. } => self.spike?.kept(),
        })
    }
}

fn judged(rule: &CorrelationRule) -> (&[String], Counted) {
    match &rule.operator {
        Operator::Aggregate { metric, .. } => match metric {
            Metric::Events => (&[], Counted::Matches),
            Metric::Distinct(fields) => (fields, Counted::Values),
            Metric::Sum(field) | Metric::Average(field) | Metric::Percentile(field, _) => {
                (std::slice::from_ref(field), Counted::Numbers)
            }
        },
        Operator::Temporal { .. } => (&[], Counted::Matches),
        Operator::New { fields, .. } | Operator::Rare { fields, .. } => (fields, Counted::Values),
        Operator::Spike { field, .. } => match field {
            Some(field) => (std::slice::from_ref(field), Counted::Values),
            None => (&[], Counted::Matches),
        },
    }
}

/// Only what a further event can never undo may be found before the watermark.
fn may_be_early(rule: &CorrelationRule) -> bool {
    match &rule.operator {
        Operator::Aggregate { metric: Metric::Events | Metric::Distinct(_), bounds } => {
            bounds.0.iter().all(|(comparison, _)| matches!(comparison, Comparison::Gt | Comparison::Gte))
        }
        Operator::Temporal { clauses, .. } => clauses.iter().all(|clause| clause.absent.is_empty()),
        Operator::Aggregate { .. } | Operator::New { .. } | Operator::Rare { .. } | Operator::Spike { .. } => false,
    }
}

/// The names of fields a rule reads of its members: group key and values.
pub(crate) fn names_read(rule: &CorrelationRule) -> impl Iterator<Item = &str> {
    rule.group_by.iter().chain(judged(rule).0).map(String::as_str)
}
