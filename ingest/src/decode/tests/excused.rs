//! What a format does not carry, told by the item itself: a reason holds only where the member that would carry the part is not
//! there, so that a decoder that loses a part is not excused. [`super::carried`] has those of clusters, clouds and sensors.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use engine::event::Event;
use engine::fields::Field;
use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::Value;

use super::measured::{Part, text_has};
use super::{builds, carried};

/// Fields any one of which joins an event of this type to others.
pub(super) fn joins(event: &Event) -> &'static [Field] {
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
    const ANY: &[Field] = &[
        Field::CiRepo,
        Field::CiRunId,
        Field::CiSha,
        Field::TokenId,
        Field::ArtifactDigest,
        Field::SecretPath,
        Field::ConfigId,
        Field::K8sNamespace,
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
        "jenkins" => &[Field::CiRunId, Field::CiWorkflow, Field::CiRepo, Field::ConfigId, Field::SecretPath],
        "circleci.audit" | "buildkite" => {
            &[Field::CiRepo, Field::CiRunId, Field::ConfigId, Field::SecretPath, Field::TokenId, Field::RunnerName]
        }
        "harden-runner" => &[Field::CiRepo, Field::CiRunId, Field::CiJobId],
        "circleci.webhook" | "github.joblog" | "gitlab.joblog" | "jenkins.joblog" | "buildkite.joblog"
        | "provider.ledger" => RUN,
        name if name.starts_with("github.") || name.starts_with("gitlab.") => OBJECT,
        "rekor.entry" | "sigstore.bundle" | "intoto.statement" | "sbom.cyclonedx" | "sbom.spdx" | "trivy" | "grype"
        | "sarif" | "gitleaks" => ARTIFACT,
        "aws.cloudtrail" | "gcp.audit" => &[Field::CloudAccount, Field::TokenId, Field::CloudRole, Field::CloudService],
        "vault.audit" => &[Field::TokenId, Field::CiRepo, Field::SecretPath],
        "json" | "cloudevents" | "otlp" => ANY,
        _ => CLUSTER,
    }
}

/// What an item is that is of another format than its source's: a collection of samples holds such files, and what they are shows in
/// their own words. It is asked about dead letters only.
pub(super) fn foreign(kind: SourceType, item: &Value) -> Option<&'static str> {
    let has = |name: &str| item.get(name).is_some();
    let any_of = |names: &[&str]| names.iter().any(|name| has(name));
    let members = item.as_object().map_or(0, serde_json::Map::len);
    match kind {
        SourceType::SigstoreBundle if has("critical") => Some("a payload that cosign signs, no bundle"),
        SourceType::SigstoreBundle if any_of(&["layers", "manifests"]) || has("digest") && has("size") => {
            Some("a manifest of a registry, no bundle")
        }
        // Made to be refused, in the collections of those who read them.
        SourceType::SigstoreBundle
            if at(item, "/mediaType").is_some_and(|media| {
                media.contains("vnd.dev.sigstore.bundle")
                    && !["0.1", "0.2", "0.3"].iter().any(|known| media.contains(known))
            }) =>
        {
            Some("a bundle of a version that there is not")
        }
        SourceType::RekorEntry if opened(item, "/canonicalizedBody").is_some_and(|body| body.get("spec").is_none()) => {
            Some("an entry whose body says nothing but its kind")
        }
        SourceType::Sarif
            if item.pointer("/runs/0/results").is_some_and(|results| !results.is_array() && !results.is_null()) =>
        {
            Some("no SARIF: its `results` are no list")
        }
        SourceType::CircleciAudit if item.is_null() => Some("a row of a table that was cut"),
        SourceType::GcpAudit if !has("protoPayload") && any_of(&["textPayload", "jsonPayload"]) => {
            Some("an entry of a log that is no audit log")
        }
        SourceType::IntotoStatement if has("predicate_type") => Some("a certification of GUAC's own"),
        SourceType::IntotoStatement if has("scorecard") => Some("a result of OpenSSF Scorecard"),
        SourceType::IntotoStatement if has("coordinates") => Some("a definition of ClearlyDefined"),
        SourceType::Argocd if has("publisherId") => Some("a webhook of Azure DevOps to Argo CD"),
        SourceType::Argocd if has("eventKey") => Some("a webhook of Bitbucket to Argo CD"),
        SourceType::Argocd if has("action") && has("package") => Some("a webhook of a registry to Argo CD"),
        SourceType::Argocd if members == 1 && has("event") => Some("Argo CD's own example of what is no event"),
        SourceType::Otlp if any_of(&["resourceMetrics", "resourceSpans"]) => Some("metrics or spans, no logs"),
        SourceType::AwsCloudtrail
            if any_of(&[
                "build-id",
                "deploymentId",
                "DeploymentId",
                "execution-id",
                "instance-id",
                "CodePipeline.job",
            ]) =>
        {
            Some("an event of another service: CodeBuild, CodeDeploy, CodePipeline, EC2")
        }
        SourceType::AwsCloudtrail if item.is_object() && members == 0 => Some("a scheduled event, which says nothing"),
        _ => None,
    }
}

