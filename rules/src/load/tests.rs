//! Whole files: kinds of documents, members, digests, problems with their places.

use pipeproof_engine::rule::{Level, Metric, Operator, RuleState};

use super::*;
use crate::run::run_tests;

fn set(text: &str) -> RuleSet {
    load(&[("r.yml".to_owned(), text.to_owned())], &Lists::new())
}

fn problems(text: &str) -> Vec<String> {
    set(text).diagnostics.iter().map(ToString::to_string).collect()
}

const RULE: &str = "\
title: Push by mallory
id: 2f86eedb-5082-4af1-8a69-ef3391850480
name: pushed
version: 3
state: staging
taxonomy: cicd
logsource: {product: cicd, category: scm}
detection:
    s:
        action: git.push
        actor.id|contains: [mallory, eve]
    condition: s
level: high
tags: [attack.t1677]
controls: {soc2: [CC8.1]}
requires: [github.webhook]
alert: {title: 'Push by {actor.id}', entity: ['repo:ci.repo'], dedup: [ci.repo], quiet: 2h}
";

const COUNT: &str = "\
title: Many pushes
name: many
correlation:
    type: event_count
    rules: [pushed]
    group-by: [actor.id]
    timespan: 5m
    condition: {gte: 3}
";

#[test]
fn a_rule_with_everything() {
    let set = set(RULE);
    assert!(set.diagnostics.is_empty(), "{:?}", set.diagnostics);
    let [Rule::Detection(rule)] = set.rules.as_slice() else { panic!("{:?}", set.rules) };
    let meta = &rule.meta;
    assert_eq!((meta.level, meta.state, meta.version, meta.emits), (Level::High, RuleState::Staging, Some(3), true));
    assert_eq!(meta.alert.entity, [("repo".to_owned(), "ci.repo".to_owned())]);
    assert_eq!(meta.alert.quiet, Some(std::time::Duration::from_secs(7_200)));
    assert_eq!(meta.controls["soc2"], ["CC8.1"]);
    assert_eq!(meta.digest.len(), 64);
    assert_eq!(set.origins[0], Origin { file: "r.yml".to_owned(), line: 1 });
}

#[test]
fn digests_depend_on_meaning_alone() {
    let digest = |text: &str| set(text).rules[0].meta().digest.clone();
    let base = digest(RULE);
    let same = [
        RULE.replace("{product: cicd, category: scm}", "\n    category: SCM\n    product: 'cicd'"),
        RULE.replace("[mallory, eve]", "\n            - eve\n            - \"mallory\""),
        RULE.replace("title: Push by mallory", "title: Another").replace("level: high", "level: low"),
        RULE.replace("quiet: 2h", "quiet: 3h").replace("version: 3", "version: 4").replace("staging", "active"),
        RULE.replace("        action: git.push\n", "")
            .replace("[mallory, eve]", "[mallory, eve]\n        action: 'git.push'"),
        RULE.replace("    s:\n", "    selection:\n").replace("condition: s", "condition: selection"),
        format!("# a comment\n{RULE}\n"),
    ];
    for text in same {
        assert_eq!(digest(&text), base, "{text}");
    }
    let other = [
        RULE.replace("mallory, eve", "mallory, eva"),
        RULE.replace("contains", "startswith"),
        RULE.replace("contains", "contains|cased"),
        RULE.replace("contains", "contains|all"),
        RULE.replace("condition: s", "condition: not s"),
        RULE.replace("category: scm", "category: job"),
        RULE.replace("taxonomy: cicd", "taxonomy: sigma"),
    ];
    for text in other {
        assert_ne!(digest(&text), base, "{text}");
    }
    // A digest that was published never changes: finding ids hang on it.
    assert_eq!(base, "974be9a147d85868dc837be00d18bd984dea0a98d87ba2879655984665eb917c");
    let listed = RULE.replace("actor.id|contains: [mallory, eve]", "actor.id|contains|expand: '%who%'");
    let with = |values: &[&str]| {
        let mut lists = Lists::new();
        lists.set("who", values.iter().map(ToString::to_string).collect());
        load(&[("r.yml".to_owned(), listed.clone())], &lists).rules[0].meta().digest.clone()
    };
    assert_eq!(with(&["eve", "mallory"]), base, "a list is as good as its values");
    assert_ne!(with(&["eve"]), base);
}

#[test]
fn correlations_find_their_members_and_their_digests_cover_them() {
    let both = format!("{COUNT}---\n{RULE}");
    let found = set(&both);
    assert!(!found.has_errors(), "{:?}", found.diagnostics);
    let digest = |text: &str| {
        let set = set(text);
        let rule =
            set.rules.iter().find(|rule| rule.meta().id == "many").unwrap_or_else(|| panic!("{:?}", set.diagnostics));
        rule.meta().digest.clone()
    };
    let base = digest(&both);
    let [Rule::Detection(member), Rule::Correlation(rule)] = found.rules.as_slice() else { panic!() };
    assert!(!member.meta.emits, "a member is silent");
    assert!(matches!(rule.operator, Operator::Aggregate { metric: Metric::Events, .. }));
    assert!(set(&both.replace("timespan", "generate: true\n    timespan")).rules[0].meta().emits);
    for (from, to) in [
        ("mallory, eve", "mallory, eva"),
        ("gte: 3", "gt: 3"),
        ("5m", "6m"),
        ("[actor.id]", "[ci.repo]"),
        ("type:", "emit: early\n    type:"),
    ] {
        assert_ne!(digest(&both.replace(from, to)), base, "{from}");
    }
    for (from, to) in
        [("5m", "300s"), ("pushed", "shoved"), ("Many pushes", "Lots"), ("generate: true", "generate: false")]
    {
        assert_eq!(digest(&both.replace(from, to)), base, "{from}");
    }
    let aliased = both.replace("[actor.id]", "[who]\n    aliases: {who: {pushed: actor.id}}");
    assert!(!set(&aliased).has_errors());
}

