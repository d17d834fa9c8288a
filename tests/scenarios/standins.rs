//! Stand-ins for GitLab, Jenkins and Buildkite as they document their APIs: lists in pages, credentials in their own headers,
//! addresses of traces that expire and take no token, refusals with times, failures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeproof_engine::time::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::now;

/// Elements of a page, few so that there are many.
const PAGE: usize = 4;
/// How long the address of a trace is good.
const SIGNED: Duration = Duration::from_secs(5);
/// How long a request that was sent before a refusal was read may take.
const ON_ITS_WAY: Duration = Duration::from_millis(400);
pub(crate) const TOKEN: &str = "glpat-standinstandinstandin";
pub(crate) const USER: &str = "pipeproof";

/// What has happened at the providers, and what they were asked.
#[derive(Default)]
pub(crate) struct Kept {
    /// GitLab's, oldest first.
    pub(crate) audit: Vec<Value>,
    pub(crate) pipelines: Vec<Value>,
    pub(crate) deployments: Vec<Value>,
    pub(crate) merges: Vec<Value>,
    /// Jenkins': builds of each job, newest first.
    pub(crate) builds: BTreeMap<String, Vec<Value>>,
    /// Buildkite's.
    pub(crate) finished: Vec<Value>,
    /// Every so many requests something goes wrong; 0: nothing does.
    pub(crate) trouble_every: u64,
    pub(crate) asked: Vec<String>,
    /// What no well-behaved client does.
    pub(crate) offences: Vec<String>,
    pub(crate) troubles: u64,
    /// Lists that were asked for with their entity tag and had not changed, by path.
    pub(crate) unchanged: BTreeMap<String, usize>,
    signed: BTreeMap<String, (String, Instant)>,
    /// From when to when a provider must not be asked, by its name, by the process that was told.
    pub(crate) closed: BTreeMap<String, (Instant, Instant)>,
}

/// The running stand-ins, one under `/gitlab`, `/jenkins`, `/buildkite` each.
#[derive(Clone)]
pub(crate) struct Standins {
    pub(crate) kept: Arc<Mutex<Kept>>,
    pub(crate) url: String,
}

fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_secs(at.as_micros() / 1_000_000)
}

impl Standins {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let standins = Self { kept: Arc::default(), url };
        let router = axum::Router::new().fallback(answer).with_state(standins.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        standins
    }

    /// One of everything, so long ago.
    pub(crate) fn happened(&self, number: u64, ago: Duration) {
        let at = whole(now().minus(ago));
        let mut kept = self.kept.lock().unwrap();
        kept.audit.push(json!({
            "id": number, "author_id": 5, "author_name": "Ada", "entity_id": 7, "entity_type": "Group", "created_at": at,
            "event_name": "member_created", "details": {"custom_message": "Membership created", "ip_address": "192.0.2.1"},
        }));
        kept.pipelines.push(json!({
            "id": 1_000 + number, "iid": number, "project_id": 3, "status": "success", "ref": "main", "sha": "abc", "source": "push",
            "created_at": at, "updated_at": at,
        }));
        kept.deployments.push(json!({
            "id": 2_000 + number, "iid": number, "status": "success", "ref": "main", "sha": "abc", "created_at": at, "updated_at": at,
            "environment": {"name": "production"}, "user": {"username": "ada"},
        }));
        kept.merges.push(json!({
            "id": 3_000 + number, "iid": number, "state": "merged", "title": "t", "merged_at": at, "updated_at": at,
            "author": {"username": "ada"}, "merge_commit_sha": "abc", "target_branch": "main",
        }));
        for job in ["shop", "folder/deploy"] {
            let build = json!({"number": number, "result": "SUCCESS", "building": false, "timestamp": at.as_micros() / 1_000, "duration": 5});
            kept.builds.entry(job.to_owned()).or_default().insert(0, build);
        }
        kept.finished.push(json!({
            "id": format!("build-{number}"), "number": number, "state": "passed", "finished_at": at, "created_at": at, "branch": "main",
            "commit": "abc", "pipeline": {"slug": "shop", "repository": "git@github.com:acme/shop.git"},
            "jobs": [{"id": format!("job-{number}"), "type": "script", "name": "build", "started_at": at}, {"id": "w", "type": "waiter"}],
        }));
    }

