//! How many items files hold, counted before anything is sent and without the code that takes bodies apart: a second reader, over
//! a JSON parser, of the same framings and wrappers ([docs/ways-in.md], `ingest::unwrap`). What one of the two loses, the other counts.

use std::borrow::Cow;
use std::fmt;
use std::io::Read;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use pipeproof_engine::source::SourceType;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);
/// Most bytes that a member holds once it is decompressed.
const INFLATED_MAX: u64 = 256 << 20;
/// How many wrappers may be around an item.
const WRAPPERS_MAX: usize = 8;

/// Members that a wrapper may have; whatever else an object holds is passed over.
const NAMES: &[&str] = &[
    "@timestamp",
    "CloudTrailEvent",
    "Message",
    "Records",
    "Type",
    "ackId",
    "agent",
    "attestations",
    "awslogs",
    "bundle",
    "data",
    "data_base64",
    "date",
    "detail",
    "detail-type",
    "eventName",
    "events",
    "items",
    "jsonPayload",
    "kind",
    "log",
    "logEvents",
    "logName",
    "message",
    "payload",
    "properties",
    "receivedMessages",
    "records",
    "request",
    "requestId",
    "source_type",
    "specversion",
    "stream",
    "subscription",
    "textPayload",
];

/// A JSON value as far as it may be a wrapper.
#[derive(Clone, Debug, Default)]
enum Shape {
    Object(Vec<(String, Self)>),
    Array(Vec<Self>),
    Text(String),
    #[default]
    Other,
}

impl Shape {
    /// The last member of this name.
    fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A member that is an object.
    fn object(&self, name: &str) -> Option<&Self> {
        self.get(name).filter(|value| matches!(value, Self::Object(_)))
    }

