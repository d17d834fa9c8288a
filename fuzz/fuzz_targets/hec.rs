//! Splunk HEC: events and raw lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_fuzz::{source_type, take};
use pipeproof_ingest::receive::Framing;

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    take(
        source_type(*kind),
        if body.first().is_some_and(|first| first % 2 == 0) { Framing::Hec } else { Framing::HecRaw },
        &http::HeaderMap::new(),
        body,
    );
});
