//! Requests good and bad: what is taken, as which records, and what is refused with which answer.

mod keys;

use std::collections::BTreeMap;

use super::*;

const KEYS: ReceiverKeys = ReceiverKeys { redaction: [1; 32], dedup: [2; 32] };

fn source(kind: SourceType) -> SourceSettings {
    SourceSettings {
        name: "acme".to_owned(),
        source_type: kind,
        labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
        secrets: vec![
            Secret { id: "new".to_owned(), bytes: b"n3w".to_vec() },
            Secret { id: "old".to_owned(), bytes: b"0ld".to_vec() },
        ],
        connected: Timestamp::from_secs(1),
    }
}

struct Sent<'a> {
    kind: SourceType,
    headers: &'a [(&'static str, &'a str)],
    query: &'a [(&'a str, &'a str)],
    bearer: bool,
}

impl Sent<'_> {
    fn body(&self, body: impl Into<Bytes>) -> Result<Vec<Record>, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            headers.insert(*name, value.parse().unwrap());
        }
        let query = self.query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Receiver::new(KEYS, Limits::default()).accept(Request {
            source: &source(self.kind),
            headers: &headers,
            query: &query,
            body: body.into(),
            received: Timestamp::from_secs(100),
            bearer: self.bearer.then(|| "t1".to_owned()),
            mode: CollectionMode::Live,
        })
    }
}

fn bearer(kind: SourceType) -> Sent<'static> {
    Sent { kind, headers: &[], query: &[], bearer: true }
}

fn sign(secret: &[u8], body: &[u8]) -> String {
    use hmac::Mac;
    let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap().chain_update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

fn items(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.envelope.item.as_str()).collect()
}

#[test]
fn a_webhook_needs_a_signature_of_an_active_secret_or_a_token() {
    let body = br#"{"zen":"x"}"#;
    for (secret, key) in [(&b"n3w"[..], "new"), (b"0ld", "old")] {
        let signature = sign(secret, body);
        let headers = [
            ("x-hub-signature-256", signature.as_str()),
            ("x-github-event", "ping"),
            ("x-github-delivery", "d-1"),
            ("cookie", "c"),
        ];
        let sent = Sent { kind: SourceType::GithubWebhook, headers: &headers, query: &[], bearer: false };
        let records = sent.body(&body[..]).unwrap();
        let envelope = &records[0].envelope;
        assert_eq!((envelope.auth, envelope.key_id.as_deref()), (Authenticity::Hmac, Some(key)));
        assert_eq!(envelope.item, "id:d-1");
        let attributes: Vec<&str> = envelope.attributes.keys().map(String::as_str).collect();
        assert_eq!(attributes, ["label.env", "x-github-delivery", "x-github-event"], "nothing but the known headers");
        let refused = sent.body(&b"{\"zen\":\"y\"}"[..]).unwrap_err();
        assert_eq!((refused.status(), refused.code()), (401, "unauthenticated"));
    }
    let unsigned = Sent { kind: SourceType::GithubWebhook, headers: &[], query: &[], bearer: false };
    assert_eq!(unsigned.body(&body[..]).unwrap_err().status(), 401);
    let record = &bearer(SourceType::GithubWebhook).body(&body[..]).unwrap()[0];
    assert_eq!((record.envelope.auth, record.envelope.key_id.as_deref()), (Authenticity::Bearer, Some("t1")));
    let other = Sent { kind: SourceType::Json, headers: &[], query: &[], bearer: false };
    assert_eq!(other.body("{}").unwrap_err().status(), 401);
    assert_eq!(bearer(SourceType::Pipeproof).body("{}").unwrap_err().code(), "own_source");
}

