//! The promises of detection as a whole: results do not depend on where batches are cut or where it was restored.

mod numbers;
mod quiet;
mod replace;
mod tables;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::commit::Completeness;
use crate::control::Control;
use crate::event::EventId;
use crate::fields::{Field, Fields, Value};
use crate::incident::Verb;
use crate::record::{Envelope, Position};
use crate::rule::{
    AffixKind, AlertSpec, Bounds, Comparison, Condition, CorrelationRule, DetectionRule, Learn, Level, Metric, Number,
    Operator, Predicate, Rule, RuleMeta, RuleState, Taxonomy, TemporalClause, TextTest,
};
use crate::source::Logsource;

fn meta(name: &str, emits: bool) -> RuleMeta {
    RuleMeta {
        id: name.to_owned(),
        name: Some(name.to_owned()),
        title: name.to_owned(),
        level: Level::High,
        version: None,
        digest: format!("digest of {name}"),
        state: RuleState::Active,
        emits,
        alert: AlertSpec { entity: vec![("repo".into(), "ci.repo".into())], ..AlertSpec::default() },
        tags: Vec::new(),
        controls: BTreeMap::new(),
        requires: vec!["json".into()],
        author: None,
        risk: 0,
    }
}

fn detection(name: &str, action: &str, emits: bool) -> Rule {
    let test = TextTest::Plain { kind: AffixKind::Equals, text: action.to_owned() };
    Rule::Detection(DetectionRule {
        meta: meta(name, emits),
        logsource: Logsource { product: Some("cicd".into()), ..Logsource::default() },
        taxonomy: Taxonomy::Cicd,
        condition: Condition::Field { field: "action".to_owned(), predicate: Predicate::Text { test, cased: false } },
    })
}

fn correlation(name: &str, operator: Operator, members: &[&str], early: bool) -> Rule {
    Rule::Correlation(CorrelationRule {
        meta: meta(name, true),
        operator,
        members: members.iter().map(|member| (*member).to_owned()).collect(),
        group_by: vec!["ci.repo".to_owned()],
        aliases: BTreeMap::new(),
        timespan: Duration::from_secs(120),
        session_gap: None,
        early,
        taxonomy: Taxonomy::Cicd,
    })
}

fn temporal(ordered: bool, present: &[u16], absent: &[u16]) -> Operator {
    let clauses = vec![TemporalClause { present: present.to_vec(), absent: absent.to_vec() }];
    Operator::Temporal { ordered, clauses }
}

fn at_least(metric: Metric, count: i128) -> Operator {
    Operator::Aggregate { metric, bounds: Bounds(vec![(Comparison::Gte, Number::Int(count))]) }
}

/// A rule of every operator, and two that look at others.
fn rules() -> Vec<Rule> {
    let actor = || vec!["actor.id".to_owned()];
    let spike = |comparison, deviation| Operator::Spike {
        field: None,
        comparison,
        deviation,
        floor: 2,
        baseline: Duration::from_secs(1_200),
        hour_of_week: false,
        learn_buckets: 1,
    };
    vec![
        detection("a", "act.a", true),
        detection("b", "act.b", false),
        correlation("many", at_least(Metric::Events, 3), &["b"], false),
        correlation("soon", at_least(Metric::Events, 3), &["b"], true),
        correlation("order", temporal(true, &[0, 1], &[]), &["a", "b"], false),
        correlation("both", temporal(false, &[0, 1], &[]), &["a", "b"], false),
        correlation("actors", at_least(Metric::Distinct(actor()), 2), &["a", "b"], false),
        correlation("lonely", temporal(true, &[0], &[1]), &["a", "b"], false),
        correlation("unasked", temporal(false, &[1], &[0]), &["a", "b"], false),
        correlation(
            "new",
            Operator::New { fields: actor(), learn: Learn { events: 2, ..Learn::default() } },
            &["b"],
            false,
        ),
        correlation(
            "rare",
            Operator::Rare { fields: actor(), bounds: Bounds(vec![(Comparison::Lte, Number::Float(0.3))]), min: 4 },
            &["a", "b"],
            false,
        ),
        correlation("spike", spike(Comparison::Gte, 1.0), &["a"], false),
        correlation("drop", spike(Comparison::Lt, -0.5), &["b"], false),
        // Listed before what it looks at.
        correlation("outer", temporal(false, &[0, 1], &[]), &["lonely", "inner"], false),
        correlation("inner", at_least(Metric::Events, 2), &["a", "soon"], false),
    ]
}

