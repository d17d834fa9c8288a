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
    assert_eq!(meta.risk, Level::High.risk());
    let risky = |risk: &str| super::tests::set(&format!("{RULE}risk: {risk}\n"));
    assert_eq!(risky("95").rules[0].meta().risk, 95);
    assert_eq!(risky("95").rules[0].meta().digest, meta.digest, "it decides no match");
    assert!(risky("101").diagnostics[0].to_string().contains("from 0 to 100"));
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
        (both.replace("event_count", "temporal"), "r.yml:8:22", "E0131", "so many cannot match"),
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

const SQL: &str = "\
title: Quiet repositories
name: quiet
sql:
    every: 1h
    lookback: 24h
    key: [ci.repo]
    query: SELECT 1 FROM events WHERE time BETWEEN :from AND :to
";

#[path = "tests/correlations.rs"]
mod correlations;
#[path = "tests/documents.rs"]
mod documents;
#[path = "tests/examples.rs"]
mod examples;
#[path = "tests/lint.rs"]
mod lint;
