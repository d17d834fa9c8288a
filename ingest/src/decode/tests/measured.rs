//! How much of each source's samples decodes to what the format carries. `PIPEPROOF_SAMPLES_DIR` names a folder with one
//! folder per system, files with one item per line, or text (`.log`); without it nothing is measured, and that is said.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use engine::event::Event;
use engine::fields::Field;
use engine::record::Position;
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::carried;
use super::samples::{receive, receiver};
use crate::skim;

/// Part of what an event should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Time,
    Outcome,
    Actor,
    Join,
}

/// Folder of samples, its source type, members a collection wraps the payload in, and what must be in a file's name where
/// a folder holds several formats. The first row that fits counts. A type that this build does not have is left out.
pub(super) const FOLDERS: &[(&str, &str, &[&str], &str)] = &[
    ("github_webhook", "github.webhook", &["payload"], ""),
    ("github_actions_log", "github.joblog", &[], ""),
    ("github_audit", "github.audit", &[], ""),
    ("gitlab_webhook", "gitlab.webhook", &["payload"], ""),
    ("jenkins", "jenkins", &[], ""),
    ("cdevents", "cdevents", &[], ""),
    ("sigstore_bundle", "sigstore.bundle", &["bundle"], ""),
    ("rekor", "rekor.entry", &[], ""),
    ("slsa_provenance", "intoto.statement", &["doc"], ""),
    ("sbom_cyclonedx", "sbom.cyclonedx", &["doc"], ""),
    ("sbom_spdx", "sbom.spdx", &["doc"], ""),
    ("trivy", "trivy", &["doc"], ""),
    ("grype", "grype", &["doc"], ""),
    ("sarif", "sarif", &["doc"], ""),
    ("gitleaks", "gitleaks", &[], ""),
    ("aws_cloudtrail", "aws.cloudtrail", &[], ""),
    ("gcp_audit", "gcp.audit", &["event", "doc"], ""),
    ("azure_monitor", "azure.activity", &["event", "doc"], ""),
    ("k8s_audit", "kubernetes.audit", &[], ""),
    ("k8s_event", "kubernetes.event", &["event", "doc"], ""),
    ("k8s_admissionreview", "kubernetes.admission", &["event", "doc"], ""),
    ("policy_report", "kyverno.report", &["event", "doc"], ""),
    ("opa_decision", "opa.decision", &["event", "doc"], ""),
    ("gatekeeper", "gatekeeper.audit", &["event", "doc"], ""),
    ("argo", "argocd", &["event", "doc"], ""),
    ("flux", "flux", &["event", "doc"], ""),
    ("falco", "falco", &["event", "doc"], ""),
    ("tetragon", "tetragon", &["event", "doc"], ""),
    ("tracee", "tracee", &["event", "doc"], ""),
    ("okta", "okta", &["event", "doc"], ""),
    ("vault_audit", "vault.audit", &[], ""),
    ("cloudevents", "cloudevents", &[], ""),
];

/// Documents among a folder's samples that are of another source type: what they have at their root says so.
pub(super) fn kind_of(folder_kind: SourceType, body: &[u8]) -> Option<SourceType> {
    let has = |name: &str| skim::member(body, name).is_some();
    let kind = if has("bomFormat") {
        SourceType::SbomCyclonedx
    } else if has("spdxVersion") || has("@graph") {
        SourceType::SbomSpdx
    } else if has("runs") && has("version") {
        SourceType::Sarif
    } else {
        folder_kind
    };
    // Argo CD's own samples are webhooks that Git providers send it.
    if folder_kind == SourceType::Argocd {
        return match () {
            () if has("object_kind") => Some(SourceType::GitlabWebhook),
            () if has("sender") && has("repository") => Some(SourceType::GithubWebhook),
            () => None,
        };
    }
    let scans = matches!(
        folder_kind,
        SourceType::Trivy | SourceType::Grype | SourceType::IntotoStatement | SourceType::SbomCyclonedx
    );
    (scans && kind != folder_kind).then_some(kind)
}

