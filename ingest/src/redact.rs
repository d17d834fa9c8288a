//! Redaction, before anything is written: secrets become `redacted:FAMILY:KEY:FINGERPRINT`, and their value is kept
//! nowhere.
//!
//! The fingerprint is keyed (HMAC-SHA256, 16 bytes), so equal secrets stay recognisable under one key and nothing can
//! be guessed from it without the key. Identifiers that join events ([`Spine`]) are left alone in structured sources;
//! free text, keys, bodies that cannot be decoded, headers and parameters are scanned throughout.

mod detectors;
mod kubernetes;
mod spine;
mod walk;
mod wrapped;

#[cfg(test)]
mod measured;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
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
pub use self::spine::Spine;
use self::walk::Shape;
use crate::skim;

/// Types whose records hold secrets in members named `Secret` and `Match`.
const REPORTS: &[&str] = &["gitleaks"];

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

    /// Redacts the body of a record. JSON stays JSON; what is not JSON is redacted as text.
    #[must_use]
    pub fn body(&self, kind: SourceType, body: &Bytes) -> (Bytes, Vec<Redacted>) {
        if kind.info().free_text {
            return self.text(body);
        }
        let shape = Shape {
            spine: Spine::of(kind),
            secrets: kubernetes::secrets(kind, body),
            reports_secrets: REPORTS.contains(&kind.name()),
        };
        // An escape can hide a keyword; only these two can stand for a character that secrets are made of.
        let escaped = body.windows(2).any(|pair| pair == b"\\u" || pair == b"\\/");
        let plain = shape.secrets.is_empty() && !shape.reports_secrets && !escaped && !body.contains(&0);
        if plain && !self.suspects(body) {
            return (body.clone(), Vec::new());
        }
        let mut output = walk::redact(self, body, shape);
        if serde_json::from_slice::<serde::de::IgnoredAny>(&output.bytes).is_err() {
            // Not JSON: strings may not be where they seem to be. Once more as text, escapes undone if one hid something.
            let mut more = self.scan_text(&output.bytes);
            if escaped && more.found.is_empty() {
                let plain = skim::unescape(&output.bytes);
                let unescaped = self.scan_text(&plain);
                if !unescaped.found.is_empty() {
                    more = unescaped;
                }
            }
            output.bytes = more.bytes;
            output.found.extend(more.found);
        }
        let redacted = summary(output.found.iter().map(|(_, family, fingerprint)| (*family, fingerprint.as_str())));
        if redacted.is_empty() { (body.clone(), redacted) } else { (Bytes::from(output.bytes), redacted) }
    }

    /// Redacts free text.
    #[must_use]
    pub fn text(&self, text: &Bytes) -> (Bytes, Vec<Redacted>) {
        if !self.suspects(text) && !text.contains(&0) {
            return (text.clone(), Vec::new());
        }
        let output = self.scan_text(text);
        if output.found.is_empty() {
            return (text.clone(), Vec::new());
        }
        let redacted = summary(output.found.iter().map(|(_, family, fingerprint)| (*family, fingerprint.as_str())));
        (Bytes::from(output.bytes), redacted)
    }

    /// Redacts attributes in place and returns what was found in them.
    pub fn attributes(&self, attributes: &mut BTreeMap<String, String>) -> Vec<Redacted> {
        let mut found = Vec::new();
        for value in attributes.values_mut() {
            if self.suspects(value.as_bytes()) {
                let output = self.scan_text(value.as_bytes());
                found.extend(output.found);
                *value = String::from_utf8_lossy(&output.bytes).into_owned();
            }
        }
        summary(found.iter().map(|(_, family, fingerprint)| (*family, fingerprint.as_str())))
    }

    pub(crate) fn suspects(&self, text: &[u8]) -> bool {
        self.detectors.suspects(text)
    }

    pub(crate) fn scan_text(&self, text: &[u8]) -> Output {
        let mut output = Output::default();
        output.bytes = self.apply(text, &self.detectors.scan(text), &mut output).into_owned();
        if output.bytes.contains(&0) {
            // UTF-16, as PowerShell writes files: every second byte of what secrets are made of is zero.
            let plain: Vec<u8> = output.bytes.iter().copied().filter(|byte| *byte != 0).collect();
            let hits = self.detectors.scan(&plain);
            if !hits.is_empty() {
                output.bytes = self.apply(&plain, &hits, &mut output).into_owned();
                let last = output.bytes.len().saturating_sub(1);
                output.found.iter_mut().for_each(|(place, _, _)| *place = last.min(*place));
            }
        }
        output
    }

    /// The text with its hits replaced; what was found is added to `output`, whose bytes are not touched.
    fn apply<'a>(&self, text: &'a [u8], hits: &[Hit], output: &mut Output) -> Cow<'a, [u8]> {
        if hits.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut bytes = Vec::with_capacity(text.len() + 64);
        let mut copied = 0;
        for hit in hits {
            bytes.extend_from_slice(text.get(copied..hit.range.start).unwrap_or_default());
            copied = hit.range.end;
            let first = output.found.len();
            let placeholder = self.placeholder(hit, output);
            output.found.iter_mut().skip(first).for_each(|(place, _, _)| *place = bytes.len());
            bytes.extend_from_slice(placeholder.as_bytes());
        }
        bytes.extend_from_slice(text.get(copied..).unwrap_or_default());
        Cow::Owned(bytes)
    }

    /// What stands where the hit was. A wrapped text that held several secrets shows the first.
    fn placeholder(&self, hit: &Hit, output: &mut Output) -> String {
        let mut shown = None;
        for (family, secret) in &hit.found {
            let fingerprint = self.fingerprint(secret);
            shown.get_or_insert_with(|| format!("redacted:{}:{}:{fingerprint}", family.name(), self.key_id));
            output.found.push((0, *family, fingerprint));
        }
        shown.unwrap_or_default()
    }
}

/// Adds up what was found, sorted.
pub(crate) fn summary<'a>(found: impl Iterator<Item = (Family, &'a str)>) -> Vec<Redacted> {
    let mut counts: BTreeMap<(&'static str, &str), u32> = BTreeMap::new();
    for (family, fingerprint) in found {
        let count = counts.entry((family.name(), fingerprint)).or_default();
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
