//! Who sends events: the token in any of the places where senders put one, the source it is for, and the body.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use pipeproof_engine::record::{Authenticity, CollectionMode};
use pipeproof_ingest::authentic::{self, ClientCertificate, presented as token};
use pipeproof_ingest::log::AppendError;
use pipeproof_ingest::receive::{Framing, Refusal, SourceSettings, Way};

use super::ApiError;
use super::body::Standing;
use crate::intake::{self, Arrival, CLIENT_SUBJECT, NotTaken, Taken};
use crate::node::Shared;
use crate::registry::{Caller, TOKEN_PREFIX, TokenRefusal};
use crate::scope::Scope;

/// Header by which an import says that it loads history.
pub(crate) const MODE_HEADER: &str = "x-pipeproof-mode";

/// Who sends, as far as a token says: what the guard of the receiving routes hands to their handlers.
pub(super) type Sender = Result<Caller, TokenRefusal>;

/// Whose token it is, or else whose certificate. Anything that is not one of our tokens is none: a provider may send what
/// it likes beside its signature.
pub(super) fn sender(shared: &Shared, headers: &HeaderMap, certificate: Option<Arc<ClientCertificate>>) -> Sender {
    let now = shared.clock.now();
    if let Some(token) = token(headers).filter(|token| token.starts_with(TOKEN_PREFIX)) {
        let caller = shared.registry().caller(&token, &shared.secret_keys.token, now)?;
        return Ok(Caller { certificate, ..caller });
    }
    let certificate = certificate.ok_or(TokenRefusal::Missing)?;
    let mut sources = shared.sources_accepting(&certificate, now);
    let source = sources.pop().ok_or(TokenRefusal::Missing)?;
    Ok(Caller {
        id: certificate.key_id(),
        scopes: vec![Scope::EventsWrite.name().to_owned()],
        // Accepted by several, it names none.
        source: sources.is_empty().then_some(source),
        certificate: Some(certificate),
        by_token: false,
    })
}

/// A source, and who may send to it.
#[derive(Debug)]
pub(super) struct Allowed {
    pub(super) source: SourceSettings,
    bearer: Option<String>,
    proven: Option<(Authenticity, Option<String>)>,
    /// Subject of the client certificate that proves the sender.
    subject: Option<String>,
}

/// Whether a sender may send to this source. Who may not is told before a byte of the body is read, and so is who shows nothing
/// that the body could prove; whether the source exists is told only to who may send.
pub(super) async fn allowed(
    shared: &Arc<Shared>,
    sender: &Sender,
    headers: &HeaderMap,
    name: &str,
) -> Result<Allowed, ApiError> {
    // A certificate that other sources accept says nothing here, but there may be a signature.
    let by_certificate = sender.as_ref().ok().and_then(|caller| certificate(shared, caller, name));
    let sender = match sender {
        Ok(caller) if !caller.by_token && by_certificate.is_none() => &Err(TokenRefusal::Missing),
        sender => sender,
    };
    let bearer = match sender {
        Ok(caller) if !caller.by_token => None,
        Ok(caller) => {
            may_send(caller)?;
            if caller.source.as_deref().is_some_and(|bound| bound != name) {
                return Err(ApiError::new(403, "other_source", "the token is bound to another source"));
            }
            Some(caller.id.clone())
        }
        Err(TokenRefusal::Missing) => None,
        Err(refusal) => return Err((*refusal).into()),
    };
    let nobody = || NotTaken::Refused(Refusal::Unauthenticated(name.to_owned())).into();
    let Some(source) = shared.source(name) else {
        return Err(if bearer.is_some() { unknown(name) } else { nobody() });
    };
    if let Some(certificate) = by_certificate {
        return Ok(Allowed::by(source, bearer, certificate));
    }
    let proven = match token(headers).filter(|token| bearer.is_none() && token.matches('.').count() == 2) {
        Some(token) => {
            let key = shared.identities.verify(name, &token, shared.clock.now()).await;
            key.map(|key| (Authenticity::Jwt, Some(key)))
        }
        None => None,
    };
    let signed = || authentic::is_signed(source.source_type, headers, &source.secrets);
    if bearer.is_none() && proven.is_none() && !signed() {
        return Err(nobody());
    }
    Ok(Allowed { source, bearer, proven, subject: None })
}

