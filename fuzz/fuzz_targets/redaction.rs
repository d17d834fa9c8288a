//! Redaction: whatever surrounds it, a token is gone afterwards, JSON stays JSON, and doing it again changes nothing.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pipeproof_fuzz::{receiver, source_type};

const TOKEN: &[u8] = b"ghp_16C7e42F292c6912E7710c838347Ae178B4a";

fuzz_target!(|data: &[u8]| {
    let [kind, at, text @ ..] = data else { return };
    let redactor = receiver().redactor();
    let (redacted, _) = redactor.body(source_type(*kind), &Bytes::copy_from_slice(text));
    let (again, _) = redactor.body(source_type(*kind), &redacted);
    assert_eq!(again, redacted, "redacted twice");
    // Between blanks, which every text may have.
    let (before, after) = text.split_at(usize::from(*at).min(text.len()));
    let planted = [before, b" ", TOKEN, b" ", after].concat();
    let (redacted, found) = redactor.text(&Bytes::from(planted));
    assert!(!redacted.windows(TOKEN.len()).any(|window| window == TOKEN), "a token stayed");
    assert!(!found.is_empty());
});
