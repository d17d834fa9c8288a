//! Who stands at the door: strangers are told so before they have sent anything, and nobody can fill memory with bodies.

use std::time::Duration;

use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{Server, Setup, eventually, token_of};

const LARGE: usize = 30 << 20;

/// A request whose body does not come, or not yet.
async fn knock(server: &Server, path: &str, headers: &[(&str, &str)], length: usize) -> TcpStream {
    let address = server.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Status and body of the answer.
async fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            return (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned());
        }
    }
    panic!("no answer, but {:?}", String::from_utf8_lossy(&bytes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shows_nothing_is_told_before_a_byte_of_the_body_and_not_whether_the_source_exists() {
    let server = Server::start();
    server.add_source("reports", "kyverno.report", &[]);
    server.add_github("hooks");
    let mut told = Vec::new();
    for source in ["reports", "hooks", "nobody"] {
        let waiting = knock(&server, &format!("/v1/events/{source}"), &[], LARGE).await;
        let (status, body) = answer(waiting).await;
        assert_eq!(status, 401, "{body}");
        told.push(body.replace(source, "NAME"));
    }
    assert!(told.iter().all(|body| *body == told[0]), "{told:#?}");
    // Nor does a signature that nothing could check.
    let signed = [("x-hub-signature-256", "sha256=00")];
    let (status, body) = answer(knock(&server, "/v1/events/reports", &signed, LARGE).await).await;
    assert_eq!((status, body.replace("reports", "NAME")), (401, told[0].clone()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_take_each_others_room_and_nobody_elses() {
    let server = Server::start();
    let secret = server.add_github("hooks");
    let token = token_of(&server.add_source("any", "json", &[]));
    let claimed = [("x-hub-signature-256", "sha256=00"), ("x-github-event", "push"), ("x-github-delivery", "1")];
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        waiting.spawn(answer(knock(&server, "/v1/events/hooks", &claimed, LARGE).await));
    }
    // There is room for three of them, whichever come first: the others are told to come again.
    let refused = tokio::time::timeout(Duration::from_secs(40), async {
        [waiting.join_next().await.unwrap().unwrap(), waiting.join_next().await.unwrap().unwrap()]
    });
    let (known, refused) = tokio::join!(server.send("any", &token, "{\"a\":1}"), refused);
    known.expect(200);
    for (status, body) in refused.unwrap() {
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("no room"), "{body}");
    }
    assert!(waiting.try_join_next().is_none(), "three are still waited for");
    waiting.shutdown().await;
    let body = br#"{"ref":"refs/heads/main","repository":{"full_name":"acme/app"}}"#;
    eventually("room is there again", || async {
        let sent = server.send_github("hooks", &secret, "push", "2", body).await;
        (sent.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn millions_of_empty_log_records_take_no_memory() {
    let server = Server::start();
    let token = token_of(&server.add_source("otel", "otlp", &[]));
    let field = |number: u8, content: Vec<u8>| {
        let mut length = content.len();
        let mut out = vec![number << 3 | 2];
        while length >= 0x80 {
            out.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        [out, content].concat()
    };
    let records: Vec<u8> = (0..LARGE / 2).flat_map(|_| [0x12, 0]).collect();
    let protobuf = field(1, field(2, records));
    let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}{{}}]}}]}}]}}"#, "{},".repeat(LARGE / 3));
    let bearer = format!("Bearer {token}");
    for (media, body) in [("application/x-protobuf", protobuf), ("application/json", json.into_bytes())] {
        let before = server.memory("VmHWM");
        let headers = [("authorization", bearer.as_str()), ("content-type", media)];
        // They are refused like any content that nobody could mend: kept as a dead letter, cut.
        let reply = server.raw(Method::POST, "/v1/logs", &headers, body).await;
        assert!(reply.expect(200).text().contains("kept as a dead letter"), "{}", reply.text());
        let after = server.memory("VmHWM");
        assert!(after < before + 250, "{media}: {before} MiB became {after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_is_nearly_used_up_is_said_and_senders_come_again() {
    let server = Setup::new().config("memory_bytes: 268435456\n").start();
    let token = token_of(&server.add_source("any", "json", &[]));
    server.send("any", &token, "{\"a\":1}").await.expect(200);
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    // Bodies that stay away at their last byte.
    let mut waiting = Vec::new();
    let body = vec![b' '; LARGE - 1];
    for _ in 0..8 {
        let mut stream = knock(&server, "/v1/events/any", &headers, LARGE).await;
        if tokio::time::timeout(Duration::from_secs(20), stream.write_all(&body)).await.is_ok_and(|sent| sent.is_ok()) {
            waiting.push(stream);
        }
    }
    eventually("it says that memory is short", || async {
        let ready = server.raw(Method::GET, "/readyz", &[], Vec::new()).await;
        (ready.status == 503 && ready.text().contains("memory")).then_some(())
    })
    .await;
    let refused = server.send("any", &token, "{\"a\":2}").await;
    assert_eq!(refused.expect(503).error_code(), "unavailable");
    let told = server.log().iter().filter(|line| line.contains("not ready until it can")).count();
    assert_eq!(told, 1, "once");
    drop(waiting);
    eventually("it takes events again", || async {
        (server.send("any", &token, "{\"a\":3}").await.status == 200).then_some(())
    })
    .await;
    eventually("a finding says it", || async {
        server
            .findings()
            .await
            .iter()
            .any(|finding| finding.to_string().contains("memory reached a bound"))
            .then_some(())
    })
    .await;
}
