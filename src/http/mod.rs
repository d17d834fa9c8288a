//! The HTTP API: one table of routes, each with the scope it needs. What is not in the table is not served.

mod admin;
mod admission;
mod answers;
pub(crate) mod backtest;
pub(crate) mod body;
mod dead_letters;
mod elastic;
pub(crate) mod event_list;
mod events;
mod evidence;
mod findings;
mod health;
pub(crate) mod hec;
mod openapi;
mod otlp;
mod redact;
mod rules;
mod sender;
mod serve;
mod status;
mod tail;
mod upkeep;

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};

pub(crate) use answers::{Answer, ApiError};
pub(crate) use sender::MODE_HEADER;
pub(crate) use serve::serve;

use crate::node::Shared;
use crate::registry::{Caller, TokenRefusal};
use crate::scope::Scope;
use crate::tls::Peer;

/// Who may call a route.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    /// Anyone: says nothing about events.
    Public,
    /// Decided by the handler on the raw bytes: the event receiver, where a signature may stand in for a token.
    Source,
    /// Whoever's token has the scope.
    Scope(Scope),
}

/// A row of the table of routes.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) summary: &'static str,
    handler: fn() -> MethodRouter<Arc<Shared>>,
}

macro_rules! route {
    ($method:literal, $path:literal, $access:expr, $summary:literal, $handler:expr) => {
        Route { method: $method, path: $path, access: $access, summary: $summary, handler: || $handler }
    };
}

use Access::{Public, Scope as Needs, Source};

