//! Listings of a bucket, before the client of the store reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::s3_listing(data));
