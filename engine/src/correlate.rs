//! Correlation: rules over several matches of other rules, evaluated in (time, record) order as the watermark passes.
//!
//! A match of a member is a [`Signal`]. Signals wait until the rule's watermark has passed their time and are then fed
//! to the operator in order, so that findings do not depend on the order of arrival within lateness. A rule with
//! `emit: early` takes them on arrival instead.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::EventId;
use crate::fields::Value;
use crate::finding::{Anchor, CitedEvent};
use crate::rule::{Comparison, CorrelationRule, Metric, Number, Operator};
use crate::time::Timestamp;
use crate::watermark::Lane;

/// Signals one group keeps at most; the oldest are evicted and counted.
pub const GROUP_SIGNALS_MAX: usize = 1_024;
/// Groups one rule keeps at most in a lane; the one with the oldest last signal is evicted and counted.
pub const GROUPS_MAX: usize = 1_000_000;
/// Events a finding cites at most.
pub const CITED_MAX: usize = 64;

/// A match of a member rule, as correlation keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// Event time.
    pub time: Timestamp,
    /// Place in the log: order among equal times.
    pub event: EventId,
    /// Number of the member in the rule's list.
    pub member: u16,
    /// The member rule's id.
    pub rule: String,
    /// The member rule's title.
    pub title: String,
    /// Source, item and number: the anchor if this signal decides.
    pub anchor: Anchor,
    /// Type of the source.
    pub source_type: String,
    /// Whether the source said when it happened.
    pub time_known: bool,
    /// Received time.
    pub received: Timestamp,
    /// History: backfill, or older than the source's connection.
    pub retro: bool,
    /// Normalised fields by name.
    pub fields: Vec<(String, Value)>,
}

impl Signal {
    fn order(&self) -> (Timestamp, EventId, u16) {
        (self.time, self.event, self.member)
    }

    /// The event as a finding cites it.
    #[must_use]
    pub fn cite(&self) -> CitedEvent {
        CitedEvent {
            id: self.event.to_string(),
            source: self.anchor.source.clone(),
            source_type: self.source_type.clone(),
            time: self.time,
            received: self.received,
            rule: self.rule.clone(),
            fields: self.fields.iter().map(|(name, value)| (name.clone(), value.to_json())).collect(),
        }
    }
}

/// What fired.
#[derive(Clone, Debug)]
pub struct Fired {
    /// Group key by field.
    pub key: BTreeMap<String, String>,
    /// The signals of the window, in order; the last one is the anchor. At most [`CITED_MAX`], the latest.
    pub signals: Vec<Signal>,
    /// How many signals the window held.
    pub count: u64,
}

/// The values of the group-by fields, in their order.
pub type GroupKey = Vec<String>;

/// One group of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Signals still in the window, in order.
    signals: Vec<Signal>,
    /// The condition holds since a finding was made: nothing more is said until it stops holding.
    holds: bool,
}

/// The state of one correlation rule in one lane.
#[derive(Clone, Debug, Default)]
pub struct Correlation {
    /// Signals whose time the watermark has not passed.
    waiting: BTreeMap<(Timestamp, EventId, u16), (GroupKey, Signal)>,
    groups: BTreeMap<GroupKey, Group>,
    changes: Vec<Change>,
    passed: Option<Timestamp>,
    /// Signals that came after the watermark had passed their time.
    pub late: u64,
    /// Signals and groups that were dropped because a bound was reached.
    pub evicted: u64,
}

/// A change of a correlation's state, as deltas keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A signal began to wait.
    Wait(GroupKey, Signal),
    /// Every signal up to this time was fed or dropped.
    Passed(Timestamp),
    /// A group is now this.
    Group(GroupKey, Group),
    /// A group is gone.
    Gone(GroupKey),
}

