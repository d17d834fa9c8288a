//! Events per second and bytes per second of matching, beside the floor under it: parsing alone.
//!
//! Events are made up in the shape and size of CloudTrail and Kubernetes audit records. Rules are 300 generated ones and,
//! where `PIPEPROOF_SIGMA_DIR` names a checkout of SigmaHQ/sigma, its rules for cloud, identity and Kubernetes.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has to stop")]

use std::hint::black_box;
use std::path::PathBuf;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pipeproof_engine::event::{Event, EventId};
use pipeproof_engine::fields::Fields;
use pipeproof_engine::plan::{Plan, Routing};
use pipeproof_engine::record::{Authenticity, CollectionMode};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_rules::{Lists, load, read_dir};
use serde_json::json;

const EVENTS: usize = 4_096;

/// A small generator, so that every run sees the same events.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len() as u64) as usize]
    }

    fn hex(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from(b"0123456789abcdef"[self.roll(16) as usize])).collect()
    }
}

fn event(source_type: SourceType, native: &serde_json::Value) -> Event {
    Event {
        id: EventId::default(),
        source: "bench".into(),
        source_type,
        item: "id:1".into(),
        time: Timestamp::from_secs(1),
        time_known: true,
        received: Timestamp::from_secs(1),
        auth: Authenticity::Bearer,
        mode: CollectionMode::Live,
        fields: Fields::default(),
        native: Bytes::from(native.to_string()),
    }
}

const CALLS: &[(&str, &str)] = &[
    ("s3.amazonaws.com", "GetObject"),
    ("s3.amazonaws.com", "PutObject"),
    ("sts.amazonaws.com", "AssumeRole"),
    ("ec2.amazonaws.com", "DescribeInstances"),
    ("kms.amazonaws.com", "Decrypt"),
    ("iam.amazonaws.com", "GetRole"),
    ("logs.amazonaws.com", "PutLogEvents"),
    ("secretsmanager.amazonaws.com", "GetSecretValue"),
    ("iam.amazonaws.com", "CreateAccessKey"),
    ("cloudtrail.amazonaws.com", "StopLogging"),
];

fn cloudtrail(dice: &mut Dice) -> Event {
    // The last two calls are rare, as what rules look for is.
    let call = if dice.roll(100) == 0 { 8 + dice.roll(2) } else { dice.roll(8) };
    let (source, name) = CALLS[call as usize];
    let account = format!("1234567890{:02}", dice.roll(20));
    let role = format!("app-{}-role", dice.roll(50));
    let session = format!("i-{}", dice.hex(17));
    let native = json!({
        "eventVersion": "1.09",
        "userIdentity": {
            "type": "AssumedRole",
            "principalId": format!("AROA{}:{session}", dice.hex(16).to_uppercase()),
            "arn": format!("arn:aws:sts::{account}:assumed-role/{role}/{session}"),
            "accountId": account,
            "accessKeyId": format!("ASIA{}", dice.hex(16).to_uppercase()),
            "sessionContext": {
                "sessionIssuer": {
                    "type": "Role",
                    "principalId": format!("AROA{}", dice.hex(16).to_uppercase()),
                    "arn": format!("arn:aws:iam::{account}:role/{role}"),
                    "accountId": account,
                    "userName": role,
                },
                "attributes": {"creationDate": "2026-01-05T11:58:31Z", "mfaAuthenticated": "false"},
            },
        },
        "eventTime": format!("2026-01-05T12:{:02}:{:02}Z", dice.roll(60), dice.roll(60)),
        "eventSource": source,
        "eventName": name,
        "awsRegion": dice.pick(&["eu-central-1", "us-east-1", "eu-west-1"]),
        "sourceIPAddress": format!("10.{}.{}.{}", dice.roll(4), dice.roll(256), dice.roll(256)),
        "userAgent": dice.pick(&[
            "aws-sdk-go-v2/1.30.3 os/linux lang/go#1.22.5 md/GOOS#linux md/GOARCH#amd64",
            "Boto3/1.34.84 md/Botocore#1.34.84 ua/2.0 os/linux#6.5.0-1018-aws md/arch#x86_64 lang/python#3.11.9",
            "APN/1.0 HashiCorp/1.0 Terraform/1.8.5 aws-sdk-go-v2/1.30.0",
        ]),
        "requestParameters": {
            "bucketName": format!("acme-data-{}", dice.roll(30)),
            "key": format!("exports/2026/01/05/{}.parquet", dice.hex(24)),
            "Host": "acme-data.s3.eu-central-1.amazonaws.com",
        },
        "responseElements": null,
        "additionalEventData": {
            "SignatureVersion": "SigV4",
            "CipherSuite": "TLS_AES_128_GCM_SHA256",
            "bytesTransferredIn": 0,
            "bytesTransferredOut": dice.roll(1_000_000),
            "AuthenticationMethod": "AuthHeader",
            "x-amz-id-2": dice.hex(64),
        },
        "requestID": dice.hex(16).to_uppercase(),
        "eventID": format!("{}-{}-{}", dice.hex(8), dice.hex(4), dice.hex(12)),
        "readOnly": true,
        "resources": [{"type": "AWS::S3::Object", "ARN": format!("arn:aws:s3:::acme-data/{}", dice.hex(12))}],
        "eventType": "AwsApiCall",
        "managementEvent": false,
        "recipientAccountId": account,
        "eventCategory": "Data",
        "tlsDetails": {"tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256", "clientProvidedHostHeader": source},
    });
    event(SourceType::AwsCloudtrail, &native)
}

