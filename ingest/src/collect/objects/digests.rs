//! CloudTrail's signed digests compared with what was read: which hours are whole, and what is missing by name.
//!
//! Each trail has a chain of digests in each region, one an hour, also when nothing happened. A digest is compared once every
//! file that it lists was read, or is not there; its outcome is written down. Where every chain is whole, so is the source.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use engine::commit::Completeness;
use engine::control::SignedList;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::cursors::moved;
use super::super::{CollectError, Cursors, Page};
use super::aside::{self, Aside};
use super::{Known, Objects, State, seen};
use crate::objects::digest::{DIGEST_BYTES_MAX, Digest, DigestError, Link, Status};
use crate::objects::opened::ReadError;
use crate::objects::seen::{Listed, Seen};

/// Digests of a folder: one an hour.
const LISTED_MAX: usize = 1_000;
/// A chain without a new digest for so long is over: logging was stopped, or its region was given up.
const SILENT: Duration = Duration::from_secs(3 * 86_400);
const CHAIN: &str = "chain:";

/// How far a chain was followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chain {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<Link>,
    /// From when to when everything that its digests list was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whole: Option<(Timestamp, Timestamp)>,
    /// End of its last digest, whatever it was worth.
    end: Timestamp,
}

/// What came of a digest.
enum Outcome {
    /// A file that it lists is still to be read.
    Later,
    Compared(SignedList, Option<Link>),
}

