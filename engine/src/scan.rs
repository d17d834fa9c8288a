//! Taking fields straight from the text of an event: simd-json finds where its tokens are, and one walk over them checks
//! the grammar, descends where rules read, and steps over everything else. Nothing is unescaped, converted or copied that
//! no rule asks for.
//!
//! It is not a second JSON parser: it either knows that simd-json's tape would give the same values, or gives up, and
//! the tape is read instead. It gives up on `\u` escapes, numbers with an exponent or of more than 18 digits, decimals
//! that a rule reads, objects read as text that are not written compactly, and on anything that is not valid.

use std::ops::Range;

use crate::columns::{NOWHERE, Schema, Sink};
use crate::intern::Kind;
use crate::json::{DEPTH_MAX, Tokens, unescape};

/// A value found.
#[derive(Clone, Copy, Debug)]
struct Found {
    column: u32,
    kind: Kind,
    /// Whether the text has escapes to take out.
    escaped: bool,
    start: u32,
    end: u32,
}

/// What a walk found; memory that is used again.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    found: Vec<Found>,
    /// Where the texts of members of the whole are that the caller asked for.
    members: Vec<Option<(u32, u32)>>,
    unescaped: String,
}

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'s> {
    pub(crate) schema: &'s Schema,
    /// Whether every scalar is, for keywords.
    pub(crate) everything: bool,
    /// Places of the text whose values are.
    pub(crate) places: &'s [u32],
    /// Members of the whole whose texts are asked for besides; the last counts where one is repeated.
    pub(crate) members: &'s [&'s str],
}

impl Findings {
    /// Walks over `text`, whose tokens begin at `tokens`; `escaped` says whether it has a backslash. Says false where it
    /// gives up.
    pub(crate) fn scan(&mut self, text: &[u8], escaped: bool, tokens: &[u32], wanted: Wanted<'_>) -> bool {
        self.found.clear();
        self.members.clear();
        self.members.resize(wanted.members.len(), None);
        let escapes = if escaped { escapes(text) } else { Some(0..0) };
        let Some(escapes) = escapes else { return false };
        let everything = wanted.schema.everything().filter(|_| wanted.everything);
        let mut walk = Walk { wanted, tokens: Tokens { text, begin: tokens }, escapes, everything, into: self };
        walk.value(0, wanted.schema.root(), 0) == Some(tokens.len()) && walk.places().is_some()
    }

    /// The text of a member asked for, if it has one.
    pub(crate) fn member<'t>(&self, number: usize, text: &'t [u8]) -> Option<&'t str> {
        let (start, end) = (*self.members.get(number)?)?;
        std::str::from_utf8(text.get(start as usize..end as usize)?).ok()
    }

    /// Hands on what was found in `text`.
    pub(crate) fn give(&mut self, text: &str, sink: &mut impl Sink) {
        for found in &self.found {
            let text = text.get(found.start as usize..found.end as usize).unwrap_or_default();
            if found.escaped {
                self.unescaped.clear();
                // Only escapes that can be taken out are found.
                if unescape(text, &mut self.unescaped).is_some() {
                    sink.value(found.column, found.kind, &self.unescaped);
                }
            } else {
                sink.value(found.column, found.kind, text);
            }
        }
    }
}

/// From the first to the last escape; `None` if one is not of the simple kind.
fn escapes(text: &[u8]) -> Option<Range<usize>> {
    let mut range: Option<Range<usize>> = None;
    let mut from = 0;
    while let Some(at) = memchr::memchr(b'\\', text.get(from..)?) {
        let at = from + at;
        if !matches!(text.get(at + 1)?, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') {
            return None;
        }
        from = at + 2;
        range = Some(range.map_or(at, |range| range.start)..from);
    }
    Some(range.unwrap_or(0..0))
}

struct Walk<'w> {
    wanted: Wanted<'w>,
    tokens: Tokens<'w>,
    /// Where escapes are, from the first to the last.
    escapes: Range<usize>,
    everything: Option<u32>,
    into: &'w mut Findings,
}

