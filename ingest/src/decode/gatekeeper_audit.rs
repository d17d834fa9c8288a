//! Gatekeeper: what its audit finds in the cluster, what its webhook refuses, and the status of constraints.
//!
//! Source: Gatekeeper "Audit" and "Logging", `pkg/export/util`. The audit repeats each violation at every run: it is the
//! cluster's state, not something that happened. A constraint's status lists at most twenty violations by default.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, images, kubernetes_audit, kubernetes_objects, loose, object, outcome, time_at};

const EXPECTED: &str = "a Gatekeeper log line, exported violation or constraint";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    if root.str_at(&["apiVersion"]).is_some_and(|version| version.starts_with("constraints.gatekeeper.sh/")) {
        return Ok(constraint(root));
    }
    match loose::text(root, &["eventtype"]) {
        Some(kind) => Ok(vec![logged(root, kind)]),
        None if loose::text(root, &["enforcementaction"]).is_some() => Ok(vec![logged(root, "violation_audited")]),
        None => Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `event_type` and is no constraint" }),
    }
}

/// What the annotations of an Event of Gatekeeper say: the members of a line of its log; `None` of anybody else's.
pub(super) fn annotated(annotations: Value<'_>) -> Option<Draft> {
    let kind = annotations.str_at(&["event_type"]).filter(|kind| kind.starts_with("violation"))?;
    annotations.str_at(&["constraint_name"])?;
    Some(logged(annotations, kind))
}

/// A line of the log, or an exported violation.
fn logged(root: Value<'_>, kind: &str) -> Draft {
    let text = |key: &str| loose::text(root, &[key]);
    let admission = text("process") == Some("admission") || kind.starts_with("violation_admission");
    // Scoped enforcement lists its actions instead of naming one.
    let scoped = || loose::get(root, "constraintenforcementactions")?.items().next()?.as_str();
    let action = text("constraintaction").or_else(|| text("enforcementaction")).or_else(scoped).unwrap_or_default();
    let violation = kind.starts_with("violation");
    let mut draft = match (violation, admission) {
        (true, true) if action == "deny" => Draft::new("admission.decided", "admission"),
        (true, _) => Draft::new("policy.evaluated", "admission"),
        (false, _) => Draft::new("policy.reported", "admission"),
    };
    // An exported violation carries the id of its audit run, which is the time it began.
    draft.time =
        ["ts", "time", "timestamp", "auditid", "id"].iter().find_map(|key| super::time_of(loose::get(root, key)?));
    let fields = &mut draft.fields;
    if violation {
        fields.text(Field::Outcome, Some("failure"));
        let denied = admission && action == "deny";
        fields.text(Field::K8sDecision, admission.then_some(if denied { "deny" } else { "allow" }));
    }
    fields.text(Field::Reason, Some(kind));
    fields.text(Field::K8sEnforcement, Some(enforcement(action)));
    let (constraint, name) =
        (text("constraintkind").or_else(|| text("kind")), text("constraintname").or_else(|| text("name")));
    policy(fields, constraint, name);
    fields.text(Field::K8sGroup, text("resourcegroup"));
    fields.text(Field::K8sKind, text("resourcekind").map(kubernetes_objects::plural));
    fields.text(Field::K8sNamespace, text("resourcenamespace"));
    fields.text(Field::K8sName, text("resourcename"));
    let user = text("requestusername");
    fields.text(Field::K8sUser, user);
    fields.text(Field::ActorId, user);
    fields.text(Field::ActorType, user.map(kubernetes_audit::actor_type));
    said(fields, text("message").or_else(|| text("msg")));
    draft
}

/// A constraint as it stands in the cluster: what it asks for, and an event for each violation its status lists.
fn constraint(root: Value<'_>) -> Vec<Draft> {
    let mut report = Draft::new("policy.reported", "admission");
    report.time =
        time_at(root, &["status", "auditTimestamp"]).or_else(|| time_at(root, &["metadata", "creationTimestamp"]));
    let violations: Vec<Value<'_>> = root.at(&["status", "violations"]).into_iter().flat_map(Value::items).collect();
    let total = root.at(&["status", "totalViolations"]).and_then(Value::as_i64);
    let fields = &mut report.fields;
    policy(fields, root.str_at(&["kind"]), root.str_at(&["metadata", "name"]));
    // Without a word it denies.
    fields
        .text(Field::K8sEnforcement, Some(enforcement(root.str_at(&["spec", "enforcementAction"]).unwrap_or("deny"))));
    fields.text(Field::Outcome, Some(outcome(violations.is_empty() && total.unwrap_or(0) == 0)));
    fields.text(Field::Message, total.map(|total| format!("{total} violations")));
    let violation = |violation: &Value<'_>| {
        let mut one = report.derive(&[Field::K8sPolicy, Field::K8sEnforcement], "policy.evaluated", "admission");
        let fields = &mut one.fields;
        let text = |key: &str| violation.str_at(&[key]);
        fields.text(Field::Outcome, Some("failure"));
        fields.text(Field::K8sEnforcement, text("enforcementAction").map(enforcement));
        fields.text(Field::K8sGroup, text("group"));
        fields.text(Field::K8sKind, text("kind").map(kubernetes_objects::plural));
        fields.text(Field::K8sNamespace, text("namespace"));
        fields.text(Field::K8sName, text("name"));
        said(fields, text("message"));
        one
    };
    // Beyond the limit of its status a constraint counts its violations, and lists none.
    let listed = i64::try_from(violations.len()).unwrap_or(i64::MAX);
    let unlisted = total.map_or(0, |total| total.saturating_sub(listed).max(0));
    let mut drafts: Vec<Draft> = violations.iter().map(violation).collect();
    report.fields.int(Field::EventsLeftOut, Some(unlisted).filter(|unlisted| *unlisted > 0));
    drafts.insert(0, report);
    drafts
}

fn policy(fields: &mut Fields, kind: Option<&str>, name: Option<&str>) {
    fields
        .text(Field::K8sPolicy, name.map(|name| kind.map_or_else(|| name.to_owned(), |kind| format!("{kind}/{name}"))));
}

fn enforcement(action: &str) -> String {
    if action == "deny" { "enforce".to_owned() } else { action.to_lowercase() }
}

pub(super) fn said(fields: &mut Fields, message: Option<&str>) {
    let Some(message) = message else { return };
    fields.text(Field::Message, Some(message));
    fields.text(Field::SignatureStatus, kubernetes_objects::denial(message));
    if let Some(image) = images::find(message) {
        images::set(fields, image);
    }
}
