//! Bytes on disk against the compressed input, part by part, over events of the size and variety of real audit trails.
//!
//! The yardstick is zstd level 3 over the bodies that were sent, source by source, in frames of 8 MB.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use pipeproof_record::lake::{Snapshot, Table};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};

use crate::damage::verified;
use crate::made_up::stream;
use crate::process::{PATIENCE, Server, wait};
use crate::row::{Holds, Row};
use crate::upkeep::size;
use crate::world::World;

/// Bytes that the yardstick compresses at once.
const FRAME: usize = 8 << 20;
/// Events of a request.
const BATCH: usize = 2_000;
/// What is promised.
const MOST: f64 = 1.5;
/// The sources: name of the trail, name and type of the source.
const SOURCES: &[(&str, &str)] =
    &[("cloudtrail", "aws.cloudtrail"), ("kubernetes", "kubernetes.audit"), ("github", "github.audit")];
const RULE: &str = "title: A trail was stopped
id: 0b7d7c2e-0000-4000-8000-0000000000f6
name: trail_stopped
taxonomy: cicd
logsource: {product: cicd, category: audit}
detection: {off: {action: audit_log.disabled}, condition: off}
level: high
requires: [aws.cloudtrail]
alert: {title: 'trail stopped by {actor.id}', entity: ['account:cloud.account']}
";
const DAY: i64 = 86_400;

/// What was sent, compressed by the yardstick.
#[derive(Default)]
struct Yardstick {
    raw: u64,
    compressed: u64,
    open: BTreeMap<&'static str, Vec<u8>>,
}

impl Yardstick {
    fn add(&mut self, source: &'static str, body: &[u8]) {
        self.raw += body.len() as u64;
        let open = self.open.entry(source).or_default();
        open.extend_from_slice(body);
        while open.len() >= FRAME {
            let rest = open.split_off(FRAME);
            self.compressed += zstd::encode_all(std::mem::replace(open, rest).as_slice(), 3).unwrap().len() as u64;
        }
    }

    fn end(mut self) -> (u64, u64) {
        for open in std::mem::take(&mut self.open).into_values() {
            self.compressed += zstd::encode_all(open.as_slice(), 3).unwrap().len() as u64;
        }
        (self.raw, self.compressed)
    }
}

/// Until nothing of the lake has gone for a while: it goes table by table, and a busy machine takes its time.
async fn steady(world: &World) {
    let mut left = u64::MAX;
    while size(&world.data.join("lake")) < left {
        left = size(&world.data.join("lake"));
        tokio::time::sleep(Duration::from_secs(15)).await;
    }
}

