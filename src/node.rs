//! One running pipeproof on one data folder: opens what is there, wires the roles, and stops them in order.
//!
//! It decides nothing about events: `ingest` makes records, `engine` decides, `record` keeps, `reports` tells.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use pipeproof_engine::clock::Clock;
use pipeproof_engine::commit::{Restored, Store};
use pipeproof_engine::control::{Control, OWN_SOURCE, SourceRecord};
use pipeproof_engine::detect::{
    DetectCounters, Detector, ExceptionStatus, RestoreError, RuleStatus, StreamStatus, TableStatus,
};
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Record};
use pipeproof_engine::silence::Silence;
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::authentic::{AcceptedCertificate, ClientCertificate};
use pipeproof_ingest::enrich::{AddressFiles, Decoder};
use pipeproof_ingest::log::disk::sync_name;
use pipeproof_ingest::log::{AppendError, Log, LogOptions, OpenReport};
use pipeproof_ingest::receive::{Receiver, ReceiverKeys, Secret, SourceSettings};
use pipeproof_record::lake::Lake;
use pipeproof_record::store::SqliteStore;
use pipeproof_reports::deliver::run::Deliverer;
use pipeproof_reports::keys::Keys;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::background::Background;
use crate::config::{Config, ConfiguredSource, ITEMS_IN_MEMORY};
use crate::damage::{self, Found};
use crate::http::body::Room;
use crate::http::hec::Channels;
use crate::intake::collecting::{self, Collecting};
use crate::intake::identity::Identities;
use crate::intake::inputs::Inputs;
use crate::metrics::Metrics;
use crate::public_address::PublicAddress;
use crate::registry::{self, Registry, RegistryError};
use crate::roles;
use crate::roles::Retention;
use crate::rules::{ChangeError, RuleSets, SetError};
use crate::secret_keys::SecretKeys;
use crate::tls::{Endpoints, TlsError};

/// Log partition of a single machine.
pub(crate) const PARTITION: u32 = 0;

/// Folder of the data folder where address files are kept.
pub(crate) const ADDRESS_FILES: &str = "enrichment";

/// Why a node cannot start or stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error("cannot use data folder {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("data folder {0} is in use by another pipeproof: use its --url, or stop it first")]
    Locked(PathBuf),
    #[error("cannot {doing}")]
    Part {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The rules that were asked for are no rules.
    #[error(transparent)]
    Rules(SetError),
    #[error(
        "the rule set {set}, which the log says is in force, cannot be used: restore its folder from a copy of the data folder"
    )]
    RulesInForce {
        set: String,
        #[source]
        source: SetError,
    },
    #[error("the configuration is not valid: {0}")]
    Configuration(String),
}

impl NodeError {
    pub(crate) fn part<E>(doing: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Part { doing, source: source.into() }
    }
}

/// Lists of events that are read at once: each keeps a thread busy.
const LISTINGS: usize = 4;
/// Requests that are taken apart at once, at least.
const TAKING_MIN: usize = 4;
/// Streams of events that are listened to at once.
const LISTENERS: usize = 16;

/// What rules, tables and exceptions hold, as detection last told.
#[derive(Clone, Debug, Default)]
pub(crate) struct DetectStatus {
    pub(crate) rules: Vec<RuleStatus>,
    pub(crate) tables: Vec<TableStatus>,
    pub(crate) exceptions: Vec<ExceptionStatus>,
    /// How the numberings of sources stand.
    pub(crate) streams: Vec<StreamStatus>,
    /// How sources speak.
    pub(crate) silences: Vec<Silence>,
    /// The record time at which all of this was told, exceptions aside.
    pub(crate) as_of: Timestamp,
}

