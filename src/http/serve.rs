//! Connections of HTTP clients: how many there may be, how long each may be silent, and how they end when the node stops.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::router;
use crate::node::Shared;
use crate::tls::Peer;

/// Most connections at once, where the operating system gives enough descriptors; more wait in its queue.
const CONNECTIONS_MAX: u64 = 10_000;
/// Descriptors that connections leave for the log, the store and the lake.
const DESCRIPTORS_LEFT: u64 = 256;
/// How long the head of a request may take, counted from the answer before it.
const HEAD_WITHIN: Duration = Duration::from_secs(75);
/// How long requests under way may take once the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Serves until the node stops, then lets requests under way finish.
pub(crate) async fn serve<L>(mut listener: L, shared: Arc<Shared>)
where
    L: Listener<Addr: Into<Peer>>,
{
    let router = router(Arc::clone(&shared));
    let places = connections_max();
    let open = Arc::new(Semaphore::new(places));
    let mut stopping = shared.stopping.subscribe();
    loop {
        let next = async {
            // Nobody closes the semaphore.
            let place = Arc::clone(&open).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, (io, peer)) = tokio::select! {
            // A sender that is gone means that the node is, too.
            _ = stopping.wait_for(|stop| *stop) => break,
            next = next => next,
        };
        let (router, shared) = (router.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            converse(io, router, peer.into(), &shared).await;
            drop(place);
        });
    }
    drop(listener);
    // A client that keeps its connection busy does not keep us.
    drop(timeout(STOP_WITHIN, open.acquire_many(u32::try_from(places).unwrap_or(u32::MAX))).await);
}

/// Answers requests on a connection until either side ends it.
async fn converse<I>(io: I, router: Router, peer: Peer, shared: &Shared)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answers = tower::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        router.clone().oneshot(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(io), TowerToHyperService::new(answers)));
    let mut stopping = shared.stopping.subscribe();
    let stop = async move { drop(stopping.wait_for(|stop| *stop).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %crate::chain(&error), "a connection broke");
    }
}

/// As many connections as descriptors allow. The limit that this process may raise itself is raised before.
fn connections_max() -> usize {
    let descriptors = rlimit::increase_nofile_limit(CONNECTIONS_MAX + DESCRIPTORS_LEFT).unwrap_or_else(|error| {
        tracing::warn!(error = %error, "cannot raise the limit of open files");
        2 * DESCRIPTORS_LEFT
    });
    let places = descriptors.saturating_sub(DESCRIPTORS_LEFT).clamp(DESCRIPTORS_LEFT / 2, CONNECTIONS_MAX);
    usize::try_from(places).unwrap_or(usize::MAX)
}
