//! What detection remembers, and how it is written: one encoded delta per micro-batch, and snapshots that are a delta
//! from nothing. Encoded with postcard behind a version byte; a version this binary does not know is refused.
//!
//! A delta of correlations is what was done to them, which restoring does again; a snapshot holds them as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::commit::SourceWindow;
use crate::control::SourceRecord;
use crate::correlate::journal::{Bytes, CorrelationName, Journal, Op};
use crate::correlate::{Correlation, Fired, Moment, Names, Signal};
use crate::coverage::Coverage;
use crate::dedup::{Dedup, ItemHash};
use crate::deferred::{self, Deferred};
use crate::detect::Topology;
use crate::exception::ExceptionCount;
use crate::incident::{Incident, Incidents};
use crate::plan::Plan;
use crate::rule::{CorrelationRule, Rule};
use crate::sequence::{HourChange, StreamChange};
use crate::silence::{RhythmChange, Rhythms};
use crate::sql::Episodes;
use crate::table::{self, Rows};
use crate::time::Timestamp;
use crate::watermark::{Lane, Mark, Watermarks};

/// Version of the encoding.
const VERSION: u8 = 4;
/// The version before. What version 4 adds is a word at the end: no, which is a zero byte.
pub(crate) const VERSION_BEFORE: u8 = 3;
pub(crate) const ADDED_SINCE: &[u8] = &[0];

/// Why a state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Written by a newer binary, or not a state at all.
    #[error(
        "detector state has version {0:?}, this binary reads version {VERSION}: run the binary that wrote it, or rebuild the \
         state from the log"
    )]
    Version(Option<u8>),
    /// Damaged.
    #[error("cannot read detector state")]
    Encoding(#[source] postcard::Error),
}

/// When a rule last spoke about a key: (rule digest, dedup values).
pub(crate) type QuietKey = (String, Vec<String>);

/// Id and digest: what decides otherwise starts anew.
pub(crate) type Named = (String, String);

/// What is kept of a rule, by lane.
#[derive(Debug, Default)]
pub(crate) struct Lanes<T> {
    pub(crate) live: T,
    pub(crate) backfill: T,
}

impl<T> Lanes<T> {
    pub(crate) const fn of(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Live => &mut self.live,
            Lane::Backfill => &mut self.backfill,
        }
    }
}

/// Everything detection remembers.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) position: u64,
    /// Largest received time of any record: the clock of detection.
    pub(crate) now: Timestamp,
    /// The interval of record time in which things were last let go.
    pub(crate) swept: i64,
    pub(crate) dedup: Dedup,
    pub(crate) sources: BTreeMap<String, SourceRecord>,
    pub(crate) watermarks: Watermarks,
    /// Names that signals hold as numbers.
    pub(crate) names: Names,
    /// In the order of the topology's links.
    pub(crate) correlations: Vec<Lanes<Correlation>>,
    /// By number of the table; those that are written down have no rows here.
    pub(crate) tables: Vec<Rows>,
    /// By number of the rule: candidates of rules with lookups.
    pub(crate) deferred: BTreeMap<usize, Lanes<Deferred>>,
    pub(crate) exceptions: BTreeMap<Named, ExceptionCount>,
    pub(crate) episodes: BTreeMap<Named, Episodes>,
    pub(crate) quiet: BTreeMap<QuietKey, Timestamp>,
    pub(crate) incidents: Incidents,
    pub(crate) coverage: Coverage,
    pub(crate) rhythms: Rhythms,
    /// Digest of the rule set the log says is in force.
    pub(crate) rule_set: Option<String>,
}

/// What a micro-batch changed, or the whole state as a change from nothing.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Delta {
    pub(crate) position: u64,
    pub(crate) now: Timestamp,
    pub(crate) swept: i64,
    pub(crate) seen: Vec<(ItemHash, u64, Timestamp)>,
    pub(crate) sources: Vec<(String, Option<SourceRecord>)>,
    pub(crate) marks: Option<Vec<(String, Lane, Mark)>>,
    /// Names that are new.
    pub(crate) names: Vec<String>,
    /// Only in snapshots: correlations as they are, live and backfill.
    pub(crate) correlations: Vec<(CorrelationName, Bytes, Bytes)>,
    /// What was done to correlations.
    pub(crate) journal: Journal,
    /// By name and digest of the table.
    pub(crate) tables: Vec<(Named, Vec<table::Change>)>,
    /// By id and digest of the rule.
    pub(crate) deferred: Vec<(Named, Lane, Vec<deferred::Change>)>,
    pub(crate) exceptions: Vec<(Named, ExceptionCount)>,
    pub(crate) episodes: Vec<(Named, Episodes)>,
    pub(crate) quiet: Vec<(QuietKey, Option<Timestamp>)>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) forgotten_incidents: Vec<String>,
    pub(crate) windows: Vec<SourceWindow>,
    pub(crate) rule_set: Option<String>,
    pub(crate) streams: Vec<StreamChange>,
    pub(crate) numbered: Vec<HourChange>,
    pub(crate) rhythms: Vec<RhythmChange>,
    /// Whether the store remembers everything seen so far. Since version 4.
    pub(crate) handed_over: bool,
}

