//! What was done to correlations, written down as it is done: a delta of the state is the list of it, and restoring does
//! it again.

use serde::{Deserialize, Serialize};

use super::signal::Detail;
use super::{Moment, Signal};
use crate::event::EventId;
use crate::time::Timestamp;
use crate::watermark::Lane;

/// A correlation's state is kept per rule and digest: a rule that changes what it decides starts anew.
pub(crate) type CorrelationName = (String, String);

/// One thing that was done. Rules are numbers in [`Journal::rules`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Op {
    /// Record time from here on.
    Now(Timestamp),
    /// A signal was shown to correlations, with its number as a member of each.
    Admit { lane: Lane, time: Timestamp, event: EventId, detail: Detail, to: Vec<(u32, u16)> },
    /// Time moved on.
    Advance { rule: u32, lane: Lane, moment: Moment },
}

/// As [`Op::Admit`], borrowed.
#[derive(Serialize)]
enum Written<'a> {
    #[allow(dead_code, reason = "keeps the numbers of the variants equal to those of `Op`")]
    Now(Timestamp),
    Admit {
        lane: Lane,
        time: Timestamp,
        event: EventId,
        detail: &'a Detail,
        to: &'a [(u32, u16)],
    },
}

/// What was done since it was last taken.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// The rules that were touched.
    pub(crate) rules: Vec<CorrelationName>,
    ops: Bytes,
    #[serde(skip)]
    numbers: Vec<u32>,
    #[serde(skip)]
    now: Option<Timestamp>,
    /// Nothing is written: nobody will restore.
    #[serde(skip)]
    off: bool,
    /// Why something could not be written.
    #[serde(skip)]
    failed: Option<postcard::Error>,
}

/// Bytes that are written as such.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

impl Journal {
    /// Writes nothing from now on.
    pub(crate) fn turn_off(&mut self) {
        self.off = true;
    }

    pub(crate) const fn is_off(&self) -> bool {
        self.off
    }

    /// The number of a correlation in this journal.
    pub(crate) fn number(&mut self, correlation: usize, name: &CorrelationName) -> u32 {
        if self.numbers.len() <= correlation {
            self.numbers.resize(correlation + 1, u32::MAX);
        }
        let next = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
        match self.numbers.get_mut(correlation) {
            Some(number) if *number == u32::MAX => {
                *number = next;
                self.rules.push(name.clone());
                next
            }
            number => number.copied().unwrap_or(next),
        }
    }

    pub(crate) fn admit(&mut self, now: Timestamp, lane: Lane, signal: &Signal, to: &[(u32, u16)]) {
        if self.off {
            return;
        }
        if self.now != Some(now) {
            self.now = Some(now);
            self.write(&Op::Now(now));
        }
        let Signal { time, event, detail, .. } = signal;
        self.write(&Written::Admit { lane, time: *time, event: *event, detail, to });
    }

    pub(crate) fn advance(&mut self, rule: u32, lane: Lane, moment: Moment) {
        if !self.off {
            self.write(&Op::Advance { rule, lane, moment });
        }
    }

    fn write(&mut self, op: &impl Serialize) {
        match postcard::to_extend(op, std::mem::take(&mut self.ops.0)) {
            Ok(bytes) => self.ops.0 = bytes,
            Err(error) => self.failed = Some(error),
        }
    }

    /// Takes what was written.
    pub(crate) fn take(&mut self) -> Result<Self, postcard::Error> {
        let off = self.off;
        let taken = std::mem::replace(self, Self { off, ..Self::default() });
        taken.failed.clone().map_or(Ok(taken), Err)
    }

    /// What was written, in order.
    pub(crate) fn ops(&self) -> impl Iterator<Item = Result<Op, postcard::Error>> {
        let mut rest = self.ops.0.as_slice();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            match postcard::take_from_bytes(rest) {
                Ok((op, more)) => {
                    rest = more;
                    Some(Ok(op))
                }
                Err(error) => {
                    rest = &[];
                    Some(Err(error))
                }
            }
        })
    }
}
