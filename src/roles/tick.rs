//! A control record per second: detection's clock when no source says anything. While the log does not accept, it tries
//! to heal it instead.

use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::control::Control;
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_ingest::log::AppendError;

use crate::node::{Shared, next_second};

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let mut was_ahead = false;
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(next_second(shared.clock.now())) => {}
        }
        let ahead = shared.clock.ahead();
        if was_ahead != (ahead > Duration::ZERO) {
            was_ahead = !was_ahead;
            if was_ahead {
                let secs = ahead.as_secs();
                tracing::error!(
                    secs,
                    "this machine's clock went ahead of what has passed; unless it stays there, it is not gone by"
                );
            } else {
                tracing::warn!("this machine's clock is gone by again");
            }
        }
        if let Err(AppendError::Stopped(_)) = shared.control(Control::Tick {}).await {
            Failpoint::HealBefore.pass();
            if shared.log.try_heal().await.is_ok() {
                Failpoint::HealAfter.pass();
                tracing::info!("the log accepts records again");
            }
        }
    }
}
