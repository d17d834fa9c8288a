//! The shipped rules: complete in the program, without problems, each with a test that fires and one that does not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pipeproof_engine::feed;
use pipeproof_engine::plan::Plan;
use pipeproof_engine::rule::{Rule, RuleState};

use super::*;
use crate::diagnostic::Code;
use crate::files::{read_dir, read_lists};
use crate::load::load;
use crate::run::run_tests;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("library")
}

#[test]
fn the_registry_is_the_folder() {
    let prefix = format!("{}/", folder().display());
    let on_disk: BTreeSet<String> =
        read_dir(&folder()).unwrap().into_iter().map(|(path, _)| path.replace(&prefix, "library/")).collect();
    let built_in: BTreeSet<String> = library().into_iter().map(|(path, _)| path).collect();
    assert_eq!(built_in, on_disk, "add new rules to the registry in library.rs");
    assert_eq!(Lists::shipped(), read_lists(&folder()).unwrap());
}

#[test]
fn every_rule_loads_and_passes_its_tests() {
    let set = load(&library(), &Lists::shipped());
    // Some lists are for the operator to fill in.
    let others: Vec<_> = set
        .diagnostics
        .iter()
        .filter(|problem| problem.code != Code::EmptyNamedList)
        .map(ToString::to_string)
        .collect();
    assert!(others.is_empty(), "{others:#?}");
    let outcomes = run_tests(&set);
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed && !outcome.skipped).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let asks: BTreeSet<&str> =
        set.rules.iter().filter(|rule| matches!(rule, Rule::Sql(_))).map(|rule| rule.meta().id.as_str()).collect();
    let mut skipped = outcomes.iter().filter(|outcome| outcome.skipped);
    assert!(skipped.all(|outcome| asks.contains(outcome.rule.as_str())), "only queries are skipped here");
    assert!(Plan::compile(set.content()).is_ok());
}

#[test]
fn every_rule_has_a_firing_and_a_near_miss_test_controls_and_sources() {
    let set = load(&library(), &Lists::shipped());
    for (number, rule) in set.rules.iter().enumerate() {
        let meta = rule.meta();
        let tests: Vec<_> =
            set.tests.iter().filter(|tests| tests.rule == number).flat_map(|tests| &tests.tests).collect();
        assert!(tests.iter().any(|test| !test.expect.is_empty()), "{} has no test that fires", meta.title);
        assert!(
            tests.iter().any(|test| test.expect.is_empty() && !test.events.is_empty()),
            "{} has no near miss",
            meta.title
        );
        assert!(!meta.controls.is_empty(), "{} names no controls", meta.title);
        assert!(!meta.requires.is_empty(), "{} names no sources", meta.title);
        assert!(meta.requires.iter().all(|name| feed::resolve(name).is_ok()), "{}", meta.title);
        let id: Vec<char> = meta.id.chars().collect();
        assert!(id.len() == 36 && id[14] == '4' && "89ab".contains(id[19]), "{} has no UUIDv4", meta.title);
        let name = meta.name.as_deref().unwrap_or_default();
        assert!(name.chars().all(|char| char.is_ascii_lowercase() || char == '_'), "{name}");
    }
}

#[test]
fn the_named_dozen_is_active_and_the_catalogue_is_covered() {
    let set = load(&library(), &Lists::shipped());
    let pages = |rule: &&Rule| rule.meta().state == RuleState::Active && rule.meta().emits;
    let active: BTreeSet<&str> =
        set.rules.iter().filter(pages).filter_map(|rule| rule.meta().name.as_deref()).collect();
    let named: BTreeSet<&str> = ACTIVE.iter().copied().collect();
    assert_eq!(active, named, "`state: active` and the list in library.rs say the same");
    assert_eq!(ACTIVE.len(), 18, "say in the change log when the number of rules that page changes");
    let texts: String = library().into_iter().map(|(_, text)| text).collect();
    for id in [
        "TOK-03", "TOK-04", "TOK-09", "SEC-01", "SEC-03", "SEC-09", "PIP-04", "PIP-13", "PIP-14", "ART-01", "ADM-02",
        "ADM-03", "SCM-01", "SCM-02", "SCM-11", "LOG-02", "LOG-06", "LOG-07", "LEK-01", "LEK-02",
    ] {
        assert!(texts.contains(&format!("# Catalogue: {id}")), "{id}");
    }
    let correlations = set.rules.iter().filter(|rule| matches!(rule, Rule::Correlation(_))).count();
    assert!(correlations >= 3);
}
