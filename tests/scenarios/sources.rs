//! Sources and tokens: added, listed, rotated, removed, by command line and API.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Server, expect_exit, fixture, items, program, secret_of, stderr, stdout, token_of};

#[tokio::test]
async fn an_added_source_tells_how_to_send_and_accepts() {
    let server = Server::start();
    let added = server.add_source("acme-prod", "kubernetes.audit", &["cluster=prod-eu", "env=prod"]);
    assert!(added["url"].as_str().unwrap().ends_with("/v1/events/acme-prod"), "{added}");
    let body =
        br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a-1","stage":"ResponseComplete","verb":"get"}"#;
    server.send("acme-prod", &token_of(&added), body.to_vec()).await.expect(200);
    server.settled().await;
    let rows = server.sql("SELECT k8s_cluster, environment FROM events WHERE source = 'acme-prod'").await;
    assert_eq!(rows, [[json!("prod-eu"), json!("prod")]], "labels travel with every event");

    let listed = items(&server.cli_json(&["sources", "list"]), "sources");
    let listed = listed.iter().find(|source| source["name"] == "acme-prod").expect("the source is listed");
    assert_eq!(listed["type"], "kubernetes.audit");
    assert!(!listed.to_string().contains(&token_of(&added)), "a list shows no secret: {listed}");
}

#[test]
fn for_people_the_answer_is_a_ready_sender_configuration() {
    let server = Server::start();
    for (name, kind, needle) in [
        ("hooks", "github.webhook", "application/json"),
        ("audit", "kubernetes.audit", "apiVersion: v1"),
        ("vault", "vault.audit", "/v1/events/vault"),
    ] {
        let output = server.cli(&["sources", "add", name, "--type", kind, "--format", "human"]);
        expect_exit(&output, 0);
        let text = stdout(&output) + &stderr(&output);
        assert!(text.contains(&format!("/v1/events/{name}")) && text.contains(needle), "{kind}: {text}");
    }
}

#[tokio::test]
async fn after_a_rotation_the_old_and_the_new_secret_hold_until_the_next() {
    let server = Server::start();
    let first = server.add_github("hooks");
    let rotated = server.cli_json(&["sources", "rotate", "hooks"]);
    let second = secret_of(&rotated);
    assert_ne!(first, second);
    let body = fixture("github_webhook/ping/ping.json");
    server.send_github("hooks", &first, "ping", "d-1", &body).await.expect(200);
    server.send_github("hooks", &second, "ping", "d-2", &body).await.expect(200);

    let third = secret_of(&server.cli_json(&["sources", "rotate", "hooks"]));
    server.send_github("hooks", &third, "ping", "d-3", &body).await.expect(200);
    server.send_github("hooks", &second, "ping", "d-4", &body).await.expect(200);
    server.send_github("hooks", &first, "ping", "d-5", &body).await.expect(401);
    server.settled().await;
    assert_eq!(server.count("SELECT count(*) FROM events WHERE source = 'hooks'").await, 4);
}

#[tokio::test]
async fn a_removed_source_is_unknown() {
    let server = Server::start();
    let token = token_of(&server.add_source("gone", "json", &[]));
    server.send("gone", &token, "{}").await.expect(200);
    expect_exit(&server.cli(&["sources", "remove", "gone"]), 0);
    let refused = server.send("gone", &token, "{}").await;
    assert!([401, 404].contains(&refused.status.as_u16()), "{}", refused.text());
    let listed = items(&server.cli_json(&["sources", "list"]), "sources");
    assert!(listed.iter().all(|source| source["name"] != "gone"));
    expect_exit(&server.cli(&["sources", "remove", "gone"]), 2);
}

#[tokio::test]
async fn the_api_does_what_the_command_does() {
    let server = Server::start();
    let body = json!({"name": "by-api", "type": "vault.audit", "labels": {"env": "test"}});
    let added = server.api(Method::POST, "/v1/sources", Some(body.clone())).await;
    assert!(added.status.is_success(), "{}", added.text());
    let again = server.api(Method::POST, "/v1/sources", Some(body)).await;
    assert_eq!(again.status.as_u16(), 409, "{}", again.text());
    let rotated = server.api(Method::POST, "/v1/sources/by-api/rotate", Some(json!({}))).await;
    assert!(rotated.status.is_success(), "{}", rotated.text());
    let removed = server.api(Method::DELETE, "/v1/sources/by-api", None).await;
    assert!(removed.status.is_success(), "{}", removed.text());
    server.api(Method::DELETE, "/v1/sources/by-api", None).await.expect(404);
}

#[test]
fn an_unknown_type_names_the_known_ones() {
    let server = Server::start();
    let output = server.cli(&["sources", "add", "x", "--type", "github.webhooks"]);
    expect_exit(&output, 2);
    assert!(stderr(&output).contains("github.webhook"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_source_named_after_its_type_exists_with_the_first_token_for_it() {
    let server = Server::start();
    let token = server.sender("vault.audit");
    server.send("vault.audit", &token, fixture("vault_audit/audit.ndjson")).await.expect(200);
}

#[test]
fn sources_and_tokens_can_be_managed_while_no_server_runs() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let cli = |args: &[&str]| program().args(args).arg("--data").arg(&data).output().unwrap();
    expect_exit(&cli(&["sources", "add", "early", "--type", "json"]), 0);
    let token = stdout(&cli(&["token", "create", "--scope", "events:write", "--source", "early"]));
    let server = crate::harness::Setup::new().on(&data).start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        server.send("early", token.trim(), "{}").await.expect(200);
    });
}
