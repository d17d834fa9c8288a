//! More than the log takes: senders are told to come again, and nothing that was acknowledged is lost or doubled.

use std::collections::BTreeSet;

use futures::future::join_all;
use reqwest::Method;
use reqwest::header::RETRY_AFTER;
use serde_json::json;

use crate::harness::{Reply, Server, Setup, eventually, token_of};

/// A log that takes two records a second, by its own configuration: a group gathers for a second, and two records may
/// wait meanwhile. No disk has to be slow for it.
const SLOW: &str = "log: {queue_records: 2, group_delay_ms: 1000}\n";
/// Requests at once: many times what may wait while they are sent.
const BURST: usize = 16;

async fn send(server: &Server, token: &str, number: usize) -> Reply {
    let event = json!({"action": "token.used", "ci": {"run_id": number.to_string()}});
    server.send("any", token, event.to_string()).await
}

/// What a sender needs to know: that it is our fault, and when to try again.
fn assert_busy(reply: &Reply) {
    assert_eq!(reply.expect(503).error_code(), "unavailable");
    assert!(reply.text().contains("queue is full"), "{}", reply.text());
    let seconds = reply.headers.get(RETRY_AFTER).unwrap_or_else(|| panic!("no Retry-After: {:?}", reply.headers));
    let seconds: u64 = seconds.to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_503_with_retry_after_and_then_recovers() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().on(&data).config(SLOW).start();
    let token = token_of(&server.add_source("any", "json", &[]));

    let replies = join_all((0..BURST).map(|number| send(&server, &token, number))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = (0..BURST).zip(&replies).partition(|(_, reply)| reply.status == 200);
    assert!(!taken.is_empty(), "the queue takes what fits: {replies:?}");
    assert!(!refused.is_empty(), "{BURST} requests at once fit a queue of 2");
    refused.iter().for_each(|(_, reply)| assert_busy(reply));
    // Busy is not broken: nothing has to be mended, no orchestrator has to restart it.
    server.raw(Method::GET, "/healthz", &[], Vec::new()).await.expect(200);
    server.raw(Method::GET, "/readyz", &[], Vec::new()).await.expect(200);

    // What was acknowledged is there once, what was refused is not.
    let names = |of: &[(usize, &Reply)]| of.iter().map(|(number, _)| number.to_string()).collect::<BTreeSet<_>>();
    let first = stored(&server).await;
    assert_eq!(first.iter().cloned().collect::<BTreeSet<_>>(), names(&taken));
    assert_eq!(first.len(), taken.len(), "each once: {first:?}");

    // A sender that comes again, as it was told, gets everything in.
    for (number, _) in &refused {
        eventually("the queue takes it", || async {
            let reply = send(&server, &token, *number).await;
            if reply.status == 200 {
                return Some(());
            }
            assert_busy(&reply);
            None
        })
        .await;
    }
    server.kill();
    let server = Setup::new().on(&data).start();
    let all = stored(&server).await;
    assert_eq!((all.len(), all.into_iter().collect::<BTreeSet<_>>().len()), (BURST, BURST));
}

/// Numbers of the events in the lake, as often as they are there.
async fn stored(server: &Server) -> Vec<String> {
    server.settled().await;
    let rows = server.sql("SELECT ci_run_id FROM events WHERE source = 'any'").await;
    rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
}
