//! Who did it, from where, through which API, and to what.

use super::class::operation;
use super::object::Object;
use super::taken::Taken;
use super::{action, millis};
use crate::event::Event;
use crate::fields::Field;
use crate::source::SourceType;

/// The product whose API it was, or that reported. Whoever calls it may be of another: a job of one CI system logs in to many.
fn product(event: &Event, taken: &Taken<'_>) -> String {
    let provider = event.fields.get_text(Field::CiProvider);
    let own = event.source_type.info().native.map(|(product, _)| product);
    let product = if is_document(event.source_type) { provider.or(own) } else { own.or(provider) };
    let product = taken.text(Field::CloudService).or(product).unwrap_or(event.source.as_ref());
    if provider == Some(product) {
        // Said here. Another one is said among what has no place of its own.
        taken.text(Field::CiProvider);
    }
    product.to_owned()
}

/// Whether a source type is a format that many products write.
const fn is_document(kind: SourceType) -> bool {
    matches!(
        kind,
        SourceType::Cdevents
            | SourceType::IntotoStatement
            | SourceType::SbomCyclonedx
            | SourceType::SbomSpdx
            | SourceType::Sarif
    )
}

pub(super) fn user(taken: &Taken<'_>) -> Option<Object> {
    let id = taken.text(Field::ActorId)?;
    let (type_id, caption) = match taken.text(Field::ActorType) {
        Some("human") => (1, "User"),
        Some("ci" | "workload" | "service") => (4, "Service"),
        _ => (0, "Unknown"),
    };
    let user = Object::default().with("name", id).with("uid", id).with("type_id", type_id).with("type", caption);
    Some(user.with("credential_uid", taken.text(Field::TokenId)))
}

pub(super) fn actor_if_known(taken: &Taken<'_>) -> Option<Object> {
    user(taken).map(|user| Object::default().with("user", user))
}

/// The actor; where the source names nobody, the product that did it.
pub(super) fn actor(event: &Event, taken: &Taken<'_>) -> Object {
    actor_if_known(taken).unwrap_or_else(|| Object::default().with("app_name", product(event, taken)))
}

/// The network address it came from, if there is one.
pub(super) fn address(taken: &Taken<'_>) -> Option<Object> {
    let text = taken.text(Field::SrcIp)?;
    let mut endpoint = Object::default();
    if text.parse::<std::net::IpAddr>().is_ok() {
        endpoint.set("ip", text);
    } else {
        // Providers name their own services where an address would stand.
        endpoint.set("name", text);
    }
    let system = Object::default().with("number", taken.int(Field::SrcAsn)).with("name", taken.text(Field::SrcOrg));
    endpoint.set("autonomous_system", system);
    endpoint.set("location", Object::default().with("country", taken.text(Field::SrcCountry)));
    Some(endpoint)
}

/// Where a class requires an endpoint.
pub(super) fn source(event: &Event, taken: &Taken<'_>) -> Object {
    address(taken).unwrap_or_else(|| Object::default().with("svc_name", product(event, taken)))
}

pub(super) fn client(taken: &Taken<'_>) -> Option<Object> {
    Object::default().with("user_agent", taken.text(Field::UserAgent)).some()
}

pub(super) fn api(event: &Event, taken: &Taken<'_>) -> Object {
    let service = Object::default().with("name", product(event, taken));
    let operation = operation(event).unwrap_or_else(|| action(event).to_owned());
    Object::default().with("operation", operation).with("service", service)
}

/// What it was done to.
pub(super) fn all(taken: &Taken<'_>) -> Vec<Object> {
    let mut all = Vec::new();
    let mut add = |kind: &str, name: Option<&str>, more: Object| {
        if let Some(name) = name {
            let mut resource = Object::default().with("type", kind).with("name", name);
            resource.extend(more);
            all.push(resource);
        }
    };
    if let Some(path) = taken.text(Field::SecretPath) {
        let more = Object::default()
            .with("version", taken.text(Field::SecretVersion))
            .with("group", Object::default().with("name", taken.text(Field::SecretStore)));
        add("secret", Some(path), more);
    }
    add("repository", taken.text(Field::CiRepo), Object::default());
    let digest = taken.text(Field::ArtifactDigest);
    let artifact = taken.text(Field::ArtifactName).or_else(|| taken.text(Field::ArtifactRepo)).or(digest);
    add("artifact", artifact, Object::default().with("uid", digest));
    if let Some(kind) = taken.text(Field::K8sKind) {
        let name = taken.text(Field::K8sName).or_else(|| taken.text(Field::K8sNamespace)).unwrap_or("*");
        let more = Object::default().with("namespace", taken.text(Field::K8sNamespace));
        add(kind, Some(name), more);
    }
    if let Some(id) = taken.text(Field::ConfigId) {
        add(taken.text(Field::ConfigObject).unwrap_or("setting"), Some(id), Object::default());
    }
    add("role", taken.text(Field::CloudRole), Object::default());
    all
}

pub(super) fn cloud(taken: &Taken<'_>) -> Option<Object> {
    let provider = taken.text(Field::CloudProvider)?;
    let cloud = Object::default().with("provider", provider).with("region", taken.text(Field::CloudRegion));
    let account = taken.text(Field::CloudAccount).map(|uid| Object::default().with("uid", uid));
    Some(match account {
        Some(account) => cloud.with("account", account),
        None => cloud,
    })
}

pub(super) fn authentication(body: &mut Object, event: &Event, taken: &Taken<'_>) {
    body.set("service", Object::default().with("name", product(event, taken)));
    if let Some(endpoint) = address(taken) {
        body.set("src_endpoint", endpoint);
    }
    let (protocol, caption) = match taken.text(Field::TokenKind) {
        Some("oidc" | "sts" | "vault") => (4, "OpenID"),
        _ => (0, "Unknown"),
    };
    body.set("auth_protocol_id", protocol);
    body.set("auth_protocol", caption);
    let session = Object::default()
        .with("uid", taken.text(Field::TokenId))
        .with("issuer", taken.text(Field::TokenIssuer))
        .with("expiration_time", taken.time(Field::TokenExpires).map(millis));
    body.set("session", session);
}

/// What was set up or changed.
pub(super) fn entity(event: &Event, taken: &Taken<'_>) -> Object {
    let noun = action(event).split('.').next().unwrap_or_default();
    let kind = taken.text(Field::ConfigObject).unwrap_or(noun);
    let named = [Field::ConfigId, Field::CiEnvironment, Field::CiWorkflow, Field::RunnerName, Field::CiRepo]
        .into_iter()
        .find_map(|field| taken.text(field));
    Object::default().with("type_id", 99).with("type", kind).with("name", named.unwrap_or(kind))
}

/// The pipeline or the deployed application.
pub(super) fn application(event: &Event, taken: &Taken<'_>) -> Object {
    let repo = taken.text(Field::CiRepo);
    let named = [Field::CiWorkflow, Field::ConfigId, Field::ArtifactName, Field::K8sName, Field::CiJobId]
        .into_iter()
        .find_map(|field| taken.text(field));
    let name = named.or(repo).map_or_else(|| product(event, taken), ToOwned::to_owned);
    Object::default().with("name", name).with("uid", repo).with("vendor_name", taken.text(Field::CiProvider))
}

/// The machine a job runs on.
pub(super) fn runner(taken: &Taken<'_>) -> Option<Object> {
    let name = taken.text(Field::RunnerName)?;
    let device = Object::default().with("type_id", 6).with("type", "Virtual").with("name", name);
    Some(device.with("ip", taken.text(Field::RunnerIp).filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())))
}
