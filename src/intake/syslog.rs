//! Syslog over TCP and TLS (RFC 5425). A sender gets no answer; it waits in its own buffers while we cannot take anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use http::HeaderMap;
use pipeproof_engine::record::{Authenticity, ITEM_BYTES_MAX};
use pipeproof_ingest::receive::{Framing, Way};
use pipeproof_ingest::redact::Carried;
use pipeproof_ingest::syslog::{Frames, counted};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Semaphore, watch};

use super::CLIENT_SUBJECT;
use super::reading::Reader;
use crate::tls::Peer;

/// Most senders at once.
const CONNECTIONS_MAX: usize = 1_000;
/// How long a sender may say nothing.
const QUIET_MAX: Duration = Duration::from_secs(3_600);
/// Read at a time.
const READ_BYTES: usize = 64 << 10;
/// Most messages taken in at a time.
const BATCH: usize = 5_000;

/// For whom is listened.
#[derive(Clone, Debug)]
pub(super) struct Receiving {
    pub(super) reader: Arc<Reader>,
    /// Whether senders may show certificates.
    pub(super) encrypted: bool,
    /// Turns true when the configuration does not name it any more.
    pub(super) ended: watch::Receiver<bool>,
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
pub(super) async fn listen<L: Listener<Addr: Remote>>(receiving: Receiving, mut listener: L) {
    let mut stopping = receiving.reader.shared.stopping.subscribe();
    let open = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let source = receiving.reader.source.as_str();
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
        let receiving = receiving.clone();
        tokio::spawn(async move {
            read(receiving, stream, &peer).await;
            drop(place);
        });
    }
}

impl Receiving {
    /// What the connection proves about the sender; `None` if it may not send.
    fn proven(&self, peer: &Peer) -> Option<(Authenticity, Option<String>)> {
        let Reader { shared, source, .. } = &*self.reader;
        // Unless the source says whose certificates it accepts, any of the trusted authorities will do.
        let named = self.encrypted && shared.names_certificate(source);
        let Some(certificate) = &peer.certificate else {
            return (!named).then_some((Authenticity::Unverified, None));
        };
        let now = shared.clock.now();
        let accepted = now <= certificate.not_after && (!named || shared.accepts_certificate(source, certificate, now));
        accepted.then(|| (Authenticity::Mtls, Some(certificate.key_id())))
    }
}

async fn read<S: AsyncRead + Unpin>(mut receiving: Receiving, mut stream: S, peer: &Peer) {
    let reader = Arc::clone(&receiving.reader);
    let source = reader.source.as_str();
    let mut stopping = reader.shared.stopping.subscribe();
    let mut frames = Frames::new(ITEM_BYTES_MAX);
    let mut buffer = vec![0; READ_BYTES];
    // A private key comes a line a message.
    let mut carried = Carried::default();
    loop {
        let read = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            // Who listens goes with the input; a connection of one that was replaced goes on.
            Ok(_) = receiving.ended.wait_for(|ended| *ended) => return,
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
            if !take(&receiving, peer, &batch, &carried).await {
                return;
            }
            carried = carried.next();
        }
        if ended {
            return;
        }
    }
}

async fn take(receiving: &Receiving, peer: &Peer, batch: &[bytes::Bytes], carried: &Carried) -> bool {
    let Reader { shared, source, .. } = &*receiving.reader;
    // Asked each time: a connection may outlive its certificate, and the configuration it was let in under.
    let Some(proven) = receiving.proven(peer) else {
        let shown = peer.certificate.as_ref().map_or("none", |certificate| certificate.subject.as_str());
        tracing::warn!(source, peer = %peer.address, shown, "a syslog sender whose certificate the source does not accept is cut off");
        return false;
    };
    // A message of RFC 3164 does not name its year.
    let framing = Framing::Syslog { received: shared.clock.now() };
    let mut attributes = vec![("syslog.peer", peer.address.ip().to_string())];
    attributes.extend(peer.certificate.as_ref().map(|certificate| (CLIENT_SUBJECT, certificate.subject.clone())));
    let way = Way { framing, proven: Some(proven), attributes, keep: true, carried: carried.clone(), ..Way::default() };
    let body = counted(batch);
    let place = || format!("{} messages of {}", batch.len(), peer.address);
    // Nothing but line breaks.
    body.is_empty() || receiving.reader.take(&HeaderMap::new(), &body, &way, &place()).await
}
