//! Accepting TLS connections: handshakes run beside each other, are limited in number and time, and only finished ones come
//! out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use pipeproof_ingest::authentic::ClientCertificate;
use prometheus::IntCounterVec;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Endpoint, Peer};
use crate::accept::Accepting;

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Most handshakes at once; more connections wait in the operating system's queue.
const HANDSHAKES_MAX: usize = 1_000;
/// How often the log tells of handshakes that failed: anybody can cause them.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A listener whose connections are those that finished their handshake.
pub(crate) struct TlsListener {
    listener: Accepting,
    endpoint: Arc<Endpoint>,
    handshakes: JoinSet<Result<(TlsStream<TcpStream>, Peer), NotShaken>>,
    failed: IntCounterVec,
    told: Option<Instant>,
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
enum NotShaken {
    #[error("no TLS handshake within {} s", HANDSHAKE_MAX.as_secs())]
    Slow(SocketAddr),
    #[error("the TLS handshake failed")]
    Handshake(SocketAddr, #[source] io::Error),
    #[error("the client's certificate cannot be read")]
    Certificate(SocketAddr, #[source] pipeproof_ingest::authentic::CertificateError),
}

impl NotShaken {
    const fn peer(&self) -> SocketAddr {
        match self {
            Self::Slow(peer) | Self::Handshake(peer, _) | Self::Certificate(peer, _) => *peer,
        }
    }
}

impl TlsListener {
    /// Speaks TLS on what `listener` accepts; `failed` counts handshakes that failed, by endpoint.
    pub(crate) fn new(listener: Accepting, endpoint: Arc<Endpoint>, failed: IntCounterVec) -> Self {
        Self { listener, endpoint, handshakes: JoinSet::new(), failed, told: None }
    }

    /// The next connection that finished its handshake. Nothing is lost when this is dropped before it is done.
    pub(crate) async fn accept_tls(&mut self) -> (TlsStream<TcpStream>, Peer) {
        loop {
            tokio::select! {
                Some(shaken) = self.handshakes.join_next() => match shaken {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(error)) => self.tell(&error),
                    Err(error) => tracing::error!(error = %error, "a TLS handshake ended"),
                },
                (stream, address) = self.listener.next(), if self.handshakes.len() < HANDSHAKES_MAX => {
                    self.handshakes.spawn(handshake(TlsAcceptor::from(self.endpoint.config()), stream, address));
                }
            }
        }
    }

    fn tell(&mut self, error: &NotShaken) {
        self.failed.with_label_values(&[self.endpoint.name.as_str()]).inc();
        let (endpoint, peer, now) = (self.endpoint.name.as_str(), error.peer(), Instant::now());
        if self.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            tracing::debug!(endpoint, %peer, error = %crate::chain(error), "a TLS connection came to nothing");
        } else {
            self.told = Some(now);
            tracing::warn!(endpoint, %peer, error = %crate::chain(error), "a TLS connection came to nothing; more within a minute are counted only");
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<(TlsStream<TcpStream>, Peer), NotShaken> {
    let shaken = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await;
    let stream =
        shaken.map_err(|_| NotShaken::Slow(address))?.map_err(|source| NotShaken::Handshake(address, source))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = shown.map(|shown| ClientCertificate::read(shown)).transpose();
    let certificate = certificate.map_err(|source| NotShaken::Certificate(address, source))?.map(Arc::new);
    Ok((stream, Peer { address, certificate }))
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.accept_tls().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Peer { address: self.listener.address()?, certificate: None })
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self { address, certificate: None }
    }
}
