//! The hashes role: reads, once after each start, the leaf hashes of retired records that opening the log left unread, and mends what is
//! damaged. What must be proved of such a record rests on them alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pipeproof_ingest::log::Log;

use crate::damage;
use crate::node::Shared;

/// It rests so many times as long as it works: of one processor, it takes a fifth.
const REST: u32 = 4;
/// How long it works before it rests, at least.
const WORK: Duration = Duration::from_millis(20);

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let opened = shared.damage.iter().find(|(name, _)| *name == damage::LOG);
    let unread = opened.map_or(0, |(_, report)| report.hashes_unread);
    let mut began = Instant::now();
    for first in (0..unread).step_by(usize::try_from(Log::HASHES_AT_ONCE).unwrap_or(usize::MAX)) {
        match damage::check_hashes(&shared, first).await {
            Ok(Ok(0)) => {}
            Ok(Ok(damaged)) => {
                shared.mended_hashes.fetch_add(damaged, Ordering::AcqRel);
                tell(
                    &shared,
                    damaged,
                    &format!("{damaged} leaf hashes from record {first} on were damaged and are written again"),
                );
            }
            Ok(Err(problem)) => tell(&shared, 1, &problem),
            Err(error) => {
                tracing::warn!(first, error = %crate::chain(&error), "cannot read leaf hashes again; the next start does");
            }
        }
        let worked = began.elapsed();
        if worked >= WORK {
            if tokio::time::timeout(worked * REST, stopping.wait_for(|stop| *stop)).await.is_ok() {
                return;
            }
            began = Instant::now();
        }
    }
}

fn tell(shared: &Shared, damaged: u64, problem: &str) {
    shared.metrics.log_damaged.with_label_values(&[damage::LOG, "hashes"]).inc_by(damaged);
    tracing::error!(problem, "damage to the log's leaf hashes");
}
