//! Bodies in the framings and wrappers of every source type, taken apart, redacted and decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_fuzz::{source_type, take};
use pipeproof_ingest::receive::Framing;

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    take(source_type(*kind), Framing::Values, &http::HeaderMap::new(), body);
});
