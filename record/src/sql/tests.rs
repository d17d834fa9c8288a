//! SQL from outside: what is refused, what is limited, and what the fact views make of events.

use arrow_schema::DataType;
use engine::commit::{Commit, SourceWindow, Store};
use engine::fields::{Field, FieldKind, Value};
use engine::incident::{IncidentStep, Verb};
use engine::record::Position;
use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::{Value as Json, json};

use super::*;
use crate::lake::tests::{event, record};
use crate::lake::{EventRow, Lake, event_rows, parquet_bytes};
use crate::store::SqliteStore;
use crate::store::tests::{START, batch, clock, finding, window};

const MINUTE: Duration = Duration::from_secs(60);

fn at(minutes: u32) -> Timestamp {
    START.plus(MINUTE * minutes)
}

/// Builds a lake from events given as (minute, fields), one per record.
struct Story {
    _dir: tempfile::TempDir,
    lake: Lake,
    next: u64,
    source_type: SourceType,
}

impl Story {
    async fn new(source_type: SourceType) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lake = Lake::open(&dir.path().join("lake")).await.unwrap();
        Self { _dir: dir, lake, next: 0, source_type }
    }

    async fn tell(&mut self, events: &[(u32, &[(&str, Json)])]) -> &mut Self {
        let from = self.next;
        let mut rows: Vec<EventRow> = Vec::new();
        for (minute, fields) in events {
            let (leaf, record) = record(self.next, "acme", self.source_type, "{}");
            let position = Position { partition: 0, index: self.next };
            let fields: Vec<_> = fields.iter().map(|(name, value)| field(name, value)).collect();
            let event = event(position, 0, &record, at(*minute), &fields);
            rows.extend(event_rows(position, &leaf, &record, &[event], None).unwrap());
            self.next += 1;
        }
        self.lake.append_events(0, from, self.next, rows).await.unwrap();
        self
    }

    async fn ask(&self, query: &str) -> Vec<Vec<Json>> {
        ask(&self.lake, query).await
    }
}

fn field(name: &str, value: &Json) -> (Field, Value) {
    let field = Field::from_name(name).unwrap_or_else(|| panic!("no field {name}"));
    let value = match field.kind() {
        FieldKind::Text => Value::Text(value.as_str().unwrap().into()),
        FieldKind::Int => Value::Int(value.as_i64().unwrap()),
        FieldKind::Bool => Value::Bool(value.as_bool().unwrap()),
        FieldKind::Time => Value::Time(at(u32::try_from(value.as_u64().unwrap()).unwrap())),
    };
    (field, value)
}

async fn ask(lake: &Lake, query: &str) -> Vec<Vec<Json>> {
    let sql = Sql::over(&lake.pin(), None, Limits::EVIDENCE).await.unwrap();
    let period = Parameter::period(START, at(60 * 24));
    sql.query(query, &period).await.unwrap_or_else(|error| panic!("{query}: {error:?}")).json().unwrap().rows
}

async fn empty(limits: Limits) -> Sql {
    Sql::over(&Snapshot::default(), None, limits).await.unwrap()
}

#[tokio::test]
async fn statements_that_change_or_reach_out_are_refused() {
    let sql = empty(Limits::CONSOLE).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.parquet");
    let copy = format!("COPY (SELECT 1) TO '{}'", file.display());
    let external = format!("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '{}'", dir.path().display());
    for text in [
        "DROP VIEW events",
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW events AS SELECT 1",
        "INSERT INTO lake.events SELECT * FROM lake.events",
        "DELETE FROM lake.events",
        "SET datafusion.execution.target_partitions = 64",
        "PREPARE x AS SELECT 1",
        "SELECT 1; SELECT 2",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "EXPLAIN CREATE TABLE x AS SELECT 1",
        "SELECT * FROM (DELETE FROM lake.events)",
        "not sql",
        "",
        &copy,
        &external,
    ] {
        let error = sql.query(text, &[]).await.unwrap_err();
        assert!(matches!(error, SqlError::Refused { .. }), "{text}: {error:?}");
        assert!(error.is_askers());
    }
    assert!(!file.exists());
    assert_eq!(sql.query("SHOW TABLES", &[]).await.unwrap().json().unwrap().columns.len(), 4);
}

