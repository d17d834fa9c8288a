//! What exceptions let go, until when, and for which rules.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::event::EventId;
use crate::fields::{Field, Fields, Value};
use crate::plan::{Content, Plan, PlanError};
use crate::record::{Authenticity, CollectionMode};
use crate::rule::{
    AffixKind, AlertSpec, Condition, Level, Lookup, Predicate, Rule, RuleMeta, RuleState, Taxonomy, TextTest,
};
use crate::source::SourceType;
use crate::time::Timestamp;

fn logsource(category: Option<&str>) -> Logsource {
    Logsource { product: Some("cicd".into()), category: category.map(str::to_owned), service: None }
}

fn rule() -> Rule {
    let meta = RuleMeta {
        id: "0001".into(),
        name: Some("published".into()),
        title: "published".into(),
        level: Level::High,
        version: None,
        digest: "d".into(),
        state: RuleState::Active,
        emits: true,
        alert: AlertSpec::default(),
        tags: Vec::new(),
        controls: BTreeMap::new(),
        requires: Vec::new(),
        author: None,
        risk: 0,
    };
    let logsource = logsource(Some("registry"));
    Rule::Detection(DetectionRule { meta, logsource, taxonomy: Taxonomy::Cicd, condition: Condition::And(Vec::new()) })
}

/// An exception that lets go what a repository does.
fn filter(id: &str, repo: &str) -> Filter {
    let test = TextTest::Plain { kind: AffixKind::Equals, text: repo.to_owned() };
    let of_repo = Condition::Field { field: "ci.repo".into(), predicate: Predicate::Text { test, cased: false } };
    Filter {
        id: id.to_owned(),
        title: id.to_owned(),
        digest: id.to_owned(),
        rules: None,
        logsource: logsource(None),
        taxonomy: Taxonomy::Cicd,
        condition: Condition::Not(Box::new(of_repo)),
        expires: None,
        reason: None,
        approved_by: Vec::new(),
        ticket: None,
    }
}

fn event(repo: &str, received: i64) -> Event {
    let mut fields = Fields::default();
    fields.set(Field::CiRepo, Value::Text(repo.into()));
    Event {
        id: EventId::default(),
        source: "s".into(),
        source_type: SourceType::Json,
        item: "id:1".into(),
        time: Timestamp::from_secs(1),
        time_known: true,
        received: Timestamp::from_secs(received),
        auth: Authenticity::Bearer,
        mode: CollectionMode::Live,
        fields,
        native: Bytes::from_static(b"{}"),
    }
}

/// The ids of the exception that lets the event go, and of the expired ones that would have.
fn judge(filters: Vec<Filter>, event: &Event) -> (Option<String>, Vec<String>) {
    let plan = Plan::compile(Content { rules: vec![rule()], tables: Vec::new(), filters }).unwrap();
    let verdict = plan.judge(0, event);
    let id = |number: &usize| plan.filters()[*number].id.clone();
    (verdict.let_go.as_ref().map(id), verdict.expired.iter().map(id).collect())
}

#[test]
fn a_match_is_let_go_where_the_condition_does_not_hold() {
    let filters = || vec![filter("b", "acme/mono"), filter("a", "acme/mono"), filter("c", "acme/web")];
    assert_eq!(judge(filters(), &event("acme/mono", 5)).0.as_deref(), Some("a"), "one, by order of ids");
    assert_eq!(judge(filters(), &event("acme/web", 5)).0.as_deref(), Some("c"));
    assert_eq!(judge(filters(), &event("acme/app", 5)).0, None);
    assert_eq!(judge(Vec::new(), &event("acme/app", 5)).0, None);
}

#[test]
fn it_is_about_the_rules_it_names_within_its_logsource() {
    let with = |rules: Option<&[&str]>, category: Option<&str>| {
        let rules = rules.map(|rules| rules.iter().map(|name| (*name).to_owned()).collect());
        let filter = Filter { rules, logsource: logsource(category), ..filter("f", "acme/mono") };
        judge(vec![filter], &event("acme/mono", 5)).0.is_some()
    };
    assert!(with(Some(&["other", "published"]), Some("registry")), "by name");
    assert!(with(Some(&["0001"]), None), "by id; a wider logsource covers");
    assert!(!with(Some(&["other"]), None));
    assert!(!with(Some(&[]), None), "none is not any");
    assert!(with(None, Some("registry")));
    assert!(!with(None, Some("scm")));
    assert!(!with(Some(&["published"]), Some("scm")), "naming a rule does not widen the logsource");
}

#[test]
fn one_that_has_expired_lets_nothing_go_and_says_so() {
    let mut filter = filter("f", "acme/mono");
    filter.expires = Some(Timestamp::from_secs(10));
    let judged = |received, repo| judge(vec![filter.clone()], &event(repo, received));
    assert_eq!(judged(9, "acme/mono"), (Some("f".into()), Vec::new()));
    assert_eq!(judged(10, "acme/mono"), (None, vec!["f".to_owned()]));
    assert_eq!(judged(10, "acme/app"), (None, Vec::new()));
}

#[test]
fn exceptions_look_nothing_up() {
    let lookup = Lookup { table: "jobs".into(), keys: Vec::new(), columns: Vec::new(), during: None };
    let filters = vec![Filter { condition: Condition::Lookup(lookup), ..filter("f", "x") }];
    let refused = Plan::compile(Content { rules: vec![rule()], tables: Vec::new(), filters });
    assert!(matches!(refused, Err(PlanError::FilterLookup(id)) if id == "f"));
}
