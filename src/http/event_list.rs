//! `GET /v1/events`: stored events line by line (NDJSON), as OCSF objects or in our own words, in the order of the log.
//!
//! Records are read from the lake and decoded again, as the archive did. An answer that fails half-way is cut off, so that nobody takes
//! it for whole.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pipeproof_engine::event::Event;
use pipeproof_engine::ocsf;
use pipeproof_engine::record::Position;
use pipeproof_engine::time::Timestamp;
use pipeproof_record::lake::{Choice, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::ApiError;
use super::answers::Asked;
use crate::node::{PARTITION, Shared};

/// Events in an answer at most, and unless said.
const EVENTS_MAX: usize = 1_000_000;
const EVENTS: usize = 10_000;
/// What is told unless a start is said.
const OVER: Duration = Duration::from_secs(24 * 3_600);
/// How long the lake may take in what was detected.
const FRESH: Duration = Duration::from_secs(10);
/// Bytes sent at once, about, and pieces on their way to the client.
const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 16;

/// In which words events are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Words {
    /// Ours: `cicd` fields and the native event.
    #[default]
    Json,
    /// OCSF objects.
    Ocsf,
}

impl Words {
    /// An event in these words.
    pub(super) fn object(self, event: &Event) -> Value {
        match self {
            Self::Ocsf => ocsf::object(event),
            Self::Json => plain(event),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventQuery {
    #[serde(default)]
    format: Words,
    /// Received from here on; a day ago unless said.
    from: Option<Timestamp>,
    /// Received before this; now unless said.
    to: Option<Timestamp>,
    source: Option<String>,
    /// `action` of the event.
    action: Option<String>,
    /// Id of an event: what comes after it in the log.
    after: Option<String>,
    limit: Option<usize>,
}

/// What is asked for, checked.
struct Asking {
    words: Words,
    choice: Choice,
    action: Option<String>,
    after: Option<(u64, u32)>,
    limit: usize,
}

impl EventQuery {
    fn checked(self, now: Timestamp) -> Result<Asking, ApiError> {
        let to = self.to.unwrap_or(now);
        let from = self.from.unwrap_or_else(|| to.minus(OVER));
        if from >= to {
            return Err(ApiError::bad_request("`from` must be before `to`"));
        }
        let limit = self.limit.unwrap_or(EVENTS);
        if !(1..=EVENTS_MAX).contains(&limit) {
            return Err(ApiError::bad_request(format!("`limit` must be 1 to {EVENTS_MAX}")));
        }
        let after = self.after.map(|id| place(&id).ok_or_else(|| not_an_id(&id))).transpose()?;
        let choice = Choice { from, to, source: self.source };
        Ok(Asking { words: self.format, choice, action: self.action, after, limit })
    }
}

fn not_an_id(id: &str) -> ApiError {
    ApiError::bad_request(format!("`after` is the id of an event, such as {PARTITION}-17-0, not `{id}`"))
}

/// Index and number of an event's id, `PARTITION-INDEX-NUMBER`.
fn place(id: &str) -> Option<(u64, u32)> {
    let mut parts = id.split('-');
    let mut next = || parts.next()?.parse::<u64>().ok();
    let (partition, index, number) = (next()?, next()?, next()?);
    (partition == u64::from(PARTITION) && parts.next().is_none()).then_some(())?;
    Some((index, u32::try_from(number).ok()?))
}

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Asked(query): Asked<EventQuery>,
) -> Result<Response, ApiError> {
    let asking = query.checked(shared.clock.now())?;
    let turn = Arc::clone(&shared.listings).try_acquire_owned();
    let turn =
        turn.map_err(|_| ApiError::unavailable("too many lists of events are being read: try again in a moment"))?;
    if !shared.flush_lake(FRESH).await {
        tracing::debug!("events are listed before the lake has taken in everything");
    }
    let lake = shared.lake.pin();
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut send =
            |piece: Vec<u8>| sender.blocking_send(Ok(Bytes::from(piece))).is_ok() && !*shared.stopping.borrow();
        if let Err(error) = tell(&shared, &lake, &asking, &mut send) {
            tracing::error!(error = %crate::chain(&*error), "cannot list events");
            // Nobody may be listening any more.
            let _told = sender.blocking_send(Err(io::Error::other("the list of events ends early")));
        }
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pieces)).into_response())
}

/// Hands on the events asked for, until nobody takes them any more.
fn tell(
    shared: &Shared,
    lake: &Snapshot,
    asking: &Asking,
    send: &mut dyn FnMut(Vec<u8>) -> bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut decoder = shared.decoder();
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let mut left = asking.limit;
    for stored in lake.records_of(PARTITION, &asking.choice)? {
        let stored = stored?;
        let index = stored.index;
        if left == 0 {
            break;
        }
        if asking.after.is_some_and(|(after, _)| index < after) {
            continue;
        }
        let record = stored.decode()?;
        let received = record.envelope.received;
        let asked_source = asking.choice.source.as_ref().is_none_or(|source| *source == record.envelope.source);
        if received < asking.choice.from || received >= asking.choice.to || !asked_source {
            continue;
        }
        let read = decoder.read(Position { partition: PARTITION, index }, &record);
        for event in read.unwrap_or_else(|dead| dead.leaks) {
            let action = asking.action.as_deref();
            let told = action
                .is_none_or(|action| event.fields.get_text(pipeproof_engine::fields::Field::Action) == Some(action))
                && asking.after.is_none_or(|after| (index, event.id.sub) > after);
            if !told || left == 0 {
                continue;
            }
            left -= 1;
            serde_json::to_writer(&mut piece, &asking.words.object(&event))?;
            piece.push(b'\n');
        }
        if piece.len() >= PIECE_BYTES && !send(std::mem::take(&mut piece)) {
            return Ok(());
        }
    }
    if !piece.is_empty() {
        send(piece);
    }
    Ok(())
}

/// An event in our own words.
fn plain(event: &Event) -> Value {
    let native = serde_json::from_slice(&event.native)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&event.native).into_owned()));
    json!({
        "id": event.id.to_string(),
        "source": &*event.source,
        "source_type": event.source_type,
        "item": &*event.item,
        "time": event.time,
        "time_known": event.time_known,
        "received": event.received,
        "auth": event.auth,
        "mode": event.mode,
        "fields": event.fields.to_json(),
        "native": native,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_place_in_the_log() {
        assert_eq!(place("0-17-3"), Some((17, 3)));
        for wrong in ["", "0-17", "1-17-3", "0-17-3-4", "0--3", "0-17-4294967296"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_asked_is_checked_and_filled_in() {
        let now = Timestamp::from_secs(1_000_000);
        let query =
            |text: &str| axum::extract::Query::<EventQuery>::try_from_uri(&format!("/?{text}").parse().unwrap());
        let asking = query("format=ocsf&source=hooks").unwrap().0.checked(now).unwrap();
        assert_eq!((asking.words, asking.limit, asking.choice.to), (Words::Ocsf, EVENTS, now));
        assert_eq!(asking.choice.from, now.minus(OVER));
        for wrong in [
            "limit=0",
            "limit=1000001",
            "after=x",
            "from=1970-01-12T13:46:40Z",
            "to=1970-01-01T00:00:00Z&from=1970-01-02T00:00:00Z",
        ] {
            assert!(query(wrong).unwrap().0.checked(now).is_err(), "{wrong}");
        }
        assert!(query("format=cef").is_err() && query("form=ocsf").is_err());
    }
}
