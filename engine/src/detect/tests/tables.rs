//! Lookups, tables, exceptions and SQL runs inside detection.

use super::*;
use crate::control::SqlRun;
use crate::plan::Content;
use crate::rule::{Filter, Lookup, SqlRule, Table, TableRows};

const START: i64 = 1_000_000;
const GRACE: i64 = 120;
const MAX_OPEN: i64 = 600;

fn equals(field: &str, text: &str) -> Condition {
    let test = TextTest::Plain { kind: AffixKind::Equals, text: text.to_owned() };
    Condition::Field { field: field.to_owned(), predicate: Predicate::Text { test, cased: false } }
}

fn not(condition: Condition) -> Condition {
    Condition::Not(Box::new(condition))
}

fn row(table: &str, keys: &[(&str, &str)]) -> Condition {
    let keys = keys.iter().map(|(field, column)| ((*field).to_owned(), (*column).to_owned())).collect();
    Condition::Lookup(Lookup { table: table.to_owned(), keys, columns: Vec::new(), during: Some("time".to_owned()) })
}

fn rule(name: &str, conditions: Vec<Condition>, emits: bool) -> Rule {
    let Rule::Detection(plain) = detection(name, "", emits) else { unreachable!() };
    Rule::Detection(DetectionRule { condition: Condition::And(conditions), ..plain })
}

fn table(name: &str, open: &str, close: &str) -> Table {
    let columns = [("run_id", "ci.run_id"), ("repo", "ci.repo"), ("ref", "ci.ref")];
    Table {
        name: name.to_owned(),
        title: name.to_owned(),
        digest: name.to_owned(),
        grace: Duration::from_secs(GRACE as u64),
        rows: TableRows::Derived {
            key: vec!["ci.run_id".to_owned(), "ci.job_id".to_owned()],
            open: vec![open.to_owned()],
            close: vec![close.to_owned()],
            columns: columns.iter().map(|(column, field)| ((*column).to_owned(), (*field).to_owned())).collect(),
            max_open: Duration::from_secs(MAX_OPEN as u64),
            retain: Duration::from_secs(1_200),
            taxonomy: Taxonomy::Cicd,
        },
    }
}

/// The example of the language: a secret is read by a CI identity with no job running.
fn no_job() -> Vec<Condition> {
    let by_run = row("jobs", &[("ci.run_id", "run_id")]);
    let by_repo = row("jobs", &[("token.repo", "repo"), ("token.ref", "ref")]);
    vec![equals("action", "secret.read"), not(Condition::Or(vec![by_run, by_repo]))]
}

fn exception(id: &str, rule: &str, repo: &str, expires: Option<i64>) -> Filter {
    Filter {
        id: id.to_owned(),
        title: id.to_owned(),
        digest: format!("digest of {id}"),
        rules: Some(vec![rule.to_owned()]),
        logsource: Logsource::default(),
        taxonomy: Taxonomy::Cicd,
        condition: not(equals("ci.repo", repo)),
        expires: expires.map(|secs| Timestamp::from_secs(START + secs)),
        reason: None,
        approved_by: Vec::new(),
        ticket: None,
    }
}

fn content() -> Content {
    let sql = SqlRule {
        meta: meta("sql", true),
        every: Duration::from_secs(300),
        lookback: Duration::from_secs(300),
        key: vec!["ci.repo".to_owned()],
        query: "SELECT 1".to_owned(),
    };
    let mut in_job = vec![equals("action", "secret.read")];
    in_job.push(row("jobs", &[("ci.run_id", "run_id")]));
    Content {
        rules: vec![
            detection("started", "job.started", false),
            detection("finished", "job.finished", false),
            rule("no_job", no_job(), true),
            // Feeds the second table although it has lookups itself.
            rule("in_job", in_job, true),
            rule("marked", vec![equals("action", "git.push"), row("marks", &[("ci.run_id", "run_id")])], true),
            correlation("many", at_least(Metric::Events, 2), &["no_job"], false),
            correlation("then", temporal(true, &[0, 1], &[]), &["no_job", "pushed"], false),
            detection("pushed", "git.push", true),
            Rule::Sql(sql),
        ],
        tables: vec![table("jobs", "started", "finished"), table("marks", "in_job", "pushed")],
        filters: vec![exception("mono", "no_job", "x/mono", None), exception("late", "pushed", "x/one", Some(700))],
    }
}

