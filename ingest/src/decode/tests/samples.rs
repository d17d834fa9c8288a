//! Every line of the package's own fixtures goes through receiving and decoding, and the counts are printed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use engine::event::Event;
use engine::fields::Field;
use engine::record::{CollectionMode, Position, Record};
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::RECEIVED;
use super::measured::{FOLDERS, kind_of, payload};
use crate::receive::{Limits, Receiver, ReceiverKeys, Refusal, Request, SourceSettings};
use crate::redact::Spine;
use crate::skim;
use crate::unwrap::{self, Framing};

fn folder() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures").into()
}

/// File, source type, member that holds the payload, member that holds the event name.
const FILES: &[(&str, SourceType, Option<&str>, Option<&str>)] = &[
    ("github_webhook/octokit-webhooks.ndjson", SourceType::GithubWebhook, Some("payload"), Some("x_github_event")),
    ("github_webhook/go-playground.ndjson", SourceType::GithubWebhook, Some("payload"), None),
    ("github_webhook/after-documentation.ndjson", SourceType::GithubWebhook, Some("payload"), Some("x_github_event")),
    ("github_actions_log/ghaperf_testdata_log.log", SourceType::GithubJoblog, None, None),
    ("aws_cloudtrail/invictus-aws.ndjson", SourceType::AwsCloudtrail, None, None),
    ("aws_cloudtrail/ocsf-examples-raw.ndjson", SourceType::AwsCloudtrail, None, None),
    ("aws_cloudtrail/plaso.ndjson", SourceType::AwsCloudtrail, None, None),
    ("aws_cloudtrail/stratus-red-team.ndjson", SourceType::AwsCloudtrail, None, None),
    ("aws_cloudtrail/after-documentation.ndjson", SourceType::AwsCloudtrail, None, None),
    ("k8s_audit/audit2rbac.ndjson", SourceType::KubernetesAudit, None, None),
    ("k8s_audit/ocsf-examples-raw.ndjson", SourceType::KubernetesAudit, None, None),
    ("k8s_audit/after-documentation.ndjson", SourceType::KubernetesAudit, None, None),
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

/// Where fixtures and samples of one type or another lie, a folder each.
fn sample_folders() -> Vec<PathBuf> {
    let mut folders = vec![folder(), folder().join("../../../tests/fixtures")];
    match std::env::var_os("PIPEPROOF_SAMPLES_DIR") {
        Some(samples) => folders.push(samples.into()),
        None => println!("PIPEPROOF_SAMPLES_DIR names no folder of samples: fixtures alone are read"),
    }
    folders
}

/// The items of all samples of all types, as they are before redaction.
pub(crate) fn items_of_all_types() -> Vec<(String, SourceType, Bytes)> {
    let mut all = Vec::new();
    for folder in sample_folders() {
        let mut types: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        types.sort();
        for of_type in types.into_iter().filter(|path| path.is_dir()) {
            let name = of_type.file_name().unwrap().to_string_lossy().into_owned();
            let row = FOLDERS.iter().find(|(folder, ..)| *folder == name);
            let (kind, members) = match (row, name.replace('_', ".").parse::<SourceType>()) {
                (Some((_, kind, members, _)), _) => (kind.parse().unwrap(), *members),
                (None, Ok(kind)) => (kind, &[][..]),
                (None, Err(_)) => continue,
            };
            for file in files_below(&of_type) {
                let shown = format!("{name}/{}", file.file_name().unwrap().to_string_lossy());
                let bytes = Bytes::from(std::fs::read(&file).unwrap());
                if kind.info().free_text {
                    all.push((shown, kind, bytes));
                    continue;
                }
                let lines = file.extension().is_some_and(|end| end == "ndjson");
                let bodies: Vec<&[u8]> =
                    if lines { bytes.split(|byte| *byte == b'\n').collect() } else { vec![&bytes] };
                for body in bodies.into_iter().filter(|body| !body.trim_ascii().is_empty()) {
                    let body = Bytes::copy_from_slice(payload(body, members));
                    let kind = kind_of(kind, &body).unwrap_or(kind);
                    let items = unwrap::items(kind, Framing::Values, &body, &Limits::default()).unwrap();
                    all.extend(items.into_iter().map(|item| (shown.clone(), kind, item.bytes)));
                }
            }
        }
    }
    all
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if [".ndjson", ".json", ".log", ".csv"].iter().any(|end| name.ends_with(end))
            && !name.contains(".fields.")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Fields that join run, token, secret, image and deployment.
const JOINING: &[Field] = &[
    Field::ActorId,
    Field::CiRepo,
    Field::CiRunId,
    Field::CiJobId,
    Field::CiSha,
    Field::TokenId,
    Field::SecretPath,
    Field::ArtifactDigest,
    Field::ArtifactName,
    Field::SignatureIdentity,
    Field::K8sName,
    Field::CloudRole,
    Field::ConfigId,
    Field::RunnerName,
];

#[test]
fn no_declared_spine_field_of_any_sample_changes() {
    let receiver = receiver();
    let mut seen: BTreeMap<SourceType, (usize, usize, usize)> = BTreeMap::new();
    for (file, kind, body) in items_of_all_types() {
        let (after, _) = receiver.redactor().body(kind, &body);
        let seen = seen.entry(kind).or_default();
        seen.0 += 1;
        if let (Ok(before), Ok(after)) =
            (serde_json::from_slice::<serde_json::Value>(&body), serde_json::from_slice::<serde_json::Value>(&after))
        {
            for path in Spine::of(kind).paths {
                let parts: Vec<&str> = path.split('.').collect();
                let [mut one, mut two] = [vec![], vec![]];
                spine_values(&before, &parts, &mut one);
                spine_values(&after, &parts, &mut two);
                assert_eq!(one, two, "{path} in {file}");
                seen.1 += one.len();
            }
        }
        // Whatever a decoder makes of it.
        let decoded = |body: Bytes| super::super::decode(Position::default(), &super::record(kind, &[], body));
        let (Ok(before), Ok(after)) = (decoded(body), decoded(after)) else { continue };
        assert_eq!(before.len(), after.len(), "{file}");
        for (one, two) in before.iter().zip(&after) {
            for field in JOINING {
                let value = |event: &Event| event.fields.get(*field).map(ToString::to_string);
                assert_eq!(value(one), value(two), "{} in {file}", field.name());
                seen.2 += usize::from(one.fields.get(*field).is_some());
            }
        }
    }
    println!("type: items, values of the declared spine, joining fields\n{seen:#?}");
    let without = |kind: &&SourceType| seen.get(kind).is_none_or(|(_, _, fields)| *fields == 0);
    let missing: Vec<_> = SourceType::ALL.iter().filter(|kind| kind.is_external()).filter(without).collect();
    println!("without a sample: {missing:?}");
    assert!(seen.len() >= 30 && seen.values().map(|(_, values, _)| values).sum::<usize>() > 1_000);
}
