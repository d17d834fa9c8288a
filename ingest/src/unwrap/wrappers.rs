//! The wrappers in which items travel, known by their shape: lists of files and APIs, buses, queues and log services.
//!
//! | wrapper | shape | where |
//! |---|---|---|
//! | list | `{"Records": […]}`, `{"records": […]}`, `{"kind": "…List", "items": […]}` | files in S3, Azure diagnostics, Kubernetes |
//! | EventBridge | `{"detail-type": …, "source": …, "detail": {…}}` | AWS |
//! | CloudWatch Logs | `{"awslogs": {"data": …}}`, `{"messageType": …, "logEvents": […]}` | AWS subscriptions |
//! | Firehose | `{"requestId": …, "records": [{"data": …}]}` | AWS |
//! | SNS | `{"Type": "Notification", "Message": "…"}` | AWS |
//! | Pub/Sub | `{"message": {"data": …}, "subscription": …}`, `{"receivedMessages": […]}` | Google Cloud |
//! | LogEntry | `{"logName": …, "jsonPayload": {…}}` or `textPayload` | Google Cloud |
//! | diagnostic log | `{"properties": {"log": "…"}}` | AKS |
//! | event hook | `{"data": {"events": […]}}` | Okta |
//! | CloudEvent | `{"specversion": …, "data": …}` | CloudEvents 1.0, structured |
//! | delivery | `{"event": …, "guid": …, "request": {"payload": {…}}}`, `{"payload": {…}}` | GitHub's API of deliveries, archives |
//! | attestation | `{"attestations": [{"bundle": {…}}]}` | GitHub, npm |
//! | shipper | `{"message": "{…}"}` or `log`, beside what a shipper adds | Filebeat, Fluent Bit, Vector |
//!
//! A type whose items are themselves of such a shape is left alone. What is wrapped deeper stays as it came, of what grows
//! larger when decoded than the limits allow only the digest is kept; both become dead letters.

use std::ops::Range;

use bytes::Bytes;
use engine::source::SourceType;
use pipeproof_engine as engine;
use sha2::{Digest, Sha256};

use super::encoded::{self, Budget, Decoded};
use super::{Item, UNREAD, cloudevents, is_one_container, numbered, split};
use crate::limits::Limits;
use crate::receive::Refusal;
use crate::skim;

/// How many wrappers may be around an item: EventBridge in SNS in SQS in Firehose, and room for more.
const WRAPPERS_MAX: usize = 8;

/// Attribute: id of the message that carried the item.
pub(super) const MESSAGE_ID: &str = "transport.message_id";
/// Attribute: the log, stream or file that the item was read from before it was sent.
pub(super) const LOG: &str = "transport.log";

/// Takes wrappers off.
pub(super) struct Peel {
    /// What is sent is itself what it is.
    plain: bool,
    kind: SourceType,
    pub(super) items_max: usize,
    too_many: bool,
    /// What all items hold. What goes with every item of a message is copied for each.
    bytes: usize,
    bytes_max: usize,
    budget: Budget,
    /// The id of the last message, and how many items it carried besides the first.
    last_id: Option<(String, usize)>,
    pub(super) out: Vec<Item>,
}

/// Whether a type's items may have the shape of a wrapper themselves: deliveries of a provider, and JSON of any shape.
fn is_plain(kind: SourceType) -> bool {
    is_webhook(kind)
        || matches!(kind, SourceType::Json | SourceType::Otlp | SourceType::Cloudevents | SourceType::Cdevents)
}

/// Deliveries of a provider, which its API also lists with the payload inside.
const fn is_webhook(kind: SourceType) -> bool {
    matches!(kind, SourceType::GithubWebhook | SourceType::GitlabWebhook | SourceType::CircleciWebhook)
}

const fn is_kubernetes(kind: SourceType) -> bool {
    matches!(kind, SourceType::KubernetesAudit | SourceType::KubernetesEvent | SourceType::KubernetesAdmission)
}

