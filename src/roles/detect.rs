//! The detect role: log → decode on one thread, detector → one store transaction per micro-batch on another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pipeproof_engine::commit::{Commit, Store};
use pipeproof_engine::control::Control;
use pipeproof_engine::dedup::Known;
use pipeproof_engine::detect::{Decoded, Detector, Undecoded};
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::invariant::Invariant;
use pipeproof_engine::record::{Authenticity, Position, Record};
use pipeproof_engine::source::SourceType;
use pipeproof_ingest::enrich::Decoder;
use pipeproof_record::store::StoreError;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::metrics::Arrivals;
use crate::node::{PARTITION, Shared};
use crate::redaction::Ordered;
use crate::upkeep::Upkeep;

/// Records of a micro-batch at most: enough to share the cost of a transaction, few enough to keep findings prompt.
const BATCH_RECORDS: usize = 4_096;
/// Bytes of a micro-batch at most.
const BATCH_BYTES: usize = 8 << 20;
/// Deltas are replaced by a snapshot after this many bytes of them: what a restart reads back at most, about.
const SNAPSHOT_AFTER_BYTES: usize = 16 << 20;
/// Deltas are also replaced by a snapshot after this much record time, since what they say may be forgotten by then.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(86_400);
/// How long after one that failed it is tried again.
const SNAPSHOT_AGAIN: Duration = Duration::from_secs(10);
/// How often lists of rules learn what the rules hold.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How long to wait before a failed write is repeated.
const RETRY: Duration = Duration::from_millis(500);

/// Goes on from a detector that was restored with this many bytes of deltas.
pub(super) fn spawn(shared: Arc<Shared>, detector: Detector, delta_bytes: usize) -> JoinHandle<()> {
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || run(&shared, detector, delta_bytes, &handle))
}

/// Decodes one stored record. A record that this version cannot read is a dead letter, like one with no meaning, and like one that
/// makes a decoder panic: it must not end detection, nor each start after it.
pub(crate) fn decode_leaf(decoder: &mut Decoder, index: u64, leaf: &Bytes) -> Result<Decoded, String> {
    let record = Record::decode(leaf).map_err(|error| error.to_string())?;
    let position = Position { partition: PARTITION, index };
    let read = catch_unwind(AssertUnwindSafe(|| decoder.read(position, &record)));
    let failed = |_| Err(Undecoded { reason: "the decoder failed on it".to_owned(), leaks: Vec::new() });
    let events = read.unwrap_or_else(failed);
    Ok(Decoded { index, record, events })
}

/// Reading and decoding run ahead of detection by this many micro-batches, on a thread of their own.
const AHEAD: usize = 1;

fn run(shared: &Shared, detector: Detector, delta_bytes: usize, handle: &Handle) {
    let position = detector.position();
    let (sender, batches) = sync_channel(AHEAD);
    std::thread::scope(|scope| {
        scope.spawn(move || read_ahead(shared, handle, position, &sender));
        evaluate(shared, handle, detector, delta_bytes, &batches);
        // A reader that waits to hand on its batch is let go.
        drop(batches);
    });
}

/// Hands on what is durable from `position` on, decoded. Ends at a stop once everything durable is handed on, or when
/// nobody takes it any more.
fn read_ahead(shared: &Shared, handle: &Handle, mut position: u64, batches: &SyncSender<Vec<Decoded>>) {
    let mut durable = shared.log.durable();
    let mut stopping = shared.stopping.subscribe();
    let mut decoder = shared.decoder();
    loop {
        let leaves = match shared.log.read(position, BATCH_RECORDS, BATCH_BYTES) {
            Ok(leaves) => {
                shared.set_trouble("log", None);
                leaves
            }
            Err(error) => {
                shared.set_trouble("log", Some(crate::chain(&error)));
                if wait(handle, &mut stopping, RETRY) {
                    return;
                }
                continue;
            }
        };
        if let Some((last, _)) = leaves.last() {
            position = last + 1;
            if batches.send(decode_batch(shared, &mut decoder, &leaves)).is_err() {
                return;
            }
            continue;
        }
        // Everything durable is handed on: a stop may happen here and nowhere else.
        let ended = handle.block_on(async {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => true,
                changed = durable.wait_for(|mark| *mark > position) => changed.is_err(),
            }
        });
        // Only quarantined records are left before the mark: wait for the next one.
        if ended
            || (*durable.borrow() > position
                && shared.log.read(position, 1, 1).is_ok_and(|it| it.is_empty())
                && wait(handle, &mut stopping, RETRY))
        {
            return;
        }
    }
}

