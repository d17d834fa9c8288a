//! Numbers that senders give their events, and which of them never came.
//!
//! | numbering | stream | begins at | what it proves |
//! |---|---|---|---|
//! | CloudEvents `sequence` with `sequencetype` `Integer` (CloudEvents 1.0.1, "Sequence" extension) | the event's `source` | 1 | every event of that source is held |
//! | syslog `meta` parameter `sequenceId` (RFC 5424 §7.3.1) | the message's host | 1 | every message of that originator is held |
//! | Kafka offsets | topic and partition | 0 | skips are shown only: compaction, transactions and expiry skip offsets too, and what was never produced has none |
//!
//! No other source numbers what it sends: audit ids of GitLab, resource versions of Kubernetes, `evt.num` of Falco and the log index of Rekor
//! count what the sender does, of which we are sent a part; build and run numbers count builds, each of which is several events.
//!
//! Within one numbering the missing ranges depend on the set of numbers alone, in whatever order and however often they came. A numbering
//! that begins anew is told from events that are late by the events' own times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::commit::{Completeness, SourceWindow};
use crate::record::Envelope;
use crate::time::Timestamp;

/// Attribute of an envelope: the stream whose events are numbered.
pub const STREAM: &str = "sequence.stream";
/// Attribute of an envelope: the event's number in its stream, decimal.
pub const NUMBER: &str = "sequence.number";

/// Ranges remembered per stream; above, the oldest is given up and counted as lost.
pub const RANGES_MAX: usize = 256;
/// Streams remembered per source; events of further ones count as not numbered, and are counted.
pub const STREAMS_MAX: usize = 1_000;
/// How long a stream that says nothing, and a range that stays open, are remembered.
pub const REMEMBERED: Duration = Duration::from_secs(8 * 86_400);
/// How long after its end a window may still be judged by numbers that come.
pub const JUDGED_FOR: Duration = Duration::from_secs(86_400);

/// By how much the times of events of one numbering may contradict its order.
const CONCURRENT: Duration = Duration::from_secs(60);
/// The same of the very first events of a numbering.
const FIRST_CONCURRENT: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// Numbers that did not come, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// First of them.
    pub from: u64,
    /// Last of them.
    pub to: u64,
    /// When we received what came before them.
    pub after: Timestamp,
    /// When we received what came after them.
    pub before: Timestamp,
}

impl Missing {
    const fn count(&self) -> u64 {
        (self.to - self.from).saturating_add(1)
    }

    fn overlaps(&self, window: &SourceWindow) -> bool {
        self.after < window.end && self.before >= window.start
    }
}

/// The number of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered<'a> {
    /// The stream it is of.
    pub stream: &'a str,
    /// Its number.
    pub number: u64,
    /// Numbers may be skipped although nothing is missing.
    pub sparse: bool,
}

impl<'a> Numbered<'a> {
    /// The number that an envelope says its sender gave.
    #[must_use]
    pub fn of(envelope: &'a Envelope) -> Option<Self> {
        let attribute = |name: &str| envelope.attributes.get(name).map(String::as_str);
        Some(Self { stream: attribute(STREAM)?, number: attribute(NUMBER)?.parse().ok()?, sparse: false })
    }
}

/// The name of the stream and the offset of a record that came by Kafka.
#[must_use]
pub fn offset(envelope: &Envelope) -> Option<(String, u64)> {
    let attribute = |name: &str| envelope.attributes.get(name).map(String::as_str);
    let (topic, partition) = (attribute("kafka.topic")?, attribute("kafka.partition")?);
    Some((format!("kafka/{topic}/{partition}"), attribute("kafka.offset")?.parse().ok()?))
}

/// How a record came, as far as its number is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it happened, by the source's clock.
    pub happened: Option<Timestamp>,
    /// When we received it.
    pub received: Timestamp,
    /// It is history: it can fill a gap, and says nothing about where the numbering stands.
    pub history: bool,
    /// It repeats an earlier record.
    pub repeated: bool,
}

/// One numbering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// See [`Numbered::sparse`].
    pub sparse: bool,
    /// Lowest number that counts.
    pub first: u64,
    /// Highest number that came.
    pub last: u64,
    /// When the event with the highest number happened.
    last_time: Option<Timestamp>,
    /// When the first event of this numbering happened, if another came before it.
    began: Option<Timestamp>,
    /// When the first event of this numbering was received.
    pub since: Timestamp,
    /// When the highest number was received.
    pub heard: Timestamp,
    /// How often the numbering began anew.
    pub restarts: u64,
    /// Numbers between `first` and `last` that did not come, ascending.
    pub missing: Vec<Missing>,
    /// Those of numberings before this one.
    pub earlier: Vec<Missing>,
    /// Missing numbers that are no longer waited for.
    pub lost: u64,
    /// From when to when those were due.
    lost_within: Option<(Timestamp, Timestamp)>,
}