fn plan() -> Arc<Plan> {
    Arc::new(Plan::compile(rules()).unwrap())
}

fn envelope(index: u64, received: i64, own: bool, item: String) -> Envelope {
    Envelope {
        source: if own { OWN_SOURCE } else { "src" }.to_owned(),
        source_type: if own { SourceType::Pipeproof } else { SourceType::Json },
        received: Timestamp::from_secs(received),
        auth: if own { Authenticity::Own } else { Authenticity::Bearer },
        key_id: None,
        item: if own { format!("id:own-{index}") } else { item },
        mode: CollectionMode::Live,
        attributes: BTreeMap::new(),
        redacted: Vec::new(),
    }
}

fn control(index: u64, received: i64, control: &Control) -> Decoded {
    let body = Bytes::from(serde_json::to_vec(control).unwrap());
    let record = Record { envelope: envelope(index, received, true, String::new()), salt: [0; 16], body };
    Decoded { index, record, events: Ok(Vec::new()) }
}

fn event(index: u64, received: i64, time: i64, action: &str, repo: &str, item: u64) -> Decoded {
    // Three actors, by the item.
    let actor = ["ann", "bob", "eve"][usize::try_from(item % 3).unwrap()];
    let mut envelope = envelope(index, received, false, format!("id:{item}"));
    envelope.attributes.insert(sequence::STREAM.to_owned(), format!("of {repo}"));
    envelope.attributes.insert(sequence::NUMBER.to_owned(), (item + 1).to_string());
    let mut fields = Fields::default();
    fields.set(Field::Action, Value::Text(action.into()));
    fields.set(Field::CiRepo, Value::Text(repo.into()));
    fields.set(Field::ActorId, Value::Text(actor.into()));
    let event = Event {
        id: EventId { position: Position { partition: 0, index }, sub: 0 },
        source: "src".into(),
        source_type: SourceType::Json,
        item: envelope.item.as_str().into(),
        time: Timestamp::from_secs(time),
        time_known: true,
        received: envelope.received,
        auth: envelope.auth,
        mode: envelope.mode,
        fields,
        native: Bytes::from_static(b"{}"),
    };
    let record = Record { envelope, salt: [0; 16], body: Bytes::from_static(b"{}") };
    Decoded { index, record, events: Ok(vec![event]) }
}

/// Ids of findings and messages, and the last state, of a stream in batches that end where `cut` says; restoring from what
/// was committed after every batch if asked to.
fn run(stream: &[Decoded], cut: impl Fn(usize) -> bool, restore: bool) -> (Vec<String>, Vec<u8>) {
    let plan = plan();
    let mut detector = Detector::new(Arc::clone(&plan), 0);
    let mut restored = Restored::default();
    let (mut ids, mut messages) = (Vec::new(), Vec::new());
    let mut batch = Vec::new();
    for (at, decoded) in stream.iter().enumerate() {
        batch.push(decoded.clone());
        if !cut(at) && at + 1 < stream.len() {
            continue;
        }
        let commit = detector.apply(std::mem::take(&mut batch), Timestamp::default()).unwrap();
        ids.extend(commit.findings.iter().map(|finding| finding.id.clone()));
        messages.extend(commit.outbox.iter().map(|message| message.id.clone()));
        restored.position = commit.to;
        restored.deltas.push(commit.delta);
        if restore {
            detector = Detector::restore(Arc::clone(&plan), 0, &restored).unwrap();
        }
    }
    ids.append(&mut messages);
    (ids, detector.snapshot().unwrap())
}

