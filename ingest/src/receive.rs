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

pub(crate) use self::identity::{CHUNK, CHUNKS};
pub use crate::authentic::Secret;
use crate::authentic::{self, Proof};
pub use crate::limits::Limits;
use crate::limits::{Coding, inflate};
use crate::redact::{Carried, OpenKey, Redactor, join, summary};
use crate::unwrap::{self, Item, UNREAD, cloudevents};
pub use crate::unwrap::{Acks as HecAcks, Action as BulkAction, Framing, actions as bulk_actions, parts};

/// Whether a record holds what could not be taken apart: it will be a dead letter.
#[must_use]
pub fn is_unread(record: &Record) -> bool {
    record.envelope.attributes.contains_key(UNREAD)
}

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

/// By which way a request came, where that says more than its source does.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// How its body is put together.
    pub framing: Framing,
    /// What the way proves about the sender: an identity token that was checked, or nothing for a file.
    pub proven: Option<(Authenticity, Option<String>)>,
    /// Where it stands in what it was read from (file and offset, topic and offset): names items that have no id.
    pub place: Option<String>,
    /// Nobody could be told that something is wrong with it: whatever it is, it is kept.
    pub keep: bool,
    /// Kept with every record.
    pub attributes: Vec<(&'static str, String)>,
    /// The private key that what came before on the same connection or in the same file left open.
    pub carried: Carried,
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
    /// It is signed, but for another time than now.
    #[error(
        "the request to source `{0}` is signed for a time more than five minutes from now: is it repeated, or a clock wrong?"
    )]
    Stale(String),
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
            Self::Unauthenticated(_) | Self::Stale(_) => 401,
            Self::Empty | Self::Own(_) | Self::Compression(_) | Self::Depth(_) => 400,
            Self::TooLarge { .. } | Self::Ratio(_) | Self::Items(_) => 413,
            Self::Encoding(_) => 415,
            Self::Envelope(_) => 500,
            Self::Random => 503,
        }
    }

    /// Whether it is about what is in the body, and not about who sent it or how we are: the same is refused again.
    #[must_use]
    pub const fn is_content(&self) -> bool {
        matches!(
            self,
            Self::Empty
                | Self::TooLarge { .. }
                | Self::Ratio(_)
                | Self::Compression(_)
                | Self::Encoding(_)
                | Self::Items(_)
                | Self::Depth(_)
        )
    }

    /// A stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Stale(_) => "stale_signature",
            Self::Own(_) => "own_source",
            Self::Empty => "empty_body",
            Self::TooLarge { .. } => "body_too_large",
            Self::Ratio(_) => "compression_ratio",
            Self::Compression(_) => "bad_compression",
            Self::Encoding(_) => "unsupported_encoding",
            Self::Items(_) => "too_many_items",
            Self::Depth(_) => "json_too_deep",
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

    /// A body without its compression, as its headers and first bytes tell.
    ///
    /// # Errors
    /// [`Refusal`] for what cannot be decompressed, or grows beyond the limits.
    pub fn inflated(&self, headers: &HeaderMap, body: &Bytes) -> Result<Bytes, Refusal> {
        let encoding = headers.get(http::header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
        inflate(body, Coding::of(encoding, body)?, &self.limits)
    }

    /// Checks, unwraps and redacts a request. Every record fits the log; there are none in an empty list.
    ///
    /// # Errors
    /// [`Refusal`]: nothing of the request is to be kept.
    pub fn accept(&self, request: Request<'_>) -> Result<Vec<Record>, Refusal> {
        self.accept_by(&Way::default(), request)
    }

    /// The same for a request that came by a way of its own.
    ///
    /// # Errors
    /// As [`Receiver::accept`].
    pub fn accept_by(&self, way: &Way, request: Request<'_>) -> Result<Vec<Record>, Refusal> {
        let source = request.source;
        if !source.source_type.is_external() {
            return Err(Refusal::Own(source.name.clone()));
        }
        let limit = self.limits.body_bytes_max;
        let too_large = Refusal::TooLarge { bytes: request.body.len(), limit };
        let is_too_large = request.body.len() > limit;
        if is_too_large && !way.keep {
            return Err(too_large);
        }
        let (auth, key_id) = authenticate(way, &request)?;
        let mut attributes = identity::attributes(&request);
        attributes.extend(way.attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let redacted = self.redactor.attributes(&mut attributes);
        identity::shorten(&mut attributes, self.limits.attribute_bytes_max);
        let common = Common { request: &request, auth, key_id, attributes, redacted };
        if is_too_large {
            // Nobody sends it in smaller parts: what it was is kept.
            return self.kept(way, &common, None, too_large);
        }
        let body = match self.inflated(request.headers, &request.body) {
            Ok(body) => body,
            // Compressed it may hold secrets that cannot be seen: only what it was is kept.
            Err(refusal) => return self.kept(way, &common, None, refusal),
        };
        if source.source_type.info().free_text {
            return self.text_records(way, &common, &body);
        }
        match self.item_records(way, &common, &body) {
            Err(refusal) => self.kept(way, &common, Some(&body), refusal),
            records => records,
        }
    }

    fn item_records(&self, way: &Way, common: &Common<'_>, body: &Bytes) -> Result<Vec<Record>, Refusal> {
        let request = common.request;
        let kind = request.source.source_type;
        let event = cloudevents::structured(kind, request.headers, body);
        let form = kind == SourceType::GithubWebhook && body.starts_with(b"payload=");
        let body = match event {
            Some(event) => event,
            None => form.then(|| unwrap::form_payload(body)).flatten().unwrap_or_else(|| body.clone()),
        };
        let items = unwrap::items(kind, way.framing, &body, &self.limits)?;
        let alone = items.len() == 1;
        let mut records = Vec::with_capacity(items.len());
        // Where a line is an item, a private key goes over several.
        let mut open_key = way.carried.before();
        for (number, item) in items.into_iter().enumerate() {
            // Among others it becomes a dead letter: the others must not suffer.
            if alone && check_depth(&item.bytes, self.limits.json_depth_max).is_err() {
                return Err(Refusal::Depth(self.limits.json_depth_max));
            }
            let place =
                || way.place.as_ref().map(|place| if alone { place.clone() } else { format!("{place}/{number}") });
            let own = identity::item(request, &item.bytes, (!alone).then_some(number), &self.limits);
            let id = match own.or_else(|| item.id.clone()).or_else(place) {
                Some(id) if !self.redactor.suspects(id.as_bytes()) => format!("id:{id}"),
                _ => identity::hash(&self.keys.dedup, &item.bytes),
            };
            records.push(self.item_record(common, id, &item, &mut open_key)?);
        }
        way.carried.leave(open_key);
        Ok(records)
    }

    fn item_record(
        &self,
        common: &Common<'_>,
        id: String,
        item: &Item,
        open_key: &mut OpenKey,
    ) -> Result<Record, Refusal> {
        let kind = common.request.source.source_type;
        let (body, redacted) = self.redactor.body_after(kind, &item.bytes, open_key);
        let mut about = item.attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let redacted = join(redacted, self.redactor.attributes(&mut about));
        identity::shorten(&mut about, self.limits.attribute_bytes_max);
        self.record(common, id, about, body, redacted)
    }

    /// What a provider sent and we cannot take apart. It would disable its webhook over an error, or send the same again
    /// for ever: it gets none, and the record says what was wrong.
    fn kept(
        &self,
        way: &Way,
        common: &Common<'_>,
        body: Option<&Bytes>,
        refusal: Refusal,
    ) -> Result<Vec<Record>, Refusal> {
        let kind = common.request.source.source_type;
        let mends = kind == SourceType::Json || kind.info().free_text;
        if (mends && !way.keep) || !refusal.is_content() {
            return Err(refusal);
        }
        let raw = &common.request.body;
        let mut about = BTreeMap::from([(UNREAD.to_owned(), refusal.code().to_owned())]);
        if body.is_none() {
            about.insert(oversize::BYTES.to_owned(), raw.len().to_string());
            about.insert(oversize::HASH.to_owned(), identity::hash(&self.keys.dedup, raw));
        }
        let own = identity::item(common.request, raw, None, &self.limits);
        let own = own.filter(|id| !self.redactor.suspects(id.as_bytes()));
        let id = own.map_or_else(|| identity::hash(&self.keys.dedup, raw), |id| format!("id:{id}"));
        let (body, redacted) = self.redactor.body(kind, body.unwrap_or(&Bytes::new()));
        Ok(vec![self.record(common, id, about, body, redacted)?])
    }

    /// A dead letter's record taken apart once more, as history: what a later version can read of it. There are none where
    /// only its beginning was kept. An item has the same name whenever it is read again, so that doing it twice is seen.
    ///
    /// # Errors
    /// [`Refusal::Random`], and [`Refusal::Envelope`] if a copy does not fit the log.
    pub fn again(&self, record: &Record, index: u64, received: Timestamp) -> Result<Vec<Record>, Refusal> {
        let envelope = &record.envelope;
        if envelope.attributes.contains_key(oversize::BYTES) || !envelope.source_type.is_external() {
            return Ok(Vec::new());
        }
        let items = if envelope.source_type.info().free_text {
            vec![Item { bytes: record.body.clone(), ..Item::default() }]
        } else {
            // What is empty or too much now was so then.
            unwrap::items(envelope.source_type, Framing::Values, &record.body, &self.limits).unwrap_or_default()
        };
        let several = items.len() > 1;
        let mut open_key = OpenKey::default();
        let copy = |(number, item): (usize, Item)| {
            let (body, redacted) = self.redactor.body_after(envelope.source_type, &item.bytes, &mut open_key);
            let mut again = Record { envelope: envelope.clone(), salt: salt()?, body };
            let known = &mut again.envelope;
            known.item.push_str("/again");
            if several {
                known.item.push_str(&format!("/{number}"));
            }
            known.attributes.remove(UNREAD);
            known.attributes.extend(item.attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
            known.attributes.insert("again.record".to_owned(), index.to_string());
            known.attributes.insert("again.received".to_owned(), envelope.received.to_string());
            known.redacted = join(redacted, std::mem::take(&mut known.redacted));
            known.mode = CollectionMode::Backfill;
            known.received = received;
            let unfit = |_: RecordError| Refusal::Envelope(envelope.source.clone());
            oversize::fit(&mut again, &self.keys.dedup).map_err(unfit)?;
            Ok(again)
        };
        items.into_iter().enumerate().map(copy).collect()
    }

    /// A job log: redacted as a whole, because secrets go over lines, then cut into chunks.
    fn text_records(&self, way: &Way, common: &Common<'_>, body: &Bytes) -> Result<Vec<Record>, Refusal> {
        if body.trim_ascii().is_empty() {
            return Err(Refusal::Empty);
        }
        let job = identity::job(&common.attributes);
        let job = job.map_or_else(|| identity::hash(&self.keys.dedup, body), |job| format!("id:{job}"));
        let mut open_key = way.carried.before();
        let output = self.redactor.scan_text(body, &mut open_key);
        way.carried.leave(open_key);
        let text = Bytes::from(output.bytes);
        let chunks = unwrap::chunks(&text, self.limits.joblog_chunk_bytes);
        if chunks.len() > self.limits.items_max {
            return Err(Refusal::Items(self.limits.items_max));
        }
        let count = chunks.len();
        let mut records = Vec::with_capacity(count);
        for (number, chunk) in chunks.into_iter().enumerate() {
            let here = output.found.iter().filter(|(place, _, _)| chunk.contains(place));
            let redacted = summary(here);
            let mut about = BTreeMap::from([(CHUNK.to_owned(), number.to_string())]);
            if count > 1 {
                about.insert(CHUNKS.to_owned(), count.to_string());
            }
            records.push(self.record(common, format!("{job}/{number}"), about, text.slice(chunk), redacted)?);
        }
        Ok(records)
    }

    fn record(
        &self,
        common: &Common<'_>,
        item: String,
        about: BTreeMap<String, String>,
        body: Bytes,
        redacted: Vec<Redacted>,
    ) -> Result<Record, Refusal> {
        let request = common.request;
        let mut attributes = common.attributes.clone();
        attributes.extend(about);
        let redacted = join(redacted, common.redacted.clone());
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
            salt: salt()?,
            body,
        };
        let unfit = |_: RecordError| Refusal::Envelope(request.source.name.clone());
        oversize::fit(&mut record, &self.keys.dedup).map_err(unfit)?;
        Ok(record)
    }
}

fn salt() -> Result<[u8; 16], Refusal> {
    let mut salt = [0; 16];
    OsRng.try_fill_bytes(&mut salt).map_err(|_| Refusal::Random)?;
    Ok(salt)
}

/// Who sent it: by what the sender's own scheme proves, else by the way it came, else by the token the caller has verified.
fn authenticate(way: &Way, request: &Request<'_>) -> Result<(Authenticity, Option<String>), Refusal> {
    let source = request.source;
    let proof = authentic::proof(source.source_type, request.headers, &request.body, &source.secrets, request.received);
    let token = || request.bearer.clone().map(|token| (Authenticity::Bearer, Some(token)));
    match proof {
        Proof::Proven { auth, key_id } => Ok((auth, Some(key_id))),
        proof => way.proven.clone().or_else(token).ok_or_else(|| {
            let name = source.name.clone();
            if proof == Proof::Stale { Refusal::Stale(name) } else { Refusal::Unauthenticated(name) }
        }),
    }
}
