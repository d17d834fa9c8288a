//! Plain JSON, our own records, dead letters, and nonsense.

use engine::record::Position;
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use proptest::prelude::*;
use serde_json::json;

use super::super::decode;
use super::{assert_fields, decoded, fields, record};

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
        (SourceType::GithubAudit, "{\"actor\":\"ann\"}", "not an entry of GitHub's audit log"),
        (SourceType::GitlabWebhook, "{\"text\":\"of a template\"}", "a custom template must keep one"),
        (SourceType::GitlabAudit, "{\"id\":1}", "not a GitLab audit event"),
        (SourceType::Jenkins, "something else", "neither JSON nor a line of the audit-trail plugin"),
        (SourceType::Jenkins, "{\"a\":1}", "not a Jenkins event"),
        (SourceType::CircleciWebhook, "{\"type\":\"job-completed\"}", "not a CircleCI webhook payload"),
        (SourceType::CircleciAudit, "{\"action\":\"x\"}", "not an entry of CircleCI's audit log"),
        (SourceType::Buildkite, "{\"event\":7}", "not a Buildkite event"),
        (SourceType::Cdevents, "{\"context\":{\"type\":\"org.example.a.b\"},\"subject\":{}}", "not a CDEvent"),
        (SourceType::RekorEntry, "{\"body\":\"%\"}", "its body is not Base64"),
        (SourceType::IntotoStatement, "{\"payloadType\":\"x\",\"payload\":\"%\"}", "not an in-toto statement"),
        (SourceType::SbomCyclonedx, "{\"bomFormat\":\"SPDX\"}", "not a CycloneDX document"),
        (SourceType::SbomSpdx, "{\"@context\":\"x\",\"@graph\":[]}", "not an SPDX document"),
        (SourceType::Trivy, "{\"Results\":[]}", "not a Trivy report"),
        (SourceType::Grype, "{\"matches\":[]}", "not a Grype report"),
        (SourceType::Sarif, "{\"version\":\"2.1.0\",\"runs\":[{\"results\":42}]}", "are not a list"),
        (SourceType::Gitleaks, "{\"RuleID\":\"x\"}", "not a gitleaks finding"),
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
            drop(decode(Position::default(), &record(*kind, &[], bytes.clone())));
        }
    }

    /// The same behind what lets each type's items in.
    #[test]
    fn no_decoder_panics_on_shapes_it_lets_in(value in shape(), gate in proptest::sample::select(gates())) {
        let (kind, known) = gate;
        let mut body = value.as_object().cloned().unwrap_or_default();
        let known = known.as_object().unwrap().clone();
        for (name, value) in known {
            match (body.get_mut(&name).and_then(serde_json::Value::as_object_mut), value) {
                (Some(inner), serde_json::Value::Object(known)) => inner.extend(known),
                (_, value) => drop(body.insert(name, value)),
            }
        }
        drop(decode(Position::default(), &record(kind, &[], serde_json::Value::Object(body).to_string())));
    }

    /// Text made of the words that lines of logs are told by.
    #[test]
    fn no_decoder_panics_on_lines(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..12)) {
        for kind in SourceType::ALL {
            drop(decode(Position::default(), &record(*kind, &[], words.concat())));
        }
    }

    /// Objects made of the names decoders look for, with values of every kind.
    #[test]
    fn no_decoder_panics_on_shapes(value in shape()) {
        for kind in SourceType::ALL {
            for event in ["", "push", "workflow_job", "deployment_status", "branch_protection_rule", "repository_ruleset", "package"] {
                let attributes = [("x-github-event", event)];
                let attributes = if event.is_empty() { &[][..] } else { &attributes[..] };
                drop(decode(Position::default(), &record(*kind, attributes, value.to_string())));
            }
        }
    }
}

const WORDS: &[&str] = &[
    "Nov 3, 2026 4:05:06,123 PM ",
    "Nov 3, 2026 99:99:99 XM",
    "A groovy script was executed by user '",
    ") used credentials '",
    "'",
    "job/a/",
    " #",
    "7 ",
    ", Parameters:[",
    " completed: ",
    " on node ",
    " started at ",
    "/configSubmit",
    " by ",
    " from ",
    "section_start:",
    "1772449200:",
    "\r",
    "\u{1b}[0K",
    "\u{1b}",
    "2026-03-02T11:00:00.100000Z ",
    "00O+",
    "Using docker image ",
    " for ",
    " with digest ",
    "on ",
    "ü",
    "\0",
    "\n",
];