#[test]
fn problems_say_where_and_what_was_meant() {
    let both = format!("{COUNT}---\n{RULE}");
    for (text, at, code, said) in [
        (both.replace("rules: [pushed]", "rules: [pusher]"), "r.yml:5:13", "E0132", "no rule is called `pusher`"),
        (both.replace("rules: [pushed]", "rules: [pushd]"), "r.yml:5:13", "E0132", "did you mean `pushed`?"),
        (both.replace("|contains", "|contians"), "r.yml:5:13", "E0135", "has errors"),
        (both.replace("rules: [pushed]", "rules: [many]"), "r.yml:5:13", "E0135", "leads back"),
        (both.replace("event_count", "event_cuont"), "r.yml:4:11", "E0130", "did you mean `event_count`?"),
        (both.replace("event_count", "value_count"), "r.yml:8:16", "E0105", "needs `field`"),
        (both.replace("{gte: 3}", "pushed"), "r.yml:8:16", "E0133", "compares a number"),
        (both.replace("{gte: 3}", "{gte: 3, let: 5}"), "r.yml:8:25", "E0107", "did you mean `lt`?"),
        (both.replace("{gte: 3}", "{}"), "r.yml:8:16", "E0133", "compares with nothing"),
        (both.replace("{gte: 3}", "{gte: -1}"), "r.yml:8:22", "E0106", "whole number"),
        (both.replace("event_count", "temporal"), "r.yml:8:16", "E0131", "so many cannot match"),
        (both.replace("    type:", "    season: hour_of_week\n    type:"), "r.yml:4:5", "E0107", "no key `season`"),
        (both.replace("timespan: 5m", "timespan: {session: 5m}"), "r.yml:7:15", "E0105", "needs `max`"),
        (both.replace("timespan: 5m", "timespan: {session: 5m, max: 1m}"), "r.yml:7:15", "E0133", "longer than"),
        (both.replace("timespan: 5m", "timespan: 0s"), "r.yml:7:15", "E0133", "no length"),
        (both.replace("timespan: 5m", "timespan: 5"), "r.yml:7:15", "E0134", "timespan"),
        (both.replace("gte: 3", "lte: 3}\n    emit: early\n    aliases: {"), "r.yml:9:11", "E0133", "early"),
        (both.replace("[actor.id]", "[who]\n    aliases: {who: {pushd: actor.id}}"), "r.yml:7:21", "E0132", "none of"),
        (both.replace("group-by", "groupby"), "r.yml:6:5", "E0107", "did you mean `group-by`?"),
        (format!("{RULE}---\n{RULE}"), "r.yml:19:1", "E0151", "already"),
        (RULE.replace("level: high", "level: hihg"), "r.yml:13:8", "E0106", "did you mean `high`?"),
        (RULE.replace("level: high", "levl: high"), "r.yml:13:1", "W0202", "did you mean `level`?"),
        (RULE.replace("condition: s", "condition: t"), "r.yml:12:16", "E0121", "not defined"),
        (RULE.replace("actor.id|", "actor.idd|"), "r.yml:11:9", "W0201", "did you mean `actor.id`?"),
        (RULE.replace("github.webhook", "ci.jbos"), "r.yml:16:12", "W0208", "did you mean `ci.jobs`?"),
        (RULE.replace("github.webhook", "github.webhok"), "r.yml:16:12", "W0208", "did you mean `github.webhook`?"),
        (RULE.replace("repo:ci.repo", "ci.repo"), "r.yml:17:47", "E0106", "KIND:FIELD"),
        (RULE.replace("detection:", "detections:"), "r.yml:1:1", "E0104", "did you mean `detection`?"),
        ("- a\n".to_owned(), "r.yml:1:1", "E0104", "must be a mapping"),
        ("title: x\nfilter: {rules: any}\n".to_owned(), "r.yml:2:9", "E0105", "no `condition`"),
        ("title: x\nname: x\nsql: {query: q}\n".to_owned(), "r.yml:3:6", "E0105", "no `every`"),
        ("title: x\nname: t\ntable: {key: q}\n".to_owned(), "r.yml:3:8", "E0105", "no `open`"),
        (format!("{RULE}table: {{}}\n"), "r.yml:18:8", "E0104", "either `detection` or `table`"),
        (RULE.replace("condition: s", "condition: s | count() > 3"), "r.yml:12:16", "E0122", "obsolete"),
        (format!("{RULE}tests: [{{name: t, event: []}}]\n"), "r.yml:18:19", "E0107", "did you mean `events`?"),
        (
            format!("{RULE}tests: [{{name: t, events: [{{action: x}}], expect: []}}]\n"),
            "r.yml:18:28",
            "E0160",
            "needs `at`",
        ),
    ] {
        let found = problems(&text);
        let right = |problem: &&String| problem.starts_with(at) && problem.contains(code) && problem.contains(said);
        assert!(found.iter().any(|problem| right(&problem)), "{at} {code} {said}: {found:#?}");
    }
}

