//! Backups, retention, take-over by another process, and how soon it is ready again behind a large backlog.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeproof_engine::merkle::Nodes as _;
use pipeproof_ingest::log::{Knowing, Log, LogOptions};
use serde_json::json;

use crate::damage::{WAL, copy_folder, files, verified};
use crate::process::{PATIENCE, Server, output, program, wait};
use crate::receiver::Manner;
use crate::row::{Holds, Row};
use crate::world::World;

/// How soon a server is promised to be ready again after kill -9.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// F25: a backup while events come in; restored elsewhere it verifies, and its tree is a prefix of the one that went on.
pub(crate) async fn backup(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F25", "backup under load, restored and verified", seed) };
    let mut world = World::new().padded(300).with_receiver(Manner::Takes).await;
    world.extra = "seal_every: 1s\n".to_owned();
    let server = world.server();
    for _ in 0..5 {
        world.generator.send(&server, 50).await;
    }
    server.settled().await;
    let to = world.folder().join("backup");
    let stop = AtomicBool::new(false);
    let before = world.generator.acknowledged();
    let copy = async {
        let reply = server.post("/v1/backup", json!({ "to": to })).await;
        stop.store(true, Ordering::SeqCst);
        reply
    };
    let (_, reply) = tokio::join!(world.generator.load(&server, 3, 10, &stop), copy);
    row.expect(
        reply.as_ref().is_some_and(|reply| reply.status.is_success()),
        format!("no backup: {:?}", reply.map(|it| it.text())),
    );
    world.account(&mut row, &server).await;
    row.expect(verified(&server).await.is_ok(), format!("the original: {:?}", verified(&server).await));
    server.kill();

    let original = world.data.clone();
    let damaged = world.folder().join("damaged");
    copy_folder(&to, &damaged);
    let victim = files(&damaged.join("log"))
        .into_iter()
        .find(|path| path.extension().is_some_and(|it| it == "segment"))
        .unwrap();
    let mut bytes = fs::read(&victim).unwrap();
    bytes[100] ^= 1;
    fs::write(&victim, bytes).unwrap();
    let refused = restore(&damaged, &world.folder().join("never"));
    row.expect(refused == Some(5), format!("a damaged backup: exit {refused:?}"));

    world.data = world.folder().join("restored");
    row.expect(restore(&to, &world.data) == Some(0), "the backup cannot be restored");
    same_trees(&mut row, &original, &world.data).await;
    let again = restore(&to, &original);
    row.expect(again == Some(2), format!("over data that is there: exit {again:?}"));
    // What was acknowledged before the backup began is in it.
    world.receiver = None;
    let server = world.server();
    server.settled().await;
    let stored = world.stored().await.times;
    let lost = before.iter().filter(|number| !stored.contains_key(number)).count();
    row.expect(lost == 0, format!("{lost} events from before the backup are not in it"));
    row.expect(stored.values().all(|times| *times == 1), "the restored lake has events twice");
    row.expect(verified(&server).await.is_ok(), format!("restored: {:?}", verified(&server).await));
    row
}