/// What every role shares.
pub(crate) struct Shared {
    pub(crate) data: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) run: String,
    pub(crate) secret_keys: SecretKeys,
    pub(crate) keys: Keys,
    pub(crate) registry: RwLock<Registry>,
    /// Held while a control record is appended and folded in, so that the registry follows the log's order.
    administration: tokio::sync::Mutex<()>,
    configured_secrets: RwLock<BTreeMap<String, Vec<Secret>>>,
    /// Whose client certificates sources accept.
    configured_certificates: RwLock<BTreeMap<String, AcceptedCertificate>>,
    /// Where senders reach us.
    pub(crate) public: PublicAddress,
    /// What listeners present in TLS handshakes.
    pub(crate) tls: Endpoints,
    pub(crate) log: Log,
    pub(crate) seal: Log,
    /// What opening them found.
    pub(crate) damage: Vec<(&'static str, OpenReport)>,
    /// Leaf hashes that were found damaged and mended since.
    pub(crate) mended_hashes: AtomicU64,
    pub(crate) store: SqliteStore,
    pub(crate) lake: Lake,
    /// For what no event waits for.
    pub(crate) background: Background,
    pub(crate) rules: RuleSets,
    pub(crate) receiver: Receiver,
    pub(crate) hec: Channels,
    /// For bodies that are being read or worked on.
    pub(crate) room: Room,
    /// Requests that may be taken apart at once.
    pub(crate) taking: tokio::sync::Semaphore,
    pub(crate) identities: Identities,
    pub(crate) collecting: Collecting,
    pub(crate) inputs: Inputs,
    pub(crate) address_files: AddressFiles,
    pub(crate) detected: watch::Sender<u64>,
    pub(crate) archived: watch::Sender<u64>,
    /// Records that a sealed checkpoint covers.
    pub(crate) sealed: watch::Sender<u64>,
    pub(crate) retention: Retention,
    /// Held while files are copied or retired by name.
    pub(crate) copying: tokio::sync::Mutex<()>,
    /// Held while a payload is dropped.
    pub(crate) redacting: tokio::sync::Mutex<()>,
    /// Held while the archive takes in records and feeds.
    pub(crate) archiving: tokio::sync::Mutex<()>,
    pub(crate) archive_now: Notify,
    pub(crate) archive_every: Duration,
    pub(crate) seal_every: Duration,
    pub(crate) patience: Option<roles::Patience>,
    /// Bytes of memory that the configuration allows.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) stopping: watch::Sender<bool>,
    /// Why the store or the lake cannot be written just now.
    pub(crate) trouble: RwLock<BTreeMap<&'static str, String>>,
    pub(crate) counters: RwLock<DetectCounters>,
    status: RwLock<DetectStatus>,
    /// How the rules that ask the lake do, by their digests.
    pub(crate) sql_rules: RwLock<BTreeMap<String, roles::SqlStatus>>,
    pub(crate) metrics: Metrics,
    /// Delivery to the targets of the configuration as it was last read.
    pub(crate) deliverer: watch::Sender<Option<Arc<Deliverer<SqliteStore>>>>,
    /// What is wrong with the configuration file, so that what was read before stays in force.
    pub(crate) configuration_trouble: RwLock<Option<String>>,
    controls: AtomicU64,
    /// Everything the log held at the start has been evaluated.
    pub(crate) caught_up: AtomicBool,
    pub(crate) evidence: tokio::sync::Mutex<()>,
    /// Lists of events that may be read at once.
    pub(crate) listings: Arc<tokio::sync::Semaphore>,
    /// Streams of events that may be listened to.
    pub(crate) listeners: Arc<tokio::sync::Semaphore>,
    /// Backtests that may run.
    pub(crate) backtests: Arc<tokio::sync::Semaphore>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("data", &self.data).field("run", &self.run).finish_non_exhaustive()
    }
}

/// A running node. Dropping it without [`Node::stop`] is like a crash.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) shared: Arc<Shared>,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
    /// Of the folder; there until it is given up.
    lock: Option<File>,
}

