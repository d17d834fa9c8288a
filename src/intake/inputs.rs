//! The ways in besides HTTP that run: files, syslog, topics. A configuration that is read again starts those that are new and
//! ends those it no longer names; the others are not touched.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener as Socket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::kafka::{self, Topics};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::reading::{READS, Reader};
use super::{files, syslog, topics};
use crate::accept::Accepting;
use crate::config::Config;
use crate::node::{NodeError, Shared};
use crate::tls::{self, TlsListener};

/// How long an input may take to end when the node stops.
const END_MAX: Duration = Duration::from_secs(30);

/// What runs, and how it does.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    running: Mutex<Vec<Running>>,
    states: RwLock<BTreeMap<(String, String), State>>,
}

/// A way in. Two that are equal are the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Input {
    Files {
        source: String,
        path: PathBuf,
    },
    /// Its certificates and whom it accepts are looked up as they are in force.
    Syslog {
        source: String,
        listen: SocketAddr,
        encrypted: bool,
    },
    Topics {
        source: String,
        settings: kafka::Settings,
    },
}

#[derive(Debug)]
struct Running {
    input: Input,
    task: JoinHandle<()>,
    /// The socket that syslog is listened on: another input may take it over.
    socket: Option<Socket>,
    /// Turned true when connections are to end that are open still.
    ends: watch::Sender<bool>,
}

/// Inputs that can start: whatever may fail about them has been done. Nothing is taken in before [`Inputs::apply`].
#[derive(Debug)]
pub(crate) struct Prepared {
    wanted: Vec<Input>,
    ready: Vec<(Input, Door)>,
}

#[derive(Debug)]
enum Door {
    Files(PathBuf),
    Syslog(Socket, TcpListener),
    Topics(Topics),
}

/// How an input does.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct State {
    /// Why it cannot go on just now, and since when.
    pub(super) waiting: Option<Failure>,
    /// What it had to pass over since the start.
    pub(super) skipped: u64,
    pub(super) last_skipped: Option<Failure>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Failure {
    pub(super) at: Timestamp,
    pub(super) error: String,
}

impl Input {
    /// Everything a configuration names.
    fn all(config: &Config) -> Vec<Self> {
        let mut all = Vec::new();
        for source in &config.sources {
            let name = || source.name.clone();
            all.extend(source.reads.files.iter().map(|path| Self::Files { source: name(), path: path.clone() }));
            all.extend(source.reads.syslog.iter().map(|syslog| Self::Syslog {
                source: name(),
                listen: syslog.listen,
                encrypted: syslog.tls.is_some(),
            }));
            let kafka = source.reads.kafka.iter();
            all.extend(kafka.map(|settings| Self::Topics { source: name(), settings: settings.clone() }));
        }
        all
    }

    fn source(&self) -> &str {
        match self {
            Self::Files { source, .. } | Self::Syslog { source, .. } | Self::Topics { source, .. } => source,
        }
    }

    /// It, in a word.
    fn name(&self) -> String {
        match self {
            Self::Files { path, .. } => format!("files {}", path.display()),
            Self::Syslog { listen, .. } => format!("syslog {listen}"),
            Self::Topics { settings, .. } => format!("kafka {}", settings.topics.join(",")),
        }
    }

    /// The address it listens on, if it is one of its own.
    const fn listen(&self) -> Option<SocketAddr> {
        match self {
            Self::Syslog { listen, .. } if listen.port() != 0 => Some(*listen),
            _ => None,
        }
    }
}

impl Inputs {
    /// Makes ready what a configuration names and does not run.
    pub(crate) async fn prepare(&self, config: &Config) -> Result<Prepared, NodeError> {
        let wanted = Input::all(config);
        for (at, input) in wanted.iter().enumerate() {
            let before =
                wanted.iter().take(at).any(|other| other.listen().is_some() && other.listen() == input.listen());
            if before {
                let problem =
                    format!("{} of source {} is listened on for another source", input.name(), input.source());
                return Err(NodeError::Configuration(problem));
            }
        }
        let mut ready = Vec::new();
        for input in &wanted {
            let Some(ours) = self.missing(input) else { continue };
            let door = match input {
                Input::Files { path, .. } => Door::Files(path.clone()),
                Input::Syslog { listen, .. } => {
                    let socket = match ours {
                        Some(ours) => ours,
                        None => TcpListener::bind(listen).await.and_then(TcpListener::into_std),
                    };
                    let both = socket.and_then(|socket| Ok((socket.try_clone()?, TcpListener::from_std(socket)?)));
                    let (socket, listener) = both.map_err(NodeError::part("listen for syslog"))?;
                    Door::Syslog(socket, listener)
                }
                Input::Topics { settings, .. } => {
                    Door::Topics(Topics::join(settings).map_err(NodeError::part("read topics"))?)
                }
            };
            ready.push((input.clone(), door));
        }
        Ok(Prepared { wanted, ready })
    }

