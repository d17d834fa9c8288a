//! `pipeproof demo`: a newcomer's first minute. A fresh folder, a real server, a documented attack in its native payloads,
//! and then what came of it. Every line that is shown is read from the API or from the receiver of the webhooks.

mod receiver;
mod replay;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hmac::{Hmac, Mac};
use pipeproof_engine::clock::{Clock, SystemClock};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_reports::verify::{self, Anchor, Options, Outcome, Verdict};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::cli::{DemoOptions, Failure, show, timeline};
use crate::client::Client;
use crate::config::{Config, ConfiguredTarget, SecretText};
use crate::server::Server;
use receiver::{Delivery, Receiver};

/// How long the demo waits for detection, delivery and the rest.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long before the story its sources count as connected.
const CONNECTED_BEFORE: Duration = Duration::from_secs(86_400);

pub(crate) async fn run(options: &DemoOptions) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("pipeproof-demo-").tempdir();
    let folder = folder.map_err(|source| Failure::Io { doing: "make a temporary folder".to_owned(), source })?.keep();
    let receiver = Receiver::start().await?;
    let target = ConfiguredTarget {
        name: "on-call".to_owned(),
        url: receiver.url(),
        secrets: vec![SecretText(receiver.secret())],
        // The receiver stands on this machine.
        allow_private: true,
    };
    let config = Config { targets: vec![target], archive_every: Duration::from_secs(1), ..Config::embedded() };
    let server = Server::start(&folder.join("data"), &config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let client = Client::new(&server.url(), server.local_token.clone(), None)?;
    title("pipeproof demo")?;
    show::plain(&format!("data folder  {}\nserver       {}", folder.display(), server.url()))?;
    let shown = story(&client, &receiver, &folder).await;
    if shown.is_ok() && !options.once {
        show::plain("\nThe server goes on until Ctrl-C. From another terminal:")?;
        show::plain(&format!("  pipeproof --data {} findings", folder.join("data").display()))?;
        if let Err(error) = tokio::signal::ctrl_c().await {
            show::diagnostic(&format!("cannot wait for Ctrl-C: {error}"));
        }
    }
    server.stop().await?;
    let held = shown?;
    title(if held { "everything held" } else { "something did NOT hold" })?;
    if held { Ok(()) } else { Err(Failure::Found) }
}

fn title(text: &str) -> Result<(), Failure> {
    show::plain(&format!("\n== {text} =="))
}

/// Plays and shows; whether everything held.
async fn story(client: &Client, receiver: &Receiver, folder: &Path) -> Result<bool, Failure> {
    let end = SystemClock.now();
    let steps = replay::steps(end, rand::random()).map_err(|error| Failure::Other(crate::chain(&error)))?;
    let begin = steps.iter().map(|step| step.at).min().unwrap_or(end);
    show::plain(&format!(
        "replay       the tj-actions/changed-files compromise of March 2025 (CVE-2025-30066) as one victim's sources saw it,\n             beside benign traffic; times moved to end now ({begin} to {end}), intervals kept"
    ))?;
    let sent = play(client, &steps, begin).await?;
    let status = settle(client).await?;
    show::plain(&format!(
        "sent         {} requests, {sent} records accepted, {} in the log with our own",
        steps.len(),
        status["durable"]
    ))?;

    let findings = list(&client.get("/v1/findings?limit=1000").await?, "findings");
    let mut held = check("findings were made", !findings.is_empty());
    show_findings(&findings)?;
    held &= check("every story line that must be noticed was", missed(&findings, client).await?);

    let incidents = list(&client.get("/v1/incidents").await?, "incidents");
    held &= check("an incident was opened", !incidents.is_empty());
    held &= respond(client, &incidents).await?;
    show_kpi(client, begin, &mut held).await?;
    held &= show_deliveries(client, receiver, &findings).await?;
    held &= evidence(client, folder, begin).await?;
    Ok(held)
}

fn check(what: &str, holds: bool) -> bool {
    if !holds {
        show::diagnostic(&format!("NOT SO: {what}"));
    }
    holds
}