fn streams() -> impl Strategy<Value = Vec<Decoded>> {
    paced(0_i64..20)
}

/// Streams of records that are so many seconds apart.
fn paced(pause: impl Strategy<Value = i64>) -> impl Strategy<Value = Vec<Decoded>> {
    let kind = prop_oneof![Just("act.a"), Just("act.b"), Just("act.c")];
    let repo = prop_oneof![Just("x/one"), Just("x/two")];
    let step = (pause, 0_i64..50, kind, repo, 0_u64..30, 0_u8..4);
    proptest::collection::vec(step, 1..60).prop_map(|steps| {
        let mut now = 1_000_000;
        let mut stream = Vec::new();
        for (index, (pause, behind, action, repo, item, tick)) in steps.into_iter().enumerate() {
            now += pause;
            let index = index as u64;
            stream.push(if tick == 0 {
                control(index, now, &Control::Tick {})
            } else {
                event(index, now, now - behind, action, repo, item)
            });
        }
        let end = stream.len() as u64;
        stream.push(control(end, now + 600, &Control::Tick {}));
        stream
    })
}

proptest! {
    #[test]
    fn findings_do_not_depend_on_where_batches_are_cut(stream in streams(), size in 1_usize..9) {
        let whole = run(&stream, |_| false, false);
        prop_assert_eq!(&run(&stream, |at| at % size == 0, false), &whole);
        prop_assert_eq!(&run(&stream, |_| true, false), &whole);
    }

    #[test]
    fn findings_do_not_depend_on_where_detection_was_restored(stream in streams(), size in 1_usize..9) {
        let whole = run(&stream, |_| false, false);
        prop_assert_eq!(&run(&stream, |at| at % size == 0, true), &whole);
        prop_assert_eq!(&run(&stream, |_| true, true), &whole, "at every record");
    }

    #[test]
    fn delivering_everything_twice_finds_the_same(stream in streams()) {
        let mut twice = Vec::new();
        for decoded in &stream {
            for _ in 0..2 {
                let mut again = decoded.clone();
                again.index = twice.len() as u64;
                twice.push(again);
            }
        }
        // Events keep their positions inside the record here, so equal ids mean equal anchors.
        prop_assert_eq!(ids(&twice), ids(&stream));
    }

    /// The lake has no repetitions, and an evaluation of it concludes the same. Some events are history, whose lane rests after a minute.
    #[test]
    fn what_repeats_changes_nothing(stream in paced(prop_oneof![3 => 0_i64..6, 1 => 25_i64..62]), history in 1_u64..5) {
        let mut stream = stream;
        for decoded in &mut stream {
            if decoded.index % 4 < history && decoded.record.envelope.auth != Authenticity::Own {
                decoded.record.envelope.mode = CollectionMode::Backfill;
                decoded.events.iter_mut().flatten().for_each(|event| event.mode = CollectionMode::Backfill);
            }
        }
        let commit = Detector::new(plan(), 0).apply(stream.clone(), Timestamp::default()).unwrap();
        let repeated: Vec<u64> = commit.duplicates.iter().map(|duplicate| duplicate.index).collect();
        let mut without = stream.clone();
        without.retain(|decoded| !repeated.contains(&decoded.index));
        prop_assert_eq!(ids(&without), ids(&stream));
    }

    #[test]
    fn the_order_of_arrival_within_lateness_changes_nothing(
        events in proptest::collection::vec((0_i64..1_500, 0_u8..2, 0_u8..2, 0_i64..40), 1..60),
    ) {
        let as_they_happened = arriving(&events, |_| 0);
        let as_they_came = arriving(&events, |delay| delay);
        prop_assert_eq!(ids_but_early(&as_they_came), ids_but_early(&as_they_happened));
    }

    #[test]
    fn keys_do_not_depend_on_one_another(
        events in proptest::collection::vec((0_i64..1_500, 0_u8..2, 0_u8..2, 0_i64..40), 1..60),
    ) {
        // Both runs see the same records at the same times: the other key's are of an action no rule looks at.
        let whole = arriving(&events, |delay| delay);
        let mut parts = ids_but_early(&masked(&whole, "x/0"));
        parts.extend(ids_but_early(&masked(&whole, "x/1")));
        parts.sort();
        prop_assert_eq!(parts, ids_but_early(&whole));
    }
}

