//! OTLP logs as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_fuzz::{source_type, take};
use pipeproof_ingest::receive::Framing;

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    take(source_type(*kind), Framing::OtlpJson, &http::HeaderMap::new(), body);
});
