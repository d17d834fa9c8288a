//! SigmaHQ's rules for Azure find their fields whatever way an entry took out of Azure: every rule that fits one of the entries
//! we have finds it as an event hub gets it and as a row of Log Analytics. The rules are named by `PIPEPROOF_SIGMA_DIR`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot read its rules has to stop, and says what it saw"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use pipeproof_engine::event::{Event, EventId};
use pipeproof_engine::fields::Fields;
use pipeproof_engine::plan::{Plan, Routing};
use pipeproof_engine::record::{Authenticity, CollectionMode};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_rules::{Lists, load, read_dir};

/// Pairs of lines, made after Microsoft's documentation.
const BOTH: &str = include_str!("../../ingest/tests/fixtures/azure_monitor/both-forms-after-documentation.ndjson");

/// Rules that find an entry in both forms.
const IN_BOTH: &[&str] = &[
    "Account Lockout",
    "Azure Domain Federation Settings Modified",
    "Azure Key Vault Modified or Deleted",
    "Anomalous Token",
    "Discovery Using AzureHound",
    "Temporary Access Pass Added To An Account",
];
/// Rules that only find the row: an event hub's entry has no such member (`ResourceProviderValue`).
const IN_ROWS: &[&str] = &["Azure Active Directory Hybrid Health AD FS Service Delete"];

fn event(kind: SourceType, native: &str) -> Event {
    Event {
        id: EventId::default(),
        source: "acme".into(),
        source_type: kind,
        item: "i".into(),
        time: Timestamp::default(),
        time_known: true,
        received: Timestamp::default(),
        auth: Authenticity::Bearer,
        mode: CollectionMode::Live,
        fields: Fields::default(),
        native: Bytes::copy_from_slice(native.as_bytes()),
    }
}

fn titles(plan: &Plan, native: &str) -> BTreeSet<String> {
    let kinds = [SourceType::AzureSignin, SourceType::AzureActivity, SourceType::AzureKeyvault];
    let events = kinds.map(|kind| event(kind, native));
    let found = plan.select(&events, &Routing::BySource);
    for hit in &found {
        for event in &events {
            // Whatever source type it came by, an explanation agrees.
            assert!(plan.explain(hit.rule, event).matched, "{}", plan.rules()[hit.rule].meta().title);
        }
    }
    found.iter().map(|hit| plan.rules()[hit.rule].meta().title.clone()).collect()
}

#[test]
fn rules_of_sigmahq_find_azures_entries_in_both_forms() {
    let Some(folder) = std::env::var_os("PIPEPROOF_SIGMA_DIR").map(PathBuf::from) else {
        eprintln!("left out: PIPEPROOF_SIGMA_DIR names no checkout of SigmaHQ/sigma");
        return;
    };
    let files = read_dir(&folder.join("rules/cloud/azure")).unwrap();
    let plan = Plan::compile(load(&files, &Lists::new()).rules).unwrap();
    let (mut both, mut only_rows, mut only_entries) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let lines: Vec<&str> = BOTH.lines().collect();
    for pair in lines.chunks_exact(2) {
        let [entry, row] = [pair[0], pair[1]].map(|native| titles(&plan, native));
        both.extend(entry.intersection(&row).cloned());
        only_rows.extend(row.difference(&entry).cloned());
        only_entries.extend(entry.difference(&row).cloned());
    }
    eprintln!(
        "{} rules; found in both forms {both:#?}, only in rows {only_rows:#?}, only as an event hub gets it {only_entries:#?}",
        files.len()
    );
    for title in IN_BOTH {
        assert!(both.contains(*title), "{title}");
    }
    for title in IN_ROWS {
        assert!(only_rows.contains(*title), "{title}");
    }
    assert!(only_entries.is_empty());
    let pascal = ["Status", "ResultType", "OperationName"];
    assert!(pascal.iter().all(|name| files.iter().any(|(_, text)| text.contains(name))), "such rules are there");
}
