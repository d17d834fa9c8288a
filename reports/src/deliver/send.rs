//! One attempt: sign, post, read a little of the answer, classify.

use std::error::Error as _;
use std::time::Duration;

use pipeproof_engine::clock::Clock;
use pipeproof_engine::time::{Timestamp, micros};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use sha2::{Digest as _, Sha256};

use super::body::body;
use super::egress::{EgressError, FilteringResolver};
use super::outbox::Queued;
use super::receipt::{DeliveryState, RESPONSE_HEAD_BYTES, Receipt};
use super::retry::{Ended, Verdict, classify, retry_after};
use super::sign::{HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, signature_header};
use super::target::{Target, TargetError};

/// Most of a response that is read, to hash it.
const RESPONSE_READ_BYTES: usize = 64 * 1024;
/// How long a target that is paused or disabled waits before it is asked again with one message.
pub const PAUSE: Duration = Duration::from_secs(15 * 60);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From the start to the last byte of the answer that is read.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), total: Duration::from_secs(20) }
    }
}

/// What an attempt came to.
#[derive(Debug)]
pub(super) struct Attempted {
    pub(super) delivery: i64,
    pub(super) receipt: Receipt,
    pub(super) verdict: Verdict,
    /// Until when the receiver asked not to be called at all.
    pub(super) hold: Option<Timestamp>,
}

/// Sends to one target.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) target: Target,
    client: reqwest::Client,
    total: Duration,
}

struct Answer {
    status: u16,
    retry_after: Option<String>,
    head: Vec<u8>,
    digest: String,
}

impl Sender {
    pub(super) fn new(target: Target, timeouts: Timeouts) -> Result<Self, TargetError> {
        let resolver = FilteringResolver { policy: target.policy, plain: target.is_plain() };
        let client = reqwest::Client::builder()
            .user_agent(concat!("pipeproof/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(resolver)
            // A proxy from the environment would resolve names itself, past the egress policy.
            .no_proxy()
            .referer(false)
            .connect_timeout(timeouts.connect)
            .timeout(timeouts.total)
            .build()
            .map_err(|error| TargetError::Client { name: target.name.clone(), reason: error.to_string() })?;
        Ok(Self { target, client, total: timeouts.total })
    }

    /// Makes one attempt. `random` is uniform in `[0, 1)`.
    pub(super) async fn attempt(&self, queued: &Queued, clock: &dyn Clock, random: f64) -> Attempted {
        let at = clock.now();
        let started = tokio::time::Instant::now();
        let answer = self.post(queued, at).await;
        let latency = started.elapsed();
        let now = clock.now();
        let (ended, error) = match &answer {
            Ok(answer) => (Ended::Status(answer.status), None),
            Err((ended, text)) => (ended.clone(), Some(text.clone())),
        };
        let mut verdict = classify(&ended);
        let attempts = queued.attempts.saturating_add(1);
        let asked = answer.as_ref().ok().and_then(|answer| answer.retry_after.as_deref());
        let asked = asked.and_then(|value| retry_after(value, now));
        let mut hold = None;
        let (state, note) = match verdict {
            Verdict::Delivered => (DeliveryState::Delivered, None),
            Verdict::DeadLetter => (DeliveryState::Dead, Some("the receiver will not take it; it is a dead letter")),
            Verdict::PauseTarget => {
                (DeliveryState::Retry { next: now.plus(PAUSE) }, Some("the receiver refuses us; the target is paused"))
            }
            Verdict::DisableTarget => (
                DeliveryState::Retry { next: now.plus(PAUSE) },
                Some("the receiver is gone for good; the target is disabled"),
            ),
            Verdict::Retry => {
                hold = asked.map(|wait| now.plus(wait));
                let since = Duration::from_micros(u64::try_from(now.micros_since(queued.queued)).unwrap_or(0));
                match self.target.schedule.delay(attempts, since, random) {
                    Some(wait) => (DeliveryState::Retry { next: now.plus(asked.unwrap_or(wait)) }, None),
                    None => {
                        verdict = Verdict::DeadLetter;
                        (
                            DeliveryState::Dead,
                            Some("given up after the last attempt of the schedule; it is a dead letter"),
                        )
                    }
                }
            }
        };
        let error = match (error, note) {
            (Some(error), Some(note)) => Some(format!("{error}; {note}")),
            (error, note) => error.or(note.map(str::to_owned)),
        };
        let (status, digest, head) = match answer {
            Ok(answer) => (Some(answer.status), Some(answer.digest), self.printable(&answer.head)),
            Err(_) => (None, None, String::new()),
        };
        let receipt = Receipt {
            message: queued.message.id.clone(),
            target: self.target.name.clone(),
            attempt: attempts,
            at,
            latency_ms: u64::try_from(micros(latency) / 1_000).unwrap_or(0),
            status,
            error,
            response_sha256: digest,
            response_head: head,
            state,
        };
        Attempted { delivery: queued.delivery, receipt, verdict, hold }
    }

    async fn post(&self, queued: &Queued, at: Timestamp) -> Result<Answer, (Ended, String)> {
        let body = body(&queued.message);
        let seconds = at.as_micros().div_euclid(1_000_000);
        let id = &queued.message.id;
        let mut request = self
            .client
            .post(self.target.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(HEADER_ID, id)
            .header(HEADER_TIMESTAMP, seconds);
        if !self.target.secrets.is_empty() {
            request = request.header(HEADER_SIGNATURE, signature_header(&self.target.secrets, id, seconds, &body));
        }
        for (name, value) in &self.target.headers {
            request = request.header(name, value.clone());
        }
        let deadline = tokio::time::Instant::now() + self.total;
        let mut response = request.body(body).send().await.map_err(|error| self.explain(error))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // The status is the answer. A body that comes slowly, breaks off or never ends changes nothing about it.
        let mut head = Vec::new();
        let mut hash = Sha256::new();
        let mut read = 0;
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(deadline, response.chunk()).await {
            let wanted = chunk.len().min(RESPONSE_READ_BYTES - read);
            let chunk = chunk.slice(..wanted);
            hash.update(&chunk);
            read += chunk.len();
            head.extend(chunk.iter().take(RESPONSE_HEAD_BYTES - head.len()));
            if read == RESPONSE_READ_BYTES {
                break;
            }
        }
        Ok(Answer { status, retry_after, head, digest: hex::encode(hash.finalize()) })
    }

    /// Why there was no answer, without the URL, which may hold a secret.
    fn explain(&self, error: reqwest::Error) -> (Ended, String) {
        let error = error.without_url();
        let mut cause = error.source();
        let mut last = None;
        while let Some(inner) = cause {
            if let Some(refused) = inner.downcast_ref::<EgressError>() {
                return (Ended::Refused, refused.to_string());
            }
            last = Some(inner.to_string());
            cause = inner.source();
        }
        let what = if error.is_timeout() {
            "no answer in time"
        } else if error.is_connect() {
            "cannot connect"
        } else {
            "no answer"
        };
        let why = last.map(|last| format!(": {last}")).unwrap_or_default();
        (Ended::NoAnswer, format!("{what} from {}{why}", self.target.place()))
    }

    /// A response's head as text that can be shown: our own secrets, should the receiver echo them, and control
    /// characters are replaced.
    fn printable(&self, head: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(head).into_owned();
        let secrets = self.target.secrets.iter().map(super::sign::WebhookSecret::reveal);
        let values = self.target.headers.iter().filter_map(|(_, value)| value.to_str().ok().map(str::to_owned));
        for secret in secrets.chain(values).filter(|secret| secret.len() >= 8) {
            text = text.replace(&secret, "[redacted]");
        }
        text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
    }
}
