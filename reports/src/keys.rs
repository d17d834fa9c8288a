//! The keys an instance signs evidence with, and what it publishes of them.
//!
//! | file | key | signs | handed out as |
//! |---|---|---|---|
//! | `ca.pem` | ECDSA P-256 and its self-issued certificate | one short-lived certificate per pack | `anchor.pem`: the certificate; what `evidence verify --key` takes |
//! | `seal.pem` | ECDSA P-256 | the seal tree's Rekor-style checkpoint and entry timestamps | in `trusted_root.json` |
//! | `ct.pem` | ECDSA P-256 | the certificate timestamp embedded in each pack's certificate | in `trusted_root.json` |
//! | `checkpoint.pem` | Ed25519 | C2SP checkpoints of log partitions and of the seal tree | as a verifier key in the pack |
//!
//! Private files have mode 0600. They are made on first use, each whole or not at all; the certificate comes last, so a
//! folder that has one has had all four. If one is missing later it is not replaced in silence: proofs made with the old
//! one would stop to verify. The keys of redaction, dedup and tokens are no business of this module.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::EncodePublicKey as _;
use p256::ecdsa;
use p256::elliptic_curve::rand_core::{OsRng, RngCore};
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use pipeproof_engine::clock::Clock;
use sha2::{Digest, Sha256};

use crate::signing::certificate::{self, CertificateError};

const CA: &str = "ca.pem";
const SEAL: &str = "seal.pem";
const CT: &str = "ct.pem";
const CHECKPOINT: &str = "checkpoint.pem";
const ANCHOR: &str = "anchor.pem";
/// No key file of ours comes near it.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file system.
    #[error("cannot {action} key file {path}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Others may read a private key.
    #[error("key file {path} can be read by others (mode {mode:o}): run chmod 600 on it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// One of the keys is gone while others are still there.
    #[error("key file {path} is missing while the certificate made after it is there: restore it from a backup")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Not what this program writes.
    #[error("key file {path} does not hold {expected}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The certificate cannot be made or read.
    #[error("cannot use the certificate in key file {path}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CertificateError,
    },
}

/// Names that follow from an instance's id. The id is random, made with the keys, and stands in the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    id: String,
}

impl Instance {
    /// Takes an id of 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn new(id: &str) -> Option<Self> {
        let right = id.len() == 16 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        right.then(|| Self { id: id.to_owned() })
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What a pack's certificate says who signed: the one subject alternative name in it.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{}/{}", Self::ISSUER, self.id)
    }

    /// Who the certificate says vouched for the identity. No OIDC provider is behind it: the instance's own key is.
    pub const ISSUER: &'static str = "https://pipeproof.dev/instance";

    /// Name of the seal tree as Sigstore clients see it. It is a name, not an address: nothing listens there.
    #[must_use]
    pub fn log_host(&self) -> String {
        format!("{}.seal.pipeproof.dev", self.id)
    }

    /// Origin of the C2SP checkpoints of one log partition.
    #[must_use]
    pub fn partition_origin(&self, partition: u32) -> String {
        format!("pipeproof.dev/instance/{}/log/{partition}", self.id)
    }

    /// Origin of the C2SP checkpoints of the seal tree.
    #[must_use]
    pub fn seal_origin(&self) -> String {
        format!("pipeproof.dev/instance/{}/seal", self.id)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.id)
    }
}

/// The public half of [`Keys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKeys {
    /// Instance.
    pub instance: Instance,
    /// The CA certificate, DER.
    pub ca_certificate: Vec<u8>,
    /// Key of the seal tree: subject public key info, DER.
    pub seal: Vec<u8>,
    /// Key of the certificate timestamps: subject public key info, DER.
    pub ct: Vec<u8>,
    /// Key of the C2SP checkpoints.
    pub checkpoint: ed25519_dalek::VerifyingKey,
    /// From when on they are valid, in seconds since the Unix epoch.
    pub valid_from_secs: i64,
}

impl PublicKeys {
    /// SHA-256 over the CA certificate, as `openssl x509 -fingerprint -sha256` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.ca_certificate)
    }

    /// The CA certificate as PEM: the trust anchor to hand to an auditor, by another way than the pack.
    #[must_use]
    pub fn anchor_pem(&self) -> String {
        pem("CERTIFICATE", &self.ca_certificate)
    }

    /// The checkpoint key as PEM.
    #[must_use]
    pub fn checkpoint_pem(&self) -> String {
        self.checkpoint.to_public_key_der().map_or_else(|_| String::new(), |der| pem("PUBLIC KEY", der.as_bytes()))
    }
}

