//! What senders get wrong: each mistake has its clear answer, and the server goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::harness::{Server, eventually, files, fixture, items, now, token_of};
use crate::ingest::gzip;

async fn still_works(server: &Server, token: &str) {
    server.send("any", token, json!({"still": "alive"}).to_string()).await.expect(200);
    server.raw(Method::GET, "/healthz", &[], Vec::new()).await.expect(200);
}

fn any_source(server: &Server) -> String {
    token_of(&server.add_source("any", "json", &[]))
}

#[tokio::test]
async fn a_wrong_signature_is_refused() {
    let server = Server::start();
    let token = any_source(&server);
    let secret = server.add_github("hooks");
    let body = fixture("github_webhook/ping/ping.json");
    let wrong = server.send_github("hooks", "not the secret", "ping", "d", &body).await;
    assert_eq!(wrong.expect(401).error_code(), wrong.error_code());
    let headers = [("x-github-event", "ping"), ("x-github-delivery", "d"), ("content-type", "application/json")];
    server.raw(Method::POST, "/v1/events/hooks", &headers, body.clone()).await.expect(401);
    let mut changed = body.clone();
    changed.push(b' ');
    let signature = crate::harness::github_signature(&secret, &body);
    let signed = [headers[0], headers[1], headers[2], ("x-hub-signature-256", signature.as_str())];
    server.raw(Method::POST, "/v1/events/hooks", &signed, changed).await.expect(401);
    for broken in ["", "sha256=", "sha256=zz", "sha1=00", "sha256=00"] {
        let signed = [headers[0], headers[1], headers[2], ("x-hub-signature-256", broken)];
        server.raw(Method::POST, "/v1/events/hooks", &signed, body.clone()).await.expect(401);
    }
    still_works(&server, &token).await;
    server.settled().await;
    assert_eq!(server.count("SELECT count(*) FROM events WHERE source = 'hooks'").await, 0);
}

#[tokio::test]
async fn tokens_that_do_not_allow_it_are_refused() {
    let server = Server::start();
    let token = any_source(&server);
    let soon = now().plus(Duration::from_secs(1)).to_string();
    let expired = server.token(&["events:write"], &["--source", "any", "--expires", &soon]);
    eventually("the token expires", || async {
        (server.send("any", &expired, "{}").await.status.as_u16() == 401).then_some(())
    })
    .await;
    server.send("any", "", "{}").await.expect(401);
    server
        .send("any", "ppt_000000000000_0000000000000000000000000000000000000000000000000000000000000000", "{}")
        .await
        .expect(401);
    server.send("any", &format!("{token}x"), "{}").await.expect(401);
    server.raw(Method::POST, "/v1/events/any", &[], b"{}".to_vec()).await.expect(401);

    let reader = server.token(&["findings:read"], &[]);
    let refused = server.send("any", &reader, "{}").await;
    assert!(!refused.expect(403).error_code().is_empty());
    server.add_source("other", "json", &[]);
    let elsewhere = server.send("other", &token, "{}").await;
    assert!([401, 403].contains(&elsewhere.status.as_u16()), "a token bound to a source: {}", elsewhere.text());
    server.api_as(&token, Method::GET, "/v1/findings", None).await.expect(403);
    still_works(&server, &token).await;
}

#[tokio::test]
async fn an_unknown_source_is_named() {
    let server = Server::start();
    let token = any_source(&server);
    let sender = server.token(&["events:write"], &[]);
    let reply = server.send("nobody", &sender, "{}").await;
    reply.expect(404).error_code();
    assert!(reply.text().contains("nobody"), "{}", reply.text());
    still_works(&server, &token).await;
}

#[tokio::test]
async fn compressed_bodies_that_lie_are_refused() {
    let server = Server::start();
    let token = any_source(&server);
    let whole = gzip(&json!([{"a": 1}, {"a": 2}]).to_string().into_bytes());
    let cut = whole[..whole.len() - 6].to_vec();
    let reply = server.send_with("any", &token, &[("content-encoding", "gzip")], cut).await;
    reply.expect(400).error_code();

    let bomb = gzip(&vec![b' '; 300 << 20]);
    assert!(bomb.len() < 1 << 20, "{} bytes on the wire", bomb.len());
    let reply = server.send_with("any", &token, &[("content-encoding", "gzip")], bomb).await;
    reply.expect(413).error_code();

    let mut twice = b"[".to_vec();
    twice.extend(std::iter::repeat_n(b' ', 200 << 20));
    let nested = gzip(&gzip(&twice));
    let reply = server.send_with("any", &token, &[("content-encoding", "gzip, gzip")], nested).await;
    assert!([400, 413, 415].contains(&reply.status.as_u16()), "{}", reply.text());

    let bomb = zstd::encode_all(&vec![b'0'; 300 << 20][..], 3).unwrap();
    server.send_with("any", &token, &[("content-encoding", "zstd")], bomb).await.expect(413);
    server.send_with("any", &token, &[("content-encoding", "br")], b"{}".to_vec()).await.expect(415);
    server.send_with("any", &token, &[("content-encoding", "gzip")], b"{}".to_vec()).await.expect(400);
    still_works(&server, &token).await;
}

