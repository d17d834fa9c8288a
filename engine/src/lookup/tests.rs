//! What a condition leaves open, and how rows answer it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::event::{Event, EventId};
use crate::fields::{Field, Fields, Value};
use crate::plan::{Content, Plan, PlanError};
use crate::record::{Authenticity, CollectionMode, Position};
use crate::rule::{
    AffixKind, AlertSpec, Comparison, Condition, DetectionRule, Level, Number, Rule, RuleMeta, RuleState, Table,
    TableRows, Taxonomy, TextTest,
};
use crate::source::{Logsource, SourceType};
use crate::table::{Edge, Entry};

fn meta(name: &str) -> RuleMeta {
    RuleMeta {
        id: name.to_owned(),
        name: None,
        title: name.to_owned(),
        level: Level::High,
        version: None,
        digest: name.to_owned(),
        state: RuleState::Active,
        emits: true,
        alert: AlertSpec::default(),
        tags: Vec::new(),
        controls: BTreeMap::new(),
        requires: Vec::new(),
        author: None,
        risk: 0,
    }
}

fn detection(name: &str, condition: Condition) -> Rule {
    let logsource = Logsource { product: Some("cicd".into()), ..Logsource::default() };
    Rule::Detection(DetectionRule { meta: meta(name), logsource, taxonomy: Taxonomy::Cicd, condition })
}

fn equals(field: &str, text: &str) -> Condition {
    let test = TextTest::Plain { kind: AffixKind::Equals, text: text.to_owned() };
    Condition::Field { field: field.to_owned(), predicate: Predicate::Text { test, cased: false } }
}

fn not(condition: Condition) -> Condition {
    Condition::Not(Box::new(condition))
}

fn row_of(table: &str, keys: &[(&str, &str)], columns: &[(&str, Predicate)], during: Option<&str>) -> Condition {
    let own = |text: &str| text.to_owned();
    Condition::Lookup(Lookup {
        table: own(table),
        keys: keys.iter().map(|(field, column)| (own(field), own(column))).collect(),
        columns: columns.iter().map(|(column, predicate)| (own(column), predicate.clone())).collect(),
        during: during.map(own),
    })
}

fn jobs(open: &str, close: &str) -> Table {
    let pairs = [("run", "ci.run_id"), ("repo", "ci.repo"), ("attempt", "ci.attempt")];
    Table {
        name: "jobs".into(),
        title: "jobs".into(),
        digest: "jobs".into(),
        grace: Duration::from_secs(120),
        rows: TableRows::Derived {
            key: vec!["ci.run_id".into()],
            open: vec![open.into()],
            close: vec![close.into()],
            columns: pairs.iter().map(|(column, field)| ((*column).to_owned(), (*field).to_owned())).collect(),
            max_open: Duration::from_secs(3_600),
            retain: Duration::from_secs(86_400),
            taxonomy: Taxonomy::Cicd,
        },
    }
}

fn given(rows: &[&[(&str, &str)]]) -> Table {
    let row =
        |row: &&[(&str, &str)]| row.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let rows = TableRows::Given(rows.iter().map(row).collect());
    Table { name: "owners".into(), title: "owners".into(), digest: "owners".into(), rows, grace: Duration::ZERO }
}

fn plan(condition: Condition) -> Result<Plan, PlanError> {
    let rules = vec![
        detection("started", equals("action", "job.started")),
        detection("finished", equals("action", "job.finished")),
        detection("rule", condition),
    ];
    let owners = given(&[
        &[("name", "acme/app"), ("tier", "1"), ("valid_to", "1970-01-01T01:00:00Z")],
        &[("name", "acme/web"), ("tier", "2")],
    ]);
    Plan::compile(Content { rules, tables: vec![jobs("started", "finished"), owners], filters: Vec::new() })
}

fn event(secs: i64, fields: &[(Field, &str)], native: &str) -> Event {
    let mut own = Fields::default();
    fields.iter().for_each(|(field, value)| own.set(*field, Value::Text((*value).into())));
    Event {
        id: EventId { position: Position { partition: 0, index: 9 }, sub: 0 },
        source: "s".into(),
        source_type: SourceType::Json,
        item: "id:9".into(),
        time: Timestamp::from_secs(secs),
        time_known: true,
        received: Timestamp::from_secs(secs),
        auth: Authenticity::Bearer,
        mode: CollectionMode::Live,
        fields: own,
        native: Bytes::copy_from_slice(native.as_bytes()),
    }
}

