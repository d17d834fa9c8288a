//! The fuzz targets: what each does with bytes that nobody vouches for, and what must hold of whatever is made of them. A request is
//! made as an unknown sender makes it.
//!
//! The tests of the program compile this file as well and run every target over its seeds (`tests/scenarios/fuzzed.rs`), so that no
//! target is left behind by what it calls.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use pipeproof_engine::plan::Plan;
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, RECORD_BYTES_MAX, Record};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::authentic::{ClientCertificate, Issuer, presented, proof};
use pipeproof_ingest::decode::decode;
use pipeproof_ingest::objects::content::{Part, Parts};
use pipeproof_ingest::objects::digest::{Digest, PublicKeys};
use pipeproof_ingest::objects::listing::readable;
use pipeproof_ingest::objects::notice::Notice;
use pipeproof_ingest::receive::{
    Framing, HecAcks, Limits, Receiver, ReceiverKeys, Request, Secret, SourceSettings, Way, bulk_actions,
};
use pipeproof_ingest::syslog::{Frames, counted};
use pipeproof_rules::{Lists, load};

/// A target: what it is called, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target; each has a file of its name in `fuzz_targets`.
pub const TARGETS: &[Target] = &[
    ("bulk", bulk),
    ("client_certificate", client_certificate),
    ("cloudevents", cloudevents),
    ("cloudtrail_digest", cloudtrail_digest),
    ("decoders", decoders),
    ("hec", hec),
    ("hec_acks", hec_acks),
    ("identity_token", identity_token),
    ("inflate", inflate),
    ("object_content", object_content),
    ("otlp_json", otlp_json),
    ("otlp_protobuf", otlp_protobuf),
    ("presented", presented_token),
    ("redaction", redaction),
    ("s3_listing", s3_listing),
    ("s3_notice", s3_notice),
    ("sigma", sigma),
    ("signatures", signatures),
    ("syslog", syslog),
    ("unwrap", unwrap),
];

/// When everything is received.
pub const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

static RECEIVER: LazyLock<Receiver> = LazyLock::new(|| {
    // Small enough that the limits are met.
    let limits = Limits { body_bytes_max: 1 << 20, inflated_bytes_max: 4 << 20, items_max: 2_000, ..Limits::default() };
    Receiver::new(ReceiverKeys { redaction: [7; 32], dedup: [9; 32] }, limits)
});

/// The receiver that takes requests in.
pub fn receiver() -> &'static Receiver {
    &RECEIVER
}

/// The source type that a byte stands for: the external ones in turn.
pub fn source_type(byte: u8) -> SourceType {
    let external: Vec<SourceType> = SourceType::ALL.iter().copied().filter(|kind| kind.is_external()).collect();
    external[usize::from(byte) % external.len()]
}

/// A source of that type.
pub fn source(kind: SourceType) -> SourceSettings {
    SourceSettings {
        name: "fuzzed".to_owned(),
        source_type: kind,
        labels: BTreeMap::new(),
        secrets: vec![Secret { id: "g0".to_owned(), bytes: b"0123456789abcdef0123456789abcdef".to_vec() }],
        connected: NOW,
    }
}

