//! `collects: {s3: …}` and `collects: {sqs: …}`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::source::SourceType;
use pipeproof_ingest::collect::Collector;
use pipeproof_ingest::collect::objects::{Beside, Objects, Queue, SentMessages, Wanted};
use pipeproof_ingest::objects::digest::PublicKeys;
use pipeproof_ingest::objects::opened::Bucket;
use pipeproof_reports::deliver::egress::EgressPolicy;
use reqwest::Url;
use serde::Deserialize;

use super::super::aws::{AccessKey, Account, Signer, shared};
use super::super::web::Web;
use super::{Checking, SINCE, Unfit};
use crate::config::{RawSecret, SecretText};
use crate::node::Shared;

/// How often a bucket is listed: each look costs some requests.
const EVERY: Duration = Duration::from_secs(2 * 60);

/// `s3`, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawS3 {
    bucket: String,
    /// Folders to look at. The whole bucket unless set.
    #[serde(default)]
    prefixes: Vec<String>,
    /// `dated`: folders are named after days, as CloudTrail's and GitHub's are. `flat`: they say nothing.
    #[serde(default)]
    layout: Layout,
    region: String,
    /// Address of a server that is not AWS's.
    endpoint: Option<String>,
    access_key: Option<RawAccessKey>,
    every: Option<String>,
    since: Option<String>,
    /// A file with what `aws cloudtrail list-public-keys` prints: CloudTrail's digests are compared with what was read.
    public_keys: Option<PathBuf>,
}

/// `sqs`, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSqs {
    /// Its URL.
    queue: String,
    /// Buckets that its messages may name.
    buckets: Vec<String>,
    #[serde(default)]
    prefixes: Vec<String>,
    region: String,
    endpoint: Option<String>,
    access_key: Option<RawAccessKey>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Layout {
    #[default]
    Dated,
    Flat,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccessKey {
    id: RawSecret,
    secret: RawSecret,
    session_token: Option<RawSecret>,
}

/// `s3`, checked.
#[derive(Debug)]
pub(crate) struct S3 {
    account: Account,
    bucket: String,
    prefixes: Vec<String>,
    flat: bool,
    since: Duration,
    every: Duration,
    keys: Option<PublicKeys>,
    kind: SourceType,
    beside: Arc<Beside>,
}

/// `sqs`, checked.
#[derive(Debug)]
pub(crate) struct Sqs {
    account: Account,
    queue: Url,
    buckets: Vec<String>,
    prefixes: Vec<String>,
    kind: SourceType,
    beside: Arc<Beside>,
}

impl RawS3 {
    pub(super) fn checked(self, kind: SourceType, beside: &Arc<Beside>, checking: &mut Checking<'_>) -> Option<S3> {
        let beside = Arc::clone(beside);
        let account = account(self.region, self.endpoint.as_deref(), self.access_key, kind, checking);
        let bucket = bucket(".bucket", self.bucket, checking);
        let prefixes = prefixes(self.prefixes, checking);
        let every = checking.span(".every", self.every.as_deref(), EVERY);
        let since = checking.span(".since", self.since.as_deref(), SINCE);
        let keys = self.public_keys.and_then(|path| {
            if kind != SourceType::AwsCloudtrail {
                checking.problem(".public_keys", format!("a source of type {kind} has no signed digests"));
            }
            let read = std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()));
            let keys = read.and_then(|json| PublicKeys::read(&json).map_err(|error| crate::chain(&error)));
            keys.map_err(|problem| checking.problem(".public_keys", problem)).ok()
        });
        let flat = self.layout == Layout::Flat;
        Some(S3 { account: account?, bucket: bucket?, prefixes, flat, since, every, keys, kind, beside })
    }
}

impl RawSqs {
    pub(super) fn checked(self, kind: SourceType, beside: &Arc<Beside>, checking: &mut Checking<'_>) -> Option<Sqs> {
        let beside = Arc::clone(beside);
        let account = account(self.region, self.endpoint.as_deref(), self.access_key, kind, checking);
        if self.buckets.is_empty() {
            checking.problem(".buckets", "name the buckets that its messages may name: nothing else is read");
        }
        let buckets: Option<Vec<String>> =
            self.buckets.into_iter().map(|name| bucket(".buckets", name, checking)).collect();
        let prefixes = prefixes(self.prefixes, checking);
        let queue = self.queue.parse::<Url>().ok().filter(|url| {
            let name = url.path_segments().and_then(Iterator::last).unwrap_or_default();
            matches!(url.scheme(), "https" | "http") && url.has_host() && !name.is_empty()
        });
        if queue.is_none() {
            let example = "https://sqs.eu-central-1.amazonaws.com/111122223333/NAME";
            checking.problem(".queue", format!("`{}` is not the URL of a queue such as {example}", self.queue));
        }
        Some(Sqs { account: account?, queue: queue?, buckets: buckets?, prefixes, kind, beside })
    }
}

