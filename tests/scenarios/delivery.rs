//! Findings reach a webhook: signed, under a constant id, again until they are taken, with a receipt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use reqwest::Method;
use serde_json::Value;
use sha2::Sha256;

use crate::harness::{Server, Setup, eventually, fixture, items, now};

/// 24 bytes, as the specification asks for at least.
const KEY: &[u8] = b"0123456789abcdefghijklmn";

#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    id: String,
    timestamp: String,
    signature: String,
    pub(crate) body: Bytes,
    answered: u16,
}

#[derive(Clone, Default)]
pub(crate) struct Receiver {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    /// How often each message is refused first.
    refuse: usize,
}

impl Receiver {
    /// Starts on a free port and returns its URL.
    pub(crate) async fn start(refuse: usize) -> (Self, String) {
        let receiver = Self { refuse, ..Self::default() };
        let router = axum::Router::new().route("/hook", axum::routing::post(receive)).with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap().clone()
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let id = header("webhook-id");
    let mut attempts = receiver.attempts.lock().unwrap();
    let before = attempts.iter().filter(|attempt| attempt.id == id).count();
    let status = if before < receiver.refuse { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT };
    attempts.push(Attempt {
        id,
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body,
        answered: status.as_u16(),
    });
    status
}

/// Configuration with one webhook target; the secret comes from the environment.
pub(crate) fn config(url: &str) -> String {
    format!(
        "targets:\n  - name: oncall\n    url: {url}\n    secrets: [{{env: ONCALL_SECRET}}]\n    allow_private: true\n"
    )
}

fn setup(url: &str) -> Setup {
    with_secret(Setup::new().config(&config(url)))
}

/// The secret that the target signs with.
pub(crate) fn with_secret(setup: Setup) -> Setup {
    setup.env("ONCALL_SECRET", &format!("whsec_{}", STANDARD.encode(KEY)))
}

async fn lift_protection(server: &Server) {
    let secret = server.add_github("hooks");
    let body = fixture("github_webhook/branch_protection_rule/branch_protection_rule_deleted.json");
    server.send_github("hooks", &secret, "branch_protection_rule", "d-1", &body).await.expect(200);
    server.settled().await;
    assert!(!server.findings().await.is_empty());
}

/// A metric of the target.
async fn metric(server: &Server, name: &str) -> f64 {
    let text = server.api(Method::GET, "/metrics", None).await.expect(200).text();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{target=\"oncall\"}} ")));
    value.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn a_finding_is_delivered_signed_and_again_until_it_is_taken() {
    let (receiver, url) = Receiver::start(2).await;
    let server = setup(&url).start();
    lift_protection(&server).await;
    eventually("every message is taken", || async {
        let attempts = receiver.attempts();
        let taken = attempts.iter().filter(|attempt| attempt.answered == 204).count();
        let started = attempts.iter().filter(|attempt| attempt.answered == 500).count();
        (taken >= 1 && started == 2 * taken).then_some(())
    })
    .await;

    let mut by_id: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
    for attempt in receiver.attempts() {
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
        mac.update(format!("{}.{}.", attempt.id, attempt.timestamp).as_bytes());
        mac.update(&attempt.body);
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert!(attempt.signature.split(' ').any(|signature| signature == expected), "{attempt:?}");
        let sent: i64 = attempt.timestamp.parse().unwrap();
        assert!((now().as_micros() / 1_000_000 - sent).abs() < 120, "{attempt:?}");
        assert!(!attempt.id.is_empty());
        by_id.entry(attempt.id.clone()).or_default().push(attempt);
    }
    for attempts in by_id.values() {
        assert!(attempts.iter().all(|attempt| attempt.body == attempts[0].body), "one id, one body");
        assert_eq!(attempts.iter().filter(|attempt| attempt.answered == 204).count(), 1, "taken once: {attempts:?}");
    }
    let body: Value = serde_json::from_slice(&receiver.attempts()[0].body).unwrap();
    let finding = &server.findings().await[0];
    let all: String =
        receiver.attempts().iter().map(|attempt| String::from_utf8_lossy(&attempt.body).into_owned()).collect();
    assert!(all.contains(finding["id"].as_str().unwrap()), "the finding is in a message: {body}");

    let receipts = eventually("a receipt of every attempt", || async {
        let receipts = items(&server.get("/v1/deliveries").await, "deliveries");
        (!receipts.is_empty()).then_some(receipts)
    })
    .await;
    for id in by_id.keys() {
        let of_id: Vec<_> = receipts.iter().filter(|receipt| receipt.to_string().contains(id.as_str())).collect();
        assert!(!of_id.is_empty(), "no receipt of {id} in {receipts:?}");
    }
    let listed = items(&server.cli_json(&["deliveries", "list"]), "deliveries");
    assert_eq!(listed.len(), receipts.len());
}

#[tokio::test]
async fn what_was_not_taken_before_a_kill_is_delivered_after_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let (refusing, url) = Receiver::start(usize::MAX).await;
    let server = setup(&url).on(&data).start();
    lift_protection(&server).await;
    let id =
        eventually("a first attempt", || async { refusing.attempts().first().map(|attempt| attempt.id.clone()) }).await;
    assert!(metric(&server, "pipeproof_target_waiting_messages").await >= 1.0);
    assert_eq!(metric(&server, "pipeproof_target_stopped").await, 0.0, "it is tried again");
    server.kill();

    let (receiver, url) = Receiver::start(0).await;
    let server = setup(&url).on(&data).start();
    eventually("the delivery after the restart", || async {
        receiver.attempts().iter().any(|attempt| attempt.id == id && attempt.answered == 204).then_some(())
    })
    .await;
    eventually("nothing waits any more", || async {
        (metric(&server, "pipeproof_target_waiting_messages").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(metric(&server, "pipeproof_target_oldest_waiting_seconds").await, 0.0);
}

#[tokio::test]
async fn a_private_address_is_refused_unless_it_is_allowed() {
    let (receiver, url) = Receiver::start(0).await;
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("pipeproof.yaml");
    std::fs::write(&path, format!("version: 1\n{}", config(&url)).replace("    allow_private: true\n", "")).unwrap();
    let output = crate::harness::program()
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(&path)
        .arg("--data")
        .arg(folder.path().join("data"))
        .env("ONCALL_SECRET", format!("whsec_{}", STANDARD.encode(KEY)))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(receiver.attempts().is_empty());
}
