//! Where a record holds Kubernetes Secrets: their content goes whatever it looks like.

use engine::source::SourceType;
use pipeproof_engine as engine;

use crate::skim;

/// Keys from the root to an object of the cluster.
pub(super) type Place = &'static [&'static str];

/// Where records of a type hold objects of a cluster, and where they name the resource or method these are of.
struct Holder {
    objects: &'static [Place],
    resources: &'static [Place],
}

const AUDIT: Holder = Holder {
    objects: &[
        &["requestObject"],
        &["responseObject"],
        // GKE's log entries.
        &["protoPayload", "request"],
        &["protoPayload", "response"],
    ],
    resources: &[&["objectRef", "resource"], &["protoPayload", "methodName"]],
};
const ADMISSION: Holder = Holder {
    objects: &[&["request", "object"], &["request", "oldObject"]],
    resources: &[&["request", "resource", "resource"], &["request", "kind", "kind"]],
};
const DECISION: Holder = Holder {
    objects: &[&["input", "request", "object"], &["input", "request", "oldObject"], &["input", "review", "object"]],
    resources: &[&["input", "request", "resource", "resource"], &["input", "request", "kind", "kind"]],
};

const fn holder(kind: SourceType) -> Option<&'static Holder> {
    match kind {
        SourceType::KubernetesAudit | SourceType::GcpAudit => Some(&AUDIT),
        SourceType::KubernetesAdmission => Some(&ADMISSION),
        SourceType::OpaDecision => Some(&DECISION),
        _ => None,
    }
}

/// Where the record's Secrets are; empty if it is about none. Of a record that cannot be read it is enough that it names
/// them.
pub(super) fn secrets(kind: SourceType, body: &[u8]) -> &'static [Place] {
    let Some(holder) = holder(kind) else { return &[] };
    let is = |place: &[&str], names: fn(&str) -> bool| skim::text_at(body, place).is_some_and(|text| names(&text));
    let found = holder.resources.iter().any(|place| is(place, is_resource))
        || holder
            .objects
            .iter()
            .any(|place| is(&[*place, &["kind"]].concat(), |kind| matches!(kind, "Secret" | "SecretList")))
        || (names_secrets(body) && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err());
    if found { holder.objects } else { &[] }
}

/// A resource, a kind, or a method of GKE: `io.k8s.core.v1.secrets.create`.
fn is_resource(name: &str) -> bool {
    matches!(name, "secrets" | "Secret")
        || name.strip_prefix("io.k8s.").is_some_and(|method| method.contains(".secrets."))
}

fn names_secrets(body: &[u8]) -> bool {
    const NAMES: [&[u8]; 3] = [b"\"secrets\"", b"\"Secret\"", b"\"SecretList\""];
    let mut rest = body;
    while let Some(at) = rest.windows(7).position(|part| part == b"\"secret" || part == b"\"Secret") {
        rest = rest.get(at..).unwrap_or_default();
        if NAMES.iter().any(|name| rest.starts_with(name)) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}
