//! What is received: a body for every source type, from the fixtures, or made up where there is none.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::record::{CollectionMode, Record};
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use pipeproof_ingest::receive::{Limits, Receiver, ReceiverKeys, Request, SourceSettings};

/// Source type, fixture, member that holds the payload.
const OWN: &[(SourceType, &str, Option<&str>)] = &[
    (SourceType::GithubWebhook, "github_webhook/octokit-webhooks.ndjson", Some("payload")),
    (SourceType::GithubJoblog, "github_actions_log/ghaperf_testdata_log.log", None),
    (SourceType::AwsCloudtrail, "aws_cloudtrail/invictus-aws.ndjson", None),
    (SourceType::KubernetesAudit, "k8s_audit/audit2rbac.ndjson", None),
    (SourceType::GcpAudit, "gcp_audit/google-cloudevents.ndjson", None),
    (SourceType::AzureSignin, "azure_monitor/after-documentation.ndjson", None),
    (SourceType::AzureActivity, "azure_monitor/plaso.ndjson", None),
    (SourceType::AzureKeyvault, "azure_monitor/after-documentation.ndjson", None),
    (SourceType::KubernetesEvent, "k8s_event/kyverno-conformance-events.ndjson", None),
    (SourceType::KubernetesAdmission, "k8s_admissionreview/after-api.ndjson", None),
    (SourceType::KyvernoReport, "policy_report/kyverno-conformance.ndjson", None),
    (SourceType::OpaDecision, "opa_decision/after-documentation.ndjson", None),
    (SourceType::GatekeeperAudit, "gatekeeper/website-docs.ndjson", None),
    (SourceType::Argocd, "argocd/after-source.ndjson", None),
    (SourceType::Flux, "flux/notification-controller-docs.ndjson", None),
    (SourceType::Falco, "falco/falco-website.ndjson", None),
    (SourceType::Tetragon, "tetragon/tetragon-md.ndjson", None),
    (SourceType::Tracee, "tracee/tracee-docs.ndjson", None),
    (SourceType::HardenRunner, "harden_runner/after-source.ndjson", None),
    (SourceType::Okta, "okta/ocsf-examples-raw.ndjson", None),
    (SourceType::Cloudevents, "cloudevents/spec-md.ndjson", None),
    (SourceType::Otlp, "otlp_logs/otel-proto-examples.ndjson", None),
    (SourceType::SigstoreBundle, "sigstore_bundle/sigstore-conformance.ndjson", Some("bundle")),
];

/// Source types whose fixtures the whole workspace shares, as they are sent.
const SHARED: &[(SourceType, &str)] = &[
    (SourceType::GithubAudit, "github_audit/ocsf-examples-raw.ndjson"),
    (SourceType::GitlabWebhook, "gitlab_webhook/drone-go-scm.ndjson"),
    (SourceType::GitlabAudit, "gitlab_audit/streamed.ndjson"),
    (SourceType::GitlabJoblog, "gitlab_joblog/timestamps.log"),
    (SourceType::Jenkins, "jenkins/audit-trail.log"),
    (SourceType::CircleciWebhook, "circleci_webhook/completed.ndjson"),
    (SourceType::CircleciAudit, "circleci_audit/streamed.ndjson"),
    (SourceType::Buildkite, "buildkite/webhook.ndjson"),
    (SourceType::Cdevents, "cdevents/cdevents-spec.ndjson"),
    (SourceType::RekorEntry, "rekor_entry/sigstore-conformance-tlog-entries.ndjson"),
    (SourceType::IntotoStatement, "intoto_statement/slsa-verifier.ndjson"),
    (SourceType::SbomCyclonedx, "sbom_cyclonedx/specification.ndjson"),
    (SourceType::SbomSpdx, "sbom_spdx/spdx-examples.ndjson"),
    (SourceType::Trivy, "trivy/goldens.ndjson"),
    (SourceType::Grype, "grype/grype.ndjson"),
    (SourceType::Sarif, "sarif/codeql-action.ndjson"),
    (SourceType::Gitleaks, "gitleaks/gitleaks.ndjson"),
    (SourceType::JenkinsJoblog, "jenkins_joblog/timestamps.log"),
    (SourceType::BuildkiteJoblog, "buildkite_joblog/agent.log"),
    (SourceType::ProviderLedger, "provider_ledger/github.ndjson"),
];

/// A body of every source type that takes one.
pub(crate) fn all() -> Vec<(SourceType, Bytes)> {
    let own = OWN.iter().map(|(kind, file, payload)| (*kind, own(file, *payload)));
    let made = [(SourceType::VaultAudit, vault()), (SourceType::Json, vault())];
    let shared = SHARED.iter().map(|(kind, file)| (*kind, shared(file)));
    let bodies: Vec<_> = own.chain(made).chain(shared).collect();
    // Records of the program itself come from nowhere else.
    for kind in SourceType::ALL.iter().filter(|kind| **kind != SourceType::Pipeproof) {
        assert!(bodies.iter().any(|(covered, _)| covered == kind), "{kind} has no body here");
    }
    bodies
}

fn shared(file: &str) -> Bytes {
    std::fs::read(format!("{}/../tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap().into()
}

fn own(file: &str, payload: Option<&str>) -> Bytes {
    let text = std::fs::read_to_string(format!("{}/tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let Some(member) = payload else { return text.into() };
    let lines = text.lines().map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value[member].to_string()
    });
    lines.collect::<Vec<_>>().join("\n").into()
}

fn vault() -> Bytes {
    let line = |number: u32| {
        serde_json::json!({"time": "2025-03-15T10:00:00.123456789Z", "type": "response",
            "auth": {"accessor": format!("hmac-sha256:{number:064}"), "display_name": "jwt-deploy", "policies": ["ci"],
                "metadata": {"role": "deploy", "repository": "acme/app", "run_id": number.to_string(), "ref": "refs/heads/main"}},
            "request": {"id": format!("r{number}"), "operation": "read", "path": "secret/data/prod/db", "mount_point": "secret/",
                "mount_type": "kv", "remote_address": "198.51.100.7"},
            "response": {"data": {"data": {"password": format!("hmac-sha256:{number:064}")}, "metadata": {"version": 3}}}})
        .to_string()
    };
    (0..100).map(line).collect::<Vec<_>>().join("\n").into()
}

pub(crate) fn receiver() -> Receiver {
    Receiver::new(ReceiverKeys { redaction: [1; 32], dedup: [2; 32] }, Limits::default())
}

pub(crate) fn source(kind: SourceType) -> SourceSettings {
    SourceSettings {
        name: "acme".to_owned(),
        source_type: kind,
        labels: BTreeMap::new(),
        secrets: Vec::new(),
        connected: Timestamp::MIN,
    }
}

pub(crate) fn receive(receiver: &Receiver, source: &SourceSettings, body: &Bytes) -> Vec<Record> {
    let request = Request {
        source,
        headers: &http::HeaderMap::new(),
        query: &BTreeMap::new(),
        body: body.clone(),
        received: Timestamp::from_secs(1_800_000_000),
        bearer: Some("t".to_owned()),
        mode: CollectionMode::Live,
    };
    receiver.accept(request).unwrap()
}
