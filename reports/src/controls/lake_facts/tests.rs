//! The shipped control tests over the record's own SQL: every query plans on an empty lake, and planted exceptions are
//! found, no more and no fewer.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pipeproof_engine::event::{Event, EventId};
use pipeproof_engine::fields::{Field, FieldKind, Fields, Value};
use pipeproof_engine::finding::Finding;
use pipeproof_engine::incident::{IncidentStep, Verb};
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, Record};
use pipeproof_engine::rule::{Level, RuleState};
use pipeproof_record::lake::{Lake, Snapshot, event_rows};
use pipeproof_record::sql::Limits;
use pipeproof_record::store::{StoredFinding, StoredStep, StoredWindow};
use serde_json::{Value as Json, json};

use super::*;
use crate::controls::catalogue::{controls, framework};
use crate::controls::outcome::Outcome;
use crate::controls::reperform::{as_of, reperform};
use crate::controls::run::{ControlReport, RunRequest, run_all};
use crate::kpi;

/// Start of a full UTC hour.
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn at(minutes: u64) -> Timestamp {
    START.plus(Duration::from_secs(minutes * 60))
}

fn period() -> Period {
    Period { from: START, to: at(24 * 60), as_of: at(30 * 60) }
}

/// A lake that is told events one by one.
struct Story {
    _dir: tempfile::TempDir,
    lake: Lake,
    next: u64,
}

impl Story {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lake = Lake::open(&dir.path().join("lake")).await.unwrap();
        Self { _dir: dir, lake, next: 0 }
    }

    /// An event of a source; times among the fields are minutes. Returns its id.
    async fn tell(&mut self, source: SourceType, minute: u64, fields: Json) -> String {
        let position = Position { partition: 0, index: self.next };
        let envelope = Envelope {
            source: source.name().to_owned(),
            source_type: source,
            received: at(minute),
            auth: Authenticity::Bearer,
            key_id: None,
            item: format!("id:{}", self.next),
            mode: CollectionMode::Live,
            attributes: BTreeMap::new(),
            redacted: Vec::new(),
        };
        let record = Record { envelope, salt: [0; 16], body: Bytes::from_static(b"{}") };
        let mut set = Fields::default();
        for (name, value) in fields.as_object().unwrap() {
            let field = Field::from_name(name).unwrap_or_else(|| panic!("no field {name}"));
            let value = match field.kind() {
                FieldKind::Text => Value::Text(value.as_str().unwrap().into()),
                FieldKind::Int => Value::Int(value.as_i64().unwrap()),
                FieldKind::Bool => Value::Bool(value.as_bool().unwrap()),
                FieldKind::Time => Value::Time(at(value.as_u64().unwrap())),
            };
            set.set(field, value);
        }
        let event = Event {
            id: EventId { position, sub: 0 },
            source: source.name().into(),
            source_type: source,
            item: record.envelope.item.as_str().into(),
            time: at(minute),
            time_known: true,
            received: at(minute),
            auth: Authenticity::Bearer,
            mode: CollectionMode::Live,
            fields: set,
            native: record.body.clone(),
        };
        let leaf = Bytes::from(record.encode().unwrap());
        let rows = event_rows(position, &leaf, &record, std::slice::from_ref(&event), None).unwrap();
        self.lake.append_events(0, self.next, self.next + 1, rows).await.unwrap();
        self.next += 1;
        event.id.to_string()
    }

    async fn windows(&mut self, windows: &[(SourceType, u64, Completeness)]) {
        let rows = windows.iter().zip(1..).map(|(&(source, hour, status), seq)| StoredWindow {
            seq,
            changed: at(hour * 60 + 59),
            window: SourceWindow {
                source: source.name().to_owned(),
                source_type: source,
                start: at(hour * 60),
                end: at(hour * 60 + 60),
                records: 3,
                events: 3,
                duplicates: 0,
                dead_letters: 0,
                max_lag_secs: 1,
                max_skew_secs: 0,
                down_secs: 0,
                status,
                basis: status.name().to_owned(),
            },
        });
        self.lake.append_windows(rows.collect()).await.unwrap();
    }

    async fn sql(&self) -> Sql {
        Sql::over(&self.lake.pin(), Some(period().as_of), Limits::EVIDENCE).await.unwrap()
    }

    async fn run(&self) -> ControlReport {
        run_shipped(&self.sql().await).await
    }
}

