//! The repetitions: whatever was left out as one repeats a record that is there, of the same item of the same source.
//!
//! What is compared is what the log still has; of older repetitions only the leaf hash is left.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pipeproof_engine::commit::Duplicate;
use pipeproof_engine::record::Record;
use pipeproof_record::alike::{self, Item};

use super::records::{VERDICTS, Verdicts};
use super::{Check, Looked};
use crate::node::PARTITION;

/// How items without an id of their own are named: by a keyed hash of their bytes.
const HASHED: &str = "hash:";

/// The record that another is said to repeat.
enum First {
    /// As the log has it.
    Logged(Record),
    /// As the lake has it.
    Archived(Item),
    /// It has no payload any more.
    Redacted,
    Missing,
}

pub(super) fn check(looked: &Looked<'_>) -> Check {
    let check = "repetitions";
    match compared(looked) {
        Ok((problems, compared, not)) => {
            let more = if not == 0 {
                String::new()
            } else {
                format!("; {not} are redacted, or cannot be read, or what they repeat cannot")
            };
            let fine = format!("{compared} of the log are of the same items as the records they repeat{more}");
            Check::of(check, &problems, fine)
        }
        Err(problem) => Check::of(check, &[problem], String::new()),
    }
}

/// What is wrong, how many were compared, and how many cannot be.
fn compared(looked: &Looked<'_>) -> Result<(Vec<String>, u64, u64), String> {
    let mut verdicts = Verdicts::from(looked, looked.shared.log.first());
    let (mut problems, mut compared, mut not) = (Vec::new(), 0, 0);
    loop {
        let mut page: Vec<Duplicate> = Vec::new();
        while page.len() < VERDICTS
            && let Some(verdict) = verdicts.take().map_err(|error| crate::chain(&error))?
        {
            page.push(verdict);
        }
        if page.is_empty() {
            return Ok((problems, compared, not));
        }
        let from = looked.shared.log.first();
        let archived: BTreeSet<u64> =
            page.iter().map(|verdict| verdict.first).filter(|first| *first < from.min(looked.archived)).collect();
        let items = looked.handle.block_on(alike::items(looked.lake, PARTITION, &archived));
        let items = items.map_err(|error| crate::chain(&error))?;
        for verdict in page {
            let Some(record) = logged(looked, verdict.index) else {
                not += 1;
                continue;
            };
            let first = first(looked, verdict.first, &items);
            // What it repeats may be lost, which is told elsewhere: then there is nothing to compare it with.
            let is_gone = matches!(first, First::Redacted) || looked.damaged.is_lost(verdict.first);
            if is_gone || looked.redacted.contains_key(&verdict.index) {
                not += 1;
                continue;
            }
            compared += 1;
            problems.extend(problem(verdict, &record, &first));
        }
    }
}

fn first(looked: &Looked<'_>, index: u64, items: &BTreeMap<u64, Item>) -> First {
    if looked.redacted.contains_key(&index) {
        return First::Redacted;
    }
    let archived = items.get(&index).cloned().map(First::Archived);
    archived.or_else(|| logged(looked, index).map(First::Logged)).unwrap_or(First::Missing)
}

fn logged(looked: &Looked<'_>, index: u64) -> Option<Record> {
    let leaves = looked.shared.log.read(index, 1, 1).ok()?;
    let leaf: &Bytes = leaves.first().filter(|(at, _)| *at == index).map(|(_, leaf)| leaf)?;
    Record::decode(leaf).ok()
}

/// Why a record does not repeat the one it is said to repeat.
fn problem(verdict: Duplicate, record: &Record, first: &First) -> Option<String> {
    let Duplicate { index, first: of } = verdict;
    if of >= index {
        return Some(format!("record {index} was left out as repeating record {of}, which came later"));
    }
    let (source, item) = match first {
        First::Logged(first) => (&first.envelope.source, &first.envelope.item),
        First::Archived(item) => (&item.source, &item.item),
        First::Redacted => return None,
        First::Missing => {
            return Some(format!("record {index} was left out as repeating record {of}, which is not there"));
        }
    };
    let envelope = &record.envelope;
    if (&envelope.source, &envelope.item) != (source, item) {
        return Some(format!("record {index} was left out as repeating record {of}, which is of another item"));
    }
    // The bytes decide where nothing else names an item. What was redacted may be so in another way since.
    let same = |first: &Record| {
        first.body == record.body || !first.envelope.redacted.is_empty() || !envelope.redacted.is_empty()
    };
    match first {
        First::Logged(first) if item.starts_with(HASHED) && !same(first) => {
            Some(format!("record {index} was left out as repeating record {of}, and has another body"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Redacted};
    use pipeproof_engine::source::SourceType;
    use pipeproof_engine::time::Timestamp;

    use super::*;

    fn record(source: &str, item: &str, body: &'static str) -> Record {
        let envelope = Envelope {
            source: source.to_owned(),
            source_type: SourceType::Json,
            received: Timestamp::from_secs(1),
            auth: Authenticity::Bearer,
            key_id: None,
            item: item.to_owned(),
            mode: CollectionMode::Live,
            attributes: BTreeMap::new(),
            redacted: Vec::new(),
        };
        Record { envelope, salt: [0; 16], body: Bytes::from_static(body.as_bytes()) }
    }

    fn said(repetition: &Record, first: First) -> Option<String> {
        problem(Duplicate { index: 7, first: 3 }, repetition, &first)
    }

    #[test]
    fn a_repetition_is_of_the_same_item_of_the_same_source() {
        let one = record("acme", "id:1", "{}");
        let item = |source: &str, item: &str| First::Archived(Item { source: source.into(), item: item.into() });
        assert_eq!(said(&one, First::Logged(record("acme", "id:1", "[]"))), None, "an id names an item");
        assert_eq!(said(&one, item("acme", "id:1")), None);
        assert_eq!(said(&one, First::Redacted), None);
        for first in [item("acme", "id:2"), item("other", "id:1"), First::Logged(record("acme", "id:2", "{}"))] {
            assert!(said(&one, first).unwrap().contains("another item"));
        }
        assert!(said(&one, First::Missing).unwrap().contains("not there"));
        let later = problem(Duplicate { index: 7, first: 7 }, &one, &First::Logged(one.clone()));
        assert!(later.unwrap().contains("came later"));
    }

    #[test]
    fn what_is_named_by_its_bytes_has_the_same_bytes() {
        let one = record("acme", "hash:ab", "{}");
        assert_eq!(said(&one, First::Logged(one.clone())), None);
        assert!(said(&one, First::Logged(record("acme", "hash:ab", "[]"))).unwrap().contains("another body"));
        let mut redacted = record("acme", "hash:ab", "[]");
        redacted.envelope.redacted = vec![Redacted { family: "x".into(), fingerprint: "y".into(), count: 1 }];
        assert_eq!(said(&one, First::Logged(redacted)), None);
    }
}
