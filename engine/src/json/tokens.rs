//! Nodes straight from the bytes of a text, in one walk that goes from string to string and checks the grammar in between.
//! simd-json, which finds the tokens of a text first and then copies every string and converts every number, takes longer
//! than that, and decoders ask for few of them.
//!
//! It is not a second JSON parser: what is read here is what the tape would give, and what is not sure to be (halves of
//! surrogate pairs, exponents, integers beyond 19 digits, a scalar alone, whatever is not valid) is left to the tape.

use std::borrow::Cow;
use std::cell::RefCell;

use super::bytes::{next, scalar, skip};
use super::strings::{PlainText, unescape};
use super::{Json, Node, Parsed};

/// Memory is kept for texts up to this size; larger ones are rare.
const KEPT_MAX: usize = 1 << 20;
/// Texts that are read at the same time: one, what it holds, and what that holds.
const SPARE_MAX: usize = 3;

/// Memory that is used again for the next text.
struct Memory {
    open: Vec<Open>,
    /// What was made of texts that are no longer read: strings without escapes, and nodes.
    spare: Vec<(String, Vec<Node>)>,
    /// What such texts lay in, where they were copied.
    texts: Vec<String>,
}

thread_local! {
    static MEMORY: RefCell<Memory> =
        const { RefCell::new(Memory { open: Vec::new(), spare: Vec::new(), texts: Vec::new() }) };
}

/// An object or array that has begun and not ended.
#[derive(Clone, Copy)]
struct Open {
    node: usize,
    object: bool,
}

impl Open {
    /// Its node, when so many others belong to it.
    const fn holding(self, count: u32) -> Node {
        if self.object { Node::Object { count } } else { Node::Array { count } }
    }

    /// What ends it.
    const fn end(self) -> u8 {
        if self.object { b'}' } else { b']' }
    }
}

/// Takes back the memory of a text that is no longer read.
pub(super) fn keep(text: Cow<'_, str>, mut unescaped: String, mut nodes: Vec<Node>) {
    if nodes.capacity() == 0 {
        return;
    }
    unescaped.clear();
    nodes.clear();
    let fits = unescaped.capacity() <= KEPT_MAX && nodes.capacity() <= KEPT_MAX / size_of::<Node>();
    // At the end of a thread there may be nothing left to keep it in: then it is given up.
    MEMORY
        .try_with(|memory| {
            let Ok(mut memory) = memory.try_borrow_mut() else { return };
            if fits && memory.spare.len() < SPARE_MAX {
                memory.spare.push((unescaped, nodes));
            }
            if let Cow::Owned(mut text) = text
                && text.capacity() <= KEPT_MAX
                && memory.texts.len() < SPARE_MAX
            {
                text.clear();
                memory.texts.push(text);
            }
        })
        .unwrap_or(());
}

/// Reads a text nested at most `max_depth` deep, objects and arrays under keys that are `left_out` as null; `None` leaves
/// it to the tape, also to say what is wrong with it.
pub(super) fn borrow<'t>(bytes: &'t [u8], max_depth: usize, left_out: &[&str]) -> Option<Parsed<'t>> {
    u32::try_from(bytes.len()).ok()?;
    let text = simdutf8::basic::from_utf8(bytes).ok()?;
    MEMORY.with_borrow_mut(|memory| {
        let (unescaped, nodes) = memory.spare.pop().unwrap_or_default();
        memory.open.clear();
        let plain = PlainText::of(bytes);
        let mut walk = Walk { text, plain, max_depth, left_out, unescaped, nodes };
        walk.whole(&mut memory.open)?;
        Some(Parsed { text: Cow::Borrowed(text), unescaped: walk.unescaped, nodes: walk.nodes })
    })
}

/// The same, and copies the text.
pub(super) fn parse(bytes: &[u8], max_depth: usize, left_out: &[&str]) -> Option<Json> {
    let mut read = borrow(bytes, max_depth, left_out)?;
    let mut text = MEMORY.with_borrow_mut(|memory| memory.texts.pop()).unwrap_or_default();
    text.push_str(&read.text);
    let (unescaped, nodes) = (std::mem::take(&mut read.unescaped), std::mem::take(&mut read.nodes));
    Some(Parsed { text: Cow::Owned(text), unescaped, nodes })
}

struct Walk<'t, 'l> {
    text: &'t str,
    plain: PlainText<'t>,
    max_depth: usize,
    /// Keys whose objects and arrays nobody reads.
    left_out: &'l [&'l str],
    unescaped: String,
    nodes: Vec<Node>,
}