/// Evaluates and commits one micro-batch after the other until there are no more.
fn evaluate(
    shared: &Shared,
    handle: &Handle,
    mut detector: Detector,
    mut delta_bytes: usize,
    batches: &Receiver<Vec<Decoded>>,
) {
    let mut stopping = shared.stopping.subscribe();
    let at_start = *shared.log.durable().borrow();
    let mut told: Option<Instant> = None;
    let mut tried: Option<Instant> = None;
    let mut snapshot_due = detector.now().plus(SNAPSHOT_EVERY);
    // What was restored is known before anything new comes.
    tell(shared, &detector);
    loop {
        if detector.position() >= at_start {
            shared.caught_up.store(true, Ordering::Relaxed);
        }
        let Ok(batch) = batches.recv() else { return };
        for (set, part) in by_set(batch) {
            if let Some(set) = set
                && !switch(shared, handle, &mut detector, &set, &mut stopping)
            {
                return;
            }
            for (part, order) in by_order(part) {
                let arrivals = Arrivals::of(&part);
                let Some(known) = known_items(shared, handle, &detector, &part, &mut stopping) else { return };
                let commit = match detector.apply_knowing(part, known, shared.clock.now()) {
                    Ok(commit) => commit,
                    Err(error) => {
                        shared.set_trouble("detect", Some(crate::chain(&error)));
                        return;
                    }
                };
                delta_bytes += commit.delta.len();
                if !commit_until_done(shared, handle, &commit, &mut stopping) {
                    return;
                }
                if let Some(order) = order
                    && !forget(shared, handle, &mut detector, &order, &mut stopping)
                {
                    return;
                }
                published(shared, &detector, &arrivals, &commit);
            }
        }
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            // It walks what rules hold, which may be much.
            told = Some(Instant::now());
            tell(shared, &detector);
        }
        let day_passed = detector.now() >= snapshot_due;
        let is_due = delta_bytes > SNAPSHOT_AFTER_BYTES || day_passed;
        // One that failed is still due, but not with each batch.
        if is_due && tried.is_none_or(|tried| tried.elapsed() >= SNAPSHOT_AGAIN) {
            if !take_snapshot(shared, handle, &detector) {
                tried = Some(Instant::now());
                continue;
            }
            tried = None;
            delta_bytes = 0;
            snapshot_due = detector.now().plus(SNAPSHOT_EVERY);
            // Not after each of them: the next deltas need the space again.
            if day_passed && let Err(error) = handle.block_on(shared.store.give_back()) {
                shared.put_off(Upkeep::GiveBack, &crate::chain(&error));
            }
        }
    }
}

/// Tells lists and metrics what rules and sources hold.
fn tell(shared: &Shared, detector: &Detector) {
    let streams = detector.stream_status();
    shared.metrics.sources.number(&streams);
    let silences = detector.silences();
    shared.metrics.sources.silent(&silences);
    shared.tell_status(|status| {
        status.rules = detector.rule_status();
        status.tables = detector.table_status();
        status.streams = streams;
        status.silences = silences;
        status.as_of = detector.now();
    });
}

fn decode_batch(shared: &Shared, decoder: &mut Decoder, leaves: &[(u64, Bytes)]) -> Vec<Decoded> {
    let mut batch = Vec::with_capacity(leaves.len());
    for (index, leaf) in leaves {
        match decode_leaf(decoder, *index, leaf) {
            Ok(decoded) => batch.push(decoded),
            Err(reason) => {
                shared.metrics.unreadable.inc();
                tracing::error!(index, reason, "a record of the log cannot be read and is left out");
            }
        }
    }
    batch
}

