//! Collectors of one source that read the same bucket, one by listing it and one by what messages name: what the one has read,
//! the other need not.
//!
//! Neither rests on the other. What is told here is in a page that is taken as a whole or read again by whoever made it: a list
//! is asked for again, a message comes again. So nothing is kept over a restart, and nobody looks at what it told itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::objects::opened::{Bucket, Opened};

/// Most objects remembered of each.
const REMEMBERED_MAX: usize = 50_000;

/// What the collectors of a source have read.
#[derive(Debug, Default)]
pub struct Beside {
    pub(super) listed: Told,
    pub(super) named: Told,
}

/// What one of them has read: the last of each bucket and key.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Inner>);

/// Bucket and key of an object.
type Name = (String, String);
/// Tag of an object, and the hash over its content.
type Read = (String, Option<[u8; 32]>);

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<Name, Read>,
    order: VecDeque<Name>,
}

impl Told {
    /// Remembers an object that was read to its end.
    pub(super) fn add(&self, bucket: &Bucket, opened: &Opened) {
        let Some(tag) = opened.object.tag.as_deref().map(plain) else { return };
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (bucket.name.clone(), opened.object.key.clone());
        if inner.objects.insert(name.clone(), (tag.to_owned(), opened.hash())).is_none() {
            inner.order.push_back(name);
        }
        if inner.order.len() > REMEMBERED_MAX
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.objects.remove(&oldest);
        }
    }

    /// The hash over the content of an object, if it was read with this tag.
    pub(super) fn read(&self, bucket: &Bucket, key: &str, tag: Option<&str>) -> Option<Option<[u8; 32]>> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, hash) = inner.objects.get(&(bucket.name.clone(), key.to_owned()))?;
        (tag.map(plain) == Some(of)).then_some(*hash)
    }
}

/// A tag without its quotes, which messages leave out.
fn plain(tag: &str) -> &str {
    tag.trim_matches('"')
}
