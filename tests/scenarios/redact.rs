//! A secret that no detector knows slipped through, and is dropped: it is found nowhere in the data folder any more, and every proof of
//! everything else holds.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use pipeproof_engine::failpoint::Failpoint;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions as _, Row as _, TypeInfo as _, ValueRef as _};

use crate::harness::{
    Server, Setup, copy_folder, eventually, expect_exit, files, items, json_out, now, program, run, stderr, stdout,
    token_of,
};

/// Words that are no secret to any detector.
const CANARY: &str = "quiet-lantern-over-halibut-bay";
/// Another, in what cannot be decoded.
const BROKEN: &str = "gentle-walrus-under-copper-moon";
/// A third, in what opens a row of a table.
const STARTED: &str = "slow-heron-beside-marble-pier";
/// What stays.
const HARMLESS: &str = "plain-oat-porridge-with-honey";

/// Rules of every kind that remembers something of the event: titles, entities, keys, values, rows, what is still missing.
const RULES: &str = "
title: A job of the leaky repository ended
id: 7e0cfa53-3c31-49b5-9f1b-0a1c1c9b7a01
name: leaky_job
status: test
state: active
taxonomy: cicd
logsource: {product: cicd, category: job}
detection:
    s: {action: job.finished, ci.repo: acme/leaky}
    condition: s
level: high
alert:
    title: '{actor.id} ended a job on {ci.ref}'
    entity: ['identity:actor.id']
    dedup: [actor.id]
    quiet: 1s
---
title: Job of the leaky repository
id: 7e0cfa53-3c31-49b5-9f1b-0a1c1c9b7a05
name: any_job
status: test
state: active
taxonomy: cicd
logsource: {product: cicd, category: job}
detection:
    s: {action: job.finished, ci.repo: acme/leaky}
    condition: s
level: low
---
title: Five jobs of one identity
id: 7e0cfa53-3c31-49b5-9f1b-0a1c1c9b7a02
name: five_jobs
status: test
state: active
taxonomy: cicd
correlation:
    type: event_count
    rules: [any_job]
    group-by: [actor.id]
    timespan: 7d
    condition: {gte: 5}
level: high
---
title: An identity that is new to the repository
id: 7e0cfa53-3c31-49b5-9f1b-0a1c1c9b7a03
name: new_identity
status: test
state: active
taxonomy: cicd
correlation:
    type: value_new
    rules: [any_job]
    group-by: [ci.ref]
    timespan: 90d
    learn: {events: 50}
    condition: {field: actor.id}
level: high
---
title: A burst of jobs
id: 7e0cfa53-3c31-49b5-9f1b-0a1c1c9b7a04
name: job_burst
status: test
state: active
taxonomy: cicd
correlation:
    type: value_spike
    rules: [any_job]
    group-by: [actor.id]
    timespan: 10m
    baseline: 90d
    learn: {buckets: 5}
    condition: {gte: 8, floor: 10}
level: high
";

fn rules(folder: &Path) -> std::path::PathBuf {
    let rules = folder.join("rules");
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::write(rules.join("leaky.yml"), RULES).unwrap();
    rules
}

/// The job that names its identity by what should not be there.
fn job(identity: &str, run: &str) -> Value {
    json!({
        "action": "job.finished", "category": "job", "ci.repo": "acme/leaky", "ci.run_id": run, "ci.job_id": "1",
        "ci.ref": format!("refs/heads/{identity}"), "runner.name": identity, "actor.id": identity, "message": identity,
        "time": now().to_string(),
    })
}

fn started(identity: &str, run: &str) -> Value {
    let mut job = job(identity, run);
    job["action"] = "job.started".into();
    job
}

/// Where a text stands in a data folder.
async fn sightings(data: &Path, needle: &str) -> BTreeSet<String> {
    let all = readable(data).await;
    all.into_iter().filter(|(_, bytes)| contains(bytes, needle)).map(|(place, _)| place).collect()
}

