//! Kubernetes: what was admitted, and who changed what decides it.

use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::json;

use super::{assert_fields, decoded};

fn kubernetes(verb: &str, target: serde_json::Value, more: serde_json::Value) -> Vec<engine::event::Event> {
    let mut body = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a1", "stage": "ResponseComplete",
        "verb": verb, "objectRef": target, "user": {"username": "system:serviceaccount:argocd:deployer"},
        "sourceIPs": ["1.2.3.4", "10.1.1.1"], "requestReceivedTimestamp": "2025-03-15T10:00:00.000001Z",
        "responseStatus": {"code": if verb == "create" { 201 } else { 200 }}});
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
fn a_watch_on_secrets_reads_them_when_it_starts() {
    let secrets = json!({"resource": "secrets", "namespace": "shop"});
    let stage = |stage: &str, at: &str| json!({"stage": stage, "stageTimestamp": at, "responseStatus": {"code": 200}});
    let (start, end) = ("2025-03-15T10:00:00.000002Z", "2025-03-15T10:09:59.000001Z");
    let started = kubernetes("watch", secrets.clone(), stage("ResponseStarted", start)).remove(0);
    assert_fields(&started, &[("action", "secret.read"), ("secret.path", "shop"), ("outcome", "success")]);
    let ended = kubernetes("watch", secrets.clone(), stage("ResponseComplete", end)).remove(0);
    assert_fields(&ended, &[("action", "k8s.ended"), ("k8s.verb", "watch")]);
    assert_eq!([started.time.to_string(), ended.time.to_string()], [start, end]);
    // What is answered at once has one stage, at the time it was asked for.
    let read = kubernetes("list", secrets, stage("ResponseComplete", end)).remove(0);
    assert_fields(&read, &[("action", "secret.read")]);
    assert_eq!(read.time.to_string(), "2025-03-15T10:00:00.000001Z");
    let exec = json!({"resource": "pods", "subresource": "exec", "namespace": "shop", "name": "web-1"});
    assert_fields(&kubernetes("create", exec, stage("ResponseStarted", start))[0], &[("action", "k8s.started")]);
    // GKE writes no stage: an entry of the start, and where there are two, one of the end.
    let entry = |operation: serde_json::Value| {
        let body = json!({"insertId": "i", "timestamp": "2025-03-15T10:00:00Z", "operation": operation,
            "protoPayload": {"serviceName": "k8s.io", "methodName": "io.k8s.core.v1.secrets.watch", "resourceName": "core/v1/namespaces/shop/secrets"}});
        decoded(SourceType::KubernetesAudit, &[], body.to_string()).remove(0)
    };
    for (operation, action) in [
        (json!({"id": "o", "first": true, "last": true}), "secret.read"),
        (json!({"id": "o", "first": true}), "secret.read"),
        (json!(null), "secret.read"),
        (json!({"id": "o", "last": true}), "k8s.ended"),
    ] {
        assert_fields(&entry(operation), &[("action", action), ("secret.path", "shop")]);
    }
}