fn kubernetes(dice: &mut Dice) -> Event {
    let verb = dice.pick(&["get", "list", "watch", "update", "patch", "create"]);
    let resource = dice.pick(&["pods", "configmaps", "leases", "endpoints", "deployments", "secrets"]);
    let namespace = format!("team-{}", dice.roll(12));
    let name = format!("app-{}-{}", dice.roll(60), dice.hex(10));
    let native = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse",
        "auditID": format!("{}-{}", dice.hex(8), dice.hex(12)),
        "stage": "ResponseComplete",
        "requestURI": format!("/api/v1/namespaces/{namespace}/{resource}/{name}?timeout=10s"),
        "verb": verb,
        "user": {
            "username": format!("system:serviceaccount:{namespace}:app-{}", dice.roll(20)),
            "uid": dice.hex(32),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
            "extra": {"authentication.kubernetes.io/pod-name": [name], "authentication.kubernetes.io/pod-uid": [dice.hex(32)]},
        },
        "sourceIPs": [format!("10.{}.{}.{}", dice.roll(4), dice.roll(256), dice.roll(256))],
        "userAgent": "kube-controller-manager/v1.31.2 (linux/amd64) kubernetes/5864a46/system:serviceaccount",
        "objectRef": {"resource": resource, "namespace": namespace, "name": name, "apiVersion": "v1", "resourceVersion": dice.roll(1_000_000).to_string()},
        "responseStatus": {"metadata": {}, "code": 200},
        "requestObject": {
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": "web", "tier": "front"}},
            "spec": {"containers": [{"name": "web", "image": format!("registry.example/app@sha256:{}", dice.hex(64)), "args": ["--port=8080"]}]},
        },
        "requestReceivedTimestamp": "2026-01-05T12:00:00.123456Z",
        "stageTimestamp": "2026-01-05T12:00:00.133456Z",
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "RBAC: allowed by ClusterRoleBinding \"app\""},
    });
    event(SourceType::KubernetesAudit, &native)
}

/// 150 rules for each of the two logsources, on the fields such rules look at.
fn generated_rules() -> Vec<(String, String)> {
    let mut text = String::new();
    for number in 0..150 {
        text.push_str(&format!(
            "title: aws {number}\nid: aws-{number}\nlogsource: {{product: aws, service: cloudtrail}}\ndetection:\n  s:\n    eventSource: service{}.amazonaws.com\n    eventName: [Do{number}Thing, Undo{number}Thing]\n    requestParameters.name{}|contains: suspicious{number}\n  agent:\n    userAgent|contains: ['tool{number}/', 'evil{number}']\n  f:\n    userIdentity.arn|endswith: ':root{number}'\n  condition: (s or agent) and not f\n---\n",
            number % 20,
            number % 15,
        ));
        text.push_str(&format!(
            "title: k8s {number}\nid: k8s-{number}\nlogsource: {{product: kubernetes, service: audit}}\ndetection:\n  s:\n    verb: [create, patch]\n    objectRef.resource: thing{number}\n  t:\n    requestURI|re: '/api/v1/thing{number}/[a-z]+'\n    user.username|startswith: 'user{number}:'\n  condition: s or t\n---\n",
        ));
    }
    vec![("generated.yml".to_owned(), text)]
}

fn sigma_rules() -> Option<Vec<(String, String)>> {
    let folder = PathBuf::from(std::env::var_os("PIPEPROOF_SIGMA_DIR")?).join("rules");
    let parts = ["cloud", "identity", "application/kubernetes", "application/github", "application/bitbucket"];
    Some(parts.iter().flat_map(|part| read_dir(&folder.join(part)).unwrap()).collect())
}

fn plan(files: &[(String, String)]) -> Plan {
    Plan::compile(load(files, &Lists::shipped()).content()).unwrap()
}

fn benchmark(criterion: &mut Criterion) {
    let mut dice = Dice(7);
    let events: Vec<Event> =
        (0..EVENTS).map(|number| if number % 2 == 0 { cloudtrail(&mut dice) } else { kubernetes(&mut dice) }).collect();
    let bytes: usize = events.iter().map(|event| event.native.len()).sum();
    let mut plans = vec![("300-generated", plan(&generated_rules()))];
    if let Some(files) = sigma_rules() {
        plans.push(("sigmahq-cloud", plan(&files)));
    }

    let mut group = criterion.benchmark_group("matching");
    group.sample_size(20);
    for (unit, throughput) in
        [("events", Throughput::Elements(EVENTS as u64)), ("bytes", Throughput::Bytes(bytes as u64))]
    {
        group.throughput(throughput);
        group.bench_function(BenchmarkId::new("tape", unit), |bencher| {
            let mut buffers = simd_json::Buffers::default();
            let mut text = Vec::new();
            let mut tape = simd_json::Tape::null();
            bencher.iter(|| {
                for event in &events {
                    text.clear();
                    text.extend_from_slice(&event.native);
                    let mut open = std::mem::replace(&mut tape, simd_json::Tape(Vec::new())).reset();
                    simd_json::fill_tape(&mut text, &mut buffers, &mut open).unwrap();
                    black_box(&open);
                    tape = open.reset();
                }
            });
        });
        for (name, plan) in &plans {
            group.bench_function(BenchmarkId::new(*name, unit), |bencher| {
                bencher.iter(|| black_box(plan.select(&events, &Routing::BySource)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
