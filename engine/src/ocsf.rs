//! Events as OCSF 1.8 objects, the form security data lakes and many SIEMs take in.
//!
//! A pure function of the event. It says what kind of event it is (class and activity, see [`class`]), fills what that
//! class requires from the normalised fields, and puts every field that has no place in the class under `unmapped`, so
//! that nothing is lost. The native text stays behind: the object carries its SHA-256 and its size.
//!
//! Two choices where the standard leaves room: a federated token issued is an Authentication (3002, Logon), as there is no
//! activity for it; and an event whose class requires what the event does not say (a process without an id) becomes a
//! Base Event (0), never an object with invented values. Where a class requires an endpoint and the source tells no
//! address, the endpoint is the product that reported (`svc_name`).
//!
//! Source: OCSF schema 1.8.0, <https://schema.ocsf.io/1.8.0/>.

mod class;
mod finding;
mod object;
mod resource;
mod runtime;
mod severity;
mod taken;

use serde_json::Value;
use sha2::{Digest, Sha256};

pub use class::{Activity, Class};

use self::object::Object;
use self::taken::Taken;
use crate::event::Event;
use crate::fields::Field;
use crate::source::SourceType;
use crate::time::Timestamp;

/// Version of the schema that is written, as in `metadata.version`.
pub const VERSION: &str = "1.8.0";

/// The class and activity of an event, before its required attributes are looked for.
#[must_use]
pub fn classify(event: &Event) -> (Class, Activity) {
    class::of(event)
}

/// An event as an OCSF object.
#[must_use]
pub fn object(event: &Event) -> Value {
    let (class, activity) = class::of(event);
    let taken = Taken::new(&event.fields);
    if let Some(body) = body(class, event, &taken) {
        return finish(event, class, &activity, body, &taken);
    }
    // What was read for a class that cannot be filled is read by nobody.
    let taken = Taken::new(&event.fields);
    let mut base = Object::default();
    status(&mut base, &taken);
    let activity = Activity::other(action(event));
    finish(event, Class::BASE, &activity, base, &taken)
}

/// What the class has of its own. `None` if the event does not say what the class requires.
fn body(class: Class, event: &Event, taken: &Taken<'_>) -> Option<Object> {
    let mut body = Object::default();
    match class {
        Class::API => {
            body.set("actor", resource::actor(event, taken));
            body.set("api", resource::api(event, taken));
            body.set("src_endpoint", resource::source(event, taken));
            body.list("resources", resource::all(taken));
            body.set("http_request", resource::client(taken));
        }
        Class::AUTHENTICATION => {
            body.set("user", resource::user(taken)?);
            resource::authentication(&mut body, event, taken);
        }
        Class::ACCOUNT => {
            // Whose account it is, else who acted on it.
            let name = taken.text(Field::ConfigId).or_else(|| taken.text(Field::ActorId))?;
            body.set("user", Object::default().with("name", name));
            acted(&mut body, event, taken);
        }
        Class::ENTITY => {
            body.set("entity", resource::entity(event, taken));
            acted(&mut body, event, taken);
        }
        Class::GROUP => {
            body.set("group", Object::default().with("name", taken.text(Field::ConfigId)?));
            acted(&mut body, event, taken);
        }
        Class::LIFECYCLE => {
            body.set("app", resource::application(event, taken));
            body.set("actor", resource::actor_if_known(taken));
            body.set("device", resource::runner(taken));
        }
        Class::SCAN => {
            body.set("scan", finding::scan(event, taken));
            body.set("num_detections", taken.int(Field::ScanFindings));
        }
        Class::DETECTION => finding::detection(&mut body, event, taken),
        Class::VULNERABILITY => finding::vulnerability(&mut body, event, taken)?,
        Class::COMPLIANCE => finding::compliance(&mut body, event, taken),
        Class::POSTURE => finding::posture(&mut body, event, taken),
        Class::PROCESS | Class::FILE => runtime::on_host(&mut body, class, event, taken)?,
        Class::NETWORK | Class::DNS => runtime::network(&mut body, class, taken)?,
        _ => {}
    }
    if !class.is_finding() {
        status(&mut body, taken);
    }
    if matches!(class, Class::API | Class::COMPLIANCE) {
        decision(&mut body, taken);
    }
    Some(body)
}

fn acted(body: &mut Object, event: &Event, taken: &Taken<'_>) {
    body.set("actor", resource::actor(event, taken));
    if let Some(ip) = resource::address(taken) {
        body.set("src_endpoint", ip);
    }
}

fn status(body: &mut Object, taken: &Taken<'_>) {
    let (id, caption) = match taken.text(Field::Outcome) {
        Some("success") => (1, "Success"),
        Some("failure") => (2, "Failure"),
        _ => (0, "Unknown"),
    };
    body.set("status_id", id);
    body.set("status", caption);
    body.set("status_detail", taken.text(Field::Reason));
}