/// `(time, action, run, repo, delay)` as an event of a source.
fn fielded(index: u64, received: i64, time: i64, fields: &[(&str, &str)], item: u64) -> Decoded {
    let mut decoded = event(index, START + received, START + time, "", "", item);
    let mut own = Fields::default();
    for (name, value) in fields {
        own.set(Field::from_name(name).unwrap(), Value::Text((*value).into()));
    }
    decoded.events.as_mut().unwrap()[0].fields = own;
    decoded
}

/// When something happens, when it arrives, and its fields.
type Happens<'f> = (i64, i64, &'f [(&'f str, &'f str)]);

/// Events with the times they happen and arrive at, and a tick every five seconds until everything is decided.
fn timeline(events: &[Happens<'_>]) -> Vec<Decoded> {
    let mut order: Vec<usize> = (0..events.len()).collect();
    order.sort_by_key(|at| (events[*at].1, *at));
    let mut stream = Vec::new();
    let mut now = 0;
    let end = events.iter().map(|(_, received, _)| *received).max().unwrap_or_default() + 400;
    let mut tick_until = |stream: &mut Vec<Decoded>, until: i64| {
        while now + 5 <= until {
            now += 5;
            stream.push(control(stream.len() as u64, START + now, &Control::Tick {}));
        }
    };
    for at in order {
        let (time, received, fields) = &events[at];
        tick_until(&mut stream, *received - 1);
        stream.push(fielded(stream.len() as u64, *received, *time, fields, at as u64));
    }
    tick_until(&mut stream, end);
    stream
}

fn detector() -> Detector {
    Detector::new(Arc::new(Plan::compile(content()).unwrap()), 0)
}

/// `rule at seconds` of every finding of the stream.
fn found(stream: &[Decoded]) -> Vec<String> {
    let commit = detector().apply(stream.to_vec(), Timestamp::default()).unwrap();
    let secs = |time: Timestamp| time.as_micros() / 1_000_000 - START;
    let mut found: Vec<String> =
        commit.findings.iter().map(|finding| format!("{} {}", finding.rule_id, secs(finding.time))).collect();
    found.sort();
    found
}

const RUN: [(&str, &str); 3] = [("ci.run_id", "r1"), ("ci.job_id", "j1"), ("ci.repo", "acme/app")];

fn with<'f>(action: &'f str, more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let action = [("action", action)];
    action.iter().chain(more).copied().collect()
}

#[test]
fn a_read_inside_its_job_is_none_and_one_long_after_is() {
    let (started, finished) = (with("job.started", &RUN), with("job.finished", &RUN));
    let read = with("secret.read", &RUN);
    let inside = timeline(&[(0, 0, &started), (30, 30, &read), (300, 300, &finished)]);
    assert_eq!(found(&inside), ["in_job 30"]);
    let replayed = timeline(&[(0, 0, &started), (300, 300, &finished), (3_900, 3_900, &read)]);
    assert_eq!(found(&replayed), ["no_job 3900"]);
    let late_start = timeline(&[(10, 10, &read), (0, 60, &started)]);
    assert_eq!(found(&late_start), ["in_job 10"]);
    let main = with("job.started", &[("ci.run_id", "r4"), ("ci.repo", "acme/app"), ("ci.ref", "refs/heads/main")]);
    let subject = |git_ref| with("secret.read", &[("token.repo", "acme/app"), ("token.ref", git_ref)]);
    let (evil, good) = (subject("refs/heads/evil"), subject("refs/heads/main"));
    assert_eq!(found(&timeline(&[(0, 0, &main), (30, 30, &evil)])), ["no_job 30"]);
    assert!(found(&timeline(&[(0, 0, &main), (30, 30, &good)])).is_empty());
}