#[test]
fn one_broken_rule_keeps_no_other_out() {
    let set = load(
        &[
            ("a.yml".to_owned(), RULE.replace("|contains", "|nonsense")),
            ("b.yml".to_owned(), RULE.replace("pushed", "other").replace("1850480", "1850481")),
            ("c.yml".to_owned(), "a: [".to_owned()),
        ],
        &Lists::new(),
    );
    assert_eq!(set.rules.len(), 1);
    assert!(set.has_errors());
    assert!(set.diagnostics.iter().any(|problem| problem.file == "c.yml"));
}

#[test]
fn tests_inside_rules_can_fail() {
    let with = |tests: &str| {
        let outcomes = run_tests(&set(&format!("{RULE}tests:\n{tests}")));
        assert_eq!(outcomes.len(), 1);
        outcomes.into_iter().next().unwrap()
    };
    let push = "{at: 0s, action: git.push, actor.id: eve, ci.repo: a/b}";
    let right = with(&format!("    - {{name: t, events: [{push}], expect: [{{at: 0s, key: {{ci.repo: a/b}}}}]}}\n"));
    assert!(right.passed, "{right:?}");
    assert_eq!(right.got[0].title, "Push by eve");
    for wrong in ["[]", "[{at: 1s}]", "[{at: 0s, key: {ci.repo: c/d}}]", "[{at: 0s}, {at: 0s}]"] {
        let outcome = with(&format!("    - {{name: t, events: [{push}], expect: {wrong}}}\n"));
        assert!(!outcome.passed && outcome.message.is_some(), "{wrong}");
    }
}

#[test]
fn tests_of_native_rules_choose_the_source_of_the_logsource() {
    let text = "\
title: Trail stopped
logsource: {product: aws, service: cloudtrail}
detection:
    s: {eventName: StopLogging, requestParameters.name|contains: trail}
    condition: s
tests:
    - {name: fires, events: [{at: 0s, eventName: StopLogging, requestParameters: {name: main-trail}}], expect: [{at: 0s}]}
    - {name: other source, events: [{at: 0s, source: json, eventName: StopLogging, requestParameters: {name: main-trail}}], expect: []}
";
    let set = set(text);
    assert_eq!(set.diagnostics.iter().map(|problem| problem.code.name()).collect::<Vec<_>>(), ["W0204"]);
    assert!(run_tests(&set).iter().all(|outcome| outcome.passed), "{:#?}", run_tests(&set));
}

const TABLE: &str = "\
title: CI jobs
name: jobs
table:
    key: [ci.run_id, ci.job_id]
    open: started
    close: [finished]
    columns: {run_id: ci.run_id, environment: ci.environment}
    grace: 2m
---
title: Started
name: started
logsource: {product: cicd, category: job}
detection: {s: {action: job.started}, condition: s}
---
title: Finished
name: finished
logsource: {product: cicd, category: job}
level: low
detection: {s: {action: job.finished}, condition: s}
---
title: Read without a job
name: read
logsource: {product: cicd, category: secret}
detection:
    read: {action: secret.read}
    job: {ci.run_id|lookup: jobs.run_id, time|during: jobs}
    condition: read and not job
";

