//! Rules on a running server: deployed whole or not at all, switched at a record, kept over restarts, with exceptions,
//! and what they cover.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Server, Setup, eventually, expect_exit, items, now, stderr, stdout, token_of};

const FORCED: &str = r"title: Deployment forced
id: 7d1a7a5e-2f0c-4c38-9b7e-aaaaaaaaaaaa
name: deployment_forced
version: 3
logsource: {product: cicd}
detection:
    forced: {action: deploy.forced}
    condition: forced
level: high
tags: [attack.t1677, owasp-cicd.sec-1]
controls: {soc2: [CC8.1], iso27001: [A.8.32]}
requires: [json]
alert: {dedup: [ci.repo]}
";

const CLOUD: &str = r"title: Trail stopped here
id: 7d1a7a5e-2f0c-4c38-9b7e-bbbbbbbbbbbb
name: trail_stopped_here
logsource: {product: aws, service: cloudtrail}
detection:
    stop: {eventName: StopLogging}
    condition: stop
level: medium
tags: [attack.t1562.008, owasp-cicd.sec-10]
controls: {soc2: [CC7.2]}
requires: [aws.cloudtrail]
";

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    files.iter().for_each(|(name, text)| write(folder.path(), name, text));
    folder
}

fn path(folder: &TempDir) -> String {
    folder.path().display().to_string()
}

/// A forced deployment of a repository, a moment ago.
fn forced(repo: &str) -> String {
    json!({"action": "deploy.forced", "time": now().to_string(), "ci": {"repo": repo}, "actor": {"id": "mallory"}})
        .to_string()
}

async fn repos(server: &Server) -> Vec<String> {
    server.settled().await;
    let mut repos: Vec<String> = server
        .findings()
        .await
        .iter()
        .filter(|finding| finding["rule_id"].as_str().is_some_and(|id| id.ends_with("aaaaaaaaaaaa")))
        .map(|finding| finding["key"]["ci.repo"].as_str().unwrap_or_default().to_owned())
        .collect();
    repos.sort();
    repos
}

async fn rule(server: &Server, name: &str) -> Value {
    let rules = items(&server.get("/v1/rules").await, "rules");
    rules.into_iter().find(|rule| rule["name"] == name).unwrap_or_else(|| panic!("no rule {name}"))
}

#[tokio::test]
async fn a_folder_is_deployed_and_decides_from_its_record_on() {
    let server = Server::start();
    let token = token_of(&server.add_source("ci", "json", &[]));
    server.send("ci", &token, forced("acme/before")).await.expect(200);
    let before = server.get("/v1/rules").await["set"].clone();

    let good = folder(&[("a/forced.yml", FORCED), ("lists/who.txt", "alice\n")]);
    let output = server.cli(&["rules", "deploy", &path(&good), "--note", "for the audit", "--format", "json"]);
    expect_exit(&output, 0);
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["added"], json!(["7d1a7a5e-2f0c-4c38-9b7e-aaaaaaaaaaaa"]));
    assert_eq!(outcome["in_effect"], true);
    let record = outcome["record"].as_u64().unwrap();

    server.send("ci", &token, forced("acme/after")).await.expect(200);
    assert_eq!(repos(&server).await, ["acme/after"], "what came before the record is not judged again");

    let listed = server.get("/v1/rules").await;
    assert_ne!(listed["set"], before);
    assert_eq!((&listed["set"], &listed["deciding"]), (&outcome["set"], &outcome["set"]));
    assert_eq!(listed["in_force"]["record"], record);
    assert_eq!(listed["in_force"]["change"]["what"], "deploy");
    let shown = rule(&server, "deployment_forced").await;
    assert_eq!(
        (&shown["version"], &shown["file"], &shown["findings"]),
        (&json!(3), &json!("deployed/a/forced.yml"), &json!(1))
    );
    let kept = server.data().join("rules").join(outcome["set"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(kept.join("deployed/a/forced.yml")).unwrap(), FORCED);
    assert!(kept.join("library/lists/who.txt").exists() || kept.join("deployed/lists/who.txt").exists());
    assert_eq!(server.actions("pipeproof").await.get("pipeproof.rules-deployed"), Some(&2), "start and deploy");

    // What is deployed stands in the place of what was deployed before.
    let other = folder(&[("cloud.yml", CLOUD)]);
    let outcome = server.cli_json(&["rules", "deploy", &path(&other)]);
    assert_eq!(outcome["removed"], json!(["7d1a7a5e-2f0c-4c38-9b7e-aaaaaaaaaaaa"]));
    server.send("ci", &token, forced("acme/gone")).await.expect(200);
    assert_eq!(repos(&server).await, ["acme/after"]);
}