/// The log is retired behind its readers, the lake is merged, and a day later old versions of it are gone.
pub(crate) async fn on_disk(seed: u64, megabytes: u64, judged: bool) -> Row {
    let mut row = Row {
        runs: 1,
        ..Row::new("-", "bytes on disk against the compressed input, nine idle days after the log was retired", seed)
    };
    let mut world = World::new();
    world.sources = SOURCES.iter().map(|(name, kind)| format!("  - {{name: {name}, type: {kind}}}\n")).collect();
    world.extra = "seal_every: 1s\nlog: {segment_bytes: 8388608, keep_bytes: 0, retire_every: 1s}\n".to_owned();
    world.archive_every = "5s";
    // Made-up events come from anywhere, which rules about networks find in a third of them, and the generator's own rules find every
    // use of a key. This one finds what is made up to be found: about one event in 700.
    for rule in crate::damage::files(&world.folder().join("rules")) {
        std::fs::remove_file(rule).unwrap();
    }
    std::fs::write(world.folder().join("rules/trail_stopped.yml"), RULE).unwrap();
    let server = world.server();
    let mut yardstick = Yardstick::default();
    let mut events = stream(seed);
    let mut sent = 0;
    while yardstick.raw < megabytes << 20 {
        let mut bodies: BTreeMap<&'static str, Vec<u8>> = BTreeMap::new();
        for (trail, event) in events.by_ref().take(BATCH) {
            let body = bodies.entry(trail).or_default();
            body.extend_from_slice(event.as_bytes());
            body.push(b'\n');
        }
        sent += BATCH as u64;
        let sending = bodies.into_iter().map(|(trail, body)| {
            yardstick.add(trail, &body);
            send(&server, trail, body)
        });
        futures::future::join_all(sending.collect::<Vec<_>>()).await;
    }
    row.sent = sent;
    row.acked = sent;
    row.counted.events = true;
    let settled = wait(PATIENCE * 5, || async {
        server.number("detected").await >= server.number("durable").await.saturating_sub(10)
            && server.number("archived").await >= server.number("durable").await.saturating_sub(200)
    });
    row.expect(settled.await, "it did not settle");
    row.stored = count(&server).await;
    row.lost_acked = sent - row.stored.min(sent);
    row.expect(row.stored == sent, format!("{} of {sent} events are in the lake", row.stored));
    let findings = server.number("findings").await;
    merged(&server, &world).await;
    let retired =
        wait(PATIENCE, || async { server.number("log_first").await + 20_000 >= server.number("durable").await });
    row.expect(retired.await, "the log was not retired");
    row.expect(verified(&server).await.is_ok(), format!("{:?}", verified(&server).await));
    row.expect(server.terminate().await, "no orderly end");
    let at_once = total(&world.data);

    // Two days later nobody has pinned the versions of before. They have to pass for a server that runs: the lake's day is by that.
    let server = world.server();
    server.settled().await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    world.move_clock(2 * DAY);
    let before = size(&world.data.join("lake"));
    wait(Duration::from_secs(120), || async { size(&world.data.join("lake")) < before }).await;
    steady(&world).await;
    let two_days = total(&world.data);
    world.move_clock(9 * DAY);
    tokio::time::sleep(Duration::from_secs(15)).await;
    steady(&world).await;
    row.expect(verified(&server).await.is_ok(), format!("nine days later: {:?}", verified(&server).await));
    row.expect(count(&server).await == sent, "events are missing nine days later");
    row.expect(server.terminate().await, "no orderly end");

    let (raw, compressed) = yardstick.end();
    let disk = total(&world.data);
    let ratio = |bytes: u64| bytes as f64 / compressed as f64;
    row.say(format!(
        "{sent} events, {:.0} MB raw; zstd 3 in frames of 8 MB, source by source: {:.1} MB ({:.0} bytes an event); on disk {:.1} MB ({:.2}) \
         as soon as the log is retired, when the lake still keeps for a day the small files that were merged, {:.1} MB ({:.2}) two idle days \
         later, when the server had removed them, and {:.1} MB ({:.2}) nine days later, when detection remembers none of it any more: \
         this last figure is the one that is judged by {MOST}",
        raw as f64 / 1e6,
        compressed as f64 / 1e6,
        compressed as f64 / sent as f64,
        at_once as f64 / 1e6,
        ratio(at_once),
        two_days as f64 / 1e6,
        ratio(two_days),
        disk as f64 / 1e6,
        ratio(disk)
    ));
    let parts = parts(&world.data).await;
    // What was found is kept beside the events; how much that is depends on the rules.
    let found = ["findings", "outbox", "incidents", "incident_steps", "deliveries"];
    let of_findings: u64 =
        parts.iter().filter(|(part, _)| found.iter().any(|name| part.ends_with(name))).map(|(_, bytes)| bytes).sum();
    row.say(format!(
        "{findings} findings and what follows from them take {:.2} of it, what detection remembers for eight days {:.2}",
        ratio(of_findings),
        ratio(parts.iter().filter(|(part, _)| part.starts_with("store: state")).map(|(_, bytes)| bytes).sum())
    ));
    for (part, bytes) in &parts {
        println!("{part:40} {bytes:>12} bytes {:>8.2} an event {:>7.3}", *bytes as f64 / sent as f64, ratio(*bytes));
    }
    let told: Vec<String> = parts
        .iter()
        .filter(|(_, bytes)| ratio(*bytes) >= 0.01)
        .map(|(part, bytes)| format!("{part} {:.2}", ratio(*bytes)))
        .collect();
    row.note_all(format!("of the compressed input: {}", told.join(", ")));
    if judged && ratio(disk) > MOST {
        row.fail(format!("more than {MOST} of the compressed input"));
    }
    row
}

