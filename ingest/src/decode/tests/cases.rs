//! Hand-made payloads: what each decoder must say about what matters to rules.

use engine::record::Position;
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use proptest::prelude::*;
use serde_json::json;

use super::super::decode;
use super::{assert_fields, decoded, fields, record};

fn cloudtrail(service: &str, event: &str, more: serde_json::Value) -> engine::event::Event {
    let mut body = json!({
        "eventVersion": "1.09", "eventTime": "2025-03-15T10:00:00Z", "eventSource": format!("{service}.amazonaws.com"),
        "eventName": event, "awsRegion": "eu-west-1", "sourceIPAddress": "203.0.113.9", "recipientAccountId": "111122223333",
        "eventID": "e1",
        "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/ann", "accessKeyId": "AKIAIOSFODNN7EXAMPLE"},
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    decoded(SourceType::AwsCloudtrail, &[], body.to_string()).remove(0)
}

#[test]
fn a_ci_token_is_exchanged_and_its_key_is_followed() {
    let issued = |sub: &str| {
        let provider = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com";
        cloudtrail(
            "sts",
            "AssumeRoleWithWebIdentity",
            json!({
                "userIdentity": {"type": "WebIdentityUser", "principalId": format!("{provider}:sts.amazonaws.com:{sub}"),
                    "userName": sub, "identityProvider": provider},
                "requestParameters": {"roleArn": "arn:aws:iam::111122223333:role/deploy", "durationSeconds": 900},
                "responseElements": {"subjectFromWebIdentityToken": sub, "provider": provider, "audience": "sts.amazonaws.com",
                    "credentials": {"accessKeyId": "ASIAEXAMPLE000000001"}},
            }),
        )
    };
    for sub in ["repo:acme/app:ref:refs/heads/main", "repo:acme@1/app@2:ref:refs/heads/main"] {
        let event = issued(sub);
        assert_fields(
            &event,
            &[
                ("action", "token.issued"),
                ("category", "token"),
                ("outcome", "success"),
                ("actor.type", "ci"),
                ("actor.id", sub),
                ("src.ip", "203.0.113.9"),
                ("ci.provider", "github"),
                ("ci.repo", "acme/app"),
                ("ci.ref", "refs/heads/main"),
                ("token.id", "ASIAEXAMPLE000000001"),
                ("token.kind", "sts"),
                ("token.issuer", "token.actions.githubusercontent.com"),
                ("token.sub", sub),
                ("token.aud", "sts.amazonaws.com"),
                ("token.repo", "acme/app"),
                ("token.ref", "refs/heads/main"),
                ("token.expires", "2025-03-15T10:15:00Z"),
                ("cloud.role", "arn:aws:iam::111122223333:role/deploy"),
            ],
        );
    }
    assert_fields(&issued("repo:acme/app:environment:prod"), &[("ci.environment", "prod"), ("token.ref", "-")]);

    let session = |provider: &str| {
        json!({"type": "AssumedRole", "principalId": "AROA:run-1", "accessKeyId": "ASIAEXAMPLE000000001",
        "arn": "arn:aws:sts::111122223333:assumed-role/deploy/run-1",
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": "arn:aws:iam::111122223333:role/deploy", "userName": "deploy"},
            "webIdFederationData": {"federatedProvider": provider, "attributes": {}}}})
    };
    let github = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com";
    let used = cloudtrail(
        "secretsmanager",
        "GetSecretValue",
        json!({
        "userIdentity": session(github), "requestParameters": {"secretId": "prod/db", "versionId": "v7"}}),
    );
    assert_fields(
        &used,
        &[
            ("action", "secret.read"),
            ("category", "secret"),
            ("actor.type", "ci"),
            ("token.id", "ASIAEXAMPLE000000001"),
            ("token.kind", "sts"),
            ("secret.path", "prod/db"),
            ("secret.store", "aws.secretsmanager"),
            ("secret.version", "v7"),
            ("cloud.role", "arn:aws:iam::111122223333:role/deploy"),
        ],
    );
    assert_eq!((used.time, used.time_known), (Timestamp::parse("2025-03-15T10:00:00Z").unwrap(), true));
    let called =
        cloudtrail("ec2", "RunInstances", json!({"userIdentity": session(github), "errorCode": "AccessDenied"}));
    assert_fields(
        &called,
        &[("action", "cloud.api"), ("actor.type", "ci"), ("outcome", "failure"), ("reason", "AccessDenied")],
    );
    let pod = cloudtrail(
        "s3",
        "ListBuckets",
        json!({
        "userIdentity": session("arn:aws:iam::1:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/ABC"),
        "sourceIPAddress": "athena.amazonaws.com"}),
    );
    assert_fields(&pod, &[("actor.type", "workload"), ("src.ip", "-")]);
}