/// Fields any one of which joins an event of this type to others.
fn joins(event: &Event) -> &'static [Field] {
    const RUN: &[Field] = &[Field::CiRunId, Field::CiJobId, Field::CiWorkflow, Field::CiRepo, Field::CiSha];
    const OBJECT: &[Field] = &[Field::CiRepo, Field::ConfigId, Field::TokenId, Field::CiRunId, Field::RunnerName];
    const ARTIFACT: &[Field] = &[
        Field::ArtifactDigest,
        Field::ArtifactName,
        Field::CiRepo,
        Field::CiSha,
        Field::SignatureIdentity,
        Field::K8sName,
    ];
    const CLUSTER: &[Field] = &[
        Field::K8sKind,
        Field::K8sName,
        Field::K8sNamespace,
        Field::K8sCluster,
        Field::ArtifactDigest,
        Field::ConfigId,
        Field::CiSha,
    ];
    if let Some(fields) = carried::joins(event.source_type) {
        return fields;
    }
    match event.source_type.name() {
        "cdevents" => &[
            Field::CiRunId,
            Field::CiJobId,
            Field::CiRepo,
            Field::ConfigId,
            Field::ArtifactName,
            Field::CiRef,
            Field::CiEnvironment,
        ],
        "jenkins" | "circleci.webhook" | "buildkite" | "github.joblog" | "gitlab.joblog" | "jenkins.joblog"
        | "buildkite.joblog" | "provider.ledger" => RUN,
        name if name.starts_with("github.") || name.starts_with("gitlab.") || name.starts_with("circleci.") => OBJECT,
        "rekor.entry" | "sigstore.bundle" | "intoto.statement" | "sbom.cyclonedx" | "sbom.spdx" | "trivy" | "grype"
        | "sarif" | "gitleaks" => ARTIFACT,
        "aws.cloudtrail" | "gcp.audit" => &[Field::CloudAccount, Field::TokenId, Field::CloudRole, Field::CloudService],
        _ => CLUSTER,
    }
}

