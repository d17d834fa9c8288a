//! Syslog over TCP and TLS (RFC 5425). A sender gets no answer; it waits in its own buffers while we cannot take anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use http::HeaderMap;
use pipeproof_engine::record::{Authenticity, RECORD_BYTES_MAX};
use pipeproof_ingest::receive::{Framing, Way};
use pipeproof_ingest::redact::Carried;
use pipeproof_ingest::syslog::{Frames, counted};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Semaphore;

use super::CLIENT_SUBJECT;
use super::reading::kept;
use crate::node::Shared;
use crate::tls::Peer;

/// Most senders at once.
const CONNECTIONS_MAX: usize = 1_000;
/// How long a sender may say nothing.
const QUIET_MAX: Duration = Duration::from_secs(3_600);
/// Read at a time.
const READ_BYTES: usize = 64 << 10;
/// Most messages taken in at a time.
const BATCH: usize = 5_000;

/// For which source is listened.
#[derive(Clone, Debug)]
pub(super) struct Receiving {
    pub(super) source: String,
    /// Whether the source says whose certificates it accepts; else any certificate of the trusted authorities will do.
    pub(super) named: bool,
}

/// A connection's other end, however it came.
pub(super) trait Remote {
    fn peer(self) -> Peer;
}

impl Remote for Peer {
    fn peer(self) -> Peer {
        self
    }
}

impl Remote for SocketAddr {
    fn peer(self) -> Peer {
        Peer { address: self, certificate: None }
    }
}

/// Takes in what senders connect with, until the node stops.
pub(super) async fn listen<L: Listener<Addr: Remote>>(shared: Arc<Shared>, receiving: Receiving, mut listener: L) {
    let mut stopping = shared.stopping.subscribe();
    let open = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let source = receiving.source.as_str();
    loop {
        let (stream, remote) = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let peer = remote.peer();
        let Ok(place) = Arc::clone(&open).try_acquire_owned() else {
            tracing::warn!(source, peer = %peer.address, "more than {CONNECTIONS_MAX} syslog connections: one more is closed");
            continue;
        };
        let (shared, receiving) = (Arc::clone(&shared), receiving.clone());
        tokio::spawn(async move {
            read(&shared, &receiving, stream, &peer).await;
            drop(place);
        });
    }
}

impl Receiving {
    /// What the connection proves about the sender; `None` if it may not send.
    fn proven(&self, shared: &Shared, peer: &Peer) -> Option<(Authenticity, Option<String>)> {
        let Some(certificate) = &peer.certificate else {
            return (!self.named).then_some((Authenticity::Unverified, None));
        };
        let now = shared.clock.now();
        let accepted =
            now <= certificate.not_after && (!self.named || shared.accepts_certificate(&self.source, certificate, now));
        accepted.then(|| (Authenticity::Mtls, Some(certificate.key_id())))
    }
}

async fn read<S: AsyncRead + Unpin>(shared: &Arc<Shared>, receiving: &Receiving, mut stream: S, peer: &Peer) {
    let source = receiving.source.as_str();
    let mut stopping = shared.stopping.subscribe();
    let mut frames = Frames::new(RECORD_BYTES_MAX);
    let mut buffer = vec![0; READ_BYTES];
    // A private key comes a line a message.
    let mut carried = Carried::default();
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
                tracing::debug!(source, peer = %peer.address, error = %error, "a syslog connection broke");
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
            if !take(shared, receiving, peer, &batch, &carried).await {
                return;
            }
            carried = carried.next();
        }
        if ended {
            return;
        }
    }
}

async fn take(
    shared: &Arc<Shared>,
    receiving: &Receiving,
    peer: &Peer,
    batch: &[bytes::Bytes],
    carried: &Carried,
) -> bool {
    // Asked each time: a connection may outlive its certificate, and the configuration it was let in under.
    let Some(proven) = receiving.proven(shared, peer) else {
        let shown = peer.certificate.as_ref().map_or("none", |certificate| certificate.subject.as_str());
        tracing::warn!(source = receiving.source, peer = %peer.address, shown, "a syslog sender whose certificate the source does not accept is cut off");
        return false;
    };
    // A message of RFC 3164 does not name its year.
    let now = shared.clock.now().to_string();
    let year = now.get(..4).and_then(|year| year.parse().ok()).unwrap_or(1970);
    let mut attributes = vec![("syslog.peer", peer.address.ip().to_string())];
    attributes.extend(peer.certificate.as_ref().map(|certificate| (CLIENT_SUBJECT, certificate.subject.clone())));
    let way = Way {
        framing: Framing::Syslog { year },
        proven: Some(proven),
        attributes,
        keep: true,
        carried: carried.clone(),
        ..Way::default()
    };
    let body = counted(batch);
    // Nothing but line breaks.
    body.is_empty() || kept(shared, &receiving.source, &HeaderMap::new(), &body, &way).await
}
