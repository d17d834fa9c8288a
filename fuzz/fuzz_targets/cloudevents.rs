//! CloudEvents: binary mode by headers, structured and batched bodies.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::cloudevents(data));
