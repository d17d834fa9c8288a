//! Limits on what a request may hold, and decompression within them.

use std::io::{self, Read};

use bytes::Bytes;

use crate::receive::Refusal;

/// Limits of one request. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest body as received.
    pub body_bytes_max: usize,
    /// Largest body after decompression.
    pub inflated_bytes_max: usize,
    /// A body may grow by at most this factor when it is decompressed …
    pub inflate_ratio_max: usize,
    /// … once it has grown beyond this size.
    pub inflate_ratio_free_bytes: usize,
    /// Deepest nesting of JSON.
    pub json_depth_max: usize,
    /// Most items in one request.
    pub items_max: usize,
    /// Largest record of a job log: whole lines up to this size.
    pub joblog_chunk_bytes: usize,
    /// Longest value of a header, query parameter or id that is kept.
    pub attribute_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 << 20,
            inflated_bytes_max: 64 << 20,
            inflate_ratio_max: 100,
            inflate_ratio_free_bytes: 1 << 20,
            json_depth_max: 64,
            items_max: 50_000,
            joblog_chunk_bytes: 256 << 10,
            attribute_bytes_max: 512,
        }
    }
}

/// A content coding we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    /// The coding a request names, or the one its first bytes show: `curl --data-binary @file.json.gz` names none, and
    /// no text we read starts with these bytes.
    pub(crate) fn of(named: Option<&str>, body: &[u8]) -> Result<Self, Refusal> {
        match named.map(str::trim).unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "identity" if body.starts_with(&[0x1f, 0x8b]) => Ok(Self::Gzip),
            "" | "identity" if body.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => Ok(Self::Zstd),
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            other => Err(Refusal::Encoding(other.chars().take(40).collect())),
        }
    }
}

/// Decompresses a body within the limits. Several gzip members or zstd frames in a row are one body.
pub(crate) fn inflate(body: &Bytes, coding: Coding, limits: &Limits) -> Result<Bytes, Refusal> {
    match coding {
        Coding::Identity if body.len() > limits.inflated_bytes_max => {
            Err(Refusal::TooLarge { bytes: body.len(), limit: limits.inflated_bytes_max })
        }
        Coding::Identity => Ok(body.clone()),
        Coding::Gzip => drain(flate2::bufread::MultiGzDecoder::new(body.as_ref()), body.len(), limits),
        Coding::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(body.as_ref()).map_err(|_| Refusal::Compression("zstd"))?;
            // 8 MiB, what every sender must stay within (RFC 8878 §3.1.1.1.2); the window is our memory.
            decoder.window_log_max(23).map_err(|_| Refusal::Compression("zstd"))?;
            drain(decoder, body.len(), limits)
        }
    }
}

fn drain(mut source: impl Read, compressed: usize, limits: &Limits) -> Result<Bytes, Refusal> {
    let ratio_cap = compressed.saturating_mul(limits.inflate_ratio_max).max(limits.inflate_ratio_free_bytes);
    let mut out = Vec::with_capacity(compressed.saturating_mul(4).min(1 << 20));
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok(Bytes::from(out)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err(Refusal::Compression("gzip or zstd")),
        };
        out.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if out.len() > limits.inflated_bytes_max {
            return Err(Refusal::TooLarge { bytes: out.len(), limit: limits.inflated_bytes_max });
        }
        if out.len() > ratio_cap {
            return Err(Refusal::Ratio(limits.inflate_ratio_max));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflated(body: Vec<u8>, named: Option<&str>) -> Result<Bytes, Refusal> {
        let body = Bytes::from(body);
        inflate(&body, Coding::of(named, &body)?, &Limits::default())
    }

    #[test]
    fn codings_named_or_seen_and_several_members() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(inflated(two.clone(), Some("gzip")).unwrap(), "one two");
        assert_eq!(inflated(two, None).unwrap(), "one two");
        let frames = [zstd::encode_all(&b"one "[..], 1).unwrap(), zstd::encode_all(&b"two"[..], 1).unwrap()].concat();
        assert_eq!(inflated(frames.clone(), Some("ZSTD ")).unwrap(), "one two");
        assert_eq!(inflated(frames, None).unwrap(), "one two");
        assert_eq!(inflated(b"{}".to_vec(), None).unwrap(), "{}");
        assert!(matches!(inflated(b"{}".to_vec(), Some("br")), Err(Refusal::Encoding(_))));
    }

    #[test]
    fn cut_or_broken_compression_is_refused_at_every_length() {
        for whole in [gzip(b"some text, some more text"), zstd::encode_all(&b"some text"[..], 3).unwrap()] {
            let named = if whole.starts_with(&[0x1f]) { "gzip" } else { "zstd" };
            for len in 1..whole.len() {
                let refused = inflated(whole[..len].to_vec(), Some(named));
                assert!(matches!(refused, Err(Refusal::Compression(_))), "{named} cut at {len}");
            }
        }
        assert!(matches!(inflated(b"not gzip".to_vec(), Some("gzip")), Err(Refusal::Compression(_))));
    }

    #[test]
    fn bombs_are_refused_before_they_fill_memory() {
        let bomb = gzip(&vec![0; 50 << 20]);
        assert!(matches!(inflated(bomb, Some("gzip")), Err(Refusal::Ratio(100))));
        let bomb = zstd::encode_all(&vec![0; 50 << 20][..], 1).unwrap();
        assert!(matches!(inflated(bomb, Some("zstd")), Err(Refusal::Ratio(100))));
        let small = gzip(&vec![b' '; 1 << 19]);
        assert_eq!(inflated(small, Some("gzip")).unwrap().len(), 1 << 19, "half a MiB may grow as it likes");
        let limits = Limits { inflated_bytes_max: 10, ..Limits::default() };
        let body = Bytes::from(gzip(b"more than ten bytes"));
        assert!(matches!(inflate(&body, Coding::Gzip, &limits), Err(Refusal::TooLarge { .. })));
    }
}