impl Walk<'_, '_> {
    fn whole(&mut self, open: &mut Vec<Open>) -> Option<()> {
        let bytes = self.text.as_bytes();
        let (mut at, mut byte) = next(bytes, 0);
        if !matches!(byte, b'{' | b'[') {
            return None;
        }
        // What the next value stands in: at first nothing.
        let mut inner = Open { node: 0, object: false };
        loop {
            let mut left_out = false;
            if inner.object {
                (at, byte, left_out) = self.key(bytes, at, byte)?;
            }
            match byte {
                b'"' => {
                    let (place, len);
                    (place, len, at) = self.string(bytes, at + 1)?;
                    self.nodes.push(Node::Text { at: place, len });
                }
                b'{' | b'[' if left_out => {
                    at = skip(self.text, &mut self.plain, at, self.max_depth.checked_sub(open.len())?)?;
                    self.nodes.push(Node::Null);
                }
                b'{' | b'[' => {
                    if open.len() >= self.max_depth {
                        return None;
                    }
                    let next_inner = Open { node: self.nodes.len(), object: byte == b'{' };
                    self.nodes.push(next_inner.holding(0));
                    (at, byte) = next(bytes, at + 1);
                    if byte != next_inner.end() {
                        open.push(inner);
                        inner = next_inner;
                        continue;
                    }
                    at += 1;
                }
                _ => {
                    let (node, len) = scalar(bytes, at, byte)?;
                    self.nodes.push(node);
                    at += len;
                }
            }
            // A value has ended. What follows is the next one, or the end of what it stands in.
            loop {
                (at, byte) = next(bytes, at);
                if open.is_empty() {
                    return (at == bytes.len()).then_some(());
                }
                if byte == b',' {
                    (at, byte) = next(bytes, at + 1);
                    break;
                }
                if byte != inner.end() {
                    return None;
                }
                self.end(inner)?;
                inner = open.pop()?;
                at += 1;
            }
        }
    }

    /// Notes what the object or array holds that has ended.
    #[inline]
    fn end(&mut self, ended: Open) -> Option<()> {
        let next = u32::try_from(self.nodes.len()).ok()?;
        *self.nodes.get_mut(ended.node)? = ended.holding(next - u32::try_from(ended.node).ok()? - 1);
        // A key stands right before its value.
        if let Some(Node::Key { after, .. }) = self.nodes.get_mut(ended.node.wrapping_sub(1)) {
            *after = next;
        }
        Some(())
    }

    /// Reads the key that begins here; gives the place of its value, the first byte of that, and whether nobody reads it.
    #[inline]
    fn key(&mut self, bytes: &[u8], at: usize, byte: u8) -> Option<(usize, u8, bool)> {
        if byte != b'"' {
            return None;
        }
        let (place, len, end) = self.string(bytes, at + 1)?;
        // Most values are one node; of the others it is noted when they end.
        let after = u32::try_from(self.nodes.len()).ok()?.checked_add(2)?;
        self.nodes.push(Node::Key { at: place, len, after });
        let (at, byte) = next(bytes, end);
        if byte != b':' {
            return None;
        }
        let (at, byte) = next(bytes, at + 1);
        let is_left_out = || self.left_out.contains(&super::slice(self.text, &self.unescaped, place, len));
        Some((at, byte, matches!(byte, b'{' | b'[') && !self.left_out.is_empty() && is_left_out()))
    }

    /// Where the string is, without its escapes, whose inside begins here, and the place after it.
    #[inline]
    fn string(&mut self, bytes: &[u8], start: usize) -> Option<(u32, u32, usize)> {
        let end = self.plain.end(start);
        if bytes.get(end) == Some(&b'"') {
            // It was seen that the text is not too long for 32 bits.
            return Some((start as u32, (end - start) as u32, end + 1));
        }
        self.escaped(start, end)
    }

    /// The same where something other than a quote ends the plain text.
    #[inline(never)]
    fn escaped(&mut self, start: usize, at: usize) -> Option<(u32, u32, usize)> {
        let end = self.plain.end_of_string(at)?;
        let begin = self.unescaped.len();
        unescape(self.text.get(start..end)?, &mut self.unescaped)?;
        let len = u32::try_from(self.unescaped.len() - begin).ok()?;
        // They come behind the text.
        Some((u32::try_from(self.text.len() + begin).ok()?, len, end + 1))
    }
}
