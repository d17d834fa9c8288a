//! What sends: events with numbers, and a ledger of its own that is synced before anything goes out. Whatever was not answered is sent
//! again with the same bytes, as a real sender does.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pipeproof_engine::clock::{Clock as _, SystemClock};
use pipeproof_engine::time::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::process::{PATIENCE, Server};

/// One event in so many is one that a rule finds, if nothing else is asked for.
const FOUND: u64 = 25;
/// So many of what is found go round so many robots, which makes five of each: the five of one robot lie a thousand events apart.
const ROUND: u64 = 40;
const ROBOTS: u64 = 8;

/// The rules of [`RULES`] that look at one event, and at several.
pub(crate) const SINGLE: &str = "0b7d7c2e-0000-4000-8000-0000000000f1";
pub(crate) const CORRELATED: [&str; 2] =
    ["0b7d7c2e-0000-4000-8000-0000000000f2", "0b7d7c2e-0000-4000-8000-0000000000f7"];

/// A rule that finds exactly those, each by itself, one that counts them, and one that counts those of each robot: what it finds
/// rests on state that lives over many batches, and over deaths.
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
---
title: One robot read five secrets
id: 0b7d7c2e-0000-4000-8000-0000000000f7
name: robot_read
taxonomy: cicd
correlation:
    type: event_count
    rules: [secret_read]
    group-by: [actor.id]
    timespan: 1h
    condition: {gte: 5}
    generate: true
level: medium
requires: [json]
alert: {title: 'five secrets read by {actor.id}', entity: ['repo:ci.repo']}
";

#[derive(Debug, Default)]
struct Sent {
    /// When each number went out: the rest of its text follows from the number.
    times: Vec<Timestamp>,
    /// What went out together.
    batches: Vec<Range<u64>>,
    acknowledged: BTreeSet<u64>,
    /// Batches that were not answered, or not taken: their senders come again with them.
    unanswered: VecDeque<Range<u64>>,
    /// Numbers of events that are later than their source may be.
    late: BTreeSet<u64>,
}

/// The generator; senders share it.
#[derive(Debug)]
pub(crate) struct Generator {
    sent: Mutex<Sent>,
    ledger: Mutex<File>,
    /// Bytes that fill an event up, so that a load has a size.
    padding: usize,
    /// One event in so many is one that a rule finds.
    found: u64,
    /// Seconds by which senders' clocks are ahead of the machine's.
    ahead: AtomicI64,
    /// Batches that were sent again.
    again: AtomicU64,
}

impl Generator {
    pub(crate) fn new(ledger: &Path, padding: usize) -> Self {
        let ledger = Mutex::new(File::options().create(true).append(true).open(ledger).unwrap());
        let (ahead, again) = (AtomicI64::new(0), AtomicU64::new(0));
        Self { sent: Mutex::default(), ledger, padding, found: FOUND, ahead, again }
    }

    /// With one event in so many that a rule finds.
    pub(crate) fn finding_one_in(self, found: u64) -> Self {
        Self { found, ..self }
    }

    /// Whether a rule finds the event with this number.
    pub(crate) fn is_found(&self, number: u64) -> bool {
        number.is_multiple_of(self.found)
    }

    fn text(&self, number: u64, time: Timestamp) -> String {
        let action = if self.is_found(number) { "secret.read" } else { "job.finished" };
        let read = number / self.found;
        let robot = read / ROUND * ROBOTS + read % ROBOTS;
        json!({
            "time": time.to_string(), "action": action, "ci.run_id": number.to_string(), "ci.repo": "acme/app",
            "actor.id": format!("robot-{robot}"), "padding": "x".repeat(self.padding),
        })
        .to_string()
    }

    /// From now on senders' clocks are further ahead.
    pub(crate) fn pass(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(SystemClock.now().as_micros() + self.ahead.load(Ordering::SeqCst) * 1_000_000)
    }

    /// Takes the next numbers, writes them down durably and returns what to send.
    pub(crate) fn batch(&self, count: u64) -> (Range<u64>, Vec<u8>) {
        self.batch_of(count, Duration::ZERO, false)
    }

    /// The same with events that happened so long ago; `late` if that is longer than their source may take.
    pub(crate) fn batch_of(&self, count: u64, ago: Duration, late: bool) -> (Range<u64>, Vec<u8>) {
        let mut sent = self.sent.lock().unwrap();
        let first = sent.times.len() as u64;
        let numbers = first..first + count;
        // In the order of the numbers: the clock is read while nobody else can.
        let times: Vec<Timestamp> = numbers.clone().map(|_| self.now().minus(ago)).collect();
        let texts = numbers.clone().zip(&times).map(|(number, time)| self.text(number, *time));
        let body = texts.collect::<Vec<_>>().join("\n").into_bytes();
        let mut ledger = self.ledger.lock().unwrap();
        writeln!(ledger, "sent {}..{}", numbers.start, numbers.end).unwrap();
        ledger.sync_data().unwrap();
        sent.times.extend(times);
        sent.batches.push(numbers.clone());
        if late {
            sent.late.extend(numbers.clone());
        }
        (numbers, body)
    }