/// Members of an object that a wrapper may have, where it has them.
#[derive(Default)]
struct Members {
    records: Option<Range<usize>>,
    items: Option<Range<usize>>,
    kind: Option<Range<usize>>,
    detail: Option<Range<usize>>,
    detail_type: Option<Range<usize>>,
    awslogs: Option<Range<usize>>,
    log_events: Option<Range<usize>>,
    log_group: Option<Range<usize>>,
    log_stream: Option<Range<usize>>,
    request_id: Option<Range<usize>>,
    sns_type: Option<Range<usize>>,
    sns_message: Option<Range<usize>>,
    sns_id: Option<Range<usize>>,
    message: Option<Range<usize>>,
    log: Option<Range<usize>>,
    subscription: Option<Range<usize>>,
    ack_id: Option<Range<usize>>,
    received_messages: Option<Range<usize>>,
    log_name: Option<Range<usize>>,
    json_payload: Option<Range<usize>>,
    text_payload: Option<Range<usize>>,
    properties: Option<Range<usize>>,
    specversion: Option<Range<usize>>,
    data: Option<Range<usize>>,
    data_base64: Option<Range<usize>>,
    cloudtrail_event: Option<Range<usize>>,
    attestations: Option<Range<usize>>,
    bundle: Option<Range<usize>>,
    request: Option<Range<usize>>,
    payload: Option<Range<usize>>,
    event: Option<Range<usize>>,
    guid: Option<Range<usize>>,
    /// Something that only a shipper adds.
    shipper: bool,
}

impl Members {
    fn of(object: &[u8]) -> Self {
        let mut found = Self::default();
        for (key, at) in skim::members(object) {
            let place = match key {
                b"Records" | b"records" => &mut found.records,
                b"items" => &mut found.items,
                b"kind" => &mut found.kind,
                b"detail" => &mut found.detail,
                b"detail-type" => &mut found.detail_type,
                b"awslogs" => &mut found.awslogs,
                b"logEvents" => &mut found.log_events,
                b"logGroup" => &mut found.log_group,
                b"logStream" => &mut found.log_stream,
                b"requestId" => &mut found.request_id,
                b"Type" => &mut found.sns_type,
                b"Message" => &mut found.sns_message,
                b"MessageId" => &mut found.sns_id,
                b"message" => &mut found.message,
                b"log" => &mut found.log,
                b"subscription" => &mut found.subscription,
                b"ackId" => &mut found.ack_id,
                b"receivedMessages" => &mut found.received_messages,
                b"logName" => &mut found.log_name,
                b"jsonPayload" => &mut found.json_payload,
                b"textPayload" => &mut found.text_payload,
                b"properties" => &mut found.properties,
                b"specversion" => &mut found.specversion,
                b"data" => &mut found.data,
                b"data_base64" => &mut found.data_base64,
                b"attestations" => &mut found.attestations,
                b"bundle" => &mut found.bundle,
                b"request" => &mut found.request,
                b"payload" => &mut found.payload,
                b"event" | b"x_github_event" => &mut found.event,
                b"guid" => &mut found.guid,
                b"CloudTrailEvent" => &mut found.cloudtrail_event,
                b"@timestamp" | b"date" | b"stream" | b"source_type" | b"agent" => {
                    found.shipper = true;
                    continue;
                }
                _ => continue,
            };
            *place = Some(at);
        }
        found
    }
}

impl Peel {
    pub(super) fn new(kind: SourceType, limits: &Limits) -> Self {
        Self {
            plain: is_plain(kind),
            kind,
            items_max: limits.items_max,
            too_many: false,
            bytes: 0,
            bytes_max: limits.inflated_bytes_max.saturating_mul(2),
            budget: Budget::new(limits),
            last_id: None,
            out: Vec::new(),
        }
    }

    /// Whether enough is there to refuse the whole.
    pub(super) fn is_full(&self) -> bool {
        self.refusal().is_some()
    }

    /// Why the whole is refused, if it is.
    pub(super) const fn refusal(&self) -> Option<Refusal> {
        if self.too_many || self.out.len() > self.items_max {
            Some(Refusal::Items(self.items_max))
        } else if self.bytes > self.bytes_max {
            Some(Refusal::TooLarge { bytes: self.bytes, limit: self.bytes_max })
        } else {
            None
        }
    }