/// Every route.
pub(crate) const ROUTES: &[Route] = &[
    route!("GET", "/healthz", Public, "The process is alive", get(status::healthz)),
    route!("GET", "/readyz", Public, "Events are accepted; 503 says why not", get(status::readyz)),
    route!("GET", "/openapi.json", Public, "This API, described", get(openapi::document)),
    route!("GET", "/metrics", Needs(Scope::MetricsRead), "Prometheus metrics", get(status::metrics)),
    route!(
        "GET",
        "/v1/status",
        Needs(Scope::FindingsRead),
        "Positions of log, detection and lake, and counts",
        get(status::status)
    ),
    route!(
        "GET",
        "/v1/events",
        Needs(Scope::SqlRead),
        "Stored events as NDJSON, in our words or as OCSF objects (format, from, to, source, action, after, limit)",
        get(event_list::list)
    ),
    route!(
        "GET",
        "/v1/tail",
        Needs(Scope::SqlRead),
        "Events as they are detected, as NDJSON, until either side ends it (format, source, action)",
        get(tail::tail)
    ),
    route!(
        "POST",
        "/v1/events/{source}",
        Source,
        "Send events: JSON, NDJSON, arrays, text; gzip, zstd",
        post(events::receive)
    ),
    route!("GET", "/v1/events/{source}", Source, "Say an event hook's challenge again", get(events::challenge)),
    route!("POST", "/services/collector", Source, "Splunk HEC events", post(hec::events)),
    route!("POST", "/services/collector/event", Source, "Splunk HEC events", post(hec::events)),
    route!("POST", "/services/collector/event/1.0", Source, "Splunk HEC events", post(hec::events)),
    route!("POST", "/services/collector/raw", Source, "Splunk HEC, a line is an event", post(hec::raw)),
    route!("POST", "/services/collector/raw/1.0", Source, "Splunk HEC, a line is an event", post(hec::raw)),
    route!("POST", "/services/collector/ack", Source, "Splunk HEC: which requests are durable", post(hec::ack)),
    route!("GET", "/services/collector/health", Public, "Splunk HEC: events are accepted", get(hec::health)),
    route!("GET", "/services/collector/health/1.0", Public, "Splunk HEC: events are accepted", get(hec::health)),
    route!("GET", "/", Source, "What Elastic clients ask first", get(elastic::root)),
    route!("GET", "/_license", Source, "Elastic licence", get(elastic::license)),
    route!("GET", "/_xpack", Source, "Elastic features", get(elastic::license)),
    route!("GET", "/_cluster/health", Source, "Elastic health", get(elastic::health)),
    route!("POST", "/_bulk", Source, "Elastic bulk requests", post(elastic::bulk)),
    route!("PUT", "/_bulk", Source, "Elastic bulk requests", put(elastic::bulk)),
    route!("POST", "/{index}/_bulk", Source, "Elastic bulk requests", post(elastic::bulk_into)),
    route!("PUT", "/{index}/_bulk", Source, "Elastic bulk requests", put(elastic::bulk_into)),
    route!("GET", "/_index_template/{name}", Source, "Elastic set-up: none kept", get(elastic::absent)),
    route!("PUT", "/_index_template/{name}", Source, "Elastic set-up: none needed", put(elastic::acknowledged)),
    route!("GET", "/_template/{name}", Source, "Elastic set-up: none kept", get(elastic::absent)),
    route!("PUT", "/_template/{name}", Source, "Elastic set-up: none needed", put(elastic::acknowledged)),
    route!("GET", "/_data_stream/{name}", Source, "Elastic set-up: none kept", get(elastic::absent)),
    route!("PUT", "/_data_stream/{name}", Source, "Elastic set-up: none needed", put(elastic::acknowledged)),
    route!("GET", "/_ilm/policy/{name}", Source, "Elastic set-up: none kept", get(elastic::absent)),
    route!("PUT", "/_ilm/policy/{name}", Source, "Elastic set-up: none needed", put(elastic::acknowledged)),
    route!("GET", "/_ingest/pipeline/{name}", Source, "Elastic set-up: none kept", get(elastic::absent)),
    route!("PUT", "/_ingest/pipeline/{name}", Source, "Elastic set-up: none needed", put(elastic::acknowledged)),
    route!("POST", "/v1/logs", Source, "OTLP logs, Protocol Buffers or JSON", post(otlp::logs)),
    route!("POST", "/logs", Source, "OPA decision logs", post(events::opa)),
    route!("POST", "/logs/{partition}", Source, "OPA decision logs", post(events::opa)),
    route!("GET", "/v1/findings", Needs(Scope::FindingsRead), "Findings, newest first", get(findings::list)),
    route!("GET", "/v1/findings/{id}", Needs(Scope::FindingsRead), "One finding", get(findings::one)),
    route!("GET", "/v1/incidents", Needs(Scope::FindingsRead), "Incidents, newest first", get(findings::incidents)),
    route!(
        "GET",
        "/v1/incidents/{id}",
        Needs(Scope::FindingsRead),
        "One incident with its steps and findings",
        get(findings::incident)
    ),
    route!(
        "POST",
        "/v1/incidents/{id}/{verb}",
        Needs(Scope::IncidentsWrite),
        "ack, contain, remediate, verify, close, reopen or dismiss",
        post(findings::step)
    ),
    route!(
        "GET",
        "/v1/deliveries",
        Needs(Scope::FindingsRead),
        "Deliveries and their receipts",
        get(findings::deliveries)
    ),
    route!("GET", "/v1/kpi", Needs(Scope::KpiRead), "MTTD and the MTTR family over a period", get(evidence::kpi)),
    route!("GET", "/v1/rules", Needs(Scope::RulesRead), "The rules in force", get(rules::list)),
    route!(
        "POST",
        "/v1/rules",
        Needs(Scope::RulesWrite),
        "Deploy a folder of rules: all of it is put in force, or nothing is changed",
        post(rules::deploy).layer(DefaultBodyLimit::max(rules::DEPLOY_BYTES_MAX))
    ),
    route!(
        "GET",
        "/v1/rules/coverage",
        Needs(Scope::RulesRead),
        "Rules against connected sources, techniques, risks and controls",
        get(rules::coverage)
    ),
    route!(
        "POST",
        "/v1/rules/reload",
        Needs(Scope::RulesWrite),
        "Read the configured folder of rules again",
        post(rules::reload)
    ),
    route!(
        "POST",
        "/v1/rules/{rule}/{verb}",
        Needs(Scope::RulesWrite),
        "activate, staging or pause",
        post(rules::set_state)
    ),
    route!("GET", "/v1/exceptions", Needs(Scope::RulesRead), "Exceptions to rules", get(rules::exceptions)),
    route!(
        "POST",
        "/v1/exceptions",
        Needs(Scope::RulesWrite),
        "Add an exception with a reason and an end",
        post(rules::add_exception)
    ),
    route!(
        "GET",
        "/v1/exceptions/{id}/matches",
        Needs(Scope::FindingsRead),
        "Matches an exception let go",
        get(rules::exception_matches)
    ),
    route!(
        "DELETE",
        "/v1/exceptions/{id}",
        Needs(Scope::RulesWrite),
        "Take back an exception that was added",
        delete(rules::remove_exception)
    ),
    route!("GET", "/v1/sources", Needs(Scope::SourcesRead), "Sources and their health", get(health::sources)),
    route!("POST", "/v1/sources", Needs(Scope::SourcesWrite), "Connect a source", post(admin::add_source)),
    route!(
        "POST",
        "/v1/sources/{name}/rotate",
        Needs(Scope::SourcesWrite),
        "Give a source a new secret; the one before stays valid",
        post(admin::rotate_source)
    ),
    route!(
        "DELETE",
        "/v1/sources/{name}",
        Needs(Scope::SourcesWrite),
        "Remove a source and its tokens",
        delete(admin::remove_source)
    ),
    route!(
        "GET",
        "/v1/deadletters",
        Needs(Scope::SourcesRead),
        "Records that could not be decoded",
        get(dead_letters::list)
    ),
    route!(
        "POST",
        "/v1/deadletters/replay",
        Needs(Scope::SourcesWrite),
        "Read dead letters again that this version can decode",
        post(dead_letters::replay)
    ),
    route!(
        "POST",
        "/v1/records/outcome",
        Needs(Scope::SourcesRead),
        "How many records of ranges of the log became events, repetitions and dead letters",
        post(dead_letters::outcome)
    ),
    route!(
        "POST",
        "/v1/records/{event}/redact",
        Needs(Scope::RecordsRedact),
        "Drop a record's payload everywhere, for good; its leaf hash stays",
        post(redact::redact)
    ),
    route!("GET", "/v1/redactions", Needs(Scope::RecordsRedact), "Redactions, the last one first", get(redact::list)),
    route!("GET", "/v1/tokens", Needs(Scope::TokensWrite), "Tokens, without their secrets", get(admin::tokens)),
    route!("POST", "/v1/tokens", Needs(Scope::TokensWrite), "Create a token", post(admin::create_token)),
    route!("DELETE", "/v1/tokens/{id}", Needs(Scope::TokensWrite), "Revoke a token", delete(admin::revoke_token)),
    route!(
        "POST",
        "/v1/backtest",
        Needs(Scope::RulesTest),
        "Replay stored records with other rules; progress, findings and a summary as NDJSON",
        post(backtest::backtest).layer(DefaultBodyLimit::max(backtest::BODY_BYTES_MAX))
    ),
    route!(
        "POST",
        "/v1/backup",
        Needs(Scope::Admin),
        "Copy the data into an empty folder of the server's machine, while it runs",
        post(upkeep::backup)
    ),
    route!(
        "POST",
        "/v1/doctor",
        Needs(Scope::Admin),
        "Derive leaves, trees, findings and counts again and compare them with what is stored",
        post(upkeep::verify)
    ),
    route!("POST", "/v1/sql", Needs(Scope::SqlRead), "Read-only SQL over the lake", post(evidence::sql)),
    route!("GET", "/v1/evidence", Needs(Scope::EvidenceRead), "Sealed evidence packs", get(evidence::list)),
    route!(
        "POST",
        "/v1/evidence",
        Needs(Scope::EvidenceWrite),
        "Build and seal an evidence pack",
        post(evidence::build)
    ),
    route!("GET", "/v1/evidence/{pack}", Needs(Scope::EvidenceRead), "Download a sealed pack", get(evidence::download)),
    route!(
        "GET",
        "/v1/anchor",
        Needs(Scope::EvidenceRead),
        "The trust anchor auditors check packs against",
        get(evidence::anchor)
    ),
];

