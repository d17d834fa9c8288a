//! Objects that a store did not give when they were to be read. They are part of a cursor, so that none is forgotten: tried
//! again for about a day, then named as lost.

use std::collections::VecDeque;
use std::time::Duration;

use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};

use super::super::CollectError;

pub(super) const STREAM: &str = "aside";
/// Most objects that wait: beyond it nothing new is read.
const WAITING_MAX: usize = 1_000;
/// How often an object is asked for: half a minute after the first time, then after twice as long each time, up to an hour.
pub(super) const TRIES_MAX: u32 = 30;
const FIRST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Objects remembered that were given up.
const GIVEN_UP_MAX: usize = 200;

/// Objects that wait, and those that were given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Aside {
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    waiting: VecDeque<Waiting>,
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    given_up: VecDeque<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiting {
    key: String,
    tries: u32,
    after: Timestamp,
}

impl Aside {
    /// Keys that may be asked for again now.
    pub(super) fn due(&self, now: Timestamp) -> Vec<String> {
        let due = self.waiting.iter().filter(|waiting| waiting.after <= now);
        due.take(super::TOGETHER).map(|waiting| waiting.key.clone()).collect()
    }

    /// When the next may be asked for.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.waiting.iter().map(|waiting| waiting.after).min()
    }

    pub(super) fn is_waiting(&self, key: &str) -> bool {
        self.waiting.iter().any(|waiting| waiting.key == key)
    }

    pub(super) fn was_given_up(&self, key: &str) -> bool {
        self.given_up.iter().any(|given_up| given_up == key)
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() > WAITING_MAX
    }

    pub(super) fn full(&self, bucket: &str) -> CollectError {
        let problem = format!("{} objects wait to be read: may our credentials read them?", self.waiting.len());
        CollectError::Content { asked: bucket.to_owned(), problem }
    }

    /// It was read.
    pub(super) fn done(&mut self, key: &str) {
        self.waiting.retain(|waiting| waiting.key != key);
        self.given_up.retain(|given_up| given_up != key);
    }

    /// It was not given, once more. In words if it is given up.
    pub(super) fn again(&mut self, key: &str, now: Timestamp, error: &CollectError) -> Option<String> {
        let known = self.waiting.iter().position(|waiting| waiting.key == key);
        let tries = known.and_then(|at| self.waiting.remove(at)).map_or(0, |waiting| waiting.tries) + 1;
        if tries >= TRIES_MAX {
            self.give_up(key);
            return Some(format!("given up after it was asked for {tries} times: {error}"));
        }
        let wait = FIRST_WAIT.saturating_mul(1 << tries.saturating_sub(1).min(12)).min(LONGEST_WAIT);
        self.waiting.push_back(Waiting { key: key.to_owned(), tries, after: now.plus(wait) });
        None
    }

    /// It cannot be read.
    pub(super) fn give_up(&mut self, key: &str) {
        self.done(key);
        self.given_up.push_back(key.to_owned());
        if self.given_up.len() > GIVEN_UP_MAX {
            self.given_up.pop_front();
        }
    }
}
