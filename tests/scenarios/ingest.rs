//! Every source type with real payloads, in every framing a sender may use.

use std::collections::BTreeSet;
use std::io::Write as _;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, fixture, items, json_fixture, ndjson_fixture, stdout, token_of};

/// As `gzip` writes it.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn github_webhooks_arrive_signed_and_keep_their_event_name() {
    let server = Server::start();
    let secret = server.add_github("hooks");
    let events = [
        ("push", "push/push.json", "git.push"),
        ("pull_request", "pull_request/pull_request_opened.json", "change.opened"),
        ("pull_request", "pull_request/pull_request_closed.json", "change.closed"),
        ("pull_request_review", "pull_request_review/pull_request_review_submitted.json", "change.reviewed"),
        ("workflow_run", "workflow_run/workflow_run_completed.json", "run.finished"),
        ("workflow_job", "workflow_job/workflow_job_completed_failure.json", "job.finished"),
        ("workflow_job", "workflow_job/workflow_job_in_progress.json", "job.started"),
        (
            "branch_protection_rule",
            "branch_protection_rule/branch_protection_rule_created.json",
            "protected_branch.create",
        ),
        (
            "branch_protection_rule",
            "branch_protection_rule/branch_protection_rule_deleted.json",
            "protected_branch.destroy",
        ),
        ("deployment", "deployment/deployment.json", "deploy.started"),
        ("deployment_status", "deployment_status/deployment_status.json", "deploy.progressed"),
        ("deploy_key", "deploy_key/deploy_key_created.json", "token.created"),
    ];
    for (index, (event, file, _)) in events.iter().enumerate() {
        let body = fixture(&format!("github_webhook/{file}"));
        let reply = server.send_github("hooks", &secret, event, &format!("delivery-{index}"), &body).await;
        assert_eq!(reply.expect(200).json()["accepted"], 1, "{event}");
    }
    let actions: BTreeSet<String> = server.actions("hooks").await.into_keys().collect();
    let expected: BTreeSet<String> = events.iter().map(|(_, _, action)| (*action).to_owned()).collect();
    assert!(actions.is_superset(&expected), "missing {:?}", expected.difference(&actions).collect::<Vec<_>>());
    let failed = "SELECT ci_repo, outcome, runner_name FROM events WHERE source = 'hooks' AND action = 'job.finished'";
    assert_eq!(
        server.sql(failed).await,
        [[json!("Codertocat/Hello-World"), json!("failure"), json!("GitHub Actions 5")]]
    );
    assert_eq!(server.sql("SELECT DISTINCT auth FROM events WHERE source = 'hooks'").await, [[json!("hmac")]]);
}

#[tokio::test]
async fn a_job_log_shows_its_actions_and_permissions() {
    let server = Server::start();
    let token = token_of(&server.add_source("logs", "github.joblog", &[]));
    let path = "logs?repo=acme/app&run_id=71&job_id=9&attempt=1";
    let log = fixture("github_joblog/ghaperf.log");
    server.send_with(path, &token, &[("content-type", "text/plain")], log).await.expect(200);
    let actions = server.actions("logs").await;
    assert_eq!(actions.get("job.log"), Some(&1), "{actions:?}");
    assert!(actions.contains_key("token.issued"), "the permissions of GITHUB_TOKEN are an event: {actions:?}");
    let query = "SELECT action_ref, action_sha, ci_repo, ci_run_id FROM events WHERE action = 'action.resolved'";
    let sha = "ea518c135a02fc11ff8024364510c181a5c6b342";
    assert_eq!(
        server.sql(query).await,
        [[json!(format!("aquaproj/aqua-installer@{sha}")), json!(sha), json!("acme/app"), json!("71")]]
    );
}

#[tokio::test]
async fn a_long_job_log_is_cut_into_records_of_whole_lines() {
    let server = Server::start();
    let token = token_of(&server.add_source("logs", "github.joblog", &[]));
    let mut log = String::new();
    for line in 0..20_000 {
        log.push_str(&format!("2026-01-01T00:00:00.0000000Z line {line} of an ordinary log, long enough to matter\n"));
    }
    let reply = server.send_with("logs?repo=a/b&run_id=1&job_id=1", &token, &[], log.clone().into_bytes()).await;
    let accepted = reply.expect(200).json()["accepted"].as_u64().unwrap();
    assert!(accepted >= log.len() as u64 / (256 * 1024), "{accepted} records for {} bytes", log.len());
    server.settled().await;
    let chunks = server.count("SELECT count(*) FROM events WHERE source = 'logs' AND action = 'job.log'").await;
    assert_eq!(chunks, i64::try_from(accepted).unwrap());
}

