//! How fast records are received (unwrapped, redacted), decoded, and appended to a log on disk.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops at once when its set-up is wrong")]

use std::collections::BTreeMap;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::record::{CollectionMode, Position, Record};
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use pipeproof_ingest::decode::decode;
use pipeproof_ingest::log::{Log, LogOptions};
use pipeproof_ingest::receive::{Limits, Receiver, ReceiverKeys, Request, SourceSettings};

/// Source type, fixture, member that holds the payload.
const SOURCES: &[(SourceType, &str, Option<&str>)] = &[
    (SourceType::GithubWebhook, "github_webhook/octokit-webhooks.ndjson", Some("payload")),
    (SourceType::GithubJoblog, "github_actions_log/ghaperf_testdata_log.log", None),
    (SourceType::AwsCloudtrail, "aws_cloudtrail/invictus-aws.ndjson", None),
    (SourceType::KubernetesAudit, "k8s_audit/audit2rbac.ndjson", None),
    (SourceType::GcpAudit, "gcp_audit/google-cloudevents.ndjson", None),
    (SourceType::AzureActivity, "azure_monitor/plaso.ndjson", None),
    (SourceType::KyvernoReport, "policy_report/kyverno-conformance.ndjson", None),
    (SourceType::Falco, "falco/falco-website.ndjson", None),
    (SourceType::Tetragon, "tetragon/tetragon-md.ndjson", None),
    (SourceType::Tracee, "tracee/tracee-docs.ndjson", None),
    (SourceType::Okta, "okta/ocsf-examples-raw.ndjson", None),
    (SourceType::SigstoreBundle, "sigstore_bundle/sigstore-conformance.ndjson", Some("bundle")),
];

/// Source types whose fixtures the whole workspace shares, as they are sent.
const SHARED: &[(SourceType, &str)] = &[
    (SourceType::GithubAudit, "github_audit/ocsf-examples-raw.ndjson"),
    (SourceType::GitlabWebhook, "gitlab_webhook/drone-go-scm.ndjson"),
    (SourceType::GitlabAudit, "gitlab_audit/streamed.ndjson"),
    (SourceType::GitlabJoblog, "gitlab_joblog/timestamps.log"),
    (SourceType::Jenkins, "jenkins/audit-trail.log"),
    (SourceType::CircleciWebhook, "circleci_webhook/completed.ndjson"),
    (SourceType::CircleciAudit, "circleci_audit/streamed.ndjson"),
    (SourceType::Buildkite, "buildkite/webhook.ndjson"),
    (SourceType::Cdevents, "cdevents/cdevents-spec.ndjson"),
    (SourceType::RekorEntry, "rekor_entry/sigstore-conformance-tlog-entries.ndjson"),
    (SourceType::IntotoStatement, "intoto_statement/slsa-verifier.ndjson"),
    (SourceType::SbomCyclonedx, "sbom_cyclonedx/specification.ndjson"),
    (SourceType::SbomSpdx, "sbom_spdx/spdx-examples.ndjson"),
    (SourceType::Trivy, "trivy/goldens.ndjson"),
    (SourceType::Grype, "grype/grype.ndjson"),
    (SourceType::Sarif, "sarif/codeql-action.ndjson"),
    (SourceType::Gitleaks, "gitleaks/gitleaks.ndjson"),
];

