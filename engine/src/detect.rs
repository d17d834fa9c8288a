//! Detection: a pure function of (records, state).
//!
//! It reads no clock and does no I/O: the received times of records are its clock, ticks advance it. Matching looks at
//! a whole micro-batch at once; everything after it goes record by record, so results never depend on where batches
//! are cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::commit::{Commit, DeadLetter, Duplicate, Message, Restored};
use crate::control::{Control, OWN_SOURCE, SourceRecord};
use crate::correlate::{Correlation, Fired, GroupKey, Signal};
use crate::coverage::{DOWN_AFTER, Observed};
use crate::dedup::item_hash;
use crate::event::Event;
use crate::fields::Field;
use crate::finding::{Anchor, CitedEvent, Finding, finding_id, short_hex};
use crate::incident::{Incident, IncidentStep, REOPEN_WITHIN, Verb};
use crate::plan::{Plan, Routing};
use crate::record::{Authenticity, CollectionMode, Record};
use crate::rule::{CorrelationRule, Rule, RuleMeta, RuleState, Taxonomy};
use crate::source::SourceType;
use crate::state::{Delta, QuietKey, State, StateError};
use crate::time::{Timestamp, micros};
use crate::watermark::Lane;

/// How often, in record time, groups that can no longer matter are let go.
const SWEEP_EVERY_MICROS: i64 = 60 * 1_000_000;

/// How far back an outage is written into windows of their own: longer ones are shown by the windows that are missing.
const DOWN_SHOWN_MAX: Duration = Duration::from_secs(31 * 86_400);

/// A record with what it decodes to.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Index in its partition.
    pub index: u64,
    /// The record.
    pub record: Record,
    /// Its events, or why there are none.
    pub events: Result<Vec<Event>, String>,
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
    /// Signals and groups dropped at a bound.
    pub evicted: u64,
}

/// The detector of one log partition.
#[derive(Debug)]
pub struct Detector {
    plan: Arc<Plan>,
    partition: u32,
    state: State,
    /// For each correlation: the source types its watermark is over.
    waits_for: Arc<BTreeMap<usize, Vec<SourceType>>>,
    /// For each rule: the correlations it is a member of, with its number there.
    feeds: BTreeMap<usize, Vec<(usize, u16)>>,
    routing: Routing,
    counters: DetectCounters,
}

/// What one micro-batch gathers on the way to its commit.
#[derive(Default)]
struct Batch {
    commit: Commit,
    seen: Vec<(crate::dedup::ItemHash, u64, Timestamp)>,
    sources: BTreeMap<String, Option<SourceRecord>>,
    quiet: BTreeMap<QuietKey, Option<Timestamp>>,
    incidents: BTreeSet<String>,
    forgotten: Vec<String>,
    marks_moved: bool,
}

impl Detector {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new(plan: Arc<Plan>, partition: u32) -> Self {
        Self::with_state(plan, partition, State::default())
    }

    /// A detector that goes on where the store stands.
    ///
    /// # Errors
    /// [`StateError`] if the stored state is damaged or of a newer version.
    pub fn restore(plan: Arc<Plan>, partition: u32, restored: &Restored) -> Result<Self, StateError> {
        let snapshot = restored.snapshot.iter().map(|(_, bytes)| bytes.as_slice());
        let state = State::restore(snapshot.chain(restored.deltas.iter().map(Vec::as_slice)))?;
        Ok(Self::with_state(plan, partition, state))
    }

    fn with_state(plan: Arc<Plan>, partition: u32, mut state: State) -> Self {
        let mut waits_for = BTreeMap::new();
        let mut feeds: BTreeMap<usize, Vec<(usize, u16)>> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for (number, rule) in plan.rules().iter().enumerate() {
            if let Rule::Correlation(correlation) = rule {
                known.insert(correlation.meta.digest.clone());
                waits_for.insert(number, source_types(&plan, number, 0));
                for (place, member) in plan.members(number).iter().enumerate() {
                    let place = u16::try_from(place).unwrap_or(u16::MAX);
                    feeds.entry(*member).or_default().push((number, place));
                }
            }
        }
        // State of a rule that no longer decides the same way is no state of today's rule.
        state.correlations.retain(|(digest, _), _| known.contains(digest));
        Self {
            plan,
            partition,
            state,
            waits_for: Arc::new(waits_for),
            feeds,
            routing: Routing::BySource,
            counters: DetectCounters::default(),
        }
    }

