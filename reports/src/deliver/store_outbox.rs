//! The outbox on the record's store: messages that detection committed, queued for every target that is registered.

use pipeproof_engine::time::Timestamp;
use pipeproof_record::store::{
    Attempt, AttemptOutcome, DeliveryFilter, DeliveryState as Stored, SqliteStore, StoreError, Waiting,
};

use super::outbox::{Due, Outbox, Queued};
use super::receipt::{DeliveryState, Receipt};

/// Messages queued in one go.
const PAGE: usize = 500;
/// Waiting deliveries looked at to find the next one due. A store with more is asked again by polling.
const WAITING_MAX: usize = 200;

/// How far a target's queue has followed the outbox.
fn queue_cursor(target: &str) -> String {
    format!("deliver/{target}/queued")
}

/// Set once a target is registered. A queue cursor of 0 alone could also be that of a new target.
fn registered_cursor(target: &str) -> String {
    format!("deliver/{target}/registered")
}

impl Outbox for SqliteStore {
    type Error = StoreError;

    async fn register(&self, target: &str) -> Result<(), StoreError> {
        let registered = registered_cursor(target);
        if self.cursor(&registered).await? > 0 {
            return Ok(());
        }
        // A new target does not want what happened before it.
        let mut end = self.cursor(&queue_cursor(target)).await?;
        while let Some(last) = self.messages_after(end, PAGE).await?.last() {
            end = last.seq;
        }
        self.advance_cursor(&queue_cursor(target), end).await?;
        self.advance_cursor(&registered, 1).await
    }

    async fn due(&self, target: &str, now: Timestamp, limit: usize) -> Result<Due, StoreError> {
        follow(self, target).await?;
        let messages: Vec<Queued> = Self::due(self, target, now, limit)
            .await?
            .into_iter()
            .map(|due| Queued {
                delivery: due.delivery.id,
                message: due.message,
                attempts: due.delivery.attempts,
                queued: due.delivery.queued_at,
            })
            .collect();
        let next = if messages.is_empty() { next_due(self, target, now).await? } else { None };
        Ok(Due { messages, next })
    }

    async fn record(&self, delivery: i64, receipt: &Receipt) -> Result<(), StoreError> {
        let outcome = match receipt.state {
            DeliveryState::Delivered => AttemptOutcome::Delivered,
            DeliveryState::Retry { next } => AttemptOutcome::Retry(next),
            DeliveryState::Dead => AttemptOutcome::Dead,
        };
        let attempt = Attempt {
            at: receipt.at.plus(std::time::Duration::from_millis(receipt.latency_ms)),
            outcome,
            status: receipt.status,
            latency_ms: receipt.latency_ms,
            response_sha256: receipt.response_sha256.clone(),
            response_head: Some(receipt.response_head.clone()).filter(|head| !head.is_empty()),
            error: receipt.error.clone(),
        };
        self.record_attempt(delivery, &attempt).await.map(|_| ())
    }
}

/// What a registered target still has to be brought, queued for it or not yet.
///
/// # Errors
/// [`StoreError`].
pub async fn waiting(store: &SqliteStore, target: &str) -> Result<Waiting, StoreError> {
    store.waiting(target, store.cursor(&queue_cursor(target)).await?).await
}

