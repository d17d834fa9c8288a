//! Objects of a bucket: what providers write there file by file.
//!
//! Folders that are named after days are looked at as long as something may still be stored in them; what was read of each
//! is its cursor ([`Seen`]). An object that the store does not give is put aside, on record, and tried again beside the
//! others; one that cannot be read is named as lost, and nothing else suffers. With the provider's public keys its signed
//! digests are compared with what was read (`digests.rs`).

mod aside;
mod beside;
mod digests;
mod folders;
mod pieces;
mod queue;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::source::SourceType;
use engine::time::Timestamp;
use futures::future::join_all;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use self::aside::Aside;
pub use self::beside::Beside;
use self::folders::{Folder, Folders};
use self::pieces::{Piece, Read, first};
pub use self::queue::{Message, Messages, Queue, SentMessages, Sign};
use super::cursors::moved;
use super::{CollectError, Collector, Cursors, Next, PAGE_BYTES, Page};
use crate::objects::digest::PublicKeys;
use crate::objects::keys;
use crate::objects::opened::{Bucket, Opened, ReadError};
use crate::objects::seen::{Listed, Seen};

/// Objects opened at a time.
const TOGETHER: usize = 8;
/// Most objects of a folder that wait in memory to be read; the others are listed again.
const LISTED_MAX: usize = 20_000;
/// Hashes remembered of what was read.
const KNOWN_MAX: usize = 50_000;
/// Stream: from when on objects are read.
const BEGIN: &str = "begin";
/// Stream: how far the object is that does not fit a page.
const PART: &str = "part";

/// What is collected from a bucket.
#[derive(Debug)]
pub struct Wanted {
    /// Folders; the whole bucket if there are none.
    pub prefixes: Vec<String>,
    /// Type of the source: tells which folders are its own.
    pub source_type: SourceType,
    /// Each prefix is one folder, whatever the names below are.
    pub flat: bool,
    /// How far back to begin.
    pub since: Duration,
    /// How often to look.
    pub every: Duration,
    /// The provider's keys, if its signed digests are to be compared with what was read.
    pub keys: Option<PublicKeys>,
}

/// Collects the objects of a bucket.
#[derive(Debug)]
pub struct Objects {
    bucket: Bucket,
    wanted: Wanted,
    beside: Arc<Beside>,
    state: Mutex<State>,
}

/// What is kept between pages; after a restart all of it is found again.
#[derive(Debug, Default)]
struct State {
    folders: Folders,
    /// Folders still to be looked at in this round, and folders of digests.
    queue: VecDeque<Folder>,
    digests: Option<VecDeque<String>>,
    current: Option<(String, Vec<Listed>)>,
    opened: Option<Opened>,
    /// When the next round begins.
    next: Option<Timestamp>,
    known: Known,
    /// What the store said when it gave nothing at all.
    trouble: Option<CollectError>,
}

/// An object of which a page holds the beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    key: String,
    tag: Option<String>,
    /// Number of its next part.
    next: u64,
}

/// What there is of an object that is to be read.
enum Given {
    Opened(Box<Result<Opened, ReadError>>),
    /// Another collector of the source has read it: SHA-256 over its content.
    ByAnother(Option<[u8; 32]>),
}

/// SHA-256 over the contents of objects that were read, by key, the last of each.
#[derive(Debug, Default)]
struct Known {
    hashes: BTreeMap<String, [u8; 32]>,
    order: VecDeque<String>,
}

impl Known {
    fn add(&mut self, key: &str, hash: [u8; 32]) {
        if self.hashes.insert(key.to_owned(), hash).is_none() {
            self.order.push_back(key.to_owned());
        }
        if self.order.len() > KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
    }
}

impl Objects {
    /// Objects of `bucket`.
    #[must_use]
    pub fn new(bucket: Bucket, wanted: Wanted) -> Self {
        Self { bucket, wanted, beside: Arc::default(), state: Mutex::default() }
    }

    /// The same, beside others of the source.
    #[must_use]
    pub fn beside(mut self, others: &Arc<Beside>) -> Self {
        self.beside = Arc::clone(others);
        self
    }

