//! Google Cloud audit logs: `LogEntry` with an `AuditLog` payload.
//!
//! Sources: Google's `google/cloud/audit/audit_log.proto`, "Example audit logs for Workload Identity Federation". An
//! empty or absent `status` is success. The token that is exchanged names its subject once; later calls name the service
//! account, and the subject as the one that delegated to it.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, gcp_calls, gke_audit, kubernetes_audit, object, outcome, scalar, subject, time_at};

const EXPECTED: &str = "a Google Cloud audit log entry";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let payload = root.get("protoPayload").filter(|payload| payload.is_object());
    let Some((payload, method)) = payload.and_then(|payload| Some((payload, payload.str_at(&["methodName"])?))) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `protoPayload.methodName`" });
    };
    if let Some(event) = gke_audit::event(root) {
        let mut drafts = kubernetes_audit::drafts(event.root())?;
        for draft in &mut drafts {
            place(&mut draft.fields, root, payload);
        }
        return Ok(drafts);
    }
    let mut draft = Draft::new("cloud.api", "cloud");
    draft.time = ["timestamp", "receiveTimestamp"].iter().find_map(|key| time_at(root, &[key]));
    let fields = &mut draft.fields;
    place(fields, root, payload);
    fields.text(Field::Message, Some(method));
    result(fields, payload);
    who(fields, payload);
    gcp_calls::decode(fields, root, payload, method);
    Ok(vec![draft])
}

/// Where it happened.
fn place(fields: &mut Fields, root: Value<'_>, payload: Value<'_>) {
    fields.text(Field::CloudProvider, Some("gcp"));
    let service = payload.str_at(&["serviceName"]);
    fields.text(Field::CloudService, service.map(|name| name.strip_suffix(".googleapis.com").unwrap_or(name)));
    let labels = root.at(&["resource", "labels"]);
    let label = |key: &str| labels.and_then(|labels| labels.str_at(&[key]));
    let logged = root.str_at(&["logName"]).and_then(|name| name.strip_prefix("projects/")?.split('/').next());
    fields.text(Field::CloudAccount, label("project_id").or(logged));
    let region = ["location", "region", "zone"].iter().find_map(|key| label(key));
    let located = || payload.at(&["resourceLocation", "currentLocations"])?.items().next()?.as_str();
    fields.text(Field::CloudRegion, region.or_else(located));
    if fields.get(Field::K8sCluster).is_none() {
        fields.text(Field::K8sCluster, label("cluster_name"));
    }
    // Calls inside Google show `private` or `gce-internal-ip` instead of an address.
    let address = payload.str_at(&["requestMetadata", "callerIp"]);
    fields.text(Field::SrcIp, address.filter(|text| text.parse::<std::net::IpAddr>().is_ok()));
    fields.text(Field::UserAgent, payload.str_at(&["requestMetadata", "callerSuppliedUserAgent"]));
}

fn result(fields: &mut Fields, payload: Value<'_>) {
    let code = payload.at(&["status", "code"]).and_then(Value::as_i64).unwrap_or(0);
    let checks = payload.get("authorizationInfo").into_iter().flat_map(Value::items);
    let mut refused = checks.filter(|check| check.get("granted").and_then(Value::as_bool) == Some(false));
    let refused = refused.next().map(|check| check.str_at(&["permission"]).unwrap_or_default());
    fields.text(Field::Outcome, Some(outcome(code == 0 && refused.is_none())));
    fields.text(Field::Reason, payload.str_at(&["status", "message"]).or(refused));
}

/// Who called. Behind a service account that was impersonated stands whoever delegated to it.
fn who(fields: &mut Fields, payload: Value<'_>) {
    let info = payload.get("authenticationInfo").unwrap_or(payload);
    let email = info.str_at(&["principalEmail"]).filter(|email| !email.is_empty());
    let subject = info.str_at(&["principalSubject"]).filter(|subject| !subject.is_empty());
    let delegated = info.get("serviceAccountDelegationInfo").into_iter().flat_map(Value::items);
    let first = |one: Value<'_>| {
        let names = [&["principalSubject"][..], &["firstPartyPrincipal", "principalEmail"]];
        names.iter().find_map(|path| one.str_at(path)).map(ToOwned::to_owned)
    };
    let origin = delegated.filter_map(first).next();
    let own = email.or(subject);
    fields.text(Field::ActorId, own);
    let named = origin.as_deref().or(subject).or(own);
    fields.text(Field::ActorType, named.map(actor_type));
    if let Some(federated) = named.and_then(federated) {
        subject::set(fields, federated);
    }
    if origin.is_some() {
        fields.text(Field::CloudRole, email);
    }
    if let Some(key) = info.str_at(&["serviceAccountKeyName"]) {
        fields.text(Field::TokenId, key.rsplit('/').next());
        fields.text(Field::TokenKind, Some("static"));
    }
}

/// The subject of the token behind a federated principal, `principal://…/workloadIdentityPools/POOL/subject/SUBJECT`.
pub(super) fn federated(principal: &str) -> Option<&str> {
    let (_, pool) = principal.split_once("/workloadIdentityPools/")?;
    pool.split_once("/subject/").map(|(_, subject)| subject)
}

/// By the issuer of the identity, as far as the principal tells it.
pub(super) fn actor_type(principal: &str) -> &'static str {
    let subject = federated(principal).unwrap_or(principal);
    // Cloud Build's own account runs what its triggers say.
    if subject::parse(subject).provider.is_some() || subject.ends_with("@cloudbuild.gserviceaccount.com") {
        return "ci";
    }
    // People of another identity provider.
    if principal.contains("/workforcePools/") {
        return "human";
    }
    // `PROJECT.svc.id.goog[NAMESPACE/ACCOUNT]` is a pod, `NUMBER-compute@…` an instance.
    let pod =
        subject.contains(".svc.id.goog") || subject.starts_with("system:serviceaccount:") || subject.starts_with("ns/");
    // What App Engine and functions run as unless told otherwise is `PROJECT@appspot…`.
    let instance = ["-compute@developer.gserviceaccount.com", "@appspot.gserviceaccount.com"];
    if pod || instance.iter().any(|end| subject.ends_with(end)) {
        return "workload";
    }
    if subject.starts_with("system:")
        || subject.ends_with("gserviceaccount.com")
        || subject.starts_with("serviceAccount:")
    {
        return "service";
    }
    if federated(principal).is_some() {
        return "workload";
    }
    if subject.contains('@') { "human" } else { "service" }
}

/// The name behind the last `/KEY/` of a resource's name.
pub(super) fn part<'a>(name: &'a str, key: &str) -> Option<&'a str> {
    let mut parts = name.split('/');
    parts.find(|part| *part == key)?;
    parts.next().filter(|part| !part.is_empty())
}

/// The text at the first of these paths.
pub(super) fn first(payload: Value<'_>, paths: &[&[&str]]) -> Option<String> {
    paths.iter().find_map(|path| scalar(payload, path))
}