async fn run_shipped(sql: &Sql) -> ControlReport {
    let request = RunRequest {
        period: period(),
        parameters: BTreeMap::new(),
        versions: BTreeMap::new(),
        checkpoints: Vec::new(),
        windows: source_windows(sql, &period()).await.unwrap(),
    };
    let controls = controls().unwrap();
    let selected = framework("soc2").unwrap().unwrap();
    run_all(sql, &selected.select(&controls), &request).await.unwrap()
}

/// Windows of every external source and of our own for the whole period.
async fn whole_day(story: &mut Story) {
    let mut windows = Vec::new();
    for &source in SourceType::ALL {
        let status = if source.is_external() { Completeness::NotEstablished } else { Completeness::Complete };
        windows.extend((0..24).map(|hour| (source, hour, status)));
    }
    story.windows(&windows).await;
}

fn outcome(report: &ControlReport, control: &str) -> Outcome {
    report.results.iter().find(|result| result.control == control).unwrap().outcome.clone()
}

/// The cells of a column of a test's exceptions.
fn exceptions(report: &ControlReport, control: &str, column: &str) -> Vec<String> {
    let path = format!("10_controls/{control}/exceptions.csv");
    let bytes = &report.files.iter().find(|file| file.path == path).unwrap().bytes;
    let mut reader = csv::Reader::from_reader(bytes.strip_prefix("\u{feff}".as_bytes()).unwrap());
    let at = reader.headers().unwrap().iter().position(|name| name == column).unwrap();
    reader.records().map(|row| row.unwrap()[at].to_owned()).collect()
}

#[tokio::test]
async fn every_query_plans_and_runs_on_an_empty_lake() {
    let sql = Sql::over(&Snapshot::default(), None, Limits::EVIDENCE).await.unwrap();
    for control in controls().unwrap() {
        let queries = control.queries(&BTreeMap::new()).unwrap();
        for query in [&queries.population, &queries.exceptions] {
            let table =
                Facts::query(&sql, query, &period()).await.unwrap_or_else(|error| panic!("{}: {error}", control.id));
            assert!(table.rows.is_empty(), "{}", control.id);
        }
    }
    for result in run_shipped(&sql).await.results {
        assert!(matches!(result.outcome, Outcome::NotEvaluated { .. }), "{} without any source", result.control);
    }
    assert!(kpi::rows::from_lake(&sql, &period()).await.unwrap().is_empty());
}

#[tokio::test]
async fn with_whole_sources_and_nothing_in_them_there_is_no_occurrence() {
    let mut story = Story::new().await;
    whole_day(&mut story).await;
    let report = story.run().await;
    // A window an hour for every type; nothing proves any but our own whole.
    let windows = SourceType::ALL.len() as u64 * 24;
    for result in &report.results {
        match result.control.as_str() {
            // Their population is the windows themselves.
            "LM-01" => assert_eq!(result.outcome, Outcome::ExceptionsNoted { k: windows - 24, n: windows }),
            "LM-04" => assert_eq!(result.outcome, Outcome::NoExceptionsNoted { n: windows }),
            _ => assert_eq!(result.outcome, Outcome::NoOccurrence, "{}", result.control),
        }
    }
    let hooks = report.results.iter().find(|result| result.control == "CM-06").unwrap();
    assert_eq!(hooks.qualifiers, ["completeness of github.webhook is not established: not_established"]);
}

