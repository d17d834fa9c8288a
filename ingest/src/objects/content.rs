//! The content of an object, taken apart while it is read: without its compression, in parts that a request could have
//! had, whatever its size. One part and what is read ahead is all that is in memory.
//!
//! A part is text of one of these forms, told by how the content begins: elements of a list (`{"Records":[…]}`, `[…]`),
//! JSON values one after the other, or lines. Parts follow from the content alone: read again they are the same.

mod inflated;

use std::io::{self, Read};

use bytes::Bytes;

use self::inflated::Content;
use crate::skim;

/// Size from which on a part is complete, bytes. What is smaller as a whole is one part.
pub const PART_BYTES: usize = 1 << 20;
/// Most elements, values or lines of a part.
const PART_ITEMS: usize = 10_000;
/// Largest single item, bytes: as large as a request may be. A larger one is left out, and told.
pub const ITEM_BYTES_MAX: usize = 16 << 20;
/// Largest content of an object without its compression, bytes.
pub const CONTENT_BYTES_MAX: u64 = 16 << 30;
/// Read at a time.
const STEP: usize = 64 << 10;

/// Why an object's content cannot be read (further).
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The store did not give it: it may later.
    #[error("it was not given whole")]
    Store(#[source] io::Error),
    /// It cannot be decompressed.
    #[error("it is not valid {0}, or is cut")]
    Compression(&'static str),
    /// A list in it does not end.
    #[error("it ends in the middle of a list")]
    Cut,
    /// It is larger than what is read.
    #[error("it has more bytes without its compression than are read")]
    Large,
}

impl ContentError {
    /// Whether the same may be read later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Store(_))
    }
}

/// What a reader of stored bytes wraps its errors in, so that they are told from those of decompression.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreTrouble(pub String);

/// A piece of an object's content.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Items, as a request would have them.
    Items(Bytes),
    /// An item that is too large was left out: in words.
    LeftOut(String),
}

/// How the content is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Not known yet.
    Start,
    /// Elements of a list; whether it stands in an object.
    Elements {
        wrapped: bool,
    },
    /// JSON values one after the other, whose lines say nothing.
    Values,
    Lines,
    /// Nothing more that could be items.
    Over,
}

/// Takes the content of an object apart.
pub struct Parts<R: Read> {
    content: Content<R>,
    /// Read, not yet handed out.
    ahead: Vec<u8>,
    end: bool,
    form: Form,
    first: bool,
}

impl<R: Read> std::fmt::Debug for Parts<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Parts").field("form", &self.form).finish_non_exhaustive()
    }
}

impl<R: Read> Parts<R> {
    /// The parts of what `stored` gives, gzip, zstd or plain as its first bytes say.
    #[must_use]
    pub const fn new(stored: R) -> Self {
        Self { content: Content::new(stored), ahead: Vec::new(), end: false, form: Form::Start, first: true }
    }

    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// [`ContentError`]; after one there is nothing more.
    pub fn next_part(&mut self) -> Result<Option<Part>, ContentError> {
        if std::mem::take(&mut self.first) {
            self.fill(PART_BYTES + 1)?;
            if self.end && self.ahead.len() <= PART_BYTES {
                let whole = std::mem::take(&mut self.ahead);
                self.form = Form::Over;
                return Ok((!whole.trim_ascii().is_empty()).then(|| Part::Items(Bytes::from(whole))));
            }
        }
        loop {
            let part = match self.form {
                Form::Start => {
                    self.begin()?;
                    continue;
                }
                Form::Elements { wrapped } => self.elements(wrapped)?,
                Form::Values => self.values()?,
                Form::Lines => self.lines()?,
                Form::Over => {
                    // The hash is over all of it.
                    while !self.end {
                        self.ahead.clear();
                        self.fill(STEP)?;
                    }
                    return Ok(None);
                }
            };
            if part.is_some() {
                return Ok(part);
            }
        }
    }

    /// All of the content.
    ///
    /// # Errors
    /// [`ContentError`], [`ContentError::Large`] beyond `most` bytes.
    pub fn whole(&mut self, most: usize) -> Result<Bytes, ContentError> {
        self.fill(most + 1)?;
        if self.ahead.len() > most {
            return Err(ContentError::Large);
        }
        (self.form, self.first) = (Form::Over, false);
        Ok(Bytes::from(std::mem::take(&mut self.ahead)))
    }

    /// SHA-256 over the content without its compression; `None` before its end was read.
    #[must_use]
    pub fn hash(&self) -> Option<[u8; 32]> {
        if !self.end {
            return None;
        }
        self.content.hash()
    }