#[test]
fn tables_and_lookups() {
    let found = set(TABLE);
    assert!(found.diagnostics.is_empty(), "{:?}", found.diagnostics);
    assert_eq!(found.content().tables.len(), 1);
    assert_eq!(found.table_origins[0], Origin { file: "r.yml".to_owned(), line: 1 });
    let emits = |set: &RuleSet, name: &str| set.rules.iter().find(|rule| rule.meta().id == name).unwrap().meta().emits;
    assert!(!emits(&found, "started"), "it only feeds the table");
    assert!(emits(&found, "finished") && emits(&found, "read"), "it has a level of its own");
    let digest = |text: &str| {
        let set = set(text);
        let rule = set.rules.iter().find(|rule| rule.meta().id == "read");
        rule.unwrap_or_else(|| panic!("{:?}", set.diagnostics)).meta().digest.clone()
    };
    let base = digest(TABLE);
    for (from, to) in [
        ("grace: 2m", "grace: 3m"),
        ("job.started", "job.queued"),
        ("key: [ci.run_id, ci.job_id]", "key: [ci.run_id]"),
        ("environment: ci.environment", "environment: ci.ref"),
        ("grace: 2m", "max_open: 1h\n    grace: 2m"),
        (", time|during: jobs}", "}"),
        ("close: [finished]", "close: []"),
    ] {
        assert_ne!(digest(&TABLE.replace(from, to)), base, "{from}");
    }
    for (from, to) in
        [("CI jobs", "Jobs"), ("jobs", "work"), ("finished", "ended"), ("grace: 2m", "grace: 120s\n    retain: 90d")]
    {
        let text = TABLE.replace(from, to).replace("job.ended", "job.finished");
        assert_eq!(digest(&text), base, "{from}");
    }
    for (from, to, at, code, said) in [
        ("lookup: jobs.run_id", "lookup: jobs.run_i", "r.yml:26:29", "E0117", "did you mean `run_id`?"),
        ("lookup: jobs.run_id", "lookup: jobs.xyz", "r.yml:26:29", "E0117", "its columns: environment, run_id"),
        ("lookup: jobs.run_id", "lookup: job.run_id", "r.yml:26:29", "E0117", "did you mean `jobs`?"),
        ("open: started", "open: startd", "r.yml:5:11", "E0132", "did you mean `started`?"),
        ("open: started", "open: read", "r.yml:5:11", "E0135", "leads back"),
        ("name: jobs", "name: jobs.ci", "r.yml:2:7", "E0140", "neither"),
        ("action: job.started", "action|xx: job.started", "r.yml:5:11", "E0135", "the rule `started` has errors"),
        ("key: [ci.run_id, ci.job_id]", "key: []", "r.yml:4:5", "E0105", "no `key`"),
        ("grace: 2m", "grace: x", "r.yml:8:12", "E0134", "grace"),
        ("grace: 2m", "query: SELECT", "r.yml:8:12", "E0140", "SQL"),
        ("{run_id: ci.run_id, environment: ci.environment}", "[ci.run_id]", "r.yml:7:14", "E0106", "maps"),
    ] {
        let found = problems(&TABLE.replace(from, to));
        let right = |problem: &&String| problem.starts_with(at) && problem.contains(code) && problem.contains(said);
        assert!(found.iter().any(|problem| right(&problem)), "{at} {code} {said}: {found:#?}");
    }
    let twice = format!("{TABLE}---\ntitle: x\nname: jobs\ntable: {{key: a, open: started, columns: {{a: ci.ref}}}}\n");
    assert!(problems(&twice).iter().any(|problem| problem.contains("a table called `jobs` stands at r.yml:1")));
}

#[test]
fn tables_from_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("owners.csv"), "repo,team\nacme/app,red\nacme/lib,blue\n").unwrap();
    let path = folder.path().join("r.yml").display().to_string();
    let text = "title: Owners\nname: owners\ntable: {from: owners.csv}\n---\ntitle: Pushed\nname: p\n\
                logsource: {product: cicd}\ndetection:\n    s: {ci.repo|lookup: owners.repo, owners.team: red}\n    condition: s\n";
    let of = |text: &str| load(&[(path.clone(), text.to_owned())], &Lists::new());
    let found = of(text);
    assert!(found.diagnostics.is_empty(), "{:?}", found.diagnostics);
    assert!(matches!(&found.tables[0].rows, pipeproof_engine::rule::TableRows::Given(rows) if rows.len() == 2));
    let digest = |set: &RuleSet| set.rules[0].meta().digest.clone();
    std::fs::write(folder.path().join("owners.csv"), "team,repo\nblue,acme/lib\nred,acme/app\n").unwrap();
    assert_eq!(digest(&of(text)), digest(&found), "the order of rows and columns decides nothing");
    std::fs::write(folder.path().join("owners.csv"), "team,repo\nred,acme/lib\nred,acme/app\n").unwrap();
    assert_ne!(digest(&of(text)), digest(&found));
    let missing = of(&text.replace("from: owners.csv", "from: other.csv"));
    let said: Vec<_> = missing.diagnostics.iter().map(ToString::to_string).collect();
    assert!(said[0].contains(":3:15: error[E0141]: cannot read"), "{said:?}");
    assert!(said[1].contains("E0135") && said[1].contains("the table `owners` has errors"), "{said:?}");
}

const FILTER: &str = "\
title: Mallory may
id: 5f1f2d0e-3c4b-4d59-9a53-0a1b2c3d4e90
logsource: {product: cicd, category: scm}
filter:
    rules: [pushed]
    release: {actor.id: mallory}
    condition: not release
expires: 2027-02-28
reason: she releases
approved_by: [ciso@acme.example]
ticket: SEC-1
";

