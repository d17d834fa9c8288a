//! An object of a store while it is read: its parts one after the other, without holding up the runtime.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use engine::time::Timestamp;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{Attribute, GetOptions, ObjectMeta, ObjectStore};
use pipeproof_engine as engine;
use tokio::runtime::Handle;

use super::content::{ContentError, Part, Parts, StoreTrouble};
use super::keys;
use super::seen::Listed;
use crate::collect::CollectError;
use crate::collect::http::TransportError;

/// Largest object that is read, bytes as stored.
pub const OBJECT_BYTES_MAX: u64 = 2 << 30;

/// A bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What speaks with it.
    pub store: Arc<dyn ObjectStore>,
}

/// Why an object was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not there.
    #[error("it is not there (any more)")]
    Gone,
    /// The store does not give it just now.
    #[error(transparent)]
    Store(#[from] CollectError),
    /// What it holds cannot be read.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The store's client cannot ask for it.
    #[error(
        "its key has an empty part, a part of dots, a control character or a slash at an end, and cannot be asked for: store it under another"
    )]
    Key,
    /// It is larger than any that is read.
    #[error("it has {0} bytes, {OBJECT_BYTES_MAX} are read at most")]
    Large(u64),
}

/// An object that is being read.
#[derive(Debug)]
pub struct Opened {
    /// What it is, as the store said with its content.
    pub object: Listed,
    /// Metadata `signature`, where it has one.
    pub signature: Option<String>,
    parts: Option<Parts<Stream>>,
    /// Number of the next part.
    pub next: u64,
}

impl Bucket {
    /// Opens an object.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn open(&self, key: &str) -> Result<Opened, ReadError> {
        let given = self.store.get_opts(&keys::path(key).ok_or(ReadError::Key)?, GetOptions::default()).await;
        let given = given.map_err(|error| match error {
            object_store::Error::NotFound { .. } => ReadError::Gone,
            error => ReadError::Store(self.failed("GET", key, &error)),
        })?;
        let object = listed(&given.meta);
        if object.size > OBJECT_BYTES_MAX {
            return Err(ReadError::Large(object.size));
        }
        let signature = given.attributes.get(&Attribute::Metadata("signature".into())).map(|value| value.to_string());
        let stream = Stream { stream: given.into_stream(), at: Bytes::new(), runtime: Handle::current() };
        Ok(Opened { object, signature, parts: Some(Parts::new(stream)), next: 0 })
    }

    /// An object as it is stored; `None` if it is empty or has more than `most` bytes.
    ///
    /// # Errors
    /// [`CollectError`].
    pub async fn stored(&self, key: &str, most: u64) -> Result<Option<Bytes>, CollectError> {
        let Some(path) = keys::path(key) else { return Ok(None) };
        let given = self.store.get_opts(&path, GetOptions::default()).await;
        let given = given.map_err(|error| self.failed("GET", key, &error))?;
        if given.meta.size == 0 || given.meta.size > most {
            return Ok(None);
        }
        given.bytes().await.map(Some).map_err(|error| self.failed("GET", key, &error))
    }

    /// The objects directly in a folder, and the folders in it.
    ///
    /// # Errors
    /// [`CollectError`].
    pub async fn look(&self, folder: &str) -> Result<(Vec<Listed>, Vec<String>), CollectError> {
        let path = Path::parse(folder).map_err(|error| self.no_key(folder, &error))?;
        let found = self.store.list_with_delimiter(Some(&path)).await;
        let found = found.map_err(|error| self.failed("LIST", folder, &error))?;
        let folder = |folder: &Path| {
            let mut name = keys::key(folder);
            if !name.ends_with('/') {
                name.push('/');
            }
            name
        };
        let folders = found.common_prefixes.iter().map(folder).collect();
        Ok((found.objects.iter().map(listed).collect(), folders))
    }

    /// The objects in a folder, however deep, that `wanted` says yes to: the `most` stored first.
    ///
    /// # Errors
    /// [`CollectError`].
    pub async fn list(
        &self,
        folder: &str,
        most: usize,
        wanted: impl Fn(&Listed) -> bool,
    ) -> Result<Vec<Listed>, CollectError> {
        let path = Path::parse(folder).map_err(|error| self.no_key(folder, &error))?;
        let mut stream = self.store.list(Some(&path));
        let mut found = Vec::new();
        while let Some(meta) = stream.next().await {
            let meta = meta.map_err(|error| self.failed("LIST", folder, &error))?;
            found.extend(Some(listed(&meta)).filter(&wanted));
            if found.len() > most * 2 {
                sort(&mut found);
                found.truncate(most);
            }
        }
        sort(&mut found);
        found.truncate(most);
        Ok(found)
    }

    fn no_key(&self, key: &str, error: &object_store::path::Error) -> CollectError {
        CollectError::Content { asked: format!("{}/{key}", self.name), problem: error.to_string() }
    }

    /// What a store says, in the words of collectors.
    fn failed(&self, method: &str, key: &str, error: &object_store::Error) -> CollectError {
        let asked = format!("{method} {}/{key}", self.name);
        let said: String = chain(error).chars().take(400).collect();
        match error {
            object_store::Error::PermissionDenied { .. } => CollectError::Refused { asked, status: 403, answer: said },
            object_store::Error::Unauthenticated { .. } => CollectError::Refused { asked, status: 401, answer: said },
            object_store::Error::NotFound { .. } => CollectError::Missing { asked, status: 404, answer: said },
            _ => CollectError::Transport { asked, source: TransportError(said) },
        }
    }
}

