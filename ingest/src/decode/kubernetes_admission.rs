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
pub(super) fn asked<'r>(fields: &mut Fields, request: Value<'r>) {
    let [object, old, kind, resource, whole, namespace, name, operation, user] = request.members([
        "object",
        "oldObject",
        "kind",
        "resource",
        "subResource",
        "namespace",
        "name",
        "operation",
        "userInfo",
    ]);
    let text = |value: Option<Value<'r>>| value.and_then(Value::as_str);
    let part = |value: Option<Value<'r>>, key: &str| text(value.and_then(|value| value.get(key)));
    let object = object.filter(|object| object.is_object()).or(old);
    let of_metadata = |key: &str| object.and_then(|object| object.str_at(&["metadata", key]));
    let plural = || part(kind, "kind").or_else(|| part(object, "kind")).map(kubernetes_objects::plural);
    let plural = part(resource, "resource").map(Cow::Borrowed).or_else(|| plural().map(Cow::Owned));
    let plural = match (plural, text(whole).filter(|name| !name.is_empty())) {
        (Some(plural), Some(subresource)) => Some(Cow::Owned(format!("{plural}/{subresource}"))),
        (plural, _) => plural,
    };
    let user = part(user, "username");
    fields.text(Field::ActorId, user);
    fields.text(Field::ActorType, user.map(kubernetes_audit::actor_type));
    fields.text(Field::K8sNamespace, text(namespace).or_else(|| of_metadata("namespace")));
    fields.text(Field::K8sKind, plural);
    fields.text(Field::K8sName, text(name).or_else(|| of_metadata("name")));
    fields.text(Field::K8sVerb, text(operation).map(str::to_lowercase));
    fields.text(Field::K8sGroup, part(resource, "group").or_else(|| part(kind, "group")));
    fields.text(Field::K8sUser, user);
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