    pub(crate) fn asked(&self, part: &str) -> usize {
        self.kept.lock().unwrap().asked.iter().filter(|path| path.contains(part)).count()
    }
}

async fn answer(
    State(standins): State<Standins>,
    _method: Method,
    uri: Uri,
    headers: HeaderMap,
    _body: Bytes,
) -> Response {
    let mut kept = standins.kept.lock().unwrap();
    kept.asked.push(uri.to_string());
    let path = uri.path().trim_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let query: BTreeMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.replace("%3A", ":")))
        .collect();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{TOKEN}")));
    let (provider, known) = match parts[0] {
        "signed" => return kept.signed(parts[1], &headers),
        "gitlab" => ("gitlab", header("private-token") == TOKEN),
        "jenkins" => ("jenkins", header("authorization") == basic),
        "buildkite" => ("buildkite", header("authorization") == format!("Bearer {TOKEN}")),
        _ => return refusal(404, "Not Found", &[]),
    };
    if !known {
        return refusal(401, "401 Unauthorized", &[]);
    }
    if let Some(trouble) = kept.trouble(provider) {
        return trouble;
    }
    let (mut unchanged, mut offended) = (std::mem::take(&mut kept.unchanged), false);
    let mut list = |all: &[Value], time: &str, after: &str| {
        let after = query.get(after).and_then(|after| Timestamp::parse(after));
        let at = |element: &Value| Timestamp::parse(element[time].as_str().unwrap()).unwrap();
        let found: Vec<&Value> = all.iter().filter(|element| after.is_none_or(|after| at(element) >= after)).collect();
        let from: usize = query.get("page").and_then(|page| page.parse().ok()).unwrap_or(0);
        let end = (from + PAGE).min(found.len());
        let mut response = axum::Json(&found[from.min(end)..end]).into_response();
        if end < found.len() {
            let rest: Vec<&str> =
                uri.query().unwrap_or_default().split('&').filter(|pair| !pair.starts_with("page=")).collect();
            let next = format!("<{}{}?{}&page={end}>; rel=\"next\"", standins.url, uri.path(), rest.join("&"));
            response.headers_mut().insert("link", HeaderValue::from_str(&next).unwrap());
        }
        // As Rails does: over the body alone, so that a page that is full does not tell whether there is another.
        if provider == "gitlab" {
            let body = serde_json::to_vec(&found[from.min(end)..end]).unwrap();
            let etag = format!("W/\"{}\"", hex::encode(Sha256::digest(body)));
            if header("if-none-match") == etag {
                *unchanged.entry(path.clone()).or_default() += 1;
                response = StatusCode::NOT_MODIFIED.into_response();
            }
            response.headers_mut().insert("etag", HeaderValue::from_str(&etag).unwrap());
            response.headers_mut().insert("x-per-page", HeaderValue::from(PAGE));
        } else if headers.contains_key("if-none-match") {
            offended = true;
        }
        response
    };
    let response = match &parts[..] {
        ["gitlab", "groups", "acme", "projects"] => {
            axum::Json(json!([{"path_with_namespace": "acme/shop"}])).into_response()
        }
        ["gitlab", "groups", "acme", "audit_events"] => list(&kept.audit, "created_at", "created_after"),
        ["gitlab", "projects", "acme%2Fshop", "pipelines"] => list(&kept.pipelines, "updated_at", "updated_after"),
        ["gitlab", "projects", "acme%2Fshop", "deployments"] => list(&kept.deployments, "updated_at", "updated_after"),
        ["gitlab", "projects", "acme%2Fshop", "merge_requests"] => list(&kept.merges, "updated_at", "updated_after"),
        ["gitlab", "projects", "acme%2Fshop", "pipelines", id, "jobs"] => {
            let job = |name: &str, suffix: &str| json!({"id": format!("{id}{suffix}").parse::<u64>().unwrap(), "name": name, "status": "success", "ref": "main", "started_at": now()});
            axum::Json(json!([job("build", "1"), job("test", "2")])).into_response()
        }
        ["gitlab", "projects", "acme%2Fshop", "jobs", job, "trace"] => {
            let nonce = format!("{job}-{}", kept.signed.len());
            kept.signed.insert(nonce.clone(), (format!("trace of {job}\n"), Instant::now() + SIGNED));
            refusal(302, "", &[("location", &format!("{}/signed/{nonce}?X-Amz-Signature=secret", standins.url))])
        }
        ["jenkins", "api", "json"] => {
            let jobs = json!([{"fullName": "shop", "color": "blue"}, {"fullName": "folder", "jobs": [{"fullName": "folder/deploy", "color": "red"}]}]);
            axum::Json(json!({ "jobs": jobs })).into_response()
        }
        ["jenkins", job @ .., "api", "json"] => {
            axum::Json(json!({"builds": kept.builds.get(&name(job)).cloned().unwrap_or_default()})).into_response()
        }
        ["jenkins", job @ .., number, "consoleText"] => format!("console of {}#{number}\n", name(job)).into_response(),
        ["buildkite", "organizations", "acme", "builds"] => list(&kept.finished, "finished_at", "finished_from"),
        ["buildkite", "organizations", "acme", "pipelines", "shop", "builds", _, "jobs", job, "log"] => {
            axum::Json(json!({"url": "x", "content": format!("log of {job}\n"), "size": 9})).into_response()
        }
        _ => refusal(404, "404 Not Found", &[]),
    };
    kept.unchanged = unchanged;
    if offended {
        kept.offences.push(format!("{provider} was asked with a tag that it never gave"));
    }
    response
}

