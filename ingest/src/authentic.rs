//! Who sent a request: signatures over its raw bytes, before anything is parsed.
//!
//! What it is not: the check of bearer tokens. The binary keeps those and tells which one was presented.

use std::fmt;

use hmac::{Hmac, Mac};
use http::HeaderMap;
use sha2::Sha256;

/// A secret shared with a source.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// What it is called in records; says nothing about the secret.
    pub id: String,
    /// The secret.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Secret").field("id", &self.id).field("bytes", &"[redacted]").finish()
    }
}

/// Checks `X-Hub-Signature-256` (`sha256=` and the hexadecimal HMAC-SHA256 of the raw body) against every active
/// secret and returns the id of the one that made it. Every secret is tried, each comparison takes constant time.
///
/// Source: GitHub, "Validating webhook deliveries".
#[must_use]
pub fn github_signature<'a>(headers: &HeaderMap, body: &[u8], secrets: &'a [Secret]) -> Option<&'a str> {
    let given = headers.get("x-hub-signature-256")?.to_str().ok()?;
    let given = hex::decode(given.strip_prefix("sha256=")?).ok()?;
    let mut made_by = None;
    for secret in secrets.iter().filter(|secret| !secret.bytes.is_empty()) {
        // HMAC takes keys of any length.
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(&secret.bytes) else { continue };
        if mac.chain_update(body).verify_slice(&given).is_ok() {
            made_by = Some(secret.id.as_str());
        }
    }
    made_by
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn github_documentation_vector() {
        // The values of GitHub's own page on validating deliveries.
        let mut headers = HeaderMap::new();
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        headers.insert("x-hub-signature-256", signature.parse().unwrap());
        let secret = |id: &str, text: &str| Secret { id: id.to_owned(), bytes: text.as_bytes().to_vec() };
        let right = secret("b", "It's a Secret to Everybody");
        let body = b"Hello, World!";
        assert_eq!(github_signature(&headers, body, &[secret("a", "other"), right.clone()]), Some("b"));
        assert_eq!(github_signature(&headers, b"Hello, World", std::slice::from_ref(&right)), None);
        assert_eq!(github_signature(&headers, body, &[secret("a", "other"), secret("e", "")]), None);
        assert_eq!(github_signature(&HeaderMap::new(), body, std::slice::from_ref(&right)), None);
        for bad in ["sha1=00", "sha256=", "sha256=zz", "757107ea", "sha256=7571"] {
            headers.insert("x-hub-signature-256", bad.parse().unwrap());
            assert_eq!(github_signature(&headers, body, std::slice::from_ref(&right)), None, "{bad}");
        }
        assert!(!format!("{right:?}").contains("Everybody"));
    }
}
