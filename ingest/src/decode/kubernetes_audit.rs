//! Kubernetes audit events (`audit.k8s.io/v1`).
//!
//! Source: Kubernetes `staging/src/k8s.io/apiserver/pkg/apis/audit/v1/types.go`. One request is reported at up to four
//! stages; meaning is read from the last one. Of a watch it is read from the first answer: a watch on secrets hands them over then, and
//! ends minutes later. Of `sourceIPs` all but the last can be made up by the client.

use bytes::Bytes;
use engine::fields::{Field, Fields};
use engine::json::{Json, Value};
use engine::record::Record;
use pipeproof_engine as engine;

use super::{
    DEPTH_MAX, Draft, Undecodable, aws_cloudtrail, gcp_audit, gke_audit, kubernetes_objects, object, outcome, subject,
    time_at,
};

const EXPECTED: &str = "a Kubernetes audit event";
/// API groups whose objects decide what is admitted.
const POLICY_GROUPS: &[&str] = &[
    "admissionregistration.k8s.io",
    "kyverno.io",
    "policies.kyverno.io",
    "templates.gatekeeper.sh",
    "constraints.gatekeeper.sh",
    "config.gatekeeper.sh",
    "policy.sigstore.dev",
];

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let Some(text) = gke_audit::text(root) else { return drafts(root) };
    // GKE: rules read the fields of `audit.k8s.io` whoever runs the cluster.
    let event = Json::parse_within(text.as_bytes(), DEPTH_MAX)?;
    let mut drafts = drafts(event.root())?;
    for draft in &mut drafts {
        draft.fields.text(Field::K8sCluster, root.str_at(&["resource", "labels", "cluster_name"]));
    }
    if let Some(first) = drafts.first_mut() {
        first.native = Some(Bytes::from(text));
    }
    Ok(drafts)
}

/// The events of an audit event of `audit.k8s.io`.
pub(super) fn drafts(root: Value<'_>) -> Result<Vec<Draft>, Undecodable> {
    let (Some(verb), Some(_)) = (root.str_at(&["verb"]), root.str_at(&["auditID"])) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `verb` and `auditID`" });
    };
    let target = Target::of(root);
    let stage = root.str_at(&["stage"]);
    let watches = verb == "watch";
    let changes = matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection");
    let dry = changes && is_dry(root, verb, &target);
    let (action, category) = match stage {
        Some("RequestReceived") => ("k8s.received".to_owned(), category(&target)),
        Some("ResponseStarted") if !watches => ("k8s.started".to_owned(), category(&target)),
        Some("ResponseComplete") if watches => ("k8s.ended".to_owned(), category(&target)),
        _ if dry => ("k8s.dry_run".to_owned(), category(&target)),
        _ => action(verb, &target),
    };
    let last = !matches!(action.as_str(), "k8s.received" | "k8s.started" | "k8s.ended");
    // A watch goes on for minutes: each of its stages is when it is.
    let times = if watches {
        ["stageTimestamp", "requestReceivedTimestamp", "timestamp"]
    } else {
        ["requestReceivedTimestamp", "stageTimestamp", "timestamp"]
    };
    let mut draft = Draft { time: times.iter().find_map(|key| time_at(root, &[key])), ..Draft::default() };
    origin(&mut draft.fields, root, verb, &target);
    let fields = &mut draft.fields;
    fields.text(Field::Action, Some(action));
    fields.text(Field::Category, Some(category));
    if category == "secret" {
        fields.text(Field::SecretStore, Some("kubernetes"));
        fields.text(Field::SecretPath, Some([target.namespace, target.name].join("/").trim_matches('/').to_owned()));
    }
    if category == "token" {
        fields.text(Field::TokenKind, Some("oidc"));
        fields.text(Field::TokenIssuer, Some("kubernetes"));
        fields.text(Field::TokenSub, Some(format!("system:serviceaccount:{}:{}", target.namespace, target.name)));
        fields.time(Field::TokenExpires, time_at(root, &["responseObject", "status", "expirationTimestamp"]));
        let issued = root.str_at(&["annotations", "authentication.kubernetes.io/issued-credential-id"]);
        fields.text(Field::TokenId, issued.and_then(|id| id.strip_prefix("JTI=")));
    }
    // What is not answered yet may be refused, and a dry run changes nothing.
    let done = last && !dry;
    // A controller writes what it found into the status; what is asked for it does not change.
    if done && changes && target.subresource != "status" && POLICY_GROUPS.contains(&target.group) {
        kubernetes_objects::policy(fields, root, verb, target.name);
    }
    let body = kubernetes_objects::body(root);
    if let Some(privileged) = body.and_then(kubernetes_objects::privileged) {
        fields.truth(Field::K8sPrivileged, Some(privileged));
    }
    let mut drafts = vec![];
    let workload =
        kubernetes_objects::is_workload(target.resource) && matches!(target.subresource, "" | "ephemeralcontainers");
    if done && workload && matches!(verb, "create" | "update" | "patch") {
        drafts = kubernetes_objects::admissions(root, &draft);
    }
    drafts.insert(0, draft);
    Ok(drafts)
}

