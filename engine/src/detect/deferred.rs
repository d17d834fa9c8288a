//! Rules with lookups, the tables they ask, and the exceptions that let matches go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::text::{alert_title, described, entities};
use super::topology::Step;
use super::{Batch, Detector};
use crate::commit::Excepted;
use crate::correlate::{FieldValue, Moment, Signal};
use crate::deferred::Candidate;
use crate::event::{Event, EventId};
use crate::finding::{Finding, finding_id};
use crate::lookup::Residual;
use crate::plan::Plan;
use crate::rule::{Rule, RuleMeta, TableRows, Taxonomy};
use crate::table::{Entry, Texts};
use crate::time::Timestamp;
use crate::watermark::Lane;

impl Detector {
    /// An event may match a rule with lookups: it waits for the tables.
    pub(super) fn defer(&mut self, plan: &Plan, number: usize, event: &Event, now: Timestamp, batch: &mut Batch) {
        let Some(question) = plan.question(number, event) else { return };
        if question.residual == Residual::Known(false) {
            return;
        }
        let verdict = plan.judge(number, event);
        let name =
            |number: &usize| plan.filters().get(*number).map(|filter| (filter.id.clone(), filter.digest.clone()));
        let candidate = Candidate {
            signal: self.whole_signal(number, event),
            question,
            let_go: verdict.let_go.as_ref().and_then(name),
            expired: verdict.expired.iter().filter_map(name).collect(),
        };
        let lane = Lane::from(event.mode);
        if candidate.question.residual == Residual::Known(true) {
            self.decide(plan, number, lane, candidate, now, batch);
        } else if let Some(lanes) = self.state.deferred.get_mut(&number) {
            lanes.of(lane).wait(candidate);
        }
    }

    /// The signal of an event with every normalised field it has: a finding is made of it later.
    fn whole_signal(&mut self, number: usize, event: &Event) -> Signal {
        let topology = Arc::clone(&self.topology);
        let wanted = topology.wanted.get(number).map_or(&[][..], Vec::as_slice);
        self.begin_signal(wanted, event);
        for (field, value) in event.fields.iter() {
            if !wanted.iter().any(|wanted| wanted.text == field.name()) {
                let name = self.state.names.number(field.name());
                self.writer.field(name, FieldValue::of(value));
            }
        }
        Signal { time: event.time, event: event.id, member: 0, detail: self.writer.detail() }
    }

    /// Decides the candidates of a rule whose time has come.
    pub(super) fn decide_ready(&mut self, plan: &Plan, step: &Step, lane: Lane, moment: Moment, batch: &mut Batch) {
        let Some(lanes) = self.state.deferred.get_mut(&step.number) else { return };
        for candidate in lanes.of(lane).take(moment, step.settle) {
            self.decide(plan, step.number, lane, candidate, moment.now, batch);
        }
    }

    fn decide(
        &mut self,
        plan: &Plan,
        number: usize,
        lane: Lane,
        candidate: Candidate,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let Some(rule) = plan.rules().get(number) else { return };
        let Candidate { signal, question, let_go, expired } = candidate;
        let tables = &self.state.tables;
        let rows = |table: usize| plan.given_rows(table).or_else(|| tables.get(table));
        let Some(because) = question.answer(plan.lookups(number), signal.time, rows) else { return };
        if self.excepted(rule.meta(), let_go, expired, &signal, now, batch) {
            return;
        }
        let found: BTreeMap<String, String> = {
            let names = &self.state.names;
            signal.detail.fields().map(|(name, value)| (names.name(name).to_owned(), value.to_text())).collect()
        };
        let read = |field: &str| found.get(field).cloned();
        self.feed_tables(plan, number, (signal.time, signal.event), &|_, field| read(field));
        self.offer(plan, number, lane, &signal, now, batch);
        if rule.meta().emits {
            self.report_deferred(rule, &signal, because, &read, now, batch);
        }
    }

    fn report_deferred(
        &mut self,
        rule: &Rule,
        signal: &Signal,
        because: Vec<String>,
        read: &dyn Fn(&str) -> Option<String>,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let meta = rule.meta();
        let dedup = &meta.alert.dedup;
        let key: BTreeMap<String, String> =
            dedup.iter().filter_map(|field| Some((field.clone(), read(field)?))).collect();
        if self.is_quiet(meta, &key, signal.time, batch) {
            return;
        }
        let names = &self.state.names;
        let head = signal.detail.head();
        let finding = Finding {
            id: finding_id(&meta.id, &meta.digest, &key, &signal.anchor(names)),
            time: signal.time,
            occurred: head.time_known.then_some(head.time),
            available: head.received,
            retro: head.retro,
            entities: entities(meta, read),
            events: vec![signal.cite(&meta.id, names)],
            because,
            title: alert_title(meta, read),
            key,
            ..described(meta, now)
        };
        self.report(finding, batch);
    }