#[tokio::test]
async fn queries_stay_within_their_limits() {
    let limits = Limits {
        memory_bytes: 4 << 20,
        time: Duration::from_secs(3),
        rows: 10,
        answer_bytes: 1 << 20,
        text_bytes: 200,
    };
    let sql = empty(limits).await;
    let rows = "SELECT * FROM generate_series(1, 11)";
    assert!(matches!(sql.query(rows, &[]).await.unwrap_err(), SqlError::TooManyRows(10)));
    let cut = sql.query_json(rows, &[]).await.unwrap();
    assert!(cut.truncated && cut.rows.len() == 10);
    assert_eq!(sql.query("SELECT * FROM generate_series(1, 10)", &[]).await.unwrap().len(), 10);
    let long = format!("SELECT '{}'", "x".repeat(200));
    assert!(matches!(sql.query(&long, &[]).await.unwrap_err(), SqlError::TooLong { .. }));
    let slow = "SELECT count(*) FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b WHERE a.value + b.value = 7";
    let error = sql.query(slow, &[]).await.unwrap_err();
    assert!(matches!(error, SqlError::TooSlow(_) | SqlError::TooBig(_)), "{error:?}");
    let endless = "SELECT max(a.value * 7 % 11) FROM generate_series(1, 9000000000000) a";
    assert!(matches!(sql.query(endless, &[]).await.unwrap_err(), SqlError::TooSlow(_)));
    let big = "SELECT value * 7 % 9999991, count(*) FROM generate_series(1, 9000000) GROUP BY value * 7 % 9999991";
    assert!(matches!(sql.query(big, &[]).await.unwrap_err(), SqlError::TooBig(_)));
    let wide = "SELECT repeat('x', 400000) FROM generate_series(1, 10)";
    assert!(matches!(sql.query(wide, &[]).await.unwrap_err(), SqlError::TooManyBytes(_)));
    // And the session goes on.
    assert_eq!(sql.query("SELECT 1", &[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn deeply_nested_text_is_refused_or_answered_but_does_not_crash() {
    let sql = empty(Limits::CONSOLE).await;
    let room = Limits::CONSOLE.text_bytes - 100;
    for (start, piece, end) in [
        ("SELECT ", "(", "1"),
        ("SELECT ", "NOT ", "true"),
        ("SELECT 1", "+1", ""),
        ("SELECT count(*) FROM events WHERE sub = 0", " OR sub = 1", ""),
        ("SELECT 'a'", "||'a'", ""),
        ("SELECT 1", " UNION ALL SELECT 1", ""),
        ("SELECT count(*) FROM events a", ",events", ""),
        ("SELECT ", "CASE WHEN true THEN ", "1"),
    ] {
        let text = format!("{start}{}{end}", piece.repeat(room / piece.len()));
        let result = sql.query(&text, &[]).await;
        assert!(result.as_ref().err().is_none_or(SqlError::is_askers), "{start}{piece}: {result:?}");
    }
    assert_eq!(sql.query("SELECT 1", &[]).await.unwrap().len(), 1);
}

/// The relations control tests rely on: name, then columns in order with their types.
const RELATIONS: &str = include_str!("relations.txt");

#[tokio::test]
async fn every_relation_has_its_columns_even_when_empty() {
    let sql = empty(Limits::CONSOLE).await;
    let mut relations = 0;
    for line in RELATIONS.lines().filter(|line| !line.starts_with('#')) {
        let (name, columns) = line.split_once(": ").unwrap();
        let answer = sql.query(&format!("SELECT * FROM {name}"), &[]).await.unwrap();
        assert!(answer.is_empty());
        let found: Vec<_> = answer.schema().fields().iter().map(|column| (column.name(), column.data_type())).collect();
        for (position, column) in columns.split(", ").enumerate() {
            let (column, kind) = column.split_once(' ').unwrap();
            let kind = match kind {
                "VARCHAR" => DataType::Utf8,
                "BIGINT" => DataType::Int64,
                "INT" => DataType::Int32,
                "BOOLEAN" => DataType::Boolean,
                "TIMESTAMP" => DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, None),
                other => panic!("{other}"),
            };
            assert_eq!(found.get(position), Some(&(&column.to_owned(), &kind)), "{name}.{column}");
        }
        relations += 1;
    }
    assert_eq!(relations, 37);
}

#[tokio::test]
async fn pushes_to_protected_branches_and_what_merged_them() {
    let push = |sha: &str, branch: &str, forced: bool| {
        vec![
            ("action", json!("git.push")),
            ("ci.repo", json!("acme/app")),
            ("ci.ref", json!(format!("refs/heads/{branch}"))),
            ("scm.before", json!("000")),
            ("scm.after", json!(sha)),
            ("scm.forced", json!(forced)),
            ("scm.default_branch", json!("main")),
            ("actor.id", json!("kim")),
        ]
    };
    let change = |action: &str, extra: &[(&'static str, Json)]| {
        let mut fields = vec![
            ("action", json!(action)),
            ("ci.repo", json!("acme/app")),
            ("change.number", json!(7)),
            ("change.author", json!("lee")),
            ("change.base", json!("main")),
            ("change.head", json!("h1")),
        ];
        fields.extend_from_slice(extra);
        fields
    };
    let merged = [("scm.after", json!("m1")), ("change.merged_by", json!("kim"))];
    let mut story = Story::new(SourceType::GithubWebhook).await;
    story
        .tell(&[
            (0, &change("change.opened", &[])),
            (
                5,
                &change(
                    "change.reviewed",
                    &[
                        ("change.review_state", json!("approved")),
                        ("actor.id", json!("kim")),
                        ("actor.type", json!("human")),
                        ("ci.sha", json!("h1")),
                    ],
                ),
            ),
            (6, &change("change.merged", &merged)),
            (6, &push("m1", "main", false)),
            (8, &push("x1", "main", true)),
            (20, &push("x2", "main", false)),
            (
                20,
                &[
                    ("action", json!("protected_branch.policy_override")),
                    ("ci.repo", json!("acme/app")),
                    ("actor.id", json!("kim")),
                ],
            ),
            (30, &push("x3", "topic", true)),
            (
                31,
                &[
                    ("action", json!("protected_branch.create")),
                    ("category", json!("config")),
                    ("config.object", json!("branch_protection")),
                    ("config.id", json!("release")),
                    ("ci.repo", json!("acme/app")),
                ],
            ),
            (32, &push("x4", "release", false)),
        ])
        .await;
    let pushes = story.ask("SELECT after_sha, forced, bypass, is_protected, at, event_id FROM push ORDER BY at").await;
    assert_eq!(
        pushes[0],
        [json!("m1"), json!(false), json!(false), json!(true), json!(at(6).to_string()), json!("0-3-0")]
    );
    let flags: Vec<_> =
        pushes.iter().map(|row| (row[0].as_str().unwrap(), row[1] == true, row[2] == true, row[3] == true)).collect();
    assert_eq!(
        flags,
        [
            ("m1", false, false, true),
            ("x1", true, false, true),
            ("x2", false, true, true),
            ("x3", true, false, false),
            ("x4", false, false, true)
        ]
    );
    let request = story.ask("SELECT * FROM change_request").await;
    assert_eq!(request.len(), 1);
    let expected = json!([
        "acme/app",
        7,
        "lee",
        "h1",
        "m1",
        "main",
        at(0).to_string(),
        at(6).to_string(),
        "kim",
        null,
        null,
        "0-2-0"
    ]);
    assert_eq!(json!(request[0]), expected);
    let review = story.ask("SELECT reviewer, reviewer_type, state, sha, submitted_at, dismissed_at FROM review").await;
    assert_eq!(json!(review), json!([["kim", "human", "approved", "h1", at(5).to_string(), null]]));
    // The exceptions of "no direct or forced push, or bypass, on protected refs".
    let direct = "SELECT p.after_sha FROM push p WHERE p.is_protected AND p.at >= :P0 AND p.at < :P1 AND (p.forced OR p.bypass OR
        NOT EXISTS (SELECT 1 FROM change_request c WHERE c.repo = p.repo AND c.merge_sha = p.after_sha)) ORDER BY p.at";
    assert_eq!(json!(story.ask(direct).await), json!([["x1"], ["x2"], ["x4"]]));
}

#[tokio::test]
async fn weakened_settings_and_how_long_they_stayed_so() {
    let set = |action: &str, repo: &str, weakens: bool| {
        vec![
            ("action", json!(action)),
            ("category", json!("config")),
            ("ci.repo", json!(repo)),
            ("config.object", json!("branch_protection")),
            ("config.id", json!("main")),
            ("config.weakens", json!(weakens)),
            ("actor.id", json!("kim")),
        ]
    };
    let mut story = Story::new(SourceType::GithubWebhook).await;
    story
        .tell(&[
            (1, &set("protected_branch.destroy", "acme/app", true)),
            (2, &set("protected_branch.destroy", "acme/lib", true)),
            (4, &set("protected_branch.create", "acme/app", false)),
            (9, &set("protected_branch.update", "acme/app", false)),
        ])
        .await;
    let rows = story
        .ask("SELECT scope, restored_at, coalesce(restored_at, :P1) - at > INTERVAL '1 hour' FROM config_change
              WHERE object_type IN ('branch_protection', 'ruleset') AND weakens AND at >= :P0 AND at < :P1 AND change_ref IS NULL ORDER BY at")
        .await;
    assert_eq!(json!(rows), json!([["acme/app", at(4).to_string(), false], ["acme/lib", null, true]]));
}

#[tokio::test]
async fn credentials_their_runs_and_what_they_read() {
    let mut story = Story::new(SourceType::AwsCloudtrail).await;
    let run = |action: &'static str, id: &'static str| {
        vec![
            ("action", json!(action)),
            ("ci.repo", json!("acme/app")),
            ("ci.run_id", json!(id)),
            ("reason", json!("success")),
        ]
    };
    let issued = |id: &'static str, expires: u32| {
        vec![
            ("action", json!("token.issued")),
            ("token.id", json!(id)),
            ("token.kind", json!("sts")),
            ("token.repo", json!("acme/app")),
            ("token.issuer", json!("https://token.actions.githubusercontent.com")),
            ("token.sub", json!("repo:acme/app:ref:refs/heads/main")),
            ("token.expires", json!(expires)),
            ("actor.type", json!("ci")),
            ("actor.id", json!("repo:acme/app")),
        ]
    };
    let read = |id: &'static str| {
        vec![
            ("action", json!("secret.read")),
            ("token.id", json!(id)),
            ("secret.path", json!("prod/db")),
            ("actor.type", json!("ci")),
            ("actor.id", json!("repo:acme/app")),
            ("outcome", json!("success")),
            ("src.ip", json!("192.0.2.1")),
        ]
    };
    story
        .tell(&[
            (0, &run("run.started", "r1")),
            (1, &issued("ASIA1", 31)),
            (2, &read("ASIA1")),
            (3, &read("ASIA9")),
            (5, &run("run.finished", "r1")),
            (6, &read("ASIA1")),
            (10, &run("run.started", "r2")),
            (10, &run("run.started", "r3")),
            (11, &issued("ASIA2", 200)),
            (12, &[("action", json!("token.revoked")), ("token.id", json!("ASIA2"))]),
            (
                13,
                &[
                    ("action", json!("token.issued")),
                    ("token.kind", json!("app")),
                    ("token.issuer", json!("github-actions")),
                    ("token.id", json!("GITHUB_TOKEN:r2:j1:1")),
                    ("ci.run_id", json!("r2")),
                    ("ci.job_id", json!("j1")),
                    ("actor.type", json!("ci")),
                    ("config.attribute", json!("contents")),
                ],
            ),
            (
                20,
                &[
                    ("action", json!("job.finished")),
                    ("ci.run_id", json!("r2")),
                    ("ci.job_id", json!("j1")),
                    ("ci.repo", json!("acme/app")),
                ],
            ),
        ])
        .await;
    let tokens = story
        .ask("SELECT token_id, run_id, run_basis, expires_at, revoked_at, scope_class FROM token ORDER BY issued_at")
        .await;
    assert_eq!(
        json!(tokens),
        json!([
            ["ASIA1", "r1", "only run of the repository at that time", at(31).to_string(), null, null],
            ["ASIA2", null, null, at(200).to_string(), at(12).to_string(), null],
            ["GITHUB_TOKEN:r2:j1:1", "r2", "stated", at(20).to_string(), null, "write"],
        ])
    );
    let uses = story.ask("SELECT token_id, run_id, source_ip, resource FROM token_use ORDER BY at").await;
    assert_eq!(json!(uses[0]), json!(["ASIA1", "r1", "192.0.2.1", "prod/db"]));
    assert_eq!(uses.len(), 3);
    // "Every CI credential was ephemeral, at most an hour."
    let lasting = "SELECT token_id FROM token WHERE holder_type = 'ci' AND issued_at >= :P0 AND issued_at < :P1
        AND (kind IN ('static', 'pat', 'deploy_key') OR expires_at IS NULL OR expires_at - issued_at > INTERVAL '1 hour')";
    assert_eq!(json!(story.ask(lasting).await), json!([["ASIA2"]]));
    // "Every secret read by CI used an ephemeral identity tied to a known run": an unknown token, and one after its run.
    let untied = "SELECT s.event_id FROM secret_access s LEFT JOIN token t ON t.token_id = s.token_id
        LEFT JOIN pipeline_run r ON r.run_id = s.run_id WHERE s.principal_type = 'ci' AND s.op = 'read' AND s.at >= :P0 AND s.at < :P1
        AND (t.token_id IS NULL OR t.expires_at IS NULL OR t.expires_at - t.issued_at > INTERVAL '1 hour' OR r.run_id IS NULL
             OR s.at < r.started_at OR s.at > coalesce(r.finished_at, :P1)) ORDER BY s.at";
    assert_eq!(json!(story.ask(untied).await), json!([["0-3-0"], ["0-5-0"]]));
    let runs = story.ask("SELECT run_id, conclusion, started_at, finished_at FROM pipeline_run ORDER BY run_id").await;
    assert_eq!(json!(runs[0]), json!(["r1", "success", at(0).to_string(), at(5).to_string()]));
    assert_eq!(runs[1][3], Json::Null);
}

#[tokio::test]
async fn admissions_and_the_policy_in_force() {
    let mut story = Story::new(SourceType::KubernetesAudit).await;
    let admit = |image: &str, decision: &'static str| {
        let mut fields = vec![
            ("action", json!("admission.decided")),
            ("k8s.cluster", json!("prod-eu")),
            ("k8s.namespace", json!("shop")),
            ("k8s.kind", json!("deployments")),
            ("k8s.name", json!("web")),
            ("k8s.verb", json!("create")),
            ("k8s.user", json!("deployer")),
            ("k8s.decision", json!(decision)),
            ("environment", json!("prod")),
            ("artifact.name", json!(image)),
        ];
        if let Some((_, digest)) = image.split_once('@') {
            fields.push(("artifact.digest", json!(digest)));
            fields.push(("signature.status", json!("verified")));
        }
        fields
    };
    let policy = |action: &'static str, weakens: bool, enforcement: &'static str| {
        vec![
            ("action", json!(action)),
            ("category", json!("config")),
            ("config.object", json!("admission_policy")),
            ("config.id", json!("require-signatures")),
            ("config.weakens", json!(weakens)),
            ("k8s.cluster", json!("prod-eu")),
            ("k8s.object.enforcement", json!(enforcement)),
        ]
    };
    story
        .tell(&[
            (0, &admit("shop/web@sha256:aa", "allow")),
            (1, &policy("k8s.create", false, "enforce")),
            (2, &admit("shop/web@sha256:aa", "allow")),
            (3, &admit("shop/web:latest", "deny")),
            (4, &policy("k8s.update", true, "audit")),
            (5, &admit("shop/web:latest", "allow")),
            (6, &policy("k8s.delete", true, "audit")),
            (7, &admit("shop/web@sha256:aa", "allow")),
            (
                8,
                &[
                    ("action", json!("artifact.signed")),
                    ("artifact.digest", json!("sha256:aa")),
                    ("ci.repo", json!("acme/app")),
                    ("ci.sha", json!("c1")),
                    ("ci.run_id", json!("r1")),
                    ("signature.predicate_type", json!("https://slsa.dev/provenance/v1")),
                    ("signature.identity", json!("wf")),
                ],
            ),
        ])
        .await;
    let rows = story.ask("SELECT decision, enforcement FROM admission ORDER BY at").await;
    assert_eq!(
        json!(rows),
        json!([["allow", null], ["allow", "enforce"], ["deny", "enforce"], ["allow", "audit"], ["allow", "deleted"]])
    );
    let lax =
        "SELECT a.uid FROM admission a WHERE a.env = 'prod' AND a.at >= :P0 AND a.at < :P1 AND a.decision = 'allow'
        AND (a.enforcement <> 'enforce' OR a.image_digest IS NULL OR a.image_ref LIKE '%:latest') ORDER BY a.at";
    assert_eq!(json!(story.ask(lax).await), json!([["0-5-0"], ["0-7-0"]]));
    let deployments =
        story.ask("SELECT image_digest, commit_sha, repo, run_id FROM deployment ORDER BY deployed_at").await;
    assert_eq!(json!(deployments[0]), json!(["sha256:aa", "c1", "acme/app", "r1"]));
    assert_eq!(
        json!(story.ask("SELECT result, count(*) FROM sig_verification GROUP BY result").await),
        json!([["pass", 3]])
    );
    assert_eq!(
        json!(story.ask("SELECT subject_digest, signer_identity, verified FROM attestation").await),
        json!([["sha256:aa", "wf", false]])
    );
}

#[tokio::test]
async fn a_policy_that_came_new_and_lax_enforces_nothing() {
    let mut story = Story::new(SourceType::KubernetesAudit).await;
    let policy = |field: &'static str, value: &'static str| {
        vec![
            ("action", json!("k8s.create")),
            ("config.object", json!("admission_policy")),
            ("config.id", json!("require-signatures")),
            ("config.weakens", json!(false)),
            ("k8s.cluster", json!("prod-eu")),
            (field, json!(value)),
        ]
    };
    let admitted = vec![
        ("action", json!("admission.decided")),
        ("k8s.cluster", json!("prod-eu")),
        ("k8s.decision", json!("allow")),
    ];
    story
        .tell(&[
            (0, &policy("k8s.object.enforcement", "audit")),
            (1, &admitted),
            (2, &policy("k8s.object.failure_policy", "Ignore")),
            (3, &admitted),
            (4, &policy("k8s.object.failure_policy", "Fail")),
            (5, &admitted),
        ])
        .await;
    let rows = story.ask("SELECT enforcement FROM admission ORDER BY at").await;
    assert_eq!(json!(rows), json!([["audit"], ["ignore"], ["enforce"]]));
}

#[tokio::test]
async fn actions_runners_and_leaks() {
    let mut story = Story::new(SourceType::GithubJoblog).await;
    let action = |reference: &'static str| {
        vec![
            ("action", json!("action.resolved")),
            ("ci.repo", json!("acme/app")),
            ("ci.run_id", json!("r1")),
            ("action_ref", json!(reference)),
        ]
    };
    let leak = |repo: &'static str, fingerprint: &'static str| {
        vec![
            ("action", json!("leak.detected")),
            ("ci.repo", json!(repo)),
            ("leak.type", json!("github-token")),
            ("leak.fingerprint", json!(fingerprint)),
        ]
    };
    let job = |id: &'static str, kind: &'static str, labels: &'static str| {
        vec![
            ("action", json!("job.started")),
            ("ci.repo", json!("acme/app")),
            ("ci.run_id", json!("r1")),
            ("ci.job_id", json!(id)),
            ("runner.name", json!("runner")),
            ("runner.kind", json!(kind)),
            ("runner.labels", json!(labels)),
        ]
    };
    story
        .tell(&[
            (0, &action("actions/checkout@v4")),
            (0, &action("tj-actions/changed-files@v35")),
            (0, &action("tj-actions/changed-files@0e58ed8671d6b60d0890c21b07f8835ace038e67")),
            (0, &action("acme/own@main")),
            (1, &leak("acme/app", "fp1")),
            (2, &leak("acme/app", "fp1")),
            (2, &leak("acme/lib", "fp1")),
            (3, &job("j1", "github-hosted", "ubuntu-latest")),
            (3, &job("j2", "self-hosted", "self-hosted,linux")),
            (3, &job("j3", "self-hosted", "self-hosted,ephemeral")),
        ])
        .await;
    let actions = story.ask("SELECT action_ref, third_party, pinned_to_sha FROM action_use ORDER BY event_id").await;
    let flags: Vec<_> = actions.iter().map(|row| (row[1] == true, row[2] == true)).collect();
    assert_eq!(flags, [(false, false), (true, false), (true, true), (false, false)]);
    let leaks = story.ask("SELECT leak_id, location_type, repo, exposed_at FROM leak WHERE disposition <> 'false_positive' ORDER BY leak_id").await;
    assert_eq!(
        json!(leaks),
        json!([["0-4-0", "ci_log", "acme/app", at(1).to_string()], ["0-6-0", "ci_log", "acme/lib", at(2).to_string()]])
    );
    let jobs = story.ask("SELECT self_hosted, ephemeral FROM runner_job ORDER BY event_id").await;
    assert_eq!(json!(jobs), json!([[false, true], [true, false], [true, true]]));
}

