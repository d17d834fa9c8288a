//! What formats of clusters, clouds and sensors do not carry, told by the sample itself: a reason holds only where the
//! member that would carry the part is not there.

use engine::event::Event;
use engine::fields::Field;
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::measured::{Part, text_has};

/// Fields any one of which joins an event of these types to others; `None` for the others.
pub(super) fn joins(kind: SourceType) -> Option<&'static [Field]> {
    match kind {
        SourceType::AzureActivity | SourceType::AzureSignin | SourceType::AzureKeyvault => {
            Some(&[Field::CloudAccount, Field::CloudRole, Field::TokenId, Field::SecretPath, Field::ConfigId])
        }
        // An image by its repository, where a sensor knows no digest.
        SourceType::Falco | SourceType::Tetragon | SourceType::Tracee => {
            Some(&[Field::K8sName, Field::K8sNamespace, Field::K8sCluster, Field::ArtifactDigest, Field::ArtifactRepo])
        }
        // A person is joined by where they were and what they were given.
        SourceType::Okta => Some(&[Field::SrcIp, Field::TokenId, Field::ConfigId]),
        _ => None,
    }
}

/// Why the sample does not carry a part.
pub(super) fn excuse(event: &Event, part: Part, body: &[u8]) -> Option<&'static str> {
    let without = |names: &[&str]| !names.iter().any(|name| text_has(body, format!("\"{name}\":").as_bytes()));
    let told = |text: &str| text_has(body, text.as_bytes());
    let action = event.fields.get_text(Field::Action).unwrap_or_default();
    match (event.source_type, part) {
        (SourceType::GcpAudit, Part::Time) if without(&["timestamp"]) => Some("an excerpt without `timestamp`"),
        (SourceType::AzureActivity | SourceType::AzureSignin | SourceType::AzureKeyvault, Part::Outcome)
            if ["\"Start\"", "\"Started\"", "\"Accepted\""].into_iter().any(told) =>
        {
            Some("begun or accepted: how it ended is another record")
        }
        (SourceType::AzureSignin | SourceType::AzureKeyvault, Part::Outcome | Part::Join) if told("UserRiskEvents") => {
            Some("a risk that was found: about a person, who is the actor, and no outcome")
        }
        (SourceType::KubernetesEvent, Part::Time)
            if without(&["eventTime", "lastTimestamp", "firstTimestamp", "creationTimestamp"]) =>
        {
            Some("an excerpt without any of its times")
        }
        (SourceType::KubernetesEvent, Part::Outcome) if action == "policy.reported" => {
            Some("a report was made: its results are events of their own")
        }
        // `AdmissionReview` has no time in either direction (k8s.io/api/admission/v1).
        (SourceType::KubernetesAdmission, Part::Time) => Some("an AdmissionReview has no time"),
        (SourceType::KubernetesAdmission, Part::Outcome) if without(&["response"]) => {
            Some("asked, and not answered yet: the answer is another record")
        }
        (SourceType::KyvernoReport, Part::Time) if without(&["creationTimestamp", "timestamp"]) => {
            Some("an excerpt without any time")
        }
        (SourceType::KyvernoReport, Part::Join) if without(&["scope", "ownerReferences"]) => {
            Some("about no one object: each result has its own, or none")
        }
        (SourceType::KyvernoReport, Part::Actor) if without(&["source"]) => Some("an excerpt without `source`"),
        (SourceType::OpaDecision, Part::Actor) if without(&["user", "subject", "principal", "username"]) => {
            Some("what `input` says is the policy's own, and it names nobody")
        }
        (SourceType::OpaDecision, Part::Join) if without(&["kind", "namespace", "uid"]) => {
            Some("what `input` says is the policy's own, and it is no object of a cluster")
        }
        (SourceType::GatekeeperAudit, Part::Actor) if without(&["request_username"]) => {
            Some("found by audit: nobody asked for anything")
        }
        (SourceType::GatekeeperAudit, Part::Join | Part::Outcome) if told("review_response_stats") => {
            Some("statistics of reviews")
        }
        (SourceType::GatekeeperAudit, Part::Join) if told("\"violations\":") => {
            Some("the status of a constraint: its violations are events of their own")
        }
        (SourceType::Falco | SourceType::Tracee, Part::Outcome) if action == "alert.raised" => {
            Some("an alert is no outcome")
        }
        (SourceType::Falco | SourceType::Tetragon, _) if action == "sensor.reported" => Some("the sensor about itself"),
        (SourceType::Falco, Part::Actor) if without(&["user.name", "ka.user.name"]) || told("\"user.name\": null") => {
            Some("the rule's output names no user")
        }
        (SourceType::Falco, Part::Join)
            if without(&["k8s.pod.name", "container.image.repository", "ka.target.name"]) =>
        {
            Some("the rule's output names no pod and no image")
        }
        (SourceType::Tetragon, Part::Outcome) if without(&["action", "status"]) => {
            Some("seen, not judged: no action was taken")
        }
        (SourceType::Tetragon, Part::Join) if without(&["pod"]) => Some("a process outside of pods"),
        (SourceType::Tracee, Part::Outcome) if without(&["returnValue"]) => Some("no return value"),
        (SourceType::Tracee, Part::Actor) if without(&["userId", "real_user"]) => Some("no user is told"),
        (SourceType::Tracee, Part::Join) if is_on_host(body) => Some("a process outside of containers and pods"),
        (SourceType::Okta, Part::Outcome) if told("\"UNKNOWN\"") || told("\"CHALLENGE\"") || told("\"SKIPPED\"") => {
            Some("Okta says that it does not know")
        }
        _ => None,
    }
}

/// Whether none of these JSON pointers leads to text.
fn nowhere(body: &[u8], pointers: &[impl AsRef<str>]) -> bool {
    let Ok(event) = serde_json::from_slice::<serde_json::Value>(body) else { return false };
    let told =
        |pointer: &str| event.pointer(pointer).and_then(serde_json::Value::as_str).is_some_and(|text| !text.is_empty());
    !pointers.iter().any(|pointer| told(pointer.as_ref()))
}

/// Neither a pod nor an image is named.
fn is_on_host(body: &[u8]) -> bool {
    nowhere(
        body,
        &[
            "/podName",
            "/kubernetes/podName",
            "/containerImage",
            "/container/image",
            "/workload/k8s/pod/name",
            "/workload/container/image/name",
        ],
    )
}
