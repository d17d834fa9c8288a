//! What `sql:` rules see, and the functions they may use.

use std::time::Duration;

use engine::event::EventId;
use engine::fields::{Field, Fields, Value};
use engine::record::{Authenticity, CollectionMode, Position};
use engine::rule::{AlertSpec, Level, RuleMeta, RuleState, SqlRule};
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde_json::json;

use super::rules::*;
use super::*;
use crate::lake::EventRow;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn rule(key: &[&str], query: &str) -> SqlRule {
    let meta = RuleMeta {
        id: "r".into(),
        name: None,
        title: "r".into(),
        level: Level::Low,
        version: None,
        digest: "d".into(),
        state: RuleState::Active,
        emits: true,
        alert: AlertSpec::default(),
        tags: Vec::new(),
        controls: std::collections::BTreeMap::new(),
        requires: Vec::new(),
        author: None,
        risk: 0,
    };
    let hour = Duration::from_secs(3_600);
    let key = key.iter().map(|&key| key.to_owned()).collect();
    SqlRule { meta, every: hour, lookback: hour * 24, key, query: query.to_owned() }
}

/// An event as a test inside a rule has it.
fn row(index: u64, source: &str, minutes: u64, fields: &[(Field, Value)]) -> EventRow {
    let mut set = Fields::default();
    fields.iter().for_each(|(field, value)| set.set(*field, value.clone()));
    let time = START.plus(Duration::from_secs(minutes * 60));
    EventRow {
        id: EventId { position: Position { partition: 0, index }, sub: 0 },
        source: source.into(),
        source_type: SourceType::Json,
        item: format!("id:{index}").into(),
        time,
        time_known: true,
        received: time,
        auth: Authenticity::Bearer,
        key_id: None,
        mode: CollectionMode::Live,
        fields: set,
        dead_letter: None,
        leaf: None,
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[tokio::test]
async fn a_rule_reads_events_under_the_names_rules_use() {
    let job = |index, repo: &str| {
        row(index, "any", index, &[(Field::Action, text("job.started")), (Field::CiRepo, text(repo))])
    };
    let push = row(9, "hooks", 9, &[(Field::Action, text("git.push")), (Field::CiRepo, text("acme/lit"))]);
    let events = [job(0, "acme/dark"), job(1, "acme/dark"), job(2, "acme/lit"), job(3, "acme/lit"), push];
    let sql = RuleSql::over_events(&events).await.unwrap();
    // The shape of the example rule: an anti-join over another feed, parameters in both halves.
    let dark = rule(
        &["ci.repo"],
        r#"SELECT j."ci.repo", min(j.time) AS first_seen, count(*) AS jobs FROM events j
           LEFT ANTI JOIN (SELECT DISTINCT "ci.repo" AS repo FROM events
                           WHERE source = 'scm.audit' AND time BETWEEN :from AND :to) a ON a.repo = j."ci.repo"
           WHERE j.action = 'job.started' AND j.time BETWEEN :from AND :to
           GROUP BY j."ci.repo" HAVING count(*) >= 2"#,
    );
    let to = START.plus(Duration::from_secs(3_600));
    let answer = sql.run(&dark, to.minus(dark.lookback), to).await.unwrap();
    let rows: Vec<_> = answer.rows.iter().map(|row| json!(row)).collect();
    assert_eq!(rows, [json!({"ci.repo": "acme/dark", "first_seen": START.to_string(), "jobs": 2})]);
    assert!(!answer.truncated);
    let before = sql.run(&dark, to.minus(dark.lookback), START).await.unwrap();
    assert!(before.rows.is_empty(), "outside the period: {before:?}");

    let lost = rule(&["ci.repo"], "SELECT action FROM events");
    let error = sql.run(&lost, START, to).await.unwrap_err();
    assert!(error.to_string().contains("ci.repo") && error.to_string().contains("action"), "{error}");
    let named = rule(&["source"], "SELECT DISTINCT source, source_name, source_type FROM events ORDER BY 1");
    let rows = sql.run(&named, START, to).await.unwrap().rows;
    assert_eq!(
        json!(rows),
        json!([
            {"source": "ci.jobs", "source_name": "any", "source_type": "json"},
            {"source": "scm.audit", "source_name": "hooks", "source_type": "json"},
        ])
    );
    let many = rule(&["value"], "SELECT value FROM generate_series(1, 10001)");
    let answer = sql.run(&many, START, to).await.unwrap();
    assert!(answer.truncated && answer.rows.len() == RULE_ROWS_MAX);
    let change = rule(&["x"], "DELETE FROM events");
    assert!(matches!(sql.run(&change, START, to).await, Err(SqlError::Refused { .. })));
    // A text that looks like a parameter's end is text.
    let quoted = rule(&["x"], "SELECT ':from' AS x, count(*) AS n FROM events WHERE time < :to");
    assert_eq!(json!(sql.run(&quoted, START, to).await.unwrap().rows), json!([{"x": ":from", "n": 5}]));
}

#[tokio::test]
async fn places_speeds_texts_and_versions() {
    let at = |index, minutes, lat: i64, lon: i64| {
        let fields =
            [(Field::ActorId, text("eve")), (Field::SrcLatE6, Value::Int(lat)), (Field::SrcLonE6, Value::Int(lon))];
        row(index, "any", minutes, &fields)
    };
    let events = [at(0, 0, 52_370_000, 4_895_000), at(1, 30, 1_352_000, 103_819_000)];
    let sql = RuleSql::over_events(&events).await.unwrap();
    let travel = rule(
        &["actor.id"],
        r#"SELECT "actor.id", round(km) AS km, round(kmh) AS kmh FROM (
               SELECT "actor.id", geo_km(a, b, lat, lon) AS km, geo_kmh(a, b, t, lat, lon, time) AS kmh FROM (
                   SELECT "actor.id", time, "src.lat" AS lat, "src.lon" AS lon,
                          lag("src.lat") OVER (PARTITION BY "actor.id" ORDER BY time) AS a,
                          lag("src.lon") OVER (PARTITION BY "actor.id" ORDER BY time) AS b,
                          lag(time) OVER (PARTITION BY "actor.id" ORDER BY time) AS t
                   FROM events)) WHERE kmh > 900"#,
    );
    let rows = sql.run(&travel, START, START.plus(Duration::from_secs(3_600))).await.unwrap().rows;
    // Amsterdam to Singapore is about 10,500 km.
    let km = rows[0]["km"].as_f64().unwrap();
    assert!((10_450.0..10_550.0).contains(&km), "{rows:?}");
    assert_eq!(
        rows[0]["kmh"].as_f64().unwrap(),
        km * 2.0 + (rows[0]["kmh"].as_f64().unwrap() - km * 2.0).clamp(-1.0, 1.0)
    );

    let one = async |expression: &str| {
        let rule = rule(&["x"], &format!("SELECT {expression} AS x"));
        sql.run(&rule, START, START).await.unwrap().rows[0]["x"].clone()
    };
    assert_eq!(one("round(entropy('aaaa'))").await, json!(0.0));
    assert_eq!(one("entropy('abcd')").await, json!(2.0));
    assert_eq!(one("entropy('')").await, json!(0.0));
    assert_eq!(one("entropy(CAST(NULL AS VARCHAR))").await, json!(null));
    assert_eq!(one("geo_km(0, 0, NULL, 1)").await, json!(null));
    for (left, right, expected) in [
        ("1.2.3", "1.2.3", json!(0)),
        ("v1.2.3", "1.2.4", json!(-1)),
        ("1.10.0", "1.9.9", json!(1)),
        ("1.0.0-rc.1", "1.0.0", json!(-1)),
        ("1.0.0-rc.2", "1.0.0-rc.10", json!(-1)),
        ("1.0.0-alpha", "1.0.0-1", json!(1)),
        ("1.0.0-alpha", "1.0.0-alpha.1", json!(-1)),
        ("1.0.0+a", "1.0.0+b", json!(0)),
        ("1.0", "1.0.0", json!(null)),
        ("latest", "1.0.0", json!(null)),
    ] {
        assert_eq!(one(&format!("semver_cmp('{left}', '{right}')")).await, expected, "{left} {right}");
    }
}