    /// There are more items than a request may hold, though not all of them are kept.
    pub(super) const fn refuse(&mut self) {
        self.too_many = true;
    }

    /// The type that items are of.
    pub(super) const fn kind(&self) -> SourceType {
        self.kind
    }

    pub(super) fn push(&mut self, bytes: Bytes, about: &Item) {
        if self.is_full() {
            return;
        }
        let mut item = Item { bytes, ..about.clone() };
        if cloudevents::is_event(self.kind) {
            item.attributes.extend(numbered::cloudevent(&item.bytes).into_iter().flatten());
        }
        // One message may carry several items: only the first has its id alone.
        if let Some(id) = &mut item.id {
            match &mut self.last_id {
                Some((last, count)) if last == id => {
                    *count += 1;
                    id.push_str(&format!("/{count}"));
                }
                last => *last = Some((id.clone(), 0)),
            }
        }
        let beside = item.attributes.iter().map(|(_, value)| value.len()).sum::<usize>();
        self.bytes = self.bytes.saturating_add(item.bytes.len() + beside);
        self.out.push(item);
    }

    /// Every value of a text.
    pub(super) fn text(&mut self, text: &Bytes, about: &Item, wrappers: usize) {
        let trimmed = text.slice_ref(skim::trim(text));
        for range in split(&trimmed, self.items_max) {
            if self.is_full() {
                return;
            }
            self.value(trimmed.slice(range), about, wrappers);
        }
    }

    /// A value: the elements of an array, or one.
    fn value(&mut self, value: Bytes, about: &Item, wrappers: usize) {
        let Some(elements) = skim::elements(&value, self.items_max) else { return self.object(value, about, wrappers) };
        for element in elements {
            self.object(value.slice(element), about, wrappers);
        }
    }

    /// An object, without its wrapper if it has one.
    pub(super) fn object(&mut self, object: Bytes, about: &Item, wrappers: usize) {
        if self.is_full() {
            return;
        }
        if wrappers < WRAPPERS_MAX && object.first() == Some(&b'{') {
            let members = Members::of(&object);
            if self.transport(&object, &members, about, wrappers + 1)
                || self.delivery(&object, &members, about, wrappers + 1)
                || (!self.plain && self.wrapper(&object, &members, about, wrappers + 1))
            {
                return;
            }
        }
        self.push(object, about);
    }

    /// Buses and log services that carry bytes: nothing can be read before they are off, whatever the type.
    fn transport(&mut self, object: &Bytes, members: &Members, about: &Item, wrappers: usize) -> bool {
        let part = |range: &Option<Range<usize>>| range.clone().map(|range| object.slice(range));
        // Pub/Sub.
        if let (Some(message), true) =
            (part(&members.message), members.subscription.is_some() || members.ack_id.is_some())
            && let Some(data) = skim::member(&message, "data")
        {
            let id = skim::text_at(&message, &["messageId"]).or_else(|| skim::text_at(&message, &["message_id"]));
            let about = carried("pubsub", id, about);
            return self.encoded(data, &about, wrappers);
        }
        if let Some(messages) = part(&members.received_messages) {
            return self.list(&messages, about, wrappers);
        }
        // CloudWatch Logs: as a subscription hands it over, and what is inside.
        if let Some(logs) = part(&members.awslogs)
            && let Some(data) = skim::member(&logs, "data")
        {
            return self.encoded(data, about, wrappers);
        }
        if let Some(events) = part(&members.log_events) {
            let name = |range: &Option<Range<usize>>| part(range).and_then(|value| text_of(&value));
            let log = [name(&members.log_group), name(&members.log_stream)].into_iter().flatten().collect::<Vec<_>>();
            let mut about = about.clone();
            about.attributes.push((LOG, log.join("/")));
            return self.log_events(&events, &about, wrappers);
        }
        // Firehose.
        if let (Some(records), Some(_)) = (part(&members.records), &members.request_id)
            && let Some(elements) = skim::elements(&records, self.items_max)
            && elements.iter().all(|element| skim::member(&records.slice(element.clone()), "data").is_some())
        {
            for element in elements {
                let record = records.slice(element);
                let data = skim::member(&record, "data").unwrap_or_default();
                if !self.encoded(data, about, wrappers) {
                    self.push(record.clone(), about);
                }
            }
            return true;
        }
        false
    }

