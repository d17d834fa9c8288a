//! Reading JSON without building a tree of owned values: one walk over the text, and simd-json's tape for what that is not
//! sure of.
//!
//! [`Parsed`] is one parsed text, [`Json`] one that owns it; a [`Value`] is a place in it. This is for reading only:
//! nothing here writes or changes JSON, and numbers keep the three forms the parser tells apart (an integer beyond 64
//! bits is a float).
//! Every input is hostile: depth is limited before anything is kept, and no function recurses.

use std::borrow::Cow;

use simd_json::{Buffers, ErrorType, INPUT_PADDING, Node as TapeNode, StaticNode, Tape};

use crate::spelling::Spelling;

mod bytes;
mod compact;
mod grammar;
mod members;
mod strings;
mod tokens;

pub(crate) use compact::CompactWriter;
pub(crate) use grammar::Tokens;
pub use members::{Entries, Items};
pub(crate) use strings::unescape;

/// How deep objects and arrays may be nested: as deep as `serde_json` reads them.
pub const DEPTH_MAX: usize = 128;

/// Why bytes are not JSON we read.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Nested deeper than allowed.
    #[error("JSON is nested deeper than {0} levels")]
    Depth(usize),
    /// Longer than can be indexed.
    #[error("JSON text of {0} bytes is too long")]
    Length(usize),
    /// Not JSON.
    #[error("not valid JSON at byte {at}")]
    Syntax {
        /// Byte offset near which reading failed.
        at: usize,
        /// What the parser says.
        #[source]
        cause: simd_json::Error,
    },
}

#[derive(Clone, Copy, Debug)]
enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    /// Range of the text that holds a number with a point: few of them are ever asked for.
    Decimal {
        at: u32,
        len: u32,
    },
    /// Range of the text, and beyond its end of [`Parsed::unescaped`].
    Text {
        at: u32,
        len: u32,
    },
    /// As text, of a key; `after` is the node of the next one, or the end of the object. The tape's are plain texts.
    Key {
        at: u32,
        len: u32,
        after: u32,
    },
    /// `count` nodes follow that belong to it.
    Array {
        count: u32,
    },
    /// `count` nodes follow that belong to it, keys and values in turn.
    Object {
        count: u32,
    },
}

/// One parsed JSON text, which it may only borrow.
#[derive(Clone, Debug)]
pub struct Parsed<'t> {
    text: Cow<'t, str>,
    /// Strings that have escapes in the text, as they are without.
    unescaped: String,
    nodes: Vec<Node>,
}

/// One parsed JSON text.
pub type Json = Parsed<'static>;

/// A place in a [`Parsed`] text.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    json: &'a Parsed<'a>,
    at: usize,
}

/// The part of a text, or of the strings without escapes that come behind it.
#[inline]
fn slice<'s>(text: &'s str, unescaped: &'s str, at: u32, len: u32) -> &'s str {
    let (start, len) = (at as usize, len as usize);
    let found = match start.checked_sub(text.len()) {
        None => text.get(start..start + len),
        Some(start) => unescaped.get(start..start + len),
    };
    found.unwrap_or_default()
}