#[test]
fn a_finding_says_what_was_looked_up_in_vain_and_when_it_was_known() {
    let read = with("secret.read", &[("ci.run_id", "r2"), ("ci.repo", "acme/app"), ("secret.path", "kv/app")]);
    let stream = timeline(&[(0, 0, &read)]);
    let commit = detector().apply(stream, Timestamp::default()).unwrap();
    let finding = &commit.findings[0];
    assert_eq!(finding.because[1], "no row of jobs with run_id = r2 at 1970-01-12T13:46:40Z");
    assert_eq!(finding.entities, ["repo:acme/app"]);
    assert_eq!(finding.events[0].fields["secret.path"], "kv/app");
    // The graces of its table, and the lateness of its source.
    assert_eq!(finding.fired, Timestamp::from_secs(START + GRACE + 60));
    assert_eq!(finding.time, Timestamp::from_secs(START));
    assert_eq!(finding.available, finding.time);
}

#[test]
fn tables_are_fed_by_rules_with_lookups_too() {
    let (started, read) = (with("job.started", &RUN), with("secret.read", &RUN));
    let push = with("git.push", &RUN);
    let marked = timeline(&[(0, 0, &started), (30, 30, &read), (300, 300, &push)]);
    assert_eq!(found(&marked), ["in_job 30", "marked 300", "pushed 300"]);
    let none = timeline(&[(30, 30, &read), (300, 300, &push)]);
    assert_eq!(found(&none), ["no_job 30", "pushed 300"]);
}

#[test]
fn correlations_see_a_match_once_it_is_known() {
    let read = with("secret.read", &[("ci.run_id", "r2"), ("ci.repo", "x/a")]);
    let push = with("git.push", &[("ci.run_id", "r2"), ("ci.repo", "x/a")]);
    let stream = timeline(&[(0, 0, &read), (50, 50, &read), (70, 70, &push)]);
    assert_eq!(found(&stream), ["many 50", "no_job 0", "no_job 50", "pushed 70", "then 70"]);
}

#[test]
fn what_an_exception_lets_go_is_recorded_and_seen_by_nobody() {
    let read = |repo| with("secret.read", &[("ci.run_id", "r2"), ("ci.repo", repo)]);
    let (mono, other) = (read("x/mono"), read("x/a"));
    let stream = timeline(&[(0, 0, &mono), (10, 10, &mono), (20, 20, &other), (30, 30, &other)]);
    assert_eq!(found(&stream), ["many 30", "no_job 20", "no_job 30"]);
    let mut detector = detector();
    let commit = detector.apply(stream, Timestamp::default()).unwrap();
    assert_eq!(commit.excepted.len(), 2);
    let let_go = &commit.excepted[0];
    assert_eq!((let_go.filter.as_str(), let_go.rule.as_str()), ("mono", "no_job"));
    assert_eq!(let_go.event, "0-0-0");
    let status = detector.exception_status();
    assert_eq!((status[1].id.as_str(), status[1].count.let_go, status[1].expired), ("mono", 2, false));
    assert_eq!(detector.counters().excepted, 2);
}

#[test]
fn an_exception_that_has_expired_lets_nothing_go_and_that_is_seen() {
    let push = with("git.push", &[("ci.repo", "x/one")]);
    let stream = timeline(&[(699, 699, &push), (700, 700, &push), (710, 710, &push)]);
    assert_eq!(found(&stream), ["pushed 700", "pushed 710"]);
    let mut detector = detector();
    detector.apply(stream, Timestamp::default()).unwrap();
    let status = detector.exception_status();
    assert_eq!((status[0].id.as_str(), status[0].count.let_go, status[0].count.unfiltered), ("late", 1, 2));
    assert!(status[0].expired);
}

