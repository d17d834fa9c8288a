//! What every fixture of this package decodes to, held against the reviewed `NAME.fields.ndjson` beside it: one line for
//! each event, or for the reason why a record is a dead letter.

use std::path::PathBuf;

use engine::event::Event;
use engine::record::Position;
use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::{Map, Value, json};

use super::super::{Undecodable, decode};
use super::measured::NO_SOURCE;
use super::record;
use super::samples::{received, receiver, samples};

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

/// A file of fixtures and what its lines, or the chunks of its text, decode to.
pub(super) struct Decoded {
    /// Folder and name, without its ending.
    pub(super) name: String,
    pub(super) kind: SourceType,
    pub(super) items: Vec<Result<Vec<Event>, Undecodable>>,
}

/// Every file: those whose lines are records as they stand, and those that are received first.
pub(super) fn all() -> Vec<Decoded> {
    let mut all: Vec<Decoded> = Vec::new();
    for (name, kind) in FIXTURES {
        let text = std::fs::read_to_string(path(&format!("{name}.ndjson"))).unwrap();
        let items =
            text.lines().map(|line| decode(Position::default(), &record(*kind, &[], line.to_owned()))).collect();
        all.push(Decoded { name: (*name).to_owned(), kind: *kind, items });
    }
    let receiver = receiver();
    for sample in samples() {
        let name = sample.file.rsplit_once('.').map_or(sample.file, |(name, _)| name).to_owned();
        if all.last().is_none_or(|last| last.name != name) {
            all.push(Decoded { name, kind: sample.kind, items: Vec::new() });
        }
        let records = received(&receiver, &sample, true);
        all.last_mut().unwrap().items.extend(records.iter().map(|record| decode(Position::default(), record)));
    }
    all
}

fn lines(items: &[Result<Vec<Event>, Undecodable>]) -> Vec<Value> {
    let one = |(number, item): (usize, &Result<Vec<Event>, Undecodable>)| match item {
        Ok(events) => events.iter().map(|event| shown(number + 1, event)).collect(),
        Err(error) => vec![json!({"line": number + 1, "dead letter": error.to_string()})],
    };
    items.iter().enumerate().flat_map(one).collect()
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
    let all = all();
    for Decoded { name, items, .. } in &all {
        let found = lines(items);
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
    let is_of_sources = |path: &PathBuf| path.is_dir() && !path.ends_with(NO_SOURCE);
    for folder in std::fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().path()).filter(is_of_sources) {
        for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.strip_prefix(path("")).unwrap().to_string_lossy().into_owned();
            let payload = [".ndjson", ".log"].iter().find_map(|end| name.strip_suffix(end));
            let Some(payload) = payload.filter(|name| !name.ends_with(".fields")) else { continue };
            assert!(all.iter().any(|known| known.name == payload), "{name} is held by no snapshot");
        }
    }
}