#[test]
fn cloudtrail_guards_credentials_and_stores() {
    for (service, event, request, expected) in [
        (
            "cloudtrail",
            "StopLogging",
            json!({"name": "t"}),
            [("action", "audit_log.disabled"), ("category", "audit"), ("config.weakens", "true"), ("config.id", "t")],
        ),
        (
            "cloudtrail",
            "StartLogging",
            json!({"name": "t"}),
            [
                ("action", "audit_log.enabled"),
                ("category", "audit"),
                ("config.weakens", "false"),
                ("config.object", "audit_log"),
            ],
        ),
        (
            "cloudtrail",
            "PutEventSelectors",
            json!({"trailName": "t", "eventSelectors": [{"includeManagementEvents": false, "readWriteType": "All"}]}),
            [
                ("action", "audit_log.changed"),
                ("config.attribute", "PutEventSelectors"),
                ("config.weakens", "true"),
                ("config.id", "t"),
            ],
        ),
        (
            "cloudtrail",
            "PutEventSelectors",
            json!({"trailName": "t", "eventSelectors": [{"includeManagementEvents": true, "readWriteType": "All", "excludeManagementEventSources": []}]}),
            [
                ("action", "audit_log.changed"),
                ("config.object", "audit_log"),
                ("config.weakens", "false"),
                ("config.id", "t"),
            ],
        ),
        (
            "logs",
            "PutRetentionPolicy",
            json!({"logGroupName": "g", "retentionInDays": 1}),
            [("action", "audit_log.changed"), ("config.value", "1"), ("config.weakens", "true"), ("config.id", "g")],
        ),
        (
            "kms",
            "ScheduleKeyDeletion",
            json!({"keyId": "k"}),
            [
                ("action", "secret_store.weakened"),
                ("config.object", "secret_store"),
                ("config.weakens", "true"),
                ("secret.store", "aws.kms"),
            ],
        ),
        (
            "kms",
            "PutKeyPolicy",
            json!({"keyId": "k", "policy": "{\"Statement\":[{\"Principal\": {\"AWS\": \"*\"}}]}"}),
            [
                ("action", "secret_store.weakened"),
                ("config.object", "secret_store"),
                ("config.weakens", "true"),
                ("config.id", "k"),
            ],
        ),
        (
            "kms",
            "PutKeyPolicy",
            json!({"keyId": "k", "policy": "{\"Statement\":[]}"}),
            [
                ("action", "secret_store.changed"),
                ("config.object", "secret_store"),
                ("config.weakens", "false"),
                ("config.id", "k"),
            ],
        ),
        (
            "ssm",
            "GetParameters",
            json!({"names": ["/a", "/b"]}),
            [("action", "secret.read"), ("secret.path", "/a,/b"), ("secret.store", "aws.ssm"), ("category", "secret")],
        ),
        (
            "kms",
            "Decrypt",
            json!({"encryptionContext": {"SecretARN": "arn:x"}}),
            [("action", "secret.read"), ("secret.path", "arn:x"), ("secret.store", "aws.kms"), ("category", "secret")],
        ),
    ] {
        assert_fields(&cloudtrail(service, event, json!({"requestParameters": request})), &expected);
    }
    let created = cloudtrail(
        "iam",
        "CreateAccessKey",
        json!({"requestParameters": {"userName": "bot"},
        "responseElements": {"accessKey": {"accessKeyId": "AKIAEXAMPLE000000009", "userName": "bot"}}}),
    );
    assert_fields(
        &created,
        &[
            ("action", "token.created"),
            ("token.kind", "static"),
            ("token.id", "AKIAEXAMPLE000000009"),
            ("actor.type", "human"),
            ("config.id", "bot"),
        ],
    );
}

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
        ("sys/policies/acl/admin", "delete", "secret_store.weakened"),
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

