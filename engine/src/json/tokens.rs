//! Nodes straight from the tokens of a text: simd-json's first stage finds where they begin and checks UTF-8 and strings
//! (of texts that are mostly long strings [`sparse`] does), and one walk over them checks the grammar. Its second stage,
//! which would copy every string and convert every number, costs more than both, and decoders ask for few of them.
//!
//! It is not a second JSON parser: what is read here is what the tape would give, and what is not sure to be (halves of
//! surrogate pairs, exponents, integers beyond 19 digits, whatever is not valid) is left to the tape.

use std::cell::RefCell;

use simd_json::{Buffers, ErrorType, INPUT_PADDING, Tape};

use super::grammar::{DECIMAL_MAX, Tokens};
use super::{Json, Node, sparse};

/// Integers of so many digits fit 64 bits without a sign, nanoseconds since 1970 among them.
const DIGITS_MAX: usize = 19;
/// Memory is kept for texts up to this size; larger ones are rare.
const KEPT_MAX: usize = 1 << 20;
/// Texts that are read at the same time: one, what it holds, and what that holds.
const SPARE_MAX: usize = 3;

/// Memory that is used again for the next text.
struct Memory {
    /// The text and the padding the parser wants.
    padded: Vec<u8>,
    /// With no depth allowed the parser ends when it knows where the tokens are, at the first bracket.
    index: Buffers,
    tape: Tape<'static>,
    /// Where tokens are of a text that has few.
    few: Vec<u32>,
    open: Vec<Open>,
    /// What texts that are no longer read were kept in: one, and what lay in it.
    spare: Vec<(String, Vec<Node>)>,
}

impl Memory {
    fn new() -> Self {
        Self {
            padded: Vec::new(),
            index: Buffers::with_max_depth(0, 0),
            tape: Tape(Vec::new()),
            few: Vec::new(),
            open: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Reads a text; `None` where it is none that this module reads.
    fn read(&mut self, bytes: &[u8], max_depth: usize, left_out: &[&str]) -> Option<Json> {
        let (tokens, escape) = match sparse::find(bytes, &mut self.few) {
            Some(escape) => (self.few.as_slice(), escape),
            None if self.find(bytes) => {
                (self.index.structural_indexes(), memchr::memchr(b'\\', bytes).unwrap_or(usize::MAX))
            }
            None => return None,
        };
        let raw = simdutf8::basic::from_utf8(bytes).ok()?;
        let (mut text, mut nodes) = self.spare.pop().unwrap_or_default();
        text.push_str(raw);
        // Of what tokens there are at least half are commas, colons and closing brackets.
        nodes.reserve(tokens.len() / 2 + 1);
        self.open.clear();
        let tokens = Tokens { text: bytes, begin: tokens };
        let mut walk = Walk { raw, tokens, escape, left_out, json: Json { text, nodes } };
        walk.whole(&mut self.open, max_depth)?;
        Some(walk.json)
    }

    /// Finds the tokens by the first stage; says false where it refuses the text.
    fn find(&mut self, bytes: &[u8]) -> bool {
        self.padded.clear();
        self.padded.extend_from_slice(bytes);
        self.padded.resize(bytes.len() + INPUT_PADDING, 0);
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let ended = simd_json::fill_tape_padded(&mut self.padded, bytes.len(), &mut self.index, &mut tape);
        self.tape = tape.reset();
        ended.is_err_and(|error| matches!(error.error(), ErrorType::DepthLimitExceeded))
    }
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::new());
}

/// An object or array that has begun and not ended.
#[derive(Clone, Copy)]
struct Open {
    node: usize,
    object: bool,
}

/// Takes back the memory of a text that is no longer read.
pub(super) fn keep(mut text: String, mut nodes: Vec<Node>) {
    if text.capacity() == 0 || text.capacity() > KEPT_MAX || nodes.capacity() > KEPT_MAX / size_of::<Node>() {
        return;
    }
    text.clear();
    nodes.clear();
    // At the end of a thread there may be nothing left to keep it in: then it is given up.
    MEMORY
        .try_with(|memory| {
            if let Ok(mut memory) = memory.try_borrow_mut()
                && memory.spare.len() < SPARE_MAX
            {
                memory.spare.push((text, nodes));
            }
        })
        .unwrap_or(());
}

/// Reads a text nested at most `max_depth` deep, objects and arrays under keys that are `left_out` as null; `None` leaves
/// it to the tape, also to say what is wrong with it.
pub(super) fn parse(bytes: &[u8], max_depth: usize, left_out: &[&str]) -> Option<Json> {
    MEMORY.with_borrow_mut(|memory| {
        let json = memory.read(bytes, max_depth, left_out);
        if bytes.len() > KEPT_MAX {
            *memory = Memory::new();
        }
        json
    })
}

struct Walk<'t> {
    raw: &'t str,
    tokens: Tokens<'t>,
    /// Where the next backslash is.
    escape: usize,
    /// Keys whose objects and arrays nobody reads.
    left_out: &'t [&'t str],
    json: Json,
}