    fn list(&self, name: &str) -> Option<&[Self]> {
        match self.get(name)? {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if NAMES.contains(&&*name) {
                members.push((name.into_owned(), map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Shape::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Shape, A::Error> {
        let mut all = Vec::new();
        while let Some(element) = elements.next_element()? {
            all.push(element);
        }
        Ok(Shape::Array(all))
    }

    fn visit_str<E>(self, text: &str) -> Result<Shape, E> {
        Ok(Shape::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Shape, E> {
        Ok(Shape::Text(text))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Other)
    }
}

/// Items of a file that is not free text. Of a job's log only the server knows the pieces: it is cut once its secrets are out.
pub(super) fn items(kind: SourceType, file: &[u8]) -> u64 {
    let text = trimmed(file);
    let is_json = matches!(text.first(), Some(b'{' | b'['));
    match kind {
        _ if text.is_empty() => 0,
        SourceType::Jenkins if !is_json => log_entries(text),
        SourceType::CircleciAudit if !is_json => rows(text),
        _ => of_text(kind, text, 0),
    }
}

fn trimmed(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

/// Objects and arrays one after the other and nothing else; none if it is anything else.
fn values(text: &[u8]) -> Option<Vec<Shape>> {
    let mut found = Vec::new();
    for value in serde_json::Deserializer::from_slice(text).into_iter::<Shape>() {
        match value {
            Ok(value @ (Shape::Object(_) | Shape::Array(_))) => found.push(value),
            _ => return None,
        }
    }
    Some(found)
}

fn of_text(kind: SourceType, text: &[u8], wrappers: usize) -> u64 {
    let text = trimmed(text);
    let of_values = |values: Vec<Shape>| values.iter().map(|value| of_value(kind, value, wrappers)).sum::<u64>();
    if let Some(values) = values(text) {
        return of_values(values);
    }
    let several = lines(text).nth(1).is_some();
    if several && lines(text).any(|line| values(line).is_some_and(|values| values.len() == 1)) {
        // A line that cannot be read is an item beside the others.
        return lines(text).map(|line| values(line).map_or(1, of_values)).sum();
    }
    1
}

fn of_value(kind: SourceType, value: &Shape, wrappers: usize) -> u64 {
    match value {
        Shape::Array(elements) => of_list(kind, elements, wrappers),
        other => of_object(kind, other, wrappers),
    }
}

fn of_list(kind: SourceType, elements: &[Shape], wrappers: usize) -> u64 {
    elements.iter().map(|element| of_object(kind, element, wrappers)).sum()
}

fn of_object(kind: SourceType, object: &Shape, wrappers: usize) -> u64 {
    if wrappers >= WRAPPERS_MAX || !matches!(object, Shape::Object(_)) {
        return 1;
    }
    let inside = wrappers + 1;
    carried(kind, object, inside)
        .or_else(|| delivered(kind, object, inside))
        .or_else(|| if is_plain(kind) { None } else { wrapped(kind, object, inside) })
        .unwrap_or(1)
}

/// Whether items of this type may themselves look like a wrapper.
const fn is_plain(kind: SourceType) -> bool {
    is_webhook(kind)
        || matches!(kind, SourceType::Json | SourceType::Otlp | SourceType::Cloudevents | SourceType::Cdevents)
}

const fn is_webhook(kind: SourceType) -> bool {
    matches!(kind, SourceType::GithubWebhook | SourceType::GitlabWebhook | SourceType::CircleciWebhook)
}

const fn is_kubernetes(kind: SourceType) -> bool {
    matches!(kind, SourceType::KubernetesAudit | SourceType::KubernetesEvent | SourceType::KubernetesAdmission)
}

/// In what carries bytes: Pub/Sub, CloudWatch Logs, Firehose.
fn carried(kind: SourceType, object: &Shape, inside: usize) -> Option<u64> {
    let message = object.get("message").filter(|_| object.has("subscription") || object.has("ackId"));
    if let Some(data) = message.and_then(|message| message.text("data")) {
        return encoded(kind, data, inside);
    }
    if let Some(messages) = object.list("receivedMessages") {
        return Some(of_list(kind, messages, inside));
    }
    if let Some(data) = object.get("awslogs").and_then(|logs| logs.text("data")) {
        return encoded(kind, data, inside);
    }
    if let Some(events) = object.list("logEvents") {
        let line = |event: &Shape| event.text("message").and_then(|message| quoted(kind, message, inside)).unwrap_or(1);
        return Some(events.iter().map(line).sum());
    }
    let records = object.list("records").filter(|_| object.has("requestId"))?;
    let data = |record: &Shape| record.text("data").and_then(|data| encoded(kind, data, inside)).unwrap_or(1);
    records.iter().all(|record| record.has("data")).then(|| records.iter().map(data).sum())
}

/// In a delivery that was kept, or an answer with bundles.
fn delivered(kind: SourceType, object: &Shape, inside: usize) -> Option<u64> {
    if kind == SourceType::SigstoreBundle {
        let all = object.list("attestations").map(|all| of_list(kind, all, inside));
        return all.or_else(|| Some(of_object(kind, object.object("bundle")?, inside)));
    }
    if !is_webhook(kind) {
        return None;
    }
    let inner = object.get("request").and_then(|request| request.object("payload"));
    Some(of_object(kind, inner.or_else(|| object.object("payload"))?, inside))
}

fn wrapped(kind: SourceType, object: &Shape, inside: usize) -> Option<u64> {
    if let Some(records) = object.list("Records").or_else(|| object.list("records")) {
        return Some(of_list(kind, records, inside));
    }
    if let Some(items) = object.list("items")
        && (is_kubernetes(kind) || object.text("kind").is_some_and(|kind| kind.ends_with("List")))
    {
        return Some(of_list(kind, items, inside));
    }
    if let Some(detail) = object.object("detail").filter(|_| kind != SourceType::Buildkite)
        && (object.has("detail-type") || (kind == SourceType::AwsCloudtrail && detail.has("eventName")))
    {
        return Some(of_object(kind, detail, inside));
    }
    if kind == SourceType::AwsCloudtrail && object.has("CloudTrailEvent") {
        return quoted(kind, object.text("CloudTrailEvent")?, inside);
    }
    if object.text("Type") == Some("Notification") && object.has("Message") {
        return quoted(kind, object.text("Message")?, inside);
    }
    if object.has("logName") && kind != SourceType::GcpAudit {
        if let Some(payload) = object.object("jsonPayload") {
            return Some(of_object(kind, payload, inside));
        }
        if object.has("textPayload") {
            return quoted(kind, object.text("textPayload")?, inside);
        }
    }
    if is_kubernetes(kind)
        && let Some(log) = object.get("properties").filter(|properties| properties.has("log"))
    {
        return quoted(kind, log.text("log")?, inside);
    }
    if kind == SourceType::Okta
        && let Some(events) = object.get("data").and_then(|data| data.list("events"))
    {
        return Some(of_list(kind, events, inside));
    }
    if object.has("specversion") {
        match object.get("data") {
            Some(Shape::Text(text)) => return quoted(kind, text, inside),
            Some(data) => return Some(of_object(kind, data, inside)),
            None => {}
        }
        if object.has("data_base64") {
            return encoded(kind, object.text("data_base64")?, inside);
        }
    }
    let shipped = ["@timestamp", "date", "stream", "source_type", "agent"].iter().any(|name| object.has(name));
    let line = ["message", "log"].iter().find(|name| object.has(name)).filter(|_| shipped)?;
    quoted(kind, object.text(line)?, inside)
}

/// Text that is JSON; none if it is anything else.
fn quoted(kind: SourceType, text: &str, wrappers: usize) -> Option<u64> {
    let text = trimmed(text.as_bytes());
    matches!(text.first(), Some(b'{' | b'[')).then(|| of_text(kind, text, wrappers))
}

/// Base64, gzip inside if it is; none if it is none. What cannot be decompressed is one item, kept by its digest.
fn encoded(kind: SourceType, text: &str, wrappers: usize) -> Option<u64> {
    let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Some(of_text(kind, &bytes, wrappers));
    }
    let mut out = Vec::new();
    let read = flate2::bufread::MultiGzDecoder::new(bytes.as_slice()).take(INFLATED_MAX).read_to_end(&mut out);
    Some(read.map_or(1, |_| of_text(kind, &out, wrappers)))
}

/// Entries of Jenkins' audit-trail log: a line each, except that one without a date goes on with the entry before.
fn log_entries(text: &[u8]) -> u64 {
    let is_dated = |line: &[u8]| {
        line.get(..3).is_some_and(|month| month.iter().all(u8::is_ascii_alphabetic))
            && line.get(3) == Some(&b' ')
            && line.iter().position(|byte| *byte == b',').is_some_and(|comma| (5..=6).contains(&comma))
    };
    let any = lines(text).any(is_dated);
    let entries = lines(text).enumerate().filter(|(number, line)| !any || *number == 0 || is_dated(line)).count();
    u64::try_from(entries).unwrap_or(u64::MAX)
}

/// Rows of CircleCI's export, below a head that names what an audit log has. A line break between quotes ends no row.
fn rows(text: &[u8]) -> u64 {
    let mut is_quoted = false;
    let mut rows = text.split(|byte| {
        is_quoted ^= *byte == b'"';
        *byte == b'\n' && !is_quoted
    });
    let head = String::from_utf8_lossy(rows.next().unwrap_or_default()).to_lowercase();
    let has = |name: &str| head.split(',').any(|column| column.trim().trim_matches('"') == name);
    if !has("action") || !has("occurred_at") {
        return 1;
    }
    u64::try_from(rows.filter(|row| !row.trim_ascii().is_empty()).count()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
