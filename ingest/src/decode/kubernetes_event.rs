//! Kubernetes Event objects: what the controllers of a cluster tell about secrets they sync, policies they apply and
//! applications they deploy.
//!
//! Sources: `k8s.io/api/core/v1` and `events/v1` (the same object under two names), External Secrets Operator, Secrets
//! Store CSI driver, Kyverno's event controller, Gatekeeper (`--emit-admission-events`, `--emit-audit-events`). Events are told
//! apart by who reports and about what; the API server drops them after an hour and may fold several into one, so they are
//! signals, not a record.

use bytes::Bytes;
use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, flux, gatekeeper_audit, images, kubernetes_objects, object, outcome, time_at};

const EXPECTED: &str = "a Kubernetes Event object";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let Some(event) = watched(json.root()) else { return draft(json.root()).map(|draft| vec![draft]) };
    let native = Some(Bytes::from(event.compact()));
    Ok(vec![Draft { native, ..draft(event)? }])
}

/// The object in what a watch says of it: `{"type": "ADDED", "object": …}`.
pub(super) fn watched(root: Value<'_>) -> Option<Value<'_>> {
    root.str_at(&["type"])?;
    root.get("object").filter(|object| object.get("metadata").is_some())
}

/// The event of an Event object.
pub(super) fn draft(root: Value<'_>) -> Result<Draft, Undecodable> {
    let about = root.get("involvedObject").or_else(|| root.get("regarding")).filter(|object| object.is_object());
    let Some(about) = about.filter(|_| root.str_at(&["kind"]).is_none_or(|kind| kind == "Event")) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `involvedObject` or `regarding`" });
    };
    let mut draft = Draft::new("k8s.event", "cloud");
    const TIMES: &[&[&str]] = &[
        &["series", "lastObservedTime"],
        &["eventTime"],
        &["lastTimestamp"],
        &["deprecatedLastTimestamp"],
        &["firstTimestamp"],
        &["metadata", "creationTimestamp"],
    ];
    draft.time = TIMES.iter().find_map(|path| time_at(root, path));
    let fields = &mut draft.fields;
    let reporter = ["reportingComponent", "reportingController"].iter().find_map(|key| root.str_at(&[key]));
    let reporter = reporter.filter(|name| !name.is_empty()).or_else(|| root.str_at(&["source", "component"]));
    let reason = root.str_at(&["reason"]).unwrap_or_default();
    let message = root.str_at(&["message"]).or_else(|| root.str_at(&["note"])).unwrap_or_default();
    let warns = root.str_at(&["type"]).map(|kind| kind == "Warning");
    // About a policy: what it was applied to is the related object.
    let policy = about.str_at(&["kind"]).filter(|kind| kind.ends_with("Policy")).and(about.str_at(&["name"]));
    let related = root.get("related").filter(|related| policy.is_some() && related.is_object());
    target(fields, related.unwrap_or(about));
    if fields.get(Field::K8sNamespace).is_none() && related.is_none() {
        fields.text(Field::K8sNamespace, root.str_at(&["metadata", "namespace"]));
    }
    fields.text(Field::ActorId, reporter);
    fields.text(Field::ActorType, reporter.map(|_| "service"));
    fields.text(Field::Reason, Some(reason));
    fields.text(Field::Message, Some(message));
    fields.text(Field::Outcome, warns.map(|warns| outcome(!warns)));
    let group =
        about.str_at(&["apiVersion"]).and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
    let reporter = reporter.unwrap_or_default();
    if let Some(found) = root.at(&["metadata", "annotations"]).and_then(gatekeeper_audit::annotated) {
        // What it was applied to is told beside the event, which may be about a namespace of Gatekeeper's own.
        found.fields.iter().for_each(|(field, value)| fields.set(field, value.clone()));
        fields.text(Field::Reason, Some(reason));
        gatekeeper_audit::said(fields, Some(message));
    } else if group.ends_with("external-secrets.io") {
        synced(fields, about, reason);
    } else if reporter.contains("secrets-store")
        || message.contains("secrets-store.csi.k8s.io")
        // The kubelet repeats what the driver answered, and does not name it.
        || message.contains("failed to mount secrets store objects")
    {
        mounted(fields, about, reason);
    } else if reporter.starts_with("kyverno") || group.ends_with("kyverno.io") {
        evaluated(fields, root, policy, reason, message);
    } else if group.ends_with("toolkit.fluxcd.io") {
        flux::meaning(fields, reason, warns == Some(true));
    } else if group == "argoproj.io" {
        application(fields, reason, message);
    }
    Ok(draft)
}

