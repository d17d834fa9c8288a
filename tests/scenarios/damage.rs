//! Damage to the data folder while nobody runs: nothing of it is passed over in silence, and nothing that can be made good is lost.

use std::fs;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    PATIENCE, Server, Setup, copy_folder, eventually, expect_exit, files, now, position, run, stderr, token_of,
};

/// Small files of the log, which go as soon as lake and seal have passed them.
const RETIRES_AT_ONCE: &str = "seal_every: 1s\nlog: {segment_bytes: 1048576, keep_bytes: 0, retire_every: 1s}\n";

/// The segments of the log, oldest first.
fn segments(data: &Path) -> Vec<std::path::PathBuf> {
    let mut found = files(&data.join("log/0"));
    found.retain(|path| path.extension().is_some_and(|ending| ending == "segment"));
    found
}

/// Flips a bit in the first place where a text stands in the log.
fn damage(data: &Path, text: &str) {
    for path in segments(data) {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
            bytes[at] ^= 1;
            return fs::write(&path, bytes).unwrap();
        }
    }
    panic!("`{text}` is nowhere in the log");
}

async fn metric(server: &Server, name: &str) -> String {
    let text = server.api(Method::GET, "/metrics", None).await.text();
    text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
}

async fn evaluated(server: &Server) {
    let durable = position(&server.get("/v1/status").await, "durable");
    eventually("detection reaches what was durable", || async {
        (position(&server.get("/v1/status").await, "detected") >= durable).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_record_that_only_the_log_had_is_a_gap_and_its_repetition_stands_for_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let config = folder.path().join("slow.yaml");
    fs::write(&config, "version: 1\narchive_every: 1h\n").unwrap();
    let server = Setup::new().without_config().args(&["--config", &config.display().to_string()]).on(&data).start();
    let token = token_of(&server.add_source("any", "json", &[]));
    for name in ["kept-one", "lost-one", "sent-again", "kept-two", "sent-again", "sent-again"] {
        server.send("any", &token, json!({ "action": "test.done", "message": name }).to_string()).await.expect(200);
    }
    evaluated(&server).await;
    server.kill();
    damage(&data, "lost-one");
    damage(&data, "sent-again");

    for start in 0..2 {
        let server = Setup::new().on(&data).start();
        server.api(Method::GET, "/readyz", None).await.expect(200);
        server.settled().await;
        let counted = metric(&server, "pipeproof_log_damaged_total{log=\"log\",what=\"records\"}").await;
        assert!(counted.ends_with(" 2"), "{counted}");
        let rows = server.sql("SELECT message, count(*) FROM events WHERE source = 'any' GROUP BY 1 ORDER BY 1").await;
        assert_eq!(json!(rows), json!([["kept-one", 1], ["kept-two", 1], ["sent-again", 1]]), "start {start}");
        let records = server.count("SELECT count(*) FROM events WHERE action = 'pipeproof.records-damaged'").await;
        assert_eq!(records, 1, "it is on record once");
        let found = server.sql("SELECT title FROM findings WHERE title LIKE 'Records of%'").await;
        assert_eq!(json!(found), json!([["Records of the log are damaged on disk"]]));
        eventually("the window of the source says that it has a gap", || async {
            let windows = server.sql("SELECT status FROM source_window WHERE source_id = 'any'").await;
            windows.iter().any(|row| row[0] == json!("gap")).then_some(())
        })
        .await;
        let doctor = server.api(Method::POST, "/v1/doctor", Some(json!({}))).await.text();
        assert!(doctor.contains("is lost as data: a gap") && doctor.contains("the record is damaged"), "{doctor}");
        assert!(!doctor.contains("is known to repeat another") && !doctor.contains("which is not there"), "{doctor}");
        if start == 1 {
            let zip = folder.path().join("pack.zip").display().to_string();
            let (from, to) = (now().minus(PATIENCE * 60).date(), now().plus(PATIENCE * 60 * 24).date());
            let build = ["evidence", "build", "--framework", "soc2", "--from", &from, "--to", &to, "--out", &zip];
            expect_exit(&server.cli(&build), 0);
            let mut pack = zip::ZipArchive::new(fs::File::open(&zip).unwrap()).unwrap();
            let texts: Vec<String> =
                (0..pack.len()).filter_map(|at| std::io::read_to_string(pack.by_index(at).unwrap()).ok()).collect();
            for said in ["damaged on disk and held nowhere else", "records of the log are lost: "] {
                assert!(texts.iter().any(|text| text.contains(said)), "the pack does not say `{said}`");
            }
        }
        assert!(server.terminate().0.success());
    }
}

#[tokio::test]
async fn a_damaged_record_that_the_lake_has_is_named_and_no_gap() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().on(&data).start();
    let token = token_of(&server.add_source("any", "json", &[]));
    server.send("any", &token, json!({ "action": "test.done", "message": "held-twice" }).to_string()).await.expect(200);
    server.settled().await;
    assert!(server.terminate().0.success());
    damage(&data, "held-twice");
    let server = Setup::new().on(&data).start();
    server.settled().await;
    assert_eq!(server.count("SELECT count(*) FROM events WHERE message = 'held-twice'").await, 1);
    let said = server.sql("SELECT message FROM events WHERE action = 'pipeproof.records-damaged'").await;
    assert!(said[0][0].as_str().unwrap().contains("the lake has all of them"), "{said:?}");
    assert_eq!(server.count("SELECT count(*) FROM source_window WHERE source_id = 'any' AND status = 'gap'").await, 0);
    let doctor = server.api(Method::POST, "/v1/doctor", Some(json!({}))).await.text();
    assert!(doctor.contains("the record is damaged") && !doctor.contains("is lost as data"), "{doctor}");
}

#[tokio::test]
async fn an_older_seal_tree_and_none_at_all_are_refused_and_named() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().on(&data).start();
    server.settled().await;
    assert!(server.terminate().0.success());
    let old = folder.path().join("old-seal");
    copy_folder(&data.join("seal"), &old);
    // A stop seals a checkpoint of its own.
    assert!(Setup::new().on(&data).start().terminate().0.success());
    let new = folder.path().join("new-seal");
    fs::rename(data.join("seal"), &new).unwrap();

    for older in [Some(&old), None] {
        if let Some(older) = older {
            copy_folder(older, &data.join("seal"));
        }
        let refused = crate::crash::serve_once(&data);
        let said = stderr(&refused);
        assert_eq!(refused.status.code(), Some(4), "{said}");
        assert!(said.contains("continue the seal tree") && said.contains("restore the newest backup"), "{said}");
        drop(fs::remove_dir_all(data.join("seal")));
    }
    fs::rename(&new, data.join("seal")).unwrap();
    assert!(Setup::new().on(&data).start().terminate().0.success(), "with its own tree it goes on");
}

