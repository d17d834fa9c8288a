//! Private keys in PEM (RFC 7468), which go over lines: inside one text, with whatever a log writes before each line, and
//! over texts of which each holds a line or a few.
//!
//! A line is known by the material in it, not by the form of what stands before it: every log has a prefix of its own.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::detectors::{Family, Hit};

/// How far a key may reach, bytes, with all that stands before its lines.
const BYTES_MAX: usize = 64 << 10;
/// Most lines in a row inside a key that are none of its own: headers of encrypted keys, and what others wrote meanwhile.
const FOREIGN_MAX: usize = 8;
/// Most strings of other members between the first line of a key and its end: each is asked for its place.
const PASSED_MAX: usize = 20_000;
/// A run of base64 of this length is material; digests are told apart by their sixteen digits.
const RUN_CHARS_MIN: usize = 40;
/// So is a shorter one of at least this length that has letters of both cases and digits, before an end marker or right behind
/// the beginning.
const MIXED_CHARS_MIN: usize = 16;
/// How much of its material names a key. Headers of all formats are shorter, and two lines are not: so a key has the same
/// fingerprint whole, in lines of any length, and from its second line on where each line is a text of its own.
const NAMED_BY: usize = 128;
const END: &[u8] = b"-----END ";
const BEGIN: &[u8] = b"-----BEGIN ";

/// A private key whose end was not seen yet.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct OpenKey {
    /// Bytes in which it has to end; none is open at 0.
    left: usize,
    /// Lines in a row that were not its own.
    foreign: usize,
    /// Where the material starts in a line.
    column: usize,
    /// In which member of a JSON text it stands, once that is known; empty outside of any.
    path: Option<String>,
    /// How many strings of other members came since.
    passed: usize,
    /// The first of its material.
    named: Vec<u8>,
}

impl fmt::Debug for OpenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OpenKey").field("left", &self.left).field("path", &self.path).finish_non_exhaustive()
    }
}

impl OpenKey {
    fn begun(column: usize) -> Self {
        Self { left: BYTES_MAX, column, ..Self::default() }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.left > 0
    }

    /// Whether what stands at `path` may go on with it. Outside of any member it may: a text that was cut has lost its quotes.
    pub(crate) fn goes_on_at(&mut self, path: &str) -> bool {
        if path.is_empty() || self.path.as_deref().is_none_or(|known| known == path) {
            return self.is_open();
        }
        self.passed += 1;
        if self.passed > PASSED_MAX {
            self.left = 0;
        }
        false
    }

    /// Remembers where it began, unless that is known.
    pub(crate) fn began_at(&mut self, path: impl FnOnce() -> String) {
        if self.is_open() && self.path.is_none() {
            self.path = Some(path());
        }
    }
}

/// A private key that what came before on the same connection or in the same file left open. What is read here counts only
/// once [`Carried::next`] says so: what could not be kept is tried again.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    before: OpenKey,
    after: Arc<Mutex<OpenKey>>,
}

impl Carried {
    /// For what comes next, once this was kept.
    #[must_use]
    pub fn next(&self) -> Self {
        let before = self.after.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { before, after: Arc::default() }
    }

    /// Whether a key is open.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.before.is_open()
    }

    pub(crate) fn before(&self) -> OpenKey {
        self.before.clone()
    }

    pub(crate) fn leave(&self, key: OpenKey) {
        *self.after.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }
}

/// Finds private keys, the rest of an open one first. `begins` are the places of begin markers, in order.
pub(super) fn scan(text: &[u8], begins: impl Iterator<Item = Range<usize>>, key: &mut OpenKey, hits: &mut Vec<Hit>) {
    let mut done = 0;
    if key.is_open() {
        let range = follow(text, key);
        done = range.end;
        push(hits, range, key);
    }
    for begin in begins {
        if begin.start < done {
            continue;
        }
        let before = text.get(..begin.start).unwrap_or_default();
        let line = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        *key = OpenKey::begun(begin.start - line);
        let rest = follow(text.get(begin.end..).unwrap_or_default(), key);
        // A marker alone is none.
        if !rest.is_empty() {
            done = begin.end + rest.end;
            push(hits, begin.start..done, key);
        }
    }
}

fn push(hits: &mut Vec<Hit>, range: Range<usize>, key: &OpenKey) {
    if !range.is_empty() {
        hits.push(Hit { range, found: vec![(Family::PrivateKey, key.named.clone())] });
    }
}

