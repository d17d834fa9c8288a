//! AWS CloudTrail records.
//!
//! Source: AWS "CloudTrail record contents" and measured samples. `sourceIPAddress` may be a service's name; error
//! codes are the outcome; `AssumeRoleWithWebIdentity` names the OIDC subject and returns the `ASIA…` key id that every
//! later call shows.

use std::time::Duration;

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, ORIGIN, Undecodable, aws_guards, claims, images, object, outcome, scalar, subject, time_at};

const EXPECTED: &str = "a CloudTrail record";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let (Some(event), Some(source)) = (root.str_at(&["eventName"]), root.str_at(&["eventSource"])) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `eventName` and `eventSource`" });
    };
    let service = source.strip_suffix(".amazonaws.com").unwrap_or(source);
    let mut draft = Draft::new("cloud.api", "cloud");
    draft.time = time_at(root, &["eventTime"]);
    origin(&mut draft.fields, root, service, event);
    let request = root.get("requestParameters").unwrap_or(root);
    let answer = root.get("responseElements").unwrap_or(root);
    match (service, event) {
        ("sts", "AssumeRoleWithWebIdentity") => {
            issued(&mut draft, root, request, answer);
            federated(&mut draft.fields, root, answer);
            session(&mut draft.fields, request);
        }
        ("eks-auth", "AssumeRoleForPodIdentity") => {
            issued(&mut draft, root, request, answer);
            draft.fields.text(Field::ActorType, Some("workload"));
            draft.fields.text(Field::K8sCluster, request.str_at(&["clusterName"]));
        }
        ("sts", "AssumeRole" | "AssumeRoleWithSAML" | "GetSessionToken" | "GetFederationToken") => {
            issued(&mut draft, root, request, answer);
        }
        ("secretsmanager", "GetSecretValue" | "BatchGetSecretValue") => {
            secret(&mut draft, "secret.read", request, service)
        }
        ("secretsmanager", "CreateSecret" | "PutSecretValue" | "UpdateSecret") => {
            secret(&mut draft, "secret.written", request, service);
        }
        ("secretsmanager", "DeleteSecret") => secret(&mut draft, "secret.deleted", request, service),
        ("ssm", "GetParameter" | "GetParameters" | "GetParametersByPath" | "GetParameterHistory") => {
            secret(&mut draft, "secret.read", request, service)
        }
        ("ssm", "PutParameter") => secret(&mut draft, "secret.written", request, service),
        ("ssm", "DeleteParameter" | "DeleteParameters") => secret(&mut draft, "secret.deleted", request, service),
        ("kms", "Decrypt") => kms_decrypt(&mut draft, root, request),
        ("kms", "Sign" | "GenerateMac") => {
            kms_decrypt(&mut draft, root, request);
            name(&mut draft.fields, "key.used", "signing");
        }
        (
            "iam",
            "CreateAccessKey" | "CreateServiceSpecificCredential" | "UploadSSHPublicKey" | "CreateLoginProfile",
        ) => {
            credential_created(&mut draft, request, answer, event);
        }
        ("ecr" | "ecr-public", "PutImage") => image_pushed(&mut draft, request, answer),
        _ => aws_guards::decode(&mut draft, request, service, event),
    }
    let further = further(&draft, request);
    let mut drafts = vec![draft];
    drafts.extend(further);
    Ok(drafts)
}

pub(super) fn name(fields: &mut Fields, action: &str, category: &str) {
    fields.text(Field::Action, Some(action));
    fields.text(Field::Category, Some(category));
}

fn origin(fields: &mut Fields, root: Value<'_>, service: &str, event: &str) {
    fields.text(Field::CloudProvider, Some("aws"));
    fields.text(Field::CloudService, Some(service));
    fields.text(Field::CloudRegion, root.str_at(&["awsRegion"]));
    fields.text(Field::Message, Some(event));
    fields.text(Field::UserAgent, root.str_at(&["userAgent"]));
    // A service that calls on somebody's behalf shows its name instead of an address.
    let address = root.str_at(&["sourceIPAddress"]).filter(|text| text.parse::<std::net::IpAddr>().is_ok());
    fields.text(Field::SrcIp, address);
    let error = root.str_at(&["errorCode"]);
    // The console reports a failed sign-in in its answer.
    let refused = root
        .at(&["responseElements"])
        .is_some_and(|answer| answer.entries().any(|(key, value)| key == event && value.as_str() == Some("Failure")));
    fields.text(Field::Outcome, Some(outcome(error.is_none() && !refused)));
    fields.text(Field::Reason, error);

    let identity = root.get("userIdentity").unwrap_or(root);
    let account = root.str_at(&["recipientAccountId"]).or_else(|| identity.str_at(&["accountId"]));
    fields.text(Field::CloudAccount, account);
    fields.text(Field::CloudRole, identity.str_at(&["sessionContext", "sessionIssuer", "arn"]));
    // An empty one names nobody; a sign-in of IAM Identity Center has a user of its directory and no principal.
    let names =
        [&["arn"][..], &["userName"], &["principalId"], &["invokedBy"], &["onBehalfOf", "userId"], &["accountId"]];
    let name = names.iter().find_map(|path| identity.str_at(path).filter(|name| !name.is_empty()));
    fields.text(Field::ActorId, name);
    let kind = actor_type(identity);
    fields.text(Field::ActorType, Some(kind).filter(|_| fields.get(Field::ActorId).is_some()));
    let provider = identity.str_at(&["sessionContext", "webIdFederationData", "federatedProvider"]);
    fields.text(Field::CiProvider, provider.and_then(subject::ci_provider));
    if let Some(key) = identity.str_at(&["accessKeyId"]).filter(|key| !key.is_empty()) {
        fields.text(Field::TokenId, Some(key));
        fields.text(Field::TokenKind, Some(if key.starts_with("ASIA") { "sts" } else { "static" }));
    }
}

