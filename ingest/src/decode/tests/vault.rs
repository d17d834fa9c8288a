//! Vault: logins, reads, and what weakens it.

use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde_json::json;

use super::{assert_fields, decoded};

fn vault(kind: &str, path: &str, operation: &str, more: serde_json::Value) -> Vec<engine::event::Event> {
    let mut body = json!({"time": "2025-03-15T10:00:00.123456789Z", "type": kind,
        "auth": {"accessor": "hmac-sha256:acc", "display_name": "jwt-deploy", "policies": ["ci"],
            "metadata": {"role": "deploy", "repository": "acme/app", "run_id": "77", "ref": "refs/heads/main", "sha": "abc"}},
        "request": {"id": "r1", "operation": operation, "path": path, "mount_point": "secret/", "mount_type": "kv",
            "remote_address": "198.51.100.7", "remote_port": 4711}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    decoded(SourceType::VaultAudit, &[], body.to_string())
}

#[test]
fn vault_logins_reads_and_guards() {
    let read = vault("response", "secret/data/prod/db", "read", json!({})).remove(0);
    assert_fields(
        &read,
        &[
            ("action", "secret.read"),
            ("secret.path", "secret/prod/db"),
            ("secret.store", "vault"),
            ("token.id", "hmac-sha256:acc"),
            ("actor.type", "ci"),
            ("ci.repo", "acme/app"),
            ("ci.run_id", "77"),
            ("src.ip", "198.51.100.7"),
            ("outcome", "success"),
        ],
    );
    assert_eq!(read.time, Timestamp::parse("2025-03-15T10:00:00.123456Z").unwrap());
    let asked = vault("request", "secret/data/prod/db", "read", json!({})).remove(0);
    assert_fields(&asked, &[("action", "vault.request"), ("category", "secret"), ("outcome", "-")]);
    let denied = vault("response", "secret/data/x", "read", json!({"error": "1 error occurred: permission denied"}));
    assert_fields(&denied[0], &[("action", "secret.read"), ("outcome", "failure")]);
    let login = json!({"auth": {}, "response": {"auth": {"accessor": "hmac-sha256:new", "display_name": "jwt-deploy", "token_ttl": 600,
        "metadata": {"role": "deploy", "repository": "acme/app", "sub": "repo:acme@1/app@2:environment:prod"}}}});
    let login = vault("response", "auth/jwt/login", "update", login).remove(0);
    assert_fields(
        &login,
        &[
            ("action", "token.issued"),
            ("token.kind", "vault"),
            ("token.id", "hmac-sha256:new"),
            ("token.repo", "acme/app"),
            ("ci.environment", "prod"),
            ("actor.type", "ci"),
            ("cloud.role", "deploy"),
            ("token.expires", "2025-03-15T10:10:00.123456Z"),
        ],
    );
    for kind in ["request", "response"] {
        let events = vault(kind, "sys/audit/file", "delete", json!({}));
        assert_fields(
            &events[0],
            &[
                ("action", "audit_log.disabled"),
                ("category", "audit"),
                ("config.object", "audit_log"),
                ("config.id", "file"),
                ("config.weakens", "true"),
            ],
        );
        assert_fields(
            &events[1],
            &[
                ("action", "secret_store.weakened"),
                ("config.object", "secret_store"),
                ("config.weakens", "true"),
                ("secret.store", "vault"),
                ("ci.repo", "acme/app"),
            ],
        );
        assert!(String::from_utf8_lossy(&events[1].native).contains("\"derived\""));
    }
    for (path, operation, action) in [
        ("sys/policies/acl/admin", "update", "secret_store.changed"),
        ("sys/policies/acl/admin", "delete", "secret_store.changed"),
        ("sys/policy/egp", "delete", "secret_store.changed"),
        ("sys/policies/egp/business-hours", "delete", "secret_store.weakened"),
        ("sys/policies/rgp/mfa", "delete", "secret_store.weakened"),
        ("sys/policies/acl/admin", "read", "vault.read"),
        ("sys/seal", "update", "secret_store.weakened"),
        ("sys/mounts/x", "delete", "secret_store.weakened"),
        ("auth/approle/role/ci/secret-id", "update", "token.created"),
        ("auth/token/create", "update", "token.issued"),
        ("auth/token/revoke-self", "update", "token.revoked"),
        ("auth/token/lookup-self", "read", "token.used"),
        ("auth/kubernetes/login", "update", "token.issued"),
        ("secret/metadata/", "list", "secret.list"),
        ("database/creds/app", "read", "secret.read"),
        ("sys/health", "read", "vault.read"),
    ] {
        assert_fields(&vault("response", path, operation, json!({}))[0], &[("action", action)]);
    }
    let kmip = vault(
        "kmip-response",
        "kmip/x",
        "read",
        json!({"request": {"operation": "read", "path": "kmip/x", "remote_address": "10.0.0.1:5696"}}),
    );
    assert_fields(&kmip[0], &[("src.ip", "10.0.0.1")]);
}

#[test]
fn what_an_engine_is_configured_with_is_no_secret() {
    for (mount, kind, path, operation, action) in [
        ("pki/", "pki", "pki/roles/web", "read", "vault.read"),
        ("pki/", "pki", "pki/cert/ca", "read", "vault.read"),
        ("transit/", "transit", "transit/keys/app", "read", "vault.read"),
        ("database/", "database", "database/config/app", "read", "vault.read"),
        ("database/", "database", "database/static-roles/app", "read", "vault.read"),
        ("team/db/", "database", "team/db/roles/app", "read", "vault.read"),
        ("database/", "database", "database/creds/app", "read", "secret.read"),
        ("database/", "database", "database/static-creds/app", "read", "secret.read"),
        ("transit/", "transit", "transit/export/encryption-key/app", "read", "secret.read"),
        ("aws/", "aws", "aws/creds/deploy", "read", "secret.read"),
        ("aws/", "aws", "aws/sts/deploy", "update", "secret.read"),
        ("kubernetes/", "kubernetes", "kubernetes/creds/deploy", "update", "secret.read"),
        ("aws/", "aws", "aws/roles/deploy", "update", "secret.written"),
        ("secret/", "kv", "secret/metadata/prod/db", "read", "secret.list"),
        ("secret/", "kv", "secret/data/config", "read", "secret.read"),
        // In version 1 of the engine, and in its older name, a secret may be called anything.
        ("secret/", "kv", "secret/config/db", "read", "secret.read"),
        ("secret/", "generic", "secret/roles/db", "read", "secret.read"),
    ] {
        let request =
            json!({"request": {"operation": operation, "path": path, "mount_point": mount, "mount_type": kind}});
        assert_fields(&vault("response", path, operation, request)[0], &[("action", action)]);
    }
    // Older versions do not say what engine it is.
    let request = json!({"request": {"operation": "read", "path": "pki/roles/web"}});
    assert_fields(&vault("response", "pki/roles/web", "read", request)[0], &[("action", "secret.read")]);
}

#[test]
fn a_secret_id_that_expires_is_no_static_key() {
    let created = |ttl: u64| {
        let answer = json!({"response": {"data": {"secret_id_accessor": "hmac-sha256:sid", "secret_id_ttl": ttl}}});
        vault("response", "auth/approle/role/ci/secret-id", "update", answer).remove(0)
    };
    assert_fields(
        &created(600),
        &[
            ("action", "token.created"),
            ("token.kind", "vault"),
            ("token.id", "hmac-sha256:sid"),
            ("token.expires", "2025-03-15T10:10:00.123456Z"),
        ],
    );
    assert_fields(&created(0), &[("action", "token.created"), ("token.kind", "static"), ("token.expires", "-")]);
}
