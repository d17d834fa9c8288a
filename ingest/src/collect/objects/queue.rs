//! Objects that messages of a queue name: read as soon as they are stored, without listing anything.
//!
//! A message is deleted once everything that it names is durable here. One whose object is not given just now comes again,
//! later each time; one that nobody can understand, or that never works, is named and goes. Amazon SQS over its JSON protocol
//! ("Amazon SQS API Reference": `ReceiveMessage`, `DeleteMessageBatch`, `ChangeMessageVisibility`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Method, Request};
use async_trait::async_trait;
use bytes::Bytes;
use engine::clock::Clock;
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;

use super::super::http::{Answer, Transport};
use super::super::{CollectError, Collector, Cursors, Fetched, Next, PAGE_BYTES, Page, limits};
use super::beside::Beside;
use super::folders::is_own;
use super::pieces::{self, Read};
use crate::objects::notice::{Created, Notice};
use crate::objects::opened::{Bucket, Opened, ReadError};

/// How long a message that was received is not given to anybody else.
pub(super) const VISIBILITY: Duration = Duration::from_secs(300);
/// How long an empty queue is waited for: as long as SQS allows.
const WAIT: Duration = Duration::from_secs(20);
/// How often a message may come before it is named as lost: with the waits in between about a day.
const RECEIVES_MAX: u32 = 30;
const FIRST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Largest answer: ten messages of 1 MiB, escaped.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Most receipts of one request.
const RECEIPTS: usize = 10;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id, the same each time it comes.
    pub id: String,
    /// What deletes it.
    pub receipt: String,
    /// What it says.
    pub body: String,
    /// How often it came, this time included.
    pub received: u32,
}

/// A queue.
#[async_trait]
pub trait Messages: Send + Sync + std::fmt::Debug {
    /// It, in a word.
    fn name(&self) -> String;

    /// Some messages, or none after a while. They are given to nobody else for [`VISIBILITY`].
    ///
    /// # Errors
    /// [`CollectError`].
    async fn receive(&self) -> Result<Vec<Message>, CollectError>;

    /// Messages that need not come again.
    ///
    /// # Errors
    /// [`CollectError`]: they come again.
    async fn delete(&self, receipts: &[String]) -> Result<(), CollectError>;

    /// A message comes again after this time from now, not before.
    ///
    /// # Errors
    /// [`CollectError`].
    async fn put_off(&self, receipt: &str, wait: Duration) -> Result<(), CollectError>;
}

/// Collects the objects that a queue's messages name.
#[derive(Debug)]
pub struct Queue {
    messages: Arc<dyn Messages>,
    buckets: Vec<Bucket>,
    prefixes: Vec<String>,
    source_type: SourceType,
    beside: Arc<Beside>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<Pending>,
    opened: Option<Opened>,
    trouble: Option<CollectError>,
}

/// A message that is worked on.
#[derive(Debug)]
struct Pending {
    message: Message,
    /// What is still to be read; none before it was looked into.
    objects: Option<VecDeque<Created>>,
    until: Timestamp,
}

/// What became of a message.
enum Outcome {
    Done,
    /// The page is full.
    Full,
    Failed(CollectError),
}

impl Queue {
    /// Objects in `buckets` that `messages` name. Nothing else is read, whatever a message says.
    #[must_use]
    pub fn new(
        messages: Arc<dyn Messages>,
        buckets: Vec<Bucket>,
        prefixes: Vec<String>,
        source_type: SourceType,
    ) -> Self {
        Self { messages, buckets, prefixes, source_type, beside: Arc::default(), state: Mutex::default() }
    }

    /// The same, beside others of the source.
    #[must_use]
    pub fn beside(mut self, others: &Arc<Beside>) -> Self {
        self.beside = Arc::clone(others);
        self
    }