impl Correlation {
    /// Takes in a signal; with `rule.early` evaluates it at once.
    pub fn admit(&mut self, rule: &CorrelationRule, key: GroupKey, signal: Signal, watermark: Timestamp) -> Vec<Fired> {
        if rule.early {
            return self.feed(rule, key, signal, watermark);
        }
        if self.passed.is_some_and(|passed| signal.time <= passed) {
            self.late += 1;
            return Vec::new();
        }
        self.changes.push(Change::Wait(key.clone(), signal.clone()));
        self.waiting.insert(signal.order(), (key, signal));
        Vec::new()
    }

    /// Feeds every signal whose time the watermark has passed, and lets go of groups that can no longer matter.
    pub fn advance(&mut self, rule: &CorrelationRule, watermark: Timestamp) -> Vec<Fired> {
        let mut fired = Vec::new();
        if self.waiting.first_key_value().is_some_and(|((time, ..), _)| *time <= watermark) {
            while let Some(entry) = self.waiting.first_entry() {
                if entry.key().0 > watermark {
                    break;
                }
                let (key, signal) = entry.remove();
                fired.extend(self.feed(rule, key, signal, watermark));
            }
            self.passed = Some(watermark);
            self.changes.push(Change::Passed(watermark));
        }
        fired
    }

    /// Drops groups whose window ended before the watermark. Called once in a while: it visits every group.
    pub fn sweep(&mut self, timespan: Duration, watermark: Timestamp) {
        let limit = watermark.minus(timespan);
        let gone: Vec<GroupKey> = self
            .groups
            .iter()
            .filter(|(_, group)| group.signals.last().is_none_or(|signal| signal.time < limit))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.groups.remove(&key);
            self.changes.push(Change::Gone(key));
        }
    }

    fn feed(&mut self, rule: &CorrelationRule, key: GroupKey, signal: Signal, watermark: Timestamp) -> Vec<Fired> {
        if !self.groups.contains_key(&key) && self.groups.len() >= GROUPS_MAX {
            self.sweep(rule.timespan, watermark);
            if self.groups.len() >= GROUPS_MAX {
                self.evicted += 1;
                return Vec::new();
            }
        }
        let group = self.groups.entry(key.clone()).or_default();
        let at = group.signals.partition_point(|other| other.order() <= signal.order());
        group.signals.insert(at, signal);
        // In order, nothing older than the window of the newest signal can matter again; on arrival, the watermark
        // says how old a signal may still come.
        let newest = group.signals.last().map_or(Timestamp::MIN, |last| last.time);
        let limit = if rule.early { newest.min(watermark) } else { newest }.minus(rule.timespan);
        let drop = group.signals.partition_point(|other| other.time < limit);
        group.signals.drain(..drop);
        if group.signals.len() > GROUP_SIGNALS_MAX {
            let excess = group.signals.len() - GROUP_SIGNALS_MAX;
            group.signals.drain(..excess);
            self.evicted += excess as u64;
        }
        let fired = match &rule.operator {
            Operator::Aggregate { metric: Metric::Events, bounds } => match bounds.0.as_slice() {
                [(comparison, Number::Int(count))] => {
                    let count = u64::try_from(*count).unwrap_or(u64::MAX);
                    count_events(group, rule.timespan, *comparison, count)
                        .map(|window| vec![window])
                        .unwrap_or_default()
                }
                _ => Vec::new(),
            },
            Operator::Temporal { ordered: true, .. } => in_order(group, rule.timespan, rule.members.len()),
            _ => Vec::new(),
        };
        let names: BTreeMap<String, String> = rule.group_by.iter().cloned().zip(key.iter().cloned()).collect();
        self.changes.push(Change::Group(key, group.clone()));
        fired
            .into_iter()
            .map(|mut signals| {
                let count = signals.len() as u64;
                let excess = signals.len().saturating_sub(CITED_MAX);
                signals.drain(..excess);
                Fired { key: names.clone(), signals, count }
            })
            .collect()
    }

    /// The changes since they were last taken. Of several to one group the last counts.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.changes);
        let mut last_of: std::collections::HashSet<GroupKey> = std::collections::HashSet::new();
        changes.reverse();
        changes.retain(|change| match change {
            Change::Group(key, _) | Change::Gone(key) => last_of.insert(key.clone()),
            Change::Wait(..) | Change::Passed(_) => true,
        });
        changes.reverse();
        changes
    }

    /// The whole state as changes from nothing, for a snapshot.
    #[must_use]
    pub fn as_changes(&self) -> Vec<Change> {
        let passed = self.passed.map(Change::Passed);
        let waiting = self.waiting.values().map(|(key, signal)| Change::Wait(key.clone(), signal.clone()));
        let groups = self.groups.iter().map(|(key, group)| Change::Group(key.clone(), group.clone()));
        passed.into_iter().chain(waiting).chain(groups).collect()
    }

    /// Applies a change, as restoring does.
    pub fn restore(&mut self, change: Change) {
        match change {
            Change::Wait(key, signal) => {
                self.waiting.insert(signal.order(), (key, signal));
            }
            Change::Passed(time) => {
                self.passed = Some(time);
                self.waiting.retain(|(at, ..), _| *at > time);
            }
            Change::Group(key, group) => {
                self.groups.insert(key, group);
            }
            Change::Gone(key) => {
                self.groups.remove(&key);
            }
        }
    }

    /// Whether signals wait for the watermark.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Live groups and waiting signals.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.groups.len(), self.waiting.len())
    }
}

