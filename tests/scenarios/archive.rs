//! The lake: what SQL sees, and what other programs see in the same files.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{
    Server, Setup, eventually, expect_exit, fixture, left_out, ndjson_fixture, position, python_with, stderr, stdout,
    token_of,
};

async fn filled() -> Server {
    let server = Server::start();
    let aws = token_of(&server.add_source("aws", "aws.cloudtrail", &[]));
    let records = ndjson_fixture("aws_cloudtrail/stratus-red-team.ndjson");
    server.send("aws", &aws, json!({ "Records": records }).to_string()).await.expect(200);
    let secret = server.add_github("hooks");
    let body = fixture("github_webhook/branch_protection_rule/branch_protection_rule_deleted.json");
    server.send_github("hooks", &secret, "branch_protection_rule", "d-1", &body).await.expect(200);
    server.settled().await;
    server
}

#[tokio::test]
async fn sql_answers_on_the_command_line_in_every_format() {
    let server = filled().await;
    let query = "SELECT source, count(DISTINCT item) AS items FROM events WHERE source IN ('aws', 'hooks') GROUP BY source ORDER BY source";
    let json = server.cli(&["sql", query, "--format", "json"]);
    expect_exit(&json, 0);
    let rows: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(rows.to_string().contains("150"), "{rows}");
    let lines = server.cli(&["sql", query, "--format", "jsonl"]);
    expect_exit(&lines, 0);
    let lines: Vec<Value> = stdout(&lines).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [json!({"source": "aws", "items": 150}), json!({"source": "hooks", "items": 1})]);
    let csv = server.cli(&["sql", query, "--format", "csv"]);
    expect_exit(&csv, 0);
    assert_eq!(stdout(&csv).replace('\r', ""), "source,items\naws,150\nhooks,1\n");
    expect_exit(&server.cli(&["sql", query, "--format", "human"]), 0);

    let wrong = server.cli(&["sql", "SELECT nothing FROM events"]);
    assert!([2, 4].contains(&wrong.status.code().unwrap()), "{}", stderr(&wrong));
    assert!(stderr(&wrong).contains("nothing"), "{}", stderr(&wrong));
    for write in ["DELETE FROM events", "DROP TABLE events", "CREATE TABLE x AS SELECT 1"] {
        assert_ne!(server.cli(&["sql", write]).status.code(), Some(0), "{write}");
    }
}

#[tokio::test]
async fn sql_works_on_the_folder_of_a_server_that_has_stopped() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = crate::harness::Setup::new().on(&data).start();
    let token = token_of(&server.add_source("any", "json", &[]));
    server.send("any", &token, r#"[{"a":1},{"a":2}]"#).await.expect(200);
    server.settled().await;
    let (status, _) = server.terminate();
    assert!(status.success());
    let output = crate::harness::run([
        "sql",
        "SELECT count(*) AS n FROM events WHERE source = 'any'",
        "--format",
        "csv",
        "--data",
        &data.display().to_string(),
    ]);
    expect_exit(&output, 0);
    assert_eq!(stdout(&output).replace('\r', ""), "n\n2\n");
}

#[tokio::test]
async fn an_answer_is_limited_in_rows_and_time() {
    let server = filled().await;
    let huge = "SELECT count(*) FROM events a, events b, events c, events d, events e, events f";
    let reply = server.api(reqwest::Method::POST, "/v1/sql", Some(json!({ "query": huge }))).await;
    assert!([400, 408, 413, 422, 503, 504].contains(&reply.status.as_u16()), "{} {}", reply.status, reply.text());
    assert_eq!(server.count("SELECT count(*) FROM events WHERE source = 'hooks'").await, 1, "and it goes on");
}

#[tokio::test]
async fn duckdb_opens_the_same_tables() {
    let server = filled().await;
    let here = server
        .sql("SELECT source, count(*) FROM events WHERE source IN ('aws', 'hooks') GROUP BY source ORDER BY source")
        .await;
    let findings = server.count("SELECT count(*) FROM findings").await;
    let Some(python) = python_with("duckdb") else {
        return left_out("reading the lake with DuckDB", "no Python that imports duckdb; set PIPEPROOF_PYTHON to one");
    };
    // The Delta log is read by hand: DuckDB's own reader is an extension that would have to be downloaded.
    let script = r#"
import duckdb, json, pathlib, sys, urllib.parse
def files(table):
    root = pathlib.Path(sys.argv[1]) / "lake" / table
    live = {}
    log = root / "_delta_log"
    checkpoints = sorted(log.glob("*.checkpoint.parquet"))
    start = -1
    if checkpoints:
        start = int(checkpoints[-1].name[:20])
        for (path,) in duckdb.sql(f"SELECT add.path FROM read_parquet('{checkpoints[-1]}') WHERE add IS NOT NULL").fetchall():
            live[path] = True
    for entry in sorted(log.glob("*.json")):
        if int(entry.stem) <= start: continue
        for line in entry.read_text().splitlines():
            action = json.loads(line)
            if "add" in action: live[action["add"]["path"]] = True
            if "remove" in action: live.pop(action["remove"]["path"], None)
    return [str(root / urllib.parse.unquote(path)) for path in live]
events = files("events")
rows = duckdb.sql(f"SELECT source, count(*) FROM read_parquet({events!r}, hive_partitioning=true) WHERE source IN ('aws','hooks') GROUP BY source ORDER BY source").fetchall()
found = duckdb.sql(f"SELECT count(*) FROM read_parquet({files('findings')!r}, hive_partitioning=true)").fetchall()[0][0]
windows = duckdb.sql(f"SELECT count(*) FROM read_parquet({files('source_windows')!r}, hive_partitioning=true)").fetchall()[0][0] if files("source_windows") else 0
print(json.dumps({"events": rows, "findings": found, "windows": windows}))
"#;
    let output = Command::new(python).args(["-c", script]).arg(server.data()).output().unwrap();
    expect_exit(&output, 0);
    let there: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(there["events"], serde_json::to_value(&here).unwrap());
    assert_eq!(there["findings"], findings);
}

/// Records that one append takes at most: what waits beyond them is decoded while they are written.
const APPEND_RECORDS: i64 = 20_000;

#[tokio::test]
async fn what_waits_for_the_archive_comes_into_the_lake_once_and_in_order() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().without_config().on(&data).start();
    let token = token_of(&server.add_source("many", "json", &[]));
    let all = 2 * APPEND_RECORDS + 2_000;
    for from in (0..all).step_by(2_000) {
        let lines: String = (from..from + 2_000).map(|at| format!("{{\"number\":{at}}}\n")).collect();
        server.send("many", &token, lines).await.expect(200);
    }
    // One of them comes twice.
    server.send("many", &token, "{\"number\":7}").await.expect(200);
    eventually("all is evaluated", || async {
        let status = server.get("/v1/status").await;
        (position(&status, "detected") >= position(&status, "durable")).then_some(())
    })
    .await;
    let mut log = server.log();
    server.kill();
    let server = Setup::new().on(&data).start();
    server.settled().await;
    let counts = "SELECT count(*), count(DISTINCT \"index\"), count(DISTINCT item) FROM events WHERE source = 'many'";
    assert_eq!(server.sql(counts).await, [[json!(all), json!(all), json!(all)]]);
    let status = server.get("/v1/status").await;
    assert_eq!(status["counts"]["duplicates"], 1, "{status}");
    // What was decoded ahead fits what was written: a gap would be refused, and made good from the next turn on.
    log.extend(server.log());
    assert!(!log.iter().any(|line| line.contains("cannot go on")), "{log:#?}");
}
