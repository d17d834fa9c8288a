//! A secret that comes in over any source, in any shape, is found nowhere on disk and in nothing the server says.

use std::fmt::Write as _;
use std::io::Write as _;

use reqwest::Method;
use serde_json::json;

use crate::delivery::{self, Receiver};
use crate::harness::{Server, Setup, eventually, items, token_of};
use crate::ingest::gzip;
use crate::real_senders::free_port;
use crate::redact::readable;

/// Letters that no fixture contains, varied by `salt`, so that every planted secret is its own.
fn random(len: usize, salt: &str, alphabet: &str) -> String {
    let letters: Vec<char> = alphabet.chars().collect();
    let mut state = salt
        .bytes()
        .fold(0x9e37_79b9_7f4a_7c15_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            letters[usize::try_from(state >> 33).unwrap() % letters.len()]
        })
        .collect()
}

const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// One planted secret: how it is written into text, and the part that must be found nowhere.
struct Planted {
    family: &'static str,
    text: String,
    needle: String,
}

fn planted(salt: &str) -> Vec<Planted> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let mut all = Vec::new();
    let mut plant = |family, text: String, needle: String| all.push(Planted { family, text, needle });
    for prefix in ["ghp_", "gho_", "ghu_", "ghs_", "ghr_"] {
        let secret = random(36, &format!("{salt}{prefix}"), ALNUM);
        plant("github-token", format!("{prefix}{secret}"), secret);
    }
    let fine = random(82, &format!("{salt}pat"), ALNUM);
    plant("github-token", format!("github_pat_{}_{}", &fine[..22], &fine[22..]), fine[22..].to_owned());
    let aws = random(40, &format!("{salt}aws"), ALNUM);
    plant("aws-secret-key", format!("aws_secret_access_key={aws}"), aws);
    let gcp = random(35, &format!("{salt}gcp"), ALNUM);
    plant("gcp-api-key", format!("AIza{gcp}"), gcp);
    let slack = random(24, &format!("{salt}slack"), ALNUM);
    plant("slack-token", format!("xoxb-123456789012-123456789012-{slack}"), slack);
    let hook = random(24, &format!("{salt}hook"), ALNUM);
    let (host, team) = ("https://hooks.slack.com/services", "T00000000/B00000000");
    plant("slack-webhook", format!("{host}/{team}/{hook}"), hook);
    let npm = random(36, &format!("{salt}npm"), ALNUM);
    plant("npm-token", format!("npm_{npm}"), npm);
    let key = STANDARD.encode(random(600, &format!("{salt}key"), ALNUM));
    let lines: Vec<&str> = key.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let (begin, end) = ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----");
    // Of the last line, which the first says least of.
    plant("private-key", format!("{begin}\\n{}\\n{end}", lines.join("\\n")), lines[11][4..40].to_owned());
    for (prefix, len) in [("glpat-", 20), ("gldt-", 20), ("glptt-", 40), ("glrt-", 20)] {
        let gitlab = random(len, &format!("{salt}{prefix}"), ALNUM);
        plant("gitlab-token", format!("{prefix}{gitlab}"), gitlab);
    }
    let account = random(86, &format!("{salt}account"), ALNUM);
    plant("azure-secret", format!("AccountName=acme;AccountKey={account}==;EndpointSuffix=x"), account);
    let shared = random(43, &format!("{salt}sig"), ALNUM);
    plant("azure-secret", format!("https://acme.blob.core.windows.net/a?sv=2024&sig={shared}%3D"), shared);
    let client = random(34, &format!("{salt}client"), ALNUM);
    plant("azure-secret", format!("aB18Q~{client}"), client);
    let pypi = random(150, &format!("{salt}pypi"), ALNUM);
    plant("pypi-token", format!("pypi-AgEIcHlwaS5vcmc{pypi}"), pypi[10..60].to_owned());
    for prefix in ["sk_live_", "rk_test_", "whsec_"] {
        let stripe = random(32, &format!("{salt}{prefix}"), ALNUM);
        plant("stripe-key", format!("{prefix}{stripe}"), stripe);
    }
    let access = random(16, &format!("{salt}access"), "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567");
    plant("aws-access-key", format!("AKIA{access}"), access);
    let session = random(300, &format!("{salt}session"), ALNUM);
    plant("aws-session-token", format!("AWS_SESSION_TOKEN=IQoJb3JpZ2lu{session}"), session[100..160].to_owned());
    let oauth = random(120, &format!("{salt}oauth"), ALNUM);
    plant("gcp-oauth-token", format!("ya29.c.{oauth}"), oauth[20..80].to_owned());
    let basic = STANDARD.encode(format!("deploy:{}", random(20, &format!("{salt}basic"), ALNUM)));
    plant("authorization-header", format!("Authorization: Basic {basic}"), basic[12..30].to_owned());
    let claims =
        URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"x","jti":"{}"}}"#, random(20, &format!("{salt}jti"), ALNUM)));
    let signature = random(86, &format!("{salt}jwt"), ALNUM);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    plant("jwt", format!("{header}.{claims}.{signature}"), signature);
    let vault = random(90, &format!("{salt}vault"), ALNUM);
    plant("vault-token", format!("hvs.{vault}"), vault);
    let password = random(24, &format!("{salt}password"), ALNUM);
    plant("url-credentials", format!("https://deploy:{password}@registry.acme.example/v2/"), password);
    // As the malicious step of tj-actions printed what it found in memory.
    let dumped =
        format!("\"TOKEN\":{{\"value\":\"ghp_{}\",\"isSecret\":true}}\n", random(36, &format!("{salt}dump"), ALNUM));
    let once = STANDARD.encode(&dumped);
    plant("github-token", once.clone(), once[30..70].to_owned());
    let twice = STANDARD.encode(STANDARD.encode(dumped.replace("TOKEN", "OTHER")));
    plant("github-token", twice.clone(), twice[40..100].to_owned());
    all
}

