//! What a client of Splunk's HEC asks about acknowledgements.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::hec_acks(data));
