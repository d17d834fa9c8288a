//! A stand-in for GitHub's REST API as it is documented: pages with `Link`, ETags, redirects to addresses that expire
//! and take no token, refusals with times, failures, webhooks that are sent again. What it keeps is what a test says
//! has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use pipeproof_engine::time::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{github_signature, now};

/// Elements of its pages, few so that there are many.
const PAGE: usize = 4;
/// How long the address of a log is good.
const SIGNED: Duration = Duration::from_secs(5);
/// How long a request that was sent before a refusal was read may take, on a machine that is busy.
const ON_ITS_WAY: Duration = Duration::from_millis(400);
/// How long ago a redelivery is listed to have been: collectors leave alone what is younger than a minute, for which no
/// test waits.
const SETTLED: Duration = Duration::from_secs(120);
/// The token it knows.
pub(crate) const TOKEN: &str = "ghs_standinstandinstandinstandinstandin1";

/// What has happened at the provider, and what it was asked.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) deliveries: Vec<Value>,
    pub(crate) audit: Vec<Value>,
    pub(crate) runs: Vec<Value>,
    pub(crate) jobs: Vec<Value>,
    pub(crate) logs: BTreeMap<u64, String>,
    pub(crate) changes: Vec<Value>,
    deployments: Vec<Value>,
    /// How deployments went so far, the oldest status first.
    statuses: BTreeMap<u64, Vec<Value>>,
    /// Where its webhook delivers to, and the secret it signs with. Unless set, it cannot deliver.
    pub(crate) receiver: Option<(String, String)>,
    /// What becomes of a redelivery that is asked for, by GUID; others are sent.
    pub(crate) again: BTreeMap<String, Again>,
    /// GUIDs of what it was asked to send again, in their order, but for what it refused and did not send.
    pub(crate) sent_again: Vec<String>,
    /// Every so many requests something goes wrong; 0: nothing does.
    pub(crate) trouble_every: u64,
    /// What it was asked, path and query.
    pub(crate) asked: Vec<String>,
    /// What no well-behaved client does.
    pub(crate) offences: Vec<String>,
    /// Answers that said that nothing changed.
    pub(crate) not_modified: u64,
    signed: BTreeMap<String, (u64, Instant)>,
    /// From when to when it must not be asked, by the process that was told.
    pub(crate) closed: Option<(Instant, Instant)>,
    troubles: u64,
}

/// What becomes of a redelivery that is asked for, if it is not just sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// It is refused: the token may only read.
    Refused,
    /// It is sent although the answer says that it is not.
    RefusedAndSent,
    /// It does not arrive either.
    InVain,
}

