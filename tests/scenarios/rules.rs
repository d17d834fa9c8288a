//! Rules on the command line: check, test, eval, explain, without a server.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{expect_exit, fixture, program, run, stderr, stdout};

const RULE: &str = r#"title: Trail stopped
id: 11111111-2222-4333-8444-555555555555
name: trail_stopped
status: test
logsource: {product: aws, service: cloudtrail}
detection:
    stop:
        eventSource: cloudtrail.amazonaws.com
        eventName: StopLogging
    condition: stop
level: high
alert:
    title: 'Trail stopped by {userIdentity.arn}'
    entity: ['identity:userIdentity.arn']
tests:
    - name: fires
      events:
          - {at: 0s, eventSource: cloudtrail.amazonaws.com, eventName: StopLogging}
      expect: [{at: 0s}]
    - name: another call
      events:
          - {at: 0s, eventSource: cloudtrail.amazonaws.com, eventName: StartLogging}
      expect: []
"#;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn piped(args: &[&str], input: &[u8]) -> Output {
    let mut child =
        program().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn findings(output: &Output) -> Vec<Value> {
    stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn check_accepts_what_is_right_and_points_at_what_is_wrong() {
    let right = folder(&[("rule.yml", RULE)]);
    let right = right.path().display().to_string();
    expect_exit(&run(["check", &right]), 0);

    let wrong = folder(&[(
        "rule.yml",
        &RULE.replace("eventName: StopLogging\n    condition", "eventName|startwith: Stop\n    condition"),
    )]);
    let output = run(["check", &wrong.path().display().to_string()]);
    expect_exit(&output, 2);
    let text = stdout(&output) + &stderr(&output);
    assert!(text.contains("rule.yml:9"), "file and line: {text}");
    assert!(text.contains("startswith"), "did you mean: {text}");

    for (change, needle) in [
        (("condition: stop", "condition: stopp"), "stop"),
        (("level: high", "level: hihg"), "high"),
        (("detection:", "detektion:"), "detection"),
        (("title: Trail stopped\n", "title: [\n"), "rule.yml"),
    ] {
        let wrong = folder(&[("rule.yml", &RULE.replacen(change.0, change.1, 1))]);
        let output = run(["check", &wrong.path().display().to_string()]);
        expect_exit(&output, 2);
        let text = stdout(&output) + &stderr(&output);
        assert!(text.contains(needle), "{change:?}: {text}");
    }
    assert_eq!(run(["check", "/no/such/folder"]).status.code(), Some(2));
}

#[test]
fn check_reads_the_configuration_too() {
    let files = folder(&[("pipeproof.yaml", "version: 1\nlissten: 127.0.0.1:1\n")]);
    let path = files.path().join("pipeproof.yaml");
    let output = run(["check", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("lissten"), "{}", stderr(&output));
    std::fs::write(&path, "version: 1\nlisten: 127.0.0.1:1\n").unwrap();
    expect_exit(&run(["check", &path.display().to_string()]), 0);
}

#[test]
fn test_runs_what_stands_in_the_rules() {
    let right = folder(&[("rule.yml", RULE)]);
    let path = right.path().display().to_string();
    expect_exit(&run(["test", &path]), 0);
    let report = run(["test", &path, "--format", "json"]);
    expect_exit(&report, 0);
    serde_json::from_slice::<Value>(&report.stdout).unwrap();
    let junit = run(["test", &path, "--format", "junit"]);
    expect_exit(&junit, 0);
    assert!(stdout(&junit).starts_with("<?xml") && stdout(&junit).contains("<testsuite"), "{}", stdout(&junit));

    let wrong = folder(&[("rule.yml", &RULE.replace("expect: []", "expect: [{at: 0s}]"))]);
    let output = run(["test", &wrong.path().display().to_string()]);
    expect_exit(&output, 1);
    assert!((stdout(&output) + &stderr(&output)).contains("another call"), "{}", stdout(&output));
}

#[test]
fn the_shipped_rules_pass_their_own_check_and_tests() {
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/library");
    expect_exit(&run(["check", library]), 0);
    expect_exit(&run(["test", library]), 0);
    let text = std::process::Command::new("grep").args(["-rlE", "^tests:", library]).output().unwrap();
    assert!(text.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() >= 12, "{text:?}");
}

#[test]
fn eval_is_the_engine_on_lines() {
    let rules = folder(&[("rule.yml", RULE)]);
    let rules = rules.path().display().to_string();
    let stop = json!({"eventSource": "cloudtrail.amazonaws.com", "eventName": "StopLogging", "eventID": "e-2",
        "eventTime": "2026-01-01T00:00:02Z", "userIdentity": {"arn": "arn:aws:iam::1:user/mallory", "type": "IAMUser"}});
    let other = json!({"eventSource": "ec2.amazonaws.com", "eventName": "DescribeInstances", "eventTime": "2026-01-01T00:00:01Z"});
    let input = format!("{other}\n{stop}\n");
    let by_source = piped(&["eval", "--rules", &rules, "--source", "aws.cloudtrail", "-"], input.as_bytes());
    expect_exit(&by_source, 0);
    let found = findings(&by_source);
    assert_eq!(found.len(), 1, "{found:?}");
    let finding = &found[0];
    assert_eq!(
        finding["rule"],
        json!({"id": "11111111-2222-4333-8444-555555555555", "title": "Trail stopped", "level": "high"})
    );
    assert_eq!(finding["events"][0]["line"], 2);
    assert_eq!(finding["time"], "2026-01-01T00:00:02Z");
    assert!(finding["id"].as_str().unwrap().starts_with("f-"));
    assert!(finding["key"].is_object());
    assert!(
        finding["because"].as_array().unwrap().iter().any(|line| line.to_string().contains("StopLogging")),
        "{finding}"
    );

    for routing in [&["--logsource", "aws/cloudtrail"][..], &[][..], &["--no-routing"][..]] {
        let args = [&["eval", "--rules", &rules][..], routing, &["-"]].concat();
        let output = piped(&args, input.as_bytes());
        expect_exit(&output, 0);
        assert_eq!(findings(&output).len(), 1, "{routing:?}");
    }
    let again = piped(&["eval", "--rules", &rules, "--source", "aws.cloudtrail", "-"], input.as_bytes());
    assert_eq!(findings(&again)[0]["id"], finding["id"], "ids are derived");

    let file = folder(&[("events.ndjson", &input)]);
    let path = file.path().join("events.ndjson").display().to_string();
    let output = run(["eval", "--rules", &rules, "--source", "aws.cloudtrail", "--stats", &path]);
    expect_exit(&output, 0);
    assert_eq!(findings(&output).len(), 1);
    assert!(stderr(&output).contains("events/s"), "{}", stderr(&output));
    let failing = run(["eval", "--rules", &rules, "--source", "aws.cloudtrail", "--fail-on", "high", &path]);
    expect_exit(&failing, 1);
}

const ORDER: &str = r#"title: Pushed, then stopped
id: 11111111-2222-4333-8444-666666666666
correlation:
    type: temporal_ordered
    rules: [pushed, stopped]
    group-by: [actor.id]
    timespan: 5m
level: high
---
title: Pushed
id: pushed
logsource: {product: cicd}
detection: {s: {action: git.push}, condition: s}
---
title: Stopped
id: stopped
logsource: {product: cicd}
detection: {s: {action: audit.stopped}, condition: s}
"#;

fn acted(action: &str, at: &str) -> String {
    json!({"action": action, "actor": {"id": "mallory"}, "time": format!("2026-01-01T{at}Z")}).to_string()
}

#[test]
fn eval_puts_lines_and_files_in_the_order_of_their_times() {
    let rules = folder(&[("order.yml", ORDER)]);
    let rules = rules.path().display().to_string();
    let (push, stop) = (acted("git.push", "10:00:00"), acted("audit.stopped", "10:02:00"));
    // An hour between two lines lets time pass; a clock that runs ahead by years does not.
    let (later, wrong) = (acted("other", "12:00:00"), acted("other", "10:00:30").replace("2026", "2036"));
    let files = folder(&[
        ("push.ndjson", &format!("{wrong}\n{push}\n{later}\n")),
        ("stop.ndjson", &format!("{later}\n{stop}\n")),
        ("all.ndjson", &format!("{later}\n{stop}\n{wrong}\n{push}\n")),
    ]);
    let file = |name: &str| files.path().join(name).display().to_string();
    for inputs in [
        vec![file("push.ndjson"), file("stop.ndjson")],
        vec![file("stop.ndjson"), file("push.ndjson")],
        vec![file("all.ndjson")],
    ] {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let output = run([&["eval", "--rules", &rules, "--source", "json"][..], &inputs].concat());
        expect_exit(&output, 0);
        let found = findings(&output);
        assert_eq!(found.len(), 1, "{inputs:?}: {found:?}");
        assert_eq!(found[0]["time"], "2026-01-01T10:02:00Z");
        let lines: Vec<Value> =
            found[0]["events"].as_array().unwrap().iter().map(|event| event["line"].clone()).collect();
        if let [only] = inputs.as_slice() {
            assert!(only.ends_with("all.ndjson"));
            assert_eq!(lines, [json!(4), json!(2)]);
        } else {
            assert!(found[0]["events"][0]["file"].as_str().unwrap().ends_with("push.ndjson"), "{found:?}");
        }
    }
    let far = folder(&[("far.ndjson", &format!("{push}\n{}\n", acted("audit.stopped", "10:06:00")))]);
    let output =
        run(["eval", "--rules", &rules, "--source", "json", &far.path().join("far.ndjson").display().to_string()]);
    assert!(findings(&output).is_empty());

    let all = file("all.ndjson");
    let as_form = |form: &str| run(["eval", "--rules", &rules, "--source", "json", "--format", form, &all]);
    assert_eq!(serde_json::from_slice::<Value>(&as_form("json").stdout).unwrap().as_array().unwrap().len(), 1);
    assert!(stdout(&as_form("human")).contains("Pushed, then stopped"));
    assert!(stdout(&as_form("csv")).starts_with("time,level,title"));
    expect_exit(&as_form("junit"), 2);
}

#[test]
fn explain_says_which_members_an_event_matches() {
    let rules = folder(&[("order.yml", ORDER)]);
    let rules = rules.path().join("order.yml").display().to_string();
    let event =
        folder(&[("stop.json", &acted("audit.stopped", "10:00:00")), ("other.json", &acted("other", "10:00:00"))]);
    let file = |name: &str| event.path().join(name).display().to_string();
    let output = run(["explain", "--rule", &rules, "--source", "json", "--format", "human", &file("stop.json")]);
    expect_exit(&output, 0);
    let said = stdout(&output);
    assert!(said.contains("matches 1 of the 2 rules") && said.contains("Stopped: matches"), "{said}");
    assert!(said.contains("Pushed: does not match") && said.contains("git.push"), "{said}");
    let output = run(["explain", "--rule", &rules, "--source", "json", "--format", "json", &file("other.json")]);
    expect_exit(&output, 1);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["kind"], &told["matched"]), (&json!("correlation"), &json!(false)));
    assert_eq!(told["members"].as_array().unwrap().len(), 2);
}

