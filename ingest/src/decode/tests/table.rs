//! `docs/sources.md`: source × field × coverage, over all fixtures.
//!
//! `PIPEPROOF_WRITE_SNAPSHOTS=1` writes it anew.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use engine::event::Event;
use engine::fields::Field;
use engine::record::Position;
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::cloud_snapshots;
use super::samples::receiver;
use super::snapshots::{fixtures, received};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sources.md");
const HEAD: &str = "# What each source gives

Generated from the fixtures under `tests/fixtures/` and `ingest/tests/fixtures/` by the tests of `pipeproof-ingest` (`PIPEPROOF_WRITE_SNAPSHOTS=1`
writes it anew). Of each source type: what it is natively for Sigma, how late its events may be, how many different items its fixtures have, and how many of
these have a time of their own. Then, field by field: in how many of the items, per cent, the first event has it. An empty cell is a field that none of
them has, which need not mean that the source never gives it. What decoders derive beside the first event (a finding of a report, an
image of an admitted pod) is counted under its action alone. How much of what real sources send is decoded: [samples](samples.md).

What some formats do not carry:

- Microsoft Entra's sign-ins (`azure.signin`) name the federated credential (`config.id`), and of a managed identity the issuer of the foreign token
  (`config.value`, which makes the actor `ci` or `workload`) and its id (in `message`). No column has the foreign token's subject: which repository
  and job signed in stands in the credential, and joins over `token.id`, which is claim `uti` of what the token is used for. Of an application's federated credential
  not even the issuer is there: its actor is a `service`.
- An entry of Azure is the same event as an event hub gets it and as a row of Log Analytics (`AzureDiagnostics`, `AZKVAuditLogs`, `AzureActivity`, `SigninLogs`,
  `AuditLogs` and the tables of other sign-ins). Rules find its native names in either form, with and without `properties.`.
- CircleCI documents the members of an audit log entry, and of its CSV only that nested ones are JSON. A table with the columns `action` and `occurred_at`, in any case
  and order, is read row by row; any other, and a row of another length, is a dead letter that says which columns it has.
- GitHub names branches, tags and the branches of forks alike. `ci.ref` of a run is there where the event that started it, the repository its head is in and the
  default branch leave one reading: the default branch, `refs/pull/NUMBER/merge` of a pull request from the repository itself, the tag of a release. Of a push to
  another branch or to a tag, of a fork and of a single job there is none: a job joins its run by `ci.run_id`, and its name stands in `workflow_job.head_branch`.
- A watch on Kubernetes secrets is `secret.read` when it starts and `k8s.ended` when it ends.
- A record gives at most 500 events. What failed or is most severe comes first, and `events.left_out` of the record's own event counts the rest.

";

/// Fields that stand in one table: those whose names begin with one of these words.
const GROUPS: &[(&str, &[&str])] = &[
    ("What happened", &["action", "category", "outcome", "reason", "message", "environment", "events"]),
    ("Who, and from where", &["actor", "src", "user_agent"]),
    ("Runs", &["ci", "action_ref", "action_sha"]),
    ("Runners, repositories, changes", &["runner", "scm", "change"]),
    ("Settings and credentials", &["config", "token"]),
    ("Secrets and leaks", &["secret", "leak"]),
    ("Artifacts", &["artifact", "signature", "build", "sbom"]),
    ("Scans and alerts", &["scan", "alert"]),
    ("Clusters", &["k8s"]),
    ("Clouds, processes, network", &["cloud", "process", "file", "net"]),
];

type Items = BTreeMap<SourceType, Vec<Vec<Event>>>;

