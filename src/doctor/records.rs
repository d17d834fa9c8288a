//! The records: each is in the lake as the leaf that the tree has, or is known to repeat another, or has no payload any more.

use std::collections::VecDeque;
use std::ops::Range;

use pipeproof_engine::commit::Duplicate;
use pipeproof_engine::invariant::Invariant;
use pipeproof_engine::merkle::{Nodes as _, leaf_hash};
use pipeproof_engine::record::{Envelope, encode_parts};
use pipeproof_record::lake::Skip;
use pipeproof_record::store::StoreError;

use super::twice::Stored;
use super::{Check, Looked, NAMED};
use crate::damage;
use crate::node::PARTITION;

/// Verdicts that are read at once.
pub(super) const VERDICTS: usize = 10_000;

/// The verdicts that some record repeats another, in the order of the records.
pub(super) struct Verdicts<'a> {
    looked: &'a Looked<'a>,
    page: VecDeque<Duplicate>,
    next: Option<u64>,
}

impl<'a> Verdicts<'a> {
    /// Those on records from `from` on that were archived.
    pub(super) const fn from(looked: &'a Looked<'a>, from: u64) -> Self {
        Self { looked, page: VecDeque::new(), next: Some(from) }
    }

    /// The next one, which stays the next.
    pub(super) fn peek(&mut self) -> Result<Option<&Duplicate>, StoreError> {
        if self.page.is_empty()
            && let Some(from) = self.next
        {
            let store = &self.looked.shared.store;
            let page = self.looked.handle.block_on(store.duplicates_from(PARTITION, from, VERDICTS))?;
            self.next = page.last().map(|last| last.index + 1).filter(|_| page.len() == VERDICTS);
            self.page = page.into();
        }
        Ok(self.page.front().filter(|verdict| verdict.index < self.looked.archived))
    }

    pub(super) fn take(&mut self) -> Result<Option<Duplicate>, StoreError> {
        let next = self.peek()?.copied();
        if next.is_some() {
            self.page.pop_front();
        }
        Ok(next)
    }
}

/// What is wrong, named as far as there is room for it.
#[derive(Default)]
struct Problems {
    named: Vec<String>,
    more: usize,
}

impl Problems {
    fn add(&mut self, problem: impl FnOnce() -> String) {
        if self.named.len() < NAMED { self.named.push(problem()) } else { self.more += 1 }
    }

    fn all(mut self) -> Vec<String> {
        if self.more > 0 {
            self.named.push(format!("and {} more", self.more));
        }
        self.named
    }
}

/// What was met on the way through the lake.
struct Walk<'a> {
    looked: &'a Looked<'a>,
    verdicts: Verdicts<'a>,
    problems: Problems,
    /// Records that repeat others.
    repeated: u64,
    /// Records before those whose verdicts are still there that are not in the lake.
    absent: u64,
    /// Something is there twice.
    twice: bool,
    /// Something that was acknowledged is not there.
    lost: bool,
    /// Items of the last records.
    stored: Stored,
    /// First record whose item is compared with those before it.
    compared_from: u64,
}

/// Every record that is no repetition is in the lake, once, in order, its leaf is the one in the tree, and its item is not that of one
/// shortly before.
pub(super) fn leaves(looked: &Looked<'_>) -> Check {
    let check = "leaves";
    let records = match looked.lake.records(PARTITION, &Skip::default()) {
        Ok(records) => records,
        Err(error) => return Check::of(check, &[crate::chain(&error)], String::new()),
    };
    let verdicts = Verdicts::from(looked, looked.forgotten.below);
    // Where verdicts are forgotten, what stands for a lost record cannot be told from what repeats none.
    let compared_from = if looked.damaged.lost.is_empty() { 0 } else { looked.forgotten.below };
    let mut walk = Walk {
        looked,
        verdicts,
        problems: Problems::default(),
        repeated: 0,
        absent: 0,
        twice: false,
        lost: false,
        stored: Stored::default(),
        compared_from,
    };
    let (mut next, mut count) = (0, 0_u64);
    for stored in records {
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                walk.problems.add(|| crate::chain(&error));
                break;
            }
        };
        let index = stored.index;
        if index < next {
            walk.problems.add(|| format!("record {index} is in the lake twice or out of order"));
            walk.twice = true;
            continue;
        }
        match walk.passes(next..index).and_then(|()| walk.meets(index)) {
            Ok(repeats) => walk.compares(index, &stored.envelope, repeats),
            Err(error) => {
                walk.problems.add(|| crate::chain(&error));
                break;
            }
        }
        next = index + 1;
        count += 1;
        let leaf = encode_parts(stored.envelope.as_bytes(), &stored.salt, &stored.body);
        let same = leaf.is_ok_and(|leaf| looked.shared.log.leaf(index) == Some(leaf_hash(&leaf)));
        if !same {
            walk.problems.add(|| format!("record {index} of the lake is not the leaf in the tree"));
        }
    }
    if let Err(error) = walk.passes(next..looked.archived.max(next)) {
        walk.problems.add(|| crate::chain(&error));
    }
    let forgotten = looked.forgotten;
    // Where verdicts are forgotten a record that is on record as lost cannot be told from a repetition, but its repetition may stand for
    // it in the lake.
    let mut lost = 0;
    for (gap, _) in looked.damaged.lost.iter().filter(|(gap, _)| gap.first < forgotten.below) {
        lost += gap.end.min(forgotten.below) - gap.first;
        walk.lost = true;
        let named = damage::named(gap.first, gap.end);
        walk.problems.add(|| format!("{named}: lost as data, a gap that is on record"));
    }
    let explained = forgotten.count..=forgotten.count + lost;
    if !explained.contains(&walk.absent) {
        let (absent, known, below) = (walk.absent, forgotten.count, forgotten.below);
        walk.problems.add(|| {
            format!("of the records before {below}, {absent} are not in the lake, and {known} were repetitions")
        });
    }
    walk.lost |= walk.absent > forgotten.count + lost;
    for (is_violated, invariant) in [(walk.twice, Invariant::StoredOnce), (walk.lost, Invariant::AcknowledgedIsStored)]
    {
        if is_violated {
            looked.shared.violated(invariant);
        }
    }
    let left_out = walk.repeated + forgotten.count;
    let without = looked.redacted.len();
    let mut fine = format!(
        "{count} records of the lake are the tree's leaves; {left_out} repeat others, {without} have no payload any more; no item is \
         there twice within seven days"
    );
    if walk.compared_from > 0 {
        fine.push_str(&format!(", as far as records from {} on tell", walk.compared_from));
    }
    if walk.stored.is_cut_short() {
        fine.push_str(&format!(", each compared with the last {} before it", Stored::ITEMS_MAX));
    }
    Check::of(check, &walk.problems.all(), fine)
}

