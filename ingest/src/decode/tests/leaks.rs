//! Every secret that was replaced is an event, whatever carried it.

use std::collections::{BTreeMap, BTreeSet};

use engine::fields::Field;
use engine::record::{Position, Record, Redacted};
use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::{Value, json};

use super::record;
use super::samples::{items_of_all_types, receive, receiver};
use crate::redact::Family;

/// Types of the leaks that a record's events tell of, with how many it makes of each.
fn leaks(record: &Record) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for event in super::super::decode(Position::default(), record).unwrap() {
        if event.fields.get_text(Field::Action) == Some("leak.detected") {
            let kind = event.fields.get_text(Field::LeakType).unwrap_or_default().to_owned();
            *found.entry(kind).or_default() += 1;
            assert!(event.fields.get_text(Field::LeakFingerprint).is_some_and(|print| !print.is_empty()));
        }
    }
    found
}

#[test]
fn secrets_of_every_family_are_events_from_every_type() {
    let mut seen = BTreeSet::new();
    for (file, kind, body) in items_of_all_types() {
        let mut record = record(kind, &[], body);
        if seen.contains(&kind) || super::super::decode(Position::default(), &record).is_err() {
            continue;
        }
        seen.insert(kind);
        for family in Family::ALL {
            record.envelope.redacted =
                vec![Redacted { family: family.name().to_owned(), fingerprint: "0011".to_owned(), count: 2 }];
            let told = leaks(&record).contains_key(family.name());
            let expected = match (kind, family) {
                (SourceType::Gitleaks, Family::ScannerFinding)
                | (SourceType::AwsCloudtrail, Family::AwsSessionToken) => false,
                (SourceType::Gitleaks | SourceType::AwsCloudtrail, _) => true,
                (_, Family::KubernetesSecret) => false,
                _ => true,
            };
            assert_eq!(told, expected, "{} of {kind} in {file}", family.name());
        }
    }
    println!("{} types: {seen:?}", seen.len());
    assert!(seen.len() >= 30, "{seen:?}");
}

#[test]
fn a_secret_of_a_dead_letter_is_an_event() {
    let mut letter = record(SourceType::GithubWebhook, &[], "{\"not\": finished");
    let position = Position { partition: 0, index: 7 };
    assert!(super::super::decode(position, &letter).is_err());
    assert!(super::super::leaks_of(position, &letter).is_empty());
    letter.envelope.redacted =
        vec![Redacted { family: "github-pat".to_owned(), fingerprint: "0011".to_owned(), count: 2 }];
    let [leak] = super::super::leaks_of(position, &letter).try_into().unwrap();
    assert_eq!((leak.id.position, leak.id.sub), (position, 1), "number 0 is the letter");
    assert_eq!(leak.fields.get_text(Field::Action), Some("leak.detected"));
    assert_eq!(leak.fields.get_text(Field::LeakFingerprint), Some("0011"));
    assert!(serde_json::from_slice::<Value>(&leak.native).unwrap().is_object(), "its own words, not the letter's");
}