/// The router over a node.
fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let guard = middleware::from_fn_with_state(Arc::clone(&shared), move |State(shared), request, next| {
            guarded(shared, route.access, request, next)
        });
        router = router.route(route.path, (route.handler)().route_layer(guard));
    }
    router
        .fallback(|| async { ApiError::not_found("there is no such route: see /openapi.json") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(405, "method_not_allowed", "this route has another method")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), counted))
        .with_state(shared)
}

async fn guarded(shared: Arc<Shared>, access: Access, mut request: Request, next: Next) -> Response {
    match access {
        Public => next.run(request).await,
        Source => {
            let peer = request.extensions().get::<ConnectInfo<Peer>>();
            let certificate = peer.and_then(|ConnectInfo(peer)| peer.certificate.clone());
            let sender = sender::sender(&shared, request.headers(), certificate);
            request.extensions_mut().insert(sender);
            next.run(request).await
        }
        Needs(scope) => match caller(&shared, request.headers()) {
            Err(refusal) => ApiError::from(refusal).into_response(),
            Ok(caller) if scope.granted_by(&caller.scopes) => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Ok(_) => {
                ApiError::new(403, "scope_missing", format!("the token lacks the scope `{scope}`")).into_response()
            }
        },
    }
}

/// Who calls, by bearer token.
fn caller(shared: &Shared, headers: &axum::http::HeaderMap) -> Result<Caller, TokenRefusal> {
    let header = headers.get(header::AUTHORIZATION).ok_or(TokenRefusal::Missing)?;
    let text = header.to_str().map_err(|_| TokenRefusal::Unknown)?;
    let (scheme, token) = text.split_once(' ').ok_or(TokenRefusal::Unknown)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TokenRefusal::Missing);
    }
    shared.registry().caller(token.trim(), &shared.secret_keys.token, shared.clock.now())
}

async fn counted(
    State(shared): State<Arc<Shared>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let route = path.as_ref().map_or("other", MatchedPath::as_str);
    shared.metrics.requests.with_label_values(&[route, response.status().as_str()]).inc();
    response
}