    fn body(&self, numbers: &Range<u64>) -> Vec<u8> {
        let texts: Vec<String> = numbers.clone().filter_map(|number| self.text_of(number)).collect();
        texts.join("\n").into_bytes()
    }

    pub(crate) fn acknowledge(&self, numbers: Range<u64>) {
        writeln!(self.ledger.lock().unwrap(), "acknowledged {}..{}", numbers.start, numbers.end).unwrap();
        self.sent.lock().unwrap().acknowledged.extend(numbers);
    }

    fn is_acknowledged(&self, numbers: &Range<u64>) -> bool {
        let sent = self.sent.lock().unwrap();
        numbers.clone().all(|number| sent.acknowledged.contains(&number))
    }

    pub(crate) fn sent(&self) -> BTreeSet<u64> {
        (0..self.count()).collect()
    }

    /// How many numbers went out.
    pub(crate) fn count(&self) -> u64 {
        self.sent.lock().unwrap().times.len() as u64
    }

    pub(crate) fn acknowledged(&self) -> BTreeSet<u64> {
        self.sent.lock().unwrap().acknowledged.clone()
    }

    /// How many of them.
    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.sent.lock().unwrap().acknowledged.len() as u64
    }

    /// Batches that came again so far.
    pub(crate) fn again(&self) -> u64 {
        self.again.load(Ordering::SeqCst)
    }

    pub(crate) fn late(&self) -> BTreeSet<u64> {
        self.sent.lock().unwrap().late.clone()
    }

    /// The text that went out under a number.
    pub(crate) fn text_of(&self, number: u64) -> Option<String> {
        let time = self.sent.lock().unwrap().times.get(usize::try_from(number).ok()?).copied()?;
        Some(self.text(number, time))
    }

    /// Whether a text is exactly what went out under a number.
    pub(crate) fn is_text_of(&self, number: u64, text: &[u8]) -> bool {
        self.text_of(number).is_some_and(|sent| sent.as_bytes() == text)
    }

    /// Sends one batch and notes what came of it. `None` when the server is gone.
    pub(crate) async fn send(&self, server: &Server, count: u64) -> Option<StatusCode> {
        let (numbers, body) = self.batch(count);
        self.send_again(server, numbers, body).await
    }

    pub(crate) async fn send_again(&self, server: &Server, numbers: Range<u64>, body: Vec<u8>) -> Option<StatusCode> {
        let reply = server.ask(Method::POST, "/v1/events/gen", body).await.ok();
        match reply.as_ref().map(|reply| reply.status) {
            Some(StatusCode::OK) => self.acknowledge(numbers),
            _ => self.sent.lock().unwrap().unanswered.push_back(numbers),
        }
        reply.map(|reply| reply.status)
    }

    /// What a sender sends next: what it has no answer to comes first.
    fn next(&self, count: u64) -> (Range<u64>, Vec<u8>) {
        loop {
            let waiting = self.sent.lock().unwrap().unanswered.pop_front();
            match waiting {
                None => return self.batch(count),
                Some(numbers) if self.is_acknowledged(&numbers) => {}
                Some(numbers) => {
                    self.again.fetch_add(1, Ordering::SeqCst);
                    let body = self.body(&numbers);
                    return (numbers, body);
                }
            }
        }
    }

    /// Sends with so many senders until told to stop or the server is gone.
    pub(crate) async fn load(&self, server: &Server, senders: usize, count: u64, stop: &AtomicBool) {
        let one = || async {
            while !stop.load(Ordering::SeqCst) {
                let (numbers, body) = self.next(count);
                match self.send_again(server, numbers, body).await {
                    None => return,
                    Some(StatusCode::OK) => {}
                    // It said to come again.
                    Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        futures::future::join_all((0..senders).map(|_| one())).await;
    }

    /// Sends everything again that was not acknowledged, until all of it is; false if that does not come.
    pub(crate) async fn resend(&self, server: &Server) -> bool {
        let batches = self.sent.lock().unwrap().batches.clone();
        let began = Instant::now();
        for numbers in batches.into_iter().filter(|numbers| !self.is_acknowledged(numbers)) {
            while !self.is_acknowledged(&numbers) {
                if began.elapsed() > PATIENCE {
                    return false;
                }
                self.again.fetch_add(1, Ordering::SeqCst);
                let body = self.body(&numbers);
                if self.send_again(server, numbers.clone(), body).await != Some(StatusCode::OK) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        self.sent.lock().unwrap().unanswered.clear();
        true
    }
}
