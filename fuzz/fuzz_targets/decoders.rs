//! Decoders alone: records as the log may hold them, with attributes that transports set.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::decoders(data));