/// The text or number at a pointer, if it is not empty.
pub(super) fn at(root: &Value, pointer: &str) -> Option<String> {
    match root.pointer(pointer)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

pub(super) fn any(root: &Value, pointers: &[&str]) -> bool {
    pointers.iter().any(|pointer| at(root, pointer).is_some())
}

/// Whether an object says this name of the taxonomy, dotted or nested.
fn names(root: &Value, name: &str) -> bool {
    let Some(object) = root.as_object() else { return false };
    let scalar = |value: &Value| !matches!(value, Value::Null | Value::Object(_) | Value::Array(_)) && *value != "";
    object.get(name).is_some_and(scalar)
        || name.match_indices('.').any(|(dot, _)| {
            object.get(name.split_at(dot).0).is_some_and(|inner| names(inner, name.split_at(dot + 1).1))
        })
}

/// Whether a part is named as in the taxonomy.
fn names_part(event: &Event, part: Part, root: &Value) -> bool {
    let one = |field: &Field| names(root, field.name());
    match part {
        Part::Time => ["time", "@timestamp", "timestamp", "created_at"].iter().any(|name| names(root, name)),
        Part::Action => one(&Field::Action),
        Part::Outcome => one(&Field::Outcome),
        Part::Actor => one(&Field::ActorId),
        Part::Join => joins(event).iter().any(one),
    }
}

/// The bytes behind Base64 of any kind.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let tries = [STANDARD.decode(text), STANDARD_NO_PAD.decode(text), URL_SAFE.decode(text)];
    tries.into_iter().find_map(Result::ok)
}

/// JSON behind Base64.
fn opened(root: &Value, pointer: &str) -> Option<Value> {
    serde_json::from_slice(&bytes(&at(root, pointer)?)?).ok()
}

/// Whether there is a certificate anywhere in it, plain or in Base64.
fn has_certificate(root: &Value) -> bool {
    match root {
        Value::String(text) => {
            let pem = |text: &[u8]| text_has(text, b"BEGIN CERTIFICATE");
            pem(text.as_bytes()) || bytes(text).is_some_and(|bytes| pem(&bytes))
        }
        Value::Array(items) => items.iter().any(has_certificate),
        Value::Object(members) => members.iter().any(|(name, value)| {
            let raw = ["certificate", "x509Certificate"].contains(&name.as_str()) && at(value, "/rawBytes").is_some();
            let chain = name == "x509CertificateChain" && at(value, "/certificates/0/rawBytes").is_some();
            raw || chain || has_certificate(value)
        }),
        _ => false,
    }
}

/// When a log took an entry in.
fn is_integrated(entry: &Value) -> bool {
    at(entry, "/integratedTime").is_some_and(|time| time != "0")
}