const IMAGE: &str = "sha256:aa";

#[tokio::test]
async fn bills_of_materials_scans_and_builders() {
    let mut story = Story::new(SourceType::Trivy).await;
    let found = |rule: &'static str, severity: &'static str| {
        vec![
            ("action", json!("scan.found")),
            ("scan.kind", json!("vulnerability")),
            ("scan.rule", json!(rule)),
            ("scan.severity", json!(severity)),
            ("scan.tool", json!("trivy")),
            ("artifact.digest", json!(IMAGE)),
        ]
    };
    let report = |findings: i64| {
        vec![
            ("action", json!("scan.finished")),
            ("scan.tool", json!("trivy")),
            ("scan.findings", json!(findings)),
            ("artifact.digest", json!(IMAGE)),
        ]
    };
    let alert = |action: &'static str| {
        vec![
            ("action", json!(action)),
            ("scan.kind", json!("vulnerability")),
            ("scan.rule", json!("CVE-3")),
            ("scan.severity", json!("unknown")),
            ("ci.repo", json!("acme/app")),
        ]
    };
    let bill = vec![
        ("action", json!("sbom.created")),
        ("sbom.format", json!("CycloneDX 1.5")),
        ("sbom.components", json!(12)),
        ("artifact.digest", json!(IMAGE)),
    ];
    let provenance = vec![
        ("action", json!("artifact.signed")),
        ("signature.predicate_type", json!("https://slsa.dev/provenance/v1")),
        ("build.builder", json!("https://github.com/actions/runner/github-hosted")),
        ("artifact.digest", json!(IMAGE)),
    ];
    let events = [
        (1, report(2)),
        (1, found("CVE-1", "high")),
        (1, found("CVE-2", "critical")),
        (2, alert("scan.found")),
        (3, bill),
        (4, provenance),
        (5, report(1)),
        (5, found("CVE-2", "medium")),
        (6, alert("scan.fixed")),
    ];
    let told: Vec<(u32, &[(&str, Json)])> = events.iter().map(|(minute, fields)| (*minute, &fields[..])).collect();
    story.tell(&told).await;
    let rows =
        story.ask("SELECT vuln_id, digest, severity, first_seen, fixed_at, event_id FROM vuln ORDER BY vuln_id").await;
    let expected = json!([
        ["CVE-1", IMAGE, 4, at(1).to_string(), at(5).to_string(), "0-1-0"],
        ["CVE-2", IMAGE, 5, at(1).to_string(), null, "0-2-0"],
        ["CVE-3", null, null, at(2).to_string(), at(6).to_string(), "0-3-0"],
    ]);
    assert_eq!(json!(rows), expected);
    let rows = story.ask("SELECT findings, at FROM scan ORDER BY at").await;
    assert_eq!(json!(rows), json!([[2, at(1).to_string()], [1, at(5).to_string()]]));
    let rows = story.ask("SELECT digest, format, generated_at, components, doc_sha256 FROM sbom").await;
    // Of `{}`, which is what the records of this story hold.
    let digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!(json!(rows), json!([[IMAGE, "CycloneDX 1.5", at(3).to_string(), 12, digest]]));
    let rows = story.ask("SELECT subject_digest, builder_id FROM attestation").await;
    assert_eq!(json!(rows), json!([[IMAGE, "https://github.com/actions/runner/github-hosted"]]));
}

