//! A backtest of what ran live finds what ran live found, and nothing else; of other rules, what they change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Server, Setup, eventually, expect_exit, files, fixture, items, json_out, now, program, stderr, stdout, tell,
    token_of,
};

/// One event; staged; a burst in order; a sequence over two sources; a sequence decided at once.
const RULES: &[(&str, &str)] = &[
    (
        "single.yml",
        r"
title: Force push
id: 0b7d7c2e-0000-4000-8000-000000000001
name: force_push
taxonomy: cicd
logsource: {product: cicd}
detection: {s: {action: git.push, scm.forced: true}, condition: s}
level: high
alert: {entity: ['repo:ci.repo'], dedup: [ci.repo], quiet: 1h}
",
    ),
    (
        "staged.yml",
        r"
title: Secret read
id: 0b7d7c2e-0000-4000-8000-000000000002
name: secret_read
state: staging
taxonomy: cicd
logsource: {product: cicd}
detection: {s: {action: secret.read}, condition: s}
level: low
",
    ),
    (
        "burst.yml",
        r"
title: Burst of secret reads
id: 0b7d7c2e-0000-4000-8000-000000000003
name: secret_burst
taxonomy: cicd
correlation:
    type: event_count
    rules: [secret_read]
    generate: true
    group-by: [actor.id]
    timespan: 5m
    condition: {gte: 3}
level: medium
requires: [json]
",
    ),
    (
        "sequence.yml",
        r"
title: Force push, then a secret read
id: 0b7d7c2e-0000-4000-8000-000000000004
name: push_then_read
taxonomy: cicd
correlation:
    type: temporal_ordered
    rules: [force_push, secret_read]
    generate: true
    group-by: [ci.repo]
    timespan: 10m
level: high
requires: [json]
",
    ),
];

fn rules(folder: &Path, changed: &[(&str, &str)]) -> String {
    std::fs::create_dir_all(folder).unwrap();
    let texts: BTreeMap<&str, &str> = RULES.iter().chain(changed).copied().collect();
    for (name, text) in texts {
        std::fs::write(folder.join(name), text.trim_start()).unwrap();
    }
    folder.display().to_string()
}

fn push(number: u32, repo: &str, secs_ago: u64) -> Value {
    json!({"id": format!("push-{number}"), "action": "git.push", "scm.forced": true, "ci.repo": repo,
        "actor.id": "kim", "time": now().minus(Duration::from_secs(secs_ago))})
}

fn read(number: u32, repo: &str, actor: &str, secs_ago: u64) -> Value {
    json!({"id": format!("read-{number}"), "action": "secret.read", "ci.repo": repo, "actor.id": actor,
        "secret.path": "prod/db", "time": now().minus(Duration::from_secs(secs_ago))})
}

/// An event whose clock runs ahead lets its source's watermark pass what came before it: nothing has to be waited for.
fn ahead(number: u32) -> Value {
    json!({"id": format!("ahead-{number}"), "action": "job.started", "time": now().plus(Duration::from_secs(290))})
}

struct Live {
    _folder: TempDir,
    data: std::path::PathBuf,
    rules: String,
    /// Id → rule.
    found: BTreeMap<String, String>,
    records: u64,
}

