//! What identifies an item: the source's own id where it has one, so that the same item delivered again is recognised,
//! and what headers and query say about it.

use std::collections::BTreeMap;

use engine::source::SourceType;
use hmac::{Hmac, Mac};
use http::HeaderMap;
use pipeproof_engine as engine;
use sha2::Sha256;

use super::Request;
use crate::limits::Limits;
use crate::skim;
use crate::unwrap::{cloudevents, numbered};

/// Attribute: number of a job log's chunk, from 0.
pub(crate) const CHUNK: &str = "joblog.chunk";
/// Attribute: how many chunks a job's log was cut into, where it is more than one.
pub(crate) const CHUNKS: &str = "joblog.chunks";
/// Headers kept as attributes. No other header is kept: they carry credentials.
const HEADERS: &[&str] = &[
    "x-github-event",
    "x-github-delivery",
    "x-github-hook-id",
    "x-github-hook-installation-target-id",
    "x-github-hook-installation-target-type",
    "x-gitlab-event",
    "x-gitlab-event-uuid",
    "x-gitlab-instance",
    "x-gitlab-audit-event-type",
    "x-buildkite-event",
    "circleci-event-type",
    "ce-id",
    "ce-source",
    "ce-type",
];
/// Query parameters kept as attributes `joblog.NAME` of a job log.
const JOB_PARAMETERS: &[&str] = &["repo", "run_id", "job_id", "attempt", "name", "workflow", "ref", "sha"];
/// Longest id taken over from a source; a longer one is hashed.
const ID_BYTES_MAX: usize = 256;

/// What travels with every record of a request.
pub(super) fn attributes(request: &Request<'_>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in &request.source.labels {
        found.insert(format!("label.{name}"), value.clone());
    }
    for name in HEADERS {
        if let Some(value) = header(request.headers, name) {
            found.insert((*name).to_owned(), value.to_owned());
        }
    }
    // An event that is put back together says it itself.
    if !cloudevents::is_event(request.source.source_type) {
        let numbered = numbered::cloudevent_headers(request.headers).into_iter().flatten();
        found.extend(numbered.map(|(name, value)| (name.to_owned(), value)));
    }
    if request.source.source_type.info().free_text {
        for name in JOB_PARAMETERS {
            if let Some(value) = request.query.get(*name).filter(|value| !value.is_empty()) {
                found.insert(format!("joblog.{name}"), value.clone());
            }
        }
    }
    found
}

/// Cuts what is too long. Only after redaction: half a secret is not recognised, but is half a secret.
pub(super) fn shorten(attributes: &mut BTreeMap<String, String>, bytes_max: usize) {
    for value in attributes.values_mut() {
        value.truncate(value.floor_char_boundary(bytes_max));
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|value| !value.is_empty())
}

/// The job a log belongs to, from its attributes.
pub(super) fn job(attributes: &BTreeMap<String, String>) -> Option<String> {
    let part = |name: &str| attributes.get(&format!("joblog.{name}")).map(String::as_str);
    let (repo, run, job) = (part("repo")?, part("run_id")?, part("job_id")?);
    Some(format!("{repo}/{run}/{job}/{}", part("attempt").unwrap_or("1")))
}

