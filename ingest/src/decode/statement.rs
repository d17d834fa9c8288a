//! in-toto statements: what is attested of which artifacts, and what SLSA provenance says of the build.
//!
//! Sources: in-toto attestation framework (Statement v0.1 and v1), SLSA provenance v0.1, v0.2 and v1. Builders fill the
//! open parts as they please: those of GitHub, GitLab, Tekton and Google Cloud Build were looked at.

use std::borrow::Cow;

use engine::fields::{CompactString, Field, Fields};
use engine::json::{JsonError, Parsed, Value};
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::{DEPTH_MAX, DERIVED_MAX, Draft, git_remote, images, leave_out, purl, subject, time_at, time_of};

/// Predicates that are SLSA provenance start like this; the version follows.
const PROVENANCE: &str = "https://slsa.dev/provenance/";

/// Where predicates without a build say when they were made.
const TIMES: &[&[&str]] = &[
    &["metadata", "scanFinishedOn"],
    &["metadata", "scanStartedOn"],
    &["timeVerified"],
    &["creationInfo", "created"],
    &["metadata", "timestamp"],
    &["date"],
    &["timestamp"],
];

/// What a build on GitHub was started by is most of its provenance, and nothing of it is read.
const LEFT_OUT: &[&str] = &["github_event_payload", "GITHUB_EVENT_PAYLOAD"];

/// Parses a statement.
pub(super) fn parse(payload: &[u8]) -> Result<Parsed<'_>, JsonError> {
    Parsed::of(payload, DEPTH_MAX, LEFT_OUT)
}

/// Names and `sha256:` digests of what a statement is about, those without such a digest left out.
pub(super) fn subjects(statement: Value<'_>) -> impl Iterator<Item = (Option<&str>, String)> {
    let all = statement.get("subject").into_iter().flat_map(Value::items);
    all.filter_map(|subject| {
        let stated = subject.str_at(&["digest", "sha256"]).map(|hash| {
            let mut digest = ["sha256:", hash].concat();
            digest.make_ascii_lowercase();
            digest
        });
        let name = subject.str_at(&["name"]).or_else(|| subject.str_at(&["uri"]));
        // Some predicates say it only in the package URL.
        let digest = stated.filter(|digest| images::is_digest(digest)).or_else(|| purl::digest(name?))?;
        Some((name, digest))
    })
}

/// One event for each artifact that a statement is about; one without a digest still says that something was attested.
pub(super) fn per_subject(mut draft: Draft, statement: Value<'_>) -> Vec<Draft> {
    let mut all = subjects(statement);
    let mut subjects = all.by_ref().take(DERIVED_MAX).peekable();
    let mut drafts = Vec::new();
    while let Some((name, digest)) = subjects.next() {
        // Most statements are about one, and it takes over what is known.
        let mut one = if subjects.peek().is_some() { draft.clone() } else { std::mem::take(&mut draft) };
        one.fields.text(Field::ArtifactDigest, Some(digest));
        one.fields.text(Field::ArtifactName, name);
        drafts.push(one);
    }
    if drafts.is_empty() {
        draft.fields.text(Field::ArtifactName, first(statement));
        drafts.push(draft);
    }
    drop(subjects);
    leave_out(&mut drafts, all.count());
    drafts
}

/// What a statement calls the first thing it is about.
fn first(statement: Value<'_>) -> Option<&str> {
    let subject = statement.get("subject")?.items().next()?;
    subject.str_at(&["name"]).or_else(|| subject.str_at(&["uri"]))
}

/// Sets what the predicate says of the build; returns when the artifact was made or attested, if it says.
pub(super) fn set(fields: &mut Fields, statement: Value<'_>) -> Option<Timestamp> {
    let kind = statement.str_at(&["predicateType"]).unwrap_or_default();
    fields.text(Field::PredicateType, Some(kind));
    let predicate = statement.get("predicate")?;
    match kind.strip_prefix(PROVENANCE) {
        Some(version) if version.starts_with("v0") => provenance_0(fields, predicate),
        Some(_) => provenance_1(fields, predicate),
        None => other(fields, predicate),
    }
}

/// Fields that are empty are set, others stay: a certificate was checked by its issuer, a predicate by nobody.
fn add(fields: &mut Fields, field: Field, value: Option<impl Into<CompactString>>) {
    if fields.get(field).is_none() {
        fields.text(field, value);
    }
}

