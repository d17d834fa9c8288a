//! What a call of a Google Cloud interface means: credentials, secrets, keys, and the guards themselves.

use engine::fields::{Field, Fields};
use engine::json::Value;
use pipeproof_engine as engine;

use super::gcp_audit::{actor_type, federated, first, part};
use super::subject;

/// Names the event by service and method, where either tells more than that an interface was called.
pub(super) fn decode(fields: &mut Fields, root: Value<'_>, payload: Value<'_>, method: &str) {
    let service = fields.get_text(Field::CloudService).unwrap_or_default().to_owned();
    let call = method.rsplit('.').next().unwrap_or(method);
    match (service.as_str(), call) {
        ("sts", _) | (_, "ExchangeToken") => exchanged(fields, payload),
        ("iamcredentials", _) | (_, "GenerateAccessToken" | "GenerateIdToken" | "SignJwt" | "SignBlob") => {
            impersonated(fields, root, payload, call)
        }
        ("iam", "CreateServiceAccountKey" | "UploadServiceAccountKey") => key_created(fields, root, payload),
        ("iam", "DeleteServiceAccountKey" | "DisableServiceAccountKey") => {
            name(fields, "token.revoked", "token");
            let key = payload.str_at(&["resourceName"]).and_then(|name| part(name, "keys"));
            fields.text(Field::TokenId, key);
        }
        ("secretmanager", _) => secret_manager(fields, payload, call),
        ("cloudkms", _) => key_management(fields, payload, call),
        ("logging", _) => logging(fields, payload, call),
        (_, "SetIamPolicy") => audit_config(fields, payload),
        _ => {}
    }
}

fn name(fields: &mut Fields, action: &str, category: &str) {
    fields.text(Field::Action, Some(action));
    fields.text(Field::Category, Some(category));
}

/// A token of another issuer was exchanged for one of Google's.
fn exchanged(fields: &mut Fields, payload: Value<'_>) {
    name(fields, "token.issued", "token");
    fields.text(Field::TokenKind, Some("sts"));
    fields.text(Field::TokenIssuer, Some("sts.googleapis.com"));
    let provider = payload.str_at(&["resourceName"]);
    fields.text(Field::TokenAud, payload.str_at(&["request", "audience"]).or(provider));
    let sub = payload.str_at(&["authenticationInfo", "principalSubject"]);
    let principal = payload.str_at(&["metadata", "mapped_principal"]);
    // The principal is what later calls name; the subject is the token's own.
    fields.text(Field::ActorId, principal.or(sub));
    if let Some(sub) = sub.map(|sub| federated(sub).unwrap_or(sub)) {
        subject::set(fields, sub);
        let kind = if subject::parse(sub).provider.is_some() { "ci" } else { principal.map_or("workload", actor_type) };
        fields.text(Field::ActorType, Some(kind));
    }
}

/// A token of a service account was made for somebody else.
fn impersonated(fields: &mut Fields, root: Value<'_>, payload: Value<'_>, call: &str) {
    let account = root.str_at(&["resource", "labels", "email_id"]).map(ToOwned::to_owned);
    let requested = || first(payload, &[&["request", "name"], &["resourceName"]]);
    let account =
        account.or_else(|| requested().and_then(|name| part(&name, "serviceAccounts").map(ToOwned::to_owned)));
    fields.text(Field::CloudRole, account);
    match call {
        "SignBlob" => return name(fields, "key.used", "signing"),
        "GenerateIdToken" | "SignJwt" => {
            fields.text(Field::TokenAud, payload.str_at(&["request", "audience"]));
            fields.text(Field::TokenKind, Some("oidc"));
        }
        _ => fields.text(Field::TokenKind, Some("sts")),
    }
    name(fields, "token.issued", "token");
    fields.text(Field::TokenIssuer, Some("iamcredentials.googleapis.com"));
}

fn key_created(fields: &mut Fields, root: Value<'_>, payload: Value<'_>) {
    name(fields, "token.created", "token");
    fields.text(Field::TokenKind, Some("static"));
    fields.text(Field::TokenIssuer, Some("iam.googleapis.com"));
    let key = payload.str_at(&["response", "name"]).and_then(|name| part(name, "keys"));
    fields.text(Field::TokenId, key);
    let account = root.str_at(&["resource", "labels", "email_id"]);
    fields.text(Field::ConfigId, account.or_else(|| payload.str_at(&["resourceName"])));
}

