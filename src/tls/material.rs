//! Certificates, keys, authorities and revocation lists from PEM files, made into what a handshake needs.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::authentic::{CertificateError, ClientCertificate};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{
    NoClientAuth, VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier,
};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use super::TlsFiles;

/// Largest file: bundles of all public authorities have a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is spoken over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http,
    /// Syslog (RFC 5425).
    Syslog,
}

/// Why certificate files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read the TLS file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the TLS file {0} is larger than {FILE_BYTES_MAX} bytes")]
    Large(PathBuf),
    #[error("{path} holds no {what} in PEM")]
    Pem {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: Option<pem::Error>,
    },
    #[error("a certificate in {path} cannot be read")]
    Certificate {
        path: PathBuf,
        #[source]
        source: CertificateError,
    },
    #[error("an authority in {path} cannot be trusted")]
    Authority {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("the certificate in {cert} and the key in {key} cannot be used together")]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("client certificates cannot be checked against {path}")]
    Clients {
        path: PathBuf,
        #[source]
        source: VerifierBuilderError,
    },
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

/// What an endpoint presents and asks for, read from its files.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) config: Arc<ServerConfig>,
    /// Digest of the files it was made of.
    pub(super) seen: [u8; 32],
    /// SHA-256 of the endpoint's own certificate.
    pub(super) fingerprint: String,
    /// When it ends.
    pub(super) not_after: Timestamp,
}

impl Material {
    /// Reads the files of an endpoint.
    pub(super) fn read(endpoint: &str, files: &TlsFiles, protocol: Protocol) -> Result<Self, TlsError> {
        let seen = digest(files)?;
        let chain: Vec<CertificateDer<'static>> = all(&files.cert, "certificate")?;
        let own = chain.first().map_or(&[][..], |first| first.as_ref());
        let own = ClientCertificate::read(own)
            .map_err(|source| TlsError::Certificate { path: files.cert.clone(), source })?;
        let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?).map_err(|source| TlsError::Pem {
            path: files.key.clone(),
            what: "private key",
            source: Some(source),
        })?;
        warn_if_readable(endpoint, &files.key);
        // Named, because other libraries bring a second one and the choice between them would be an error.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients = clients(files, protocol, &provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source })?;
        if protocol == Protocol::Http {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(Self { config: Arc::new(config), seen, fingerprint: own.fingerprint, not_after: own.not_after })
    }
}

/// Who may show a certificate.
fn clients(
    files: &TlsFiles,
    protocol: Protocol,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(path) = &files.client_ca else { return Ok(Arc::new(NoClientAuth)) };
    let mut roots = RootCertStore::empty();
    for authority in all(path, "certificate")? {
        roots.add(authority).map_err(|source| TlsError::Authority { path: path.clone(), source })?;
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some(path) = &files.client_crl {
        let lists: Vec<CertificateRevocationListDer<'static>> = all(path, "revocation list")?;
        // The list of whoever signed the client's certificate is enough; without it the client is not let in.
        verifier = verifier.with_crls(lists).only_check_end_entity_revocation();
    }
    if !files.require_client_certificate.unwrap_or(protocol == Protocol::Syslog) {
        verifier = verifier.allow_unauthenticated();
    }
    verifier.build().map(|verifier| verifier as _).map_err(|source| TlsError::Clients { path: path.clone(), source })
}

/// A digest over what the files hold.
pub(super) fn digest(files: &TlsFiles) -> Result<[u8; 32], TlsError> {
    let mut digest = Sha256::new();
    for path in [Some(&files.cert), Some(&files.key), files.client_ca.as_ref(), files.client_crl.as_ref()] {
        digest.update(match path {
            Some(path) => Sha256::digest(bytes(path)?),
            None => Sha256::digest([]),
        });
    }
    Ok(digest.finalize().into())
}

fn all<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let wrong = |source| TlsError::Pem { path: path.to_owned(), what, source };
    let bytes = bytes(path)?;
    let found: Vec<T> = T::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|source| wrong(Some(source)))?;
    if found.is_empty() { Err(wrong(None)) } else { Ok(found) }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let mut read = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut read)).map_err(failed)?;
    if read.len() as u64 > FILE_BYTES_MAX { Err(TlsError::Large(path.to_owned())) } else { Ok(read) }
}

fn warn_if_readable(endpoint: &str, key: &Path) {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata(key).is_ok_and(|file| file.mode() & 0o004 != 0) {
        tracing::warn!(endpoint, key = %key.display(), "everybody on this machine can read the TLS key: chmod o-r");
    }
}
