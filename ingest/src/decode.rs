//! From a record to events: one pure decoder per source type.
//!
//! A decoder reads no clock and keeps no state, so the same record gives the same events whenever it is read. The first
//! event of a record is the source item itself, with its native JSON; further ones are *derived* from it (a container
//! of an admitted pod, an action a job resolved, a leaked secret) and carry a small native object of their own, so that
//! rules on native fields count each source item once.
//!
//! What it is not: a place for judgement. Decoders say what happened in the words of [`Field`]; rules say what it means.

mod argocd;
mod armour;
mod aws_cloudtrail;
mod aws_guards;
mod azure;
mod azure_activity;
mod azure_keyvault;
mod azure_signin;
mod buildkite;
mod cdevents;
mod circleci_audit;
mod circleci_webhook;
mod claims;
mod cloudevents;
mod console_log;
mod falco;
mod flux;
mod fulcio;
mod gatekeeper_audit;
mod gcp_audit;
mod gcp_calls;
mod git_remote;
mod github_alerts;
mod github_audit;
mod github_config;
mod github_joblog;
mod github_ref;
mod github_times;
mod github_webhook;
mod gitlab_audit;
mod gitlab_joblog;
mod gitlab_system;
mod gitlab_webhook;
mod gitleaks;
mod gke_audit;
mod grype;
mod harden_runner;
mod images;
mod intoto_statement;
mod jenkins;
mod jenkins_line;
mod json;
mod kubernetes_admission;
mod kubernetes_audit;
mod kubernetes_event;
mod kubernetes_objects;
mod kyverno_report;
mod loose;
mod native;
mod okta;
mod opa_decision;
mod otlp;
mod pipeproof;
mod provider_ledger;
mod purl;
mod rekor_entry;
mod sarif;
mod sbom_cyclonedx;
mod sbom_spdx;
mod scan;
mod sigstore_bundle;
mod statement;
mod subject;
mod tetragon;
mod tracee;
mod trivy;
mod vault_audit;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use bytes::Bytes;
use engine::event::{Event, EventId};
use engine::fields::{CompactString, Field, Fields};
use engine::json::{JsonError, Parsed, Value};
use engine::record::{Position, Record, Redacted};
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use crate::receive::oversize;
use crate::redact::Family;
use crate::unwrap::UNREAD;

/// Deepest nesting of JSON that is decoded.
const DEPTH_MAX: usize = 64;
/// Most events of one record: what is beyond is in the record, but not an event, and counted by `events.left_out`.
const DERIVED_MAX: usize = 500;

/// Why a record is a dead letter.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    /// It is not JSON, or beyond a limit.
    #[error("cannot read the body as JSON: {0}")]
    Json(#[from] JsonError),
    /// It is JSON of another shape.
    #[error("not {expected}: {problem}")]
    Shape {
        /// What it should be.
        expected: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// It is a table with other columns, or a row that does not fit them.
    #[error(
        "not {expected}: a CSV export has the columns `action` and `occurred_at`, and every row as many as its head; this has {columns}"
    )]
    Columns {
        /// What it should be.
        expected: &'static str,
        /// What its first line has.
        columns: String,
    },
    /// It was larger than a record may be, and cut.
    #[error("the item has {0} bytes, more than a record holds: only its beginning was kept, see it at its source")]
    Truncated(String),
    /// It could not be taken apart when it came.
    #[error("the body could not be taken apart ({0})")]
    Unread(String),
    /// It is not text.
    #[error("the body is not UTF-8 text")]
    Text,
}

/// An event in the making.
#[derive(Clone, Debug, Default)]
struct Draft {
    fields: Fields,
    /// By the source's clock.
    time: Option<Timestamp>,
    /// Its own native object; the record's body if there is none.
    native: Option<Bytes>,
}

impl Draft {
    fn new(action: impl Into<CompactString>, category: &str) -> Self {
        let mut draft = Self::default();
        draft.fields.text(Field::Action, Some(action));
        draft.fields.text(Field::Category, Some(category));
        draft
    }

