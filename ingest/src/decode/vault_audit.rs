//! HashiCorp Vault audit entries (file, syslog and socket devices, JSON).
//!
//! Source: hashicorp/vault `audit/types.go`. Values are HMACs unless `log_raw` is set; accessors are HMACs too unless
//! `hmac_accessor=false`, and join within one device. `request` and `response` entries describe the same call: the
//! response carries the meaning, because only it knows the outcome.

use std::time::Duration;

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, ORIGIN, Undecodable, claims, object, outcome, scalar, subject, time_at};

const EXPECTED: &str = "a Vault audit entry";

/// Where engines answer with their configuration or with what is public, and not with a secret: the first part below the mount.
const CONFIGURATION: &[&str] = &[
    "roles",
    "role",
    "static-roles",
    "static-role",
    "config",
    "keys",
    "cert",
    "ca",
    "ca_chain",
    "crl",
    "issuer",
    "issuers",
];

/// What a path and operation mean.
struct Meaning {
    action: String,
    category: &'static str,
    /// Weakens or changes something that guards secrets: said in the request entry too, because the device that is
    /// switched off does not log the response.
    guard: Option<Guard>,
}

struct Guard {
    object: &'static str,
    attribute: &'static str,
    weakens: Option<bool>,
}

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let kind = root.str_at(&["type"]).unwrap_or_default();
    let request = root.get("request").filter(|request| request.is_object());
    let Some(request) = request.filter(|_| kind.ends_with("request") || kind.ends_with("response")) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `type` and `request`" });
    };
    let path = request.str_at(&["path"]).unwrap_or_default();
    let operation = request.str_at(&["operation"]).unwrap_or_default();
    let response = kind.ends_with("response");
    let meaning = meaning(request, path, operation);
    let action = if response || meaning.guard.is_some() { meaning.action.as_str() } else { "vault.request" };
    let mut draft = Draft::new(action, meaning.category);
    draft.time = time_at(root, &["time"]);
    origin(&mut draft.fields, root, request, response);
    let fields = &mut draft.fields;
    if meaning.category == "secret" {
        fields.text(Field::SecretPath, Some(secret_path(request, path)));
        fields.text(Field::SecretVersion, scalar(root, &["response", "data", "metadata", "version"]));
    }
    if meaning.category == "token" {
        token(&mut draft, root, request, path, &meaning.action);
    }
    let mut drafts = vec![];
    if let Some(guard) = &meaning.guard {
        let id = path.splitn(3, '/').nth(2).unwrap_or(path);
        set_guard(&mut draft.fields, guard, id);
        if guard.object == "audit_log" && guard.weakens == Some(true) {
            let mut weakened = draft.derive(ORIGIN, "secret_store.weakened", "config");
            set_guard(&mut weakened.fields, &Guard { object: "secret_store", attribute: "audit", ..*guard }, id);
            drafts.push(weakened);
        }
    }
    drafts.insert(0, draft);
    Ok(drafts)
}

fn set_guard(fields: &mut Fields, guard: &Guard, id: &str) {
    fields.text(Field::ConfigObject, Some(guard.object));
    fields.text(Field::ConfigId, Some(id));
    fields.text(Field::ConfigAttribute, Some(guard.attribute));
    fields.truth(Field::ConfigWeakens, guard.weakens);
}