#[tokio::test]
async fn a_folder_with_an_error_changes_nothing() {
    let server = Server::start();
    let good = folder(&[("forced.yml", FORCED)]);
    server.cli_json(&["rules", "deploy", &path(&good)]);
    let before = server.get("/v1/rules").await;
    let broken = folder(&[
        ("forced.yml", &FORCED.replace("title: Deployment forced", "title: Changed")),
        ("sub/cloud.yml", &CLOUD.replace("condition: stop", "condition: stopp")),
    ]);
    let output = server.cli(&["rules", "deploy", &path(&broken)]);
    expect_exit(&output, 2);
    let said = stderr(&output);
    assert!(said.contains("sub/cloud.yml:7"), "file and line: {said}");
    assert!(said.contains("stop") && !said.contains("deployed/"), "{said}");
    let body = json!({"files": [{"path": "x.yml", "text": CLOUD.replace("level: medium", "level: mild")}]});
    let reply = server.api(Method::POST, "/v1/rules", Some(body)).await;
    assert_eq!(reply.expect(400).error_code(), "rules_invalid");
    let problem = &reply.json()["error"]["diagnostics"][0];
    assert_eq!((&problem["file"], &problem["line"]), (&json!("x.yml"), &json!(8)), "{problem}");
    // A name that is taken, a path that leads outside, a kind of file that is none of ours.
    let twice = json!({"files": [{"path": "a.yml", "text": FORCED}, {"path": "b.yml", "text": FORCED}]});
    assert_eq!(server.api(Method::POST, "/v1/rules", Some(twice)).await.expect(400).error_code(), "rules_invalid");
    for bad in ["../x.yml", "/etc/x.yml", "x.sh", ".git/x.yml"] {
        let body = json!({"files": [{"path": bad, "text": CLOUD}]});
        server.api(Method::POST, "/v1/rules", Some(body)).await.expect(400);
    }
    let after = server.get("/v1/rules").await;
    assert_eq!((&after["set"], &after["in_force"]), (&before["set"], &before["in_force"]));
    assert_eq!(rule(&server, "deployment_forced").await["title"], "Deployment forced");
    expect_exit(&server.cli(&["rules", "deploy", "/no/such/folder"]), 2);
}

#[tokio::test]
async fn a_state_takes_effect_on_the_next_event() {
    let server = Server::start();
    let good = folder(&[("forced.yml", FORCED)]);
    server.cli_json(&["rules", "deploy", &path(&good)]);
    let token = token_of(&server.add_source("ci", "json", &[]));
    let set = async |verb: &str| {
        let outcome = server.cli_json(&["rules", verb, "deployment_forced"]);
        assert!(outcome["record"].is_u64(), "{outcome}");
    };
    let incidents = async || {
        server.settled().await;
        server.incidents().await.len()
    };
    set("staging").await;
    server.send("ci", &token, forced("acme/staging")).await.expect(200);
    assert_eq!(repos(&server).await, ["acme/staging"]);
    assert_eq!(incidents().await, 0, "staging records and does not page");
    set("activate").await;
    server.send("ci", &token, forced("acme/active")).await.expect(200);
    assert_eq!(incidents().await, 1);
    set("pause").await;
    server.send("ci", &token, forced("acme/paused")).await.expect(200);
    assert_eq!(repos(&server).await, ["acme/active", "acme/staging"]);
    let again = server.cli_json(&["rules", "pause", "deployment_forced"]);
    assert!(again["record"].is_null(), "nothing to say: {again}");
    expect_exit(&server.cli(&["rules", "activate", "no_such_rule"]), 2);
    let change = &server.get("/v1/rules").await["in_force"]["change"];
    assert_eq!(
        change,
        &json!({"what": "state", "rule": "7d1a7a5e-2f0c-4c38-9b7e-aaaaaaaaaaaa", "from": "active", "to": "paused"})
    );
}