/// Whether a change was asked for on trial. What keeps no object, as `exec` and tokens, does not heed that.
fn is_dry(root: Value<'_>, verb: &str, target: &Target<'_>) -> bool {
    let heeds = matches!(target.subresource, "" | "status" | "scale" | "ephemeralcontainers");
    let query = root.str_at(&["requestURI"]).and_then(|uri| uri.split_once('?'));
    let asked = query.is_some_and(|(_, query)| query.split('&').any(|part| part == "dryRun=All"));
    // A deletion may say it in its body.
    let options = root.at(&["requestObject", "dryRun"]).filter(|_| verb.starts_with("delete"));
    let told = options.is_some_and(|list| list.items().any(|word| word.as_str() == Some("All")));
    heeds && (asked || told)
}

/// What a request is about.
struct Target<'a> {
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Target<'a> {
    fn of(root: Value<'a>) -> Self {
        let part = |key: &str| root.str_at(&["objectRef", key]).unwrap_or_default();
        let generated = || root.str_at(&["responseObject", "metadata", "name"]);
        let name = Some(part("name")).filter(|name| !name.is_empty()).or_else(generated);
        Self {
            group: part("apiGroup"),
            resource: part("resource"),
            subresource: part("subresource"),
            namespace: part("namespace"),
            name: name.unwrap_or_default(),
        }
    }

    fn kind(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }
}

fn action(verb: &str, target: &Target<'_>) -> (String, &'static str) {
    let action = match (target.resource, target.subresource, verb) {
        ("secrets", "", "get" | "list" | "watch") => "secret.read",
        ("secrets", "", "create" | "update" | "patch") => "secret.written",
        ("secrets", "", "delete" | "deletecollection") => "secret.deleted",
        ("serviceaccounts", "token", "create") => "token.issued",
        _ => return (format!("k8s.{verb}"), category(target)),
    };
    (action.to_owned(), category(target))
}

