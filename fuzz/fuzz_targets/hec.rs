//! Splunk HEC: events and raw lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::hec(data));