/// Queues for the target what was committed since. Repeating a part after a crash queues nothing twice.
async fn follow(store: &SqliteStore, target: &str) -> Result<(), StoreError> {
    let cursor = queue_cursor(target);
    let mut at = store.cursor(&cursor).await?;
    loop {
        let page = store.messages_after(at, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        at = last.seq;
        let ids: Vec<String> = page.iter().map(|stored| stored.message.id.clone()).collect();
        store.enqueue(target, &ids).await?;
        store.advance_cursor(&cursor, at).await?;
    }
}

async fn next_due(store: &SqliteStore, target: &str, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let filter = DeliveryFilter {
        target: Some(target.to_owned()),
        state: Some(Stored::Retry),
        limit: WAITING_MAX,
        ..DeliveryFilter::default()
    };
    let waiting = store.deliveries(&filter).await?;
    // One that is due but stands behind an older message of its incident does not count: the older one does.
    Ok(waiting.iter().map(|delivery| delivery.next_at).filter(|next| *next > now).min())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use pipeproof_engine::clock::{Clock as _, ManualClock};
    use pipeproof_engine::commit::{Commit, Message, Store as _};
    use serde_json::json;

    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    struct Scene {
        dir: tempfile::TempDir,
        clock: Arc<ManualClock>,
        store: SqliteStore,
        position: u64,
    }

    impl Scene {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::new(START));
            let store = SqliteStore::open(&dir.path().join("store.db"), Arc::clone(&clock) as _).await.unwrap();
            Self { dir, clock, store, position: 0 }
        }

        async fn commit(&mut self, ids: &[&str]) {
            let outbox = ids
                .iter()
                .map(|id| Message {
                    id: (*id).to_owned(),
                    kind: "finding.created".to_owned(),
                    incident: id.split_once('-').map(|(incident, _)| incident.to_owned()),
                    at: START,
                    body: json!({ "title": id }),
                })
                .collect();
            let commit = Commit {
                from: self.position,
                to: self.position + 1,
                committed: self.clock.now(),
                outbox,
                ..Commit::default()
            };
            self.store.commit(&commit).await.unwrap();
            self.position += 1;
        }

        async fn due(&self, target: &str) -> Vec<Queued> {
            Outbox::due(&self.store, target, self.clock.now(), 100).await.unwrap().messages
        }

        async fn due_ids(&self, target: &str) -> Vec<String> {
            self.due(target).await.into_iter().map(|queued| queued.message.id).collect()
        }
    }

    fn receipt(queued: &Queued, state: DeliveryState) -> Receipt {
        Receipt {
            message: queued.message.id.clone(),
            target: "hook".to_owned(),
            attempt: queued.attempts + 1,
            at: START,
            latency_ms: 7,
            status: Some(200),
            error: None,
            response_sha256: None,
            response_head: String::new(),
            state,
        }
    }

    #[tokio::test]
    async fn a_target_sees_what_was_committed_after_it_was_registered_and_only_once() {
        let mut scene = Scene::new().await;
        scene.store.register("early").await.unwrap();
        scene.commit(&["a-1", "b-1"]).await;
        scene.store.register("late").await.unwrap();
        scene.store.register("early").await.unwrap();
        assert_eq!(scene.due_ids("early").await, ["a-1", "b-1"]);
        assert!(scene.due_ids("late").await.is_empty());
        scene.commit(&["a-2"]).await;
        assert_eq!(scene.due_ids("late").await, ["a-2"]);
        // Registered while the outbox was empty, then restarted before anything was queued.
        let store = SqliteStore::open(&scene.dir.path().join("store.db"), Arc::clone(&scene.clock) as _).await.unwrap();
        store.register("early").await.unwrap();
        assert_eq!(Outbox::due(&store, "early", START, 100).await.unwrap().messages.len(), 2);
    }

    #[tokio::test]
    async fn what_waits_counts_from_its_commit_on_whether_it_is_queued_or_not() {
        let mut scene = Scene::new().await;
        scene.store.register("hook").await.unwrap();
        let after = |secs| START.plus(Duration::from_secs(secs));
        let waits = async |scene: &Scene| {
            let Waiting { messages, since } = waiting(&scene.store, "hook").await.unwrap();
            (messages, since)
        };
        assert_eq!(waits(&scene).await, (0, None));
        scene.commit(&["a-1"]).await;
        scene.clock.advance(Duration::from_secs(5));
        scene.commit(&["b-1"]).await;
        assert_eq!(waits(&scene).await, (2, Some(START)), "nothing is queued yet");
        scene.clock.advance(Duration::from_secs(5));
        let due = scene.due("hook").await;
        assert_eq!(waits(&scene).await, (2, Some(START)));
        scene.commit(&["c-1"]).await;
        assert_eq!(waits(&scene).await, (3, Some(START)));
        scene.store.record(due[0].delivery, &receipt(&due[0], DeliveryState::Delivered)).await.unwrap();
        assert_eq!(waits(&scene).await, (2, Some(after(5))));
        scene.store.record(due[1].delivery, &receipt(&due[1], DeliveryState::Dead)).await.unwrap();
        assert_eq!(waits(&scene).await, (1, Some(after(10))));
    }

    #[tokio::test]
    async fn receipts_move_a_delivery_on_and_keep_the_order_of_an_incident() {
        let mut scene = Scene::new().await;
        scene.store.register("hook").await.unwrap();
        scene.commit(&["a-1", "a-2", "b-1"]).await;
        let due = scene.due("hook").await;
        assert_eq!(due.iter().map(|queued| queued.message.id.as_str()).collect::<Vec<_>>(), ["a-1", "b-1"]);
        let next = START.plus(Duration::from_secs(5));
        scene.store.record(due[0].delivery, &receipt(&due[0], DeliveryState::Retry { next })).await.unwrap();
        scene.store.record(due[1].delivery, &receipt(&due[1], DeliveryState::Delivered)).await.unwrap();
        let waiting = Outbox::due(&scene.store, "hook", START, 100).await.unwrap();
        assert_eq!((waiting.messages.len(), waiting.next), (0, Some(next)));
        scene.clock.advance(Duration::from_secs(5));
        let due = scene.due("hook").await;
        assert_eq!((due.len(), due[0].attempts), (1, 1));
        scene.store.record(due[0].delivery, &receipt(&due[0], DeliveryState::Dead)).await.unwrap();
        assert_eq!(scene.due_ids("hook").await, ["a-2"]);
    }
}