    async fn work(
        &self,
        pending: &mut Pending,
        opened: &mut Option<Opened>,
        page: &mut Page,
        bytes: &mut usize,
    ) -> Outcome {
        let Pending { message, objects, .. } = pending;
        if objects.is_none() {
            match Notice::read(&message.body) {
                Ok(Notice::Nothing(_)) => return Outcome::Done,
                Ok(Notice::Created(named)) => *objects = Some(named.into()),
                Err(error) => {
                    page.lost.push(format!("message {} of {}: {error}", message.id, self.messages.name()));
                    *bytes += message.body.len();
                    let item = Fetched::new(Bytes::from(message.body.clone()));
                    page.items
                        .push(item.at(format!("sqs:{}", message.id)).about("collected.message", message.id.clone()));
                    return Outcome::Done;
                }
            }
        }
        let objects = objects.get_or_insert_default();
        while let Some(object) = objects.front() {
            let Some(bucket) = self.buckets.iter().find(|bucket| bucket.name == object.bucket) else {
                let named: String = object.bucket.chars().take(80).collect();
                page.lost.push(format!("message {} names the bucket `{named}`, which is not read here", message.id));
                objects.pop_front();
                continue;
            };
            let key = &object.key;
            if !self.prefixes.is_empty() && !self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
                || !is_own(key, self.source_type, false)
                || object.size == Some(0)
                || (opened.is_none() && self.beside.listed.read(bucket, key, object.etag.as_deref()).is_some())
            {
                objects.pop_front();
                continue;
            }
            let given = match opened.take().filter(|opened| opened.object.key == *key) {
                Some(opened) => Ok(opened),
                None => bucket.open(key).await,
            };
            let read = match given {
                Ok(given) => pieces::take(bucket, given, page, bytes).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(Read::Whole(read)) => self.beside.named.add(bucket, &read),
                Ok(Read::Begun(begun)) => {
                    *opened = Some(begun);
                    return Outcome::Full;
                }
                Err(ReadError::Store(error)) => {
                    if message.received < RECEIVES_MAX {
                        return Outcome::Failed(error);
                    }
                    let address = bucket.address(key);
                    page.lost.push(format!(
                        "{address}: given up after its message came {} times: {error}",
                        message.received
                    ));
                }
                Err(error) => pieces::lose(bucket, key, &error, page).await,
            }
            objects.pop_front();
        }
        Outcome::Done
    }
}

#[async_trait]
impl Collector for Queue {
    fn name(&self) -> String {
        format!("sqs.objects/{}", self.messages.name())
    }

    async fn page(&self, _cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        if let Some(trouble) = state.trouble.take() {
            return Err(trouble);
        }
        if state.pending.is_empty() {
            let until = now.plus(VISIBILITY);
            let received = self.messages.receive().await?;
            state.pending.extend(received.into_iter().map(|message| Pending { message, objects: None, until }));
        }
        let (mut page, mut bytes, mut had) = (Page::default(), 0, false);
        while bytes < PAGE_BYTES
            && let Some(mut pending) = state.pending.pop_front()
        {
            match self.work(&mut pending, &mut state.opened, &mut page, &mut bytes).await {
                Outcome::Done => {
                    had = true;
                    page.receipts.push(pending.message.receipt);
                }
                Outcome::Full => {
                    had = true;
                    state.pending.push_front(pending);
                    break;
                }
                Outcome::Failed(error) => {
                    let Message { receipt, received, id, .. } = &pending.message;
                    let wait = FIRST_WAIT.saturating_mul(1 << received.saturating_sub(1).min(12)).min(LONGEST_WAIT);
                    tracing::warn!(message = id, %error, ?wait, "what a message names is not given just now: it comes again");
                    // Otherwise it comes again when its time is over.
                    if let Err(error) = self.messages.put_off(receipt, wait).await {
                        tracing::warn!(message = id, %error, "a message cannot be put off");
                    }
                    state.trouble = Some(error);
                }
            }
        }
        if had {
            state.trouble = None;
        }
        // What is still worked on must not come again meanwhile.
        for pending in state.pending.iter_mut().filter(|pending| pending.until.minus(VISIBILITY / 2) < now) {
            self.messages.put_off(&pending.message.receipt, VISIBILITY).await?;
            pending.until = now.plus(VISIBILITY);
        }
        page.next = Next::Now;
        Ok(page)
    }

    async fn taken(&self, receipts: &[String]) -> Result<(), CollectError> {
        self.messages.delete(receipts).await
    }
}

/// Signs requests.
#[async_trait]
pub trait Sign: Send + Sync + std::fmt::Debug {
    /// The same request, signed.
    ///
    /// # Errors
    /// [`CollectError::Credentials`].
    async fn signed(&self, request: Request<Bytes>) -> Result<Request<Bytes>, CollectError>;
}