#[tokio::test]
async fn findings_and_incidents_with_what_people_did() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("store.db"), clock()).await.unwrap();
    let lake = Lake::open(&dir.path().join("lake")).await.unwrap();
    let mut incidents = engine::incident::Incidents::default();
    let mut one = finding(1);
    let (incident, opened) = incidents.admit(&one);
    one.incident = Some(incident.id.clone());
    let mut steps = vec![opened];
    for (minute, verb) in
        [(1, Verb::Ack), (2, Verb::Remediate), (3, Verb::Close), (4, Verb::Reopen), (7, Verb::Remediate)]
    {
        let (_, step): (_, IncidentStep) = incidents.apply(&incident.id, verb, at(minute), "kim", None).unwrap();
        steps.push(step);
    }
    let commit = Commit {
        findings: vec![one, finding(2)],
        incidents: vec![incident.clone()],
        steps,
        windows: vec![
            window(0, 9),
            SourceWindow { basis: "3 numbered events are missing, 4-6 of host among them".to_owned(), ..window(1, 2) },
            SourceWindow { basis: "sequence numbers without a gap; not receiving for 4 s".to_owned(), ..window(2, 2) },
        ],
        ..batch(0, 1)
    };
    store.commit(&commit).await.unwrap();
    lake.follow(&store).await.unwrap();
    let rows = ask(
        &lake,
        "SELECT finding_id, severity, detected_at, triaged_at, disposition FROM finding ORDER BY finding_id",
    )
    .await;
    assert_eq!(json!(rows[0][1..]), json!([4, START.to_string(), at(1).to_string(), "in_progress"]));
    assert_eq!(json!(rows[1][3..]), json!([null, null]));
    let rows = ask(&lake, "SELECT incident_id, severity, category, occurred_at, occurred_basis, detected_at, acknowledged_at, remediated_at, closed_at, reopened, detected_mode FROM incident").await;
    let expected = json!([[
        incident.id,
        4,
        "attack.t1078",
        START.minus(MINUTE).to_string(),
        "observed",
        START.to_string(),
        at(1).to_string(),
        at(7).to_string(),
        null,
        1,
        "live"
    ]]);
    assert_eq!(json!(rows), expected);
    let rows = ask(
        &lake,
        "SELECT source_id, got_count, status, seq_gaps FROM source_window
         WHERE status IS NULL OR status <> 'complete' ORDER BY w_start",
    )
    .await;
    let expected = json!([
        ["acme", 9, "not_established", null],
        ["acme", 2, "not_established", 3],
        ["acme", 2, "not_established", 0],
    ]);
    assert_eq!(json!(rows), expected);
}