#[tokio::test]
async fn pushes_and_protection_changes() {
    let mut story = Story::new().await;
    whole_day(&mut story).await;
    let hooks = SourceType::GithubWebhook;
    let push = |after: &str, reference: &str, forced: bool| {
        json!({ "action": "git.push", "category": "scm", "ci.repo": "acme/app", "ci.ref": reference, "scm.after": after,
                "scm.before": "0", "scm.forced": forced, "scm.default_branch": "main", "actor.id": "dev" })
    };
    let merged = json!({ "action": "change.merged", "ci.repo": "acme/app", "change.number": 7, "scm.after": "merge",
                         "change.base": "main", "change.head": "head", "change.author": "dev", "actor.id": "dev" });
    story.tell(hooks, 1, merged).await;
    story.tell(hooks, 2, push("merge", "refs/heads/main", false)).await;
    let direct = story.tell(hooks, 3, push("direct", "refs/heads/main", false)).await;
    let forced = story.tell(hooks, 4, push("merge", "refs/heads/main", true)).await;
    story.tell(hooks, 5, push("work", "refs/heads/feature", true)).await;
    let protection = |weakens: bool| {
        json!({ "action": "protection.changed", "category": "config", "config.object": "branch_protection",
                "config.id": "main", "config.attribute": "required_reviews", "config.weakens": weakens,
                "ci.repo": "acme/app", "actor.id": "dev" })
    };
    let weakened = story.tell(hooks, 10, protection(true)).await;
    story.tell(hooks, 11, protection(false)).await;

    let report = story.run().await;
    assert_eq!(outcome(&report, "CM-06"), Outcome::ExceptionsNoted { k: 2, n: 3 });
    assert_eq!(exceptions(&report, "CM-06", "event_id"), [direct, forced]);
    assert_eq!(outcome(&report, "CM-07"), Outcome::ExceptionsNoted { k: 1, n: 2 });
    assert_eq!(exceptions(&report, "CM-07", "event_id"), [weakened]);
    assert_eq!(exceptions(&report, "CM-07", "exposure_secs"), ["60"]);
    // Merged by its author without any review.
    assert_eq!(outcome(&report, "CM-02"), Outcome::ExceptionsNoted { k: 1, n: 1 });
    // Equal facts and requests give equal bytes, and the queries give the same totals when they are run again.
    assert_eq!(report, story.run().await);
    let files: BTreeMap<_, _> = report.files.iter().map(|file| (file.path.clone(), file.bytes.clone())).collect();
    assert_eq!(as_of(&files), Some(period().as_of));
    let again = reperform(&story.sql().await, &files).await;
    assert_eq!(again.len(), 2 * report.results.len());
    for again in again {
        let first = crate::pack::table::Table::from_csv(&files[&again.table]).unwrap().totals();
        assert_eq!(again.outcome, Ok(first), "{}", again.table);
    }
}

#[tokio::test]
async fn reviews_by_somebody_else_on_the_final_revision_count() {
    let mut story = Story::new().await;
    whole_day(&mut story).await;
    let hooks = SourceType::GithubWebhook;
    for (number, reviewer, kind, sha) in [
        (1, "peer", "human", "head"),
        (2, "author", "human", "head"),
        (3, "peer", "human", "old"),
        (4, "bot", "service", "head"),
    ] {
        let base = json!({ "ci.repo": "acme/app", "change.number": number });
        let with = |more: Json| {
            let mut fields = base.clone();
            fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            fields
        };
        let review = json!({ "action": "change.reviewed", "actor.id": reviewer, "actor.type": kind,
                             "change.review_state": "approved", "ci.sha": sha });
        story.tell(hooks, 1, with(review)).await;
        let merged = json!({ "action": "change.merged", "scm.after": format!("m{number}"), "change.base": "main",
                             "change.head": "head", "change.author": "author", "actor.id": "author" });
        story.tell(hooks, 2, with(merged)).await;
    }
    let report = story.run().await;
    assert_eq!(outcome(&report, "CM-02"), Outcome::ExceptionsNoted { k: 3, n: 4 });
    assert_eq!(exceptions(&report, "CM-02", "pr"), ["2", "3", "4"]);
}

#[tokio::test]
async fn credentials_and_the_secrets_read_with_them() {
    let mut story = Story::new().await;
    whole_day(&mut story).await;
    let (hooks, vault) = (SourceType::GithubWebhook, SourceType::VaultAudit);
    let run = json!({ "action": "run.started", "ci.repo": "acme/app", "ci.run_id": "run-1" });
    story.tell(hooks, 1, run).await;
    let token = |id: &str, kind: &str, holder: &str, expires: u64| {
        json!({ "action": "token.issued", "category": "token", "token.id": id, "token.kind": kind, "actor.type": holder,
                "actor.id": "repo:acme/app", "token.expires": expires, "ci.run_id": "run-1", "ci.repo": "acme/app" })
    };
    story.tell(vault, 2, token("short", "vault", "ci", 17)).await;
    story.tell(vault, 2, token("long", "vault", "ci", 12 * 60)).await;
    story.tell(vault, 2, token("fixed", "static", "ci", 10)).await;
    story.tell(vault, 2, token("person", "vault", "human", 12 * 60)).await;
    let read = |token: &str, run: &str, principal: &str| {
        json!({ "action": "secret.read", "category": "secret", "outcome": "success", "secret.path": "kv/prod/db",
                "token.id": token, "actor.type": principal, "actor.id": "repo:acme/app", "ci.run_id": run })
    };
    story.tell(vault, 3, read("short", "run-1", "ci")).await;
    let unknown = story.tell(vault, 4, read("never-issued", "run-1", "ci")).await;
    let long = story.tell(vault, 5, read("long", "run-1", "ci")).await;
    let no_run = story.tell(vault, 6, read("short", "run-9", "ci")).await;
    story.tell(vault, 7, read("person", "run-1", "human")).await;
    let late = story.tell(vault, 30, read("short", "run-1", "ci")).await;

    let report = story.run().await;
    assert_eq!(outcome(&report, "IA-01"), Outcome::ExceptionsNoted { k: 2, n: 3 });
    assert_eq!(exceptions(&report, "IA-01", "token_id"), ["fixed", "long"]);
    assert_eq!(outcome(&report, "IA-05"), Outcome::ExceptionsNoted { k: 3, n: 5 });
    assert_eq!(exceptions(&report, "IA-05", "event_id"), [unknown, long, no_run.clone()]);
    let reasons = ["credential not known", "credential lives too long", "run not known"];
    assert_eq!(exceptions(&report, "IA-05", "reason"), reasons);
    // Used from another run, and after it expired.
    assert_eq!(exceptions(&report, "IA-02", "event_id"), [no_run, late]);
}

