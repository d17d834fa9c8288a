//! Signatures of Standard Webhooks 1.0.0: `v1`, HMAC-SHA256 over `id.timestamp.body`.
//!
//! Not here: the asymmetric `v1a` form, and what a receiver does with a signature beyond checking it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Header with the message id: the idempotency key, equal in every attempt.
pub const HEADER_ID: &str = "webhook-id";
/// Header with the time of the attempt, in seconds since the Unix epoch.
pub const HEADER_TIMESTAMP: &str = "webhook-timestamp";
/// Header with the signatures, separated by spaces.
pub const HEADER_SIGNATURE: &str = "webhook-signature";
/// Prefix of a symmetric secret in text form.
pub const SECRET_PREFIX: &str = "whsec_";
/// Lengths a secret may have, in bytes (Standard Webhooks 1.0.0, "Signature scheme").
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A symmetric signing secret. Its value never shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WebhookSecret([redacted])")
    }
}

/// Why a text is not a signing secret. The text itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not `whsec_` and base64.
    #[error("a webhook secret is `whsec_` followed by base64; this one is not")]
    Form,
    /// Too short or too long.
    #[error("a webhook secret holds 24 to 64 bytes; this one holds {0}")]
    Length(usize),
}

impl WebhookSecret {
    /// Reads `whsec_` and base64 of 24 to 64 bytes.
    ///
    /// # Errors
    /// [`SecretError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.trim().strip_prefix(SECRET_PREFIX).ok_or(SecretError::Form)?;
        let bytes = BASE64.decode(encoded).map_err(|_| SecretError::Form)?;
        if SECRET_BYTES.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(SecretError::Length(bytes.len())) }
    }

    /// The text form, for a person who sets up a receiver.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{SECRET_PREFIX}{}", BASE64.encode(&self.0))
    }

    /// One signature, `v1,` and base64, over `id.timestamp.body`; `timestamp` in seconds since the Unix epoch.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        // HMAC takes keys of any length, so this cannot fail; an empty signature would be refused by every receiver.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }

    /// Whether one of the signatures in a header value is ours, compared in constant time.
    #[must_use]
    pub fn verify(&self, id: &str, timestamp: i64, body: &[u8], header: &str) -> bool {
        use subtle::ConstantTimeEq as _;
        let ours = self.sign(id, timestamp, body);
        header.split(' ').any(|theirs| bool::from(theirs.as_bytes().ct_eq(ours.as_bytes())))
    }
}

/// The value of the signature header: one signature per secret, so that a receiver may hold the old or the new one
/// while they are rotated.
#[must_use]
pub fn signature_header(secrets: &[WebhookSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures: Vec<String> = secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_the_specification_s_example() {
        // The example of the Standard Webhooks libraries.
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(!format!("{secret:?}").contains("MfKQ"));
        assert_eq!(secret.reveal(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }

    #[test]
    fn while_rotating_either_secret_verifies() {
        let old = WebhookSecret(vec![1; 32]);
        let new = WebhookSecret(vec![2; 32]);
        let header = signature_header(&[new.clone(), old.clone()], "m", 5, b"{}");
        assert!(old.verify("m", 5, b"{}", &header) && new.verify("m", 5, b"{}", &header));
        for (id, time, body) in [("n", 5, "{}"), ("m", 6, "{}"), ("m", 5, "{ }")] {
            assert!(!old.verify(id, time, body.as_bytes(), &header));
        }
        assert!(!WebhookSecret(vec![3; 32]).verify("m", 5, b"{}", &header));
    }

    #[test]
    fn refuses_what_is_no_secret() {
        assert_eq!(WebhookSecret::parse("secret"), Err(SecretError::Form));
        assert_eq!(WebhookSecret::parse("whsec_***"), Err(SecretError::Form));
        assert_eq!(WebhookSecret::parse("whsec_AAAA"), Err(SecretError::Length(3)));
        assert_eq!(WebhookSecret::parse(&WebhookSecret(vec![0; 65]).reveal()), Err(SecretError::Length(65)));
    }
}