#[tokio::test]
async fn leaf_hashes_of_retired_records_are_derived_from_the_lake() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().config(RETIRES_AT_ONCE).on(&data).start();
    let token = token_of(&server.add_source("any", "json", &[]));
    let padding = "x".repeat(200_000);
    for number in 0..16 {
        server.send("any", &token, json!({ "n": number, "padding": padding }).to_string()).await.expect(200);
    }
    server.settled().await;
    let first = eventually("records are retired", || async {
        let first = position(&server.get("/v1/status").await, "log_first");
        (first > 4).then_some(first)
    })
    .await;
    assert!(server.terminate().0.success());
    let path = data.join("log/0/hashes");
    let mut hashes = fs::read(&path).unwrap();
    let at = usize::try_from(first - 3).unwrap() * 36;
    hashes[at..at + 2 * 36].fill(0xAA);
    fs::write(&path, hashes).unwrap();

    let server = Setup::new().config(RETIRES_AT_ONCE).on(&data).start();
    let counted = metric(&server, "pipeproof_log_damaged_total{log=\"log\",what=\"hashes\"}").await;
    assert!(counted.ends_with(" 2"), "{counted}");
    assert!(server.log().iter().any(|line| line.contains("derived from the lake")), "the log says so");
    server.settled().await;
    let doctor = server.api(Method::POST, "/v1/doctor", Some(json!({}))).await.json();
    assert_eq!(doctor["holds"], json!(true), "{doctor}");
}

