//! Who we are for a provider.
//!
//! A GitHub App signs a short-lived JWT (RS256) with its private key and exchanges it for a token of its installation, which
//! lasts an hour (GitHub "Authenticating as a GitHub App installation").

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::Decode as _;
use engine::time::Timestamp;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use pipeproof_engine as engine;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::CollectError;

/// GitHub takes no JWT that lasts longer than ten minutes.
const JWT_LASTS: Duration = Duration::from_secs(9 * 60);
/// Our clock may be ahead.
const JWT_BEFORE: Duration = Duration::from_secs(60);
/// A token is fetched anew so long before it expires.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// Text that never prints itself.
#[derive(Clone)]
pub struct SecretText(String);

impl SecretText {
    /// Takes it, without white space around it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Credentials for an API.
#[derive(Debug)]
pub enum Credentials {
    /// `Authorization: Bearer`.
    Bearer(SecretText),
    /// `PRIVATE-TOKEN`, as GitLab has it.
    PrivateToken(SecretText),
    /// `Authorization: Basic`.
    Basic {
        /// Name of the account.
        user: String,
        /// Its password or API token.
        password: SecretText,
    },
    /// A GitHub App.
    App(App),
}

/// A GitHub App, as one of its installations.
pub struct App {
    id: String,
    installation: u64,
    key: EncodingKey,
    token: Mutex<Option<(SecretText, Timestamp)>>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("App")
            .field("id", &self.id)
            .field("installation", &self.installation)
            .finish_non_exhaustive()
    }
}

/// A private key that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no RSA private key in PEM form (PKCS #1 or PKCS #8)")]
pub struct NotAKey;

impl App {
    /// An App by its id or client id, with its private key as GitHub gives it (PEM).
    ///
    /// # Errors
    /// [`NotAKey`].
    pub fn new(id: String, installation: u64, pem: &str) -> Result<Self, NotAKey> {
        let (label, bytes) = der::pem::decode_vec(pem.trim().as_bytes()).map_err(|_| NotAKey)?;
        let bytes = match label {
            "RSA PRIVATE KEY" => bytes,
            "PRIVATE KEY" => pkcs1(&bytes).ok_or(NotAKey)?,
            _ => return Err(NotAKey),
        };
        let app = Self { id, installation, key: EncodingKey::from_rsa_der(&bytes), token: Mutex::default() };
        // A key that cannot sign is known now and not at the first request.
        app.jwt(Timestamp::from_secs(0)).map_err(|_| NotAKey)?;
        Ok(app)
    }

    fn jwt(&self, now: Timestamp) -> Result<String, CollectError> {
        let secs = |time: Timestamp| time.as_micros() / 1_000_000;
        let claims = serde_json::json!({
            "iat": secs(now.minus(JWT_BEFORE)), "exp": secs(now.plus(JWT_LASTS)), "iss": self.id,
        });
        encode(&Header::new(Algorithm::RS256), &claims, &self.key)
            .map_err(|error| CollectError::Credentials(format!("the App's key does not sign: {error}")))
    }
}

/// The PKCS #1 key inside a PKCS #8 one (RFC 5208: version, algorithm, key).
fn pkcs1(pkcs8: &[u8]) -> Option<Vec<u8>> {
    let parts = Vec::<der::Any>::from_der(pkcs8).ok()?;
    let key = parts.get(2)?.decode_as::<der::asn1::OctetString>().ok()?;
    Some(key.into_bytes())
}

impl Credentials {
    /// A name for the account, from which nobody learns the secret: limits are the account's.
    #[must_use]
    pub fn account(&self) -> [u8; 32] {
        let parts = match self {
            Self::Bearer(secret) | Self::PrivateToken(secret) => vec!["token", &secret.0],
            Self::Basic { user, password } => vec!["basic", user, &password.0],
            Self::App(app) => return Sha256::digest(format!("app\0{}\0{}", app.id, app.installation)).into(),
        };
        Sha256::digest(parts.join("\0")).into()
    }

    /// The header to send; `None` if a token has to be fetched first. `as_app` asks for the App's own, where there is one.
    pub(super) fn header(
        &self,
        as_app: bool,
        now: Timestamp,
    ) -> Result<Option<(HeaderName, HeaderValue)>, CollectError> {
        Ok(Some(match self {
            Self::Bearer(token) => (AUTHORIZATION, sensitive(&format!("Bearer {}", token.0))?),
            Self::PrivateToken(token) => (HeaderName::from_static("private-token"), sensitive(&token.0)?),
            Self::Basic { user, password } => {
                let pair = STANDARD.encode(format!("{user}:{}", password.0));
                (AUTHORIZATION, sensitive(&format!("Basic {pair}"))?)
            }
            Self::App(app) if as_app => (AUTHORIZATION, sensitive(&format!("Bearer {}", app.jwt(now)?))?),
            Self::App(app) => {
                let token = app.token.lock().unwrap_or_else(PoisonError::into_inner);
                match &*token {
                    Some((token, expires)) if expires.minus(RENEW_BEFORE) > now => {
                        (AUTHORIZATION, sensitive(&format!("Bearer {}", token.0))?)
                    }
                    _ => return Ok(None),
                }
            }
        }))
    }

    /// Where a token is fetched, and with which header; `None` for credentials that are no App's.
    pub(super) fn exchange(&self, now: Timestamp) -> Result<Option<(String, HeaderValue)>, CollectError> {
        let Self::App(app) = self else { return Ok(None) };
        let path = format!("/app/installations/{}/access_tokens", app.installation);
        Ok(Some((path, sensitive(&format!("Bearer {}", app.jwt(now)?))?)))
    }

    /// Takes in the token that was fetched.
    pub(super) fn exchanged(&self, answer: &Value) -> Result<(), &'static str> {
        let Self::App(app) = self else { return Ok(()) };
        let token = answer.get("token").and_then(Value::as_str).filter(|token| !token.is_empty());
        let expires = answer.get("expires_at").and_then(Value::as_str).and_then(Timestamp::parse);
        let (Some(token), Some(expires)) = (token, expires) else {
            return Err("there is no token with a time at which it expires in it");
        };
        *app.token.lock().unwrap_or_else(PoisonError::into_inner) = Some((SecretText::new(token), expires));
        Ok(())
    }

    /// Whether these are an App's.
    #[must_use]
    pub const fn is_app(&self) -> bool {
        matches!(self, Self::App(_))
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, CollectError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| CollectError::Credentials("the token holds characters that no header may".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