/// Checks that no object or array is nested deeper than `max_depth`, without parsing: one pass, no allocation. What is
/// not JSON passes or fails by its brackets outside strings.
///
/// # Errors
/// [`JsonError::Depth`].
pub fn check_depth(bytes: &[u8], max_depth: usize) -> Result<(), JsonError> {
    // Hardly any text has as many brackets as it may be deep, and counting those is many times quicker.
    let opening =
        |chunk: &[u8]| usize::from(chunk.iter().map(|byte| u8::from(matches!(byte, b'{' | b'['))).sum::<u8>());
    if bytes.chunks(128).map(opening).sum::<usize>() <= max_depth {
        return Ok(());
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                rest.next();
            }
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > max_depth {
                    return Err(JsonError::Depth(max_depth));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

impl Json {
    /// Parses a JSON text (UTF-8, RFC 8259) nested at most [`DEPTH_MAX`] deep.
    ///
    /// # Errors
    /// [`JsonError`] says whether it is not JSON or beyond a limit.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        Self::parse_within(bytes, DEPTH_MAX)
    }

    /// Parses a JSON text nested at most `max_depth` deep.
    ///
    /// # Errors
    /// [`JsonError`] says whether it is not JSON or beyond a limit.
    pub fn parse_within(bytes: &[u8], max_depth: usize) -> Result<Self, JsonError> {
        Self::parse_without(bytes, max_depth, &[])
    }

    /// Parses a JSON text nested at most `max_depth` deep of which parts are not read: of objects and arrays under these
    /// keys, wherever they are, it is only seen that they are valid, and they may be there or be null.
    ///
    /// # Errors
    /// [`JsonError`] says whether it is not JSON or beyond a limit.
    pub fn parse_without(bytes: &[u8], max_depth: usize, keys: &[&str]) -> Result<Self, JsonError> {
        match tokens::parse(bytes, max_depth, keys) {
            Some(json) => Ok(json),
            None => Self::parse_by_tape(bytes, max_depth),
        }
    }

    fn parse_by_tape(bytes: &[u8], max_depth: usize) -> Result<Self, JsonError> {
        // The parser has a limit of its own, but checks it only after it has indexed the whole text.
        check_depth(bytes, max_depth)?;
        let too_long = || JsonError::Length(bytes.len());
        u32::try_from(bytes.len()).map_err(|_| too_long())?;
        let mut buffer = Vec::with_capacity(bytes.len() + INPUT_PADDING);
        buffer.extend_from_slice(bytes);
        buffer.resize(bytes.len() + INPUT_PADDING, 0);
        let mut buffers = Buffers::with_max_depth(0, max_depth.saturating_add(1));
        let mut tape = Tape(Vec::new());
        let parsed = simd_json::fill_tape_padded(&mut buffer, bytes.len(), &mut buffers, &mut tape);
        parsed.map_err(|cause| match cause.error() {
            ErrorType::DepthLimitExceeded => JsonError::Depth(max_depth),
            ErrorType::InputTooLarge => too_long(),
            _ => JsonError::Syntax { at: cause.index(), cause },
        })?;
        let mut strings = String::with_capacity(bytes.len());
        let mut nodes = Vec::with_capacity(tape.0.len());
        for node in &tape.0 {
            let size = |count: usize| u32::try_from(count).map_err(|_| too_long());
            nodes.push(match *node {
                TapeNode::String(text) => {
                    let at = size(strings.len())?;
                    strings.push_str(text);
                    Node::Text { at, len: size(text.len())? }
                }
                TapeNode::Object { count, .. } => Node::Object { count: size(count)? },
                TapeNode::Array { count, .. } => Node::Array { count: size(count)? },
                TapeNode::Static(StaticNode::Null) => Node::Null,
                TapeNode::Static(StaticNode::Bool(truth)) => Node::Bool(truth),
                TapeNode::Static(StaticNode::I64(number)) => Node::Int(number),
                TapeNode::Static(StaticNode::U64(number)) => Node::Uint(number),
                TapeNode::Static(StaticNode::F64(number)) => Node::Float(number),
            });
        }
        Ok(Self { text: Cow::Owned(strings), unescaped: String::new(), nodes })
    }
}

impl<'t> Parsed<'t> {
    /// As [`Json::parse_without`], of a text that stays where it is: copying it would be much of the work.
    ///
    /// # Errors
    /// [`JsonError`] says whether it is not JSON or beyond a limit.
    pub fn of(bytes: &'t [u8], max_depth: usize, keys: &[&str]) -> Result<Self, JsonError> {
        match tokens::borrow(bytes, max_depth, keys) {
            Some(parsed) => Ok(parsed),
            None => Json::parse_by_tape(bytes, max_depth),
        }
    }

    /// The whole.
    #[must_use]
    pub const fn root(&self) -> Value<'_> {
        Value { json: self, at: 0 }
    }

    /// See [`Value::at`].
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<Value<'_>> {
        self.root().at(path)
    }

    /// The text at `path`, if there is one.
    #[must_use]
    pub fn str_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.as_str()
    }

    #[inline]
    fn node(&self, at: usize) -> Node {
        self.nodes.get(at).copied().unwrap_or(Node::Null)
    }

    #[inline]
    fn slice(&self, at: u32, len: u32) -> &str {
        slice(&self.text, &self.unescaped, at, len)
    }

    fn decimal(&self, at: u32, len: u32) -> f64 {
        self.slice(at, len).parse().unwrap_or_default()
    }

    /// Index of the node after the value at `at`.
    #[inline]
    fn after(&self, at: usize) -> usize {
        match self.node(at) {
            Node::Array { count } | Node::Object { count } => at + 1 + count as usize,
            _ => at + 1,
        }
    }
}