    /// Reads until so much is ahead, or to the end.
    fn fill(&mut self, bytes: usize) -> Result<(), ContentError> {
        while !self.end && self.ahead.len() < bytes {
            let before = self.ahead.len();
            self.ahead.resize(before + STEP, 0);
            let read = self.content.read(self.ahead.get_mut(before..).unwrap_or_default());
            let count = *read.as_ref().unwrap_or(&0);
            self.ahead.truncate(before + count);
            self.end = read? == 0;
        }
        Ok(())
    }

    fn drop_ahead(&mut self, bytes: usize) {
        self.ahead.drain(..bytes.min(self.ahead.len()));
    }

    /// Tells the form by how the content goes on.
    fn begin(&mut self) -> Result<(), ContentError> {
        self.fill(PART_BYTES)?;
        let start = skim::skip_space(&self.ahead, 0);
        let start = if self.ahead.get(start..).is_some_and(|rest| rest.starts_with(b"\xef\xbb\xbf")) {
            skim::skip_space(&self.ahead, start + 3)
        } else {
            start
        };
        self.drop_ahead(start);
        self.form = match self.ahead.first() {
            None if self.end => Form::Over,
            None => Form::Start,
            Some(b'[') => {
                self.drop_ahead(1);
                Form::Elements { wrapped: false }
            }
            Some(b'{') => match skim::value_end(&self.ahead, 0) {
                Some(end) if self.ahead.get(..end).is_some_and(|value| value.contains(&b'\n')) => Form::Values,
                Some(_) => Form::Lines,
                None => match list_start(&self.ahead) {
                    Some(at) => {
                        self.drop_ahead(at);
                        Form::Elements { wrapped: true }
                    }
                    None => Form::Values,
                },
            },
            Some(_) => Form::Lines,
        };
        Ok(())
    }