async fn send(server: &Server, source: &str, body: Vec<u8>) {
    let path = format!("/v1/events/{source}");
    loop {
        match server.ask(Method::POST, &path, body.clone()).await {
            Ok(reply) if reply.status.is_success() => return,
            Ok(reply) if reply.status.as_u16() == 503 => tokio::time::sleep(Duration::from_millis(50)).await,
            other => panic!("{other:?}"),
        }
    }
}

async fn count(server: &Server) -> u64 {
    let query = "SELECT count(DISTINCT \"index\") FROM events WHERE source <> 'pipeproof'";
    server.rows(query).await[0][0].as_u64().unwrap_or(0)
}

/// Waits until no more files are merged.
async fn merged(server: &Server, world: &World) {
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(12)).await;
        let files = crate::damage::files(&world.data.join("lake/events")).len();
        // Ticks make a small file at each pass; only a merge of a large one takes longer than that.
        if files.abs_diff(before) < 8 || server.violations().await.len() > 1 {
            return;
        }
        before = files;
    }
}

/// Log, lake, store and seal tree.
fn total(data: &Path) -> u64 {
    ["log", "lake", "seal", "store.db", "store.db-wal"].iter().map(|part| size(&data.join(part))).sum()
}

/// Where the bytes are, the most first.
async fn parts(data: &Path) -> Vec<(String, u64)> {
    let mut parts: BTreeMap<String, u64> = BTreeMap::new();
    for file in crate::damage::files(&data.join("log")) {
        let kind =
            if file.extension().is_some_and(|it| it == "segment") { "log: last segments" } else { "log: leaf hashes" };
        *parts.entry(kind.to_owned()).or_default() += size(&file);
    }
    parts.insert("seal tree".to_owned(), size(&data.join("seal")));
    let snapshot = Snapshot::read_only(&data.join("lake")).await.unwrap();
    let mut of_files = 0;
    for table in Table::ALL {
        for path in snapshot.files(*table) {
            of_files += size(path);
            if *table == Table::Events {
                columns(path, &mut parts);
            } else {
                *parts.entry(format!("lake: {}", table.name())).or_default() += size(path);
            }
        }
    }
    let logs: u64 = Table::ALL
        .iter()
        .map(|table| {
            let folder = data.join("lake").join(table.name());
            size(&folder.join("_delta_log")) + size(&folder.join("_commits"))
        })
        .sum();
    parts.insert("lake: commits".to_owned(), logs);
    parts.insert("lake: files of old versions".to_owned(), size(&data.join("lake")) - logs - of_files);
    store(&data.join("store.db"), &mut parts).await;
    let mut parts: Vec<_> = parts.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    parts
}

/// The columns of a file of events.
fn columns(path: &Path, parts: &mut BTreeMap<String, u64>) {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let own = path.parent().is_some_and(|folder| folder.ends_with("pipeproof"));
    let mut all = 0;
    let mut add = |part: String, bytes: i64| {
        let bytes = u64::try_from(bytes).unwrap();
        all += bytes;
        *parts.entry(if own { "lake: events: our own records".to_owned() } else { part }).or_default() += bytes;
    };
    for group in reader.metadata().row_groups() {
        for column in group.columns() {
            let name = column.column_path().string();
            add(format!("lake: events: {name}"), column.compressed_size());
            add("lake: events: Bloom filters".to_owned(), column.bloom_filter_length().map_or(0, i64::from));
        }
    }
    let rest = size(path) - all;
    *parts.entry("lake: events: footers".to_owned()).or_default() += rest;
}

