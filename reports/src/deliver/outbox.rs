//! The port through which delivery reads messages and leaves receipts, and a form of it in memory.
//!
//! Messages are written by detection in its own transaction; a target sees those written after it was registered.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use pipeproof_engine::commit::Message;
use pipeproof_engine::time::Timestamp;

use super::receipt::{DeliveryState, Receipt};

/// A message that waits for one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The outbox's own number of this delivery.
    pub delivery: i64,
    /// The message.
    pub message: Message,
    /// Attempts so far.
    pub attempts: u32,
    /// When it was queued for the target.
    pub queued: Timestamp,
}

/// What a target can be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Messages to send now, oldest first; of an incident only its oldest undelivered one.
    pub messages: Vec<Queued>,
    /// When the next message becomes due that is not due now.
    pub next: Option<Timestamp>,
}

/// Where messages wait and receipts go.
pub trait Outbox: Send + Sync + 'static {
    /// Its failures.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Makes a target known. From now on messages queue for it; repeating it changes nothing.
    fn register(&self, target: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// What `target` can be sent at `now`, at most `limit` messages. A message waits while an older one of its incident is
    /// neither delivered nor dead.
    fn due(&self, target: &str, now: Timestamp, limit: usize) -> impl Future<Output = Result<Due, Self::Error>> + Send;

    /// Keeps the receipt of an attempt at a delivery, and what it says became of it.
    fn record(&self, delivery: i64, receipt: &Receipt) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// An outbox in memory, for tests and for trying a target out.
#[derive(Debug, Default)]
pub struct MemoryOutbox(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    messages: Vec<Message>,
    /// Target → number of the first message it sees.
    targets: BTreeMap<String, usize>,
    receipts: Vec<Receipt>,
}

impl MemoryOutbox {
    /// Adds a message, unless one of that id is there.
    pub fn enqueue(&self, message: Message) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.messages.iter().all(|other| other.id != message.id) {
            kept.messages.push(message);
        }
    }

    /// All receipts, in the order they came.
    #[must_use]
    pub fn receipts(&self) -> Vec<Receipt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).receipts.clone()
    }
}

impl Kept {
    fn due(&self, target: &str, now: Timestamp, limit: usize) -> Due {
        let mut due = Due::default();
        let mut waiting: Vec<&str> = Vec::new();
        let Some(first) = self.targets.get(target) else { return due };
        for (number, message) in self.messages.iter().enumerate().skip(*first) {
            let mut receipts = self.receipts.iter().filter(|kept| kept.target == target && kept.message == message.id);
            let attempts = u32::try_from(receipts.clone().count()).unwrap_or(u32::MAX);
            let next = match receipts.next_back().map(|receipt| &receipt.state) {
                Some(DeliveryState::Delivered | DeliveryState::Dead) => continue,
                Some(DeliveryState::Retry { next }) => Some(*next),
                None => None,
            };
            if let Some(incident) = &message.incident {
                if waiting.contains(&incident.as_str()) {
                    continue;
                }
                waiting.push(incident);
            }
            match next {
                Some(next) if next > now => due.next = Some(due.next.map_or(next, |other| other.min(next))),
                _ if due.messages.len() < limit => {
                    let delivery = i64::try_from(number).unwrap_or(i64::MAX);
                    due.messages.push(Queued { delivery, message: message.clone(), attempts, queued: message.at });
                }
                _ => {}
            }
        }
        due
    }
}

impl Outbox for MemoryOutbox {
    type Error = Infallible;

    async fn register(&self, target: &str) -> Result<(), Infallible> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = kept.messages.len();
        kept.targets.entry(target.to_owned()).or_insert(from);
        Ok(())
    }

    async fn due(&self, target: &str, now: Timestamp, limit: usize) -> Result<Due, Infallible> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).due(target, now, limit))
    }

    async fn record(&self, _delivery: i64, receipt: &Receipt) -> Result<(), Infallible> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).receipts.push(receipt.clone());
        Ok(())
    }
}
