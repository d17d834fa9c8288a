//! Redaction of JSON text: each string is read without its escapes, so that `ghp_` and `\u0067hp_` are the same secret,
//! and only strings that held one are written anew. Everything else stays byte for byte.
//!
//! The walk goes by brackets and quotes alone and does not recurse: what is not valid JSON is walked too, and what stands
//! outside strings is scanned as free text.

use std::borrow::Cow;
use std::ops::Range;

use super::detectors::{Family, Hit};
use super::kubernetes::Place;
use super::pem::OpenKey;
use super::spine::Spine;
use super::{Output, Redactor};
use crate::skim;

/// What is known about a JSON body before it is walked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) spine: Spine,
    /// Where Kubernetes Secrets are, if the record is about any: their content goes whatever it looks like.
    pub(super) secrets: &'static [Place],
    /// Ends of the paths under which a scanner shows the secrets it found: they go whatever they look like.
    pub(crate) found_secrets: &'static [&'static str],
}

struct Level {
    object: bool,
    /// Raw key of the member being read; in an array, of the member the array is in.
    key: Range<usize>,
    key_next: bool,
}

/// Deepest level whose path can be one of the spine: none that is declared goes deeper.
const PATH_LEVELS_MAX: usize = 32;
/// Deepest level that is kept apart from those below it: what is nested deeper is decoded by nobody, and must not cost
/// memory for each bracket.
const LEVELS_MAX: usize = 1024;
/// Longest key that can be a name we know, escapes included. A longer one must not be read again for each of its values.
const KEY_BYTES_MAX: usize = 512;

struct Walk<'a> {
    redactor: &'a Redactor,
    shape: Shape,
    /// The private key that is open where the walk is: arrays and records hold its lines one by one.
    open_key: &'a mut OpenKey,
    text: &'a [u8],
    levels: Vec<Level>,
    /// Levels below the last one kept; they share it.
    beyond: usize,
    out: Output,
    /// Up to where `text` was copied to `out`.
    copied: usize,
}

/// Redacts a JSON body. `open_key` is the private key that the body before left open, and then the one that this one does.
pub(crate) fn redact(redactor: &Redactor, text: &[u8], shape: Shape, open_key: &mut OpenKey) -> Output {
    let out = Output::default();
    let mut walk = Walk { redactor, shape, open_key, text, levels: Vec::new(), beyond: 0, out, copied: 0 };
    walk.run();
    walk.copy_to(text.len());
    walk.out
}