/// The running stand-in.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) kept: Arc<Mutex<Kept>>,
    pub(crate) url: String,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let provider = Self { kept: Arc::default(), url };
        let router = axum::Router::new().fallback(answer).with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    /// A delivery that failed `ago`, or was answered; returns its GUID.
    pub(crate) fn delivered(&self, event: &str, payload: &Value, ago: Duration, status: u16) -> String {
        let mut kept = self.kept.lock().unwrap();
        let id = kept.deliveries.len() as u64 + 1_000;
        let guid = format!("0b989ba4-242f-11e5-81e1-{id:012}");
        kept.deliveries.push(json!({
            "id": id, "guid": guid, "delivered_at": now().minus(ago), "redelivery": false, "duration": 0.3,
            "status": in_words(status), "status_code": status, "event": event,
            "action": payload["action"], "installation_id": null, "repository_id": 1,
            "request": {
                "headers": {"X-GitHub-Event": event, "X-GitHub-Delivery": guid, "X-Hub-Signature-256": "sha256=00"},
                "payload": payload,
            },
            "response": {"headers": {}, "payload": "x"},
        }));
        guid
    }

    /// A run with one job that has finished, and its log.
    pub(crate) fn ran(&self, run: u64, job: u64, ago: Duration) {
        let mut kept = self.kept.lock().unwrap();
        let created = whole(now().minus(ago));
        kept.runs.push(json!({
            "id": run, "run_attempt": 1, "status": "completed", "conclusion": "success", "created_at": created,
            "updated_at": created, "name": "ci", "head_sha": "abc", "head_branch": "main", "event": "push",
        }));
        kept.jobs.push(json!({
            "id": job, "run_id": run, "run_attempt": 1, "status": "completed", "conclusion": "success",
            "name": "build", "workflow_name": "ci", "head_branch": "main", "head_sha": "abc",
        }));
        kept.logs.insert(job, format!("2026-11-26T05:34:27.7289936Z Complete job name: build {job}\n"));
    }

    /// An entry of the audit log.
    pub(crate) fn audited(&self, id: &str, ago: Duration) {
        let at = now().minus(ago).as_micros() / 1_000;
        self.kept.lock().unwrap().audit.push(json!({
            "_document_id": id, "@timestamp": at, "created_at": at, "action": "repo.create", "actor": "octocat",
            "org": "acme", "repo": "acme/shop",
        }));
    }

    /// A pull request that was merged.
    pub(crate) fn merged(&self, number: u64, ago: Duration) {
        let at = whole(now().minus(ago));
        self.kept.lock().unwrap().changes.push(json!({
            "number": number, "title": "t", "merged_at": at, "updated_at": at, "merge_commit_sha": "abc",
            "user": {"login": "octocat"}, "base": {"ref": "main"}, "head": {"sha": "def"},
        }));
    }

    /// A deployment that was created `ago`, and how it went since, a second between.
    pub(crate) fn deployed(&self, id: u64, ago: Duration, states: &[&str]) {
        let created = whole(now().minus(ago));
        let repository = format!("{}/repos/acme/shop", self.url);
        self.kept.lock().unwrap().deployments.push(json!({
            "url": format!("{repository}/deployments/{id}"), "id": id, "node_id": "DE_1", "sha": "abc", "ref": "main",
            "task": "deploy", "payload": {}, "original_environment": "production", "environment": "production",
            "description": null, "creator": {"login": "octocat", "id": 1, "type": "User"}, "created_at": created,
            "updated_at": created, "statuses_url": format!("{repository}/deployments/{id}/statuses"),
            "repository_url": repository, "transient_environment": false, "production_environment": true,
        }));
        for (seconds, state) in (1..).zip(states) {
            self.stands(id, state, created.plus(Duration::from_secs(seconds)));
        }
    }

    /// How a deployment stands from a time on.
    pub(crate) fn stands(&self, deployment: u64, state: &str, at: Timestamp) {
        let at = whole(at);
        let repository = format!("{}/repos/acme/shop", self.url);
        let mut kept = self.kept.lock().unwrap();
        let statuses = kept.statuses.entry(deployment).or_default();
        let id = deployment * 100 + statuses.len() as u64;
        let url = format!("{repository}/deployments/{deployment}");
        statuses.push(json!({
            "url": format!("{url}/statuses/{id}"), "id": id, "node_id": "DS_1", "state": state, "description": "",
            "creator": {"login": "octocat", "id": 1, "type": "User"}, "environment": "production", "target_url": "",
            "created_at": at, "updated_at": at, "deployment_url": url, "repository_url": repository,
            "environment_url": "", "log_url": "",
        }));
    }

    /// Delivers once more, as GitHub does for who presses the button. Returns the status of the answer.
    pub(crate) async fn redeliver(&self, guid: &str) -> u16 {
        let (receiver, delivery) = {
            let kept = self.kept.lock().unwrap();
            let found = kept.deliveries.iter().find(|delivery| delivery["guid"] == guid);
            (kept.receiver.clone(), found.unwrap().clone())
        };
        self.deliver(receiver, delivery).await
    }

    /// Sends what was delivered before, signed and with the same GUID, and lists how that went. Returns the status.
    async fn deliver(&self, receiver: Option<(String, String)>, mut delivery: Value) -> u16 {
        let status = match receiver {
            Some((url, secret)) => post(&url, &secret, &delivery).await,
            None => 502,
        };
        let mut kept = self.kept.lock().unwrap();
        delivery["id"] = json!(kept.deliveries.len() as u64 + 1_000);
        delivery["delivered_at"] = json!(now().minus(SETTLED));
        delivery["redelivery"] = json!(true);
        delivery["status"] = json!(in_words(status));
        delivery["status_code"] = json!(status);
        kept.deliveries.push(delivery);
        status
    }

    pub(crate) fn asked(&self, part: &str) -> usize {
        self.kept.lock().unwrap().asked.iter().filter(|path| path.contains(part)).count()
    }
}

