//! Who is called: a webhook receiver that misbehaves on demand and remembers every attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde_json::Value;

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    #[default]
    Takes,
    /// 500, so many attempts of all, then it takes.
    FailsFirst(u64),
    /// Never answers.
    BlackHole,
    /// Takes it, and answers too late to be believed, so many times.
    TakesAndHangs(u64),
}

#[derive(Debug, Default)]
struct Seen {
    manner: Manner,
    attempts: u64,
    /// How often each key was taken, and what it said.
    taken: BTreeMap<String, (u64, String)>,
    invalid: u64,
}

/// The receiver; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receiver(Arc<Mutex<Seen>>);

impl Receiver {
    /// Starts on a free port and returns its URL.
    pub(crate) async fn start(manner: Manner) -> (Self, String) {
        let receiver = Self::default();
        receiver.0.lock().unwrap().manner = manner;
        let router = axum::Router::new().route("/hook", axum::routing::post(receive)).with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    /// Keys taken at least once.
    pub(crate) fn taken(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().taken.keys().cloned().collect()
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.0.lock().unwrap().attempts
    }

    /// Times something came again under a key that had been taken.
    pub(crate) fn repeated(&self) -> u64 {
        self.0.lock().unwrap().taken.values().map(|(times, _)| times - 1).sum()
    }

    /// Different keys that say the same.
    pub(crate) fn same_under_other_keys(&self) -> u64 {
        let seen = self.0.lock().unwrap();
        let said: BTreeSet<&str> = seen.taken.values().map(|(_, body)| body.as_str()).collect();
        (seen.taken.len() - said.len()) as u64
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let id = headers.get("webhook-id").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let manner = {
        let mut seen = receiver.0.lock().unwrap();
        seen.attempts += 1;
        if id.is_empty() || serde_json::from_slice::<Value>(&body).is_err() {
            seen.invalid += 1;
        }
        match seen.manner {
            Manner::FailsFirst(times) if seen.attempts <= times => return StatusCode::INTERNAL_SERVER_ERROR,
            Manner::BlackHole => {}
            _ => {
                let taken = seen.taken.entry(id).or_insert_with(|| (0, String::from_utf8_lossy(&body).into_owned()));
                taken.0 += 1;
            }
        }
        match seen.manner {
            Manner::TakesAndHangs(times) if seen.attempts > times => Manner::Takes,
            manner => manner,
        }
    };
    if matches!(manner, Manner::BlackHole | Manner::TakesAndHangs(_)) {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
    }
    StatusCode::NO_CONTENT
}