impl Delta {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StateError> {
        postcard::to_extend(self, vec![VERSION]).map_err(StateError::Encoding)
    }

    /// Reads a snapshot and the deltas after it.
    pub(crate) fn decode_all<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Self>, StateError> {
        parts.map(Self::decode).collect()
    }

    fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(StateError::Encoding),
            Some((&VERSION_BEFORE, rest)) => {
                postcard::from_bytes(&[rest, ADDED_SINCE].concat()).map_err(StateError::Encoding)
            }
            other => Err(StateError::Version(other.map(|(version, _)| *version))),
        }
    }
}

fn rule_of<'p>(plan: &'p Plan, topology: &Topology, link: usize) -> Option<&'p CorrelationRule> {
    match plan.rules().get(topology.links.get(link)?.number) {
        Some(Rule::Correlation(rule)) => Some(rule),
        _ => None,
    }
}

impl State {
    /// A state that has seen nothing, and how the rules of the plan hang together.
    pub(crate) fn new(plan: &Plan) -> (Self, Topology) {
        let mut state = Self::default();
        let topology = state.make_room(plan);
        (state, topology)
    }

    fn make_room(&mut self, plan: &Plan) -> Topology {
        let topology = Topology::new(plan, &mut self.names);
        self.correlations = topology.links.iter().map(|_| Lanes::default()).collect();
        let shapes = (0..plan.tables().len()).filter_map(|number| plan.table_shape(number));
        self.tables = shapes.map(|shape| Rows::new(Arc::clone(shape))).collect();
        let lookups = topology.steps.iter().filter(|step| !plan.lookups(step.number).is_empty());
        self.deferred = lookups.map(|step| (step.number, Lanes::default())).collect();
        topology
    }

    /// Rebuilds the state from a snapshot and the deltas after it.
    pub(crate) fn restore<'a>(
        plan: &Plan,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(Self, Topology), StateError> {
        Self::rebuild(plan, Delta::decode_all(parts)?)
    }

    /// The same of deltas that were decoded.
    pub(crate) fn rebuild(plan: &Plan, mut deltas: Vec<Delta>) -> Result<(Self, Topology), StateError> {
        let mut state = Self::default();
        // Names first: the topology gives numbers to names of its own.
        for delta in &mut deltas {
            state.names.restore(std::mem::take(&mut delta.names));
        }
        let topology = state.make_room(plan);
        for delta in deltas {
            state.apply(plan, &topology, delta)?;
        }
        for lanes in &mut state.correlations {
            lanes.live.reset_counts();
            lanes.backfill.reset_counts();
        }
        Ok((state, topology))
    }

    /// Goes on under another plan: what decides as before keeps what it holds, all else begins anew.
    pub(crate) fn relink(&mut self, before: &Plan, topology: &Topology, plan: &Plan) -> Topology {
        let lanes = std::mem::take(&mut self.correlations);
        let mut kept: BTreeMap<&CorrelationName, Lanes<Correlation>> =
            topology.links.iter().map(|link| &link.name).zip(lanes).collect();
        // Which columns a table is searched by depends on the whole plan, so rows are put in anew.
        let tables = table_names(before).zip(&self.tables).map(|(name, rows)| (name, rows.as_changes())).collect();
        let deferred = self.deferred_as_changes(before);
        let next = self.make_room(plan);
        for (link, lanes) in next.links.iter().zip(&mut self.correlations) {
            if let Some(kept) = kept.remove(&link.name) {
                *lanes = kept;
            }
        }
        self.restore_tables(plan, tables, deferred);
        // The snapshot that must follow tells all names.
        drop(self.names.take_new());
        next
    }

