//! What the object in an audit event says: the images of a workload and what was decided about them, and how strict a
//! written policy is.

use engine::fields::{Field, Fields};
use engine::json::Value;
use pipeproof_engine as engine;

use super::{Draft, ORIGIN, images};

/// Kinds that run containers, plural as in the API.
const WORKLOADS: &[&str] =
    &["pods", "deployments", "replicasets", "statefulsets", "daemonsets", "jobs", "cronjobs", "replicationcontrollers"];

/// Whether objects of a resource run containers.
pub(super) fn is_workload(resource: &str) -> bool {
    WORKLOADS.contains(&resource)
}

/// The object as it was accepted, else as it was asked for; `None` if no body was logged.
pub(super) fn body(root: Value<'_>) -> Option<Value<'_>> {
    let whole = |key| {
        root.get(key).filter(|object: &Value<'_>| object.is_object() && object.str_at(&["kind"]) != Some("Status"))
    };
    whole("responseObject").filter(|object| object.get("spec").is_some()).or_else(|| whole("requestObject"))
}

/// The images of a workload's containers, and whether each asks to be privileged.
pub(super) fn images(object: Value<'_>) -> Vec<(&str, bool)> {
    containers(object).filter_map(|container| Some((container.str_at(&["image"])?, is_privileged(container)))).collect()
}

/// The name of a kind's objects in the API: `Pod` → `pods`, `NetworkPolicy` → `networkpolicies`. As Kubernetes guesses
/// it; a definition may say otherwise.
pub(super) fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    if lower.ends_with('s') || lower.ends_with("ch") || lower.ends_with('x') {
        lower + "es"
    } else if let Some(stem) = lower.strip_suffix('y') {
        format!("{stem}ies")
    } else {
        lower + "s"
    }
}

/// The pod specification inside a workload.
fn pod_spec(object: Value<'_>) -> Option<Value<'_>> {
    let spec = object.get("spec")?;
    let nested = spec.at(&["jobTemplate", "spec", "template", "spec"]).or_else(|| spec.at(&["template", "spec"]));
    Some(nested.unwrap_or(spec))
}

fn containers(object: Value<'_>) -> impl Iterator<Item = Value<'_>> {
    let spec = pod_spec(object);
    let lists = ["initContainers", "containers", "ephemeralContainers"].iter().filter_map(move |list| spec?.get(list));
    lists.flat_map(Value::items).filter(|container| container.get("image").is_some())
}

fn is_privileged(container: Value<'_>) -> bool {
    container.at(&["securityContext", "privileged"]).and_then(Value::as_bool) == Some(true)
}

/// Whether a container of the object asks to be privileged; `None` if it has no containers.
pub(super) fn privileged(object: Value<'_>) -> Option<bool> {
    containers(object).map(is_privileged).reduce(|any, one| any || one)
}

/// One event for each container's image: was it let in, by or against which policy, and what is said of its signature.
pub(super) fn admissions(root: Value<'_>, draft: &Draft) -> Vec<Draft> {
    let annotation = |key: &str| root.str_at(&["annotations", key]);
    let code = root.at(&["responseStatus", "code"]).and_then(Value::as_i64);
    let message = root.str_at(&["responseStatus", "message"]).unwrap_or_default();
    let by_policy = denied_by(message);
    // Refused before admission: nobody looked at the image.
    let unauthorised = annotation("authorization.k8s.io/decision") == Some("forbid")
        || (code == Some(403) && by_policy.is_none() && message.contains("cannot"))
        || code == Some(401);
    let Some(code) = code.filter(|_| !unauthorised) else { return Vec::new() };
    let object = body(root);
    let images = match object.map(images).filter(|images| !images.is_empty()) {
        Some(images) => images,
        None => images::find(message).map(|image| (image, false)).into_iter().collect(),
    };
    // An object that conflicts, is invalid or gone was not decided on by admission.
    let decided = code < 400 || by_policy.is_some() || code == 403;
    if !decided {
        return Vec::new();
    }
    let event = |(image, privileged): (&str, bool)| {
        let mut admitted = draft.derive(ORIGIN, "admission.decided", "admission");
        let fields = &mut admitted.fields;
        let parts = images::parse(image);
        fields.text(Field::ArtifactRepo, Some(parts.repo));
        fields.text(Field::ArtifactDigest, parts.digest);
        fields.text(Field::SignatureStatus, signature(root, object, image, message));
        fields.text(Field::K8sDecision, Some(if code < 400 { "allow" } else { "deny" }));
        fields.text(Field::K8sPolicy, by_policy.or_else(|| failed_open(root)));
        fields.text(Field::Reason, root.str_at(&["responseStatus", "reason"]));
        if code < 400 && failed_open(root).is_some() {
            fields.text(Field::Reason, Some("failed open"));
        }
        fields.text(Field::Message, Some(message));
        fields.truth(Field::K8sPrivileged, Some(privileged));
        fields.text(Field::ArtifactName, Some(image));
        admitted
    };
    images.into_iter().map(event).collect()
}

/// The policy or webhook an error message names.
pub(super) fn denied_by(message: &str) -> Option<&str> {
    let quoted = |rest: &str| -> Option<usize> { rest.find(['"', '\'']) };
    for opening in ["admission webhook \"", "ValidatingAdmissionPolicy '", "ValidatingAdmissionPolicy \""] {
        if let Some((_, rest)) = message.split_once(opening) {
            return rest.get(..quoted(rest)?);
        }
    }
    // Pod Security: `violates PodSecurity "restricted:latest"`.
    message.contains("violates PodSecurity").then_some("PodSecurity")
}

/// A webhook that could not be asked and whose failure policy let the object through.
fn failed_open(root: Value<'_>) -> Option<&str> {
    let annotations = root.get("annotations")?;
    annotations.entries().find(|(key, _)| key.starts_with("failed-open.")).and_then(|(_, webhook)| webhook.as_str())
}

/// What is said of an image's signature: by an annotation a verifier left, or by the message of a denial.
fn signature(root: Value<'_>, object: Option<Value<'_>>, image: &str, message: &str) -> Option<&'static str> {
    let digest = images::parse(image).digest;
    let about = |key: &str| key == image || digest.is_some_and(|digest| key.ends_with(digest));
    // Kyverno: {"image@digest": "pass" | true | "fail" …} on the object.
    let marks = [&["metadata", "annotations"][..], &["spec", "template", "metadata", "annotations"]];
    let verified = marks.iter().find_map(|path| object?.at(path)?.str_at(&["kyverno.io/verify-images"]));
    if let Some(status) = verified.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok()) {
        // What was skipped was not looked at.
        let looked_at = |value: &serde_json::Value| value.as_str() != Some("skip");
        let entry = status.as_object().and_then(|map| map.iter().find(|(key, value)| about(key) && looked_at(value)));
        if let Some((_, value)) = entry {
            return Some(match value {
                serde_json::Value::Bool(true) => "verified",
                serde_json::Value::String(word) if word == "pass" => "verified",
                _ => "failed",
            });
        }
    }
    // A webhook's own audit annotation, as `<webhook>/signature-status`.
    let noted = root.get("annotations").into_iter().flat_map(Value::entries);
    let noted = noted.filter(|(key, _)| key.ends_with("/signature-status")).find_map(|(_, value)| value.as_str());
    match noted {
        Some("verified") => return Some("verified"),
        Some("missing") => return Some("missing"),
        Some("failed") => return Some("failed"),
        _ => {}
    }
    denial(message)
}

/// What the message of a denial or a policy says of a signature.
pub(super) fn denial(message: &str) -> Option<&'static str> {
    const MISSING: &[&str] =
        &["no signatures found", "no matching attestations", "no attestations found", "unsigned", "not signed"];
    const FAILED: &[&str] = &[
        "no matching signatures",
        "failed to verify",
        "signature verification failed",
        "signature keyless validation failed",
        "signature key validation failed",
        "image verification failed",
        "none of the expected identities matched",
        "invalid signature",
    ];
    let message = message.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| message.contains(word));
    // Both may stand in one message; that there was none is the more exact one.
    if any(MISSING) { Some("missing") } else { any(FAILED).then_some("failed") }
}