#[test]
fn while_what_feeds_the_table_is_silent_nothing_is_found_for_lack_of_a_row() {
    let mut content = content();
    for rule in &mut content.rules {
        let feeds = ["started", "finished"].contains(&rule.meta().id.as_str());
        rule.meta_mut().requires = vec![if feeds { "ci.jobs" } else { "json" }.to_owned()];
    }
    let plan = Arc::new(Plan::compile(content).unwrap());
    let mut stream = timeline(&[(0, 0, &with("secret.read", &RUN))]);
    let mut detector = Detector::new(Arc::clone(&plan), 0);
    assert!(detector.apply(stream.clone(), Timestamp::default()).unwrap().findings.is_empty());
    let status = |detector: &Detector| {
        let of = |status: &&RuleStatus| status.rule == "no_job";
        detector.rule_status().iter().find(of).map(|status| (status.size.waiting, status.size.blind)).unwrap()
    };
    assert_eq!(status(&detector), (1, 1));
    // The source speaks again: its late word counts, and what it does not say is missing after all.
    let at = stream.len() as u64;
    let mut spoken = fielded(at, 500, 500, &with("job.started", &[("ci.run_id", "r9")]), 77);
    spoken.record.envelope.source = "hooks".to_owned();
    spoken.record.envelope.source_type = SourceType::GithubWebhook;
    let own = &mut spoken.events.as_mut().unwrap()[0];
    own.source = "hooks".into();
    own.source_type = SourceType::GithubWebhook;
    let tick = |index: u64, secs: i64| control(index, START + secs, &Control::Tick {});
    stream = vec![spoken, tick(at + 1, 501), tick(at + 2, 560)];
    assert!(detector.apply(stream, Timestamp::default()).unwrap().findings.is_empty(), "not at once");
    let found = detector.apply(vec![tick(at + 3, 561)], Timestamp::default()).unwrap().findings;
    assert_eq!(found[0].rule_id, "no_job");
    assert_eq!(status(&detector), (0, 0));
}

/// The record as history loaded later.
fn loaded(mut decoded: Decoded) -> Decoded {
    decoded.record.envelope.mode = CollectionMode::Backfill;
    decoded.events.as_mut().unwrap()[0].mode = CollectionMode::Backfill;
    decoded
}

#[test]
fn history_fills_the_tables_and_is_itself_decided_when_it_falls_silent() {
    let started = with("job.started", &RUN);
    let read = with("secret.read", &RUN);
    let tick = |index: u64, secs: i64| control(index, START + secs, &Control::Tick {});
    let mut detector = detector();
    let mut found = |records: Vec<Decoded>| -> Vec<(String, bool)> {
        let commit = detector.apply(records, Timestamp::default()).unwrap();
        commit.findings.into_iter().map(|finding| (finding.rule_id, finding.retro)).collect()
    };
    // The live read comes first; the job it is in was running before the source was connected.
    let live = vec![fielded(0, 500, 500, &read, 1), loaded(fielded(1, 510, 450, &started, 2)), tick(2, 560)];
    assert!(found(live).is_empty());
    let other = with("secret.read", &[("ci.run_id", "r9"), ("ci.repo", "acme/app")]);
    let history = vec![loaded(fielded(3, 570, 460, &other, 3)), tick(4, 620)];
    assert!(found(history).is_empty(), "more of it may come");
    assert_eq!(found(vec![tick(5, 630)]), [("no_job".to_owned(), true)], "a minute of silence");
    assert_eq!(found(vec![tick(6, 690)]), [("in_job".to_owned(), false)]);
}

fn sql_run(index: u64, secs: i64, to: i64, repos: &[&str]) -> Decoded {
    let row =
        |repo: &&str| BTreeMap::from([("ci.repo".to_owned(), (*repo).to_owned()), ("jobs".to_owned(), "3".to_owned())]);
    let run = SqlRun {
        rule: "sql".to_owned(),
        digest: "digest of sql".to_owned(),
        from: Timestamp::from_secs(START + to - 300),
        to: Timestamp::from_secs(START + to),
        rows: repos.iter().map(row).collect(),
        truncated: false,
    };
    control(index, START + secs, &Control::SqlRun(run))
}