    fn apply(&mut self, plan: &Plan, topology: &Topology, delta: Delta) -> Result<(), StateError> {
        self.position = delta.position;
        self.now = delta.now;
        self.swept = delta.swept;
        for (item, index, received) in delta.seen {
            self.dedup.remember(item, index, received);
        }
        self.dedup.expire(self.now);
        if delta.handed_over {
            drop(self.dedup.hand_over());
        }
        for (name, source) in delta.sources {
            match source {
                Some(source) => self.sources.insert(name, source),
                None => self.sources.remove(&name),
            };
        }
        if let Some(marks) = delta.marks {
            self.watermarks.restore(marks);
        }
        // State of a rule that no longer decides the same way is no state of today's rule.
        let places: BTreeMap<&CorrelationName, usize> =
            topology.links.iter().enumerate().map(|(place, link)| (&link.name, place)).collect();
        for (name, live, backfill) in delta.correlations {
            if let Some(lanes) = places.get(&name).and_then(|place| self.correlations.get_mut(*place)) {
                lanes.live = postcard::from_bytes(&live.0).map_err(StateError::Encoding)?;
                lanes.backfill = postcard::from_bytes(&backfill.0).map_err(StateError::Encoding)?;
            }
        }
        let links: Vec<Option<usize>> = delta.journal.rules.iter().map(|name| places.get(name).copied()).collect();
        self.replay(plan, topology, &links, &delta.journal)?;
        self.restore_tables(plan, delta.tables, delta.deferred);
        self.exceptions.extend(delta.exceptions);
        self.episodes.extend(delta.episodes);
        for (key, time) in delta.quiet {
            match time {
                Some(time) => self.quiet.insert(key, time),
                None => self.quiet.remove(&key),
            };
        }
        for incident in delta.incidents {
            self.incidents.insert(incident);
        }
        for id in delta.forgotten_incidents {
            self.incidents.remove(&id);
        }
        for window in delta.windows {
            self.coverage.insert(window);
        }
        self.coverage.restore_numbers(delta.streams, delta.numbered, self.now);
        self.coverage.close(self.now);
        self.rhythms.restore(&delta.rhythms);
        if delta.rule_set.is_some() {
            self.rule_set = delta.rule_set;
        }
        Ok(())
    }

    /// Does again what was done to correlations; what they fire was reported then.
    fn replay(
        &mut self,
        plan: &Plan,
        topology: &Topology,
        links: &[Option<usize>],
        journal: &Journal,
    ) -> Result<(), StateError> {
        let mut now = Timestamp::default();
        let link = |number: u32| links.get(number as usize).copied().flatten();
        for op in journal.ops() {
            match op.map_err(StateError::Encoding)? {
                Op::Now(time) => now = time,
                Op::Admit { lane, time, event, detail, to } => {
                    for (number, member) in to {
                        if let Some(at) = link(number) {
                            let signal = Signal { time, event, member, detail: detail.clone() };
                            self.admit(plan, topology, at, lane, signal, now);
                        }
                    }
                }
                Op::Advance { rule, lane, moment } => {
                    if let Some(at) = link(rule) {
                        self.advance(plan, topology, at, lane, moment);
                    }
                }
            }
        }
        Ok(())
    }

    /// Shows a signal to a correlation.
    pub(crate) fn admit(
        &mut self,
        plan: &Plan,
        topology: &Topology,
        at: usize,
        lane: Lane,
        signal: Signal,
        now: Timestamp,
    ) -> Vec<Fired> {
        let (Some(link), Some(rule)) = (topology.links.get(at), rule_of(plan, topology, at)) else { return Vec::new() };
        let Some(lanes) = self.correlations.get_mut(at) else { return Vec::new() };
        if link.learns && lane == Lane::Backfill {
            lanes.live.teach(rule, &link.shape, &signal);
            return Vec::new();
        }
        lanes.of(lane).admit(rule, &link.shape, signal, now)
    }

    /// Whether time changes anything for a correlation.
    pub(crate) fn is_ready(&mut self, plan: &Plan, topology: &Topology, at: usize, lane: Lane, moment: Moment) -> bool {
        let (Some(link), Some(rule)) = (topology.links.get(at), rule_of(plan, topology, at)) else { return false };
        self.correlations.get_mut(at).is_some_and(|lanes| lanes.of(lane).is_ready(rule, &link.shape, moment))
    }

    /// Lets time decide what waits in a correlation.
    pub(crate) fn advance(
        &mut self,
        plan: &Plan,
        topology: &Topology,
        at: usize,
        lane: Lane,
        moment: Moment,
    ) -> Vec<Fired> {
        let (Some(link), Some(rule)) = (topology.links.get(at), rule_of(plan, topology, at)) else { return Vec::new() };
        let Some(lanes) = self.correlations.get_mut(at) else { return Vec::new() };
        lanes.of(lane).advance(rule, &link.shape, moment, lane)
    }

