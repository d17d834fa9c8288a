//! What nobody pushed is fetched: after being down nothing is missing, nothing is there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Server, Setup, eventually, now};
use crate::provider::{Again, Provider, TOKEN, guids};

const MINUTE: Duration = Duration::from_secs(60);
const SECRET: &str = "a-secret-of-the-webhook";
/// A deployment that has not ended when it is listed.
const GOES_ON: u64 = 45_000;

fn config(provider: &Provider) -> String {
    let api = format!("api: {}, token: {{env: GITHUB_TOKEN}}, every: 1s", provider.url);
    format!(
        "sources:
  - {{name: hooks, type: github.webhook, secrets: [{{env: HOOK_SECRET}}], collects: {{github: {{{api}, repositories: [acme/shop]}}}}}}
  - {{name: logs, type: github.joblog, collects: {{github: {{{api}, repositories: [acme/gone, acme/shop], seen_by: hooks}}}}}}
  - {{name: audit, type: github.audit, collects: {{github: {{{api}, organization: acme}}}}}}
  - {{name: ledger, type: provider.ledger, collects: {{github: {{{api}, repositories: [acme/gone, acme/shop]}}}}}}
"
    )
}

fn start(provider: &Provider, data: &Path) -> Server {
    provider.kept.lock().unwrap().closed = None;
    Setup::new().on(data).config(&config(provider)).env("GITHUB_TOKEN", TOKEN).env("HOOK_SECRET", SECRET).start()
}

fn job_payload(run: u64, job: u64, attempt: u64) -> Value {
    json!({
        "action": "completed",
        "workflow_job": {
            "id": job, "run_id": run, "run_attempt": attempt, "status": "completed", "conclusion": "success",
            "name": "build", "workflow_name": "ci", "head_branch": "main", "head_sha": "abc", "labels": [],
            "started_at": "2026-11-26T05:34:27Z", "completed_at": "2026-11-26T05:35:27Z",
        },
        "repository": {"full_name": "acme/shop"}, "sender": {"login": "octocat", "type": "User"},
    })
}

fn deployment_payload(deployment: u64, state: &str, ago: Duration) -> Value {
    let at = now().minus(ago);
    json!({
        "action": "created",
        "deployment_status": {
            "id": deployment * 100, "state": state, "environment": "production", "created_at": at, "updated_at": at,
        },
        "deployment": {
            "id": deployment, "sha": "abc", "ref": "main", "task": "deploy", "environment": "production",
            "creator": {"login": "octocat", "type": "User"}, "created_at": at, "updated_at": at,
        },
        "repository": {"full_name": "acme/shop"}, "sender": {"login": "octocat", "type": "User"},
    })
}

/// What a source holds by a column, with how often.
async fn held(server: &Server, source: &str, column: &str) -> BTreeSet<String> {
    server.settled().await;
    let query = format!("SELECT {column}, count(*) FROM events WHERE source = '{source}' AND sub = 0 GROUP BY 1");
    let rows = server.sql(&query).await;
    for row in &rows {
        assert_eq!(row[1], 1, "{source} holds {} more than once", row[0]);
    }
    rows.iter().map(|row| row[0].as_str().unwrap_or_default().to_owned()).collect()
}

