//! Syslog: frames off a connection however it is cut (RFC 6587), and messages (RFC 5424, RFC 3164).
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_engine::time::Timestamp;
use pipeproof_fuzz::{source_type, take};
use pipeproof_ingest::receive::Framing;
use pipeproof_ingest::syslog::{Frames, counted};

const BYTES_MAX: usize = 4_096;

fn frames(pieces: &[&[u8]]) -> Vec<bytes::Bytes> {
    let mut frames = Frames::new(BYTES_MAX);
    let mut all = Vec::new();
    for piece in pieces {
        frames.push(piece);
        all.extend(std::iter::from_fn(|| frames.next_frame()));
    }
    all.extend(frames.last_frame());
    all
}

fuzz_target!(|data: &[u8]| {
    let [kind, cut, stream @ ..] = data else { return };
    let (first, second) = stream.split_at(usize::from(*cut).min(stream.len()));
    // Where the network cuts decides nothing.
    let cut = frames(&[first, second]);
    assert_eq!(cut, frames(&[stream]));
    for frame in &cut {
        assert!(frame.len() <= BYTES_MAX, "{} bytes", frame.len());
    }
    let framing = Framing::Syslog { received: Timestamp::from_secs(1_795_694_400) };
    take(source_type(*kind), framing, &http::HeaderMap::new(), &counted(&cut));
    take(source_type(*kind), framing, &http::HeaderMap::new(), stream);
});
