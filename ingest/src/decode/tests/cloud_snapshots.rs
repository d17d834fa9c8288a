//! What every fixture of these sources decodes to, held against the reviewed `NAME.fields.ndjson` beside it: one line for
//! each event, or for the reason why a record is a dead letter.

use std::path::PathBuf;

use engine::event::Event;
use engine::record::Position;
use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::{Map, Value, json};

use super::super::decode;
use super::record;

/// Fixture and the source type its lines are of.
pub(super) const FIXTURES: &[(&str, SourceType)] = &[
    ("gcp_audit/gcp-docs-wif", SourceType::GcpAudit),
    ("gcp_audit/google-cloudevents", SourceType::GcpAudit),
    ("gcp_audit/plaso", SourceType::GcpAudit),
    ("gcp_audit/after-documentation", SourceType::GcpAudit),
    ("azure_monitor/plaso", SourceType::AzureActivity),
    ("azure_monitor/after-documentation", SourceType::AzureSignin),
    ("azure_monitor/both-forms-after-documentation", SourceType::AzureKeyvault),
    ("k8s_event/kyverno-conformance-events", SourceType::KubernetesEvent),
    ("k8s_event/after-source", SourceType::KubernetesEvent),
    ("k8s_admissionreview/docs-and-testdata", SourceType::KubernetesAdmission),
    ("k8s_admissionreview/opa-contrib", SourceType::KubernetesAdmission),
    ("k8s_admissionreview/after-api", SourceType::KubernetesAdmission),
    ("policy_report/kyverno-conformance", SourceType::KyvernoReport),
    ("policy_report/openreports", SourceType::KyvernoReport),
    ("policy_report/wg-policy", SourceType::KyvernoReport),
    ("opa_decision/opa-docs", SourceType::OpaDecision),
    ("opa_decision/after-documentation", SourceType::OpaDecision),
    ("gatekeeper/website-docs", SourceType::GatekeeperAudit),
    ("gatekeeper/after-source", SourceType::GatekeeperAudit),
    ("argocd/after-source", SourceType::Argocd),
    ("flux/notification-controller-docs", SourceType::Flux),
    ("falco/falco-website", SourceType::Falco),
    ("falco/ocsf-examples-raw", SourceType::Falco),
    ("tetragon/tetragon-docs", SourceType::Tetragon),
    ("tetragon/tetragon-md", SourceType::Tetragon),
    ("tracee/tracee-docs", SourceType::Tracee),
    ("harden_runner/after-source", SourceType::HardenRunner),
    ("okta/ocsf-examples-raw", SourceType::Okta),
    ("okta/after-documentation", SourceType::Okta),
    ("cloudevents/spec-md", SourceType::Cloudevents),
    ("otlp_logs/otel-proto-examples", SourceType::Otlp),
    ("aws_eventbridge/lambda-rust-fixtures", SourceType::AwsCloudtrail),
];

pub(super) fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(name)
}

fn lines(kind: SourceType, text: &str) -> Vec<Value> {
    let one = |(number, line): (usize, &str)| match decode(Position::default(), &record(kind, &[], line.to_owned())) {
        Ok(events) => events.iter().map(|event| shown(number + 1, event)).collect(),
        Err(error) => vec![json!({"line": number + 1, "dead letter": error.to_string()})],
    };
    text.lines().enumerate().flat_map(one).collect()
}

fn shown(line: usize, event: &Event) -> Value {
    let native: Value = serde_json::from_slice(&event.native).unwrap();
    assert!(native.is_object(), "the native form of line {line} is {native}");
    let mut object = Map::new();
    object.insert("line".to_owned(), line.into());
    object.insert("time".to_owned(), event.time_known.then(|| event.time.to_string()).into());
    object.extend(event.fields.to_json());
    Value::Object(object)
}

#[test]
fn every_fixture_decodes_to_its_reviewed_snapshot() {
    let write = std::env::var_os("PIPEPROOF_WRITE_SNAPSHOTS").is_some();
    for (name, kind) in FIXTURES {
        let found = lines(*kind, &std::fs::read_to_string(path(&format!("{name}.ndjson"))).unwrap());
        let snapshot = path(&format!("{name}.fields.ndjson"));
        if write {
            let text: String = found.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(&snapshot, text).unwrap();
            continue;
        }
        let text = std::fs::read_to_string(&snapshot).unwrap();
        let expected: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(found.len(), expected.len(), "{name}: number of events");
    }
}