    /// Goes on with folders until something is to be read; false at the end of a round.
    async fn look(
        &self,
        state: &mut State,
        cursors: &Cursors,
        begin: Timestamp,
        now: Timestamp,
    ) -> Result<bool, CollectError> {
        loop {
            if let Some((folder, listed)) = &mut state.current {
                let seen = seen(cursors, folder, begin)?;
                listed.retain(|object| seen.is_new(object));
                if !listed.is_empty() {
                    return Ok(true);
                }
                state.current = None;
            }
            let Some(folder) = state.queue.pop_front() else { return Ok(false) };
            let seen = seen(cursors, &folder.path, begin)?;
            let listed = self.list(&folder, &seen, begin).await;
            let listed = match listed {
                Ok(listed) => listed,
                Err(error) => {
                    state.queue.push_front(folder);
                    return Err(error);
                }
            };
            tracing::debug!(bucket = self.bucket.name, folder = folder.path, new = listed.len(), %now, "listed");
            state.current = Some((folder.path, listed));
        }
    }

    async fn list(&self, folder: &Folder, seen: &Seen, begin: Timestamp) -> Result<Vec<Listed>, CollectError> {
        let wanted = |object: &Listed| object.size > 0 && seen.is_new(object);
        if !keys::is_folder(&folder.path) {
            // It cannot be listed, and is named as an object is that cannot be asked for.
            let named = Listed { key: folder.path.clone(), tag: None, stored: begin, size: 1 };
            return Ok(Some(named).filter(wanted).into_iter().collect());
        }
        if folder.deep {
            return self.bucket.list(&folder.path, LISTED_MAX, wanted).await;
        }
        let (objects, _) = self.bucket.look(&folder.path).await?;
        Ok(seen.unread(&objects).into_iter().filter(|object| wanted(object)).cloned().collect())
    }

    /// Reads what was put aside and is due, then new objects of the folder, as much as fits a page.
    async fn read(
        &self,
        state: &mut State,
        cursors: &Cursors,
        now: Timestamp,
        begin: Timestamp,
    ) -> Result<Page, CollectError> {
        let mut page = Page::default();
        let before: Aside = cursors.read(aside::STREAM)?.unwrap_or_default();
        let mut aside = before.clone();
        let (folder, mut work) = match &state.current {
            Some((folder, listed)) => (Some(folder.clone()), listed.iter().cloned().map(Piece::New).collect()),
            None => (None, VecDeque::new()),
        };
        for key in aside.due(now).into_iter().rev() {
            work.push_front(Piece::Again(key));
        }
        let begun: Option<Begun> = cursors.read(PART)?;
        // What a page holds the beginning of comes first.
        if let Some(at) = begun.as_ref().and_then(|begun| work.iter().position(|piece| piece.key() == begun.key)) {
            work.swap(0, at);
        }
        let mut seen = seen(cursors, folder.as_deref().unwrap_or_default(), begin)?;
        let (mut bytes, mut had, mut failed) = (0_usize, 0_usize, None);
        let mut part = None;
        'pages: while !work.is_empty() && bytes < PAGE_BYTES {
            let batch: Vec<Piece> = work.drain(..work.len().min(TOGETHER)).collect();
            let kept = state.opened.take();
            let opened = self.open(&batch, begun.as_ref().filter(|_| had == 0), kept).await;
            let had_before = had;
            for (piece, opened) in batch.into_iter().zip(opened) {
                if bytes >= PAGE_BYTES {
                    break 'pages;
                }
                let key = piece.key().to_owned();
                let opened = match opened {
                    Given::Opened(opened) => *opened,
                    Given::ByAnother(hash) => {
                        had += 1;
                        hash.into_iter().for_each(|hash| state.known.add(&key, hash));
                        piece.read(&mut seen);
                        continue;
                    }
                };
                match self.take(opened, &mut page, &mut bytes).await {
                    Ok(Read::Whole(opened)) => {
                        had += 1;
                        self.beside.listed.add(&self.bucket, &opened);
                        if let Some(hash) = opened.hash() {
                            state.known.add(&key, hash);
                        }
                        aside.done(&key);
                        piece.read(&mut seen);
                    }
                    Ok(Read::Begun(opened)) => {
                        part = Some(Begun { key, tag: opened.object.tag.clone(), next: opened.next });
                        state.opened = Some(opened);
                        had += 1;
                        break 'pages;
                    }
                    Err(ReadError::Store(error)) => {
                        if let Some(lost) = aside.again(&key, now, &error) {
                            page.lost.push(format!("{}: {lost}", self.bucket.address(&key)));
                        }
                        piece.read(&mut seen);
                        failed = Some(error);
                    }
                    Err(error) => {
                        had += 1;
                        self.lose(&key, &error, &mut page).await;
                        aside.give_up(&key);
                        piece.read(&mut seen);
                    }
                }
            }
            if had == had_before {
                break;
            }
        }
        if aside.is_full() {
            // Nothing is passed over any more.
            return Err(failed.unwrap_or_else(|| aside.full(&self.bucket.name)));
        }
        if had == 0 {
            state.trouble = failed;
        }
        if aside != before {
            page.cursors.push(moved(aside::STREAM, &aside)?);
        }
        if let Some(folder) = folder {
            page.cursors.push(moved(&stream(&folder), &seen)?);
        }
        if part != begun {
            page.cursors.push(part.map_or_else(|| Ok((PART.to_owned(), Value::Null)), |part| moved(PART, &part))?);
        }
        Ok(page)
    }

    /// Opens some objects, each with its first part.
    async fn open(&self, batch: &[Piece], begun: Option<&Begun>, kept: Option<Opened>) -> Vec<Given> {
        let kept = std::sync::Mutex::new(kept);
        let one = |piece: &Piece| {
            let key = piece.key().to_owned();
            let begun = begun.filter(|begun| begun.key == key);
            let read = match piece {
                Piece::New(listed) if begun.is_none() => {
                    self.beside.named.read(&self.bucket, &key, listed.tag.as_deref())
                }
                _ => None,
            };
            let mut kept = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let same = |opened: &Opened| {
                begun.is_some_and(|begun| {
                    opened.object.key == key && opened.object.tag == begun.tag && opened.next == begun.next
                })
            };
            let ready = if kept.as_ref().is_some_and(same) { kept.take() } else { None };
            async move {
                let opened = match (read, ready) {
                    (Some(hash), _) => return Given::ByAnother(hash),
                    (None, Some(opened)) => Ok(opened),
                    (None, None) => {
                        first(&self.bucket, &key, begun.map(|begun| (begun.tag.as_deref(), begun.next))).await
                    }
                };
                Given::Opened(Box::new(opened))
            }
        };
        join_all(batch.iter().map(one)).await
    }

    async fn take(
        &self,
        opened: Result<Opened, ReadError>,
        page: &mut Page,
        bytes: &mut usize,
    ) -> Result<Read, ReadError> {
        pieces::take(&self.bucket, opened?, page, bytes).await
    }

    async fn lose(&self, key: &str, error: &ReadError, page: &mut Page) {
        pieces::lose(&self.bucket, key, error, page).await;
    }
}

