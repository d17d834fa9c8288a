//! Elastic `_bulk`: the actions that are answered one by one, and the documents.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_fuzz::{source_type, take};
use pipeproof_ingest::receive::{Framing, bulk_actions};

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    assert!(bulk_actions(body, 100).len() <= 100);
    take(source_type(*kind), Framing::Bulk, &http::HeaderMap::new(), body);
});