#[test]
fn exceptions() {
    let both = format!("{FILTER}---\n{RULE}");
    let found = set(&both);
    assert!(found.diagnostics.is_empty(), "{:?}", found.diagnostics);
    let filter = &found.filters[0];
    assert_eq!(filter.rules.as_deref(), Some(["pushed".to_owned()].as_slice()));
    assert_eq!(filter.expires.unwrap().to_string(), "2027-03-01T00:00:00Z", "the day counts to its end");
    assert_eq!((filter.reason.as_deref(), filter.ticket.as_deref()), (Some("she releases"), Some("SEC-1")));
    assert_eq!(filter.digest.len(), 64);
    let exact = set(&both.replace("2027-02-28", "2027-02-28T12:00:00Z"));
    assert_eq!(exact.filters[0].expires.unwrap().to_string(), "2027-02-28T12:00:00Z");
    assert_ne!(exact.filters[0].digest, filter.digest);
    assert_eq!(set(RULE).rules[0].meta().digest, found.rules[0].meta().digest, "a filter is no part of the rule");
    for (text, at, code, said) in [
        (both.replace("rules: [pushed]", "rules: [pushd]"), "r.yml:5:13", "E0143", "did you mean `pushed`?"),
        (both.replace("rules: [pushed]", "rules: [many]") + "---\n" + COUNT, "r.yml:5:13", "E0142", "correlation"),
        (both.replace("|contains", "|xx"), "r.yml:5:13", "E0135", "has errors"),
        (both.replace("    rules: [pushed]\n", ""), "r.yml:5:5", "E0105", "no `rules`"),
        (both.replace("2027-02-28", "soon"), "r.yml:8:10", "E0106", "`expires` cannot be"),
        (both.replace("expires: 2027-02-28\n", ""), "r.yml:1:1", "W0214", "never ends"),
        (both.replace("rules: [pushed]", "rules: any"), "r.yml:1:1", "W0215", "covers: 1"),
        (
            both.replacen("{product: cicd, category: scm}", "{product: cicd}", 1),
            "r.yml:5:13",
            "W0215",
            "wider than that of `pushed`",
        ),
        (both.replacen("category: scm", "category: job", 1), "r.yml:5:13", "W0216", "does not cover"),
        (
            both.replace("{actor.id: mallory}", "{actor.id|lookup: t.a}"),
            "r.yml:6:32",
            "E0142",
            "cannot look things up",
        ),
        (both.replace("release: {actor.id", "release: {actor.idd"), "r.yml:6:15", "W0201", "actor.id"),
        (format!("{both}---\n{FILTER}"), "r.yml:31:1", "E0151", "already"),
    ] {
        let found = problems(&text);
        let right = |problem: &&String| problem.starts_with(at) && problem.contains(code) && problem.contains(said);
        assert!(found.iter().any(|problem| right(&problem)), "{at} {code} {said}: {found:#?}");
    }
}

const SQL: &str = "\
title: Quiet repositories
name: quiet
sql:
    every: 1h
    lookback: 24h
    key: [ci.repo]
    query: SELECT 1 FROM events WHERE time BETWEEN :from AND :to
";

#[test]
fn rules_that_ask_the_stored_events() {
    let found = set(SQL);
    assert!(found.diagnostics.is_empty(), "{:?}", found.diagnostics);
    let [Rule::Sql(rule)] = found.rules.as_slice() else { panic!() };
    assert_eq!((rule.every.as_secs(), rule.lookback.as_secs(), rule.key.len()), (3_600, 86_400, 1));
    let digest = |text: &str| set(text).rules[0].meta().digest.clone();
    for (from, to) in [("1h", "2h"), ("24h", "25h"), ("[ci.repo]", "[ci.ref]"), ("SELECT 1", "SELECT 2")] {
        assert_ne!(digest(&SQL.replace(from, to)), rule.meta.digest, "{from}");
    }
    assert_eq!(digest(&SQL.replace("1h", "60m").replace("Quiet repo", "Dark repo")), rule.meta.digest);
    for (from, to, at, code) in [
        ("SELECT 1", "DROP TABLE", "r.yml:7:12", "E0144"),
        (":to", "now()", "r.yml:7:12", "E0144"),
        ("every: 1h", "every: 0s", "r.yml:4:12", "E0144"),
        ("    key: [ci.repo]\n", "", "r.yml:4:5", "E0105"),
        ("lookback", "look_back", "r.yml:5:5", "E0107"),
    ] {
        let found = problems(&SQL.replace(from, to));
        assert!(found.iter().any(|problem| problem.starts_with(at) && problem.contains(code)), "{at}: {found:?}");
    }
    let count = COUNT.replace("pushed", "quiet");
    assert!(problems(&format!("{SQL}---\n{count}")).iter().any(|problem| problem.contains("E0133")));
}