fn list(value: &Value, name: &str) -> Vec<Value> {
    value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Connects the sources and sends every request as its sender would: signed, or with the source's token.
async fn play(client: &Client, steps: &[replay::Step], begin: Timestamp) -> Result<u64, Failure> {
    let mut credentials: BTreeMap<&str, Value> = BTreeMap::new();
    for source in replay::SOURCES {
        let labels: BTreeMap<&str, &str> = source.labels.iter().copied().collect();
        let body = json!({
            "name": source.name, "type": source.source_type, "labels": labels,
            "connected": begin.minus(CONNECTED_BEFORE),
        });
        credentials.insert(source.name, client.post("/v1/sources", &body).await?);
    }
    let mut sent = 0;
    for (at, step) in steps.iter().enumerate() {
        progress(at + 1, steps.len(), &step.note);
        let known = credentials.get(step.source.as_str()).cloned().unwrap_or_default();
        let mut headers: Vec<(String, String)> =
            step.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let sender = if step.source_type == SourceType::GithubWebhook {
            let signature = sign(text(&known, "secret"), &step.body)?;
            headers.push(("X-Hub-Signature-256".to_owned(), signature));
            Client::new(client.base(), String::new(), None)?
        } else {
            Client::new(client.base(), text(&known, "token").to_owned(), None)?
        };
        let query: Vec<(String, String)> =
            step.query.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        sent += sender.send_events(&step.source, &query, &headers, step.body.to_vec()).await?;
    }
    progress(0, 0, "");
    Ok(sent)
}

/// GitHub's signature: HMAC-SHA256 over the raw body.
fn sign(secret: &str, body: &[u8]) -> Result<String, Failure> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|error| Failure::Other(error.to_string()))?;
    mac.update(body);
    Ok(format!("sha256={}", hex::encode(mac.finalize().into_bytes())))
}

/// A line that is written over, on a terminal only.
fn progress(at: usize, of: usize, note: &str) {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        let line =
            if of == 0 { String::new() } else { format!("[{at}/{of}] {}", note.chars().take(90).collect::<String>()) };
        let _gone = write!(stderr, "\r\x1b[K{line}");
        let _gone = stderr.flush();
    }
}

