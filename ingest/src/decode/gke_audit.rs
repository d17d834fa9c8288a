//! GKE writes Kubernetes audit events as Google Cloud log entries: back to the form of `audit.k8s.io`.
//!
//! Source: Google "GKE audit logging"; the resource's name is the path of the API, the last part of the method its verb.

use engine::json::{Json, Value};
use pipeproof_engine as engine;
use serde_json::json;

use super::DEPTH_MAX;

/// The audit event in a log entry; `None` if the entry is about something else.
pub(super) fn event(root: Value<'_>) -> Option<Json> {
    Json::parse_within(text(root)?.as_bytes(), DEPTH_MAX).ok()
}

/// The audit event as JSON text.
pub(super) fn text(root: Value<'_>) -> Option<String> {
    let payload = root.get("protoPayload")?;
    let method = payload.str_at(&["methodName"])?.strip_prefix("io.k8s.").or_else(|| {
        // A custom resource's method starts with its group, reversed.
        payload.str_at(&["methodName"]).filter(|_| payload.str_at(&["serviceName"]) == Some("k8s.io"))
    })?;
    let (_, verb) = method.rsplit_once('.')?;
    let target = reference(payload.str_at(&["resourceName"])?)?;
    let text = |path: &[&str]| payload.str_at(path).unwrap_or_default();
    let whole = |key: &str| payload.get(key).and_then(|value| serde_json::from_str(&value.compact()).ok());
    // An entry has no stage. A watch is reported when it starts, and where it is once more at its end, by another entry.
    let of_operation = |key: &str| root.at(&["operation", key]).and_then(Value::as_bool) == Some(true);
    let ended = of_operation("last") && !of_operation("first");
    let stage = if verb == "watch" && !ended { "ResponseStarted" } else { "ResponseComplete" };
    let (code, reason) = status(payload.at(&["status", "code"]).and_then(Value::as_i64).unwrap_or(0), verb);
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "auditID": root.str_at(&["operation", "id"]).or_else(|| root.str_at(&["insertId"])).unwrap_or_default(),
        "stage": stage,
        "verb": verb,
        "user": {"username": text(&["authenticationInfo", "principalEmail"])},
        "objectRef": target,
        "userAgent": text(&["requestMetadata", "callerSuppliedUserAgent"]),
        "requestReceivedTimestamp": root.str_at(&["timestamp"]).or_else(|| root.str_at(&["receiveTimestamp"])),
        "responseStatus": {"code": code, "reason": reason, "message": text(&["status", "message"])},
        "annotations": root.get("labels").and_then(|labels| serde_json::from_str::<serde_json::Value>(&labels.compact()).ok()),
    });
    let object = event.as_object_mut()?;
    let address = text(&["requestMetadata", "callerIp"]);
    if !address.is_empty() {
        object.insert("sourceIPs".to_owned(), json!([address]));
    }
    for (member, from) in [("requestObject", "request"), ("responseObject", "response")] {
        if let Some(body) = whole(from) {
            object.insert(member.to_owned(), body);
        }
    }
    Some(event.to_string())
}

/// `GROUP/VERSION/[namespaces/NAMESPACE/]RESOURCE[/NAME[/SUBRESOURCE]]`; the core group is called `core`.
fn reference(name: &str) -> Option<serde_json::Value> {
    let mut parts = name.split('/');
    let (group, version) = (parts.next()?, parts.next()?);
    let rest: Vec<&str> = parts.collect();
    let (namespace, rest) = match rest.as_slice() {
        // A namespace itself is named like this too.
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let [resource, rest @ ..] = rest else { return None };
    let mut reference = json!({"apiVersion": version, "resource": resource});
    let object = reference.as_object_mut()?;
    let mut set = |key: &str, value: &str| {
        if !value.is_empty() {
            object.insert(key.to_owned(), value.into());
        }
    };
    set("apiGroup", if group == "core" { "" } else { group });
    set("namespace", namespace);
    set("name", rest.first().copied().unwrap_or_default());
    set("subresource", rest.get(1).copied().unwrap_or_default());
    Some(reference)
}

/// The HTTP status of a code of `google.rpc`, and its reason as Kubernetes writes it.
fn status(code: i64, verb: &str) -> (i64, &'static str) {
    match code {
        0 if verb == "create" => (201, ""),
        0 => (200, ""),
        3 => (400, "BadRequest"),
        5 => (404, "NotFound"),
        6 => (409, "AlreadyExists"),
        7 => (403, "Forbidden"),
        8 => (429, "TooManyRequests"),
        10 => (409, "Conflict"),
        16 => (401, "Unauthorized"),
        100.. => (code, ""),
        _ => (500, "InternalError"),
    }
}