impl Stream {
    fn new(number: u64, sparse: bool, arrival: Arrival) -> Self {
        Self {
            sparse,
            first: number,
            last: number,
            last_time: arrival.happened,
            began: None,
            since: arrival.received,
            heard: arrival.received,
            restarts: 0,
            missing: Vec::new(),
            earlier: Vec::new(),
            lost: 0,
            lost_within: None,
        }
    }

    /// Numbers that are waited for, of this numbering and those before.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.missing.iter().chain(&self.earlier).map(Missing::count).fold(0, u64::saturating_add)
    }

    /// The ranges that are waited for, those of earlier numberings first.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.earlier.iter().chain(&self.missing).map(|range| (range.from, range.to))
    }

    fn has_come(&self, number: u64) -> bool {
        (self.first..=self.last).contains(&number) && place(&self.missing, number).is_none()
    }

    /// Whether a number that is not above all others begins the numbering anew.
    fn begins_anew(&self, number: u64, arrival: Arrival) -> bool {
        if self.sparse {
            // A topic of that name was made again. Several items of one message have one offset.
            return number == 0 && self.last > 0 && self.has_come(0);
        }
        match (arrival.happened, self.last_time) {
            (Some(time), Some(last)) => {
                time > last.plus(CONCURRENT)
                    || (number == 1 && time >= last.plus(FIRST_CONCURRENT))
                    || (number != self.last && time >= last && self.has_come(number))
            }
            // Items of one message share its number.
            _ => number != self.last && self.has_come(number),
        }
    }

    /// Takes in a number; true if what is missing, or the numbering, changed.
    fn observe(&mut self, number: u64, arrival: Arrival) -> bool {
        if let (Some(time), Some(began)) = (arrival.happened, self.began)
            && time < began.minus(FIRST_CONCURRENT)
        {
            return close(&mut self.earlier, number);
        }
        if close(&mut self.missing, number) {
            return true;
        }
        if arrival.history {
            return close(&mut self.earlier, number);
        }
        if number > self.last {
            let skipped = number > self.last + 1;
            if skipped {
                let (from, to) = (self.last + 1, number - 1);
                self.missing.push(Missing { from, to, after: self.heard, before: arrival.received });
                self.bound();
            }
            let moved_on = self.heard.hour() != arrival.received.hour();
            self.last = number;
            self.last_time = arrival.happened.or(self.last_time);
            self.heard = arrival.received;
            return skipped || moved_on;
        }
        if arrival.repeated {
            return false;
        }
        if self.begins_anew(number, arrival) {
            self.begin_anew(number, arrival);
            return true;
        }
        if number < self.first {
            let (from, to) = (number + 1, self.first - 1);
            self.first = number;
            if from <= to {
                self.missing.insert(0, Missing { from, to, after: self.since, before: self.since });
                self.bound();
            }
            return true;
        }
        false
    }

    fn begin_anew(&mut self, number: u64, arrival: Arrival) {
        self.earlier.append(&mut self.missing);
        self.restarts += 1;
        let before = self.heard;
        self.first = u64::from(!self.sparse).min(number);
        self.last = number;
        self.last_time = arrival.happened;
        self.began = arrival.happened;
        self.since = arrival.received;
        self.heard = arrival.received;
        if number > self.first {
            let (from, to) = (self.first, number - 1);
            self.missing.push(Missing { from, to, after: before, before: arrival.received });
        }
        self.bound();
    }

    fn bound(&mut self) {
        while self.missing.len() + self.earlier.len() > RANGES_MAX {
            let oldest = if self.earlier.is_empty() { &mut self.missing } else { &mut self.earlier };
            let range = oldest.remove(0);
            self.give_up(range);
        }
    }

    fn give_up(&mut self, range: Missing) {
        self.lost = self.lost.saturating_add(range.count());
        let (after, before) = self.lost_within.unwrap_or((range.after, range.before));
        self.lost_within = Some((after.min(range.after), before.max(range.before)));
    }

    /// Gives up what has been missing for too long; true if there was such.
    fn expire(&mut self, now: Timestamp) -> bool {
        let old = |range: &Missing| range.before.plus(REMEMBERED) < now;
        let given_up: Vec<Missing> =
            self.missing.iter().chain(&self.earlier).filter(|range| old(range)).copied().collect();
        self.missing.retain(|range| !old(range));
        self.earlier.retain(|range| !old(range));
        given_up.iter().for_each(|range| self.give_up(*range));
        !given_up.is_empty()
    }

    fn gaps<'a>(&'a self, window: &'a SourceWindow) -> impl Iterator<Item = &'a Missing> {
        self.missing.iter().chain(&self.earlier).filter(|range| range.overlaps(window))
    }

    fn lost_in(&self, window: &SourceWindow) -> bool {
        self.lost_within.is_some_and(|(after, before)| after < window.end && before >= window.start)
    }
}

