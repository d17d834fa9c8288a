//! Objects of a bucket, taken apart while they are read.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::object_content(data));
