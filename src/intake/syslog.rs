//! Syslog over TCP. A sender gets no answer; it waits in its own buffers while we cannot take anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use pipeproof_engine::record::{Authenticity, RECORD_BYTES_MAX};
use pipeproof_ingest::receive::{Framing, Way};
use pipeproof_ingest::syslog::{Frames, counted};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::reading::kept;
use crate::node::Shared;

/// Most senders at once.
const CONNECTIONS_MAX: usize = 1_000;
/// How long a sender may say nothing.
const QUIET_MAX: Duration = Duration::from_secs(3_600);
/// Read at a time.
const READ_BYTES: usize = 64 << 10;
/// Most messages taken in at a time.
const BATCH: usize = 5_000;

/// Takes in what senders connect with, until the node stops.
pub(super) async fn listen(shared: Arc<Shared>, source: String, listener: TcpListener) {
    let mut stopping = shared.stopping.subscribe();
    let open = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors: some will be closed.
                tracing::warn!(source, error = %error, "cannot accept a syslog connection");
                tokio::time::sleep(super::reading::RETRY).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&open).try_acquire_owned() else {
            tracing::warn!(source, %peer, "more than {CONNECTIONS_MAX} syslog connections: one more is closed");
            continue;
        };
        let (shared, source) = (Arc::clone(&shared), source.clone());
        tokio::spawn(async move {
            read(&shared, &source, stream, peer).await;
            drop(place);
        });
    }
}

async fn read(shared: &Arc<Shared>, source: &str, mut stream: TcpStream, peer: SocketAddr) {
    let mut stopping = shared.stopping.subscribe();
    let mut frames = Frames::new(RECORD_BYTES_MAX);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            read = tokio::time::timeout(QUIET_MAX, stream.read(&mut buffer)) => read,
        };
        let ended = match read {
            Ok(Ok(0)) | Err(_) => true,
            Ok(Ok(count)) => {
                frames.push(buffer.get(..count).unwrap_or_default());
                false
            }
            Ok(Err(error)) => {
                tracing::debug!(source, %peer, error = %error, "a syslog connection broke");
                true
            }
        };
        loop {
            let mut batch = Vec::new();
            while batch.len() < BATCH
                && let Some(frame) = frames.next_frame()
            {
                batch.push(frame);
            }
            if ended && batch.len() < BATCH {
                batch.extend(frames.last_frame());
            }
            if batch.is_empty() {
                break;
            }
            if !take(shared, source, peer, &batch).await {
                return;
            }
        }
        if ended {
            return;
        }
    }
}

async fn take(shared: &Arc<Shared>, source: &str, peer: SocketAddr, batch: &[bytes::Bytes]) -> bool {
    // A message of RFC 3164 does not name its year.
    let now = shared.clock.now().to_string();
    let year = now.get(..4).and_then(|year| year.parse().ok()).unwrap_or(1970);
    let way = Way {
        framing: Framing::Syslog { year },
        proven: Some((Authenticity::Unverified, None)),
        attributes: vec![("syslog.peer", peer.ip().to_string())],
        keep: true,
        ..Way::default()
    };
    let body = counted(batch);
    // Nothing but line breaks.
    body.is_empty() || kept(shared, source, &HeaderMap::new(), &body, &way).await
}
