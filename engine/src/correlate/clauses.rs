//! When a clause of a temporal rule is complete, and what it becomes then: found, or an obligation.

use super::absence::{Obligation, Obligations};
use super::temporal::{self, Sequences};
use super::{CITED_MAX, Fired, Shape, Signal, What};
use crate::rule::{CorrelationRule, Operator, TemporalClause};
use crate::time::Timestamp;

/// Looks which clauses `end` completes: the first without anything to wait for is found, others become obligations.
#[allow(clippy::too_many_arguments, reason = "one call site; the parts are borrowed from different places")]
pub(super) fn complete(
    rule: &CorrelationRule,
    shape: &Shape,
    (key, end): (&str, &Signal),
    sequences: &mut Sequences,
    obligations: &mut Obligations,
    blind: bool,
    fired: &mut Vec<Fired>,
    evicted: &mut u64,
) {
    let Operator::Temporal { ordered, clauses } = &rule.operator else { return };
    for (number, clause) in (0..).zip(clauses) {
        if !clause.present.contains(&end.member) {
            continue;
        }
        let Some(used) = sequences.complete(rule, *ordered, clause, end) else { continue };
        if temporal::before(clause, *ordered).any(|member| sequences.precedes(rule, member, end)) {
            continue;
        }
        let mut later = temporal::after(clause, *ordered).peekable();
        let waits = later.peek().is_some();
        if later.any(|member| sequences.follows(rule, member, end)) {
            continue;
        }
        let parks = blind && !clause.absent.is_empty() && !temporal::seeks_silence(clause);
        if waits || parks {
            let at = if waits { end.time.plus(rule.timespan) } else { end.time };
            *evicted += obligations.add(at, Obligation { key: key.into(), clause: number, used });
            continue;
        }
        sequences.consume(&used);
        fire(rule, shape, obligations, key, (number, end.time), used, fired);
        return;
    }
}

/// Reports a clause; obligations that rest on the same matches are void.
pub(super) fn fire(
    rule: &CorrelationRule,
    shape: &Shape,
    obligations: &mut Obligations,
    key: &str,
    (clause, time): (u16, Timestamp),
    mut used: Vec<Signal>,
    fired: &mut Vec<Fired>,
) {
    obligations
        .cancel(key, |other| other.used.iter().any(|signal| used.iter().any(|own| own.order() == signal.order())));
    let Some(anchor) = used.last().cloned() else { return };
    let clauses: &[TemporalClause] = shape.clauses(rule);
    if shape.resolve.is_some() && clauses.get(usize::from(clause)).is_some_and(|clause| !clause.absent.is_empty()) {
        obligations.remember(key, anchor.clone(), time);
    }
    used.drain(..used.len().saturating_sub(CITED_MAX));
    fired.push(Fired { key: key.into(), time, signals: used, anchor: Some(anchor), what: What::Temporal { clause } });
}