/// The trees of a restored folder are those of the original at their size: the root of every record that is in both, and every
/// checkpoint that was sealed over it.
async fn same_trees(row: &mut Row, original: &Path, restored: &Path) {
    let copies = [tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap()];
    let mut trees = Vec::new();
    for (data, copy) in [original, restored].into_iter().zip(&copies) {
        for part in ["log/0", "seal"] {
            // Opening a log may write to it.
            copy_folder(&data.join(part), &copy.path().join(part));
            trees.push(Log::open(&copy.path().join(part), Knowing::default(), LogOptions::default()).unwrap().log);
        }
    }
    let [log, seal, restored_log, restored_seal] = &trees[..] else { unreachable!() };
    let size = |log: &Log| *log.durable().borrow();
    let records = size(restored_log);
    row.expect(records > 0 && records <= size(log), format!("{records} records of {}", size(log)));
    row.expect(restored_log.root(records) == log.root(records), format!("another root over {records} records"));
    let mut checked = 0;
    for index in 0..size(restored_seal) {
        let note = |seal: &Log| seal.read(index, 1, 1).unwrap().pop().map(|(_, note)| note);
        let restored = note(restored_seal).unwrap();
        row.expect(note(seal).as_ref() == Some(&restored), format!("checkpoint {index} is another one"));
        // Origin, size and root: C2SP's tlog-checkpoint.
        let text = String::from_utf8(restored.to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        if let Ok(size) = lines[1].parse::<u64>()
            && size > 0
            && lines[0].ends_with("/log/0")
        {
            let root = restored_log.root(size).map(|root| STANDARD.encode(root));
            row.expect(root.as_deref() == Some(lines[2]), format!("checkpoint {index} is not of the restored tree"));
            checked += 1;
        }
    }
    row.expect(checked > 0, "no checkpoint is in the backup");
    row.say(format!("the same root over {records} records, and {checked} sealed checkpoints of the restored tree"));
    for tree in trees {
        tree.close().await;
    }
}

fn restore(from: &Path, to: &Path) -> Option<i32> {
    output(program().args(["restore"]).arg(from).arg("--data").arg(to)).status.code()
}

/// F21: another process takes the folder over while events come in; a store of a newer program is refused.
pub(crate) async fn take_over(seed: u64) -> Row {
    let mut row = Row::new("F21", "another process takes over under load", seed);
    let mut world = World::new().with_receiver(Manner::Takes).await;
    for turn in 0..4 {
        row.runs += 1;
        if turn == 2 {
            let made = older_store(&world.data.join("store.db")).await;
            row.expect(made.is_ok(), format!("the store cannot be made as before: {made:?}"));
        }
        let server = world.server();
        let stop = AtomicBool::new(false);
        let end = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            server.signal("TERM");
        };
        tokio::join!(world.generator.load(&server, 4, 5, &stop), end);
        row.expect(server.terminate().await, "no orderly end under load");
    }
    let server = world.server();
    world.account(&mut row, &server).await;
    row.expect(server.terminate().await, "no orderly end");
    // `PRAGMA user_version` stands at byte 60 of an SQLite file.
    let path = world.data.join("store.db");
    let mut bytes = fs::read(&path).unwrap();
    let pending = fs::metadata(world.data.join("store.db-wal")).map_or(0, |meta| meta.len());
    row.expect(pending == 0, "the store was not closed");
    bytes[60..64].copy_from_slice(&999_u32.to_be_bytes());
    fs::write(&path, bytes).unwrap();
    match world.start() {
        Ok(_) => row.fail("a store of a newer program was opened"),
        Err(refused) => row.expect(refused.code == Some(4) && refused.log.contains("newer"), format!("{refused:?}")),
    }
    row.say("the third process finds a store of version 3, of before rows had checksums");
    row
}

/// F21: an earlier release, this one, and the earlier one again take turns on one folder, each under load. What this one has made of
/// the folder the earlier one may refuse, if it says so and leaves it alone. Two programs with the same formats show nothing of that.
pub(crate) async fn upgrade(seed: u64, older: &Path) -> Row {
    let mut row = Row::new("F21", "upgrade and downgrade between two releases", seed);
    let earlier = formats(Some(older)).await;
    if let Some((version, schema)) = &earlier
        && earlier == formats(None).await
    {
        row.holds = Holds::LeftOut;
        row.say(format!("the earlier program is this one: both are {version} with a store of version {schema}"));
        return row;
    }
    let mut world = World::new().with_receiver(Manner::Takes).await;
    world.extra = "seal_every: 1s\n".to_owned();
    for release in [Some(older), None, Some(older), None] {
        row.runs += 1;
        world.release = release.map(Path::to_owned);
        let server = match world.start() {
            Ok(server) => server,
            Err(refused) => {
                row.expect(row.runs == 3 && refused.code == Some(4), format!("turn {}: {refused:?}", row.runs));
                row.expect(refused.log.contains("newer"), format!("it does not say why: {}", refused.log));
                row.say("the earlier release refuses what a newer one has made of the folder");
                continue;
            }
        };
        let stop = AtomicBool::new(false);
        let end = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            // The first is cut off, so that the next has its unfinished work as well.
            server.signal(if row.runs == 1 { "KILL" } else { "TERM" });
        };
        tokio::join!(world.generator.load(&server, 4, 5, &stop), end);
        if row.runs > 1 {
            row.expect(server.terminate().await, "no orderly end under load");
        }
    }
    world.release = None;
    let server = world.server();
    world.account(&mut row, &server).await;
    row.expect(verified(&server).await.is_ok(), format!("{:?}", verified(&server).await));
    row.expect(server.terminate().await, "no orderly end");
    match earlier {
        Some((version, schema)) => row.say(format!("the earlier one is {version}, its store of version {schema}")),
        None => row.say("the earlier one makes no folder by itself"),
    }
    row
}

