//! The roles of a node, each a task that ends when the node stops: tick, detect, archive, tidy, deliver, seal, retain and more.

mod archive;
mod bounds;
mod deliver;
mod detect;
mod hashes;
mod memory;
mod rebuild;
mod retain;
mod seal;
mod silence;
mod sql_rules;
mod tick;
mod tidy;

use std::sync::Arc;

use pipeproof_engine::detect::Detector;
use tokio::task::JoinHandle;

pub(crate) use deliver::deliverer;
pub(crate) use detect::{by_set, decode_leaf};
pub(crate) use rebuild::{fold_registry, rebuild_registry};
pub(crate) use retain::Retention;
pub(crate) use seal::{SealedTree, check_last_checkpoint, last_sealed, seal_now};
pub(crate) use silence::{Patience, RawPatience};
pub(crate) use sql_rules::{SqlStatus, record as sql_record};

use crate::node::Shared;

/// Starts every role.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    detector: Detector,
    delta_bytes: usize,
) -> Vec<(&'static str, JoinHandle<()>)> {
    let roles = vec![
        ("tick", tokio::spawn(tick::run(Arc::clone(shared)))),
        ("detect", detect::spawn(Arc::clone(shared), detector, delta_bytes)),
        ("archive", tokio::spawn(archive::run(Arc::clone(shared)))),
        ("tidy", tokio::spawn(tidy::run(Arc::clone(shared)))),
        ("seal", tokio::spawn(seal::run(Arc::clone(shared)))),
        ("retain", tokio::spawn(retain::run(Arc::clone(shared)))),
        ("hashes", tokio::spawn(hashes::run(Arc::clone(shared)))),
        ("silence", tokio::spawn(silence::run(Arc::clone(shared)))),
        ("sql rules", tokio::spawn(sql_rules::run(Arc::clone(shared)))),
        ("bounds", tokio::spawn(bounds::run(Arc::clone(shared)))),
        ("memory", tokio::spawn(memory::run(Arc::clone(shared)))),
        ("deliver", tokio::spawn(deliver::run(Arc::clone(shared)))),
        ("redact", tokio::spawn(crate::redaction::finish(Arc::clone(shared)))),
        ("tls", tokio::spawn(crate::tls::look(Arc::clone(shared)))),
    ];
    roles.into_iter().map(|(role, task)| (role, tokio::spawn(watch(Arc::clone(shared), role, task)))).collect()
}

/// A role that panics is none any more: nothing more is accepted that it would have to do, and somebody is told.
async fn watch(shared: Arc<Shared>, role: &'static str, task: JoinHandle<()>) {
    if task.await.is_err_and(|error| error.is_panic()) {
        shared.set_trouble(role, Some("it ended by itself, which is a fault of this program: restart it".to_owned()));
    }
}
