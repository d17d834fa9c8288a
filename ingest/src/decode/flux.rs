//! Flux events, as its notification controller posts them.
//!
//! Source: fluxcd/pkg `apis/event/v1beta1`. The controller drops an event that repeats an earlier one within five minutes:
//! these are signals, the cluster's audit log is the record.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, images, kubernetes_event, object, time_at};

const EXPECTED: &str = "a Flux event";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let about = root.get("involvedObject").filter(|object| object.is_object());
    let (Some(about), Some(reason)) = (about, root.str_at(&["reason"])) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `involvedObject` and `reason`" });
    };
    let mut draft = Draft::new("deploy.reported", "deploy");
    draft.time = time_at(root, &["timestamp"]);
    let fields = &mut draft.fields;
    kubernetes_event::target(fields, about);
    meaning(fields, reason, root.str_at(&["severity"]) == Some("error"));
    let message = root.str_at(&["message"]);
    fields.text(Field::Reason, Some(reason));
    fields.text(Field::Message, message);
    fields.text(Field::ActorId, root.str_at(&["reportingController"]));
    fields.text(Field::ActorType, Some("service"));
    if let Some(metadata) = root.get("metadata") {
        revision(fields, metadata);
    }
    if reason == "VerificationError" {
        fields.text(Field::SignatureStatus, Some("failed"));
    }
    Ok(vec![draft])
}

/// What a reason says, whether it came as a Flux event or as an Event of the cluster.
pub(super) fn meaning(fields: &mut Fields, reason: &str, error: bool) {
    let done = ["ReconciliationSucceeded", "InstallSucceeded", "UpgradeSucceeded", "RollbackSucceeded"];
    let undone = [
        "ReconciliationFailed",
        "ValidationFailed",
        "HealthCheckFailed",
        "BuildFailed",
        "ArtifactFailed",
        "PruneFailed",
        "InstallFailed",
        "UpgradeFailed",
        "RollbackFailed",
        "TestFailed",
        "VerificationError",
    ];
    let (action, outcome) = if done.contains(&reason) {
        ("deploy.finished", Some("success"))
    } else if undone.contains(&reason) {
        ("deploy.finished", Some("failure"))
    } else if matches!(reason, "Progressing" | "ProgressingWithRetry") {
        ("deploy.started", error.then_some("failure"))
    } else {
        ("deploy.reported", Some(if error { "failure" } else { "success" }))
    };
    fields.text(Field::Action, Some(action));
    fields.text(Field::Category, Some("deploy"));
    fields.text(Field::Outcome, outcome);
}

/// `main@sha1:COMMIT`, formerly `main/COMMIT`; of an OCI artifact `TAG@sha256:DIGEST`.
fn revision(fields: &mut Fields, metadata: Value<'_>) {
    let written = metadata.entries().filter(|(key, _)| *key == "revision" || key.ends_with("/revision"));
    let Some(revision) = written.filter_map(|(_, value)| value.as_str()).next() else { return };
    let (name, digest) = match revision.split_once('@') {
        Some((name, digest)) => (name, digest),
        None => revision.rsplit_once('/').unwrap_or(("", revision)),
    };
    if images::is_digest(digest) {
        fields.text(Field::ArtifactDigest, Some(digest));
        return;
    }
    let sha = digest.trim_start_matches("sha1:");
    if is_sha(sha) {
        fields.text(Field::CiSha, Some(sha));
        let full = if name.starts_with("refs/") { name.to_owned() } else { format!("refs/heads/{name}") };
        fields.text(Field::CiRef, Some(full).filter(|_| !name.is_empty()));
    }
}

/// Whether a text is a Git commit.
pub(super) fn is_sha(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