/// Ids of findings and messages of the stream as a set.
fn ids(stream: &[Decoded]) -> Vec<String> {
    let mut ids = run(stream, |_| false, false).0;
    ids.sort();
    ids
}

/// Ids of the findings that are promised not to depend on the order of arrival: all but those of the rule that fires early
/// and of those that look at it. Which finding opens an incident does depend on it.
fn ids_but_early(stream: &[Decoded]) -> Vec<String> {
    let commit = Detector::new(plan(), 0).apply(stream.to_vec(), Timestamp::default()).unwrap();
    let early = ["soon", "inner", "outer"];
    let mut ids: Vec<String> = commit
        .findings
        .iter()
        .filter(|finding| !early.contains(&finding.rule_id.as_str()))
        .map(|finding| format!("{} {} {}", finding.rule_id, finding.time, finding.id))
        .collect();
    ids.sort();
    ids
}

/// `(time, action, repo, delay)`: as records in the order in which they arrive, with a tick every ten seconds. No two events
/// happen at the same time, since the log orders those.
fn arriving(events: &[(i64, u8, u8, i64)], delay: impl Fn(i64) -> i64) -> Vec<Decoded> {
    const START: i64 = 1_000_000;
    let mut sorted = events.to_vec();
    sorted.sort_unstable();
    sorted.dedup_by_key(|(at, ..)| *at);
    let mut arrivals: Vec<(i64, usize)> =
        sorted.iter().enumerate().map(|(item, (at, _, _, late))| (at + delay(*late), item)).collect();
    arrivals.sort_unstable();
    let mut stream: Vec<Decoded> = Vec::new();
    let mut now = 0;
    for (received, item) in arrivals {
        while now + 10 < received {
            now += 10;
            stream.push(control(stream.len() as u64, START + now, &Control::Tick {}));
        }
        let (at, action, repo, _) = sorted[item];
        let action = ["act.a", "act.b"][usize::from(action)];
        let index = stream.len() as u64;
        stream.push(event(index, START + received, START + at, action, &format!("x/{repo}"), item as u64));
    }
    for _ in 0..70 {
        now += 10;
        stream.push(control(stream.len() as u64, START + now, &Control::Tick {}));
    }
    stream
}

/// The stream with the events of other repositories made such that no rule looks at them.
fn masked(stream: &[Decoded], repo: &str) -> Vec<Decoded> {
    let mut stream = stream.to_vec();
    for event in stream.iter_mut().filter_map(|decoded| decoded.events.as_mut().ok()).flatten() {
        if event.fields.get_text(Field::CiRepo) != Some(repo) {
            event.fields.set(Field::Action, Value::Text("none".into()));
        }
    }
    stream
}

#[test]
fn an_outage_across_the_hour_is_in_both_windows() {
    let hour = 3_600 * 300;
    let source = SourceRecord {
        name: "hooks".to_owned(),
        source_type: SourceType::GithubWebhook,
        labels: BTreeMap::new(),
        connected: Timestamp::from_secs(hour - 1_800),
        generation: 0,
        actor: "test".to_owned(),
    };
    let stream = vec![
        control(0, hour - 600, &Control::SourceAdded(source)),
        control(1, hour - 599, &Control::Tick {}),
        control(2, hour + 300, &Control::Tick {}),
    ];
    let commit = Detector::new(plan(), 0).apply(stream, Timestamp::default()).unwrap();
    for name in ["hooks", OWN_SOURCE] {
        let mut of: Vec<_> = commit.windows.iter().filter(|window| window.source == name).collect();
        of.sort_by_key(|window| window.start);
        let down: Vec<_> = of.iter().map(|window| (window.down_secs, window.status)).collect();
        assert_eq!(down, [(599, Completeness::Gap), (300, Completeness::Gap)], "{name}");
    }
}

