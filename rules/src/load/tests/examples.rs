//! Tests of other kinds: examples for another engine, and rules that ask the stored events.

use super::*;

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
        assert!(
            found.iter().any(|problem| problem.starts_with(at) && problem.contains(said)),
            "{at} {said}: {found:?}"
        );
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