fn stream(folder: &str) -> String {
    format!("folder:{folder}")
}

fn seen(cursors: &Cursors, folder: &str, begin: Timestamp) -> Result<Seen, CollectError> {
    Ok(cursors.read(&stream(folder))?.unwrap_or_else(|| Seen::since(begin)))
}

#[async_trait]
impl Collector for Objects {
    fn name(&self) -> String {
        format!("s3.objects/{}", self.bucket.name)
    }

    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        if let Some(trouble) = state.trouble.take() {
            return Err(trouble);
        }
        let Some(begin) = cursors.read::<Timestamp>(BEGIN)? else {
            let begin = moved(BEGIN, &now.minus(self.wanted.since))?;
            return Ok(Page { cursors: vec![begin], ..Page::default() });
        };
        let aside: Aside = cursors.read(aside::STREAM)?.unwrap_or_default();
        let wait = |state: &State| state.next.filter(|next| *next > now);
        if state.queue.is_empty() && state.current.is_none() && state.digests.is_none() && wait(state).is_none() {
            state.next = Some(now.plus(self.wanted.every));
            let over = state.folders.find(&self.bucket, &self.wanted, begin, now, cursors).await;
            let over = over.inspect_err(|_| state.next = None)?;
            state.queue = state.folders.objects(now);
            state.digests = self.wanted.keys.is_some().then(|| state.folders.digests());
            if !over.is_empty() {
                return Ok(Page { cursors: over, ..Page::default() });
            }
        }
        if self.look(state, cursors, begin, now).await? || !aside.due(now).is_empty() {
            return self.read(state, cursors, now, begin).await;
        }
        if let Some(page) = self.digest(state, cursors, begin, now).await? {
            return Ok(page);
        }
        state.digests = None;
        let next = wait(state).into_iter().chain(aside.next()).min().unwrap_or(now);
        let wait = u64::try_from(next.micros_since(now)).unwrap_or(0).max(1_000);
        Ok(Page { next: Next::After(Duration::from_micros(wait)), ..Page::default() })
    }
}
