//! The live stream: events as they are detected, each once, until either side ends it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, expect_exit, program, run, stderr, token_of};

const SOON: Duration = Duration::from_secs(20);

/// `pipeproof tail` with what it prints.
struct Tail {
    child: Child,
    lines: Receiver<String>,
}

impl Tail {
    /// Listens when this returns: the source `probe` is asked until it is heard.
    async fn start(server: &Server, probe: &str, args: &[&str]) -> Self {
        let mut child = program()
            .arg("tail")
            .args(args)
            .arg("--data")
            .arg(server.data())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (heard, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| heard.send(line).is_ok()));
        let tail = Self { child, lines };
        let token = server.sender(probe);
        for number in 0..60 {
            server.send(probe, &token, json!({"action": "secret.read", "probe": number}).to_string()).await.expect(200);
            if tail.lines.recv_timeout(Duration::from_millis(300)).is_ok() {
                return tail;
            }
        }
        panic!("nothing was heard");
    }

    /// The next event that is no probe.
    fn next(&self) -> Value {
        loop {
            let line = self.lines.recv_timeout(SOON).expect("another event");
            let event: Value = serde_json::from_str(&line).unwrap();
            if !line.contains("probe") {
                return event;
            }
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn a_listener_hears_each_event_once_and_a_stop_ends_the_stream() {
    let server = Server::start();
    let token = token_of(&server.add_source("app", "json", &[]));
    let mut tail = Tail::start(&server, "app", &["--source", "app"]).await;
    let other = token_of(&server.add_source("other", "json", &[]));
    server.send("other", &other, r#"{"id": "x", "action": "job.started"}"#).await.expect(200);
    for id in ["a", "b", "a", "c"] {
        // What is delivered again is no event again.
        server.send("app", &token, json!({"id": id, "action": "secret.read"}).to_string()).await.expect(200);
    }
    for id in ["a", "b", "c"] {
        let event = tail.next();
        assert_eq!(event["native"]["id"], id, "{event}");
        assert_eq!((&event["source"], &event["fields"]["action"]), (&json!("app"), &json!("secret.read")), "{event}");
    }
    let (status, _) = server.terminate();
    assert!(status.success());
    assert!(tail.child.wait().unwrap().success(), "the stream ended whole");
}

#[tokio::test]
async fn a_listener_hears_what_it_asked_for_in_the_words_it_asked_for() {
    let server = Server::start();
    let token = token_of(&server.add_source("app", "json", &[]));
    let reads = Tail::start(&server, "app", &["--action", "secret.read"]).await;
    let objects = Tail::start(&server, "app", &["--source", "app", "--as", "ocsf"]).await;
    server.send("app", &token, r#"[{"action": "job.started"}, {"action": "secret.read"}]"#).await.expect(200);
    assert_eq!(reads.next()["fields"]["action"], "secret.read");
    assert!(objects.next()["class_uid"].is_number());
    assert!(objects.next()["class_uid"].is_number());
    server.api(Method::GET, "/v1/tail?format=cef", None).await.expect(400);
}

#[tokio::test]
async fn without_a_server_there_is_nothing_to_hear() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(["tail", "--data", folder.path().join("data").to_str().unwrap()]);
    expect_exit(&output, 4);
    assert!(stderr(&output).contains("no server runs on"), "{}", stderr(&output));
}
