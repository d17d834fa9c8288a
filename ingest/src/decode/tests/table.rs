//! `docs/sources.md`: which fields the fixtures of each source type decode to, and how often.
//!
//! `PIPEPROOF_WRITE_SNAPSHOTS=1` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use engine::event::Event;
use engine::fields::Field;
use engine::record::Position;
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::samples::{receive, receiver};
use super::snapshots::fixtures;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sources.md");
const HEAD: &str = "# What each source gives

Generated from the fixtures under `tests/fixtures/` by the tests of `pipeproof-ingest` (`PIPEPROOF_WRITE_SNAPSHOTS=1` writes it anew). Of each source
type: what it is natively for Sigma, how late its events may be, and in how many of its fixtures' items the first event has a field. A field of
`cicd` that is not listed was in none of them, which need not mean that the source never gives it. What decoders derive
beside the first event (a finding of a report, an image of an admitted pod) is counted under its action.

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

/// The events of all fixtures of a type, item by item; dead letters are none.
fn decoded(kind: SourceType) -> Vec<Vec<Event>> {
    let receiver = receiver();
    let mut all = Vec::new();
    for file in fixtures(kind) {
        let folder =
            file.parent().and_then(|folder| folder.file_name()).map(|name| name.to_string_lossy().into_owned());
        let event = folder.filter(|_| kind == SourceType::GithubWebhook);
        let body = std::fs::read(&file).unwrap();
        let records = receive(&receiver, kind, event.as_deref(), body.into()).unwrap();
        all.extend(records.iter().filter_map(|record| super::super::decode(Position::default(), record).ok()));
    }
    all.retain(|events| !events.is_empty());
    all
}

fn section(out: &mut String, kind: SourceType, items: &[Vec<Event>]) {
    let info = kind.info();
    let native = info.native.map_or_else(|| "-".to_owned(), |(product, service)| format!("`{product}/{service}`"));
    writeln!(
        out,
        "\n## `{kind}`\n\n{}. Native logsource {native}, lateness {} s.\n",
        info.title,
        info.lateness.as_secs()
    )
    .unwrap();
    let firsts = || items.iter().filter_map(|events| events.first());
    let timed = firsts().filter(|event| event.time_known).count();
    write!(out, "{} items; the source's own time {timed}", items.len()).unwrap();
    for field in Field::ALL {
        let with = firsts().filter(|event| event.fields.get(*field).is_some()).count();
        if with > 0 {
            write!(out, ", `{}` {with}", field.name()).unwrap();
        }
    }
    let mut actions: BTreeMap<&str, usize> = BTreeMap::new();
    for event in items.iter().flatten() {
        *actions.entry(event.fields.get_text(Field::Action).unwrap_or("-")).or_default() += 1;
    }
    let actions: Vec<String> = actions.iter().map(|(action, count)| format!("`{action}` {count}")).collect();
    writeln!(out, ".\n\nActions: {}.", actions.join(", ")).unwrap();
}

#[test]
fn the_table_of_sources_is_what_the_decoders_do() {
    let mut out = HEAD.to_owned();
    for kind in SourceType::ALL.iter().filter(|kind| kind.is_external()) {
        let items = decoded(*kind);
        if !items.is_empty() {
            section(&mut out, *kind, &items);
        }
    }
    if std::env::var_os("PIPEPROOF_WRITE_SNAPSHOTS").is_some() {
        std::fs::write(DOCUMENT, &out).unwrap();
    }
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let differs = out.lines().zip(document.lines()).find(|(now, then)| now != then);
    assert!(out == document, "docs/sources.md is not what the decoders do: write it anew ({differs:?})");
}