fn origin(fields: &mut Fields, root: Value<'_>, request: Value<'_>, response: bool) {
    fields.text(Field::SecretStore, Some("vault"));
    fields.text(Field::TokenIssuer, Some("vault"));
    // Some entry types write the port with the address.
    let address = request.str_at(&["remote_address"]);
    fields.text(Field::SrcIp, address.map(without_port));
    let error = root.str_at(&["error"]).filter(|error| !error.is_empty());
    let denied = root.at(&["auth", "policy_results", "allowed"]).and_then(Value::as_bool) == Some(false);
    if response || error.is_some() || denied {
        fields.text(Field::Outcome, Some(outcome(error.is_none() && !denied)));
        fields.text(Field::Reason, error.or_else(|| denied.then_some("denied by policy")));
    }
    fields.text(Field::Message, request.str_at(&["path"]));
    // At a login the identity is in the response; afterwards in `auth`.
    let of_response = root.at(&["response", "auth"]).filter(|auth| auth.is_object());
    let Some(auth) = of_response.or_else(|| root.get("auth")) else { return };
    let metadata = auth.get("metadata").unwrap_or(auth);
    let display = auth.str_at(&["display_name"]).unwrap_or_default();
    fields.text(Field::ActorId, Some(display).filter(|name| !name.is_empty()).or_else(|| auth.str_at(&["entity_id"])));
    fields.text(Field::TokenId, auth.str_at(&["accessor"]));
    fields.text(Field::TokenKind, Some("vault"));
    fields.text(Field::CloudRole, metadata.str_at(&["role"]));
    // What a role maps into the metadata are claims of the token that was presented, under their own names.
    if let Some(sub) = metadata.str_at(&["sub"]).or_else(|| metadata.str_at(&["subject"])) {
        subject::set(fields, sub);
    }
    let issuer = metadata.str_at(&["iss"]).or_else(|| metadata.str_at(&["issuer"])).and_then(subject::ci_provider);
    fields.text(Field::CiProvider, issuer.or_else(|| claims::provider(metadata)));
    let provider = fields.get_text(Field::CiProvider).map(str::to_owned);
    claims::set(fields, metadata, provider.as_deref());
    let ci = fields.get(Field::CiProvider).is_some();
    // At a login the mount is that of the method; later it is that of what was read.
    let method = of_response.and_then(|_| request.str_at(&["mount_type"])).unwrap_or_default();
    // Of a login that failed nobody is known.
    let known = ci || fields.get(Field::ActorId).is_some();
    fields.text(Field::ActorType, known.then(|| actor_type(ci, method, display, metadata)));
}

/// Whether a service account of Kubernetes stands behind a token: by the Kubernetes method, or as the subject or issuer of a
/// JWT.
fn is_pod(metadata: Value<'_>) -> bool {
    let subject = metadata.str_at(&["sub"]).or_else(|| metadata.str_at(&["subject"]));
    let issuer = metadata.str_at(&["iss"]).or_else(|| metadata.str_at(&["issuer"]));
    metadata.get("service_account_name").is_some()
        || issuer.and_then(subject::actor_type) == Some("workload")
        || subject.is_some_and(|sub| sub.starts_with("system:serviceaccount:"))
}