#[tokio::test]
async fn author_and_approver_are_recorded_and_compared() {
    let server = Server::start();
    let good = folder(&[("forced.yml", FORCED)]);
    let files = json!([{"path": "forced.yml", "text": FORCED}]);
    let deploy = async |by: Value| {
        let body = json!({"files": files, "by": by});
        let outcome = server.api(Method::POST, "/v1/rules", Some(body)).await.expect(200).json();
        let in_force = server.get("/v1/rules").await["in_force"].clone();
        assert_eq!(outcome["approval"], in_force["approval"]);
        in_force
    };
    let alone = deploy(json!({"actor": "alice"})).await;
    assert_eq!((&alone["approval"], &alone["approved_by"]), (&json!("none"), &Value::Null));
    let same = deploy(json!({"actor": "alice", "approved_by": "Alice"})).await;
    assert_eq!(same["approval"], "same-person");
    let two = deploy(json!({"actor": "alice", "approved_by": "bob", "note": "CHG-7"})).await;
    assert_eq!(
        (&two["approval"], &two["approved_by"], &two["note"]),
        (&json!("two-persons"), &json!("bob"), &json!("CHG-7"))
    );
    assert!(two["actor"].as_str().unwrap().starts_with("alice (token:"), "{two}");

    let output = crate::harness::program()
        .args(["rules", "deploy", &path(&good), "--approved-by", "carol", "--format", "human", "--data"])
        .arg(server.data())
        .env("USER", "carol")
        .output()
        .unwrap();
    expect_exit(&output, 0);
    assert!(stderr(&output).contains("same person"), "{}", stderr(&output));
    server.settled().await;
    let rows = server
        .sql("SELECT CAST(body AS VARCHAR) FROM events WHERE action = 'pipeproof.rules-deployed' ORDER BY \"index\"")
        .await;
    let told: Vec<&str> =
        rows.iter().filter_map(|row| row[0].as_str()).filter(|text| text.contains("\"alice (")).collect();
    assert_eq!(told.len(), 3, "the record holds both: {rows:?}");
    assert!(told[2].contains("two-persons") && told[2].contains("bob"), "{}", told[2]);
}

#[tokio::test]
async fn a_restart_keeps_what_was_deployed_and_decided() {
    let home = TempDir::new().unwrap();
    let data = home.path().join("data");
    let server = Setup::new().on(&data).start();
    let good = folder(&[("forced.yml", FORCED)]);
    server.cli_json(&["rules", "deploy", &path(&good)]);
    server.cli_json(&["rules", "staging", "secret_in_log"]);
    let set = server.get("/v1/rules").await["set"].clone();
    let token = token_of(&server.add_source("ci", "json", &[]));
    // Killed at once: what was told is in the log, and detection may not have come to it.
    server.kill();
    let server = Setup::new().on(&data).start();
    let listed = server.get("/v1/rules").await;
    assert_eq!(listed["set"], set, "no other set: {}", listed["in_force"]);
    assert_eq!(rule(&server, "secret_in_log").await["state"], "staging");
    server.send("ci", &token, forced("acme/app")).await.expect(200);
    assert_eq!(repos(&server).await, ["acme/app"]);
    server.terminate();

    // A command of its own changes nothing either, though it knows no configuration.
    let output =
        crate::harness::program().args(["rules", "list", "--format", "json", "--data"]).arg(&data).output().unwrap();
    expect_exit(&output, 0);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed["set"], set);

    // A set whose bytes are others than its name says is not run.
    let file = data.join("rules").join(set.as_str().unwrap()).join("deployed/forced.yml");
    std::fs::write(&file, FORCED.replace("deploy.forced", "never")).unwrap();
    let output = crate::crash::serve_once(&data);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("forced.yml"), "{}", stderr(&output));
    std::fs::write(&file, FORCED).unwrap();
    let server = Setup::new().on(&data).start();
    assert_eq!(server.get("/v1/rules").await["set"], set);
}

fn hang_up(server: &Server) {
    server.signal("HUP");
}