/// How strict a written admission policy or webhook is, and whether the write loosens it.
pub(super) fn policy(fields: &mut Fields, root: Value<'_>, verb: &str, name: &str) {
    fields.text(Field::ConfigObject, Some("admission_policy"));
    fields.text(Field::ConfigId, Some(name));
    fields.text(Field::ConfigAttribute, Some(verb));
    // A patch holds only what changes: what was asked for says more than the whole.
    let written = root.get("requestObject").filter(|object| !object.is_null());
    let texts = written.map(|object| attributes(object)).unwrap_or_default();
    let failure = pick(&texts, "failurePolicy", &["ignore"]);
    fields.text(Field::K8sFailurePolicy, failure.as_deref());
    let enforcement = ["validationFailureAction", "failureAction", "enforcementAction", "mode"]
        .iter()
        .find_map(|key| pick(&texts, key, &["audit", "warn", "dryrun"]))
        // All of these are taken, so one that denies is enough.
        .or_else(|| pick(&texts, "validationActions", &["deny"]))
        .map(|word| word.to_lowercase())
        .map(|word| if word == "deny" { "enforce".to_owned() } else { word });
    fields.text(Field::K8sEnforcement, enforcement.as_deref());
    let loose = failure.as_deref().is_some_and(|word| word.eq_ignore_ascii_case("ignore"))
        || enforcement.as_deref().is_some_and(|word| matches!(word, "audit" | "warn" | "dryrun"));
    // One that comes new, however loose, takes nothing away: server-side apply creates by a patch.
    let code = root.at(&["responseStatus", "code"]).and_then(Value::as_i64);
    let comes_new = verb == "create" || code == Some(201);
    let weakens = verb.starts_with("delete") || (loose && !comes_new);
    fields.truth(Field::ConfigWeakens, Some(weakens));
}

/// Every text in an object with the key it stands under, nested ones included; JSON patches too.
fn attributes(object: Value<'_>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), object)];
    while let Some((key, value)) = open.pop() {
        if let Some(text) = value.as_str() {
            found.push((key, text.to_owned()));
        } else if value.is_array() {
            open.extend(value.items().map(|item| (key.clone(), item)));
        } else if let (Some(path), Some(new)) = (value.str_at(&["path"]), value.get("value")) {
            let last = path.split('/').rfind(|part| part.parse::<u32>().is_err()).unwrap_or_default();
            open.push((last.to_owned(), new));
        } else {
            open.extend(value.entries().map(|(key, member)| (key.to_owned(), member)));
        }
    }
    found
}

/// The value under a key: the loosest where there are several.
fn pick(texts: &[(String, String)], key: &str, loose: &[&str]) -> Option<String> {
    let mut values = texts.iter().filter(|(name, _)| name == key).map(|(_, value)| value);
    let first = values.clone().next()?;
    let loosest = values.find(|value| loose.iter().any(|word| value.eq_ignore_ascii_case(word)));
    Some(loosest.unwrap_or(first).clone())
}
