//! Whose identity tokens (JWT) a source accepts, and the issuers' keys: read from a file, or fetched and kept for a while.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::authentic::{IdentityError, Issuer};

/// How long keys are used before they are read again. Google tells to keep them for some hours.
const KEEP: Duration = Duration::from_secs(3_600);
/// How long they are used at most while they cannot be read again.
const KEEP_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Earliest that keys are read again: whoever sends nonsense does not make us fetch.
const AGAIN: Duration = Duration::from_secs(60);
/// Earliest that keys are read again while there are none.
const AGAIN_WITHOUT: Duration = Duration::from_secs(5);
/// Largest set of keys.
const KEYS_BYTES_MAX: usize = 256 << 10;

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeysAt {
    File(PathBuf),
    Url(String),
}

/// Whom a source accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    by_source: RwLock<BTreeMap<String, Arc<Kept>>>,
}

/// Whom a source accepts, and the keys that are known. No lock is held while keys are read, but the one of who reads them.
#[derive(Debug)]
struct Kept {
    accepted: Accepted,
    keys: Mutex<Keys>,
    reading: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Keys {
    /// When they were read, and they.
    known: Option<(Timestamp, Bytes)>,
    /// When they were last asked for, whatever came of it.
    asked: Option<Timestamp>,
}

impl Keys {
    /// What is known and may be used.
    fn usable(&self, now: Timestamp) -> Option<&Bytes> {
        self.known.as_ref().filter(|(read, _)| now.micros_since(*read) < micros(KEEP_MAX)).map(|(_, keys)| keys)
    }

    fn are_fresh(&self, now: Timestamp) -> bool {
        self.known.as_ref().is_some_and(|(read, _)| now.micros_since(*read) < micros(KEEP))
    }

    fn may_ask(&self, now: Timestamp) -> bool {
        let again = if self.usable(now).is_some() { AGAIN } else { AGAIN_WITHOUT };
        self.asked.is_none_or(|asked| now.micros_since(asked) >= micros(again))
    }
}

impl Identities {
    pub(crate) fn new(accepted: impl IntoIterator<Item = (String, Accepted)>) -> Self {
        let identities = Self::default();
        identities.replace(accepted);
        identities
    }

    /// Puts others in force. Keys of those that stay are kept.
    pub(crate) fn replace(&self, accepted: impl IntoIterator<Item = (String, Accepted)>) {
        let mut by_source = self.by_source.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *by_source);
        for (source, accepted) in accepted {
            let same = before.get(&source).filter(|kept| kept.accepted == accepted).cloned();
            let fresh = || Arc::new(Kept { accepted, keys: Mutex::default(), reading: tokio::sync::Mutex::default() });
            by_source.insert(source, same.unwrap_or_else(fresh));
        }
    }

    /// The id of the key that signed a token for this source; `None` if it proves nothing.
    pub(crate) async fn verify(&self, source: &str, token: &str, now: Timestamp) -> Option<String> {
        let kept = self.by_source.read().unwrap_or_else(PoisonError::into_inner).get(source).cloned()?;
        let known = kept.keys();
        let verdict = kept.verdict(token, &known, now);
        let is_known = !matches!(verdict, None | Some(Err(IdentityError::UnknownKey)));
        if is_known && (known.are_fresh(now) || !known.may_ask(now)) {
            return told(source, verdict);
        }
        // Others wait for who reads the keys only if they need what is read.
        let turn = if is_known { kept.reading.try_lock().ok() } else { Some(kept.reading.lock().await) };
        if turn.is_some() && kept.keys().may_ask(now) {
            kept.read(source, now).await;
        }
        drop(turn);
        told(source, kept.verdict(token, &kept.keys(), now))
    }
}

