//! From matches to findings, incidents and messages.

use std::collections::BTreeMap;

use super::text::{alert_title, anchor, described, entities, message, reasons};
use super::{Batch, Detector};
use crate::control::OWN_SOURCE;
use crate::correlate::{Fired, Signal, What};
use crate::event::Event;
use crate::finding::{Anchor, CitedEvent, Finding, finding_id};
use crate::incident::{Incident, IncidentStep, Verb};
use crate::plan::{FieldReader, Plan};
use crate::rule::{Rule, RuleMeta, RuleState};
use crate::time::Timestamp;
use crate::watermark::Lane;

/// Keys about which rules spoke and are quiet, at most; about a further one they speak each time.
pub(super) const QUIET_MAX: usize = 1 << 18;

/// An event as the finding of a rule that looks at one event cites it.
fn cite(event: &Event, rule: &str) -> CitedEvent {
    CitedEvent {
        id: event.id.to_string(),
        source: event.source.to_string(),
        source_type: event.source_type.name().to_owned(),
        time: event.time,
        received: event.received,
        rule: rule.to_owned(),
        fields: event.fields.to_json(),
    }
}

impl Detector {
    pub(super) fn report_event(
        &mut self,
        number: usize,
        rule: &Rule,
        event: &Event,
        reader: &FieldReader<'_>,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let meta = rule.meta();
        let Rule::Detection(detection) = rule else { return };
        let read = |field: &str| reader.text(detection.taxonomy, field);
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
            events: vec![cite(event, &meta.id)],
            because: explanation.clauses.into_iter().filter(|clause| clause.held).map(|clause| clause.text).collect(),
            title: alert_title(meta, &read),
            key,
            ..described(meta, now)
        };
        self.report(finding, batch);
    }

    /// A correlation fired: correlations above it see it, and it is a finding if the rule makes findings.
    pub(super) fn report_correlation(
        &mut self,
        plan: &Plan,
        link: usize,
        lane: Lane,
        fired: Fired,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let Some(number) = self.topology.links.get(link).map(|link| link.number) else { return };
        let Some(Rule::Correlation(rule)) = plan.rules().get(number) else { return };
        let meta = &rule.meta;
        let key: BTreeMap<String, String> = rule.group_by.iter().cloned().zip(fired.key()).collect();
        if let What::Resolved(of) = &fired.what {
            return self.resolve(plan, number, &key, of, &fired, now, batch);
        }
        let (count, value) = match &fired.what {
            What::Aggregate { value, count } => (Some(count.to_string()), Some(value.clone())),
            What::Rare { own, all } => {
                (Some(own.to_string()), Some(format!("{:.4}", *own as f64 / (*all).max(1) as f64)))
            }
            What::Spike(found) | What::Drop(found) => {
                (Some(found.count.to_string()), found.z.map(|z| format!("{z:.2}")))
            }
            What::Temporal { .. } | What::New { .. } | What::Resolved(_) => (None, None),
        };
        // The last event that has the field: later events know more.
        let found: BTreeMap<String, String> = {
            let names = &self.state.names;
            let mut found = BTreeMap::new();
            for signal in &fired.signals {
                for (name, value) in signal.detail.fields() {
                    found.insert(names.name(name).to_owned(), value.to_text());
                }
            }
            found
        };
        let read = |field: &str| match field {
            "count" if count.is_some() => count.clone(),
            "value" if value.is_some() => value.clone(),
            _ => key.get(field).or_else(|| found.get(field)).cloned(),
        };
        if let Some(anchor) = fired.anchor.as_ref().or(fired.signals.last()) {
            self.feed_tables(plan, number, (fired.time, anchor.event), &|_, field| read(field));
        }
        self.offer_finding(plan, number, lane, &fired, &read, now, batch);
        let dedup: BTreeMap<String, String> =
            meta.alert.dedup.iter().filter_map(|field| Some((field.clone(), read(field)?))).collect();
        let same = if meta.alert.dedup.is_empty() { &key } else { &dedup };
        if !meta.emits || self.is_quiet(meta, same, fired.time, batch) {
            return;
        }
        let member = |place: u16| member_of(plan, number, place);
        let names = &self.state.names;
        let hangs_on = match (&fired.anchor, &fired.what) {
            (Some(signal), _) => signal.anchor(names),
            // See the table of anchors.
            (None, What::Drop(found)) => {
                Anchor { source: OWN_SOURCE.to_owned(), item: format!("bucket:{}", found.start), sub: 0 }
            }
            (None, _) => return,
        };
        let heads: Vec<_> = fired.signals.iter().map(|signal| signal.detail.head()).collect();
        let cited = |signal: &Signal| signal.cite(member(signal.member).map_or("", |meta| &meta.id), names);
        let finding = Finding {
            id: finding_id(&meta.id, &meta.digest, &key, &hangs_on),
            time: fired.time,
            occurred: heads.iter().filter(|head| head.time_known).map(|head| head.time).min(),
            available: heads.iter().map(|head| head.received).min().unwrap_or(now),
            retro: heads.iter().any(|head| head.retro),
            entities: entities(meta, &read),
            events: fired.signals.iter().map(cited).collect(),
            because: reasons(rule, &fired, &member, &read),
            title: alert_title(meta, &read),
            key,
            ..described(meta, now)
        };
        self.report(finding, batch);
    }

    /// What a finding said was missing has come after all: its incident says so, with both events.
    #[allow(clippy::too_many_arguments, reason = "one call site; the parts are independent")]
    fn resolve(
        &mut self,
        plan: &Plan,
        number: usize,
        key: &BTreeMap<String, String>,
        of: &Signal,
        fired: &Fired,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let (Some(rule), Some(by)) = (plan.rules().get(number), fired.anchor.as_ref()) else { return };
        let meta = rule.meta();
        let title = |signal: &Signal| member_of(plan, number, signal.member).map_or("", |meta| meta.title.as_str());
        let id = finding_id(&meta.id, &meta.digest, key, &of.anchor(&self.state.names));
        let note = format!(
            "{} at {} (event {}) came after {} at {} (event {})",
            title(by),
            by.time,
            by.event,
            title(of),
            of.time,
            of.event
        );
        if let Some((incident, step)) = self.state.incidents.resolve(&id, now, note) {
            self.tell_step(&incident, step, batch);
        }
    }

    /// Whether the rule spoke about this key less than `quiet` ago; if not, it speaks now.
    pub(super) fn is_quiet(
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
        if self.state.quiet.len() < QUIET_MAX || self.state.quiet.contains_key(&name) {
            self.state.quiet.insert(name.clone(), time);
            batch.quiet.insert(name, Some(time));
        } else {
            // Rather said twice than not at all.
            self.counters.evicted += 1;
            self.counters.quiet_unkept += 1;
        }
        false
    }

    pub(super) fn report(&mut self, mut finding: Finding, batch: &mut Batch) {
        self.counters.findings += 1;
        if finding.state == RuleState::Active {
            let (incident, step) = self.state.incidents.admit(&finding);
            self.counters.evicted += u64::from(step.note.is_some());
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

    pub(super) fn tell_step(&self, incident: &Incident, step: IncidentStep, batch: &mut Batch) {
        let kind = format!("incident.{}", step.verb.name());
        let body = serde_json::json!({ "incident": incident, "step": &step });
        let anchor = format!("{}/{}", incident.id, step.number);
        batch.commit.outbox.push(message(&anchor, &kind, &incident.id, step.at, body));
        batch.incidents.insert(incident.id.clone());
        batch.commit.steps.push(step);
    }
}

/// What a member of a correlation says of itself.
fn member_of(plan: &Plan, number: usize, place: u16) -> Option<&RuleMeta> {
    let member = plan.members(number).get(usize::from(place))?;
    plan.rules().get(*member).map(Rule::meta)
}