#[tokio::test]
async fn vault_entries_arrive_as_lines() {
    let server = Server::start();
    let token = token_of(&server.add_source("vault", "vault.audit", &[]));
    let body = fixture("vault_audit/audit.ndjson");
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    assert_eq!(server.send("vault", &token, body).await.expect(200).json()["accepted"], lines);
    let actions = server.actions("vault").await;
    for action in ["token.issued", "secret.read", "audit_log.disabled", "secret_store.weakened"] {
        assert!(actions.contains_key(action), "no {action} in {actions:?}");
    }
}

#[tokio::test]
async fn a_kubernetes_event_list_is_as_many_events() {
    let server = Server::start();
    let token = token_of(&server.add_source("prod", "kubernetes.audit", &[]));
    let events = ndjson_fixture("kubernetes_audit/audit2rbac.ndjson");
    let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": events});
    let reply = server.send("prod", &token, list.to_string()).await;
    assert_eq!(reply.expect(200).json()["accepted"], 25);
    let actions = server.actions("prod").await;
    assert_eq!(actions.values().sum::<i64>(), 25, "{actions:?}");
    assert_eq!(actions.get("k8s.list"), Some(&8), "{actions:?}");
}

#[tokio::test]
async fn cloudtrail_files_arrive_gzipped_as_records() {
    let server = Server::start();
    let token = token_of(&server.add_source("aws", "aws.cloudtrail", &[]));
    let records = ndjson_fixture("aws_cloudtrail/stratus-red-team.ndjson");
    let body = gzip(json!({ "Records": records }).to_string().as_bytes());
    let reply =
        server.send_with("aws", &token, &[("content-encoding", "gzip"), ("content-type", "application/json")], body);
    assert_eq!(reply.await.expect(200).json()["accepted"], 150);
    let actions = server.actions("aws").await;
    // Three of the calls name 22 parameters.
    assert_eq!(actions.get("secret.read").copied().unwrap_or_default(), 12 + 2 + 22, "{actions:?}");
    assert!(actions.contains_key("token.created"), "{actions:?}");
    let times = server.sql("SELECT min(time), max(time) FROM events WHERE source = 'aws'").await;
    assert!(times[0][0].as_str().unwrap().starts_with("20"), "{times:?}");
}

#[tokio::test]
async fn a_gzip_file_without_the_header_is_recognised() {
    let server = Server::start();
    let token = token_of(&server.add_source("aws", "aws.cloudtrail", &[]));
    let records = ndjson_fixture("aws_cloudtrail/invictus-aws-first-100.ndjson");
    let body = gzip(json!({ "Records": records }).to_string().as_bytes());
    let reply = server.send_with("aws", &token, &[("content-type", "application/gzip")], body).await;
    assert_eq!(reply.expect(200).json()["accepted"], 100);
}

#[tokio::test]
async fn sigstore_bundles_say_who_signed_what() {
    let server = Server::start();
    let token = token_of(&server.add_source("signatures", "sigstore.bundle", &[]));
    for name in ["happy-path-v0.3", "happy-path-v0.2", "rekor2-checkpoint-cosigned"] {
        server
            .send("signatures", &token, json_fixture(&format!("sigstore_bundle/{name}.json")).to_string())
            .await
            .expect(200);
    }
    server.settled().await;
    let query = "SELECT DISTINCT action, artifact_digest, signature_issuer FROM events WHERE source = 'signatures'";
    let digest = "sha256:a0cfc71271d6e278e57cd332ff957c3f7043fdda354c4cbb190a30d56efa01bf";
    let rows = server.sql(query).await;
    assert!(rows.iter().all(|row| row[0] == "artifact.signed" && row[1] == digest), "{rows:?}");
    assert!(rows.iter().any(|row| row[2] == "https://token.actions.githubusercontent.com"), "{rows:?}");
}