/// Waits until everything sent was evaluated and nothing more is found: ordered rules wait for their watermark.
async fn settle(client: &Client) -> Result<Value, Failure> {
    let mut status = client.get("/v1/status").await?;
    let target = number(&status, "durable");
    let begun = SystemClock.now();
    let mut quiet = 0;
    let mut findings = 0;
    while quiet < 8 && SystemClock.now() < begun.plus(PATIENCE) {
        tokio::time::sleep(Duration::from_millis(250)).await;
        status = client.get("/v1/status").await?;
        let now = status.get("counts").map_or(0, |counts| number(counts, "findings"));
        quiet = if number(&status, "detected") >= target && now == findings { quiet + 1 } else { 0 };
        findings = now;
    }
    Ok(status)
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn show_findings(findings: &[Value]) -> Result<(), Failure> {
    title("findings, in the order things happened")?;
    let mut ordered: Vec<&Value> = findings.iter().collect();
    ordered.sort_by_key(|finding| (text(finding, "time").to_owned(), number(finding, "seq")));
    for finding in ordered {
        let state = if text(finding, "state") == "active" { "" } else { "  (staging: recorded, does not page)" };
        show::plain(&format!(
            "{}  {:<8} {}{state}",
            text(finding, "time"),
            text(finding, "level"),
            text(finding, "title")
        ))?;
        let because: Vec<&str> =
            finding.get("because").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        show::plain(&format!("{:31}because {}", "", because.join("; ").chars().take(160).collect::<String>()))?;
    }
    Ok(())
}

/// Whether every rule that the story must trip has spoken.
async fn missed(findings: &[Value], client: &Client) -> Result<bool, Failure> {
    let rules = list(&client.get("/v1/rules").await?, "rules");
    let mut all = true;
    for name in replay::MUST_FIND {
        let id = rules.iter().find(|rule| text(rule, "name") == *name).map(|rule| text(rule, "id"));
        let found = findings.iter().any(|finding| Some(text(finding, "rule_id")) == id);
        all &= check(&format!("rule {name} found something"), found);
    }
    Ok(all)
}

/// On-call takes the incident: acknowledged and contained through the API, then its timeline is shown.
async fn respond(client: &Client, incidents: &[Value]) -> Result<bool, Failure> {
    let largest =
        incidents.iter().max_by_key(|incident| incident.get("findings").and_then(Value::as_array).map_or(0, Vec::len));
    let Some(id) = largest.map(|incident| text(incident, "id").to_owned()) else { return Ok(false) };
    title(&format!("incident {id}"))?;
    for (verb, note) in [("ack", "taken by the demo's on-call"), ("contain", "tokens revoked, workflow disabled")] {
        client.post(&format!("/v1/incidents/{id}/{verb}"), &json!({ "note": note, "actor": "demo" })).await?;
    }
    let answer = client.get(&format!("/v1/incidents/{id}")).await?;
    let incident = answer.get("incident").cloned().unwrap_or_default();
    show::plain(&format!(
        "{} · {} · {}",
        text(&incident, "level"),
        text(&incident, "status"),
        show::cell(&incident, "entities")
    ))?;
    for row in timeline(&answer) {
        show::plain(&format!(
            "{}  {:<8} {} {}",
            text(&row, "at"),
            text(&row, "what"),
            text(&row, "who"),
            text(&row, "detail")
        ))?;
    }
    let others = incidents.len() - 1;
    if others > 0 {
        show::plain(&format!("({others} further incidents: `pipeproof incidents list`)"))?;
    }
    Ok(check("the incident is contained", text(&incident, "status") == "contained"))
}

async fn show_kpi(client: &Client, begin: Timestamp, held: &mut bool) -> Result<(), Failure> {
    title("time to detect and to respond")?;
    let until = SystemClock.now().plus(Duration::from_secs(60));
    let answer = client.get(&format!("/v1/kpi?from={begin}&to={until}")).await?;
    show::plain(text(&answer, "text").trim_end())?;
    show::plain(
        "(the replay delivers everything at once: the source lag is the age of the story, the detection lag is ours)",
    )?;
    let counted =
        answer.get("kpi").and_then(|kpi| kpi.get("detect")).map_or(0, |detect| number(detect, "occurrence_known"));
    *held &= check("MTTD rests on at least one incident", counted > 0);
    Ok(())
}

async fn show_deliveries(client: &Client, receiver: &Receiver, findings: &[Value]) -> Result<bool, Failure> {
    title("webhook deliveries, as the receiver got them")?;
    let due = findings.iter().filter(|finding| text(finding, "state") == "active").count();
    let (got, delivered) = delivered(client, receiver, due).await?;
    for delivery in got.iter().take(12) {
        let signed = if delivery.signed { "signature ok" } else { "SIGNATURE WRONG" };
        show::plain(&format!("{}  {:<18} {signed}  {}", delivery.id, delivery.kind, delivery.title))?;
    }
    if got.len() > 12 {
        show::plain(&format!("({} more)", got.len() - 12))?;
    }
    show::plain(&format!("{} deliveries, {delivered} receipts", got.len()))?;
    let ids: std::collections::BTreeSet<&str> = got.iter().map(|delivery| delivery.id.as_str()).collect();
    Ok(check("every finding of an active rule was delivered", receiver.of_kind("finding.created") == due)
        & check("every delivery is signed", got.iter().all(|delivery| delivery.signed))
        & check("nothing was delivered twice", ids.len() == got.len())
        & check("every delivery has its receipt", delivered == got.len()))
}

/// What the receiver got, and how many deliveries have a receipt, once no delivery is under way any more: a receipt is
/// stored after the receiver's answer, and steps of people are delivered behind the findings.
async fn delivered(client: &Client, receiver: &Receiver, due: usize) -> Result<(Vec<Delivery>, usize), Failure> {
    let begun = SystemClock.now();
    let mut quiet = 0;
    loop {
        let stored = list(&client.get("/v1/deliveries?limit=1000").await?, "deliveries");
        let done = stored.iter().filter(|receipt| text(receipt, "state") == "delivered").count();
        let got = receiver.received();
        let settled = done == stored.len() && done == got.len() && receiver.of_kind("finding.created") >= due;
        quiet = if settled { quiet + 1 } else { 0 };
        // Once is not enough: a message may be committed and not yet handed to its lane.
        if quiet > 5 || SystemClock.now() > begun.plus(PATIENCE) {
            return Ok((got, done));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Builds a pack over the day of the story and verifies it like an auditor: from the file, against the anchor.
async fn evidence(client: &Client, folder: &Path, begin: Timestamp) -> Result<bool, Failure> {
    title("evidence pack")?;
    let to = SystemClock.now().hour().plus(Duration::from_secs(3_600));
    let body = json!({ "framework": "soc2", "from": begin.hour(), "to": to });
    let built = client.post("/v1/evidence", &body).await?;
    let name = text(&built, "pack").to_owned();
    let zip = client.download(&format!("/v1/evidence/{name}")).await?;
    let pack = write(&folder.join(format!("{name}.zip")), &zip)?;
    let anchor = text(&client.get("/v1/anchor").await?, "pem").to_owned();
    let key = write(&folder.join("anchor.pem"), anchor.as_bytes())?;
    for result in list(&built, "results") {
        show::plain(&format!(
            "{:<6} {}  {}",
            text(&result, "control"),
            show::cell(&result, "sentence"),
            text(&result, "title")
        ))?;
    }
    let unpacked = verify::read(&pack).map_err(|error| Failure::Other(crate::chain(&error)))?;
    let options = Options { anchor: Some(Anchor::Key(anchor)), ..Options::default() };
    let report = verify::verify(&unpacked, &options);
    for check in report.checks.iter().filter(|check| check.outcome == Outcome::Failed) {
        for failure in &check.failures {
            show::plain(&format!("FAILED {}: {}: {}", check.name, failure.subject, failure.reason))?;
        }
    }
    show::plain(&format!(
        "{} ({} checks)\npack    {}\nanchor  {}\nverify  pipeproof evidence verify {} --key {}",
        report.summary(),
        report.checks.len(),
        pack.display(),
        key.display(),
        pack.display(),
        key.display()
    ))?;
    Ok(check("the pack verifies against its anchor", report.verdict() == Verdict::Verified))
}

fn write(path: &Path, bytes: &[u8]) -> Result<PathBuf, Failure> {
    std::fs::write(path, bytes).map_err(|source| Failure::Io { doing: format!("write {}", path.display()), source })?;
    Ok(path.to_owned())
}