/// A job of run r1 in acme/app from 1000 to 1300.
fn rows(plan: &Plan) -> Rows {
    let mut rows = Rows::new(Arc::clone(plan.table_shape(0).unwrap()));
    for (edge, secs) in [(Edge::Open, 1_000), (Edge::Close, 1_300)] {
        let event = EventId { position: Position { partition: 0, index: secs as u64 }, sub: 0 };
        // Columns in the order of their names: attempt, repo, run.
        let columns = Texts::of([Some("2"), Some("acme/app"), Some("r1")]);
        rows.feed(Entry { time: Timestamp::from_secs(secs), event, edge, key: Texts::of([Some("r1")]), columns });
    }
    rows
}

fn answer(condition: Condition, event: &Event) -> Option<Vec<String>> {
    let plan = plan(condition).unwrap();
    let rows = rows(&plan);
    let question = plan.question(2, event).unwrap();
    let bytes = postcard::to_stdvec(&question).unwrap();
    let question: Question = postcard::from_bytes(&bytes).unwrap();
    question.answer(plan.lookups(2), event.time, |table| if table == 0 { Some(&rows) } else { plan.given_rows(table) })
}

#[test]
fn a_match_says_which_row_there_was_and_which_not() {
    let no_job = Condition::And(vec![
        equals("action", "secret.read"),
        not(Condition::Or(vec![
            row_of("jobs", &[("ci.run_id", "run")], &[], Some("time")),
            row_of("jobs", &[("token.repo", "repo")], &[], Some("time")),
        ])),
    ]);
    let read = |secs, run| event(secs, &[(Field::Action, "secret.read"), (Field::CiRunId, run)], "{}");
    assert_eq!(answer(no_job.clone(), &read(1_420, "r1")), None);
    assert_eq!(
        answer(no_job.clone(), &read(1_421, "r1")).unwrap(),
        [
            "action = 'secret.read' (secret.read)",
            "no row of jobs with run = r1 at 1970-01-01T00:23:41Z",
            "no row of jobs with repo = token.repo (missing) at 1970-01-01T00:23:41Z",
        ]
    );
    assert!(answer(no_job.clone(), &read(1_100, "r2")).is_some());
    let other = event(1_100, &[(Field::Action, "secret.written"), (Field::CiRunId, "r2")], "{}");
    assert_eq!(answer(no_job, &other), None);
    let job = Condition::And(vec![
        equals("action", "secret.read"),
        row_of("jobs", &[("ci.run_id", "run")], &[], Some("time")),
    ]);
    let because = answer(job, &read(1_100, "r1")).unwrap();
    assert_eq!(because[1], "a row of jobs with run = r1 at 1970-01-01T00:18:20Z");
}

#[test]
fn one_row_must_satisfy_everything() {
    let number = |comparison, number| Predicate::Compare(comparison, Number::Int(number));
    let attempt = |predicate| row_of("jobs", &[("ci.run_id", "run")], &[("attempt", predicate)], None);
    let run = event(1_100, &[(Field::CiRunId, "r1")], "{}");
    assert!(answer(attempt(number(Comparison::Gt, 1)), &run).is_some());
    assert!(answer(attempt(number(Comparison::Gt, 2)), &run).is_none());
    assert!(answer(attempt(Predicate::Number(Number::Int(2))), &run).is_some());
    assert!(answer(attempt(Predicate::Exists(true)), &run).is_some());
    assert!(answer(attempt(Predicate::Null), &run).is_none());
    let because = answer(attempt(Predicate::Regex("^2$".into())), &run).unwrap();
    assert_eq!(because, ["a row of jobs with run = r1 and attempt matches /^2$/"]);
}