#[test]
fn rows_of_a_sql_rule_become_findings_once_per_episode() {
    let stream = vec![
        sql_run(0, 310, 300, &["x/b", "x/a"]),
        sql_run(1, 320, 300, &["x/b", "x/c"]),
        sql_run(2, 610, 600, &["x/a"]),
        sql_run(3, 910, 900, &["x/a", "x/b"]),
    ];
    let commit = detector().apply(stream.clone(), Timestamp::default()).unwrap();
    let told: Vec<_> = commit.findings.iter().map(|finding| (finding.key["ci.repo"].as_str(), finding.time)).collect();
    let at = |secs| Timestamp::from_secs(START + secs);
    assert_eq!(told, [("x/a", at(300)), ("x/b", at(300)), ("x/b", at(900))]);
    assert_eq!(commit.findings[0].because[1..], ["ci.repo = x/a", "jobs = 3"]);
    assert_eq!(commit.findings[0].entities, ["repo:x/a"]);
    let ids: std::collections::BTreeSet<_> = commit.findings.iter().map(|finding| &finding.id).collect();
    assert_eq!(ids.len(), 3, "each episode has its own");
    let mut other = stream;
    for decoded in &mut other {
        let body = String::from_utf8(decoded.record.body.to_vec()).unwrap().replace("digest of sql", "older");
        decoded.record.body = Bytes::from(body);
    }
    assert!(detector().apply(other, Timestamp::default()).unwrap().findings.is_empty(), "of another rule set");
}

/// A table that the query fills, and a rule about repositories that are not in it.
fn asked() -> Content {
    let mut content = content();
    content.rules.push(rule(
        "unlisted",
        vec![equals("action", "git.push"), not(row("listed", &[("ci.repo", "repo")]))],
        true,
    ));
    let mut listed = table("listed", "sql", "sql");
    listed.grace = Duration::ZERO;
    if let TableRows::Derived { key, close, columns, max_open, .. } = &mut listed.rows {
        close.clear();
        *key = vec!["ci.repo".to_owned()];
        *columns = BTreeMap::from([("repo".to_owned(), "ci.repo".to_owned())]);
        *max_open = Duration::from_secs(1_000_000);
    }
    content.tables.push(listed);
    content
}

#[test]
fn a_table_holds_what_its_query_gave_last_and_says_nothing_before_it_was_asked() {
    let mut detector = Detector::new(Arc::new(Plan::compile(asked()).unwrap()), 0);
    let mut at = 0;
    let mut found = |stream: Vec<Decoded>| -> Vec<(String, i64)> {
        let mut own = Vec::new();
        for mut decoded in stream {
            decoded.index = at;
            if let Ok(events) = &mut decoded.events {
                events.iter_mut().for_each(|event| event.id.position.index = at);
            }
            at += 1;
            own.extend(detector.apply(vec![decoded], Timestamp::default()).unwrap().findings);
        }
        let own = own.into_iter().filter(|finding| finding.rule_id == "unlisted");
        own.map(|finding| (finding.entities[0].clone(), finding.time.as_micros() / 1_000_000 - START)).collect()
    };
    let push = |secs: i64, repo: &str| {
        let fields = with("git.push", &[("ci.repo", repo)]);
        let mut decoded = fielded(0, secs, secs, &fields, secs as u64);
        decoded.record.envelope.item = format!("push {secs}");
        decoded
    };
    let tick = |secs: i64| control(0, START + secs, &Control::Tick {});
    assert!(found(vec![push(10, "x/one"), tick(100), tick(300)]).is_empty(), "it was never asked");
    let first = found(vec![sql_run(0, 310, 300, &["x/one"]), push(320, "x/one"), push(330, "x/two"), tick(340)]);
    assert!(first.is_empty(), "the watermark has not passed");
    let told = |repo: &str, secs: i64| (format!("repo:{repo}"), secs);
    let now = found(vec![push(390, "x/one"), tick(400), tick(470)]);
    assert_eq!(now, [told("x/two", 330)], "the first run's rows held while it looked back");
    let gone = found(vec![sql_run(0, 610, 600, &["x/two"]), push(620, "x/one"), push(630, "x/two"), tick(720)]);
    assert_eq!(gone, [told("x/one", 620)]);
    let same = found(vec![sql_run(0, 910, 900, &["x/two"]), push(920, "x/two"), push(930, "x/one"), tick(1_020)]);
    assert_eq!(same, [told("x/one", 930)]);
    let history = |secs: i64, repo: &str, tag: u64| {
        let mut decoded = push(secs, repo);
        decoded.record.envelope.mode = CollectionMode::Backfill;
        decoded.record.envelope.item = format!("history {tag}");
        decoded.record.envelope.received = Timestamp::from_secs(START + 1_030);
        for event in decoded.events.as_mut().unwrap() {
            event.mode = CollectionMode::Backfill;
            event.received = Timestamp::from_secs(START + 1_030);
        }
        decoded
    };
    let old = found(vec![history(100, "x/one", 1), history(110, "x/two", 2), tick(1_100), tick(1_200)]);
    assert_eq!(old, [told("x/two", 110)], "history is held against what was known of its time");
    assert_eq!(detector.table_status()[2].entries, 3, "what stays the same opens once");
}