    /// Whether an exception lets a match of a rule without lookups go.
    pub(super) fn lets_go(
        &mut self,
        plan: &Plan,
        number: usize,
        rule: &Rule,
        event: &Event,
        now: Timestamp,
        batch: &mut Batch,
    ) -> bool {
        let verdict = plan.judge(number, event);
        if verdict.let_go.is_none() && verdict.expired.is_empty() {
            return false;
        }
        let name =
            |number: &usize| plan.filters().get(*number).map(|filter| (filter.id.clone(), filter.digest.clone()));
        let let_go = verdict.let_go.as_ref().and_then(name);
        let expired = verdict.expired.iter().filter_map(name).collect();
        let seen = Seen { event: event.id, time: event.time, received: event.received };
        self.count_exceptions(rule.meta(), let_go, expired, seen, now, batch)
    }

    fn excepted(
        &mut self,
        meta: &RuleMeta,
        let_go: Option<(String, String)>,
        expired: Vec<(String, String)>,
        signal: &Signal,
        now: Timestamp,
        batch: &mut Batch,
    ) -> bool {
        let seen = Seen { event: signal.event, time: signal.time, received: signal.detail.head().received };
        self.count_exceptions(meta, let_go, expired, seen, now, batch)
    }

    fn count_exceptions(
        &mut self,
        meta: &RuleMeta,
        let_go: Option<(String, String)>,
        expired: Vec<(String, String)>,
        seen: Seen,
        now: Timestamp,
        batch: &mut Batch,
    ) -> bool {
        if let Some(name) = let_go {
            let count = self.state.exceptions.entry(name.clone()).or_default();
            count.let_go += 1;
            count.first.get_or_insert(now);
            count.last = Some(now);
            self.counters.excepted += 1;
            batch.exceptions.insert(name.clone());
            batch.commit.excepted.push(Excepted {
                filter: name.0,
                filter_digest: name.1,
                rule: meta.id.clone(),
                rule_digest: meta.digest.clone(),
                event: seen.event.to_string(),
                time: seen.time,
                received: seen.received,
            });
            return true;
        }
        for name in expired {
            self.state.exceptions.entry(name.clone()).or_default().unfiltered += 1;
            batch.exceptions.insert(name);
        }
        false
    }

    /// A match opens or closes rows of the tables its rule feeds. `read` gives its fields under the names of a taxonomy.
    pub(super) fn feed_tables(
        &mut self,
        plan: &Plan,
        number: usize,
        (time, event): (Timestamp, EventId),
        read: &dyn Fn(Taxonomy, &str) -> Option<String>,
    ) {
        for (table, edge) in plan.table_feeds(number) {
            let (Some(declared), Some(rows)) = (plan.tables().get(*table), self.state.tables.get_mut(*table)) else {
                continue;
            };
            let TableRows::Derived { key, columns, taxonomy, .. } = &declared.rows else { continue };
            let key: Vec<Option<String>> = key.iter().map(|field| read(*taxonomy, field)).collect();
            // A closing names what it closes; a match that names nothing opens nothing.
            if key.iter().all(Option::is_none) {
                continue;
            }
            let columns: Vec<Option<String>> = columns.values().map(|field| read(*taxonomy, field)).collect();
            rows.feed(Entry {
                time,
                event,
                edge: *edge,
                key: Texts::of(key.iter().map(|value| Some(value.as_deref().unwrap_or_default()))),
                columns: Texts::of(columns.iter().map(Option::as_deref)),
            });
        }
    }

    /// Lets go of rows that no candidate can ask for any more. `reached` gives, by step of the topology, what
    /// is decided in each lane.
    pub(super) fn sweep_tables(&mut self, plan: &Plan, reached: &[[Timestamp; 2]], now: Timestamp) {
        let topology = Arc::clone(&self.topology);
        for (number, rows) in self.state.tables.iter_mut().enumerate() {
            let mut oldest = now;
            for (step, reached) in topology.steps.iter().zip(reached) {
                if !plan.lookups(step.number).iter().any(|lookup| lookup.table == number) {
                    continue;
                }
                let waits = self.state.deferred.get(&step.number);
                let waits = waits.into_iter().flat_map(|lanes| [&lanes.live, &lanes.backfill]);
                let earliest = waits.filter_map(|lane| lane.earliest());
                oldest = reached.iter().copied().chain(earliest).fold(oldest, Timestamp::min);
            }
            rows.sweep(oldest);
        }
    }
}

/// The event of a match that an exception is about.
struct Seen {
    event: EventId,
    time: Timestamp,
    received: Timestamp,
}
