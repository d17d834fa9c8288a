//! Tables, exceptions and queries: how they are linked with rules, and what is refused.

use super::*;

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
        ("grace: 2m", "query: SELECT", "r.yml:8:12", "E0140", "no query of its own"),
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
fn tables_from_queries() {
    let text = "\
title: Owners
name: owners
table:
    key: [repo]
    open: owners_now
    columns: {repo: repo, team: team}
---
title: Owners now
name: owners_now
sql:
    every: 1h
    lookback: 30d
    key: [repo]
    query: SELECT repo, max(team) AS team FROM events WHERE time BETWEEN :from AND :to GROUP BY repo
---
title: Pushed to what nobody owns
name: unowned
logsource: {product: cicd, category: scm}
detection:
    pushed: {action: git.push}
    owned: {ci.repo|lookup: owners.repo}
    condition: pushed and not owned
";
    let found = set(text);
    assert!(found.diagnostics.is_empty(), "columns of a query are no fields: {:?}", found.diagnostics);
    let rows = |set: &RuleSet| match &set.tables[0].rows {
        pipeproof_engine::rule::TableRows::Derived { max_open, .. } => max_open.as_secs() / 86_400,
        other @ pipeproof_engine::rule::TableRows::Given(_) => panic!("{other:?}"),
    };
    assert!(rows(&found) > 3_000, "its rows hold until the query gives them no more");
    assert_eq!(rows(&set(&text.replace("open: owners_now", "open: owners_now\n    max_open: 2d"))), 2);
    assert!(!found.rules.iter().find(|rule| rule.meta().id == "owners_now").unwrap().meta().emits);
    let plan = pipeproof_engine::plan::Plan::compile(found.content()).unwrap();
    assert_eq!(plan.tables().len(), 1);
    for (from, to, said) in [
        ("open: owners_now", "open: [owners_now, unowned2]", "filled by no other rule"),
        ("open: owners_now", "open: other\n    close: owners_now", "filled by no other rule"),
    ] {
        let more =
            "---\ntitle: o\nname: other\nlogsource: {product: cicd}\ndetection: {s: {action: x}, condition: s}\n";
        let text = format!("{}{more}{}", text.replace(from, to), more.replace("other", "unowned2"));
        let found = problems(&text);
        assert!(found.iter().any(|problem| problem.contains("E0140") && problem.contains(said)), "{said}: {found:#?}");
    }
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
    let kept = std::fs::read_to_string(folder.path().join("owners.csv")).unwrap();
    let again = load_with(&[("kept/r.yml".to_owned(), text.to_owned())], &Lists::new(), &|rule, file| {
        assert_eq!((rule, file), ("kept/r.yml", "owners.csv"));
        Ok(kept.clone())
    });
    assert_eq!(again.tables, found.tables, "a set can be loaded without a disk");
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
        (both.replace("{actor.id: mallory}", "{actor.id|lookup: t.a}"), "r.yml:6:32", "E0142", "cannot look things up"),
        (both.replace("release: {actor.id", "release: {actor.idd"), "r.yml:6:15", "W0201", "actor.id"),
        (format!("{both}---\n{FILTER}"), "r.yml:31:1", "E0151", "already"),
    ] {
        let found = problems(&text);
        let right = |problem: &&String| problem.starts_with(at) && problem.contains(code) && problem.contains(said);
        assert!(found.iter().any(|problem| right(&problem)), "{at} {code} {said}: {found:#?}");
    }
}

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