impl Drop for Parsed<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        tokens::keep(text, std::mem::take(&mut self.unescaped), std::mem::take(&mut self.nodes));
    }
}

impl<'a> Value<'a> {
    /// The member `key` of an object; where a key is repeated, its last value, as most readers of JSON have it.
    #[inline]
    #[must_use]
    pub fn get(self, key: &str) -> Option<Self> {
        let key = key.as_bytes();
        // Most keys differ in length or in their last letter.
        self.find_sized(|len| len == key.len(), |name| name.last() == key.last() && name == key)
    }

    /// The last member of an object whose key, as bytes of UTF-8 and at least `shortest` of them, fits.
    #[inline]
    #[must_use]
    pub fn find(self, shortest: usize, fits: impl Fn(&[u8]) -> bool) -> Option<Self> {
        self.find_sized(|len| len >= shortest, fits)
    }

    #[inline]
    fn find_sized(self, has_size: impl Fn(usize) -> bool, fits: impl Fn(&[u8]) -> bool) -> Option<Self> {
        let Node::Object { .. } = self.json.node(self.at) else { return None };
        let (end, text) = (self.json.after(self.at), self.json.text.as_bytes());
        let unescaped = self.json.unescaped.as_bytes();
        let name = |start: usize, len: usize| match start.checked_sub(text.len()) {
            None => text.get(start..start + len),
            Some(start) => unescaped.get(start..start + len),
        };
        let (mut at, mut found) = (self.at + 1, None);
        while at < end {
            let (start, len, after) = match self.json.node(at) {
                Node::Key { at: start, len, after } => (start as usize, len as usize, after as usize),
                Node::Text { at: start, len } => (start as usize, len as usize, self.json.after(at + 1)),
                _ => break,
            };
            if has_size(len) && name(start, len).is_some_and(&fits) {
                found = Some(Self { json: self.json, at: at + 1 });
            }
            at = after;
        }
        found
    }

    /// Follows literal keys from object to object. Arrays are not entered.
    #[inline]
    #[must_use]
    pub fn at(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The text at `path`, if there is one.
    #[inline]
    #[must_use]
    pub fn str_at(self, path: &[&str]) -> Option<&'a str> {
        self.at(path)?.as_str()
    }