fn kubernetes(verb: &str, target: serde_json::Value, more: serde_json::Value) -> Vec<engine::event::Event> {
    let mut body = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a1", "stage": "ResponseComplete",
        "verb": verb, "objectRef": target, "user": {"username": "system:serviceaccount:argocd:deployer"},
        "sourceIPs": ["1.2.3.4", "10.1.1.1"], "requestReceivedTimestamp": "2025-03-15T10:00:00.000001Z", "responseStatus": {"code": 201}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    decoded(SourceType::KubernetesAudit, &[("label.cluster", "eu-1"), ("label.env", "prod")], body.to_string())
}

#[test]
fn kubernetes_admissions_name_every_image() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let pods = json!({"resource": "pods", "namespace": "shop", "name": "web-1", "apiVersion": "v1"});
    let spec = json!({"kind": "Pod", "metadata": {"annotations": {"kyverno.io/verify-images": format!("{{\"ghcr.io/acme/app@{digest}\":\"pass\"}}")}},
        "spec": {"initContainers": [{"name": "i", "image": "busybox:1"}],
            "containers": [{"name": "c", "image": format!("ghcr.io/acme/app:v1@{digest}"), "securityContext": {"privileged": true}}],
            "ephemeralContainers": [{"name": "e", "image": "debug"}]}});
    let events = kubernetes("create", pods.clone(), json!({"requestObject": spec}));
    assert_eq!(events.len(), 4);
    assert_fields(
        &events[0],
        &[
            ("action", "k8s.create"),
            ("category", "admission"),
            ("k8s.kind", "pods"),
            ("k8s.name", "web-1"),
            ("k8s.cluster", "eu-1"),
            ("src.ip", "10.1.1.1"),
            ("actor.type", "workload"),
            ("k8s.object.privileged", "true"),
        ],
    );
    assert_fields(
        &events[2],
        &[
            ("action", "admission.decided"),
            ("artifact.digest", &digest),
            ("artifact.repo", "ghcr.io/acme/app"),
            ("artifact.name", &format!("ghcr.io/acme/app:v1@{digest}")),
            ("k8s.decision", "allow"),
            ("k8s.namespace", "shop"),
            ("environment", "prod"),
            ("signature.status", "verified"),
            ("k8s.object.privileged", "true"),
        ],
    );
    assert_fields(
        &events[1],
        &[("artifact.name", "busybox:1"), ("signature.status", "-"), ("k8s.object.privileged", "false")],
    );
    assert_eq!(events[2].id.sub, 2);

    let deployment = json!({"resource": "deployments", "namespace": "shop", "name": "web", "apiGroup": "apps"});
    let template = json!({"spec": {"template": {"spec": {"containers": [{"image": "ghcr.io/acme/app:v2"}]}}}});
    let denied = |message: &str| json!({"requestObject": template, "responseStatus": {"code": 403, "reason": "Forbidden", "message": message}});
    let unsigned =
        "admission webhook \"policy.sigstore.dev\" denied the request: validation failed: no signatures found";
    assert_fields(
        &kubernetes("update", deployment.clone(), denied(unsigned))[1],
        &[
            ("k8s.decision", "deny"),
            ("k8s.policy", "policy.sigstore.dev"),
            ("signature.status", "missing"),
            ("outcome", "failure"),
        ],
    );
    let wrong = "admission webhook \"mutate.kyverno.svc-fail\" denied the request: image verification failed for ghcr.io/acme/app:v2";
    assert_fields(&kubernetes("update", deployment.clone(), denied(wrong))[1], &[("signature.status", "failed")]);
    let rbac = "deployments.apps is forbidden: User \"x\" cannot create resource \"deployments\"";
    assert_eq!(kubernetes("create", deployment.clone(), denied(rbac)).len(), 1, "refused before admission");
    let conflict = json!({"requestObject": template, "responseStatus": {"code": 409}});
    assert_eq!(kubernetes("update", deployment.clone(), conflict).len(), 1);
    let unlogged = format!(
        "admission webhook \"policy.sigstore.dev\" denied the request: image ghcr.io/acme/app@{digest} no matching signatures:"
    );
    let bare = kubernetes("create", pods.clone(), json!({"responseStatus": {"code": 400, "message": unlogged}}));
    assert_fields(&bare[1], &[("artifact.digest", &digest), ("signature.status", "failed"), ("k8s.decision", "deny")]);
    let open = kubernetes(
        "create",
        pods.clone(),
        json!({"requestObject": spec, "annotations":
        {"failed-open.validating.webhook.admission.k8s.io/round_0_index_1": "policy.sigstore.dev"}}),
    );
    assert_fields(&open[1], &[("k8s.decision", "allow"), ("k8s.policy", "policy.sigstore.dev")]);
    let received = kubernetes("create", pods, json!({"requestObject": spec, "stage": "RequestReceived"}));
    assert_eq!(received.len(), 1);
    assert_fields(&received[0], &[("action", "k8s.received")]);
}

