//! What a source's own numbers and its own silence say: gaps that close, findings that resolve, metrics by source; and its events
//! in the words of others.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, Setup, eventually, expect_exit, is_of, items, now, stdout, token_of};

fn numbered(number: u32) -> Vec<u8> {
    let event = json!({
        "specversion": "1.0", "id": format!("e-{number}"), "source": "/ci/acme", "type": "com.acme.build",
        "time": now().to_string(), "sequence": number.to_string(), "sequencetype": "Integer", "data": {"n": number},
    });
    event.to_string().into_bytes()
}

async fn source(server: &Server, name: &str) -> Value {
    let sources = items(&server.get("/v1/sources").await, "sources");
    sources.into_iter().find(|source| source["name"] == name).unwrap_or_default()
}

#[tokio::test]
async fn a_number_that_is_missing_is_a_gap_until_it_comes() {
    let server = Server::start();
    let token = token_of(&server.add_source("bus", "cloudevents", &[]));
    let binary = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "e-1"),
        ("ce-source", "/ci/acme"),
        ("ce-type", "com.acme.build"),
        ("ce-sequence", "1"),
        ("ce-sequencetype", "Integer"),
    ];
    server.send_with("bus", &token, &binary, b"{\"n\":1}".to_vec()).await.expect(200);
    for number in [2, 5, 2] {
        server.send("bus", &token, numbered(number)).await.expect(200);
    }
    let told = eventually("the missing numbers are told", || async {
        let told = source(&server, "bus").await["sequence"].clone();
        (told["missing"] == 2).then_some(told)
    })
    .await;
    assert_eq!(told["told"][0]["ranges"], json!([[3, 4]]), "{told}");
    assert_eq!((&told["told"][0]["stream"], &told["restarts"]), (&json!("cloudevents//ci/acme"), &json!(0)));
    server.settled().await;
    let windows = "SELECT status, seq_gaps, basis FROM source_window WHERE source_id = 'bus' AND got_count > 0 ORDER BY w_start DESC LIMIT 1";
    let rows = server.sql(windows).await;
    assert_eq!((&rows[0][0], &rows[0][1]), (&json!("gap"), &json!(2)), "{rows:?}");
    let metrics = server.api(Method::GET, "/metrics", None).await.text();
    for line in [
        "pipeproof_source_sequence_missing{source=\"bus\"} 2",
        "pipeproof_source_records_total{source=\"bus\"} 4",
        "pipeproof_source_events_total{source=\"bus\"} 4",
        "pipeproof_source_duplicates_total{source=\"bus\"} 1",
        "pipeproof_source_dead_letters_total{source=\"bus\"} 0",
        "pipeproof_source_skew_seconds{source=\"bus\"} 0",
        "pipeproof_source_silent{source=\"bus\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.contains("pipeproof_source_lag_seconds_bucket{source=\"bus\",le=\"1\"}"), "{metrics}");
    assert!(metrics.contains("pipeproof_source_last_event_timestamp_seconds{source=\"bus\"}"), "{metrics}");

    for number in [4, 3] {
        server.send("bus", &token, numbered(number)).await.expect(200);
    }
    eventually("the gap is closed", || async {
        (source(&server, "bus").await["sequence"]["missing"] == 0).then_some(())
    })
    .await;
    server.settled().await;
    let rows = server.sql(windows).await;
    assert_eq!(rows[0][0], "not_established", "the next number decides: {rows:?}");
    assert!(rows[0][2].as_str().unwrap().starts_with("sequence numbers without a gap so far"), "{rows:?}");
    let table = stdout(&server.cli(&["sources", "list", "--format", "human"]));
    assert!(table.contains("sequence.missing"), "{table}");
    let removed = server.cli(&["sources", "remove", "bus"]);
    expect_exit(&removed, 0);
    let metrics = server.api(Method::GET, "/metrics", None).await.text();
    assert!(!metrics.contains("pipeproof_source_records_total{source=\"bus\"}"), "{metrics}");
}

/// The value of a metric of source `bus`.
fn metric(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name}{{source=\"bus\"}} ")))?;
    Some(line.parse().unwrap())
}

#[tokio::test]
async fn what_is_known_of_a_source_is_there_again_before_its_next_record() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().on(&data).start();
    let token = token_of(&server.add_source("bus", "cloudevents", &[]));
    server.add_source("idle", "json", &[]);
    let gone = token_of(&server.add_source("gone", "json", &[]));
    server.send("gone", &gone, b"{\"n\":1}".to_vec()).await.expect(200);
    let ahead = now().plus(Duration::from_secs(50));
    let mut event: Value = serde_json::from_slice(&numbered(4)).unwrap();
    event["time"] = json!(ahead.to_string());
    for body in [numbered(1), event.to_string().into_bytes()] {
        server.send("bus", &token, body).await.expect(200);
    }
    expect_exit(&server.cli(&["sources", "remove", "gone"]), 0);
    server.settled().await;
    let names = [
        "pipeproof_source_last_event_timestamp_seconds",
        "pipeproof_source_skew_seconds",
        "pipeproof_source_sequence_missing",
        "pipeproof_source_sequence_lost",
        "pipeproof_source_sequence_restarts",
        "pipeproof_source_silent",
    ];
    let known = async |server: &Server| {
        let metrics = server.api(Method::GET, "/metrics", None).await.text();
        let values: Option<Vec<f64>> = names.iter().map(|name| metric(&metrics, name)).collect();
        Some((values.filter(|values| values[2] == 2.0)?, metrics))
    };
    let (before, _) = eventually("everything is told", || known(&server)).await;
    let told = source(&server, "bus").await;
    assert!(told["last_event"].is_string(), "{told}");
    assert!(before[1] > 30.0, "{before:?}");

    // With nothing new from the source.
    server.kill();
    let server = Setup::new().on(&data).start();
    let (after, metrics) = eventually("everything is told again", || known(&server)).await;
    assert_eq!(after, before);
    for line in
        ["pipeproof_source_records_total{source=\"bus\"} 0", "pipeproof_source_dead_letters_total{source=\"idle\"} 0"]
    {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("source=\"gone\""), "{metrics}");
    let again = source(&server, "bus").await;
    for of in ["/last_event", "/sequence", "/last_24h/last_event", "/last_24h/records"] {
        assert_eq!(again.pointer(of), told.pointer(of), "{of}");
    }
    assert_eq!(source(&server, "idle").await["last_event"], Value::Null);
    // Whoever takes the name later is another.
    server.add_source("gone", "json", &[]);
    assert_eq!(source(&server, "gone").await["last_event"], Value::Null);
}