    /// A delivery of a provider as it is kept, with its event's name beside it, and a signed bundle as it is handed out.
    fn delivery(&mut self, object: &Bytes, members: &Members, about: &Item, wrappers: usize) -> bool {
        let part = |range: &Option<Range<usize>>| range.clone().map(|range| object.slice(range));
        if self.kind == SourceType::SigstoreBundle {
            if let Some(all) = part(&members.attestations) {
                return self.list(&all, about, wrappers);
            }
            let Some(bundle) = part(&members.bundle).filter(|bundle| bundle.first() == Some(&b'{')) else {
                return false;
            };
            self.object(bundle, about, wrappers);
            return true;
        }
        if !is_webhook(self.kind) {
            return false;
        }
        let request = part(&members.request);
        let inner = request.as_ref().and_then(|request| Some(request.slice_ref(skim::member(request, "payload")?)));
        let Some(payload) = inner.or_else(|| part(&members.payload)).filter(|payload| payload.first() == Some(&b'{'))
        else {
            return false;
        };
        let mut about = about.clone();
        if let Some(guid) = part(&members.guid).and_then(|guid| text_of(&guid)) {
            // The id that its live delivery had.
            about.id = Some(guid.clone());
            about.attributes.push(("x-github-delivery", guid));
        }
        if let Some(event) = part(&members.event).and_then(|event| text_of(&event)) {
            about.attributes.push(("x-github-event", event));
        }
        self.object(payload, &about, wrappers);
        true
    }

    fn wrapper(&mut self, object: &Bytes, members: &Members, about: &Item, wrappers: usize) -> bool {
        let part = |range: &Option<Range<usize>>| range.clone().map(|range| object.slice(range));
        let kubernetes = is_kubernetes(self.kind);
        if let Some(records) = part(&members.records)
            && self.list(&records, about, wrappers)
        {
            return true;
        }
        if let Some(items) = part(&members.items) {
            let list = part(&members.kind).is_some_and(|kind| kind.ends_with(b"List\""));
            if (list || kubernetes) && self.list(&items, about, wrappers) {
                return true;
            }
        }
        // What Buildkite puts on a bus is named there alone.
        let detail =
            part(&members.detail).filter(|detail| self.kind != SourceType::Buildkite && detail.first() == Some(&b'{'));
        if let Some(detail) = detail {
            let cloudtrail = self.kind == SourceType::AwsCloudtrail && skim::member(&detail, "eventName").is_some();
            if cloudtrail || members.detail_type.is_some() {
                self.object(detail, about, wrappers);
                return true;
            }
        }
        // What CloudTrail's LookupEvents answers: the record is text inside.
        if self.kind == SourceType::AwsCloudtrail
            && let Some(text) = part(&members.cloudtrail_event)
        {
            return self.quoted(&text, about, wrappers);
        }
        if part(&members.sns_type).as_deref() == Some(b"\"Notification\"")
            && let Some(message) = part(&members.sns_message)
        {
            let about = carried("sns", part(&members.sns_id).and_then(|id| text_of(&id)), about);
            return self.quoted(&message, &about, wrappers);
        }
        if members.log_name.is_some() && self.kind != SourceType::GcpAudit {
            if let Some(payload) = part(&members.json_payload).filter(|payload| payload.first() == Some(&b'{')) {
                self.object(payload, about, wrappers);
                return true;
            }
            if let Some(text) = part(&members.text_payload) {
                return self.quoted(&text, about, wrappers);
            }
        }
        if kubernetes
            && let Some(properties) = part(&members.properties)
            && let Some(log) = skim::member(&properties, "log")
        {
            return self.quoted(log, about, wrappers);
        }
        // Okta's event hooks.
        if self.kind == SourceType::Okta
            && let Some(data) = part(&members.data)
            && let Some(events) = skim::member(&data, "events").map(|events| data.slice_ref(events))
            && self.list(&events, about, wrappers)
        {
            return true;
        }
        if members.specversion.is_some() {
            let mut about = about.clone();
            about.attributes.extend(numbered::cloudevent(object).into_iter().flatten());
            let about = &about;
            if let Some(data) = part(&members.data) {
                return match data.first() {
                    Some(b'"') => self.quoted(&data, about, wrappers),
                    _ => {
                        self.object(data, about, wrappers);
                        true
                    }
                };
            }
            if let Some(data) = part(&members.data_base64) {
                return self.encoded(&data, about, wrappers);
            }
        }
        let line = members.shipper.then(|| part(&members.message).or_else(|| part(&members.log))).flatten();
        line.is_some_and(|line| self.quoted(&line, about, wrappers))
    }

