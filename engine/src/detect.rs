//! Detection: a pure function of (records, state).
//!
//! It reads no clock and does no I/O: the received times of records are its clock, ticks advance it. Matching looks at
//! a whole micro-batch at once; everything after it goes record by record, so results never depend on where batches
//! are cut.

mod control;
mod deferred;
mod feed;
mod replace;
mod report;
mod sql;
mod status;
mod text;
mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::commit::{Commit, DeadLetter, Duplicate, Heard, Restored};
use crate::control::{OWN_SOURCE, SourceRecord};
use crate::correlate::DetailWriter;
use crate::correlate::journal::Journal;
use crate::coverage::{DOWN_AFTER, Observed};
use crate::dedup::{ItemHash, Known, REMEMBERED, item_hash};
use crate::deferred::Deferred;
use crate::event::Event;
use crate::incident::Incident;
use crate::plan::{Plan, Routing};
use crate::record::{Authenticity, CollectionMode, Envelope, Record};
use crate::sequence::{self, Arrival, Numbered};
use crate::source::SourceType;
use crate::state::{Delta, Named, QuietKey, State, StateError, named};
use crate::table::Rows;
use crate::time::{Timestamp, micros};
use crate::watermark::Lane;

pub use replace::RestoreError;
pub use status::{ExceptionStatus, RuleStatus, StreamStatus, TableStatus, must_be_heard};
pub(crate) use topology::Topology;

/// How far back an outage is written into windows of their own: longer ones are shown by the windows that are missing.
const DOWN_SHOWN_MAX: Duration = Duration::from_secs(31 * 86_400);

/// A record with what it decodes to.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Index in its partition.
    pub index: u64,
    /// The record.
    pub record: Record,
    /// Its events, or why it is a dead letter.
    pub events: Result<Vec<Event>, Undecoded>,
}

/// A record that could not be decoded.
#[derive(Clone, Debug)]
pub struct Undecoded {
    /// Why.
    pub reason: String,
    /// Secrets that were replaced in it: they are events whatever carried them. The number 0 is none of theirs.
    pub leaks: Vec<Event>,
}

impl Decoded {
    /// Its events, which for a dead letter are the secrets that were replaced in it.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        self.events.as_ref().map_or_else(|dead| dead.leaks.as_slice(), Vec::as_slice)
    }
}

/// Counters that are no part of the state: they start at zero with the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetectCounters {
    /// Records evaluated.
    pub records: u64,
    /// Events evaluated.
    pub events: u64,
    /// Findings made.
    pub findings: u64,
    /// Findings held back by `quiet`.
    pub quieted: u64,
    /// Signals that came after their rule's watermark.
    pub late: u64,
    /// Signals, groups, candidates and rows of tables dropped at a bound, and findings whose entities found no room in their incident.
    pub evicted: u64,
    /// Matches that an exception let go.
    pub excepted: u64,
    /// Findings whose key found no room among those that rules are quiet about. They are among `evicted`.
    pub quiet_unkept: u64,
    /// Episodes of `sql:` rules forgotten at their bound. They are among `evicted`.
    pub episodes_forgotten: u64,
    /// Numbers of streams that a source had no room for any more.
    pub numbers_unwatched: u64,
}

/// The detector of one log partition.
#[derive(Debug)]
pub struct Detector {
    plan: Arc<Plan>,
    topology: Arc<Topology>,
    partition: u32,
    state: State,
    journal: Journal,
    writer: DetailWriter,
    scratch: String,
    routing: Routing,
    /// Sources that say nothing count as heard.
    trusts_silence: bool,
    /// The hour for which every source's window was last opened by this process.
    opened: Option<Timestamp>,
    counters: DetectCounters,
    /// Items that are held at most.
    items_max: usize,
    /// What the store remembers of the items of the batch.
    known: Known,
}

/// What one micro-batch gathers on the way to its commit.
#[derive(Default)]
struct Batch {
    commit: Commit,
    seen: Vec<(ItemHash, u64, Timestamp)>,
    /// When the latest event of each source was received, and the hour it counts for.
    heard: BTreeMap<String, (Timestamp, Timestamp)>,
    sources: BTreeMap<String, Option<SourceRecord>>,
    quiet: BTreeMap<QuietKey, Option<Timestamp>>,
    incidents: BTreeSet<String>,
    forgotten: Vec<String>,
    /// Exceptions whose counts changed.
    exceptions: BTreeSet<Named>,
    /// SQL rules that ran.
    episodes: BTreeSet<Named>,
    marks_moved: bool,
}

