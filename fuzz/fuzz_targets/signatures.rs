//! Signatures in headers: HMAC and token schemes of every source type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_fuzz::{NOW, headers, source, source_type};
use pipeproof_ingest::authentic::proof;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let cut = rest.windows(2).position(|pair| pair == b"\n\n").unwrap_or(0);
    let (lines, body) = rest.split_at(cut);
    let source = source(source_type(*kind));
    drop(proof(source.source_type, &headers(lines), body, &source.secrets, NOW));
});
