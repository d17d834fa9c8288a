//! Bytes that are gone or not what was written: a torn tail at every offset (F4), flipped bits in log, seal, lake and store
//! (F5), and files somebody changed (F26).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pipeproof_engine::clock::SystemClock;
use pipeproof_engine::commit::Store as _;
use pipeproof_engine::merkle::Nodes as _;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::log::{HashesChecked, Knowing, Log, LogOptions, Opened, Sealed};
use pipeproof_record::lake::{Snapshot, Table};
use pipeproof_record::sql::{Limits, Sql};
use pipeproof_record::store::{DeliveryFilter, IncidentFilter, SqliteStore};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::process::{PATIENCE, wait};
use crate::receiver::Manner;
use crate::row::Row;
use crate::specimen::{killed_specimen, places, specimen, specimen_to_flip};
use crate::world::World;

/// Every file under a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() { open.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    found
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

async fn all(log: &Log) -> Vec<(u64, Bytes)> {
    log.read(0, usize::MAX, usize::MAX).unwrap()
}

/// F4: the last group is cut at every byte, and filled with zeros from every byte on: the prefix is there, no more and no less.
pub(crate) async fn torn_tail(seed: u64, record_bytes: usize) -> Row {
    let mut row = Row::new("F4", "torn and zero-filled tail at every byte of the last group", seed);
    row.counted.events = true;
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("log");
    let Opened { log, .. } = Log::open(&dir, Knowing::default(), LogOptions::default()).unwrap();
    let leaves = |from: usize, to: usize| {
        (from..to).map(move |number| Bytes::from(vec![u8::try_from(number).unwrap(); record_bytes]))
    };
    log.append(leaves(0, 3).collect()).await.unwrap();
    let segment = files(&dir).into_iter().find(|path| path.extension().is_some_and(|it| it == "segment")).unwrap();
    let kept = fs::metadata(&segment).unwrap().len();
    log.append(leaves(3, 8).collect()).await.unwrap();
    log.close().await;
    let whole = fs::read(&segment).unwrap();
    let hashes = fs::read(dir.join("hashes")).unwrap();
    // Hashes of the last group were not written yet: that is what makes it a tail that was never acknowledged.
    let hashes = &hashes[..hashes.len() / 8 * 3];
    let frame = (whole.len() as u64 - kept) / 5;
    for cut in kept..=whole.len() as u64 {
        for zeros in [false, true] {
            let mut bytes = whole.clone();
            let at = usize::try_from(cut).unwrap();
            if zeros {
                bytes[at..].fill(0)
            } else {
                bytes.truncate(at)
            }
            fs::write(&segment, &bytes).unwrap();
            fs::write(dir.join("hashes"), hashes).unwrap();
            let Opened { log, report } =
                Log::open(&dir, Knowing { durable: 3, ..Knowing::default() }, LogOptions::default()).unwrap();
            let expected = 3 + (cut - kept) / frame;
            let read = all(&log).await;
            let same = read.iter().zip(leaves(0, 8)).all(|((_, found), sent)| *found == sent);
            row.runs += 1;
            row.sent += 8;
            row.acked += 3;
            row.stored += read.len() as u64;
            row.lost_acked += 3_u64.saturating_sub(read.len() as u64);
            row.bytes_corrupt_detected += report.torn_bytes;
            row.expect(
                same && read.len() as u64 == expected && report.quarantined.is_empty(),
                format!("cut at {cut}, zeros {zeros}: {} records instead of {expected}: {report:?}", read.len()),
            );
            log.close().await;
        }
    }
    row
}

/// What became of a flipped bit.
enum Fate {
    /// It was named.
    Named,
    /// Nothing that can be read differs: it lay in space that is not used.
    Harmless,
    /// Something differs and nothing said so.
    Unseen(String),
}