#[tokio::test]
async fn the_configured_folder_is_read_again_and_a_broken_one_keeps_the_set() {
    let home = folder(&[("rules/forced.yml", FORCED)]);
    let dir = home.path().join("rules");
    let data = home.path().join("data");
    let start = || Setup::new().on(&data).config(&format!("rules: {{dir: '{}'}}\n", dir.display())).start();
    let server = start();
    let first = server.get("/v1/rules").await["set"].clone();
    assert_eq!(rule(&server, "deployment_forced").await["file"], "folder/forced.yml");

    write(&dir, "cloud.yml", CLOUD);
    hang_up(&server);
    let second = eventually("the folder is read again", || async {
        let set = server.get("/v1/rules").await["set"].clone();
        (set != first).then_some(set)
    })
    .await;
    rule(&server, "trail_stopped_here").await;

    write(&dir, "cloud.yml", &CLOUD.replace("condition: stop", "condition: stopp"));
    write(&dir, "forced.yml", &FORCED.replace("title: Deployment forced", "title: Half applied"));
    hang_up(&server);
    let trouble = eventually("the trouble is shown", || async {
        let trouble = server.get("/v1/status").await["rules_trouble"].clone();
        (!trouble.is_null()).then_some(trouble)
    })
    .await;
    assert!(trouble["problem"].as_str().unwrap().contains("cloud.yml:7"), "{trouble}");
    assert_eq!(server.get("/v1/rules").await["set"], second);
    assert_eq!(rule(&server, "deployment_forced").await["title"], "Deployment forced", "nothing half applied");
    let lines = server.log();
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("the set before stays in force")).collect();
    assert_eq!(told.len(), 1, "one line: {told:#?}");
    let metrics = server.token(&["metrics:read"], &[]);
    let text = server.api_as(&metrics, Method::GET, "/metrics", None).await.text();
    assert!(text.contains("pipeproof_rules_refused 1"), "{text}");
    let shown = server.cli(&["rules", "list", "--format", "human"]);
    assert!(stderr(&shown).contains("cloud.yml:7"), "{}", stderr(&shown));
    assert_eq!(server.api(Method::POST, "/v1/rules/reload", None).await.expect(400).error_code(), "rules_invalid");

    // A restart with the broken folder goes on with what was in force.
    server.terminate();
    let server = start();
    assert_eq!(server.get("/v1/rules").await["set"], second);
    assert!(!server.get("/v1/rules").await["trouble"].is_null());
    // Other changes do not pick up the broken folder.
    server.cli_json(&["rules", "pause", "deployment_forced"]);
    assert_eq!(rule(&server, "deployment_forced").await["title"], "Deployment forced");

    write(&dir, "cloud.yml", CLOUD);
    let outcome = server.api(Method::POST, "/v1/rules/reload", None).await.expect(200).json();
    assert!(outcome["record"].is_u64(), "{outcome}");
    assert!(server.get("/v1/rules").await["trouble"].is_null());
    let forced = rule(&server, "deployment_forced").await;
    assert_eq!((&forced["title"], &forced["state"]), (&json!("Half applied"), &json!("paused")));
    let text = server.api_as(&server.token(&["metrics:read"], &[]), Method::GET, "/metrics", None).await.text();
    assert!(text.contains("pipeproof_rules_refused 0"), "{text}");
}

#[test]
fn a_first_start_with_a_broken_folder_is_refused() {
    let home = folder(&[("rules/bad.yml", &FORCED.replace("condition: forced", "condition: force"))]);
    let config = home.path().join("pipeproof.yaml");
    std::fs::write(&config, format!("version: 1\nrules: {{dir: '{}'}}\n", home.path().join("rules").display()))
        .unwrap();
    let data = home.path().join("data").display().to_string();
    let output = crate::harness::run([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--config",
        &config.display().to_string(),
        "--data",
        &data,
    ]);
    expect_exit(&output, 2);
    assert!(stderr(&output).contains("bad.yml:8"), "{}", stderr(&output));
}

