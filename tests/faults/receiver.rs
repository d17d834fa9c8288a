//! Who is called: a webhook receiver that misbehaves on demand, checks every signature and remembers every attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    #[default]
    Takes,
    /// 500, so many attempts of all, then it takes.
    FailsFirst(u64),
    /// Takes it, and answers too late to be believed, so many times.
    TakesAndHangs(u64),
}

/// A message that was taken.
#[derive(Clone, Debug)]
struct Taken {
    times: u64,
    /// What it is about.
    subject: String,
    body: Bytes,
}

#[derive(Debug, Default)]
struct Seen {
    manner: Manner,
    secrets: Vec<String>,
    attempts: u64,
    /// Messages by their keys.
    taken: BTreeMap<String, Taken>,
    /// Why messages are none that a receiver may believe.
    invalid: Vec<String>,
    /// Which of the secrets signed the last message, in their order.
    signed_by: Vec<bool>,
}

/// The receiver; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receiver(Arc<Mutex<Seen>>);

impl Receiver {
    /// Starts on a free port and returns its URL. It believes what is signed with `secret`.
    pub(crate) async fn start(manner: Manner, secret: &str) -> (Self, String) {
        let receiver = Self::default();
        {
            let mut seen = receiver.0.lock().unwrap();
            seen.manner = manner;
            seen.secrets = vec![secret.to_owned()];
        }
        let router = axum::Router::new().route("/hook", axum::routing::post(receive)).with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    /// From now on it also believes what is signed with another secret.
    pub(crate) fn also_believe(&self, secret: &str) {
        self.0.lock().unwrap().secrets.push(secret.to_owned());
    }

    /// Which of its secrets signed the last message.
    pub(crate) fn signed_by(&self) -> Vec<bool> {
        self.0.lock().unwrap().signed_by.clone()
    }

    /// What the messages are about that were taken at least once.
    pub(crate) fn taken(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().taken.values().map(|taken| taken.subject.clone()).collect()
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.0.lock().unwrap().attempts
    }

    /// Times something came again under a key that had been taken.
    pub(crate) fn repeated(&self) -> u64 {
        self.0.lock().unwrap().taken.values().map(|taken| taken.times - 1).sum()
    }

    /// Different keys of messages about the same.
    pub(crate) fn same_under_other_keys(&self) -> u64 {
        let keys = self.0.lock().unwrap().taken.len();
        (keys - self.taken().len()) as u64
    }

    /// Why messages were not to be believed.
    pub(crate) fn invalid(&self) -> Vec<String> {
        self.0.lock().unwrap().invalid.clone()
    }
}

/// What a message about a finding is about.
pub(crate) fn about_finding(id: &str) -> String {
    format!("finding {id}")
}

/// What a message about a step of an incident is about.
pub(crate) fn about_step(incident: &str, number: u64) -> String {
    format!("step {incident}/{number}")
}

fn subject(message: &Value) -> Option<String> {
    let data = &message["data"];
    match message["type"].as_str()? {
        "finding.created" => Some(about_finding(data["finding"]["id"].as_str()?)),
        kind if kind.starts_with("incident.") => {
            Some(about_step(data["step"]["incident"].as_str()?, data["step"]["number"].as_u64()?))
        }
        _ => None,
    }
}

/// Whether one of the signatures is that of a secret: Standard Webhooks 1.0.0, written out here so that a mistake in the sender's code
/// is not made twice.
fn is_signed(secret: &str, id: &str, timestamp: &str, body: &[u8], header: &str) -> bool {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    header.split(' ').any(|theirs| theirs == signature)
}

impl Seen {
    /// What is wrong with a message, or what it is about.
    fn check(&mut self, id: &str, timestamp: &str, signature: &str, body: &Bytes) -> Result<String, String> {
        let signed_by: Vec<bool> =
            self.secrets.iter().map(|secret| is_signed(secret, id, timestamp, body, signature)).collect();
        let is_believed = signed_by.contains(&true);
        self.signed_by = signed_by;
        if !is_believed {
            return Err(format!("message {id} is signed with none of the target's secrets"));
        }
        let message: Value = serde_json::from_slice(body).map_err(|error| format!("message {id}: {error}"))?;
        if id.is_empty() || message["id"] != id {
            return Err(format!("the key is {id}, the message says {}", message["id"]));
        }
        if self.taken.get(id).is_some_and(|taken| taken.body != body) {
            return Err(format!("message {id} came with two bodies"));
        }
        subject(&message).ok_or_else(|| format!("message {id} does not say what it is about"))
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (id, timestamp, signature) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    let manner = {
        let mut seen = receiver.0.lock().unwrap();
        seen.attempts += 1;
        let checked = seen.check(&id, &timestamp, &signature, &body);
        match (seen.manner, checked) {
            (_, Err(why)) => {
                seen.invalid.push(why);
                return StatusCode::BAD_REQUEST;
            }
            (Manner::FailsFirst(times), _) if seen.attempts <= times => return StatusCode::INTERNAL_SERVER_ERROR,
            (_, Ok(subject)) => seen.taken.entry(id).or_insert(Taken { times: 0, subject, body }).times += 1,
        }
        match seen.manner {
            Manner::TakesAndHangs(times) if seen.attempts > times => Manner::Takes,
            manner => manner,
        }
    };
    if matches!(manner, Manner::TakesAndHangs(_)) {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
    }
    StatusCode::NO_CONTENT
}