/// The tables of the store, with their indexes.
async fn store(path: &Path, parts: &mut BTreeMap<String, u64>) {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = options.connect().await.unwrap();
    let query = "SELECT coalesce(s.tbl_name, d.name), sum(d.pgsize) FROM dbstat d LEFT JOIN sqlite_schema s ON s.name = d.name GROUP BY 1";
    let mut used = 0;
    for row in sqlx::query(query).fetch_all(&mut connection).await.unwrap() {
        let (name, bytes): (String, i64) = (row.get(0), row.get(1));
        let bytes = u64::try_from(bytes).unwrap();
        used += bytes;
        *parts.entry(format!("store: {name}")).or_default() += bytes;
    }
    parts.insert("store: free pages".to_owned(), size(path) - used);
}

const SAMPLES: &str = "bytes on disk of real samples, once the log is retired";

/// Without a folder of samples.
pub(crate) fn no_samples() -> Row {
    Row::left_out("-", SAMPLES, "needs a folder of samples, which `PIPEPROOF_SAMPLES_DIR` names")
}

/// What the events of a real trail come to: the same measure over files of samples, which are few.
pub(crate) async fn samples(seed: u64, folder: &Path) -> Row {
    let mut row = Row { runs: 1, ..Row::new("-", SAMPLES, seed) };
    row.holds = Holds::NotJudged;
    let mut world = World::new();
    world.sources = "  - {name: cloudtrail, type: aws.cloudtrail}\n".to_owned();
    world.extra = "seal_every: 1s\nlog: {segment_bytes: 1048576, keep_bytes: 0, retire_every: 1s}\n".to_owned();
    let server = world.server();
    let mut yardstick = Yardstick::default();
    for name in ["invictus-aws.ndjson", "stratus-red-team.ndjson"] {
        let Ok(text) = std::fs::read_to_string(folder.join("aws_cloudtrail").join(name)) else { continue };
        let records: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        for part in records.chunks(500) {
            let lines: Vec<String> = part.iter().map(ToString::to_string).collect();
            yardstick.add("cloudtrail", lines.join("\n").as_bytes());
            send(&server, "cloudtrail", json!({ "Records": part }).to_string().into_bytes()).await;
            row.sent += part.len() as u64;
        }
    }
    row.acked = row.sent;
    row.expect(server.settled().await, "it did not settle");
    row.stored = count(&server).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    row.expect(server.terminate().await, "no orderly end");
    world.move_clock(9 * DAY);
    let server = world.server();
    tokio::time::sleep(Duration::from_secs(3)).await;
    row.expect(server.terminate().await, "no orderly end");
    let (raw, compressed) = yardstick.end();
    let parts = parts(&world.data).await;
    let per_event = |names: &[&str]| {
        let bytes: u64 = parts
            .iter()
            .filter(|(part, _)| names.iter().any(|name| part.starts_with(name)))
            .map(|(_, bytes)| bytes)
            .sum();
        bytes as f64 / compressed as f64
    };
    for (part, bytes) in &parts {
        println!("{part:40} {bytes:>12} bytes {:>7.3}", *bytes as f64 / compressed as f64);
    }
    row.note_all(format!(
        "{} events, {raw} bytes raw, {compressed} compressed, so few that fixed sizes count: bodies {:.2} of it, other columns of events \
         {:.2}, leaf hashes {:.2}, store {:.2}",
        row.sent,
        per_event(&["lake: events: body"]),
        per_event(&["lake: events"]) - per_event(&["lake: events: body"]),
        per_event(&["log: leaf"]),
        per_event(&["store"]),
    ));
    row
}
