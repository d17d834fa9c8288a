//! Bodies in the framings and wrappers of every source type, taken apart, redacted and decoded.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::unwrap(data));