#[test]
fn a_token_is_an_event_wherever_it_stood() {
    let token = format!("gh{}_{}", 'p', "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6");
    let cases: &[(SourceType, Value)] = &[
        (
            SourceType::Falco,
            json!({"output": format!("curl -H {token}"), "priority": "Notice", "rule": "r", "time": "2026-11-20T10:00:00Z",
                "output_fields": {"proc.cmdline": format!("curl -H {token}")}}),
        ),
        (
            SourceType::Tetragon,
            json!({"process_exec": {"process": {"exec_id": "e", "binary": "/usr/bin/curl", "arguments": format!("-H {token}")}},
                "node_name": "n", "time": "2026-11-20T10:00:00Z"}),
        ),
        (
            SourceType::Buildkite,
            json!({"event": "build.finished", "build": {"id": "b", "number": 1, "state": "passed", "message": token,
                "web_url": "https://buildkite.com/acme/app/builds/1"}, "pipeline": {"slug": "app"}, "sender": {"name": "a"}}),
        ),
        (
            SourceType::CircleciWebhook,
            json!({"type": "workflow-completed", "id": "1", "happened_at": "2026-11-20T10:00:00Z",
                "workflow": {"id": "w", "name": "build", "status": "success"}, "pipeline": {"id": "p", "vcs": {"commit": {"subject": token}}},
                "project": {"slug": "gh/acme/app"}, "organization": {"name": "acme"}}),
        ),
        (
            SourceType::KubernetesAudit,
            json!({"kind": "Event", "auditID": "a", "stage": "ResponseComplete", "verb": "create",
                "objectRef": {"resource": "pods", "namespace": "x", "name": "y"},
                "requestObject": {"metadata": {"annotations": {"note": token}}}}),
        ),
        (
            SourceType::VaultAudit,
            json!({"time": "2026-01-01T00:00:00Z", "type": "request", "request": {"id": "r", "operation": "read", "path": "kv/data/x",
                "headers": {"x": [token]}}}),
        ),
    ];
    for (kind, body) in cases {
        let records = receive(&receiver(), *kind, None, body.to_string().into()).unwrap();
        assert_eq!(leaks(&records[0]), BTreeMap::from([("github-token".to_owned(), 1)]), "{kind}");
    }
}

#[test]
fn what_is_an_event_already_is_none_again() {
    // Of gitleaks, each finding is: the secret, the line it stood in, and the same secret known by its looks.
    let token = format!("gh{}_{}", 'p', "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6");
    for secret in ["plain words", token.as_str()] {
        let finding = json!({"RuleID": "own", "Secret": secret, "Match": format!("key = {secret}"), "Line": format!("key = {secret} # x"),
            "File": "a", "StartLine": 1, "Commit": "c", "Description": "d"});
        let records = receive(&receiver(), SourceType::Gitleaks, None, finding.to_string().into()).unwrap();
        assert_eq!(leaks(&records[0]), BTreeMap::from([("own".to_owned(), 1)]), "{secret}");
    }
    // What Vault hashed is no secret, and what an API server was asked to keep is the event itself.
    let hashed = json!({"time": "2026-01-01T00:00:00Z", "type": "request", "auth": {"client_token": format!("hmac-sha256:{}", "ab12".repeat(16))},
        "request": {"id": "r", "operation": "read", "path": "kv/data/x", "client_token": format!("hmac-sha256:{}", "ab12".repeat(16))}});
    let secret = json!({"kind": "Event", "auditID": "a", "stage": "ResponseComplete", "verb": "create",
        "objectRef": {"resource": "secrets", "namespace": "x", "name": "y"}, "requestObject": {"kind": "Secret", "data": {"pw": "aHVudGVyMg=="}}});
    let assumed = json!({"eventID": "e", "eventTime": "2026-01-01T00:00:00Z", "eventName": "AssumeRole", "eventSource": "sts.amazonaws.com",
        "responseElements": {"credentials": {"accessKeyId": "ASIAQWERTYUIOP234567", "sessionToken": "aB3/".repeat(40)}}});
    for (kind, body, redacted) in [
        (SourceType::VaultAudit, hashed, 0),
        (SourceType::KubernetesAudit, secret, 1),
        (SourceType::AwsCloudtrail, assumed, 1),
    ] {
        let records = receive(&receiver(), kind, None, body.to_string().into()).unwrap();
        assert_eq!(records[0].envelope.redacted.len(), redacted, "{kind}");
        assert_eq!(leaks(&records[0]), BTreeMap::new(), "{kind}");
    }
}

#[test]
fn a_report_without_findings_tells_its_secret_all_the_same() {
    let mut record = record(SourceType::Gitleaks, &[], "null");
    record.envelope.redacted =
        vec![Redacted { family: "github-token".to_owned(), fingerprint: "0011".to_owned(), count: 1 }];
    assert_eq!(leaks(&record), BTreeMap::from([("github-token".to_owned(), 1)]));
}
