//! Signals whose time the watermark has not passed.
//!
//! They are put down by the second they happened in and put in order only when their second is over: they come nearly in
//! order, so this costs little however many wait.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::signal::Signal;
use crate::time::Timestamp;

const SECOND_MICROS: i64 = 1_000_000;

/// Signals by the second of their time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Waiting {
    seconds: BTreeMap<i64, Vec<Signal>>,
    len: usize,
}

impl Waiting {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, signal: Signal) {
        self.seconds.entry(signal.time.as_micros().div_euclid(SECOND_MICROS)).or_default().push(signal);
        self.len += 1;
    }

    /// Whether something may be ready at `until`: only what is, after [`Waiting::take`].
    pub(super) fn is_ready(&self, until: Timestamp) -> bool {
        let Some((second, signals)) = self.seconds.first_key_value() else { return false };
        let until_second = until.as_micros().div_euclid(SECOND_MICROS);
        *second < until_second || (*second == until_second && signals.iter().any(|signal| signal.time <= until))
    }

    /// Takes out, in order, what happened up to `until`.
    pub(super) fn take(&mut self, until: Timestamp) -> Vec<Signal> {
        let second = until.as_micros().div_euclid(SECOND_MICROS);
        let mut ready = Vec::new();
        while let Some(entry) = self.seconds.first_entry().filter(|entry| *entry.key() < second) {
            let mut signals = entry.remove();
            signals.sort_by_key(Signal::order);
            ready.append(&mut signals);
        }
        if let Some(signals) = self.seconds.get_mut(&second) {
            let (mut now, later): (Vec<_>, Vec<_>) =
                std::mem::take(signals).into_iter().partition(|signal| signal.time <= until);
            now.sort_by_key(Signal::order);
            ready.append(&mut now);
            if later.is_empty() {
                self.seconds.remove(&second);
            } else {
                *signals = later;
            }
        }
        self.len -= ready.len();
        ready
    }

    /// Drops those that `of` says.
    pub(super) fn forget(&mut self, of: impl Fn(&Signal) -> bool) {
        self.seconds.retain(|_, signals| {
            signals.retain(|signal| !of(signal));
            !signals.is_empty()
        });
        self.len = self.seconds.values().map(Vec::len).sum();
    }

    /// Drops one of the second furthest in the future.
    pub(super) fn drop_last(&mut self) {
        if let Some(mut entry) = self.seconds.last_entry() {
            self.len -= usize::from(entry.get_mut().pop().is_some());
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}
