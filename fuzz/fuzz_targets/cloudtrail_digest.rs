//! CloudTrail's digest files and the keys they are checked with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_ingest::objects::digest::{Digest, PublicKeys};

fuzz_target!(|data: &[u8]| {
    drop(PublicKeys::read(data));
    if let Ok(digest) = Digest::read(data) {
        drop((digest.start(), digest.end(), digest.files().len(), digest.previous()));
    }
});
