//! CloudTrail's digest files and the keys they are checked with.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::cloudtrail_digest(data));