/// A live run with several sources, repetitions, history, a step of somebody, and a restart in the middle of a sequence.
async fn live_run() -> Live {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let rules = rules(&folder.path().join("rules"), &[]);
    let config = format!("rules: {{dir: {rules}, shipped: true}}\n");
    let server = Setup::new().on(&data).config(&config).start();
    let jobs = token_of(&server.add_source("jobs", "json", &["env=prod"]));
    let repeated = json!([read(2, "acme/lib", "eve", 36)]).to_string();
    let other = token_of(&server.add_source("other", "json", &[]));
    let trail = token_of(&server.add_source("trail", "aws.cloudtrail", &[]));
    server
        .send("jobs", &jobs, json!([push(1, "acme/app", 40), read(1, "acme/app", "eve", 38)]).to_string())
        .await
        .expect(200);
    server.send("jobs", &jobs, repeated.clone()).await.expect(200);
    // The same again, and once more: repetitions count for nothing.
    for _ in 0..2 {
        server.send("jobs", &jobs, repeated.clone()).await.expect(200);
    }
    server.send("trail", &trail, fixture("aws_cloudtrail/stratus-red-team.ndjson")).await.expect(200);
    server.send("jobs", &jobs, "this is no JSON").await.expect(200);
    let incident = eventually("an incident is open", || async { server.incidents().await.first().cloned() }).await;
    let path = format!("/v1/incidents/{}/ack", incident["id"].as_str().unwrap());
    server.api(Method::POST, &path, Some(json!({"note": "looking"}))).await.expect(200);
    server.settled().await;
    let (status, _) = server.terminate();
    assert!(status.success());

    let server = Setup::new().on(&data).config(&config).start();
    server
        .send("jobs", &jobs, json!([read(3, "acme/app", "eve", 28), push(2, "acme/app", 27)]).to_string())
        .await
        .expect(200);
    server
        .send("other", &other, json!([push(3, "acme/other", 26), read(4, "acme/other", "mallory", 25)]).to_string())
        .await
        .expect(200);
    server
        .send(
            "other",
            &other,
            json!([read(5, "acme/other", "mallory", 24), read(6, "acme/other", "mallory", 23)]).to_string(),
        )
        .await
        .expect(200);
    // History: its own lane.
    let hours = 3_600;
    let old: Vec<Value> =
        (10..16).map(|number| read(number, "acme/old", "trent", u64::from(40 - number) * 30 * 60 / 6)).collect();
    let file = folder.path().join("old.ndjson");
    let lines: Vec<String> = old.iter().chain([&push(9, "acme/old", hours)]).map(Value::to_string).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    expect_exit(&server.cli(&["import", "--source", "other", &file.display().to_string()]), 0);
    // The staged rule's repetition after the restart is one still.
    server.send("jobs", &jobs, repeated.clone()).await.expect(200);
    server.send("jobs", &jobs, json!([ahead(1)]).to_string()).await.expect(200);
    server.send("other", &other, json!([ahead(2)]).to_string()).await.expect(200);
    let found = eventually("correlations are decided", || async {
        let found: BTreeMap<String, String> = items(&server.get("/v1/findings?limit=1000").await, "findings")
            .iter()
            .map(|finding| {
                (finding["id"].as_str().unwrap().to_owned(), finding["rule_title"].as_str().unwrap().to_owned())
            })
            .collect();
        let of = |title: &str| found.values().filter(|found| *found == title).count();
        (of("Burst of secret reads") >= 2 && of("Force push, then a secret read") >= 2).then_some(found)
    })
    .await;
    let status = server.settled().await;
    assert!(status["counts"]["duplicates"].as_u64().unwrap() >= 3, "{status}");
    let (status, _) = server.terminate();
    assert!(status.success());
    Live { data, rules, found, records: 0, _folder: folder }
}

/// The date so many days from now.
fn day(offset: u64) -> String {
    now().plus(Duration::from_secs(86_400 * offset)).date()
}

impl Live {
    /// Runs a backtest with the library; what is not said is the rules of the live run and all of time.
    fn backtest(&self, more: &[&str]) -> Output {
        let library = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/library");
        let end = day(2);
        let mut command = program();
        command.args(["backtest", "--rules", library, "--data"]).arg(&self.data).args(more);
        for (name, value) in [("--rules", self.rules.as_str()), ("--from", "2020-01-01"), ("--to", &end)] {
            if !more.contains(&name) {
                command.args([name, value]);
            }
        }
        command.output().unwrap()
    }
}

fn of(report: &Value, change: &str) -> Vec<(String, String)> {
    items(report, "findings")
        .iter()
        .filter(|finding| finding["change"] == change)
        .map(|finding| {
            (finding["id"].as_str().unwrap().to_owned(), finding["rule"]["title"].as_str().unwrap().to_owned())
        })
        .collect()
}