/// Which range holds a number.
fn place(ranges: &[Missing], number: u64) -> Option<usize> {
    ranges.iter().position(|range| (range.from..=range.to).contains(&number))
}

/// Takes a number out of the ranges; true if it was in one.
fn close(ranges: &mut Vec<Missing>, number: u64) -> bool {
    let Some(at) = place(ranges, number) else { return false };
    let range = ranges.remove(at);
    if number < range.to {
        ranges.insert(at, Missing { from: number + 1, ..range });
    }
    if number > range.from {
        ranges.insert(at, Missing { to: number - 1, ..range });
    }
    true
}

#[derive(Clone, Debug, Default)]
struct Source {
    streams: BTreeMap<String, Stream>,
    /// Records with a number of their sender's, repetitions aside, by hour.
    numbered: BTreeMap<Timestamp, u64>,
}

/// A change of a stream: source, stream, and what it is now.
pub(crate) type StreamChange = (String, String, Option<Stream>);
/// Records of a source and an hour that have a number of their sender's.
pub(crate) type HourChange = (String, Timestamp, u64);

/// The numberings of all sources.
#[derive(Clone, Debug, Default)]
pub struct Numberings {
    sources: BTreeMap<String, Source>,
    changed_streams: BTreeSet<(String, String)>,
    changed_hours: BTreeSet<(String, Timestamp)>,
    /// Numbers that there was no room to watch, since the process started: no part of the state.
    unwatched: u64,
}

impl Numberings {
    /// Takes in the number of a record; true if its source's windows may have to be judged anew.
    pub fn observe(&mut self, source: &str, numbered: Numbered<'_>, arrival: Arrival) -> bool {
        let known = self.sources.get(source);
        let room = known.is_none_or(|own| own.streams.len() < STREAMS_MAX || own.streams.contains_key(numbered.stream));
        let opens = known.is_none_or(|own| !own.streams.contains_key(numbered.stream));
        // History alone is no numbering that we watch.
        if !room || (opens && arrival.history) {
            self.unwatched += u64::from(!room && !arrival.history && !arrival.repeated);
            return false;
        }
        let own = self.sources.entry(source.to_owned()).or_default();
        if !numbered.sparse && !arrival.repeated {
            let hour = arrival.received.hour();
            *own.numbered.entry(hour).or_default() += 1;
            self.changed_hours.insert((source.to_owned(), hour));
        }
        self.changed_streams.insert((source.to_owned(), numbered.stream.to_owned()));
        match own.streams.get_mut(numbered.stream) {
            Some(stream) => stream.observe(numbered.number, arrival),
            None => {
                let stream = Stream::new(numbered.number, numbered.sparse, arrival);
                own.streams.insert(numbered.stream.to_owned(), stream);
                true
            }
        }
    }

    /// How many numbers came in streams that their source had no room for, since the process started.
    #[must_use]
    pub const fn unwatched(&self) -> u64 {
        self.unwatched
    }

    /// Forgets what is too old, at an hour's turn.
    pub fn expire(&mut self, now: Timestamp) {
        for (name, source) in &mut self.sources {
            for (stream, kept) in &mut source.streams {
                if kept.expire(now) || kept.heard.plus(REMEMBERED) < now {
                    self.changed_streams.insert((name.clone(), stream.clone()));
                }
            }
            source.streams.retain(|_, kept| kept.heard.plus(REMEMBERED) >= now);
        }
        self.forget_hours(now);
    }

    fn forget_hours(&mut self, now: Timestamp) {
        for source in self.sources.values_mut() {
            source.numbered.retain(|hour, _| hour.plus(HOUR).plus(JUDGED_FOR) >= now.hour());
        }
        self.sources.retain(|_, source| !source.streams.is_empty() || !source.numbered.is_empty());
    }

    /// Forgets a source that was removed.
    pub fn remove(&mut self, source: &str) {
        let Some(gone) = self.sources.remove(source) else { return };
        self.changed_streams.extend(gone.streams.into_keys().map(|stream| (source.to_owned(), stream)));
        self.changed_hours.extend(gone.numbered.into_keys().map(|hour| (source.to_owned(), hour)));
    }

    /// From when on the events of a source are numbered by their sender.
    pub(crate) fn since(&self, source: &str) -> Option<Timestamp> {
        let streams = self.sources.get(source)?.streams.values();
        streams.filter(|stream| !stream.sparse).map(|stream| stream.since).min()
    }