#[test]
fn correlations_of_every_type() {
    let of = |lines: &str| {
        let text = format!("title: C\nname: c\ncorrelation:\n    rules: [pushed]\n    group-by: [actor.id]\n{lines}---\n{RULE}");
        let set = set(&text);
        let rule = set.rules.iter().find(|rule| rule.meta().id == "c").cloned();
        match rule {
            Some(Rule::Correlation(rule)) => Ok(rule),
            _ => Err(set.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        }
    };
    let shape = |lines: &str| format!("{:?}", of(&lines.replace(';', "\n").replace("  ", "    ")).unwrap().operator);
    for (lines, expected) in [
        ("  type: event_count;  timespan: 5m;  condition: {gte: 3, lt: 9};", "metric: Events, bounds: Bounds([(Lt, Int(9)), (Gte, Int(3))])"),
        ("  type: value_count;  timespan: 5m;  condition: {field: [src.ip, src.asn], gt: 3};", "metric: Distinct([\"src.ip\", \"src.asn\"])"),
        ("  type: value_sum;  timespan: 5m;  condition: {field: leak.count, gte: 1.5};", "metric: Sum(\"leak.count\"), bounds: Bounds([(Gte, Float(1.5))])"),
        ("  type: value_avg;  timespan: 5m;  condition: {field: leak.count, eq: -2};", "metric: Average(\"leak.count\")"),
        ("  type: value_median;  timespan: 5m;  condition: {field: leak.count, neq: 2};", "metric: Percentile(\"leak.count\", 50.0)"),
        ("  type: value_percentile;  timespan: 5m;  condition: {field: leak.count, percentile: 99.5, lte: 2};", "metric: Percentile(\"leak.count\", 99.5)"),
        ("  type: value_new;  timespan: 60d;  learn: {events: 2, for: 14d};  condition: {field: src.asn};", "New { fields: [\"src.asn\"], learn: Learn { events: 2, for_: 1209600s } }"),
        ("  type: value_rare;  timespan: 60d;  condition: {field: src.asn, lte: 0.01, min: 200};", "Rare { fields: [\"src.asn\"], bounds: Bounds([(Lte, Float(0.01))]), min: 200 }"),
        ("  type: value_spike;  timespan: 10m;  baseline: 28d;  season: hour_of_week;  condition: {lte: -5};", "Spike { field: None, comparison: Lte, deviation: -5.0, floor: 0, baseline: 2419200s, hour_of_week: true, learn_buckets: 5 }"),
        ("  type: value_spike;  timespan: 10m;  baseline: 28d;  learn: {buckets: 3};  condition: {field: src.ip, gte: 8, floor: 10};", "Spike { field: Some(\"src.ip\"), comparison: Gte, deviation: 8.0, floor: 10, baseline: 2419200s, hour_of_week: false, learn_buckets: 3 }"),
        ("  type: temporal;  timespan: 5m;  condition: pushed and not pushed;", "Temporal { ordered: false, clauses: [TemporalClause { present: [0], absent: [0] }] }"),
    ] {
        let shape = shape(lines);
        assert!(shape.contains(expected), "{lines}: {shape}");
    }
    let session = of("    type: event_count\n    timespan: {session: 10m, max: 2h}\n    condition: {gte: 2}\n").unwrap();
    assert_eq!((session.timespan.as_secs(), session.session_gap.unwrap().as_secs()), (7_200, 600));
    let early = |lines: &str| of(&format!("    timespan: 5m\n    emit: early\n{lines}")).map(|rule| rule.early);
    assert_eq!(early("    type: value_count\n    condition: {field: src.ip, gte: 2}\n"), Ok(true));
    for (lines, said) in [
        ("    type: value_sum\n    condition: {field: src.ip, gte: 2}\n", "E0133"),
        ("    type: event_count\n    condition: {gte: 2, lt: 5}\n", "E0133"),
        ("    type: temporal\n    condition: pushed and not pushed\n", "E0133"),
        ("    type: value_new\n    condition: {field: src.ip}\n    learn: {events: 1}\n", "E0133"),
    ] {
        assert!(early(lines).unwrap_err().contains(said), "{lines}");
    }
    for (lines, at, said) in [
        ("    type: value_percentile\n    timespan: 5m\n    condition: {field: src.ip, gte: 2}\n", ":8:16", "percentile: 95"),
        ("    type: value_percentile\n    timespan: 5m\n    condition: {field: src.ip, percentile: 101, gte: 2}\n", ":8:44", "0 to 100"),
        ("    type: value_rare\n    timespan: 5m\n    condition: {field: src.ip, lte: 2, min: 3}\n", ":8:16", "between 0 and 1"),
        ("    type: value_rare\n    timespan: 5m\n    condition: {field: src.ip, lte: 0.1}\n", ":8:16", "needs `min`"),
        ("    type: value_spike\n    timespan: 5m\n    baseline: 1d\n    condition: {gte: 8}\n", ":9:16", "needs `floor`"),
        ("    type: value_spike\n    timespan: 5m\n    condition: {gte: 8, floor: 3}\n", ":4:5", "no `baseline`"),
        ("    type: value_spike\n    timespan: 1s\n    baseline: 90d\n    condition: {gte: 8, floor: 3}\n", ":8:15", "buckets"),
        ("    type: value_spike\n    timespan: 5m\n    baseline: 1d\n    condition: {gte: -8, floor: 3}\n", ":9:16", "above zero"),
        ("    type: value_spike\n    timespan: 5m\n    baseline: 1d\n    season: hour_of_day\n    condition: {gte: 8, floor: 3}\n", ":9:13", "hour_of_week"),
        ("    type: value_sum\n    timespan: 5m\n    condition: {field: [a, b], gte: 2}\n", ":8:16", "single field"),
        ("    type: value_new\n    timespan: 5m\n    learn: {}\n    condition: {field: src.ip}\n", ":8:12", "`events`, `for`"),
        ("    type: temporal_extended\n    timespan: 5m\n", ":4:5", "no `condition`"),
        ("    type: temporal\n    timespan: 5m\n", ":4:5", "at least two"),
        ("    type: temporal\n    timespan: {session: 1m, max: 5m}\n    condition: pushed and not pushed\n", ":7:15", "sessions go with"),
        ("    type: value_new\n    timespan: 5m\n    baseline: 1d\n    condition: {field: src.ip}\n", ":8:5", "no key `baseline`"),
    ] {
        let error = of(lines).unwrap_err();
        assert!(error.contains(at) && error.contains(said), "{lines}: {error}");
    }
}

#[test]
fn digests_tell_operators_apart() {
    let digest = |lines: &str| {
        let text = format!("title: C\nname: c\ncorrelation:\n    rules: [a, b]\n    timespan: 5m\n{lines}---\n{}---\n{}",
            RULE.replace("name: pushed", "name: a"),
            RULE.replace("name: pushed", "name: b").replace("1850480", "1850481").replace("eve", "bob"));
        let set = set(&text);
        let rule = set.rules.iter().find(|rule| rule.meta().id == "c");
        rule.unwrap_or_else(|| panic!("{lines}: {:?}", set.diagnostics)).meta().digest.clone()
    };
    let all = [
        "    type: temporal\n",
        "    type: temporal_ordered\n",
        "    type: temporal\n    condition: a or b\n",
        "    type: temporal\n    condition: a and not b\n",
        "    type: temporal_ordered\n    condition: a and not b\n",
        "    type: event_count\n    condition: {gte: 3}\n",
        "    type: event_count\n    condition: {gte: 3, lte: 5}\n",
        "    type: value_count\n    condition: {field: src.ip, gte: 3}\n",
        "    type: value_count\n    condition: {field: [src.ip, src.asn], gte: 3}\n",
        "    type: value_sum\n    condition: {field: src.ip, gte: 3}\n",
        "    type: value_avg\n    condition: {field: src.ip, gte: 3}\n",
        "    type: value_median\n    condition: {field: src.ip, gte: 3}\n",
        "    type: value_percentile\n    condition: {field: src.ip, percentile: 95, gte: 3}\n",
        "    type: value_new\n    learn: {events: 3}\n    condition: {field: src.ip}\n",
        "    type: value_new\n    learn: {for: 3d}\n    condition: {field: src.ip}\n",
        "    type: value_rare\n    condition: {field: src.ip, lte: 0.1, min: 9}\n",
        "    type: value_spike\n    baseline: 9d\n    condition: {gte: 8, floor: 10}\n",
        "    type: value_spike\n    baseline: 9d\n    season: hour_of_week\n    condition: {gte: 8, floor: 10}\n",
    ];
    let digests: std::collections::BTreeSet<String> = all.iter().map(|lines| digest(lines)).collect();
    assert_eq!(digests.len(), all.len());
    let same = |left: &str, right: &str| assert_eq!(digest(left), digest(right), "{left} {right}");
    same("    type: temporal\n", "    type: temporal_extended\n    condition: b and a\n");
    same("    type: temporal\n    condition: {gte: 2}\n", "    type: temporal\n    condition: a and (b or b)\n");
    same(
        "    type: value_median\n    condition: {field: src.ip, gte: 3}\n",
        "    type: value_percentile\n    condition: {field: src.ip, percentile: 50, gte: 3}\n",
    );
    same(
        "    type: event_count\n    condition: {gte: 3, lte: 5}\n",
        "    type: event_count\n    condition: {lte: 5, gte: 3}\n",
    );
}

#[test]
fn what_is_probably_not_meant_is_told() {
    let absence = "\
title: Pushed and not signed
name: unsigned
correlation:
    type: temporal_ordered
    rules: [pushed, signed]
    group-by: [ci.repo]
    timespan: 15m
    condition: pushed and not signed
requires: [github.webhook, sigstore.bundle]
---
title: Signed
name: signed
logsource: {product: cicd, category: signing}
detection: {s: {action: artifact.signed}, condition: s}
---
";
    let both = format!("{absence}{RULE}");
    let codes = |text: &str| set(text).diagnostics.iter().map(|problem| problem.code.name()).collect::<Vec<_>>();
    assert_eq!(codes(&both), Vec::<&str>::new());
    let unlearnt = both.replace("temporal_ordered", "value_new").replace("pushed and not signed", "{field: src.asn}");
    let native = COUNT.to_owned()
        + "---\ntitle: Native\nname: pushed\nlogsource: {product: windows}\ndetection: {s: {a: b}, condition: s}\n";
    for (text, at, code, said) in [
        (both.replace(", sigstore.bundle]", "]"), "r.yml:5:21", "W0211", "it comes from"),
        (both.replace("requires: [github.webhook, sigstore.bundle]\n", ""), "r.yml:5:21", "W0211", "`signed`"),
        (both.replace("timespan: 15m", "timespan: 30s"), "r.yml:7:15", "W0212", "60 s late"),
        (unlearnt, "r.yml:4:5", "W0213", "learn: {for: 14d}"),
        (both.replacen("[ci.repo]", "[ci.rpeo]", 1), "r.yml:6:16", "W0210", "did you mean `ci.repo`?"),
        (native, "r.yml:5:13", "W0209", "no source type feeds the rule `pushed`"),
        (
            format!("{RULE}---\n{}", RULE.replace("pushed", "again").replace("1850480", "1850481")),
            "r.yml:19:1",
            "W0218",
            "r.yml:1",
        ),
    ] {
        let found = problems(&text);
        let right = |problem: &&String| problem.starts_with(at) && problem.contains(code) && problem.contains(said);
        assert!(found.iter().any(|problem| right(&problem)), "{at} {code} {said}: {found:#?}");
    }
}

#[test]
fn native_correlations_take_the_names_of_their_members() {
    let text = "\
title: Many stops
name: stops
correlation: {type: event_count, rules: [stop], group-by: [userIdentity.arn], timespan: 5m, condition: {gte: 2}}
alert: {entity: ['identity:userIdentity.arn']}
---
title: Trail stopped
name: stop
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: StopLogging}, condition: s}
";
    let set = set(text);
    assert!(set.diagnostics.is_empty(), "{:?}", set.diagnostics);
    let rule = set.rules.iter().find(|rule| rule.meta().id == "stops").unwrap();
    assert!(matches!(rule, Rule::Correlation(rule) if rule.taxonomy == Taxonomy::Sigma));
}

