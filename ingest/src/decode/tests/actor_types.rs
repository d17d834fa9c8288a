//! Who is said to be behind every event of the fixtures, by source type and by what the source says of the actor:
//! `tests/fixtures/actor-types.txt`, reviewed line by line. `PIPEPROOF_WRITE_SNAPSHOTS=1` writes it anew.
//!
//! The same table of the samples in `PIPEPROOF_SAMPLES_DIR` is printed and not held: what is in that folder is not ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use engine::event::Event;
use engine::fields::Field;
use engine::json::{Json, Value};
use engine::record::Position;
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::cloud_snapshots::{self, FIXTURES};
use super::measured::{FOLDERS, kind_of, payload};
use super::samples::{receive, receiver, samples};
use super::snapshots::fixtures;
use crate::skim;

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/actor-types.txt");

/// Where a source says what kind of actor it is, besides the name.
const SAID: &[(SourceType, &[&[&str]])] = &[
    (
        SourceType::AwsCloudtrail,
        &[
            &["userIdentity", "type"],
            &["userIdentity", "invokedBy"],
            &["userIdentity", "sessionContext", "webIdFederationData", "federatedProvider"],
            &["userIdentity", "sessionContext", "sessionIssuer", "userName"],
        ],
    ),
    (SourceType::GithubWebhook, &[&["sender", "type"]]),
    (SourceType::GithubAudit, &[&["actor_is_bot"]]),
    (SourceType::GitlabAudit, &[&["author_class"]]),
    (SourceType::CircleciAudit, &[&["actor", "type"]]),
    (SourceType::Buildkite, &[&["actor", "type"]]),
    (SourceType::VaultAudit, &[&["auth", "token_type"], &["request", "mount_type"]]),
    (SourceType::Okta, &[&["actor", "type"]]),
    (SourceType::AzureSignin, &[&["category"], &["identity", "claim", "idtyp"], &["identity", "claims", "idtyp"]]),
    (SourceType::AzureActivity, &[&["claims", "idtyp"], &["identity", "claims", "idtyp"]]),
    (SourceType::KubernetesAudit, &[&["impersonatedUser", "username"]]),
    (SourceType::RekorEntry, &[&["kind"]]),
];

/// What is told of a kind of actor without what is peculiar to one.
fn shape(actor: &str) -> String {
    if let Some((scheme, rest)) = actor.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let kind = ["/workloadIdentityPools/", "/.github/workflows/", "/namespaces/"];
        let part = kind.iter().find(|part| rest.contains(**part)).map_or("/", |part| *part);
        return format!("{scheme}://{host}{part}…");
    }
    if let Some(rest) = actor.strip_prefix("arn:") {
        let parts: Vec<&str> = rest.splitn(5, ':').collect();
        let mut of = parts.last().copied().unwrap_or_default().split('/');
        let (kind, role, session) = (of.next().unwrap_or_default(), of.next(), of.next());
        let session = session.map_or("", |session| match session {
            _ if session.contains('@') => "/…@…",
            _ if session.starts_with("i-") => "/i-…",
            _ => "/…",
        });
        let role = role.map_or("", |role| if role.starts_with("AWS") { "/AWS…" } else { "/…" });
        return format!("arn:{}:{kind}{role}{session}", parts.get(1).copied().unwrap_or_default());
    }
    for head in ["system:serviceaccount:", "system:node:", "repo:", "project_path:", "uid:", "serviceAccount:", "proj:"]
    {
        if actor.starts_with(head) {
            return format!("{head}…");
        }
    }
    match actor {
        _ if actor.starts_with("system:") || actor.ends_with(".amazonaws.com") => actor.to_owned(),
        _ if actor.ends_with("[bot]") => "…[bot]".to_owned(),
        _ if actor.ends_with("gserviceaccount.com") => "…gserviceaccount.com".to_owned(),
        _ if actor.contains('@') => "…@…".to_owned(),
        _ if actor.contains("bot") => "…bot…".to_owned(),
        _ if actor.len() == 36 && actor.split('-').count() == 5 => "uuid".to_owned(),
        _ if actor.bytes().all(|byte| byte.is_ascii_digit()) => "number".to_owned(),
        // Machines of one product share a prefix: what stands before it tells them apart.
        _ if actor.split('-').count() > 1 => format!("{}-…", actor.split('-').next().unwrap_or_default()),
        _ => "name".to_owned(),
    }
}

/// What a source says itself of the kind, for the event that has its native object.
fn said(event: &Event) -> String {
    let Some((_, paths)) = SAID.iter().find(|(kind, _)| *kind == event.source_type) else { return String::new() };
    let Ok(json) = Json::parse(&event.native) else { return String::new() };
    let root = json.root();
    let known = |text: String| {
        // Ids and paths vary: their shape is enough.
        if text.contains('/') || text.contains('@') || text.starts_with("system:") { shape(&text) } else { text }
    };
    let at = |path: &&[&str]| root.at(path).and_then(Value::scalar).map(|text| known(text.into_owned()));
    paths.iter().filter_map(at).collect::<Vec<_>>().join(" ")
}

