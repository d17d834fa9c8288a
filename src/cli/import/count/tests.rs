//! The count against a table of framings, and against what a receiver makes of every fixture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pipeproof_engine::record::CollectionMode;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::receive::{Limits, Receiver, ReceiverKeys, Request, SourceSettings};

use super::*;

#[test]
fn framings_and_wrappers() {
    let table: &[(SourceType, &str, u64)] = &[
        (SourceType::Json, "", 0),
        (SourceType::Json, "\u{feff} {\"a\":1}\r\n", 1),
        (SourceType::Json, "[{\"a\":1}, 2 ,{\"b\":[3]}]", 3),
        (SourceType::Json, "[]", 0),
        (SourceType::Json, "{\"a\":1}\n\n{\"b\":2}\r\n", 2),
        (SourceType::Json, "{\"a\":1}{\"b\":2} [3]", 3),
        (SourceType::Json, "{\n \"a\": 1\n}\n{\n \"b\": 2\n}", 2),
        (SourceType::Json, "{\"a\":\n{\"b\":2}\n{\"c\":3}", 3),
        (SourceType::Json, "{\"a\":1}\nnonsense\n{\"c\"", 3),
        (SourceType::Json, "not json\nat all", 1),
        (SourceType::Json, "1\n2\n3", 1),
        (SourceType::Json, "{\"Records\":[1,2]}", 1),
        (SourceType::AwsCloudtrail, "{\"Records\":[{},{}]}", 2),
        (SourceType::AwsCloudtrail, "{\"Records\":\"no\"}", 1),
        (SourceType::AwsCloudtrail, "{\"detail-type\":\"x\",\"detail\":{\"eventName\":\"A\"}}", 1),
        (SourceType::AwsCloudtrail, "{\"logEvents\":[{\"message\":\"{}{}\"},{\"message\":\"text\"}]}", 3),
        // {"a":1} twice, a line each.
        (SourceType::AwsCloudtrail, "{\"requestId\":\"r\",\"records\":[{\"data\":\"eyJhIjoxfQp7ImEiOjF9\"}]}", 2),
        (SourceType::AwsCloudtrail, "{\"Type\":\"Notification\",\"Message\":\"{\\\"Records\\\":[1,2]}\"}", 2),
        (SourceType::KubernetesAudit, "{\"kind\":\"EventList\",\"items\":[1,2,3]}", 3),
        (SourceType::VaultAudit, "{\"items\":[1]}", 1),
        (SourceType::Okta, "{\"data\":{\"events\":[{},{}]}}", 2),
        (SourceType::GithubWebhook, "{\"payload\":{\"Records\":[1,2]}}", 1),
        (SourceType::Jenkins, "Nov 3, 2026 4:05:06,123 PM a\nb\nNov 13, 2026 4:05:06,123 PM c\n", 2),
        (SourceType::Jenkins, "/a by x\n\n/b by y\n", 2),
        (SourceType::CircleciAudit, "action,occurred_at\na,\"t\nu\"\nb\n", 2),
        (SourceType::CircleciAudit, "name,value\na,b\n", 1),
    ];
    for (kind, file, expected) in table {
        assert_eq!(items(*kind, file.as_bytes()), *expected, "{kind}: {file}");
    }
}

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_dir() {
            // What build tools print is no JSON, and has brackets all the same: where it would be cut says nothing.
            if name != "build_logs" {
                files(&entry, out);
            }
        } else if [".json", ".ndjson", ".csv", ".log"].iter().any(|end| name.ends_with(end))
            && !name.contains(".fields.")
        {
            out.push(entry);
        }
    }
}

/// Two readers that have nothing in common agree on every fixture, as whatever type it is sent.
#[test]
fn every_fixture_counts_as_many_items_as_a_receiver_takes() {
    let receiver = Receiver::new(ReceiverKeys { redaction: [1; 32], dedup: [2; 32] }, Limits::default());
    let mut all = Vec::new();
    for folder in ["tests/fixtures", "ingest/tests/fixtures"] {
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut all);
    }
    let mut seen = 0;
    for file in &all {
        let body = Bytes::from(std::fs::read(file).unwrap());
        let kinds = SourceType::ALL.iter().copied().filter(|kind| kind.is_external() && !kind.info().free_text);
        for source_type in kinds {
            let source = SourceSettings {
                name: "acme".to_owned(),
                source_type,
                labels: BTreeMap::new(),
                secrets: Vec::new(),
                connected: Timestamp::default(),
            };
            let taken = receiver.accept(Request {
                source: &source,
                headers: &http::HeaderMap::new(),
                query: &BTreeMap::new(),
                body: body.clone(),
                received: Timestamp::default(),
                bearer: Some("t1".to_owned()),
                mode: CollectionMode::Backfill,
            });
            let Ok(records) = taken else { continue };
            assert_eq!(items(source_type, &body), records.len() as u64, "{} as {source_type}", file.display());
            seen += 1;
        }
    }
    assert!(seen > 2_000, "{seen} were compared");
}