#[test]
fn ways_of_their_own_say_who_sent_and_where_it_stood() {
    let sent = |way: &Way, kind: SourceType, body: &'static str| {
        let request = Request {
            source: &source(kind),
            headers: &HeaderMap::new(),
            query: &BTreeMap::new(),
            body: Bytes::from(body),
            received: Timestamp::from_secs(100),
            bearer: None,
            mode: CollectionMode::Live,
        };
        Receiver::new(KEYS, Limits::default()).accept_by(way, request)
    };
    let way = Way {
        proven: Some((Authenticity::Unverified, None)),
        place: Some("topic/0/77".to_owned()),
        attributes: vec![("kafka.topic", "topic".to_owned())],
        ..Way::default()
    };
    let records = sent(&way, SourceType::Json, "[{},{}]").unwrap();
    assert_eq!(items(&records), ["id:topic/0/77/0", "id:topic/0/77/1"]);
    assert_eq!(records[0].envelope.auth, Authenticity::Unverified);
    assert_eq!(records[0].envelope.attributes["kafka.topic"], "topic");
    let own = sent(&way, SourceType::AwsCloudtrail, r#"{"eventID":"e"}"#).unwrap();
    assert_eq!(items(&own), ["id:e"], "an id of its own comes first");
    assert_eq!(sent(&Way::default(), SourceType::Json, "{}").unwrap_err().code(), "unauthenticated");
    let hec = Way { framing: Framing::Hec, ..way };
    let token = format!("gh{}_{}", 's', "b".repeat(36));
    let event: &'static str = format!(r#"{{"event":{{"a":1}},"host":"{token}"}}"#).leak();
    let record = &sent(&hec, SourceType::Json, event).unwrap()[0];
    assert_eq!(record.body, "{\"a\":1}");
    assert!(record.envelope.attributes["hec.host"].starts_with("redacted:github-token:"));
    assert_eq!(record.envelope.redacted.len(), 1);
}

#[test]
fn a_dead_letter_is_taken_apart_again_under_the_same_names() {
    let receiver = Receiver::new(KEYS, Limits::default());
    let deep = [vec![b'['; 200], vec![b']'; 200]].concat();
    let mut letter = bearer(SourceType::AwsCloudtrail).body(deep).unwrap().remove(0);
    assert!(is_unread(&letter));
    // As if this version could read what that one could not.
    letter.body = Bytes::from_static(br#"{"Records":[{"eventID":"a"},{"eventID":"b"}]}"#);
    let later = Timestamp::from_secs(500);
    let again = receiver.again(&letter, 7, later).unwrap();
    assert_eq!(items(&again), [0, 1].map(|number| format!("{}/again/{number}", letter.envelope.item)));
    assert_eq!(
        again.iter().map(|record| &record.body[..]).collect::<Vec<_>>(),
        [&br#"{"eventID":"a"}"#[..], br#"{"eventID":"b"}"#]
    );
    let envelope = &again[0].envelope;
    assert!(!is_unread(&again[0]) && envelope.mode == CollectionMode::Backfill && envelope.received == later);
    assert_eq!((envelope.attributes["again.record"].as_str(), envelope.auth), ("7", letter.envelope.auth));
    assert_eq!(items(&receiver.again(&letter, 7, later).unwrap()), items(&again));
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20));
    let cut = bearer(SourceType::AwsCloudtrail).body(long).unwrap().remove(0);
    assert_eq!(receiver.again(&cut, 8, later).unwrap(), [], "only its beginning is there");
}

#[test]
fn both_modes_of_a_cloudevent_are_one_item() {
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("content-type", "application/json"),
    ];
    let binary = Sent { kind: SourceType::Json, headers: &headers, query: &[], bearer: true };
    let binary = binary.body("{\"a\":1}").unwrap();
    let structured = r#"{"specversion":"1.0","id":"7","source":"/s","type":"t","data":{"a":1}}"#;
    let batch = bearer(SourceType::Json).body(format!("[{structured}]")).unwrap();
    assert_eq!((items(&binary), items(&batch)), (vec!["id:/s/7"], vec!["id:/s/7"]));
    let json: serde_json::Value = serde_json::from_slice(&binary[0].body).unwrap();
    assert_eq!((&json["data"]["a"], &json["type"]), (&1.into(), &"t".into()));
}

