//! Redaction, before anything is written: secrets become `redacted:FAMILY:KEY:FINGERPRINT`, and their value is kept
//! nowhere.
//!
//! The fingerprint is keyed (HMAC-SHA256, 16 bytes), so equal secrets stay recognisable under one key and nothing can
//! be guessed from it without the key. Identifiers that join events ([`Spine`]) are left alone in structured sources;
//! free text, keys, bodies that cannot be decoded, headers and parameters are scanned throughout.

mod detectors;
mod entropy;
mod kubernetes;
mod patterns;
mod pem;
mod spine;
mod walk;
mod wrapped;

#[cfg(test)]
mod again;
#[cfg(test)]
mod measured;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use engine::record::Redacted;
use engine::source::SourceType;
use hmac::{Hmac, Mac};
use pipeproof_engine as engine;
use sha2::{Digest, Sha256};

pub use self::detectors::Family;
use self::detectors::{Detectors, Hit};
pub use self::pem::Carried;
pub(crate) use self::pem::OpenKey;
pub use self::spine::Spine;
use self::walk::Shape;
use crate::skim;

/// How often a text is gone over. Once a secret is replaced, what stood next to it may be another; twice is common, more is
/// made so.
const PASSES_MAX: usize = 8;

/// Finds and replaces secrets under one key.
pub struct Redactor {
    key: [u8; 32],
    key_id: String,
    detectors: Detectors,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Redactor")
            .field("key", &"[redacted]")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Redacted bytes and what was taken out of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    /// Family and fingerprint of each secret, with the place in `bytes` where its placeholder starts (0 in JSON).
    pub(crate) found: Vec<(usize, Family, String)>,
}