    /// Shows events to rules in another way than by their source, as trying rules out on a file does.
    #[must_use]
    pub fn with_routing(mut self, routing: Routing) -> Self {
        self.routing = routing;
        self
    }

    /// Index of the next record to evaluate.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.state.position
    }

    /// Counters since the process started.
    #[must_use]
    pub fn counters(&self) -> DetectCounters {
        let mut counters = self.counters;
        for correlation in self.state.correlations.values() {
            counters.late += correlation.late;
            counters.evicted += correlation.evicted;
        }
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
        self.state.snapshot()
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
            if let Ok(own) = &mut decoded.events {
                events.append(own);
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
        let own = envelope.auth == Authenticity::Own && envelope.source_type == SourceType::Pipeproof;
        let down = before > Timestamp::default() && now.micros_since(before) > micros(DOWN_AFTER);
        // The windows of every hour the outage touches must be there to say so.
        if down {
            let mut hour = before.hour().max(now.hour().minus(DOWN_SHOWN_MAX));
            while hour < now {
                self.open_windows(hour.max(before));
                hour = hour.plus(Duration::from_secs(3_600));
            }
        }
        self.open_windows(now);
        if down {
            self.state.coverage.down(before, now);
        }
        if !own {
            self.state.dedup.expire(now);
            let item = item_hash(&envelope.source, &envelope.item);
            if let Some(first) = self.state.dedup.observe(item, decoded.index, now) {
                batch.commit.duplicates.push(Duplicate { index: decoded.index, first });
                self.count_record(decoded, &[], true, now);
                return;
            }
            batch.seen.push((item, decoded.index, now));
        }
        self.count_record(decoded, events, false, now);
        match &decoded.events {
            Err(reason) => batch.commit.dead_letters.push(DeadLetter {
                index: decoded.index,
                source: envelope.source.clone(),
                received: envelope.received,
                reason: reason.clone(),
            }),
            Ok(_) if own => self.control(decoded, now, batch),
            Ok(_) => {}
        }
        self.evaluate(events, hits, now, batch);
        self.advance(now, batch);
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
        let known = events.iter().filter(|event| event.time_known && event.mode == CollectionMode::Live);
        let behind = |event: &Event| event.received.micros_since(event.time) / 1_000_000;
        let lags: Vec<i64> = known.map(behind).collect();
        let observed = Observed {
            events: events.len() as u64,
            duplicate,
            dead_letter: decoded.events.is_err(),
            lag_secs: lags.iter().max().copied(),
            skew_secs: lags.iter().min().map(|least| -least),
        };
        self.state.coverage.count(&envelope.source, now, observed);
    }

    fn control(&mut self, decoded: &Decoded, now: Timestamp, batch: &mut Batch) {
        let control: Control = match serde_json::from_slice(&decoded.record.body) {
            Ok(control) => control,
            Err(error) => {
                return batch.commit.dead_letters.push(DeadLetter {
                    index: decoded.index,
                    source: OWN_SOURCE.to_owned(),
                    received: now,
                    reason: format!("control record of another version: {error}"),
                });
            }
        };
        match control {
            Control::Tick {} => {
                self.state.watermarks.tick(now);
                batch.marks_moved = true;
            }
            Control::SourceAdded(source) => {
                self.state.watermarks.connect(&source.name, source.source_type);
                self.state.coverage.open(&source.name, source.source_type, source.connected, now);
                batch.marks_moved = true;
                batch.sources.insert(source.name.clone(), Some(source.clone()));
                self.state.sources.insert(source.name.clone(), source);
            }
            Control::SourceRotated { name, generation, .. } => {
                if let Some(source) = self.state.sources.get_mut(&name) {
                    source.generation = generation;
                    batch.sources.insert(name, Some(source.clone()));
                }
            }
            Control::SourceRemoved { name, .. } => {
                self.state.watermarks.remove(&name);
                batch.marks_moved = true;
                self.state.sources.remove(&name);
                batch.sources.insert(name, None);
            }
            Control::RulesDeployed(record) => self.state.rule_set = Some(record.set),
            Control::IncidentStep { incident, verb, actor, note } => {
                match self.state.incidents.apply(&incident, verb, now, &actor, note) {
                    Ok((incident, step)) => self.tell_step(&incident, step, batch),
                    Err(error) => batch.commit.dead_letters.push(DeadLetter {
                        index: decoded.index,
                        source: OWN_SOURCE.to_owned(),
                        received: now,
                        reason: error.to_string(),
                    }),
                }
            }
            Control::Started { .. }
            | Control::Stopped { .. }
            | Control::TokenCreated(_)
            | Control::TokenRevoked { .. }
            | Control::PackSealed { .. }
            | Control::PackDownloaded { .. } => {}
        }
    }

    fn evaluate(&mut self, events: &[Event], hits: &[(usize, usize)], now: Timestamp, batch: &mut Batch) {
        self.counters.events += events.len() as u64;
        for event in events {
            if event.source_type.is_external() {
                let lane = Lane::from(event.mode);
                let (kind, time) = (event.source_type, event.time);
                self.state.watermarks.observe(&event.source, kind, lane, time, event.received);
                batch.marks_moved = true;
            }
        }
        let plan = Arc::clone(&self.plan);
        for (at, number) in hits {
            let (Some(event), Some(rule)) = (events.get(*at), plan.rules().get(*number)) else { continue };
            if let Some(correlations) = self.feeds.get(number).cloned() {
                let signal = self.signal(event, rule.meta());
                for (correlation, place) in correlations {
                    self.feed(&plan, correlation, place, &signal, event, rule, now, batch);
                }
            }
            if rule.meta().emits {
                self.report_event(*number, rule, event, now, batch);
            }
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one call site; a struct for it would be built and taken apart at once"
    )]
    fn feed(
        &mut self,
        plan: &Plan,
        number: usize,
        place: u16,
        signal: &Signal,
        event: &Event,
        member: &Rule,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let Some(Rule::Correlation(rule)) = plan.rules().get(number) else { return };
        if rule.meta.state == RuleState::Paused {
            return;
        }
        let Some(key) = group_key(rule, member, event) else { return };
        let signal = Signal { member: place, ..signal.clone() };
        self.admit(plan, number, rule, Lane::from(event.mode), key, signal, now, batch);
    }

    #[allow(clippy::too_many_arguments, reason = "two call sites; the parts are independent")]
    fn admit(
        &mut self,
        plan: &Plan,
        number: usize,
        rule: &CorrelationRule,
        lane: Lane,
        key: GroupKey,
        signal: Signal,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let watermark = self.state.watermarks.of(self.waits_for.get(&number).map_or(&[], Vec::as_slice), lane);
        let state = self.state.correlations.entry((rule.meta.digest.clone(), lane)).or_default();
        for fired in state.admit(rule, key, signal, watermark) {
            self.report_correlation(plan, number, rule, lane, fired, now, batch);
        }
    }

    /// Lets watermarks decide what was waiting, and forgets what time has passed by.
    fn advance(&mut self, now: Timestamp, batch: &mut Batch) {
        let plan = Arc::clone(&self.plan);
        for (number, types) in Arc::clone(&self.waits_for).iter() {
            let Some(Rule::Correlation(rule)) = plan.rules().get(*number) else { continue };
            for lane in [Lane::Live, Lane::Backfill] {
                let name = (rule.meta.digest.clone(), lane);
                let Some(state) = self.state.correlations.get_mut(&name).filter(|state| state.is_waiting()) else {
                    continue;
                };
                for fired in state.advance(rule, self.state.watermarks.of(types, lane)) {
                    self.report_correlation(&plan, *number, rule, lane, fired, now, batch);
                }
            }
        }
        self.state.watermarks.reset_idle_backfills();
        // By record time, so that it does not depend on where batches are cut.
        let interval = now.as_micros().div_euclid(SWEEP_EVERY_MICROS);
        if interval != self.state.swept {
            self.state.swept = interval;
            self.sweep(&plan, now, batch);
        }
    }

    fn sweep(&mut self, plan: &Plan, now: Timestamp, batch: &mut Batch) {
        for (number, types) in self.waits_for.iter() {
            let Some(Rule::Correlation(rule)) = plan.rules().get(*number) else { continue };
            for lane in [Lane::Live, Lane::Backfill] {
                let watermark = self.state.watermarks.of(types, lane);
                if let Some(state) = self.state.correlations.get_mut(&(rule.meta.digest.clone(), lane)) {
                    state.sweep(rule.timespan, watermark.min(now));
                }
            }
        }
        let limit = now.minus(REOPEN_WITHIN);
        batch.forgotten.extend(self.state.incidents.forget_before(limit));
        let stale: Vec<QuietKey> =
            self.state.quiet.iter().filter(|(_, until)| **until < limit).map(|(key, _)| key.clone()).collect();
        for key in stale {
            self.state.quiet.remove(&key);
            batch.quiet.insert(key, None);
        }
    }

    fn is_retro(&self, event: &Event) -> bool {
        event.mode == CollectionMode::Backfill
            || self.state.sources.get(&*event.source).is_some_and(|source| event.time < source.connected)
    }

    fn signal(&self, event: &Event, meta: &RuleMeta) -> Signal {
        Signal {
            time: event.time,
            event: event.id,
            member: 0,
            rule: meta.id.clone(),
            title: meta.title.clone(),
            anchor: anchor(event),
            source_type: event.source_type.name().to_owned(),
            time_known: event.time_known,
            received: event.received,
            retro: self.is_retro(event),
            fields: event.fields.iter().map(|(field, value)| (field.name().to_owned(), value.clone())).collect(),
        }
    }

    fn report_event(&mut self, number: usize, rule: &Rule, event: &Event, now: Timestamp, batch: &mut Batch) {
        let meta = rule.meta();
        let Rule::Detection(detection) = rule else { return };
        let read = |field: &str| Plan::field_text(detection.taxonomy, field, event);
        let dedup = &meta.alert.dedup;
        let key: BTreeMap<String, String> =
            dedup.iter().filter_map(|field| Some((field.clone(), read(field)?))).collect();
        if self.is_quiet(meta, &key, event.time, batch) {
            return;
        }
        let explanation = self.plan.explain(number, event);
        let finding = Finding {
            id: finding_id(&meta.id, &meta.digest, &key, &anchor(event)),
            time: event.time,
            occurred: event.time_known.then_some(event.time),
            available: event.received,
            retro: self.is_retro(event),
            entities: entities(meta, &read),
            events: vec![self.signal(event, meta).cite()],
            because: explanation.clauses.into_iter().filter(|clause| clause.held).map(|clause| clause.text).collect(),
            title: alert_title(meta, &read),
            key,
            ..described(meta, now)
        };
        self.report(finding, batch);
    }

    #[allow(clippy::too_many_arguments, reason = "two call sites; the parts are independent")]
    fn report_correlation(
        &mut self,
        plan: &Plan,
        number: usize,
        rule: &CorrelationRule,
        lane: Lane,
        fired: Fired,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let meta = &rule.meta;
        let Some(last) = fired.signals.last() else { return };
        let read = |field: &str| {
            let grouped = fired.key.get(field).cloned();
            // The last event that has the field: later events know more.
            grouped.or_else(|| {
                let values = fired.signals.iter().rev().flat_map(|signal| &signal.fields);
                values.filter(|(name, _)| name == field).map(|(_, value)| value.to_string()).next()
            })
        };
        let because = match &rule.operator {
            crate::rule::Operator::Temporal { .. } => {
                fired.signals.iter().map(|signal| format!("{} at {}", signal.title, signal.time)).collect()
            }
            _ => vec![format!("{} events within {} s", fired.count, rule.timespan.as_secs())],
        };
        for (outer, place) in self.feeds.get(&number).cloned().unwrap_or_default() {
            let Some(Rule::Correlation(next)) = plan.rules().get(outer) else { continue };
            let key: Option<GroupKey> = next.group_by.iter().map(|field| read(field)).collect();
            if let Some(key) = key {
                let signal = Signal { member: place, rule: meta.id.clone(), title: meta.title.clone(), ..last.clone() };
                self.admit(plan, outer, next, lane, key, signal, now, batch);
            }
        }
        if !meta.emits || self.is_quiet(meta, &fired.key, last.time, batch) {
            return;
        }
        let finding = Finding {
            id: finding_id(&meta.id, &meta.digest, &fired.key, &last.anchor),
            time: last.time,
            occurred: fired.signals.iter().filter(|signal| signal.time_known).map(|signal| signal.time).min(),
            available: fired.signals.iter().map(|signal| signal.received).min().unwrap_or(now),
            retro: fired.signals.iter().any(|signal| signal.retro),
            entities: entities(meta, &read),
            events: fired.signals.iter().map(Signal::cite).collect::<Vec<CitedEvent>>(),
            because,
            title: alert_title(meta, &read),
            key: fired.key.clone(),
            ..described(meta, now)
        };
        self.report(finding, batch);
    }

    /// Whether the rule spoke about this key less than `quiet` ago; if not, it speaks now.
    fn is_quiet(
        &mut self,
        meta: &RuleMeta,
        key: &BTreeMap<String, String>,
        time: Timestamp,
        batch: &mut Batch,
    ) -> bool {
        let Some(quiet) = meta.alert.quiet else { return false };
        let name = (meta.digest.clone(), key.values().cloned().collect::<Vec<_>>());
        if let Some(last) = self.state.quiet.get(&name)
            && time < last.plus(quiet)
            && time > last.minus(quiet)
        {
            self.counters.quieted += 1;
            return true;
        }
        self.state.quiet.insert(name.clone(), time);
        batch.quiet.insert(name, Some(time));
        false
    }

    fn report(&mut self, mut finding: Finding, batch: &mut Batch) {
        self.counters.findings += 1;
        if finding.state == RuleState::Active {
            let (incident, step) = self.state.incidents.admit(&finding);
            finding.incident = Some(incident.id.clone());
            batch.incidents.insert(incident.id.clone());
            let body = serde_json::json!({
                "finding": &finding,
                "incident": { "id": &incident.id, "status": incident.status, "opened": step.verb == Verb::Open },
            });
            batch.commit.outbox.push(message(&finding.id, "finding.created", &incident.id, finding.fired, body));
            batch.commit.steps.push(step);
        }
        batch.commit.findings.push(finding);
    }

    fn tell_step(&self, incident: &Incident, step: IncidentStep, batch: &mut Batch) {
        let kind = format!("incident.{}", step.verb.name());
        let body = serde_json::json!({ "incident": incident, "step": &step });
        let anchor = format!("{}/{}", incident.id, step.number);
        batch.commit.outbox.push(message(&anchor, &kind, &incident.id, step.at, body));
        batch.incidents.insert(incident.id.clone());
        batch.commit.steps.push(step);
    }

    fn finish(&mut self, batch: Batch, from: u64, committed: Timestamp) -> Result<Commit, StateError> {
        let mut commit = batch.commit;
        commit.windows = self.state.coverage.take_changed();
        self.state.coverage.close(self.state.now);
        commit.incidents = batch.incidents.iter().filter_map(|id| self.state.incidents.get(id).cloned()).collect();
        let correlations = self
            .state
            .correlations
            .iter_mut()
            .map(|(name, correlation)| (name.clone(), Correlation::take_changes(correlation)))
            .filter(|(_, changes)| !changes.is_empty())
            .collect();
        let delta = Delta {
            position: self.state.position,
            now: self.state.now,
            swept: self.state.swept,
            seen: batch.seen,
            sources: batch.sources.into_iter().collect(),
            marks: batch.marks_moved.then(|| self.state.marks()),
            correlations,
            quiet: batch.quiet.into_iter().collect(),
            incidents: commit.incidents.clone(),
            forgotten_incidents: batch.forgotten,
            windows: commit.windows.clone(),
            rule_set: self.state.rule_set.clone(),
        };
        commit.delta = delta.encode()?;
        commit.partition = self.partition;
        commit.from = from;
        commit.to = self.state.position;
        commit.committed = committed;
        Ok(commit)
    }
}