    /// The elements of a list; false if it is none.
    fn list(&mut self, list: &Bytes, about: &Item, wrappers: usize) -> bool {
        let Some(elements) = skim::elements(list, self.items_max) else { return false };
        for element in elements {
            self.object(list.slice(element), about, wrappers);
        }
        true
    }

    fn log_events(&mut self, events: &Bytes, about: &Item, wrappers: usize) -> bool {
        let Some(elements) = skim::elements(events, self.items_max) else { return false };
        for element in elements {
            let event = events.slice(element);
            let about = carried("cloudwatch", skim::text_at(&event, &["id"]), about);
            let message = skim::member(&event, "message").map(|message| event.slice_ref(message));
            if !message.is_some_and(|message| self.quoted(&message, &about, wrappers)) {
                // A line of a log: the whole says when it was written.
                self.push(event, &about);
            }
        }
        true
    }

    /// A JSON string that holds JSON; false if it holds anything else.
    pub(super) fn quoted(&mut self, string: &[u8], about: &Item, wrappers: usize) -> bool {
        let [b'"', inner @ .., b'"'] = string else { return false };
        if !self.budget.take(inner.len()) {
            return false;
        }
        let text = Bytes::from(skim::unescape(inner).into_owned());
        self.container(&text, about, wrappers)
    }

    /// Text that is one JSON container, or several; false if it is anything else.
    pub(super) fn container(&mut self, text: &Bytes, about: &Item, wrappers: usize) -> bool {
        let trimmed = skim::trim(text);
        if !matches!(trimmed.first(), Some(b'{' | b'[')) {
            return false;
        }
        if is_one_container(trimmed) {
            self.value(text.slice_ref(trimmed), about, wrappers);
        } else {
            self.text(text, about, wrappers);
        }
        true
    }

    /// A JSON string of base64, gzip inside if it is; false if it is none. Of what cannot be decompressed within the
    /// limits only its size and digest are kept: a secret in it could not be seen.
    fn encoded(&mut self, string: &[u8], about: &Item, wrappers: usize) -> bool {
        let [b'"', inner @ .., b'"'] = string else { return false };
        match encoded::decode(&skim::unescape(inner), &mut self.budget) {
            Decoded::Bytes(bytes) => self.text(&bytes, about, wrappers),
            Decoded::Hidden => {
                let digest = hex::encode(Sha256::digest(inner));
                let kept = serde_json::json!({ "encoded_bytes": inner.len(), "sha256": digest });
                let mut about = about.clone();
                about.attributes.push((UNREAD, "encoded".to_owned()));
                self.push(Bytes::from(kept.to_string()), &about);
            }
            Decoded::Plain => return false,
        }
        true
    }
}

/// What is known about an item besides: the message that carried it.
fn carried(by: &str, id: Option<String>, about: &Item) -> Item {
    let Some(id) = id.filter(|id| !id.is_empty()) else { return about.clone() };
    let mut about = about.clone();
    about.id = Some(format!("{by}/{id}"));
    about.attributes.push((MESSAGE_ID, id));
    about
}

fn text_of(value: &[u8]) -> Option<String> {
    let [b'"', inner @ .., b'"'] = value else { return None };
    String::from_utf8(skim::unescape(inner).into_owned()).ok()
}

#[cfg(test)]
mod tests;
