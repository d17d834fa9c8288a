//! `collects: {jenkins: …}`.

use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::source::SourceType;
use pipeproof_ingest::collect::Collector;
use pipeproof_ingest::collect::auth::Credentials;
use pipeproof_ingest::collect::jenkins::{Builds, What};
use serde::Deserialize;

use super::{Access, Checking, SINCE, Unfit};
use crate::config::RawSecret;
use crate::node::Shared;

const EVERY: Duration = Duration::from_secs(60);

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    /// Address of the controller.
    api: String,
    /// Name of the account whose token it is.
    user: String,
    /// Its API token.
    token: RawSecret,
    /// Full names of jobs (`folder/job`). Every job that the account may see unless set.
    #[serde(default)]
    jobs: Vec<String>,
    every: Option<String>,
    since: Option<String>,
}

/// Checked.
#[derive(Debug)]
pub(crate) struct Settings {
    access: Access,
    jobs: Vec<String>,
    what: What,
    every: Duration,
    since: Duration,
}

impl Raw {
    pub(super) fn checked(self, kind: SourceType, checking: &mut Checking<'_>) -> Option<Settings> {
        let url = checking.api(&self.api);
        let token = checking.secret(".token", &self.token);
        let every = checking.span(".every", self.every.as_deref(), EVERY);
        let since = checking.span(".since", self.since.as_deref(), SINCE);
        let what = match kind {
            SourceType::JenkinsJoblog => Some(What::Logs),
            SourceType::ProviderLedger => Some(What::Ledger),
            other => {
                checking.problem("", format!("Jenkins gives nothing for a source of type {other}"));
                None
            }
        };
        let credentials = Arc::new(Credentials::Basic { user: self.user, password: token? });
        // A controller sends nowhere else.
        let access = Access { url: url?, credentials, allow_private: false };
        Some(Settings { access, jobs: self.jobs, what: what?, every, since })
    }
}

impl Settings {
    pub(super) fn collector(&self, shared: &Arc<Shared>) -> Result<Arc<dyn Collector>, Unfit> {
        let api = Arc::new(self.access.api(shared)?);
        Ok(Arc::new(Builds::new(api, self.jobs.clone(), self.what, self.since, self.every)))
    }
}