/// A finding with what its rule says of itself; the caller fills in the rest.
fn described(meta: &RuleMeta, fired: Timestamp) -> Finding {
    Finding {
        id: String::new(),
        rule_id: meta.id.clone(),
        rule_title: meta.title.clone(),
        rule_digest: meta.digest.clone(),
        level: meta.level,
        state: meta.state,
        title: String::new(),
        time: fired,
        occurred: None,
        available: fired,
        fired,
        retro: false,
        key: BTreeMap::new(),
        entities: Vec::new(),
        events: Vec::new(),
        because: Vec::new(),
        controls: meta.controls.clone(),
        tags: meta.tags.clone(),
        incident: None,
    }
}

fn anchor(event: &Event) -> Anchor {
    Anchor { source: event.source.to_string(), item: event.item.to_string(), sub: event.id.sub }
}

fn message(anchor: &str, kind: &str, incident: &str, at: Timestamp, body: serde_json::Value) -> Message {
    let hash =
        Sha256::new_with_prefix(b"pipeproof message v1\n").chain_update(kind).chain_update([0]).chain_update(anchor);
    Message {
        id: format!("m-{}", short_hex(&hash.finalize())),
        kind: kind.to_owned(),
        incident: Some(incident.to_owned()),
        at,
        body,
    }
}

