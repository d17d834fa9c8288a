//! What the decoders make of every fixture, against what was reviewed: `fields.txt` beside the fixtures of each type.
//!
//! `PIPEPROOF_WRITE_SNAPSHOTS=1` writes them anew; what changed is then for the reviewer of the change to judge.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use engine::record::{Position, Record};
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::samples::{receive, receiver};
use super::{RECEIVED, fields};

/// Most derived events of a record that a snapshot shows.
const DERIVED_SHOWN: usize = 4;

fn folder(kind: SourceType) -> PathBuf {
    let all = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures"));
    all.join(kind.name().replace('.', "_"))
}

/// Fixtures of a type, in order of their names; those of some types are in folders below.
pub(super) fn fixtures(kind: SourceType) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder(kind)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if path
                .extension()
                .is_some_and(|end| end == "ndjson" || end == "json" || end == "log" || end == "csv")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn show(out: &mut String, number: usize, record: &Record) {
    match super::super::decode(Position::default(), record) {
        Err(error) => writeln!(out, "{number}: dead letter: {error}").unwrap(),
        Ok(events) => {
            for (sub, event) in events.iter().enumerate().take(DERIVED_SHOWN) {
                let time = if event.time_known { event.time.to_string() } else { "when received".to_owned() };
                writeln!(out, "{number}.{sub}: {time}").unwrap();
                for (name, value) in fields(event) {
                    let value: String = value.replace('\n', "⏎").chars().take(160).collect();
                    writeln!(out, "    {name} = {value}").unwrap();
                }
            }
            if events.len() > DERIVED_SHOWN {
                writeln!(out, "{number}: and {} more", events.len() - DERIVED_SHOWN).unwrap();
            }
        }
    }
}

/// Types whose fixtures are held by a snapshot. The others have tests of their own.
const TYPES: &[SourceType] = &[
    SourceType::GithubAudit,
    SourceType::GitlabWebhook,
    SourceType::GitlabAudit,
    SourceType::GitlabJoblog,
    SourceType::Jenkins,
    SourceType::CircleciWebhook,
    SourceType::CircleciAudit,
    SourceType::Buildkite,
    SourceType::Cdevents,
    SourceType::SigstoreBundle,
    SourceType::RekorEntry,
    SourceType::IntotoStatement,
    SourceType::SbomCyclonedx,
    SourceType::SbomSpdx,
    SourceType::Trivy,
    SourceType::Grype,
    SourceType::Sarif,
    SourceType::Gitleaks,
    SourceType::JenkinsJoblog,
    SourceType::BuildkiteJoblog,
    SourceType::ProviderLedger,
];

#[test]
fn fixtures_decode_as_reviewed() {
    let receiver = receiver();
    let write = std::env::var_os("PIPEPROOF_WRITE_SNAPSHOTS").is_some();
    for kind in TYPES {
        let files = fixtures(*kind);
        assert!(!files.is_empty(), "{kind} has no fixtures in {}", folder(*kind).display());
        let mut shown = String::new();
        for file in files {
            let body = std::fs::read(&file).unwrap();
            writeln!(shown, "# {}", file.file_name().unwrap().to_string_lossy()).unwrap();
            for (number, record) in receive(&receiver, *kind, None, body.into()).unwrap().iter().enumerate() {
                assert_eq!(record.envelope.received, RECEIVED);
                show(&mut shown, number + 1, record);
            }
        }
        let snapshot = folder(*kind).join("fields.txt");
        if write {
            std::fs::write(&snapshot, &shown).unwrap();
        }
        let reviewed = std::fs::read_to_string(&snapshot).unwrap_or_default();
        if let Some((line, (now, then))) =
            shown.lines().zip(reviewed.lines()).enumerate().find(|(_, (now, then))| now != then)
        {
            panic!("{kind}, line {} of {}: `{now}`, reviewed was `{then}`", line + 1, snapshot.display());
        }
        assert_eq!(shown.lines().count(), reviewed.lines().count(), "{kind}: events were added or are gone");
    }
}
