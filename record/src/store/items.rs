//! Items that detection handed over: which ones were seen, and where first.
//!
//! A set is what was handed over at once and never changes. Its items lie in pages by the first bits of their names, which are hashes, so
//! each is found with one row; a Bloom filter in memory says for nearly every item that is new that it is in no page. A set goes
//! when its last item need not be remembered any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use engine::commit::Commit;
use engine::dedup::{First, ItemHash, Items, Known};
use engine::time::Timestamp;
use parquet::bloom_filter::Sbbf;
use pipeproof_engine as engine;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::bloom_filter::{Filter, Question};
use super::checksum::{ITEM_PAGES, ITEM_SETS, check};
use super::{SqliteStore, StoreError, number, unsigned};

/// Items of a page, about: three kilobytes, which fit a page of SQLite.
const PAGE_ITEMS: usize = 128;
/// Bits that number pages at most.
const PAGE_BITS_MAX: u32 = 16;
/// Share of new items for which a page is read in vain, of each set.
const FALSE_HITS: f64 = 0.005;
/// Sets that are kept at most: each costs two bytes of memory an item. Beyond it the oldest goes before its time.
const SETS_MAX: usize = 256;
/// Pages that are read with one statement.
const PAGES_AT_ONCE: usize = 500;

/// An item in its page: name, index above the least of its set, microseconds after the first of its set.
type Entry = (ItemHash, u64, u64);

/// The sets there are, newest first.
#[derive(Debug, Default)]
pub(super) struct ItemSets {
    sets: RwLock<Vec<Arc<ItemSet>>>,
    /// A transaction that changes them began and was not seen to end: they are read again before the next question.
    unsure: AtomicBool,
    /// Sets that went before their time, since the start.
    made_room: AtomicU64,
}

#[derive(Debug)]
struct ItemSet {
    number: i64,
    partition: u32,
    page_bits: u32,
    least_index: u64,
    first_time: Timestamp,
    last_time: Timestamp,
    filter: Filter,
}

/// What a transaction did to the sets.
#[derive(Debug, Default)]
pub(super) struct Change {
    gone: BTreeSet<i64>,
    new: Option<Arc<ItemSet>>,
}

impl ItemSets {
    fn all(&self) -> Vec<Arc<ItemSet>> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the sets, without their pages.
    pub(super) async fn load(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let rows = sqlx::query("SELECT * FROM item_sets ORDER BY number DESC").fetch_all(connection).await;
        let rows = rows.map_err(StoreError::on("read which items were seen"))?;
        let sets = rows.iter().map(|row| ItemSet::read(row).map(Arc::new)).collect::<Result<_, _>>()?;
        *self.sets.write().unwrap_or_else(PoisonError::into_inner) = sets;
        Ok(())
    }

    /// Writes what a commit hands over, and drops sets that have had their time.
    pub(super) async fn change(
        &self,
        connection: &mut SqliteConnection,
        commit: &Commit,
    ) -> Result<Change, StoreError> {
        let sets = self.all();
        let own = || sets.iter().filter(|set| set.partition == commit.partition);
        let mut gone: BTreeSet<i64> =
            own().filter(|set| set.last_time < commit.remembered_since).map(|set| set.number).collect();
        let hands_over = !commit.handed_over.is_empty();
        let too_many = own().filter(|set| !gone.contains(&set.number)).skip(SETS_MAX - usize::from(hands_over));
        for set in too_many.map(|set| set.number).collect::<Vec<_>>() {
            tracing::warn!(
                sets = SETS_MAX,
                "the oldest items seen are forgotten before their time: too many came since"
            );
            gone.insert(set);
            self.made_room.fetch_add(1, Ordering::Relaxed);
        }
        if gone.is_empty() && !hands_over {
            return Ok(Change::default());
        }
        self.unsure.store(true, Ordering::SeqCst);
        for statement in ["DELETE FROM item_pages WHERE item_set = ?", "DELETE FROM item_sets WHERE number = ?"] {
            for set in &gone {
                let deleted = sqlx::query(statement).bind(set).execute(&mut *connection).await;
                deleted.map_err(StoreError::on("forget which items were seen"))?;
            }
        }
        let new = match hands_over {
            true => Some(Arc::new(ItemSet::write(connection, commit.partition, &commit.handed_over).await?)),
            false => None,
        };
        Ok(Change { gone, new })
    }

