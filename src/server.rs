//! A node with its HTTP server: what `serve` runs, what the demo runs, and what a command starts for itself when no
//! server has the data folder.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeproof_engine::clock::{Clock, SteadyClock, SystemClock};
use pipeproof_engine::control::Control;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::accept::Accepting;
use crate::config::Config;
use crate::http;
use crate::node::{Node, NodeError, Shared};
use crate::public_address;
use crate::registry::new_token;
use crate::rules::{self, ChangeError, Mandate};
use crate::scope::Scope;
use crate::tls::{self, TlsListener};

/// Note of the token that a server makes for commands on the same machine.
const LOCAL: &str = "commands on this machine";

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    node: Node,
    pub(crate) address: SocketAddr,
    pub(crate) local_token: String,
    serving: Vec<JoinHandle<()>>,
    encrypted: bool,
}

/// Where a running server is, for commands on the same machine. The file is readable by its owner only.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Whereabouts {
    pub(crate) url: String,
    pub(crate) token: String,
}

impl Server {
    /// Starts a node on `data` and listens on `listen`.
    pub(crate) async fn start(data: &Path, config: &Config, listen: SocketAddr) -> Result<Self, NodeError> {
        let listener = TcpListener::bind(listen).await.map_err(NodeError::part("listen"))?;
        let address = listener.local_addr().map_err(NodeError::part("listen"))?;
        let clock: Arc<dyn Clock> = Arc::new(SteadyClock::new(SystemClock));
        let node = Node::start(data, config, clock).await?;
        let local_token = local_token(&node.shared).await?;
        let mut serving = Vec::new();
        let endpoint = node.shared.tls.get(tls::SERVER);
        let encrypted = endpoint.is_some();
        if !config.passing {
            node.shared.public.listens(encrypted, address);
        }
        let local = match endpoint {
            None => {
                serving.push(tokio::spawn(http::serve(
                    Accepting::new(listener, Arc::clone(&node.shared)),
                    Arc::clone(&node.shared),
                )));
                address
            }
            Some(endpoint) => {
                // Commands on this machine cannot know the name in the certificate: they have a door of their own, which
                // no other machine reaches.
                let own = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(NodeError::part("listen"))?;
                let local = own.local_addr().map_err(NodeError::part("listen"))?;
                let failed = node.shared.metrics.tls_handshakes_failed.clone();
                let listener = TlsListener::new(Accepting::new(listener, Arc::clone(&node.shared)), endpoint, failed);
                serving.push(tokio::spawn(http::serve(listener, Arc::clone(&node.shared))));
                serving.push(tokio::spawn(http::serve(
                    Accepting::new(own, Arc::clone(&node.shared)),
                    Arc::clone(&node.shared),
                )));
                local
            }
        };
        let whereabouts = Whereabouts { url: format!("http://{local}"), token: local_token.clone() };
        write_whereabouts(&node.shared.data, &whereabouts).map_err(NodeError::part("say where the server is"))?;
        Ok(Self { node, address, local_token, serving, encrypted })
    }

    /// The address as a URL.
    pub(crate) fn url(&self) -> String {
        public_address::url(self.encrypted, self.address)
    }

    /// Reads the configured folder of rules again. What is wrong with it is logged and shown; the rules before stay.
    pub(crate) async fn reload_rules(&self) {
        // Any other error is told where it happens.
        if let Err(error @ ChangeError::Usage(_)) = rules::reload(&self.node.shared, Mandate::own("SIGHUP")).await {
            tracing::warn!(error = %error, "nothing to read again");
        }
    }

    /// Takes in sources with their secrets and ways in, and targets, of a configuration that was read again, or notes why it
    /// cannot be used. Whether it is in force.
    pub(crate) async fn reload_configuration(&self, read: Result<&Config, String>) -> bool {
        let outcome = match read {
            Ok(config) => self.node.reload(config).await.map_err(|error| crate::chain(&error)),
            Err(reason) => Err(reason),
        };
        let in_force = outcome.is_ok();
        self.node.shared.configuration_read(outcome).await;
        in_force
    }

    /// Takes in the address files a configuration names.
    pub(crate) async fn reload_addresses(&self, config: &Config) -> Result<(), NodeError> {
        if let Some(configured) = &config.enrichment {
            let problems = crate::enrichment::apply(&self.node.shared, configured).await?;
            tracing::info!(problems = problems.len(), "the address files were read again");
        }
        Ok(())
    }

    /// Stops in order.
    pub(crate) async fn stop(self) -> Result<(), NodeError> {
        let shared = Arc::clone(&self.node.shared);
        if let Err(error) = fs::remove_file(whereabouts_path(&shared.data)) {
            tracing::debug!(error = %error, "cannot remove the file that says where the server is");
        }
        revoke_local_tokens(&shared).await;
        self.node.stop().await?;
        for serving in self.serving {
            serving.await.map_err(NodeError::part("serve HTTP"))?;
        }
        Ok(())
    }
}

async fn local_token(shared: &Arc<Shared>) -> Result<String, NodeError> {
    // A server that was killed left its own behind.
    revoke_local_tokens(shared).await;
    let (text, record) = new_token(
        &shared.secret_keys.token,
        &[Scope::Admin],
        None,
        None,
        Some(LOCAL.to_owned()),
        (shared.clock.now(), "pipeproof"),
    );
    shared.control(Control::TokenCreated(record)).await.map_err(NodeError::part("write to the log"))?;
    Ok(text)
}

async fn revoke_local_tokens(shared: &Arc<Shared>) {
    let ids: Vec<String> = {
        let registry = shared.registry();
        registry
            .tokens
            .values()
            .filter(|token| token.note.as_deref() == Some(LOCAL))
            .map(|token| token.id.clone())
            .collect()
    };
    for id in ids {
        if let Err(error) = shared.control(Control::TokenRevoked { id, actor: "pipeproof".to_owned() }).await {
            tracing::warn!(error = %error, "cannot revoke a local token");
        }
    }
}

fn whereabouts_path(data: &Path) -> PathBuf {
    data.join("run").join("server.json")
}

fn write_whereabouts(data: &Path, whereabouts: &Whereabouts) -> std::io::Result<()> {
    fs::create_dir_all(data.join("run"))?;
    let path = whereabouts_path(data);
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    serde_json::to_writer(options.open(&temporary)?, whereabouts)?;
    fs::rename(temporary, path)
}

/// Where the server of a data folder is, if one runs.
pub(crate) fn whereabouts(data: &Path) -> Option<Whereabouts> {
    serde_json::from_slice(&fs::read(whereabouts_path(data)).ok()?).ok()
}
