//! `collects: {buildkite: …}`.

use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::source::SourceType;
use pipeproof_ingest::collect::Collector;
use pipeproof_ingest::collect::auth::Credentials;
use pipeproof_ingest::collect::buildkite::{JobLogs, Ledger};
use serde::Deserialize;

use super::{Access, Checking, SINCE, Unfit};
use crate::config::RawSecret;
use crate::node::Shared;

const API: &str = "https://api.buildkite.com/v2";
const EVERY: Duration = Duration::from_secs(60);

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    /// Address of the API. `https://api.buildkite.com/v2` unless set.
    api: Option<String>,
    /// Slug of the organisation.
    organization: String,
    token: RawSecret,
    every: Option<String>,
    since: Option<String>,
}

/// Checked.
#[derive(Debug)]
pub(crate) struct Settings {
    access: Access,
    organization: String,
    every: Duration,
    since: Duration,
    logs: bool,
}

impl Raw {
    pub(super) fn checked(self, kind: SourceType, checking: &mut Checking<'_>) -> Option<Settings> {
        let url = checking.api(self.api.as_deref().unwrap_or(API));
        let token = checking.secret(".token", &self.token);
        let every = checking.span(".every", self.every.as_deref(), EVERY);
        let since = checking.span(".since", self.since.as_deref(), SINCE);
        let logs = kind == SourceType::BuildkiteJoblog;
        if !logs && kind != SourceType::ProviderLedger {
            checking.problem("", format!("Buildkite gives nothing for a source of type {kind}"));
            return None;
        }
        let access = Access { url: url?, credentials: Arc::new(Credentials::Bearer(token?)), allow_private: false };
        Some(Settings { access, organization: self.organization, every, since, logs })
    }
}

impl Settings {
    pub(super) fn collector(&self, shared: &Arc<Shared>) -> Result<Arc<dyn Collector>, Unfit> {
        let api = Arc::new(self.access.api(shared)?);
        let (organization, since, every) = (self.organization.clone(), self.since, self.every);
        Ok(if self.logs {
            Arc::new(JobLogs::new(api, organization, since, every))
        } else {
            Arc::new(Ledger::new(api, organization, since, every))
        })
    }
}
