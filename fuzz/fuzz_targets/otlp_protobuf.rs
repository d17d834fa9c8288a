//! OTLP logs as Protocol Buffers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::otlp_protobuf(data));