/// F5: one bit is flipped in each of so many random bytes.
pub(crate) async fn flips(seed: u64, count: u64) -> Vec<Row> {
    let rich = count >= 1_000;
    let (stopped, killed) = (specimen_to_flip(rich).await, killed_specimen().await);
    let mut random = StdRng::seed_from_u64(seed);
    let mut rows = Vec::new();
    for (world, part, path) in [
        (&stopped, "log", "log"),
        (&stopped, "seal tree's log", "seal"),
        (&stopped, "lake", "lake"),
        (&stopped, "store", "store.db"),
        (&killed, "store's write-ahead log", WAL),
    ] {
        let mut row = Row::new("F5", &format!("one bit flipped in the {part}"), seed);
        let (mut harmless, mut unseen) = (0, 0);
        let reference = Reference::of(&world.data).await;
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        for (path, at) in places(&world.data.join(path), &mut random, count / 4).await {
            let ending = path.extension().or(path.file_name()).unwrap().to_string_lossy().into_owned();
            *kinds.entry(ending).or_default() += 1;
            let path = path.strip_prefix(&world.data).unwrap();
            let flip = (path.to_owned(), at, 1_u8 << random.random_range(0..8));
            row.runs += 1;
            match reference.flipped(&world.data, part, flip.clone()).await {
                Fate::Named => row.bytes_corrupt_detected += 1,
                Fate::Harmless => harmless += 1,
                Fate::Unseen(what) => {
                    unseen += 1;
                    row.fail(format!("{} byte {}: {what}", flip.0.display(), flip.1));
                }
            }
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        row.note = format!(
            "{} named, {harmless} changed nothing that can be read{}, {unseen} not seen ({}). {}",
            row.bytes_corrupt_detected,
            match part {
                "store's write-ahead log" => " or lay in the last transaction, which is as after a crash within it",
                "lake" => ", of any row of any table; of data files those of the current versions were damaged",
                _ => "",
            },
            kinds.join(", "),
            row.note
        );
        rows.push(row);
    }
    rows
}

/// F5, F26: while nobody runs, one bit is flipped in a record that only the log has. The next start is ready, and says so everywhere: in
/// a metric, a finding that is delivered, the windows of its sources, and the doctor. The start after it says nothing new.
pub(crate) async fn told(seed: u64) -> Row {
    let mut row = Row::new("F5", "one bit flipped in a record that only the log has, and told", seed);
    let mut world = World::new().padded(200).with_receiver(Manner::Takes).await;
    let rule = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/library/logging/records_damaged.yml");
    fs::copy(rule, world.folder().join("rules/records_damaged.yml")).unwrap();
    world.archive_every = "1h";
    let server = world.server();
    world.generator.send(&server, 60).await;
    let durable = server.number("durable").await;
    let detected = wait(PATIENCE, || async { server.number("detected").await >= durable }).await;
    row.expect(detected, "the events were not evaluated");
    server.kill();

    let victim = StdRng::seed_from_u64(seed).random_range(0..60);
    let text = world.generator.text_of(victim).unwrap();
    let segment = files(&world.data.join("log/0"))
        .into_iter()
        .find(|path| path.extension().is_some_and(|it| it == "segment"))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[at + 10] ^= 1;
    fs::write(&segment, bytes).unwrap();

    world.archive_every = "1s";
    for start in 0..2 {
        let server = world.server();
        row.runs += 1;
        row.expect(server.ready().await, "it is not ready with a record less");
        row.expect(server.settled().await, "it does not come to an end");
        let metrics = server.ask(reqwest::Method::GET, "/metrics", Vec::new()).await.unwrap().text();
        let counted = metrics.contains("pipeproof_log_damaged_total{log=\"log\",what=\"records\"} 1");
        row.expect(counted, format!("start {start}: the metric does not say so"));
        let title = "SELECT count(*) FROM findings WHERE title = 'Records of the log are damaged on disk'";
        let found = wait(PATIENCE, || async { server.rows(title).await[0][0] == json!(1) }).await;
        row.expect(found, format!("start {start}: {:?} findings of it", server.rows(title).await));
        let receiver = world.receiver.as_ref().map(|(receiver, _)| receiver.clone()).unwrap();
        let delivered = wait(PATIENCE, || async {
            let counts = server.get("/v1/status").await.unwrap_or_default();
            let waits = |name: &str| counts["counts"][name] != json!(0);
            !waits("deliveries_queued") && !waits("deliveries_retry") && !receiver.taken().is_empty()
        })
        .await;
        row.expect(delivered, "the finding was not delivered");
        let windows = "SELECT count(*) FROM source_window WHERE source_id = 'gen' AND status = 'gap'";
        let gap = wait(PATIENCE, || async { server.rows(windows).await[0][0] != json!(0) }).await;
        row.expect(gap, "the window of its source is no gap");
        let said = verified(&server).await.err().unwrap_or_default();
        row.expect(
            said.contains("is lost as data: a gap") && said.contains("the record is damaged"),
            format!("the doctor: {said}"),
        );
        let stored = world.stored().await.times;
        row.stored = stored.len() as u64;
        row.expect(stored.len() == 59 && !stored.contains_key(&victim), "something else is missing");
        row.bytes_corrupt_detected = 1;
        row.alerts_delivered = receiver.taken().len() as u64;
        row.alerts_dup_wire = receiver.repeated();
        row.alerts_dup_key = receiver.same_under_other_keys();
        let all = server.rows("SELECT count(*) FROM findings").await;
        row.alerts_required = all[0][0].as_u64().unwrap_or(0);
        row.expect(
            row.alerts_delivered == row.alerts_required && row.alerts_dup_key == 0,
            "not every finding was told once",
        );
        row.expect(receiver.invalid().is_empty(), format!("{:?}", receiver.invalid()));
        row.expect(server.terminate().await, "no orderly end");
    }
    (row.sent, row.acked) = (60, 60);
    (row.counted.events, row.counted.alerts) = (true, true);
    row.lost_acked = 60 - row.stored;
    row.say("ready again, a metric, a finding delivered once over two starts, a gap, and the doctor names it");
    row
}

/// What an undamaged folder says.
struct Reference {
    log: Vec<(u64, Bytes)>,
    seal: Vec<(u64, Bytes)>,
    /// Records under the last sealed checkpoint, and their root.
    sealed: (u64, [u8; 32]),
    lake: String,
    lake_rows: String,
    store: String,
    /// What the store says without the last transaction of its log, if it has one: damage to that cannot be told from a crash
    /// within it, and what it held is concluded again.
    before_last: Option<String>,
}

impl Reference {
    async fn of(data: &Path) -> Self {
        let copy = TempDir::new().unwrap();
        copy_folder(data, copy.path());
        let read = async |part: &str| {
            let log = Log::open(&copy.path().join(part), Knowing::default(), LogOptions::default()).unwrap().log;
            let read = all(&log).await;
            log.close().await;
            read
        };
        let (log, seal) = (read("log/0").await, read("seal").await);
        let sealed = sealed(&seal);
        let lake = lake_text(copy.path()).await.unwrap();
        let lake_rows = lake_rows(copy.path()).await.unwrap();
        let store = store_text(&copy.path().join("store.db")).await.unwrap();
        let wal = fs::read(data.join(WAL)).ok().filter(|wal| !wal.is_empty());
        let before_last = match wal {
            None => None,
            Some(wal) => {
                fs::copy(data.join("store.db"), copy.path().join("store.db")).unwrap();
                fs::write(copy.path().join(WAL), &wal[..begin_of_last_transaction(&wal)]).unwrap();
                drop(fs::remove_file(copy.path().join("store.db-shm")));
                Some(store_text(&copy.path().join("store.db")).await.unwrap())
            }
        };
        Self { log, seal, sealed, lake, lake_rows, store, before_last }
    }

    /// What became of a flip in a lake of which nothing else was touched. An error of whoever reads it is no name: the doctor's are.
    async fn fate_in_lake(&self, data: &Path) -> Fate {
        match lake_text(data).await {
            Err(_) => return Fate::Named,
            Ok(text) if text != self.lake => return Fate::Unseen("the lake reads otherwise".to_owned()),
            Ok(_) => {}
        }
        match lake_rows(data).await {
            Ok(rows) if rows == self.lake_rows => Fate::Harmless,
            Ok(_) => Fate::Unseen("rows of the lake read otherwise".to_owned()),
            Err(error) => Fate::Unseen(format!("rows of the lake cannot be read: {error}")),
        }
    }

    async fn flipped(&self, data: &Path, part: &str, flip: (PathBuf, usize, u8)) -> Fate {
        let copy = TempDir::new().unwrap();
        let (file, at, bit) = flip;
        let top = file.components().next().unwrap();
        let top = Path::new(top.as_os_str());
        if data.join(top).is_dir() {
            copy_folder(&data.join(top), &copy.path().join(top));
        } else {
            fs::copy(data.join(top), copy.path().join(top)).unwrap();
        }
        let store = copy.path().join("store.db");
        if !store.exists() && top == Path::new(WAL) {
            fs::copy(data.join("store.db"), &store).unwrap();
        }
        let target = copy.path().join(&file);
        let mut bytes = fs::read(&target).unwrap();
        bytes[at] ^= bit;
        fs::write(&target, bytes).unwrap();
        match part {
            "lake" => self.fate_in_lake(copy.path()).await,
            "store" | "store's write-ahead log" => match store_text(&store).await {
                Err(_) => Fate::Named,
                Ok(text) if text == self.store || Some(&text) == self.before_last.as_ref() => Fate::Harmless,
                Ok(_) => Fate::Unseen("the store reads otherwise".to_owned()),
            },
            _ => {
                let (dir, expected) = if part == "log" { ("log/0", &self.log) } else { ("seal", &self.seal) };
                let known = expected.last().map_or(0, |(index, _)| index + 1);
                let sealed = (part == "log").then_some(Sealed { size: self.sealed.0, root: self.sealed.1 });
                let knowing = Knowing { durable: known, sealed, leaves: None };
                let opened = Log::open(&copy.path().join(dir), knowing, LogOptions::default());
                let Ok(Opened { log, report }) = opened else { return Fate::Named };
                // A start leaves hashes of retired records for later.
                let mut unread = (0..report.hashes_unread).step_by(Log::HASHES_AT_ONCE.try_into().unwrap());
                let is_mended = |first| log.check_hashes(first, &BTreeMap::new()).unwrap() != HashesChecked::Whole;
                let mended_later = unread.any(is_mended);
                // A start compares the tree with the last sealed checkpoint.
                let is_sealed = part != "log" || log.root(self.sealed.0) == Some(self.sealed.1);
                let named = !report.quarantined.is_empty()
                    || !report.bad_headers.is_empty()
                    || report.hashes_rewritten > 0
                    || report.blocks_rewritten > 0
                    || mended_later
                    || !is_sealed;
                let read = all(&log).await;
                log.close().await;
                let served_wrong =
                    read.iter().any(|(index, leaf)| expected.iter().any(|(at, right)| at == index && right != leaf));
                match (served_wrong, named, &read == expected) {
                    (true, ..) => Fate::Unseen("a record that was never written is served".to_owned()),
                    (_, true, _) => Fate::Named,
                    (_, _, true) => Fate::Harmless,
                    _ => Fate::Unseen("records are missing".to_owned()),
                }
            }
        }
    }
}

/// What the last checkpoint of the log says: size and root (C2SP tlog-checkpoint: origin, size, root, a line each).
fn sealed(seal: &[(u64, Bytes)]) -> (u64, [u8; 32]) {
    let notes = seal.iter().rev().map(|(_, note)| String::from_utf8(note.to_vec()).unwrap());
    let mut sealed = notes.filter_map(|note| {
        let lines: Vec<&str> = note.lines().collect();
        let root = STANDARD.decode(lines[2]).unwrap().try_into().unwrap();
        lines[0].ends_with("/log/0").then(|| (lines[1].parse().unwrap(), root))
    });
    sealed.next().expect("a checkpoint was sealed")
}

/// SQLite's write-ahead log of the store.
pub(crate) const WAL: &str = "store.db-wal";

/// Where the last whole transaction begins in a write-ahead log of SQLite.
fn begin_of_last_transaction(wal: &[u8]) -> usize {
    let word = |at: usize| u32::from_be_bytes(wal[at..at + 4].try_into().unwrap());
    let frame = 24 + usize::try_from(word(8)).unwrap();
    let mut ends = vec![32];
    for at in (32..wal.len() - frame + 1).step_by(frame) {
        if wal[at + 8..at + 16] != wal[16..24] {
            break;
        }
        if word(at + 4) != 0 {
            ends.push(at + frame);
        }
    }
    ends[ends.len().saturating_sub(2)]
}

/// What the lake is made of, or what is wrong with it as the doctor names it.
async fn lake_text(data: &Path) -> Result<String, String> {
    let snapshot = Snapshot::read_only(&data.join("lake")).await.map_err(|error| error.to_string())?;
    let damaged = snapshot.damaged_files();
    if !damaged.is_empty() {
        return Err(format!("{damaged:?}"));
    }
    let mut text = format!("{:?} {}", snapshot.versions(), snapshot.records_end());
    for table in Table::ALL {
        let names: Vec<_> =
            snapshot.files(*table).iter().map(|path| path.strip_prefix(data).unwrap_or(path).to_owned()).collect();
        text.push_str(&format!("{names:?}"));
    }
    Ok(text)
}

/// Every row of every table of the lake as SQL gives it, which a digest stands for.
async fn lake_rows(data: &Path) -> Result<String, String> {
    let snapshot = Snapshot::read_only(&data.join("lake")).await.map_err(|error| error.to_string())?;
    let sql = Sql::over(&snapshot, None, Limits::EVIDENCE).await.map_err(|error| error.to_string())?;
    let mut text = String::new();
    for table in Table::ALL {
        let order = if *table == Table::Events { "\"index\", sub" } else { "seq" };
        let query = format!("SELECT * FROM {} ORDER BY {order}", table.name());
        let rows = sql.query_json(&query, &[]).await.map_err(|error| error.to_string())?;
        let digest = hex::encode(Sha256::digest(serde_json::to_vec(&rows).unwrap()));
        text.push_str(&format!("{} rows of {}: {digest}\n", rows.rows.len(), table.name()));
    }
    Ok(text)
}

/// Everything the store says, or what is wrong with it by its own checks.
async fn store_text(path: &Path) -> Result<String, String> {
    let said = |error: pipeproof_record::store::StoreError| error.to_string();
    let store = SqliteStore::open(path, Arc::new(SystemClock)).await.map_err(said)?;
    let read = async {
        let problems = store.problems().await?;
        if !problems.is_empty() {
            return Ok(Err(problems.join("; ")));
        }
        let restored = store.restore(0).await?;
        let all = usize::MAX >> 1;
        let deliveries = DeliveryFilter { limit: 100_000, ..DeliveryFilter::default() };
        Ok(Ok(format!(
            "{restored:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            store.findings_after(0, all).await?,
            store.steps_after(0, all).await?,
            store.deliveries_after(0, all).await?,
            store.windows(Timestamp::MIN, Timestamp::MAX).await?,
            store.duplicate_indexes(0, 0..1 << 40).await?,
            store.counts().await?,
            store.deliveries(&deliveries).await?,
            store.incidents(&IncidentFilter { limit: 100_000, ..IncidentFilter::default() }).await?,
            store.messages_after(0, all).await?,
            store.dead_letters(None, 0, all).await?,
            store.excepted(None, 0, all).await?,
            store.packs().await?,
        )))
    };
    let read: Result<Result<String, String>, pipeproof_record::store::StoreError> = read.await;
    store.close().await;
    read.map_err(said)?
}

/// F26: files are swapped, removed, or older copies put in their place.
pub(crate) async fn tampered(seed: u64) -> Row {
    let mut row = Row::new("F26", "files swapped, removed, or rolled back", seed);
    let mut world = specimen().await;
    let old = world.folder().join("old");
    copy_folder(&world.data, &old);
    let server = world.server();
    world.generator.send(&server, 60).await;
    server.settled().await;
    assert!(server.terminate().await, "an orderly end");
    let new = world.folder().join("new");
    copy_folder(&world.data, &new);
    let events: Vec<_> = files(&world.data.join("lake/events"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == "parquet"))
        .collect();

    for case in [
        "a lake file holds another's content",
        "a lake file is gone",
        "the log is an older copy",
        "the store is an older copy",
    ] {
        fs::remove_dir_all(&world.data).unwrap();
        copy_folder(&new, &world.data);
        match case {
            "a lake file holds another's content" => drop(fs::copy(&events[0], &events[1]).unwrap()),
            "a lake file is gone" => fs::remove_file(&events[0]).unwrap(),
            "the log is an older copy" => {
                fs::remove_dir_all(world.data.join("log")).unwrap();
                copy_folder(&old.join("log"), &world.data.join("log"));
            }
            _ => drop(fs::copy(old.join("store.db"), world.data.join("store.db")).unwrap()),
        }
        row.runs += 1;
        let started = world.start();
        match (case, started) {
            ("the log is an older copy", Err(refused)) => {
                row.expect(
                    refused.code == Some(4) && refused.log.contains("restore the newer log"),
                    format!("{case}: {refused:?}"),
                );
                row.bytes_corrupt_detected += 1;
            }
            ("the store is an older copy", Ok(server)) => {
                // Detection goes on from there, and concludes the same. What was delivered is delivered again, and the lake has the receipts
                // of before: by these it is named, and by nothing else.
                world.account(&mut row, &server).await;
                let said = verified(&server).await;
                let only = said.as_ref().is_err_and(|said| {
                    said.contains("not told alike by store and lake")
                        && said.matches("\"holds\":false,\"detail\"").count() == 1
                });
                row.expect(only, format!("{case}: {said:?}"));
            }
            (_, Ok(server)) => match verified(&server).await {
                Err(said) => {
                    row.bytes_corrupt_detected += 1;
                    row.expect(said.contains(".parquet"), format!("{case}: the file is not named: {said}"));
                }
                Ok(()) => row.fail(format!("{case}: not seen")),
            },
            (_, Err(refused)) => row.fail(format!("{case}: it does not start: {refused:?}")),
        }
    }
    row
}

/// What the doctor says.
pub(crate) async fn verified(server: &crate::process::Server) -> Result<(), String> {
    let reply = server.post("/v1/doctor", json!({})).await.ok_or("no answer")?;
    let answer = reply.json();
    if answer["holds"] == json!(true) { Ok(()) } else { Err(reply.text()) }
}
