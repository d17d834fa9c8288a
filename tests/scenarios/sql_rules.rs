//! Rules that ask the lake: run when their period is whole, once, whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use pipeproof_engine::time::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Server, Setup, eventually, expect_exit, items, json_out, now, program, run, stdout, token_of};

/// Repositories with three jobs and no push within an hour, asked every second.
const DARK: &str = r#"
title: Repository runs jobs without pushes
id: 0b7d7c2e-0000-4000-8000-000000000021
name: dark_repo
taxonomy: cicd
sql:
    every: 1s
    lookback: 1h
    key: [ci.repo]
    query: |
        SELECT j."ci.repo", min(j.time) AS first_seen, count(*) AS jobs
        FROM events j
        LEFT ANTI JOIN (SELECT DISTINCT "ci.repo" AS repo FROM events
                        WHERE source = 'scm.audit' AND time BETWEEN :from AND :to) a
          ON a.repo = j."ci.repo"
        WHERE j.action = 'job.started' AND j.time BETWEEN :from AND :to
        GROUP BY j."ci.repo"
        HAVING count(*) >= 3
level: medium
requires: [json]
alert: {title: '{ci.repo} runs {jobs} jobs without pushes', entity: ['repo:ci.repo'], quiet: 24h}
"#;

/// Names a column that is not there.
const BROKEN: &str = r"
title: Asks for what is not there
id: 0b7d7c2e-0000-4000-8000-000000000022
name: broken
taxonomy: cicd
sql:
    every: 1s
    lookback: 1h
    key: [nobody]
    query: SELECT nobody FROM events WHERE time BETWEEN :from AND :to
level: low
";

/// More rows than are taken in.
const FLOOD: &str = r"
title: Floods
id: 0b7d7c2e-0000-4000-8000-000000000023
name: flood
state: staging
taxonomy: cicd
sql:
    every: 1h
    lookback: 1h
    key: [value]
    query: SELECT value FROM generate_series(1, 10500) WHERE :from < :to
level: low
";

fn rules(folder: &Path, texts: &[(&str, &str)]) -> String {
    std::fs::create_dir_all(folder).unwrap();
    for (name, text) in texts {
        std::fs::write(folder.join(format!("{name}.yml")), text.trim_start()).unwrap();
    }
    folder.display().to_string()
}

fn ago(secs: u64) -> Timestamp {
    now().minus(Duration::from_secs(secs))
}

fn job(number: u32, repo: &str) -> Value {
    json!({"id": format!("job-{number}"), "action": "job.started", "ci.repo": repo, "time": ago(600 + u64::from(number))})
}

