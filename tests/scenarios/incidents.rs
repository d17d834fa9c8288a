//! Incidents from opened to closed, over API and command line, and the numbers that follow from them.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, eventually, expect_exit, items, now, stderr, time_of, token_of};

/// An admission webhook set to fail open, at this time: a finding of an active rule.
fn weakened(id: &str, cluster: &str, at: &str) -> String {
    json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [{
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": id, "stage": "ResponseComplete",
        "requestURI": format!("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{cluster}"), "verb": "patch",
        "user": {"username": format!("mallory-{cluster}"), "groups": ["system:authenticated"]}, "sourceIPs": ["198.51.100.9"],
        "objectRef": {"resource": "validatingwebhookconfigurations", "name": cluster, "apiGroup": "admissionregistration.k8s.io", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200}, "requestObject": {"webhooks": [{"name": "w", "failurePolicy": "Ignore"}]},
        "requestReceivedTimestamp": at, "stageTimestamp": at,
        "annotations": {"authorization.k8s.io/decision": "allow"}}]})
    .to_string()
}

async fn open_incident(server: &Server, cluster: &str) -> Value {
    let token = token_of(&server.add_source(cluster, "kubernetes.audit", &[&format!("cluster={cluster}")]));
    let at = now().to_string();
    server.send(cluster, &token, weakened(&format!("audit-{cluster}"), cluster, &at)).await.expect(200);
    eventually("the incident", || async {
        server.incidents().await.into_iter().find(|incident| incident["entities"].to_string().contains(cluster))
    })
    .await
}

async fn incident(server: &Server, id: &str) -> Value {
    let answer = server.get(&format!("/v1/incidents/{id}")).await;
    if answer["incident"].is_object() { answer["incident"].clone() } else { answer }
}

#[tokio::test]
async fn an_incident_is_acknowledged_remediated_and_closed() {
    let server = Server::start();
    let opened = open_incident(&server, "eu-1").await;
    let id = opened["id"].as_str().unwrap().to_owned();
    assert_eq!(opened["status"], "open");

    let reply = server.api(Method::POST, &format!("/v1/incidents/{id}/ack"), Some(json!({"note": "mine"}))).await;
    assert_eq!(reply.expect(200).json()["step"]["verb"], "ack");
    expect_exit(&server.cli(&["incidents", "remediate", &id, "--note", "webhook set back to Fail"]), 0);
    let verified = server.api(Method::POST, &format!("/v1/incidents/{id}/verify"), Some(json!({}))).await;
    verified.expect(200);
    expect_exit(&server.cli(&["incidents", "close", &id]), 0);

    let shown = incident(&server, &id).await;
    assert_eq!(shown["status"], "closed");
    let times: Vec<_> = ["opened", "acknowledged", "remediated", "verified", "closed"]
        .iter()
        .map(|name| time_of(&shown, name))
        .collect();
    assert!(times.is_sorted(), "{shown}");
    let shown = server.cli_json(&["incidents", "show", &id]);
    assert!(shown.to_string().contains("webhook set back to Fail"), "{shown}");
    server.settled().await;
    let steps = server.sql(&format!("SELECT verb FROM incident_steps WHERE incident = '{id}' ORDER BY number")).await;
    assert_eq!(
        steps,
        [["open"], ["ack"], ["remediate"], ["verify"], ["close"]].map(|row| row.map(Value::from).to_vec())
    );
}

#[tokio::test]
async fn a_verb_that_does_not_apply_is_a_clear_conflict() {
    let server = Server::start();
    let id = open_incident(&server, "eu-2").await["id"].as_str().unwrap().to_owned();
    let verb = |verb: &'static str| {
        let path = format!("/v1/incidents/{id}/{verb}");
        let server = &server;
        async move { server.api(Method::POST, &path, Some(json!({}))).await }
    };
    verb("verify").await.expect(409).error_code();
    verb("reopen").await.expect(409).error_code();
    verb("ack").await.expect(200);
    let again = verb("ack").await;
    again.expect(409).error_code();
    assert!(again.text().contains("cannot ack"), "{}", again.text());
    verb("open").await.expect(404);
    verb("explode").await.expect(404);
    let output = server.cli(&["incidents", "ack", &id]);
    expect_exit(&output, 2);
    assert!(stderr(&output).contains("cannot ack"), "{}", stderr(&output));
    assert_eq!(incident(&server, &id).await["status"], "acknowledged");
    let unknown = server.api(Method::POST, "/v1/incidents/i-none/ack", Some(json!({}))).await;
    unknown.expect(404).error_code();
}