#[tokio::test]
async fn a_line_of_a_hundred_megabytes_is_refused_without_being_kept() {
    let server = Server::start();
    let token = any_source(&server);
    // By hand: the answer may come before everything is sent, and then the connection is closed.
    let address = server.url().strip_prefix("http://").unwrap().to_owned();
    let sent = {
        let token = token.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let len = 100 << 20;
            write!(stream, "POST /v1/events/any HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {len}\r\n\r\n").unwrap();
            let chunk = vec![b'a'; 1 << 16];
            for _ in 0..len / chunk.len() {
                if stream.write_all(&chunk).is_err() {
                    break;
                }
            }
            let mut answer = [0; 64];
            let read = stream.read(&mut answer).unwrap_or(0);
            String::from_utf8_lossy(&answer[..read]).into_owned()
        })
    };
    let answer = sent.await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    still_works(&server, &token).await;

    let kept: u64 = files(server.data()).iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
    assert!(kept < 50 << 20, "{kept} bytes in the folder");
}

#[tokio::test]
async fn an_item_above_the_record_limit_is_kept_cut_beside_its_neighbours() {
    let server = Server::start();
    let token = any_source(&server);
    let hooks = server.add_github("hooks");
    let secret = format!("gh{}_{}", 'p', "Zq3".repeat(12));
    let long = json!({"secret": secret, "filler": "x".repeat(2 << 20), "again": secret}).to_string();
    let body = format!("{}\n{long}\n{}", json!({"action": "first"}), json!({"action": "last"}));
    assert_eq!(server.send("any", &token, body).await.expect(200).json()["accepted"], 3);
    // A provider that got an error would never send it again.
    let reply = server.send_github("hooks", &hooks, "push", "large", long.as_bytes()).await;
    assert_eq!(reply.expect(200).json()["accepted"], 1);
    let actions = server.actions("any").await;
    assert!(actions.contains_key("first") && actions.contains_key("last"), "{actions:?}");
    let letters = items(&server.get("/v1/deadletters").await, "dead_letters");
    for source in ["any", "hooks"] {
        let of_source: Vec<_> = letters.iter().filter(|letter| letter["source"] == source).collect();
        assert_eq!(of_source.len(), 1, "{letters:?}");
        let reason = of_source[0]["reason"].as_str().unwrap();
        assert!(reason.contains("more than a record holds"), "{reason}");
    }
    still_works(&server, &token).await;
    for file in files(server.data()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(!bytes.windows(12).any(|part| part == b"Zq3Zq3Zq3Zq3"), "the secret is in {}", file.display());
    }
}

#[tokio::test]
async fn depth_ten_thousand_is_answered() {
    let server = Server::start();
    let token = any_source(&server);
    let nested = |open: &str, close: &str| format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
    for deep in [nested("[", "]"), nested("{\"a\":", "}"), "[".repeat(10_000)] {
        let reply = server.send("any", &token, deep).await;
        assert_eq!(reply.expect(400).error_code(), "json_too_deep");
    }
    still_works(&server, &token).await;
    server.settled().await;
}

#[tokio::test]
async fn invalid_utf8_is_kept_as_a_dead_letter() {
    let server = Server::start();
    let token = any_source(&server);
    server.send("any", &token, b"{\"a\":\"\xff\xfe\"}".to_vec()).await.expect(200);
    server.send("any", &token, vec![0, 159, 146, 150]).await.expect(200);
    server.settled().await;
    let letters = items(&server.get("/v1/deadletters").await, "dead_letters");
    assert!(letters.iter().filter(|letter| letter["source"] == "any").count() >= 1, "{letters:?}");
    still_works(&server, &token).await;
}

#[tokio::test]
async fn the_api_answers_mistakes_clearly() {
    let server = Server::start();
    server.api(Method::GET, "/v1/nothing", None).await.expect(404);
    server.api(Method::GET, "/v1/findings/f-00000000000000000000000000000000", None).await.expect(404).error_code();
    server.api(Method::GET, "/v1/incidents/i-0", None).await.expect(404).error_code();
    server.api(Method::DELETE, "/v1/findings", None).await.expect(405);
    server.api(Method::POST, "/v1/sources", Some(json!({"name": "x"}))).await.expect(400).error_code();
    server
        .api(Method::POST, "/v1/sources", Some(json!({"name": "../x", "type": "json"})))
        .await
        .expect(400)
        .error_code();
    server.api(Method::POST, "/v1/sources", Some(json!({"name": "pipeproof", "type": "json"}))).await.expect(400);
    server.api(Method::POST, "/v1/sources", Some(json!({"name": "own", "type": "pipeproof"}))).await.expect(400);
    for query in
        ["DROP TABLE events", "SELECT * FROM nothing", "SELEC 1", "INSERT INTO events VALUES (1)", "SET a = 1", ""]
    {
        server.api(Method::POST, "/v1/sql", Some(json!({ "query": query }))).await.expect(400).error_code();
    }
    for files in
        ["COPY (SELECT 1) TO '/tmp/pipeproof-x.csv'", "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'"]
    {
        server.api(Method::POST, "/v1/sql", Some(json!({ "query": files }))).await.expect(400);
    }
}