#[tokio::test]
async fn what_came_after_as_of_is_not_seen() {
    let mut story = Story::new(SourceType::Json).await;
    story.tell(&[(0, &[("action", json!("cloud.api"))]), (0, &[("action", json!("cloud.api"))])]).await;
    // Records are received a second apart, whenever they happened.
    let as_of = START.plus(Duration::from_secs(1));
    let sql = Sql::over(&story.lake.pin(), Some(as_of), Limits::CONSOLE).await.unwrap();
    assert_eq!(sql.query("SELECT * FROM fact", &[]).await.unwrap().len(), 1);
    story.tell(&[(0, &[("action", json!("cloud.api"))])]).await;
    let later = Sql::over(&story.lake.pin(), Some(as_of), Limits::CONSOLE).await.unwrap();
    let query = "SELECT * FROM events ORDER BY event_id";
    assert_eq!(later.query(query, &[]).await.unwrap().batches(), sql.query(query, &[]).await.unwrap().batches());
}

#[tokio::test]
async fn the_files_of_a_pack_give_the_same_answers() {
    let mut story = Story::new(SourceType::Json).await;
    story
        .tell(&[
            (0, &[("action", json!("git.push")), ("ci.repo", json!("acme/app"))]),
            (1, &[("action", json!("cloud.api"))]),
        ])
        .await;
    let sql = Sql::over(&story.lake.pin(), None, Limits::EVIDENCE).await.unwrap();
    let events = sql.query("SELECT * FROM events ORDER BY \"partition\", \"index\", sub", &[]).await.unwrap();
    let bytes = parquet_bytes(events.schema(), events.batches()).unwrap();
    assert_eq!(bytes, parquet_bytes(events.schema(), events.batches()).unwrap());
    for name in ["events.parquet", "events-2026-11.parquet", "events/2026/a.parquet"] {
        let pack = tempfile::tempdir().unwrap();
        let path = pack.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &bytes).unwrap();
        std::fs::write(pack.path().join("eventsother.parquet"), b"not ours").unwrap();
        let again = Sql::over_parquet(pack.path(), None, Limits::EVIDENCE).await.unwrap();
        for query in ["SELECT * FROM push", "SELECT count(*) FROM fact", "SELECT * FROM incident"] {
            let expected = sql.query(query, &[]).await.unwrap().json().unwrap();
            assert_eq!(again.query(query, &[]).await.unwrap().json().unwrap(), expected, "{name}: {query}");
        }
    }
    assert!(matches!(
        Sql::over_parquet(Path::new("/nowhere"), None, Limits::CONSOLE).await,
        Err(SqlError::Folder { .. })
    ));
}