/// By the claims of a CI system, the method of the login, or what only one method writes into the metadata. A display name
/// begins with the path of the mount, which anybody may call anything: it is asked last, and only for names of methods
/// that nobody gives to another.
fn actor_type(ci: bool, method: &str, display: &str, metadata: Value<'_>) -> &'static str {
    const HUMAN: &[&str] = &["userpass", "ldap", "oidc", "okta", "github", "radius", "saml", "kerberos"];
    const WORKLOAD: &[&str] = &["kubernetes", "aws", "gcp", "azure", "alicloud", "oci", "cf", "spiffe"];
    const OF_CLOUDS: &[&str] = &["service_account_email", "client_arn", "subscription_id", "instance_id"];
    let named = |methods: &[&str]| {
        methods.iter().any(|name| {
            // `github-actions-…` is a mount for JWTs of jobs as often as GitHub's people are at `github`.
            let mount = *name != "github" && display.strip_prefix(*name).is_some_and(|rest| rest.starts_with('-'));
            method == *name || (method.is_empty() && mount)
        })
    };
    let has = |key: &str| metadata.get(key).is_some();
    if ci {
        "ci"
    } else if is_pod(metadata) || named(WORKLOAD) || OF_CLOUDS.iter().any(|key| has(key)) {
        "workload"
    } else if display == "root" || named(HUMAN) || has("username") || has("email") {
        "human"
    } else {
        "service"
    }
}

fn without_port(address: &str) -> &str {
    match address.rsplit_once(':') {
        // An IPv6 address without a port holds colons of its own.
        Some((host, port)) if !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some((host, _)) if host.starts_with('[') && host.ends_with(']') => host.trim_matches(['[', ']']),
        _ => address,
    }
}

fn meaning(request: Value<'_>, path: &str, operation: &str) -> Meaning {
    let write = matches!(operation, "create" | "update" | "patch");
    let delete = operation == "delete";
    let plain = |action: &str, category| Meaning { action: action.to_owned(), category, guard: None };
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["sys", "audit", ..] if delete || write => {
            let guard = Guard { object: "audit_log", attribute: "audit_device", weakens: Some(delete) };
            let action = if delete { "audit_log.disabled" } else { "audit_log.enabled" };
            Meaning { action: action.to_owned(), category: "audit", guard: Some(guard) }
        }
        ["sys", rest @ ..] => sys(rest, request, operation, write, delete),
        ["auth", "token", "revoke" | "revoke-self" | "revoke-accessor" | "revoke-orphan", ..] => {
            plain("token.revoked", "token")
        }
        ["auth", "token", "create" | "create-orphan", ..] if write => plain("token.issued", "token"),
        ["auth", "token", "renew" | "renew-self" | "renew-accessor", ..] => plain("token.renewed", "token"),
        ["auth", "token", "lookup" | "lookup-self" | "lookup-accessor", ..] => plain("token.used", "token"),
        ["auth", .., "role", _, "secret-id"] if write => plain("token.created", "token"),
        ["auth", _, "login", ..] | ["auth", _, _, "login", ..] if write => plain("token.issued", "token"),
        ["auth" | "identity" | "cubbyhole", ..] => plain(&format!("vault.{operation}"), "cloud"),
        [_, "decrypt", ..] if is_transit(request, path) => plain("secret.read", "secret"),
        [_, "sign" | "encrypt" | "hmac" | "datakey", ..] if is_transit(request, path) => plain("key.used", "signing"),
        [_, "sign" | "issue", ..] if request.str_at(&["mount_type"]) == Some("pki") => plain("key.used", "signing"),
        _ => match (of_engine(request, path, operation, write), operation) {
            (Some((action, category)), _) => plain(action, category),
            (None, "read") => plain("secret.read", "secret"),
            (None, "list") => plain("secret.list", "secret"),
            (None, "delete") => plain("secret.deleted", "secret"),
            (None, _) if write => plain("secret.written", "secret"),
            (None, other) => plain(&format!("vault.{other}"), "cloud"),
        },
    }
}

/// What a call to an engine means where it reads no secret, or makes one although it writes: action and category.
fn of_engine(request: Value<'_>, path: &str, operation: &str, write: bool) -> Option<(&'static str, &'static str)> {
    let (_, inside) = mounted(request, path);
    let part = inside.split('/').next().unwrap_or_default();
    match (request.str_at(&["mount_type"])?, part) {
        // Version 2 of the key-value engine tells here what is known of a secret, without its values.
        ("kv", "metadata") if operation == "read" => Some(("secret.list", "secret")),
        // Below a mount of theirs secrets are named as people like.
        ("kv" | "generic", _) => None,
        ("aws" | "kubernetes", "creds" | "sts") if write => Some(("secret.read", "secret")),
        _ if operation == "read" && CONFIGURATION.contains(&part) => Some(("vault.read", "cloud")),
        _ => None,
    }
}

fn is_transit(request: Value<'_>, path: &str) -> bool {
    match request.str_at(&["mount_type"]) {
        Some(kind) => kind == "transit",
        None => path.starts_with("transit/"),
    }
}