/// All that a data folder holds: the bytes of every file, the pages of Parquet files and of packs, and what the store compressed.
pub(crate) async fn readable(data: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for file in files(data) {
        let name = file.strip_prefix(data).unwrap().display().to_string();
        if name.ends_with(".parquet") && !name.contains("_delta_log") {
            all.extend(pages(&file).into_iter().map(|page| (format!("{name}: pages"), page.to_vec())));
        }
        if name.ends_with(".zip") {
            all.extend(zipped(&file).into_iter().map(|bytes| (format!("{name}: zip"), bytes)));
        }
        all.push((format!("{name}: bytes"), std::fs::read(&file).unwrap()));
    }
    let stored = stored(&data.join("store.db")).await;
    all.extend(stored.into_iter().map(|(place, value)| (format!("store.db: {place}"), value)));
    all
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    memchr::memmem::find(bytes, needle.as_bytes()).is_some()
}

/// Every page of a Parquet file, decompressed.
fn pages(path: &Path) -> Vec<Bytes> {
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut pages = Vec::new();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).unwrap();
        for column in 0..group.num_columns() {
            let of_column = group.get_column_page_reader(column).unwrap();
            pages.extend(of_column.map(|page| page.unwrap().buffer().clone()));
        }
    }
    pages
}

fn zipped(path: &Path) -> Vec<Vec<u8>> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut all = Vec::new();
    for index in 0..archive.len() {
        let mut bytes = Vec::new();
        archive.by_index(index).unwrap().read_to_end(&mut bytes).unwrap();
        if bytes.starts_with(b"PAR1") {
            let folder = tempfile::TempDir::new().unwrap();
            let path = folder.path().join("x.parquet");
            std::fs::write(&path, &bytes).unwrap();
            all.extend(pages(&path).iter().map(|page| page.to_vec()));
        }
        all.push(bytes);
    }
    all
}

/// Every value of the store that is compressed, decompressed. The free pages are looked at as bytes.
async fn stored(path: &Path) -> Vec<(String, Vec<u8>)> {
    // A copy, so that looking changes nothing.
    let folder = tempfile::TempDir::new().unwrap();
    for suffix in ["", "-wal"] {
        let from = path.with_file_name(format!("store.db{suffix}"));
        if from.is_file() {
            std::fs::copy(from, folder.path().join(format!("store.db{suffix}"))).unwrap();
        }
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join("store.db"));
    let mut connection = options.connect().await.unwrap();
    let query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let tables: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut connection).await.unwrap();
    let mut all = Vec::new();
    for table in tables {
        let rows =
            sqlx::query(AssertSqlSafe(format!("SELECT * FROM {table}"))).fetch_all(&mut connection).await.unwrap();
        for row in &rows {
            for column in row.columns() {
                let value = row.try_get_raw(column.ordinal()).unwrap();
                if value.is_null() || value.type_info().name() != "BLOB" {
                    continue;
                }
                let bytes: Vec<u8> = row.try_get_unchecked(column.ordinal()).unwrap();
                let bytes = zstd::decode_all(bytes.as_slice()).unwrap_or(bytes);
                all.push((format!("{table}.{}", column.name()), bytes));
            }
        }
    }
    all
}