#[test]
fn rows_and_candidates_that_can_no_longer_matter_are_let_go() {
    let (started, finished, read) = (with("job.started", &RUN), with("job.finished", &RUN), with("secret.read", &RUN));
    let mut detector = detector();
    detector.apply(timeline(&[(0, 0, &started), (30, 30, &read), (60, 60, &finished)]), Timestamp::default()).unwrap();
    let sizes =
        |detector: &Detector| -> Vec<usize> { detector.table_status().iter().map(|status| status.entries).collect() };
    assert_eq!(sizes(&detector), [2, 1]);
    let at = detector.position();
    let ticks = [2_000, 2_500].map(|secs| control(at + u64::from(secs > 2_000), START + secs, &Control::Tick {}));
    detector.apply(ticks.to_vec(), Timestamp::default()).unwrap();
    assert_eq!(sizes(&detector), [0, 0]);
}

#[derive(Clone, Debug)]
enum Step {
    Event { behind: i64, action: &'static str, run: &'static str, repo: &'static str, item: u64 },
    Tick,
    Sql { to: i64, repos: Vec<&'static str> },
}

fn streams() -> impl Strategy<Value = Vec<Decoded>> {
    let action = prop_oneof![Just("job.started"), Just("job.finished"), Just("secret.read"), Just("git.push")];
    let run = || prop_oneof![Just("r1"), Just("r2"), Just("r3")];
    let repo = || prop_oneof![Just("x/one"), Just("x/mono")];
    let event = (0_i64..50, action, run(), repo(), 0_u64..60)
        .prop_map(|(behind, action, run, repo, item)| Step::Event { behind, action, run, repo, item });
    let sql = (0_i64..8, proptest::collection::vec(repo(), 0..3)).prop_map(|(to, repos)| Step::Sql { to, repos });
    let step = prop_oneof![6 => event, 2 => Just(Step::Tick), 1 => sql];
    proptest::collection::vec((0_i64..60, step), 1..60).prop_map(|steps| {
        let mut now = 0;
        let mut stream = Vec::new();
        for (pause, step) in steps {
            now += pause;
            let index = stream.len() as u64;
            stream.push(match step {
                Step::Tick => control(index, START + now, &Control::Tick {}),
                Step::Sql { to, repos } => sql_run(index, now, to * 300, &repos),
                Step::Event { behind, action, run, repo, item } => {
                    let fields = [("action", action), ("ci.run_id", run), ("ci.repo", repo)];
                    fielded(index, now, now - behind, &fields, item)
                }
            });
        }
        for more in [100, 300, 600, 3_000] {
            stream.push(control(stream.len() as u64, START + now + more, &Control::Tick {}));
        }
        stream
    })
}

/// Everything that is told of a stream, and the last state.
fn told(stream: &[Decoded], cut: impl Fn(usize) -> bool, restore: bool, snapshots: bool) -> (Vec<String>, Vec<u8>) {
    let plan = Arc::new(Plan::compile(asked()).unwrap());
    let mut detector = Detector::new(Arc::clone(&plan), 0);
    let mut restored = Restored::default();
    let mut told = Vec::new();
    let mut batch = Vec::new();
    for (at, decoded) in stream.iter().enumerate() {
        batch.push(decoded.clone());
        if !cut(at) && at + 1 < stream.len() {
            continue;
        }
        let commit = detector.apply(std::mem::take(&mut batch), Timestamp::default()).unwrap();
        told.extend(commit.findings.iter().map(|finding| format!("{finding:?}")));
        told.extend(commit.excepted.iter().map(|excepted| format!("{excepted:?}")));
        restored.position = commit.to;
        restored.deltas.push(commit.delta);
        if snapshots {
            restored.deltas.clear();
            restored.snapshot = Some((commit.to, detector.snapshot().unwrap()));
        }
        if restore {
            detector = Detector::restore(Arc::clone(&plan), 0, &restored).unwrap();
        }
    }
    // Let-go matches are listed after the findings of their batch.
    told.sort();
    told.push(format!("{:?}", detector.exception_status()));
    (told, detector.snapshot().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn batches_and_restarts_change_nothing(stream in streams(), size in 1_usize..9) {
        let whole = told(&stream, |_| false, false, false);
        prop_assert_eq!(&told(&stream, |at| at % size == 0, false, false), &whole);
        prop_assert_eq!(&told(&stream, |at| at % size == 0, true, false), &whole);
        prop_assert_eq!(&told(&stream, |at| at % size == 0, true, true), &whole);
        prop_assert_eq!(&told(&stream, |_| true, true, false), &whole, "at every record");
    }

    #[test]
    fn delivering_everything_twice_changes_nothing(stream in streams()) {
        let mut twice = Vec::new();
        for decoded in &stream {
            for _ in 0..2 {
                let mut again = decoded.clone();
                again.index = twice.len() as u64;
                twice.push(again);
            }
        }
        let ids = |stream: &[Decoded]| -> Vec<String> {
            let commit = detector().apply(stream.to_vec(), Timestamp::default()).unwrap();
            let mut ids: Vec<String> = commit.findings.into_iter().map(|finding| finding.id).collect();
            ids.sort();
            ids
        };
        prop_assert_eq!(ids(&twice), ids(&stream));
    }

    #[test]
    fn the_order_of_arrival_changes_nothing_and_rows_follow_from_what_happened(
        events in proptest::collection::btree_map(0_i64..1_500, (0_usize..4, 0_usize..3, 0_i64..55), 1..40),
    ) {
        let actions = ["job.started", "job.finished", "secret.read", "git.push"];
        let runs = ["r1", "r2", "r3"];
        let fields: Vec<Vec<(&str, &str)>> = events
            .values()
            .map(|(action, run, _)| vec![("action", actions[*action]), ("ci.run_id", runs[*run]), ("ci.repo", "x/a")])
            .collect();
        let line = |delayed: bool| -> Vec<Decoded> {
            let listed: Vec<_> = events
                .iter()
                .zip(&fields)
                .map(|((time, (.., delay)), fields)| (*time, time + if delayed { *delay } else { 0 }, fields.as_slice()))
                .collect();
            timeline(&listed)
        };
        let found_late = found(&line(true));
        prop_assert_eq!(&found_late, &found(&line(false)));
        // A read has no job if the last thing its run did in time to count is no start, or one too long ago.
        let mut expected: Vec<String> = Vec::new();
        for (time, (action, run, _)) in &events {
            if actions[*action] != "secret.read" {
                continue;
            }
            let mut held = false;
            let mut open: Option<i64> = None;
            let holds = |from: i64, to: i64| from - GRACE <= *time && *time <= to + GRACE;
            for (at, (what, of, _)) in events.range(..=time + GRACE).filter(|(_, (_, of, _))| of == run) {
                if let (Some(from), "job.started" | "job.finished") = (open, actions[*what]) {
                    held |= holds(from, (*at).min(from + MAX_OPEN));
                    open = None;
                }
                if actions[*what] == "job.started" {
                    open = Some(*at);
                }
                prop_assert_eq!(of, run);
            }
            held |= open.is_some_and(|from| holds(from, from + MAX_OPEN));
            expected.push(format!("{} {time}", if held { "in_job" } else { "no_job" }));
        }
        expected.sort();
        let reads: Vec<String> = found_late.into_iter().filter(|line| line.contains("_job ")).collect();
        prop_assert_eq!(reads, expected);
    }
}