#[test]
fn an_incident_follows_what_people_did_and_refuses_what_does_not_apply() {
    let mut detector = Detector::new(plan(), 0);
    let commit = detector.apply(vec![event(0, 1_000, 1_000, "act.a", "x/one", 1)], Timestamp::default()).unwrap();
    let incident = commit.findings[0].incident.clone().unwrap();
    let step = |index, verb| {
        let control_record =
            Control::IncidentStep { incident: incident.clone(), verb, actor: "ann".into(), note: None };
        control(index, 1_000 + i64::try_from(index).unwrap(), &control_record)
    };
    let commit = detector
        .apply(vec![step(1, Verb::Ack), step(2, Verb::Ack), step(3, Verb::Remediate)], Timestamp::default())
        .unwrap();
    let verbs: Vec<_> = commit.steps.iter().map(|step| step.verb).collect();
    assert_eq!(verbs, [Verb::Ack, Verb::Remediate]);
    assert_eq!(commit.dead_letters.len(), 1, "the second ack is refused, and said");
    assert_eq!(commit.outbox.len(), 2);
}

/// Pushed and not signed within two minutes, in words.
fn unsigned() -> Vec<Rule> {
    let mut rule = correlation("unsigned", temporal(true, &[0], &[1]), &["a", "b"], false);
    rule.meta_mut().alert.resolve_on = Some("b".into());
    rule.meta_mut().alert.title = Some("{ci.repo} by {actor.id}".into());
    vec![detection("a", "act.a", false), detection("b", "act.b", false), rule]
}

#[test]
fn items_are_forgotten_by_ticks_alone() {
    let mut detector = Detector::new(plan(), 0);
    let now = Timestamp::default();
    detector.apply(vec![event(0, 1_000_000, 1_000_000, "", "", 0)], now).unwrap();
    detector.apply(vec![control(1, 1_000_000 + 7 * 86_400, &Control::Tick {})], now).unwrap();
    assert_eq!(detector.state.dedup.len(), 1);
    detector.apply(vec![control(2, 1_000_000 + 9 * 86_400, &Control::Tick {})], now).unwrap();
    assert!(detector.state.dedup.is_empty());
}

fn ticked(rules: Vec<Rule>, events: &[(i64, &str)], until: i64) -> (Detector, Commit) {
    let mut stream: Vec<Decoded> = Vec::new();
    let mut now = 0;
    for (at, action) in events.iter().copied().chain([(until, "")]) {
        while now < at {
            now += 30;
            stream.push(control(stream.len() as u64, 1_000_000 + now, &Control::Tick {}));
        }
        if !action.is_empty() {
            let index = stream.len() as u64;
            stream.push(event(index, 1_000_000 + at, 1_000_000 + at, action, "x/one", index));
        }
    }
    let mut detector = Detector::new(Arc::new(Plan::compile(rules).unwrap()), 0);
    let commit = detector.apply(stream, Timestamp::default()).unwrap();
    (detector, commit)
}

#[test]
fn what_is_missing_is_said_with_its_numbers_and_resolved_with_both_events() {
    let (_, commit) = ticked(unsigned(), &[(0, "act.a"), (300, "act.b")], 600);
    assert_eq!(commit.findings.len(), 1);
    let finding = &commit.findings[0];
    assert_eq!(finding.time, Timestamp::from_secs(1_000_120));
    assert_eq!(finding.because, ["a at 1970-01-12T13:46:40Z", "b did not follow within 120 s"]);
    assert_eq!(finding.title, "x/one by ann");
    assert_eq!(finding.events[0].fields["actor.id"], "ann", "a signal keeps what people read");
    let verbs: Vec<_> = commit.steps.iter().map(|step| step.verb).collect();
    assert_eq!(verbs, [Verb::Open, Verb::Resolve]);
    let note = commit.steps[1].note.as_deref().unwrap();
    assert!(note.contains("(event 0-11-0)") && note.contains("(event 0-0-0)"), "{note}");
    assert_eq!(commit.steps[1].finding.as_deref(), Some(finding.id.as_str()));
}