    /// The transaction has landed.
    pub(super) fn changed(&self, change: Change) {
        if change.new.is_none() && change.gone.is_empty() {
            return;
        }
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        sets.retain(|set| !change.gone.contains(&set.number));
        sets.splice(0..0, change.new);
        self.unsure.store(false, Ordering::SeqCst);
    }
}

impl ItemSet {
    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let on = || StoreError::on("read which items were seen");
        check(&ITEM_SETS, row)?;
        let long = |name: &str| row.try_get::<i64, _>(name).map_err(on());
        let filter: Vec<u8> = row.try_get("bloom_filter").map_err(on())?;
        Ok(Self {
            number: long("number")?,
            partition: row.try_get("partition").map_err(on())?,
            page_bits: row.try_get("page_bits").map_err(on())?,
            least_index: unsigned(long("least_index")?),
            first_time: Timestamp::from_micros(long("first_time")?),
            last_time: Timestamp::from_micros(long("last_time")?),
            filter: Filter::new(&filter),
        })
    }

    async fn write(connection: &mut SqliteConnection, partition: u32, items: &Items) -> Result<Self, StoreError> {
        let on = || StoreError::on("write which items were seen");
        let pages = items.len().div_ceil(PAGE_ITEMS).next_power_of_two();
        let page_bits = pages.ilog2().min(PAGE_BITS_MAX);
        let least_index = items.iter().map(|(_, first)| first.index).min().unwrap_or_default();
        let times = || items.iter().map(|(_, first)| first.received);
        let (first_time, last_time) = (times().min().unwrap_or_default(), times().max().unwrap_or_default());
        let filter = Sbbf::new_with_ndv_fpp(items.len() as u64, FALSE_HITS);
        let mut filter = filter.map_err(|error| on()(sqlx::Error::Encode(Box::new(error))))?;
        let mut by_page: BTreeMap<u32, Vec<Entry>> = BTreeMap::new();
        for (item, first) in items {
            filter.insert(item.as_slice());
            let after = u64::try_from(first.received.micros_since(first_time)).unwrap_or(0);
            let entry = (*item, first.index.saturating_sub(least_index), after);
            by_page.entry(page_of(item, page_bits)).or_default().push(entry);
        }
        let mut bits = Vec::new();
        filter.write_bitset(&mut bits).map_err(|error| on()(sqlx::Error::Encode(Box::new(error))))?;
        let filter = Filter::new(&bits);
        let set = sqlx::query(
            "INSERT INTO item_sets (partition, items, page_bits, least_index, first_time, last_time, bloom_filter)
             VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING number",
        )
        .bind(partition)
        .bind(number("number of items", items.len() as u64)?)
        .bind(page_bits)
        .bind(number("index", least_index)?)
        .bind(first_time.as_micros())
        .bind(last_time.as_micros())
        .bind(bits)
        .fetch_one(&mut *connection)
        .await
        .map_err(on())?;
        let set: i64 = set.try_get("number").map_err(on())?;
        for (page, entries) in by_page {
            let entries = postcard::to_stdvec(&entries).map_err(|error| on()(sqlx::Error::Encode(Box::new(error))))?;
            sqlx::query("INSERT INTO item_pages (item_set, page, items) VALUES (?, ?, ?)")
                .bind(set)
                .bind(page)
                .bind(entries)
                .execute(&mut *connection)
                .await
                .map_err(on())?;
        }
        Ok(Self { number: set, partition, page_bits, least_index, first_time, last_time, filter })
    }

    fn first(&self, entry: &Entry) -> First {
        First {
            index: self.least_index.saturating_add(entry.1),
            received: self.first_time.plus(std::time::Duration::from_micros(entry.2)),
        }
    }
}

