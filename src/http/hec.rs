//! Splunk's HTTP Event Collector, as Splunk forwarders, GitHub's audit log stream, Vector and Fluent Bit speak it. The
//! token is one of ours, bound to a source. What was answered with success is durable, so acknowledgements are known at once.
//!
//! Source: Splunk Enterprise, "HTTP Event Collector REST API endpoints" and "About HTTP Event Collector Indexer
//! Acknowledgment".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use pipeproof_ingest::receive::{Framing, HecAcks as Acks};
use serde_json::{Value, json};

use super::ApiError;
use super::answers::Asked;
use super::body::{Standing, read};
use super::sender::{Sender, bound};
use crate::node::Shared;

/// Header that names the channel of a client, a GUID.
const CHANNEL: &str = "x-splunk-request-channel";
/// Most channels whose acknowledgements are kept; the one that was quiet longest goes first.
const CHANNELS_MAX: usize = 1_000;
/// Most acknowledgements of a channel that wait to be asked for; the oldest go first, and their events are sent again.
const WAITING_MAX: usize = 10_000;

/// Acknowledgements that were not asked for yet, by token and channel.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    open: Mutex<BTreeMap<(String, String), Channel>>,
}

#[derive(Debug, Default)]
struct Channel {
    next: u64,
    waiting: BTreeSet<u64>,
    /// Number of the last request over all channels: who is quiet longest has the lowest.
    used: u64,
}

impl Channels {
    /// A new acknowledgement.
    fn acknowledge(&self, token: &str, channel: &str) -> u64 {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let used = open.values().map(|channel| channel.used).max().unwrap_or(0) + 1;
        let name = (token.to_owned(), channel.to_owned());
        if !open.contains_key(&name) && open.len() >= CHANNELS_MAX {
            let quiet = open.iter().min_by_key(|(_, channel)| channel.used).map(|(name, _)| name.clone());
            quiet.and_then(|quiet| open.remove(&quiet));
        }
        let channel = open.entry(name).or_default();
        let id = channel.next;
        channel.next += 1;
        channel.used = used;
        channel.waiting.insert(id);
        if channel.waiting.len() > WAITING_MAX {
            channel.waiting.pop_first();
        }
        id
    }

    /// Whether each was acknowledged; said once, false ever after.
    fn ask(&self, token: &str, channel: &str, ids: &[u64]) -> Value {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = open.get_mut(&(token.to_owned(), channel.to_owned()));
        let said = ids.iter().map(|id| {
            let acknowledged = known.as_mut().is_some_and(|channel| channel.waiting.remove(id));
            (id.to_string(), acknowledged.into())
        });
        Value::Object(said.collect())
    }
}

pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    Asked(query): Asked<BTreeMap<String, String>>,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    take(&shared, Framing::Hec, &sender, headers, query, body).await
}

pub(crate) async fn raw(
    State(shared): State<Arc<Shared>>,
    Asked(query): Asked<BTreeMap<String, String>>,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    take(&shared, Framing::HecRaw, &sender, headers, query, body).await
}

async fn take(
    shared: &Arc<Shared>,
    framing: Framing,
    sender: &Sender,
    headers: HeaderMap,
    query: BTreeMap<String, String>,
    body: Body,
) -> Response {
    let channel = channel(&headers, &query);
    let taken = async {
        let allowed = bound(shared, sender, None)?;
        let body = read(shared, allowed.standing(), &headers, body).await?;
        if body.is_empty() {
            return Err(ApiError::new(400, "empty_body", "No data"));
        }
        allowed.take(shared, framing, headers, query, body).await
    };
    if let Err(error) = taken.await {
        return refused(&error);
    }
    let mut answer = json!({ "text": "Success", "code": 0 });
    if let (Some(channel), Ok(caller)) = (channel, sender) {
        answer["ackId"] = shared.hec.acknowledge(&caller.id, &channel).into();
    }
    Json(answer).into_response()
}

fn channel(headers: &HeaderMap, query: &BTreeMap<String, String>) -> Option<String> {
    let header = headers.get(CHANNEL).and_then(|value| value.to_str().ok());
    let channel = header.or_else(|| query.get("channel").map(String::as_str))?;
    (1..=64).contains(&channel.len()).then(|| channel.to_owned())
}

/// An error in the collector's words: clients look at its number.
fn refused(error: &ApiError) -> Response {
    let (code, text) = match (error.status().as_u16(), error.code()) {
        (_, "token_missing") => (2, "Token is required"),
        (401 | 403 | 404, _) => (4, "Invalid token"),
        (_, "empty_body") => (5, "No data"),
        (503, _) => (9, "Server is busy"),
        (500, _) => (8, "Internal server error"),
        _ => (6, "Invalid data format"),
    };
    error.answer(json!({ "text": text, "code": code, "detail": error.message() }))
}

pub(crate) async fn ack(
    State(shared): State<Arc<Shared>>,
    Asked(query): Asked<BTreeMap<String, String>>,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let caller = match &sender {
        Ok(caller) => caller,
        Err(refusal) => return refused(&ApiError::from(*refusal)),
    };
    let Some(channel) = channel(&headers, &query) else {
        return ApiError::bad_request("Data channel is missing")
            .answer(json!({ "text": "Data channel is missing", "code": 10 }));
    };
    let asked = match read(&shared, Standing::Known, &headers, body).await {
        Ok(body) => serde_json::from_slice::<Acks>(&body),
        Err(error) => return refused(&error),
    };
    match asked {
        Ok(asked) if asked.acks.len() > WAITING_MAX => {
            refused(&ApiError::bad_request(format!("more than {WAITING_MAX} acknowledgements are asked for at once")))
        }
        Ok(asked) => Json(json!({ "acks": shared.hec.ask(&caller.id, &channel, &asked.acks) })).into_response(),
        Err(error) => refused(&ApiError::bad_request(error.to_string())),
    }
}

/// Public: load balancers ask without a token.
pub(crate) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    match shared.not_ready() {
        None => Json(json!({ "text": "HEC is healthy", "code": 17 })).into_response(),
        Some(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "text": "HEC is unhealthy, queues are full", "code": 18 })))
                .into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_said_once() {
        let channels = Channels::default();
        assert_eq!((channels.acknowledge("t", "a"), channels.acknowledge("t", "a")), (0, 1));
        assert_eq!(channels.ask("t", "a", &[0, 1, 2]), json!({"0": true, "1": true, "2": false}));
        assert_eq!(channels.ask("t", "a", &[0]), json!({"0": false}));
        assert_eq!(channels.acknowledge("t", "b"), 0, "each channel counts for itself");
        assert_eq!(channels.ask("other", "b", &[0]), json!({"0": false}), "and belongs to its token");
    }

    #[test]
    fn memory_is_bounded() {
        let channels = Channels::default();
        for number in 0..CHANNELS_MAX + 10 {
            channels.acknowledge("t", &number.to_string());
        }
        assert_eq!(channels.open.lock().unwrap().len(), CHANNELS_MAX);
        assert_eq!(channels.ask("t", "0", &[0]), json!({"0": false}), "the quietest went");
        for _ in 0..=WAITING_MAX {
            channels.acknowledge("t", "busy");
        }
        assert_eq!(channels.ask("t", "busy", &[0, 1]), json!({"0": false, "1": true}));
    }
}