type Row = (&'static str, String, String, String);

#[derive(Default)]
struct Survey(BTreeMap<Row, (usize, String)>);

impl Survey {
    fn body(&mut self, kind: SourceType, named: Option<&str>, body: Bytes) {
        for record in receive(&receiver(), kind, named, body).into_iter().flatten() {
            for event in super::super::decode(Position::default(), &record).into_iter().flatten() {
                let field = |field| event.fields.get_text(field).unwrap_or("-").to_owned();
                let actor = field(Field::ActorId);
                let row = (event.source_type.name(), field(Field::ActorType), shape(&actor), said(&event));
                let (count, example) = self.0.entry(row).or_insert_with(|| (0, actor.clone()));
                *count += 1;
                // The first in order of names, so that the order of fixtures decides nothing.
                if actor < *example {
                    *example = actor;
                }
            }
        }
    }

    fn shown(&self) -> String {
        let mut out = String::new();
        for ((source, kind, shape, said), (count, example)) in &self.0 {
            let said = if said.is_empty() { "-" } else { said };
            let example: String = example.chars().take(100).collect();
            writeln!(out, "{source} | {kind} | {shape} | {said} | {count} | {example}").unwrap();
        }
        out
    }
}

fn of_fixtures() -> Survey {
    let mut survey = Survey::default();
    for sample in samples() {
        survey.body(sample.kind, sample.event.as_deref(), sample.body);
    }
    for (name, kind) in FIXTURES {
        let text = std::fs::read_to_string(cloud_snapshots::path(&format!("{name}.ndjson"))).unwrap();
        text.lines().for_each(|line| survey.body(*kind, None, Bytes::copy_from_slice(line.as_bytes())));
    }
    for kind in SourceType::ALL.iter().filter(|kind| kind.is_external()) {
        for file in fixtures(*kind) {
            let folder = file.parent().and_then(|folder| folder.file_name()).map(|name| name.to_string_lossy());
            let event = folder.filter(|_| *kind == SourceType::GithubWebhook);
            survey.body(*kind, event.as_deref(), std::fs::read(&file).unwrap().into());
        }
    }
    survey
}

#[test]
fn who_is_behind_every_fixture_is_as_reviewed() {
    let shown = of_fixtures().shown();
    if std::env::var_os("PIPEPROOF_WRITE_SNAPSHOTS").is_some() {
        std::fs::write(SNAPSHOT, &shown).unwrap();
    }
    let reviewed = std::fs::read_to_string(SNAPSHOT).unwrap();
    let gone: Vec<&str> = reviewed.lines().filter(|line| !shown.lines().any(|other| other == *line)).collect();
    let new: Vec<&str> = shown.lines().filter(|line| !reviewed.lines().any(|other| other == *line)).collect();
    assert!(shown == reviewed, "reviewed was:\n{}\nnow:\n{}", gone.join("\n"), new.join("\n"));
}

#[test]
fn every_actor_has_a_type_of_the_four() {
    for ((source, kind, _, said), (_, example)) in &of_fixtures().0 {
        let known = matches!(kind.as_str(), "ci" | "workload" | "human" | "service");
        // The kernel sees a user of a machine, and Okta an address: nobody knows who or what that is.
        let unknown = matches!(*source, "falco" | "tetragon" | "tracee") || said == "IP address";
        let nobody = kind == "-" && (example == "-" || unknown);
        assert!(known || nobody, "{source}: {kind} for {example}");
    }
}

#[test]
fn who_is_behind_the_samples_is_printed() {
    let Some(samples) = std::env::var_os("PIPEPROOF_SAMPLES_DIR") else {
        println!("left out: PIPEPROOF_SAMPLES_DIR names no folder of samples");
        return;
    };
    let mut survey = Survey::default();
    let mut folders: Vec<_> = std::fs::read_dir(&samples).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let row = FOLDERS.iter().find(|(folder, ..)| *folder == name);
        let row = row.map(|(_, kind, members, _)| (kind.parse::<SourceType>().unwrap(), *members));
        let Some((kind, members)) = row else {
            println!("left out: {name} is of no source type");
            continue;
        };
        for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let bytes = std::fs::read(&file).unwrap();
            let whole = kind.info().free_text;
            for line in bytes.split(|byte| *byte == b'\n' && !whole).filter(|line| !line.trim_ascii().is_empty()) {
                let body = payload(line, members);
                let named = skim::text_at(line, &["x_github_event"]);
                survey.body(kind_of(kind, body).unwrap_or(kind), named.as_deref(), Bytes::copy_from_slice(body));
            }
        }
    }
    println!("{}", survey.shown());
}