/// What a release calls itself, and the version of the store it makes; `None` if it does not make one.
async fn formats(release: Option<&Path>) -> Option<(String, u32)> {
    let mut command = release.map_or_else(program, Command::new);
    let version = String::from_utf8_lossy(&output(command.arg("--version")).stdout).trim().to_owned();
    let mut world = World::new();
    world.release = release.map(Path::to_owned);
    let is_closed = world.start().ok()?.terminate().await;
    // `PRAGMA user_version` stands at byte 60 of an SQLite file.
    let store = fs::read(world.data.join("store.db")).ok().filter(|_| is_closed)?;
    let schema = store.get(60..64)?.try_into().ok()?;
    Some((version, u32::from_be_bytes(schema)))
}

/// Makes the store one of the schema before rows had checksums, as the program of then left it.
async fn older_store(path: &Path) -> Result<(), sqlx::Error> {
    use sqlx::{AssertSqlSafe, Connection as _, Row as _};
    let mut store = sqlx::sqlite::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await?;
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%checksum%'";
    for row in sqlx::query(tables).fetch_all(&mut store).await? {
        let table: String = row.get(0);
        let undo = format!("DROP INDEX {table}_unsummed; ALTER TABLE {table} DROP COLUMN checksum");
        sqlx::raw_sql(AssertSqlSafe(undo)).execute(&mut store).await?;
    }
    // Tables of later versions.
    sqlx::raw_sql("DROP TABLE item_pages; DROP TABLE item_sets; DROP TABLE heard").execute(&mut store).await?;
    sqlx::raw_sql("PRAGMA user_version = 3").execute(&mut store).await?;
    store.close().await
}

pub(crate) fn size(path: &Path) -> u64 {
    if !path.exists() {
        return 0;
    }
    if path.is_file() {
        return fs::metadata(path).map_or(0, |meta| meta.len());
    }
    files(path).iter().map(|file| fs::metadata(file).map_or(0, |meta| meta.len())).sum()
}

/// The log is retired behind its readers; everything is still proved, and a kill in between changes nothing.
pub(crate) async fn retention(seed: u64, megabytes: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("-", "the log is retired behind its readers", seed) };
    let mut world = World::new().with_receiver(Manner::Takes).await;
    world.extra = "seal_every: 1s\nlog: {segment_bytes: 1048576, keep_bytes: 0, retire_every: 1s}\n".to_owned();
    let server = world.server();
    let mut raw_bytes = 0;
    while raw_bytes < megabytes << 20 {
        let (numbers, body) = world.generator.batch(2_000);
        raw_bytes += body.len() as u64;
        while !world
            .generator
            .send_again(&server, numbers.clone(), body.clone())
            .await
            .is_some_and(|it| it.is_success())
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    server.settled().await;
    let retired = wait(PATIENCE, || async { server.number("log_first").await > 0 }).await;
    row.expect(retired, "nothing was retired");
    row.expect(verified(&server).await.is_ok(), format!("{:?}", verified(&server).await));
    server.kill();
    // Not even the registry's copy is needed to go on.
    fs::remove_file(world.data.join("registry.json")).unwrap();
    let server = world.server();
    row.expect(server.number("log_first").await > 0, "the log does not know what was retired");
    world.account(&mut row, &server).await;
    row.expect(verified(&server).await.is_ok(), format!("after a kill: {:?}", verified(&server).await));
    row.expect(server.terminate().await, "no orderly end");
    row
}