/// Why a format does not carry a part, where it does not. What is not named here is a fault of the decoder.
fn excuse(event: &Event, part: Part, body: &[u8]) -> Option<&'static str> {
    let action = event.fields.get_text(Field::Action).unwrap_or_default();
    let has = |name: &str| skim::member(body, name).is_some();
    let begins =
        [".queued", ".started", ".requested", ".waiting", ".progressed", ".superseded", ".updated", ".dequeued"];
    match (event.source_type, part) {
        (_, Part::Outcome) if begins.iter().any(|end| action.ends_with(end)) => Some("what begins has no outcome yet"),
        (SourceType::GithubWebhook, Part::Outcome) => Some("no outcome where nothing ended: it happened"),
        (SourceType::GithubWebhook, Part::Time) => {
            // What runs, is merged, deployed, released or found has a time; that it was asked for, edited or
            // withdrawn has none.
            const TIMED: &[&str] =
                &["run.", "job.", "change.", "deploy.", "release.", "check.", "git.", "leak.", "artifact."];
            const UNTIMED: &[&str] = &[".dispatched", ".deleted", ".edited", ".reopened", "check.started"];
            let timed =
                TIMED.iter().any(|head| action.starts_with(head)) && !UNTIMED.iter().any(|end| action.ends_with(end));
            (!timed).then_some("the payload has no time of this action")
        }
        (SourceType::GithubWebhook, Part::Actor) if !has("sender") => Some("GitHub itself says so"),
        (SourceType::GithubWebhook, Part::Join) if !has("repository") => Some("about an organisation or app"),
        (SourceType::GitlabWebhook, Part::Time) => match action {
            "git.push" | "git.ref_deleted" => Some("a push has no time"),
            _ if action.ends_with("deleted") || action.ends_with("removed") => {
                Some("what is gone has older times only")
            }
            _ if !has("build_started_at") || action == "job.queued" => Some("the payload has no time of this action"),
            _ => None,
        },
        (SourceType::GitlabWebhook, Part::Actor) if !has("user") && !has("user_name") || has("event_name") => {
            Some("system hooks and releases do not say who did it")
        }
        (SourceType::GitlabWebhook, Part::Join) if action == "user.login" => Some("about a person, who is the actor"),
        (SourceType::GithubJoblog, Part::Actor | Part::Join) => Some("the sender names the job in the request"),
        (SourceType::GithubJoblog, Part::Outcome) => Some("the log does not say how the job ended"),
        (SourceType::SigstoreBundle | SourceType::IntotoStatement, Part::Outcome) => {
            Some("made, and not judged by anybody")
        }
        (SourceType::SbomCyclonedx | SourceType::SbomSpdx, Part::Outcome) => Some("made, and not judged by anybody"),
        (SourceType::Cdevents, Part::Outcome) => Some("`outcome` is optional, and not given"),
        (SourceType::Gitleaks, Part::Outcome) => Some("found is not an outcome"),
        (SourceType::SbomCyclonedx, Part::Time) if !metadata_has(body, "timestamp") => {
            Some("`timestamp` is optional, and not given")
        }
        (SourceType::SbomCyclonedx, Part::Actor)
            if !["tools", "authors", "manufacturer"].iter().any(|key| metadata_has(body, key)) =>
        {
            Some("`tools` and `authors` are optional, and not given")
        }
        (SourceType::SbomCyclonedx, Part::Join) if !metadata_has(body, "component") => {
            Some("`metadata.component` is optional, and not given")
        }
        (SourceType::Sarif, Part::Time) if !text_has(body, b"TimeUtc") => {
            Some("`invocations` are optional, and not given")
        }
        (SourceType::Sarif, Part::Join) if !text_has(body, b"versionControlProvenance") => {
            Some("`versionControlProvenance` is optional, and not given")
        }
        (SourceType::Trivy, Part::Time) if !text_has(body, b"CreatedAt") && !text_has(body, b"imestamp") => {
            Some("a resource without a time")
        }
        (SourceType::Grype, Part::Time) if text_has(body, b"\"timestamp\": \"\"") => Some("an empty timestamp"),
        (SourceType::Grype, Part::Join) => Some("the target is not named"),
        (SourceType::KubernetesAudit, Part::Join) if !has("objectRef") => Some("a request for no resource"),
        (SourceType::RekorEntry, Part::Join) => Some("a proposed entry whose content is cut or referred to"),
        (SourceType::RekorEntry, Part::Time) => Some("a proposed entry has no time, nor has one of Rekor v2"),
        (SourceType::SigstoreBundle, Part::Time | Part::Actor) => Some("signed with a key, or without a time"),
        (SourceType::IntotoStatement, Part::Time) => Some("the predicate has no time, and there is no certificate"),
        (SourceType::IntotoStatement, Part::Actor) => Some("the predicate names nobody"),
        (SourceType::Gitleaks, Part::Time) => Some("a date that is none"),
        _ => carried::excuse(event, part, body),
    }
}

fn metadata_has(body: &[u8], name: &str) -> bool {
    skim::member(body, "metadata").is_some_and(|metadata| skim::member(metadata, name).is_some())
}