/// The source's own id of an item; `number` when it is one of several in its request.
pub(super) fn item(request: &Request<'_>, item: &[u8], number: Option<usize>, limits: &Limits) -> Option<String> {
    let text = |path: &[&str]| skim::text_at(item, path).filter(|text| !text.is_empty());
    let numbered = |id: &str| number.map_or_else(|| id.to_owned(), |number| format!("{id}/{number}"));
    let id = match request.source.source_type {
        // One delivery is one event, and keeps its id when it is sent again.
        SourceType::GithubWebhook if number.is_none() => {
            header(request.headers, "x-github-delivery").map(ToOwned::to_owned)
        }
        // Older exports have no id.
        SourceType::GithubAudit => text(&["_document_id"]),
        // Both are the same when GitLab sends again.
        SourceType::GitlabWebhook if number.is_none() => {
            let named = header(request.headers, "idempotency-key").or_else(|| header(request.headers, "webhook-id"));
            named.map(ToOwned::to_owned)
        }
        // Events that are only streamed have the second they were made in as their id: not one of a kind.
        SourceType::GitlabAudit => text(&["id"]).and_then(|id| {
            let time = text(&["created_at"])?;
            Some(format!("{id}/{time}/{}", text(&["event_type"]).unwrap_or_default()))
        }),
        SourceType::CircleciWebhook | SourceType::CircleciAudit => text(&["id"]),
        SourceType::Buildkite => text(&["uuid"]).or_else(|| buildkite(item)),
        SourceType::Cdevents => cdevent(item),
        SourceType::AwsCloudtrail => text(&["eventID"]),
        SourceType::GcpAudit => log_entry(item),
        SourceType::AzureSignin | SourceType::AzureActivity | SourceType::AzureKeyvault => azure(item),
        // Who watches sees an object again when it counts once more.
        SourceType::KubernetesEvent | SourceType::KyvernoReport => {
            // A watch wraps the object.
            let object = skim::at(item, &["object"]).unwrap_or(item);
            let meta = |key: &str| skim::text_at(object, &["metadata", key]).filter(|text| !text.is_empty());
            meta("uid").zip(meta("resourceVersion")).map(|(uid, version)| format!("{uid}/{version}"))
        }
        SourceType::KubernetesAdmission => {
            // What a webhook is asked, and the same with its answer.
            let answered = skim::at(item, &["response"]).is_some_and(|response| response.first() == Some(&b'{'));
            text(&["request", "uid"]).map(|uid| if answered { format!("{uid}/response") } else { uid })
        }
        SourceType::OpaDecision => text(&["decision_id"]),
        SourceType::Falco => text(&["uuid"]),
        SourceType::Okta => text(&["uuid"]).or_else(|| text(&["eventId"])),
        SourceType::Cloudevents => Some(format!("{}/{}", text(&["source"])?, text(&["id"])?)),
        // One audit run of Gatekeeper may find several violations by one resource of one constraint; the others have no
        // ids at all. Their bytes, times included, identify them.
        SourceType::GatekeeperAudit
        | SourceType::Argocd
        | SourceType::Flux
        | SourceType::Tetragon
        | SourceType::Tracee
        | SourceType::HardenRunner
        | SourceType::Otlp => None,
        // One request is reported at several stages.
        SourceType::KubernetesAudit => {
            let id = text(&["auditID"]).map(|id| format!("{id}/{}", text(&["stage"]).unwrap_or_default()));
            // GKE wraps audit events in log entries.
            id.or_else(|| log_entry(item))
        }
        // Request and response share an id. With several audit devices the copies are duplicates, by design of Vault.
        SourceType::VaultAudit => text(&["request", "id"]).and_then(|id| Some(format!("{id}/{}", text(&["type"])?))),
        SourceType::Json => header(request.headers, "idempotency-key").map(numbered).or_else(|| {
            // A CloudEvent is identified by source and id together.
            text(&["specversion"])?;
            Some(format!("{}/{}", text(&["source"])?, text(&["id"])?))
        }),
        // A bundle is not verified here: by its log index anybody could shadow a true one. Its bytes identify it.
        SourceType::SigstoreBundle | SourceType::GithubWebhook | SourceType::GithubJoblog | SourceType::Pipeproof => {
            None
        }
        // The same holds for all that an artifact carries along; a report is what it says.
        SourceType::RekorEntry
        | SourceType::IntotoStatement
        | SourceType::SbomCyclonedx
        | SourceType::SbomSpdx
        | SourceType::Trivy
        | SourceType::Grype
        | SourceType::Sarif
        | SourceType::Gitleaks
        | SourceType::GitlabWebhook
        | SourceType::GitlabJoblog
        | SourceType::JenkinsJoblog
        | SourceType::BuildkiteJoblog => None,
        SourceType::ProviderLedger => {
            let parts = [text(&["provider"])?, text(&["kind"])?, text(&["scope"])?, text(&["id"])?];
            Some(parts.join("/"))
        }
        // One delivery carries one event; lines of a log have no id.
        SourceType::Jenkins => header(request.headers, "ce-id").map(numbered),
    };
    id.filter(|id| id.len() <= ID_BYTES_MAX.max(limits.attribute_bytes_max))
}

