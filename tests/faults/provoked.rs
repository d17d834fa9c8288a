//! What has to happen so that a named point is passed which no load passes by itself, and what must hold of it after a death there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::IntoResponse as _;
use pipeproof_engine::clock::{Clock as _, SystemClock};
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::time::Timestamp;
use serde_json::{Value, json};

use crate::damage::{files, verified};
use crate::process::{Injected, PATIENCE, Server, output, program, wait};
use crate::row::Row;
use crate::world::World;

/// What nobody may read any more, and no detector knows as a secret.
const CANARY: &str = "quiet-lantern-over-halibut-bay";
const TOKEN: &str = "glpat-standinstandinstandin";
/// A rule that asks the lake each second and finds nothing.
const ASKING: &str = "title: A repository with very many jobs
id: 0b7d7c2e-0000-4000-8000-0000000000f8
name: asking
taxonomy: cicd
sql:
    every: 1s
    lookback: 1h
    key: [ci.repo]
    query: |
        SELECT j.\"ci.repo\" FROM events j WHERE j.time BETWEEN :from AND :to
        GROUP BY j.\"ci.repo\" HAVING count(*) > 1000000000
level: low
requires: [json]
";
/// A rule that comes later and finds nothing.
const ANOTHER: &str = "title: Nothing of the kind
id: 0b7d7c2e-0000-4000-8000-0000000000f9
name: nothing
taxonomy: cicd
logsource: {product: cicd}
detection: {none: {action: nothing.of-the-kind}, condition: none}
level: low
requires: [json]
";

/// What makes the program pass a point.
pub(crate) enum Provoked {
    Load,
    Backup,
    Rules,
    Sql,
    FailedSync,
    Redaction,
    Collector(Provider),
}

/// Audit events of a provider that are fetched; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Provider(Arc<Mutex<Vec<Value>>>);

impl Provoked {
    /// Prepares a world for it.
    pub(crate) async fn by(point: Failpoint, world: &mut World) -> Self {
        let (part, _) = point.name().split_once('.').unwrap();
        match part {
            "backup" => Self::Backup,
            "rules" => Self::Rules,
            "heal" => Self::FailedSync,
            "sql" => {
                world.add_rule("asking.yml", ASKING);
                Self::Sql
            }
            "redact" => {
                world.sources.push_str("  - {name: other, type: json}\n");
                // What the log has let go of already is not overwritten there.
                world.extra = world.extra.replace("keep_bytes: 0, ", "");
                Self::Redaction
            }
            "collect" => {
                let (provider, url) = Provider::start().await;
                let collects = format!("gitlab: {{api: {url}, group: acme, token: {{env: TOKEN}}, every: 1s}}");
                world.sources.push_str(&format!("  - {{name: audit, type: gitlab.audit, collects: {{{collects}}}}}\n"));
                world.env.push(("TOKEN", TOKEN.to_owned()));
                Self::Collector(provider)
            }
            _ => Self::Load,
        }
    }