    /// An event derived from this one: the same time and the fields named, its own action.
    fn derive(&self, kept: &[Field], action: &str, category: &str) -> Self {
        let mut draft = Self::new(action, category);
        draft.time = self.time;
        for (field, value) in self.fields.iter().filter(|(field, _)| kept.contains(field)) {
            draft.fields.set(field, value.clone());
        }
        draft
    }
}

/// Fields that say who did it, where, and for which run: derived events share them.
const ORIGIN: &[Field] = &[
    Field::Outcome,
    Field::ActorId,
    Field::ActorType,
    Field::SrcIp,
    Field::UserAgent,
    Field::CiProvider,
    Field::CiRepo,
    Field::CiRunId,
    Field::CiJobId,
    Field::CiAttempt,
    Field::CiRef,
    Field::CiSha,
    Field::CiWorkflow,
    Field::CiWorkflowRef,
    Field::CiEnvironment,
    Field::RunnerName,
    Field::RunnerKind,
    Field::SecretStore,
    Field::K8sCluster,
    Field::K8sNamespace,
    Field::K8sKind,
    Field::K8sName,
    Field::K8sVerb,
    Field::K8sGroup,
    Field::K8sUser,
    Field::CloudProvider,
    Field::CloudAccount,
    Field::CloudRegion,
    Field::Environment,
];

/// The repository that the address of a Git remote names.
pub(crate) fn remote(address: &str) -> Option<String> {
    git_remote::repo(address)
}

/// Decodes a record. Ticks of the program's own clock give no event.
///
/// # Errors
/// [`Undecodable`] says why the record is a dead letter.
pub fn decode(position: Position, record: &Record) -> Result<Vec<Event>, Undecodable> {
    if let Some(code) = record.envelope.attributes.get(UNREAD) {
        return Err(Undecodable::Unread(code.clone()));
    }
    if let Some(bytes) = record.envelope.attributes.get(oversize::BYTES) {
        return Err(Undecodable::Truncated(bytes.clone()));
    }
    let mut drafts = match record.envelope.source_type {
        SourceType::GithubWebhook => github_webhook::decode(record)?,
        SourceType::GithubJoblog => github_joblog::decode(record)?,
        SourceType::GithubAudit => github_audit::decode(record)?,
        SourceType::GitlabWebhook => gitlab_webhook::decode(record)?,
        SourceType::GitlabAudit => gitlab_audit::decode(record)?,
        SourceType::GitlabJoblog => gitlab_joblog::decode(record)?,
        SourceType::Jenkins => jenkins::decode(record)?,
        SourceType::CircleciWebhook => circleci_webhook::decode(record)?,
        SourceType::CircleciAudit => circleci_audit::decode(record)?,
        SourceType::Buildkite => buildkite::decode(record)?,
        SourceType::Cdevents => cdevents::decode(record)?,
        SourceType::VaultAudit => vault_audit::decode(record)?,
        SourceType::KubernetesAudit => kubernetes_audit::decode(record)?,
        SourceType::AwsCloudtrail => aws_cloudtrail::decode(record)?,
        SourceType::GcpAudit => gcp_audit::decode(record)?,
        SourceType::AzureSignin | SourceType::AzureActivity | SourceType::AzureKeyvault => azure::decode(record)?,
        SourceType::KubernetesEvent => kubernetes_event::decode(record)?,
        SourceType::KubernetesAdmission => kubernetes_admission::decode(record)?,
        SourceType::KyvernoReport => kyverno_report::decode(record)?,
        SourceType::OpaDecision => opa_decision::decode(record)?,
        SourceType::GatekeeperAudit => gatekeeper_audit::decode(record)?,
        SourceType::Argocd => argocd::decode(record)?,
        SourceType::Flux => flux::decode(record)?,
        SourceType::Falco => falco::decode(record)?,
        SourceType::Tetragon => tetragon::decode(record)?,
        SourceType::Tracee => tracee::decode(record)?,
        SourceType::HardenRunner => harden_runner::decode(record)?,
        SourceType::Okta => okta::decode(record)?,
        SourceType::Cloudevents => cloudevents::decode(record)?,
        SourceType::Otlp => otlp::decode(record)?,
        SourceType::SigstoreBundle => sigstore_bundle::decode(record)?,
        SourceType::RekorEntry => rekor_entry::decode(record)?,
        SourceType::IntotoStatement => intoto_statement::decode(record)?,
        SourceType::SbomCyclonedx => sbom_cyclonedx::decode(record)?,
        SourceType::SbomSpdx => sbom_spdx::decode(record)?,
        SourceType::Trivy => trivy::decode(record)?,
        SourceType::Grype => grype::decode(record)?,
        SourceType::Sarif => sarif::decode(record)?,
        SourceType::Gitleaks => gitleaks::decode(record)?,
        SourceType::JenkinsJoblog | SourceType::BuildkiteJoblog => console_log::decode(record)?,
        SourceType::ProviderLedger => provider_ledger::decode(record)?,
        SourceType::Json => json::decode(record)?,
        SourceType::Pipeproof => pipeproof::decode(record)?,
    };
    let left_out = drafts.len().saturating_sub(DERIVED_MAX);
    drafts.truncate(DERIVED_MAX);
    leave_out(&mut drafts, left_out);
    leaks(record, &mut drafts);
    Ok(finish(position, record, 0, drafts))
}