/// What of a text belongs to a key: from its first material to the last, or to the end marker. Nothing if that is no material.
fn follow(text: &[u8], key: &mut OpenKey) -> Range<usize> {
    let window = text.get(..key.left).unwrap_or(text);
    let other = memchr::memmem::find(window, BEGIN);
    let window = window.get(..other.unwrap_or(window.len())).unwrap_or(window);
    key.left = if other.is_some() { 0 } else { key.left - window.len() };
    // With the end in sight, lines of any width are the key's.
    let ends = memchr::memmem::find(window, END).is_some();
    let (mut first, mut last) = (None, 0);
    // Whether the line before was the key's: only then a short one can be its last.
    let mut own = key.foreign == 0;
    let mut start = 0;
    while start < window.len() {
        let (len, next) = line(window.get(start..).unwrap_or_default());
        let bytes = window.get(start..start + len).unwrap_or_default();
        let end_marker = memchr::memmem::find(bytes, END);
        let bytes = bytes.get(..end_marker.unwrap_or(len)).unwrap_or_default();
        let of = |run: &Range<usize>| bytes.get(run.clone()).unwrap_or_default();
        let mut material: Vec<_> = runs(bytes).filter(|run| is_long(of(run)) || (ends && is_mixed(of(run)))).collect();
        let long = !material.is_empty();
        if !long && own && end_marker.is_none() {
            material.extend(short(bytes, key.column).filter(|run| !key.named.is_empty() || is_mixed(of(run))));
        }
        for run in &material {
            first.get_or_insert(start + run.start);
            last = start + run.end;
            let room = NAMED_BY.saturating_sub(key.named.len());
            key.named.extend(of(run).iter().filter(|byte| **byte != b'=').take(room));
        }
        if let Some(run) = material.first().filter(|_| long) {
            key.column = run.start;
            (key.foreign, own) = (0, true);
        } else if end_marker.is_none() && !bytes.trim_ascii().is_empty() {
            (key.foreign, own) = (key.foreign + 1, false);
        }
        if let Some(at) = end_marker {
            key.left = 0;
            let tail = window.get(start + at + END.len()..).unwrap_or_default();
            let tail = tail.get(..60).unwrap_or(tail);
            let close = tail.windows(5).position(|window| window == b"-----").map_or(0, |close| close + 5);
            // Of a key that is short, or whose lines went before, the marker alone is left: it says nothing.
            return first.map_or(0..0, |first| first..start + at + END.len() + close);
        }
        if key.foreign > FOREIGN_MAX {
            key.left = 0;
            break;
        }
        start += next;
    }
    first.map_or(0..0, |first| first..last)
}

/// Length of the first line, and where the next one starts. A line also ends where a break is written as an escape, however
/// often the text was quoted: no material holds a backslash.
fn line(text: &[u8]) -> (usize, usize) {
    let mut at = 0;
    while let Some(found) = memchr::memchr3(b'\n', b'\r', b'\\', text.get(at..).unwrap_or_default()) {
        let end = at + found;
        if text.get(end) != Some(&b'\\') {
            return (end, end + 1);
        }
        let slashes = text.get(end..).unwrap_or_default().iter().take_while(|byte| **byte == b'\\').count();
        if matches!(text.get(end + slashes), Some(b'n' | b'r')) {
            return (end, end + slashes + 1);
        }
        at = end + slashes;
    }
    (text.len(), text.len())
}

/// Runs of base64 with their padding. What colours a text is none.
fn runs(line: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = line.get(at..).filter(|rest| !rest.is_empty())?;
            if rest.starts_with(b"\x1b[") {
                let codes = rest.iter().skip(2).take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
                at += 3 + codes;
                continue;
            }
            let chars = rest.iter().take_while(|byte| is_base64(**byte)).count();
            if chars == 0 {
                at += 1;
                continue;
            }
            let padding = rest.iter().skip(chars).take(2).take_while(|byte| **byte == b'=').count();
            let run = at..at + chars + padding;
            at = run.end;
            return Some(run);
        }
    })
}

const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

fn is_long(run: &[u8]) -> bool {
    run.len() >= RUN_CHARS_MIN && !run.iter().all(u8::is_ascii_hexdigit)
}

fn is_mixed(run: &[u8]) -> bool {
    let has = |is: fn(&u8) -> bool| run.iter().any(is);
    run.len() >= MIXED_CHARS_MIN
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_digit)
}

/// The last line of a key, or what of it came before a text was cut: a run that starts where the others did, and nothing
/// behind it.
fn short(line: &[u8], column: usize) -> Option<Range<usize>> {
    let run = runs(line.get(column..)?).next().filter(|run| run.start == 0)?;
    let end = column + run.end;
    let rest = line.get(end..).unwrap_or_default();
    rest.iter().all(|byte| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b',')).then_some(column..end)
}

#[cfg(test)]
mod tests;