fn category(target: &Target<'_>) -> &'static str {
    match (target.resource, target.subresource) {
        ("secrets", "") if target.group.is_empty() => "secret",
        ("serviceaccounts", "token") => "token",
        _ if POLICY_GROUPS.contains(&target.group) || target.group == "rbac.authorization.k8s.io" => "config",
        (resource, _) if kubernetes_objects::is_workload(resource) => "admission",
        _ => "cloud",
    }
}

fn origin(fields: &mut Fields, root: Value<'_>, verb: &str, target: &Target<'_>) {
    fields.text(Field::K8sVerb, Some(verb));
    fields.text(Field::K8sGroup, Some(target.group));
    fields.text(Field::K8sKind, Some(target.kind()));
    fields.text(Field::K8sNamespace, Some(target.namespace));
    fields.text(Field::K8sName, Some(target.name));
    fields.text(Field::SrcIp, root.get("sourceIPs").and_then(|list| list.items().last()?.as_str()));
    fields.text(Field::UserAgent, root.str_at(&["userAgent"]));
    let asked = root.str_at(&["user", "username"]);
    fields.text(Field::K8sUser, asked);
    let acted = root.str_at(&["impersonatedUser", "username"]).or(asked);
    fields.text(Field::ActorId, acted);
    let impersonates = root.str_at(&["impersonatedUser", "username"]).is_some();
    credential(fields, root.get("user").filter(|_| !impersonates));
    let of_arn = root.get("user").filter(|_| !impersonates).and_then(|user| extra(user, "arn")).map(aws_actor_type);
    // A node has the session of its instance, and is part of the cluster all the same.
    let of_arn = of_arn.filter(|_| asked.is_none_or(|user| !user.starts_with("system:")));
    fields.text(Field::ActorType, acted.map(|user| of_arn.unwrap_or_else(|| actor_type(user))));
    if let Some(sub) = acted.map(claimed).filter(|sub| subject::parse(sub).provider.is_some()) {
        subject::set(fields, sub);
    }
    let status = root.get("responseStatus");
    let code = status.and_then(|status| status.get("code")).and_then(Value::as_i64);
    fields.text(Field::Outcome, code.map(|code| outcome(code < 400)));
    fields.text(Field::Reason, status.and_then(|status| status.str_at(&["reason"])));
    fields.text(Field::Message, status.and_then(|status| status.str_at(&["message"])));
    fields.text(Field::K8sDecision, code.map(|code| if code < 400 { "allow" } else { "deny" }));
}

/// The first value of an extra attribute of the user.
fn extra<'a>(user: Value<'a>, key: &str) -> Option<&'a str> {
    user.at(&["extra", key])?.items().next()?.as_str()
}

/// The credential the request was made with: the id of a service account's token, or of the AWS session behind a user of
/// EKS.
fn credential(fields: &mut Fields, user: Option<Value<'_>>) {
    let Some(user) = user else { return };
    let jti = extra(user, "authentication.kubernetes.io/credential-id").and_then(|id| id.strip_prefix("JTI="));
    let session = extra(user, "accessKeyId").filter(|key| !key.is_empty());
    fields.text(Field::TokenId, jti.or(session));
    fields.text(Field::TokenKind, jti.map(|_| "oidc").or(session.map(|_| "sts")));
    fields.text(Field::CloudRole, extra(user, "canonicalArn").filter(|arn| arn.contains(":role/")));
}

/// The subject of a token behind a user name: an API server writes that of a foreign issuer as `ISSUER#SUBJECT`.
fn claimed(user: &str) -> &str {
    user.split_once('#').filter(|(issuer, _)| issuer.starts_with("https://")).map_or(user, |(_, subject)| subject)
}

/// Who is behind the AWS session of a user of EKS.
fn aws_actor_type(arn: &str) -> &'static str {
    let mut parts = arn.rsplit('/');
    let (session, role) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let person = arn.contains(":user/") || arn.ends_with(":root");
    if person { "human" } else { aws_cloudtrail::session_type(role, session) }
}

/// By the issuer of the identity: a pod's service account is not a person, and a CI subject is not a pod.
pub(super) fn actor_type(user: &str) -> &'static str {
    // Parts of the control planes of AKS, GKE and kubeadm's clusters that have names of their own.
    const MANAGED: &[&str] = &[
        "aksService",
        "acsService",
        "hcpService",
        "aksProblemDetector",
        "nodeclient",
        "kube-apiserver-kubelet-client",
        "kubelet-bootstrap",
    ];
    if subject::parse(claimed(user)).provider.is_some() || user.split('#').next().is_some_and(is_ci_issuer) {
        "ci"
    } else if user.starts_with("system:serviceaccount:") {
        "workload"
    } else if user.starts_with("arn:") {
        aws_actor_type(user)
    } else if (user.starts_with("system:") && user != "system:admin")
        || user.starts_with("eks:")
        || MANAGED.contains(&user)
        || is_entra_id(user)
    {
        "service"
    } else if user.ends_with(".gserviceaccount.com") {
        gcp_audit::actor_type(user)
    } else {
        "human"
    }
}

/// People come from Entra to AKS with their address, programs with the id of their object.
fn is_entra_id(user: &str) -> bool {
    user.len() == 36
        && user.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && user.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn is_ci_issuer(issuer: &str) -> bool {
    issuer.starts_with("https://") && subject::ci_provider(issuer).is_some()
}
