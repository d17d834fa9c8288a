//! Compressed bodies: gzip, zstd and what only says that it is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::inflate(data));
