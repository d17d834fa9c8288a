//! The native endpoints of senders: what each says and expects, and that what they send arrives once, in its own words.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, Setup, has_tool, items, left_out, ndjson_fixture, now, token_of};
use crate::ingest::gzip;

/// A header line with a token in a scheme.
fn authorization(scheme: &str, token: &str) -> String {
    match scheme {
        "Basic" => format!("Basic {}", STANDARD.encode(format!("elastic:{token}"))),
        "ApiKey" => format!("ApiKey {}", STANDARD.encode(format!("id:{token}"))),
        scheme => format!("{scheme} {token}"),
    }
}

async fn post(
    server: &Server,
    path: &str,
    authorization: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> crate::harness::Reply {
    let headers: Vec<_> = std::iter::once(("authorization", authorization)).chain(headers.iter().copied()).collect();
    server.raw(Method::POST, path, &headers, body).await
}

#[tokio::test]
async fn splunk_hec_events_raw_and_acknowledgements() {
    let server = Server::start();
    let splunk = authorization("Splunk", &token_of(&server.add_source("any", "json", &[])));
    let health = server.raw(Method::GET, "/services/collector/health", &[], Vec::new()).await;
    assert_eq!(health.expect(200).json(), json!({"text": "HEC is healthy", "code": 17}));

    let events =
        br#"{"time":1.5,"host":"h","event":{"action":"hec.one","id":1}}{"event":"{\"action\":\"hec.two\"}"}"#.to_vec();
    let reply = post(&server, "/services/collector/event", &splunk, &[], gzip(&events)).await;
    assert_eq!(reply.expect(200).json(), json!({"text": "Success", "code": 0}), "no channel, no acknowledgement");
    let channel = [("x-splunk-request-channel", "11111111-2222-3333-4444-555555555555")];
    let raw =
        post(&server, "/services/collector/raw", &splunk, &channel, b"{\"action\":\"hec.raw\"}\na line\n".to_vec())
            .await;
    assert_eq!(raw.expect(200).json()["ackId"], 0);
    let basic = authorization("Basic", splunk.strip_prefix("Splunk ").unwrap());
    assert_eq!(post(&server, "/services/collector", &basic, &channel, events).await.expect(200).json()["ackId"], 1);
    let ask = || post(&server, "/services/collector/ack", &splunk, &channel, b"{\"acks\":[0,1,2]}".to_vec());
    assert_eq!(ask().await.expect(200).json(), json!({"acks": {"0": true, "1": true, "2": false}}));
    assert_eq!(ask().await.json(), json!({"acks": {"0": false, "1": false, "2": false}}), "said once");

    for (authorization, status, code) in [("", 401, 2), ("Splunk x", 401, 2), ("Splunk ppt_000000000000_00", 401, 4)] {
        let reply = post(&server, "/services/collector", authorization, &[], b"{\"event\":1}".to_vec()).await;
        assert_eq!(reply.expect(status).json()["code"], code, "{authorization}");
    }
    let unbound = authorization("Splunk", &server.token(&["events:write"], &[]));
    assert_eq!(post(&server, "/services/collector", &unbound, &[], b"{}".to_vec()).await.expect(403).json()["code"], 4);
    assert_eq!(post(&server, "/services/collector", &splunk, &[], vec![]).await.expect(400).json()["code"], 5);

    // What is no event is kept, and said to be a dead letter, not refused.
    post(&server, "/services/collector", &splunk, &[], b"{\"host\":\"no event\"}".to_vec()).await.expect(200);
    let actions = server.actions("any").await;
    for action in ["hec.one", "hec.two", "hec.raw"] {
        assert_eq!(actions.get(action), Some(&1), "{actions:?}");
    }
    let letters = items(&server.get("/v1/deadletters?source=any").await, "dead_letters");
    assert!(letters.iter().any(|letter| letter["reason"].as_str().unwrap().contains("no_event")), "{letters:?}");
}

#[tokio::test]
async fn elastic_clients_find_what_they_ask_for_and_send_in_bulk() {
    let server = Server::start();
    let token = token_of(&server.add_source("vault", "vault.audit", &[]));
    for scheme in ["Basic", "ApiKey", "Bearer"] {
        let given = authorization(scheme, &token);
        let root = server.raw(Method::GET, "/", &[("authorization", given.as_str())], Vec::new()).await;
        assert!(root.expect(200).json()["version"]["number"].as_str().unwrap().starts_with("8."));
        assert_eq!(root.headers["x-elastic-product"], "Elasticsearch");
    }
    let given = authorization("Basic", &token);
    let ask = async |method: Method, path: &str| {
        server.raw(method, path, &[("authorization", given.as_str())], b"{}".to_vec()).await
    };
    assert_eq!(ask(Method::GET, "/_license").await.expect(200).json()["license"]["status"], "active");
    for path in ["/_index_template/filebeat-8", "/_ilm/policy/filebeat", "/_ingest/pipeline/x", "/_data_stream/logs"] {
        ask(Method::HEAD, path).await.expect(404);
        assert_eq!(ask(Method::PUT, path).await.expect(200).json()["acknowledged"], true, "{path}");
    }
    assert_eq!(ask(Method::GET, "/_cluster/health").await.expect(200).json()["status"], "green");

    // As Filebeat ships a file of another program's JSON.
    let lines = ndjson_fixture("vault_audit/audit.ndjson");
    let body: String = lines
        .iter()
        .map(|line| {
            let document = json!({"@timestamp": "2026-11-26T10:00:00Z", "message": line.to_string(), "agent": {"type": "filebeat"}});
            format!("{{\"create\":{{\"_index\":\"filebeat\"}}}}\n{document}\n")
        })
        .collect();
    let reply =
        post(&server, "/_bulk", &given, &[("content-type", "application/x-ndjson")], gzip(body.as_bytes())).await;
    let answer = reply.expect(200).json();
    assert_eq!((&answer["errors"], answer["items"].as_array().unwrap().len()), (&json!(false), lines.len()));
    assert!(items(&answer, "items").iter().all(|item| item["create"]["status"] == 201), "{answer}");
    let deletion = b"{\"delete\":{\"_index\":\"x\",\"_id\":\"1\"}}\n".to_vec();
    let answer = post(&server, "/some-index/_bulk", &given, &[], deletion).await.expect(200).json();
    assert_eq!((&answer["errors"], &answer["items"][0]["delete"]["status"]), (&json!(true), &json!(400)));
    let actions = server.actions("vault").await;
    assert!(actions.contains_key("token.issued") && actions.contains_key("secret.read"), "{actions:?}");
    ask(Method::GET, "/nothing").await.expect(404);
    server.raw(Method::GET, "/", &[], Vec::new()).await.expect(401);
}

#[tokio::test]
async fn otlp_logs_as_json_and_what_is_none() {
    let server = Server::start();
    let bearer = authorization("Bearer", &token_of(&server.add_source("otel", "json", &[])));
    let request = json!({"resourceLogs": [{"resource": {"attributes": []}, "scopeLogs": [{"logRecords": [
        {"timeUnixNano": "1795600000000000000", "body": {"stringValue": "a line"}},
        {"body": {"kvlistValue": {"values": [{"key": "action", "value": {"stringValue": "otel.event"}}]}}}]}]}]});
    let json = [("content-type", "application/json")];
    let reply = post(&server, "/v1/logs", &bearer, &json, request.to_string().into_bytes()).await;
    assert_eq!(reply.expect(200).json(), json!({}));
    let reply = post(&server, "/v1/logs", &bearer, &json, b"{\"resourceLogs\": nonsense".to_vec()).await;
    let answer = reply.expect(200).json();
    let partial = &answer["partialSuccess"];
    assert_eq!(partial["rejectedLogRecords"], "0");
    assert!(partial["errorMessage"].as_str().unwrap().contains("dead letter"), "{partial}");
    let protobuf = [("content-type", "application/x-protobuf")];
    let reply = post(&server, "/v1/logs", &bearer, &protobuf, vec![]).await;
    assert!(reply.expect(200).body.is_empty() && reply.headers["content-type"] == "application/x-protobuf");
    let reply = post(&server, "/v1/logs", &bearer, &protobuf, b"\xff\xff nonsense".to_vec()).await;
    assert!(reply.expect(200).body.starts_with(&[0x0a]), "a partial success with a warning");
    post(&server, "/v1/logs", "Bearer nobody", &json, b"{}".to_vec()).await.expect(401);
    let actions = server.actions("otel").await;
    assert_eq!(actions.get("otel.event"), Some(&1), "{actions:?}");
    let times = server.sql("SELECT count(*) FROM events WHERE source = 'otel' AND time_known").await;
    assert_eq!(times, [[json!(1)]]);
    let letters = items(&server.get("/v1/deadletters?source=otel").await, "dead_letters");
    assert_eq!(letters.len(), 2, "{letters:?}");
}

#[tokio::test]
async fn an_api_server_that_asks_is_answered_once_it_is_on_record() {
    let server = Server::start();
    let token = token_of(&server.add_source("cluster", "kubernetes.admission", &[]));
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": "shop", "name": "web",
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
        "userInfo": {"username": "jane"},
        "object": {"spec": {"containers": [{"name": "web", "image": "ghcr.io/acme/web:1"}]}}}});
    let answer = server.send("cluster", &token, review.to_string()).await.expect(200).json();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["response"], json!({"uid": review["request"]["uid"], "allowed": true}));
    // It asks again where the answer was lost on the way.
    assert_eq!(server.send("cluster", &token, review.to_string()).await.expect(200).json(), answer);
    let mut answered = review.clone();
    answered["request"]["uid"] = json!("another");
    answered["response"] = json!({"uid": "another", "allowed": false});
    assert_eq!(server.send("cluster", &token, answered.to_string()).await.expect(200).json()["accepted"], 1);
    assert_eq!(server.send("cluster", "ppt_wrong", review.to_string()).await.status, 401);
    server.settled().await;
    let of_pods = "SELECT count(*) FROM events WHERE source = 'cluster' AND sub = 0 AND actor_id = 'jane'";
    assert_eq!(server.count(of_pods).await, 2);
}