/// Parts records where another set of rules comes into force: each part is evaluated under the set that is named, or the
/// one before.
pub(crate) fn by_set(batch: Vec<Decoded>) -> Vec<(Option<String>, Vec<Decoded>)> {
    let mut parts: Vec<(Option<String>, Vec<Decoded>)> = Vec::new();
    for decoded in batch {
        match (deployed_set(&decoded.record), parts.last_mut()) {
            (None, Some((_, part))) => part.push(decoded),
            (set, _) => parts.push((set, vec![decoded])),
        }
    }
    parts
}

/// Records, and the order to redact that the last of them is, with its index.
type UpToOrder = (Vec<Decoded>, Option<(u64, Ordered)>);

/// Parts records behind each one that orders a redaction: what it names is forgotten before anything after it is evaluated.
fn by_order(batch: Vec<Decoded>) -> Vec<UpToOrder> {
    let mut parts = Vec::new();
    let mut part = Vec::with_capacity(batch.len());
    for decoded in batch {
        let order = ordered(&decoded);
        part.push(decoded);
        if order.is_some() {
            parts.push((std::mem::take(&mut part), order));
        }
    }
    if !part.is_empty() {
        parts.push((part, None));
    }
    parts
}

fn ordered(decoded: &Decoded) -> Option<(u64, Ordered)> {
    let envelope = &decoded.record.envelope;
    let own = envelope.auth == Authenticity::Own && envelope.source_type == SourceType::Pipeproof;
    // Ticks are most of our own.
    if !own || !decoded.record.body.starts_with(br#"{"kind":"records-redacted""#) {
        return None;
    }
    match serde_json::from_slice(&decoded.record.body) {
        Ok(Control::RecordsRedacted(order)) => {
            Some((decoded.index, Ordered { at: envelope.received, order, done: None }))
        }
        _ => None,
    }
}

/// Has the detector forget what an order names, and writes its state whole: the deltas before it tell of it still. Everything
/// that was found so far is in the store, so the store knows what rests on it.
fn forget(
    shared: &Shared,
    handle: &Handle,
    detector: &mut Detector,
    (index, ordered): &(u64, Ordered),
    stopping: &mut tokio::sync::watch::Receiver<bool>,
) -> bool {
    let note = ordered.note(*index);
    loop {
        match handle.block_on(crate::redaction::forgotten(&shared.store, &ordered.order, &note)) {
            Ok(forgotten) => {
                detector.forget(&forgotten);
                let written = snapshot_until_done(shared, handle, detector, stopping);
                Failpoint::RedactAfterState.pass();
                return written;
            }
            Err(error) => shared.set_trouble("store", Some(crate::chain(&error))),
        }
        if wait(handle, stopping, RETRY) {
            return false;
        }
    }
}

/// The set that a record puts in force, if it is such a record and the content of the set was kept.
pub(crate) fn deployed_set(record: &Record) -> Option<String> {
    if record.envelope.auth != Authenticity::Own || record.envelope.source_type != SourceType::Pipeproof {
        return None;
    }
    match serde_json::from_slice(&record.body) {
        Ok(Control::RulesDeployed(record)) => record.change.is_some().then_some(record.set),
        _ => None,
    }
}

/// Puts the detector under another set. It waits for a set that cannot be had: nothing may be evaluated without it.
fn switch(
    shared: &Shared,
    handle: &Handle,
    detector: &mut Detector,
    set: &str,
    stopping: &mut tokio::sync::watch::Receiver<bool>,
) -> bool {
    loop {
        match shared.rules.plan(set) {
            Ok(plan) => {
                detector.replace_plan(plan);
                shared.rules.decides(set);
                shared.set_trouble("rules", None);
                return snapshot_until_done(shared, handle, detector, stopping);
            }
            Err(error) => shared.set_trouble("rules", Some(format!("set {set}: {}", crate::chain(&error)))),
        }
        if wait(handle, stopping, RETRY) {
            return false;
        }
    }
}