#[test]
fn kubernetes_policies_and_secrets() {
    let hook = json!({"resource": "validatingwebhookconfigurations", "name": "policy", "apiGroup": "admissionregistration.k8s.io"});
    let object = |policy: &str| json!({"requestObject": {"kind": "ValidatingWebhookConfiguration", "webhooks": [{"failurePolicy": "Fail"}, {"failurePolicy": policy}]}});
    let fields = |weakens, policy| {
        [
            ("config.object", "admission_policy"),
            ("config.weakens", weakens),
            ("k8s.object.failure_policy", policy),
            ("category", "config"),
        ]
    };
    assert_fields(&kubernetes("update", hook.clone(), object("Ignore"))[0], &fields("true", "Ignore"));
    assert_fields(&kubernetes("update", hook.clone(), object("Fail"))[0], &fields("false", "Fail"));
    assert_fields(&kubernetes("delete", hook.clone(), json!({}))[0], &fields("true", "-"));
    let patch = json!({"requestObject": [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]});
    assert_fields(&kubernetes("patch", hook, patch)[0], &fields("true", "Ignore"));
    for (group, key, value, expected, weakens) in [
        ("kyverno.io", "validationFailureAction", "Audit", "audit", "true"),
        ("kyverno.io", "validationFailureAction", "Enforce", "enforce", "false"),
        ("constraints.gatekeeper.sh", "enforcementAction", "dryrun", "dryrun", "true"),
        ("constraints.gatekeeper.sh", "enforcementAction", "deny", "enforce", "false"),
        ("policy.sigstore.dev", "mode", "warn", "warn", "true"),
    ] {
        let target = json!({"resource": "policies", "name": "p", "apiGroup": group});
        let events = kubernetes("update", target, json!({"requestObject": {"spec": {key: value}}}));
        assert_fields(
            &events[0],
            &[("k8s.object.enforcement", expected), ("config.weakens", weakens), ("k8s.group", group)],
        );
    }
    let binding = json!({"resource": "validatingadmissionpolicybindings", "name": "b", "apiGroup": "admissionregistration.k8s.io"});
    let events =
        kubernetes("update", binding, json!({"requestObject": {"spec": {"validationActions": ["Deny", "Audit"]}}}));
    assert_fields(&events[0], &[("k8s.object.enforcement", "audit")]);
    let secrets = json!({"resource": "secrets", "namespace": "shop", "name": "db"});
    assert_fields(
        &kubernetes("get", secrets, json!({}))[0],
        &[("action", "secret.read"), ("secret.path", "shop/db"), ("secret.store", "kubernetes")],
    );
    let exec = json!({"resource": "pods", "subresource": "exec", "namespace": "shop", "name": "web-1"});
    assert_fields(&kubernetes("create", exec, json!({}))[0], &[("action", "k8s.create"), ("k8s.kind", "pods/exec")]);
    let ci = json!({"user": {"username": "repo:acme@1/app@2:ref:refs/heads/main"}});
    assert_fields(
        &kubernetes("get", json!({"resource": "pods"}), ci)[0],
        &[("actor.type", "ci"), ("ci.repo", "acme/app")],
    );
}

fn webhook(event: &str, body: serde_json::Value) -> engine::event::Event {
    let mut whole = json!({"repository": {"full_name": "acme/app", "default_branch": "main"}, "sender": {"login": "ann", "type": "User"}});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    decoded(SourceType::GithubWebhook, &[("x-github-event", event)], whole.to_string()).remove(0)
}

