//! Running it: health, metrics, the API's own description, logs, an orderly end, one process a folder.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;

use crate::crash::serve_once;
use crate::harness::{Server, Setup, has_tool, left_out, token_of};

#[tokio::test]
async fn health_readiness_and_metrics_answer_with_the_embedded_defaults() {
    let server = Setup::new().without_config().start();
    let token = token_of(&server.add_source("any", "json", &[]));
    server.send("any", &token, r#"[{"a":1},{"a":2}]"#).await.expect(200);
    server.settled().await;
    server.raw(Method::GET, "/healthz", &[], Vec::new()).await.expect(200);
    server.raw(Method::GET, "/readyz", &[], Vec::new()).await.expect(200);
    let metrics = server.token(&["metrics:read"], &[]);
    let reply = server.api_as(&metrics, Method::GET, "/metrics", None).await;
    let text = reply.expect(200).text();
    assert!(reply.headers["content-type"].to_str().unwrap().starts_with("text/plain"), "{:?}", reply.headers);
    for metric in ["pipeproof_", "# HELP", "# TYPE"] {
        assert!(text.contains(metric), "{text}");
    }
    // Counters that are there before anything fails can be alerted on.
    for work in ["seal", "retire", "merge", "snapshot"] {
        assert!(text.contains(&format!("pipeproof_upkeep_failures_total{{work=\"{work}\"}} 0")), "{text}");
    }
    let sample = |line: &str| {
        line.starts_with('#') || line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok())
    };
    assert!(text.lines().all(|line| line.is_empty() || sample(line)), "{text}");
}

#[tokio::test]
async fn every_described_route_is_closed_without_a_token_and_with_a_wrong_one() {
    let server = Server::start();
    let description = server.get("/openapi.json").await;
    assert!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{description}");
    let mut routes = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|name| *name != "parameters") {
            routes.insert((path.clone(), method.to_uppercase()));
        }
    }
    for expected in [
        "/v1/events/{source}",
        "/v1/findings",
        "/v1/incidents",
        "/v1/sources",
        "/v1/tokens",
        "/v1/sql",
        "/v1/evidence",
        "/v1/kpi",
    ] {
        assert!(routes.iter().any(|(path, _)| path == expected), "{expected} is not described: {routes:?}");
    }
    // Open by design: probes carry no token, and the description is the same everywhere.
    let open = ["/healthz", "/readyz", "/openapi.json", "/services/collector/health", "/services/collector/health/1.0"];
    let mut tried = 0;
    for (path, method) in &routes {
        let concrete: String =
            path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect::<Vec<_>>().join("/");
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        for headers in
            [&[][..], &[("authorization", "Bearer ppt_no_such_token")][..], &[("authorization", "Basic eDp4")][..]]
        {
            let reply = server.raw(method.clone(), &concrete, headers, Vec::new()).await;
            if open.contains(&path.as_str()) {
                reply.expect(200);
            } else {
                assert_eq!(reply.status.as_u16(), 401, "{method} {path} with {headers:?}: {}", reply.text());
                tried += 1;
            }
        }
    }
    assert!(tried > 40, "only {tried} tries");
}

#[tokio::test]
async fn a_scope_opens_its_routes_only() {
    let server = Server::start();
    let sender = server.token(&["events:write"], &[]);
    for path in ["/v1/findings", "/v1/incidents", "/v1/sources", "/v1/tokens", "/v1/status", "/v1/deadletters"] {
        server.api_as(&sender, Method::GET, path, None).await.expect(403);
    }
    let reader = server.token(&["findings:read"], &[]);
    server.api_as(&reader, Method::GET, "/v1/findings", None).await.expect(200);
    server
        .api_as(&reader, Method::POST, "/v1/tokens", Some(serde_json::json!({"scopes": ["admin"]})))
        .await
        .expect(403);
    server.api_as(&reader, Method::POST, "/v1/incidents/i-x/ack", Some(serde_json::json!({}))).await.expect(403);
}

#[tokio::test]
async fn a_revoked_token_is_worth_nothing() {
    let server = Server::start();
    let reader = server.token(&["findings:read"], &["--note", "to be revoked"]);
    server.api_as(&reader, Method::GET, "/v1/findings", None).await.expect(200);
    let tokens = crate::harness::items(&server.cli_json(&["token", "list"]), "tokens");
    let id = tokens.iter().find(|token| token["note"] == "to be revoked").expect("the token is listed")["id"]
        .as_str()
        .unwrap();
    assert!(tokens.iter().all(|token| !token.to_string().contains(&reader)), "a list shows no token");
    crate::harness::expect_exit(&server.cli(&["token", "revoke", id]), 0);
    server.api_as(&reader, Method::GET, "/v1/findings", None).await.expect(401);
}

