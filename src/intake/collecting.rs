//! Runs collectors: a page is fetched, its items are made durable, then how far it came, as a control record. What failed is
//! told in words and tried again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::future::join_all;
use pipeproof_engine::control::{Collected, Control};
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::record::CollectionMode;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::collect::auth::Credentials;
use pipeproof_ingest::collect::http::Quota;
use pipeproof_ingest::collect::{Collector, Cursors, Fetched, Next, Page, Troubled, back_off};
use pipeproof_ingest::receive::Refusal;
use reqwest::Url;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::NotTaken;
use super::reading::{Kept, Offered, RETRY, keep, pause};
use crate::config::Config;
use crate::node::{NodeError, Shared};
use crate::registry::CollectedSoFar;

/// Items taken in at a time, so that they share their syncs.
const TOGETHER: usize = 32;
/// Most losses that a record names, and how much of each.
const LOST_MAX: usize = 100;
const LOST_CHARS: usize = 300;
/// What collectors say they lost, kept to be told.
const LOST_TOLD: usize = 5;

/// Collectors that run, and how they do.
#[derive(Debug, Default)]
pub(crate) struct Collecting {
    states: RwLock<BTreeMap<(String, String), State>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    quotas: Mutex<BTreeMap<Account, Arc<Quota>>>,
}

/// Address of an API, and [`Credentials::account`].
type Account = (String, [u8; 32]);

/// How a collector does.
#[derive(Clone, Debug, Default, Serialize)]
struct State {
    /// When it last heard from its provider what it asked for.
    last_success: Option<Timestamp>,
    /// Items since the start.
    items: u64,
    last_error: Option<Failure>,
    /// Failures since the last success.
    failures: u32,
    /// When it comes next.
    next: Option<Timestamp>,
    /// What it could not have, the last few.
    lost: Vec<String>,
    /// Requests the provider said are left for now.
    requests_left: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
struct Failure {
    at: Timestamp,
    error: String,
}

impl Collecting {
    /// The collectors of a source, for people and programs.
    pub(crate) fn told(&self, shared: &Shared, source: &str) -> Vec<Value> {
        let registry = shared.registry();
        let so_far = registry.collected.get(source);
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let own = states.iter().filter(|((of, _), _)| of == source);
        own.map(|((_, name), state)| {
            let mut told = json!(state);
            let so_far = so_far.and_then(|all| all.get(name));
            told["collector"] = json!(name);
            let troubled = so_far.map(troubled).unwrap_or_default();
            told["state"] = json!(match (state.failures, troubled.len()) {
                (0, 0) => "ok",
                (0, _) => "partial",
                _ => "failing",
            });
            told["troubled"] = json!(troubled);
            told["position"] = json!(so_far.map(|so_far| &so_far.cursors));
            told["moved"] = json!(so_far.map(|so_far| so_far.at));
            told["items_ever"] = json!(so_far.map_or(0, |so_far| so_far.items));
            told["lost_ever"] = json!(so_far.map_or(0, |so_far| so_far.lost));
            told
        })
        .collect()
    }

    /// The quota of an account at a provider.
    pub(super) fn quota(&self, api: &Url, credentials: &Credentials) -> Arc<Quota> {
        let name = (api.to_string(), credentials.account());
        Arc::clone(self.quotas.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default())
    }