/// Every run in the log: (rule, end of the period), with how often it is there.
async fn runs(server: &Server) -> BTreeMap<(String, String), usize> {
    server.settled().await;
    let rows =
        server.sql("SELECT arrow_cast(body, 'Utf8') FROM events WHERE action = 'pipeproof.sql-run' LIMIT 9000").await;
    let mut runs = BTreeMap::new();
    for row in rows {
        let body: Value = serde_json::from_str(row[0].as_str().unwrap()).unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        *runs.entry((text("rule"), text("to"))).or_default() += 1;
    }
    runs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_over_the_lake_finds_each_key_once_also_over_kills() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let rules = rules(&folder.path().join("rules"), &[("dark", DARK)]);
    let config = format!("rules: {{dir: {rules}, shipped: false}}\n");
    let server = Setup::new().on(&data).config(&config).start();
    let token = token_of(&server.add_source("any", "json", &[]));
    let mut events: Vec<Value> = (0..3).map(|number| job(number, "acme/dark")).collect();
    events.extend((10..13).map(|number| job(number, "acme/lit")));
    events.push(json!({"id": "push", "action": "git.push", "ci.repo": "acme/lit", "time": ago(700)}));
    events.extend((20..22).map(|number| job(number, "acme/few")));
    server.send("any", &token, Value::from(events).to_string()).await.expect(200);
    let finding = eventually("the rule finds", || async { server.findings().await.first().cloned() }).await;
    assert_eq!(finding["key"], json!({"ci.repo": "acme/dark"}), "{finding:#}");
    assert_eq!(finding["title"], "acme/dark runs 3 jobs without pushes");
    assert_eq!(finding["entities"], json!(["repo:acme/dark"]));
    drop(server);

    // Killed at any moment, also between an answer and its record: nothing is lost or doubled.
    for kill in 0..6_u64 {
        let server = Setup::new().on(&data).config(&config).start();
        tokio::time::sleep(Duration::from_millis(200 + 331 * kill)).await;
        server.kill();
    }
    let server = Setup::new().on(&data).config(&config).start();
    server
        .send(
            "any",
            &token,
            Value::from((30..33).map(|number| job(number, "acme/late")).collect::<Vec<_>>()).to_string(),
        )
        .await
        .expect(200);
    eventually("the second repository is found", || async { (server.findings().await.len() == 2).then_some(()) }).await;
    let runs = runs(&server).await;
    assert!(runs.values().all(|times| *times == 1), "a run is recorded once: {runs:?}");
    let ends: BTreeSet<i64> =
        runs.keys().map(|(_, to)| Timestamp::parse(to).unwrap().as_micros() / 1_000_000).collect();
    let (first, last) = (ends.first().unwrap(), ends.last().unwrap());
    assert_eq!(ends.len() as i64, last - first + 1, "no period is left out: {ends:?}");
    let keys: Vec<Value> = server.findings().await.iter().map(|finding| finding["key"]["ci.repo"].clone()).collect();
    assert_eq!(keys.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), 2, "each repository once: {keys:?}");
    drop(server.terminate());

    // The runs are in the log: a replay finds the same without asking again.
    let mut command = program();
    command.args(["backtest", "--from", "2020-01-01", "--to", "2100-01-01", "--format", "json", "--rules", &rules]);
    let report = json_out(&command.arg("--data").arg(&data).output().unwrap());
    assert_eq!(report["summary"]["identical"], 2, "{report:#}");
    assert_eq!(report["summary"]["added"], 0);
    assert_eq!(report["summary"]["removed"], 0);

    // A rule that never ran is run now.
    let other = DARK.replace("count(*) >= 3", "count(*) >= 2").replace("every: 1s", "every: 5m");
    let other = self::rules(&folder.path().join("other"), &[("dark", &other)]);
    let mut command = program();
    let from = ago(3_600).to_string();
    command.args(["backtest", "--from", &from, "--to", &now().to_string(), "--format", "json", "--rules", &other]);
    let report = json_out(&command.arg("--data").arg(&data).output().unwrap());
    let notes = report["summary"]["notes"].to_string();
    assert!(!notes.contains("refused") && !notes.contains("failed"), "{notes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_rule_is_seen_and_holds_up_no_other() {
    let folder = TempDir::new().unwrap();
    let rules = rules(&folder.path().join("rules"), &[("dark", DARK), ("broken", BROKEN), ("flood", FLOOD)]);
    let server = Setup::new().config(&format!("rules: {{dir: {rules}, shipped: false}}\n")).start();
    let token = token_of(&server.add_source("any", "json", &[]));
    let events: Vec<Value> = (0..3).map(|number| job(number, "acme/dark")).collect();
    server.send("any", &token, Value::from(events).to_string()).await.expect(200);
    eventually("the good rule finds", || async {
        let found = items(&server.get("/v1/findings?rule=0b7d7c2e-0000-4000-8000-000000000021").await, "findings");
        found.first().cloned()
    })
    .await;
    let status = async |name: &str| {
        let all = items(&server.get("/v1/rules").await, "rules");
        all.into_iter().find(|rule| rule["name"] == name).map(|rule| rule["sql"].clone()).unwrap()
    };
    eventually("the broken rule is shown", || async {
        let broken = status("broken").await;
        (broken["failures"].as_u64() >= Some(1) && broken["error"].to_string().contains("nobody")).then_some(())
    })
    .await;
    assert!(status("broken").await["next_try"].is_string(), "it is tried again later");
    eventually("the flood is cut", || async {
        let flood = status("flood").await;
        (flood["truncated"] == true && flood["rows"] == 10_000).then_some(())
    })
    .await;
    let metrics = String::from_utf8(server.api(reqwest::Method::GET, "/metrics", None).await.body).unwrap();
    for outcome in ["ok", "failed", "truncated"] {
        assert!(metrics.contains(&format!("pipeproof_sql_rule_runs_total{{outcome=\"{outcome}\"}}")), "{metrics}");
    }
}

#[test]
fn the_tests_inside_rules_run_their_queries() {
    let folder = TempDir::new().unwrap();
    let tested = format!(
        "{}tests:\n    - name: dark\n      events:\n          - {{at: 0s, source: ci.jobs, action: job.started, ci.repo: acme/dark}}\n          \
         - {{at: 1m, source: ci.jobs, action: job.started, ci.repo: acme/dark}}\n          \
         - {{at: 2m, source: ci.jobs, action: job.started, ci.repo: acme/dark}}\n      until: 1h\n      expect: [{{key: {{ci.repo: acme/dark}}}}]\n",
        DARK.trim_start().replace("every: 1s", "every: 1h")
    );
    let right = rules(&folder.path().join("right"), &[("dark", &tested)]);
    expect_exit(&run(["test", &right]), 0);
    let wrong = rules(&folder.path().join("wrong"), &[("dark", &tested.replace("count(*) >= 3", "count(*) >= 4"))]);
    let output = run(["test", &wrong]);
    expect_exit(&output, 1);
    assert!(stdout(&output).contains("dark"), "{}", stdout(&output));
}