#[tokio::test]
async fn the_log_is_json_and_tells_no_token() {
    let folder = tempfile::TempDir::new().unwrap();
    let server = Setup::new().on(&folder.path().join("data")).start();
    let token = token_of(&server.add_source("any", "json", &[]));
    server.send("any", &token, "{}").await.expect(200);
    server.send("any", "ppt_wrong_token", "{}").await.expect(401);
    let (_, log) = server.terminate();
    let mut documents = 0;
    for line in log.iter().filter(|line| !line.is_empty()) {
        if line.starts_with("listening on ") {
            continue;
        }
        let document: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
        assert!(document["timestamp"].is_string() && document["level"].is_string(), "{document}");
        assert!(!line.contains(&token), "a token in the log");
        documents += 1;
    }
    assert!(documents > 0, "{log:?}");
}

#[tokio::test]
async fn sigterm_ends_it_in_good_order() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().on(&data).start();
    let token = token_of(&server.add_source("any", "json", &[]));
    server.send("any", &token, "{}").await.expect(200);
    let (status, log) = server.terminate();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(!data.join("run/server.json").exists(), "the local admin token goes with the server");
    let server = Setup::new().on(&data).start();
    server.settled().await;
    let own = server.actions("pipeproof").await;
    assert_eq!(own.get("pipeproof.stopped"), Some(&1), "{own:?}");
    assert_eq!(own.get("pipeproof.started"), Some(&2), "{own:?}");
}

#[test]
fn a_folder_belongs_to_one_process() {
    let server = Server::start();
    let second = serve_once(server.data());
    assert_eq!(second.status.code(), Some(4));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains(&server.data().display().to_string()), "{text}");
}

#[test]
fn plaintext_off_loopback_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let output = crate::harness::run([
        "serve",
        "--listen",
        "0.0.0.0:0",
        "--data",
        &folder.path().join("data").display().to_string(),
    ]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("--allow-plaintext"), "it names the flag: {text}");
}

#[test]
fn a_mistake_in_the_configuration_is_named() {
    let folder = tempfile::TempDir::new().unwrap();
    for (yaml, needle) in [
        ("version: 1\nlissten: 127.0.0.1:0\n", "listen"),
        ("version: 1\nlisten: [\n", "line"),
        ("version: 1\nlisten: nowhere\n", "listen"),
        ("version: 9\n", "version"),
        ("version: 1\nsources: [{name: a, type: github.webhok}]\n", "github.webhook"),
        (
            "version: 1\ntargets: [{name: a, url: 'https://x.example', secrets: [{env: PIPEPROOF_NOT_SET}]}]\n",
            "PIPEPROOF_NOT_SET",
        ),
    ] {
        let path = folder.path().join("pipeproof.yaml");
        std::fs::write(&path, yaml).unwrap();
        let data = folder.path().join("data").display().to_string();
        let output = crate::harness::run(["serve", "--config", &path.display().to_string(), "--data", &data]);
        assert_eq!(output.status.code(), Some(3), "{yaml}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains(needle),
            "{yaml}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[cfg(unix)]
#[test]
fn keys_and_the_local_token_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start();
    let private = crate::harness::files(&server.data().join("keys"));
    assert!(private.len() >= 6, "{private:?}");
    for file in private.iter().chain([&server.data().join("run/server.json")]) {
        let mode = std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
        let public = file.ends_with("anchor.pem");
        assert!(public || mode == 0o600, "{} has mode {mode:o}", file.display());
    }
}

/// A service's data folder may stand in one that others own: `/srv` of mode 711 can be passed through and not listed.
#[cfg(unix)]
#[tokio::test]
async fn the_folder_around_the_data_folder_need_not_be_readable() {
    use std::fs::{Permissions, read_dir, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;
    let around = tempfile::TempDir::new().unwrap();
    let data = around.path().join("data");
    std::fs::create_dir(&data).unwrap();
    set_permissions(around.path(), Permissions::from_mode(0o311)).unwrap();
    let mut setup = Setup::new().on(&data);
    if read_dir(around.path()).is_ok() {
        // We are root, for whom no folder is closed; the program is to be an owner like any other.
        if !has_tool("setpriv") {
            return left_out(
                "a data folder in a folder that cannot be read",
                "root needs setpriv to be refused anything",
            );
        }
        setup = setup.under(&["setpriv", "--bounding-set=-dac_override,-dac_read_search"]);
    }
    let server = setup.start();
    let token = token_of(&server.add_source("any", "json", &[]));
    server.send("any", &token, "{\"n\": 1}").await.expect(200);
    server.settled().await;
    set_permissions(around.path(), Permissions::from_mode(0o700)).unwrap();
}