impl Objects {
    /// Compares digests, until one is worth a page. `None`: there are no more in this round.
    pub(super) async fn digest(
        &self,
        state: &mut State,
        cursors: &Cursors,
        begin: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Page>, CollectError> {
        while let Some(folder) = state.digests.as_mut().and_then(VecDeque::pop_front) {
            match self.compare(&state.known, &folder, cursors, begin).await {
                Ok(None) => {}
                Ok(Some(page)) => {
                    // There may be another in it.
                    state.digests.get_or_insert_default().push_front(folder);
                    return Ok(Some(page));
                }
                Err(error) => {
                    state.digests = None;
                    return Err(error);
                }
            }
        }
        let mut page = Page::default();
        for (stream, chain) in chains(cursors)? {
            if chain.end.plus(SILENT) < now {
                let name = stream.trim_start_matches(CHAIN);
                page.lost.push(format!("no digest of {name} came since {}: was logging stopped there?", chain.end));
                page.cursors.push((stream, Value::Null));
            }
        }
        Ok((!page.lost.is_empty()).then_some(page))
    }

    /// The next digest of a folder that can be compared.
    async fn compare(
        &self,
        known: &Known,
        folder: &str,
        cursors: &Cursors,
        begin: Timestamp,
    ) -> Result<Option<Page>, CollectError> {
        let stream = format!("digests:{folder}");
        let mut done: Seen = cursors.read(&stream)?.unwrap_or_else(|| Seen::since(begin));
        let mut listed = self.bucket.list(folder, LISTED_MAX, |object| done.is_new(object)).await?;
        // By the end of its hour, which its name ends with: that is the order of a chain.
        listed.sort_by(|one, other| one.key.cmp(&other.key));
        let mut later: Vec<String> = Vec::new();
        for object in listed {
            let name = chain_of(&object.key);
            if later.contains(&name) {
                continue;
            }
            let stream_of_chain = format!("{CHAIN}{name}");
            let mut chain: Chain = cursors.read(&stream_of_chain)?.unwrap_or_default();
            let (list, link) = match self.judge(known, &object, chain.link.as_ref(), cursors, begin).await? {
                Outcome::Later => {
                    later.push(name);
                    continue;
                }
                Outcome::Compared(list, link) => (list, link),
            };
            chain.end = chain.end.max(list.to);
            chain.link = link.or(chain.link);
            chain.whole = match (list.status, chain.whole) {
                (Completeness::Complete, Some((from, to))) if list.from <= to => Some((from, list.to)),
                (Completeness::Complete, _) => Some((list.from.max(begin), list.to)),
                _ => Some((list.to, list.to)),
            };
            done.read(&object);
            let mut page = Page::default();
            page.cursors.push(moved(&stream, &done)?);
            page.cursors.push(moved(&stream_of_chain, &chain)?);
            if list.status != Completeness::Complete {
                tracing::warn!(list = list.list, faults = ?list.faults, "a signed digest does not agree with what was read");
            }
            let mut all: BTreeMap<String, Chain> = chains(cursors)?.into_iter().collect();
            all.insert(stream_of_chain, chain);
            page.whole = whole(all.values());
            page.signed.push(list);
            return Ok(Some(page));
        }
        Ok(None)
    }

    /// Holds a digest against the one before it and what was read.
    async fn judge(
        &self,
        known: &Known,
        object: &Listed,
        before: Option<&Link>,
        cursors: &Cursors,
        begin: Timestamp,
    ) -> Result<Outcome, CollectError> {
        let list = self.bucket.address(&object.key);
        let to = end_of(&object.key).unwrap_or(object.stored);
        let from = before.map_or_else(|| to.minus(Duration::from_secs(3_600)), |link| link.end.min(to));
        let worthless = |fault: String| {
            let signed =
                SignedList { list: list.clone(), from, to, status: Completeness::Gap, files: 0, faults: vec![fault] };
            Ok(Outcome::Compared(signed, None))
        };
        let read = async {
            let mut opened = self.bucket.open(&object.key).await?;
            Ok::<_, ReadError>((opened.whole(DIGEST_BYTES_MAX).await?, opened.signature))
        };
        let (content, signature) = match read.await {
            Ok(read) => read,
            Err(ReadError::Store(error)) => return Err(error),
            Err(error) => return worthless(format!("the digest cannot be read: {error}")),
        };
        let Some(keys) = &self.wanted.keys else { return Ok(Outcome::Later) };
        let place = (self.bucket.name.as_str(), object.key.as_str());
        let verified = Digest::read(&content).and_then(|digest| {
            Ok((digest.verify(place, &content, signature.as_deref().unwrap_or_default(), keys)?, digest))
        });
        let (link, digest) = match verified {
            Ok(verified) => verified,
            // Nobody's fault but ours: it waits for the key.
            Err(error @ DigestError::UnknownKey(_)) => {
                return Err(CollectError::Content { asked: list, problem: error.to_string() });
            }
            Err(error) => return worthless(error.to_string()),
        };
        let aside: Aside = cursors.read(aside::STREAM)?.unwrap_or_default();
        let mut hashes = BTreeMap::new();
        let mut unread = Vec::new();
        for file in digest.files().iter().filter(|file| file.s3_bucket == self.bucket.name) {
            let key = &file.s3_object;
            if aside.is_waiting(key) {
                return Ok(Outcome::Later);
            }
            if aside.was_given_up(key) {
                unread.push(format!("{key} could not be read"));
            }
            let hash = match known.hashes.get(key) {
                Some(hash) => Some(*hash),
                None => match self.hash(key, cursors, begin).await? {
                    Some(hash) => hash,
                    None => return Ok(Outcome::Later),
                },
            };
            hashes.extend(hash.map(|hash| (key.clone(), hash)));
        }
        let verdict = digest
            .judge(before, |bucket, key| (bucket == self.bucket.name).then(|| hashes.get(key).copied()).flatten());
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) => return worthless(error.to_string()),
        };
        let status = match verdict.status {
            Status::Complete if unread.is_empty() => Completeness::Complete,
            _ => Completeness::Gap,
        };
        let (mut faults, files) = (verdict.faults, verdict.files as u64);
        faults.extend(unread.into_iter().take(20));
        Ok(Outcome::Compared(
            SignedList { list, from: verdict.from, to: verdict.to, status, files, faults },
            Some(link),
        ))
    }

    /// The hash of a file that was read before we started: what is there now. `None`: it is still to be read; and within, if
    /// it is not there.
    async fn hash(
        &self,
        key: &str,
        cursors: &Cursors,
        begin: Timestamp,
    ) -> Result<Option<Option<[u8; 32]>>, CollectError> {
        let mut opened = match self.bucket.open(key).await {
            Ok(opened) => opened,
            Err(ReadError::Store(error)) => return Err(error),
            Err(ReadError::Gone) => return Ok(Some(None)),
            Err(_) => return Ok(Some(Some([0; 32]))),
        };
        let folder = key.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let within = |prefix: &String| folder.starts_with(prefix.as_str());
        if !self.wanted.prefixes.is_empty() && !self.wanted.prefixes.iter().any(within) {
            // Nobody reads it.
            return Ok(Some(None));
        }
        let folder = if self.wanted.flat {
            self.wanted.prefixes.iter().find(|prefix| within(prefix)).cloned().unwrap_or_default()
        } else {
            folder
        };
        if seen(cursors, &folder, begin)?.is_new(&opened.object) {
            return Ok(None);
        }
        loop {
            match opened.part().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Some(opened.hash())),
                Err(ReadError::Store(error)) => return Err(error),
                // What cannot be read is not what was delivered.
                Err(_) => return Ok(Some(Some([0; 32]))),
            }
        }
    }
}