#[tokio::test]
async fn exceptions_let_go_are_counted_and_end() {
    let server = Server::start();
    let good = folder(&[("forced.yml", FORCED)]);
    server.cli_json(&["rules", "deploy", &path(&good)]);
    let token = token_of(&server.add_source("ci", "json", &[]));
    let soon = now().plus(Duration::from_secs(25));
    let added = server.cli_json(&[
        "exceptions",
        "add",
        "--rule",
        "deployment_forced",
        "--where",
        "ci.repo=acme/it's-fine",
        "--where",
        "ci.repo=acme/ok",
        "--where",
        "actor.id|startswith=mall",
        "--reason",
        "release train",
        "--approved-by",
        "ciso@acme.example",
        "--ticket",
        "SEC-4711",
        "--expires",
        &soon.to_string(),
    ]);
    let id = added["exceptions"][0].as_str().unwrap().to_owned();
    assert_eq!(added["approval"], "two-persons");
    for repo in ["acme/it's-fine", "acme/ok", "acme/other"] {
        server.send("ci", &token, forced(repo)).await.expect(200);
    }
    assert_eq!(repos(&server).await, ["acme/other"]);
    let listed = items(&server.cli_json(&["exceptions", "list"]), "exceptions");
    let shown = listed.iter().find(|exception| exception["id"] == *id).unwrap();
    assert_eq!(
        (&shown["state"], &shown["let_go"], &shown["ticket"]),
        (&json!("in force"), &json!(2), &json!("SEC-4711"))
    );
    assert_eq!(rule(&server, "deployment_forced").await["digest"].as_str().map(str::len), Some(64));
    let matches = items(&server.cli_json(&["exceptions", "matches", &id]), "matches");
    assert_eq!(matches.len(), 2, "{matches:?}");
    let index = matches[0]["event"].as_str().unwrap().split('-').nth(1).unwrap();
    let sql = format!("SELECT ci_repo FROM events WHERE \"index\" = {index}");
    eventually("the lake has it", || async { (!server.sql(&sql).await.is_empty()).then_some(()) }).await;
    assert_eq!(server.sql(&sql).await, [[json!("acme/it's-fine")]], "{matches:?}");

    eventually("the exception ends", || async {
        let listed = items(&server.get("/v1/exceptions").await, "exceptions");
        (listed[0]["state"] == "expired").then_some(())
    })
    .await;
    server.send("ci", &token, forced("acme/ok")).await.expect(200);
    assert_eq!(repos(&server).await, ["acme/ok", "acme/other"], "judged on record time");

    // The audit trail tells who let go of what, and why.
    let rows = server
        .sql("SELECT CAST(body AS VARCHAR) FROM events WHERE action = 'pipeproof.rules-deployed' ORDER BY \"index\"")
        .await;
    let told: Value = serde_json::from_str(rows.last().unwrap()[0].as_str().unwrap()).unwrap();
    assert_eq!(told["change"], json!({"what": "exception-added", "ids": [id]}));
    assert_eq!(told["exceptions"][0]["reason"], "release train");

    let removed = server.cli(&["exceptions", "remove", &id]);
    expect_exit(&removed, 0);
    assert!(items(&server.get("/v1/exceptions").await, "exceptions").is_empty());
    expect_exit(&server.cli(&["exceptions", "remove", &id]), 2);
}

#[tokio::test]
async fn an_exception_needs_an_end_and_a_reason() {
    let server = Server::start();
    let good = folder(&[("forced.yml", FORCED)]);
    server.cli_json(&["rules", "deploy", &path(&good)]);
    let set = server.get("/v1/rules").await["set"].clone();
    let document = |more: &str| {
        format!(
            "title: Release train\nid: 5f1f2d0e-3c4b-4d59-9a53-0a1b2c3d4e90\nlogsource: {{product: cicd}}\nfilter:\n    \
             rules: [deployment_forced]\n    train: {{ci.repo: acme/mono}}\n    condition: not train\n{more}"
        )
    };
    for (more, needle) in [
        ("reason: because\n", "expires"),
        ("expires: 2099-01-01\n", "reason"),
        ("expires: 2001-01-01\nreason: because\n", "expired"),
        ("expires: soon\nreason: because\n", "expires"),
    ] {
        let file = folder(&[("filter.yml", &document(more))]);
        let output = server.cli(&["exceptions", "add", &file.path().join("filter.yml").display().to_string()]);
        expect_exit(&output, 2);
        assert!(stderr(&output).contains(needle), "{more}: {}", stderr(&output));
    }
    let rule = folder(&[("filter.yml", CLOUD)]);
    expect_exit(&server.cli(&["exceptions", "add", &rule.path().join("filter.yml").display().to_string()]), 2);
    assert_eq!(server.get("/v1/rules").await["set"], set);
    let output = server.cli(&["exceptions", "add", "--rule", "deployment_forced", "--where", "ci.repo=x"]);
    expect_exit(&output, 2);
    for rule in ["no_such_rule", "secret_read_burst"] {
        let args = ["exceptions", "add", "--rule", rule, "--where", "a=b", "--reason", "r", "--expires", "2099-01-01"];
        expect_exit(&server.cli(&args), 2);
    }

    let file = folder(&[("filter.yml", &document("expires: 2099-01-01\nreason: one train\n"))]);
    server.cli_json(&["exceptions", "add", &file.path().join("filter.yml").display().to_string()]);
    let token = token_of(&server.add_source("ci", "json", &[]));
    for repo in ["acme/mono", "acme/app"] {
        server.send("ci", &token, forced(repo)).await.expect(200);
    }
    assert_eq!(repos(&server).await, ["acme/app"]);
}