impl Kept {
    fn keys(&self) -> Keys {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the known keys say of a token; `None` if there are none.
    fn verdict(&self, token: &str, keys: &Keys, now: Timestamp) -> Option<Result<String, IdentityError>> {
        keys.usable(now).map(|keys| self.accepted.issuer.verify(token, keys, now))
    }

    /// Reads the keys. Those before stay if it fails.
    async fn read(&self, source: &str, now: Timestamp) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).asked = Some(now);
        match self.accepted.keys.read().await {
            Ok(bytes)
                if serde_json::from_slice::<serde_json::Value>(&bytes).is_ok_and(|keys| keys["keys"].is_array()) =>
            {
                self.keys.lock().unwrap_or_else(PoisonError::into_inner).known = Some((now, bytes));
            }
            Ok(_) => tracing::warn!(source, "what the issuer gives as its keys is no JSON Web Key Set"),
            Err(error) => {
                tracing::warn!(source, error = %crate::chain(&error), "the issuer's keys cannot be read just now");
            }
        }
    }
}

fn told(source: &str, verdict: Option<Result<String, IdentityError>>) -> Option<String> {
    verdict?.map_err(|error| warn(source, &error)).ok()
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

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    const START: i64 = 1_800_000_000;

    struct Authority(KeyPair);

    impl Authority {
        fn new() -> Self {
            Self(KeyPair::generate(KeySize::Rsa2048).unwrap())
        }

        fn keys(&self, kid: &str) -> String {
            let (n, e) = (self.0.public_key().modulus(), self.0.public_key().exponent());
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let (n, e) = (part(n.big_endian_without_leading_zero()), part(e.big_endian_without_leading_zero()));
            json!({"keys": [{"kty": "RSA", "alg": "RS256", "kid": kid, "n": n, "e": e}]}).to_string()
        }

        fn token(&self, kid: &str) -> String {
            let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let claims = json!({"iss": "https://issuer", "aud": "us", "iat": START, "exp": START + 200_000});
            let message = format!("{}.{}", part(json!({"alg": "RS256", "kid": kid})), part(claims));
            let mut signature = vec![0; self.0.public_modulus_len()];
            self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(START + secs)
    }

    fn identities(keys: &std::path::Path) -> Identities {
        let issuer = Issuer { issuer: "https://issuer".to_owned(), audience: "us".to_owned(), email: None };
        let accepted = Accepted { issuer, keys: KeysAt::File(keys.to_owned()) };
        Identities::new([("gcp".to_owned(), accepted)])
    }

    #[tokio::test]
    async fn a_forged_key_while_the_issuer_is_away_costs_nobody_the_keys_that_are_known() {
        let folder = tempfile::TempDir::new().unwrap();
        let (path, authority) = (folder.path().join("keys.json"), Authority::new());
        std::fs::write(&path, authority.keys("k1")).unwrap();
        let identities = identities(&path);
        let verify = async |kid: &str, secs: i64| identities.verify("gcp", &authority.token(kid), at(secs)).await;
        assert_eq!(verify("k1", 0).await.as_deref(), Some("k1"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(verify("forged", 100).await, None);
        assert_eq!(verify("k1", 101).await.as_deref(), Some("k1"));
        // Keys that are old are used as long as there are no others, but not for ever.
        assert_eq!(verify("k1", 7_200).await.as_deref(), Some("k1"));
        assert_eq!(verify("k1", 90_000).await, None);
        // What is no key set replaces none.
        std::fs::write(&path, authority.keys("k1")).unwrap();
        assert_eq!(verify("k1", 90_010).await.as_deref(), Some("k1"));
        std::fs::write(&path, "<html>").unwrap();
        assert_eq!(verify("forged", 90_100).await, None);
        assert_eq!(verify("k1", 90_101).await.as_deref(), Some("k1"));
    }

    #[tokio::test]
    async fn keys_that_nobody_knows_make_us_read_once_a_minute() {
        let folder = tempfile::TempDir::new().unwrap();
        let (path, authority) = (folder.path().join("keys.json"), Authority::new());
        std::fs::write(&path, authority.keys("k1")).unwrap();
        let identities = identities(&path);
        let verify = async |kid: &str, secs: i64| identities.verify("gcp", &authority.token(kid), at(secs)).await;
        assert_eq!(verify("forged", 0).await, None);
        // The issuer takes another key; it is seen a minute after keys were last read, whoever asks in between.
        std::fs::write(&path, authority.keys("k2")).unwrap();
        for secs in [1, 30, 59] {
            assert_eq!(verify("k2", secs).await, None);
        }
        assert_eq!(verify("k2", 60).await.as_deref(), Some("k2"));
        assert_eq!(verify("k1", 61).await, None);
    }
}
