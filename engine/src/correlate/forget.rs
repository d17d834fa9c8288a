//! What a correlation forgets when records are redacted.

use super::groups::Groups;
use super::window::Added;
use super::{Body, Correlation, Shape, Signal};
use crate::redaction::Forgotten;
use crate::time::Timestamp;

/// Lets go of the groups of which `empties` says that nothing is left.
fn forget_groups<T: Default>(groups: &mut Groups<T>, mut empties: impl FnMut(&str, Timestamp, &mut T) -> bool) {
    let mut next = groups.oldest().map(|(slot, _)| slot);
    while let Some(slot) = next {
        next = groups.after(slot);
        if groups.visit(slot, &mut empties) {
            groups.remove(slot);
        }
    }
}

impl Correlation {
    /// Forgets what it holds of records. Nothing is found by that.
    pub(crate) fn forget(&mut self, shape: &Shape, of: &Forgotten) {
        self.waiting.forget(|signal| of.has(signal.event));
        let is_moment = |time: Timestamp| of.moments.contains(&time);
        // A group of one event that happened when an event of the records did.
        let alone = |events: u64, last: Timestamp| events <= 1 && is_moment(last);
        match &mut self.body {
            Body::Empty => {}
            Body::Aggregate(groups) => forget_groups(groups, |_, _, window| window.forget(of)),
            Body::Temporal(groups, obligations) => {
                forget_groups(groups, |_, _, sequences| sequences.forget(of));
                obligations.forget(|signal| of.has(signal.event));
            }
            Body::New(groups) => {
                forget_groups(groups, |_, last, seen| {
                    seen.forget(is_moment);
                    alone(seen.events, last)
                });
            }
            Body::Rare(groups) => {
                forget_groups(groups, |_, last, shares| {
                    shares.forget(is_moment);
                    alone(shares.total(), last)
                });
            }
            Body::Spike(groups, ends) => {
                let mut scratch = String::new();
                forget_groups(groups, |key, last, buckets| {
                    let mut value = |signal: &Signal| match shape.value(signal, &mut scratch) {
                        Some(Added::Value(value)) => Some(value),
                        _ => None,
                    };
                    buckets.forget(of, &mut value);
                    let gone = alone(buckets.events(), last);
                    if gone {
                        ends.retain(|(_, other)| **other != *key);
                    }
                    gone
                });
            }
        }
    }
}
