//! TLS of everything that listens: certificates and keys from files, client certificates, handshakes with limits.
//!
//! Files are read again on SIGHUP, and once a minute when they have changed. Connections keep what they were opened with; a
//! file that cannot be used changes nothing.

mod listener;
mod material;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::authentic::ClientCertificate;
use serde::Deserialize;
use tokio_rustls::rustls::ServerConfig;

pub(crate) use self::listener::TlsListener;
pub(crate) use self::material::TlsError;
use self::material::{Material, Protocol};
use crate::config::Config;
use crate::node::Shared;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Name of the HTTP server's endpoint.
pub(crate) const SERVER: &str = "server";

/// Where certificates and keys are, as the configuration writes it. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFiles {
    /// The certificate, and those between it and what clients trust, in this order.
    pub(crate) cert: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC1, not encrypted.
    pub(crate) key: PathBuf,
    /// Authorities whose certificates clients may show.
    pub(crate) client_ca: Option<PathBuf>,
    /// Revocation lists of these authorities.
    pub(crate) client_crl: Option<PathBuf>,
    /// Whether who shows no certificate is turned away. Unless set: no for HTTP, where a token or a signature may stand for the
    /// sender; yes for syslog, where nothing else can.
    pub(crate) require_client_certificate: Option<bool>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The certificate it proved, of one of the authorities that are trusted for clients.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
}

/// What one listener presents and asks for.
#[derive(Debug)]
pub(crate) struct Endpoint {
    name: String,
    protocol: Protocol,
    in_force: RwLock<InForce>,
}

#[derive(Debug)]
struct InForce {
    files: TlsFiles,
    /// Digest of the files that were looked at last, whether they could be used or not.
    seen: [u8; 32],
    config: Arc<ServerConfig>,
    /// When its certificate ends.
    not_after: Timestamp,
}

/// The endpoints of a node by name, and when their certificates end.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    by_name: RwLock<BTreeMap<String, Arc<Endpoint>>>,
}

/// Material that was read and can be used, not in force yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    ready: Vec<(String, Protocol, TlsFiles, Material)>,
    /// Endpoints that a configuration names.
    names: BTreeSet<String>,
}

/// Name of the endpoint of a source's syslog listener.
pub(crate) fn syslog(source: &str) -> String {
    format!("syslog of {source}")
}

impl TlsFiles {
    /// What is wrong with the settings themselves; `here` is where they stand.
    pub(crate) fn check(&self, here: &str, problems: &mut Vec<String>) {
        if self.client_ca.is_none() {
            if self.client_crl.is_some() {
                problems.push(format!("{here}.client_crl: says who is revoked of client_ca, which is not set"));
            }
            if self.require_client_certificate == Some(true) {
                problems.push(format!(
                    "{here}.require_client_certificate: needs client_ca, whose certificates are accepted"
                ));
            }
        }
    }
}

fn configured(config: &Config) -> impl Iterator<Item = (String, Protocol, &TlsFiles)> {
    let server = config.tls.iter().map(|files| (SERVER.to_owned(), Protocol::Http, files));
    let syslog = config.sources.iter().filter_map(|source| {
        let files = source.reads.syslog.as_ref()?.tls.as_ref()?;
        Some((syslog(&source.name), Protocol::Syslog, files))
    });
    server.chain(syslog)
}

impl Endpoints {
    /// Reads everything a configuration names.
    pub(crate) fn open(config: &Config) -> Result<Self, TlsError> {
        let mut by_name = BTreeMap::new();
        for (name, protocol, files) in configured(config) {
            let Material { seen, config, not_after, .. } = Material::read(&name, files, protocol)?;
            let in_force = RwLock::new(InForce { files: files.clone(), seen, config, not_after });
            by_name.insert(name.clone(), Arc::new(Endpoint { name, protocol, in_force }));
        }
        Ok(Self { by_name: RwLock::new(by_name) })
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Endpoint>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn all(&self) -> Vec<Arc<Endpoint>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// When the certificate of each endpoint ends.
    pub(crate) fn ends(&self) -> Vec<(String, Timestamp)> {
        let ends = |endpoint: &Endpoint| endpoint.in_force.read().unwrap_or_else(PoisonError::into_inner).not_after;
        self.all().iter().map(|endpoint| (endpoint.name.clone(), ends(endpoint))).collect()
    }

    /// Reads again what a configuration names, all of it or nothing. Nothing is in force before [`Endpoints::apply`].
    pub(crate) fn prepare(&self, config: &Config) -> Result<Prepared, TlsError> {
        let (mut ready, mut names) = (Vec::new(), BTreeSet::new());
        for (name, protocol, files) in configured(config) {
            if name == SERVER && self.get(&name).is_none() {
                tracing::warn!(
                    endpoint = name,
                    "TLS is new for what listens already in plain text: restart to have it"
                );
                continue;
            }
            let material = Material::read(&name, files, protocol)?;
            names.insert(name.clone());
            ready.push((name, protocol, files.clone(), material));
        }
        if self.get(SERVER).is_some() && !names.contains(SERVER) {
            tracing::warn!("TLS is taken out of the configuration: it stays in force until a restart");
            names.insert(SERVER.to_owned());
        }
        Ok(Prepared { ready, names })
    }

    /// Puts it in force for connections to come.
    pub(crate) fn apply(&self, prepared: Prepared) {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.retain(|name, _| prepared.names.contains(name));
        for (name, protocol, files, material) in prepared.ready {
            match by_name.get(&name) {
                Some(endpoint) => endpoint.put(files, material),
                None => {
                    let Material { seen, config, not_after, .. } = material;
                    let in_force = RwLock::new(InForce { files, seen, config, not_after });
                    by_name.insert(name.clone(), Arc::new(Endpoint { name, protocol, in_force }));
                }
            }
        }
    }
}

impl Endpoint {
    /// What the next connection is answered with.
    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    fn put(&self, files: TlsFiles, material: Material) {
        tracing::info!(endpoint = self.name, certificate = material.fingerprint, until = %material.not_after, "TLS certificate in force");
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        let Material { seen, config, not_after, .. } = material;
        *in_force = InForce { files, seen, config, not_after };
    }

    /// Takes in files that have changed since they were last looked at.
    fn look_again(&self) {
        let (files, seen) = {
            let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
            (in_force.files.clone(), in_force.seen)
        };
        let now = match material::digest(&files) {
            Ok(now) if now == seen => return,
            Ok(now) => now,
            // Perhaps it is being replaced just now.
            Err(error) => {
                return tracing::debug!(endpoint = self.name, error = %crate::chain(&error), "a TLS file is not there");
            }
        };
        match Material::read(&self.name, &files, self.protocol) {
            Ok(material) => self.put(files, material),
            Err(error) => {
                tracing::warn!(endpoint = self.name, error = %crate::chain(&error), "the TLS files before stay in force");
                self.in_force.write().unwrap_or_else(PoisonError::into_inner).seen = now;
            }
        }
    }
}

/// Looks at the files of every endpoint until the node stops: who renews certificates cannot always send a signal.
pub(crate) async fn look(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    while tokio::time::timeout(LOOK_EVERY, stopping.wait_for(|stop| *stop)).await.is_err() {
        let shared = Arc::clone(&shared);
        let looked =
            tokio::task::spawn_blocking(move || shared.tls.all().iter().for_each(|endpoint| endpoint.look_again()));
        if let Err(error) = looked.await {
            tracing::error!(error = %error, "cannot look at TLS files");
        }
    }
}