/// The object an event is about.
pub(super) fn target(fields: &mut Fields, about: Value<'_>) {
    let version = about.str_at(&["apiVersion"]).unwrap_or_default();
    fields.text(Field::K8sGroup, version.split_once('/').map(|(group, _)| group));
    fields.text(Field::K8sKind, about.str_at(&["kind"]).map(kubernetes_objects::plural));
    fields.text(Field::K8sNamespace, about.str_at(&["namespace"]));
    fields.text(Field::K8sName, about.str_at(&["name"]));
}

fn name(fields: &mut Fields, action: &str, category: &str) {
    fields.text(Field::Action, Some(action));
    fields.text(Field::Category, Some(category));
}

/// External Secrets: a store's secret became, or failed to become, one of the cluster. The read itself is in the audit log
/// of the store.
fn synced(fields: &mut Fields, about: Value<'_>, reason: &str) {
    let kind = about.str_at(&["kind"]).unwrap_or_default();
    let action = if kind.ends_with("SecretStore") { "secret_store.checked" } else { "secret.synced" };
    name(fields, action, "secret");
    secret(fields, about);
    let failed = ["UpdateFailed", "MissingProviderSecret", "ValidationFailed", "Errored"];
    if failed.contains(&reason) || reason.starts_with("Invalid") || reason.ends_with("Error") {
        fields.text(Field::Outcome, Some("failure"));
    }
}

/// Secrets Store CSI driver: a volume of secrets was mounted in a pod, or its content rotated.
fn mounted(fields: &mut Fields, about: Value<'_>, reason: &str) {
    name(fields, if reason.contains("Rotation") { "secret.rotated" } else { "secret.mounted" }, "secret");
    secret(fields, about);
    if reason.contains("Fail") {
        fields.text(Field::Outcome, Some("failure"));
    }
}

fn secret(fields: &mut Fields, about: Value<'_>) {
    fields.text(Field::SecretStore, Some("kubernetes"));
    let namespace = fields.get_text(Field::K8sNamespace).unwrap_or_default();
    let path = [namespace, about.str_at(&["name"]).unwrap_or_default()].join("/");
    fields.text(Field::SecretPath, Some(path.trim_matches('/').to_owned()));
}

/// Kyverno: `Pod NAMESPACE/NAME: [RULE] fail (blocked); MESSAGE` about a policy, the resource being the related object; or
/// about the resource itself.
fn evaluated(fields: &mut Fields, root: Value<'_>, policy: Option<&str>, reason: &str, message: &str) {
    let passed = match reason {
        "PolicyApplied" | "PolicySkipped" => true,
        "PolicyViolation" | "PolicyError" => false,
        _ => return name(fields, "policy.reported", "admission"),
    };
    name(fields, "policy.evaluated", "admission");
    fields.text(Field::Outcome, Some(outcome(passed)));
    // `policy POLICY/RULE fail: …`
    let named = message.strip_prefix("policy ").and_then(|rest| rest.split([' ', '/']).next());
    fields.text(Field::K8sPolicy, policy.or(named));
    let blocked = message.contains("(blocked)") || root.str_at(&["action"]) == Some("Resource Blocked");
    if !passed && blocked {
        name(fields, "admission.decided", "admission");
        fields.text(Field::K8sDecision, Some("deny"));
    }
    fields.text(Field::SignatureStatus, Some(message).filter(|_| !passed).and_then(kubernetes_objects::denial));
    if let Some(image) = images::find(message) {
        images::set(fields, image);
    }
}

/// Argo CD tells of each step of an application by an Event of its own.
fn application(fields: &mut Fields, reason: &str, message: &str) {
    let failed = message.contains("failed") || message.contains("Failed");
    match reason {
        "OperationStarted" => name(fields, "deploy.started", "deploy"),
        "OperationCompleted" => {
            name(fields, "deploy.finished", "deploy");
            fields.text(Field::Outcome, Some(outcome(!failed)));
        }
        _ => name(fields, "deploy.reported", "deploy"),
    }
    // `USER initiated sync to REVISION (COMMIT)`
    if let Some((user, rest)) = message.split_once(" initiated ") {
        let automated = rest.starts_with("automated");
        fields.text(Field::ActorId, Some(user).filter(|_| !automated));
        fields.text(Field::ActorType, Some(if automated { "service" } else { "human" }));
        let commit = rest.rsplit_once('(').and_then(|(_, commit)| commit.strip_suffix(')'));
        fields.text(Field::CiSha, commit.filter(|sha| flux::is_sha(sha)));
    }
}