/// The events of all fixtures, item by item, an item that several files have once; dead letters are none.
fn decoded() -> Items {
    let receiver = receiver();
    let mut all = Items::new();
    for kind in SourceType::ALL.iter().copied().filter(|kind| kind.is_external()) {
        for file in fixtures(kind) {
            let records = received(&receiver, kind, &file);
            let events = records.iter().filter_map(|record| super::super::decode(Position::default(), record).ok());
            all.entry(kind).or_default().extend(events);
        }
    }
    for of_file in cloud_snapshots::all() {
        all.entry(of_file.kind).or_default().extend(of_file.items.into_iter().flatten());
    }
    let mut seen = HashSet::new();
    for items in all.values_mut() {
        items.retain(|events| {
            events.first().is_some_and(|first| seen.insert((first.source_type, first.native.clone())))
        });
    }
    all
}

fn firsts(items: &[Vec<Event>]) -> impl Iterator<Item = &Event> {
    items.iter().filter_map(|events| events.first())
}

/// Per cent, rounded down, but not to nothing.
fn share(part: usize, whole: usize) -> String {
    if part == 0 { String::new() } else { (part * 100).checked_div(whole).unwrap_or(0).max(1).to_string() }
}

fn overview(out: &mut String, all: &Items) {
    out.push_str("## Sources\n\n| source | what it is | native logsource | lateness, s | items | with a time of their own, % |\n");
    out.push_str("|---|---|---|---:|---:|---:|\n");
    for (kind, items) in all {
        let info = kind.info();
        let native = info.native.map_or_else(|| "-".to_owned(), |(product, service)| format!("`{product}/{service}`"));
        let timed = share(firsts(items).filter(|event| event.time_known).count(), items.len());
        writeln!(
            out,
            "| `{kind}` | {} | {native} | {} | {} | {timed} |",
            info.title,
            info.lateness.as_secs(),
            items.len()
        )
        .unwrap();
    }
}

/// A table of some fields and the sources that have any of them.
fn matrix(out: &mut String, title: &str, fields: &[Field], all: &Items) {
    let names: Vec<String> = fields.iter().map(|field| format!("`{}`", field.name())).collect();
    writeln!(out, "\n## {title}\n\n| source | {} |\n|---|{}", names.join(" | "), "---:|".repeat(names.len())).unwrap();
    for (kind, items) in all {
        let with = |field: &Field| firsts(items).filter(|event| event.fields.get(*field).is_some()).count();
        let cells: Vec<String> = fields.iter().map(|field| share(with(field), items.len())).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            writeln!(out, "| `{kind}` | {} |", cells.join(" | ")).unwrap();
        }
    }
}

fn actions(out: &mut String, all: &Items) {
    out.push_str("\n## Actions\n\n");
    for (kind, items) in all {
        let mut actions: BTreeMap<&str, usize> = BTreeMap::new();
        for event in items.iter().flatten() {
            *actions.entry(event.fields.get_text(Field::Action).unwrap_or("-")).or_default() += 1;
        }
        let actions: Vec<String> = actions.iter().map(|(action, count)| format!("`{action}` {count}")).collect();
        writeln!(out, "- `{kind}`: {}.", actions.join(", ")).unwrap();
    }
}

#[test]
fn the_table_of_sources_is_what_the_decoders_do() {
    let all = decoded();
    for kind in SourceType::ALL.iter().filter(|kind| kind.is_external() && **kind != SourceType::Json) {
        assert!(all.contains_key(kind), "{kind} has no fixture");
    }
    let mut out = HEAD.to_owned();
    overview(&mut out, &all);
    let mut shown = 0;
    for (title, words) in GROUPS {
        let is_of = |field: &&Field| words.contains(&field.name().split('.').next().unwrap_or_default());
        let fields: Vec<Field> = Field::ALL.iter().filter(is_of).copied().collect();
        shown += fields.len();
        matrix(&mut out, title, &fields, &all);
    }
    assert_eq!(shown, Field::ALL.len(), "every field stands in one table");
    actions(&mut out, &all);
    if std::env::var_os("PIPEPROOF_WRITE_SNAPSHOTS").is_some() {
        std::fs::write(DOCUMENT, &out).unwrap();
    }
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let differs = out.lines().zip(document.lines()).find(|(now, then)| now != then);
    assert!(out == document, "docs/sources.md is not what the decoders do: write it anew ({differs:?})");
}