/// `kind:value` of every entity the rule names and the event has; without any named, repository and identity.
fn entities(meta: &RuleMeta, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let default = [("repo", Field::CiRepo.name()), ("identity", Field::ActorId.name())];
    let named: Vec<(&str, &str)> = if meta.alert.entity.is_empty() {
        default.to_vec()
    } else {
        meta.alert.entity.iter().map(|(kind, field)| (kind.as_str(), field.as_str())).collect()
    };
    let mut entities: Vec<String> = Vec::new();
    for (kind, field) in named {
        if let Some(value) = read(field) {
            let entity = format!("{kind}:{value}");
            if !entities.contains(&entity) {
                entities.push(entity);
            }
        }
    }
    entities
}

/// The alert's title with `{field}` filled in; `?` stands for a field the event lacks.
fn alert_title(meta: &RuleMeta, read: &dyn Fn(&str) -> Option<String>) -> String {
    let Some(template) = &meta.alert.title else { return meta.title.clone() };
    let mut title = String::new();
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        title.push_str(before);
        let Some((field, after)) = after.split_once('}') else {
            title.push('{');
            rest = after;
            continue;
        };
        title.push_str(&read(field).unwrap_or_else(|| "?".to_owned()));
        rest = after;
    }
    title.push_str(rest);
    title
}

