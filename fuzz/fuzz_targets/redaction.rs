//! Redaction: whatever surrounds it, a token is gone afterwards, JSON stays JSON, and doing it again changes nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::redaction(data));