/// The secrets that were replaced in a record that cannot be decoded, as events; number 0 is left to the record itself.
pub(crate) fn leaks_of(position: Position, record: &Record) -> Vec<Event> {
    let mut drafts = Vec::new();
    leaks(record, &mut drafts);
    finish(position, record, 1, drafts)
}

/// Says on a record's own event how much of it has none.
fn leave_out(drafts: &mut [Draft], left_out: usize) {
    let Some(first) = drafts.first_mut().filter(|_| left_out > 0) else { return };
    let before = match first.fields.get(Field::EventsLeftOut) {
        Some(engine::fields::Value::Int(before)) => *before,
        _ => 0,
    };
    first.fields.int(Field::EventsLeftOut, i64::try_from(left_out).ok().map(|more| before.saturating_add(more)));
}

/// Keeps as many things a record lists as there is room for beside its own event, and tells how many have none. What ranks lowest is
/// kept; where all have room the order stays.
fn keep_those_with_room<T, K: Ord>(listed: &mut Vec<T>, rank: impl FnMut(&T) -> K) -> usize {
    let room = DERIVED_MAX - 1;
    let left_out = listed.len().saturating_sub(room);
    if left_out > 0 {
        listed.sort_by_key(rank);
        listed.truncate(room);
    }
    left_out
}

/// Every secret that was replaced is an event, whatever carried it, but for two kinds: what a scanner reports is that event
/// already, and some records hold a credential because they are about it ([`Family::is_expected`]).
fn leaks(record: &Record, drafts: &mut Vec<Draft>) {
    let kind = record.envelope.source_type;
    let told: Vec<&str> = drafts.iter().filter_map(|draft| draft.fields.get_text(Field::LeakFingerprint)).collect();
    let new = |redacted: &&Redacted| {
        !Family::is_expected(&redacted.family, kind) && !told.contains(&redacted.fingerprint.as_str())
    };
    let redacted: Vec<&Redacted> = record.envelope.redacted.iter().filter(new).collect();
    // A report without findings gives no event of its own, and may hold a secret all the same.
    let alone = drafts.is_empty();
    let origin = drafts.first().cloned().unwrap_or_default();
    for redacted in redacted {
        let mut leak = origin.derive(ORIGIN, "leak.detected", "leak");
        leak.fields.text(Field::LeakType, Some(redacted.family.as_str()));
        leak.fields.text(Field::LeakFingerprint, Some(redacted.fingerprint.as_str()));
        leak.fields.int(Field::LeakCount, Some(i64::from(redacted.count)));
        leak.native = alone.then(|| native::derived(kind, &leak.fields));
        drafts.push(leak);
    }
}