impl Node {
    /// Opens the folder and starts every role.
    pub(crate) async fn start(data: &Path, config: &Config, clock: Arc<dyn Clock>) -> Result<Self, NodeError> {
        let folder = |source| NodeError::Folder { path: data.to_owned(), source };
        fs::create_dir_all(data).map_err(folder)?;
        let data = fs::canonicalize(data).map_err(folder)?;
        sync_name(&data).map_err(folder)?;
        let lock = lock(&data)?;
        let secret_keys = SecretKeys::load_or_create(&data.join("keys")).map_err(NodeError::part("open the keys"))?;
        let keys =
            Keys::load_or_create(&data.join("keys"), &*clock).map_err(NodeError::part("open the signing keys"))?;
        let store = SqliteStore::open(&data.join("store.db"), Arc::clone(&clock))
            .await
            .map_err(NodeError::part("open the store"))?;
        let lake = Lake::open(&data.join("lake")).await.map_err(NodeError::part("open the lake"))?;
        let restored = store.restore(PARTITION).await.map_err(NodeError::part("read where detection stands"))?;
        let archived = lake.archived(PARTITION).await.map_err(NodeError::part("read where the lake stands"))?;
        let Found { log: seal, report: seal_report } = damage::open_seal(&data, &lake, &store).await?;
        let last_sealed = roles::last_sealed(&keys, &seal)?;
        let sealed = last_sealed.map_or(0, |sealed| sealed.size);
        let known = restored.position.max(archived).max(sealed);
        let options = LogOptions { partition: PARTITION, ..config.log.clone() };
        let Found { log, report } = damage::open_log(&data, &lake, known, last_sealed, options).await?;
        check_readers(&log, restored.position, archived)?;
        roles::check_last_checkpoint(&keys, &log, &seal)?;
        let registry = roles::rebuild_registry(&data, &secret_keys.token, &log, &lake)?;
        let rules = open_rules(&data, &registry, config)?;
        let mut detector = restore(&restored, &rules, registry.rules.is_some())?;
        detector.hand_over_items_at(config.items_in_memory.unwrap_or(ITEMS_IN_MEMORY));
        let delta_bytes = restored.deltas.iter().map(Vec::len).sum();
        crate::redaction::catch_up(&mut detector, &store, &registry).await?;
        let receiver_keys = ReceiverKeys { redaction: secret_keys.redaction.bytes(), dedup: secret_keys.dedup.bytes() };
        let deliverer = roles::deliverer(config, &store, &clock)?;
        register(deliverer.as_deref()).await?;
        let tls = Endpoints::open(config).map_err(not_valid)?;
        let shared = Arc::new(Shared {
            run: hex::encode(rand::random::<[u8; 8]>()),
            background: Background::start().map_err(NodeError::part("start the threads for queries"))?,
            receiver: Receiver::new(receiver_keys, pipeproof_ingest::limits::Limits::default()),
            configured_secrets: RwLock::new(secrets_of(config)),
            configured_certificates: RwLock::new(certificates_of(config)),
            public: PublicAddress::new(config.public_url.clone()),
            tls,
            hec: Channels::default(),
            room: Room::default(),
            taking: tokio::sync::Semaphore::new(
                std::thread::available_parallelism().map_or(TAKING_MIN, |cores| (2 * cores.get()).max(TAKING_MIN)),
            ),
            identities: Identities::new(config.identities()),
            collecting: Collecting::default(),
            inputs: Inputs::default(),
            registry: RwLock::new(registry),
            administration: tokio::sync::Mutex::new(()),
            detected: watch::Sender::new(restored.position),
            archived: watch::Sender::new(archived),
            sealed: watch::Sender::new(sealed),
            retention: config.retention,
            copying: tokio::sync::Mutex::new(()),
            redacting: tokio::sync::Mutex::new(()),
            archiving: tokio::sync::Mutex::new(()),
            configuration_trouble: RwLock::default(),
            archive_now: Notify::new(),
            archive_every: config.archive_every,
            seal_every: config.seal_every,
            patience: config.patience,
            memory_bytes: config.memory_bytes,
            stopping: watch::Sender::new(false),
            trouble: RwLock::default(),
            counters: RwLock::default(),
            status: RwLock::default(),
            sql_rules: RwLock::default(),
            metrics: Metrics::new().map_err(NodeError::part("register metrics"))?,
            controls: AtomicU64::new(0),
            caught_up: AtomicBool::new(false),
            evidence: tokio::sync::Mutex::new(()),
            listings: Arc::new(tokio::sync::Semaphore::new(LISTINGS)),
            listeners: Arc::new(tokio::sync::Semaphore::new(LISTENERS)),
            backtests: Arc::new(tokio::sync::Semaphore::new(1)),
            rules,
            clock,
            address_files: AddressFiles::new(data.join(ADDRESS_FILES)),
            data,
            secret_keys,
            keys,
            log,
            seal,
            store,
            lake,
            damage: vec![(damage::LOG, report), (damage::SEAL, seal_report)],
            mended_hashes: AtomicU64::new(0),
            deliverer: watch::Sender::new(deliverer),
        });
        let mut node = Self { shared, tasks: Vec::new(), lock: Some(lock) };
        node.announce(config).await?;
        node.shared.restore_metrics().await;
        node.tasks = roles::spawn(&node.shared, detector, delta_bytes);
        let inputs = node.shared.inputs.prepare(config).await?;
        let collectors = collecting::prepare(&node.shared, config)?;
        node.shared.inputs.apply(&node.shared, inputs);
        collecting::start(&node.shared, collectors);
        Ok(node)
    }

