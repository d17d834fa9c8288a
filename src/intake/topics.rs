//! Topics of the configuration, read as a consumer group. An offset is committed once its message is durable.

use futures::future::join_all;
use pipeproof_ingest::kafka::{Arrived, Topics};

use super::reading::{RETRY, Reader, pause};

/// Most messages taken in at a time.
const BATCH: usize = 1_000;

/// Reads topics for a source until the node stops.
pub(super) async fn read(reader: Reader, topics: Topics) {
    let source = reader.source.as_str();
    let mut stopping = reader.shared.stopping.subscribe();
    loop {
        let arrived = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            arrived = topics.next(BATCH) => arrived,
        };
        match arrived {
            Ok(arrived) => {
                if !take(&reader, &arrived).await {
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

async fn take(reader: &Reader, arrived: &[Arrived]) -> bool {
    // Together, so that they share their syncs. A tombstone says nothing.
    let all = arrived.iter().filter(|message| !message.body.is_empty());
    let taken = join_all(all.map(|message| {
        let place = message.way.place.as_deref().unwrap_or_default();
        reader.take(&message.headers, &message.body, &message.way, place)
    }));
    taken.await.into_iter().all(|taken| taken)
}