impl Redactor {
    /// A redactor with a key of its own.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let digest = Sha256::new_with_prefix(key).chain_update(b"id").finalize();
        let key_id = hex::encode(digest.get(..4).unwrap_or_default());
        Self { key: *key, key_id, detectors: Detectors::new() }
    }

    /// Identifies the key in placeholders: the first 4 bytes of SHA-256 over the key and `id`, hexadecimal.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The keyed fingerprint of a secret: 16 bytes of HMAC-SHA256, hexadecimal.
    #[must_use]
    pub fn fingerprint(&self, secret: &[u8]) -> String {
        // HMAC takes keys of any length.
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        hex::encode(mac.chain_update(secret).finalize().into_bytes().get(..16).unwrap_or_default())
    }

    /// Redacts the body of a record. JSON stays JSON; what is not JSON is redacted as text. Doing it again changes nothing:
    /// it goes on until there is nothing left to find.
    #[must_use]
    pub fn body(&self, kind: SourceType, body: &Bytes) -> (Bytes, Vec<Redacted>) {
        self.body_after(kind, body, &mut OpenKey::default())
    }

    /// The same for a body that others came before: `key` is the private key that they left open, and then the one that
    /// this one does.
    pub(crate) fn body_after(&self, kind: SourceType, body: &Bytes, key: &mut OpenKey) -> (Bytes, Vec<Redacted>) {
        if kind.info().free_text {
            let Some(output) = self.scan_found(body, key) else { return (body.clone(), Vec::new()) };
            return (Bytes::from(output.bytes), summary(output.found.iter()));
        }
        let mut bytes = body.clone();
        let mut found = Vec::new();
        for pass in 0..PASSES_MAX {
            // What goes on from before is gone after the first pass.
            let mut again = OpenKey::default();
            let open = if pass == 0 { &mut *key } else { &mut again };
            let output = self.body_once(kind, &bytes, open);
            if again.is_open() {
                *key = again;
            }
            let Some(output) = output else {
                return (bytes, summary(found.iter()));
            };
            bytes = Bytes::from(output.bytes);
            found.extend(output.found);
        }
        let whole = self.whole(&bytes, &mut found);
        (Bytes::from(format!("\"{whole}\"")), summary(found.iter()))
    }

    /// One pass over a body; none if it found nothing.
    fn body_once(&self, kind: SourceType, body: &Bytes, key: &mut OpenKey) -> Option<Output> {
        let shape = Shape {
            spine: Spine::of(kind),
            secrets: kubernetes::secrets(kind, body),
            found_secrets: found_secrets(kind, body),
        };
        // An escape can hide a keyword; only these two can stand for a character that secrets are made of.
        let escaped = body.windows(2).any(|pair| pair == b"\\u" || pair == b"\\/");
        let plain = shape.secrets.is_empty() && shape.found_secrets.is_empty() && !escaped && !body.contains(&0);
        if plain && !key.is_open() && !self.suspects(body) {
            return None;
        }
        let mut text_key = key.clone();
        let mut output = walk::redact(self, body, shape, key);
        if serde_json::from_slice::<serde::de::IgnoredAny>(&output.bytes).is_err() {
            // Not JSON: strings may not be where they seem to be. Once more as text, escapes undone if one hid something.
            let mut unescaped_key = text_key.clone();
            let more = self.scan_found(&output.bytes, &mut text_key);
            let unescaped =
                || if escaped { self.scan_found(&skim::unescape(&output.bytes), &mut unescaped_key) } else { None };
            if let Some(more) = more.or_else(unescaped) {
                output.bytes = more.bytes;
                output.found.extend(more.found);
            }
            if !key.is_open() && text_key.is_open() {
                text_key.began_at(String::new);
                *key = text_key;
            }
        }
        (!output.found.is_empty()).then_some(output)
    }

    /// Redacts free text. Doing it again changes nothing.
    #[must_use]
    pub fn text(&self, text: &Bytes) -> (Bytes, Vec<Redacted>) {
        match self.scan_found(text, &mut OpenKey::default()) {
            Some(output) => (Bytes::from(output.bytes), summary(output.found.iter())),
            None => (text.clone(), Vec::new()),
        }
    }

    /// Redacts attributes in place and returns what was found in them.
    pub fn attributes(&self, attributes: &mut BTreeMap<String, String>) -> Vec<Redacted> {
        let mut found = Vec::new();
        for value in attributes.values_mut() {
            if let Some(output) = self.scan_found(value.as_bytes(), &mut OpenKey::default()) {
                found.extend(output.found);
                *value = String::from_utf8_lossy(&output.bytes).into_owned();
            }
        }
        summary(found.iter())
    }

    pub(crate) fn suspects(&self, text: &[u8]) -> bool {
        self.detectors.suspects(text)
    }

    pub(crate) fn scan_text(&self, text: &[u8], key: &mut OpenKey) -> Output {
        self.scan_found(text, key).unwrap_or_else(|| Output { bytes: text.to_vec(), found: Vec::new() })
    }

    /// Redacts a text until there is nothing left to find: what was next to a secret may be another one without it. None if
    /// nothing was found.
    fn scan_found(&self, text: &[u8], key: &mut OpenKey) -> Option<Output> {
        let mut output: Option<Output> = None;
        for _ in 0..PASSES_MAX {
            let bytes = output.as_ref().map_or(text, |output| output.bytes.as_slice());
            // What goes on from before is gone after the first pass.
            let mut again = OpenKey::default();
            let (plain, hits) = self.detectors.look(bytes, if output.is_none() { &mut *key } else { &mut again });
            if again.is_open() {
                *key = again;
            }
            if hits.is_empty() {
                return output;
            }
            let mut found = output.as_mut().map(|output| std::mem::take(&mut output.found)).unwrap_or_default();
            let bytes = plain.as_deref().or(output.as_ref().map(|output| output.bytes.as_slice())).unwrap_or(text);
            let bytes = self.apply(bytes, &hits, &mut found);
            output = Some(Output { bytes, found });
        }
        let mut output = output?;
        output.bytes = self.whole(&output.bytes, &mut output.found).into_bytes();
        output.found.iter_mut().for_each(|(place, _, _)| *place = 0);
        Some(output)
    }

    /// The text with its hits replaced; what was found is added to `found`, what is in there moves along.
    fn apply(&self, text: &[u8], hits: &[Hit], found: &mut Vec<(usize, Family, String)>) -> Vec<u8> {
        let before = found.len();
        let mut bytes = Vec::with_capacity(text.len() + 64 * hits.len());
        let mut copied = 0;
        let mut moved = Vec::with_capacity(hits.len());
        for hit in hits {
            bytes.extend_from_slice(text.get(copied..hit.range.start).unwrap_or_default());
            copied = hit.range.end;
            let start = bytes.len();
            let first = found.len();
            bytes.extend_from_slice(self.placeholder(hit, found).as_bytes());
            found.iter_mut().skip(first).for_each(|(place, _, _)| *place = start);
            moved.push((&hit.range, start..bytes.len()));
        }
        bytes.extend_from_slice(text.get(copied..).unwrap_or_default());
        for (place, _, _) in found.iter_mut().take(before) {
            let after = moved.partition_point(|(from, _)| from.start <= *place);
            let Some((from, to)) = after.checked_sub(1).and_then(|last| moved.get(last)) else { continue };
            *place = if *place < from.end { to.start } else { *place - from.end + to.end };
        }
        // Zeros that went before it moved a place further still.
        let last = bytes.len().saturating_sub(1);
        found.iter_mut().for_each(|(place, _, _)| *place = last.min(*place));
        bytes
    }

    /// What stands where the hit was. A wrapped text that held several secrets shows the first.
    fn placeholder(&self, hit: &Hit, found: &mut Vec<(usize, Family, String)>) -> String {
        let mut shown = None;
        for (family, secret) in &hit.found {
            let fingerprint = self.fingerprint(secret);
            shown.get_or_insert_with(|| format!("redacted:{}:{}:{fingerprint}", family.name(), self.key_id));
            found.push((0, *family, fingerprint));
        }
        shown.unwrap_or_default()
    }

    /// What stands for a text in which there always is one more secret once those that were found have gone. Only what is
    /// made so does that, and it must not cost a pass for each.
    fn whole(&self, text: &[u8], found: &mut Vec<(usize, Family, String)>) -> String {
        let family = found.last().map_or(Family::ScannerFinding, |(_, family, _)| *family);
        self.placeholder(&Hit { range: 0..text.len(), found: vec![(family, text.to_vec())] }, found)
    }
}