    /// Ends what runs; what was in the middle is done again.
    pub(crate) fn stop(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    fn tell(&self, source: &str, name: &str, change: impl FnOnce(&mut State)) {
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        change(states.entry((source.to_owned(), name.to_owned())).or_default());
    }
}

/// Collectors that can start, by source.
pub(crate) type Prepared = Vec<(String, Arc<dyn Collector>)>;

/// Makes the collectors that a configuration names. None of them runs before [`start`].
pub(crate) fn prepare(shared: &Arc<Shared>, config: &Config) -> Result<Prepared, NodeError> {
    let mut collectors = Vec::new();
    for source in &config.sources {
        for collect in &source.collects {
            let built = collect.collector(shared, &source.name).map_err(NodeError::part("connect a collector"))?;
            collectors.push((source.name.clone(), built));
        }
    }
    Ok(collectors)
}

/// Starts collectors, in place of those that run.
pub(crate) fn start(shared: &Arc<Shared>, collectors: Prepared) {
    let collecting = &shared.collecting;
    collecting.stop();
    let names: Vec<(String, String)> =
        collectors.iter().map(|(source, collector)| (source.clone(), collector.name())).collect();
    let mut states = collecting.states.write().unwrap_or_else(PoisonError::into_inner);
    states.retain(|name, _| names.contains(name));
    for name in names {
        states.entry(name).or_default();
    }
    drop(states);
    let mut tasks = collecting.tasks.lock().unwrap_or_else(PoisonError::into_inner);
    for (source, collector) in collectors {
        tasks.push(tokio::spawn(run(Arc::clone(shared), source, collector)));
    }
}

/// Collects until the node stops.
async fn run(shared: Arc<Shared>, source: String, collector: Arc<dyn Collector>) {
    let name = collector.name();
    let mut stopping = shared.stopping.subscribe();
    let mut failures = 0_u32;
    if let Some(source) = shared.source(&source) {
        // A counter that is there before the first failure can be alerted on.
        shared.metrics.collect_failures.with_label_values(&[source.source_type.name()]).inc_by(0);
    }
    loop {
        let cursors = cursors(&shared, &source, &name);
        let now = shared.clock.now();
        let page = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            page = collector.page(&cursors, now) => page,
        };
        let now = shared.clock.now();
        let mut wait = Duration::ZERO;
        match page {
            Ok(page) => {
                failures = 0;
                if let Next::After(time) = page.next {
                    wait = time;
                }
                if take(&shared, &source, &*collector, page, &mut stopping).await.is_none() {
                    return;
                }
                shared.collecting.tell(&source, &name, |state| {
                    state.last_success = Some(now);
                    state.failures = 0;
                });
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let asked = error.again(now).map(|until| span(until.micros_since(now)));
                // Who names a time is taken at their word.
                wait = asked.unwrap_or_else(|| back_off(failures, rand::random()));
                let error = crate::chain(&error);
                tracing::warn!(source, collector = name, error, "cannot collect just now");
                if let Some(source) = shared.source(&source) {
                    shared.metrics.collect_failures.with_label_values(&[source.source_type.name()]).inc();
                }
                shared.collecting.tell(&source, &name, |state| {
                    state.last_error = Some(Failure { at: now, error });
                    state.failures = failures;
                });
            }
        }
        let left = collector.left();
        shared.collecting.tell(&source, &name, |state| {
            state.next = Some(shared.clock.now().plus(wait));
            state.requests_left = left;
        });
        if !wait.is_zero() && pause(&mut stopping, wait).await {
            return;
        }
    }
}

/// What of a collector cannot be had just now.
fn troubled(so_far: &CollectedSoFar) -> Vec<Troubled> {
    so_far.cursors.iter().filter_map(|(stream, cursor)| Troubled::of(stream, cursor)).collect()
}

fn cursors(shared: &Shared, source: &str, name: &str) -> Cursors {
    let registry = shared.registry();
    let so_far = registry.collected.get(source).and_then(|all| all.get(name));
    so_far.map(|so_far| so_far.cursors.clone()).unwrap_or_default().into_iter().collect()
}

/// Makes a page durable: first its items, then how far it came. `None` if the node stops or the source is gone.
async fn take(
    shared: &Arc<Shared>,
    source: &str,
    collector: &dyn Collector,
    page: Page,
    stopping: &mut watch::Receiver<bool>,
) -> Option<()> {
    let name = collector.name();
    let mut lost = page.lost;
    let items = page.items.len() as u64;
    let mut rest = page.items.into_iter();
    loop {
        let some: Vec<Offered> = rest.by_ref().take(TOGETHER).map(offered).collect();
        if some.is_empty() {
            break;
        }
        for kept in join_all(some.iter().map(|offered| keep(shared, source, offered, |_| ()))).await {
            match kept {
                // A job that printed nothing.
                Kept::Yes | Kept::No(NotTaken::Refused(Refusal::Empty)) => {}
                Kept::No(error) => lost.push(crate::chain(&error)),
                Kept::Over => return None,
            }
        }
    }
    for (stream, cursor) in &page.cursors {
        if let Some(Troubled { member, what, error, .. }) = Troubled::of(stream, cursor) {
            tracing::warn!(
                source,
                collector = name,
                member,
                what,
                error,
                "it cannot be had just now; the rest goes on"
            );
        }
    }
    for reason in &lost {
        tracing::warn!(source, collector = name, reason, "something that should have been there cannot be had");
    }
    if let Some(source) = shared.source(source).filter(|_| items > 0) {
        shared.metrics.collected.with_label_values(&[source.source_type.name()]).inc_by(items);
    }
    shared.collecting.tell(source, &name, |state| {
        state.items += items;
        state.lost.extend(lost.iter().cloned());
        let old = state.lost.len().saturating_sub(LOST_TOLD);
        state.lost.drain(..old);
    });
    if items > 0 || !page.cursors.is_empty() || !lost.is_empty() || page.whole.is_some() || !page.signed.is_empty() {
        lost.truncate(LOST_MAX);
        let short = |text: String| text.chars().take(LOST_CHARS).collect();
        let record = Collected {
            name: source.to_owned(),
            collector: name.clone(),
            cursors: page.cursors.into_iter().collect(),
            items,
            whole: page.whole,
            lost: lost.into_iter().map(short).collect(),
            signed: page.signed,
        };
        Failpoint::CollectBeforeCursors.pass();
        write_down(shared, record, stopping).await?;
        Failpoint::CollectAfterCursors.pass();
    }
    if !page.receipts.is_empty()
        && let Err(error) = collector.taken(&page.receipts).await
    {
        tracing::warn!(source, collector = name, error = %crate::chain(&error), "its provider was not told what was taken");
    }
    Some(())
}

/// Writes down how far a collector came, however long it takes.
pub(super) async fn write_down(
    shared: &Arc<Shared>,
    record: Collected,
    stopping: &mut watch::Receiver<bool>,
) -> Option<()> {
    loop {
        let (here, control) = (Arc::clone(shared), Control::Collected(record.clone()));
        // Whoever ends us in the middle does not end this: what is in the log is known then, too.
        let written = tokio::spawn(async move { here.control(control).await.map_err(|error| error.to_string()) }).await;
        match written.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(_) => return Some(()),
            Err(error) => tracing::warn!(error, "cannot write down how far a collector came"),
        }
        if pause(stopping, RETRY).await {
            return None;
        }
    }
}

fn offered(item: Fetched) -> Offered {
    let Fetched { headers, query, body, way } = item;
    Offered { headers, query, body, way, mode: CollectionMode::Collected }
}

fn span(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
