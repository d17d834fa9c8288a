//! Rules: Sigma YAML with our additions, from a text nobody vouches for to a plan, or diagnostics that point into it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::sigma(data));
