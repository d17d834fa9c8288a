//! A secret that comes in over any source, in any shape, is found nowhere on disk and in nothing the server says.

use std::fmt::Write as _;

use serde_json::json;

use crate::harness::{Server, Setup, files, items, token_of};
use crate::ingest::gzip;

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
    let (begin, end) = ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----");
    plant("private-key", format!("{begin}\\n{key}\\n{end}"), key[100..160].to_owned());
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

#[tokio::test]
async fn planted_secrets_are_nowhere_on_disk_and_nowhere_in_the_log() {
    let folder = tempfile::TempDir::new().unwrap();
    let dir = folder.path().join("data");
    let server = Setup::new().on(&dir).start();
    let mut needles: Vec<(String, String)> = Vec::new();
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

    // What is no secret is found: the search can see what is stored.
    let harmless = random(40, "harmless", "abcdefghijklmnopqrstuvwxyz");
    server.send("any", &any, json!({ "note": harmless }).to_string()).await.expect(200);
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
    ];
    let (_, log) = server.terminate();
    let mut found = Vec::new();
    let mut look = |place: &str, bytes: &[u8]| {
        for (what, needle) in &needles {
            if contains(bytes, needle.as_bytes()) {
                found.push(format!("{what} is in {place}"));
            }
        }
    };
    let on_disk = files(&dir);
    assert!(on_disk.len() > 5, "{on_disk:?}");
    let mut seen = false;
    for file in on_disk {
        let bytes = std::fs::read(&file).unwrap_or_default();
        seen |= contains(&bytes, harmless.as_bytes());
        look(&file.display().to_string(), &bytes);
    }
    assert!(seen, "what is no secret was not found either: the search sees nothing");
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

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    // A first-byte scan: `windows` over hundreds of needles and megabytes is too slow without optimisation.
    let Some((first, _)) = needle.split_first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}