fn builder(fields: &mut Fields, id: Option<&str>) {
    let Some(id) = id else { return };
    fields.text(Field::BuildBuilder, Some(id));
    add(fields, Field::ActorId, Some(id));
    // A certificate says all of this, and better.
    if [Field::ActorType, Field::CiProvider, Field::CiWorkflowRef].iter().all(|field| fields.get(*field).is_some()) {
        return;
    }
    let provider = provider(id);
    add(fields, Field::CiProvider, provider);
    add(fields, Field::ActorType, Some(provider.map_or("service", |_| "ci")));
    if provider == Some("github") && git_remote::split_once(id, "/.github/workflows/").is_some() {
        let path = git_remote::after_scheme(id).and_then(|rest| rest.split_once('/')).map(|(_, path)| path);
        add(fields, Field::CiWorkflowRef, path);
    }
}

/// The CI system a builder's id names.
fn provider(id: &str) -> Option<&'static str> {
    const HOSTS: &[(&str, &str)] = &[
        ("https://github.com/", "github"),
        ("https://gitlab.com/", "gitlab"),
        ("/-/runners/", "gitlab"),
        ("https://tekton.dev/", "tekton"),
        ("https://cloudbuild.googleapis.com/", "cloudbuild"),
        ("https://circleci.com/", "circleci"),
        ("https://buildkite.com/", "buildkite"),
    ];
    HOSTS
        .iter()
        .find(|(part, _)| git_remote::split_once(id, part).is_some())
        .map(|(_, provider)| *provider)
        .or_else(|| subject::ci_provider(id))
}

/// The members of these names, where there is an object.
fn members<'v, const N: usize>(value: Option<Value<'v>>, names: [&str; N]) -> [Option<Value<'v>>; N] {
    value.map_or([None; N], |value| value.members(names))
}

fn text(value: Option<Value<'_>>) -> Option<&str> {
    value.and_then(Value::as_str)
}

