//! The symmetric keys of a data folder: 32 random bytes each, made on first use, readable by the owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// A 32-byte key that never prints itself.
#[derive(Clone)]
pub(crate) struct SecretKey([u8; 32]);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl SecretKey {
    pub(crate) const fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// HMAC-SHA256 over the parts, each with its length before it.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return [0; 32] };
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// The symmetric keys.
#[derive(Clone, Debug)]
pub(crate) struct SecretKeys {
    /// Fingerprints of redacted secrets.
    pub(crate) redaction: SecretKey,
    /// Item names that are hashes.
    pub(crate) dedup: SecretKey,
    /// Hashes of API tokens.
    pub(crate) token: SecretKey,
    /// Secrets of sources are derived from this one, so none is stored.
    pub(crate) source: SecretKey,
}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("cannot read or create key {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("key {path} has {len} bytes instead of 32: restore it from your backup")]
    Length { path: PathBuf, len: usize },
}

impl SecretKeys {
    /// Reads the keys of a folder, making those that do not exist.
    pub(crate) fn load_or_create(dir: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(io)?;
        let keys = Self {
            redaction: load_or_create(&dir.join("redaction.key"))?,
            dedup: load_or_create(&dir.join("dedup.key"))?,
            token: load_or_create(&dir.join("token.key"))?,
            source: load_or_create(&dir.join("source.key"))?,
        };
        File::open(dir).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok(keys)
    }
}

fn load_or_create(path: &Path) -> Result<SecretKey, KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(64).read_to_end(&mut bytes).map_err(io)?;
            let len = bytes.len();
            let key = bytes.try_into().map_err(|_| KeyError::Length { path: path.to_owned(), len })?;
            Ok(SecretKey(key))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key: [u8; 32] = rand::random();
            // A half-written key must never be found under its name.
            let temporary = path.with_extension("new");
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&temporary).map_err(io)?;
            file.write_all(&key).and_then(|()| file.sync_all()).map_err(io)?;
            fs::rename(&temporary, path).map_err(io)?;
            Ok(SecretKey(key))
        }
        Err(error) => Err(io(error)),
    }
}
