//! CloudEvents: binary mode by headers, structured and batched bodies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_engine::source::SourceType;
use pipeproof_fuzz::{headers, take};
use pipeproof_ingest::receive::Framing;

fuzz_target!(|data: &[u8]| {
    let cut = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(0);
    let (lines, body) = data.split_at(cut);
    take(SourceType::Cloudevents, Framing::Values, &headers(lines), body);
    take(SourceType::Cdevents, Framing::Values, &headers(lines), body);
});
