//! From a request to records: who sent it, what is in it, without its secrets.
//!
//! Framework independent: the binary hands over headers, query and body, and turns a [`Refusal`] into a response.
//! A refusal is for what the sender can mend. Content that merely cannot be understood is not refused: it becomes a
//! record, and a dead letter when it is decoded, because providers disable webhooks that answer with errors.

mod identity;
pub(crate) mod oversize;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::json::check_depth;
use engine::record::{Authenticity, CollectionMode, Envelope, Record, RecordError, Redacted};
use engine::source::SourceType;
use engine::time::Timestamp;
use http::HeaderMap;
use pipeproof_engine as engine;
use rand::TryRngCore;
use rand::rngs::OsRng;

pub use crate::authentic::Secret;
use crate::authentic::github_signature;
pub use crate::limits::Limits;
use crate::limits::{Coding, inflate};
use crate::redact::{Redactor, join, summary};
use crate::unwrap;

/// What is set about a source.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Its name, as in the URL.
    pub name: String,
    /// Its type.
    pub source_type: SourceType,
    /// Its labels; they travel in every record as `label.NAME`.
    pub labels: BTreeMap<String, String>,
    /// Secrets that sign its requests; all of them are accepted, so that they can be rotated.
    pub secrets: Vec<Secret>,
    /// From when on it is connected.
    pub connected: Timestamp,
}

/// One request of a source.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The source it is for.
    pub source: &'a SourceSettings,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its query parameters.
    pub query: &'a BTreeMap<String, String>,
    /// Its body as it came, still compressed.
    pub body: Bytes,
    /// When it came.
    pub received: Timestamp,
    /// Id of the bearer token that the caller has verified for this source, if one was presented.
    pub bearer: Option<String>,
    /// How it came.
    pub mode: CollectionMode,
}

/// The keys a receiver needs.
#[derive(Clone)]
pub struct ReceiverKeys {
    /// Key of the fingerprints of redacted secrets.
    pub redaction: [u8; 32],
    /// Key of the hashes that identify items without an id.
    pub dedup: [u8; 32],
}

impl std::fmt::Debug for ReceiverKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ReceiverKeys([redacted])")
    }
}

/// Why a request is refused as a whole: nothing of it was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody vouches for it.
    #[error("the request is not signed with a secret of source `{0}` and carries no token for it")]
    Unauthenticated(String),
    /// Only the program itself writes to this source.
    #[error("source `{0}` is written by pipeproof itself")]
    Own(String),
    /// There is nothing in it.
    #[error("the body is empty")]
    Empty,
    /// It is too large.
    #[error("the body has {bytes} bytes or more, {limit} are allowed: send fewer items per request")]
    TooLarge {
        /// Bytes seen.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// It grows too much when decompressed.
    #[error("the body grows more than {0} times when decompressed")]
    Ratio(usize),
    /// It cannot be decompressed.
    #[error("the body is not valid {0}, or is cut")]
    Compression(&'static str),
    /// A content coding we do not read.
    #[error("content encoding `{0}` is not supported: send gzip, zstd or none")]
    Encoding(String),
    /// It holds too many items.
    #[error("the body holds more than {0} items: send fewer per request")]
    Items(usize),
    /// JSON nested too deep.
    #[error("the JSON is nested deeper than {0} levels")]
    Depth(usize),
    /// A form without the field that holds the event.
    #[error("the form has no readable field `payload`")]
    Form,
    /// What is set about the source leaves no room in a record.
    #[error("the labels of source `{0}` do not fit a record: set fewer or shorter ones")]
    Envelope(String),
    /// The operating system gave no random numbers.
    #[error("no random numbers are available for the records' salt")]
    Random,
}

impl Refusal {
    /// The HTTP status to answer with.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Unauthenticated(_) => 401,
            Self::Empty | Self::Own(_) | Self::Compression(_) | Self::Depth(_) | Self::Form => 400,
            Self::TooLarge { .. } | Self::Ratio(_) | Self::Items(_) => 413,
            Self::Encoding(_) => 415,
            Self::Envelope(_) => 500,
            Self::Random => 503,
        }
    }

    /// A stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Own(_) => "own_source",
            Self::Empty => "empty_body",
            Self::TooLarge { .. } => "body_too_large",
            Self::Ratio(_) => "compression_ratio",
            Self::Compression(_) => "bad_compression",
            Self::Encoding(_) => "unsupported_encoding",
            Self::Items(_) => "too_many_items",
            Self::Depth(_) => "json_too_deep",
            Self::Form => "bad_form",
            Self::Envelope(_) => "envelope_too_large",
            Self::Random => "no_random",
        }
    }
}

/// Turns requests into records.
#[derive(Debug)]
pub struct Receiver {
    redactor: Redactor,
    keys: ReceiverKeys,
    limits: Limits,
}

/// What the records of one request have in common.
struct Common<'a> {
    request: &'a Request<'a>,
    auth: Authenticity,
    key_id: Option<String>,
    attributes: BTreeMap<String, String>,
    redacted: Vec<Redacted>,
}

impl Receiver {
    /// A receiver with its keys and limits.
    #[must_use]
    pub fn new(keys: ReceiverKeys, limits: Limits) -> Self {
        Self { redactor: Redactor::new(&keys.redaction), keys, limits }
    }

