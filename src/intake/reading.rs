//! What every way in besides HTTP does with what it read: it keeps at it until the log has it, or the node stops. What never can
//! be taken is passed over, on record with where it stood: nothing ends a reader but the node, or the end of its source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pipeproof_engine::control::Collected;
use pipeproof_engine::record::CollectionMode;
use pipeproof_ingest::receive::{Refusal, Way};
use tokio::sync::watch;

use super::collecting::write_down;
use super::inputs::Failure;
use super::{Arrival, NotTaken, take};
use crate::node::Shared;

/// How long to wait before something is tried again, at first.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// The longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_secs(8);
/// What the record of what an input passed over calls it, before its name.
pub(super) const READS: &str = "reads.";
/// What of a reason is kept.
const REASON_CHARS: usize = 300;

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

/// Reads for a source.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    pub(super) source: String,
    /// What it reads, for people.
    name: String,
}

impl Reader {
    pub(super) const fn new(shared: Arc<Shared>, source: String, name: String) -> Self {
        Self { shared, source, name }
    }

    /// Takes in what was read at a place, however long it takes. What can never be taken is passed over. False if the node
    /// stops before, or the source is gone.
    pub(super) async fn take(&self, headers: &HeaderMap, body: &Bytes, way: &Way, place: &str) -> bool {
        let offered = Offered {
            headers: headers.clone(),
            query: BTreeMap::new(),
            body: body.clone(),
            way: way.clone(),
            mode: CollectionMode::Live,
        };
        let waits = |reason: Option<String>| {
            let waiting = reason.map(|error| Failure { at: self.shared.clock.now(), error });
            self.shared.inputs.tell(&self.source, &self.name, |state| state.waiting = waiting);
        };
        match keep(&self.shared, &self.source, &offered, waits).await {
            // There was nothing in it.
            Kept::Yes | Kept::No(NotTaken::Refused(Refusal::Empty)) => true,
            Kept::Over => false,
            Kept::No(error) => self.pass_over(place, &error).await,
        }
    }

    /// Writes down what cannot be taken, before anything counts it as read. False if the node stops before.
    async fn pass_over(&self, place: &str, error: &NotTaken) -> bool {
        let error = crate::chain(error);
        tracing::error!(
            source = self.source,
            input = self.name,
            place,
            error,
            "what was read cannot be taken: it is passed over"
        );
        let reason = format!("{place}: {error}").chars().take(REASON_CHARS).collect();
        let record = Collected {
            name: self.source.clone(),
            collector: format!("{READS}{}", self.name),
            lost: vec![reason],
            ..Collected::default()
        };
        let now = self.shared.clock.now();
        self.shared.inputs.tell(&self.source, &self.name, |state| {
            state.skipped += 1;
            state.last_skipped = Some(Failure { at: now, error });
        });
        let mut stopping = self.shared.stopping.subscribe();
        write_down(&self.shared, record, &mut stopping).await.is_some()
    }
}

/// The same, for what may be of any kind. `waits` is told why it cannot be taken just now, and when that is over.
pub(super) async fn keep(
    shared: &Arc<Shared>,
    source: &str,
    offered: &Offered,
    waits: impl Fn(Option<String>),
) -> Kept {
    let mut stopping = shared.stopping.subscribe();
    let mut wait = RETRY;
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
        let taken = take(shared, arrival).await;
        let is_first = wait == RETRY;
        match taken {
            Err(error) if error.is_temporary() => {
                if is_first {
                    let error = crate::chain(&error);
                    tracing::warn!(source, error, "reading waits");
                    waits(Some(error));
                }
            }
            taken => {
                if !is_first {
                    waits(None);
                }
                return taken.map_or_else(Kept::No, |_| Kept::Yes);
            }
        }
        if pause(&mut stopping, wait).await {
            return Kept::Over;
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Waits; true when the node stops meanwhile.
pub(super) async fn pause(stopping: &mut watch::Receiver<bool>, time: Duration) -> bool {
    tokio::time::timeout(time, stopping.wait_for(|stop| *stop)).await.is_ok()
}