fn actor_type(identity: Value<'_>) -> &'static str {
    let federated = identity.str_at(&["sessionContext", "webIdFederationData", "federatedProvider"]);
    let web = identity.str_at(&["type"]) == Some("WebIdentityUser");
    let issuer = federated.or_else(|| identity.str_at(&["identityProvider"]).filter(|_| web));
    if let Some(issuer) = issuer {
        // As when the session was issued: what no CI system vouches for is something that runs.
        return subject::actor_type(issuer).unwrap_or("workload");
    }
    let principal = identity.str_at(&["principalId"]).unwrap_or_default();
    let session = principal.split_once(':').map_or("", |(_, session)| session);
    let role = identity.str_at(&["sessionContext", "sessionIssuer", "userName"]).unwrap_or_default();
    // Newer records name what credentials were issued to: a function, an instance, a pod.
    if identity.str_at(&["inScopeOf", "credentialsIssuedTo"]).is_some() {
        return "workload";
    }
    match identity.str_at(&["type"]).unwrap_or_default() {
        // A service that calls with somebody's session (`invokedBy`) calls as that somebody.
        "IAMUser" | "Root" | "IdentityCenterUser" | "SAMLUser" => "human",
        // IAM Identity Center's own sign-ins.
        "Unknown" if identity.str_at(&["userName"]).is_some_and(|name| name.contains('@')) => "human",
        "AssumedRole" => session_type(role, session),
        // Somebody of another account: a user's id begins with these letters, a role's with `AROA`.
        "AWSAccount" if principal.starts_with("AIDA") => "human",
        "AWSAccount" => session_type("", session),
        _ => "service",
    }
}

/// Who is behind a session of a role, by the role and by the name that what started the session gave it.
pub(super) fn session_type(role: &str, session: &str) -> &'static str {
    // IAM Identity Center's roles, and what its and others' federation names after an address.
    if role.starts_with("AWSReservedSSO_") || session.contains('@') {
        return "human";
    }
    if session.starts_with("AWSCodeBuild-") {
        return "ci";
    }
    // An instance's profile, an EKS pod's identity, an ECS task's role.
    let task = session.len() == 32 && session.bytes().all(|byte| byte.is_ascii_hexdigit());
    if session.starts_with("i-") || session.starts_with("eks-") || task { "workload" } else { "service" }
}

/// A new session: its key id is the token.
fn issued(draft: &mut Draft, root: Value<'_>, request: Value<'_>, answer: Value<'_>) {
    let time = draft.time;
    let fields = &mut draft.fields;
    name(fields, "token.issued", "token");
    fields.text(Field::TokenKind, Some("sts"));
    fields.text(Field::TokenIssuer, Some("sts.amazonaws.com"));
    if let Some(key) = answer.str_at(&["credentials", "accessKeyId"]) {
        fields.text(Field::TokenId, Some(key));
    }
    let secs = request.at(&["durationSeconds"]).and_then(Value::as_u64).unwrap_or(3_600);
    if root.str_at(&["errorCode"]).is_none() {
        fields.time(Field::TokenExpires, time.map(|time| time.plus(Duration::from_secs(secs))));
    }
    fields.text(Field::CloudRole, request.str_at(&["roleArn"]));
}

fn federated(fields: &mut Fields, root: Value<'_>, answer: Value<'_>) {
    let identity = root.get("userIdentity").unwrap_or(root);
    let issuer = answer.str_at(&["provider"]).or_else(|| identity.str_at(&["identityProvider"]));
    fields.text(Field::TokenIssuer, issuer.map(plain_issuer));
    // `<provider>:<audience>:<subject>`; the subject itself holds colons.
    let audience = identity
        .str_at(&["principalId"])
        .zip(issuer)
        .and_then(|(id, issuer)| id.strip_prefix(issuer)?.strip_prefix(':')?.split(':').next());
    fields.text(Field::TokenAud, answer.str_at(&["audience"]).or(audience));
    let sub = answer.str_at(&["subjectFromWebIdentityToken"]).or_else(|| identity.str_at(&["userName"]));
    if let Some(sub) = sub {
        subject::set(fields, sub);
        fields.text(Field::ActorId, Some(sub));
    }
    if let Some(issuer) = issuer {
        fields.text(Field::CiProvider, subject::ci_provider(issuer));
        fields.text(Field::ActorType, Some(subject::actor_type(issuer).unwrap_or("workload")));
    }
}