/// What an admission control decided, by the security control profile.
fn decision(body: &mut Object, taken: &Taken<'_>) {
    let (action, disposition) = match taken.text(Field::K8sDecision) {
        Some("allow") => ((1, "Allowed"), (1, "Allowed")),
        Some("deny") => ((2, "Denied"), (2, "Blocked")),
        _ => return,
    };
    body.set("action_id", action.0);
    body.set("action", action.1);
    body.set("disposition_id", disposition.0);
    body.set("disposition", disposition.1);
}

fn action(event: &Event) -> &str {
    event.fields.get_text(Field::Action).unwrap_or("event")
}

/// Milliseconds since 1970, what OCSF calls a timestamp.
fn millis(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(1_000)
}

fn finish(event: &Event, class: Class, activity: &Activity, body: Object, taken: &Taken<'_>) -> Value {
    let mut out = Object::default();
    out.set("category_uid", class.category_uid());
    out.set("category_name", class.category);
    out.set("class_uid", class.uid);
    out.set("class_name", class.name);
    out.set("activity_id", activity.id);
    out.set("activity_name", activity.name.as_ref());
    out.set("type_uid", u32::from(class.uid) * 100 + u32::from(activity.id));
    out.set("type_name", format!("{}: {}", class.name, activity.name));
    out.set("time", millis(event.time));
    let severity = severity::of(taken);
    out.set("severity_id", severity.0);
    out.set("severity", severity.1);
    let message = taken.text(Field::Message).map(str::trim).filter(|message| !message.is_empty());
    out.set("message", message.unwrap_or_else(|| action(event)));
    out.set("raw_data_size", event.native.len());
    let hash = Object::default()
        .with("algorithm_id", 3)
        .with("algorithm", "SHA-256")
        .with("value", hex::encode(Sha256::digest(&event.native)));
    out.set("raw_data_hash", hash);
    out.extend(body);
    let cloud = resource::cloud(taken);
    let mut profiles = Vec::new();
    if cloud.is_some() {
        profiles.push("cloud");
    }
    // `actor` is the class's own in most classes, and of the host profile in the others.
    if class.takes_host() && (out.has("device") || out.has("actor")) {
        profiles.push("host");
    }
    if out.has("action_id") {
        profiles.push("security_control");
    }
    out.set("cloud", cloud);
    out.set("metadata", metadata(event, taken, &profiles));
    let rest = taken.rest();
    if !rest.is_empty() {
        out.set("unmapped", Value::Object(rest));
    }
    out.into_value()
}

fn metadata(event: &Event, taken: &Taken<'_>, profiles: &[&str]) -> Object {
    let product = event.source_type.info().native.map_or("pipeproof", |(product, _)| product);
    let product = Object::default()
        .with("name", taken.text(Field::ScanTool).unwrap_or(product))
        .with("vendor_name", vendor(event.source_type));
    let mut metadata = Object::default()
        .with("version", VERSION)
        .with("product", product)
        .with("uid", event.id.to_string())
        .with("original_event_uid", event.item.strip_prefix("id:"))
        .with("event_code", taken.text(Field::Action))
        .with("correlation_uid", taken.text(Field::CiRunId))
        .with("log_name", event.source.as_ref())
        .with("log_provider", event.source_type.name())
        .with("logged_time", millis(event.received));
    if !profiles.is_empty() {
        metadata.set("profiles", profiles.to_vec());
    }
    metadata
}

/// Who makes the product that reported.
const fn vendor(kind: SourceType) -> &'static str {
    match kind {
        SourceType::GithubWebhook | SourceType::GithubJoblog | SourceType::GithubAudit => "GitHub",
        SourceType::GitlabWebhook | SourceType::GitlabAudit | SourceType::GitlabJoblog => "GitLab",
        SourceType::Jenkins | SourceType::JenkinsJoblog => "Jenkins",
        SourceType::CircleciWebhook | SourceType::CircleciAudit => "CircleCI",
        SourceType::Buildkite | SourceType::BuildkiteJoblog => "Buildkite",
        SourceType::VaultAudit => "HashiCorp",
        SourceType::AwsCloudtrail => "AWS",
        SourceType::GcpAudit => "Google",
        SourceType::AzureSignin | SourceType::AzureActivity | SourceType::AzureKeyvault => "Microsoft",
        SourceType::Okta => "Okta",
        SourceType::HardenRunner => "StepSecurity",
        SourceType::Trivy | SourceType::Tracee => "Aqua Security",
        SourceType::Grype => "Anchore",
        SourceType::SigstoreBundle | SourceType::RekorEntry => "Sigstore",
        SourceType::Gitleaks => "gitleaks",
        SourceType::KubernetesAudit
        | SourceType::KubernetesEvent
        | SourceType::KubernetesAdmission
        | SourceType::KyvernoReport
        | SourceType::OpaDecision
        | SourceType::GatekeeperAudit
        | SourceType::Argocd
        | SourceType::Flux
        | SourceType::Falco
        | SourceType::Tetragon => "CNCF",
        SourceType::Cdevents
        | SourceType::Cloudevents
        | SourceType::Otlp
        | SourceType::IntotoStatement
        | SourceType::SbomCyclonedx
        | SourceType::SbomSpdx
        | SourceType::Sarif
        | SourceType::Json
        | SourceType::ProviderLedger
        | SourceType::Pipeproof => "pipeproof",
    }
}
