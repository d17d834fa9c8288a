//! Base64 and PEM, in which records carry further texts and certificates.
//!
//! What is taken out lies in memory that is used again, as records of a source are alike and come one after the other.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::Simd;
use base64::engine::general_purpose::PAD;
use memchr::memmem;

static STANDARD: LazyLock<Simd> = LazyLock::new(|| Simd::standard(PAD));
static URL_SAFE: LazyLock<Simd> = LazyLock::new(|| Simd::url_safe(PAD));

const BEGIN: &[u8] = b"-----BEGIN ";
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const DASHES: &[u8] = b"-----";
/// Letters of a line of PEM, as nearly everybody breaks it (RFC 7468).
const LINE: usize = 64;
/// Memory is kept for what is up to this size; larger texts are rare.
const KEPT_MAX: usize = 1 << 20;
/// What is open at the same time: a text, and the PEM and the certificate in it.
const SPARE_MAX: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes taken out of their armour.
#[derive(Debug)]
pub(super) struct Opened {
    /// They are at its beginning; behind them is what was left of others.
    memory: Vec<u8>,
    len: usize,
}

impl Opened {
    /// With room for so many bytes.
    fn with_room(room: usize) -> Self {
        let mut memory = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        if memory.len() < room {
            memory.resize(room, 0);
        }
        Self { memory, len: 0 }
    }
}

impl Deref for Opened {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if memory.capacity() > KEPT_MAX {
            return;
        }
        // At the end of a thread there may be nothing left to keep it in: then it is given up.
        SPARE
            .try_with(|spare| {
                if let Ok(mut spare) = spare.try_borrow_mut()
                    && spare.len() < SPARE_MAX
                {
                    spare.push(memory);
                }
            })
            .unwrap_or(());
    }
}

/// What is written in Base64 with its padding and nothing else.
pub(super) fn standard(text: &str) -> Option<Opened> {
    open(&STANDARD, text.as_bytes())
}

/// The same in either alphabet: DSSE leaves both open.
pub(super) fn either(text: &str) -> Option<Opened> {
    standard(text).or_else(|| open(&URL_SAFE, text.as_bytes()))
}

/// The bytes inside the first PEM armour of a text, without headers and checksum of PGP's.
pub(super) fn pem(text: &[u8]) -> Option<Opened> {
    // Most have nothing before it, and searching is slow to begin.
    let begin = if text.starts_with(BEGIN) { 0 } else { memmem::find(text, BEGIN)? };
    let labelled = std::str::from_utf8(text).ok()?.get(begin + BEGIN.len()..)?;
    // What it is called is short.
    let label = labelled.as_bytes().windows(DASHES.len()).position(|window| window == DASHES)?;
    inside(labelled.get(label + DASHES.len()..)?, b"-----END ")
}

/// The first certificate of a PEM text.
pub(super) fn certificate(text: &str) -> Option<Opened> {
    let begin = if text.starts_with(CERTIFICATE) { 0 } else { memmem::find(text.as_bytes(), CERTIFICATE.as_bytes())? };
    inside(text.get(begin + CERTIFICATE.len()..)?, b"-----END CERTIFICATE-----")
}

/// What is in Base64 up to `end`, however it is broken into lines.
fn inside(text: &str, end: &[u8]) -> Option<Opened> {
    // There is no dash in Base64: the first is where it ends, or it is none.
    let bytes = text.as_bytes();
    let first = memchr::memchr(b'-', bytes)?;
    let ends = bytes.get(first..)?.starts_with(end);
    let body = text.get(..if ends { first } else { memmem::find(bytes, end)? })?;
    let letters = body.trim();
    // Some do not break it into lines. White space that is left makes it invalid: then it is taken out wherever it is.
    let opened = match memchr::memchr(b'\n', letters.as_bytes()) {
        None => open(&STANDARD, letters.as_bytes()),
        Some(_) => joined(letters.as_bytes()).and_then(|letters| open(&STANDARD, &letters)),
    };
    opened.or_else(|| standard(&body.split_whitespace().collect::<String>()))
}

/// Lines of the usual length in one; `None` where they are others.
fn joined(lines: &[u8]) -> Option<Opened> {
    let mut letters = Opened::with_room(lines.len());
    for line in lines.chunks(LINE + 1) {
        let (line, end) = line.split_at(line.len().min(LINE));
        if !matches!(end, b"" | b"\n") {
            return None;
        }
        let after = letters.len + line.len();
        letters.memory.get_mut(letters.len..after)?.copy_from_slice(line);
        letters.len = after;
    }
    Some(letters)
}

fn open(base64: &Simd, text: &[u8]) -> Option<Opened> {
    let mut opened = Opened::with_room(base64::decoded_len_estimate(text.len()));
    opened.len = base64.decode_slice(text, &mut opened.memory).ok()?;
    Some(opened)
}

#[cfg(test)]
mod tests {
    use base64::engine::GeneralPurpose;
    use base64::engine::general_purpose;
    use proptest::prelude::*;

    use super::*;

    fn plainly(base64: &GeneralPurpose, text: &str) -> Option<Vec<u8>> {
        base64.decode(text).ok()
    }

    fn bytes(opened: Option<Opened>) -> Option<Vec<u8>> {
        opened.map(|opened| opened.to_vec())
    }

    proptest! {
        /// Nearly valid texts, as long as several steps of the decoder and a rest.
        #[test]
        fn as_the_decoder_for_any_alphabet(
            inside in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<proptest::sample::Index>(),
            odd in "[A-Za-z0-9+/=_ \n\\x00é-]{0,3}",
        ) {
            use general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
            for encode in [STANDARD, URL_SAFE, STANDARD_NO_PAD] {
                let sound = encode.encode(&inside);
                let mut spoiled = sound.clone();
                spoiled.insert_str(at.index(sound.len() + 1), &odd);
                for text in [&sound, &spoiled] {
                    let (plain, url) = (plainly(&STANDARD, text), plainly(&URL_SAFE, text));
                    prop_assert_eq!(bytes(standard(text)), plain.clone(), "{}", text);
                    prop_assert_eq!(bytes(either(text)), plain.or(url), "{}", text);
                }
            }
        }

        /// White space anywhere is none of the letters.
        #[test]
        fn pem_is_its_letters(
            inside in proptest::collection::vec(any::<u8>(), 0..300),
            width in prop_oneof![Just(64_usize), 1_usize..70],
            end in "(\n|\r\n| |\u{a0}|x)",
            label in "(CERTIFICATE|PUBLIC KEY)",
        ) {
            let encoded = general_purpose::STANDARD.encode(&inside);
            let lines = encoded.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap());
            let body = lines.collect::<Vec<_>>().join(&end);
            let text = format!("before -----BEGIN {label}-----\n{body}\n-----END {label}-----\nafter");
            let expected = plainly(&general_purpose::STANDARD, &body.split_whitespace().collect::<String>());
            prop_assert_eq!(bytes(pem(text.as_bytes())), expected.clone());
            prop_assert_eq!(bytes(certificate(&text)), expected.filter(|_| label == "CERTIFICATE"));
        }
    }

    #[test]
    fn memory_that_is_used_again_shows_nothing_of_before() {
        drop(standard(&general_purpose::STANDARD.encode([7; 500])));
        assert_eq!(standard("AAAA").as_deref(), Some(&[0, 0, 0][..]));
        let (one, other) = (standard("AAAA").unwrap(), standard("AQID").unwrap());
        assert_eq!((&one[..], &other[..]), (&[0, 0, 0][..], &[1, 2, 3][..]));
        assert_eq!(standard("").as_deref(), Some(&[][..]));
    }
}