/// Years of events must not make a start after a crash longer, when senders already wait.
#[tokio::test]
async fn a_start_reads_nothing_of_the_lake_that_others_sent() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().config(RETIRES_AT_ONCE).on(&data).start();
    let token = token_of(&server.add_source("any", "json", &[]));
    let padding = "x".repeat(200_000);
    for number in 0..16 {
        server.send("any", &token, json!({ "n": number, "padding": padding }).to_string()).await.expect(200);
    }
    server.settled().await;
    eventually("records are retired", || async {
        (position(&server.get("/v1/status").await, "log_first") > 4).then_some(())
    })
    .await;
    server.kill();

    let registry = data.join("registry.json");
    let copy: Value = serde_json::from_slice(&fs::read(&registry).unwrap()).unwrap();
    let first = segments(&data).iter().find_map(|path| path.file_stem()?.to_str()?.parse::<u64>().ok()).unwrap();
    assert!(first > 4, "{first}");
    assert!(position(&copy, "position") >= first, "the copy is behind what was retired: {copy}");
    // Without the copy what we did ourselves is read from the lake, and nothing else.
    fs::remove_file(registry).unwrap();
    let of_others: Vec<_> = files(&data.join("lake/events"))
        .into_iter()
        .filter(|path| path.parent().is_some_and(|source| source.ends_with("any")))
        .collect();
    assert!(!of_others.is_empty());
    for path in of_others {
        fs::write(path, "not a file of the lake").unwrap();
    }
    let server = Setup::new().config(RETIRES_AT_ONCE).on(&data).start();
    server.send("any", &token, json!({ "n": 16 }).to_string()).await.expect(200);
}

#[tokio::test]
async fn leaf_hashes_that_a_start_leaves_unread_are_mended_behind_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().config(RETIRES_AT_ONCE).on(&data).start();
    let token = token_of(&server.add_source("any", "json", &[]));
    let padding = "x".repeat(3_000);
    for batch in 0..6 {
        let lines: Vec<_> = (0..300).map(|n| json!({ "n": batch * 300 + n, "padding": padding }).to_string()).collect();
        server.send("any", &token, lines.join("\n")).await.expect(200);
    }
    server.settled().await;
    eventually("a block of leaf hashes and more is retired", || async {
        (position(&server.get("/v1/status").await, "log_first") > 1_100).then_some(())
    })
    .await;
    assert!(server.terminate().0.success());
    let path = data.join("log/0/hashes");
    let whole = fs::read(&path).unwrap();
    let mut hashes = whole.clone();
    // One bit, which can be told, and entries that only the lake knows.
    hashes[300 * 36] ^= 1;
    hashes[700 * 36..702 * 36].fill(0xAA);
    fs::write(&path, hashes).unwrap();

    let server = Setup::new().config(RETIRES_AT_ONCE).on(&data).start();
    eventually("they are counted", || async {
        let counted = metric(&server, "pipeproof_log_damaged_total{log=\"log\",what=\"hashes\"}").await;
        counted.ends_with(" 3").then_some(())
    })
    .await;
    assert!(server.log().iter().any(|line| line.contains("3 leaf hashes from record 0 on were damaged")), "it says so");
    assert_eq!(fs::read(&path).unwrap()[..1024 * 36], whole[..1024 * 36], "they are as they were");
    server.settled().await;
    let doctor = server.api(Method::POST, "/v1/doctor", Some(json!({}))).await.json();
    assert_eq!(doctor["holds"], json!(true), "{doctor}");
}

#[tokio::test]
async fn a_backup_knows_how_far_files_were_read() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("app.log");
    let line = |number: u32| format!("{}\n", json!({ "action": "test.done", "message": format!("line {number}") }));
    let config = format!("sources:\n  - {{name: app, type: json, reads: {{files: ['{}']}}}}\n", file.display());
    fs::write(&file, line(1)).unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().config(&config).on(&data).start();
    let lines = "SELECT count(*) FROM events WHERE source = 'app' AND action = 'test.done'";
    eventually("the first line is read", || async { (server.count(lines).await == 1).then_some(()) }).await;
    let backup = folder.path().join("backup");
    eventually("how far it was read is kept", || async { (!files(&data.join("followed")).is_empty()).then_some(()) })
        .await;
    server.api(Method::POST, "/v1/backup", Some(json!({ "to": backup }))).await.expect(200);
    assert!(server.terminate().0.success());

    // Two more lines come, and the file is rotated before anybody reads them.
    fs::write(&file, [line(1), line(2)].concat()).unwrap();
    fs::rename(&file, folder.path().join("app.log.1")).unwrap();
    fs::write(&file, line(3)).unwrap();
    let restored = folder.path().join("restored");
    let (from, to) = (backup.display().to_string(), restored.display().to_string());
    expect_exit(&run(["restore", &from, "--data", &to]), 0);
    let server = Setup::new().config(&config).on(&restored).start();
    eventually("all three lines are there", || async { (server.count(lines).await == 3).then_some(()) }).await;
}