/// Every function gives the number of the token after what it walked over, or `None` to give up.
impl Walk<'_> {
    #[inline]
    fn found(&mut self, column: u32, kind: Kind, start: usize, end: usize, escaped: bool) {
        // A record is far shorter than 4 GiB; simd-json has refused longer ones.
        self.into.found.push(Found { column, kind, escaped, start: start as u32, end: end as u32 });
    }

    /// Notes a scalar for the column of `place`, and for keywords.
    #[inline]
    fn scalar(&mut self, place: u32, kind: Kind, start: usize, end: usize, escaped: bool) {
        if let Some(column) = self.wanted.schema.column(place) {
            self.found(column, kind, start, end, escaped);
        }
        if let Some(column) = self.everything
            && kind != Kind::Null
        {
            self.found(column, kind, start, end, escaped);
        }
    }

    /// Whether anybody asks for a scalar at `place`.
    #[inline]
    fn is_wanted(&self, place: u32) -> bool {
        self.everything.is_some() || self.wanted.schema.column(place).is_some()
    }

    #[inline]
    fn value(&mut self, number: usize, place: u32, depth: usize) -> Option<usize> {
        let (at, byte) = self.tokens.token(number)?;
        match byte {
            b'"' => {
                if self.is_wanted(place) {
                    let (start, end) = self.tokens.string(number)?;
                    let escaped = self.is_escaped(start, end);
                    self.scalar(place, Kind::Text, start, end, escaped);
                }
                Some(number + 1)
            }
            b'{' | b'[' if place == NOWHERE && self.everything.is_none() && depth > 0 => {
                self.tokens.skip(number, depth, DEPTH_MAX)
            }
            b'{' => self.object(number, place, depth),
            b'[' => self.array(number, place, depth),
            _ => {
                self.atom(at, byte, place)?;
                Some(number + 1)
            }
        }
    }

    #[inline]
    fn is_escaped(&self, start: usize, end: usize) -> bool {
        start < self.escapes.end
            && self.escapes.start < end
            && self.tokens.text.get(start..end).is_some_and(|text| memchr::memchr(b'\\', text).is_some())
    }

    fn object(&mut self, first: usize, place: u32, depth: usize) -> Option<usize> {
        if depth > DEPTH_MAX {
            return None;
        }
        let schema = self.wanted.schema;
        let descend = schema.has_children(place);
        let mut number = first + 1;
        let (_, mut byte) = self.tokens.token(number)?;
        if byte != b'}' {
            loop {
                if byte != b'"' || self.tokens.token(number + 1)?.1 != b':' {
                    return None;
                }
                let mut child = NOWHERE;
                if descend || depth == 0 {
                    let (start, end) = self.tokens.string(number)?;
                    if self.is_escaped(start, end) {
                        return None;
                    }
                    let key = self.tokens.text.get(start..end)?;
                    child = schema.child(place, key);
                    if depth == 0 {
                        self.member(key, number + 2)?;
                    }
                }
                number = self.value(number + 2, child, depth + 1)?;
                match self.tokens.token(number)?.1 {
                    b',' => byte = self.tokens.token(number + 1)?.1,
                    b'}' => break,
                    _ => return None,
                }
                number += 1;
            }
        }
        if let Some(column) = schema.column(place) {
            if schema.wants_text(column) {
                let (start, end) = (self.tokens.token(first)?.0, self.tokens.token(number)?.0 + 1);
                self.check_compact(first, number)?;
                self.found(column, Kind::Object, start, end, false);
            } else {
                self.found(column, Kind::Object, 0, 0, false);
            }
        }
        Some(number + 1)
    }

    /// Notes the text of a member of the whole that was asked for.
    fn member(&mut self, key: &[u8], value: usize) -> Option<()> {
        let Some(asked) = self.wanted.members.iter().position(|name| name.as_bytes() == key) else { return Some(()) };
        let mut text = None;
        if self.tokens.token(value)?.1 == b'"' {
            let (start, end) = self.tokens.string(value)?;
            if self.is_escaped(start, end) {
                return None;
            }
            text = Some((start as u32, end as u32));
        }
        if let Some(slot) = self.into.members.get_mut(asked) {
            *slot = text;
        }
        Some(())
    }

    fn array(&mut self, first: usize, place: u32, depth: usize) -> Option<usize> {
        if depth > DEPTH_MAX {
            return None;
        }
        let mut number = first + 1;
        if self.tokens.token(number)?.1 == b']' {
            if let Some(column) = self.wanted.schema.column(place) {
                self.found(column, Kind::Empty, 0, 0, false);
            }
            return Some(number + 1);
        }
        loop {
            number = self.value(number, place, depth + 1)?;
            match self.tokens.token(number)?.1 {
                b',' => number += 1,
                b']' => return Some(number + 1),
                _ => return None,
            }
        }
    }

    /// Notes the values at the places wanted, for keywords. The text was found to be valid before.
    fn places(&mut self) -> Option<()> {
        let column = self.wanted.schema.everything().filter(|_| self.everything.is_none());
        let (Some(column), places) = (column, self.wanted.places) else { return Some(()) };
        for place in places {
            let Some(number) = self.tokens.begin.partition_point(|at| at <= place).checked_sub(1) else { continue };
            let (at, byte) = self.tokens.token(number)?;
            match byte {
                b'"' if self.tokens.token(number + 1)?.1 != b':' => {
                    let (start, end) = self.tokens.string(number)?;
                    let escaped = self.is_escaped(start, end);
                    self.found(column, Kind::Text, start, end, escaped);
                }
                // A key, or between values.
                b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':' => {}
                _ => match self.tokens.plain(at, byte)? {
                    (_, _, true) => return None,
                    (Kind::Null, _, _) => {}
                    (kind, len, _) => self.found(column, kind, at, at + len, false),
                },
            }
        }
        Some(())
    }

    /// A number, a boolean or null.
    #[inline]
    fn atom(&mut self, at: usize, byte: u8, place: u32) -> Option<()> {
        let (kind, len, decimal) = self.tokens.plain(at, byte)?;
        if decimal && self.is_wanted(place) {
            return None;
        }
        let end = if kind == Kind::Null { at } else { at + len };
        self.scalar(place, kind, at, end, false);
        Some(())
    }

    /// Whether the tokens from `first` to `last` are written as compact JSON writes them.
    fn check_compact(&self, first: usize, last: usize) -> Option<()> {
        for number in first..last {
            let (at, byte) = self.tokens.token(number)?;
            let next = *self.tokens.begin.get(number + 1)? as usize;
            let compact = match byte {
                b'{' | b'}' | b'[' | b']' | b',' | b':' => next == at + 1,
                b'"' => {
                    let text = self.tokens.text.get(at + 1..next)?;
                    let slash = !self.escapes.is_empty() && text.windows(2).any(|pair| pair == b"\\/");
                    text.last() == Some(&b'"') && !slash
                }
                _ => {
                    let text = self.tokens.text.get(at..next)?;
                    !text.iter().any(|byte| matches!(byte, b'.' | b' ' | b'\t' | b'\n' | b'\r'))
                }
            };
            if !compact {
                return None;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