fn shared(file: &str) -> Bytes {
    std::fs::read(format!("{}/../tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap().into()
}

fn body(file: &str, payload: Option<&str>) -> Bytes {
    let text = std::fs::read_to_string(format!("{}/tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let Some(member) = payload else { return text.into() };
    let lines = text.lines().map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value[member].to_string()
    });
    lines.collect::<Vec<_>>().join("\n").into()
}

fn vault() -> Bytes {
    let line = |number: u32| {
        serde_json::json!({"time": "2025-03-15T10:00:00.123456789Z", "type": "response",
            "auth": {"accessor": format!("hmac-sha256:{number:064}"), "display_name": "jwt-deploy", "policies": ["ci"],
                "metadata": {"role": "deploy", "repository": "acme/app", "run_id": number.to_string(), "ref": "refs/heads/main"}},
            "request": {"id": format!("r{number}"), "operation": "read", "path": "secret/data/prod/db", "mount_point": "secret/",
                "mount_type": "kv", "remote_address": "198.51.100.7"},
            "response": {"data": {"data": {"password": format!("hmac-sha256:{number:064}")}, "metadata": {"version": 3}}}})
        .to_string()
    };
    (0..100).map(line).collect::<Vec<_>>().join("\n").into()
}

fn receive(receiver: &Receiver, source: &SourceSettings, body: &Bytes) -> Vec<Record> {
    let request = Request {
        source,
        headers: &http::HeaderMap::new(),
        query: &BTreeMap::new(),
        body: body.clone(),
        received: Timestamp::from_secs(1_800_000_000),
        bearer: Some("t".to_owned()),
        mode: CollectionMode::Live,
    };
    receiver.accept(request).unwrap()
}

fn sources(criterion: &mut Criterion) {
    let receiver = Receiver::new(ReceiverKeys { redaction: [1; 32], dedup: [2; 32] }, Limits::default());
    let files = SOURCES.iter().map(|(kind, file, payload)| (*kind, body(file, *payload)));
    let made = [(SourceType::VaultAudit, vault()), (SourceType::Json, vault())];
    let shared = SHARED.iter().map(|(kind, file)| (*kind, shared(file)));
    for (kind, body) in files.chain(made).chain(shared) {
        let source = SourceSettings {
            name: "acme".to_owned(),
            source_type: kind,
            labels: BTreeMap::new(),
            secrets: Vec::new(),
            connected: Timestamp::MIN,
        };
        let records = receive(&receiver, &source, &body);
        println!("{kind}: {} records, {} bytes", records.len(), body.len());
        let mut group = criterion.benchmark_group(kind.name());
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("receive", |bench| bench.iter(|| receive(&receiver, &source, black_box(&body))));
        group.bench_function("decode", |bench| {
            bench.iter(|| {
                for record in &records {
                    // One of the bundles has an unknown version and is a dead letter.
                    drop(black_box(decode(Position::default(), black_box(record))));
                }
            });
        });
        // The yardstick: the same bytes as a tree of values, and nothing made of them.
        if records.iter().all(|record| serde_json::from_slice::<serde_json::Value>(&record.body).is_ok()) {
            group.bench_function("serde_json", |bench| {
                bench.iter(|| {
                    for record in &records {
                        drop(black_box(serde_json::from_slice::<serde_json::Value>(black_box(&record.body))));
                    }
                });
            });
        }
    }
}

/// Text made to be slow for detectors that look around what they find.
fn hostile(criterion: &mut Criterion) {
    let receiver = Receiver::new(ReceiverKeys { redaction: [1; 32], dedup: [2; 32] }, Limits::default());
    let mut group = criterion.benchmark_group("redact hostile text");
    let lines = format!("{}\n", "Z2hwX".repeat(15));
    for (name, unit) in [
        ("at signs", "@"),
        ("urls", "://a:"),
        ("key headers", "-----BEGIN PRIVATE KEY-----!"),
        ("base64 of a keyword", "Z2hwX"),
        ("base64 lines of a keyword", lines.as_str()),
        ("keywords", "ghp_akia "),
    ] {
        let text = Bytes::from(unit.repeat((4 << 20) / unit.len()));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bench| bench.iter(|| receiver.redactor().text(black_box(&text))));
    }
}

fn append(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let log = Log::open(folder.path(), 0, LogOptions::default()).unwrap().log;
    let mut group = criterion.benchmark_group("log");
    for (senders, records) in [(1, 1), (1, 100), (64, 1), (64, 100)] {
        let leaves = vec![Bytes::from(vec![b'x'; 1200]); records];
        group.throughput(Throughput::Elements((senders * records) as u64));
        let id = BenchmarkId::new("append", format!("{senders} senders of {records} x 1200 B"));
        group.bench_function(id, |bench| {
            bench.iter(|| {
                runtime.block_on(async {
                    let tasks: Vec<_> = (0..senders)
                        .map(|_| {
                            let (log, leaves) = (log.clone(), leaves.clone());
                            tokio::spawn(async move { log.append(leaves).await.unwrap() })
                        })
                        .collect();
                    for task in tasks {
                        task.await.unwrap();
                    }
                });
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = sources, hostile, append
}
criterion_main!(benches);