/// The page of an item: the first bits of its name.
fn page_of(item: &ItemHash, bits: u32) -> u32 {
    let [a, b, c, d, ..] = *item;
    u32::from_be_bytes([a, b, c, d]).checked_shr(u32::BITS - bits).unwrap_or(0)
}

impl SqliteStore {
    /// Whether anything was ever handed over and is still remembered.
    #[must_use]
    pub fn has_items(&self) -> bool {
        !self.shared.items.all().is_empty() || self.shared.items.unsure.load(Ordering::SeqCst)
    }

    /// Since when all items are remembered, if some were handed over: what came before may have been forgotten.
    #[must_use]
    pub fn items_since(&self) -> Option<Timestamp> {
        self.shared.items.all().iter().map(|set| set.first_time).min()
    }

    /// How many sets of items were forgotten before their time since the start, as too many came after them.
    #[must_use]
    pub fn item_sets_made_room(&self) -> u64 {
        self.shared.items.made_room.load(Ordering::Relaxed)
    }

    /// Which of these items are remembered here, with their first records. May tell of some that came too long ago to count.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::DamagedRow`] for a page that is not what was written.
    pub async fn known_items(
        &self,
        partition: u32,
        items: impl IntoIterator<Item = ItemHash>,
    ) -> Result<Known, StoreError> {
        let on = || StoreError::on("look up which items were seen");
        if self.shared.items.unsure.load(Ordering::SeqCst) {
            // Behind whatever transaction left it so.
            let mut writer = self.writer().await;
            self.shared.items.load(&mut writer).await?;
            self.shared.items.unsure.store(false, Ordering::SeqCst);
        }
        let sets = self.shared.items.all();
        let sets: Vec<&ItemSet> = sets.iter().map(|set| &**set).filter(|set| set.partition == partition).collect();
        let mut asked: BTreeMap<(i64, u32), Vec<ItemHash>> = BTreeMap::new();
        for item in items {
            let question = Question::about(&item);
            for set in sets.iter().filter(|set| set.filter.may_have(&question)) {
                asked.entry((set.number, page_of(&item, set.page_bits))).or_default().push(item);
            }
        }
        let mut known = Known::new();
        let pages: Vec<_> = asked.keys().copied().collect();
        for pages in pages.chunks(PAGES_AT_ONCE) {
            let pages = serde_json::to_string(pages).map_err(|error| on()(sqlx::Error::Encode(Box::new(error))))?;
            let rows = sqlx::query(
                "SELECT p.* FROM json_each(?) AS j JOIN item_pages AS p ON p.item_set = j.value ->> 0 AND p.page = j.value ->> 1",
            )
            .bind(pages)
            .fetch_all(self.readers())
            .await
            .map_err(on())?;
            for row in &rows {
                check(&ITEM_PAGES, row)?;
                let (of, page): (i64, u32) =
                    (row.try_get("item_set").map_err(on())?, row.try_get("page").map_err(on())?);
                let entries: Vec<u8> = row.try_get("items").map_err(on())?;
                let entries: Vec<Entry> = postcard::from_bytes(&entries)
                    .map_err(|_| StoreError::DamagedRow { table: "item_pages", row: format!("{of}/{page}") })?;
                let Some(set) = sets.iter().find(|set| set.number == of) else { continue };
                let asked: BTreeSet<ItemHash> = asked.get(&(of, page)).into_iter().flatten().copied().collect();
                for entry in entries.iter().filter(|(item, ..)| asked.contains(item)) {
                    let first = set.first(entry);
                    // One that was forgotten and came again is in two sets.
                    let known = known.entry(entry.0).or_insert(first);
                    if known.received < first.received {
                        *known = first;
                    }
                }
            }
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::commit::Store as _;
    use engine::dedup::item_hash;

    use super::super::tests::{START, batch, clock};
    use super::*;

    fn items(numbers: std::ops::Range<u64>) -> Items {
        let at = |number| First { index: 7 + number, received: START.plus(Duration::from_secs(number)) };
        let mut items: Items = numbers.map(|number| (item_hash("a", &number.to_string()), at(number))).collect();
        items.sort_unstable_by_key(|(item, _)| *item);
        items
    }

    async fn open(dir: &tempfile::TempDir) -> SqliteStore {
        SqliteStore::open(&dir.path().join("store.db"), clock()).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_handed_over_is_known_again_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        assert!(!store.has_items());
        for (from, numbers) in [(0, 0..5_000), (1, 5_000..5_001), (2, 5_001..9_000)] {
            store.commit(&Commit { handed_over: items(numbers), ..batch(from, from + 1) }).await.unwrap();
        }
        let all = items(0..9_000);
        let others: Vec<ItemHash> = items(9_000..30_000).into_iter().map(|(item, _)| item).collect();
        for store in [store, open(&dir).await] {
            let known = store.known_items(0, all.iter().map(|(item, _)| *item)).await.unwrap();
            assert_eq!(known, all.iter().copied().collect());
            assert_eq!(store.known_items(0, others.iter().copied()).await.unwrap(), Known::new());
            assert_eq!(store.known_items(1, all.iter().map(|(item, _)| *item)).await.unwrap(), Known::new());
            let sets = store.shared.items.all();
            let hits = |item: &&ItemHash| sets.iter().any(|set| set.filter.may_have(&Question::about(*item)));
            assert!(others.iter().filter(hits).count() < others.len() / 50, "filters let nearly all pass");
            assert_eq!(store.problems().await.unwrap(), Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn a_set_goes_when_its_last_item_has_had_its_time_and_a_failed_commit_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        store.commit(&Commit { handed_over: items(0..10), ..batch(0, 1) }).await.unwrap();
        store.commit(&Commit { handed_over: items(10..20), ..batch(1, 2) }).await.unwrap();
        let refused = Commit { handed_over: items(20..30), ..batch(7, 8) };
        assert!(store.commit(&refused).await.is_err());
        let count = async |store: &SqliteStore| {
            store.known_items(0, items(0..30).iter().map(|(item, _)| *item)).await.unwrap().len()
        };
        assert_eq!(count(&store).await, 20);
        let since = START.plus(Duration::from_secs(9));
        store.commit(&Commit { remembered_since: since, ..batch(2, 3) }).await.unwrap();
        assert_eq!(count(&store).await, 20, "the last item of the first set still counts");
        let since = START.plus(Duration::from_secs(10));
        store.commit(&Commit { remembered_since: since, ..batch(3, 4) }).await.unwrap();
        assert_eq!((count(&store).await, count(&open(&dir).await).await), (10, 10));
    }

    #[tokio::test]
    async fn of_an_item_in_two_sets_the_later_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        let [item] = items(3..4)[..] else { panic!("one item") };
        let later = (item.0, First { index: 90, received: START.plus(Duration::from_secs(800_000)) });
        store.commit(&Commit { handed_over: vec![item], ..batch(0, 1) }).await.unwrap();
        store.commit(&Commit { handed_over: vec![later], ..batch(1, 2) }).await.unwrap();
        assert_eq!(store.known_items(0, [item.0]).await.unwrap()[&item.0], later.1);
    }

    #[tokio::test]
    async fn the_oldest_set_makes_room_for_one_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        let all = SETS_MAX as u64 + 1;
        for number in 0..all {
            let commit = Commit { handed_over: items(number..number + 1), from: number, to: number + 1, ..batch(0, 1) };
            store.commit(&commit).await.unwrap();
        }
        let known = store.known_items(0, items(0..all).iter().map(|(item, _)| *item)).await.unwrap();
        assert_eq!(known.len(), SETS_MAX);
        assert_eq!(store.item_sets_made_room(), 1);
        assert!(!known.contains_key(&items(0..1)[0].0));
        assert_eq!(store.items_since(), Some(items(1..2)[0].1.received), "what came before is asked of the lake");
    }
}