    /// Does it under load, until the server is gone.
    pub(crate) async fn provoke(&self, world: &World, server: &Server, stop: &AtomicBool) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        match self {
            Self::Load | Self::Sql => {}
            Self::Backup => drop(server.post("/v1/backup", json!({ "to": world.folder().join("cut") })).await),
            Self::Rules => {
                world.add_rule("another.yml", ANOTHER);
                server.signal("HUP");
            }
            Self::FailedSync => {
                let injected = Injected::start(server.pid(), "fdatasync", "error=EIO", None).await;
                while !stop.load(Ordering::SeqCst) {
                    // It heals once its syncs work again, which the second point waits for.
                    tokio::time::sleep(Duration::from_millis(1_500)).await;
                    if server.log().iter().any(|line| line.contains("stops accepting")) {
                        break;
                    }
                }
                drop(injected);
            }
            Self::Redaction => {
                let body = json!({ "said": CANARY }).to_string().into_bytes();
                drop(server.ask(reqwest::Method::POST, "/v1/events/other", body).await);
                server.settled().await;
                let query = json!({ "query": "SELECT \"index\" FROM events WHERE source = 'other'" });
                let reply = server.post("/v1/sql", query).await.map(|reply| reply.json()).unwrap_or_default();
                let path = format!("/v1/records/0-{}-0/redact", reply["rows"][0][0]);
                drop(server.post(&path, json!({ "reason": "a fault run" })).await);
            }
            Self::Collector(provider) => {
                while !stop.load(Ordering::SeqCst) {
                    provider.happened();
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// What must hold of it after the death and a new start.
    pub(crate) async fn check(&self, row: &mut Row, world: &World, server: &Server) {
        match self {
            Self::Load | Self::FailedSync => {}
            Self::Backup => {
                let restore = |from: &str, to: &str| {
                    let folder = world.folder();
                    let mut restore = program();
                    restore.arg("restore").arg(folder.join(from)).arg("--data").arg(folder.join(to));
                    output(&mut restore).status.success()
                };
                row.expect(!restore("cut", "never"), "half a backup is restored");
                let whole = server.post("/v1/backup", json!({ "to": world.folder().join("whole") })).await;
                row.expect(whole.is_some_and(|reply| reply.status.is_success()), "no backup after the death");
                row.expect(restore("whole", "restored"), "the backup after the death cannot be restored");
            }
            Self::Rules => {
                let named = wait(PATIENCE, || async {
                    let listed = server.get("/v1/rules").await.unwrap_or_default();
                    listed.to_string().contains("Nothing of the kind")
                });
                row.expect(named.await, "the rules that were written are not in force after the next start");
            }
            Self::Sql => {
                let ran = wait(PATIENCE, || async {
                    server.metric("pipeproof_sql_rule_runs_total{outcome=\"ok\"}").await.is_some_and(|runs| runs > 0.0)
                });
                row.expect(ran.await, "the rule that asks the lake does not run any more");
                let runs = "SELECT count(*), count(DISTINCT item) FROM events WHERE source = 'pipeproof'";
                let rows = server.rows(runs).await;
                row.expect(rows[0][0] == rows[0][1], "own records are there twice");
            }
            Self::Redaction => {
                let done = wait(PATIENCE, || async {
                    let listed = server.get("/v1/redactions").await.unwrap_or_default();
                    listed["redactions"][0]["done"] == json!(true)
                });
                row.expect(done.await, "the redaction is not done after the next start");
                // Parquet pages are compressed: the doctor looks into them, and the files' bytes are looked at here.
                let said = verified(server).await;
                row.expect(said.is_ok(), format!("after the redaction: {said:?}"));
                let seen = |file: &std::path::PathBuf| {
                    let bytes = std::fs::read(file).unwrap_or_default();
                    bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
                };
                let seen: Vec<_> = files(&world.data).into_iter().filter(seen).collect();
                row.expect(seen.is_empty(), format!("what was redacted stands in {seen:?}"));
            }
            Self::Collector(provider) => {
                let query = "SELECT count(*), count(DISTINCT item) FROM events WHERE source = 'audit' AND sub = 0";
                let there = provider.0.lock().unwrap().len();
                let whole =
                    wait(PATIENCE, || async { server.rows(query).await[0] == [json!(there), json!(there)] }).await;
                row.expect(whole, format!("of {there} events of the provider: {:?}", server.rows(query).await[0]));
                row.say(format!("{there} events fetched, each once"));
            }
        }
    }
}

impl Provider {
    async fn start() -> (Self, String) {
        let provider = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(list).with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (provider, url)
    }

    fn happened(&self) {
        let mut all = self.0.lock().unwrap();
        let at = Timestamp::from_secs(SystemClock.now().as_micros() / 1_000_000);
        let number = all.len() + 1;
        all.push(json!({
            "id": number, "author_id": 5, "author_name": "Ada", "entity_id": 7, "entity_type": "Group", "created_at": at,
            "event_name": "member_created", "details": {"custom_message": "Membership created", "ip_address": "192.0.2.1"},
        }));
    }
}

async fn list(
    State(provider): State<Provider>,
    Query(asked): Query<BTreeMap<String, String>>,
) -> axum::response::Response {
    let after = asked.get("created_after").and_then(|after| Timestamp::parse(after));
    let at = |event: &Value| Timestamp::parse(event["created_at"].as_str().unwrap()).unwrap();
    let all = provider.0.lock().unwrap();
    let found: Vec<&Value> = all.iter().filter(|event| after.is_none_or(|after| at(event) >= after)).collect();
    axum::Json(found).into_response()
}
