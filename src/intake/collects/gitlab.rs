//! `collects: {gitlab: …}`.

use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::source::SourceType;
use pipeproof_ingest::collect::auth::Credentials;
use pipeproof_ingest::collect::gitlab::{AuditEvents, Ledger, Scope, Traces};
use pipeproof_ingest::collect::{Collector, Held, Kind};
use serde::Deserialize;

use super::super::held::Here;
use super::{Access, Checking, SINCE, Unfit, kinds};
use crate::config::RawSecret;
use crate::node::Shared;

const API: &str = "https://gitlab.com/api/v4";
const EVERY: Duration = Duration::from_secs(60);

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    /// Address of the API. `https://gitlab.com/api/v4` unless set.
    api: Option<String>,
    /// Full path of a group; its subgroups are part of it.
    group: Option<String>,
    /// Full paths of projects.
    #[serde(default)]
    projects: Vec<String>,
    /// Audit events of the whole instance.
    #[serde(default)]
    instance: bool,
    /// An access token.
    token: RawSecret,
    /// Of a job log source: the webhook source that tells which jobs have ended.
    seen_by: Option<String>,
    /// Of a ledger: `runs` (pipelines), `deployments`, `changes` (merged merge requests). All of them unless set.
    #[serde(default)]
    what: Vec<String>,
    every: Option<String>,
    since: Option<String>,
    /// Traces may lie on a private network.
    #[serde(default)]
    allow_private: bool,
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

#[derive(Debug)]
enum Wanted {
    Audit,
    Traces { seen_by: Option<String> },
    Ledger(Vec<Kind>),
}

impl Raw {
    pub(super) fn checked(self, kind: SourceType, checking: &mut Checking<'_>) -> Option<Settings> {
        let url = checking.api(self.api.as_deref().unwrap_or(API));
        let token = checking.secret(".token", &self.token);
        let every = checking.span(".every", self.every.as_deref(), EVERY);
        let since = checking.span(".since", self.since.as_deref(), SINCE);
        let wanted = match kind {
            SourceType::GitlabAudit => Some(Wanted::Audit),
            SourceType::GitlabJoblog => Some(Wanted::Traces { seen_by: self.seen_by }),
            SourceType::ProviderLedger => Some(Wanted::Ledger(kinds(&self.what, checking))),
            other => {
                checking.problem("", format!("GitLab gives nothing for a source of type {other}"));
                None
            }
        };
        let scope = match (self.instance, self.group, &self.projects[..]) {
            (true, None, []) if kind == SourceType::GitlabAudit => Some(Scope::Instance),
            (false, Some(group), []) => Some(Scope::Group(group)),
            (false, None, [_, ..]) => Some(Scope::Projects(self.projects)),
            _ => {
                checking.problem("", "give group: PATH or projects: [PATH, …], or instance: true for audit events");
                None
            }
        };
        let credentials = Arc::new(Credentials::PrivateToken(token?));
        let access = Access { url: url?, credentials, allow_private: self.allow_private };
        Some(Settings { access, scope: scope?, every, since, wanted: wanted? })
    }
}

impl Settings {
    pub(super) fn collector(&self, shared: &Arc<Shared>) -> Result<Arc<dyn Collector>, Unfit> {
        let api = Arc::new(self.access.api(shared)?);
        let (scope, since, every) = (self.scope.clone(), self.since, self.every);
        Ok(match &self.wanted {
            Wanted::Audit => Arc::new(AuditEvents::new(api, scope, since, every)),
            Wanted::Traces { seen_by } => {
                let held = Arc::new(Here(Arc::clone(shared))) as Arc<dyn Held>;
                Arc::new(Traces::new(api, scope, held, seen_by.clone(), since, every))
            }
            Wanted::Ledger(kinds) => Arc::new(Ledger::new(api, scope, kinds.clone(), since, every)),
        })
    }
}
