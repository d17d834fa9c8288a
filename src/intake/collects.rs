//! What a configuration says about collectors: whom to ask, as whom, for what.

mod buildkite;
mod github;
mod gitlab;
mod jenkins;
mod objects;

use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::parse_span;
use pipeproof_ingest::collect::auth::{Credentials, SecretText};
use pipeproof_ingest::collect::http::{Api, Transport};
use pipeproof_ingest::collect::{Collector, Kind};
use pipeproof_reports::deliver::egress::EgressPolicy;
use reqwest::Url;
use serde::Deserialize;

use super::web::Web;
use crate::config::RawSecret;
use crate::node::Shared;

/// The collectors of a source, as they are written. What is fetched follows from the source's type.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCollects {
    github: Option<github::Raw>,
    gitlab: Option<gitlab::Raw>,
    jenkins: Option<jenkins::Raw>,
    buildkite: Option<buildkite::Raw>,
    s3: Option<objects::RawS3>,
    sqs: Option<objects::RawSqs>,
}

/// A collector, checked.
#[derive(Debug)]
pub(crate) enum Collect {
    Github(github::Settings),
    Gitlab(gitlab::Settings),
    Jenkins(jenkins::Settings),
    Buildkite(buildkite::Settings),
    S3(objects::S3),
    Sqs(objects::Sqs),
}

/// How far back a first run goes.
const SINCE: Duration = Duration::from_secs(24 * 3_600);

/// Why a collector cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("cannot set up connections")]
    Client(#[from] reqwest::Error),
    #[error("cannot set up a bucket")]
    Bucket(#[from] object_store::Error),
    #[error("there is no bucket to read")]
    Nothing,
}

impl RawCollects {
    /// Checks them; `here` is where the source stands.
    pub(crate) fn checked(self, here: &str, kind: SourceType, problems: &mut Vec<String>) -> Vec<Collect> {
        let mut collects = Vec::new();
        if let Some(raw) = self.github {
            let mut checking = Checking { here: format!("{here}.collects.github"), problems };
            collects.extend(raw.checked(kind, &mut checking).map(Collect::Github));
        }
        if let Some(raw) = self.gitlab {
            let mut checking = Checking { here: format!("{here}.collects.gitlab"), problems };
            collects.extend(raw.checked(kind, &mut checking).map(Collect::Gitlab));
        }
        if let Some(raw) = self.jenkins {
            let mut checking = Checking { here: format!("{here}.collects.jenkins"), problems };
            collects.extend(raw.checked(kind, &mut checking).map(Collect::Jenkins));
        }
        if let Some(raw) = self.buildkite {
            let mut checking = Checking { here: format!("{here}.collects.buildkite"), problems };
            collects.extend(raw.checked(kind, &mut checking).map(Collect::Buildkite));
        }
        let beside = Arc::default();
        if let Some(raw) = self.s3 {
            let mut checking = Checking { here: format!("{here}.collects.s3"), problems };
            collects.extend(raw.checked(kind, &beside, &mut checking).map(Collect::S3));
        }
        if let Some(raw) = self.sqs {
            let mut checking = Checking { here: format!("{here}.collects.sqs"), problems };
            collects.extend(raw.checked(kind, &beside, &mut checking).map(Collect::Sqs));
        }
        collects
    }
}

impl Collect {
    /// The collector.
    pub(crate) fn collector(&self, shared: &Arc<Shared>, source: &str) -> Result<Arc<dyn Collector>, Unfit> {
        match self {
            Self::Github(settings) => settings.collector(shared, source),
            Self::Gitlab(settings) => settings.collector(shared),
            Self::Jenkins(settings) => settings.collector(shared),
            Self::Buildkite(settings) => settings.collector(shared),
            Self::S3(settings) => settings.collector(),
            Self::Sqs(settings) => settings.collector(shared),
        }
    }
}

/// Where a part stands, and what is wrong so far.
struct Checking<'a> {
    here: String,
    problems: &'a mut Vec<String>,
}

impl Checking<'_> {
    fn problem(&mut self, at: &str, problem: impl std::fmt::Display) {
        self.problems.push(format!("{}{at}: {problem}", self.here));
    }

    fn span(&mut self, at: &str, text: Option<&str>, default: Duration) -> Duration {
        match text.map(parse_span) {
            None => default,
            Some(Some(span)) if span >= Duration::from_secs(1) => span,
            Some(_) => {
                self.problem(at, "it is not a span such as 30s, 5m or 1d");
                default
            }
        }
    }

    fn secret(&mut self, at: &str, raw: &RawSecret) -> Option<SecretText> {
        match raw.read() {
            Ok(secret) => Some(SecretText::new(&secret.0)),
            Err(problem) => {
                self.problem(at, problem);
                None
            }
        }
    }

    /// The address of an API: https, or http where it never leaves this network.
    fn api(&mut self, text: &str) -> Option<Url> {
        self.address(".api", text, "https://api.github.com")
    }

    fn address(&mut self, at: &str, text: &str, example: &str) -> Option<Url> {
        match text.parse::<Url>() {
            Ok(url) if matches!(url.scheme(), "https" | "http") && url.has_host() && url.query().is_none() => Some(url),
            _ => {
                self.problem(at, format!("`{text}` is not an address such as {example}"));
                None
            }
        }
    }
}

/// What a ledger lists; everything unless it says.
fn kinds(words: &[String], checking: &mut Checking<'_>) -> Vec<Kind> {
    if words.is_empty() {
        return Kind::ALL.to_vec();
    }
    let mut kinds = Vec::new();
    for word in words {
        match Kind::ALL.iter().find(|kind| kind.plural() == word) {
            Some(kind) => kinds.push(*kind),
            None => checking.problem(".what", format!("`{word}` is none of runs, deployments, changes")),
        }
    }
    kinds
}

/// Where an API is, and as whom it is asked.
#[derive(Debug)]
struct Access {
    url: Url,
    credentials: Arc<Credentials>,
    /// Where it sends us may be private too.
    allow_private: bool,
}

impl Access {
    fn api(&self, shared: &Arc<Shared>) -> Result<Api, Unfit> {
        // An API in plain text can only be on a private network: the resolver sees to that.
        let plain = self.url.scheme() == "http";
        let inside: Arc<dyn Transport> = Arc::new(Web::new(EgressPolicy::AllowPrivate, plain)?);
        let policy = if plain || self.allow_private { EgressPolicy::AllowPrivate } else { EgressPolicy::Public };
        let outside: Arc<dyn Transport> = Arc::new(Web::new(policy, plain)?);
        let clock = Arc::clone(&shared.clock);
        let quota = shared.collecting.quota(&self.url, &self.credentials);
        Ok(Api::new(self.url.clone(), Arc::clone(&self.credentials), inside, outside, clock).within(quota))
    }
}