/// The chains that are followed, by stream.
fn chains(cursors: &Cursors) -> Result<Vec<(String, Chain)>, CollectError> {
    let streams = cursors.iter().map(|(stream, _)| stream).filter(|stream| stream.starts_with(CHAIN));
    streams.map(|stream| Ok((stream.to_owned(), cursors.read(stream)?.unwrap_or_default()))).collect()
}

/// From when to when all chains are whole.
fn whole<'a>(chains: impl Iterator<Item = &'a Chain>) -> Option<(Timestamp, Timestamp)> {
    let mut all: Option<(Timestamp, Timestamp)> = None;
    for chain in chains {
        let (from, to) = chain.whole?;
        all = Some(all.map_or((from, to), |(first, last)| (first.max(from), last.min(to))));
    }
    all.filter(|(from, to)| from < to)
}

/// `ACCOUNT_CloudTrail-Digest_REGION_TRAIL_HOME` of a digest's name, which ends with `_20261126T110131Z.json.gz`.
fn chain_of(key: &str) -> String {
    let name = key.rsplit('/').next().unwrap_or(key);
    name.rsplit_once('_').map_or(name, |(chain, _)| chain).to_owned()
}

/// The end of a digest's hour, as its name says it.
fn end_of(key: &str) -> Option<Timestamp> {
    let time = key.rsplit('_').next()?.split('.').next()?;
    let part = |from: usize, to: usize| time.get(from..to);
    Timestamp::parse(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(9, 11)?,
        part(11, 13)?,
        part(13, 15)?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_digests_say_their_chain_and_their_end() {
        let key = "AWSLogs/111122223333/CloudTrail-Digest/us-east-2/2026/11/26/111122223333_CloudTrail-Digest_us-east-2_my_trail_us-east-1_20261126T110131Z.json.gz";
        assert_eq!(chain_of(key), "111122223333_CloudTrail-Digest_us-east-2_my_trail_us-east-1");
        assert_eq!(end_of(key), Timestamp::parse("2026-11-26T11:01:31Z"));
        for nonsense in ["", "x", "a_b", "a_2026.gz", "ä_äääääääääääääääää"] {
            end_of(nonsense);
            chain_of(nonsense);
        }
    }

    #[test]
    fn a_source_is_whole_where_every_chain_is() {
        let at = |hour: i64| Timestamp::from_secs(hour * 3_600);
        let chain = |from, to| Chain { whole: Some((at(from), at(to))), ..Chain::default() };
        assert_eq!(whole([chain(1, 5), chain(2, 7)].iter()), Some((at(2), at(5))));
        assert_eq!(whole([chain(1, 5), chain(5, 5)].iter()), None);
        assert_eq!(whole([chain(1, 5), Chain::default()].iter()), None);
        assert_eq!(whole([].iter()), None);
    }
}
