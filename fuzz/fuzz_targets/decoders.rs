//! Decoders alone: records as the log may hold them, with attributes that transports set.
#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, RECORD_BYTES_MAX, Record};
use pipeproof_fuzz::{NOW, hold, source_type};

fuzz_target!(|data: &[u8]| {
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
});