/// The group key of an event for a correlation, or `None` if it lacks a field: such an event is not counted.
fn group_key(rule: &CorrelationRule, member: &Rule, event: &Event) -> Option<GroupKey> {
    let taxonomy = match member {
        Rule::Detection(detection) => detection.taxonomy,
        Rule::Correlation(_) | Rule::Sql(_) => Taxonomy::Cicd,
    };
    let meta = member.meta();
    rule.group_by
        .iter()
        .map(|name| {
            let field = rule.aliases.get(name).and_then(|by_rule| {
                by_rule.get(&meta.id).or_else(|| meta.name.as_ref().and_then(|handle| by_rule.get(handle)))
            });
            Plan::field_text(taxonomy, field.unwrap_or(name), event)
        })
        .collect()
}

/// The source types whose watermarks a rule waits for: those it requires, or those its members' logsources are fed by.
fn source_types(plan: &Plan, number: usize, depth: usize) -> Vec<SourceType> {
    let Some(rule) = plan.rules().get(number) else { return Vec::new() };
    let required: Vec<SourceType> = rule.meta().requires.iter().filter_map(|name| name.parse().ok()).collect();
    if !required.is_empty() {
        return required;
    }
    match rule {
        Rule::Correlation(_) if depth < 8 => {
            let members = plan.members(number).iter().flat_map(|member| source_types(plan, *member, depth + 1));
            let types: BTreeSet<SourceType> = members.collect();
            types.into_iter().collect()
        }
        Rule::Correlation(_) | Rule::Sql(_) => Vec::new(),
        Rule::Detection(detection) => {
            let wanted = |kind: &SourceType| {
                let fits = |part: &Option<String>, of: &str| part.as_ref().is_none_or(|name| name == of);
                detection.logsource.product.as_deref() == Some("cicd")
                    || kind.info().native.is_some_and(|(product, service)| {
                        fits(&detection.logsource.product, product) && fits(&detection.logsource.service, service)
                    })
            };
            SourceType::ALL.iter().copied().filter(|kind| kind.is_external()).filter(wanted).collect()
        }
    }
}

mod replace;
pub use replace::RestoreError;

#[cfg(test)]
mod tests;
