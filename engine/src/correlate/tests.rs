//! Every operator by what it finds, when, and what it does not.

mod absence;
mod aggregate;
mod bounds;
mod learned;
mod sequence;

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::event::EventId;
use crate::record::Position;
use crate::rule::{
    AlertSpec, Bounds, Comparison, Level, Metric, Number, RuleMeta, RuleState, Taxonomy, TemporalClause,
};

const MINUTE: Duration = Duration::from_secs(60);

fn rule(operator: Operator, members: usize) -> CorrelationRule {
    CorrelationRule {
        meta: RuleMeta {
            id: "r".into(),
            name: None,
            title: "r".into(),
            level: Level::High,
            version: None,
            digest: "d".into(),
            state: RuleState::Active,
            emits: true,
            alert: AlertSpec::default(),
            tags: Vec::new(),
            controls: BTreeMap::new(),
            requires: Vec::new(),
            author: None,
            risk: 0,
        },
        operator,
        members: (0..members).map(|number| format!("m{number}")).collect(),
        group_by: vec!["k".into()],
        aliases: BTreeMap::new(),
        timespan: MINUTE,
        session_gap: None,
        early: false,
        taxonomy: Taxonomy::Cicd,
    }
}

fn early(rule: CorrelationRule) -> CorrelationRule {
    CorrelationRule { early: true, ..rule }
}

fn bounds(comparison: Comparison, number: i128) -> Bounds {
    Bounds(vec![(comparison, Number::Int(number))])
}

fn at_least(count: i128) -> Operator {
    Operator::Aggregate { metric: Metric::Events, bounds: bounds(Comparison::Gte, count) }
}

fn temporal(ordered: bool, present: &[u16], absent: &[u16]) -> Operator {
    let clauses = vec![TemporalClause { present: present.to_vec(), absent: absent.to_vec() }];
    Operator::Temporal { ordered, clauses }
}

fn secs(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

/// A correlation with its rule, fed by hand.
struct Run {
    rule: CorrelationRule,
    names: Names,
    shape: Shape,
    state: Correlation,
    index: u64,
    blind: bool,
    now: Timestamp,
    fired: Vec<Fired>,
}

impl Run {
    fn new(rule: CorrelationRule) -> Self {
        let mut names = Names::default();
        let resolve = rule.meta.alert.resolve_on.as_ref().and_then(|name| {
            rule.members.iter().position(|member| member == name).and_then(|at| u16::try_from(at).ok())
        });
        let shape = Shape::new(&rule, &mut names, |_, name| name.to_owned(), resolve, Duration::ZERO);
        Self {
            rule,
            names,
            shape,
            state: Correlation::default(),
            index: 0,
            blind: false,
            now: secs(1 << 30),
            fired: Vec::new(),
        }
    }

    fn signal(&mut self, time: Timestamp, member: u16, fields: &[(&str, &str)]) -> Signal {
        let mut writer = DetailWriter::default();
        let source = self.names.number("s");
        let item = format!("id:{}", self.index);
        let head =
            Head { source, source_type: source, item: &item, time, received: time, time_known: true, retro: false };
        writer.begin(&head);
        for (name, value) in fields {
            writer.field(self.names.number(name), FieldValue::Text(value));
        }
        let event = EventId { position: Position { partition: 0, index: self.index }, sub: 0 };
        self.index += 1;
        Signal { time, event, member, detail: writer.detail() }
    }

    fn admit(&mut self, signal: Signal) -> usize {
        let fired = self.state.admit(&self.rule, &self.shape, signal, self.now);
        let count = fired.len();
        self.fired.extend(fired);
        count
    }

    fn at(&mut self, time: Timestamp, member: u16, fields: &[(&str, &str)]) -> usize {
        let signal = self.signal(time, member, fields);
        self.admit(signal)
    }

    /// A match in the one group.
    fn hit(&mut self, at: i64, member: u16) -> usize {
        self.at(secs(at), member, &[("k", "a")])
    }

    /// A match with a value in the one group.
    fn value(&mut self, at: i64, value: &str) -> usize {
        self.at(secs(at), 0, &[("k", "a"), ("v", value)])
    }

    fn advance(&mut self, watermark: Timestamp) -> Vec<i64> {
        let moment = Moment { watermark, now: self.now, blind: self.blind };
        let before = self.fired.len();
        if self.state.is_ready(&self.rule, &self.shape, moment) {
            self.fired.extend(self.state.advance(&self.rule, &self.shape, moment, Lane::Live));
        }
        self.fired[before..].iter().map(|one| one.time.as_micros() / 1_000_000).collect()
    }

    /// All watermarks passed: the times of all that fired.
    fn end(&mut self) -> Vec<i64> {
        self.advance(secs(1 << 30));
        self.fired.iter().map(|one| one.time.as_micros() / 1_000_000).collect()
    }

    fn restart(&mut self) {
        let bytes = postcard::to_stdvec(&self.state).unwrap();
        self.state = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(postcard::to_stdvec(&self.state).unwrap(), bytes, "a state is written in one way");
    }
}

/// Feeds `(time, member)` in that order of arrival and gives the times of what fired.
fn times(rule: CorrelationRule, arrivals: &[(i64, u16)]) -> Vec<i64> {
    let mut run = Run::new(rule);
    for (at, member) in arrivals {
        run.hit(*at, *member);
    }
    run.end()
}

/// As [`times`], with a value to each.
fn value_times(rule: CorrelationRule, arrivals: &[(i64, &str)]) -> Vec<i64> {
    let mut run = Run::new(rule);
    for (at, value) in arrivals {
        run.value(*at, value);
    }
    run.end()
}