fn secret_manager(fields: &mut Fields, payload: Value<'_>, call: &str) {
    let action = match call {
        "AccessSecretVersion" => "secret.read",
        "AddSecretVersion" | "CreateSecret" | "UpdateSecret" | "EnableSecretVersion" => "secret.written",
        "DeleteSecret" | "DestroySecretVersion" | "DisableSecretVersion" => "secret.deleted",
        "ListSecrets" | "ListSecretVersions" | "GetSecret" | "GetSecretVersion" => "secret.list",
        "SetIamPolicy" => return guard(fields, payload, "gcp.secretmanager", opens(payload)),
        _ => return,
    };
    name(fields, action, "secret");
    fields.text(Field::SecretStore, Some("gcp.secretmanager"));
    let resource =
        first(payload, &[&["resourceName"], &["request", "name"], &["request", "parent"]]).unwrap_or_default();
    let (path, version) = match resource.split_once("/versions/") {
        Some((path, version)) => (path, Some(version)),
        None => (resource.as_str(), None),
    };
    fields.text(Field::SecretPath, Some(path));
    fields.text(Field::SecretVersion, version);
}

fn key_management(fields: &mut Fields, payload: Value<'_>, call: &str) {
    match call {
        "Decrypt" | "AsymmetricDecrypt" | "RawDecrypt" => name(fields, "secret.read", "secret"),
        "AsymmetricSign" | "MacSign" | "Encrypt" | "RawEncrypt" => name(fields, "key.used", "signing"),
        "DestroyCryptoKeyVersion" => return guard(fields, payload, "gcp.kms", true),
        "UpdateCryptoKeyVersion" => {
            let state = payload.str_at(&["request", "cryptoKeyVersion", "state"]);
            return guard(fields, payload, "gcp.kms", state == Some("DISABLED"));
        }
        "SetIamPolicy" => return guard(fields, payload, "gcp.kms", opens(payload)),
        _ => return,
    }
    fields.text(Field::SecretStore, Some("gcp.kms"));
    fields.text(Field::SecretPath, payload.str_at(&["resourceName"]));
}

fn guard(fields: &mut Fields, payload: Value<'_>, store: &str, weakens: bool) {
    name(fields, if weakens { "secret_store.weakened" } else { "secret_store.changed" }, "config");
    fields.text(Field::ConfigObject, Some("secret_store"));
    fields.text(Field::SecretStore, Some(store));
    setting(fields, payload, weakens);
}

fn setting(fields: &mut Fields, payload: Value<'_>, weakens: bool) {
    fields.text(Field::ConfigId, payload.str_at(&["resourceName"]));
    let method = payload.str_at(&["methodName"]).and_then(|method| method.rsplit('.').next());
    fields.text(Field::ConfigAttribute, method);
    fields.truth(Field::ConfigWeakens, Some(weakens));
}

/// Whether the written policy lets everybody in.
fn opens(payload: Value<'_>) -> bool {
    let policy = payload.at(&["request", "policy"]).map(Value::compact).unwrap_or_default();
    policy.contains("\"allUsers\"") || policy.contains("\"allAuthenticatedUsers\"")
}

fn logging(fields: &mut Fields, payload: Value<'_>, call: &str) {
    let (action, weakens) = match call {
        "DeleteSink" | "DeleteBucket" | "DeleteLog" | "DeleteView" => ("audit_log.disabled", true),
        "CreateExclusion" => ("audit_log.changed", true),
        "UpdateSink" => {
            let sink = payload.at(&["request", "sink"]);
            let disabled = sink.and_then(|sink| sink.get("disabled")).and_then(Value::as_bool) == Some(true);
            let excludes =
                sink.and_then(|sink| sink.get("exclusions")).is_some_and(|list| list.items().next().is_some());
            (if disabled { "audit_log.disabled" } else { "audit_log.changed" }, disabled || excludes)
        }
        "UpdateExclusion" | "UpdateBucket" => ("audit_log.changed", false),
        "CreateSink" | "UndeleteBucket" => ("audit_log.enabled", false),
        _ => return,
    };
    audit_log(fields, payload, action, weakens);
}

fn audit_log(fields: &mut Fields, payload: Value<'_>, action: &str, weakens: bool) {
    name(fields, action, "audit");
    fields.text(Field::ConfigObject, Some("audit_log"));
    setting(fields, payload, weakens);
}

/// A policy may also say what is logged.
fn audit_config(fields: &mut Fields, payload: Value<'_>) {
    let deltas = payload.at(&["serviceData", "policyDelta", "auditConfigDeltas"]);
    let deltas: Vec<_> = deltas.into_iter().flat_map(Value::items).collect();
    if deltas.is_empty() {
        return;
    }
    // `REMOVE` takes a kind of log away; an added exemption leaves somebody out.
    let weakens = deltas.iter().any(|delta| {
        let removed = delta.str_at(&["action"]) == Some("REMOVE");
        let exempted = delta.str_at(&["exemptedMember"]).is_some();
        removed != exempted
    });
    audit_log(fields, payload, "audit_log.changed", weakens);
}