/// Every file with its content's size and time of change.
fn state(folder: &Path) -> Vec<(String, u64, SystemTime)> {
    files(folder)
        .into_iter()
        .map(|path| {
            let meta = path.metadata().unwrap();
            (path.display().to_string(), meta.len(), meta.modified().unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backtest_of_a_live_run_yields_the_identical_finding_ids() {
    let mut live = live_run().await;
    let rules: BTreeSet<&str> = live.found.values().map(String::as_str).collect();
    for title in ["Force push", "Secret read", "Burst of secret reads", "Force push, then a secret read"] {
        assert!(rules.contains(title), "{title} found nothing live: {rules:?}");
    }
    assert!(rules.len() > 5, "shipped rules found something, too: {rules:?}");

    // On the stopped folder; nothing in it changes.
    let before = state(&live.data);
    let report = json_out(&live.backtest(&["--format", "json"]));
    assert_eq!(state(&live.data), before, "a backtest writes nothing");
    let expected: Vec<(String, String)> = live.found.clone().into_iter().collect();
    let mut identical = of(&report, "identical");
    identical.sort();
    assert_eq!(identical, expected, "the ids of the live run");
    assert_eq!(report["summary"]["added"], 0, "{report:#}");
    assert_eq!(report["summary"]["removed"], 0, "{report:#}");
    assert_eq!(report["summary"]["dead_letters"], 1);
    live.records = report["summary"]["records"].as_u64().unwrap();
    assert!(live.records > 30, "{}", report["summary"]);
    let human = live.backtest(&["--format", "human"]);
    expect_exit(&human, 0);
    let line = format!("identical: {}, added: 0, removed: 0", expected.len());
    assert!(stdout(&human).lines().any(|found| found == line), "{}", stdout(&human));

    // Through a running server, found by its folder and by its URL.
    let config = format!("rules: {{dir: {}, shipped: true}}\n", live.rules);
    let server = Setup::new().on(&live.data).config(&config).start();
    let report = json_out(&live.backtest(&["--format", "json"]));
    // Meanwhile history that had fallen idle may have been decided, there as well as here.
    let through: BTreeSet<(String, String)> = of(&report, "identical").into_iter().collect();
    assert!(expected.iter().all(|found| through.contains(found)), "{report:#}");
    assert_eq!(report["summary"]["added"], 0, "{report:#}");
    assert_eq!(report["summary"]["removed"], 0, "{report:#}");
    let token = server.token(&["rules:test"], &[]);
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/library");
    let by_url = program()
        .args(["backtest", "--from", "2020-01-01", "--to", &day(2), "--rules", library, "--rules", &live.rules])
        .args(["--format", "jsonl", "--url", server.url(), "--token", &token])
        .output()
        .unwrap();
    expect_exit(&by_url, 0);
    let lines: Vec<Value> = stdout(&by_url).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = &lines.last().unwrap()["summary"];
    assert!(summary["identical"].as_u64().unwrap() >= through.len() as u64, "{summary}");
    assert_eq!(summary["identical"], lines.len() - 1, "a line each, and nothing added or removed");
    assert!(stderr(&by_url).contains("added: 0, removed: 0"), "{}", stderr(&by_url));
    // Whoever may not, may not.
    let token = server.token(&["findings:read"], &[]);
    let refused = program()
        .args(["backtest", "--from", "2020-01-01", "--to", "2021-01-01", "--url", server.url(), "--token", &token])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(4), "{}", stderr(&refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_rules_are_told_by_what_they_add_and_remove() {
    let live = live_run().await;
    let folder = TempDir::new().unwrap();
    // A lower bound finds more; a condition that names one actor finds less; another text decides nothing.
    let burst = RULES[2].1.replace("gte: 3", "gte: 2");
    let staged = RULES[1].1.replace("{action: secret.read}", "{action: secret.read, actor.id: eve}");
    let single = RULES[0].1.replace("title: Force push", "title: Pushed by force");
    let other =
        rules(&folder.path().join("other"), &[("burst.yml", &burst), ("staged.yml", &staged), ("single.yml", &single)]);
    let report = json_out(&live.backtest(&["--rules", &other, "--format", "json"]));
    let summary = &report["summary"];
    let count = |change: &str, title: &str| of(&report, change).iter().filter(|(_, of)| of == title).count();
    let live_of = |title: &str| live.found.values().filter(|of| *of == title).count();
    assert_eq!(count("identical", "Pushed by force"), live_of("Force push"), "a title is no part of what decides");
    let eves = count("identical", "Secret read");
    assert!(eves >= 2 && eves < live_of("Secret read"), "{report:#}");
    assert_eq!(count("removed", "Secret read"), live_of("Secret read") - eves);
    assert!(summary["other_version"].as_u64().unwrap() >= eves as u64, "found under another version: {summary}");
    assert!(count("removed", "Burst of secret reads") > 0 || count("added", "Burst of secret reads") > 0);
    for (change, number) in [("identical", "identical"), ("added", "added"), ("removed", "removed")] {
        assert_eq!(summary[number], of(&report, change).len(), "{summary}");
    }

    // The same two sets against each other, without what ran live.
    let report = json_out(&live.backtest(&["--rules", &other, "--against", &live.rules, "--format", "json"]));
    let shipped = items(&report, "findings");
    assert!(shipped.iter().any(|finding| finding["change"] == "added"), "the library is on one side only: {report:#}");
    let same = json_out(&live.backtest(&["--against", &live.rules, "--format", "json"]));
    let own: BTreeSet<&str> =
        ["Force push", "Secret read", "Burst of secret reads", "Force push, then a secret read"].into();
    assert!(of(&same, "removed").is_empty(), "{same:#}");
    assert_eq!(
        of(&same, "identical").iter().filter(|(_, title)| own.contains(title.as_str())).count(),
        live.found.values().filter(|title| own.contains(title.as_str())).count()
    );

    // A rule alone is compared with what that rule found, and says that others were not.
    let alone = folder.path().join("alone");
    std::fs::create_dir_all(&alone).unwrap();
    std::fs::write(alone.join("single.yml"), RULES[0].1.trim_start()).unwrap();
    let report = program()
        .args(["backtest", "--from", "2020-01-01", "--to", &day(2), "--format", "json", "--data"])
        .arg(&live.data)
        .args(["--rules", &alone.display().to_string()])
        .output()
        .unwrap();
    let report = json_out(&report);
    assert_eq!(report["summary"]["identical"], live_of("Force push"), "{report:#}");
    assert_eq!(report["summary"]["removed"], 0);
    assert_eq!(report["summary"]["not_compared"], live.found.len() - live_of("Force push"));

    // Only the period asked for is told, though all of it is replayed.
    let nothing = json_out(&live.backtest(&["--to", "2020-01-02", "--format", "json"]));
    assert!(items(&nothing, "findings").is_empty());
    assert_eq!(nothing["summary"]["removed"], 0);
    assert!(nothing["summary"]["records"].as_u64().unwrap() > 30);
    let warm = json_out(&live.backtest(&["--from", &day(0), "--warm-up", "1d", "--format", "json"]));
    assert!(warm["summary"]["notes"][0].as_str().unwrap().contains("began"), "{warm:#}");
    let mistaken = live.backtest(&["--from", &day(3), "--format", "json"]);
    assert_eq!(mistaken.status.code(), Some(2), "{}", stderr(&mistaken));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_that_were_in_force_are_replayed_where_they_were() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let dir = rules(&folder.path().join("rules"), &[]);
    let config = format!("rules: {{dir: {dir}, shipped: false}}\n");
    let server = Setup::new().on(&data).config(&config).start();
    let token = token_of(&server.add_source("jobs", "json", &[]));
    let mut number = 0;
    let mut send = async || {
        number += 1;
        let body = json!([push(number, &format!("acme/{number}"), 1)]).to_string();
        server.send("jobs", &token, body).await.expect(200);
        server.settled().await;
    };
    send().await;
    server.cli_json(&["rules", "pause", "force_push"]);
    send().await;
    server.cli_json(&["rules", "staging", "force_push"]);
    send().await;
    assert_eq!(server.findings().await.len(), 2, "nothing while it was paused");
    drop(server.terminate());
    let run = |more: &[&str]| {
        let mut command = program();
        command.args(["backtest", "--from", "2020-01-01", "--to", &day(2), "--format", "json", "--data"]).arg(&data);
        json_out(&command.args(more).output().unwrap())["summary"].clone()
    };
    let in_force = run(&[]);
    assert_eq!((&in_force["identical"], &in_force["added"], &in_force["removed"]), (&json!(2), &json!(0), &json!(0)));
    let throughout = run(&["--rules", &dir]);
    assert_eq!((&throughout["identical"], &throughout["added"]), (&json!(2), &json!(1)), "one while it was paused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_whose_server_was_killed_says_what_is_missing() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server = Setup::new().on(&data).start();
    let token = token_of(&server.add_source("jobs", "json", &[]));
    server.send("jobs", &token, json!([push(1, "acme/app", 1)]).to_string()).await.expect(200);
    server.settled().await;
    server.kill();
    let report = program()
        .args(["backtest", "--from", "2020-01-01", "--to", &day(2), "--format", "json", "--data"])
        .arg(&data)
        .output()
        .unwrap();
    let report = json_out(&report);
    assert!(report["summary"]["notes"].to_string().contains("did not stop in order"), "{report:#}");
    let nowhere = program()
        .args(["backtest", "--from", "2020-01-01", "--to", "2021-01-01", "--data", "/no/such"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(2), "{}", stderr(&nowhere));
}

/// Records per second of a backtest, told where somebody asks for it: `PIPEPROOF_FIGURES=1`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures() {
    if std::env::var_os("PIPEPROOF_FIGURES").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let server: Server = Setup::new().on(&data).start();
    let token = token_of(&server.add_source("trail", "aws.cloudtrail", &[]));
    let lines = String::from_utf8(fixture("aws_cloudtrail/stratus-red-team.ndjson")).unwrap();
    let mut number = 0;
    for _ in 0..200 {
        let mut body = String::new();
        for line in lines.lines() {
            let mut event: Value = serde_json::from_str(line).unwrap();
            number += 1;
            event["eventID"] = json!(format!("e-{number}"));
            body.push_str(&event.to_string());
            body.push('\n');
        }
        server.send("trail", &token, body).await.expect(200);
    }
    server.settled().await;
    drop(server.terminate());
    let output = program()
        .args(["backtest", "--from", "2020-01-01", "--to", &day(2), "--format", "json", "--data"])
        .arg(&data)
        .output()
        .unwrap();
    tell(&format!("backtest: {}", json_out(&output)["summary"]));
}