/// SHA-256 as colon-separated upper-case pairs, the way openssl shows fingerprints.
#[must_use]
pub fn fingerprint(der: &[u8]) -> String {
    let pairs: Vec<String> = Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// PEM with 64 characters a line.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let mut text = format!("-----BEGIN {label}-----\n");
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at_checked(64).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The keys themselves.
pub struct Keys {
    pub(crate) ca: ecdsa::SigningKey,
    pub(crate) seal: ecdsa::SigningKey,
    pub(crate) ct: ecdsa::SigningKey,
    pub(crate) checkpoint: ed25519_dalek::SigningKey,
    public: PublicKeys,
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Keys {{ instance: {}, private: [redacted] }}", self.public.instance)
    }
}

impl Keys {
    /// Opens the keys in `dir`, or makes them if there are none. Also writes `anchor.pem` there, for everyone to read.
    ///
    /// The caller holds the data folder's lock: two programs making keys at once is not guarded against here.
    ///
    /// # Errors
    /// [`KeysError`] says which file, and what to do about it.
    pub fn load_or_create(dir: &Path, clock: &dyn Clock) -> Result<Self, KeysError> {
        fs::create_dir_all(dir).map_err(|source| file("create the folder of", dir, source))?;
        let made = dir.join(CA).try_exists().map_err(|source| file("look for", &dir.join(CA), source))?;
        let checkpoint = ed25519(dir, made)?;
        let ct = p256_key(dir, CT, made)?;
        let seal = p256_key(dir, SEAL, made)?;
        let (ca, ca_certificate) = authority(dir, made, clock)?;

        let path = dir.join(CA);
        let certificate_error = |source| KeysError::Certificate { path: path.clone(), source };
        let (instance, valid_from_secs) = certificate::read_authority(&ca_certificate).map_err(certificate_error)?;
        let spki = |key: &ecdsa::SigningKey| certificate::spki(key.verifying_key()).map_err(certificate_error);
        let public = PublicKeys {
            instance,
            seal: spki(&seal)?,
            ct: spki(&ct)?,
            checkpoint: checkpoint.verifying_key(),
            ca_certificate,
            valid_from_secs,
        };
        let keys = Self { ca, seal, ct, checkpoint, public };
        let anchor = dir.join(ANCHOR);
        if fs::read(&anchor).ok().as_deref() != Some(keys.public.anchor_pem().as_bytes()) {
            write_whole(&anchor, keys.public.anchor_pem().as_bytes(), 0o644)?;
        }
        Ok(keys)
    }

    /// What may be shown of them.
    #[must_use]
    pub const fn public(&self) -> &PublicKeys {
        &self.public
    }

    /// The instance they belong to.
    #[must_use]
    pub const fn instance(&self) -> &Instance {
        &self.public.instance
    }
}

fn ed25519(dir: &Path, made: bool) -> Result<ed25519_dalek::SigningKey, KeysError> {
    let path = dir.join(CHECKPOINT);
    if let Some(text) = read_private(&path, made)? {
        return ed25519_dalek::SigningKey::from_pkcs8_pem(&text)
            .map_err(|_| KeysError::Content { path, expected: "an Ed25519 private key in PKCS#8 PEM" });
    }
    let mut seed = [0; 32];
    OsRng.fill_bytes(&mut seed);
    let key = ed25519_dalek::SigningKey::from_bytes(&seed);
    let text = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|_| KeysError::Content { path: path.clone(), expected: "a key that can be written" })?;
    write_whole(&path, text.as_bytes(), 0o600)?;
    Ok(key)
}

fn p256_key(dir: &Path, name: &str, made: bool) -> Result<ecdsa::SigningKey, KeysError> {
    let path = dir.join(name);
    if let Some(text) = read_private(&path, made)? {
        return p256_from_pem(&text, path);
    }
    let key = ecdsa::SigningKey::random(&mut OsRng);
    write_whole(&path, p256_to_pem(&key, &path)?.as_bytes(), 0o600)?;
    Ok(key)
}

fn authority(dir: &Path, made: bool, clock: &dyn Clock) -> Result<(ecdsa::SigningKey, Vec<u8>), KeysError> {
    let path = dir.join(CA);
    if let Some(text) = read_private(&path, made)? {
        let content = |expected| KeysError::Content { path: path.clone(), expected };
        let at = text.find("-----BEGIN CERTIFICATE-----").ok_or_else(|| content("a certificate after the key"))?;
        let (key, certificate) = text.split_at(at);
        let key = p256_from_pem(key, path.clone())?;
        let (_, certificate) =
            der::Document::from_pem(certificate).map_err(|_| content("a certificate in PEM after the key"))?;
        let certificate = certificate.into_vec();
        if !certificate::belongs(&certificate, key.verifying_key()) {
            return Err(content("a certificate of the key before it"));
        }
        return Ok((key, certificate));
    }
    let mut id = [0; 8];
    OsRng.fill_bytes(&mut id);
    let instance = Instance { id: hex::encode(id) };
    let key = ecdsa::SigningKey::random(&mut OsRng);
    let certificate = certificate::authority(&instance, &key, clock.now())
        .map_err(|source| KeysError::Certificate { path: path.clone(), source })?;
    let text = format!("{}{}", *p256_to_pem(&key, &path)?, pem("CERTIFICATE", &certificate));
    write_whole(&path, text.as_bytes(), 0o600)?;
    Ok((key, certificate))
}