/// In whole seconds, as GitHub writes times.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_secs(at.as_micros() / 1_000_000)
}

/// How a delivery went, in GitHub's words.
fn in_words(status: u16) -> &'static str {
    if status == 200 { "OK" } else { "failed to connect" }
}

/// Sends a webhook as GitHub does; 502 if nobody answers.
async fn post(url: &str, secret: &str, delivery: &Value) -> u16 {
    let body = delivery["request"]["payload"].to_string();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .header("x-github-event", delivery["event"].as_str().unwrap())
        .header("x-github-delivery", delivery["guid"].as_str().unwrap())
        .header("x-hub-signature-256", github_signature(secret, body.as_bytes()));
    request.body(body).send().await.map_or(502, |answer| answer.status().as_u16())
}

async fn answer(
    State(provider): State<Provider>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    _body: Bytes,
) -> Response {
    let mut kept = provider.kept.lock().unwrap();
    let path = uri.path().to_owned();
    let query: BTreeMap<String, String> = url_query(uri.query().unwrap_or_default());
    kept.asked.push(uri.to_string());
    if let Some(nonce) = path.strip_prefix("/signed/") {
        return kept.signed(nonce, &headers);
    }
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    if authorization != Some(&format!("Bearer {TOKEN}")) {
        return refusal(401, "Bad credentials", &[]);
    }
    if let Some(trouble) = kept.trouble() {
        return trouble;
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (method.as_str(), &parts[..]) {
        ("GET", ["repos", "acme", "shop", "hooks"]) => {
            let hook = json!({"id": 7, "config": {"url": "https://pipeproof.example/v1/events/hooks"}});
            axum::Json(json!([{"id": 3, "config": {"url": "https://elsewhere.example/"}}, hook])).into_response()
        }
        ("GET", ["repos", "acme", "shop", "hooks", "7", "deliveries"]) => {
            let before: Option<u64> = query.get("cursor").and_then(|cursor| cursor.strip_prefix("v1_")?.parse().ok());
            let newest: Vec<Value> = kept
                .deliveries
                .iter()
                .rev()
                .cloned()
                .map(|mut delivery| {
                    delivery.as_object_mut().unwrap().retain(|name, _| name != "request" && name != "response");
                    delivery
                })
                .collect();
            // What is delivered meanwhile does not move the pages.
            let from = newest.partition_point(|delivery| before.is_some_and(|id| delivery["id"].as_u64() >= Some(id)));
            page(&provider, &path, &newest, from, |next| format!("cursor=v1_{}", newest[next - 1]["id"]))
        }
        ("GET", ["repos", "acme", "shop", "hooks", "7", "deliveries", id]) => {
            let found = kept.deliveries.iter().find(|delivery| delivery["id"].as_u64() == id.parse().ok());
            found.map_or_else(|| refusal(404, "Not Found", &[]), |found| axum::Json(found).into_response())
        }
        ("POST", ["repos", "acme", "shop", "hooks", "7", "deliveries", id, "attempts"]) => kept.attempt(&provider, id),
        ("GET", ["orgs", "acme", "audit-log"]) => {
            let from: usize = query.get("after").and_then(|after| after.parse().ok()).unwrap_or(0);
            if query.get("include").map(String::as_str) != Some("all") && from == 0 {
                kept.offences.push("the audit log was asked for without Git events".to_owned());
            }
            page(&provider, &path, &kept.audit, from, |next| format!("after={next}"))
        }
        ("GET", ["repos", "acme", "shop", "actions", "runs"]) => kept.list_runs(&provider, &path, &query, &headers),
        ("GET", ["repos", "acme", "shop", "actions", "runs", run, "jobs"]) => {
            let jobs: Vec<&Value> = kept.jobs.iter().filter(|job| job["run_id"].as_u64() == run.parse().ok()).collect();
            axum::Json(json!({"total_count": jobs.len(), "jobs": jobs})).into_response()
        }
        ("GET", ["repos", "acme", "shop", "actions", "jobs", job, "logs"]) => {
            let job: u64 = job.parse().unwrap();
            if !kept.logs.contains_key(&job) {
                return refusal(404, "Not Found", &[]);
            }
            let nonce = format!("{job}-{}", kept.signed.len());
            kept.signed.insert(nonce.clone(), (job, Instant::now() + SIGNED));
            refusal(302, "", &[("location", &format!("{}/signed/{nonce}?sig=secret", provider.url))])
        }
        ("GET", ["repos", "acme", "shop", "pulls"]) => {
            let from: usize = query.get("page").and_then(|page| page.parse().ok()).unwrap_or(0);
            let newest: Vec<Value> = kept.changes.iter().rev().cloned().collect();
            page(&provider, &path, &newest, from, |next| format!("page={next}"))
        }
        ("GET", ["repos", "acme", "shop", "deployments"]) => {
            let newest: Vec<Value> = kept.deployments.iter().rev().cloned().collect();
            kept.list(&provider, &path, &newest, &query, &headers)
        }
        ("GET", ["repos", "acme", "shop", "deployments", id]) => {
            let found = kept.deployments.iter().find(|deployment| deployment["id"].as_u64() == id.parse().ok());
            found.map_or_else(|| refusal(404, "Not Found", &[]), |found| axum::Json(found).into_response())
        }
        ("GET", ["repos", "acme", "shop", "deployments", id, "statuses"]) => {
            let statuses = kept.statuses.get(&id.parse::<u64>().unwrap()).cloned().unwrap_or_default();
            let newest: Vec<Value> = statuses.into_iter().rev().collect();
            kept.list(&provider, &path, &newest, &query, &headers)
        }
        _ => refusal(404, "Not Found", &[]),
    }
}

impl Kept {
    /// A log by its short-lived address.
    fn signed(&mut self, nonce: &str, headers: &HeaderMap) -> Response {
        if headers.contains_key("authorization") {
            self.offences.push("our token was sent to where a log lies".to_owned());
            return refusal(400, "Only one auth mechanism allowed", &[]);
        }
        match self.signed.get(nonce).filter(|(_, until)| *until > Instant::now()) {
            Some((job, _)) => self.logs[job].clone().into_response(),
            None => refusal(403, "Signature not valid", &[]),
        }
    }

    /// What goes wrong now and then, in turns.
    fn trouble(&mut self) -> Option<Response> {
        if self.closed.is_some_and(|(from, until)| from < Instant::now() && Instant::now() < until) {
            self.offences.push("it was asked before the time it had named".to_owned());
        }
        if self.trouble_every == 0 || !(self.asked.len() as u64).is_multiple_of(self.trouble_every) {
            return None;
        }
        self.troubles += 1;
        // Clocks count in whole seconds; what was on its way already is no offence.
        let now_is = Instant::now();
        let mut hold = |millis| self.closed = Some((now_is + ON_ITS_WAY, now_is + Duration::from_millis(millis)));
        Some(match self.troubles % 4 {
            0 => refusal(500, "Server Error", &[]),
            1 => {
                hold(800);
                refusal(403, "You have exceeded a secondary rate limit.", &[("retry-after", "1")])
            }
            2 => {
                let reset = (now().as_micros() / 1_000_000 + 1).to_string();
                refusal(
                    429,
                    "API rate limit exceeded",
                    &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)],
                )
            }
            _ => refusal(502, "<html>Bad Gateway", &[]),
        })
    }

    fn list_runs(
        &mut self,
        provider: &Provider,
        path: &str,
        query: &BTreeMap<String, String>,
        headers: &HeaderMap,
    ) -> Response {
        let created = query.get("created").cloned().unwrap_or_default();
        let since = created.trim_start_matches(">=").split("..").next().and_then(Timestamp::parse);
        let at = |run: &Value| Timestamp::parse(run["created_at"].as_str().unwrap()).unwrap();
        let mut found: Vec<Value> =
            self.runs.iter().filter(|run| since.is_none_or(|since| at(run) >= since)).cloned().collect();
        found.sort_by_key(|run| std::cmp::Reverse(at(run)));
        let from: usize = query.get("page").and_then(|page| page.parse().ok()).unwrap_or(0);
        let end = (from + PAGE).min(found.len());
        let body = json!({"total_count": found.len(), "workflow_runs": &found[from..end]}).to_string();
        let mut response = self.tagged(body, headers);
        if end < found.len() {
            let escaped = created.replace(':', "%3A").replace('>', "%3E").replace('=', "%3D");
            link(&mut response, &format!("{}{path}?per_page=100&created={escaped}&page={end}", provider.url));
        }
        response
    }

    /// A page of a list whose pages are numbered, of the size that is asked for.
    fn list(
        &mut self,
        provider: &Provider,
        path: &str,
        newest: &[Value],
        query: &BTreeMap<String, String>,
        headers: &HeaderMap,
    ) -> Response {
        let number = |name: &str| query.get(name).and_then(|number| number.parse::<usize>().ok());
        let (size, from) = (number("per_page").unwrap_or(PAGE), number("page").unwrap_or(0).min(newest.len()));
        let end = (from + size.min(PAGE)).min(newest.len());
        let mut response = self.tagged(json!(newest[from..end]).to_string(), headers);
        if end < newest.len() {
            link(&mut response, &format!("{}{path}?per_page={size}&page={end}", provider.url));
        }
        response
    }

    /// A body with its tag, or that it is still the same.
    fn tagged(&mut self, body: String, headers: &HeaderMap) -> Response {
        let etag = format!("W/\"{}\"", hex::encode(&Sha256::digest(&body)[..8]));
        if headers.get("if-none-match").is_some_and(|given| given == etag.as_str()) {
            self.not_modified += 1;
            return refusal(304, "", &[("etag", &etag)]);
        }
        let mut response = body.into_response();
        response.headers_mut().insert("etag", HeaderValue::from_str(&etag).unwrap());
        response
    }

    /// Is asked to deliver again. GitHub answers first, and sends then.
    fn attempt(&mut self, provider: &Provider, id: &str) -> Response {
        let found = self.deliveries.iter().find(|delivery| delivery["id"].as_u64() == id.parse().ok()).cloned();
        let Some(delivery) = found else { return refusal(404, "Not Found", &[]) };
        // Where to is known once the server runs: whoever asks before is to ask again.
        let Some(receiver) = self.receiver.clone() else { return refusal(503, "Service Unavailable", &[]) };
        let guid = delivery["guid"].as_str().unwrap().to_owned();
        let again = self.again.get(&guid).copied();
        if again == Some(Again::Refused) {
            return refusal(403, "Resource not accessible by personal access token", &[]);
        }
        self.sent_again.push(guid);
        let receiver = Some(receiver).filter(|_| again != Some(Again::InVain));
        let provider = provider.clone();
        tokio::spawn(async move { provider.deliver(receiver, delivery).await });
        if again == Some(Again::RefusedAndSent) {
            return refusal(422, "Validation Failed", &[]);
        }
        (StatusCode::ACCEPTED, axum::Json(json!({}))).into_response()
    }

    /// Deployments that have come to an end.
    pub(crate) fn ended(&self) -> BTreeSet<u64> {
        let words = ["success", "failure", "error", "inactive"];
        let ends = |status: &Value| words.iter().any(|word| status["state"] == *word);
        self.statuses.iter().filter(|(_, all)| all.last().is_some_and(ends)).map(|(id, _)| *id).collect()
    }
}

