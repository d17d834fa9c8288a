//! Who is behind an identity is decided by its issuer: a pod is not CI, CI is not a person, a cloud's principal neither.

use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::{Value, json};

use super::{assert_fields, decoded};

fn gcp(info: Value) -> engine::event::Event {
    let entry = json!({"logName": "projects/p/logs/x", "timestamp": "2026-03-15T10:00:00Z",
        "protoPayload": {"serviceName": "storage.googleapis.com", "methodName": "storage.objects.get", "authenticationInfo": info}});
    decoded(SourceType::GcpAudit, &[], entry.to_string()).remove(0)
}

#[test]
fn google_principals() {
    let pool = "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools";
    for (principal, kind) in [
        (format!("{pool}/github/subject/repo:acme@1/app@2:environment:prod"), "ci"),
        (format!("{pool}/gitlab/subject/project_path:g/a:ref_type:branch:ref:main"), "ci"),
        (format!("{pool}/p.svc.id.goog/subject/ns/shop/sa/web"), "workload"),
        (format!("{pool}/aws/subject/012345678901"), "workload"),
        ("serviceAccount:p.svc.id.goog[shop/web]".to_owned(), "workload"),
        ("system:serviceaccount:shop:web".to_owned(), "workload"),
        ("123-compute@developer.gserviceaccount.com".to_owned(), "workload"),
        ("deployer@p.iam.gserviceaccount.com".to_owned(), "service"),
        ("system:gcp-controller-manager".to_owned(), "service"),
        ("123@cloudbuild.gserviceaccount.com".to_owned(), "ci"),
        ("p@appspot.gserviceaccount.com".to_owned(), "workload"),
        ("service-1@gcp-sa-cloudbuild.iam.gserviceaccount.com".to_owned(), "service"),
        ("principal://iam.googleapis.com/locations/global/workforcePools/staff/subject/ann".to_owned(), "human"),
        (format!("{pool}/tfc/subject/organization:o:project:p:workspace:w:run_phase:plan"), "ci"),
        ("ann@example.com".to_owned(), "human"),
    ] {
        assert_fields(&gcp(json!({"principalSubject": principal})), &[("actor.type", kind)]);
    }
    // A service account acts for whoever impersonates it.
    let subject = format!("{pool}/github/subject/repo:acme@1/app@2:environment:prod");
    let delegated = json!({"principalEmail": "deployer@p.iam.gserviceaccount.com",
        "serviceAccountDelegationInfo": [{"principalSubject": subject}]});
    let expected = [
        ("actor.type", "ci"),
        ("actor.id", "deployer@p.iam.gserviceaccount.com"),
        ("cloud.role", "deployer@p.iam.gserviceaccount.com"),
        ("token.sub", "repo:acme@1/app@2:environment:prod"),
        ("ci.repo", "acme/app"),
        ("ci.environment", "prod"),
    ];
    assert_fields(&gcp(delegated), &expected);
}