    /// The whole state as one delta from nothing.
    pub(crate) fn snapshot(&self, plan: &Plan, topology: &Topology) -> Result<Vec<u8>, StateError> {
        let (streams, numbered) = self.coverage.numberings().as_changes();
        let encode = |of: &Correlation| postcard::to_stdvec(of).map(Bytes).map_err(StateError::Encoding);
        let mut correlations = Vec::with_capacity(self.correlations.len());
        for (lanes, link) in self.correlations.iter().zip(&topology.links) {
            correlations.push((link.name.clone(), encode(&lanes.live)?, encode(&lanes.backfill)?));
        }
        Delta {
            position: self.position,
            now: self.now,
            swept: self.swept,
            seen: self.dedup.iter().collect(),
            sources: self.sources.iter().map(|(name, source)| (name.clone(), Some(source.clone()))).collect(),
            marks: Some(self.marks()),
            names: self.names.iter().map(str::to_owned).collect(),
            correlations,
            journal: Journal::default(),
            tables: table_names(plan).zip(self.tables.iter().map(Rows::as_changes)).collect(),
            deferred: self.deferred_as_changes(plan),
            exceptions: self.exceptions.iter().map(|(name, count)| (name.clone(), *count)).collect(),
            episodes: self.episodes.iter().map(|(name, episodes)| (name.clone(), episodes.clone())).collect(),
            quiet: self.quiet.iter().map(|(key, time)| (key.clone(), Some(*time))).collect(),
            incidents: self.incidents.iter().cloned().collect(),
            forgotten_incidents: Vec::new(),
            windows: self.coverage.iter().cloned().collect(),
            rule_set: self.rule_set.clone(),
            streams,
            numbered,
            rhythms: self.rhythms.as_changes(),
            handed_over: false,
        }
        .encode()
    }

    /// The changes of tables since they were last taken.
    pub(crate) fn table_changes(&mut self, plan: &Plan) -> Vec<(Named, Vec<table::Change>)> {
        let changes = table_names(plan).zip(self.tables.iter_mut().map(Rows::take_changes));
        changes.filter(|(_, changes)| !changes.is_empty()).collect()
    }

    /// The changes of candidates since they were last taken.
    pub(crate) fn deferred_changes(&mut self, plan: &Plan) -> Vec<(Named, Lane, Vec<deferred::Change>)> {
        let mut all = Vec::new();
        for (number, lanes) in &mut self.deferred {
            for lane in [Lane::Live, Lane::Backfill] {
                let changes = lanes.of(lane).take_changes();
                all.extend((!changes.is_empty()).then(|| (rule_name(plan, *number), lane, changes)));
            }
        }
        all
    }

    fn deferred_as_changes(&self, plan: &Plan) -> Vec<(Named, Lane, Vec<deferred::Change>)> {
        let of = |(number, lanes): (&usize, &Lanes<Deferred>)| {
            let name = rule_name(plan, *number);
            [(name.clone(), Lane::Live, lanes.live.as_changes()), (name, Lane::Backfill, lanes.backfill.as_changes())]
        };
        self.deferred.iter().flat_map(of).filter(|(.., changes)| !changes.is_empty()).collect()
    }

    /// Repeats what was done to tables and candidates. Those of tables and rules that are no longer there, or decide
    /// otherwise now, are let go.
    fn restore_tables(
        &mut self,
        plan: &Plan,
        tables: Vec<(Named, Vec<table::Change>)>,
        deferred: Vec<(Named, Lane, Vec<deferred::Change>)>,
    ) {
        for (name, changes) in tables {
            let number = table_names(plan).position(|known| known == name);
            if let Some(rows) = number.and_then(|number| self.tables.get_mut(number)) {
                changes.into_iter().for_each(|change| rows.restore(change));
            }
        }
        let numbers: BTreeMap<Named, usize> =
            self.deferred.keys().map(|number| (rule_name(plan, *number), *number)).collect();
        for (name, lane, changes) in deferred {
            if let Some(lanes) = numbers.get(&name).and_then(|number| self.deferred.get_mut(number)) {
                changes.into_iter().for_each(|change| lanes.of(lane).restore(change));
            }
        }
    }

    pub(crate) fn marks(&self) -> Vec<(String, Lane, Mark)> {
        self.watermarks.iter().map(|(source, lane, mark)| (source.to_owned(), lane, *mark)).collect()
    }
}

fn table_names(plan: &Plan) -> impl Iterator<Item = Named> + '_ {
    plan.tables().iter().map(|table| (table.name.clone(), table.digest.clone()))
}

fn rule_name(plan: &Plan, number: usize) -> Named {
    let meta = plan.rules().get(number).map(Rule::meta);
    meta.map(|meta| (meta.id.clone(), meta.digest.clone())).unwrap_or_default()
}

/// What is kept under these names.
pub(crate) fn named<T: Clone>(all: &BTreeMap<Named, T>, names: &BTreeSet<Named>) -> Vec<(Named, T)> {
    names.iter().filter_map(|name| Some((name.clone(), all.get(name)?.clone()))).collect()
}