fn finish(position: Position, record: &Record, first: u32, drafts: Vec<Draft>) -> Vec<Event> {
    let envelope = &record.envelope;
    let (source, item): (Arc<str>, Arc<str>) = (envelope.source.as_str().into(), envelope.item.as_str().into());
    let label = |name: &str| envelope.attributes.get(name).map(String::as_str);
    let (environment, cluster) = (label("label.env"), label("label.cluster"));
    let events = (first..).zip(drafts).map(|(sub, mut draft)| {
        let fields = &mut draft.fields;
        if fields.get(Field::Environment).is_none() {
            // A namespace is often named after its tier; without a label it is the best there is.
            let admitted = fields.get_text(Field::Action) == Some("admission.decided");
            let namespace = fields.get_text(Field::K8sNamespace).filter(|_| admitted).map(tier);
            fields.text(Field::Environment, environment.map(ToOwned::to_owned).or(namespace));
        }
        if fields.get(Field::K8sCluster).is_none() {
            fields.text(Field::K8sCluster, cluster);
        }
        let native = match draft.native {
            Some(native) => native,
            None if sub == 0 => record.body.clone(),
            None => native::derived(envelope.source_type, &draft.fields),
        };
        Event {
            id: EventId { position, sub },
            source: Arc::clone(&source),
            source_type: envelope.source_type,
            item: Arc::clone(&item),
            time: draft.time.unwrap_or(envelope.received),
            time_known: draft.time.is_some(),
            received: envelope.received,
            auth: envelope.auth,
            mode: envelope.mode,
            fields: draft.fields,
            native,
        }
    });
    events.collect()
}

/// Parses the body as a JSON object.
fn object<'r>(record: &'r Record, expected: &'static str) -> Result<Parsed<'r>, Undecodable> {
    let json = Parsed::of(&record.body, DEPTH_MAX, &[])?;
    if json.root().is_object() {
        Ok(json)
    } else {
        Err(Undecodable::Shape { expected, problem: "the body is not a JSON object" })
    }
}

/// The text of a value, if it is text and not empty.
fn said(value: Option<Value<'_>>) -> Option<&str> {
    value.and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The scalar at a path as text: ids are numbers in one message and text in the next.
fn scalar(value: Value<'_>, path: &[&str]) -> Option<String> {
    value.at(path)?.scalar().map(std::borrow::Cow::into_owned)
}

/// The time at a path: RFC 3339 text, or a number since 1970 whose size tells seconds from finer units.
fn time_at(value: Value<'_>, path: &[&str]) -> Option<Timestamp> {
    time_of(value.at(path)?)
}

fn time_of(value: Value<'_>) -> Option<Timestamp> {
    if let Some(text) = value.as_str() {
        return Timestamp::parse(text);
    }
    if let Some(number) = value.as_i64() {
        return Some(match number.unsigned_abs() {
            0..100_000_000_000 => Timestamp::from_secs(number),
            100_000_000_000..100_000_000_000_000 => Timestamp::from_millis(number),
            100_000_000_000_000..100_000_000_000_000_000 => Timestamp::from_micros(number),
            _ => Timestamp::from_micros(number / 1_000),
        });
    }
    // Seconds with a fraction.
    let number = value.as_f64().filter(|number| number.abs() < 1e11)?;
    #[allow(clippy::cast_possible_truncation, reason = "the range was checked")]
    Some(Timestamp::from_micros((number * 1e6) as i64))
}

/// `prod` for what is called production, else the name itself in lower case.
fn tier(environment: &str) -> String {
    let lower = environment.to_lowercase();
    if lower == "production" || lower == "prod" { "prod".to_owned() } else { lower }
}

/// Sets what happened.
fn name(fields: &mut Fields, action: &str, category: &str) {
    fields.text(Field::Action, Some(action));
    fields.text(Field::Category, Some(category));
}

/// `success` or `failure`.
const fn outcome(success: bool) -> &'static str {
    if success { "success" } else { "failure" }
}
