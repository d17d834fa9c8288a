//! Items that are stored twice: records of the same item of the same source, shortly after one another, of which none is known to repeat
//! the other.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use pipeproof_engine::dedup::{ItemHash, item_hash};
use pipeproof_engine::record::{Authenticity, Envelope};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;

/// How long after its first record an item must be recognised, in received time. Detection remembers a day longer: its clock may be ahead
/// of what the lake tells, which has no repetitions.
const RECOGNISED: Duration = Duration::from_secs(7 * 86_400);

/// The items of the last records.
#[derive(Debug, Default)]
pub(super) struct Stored {
    first: HashMap<ItemHash, u64>,
    by_age: VecDeque<(Timestamp, ItemHash)>,
    /// Largest received time so far.
    now: Option<Timestamp>,
    /// Items went before their time.
    is_cut_short: bool,
}

impl Stored {
    /// Items that are held at most; of more the oldest go. Fewer than detection remembers where it is set to hold the least, a thousand
    /// in memory and 256 times that in the store: what it may forget is forgotten here before.
    pub(super) const ITEMS_MAX: usize = 250_000;

    /// Comes to a record of this received time, whatever it is.
    pub(super) fn goes_on(&mut self, received: Timestamp) {
        let now = self.now.map_or(received, |now| now.max(received));
        self.now = Some(now);
        let limit = now.minus(RECOGNISED);
        while self.by_age.front().is_some_and(|(at, _)| *at < limit) {
            self.forget_oldest();
        }
    }

    /// The record before this one that has its item; without one it is the first from here on. To be told of every record it must
    /// [go on](Self::goes_on) to.
    pub(super) fn before(&mut self, index: u64, envelope: &Envelope) -> Option<u64> {
        // Ours are not recognised, and what says itself which record it repeats is no first one.
        let own = envelope.auth == Authenticity::Own && envelope.source_type == SourceType::Pipeproof;
        if own || envelope.repeats().is_some() {
            return None;
        }
        let item = item_hash(&envelope.source, &envelope.item);
        if let Some(first) = self.first.get(&item) {
            return Some(*first);
        }
        if self.first.len() >= Self::ITEMS_MAX {
            self.is_cut_short = true;
            self.forget_oldest();
        }
        self.first.insert(item, index);
        self.by_age.push_back((self.now.unwrap_or(envelope.received), item));
        None
    }

    /// Whether items were compared with a part of those within the time.
    pub(super) const fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    fn forget_oldest(&mut self) {
        if let Some((_, item)) = self.by_age.pop_front() {
            self.first.remove(&item);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pipeproof_engine::record::{CollectionMode, REPEATS};

    use super::*;

    const DAY: i64 = 86_400;

    fn envelope(item: &str, at: i64) -> Envelope {
        Envelope {
            source: "acme".to_owned(),
            source_type: SourceType::Json,
            received: Timestamp::from_secs(at),
            auth: Authenticity::Bearer,
            key_id: None,
            item: item.to_owned(),
            mode: CollectionMode::Live,
            attributes: BTreeMap::new(),
            redacted: Vec::new(),
        }
    }

    fn before(stored: &mut Stored, index: u64, envelope: &Envelope) -> Option<u64> {
        stored.goes_on(envelope.received);
        stored.before(index, envelope)
    }

    #[test]
    fn an_item_is_stored_twice_within_seven_days_only() {
        let mut stored = Stored::default();
        assert_eq!(before(&mut stored, 0, &envelope("id:1", 0)), None);
        assert_eq!(before(&mut stored, 1, &envelope("id:2", 0)), None);
        let other = Envelope { source: "other".to_owned(), ..envelope("id:1", 0) };
        assert_eq!(before(&mut stored, 2, &other), None, "another source's item is another item");
        assert_eq!(before(&mut stored, 3, &envelope("id:1", 7 * DAY)), Some(0));
        assert_eq!(
            before(&mut stored, 4, &envelope("id:2", 7 * DAY + 1)),
            None,
            "taken in again later, it is a first one"
        );
        assert!(!stored.is_cut_short());
    }

    #[test]
    fn what_is_ours_or_says_what_it_repeats_is_not_stored_twice() {
        let mut stored = Stored::default();
        let own = Envelope { source_type: SourceType::Pipeproof, auth: Authenticity::Own, ..envelope("id:1", 0) };
        assert_eq!((before(&mut stored, 0, &own), before(&mut stored, 1, &own)), (None, None));
        let mut known = Envelope { mode: CollectionMode::Backfill, ..envelope("id:1", 0) };
        known.attributes.insert(REPEATS.to_owned(), "0".to_owned());
        assert_eq!((before(&mut stored, 2, &known), before(&mut stored, 3, &known)), (None, None));
        assert_eq!(before(&mut stored, 4, &envelope("id:1", 0)), None, "nor were they remembered");
    }

    #[test]
    fn of_too_many_items_the_oldest_go_and_that_is_said() {
        let mut stored = Stored::default();
        for number in 0..=Stored::ITEMS_MAX as u64 {
            assert_eq!(before(&mut stored, number, &envelope(&format!("id:{number}"), 0)), None);
        }
        assert!(stored.is_cut_short());
        assert_eq!(stored.first.len(), Stored::ITEMS_MAX);
        assert_eq!(stored.by_age.len(), Stored::ITEMS_MAX);
        assert_eq!(before(&mut stored, 1_000_000, &envelope("id:1", 0)), Some(1));
        assert_eq!(before(&mut stored, 1_000_001, &envelope("id:0", 0)), None);
    }
}
