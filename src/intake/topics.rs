//! Topics of the configuration, read as a consumer group. An offset is committed once its message is durable.

use std::sync::Arc;

use futures::future::join_all;
use pipeproof_ingest::kafka::{Arrived, Topics};

use super::reading::{RETRY, kept, pause};
use crate::node::Shared;

/// Most messages taken in at a time.
const BATCH: usize = 1_000;

/// Reads topics for a source until the node stops.
pub(super) async fn read(shared: Arc<Shared>, source: String, topics: Topics) {
    let mut stopping = shared.stopping.subscribe();
    loop {
        let arrived = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            arrived = topics.next(BATCH) => arrived,
        };
        match arrived {
            Ok(arrived) => {
                if !take(&shared, &source, &arrived).await {
                    return;
                }
                if let Err(error) = topics.commit(&arrived) {
                    tracing::warn!(source, error = %error, "cannot commit how far topics were read");
                }
            }
            Err(error) => {
                tracing::warn!(source, error = %crate::chain(&error), "cannot read topics just now");
                if pause(&mut stopping, RETRY).await {
                    return;
                }
            }
        }
    }
}

async fn take(shared: &Arc<Shared>, source: &str, arrived: &[Arrived]) -> bool {
    // Together, so that they share their syncs. A tombstone says nothing.
    let all = arrived.iter().filter(|message| !message.body.is_empty());
    let taken = join_all(all.map(|message| kept(shared, source, &message.headers, &message.body, &message.way))).await;
    taken.into_iter().all(|taken| taken)
}