/// Ready again after kill -9 under full load: with everything that was there, and then with a backlog that nothing has read yet.
pub(crate) async fn backlog(seed: u64, megabytes: u64) -> Row {
    let mut row =
        Row { runs: 2, ..Row::new("-", &format!("ready after kill -9 with a backlog of {megabytes} MB"), seed) };
    let mut world = World::new().padded(900);
    world.extra = "log: {queue_bytes: 536870912}\n".to_owned();
    let server = world.server();
    let (began, stop) = (Instant::now(), AtomicBool::new(false));
    let killed = async {
        // The first is the shortest, or as short as any.
        let event = || world.generator.text_of(0).map_or(0, |text| text.len() as u64 + 1);
        let is_enough = || async { world.generator.acknowledged_count() * event() >= megabytes << 20 };
        let came = wait(Duration::from_secs(1_200), is_enough).await;
        let rate = (world.generator.acknowledged_count() * event()) as f64 / began.elapsed().as_secs_f64();
        let (detected, archived) = (server.number("detected").await, server.number("archived").await);
        let durable = server.number("durable").await;
        server.signal("KILL");
        (came, rate, event(), [durable, detected, archived])
    };
    let load = world.generator.load(&server, 4, 4_000, &stop);
    let ((), (came, live, event, [durable, detected, archived])) = tokio::join!(load, killed);
    row.expect(came, "the load did not come together");
    drop(server);
    let commits = files(&world.data.join("lake/events/_delta_log")).len();
    let store = size(&world.data.join("store.db")) + size(&world.data.join(WAL));
    let server = world.server();
    let kept = ready_again(&mut row, &server, "with everything kept").await;
    server.kill();
    // Detection and lake begin again: all of it is backlog.
    for part in ["store.db", WAL, "store.db-shm"] {
        drop(fs::remove_file(world.data.join(part)));
    }
    fs::remove_dir_all(world.data.join("lake")).unwrap();
    let server = world.server();
    let without = ready_again(&mut row, &server, "without store and lake").await;
    row.note_all(format!(
        "killed under full load with {durable} records in the log, {detected} evaluated and {archived} in the lake, a store of {:.1} MB and \
         {commits} files in the Delta log of events: ready again by `/readyz` after {kept:.2} s; then without store and lake after {without:.2} s",
        store as f64 / 1e6
    ));
    let began = Instant::now();
    let target = server.number("durable").await;
    let caught_up = wait(Duration::from_secs(1_200), || async { server.number("detected").await >= target }).await;
    row.expect(caught_up, "did not catch up");
    // Ticks among the records are few.
    let bytes = (target * event) as f64;
    let catching_up = bytes / began.elapsed().as_secs_f64();
    row.say(format!(
        "{:.0} MB taken in at {:.1} MB/s beside detection and lake; catching up {:.1} MB/s: {:.2} of that",
        bytes / 1e6,
        live / 1e6,
        catching_up / 1e6,
        catching_up / live
    ));
    let archived = wait(Duration::from_secs(1_200), || async { server.number("archived").await >= target }).await;
    row.expect(archived, "the lake did not catch up");
    world.account(&mut row, &server).await;
    row
}

/// How many seconds after its start a server is ready by `/readyz`, judged by what is promised.
async fn ready_again(row: &mut Row, server: &Server, what: &str) -> f64 {
    let after = server.ready_after().await;
    let in_time = after.is_some_and(|after| after <= READY_WITHIN);
    row.expect(in_time, format!("{what}: not ready within {READY_WITHIN:?}: {after:.1?}"));
    let seconds = after.unwrap_or(PATIENCE).as_secs_f64();
    row.recovery_s = row.recovery_s.max(seconds);
    seconds
}

