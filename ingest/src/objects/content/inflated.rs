//! Stored bytes without their compression, whatever that is, with a hash over them.

use std::io::{self, BufReader, Cursor, Read};

use sha2::{Digest as _, Sha256};

use super::{CONTENT_BYTES_MAX, ContentError, STEP, StoreTrouble};

/// Stored bytes, and what they are without their compression.
pub(super) struct Content<R: Read> {
    stored: Stored<R>,
    hash: Option<Sha256>,
    bytes: u64,
}

type Begun<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

enum Stored<R: Read> {
    New(Option<R>),
    Plain(Begun<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Begun<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Begun<R>>),
}

impl<R: Read> Content<R> {
    pub(super) const fn new(stored: R) -> Self {
        Self { stored: Stored::New(Some(stored)), hash: None, bytes: 0 }
    }

    /// SHA-256 over what was read so far.
    pub(super) fn hash(&self) -> Option<[u8; 32]> {
        self.hash.clone().map(|hash| hash.finalize().into())
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize, ContentError> {
        if let Stored::New(stored) = &mut self.stored {
            let Some(stored) = stored.take() else { return Ok(0) };
            self.stored = begin(stored)?;
        }
        let (read, name) = match &mut self.stored {
            Stored::New(_) => return Ok(0),
            Stored::Plain(stored) => (stored.read(into), ""),
            Stored::Gzip(stored) => (stored.read(into), "gzip"),
            Stored::Zstd(stored) => (stored.read(into), "zstd"),
        };
        let read = read.map_err(|error| trouble(error, name))?;
        self.bytes += read as u64;
        if self.bytes > CONTENT_BYTES_MAX {
            return Err(ContentError::Large);
        }
        self.hash.get_or_insert_default().update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}

fn begin<R: Read>(mut stored: R) -> Result<Stored<R>, ContentError> {
    let mut first = Vec::with_capacity(4);
    stored.by_ref().take(4).read_to_end(&mut first).map_err(|error| trouble(error, ""))?;
    let (gzip, zstd) = (first.starts_with(&[0x1f, 0x8b]), first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    let begun = BufReader::with_capacity(STEP, Cursor::new(first).chain(stored));
    Ok(if gzip {
        Stored::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(begun)))
    } else if zstd {
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(begun).map_err(|_| ContentError::Compression("zstd"))?;
        // 8 MiB, what every sender must stay within (RFC 8878 §3.1.1.1.2); the window is our memory.
        decoder.window_log_max(23).map_err(|_| ContentError::Compression("zstd"))?;
        Stored::Zstd(decoder)
    } else {
        Stored::Plain(begun)
    })
}

fn trouble(error: io::Error, coding: &'static str) -> ContentError {
    let store = error.get_ref().is_some_and(|inner| inner.is::<StoreTrouble>());
    if store || coding.is_empty() { ContentError::Store(error) } else { ContentError::Compression(coding) }
}
