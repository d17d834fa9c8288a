//! Bodies of senders: read up to a size and within a time, and no more of them at once than there is room for.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::ApiError;
use crate::intake::NotTaken;
use crate::node::Shared;

/// What a permit stands for, bytes.
const PERMIT_BYTES: usize = 1 << 10;
/// Most bytes of bodies at once of senders that are known …
const KNOWN_BYTES_MAX: usize = 256 << 20;
/// … and of those whose signature can be checked only over the whole body: anybody can be one.
const CLAIMED_BYTES_MAX: usize = 96 << 20;
/// How long a sender waits for room before it is told to come again.
const ROOM_WITHIN: Duration = Duration::from_secs(10);
/// How long nothing may come of a body that is not complete.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// What is known of a sender before its body is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A token or a certificate stands for it.
    Known,
    /// It shows a signature.
    Claimed,
}

impl Standing {
    /// How long a body may take. GitHub, for one, waits for ten seconds.
    const fn time_max(self) -> Duration {
        match self {
            Self::Known => Duration::from_secs(600),
            Self::Claimed => Duration::from_secs(60),
        }
    }
}

/// How many bytes of bodies there is room for.
#[derive(Debug)]
pub(crate) struct Room {
    known: Arc<Semaphore>,
    claimed: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        let of = |bytes: usize| Arc::new(Semaphore::new(bytes / PERMIT_BYTES));
        Self { known: of(KNOWN_BYTES_MAX), claimed: of(CLAIMED_BYTES_MAX) }
    }
}

impl Room {
    async fn make(&self, standing: Standing, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let room = match standing {
            Standing::Known => &self.known,
            Standing::Claimed => &self.claimed,
        };
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        match timeout(ROOM_WITHIN, Arc::clone(room).acquire_many_owned(permits)).await {
            Ok(Ok(permit)) => Ok(permit),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => Err(ApiError::unavailable("there is no room for the body just now: send it again")),
        }
    }
}

/// A body, and the room it takes for as long as any part of it is held.
struct Held {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the body up to the limit; one that says it is larger is refused unread, and so is any while none can be taken.
pub(super) async fn read(
    shared: &Shared,
    standing: Standing,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, ApiError> {
    if let Some(reason) = shared.not_ready() {
        return Err(NotTaken::NotReady(reason).into());
    }
    let limit = shared.receiver.limits().body_bytes_max;
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|said| said > limit) {
        return Err(too_large(limit));
    }
    let until = Instant::now() + standing.time_max();
    let mut room = match said {
        Some(0) | None => None,
        Some(said) => Some(shared.room.make(standing, said).await?),
    };
    let mut bytes = BytesMut::new();
    let mut stream = body.into_data_stream();
    loop {
        let quiet = Instant::now() + QUIET_MAX;
        let Ok(chunk) = timeout_at(quiet.min(until), stream.next()).await else {
            return Err(ApiError::new(408, "slow_body", "the body did not arrive in time: send it again, or in parts"));
        };
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|_| ApiError::bad_request("the body ended before it was complete"))?;
        let len = bytes.len() + chunk.len();
        if len > limit {
            return Err(too_large(limit));
        }
        let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * PERMIT_BYTES;
        if len > held {
            let more = shared.room.make(standing, len - held).await?;
            match &mut room {
                Some(room) => room.merge(more),
                none => *none = Some(more),
            }
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Bytes::from_owner(Held { bytes: bytes.freeze(), _room: room }))
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(413, "body_too_large", format!("the body is larger than {limit} bytes: send it in parts"))
}