impl Walk<'_> {
    /// Goes past records that are not in the lake.
    fn passes(&mut self, range: Range<u64>) -> Result<(), StoreError> {
        for index in range {
            let is_repeated = self.verdicts.peek()?.is_some_and(|verdict| verdict.index == index);
            if is_repeated {
                self.verdicts.take()?;
                self.repeated += 1;
                continue;
            }
            if self.looked.redacted.contains_key(&index) {
                continue;
            }
            if index < self.looked.forgotten.below {
                self.absent += 1;
            } else {
                self.lost = true;
                let log = &self.looked.shared.log;
                self.problems.add(|| {
                    match log.read(index, 1, 1).ok().and_then(|leaves| leaves.first().map(|(at, _)| *at)) {
                        Some(found) if found == index => format!("record {index} is in the log and not in the lake"),
                        _ => format!("record {index} is lost as data: a gap"),
                    }
                });
            }
        }
        Ok(())
    }

    /// Comes to a record that is in the lake; whether it is known to repeat another.
    fn meets(&mut self, index: u64) -> Result<bool, StoreError> {
        let verdict = self.verdicts.peek()?.copied().filter(|verdict| verdict.index == index);
        let Some(verdict) = verdict else { return Ok(false) };
        self.verdicts.take()?;
        // It stands for what it repeats.
        if !self.looked.damaged.is_lost(verdict.first) {
            self.problems.add(|| format!("record {index} is in the lake, and is known to repeat another"));
        }
        Ok(true)
    }

    /// Compares the item of a record that is in the lake with those before it. What is known to repeat another was judged, and is no first
    /// record of its item.
    fn compares(&mut self, index: u64, envelope: &str, repeats: bool) {
        // What this version cannot read detection left out.
        let Ok(envelope) = serde_json::from_str::<Envelope>(envelope) else { return };
        self.stored.goes_on(envelope.received);
        if repeats || index < self.compared_from {
            return;
        }
        if let Some(first) = self.stored.before(index, &envelope) {
            self.problems
                .add(|| format!("record {index} is of the same item as record {first}, and both are in the lake"));
            self.twice = true;
        }
    }
}

/// Every redaction was carried through: the log has no payload there, and the lake the leaf hash that the tree has. None, if there were
/// none.
pub(super) fn redactions(looked: &Looked<'_>) -> Option<Check> {
    let Looked { shared, redacted, forgotten, handle, .. } = looked;
    let registry = shared.registry().clone();
    if registry.redactions.is_empty() && redacted.is_empty() {
        return None;
    }
    // Repetitions are not in the lake; where nobody knows any more, they are taken for such.
    let repeats = |index: u64| {
        index < forgotten.below
            || handle
                .block_on(shared.store.duplicate_indexes(PARTITION, index..index + 1))
                .is_ok_and(|found| !found.is_empty())
    };
    let mut problems = Vec::new();
    let mut told = Vec::new();
    for (order, ordered) in &registry.redactions {
        if ordered.done.is_none() {
            problems.push(format!("the redaction ordered by record {order} is not done"));
            continue;
        }
        told.push(format!("{:?} {}", ordered.order.records, ordered.note(*order)));
        for index in &ordered.order.records {
            if shared.log.read(*index, 1, 1).is_ok_and(|leaves| leaves.first().is_some_and(|(at, _)| at == index)) {
                problems.push(format!("record {index} is redacted, and the log has its payload"));
            }
            if !redacted.contains_key(index) && !repeats(*index) {
                problems.push(format!("record {index} is redacted, and the lake does not say so"));
            }
        }
    }
    for (index, record) in *redacted {
        if shared.log.leaf(*index) != Some(record.leaf_hash) {
            problems.push(format!("the leaf hash of the redacted record {index} is not the one in the tree"));
        }
        if registry.redaction_of(*index).is_none() {
            problems.push(format!("the lake says that record {index} is redacted, and no record of the log orders it"));
        }
    }
    Some(Check::of("redacted records", &problems, told.join("; ")))
}