fn p256_from_pem(text: &str, path: PathBuf) -> Result<ecdsa::SigningKey, KeysError> {
    ecdsa::SigningKey::from_pkcs8_pem(text)
        .map_err(|_| KeysError::Content { path, expected: "an ECDSA P-256 private key in PKCS#8 PEM" })
}

fn p256_to_pem(key: &ecdsa::SigningKey, path: &Path) -> Result<impl std::ops::Deref<Target = String>, KeysError> {
    key.to_pkcs8_pem(LineEnding::LF)
        .map_err(|_| KeysError::Content { path: path.to_owned(), expected: "a key that can be written" })
}

fn file(action: &'static str, path: &Path, source: io::Error) -> KeysError {
    KeysError::File { action, path: path.to_owned(), source }
}

/// The text of a private file; `None` if it is not there and may be made.
fn read_private(path: &Path, made: bool) -> Result<Option<String>, KeysError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && made => {
            return Err(KeysError::Missing { path: path.to_owned() });
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(file("look for", path, cause)),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeysError::Exposed { path: path.to_owned(), mode });
        }
    }
    if metadata.len() > KEY_FILE_BYTES_MAX {
        return Err(KeysError::Content { path: path.to_owned(), expected: "a key: it is too large for one" });
    }
    fs::read_to_string(path).map(Some).map_err(|source| file("read", path, source))
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeysError> {
    let part = path.with_extension("part");
    match fs::remove_file(&part) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(file("clear the way for", &part, cause)),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(mode);
    }
    #[cfg(not(unix))]
    let _ = mode;
    let mut out = options.open(&part).map_err(|source| file("create", &part, source))?;
    out.write_all(bytes).and_then(|()| out.sync_all()).map_err(|source| file("write", &part, source))?;
    fs::rename(&part, path).map_err(|source| file("put in place", path, source))?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| file("sync the folder of", path, source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeproof_engine::clock::ManualClock;
    use pipeproof_engine::time::Timestamp;

    fn clock() -> ManualClock {
        ManualClock::new(Timestamp::parse("2026-03-01T12:00:00Z").unwrap())
    }

    #[test]
    fn keys_are_made_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let made = Keys::load_or_create(dir.path(), &clock()).unwrap();
        let read = Keys::load_or_create(dir.path(), &clock()).unwrap();
        assert_eq!(made.public(), read.public());
        assert_eq!(made.public().fingerprint().len(), 32 * 3 - 1);
        assert_eq!(fs::read_to_string(dir.path().join(ANCHOR)).unwrap(), made.public().anchor_pem());
        assert!(!format!("{made:?}").contains("BEGIN") && format!("{made:?}").contains("[redacted]"));
        let names = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 5, "no temporary file stays behind");
    }

    #[test]
    #[cfg(unix)]
    fn private_files_are_private_and_stay_so() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        Keys::load_or_create(dir.path(), &clock()).unwrap();
        for name in [CA, SEAL, CT, CHECKPOINT] {
            let path = dir.path().join(name);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let refused = Keys::load_or_create(dir.path(), &clock());
            assert!(matches!(refused, Err(KeysError::Exposed { mode: 0o640, .. })), "{name}");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    #[test]
    fn a_lost_key_is_never_replaced_in_silence() {
        for name in [SEAL, CT, CHECKPOINT] {
            let dir = tempfile::tempdir().unwrap();
            Keys::load_or_create(dir.path(), &clock()).unwrap();
            fs::remove_file(dir.path().join(name)).unwrap();
            let refused = Keys::load_or_create(dir.path(), &clock());
            assert!(matches!(refused, Err(KeysError::Missing { .. })), "{name}");
        }
    }

    #[test]
    fn a_key_of_another_instance_is_refused_as_ca() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Keys::load_or_create(one.path(), &clock()).unwrap();
        Keys::load_or_create(other.path(), &clock()).unwrap();
        let mixed = fs::read_to_string(one.path().join(SEAL)).unwrap()
            + fs::read_to_string(other.path().join(CA))
                .unwrap()
                .split_inclusive("-----END PRIVATE KEY-----\n")
                .nth(1)
                .unwrap();
        fs::write(one.path().join(CA), mixed).unwrap();
        assert!(matches!(Keys::load_or_create(one.path(), &clock()), Err(KeysError::Content { .. })));
    }
}
