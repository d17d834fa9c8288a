//! Delivery against a receiver that misbehaves in every way the retry rules name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::clock::{Clock as _, ManualClock};
use pipeproof_engine::commit::Message;
use pipeproof_engine::time::Timestamp;
use serde_json::json;

use super::outbox::MemoryOutbox;
use super::receipt::{DeliveryState, RESPONSE_HEAD_BYTES};
use super::receiver::{Answer, Receiver};
use super::retry::Schedule;
use super::run::{DeliverOptions, Deliverer, TargetState};
use super::send::Timeouts;
use super::sign::WebhookSecret;
use super::target::{Target, TargetSettings};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

struct Scene {
    clock: Arc<ManualClock>,
    outbox: Arc<MemoryOutbox>,
    deliverer: Deliverer<MemoryOutbox>,
}

fn secret(byte: u8) -> WebhookSecret {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
    WebhookSecret::parse(&format!("whsec_{text}")).unwrap()
}

fn target(name: &str, url: &str) -> Target {
    Target::new(TargetSettings {
        name: name.to_owned(),
        url: url.to_owned(),
        secrets: vec![secret(2), secret(1)],
        headers: BTreeMap::from([("authorization".to_owned(), "Bearer not-to-be-kept".to_owned())]),
        allow_private: true,
        schedule: Schedule::StandardWebhooks,
    })
    .unwrap()
}

async fn scene(targets: Vec<Target>) -> Scene {
    let clock = Arc::new(ManualClock::new(START));
    let outbox = Arc::new(MemoryOutbox::default());
    let options = DeliverOptions {
        clock: Arc::clone(&clock) as _,
        random: Arc::new(|| 0.0),
        timeouts: Timeouts { connect: Duration::from_millis(500), total: Duration::from_millis(400) },
    };
    let deliverer = Deliverer::new(Arc::clone(&outbox), targets, options).unwrap();
    deliverer.register().await.unwrap();
    Scene { clock, outbox, deliverer }
}

fn message(id: &str, incident: Option<&str>) -> Message {
    Message {
        id: id.to_owned(),
        kind: "finding.created".to_owned(),
        incident: incident.map(str::to_owned),
        at: START,
        body: json!({ "title": id }),
    }
}

impl Scene {
    /// Runs, moving the clock to whatever is due next, until nothing waits; returns seconds since the start.
    async fn run_out(&self) -> i64 {
        for _ in 0..100 {
            let Some(next) = self.deliverer.run_once().await.unwrap() else { break };
            let wait = next.micros_since(self.clock.now());
            self.clock.advance(Duration::from_micros(u64::try_from(wait).unwrap_or(0)));
        }
        self.clock.now().micros_since(START) / 1_000_000
    }

    fn states(&self) -> Vec<&'static str> {
        self.outbox.receipts().iter().map(|receipt| receipt.state.name()).collect()
    }
}

#[tokio::test]
async fn a_message_arrives_signed_and_leaves_a_receipt() {
    let receiver = Receiver::start([Answer::Status(200, "thanks \u{7} Bearer not-to-be-kept", Vec::new())]).await;
    let scene = scene(vec![target("hook", &receiver.url())]).await;
    scene.outbox.enqueue(message("m-1", Some("i-1")));
    assert_eq!(scene.run_out().await, 0);

    let received = receiver.received();
    assert_eq!(received.len(), 1);
    let request = &received[0];
    assert!(request.head.starts_with("POST /hook HTTP/1.1"), "{}", request.head);
    assert_eq!(request.headers["webhook-timestamp"], "1800000000");
    assert_eq!(request.headers["content-type"], "application/json");
    for key in [1, 2] {
        assert!(secret(key).verify("m-1", 1_800_000_000, &request.body, &request.headers["webhook-signature"]));
    }
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((&body["type"], &body["data"]["title"]), (&json!("finding.created"), &json!("m-1")));

    let receipt = &scene.outbox.receipts()[0];
    assert_eq!((receipt.attempt, receipt.status, &receipt.state), (1, Some(200), &DeliveryState::Delivered));
    assert_eq!(receipt.response_head, "thanks   [redacted]");
    assert_eq!(receipt.response_sha256.as_deref().map(str::len), Some(64));
    let stored = serde_json::to_string(receipt).unwrap();
    assert_eq!(serde_json::from_str::<super::receipt::Receipt>(&stored).unwrap(), *receipt);
}

