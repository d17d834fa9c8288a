//! Sources and tokens. Every change is a control record before it takes effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use pipeproof_engine::control::{Control, SourceRecord};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::authentic;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::Body;
use super::{Answer, ApiError};
use crate::node::Shared;
use crate::registry::{Caller, LABELS_RULE, are_labels, is_source_name, new_token, sender_secret};
use crate::scope::Scope;
use crate::sender::Sender;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSource {
    name: String,
    #[serde(rename = "type")]
    source_type: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Since when its events count as live; now if left out.
    connected: Option<Timestamp>,
}

pub(crate) async fn add_source(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Body(new): Body<NewSource>,
) -> Answer {
    let source_type: SourceType =
        new.source_type.parse().map_err(|error: pipeproof_engine::source::UnknownSourceType| {
            ApiError::new(400, "unknown_source_type", error.to_string())
        })?;
    if !source_type.is_external() || !is_source_name(&new.name) {
        return Err(ApiError::bad_request(
            "a source's name is 1 to 64 of a-z 0-9 . _ -, starts with a letter or digit, and is not pipeproof",
        ));
    }
    if !are_labels(&new.labels) {
        return Err(ApiError::bad_request(LABELS_RULE));
    }
    if shared.registry().sources.contains_key(&new.name) {
        return Err(ApiError::new(409, "source_exists", format!("there is a source `{}` already", new.name)));
    }
    let now = shared.clock.now();
    let actor = format!("token:{}", caller.id);
    let record = SourceRecord {
        name: new.name.clone(),
        source_type,
        labels: new.labels,
        connected: new.connected.unwrap_or(now),
        generation: 0,
        actor: actor.clone(),
    };
    control(&shared, Control::SourceAdded(record.clone())).await?;
    let (token, token_record) = new_token(
        &shared.secret_keys.token,
        &[Scope::EventsWrite],
        Some(new.name.clone()),
        None,
        Some(format!("source {}", new.name)),
        (now, &actor),
    );
    control(&shared, Control::TokenCreated(token_record)).await?;
    Ok(Json(described(&shared, &record, &token)))
}

pub(crate) async fn rotate_source(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    let source = shared.registry().sources.get(&name).cloned();
    let source = source.ok_or_else(|| ApiError::not_found(format!("there is no source `{name}`")))?;
    let generation = source.generation + 1;
    let actor = format!("token:{}", caller.id);
    let now = shared.clock.now();
    control(&shared, Control::SourceRotated { name: name.clone(), generation, actor: actor.clone() }).await?;
    // Like the secret, the token before this one stays valid until the next rotation.
    let mut bound: Vec<_> = {
        let registry = shared.registry();
        registry.tokens.values().filter(|token| token.source.as_deref() == Some(&*name)).cloned().collect()
    };
    bound.sort_by_key(|token| std::cmp::Reverse(token.created));
    for old in bound.into_iter().skip(1) {
        control(&shared, Control::TokenRevoked { id: old.id, actor: actor.clone() }).await?;
    }
    let (token, record) = new_token(
        &shared.secret_keys.token,
        &[Scope::EventsWrite],
        Some(name.clone()),
        None,
        Some(format!("source {name}")),
        (now, &actor),
    );
    control(&shared, Control::TokenCreated(record)).await?;
    Ok(Json(described(&shared, &SourceRecord { generation, ..source }, &token)))
}

/// What the sender has to be told, once.
fn described(shared: &Shared, source: &SourceRecord, token: &str) -> Value {
    let (base, hint) = shared.public.base();
    let (name, kind, generation) = (&source.name, source.source_type, source.generation);
    let secret = authentic::has_secret(kind).then(|| sender_secret(&shared.secret_keys.source, kind, name, generation));
    let sender = Sender { source, base: &base, token, secret: secret.as_deref().unwrap_or_default() };
    json!({
        "name": name, "type": kind, "url": sender.url(), "token": token, "secret": secret,
        "generation": generation, "sender": sender.configuration(hint),
    })
}

pub(crate) async fn remove_source(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    if !shared.registry().sources.contains_key(&name) {
        return Err(ApiError::not_found(format!("there is no source `{name}`")));
    }
    control(&shared, Control::SourceRemoved { name: name.clone(), actor: format!("token:{}", caller.id) }).await?;
    shared.metrics.sources.remove(&name);
    Ok(Json(json!({ "removed": name })))
}

pub(crate) async fn tokens(State(shared): State<Arc<Shared>>) -> Answer {
    let tokens: Vec<Value> = shared
        .registry()
        .tokens
        .values()
        .map(|token| {
            json!({
                "id": token.id, "scopes": token.scopes, "source": token.source, "expires": token.expires,
                "note": token.note, "created": token.created, "actor": token.actor,
            })
        })
        .collect();
    Ok(Json(json!({ "tokens": tokens })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    scopes: Vec<String>,
    source: Option<String>,
    expires: Option<Timestamp>,
    note: Option<String>,
}

pub(crate) async fn create_token(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Body(new): Body<NewToken>,
) -> Answer {
    let scopes: Result<Vec<Scope>, _> = new.scopes.iter().map(|name| name.parse()).collect();
    let scopes = scopes.map_err(|error: crate::scope::UnknownScope| ApiError::bad_request(error.to_string()))?;
    if scopes.is_empty() {
        return Err(ApiError::bad_request("a token needs at least one scope"));
    }
    if let Some(scope) = scopes.iter().find(|scope| !scope.granted_by(&caller.scopes)) {
        return Err(ApiError::new(
            403,
            "scope_missing",
            format!("your token cannot give away the scope `{scope}`, which it lacks"),
        ));
    }
    if let Some(source) = &new.source {
        let is_type = source.parse::<SourceType>().is_ok_and(SourceType::is_external);
        if !is_type && !shared.registry().sources.contains_key(source) {
            return Err(ApiError::not_found(format!("there is no source and no source type `{source}`")));
        }
    }
    let created = (shared.clock.now(), &*format!("token:{}", caller.id));
    let (text, record) =
        new_token(&shared.secret_keys.token, &scopes, new.source, new.expires, new.note, (created.0, created.1));
    let id = record.id.clone();
    control(&shared, Control::TokenCreated(record)).await?;
    Ok(Json(json!({ "id": id, "token": text })))
}

pub(crate) async fn revoke_token(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    if !shared.registry().tokens.contains_key(&id) {
        return Err(ApiError::not_found(format!("there is no token `{id}`")));
    }
    control(&shared, Control::TokenRevoked { id: id.clone(), actor: format!("token:{}", caller.id) }).await?;
    Ok(Json(json!({ "revoked": id })))
}

async fn control(shared: &Arc<Shared>, control: Control) -> Result<u64, ApiError> {
    shared.control(control).await.map_err(|error| ApiError::unavailable(error.to_string()))
}
