//! Fixtures of every source type with parts of them exchanged: what is nearly right reaches further into a decoder than what is not.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use engine::record::{Position, Record};
use engine::source::SourceType;
use pipeproof_engine as engine;
use proptest::prelude::*;
use serde_json::Value;

use super::super::decode;
use super::cloud_snapshots::{FIXTURES, path};
use super::plain::shape;
use super::record;
use super::samples::receiver;
use super::snapshots::{fixtures, received};

/// Largest item that is changed, bytes: what takes long to parse is tried less often.
const ITEM_BYTES_MAX: usize = 16 << 10;
/// Items of each file.
const ITEMS: usize = 12;

/// Records of every type, as they are received.
static SEEDS: LazyLock<Vec<Record>> = LazyLock::new(|| {
    let receiver = receiver();
    let mut all = Vec::new();
    for kind in SourceType::ALL.iter().copied().filter(|kind| kind.is_external()) {
        for file in fixtures(kind) {
            all.extend(received(&receiver, kind, &file).into_iter().take(ITEMS));
        }
    }
    for (name, kind) in FIXTURES {
        let text = std::fs::read_to_string(path(&format!("{name}.ndjson"))).unwrap();
        all.extend(text.lines().take(ITEMS).map(|line| record(*kind, &[], line.to_owned())));
    }
    all.retain(|record| record.body.len() <= ITEM_BYTES_MAX);
    all
});

/// Follows choices down to a value and puts another in its place; `None` takes it away.
fn exchange(value: &mut Value, choices: &[u8], other: Option<Value>) {
    let Some((first, rest)) = choices.split_first() else {
        *value = other.unwrap_or_default();
        return;
    };
    let first = usize::from(*first);
    match value {
        Value::Array(items) if !items.is_empty() => {
            let at = first % items.len();
            exchange(&mut items[at], rest, other);
        }
        Value::Object(members) if !members.is_empty() => {
            let name = members.keys().nth(first % members.len()).unwrap().clone();
            match (rest, other) {
                ([], None) => drop(members.remove(&name)),
                (rest, other) => exchange(&mut members[&name], rest, other),
            }
        }
        leaf => *leaf = other.unwrap_or_default(),
    }
}

#[test]
fn every_type_has_items_to_change() {
    let known: BTreeSet<SourceType> = SEEDS.iter().map(|record| record.envelope.source_type).collect();
    let external = SourceType::ALL.iter().filter(|kind| kind.is_external() && **kind != SourceType::Json);
    let without: Vec<_> = external.filter(|kind| !known.contains(kind)).collect();
    assert!(without.is_empty(), "{without:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_decoder_panics_on_a_changed_item(
        seed: proptest::sample::Index,
        changes in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..6), proptest::option::of(shape())), 1..4),
    ) {
        let seed = seed.get(&SEEDS);
        let Ok(mut item) = serde_json::from_slice::<Value>(&seed.body) else { return Ok(()) };
        for (choices, other) in changes {
            exchange(&mut item, &choices, other);
        }
        drop(decode(Position::default(), &Record { body: item.to_string().into(), ..seed.clone() }));
    }

    #[test]
    fn no_decoder_panics_on_changed_bytes(
        seed: proptest::sample::Index,
        from: proptest::sample::Index,
        len in 0..40_usize,
        other in proptest::collection::vec(any::<u8>(), 0..12),
    ) {
        let seed = seed.get(&SEEDS);
        let mut bytes = seed.body.to_vec();
        let from = from.index(bytes.len() + 1);
        bytes.splice(from..(from + len).min(seed.body.len()), other);
        drop(decode(Position::default(), &Record { body: bytes.into(), ..seed.clone() }));
    }
}