    /// The redactor in use.
    #[must_use]
    pub const fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The limits in use.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Checks, unwraps and redacts a request. Every record fits the log; there are none in an empty list.
    ///
    /// # Errors
    /// [`Refusal`]: nothing of the request is to be kept.
    pub fn accept(&self, request: Request<'_>) -> Result<Vec<Record>, Refusal> {
        let source = request.source;
        if !source.source_type.is_external() {
            return Err(Refusal::Own(source.name.clone()));
        }
        if request.body.len() > self.limits.body_bytes_max {
            return Err(Refusal::TooLarge { bytes: request.body.len(), limit: self.limits.body_bytes_max });
        }
        let (auth, key_id) = authenticate(&request)?;
        let encoding = request.headers.get(http::header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
        let body = inflate(&request.body, Coding::of(encoding, &request.body)?, &self.limits)?;
        let mut attributes = identity::attributes(&request);
        let redacted = self.redactor.attributes(&mut attributes);
        identity::shorten(&mut attributes, self.limits.attribute_bytes_max);
        let common = Common { request: &request, auth, key_id, attributes, redacted };
        if source.source_type.info().free_text {
            return self.text_records(&common, &body);
        }
        let body = if source.source_type == SourceType::GithubWebhook && !body.trim_ascii_start().starts_with(b"{") {
            let form = body.trim_ascii_start().starts_with(b"payload=");
            if form { unwrap::form_payload(&body).ok_or(Refusal::Form)? } else { body }
        } else {
            body
        };
        let items = unwrap::items(source.source_type, &body, &self.limits)?;
        let alone = items.len() == 1;
        let mut records = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            // Among others it becomes a dead letter: the others must not suffer.
            if alone && check_depth(item, self.limits.json_depth_max).is_err() {
                return Err(Refusal::Depth(self.limits.json_depth_max));
            }
            let id = identity::item(&request, item, (!alone).then_some(number), &self.limits);
            let id = match id {
                Some(id) if !self.redactor.suspects(id.as_bytes()) => format!("id:{id}"),
                _ => identity::hash(&self.keys.dedup, item),
            };
            let (body, redacted) = self.redactor.body(source.source_type, item);
            records.push(self.record(&common, id, None, body, redacted)?);
        }
        Ok(records)
    }

    /// A job log: redacted as a whole, because secrets go over lines, then cut into chunks.
    fn text_records(&self, common: &Common<'_>, body: &Bytes) -> Result<Vec<Record>, Refusal> {
        if body.trim_ascii().is_empty() {
            return Err(Refusal::Empty);
        }
        let job = identity::job(&common.attributes);
        let job = job.map_or_else(|| identity::hash(&self.keys.dedup, body), |job| format!("id:{job}"));
        let output = self.redactor.scan_text(body);
        let text = Bytes::from(output.bytes);
        let chunks = unwrap::chunks(&text, self.limits.joblog_chunk_bytes);
        if chunks.len() > self.limits.items_max {
            return Err(Refusal::Items(self.limits.items_max));
        }
        let mut records = Vec::with_capacity(chunks.len());
        for (number, chunk) in chunks.into_iter().enumerate() {
            let here = output.found.iter().filter(|(place, _, _)| chunk.contains(place));
            let redacted = summary(here.map(|(_, family, fingerprint)| (*family, fingerprint.as_str())));
            let id = format!("{job}/{number}");
            records.push(self.record(common, id, Some(number), text.slice(chunk), redacted)?);
        }
        Ok(records)
    }

    fn record(
        &self,
        common: &Common<'_>,
        item: String,
        chunk: Option<usize>,
        body: Bytes,
        redacted: Vec<Redacted>,
    ) -> Result<Record, Refusal> {
        let request = common.request;
        let mut attributes = common.attributes.clone();
        if let Some(chunk) = chunk {
            attributes.insert(identity::CHUNK.to_owned(), chunk.to_string());
        }
        let redacted = join(redacted, common.redacted.clone());
        let mut salt = [0; 16];
        OsRng.try_fill_bytes(&mut salt).map_err(|_| Refusal::Random)?;
        let mut record = Record {
            envelope: Envelope {
                source: request.source.name.clone(),
                source_type: request.source.source_type,
                received: request.received,
                auth: common.auth,
                key_id: common.key_id.clone(),
                item,
                mode: request.mode,
                attributes,
                redacted,
            },
            salt,
            body,
        };
        let unfit = |_: RecordError| Refusal::Envelope(request.source.name.clone());
        oversize::fit(&mut record, &self.keys.dedup).map_err(unfit)?;
        Ok(record)
    }
}

/// Who sent it: by signature where the type has one, else by the token the caller has verified.
fn authenticate(request: &Request<'_>) -> Result<(Authenticity, Option<String>), Refusal> {
    let source = request.source;
    if source.source_type == SourceType::GithubWebhook
        && let Some(key) = github_signature(request.headers, &request.body, &source.secrets)
    {
        return Ok((Authenticity::Hmac, Some(key.to_owned())));
    }
    match &request.bearer {
        Some(token) => Ok((Authenticity::Bearer, Some(token.clone()))),
        None => Err(Refusal::Unauthenticated(source.name.clone())),
    }
}