/// The id of a Google Cloud log entry: what is inserted is unique only within one log and instant.
fn log_entry(item: &[u8]) -> Option<String> {
    let text = |key: &str| skim::text_at(item, &[key]).filter(|text| !text.is_empty());
    Some(format!("{}/{}/{}", text("logName")?, text("timestamp")?, text("insertId")?))
}

/// The id of an Azure log entry. `properties.id` is that of a sign-in or of a change of the directory, and elsewhere of what the entry is
/// about: a secret of Key Vault, a person at risk, whatever a policy looked at, which the next entry is about as well.
fn azure(item: &[u8]) -> Option<String> {
    let at = |path: &[&str]| path.iter().try_fold(item, |value, key| loose_member(value, key));
    let text = |path: &[&str]| match at(path)? {
        [b'"', inner @ .., b'"'] if !inner.is_empty() => String::from_utf8(skim::unescape(inner).into_owned()).ok(),
        // Results are numbers in one service and text in the next.
        number @ [b'-' | b'0'..=b'9', ..] => String::from_utf8(number.to_vec()).ok(),
        _ => None,
    };
    // A row of Log Analytics names its table; its category may be a part of the directory.
    let kind = text(&["type"]).or_else(|| text(&["category"])).or_else(|| text(&["category", "value"]));
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let time = || ["time", "timegenerated", "activitydatetime"].iter().find_map(|key| text(&[key]));
    let own = text(&["properties", "id"]).or_else(|| text(&["id"]));
    if kind.contains("risk") {
        // One person or detection, told of again whenever it changes.
        return Some(format!("{}/{}", own?, time()?));
    }
    let of_directory =
        kind.is_empty() || kind.contains("signin") || kind == "auditlogs" || text(&["activitydisplayname"]).is_some();
    let own = text(&["eventdataid"]).or_else(|| own.filter(|id| of_directory && !id.contains("://")));
    own.or_else(|| {
        // A call of several resources has one correlation id, and its start and its end may have the same time.
        let call = [text(&["correlationid"])?, text(&["operationname"])?, time()?];
        let about = [&["resourceid"][..], &["resulttype"]].into_iter().filter_map(text);
        Some(call.into_iter().chain(about).collect::<Vec<_>>().join("/"))
    })
}

/// The member whose key is `key` whatever its case, and with or without underscores.
fn loose_member<'a>(object: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let plain = |written: &[u8]| -> Vec<u8> {
        written.iter().filter(|byte| **byte != b'_').map(u8::to_ascii_lowercase).collect()
    };
    let found = skim::members(object).filter(|(written, _)| plain(written) == key.as_bytes()).last()?;
    object.get(found.1)
}

/// A delivery of Buildkite has no id: what happened to which build or job is one, and its times tell a second run of it.
/// A build that waits for somebody ends once for each step it waits at (`blocked: true`; Buildkite "Build webhook events"),
/// and nothing says that the times are others each time: only the bytes tell these.
fn buildkite(item: &[u8]) -> Option<String> {
    let text = |path: &[&str]| skim::text_at(item, path).filter(|text| !text.is_empty());
    let event = text(&["event"])?;
    let (what, _) = event.split_once('.').filter(|(what, _)| matches!(*what, "build" | "job"))?;
    let id = text(&[what, "id"])?;
    let blocked = skim::at(item, &[what, "blocked"]).is_some_and(|blocked| blocked == b"true");
    if blocked || event.ends_with(".blocked") || text(&[what, "state"]).as_deref() == Some("blocked") {
        return None;
    }
    let part = |key: &str| text(&[what, key]).unwrap_or_default();
    Some(format!("{event}/{id}/{}/{}/{}", part("state"), part("started_at"), part("finished_at")))
}

/// A CDEvent is identified by source and id together, alone or inside a structured CloudEvent.
fn cdevent(item: &[u8]) -> Option<String> {
    let of =
        |key: &str| skim::text_at(item, &["context", key]).or_else(|| skim::text_at(item, &["data", "context", key]));
    Some(format!("{}/{}", of("source")?, of("id")?))
}

/// The keyed hash that identifies an item without an id: the same bytes give the same hash, and nobody can guess
/// redacted bytes from it without the key.
pub(super) fn hash(key: &[u8; 32], item: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    format!("hash:{}", hex::encode(mac.chain_update(item).finalize().into_bytes()))
}
