//! The roles of a node, each a task that ends when the node stops: tick, detect, archive, deliver, seal.

mod archive;
mod deliver;
mod detect;
mod rebuild;
mod seal;
mod sql_rules;
mod tick;

use std::sync::Arc;

use pipeproof_engine::detect::Detector;
use tokio::task::JoinHandle;

pub(crate) use deliver::deliverer;
pub(crate) use detect::by_set;
pub(crate) use rebuild::rebuild_registry;
pub(crate) use seal::{PartitionTree, SealedTree, check_last_checkpoint, seal_now, sealed_size};
pub(crate) use sql_rules::{SqlStatus, record as sql_record};

use crate::node::Shared;

/// Starts every role.
pub(crate) fn spawn(shared: &Arc<Shared>, detector: Detector) -> Vec<(&'static str, JoinHandle<()>)> {
    let mut tasks = vec![
        ("tick", tokio::spawn(tick::run(Arc::clone(shared)))),
        ("detect", detect::spawn(Arc::clone(shared), detector)),
        ("archive", tokio::spawn(archive::run(Arc::clone(shared)))),
        ("seal", tokio::spawn(seal::run(Arc::clone(shared)))),
        ("sql rules", tokio::spawn(sql_rules::run(Arc::clone(shared)))),
    ];
    if let Some(deliverer) = shared.deliverer.clone() {
        let stopping = shared.stopping.subscribe();
        tasks.push(("deliver", tokio::spawn(async move { deliverer.run(stopping).await })));
    }
    tasks
}