/// The certificate of a caller, if this source accepts it now.
fn certificate<'a>(shared: &Shared, caller: &'a Caller, source: &str) -> Option<&'a ClientCertificate> {
    let certificate = caller.certificate.as_deref()?;
    shared.accepts_certificate(source, certificate, shared.clock.now()).then_some(certificate)
}

/// The source of an endpoint whose address names none: the one the sender's token is bound to, or else the one that
/// `named` names.
pub(super) fn bound(shared: &Shared, sender: &Sender, named: Option<&str>) -> Result<Allowed, ApiError> {
    let caller = sender.as_ref().map_err(|refusal| ApiError::from(*refusal))?;
    may_send(caller)?;
    let name = caller.source.as_deref().or(named).ok_or_else(|| {
        let message = "this address names no source: use a token that is bound to one (`token create --source NAME`)";
        ApiError::new(403, "no_source", message)
    })?;
    let certificate = certificate(shared, caller, name);
    if !caller.by_token && certificate.is_none() {
        return Err(ApiError::new(403, "other_source", "the client certificate is accepted for other sources only"));
    }
    let source = shared.source(name).ok_or_else(|| unknown(name))?;
    let bearer = caller.by_token.then(|| caller.id.clone());
    Ok(match certificate {
        Some(certificate) => Allowed::by(source, bearer, certificate),
        None => Allowed { source, bearer, proven: None, subject: None },
    })
}

fn may_send(caller: &Caller) -> Result<(), ApiError> {
    if Scope::EventsWrite.granted_by(&caller.scopes) {
        return Ok(());
    }
    Err(ApiError::new(403, "scope_missing", "the token lacks the scope `events:write`"))
}

fn unknown(name: &str) -> ApiError {
    let message = format!("there is no source `{name}`: add it with `pipeproof sources add`");
    ApiError::new(404, "unknown_source", message)
}

impl Allowed {
    /// Allowed by a client certificate, which proves more than a token beside it.
    fn by(source: SourceSettings, bearer: Option<String>, certificate: &ClientCertificate) -> Self {
        let proven = Some((Authenticity::Mtls, Some(certificate.key_id())));
        Self { source, bearer, proven, subject: Some(certificate.subject.clone()) }
    }

    /// What is known of the sender before the body is there.
    pub(super) const fn standing(&self) -> Standing {
        if self.bearer.is_some() || self.proven.is_some() { Standing::Known } else { Standing::Claimed }
    }

    /// Whether a token stands for the sender already: there is no body that could be signed.
    pub(super) fn has_token(&self) -> Result<(), ApiError> {
        if self.standing() == Standing::Known { Ok(()) } else { Err(TokenRefusal::Missing.into()) }
    }

    /// Takes in a body that was read.
    pub(super) async fn take(
        self,
        shared: &Arc<Shared>,
        framing: Framing,
        headers: HeaderMap,
        query: BTreeMap<String, String>,
        body: Bytes,
    ) -> Result<Taken, ApiError> {
        let mode = mode(&headers)?;
        let attributes = self.subject.map(|subject| (CLIENT_SUBJECT, subject)).into_iter().collect();
        let way = Way { framing, proven: self.proven, attributes, ..Way::default() };
        let arrival = Arrival { source: self.source, headers, query, body, bearer: self.bearer, mode, way };
        Ok(intake::take(shared, arrival).await?)
    }
}

impl From<NotTaken> for ApiError {
    fn from(not_taken: NotTaken) -> Self {
        match not_taken {
            NotTaken::Refused(refusal) => Self::new(refusal.status(), refusal.code(), refusal.to_string()),
            NotTaken::Record(error) => Self::new(413, "record_too_large", error.to_string()),
            NotTaken::Append(error @ AppendError::TooLarge(_)) => Self::new(413, "record_too_large", error.to_string()),
            NotTaken::Known(error) => super::answers::internal("look up what is there already")(error),
            NotTaken::Task(error) => super::answers::internal("receive events")(error),
            temporary => Self::unavailable(temporary.to_string()),
        }
    }
}

fn mode(headers: &HeaderMap) -> Result<CollectionMode, ApiError> {
    match headers.get(MODE_HEADER).map(|value| value.as_bytes()) {
        None | Some(b"live") => Ok(CollectionMode::Live),
        Some(b"backfill") => Ok(CollectionMode::Backfill),
        Some(_) => Err(ApiError::bad_request(format!("{MODE_HEADER} is live or backfill"))),
    }
}
