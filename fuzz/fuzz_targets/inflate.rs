//! Compressed bodies: gzip, zstd and what only says that it is.
#![no_main]

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pipeproof_fuzz::receiver;

fuzz_target!(|data: &[u8]| {
    let Some((coding, body)) = data.split_first() else { return };
    let mut headers = HeaderMap::new();
    if let Some(name) = ["gzip", "zstd", "deflate", "identity", "br"].get(usize::from(*coding)) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    if let Ok(inflated) = receiver().inflated(&headers, &Bytes::copy_from_slice(body)) {
        assert!(inflated.len() <= receiver().limits().inflated_bytes_max.max(body.len()));
    }
});
