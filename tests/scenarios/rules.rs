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