impl Walk<'_> {
    fn whole(&mut self, open: &mut Vec<Open>, max_depth: usize) -> Option<()> {
        let mut number = 0;
        loop {
            let (at, byte) = self.tokens.token(number)?;
            match byte {
                b'"' => {
                    let (at, len) = self.string(number)?;
                    self.json.nodes.push(Node::Text { at, len });
                }
                b'{' | b'[' if self.is_left_out() => number = self.leave_out(number, open.len(), max_depth)? - 1,
                b'{' | b'[' => {
                    if open.len() >= max_depth {
                        return None;
                    }
                    let object = byte == b'{';
                    number += 1;
                    let empty = self.tokens.token(number)?.1 == if object { b'}' } else { b']' };
                    if !empty {
                        open.push(Open { node: self.json.nodes.len(), object });
                    }
                    self.json.nodes.push(if object { Node::Object { count: 0 } } else { Node::Array { count: 0 } });
                    if !empty {
                        if object {
                            self.key(number)?;
                            number += 2;
                        }
                        continue;
                    }
                }
                _ => self.plain(at, byte)?,
            }
            // A value has ended. What follows is the next one, or the end of what it stands in.
            number += 1;
            loop {
                let Some(Open { node, object }) = open.last().copied() else {
                    return (number == self.tokens.begin.len()).then_some(());
                };
                match self.tokens.token(number)?.1 {
                    b',' => {
                        number += 1;
                        if object {
                            self.key(number)?;
                            number += 2;
                        }
                        break;
                    }
                    b'}' if object => self.end(node, |count| Node::Object { count })?,
                    b']' if !object => self.end(node, |count| Node::Array { count })?,
                    _ => return None,
                }
                open.pop();
                number += 1;
            }
        }
    }

    /// Notes what the object or array holds that has ended.
    #[inline]
    fn end(&mut self, node: usize, holding: impl FnOnce(u32) -> Node) -> Option<()> {
        let next = u32::try_from(self.json.nodes.len()).ok()?;
        *self.json.nodes.get_mut(node)? = holding(next - u32::try_from(node).ok()? - 1);
        // A key stands right before its value.
        if let Some(Node::Key { after, .. }) = self.json.nodes.get_mut(node.wrapping_sub(1)) {
            *after = next;
        }
        Some(())
    }

    #[inline]
    fn key(&mut self, number: usize) -> Option<()> {
        if self.tokens.token(number)?.1 != b'"' || self.tokens.token(number + 1)?.1 != b':' {
            return None;
        }
        let (at, len) = self.string(number)?;
        // Most values are one node; of the others it is noted when they end.
        let after = u32::try_from(self.json.nodes.len()).ok()?.checked_add(2)?;
        self.json.nodes.push(Node::Key { at, len, after });
        Some(())
    }

    /// Where the string is, without its escapes, that this token begins.
    #[inline]
    fn string(&mut self, number: usize) -> Option<(u32, u32)> {
        let (start, end) = self.tokens.string(number)?;
        if self.escape >= end {
            // The first stage has refused texts that are too long for 32 bits.
            return Some((start as u32, (end - start) as u32));
        }
        let unescaped = self.json.text.len();
        unescape(self.raw.get(start..end)?, &mut self.json.text)?;
        let len = u32::try_from(self.json.text.len() - unescaped).ok()?;
        self.escape_after(end)?;
        Some((u32::try_from(unescaped).ok()?, len))
    }

    #[inline]
    fn escape_after(&mut self, end: usize) -> Option<()> {
        let rest = self.raw.as_bytes().get(end..)?;
        self.escape = memchr::memchr(b'\\', rest).map_or(usize::MAX, |next| end + next);
        Some(())
    }

    /// Whether the value that begins belongs to a key that nobody reads.
    #[inline]
    fn is_left_out(&self) -> bool {
        let Some(Node::Key { at, len, .. }) = self.json.nodes.last() else { return false };
        !self.left_out.is_empty() && self.left_out.contains(&self.json.slice(*at, *len))
    }

    /// Steps over an object or array; gives the number of the token after it.
    fn leave_out(&mut self, number: usize, outer: usize, max_depth: usize) -> Option<usize> {
        // The depth of the innermost counts what it stands in.
        let after = self.tokens.skip(number, outer + 1, max_depth)?;
        let end = self.tokens.token(after)?.0;
        if self.escape < end {
            // Those in it have to be valid, too.
            let len = self.json.text.len();
            unescape(self.raw.get(self.escape..end)?, &mut self.json.text)?;
            self.json.text.truncate(len);
            self.escape_after(end)?;
        }
        self.json.nodes.push(Node::Null);
        Some(after)
    }

    /// A number, a boolean or null.
    #[inline]
    fn plain(&mut self, at: usize, byte: u8) -> Option<()> {
        let rest = self.raw.as_bytes().get(at..)?;
        let (node, len) = match byte {
            b't' if rest.starts_with(b"true") => (Node::Bool(true), 4),
            b'f' if rest.starts_with(b"false") => (Node::Bool(false), 5),
            b'n' if rest.starts_with(b"null") => (Node::Null, 4),
            b'-' | b'0'..=b'9' => number(at, rest)?,
            _ => return None,
        };
        let ends = matches!(rest.get(len)?, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
        self.json.nodes.push(node);
        ends.then_some(())
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

/// Appends the inside of a string without its escapes; `None` where one is invalid or half of a surrogate pair.
pub(crate) fn unescape(text: &str, into: &mut String) -> Option<()> {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        into.push_str(rest.get(..at)?);
        let escape = *rest.as_bytes().get(at + 1)?;
        let mut len = 2;
        into.push(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                len = 6;
                let hex = rest.get(at + 2..at + 6).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
                // Halves of a pair are no characters.
                char::from_u32(u32::from_str_radix(hex, 16).ok()?)?
            }
            _ => return None,
        });
        rest = rest.get(at + len..)?;
    }
    into.push_str(rest);
    Some(())
}