    /// What the numbers say about a window: whether it is whole and what that rests on. `None` if they say nothing.
    #[must_use]
    pub fn judge(&self, window: &SourceWindow) -> Option<(Completeness, String)> {
        let source = self.sources.get(&window.source)?;
        // Who has been silent for long is not waited for.
        let concerns = |stream: &&Stream| {
            !stream.sparse && stream.since < window.end && stream.heard.plus(JUDGED_FOR) >= window.start
        };
        let own: Vec<&Stream> = source.streams.values().filter(concerns).collect();
        let gaps = source.streams.iter().filter(|(_, stream)| !stream.sparse);
        let gaps = gaps.flat_map(|(name, stream)| stream.gaps(window).map(move |range| (name, range)));
        let (mut missing, mut shown) = (0_u64, None);
        for (name, range) in gaps {
            missing = missing.saturating_add(range.count());
            shown.get_or_insert((name, range));
        }
        if let Some((name, Missing { from, to, .. })) = shown {
            return Some((
                Completeness::Gap,
                format!("{missing} numbered events are missing, {from}-{to} of {name} among them"),
            ));
        }
        let lost = source.streams.values().filter(|stream| !stream.sparse && stream.lost_in(window));
        let lost = lost.map(|stream| stream.lost).fold(0, u64::saturating_add);
        if lost > 0 {
            return Some((Completeness::Gap, format!("{lost} numbered events are missing, in this hour or near it")));
        }
        if own.is_empty() {
            return None;
        }
        let numbered = source.numbered.get(&window.end.minus(HOUR)).copied().unwrap_or(0);
        let open = |reason: &str| Some((Completeness::NotEstablished, reason.to_owned()));
        if numbered != window.records.saturating_sub(window.duplicates) {
            return open("some events carry no sequence numbers");
        }
        if own.iter().any(|stream| stream.restarts > 0 && stream.since >= window.start) {
            return open("the sequence numbers began anew");
        }
        if own.iter().any(|stream| stream.since > window.start && stream.first > 1) {
            return open("the sequence numbers are known from inside the window on");
        }
        if own.iter().any(|stream| stream.heard < window.end) {
            return open("sequence numbers without a gap so far; the next number tells whether the end is whole");
        }
        Some((Completeness::Complete, "sequence numbers without a gap".to_owned()))
    }

    /// What the way an event came skipped, in words, if it did.
    pub(crate) fn skipped(&self, window: &SourceWindow) -> Option<String> {
        let source = self.sources.get(&window.source)?;
        let sparse = source.streams.values().filter(|stream| stream.sparse);
        let count = sparse.flat_map(|stream| stream.gaps(window)).map(Missing::count).fold(0, u64::saturating_add);
        (count > 0).then(|| format!("{count} offsets of its topics held nothing for us"))
    }

    /// The streams of a source by name.
    pub fn of(&self, source: &str) -> impl Iterator<Item = (&str, &Stream)> {
        self.sources.get(source).into_iter().flat_map(|own| &own.streams).map(|(name, stream)| (name.as_str(), stream))
    }

    /// The names of sources with numbers.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    pub(crate) fn take_changes(&mut self) -> (Vec<StreamChange>, Vec<HourChange>) {
        let streams = std::mem::take(&mut self.changed_streams).into_iter().map(|(source, name)| {
            let now = self.sources.get(&source).and_then(|own| own.streams.get(&name)).cloned();
            (source, name, now)
        });
        let streams = streams.collect();
        let hours = std::mem::take(&mut self.changed_hours).into_iter().map(|(source, hour)| {
            let now = self.sources.get(&source).and_then(|own| own.numbered.get(&hour)).copied().unwrap_or(0);
            (source, hour, now)
        });
        (streams, hours.collect())
    }

    pub(crate) fn as_changes(&self) -> (Vec<StreamChange>, Vec<HourChange>) {
        let of = |(name, source): (&String, &Source)| {
            let name = name.clone();
            source
                .streams
                .iter()
                .map(move |(stream, kept)| (name.clone(), stream.clone(), Some(kept.clone())))
                .collect::<Vec<_>>()
        };
        let streams = self.sources.iter().flat_map(of).collect();
        let hours = |(name, source): (&String, &Source)| {
            let name = name.clone();
            source.numbered.iter().map(move |(hour, count)| (name.clone(), *hour, *count)).collect::<Vec<_>>()
        };
        (streams, self.sources.iter().flat_map(hours).collect())
    }

    pub(crate) fn restore(&mut self, streams: Vec<StreamChange>, hours: Vec<HourChange>, now: Timestamp) {
        for (source, name, stream) in streams {
            let own = self.sources.entry(source).or_default();
            match stream {
                Some(stream) => own.streams.insert(name, stream),
                None => own.streams.remove(&name),
            };
        }
        for (source, hour, count) in hours {
            let own = self.sources.entry(source).or_default();
            if count == 0 {
                own.numbered.remove(&hour)
            } else {
                own.numbered.insert(hour, count)
            };
        }
        self.forget_hours(now);
    }
}

#[cfg(test)]
mod tests;
