//! Every line of the package's own fixtures goes through receiving and decoding, and the counts are printed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use engine::event::Event;
use engine::record::{CollectionMode, Position, Record};
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::RECEIVED;
use crate::receive::{Limits, Receiver, ReceiverKeys, Refusal, Request, SourceSettings};
use crate::redact::Spine;
use crate::skim;

fn folder() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures").into()
}

/// File, source type, member that holds the payload, member that holds the event name.
const FILES: &[(&str, SourceType, Option<&str>, Option<&str>)] = &[
    ("github_webhook/octokit-webhooks.ndjson", SourceType::GithubWebhook, Some("payload"), Some("x_github_event")),
    ("github_webhook/go-playground.ndjson", SourceType::GithubWebhook, Some("payload"), None),
    ("github_actions_log/ghaperf_testdata_log.log", SourceType::GithubJoblog, None, None),
    ("aws_cloudtrail/invictus-aws.ndjson", SourceType::AwsCloudtrail, None, None),
    ("aws_cloudtrail/ocsf-examples-raw.ndjson", SourceType::AwsCloudtrail, None, None),
    ("aws_cloudtrail/plaso.ndjson", SourceType::AwsCloudtrail, None, None),
    ("aws_cloudtrail/stratus-red-team.ndjson", SourceType::AwsCloudtrail, None, None),
    ("k8s_audit/audit2rbac.ndjson", SourceType::KubernetesAudit, None, None),
    ("k8s_audit/ocsf-examples-raw.ndjson", SourceType::KubernetesAudit, None, None),
    ("sigstore_bundle/cosign-docs.ndjson", SourceType::SigstoreBundle, None, None),
    ("sigstore_bundle/sigstore-conformance.ndjson", SourceType::SigstoreBundle, Some("bundle"), None),
];

pub(super) struct Sample {
    pub(super) file: &'static str,
    pub(super) kind: SourceType,
    pub(super) event: Option<String>,
    pub(super) body: Bytes,
}

pub(super) fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    for (file, kind, payload, event) in FILES {
        let text = std::fs::read_to_string(folder().join(file)).unwrap();
        if kind.info().free_text {
            all.push(Sample { file, kind: *kind, event: None, body: text.into() });
            continue;
        }
        for line in text.lines() {
            let body = payload.map_or(line.as_bytes(), |member| skim::member(line.as_bytes(), member).unwrap());
            let event = event.and_then(|member| skim::text_at(line.as_bytes(), &[member]));
            all.push(Sample { file, kind: *kind, event, body: Bytes::copy_from_slice(body) });
        }
    }
    all
}

pub(super) fn receiver() -> Receiver {
    Receiver::new(ReceiverKeys { redaction: [1; 32], dedup: [2; 32] }, Limits::default())
}

pub(super) fn received(receiver: &Receiver, sample: &Sample, named: bool) -> Vec<Record> {
    let event = sample.event.as_deref().filter(|_| named);
    receive(receiver, sample.kind, event, sample.body.clone()).unwrap()
}

/// Sends a body as somebody with a token would.
pub(super) fn receive(
    receiver: &Receiver,
    kind: SourceType,
    github_event: Option<&str>,
    body: Bytes,
) -> Result<Vec<Record>, Refusal> {
    let source = SourceSettings {
        name: "acme".to_owned(),
        source_type: kind,
        labels: BTreeMap::new(),
        secrets: Vec::new(),
        connected: RECEIVED,
    };
    let mut headers = http::HeaderMap::new();
    if let Some(event) = github_event {
        headers.insert("x-github-event", event.parse().unwrap());
    }
    receiver.accept(Request {
        source: &source,
        headers: &headers,
        query: &BTreeMap::new(),
        body,
        received: RECEIVED,
        bearer: Some("t1".to_owned()),
        mode: CollectionMode::Live,
    })
}