#[test]
fn long_chains_and_circles_end() {
    let link = |number: usize| {
        COUNT.replace("name: many", &format!("name: c{number}")).replace("[pushed]", &format!("[c{}]", number - 1))
    };
    let chain = |length: usize| {
        let links: Vec<String> = (1..length).map(link).collect();
        format!("{}---\n{}", links.join("---\n"), RULE.replace("name: pushed", "name: c0"))
    };
    assert!(!set(&chain(20)).has_errors());
    let long = problems(&chain(60));
    assert!(long.iter().any(|problem| problem.contains("build on each other")), "{long:?}");
    let circle = format!("{}---\n{}", link(1).replace("[c0]", "[c2]"), link(2));
    assert!(problems(&circle).iter().all(|problem| problem.contains("leads back")));
}

#[test]
fn examples_for_another_engine_are_tests() {
    let text = "\
title: Trail stopped
name: stop
logsource: {product: windows, category: process_creation}
detection: {s: {CommandLine|contains: whoami}, condition: s}
custom_attributes:
    rsigma.exemplars:
        - {name: fires, expect: match, event: {CommandLine: whoami /all}}
        - {expect: no-match, event: {CommandLine: hostname}}
        - {expect: match, event: {CommandLine: hostname}}
---
title: Twice
name: twice
correlation: {type: event_count, rules: [stop], group-by: [User], timespan: 1m, condition: {gte: 2}}
rsigma.exemplars:
    - name: two
      expect: match
      events:
          - {offset: 0s, event: {CommandLine: whoami, User: a}}
          - {offset: 30s, event: {CommandLine: whoami, User: a}}
    - name: too far apart
      expect: no-match
      events:
          - {offset: 0s, event: {CommandLine: whoami, User: a}}
          - {offset: 90s, event: {CommandLine: whoami, User: a}}
";
    let found = set(text);
    assert!(!found.has_errors(), "{:?}", found.diagnostics);
    let outcomes = run_tests(&found);
    let passed: Vec<_> = outcomes.iter().map(|outcome| (outcome.name.as_str(), outcome.passed)).collect();
    assert_eq!(passed, [("fires", true), ("1", true), ("2", false), ("two", true), ("too far apart", true)]);
    for (from, to, at, said) in [
        ("expect: no-match, event", "expect: maybe, event", "r.yml:8:20", "no-match"),
        ("event: {CommandLine: hostname}}\n---", "events: []}\n---", "r.yml:9:11", "has `event`"),
        ("offset: 30s", "offset: 3", "r.yml:19:22", "offset"),
        ("offset: 0s", "offset: 40s", "r.yml:19:13", "do not go back"),
    ] {
        let found = problems(&text.replacen(from, to, 1));
        assert!(found.iter().any(|problem| problem.starts_with(at) && problem.contains(said)), "{at} {said}: {found:?}");
    }
    let filter = format!("{FILTER}rsigma.exemplars: []\n---\n{RULE}");
    assert!(problems(&filter).iter().any(|problem| problem.contains("E0160")));
}

struct Rows;

impl crate::SqlRunner for Rows {
    fn run(
        &self,
        _: &str,
        events: &[crate::SqlEvent],
        from: pipeproof_engine::time::Timestamp,
        to: pipeproof_engine::time::Timestamp,
    ) -> Result<Vec<std::collections::BTreeMap<String, serde_json::Value>>, String> {
        let inside = events.iter().filter(|event| event.time >= from && event.time < to && event.source == "scm.audit");
        Ok(inside.map(|event| event.fields.clone().into_iter().collect()).collect())
    }
}

#[test]
fn tests_of_queries_need_a_query_engine() {
    let text = format!(
        "{SQL}tests:\n    - name: t\n      events: [{{at: 10m, source: scm.audit, ci.repo: a}}, {{at: 10m, source: x, ci.repo: b}}]\n      \
         until: 3h\n      expect: [{{at: 1h, key: {{ci.repo: a}}}}]\n"
    );
    let set = set(&text);
    let outcomes = run_tests(&set);
    assert!(outcomes[0].skipped && !outcomes[0].passed && outcomes[0].message.is_some());
    let outcomes = crate::run_tests_with(&set, Some(&Rows));
    assert!(outcomes[0].passed, "{outcomes:?}");
}