impl Detector {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new(plan: Arc<Plan>, partition: u32) -> Self {
        let (state, topology) = State::new(&plan);
        Self::with_state(plan, partition, state, topology)
    }

    /// A detector that goes on where the store stands.
    ///
    /// # Errors
    /// [`StateError`] if the stored state is damaged or of another version.
    pub fn restore(plan: Arc<Plan>, partition: u32, restored: &Restored) -> Result<Self, StateError> {
        let snapshot = restored.snapshot.iter().map(|(_, bytes)| bytes.as_slice());
        let parts = snapshot.chain(restored.deltas.iter().map(Vec::as_slice));
        let (state, topology) = State::restore(&plan, parts)?;
        Ok(Self::with_state(plan, partition, state, topology))
    }

    fn with_state(plan: Arc<Plan>, partition: u32, state: State, topology: Topology) -> Self {
        Self {
            plan,
            topology: Arc::new(topology),
            partition,
            state,
            journal: Journal::default(),
            writer: DetailWriter::default(),
            scratch: String::new(),
            routing: Routing::BySource,
            trusts_silence: false,
            opened: None,
            counters: DetectCounters::default(),
            items_max: usize::MAX,
            known: Known::new(),
        }
    }

    /// Shows events to rules in another way than by their source, as trying rules out on a file does.
    #[must_use]
    pub fn with_routing(mut self, routing: Routing) -> Self {
        self.routing = routing;
        self
    }

    /// Takes sources that say nothing as heard, so that what does not happen is found without them: a file is whole.
    #[must_use]
    pub const fn trusting_silence(mut self) -> Self {
        self.trusts_silence = true;
        self
    }

    /// Writes no deltas: commits cannot be restored from, and cost less.
    #[must_use]
    pub fn without_deltas(mut self) -> Self {
        self.journal.turn_off();
        self
    }

