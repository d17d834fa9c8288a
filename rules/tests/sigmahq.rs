//! SigmaHQ's rules load, and match the events recorded for them. The rules are not part of this repository: name a
//! checkout of them in `PIPEPROOF_SIGMA_DIR`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot read its rules has to stop, and says what it saw"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pipeproof_engine::event::{Event, EventId};
use pipeproof_engine::fields::Fields;
use pipeproof_engine::plan::{Plan, Routing};
use pipeproof_engine::record::{Authenticity, CollectionMode};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_rules::{Code, Lists, Severity, load, read_dir};
use serde_json::{Map, Value};

/// The folders of rules that are in use.
const PARTS: &[&str] =
    &["rules", "rules-emerging-threats", "rules-threat-hunting", "rules-compliance", "rules-dfir", "rules-placeholder"];

fn checkout() -> Option<PathBuf> {
    let folder = std::env::var_os("PIPEPROOF_SIGMA_DIR").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("left out: PIPEPROOF_SIGMA_DIR names no checkout of SigmaHQ/sigma");
    }
    folder
}

/// Every rule file of the checkout.
fn files(folder: &Path) -> Vec<(String, String)> {
    let there = PARTS.iter().map(|part| folder.join(part)).filter(|path| path.is_dir());
    there.flat_map(|path| read_dir(&path).unwrap()).collect()
}

/// Every rule loads, except those whose placeholder has no list: they are refused with its name, and load once it has one.
#[test]
fn every_rule_of_sigmahq_loads() {
    let Some(folder) = checkout() else { return };
    let files = files(&folder);
    assert!(!files.is_empty(), "no rules below {}", folder.display());
    let set = load(&files, &Lists::new());
    let mut refused: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut warnings: BTreeMap<&str, usize> = BTreeMap::new();
    for problem in &set.diagnostics {
        if problem.severity == Severity::Warning {
            *warnings.entry(problem.code.name()).or_default() += 1;
            continue;
        }
        assert_eq!(problem.code, Code::Placeholder, "{problem}");
        let name = problem.message.split('`').nth(1).unwrap();
        let text = set.text(&problem.file).unwrap();
        assert!(text.contains(&format!("%{name}%")) && text.contains("expand"), "{problem}");
        refused.entry(&problem.file).or_default().insert(name);
    }
    let loaded: BTreeSet<&str> = set.origins.iter().map(|origin| origin.file.as_str()).collect();
    for (path, text) in &files {
        assert_ne!(
            loaded.contains(path.as_str()),
            refused.contains_key(path.as_str()),
            "{path}: loaded or refused, not both"
        );
        let placeholders =
            text.lines().any(|line| line.split_once(':').is_some_and(|(key, _)| key.contains("|expand")));
        assert_eq!(refused.contains_key(path.as_str()), placeholders, "{path}");
    }
    let names: BTreeSet<&str> = refused.values().flatten().copied().collect();
    eprintln!(
        "{} files: {} load, {} refused for want of {names:?}; warnings {warnings:?}",
        files.len(),
        loaded.len(),
        refused.len()
    );
    assert!(Plan::compile(set.rules.clone()).is_ok());
    // One list after the other, since a rule names the first it misses.
    let mut lists = Lists::new();
    let mut whole = set.clone();
    for _ in 0..10 {
        let wanting = whole.diagnostics.iter().filter(|problem| problem.code == Code::Placeholder);
        let names: Vec<String> = wanting.map(|problem| problem.message.split('`').nth(1).unwrap().to_owned()).collect();
        if names.is_empty() {
            break;
        }
        names.into_iter().for_each(|name| lists.set(name, vec!["10.0.0.1".to_owned()]));
        whole = load(&files, &lists);
    }
    let errors: Vec<_> = whole.diagnostics.iter().filter(|problem| problem.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert_eq!(whole.rules.len(), files.len());
    assert!(Plan::compile(whole.rules).is_ok());
}

/// The events SigmaHQ publishes beside its rules: each has to match the rule it was recorded for.
#[test]
fn recorded_events_of_sigmahq_match_their_rules() {
    let Some(folder) = checkout() else { return };
    let plan = Plan::compile(load(&files(&folder), &Lists::new()).rules).unwrap();
    let mut recorded = Vec::new();
    find_json(&folder.join("regression_data"), &mut recorded);
    recorded.sort();
    let (mut cases, mut events_read, mut missed, mut strangers) = (0, 0, Vec::new(), Vec::new());
    for path in recorded {
        let id = path.file_stem().unwrap().to_string_lossy().into_owned();
        let Some(rule) = plan.rules().iter().position(|rule| rule.meta().id == id) else {
            strangers.push(path.display().to_string());
            continue;
        };
        let text = std::fs::read_to_string(&path).unwrap();
        let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap);
        let events: Vec<Event> = values.map(|value| event(&flat(&value))).collect();
        cases += 1;
        events_read += events.len();
        let matched = plan.select(&events, &Routing::Unrouted).iter().any(|found| found.rule == rule);
        if !matched {
            missed.push(path.display().to_string());
        }
        for event in &events {
            let selected = plan.select(std::slice::from_ref(event), &Routing::Unrouted);
            let explained = plan.explain(rule, event).matched;
            assert_eq!(selected.iter().any(|found| found.rule == rule), explained, "{}", path.display());
        }
    }
    eprintln!("{} of {cases} recorded cases match ({events_read} events)", cases - missed.len());
    assert!(strangers.is_empty(), "events for rules that are not there: {strangers:#?}");
    assert!(cases > 0 && missed.is_empty(), "{missed:#?}");
}

fn find_json(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_json(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
}

/// A Windows event as Sigma's field names have it: `System` and `EventData` on one level.
fn flat(value: &Value) -> Map<String, Value> {
    let mut fields = Map::new();
    let event = &value["Event"];
    for part in ["System", "EventData", "UserData"] {
        for (name, value) in event[part].as_object().into_iter().flatten() {
            match value {
                Value::Object(inner) if part == "UserData" => {
                    fields.extend(inner.iter().map(|(name, value)| (name.clone(), value.clone())));
                }
                Value::Object(inner) => {
                    for (attribute, value) in inner.get("#attributes").and_then(Value::as_object).into_iter().flatten()
                    {
                        fields.insert(format!("{name}_{attribute}"), value.clone());
                    }
                    if let Some(text) = inner.get("#text") {
                        fields.insert(name.replace(' ', ""), text.clone());
                    }
                }
                plain => {
                    fields.insert(name.replace(' ', ""), plain.clone());
                }
            }
        }
    }
    fields
}

fn event(fields: &Map<String, Value>) -> Event {
    Event {
        id: EventId::default(),
        source: "s".into(),
        source_type: SourceType::Json,
        item: "id:1".into(),
        time: Timestamp::from_secs(1),
        time_known: true,
        received: Timestamp::from_secs(1),
        auth: Authenticity::Bearer,
        mode: CollectionMode::Live,
        fields: Fields::default(),
        native: Bytes::from(serde_json::to_vec(fields).unwrap()),
    }
}