/// What lets an item of each type in, for shapes to be put around.
fn gates() -> Vec<(SourceType, serde_json::Value)> {
    let mut all = vec![
        (SourceType::GithubAudit, json!({"action": "protected_branch.update_x"})),
        (
            SourceType::GitlabAudit,
            json!({"entity_type": "Project", "author_id": -3, "event_type": "ci_variable_updated"}),
        ),
        (SourceType::CircleciWebhook, json!({"type": "job-completed", "happened_at": 1})),
        (SourceType::CircleciAudit, json!({"action": "context.secrets.accessed", "occurred_at": 1})),
        (SourceType::Buildkite, json!({"type": "SecretReadEvent", "occurred_at": 1})),
        (SourceType::RekorEntry, json!({"kind": "hashedrekord", "spec": {"data": {"content": "AA=="}}})),
        (SourceType::RekorEntry, json!({"kind": "dsse", "spec": {"aV002": {"signatures": [{"verifier": {}}]}}})),
        (SourceType::IntotoStatement, json!({"predicateType": "https://slsa.dev/provenance/v1", "subject": []})),
        (SourceType::IntotoStatement, json!({"predicateType": "https://slsa.dev/provenance/v0.2", "subject": [{}]})),
        (SourceType::SbomCyclonedx, json!({"bomFormat": "CycloneDX"})),
        (SourceType::SbomSpdx, json!({"spdxVersion": "SPDX-2.3"})),
        (SourceType::SbomSpdx, json!({"@context": "https://spdx.org/rdf", "@graph": [{"type": "CreationInfo"}]})),
        (SourceType::Trivy, json!({"SchemaVersion": 2, "ArtifactType": "container_image"})),
        (SourceType::Trivy, json!({"apiVersion": "aquasecurity.github.io/v1alpha1", "kind": "VulnerabilityReport"})),
        (SourceType::Grype, json!({"matches": [{}], "descriptor": {}})),
        (SourceType::Sarif, json!({"version": "2.1.0", "runs": [{"results": [{"ruleIndex": 9}]}]})),
        (SourceType::Gitleaks, json!({"RuleID": "x", "Secret": "redacted:a:b:c"})),
    ];
    for kind in ["push", "merge_request", "pipeline", "build", "deployment", "release", "user_add_to_team", "other"] {
        all.push((SourceType::GitlabWebhook, json!({"object_kind": kind})));
    }
    for event in ["build.finished", "job.finished", "agent.lost", "ping"] {
        all.push((SourceType::Buildkite, json!({"event": event})));
    }
    for member in ["build", "jenkinsQueueId", "configFile", "nodeName", "message"] {
        all.push((SourceType::Jenkins, json!({member: {}})));
    }
    for kind in ["pipelinerun.finished", "artifact.published", "approval.closed", "x.y"] {
        let kind = format!("dev.cdevents.{kind}.0.1.0");
        all.push((SourceType::Cdevents, json!({"context": {"type": kind}, "subject": {}})));
    }
    all
}

pub(super) fn shape() -> impl Strategy<Value = serde_json::Value> {
    const NAMES: &[&str] = &[
        "object_attributes",
        "project",
        "user",
        "commit",
        "build",
        "job",
        "pipeline",
        "agent",
        "repository",
        "actor",
        "target",
        "context",
        "detail",
        "details",
        "event",
        "content",
        "id",
        "predicate",
        "runDetails",
        "buildDefinition",
        "invocation",
        "body",
        "data",
        "signature",
        "signatures",
        "Results",
        "Metadata",
        "Vulnerabilities",
        "report",
        "vulnerabilities",
        "components",
        "tools",
        "packages",
        "source",
        "runs",
        "results",
        "locations",
        "physicalLocation",
        "rules",
        "tool",
        "driver",
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