#[test]
fn eval_says_which_line_it_cannot_read_and_goes_on() {
    let rules = folder(&[("rule.yml", RULE)]);
    let rules = rules.path().display().to_string();
    let stop =
        r#"{"eventSource":"cloudtrail.amazonaws.com","eventName":"StopLogging","eventTime":"2026-01-01T00:00:02Z"}"#;
    let output = piped(
        &["eval", "--rules", &rules, "--logsource", "aws/cloudtrail", "-"],
        format!("{{broken\n{stop}\n").as_bytes(),
    );
    assert_eq!(findings(&output).len(), 1);
    assert!(stderr(&output).contains('1'), "{}", stderr(&output));
}

#[test]
fn eval_of_real_records_with_the_shipped_rules() {
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/library");
    let output = piped(
        &["eval", "--rules", library, "--source", "aws.cloudtrail", "-"],
        &fixture("aws_cloudtrail/stratus-red-team.ndjson"),
    );
    expect_exit(&output, 0);
    let found = findings(&output);
    for title in ["Long-lived credential created", "Audit stream, trail or audit device disabled or weakened"] {
        assert!(found.iter().any(|finding| finding["rule"]["title"] == title), "{title}: {found:?}");
    }
}

#[test]
fn explain_shows_each_clause() {
    let rules = folder(&[("rule.yml", RULE)]);
    let rules = rules.path().join("rule.yml").display().to_string();
    let event = folder(&[
        ("match.json", r#"{"eventSource":"cloudtrail.amazonaws.com","eventName":"StopLogging"}"#),
        ("other.json", r#"{"eventSource":"cloudtrail.amazonaws.com","eventName":"StartLogging"}"#),
    ]);
    let matched = run(["explain", "--rule", &rules, &event.path().join("match.json").display().to_string()]);
    expect_exit(&matched, 0);
    assert!(stdout(&matched).contains("eventName"), "{}", stdout(&matched));
    let failed = run(["explain", "--rule", &rules, &event.path().join("other.json").display().to_string()]);
    assert!(stdout(&failed).contains("StartLogging"), "what the event had instead: {}", stdout(&failed));
}

#[test]
fn mistakes_on_the_command_line_exit_with_2() {
    for args in [&["evall"][..], &["eval"], &["eval", "--rules", "/no/such"], &["serve", "--lissten"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    }
    expect_exit(&run(["--version"]), 0);
    expect_exit(&run(["--help"]), 0);
}