#[test]
fn azure_claims() {
    for (claims, kind, actor) in [
        (
            json!({"idtyp": "user", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn": "ann@example.com"}),
            "human",
            "ann@example.com",
        ),
        (json!({"idtyp": "app", "appid": "a-1"}), "service", "a-1"),
        (
            json!({"appid": "a-1", "oid": "o-1", "xms_mirid": "/subscriptions/1/providers/Microsoft.Compute/virtualMachines/r"}),
            "workload",
            "o-1",
        ),
        (json!({"appid": "a-1"}), "service", "a-1"),
        // A person without an address, who lets a program act.
        (
            json!({"appid": "a-1", "oid": "o-1", "http://schemas.microsoft.com/identity/claims/scope": "user_impersonation"}),
            "human",
            "o-1",
        ),
    ] {
        for (kind_of, member, category) in [
            (SourceType::AzureKeyvault, "claim", "AuditEvent"),
            (SourceType::AzureActivity, "claims", "Administrative"),
        ] {
            let entry = json!({"time": "2026-03-15T10:00:00Z", "CATEGORY": category, "operationname": "SecretGet",
                "IDENTITY": {member: claims}, "properties": {"httpStatusCode": 200}});
            let event = decoded(kind_of, &[], entry.to_string()).remove(0);
            assert_fields(&event, &[("actor.type", kind), ("actor.id", actor)]);
        }
    }
}

#[test]
fn kubernetes_users() {
    let event = |user: Value| {
        let body = json!({"auditID": "a", "verb": "get", "stage": "ResponseComplete", "objectRef": {"resource": "pods"}, "user": user});
        decoded(SourceType::KubernetesAudit, &[], body.to_string()).remove(0)
    };
    let issuer = "https://token.actions.githubusercontent.com#repo:acme@1/app@2:ref:refs/heads/main";
    assert_fields(&event(json!({"username": issuer})), &[("actor.type", "ci"), ("ci.repo", "acme/app")]);
    let eks = |arn: &str| {
        json!({"username": "deploy", "extra": {"arn": [arn], "accessKeyId": ["ASIAEXAMPLE000000001"],
        "canonicalArn": ["arn:aws:iam::1:role/deploy"]}})
    };
    let session = event(eks("arn:aws:sts::1:assumed-role/deploy/GitHubActions"));
    assert_fields(
        &session,
        &[
            ("actor.type", "service"),
            ("token.id", "ASIAEXAMPLE000000001"),
            ("token.kind", "sts"),
            ("cloud.role", "arn:aws:iam::1:role/deploy"),
        ],
    );
    let person = event(eks("arn:aws:sts::1:assumed-role/AWSReservedSSO_Admin_0123/ann@example.com"));
    assert_fields(&person, &[("actor.type", "human")]);
    let pod = json!({"username": "system:serviceaccount:shop:web",
        "extra": {"authentication.kubernetes.io/credential-id": ["JTI=j-1"]}});
    assert_fields(&event(pod), &[("actor.type", "workload"), ("token.id", "j-1"), ("token.kind", "oidc")]);
    for (user, kind) in [
        ("aksService", "service"),
        ("eks:node-manager", "service"),
        ("system:apiserver", "service"),
        ("kube-apiserver-kubelet-client", "service"),
        // Entra's programs come to AKS with the id of their object.
        ("0f5c2a1e-98b4-4d0e-9a51-6f2f5a9b7c3d", "service"),
        ("ann@example.com", "human"),
        ("kubernetes-admin", "human"),
        ("arn:aws:sts::1:assumed-role/AWSReservedSSO_Admin_0123/ann", "human"),
        ("arn:aws:sts::1:assumed-role/ci/AWSCodeBuild-12ab", "ci"),
        ("arn:aws:iam::1:user/ann", "human"),
        ("arn:aws:sts::1:assumed-role/web/eks-prod-web-77aa", "workload"),
    ] {
        assert_fields(&event(json!({"username": user})), &[("actor.type", kind)]);
    }
    let mut node = eks("arn:aws:sts::1:assumed-role/nodes/i-0123456789abcdef0");
    node["username"] = json!("system:node:ip-10-0-0-7.ec2.internal");
    assert_fields(&event(node), &[("actor.type", "service"), ("cloud.role", "arn:aws:iam::1:role/deploy")]);
}

#[test]
fn vault_logins() {
    let login = |metadata: Value| {
        let body = json!({"time": "2026-03-15T10:00:00Z", "type": "response", "request": {"id": "r", "operation": "update", "path": "auth/jwt/login"},
            "response": {"auth": {"accessor": "a", "display_name": "jwt-x", "metadata": metadata}}});
        decoded(SourceType::VaultAudit, &[], body.to_string()).remove(0)
    };
    for (metadata, kind, provider) in [
        (json!({"repository": "acme/app"}), "ci", "github"),
        (json!({"project_path": "g/a"}), "ci", "gitlab"),
        (json!({"pipeline_slug": "deploy", "build_number": "7"}), "ci", "buildkite"),
        (json!({"oidc.circleci.com/project-id": "p-1", "oidc.circleci.com/job-id": "j"}), "ci", "circleci"),
        (json!({"sub": "system:serviceaccount:shop:web"}), "workload", "-"),
        (json!({"role": "x"}), "service", "-"),
        (json!({"role": "x", "email": "ann@example.com"}), "human", "-"),
        (json!({"iss": "https://oidc.eks.eu-west-1.amazonaws.com/id/A"}), "workload", "-"),
    ] {
        let expected = [("action", "token.issued"), ("actor.type", kind), ("ci.provider", provider)];
        assert_fields(&login(metadata), &expected);
    }
}

#[test]
fn vault_methods_and_what_they_leave() {
    let event = |method: &str, display: &str, metadata: Value, login: bool| {
        let auth = json!({"accessor": "a", "display_name": display, "metadata": metadata});
        let path = if login { format!("auth/{method}/login") } else { "kv/data/app".to_owned() };
        let mut body = json!({"time": "2026-03-15T10:00:00Z", "type": "response", "auth": auth,
            "request": {"id": "r", "operation": "update", "path": path, "mount_type": if login { method } else { "kv" }}});
        if login {
            body["response"] = json!({"auth": auth});
        }
        decoded(SourceType::VaultAudit, &[], body.to_string()).remove(0)
    };
    for (method, display, metadata, kind) in [
        ("ldap", "corp-ann", json!({"username": "ann"}), "human"),
        ("userpass", "people-ann", json!({"username": "ann"}), "human"),
        ("kubernetes", "prod-eu-shop-web", json!({"service_account_name": "web"}), "workload"),
        ("aws", "accounts-deploy", json!({"client_arn": "arn:aws:iam::1:role/x"}), "workload"),
        ("approle", "approle", json!({"role_name": "deploy"}), "service"),
        // A mount may be called anything.
        ("jwt", "github-actions-app", json!({"role": "x"}), "service"),
    ] {
        for login in [true, false] {
            let event = event(method, display, metadata.clone(), login);
            assert_fields(&event, &[("actor.type", kind), ("actor.id", display)]);
        }
    }
    assert_fields(&event("token", "root", json!({}), false), &[("actor.type", "human")]);
}

#[test]
fn aws_sessions() {
    let event = |identity: Value| {
        let body = json!({"eventName": "GetObject", "eventSource": "s3.amazonaws.com", "eventTime": "2026-03-15T10:00:00Z",
            "userIdentity": identity});
        decoded(SourceType::AwsCloudtrail, &[], body.to_string()).remove(0)
    };
    let federated = |provider: &str| {
        json!({"type": "AssumedRole", "principalId": "AROA1:x", "arn": "arn:aws:sts::1:assumed-role/r/x",
            "sessionContext": {"webIdFederationData": {"federatedProvider": provider}}})
    };
    let session = |name: &str| {
        json!({"type": "AssumedRole", "principalId": format!("AROA1:{name}"), "arn": format!("arn:aws:sts::1:assumed-role/r/{name}"),
            "sessionContext": {"sessionIssuer": {"userName": "r"}}})
    };
    let oidc = "arn:aws:iam::1:oidc-provider";
    for (identity, kind) in [
        (federated(&format!("{oidc}/token.actions.githubusercontent.com")), "ci"),
        (federated(&format!("{oidc}/gitlab.com")), "ci"),
        (federated(&format!("{oidc}/oidc.eks.eu-west-1.amazonaws.com/id/AB")), "workload"),
        (federated(&format!("{oidc}/oidc.acme.example/clusters/a")), "workload"),
        (federated("accounts.google.com"), "workload"),
        (session("i-0123456789abcdef0"), "workload"),
        (session("eks-prod-web-77aa"), "workload"),
        (session("0123456789abcdef0123456789abcdef"), "workload"),
        (session("AWSCodeBuild-12ab34cd"), "ci"),
        (session("ann@example.com"), "human"),
        (session("deploy"), "service"),
        (json!({"type": "IAMUser", "userName": "ann"}), "human"),
        // With her session, on her behalf.
        (json!({"type": "IAMUser", "userName": "ann", "invokedBy": "kms.amazonaws.com"}), "human"),
        (json!({"type": "AWSService", "invokedBy": "ec2.amazonaws.com"}), "service"),
        (
            json!({"type": "AssumedRole", "principalId": "AROA1:x", "invokedBy": "inspector2.amazonaws.com",
                "arn": "arn:aws:sts::1:assumed-role/AWSServiceRoleForAmazonInspector2/x"}),
            "service",
        ),
        (json!({"type": "AWSAccount", "principalId": "AIDA1", "accountId": "2"}), "human"),
        (json!({"type": "AWSAccount", "principalId": "AROA1:i-0123", "accountId": "2"}), "workload"),
        (json!({"type": "AWSAccount", "principalId": "AROA1:deploy", "accountId": "2"}), "service"),
        (json!({"type": "SAMLUser", "userName": "ann", "identityProvider": "https://idp.example"}), "human"),
    ] {
        assert_fields(&event(identity), &[("actor.type", kind)]);
    }
}

#[test]
fn a_gke_entry_is_an_audit_event_with_its_native_fields() {
    let text = include_str!("../../../tests/fixtures/gcp_audit/after-documentation.ndjson");
    let entry = text.lines().find(|line| line.contains("io.k8s.core.v1.secrets.get")).unwrap();
    let event = &decoded(SourceType::KubernetesAudit, &[], entry.to_owned())[0];
    assert_fields(
        event,
        &[
            ("action", "secret.read"),
            ("secret.path", "shop/db"),
            ("k8s.cluster", "prod-eu"),
            ("actor.type", "workload"),
            ("src.ip", "203.0.113.9"),
            ("outcome", "success"),
        ],
    );
    let native: Value = serde_json::from_slice(&event.native).unwrap();
    assert_eq!((&native["objectRef"]["resource"], &native["verb"]), (&json!("secrets"), &json!("get")));
    // The same entry as a Google Cloud log says the same, and keeps its own native form.
    let cloud = &decoded(SourceType::GcpAudit, &[], entry.to_owned())[0];
    assert_fields(cloud, &[("action", "secret.read"), ("secret.path", "shop/db"), ("cloud.account", "acme-prod")]);
    assert!(cloud.native.starts_with(b"{\"insertId\""));
}

#[test]
fn what_a_relying_party_keeps_joins_the_run_and_the_job_of_the_systems_own_events() {
    use engine::fields::Field;
    let joins = |event: &engine::event::Event| {
        [Field::CiRunId, Field::CiJobId, Field::CiRef].map(|field| event.fields.get_text(field).map(str::to_owned))
    };
    let vault = |claims: &Value| {
        let body = json!({"time": "2026-03-15T10:00:00Z", "type": "response", "request": {"id": "r", "operation": "update", "path": "auth/jwt/login"},
            "response": {"auth": {"accessor": "a", "display_name": "jwt-x", "metadata": claims}}});
        decoded(SourceType::VaultAudit, &[], body.to_string()).remove(0)
    };
    let sts = |issuer: &str, session: &str, claims: &Value| {
        let body = json!({"eventVersion": "1.09", "eventTime": "2026-03-15T10:00:00Z", "eventSource": "sts.amazonaws.com",
            "eventName": "AssumeRoleWithWebIdentity", "eventID": "e1",
            "userIdentity": {"type": "WebIdentityUser", "userName": "x", "identityProvider": format!("arn:aws:iam::1:oidc-provider/{issuer}")},
            "requestParameters": {"roleArn": "arn:aws:iam::1:role/deploy", "roleSessionName": session, "principalTags": claims},
            "responseElements": {"credentials": {"accessKeyId": "ASIAEXAMPLE000000001"}}});
        decoded(SourceType::AwsCloudtrail, &[], body.to_string()).remove(0)
    };
    let job = "018f2a6e-0000-4000-8000-00000000000a";
    let run = "018f2a6e-0000-4000-8000-00000000000b";
    for (issuer, claims, expected) in [
        (
            "token.actions.githubusercontent.com",
            json!({"repository": "acme/app", "run_id": "11", "check_run_id": "12", "ref": "refs/heads/main", "pipeline_id": "99"}),
            [Some("11"), Some("12"), Some("refs/heads/main")],
        ),
        (
            "gitlab.com",
            json!({"project_path": "acme/app", "pipeline_id": "21", "job_id": "22", "ref": "v1", "ref_type": "tag"}),
            [Some("21"), Some("22"), Some("refs/tags/v1")],
        ),
        // A name alone may be of a branch or of a tag.
        (
            "gitlab.com",
            json!({"project_path": "acme/app", "pipeline_id": "21", "job_id": "22", "ref": "v1"}),
            [Some("21"), Some("22"), None],
        ),
        // Its `pipeline_id` is no run, and the number of a build is not what its events call it.
        (
            "agent.buildkite.com",
            json!({"pipeline_slug": "app", "pipeline_id": run, "build_number": "7", "job_id": job, "build_branch": "main"}),
            [None, Some(job), Some("refs/heads/main")],
        ),
        // A run of its events is a workflow.
        (
            "oidc.circleci.com/org/1",
            json!({"oidc.circleci.com/project-id": "p", "oidc.circleci.com/pipeline-id": "x", "oidc.circleci.com/workflow-id": run,
                "oidc.circleci.com/job-id": job, "oidc.circleci.com/vcs-ref": "refs/heads/main"}),
            [Some(run), Some(job), Some("refs/heads/main")],
        ),
    ] {
        let expected = expected.map(|text| text.map(str::to_owned));
        assert_eq!(joins(&vault(&claims)), expected, "Vault, {issuer}");
        assert_eq!(joins(&sts(issuer, "deploy", &claims)), expected, "STS, {issuer}");
    }
    // Buildkite's plugin names the session after the job.
    assert_eq!(joins(&sts("agent.buildkite.com", job, &json!({})))[1].as_deref(), Some(job));
    assert_eq!(joins(&sts("agent.buildkite.com", "deploy", &json!({})))[1], None);
}
