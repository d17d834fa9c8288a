//! Who sent a request: signatures and tokens of the senders' own schemes, over its raw bytes, before anything is parsed.
//!
//! What it is not: the check of API tokens. The binary keeps those and tells which one was presented.

mod certificate;
mod identity;
mod presented;
mod schemes;

use std::fmt;

use engine::record::Authenticity;
use engine::source::SourceType;
use engine::time::Timestamp;
use http::HeaderMap;
use pipeproof_engine as engine;

pub use self::certificate::{AcceptedCertificate, CertificateError, ClientCertificate, IdentityRuleError};
pub use self::identity::{IdentityError, Issuer};
pub use self::presented::presented;
use self::schemes::Scheme;

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

/// What a request proves about its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It carries nothing that one of the source's schemes would look at, or nothing that any active secret made.
    None,
    /// It was signed with an active secret, but not within the time its scheme allows: perhaps somebody repeats it.
    Stale,
    /// An active secret made it.
    Proven {
        /// How strong the proof is.
        auth: Authenticity,
        /// Id of the secret.
        key_id: String,
    },
}

/// Whether senders of a type prove themselves in a way of their own, so that a source needs a secret.
#[must_use]
pub fn has_secret(kind: SourceType) -> bool {
    !schemes(kind).is_empty()
}

/// Whether the secret must have the form of Standard Webhooks (`whsec_` and base64).
#[must_use]
pub fn is_standard_webhook(kind: SourceType) -> bool {
    schemes(kind).first() == Some(&Scheme::StandardWebhooks)
}

/// Checks what the schemes of a source type look at against every active secret. Every secret is tried, each comparison
/// takes constant time.
#[must_use]
pub fn proof(kind: SourceType, headers: &HeaderMap, body: &[u8], secrets: &[Secret], now: Timestamp) -> Proof {
    let mut stale = false;
    for scheme in schemes(kind) {
        match scheme.check(headers, body, secrets, now) {
            Proof::None => {}
            Proof::Stale => stale = true,
            proven @ Proof::Proven { .. } => return proven,
        }
    }
    if stale { Proof::Stale } else { Proof::None }
}

/// Whether a request shows something that a scheme of its source would look at, and there is a secret to look at it with. Says
/// nothing about whether it is right: that takes the body.
#[must_use]
pub fn is_signed(kind: SourceType, headers: &HeaderMap, secrets: &[Secret]) -> bool {
    !secrets.is_empty() && schemes(kind).iter().any(|scheme| headers.contains_key(scheme.header()))
}

/// How senders of a type prove themselves, the strongest way first.
fn schemes(kind: SourceType) -> &'static [Scheme] {
    match kind {
        SourceType::GithubWebhook => &[Scheme::Github],
        SourceType::GitlabWebhook => &[Scheme::StandardWebhooks, Scheme::Token("x-gitlab-token")],
        SourceType::GitlabAudit => &[Scheme::Token("x-gitlab-event-streaming-token")],
        SourceType::CircleciWebhook => &[Scheme::CircleCi],
        SourceType::Buildkite => &[Scheme::Buildkite, Scheme::Token("x-buildkite-token")],
        SourceType::Flux => &[Scheme::GenericHmac],
        // Whoever sends JSON of any shape may sign it in one of the two ways that many senders share.
        SourceType::Json | SourceType::Cloudevents | SourceType::Cdevents => {
            &[Scheme::GenericHmac, Scheme::StandardWebhooks]
        }
        _ => &[],
    }
}