#[test]
fn a_signature_for_another_time_says_so() {
    let stamp = |secs: i64| {
        use base64::Engine as _;
        use hmac::Mac;
        let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"n3w").unwrap();
        let mac = mac.chain_update(format!("m.{secs}.{{}}")).finalize().into_bytes();
        (secs.to_string(), format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(mac)))
    };
    for (secs, code) in [(100, "ok"), (399, "ok"), (1_000, "stale_signature")] {
        let (time, signature) = stamp(secs);
        let headers =
            [("webhook-id", "m"), ("webhook-timestamp", time.as_str()), ("webhook-signature", signature.as_str())];
        let sent = Sent { kind: SourceType::Json, headers: &headers, query: &[], bearer: false };
        let said = sent.body("{}").map_or_else(
            |refusal| refusal.code(),
            |records| {
                assert_eq!(records[0].envelope.auth, Authenticity::Hmac);
                "ok"
            },
        );
        assert_eq!(said, code, "{secs}");
    }
}

#[test]
fn a_signed_form_and_a_signed_gzip_are_read() {
    let body = b"payload=%7B%22zen%22%3A%22x%22%7D";
    let signature = sign(b"n3w", body);
    let headers = [("x-hub-signature-256", signature.as_str())];
    let sent = Sent { kind: SourceType::GithubWebhook, headers: &headers, query: &[], bearer: false };
    assert_eq!(sent.body(&body[..]).unwrap()[0].body, r#"{"zen":"x"}"#);
    // A provider gets no error for what it cannot mend.
    let kept = bearer(SourceType::GithubWebhook).body("payload=%7").unwrap();
    assert_eq!((kept.len(), &kept[0].body[..]), (1, &b"%7"[..]));
    assert!(dead_letter(&kept[0]).contains("JSON"), "{}", dead_letter(&kept[0]));
    let zstd = zstd::encode_all(&b"{\"zen\":\"x\"}"[..], 1).unwrap();
    let signature = sign(b"n3w", &zstd);
    let headers = [("x-hub-signature-256", signature.as_str()), ("content-encoding", "zstd")];
    let sent = Sent { kind: SourceType::GithubWebhook, headers: &headers, query: &[], bearer: false };
    assert_eq!(sent.body(zstd).unwrap()[0].body, r#"{"zen":"x"}"#);
}

#[test]
fn items_are_recognised_when_they_come_again() {
    type Headers = &'static [(&'static str, &'static str)];
    let table: &[(SourceType, Headers, &str, &[&str])] = &[
        (
            SourceType::AwsCloudtrail,
            &[],
            r#"{"Records":[{"eventName":"A","eventID":"e1"},{"eventID":"e2"}]}"#,
            &["id:e1", "id:e2"],
        ),
        (
            SourceType::KubernetesAudit,
            &[],
            r#"{"items":[{"auditID":"a","stage":"RequestReceived"},{"auditID":"a","stage":"ResponseComplete"}]}"#,
            &["id:a/RequestReceived", "id:a/ResponseComplete"],
        ),
        (
            SourceType::VaultAudit,
            &[],
            "{\"type\":\"request\",\"request\":{\"id\":\"r\"}}\n{\"type\":\"response\",\"request\":{\"id\":\"r\"}}",
            &["id:r/request", "id:r/response"],
        ),
        (SourceType::Json, &[("idempotency-key", "k")], "{}", &["id:k"]),
        (SourceType::Json, &[("idempotency-key", "k")], "[{},{}]", &["id:k/0", "id:k/1"]),
        (SourceType::Json, &[], r#"{"specversion":"1.0","id":"7","source":"/s"}"#, &["id:/s/7"]),
    ];
    for (kind, headers, body, expected) in table {
        let sent = Sent { kind: *kind, headers, query: &[], bearer: true };
        assert_eq!(items(&sent.body((*body).to_owned()).unwrap()), *expected, "{body}");
    }
    let hashed = |body: &'static str| items(&bearer(SourceType::Json).body(body).unwrap())[0].to_owned();
    assert!(hashed("{\"id\":1}").starts_with("hash:") && hashed("{\"id\":1}").len() == 5 + 64);
    assert_eq!(hashed("{\"id\":1}"), hashed(" {\"id\":1}\n"));
    assert_ne!(hashed("{\"id\":1}"), hashed("{\"id\":2}"));
    let token = format!("gh{}_{}", 'p', "a".repeat(36));
    let headers = [("idempotency-key", token.as_str())];
    let sent = Sent { kind: SourceType::Json, headers: &headers, query: &[], bearer: true };
    assert!(items(&sent.body("{}").unwrap())[0].starts_with("hash:"), "a secret is no id");
}

#[test]
fn every_record_has_a_salt_of_its_own_and_fits_the_log() {
    let records = bearer(SourceType::Json).body("[{},{}]").unwrap();
    assert_ne!(records[0].salt, records[1].salt);
    for record in records {
        assert_eq!(record.envelope.received, Timestamp::from_secs(100));
        assert_eq!(Record::decode(&Bytes::from(record.encode().unwrap())).unwrap(), record);
    }
}

#[test]
fn a_job_log_becomes_chunks_of_whole_lines_with_their_own_leaks() {
    let token = format!("gh{}_{}", 's', "b".repeat(36));
    let line = "2025-03-15T10:00:00.1234567Z some output of a build that goes on and on\n";
    let log = format!("{}secret {token}\n{}", line.repeat(4000), line.repeat(4000));
    let query = [("repo", "acme/app"), ("run_id", "77"), ("job_id", "8"), ("attempt", "2"), ("secret", "x")];
    let sent = Sent { kind: SourceType::GithubJoblog, headers: &[], query: &query, bearer: true };
    let records = sent.body(log.clone()).unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!(items(&records), ["id:acme/app/77/8/2/0", "id:acme/app/77/8/2/1", "id:acme/app/77/8/2/2"]);
    assert!(records.iter().all(|record| record.body.len() <= 256 << 10 && record.body.ends_with(b"\n")));
    let leaks: Vec<usize> = records.iter().map(|record| record.envelope.redacted.len()).collect();
    assert_eq!(leaks, [0, 1, 0]);
    let attributes = &records[1].envelope.attributes;
    assert_eq!((attributes["joblog.repo"].as_str(), attributes["joblog.chunk"].as_str()), ("acme/app", "1"));
    assert!(!attributes.keys().any(|name| name.contains("secret")));
    let whole: Vec<u8> = records.iter().flat_map(|record| record.body.to_vec()).collect();
    assert_eq!(String::from_utf8(whole).unwrap().lines().count(), log.lines().count());
    let again = sent.body(log).unwrap();
    assert_eq!(items(&again), items(&records));
    assert_eq!(sent.body(vec![b'x'; 600 << 10]).unwrap().len(), 3, "one endless line is cut");
    let nameless = bearer(SourceType::GithubJoblog).body("a\n").unwrap();
    assert!(items(&nameless)[0].starts_with("hash:") && items(&nameless)[0].ends_with("/0"));
}

#[test]
fn attributes_are_redacted_too() {
    let token = format!("gh{}_{}", 's', "b".repeat(36));
    let query = [("repo", "acme/app"), ("name", token.as_str())];
    let sent = Sent { kind: SourceType::GithubJoblog, headers: &[], query: &query, bearer: true };
    let envelope = &sent.body("line\n").unwrap()[0].envelope;
    assert!(envelope.attributes["joblog.name"].starts_with("redacted:github-token:"));
    assert_eq!(envelope.redacted.len(), 1);
    // A secret that the length limit cuts through.
    let long = format!("{}{token}", "x ".repeat(245));
    let query = [("repo", "acme/app"), ("name", long.as_str())];
    let sent = Sent { kind: SourceType::GithubJoblog, headers: &[], query: &query, bearer: true };
    let name = &sent.body("line\n").unwrap()[0].envelope.attributes["joblog.name"];
    assert!(name.len() == 512 && name.contains("redacted:") && !name.contains("bbb"), "{name}");
}

#[test]
fn refusals_say_what_the_sender_can_mend() {
    let json = bearer(SourceType::Json);
    let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    let cut = gzip(b"{\"a\":1}");
    let table: Vec<(Vec<u8>, u16, &str)> = vec![
        (vec![], 400, "empty_body"),
        (b"  \n".to_vec(), 400, "empty_body"),
        (deep(10_000), 400, "json_too_deep"),
        (vec![b'x'; 100 << 20], 413, "body_too_large"),
        (gzip(&vec![b' '; 40 << 20]), 413, "compression_ratio"),
        (cut[..cut.len() - 4].to_vec(), 400, "bad_compression"),
        (format!("[{}1]", "1,".repeat(60_000)).into_bytes(), 413, "too_many_items"),
    ];
    for (body, status, code) in table {
        let refused = json.body(body).unwrap_err();
        assert_eq!((refused.status(), refused.code()), (status, code), "{refused}");
    }
    // The same from a provider, which would disable its webhook or repeat itself for ever: kept, and a dead letter.
    for body in [vec![], deep(10_000), gzip(&vec![b' '; 40 << 20]), cut[..cut.len() - 4].to_vec()] {
        let records = bearer(SourceType::KubernetesAudit).body(body.clone()).unwrap();
        assert_eq!(records.len(), 1);
        assert!(dead_letter(&records[0]).contains("could not be taken apart"));
        let compressed = body.starts_with(&[0x1f, 0x8b]);
        assert_eq!(records[0].body.is_empty(), compressed || body.is_empty(), "what cannot be read is not kept");
        assert_eq!(records[0].envelope.attributes.contains_key("truncated.hash"), compressed);
    }
    let brotli = Sent { kind: SourceType::Json, headers: &[("content-encoding", "br")], query: &[], bearer: true };
    assert_eq!(brotli.body("{}").unwrap_err().status(), 415);
}

/// A record as the log keeps it: it fits, and decoding says why it has no events.
fn dead_letter(record: &Record) -> String {
    let leaf = record.encode().unwrap();
    assert!(leaf.len() <= engine::record::RECORD_BYTES_MAX);
    let again = Record::decode(&Bytes::from(leaf)).unwrap();
    crate::decode::decode(engine::record::Position::default(), &again).unwrap_err().to_string()
}

#[test]
fn an_item_larger_than_a_record_is_kept_cut_and_costs_its_neighbours_nothing() {
    let json = bearer(SourceType::Json);
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20));
    let records = json.body(format!("{{\"n\":1}}\n{long}\n{{\"n\":2}}")).unwrap();
    assert_eq!((records.len(), &records[0].body[..], &records[2].body[..]), (3, &b"{\"n\":1}"[..], &b"{\"n\":2}"[..]));
    let attributes = &records[1].envelope.attributes;
    assert_eq!(attributes["truncated.bytes"], long.len().to_string());
    // Nothing was redacted from it, so both are the keyed hash of the same bytes.
    assert_eq!(attributes["truncated.hash"], records[1].envelope.item);
    assert!(long.as_bytes().starts_with(&records[1].body) && records[1].body.len() > 1_000_000);
    let reason = dead_letter(&records[1]);
    assert!(reason.contains(&long.len().to_string()) && reason.contains("its beginning"), "{reason}");
    // Alone, of every type, and the same again when it comes again.
    for kind in SourceType::ALL.iter().filter(|kind| kind.is_external() && !kind.info().free_text) {
        let [one, two] = [bearer(*kind).body(long.clone()).unwrap(), bearer(*kind).body(long.clone()).unwrap()];
        assert_eq!((one.len(), items(&one)), (1, items(&two)), "{kind:?}");
        dead_letter(&one[0]);
    }
    // An id of its own is kept.
    let event = format!("{{\"Records\":[{{\"eventID\":\"e1\",\"x\":{long}}},{{\"eventID\":\"e2\"}}]}}");
    assert_eq!(items(&bearer(SourceType::AwsCloudtrail).body(event).unwrap()), ["id:e1", "id:e2"]);
}

#[test]
fn what_nobody_sends_in_smaller_parts_is_kept_however_large_it_is() {
    let limits = Limits { body_bytes_max: 1_000, ..Limits::default() };
    let body = Bytes::from(vec![b'x'; 1_001]);
    let accept = |keep: bool, kind: SourceType| {
        let way = Way { proven: Some((Authenticity::Unverified, None)), keep, ..Way::default() };
        let request = Request {
            source: &source(kind),
            headers: &HeaderMap::new(),
            query: &BTreeMap::new(),
            body: body.clone(),
            received: Timestamp::from_secs(100),
            bearer: None,
            mode: CollectionMode::Live,
        };
        Receiver::new(KEYS, limits.clone()).accept_by(&way, request)
    };
    for kind in [SourceType::Json, SourceType::VaultAudit, SourceType::GithubJoblog] {
        let records = accept(true, kind).unwrap();
        let attributes = &records[0].envelope.attributes;
        assert_eq!((records.len(), records[0].body.len()), (1, 0), "{kind:?}");
        assert_eq!(attributes["truncated.bytes"], "1001");
        assert!(attributes["truncated.hash"].starts_with("hash:"));
        assert!(dead_letter(&records[0]).contains("body_too_large"), "{}", dead_letter(&records[0]));
        assert_eq!(accept(false, kind).unwrap_err(), Refusal::TooLarge { bytes: 1_001, limit: 1_000 });
    }
}

#[test]
fn each_wait_of_a_build_for_somebody_is_an_event() {
    let id = |body: String| bearer(SourceType::Buildkite).body(body).unwrap().remove(0).envelope.item;
    let build = |message: &str| {
        format!(
            r#"{{"event":"build.finished","build":{{"id":"b","state":"passed","blocked":true,"message":"{message}","started_at":"1","finished_at":null}}}}"#
        )
    };
    assert_eq!(id(build("one")), id(build("one")), "delivered again");
    assert_ne!(id(build("one")), id(build("two")));
    let blocked = |n: u8| format!(r#"{{"event":"build.blocked","n":{n},"build":{{"id":"b","state":"blocked"}}}}"#);
    assert_ne!(id(blocked(1)), id(blocked(2)));
    let ended = r#"{"event":"build.finished","build":{"id":"b","state":"passed","blocked":false,"started_at":"1","finished_at":"2"}}"#;
    assert_eq!(id(ended.to_owned()), "id:build.finished/b/passed/1/2");
}

#[test]
fn items_of_ci_systems_are_known_by_their_own_ids() {
    let id = |kind: SourceType, body: &str| bearer(kind).body(body.to_owned()).unwrap().remove(0).envelope.item;
    for (kind, body, expected) in [
        (SourceType::GithubAudit, r#"{"_document_id":"d1","action":"repo.create"}"#, "id:d1"),
        (
            SourceType::GitlabAudit,
            r#"{"id":1653461355,"created_at":"2022-05-25T06:49:15.213Z","event_type":"x"}"#,
            "id:1653461355/2022-05-25T06:49:15.213Z/x",
        ),
        (SourceType::CircleciWebhook, r#"{"id":"w1","type":"job-completed"}"#, "id:w1"),
        (SourceType::CircleciAudit, r#"{"id":"a1","action":"x"}"#, "id:a1"),
        (SourceType::Buildkite, r#"{"uuid":"u1","type":"SecretReadEvent"}"#, "id:u1"),
        (
            SourceType::Buildkite,
            r#"{"event":"job.finished","job":{"id":"j1","state":"failed","started_at":"1","finished_at":"2"}}"#,
            "id:job.finished/j1/failed/1/2",
        ),
        (SourceType::Cdevents, r#"{"context":{"source":"/s","id":"e1"}}"#, "id:/s/e1"),
        (SourceType::Cdevents, r#"{"specversion":"1.0","data":{"context":{"source":"/s","id":"e1"}}}"#, "id:/s/e1"),
    ] {
        assert_eq!(id(kind, body), expected);
    }
    // Agents come and go under one id, and what an artifact carries along is known by its bytes alone.
    for (kind, body) in [
        (SourceType::Buildkite, r#"{"event":"agent.connected","agent":{"id":"a"}}"#),
        (SourceType::SbomCyclonedx, r#"{"bomFormat":"CycloneDX","serialNumber":"urn:uuid:1"}"#),
        (SourceType::RekorEntry, r#"{"logIndex":1,"body":"e30="}"#),
    ] {
        assert!(id(kind, body).starts_with("hash:"), "{body}");
    }
}

#[test]
fn records_are_cut_exactly_where_they_no_longer_fit() {
    let json = bearer(SourceType::Json);
    let sent = |len: usize| json.body(format!("\"{}\"", "x".repeat(len - 2))).unwrap().remove(0);
    let overhead = sent(1000).encode().unwrap().len() - 1000;
    let whole = sent(engine::record::ITEM_BYTES_MAX - overhead);
    assert_eq!(whole.encode().unwrap().len(), engine::record::ITEM_BYTES_MAX);
    assert!(!whole.envelope.attributes.contains_key("truncated.bytes"));
    let cut = sent(engine::record::ITEM_BYTES_MAX - overhead + 1);
    assert_eq!(cut.encode().unwrap().len(), engine::record::ITEM_BYTES_MAX);
    assert!(cut.envelope.attributes.contains_key("truncated.bytes"));
    let umlauts = json.body(format!("\"{}\"", "ü".repeat(1 << 20))).unwrap().remove(0);
    assert!(std::str::from_utf8(&umlauts.body).is_ok(), "characters stay whole");
}

#[test]
fn a_secret_at_the_cut_is_redacted_before_it_is_cut() {
    let token = format!("gh{}_{}", 's', "bQ7".repeat(12));
    let json = bearer(SourceType::Json);
    let sent = |at: usize| format!("{{\"a\":\"{} {token} {}\"}}", "x".repeat(at), "y".repeat(200_000));
    // The cut falls behind the token, into it, before it.
    let cut = json.body(sent(1_000_000)).unwrap()[0].body.len();
    for at in (cut - 120..cut + 10).step_by(7) {
        let body = sent(at);
        let record = json.body(body).unwrap().remove(0);
        assert!(!record.body.windows(7).any(|part| part == b"bQ7bQ7b"), "{at}");
        assert_eq!(record.envelope.redacted.len(), 1, "what is behind the cut is told all the same");
        assert!(dead_letter(&record).contains("more than a record holds"));
    }
    // The hash is of what was redacted: it says nothing about the secret.
    let body = |token: &str| format!("{{\"a\":\"{token} {}\"}}", "y".repeat(2 << 20));
    let [one, two] = [token.clone(), token.replace('b', "c")].map(|token| json.body(body(&token)).unwrap().remove(0));
    assert_ne!(one.envelope.item, two.envelope.item);
    assert!(one.envelope.attributes["truncated.hash"].starts_with("hash:"));
    assert_ne!(one.envelope.attributes["truncated.hash"], one.envelope.item);
}

#[test]
fn more_secrets_than_a_record_can_list() {
    use base64::Engine as _;
    let tokens: String = (0..20_000).map(|number| format!("gh{}_{number:036} ", 'p')).collect();
    // As text: placeholders take more room than the record has.
    let record = bearer(SourceType::Json).body(format!("{{\"a\":\"{tokens}\"}}")).unwrap().remove(0);
    assert_eq!(record.envelope.attributes["truncated.secrets"], "20000");
    assert_eq!(record.envelope.redacted.len(), 200);
    dead_letter(&record);
    // Wrapped: one placeholder holds many, and the log stays whole.
    // No padding in between: 480 * 41 is a multiple of three.
    let wrapped: String = (0..40)
        .map(|number| {
            let part = &tokens[number * 480 * 41..(number + 1) * 480 * 41];
            format!("{}\n", base64::engine::general_purpose::STANDARD.encode(part))
        })
        .collect();
    let records = bearer(SourceType::GithubJoblog).body(wrapped).unwrap();
    for record in &records {
        let leaf = record.encode().unwrap();
        assert!(leaf.len() <= engine::record::RECORD_BYTES_MAX);
        assert!(!record.envelope.attributes.contains_key("truncated.bytes"), "nothing of the text is lost");
        assert!(crate::decode::decode(engine::record::Position::default(), record).is_ok());
    }
    let cut = records.iter().filter(|record| record.envelope.attributes.contains_key("truncated.secrets"));
    assert_eq!(cut.map(|record| record.envelope.redacted.len()).max(), Some(200));
}

#[test]
fn content_that_cannot_be_understood_is_a_record() {
    let json = bearer(SourceType::Json);
    for body in [&b"\xff\xfe\x00"[..], b"nonsense", b"{\"a\":", b"{\"a\":1e400}", b"{\"a\":1,\"a\":2}"] {
        assert_eq!(json.body(body).unwrap()[0].body, body);
    }
    let deep = [vec![b'['; 200], vec![b']'; 200]].concat();
    let batch = [b"{\"a\":1}\n".to_vec(), deep, b"\n{\"b\":2}".to_vec()].concat();
    assert_eq!(json.body(batch).unwrap().len(), 3, "among others it must not cost the others");
    assert_eq!(json.body("[]").unwrap().len(), 0);
}
