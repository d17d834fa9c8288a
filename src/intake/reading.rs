//! What every way in besides HTTP does with what it read: it keeps at it until the log has it, or the node stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pipeproof_engine::record::CollectionMode;
use pipeproof_ingest::receive::Way;
use tokio::sync::watch;

use super::{Arrival, NotTaken, take};
use crate::node::Shared;

/// How long to wait before something is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// What was read for a source.
#[derive(Clone, Debug)]
pub(super) struct Offered {
    pub(super) headers: HeaderMap,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Bytes,
    pub(super) way: Way,
    pub(super) mode: CollectionMode,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Kept {
    /// It is durable.
    Yes,
    /// It cannot be kept, however often it is tried.
    No(NotTaken),
    /// The node stops, or the source is gone.
    Over,
}

/// Takes in what was read for a source, however long it takes. False if the node stops before, or the source is gone.
pub(super) async fn kept(shared: &Arc<Shared>, source: &str, headers: &HeaderMap, body: &Bytes, way: &Way) -> bool {
    let offered = Offered {
        headers: headers.clone(),
        query: BTreeMap::new(),
        body: body.clone(),
        way: way.clone(),
        mode: CollectionMode::Live,
    };
    match keep(shared, source, &offered).await {
        Kept::Yes => true,
        Kept::Over => false,
        Kept::No(error) => {
            // Only what is larger than any request may be, or what no record has room for.
            tracing::error!(source, error = %crate::chain(&error), "what was read cannot be kept");
            false
        }
    }
}

/// The same, for what may be of any kind.
pub(super) async fn keep(shared: &Arc<Shared>, source: &str, offered: &Offered) -> Kept {
    let mut stopping = shared.stopping.subscribe();
    let mut told = false;
    loop {
        let Some(settings) = shared.source(source) else {
            tracing::warn!(source, "what comes for a source that was removed is not taken");
            return Kept::Over;
        };
        let arrival = Arrival {
            source: settings,
            headers: offered.headers.clone(),
            query: offered.query.clone(),
            body: offered.body.clone(),
            bearer: None,
            mode: offered.mode,
            way: offered.way.clone(),
        };
        match take(shared, arrival).await {
            Ok(_) => return Kept::Yes,
            Err(error) if error.is_temporary() => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(source, error = %crate::chain(&error), "reading waits");
                }
            }
            Err(error) => return Kept::No(error),
        }
        if pause(&mut stopping, RETRY).await {
            return Kept::Over;
        }
    }
}

/// Waits; true when the node stops meanwhile.
pub(super) async fn pause(stopping: &mut watch::Receiver<bool>, time: Duration) -> bool {
    tokio::time::timeout(time, stopping.wait_for(|stop| *stop)).await.is_ok()
}