fn page(provider: &Provider, path: &str, all: &[Value], from: usize, next: impl Fn(usize) -> String) -> Response {
    let end = (from + PAGE).min(all.len());
    let mut response = axum::Json(&all[from.min(end)..end]).into_response();
    if end < all.len() {
        link(&mut response, &format!("{}{path}?per_page=100&{}", provider.url, next(end)));
    }
    response
}

fn link(response: &mut Response, next: &str) {
    let value = format!("<{next}>; rel=\"next\", <https://api.github.com/first>; rel=\"first\"");
    response.headers_mut().insert("link", HeaderValue::from_str(&value).unwrap());
}

fn refusal(status: u16, message: &str, headers: &[(&'static str, &str)]) -> Response {
    let body = if status < 400 { String::new() } else { json!({"message": message}).to_string() };
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    response
}

fn url_query(query: &str) -> BTreeMap<String, String> {
    let plain = |text: &str| text.replace("%3A", ":").replace("%3E", ">").replace("%3D", "=");
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), plain(value)))
        .collect()
}

/// The GUIDs of all its deliveries.
pub(crate) fn guids(provider: &Provider) -> BTreeSet<String> {
    let kept = provider.kept.lock().unwrap();
    kept.deliveries.iter().map(|delivery| delivery["guid"].as_str().unwrap().to_owned()).collect()
}