#[test]
fn github_guards() {
    let edited = |changes: serde_json::Value, rule: serde_json::Value| {
        webhook("branch_protection_rule", json!({"action": "edited", "changes": changes, "rule": rule}))
    };
    for (changes, rule, weakens) in [
        (json!({"admin_enforced": {"from": true}}), json!({"name": "main", "admin_enforced": false}), "true"),
        (json!({"admin_enforced": {"from": false}}), json!({"name": "main", "admin_enforced": true}), "false"),
        (
            json!({"required_approving_review_count": {"from": 2}}),
            json!({"required_approving_review_count": 1}),
            "true",
        ),
        (
            json!({"pull_request_reviews_enforcement_level": {"from": "everyone"}}),
            json!({"pull_request_reviews_enforcement_level": "off"}),
            "true",
        ),
        (
            json!({"allow_force_pushes_enforcement_level": {"from": "off"}}),
            json!({"allow_force_pushes_enforcement_level": "everyone"}),
            "true",
        ),
        (json!({"required_status_checks": {"from": ["a", "b"]}}), json!({"required_status_checks": ["a"]}), "true"),
        (json!({"authorized_actor_names": {"from": ["a"]}}), json!({"authorized_actor_names": ["a", "b"]}), "true"),
    ] {
        assert_fields(
            &edited(changes, rule),
            &[
                ("action", "protected_branch.update"),
                ("config.weakens", weakens),
                ("config.object", "branch_protection"),
            ],
        );
    }
    let ruleset = |action: &str, enforcement: &str, changes: serde_json::Value| {
        webhook(
            "repository_ruleset",
            json!({"action": action, "changes": changes, "repository_ruleset": {"name": "r", "enforcement": enforcement}}),
        )
    };
    for (event, action, weakens) in [
        (ruleset("deleted", "active", json!({})), "repository_ruleset.destroy", "true"),
        (ruleset("created", "active", json!({})), "repository_ruleset.create", "false"),
        (
            ruleset("edited", "disabled", json!({"enforcement": {"from": "active"}})),
            "repository_ruleset.update",
            "true",
        ),
        (ruleset("edited", "active", json!({"name": {"from": "x"}})), "repository_ruleset.update", "false"),
        (ruleset("edited", "active", json!({"rules": {"updated": [{}]}})), "repository_ruleset.update", "-"),
        (ruleset("edited", "active", json!({"rules": {"deleted": [{}]}})), "repository_ruleset.update", "true"),
        (webhook("branch_protection_configuration", json!({"action": "disabled"})), "protected_branch.destroy", "true"),
        (webhook("meta", json!({"action": "deleted", "hook_id": 7})), "audit_log.disabled", "true"),
        (
            webhook(
                "secret_scanning_alert",
                json!({"action": "created", "alert": {"number": 1, "secret_type": "github_pat", "push_protection_bypassed": true}}),
            ),
            "secret_scanning_push_protection.bypass",
            "true",
        ),
        (
            webhook(
                "security_and_analysis",
                json!({"changes": {"from": {"security_and_analysis": {"secret_scanning": {"status": "enabled"}}}},
            "repository": {"full_name": "acme/app", "security_and_analysis": {"secret_scanning": {"status": "disabled"}}}}),
            ),
            "secret_scanning.disabled",
            "true",
        ),
    ] {
        assert_fields(
            &event,
            &[("action", action), ("config.weakens", weakens), ("ci.repo", "acme/app"), ("actor.id", "ann")],
        );
    }
    let key = webhook(
        "deploy_key",
        json!({"action": "created", "key": {"id": 5, "read_only": false, "created_at": "2025-03-15T10:00:00Z"}}),
    );
    assert_fields(
        &key,
        &[("action", "token.created"), ("token.kind", "deploy_key"), ("token.id", "5"), ("category", "token")],
    );
}