/// Why a format does not carry a part, where it does not. What is not named here is a fault of the decoder.
pub(super) fn excuse(event: &Event, part: Part, body: &[u8]) -> Option<&'static str> {
    let root: Value = serde_json::from_slice(body).unwrap_or_default();
    let action = event.fields.get_text(Field::Action).unwrap_or_default();
    let begins = [".queued", ".started", ".requested", ".waiting", ".progressed", ".superseded", ".dequeued"];
    match (event.source_type, part) {
        (_, Part::Outcome) if begins.iter().any(|end| action.ends_with(end)) => Some("what begins has no outcome yet"),
        (SourceType::GithubWebhook, _) => builds::github_webhook(action, part, &root),
        (SourceType::GitlabWebhook, _) => builds::gitlab_webhook(action, part, &root),
        (
            SourceType::GithubJoblog
            | SourceType::GitlabJoblog
            | SourceType::JenkinsJoblog
            | SourceType::BuildkiteJoblog,
            _,
        ) => builds::job_log(event.source_type, part, &String::from_utf8_lossy(body)),
        (SourceType::Json, _) if !names_part(event, part, &root) => Some("named by nothing of the taxonomy"),
        (SourceType::Cloudevents, _) => cloudevents(event, part, &root),
        (SourceType::Otlp, _) => otlp(event, part, body),
        (
            SourceType::SigstoreBundle
            | SourceType::RekorEntry
            | SourceType::IntotoStatement
            | SourceType::SbomCyclonedx
            | SourceType::SbomSpdx,
            _,
        ) => made(event, part, &root),
        (SourceType::Cdevents, Part::Outcome)
            if !any(&root, &["/subject/content/outcome", "/subject/content/conclusion"]) =>
        {
            Some("`outcome` is optional, and not given")
        }
        (SourceType::Gitleaks, Part::Outcome) => Some("found is not an outcome"),
        (SourceType::Gitleaks, Part::Time)
            if at(&root, "/Date").is_none_or(|date| date.as_bytes().get(10) != Some(&b'T')) =>
        {
            Some("`Date` is empty, or no date")
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
        (SourceType::Grype, Part::Time) if !any(&root, &["/descriptor/timestamp"]) => Some("an empty timestamp"),
        (SourceType::Grype, Part::Join)
            if !any(
                &root,
                &[
                    "/source/target",
                    "/source/target/userInput",
                    "/source/target/manifestDigest",
                    "/source/target/repoDigests/0",
                ],
            ) =>
        {
            Some("the target is not named")
        }
        (SourceType::KubernetesAudit, Part::Join) if root.get("objectRef").is_none() => {
            Some("a request for no resource")
        }
        (SourceType::VaultAudit, Part::Actor | Part::Join)
            if !any(&root, &["/auth/accessor", "/auth/display_name", "/response/auth/accessor"]) =>
        {
            Some("who logs in is nobody yet")
        }
        (SourceType::Jenkins, _) => builds::jenkins(part, &root, &String::from_utf8_lossy(body)),
        (SourceType::Buildkite, _) if any_is(&root, "/event", "ping") => Some("a ping says that it came, and no more"),
        (SourceType::Buildkite, Part::Outcome) if any_is(&root, "/event", "agent.connected") => {
            Some("nothing ended: it happened")
        }
        (SourceType::HardenRunner, Part::Join) if !any(&root, &["/repo", "/correlation_id"]) => {
            Some("an event without the job's names")
        }
        (SourceType::HardenRunner, Part::Outcome) if !any(&root, &["/status"]) => Some("seen, and not judged"),
        (SourceType::HardenRunner, Part::Actor)
            if root
                .as_object()
                .is_some_and(|members| !members.keys().any(|name| name.contains("user") || name.contains("actor"))) =>
        {
            Some("the agent names the job, and nobody")
        }
        (SourceType::Argocd, Part::Outcome | Part::Actor)
            if ["/status/operationState", "/app/status/operationState"]
                .iter()
                .all(|state| root.pointer(state).is_none()) =>
        {
            Some("no operation: a state was reported")
        }
        (SourceType::ProviderLedger, _) => builds::ledger(part, &root),
        (SourceType::VaultAudit, Part::Outcome) if at(&root, "/type").is_some_and(|kind| kind.ends_with("request")) => {
            Some("asked, and not answered yet: the answer is another entry")
        }
        _ => carried::excuse(event, part, body),
    }
}

pub(super) fn any_is(root: &Value, pointer: &str, text: &str) -> bool {
    at(root, pointer).as_deref() == Some(text)
}

/// What the data of a CloudEvent says in words of the taxonomy; time and actor are the envelope's.
fn cloudevents(event: &Event, part: Part, root: &Value) -> Option<&'static str> {
    let data = match root.get("data") {
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        Some(data) => Some(data.clone()),
        None => opened(root, "/data_base64"),
    };
    let says = data.is_some_and(|data| names_part(event, part, &data));
    match part {
        Part::Time if !says && !any(root, &["/time"]) => Some("`time` is optional, and not given"),
        Part::Outcome if !says => Some("there is no attribute for an outcome, and the data has none"),
        Part::Join if !says => Some("the data is of a shop or a test, none of the taxonomy"),
        _ => None,
    }
}

/// Attributes have names in quotation marks, wherever they stand.
fn otlp(event: &Event, part: Part, body: &[u8]) -> Option<&'static str> {
    let says = |name: &str| text_has(body, format!("\"{name}\"").as_bytes());
    match part {
        Part::Time if !says("timeUnixNano") && !says("observedTimeUnixNano") => Some("both times are optional"),
        Part::Outcome if !says("outcome") => Some("no attribute says it"),
        Part::Actor if !["actor.id", "enduser.id", "user.id"].into_iter().any(says) => Some("no attribute says it"),
        Part::Join
            if !joins(event).iter().any(|field| says(field.name()))
                && !["cicd.", "vcs.", "k8s."].iter().any(|head| text_has(body, format!("\"{head}").as_bytes())) =>
        {
            Some("no attribute says it")
        }
        _ => None,
    }
}