/// Asks the store, until it answers, which items of the records it has seen. `None` when the node stops meanwhile.
fn known_items(
    shared: &Shared,
    handle: &Handle,
    detector: &Detector,
    batch: &[Decoded],
    stopping: &mut tokio::sync::watch::Receiver<bool>,
) -> Option<Known> {
    while shared.store.has_items() {
        match handle.block_on(shared.store.known_items(PARTITION, detector.items_to_look_up(batch))) {
            Ok(known) => {
                shared.set_trouble("store", None);
                return Some(known);
            }
            Err(error) => shared.set_trouble("store", Some(crate::chain(&error))),
        }
        if wait(handle, stopping, RETRY) {
            return None;
        }
    }
    Some(Known::new())
}

/// Repeats the same commit until the store takes it: the detector has moved on and must not be asked again.
fn commit_until_done(
    shared: &Shared,
    handle: &Handle,
    commit: &Commit,
    stopping: &mut tokio::sync::watch::Receiver<bool>,
) -> bool {
    loop {
        Failpoint::DetectBeforeCommit.pass();
        match handle.block_on(shared.store.commit(commit)) {
            Ok(()) => {
                Failpoint::DetectAfterCommit.pass();
                shared.set_trouble("store", None);
                return true;
            }
            Err(error) => {
                if let StoreError::Position { stands, .. } = &error {
                    // A commit that failed when it was reported may have landed all the same.
                    if *stands == commit.to {
                        shared.set_trouble("store", None);
                        return true;
                    }
                    shared.violated(Invariant::CommitContinues);
                }
                shared.set_trouble("store", Some(crate::chain(&error)));
            }
        }
        if wait(handle, stopping, RETRY) {
            return false;
        }
    }
}

fn published(shared: &Shared, detector: &Detector, arrivals: &Arrivals, commit: &Commit) {
    shared.metrics.observe(arrivals, commit, &detector.counters());
    *shared.counters.write().unwrap_or_else(PoisonError::into_inner) = detector.counters();
    shared.tell_status(|status| status.exceptions = detector.exception_status());
    shared.detected.send_replace(commit.to);
    if !commit.outbox.is_empty()
        && let Some(deliverer) = shared.deliverer.borrow().as_ref()
    {
        deliverer.nudge();
    }
}

/// After a switch the state is written whole: what comes after it is read back under one plan only.
fn snapshot_until_done(
    shared: &Shared,
    handle: &Handle,
    detector: &Detector,
    stopping: &mut tokio::sync::watch::Receiver<bool>,
) -> bool {
    loop {
        match snapshot(shared, handle, detector) {
            Ok(()) => {
                shared.set_trouble("store", None);
                return true;
            }
            Err(error) => shared.set_trouble("store", Some(error)),
        }
        if wait(handle, stopping, RETRY) {
            return false;
        }
    }
}

/// Whether it is written.
fn take_snapshot(shared: &Shared, handle: &Handle, detector: &Detector) -> bool {
    let taken = snapshot(shared, handle, detector);
    if let Err(error) = &taken {
        shared.put_off(Upkeep::Snapshot, error);
    }
    taken.is_ok()
}

fn snapshot(shared: &Shared, handle: &Handle, detector: &Detector) -> Result<(), String> {
    let state = detector.snapshot().map_err(|error| crate::chain(&error))?;
    let saving = shared.store.snapshot(PARTITION, detector.position(), &state);
    handle.block_on(saving).map_err(|error| crate::chain(&error))?;
    Failpoint::DetectAfterSnapshot.pass();
    Ok(())
}

/// Sleeps; true when the node stops meanwhile.
fn wait(handle: &Handle, stopping: &mut tokio::sync::watch::Receiver<bool>, time: Duration) -> bool {
    handle.block_on(async { tokio::time::timeout(time, stopping.wait_for(|stop| *stop)).await.is_ok() })
}
