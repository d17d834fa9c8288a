//! One object into a page: its parts as items, what is wrong with it as a loss that names it.

use super::super::{Fetched, PAGE_BYTES, Page};
use crate::objects::content::Part;
use crate::objects::opened::{Bucket, Opened, ReadError};
use crate::objects::seen::{Listed, Seen};

/// Attribute of a record: the object that it was read from.
pub(super) const OBJECT: &str = "collected.object";
/// Largest object of which it is kept that nothing could be read, as a dead letter.
const DEAD_BYTES_MAX: u64 = 4 << 20;

/// An object that is to be read.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// It is new in its folder.
    New(Listed),
    /// It was put aside.
    Again(String),
}

/// How far an object was read.
pub(super) enum Read {
    Whole(Opened),
    /// The page is full.
    Begun(Opened),
}

impl Piece {
    pub(super) fn key(&self) -> &str {
        match self {
            Self::New(object) => &object.key,
            Self::Again(key) => key,
        }
    }

    /// Remembers that it was read, or is taken care of. What was written under its name after it was listed is another object,
    /// which the next list shows: it is stored later than others that wait to be read.
    pub(super) fn read(&self, seen: &mut Seen) {
        if let Self::New(listed) = self {
            seen.read(listed);
        }
    }
}

/// Opens an object where it is to go on: at a part, if it is still the same.
pub(super) async fn first(bucket: &Bucket, key: &str, begun: Option<(Option<&str>, u64)>) -> Result<Opened, ReadError> {
    let mut opened = bucket.open(key).await?;
    if let Some((tag, next)) = begun
        && opened.object.tag.as_deref() == tag
    {
        while opened.next < next && opened.part().await?.is_some() {}
    }
    Ok(opened)
}

/// Puts an object's parts into a page until it is full.
pub(super) async fn take(
    bucket: &Bucket,
    mut opened: Opened,
    page: &mut Page,
    bytes: &mut usize,
) -> Result<Read, ReadError> {
    loop {
        if *bytes >= PAGE_BYTES {
            return Ok(Read::Begun(opened));
        }
        let Some((number, part)) = opened.part().await? else { return Ok(Read::Whole(opened)) };
        let address = bucket.address(&opened.object.key);
        match part {
            Part::Items(body) => {
                *bytes += body.len();
                // Another content under the same name is another place.
                let mut place = format!("{address}@{}", opened.object.tag.as_deref().unwrap_or_default());
                if number > 0 {
                    place.push_str(&format!("#{number}"));
                }
                page.items.push(Fetched::new(body).at(place).about(OBJECT, address));
            }
            Part::LeftOut(what) => page.lost.push(format!("{address}: {what} was left out")),
        }
    }
}

/// Names an object that cannot be read; what a request like it would have become is kept, too.
pub(super) async fn lose(bucket: &Bucket, key: &str, error: &ReadError, page: &mut Page) {
    let address = bucket.address(key);
    let begun = page.items.iter().any(|item| item.way.attributes.iter().any(|(_, value)| *value == address));
    page.lost.push(format!("{address}: {error}{}", if begun { "; what came before is kept" } else { "" }));
    if begun || !matches!(error, ReadError::Content(_)) {
        return;
    }
    if let Ok(Some(stored)) = bucket.stored(key, DEAD_BYTES_MAX).await {
        page.items.push(Fetched::new(stored).about(OBJECT, address));
    }
}

impl Bucket {
    /// An object, for people: without what would end a line.
    pub(super) fn address(&self, key: &str) -> String {
        let key: String = key.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
        format!("s3://{}/{key}", self.name)
    }
}