#[tokio::test]
async fn failures_are_repeated_under_one_id_with_the_time_of_each_attempt() {
    let receiver = Receiver::start([Answer::status(500), Answer::Hangup, Answer::status(503)]).await;
    let scene = scene(vec![target("hook", &receiver.url())]).await;
    scene.outbox.enqueue(message("m-1", None));
    assert_eq!(scene.run_out().await, 5 + 300 + 1_800);

    assert_eq!(scene.states(), ["retry", "retry", "retry", "delivered"]);
    let received = receiver.received();
    assert!(received.iter().all(|request| request.id() == "m-1" && request.body == received[0].body));
    let times: Vec<i64> =
        received.iter().map(|request| request.headers["webhook-timestamp"].parse().unwrap()).collect();
    assert_eq!(times, [0, 5, 305, 2_105].map(|secs| 1_800_000_000 + secs));
    for (request, time) in received.iter().zip(times) {
        assert!(secret(1).verify("m-1", time, &request.body, &request.headers["webhook-signature"]));
    }
}

#[tokio::test]
async fn the_schedule_ends_in_a_dead_letter() {
    let receiver = Receiver::start(vec![Answer::status(500); 20]).await;
    let scene = scene(vec![target("hook", &receiver.url())]).await;
    scene.outbox.enqueue(message("m-1", None));
    scene.run_out().await;
    let mut expected = vec!["retry"; 9];
    expected.push("dead");
    assert_eq!(scene.states(), expected);
}