/// What a CI system puts into the session: claims as its tags, and, at Buildkite, the job as its name.
fn session(fields: &mut Fields, request: Value<'_>) {
    let provider = fields.get_text(Field::CiProvider).map(str::to_owned);
    if let Some(tags) = request.get("principalTags") {
        claims::set(fields, tags, provider.as_deref());
    }
    let is_id = |name: &&str| name.len() == 36 && name.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    let name = request.str_at(&["roleSessionName"]).filter(is_id);
    if provider.as_deref() == Some("buildkite") && fields.get(Field::CiJobId).is_none() {
        fields.text(Field::CiJobId, name);
    }
}

/// The issuer's own name, whether given as such or as the ARN of a provider.
fn plain_issuer(issuer: &str) -> String {
    issuer.split_once(":oidc-provider/").map_or(issuer, |(_, host)| host).to_owned()
}

fn secret(draft: &mut Draft, action: &str, request: Value<'_>, service: &str) {
    let fields = &mut draft.fields;
    name(fields, action, "secret");
    fields.text(Field::SecretStore, Some(format!("aws.{service}")));
    let path = ["secretId", "name", "path"].iter().find_map(|key| scalar(request, &[key]));
    let listed = || {
        let names = ["names", "secretIdList"].iter().find_map(|list| request.get(list))?;
        names.items().find_map(Value::as_str).map(str::to_owned)
    };
    fields.text(Field::SecretPath, path.or_else(listed));
    fields.text(Field::SecretVersion, scalar(request, &["versionId"]).or_else(|| scalar(request, &["versionStage"])));
}

/// The parameters a call names behind the first, each an event: ten that one call reads are as many as ten calls do. Of a batch of
/// Secrets Manager CloudTrail has a record for each secret anyway.
fn further(draft: &Draft, request: Value<'_>) -> Vec<Draft> {
    let action = draft.fields.get_text(Field::Action).unwrap_or_default();
    let names = request.get("names").filter(|_| draft.fields.get_text(Field::SecretStore) == Some("aws.ssm"));
    let kept = [
        ORIGIN,
        &[Field::Reason, Field::TokenId, Field::TokenKind, Field::CloudService, Field::CloudRole, Field::Message],
    ]
    .concat();
    let one = |name: &str| {
        let mut one = draft.derive(&kept, action, "secret");
        one.fields.text(Field::SecretPath, Some(name));
        one
    };
    names.into_iter().flat_map(Value::items).filter_map(Value::as_str).skip(1).map(one).collect()
}

fn kms_decrypt(draft: &mut Draft, root: Value<'_>, request: Value<'_>) {
    let fields = &mut draft.fields;
    name(fields, "secret.read", "secret");
    fields.text(Field::SecretStore, Some("aws.kms"));
    let context = request.get("encryptionContext");
    let named = ["SecretARN", "PARAMETER_ARN"].iter().find_map(|key| context?.str_at(&[key]));
    let key = || root.get("resources")?.items().find_map(|resource| resource.str_at(&["ARN"]));
    fields.text(Field::SecretPath, named.or_else(|| request.str_at(&["keyId"])).or_else(key));
}

fn credential_created(draft: &mut Draft, request: Value<'_>, answer: Value<'_>, event: &str) {
    let fields = &mut draft.fields;
    name(fields, "token.created", "token");
    fields.text(Field::TokenKind, Some("static"));
    fields.text(Field::TokenIssuer, Some("iam.amazonaws.com"));
    let ids = [
        &["accessKey", "accessKeyId"][..],
        &["serviceSpecificCredential", "serviceSpecificCredentialId"],
        &["sSHPublicKey", "sSHPublicKeyId"],
    ];
    if let Some(id) = ids.iter().find_map(|path| answer.str_at(path)) {
        fields.text(Field::TokenId, Some(id));
    }
    fields.text(Field::ConfigId, request.str_at(&["userName"]).or_else(|| answer.str_at(&["accessKey", "userName"])));
    fields.text(Field::ConfigAttribute, Some(event));
}

fn image_pushed(draft: &mut Draft, request: Value<'_>, answer: Value<'_>) {
    let fields = &mut draft.fields;
    name(fields, "artifact.published", "registry");
    let digest = answer.str_at(&["image", "imageId", "imageDigest"]).or_else(|| request.str_at(&["imageDigest"]));
    fields.text(Field::ArtifactDigest, digest.filter(|digest| images::is_digest(digest)));
    let repo = request.str_at(&["repositoryName"]);
    fields.text(Field::ArtifactRepo, repo);
    let tag = answer.str_at(&["image", "imageId", "imageTag"]).or_else(|| request.str_at(&["imageTag"]));
    fields
        .text(Field::ArtifactName, repo.map(|repo| tag.map_or_else(|| repo.to_owned(), |tag| format!("{repo}:{tag}"))));
}