    /// `None` if it runs; else the socket it takes over, if another input listens there.
    fn missing(&self, input: &Input) -> Option<Option<std::io::Result<Socket>>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.iter().any(|one| one.input == *input && !one.task.is_finished()) {
            return None;
        }
        let listen = input.listen();
        let there = running.iter().find(|one| listen.is_some() && one.input.listen() == listen);
        Some(there.and_then(|one| Some(one.socket.as_ref()?.try_clone())))
    }

    /// Starts what is ready, and ends what is not wanted any more. Its sources are connected, and the endpoints of TLS in force.
    pub(crate) fn apply(&self, shared: &Arc<Shared>, prepared: Prepared) {
        let Prepared { wanted, ready } = prepared;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for one in std::mem::take(&mut *running) {
            if wanted.contains(&one.input) && !one.task.is_finished() {
                running.push(one);
                continue;
            }
            // Who listens there for the same source after it goes on with what is connected.
            let same = |other: &Input| other.source() == one.input.source() && other.listen() == one.input.listen();
            if one.input.listen().is_none() || !wanted.iter().any(same) {
                one.ends.send_replace(true);
            }
            one.task.abort();
            tracing::info!(source = one.input.source(), input = one.input.name(), "an input ends");
        }
        let names: Vec<_> = wanted.iter().map(|input| (input.source().to_owned(), input.name())).collect();
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        states.retain(|name, _| names.contains(name));
        for name in names {
            states.entry(name).or_default();
        }
        drop(states);
        for (input, door) in ready {
            tracing::info!(source = input.source(), input = input.name(), "an input starts");
            running.push(start(shared, input, door));
        }
    }

    /// Waits for what runs; the node is stopping.
    pub(crate) async fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for one in running {
            if tokio::time::timeout(END_MAX, one.task).await.is_err() {
                tracing::warn!(input = one.input.name(), "an input did not stop within 30 s");
            }
        }
    }

    /// The inputs of a source, for people and programs.
    pub(crate) fn told(&self, shared: &Shared, source: &str) -> Vec<Value> {
        let registry = shared.registry();
        let so_far = registry.collected.get(source);
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let own = states.iter().filter(|((of, _), _)| of == source);
        own.map(|((_, name), state)| {
            let ever = so_far.and_then(|all| all.get(&format!("{READS}{name}"))).map_or(0, |so_far| so_far.lost);
            let mut told = json!(state);
            told["input"] = json!(name);
            told["state"] = json!(if state.waiting.is_some() { "waiting" } else { "ok" });
            told["skipped_ever"] = json!(ever);
            told
        })
        .collect()
    }

    pub(super) fn tell(&self, source: &str, name: &str, change: impl FnOnce(&mut State)) {
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        // One that has ended meanwhile is not told of any more.
        if let Some(state) = states.get_mut(&(source.to_owned(), name.to_owned())) {
            change(state);
        }
    }
}

fn start(shared: &Arc<Shared>, input: Input, door: Door) -> Running {
    let (ends, ended) = watch::channel(false);
    let reader = Reader::new(Arc::clone(shared), input.source().to_owned(), input.name());
    let (task, socket) = match door {
        Door::Files(path) => (tokio::spawn(files::follow(reader, path)), None),
        Door::Topics(topics) => (tokio::spawn(topics::read(reader, topics)), None),
        Door::Syslog(socket, listener) => {
            let listener = Accepting::new(listener, Arc::clone(shared));
            let encrypted = matches!(&input, Input::Syslog { encrypted: true, .. });
            let endpoint = shared.tls.get(&tls::syslog(input.source())).filter(|_| encrypted);
            let receiving = syslog::Receiving { reader: Arc::new(reader), encrypted, ended };
            let task = match endpoint {
                Some(endpoint) => {
                    let failed = shared.metrics.tls_handshakes_failed.clone();
                    tokio::spawn(syslog::listen(receiving, TlsListener::new(listener, endpoint, failed)))
                }
                // Never in plain text what is to be encrypted.
                None if encrypted => {
                    let name = input.name();
                    tokio::spawn(async move { tracing::error!(input = name, "its certificate is not there") })
                }
                None => tokio::spawn(syslog::listen(receiving, listener)),
            };
            (task, Some(socket))
        }
    };
    Running { input, task, socket, ends }
}