#[tokio::test]
async fn a_source_that_falls_silent_is_found_and_resolved_when_it_speaks() {
    let server = Setup::new().config("silence: {learn: 3s, after: 2s}\n").start();
    let token = token_of(&server.add_source("beat", "json", &[]));
    let beat = async |number: u32| {
        server.send("beat", &token, json!({"action": "beat", "n": number}).to_string()).await.expect(200);
    };
    let begun = now();
    for number in 0..12 {
        beat(number).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let finding = eventually("the silence is found", || async {
        server.findings().await.into_iter().find(|finding| is_of(finding, "Source is silent for longer"))
    })
    .await;
    assert_eq!(finding["key"], json!({"config.id": "beat"}));
    let told = source(&server, "beat").await["silence"].clone();
    assert!(told["silent_since"].is_string() && told["learning_until"].is_null(), "{told}");
    let incident = finding["incident"].as_str().expect("it pages").to_owned();
    beat(100).await;
    let steps = eventually("the incident says that it speaks", || async {
        let steps = items(&server.get(&format!("/v1/incidents/{incident}")).await, "steps");
        steps.iter().any(|step| step["verb"] == "resolve").then_some(steps)
    })
    .await;
    let note = steps.iter().find(|step| step["verb"] == "resolve").unwrap()["note"].to_string();
    assert!(note.contains("speaks again"), "{note}");
    server.settled().await;
    // The decisions stand in the log: a replay concludes the same.
    let (from, to) = (begun.to_string(), now().to_string());
    let replayed = server.cli(&["backtest", "--from", &from, "--to", &to, "--format", "human"]);
    expect_exit(&replayed, 0);
    let told = stdout(&replayed) + &crate::harness::stderr(&replayed);
    assert!(told.contains("identical: 1, added: 0, removed: 0"), "{told}");
}

#[tokio::test]
async fn events_are_listed_as_ocsf_and_in_our_own_words() {
    let server = Server::start();
    let token = token_of(&server.add_source("k8s", "kubernetes.audit", &[]));
    server.add_source("other", "json", &[]);
    let audit = |number: u32| {
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": format!("a-{number}"), "stage": "ResponseComplete", "verb": "get",
            "objectRef": {"resource": "secrets", "namespace": "shop", "name": "db"}, "user": {"username": "ann@example.com"},
            "responseStatus": {"code": 200}, "stageTimestamp": now().to_string(),
        })
    };
    let lines: String = (0..5).map(|number| format!("{}\n", audit(number))).collect();
    server.send("k8s", &token, lines).await.expect(200);
    server.settled().await;
    let lines = |output: &std::process::Output| -> Vec<Value> {
        expect_exit(output, 0);
        stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines(&server.cli(&["events", "--as", "ocsf", "--source", "k8s"]));
    assert_eq!(all.len(), 5);
    for object in &all {
        assert_eq!((&object["class_uid"], &object["metadata"]["version"]), (&json!(6003), &json!("1.8.0")), "{object}");
        assert_eq!(object["api"]["service"]["name"], "kubernetes", "{object}");
    }
    let second = all[1]["metadata"]["uid"].as_str().unwrap();
    let rest = lines(&server.cli(&["events", "--as", "ocsf", "--source", "k8s", "--after", second, "--limit", "2"]));
    assert_eq!(rest, all[2..4]);
    let plain = lines(&server.cli(&["events", "--source", "k8s", "--action", "secret.read"]));
    assert_eq!((plain.len(), &plain[0]["fields"]["secret.path"]), (5, &json!("shop/db")));
    assert_eq!(plain[0]["native"]["auditID"], "a-0");
    assert_eq!(lines(&server.cli(&["events", "--source", "other"])), Vec::<Value>::new());
    assert_eq!(lines(&server.cli(&["events", "--source", "k8s", "--to", "2020-01-01T00:00:00Z"])), Vec::<Value>::new());

    let reply = server.api(Method::GET, "/v1/events?format=ocsf&source=k8s", None).await;
    assert_eq!(reply.expect(200).headers["content-type"], "application/x-ndjson");
    assert_eq!(reply.text().lines().count(), 5);
    for wrong in ["format=cef", "limit=0", "after=1", "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "colour=red"]
    {
        assert_eq!(
            server.api(Method::GET, &format!("/v1/events?{wrong}"), None).await.expect(400).error_code(),
            "bad_request"
        );
    }
    let reader = server.token(&["findings:read"], &[]);
    server.api_as(&reader, Method::GET, "/v1/events", None).await.expect(403);
}
