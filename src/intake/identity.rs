//! Whose identity tokens (JWT) a source accepts, and the issuers' keys: read from a file, or fetched and kept for a while.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::authentic::{IdentityError, Issuer};
use tokio::sync::Mutex;

/// How long keys are used before they are read again. Google tells to keep them for some hours.
const KEEP: Duration = Duration::from_secs(3_600);
/// Earliest that an unknown key makes us read them again: whoever sends nonsense does not make us fetch.
const AGAIN: Duration = Duration::from_secs(60);
/// Largest set of keys.
const KEYS_BYTES_MAX: usize = 256 << 10;

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeysAt {
    File(PathBuf),
    Url(String),
}

/// Whom a source accepts.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) issuer: Issuer,
    pub(crate) keys: KeysAt,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NoKeys {
    #[error("cannot read the issuer's keys in {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot fetch the issuer's keys from {url}")]
    Url {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the issuer's keys at {0} are larger than {KEYS_BYTES_MAX} bytes, or no success was answered")]
    Answer(String),
}

/// What is accepted, by source.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    by_source: BTreeMap<String, Arc<Kept>>,
}

#[derive(Debug)]
struct Kept {
    accepted: Accepted,
    keys: Mutex<Option<(Timestamp, Bytes)>>,
}

impl Identities {
    pub(crate) fn new(accepted: impl IntoIterator<Item = (String, Accepted)>) -> Self {
        let kept = |accepted| Arc::new(Kept { accepted, keys: Mutex::new(None) });
        Self { by_source: accepted.into_iter().map(|(source, accepted)| (source, kept(accepted))).collect() }
    }

    /// The id of the key that signed a token for this source; `None` if it proves nothing.
    pub(crate) async fn verify(&self, source: &str, token: &str, now: Timestamp) -> Option<String> {
        let kept = Arc::clone(self.by_source.get(source)?);
        let mut keys = kept.keys.lock().await;
        let mut fresh = false;
        loop {
            let (read, bytes) = match keys.take().filter(|(read, _)| now.micros_since(*read) < micros(KEEP)) {
                Some(known) => known,
                None => {
                    fresh = true;
                    let bytes = kept.accepted.keys.read().await;
                    (now, bytes.map_err(|error| warn(source, &error)).ok()?)
                }
            };
            let verdict = kept.accepted.issuer.verify(token, &bytes, now);
            let old = now.micros_since(read) >= micros(AGAIN);
            if matches!(verdict, Err(IdentityError::UnknownKey)) && old && !fresh {
                continue;
            }
            *keys = Some((read, bytes));
            return verdict.map_err(|error| warn(source, &error)).ok();
        }
    }
}

fn warn(source: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(source, error = %crate::chain(error), "an identity token is refused");
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

impl KeysAt {
    async fn read(&self) -> Result<Bytes, NoKeys> {
        match self {
            Self::File(path) => {
                let read = tokio::fs::read(path).await;
                read.map(Bytes::from).map_err(|source| NoKeys::File { path: path.clone(), source })
            }
            Self::Url(url) => fetch(url).await,
        }
    }
}

async fn fetch(url: &str) -> Result<Bytes, NoKeys> {
    let failed = |source| NoKeys::Url { url: url.to_owned(), source };
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(failed)?;
    let response = client.get(url).send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(NoKeys::Answer(url.to_owned()));
    }
    let mut stream = response.bytes_stream();
    let mut all = Vec::new();
    while let Some(part) = stream.next().await {
        all.extend_from_slice(&part.map_err(failed)?);
        if all.len() > KEYS_BYTES_MAX {
            return Err(NoKeys::Answer(url.to_owned()));
        }
    }
    Ok(Bytes::from(all))
}
