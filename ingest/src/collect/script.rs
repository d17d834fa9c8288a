//! A provider that answers by a script, for the tests of collectors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ::http::{HeaderMap, HeaderValue, Request, StatusCode};
use async_trait::async_trait;
use bytes::Bytes;
use engine::clock::ManualClock;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::auth::{Credentials, SecretText};
use super::http::{Answer, Api, Transport, TransportError};
use super::{CollectError, FinishedJob, Held, Seen};

/// What is asked, by path and query, and what the answer is: the last one said stays.
#[derive(Debug)]
pub(super) struct Script {
    answers: Mutex<BTreeMap<String, Answer>>,
    asked: Mutex<Vec<(String, HeaderMap)>>,
    pub(super) clock: Arc<ManualClock>,
}

pub(super) const fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

impl Script {
    pub(super) fn new() -> Arc<Self> {
        let clock = Arc::new(ManualClock::new(at(1_795_694_400)));
        Arc::new(Self { answers: Mutex::default(), asked: Mutex::default(), clock })
    }

    pub(super) fn answer(&self, path: &str, status: u16, headers: &[(&'static str, &str)], body: impl Into<Bytes>) {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()));
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: body.into(),
            cut: false,
        };
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    pub(super) fn json(&self, path: &str, body: &str) {
        self.answer(path, 200, &[], body.to_owned());
    }

    pub(super) fn json_with(&self, path: &str, body: &str, headers: &[(&'static str, &str)]) {
        self.answer(path, 200, headers, body.to_owned());
    }

    /// What was asked so far, and forgets it.
    pub(super) fn asked(&self) -> Vec<(String, HeaderMap)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    pub(super) fn api(self: &Arc<Self>) -> Arc<Api> {
        self.api_as(Credentials::Bearer(SecretText::new("token-of-ours")))
    }

    pub(super) fn api_as(self: &Arc<Self>, credentials: Credentials) -> Arc<Api> {
        let base = "https://api.example".parse().unwrap();
        let inside = Arc::clone(self) as Arc<dyn Transport>;
        let outside = Arc::clone(self) as Arc<dyn Transport>;
        let clock = Arc::clone(&self.clock) as Arc<dyn engine::clock::Clock>;
        Arc::new(Api::new(base, Arc::new(credentials), inside, outside, clock))
    }
}

#[async_trait]
impl Transport for Script {
    async fn send(&self, request: Request<Bytes>, body_max: usize) -> Result<Answer, TransportError> {
        let uri = request.uri();
        let path = uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let key = if uri.host() == Some("api.example") { path } else { uri.to_string() };
        self.asked.lock().unwrap().push((key.clone(), request.headers().clone()));
        let mut answer = self
            .answers
            .lock()
            .unwrap()
            .get(&key)
            .cloned()
            .ok_or_else(|| TransportError(format!("nothing at {key}")))?;
        let etag = answer.headers.get("etag");
        if etag.is_some() && etag == request.headers().get("if-none-match") {
            answer.status = StatusCode::NOT_MODIFIED;
            answer.body = Bytes::new();
        }
        answer.cut = answer.body.len() > body_max;
        answer.body.truncate(body_max);
        Ok(answer)
    }
}

/// What is held, as a test says.
#[derive(Debug, Default)]
pub(super) struct Here {
    known: Mutex<BTreeSet<String>>,
    jobs: Mutex<Vec<FinishedJob>>,
}

impl Here {
    pub(super) fn know<'a>(&self, ids: impl IntoIterator<Item = &'a str>) {
        self.known.lock().unwrap().extend(ids.into_iter().map(ToOwned::to_owned));
    }

    pub(super) fn finish(&self, job: FinishedJob) {
        self.jobs.lock().unwrap().push(job);
    }
}

#[async_trait]
impl Held for Here {
    async fn known(&self, _source: &str, items: &[String]) -> Result<BTreeSet<String>, CollectError> {
        let known = self.known.lock().unwrap();
        Ok(items.iter().filter(|id| known.contains(*id)).cloned().collect())
    }

    async fn finished(&self, _source: &str, from: Option<u64>) -> Result<Seen, CollectError> {
        let jobs = self.jobs.lock().unwrap();
        let from = from.map_or(jobs.len(), |from| usize::try_from(from).unwrap());
        Ok(Seen { jobs: jobs.get(from..).unwrap_or_default().to_vec(), next: jobs.len() as u64, more: false })
    }
}
