//! Nodes straight from the tokens of a text: simd-json's first stage finds where they begin and checks UTF-8 and strings,
//! and one walk over them checks the grammar. Its second stage, which would copy every string and convert every number,
//! costs more than both, and decoders ask for few of them.
//!
//! It is not a second JSON parser: what is read here is what the tape would give, and what is not sure to be (halves of
//! surrogate pairs, exponents, integers beyond 19 digits, whatever is not valid) is left to the tape.

use std::cell::RefCell;

use simd_json::{Buffers, ErrorType, INPUT_PADDING, Tape};

use super::{Json, Node};

/// Integers of so many digits fit 64 bits without a sign, nanoseconds since 1970 among them.
const DIGITS_MAX: usize = 19;
/// Longest decimal that cannot be out of a float's range.
const DECIMAL_MAX: usize = 64;
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
            open: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Finds the tokens; says false where the text is none that this module reads.
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
struct Open {
    node: usize,
    object: bool,
    /// The node of the key that was read last.
    key: usize,
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

/// Reads a text nested at most `max_depth` deep; `None` leaves it to the tape, also to say what is wrong with it.
pub(super) fn parse(bytes: &[u8], max_depth: usize) -> Option<Json> {
    MEMORY.with_borrow_mut(|memory| {
        let json = memory.find(bytes).then(|| walk(bytes, memory, max_depth)).flatten();
        if bytes.len() > KEPT_MAX {
            *memory = Memory::new();
        }
        json
    })
}

fn walk(bytes: &[u8], memory: &mut Memory, max_depth: usize) -> Option<Json> {
    let raw = simdutf8::basic::from_utf8(bytes).ok()?;
    let (mut text, mut nodes) = memory.spare.pop().unwrap_or_default();
    let tokens = memory.index.structural_indexes();
    text.push_str(raw);
    // Of what tokens there are at least half are commas, colons and closing brackets.
    nodes.reserve(tokens.len() / 2 + 1);
    memory.open.clear();
    let mut walk =
        Walk { raw, tokens, escape: memchr::memchr(b'\\', bytes).unwrap_or(usize::MAX), json: Json { text, nodes } };
    walk.whole(&mut memory.open, max_depth)?;
    Some(walk.json)
}

struct Walk<'t> {
    raw: &'t str,
    tokens: &'t [u32],
    /// Where the next backslash is.
    escape: usize,
    json: Json,
}

impl Walk<'_> {
    /// Where a token begins, and its first byte.
    #[inline]
    fn token(&self, number: usize) -> Option<(usize, u8)> {
        let at = *self.tokens.get(number)? as usize;
        Some((at, *self.raw.as_bytes().get(at)?))
    }

    fn whole(&mut self, open: &mut Vec<Open>, max_depth: usize) -> Option<()> {
        let mut number = 0;
        loop {
            let (at, byte) = self.token(number)?;
            match byte {
                b'"' => {
                    let (at, len) = self.string(number, at)?;
                    self.json.nodes.push(Node::Text { at, len });
                }
                b'{' | b'[' => {
                    if open.len() >= max_depth {
                        return None;
                    }
                    let object = byte == b'{';
                    number += 1;
                    let empty = self.token(number)?.1 == if object { b'}' } else { b']' };
                    if !empty {
                        let node = self.json.nodes.len();
                        open.push(Open { node, object, key: node + 1 });
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
                let Some(Open { node, object, key }) = open.last_mut() else {
                    return (number == self.tokens.len()).then_some(());
                };
                if *object {
                    let next = u32::try_from(self.json.nodes.len()).ok()?;
                    if let Some(Node::Key { after, .. }) = self.json.nodes.get_mut(*key) {
                        *after = next;
                    }
                }
                match self.token(number)?.1 {
                    b',' => {
                        number += 1;
                        if *object {
                            *key = self.json.nodes.len();
                            self.key(number)?;
                            number += 2;
                        }
                        break;
                    }
                    b'}' if *object => {
                        let count = u32::try_from(self.json.nodes.len() - *node - 1).ok()?;
                        *self.json.nodes.get_mut(*node)? = Node::Object { count };
                    }
                    b']' if !*object => {
                        let count = u32::try_from(self.json.nodes.len() - *node - 1).ok()?;
                        *self.json.nodes.get_mut(*node)? = Node::Array { count };
                    }
                    _ => return None,
                }
                open.pop();
                number += 1;
            }
        }
    }

    #[inline]
    fn key(&mut self, number: usize) -> Option<()> {
        let (at, byte) = self.token(number)?;
        if byte != b'"' || self.token(number + 1)?.1 != b':' {
            return None;
        }
        let (at, len) = self.string(number, at)?;
        self.json.nodes.push(Node::Key { at, len, after: 0 });
        Some(())
    }

    /// Where the string is that this token begins. After it there is only white space up to the next token.
    #[inline]
    fn string(&mut self, number: usize, at: usize) -> Option<(u32, u32)> {
        let bytes = self.raw.as_bytes();
        let start = at + 1;
        let mut end = *self.tokens.get(number + 1)? as usize;
        loop {
            end = end.checked_sub(1)?;
            match bytes.get(end)? {
                b'"' => break,
                b' ' | b'\t' | b'\n' | b'\r' => {}
                _ => return None,
            }
        }
        if end < start {
            return None;
        }
        if self.escape >= end {
            // The first stage has refused texts that are too long for 32 bits.
            return Some((start as u32, (end - start) as u32));
        }
        let unescaped = self.json.text.len();
        unescape(self.raw.get(start..end)?, &mut self.json.text)?;
        let len = u32::try_from(self.json.text.len() - unescaped).ok()?;
        self.escape = memchr::memchr(b'\\', bytes.get(end..)?).map_or(usize::MAX, |next| end + next);
        Some((u32::try_from(unescaped).ok()?, len))
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