    /// Index of the next record to evaluate.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.state.position
    }

    /// Record time that detection has come to: the largest received time of any record.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.state.now
    }

    /// Counters since the process started.
    #[must_use]
    pub fn counters(&self) -> DetectCounters {
        let mut counters = self.counters;
        for lanes in &self.state.correlations {
            for counts in [lanes.live.counts(), lanes.backfill.counts()] {
                counters.late += counts.late;
                counters.evicted += counts.evicted;
            }
        }
        let waits = self.state.deferred.values().flat_map(|lanes| [&lanes.live, &lanes.backfill]);
        counters.evicted += waits.map(Deferred::evicted).sum::<u64>();
        counters.evicted += self.state.tables.iter().map(Rows::evicted).sum::<u64>();
        counters.numbers_unwatched = self.state.coverage.numberings().unwatched();
        counters
    }

    /// An incident by id, as detection knows it.
    #[must_use]
    pub fn incident(&self, id: &str) -> Option<&Incident> {
        self.state.incidents.get(id)
    }

    /// The rule set the log says is in force.
    #[must_use]
    pub fn rule_set(&self) -> Option<&str> {
        self.state.rule_set.as_deref()
    }

    /// The whole state, encoded.
    ///
    /// # Errors
    /// [`StateError`] if it cannot be encoded.
    pub fn snapshot(&self) -> Result<Vec<u8>, StateError> {
        self.state.snapshot(&self.plan, &self.topology)
    }

    /// Has the detector hand its items over to the store whenever it holds so many. From then on it is to be fed by
    /// [`Detector::apply_knowing`].
    pub const fn hand_over_items_at(&mut self, items: usize) {
        self.items_max = items;
    }

    /// Items of records to come that the detector does not hold: to be looked up where it handed others over.
    pub fn items_to_look_up<'a>(&'a self, batch: &'a [Decoded]) -> impl Iterator<Item = ItemHash> + 'a {
        let foreign = batch.iter().filter(|decoded| !is_own(&decoded.record.envelope));
        let items = foreign.map(|decoded| item_hash(&decoded.record.envelope.source, &decoded.record.envelope.item));
        items.filter(|item| !self.state.dedup.holds(item))
    }

    /// [`Detector::apply`] with what the store remembers of [`Detector::items_to_look_up`].
    ///
    /// # Errors
    /// [`StateError`] if the change of state cannot be encoded.
    pub fn apply_knowing(
        &mut self,
        batch: Vec<Decoded>,
        known: Known,
        committed: Timestamp,
    ) -> Result<Commit, StateError> {
        self.known = known;
        let commit = self.apply(batch, committed);
        self.known = Known::new();
        commit
    }

    /// Evaluates the records that follow the detector's position, in order, and returns what to commit. `committed` is
    /// passed through: it is when a finding becomes known and decides nothing.
    ///
    /// # Errors
    /// [`StateError`] if the change of state cannot be encoded.
    pub fn apply(&mut self, mut batch: Vec<Decoded>, committed: Timestamp) -> Result<Commit, StateError> {
        let from = self.state.position;
        let mut events: Vec<Event> = Vec::new();
        let mut ends = Vec::with_capacity(batch.len());
        for decoded in &mut batch {
            match &mut decoded.events {
                Ok(own) => events.append(own),
                Err(dead) => events.append(&mut dead.leaks),
            }
            ends.push(events.len());
        }
        let matches = self.plan.select(&events, &self.routing);
        let mut gathered = Batch::default();
        let mut matches = matches.iter().peekable();
        let mut start = 0;
        for (decoded, end) in batch.iter().zip(ends) {
            let own_events = events.get(start..end).unwrap_or_default();
            let mut hits = Vec::new();
            while let Some(hit) = matches.next_if(|hit| hit.event < end) {
                hits.push((hit.event - start, hit.rule));
            }
            start = end;
            self.step(decoded, own_events, &hits, &mut gathered);
        }
        self.finish(gathered, from, committed)
    }

    fn step(&mut self, decoded: &Decoded, events: &[Event], hits: &[(usize, usize)], batch: &mut Batch) {
        let envelope = &decoded.record.envelope;
        let before = self.state.now;
        let now = before.max(envelope.received);
        self.state.now = now;
        self.state.position = decoded.index + 1;
        self.counters.records += 1;
        let own = is_own(envelope);
        let down = before > Timestamp::default() && now.micros_since(before) > micros(DOWN_AFTER);
        // The windows of every hour the outage touches must be there to say so.
        if down {
            let mut hour = before.hour().max(now.hour().minus(DOWN_SHOWN_MAX));
            while hour < now {
                self.open_windows(hour.max(before));
                hour = hour.plus(Duration::from_secs(3_600));
            }
        }
        if before.hour() != now.hour() {
            self.state.coverage.expire(now);
        }
        if down || self.opened != Some(now.hour()) {
            self.opened = Some(now.hour());
            self.open_windows(now);
        }
        if down {
            self.state.coverage.down(before, now);
            self.state.rhythms.deaf(before, now);
        }
        // Ours as well: where nothing comes for long, what is written whole must not hold what is forgotten.
        self.state.dedup.expire(now);
        if !own {
            if !events.is_empty() && decoded.events.is_ok() {
                let (received, hour) = batch.heard.entry(envelope.source.clone()).or_default();
                (*received, *hour) = (envelope.received.max(*received), now.hour());
            }
            if Lane::from(envelope.mode) == Lane::Live {
                self.state.rhythms.hear(&envelope.source, now);
            }
            batch.marks_moved = true;
            let item = item_hash(&envelope.source, &envelope.item);
            // What is known from before the time that is remembered is not remembered anew: the first record stays the first.
            let known = envelope.repeats().filter(|first| *first < decoded.index);
            if let Some(first) = known.or_else(|| self.state.dedup.observe(item, decoded.index, now, &self.known)) {
                batch.commit.duplicates.push(Duplicate { index: decoded.index, first });
                self.count_record(decoded, &[], true, now);
                return;
            }
            batch.seen.push((item, decoded.index, now));
            // Only what is no repetition: the lake has no repetitions, and a replay of it must conclude the same.
            self.state.watermarks.hear(&envelope.source, Lane::from(envelope.mode), envelope.received);
        }
        self.count_record(decoded, events, false, now);
        let mut ticked = false;
        match &decoded.events {
            Err(dead) => batch.commit.dead_letters.push(DeadLetter {
                index: decoded.index,
                source: envelope.source.clone(),
                received: envelope.received,
                reason: dead.reason.clone(),
            }),
            Ok(_) if own => ticked = self.control(decoded, now, batch),
            Ok(_) => {}
        }
        self.evaluate(events, hits, now, batch);
        if ticked {
            self.advance(now, batch);
        }
    }

    /// Every connected source has a window for the hour, also when nothing comes from it.
    fn open_windows(&mut self, now: Timestamp) {
        for source in self.state.sources.values() {
            self.state.coverage.open(&source.name, source.source_type, source.connected, now);
        }
        self.state.coverage.open(OWN_SOURCE, SourceType::Pipeproof, now, now);
    }

    fn count_record(&mut self, decoded: &Decoded, events: &[Event], duplicate: bool, now: Timestamp) {
        let envelope = &decoded.record.envelope;
        // A token for a type makes a source of that name, and a record can come from a source that was removed since.
        self.state.coverage.open(&envelope.source, envelope.source_type, now, now);
        let known = || events.iter().filter(|event| event.time_known && event.mode == CollectionMode::Live);
        let behind = |event: &Event| event.received.micros_since(event.time) / 1_000_000;
        let observed = Observed {
            events: events.len() as u64,
            duplicate,
            dead_letter: decoded.events.is_err(),
            lag_secs: known().map(behind).max(),
            skew_secs: known().map(behind).min().map(|least| -least),
        };
        self.state.coverage.count(&envelope.source, now, observed);
        self.note_numbers(decoded, events, duplicate, now);
    }

    fn note_numbers(&mut self, decoded: &Decoded, events: &[Event], repeated: bool, now: Timestamp) {
        let envelope = &decoded.record.envelope;
        let arrival = Arrival {
            happened: events.iter().filter(|event| event.time_known).map(|event| event.time).max(),
            received: now,
            history: envelope.mode == CollectionMode::Backfill,
            repeated,
        };
        let coverage = &mut self.state.coverage;
        let mut changed = false;
        if let Some(numbered) = Numbered::of(envelope) {
            changed |= coverage.number(&envelope.source, numbered, arrival);
        }
        if let Some((stream, number)) = sequence::offset(envelope) {
            changed |= coverage.number(&envelope.source, Numbered { stream: &stream, number, sparse: true }, arrival);
        }
        if changed {
            coverage.judge_numbers(&envelope.source, now);
        }
    }

    fn finish(&mut self, batch: Batch, from: u64, committed: Timestamp) -> Result<Commit, StateError> {
        let mut commit = batch.commit;
        let heard = batch.heard.into_iter().map(|(source, (received, hour))| {
            let max_skew_secs = self.state.coverage.window(&source, hour).map_or(0, |window| window.max_skew_secs);
            Heard { source, received, max_skew_secs }
        });
        commit.heard = heard.collect();
        commit.windows = self.state.coverage.take_changed();
        self.state.coverage.close(self.state.now);
        commit.incidents = batch.incidents.iter().filter_map(|id| self.state.incidents.get(id).cloned()).collect();
        let (streams, numbered) = self.state.coverage.take_numbers();
        let journal = self.journal.take().map_err(StateError::Encoding)?;
        let delta = Delta {
            position: self.state.position,
            now: self.state.now,
            swept: self.state.swept,
            seen: batch.seen,
            sources: batch.sources.into_iter().collect(),
            marks: batch.marks_moved.then(|| self.state.marks()),
            names: self.state.names.take_new(),
            correlations: Vec::new(),
            journal,
            tables: self.state.table_changes(&self.plan),
            deferred: self.state.deferred_changes(&self.plan),
            exceptions: named(&self.state.exceptions, &batch.exceptions),
            episodes: named(&self.state.episodes, &batch.episodes),
            quiet: batch.quiet.into_iter().collect(),
            incidents: commit.incidents.clone(),
            forgotten_incidents: batch.forgotten,
            windows: commit.windows.clone(),
            rule_set: self.state.rule_set.clone(),
            streams,
            numbered,
            rhythms: self.state.rhythms.take_changes(),
            handed_over: self.state.dedup.len() >= self.items_max,
        };
        if delta.handed_over {
            commit.handed_over = self.state.dedup.hand_over();
        }
        commit.remembered_since = self.state.now.minus(REMEMBERED);
        if !self.journal.is_off() {
            commit.delta = delta.encode()?;
        }
        commit.partition = self.partition;
        commit.from = from;
        commit.to = self.state.position;
        commit.committed = committed;
        Ok(commit)
    }
}

/// Whether a record is one of ours.
fn is_own(envelope: &Envelope) -> bool {
    envelope.auth == Authenticity::Own && envelope.source_type == SourceType::Pipeproof
}

#[cfg(test)]
mod tests;