fn scalar(value: Option<Value<'_>>) -> Option<Cow<'_, str>> {
    value.and_then(Value::scalar)
}

fn provenance_0(fields: &mut Fields, predicate: Value<'_>) -> Option<Timestamp> {
    let [by, invoked, materials, metadata] = predicate.members(["builder", "invocation", "materials", "metadata"]);
    builder(fields, by.and_then(|builder| builder.str_at(&["id"])));
    let [source, environment] = members(invoked, ["configSource", "environment"]);
    let [uri, digest, entry] = members(source, ["uri", "digest", "entryPoint"]);
    let first = || materials?.items().find_map(|material| material.str_at(&["uri"]));
    from(fields, text(uri).or_else(first));
    add(fields, Field::CiSha, digest.and_then(|digest| digest.str_at(&["sha1"])));
    add(fields, Field::CiWorkflow, text(entry));
    let [run, attempted, git_ref, sha, trigger, repo] = members(
        environment,
        ["github_run_id", "github_run_attempt", "github_ref", "github_sha1", "github_event_name", "github_repository"],
    );
    add(fields, Field::CiRunId, scalar(run));
    attempt(fields, scalar(attempted).as_deref());
    add(fields, Field::CiRef, scalar(git_ref));
    add(fields, Field::CiSha, scalar(sha));
    add(fields, Field::CiTrigger, scalar(trigger));
    add(fields, Field::CiRepo, scalar(repo));
    let [id, other_id, finished, started] =
        members(metadata, ["buildInvocationID", "buildInvocationId", "buildFinishedOn", "buildStartedOn"]);
    if let Some(id) = text(id.or(other_id)) {
        invocation(fields, id);
    }
    finished.and_then(time_of).or_else(|| started.and_then(time_of))
}

fn provenance_1(fields: &mut Fields, predicate: Value<'_>) -> Option<Timestamp> {
    let [definition, details] = predicate.members(["buildDefinition", "runDetails"]);
    let [by, metadata] = members(details, ["builder", "metadata"]);
    builder(fields, by.and_then(|builder| builder.str_at(&["id"])));
    let [outer, inner, resolved] =
        members(definition, ["externalParameters", "internalParameters", "resolvedDependencies"]);
    if let Some(outer) = outer {
        let workflow = outer.get("workflow").unwrap_or(outer);
        let [repository, git_ref, path] = workflow.members(["repository", "ref", "path"]);
        from(fields, text(repository));
        add(fields, Field::CiRef, text(git_ref));
        add(fields, Field::CiWorkflow, text(path));
        let source = outer.get("source");
        from(fields, source.and_then(|source| source.as_str().or_else(|| source.str_at(&["uri"]))));
        add(fields, Field::CiSha, source.and_then(|source| source.str_at(&["digest", "sha1"])));
    }
    let [github, trigger, run, attempted, git_ref, sha, repo] = members(
        inner,
        [
            "github",
            "GITHUB_EVENT_NAME",
            "GITHUB_RUN_ID",
            "GITHUB_RUN_ATTEMPT",
            "GITHUB_REF",
            "GITHUB_SHA",
            "GITHUB_REPOSITORY",
        ],
    );
    let [event, runner] = members(github, ["event_name", "runner_environment"]);
    add(fields, Field::CiTrigger, scalar(event).or_else(|| scalar(trigger)));
    add(fields, Field::RunnerKind, scalar(runner));
    add(fields, Field::CiRunId, scalar(run));
    attempt(fields, scalar(attempted).as_deref());
    add(fields, Field::CiRef, scalar(git_ref));
    add(fields, Field::CiSha, scalar(sha));
    add(fields, Field::CiRepo, scalar(repo));
    if let Some(source) = resolved.and_then(|sources| sources.items().next()) {
        from(fields, source.str_at(&["uri"]));
        let digest = |name: &str| source.str_at(&["digest", name]);
        add(fields, Field::CiSha, digest("gitCommit").or_else(|| digest("sha1")));
    }
    let [id, other_id, finished, started] =
        members(metadata, ["invocationId", "invocationID", "finishedOn", "startedOn"]);
    if let Some(id) = text(id).or_else(|| text(other_id)) {
        invocation(fields, id);
    }
    finished.and_then(time_of).or_else(|| started.and_then(time_of))
}

/// Predicates of scanners say when they looked and what with; those of others when they were made.
fn other(fields: &mut Fields, predicate: Value<'_>) -> Option<Timestamp> {
    let scanner = predicate.str_at(&["scanner", "uri"]);
    add(fields, Field::ScanTool, scanner);
    add(fields, Field::ActorId, scanner.or_else(|| predicate.str_at(&["verifier", "id"])));
    if fields.get(Field::ActorType).is_none() && fields.get(Field::ActorId).is_some() {
        fields.text(Field::ActorType, Some("service"));
    }
    let results = predicate.at(&["scanner", "result"]).or_else(|| predicate.at(&["scanner", "vulnerabilities"]));
    fields.int(Field::ScanFindings, results.and_then(|list| i64::try_from(list.items().count()).ok()));
    TIMES.iter().find_map(|path| time_at(predicate, path))
}

/// Where the source came from: `git+https://host/owner/name@refs/heads/main`.
fn from(fields: &mut Fields, address: Option<&str>) {
    let Some(address) = address else { return };
    if fields.get(Field::CiRepo).is_none() {
        fields.text(Field::CiRepo, git_remote::repo(address));
    }
    add(fields, Field::CiRef, git_remote::reference(address));
}

fn attempt(fields: &mut Fields, text: Option<&str>) {
    if fields.get(Field::CiAttempt).is_none() {
        fields.int(Field::CiAttempt, text.and_then(|text| text.parse().ok()));
    }
}

/// The run behind an invocation: a URL of GitHub or GitLab, or `RUN-ATTEMPT` as the builders of slsa-framework write it.
fn invocation(fields: &mut Fields, id: &str) {
    if let Some((_, rest)) = git_remote::split_once(id, "/actions/runs/") {
        let mut parts = rest.split('/');
        add(fields, Field::CiRunId, parts.next());
        attempt(fields, parts.nth(1));
    } else if let Some((_, job)) = git_remote::split_once(id, "/-/jobs/") {
        add(fields, Field::CiJobId, job.split('/').next());
    } else if let Some((run, number)) = id.split_once('-').filter(|(run, number)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits(run) && digits(number)
    }) {
        add(fields, Field::CiRunId, Some(run));
        attempt(fields, Some(number));
    } else if fields.get_text(Field::CiProvider) == Some("gitlab") {
        add(fields, Field::CiJobId, Some(id));
    } else {
        add(fields, Field::CiRunId, Some(id));
    }
}
