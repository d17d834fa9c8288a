//! Everything that comes in from sources, whichever way: through `ingest` into the log, and only then it is taken.

mod aws;
pub(crate) mod collecting;
pub(crate) mod collects;
pub(crate) mod configured;
mod files;
mod held;
pub(crate) mod identity;
pub(crate) mod inputs;
mod listing;
mod reading;
mod syslog;
mod topics;
mod web;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pipeproof_engine::dedup::REMEMBERED;
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::record::{CollectionMode, REPEATS, Record, RecordError};
use pipeproof_ingest::log::AppendError;
use pipeproof_ingest::receive::{Refusal, Request, SourceSettings, Way, is_unread};
use pipeproof_record::lake::LakeError;

use crate::node::Shared;

pub(crate) use files::FOLLOWED;

/// Attribute of a record: subject of the client certificate that proved its sender.
pub(crate) const CLIENT_SUBJECT: &str = "tls.client_subject";

/// Something a source sent.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) source: SourceSettings,
    pub(crate) headers: HeaderMap,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) body: Bytes,
    /// Id of the token that was presented, if one was.
    pub(crate) bearer: Option<String>,
    pub(crate) mode: CollectionMode,
    pub(crate) way: Way,
}

/// What became of it: these records are on stable storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Their indexes in the log; empty if nothing was in it.
    pub(crate) records: Range<u64>,
    /// How many of them could not be taken apart and will be dead letters.
    pub(crate) unread: usize,
}

impl Taken {
    pub(crate) const fn count(&self) -> u64 {
        self.records.end - self.records.start
    }
}

/// Why it was not taken. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("events are not accepted just now: {0}")]
    NotReady(String),
    #[error(transparent)]
    Record(RecordError),
    #[error(transparent)]
    Append(AppendError),
    /// History that cannot be compared with what is there is not taken: it might be there twice.
    #[error("cannot look up in the lake what is there already")]
    Known(#[source] LakeError),
    #[error("cannot receive events")]
    Task(#[from] tokio::task::JoinError),
}

impl NotTaken {
    /// Whether the same may be taken later: it is not what is in it that is in the way.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::NotReady(_) | Self::Append(AppendError::Busy | AppendError::Stopped(_)) | Self::Known(_) => true,
            Self::Refused(refusal) => !refusal.is_content(),
            // What made it panic would do so again.
            Self::Task(error) => !error.is_panic(),
            Self::Record(_) | Self::Append(AppendError::TooLarge(_)) => false,
        }
    }
}

/// Takes in what a source sent. Durable when this returns.
pub(crate) async fn take(shared: &Arc<Shared>, arrival: Arrival) -> Result<Taken, NotTaken> {
    if let Some(reason) = shared.not_ready() {
        return Err(NotTaken::NotReady(reason));
    }
    let received = shared.clock.now();
    let source_type = arrival.source.source_type;
    // A body may grow to several times its size while it is taken apart. Nobody closes the semaphore.
    let turn = shared.taking.acquire().await;
    let receiver = Arc::clone(shared);
    // Unwrapping and redacting megabytes would hold up the runtime.
    let work = move || {
        let Arrival { source, headers, query, body, bearer, mode, way } = arrival;
        let request = Request { source: &source, headers: &headers, query: &query, body, received, bearer, mode };
        let mut records = receiver.receiver.accept_by(&way, request)?;
        if mode == CollectionMode::Backfill {
            mark_known(&receiver, &source.name, &mut records)?;
        }
        let unread = records.iter().filter(|record| is_unread(record)).count();
        let leaves: Result<Vec<Bytes>, _> = records.iter().map(|record| record.encode().map(Bytes::from)).collect();
        leaves.map(|leaves| (leaves, unread)).map_err(NotTaken::Record)
    };
    let (leaves, unread) = tokio::task::spawn_blocking(work).await??;
    drop(turn);
    if leaves.is_empty() {
        return Ok(Taken { records: 0..0, unread });
    }
    let timer = shared.metrics.append_seconds.start_timer();
    Failpoint::ReceiveBeforeAppend.pass();
    let records = shared.log.append(leaves).await.map_err(NotTaken::Append)?;
    timer.observe_duration();
    Failpoint::ReceiveAfterAppend.pass();
    let taken = Taken { records, unread };
    shared.metrics.accepted.with_label_values(&[source_type.name()]).inc_by(taken.count());
    Ok(taken)
}

/// Marks records of history whose items the lake has from before the time that detection remembers. The mark is part of the record,
/// so detection and every replay of it say the same of it as this moment did.
fn mark_known(shared: &Shared, source: &str, records: &mut [Record]) -> Result<(), NotTaken> {
    let items: HashSet<String> = records.iter().map(|record| record.envelope.item.clone()).collect();
    // A day more than what is forgotten: both know what lies between.
    let until = shared.clock.now().minus(REMEMBERED - Duration::from_secs(86_400));
    // Where too much came for that, it remembers less.
    let until = shared.store.items_since().map_or(until, |since| until.max(since));
    let known = shared.lake.pin().known_items(source, until, &items).map_err(NotTaken::Known)?;
    for record in records {
        if let Some(first) = known.get(&record.envelope.item) {
            record.envelope.attributes.insert(REPEATS.to_owned(), first.to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_in_it_makes_something_be_passed_over() {
        for refusal in [Refusal::Random, Refusal::Envelope("a".to_owned()), Refusal::Own("a".to_owned())] {
            assert!(NotTaken::Refused(refusal).is_temporary());
        }
        for refusal in [Refusal::Items(1), Refusal::TooLarge { bytes: 2, limit: 1 }, Refusal::Empty] {
            assert!(!NotTaken::Refused(refusal).is_temporary());
        }
        assert!(NotTaken::Append(AppendError::Busy).is_temporary());
        assert!(!NotTaken::Append(AppendError::TooLarge(9)).is_temporary());
        let ended = tokio::spawn(std::future::pending::<()>());
        ended.abort();
        assert!(NotTaken::Task(ended.await.unwrap_err()).is_temporary());
    }
}
