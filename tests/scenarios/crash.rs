//! Killed at any moment, it loses nothing it said it had, and concludes the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pipeproof_engine::time::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Server, Setup, copy_folder, fixture, items, ndjson_fixture, now, position, tell, token_of};

/// Rows that `sql` may answer with at once.
const PAGE: usize = 5_000;

async fn stored(server: &Server) -> BTreeMap<u64, u64> {
    let mut times = BTreeMap::new();
    let query = |offset: usize| {
        format!(
            "SELECT ci_run_id, count(*) FROM events WHERE source = 'any' GROUP BY 1 ORDER BY 1 LIMIT {PAGE} OFFSET {offset}"
        )
    };
    loop {
        let rows = server.sql(&query(times.len())).await;
        times.extend(rows.iter().map(|row| {
            let id = row[0].as_str().and_then(|id| id.parse::<u64>().ok());
            (id.unwrap_or_else(|| panic!("no number in {row:?}")), row[1].as_u64().unwrap())
        }));
        if rows.len() < PAGE {
            return times;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_over_ten_kills() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let next = Arc::new(AtomicU64::new(0));
    let acked = Arc::new(Mutex::new(BTreeSet::new()));
    let mut token = None;
    for kill in 0..10_u64 {
        let server = Arc::new(Setup::new().on(&data).start());
        let token = token.get_or_insert_with(|| token_of(&server.add_source("any", "json", &[]))).clone();
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let (server, token, next, acked, stop) =
                    (Arc::clone(&server), token.clone(), Arc::clone(&next), Arc::clone(&acked), Arc::clone(&stop));
                tokio::spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        let first = next.fetch_add(3, Ordering::SeqCst);
                        let batch: Vec<Value> = (first..first + 3)
                            .map(|id| json!({"ci.run_id": id.to_string(), "action": "job.finished", "ci.repo": "acme/app"}))
                            .collect();
                        match server.try_send("any", &token, Value::from(batch).to_string().into_bytes()).await {
                            Ok(reply) if reply.status.as_u16() == 200 => {
                                acked.lock().unwrap().extend(first..first + 3);
                            }
                            Ok(reply) => assert_eq!(reply.status.as_u16(), 503, "{}", reply.text()),
                            // Killed: nothing was promised.
                            Err(_) => break,
                        }
                    }
                })
            })
            .collect();
        // Not a wait for anything: the moment of the kill, varied.
        tokio::time::sleep(Duration::from_millis(60 + kill * 37)).await;
        server.signal("KILL");
        for sender in senders {
            sender.await.unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        drop(server);
    }
    let server = Setup::new().on(&data).start();
    let status = server.settled().await;
    let stored = stored(&server).await;
    let sent = next.load(Ordering::SeqCst);
    let acked = acked.lock().unwrap();
    assert!(acked.len() > 30, "only {} of {sent} were acknowledged", acked.len());
    let lost: Vec<_> = acked.iter().filter(|id| !stored.contains_key(id)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged events are lost: {lost:?}", lost.len(), acked.len());
    assert!(stored.keys().all(|id| *id < sent), "an event that nobody sent");
    let twice: Vec<_> = stored.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "archived more than once: {twice:?}");
    assert!(position(&status, "durable") >= acked.len() as u64);
    tell(&format!("ten kills: sent {sent}, acknowledged {}, stored {}", acked.len(), stored.len()));
}

/// Traffic that gives findings of several rules.
async fn traffic(server: &Server) {
    let hooks = server.add_github("hooks");
    for (index, (event, file)) in [
        ("branch_protection_rule", "branch_protection_rule/branch_protection_rule_deleted.json"),
        ("push", "push/push.json"),
        ("branch_protection_rule", "branch_protection_rule/branch_protection_rule_created.json"),
        ("deploy_key", "deploy_key/deploy_key_created.json"),
    ]
    .iter()
    .enumerate()
    {
        let body = fixture(&format!("github_webhook/{file}"));
        server.send_github("hooks", &hooks, event, &format!("d-{index}"), &body).await.expect(200);
    }
    let aws = token_of(&server.add_source("aws", "aws.cloudtrail", &[]));
    let records = ndjson_fixture("aws_cloudtrail/stratus-red-team.ndjson");
    server.send("aws", &aws, json!({ "Records": records }).to_string()).await.expect(200);
    let vault = token_of(&server.add_source("vault", "vault.audit", &[]));
    server.send("vault", &vault, fixture("vault_audit/audit.ndjson")).await.expect(200);
}

/// Findings that had fired by then, and their incidents. Time goes on while a test runs, and what waited for it fires.
async fn ids(server: &Server, until: Timestamp) -> BTreeSet<String> {
    let page = server.get("/v1/findings?limit=1000").await;
    let fired = |item: &Value| Timestamp::parse(item["fired"].as_str().unwrap()).unwrap() <= until;
    let of = |item: Value| format!("{} {} {} {}", item["id"], item["rule"]["name"], item["fired"], item["incident"]);
    items(&page, "findings").into_iter().filter(fired).map(of).collect()
}

#[tokio::test]
async fn a_restart_continues_and_a_replay_of_the_whole_log_concludes_the_same() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().on(&data).start();
    traffic(&server).await;
    server.settled().await;
    let until = now();
    // A record of later: what is evaluated behind it cannot have fired before.
    server.token(&["admin"], &[]);
    server.settled().await;
    let live = ids(&server, until).await;
    assert!(live.len() >= 3, "{live:?}");
    server.kill();

    let server = Setup::new().on(&data).start();
    server.settled().await;
    assert_eq!(ids(&server, until).await, live, "after a restart");
    let (status, _) = server.terminate();
    assert!(status.success());

    let copy = folder.path().join("copy");
    // The log names sets of rules and address files by their digests; their content is kept beside it.
    for part in ["log", "keys", "seal", "rules", "enrichment"] {
        if data.join(part).exists() {
            copy_folder(&data.join(part), &copy.join(part));
        }
    }
    assert!(!copy.join("store.db").exists() && !copy.join("lake").exists());
    let server = Setup::new().on(&copy).start();
    server.settled().await;
    assert_eq!(ids(&server, until).await, live, "after a replay from the log alone");
    assert_eq!(server.count("SELECT count(*) FROM events WHERE source = 'hooks' AND action = 'git.push'").await, 1);
}

#[tokio::test]
async fn a_store_that_is_ahead_of_the_log_refuses_to_start() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().on(&data).start();
    traffic(&server).await;
    server.settled().await;
    let (status, _) = server.terminate();
    assert!(status.success());
    std::fs::remove_dir_all(data.join("log")).unwrap();
    let output = serve_once(&data);
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("log"), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Starts a server that is expected to refuse.
pub(crate) fn serve_once(data: &Path) -> std::process::Output {
    crate::harness::run(["serve", "--listen", "127.0.0.1:0", "--data", &data.display().to_string()])
}