#[tokio::test]
async fn a_second_finding_about_the_same_entity_joins() {
    let server = Server::start();
    let first = open_incident(&server, "eu-3").await;
    let token = server.sender("eu-3");
    let at = now().to_string();
    let other = weakened("audit-other", "eu-3", &at)
        .replace("\"patch\"", "\"delete\"")
        .replace("/eu-3", "/other")
        .replace(r#""name":"eu-3""#, r#""name":"another-webhook""#);
    server.send("eu-3", &token, other).await.expect(200);
    server.settled().await;
    let joined = incident(&server, first["id"].as_str().unwrap()).await;
    assert_eq!(joined["findings"].as_array().unwrap().len(), 2, "{joined}");
    assert_eq!(server.incidents().await.len(), 1);
}

#[tokio::test]
async fn the_numbers_are_those_computed_by_hand() {
    let server = Server::start();
    let mut closed = Vec::new();
    for cluster in ["kpi-1", "kpi-2", "kpi-3"] {
        closed.push(open_incident(&server, cluster).await["id"].as_str().unwrap().to_owned());
    }
    let open = open_incident(&server, "kpi-4").await["id"].as_str().unwrap().to_owned();
    for id in &closed {
        for verb in ["ack", "remediate", "verify", "close"] {
            server.api(Method::POST, &format!("/v1/incidents/{id}/{verb}"), Some(json!({}))).await.expect(200);
        }
    }
    // Found only in hindsight: happened long before its source was connected.
    let token = token_of(&server.add_source("kpi-5", "kubernetes.audit", &["cluster=kpi-5"]));
    let past = now().minus(Duration::from_secs(7 * 86_400)).to_string();
    server.send("kpi-5", &token, weakened("audit-kpi-5", "kpi-5", &past)).await.expect(200);
    server.settled().await;

    let seconds = |incident: &Value, to: &str, from: &str| {
        let micros = time_of(incident, to).micros_since(time_of(incident, from));
        f64::from(i32::try_from(micros / 1_000).unwrap()) / 1_000.0
    };
    let (mut detect, mut acknowledge, mut remediate) = (Vec::new(), Vec::new(), Vec::new());
    for id in closed.iter().chain([&open]) {
        let incident = incident(&server, id).await;
        assert_eq!(incident["retro"], false, "{incident}");
        detect.push(seconds(&incident, "committed", "occurred"));
        if incident["status"] == "closed" {
            acknowledge.push(seconds(&incident, "acknowledged", "committed"));
            remediate.push(seconds(&incident, "remediated", "committed"));
        }
    }
    let from = now().minus(Duration::from_secs(86_400)).to_string();
    let to = now().plus(Duration::from_secs(3_600)).to_string();
    let kpi = server.get(&format!("/v1/kpi?from={from}&to={to}")).await["kpi"].clone();
    let same = server.cli_json(&["kpi", "--from", &from, "--to", &to]);
    let detected = &kpi["detect"];
    figures_are("MTTD", &detected["time_to_detect"], &detect);
    let parts: f64 =
        ["source_lag", "detection_lag"].iter().map(|part| detected[part]["mean_secs"].as_f64().unwrap()).sum();
    assert!((parts - mean(&detect)).abs() < 0.01, "the parts of MTTD add up: {detected}");
    assert_eq!(kpi["retro"]["incidents"], 1, "what was found in hindsight stands apart: {kpi}");
    for (name, values) in [("MTTA", &acknowledge), ("MTTRemediate", &remediate)] {
        let response = response(&kpi, name);
        figures_are(name, &response["done"], values);
        // The open one and the one found in hindsight.
        assert_eq!(response["n_open"], 2, "open incidents are censored, not dropped: {response}");
    }
    assert_eq!(same["detect"], kpi["detect"], "command and API agree");
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / f64::from(u32::try_from(values.len()).unwrap())
}

#[track_caller]
fn figures_are(name: &str, figures: &Value, values: &[f64]) {
    assert_eq!(figures["n"], values.len(), "{name}: {figures}");
    let of = |part: &str| figures[part].as_f64().unwrap_or_else(|| panic!("no {part} in {figures}"));
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    assert!((of("mean_secs") - mean(values)).abs() < 0.01, "{name}: {figures} is not {values:?}");
    assert!((of("median_secs") - sorted[(sorted.len() - 1) / 2]).abs() < 0.01, "{name}: {figures} is not {values:?}");
    assert!((of("max_secs") - sorted[sorted.len() - 1]).abs() < 0.01, "{name}: {figures} is not {values:?}");
}

#[track_caller]
fn response<'a>(kpi: &'a Value, kind: &str) -> &'a Value {
    let all = kpi["response"].as_array().unwrap_or_else(|| panic!("no response in {kpi}"));
    all.iter().find(|response| response["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {kpi}"))
}

#[tokio::test]
async fn a_dismissed_incident_counts_in_no_mean() {
    let server = Server::start();
    let id = open_incident(&server, "fp-1").await["id"].as_str().unwrap().to_owned();
    server
        .api(Method::POST, &format!("/v1/incidents/{id}/dismiss"), Some(json!({"note": "planned"})))
        .await
        .expect(200);
    let listed = items(&server.cli_json(&["incidents", "list"]), "incidents");
    assert_eq!(listed.iter().find(|incident| incident["id"] == id.as_str()).unwrap()["status"], "dismissed");
    let from = now().minus(Duration::from_secs(86_400)).to_string();
    let to = now().plus(Duration::from_secs(3_600)).to_string();
    let kpi = server.get(&format!("/v1/kpi?from={from}&to={to}")).await["kpi"].clone();
    assert_eq!(kpi["cohort"]["dismissed"], 1, "{kpi}");
    let detect = &kpi["detect"]["time_to_detect"];
    assert_eq!(detect["n"], 0, "{kpi}");
    assert!(detect["mean_secs"].is_null(), "no occurrence is not zero: {kpi}");
}