/// What was signed, attested or listed: nobody judged it, and its maker is in its certificate or in itself.
fn made(event: &Event, part: Part, root: &Value) -> Option<&'static str> {
    if part == Part::Outcome && event.source_type != SourceType::RekorEntry {
        return Some("made, and not judged by anybody");
    }
    match event.source_type {
        SourceType::SigstoreBundle => bundle(part, root),
        SourceType::RekorEntry => entry(part, root),
        SourceType::IntotoStatement if root.get("verificationMaterial").is_some() => bundle(part, root),
        SourceType::IntotoStatement => statement(part, root),
        SourceType::SbomCyclonedx => {
            let metadata =
                |names: &[&str]| !names.iter().any(|name| root.pointer(&format!("/metadata/{name}")).is_some());
            match part {
                Part::Time if metadata(&["timestamp"]) => Some("`timestamp` is optional, and not given"),
                Part::Actor if metadata(&["tools", "authors", "manufacturer"]) => {
                    Some("`tools` and `authors` are optional, and not given")
                }
                Part::Join if metadata(&["component"]) => Some("`metadata.component` is optional, and not given"),
                _ => None,
            }
        }
        _ => None,
    }
}

fn bundle(part: Part, root: &Value) -> Option<&'static str> {
    let material = root.get("verificationMaterial")?;
    let logged = material.pointer("/tlogEntries/0").is_some_and(is_integrated);
    match part {
        Part::Time if !logged && !has_certificate(material) => Some("signed with a key, and in no log that says when"),
        Part::Actor if !has_certificate(material) => Some("signed with a key: no certificate says whose"),
        _ => None,
    }
}

fn entry(part: Part, root: &Value) -> Option<&'static str> {
    // An answer of the API has entries by their id.
    let answer = root.as_object().and_then(|object| object.values().find(|value| value.get("body").is_some()));
    let entry = answer.unwrap_or(root);
    let body = opened(entry, "/body").or_else(|| opened(entry, "/canonicalizedBody")).unwrap_or_else(|| entry.clone());
    let certified = has_certificate(&body);
    match part {
        Part::Time if !is_integrated(entry) && !certified => {
            Some("proposed or of Rekor v2: no time, and no certificate that has one")
        }
        Part::Join => {
            let kind = at(&body, "/kind").unwrap_or_default();
            let envelope = matches!(kind.as_str(), "dsse" | "intoto");
            // An artifact by its hash, or by content that is there to be hashed.
            let hashed = ["data", "package", "archive", "chart", "metadata"].iter().any(|name| {
                let of = format!("/spec/{name}");
                any(&body, &[&format!("{of}/hash/value"), &format!("{of}/digest")])
                    || at(&body, &format!("{of}/content")).is_some_and(|content| bytes(&content).is_some())
            });
            let hashed = hashed || body.to_string().contains("V002");
            match (envelope, certified) {
                (true, false) if !any(entry, &["/attestation/data"]) => {
                    Some("an envelope signed with a key: the log holds the hash of its payload alone")
                }
                (false, false) if !hashed => Some("a proposed entry whose content is cut, or referred to"),
                _ => None,
            }
        }
        _ => None,
    }
}

fn statement(part: Part, root: &Value) -> Option<&'static str> {
    let inner = if root.get("payloadType").is_some() { opened(root, "/payload")? } else { root.clone() };
    let certified = any(root, &["/signatures/0/cert"]);
    let times = &[
        "/predicate/metadata/buildFinishedOn",
        "/predicate/metadata/buildStartedOn",
        "/predicate/runDetails/metadata/finishedOn",
        "/predicate/runDetails/metadata/startedOn",
        "/predicate/metadata/scanFinishedOn",
        "/predicate/metadata/scanStartedOn",
        "/predicate/metadata/timestamp",
        "/predicate/timeVerified",
        "/predicate/creationInfo/created",
        "/predicate/date",
        "/predicate/timestamp",
    ];
    let makers = &[
        "/predicate/builder/id",
        "/predicate/runDetails/builder/id",
        "/predicate/scanner/uri",
        "/predicate/verifier/id",
    ];
    match part {
        Part::Time if !certified && !any(&inner, times) => {
            Some("the predicate has no time, and there is no certificate")
        }
        Part::Actor if !certified && !any(&inner, makers) => Some("the predicate names nobody"),
        _ => None,
    }
}