#[test]
fn every_sample_decodes_or_says_why_not() {
    let receiver = receiver();
    let mut counts: BTreeMap<&str, (usize, usize, usize, usize)> = BTreeMap::new();
    let mut reasons: BTreeMap<(&str, String), usize> = BTreeMap::new();
    let mut actions: BTreeMap<String, usize> = BTreeMap::new();
    for sample in samples() {
        for record in received(&receiver, &sample, true) {
            let count = counts.entry(sample.file).or_default();
            match super::super::decode(Position::default(), &record) {
                Ok(events) => {
                    count.0 += 1;
                    count.1 += events.len();
                    count.2 += events.iter().filter(|event| event.time_known).count();
                    for event in &events {
                        let action = super::fields(event).get("action").cloned().unwrap_or_default();
                        assert!(!action.is_empty());
                        *actions.entry(action).or_default() += 1;
                        assert!(
                            serde_json::from_slice::<serde_json::Value>(&event.native)
                                .is_ok_and(|json| json.is_object())
                        );
                    }
                }
                Err(error) => {
                    count.3 += 1;
                    *reasons.entry((sample.file, error.to_string())).or_default() += 1;
                }
            }
        }
    }
    println!(
        "file: records decoded, events, with a source time, dead letters\n{counts:#?}\n{reasons:#?}\n{actions:#?}"
    );
    for (file, (decoded, _, timed, dead)) in counts {
        match file {
            // Simple-signing payloads, OCI manifests and an index: none is a bundle.
            "sigstore_bundle/cosign-docs.ndjson" => assert_eq!((decoded, dead), (0, 10)),
            // An unknown version.
            "sigstore_bundle/sigstore-conformance.ndjson" => assert_eq!(dead, 1),
            _ => assert_eq!(dead, 0, "{file}"),
        }
        if !file.starts_with("github_webhook") {
            assert!(timed >= decoded, "{file}");
        }
    }
}

#[test]
fn the_event_of_a_webhook_is_inferred_where_no_header_names_it() {
    let receiver = receiver();
    let action = |events: Vec<Event>| super::fields(&events[0]).get("action").cloned();
    for sample in samples().into_iter().filter(|sample| sample.kind == SourceType::GithubWebhook) {
        let [with, without] = [true, false].map(|named| {
            let record = received(&receiver, &sample, named).remove(0);
            super::super::decode(Position::default(), &record).map(action)
        });
        let Some(event) = sample.event.as_deref() else { continue };
        // What matters to a rule is told apart by shape; some of the rest only by the header.
        let told =
            ["push", "workflow", "deploy", "pull_request", "branch_protection", "check", "secret_", "meta", "create"];
        if told.iter().any(|head| event.starts_with(head)) {
            assert_eq!(without.unwrap(), with.unwrap(), "{event}");
        }
    }
}

/// Values of a declared spine path in a JSON text.
fn spine_values(value: &serde_json::Value, path: &[&str], out: &mut Vec<String>) {
    match (value, path) {
        (serde_json::Value::Array(items), _) => items.iter().for_each(|item| spine_values(item, path, out)),
        (_, [] | ["**"]) => out.push(value.to_string()),
        (serde_json::Value::Object(map), [first, rest @ ..]) => {
            if let Some(member) = map.get(*first) {
                spine_values(member, rest, out);
            }
        }
        _ => {}
    }
}

#[test]
fn no_declared_spine_field_of_any_sample_changes() {
    let receiver = receiver();
    let mut seen = 0;
    for sample in samples().into_iter().filter(|sample| !sample.kind.info().free_text) {
        let (after, _) = receiver.redactor().body(sample.kind, &sample.body);
        let before: serde_json::Value = serde_json::from_slice(&sample.body).unwrap();
        let after: serde_json::Value = serde_json::from_slice(&after).unwrap();
        for path in Spine::of(sample.kind).paths {
            let parts: Vec<&str> = path.split('.').collect();
            let [mut one, mut two] = [vec![], vec![]];
            spine_values(&before, &parts, &mut one);
            spine_values(&after, &parts, &mut two);
            assert_eq!(one, two, "{path} in {}", sample.file);
            seen += one.len();
        }
    }
    assert!(seen > 100, "{seen} values were compared");
}