    /// Writes down that we are here, which rules decide if they are others than before, and what the configuration connects.
    async fn announce(&self, config: &Config) -> Result<(), NodeError> {
        let shared = &self.shared;
        let append = |control| async move {
            shared.control(control).await.map(drop).map_err(NodeError::part("write to the log"))
        };
        append(Control::Started { version: env!("CARGO_PKG_VERSION").to_owned(), run: shared.run.clone() }).await?;
        crate::rules::start(shared, config).await.map_err(|error| match error {
            ChangeError::Set(error) => NodeError::Rules(error),
            other => NodeError::part("put the rules in force")(other),
        })?;
        damage::record(shared).await?;
        // A start with a file that cannot be read is refused, so this one can.
        shared.record_refusal("configuration", None).await;
        if let Some(configured) = &config.enrichment {
            // What is wrong with a file is in the log; the one before stays.
            crate::enrichment::apply(shared, configured).await?;
        }
        connect(shared, config).await
    }

    /// Takes in sources with their secrets and ways in, and targets, of a configuration that was read again: all of it or
    /// nothing.
    pub(crate) async fn reload(&self, config: &Config) -> Result<(), NodeError> {
        let shared = &self.shared;
        // Whatever can be refused comes first, and puts nothing in force.
        let deliverer = roles::deliverer(config, &shared.store, &shared.clock)?;
        let tls = shared.tls.prepare(config).map_err(not_valid)?;
        let collectors = collecting::prepare(shared, config)?;
        let inputs = shared.inputs.prepare(config).await?;
        // The log is the last that may refuse. What is new must be known before anything comes for it.
        connect(shared, config).await?;
        // Nothing fails from here on; a target that cannot be registered now is before anything is delivered to it.
        if let Err(error) = register(deliverer.as_deref()).await {
            tracing::warn!(error = %crate::chain(&error), "the delivery targets are registered later");
        }
        shared.tls.apply(tls);
        shared.public.configure(config.public_url.clone());
        *shared.configured_secrets.write().unwrap_or_else(PoisonError::into_inner) = secrets_of(config);
        *shared.configured_certificates.write().unwrap_or_else(PoisonError::into_inner) = certificates_of(config);
        shared.identities.replace(config.identities());
        shared.deliverer.send_replace(deliverer);
        shared.inputs.apply(shared, inputs);
        collecting::start(shared, collectors);
        Ok(())
    }

    /// Stops in order: nothing more is accepted, what was accepted is evaluated and archived, and the log says so.
    pub(crate) async fn stop(mut self) -> Result<(), NodeError> {
        let shared = &self.shared;
        // A node that cannot write any more stops all the same; the next start sees that it did not say so.
        if let Err(error) = shared.control(Control::Stopped { run: shared.run.clone() }).await {
            tracing::warn!(error = %error, "cannot write down that we stop");
        }
        shared.stopping.send_replace(true);
        shared.collecting.stop();
        shared.inputs.stop().await;
        let mut goes_on = false;
        for (role, task) in self.tasks {
            if tokio::time::timeout(Duration::from_secs(30), task).await.is_err() {
                tracing::warn!(role, "a role did not stop within 30 s");
                goes_on = true;
            }
        }
        // Nobody else may have the folder while it still writes: the lock goes with the process then.
        if goes_on && let Some(lock) = self.lock.take() {
            std::mem::forget(lock);
        }
        if let Err(error) = roles::seal_now(&self.shared).await {
            tracing::warn!(error = %error, "cannot seal the last checkpoint");
        }
        self.shared.save_registry();
        if let Err(error) = self.shared.store.fold().await {
            tracing::warn!(error = %crate::chain(&error), "the store keeps its log beside it");
        }
        self.shared.seal.clone().close().await;
        self.shared.log.clone().close().await;
        Ok(())
    }
}

/// Has the outbox keep messages for the targets.
async fn register(deliverer: Option<&Deliverer<SqliteStore>>) -> Result<(), NodeError> {
    match deliverer {
        Some(deliverer) => deliverer.register().await.map_err(NodeError::part("register the delivery targets")),
        None => Ok(()),
    }
}

