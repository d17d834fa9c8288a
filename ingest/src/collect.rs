//! What nobody pushes, fetched: job logs, deliveries that were lost, audit logs, a provider's own list of what ran.
//!
//! A [`Collector`] gives pages: items as their source would have sent them, how far it has come, and when to come again. Who
//! runs it makes the items durable first, then the cursors, then tells it so. After a crash between the two a page is
//! fetched again, and what is in it recognised by its ids.
//!
//! What it is not: it opens no connection ([`http::Transport`] does), keeps no file, and knows no server of ours.

pub mod auth;
pub mod buildkite;
mod changed;
mod cursors;
mod entry;
mod error;
mod etags;
mod following;
pub mod github;
pub mod gitlab;
mod held;
pub mod http;
pub mod jenkins;
mod limits;
mod links;
pub mod objects;
mod quota;
mod rounds;
mod troubled;
mod turn;
mod waiting;

#[cfg(test)]
mod script;

use std::collections::BTreeMap;
use std::time::Duration;

use ::http::HeaderMap;
use async_trait::async_trait;
use bytes::Bytes;
use engine::control::SignedList;
use engine::record::Authenticity;
use engine::time::Timestamp;
use pipeproof_engine as engine;

pub use cursors::Cursors;
pub use entry::Kind;
pub use error::{CollectError, back_off};
pub use held::{FinishedJob, Held, Seen};
pub use troubled::Troubled;

use crate::receive::Way;

/// Most bytes of items that a page should hold; one item may be larger.
pub const PAGE_BYTES: usize = 16 << 20;

/// Fetches for one source.
#[async_trait]
pub trait Collector: Send + Sync + std::fmt::Debug {
    /// What it fetches from where, for people: `deliveries of GitHub acme/shop`.
    fn name(&self) -> String;

    /// Requests that the provider said are left to us for now, where it says so.
    fn left(&self) -> Option<u64> {
        None
    }

    /// The next page. It may be empty, with or without cursors that moved.
    ///
    /// # Errors
    /// [`CollectError`]: nothing of the page counts, and it is asked again when the error says, or after a back-off.
    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError>;

    /// Told once items and cursors of a page are durable, with the page's receipts: what its provider has to hear so that it
    /// does not offer the same again (a queue's messages).
    ///
    /// # Errors
    /// [`CollectError`]: it will be offered again, and recognised.
    async fn taken(&self, _receipts: &[String]) -> Result<(), CollectError> {
        Ok(())
    }
}

/// What was fetched at a time.
#[derive(Debug, Default)]
pub struct Page {
    /// Items, in the order in which they happened as far as that is known.
    pub items: Vec<Fetched>,
    /// Cursors that moved, by stream: where to go on once the items are durable. A stream is what has a place of its own:
    /// a repository of an organisation, a folder of a bucket.
    pub cursors: Vec<(String, serde_json::Value)>,
    /// For [`Collector::taken`].
    pub receipts: Vec<String>,
    /// What should have been there and cannot be had any more, or only in part: it is written down with the cursors.
    pub lost: Vec<String>,
    /// From when to when everything that the provider lists of what it sent is held, this page's items included.
    pub whole: Option<(Timestamp, Timestamp)>,
    /// Lists signed by the provider that what is held was compared with.
    pub signed: Vec<SignedList>,
    /// When to come again.
    pub next: Next,
}

impl Page {
    /// Whether taking it would change anything.
    fn has_news(&self) -> bool {
        !(self.items.is_empty() && self.cursors.is_empty() && self.lost.is_empty())
    }

    /// Adds what another found.
    fn add(&mut self, other: Self) {
        self.items.extend(other.items);
        self.cursors.extend(other.cursors);
        self.lost.extend(other.lost);
        self.signed.extend(other.signed);
    }
}

/// When to come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// There is more now.
    #[default]
    Now,
    /// Nothing more is there for now.
    After(Duration),
}

/// An item, as its source would have sent it.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// Headers that its decoder and its id need.
    pub headers: HeaderMap,
    /// Query parameters: what a job log belongs to.
    pub query: BTreeMap<String, String>,
    /// Its bytes. Not more than [`crate::limits::Limits::body_bytes_max`].
    pub body: Bytes,
    /// How it came.
    pub way: Way,
}

impl Fetched {
    /// An item whose id is in its bytes or headers. Who vouches for it is the provider's API.
    #[must_use]
    pub fn new(body: Bytes) -> Self {
        let way = Way { proven: Some((Authenticity::Fetched, None)), keep: true, ..Way::default() };
        Self { body, way, ..Self::default() }
    }

    /// The same with a name for where it stood: what identifies it, if it has no id of its own.
    #[must_use]
    pub fn at(mut self, place: String) -> Self {
        self.way.place = Some(place);
        self
    }

    /// The same with something that is kept as an attribute of its record.
    #[must_use]
    pub fn about(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.way.attributes.push((name, value.into()));
        self
    }
}