#[test]
fn github_flow() {
    let push = webhook(
        "push",
        json!({"ref": "refs/heads/main", "before": "a", "after": "b", "forced": true,
        "repository": {"full_name": "acme/app", "default_branch": "main", "pushed_at": 1_742_032_800}}),
    );
    assert_fields(
        &push,
        &[
            ("action", "git.push"),
            ("scm.before", "a"),
            ("scm.after", "b"),
            ("scm.forced", "true"),
            ("scm.default_branch", "main"),
        ],
    );
    assert_eq!(push.time, Timestamp::from_secs(1_742_032_800));
    let merged = webhook(
        "pull_request",
        json!({"action": "closed", "pull_request": {"number": 9, "merged": true, "merge_commit_sha": "m",
        "merged_at": "2025-03-15T10:00:00Z", "user": {"login": "bob"}, "merged_by": {"login": "ann"}, "base": {"ref": "main"}, "head": {"ref": "x", "sha": "h"}}}),
    );
    assert_fields(
        &merged,
        &[
            ("action", "change.merged"),
            ("change.number", "9"),
            ("change.author", "bob"),
            ("change.merged_by", "ann"),
            ("change.base", "main"),
            ("change.head", "h"),
            ("scm.after", "m"),
        ],
    );
    let review = webhook(
        "pull_request_review",
        json!({"action": "submitted", "pull_request": {"number": 9, "user": {"login": "bob"}},
        "review": {"state": "APPROVED", "commit_id": "h", "submitted_at": "2025-03-15T10:00:00Z"}}),
    );
    assert_fields(
        &review,
        &[("action", "change.reviewed"), ("change.review_state", "approved"), ("ci.sha", "h"), ("actor.id", "ann")],
    );
    let run = webhook(
        "workflow_run",
        json!({"action": "completed", "workflow": {"name": "CI"}, "workflow_run": {"id": 77, "run_attempt": 2,
        "head_branch": "main", "head_sha": "h", "event": "push", "path": ".github/workflows/ci.yml", "conclusion": "failure",
        "updated_at": "2025-03-15T10:00:00Z"}}),
    );
    assert_fields(
        &run,
        &[
            ("action", "run.finished"),
            ("ci.run_id", "77"),
            ("ci.attempt", "2"),
            ("ci.trigger", "push"),
            ("outcome", "failure"),
            ("ci.workflow", "CI"),
            ("ci.workflow_ref", ".github/workflows/ci.yml@refs/heads/main"),
        ],
    );
    let deployed = webhook(
        "deployment_status",
        json!({"deployment_status": {"state": "success", "environment": "Production", "created_at": "2025-03-15T10:00:00Z"},
        "deployment": {"id": 4, "sha": "h", "ref": "main"}, "workflow_run": {"id": 77}}),
    );
    assert_fields(
        &deployed,
        &[
            ("action", "deploy.finished"),
            ("outcome", "success"),
            ("environment", "prod"),
            ("ci.environment", "Production"),
            ("ci.run_id", "77"),
        ],
    );
    let job = webhook(
        "workflow_job",
        json!({"action": "in_progress", "workflow_job": {"id": 1, "run_id": 77, "labels": ["self-hosted", "x64"],
        "runner_name": "r1", "runner_group_name": "Default", "started_at": "2025-03-15T10:00:00Z"}}),
    );
    assert_fields(
        &job,
        &[("action", "job.started"), ("runner.kind", "self-hosted"), ("runner.labels", "self-hosted,x64")],
    );
}

#[test]
fn job_logs_tell_actions_token_and_leaks() {
    let log = "\u{feff}2025-03-15T10:00:00.1234567Z Complete job name: build\n\
        2025-03-15T10:00:00.2000000Z ##[group]GITHUB_TOKEN Permissions\n\
        2025-03-15T10:00:00.2000000Z Contents: write\n2025-03-15T10:00:00.2000000Z PullRequests: read\n\
        2025-03-15T10:00:00.2000000Z ##[endgroup]\n\
        2025-03-15T10:00:01.0000000Z Download action repository 'tj-actions/changed-files@v45' (SHA:0e58ed8671d6b60d0890c21b07f8835ace038e67)\n\
        a continuation line\n";
    let job = [("joblog.repo", "acme/app"), ("joblog.run_id", "77"), ("joblog.job_id", "8"), ("joblog.attempt", "2")];
    let mut record = record(SourceType::GithubJoblog, &job, log);
    record.envelope.redacted = vec![
        engine::record::Redacted { family: "github-token".to_owned(), fingerprint: "ff".to_owned(), count: 3 },
        engine::record::Redacted { family: "authorization-header".to_owned(), fingerprint: "00".to_owned(), count: 1 },
    ];
    let events = decode(Position::default(), &record).unwrap();
    assert_eq!(events.len(), 4);
    assert_fields(
        &events[0],
        &[
            ("action", "job.log"),
            ("ci.repo", "acme/app"),
            ("ci.run_id", "77"),
            ("ci.attempt", "2"),
            ("message", "build"),
            ("actor.type", "ci"),
        ],
    );
    assert_eq!(events[0].time, Timestamp::parse("2025-03-15T10:00:00.123456Z").unwrap());
    assert!(String::from_utf8_lossy(&events[0].native).contains("continuation"));
    assert_fields(
        &events[1],
        &[
            ("action", "token.issued"),
            ("token.kind", "app"),
            ("token.id", "GITHUB_TOKEN:77:8:2"),
            ("config.attribute", "contents"),
            ("config.value", "contents=write,pull-requests=read"),
            ("token.repo", "acme/app"),
        ],
    );
    assert_fields(
        &events[2],
        &[
            ("action", "action.resolved"),
            ("action_ref", "tj-actions/changed-files@v45"),
            ("action_sha", "0e58ed8671d6b60d0890c21b07f8835ace038e67"),
            ("ci.run_id", "77"),
        ],
    );
    assert_eq!(events[2].time, Timestamp::parse("2025-03-15T10:00:01Z").unwrap());
    assert_fields(
        &events[3],
        &[
            ("action", "leak.detected"),
            ("leak.type", "github-token"),
            ("leak.fingerprint", "ff"),
            ("leak.count", "3"),
            ("ci.run_id", "77"),
        ],
    );
    let error = decode(Position::default(), &super::record(SourceType::GithubJoblog, &[], vec![0; 100])).unwrap_err();
    assert!(error.to_string().contains("UTF-8"));
}