/// Writes down which sources a configuration connects, if they are others than before.
async fn connect(shared: &Arc<Shared>, config: &Config) -> Result<(), NodeError> {
    for source in &config.sources {
        let known = shared.registry().sources.get(&source.name).cloned();
        let now = shared.clock.now();
        let record = SourceRecord {
            name: source.name.clone(),
            source_type: source.source_type,
            labels: source.labels.clone(),
            connected: known.as_ref().map_or(now, |known| known.connected),
            generation: known.as_ref().map_or(0, |known| known.generation),
            actor: "configuration".to_owned(),
        };
        if known.is_none_or(|known| known.labels != record.labels || known.source_type != record.source_type) {
            shared.control(Control::SourceAdded(record)).await.map_err(NodeError::part("write to the log"))?;
        }
    }
    Ok(())
}

impl Shared {
    /// The registry, to read.
    pub(crate) fn registry(&self) -> std::sync::RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the receiver needs to know of a source.
    pub(crate) fn source(&self, name: &str) -> Option<SourceSettings> {
        let registry = self.registry();
        if let Some(source) = registry.sources.get(name) {
            let configured = self.configured_secrets.read().unwrap_or_else(PoisonError::into_inner);
            let configured = configured.get(name).map_or(&[][..], Vec::as_slice);
            return Some(registry::settings(source, &self.secret_keys.source, configured));
        }
        // A source named after its type exists as soon as a token for the type does.
        let source_type: SourceType = name.parse().ok().filter(|kind: &SourceType| kind.is_external())?;
        let token = registry.tokens.values().find(|token| token.source.as_deref() == Some(name))?;
        let implied = SourceRecord {
            name: name.to_owned(),
            source_type,
            labels: BTreeMap::new(),
            connected: token.created,
            generation: 0,
            actor: token.actor.clone(),
        };
        Some(registry::settings(&implied, &self.secret_keys.source, &[]))
    }

    /// Whether a source accepts a client certificate.
    pub(crate) fn accepts_certificate(&self, source: &str, certificate: &ClientCertificate, now: Timestamp) -> bool {
        let accepted = self.configured_certificates.read().unwrap_or_else(PoisonError::into_inner);
        accepted.get(source).is_some_and(|accepted| accepted.accepts(certificate, now))
    }

    /// Whether a source says whose client certificates it accepts.
    pub(crate) fn names_certificate(&self, source: &str) -> bool {
        self.configured_certificates.read().unwrap_or_else(PoisonError::into_inner).contains_key(source)
    }

    /// The sources that accept a client certificate.
    pub(crate) fn sources_accepting(&self, certificate: &ClientCertificate, now: Timestamp) -> Vec<String> {
        let accepted = self.configured_certificates.read().unwrap_or_else(PoisonError::into_inner);
        let accepting = accepted.iter().filter(|(_, accepted)| accepted.accepts(certificate, now));
        accepting.map(|(source, _)| source.clone()).collect()
    }

    /// Appends a control record, folds it into the registry and returns its index. Durable when this returns.
    pub(crate) async fn control(&self, control: Control) -> Result<u64, AppendError> {
        let _turn = self.administration.lock().await;
        let received = self.clock.now();
        let index = self.append_own(&control, received).await?;
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        registry.apply(&control, index, received);
        registry.position = index + 1;
        drop(registry);
        if !control.is_tick() {
            self.save_registry();
        }
        Ok(index)
    }

    async fn append_own(&self, control: &Control, received: Timestamp) -> Result<u64, AppendError> {
        let number = self.controls.fetch_add(1, Ordering::Relaxed);
        let record = Record {
            envelope: Envelope {
                source: OWN_SOURCE.to_owned(),
                source_type: SourceType::Pipeproof,
                received,
                auth: Authenticity::Own,
                key_id: None,
                item: format!("id:{}-{number}", self.run),
                mode: CollectionMode::Live,
                attributes: BTreeMap::new(),
                redacted: Vec::new(),
            },
            salt: rand::random(),
            body: Bytes::from(serde_json::to_vec(control).unwrap_or_default()),
        };
        let leaf = record.encode().map_err(|error| AppendError::Stopped(error.to_string().into()))?;
        self.log.append(vec![Bytes::from(leaf)]).await.map(|range| range.start)
    }

    /// A decoder of the log's records, with the address files in force at each.
    pub(crate) fn decoder(&self) -> Decoder {
        Decoder::new(self.address_files.clone(), self.registry().addresses.clone())
    }

    /// Keeps the registry beside its log position; a failure costs time at the next start, nothing else.
    pub(crate) fn save_registry(&self) {
        if let Err(error) = self.try_save_registry() {
            tracing::warn!(error = %crate::chain(&error), "cannot save the registry");
        }
    }