#[test]
fn events_of_gatekeeper_and_of_the_csi_driver_say_what_they_decided() {
    let event = |more: serde_json::Value| {
        let mut body = json!({"apiVersion": "v1", "kind": "Event", "type": "Warning", "lastTimestamp": "2025-03-15T10:00:00Z",
            "metadata": {"name": "e", "namespace": "gatekeeper-system"}, "source": {"component": "gatekeeper-webhook"},
            "involvedObject": {"kind": "Pod", "name": "web", "namespace": "gatekeeper-system"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        decoded(SourceType::KubernetesEvent, &[], body.to_string()).remove(0)
    };
    // As `pkg/webhook/policy.go` and `pkg/audit/manager.go` annotate them.
    let annotated = |process: &str, kind: &str, action: &str, reason: &str| {
        event(
            json!({"reason": reason, "message": "Admission webhook \"validation.gatekeeper.sh\" denied request, Resource Namespace: shop, Constraint: signed, Message: not signed",
            "metadata": {"namespace": "gatekeeper-system", "annotations": {"process": process, "event_type": kind,
                "constraint_kind": "K8sSigned", "constraint_name": "signed", "constraint_action": action, "resource_kind": "Pod",
                "resource_namespace": "shop", "resource_name": "web", "request_username": "ann@example.com"}}}),
        )
    };
    let denied = annotated("admission", "violation", "deny", "FailedAdmission");
    assert_fields(
        &denied,
        &[
            ("action", "admission.decided"),
            ("k8s.decision", "deny"),
            ("outcome", "failure"),
            ("k8s.policy", "K8sSigned/signed"),
            ("k8s.namespace", "shop"),
            ("k8s.kind", "pods"),
            ("k8s.user", "ann@example.com"),
            ("signature.status", "missing"),
            ("reason", "FailedAdmission"),
        ],
    );
    assert_eq!(denied.time.to_string(), "2025-03-15T10:00:00Z");
    assert_fields(
        &annotated("admission", "violation", "dryrun", "DryrunViolation"),
        &[("action", "policy.evaluated"), ("k8s.decision", "allow"), ("k8s.object.enforcement", "dryrun")],
    );
    assert_fields(
        &annotated("audit", "violation_audited", "deny", "AuditViolation"),
        &[("action", "policy.evaluated"), ("k8s.decision", "-"), ("outcome", "failure")],
    );
    let failed = event(json!({"reason": "FailedMount", "source": {"component": "kubelet"},
        "message": "MountVolume.SetUp failed for volume \"s\" : rpc error: code = Unknown desc = failed to mount secrets store objects for pod shop/web, err: x"}));
    assert_fields(&failed, &[("action", "secret.mounted"), ("category", "secret"), ("outcome", "failure")]);
    let rotated = event(
        json!({"reason": "SecretRotationComplete", "type": "Normal", "source": {"component": "csi-secrets-store-rotation"},
        "message": "successfully rotated K8s secret db"}),
    );
    assert_fields(&rotated, &[("action", "secret.rotated"), ("outcome", "success")]);
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
    for (actions, enforcement, weakens) in
        [(json!(["Audit", "Deny"]), "enforce", "false"), (json!(["Warn", "Audit"]), "audit", "true")]
    {
        let spec = json!({"requestObject": {"spec": {"validationActions": actions}}});
        let events = kubernetes("update", binding.clone(), spec);
        assert_fields(&events[0], &[("k8s.object.enforcement", enforcement), ("config.weakens", weakens)]);
    }
    // What an audit writes into the status of a constraint in dry run changes nothing of it.
    let status =
        json!({"resource": "policies", "subresource": "status", "name": "p", "apiGroup": "constraints.gatekeeper.sh"});
    let found = json!({"requestObject": {"spec": {"enforcementAction": "dryrun"}, "status": {"totalViolations": 3}}});
    assert_fields(&kubernetes("update", status, found)[0], &[("config.weakens", "-"), ("category", "config")]);
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

#[test]
fn the_subject_of_a_job_is_that_of_its_token() {
    let secret = json!({"resource": "secrets", "namespace": "shop", "name": "db", "apiVersion": "v1"});
    let read = |user: &str| kubernetes("get", secret.clone(), json!({"user": {"username": user}})).remove(0);
    let sub = "repo:acme/app:ref:refs/heads/main";
    assert_fields(
        &read(&format!("https://token.actions.githubusercontent.com#{sub}")),
        &[
            ("action", "secret.read"),
            ("actor.type", "ci"),
            ("token.sub", sub),
            ("token.repo", "acme/app"),
            ("token.ref", "refs/heads/main"),
            ("ci.provider", "github"),
            ("ci.repo", "acme/app"),
            ("ci.ref", "refs/heads/main"),
        ],
    );
    assert_fields(&read("repo:acme/app:environment:prod"), &[("ci.environment", "prod"), ("token.ref", "-")]);
    // A provider whose subject names no repository.
    let buildkite = "organization:acme:pipeline:app:ref:refs/heads/main:commit:c:step:s";
    assert_fields(
        &read(buildkite),
        &[("ci.provider", "buildkite"), ("token.ref", "refs/heads/main"), ("ci.repo", "-")],
    );
    assert_fields(&read("ann@example.com"), &[("token.sub", "-"), ("ci.provider", "-")]);
}

#[test]
fn only_what_was_done_loosens_and_a_new_policy_takes_nothing_away() {
    let policy = json!({"resource": "clusterpolicies", "name": "p", "apiGroup": "kyverno.io"});
    let audit = json!({"requestObject": {"spec": {"validationFailureAction": "Audit"}}});
    let with = |more: serde_json::Value| {
        let mut whole = audit.clone();
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        whole
    };
    for (verb, more, weakens) in [
        ("update", json!({}), "true"),
        ("create", json!({}), "false"),
        // Server-side apply creates by a patch.
        ("patch", json!({"responseStatus": {"code": 201}}), "false"),
        ("patch", json!({}), "true"),
        ("update", json!({"requestURI": "/apis/kyverno.io/v1/clusterpolicies/p?dryRun=All&fieldManager=x"}), "-"),
        ("delete", json!({"stage": "RequestReceived", "responseStatus": null}), "-"),
    ] {
        assert_fields(&kubernetes(verb, policy.clone(), with(more.clone()))[0], &[("config.weakens", weakens)]);
    }
    let pods = json!({"resource": "pods", "namespace": "shop", "name": "web-1", "apiVersion": "v1"});
    let pod = json!({"requestObject": {"spec": {"containers": [{"name": "c", "image": "ghcr.io/acme/app:v1"}]}}});
    assert_eq!(kubernetes("create", pods.clone(), pod.clone()).len(), 2);
    let mut dry = pod;
    dry["requestURI"] = json!("/api/v1/namespaces/shop/pods?dryRun=All");
    let tried = kubernetes("create", pods, dry);
    assert_eq!(tried.len(), 1, "nothing was let in");
    assert_fields(&tried[0], &[("action", "k8s.dry_run"), ("category", "admission"), ("k8s.verb", "create")]);
}

#[test]
fn a_dry_run_is_what_the_server_takes_for_one() {
    let secret = json!({"resource": "secrets", "namespace": "shop", "name": "db"});
    let exec = json!({"resource": "pods", "subresource": "exec", "namespace": "shop", "name": "web-1"});
    let uri = |query: &str| json!({"requestURI": format!("/api/v1/namespaces/shop/x?{query}")});
    let body = json!({"requestObject": {"kind": "DeleteOptions", "dryRun": ["All"]}});
    for (verb, target, more, action) in [
        ("patch", &secret, uri("fieldManager=x&dryRun=All"), "k8s.dry_run"),
        ("delete", &secret, body.clone(), "k8s.dry_run"),
        // Of the others the body is the object, and of a parameter the value is whatever one likes.
        ("update", &secret, body, "secret.written"),
        ("patch", &secret, uri("fieldManager=dryRun=All"), "secret.written"),
        ("get", &secret, uri("dryRun=All"), "secret.read"),
        ("create", &exec, uri("command=sh&dryRun=All"), "k8s.create"),
    ] {
        assert_fields(&kubernetes(verb, target.clone(), more)[0], &[("action", action)]);
    }
}

#[test]
fn a_log_of_google_cloud_tells_of_policies_and_admissions_too() {
    let entry = |method: &str, resource: &str, request: serde_json::Value| {
        let body = json!({"insertId": "i", "timestamp": "2025-03-15T10:00:00Z",
            "resource": {"type": "k8s_cluster", "labels": {"cluster_name": "prod-eu", "project_id": "acme-prod"}},
            "protoPayload": {"serviceName": "k8s.io", "methodName": method, "resourceName": resource, "request": request,
                "authenticationInfo": {"principalEmail": "ann@example.com"}}});
        decoded(SourceType::GcpAudit, &[], body.to_string())
    };
    let hooks = "admissionregistration.k8s.io/v1/validatingwebhookconfigurations/policy";
    let gone = entry("io.k8s.admissionregistration.v1.validatingwebhookconfigurations.delete", hooks, json!(null));
    assert_fields(
        &gone[0],
        &[
            ("action", "k8s.delete"),
            ("category", "config"),
            ("config.object", "admission_policy"),
            ("config.id", "policy"),
            ("config.weakens", "true"),
            ("k8s.cluster", "prod-eu"),
            ("k8s.user", "ann@example.com"),
        ],
    );
    let pod = json!({"spec": {"containers": [{"name": "c", "image": "ghcr.io/acme/app:v1"}]}});
    let admitted = entry("io.k8s.core.v1.pods.create", "core/v1/namespaces/shop/pods/web", pod);
    assert_fields(
        &admitted[1],
        &[("action", "admission.decided"), ("category", "admission"), ("k8s.decision", "allow"), ("k8s.name", "web")],
    );
}

#[test]
fn who_was_not_asked_judged_nothing() {
    let digest = format!("sha256:{}", "cd".repeat(32));
    let pods = json!({"resource": "pods", "namespace": "shop", "name": "web-1", "apiVersion": "v1"});
    let admitted = |verdict: &str, annotations: serde_json::Value| {
        let mark = format!("{{\"ghcr.io/acme/app@{digest}\":\"{verdict}\"}}");
        let object = json!({"metadata": {"annotations": {"kyverno.io/verify-images": mark}},
            "spec": {"containers": [{"name": "c", "image": format!("ghcr.io/acme/app@{digest}")}]}});
        kubernetes("create", pods.clone(), json!({"requestObject": object, "annotations": annotations})).remove(1)
    };
    assert_fields(&admitted("skip", json!({})), &[("signature.status", "-"), ("reason", "-")]);
    assert_fields(&admitted("fail", json!({})), &[("signature.status", "failed")]);
    let open = json!({"failed-open.validating.webhook.admission.k8s.io/round_0_index_0": "policy.sigstore.dev"});
    assert_fields(&admitted("skip", open), &[("reason", "failed open"), ("k8s.policy", "policy.sigstore.dev")]);
}
