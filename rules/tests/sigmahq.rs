//! How many of SigmaHQ's rules load, and why the others do not. The rules are not part of this repository: name a
//! checkout of them in `PIPEPROOF_SIGMA_DIR`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot read its rules has to stop, and says what it saw"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pipeproof_engine::event::{Event, EventId};
use pipeproof_engine::fields::Fields;
use pipeproof_engine::plan::{Plan, Routing};
use pipeproof_engine::record::{Authenticity, CollectionMode};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_rules::{Lists, Severity, load, read_dir};
use serde_json::{Map, Value};

#[test]
fn rules_of_sigmahq_load() {
    let Some(folder) = std::env::var_os("PIPEPROOF_SIGMA_DIR").map(PathBuf::from) else {
        eprintln!("left out: PIPEPROOF_SIGMA_DIR names no checkout of SigmaHQ/sigma");
        return;
    };
    let mut all = (0, 0);
    for part in [
        "rules",
        "rules-emerging-threats",
        "rules-threat-hunting",
        "rules-compliance",
        "rules-dfir",
        "rules-placeholder",
    ] {
        let path = folder.join(part);
        if !path.is_dir() {
            eprintln!("{part}: not there");
            continue;
        }
        let (files, loaded) = check(&path, part);
        all = (all.0 + files, all.1 + loaded);
    }
    eprintln!("together: {} of {} files", all.1, all.0);
    assert!(all.0 > 0, "no rules below {}", folder.display());
    // Rules that are refused are refused because of placeholders nobody filled in.
    assert!(all.1 * 100 >= all.0 * 98, "{} of {} load", all.1, all.0);
}

fn check(path: &Path, part: &str) -> (usize, usize) {
    let files = read_dir(path).unwrap();
    let set = load(&files, &Lists::new());
    let mut codes: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for problem in set.diagnostics.iter().filter(|problem| problem.severity == Severity::Error) {
        let entry = codes.entry(problem.code.name()).or_insert_with(|| (0, problem.to_string()));
        entry.0 += 1;
    }
    let mut warnings: BTreeMap<&str, usize> = BTreeMap::new();
    for problem in set.diagnostics.iter().filter(|problem| problem.severity == Severity::Warning) {
        *warnings.entry(problem.code.name()).or_default() += 1;
    }
    eprintln!("{part}: {} files, {} rules load; warnings {warnings:?}", files.len(), set.rules.len());
    for (code, (count, example)) in codes {
        eprintln!("    {code} × {count}, as in {example}");
    }
    let loaded = set.rules.len();
    let plan = Plan::compile(set.rules);
    assert!(plan.is_ok(), "{part}: {plan:?}");
    (files.len(), loaded)
}

/// The events SigmaHQ publishes beside its rules: each has to match the rule it was recorded for.
#[test]
fn recorded_events_of_sigmahq_match_their_rules() {
    let Some(folder) = std::env::var_os("PIPEPROOF_SIGMA_DIR").map(PathBuf::from) else {
        eprintln!("left out: PIPEPROOF_SIGMA_DIR names no checkout of SigmaHQ/sigma");
        return;
    };
    let parts = ["rules", "rules-emerging-threats", "rules-threat-hunting"];
    let files: Vec<_> = parts.iter().flat_map(|part| read_dir(&folder.join(part)).unwrap()).collect();
    let plan = Plan::compile(load(&files, &Lists::new()).rules).unwrap();
    let mut recorded = Vec::new();
    find_json(&folder.join("regression_data"), &mut recorded);
    recorded.sort();
    let (mut cases, mut events_read, mut missed) = (0, 0, Vec::new());
    for path in recorded {
        let id = path.file_stem().unwrap().to_string_lossy().into_owned();
        let Some(rule) = plan.rules().iter().position(|rule| rule.meta().id == id) else { continue };
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