    /// Its text, if it is a string.
    #[inline]
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        match self.json.node(self.at) {
            Node::Text { at, len } | Node::Key { at, len, .. } => Some(self.json.slice(at, len)),
            _ => None,
        }
    }

    /// Its value, if it is an integer in range.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        match self.json.node(self.at) {
            Node::Int(number) => Some(number),
            Node::Uint(number) => i64::try_from(number).ok(),
            _ => None,
        }
    }

    /// Its value, if it is an integer in range.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        match self.json.node(self.at) {
            Node::Int(number) => u64::try_from(number).ok(),
            Node::Uint(number) => Some(number),
            _ => None,
        }
    }

    /// Its value, if it is a number; integers beyond 2^53 are rounded.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "said so above")]
    pub fn as_f64(self) -> Option<f64> {
        match self.json.node(self.at) {
            Node::Int(number) => Some(number as f64),
            Node::Uint(number) => Some(number as f64),
            Node::Float(number) => Some(number),
            Node::Decimal { at, len } => Some(self.json.decimal(at, len)),
            _ => None,
        }
    }

    /// Its value, if it is a boolean.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self.json.node(self.at) {
            Node::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        matches!(self.json.node(self.at), Node::Null)
    }

    /// Whether it is an object.
    #[inline]
    #[must_use]
    pub fn is_object(self) -> bool {
        matches!(self.json.node(self.at), Node::Object { .. })
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_array(self) -> bool {
        matches!(self.json.node(self.at), Node::Array { .. })
    }

    /// Keys and values of an object in the order written; nothing for any other value.
    #[inline]
    #[must_use]
    pub fn entries(self) -> Entries<'a> {
        match self.json.node(self.at) {
            Node::Object { .. } => Entries { json: self.json, at: self.at + 1, end: self.json.after(self.at) },
            _ => Entries { json: self.json, at: 0, end: 0 },
        }
    }

    /// Elements of an array; nothing for any other value.
    #[inline]
    #[must_use]
    pub fn items(self) -> Items<'a> {
        match self.json.node(self.at) {
            Node::Array { .. } => Items { json: self.json, at: self.at + 1, end: self.json.after(self.at) },
            _ => Items { json: self.json, at: 0, end: 0 },
        }
    }

    /// A scalar as text: a string as it is, a number or boolean as JSON writes it. `None` for null, objects and arrays.
    #[must_use]
    pub fn scalar(self) -> Option<Cow<'a, str>> {
        match self.json.node(self.at) {
            Node::Text { at, len } | Node::Key { at, len, .. } => Some(Cow::Borrowed(self.json.slice(at, len))),
            Node::Bool(true) => Some(Cow::Borrowed("true")),
            Node::Bool(false) => Some(Cow::Borrowed("false")),
            Node::Int(number) => Some(Cow::Owned(number.to_string())),
            Node::Uint(number) => Some(Cow::Owned(number.to_string())),
            Node::Float(number) => Some(Cow::Owned(float_text(number))),
            Node::Decimal { at, len } => Some(Cow::Owned(float_text(self.json.decimal(at, len)))),
            Node::Null | Node::Array { .. } | Node::Object { .. } => None,
        }
    }

    /// The value as text: scalars as [`Value::scalar`], null as `null`, objects and arrays as compact JSON.
    #[must_use]
    pub fn text(self) -> Cow<'a, str> {
        self.scalar().unwrap_or_else(|| Cow::Owned(self.compact()))
    }

    /// Every value that the Sigma field `path` names, in order: dots lead into nested objects, a key that itself holds
    /// dots (`@timestamp`, `meta.user`) is found as written, an array stands for each of its members. An object or
    /// an empty array at the end of the path is one value. A few fields are found under other names too.
    #[must_use]
    pub fn lookup(self, path: &str) -> Vec<Self> {
        Spelling::Written.find(self, path)
    }

    pub(crate) fn lookup_as_written(self, path: &str) -> Vec<Self> {
        let mut found = Vec::new();
        // Depth first, in document order: what is still to visit, the next one last.
        let mut open = vec![(self, Some(path))];
        while let Some((value, rest)) = open.pop() {
            if value.is_array() {
                let before = open.len();
                open.extend(value.items().map(|item| (item, rest)));
                if open.len() == before && rest.is_none() {
                    found.push(value);
                }
                if let Some(new) = open.get_mut(before..) {
                    new.reverse();
                }
                continue;
            }
            let Some(rest) = rest else {
                found.push(value);
                continue;
            };
            let before = open.len();
            open.extend(value.entries().filter_map(|(key, member)| match rest.strip_prefix(key)? {
                "" => Some((member, None)),
                more => Some((member, Some(more.strip_prefix('.')?))),
            }));
            if let Some(new) = open.get_mut(before..) {
                new.reverse();
            }
        }
        found
    }
}

/// A float as JSON writes it, always with a point or an exponent.
#[must_use]
pub fn float_text(number: f64) -> String {
    format!("{number:?}")
}

#[cfg(test)]
mod tests;
