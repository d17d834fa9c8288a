//! What was written into a stopped folder by somebody else is not believed: the doctor names it, and the end of a lake that was torn
//! comes again.

use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};
use tempfile::TempDir;

use crate::harness::{Server, Setup, eventually, expect_exit, stdout, token_of};

/// What the doctor says: each check with whether it holds and why.
#[track_caller]
fn checked(server: &Server, exit: i32) -> Vec<Value> {
    let output = server.cli(&["doctor", "--verify", "--format", "json"]);
    expect_exit(&output, exit);
    serde_json::from_str(&stdout(&output)).unwrap()
}

fn event(run: u64) -> Vec<u8> {
    json!({"action": "job.finished", "category": "job", "ci.run_id": run.to_string(), "id": format!("event-{run}")})
        .to_string()
        .into_bytes()
}

async fn store(data: &Path) -> sqlx::SqliteConnection {
    SqliteConnectOptions::new().filename(data.join("store.db")).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_taken_for_a_repetition_of_another_item_is_named() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().on(&data).start();
    let token = token_of(&server.add_source("any", "cloudevents", &[]));
    let send = async |server: &Server, id: &str| {
        let event =
            json!({"specversion": "1.0", "id": id, "source": "here", "type": "t", "data": {"n": 1}}).to_string();
        server.send("any", &token, event).await.expect(200);
    };
    for id in ["a", "b", "a"] {
        send(&server, id).await;
    }
    server.settled().await;
    let checks = checked(&server, 0);
    assert!(checks.iter().any(|check| check["check"] == "repetitions"), "{checks:?}");
    server.terminate();

    let mut open = store(&data).await;
    let rows = sqlx::query("SELECT record_index, first_index FROM duplicates").fetch_all(&mut open).await.unwrap();
    let [row] = &rows[..] else { panic!("one repetition, not {}", rows.len()) };
    let (index, first): (i64, i64) = (row.get(0), row.get(1));
    // The record between them is of the other item.
    let other = first + 1;
    assert!(other < index);
    sqlx::query("UPDATE duplicates SET first_index = ?, checksum = NULL").bind(other).execute(&mut open).await.unwrap();
    drop(open);
    let server = Setup::new().on(&data).start();
    // Whatever has no checksum gets one with the next repetition.
    send(&server, "a").await;
    server.settled().await;
    let checks = checked(&server, 5);
    let found = checks.iter().find(|check| check["check"] == "repetitions").unwrap();
    assert_eq!(found["holds"], false, "{found}");
    assert!(found["detail"].as_str().unwrap().contains(&format!("record {index} was left out")), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_written_into_the_registry_is_not_believed() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().on(&data).start();
    let reader = server.token(&["findings:read"], &[]);
    let path = data.join("registry.json");
    // A token whose text somebody knows, in the place of another.
    server.terminate();
    let mut registry: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let id = reader.trim_start_matches("ppt_").split('_').next().unwrap().to_owned();
    registry["tokens"][&id]["scopes"] = json!(["admin"]);
    std::fs::write(&path, registry.to_string()).unwrap();
    let server = Setup::new().on(&data).start();
    assert!(server.log().iter().any(|line| line.contains("registry.json")), "{:?}", server.log());
    let refused = server.api_as(&reader, Method::GET, "/v1/tokens", None).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text());
    let checks = checked(&server, 0);
    assert!(checks.iter().any(|check| check["check"] == "registry" && check["holds"] == true), "{checks:?}");
}

/// The last commit of a table.
fn tip(data: &Path, table: &str) -> PathBuf {
    let entries = std::fs::read_dir(data.join("lake").join(table).join("_delta_log")).unwrap();
    let commits = entries.map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.len() == 25 && name.ends_with(".json")
    });
    commits.max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_power_cut_tore_off_the_lake_is_archived_again() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let start = || Setup::new().on(&data).config("seal_every: 1s\n").start();
    let server = start();
    let token = token_of(&server.add_source("any", "json", &[]));
    for run in 0..40 {
        server.send("any", &token, event(run)).await.expect(200);
    }
    server.settled().await;
    server.kill();
    for table in ["events", "findings", "incident_steps", "source_windows", "checkpoints"] {
        let path = tip(&data, table);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let server = start();
    server.settled().await;
    assert!(server.log().iter().any(|line| line.contains("moved the torn end")), "{:?}", server.log());
    assert_eq!(server.count("SELECT count(*) FROM events WHERE source = 'any'").await, 40);
    assert_eq!(server.count("SELECT count(DISTINCT event_id) FROM events WHERE source = 'any'").await, 40);
    // Every checkpoint of the seal tree is noted, the one that was torn off as well.
    let sealed = eventually("a checkpoint after the start", || async {
        let count = server.count("SELECT count(*) FROM checkpoints").await;
        (count == server.count("SELECT max(seq) FROM checkpoints").await).then_some(count)
    });
    assert!(sealed.await > 0);
    checked(&server, 0);
}