/// Waits until a source holds exactly these.
pub(crate) async fn holds(server: &Server, source: &str, column: &str, expected: &BTreeSet<String>) {
    let mut missing = BTreeSet::new();
    for _ in 0..120 {
        let held = held(server, source, column).await;
        assert!(held.is_subset(expected), "{source} holds what it should not: {held:?}");
        missing = expected.difference(&held).cloned().collect();
        if missing.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let told = server.get("/v1/sources").await;
    panic!("{source} lacks {missing:?}: {told:#}");
}

pub(crate) fn set(names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    names.into_iter().collect()
}

/// Some minutes of a provider's life, which began so long ago.
fn minutes(provider: &Provider, first: u64, began: Duration) {
    for number in first..first + 12 {
        let ago = began - Duration::from_secs(15) * u32::try_from(number - first).unwrap();
        let (run, job) = (10_000 + number, 20_000 + number);
        provider.ran(run, job, ago);
        provider.delivered("workflow_job", &job_payload(run, job, 1), ago, 502);
        provider.delivered(
            "push",
            &json!({"ref": "refs/heads/main", "after": format!("{number}"), "repository": {"full_name": "acme/shop"}}),
            ago,
            502,
        );
        provider.audited(&format!("doc-{number}"), ago);
        provider.merged(number, ago);
        let (deployment, end) = (40_000 + number, if number % 3 == 0 { "failure" } else { "success" });
        provider.deployed(deployment, ago, &["queued", "in_progress", end]);
        // The webhook was not subscribed to all of them.
        if number % 2 == 0 {
            provider.delivered("deployment_status", &deployment_payload(deployment, end, ago), ago, 502);
        }
    }
    // A job of an old run that was started again: only its webhook tells.
    let job = 30_000 + first;
    provider.kept.lock().unwrap().logs.insert(job, format!("2026-11-26T05:34:27.0000000Z job {job}\n"));
    provider.delivered("workflow_job", &job_payload(5, job, 2), began, 502);
    // A deployment that was deleted since: only its webhook tells, too.
    let ago = began - Duration::from_secs(60);
    provider.delivered("deployment_status", &deployment_payload(50_000 + first, "success", ago), ago, 502);
}

async fn everything_is_there(server: &Server, provider: &Provider) {
    holds(server, "hooks", "item", &set(guids(provider).into_iter().map(|guid| format!("id:{guid}")))).await;
    let (audit, logs, ledger) = {
        let kept = provider.kept.lock().unwrap();
        let runs = kept.runs.iter().map(|run| format!("id:github/run/acme/shop/{}/1", run["id"]));
        let changes = kept.changes.iter().map(|change| format!("id:github/change/acme/shop/{}", change["number"]));
        let deployments = kept.ended().into_iter().map(|id| format!("id:github/deployment/acme/shop/{id}"));
        (
            set(kept.audit.iter().map(|entry| format!("id:{}", entry["_document_id"].as_str().unwrap()))),
            set(kept.logs.keys().map(ToString::to_string)),
            set(runs.chain(changes).chain(deployments)),
        )
    };
    holds(server, "audit", "item", &audit).await;
    holds(server, "logs", "ci_job_id", &logs).await;
    holds(server, "ledger", "item", &ledger).await;
}

/// What the provider lists is held, and what of it no event told, and what only an event told, is said.
async fn reconciled_with_the_ledger(server: &Server) {
    let ended = "SELECT result, count(*) FROM provider_ledger WHERE object_kind = 'deployment' GROUP BY 1 ORDER BY 1";
    assert_eq!(server.sql(ended).await, [[json!("failure"), json!(4)], [json!("success"), json!(9)]]);
    let all = "SELECT object_kind, result, count(*) FROM reconciliation GROUP BY 1, 2 ORDER BY 1, 2";
    let expected = [
        ("change", "missing", 12),
        ("deployment", "matched", 6),
        ("deployment", "missing", 7),
        ("deployment", "unlisted", 1),
        ("run", "matched", 12),
    ];
    let expected = expected.map(|(kind, result, count)| [json!(kind), json!(result), json!(count)]);
    assert_eq!(server.sql(all).await, expected);
    let of = "SELECT object_id FROM reconciliation WHERE object_kind = 'deployment' AND result";
    let untold = [40_001, 40_003, 40_005, 40_007, 40_009, 40_011, GOES_ON].map(|id| [json!(id.to_string())]);
    assert_eq!(server.sql(&format!("{of} = 'missing' ORDER BY 1")).await, untold);
    assert_eq!(server.sql(&format!("{of} = 'unlisted'")).await, [[json!("50000")]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_we_were_down_is_there_afterwards_and_once() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let provider = Provider::start().await;
    let server = start(&provider, &data);
    // One that arrives as it should, a minute and more ago for the provider.
    let payload = job_payload(1, 2, 1);
    provider.kept.lock().unwrap().logs.insert(2, "2026-11-26T05:34:27.0000000Z job 2\n".to_owned());
    let guid = provider.delivered("workflow_job", &payload, MINUTE * 2, 200);
    server.send_github("hooks", SECRET, "workflow_job", &guid, payload.to_string().as_bytes()).await.expect(200);
    holds(&server, "logs", "ci_job_id", &set(["2".to_owned()])).await;
    let live = server.sql("SELECT mode, auth FROM events WHERE source = 'hooks'").await;
    assert_eq!(live, [[json!("live"), json!("hmac")]], "what was delivered is not fetched");
    server.kill();

    minutes(&provider, 0, MINUTE * 10);
    provider.deployed(GOES_ON, MINUTE, &["in_progress"]);
    provider.kept.lock().unwrap().trouble_every = 7;
    let server = start(&provider, &data);
    everything_is_there(&server, &provider).await;
    let fetched =
        server.sql("SELECT DISTINCT mode, auth FROM events WHERE source IN ('audit', 'logs', 'ledger')").await;
    assert_eq!(fetched, [[json!("collected"), json!("fetched")]]);
    assert_eq!(server.actions("hooks").await["git.push"], 12, "a fetched delivery decodes as a pushed one");

    // Nothing is fetched twice once it is there, and asking costs next to nothing.
    provider.kept.lock().unwrap().trouble_every = 0;
    let (logs, deliveries) = (provider.asked("/logs"), provider.asked("/deliveries/"));
    let unchanged = provider.kept.lock().unwrap().not_modified;
    eventually("lists are asked for again", || async {
        (provider.kept.lock().unwrap().not_modified > unchanged + 4).then_some(())
    })
    .await;
    assert_eq!((provider.asked("/logs"), provider.asked("/deliveries/")), (logs, deliveries));
    provider.stands(GOES_ON, "success", now());
    everything_is_there(&server, &provider).await;
    reconciled_with_the_ledger(&server).await;
    assert_eq!(provider.kept.lock().unwrap().offences, [] as [String; 0]);

    // What failed last may wait for its next try still.
    let collector = eventually("the collector is well again", || async {
        let sources = server.get("/v1/sources").await;
        let hooks = sources["sources"].as_array().unwrap().iter().find(|source| source["name"] == "hooks").unwrap();
        let collector = hooks["collectors"][0].clone();
        (collector["state"] == "ok").then_some(collector)
    })
    .await;
    assert_eq!(collector["collector"], "github.deliveries/acme/shop");
    assert!(
        collector["last_success"].is_string() && collector["next"].is_string() && collector["position"].is_object(),
        "{collector}"
    );
    assert_eq!(collector["items_ever"], 32);
    // A repository that was deleted costs the others nothing, and is told.
    let sources = server.get("/v1/sources").await;
    for (name, lists) in [("logs", 1), ("ledger", 3)] {
        let source = sources["sources"].as_array().unwrap().iter().find(|source| source["name"] == name).unwrap();
        let troubled = source["collectors"][0]["troubled"].as_array().unwrap();
        assert_eq!(troubled.len(), lists, "{troubled:?}");
        for one in troubled {
            assert!(one["member"] == "acme/gone" && one["error"].as_str().unwrap().contains("404"), "{one}");
        }
    }
    let log = server.log().join("\n");
    assert!(!log.contains(TOKEN) && !log.contains("sig=secret"), "no credentials in the log");
}

/// How deliveries came.
const WAYS: &str = "SELECT item, mode, auth FROM events WHERE source = 'hooks' AND sub = 0 ORDER BY item";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_github_is_asked_to_deliver_again_counts_once_whichever_way_it_comes() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let provider = Provider::start().await;
    let api = format!("api: {}, token: {{env: GITHUB_TOKEN}}, every: 1s", provider.url);
    let collects = format!("{{github: {{{api}, repositories: [acme/shop], redeliver: true}}}}");
    let secrets = "[{env: HOOK_SECRET}]";
    let config =
        format!("sources:\n  - {{name: hooks, type: github.webhook, secrets: {secrets}, collects: {collects}}}\n");
    let setup = || Setup::new().on(&data).config(&config).env("GITHUB_TOKEN", TOKEN).env("HOOK_SECRET", SECRET);
    let push = |number: u32| json!({"ref": "refs/heads/main", "after": number.to_string(), "repository": {"full_name": "acme/shop"}});
    let server = setup().start();
    let live = provider.delivered("push", &push(0), MINUTE * 6, 200);
    server.send_github("hooks", SECRET, "push", &live, push(0).to_string().as_bytes()).await.expect(200);
    holds(&server, "hooks", "item", &set([format!("id:{live}")])).await;
    server.kill();

    let missed = [1, 2, 3, 4].map(|number| provider.delivered("push", &push(number), MINUTE * (6 - number), 502));
    let [sent, refused, both, vain] = &missed;
    provider.kept.lock().unwrap().again = BTreeMap::from([
        (refused.clone(), Again::Refused),
        (both.clone(), Again::RefusedAndSent),
        (vain.clone(), Again::InVain),
    ]);
    let all = set(guids(&provider).into_iter().map(|guid| format!("id:{guid}")));
    let server = setup().start();
    let receiver = (format!("{}/v1/events/hooks", server.public_url()), SECRET.to_owned());
    provider.kept.lock().unwrap().receiver = Some(receiver);
    holds(&server, "hooks", "item", &all).await;
    let ways = server.sql(WAYS).await;
    let way = |guid: &String| {
        let row = ways.iter().find(|row| row[0] == format!("id:{guid}")).unwrap();
        [row[1].clone(), row[2].clone()]
    };
    let (delivered, fetched) = ([json!("live"), json!("hmac")], [json!("collected"), json!("fetched")]);
    assert_eq!([way(&live), way(sent)], [delivered.clone(), delivered.clone()]);
    assert_eq!([way(refused), way(vain)], [fetched.clone(), fetched.clone()], "what GitHub does not bring is fetched");
    // Which of the two was first is chance.
    assert!([delivered, fetched].contains(&way(both)), "{ways:?}");
    let asked = [sent, both, vain].map(String::clone);
    assert_eq!(provider.kept.lock().unwrap().sent_again, asked, "each is asked for once, whatever came of it");

    // Whoever presses the button brings again what is there, delivered or fetched.
    for guid in std::iter::once(&live).chain(&missed) {
        assert_eq!(provider.redeliver(guid).await, 200, "{guid}");
    }
    holds(&server, "hooks", "item", &all).await;
    assert_eq!(server.sql(WAYS).await, ways);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_collecting_it_goes_on_where_it_was() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let provider = Provider::start().await;
    minutes(&provider, 0, MINUTE * 10);
    for kill in 0..4_usize {
        let before = provider.kept.lock().unwrap().asked.len();
        let server = start(&provider, &data);
        // At another place each time.
        let more = 5 + 9 * kill;
        eventually("it is collecting", || async {
            (provider.kept.lock().unwrap().asked.len() >= before + more).then_some(())
        })
        .await;
        server.kill();
    }
    // Later than what was listed before.
    minutes(&provider, 100, MINUTE * 5);
    let server = start(&provider, &data);
    everything_is_there(&server, &provider).await;
    server.terminate();
    // The cursors are in the log: a start without the saved copy finds them there.
    std::fs::remove_file(data.join("registry.json")).unwrap();
    let logs = provider.asked("/logs");
    let server = start(&provider, &data);
    let asked = provider.asked("/audit-log");
    eventually("it collects", || async { (provider.asked("/audit-log") > asked + 2).then_some(()) }).await;
    everything_is_there(&server, &provider).await;
    assert_eq!(provider.asked("/logs"), logs, "no log is fetched again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_refuses_is_told_in_words() {
    let provider = Provider::start().await;
    let config = format!(
        "sources:\n  - {{name: audit, type: github.audit, collects: {{github: {{api: {}, token: {{env: GITHUB_TOKEN}}, organization: acme}}}}}}\n",
        provider.url
    );
    let server = Setup::new().config(&config).env("GITHUB_TOKEN", "ghp_expiredexpiredexpired").start();
    let collector = eventually("the refusal is told", || async {
        let sources = server.get("/v1/sources").await;
        let collector = sources["sources"][0]["collectors"][0].clone();
        (collector["state"] == "failing").then_some(collector)
    })
    .await;
    let error = collector["last_error"]["error"].as_str().unwrap();
    for part in ["/orgs/acme/audit-log", "401", "Bad credentials", "permissions"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    assert!(collector["last_success"].is_null() && collector["next"].is_string(), "{collector}");
    let listed = crate::harness::stdout(&server.cli(&["sources", "list"]));
    assert!(listed.contains("Bad credentials"), "{listed}");
    assert!(!server.log().join("\n").contains("ghp_expired"), "the token is in the log");
}

#[test]
fn what_is_wrong_with_a_collector_is_named() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("p.yaml");
    let text = "version: 1
sources:
  - {name: a, type: github.audit, collects: {github: {repositories: [acme/shop], token: {env: NOT_SET_ANYWHERE}}}}
  - {name: b, type: vault.audit, collects: {github: {organization: acme, app: {id: '1', installation: 2, key: {file: /nowhere}}}}}
  - {name: c, type: provider.ledger, collects: {gitlab: {api: 'ftp://x', group: g, token: {env: PATH}, what: [everything], every: soon}}}
";
    std::fs::write(&path, text).unwrap();
    let output = crate::harness::run([
        "serve",
        "--config",
        path.to_str().unwrap(),
        "--data",
        folder.path().join("d").to_str().unwrap(),
    ]);
    let said = crate::harness::stderr(&output);
    for part in [
        "sources[0].collects.github.token",
        "NOT_SET_ANYWHERE",
        "organization: NAME",
        "sources[1].collects.github",
        "vault.audit",
        "sources[1].collects.github.app.key",
        "sources[2].collects.gitlab.api",
        "sources[2].collects.gitlab.what",
        "sources[2].collects.gitlab.every",
    ] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}
