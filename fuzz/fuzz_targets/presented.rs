//! Tokens as senders present them: in schemes, in Base64, as a user's password.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::presented_token(data));