#[tokio::test]
async fn admissions_to_production() {
    let mut story = Story::new().await;
    whole_day(&mut story).await;
    let audit = SourceType::KubernetesAudit;
    let policy = |weakens: bool, enforcement: &str| {
        json!({ "action": "config.changed", "category": "config", "outcome": "success", "config.object": "admission_policy",
                "config.id": "require-signed", "config.weakens": weakens, "k8s.cluster": "prod",
                "k8s.object.enforcement": enforcement })
    };
    let admit = |digest: Option<&str>, image: &str, decision: &str| {
        let mut fields = json!({ "action": "admission.decided", "category": "admission", "environment": "prod",
                                 "k8s.cluster": "prod", "k8s.namespace": "shop", "k8s.kind": "pods", "k8s.verb": "create",
                                 "artifact.name": image, "k8s.decision": decision });
        if let Some(digest) = digest {
            fields["artifact.digest"] = digest.into();
        }
        fields
    };
    let digest = Some("sha256:aa");
    let unseen = story.tell(audit, 1, admit(digest, "shop@sha256:aa", "allow")).await;
    story.tell(audit, 2, policy(false, "enforce")).await;
    story.tell(audit, 3, admit(digest, "shop@sha256:aa", "allow")).await;
    let tag = story.tell(audit, 4, admit(None, "shop:1.2", "allow")).await;
    story.tell(audit, 5, admit(None, "shop:latest", "deny")).await;
    story.tell(audit, 6, policy(true, "audit")).await;
    let audited = story.tell(audit, 7, admit(digest, "shop@sha256:aa", "allow")).await;

    let report = story.run().await;
    assert_eq!(outcome(&report, "AI-04"), Outcome::ExceptionsNoted { k: 3, n: 5 });
    assert_eq!(exceptions(&report, "AI-04", "uid"), [unseen, tag, audited]);
    let reasons = ["no policy seen", "image without digest", "policy not enforcing"];
    assert_eq!(exceptions(&report, "AI-04", "reason"), reasons);
}

#[tokio::test]
async fn ledgers_are_held_against_the_record_both_ways() {
    let mut story = Story::new().await;
    whole_day(&mut story).await;
    let (hooks, ledger) = (SourceType::GithubWebhook, SourceType::ProviderLedger);
    let run = |id: u64| json!({ "action": "run.finished", "ci.provider": "github", "ci.repo": "acme/app", "ci.run_id": id.to_string() });
    let listed = |id: u64| {
        json!({ "action": "ledger.run", "category": "ledger", "ci.provider": "github", "ci.repo": "acme/app",
                "ci.run_id": id.to_string(), "config.id": id.to_string(), "config.object": "run" })
    };
    story.tell(ledger, 1, listed(1)).await;
    story.tell(ledger, 9, listed(4)).await;
    story.tell(ledger, 5, listed(2)).await;
    // Told of: 1 and 4 that are listed, 3 that is not, 5 after the last entry, and another provider's 2.
    for (minute, id) in [(1, 1), (6, 3), (9, 4), (20, 5)] {
        story.tell(hooks, minute, run(id)).await;
    }
    let mut other = run(2);
    other["ci.provider"] = "gitlab".into();
    story.tell(SourceType::GitlabWebhook, 5, other).await;
    let log = json!({ "action": "job.log", "ci.provider": "github", "ci.repo": "acme/app", "ci.run_id": "2" });
    story.tell(SourceType::GithubJoblog, 5, log).await;
    let report = story.run().await;
    assert_eq!(outcome(&report, "LM-02"), Outcome::ExceptionsNoted { k: 2, n: 4 });
    let found: Vec<_> =
        exceptions(&report, "LM-02", "object_id").into_iter().zip(exceptions(&report, "LM-02", "result")).collect();
    assert_eq!(found, [("2".to_owned(), "missing".to_owned()), ("3".to_owned(), "unlisted".to_owned())]);
}