#[test]
fn the_time_may_be_that_of_a_field() {
    let issued = row_of("jobs", &[("ci.run_id", "run")], &[], Some("issued"));
    let at = |text: &str| event(9_000, &[(Field::CiRunId, "r1")], &format!(r#"{{"issued":"{text}"}}"#));
    assert!(answer(issued.clone(), &at("1970-01-01T00:20:00Z")).is_some());
    assert!(answer(issued.clone(), &at("1970-01-01T01:20:00Z")).is_none());
    assert!(answer(issued.clone(), &at("yesterday")).is_none(), "what says no time is at no time");
    assert!(answer(not(issued), &at("yesterday")).is_some());
}

#[test]
fn some_value_of_the_field_suffices_and_rows_may_be_written_down() {
    let native = |repos: &str, secs| event(secs, &[], &format!(r#"{{"repos":{repos}}}"#));
    let condition = row_of("owners", &[("repos", "name")], &[], Some("time"));
    assert!(answer(condition.clone(), &native(r#"["x","acme/app"]"#, 3_600)).is_some());
    assert!(answer(condition.clone(), &native(r#"["x","acme/app"]"#, 3_601)).is_none(), "no longer");
    assert!(answer(condition.clone(), &native(r#"[{"y":1},null,"acme/web"]"#, 3_601)).is_some());
    assert!(answer(condition.clone(), &native("[]", 0)).is_none());
    assert!(answer(condition, &native(r#""ACME/APP""#, 0)).is_none());
}

#[test]
fn values_are_bounded_and_joined_each_with_each() {
    let many: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let plan = plan(row_of("jobs", &[("a", "run"), ("b", "repo")], &[], None)).unwrap();
    let asked = plan.lookups(2)[0].ask(&[many.clone(), many.clone()], None).unwrap();
    assert_eq!(asked.values.len(), VALUES_MAX);
    let two = vec!["1".to_owned(), "2".to_owned()];
    assert_eq!(plan.lookups(2)[0].ask(&[two.clone(), two], None).unwrap().values.len(), 4);
    assert_eq!(plan.lookups(2)[0].ask(&[many, Vec::new()], None), None);
}

#[test]
fn an_explanation_says_what_the_event_does_not() {
    let condition = Condition::And(vec![
        equals("action", "secret.read"),
        not(row_of("jobs", &[("ci.run_id", "run")], &[], Some("time"))),
    ]);
    let plan = plan(condition).unwrap();
    let explained = plan.explain(2, &event(5, &[(Field::Action, "secret.read"), (Field::CiRunId, "r")], "{}"));
    assert!(explained.matched, "it may");
    assert_eq!(
        explained.because()[1],
        "no row of jobs with run = r at 1970-01-01T00:00:05Z: not known from the event alone"
    );
    assert!(!plan.explain(2, &event(5, &[(Field::Action, "git.push")], "{}")).matched);
}

#[test]
fn residuals_are_as_small_as_can_be() {
    use Residual::{Known, Row};
    assert_eq!(Residual::all(vec![Known(true), Row(0)]), Row(0));
    assert_eq!(Residual::all(vec![Known(false), Row(0)]), Known(false));
    assert_eq!(Residual::any(vec![Known(true), Row(0)]), Known(true));
    assert_eq!(Residual::any(vec![Known(false), Row(0)]), Row(0));
    assert_eq!((Residual::all(Vec::new()), Residual::any(Vec::new())), (Known(true), Known(false)));
    assert_eq!(Row(1).negate().negate(), Row(1));
    assert!(!Row(0).seeks_absence());
    assert!(Residual::all(vec![Row(0), Row(1).negate()]).seeks_absence());
}

#[test]
fn plans_that_are_refused() {
    let unknown = plan(row_of("nowhere", &[], &[], None));
    assert!(matches!(unknown, Err(PlanError::UnknownTable { table, .. }) if table == "nowhere"));
    let column = plan(row_of("jobs", &[("ci.run_id", "runn")], &[], None));
    assert!(matches!(column, Err(PlanError::UnknownColumn { column, .. }) if column == "runn"));
    let content = |rules, table| Content { rules, tables: vec![table], filters: Vec::new() };
    let feeder = Plan::compile(content(vec![detection("started", equals("a", "b"))], jobs("started", "ended")));
    assert!(matches!(feeder, Err(PlanError::UnknownFeeder { rule, .. }) if rule == "ended"));
    let own = detection("started", row_of("jobs", &[("ci.run_id", "run")], &[], None));
    let circle = Plan::compile(content(vec![own], jobs("started", "started")));
    assert!(matches!(circle, Err(PlanError::Cycle(_))));
    let time = Plan::compile(content(Vec::new(), given(&[&[("valid_from", "soon")]])));
    assert!(matches!(time, Err(PlanError::RowTime { text, .. }) if text == "soon"));
}

#[test]
fn a_rule_waits_for_the_tables_on_the_way_to_it() {
    let lookup = |table: &str| row_of(table, &[], &[], Some("time"));
    let second = Table { name: "second".into(), grace: Duration::from_secs(30), ..jobs("first", "first") };
    let rules = vec![
        detection("last", lookup("second")),
        detection("first", lookup("jobs")),
        detection("plain", equals("a", "b")),
    ];
    let plan = Plan::compile(Content { rules, tables: vec![jobs("plain", "plain"), second], filters: Vec::new() });
    let plan = plan.unwrap();
    let lags: Vec<u64> = (0..3).map(|rule| plan.lag(rule).as_secs()).collect();
    assert_eq!(lags, [150, 120, 0]);
    assert_eq!(plan.order(), [2, 1, 0]);
    assert_eq!(plan.table_feeds(2), [(0, Edge::Open), (0, Edge::Close)]);
}
