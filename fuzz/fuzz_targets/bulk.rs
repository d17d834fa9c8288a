//! Elastic `_bulk`: the actions that are answered one by one, and the documents.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::bulk(data));