/// Lines as they are where a text goes over several.
fn over_lines(secret: &str) -> String {
    secret.replace("\\n", "\n")
}

/// Sends what was planted by the ways of other products: HEC, `_bulk`, OTLP, syslog, a file.
async fn send_by_other_ways(
    server: &Server,
    plant: &mut dyn FnMut(&str) -> Vec<String>,
    port: u16,
    followed: &std::path::Path,
) {
    let post = async |path: &str, authorization: String, body: String| {
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        server.raw(Method::POST, path, &headers, body.into_bytes()).await.expect(200);
    };
    let splunk = format!("Splunk {}", token_of(&server.add_source("hec", "json", &[])));
    for secret in plant("HEC events") {
        let events =
            format!(r#"{{"event":"before {secret}","host":"h"}}{{"event":{{"action":"a.b","x":"{secret}"}}}}"#);
        post("/services/collector/event", splunk.clone(), events).await;
    }
    let lines: Vec<String> = plant("HEC, raw").iter().map(|secret| over_lines(secret)).collect();
    post("/services/collector/raw", splunk, lines.join("\n")).await;
    let elastic = format!("Bearer {}", token_of(&server.add_source("bulk", "json", &[])));
    let documents: String = plant("_bulk")
        .iter()
        .map(|secret| format!("{{\"create\":{{\"_index\":\"logs\"}}}}\n{{\"message\":\"{secret}\"}}\n"))
        .collect();
    post("/_bulk", elastic, documents).await;
    let otlp = format!("Bearer {}", token_of(&server.add_source("otel", "otlp", &[])));
    for secret in plant("OTLP") {
        let logs = format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"1795600000000000000","body":{{"stringValue":"said {secret}"}}}}]}}]}}]}}"#
        );
        post("/v1/logs", otlp.clone(), logs).await;
    }
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    for secret in plant("syslog") {
        for line in over_lines(&secret).lines() {
            stream.write_all(format!("<13>1 2026-11-26T00:00:00Z h app - - - {line}\n").as_bytes()).unwrap();
            // Each line of a key is a read of its own.
            stream.flush().unwrap();
        }
    }
    drop(stream);
    let lines: Vec<String> = plant("a followed file").iter().map(|secret| over_lines(secret)).collect();
    std::fs::write(followed, lines.join("\n") + "\n").unwrap();
}