fn account(
    region: String,
    endpoint: Option<&str>,
    key: Option<RawAccessKey>,
    kind: SourceType,
    checking: &mut Checking<'_>,
) -> Option<Account> {
    if kind.info().free_text || !kind.is_external() {
        checking.problem("", format!("objects cannot be read for a source of type {kind}"));
        return None;
    }
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !word(&region) {
        checking.problem(".region", format!("`{region}` is not a region such as eu-central-1"));
        return None;
    }
    let endpoint = match endpoint {
        Some(text) => Some(checking.address(".endpoint", text, "https://s3.example")?),
        None => None,
    };
    let key = match key {
        Some(key) => {
            let id = credential(".access_key.id", &key.id, checking);
            let secret = credential(".access_key.secret", &key.secret, checking);
            let session = match &key.session_token {
                Some(session) => Some(credential(".access_key.session_token", session, checking)?),
                None => None,
            };
            Some(AccessKey { id: id?, secret: secret?, session })
        }
        None => None,
    };
    Some(Account { region, endpoint, key })
}

/// A part of an access key, which becomes part of a header.
fn credential(at: &str, raw: &RawSecret, checking: &mut Checking<'_>) -> Option<SecretText> {
    match raw.read() {
        Ok(secret) if secret.0.bytes().all(|byte| byte.is_ascii_graphic()) => Some(secret),
        Ok(_) => {
            checking.problem(at, "it holds more than printable ASCII characters");
            None
        }
        Err(problem) => {
            checking.problem(at, problem);
            None
        }
    }
}

/// The name of a bucket, which becomes part of an address (Amazon S3 User Guide, "General purpose bucket naming rules").
fn bucket(at: &str, name: String, checking: &mut Checking<'_>) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (3..=63).contains(&name.len()) && name.bytes().all(plain) && !name.contains("..") {
        return Some(name);
    }
    checking.problem(at, format!("`{name}` is not the name of a bucket"));
    None
}

/// Folders, each with a slash at its end and none at its beginning.
fn prefixes(raw: Vec<String>, checking: &mut Checking<'_>) -> Vec<String> {
    let mut prefixes = Vec::new();
    for prefix in raw {
        let path = prefix.trim_matches('/');
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            checking.problem(".prefixes", format!("`{prefix}` is not a folder such as AWSLogs/111122223333/"));
        } else {
            prefixes.push(format!("{path}/"));
        }
    }
    prefixes
}

impl S3 {
    pub(super) fn collector(&self) -> Result<Arc<dyn Collector>, Unfit> {
        let store = shared(self.account.bucket(&self.bucket)?);
        let wanted = Wanted {
            prefixes: self.prefixes.clone(),
            source_type: self.kind,
            flat: self.flat,
            since: self.since,
            every: self.every,
            keys: self.keys.clone(),
        };
        let objects = Objects::new(Bucket { name: self.bucket.clone(), store }, wanted);
        Ok(Arc::new(objects.beside(&self.beside)))
    }
}

impl Sqs {
    pub(super) fn collector(&self, shared_node: &Arc<Shared>) -> Result<Arc<dyn Collector>, Unfit> {
        let (mut buckets, mut credentials) = (Vec::new(), None);
        for name in &self.buckets {
            let store = self.account.bucket(name)?;
            credentials.get_or_insert_with(|| Arc::clone(store.credentials()));
            buckets.push(Bucket { name: name.clone(), store: shared(store) });
        }
        let credentials = credentials.ok_or(Unfit::Nothing)?;
        let signer = Signer { credentials, region: self.account.region.clone() };
        let plain = self.queue.scheme() == "http";
        let web = Arc::new(Web::new(EgressPolicy::AllowPrivate, plain)?);
        let clock = Arc::clone(&shared_node.clock);
        let messages = SentMessages::new(self.queue.clone(), web, Arc::new(signer), clock);
        let queue = Queue::new(Arc::new(messages), buckets, self.prefixes.clone(), self.kind);
        Ok(Arc::new(queue.beside(&self.beside)))
    }
}