/// The full name of a job whose path is `job/A/job/B`.
fn name(path: &[&str]) -> String {
    path.iter().skip(1).step_by(2).copied().collect::<Vec<_>>().join("/")
}

impl Kept {
    fn signed(&mut self, nonce: &str, headers: &HeaderMap) -> Response {
        if headers.contains_key("authorization") || headers.contains_key("private-token") {
            self.offences.push("our token was sent to where a trace lies".to_owned());
            return refusal(400, "Only one auth mechanism allowed", &[]);
        }
        match self.signed.get(nonce).filter(|(_, until)| *until > Instant::now()) {
            Some((trace, _)) => trace.clone().into_response(),
            None => refusal(403, "Request has expired", &[]),
        }
    }

    /// What goes wrong now and then, in turns, each in the words of its provider.
    fn trouble(&mut self, provider: &str) -> Option<Response> {
        if self.closed.get(provider).is_some_and(|(from, until)| *from < Instant::now() && Instant::now() < *until) {
            self.offences.push(format!("{provider} was asked before the time it had named"));
        }
        if self.trouble_every == 0 || !(self.asked.len() as u64).is_multiple_of(self.trouble_every) {
            return None;
        }
        self.troubles += 1;
        let held = (Instant::now() + ON_ITS_WAY, Instant::now() + Duration::from_millis(800));
        let soon = (now().as_micros() / 1_000_000 + 1).to_string();
        Some(match (self.troubles % 3, provider) {
            (0, _) => refusal(502, "<html>Bad Gateway", &[]),
            (1, _) => {
                self.closed.insert(provider.to_owned(), held);
                refusal(429, "Retry later", &[("retry-after", "1")])
            }
            (_, "gitlab") => {
                self.closed.insert(provider.to_owned(), held);
                refusal(429, "Retry later", &[("ratelimit-remaining", "0"), ("ratelimit-reset", &soon)])
            }
            (_, "buildkite") => {
                self.closed.insert(provider.to_owned(), held);
                refusal(429, "You have exceeded your limit", &[("ratelimit-remaining", "0"), ("ratelimit-reset", "1")])
            }
            _ => refusal(503, "Jenkins is getting ready to work", &[("retry-after", "1")]),
        })
    }
}

fn refusal(status: u16, message: &str, headers: &[(&'static str, &str)]) -> Response {
    let body = if status < 400 { String::new() } else { json!({"message": message}).to_string() };
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    response
}
