//! What a token may do. Every route names one scope, in one table (see `http`); what is not in the table is not served.

use std::fmt;
use std::str::FromStr;

/// A permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    EventsWrite,
    FindingsRead,
    IncidentsWrite,
    KpiRead,
    RulesRead,
    RulesWrite,
    RulesTest,
    SourcesRead,
    SourcesWrite,
    TokensWrite,
    SqlRead,
    EvidenceRead,
    EvidenceWrite,
    RecordsRedact,
    MetricsRead,
    Admin,
}

impl Scope {
    pub(crate) const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::EventsWrite, "events:write", "send events"),
        (Self::FindingsRead, "findings:read", "read findings, incidents and deliveries"),
        (Self::IncidentsWrite, "incidents:write", "acknowledge, contain, remediate, verify, close, reopen, dismiss"),
        (Self::KpiRead, "kpi:read", "read MTTD and the MTTR family"),
        (Self::RulesRead, "rules:read", "list rules, exceptions and what they cover"),
        (Self::RulesWrite, "rules:write", "deploy rules, change their states, add exceptions"),
        (Self::RulesTest, "rules:test", "backtest rules over what is stored, and see what they find in it"),
        (Self::SourcesRead, "sources:read", "list sources, their health and dead letters"),
        (Self::SourcesWrite, "sources:write", "connect, rotate and remove sources"),
        (Self::TokensWrite, "tokens:write", "create, list and revoke tokens"),
        (Self::SqlRead, "sql:read", "run read-only SQL over the lake"),
        (Self::EvidenceRead, "evidence:read", "download sealed evidence packs"),
        (Self::EvidenceWrite, "evidence:write", "build and seal evidence packs"),
        (Self::RecordsRedact, "records:redact", "drop the payload of stored records for good, and list who did"),
        (Self::MetricsRead, "metrics:read", "scrape /metrics"),
        (Self::Admin, "admin", "everything"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(scope, ..)| *scope == self).map_or("", |(_, name, _)| name)
    }

    /// Whether one of the scopes a token has grants this one.
    pub(crate) fn granted_by(self, held: &[String]) -> bool {
        held.iter().any(|name| name == self.name() || name == Self::Admin.name())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown scope `{name}` (known scopes: {})", known())]
pub(crate) struct UnknownScope {
    name: String,
}

fn known() -> String {
    Scope::ALL.iter().map(|(_, name, _)| *name).collect::<Vec<_>>().join(", ")
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let row = Self::ALL.iter().find(|(_, name, _)| *name == text);
        row.map(|(scope, ..)| *scope).ok_or_else(|| UnknownScope { name: text.to_owned() })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