    fn elements(&mut self, wrapped: bool) -> Result<Option<Part>, ContentError> {
        let mut out = Vec::new();
        let mut count = 0;
        let mut at = 0;
        while out.len() < PART_BYTES && count < PART_ITEMS {
            let start = self.ahead.get(at..).unwrap_or_default();
            let start = at + start.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b',').count();
            match self.ahead.get(start) {
                Some(b']') => {
                    // What stands around the list is no item; another document may follow.
                    let mut after = skim::skip_space(&self.ahead, start + 1);
                    if wrapped && self.ahead.get(after) == Some(&b'}') {
                        after = skim::skip_space(&self.ahead, after + 1);
                    }
                    if after == self.ahead.len() && !self.end {
                        self.drop_ahead(start);
                        at = 0;
                        self.fill(self.ahead.len() + STEP)?;
                        continue;
                    }
                    let more = matches!(self.ahead.get(after), None | Some(b'{' | b'['));
                    self.form = if more { Form::Start } else { Form::Over };
                    at = after;
                    break;
                }
                Some(_) => {
                    // A number or a word ends where something else begins, which may not be read yet.
                    let end = skim::value_end(&self.ahead, start).filter(|end| *end < self.ahead.len());
                    if let Some(end) = end.filter(|end| *end > start) {
                        if count > 0 {
                            out.push(b',');
                        }
                        out.extend_from_slice(self.ahead.get(start..end).unwrap_or_default());
                        count += 1;
                        at = end;
                        continue;
                    }
                }
                None => {}
            }
            // It goes on behind what is read.
            if self.end {
                return if count > 0 {
                    self.drop_ahead(at);
                    Ok(Some(list(&out, wrapped)))
                } else {
                    Err(ContentError::Cut)
                };
            }
            self.drop_ahead(start);
            at = 0;
            let ahead = self.ahead.len();
            if ahead > ITEM_BYTES_MAX {
                if count > 0 {
                    return Ok(Some(list(&out, wrapped)));
                }
                let bytes = self.skip_value()?;
                return Ok(Some(Part::LeftOut(format!("an item of {bytes} bytes"))));
            }
            self.fill((ahead * 2).max(STEP))?;
        }
        self.drop_ahead(at);
        Ok((count > 0).then(|| list(&out, wrapped)))
    }

    fn values(&mut self) -> Result<Option<Part>, ContentError> {
        self.fill(PART_BYTES)?;
        let (mut at, mut count) = (0, 0);
        while at < PART_BYTES && count < PART_ITEMS {
            let start = skim::skip_space(&self.ahead, at);
            match skim::value_end(&self.ahead, start) {
                Some(end) if end > start && (end < self.ahead.len() || self.end) => (at, count) = (end, count + 1),
                _ => break,
            }
        }
        if count > 0 {
            return Ok(Some(self.cut(at)));
        }
        if skim::skip_space(&self.ahead, 0) == self.ahead.len() {
            self.ahead.clear();
            if self.end {
                self.form = Form::Over;
            }
            return Ok(None);
        }
        if self.end {
            // It is no JSON any more; a decoder says so.
            let rest = self.ahead.len().min(ITEM_BYTES_MAX);
            return Ok(Some(self.cut(rest)));
        }
        let ahead = self.ahead.len();
        if ahead > ITEM_BYTES_MAX {
            let bytes = self.skip_value()?;
            return Ok(Some(Part::LeftOut(format!("an item of {bytes} bytes"))));
        }
        self.fill(ahead * 2)?;
        Ok(None)
    }

    fn lines(&mut self) -> Result<Option<Part>, ContentError> {
        self.fill(PART_BYTES)?;
        if self.ahead.is_empty() {
            self.form = Form::Over;
            return Ok(None);
        }
        let within = self.ahead.get(..PART_BYTES).unwrap_or(&self.ahead);
        let ends = within.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        if let Some(end) = ends.take(PART_ITEMS).last() {
            return Ok(Some(self.cut(end)));
        }
        // One long line.
        loop {
            if let Some(at) = memchr(&self.ahead) {
                return Ok(Some(self.cut(at + 1)));
            }
            if self.end {
                let rest = self.ahead.len();
                return Ok(Some(self.cut(rest)));
            }
            if self.ahead.len() > ITEM_BYTES_MAX {
                let mut bytes = 0_u64;
                while memchr(&self.ahead).is_none() && !self.end {
                    bytes += self.ahead.len() as u64;
                    self.ahead.clear();
                    self.fill(STEP)?;
                }
                let rest = memchr(&self.ahead).map_or(self.ahead.len(), |at| at + 1);
                self.drop_ahead(rest);
                return Ok(Some(Part::LeftOut(format!("a line of {} bytes", bytes + rest as u64))));
            }
            self.fill(self.ahead.len() * 2)?;
        }
    }

    fn cut(&mut self, at: usize) -> Part {
        let rest = self.ahead.split_off(at.min(self.ahead.len()));
        Part::Items(Bytes::from(std::mem::replace(&mut self.ahead, rest)))
    }

    /// Passes over a value that is not kept, and says how long it was.
    fn skip_value(&mut self) -> Result<u64, ContentError> {
        let (mut bytes, mut depth, mut text, mut escaped) = (0_u64, 0_u64, false, false);
        loop {
            for at in 0..self.ahead.len() {
                let byte = self.ahead.get(at).copied().unwrap_or_default();
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if text => escaped = true,
                    b'"' => text = !text,
                    _ if text => {}
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth > 0 => depth -= 1,
                    // The end of the list it stands in.
                    b'}' | b']' | b',' if depth == 0 => {
                        self.drop_ahead(at);
                        return Ok(bytes + at as u64);
                    }
                    _ => continue,
                }
                if depth == 0 && !text && matches!(byte, b'}' | b']' | b'"') {
                    self.drop_ahead(at + 1);
                    return Ok(bytes + at as u64 + 1);
                }
            }
            bytes += self.ahead.len() as u64;
            self.ahead.clear();
            if self.end {
                return Err(ContentError::Cut);
            }
            self.fill(STEP)?;
        }
    }
}

fn memchr(text: &[u8]) -> Option<usize> {
    text.iter().position(|byte| *byte == b'\n')
}

fn list(elements: &[u8], wrapped: bool) -> Part {
    let (open, close): (&[u8], &[u8]) = if wrapped { (b"{\"Records\":[", b"]}") } else { (b"[", b"]") };
    Part::Items(Bytes::from([open, elements, close].concat()))
}

/// Where the elements begin of an object that begins with a list of items.
fn list_start(object: &[u8]) -> Option<usize> {
    let key = skim::skip_space(object, 1);
    let end = skim::string_end(object, key).filter(|_| object.get(key) == Some(&b'"'))?;
    let named = matches!(object.get(key + 1..end - 1)?, b"Records" | b"records" | b"items");
    let colon = skim::skip_space(object, end);
    let bracket = skim::skip_space(object, colon + 1);
    (named && object.get(colon) == Some(&b':') && object.get(bracket) == Some(&b'[')).then_some(bracket + 1)
}

#[cfg(test)]
mod tests;