    /// Keeps the registry as it stands now, before records go that a start would read for it: from the lake that takes longer the more
    /// there is.
    pub(crate) async fn keep_registry(&self) -> Result<(), NodeError> {
        let _turn = self.administration.lock().await;
        self.try_save_registry().map_err(NodeError::part("save the registry"))
    }

    /// Whoever calls it has the turn of administration, or is alone.
    fn try_save_registry(&self) -> Result<(), RegistryError> {
        let copy = self.registry().clone();
        copy.save(&self.data.join("registry.json"), &self.secret_keys.token)
    }

    /// Waits until detection has passed `index`, for at most `limit`. False if it has not.
    pub(crate) async fn wait_detected(&self, index: u64, limit: Duration) -> bool {
        wait_past(self.detected.subscribe(), index, limit).await
    }

    /// Has the lake take in everything up to where detection stands now, and waits for it.
    pub(crate) async fn flush_lake(&self, limit: Duration) -> bool {
        let target = *self.detected.borrow();
        let archived = self.archived.subscribe();
        self.archive_now.notify_one();
        target == 0 || wait_past(archived, target - 1, limit).await
    }

    /// What rules, tables and exceptions hold, as detection last told.
    pub(crate) fn status(&self) -> DetectStatus {
        self.status.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is told about them.
    pub(crate) fn tell_status(&self, change: impl FnOnce(&mut DetectStatus)) {
        change(&mut self.status.write().unwrap_or_else(PoisonError::into_inner));
    }
}

fn not_valid(error: TlsError) -> NodeError {
    NodeError::Configuration(crate::chain(&error))
}

fn certificates_of(config: &Config) -> BTreeMap<String, AcceptedCertificate> {
    let accepted = |source: &ConfiguredSource| Some((source.name.clone(), source.certificate.clone()?));
    config.sources.iter().filter_map(accepted).collect()
}

fn secrets_of(config: &Config) -> BTreeMap<String, Vec<Secret>> {
    config.sources.iter().map(|source| (source.name.clone(), source.secrets.clone())).collect()
}

/// Refuses readers that would have to go on with records that are no longer in the log.
fn check_readers(log: &Log, detected: u64, archived: u64) -> Result<(), NodeError> {
    let first = log.first();
    for (reader, position) in [("detection", detected), ("the lake", archived)] {
        if position < first {
            let reason = format!(
                "the log begins at record {first}, but {reader} stands at {position}: restore what is older from the same copy as the log"
            );
            return Err(NodeError::part("continue this log")(reason));
        }
    }
    Ok(())
}

fn open_rules(data: &Path, registry: &Registry, config: &Config) -> Result<RuleSets, NodeError> {
    let in_force = registry.rules.as_ref();
    RuleSets::open(data.join("rules"), in_force, config).map_err(|source| match in_force {
        Some(in_force) => NodeError::RulesInForce { set: in_force.set.clone(), source },
        None => NodeError::Rules(source),
    })
}

/// The detector as the store left it, under the rules it stood under.
fn restore(restored: &Restored, rules: &RuleSets, in_force: bool) -> Result<Detector, NodeError> {
    let plan = |set: Option<&str>| rules.plan_at_start(set, in_force).map_err(|error| (set.map(str::to_owned), error));
    let detector = Detector::restore_under(PARTITION, restored, plan).map_err(|error| match error {
        RestoreError::State(error) => NodeError::part("restore the state of detection")(error),
        RestoreError::Rules((set, source)) => NodeError::RulesInForce { set: set.unwrap_or_default(), source },
    })?;
    if let Some(set) = detector.rule_set() {
        rules.decides(set);
    }
    Ok(detector)
}

async fn wait_past(mut mark: watch::Receiver<u64>, index: u64, limit: Duration) -> bool {
    tokio::time::timeout(limit, mark.wait_for(|position| *position > index)).await.is_ok_and(|passed| passed.is_ok())
}

/// Takes the data folder's lock.
pub(crate) fn lock(data: &Path) -> Result<File, NodeError> {
    let folder = |source| NodeError::Folder { path: data.to_owned(), source };
    let file = File::options().create(true).truncate(false).write(true).open(data.join("lock")).map_err(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(NodeError::Locked(data.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(folder(source)),
    }
}

/// What a start needs to know about time: kept here so that tests can move it.
pub(crate) fn next_second(now: Timestamp) -> Duration {
    let into = now.as_micros().rem_euclid(1_000_000);
    Duration::from_micros(u64::try_from(1_000_000 - into).unwrap_or(1_000_000))
}
