//! AdmissionReview objects: what a webhook is asked, and, where an observer sees both, what it answered.
//!
//! Source: `k8s.io/api/admission/v1`. A review has no time of its own. One webhook's consent lets nothing in by itself, but
//! its refusal keeps an object out: `admission.decided` is said of refusals, `admission.reviewed` of the rest.

use std::borrow::Cow;

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, ORIGIN, Undecodable, images, kubernetes_audit, kubernetes_objects, object, outcome};

const EXPECTED: &str = "an AdmissionReview";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let Some(request) = root.get("request").filter(|request| request.is_object()) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `request`" });
    };
    let response = root.get("response").filter(|response| response.is_object());
    let allowed = response.and_then(|response| response.get("allowed")).and_then(Value::as_bool);
    let message = response.and_then(|response| response.str_at(&["status", "message"])).unwrap_or_default();
    let mut draft = Draft::default();
    asked(&mut draft.fields, request);
    Ok(answered(draft, request, allowed, message, None))
}

/// Who asked for what.
pub(super) fn asked(fields: &mut Fields, request: Value<'_>) {
    let part = |path: &[&str]| request.str_at(path);
    let object = request.get("object").filter(|object| object.is_object()).or_else(|| request.get("oldObject"));
    let of_object = |path: &[&str]| object.and_then(|object| object.str_at(path));
    let kind = || part(&["kind", "kind"]).or_else(|| of_object(&["kind"])).map(kubernetes_objects::plural);
    let resource = part(&["resource", "resource"]).map(Cow::Borrowed).or_else(|| kind().map(Cow::Owned));
    let whole = part(&["subResource"]).filter(|name| !name.is_empty());
    let resource = match (resource, whole) {
        (Some(resource), Some(subresource)) => Some(Cow::Owned(format!("{resource}/{subresource}"))),
        (resource, _) => resource,
    };
    fields.text(Field::K8sKind, resource);
    fields.text(Field::K8sGroup, part(&["resource", "group"]).or_else(|| part(&["kind", "group"])));
    fields.text(Field::K8sNamespace, part(&["namespace"]).or_else(|| of_object(&["metadata", "namespace"])));
    fields.text(Field::K8sName, part(&["name"]).or_else(|| of_object(&["metadata", "name"])));
    fields.text(Field::K8sVerb, part(&["operation"]).map(str::to_lowercase));
    let user = part(&["userInfo", "username"]);
    fields.text(Field::K8sUser, user);
    fields.text(Field::ActorId, user);
    fields.text(Field::ActorType, user.map(kubernetes_audit::actor_type));
}

/// The review as an event, and one for each container's image.
pub(super) fn answered(
    mut draft: Draft,
    request: Value<'_>,
    allowed: Option<bool>,
    message: &str,
    policy: Option<&str>,
) -> Vec<Draft> {
    // A dry run keeps nothing out and lets nothing in.
    let dry = request.get("dryRun").and_then(Value::as_bool) == Some(true);
    let action = if allowed == Some(false) && !dry { "admission.decided" } else { "admission.reviewed" };
    let object = request.get("object").filter(|object| object.is_object());
    let privileged = object.and_then(kubernetes_objects::privileged);
    let fields = &mut draft.fields;
    fields.text(Field::Category, Some("admission"));
    fields.text(Field::Action, Some(action));
    fields.text(Field::Outcome, allowed.map(outcome));
    fields.text(Field::K8sDecision, allowed.map(|allowed| if allowed { "allow" } else { "deny" }));
    fields.text(Field::K8sPolicy, policy.or_else(|| kubernetes_objects::denied_by(message)));
    fields.text(Field::Message, Some(message));
    fields.truth(Field::K8sPrivileged, privileged);
    let kept = [ORIGIN, &[Field::K8sDecision, Field::K8sPolicy, Field::Message]].concat();
    let refused = allowed == Some(false);
    let image = |(image, privileged): (&str, bool)| {
        let mut one = draft.derive(&kept, action, "admission");
        images::set(&mut one.fields, image);
        one.fields.text(Field::SignatureStatus, Some(message).filter(|_| refused).and_then(kubernetes_objects::denial));
        one.fields.truth(Field::K8sPrivileged, Some(privileged));
        one
    };
    let mut drafts: Vec<Draft> =
        object.map(kubernetes_objects::images).unwrap_or_default().into_iter().map(image).collect();
    if !drafts.is_empty() {
        // What is said of each image is said by its own event, so that a decision counts once an image.
        draft.fields.text(Field::Action, Some("admission.reviewed"));
    }
    drafts.insert(0, draft);
    drafts
}
