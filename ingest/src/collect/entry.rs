//! Records of a provider's own ledger: one for each run, deployment or merged change that it lists, with the bytes it gave.

use bytes::Bytes;
use serde_json::json;

use super::Fetched;

/// What a ledger lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Runs, pipelines, builds: finished ones.
    Run,
    /// Deployments that came to an end.
    Deployment,
    /// Changes that were merged.
    Change,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Run, Self::Deployment, Self::Change];

    /// The word for it in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Deployment => "deployment",
            Self::Change => "change",
        }
    }

    /// The word for it in a configuration.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Run => "runs",
            Self::Deployment => "deployments",
            Self::Change => "changes",
        }
    }
}

/// An entry: `scope` is the repository, project or pipeline, `id` the provider's within it, `object` what it gave, and `status`
/// what it said apart about how it ended.
pub(super) fn entry(
    provider: &str,
    kind: Kind,
    scope: &str,
    id: &str,
    object: &Bytes,
    status: Option<&Bytes>,
) -> Fetched {
    let mut body = Vec::with_capacity(object.len() + 128);
    for (name, value) in [("provider", provider), ("kind", kind.name()), ("scope", scope), ("id", id)] {
        body.push(if body.is_empty() { b'{' } else { b',' });
        body.extend_from_slice(format!("{}:{}", json!(name), json!(value)).as_bytes());
    }
    for (name, part) in [("object", Some(object)), ("status", status)] {
        if let Some(part) = part {
            body.extend_from_slice(format!(",\"{name}\":").as_bytes());
            body.extend_from_slice(part);
        }
    }
    body.push(b'}');
    Fetched::new(Bytes::from(body))
}
