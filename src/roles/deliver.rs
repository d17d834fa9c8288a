//! Sets up delivery: the configured targets over the store's outbox.

use std::collections::BTreeMap;
use std::sync::Arc;

use pipeproof_engine::clock::Clock;
use pipeproof_record::store::SqliteStore;
use pipeproof_reports::deliver::retry::Schedule;
use pipeproof_reports::deliver::run::{DeliverOptions, Deliverer};
use pipeproof_reports::deliver::sign::WebhookSecret;
use pipeproof_reports::deliver::target::{Target, TargetSettings};
use tokio::sync::watch;

use crate::config::Config;
use crate::node::{NodeError, Shared};

/// Delivers to the targets in force, also when the configuration names others.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut targets = shared.deliverer.subscribe();
    let mut stopping = shared.stopping.subscribe();
    loop {
        let current = targets.borrow_and_update().clone();
        let (stop, mut stopped) = watch::channel(false);
        let running = tokio::spawn(async move {
            match current {
                Some(deliverer) => deliverer.run(stopped).await,
                None => drop(stopped.wait_for(|stop| *stop).await),
            }
        });
        let ends = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => true,
            changed = targets.changed() => changed.is_err(),
        };
        stop.send_replace(true);
        // Attempts under way are finished and leave their receipts before others are made.
        if let Err(error) = running.await {
            tracing::error!(%error, "delivery ended by itself");
        }
        if ends {
            return;
        }
    }
}

/// The deliverer of the configured targets; none when there are none. Its targets are not registered yet.
pub(crate) fn deliverer(
    config: &Config,
    store: &SqliteStore,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<Deliverer<SqliteStore>>>, NodeError> {
    if config.targets.is_empty() {
        return Ok(None);
    }
    let mut targets = Vec::new();
    for target in &config.targets {
        let mut secrets = Vec::new();
        for secret in &target.secrets {
            secrets
                .push(WebhookSecret::parse(&secret.0).map_err(|error| NodeError::Configuration(crate::chain(&error)))?);
        }
        let settings = TargetSettings {
            name: target.name.clone(),
            url: target.url.clone(),
            secrets,
            headers: BTreeMap::new(),
            allow_private: target.allow_private,
            schedule: Schedule::Page,
        };
        targets.push(Target::new(settings).map_err(|error| NodeError::Configuration(crate::chain(&error)))?);
    }
    let options = DeliverOptions::new(Arc::clone(clock));
    let deliverer =
        Deliverer::new(Arc::new(store.clone()), targets, options).map_err(NodeError::part("set up delivery"))?;
    Ok(Some(Arc::new(deliverer)))
}