#[tokio::test]
async fn coverage_shows_who_cannot_see() {
    let server = Setup::new().config("rules: {shipped: false}\n").start();
    let both = folder(&[("forced.yml", FORCED), ("cloud.yml", CLOUD)]);
    server.cli_json(&["rules", "deploy", &path(&both)]);
    let token = token_of(&server.add_source("ci", "json", &[]));
    server.send("ci", &token, forced("acme/app")).await.expect(200);
    server.settled().await;
    let answer = server.cli_json(&["rules", "coverage"]);
    let coverage = &answer["coverage"];
    let of = |title: &str| {
        let rules = items(coverage, "rules");
        rules.into_iter().find(|rule| rule["title"] == title).unwrap_or_else(|| panic!("no {title} in {coverage}"))
    };
    assert_eq!(of("Deployment forced")["sight"], "sees");
    assert_eq!(
        (&of("Trail stopped here")["sight"], &of("Trail stopped here")["missing"]),
        (&json!("blind"), &json!(["aws.cloudtrail"]))
    );
    let owasp = items(coverage, "owasp_cicd");
    assert_eq!(owasp.len(), 10);
    assert_eq!((&owasp[0]["id"], &owasp[0]["seeing"], &owasp[9]["blind"]), (&json!("sec-1"), &json!(1), &json!(1)));
    assert!(items(coverage, "attack").iter().any(|row| row["id"] == "T1562.008" && row["blind"] == 1), "{coverage}");
    assert_eq!(
        coverage["controls"]["soc2"][0],
        json!({"id": "CC7.2", "active": 1, "staging": 0, "paused": 0, "seeing": 0, "blind": 1})
    );
    let human = stdout(&server.cli(&["rules", "coverage", "--format", "human"]));
    for part in ["blind", "aws.cloudtrail", "T1677", "sec-10", "A.8.32"] {
        assert!(human.contains(part), "{part}: {human}");
    }
    let trail = server.add_source("trail", "aws.cloudtrail", &[]);
    let _ = trail;
    let coverage = server.get("/v1/rules/coverage").await;
    let sight =
        items(&coverage["coverage"], "rules").into_iter().find(|rule| rule["title"] == "Trail stopped here").unwrap();
    assert_eq!(sight["sight"], "silent", "connected, and nothing came");
}

#[tokio::test]
async fn changing_rules_needs_its_own_scope() {
    let server = Server::start();
    let reader = server.token(&["rules:read"], &[]);
    for path in ["/v1/rules", "/v1/rules/coverage", "/v1/exceptions"] {
        server.api_as(&reader, Method::GET, path, None).await.expect(200);
    }
    for path in ["/v1/rules", "/v1/rules/reload", "/v1/rules/secret_in_log/pause", "/v1/exceptions"] {
        server.api_as(&reader, Method::POST, path, Some(json!({"files": []}))).await.expect(403);
    }
    server.api_as(&reader, Method::DELETE, "/v1/exceptions/x", None).await.expect(403);
    let writer = server.token(&["rules:write"], &[]);
    server.api_as(&writer, Method::POST, "/v1/rules/secret_in_log/pause", None).await.expect(200);
    server.api_as(&writer, Method::GET, "/v1/rules", None).await.expect(403);
    assert_eq!(rule(&server, "secret_in_log").await["state"], "paused");
}
