//! The grammar of JSON over the tokens of a text, for the walk over them that takes out columns (`crate::scan`). It gives up
//! on what simd-json's tape has to decide.

use super::DEPTH_MAX;
use crate::intern::Kind;

/// Longest decimal that cannot be out of a float's range.
pub(super) const DECIMAL_MAX: usize = 64;
/// Integers of so many digits fit 64 bits, signed or not.
const DIGITS_MAX: usize = 18;

/// A text, and where its tokens begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens<'t> {
    pub(crate) text: &'t [u8],
    pub(crate) begin: &'t [u32],
}

impl Tokens<'_> {
    /// Where a token begins, and its first byte.
    #[inline]
    pub(crate) fn token(&self, number: usize) -> Option<(usize, u8)> {
        let at = *self.begin.get(number)? as usize;
        Some((at, *self.text.get(at)?))
    }

    /// Where the inside of the string is that is this token. After it there is only white space up to the next token.
    #[inline]
    pub(crate) fn string(&self, number: usize) -> Option<(usize, usize)> {
        let start = *self.begin.get(number)? as usize + 1;
        let mut end = *self.begin.get(number + 1)? as usize;
        loop {
            end = end.checked_sub(1)?;
            match self.text.get(end)? {
                b'"' => break,
                b' ' | b'\t' | b'\n' | b'\r' => {}
                _ => return None,
            }
        }
        (start <= end).then_some((start, end))
    }

    /// Steps over an object or array that nobody asks about, checking its grammar; it stands in `outer` others. Gives the
    /// number of the token after it.
    pub(crate) fn skip(&self, first: usize, outer: usize, depth_max: usize) -> Option<usize> {
        // One bit for each open bracket: whether it is an object's.
        let mut objects = [0_u64; DEPTH_MAX / 64 + 1];
        let mut open = 0_usize;
        let is_key = |number: usize| Some(self.token(number)?.1 == b'"' && self.token(number + 1)?.1 == b':');
        let mut number = first;
        loop {
            let (at, byte) = self.token(number)?;
            match byte {
                b'"' => {}
                b'{' | b'[' => {
                    if outer + open > depth_max {
                        return None;
                    }
                    let object = byte == b'{';
                    number += 1;
                    let next = self.token(number)?.1;
                    let empty = next == if object { b'}' } else { b']' };
                    if !empty {
                        let bits = objects.get_mut(open / 64)?;
                        *bits = *bits & !(1 << (open % 64)) | u64::from(object) << (open % 64);
                        open += 1;
                        if object {
                            if !is_key(number)? {
                                return None;
                            }
                            number += 2;
                        }
                        continue;
                    }
                }
                _ => {
                    self.plain(at, byte)?;
                }
            }
            // A value ends here. What follows is the next one, or the end of what it stands in.
            loop {
                number += 1;
                let Some(inner) = open.checked_sub(1) else { return Some(number) };
                let object = objects.get(inner / 64)? >> (inner % 64) & 1 == 1;
                match self.token(number)?.1 {
                    b',' if object => {
                        if !is_key(number + 1)? {
                            return None;
                        }
                        number += 3;
                        break;
                    }
                    b',' => {
                        number += 1;
                        break;
                    }
                    b'}' if object => open = inner,
                    b']' if !object => open = inner,
                    _ => return None,
                }
            }
        }
    }

    /// The kind and length of a number, a boolean or null, and whether it has a decimal point.
    #[inline]
    pub(crate) fn plain(&self, at: usize, byte: u8) -> Option<(Kind, usize, bool)> {
        let rest = self.text.get(at..)?;
        let (kind, len, decimal) = match byte {
            b't' if rest.starts_with(b"true") => (Kind::Bool, 4, false),
            b'f' if rest.starts_with(b"false") => (Kind::Bool, 5, false),
            b'n' if rest.starts_with(b"null") => (Kind::Null, 4, false),
            b'-' | b'0'..=b'9' => {
                let (len, decimal) = number(rest)?;
                (Kind::Number, len, decimal)
            }
            _ => return None,
        };
        let ends = matches!(rest.get(len)?, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
        ends.then_some((kind, len, decimal))
    }
}

/// The length of a plain number at the start of `text`, and whether it has a decimal point.
fn number(text: &[u8]) -> Option<(usize, bool)> {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let sign = usize::from(text.first() == Some(&b'-'));
    let unsigned = text.get(sign..)?;
    let whole = digits(unsigned);
    let leading_zero = unsigned.first() == Some(&b'0');
    if whole == 0 || (leading_zero && whole > 1) {
        return None;
    }
    if unsigned.get(whole) != Some(&b'.') {
        // Minus zero is written as zero.
        let plain = whole <= DIGITS_MAX && !(sign == 1 && leading_zero);
        return plain.then_some((sign + whole, false));
    }
    let fraction = digits(unsigned.get(whole + 1..)?);
    let len = sign + whole + 1 + fraction;
    (fraction > 0 && len <= DECIMAL_MAX).then_some((len, true))
}
