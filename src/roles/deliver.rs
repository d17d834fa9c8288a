//! Sets up delivery: the configured targets over the store's outbox.

use std::collections::BTreeMap;
use std::sync::Arc;

use pipeproof_engine::clock::Clock;
use pipeproof_record::store::SqliteStore;
use pipeproof_reports::deliver::retry::Schedule;
use pipeproof_reports::deliver::run::{DeliverOptions, Deliverer};
use pipeproof_reports::deliver::sign::WebhookSecret;
use pipeproof_reports::deliver::target::{Target, TargetSettings};

use crate::config::Config;
use crate::node::NodeError;

/// The deliverer of the configured targets; none when there are none.
pub(crate) async fn deliverer(
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
            secrets.push(WebhookSecret::parse(&secret.0).map_err(|error| NodeError::Targets(crate::chain(&error)))?);
        }
        let settings = TargetSettings {
            name: target.name.clone(),
            url: target.url.clone(),
            secrets,
            headers: BTreeMap::new(),
            allow_private: target.allow_private,
            schedule: Schedule::Page,
        };
        targets.push(Target::new(settings).map_err(|error| NodeError::Targets(crate::chain(&error)))?);
    }
    let options = DeliverOptions::new(Arc::clone(clock));
    let deliverer =
        Deliverer::new(Arc::new(store.clone()), targets, options).map_err(NodeError::part("set up delivery"))?;
    deliverer.register().await.map_err(NodeError::part("register the delivery targets"))?;
    Ok(Some(Arc::new(deliverer)))
}