/// A queue of Amazon SQS.
#[derive(Debug)]
pub struct SentMessages {
    queue: Url,
    transport: Arc<dyn Transport>,
    sign: Arc<dyn Sign>,
    clock: Arc<dyn Clock>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Received {
    #[serde(default)]
    messages: Option<Vec<ReceivedMessage>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceivedMessage {
    message_id: String,
    receipt_handle: String,
    #[serde(default)]
    body: String,
    #[serde(default)]
    attributes: std::collections::BTreeMap<String, String>,
}

impl SentMessages {
    /// The queue at `queue`, its URL as SQS gives it.
    #[must_use]
    pub fn new(queue: Url, transport: Arc<dyn Transport>, sign: Arc<dyn Sign>, clock: Arc<dyn Clock>) -> Self {
        Self { queue, transport, sign, clock }
    }

    async fn ask(&self, action: &'static str, mut body: Value) -> Result<Bytes, CollectError> {
        let asked = format!("{action} of {}", self.name());
        let unusable = |problem: String| CollectError::Content { asked: asked.clone(), problem };
        if let Some(body) = body.as_object_mut() {
            body.insert("QueueUrl".to_owned(), json!(self.queue.as_str()));
        }
        let mut request = Request::new(Bytes::from(body.to_string()));
        *request.method_mut() = Method::POST;
        let mut address = self.queue.clone();
        address.set_path("/");
        *request.uri_mut() = address.as_str().parse().map_err(|_| unusable("its URL is no address".to_owned()))?;
        let target =
            HeaderValue::from_str(&format!("AmazonSQS.{action}")).map_err(|error| unusable(error.to_string()))?;
        request.headers_mut().insert(HeaderName::from_static("x-amz-target"), target);
        let form = HeaderValue::from_static("application/x-amz-json-1.0");
        request.headers_mut().insert(::http::header::CONTENT_TYPE, form);
        let request = self.sign.signed(request).await?;
        let answer = self.transport.send(request, ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|source| CollectError::Transport { asked: asked.clone(), source })?;
        if let Some((until, why)) = limits::refused(answer.status, &answer.headers, &answer.body, self.clock.now()) {
            return Err(CollectError::Limited { host: self.name(), until, why });
        }
        check(answer, asked)
    }
}

/// Sorts answers that bring nothing.
fn check(answer: Answer, asked: String) -> Result<Bytes, CollectError> {
    let status = answer.status.as_u16();
    if answer.status.is_success() {
        return Ok(answer.body);
    }
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, message) = (text("__type"), format!("{}{}", text("message"), text("Message")));
    let kind = kind.rsplit('#').next().unwrap_or_default();
    // Who stands before the service may answer in another form.
    let text = match (kind, message.as_str()) {
        ("", "") => String::from_utf8_lossy(&answer.body).into_owned(),
        _ => format!("{kind} {message}"),
    };
    let said: String = text.chars().filter(|char| !char.is_control()).take(200).collect();
    Err(match (status, kind) {
        (_, "QueueDoesNotExist") | (404, _) => CollectError::Missing { asked, status, answer: said },
        (_, "RequestThrottled" | "ThrottlingException" | "OverLimit") => {
            CollectError::Answer { asked, status, answer: said }
        }
        (401 | 403, _) => CollectError::Refused { asked, status, answer: said },
        _ => CollectError::Answer { asked, status, answer: said },
    })
}

#[async_trait]
impl Messages for SentMessages {
    fn name(&self) -> String {
        self.queue.path_segments().and_then(Iterator::last).unwrap_or_default().to_owned()
    }

    async fn receive(&self) -> Result<Vec<Message>, CollectError> {
        let question = json!({
            "MaxNumberOfMessages": 10, "WaitTimeSeconds": WAIT.as_secs(), "VisibilityTimeout": VISIBILITY.as_secs(),
            // The first is the older name.
            "AttributeNames": ["ApproximateReceiveCount"], "MessageSystemAttributeNames": ["ApproximateReceiveCount"],
        });
        let answer = self.ask("ReceiveMessage", question).await?;
        let unusable = |error: serde_json::Error| CollectError::Content {
            asked: format!("ReceiveMessage of {}", self.name()),
            problem: error.to_string(),
        };
        let received: Received = serde_json::from_slice(&answer).map_err(unusable)?;
        let message = |message: ReceivedMessage| Message {
            received: message
                .attributes
                .get("ApproximateReceiveCount")
                .and_then(|count| count.parse().ok())
                .unwrap_or(1),
            id: message.message_id,
            receipt: message.receipt_handle,
            body: message.body,
        };
        Ok(received.messages.unwrap_or_default().into_iter().map(message).collect())
    }

    async fn delete(&self, receipts: &[String]) -> Result<(), CollectError> {
        let mut failed = 0;
        for some in receipts.chunks(RECEIPTS) {
            let entries: Vec<Value> = some
                .iter()
                .enumerate()
                .map(|(number, receipt)| json!({"Id": number.to_string(), "ReceiptHandle": receipt}))
                .collect();
            let answer = self.ask("DeleteMessageBatch", json!({ "Entries": entries })).await?;
            let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
            failed += answer.get("Failed").and_then(Value::as_array).map_or(0, Vec::len);
        }
        if failed > 0 {
            let problem = format!("{failed} messages were not deleted: they come again");
            return Err(CollectError::Content { asked: format!("DeleteMessageBatch of {}", self.name()), problem });
        }
        Ok(())
    }

    async fn put_off(&self, receipt: &str, wait: Duration) -> Result<(), CollectError> {
        let question = json!({"ReceiptHandle": receipt, "VisibilityTimeout": wait.as_secs()});
        self.ask("ChangeMessageVisibility", question).await.map(drop)
    }
}
