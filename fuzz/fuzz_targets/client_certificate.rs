//! Client certificates, as TLS hands them on before anybody has judged what they say.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::client_certificate(data));