pub(super) fn text_has(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

fn has(event: &Event, part: Part) -> bool {
    match part {
        Part::Time => event.time_known,
        Part::Outcome => event.fields.get(Field::Outcome).is_some(),
        Part::Actor => event.fields.get(Field::ActorId).is_some(),
        Part::Join => joins(event).iter().any(|field| event.fields.get(*field).is_some()),
    }
}

#[derive(Default)]
struct Tally {
    items: usize,
    refused: usize,
    decoded: usize,
    /// Decoded, with an action and every part that the format carries.
    whole: usize,
    parts: BTreeMap<Part, usize>,
    missing: BTreeMap<String, usize>,
    dead: BTreeMap<String, usize>,
}

impl Tally {
    fn event(&mut self, event: &Event, body: &[u8]) {
        self.decoded += 1;
        let mut whole = event.fields.get(Field::Action).is_some();
        for part in [Part::Time, Part::Outcome, Part::Actor, Part::Join] {
            if has(event, part) {
                *self.parts.entry(part).or_default() += 1;
                continue;
            }
            let action = event.fields.get_text(Field::Action).unwrap_or("?");
            let reason = excuse(event, part, body).map_or_else(
                || {
                    whole = false;
                    format!("{part:?} of {action}: NOT EXPLAINED")
                },
                |reason| format!("{part:?}: {reason}"),
            );
            *self.missing.entry(reason).or_default() += 1;
        }
        self.whole += usize::from(whole);
    }
}

pub(super) fn payload<'a>(line: &'a [u8], members: &[&str]) -> &'a [u8] {
    members.iter().find_map(|member| skim::member(line, member)).unwrap_or(line)
}

#[test]
fn every_file_of_a_samples_folder() {
    let Some(samples) = std::env::var_os("PIPEPROOF_SAMPLES_DIR") else {
        println!("left out: PIPEPROOF_SAMPLES_DIR names no folder of samples");
        return;
    };
    let receiver = receiver();
    let mut tallies: BTreeMap<SourceType, Tally> = BTreeMap::new();
    let mut left_out = Vec::new();
    let mut folders: Vec<_> = std::fs::read_dir(&samples).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let row = FOLDERS.iter().find(|(folder, ..)| *folder == name);
        let Some((kind, members)) = row.and_then(|(_, kind, members, _)| Some((kind.parse().ok()?, *members))) else {
            left_out.push(name);
            continue;
        };
        measure(&receiver, &folder, kind, members, &mut tallies);
    }
    println!("folders without a source type here: {}", left_out.join(", "));
    let mut bad = Vec::new();
    for (kind, tally) in &tallies {
        let sent = tally.items + tally.refused;
        let dead: usize = tally.dead.values().sum();
        println!(
            "\n{kind}: {sent} items, {} decoded, {dead} dead letters, {} refused; {} with all their format carries; {:?}",
            tally.decoded, tally.refused, tally.whole, tally.parts
        );
        for (reason, count) in tally.dead.iter().chain(&tally.missing) {
            println!("  {count:5} {reason}");
        }
        // What is no item of the source at all is not its decoder's to read.
        if tally.whole * 100 < tally.decoded * 97 {
            bad.push(kind.name());
        }
        assert_eq!(tally.items, tally.decoded + dead, "{kind}: something vanished");
    }
    assert!(bad.is_empty(), "less than 97 % of the items carry what they should: {bad:?}");
}

fn measure(
    receiver: &crate::receive::Receiver,
    folder: &Path,
    kind: SourceType,
    members: &[&str],
    tallies: &mut BTreeMap<SourceType, Tally>,
) {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let bodies: Vec<&[u8]> = if kind.info().free_text {
            vec![&bytes]
        } else {
            bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect()
        };
        for line in bodies {
            let body = payload(line, members);
            let kind = kind_of(kind, body).unwrap_or(kind);
            let event = skim::text_at(line, &["x_github_event"]);
            let tally = tallies.entry(kind).or_default();
            let Ok(records) = receive(receiver, kind, event.as_deref(), Bytes::copy_from_slice(body)) else {
                tally.refused += 1;
                continue;
            };
            for record in records {
                tally.items += 1;
                match super::super::decode(Position::default(), &record) {
                    // What a record derives repeats what the first says; a record may also say nothing.
                    Ok(events) if events.is_empty() => tally.decoded += 1,
                    Ok(events) => tally.event(&events[0], body),
                    Err(error) => *tally.dead.entry(format!("dead letter: {error}")).or_default() += 1,
                }
            }
        }
    }
}