/// Headers from lines `name: value`; what is no header is left out.
pub fn headers(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').take(32) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// Takes a body in and holds it against what is promised of every record.
pub fn take(kind: SourceType, framing: Framing, headers: &HeaderMap, body: &[u8]) {
    let source = source(kind);
    let request = Request {
        source: &source,
        headers,
        query: &BTreeMap::new(),
        body: Bytes::copy_from_slice(body),
        received: NOW,
        bearer: Some("token".to_owned()),
        mode: CollectionMode::Live,
    };
    let way = Way { framing, ..Way::default() };
    let Ok(records) = RECEIVER.accept_by(&way, request) else { return };
    assert!(records.len() <= RECEIVER.limits().items_max.saturating_mul(2), "{} records", records.len());
    for (record, index) in records.iter().zip(0..) {
        hold(record, index);
    }
}

/// What is promised of a record: it fits the log, reads back, and decodes or says why not, without a panic.
pub fn hold(record: &Record, index: u64) {
    let leaf = record.encode().expect("a record fits the log");
    assert!(leaf.len() <= RECORD_BYTES_MAX);
    assert_eq!(Record::decode(&Bytes::from(leaf)).expect("a record reads back"), *record);
    let position = Position { partition: 0, index };
    let Ok(events) = decode(position, record) else { return };
    for event in &events {
        assert_eq!(event.id.position, position);
    }
    // Decoding is a function of the record.
    let again = decode(position, record).expect("it decodes as before");
    assert_eq!(format!("{events:?}"), format!("{again:?}"));
}

/// Elastic `_bulk`: the actions that are answered one by one, and the documents.
pub fn bulk(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    assert!(bulk_actions(body, 100).len() <= 100);
    take(source_type(*kind), Framing::Bulk, &HeaderMap::new(), body);
}

/// Client certificates, as TLS hands them on before anybody has judged what they say.
pub fn client_certificate(der: &[u8]) {
    if let Ok(certificate) = ClientCertificate::read(der) {
        assert!(!certificate.key_id().is_empty());
    }
}

/// CloudEvents: binary mode by headers, structured and batched bodies.
pub fn cloudevents(data: &[u8]) {
    let cut = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(0);
    let (lines, body) = data.split_at(cut);
    take(SourceType::Cloudevents, Framing::Values, &headers(lines), body);
    take(SourceType::Cdevents, Framing::Values, &headers(lines), body);
}

/// CloudTrail's digest files and the keys they are checked with.
pub fn cloudtrail_digest(data: &[u8]) {
    drop(PublicKeys::read(data));
    if let Ok(digest) = Digest::read(data) {
        drop((digest.start(), digest.end(), digest.files().len(), digest.previous()));
    }
}

/// Decoders alone: records as the log may hold them, with attributes that transports set.
pub fn decoders(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    // Attributes are lines `name=value` before an empty line.
    let cut = rest.windows(2).position(|pair| pair == b"\n\n");
    let (lines, body) = cut.map_or((&[][..], rest), |cut| (&rest[..cut], &rest[cut + 2..]));
    let lines = String::from_utf8_lossy(lines);
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    let attributes: BTreeMap<String, String> =
        pairs.take(16).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if body.len() + lines.len() * 2 > RECORD_BYTES_MAX / 4 {
        return;
    }
    let envelope = Envelope {
        source: "fuzzed".to_owned(),
        source_type: source_type(*kind),
        received: NOW,
        auth: Authenticity::Bearer,
        key_id: None,
        item: "id:1".to_owned(),
        mode: CollectionMode::Live,
        attributes,
        redacted: Vec::new(),
    };
    hold(&Record { envelope, salt: [1; 16], body: Bytes::copy_from_slice(body) }, 7);
}

/// Splunk HEC: events and raw lines.
pub fn hec(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    take(
        source_type(*kind),
        if body.first().is_some_and(|first| first % 2 == 0) { Framing::Hec } else { Framing::HecRaw },
        &HeaderMap::new(),
        body,
    );
}

/// Identity tokens (JWT) and key sets (JWKS) of Pub/Sub push.
pub fn identity_token(data: &[u8]) {
    let cut = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (token, keys) = data.split_at(cut);
    let issuer = Issuer {
        issuer: "https://accounts.google.com".to_owned(),
        audience: "https://pipeproof.example".to_owned(),
        email: Some("push@acme.iam.gserviceaccount.com".to_owned()),
    };
    // Nobody has the key: no token is ever accepted.
    assert!(issuer.verify(&String::from_utf8_lossy(token), keys, NOW).is_err());
}

/// Compressed bodies: gzip, zstd and what only says that it is.
pub fn inflate(data: &[u8]) {
    let Some((coding, body)) = data.split_first() else { return };
    let mut headers = HeaderMap::new();
    if let Some(name) = ["gzip", "zstd", "deflate", "identity", "br"].get(usize::from(*coding)) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    if let Ok(inflated) = receiver().inflated(&headers, &Bytes::copy_from_slice(body)) {
        assert!(inflated.len() <= receiver().limits().inflated_bytes_max.max(body.len()));
    }
}

/// OTLP logs as JSON.
pub fn otlp_json(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    take(source_type(*kind), Framing::OtlpJson, &HeaderMap::new(), body);
}

/// OTLP logs as Protocol Buffers.
pub fn otlp_protobuf(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    take(source_type(*kind), Framing::OtlpProtobuf, &HeaderMap::new(), body);
}

/// A token of GitHub.
const TOKEN: &[u8] = b"ghp_16C7e42F292c6912E7710c838347Ae178B4a";

/// Redaction: whatever surrounds it, a token is gone afterwards, JSON stays JSON, and doing it again changes nothing.
pub fn redaction(data: &[u8]) {
    let [kind, at, text @ ..] = data else { return };
    let redactor = receiver().redactor();
    let (redacted, _) = redactor.body(source_type(*kind), &Bytes::copy_from_slice(text));
    let (again, _) = redactor.body(source_type(*kind), &redacted);
    assert_eq!(again, redacted, "redacted twice");
    // Between blanks, which every text may have.
    let (before, after) = text.split_at(usize::from(*at).min(text.len()));
    let planted = [before, b" ", TOKEN, b" ", after].concat();
    let (redacted, found) = redactor.text(&Bytes::from(planted));
    assert!(!redacted.windows(TOKEN.len()).any(|window| window == TOKEN), "a token stayed");
    assert!(!found.is_empty());
}

/// Notices of new objects as SQS hands them on: S3, EventBridge, SNS around either.
pub fn s3_notice(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop(Notice::read(text));
}

/// Rules: Sigma YAML with our additions, from a text nobody vouches for to a plan, or diagnostics that point into it.
pub fn sigma(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files = vec![("rule.yml".to_owned(), text.to_owned())];
    let set = load(&files, &Lists::default());
    drop(set.render_diagnostics(&files));
    if !set.has_errors() {
        drop(Plan::compile(set.content()));
    }
}

/// Signatures in headers: HMAC and token schemes of every source type.
pub fn signatures(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let cut = rest.windows(2).position(|pair| pair == b"\n\n").unwrap_or(0);
    let (lines, body) = rest.split_at(cut);
    let source = source(source_type(*kind));
    drop(proof(source.source_type, &headers(lines), body, &source.secrets, NOW));
}

/// Longest frame.
const FRAME_BYTES_MAX: usize = 4_096;

/// The frames of a stream that comes in these pieces.
fn frames(pieces: &[&[u8]]) -> Vec<bytes::Bytes> {
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    let mut all = Vec::new();
    for piece in pieces {
        frames.push(piece);
        all.extend(std::iter::from_fn(|| frames.next_frame()));
    }
    all.extend(frames.last_frame());
    all
}

/// Syslog: frames off a connection however it is cut (RFC 6587), and messages (RFC 5424, RFC 3164).
pub fn syslog(data: &[u8]) {
    let [kind, cut, stream @ ..] = data else { return };
    let (first, second) = stream.split_at(usize::from(*cut).min(stream.len()));
    // Where the network cuts decides nothing.
    let cut = frames(&[first, second]);
    assert_eq!(cut, frames(&[stream]));
    for frame in &cut {
        assert!(frame.len() <= FRAME_BYTES_MAX, "{} bytes", frame.len());
    }
    take(
        source_type(*kind),
        Framing::Syslog { received: Timestamp::from_secs(1_795_694_400) },
        &HeaderMap::new(),
        &counted(&cut),
    );
    take(
        source_type(*kind),
        Framing::Syslog { received: Timestamp::from_secs(1_795_694_400) },
        &HeaderMap::new(),
        stream,
    );
}

/// Bodies in the framings and wrappers of every source type, taken apart, redacted and decoded.
pub fn unwrap(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    take(source_type(*kind), Framing::Values, &HeaderMap::new(), body);
}

/// What a client of Splunk's HEC asks about acknowledgements.
pub fn hec_acks(data: &[u8]) {
    if let Ok(asked) = serde_json::from_slice::<HecAcks>(data) {
        assert!(asked.acks.len() <= data.len());
    }
}

/// Tokens as senders present them: in schemes, in Base64, as a user's password.
pub fn presented_token(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    for name in [AUTHORIZATION, HeaderName::from_static("x-amz-firehose-access-key")] {
        if let Some(token) = presented(&HeaderMap::from_iter([(name, value.clone())])) {
            assert!(token.len() <= data.len());
        }
    }
}

/// Listings of a bucket, before the client of the store reads them.
pub fn s3_listing(data: &[u8]) {
    let Some(written) = readable(data) else { return };
    // A key that was written otherwise begins with a mark, in hexadecimal.
    assert!(written.contains('\u{e000}'));
    assert!(written.len() <= data.len() * 8 + 8);
}

/// Objects of a bucket, taken apart while they are read, whatever is read at a time.
pub fn object_content(data: &[u8]) {
    let mut parts = Parts::new(data);
    while let Ok(Some(part)) = parts.next_part() {
        if let Part::Items(items) = part {
            assert!(!items.is_empty());
        }
    }
}
