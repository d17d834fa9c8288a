//! The tidy role: small files of the lake become large ones behind the archive, and what nobody can ask for any more goes: files and
//! commits of old versions, and verdicts on records that the log no longer has. It goes on for a minute where files are large, and the
//! archive does not wait for it.

use std::sync::Arc;
use std::time::Duration;

use pipeproof_record::store::StoreError;

use crate::node::{PARTITION, Shared};
use crate::upkeep::Upkeep;

/// How long verdicts stay after their records have left the log: whoever sent these may still ask what became of them.
const ASKED_FOR: Duration = Duration::from_secs(3_600);

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => {}
        () = tidy(&shared) => {}
    }
}

/// Ends only by being dropped, which lake and store take at any time.
async fn tidy(shared: &Shared) {
    let began = shared.clock.passed();
    let mut verdicts = Verdicts::default();
    loop {
        let awake = shared.clock.passed().saturating_sub(began);
        // A disk that takes no records takes no merged files.
        if shared.is_troubled("lake") {
            tokio::time::sleep(shared.archive_every).await;
            continue;
        }
        if let Some(below) = verdicts.due(awake, shared.log.first())
            && let Err(error) = forget(shared, below).await
        {
            shared.put_off(Upkeep::ForgetVerdicts, &crate::chain(&error));
        }
        // A backup copies what it listed.
        if let Ok(_turn) = shared.copying.try_lock()
            && let Err(error) = shared.lake.forget_versions().await
        {
            shared.put_off(Upkeep::ForgetCommits, &crate::chain(&error));
        }
        match shared.lake.tidy(shared.clock.now(), awake, shared.background.threads()).await {
            Ok(0) => tokio::time::sleep(shared.archive_every).await,
            Ok(_) => {}
            Err(error) => {
                shared.put_off(Upkeep::Merge, &crate::chain(&error));
                tokio::time::sleep(shared.archive_every).await;
            }
        }
    }
}

/// Forgets the verdicts on records before this one. They told the archive what to leave out, and it has passed them for good: the log
/// has them no more. Detection remembers items by itself.
async fn forget(shared: &Shared, below: u64) -> Result<(), StoreError> {
    // A backup copies them, and the doctor reads them: then it has time until the next turn.
    let Ok(_turn) = shared.copying.try_lock() else { return Ok(()) };
    let below = below.min(shared.log.first()).min(*shared.archived.borrow());
    let forgotten = shared.store.forget_duplicates(PARTITION, below).await?;
    if forgotten > 0 {
        tracing::debug!(forgotten, below, "forgot which retired records repeated others");
    }
    Ok(())
}

/// Since when the log has begun where it does.
#[derive(Debug, Default)]
struct Verdicts {
    seen: Option<(Duration, u64)>,
}

impl Verdicts {
    /// The index before which verdicts may be forgotten now, if there is one: where the log began when it was last asked about, long
    /// enough ago.
    fn due(&mut self, awake: Duration, first: u64) -> Option<u64> {
        let (at, below) = *self.seen.get_or_insert((awake, first));
        if awake < at + ASKED_FOR {
            return None;
        }
        self.seen = Some((awake, first));
        (below > 0).then_some(below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_go_an_hour_after_their_records() {
        let mut verdicts = Verdicts::default();
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        assert_eq!(verdicts.due(minutes(0), 0), None);
        assert_eq!(verdicts.due(minutes(60), 500), None, "nothing had left the log");
        assert_eq!(verdicts.due(minutes(90), 800), None);
        assert_eq!(verdicts.due(minutes(120), 900), Some(500));
        assert_eq!(verdicts.due(minutes(179), 900), None);
        assert_eq!(verdicts.due(minutes(180), 950), Some(900));
    }
}