impl Walk<'_> {
    fn run(&mut self) {
        let mut at = 0;
        let mut gap = 0;
        while let Some(byte) = self.text.get(at) {
            match byte {
                b'"' => {
                    self.loose(gap..at);
                    let end = skim::string_end(self.text, at).unwrap_or(self.text.len());
                    at = self.string(at..end.min(self.text.len()));
                    gap = at;
                    continue;
                }
                b'{' => self.open(true),
                b'[' => self.open(false),
                b'}' | b']' if self.beyond > 0 => self.beyond -= 1,
                b'}' | b']' => drop(self.levels.pop()),
                b',' => {
                    if let Some(level) = self.levels.last_mut() {
                        level.key_next = level.object;
                    }
                }
                b':' => {
                    if let Some(level) = self.levels.last_mut() {
                        level.key_next = false;
                    }
                    if !self.shape.secrets.is_empty() && self.is_secret_content() {
                        let start = skim::skip_space(self.text, at + 1);
                        if let Some(end) = self.content_end(start).filter(|end| *end > start) {
                            self.replace_whole(start..end);
                            (at, gap) = (end, end);
                            continue;
                        }
                    }
                }
                _ => {}
            }
            at += 1;
        }
        self.loose(gap..self.text.len());
    }

    fn open(&mut self, object: bool) {
        if self.levels.len() > LEVELS_MAX {
            self.beyond += 1;
            if let Some(shared) = self.levels.last_mut() {
                shared.key_next = object;
            }
            return;
        }
        let key = self.levels.last().filter(|_| !object).map_or(0..0, |level| level.key.clone());
        // The last one kept stands for objects and arrays alike.
        let shared = self.levels.len() == LEVELS_MAX;
        self.levels.push(Level { object: object || shared, key, key_next: object });
    }

    /// Where content that starts at `start` ends. In a text that is cut it goes to the end.
    fn content_end(&self, start: usize) -> Option<usize> {
        let cut = matches!(self.text.get(start), Some(b'"' | b'{' | b'[')).then_some(self.text.len());
        skim::value_end(self.text, start).map(|end| end.min(self.text.len())).or(cut)
    }

    /// The key of a level without its escapes; empty if it is too long to be one we know.
    fn key(&self, level: &Level) -> Cow<'_, [u8]> {
        let raw = self.text.get(level.key.clone()).filter(|raw| raw.len() <= KEY_BYTES_MAX);
        skim::unescape(raw.unwrap_or_default())
    }

    /// What stands between strings: numbers and punctuation, unless it is not JSON.
    fn loose(&mut self, range: Range<usize>) {
        let between = self.text.get(range.clone()).unwrap_or_default();
        if between.len() < 16 || between.iter().all(|byte| byte.is_ascii_whitespace() || b"{}[],:".contains(byte)) {
            return;
        }
        let hits = self.redactor.detectors.scan(between, self.open_key);
        self.open_key.began_at(String::new);
        for hit in hits {
            self.copy_to(range.start + hit.range.start);
            self.copied = range.start + hit.range.end;
            let placeholder = self.redactor.placeholder(&hit, &mut self.out.found);
            self.out.bytes.extend_from_slice(placeholder.as_bytes());
        }
    }

    /// Reads the string in `range`, quotes included, and returns where to go on.
    fn string(&mut self, range: Range<usize>) -> usize {
        let end = range.end;
        let whole = self.text.get(range.clone()).unwrap_or_default();
        let inner = match whole {
            [b'"', inner @ .., b'"'] => inner,
            // It does not end.
            [b'"', inner @ ..] => inner,
            _ => whole,
        };
        let key = self.levels.last().is_some_and(|level| level.object && level.key_next);
        if key && let Some(level) = self.levels.last_mut() {
            level.key = range.start + 1..range.start + 1 + inner.len();
        }
        let text = skim::unescape(inner);
        let (plain, mut hits) = self.look(&text, key);
        let text = plain.map_or(text, Cow::Owned);
        if !key && let Some(hit) = self.named(&text).or_else(|| self.found_by_scanner(&text, &hits)) {
            hits = vec![hit];
        }
        if hits.is_empty() {
            return end;
        }
        let path = self.path();
        hits.retain(|hit| key || !hit.found.iter().all(|(family, _)| self.shape.spine.keeps(&path, *family)));
        if hits.is_empty() {
            return end;
        }
        self.copy_to(range.start);
        self.copied = end;
        let mut found = Vec::new();
        let redacted = self.redactor.apply(&text, &hits, &mut found);
        self.out.found.extend(found);
        write_string(&mut self.out.bytes, &redacted);
        end
    }

    /// What is in a string. One that stands elsewhere than the open private key is none of its lines.
    fn look(&mut self, text: &[u8], key: bool) -> (Option<Vec<u8>>, Vec<Hit>) {
        let detectors = &self.redactor.detectors;
        if self.open_key.is_open() {
            let path = self.path();
            if !key && self.open_key.goes_on_at(&path) {
                let found = detectors.look(text, self.open_key);
                self.open_key.began_at(|| path);
                return found;
            }
        }
        let mut other = OpenKey::default();
        let found = detectors.look(text, &mut other);
        if other.is_open() && !key {
            other.began_at(|| self.path());
            *self.open_key = other;
        }
        found
    }

    /// A value that is a secret by the name of its member.
    fn named(&self, text: &[u8]) -> Option<Hit> {
        let mut name = self.key(self.levels.last()?).to_ascii_lowercase();
        name.retain(|byte| byte.is_ascii_alphanumeric());
        let (family, min) = match name.as_slice() {
            b"secretaccesskey" | b"awssecretaccesskey" => (Family::AwsSecretKey, 30),
            b"sessiontoken" | b"awssessiontoken" | b"xamzsecuritytoken" => (Family::AwsSessionToken, 64),
            b"authorization" | b"proxyauthorization" => (Family::AuthorizationHeader, 8),
            _ => return None,
        };
        if text.len() < min || text.starts_with(b"hmac-sha256:") || self.redactor.detectors.is_redacted(text) {
            return None;
        }
        // A key or token is one word; a header may name its scheme first.
        let word = text.iter().all(u8::is_ascii_graphic);
        let secret = word || family == Family::AuthorizationHeader;
        secret.then(|| Hit { range: 0..text.len(), found: vec![(family, text.to_vec())] })
    }

    /// A value that a scanner says is a secret, or holds one. What is known by its looks is named after that; stars are what
    /// the scanner masked itself.
    fn found_by_scanner(&self, text: &[u8], hits: &[Hit]) -> Option<Hit> {
        if self.shape.found_secrets.is_empty()
            || text.iter().all(|byte| *byte == b'*')
            || self.redactor.detectors.is_redacted(text)
            || hits.iter().any(|hit| hit.range == (0..text.len()))
        {
            return None;
        }
        let path = self.path();
        let ends = |end: &&str| path.strip_suffix(end).is_some_and(|head| head.is_empty() || head.ends_with('.'));
        self.shape.found_secrets.iter().find(|end| ends(end))?;
        Some(Hit { range: 0..text.len(), found: vec![(Family::ScannerFinding, text.to_vec())] })
    }

    /// Whether the member just named holds content of the Kubernetes Secret the record is about.
    fn is_secret_content(&self) -> bool {
        let Some(last) = self.levels.last().filter(|level| level.object) else { return false };
        let inside = |place: &Place| {
            self.levels.len() > place.len()
                && self.levels.iter().zip(*place).all(|(level, key)| self.key(level).as_ref() == key.as_bytes())
        };
        self.shape.secrets.iter().any(inside)
            && matches!(
                self.key(last).as_ref(),
                b"data" | b"stringData" | b"value" | b"kubectl.kubernetes.io/last-applied-configuration"
            )
    }

    fn replace_whole(&mut self, range: Range<usize>) {
        let content = self.text.get(range.clone()).unwrap_or_default();
        if matches!(content, b"null" | b"{}" | b"\"\"") {
            return;
        }
        if let [b'"', inner @ .., b'"'] = content
            && self.redactor.detectors.is_redacted(inner)
        {
            return;
        }
        self.copy_to(range.start);
        self.copied = range.end;
        let hit = Hit { range: 0..content.len(), found: vec![(Family::KubernetesSecret, content.to_vec())] };
        let placeholder = self.redactor.placeholder(&hit, &mut self.out.found);
        write_string(&mut self.out.bytes, placeholder.as_bytes());
    }

    /// Keys from the root, joined with dots.
    fn path(&self) -> String {
        if self.levels.len() > PATH_LEVELS_MAX || self.levels.iter().any(|level| level.key.len() > KEY_BYTES_MAX) {
            return String::new();
        }
        let keys = self.levels.iter().filter(|level| level.object).map(|level| self.key(level));
        let keys: Vec<String> = keys.map(|key| String::from_utf8_lossy(&key).into_owned()).collect();
        keys.join(".")
    }

    fn copy_to(&mut self, at: usize) {
        self.out.bytes.extend_from_slice(self.text.get(self.copied..at).unwrap_or_default());
        self.copied = at;
    }
}

/// Writes a JSON string. Bytes that are not UTF-8 stay as they are: the text was not JSON before either.
fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control if *control < 0x20 => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
            other => out.push(*other),
        }
    }
    out.push(b'"');
}
