//! The tidy role: small files of the lake become large ones behind the archive, and what nobody can ask for any more goes. It goes on
//! for a minute where files are large, and the archive does not wait for it.

use std::sync::Arc;
use std::time::Instant;

use crate::node::Shared;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => {}
        () = tidy(&shared) => {}
    }
}

/// Ends only by being dropped, which the lake takes at any time.
async fn tidy(shared: &Shared) {
    let began = Instant::now();
    loop {
        // A disk that takes no records takes no merged files.
        if shared.is_troubled("lake") {
            tokio::time::sleep(shared.archive_every).await;
            continue;
        }
        match shared.lake.tidy(shared.clock.now(), began.elapsed()).await {
            Ok(0) => tokio::time::sleep(shared.archive_every).await,
            Ok(_) => {}
            // A lake of small files is slow and right: it may wait.
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "cannot merge small files of the lake");
                tokio::time::sleep(shared.archive_every).await;
            }
        }
    }
}
