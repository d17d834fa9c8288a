//! Reading a JSON text byte by byte between its strings: white space, what is neither string nor bracket, and stepping over
//! values that nobody asks about.

use super::grammar::DECIMAL_MAX;
use super::strings::{PlainText, escape};
use super::{DEPTH_MAX, Node};

/// Integers of so many digits fit 64 bits without a sign, nanoseconds since 1970 among them.
const DIGITS_MAX: usize = 19;

/// The place of the next byte that is not white space, and that byte: zero at the end.
#[inline]
pub(super) fn next(bytes: &[u8], at: usize) -> (usize, u8) {
    match bytes.get(at) {
        Some(byte) if *byte > b' ' => (at, *byte),
        // Many write one blank after a comma or a colon.
        Some(b' ') => match bytes.get(at + 1) {
            Some(byte) if *byte > b' ' => (at + 1, *byte),
            _ => after_space(bytes, at + 1),
        },
        _ => after_space(bytes, at),
    }
}

#[inline(never)]
fn after_space(bytes: &[u8], mut at: usize) -> (usize, u8) {
    const BLANKS: [u8; 8] = [b' '; 8];
    loop {
        // Lines that are indented begin with many.
        while bytes.get(at..).and_then(<[u8]>::first_chunk) == Some(&BLANKS) {
            at += BLANKS.len();
        }
        match bytes.get(at) {
            Some(b' ' | b'\t' | b'\n' | b'\r') => at += 1,
            byte => return (at, byte.copied().unwrap_or_default()),
        }
    }
}

/// Steps over the object or array that begins here, checking its grammar; it may hold `levels` of them in each other, itself
/// counted. Gives the place after it.
pub(super) fn skip(text: &str, plain: &mut PlainText<'_>, first: usize, levels: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    // What the next value stands in, and one bit for each object or array around that: whether it is an object.
    let mut object = false;
    let mut outer = [0_u64; DEPTH_MAX / 64 + 1];
    let mut open = 0_usize;
    let (mut at, mut byte) = next(bytes, first);
    loop {
        if object {
            if byte != b'"' {
                return None;
            }
            at = string(text, plain, at + 1)?;
            (at, byte) = next(bytes, at);
            if byte != b':' {
                return None;
            }
            (at, byte) = next(bytes, at + 1);
        }
        match byte {
            b'"' => at = string(text, plain, at + 1)?,
            b'{' | b'[' => {
                if open >= levels {
                    return None;
                }
                let inner = byte == b'{';
                (at, byte) = next(bytes, at + 1);
                if byte != if inner { b'}' } else { b']' } {
                    let bits = outer.get_mut(open / 64)?;
                    *bits = *bits & !(1 << (open % 64)) | u64::from(object) << (open % 64);
                    open += 1;
                    object = inner;
                    continue;
                }
                at += 1;
            }
            _ => at += scalar(bytes, at, byte)?.1,
        }
        // A value ends here. What follows is the next one, or the end of what it stands in.
        while open > 0 {
            (at, byte) = next(bytes, at);
            if byte == b',' {
                (at, byte) = next(bytes, at + 1);
                break;
            }
            if byte != if object { b'}' } else { b']' } {
                return None;
            }
            at += 1;
            open -= 1;
            object = outer.get(open / 64)? >> (open % 64) & 1 == 1;
        }
        if open == 0 {
            return Some(at);
        }
    }
}

/// The place after the string whose inside begins here.
#[inline(always)]
fn string(text: &str, plain: &mut PlainText<'_>, start: usize) -> Option<usize> {
    let end = plain.end(start);
    if text.as_bytes().get(end) == Some(&b'"') { Some(end + 1) } else { escaped(text, plain, start, end) }
}

/// The place after a string of which the plain text ends at `at`; its escapes have to be valid, too.
#[inline(never)]
fn escaped(text: &str, plain: &mut PlainText<'_>, start: usize, at: usize) -> Option<usize> {
    let end = plain.end_of_string(at)?;
    let mut rest = text.get(start..end)?;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        rest = rest.get(at..)?;
        rest = rest.get(escape(rest)?.1..)?;
    }
    Some(end + 1)
}

/// The number, boolean or null that begins here, and its length. What may come after it is seen next.
#[inline]
pub(super) fn scalar(bytes: &[u8], at: usize, byte: u8) -> Option<(Node, usize)> {
    let rest = bytes.get(at..)?;
    match byte {
        b't' if rest.starts_with(b"true") => Some((Node::Bool(true), 4)),
        b'f' if rest.starts_with(b"false") => Some((Node::Bool(false), 5)),
        b'n' if rest.starts_with(b"null") => Some((Node::Null, 4)),
        b'-' | b'0'..=b'9' => number(at, rest),
        _ => None,
    }
}

/// The plain number at the start of `text`, which begins at `at`, and its length.
fn number(at: usize, text: &[u8]) -> Option<(Node, usize)> {
    let sign = usize::from(text.first() == Some(&b'-'));
    let unsigned = text.get(sign..)?;
    let mut value = 0_u64;
    let mut whole = 0;
    while let Some(digit @ b'0'..=b'9') = unsigned.get(whole) {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        whole += 1;
    }
    let leading_zero = unsigned.first() == Some(&b'0');
    if whole == 0 || whole > DIGITS_MAX || (leading_zero && whole > 1) {
        return None;
    }
    if unsigned.get(whole) == Some(&b'.') {
        let fraction = unsigned.get(whole + 1..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let len = sign + whole + 1 + fraction;
        return (fraction > 0 && len <= DECIMAL_MAX).then_some((Node::Decimal { at: at as u32, len: len as u32 }, len));
    }
    let node = if sign == 0 {
        Node::Uint(value)
    } else {
        // Minus zero is for the tape to say what it is.
        Node::Int(-i64::try_from(value).ok().filter(|value| *value != 0)?)
    };
    Some((node, sign + whole))
}
