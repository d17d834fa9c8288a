//! `GET /v1/tail`: events as detection has passed them, line by line (NDJSON), from now on until either side ends it.
//!
//! It reads the log behind detection, as the archive does, so nothing ever waits for who listens. Who takes nothing for some seconds is
//! let go, and so is who is so far behind that the log no longer holds what comes next; what was missed is in `GET /v1/events`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pipeproof_engine::fields::Field;
use pipeproof_ingest::enrich::Decoder;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::ApiError;
use super::answers::Asked;
use super::event_list::Words;
use crate::node::{NodeError, PARTITION, Shared};
use crate::roles::decode_leaf;

/// Records read at once at most, and their bytes: what a listener costs in memory, about three times over.
const RECORDS: usize = 1_000;
const BYTES: usize = 1 << 20;
/// Pieces on their way to the client.
const PIECES: usize = 2;
/// How long a listener may take nothing while there is something.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TailQuery {
    #[serde(default)]
    format: Words,
    source: Option<String>,
    /// `action` of the event.
    action: Option<String>,
}

pub(crate) async fn tail(
    State(shared): State<Arc<Shared>>,
    Asked(query): Asked<TailQuery>,
) -> Result<Response, ApiError> {
    let turn = Arc::clone(&shared.listeners).try_acquire_owned();
    let turn = turn.map_err(|_| ApiError::unavailable("too many listen already: try again later"))?;
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let from = *shared.detected.borrow();
    tokio::spawn(async move {
        let _turn = turn;
        if let Err(error) = follow(&shared, &query, from, &sender).await {
            tracing::info!(error = %crate::chain(&error), "a listener is let go");
            shared.metrics.listeners_dropped.inc();
            // If it comes back, it learns that this is not all.
            let _told = sender.try_send(Err(io::Error::other("the stream ends early")));
        }
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pieces)).into_response())
}

/// Why somebody who listens is let go.
#[derive(Debug, thiserror::Error)]
enum Dropped {
    #[error("it took nothing for {} s", PATIENCE.as_secs())]
    Stalled,
    #[error("it is at record {at}, and the log begins at {first}")]
    Behind { at: u64, first: u64 },
    #[error(transparent)]
    Failed(#[from] NodeError),
}

/// Hands on events until nobody takes them any more or the node stops.
async fn follow(
    shared: &Arc<Shared>,
    query: &TailQuery,
    from: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), Dropped> {
    let (mut detected, mut stopping) = (shared.detected.subscribe(), shared.stopping.subscribe());
    let mut decoder = shared.decoder();
    let mut at = from;
    loop {
        let there_is_more = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => false,
            () = sender.closed() => false,
            changed = detected.wait_for(|position| *position > at) => changed.is_ok(),
        };
        if !there_is_more {
            return Ok(());
        }
        let first = shared.log.first();
        if at < first {
            return Err(Dropped::Behind { at, first });
        }
        let end = *detected.borrow();
        let piece;
        (decoder, at, piece) = next_piece(shared, query, decoder, at, end).await?;
        if piece.is_empty() {
            continue;
        }
        match sender.send_timeout(Ok(Bytes::from(piece)), PATIENCE).await {
            Ok(()) => {}
            Err(mpsc::error::SendTimeoutError::Closed(_)) => return Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => return Err(Dropped::Stalled),
        }
    }
}

/// The events of the next records below `end`, as lines, and where the records after them begin.
async fn next_piece(
    shared: &Arc<Shared>,
    query: &TailQuery,
    mut decoder: Decoder,
    at: u64,
    end: u64,
) -> Result<(Decoder, u64, Vec<u8>), NodeError> {
    let reader = Arc::clone(shared);
    let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(RECORDS);
    let mut leaves = tokio::task::spawn_blocking(move || reader.log.read(at, count, BYTES))
        .await
        .map_err(NodeError::part("read the log"))?
        .map_err(NodeError::part("read the log"))?;
    leaves.retain(|(index, _)| *index < end);
    let next = leaves.last().map_or(end, |(index, _)| index + 1);
    let repeated = shared
        .store
        .duplicate_indexes(PARTITION, at..next)
        .await
        .map_err(NodeError::part("read which records repeat others"))?;
    let (words, source, action) = (query.format, query.source.clone(), query.action.clone());
    let told = move || {
        let mut piece = Vec::new();
        for (index, leaf) in leaves.iter().filter(|(index, _)| !repeated.contains(index)) {
            // What cannot be read was left out by detection, and counted there.
            let Ok(decoded) = decode_leaf(&mut decoder, *index, leaf) else { continue };
            let is_asked_for = source.as_ref().is_none_or(|source| *source == decoded.record.envelope.source);
            for event in decoded.events().iter().filter(|_| is_asked_for) {
                let of_event = event.fields.get_text(Field::Action);
                if action.as_deref().is_none_or(|action| of_event == Some(action)) {
                    piece.extend_from_slice(words.object(event).to_string().as_bytes());
                    piece.push(b'\n');
                }
            }
        }
        (decoder, next, piece)
    };
    tokio::task::spawn_blocking(told).await.map_err(NodeError::part("decode records for a listener"))
}