#[tokio::test]
async fn windows_are_judged_and_gaps_reach_the_other_tests() {
    let mut story = Story::new().await;
    let own = (0..24).map(|hour| (SourceType::Pipeproof, hour, Completeness::Complete));
    let hooks = [(0, Completeness::Complete), (1, Completeness::Gap), (2, Completeness::NotEstablished)];
    let hooks = hooks.map(|(hour, status)| (SourceType::GithubWebhook, hour, status));
    let all: Vec<_> = own.chain(hooks).collect();
    story.windows(&all).await;
    let report = story.run().await;
    assert_eq!(outcome(&report, "LM-01"), Outcome::ExceptionsNoted { k: 2, n: 27 });
    assert_eq!(exceptions(&report, "LM-01", "reason"), ["gap", "not established"]);
    let pushes = report.results.iter().find(|result| result.control == "CM-06").unwrap();
    assert_eq!((pushes.evaluated_secs, pushes.period_secs), (2.0 * 3_600.0, 24.0 * 3_600.0));
    let parts: Vec<_> = pushes.not_evaluated.iter().map(|part| (part.from, part.to)).collect();
    assert_eq!(parts, [(at(60), at(120)), (at(180), at(24 * 60))]);
    assert!(matches!(outcome(&report, "AI-04"), Outcome::NotEvaluated { .. }));
}

#[tokio::test]
async fn findings_incidents_and_their_times() {
    let mut story = Story::new().await;
    whole_day(&mut story).await;
    let finding = |number: u64, incident: &str, minute: u64| StoredFinding {
        seq: number,
        committed: at(minute + 1),
        finding: Finding {
            id: format!("f-{number}"),
            rule_id: "r".to_owned(),
            rule_title: "t".to_owned(),
            rule_digest: "d".to_owned(),
            level: Level::High,
            risk: 70,
            state: RuleState::Active,
            title: format!("finding {number}"),
            time: at(minute),
            occurred: Some(at(minute - 10)),
            available: at(minute),
            fired: at(minute),
            retro: false,
            key: BTreeMap::new(),
            entities: Vec::new(),
            events: Vec::new(),
            because: Vec::new(),
            controls: BTreeMap::new(),
            tags: Vec::new(),
            incident: Some(incident.to_owned()),
        },
    };
    let findings = vec![finding(1, "i-1", 20), finding(2, "i-2", 30), finding(3, "i-1", 40)];
    story.lake.append_findings(findings).await.unwrap();
    let steps = [
        ("i-1", 0, Verb::Open, 21),
        ("i-2", 0, Verb::Open, 31),
        ("i-1", 1, Verb::Ack, 60),
        ("i-1", 2, Verb::Contain, 90),
        ("i-1", 3, Verb::Remediate, 100),
        ("i-1", 4, Verb::Verify, 110),
        ("i-2", 1, Verb::Dismiss, 23 * 60),
    ];
    let steps = steps.into_iter().zip(1..).map(|((incident, number, verb, minute), seq)| StoredStep {
        seq,
        committed: at(minute),
        step: IncidentStep {
            incident: incident.to_owned(),
            number,
            verb,
            at: at(minute),
            actor: "dev".to_owned(),
            note: None,
            finding: None,
        },
    });
    story.lake.append_steps(steps.collect()).await.unwrap();

    let report = story.run().await;
    assert_eq!(outcome(&report, "IR-01"), Outcome::NoExceptionsNoted { n: 1 });
    // i-2 was looked at only after the limit.
    assert_eq!(outcome(&report, "LM-06"), Outcome::ExceptionsNoted { k: 1, n: 3 });
    assert_eq!(exceptions(&report, "LM-06", "finding_id"), ["f-2"]);

    let rows = kpi::rows::from_lake(&story.sql().await, &period()).await.unwrap();
    let times: Vec<_> = rows.iter().map(|row| (row.id.as_str(), row.title.as_str(), row.dismissed)).collect();
    assert_eq!(times, [("i-1", "finding 1", false), ("i-2", "finding 2", true)]);
    let first = &rows[0];
    assert_eq!((first.occurred, first.available, first.detected), (Some(at(10)), at(20), at(21)));
    assert_eq!((first.acknowledged, first.remediated, first.verified), (Some(at(60)), Some(at(100)), Some(at(110))));
    assert_eq!(first.level, Level::High);
}