/// The window that made the condition true after it was false. In order it is the window that ends at the newest
/// signal; a signal taken on arrival may complete a window that ends later than itself, so every window is looked at.
fn count_events(group: &mut Group, span: Duration, comparison: Comparison, count: u64) -> Option<Vec<Signal>> {
    let signals = &group.signals;
    let mut start = 0;
    let mut found = None;
    for (end, last) in signals.iter().enumerate() {
        while signals.get(start).is_some_and(|first| first.time < last.time.minus(span)) {
            start += 1;
        }
        if comparison.holds(&((end - start + 1) as u64), &count) {
            found = Some((start, end));
        }
    }
    let newest_holds = found.is_some_and(|(_, end)| end + 1 == signals.len());
    let holds = found.is_some();
    let fire = holds && !group.holds;
    group.holds = match comparison {
        // "At least" goes on holding as long as any kept window holds; the others are judged at the newest signal.
        Comparison::Gt | Comparison::Gte => holds,
        Comparison::Lt | Comparison::Lte | Comparison::Eq | Comparison::Neq => newest_holds,
    };
    let (start, end) = found.filter(|_| fire)?;
    signals.get(start..=end).map(<[Signal]>::to_vec)
}

/// Ordered sequences that end at a signal of the last member; the signals used are taken out, so that none is used twice.
fn in_order(group: &mut Group, span: Duration, members: usize) -> Vec<Vec<Signal>> {
    let mut fired = Vec::new();
    let mut end = 0;
    while end < group.signals.len() {
        match sequence_ending_at(&group.signals, end, span, members) {
            Some(mut used) => {
                used.sort_unstable();
                fired.push(used.iter().filter_map(|at| group.signals.get(*at).cloned()).collect());
                for at in used.iter().rev() {
                    group.signals.remove(*at);
                }
                end = 0;
            }
            None => end += 1,
        }
    }
    fired
}

/// The latest possible predecessors of a signal of the last member, each strictly before the next in (time, record) order.
fn sequence_ending_at(signals: &[Signal], end: usize, span: Duration, members: usize) -> Option<Vec<usize>> {
    let last = signals.get(end)?;
    let mut wanted = members.checked_sub(1)?;
    if usize::from(last.member) != wanted {
        return None;
    }
    let mut used = vec![end];
    let mut before = last;
    for (at, signal) in signals.get(..end)?.iter().enumerate().rev() {
        if wanted == 0 {
            break;
        }
        if signal.time < last.time.minus(span) {
            return None;
        }
        // One event that matches two members does not follow itself.
        if usize::from(signal.member) + 1 == wanted && signal.event != before.event {
            used.push(at);
            before = signal;
            wanted -= 1;
        }
    }
    (wanted == 0).then_some(used)
}

