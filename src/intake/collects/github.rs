//! `collects: {github: …}`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use pipeproof_engine::source::SourceType;
use pipeproof_ingest::collect::auth::{App, Credentials};
use pipeproof_ingest::collect::github::{ACCEPT, AuditLog, Deliveries, EVERY, Hook, JobLogs, Ledger, Scope, VERSION};
use pipeproof_ingest::collect::{Collector, Held, Kind};
use serde::Deserialize;

use super::super::held::Here;
use super::{Access, Checking, SINCE, Unfit, kinds};
use crate::config::RawSecret;
use crate::node::Shared;

const API: &str = "https://api.github.com";
/// How often lists are looked at: each look is a request for every repository.
const LISTS_EVERY: Duration = Duration::from_secs(5 * 60);

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    /// Address of the API. `https://api.github.com` unless set; `https://HOST/api/v3` for Enterprise Server.
    api: Option<String>,
    enterprise: Option<String>,
    organization: Option<String>,
    /// `owner/name`.
    #[serde(default)]
    repositories: Vec<String>,
    token: Option<RawSecret>,
    app: Option<RawApp>,
    /// Of a webhook source: id of the webhook. Unless set, the one that delivers to the source's address; with
    /// `app`, the App's own.
    hook: Option<u64>,
    /// Of a webhook source: ask GitHub to deliver again, where it can reach us, instead of fetching the payload.
    #[serde(default)]
    redeliver: bool,
    /// Of a job log source: the webhook source that tells which jobs have ended.
    seen_by: Option<String>,
    /// Of a ledger: `runs`, `deployments`, `changes`. All of them unless set.
    #[serde(default)]
    what: Vec<String>,
    /// How often to look, such as `60s`.
    every: Option<String>,
    /// How far back to begin, such as `7d`. A day unless set.
    since: Option<String>,
    /// Logs may lie on a private network.
    #[serde(default)]
    allow_private: bool,
}

/// A GitHub App.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawApp {
    /// Its id or client id.
    id: String,
    /// Id of its installation.
    installation: u64,
    /// Its private key, PEM.
    key: RawSecret,
}

/// Checked.
#[derive(Debug)]
pub(crate) struct Settings {
    access: Access,
    scope: Scope,
    every: Duration,
    since: Duration,
    wanted: Wanted,
}

/// What is fetched, which follows from the source's type.
#[derive(Debug)]
enum Wanted {
    Audit,
    Deliveries { hook: Hook, redeliver: bool },
    Logs { seen_by: Option<String> },
    Ledger(Vec<Kind>),
}

impl Raw {
    pub(super) fn checked(self, kind: SourceType, checking: &mut Checking<'_>) -> Option<Settings> {
        let access = self.access(checking);
        let lists = matches!(kind, SourceType::GithubJoblog | SourceType::ProviderLedger);
        let every = checking.span(".every", self.every.as_deref(), if lists { LISTS_EVERY } else { EVERY });
        let since = checking.span(".since", self.since.as_deref(), SINCE);
        let scope = self.scope(kind, checking);
        let wanted = match kind {
            SourceType::GithubAudit => Some(Wanted::Audit),
            SourceType::GithubJoblog => Some(Wanted::Logs { seen_by: self.seen_by.clone() }),
            SourceType::ProviderLedger => Some(Wanted::Ledger(kinds(&self.what, checking))),
            SourceType::GithubWebhook => {
                self.hook(scope.as_ref(), checking).map(|hook| Wanted::Deliveries { hook, redeliver: self.redeliver })
            }
            other => {
                checking.problem("", format!("GitHub gives nothing for a source of type {other}"));
                None
            }
        };
        Some(Settings { access: access?, scope: scope?, every, since, wanted: wanted? })
    }

    fn hook(&self, scope: Option<&Scope>, checking: &mut Checking<'_>) -> Option<Hook> {
        match scope? {
            _ if self.app.is_some() && self.hook.is_none() => Some(Hook::App),
            Scope::Organization(name) => Some(Hook::Organization { name: name.clone(), id: self.hook }),
            Scope::Repositories(names) if names.len() == 1 => {
                names.first().map(|name| Hook::Repository { name: name.clone(), id: self.hook })
            }
            _ => {
                checking.problem(".repositories", "a webhook is of an organization or of one repository");
                None
            }
        }
    }

    fn access(&self, checking: &mut Checking<'_>) -> Option<Access> {
        let url = checking.api(self.api.as_deref().unwrap_or(API));
        let credentials = match (&self.token, &self.app) {
            (Some(token), None) => checking.secret(".token", token).map(Credentials::Bearer),
            (None, Some(app)) => app.checked(checking).map(Credentials::App),
            _ => {
                checking.problem("", "give either token: {env: NAME} or app: {id, installation, key}");
                None
            }
        };
        Some(Access { url: url?, credentials: Arc::new(credentials?), allow_private: self.allow_private })
    }

    fn scope(&self, kind: SourceType, checking: &mut Checking<'_>) -> Option<Scope> {
        let scope = match (&self.enterprise, &self.organization, &self.repositories[..]) {
            (Some(name), None, []) => Some(Scope::Enterprise(name.clone())),
            (None, Some(name), []) => Some(Scope::Organization(name.clone())),
            (None, None, [_, ..]) => Some(Scope::Repositories(self.repositories.clone())),
            _ => None,
        };
        let fits = match &scope {
            Some(Scope::Repositories(names)) => {
                kind != SourceType::GithubAudit && names.iter().all(|name| is_repository(name))
            }
            Some(Scope::Enterprise(_)) => kind == SourceType::GithubAudit,
            Some(Scope::Organization(_)) => true,
            None => false,
        };
        if !fits {
            let needed = match kind {
                SourceType::GithubAudit => "give organization: NAME or enterprise: NAME",
                _ => "give organization: NAME or repositories: [OWNER/NAME, …]",
            };
            checking.problem("", needed);
        }
        scope.filter(|_| fits)
    }
}

impl RawApp {
    fn checked(&self, checking: &mut Checking<'_>) -> Option<App> {
        let pem = match self.key.read() {
            Ok(pem) => pem,
            Err(problem) => {
                checking.problem(".app.key", problem);
                return None;
            }
        };
        let app = App::new(self.id.clone(), self.installation, &pem.0);
        app.map_err(|error| checking.problem(".app.key", error)).ok()
    }
}

fn is_repository(name: &str) -> bool {
    name.split_once('/').is_some_and(|(owner, repo)| !owner.is_empty() && !repo.is_empty() && !repo.contains('/'))
}

impl Settings {
    pub(super) fn collector(&self, shared: &Arc<Shared>, source: &str) -> Result<Arc<dyn Collector>, Unfit> {
        let api = self.access.api(shared)?.with_header(HeaderName::from_static("x-github-api-version"), VERSION);
        let api = Arc::new(api.with_header(http::header::ACCEPT, ACCEPT));
        let (scope, since, every) = (self.scope.clone(), self.since, self.every);
        let held = || Arc::new(Here(Arc::clone(shared))) as Arc<dyn Held>;
        Ok(match &self.wanted {
            Wanted::Audit => Arc::new(AuditLog::new(api, scope, since, every)),
            Wanted::Deliveries { hook, redeliver } => {
                Arc::new(Deliveries::new(api, hook.clone(), source.to_owned(), held(), *redeliver, every))
            }
            Wanted::Logs { seen_by } => Arc::new(JobLogs::new(api, scope, held(), seen_by.clone(), since, every)),
            Wanted::Ledger(kinds) => Arc::new(Ledger::new(api, scope, kinds.clone(), since, every)),
        })
    }
}