/// Sends what records hold that are about secrets: findings of a scanner, and Kubernetes Secrets.
async fn send_records_about_secrets(server: &Server, needles: &mut Vec<(String, String)>) {
    let mut word = |place: &str, salt: &str| {
        let word = random(24, salt, "abcdefghijklmnopqrstuvwxyz");
        needles.push((format!("plain words in {place}"), word.clone()));
        word
    };
    let scans = token_of(&server.add_source("scans", "gitleaks", &[]));
    let (found, matched) = (word("Secret", "gitleaks secret"), word("Match", "gitleaks match"));
    let finding = json!([{"RuleID": "own", "Secret": found, "Match": format!("key = {matched}"), "Line": format!("  key = {matched}"),
        "File": "a.py", "StartLine": 1, "Commit": "c0ffee", "Description": "d", "Fingerprint": "c0ffee:a.py:own:1"}]);
    server.send("scans", &scans, finding.to_string()).await.expect(200);
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let cluster = token_of(&server.add_source("cluster", "kubernetes.audit", &[]));
    let (data, plain) = (encode(&word("data", "secret data")), word("stringData", "secret stringData"));
    let admitted = encode(&word("an admission", "secret admitted"));
    needles.extend(
        [("base64 in data", &data), ("base64 in an admission", &admitted)]
            .map(|(name, text)| (name.to_owned(), text.clone())),
    );
    let event = json!({"kind": "EventList", "items": [{"kind": "Event", "auditID": "s1", "stage": "ResponseComplete", "verb": "create",
        "objectRef": {"resource": "secrets", "namespace": "x", "name": "y"},
        "requestObject": {"kind": "Secret", "metadata": {"name": "y"}, "data": {"pw": data}, "stringData": {"pw": plain}}}]});
    server.send("cluster", &cluster, event.to_string()).await.expect(200);
    let admission = token_of(&server.add_source("admission", "kubernetes.admission", &[]));
    let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {"uid": "u1", "operation": "CREATE",
        "kind": {"kind": "Secret"}, "resource": {"resource": "secrets"}, "object": {"kind": "Secret", "metadata": {"name": "y"},
        "data": {"pw": admitted}}}});
    server.send("admission", &admission, review.to_string()).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_secrets_are_nowhere_on_disk_in_no_alert_and_not_in_the_log() {
    let folder = tempfile::TempDir::new().unwrap();
    let dir = folder.path().join("data");
    let followed = folder.path().join("build.log");
    let port = free_port();
    let (target, url) = Receiver::start(0).await;
    let config = format!(
        "{}sources:\n  - name: hosts\n    type: json\n    reads: {{syslog: {{listen: '127.0.0.1:{port}'}}}}\n  - name: file\n    type: github.joblog\n    reads: {{files: ['{}']}}\n",
        delivery::config(&url),
        followed.display()
    );
    let server = delivery::with_secret(Setup::new().config(&config)).on(&dir).start();
    let mut needles: Vec<(String, String)> = Vec::new();
    send_records_about_secrets(&server, &mut needles).await;
    let mut plant = |place: &str| -> Vec<String> {
        let secrets = planted(place);
        needles.extend(secrets.iter().map(|secret| (format!("{} in {place}", secret.family), secret.needle.clone())));
        secrets.into_iter().map(|secret| secret.text).collect()
    };

    let any = token_of(&server.add_source("any", "json", &[]));
    for secret in plant("a JSON value") {
        server.send("any", &any, format!(r#"{{"message":"before {secret} after"}}"#)).await.expect(200);
    }
    for secret in plant("a JSON key") {
        server.send("any", &any, format!(r#"{{"{secret}":1}}"#)).await.expect(200);
    }
    for secret in plant("a broken JSON body") {
        server.send("any", &any, format!(r#"{{"message":"{secret}", "#)).await.expect(200);
    }
    for secret in plant("a body of invalid UTF-8") {
        let mut body = b"\xff\xfe ".to_vec();
        body.extend_from_slice(secret.as_bytes());
        body.extend_from_slice(b" \xff");
        server.send("any", &any, body).await.expect(200);
    }
    let mut lines = String::new();
    for secret in plant("NDJSON under gzip") {
        writeln!(lines, r#"{{"nested":{{"deep":["{secret}"]}}}}"#).unwrap();
    }
    server.send_with("any", &any, &[("content-encoding", "gzip")], gzip(lines.as_bytes())).await.expect(200);

    let logs = token_of(&server.add_source("logs", "github.joblog", &[]));
    for secret in plant("a job log") {
        let line = format!("2026-01-01T00:00:00.0000000Z printed {}\n", secret.replace("\\n", "\n"));
        server.send_with("logs?repo=a/b&run_id=1&job_id=1", &logs, &[], line.into_bytes()).await.expect(200);
    }
    for secret in plant("a query parameter") {
        let path = format!("logs?repo=a/b&run_id=1&name={}", percent(&secret.replace("\\n", "\n")));
        let reply = server.send_with(&path, &logs, &[], b"x\n".to_vec()).await;
        assert!([200, 400].contains(&reply.status.as_u16()), "{}", reply.text());
    }

    let hooks = server.add_github("hooks");
    for (index, secret) in plant("a webhook").into_iter().enumerate() {
        let body =
            format!(r#"{{"action":"created","comment":{{"body":"{secret}"}},"repository":{{"full_name":"a/b"}}}}"#);
        server.send_github("hooks", &hooks, "issue_comment", &format!("d-{index}"), body.as_bytes()).await.expect(200);
    }
    let prod = token_of(&server.add_source("prod", "kubernetes.audit", &[]));
    for (index, secret) in plant("a Kubernetes annotation").into_iter().enumerate() {
        let event = format!(
            r#"{{"kind":"EventList","items":[{{"kind":"Event","auditID":"a{index}","stage":"ResponseComplete","verb":"create","objectRef":{{"resource":"pods","namespace":"x","name":"y"}},"requestObject":{{"metadata":{{"annotations":{{"n":"{secret}"}}}}}}}}]}}"#
        );
        server.send("prod", &prod, event).await.expect(200);
    }
    let vault = token_of(&server.add_source("vault", "vault.audit", &[]));
    for (index, secret) in plant("a Vault entry").into_iter().enumerate() {
        let entry = format!(
            r#"{{"time":"2026-01-01T00:00:00Z","type":"response","request":{{"id":"r{index}","operation":"read","path":"kv/data/x"}},"response":{{"data":{{"note":"{secret}"}}}}}}"#
        );
        server.send("vault", &vault, entry).await.expect(200);
    }
    let aws = token_of(&server.add_source("aws", "aws.cloudtrail", &[]));
    for (index, secret) in plant("a CloudTrail record").into_iter().enumerate() {
        let record = format!(
            r#"{{"Records":[{{"eventID":"e{index}","eventTime":"2026-01-01T00:00:00Z","eventName":"RunInstances","eventSource":"ec2.amazonaws.com","requestParameters":{{"userData":"{secret}"}}}}]}}"#
        );
        server.send("aws", &aws, record).await.expect(200);
    }
    let signatures = token_of(&server.add_source("signatures", "sigstore.bundle", &[]));
    for secret in plant("a bundle") {
        server
            .send(
                "signatures",
                &signatures,
                format!(r#"{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","note":"{secret}"}}"#),
            )
            .await
            .expect(200);
    }

    for secret in plant("headers of a CloudEvent") {
        let source = secret.replace("\\n", " ");
        let headers =
            [("ce-specversion", "1.0"), ("ce-id", source.as_str()), ("ce-source", source.as_str()), ("ce-type", "a.b")];
        server.send_with("any", &any, &headers, b"{\"action\":\"a.b\"}".to_vec()).await.expect(200);
    }
    send_by_other_ways(&server, &mut plant, port, &followed).await;

    // What is no secret is found: the search can see what is stored, also in a column of its own and in an alert.
    let harmless = random(40, "harmless", "abcdefghijklmnopqrstuvwxyz");
    let seen_in_alerts = format!("{harmless}/{harmless}");
    let token = format!("ghp_{}", random(36, "alert", ALNUM));
    needles.push(("a token with a name in the alert".to_owned(), token[4..].to_owned()));
    let event = json!({"action": "note.made", "actor.id": harmless, "ci.repo": seen_in_alerts, "message": token});
    server.send("any", &any, event.to_string()).await.expect(200);
    eventually("everything is read", || async {
        let types = "SELECT count(DISTINCT source || leak_type) FROM events WHERE source IN ('hosts', 'file')";
        let read = server.count(types).await;
        (read >= 24).then_some(())
    })
    .await;
    server.settled().await;
    let told = server.sql("SELECT DISTINCT source FROM events WHERE action = 'leak.detected' ORDER BY 1").await;
    let told: Vec<&str> = told.iter().filter_map(|row| row[0].as_str()).collect();
    for source in ["any", "aws", "bulk", "file", "hec", "hooks", "hosts", "logs", "otel", "prod", "scans", "vault"] {
        assert!(told.contains(&source), "a secret in {source} is no event: {told:?}");
    }
    eventually("the alerts are told", || async {
        let deliveries = items(&server.get("/v1/deliveries").await, "deliveries");
        let all = !deliveries.is_empty() && deliveries.iter().all(|delivery| delivery["state"] == "delivered");
        let named = target.attempts().iter().any(|attempt| contains(&attempt.body, seen_in_alerts.as_bytes()));
        (all && named).then_some(())
    })
    .await;
    server.settled().await;
    // The lake's files are compressed: they are read by what reads them.
    let lake = server.sql("SELECT encode(body, 'hex'), envelope FROM events WHERE source <> 'pipeproof'").await;
    assert!(lake.len() > 100, "{} rows", lake.len());
    let mut archived = Vec::new();
    for row in &lake {
        archived.extend(hex::decode(row[0].as_str().unwrap_or_default()).unwrap());
        archived.extend(row[1].to_string().into_bytes());
    }
    assert!(contains(&archived, harmless.as_bytes()));
    let answers = [
        server.get("/v1/findings").await.to_string(),
        server.get("/v1/deadletters").await.to_string(),
        server.get("/v1/incidents").await.to_string(),
        server.get("/v1/deliveries").await.to_string(),
        server.get("/v1/sources").await.to_string(),
    ];
    let alerts = target.attempts();
    assert!(alerts.len() > 5, "{} alerts", alerts.len());
    let (_, log) = server.terminate();
    let mut found = Vec::new();
    let mut look = |place: &str, bytes: &[u8]| {
        for (what, needle) in &needles {
            if contains(bytes, needle.as_bytes()) {
                found.push(format!("{what} is in {place}"));
            }
        }
    };
    let on_disk = readable(&dir).await;
    for place in [".segment: bytes", "lake/events", "store.db: bytes"] {
        let seen = |(name, bytes): &(String, Vec<u8>)| name.contains(place) && contains(bytes, harmless.as_bytes());
        assert!(on_disk.iter().any(seen), "what is no secret was not found in {place} either: the search sees nothing");
    }
    for (place, bytes) in &on_disk {
        look(place, bytes);
    }
    for alert in &alerts {
        look("an alert", &alert.body);
    }
    look("stderr", log.join("\n").as_bytes());
    look("the lake", &archived);
    for answer in answers {
        look("an answer of the API", answer.as_bytes());
    }
    assert!(found.is_empty(), "{} of {} planted secrets leaked:\n{}", found.len(), needles.len(), found.join("\n"));
}

#[tokio::test]
async fn equal_secrets_have_equal_fingerprints_and_become_leaks() {
    let server = Server::start();
    let logs = token_of(&server.add_source("logs", "github.joblog", &[]));
    let secret = format!("ghp_{}", random(36, "twice", ALNUM));
    for run in ["1", "2"] {
        let log = format!("2026-01-01T00:00:00.0000000Z token {secret}\n");
        server
            .send_with(&format!("logs?repo=a/b&run_id={run}&job_id={run}"), &logs, &[], log.into_bytes())
            .await
            .expect(200);
    }
    server.settled().await;
    let rows = server
        .sql("SELECT leak_type, leak_fingerprint, ci_run_id FROM events WHERE action = 'leak.detected' ORDER BY 3")
        .await;
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(rows[0][0], "github-token");
    assert_eq!(rows[0][1], rows[1][1]);
    assert!(rows[0][1].as_str().is_some_and(|print| print.len() >= 16), "{rows:?}");
}

#[tokio::test]
async fn declared_identifiers_stay_readable() {
    let server = Server::start();
    let aws = token_of(&server.add_source("aws", "aws.cloudtrail", &[]));
    let key = format!("ASIA{}", random(16, "key", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"));
    let record = json!({"Records": [{"eventID": "e", "eventTime": "2026-01-01T00:00:00Z", "eventSource": "ec2.amazonaws.com",
        "eventName": "DescribeInstances", "userIdentity": {"type": "AssumedRole", "accessKeyId": key}}]});
    server.send("aws", &aws, record.to_string()).await.expect(200);
    server.settled().await;
    let rows = server.sql("SELECT token_id FROM events WHERE source = 'aws'").await;
    assert_eq!(rows, [[json!(key)]]);
    let leaks = "SELECT count(*) FROM events WHERE action = 'leak.detected'";
    assert_eq!(server.count(leaks).await, 0);
    assert!(items(&server.get("/v1/deadletters").await, "dead_letters").is_empty());
}

#[tokio::test]
async fn a_secret_in_a_dead_letter_is_an_event_and_a_finding() {
    let server = Server::start();
    let scans = token_of(&server.add_source("scans", "falco", &[]));
    let secret = format!("ghp_{}", random(36, "dead letter", ALNUM));
    server.send("scans", &scans, json!({"no": "alert of Falco's", "note": secret}).to_string()).await.expect(200);
    server.settled().await;
    assert_eq!(items(&server.get("/v1/deadletters").await, "dead_letters").len(), 1);
    let rows = server.sql("SELECT leak_type, dead_letter IS NULL FROM events WHERE action = 'leak.detected'").await;
    assert_eq!(rows, [[json!("github-token"), json!(true)]]);
    eventually("the finding", || async {
        server
            .findings()
            .await
            .iter()
            .any(|finding| finding["rule_title"] == "Secret found in what a pipeline wrote")
            .then_some(())
    })
    .await;
    let doctor = server.cli(&["doctor", "--verify", "--format", "json"]);
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}