/// A correlation's state is kept per rule digest and lane: a rule that changes what it decides starts anew.
pub type CorrelationName = (String, Lane);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Position;
    use crate::rule::{AlertSpec, Bounds, Level, RuleMeta, RuleState, Taxonomy, TemporalClause};

    fn rule(operator: Operator, members: usize, early: bool) -> CorrelationRule {
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
            },
            operator,
            members: (0..members).map(|number| format!("m{number}")).collect(),
            group_by: vec!["k".into()],
            aliases: BTreeMap::new(),
            timespan: Duration::from_secs(60),
            session_gap: None,
            early,
            taxonomy: Taxonomy::Cicd,
        }
    }

    fn signal(secs: i64, index: u64, member: u16) -> Signal {
        Signal {
            time: Timestamp::from_secs(secs),
            event: EventId { position: Position { partition: 0, index }, sub: 0 },
            member,
            rule: format!("m{member}"),
            title: String::new(),
            anchor: Anchor { source: "s".into(), item: format!("id:{index}"), sub: 0 },
            source_type: "json".into(),
            time_known: true,
            received: Timestamp::from_secs(secs),
            retro: false,
            fields: Vec::new(),
        }
    }

    /// Feeds `(time, member)` in that order of arrival and returns the anchor times of what fired, all watermarks passed.
    fn run(rule: &CorrelationRule, arrivals: &[(i64, u16)]) -> Vec<i64> {
        let mut state = Correlation::default();
        let mut fired = Vec::new();
        for (index, (secs, member)) in arrivals.iter().enumerate() {
            fired.extend(state.admit(rule, vec!["k".into()], signal(*secs, index as u64, *member), Timestamp::MIN));
        }
        fired.extend(state.advance(rule, Timestamp::MAX));
        fired.iter().map(|one| one.signals.last().unwrap().time.as_micros() / 1_000_000).collect()
    }

    fn three() -> Operator {
        Operator::Aggregate { metric: Metric::Events, bounds: Bounds(vec![(Comparison::Gte, Number::Int(3))]) }
    }

    fn ordered(members: u16) -> Operator {
        let clauses = vec![TemporalClause { present: (0..members).collect(), absent: Vec::new() }];
        Operator::Temporal { ordered: true, clauses }
    }

    #[test]
    fn a_count_fires_once_while_it_holds_and_again_after_it_did_not() {
        let rule = rule(three(), 1, false);
        assert_eq!(run(&rule, &[(0, 0), (10, 0), (20, 0), (30, 0)]), [20]);
        assert_eq!(run(&rule, &[(0, 0), (10, 0), (200, 0), (210, 0), (220, 0)]), [220]);
        assert_eq!(run(&rule, &[(0, 0), (30, 0), (60, 0)]), [60], "a window includes its ends");
        assert_eq!(run(&rule, &[(0, 0), (30, 0), (61, 0)]), [0_i64; 0]);
        assert_eq!(run(&rule, &[(0, 0), (1, 0), (2, 0), (500, 0), (501, 0), (502, 0)]), [2, 502]);
    }

    #[test]
    fn arrival_order_does_not_matter() {
        let rule = rule(three(), 1, false);
        assert_eq!(run(&rule, &[(20, 0), (0, 0), (10, 0), (30, 0)]), [20]);
        assert_eq!(run(&rule, &[(3_600, 0), (0, 0), (10, 0)]), [0_i64; 0], "an early clock does not fill the window");
    }

    #[test]
    fn early_fires_on_arrival_and_once() {
        let early = rule(three(), 1, true);
        let mut state = Correlation::default();
        let mut fired = Vec::new();
        for (index, secs) in [20, 0, 10, 30].into_iter().enumerate() {
            fired.push(state.admit(&early, vec!["k".into()], signal(secs, index as u64, 0), Timestamp::MIN).len());
        }
        assert_eq!(fired, [0, 0, 1, 0]);
    }

    #[test]
    fn early_counts_only_what_fits_one_window() {
        let early = rule(three(), 1, true);
        assert_eq!(run(&early, &[(100, 0), (0, 0), (50, 0)]), [0_i64; 0], "three, but never within 60 s");
    }

    #[test]
    fn a_signal_behind_the_watermark_is_counted_and_decides_nothing() {
        let rule = rule(three(), 1, false);
        let mut state = Correlation::default();
        for (index, secs) in [0, 10].into_iter().enumerate() {
            state.admit(&rule, vec!["k".into()], signal(secs, index as u64, 0), Timestamp::MIN);
        }
        let passed = Timestamp::from_secs(30);
        assert!(state.advance(&rule, passed).is_empty());
        assert!(state.admit(&rule, vec!["k".into()], signal(20, 2, 0), passed).is_empty());
        assert!(state.advance(&rule, Timestamp::MAX).is_empty());
        assert_eq!(state.late, 1);
    }

    #[test]
    fn a_sequence_needs_its_order_inside_the_window() {
        let rule = rule(ordered(3), 3, false);
        assert_eq!(run(&rule, &[(0, 0), (10, 1), (20, 2)]), [20]);
        assert_eq!(run(&rule, &[(20, 2), (10, 1), (0, 0)]), [20], "arrival order does not matter");
        assert_eq!(run(&rule, &[(0, 1), (10, 0), (20, 2)]), [0_i64; 0]);
        assert_eq!(run(&rule, &[(0, 0), (10, 1), (61, 2)]), [0_i64; 0]);
        assert_eq!(run(&rule, &[(0, 0), (10, 1), (20, 2), (25, 2)]), [20], "an event is used once");
        assert_eq!(run(&rule, &[(0, 0), (10, 1), (20, 2), (30, 0), (31, 1), (32, 2)]), [20, 32]);
    }

    #[test]
    fn equal_times_are_ordered_by_the_log() {
        let rule = rule(ordered(2), 2, false);
        assert_eq!(run(&rule, &[(5, 0), (5, 1)]), [5]);
        assert_eq!(run(&rule, &[(5, 1), (5, 0)]), [0_i64; 0]);
    }

    #[test]
    fn state_is_restored_exactly_at_every_cut() {
        let arrivals = [(0, 0), (40, 0), (10, 1), (41, 1), (20, 2), (42, 2), (90, 0)];
        let rule = rule(ordered(3), 3, false);
        let expected = run(&rule, &arrivals);
        for cut in 0..=arrivals.len() {
            let mut state = Correlation::default();
            let mut fired = Vec::new();
            for (index, (secs, member)) in arrivals.iter().enumerate() {
                if index == cut {
                    let mut restored = Correlation::default();
                    for change in state.take_changes() {
                        let bytes = postcard::to_stdvec(&change).unwrap();
                        restored.restore(postcard::from_bytes(&bytes).unwrap());
                    }
                    state = restored;
                }
                let signal = signal(*secs, index as u64, *member);
                fired.extend(state.admit(&rule, vec!["k".into()], signal, Timestamp::MIN));
                fired.extend(state.advance(&rule, Timestamp::from_secs(*secs - 45)));
            }
            fired.extend(state.advance(&rule, Timestamp::MAX));
            let times: Vec<i64> =
                fired.iter().map(|one| one.signals.last().unwrap().time.as_micros() / 1_000_000).collect();
            assert_eq!(times, expected, "cut at {cut}");
        }
    }
}
