//! From matches to correlations: matches become signals, time lets correlations decide.

use std::sync::Arc;

use super::topology::{Turn, Wanted};
use super::{Batch, Detector};
use crate::correlate::{DetailWriter, FieldValue, Fired, Head, Moment, Signal};
use crate::event::Event;
use crate::json::Json;
use crate::plan::{FieldReader, Plan};
use crate::record::CollectionMode;
use crate::rule::{Rule, RuleMeta};
use crate::spelling::Spelling;
use crate::state::QuietKey;
use crate::time::Timestamp;
use crate::watermark::Lane;

/// How often, in record time, what time has passed by is let go.
const SWEEP_EVERY_MICROS: i64 = 60 * 1_000_000;

impl Detector {
    /// Looks at the events of a record and at the rules they match, as (event, rule).
    pub(super) fn evaluate(&mut self, events: &[Event], hits: &[(usize, usize)], now: Timestamp, batch: &mut Batch) {
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
            self.matched(&plan, *number, rule, event, now, batch);
        }
    }

    /// A detection rule matched an event: if nothing has to be looked up first and no exception lets it go, tables and
    /// correlations see it, and it is a finding if the rule makes findings.
    pub(super) fn matched(
        &mut self,
        plan: &Plan,
        number: usize,
        rule: &Rule,
        event: &Event,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        if !plan.lookups(number).is_empty() {
            return self.defer(plan, number, event, now, batch);
        }
        if self.lets_go(plan, number, rule, event, now, batch) {
            return;
        }
        let reader = FieldReader::new(event);
        self.feed_tables(plan, number, (event.time, event.id), &|taxonomy, field| reader.text(taxonomy, field));
        if self.topology.feeds.get(number).is_some_and(|feeds| !feeds.is_empty()) {
            let signal = self.signal(number, event);
            self.offer(plan, number, Lane::from(event.mode), &signal, now, batch);
        }
        if rule.meta().emits {
            self.report_event(number, rule, event, &reader, now, batch);
        }
    }

    /// History: backfill, or older than the connection of its source.
    pub(super) fn is_retro(&self, event: &Event) -> bool {
        event.mode == CollectionMode::Backfill
            || self.state.sources.get(&*event.source).is_some_and(|source| event.time < source.connected)
    }

    fn signal(&mut self, number: usize, event: &Event) -> Signal {
        let topology = Arc::clone(&self.topology);
        self.begin_signal(topology.wanted.get(number).map_or(&[], Vec::as_slice), event);
        Signal { time: event.time, event: event.id, member: 0, detail: self.writer.detail() }
    }

    /// Begins the block of a signal with these fields.
    pub(super) fn begin_signal(&mut self, wanted: &[Wanted], event: &Event) {
        let head = Head {
            source: self.state.names.number(&event.source),
            source_type: self.state.names.number(event.source_type.name()),
            item: &event.item,
            time: event.time,
            received: event.received,
            time_known: event.time_known,
            retro: self.is_retro(event),
        };
        self.writer.begin(&head);
        write_fields(&mut self.writer, wanted, event);
    }

    /// Shows a match of a rule to the correlations it is a member of.
    pub(super) fn offer(
        &mut self,
        plan: &Plan,
        number: usize,
        lane: Lane,
        signal: &Signal,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let topology = Arc::clone(&self.topology);
        let feeds = topology.feeds.get(number).map_or(&[][..], Vec::as_slice);
        let mut shown: Vec<(usize, Signal)> = Vec::with_capacity(feeds.len());
        let mut written: Vec<(u32, u16)> = Vec::with_capacity(feeds.len());
        for (at, member) in feeds {
            let Some(link) = topology.links.get(*at) else { continue };
            let own = Signal { member: *member, ..signal.clone() };
            if link.shape.counts(&own, &mut self.scratch) {
                written.push((self.journal.number(*at, &link.name), *member));
                shown.push((*at, own));
            }
        }
        if shown.is_empty() {
            return;
        }
        self.journal.admit(now, lane, signal, &written);
        for (at, own) in shown {
            for fired in self.state.admit(plan, &topology, at, lane, own, now) {
                self.report_correlation(plan, at, lane, fired, now, batch);
            }
        }
    }

    /// Shows what a correlation found to the correlations it is a member of.
    #[allow(clippy::too_many_arguments, reason = "one call site; the parts are independent")]
    pub(super) fn offer_finding(
        &mut self,
        plan: &Plan,
        number: usize,
        lane: Lane,
        fired: &Fired,
        read: &dyn Fn(&str) -> Option<String>,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let topology = Arc::clone(&self.topology);
        if topology.feeds.get(number).is_none_or(Vec::is_empty) {
            return;
        }
        let Some(anchor) = fired.anchor.as_ref().or(fired.signals.last()) else { return };
        self.writer.begin(&anchor.detail.head());
        for wanted in topology.wanted.get(number).into_iter().flatten() {
            if let Some(value) = read(&wanted.text) {
                self.writer.field(wanted.name, FieldValue::Text(&value));
            }
        }
        let signal = Signal { time: fired.time, event: anchor.event, member: 0, detail: self.writer.detail() };
        self.offer(plan, number, lane, &signal, now, batch);
    }

    /// Lets watermarks decide what was waiting, and forgets what time has passed by. Only ticks do this.
    pub(super) fn advance(&mut self, now: Timestamp, batch: &mut Batch) {
        let plan = Arc::clone(&self.plan);
        let topology = Arc::clone(&self.topology);
        let lowest = [Lane::Live, Lane::Backfill].map(|lane| self.state.watermarks.lowest(lane, now));
        let heard = self.state.watermarks.heard(now);
        let mut reached: Vec<[Timestamp; 2]> = Vec::with_capacity(topology.steps.len());
        for step in &topology.steps {
            let mut own = lowest.map(|lowest| lowest.over(&step.types)).map(|watermark| {
                // The end of a backfill is not put off: nothing comes after it.
                if watermark == Timestamp::MAX { watermark } else { watermark.minus(step.lag) }
            });
            for inner in step.inner.iter().filter_map(|inner| reached.get(*inner)) {
                own.iter_mut().zip(inner).for_each(|(own, inner)| *own = (*own).min(*inner));
            }
            reached.push(own);
            let hears = |types: &Vec<_>| types.iter().any(|kind| heard.get(*kind as usize) == Some(&true));
            let blind = !self.trusts_silence && !step.needs.iter().all(hears);
            // A table that was never filled says nothing about what it lacks, not of history either.
            let ran = |meta: &RuleMeta| self.state.episodes.contains_key(&(meta.id.clone(), meta.digest.clone()));
            let unfilled = !self.trusts_silence && !plan.asked_for(step.number).all(ran);
            for (lane, watermark) in [Lane::Live, Lane::Backfill].into_iter().zip(own) {
                let moment = Moment { watermark, now, blind: unfilled || (blind && lane == Lane::Live) };
                let at = match step.of {
                    Turn::Correlation(at) => at,
                    Turn::Lookups => {
                        self.decide_ready(&plan, step, lane, moment, batch);
                        continue;
                    }
                };
                let Some(link) = topology.links.get(at) else { continue };
                if !self.state.is_ready(&plan, &topology, at, lane, moment) {
                    continue;
                }
                let number = self.journal.number(at, &link.name);
                self.journal.advance(number, lane, moment);
                for fired in self.state.advance(&plan, &topology, at, lane, moment) {
                    self.report_correlation(&plan, at, lane, fired, now, batch);
                }
            }
        }
        self.state.watermarks.reset_idle_backfills();
        // By record time, so that it does not depend on where batches are cut.
        let interval = now.as_micros().div_euclid(SWEEP_EVERY_MICROS);
        if interval != self.state.swept {
            self.state.swept = interval;
            self.sweep(now, batch);
            self.sweep_tables(&plan, &reached, now);
        }
    }

    fn sweep(&mut self, now: Timestamp, batch: &mut Batch) {
        let limit = now.minus(crate::incident::REOPEN_WITHIN);
        batch.forgotten.extend(self.state.incidents.forget_before(limit));
        let stale: Vec<QuietKey> =
            self.state.quiet.iter().filter(|(_, until)| **until < limit).map(|(key, _)| key.clone()).collect();
        for key in stale {
            self.state.quiet.remove(&key);
            batch.quiet.insert(key, None);
        }
    }
}

/// Writes the fields a signal keeps; the native JSON is read once at most.
fn write_fields(writer: &mut DetailWriter, wanted: &[Wanted], event: &Event) {
    let mut json = None;
    for one in wanted {
        if let Some(field) = one.field {
            if let Some(value) = event.fields.get(field) {
                writer.field(one.name, FieldValue::of(value));
            }
            continue;
        }
        if !one.native {
            continue;
        }
        let json = json.get_or_insert_with(|| Json::parse(&event.native).ok());
        let Some(json) = json else { continue };
        let found = Spelling::of(event.source_type).find(json.root(), &one.text);
        let Some(value) = found.into_iter().find(|value| !value.is_null() && !value.is_array()) else { continue };
        match value.as_i64() {
            Some(number) => writer.field(one.name, FieldValue::Int(number)),
            None => match value.as_bool() {
                Some(truth) => writer.field(one.name, FieldValue::Bool(truth)),
                None => writer.field(one.name, FieldValue::Text(&value.text())),
            },
        }
    }
}