/// Events of a request, and senders, of [`soak`].
const SOAK: (u64, usize) = (50, 4);
/// How long capacity is measured, and how long a load of 80 % of it follows. Machines that share their processors with others change
/// their speed from one minute to another (a loop that adds to random places of 16 MB: 130 to 200 million a second within seven
/// minutes), so that what was measured once is soon another share of what there is.
const SECTION: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(240));
/// The share of the first third's capacity that the last third must have: what a server gains by being empty is not much.
const STAYS: f64 = 2.0 / 3.0;
/// What memory keeps of an item to be recognised for a week, bytes (`record::store::items`, which has a bound).
const REMEMBERED_BYTES: f64 = 2.0;

/// F28: a load of 80 % of what the machine takes, measured again every five minutes, held for so long. Memory and files stay where they
/// are, detection and lake keep up, capacity stays above a share of what it was, and after a kill at the end it is ready as soon as ever.
pub(crate) async fn soak(seed: u64, length: Duration) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F28", &format!("80 % of capacity for {} s", length.as_secs()), seed) };
    // An hour of events is more than this process could hold, and one in 25 found would be a finding every few milliseconds.
    let mut world = World::new().padded_finding_one_in(500, 2_500).with_receiver(Manner::Takes).await;
    world.extra = "seal_every: 5s\nlog: {segment_bytes: 1048576, keep_bytes: 8388608, retire_every: 5s}\n".to_owned();
    let server: Server = world.server();
    let began = Instant::now();
    let (mut samples, mut lags, mut sections) = (Vec::new(), Vec::new(), Vec::new());
    let over = AtomicBool::new(false);
    let load = async {
        while began.elapsed() < length {
            let capacity = capacity(&world, &server, SECTION.0.min(length / 5)).await;
            let asked = capacity * 0.8;
            sections.push((capacity, asked, held(&world, &server, asked, SECTION.1.min(length * 4 / 5)).await));
        }
        over.store(true, Ordering::SeqCst);
    };
    let watch = async {
        while !over.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            samples.push(server.usage());
            let durable = server.number("durable").await;
            let behind = |position: u64| durable.saturating_sub(position);
            lags.push((behind(server.number("detected").await), behind(server.number("archived").await)));
        }
    };
    tokio::join!(load, watch);
    let mean = |of: fn(&(f64, f64, f64)) -> f64, part: &[(f64, f64, f64)]| {
        part.iter().map(of).sum::<f64>() / part.len() as f64
    };
    let (capacity, asked, held) = (
        mean(|section| section.0, &sections),
        mean(|section| section.1, &sections),
        mean(|section| section.2, &sections),
    );
    // Those this run may use: others may be taken by other runs.
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    row.say(format!(
        "capacity {capacity:.0} events/s on {processors} processors (measured {} times: {}), {asked:.0} asked for, {held:.0} held ({:.0} %)",
        sections.len(),
        sections.iter().map(|section| format!("{:.1}", section.0 / 1e3)).collect::<Vec<_>>().join(", ") + " thousand",
        held / capacity * 100.0
    ));
    row.expect(held >= asked * 0.95, "the rate was not held");
    let part = sections.len().div_ceil(3);
    let (first, last) =
        (mean(|section| section.0, &sections[..part]), mean(|section| section.0, &sections[sections.len() - part..]));
    row.expect(last >= first * STAYS, format!("capacity fell from {first:.0} events/s to {last:.0}"));
    // The first third fills caches; the last is held against the one between. Files are open for moments when small ones
    // are put together: what stays open is what there is at the quietest moment.
    let third = samples.len() / 3;
    let (middle, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let memory = |part: &[(u64, usize)]| {
        let mut sorted: Vec<u64> = part.iter().map(|(bytes, _)| *bytes).collect();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    let files = |part: &[(u64, usize)]| {
        let all = part.iter().map(|(_, files)| *files);
        (all.clone().min().unwrap_or(0), all.max().unwrap_or(0))
    };
    let grows = slope(&samples[third..]);
    row.say(format!(
        "memory {} → {} MB (medians of the second and the last third; most {}), {:+.2} MB a minute over both, of which {:.2} are filters \
         of items seen, files {:?} → {:?} (least, most)",
        memory(middle) >> 20,
        memory(last) >> 20,
        samples.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0) >> 20,
        grows * 60.0 / 1e6,
        held * 60.0 * REMEMBERED_BYTES / 1e6,
        files(middle),
        files(last)
    ));
    row.expect(
        memory(last) < memory(middle) + memory(middle) / 10,
        "memory grew by a tenth from one third to the next",
    );
    row.expect(files(last).0 < files(middle).0 + 8, "more files stay open");
    // A table's log is read by as many commits at once as came since its last checkpoint, a hundred at most; not in every third.
    row.expect(files(last).1 < files(middle).1.max(128) + 64, "more files are open at once");
    let lag = |of: fn(&(u64, u64)) -> u64| lags[third..].iter().map(of).max().unwrap_or(0);
    let (detection, lake) = (lag(|(detected, _)| *detected), lag(|(_, archived)| *archived));
    // What comes in within so many seconds: an append of the lake follows within one, and takes its time.
    let is_within = |records: u64, seconds: f64| (records as f64) < asked * seconds;
    row.expect(is_within(detection, 5.0), format!("detection was {detection} records behind"));
    row.expect(is_within(lake, 15.0), format!("the lake was {lake} records behind"));
    row.say(format!("detection at most {detection} records behind, the lake {lake}"));
    row.say("events are compared by their number and sums over their numbers");
    // What it counted of itself goes with it.
    let violations = server.violations().await;
    row.expect(violations.is_empty(), format!("the server counted {violations:?}"));
    server.kill();
    let server = match world.start() {
        Ok(server) => server,
        Err(refused) => {
            row.fail(format!("it does not start again: {refused:?}"));
            return row;
        }
    };
    let after = ready_again(&mut row, &server, "after the load").await;
    row.note_all(format!("killed when the load was over, ready again after {after:.2} s"));
    world.account_in_sums(&mut row, &server).await;
    row
}