impl Opened {
    /// The next part with its number; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`]. After one there is nothing more.
    pub async fn part(&mut self) -> Result<Option<(u64, Part)>, ReadError> {
        let Some(mut parts) = self.parts.take() else { return Ok(None) };
        // Reading waits for the network, and decompressing takes long.
        let worked = tokio::task::spawn_blocking(move || (parts.next_part(), parts)).await;
        let (part, parts) = worked.map_err(|error| CollectError::Held(error.into()))?;
        let part = part?;
        self.parts = Some(parts);
        let number = self.next;
        self.next += u64::from(part.is_some());
        Ok(part.map(|part| (number, part)))
    }

    /// All of its content, without its compression.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn whole(&mut self, most: usize) -> Result<Bytes, ReadError> {
        let Some(mut parts) = self.parts.take() else { return Ok(Bytes::new()) };
        let worked = tokio::task::spawn_blocking(move || (parts.whole(most), parts)).await;
        let (content, parts) = worked.map_err(|error| CollectError::Held(error.into()))?;
        self.parts = Some(parts);
        Ok(content?)
    }

    /// SHA-256 over its content without its compression, once all of it was read.
    #[must_use]
    pub fn hash(&self) -> Option<[u8; 32]> {
        self.parts.as_ref()?.hash()
    }
}

fn sort(found: &mut [Listed]) {
    found.sort_by(|one, other| (one.stored, &one.key).cmp(&(other.stored, &other.key)));
}

fn listed(meta: &ObjectMeta) -> Listed {
    Listed {
        key: keys::key(&meta.location),
        tag: meta.e_tag.clone().or_else(|| meta.version.clone()),
        stored: Timestamp::from_micros(meta.last_modified.timestamp_micros()),
        size: meta.size,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What the store sends, for a reader on a thread that may wait.
struct Stream {
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    at: Bytes,
    runtime: Handle,
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(Ok(bytes)) => self.at = bytes,
                Some(Err(error)) => return Err(io::Error::other(StoreTrouble(chain(&error)))),
            }
        }
        let count = self.at.len().min(into.len());
        if let Some(into) = into.get_mut(..count) {
            self.at.copy_to_slice(into);
        }
        Ok(count)
    }
}
