//! Finding the tokens of a text that is mostly long strings, as what carries Base64 is. simd-json's first stage asks of
//! every byte whether it is a token; inside a string only its end has to be looked for, which is several times quicker.
//!
//! What is found is what the first stage would find, as far as the walk over tokens can tell: it checks the grammar, and
//! what is not text of UTF-8.

/// Texts shorter than this are read faster than it takes to see whether they are sparse.
const SHORT: usize = 1024;
/// Bytes that a quote has to have on average for it to be quicker to go from one to the next.
const BYTES_PER_QUOTE: usize = 32;
/// Bytes that are looked at at once: few enough for their quotes to be counted in one byte.
const STEP: usize = 128;

/// Whether a text has few quotes and no control characters: then none is inside a string, and blanks are the only white
/// space.
fn is_sparse(bytes: &[u8]) -> bool {
    let mut left = bytes.len() / BYTES_PER_QUOTE;
    bytes.len() >= SHORT
        && bytes.chunks(STEP).all(|chunk| {
            let quotes = usize::from(chunk.iter().map(|byte| u8::from(*byte == b'"')).sum::<u8>());
            let fits = left >= quotes && chunk.iter().fold(u8::MAX, |least, byte| least.min(*byte)) >= b' ';
            left = left.saturating_sub(quotes);
            fits
        })
}

/// Finds where tokens begin, and gives the place of the first backslash in a string, which is far away if there is none.
/// `None` leaves it to the first stage: a text that has many tokens, is not written compactly, is short, or has a string
/// that does not end.
pub(super) fn find(bytes: &[u8], tokens: &mut Vec<u32>) -> Option<usize> {
    if !is_sparse(bytes) || u32::try_from(bytes.len()).is_err() {
        return None;
    }
    tokens.clear();
    let (mut at, mut escape) = (0, usize::MAX);
    while let Some(byte) = bytes.get(at) {
        let after = match byte {
            b' ' => {
                at += 1;
                continue;
            }
            b'"' => end_of_string(bytes, at + 1, &mut escape)?,
            b'{' | b'}' | b'[' | b']' | b',' | b':' => at + 1,
            _ => at + bytes.get(at..)?.iter().position(ends_plain)?,
        };
        tokens.push(at as u32);
        at = after;
    }
    Some(escape)
}

/// Whether a byte cannot be inside of a number, a boolean or null.
const fn ends_plain(byte: &u8) -> bool {
    matches!(byte, b' ' | b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':')
}

/// The place after the quote that ends a string.
fn end_of_string(bytes: &[u8], mut at: usize, escape: &mut usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        *escape = at.min(*escape);
        // What follows a backslash ends nothing.
        at += 2;
    }
}
