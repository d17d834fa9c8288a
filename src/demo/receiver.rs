//! The demo's stand-in for an on-call system: takes webhooks and checks their Standard Webhooks signatures.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pipeproof_reports::deliver::sign::WebhookSecret;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::cli::Failure;

/// One webhook as it came.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) title: String,
    pub(super) signed: bool,
}

#[derive(Debug)]
struct Inbox {
    secret: WebhookSecret,
    received: Mutex<Vec<Delivery>>,
}

/// A receiver that runs until the process ends.
#[derive(Debug)]
pub(super) struct Receiver {
    address: SocketAddr,
    secret: String,
    inbox: Arc<Inbox>,
}

impl Receiver {
    pub(super) async fn start() -> Result<Self, Failure> {
        let failed = |source| Failure::Io { doing: "start the demo's receiver".to_owned(), source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let secret = format!("whsec_{}", STANDARD.encode(rand::random::<[u8; 32]>()));
        let parsed = WebhookSecret::parse(&secret).map_err(|error| Failure::Other(crate::chain(&error)))?;
        let inbox = Arc::new(Inbox { secret: parsed, received: Mutex::default() });
        let router = Router::new().route("/", post(receive)).with_state(Arc::clone(&inbox));
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(error = %error, "the demo's receiver ended");
            }
        });
        Ok(Self { address, secret, inbox })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(super) fn secret(&self) -> String {
        self.secret.clone()
    }

    pub(super) fn received(&self) -> Vec<Delivery> {
        self.inbox.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn of_kind(&self, kind: &str) -> usize {
        self.received().iter().filter(|delivery| delivery.kind == kind).count()
    }
}

async fn receive(State(inbox): State<Arc<Inbox>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let id = header("webhook-id").to_owned();
    let timestamp = header("webhook-timestamp").parse::<i64>().unwrap_or(0);
    let signed = inbox.secret.verify(&id, timestamp, &body, header("webhook-signature"));
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let data = message.get("data");
    let finding = data.and_then(|data| data.get("finding").or_else(|| data.get("incident")));
    let title = finding.and_then(|finding| finding.get("title")).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = message.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    inbox.received.lock().unwrap_or_else(PoisonError::into_inner).push(Delivery { id, kind, title, signed });
    StatusCode::NO_CONTENT
}
