//! A request as an unknown sender makes it, and what must hold of whatever is made of it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pipeproof_engine::record::{CollectionMode, Position, RECORD_BYTES_MAX, Record};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::decode::decode;
use pipeproof_ingest::receive::{Framing, Limits, Receiver, ReceiverKeys, Request, Secret, SourceSettings, Way};

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