#[test]
fn what_a_silent_source_would_have_shown_is_parked_and_shown() {
    // Nothing is heard for more than an hour after the window, and then something is.
    let mut rules = unsigned();
    rules[2].meta_mut().requires = vec!["json".into(), "vault.audit".into()];
    let (detector, commit) = ticked(rules, &[(0, "act.a")], 600);
    assert!(commit.findings.is_empty(), "no source of the second type was ever heard");
    let status = detector.rule_status();
    assert_eq!((status[0].rule.as_str(), status[0].size.blind), ("unsigned", 1));
}

#[test]
fn a_number_is_said_in_title_and_reason() {
    let mut rule = correlation("many", at_least(Metric::Distinct(vec!["actor.id".into()]), 2), &["a"], false);
    rule.meta_mut().alert.title = Some("{count} of {ci.repo}: {value}".into());
    let (_, commit) = ticked(vec![detection("a", "act.a", false), rule], &[(10, "act.a"), (20, "act.a")], 600);
    assert_eq!(commit.findings.len(), 1);
    assert_eq!(commit.findings[0].because, ["2 distinct values of actor.id within 120 s (condition: ≥ 2)"]);
    assert_eq!(commit.findings[0].title, "2 of x/one: 2");
}

#[test]
fn history_teaches_the_live_lane_and_finds_nothing() {
    let learn = Learn { events: 2, ..Learn::default() };
    let new = Operator::New { fields: vec!["actor.id".into()], learn };
    let plan =
        Arc::new(Plan::compile(vec![detection("a", "act.a", false), correlation("new", new, &["a"], false)]).unwrap());
    let live = |index: u64| event(index, 1_000_000 + index as i64, 1_000_000 + index as i64, "act.a", "x/one", index);
    let old = |index: u64| {
        let mut decoded = event(index, 1_000_000, 999_950 + index as i64, "act.a", "x/one", index);
        decoded.record.envelope.mode = CollectionMode::Backfill;
        decoded.events.as_mut().unwrap()[0].mode = CollectionMode::Backfill;
        decoded
    };
    let run = |history: bool| {
        let mut stream: Vec<Decoded> = (0..2).map(|index| if history { old(index) } else { live(index) }).collect();
        stream.extend((2..5).map(live));
        stream.push(control(5, 1_000_600, &Control::Tick {}));
        let commit = Detector::new(Arc::clone(&plan), 0).apply(stream, Timestamp::default()).unwrap();
        commit.findings.iter().map(|finding| finding.events[0].id.clone()).collect::<Vec<_>>()
    };
    // Actors come in turn: ann, bob, eve.
    assert_eq!(run(true), ["0-2-0"]);
    assert_eq!(run(false), ["0-2-0"]);
}

#[test]
fn history_that_the_lake_knows_is_a_repetition_and_only_history() {
    let mut known = event(1, 100, 10, "act.a", "acme/app", 7);
    known.record.envelope.mode = CollectionMode::Backfill;
    known.record.envelope.attributes.insert(crate::record::REPEATS.to_owned(), "0".to_owned());
    let again = event(2, 101, 10, "act.a", "acme/app", 7);
    // Nobody who delivers live may say so, and no record repeats a later one.
    let mut live = event(3, 102, 10, "act.a", "acme/app", 8);
    live.record.envelope.attributes.insert(crate::record::REPEATS.to_owned(), "0".to_owned());
    let mut later = event(4, 103, 10, "act.a", "acme/app", 9);
    later.record.envelope.mode = CollectionMode::Backfill;
    later.record.envelope.attributes.insert(crate::record::REPEATS.to_owned(), "4".to_owned());
    let stream = [event(0, 99, 10, "act.b", "acme/app", 1), known, again, live, later];
    let mut detector = Detector::new(plan(), 0);
    let commit = detector.apply(stream.to_vec(), Timestamp::from_secs(200)).unwrap();
    assert_eq!(commit.duplicates, [Duplicate { index: 1, first: 0 }], "and it is not remembered as a first one itself");
}
