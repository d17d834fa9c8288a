//! Signatures in headers: HMAC and token schemes of every source type.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::signatures(data));
