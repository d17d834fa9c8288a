//! The rules in force, what they cover, and every way to change them. Each change is one control record, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, State};
use bytes::Bytes;
use pipeproof_engine::detect::RuleStatus;
use pipeproof_engine::rule::{Rule, RuleState};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_rules::{Severity, is_content};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{Asked, Body, internal};
use super::{Answer, ApiError};
use crate::node::Shared;
use crate::registry::Caller;
use crate::rules::{self, ChangeError, Connected, Draft, Fields, Layer, Mandate, Outcome, SetError};

/// Largest body of a deployment, in bytes.
pub(super) const DEPLOY_BYTES_MAX: usize = 128 << 20;
/// Longest name of a person or ticket, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest reason, in bytes.
const NOTE_BYTES_MAX: usize = 4_096;
/// How long a change waits until detection stands under it.
const WAIT: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);

pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    let findings = shared.store.findings_by_rule().await.map_err(internal("count findings"))?;
    let connected = connected(&shared).await?;
    let head = shared.rules.head();
    let sights = rules::sights(head.plan(), &connected);
    let status = shared.status();
    let held: BTreeMap<&str, &RuleStatus> = status.rules.iter().map(|held| (held.rule.as_str(), held)).collect();
    let rules: Vec<Value> = head
        .plan()
        .rules()
        .iter()
        .zip(sights)
        .map(|(rule, sight)| {
            let meta = rule.meta();
            let kind = match rule {
                Rule::Detection(_) => "detection",
                Rule::Correlation(_) => "correlation",
                Rule::Sql(_) => "sql",
            };
            let origin = head.rules.origins.get(&meta.id);
            let sql = shared.sql_rules.read().unwrap_or_else(PoisonError::into_inner).get(&meta.digest).cloned();
            json!({
                "id": meta.id, "name": meta.name, "title": meta.title, "kind": kind, "level": meta.level,
                "state": meta.state, "version": meta.version, "digest": meta.digest, "emits": meta.emits,
                "requires": meta.requires, "controls": meta.controls, "tags": meta.tags, "author": meta.author,
                "file": origin.map(|origin| &origin.file), "line": origin.map(|origin| origin.line),
                "sight": sight, "status": held.get(meta.id.as_str()), "findings": findings.get(&meta.id).copied().unwrap_or(0),
                "sql": sql,
            })
        })
        .collect();
    let in_force = shared.registry().rules.clone();
    Ok(Json(json!({
        "set": head.digest, "deciding": shared.rules.deciding(), "in_force": in_force,
        "trouble": shared.rules.trouble(), "warnings": head.rules.warnings, "tables": status.tables, "rules": rules,
    })))
}

pub(crate) async fn coverage(State(shared): State<Arc<Shared>>) -> Answer {
    let connected = connected(&shared).await?;
    let head = shared.rules.head();
    Ok(Json(json!({ "set": head.digest, "coverage": rules::coverage(head.plan(), connected) })))
}

/// The sources that are connected, with how much came from them.
async fn connected(shared: &Shared) -> Result<Vec<Connected>, ApiError> {
    let since = shared.clock.now().minus(DAY);
    let windows = shared.store.windows(since, Timestamp::MAX).await.map_err(internal("read the windows of sources"))?;
    let mut records: BTreeMap<&str, u64> = BTreeMap::new();
    for stored in &windows {
        *records.entry(&stored.window.source).or_default() += stored.window.records;
    }
    let mut known: BTreeMap<String, SourceType> = BTreeMap::new();
    let registry = shared.registry();
    known.extend(registry.sources.values().map(|source| (source.name.clone(), source.source_type)));
    // A source named after its type exists as soon as a token for the type does.
    let implied = registry.tokens.values().filter_map(|token| token.source.clone());
    known.extend(implied.filter_map(|name| Some((name.clone(), name.parse::<SourceType>().ok()?))));
    let of = |(name, source_type): (String, SourceType)| Connected {
        records_24h: records.get(name.as_str()).copied().unwrap_or(0),
        name,
        source_type,
    };
    Ok(known.into_iter().map(of).collect())
}

/// What anybody who changes the rules may say about it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Said {
    /// On whose behalf, when a tool acts for people.
    actor: Option<String>,
    approved_by: Option<String>,
    note: Option<String>,
}

