//! Identity tokens: a JWT that an issuer signed for the sender, as Google does for Pub/Sub push (OpenID Connect Core §2).

use std::time::Duration;

use engine::time::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use pipeproof_engine as engine;
use serde::Deserialize;

/// How far the issuer's clock may be from ours.
const LEEWAY: Duration = Duration::from_secs(60);
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Whose identity tokens a source accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// `iss`; a token may leave out `https://` as Google's used to.
    pub issuer: String,
    /// `aud`: what the sender was told to ask a token for.
    pub audience: String,
    /// `email` of the one account that may send, verified by the issuer; any of the issuer's accounts if not set.
    pub email: Option<String>,
}

/// Why an identity token proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It is not signed by a key of the issuer, or not a token at all.
    #[error("the identity token is not one that `{issuer}` signed")]
    Signature {
        /// Who should have.
        issuer: String,
        /// What is wrong.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    /// The key that signed it is not among those given.
    #[error("the identity token is signed by a key that is not among the issuer's: read them again")]
    UnknownKey,
    /// It says something else than it should.
    #[error("the identity token's `{0}` is not what this source accepts")]
    Claim(&'static str),
    /// It is too old or too new.
    #[error("the identity token is not valid now")]
    Time,
    /// The keys cannot be read.
    #[error("cannot read the issuer's keys as a JSON Web Key Set")]
    Keys(#[source] serde_json::Error),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: i64,
    #[serde(default)]
    iat: i64,
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn names(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Several(several) => several.iter().any(|one| one == wanted),
        }
    }
}

impl Issuer {
    /// Checks a token against the issuer's keys (a JSON Web Key Set, RFC 7517) and returns the id of the key that signed it.
    ///
    /// # Errors
    /// [`IdentityError`] says why it proves nothing.
    pub fn verify(&self, token: &str, keys: &[u8], now: Timestamp) -> Result<String, IdentityError> {
        let signature = |source| IdentityError::Signature { issuer: self.issuer.clone(), source };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(signature(jsonwebtoken::errors::ErrorKind::InvalidToken.into()));
        }
        let keys: JwkSet = serde_json::from_slice(keys).map_err(IdentityError::Keys)?;
        let header = jsonwebtoken::decode_header(token).map_err(signature)?;
        let kid = header.kid.ok_or(IdentityError::UnknownKey)?;
        let key = keys.find(&kid).ok_or(IdentityError::UnknownKey)?;
        // Never what the token asks for: only what issuers use for such keys.
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(signature(jsonwebtoken::errors::ErrorKind::InvalidAlgorithm.into()));
        }
        let key = DecodingKey::from_jwk(key).map_err(signature)?;
        let mut validation = Validation::new(header.alg);
        // Times are checked against our clock, audience and issuer below.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(signature)?.claims;
        self.accepts(&claims, now)?;
        Ok(kid)
    }

    fn accepts(&self, claims: &Claims, now: Timestamp) -> Result<(), IdentityError> {
        let bare = |name: &str| name.strip_prefix("https://").unwrap_or(name).to_owned();
        if bare(&claims.iss) != bare(&self.issuer) {
            return Err(IdentityError::Claim("iss"));
        }
        if !claims.aud.names(&self.audience) {
            return Err(IdentityError::Claim("aud"));
        }
        if self.email.is_some() && (self.email != claims.email || !claims.email_verified) {
            return Err(IdentityError::Claim("email"));
        }
        let (earliest, latest) =
            (Timestamp::from_secs(claims.iat).minus(LEEWAY), Timestamp::from_secs(claims.exp).plus(LEEWAY));
        if now < earliest || now > latest { Err(IdentityError::Time) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