/// Paths below `sys/`.
fn sys(rest: &[&str], request: Value<'_>, operation: &str, write: bool, delete: bool) -> Meaning {
    let changed = |action: &str, attribute, weakens| Meaning {
        action: action.to_owned(),
        category: "config",
        guard: Some(Guard { object: "secret_store", attribute, weakens }),
    };
    match rest {
        ["policies" | "policy", ..] if write || delete => {
            // What Sentinel's policies forbid is free without them. An ACL policy grants, and what it denied cannot be told.
            let guards = matches!(rest, ["policies", "egp" | "rgp", ..]);
            let text = request.str_at(&["data", "policy"]).or_else(|| request.str_at(&["data", "rules"]));
            // Without `log_raw` the text is an HMAC, and whether it grants more cannot be told.
            let weakens = match text.filter(|text| !text.starts_with("hmac-sha256:")) {
                _ if delete => guards.then_some(true),
                Some(text) => {
                    Some(text.contains("sudo") || text.contains("path \"*\"") || text.contains("path \"+/*\""))
                }
                None => None,
            };
            let action = if weakens == Some(true) { "secret_store.weakened" } else { "secret_store.changed" };
            changed(action, "policy", weakens)
        }
        ["seal"] if write => changed("secret_store.weakened", "seal", Some(true)),
        ["auth", ..] if delete => changed("secret_store.weakened", "auth", Some(true)),
        ["mounts", ..] if delete => changed("secret_store.weakened", "mount", Some(true)),
        ["rekey" | "rekey-recovery-key", ..] if write => changed("secret_store.weakened", "rekey", Some(true)),
        ["generate-root", ..] if write => changed("secret_store.weakened", "generate-root", Some(true)),
        ["raw", ..] => changed("secret_store.weakened", "raw", Some(true)),
        ["config", "auditing" | "cors" | "ui" | "control-group", ..] if write || delete => {
            changed("secret_store.weakened", "config", Some(true))
        }
        ["auth" | "mounts", ..] if write => changed("secret_store.changed", "mount", None),
        ["leases", "revoke" | "revoke-prefix" | "revoke-force", ..]
        | ["revoke" | "revoke-prefix" | "revoke-force", ..] => {
            Meaning { action: "token.revoked".to_owned(), category: "token", guard: None }
        }
        _ => Meaning { action: format!("vault.{operation}"), category: "cloud", guard: None },
    }
}

fn token(draft: &mut Draft, root: Value<'_>, request: Value<'_>, path: &str, action: &str) {
    let time = draft.time;
    let fields = &mut draft.fields;
    if let Some(issued) = root.at(&["response", "auth"]).filter(|auth| auth.is_object()) {
        fields.text(Field::TokenId, issued.str_at(&["accessor"]));
        let ttl = issued.at(&["token_ttl"]).or_else(|| issued.get("lease_duration")).and_then(Value::as_u64);
        let expires = ttl.filter(|ttl| *ttl > 0).zip(time).map(|(ttl, time)| time.plus(Duration::from_secs(ttl)));
        fields.time(Field::TokenExpires, expires);
    }
    if action == "token.created" {
        // A secret id that expires is no key that stays.
        let ttl = root.at(&["response", "data", "secret_id_ttl"]).and_then(Value::as_u64).filter(|ttl| *ttl > 0);
        let expires = ttl.zip(time).map(|(ttl, time)| time.plus(Duration::from_secs(ttl)));
        fields.time(Field::TokenExpires, expires);
        fields.text(Field::TokenKind, Some(if ttl.is_some() { "vault" } else { "static" }));
        fields.text(Field::TokenId, root.str_at(&["response", "data", "secret_id_accessor"]));
        fields.text(Field::ConfigId, Some(path));
    }
    if action == "token.revoked" {
        fields.text(
            Field::TokenId,
            request.str_at(&["data", "accessor"]).or_else(|| request.str_at(&["data", "lease_id"])),
        );
    }
}

/// The path as people know it: without the `data/` that version 2 of the key-value engine puts behind its mount.
fn secret_path(request: Value<'_>, path: &str) -> String {
    let (mount, rest) = mounted(request, path);
    let rest = rest.strip_prefix("data/").or_else(|| rest.strip_prefix("metadata/")).unwrap_or(rest);
    format!("{mount}{rest}")
}

/// The mount of a path, and what is below it.
fn mounted<'p>(request: Value<'_>, path: &'p str) -> (&'p str, &'p str) {
    match request.str_at(&["mount_point"]).filter(|mount| path.starts_with(mount)) {
        Some(mount) => path.split_at(mount.len()),
        None => path.split_at(path.find('/').map_or(0, |slash| slash + 1)),
    }
}