/// Where a scanner for secrets shows what it found, by ends of paths. Of SARIF only its logs: elsewhere a snippet is the
/// code in question.
fn found_secrets(kind: SourceType, body: &[u8]) -> &'static [&'static str] {
    let by = |tool: &[u8]| body.windows(tool.len()).any(|window| window.eq_ignore_ascii_case(tool));
    match kind {
        SourceType::Gitleaks => &["Secret", "Match", "Line"],
        SourceType::Sarif if by(b"gitleaks") || by(b"trufflehog") => &["snippet.text"],
        _ => &[],
    }
}

/// Adds up what was found, sorted.
pub(crate) fn summary<'a>(found: impl Iterator<Item = &'a (usize, Family, String)>) -> Vec<Redacted> {
    let mut counts: BTreeMap<(&'static str, &str), u32> = BTreeMap::new();
    for (_, family, fingerprint) in found {
        let count = counts.entry((family.name(), fingerprint.as_str())).or_default();
        *count = count.saturating_add(1);
    }
    let redacted = counts.into_iter().map(|((family, fingerprint), count)| Redacted {
        family: family.to_owned(),
        fingerprint: fingerprint.to_owned(),
        count,
    });
    redacted.collect()
}

/// Puts two summaries together.
pub(crate) fn join(mut one: Vec<Redacted>, other: Vec<Redacted>) -> Vec<Redacted> {
    for item in other {
        match one.iter_mut().find(|known| known.family == item.family && known.fingerprint == item.fingerprint) {
            Some(known) => known.count = known.count.saturating_add(item.count),
            None => one.push(item),
        }
    }
    one.sort();
    one
}
