//! Data to damage, and where to damage it.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use pipeproof_record::lake::{Snapshot, Table};
use rand::Rng as _;
use rand::rngs::StdRng;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};
use tempfile::TempDir;

use crate::damage::files;
use crate::process::{PATIENCE, Server, wait};
use crate::receiver::Manner;
use crate::row::Row;
use crate::world::World;

/// Data to damage: records, findings, deliveries, several lake files, cleanly stopped.
pub(crate) async fn specimen() -> World {
    let (world, server) = specimen_running(false).await;
    world.account(&mut Row::default(), &server).await;
    assert!(server.terminate().await, "an orderly end");
    world
}

/// What [`flips`] damages; a rich one has everything that comes with time: retired segments and their mark, merged files of the lake,
/// checkpoints of Delta's logs, pages of items that detection handed over.
pub(crate) async fn specimen_to_flip(rich: bool) -> World {
    let (world, server) = specimen_running(rich).await;
    if rich {
        let has = |part: &str, ending: &str| {
            files(&world.data.join(part)).iter().any(|path| path.to_string_lossy().ends_with(ending))
        };
        let has_all = || {
            has("log", "retired")
                && has("lake/events/_delta_log", ".checkpoint.parquet")
                && has("lake/events/_delta_log", "_last_checkpoint")
        };
        let came = wait(PATIENCE, || async {
            world.generator.send(&server, 5).await;
            server.settled().await;
            has_all() && server.number("log_first").await > 0
        });
        assert!(came.await, "the specimen has everything that comes with time");
    }
    world.account(&mut Row::default(), &server).await;
    assert!(server.terminate().await, "an orderly end");
    world
}

/// The same as kill -9 leaves it, so that the store has a log of its own.
pub(crate) async fn killed_specimen() -> World {
    let (world, server) = specimen_running(false).await;
    server.kill();
    world
}

async fn specimen_running(rich: bool) -> (World, Server) {
    let mut world = World::new().padded(if rich { 4_000 } else { 200 }).with_receiver(Manner::Takes).await;
    world.extra = "seal_every: 1s\n".to_owned();
    if rich {
        world.archive_every = "1s";
        world.extra.push_str("log: {segment_bytes: 1048576, keep_bytes: 0, retire_every: 1s}\n");
        world.extra.push_str("dedup: {items_in_memory: 1000}\n");
    }
    let server = world.server();
    // An append each: Delta writes a checkpoint after a hundred commits.
    let (batches, count) = if rich { (120, 8) } else { (4, 60) };
    for _ in 0..batches {
        world.generator.send(&server, count).await;
        server.settled().await;
    }
    (world, server)
}

/// Bytes of a store that hold something: of each page in use its header and cells, not the gap between them.
async fn bytes_in_use(store: &Path) -> Vec<Range<u64>> {
    let copy = TempDir::new().unwrap();
    let file = copy.path().join("store.db");
    fs::copy(store, &file).unwrap();
    let bytes = fs::read(&file).unwrap();
    let options = SqliteConnectOptions::new().filename(&file);
    let mut connection = options.connect().await.unwrap();
    let pages = "SELECT pageno, pagetype, ncell, pgoffset, pgsize FROM dbstat";
    let mut found = Vec::new();
    for page in sqlx::query(pages).fetch_all(&mut connection).await.unwrap() {
        let number = |column: usize| usize::try_from(page.get::<i64, _>(column)).unwrap();
        let (at, size) = (number(3), number(4));
        // The first page begins with the header of the file (SQLite's file format, 1.3 and 1.6).
        let header = at + if number(0) == 1 { 100 } else { 0 };
        let pointers = match page.get::<String, _>(1).as_str() {
            "leaf" => header + 8 + 2 * number(2),
            "internal" => header + 12 + 2 * number(2),
            _ => at + size,
        };
        let content = usize::from(u16::from_be_bytes([bytes[header + 5], bytes[header + 6]]));
        let content = if pointers == at + size { at + size } else { at + content };
        found.extend([at..pointers, content.max(pointers)..at + size].map(|part| part.start as u64..part.end as u64));
    }
    found.retain(|range| !range.is_empty());
    found
}

/// The data files that the current versions of a lake's tables refer to.
pub(crate) async fn live_files(lake: &Path) -> BTreeSet<PathBuf> {
    let snapshot = Snapshot::read_only(lake).await.unwrap();
    Table::ALL.iter().flat_map(|table| snapshot.files(*table).to_vec()).collect()
}

/// Where a bit is flipped: in some byte, or, half of the time, in some byte of some kind of file, so that small ones have their turn.
pub(crate) async fn places(path: &Path, random: &mut StdRng, count: u64) -> Vec<(PathBuf, usize)> {
    let mut found = if path.is_dir() { files(path) } else { vec![path.to_owned()] };
    found.retain(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0));
    if path.ends_with("lake") {
        // What merges have replaced changes nothing that anybody reads.
        let live = live_files(path).await;
        let is_data = |file: &Path| {
            let in_log = file.parent().is_some_and(|folder| folder.ends_with("_delta_log"));
            !in_log && file.extension().is_some_and(|ending| ending == "parquet")
        };
        found.retain(|file| !is_data(file) || live.contains(&fs::canonicalize(file).unwrap()));
    }
    let mut ranges: Vec<(PathBuf, Range<u64>)> = Vec::new();
    for path in found {
        let is_store = path.extension().is_some_and(|ending| ending == "db");
        let whole = 0..fs::metadata(&path).unwrap().len();
        let parts = if is_store { bytes_in_use(&path).await } else { vec![whole] };
        ranges.extend(parts.into_iter().map(|part| (path.clone(), part)));
    }
    let kind = |path: &Path| {
        let folder = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let ending = path.extension().or(path.file_name()).unwrap().to_string_lossy().into_owned();
        if folder.starts_with('_') { format!("{folder}/{ending}") } else { ending }
    };
    let kinds: BTreeSet<String> = ranges.iter().map(|(path, _)| kind(path)).collect();
    let kinds: Vec<String> = kinds.into_iter().collect();
    let mut places = Vec::new();
    for _ in 0..count {
        let chosen = random.random::<bool>().then(|| &kinds[random.random_range(0..kinds.len())]);
        let among: Vec<_> =
            ranges.iter().filter(|(path, _)| chosen.is_none_or(|chosen| kind(path) == *chosen)).collect();
        let bytes: u64 = among.iter().map(|(_, part)| part.end - part.start).sum();
        let mut at = random.random_range(0..bytes);
        for (path, part) in among {
            let length = part.end - part.start;
            if at < length {
                places.push((path.clone(), usize::try_from(part.start + at).unwrap()));
                break;
            }
            at -= length;
        }
    }
    places
}