#[tokio::test]
async fn generic_json_comes_as_object_array_and_lines_plain_and_compressed() {
    let server = Server::start();
    let token = token_of(&server.add_source("any", "json", &[]));
    let event =
        |id: &str| json!({"id": id, "time": "2026-11-01T10:00:00Z", "action": "git.push", "ci.repo": "acme/app"});
    let array = json!([event("b"), event("c")]).to_string();
    let lines = format!("{}\n{}\n\n{}", event("d"), event("e"), event("f"));
    let compressed = zstd::encode_all(lines.replace("\"d\"", "\"g\"").replace("\"e\"", "\"h\"").as_bytes(), 3).unwrap();
    for (body, encoding, accepted) in [
        (event("a").to_string().into_bytes(), None, 1),
        (array.into_bytes(), None, 2),
        (lines.into_bytes(), None, 3),
        (compressed, Some(("content-encoding", "zstd")), 3),
        (gzip(json!([event("i")]).to_string().as_bytes()), Some(("content-encoding", "gzip")), 1),
    ] {
        let headers: Vec<_> = encoding.into_iter().collect();
        let reply = server.send_with("any", &token, &headers, body).await;
        assert_eq!(reply.expect(200).json()["accepted"], accepted, "{encoding:?}");
    }
    server.settled().await;
    let repos =
        server.sql("SELECT DISTINCT ci_repo, time FROM events WHERE source = 'any' AND action = 'git.push'").await;
    assert_eq!(repos.len(), 1, "{repos:?}");
    // "f" came twice, byte for byte: once plain, once compressed.
    assert_eq!(server.count("SELECT count(*) FROM events WHERE source = 'any'").await, 9);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_kept_as_a_dead_letter() {
    let server = Server::start();
    let token = token_of(&server.add_source("prod", "kubernetes.audit", &[]));
    server.send("prod", &token, "{\"kind\": \"Event\", \"broken\": ").await.expect(200);
    server.send("prod", &token, r#""just a string""#).await.expect(200);
    server.settled().await;
    let letters = items(&server.get("/v1/deadletters").await, "dead_letters");
    let of_prod: Vec<&Value> = letters.iter().filter(|letter| letter["source"] == "prod").collect();
    assert_eq!(of_prod.len(), 2, "{letters:?}");
    assert!(
        of_prod.iter().all(|letter| letter["reason"].as_str().is_some_and(|reason| !reason.is_empty())),
        "{of_prod:?}"
    );
}

#[tokio::test]
async fn reports_of_five_megabytes_are_decoded_whole() {
    let server = Server::start();
    // What repeats itself would be taken for a bomb when it comes compressed.
    let text = |number: usize| -> String {
        (0..170).map(|at| format!("{:05x} ", (number * 170 + at) * 2_654_435_761 % 1_048_573)).collect()
    };
    let components: Vec<Value> = (0..5_000)
        .map(|number: usize| json!({"type": "library", "name": format!("package-{number}"), "description": text(number)}))
        .collect();
    let bom = json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}).to_string();
    let results: Vec<Value> = (0..5_000)
        .map(|number: usize| {
            let level = if number == 4_999 { "error" } else { "note" };
            json!({"ruleId": format!("r{number}"), "level": level, "message": {"text": text(number)}})
        })
        .collect();
    let log = json!({"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "scanner"}}, "results": results}]})
        .to_string();
    for (name, kind, body) in [("boms", "sbom.cyclonedx", &bom), ("scans", "sarif", &log)] {
        assert!(body.len() > 5_000_000);
        let token = token_of(&server.add_source(name, kind, &[]));
        assert_eq!(server.send(name, &token, body.clone()).await.expect(200).json()["accepted"], 1);
        // The same once more is one that repeats it.
        let packed = gzip(body.as_bytes());
        let headers = [("content-encoding", "gzip")];
        assert_eq!(server.send_with(name, &token, &headers, packed).await.expect(200).json()["accepted"], 1);
    }
    let actions = server.actions("boms").await;
    assert_eq!((actions.len(), actions["sbom.created"]), (1, 1), "{actions:?}");
    assert_eq!(server.sql("SELECT sbom_components FROM events WHERE source = 'boms'").await, [[json!(5_000)]]);
    let scan = "SELECT scan_findings, events_left_out FROM events WHERE action = 'scan.finished'";
    assert_eq!(server.sql(scan).await, [[json!(5_000), json!(4_501)]]);
    let found = "SELECT count(*), count(*) FILTER (WHERE scan_rule = 'r4999') FROM events WHERE action = 'scan.found'";
    assert_eq!(server.sql(found).await, [[json!(499), json!(1)]], "the worst of them is among those that have room");
    assert!(items(&server.get("/v1/deadletters").await, "dead_letters").is_empty());
    let metrics = server.api(Method::GET, "/metrics", None).await.text();
    assert!(metrics.contains("pipeproof_source_events_left_out_total{source=\"scans\"} 9002"), "repetitions included");
    // Leaves are derived again from what the lake keeps of them.
    let verified = server.cli(&["doctor", "--verify"]);
    assert!(verified.status.success(), "{}", stdout(&verified));
}
