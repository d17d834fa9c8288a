//! Records that list more than there are events for, and documents that are larger than events.

use bytes::Bytes;
use engine::event::Event;
use engine::fields::Field;
use engine::record::{ITEM_BYTES_MAX, Position, RECORD_BYTES_MAX};
use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::{Value, json};

use super::samples::{receive, receiver};
use super::{assert_fields, decoded};

fn count(events: &[Event], field: Field, value: &str) -> usize {
    events[1..].iter().filter(|event| event.fields.get_text(field) == Some(value)).count()
}

#[test]
fn what_failed_comes_first_and_what_has_no_room_is_counted() {
    // Every tenth of 3,000 fails, and the last of all.
    let result = |number: usize| {
        let verdict = if number % 10 == 9 { "fail" } else { "pass" };
        json!({"policy": format!("p{number}"), "result": verdict, "source": "kyverno"})
    };
    let report = |results: Vec<Value>| json!({"apiVersion": "wgpolicyk8s.io/v1alpha2", "kind": "PolicyReport", "metadata": {"namespace": "shop"}, "results": results});
    let events = decoded(SourceType::KyvernoReport, &[], report((0..3_000).map(result).collect()).to_string());
    assert_eq!((events.len(), count(&events, Field::Outcome, "failure")), (500, 300));
    assert_fields(&events[0], &[("action", "policy.reported"), ("events.left_out", "2501"), ("outcome", "failure")]);
    assert_fields(&events[1], &[("k8s.policy", "p9")]);
    assert_fields(&events[300], &[("k8s.policy", "p2999"), ("events.left_out", "-")]);
    // Where all have room the order stays.
    let events = decoded(SourceType::KyvernoReport, &[], report((0..499).map(result).collect()).to_string());
    assert_eq!(events.len(), 500);
    assert_fields(&events[0], &[("events.left_out", "-")]);
    assert_fields(&events[1], &[("k8s.policy", "p0"), ("outcome", "success")]);
    // A constraint counts more violations than it lists.
    let constraint = json!({"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "K8sSigned", "metadata": {"name": "signed"},
        "status": {"totalViolations": 25, "violations": [{"kind": "Pod", "name": "a"}, {"kind": "Pod", "name": "b"}]}});
    let events = decoded(SourceType::GatekeeperAudit, &[], constraint.to_string());
    assert_eq!(events.len(), 3);
    assert_fields(&events[0], &[("events.left_out", "23"), ("message", "25 violations")]);
}

#[test]
fn the_worst_findings_of_a_scan_have_room_and_runs_are_counted_whole() {
    let result = |number: usize| {
        let level = if number >= 2_990 { "error" } else { "note" };
        json!({"ruleId": format!("r{number}"), "level": level, "message": {"text": "x"}})
    };
    let run = |results: Vec<Value>| json!({"tool": {"driver": {"name": "scanner"}}, "results": results});
    let log =
        json!({"version": "2.1.0", "runs": [run((0..3_000).map(result).collect()), run(vec![result(0)]), run(vec![])]});
    let events = decoded(SourceType::Sarif, &[], log.to_string());
    assert_eq!((events.len(), count(&events, Field::ScanSeverity, "high")), (500, 10));
    // Two runs, and one result of theirs.
    assert_fields(&events[0], &[("scan.findings", "3000"), ("events.left_out", &(2_501 + 3).to_string())]);
    assert_fields(&events[1], &[("scan.rule", "r2990")]);
}

#[test]
fn subjects_of_a_statement_that_have_no_room_are_counted() {
    let subject = |number: usize| json!({"name": format!("s{number}"), "digest": {"sha256": format!("{number:064x}")}});
    let subjects: Vec<Value> = (0..700).map(subject).collect();
    let statement = json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://example.com/x", "subject": subjects, "predicate": {}});
    let events = decoded(SourceType::IntotoStatement, &[], statement.to_string());
    assert_eq!(events.len(), 500);
    assert_fields(&events[0], &[("artifact.name", "s0"), ("events.left_out", "200")]);
}

/// A bill of materials of about so many bytes.
fn bill_of_materials(bytes: usize) -> String {
    let component = |number: usize| {
        json!({"type": "library", "name": format!("package-{number}"), "version": "1.0.0", "purl": format!("pkg:npm/package-{number}@1.0.0"),
            "description": "x".repeat(900)})
    };
    let components: Vec<Value> = (0..bytes / 1_000).map(component).collect();
    json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"timestamp": "2026-03-15T10:00:00Z"}, "components": components})
        .to_string()
}

#[test]
fn documents_are_whole_where_events_of_that_size_are_cut() {
    let receiver = receiver();
    let records = |kind, body: String| receive(&receiver, kind, None, Bytes::from(body)).unwrap();
    let bom = bill_of_materials(5 << 20);
    assert!(bom.len() > 5_000_000);
    let record = &records(SourceType::SbomCyclonedx, bom.clone())[0];
    assert_eq!(record.body, bom.as_bytes());
    let events = super::super::decode(Position::default(), record).unwrap();
    assert_fields(&events[0], &[("sbom.components", &((5 << 20) / 1_000).to_string())]);
    // Twice as large as the largest: cut, and still a record that the log takes.
    let cut = &records(SourceType::SbomCyclonedx, bill_of_materials(20 << 20))[0];
    assert_eq!(cut.encode().unwrap().len(), RECORD_BYTES_MAX);
    let error = super::super::decode(Position::default(), cut).unwrap_err();
    assert!(error.to_string().contains("more than a record holds"), "{error}");
    // What is no document is cut as ever.
    let event = &records(SourceType::Json, bom)[0];
    assert_eq!(event.encode().unwrap().len(), ITEM_BYTES_MAX);
}
