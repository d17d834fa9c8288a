//! The promises of detection as a whole: results do not depend on where batches are cut or where it was restored.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::commit::Completeness;
use crate::event::EventId;
use crate::fields::{Fields, Value};
use crate::record::{Envelope, Position};
use crate::rule::{
    AffixKind, AlertSpec, Bounds, Comparison, Condition, DetectionRule, Level, Metric, Number, Operator, Predicate,
    TemporalClause, TextTest,
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

fn plan() -> Arc<Plan> {
    let at_least_three =
        Operator::Aggregate { metric: Metric::Events, bounds: Bounds(vec![(Comparison::Gte, Number::Int(3))]) };
    let rules = vec![
        detection("a", "act.a", true),
        detection("b", "act.b", false),
        correlation("many", at_least_three.clone(), &["b"], false),
        correlation("soon", at_least_three, &["b"], true),
        correlation(
            "order",
            Operator::Temporal {
                ordered: true,
                clauses: vec![TemporalClause { present: vec![0, 1], absent: Vec::new() }],
            },
            &["a", "b"],
            false,
        ),
    ];
    Arc::new(Plan::compile(rules).unwrap())
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
    let envelope = envelope(index, received, false, format!("id:{item}"));
    let mut fields = Fields::default();
    fields.set(Field::Action, Value::Text(action.to_owned()));
    fields.set(Field::CiRepo, Value::Text(repo.to_owned()));
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
    let kind = prop_oneof![Just("act.a"), Just("act.b"), Just("act.c")];
    let repo = prop_oneof![Just("x/one"), Just("x/two")];
    let step = (0_i64..20, 0_i64..50, kind, repo, 0_u64..30, 0_u8..4);
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
        let (ids, _) = run(&stream, |at| at % size == 0, true);
        prop_assert_eq!(ids, whole.0);
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
        let ids = |stream: &[Decoded]| {
            let mut ids = run(stream, |_| false, false).0;
            ids.sort();
            ids
        };
        // Events keep their positions inside the record here, so equal ids mean equal anchors.
        prop_assert_eq!(ids(&twice), ids(&stream));
    }
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