impl Said {
    /// From a body, which may be left out.
    fn read(body: &Bytes) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(body).map_err(|error| {
            ApiError::bad_request(format!("the body is {{\"actor\", \"approved_by\", \"note\"}}: {error}"))
        })
    }

    fn mandate(self, shared: &Shared, caller: &Caller) -> Result<Mandate, ApiError> {
        for (name, text) in [("actor", &self.actor), ("approved_by", &self.approved_by)] {
            if text.as_ref().is_some_and(|text| text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control)) {
                return Err(ApiError::bad_request(format!("`{name}` is a name of up to {NAME_BYTES_MAX} bytes")));
            }
        }
        if self.note.as_ref().is_some_and(|note| note.len() > NOTE_BYTES_MAX) {
            return Err(ApiError::bad_request(format!("the note is longer than {NOTE_BYTES_MAX} bytes")));
        }
        let token = format!("token:{}", caller.id);
        let filled = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        let actor = filled(self.actor);
        Ok(Mandate {
            author: actor.clone().unwrap_or_else(|| token.clone()),
            actor: actor.map_or_else(|| token.clone(), |actor| format!("{actor} ({token})")),
            approved_by: filled(self.approved_by),
            // What somebody types may hold a secret as well as a log line may.
            note: filled(self.note).map(|note| {
                let (redacted, _) = shared.receiver.redactor().text(&Bytes::from(note));
                String::from_utf8_lossy(&redacted).into_owned()
            }),
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deployment {
    files: Vec<DeployedFile>,
    #[serde(default)]
    by: Said,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeployedFile {
    /// Relative to the folder, with `/`.
    path: String,
    text: String,
}

pub(crate) async fn deploy(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Body(deployment): Body<Deployment>,
) -> Answer {
    let mandate = deployment.by.mandate(&shared, &caller)?;
    let mut files: Vec<(String, Bytes)> = Vec::new();
    let mut seen = BTreeSet::new();
    for file in deployment.files {
        let refuse = |problem: &str| ApiError::bad_request(format!("`{}`: {problem}", file.path));
        if !is_content(&file.path) {
            return Err(refuse("rules are made of *.yml, *.yaml, lists/*.txt, *.csv and *.json"));
        }
        if !seen.insert(file.path.clone()) {
            return Err(refuse("the file is there twice"));
        }
        files.push((file.path, Bytes::from(file.text)));
    }
    answer(&shared, rules::deploy(&shared, mandate, files).await).await
}

pub(crate) async fn reload(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    let mandate = Said::read(&body)?.mandate(&shared, &caller)?;
    answer(&shared, rules::reload(&shared, mandate).await).await
}

pub(crate) async fn set_state(
    State(shared): State<Arc<Shared>>,
    Path((rule, verb)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    let state = match verb.as_str() {
        "activate" => RuleState::Active,
        "staging" => RuleState::Staging,
        "pause" => RuleState::Paused,
        _ => {
            let text = format!("`{verb}` is not something to do with a rule (known: activate, staging, pause)");
            return Err(ApiError::not_found(text));
        }
    };
    let mandate = Said::read(&body)?.mandate(&shared, &caller)?;
    answer(&shared, rules::set_state(&shared, mandate, rule, state).await).await
}

pub(crate) async fn exceptions(State(shared): State<Arc<Shared>>) -> Answer {
    let head = shared.rules.head();
    let exceptions = rules::listed(&head, shared.clock.now(), &shared.status().exceptions);
    Ok(Json(json!({ "set": head.digest, "exceptions": exceptions })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatchQuery {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

/// What an exception let go, also one that was taken back.
pub(crate) async fn exception_matches(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Asked(query): Asked<MatchQuery>,
) -> Answer {
    let limit = query.limit.unwrap_or(100).clamp(1, 1_000);
    let matches = shared.store.excepted(Some(&id), query.after, limit).await;
    Ok(Json(json!({ "matches": matches.map_err(internal("list what an exception let go"))? })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewException {
    /// A filter document; the other fields are left out then.
    document: Option<String>,
    rule: Option<String>,
    title: Option<String>,
    /// Field, with modifiers, and value.
    #[serde(default, rename = "where")]
    conditions: Vec<(String, String)>,
    reason: Option<String>,
    approved_by: Option<String>,
    ticket: Option<String>,
    expires: Option<Timestamp>,
    actor: Option<String>,
}

pub(crate) async fn add_exception(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Body(new): Body<NewException>,
) -> Answer {
    for (name, text, max) in [("ticket", &new.ticket, NAME_BYTES_MAX), ("reason", &new.reason, NOTE_BYTES_MAX)] {
        if text.as_ref().is_some_and(|text| text.len() > max) {
            return Err(ApiError::bad_request(format!("`{name}` is longer than {max} bytes")));
        }
    }
    let said = Said { actor: new.actor, approved_by: new.approved_by.clone(), note: new.reason.clone() };
    let mandate = said.mandate(&shared, &caller)?;
    let draft = match (new.document, new.rule) {
        (Some(document), None) => Draft::Document(document),
        (None, Some(rule)) => {
            let needs = |name: &str| ApiError::bad_request(format!("an exception needs `{name}`"));
            Draft::Fields(Fields {
                rule,
                title: new.title,
                conditions: new.conditions,
                reason: new.reason.ok_or_else(|| needs("reason"))?,
                approved_by: new.approved_by,
                ticket: new.ticket,
                expires: new.expires.ok_or_else(|| needs("expires"))?,
            })
        }
        _ => return Err(ApiError::bad_request("give either a `document` or a `rule` with `where`")),
    };
    match rules::add_exception(&shared, mandate, draft).await {
        Ok((outcome, ids)) => {
            let Json(mut body) = answer(&shared, Ok(outcome)).await?;
            if let Some(body) = body.as_object_mut() {
                body.insert("exceptions".to_owned(), json!(ids));
            }
            Ok(Json(body))
        }
        Err(error) => answer(&shared, Err(error)).await,
    }
}

pub(crate) async fn remove_exception(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let mandate = Said::default().mandate(&shared, &caller)?;
    answer(&shared, rules::remove_exception(&shared, mandate, id).await).await
}

/// What came of a change. It is durable already; whether detection has reached it is said.
async fn answer(shared: &Arc<Shared>, done: Result<Outcome, ChangeError>) -> Answer {
    let outcome = done.map_err(refused)?;
    let in_effect = match outcome.record {
        Some(index) => shared.wait_detected(index, WAIT).await,
        None => true,
    };
    let mut body = serde_json::to_value(&outcome).unwrap_or_default();
    if let Some(body) = body.as_object_mut() {
        body.insert("in_effect".to_owned(), in_effect.into());
    }
    Ok(Json(body))
}

fn refused(error: ChangeError) -> ApiError {
    match error {
        ChangeError::Set(SetError::Diagnostics { found, rendered }) => {
            // Whoever deployed a folder knows its files without our name for the layer.
            let layer = format!("{}/", Layer::Deployed.name());
            let mut rendered = rendered;
            let mut found = found;
            found.retain(|problem| problem.severity == Severity::Error);
            for problem in &mut found {
                if let Some(file) = problem.file.strip_prefix(&layer) {
                    rendered = rendered.replace(&format!("{}:", problem.file), &format!("{file}:"));
                    problem.file = file.to_owned();
                }
            }
            let message = format!("the rules have errors, nothing was changed:\n{rendered}");
            ApiError::new(400, "rules_invalid", message).with("diagnostics", json!(found))
        }
        ChangeError::Set(error @ (SetError::Content(rules::ContentError::Io { .. }) | SetError::Read(_))) => {
            // A folder of the server's that cannot be read is the caller's to put right as well.
            ApiError::new(409, "rules_unreadable", crate::chain(&error))
        }
        ChangeError::Set(error) => ApiError::new(400, "rules_invalid", crate::chain(&error)),
        ChangeError::Usage(text) => ApiError::bad_request(text),
        ChangeError::Missing(text) => ApiError::not_found(text),
        ChangeError::Log(error) => ApiError::unavailable(crate::chain(&error)),
        error @ ChangeError::Part { .. } => ApiError::internal("change the rules")(Box::new(error)),
    }
}
