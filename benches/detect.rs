//! What detection costs on one core: decode → match → commit, with the shipped rules, on CloudTrail-like records of about
//! 1.2 KB. `cargo bench --bench detect` prints events/s and bytes/s of each stage and of the whole, in one run.
//!
//! Most events match nothing, as in real traffic; one in a hundred reads a secret. The commit goes to a SQLite store on
//! disk with `synchronous=FULL`, one transaction per micro-batch of 4,096 records, as in production.

#![allow(clippy::expect_used, reason = "a benchmark that cannot set itself up has nothing to measure")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pipeproof_engine::clock::SystemClock;
use pipeproof_engine::commit::Store;
use pipeproof_engine::detect::{Decoded, Detector, Undecoded};
use pipeproof_engine::plan::Plan;
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, Record};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::decode::decode;
use pipeproof_record::store::SqliteStore;

const RECORDS: usize = 4_096;

fn body(number: usize) -> String {
    const NAMES: [(&str, &str); 6] = [
        ("ec2.amazonaws.com", "DescribeInstances"),
        ("s3.amazonaws.com", "GetBucketLocation"),
        ("ecr.amazonaws.com", "BatchGetImage"),
        ("logs.amazonaws.com", "DescribeLogStreams"),
        ("sts.amazonaws.com", "GetCallerIdentity"),
        ("lambda.amazonaws.com", "GetFunction20150331v2"),
    ];
    let (service, name) = if number.is_multiple_of(100) {
        ("secretsmanager.amazonaws.com", "GetSecretValue")
    } else {
        NAMES[number % NAMES.len()]
    };
    let role = format!("svc-{}", number % 200);
    serde_json::json!({
        "eventVersion": "1.09",
        "userIdentity": {
            "type": "AssumedRole",
            "principalId": format!("AROA{:016}:session-{}", number % 200, number % 5_000),
            "arn": format!("arn:aws:sts::111122223333:assumed-role/{role}/session-{}", number % 5_000),
            "accountId": "111122223333",
            "accessKeyId": format!("ASIA{:016}", number % 5_000),
            "sessionContext": {
                "sessionIssuer": { "type": "Role", "arn": format!("arn:aws:iam::111122223333:role/{role}"), "userName": role },
                "attributes": { "creationDate": "2026-01-05T11:00:00Z", "mfaAuthenticated": "false" },
            },
        },
        "eventTime": format!("2026-01-05T12:{:02}:{:02}Z", (number / 60) % 60, number % 60),
        "eventSource": service,
        "eventName": name,
        "awsRegion": "eu-central-1",
        "sourceIPAddress": format!("10.{}.{}.{}", number % 200, number % 13, number % 251),
        "userAgent": "aws-sdk-go-v2/1.30.3 os/linux lang/go#1.22.5 md/GOOS#linux md/GOARCH#amd64 api/ec2#1.173.0",
        "requestParameters": { "filterSet": {}, "maxResults": 100, "secretId": format!("app/{}", number % 50) },
        "responseElements": null,
        "requestID": format!("4fa792f1-a997-4739-a79c-{number:012}"),
        "eventID": format!("0c7f6148-c337-4e49-8df5-{number:012}"),
        "readOnly": true,
        "eventType": "AwsApiCall",
        "managementEvent": true,
        "recipientAccountId": "111122223333",
        "eventCategory": "Management",
        "tlsDetails": { "tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256" },
    })
    .to_string()
}

fn records() -> Vec<Record> {
    (0..RECORDS)
        .map(|number| Record {
            envelope: Envelope {
                source: "trail".to_owned(),
                source_type: SourceType::AwsCloudtrail,
                received: Timestamp::from_secs(1_767_618_000),
                auth: Authenticity::Bearer,
                key_id: None,
                item: format!("id:{number}"),
                mode: CollectionMode::Live,
                attributes: BTreeMap::new(),
                redacted: Vec::new(),
            },
            salt: [0; 16],
            body: Bytes::from(body(number)),
        })
        .collect()
}

fn decoded(records: &[Record]) -> Vec<Decoded> {
    records
        .iter()
        .enumerate()
        .map(|(index, record)| {
            let index = index as u64;
            let events = decode(Position { partition: 0, index }, record)
                .map_err(|error| Undecoded { reason: error.to_string(), leaks: Vec::new() });
            Decoded { index, record: record.clone(), events }
        })
        .collect()
}

fn plan() -> Arc<Plan> {
    let set = pipeproof_rules::load(&pipeproof_rules::library(), &pipeproof_rules::library_lists());
    Arc::new(Plan::compile(set.content()).expect("the shipped rules compile"))
}

fn stages(criterion: &mut Criterion) {
    let records = records();
    let bytes: usize = records.iter().map(|record| record.body.len()).sum();
    let plan = plan();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut group = criterion.benchmark_group("detect");
    group.throughput(Throughput::ElementsAndBytes { elements: RECORDS as u64, bytes: bytes as u64 });
    group.sample_size(20).measurement_time(Duration::from_secs(8));

    group.bench_function("yardstick: serde_json::Value of the same bytes", |bencher| {
        bencher.iter(|| {
            for record in &records {
                black_box(serde_json::from_slice::<serde_json::Value>(&record.body).expect("JSON"));
            }
        });
    });
    group.bench_function("decode", |bencher| bencher.iter(|| black_box(decoded(&records))));
    group.bench_function("match and correlate", |bencher| {
        let batch = decoded(&records);
        bencher.iter_batched(
            || (Detector::new(Arc::clone(&plan), 0), batch.clone()),
            |(mut detector, batch)| black_box(detector.apply(batch, Timestamp::default()).expect("a commit")),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("decode, match, commit", |bencher| {
        bencher.iter_batched(
            || {
                let folder = tempfile::tempdir().expect("a folder");
                let path = folder.path().join("store.db");
                let store = runtime.block_on(SqliteStore::open(&path, Arc::new(SystemClock))).expect("a store");
                (Detector::new(Arc::clone(&plan), 0), store, folder)
            },
            |(mut detector, store, folder)| {
                let commit = detector.apply(decoded(&records), Timestamp::default()).expect("a commit");
                runtime.block_on(store.commit(&commit)).expect("committed");
                (store, folder)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