/// Events a second that are taken from senders who never wait, while detection and lake run beside them.
async fn capacity(world: &World, server: &Server, measured: Duration) -> f64 {
    let (before, began, stop) = (world.generator.acknowledged_count(), Instant::now(), AtomicBool::new(false));
    let end = async {
        tokio::time::sleep(measured).await;
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(world.generator.load(server, SOAK.1, SOAK.0, &stop), end);
    (world.generator.acknowledged_count() - before) as f64 / began.elapsed().as_secs_f64()
}

/// Events a second that are taken when so many are offered.
async fn held(world: &World, server: &Server, asked: f64, length: Duration) -> f64 {
    let (before, began, sent) = (world.generator.acknowledged_count(), Instant::now(), AtomicU64::new(0));
    let one = || async {
        while began.elapsed() < length {
            // Each batch has its time: who is late sends at once, until the rate is what is asked for again.
            let number = sent.fetch_add(1, Ordering::SeqCst);
            let due = Duration::from_secs_f64((number * SOAK.0) as f64 / asked);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            world.generator.send(server, SOAK.0).await;
        }
    };
    futures::future::join_all((0..SOAK.1).map(|_| one())).await;
    (world.generator.acknowledged_count() - before) as f64 / began.elapsed().as_secs_f64()
}

/// By how many bytes memory grows each second: the line through the samples.
fn slope(samples: &[(u64, usize)]) -> f64 {
    let count = samples.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = samples.iter().map(|(bytes, _)| *bytes as f64).sum::<f64>() / count;
    let deviations = samples.iter().enumerate().map(|(at, (bytes, _))| (at as f64 - middle, *bytes as f64 - mean));
    let (over, under) = deviations.fold((0.0, 0.0), |(over, under), (x, y)| (over + x * y, under + x * x));
    over / under
}
