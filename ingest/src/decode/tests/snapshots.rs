//! What the decoders make of every fixture of the program, against what was reviewed: `fields.txt` beside the fixtures of each type.
//!
//! `PIPEPROOF_WRITE_SNAPSHOTS=1` writes them anew; what changed is then for the reviewer of the change to judge.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use engine::record::{Position, Record};
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::samples::{receive, receiver};
use super::{RECEIVED, fields};
use crate::receive::Receiver;

fn root() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures").into()
}

fn folder(kind: SourceType) -> PathBuf {
    root().join(kind.name().replace('.', "_"))
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
            for (sub, event) in events.iter().enumerate() {
                let time = if event.time_known { event.time.to_string() } else { "when received".to_owned() };
                writeln!(out, "{number}.{sub}: {time}").unwrap();
                for (name, value) in fields(event) {
                    let value: String = value.replace('\n', "⏎").chars().take(160).collect();
                    writeln!(out, "    {name} = {value}").unwrap();
                }
            }
            if events.is_empty() {
                writeln!(out, "{number}: no event").unwrap();
            }
        }
    }
}

/// What is received of a file of fixtures. Webhooks of GitHub are in folders named after the event that a header names.
pub(super) fn received(receiver: &Receiver, kind: SourceType, file: &Path) -> Vec<Record> {
    let folder = file.parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
    let event = folder.filter(|_| kind == SourceType::GithubWebhook);
    receive(receiver, kind, event.as_deref(), std::fs::read(file).unwrap().into()).unwrap()
}

#[test]
fn fixtures_decode_as_reviewed() {
    let receiver = receiver();
    let write = std::env::var_os("PIPEPROOF_WRITE_SNAPSHOTS").is_some();
    let mut held = 0;
    for kind in SourceType::ALL.iter().filter(|kind| kind.is_external()) {
        let files = fixtures(*kind);
        if files.is_empty() {
            continue;
        }
        held += files.len();
        let mut shown = String::new();
        for file in files {
            writeln!(shown, "# {}", file.file_name().unwrap().to_string_lossy()).unwrap();
            for (number, record) in received(&receiver, *kind, &file).iter().enumerate() {
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
    // A folder that is named after no type would be held by nothing.
    let payloads =
        |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let mut open = payloads(&root());
    let mut there = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(payloads(&path));
        } else {
            there += usize::from(path.extension().is_some_and(|end| end != "txt" && end != "md"));
        }
    }
    assert_eq!(held, there, "fixtures that no snapshot holds");
}
