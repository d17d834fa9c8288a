//! What sends: events with numbers, and a ledger of its own that is synced before anything goes out.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pipeproof_engine::clock::{Clock as _, SystemClock};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::process::Server;

/// One event in so many is one that a rule finds.
pub(crate) const FOUND: u64 = 25;

/// A rule that finds exactly those, each by itself, and one that counts them.
pub(crate) const RULES: &str = "title: A secret was read
id: 0b7d7c2e-0000-4000-8000-0000000000f1
name: secret_read
taxonomy: cicd
logsource: {product: cicd}
detection:
    read: {action: secret.read}
    condition: read
level: high
requires: [json]
alert: {title: 'secret read by run {ci.run_id}', entity: ['repo:ci.repo']}
---
title: Many secrets were read
id: 0b7d7c2e-0000-4000-8000-0000000000f2
name: many_read
taxonomy: cicd
correlation:
    type: event_count
    rules: [secret_read]
    group-by: [ci.repo]
    timespan: 1h
    condition: {gte: 5}
    generate: true
level: critical
requires: [json]
alert: {title: 'many secrets read', entity: ['repo:ci.repo'], quiet: 1h}
";

#[derive(Debug, Default)]
struct Sent {
    /// Every number that ever went out, with the text that went.
    texts: Vec<String>,
    acknowledged: BTreeSet<u64>,
}

/// The generator; senders share it.
#[derive(Debug)]
pub(crate) struct Generator {
    next: AtomicU64,
    sent: Mutex<Sent>,
    ledger: Mutex<File>,
    /// Bytes that fill an event up, so that a load has a size.
    padding: usize,
}

impl Generator {
    pub(crate) fn new(ledger: &Path, padding: usize) -> Self {
        let ledger = Mutex::new(File::options().create(true).append(true).open(ledger).unwrap());
        Self { next: AtomicU64::new(0), sent: Mutex::default(), ledger, padding }
    }

    fn text(&self, number: u64) -> String {
        let action = if number.is_multiple_of(FOUND) { "secret.read" } else { "job.finished" };
        json!({
            "time": SystemClock.now().to_string(), "action": action, "ci.run_id": number.to_string(), "ci.repo": "acme/app",
            "padding": "x".repeat(self.padding),
        })
        .to_string()
    }

    /// Takes the next numbers, writes them down durably and returns what to send.
    pub(crate) fn batch(&self, count: u64) -> (std::ops::Range<u64>, Vec<u8>) {
        let mut sent = self.sent.lock().unwrap();
        let first = self.next.fetch_add(count, Ordering::SeqCst);
        let numbers = first..first + count;
        let texts: Vec<String> = numbers.clone().map(|number| self.text(number)).collect();
        let mut ledger = self.ledger.lock().unwrap();
        writeln!(ledger, "sent {}..{}", numbers.start, numbers.end).unwrap();
        ledger.sync_data().unwrap();
        let body = texts.join("\n").into_bytes();
        sent.texts.extend(texts);
        (numbers, body)
    }

    pub(crate) fn acknowledge(&self, numbers: std::ops::Range<u64>) {
        writeln!(self.ledger.lock().unwrap(), "acknowledged {}..{}", numbers.start, numbers.end).unwrap();
        self.sent.lock().unwrap().acknowledged.extend(numbers);
    }

    pub(crate) fn sent(&self) -> BTreeSet<u64> {
        (0..self.next.load(Ordering::SeqCst)).collect()
    }

    pub(crate) fn acknowledged(&self) -> BTreeSet<u64> {
        self.sent.lock().unwrap().acknowledged.clone()
    }

    /// The text that went out under a number.
    pub(crate) fn text_of(&self, number: u64) -> Option<String> {
        self.sent.lock().unwrap().texts.get(usize::try_from(number).ok()?).cloned()
    }

    /// Sends one batch and notes what came of it. `None` when the server is gone.
    pub(crate) async fn send(&self, server: &Server, count: u64) -> Option<StatusCode> {
        let (numbers, body) = self.batch(count);
        self.send_again(server, numbers, body).await
    }

    pub(crate) async fn send_again(
        &self,
        server: &Server,
        numbers: std::ops::Range<u64>,
        body: Vec<u8>,
    ) -> Option<StatusCode> {
        let reply = server.ask(Method::POST, "/v1/events/gen", body).await.ok()?;
        if reply.status == StatusCode::OK {
            self.acknowledge(numbers);
        }
        Some(reply.status)
    }

    /// Sends with so many senders until told to stop or the server is gone.
    pub(crate) async fn load(&self, server: &Server, senders: usize, count: u64, stop: &AtomicBool) {
        let one = || async {
            while !stop.load(Ordering::SeqCst) {
                match self.send(server, count).await {
                    None => return,
                    Some(StatusCode::OK) => {}
                    // It said to come again.
                    Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        futures::future::join_all((0..senders).map(|_| one())).await;
    }
}
