//! The answer to a Kubernetes API server that asks before it admits: a source of type `kubernetes.admission` may be registered as a
//! validating webhook that only looks on. It allows everything, once what it was asked is durable.
//!
//! Kubernetes, "Dynamic Admission Control", § Response: the answer has the version of the question and names its `uid` again.

use pipeproof_engine::source::SourceType;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// Versions of `AdmissionReview` that are answered.
const VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];
/// Longest `uid` that is said again, in bytes; Kubernetes' are UUIDs.
const UID_BYTES: usize = 128;

#[derive(Deserialize)]
struct Review {
    #[serde(rename = "apiVersion")]
    version: String,
    kind: String,
    request: Request,
    /// Who has the answer already sends it along, and wants none.
    response: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
}

/// What to answer to a body, if it is such a question.
pub(super) fn answer(source: SourceType, body: &[u8]) -> Option<Value> {
    if source != SourceType::KubernetesAdmission {
        return None;
    }
    let review: Review = serde_json::from_slice(body).ok()?;
    let asks = review.kind == "AdmissionReview" && review.response.is_none();
    if !asks || !VERSIONS.contains(&review.version.as_str()) || review.request.uid.len() > UID_BYTES {
        return None;
    }
    let response = json!({ "uid": review.request.uid, "allowed": true });
    Some(json!({ "apiVersion": review.version, "kind": review.kind, "response": response }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &Value) -> Option<Value> {
        answer(SourceType::KubernetesAdmission, body.to_string().as_bytes())
    }

    #[test]
    fn a_question_is_answered_in_its_version_and_what_is_none_is_not() {
        let mut review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": { "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE" } });
        let expected = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": { "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": true } });
        assert_eq!(asked(&review), Some(expected));
        assert_eq!(answer(SourceType::Json, review.to_string().as_bytes()), None);
        review["response"] = json!({ "allowed": false });
        assert_eq!(asked(&review), None, "somebody has answered it");
        review["response"] = Value::Null;
        review["request"]["uid"] = json!("u".repeat(129));
        assert_eq!(asked(&review), None);
        review["request"] = json!({ "uid": "1" });
        assert!(asked(&review).is_some());
        review["apiVersion"] = json!("admission.k8s.io/v9");
        assert_eq!(asked(&review), None);
        assert_eq!(answer(SourceType::KubernetesAdmission, b"[1"), None);
    }
}