/// Repeats what it is sent, and refuses it once.
async fn echo() -> String {
    let refused = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let answer = move |body: Bytes| async move {
        let first = !refused.swap(true, std::sync::atomic::Ordering::SeqCst);
        (if first { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }, body)
    };
    let router = axum::Router::new().route("/hook", axum::routing::post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// A folder in which the canary slipped through, in every way; the named records, and where their events' ids stand.
struct Leaked {
    folder: tempfile::TempDir,
    /// Position of the job's record, of its start's, of what could not be decoded.
    records: [u64; 3],
    config: String,
}

impl Leaked {
    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }
}

async fn leaked() -> Leaked {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let url = echo().await;
    let rules = rules(folder.path());
    let config = format!(
        "rules: {{dir: {}}}\ntargets:\n  - name: echo\n    url: {url}\n    secrets: [{{env: ECHO_SECRET}}]\n    allow_private: true\n",
        rules.display()
    );
    let server = setup(&config).on(&data).start();
    let any = token_of(&server.add_source("any", "json", &[]));
    server.send("any", &any, started(HARMLESS, "1").to_string()).await.expect(200);
    server.send("any", &any, job(HARMLESS, "1").to_string()).await.expect(200);
    let start = server.send("any", &any, started(STARTED, "2").to_string()).await.expect(200).json();
    server.settled().await;
    let leak = job(CANARY, "2").to_string();
    let sent = server.send("any", &any, leak.clone()).await.expect(200).json();
    // The sender tries again: the log has it twice.
    server.send("any", &any, leak).await.expect(200);
    let broken = server.send("any", &any, format!("{{\"message\": \"{BROKEN}")).await.expect(200).json();
    for run in 3..6 {
        server.send("any", &any, job(HARMLESS, &run.to_string()).to_string()).await.expect(200);
    }
    server.settled().await;
    eventually("the alert is told", || async {
        let deliveries = items(&server.get("/v1/deliveries").await, "deliveries");
        deliveries
            .iter()
            .all(|delivery| delivery["state"] == "delivered")
            .then_some(deliveries.len())
            .filter(|count| *count > 0)
    })
    .await;
    server.settled().await;
    let first = |reply: &Value| reply["records"]["from"].as_u64();
    let at = |reply: &Value| first(reply).unwrap_or_else(|| panic!("no position in {reply}"));
    let records = [at(&sent), at(&start), at(&broken)];
    server.terminate();
    Leaked { folder, records, config }
}

fn setup(config: &str) -> Setup {
    use base64::Engine as _;
    let secret = base64::engine::general_purpose::STANDARD.encode(b"0123456789abcdefghijklmn");
    Setup::new().config(config).env("ECHO_SECRET", &format!("whsec_{secret}"))
}

fn redact(server: &Server, record: u64) -> Value {
    let event = format!("0-{record}-0");
    server.cli_json(&["redact", &event, "--reason", "a password as a user name", "--approved-by", "Bo"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redacted_secret_is_nowhere_and_every_other_proof_holds() {
    let leaked = leaked().await;
    let data = leaked.data();
    let before = sightings(&data, CANARY).await;
    for place in
        [".segment: bytes", "lake/events", "lake/findings", "lake/deliveries", "store.db: bytes", "store.db: state_"]
    {
        assert!(before.iter().any(|seen| seen.contains(place)), "the search sees no {place}: {before:#?}");
    }
    assert!(!sightings(&data, BROKEN).await.is_empty());
    assert!(!sightings(&data, STARTED).await.is_empty());
    assert!(!sightings(&data, HARMLESS).await.is_empty());

    let server = setup(&leaked.config).on(&data).start();
    let root = server.get("/v1/status").await;
    let [job, start, broken] = leaked.records;
    // A pack from before holds it, and is named.
    let early = build(&server, "2020-01-01");
    let told = redact(&server, job);
    assert_eq!(told["done"], true, "{told}");
    assert_eq!(told["approval"], "two-persons", "{told}");
    assert_eq!(told["records"].as_array().unwrap().len(), 2, "the repetition too: {told}");
    let dropped = &told["dropped"];
    for (what, least) in [
        ("log_records", 2),
        ("lake_rows", 3),
        ("lake_files", 2),
        ("findings", 1),
        ("incidents", 1),
        ("messages", 1),
        ("deliveries", 1),
    ] {
        assert!(dropped[what].as_u64() >= Some(least), "{what}: {told}");
    }
    assert_eq!(told["out_of_reach"]["targets"], json!(["echo"]), "{told}");
    assert!(
        told["out_of_reach"]["packs"].as_array().unwrap().iter().any(|pack| early.contains(pack.as_str().unwrap())),
        "{told}"
    );
    redact(&server, start);
    let told = redact(&server, broken);
    assert_eq!(told["dropped"]["dead_letters"], 1, "{told}");
    // Asked for again, it tells what was done.
    assert_eq!(redact(&server, job)["dropped"]["log_records"], 2);
    assert!(root["durable"].as_u64() < server.get("/v1/status").await["durable"].as_u64());

    // What detection remembers is written out again at every turn: nothing comes back.
    let any = server.token(&["events:write"], &["--source", "any"]);
    server.send("any", &any, self::job(HARMLESS, "9").to_string()).await.expect(200);
    server.settled().await;
    let answers = [
        server.get("/v1/findings").await.to_string(),
        server.get("/v1/incidents").await.to_string(),
        server.get("/v1/deadletters").await.to_string(),
        server.get("/v1/deliveries").await.to_string(),
        server.get("/v1/redactions").await.to_string(),
    ];
    for answer in &answers {
        assert!(!answer.contains(CANARY) && !answer.contains(BROKEN), "{answer}");
    }
    let findings = server.findings().await;
    let redacted = findings
        .iter()
        .find(|finding| finding["because"][0].as_str().is_some_and(|why| why.starts_with("redacted at")));
    let redacted = redacted.unwrap_or_else(|| panic!("{findings:#?}"));
    assert_eq!(
        (&redacted["title"], &redacted["rule_title"]),
        (&redacted["rule_title"], &json!("A job of the leaky repository ended"))
    );

    let rows = server
        .sql("SELECT body IS NULL, action, redacted, leaf_hash IS NOT NULL FROM events WHERE redacted IS NOT NULL")
        .await;
    assert_eq!(rows.len(), 3, "{rows:?}");
    for row in &rows {
        assert_eq!((&row[0], &row[1], &row[3]), (&json!(true), &Value::Null, &json!(true)));
        assert!(row[2].as_str().unwrap().starts_with("redacted at "), "{row:?}");
    }

    let checked = server.cli(&["doctor", "--verify", "--format", "json"]);
    expect_exit(&checked, 0);
    assert!(stdout(&checked).contains("redacted at"), "{}", stdout(&checked));
    let tested = backtest(&server);
    assert!(tested["redacted"].as_u64() >= Some(1), "{tested}");
    assert_eq!(tested["removed"], 0, "{tested}");

    // The pack of today proves the others, and of this one its hash.
    let zip = build(&server, "2020-02-01");
    let key = leaked.folder.path().join("anchor.pem");
    expect_exit(&server.cli(&["evidence", "anchor", "--out", &key.display().to_string()]), 0);
    for pack in [&early, &zip] {
        let verified = run(["evidence", "verify", pack, "--key", &key.display().to_string(), "--reperform"]);
        expect_exit(&verified, 0);
        let says = (stdout(&verified) + &stderr(&verified)).contains("were redacted");
        assert_eq!(says, pack == &zip, "{}", stdout(&verified));
    }
    assert!(!zipped(Path::new(&zip)).iter().any(|bytes| contains(bytes, CANARY) || contains(bytes, BROKEN)));
    assert!(zipped(Path::new(&zip)).iter().any(|bytes| contains(bytes, HARMLESS)));
    assert!(zipped(Path::new(&early)).iter().any(|bytes| contains(bytes, CANARY)), "a sealed pack stays as it is");

    let (_, log) = server.terminate();
    assert!(!log.iter().any(|line| line.contains(CANARY)), "{log:#?}");
    // The pack that was named is the deployer's to remove.
    std::fs::remove_dir_all(data.join("packs")).unwrap();
    for needle in [CANARY, BROKEN, STARTED] {
        assert_eq!(sightings(&data, needle).await, BTreeSet::new(), "{needle}");
    }
    assert!(!sightings(&data, HARMLESS).await.is_empty());

    // A folder nobody has, and everything is read back.
    let listed = program().args(["redact", "--list", "--format", "json", "--data"]).arg(&data).output().unwrap();
    assert_eq!(json_out(&listed).as_array().unwrap().len(), 3);
    let checked = program().args(["doctor", "--verify", "--data"]).arg(&data).output().unwrap();
    expect_exit(&checked, 0);
    for needle in [CANARY, BROKEN, STARTED] {
        assert_eq!(sightings(&data, needle).await, BTreeSet::new(), "{needle} after further starts");
    }
}

/// Builds a pack and returns where it is.
fn build(server: &Server, from: &str) -> String {
    let zip = server.data().with_file_name(format!("{from}.zip")).display().to_string();
    let to = now().plus(Duration::from_secs(86_400)).date();
    let built =
        server.cli_json(&["evidence", "build", "--framework", "soc2", "--from", from, "--to", &to, "--out", &zip]);
    let name = built["pack"].as_str().unwrap_or_else(|| panic!("{built}"));
    let named = server.data().with_file_name(format!("{name}.zip")).display().to_string();
    std::fs::rename(&zip, &named).unwrap();
    named
}

fn backtest(server: &Server) -> Value {
    let to = now().plus(Duration::from_secs(86_400)).to_string();
    let output = server.cli(&["backtest", "--from", "2020-01-01T00:00:00Z", "--to", &to, "--format", "jsonl"]);
    let text = stdout(&output);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let summary = lines
        .filter_map(|line| line.get("summary").cloned().or_else(|| line.get("identical").map(|_| line.clone())))
        .next_back();
    summary.unwrap_or_else(|| panic!("no summary in {text}\n{}", stderr(&output)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_a_redaction_has_not_begun_or_is_done_at_the_next_start() {
    let leaked = leaked().await;
    let points = Failpoint::ALL.iter().filter(|point| point.name().starts_with("redact."));
    let mut count = 0;
    for point in points {
        count += 1;
        let folder = leaked.folder.path().join(point.name());
        copy_folder(&leaked.data(), &folder);
        let server = setup(&leaked.config).on(&folder).env("PIPEPROOF_FAILPOINT", point.name()).start();
        let event = format!("0-{}-0", leaked.records[0]);
        let asked = server.cli(&["redact", &event, "--reason", "test"]);
        expect_exit(&asked, 4);
        drop(server);
        let server = setup(&leaked.config).on(&folder).start();
        eventually("the redaction is done", || async {
            let listed = items(&server.get("/v1/redactions").await, "redactions");
            listed.first().is_some_and(|first| first["done"] == true).then_some(())
        })
        .await;
        server.settled().await;
        server.terminate();
        assert_eq!(sightings(&folder, CANARY).await, BTreeSet::new(), "{}", point.name());
        std::fs::remove_dir_all(&folder).unwrap();
    }
    assert_eq!(count, 8);
}

#[tokio::test]
async fn what_cannot_be_redacted_is_refused() {
    let server = Server::start();
    let any = token_of(&server.add_source("any", "json", &[]));
    server.send("any", &any, json!({"message": HARMLESS}).to_string()).await.expect(200);
    server.settled().await;
    for (event, status) in [("0-999999-0", 404), ("1-0-0", 400), ("x", 400), ("0-0-0", 400)] {
        let path = format!("/v1/records/{event}/redact");
        let reply = server.api(Method::POST, &path, Some(json!({"reason": "test"}))).await;
        assert_eq!(reply.status.as_u16(), status, "{event}: {}", reply.text());
        reply.error_code();
    }
    for body in
        [json!({}), json!({"reason": " "}), json!({"reason": "x".repeat(5_000)}), json!({"reason": "x", "why": 1})]
    {
        let reply = server.api(Method::POST, "/v1/records/0-1-0/redact", Some(body)).await;
        reply.expect(400);
    }
    // Its scope is its own.
    let reader = server.token(&["sources:write", "evidence:write", "incidents:write"], &[]);
    let reply = server.api_as(&reader, Method::POST, "/v1/records/0-1-0/redact", Some(json!({"reason": "x"}))).await;
    reply.expect(403);
    assert!(items(&server.get("/v1/redactions").await, "redactions").is_empty());
}
