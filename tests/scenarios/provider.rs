//! A stand-in for GitHub's REST API as it is documented: pages with `Link`, ETags, redirects to addresses that expire and take
//! no token, refusals with times, failures. What it keeps is what a test says has happened.

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

use crate::harness::now;

/// Elements of its pages, few so that there are many.
const PAGE: usize = 4;
/// How long the address of a log is good.
const SIGNED: Duration = Duration::from_secs(5);
/// How long a request that was sent before a refusal was read may take, on a machine that is busy.
const ON_ITS_WAY: Duration = Duration::from_millis(400);
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
            "status": if status == 200 { "OK" } else { "failed to connect" }, "status_code": status, "event": event,
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

    pub(crate) fn asked(&self, part: &str) -> usize {
        self.kept.lock().unwrap().asked.iter().filter(|path| path.contains(part)).count()
    }
}

/// In whole seconds, as GitHub writes times.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_secs(at.as_micros() / 1_000_000)
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
            let from: usize =
                query.get("cursor").and_then(|cursor| cursor.strip_prefix("v1_")?.parse().ok()).unwrap_or(0);
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
            page(&provider, &path, &newest, from, |next| format!("cursor=v1_{next}"))
        }
        ("GET", ["repos", "acme", "shop", "hooks", "7", "deliveries", id]) => {
            let found = kept.deliveries.iter().find(|delivery| delivery["id"].as_u64() == id.parse().ok());
            found.map_or_else(|| refusal(404, "Not Found", &[]), |found| axum::Json(found).into_response())
        }
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
        ("GET", ["repos", "acme", "shop", "deployments"]) => axum::Json(json!([])).into_response(),
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
        let etag = format!("W/\"{}\"", hex::encode(&Sha256::digest(&body)[..8]));
        if headers.get("if-none-match").is_some_and(|given| given == etag.as_str()) {
            self.not_modified += 1;
            return refusal(304, "", &[("etag", &etag)]);
        }
        let mut response = body.into_response();
        response.headers_mut().insert("etag", HeaderValue::from_str(&etag).unwrap());
        if end < found.len() {
            let escaped = created.replace(':', "%3A").replace('>', "%3E").replace('=', "%3D");
            link(&mut response, &format!("{}{path}?per_page=100&created={escaped}&page={end}", provider.url));
        }
        response
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
