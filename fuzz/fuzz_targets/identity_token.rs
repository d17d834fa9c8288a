//! Identity tokens (JWT) and key sets (JWKS) of Pub/Sub push.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::identity_token(data));