#[tokio::test]
async fn retry_after_holds_the_whole_target_but_not_for_more_than_a_quarter_of_an_hour() {
    let busy = |wait: &str| Answer::Status(429, "", vec![("retry-after", wait.to_owned())]);
    let receiver = Receiver::start([busy("40"), busy("86400")]).await;
    let scene = scene(vec![target("hook", &receiver.url())]).await;
    scene.outbox.enqueue(message("m-1", None));
    assert_eq!(scene.deliverer.run_once().await.unwrap(), Some(START.plus(Duration::from_secs(40))));
    scene.outbox.enqueue(message("m-2", None));
    assert_eq!(scene.deliverer.run_once().await.unwrap(), Some(START.plus(Duration::from_secs(40))));
    assert_eq!(receiver.received().len(), 1, "sent to a receiver that asked for a pause");
    scene.clock.advance(Duration::from_secs(40));
    let next = scene.deliverer.run_once().await.unwrap();
    assert_eq!(next, Some(scene.clock.now().plus(Duration::from_secs(900))));
    scene.run_out().await;
    assert_eq!(scene.states().iter().filter(|state| **state == "delivered").count(), 2);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_disabled_until_somebody_resumes_it() {
    let receiver = Receiver::start([Answer::status(410)]).await;
    let scene = scene(vec![target("hook", &receiver.url())]).await;
    scene.outbox.enqueue(message("m-1", None));
    assert_eq!(scene.deliverer.run_once().await.unwrap(), None);
    assert!(matches!(scene.deliverer.states()[0].state, TargetState::Disabled { .. }));
    scene.clock.advance(Duration::from_secs(86_400));
    scene.deliverer.run_once().await.unwrap();
    assert_eq!(receiver.received().len(), 1);
    assert!(scene.deliverer.resume("hook") && !scene.deliverer.resume("other"));
    scene.run_out().await;
    assert_eq!(scene.states(), ["retry", "delivered"]);
}

#[tokio::test]
async fn refused_credentials_pause_the_target_and_lose_nothing() {
    let receiver = Receiver::start([Answer::status(401), Answer::status(403)]).await;
    let scene = scene(vec![target("hook", &receiver.url())]).await;
    for number in 0..3 {
        scene.outbox.enqueue(message(&format!("m-{number}"), Some("i-1")));
    }
    let next = scene.deliverer.run_once().await.unwrap();
    assert_eq!(next, Some(START.plus(Duration::from_secs(900))));
    assert!(matches!(scene.deliverer.states()[0].state, TargetState::Paused { .. }));
    assert_eq!(receiver.received().len(), 1);
    scene.run_out().await;
    assert_eq!(scene.states(), ["retry", "retry", "delivered", "delivered", "delivered"]);
    assert_eq!(scene.deliverer.states()[0].state, TargetState::Active);
}

#[tokio::test]
async fn redirects_are_not_followed_and_wrong_payloads_are_dead_letters() {
    let other = Receiver::start([]).await;
    let moved = Answer::Status(307, "", vec![("location", other.url())]);
    let receiver = Receiver::start([moved, Answer::status(400), Answer::status(200)]).await;
    let scene = scene(vec![target("hook", &receiver.url())]).await;
    for number in 0..3 {
        scene.outbox.enqueue(message(&format!("m-{number}"), Some("i-1")));
    }
    scene.run_out().await;
    assert_eq!(scene.states(), ["dead", "dead", "delivered"]);
    assert_eq!(scene.deliverer.states()[0].given_up, 2);
    assert!(other.received().is_empty());
}

#[tokio::test]
async fn a_timeout_after_the_receiver_took_it_in_repeats_the_same_id() {
    let receiver = Receiver::start([Answer::Silence]).await;
    let scene = scene(vec![target("hook", &receiver.url())]).await;
    scene.outbox.enqueue(message("m-1", None));
    scene.run_out().await;
    assert_eq!(scene.states(), ["retry", "delivered"]);
    let error = scene.outbox.receipts()[0].error.clone().unwrap();
    assert!(error.contains("no answer in time") && !error.contains("/hook"), "{error}");
    let ids: Vec<_> = receiver.received().iter().map(|request| request.id().to_owned()).collect();
    assert_eq!(ids, ["m-1", "m-1"]);
}

#[tokio::test]
async fn slow_and_large_response_bodies_do_not_hold_or_fill_us() {
    let receiver = Receiver::start([Answer::SlowBody, Answer::LargeBody(10_000_000)]).await;
    let scene = scene(vec![target("hook", &receiver.url())]).await;
    scene.outbox.enqueue(message("m-1", Some("i")));
    scene.outbox.enqueue(message("m-2", Some("i")));
    let started = tokio::time::Instant::now();
    scene.run_out().await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(scene.states(), ["delivered", "delivered"]);
    assert_eq!(scene.outbox.receipts()[1].response_head.len(), RESPONSE_HEAD_BYTES);
}

#[tokio::test]
async fn messages_of_an_incident_keep_their_order_and_others_do_not_wait() {
    let receiver = Receiver::start([Answer::status(503)]).await;
    let scene = scene(vec![target("hook", &receiver.url())]).await;
    scene.outbox.enqueue(message("a-1", Some("a")));
    scene.deliverer.run_once().await.unwrap();
    scene.outbox.enqueue(message("a-2", Some("a")));
    scene.outbox.enqueue(message("b-1", Some("b")));
    scene.run_out().await;
    let ids: Vec<_> = receiver.received().iter().map(|request| request.id().to_owned()).collect();
    assert_eq!(ids, ["a-1", "b-1", "a-1", "a-2"]);
}

#[tokio::test]
async fn a_dead_target_is_probed_and_does_not_delay_another() {
    let nobody = Receiver::start([]).await;
    let url = nobody.url();
    drop(nobody);
    let alive = Receiver::start([]).await;
    let scene = scene(vec![target("gone", &url), target("alive", &alive.url())]).await;
    for number in 0..40 {
        scene.outbox.enqueue(message(&format!("m-{number}"), None));
    }
    let next = scene.deliverer.run_once().await.unwrap();
    assert_eq!(alive.received().len(), 40);
    let failed = scene.outbox.receipts().iter().filter(|receipt| receipt.target == "gone").count();
    assert!((5..=8).contains(&failed), "{failed} attempts at a dead target in one round");
    assert!(next.is_some_and(|next| next > START), "{next:?}");
}

#[tokio::test]
async fn egress_refuses_a_name_that_points_inside() {
    let receiver = Receiver::start([]).await;
    let settings = TargetSettings {
        name: "inside".to_owned(),
        url: format!("https://localhost:{}/", receiver.address.port()),
        secrets: Vec::new(),
        headers: BTreeMap::new(),
        allow_private: false,
        schedule: Schedule::default(),
    };
    let scene = scene(vec![Target::new(settings).unwrap()]).await;
    scene.outbox.enqueue(message("m-1", None));
    scene.deliverer.run_once().await.unwrap();
    let error = scene.outbox.receipts()[0].error.clone().unwrap();
    assert!(error.contains("allow_private"), "{error}");
    assert!(matches!(scene.deliverer.states()[0].state, TargetState::Paused { .. }));
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn the_loop_delivers_when_nudged_and_stops_when_told() {
    let receiver = Receiver::start([]).await;
    let scene = scene(vec![target("hook", &receiver.url())]).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn({
        let deliverer = scene.deliverer.clone();
        async move { deliverer.run(stopped).await }
    });
    scene.outbox.enqueue(message("m-1", None));
    let delivered = async {
        while receiver.received().is_empty() {
            scene.deliverer.nudge();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), delivered).await.unwrap();
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
}
