//! Syslog: frames off a connection however it is cut (RFC 6587), and messages (RFC 5424, RFC 3164).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::syslog(data));