#[tokio::test]
async fn opa_firehose_and_cloudevents() {
    let server = Server::start();
    let token = token_of(&server.add_source("any", "json", &[]));
    let bearer = authorization("Bearer", &token);
    let decisions =
        json!([{"decision_id": "1", "action": "opa.decided"}, {"decision_id": "2", "action": "opa.decided"}]);
    let body = gzip(decisions.to_string().as_bytes());
    let encoding = [("content-encoding", "gzip"), ("content-type", "application/json")];
    for path in ["/logs", "/logs/prod"] {
        assert_eq!(post(&server, path, &bearer, &encoding, body.clone()).await.expect(200).json()["accepted"], 2);
    }

    let record = STANDARD.encode(r#"{"action":"firehose.event"}"#);
    let delivery = json!({"requestId": "r-1", "timestamp": 1, "records": [{"data": record}]}).to_string();
    let headers = [("x-amz-firehose-request-id", "r-1"), ("x-amz-firehose-access-key", token.as_str())];
    let reply = server.raw(Method::POST, "/v1/events/any", &headers, delivery.clone().into_bytes()).await;
    let answer = reply.expect(200).json();
    assert!(
        answer["requestId"] == "r-1" && answer["timestamp"].as_i64().is_some_and(|ms| ms > 1_700_000_000_000),
        "{answer}"
    );
    let wrong = [("x-amz-firehose-request-id", "r-2"), ("x-amz-firehose-access-key", "ppt_wrong")];
    let refused = server.raw(Method::POST, "/v1/events/any", &wrong, delivery.into_bytes()).await.expect(401).json();
    assert!(refused["requestId"] == "r-2" && refused["errorMessage"].is_string(), "{refused}");

    let event = [
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/ci"),
        ("ce-type", "dev.cdevents.pipelinerun.finished"),
        ("content-type", "application/json"),
    ];
    let structured = json!({"specversion": "1.0", "id": "7", "source": "/ci", "type": "dev.cdevents.pipelinerun.finished", "data": {}});
    server.send_with("any", &token, &event, b"{}".to_vec()).await.expect(200);
    server.send("any", &token, structured.to_string()).await.expect(200);
    server.send("any", &token, json!([structured]).to_string()).await.expect(200);
    server.settled().await;
    let events = "SELECT count(*) FROM events WHERE source = 'any' AND item = 'id:/ci/7'";
    assert_eq!(server.count(events).await, 1, "one event in three modes");
    let actions = server.actions("any").await;
    assert_eq!((actions.get("opa.decided"), actions.get("firehose.event")), (Some(&2), Some(&1)), "{actions:?}");
}

#[tokio::test]
async fn an_event_hook_is_verified_by_saying_its_challenge_again() {
    let server = Server::start();
    let bearer = authorization("Bearer", &token_of(&server.add_source("hook", "json", &[])));
    let challenge = ("x-okta-verification-challenge", "abc");
    let asked = [("authorization", bearer.as_str()), challenge];
    let reply = server.raw(Method::GET, "/v1/events/hook", &asked, Vec::new()).await;
    assert_eq!(reply.expect(200).json(), json!({"verification": "abc"}));
    server.raw(Method::GET, "/v1/events/hook", &[challenge], Vec::new()).await.expect(401);
    server.raw(Method::GET, "/v1/events/hook", &asked[..1], Vec::new()).await.expect(405);
}

/// Runs openssl.
fn openssl(args: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn pubsub_push_proves_itself_with_a_token_of_its_issuer() {
    if !has_tool("openssl") {
        return left_out("Pub/Sub push", "no openssl to sign a token with");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    openssl(&["genrsa", "-out", &path("key.pem"), "2048"]);
    let modulus = String::from_utf8(openssl(&["rsa", "-in", &path("key.pem"), "-noout", "-modulus"])).unwrap();
    let modulus = hex::decode(modulus.trim().strip_prefix("Modulus=").unwrap()).unwrap();
    let key = json!({"kty": "RSA", "alg": "RS256", "kid": "k1", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB"});
    std::fs::write(path("keys.json"), json!({ "keys": [key] }).to_string()).unwrap();
    let token = |audience: &str| {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let at = now().as_micros() / 1_000_000;
        let claims = json!({"iss": "https://accounts.google.com", "aud": audience, "iat": at, "exp": at + 3600,
            "email": "push@acme.iam.gserviceaccount.com", "email_verified": true});
        let message = format!("{}.{}", part(json!({"alg": "RS256", "kid": "k1"})), part(claims));
        std::fs::write(path("message"), &message).unwrap();
        let signature = openssl(&["dgst", "-sha256", "-sign", &path("key.pem"), &path("message")]);
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let config = format!(
        "sources:\n  - name: gcp\n    type: json\n    identity: {{audience: 'https://here/gcp', email: push@acme.iam.gserviceaccount.com, keys_file: {}}}\n",
        path("keys.json")
    );
    let server = Setup::new().config(&config).start();
    let body = |id: &str| {
        let data = STANDARD.encode(format!(r#"{{"action":"pushed","n":"{id}"}}"#));
        json!({"message": {"data": data, "messageId": id}, "subscription": "projects/p/subscriptions/s"}).to_string()
    };
    let right = authorization("Bearer", &token("https://here/gcp"));
    for id in ["1", "2", "1"] {
        post(&server, "/v1/events/gcp", &right, &[], body(id).into_bytes()).await.expect(200);
    }
    for wrong in [token("https://elsewhere/gcp"), format!("{}x", token("https://here/gcp")), "a.b.c".to_owned()] {
        post(&server, "/v1/events/gcp", &authorization("Bearer", &wrong), &[], body("3").into_bytes())
            .await
            .expect(401);
    }
    assert_eq!(server.actions("gcp").await.get("pushed"), Some(&2), "sent again, it is the same message");
    let proven = "SELECT DISTINCT auth, key_id FROM events WHERE source = 'gcp'";
    assert_eq!(server.sql(proven).await, [[json!("jwt"), json!("k1")]]);
    let other = token_of(&server.add_source("other", "json", &[]));
    server.send("other", &other, "{}").await.expect(200);
    let elsewhere = post(&server, "/v1/events/other", &right, &[], body("4").into_bytes()).await;
    elsewhere.expect(401);
}

#[tokio::test]
async fn dead_letters_are_read_again_once_they_can_be() {
    let server = Server::start();
    let token = token_of(&server.add_source("aws", "aws.cloudtrail", &[]));
    server.send("aws", &token, "{\"eventID\": ").await.expect(200);
    server.send("aws", &token, "[1]").await.expect(200);
    server.settled().await;
    let letters = items(&server.cli_json(&["deadletters", "list", "--source", "aws"]), "dead_letters");
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(letters.iter().all(|letter| letter["replayed"] == false));
    // This version reads them no better than before, and says so; nothing is written.
    let before = server.get("/v1/status").await["durable"].as_u64().unwrap();
    let replayed = server.cli_json(&["deadletters", "replay", "--source", "aws"]);
    assert_eq!(replayed, json!({"replayed": 0, "records": 0, "undecodable": 2, "gone": 0}));
    let records =
        "SELECT count(*) FROM events WHERE source = 'pipeproof' AND action = 'pipeproof.dead-letters-replayed'";
    server.settled().await;
    assert_eq!(server.count(records).await, 0, "after record {before} only ticks");

    // Sent to an address where it is no message; what it is can be read all the same.
    let bearer = authorization("Bearer", &token_of(&server.add_source("late", "json", &[])));
    let json = [("content-type", "application/json")];
    post(&server, "/v1/logs", &bearer, &json, b"{\"action\":\"late.event\"}".to_vec()).await.expect(200);
    assert!(!server.actions("late").await.contains_key("late.event"));
    let replayed = server.cli_json(&["deadletters", "replay"]);
    assert_eq!((&replayed["replayed"], &replayed["records"]), (&json!(1), &json!(1)), "{replayed}");
    server.settled().await;
    let event = "SELECT mode, item FROM events WHERE source = 'late' AND action = 'late.event'";
    let rows = server.sql(event).await;
    assert_eq!((rows.len(), &rows[0][0]), (1, &json!("backfill")), "{rows:?}");
    assert!(rows[0][1].as_str().unwrap().ends_with("/again"), "{rows:?}");
    assert_eq!(server.count(records).await, 1, "that it was done is on record");
    let again = server.cli_json(&["deadletters", "replay"]);
    assert_eq!((&again["replayed"], &again["undecodable"]), (&json!(0), &json!(2)), "once");
    let letters = items(&server.cli_json(&["deadletters", "list", "--source", "late"]), "dead_letters");
    assert_eq!(letters[0]["replayed"], true);
    let reader = server.token(&["sources:read"], &[]);
    server.api_as(&reader, Method::POST, "/v1/deadletters/replay", Some(json!({}))).await.expect(403);
}

#[tokio::test]
async fn an_import_reads_folders_and_cuts_what_is_large() {
    let server = Server::start();
    let folder = tempfile::TempDir::new().unwrap();
    let deep = folder.path().join("AWSLogs/2026/11");
    std::fs::create_dir_all(&deep).unwrap();
    let records = ndjson_fixture("aws_cloudtrail/stratus-red-team.ndjson");
    std::fs::write(deep.join("trail.json.gz"), gzip(json!({ "Records": records }).to_string().as_bytes())).unwrap();
    // Larger than a request may be, most of it the same events again, and one line that is no event.
    let padding = "x".repeat(9_000);
    let many: String = (0..1_500)
        .map(|n| {
            format!("{}\n", json!({"eventID": format!("big-{}", n % 500), "eventName": "Big", "eventSource": "s3.amazonaws.com", "padding": padding}))
        })
        .collect();
    std::fs::write(folder.path().join("many.ndjson"), format!("{many}{{\"broken\n")).unwrap();
    let said = server.cli_json(&["import", "--source", "aws.cloudtrail", &folder.path().display().to_string()]);
    let expected =
        json!({"source": "aws.cloudtrail", "sent": 1651, "accepted": 650, "duplicates": 1000, "dead_letters": 1});
    assert_eq!(said, expected);
    let again = server.cli_json(&["import", "--source", "aws.cloudtrail", &folder.path().display().to_string()]);
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(1651)), "{again}");
}

#[tokio::test]
async fn sources_tell_their_health() {
    let server = Server::start();
    let token = token_of(&server.add_source("any", "json", &[]));
    server.add_source("silent", "json", &[]);
    let late = now().minus(std::time::Duration::from_secs(100)).to_string();
    let event = json!({"action": "x", "time": late, "n": 1});
    for body in [event.clone(), event, json!({"action": "x", "time": late, "n": 2}), json!("no object")] {
        server.send("any", &token, body.to_string()).await.expect(200);
    }
    server.settled().await;
    let sources = items(&server.get("/v1/sources").await, "sources");
    let of = |name: &str| sources.iter().find(|source| source["name"] == name).unwrap_or_else(|| panic!("{sources:?}"));
    let health = &of("any")["last_24h"];
    for (name, expected) in [("records", 4), ("duplicates", 1), ("dead_letters", 1), ("items", 2), ("gaps", 0)] {
        assert_eq!(health[name], expected, "{name} in {health}");
    }
    for name in ["lag_p50_s", "lag_p99_s"] {
        let lag = health[name].as_f64().unwrap();
        assert!((99.0..200.0).contains(&lag), "{name} in {health}");
    }
    assert!(health["last_event"].is_string() && health["rate_per_minute"].as_f64().unwrap() > 0.0, "{health}");
    assert_eq!(health["skew_s"], 0.0);
    let silent = &of("silent")["last_24h"];
    assert_eq!((&silent["records"], &silent["last_event"]), (&json!(0), &Value::Null), "{silent}");
    let table = crate::harness::stdout(&server.cli(&["sources", "list", "--format", "human"]));
    assert!(table.contains("lag_p50_s") && table.contains("silent"), "{table}");
}
