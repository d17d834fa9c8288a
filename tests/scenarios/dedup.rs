//! Delivered again is counted once: one event in the lake, one finding.

use serde_json::{Value, json};

use crate::harness::{Server, Setup, expect_exit, fixture, is_of, items, ndjson_fixture, token_of};

#[tokio::test]
async fn a_redelivered_webhook_is_one_event_and_one_finding() {
    let server = Server::start();
    let secret = server.add_github("hooks");
    let body = fixture("github_webhook/branch_protection_rule/branch_protection_rule_deleted.json");
    for _ in 0..3 {
        server.send_github("hooks", &secret, "branch_protection_rule", "same-delivery", &body).await.expect(200);
    }
    server.settled().await;
    let query = "SELECT count(*) FROM events WHERE source = 'hooks' AND action = 'protected_branch.destroy'";
    assert_eq!(server.count(query).await, 1);
    let findings = server.findings().await;
    let of_hooks: Vec<_> =
        findings.iter().filter(|finding| finding["events"].to_string().contains("\"hooks\"")).collect();
    assert_eq!(of_hooks.len(), 1, "{findings:?}");
    assert_eq!(server.count("SELECT count(*) FROM findings").await, i64::try_from(findings.len()).unwrap());
    let windows = server.sql("SELECT max(duplicates) FROM source_windows WHERE source = 'hooks'").await;
    assert_eq!(windows, [[json!(2)]], "the window counts the repetitions");

    // Another delivery of an equal body is another event.
    server.send_github("hooks", &secret, "branch_protection_rule", "other-delivery", &body).await.expect(200);
    server.settled().await;
    assert_eq!(server.count(query).await, 2);
}

#[tokio::test]
async fn cloudtrail_records_repeated_in_other_files_are_dropped() {
    let server = Server::start();
    let token = token_of(&server.add_source("aws", "aws.cloudtrail", &[]));
    let records = ndjson_fixture("aws_cloudtrail/stratus-red-team.ndjson");
    let (first, second) = (&records[..100], &records[50..]);
    for records in [first, second, &records[..]] {
        server.send("aws", &token, json!({ "Records": records }).to_string()).await.expect(200);
    }
    server.settled().await;
    let items_in_lake = "SELECT count(DISTINCT item), count(DISTINCT \"index\") FROM events WHERE source = 'aws'";
    assert_eq!(server.sql(items_in_lake).await, [[json!(150), json!(150)]]);
}

#[tokio::test]
async fn a_redelivery_after_a_restart_is_still_a_repetition() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().on(&data).start();
    let secret = server.add_github("hooks");
    let body = fixture("github_webhook/branch_protection_rule/branch_protection_rule_deleted.json");
    server.send_github("hooks", &secret, "branch_protection_rule", "d-1", &body).await.expect(200);
    server.settled().await;
    let before: Vec<_> = server.findings().await;
    assert!(before.iter().any(|finding| is_of(finding, "rotection")), "{before:?}");
    server.kill();

    let server = Setup::new().on(&data).start();
    server.send_github("hooks", &secret, "branch_protection_rule", "d-1", &body).await.expect(200);
    server.settled().await;
    let ids = |findings: &[serde_json::Value]| -> Vec<String> {
        findings.iter().map(|finding| finding["id"].to_string()).collect()
    };
    assert_eq!(ids(&server.findings().await), ids(&before));
    let query = "SELECT count(*) FROM events WHERE source = 'hooks' AND action = 'protected_branch.destroy'";
    assert_eq!(server.count(query).await, 1);
    assert!(items(&server.get("/v1/incidents").await, "incidents").len() <= 1);
}

#[tokio::test]
async fn an_import_says_what_became_of_its_files() {
    let server = Server::start();
    let folder = tempfile::TempDir::new().unwrap();
    let records = ndjson_fixture("aws_cloudtrail/stratus-red-team.ndjson");
    let file = folder.path().join("trail.json.gz");
    std::fs::write(&file, crate::ingest::gzip(json!({ "Records": records }).to_string().as_bytes())).unwrap();
    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, "{\"eventID\": ").unwrap();
    let import = |files: &[&std::path::Path]| {
        let mut args = vec!["import".to_owned(), "--source".to_owned(), "aws.cloudtrail".to_owned()];
        args.extend(files.iter().map(|file| file.display().to_string()));
        server.cli_json(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let first = import(&[&file, &broken]);
    assert_eq!(first["source"], "aws.cloudtrail", "{first}");
    assert_eq!(first["sent"], 151, "{first}");
    assert_eq!((&first["duplicates"], &first["dead_letters"]), (&json!(0), &json!(1)), "{first}");
    let second = import(&[&file]);
    assert_eq!((&second["sent"], &second["duplicates"]), (&json!(150), &json!(150)), "{second}");

    // History is a lane of its own: what it finds is found in hindsight.
    server.settled().await;
    let modes = server.sql("SELECT DISTINCT mode FROM events WHERE source = 'aws.cloudtrail'").await;
    assert_eq!(modes, [[json!("backfill")]]);
    let findings = server.findings().await;
    assert!(!findings.is_empty() && findings.iter().all(|finding| finding["retro"] == true), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_are_recognised_that_memory_no_longer_holds_also_over_a_kill() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let start = || Setup::new().on(&data).config("dedup: {items_in_memory: 1000}\n").start();
    let server = start();
    let token = token_of(&server.add_source("any", "json", &[]));
    let part = |number: u64| {
        let events = (number * 500..(number + 1) * 500).map(|id| json!({"ci.run_id": id.to_string(), "action": "a.b"}));
        Value::from(events.collect::<Vec<_>>()).to_string()
    };
    for number in 0..8 {
        server.send("any", &token, part(number)).await.expect(200);
    }
    server.settled().await;
    assert_eq!(server.count("SELECT count(*) FROM events WHERE source = 'any'").await, 4_000);
    server.kill();
    let server = start();
    for number in [0, 3, 7, 8] {
        server.send("any", &token, part(number)).await.expect(200);
    }
    let status = server.settled().await;
    assert_eq!(server.count("SELECT count(*) FROM events WHERE source = 'any'").await, 4_500, "{status}");
    let windows = server
        .count(
            "SELECT sum(duplicates) FROM (SELECT DISTINCT window_start, max(duplicates) AS duplicates \
                                FROM source_windows WHERE source = 'any' GROUP BY window_start)",
        )
        .await;
    assert_eq!(windows, 1_500);
    let verified = server.cli(&["doctor", "--verify"]);
    expect_exit(&verified, 0);
}