#[test]
fn json_takes_the_taxonomy_dotted_or_nested_and_reads_audit_entries() {
    let event = &decoded(SourceType::Json, &[("label.env", "stage")], json!({"time": 1_742_032_800_123_i64, "action": "token.used",
        "ci.repo": "a/b", "ci": {"run_id": 77, "attempt": "2"}, "k8s": {"object": {"privileged": "true"}}, "scm.forced": 3,
        "token": {"expires": "2025-03-15T10:00:00Z"}, "other": {"deep": [1]}}).to_string())[0];
    assert_fields(
        event,
        &[
            ("action", "token.used"),
            ("ci.repo", "a/b"),
            ("ci.run_id", "77"),
            ("ci.attempt", "2"),
            ("scm.forced", "-"),
            ("k8s.object.privileged", "true"),
            ("token.expires", "2025-03-15T10:00:00Z"),
            ("environment", "stage"),
        ],
    );
    assert_eq!(event.time, Timestamp::from_millis(1_742_032_800_123));
    let bare = &decoded(SourceType::Json, &[], r#"{"hello":"world"}"#)[0];
    assert!(fields(bare).is_empty() && !bare.time_known && bare.time == bare.received);

    let entry = |action: &str, more: serde_json::Value| {
        let mut body = json!({"@timestamp": 1_742_032_800_000_i64, "action": action, "actor": "ann", "org": "acme", "repo": "acme/app", "actor_ip": "1.2.3.4"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        decoded(SourceType::Json, &[], body.to_string()).remove(0)
    };
    for (action, more, expected) in [
        (
            "protected_branch.destroy",
            json!({"name": "main"}),
            [("config.object", "branch_protection"), ("config.weakens", "true"), ("config.id", "main")],
        ),
        (
            "protected_branch.update_admin_enforced",
            json!({"admin_enforced": false}),
            [("config.attribute", "admin_enforced"), ("config.weakens", "true"), ("category", "config")],
        ),
        (
            "protected_branch.update_allow_force_pushes_enforcement_level",
            json!({"allow_force_pushes_enforcement_level": 1}),
            [
                ("config.attribute", "allow_force_pushes_enforcement_level"),
                ("config.weakens", "true"),
                ("config.value", "1"),
            ],
        ),
        (
            "org.set_default_workflow_permissions",
            json!({"default_workflow_permissions": "write"}),
            [("config.object", "workflow_permissions"), ("config.weakens", "true"), ("config.value", "write")],
        ),
        (
            "org.set_default_workflow_permissions",
            json!({"permissions": "read"}),
            [("config.object", "workflow_permissions"), ("config.weakens", "false"), ("config.value", "read")],
        ),
        (
            "repo.set_workflow_permission_can_approve_pr",
            json!({}),
            [("config.object", "workflow_permissions"), ("config.weakens", "true"), ("config.value", "-")],
        ),
        (
            "environment.remove_protection_rule",
            json!({"environment_name": "prod"}),
            [("config.object", "environment_rule"), ("config.weakens", "true"), ("config.id", "prod")],
        ),
        (
            "audit_log_streaming.destroy",
            json!({}),
            [("config.object", "audit_log"), ("config.weakens", "true"), ("category", "audit")],
        ),
        (
            "hook.destroy",
            json!({"hook_id": 3}),
            [("config.object", "webhook"), ("category", "audit"), ("config.id", "3")],
        ),
        (
            "personal_access_token.access_granted",
            json!({}),
            [("token.kind", "pat"), ("category", "token"), ("actor.id", "ann")],
        ),
        ("git.push", json!({}), [("category", "scm"), ("ci.repo", "acme/app"), ("src.ip", "1.2.3.4")]),
    ] {
        let event = entry(action, more);
        assert_fields(&event, &expected);
        assert_fields(&event, &[("action", action), ("actor.type", "human"), ("ci.provider", "github")]);
    }
}

#[test]
fn own_control_records_are_events_but_ticks_are_none() {
    assert!(decoded(SourceType::Pipeproof, &[], r#"{"kind":"tick"}"#).is_empty());
    let event =
        &decoded(SourceType::Pipeproof, &[], r#"{"kind":"incident-step","incident":"i1","verb":"ack","actor":"ann"}"#)
            [0];
    assert_fields(
        event,
        &[("action", "pipeproof.incident-step"), ("category", "audit"), ("actor.id", "ann"), ("config.id", "i1")],
    );
    assert!(event.time_known);
}

#[test]
fn dead_letters_say_why() {
    for (kind, body, reason) in [
        (SourceType::Json, "{\"a\":", "cannot read the body as JSON"),
        (SourceType::Json, "\"text\"", "not a JSON event: the body is not a JSON object"),
        (SourceType::GithubWebhook, "{}", "no X-GitHub-Event header"),
        (SourceType::AwsCloudtrail, "{\"a\":1}", "not a CloudTrail record"),
        (SourceType::KubernetesAudit, "{\"verb\":\"get\"}", "not a Kubernetes audit event"),
        (SourceType::VaultAudit, "{\"type\":\"request\"}", "not a Vault audit entry"),
        (SourceType::SigstoreBundle, "{\"mediaType\":\"application/json\"}", "not a Sigstore bundle"),
        (SourceType::Pipeproof, "{}", "not a control record"),
    ] {
        let error = decode(Position::default(), &record(kind, &[], body)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let deep = [vec![b'['; 65], vec![b']'; 65]].concat();
    let error = decode(Position::default(), &record(SourceType::Json, &[], deep)).unwrap_err().to_string();
    assert!(error.contains("deeper than 64"), "{error}");
    assert!(decode(Position::default(), &record(SourceType::Json, &[], &b"{\"a\":\"\xff\"}"[..])).is_err());
}

proptest! {
    #[test]
    fn no_decoder_panics_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for kind in SourceType::ALL {
            let _ = decode(Position::default(), &record(*kind, &[], bytes.clone()));
        }
    }

    /// Objects made of the names decoders look for, with values of every kind.
    #[test]
    fn no_decoder_panics_on_shapes(value in shape()) {
        for kind in SourceType::ALL {
            for event in ["", "push", "workflow_job", "deployment_status", "branch_protection_rule", "repository_ruleset", "package"] {
                let attributes = [("x-github-event", event)];
                let attributes = if event.is_empty() { &[][..] } else { &attributes[..] };
                let _ = decode(Position::default(), &record(*kind, attributes, value.to_string()));
            }
        }
    }
}

fn shape() -> impl Strategy<Value = serde_json::Value> {
    const NAMES: &[&str] = &[
        "action",
        "eventName",
        "eventSource",
        "verb",
        "auditID",
        "type",
        "request",
        "response",
        "auth",
        "path",
        "operation",
        "userIdentity",
        "requestParameters",
        "responseElements",
        "objectRef",
        "requestObject",
        "responseObject",
        "spec",
        "template",
        "containers",
        "image",
        "metadata",
        "annotations",
        "responseStatus",
        "message",
        "code",
        "mediaType",
        "verificationMaterial",
        "dsseEnvelope",
        "payload",
        "subject",
        "workflow_job",
        "deployment_status",
        "changes",
        "from",
        "rule",
        "repository_ruleset",
        "package",
        "kind",
        "time",
        "principalId",
        "identityProvider",
        "resource",
        "apiGroup",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,20}".prop_map(Into::into),
        proptest::sample::select(vec![
            "repo:a/b:ref:x",
            "sts.amazonaws.com",
            "AssumeRoleWithWebIdentity",
            "response",
            "auth/jwt/login",
            "update",
            "pods",
            "application/vnd.dev.sigstore.bundle.v0.3+json",
            "admission webhook \"",
            "a@sha256:",
            "::::",
            "kyverno.io",
            "-----BEGIN",
        ])
        .prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            proptest::collection::btree_map(proptest::sample::select(NAMES), inner, 0..8).prop_map(|map| map
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}
