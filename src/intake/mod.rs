//! Everything that comes in from sources, whichever way: through `ingest` into the log, and only then it is taken.

mod aws;
pub(crate) mod collecting;
pub(crate) mod collects;
pub(crate) mod configured;
mod files;
mod held;
pub(crate) mod identity;
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
use pipeproof_ingest::kafka::Topics;
use pipeproof_ingest::log::AppendError;
use pipeproof_ingest::receive::{Refusal, Request, SourceSettings, Way, is_unread};
use pipeproof_record::lake::LakeError;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::accept::Accepting;
use crate::config::Config;
use crate::node::{NodeError, Shared};
use crate::tls::{self, TlsListener};

/// Attribute of a record: subject of the client certificate that proved its sender.
pub(crate) const CLIENT_SUBJECT: &str = "tls.client_subject";

/// A role's name and its task.
type Task = (&'static str, JoinHandle<()>);

/// Starts every way in that the configuration names besides HTTP.
pub(crate) async fn spawn(shared: &Arc<Shared>, config: &Config) -> Result<Vec<Task>, NodeError> {
    let mut tasks: Vec<Task> = Vec::new();
    for source in &config.sources {
        for path in &source.reads.files {
            let following = files::follow(Arc::clone(shared), source.name.clone(), path.clone());
            tasks.push(("files", tokio::spawn(following)));
        }
        if let Some(settings) = &source.reads.syslog {
            let listener = TcpListener::bind(settings.listen).await.map_err(NodeError::part("listen for syslog"))?;
            let listener = Accepting::new(listener, Arc::clone(shared));
            let (shared, name) = (Arc::clone(shared), source.name.clone());
            let named = source.certificate.is_some();
            let task = match shared.tls.get(&tls::syslog(&name)) {
                Some(endpoint) => {
                    let failed = shared.metrics.tls_handshakes_failed.clone();
                    let listener = TlsListener::new(listener, endpoint, failed);
                    tokio::spawn(syslog::listen(shared, syslog::Receiving { source: name, named }, listener))
                }
                None => {
                    tokio::spawn(syslog::listen(shared, syslog::Receiving { source: name, named: false }, listener))
                }
            };
            tasks.push(("syslog", task));
        }
        if let Some(settings) = &source.reads.kafka {
            let topics = Topics::join(settings).map_err(NodeError::part("read topics"))?;
            tasks.push(("topics", tokio::spawn(topics::read(Arc::clone(shared), source.name.clone(), topics))));
        }
    }
    Ok(tasks)
}

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
    /// Whether the same may be taken later.
    pub(crate) const fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::NotReady(_)
                | Self::Append(AppendError::Busy | AppendError::Stopped(_))
                | Self::Known(_)
                | Self::Task(_)
        )
    }
}

/// Takes in what a source sent. Durable when this returns.
pub(crate) async fn take(shared: &Arc<Shared>, arrival: Arrival) -> Result<Taken, NotTaken> {
    if let Some(reason) = shared.not_ready() {
        return Err(NotTaken::NotReady(reason));
    }
    let received = shared.clock.now();
    let source_type = arrival.source.source_type;
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
    let known = shared.lake.pin().known_items(source, until, &items).map_err(NotTaken::Known)?;
    for record in records {
        if let Some(first) = known.get(&record.envelope.item) {
            record.envelope.attributes.insert(REPEATS.to_owned(), first.to_string());
        }
    }
    Ok(())
}
