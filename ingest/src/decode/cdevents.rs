//! CDEvents: one vocabulary for the events of many delivery tools.
//!
//! Source: CDEvents specification 0.3 to 0.6. The type names version, subject and predicate
//! (`dev.cdevents.pipelinerun.finished.0.2.0`). Most of a subject is optional, and who did it is named by few.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, git_remote, images, object, outcome, purl, scalar, scan, tier, time_at};

const EXPECTED: &str = "a CDEvent";

/// Subject and predicate → action, category.
const MEANINGS: &[(&str, &str, &str)] = &[
    ("pipelinerun.queued", "run.queued", "job"),
    ("pipelinerun.started", "run.started", "job"),
    ("pipelinerun.finished", "run.finished", "job"),
    ("taskrun.started", "job.started", "job"),
    ("taskrun.finished", "job.finished", "job"),
    ("build.queued", "build.queued", "job"),
    ("build.started", "build.started", "job"),
    ("build.finished", "build.finished", "job"),
    ("testcaserun.queued", "check.queued", "job"),
    ("testcaserun.started", "check.started", "job"),
    ("testcaserun.skipped", "check.skipped", "job"),
    ("testcaserun.finished", "check.finished", "job"),
    ("testsuiterun.queued", "check.queued", "job"),
    ("testsuiterun.started", "check.started", "job"),
    ("testsuiterun.finished", "check.finished", "job"),
    ("repository.created", "repo.created", "config"),
    ("repository.modified", "repo.edited", "config"),
    ("repository.deleted", "repo.deleted", "config"),
    ("branch.created", "git.ref_created", "scm"),
    ("branch.deleted", "git.ref_deleted", "scm"),
    ("change.created", "change.opened", "scm"),
    ("change.updated", "change.updated", "scm"),
    ("change.reviewed", "change.reviewed", "scm"),
    ("change.merged", "change.merged", "scm"),
    ("change.abandoned", "change.closed", "scm"),
    ("artifact.packaged", "artifact.packaged", "registry"),
    ("artifact.published", "artifact.published", "registry"),
    ("artifact.downloaded", "artifact.downloaded", "registry"),
    ("artifact.deleted", "artifact.deleted", "registry"),
    ("artifact.signed", "artifact.signed", "signing"),
    ("environment.created", "environment.created", "config"),
    ("environment.modified", "environment.modified", "config"),
    ("environment.deleted", "environment.deleted", "config"),
    ("service.deployed", "deploy.finished", "deploy"),
    ("service.upgraded", "deploy.finished", "deploy"),
    ("service.rolledback", "deploy.rolled_back", "deploy"),
    ("service.removed", "deploy.removed", "deploy"),
    ("service.published", "deploy.published", "deploy"),
    ("approval.created", "deploy.review_requested", "deploy"),
];

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    // As data of a structured CloudEvent, or alone.
    let root = json.root();
    let root = root.get("data").filter(|data| data.get("context").is_some()).unwrap_or(root);
    let kind = root.str_at(&["context", "type"]).and_then(subject_and_predicate);
    let (Some(kind), Some(subject)) = (kind, root.get("subject")) else {
        return Err(Undecodable::Shape {
            expected: EXPECTED,
            problem: "it has no `context.type` of CDEvents and no `subject`",
        });
    };
    let content = subject.get("content").unwrap_or(subject);
    let known = MEANINGS.iter().find(|(name, ..)| *name == kind);
    let mut draft = match known {
        Some((_, action, category)) => Draft::new(*action, category),
        None if kind == "approval.closed" => Draft::new(approval(content), "deploy"),
        None => Draft::new(format!("cdevents.{kind}"), "audit"),
    };
    draft.time = time_at(root, &["context", "timestamp"]);
    let fields = &mut draft.fields;
    // Which tool is behind it is `actor.id`, unless a person is named.
    fields.text(Field::CiProvider, Some("cdevents"));
    who(fields, root, content);
    result(fields, content, &kind);
    artifact(fields, subject, content, &kind);
    source(fields, content);
    run(fields, subject, content, &kind);
    let environment = scalar(content, &["environment", "id"]).or_else(|| scalar(content, &["environment", "name"]));
    let environment = environment.or_else(|| scalar(subject, &["id"]).filter(|_| kind.starts_with("environment.")));
    fields.text(Field::Environment, environment.as_deref().map(tier));
    fields.text(Field::CiEnvironment, environment);
    Ok(vec![draft])
}

/// `pipelinerun.finished` of `dev.cdevents.pipelinerun.finished.0.2.0`; custom events have their tool in front.
fn subject_and_predicate(kind: &str) -> Option<String> {
    let rest = kind.strip_prefix("dev.cdevents.").or_else(|| kind.strip_prefix("dev.cdeventsx."))?;
    let words: Vec<&str> =
        rest.split('.').take_while(|part| !part.starts_with(|char: char| char.is_ascii_digit())).collect();
    (words.len() >= 2).then(|| words.join("."))
}

fn approval(content: Value<'_>) -> &'static str {
    match content.str_at(&["decision"]).or_else(|| content.str_at(&["status"])) {
        Some("approved") => "deploy.approved",
        Some("rejected" | "denied") => "deploy.rejected",
        _ => "deploy.review_closed",
    }
}

fn who(fields: &mut Fields, root: Value<'_>, content: Value<'_>) {
    let person = ["user", "responder", "requestor", "assignee", "creator", "updatedBy", "resolvedBy"];
    let named = person.iter().find_map(|key| content.str_at(&[key])).or_else(|| content.str_at(&["trigger", "actor"]));
    // Otherwise the tool that says so.
    fields.text(Field::ActorId, named.or_else(|| root.str_at(&["context", "source"])));
    let bot = named.is_some_and(|name| name.contains("bot"));
    fields.text(
        Field::ActorType,
        Some(if named.is_none() {
            "ci"
        } else if bot {
            "service"
        } else {
            "human"
        }),
    );
}

fn result(fields: &mut Fields, content: Value<'_>, kind: &str) {
    let word = content.str_at(&["outcome"]).or_else(|| content.str_at(&["conclusion"]));
    match word.map(str::to_lowercase).as_deref() {
        Some(word) => {
            fields.text(Field::Outcome, Some(outcome(matches!(word, "success" | "pass" | "passed"))));
            fields.text(Field::Reason, content.str_at(&["errors"]).or(Some(word)));
        }
        // An end without a word is not told apart; everything else is of something done.
        None if kind.ends_with("run.finished") || kind.ends_with(".queued") || kind.ends_with(".started") => {}
        None => fields.text(Field::Outcome, Some("success")),
    }
    fields.text(Field::ScanSeverity, content.str_at(&["severity"]).map(|word| scan::severity(Some(word))));
}

/// An artifact is the subject, or what a build or deployment is about: a package URL as a rule.
fn artifact(fields: &mut Fields, subject: Value<'_>, content: Value<'_>, kind: &str) {
    let own = subject.str_at(&["id"]).filter(|_| kind.starts_with("artifact."));
    let Some(id) = own.or_else(|| content.str_at(&["artifactId"])) else { return };
    let image = images::parse(id);
    fields.text(Field::ArtifactName, Some(id));
    fields.text(Field::ArtifactDigest, purl::digest(id).or_else(|| image.digest.map(ToOwned::to_owned)));
    fields.text(Field::ArtifactRepo, id.split_once('@').map(|(name, _)| name));
}

fn source(fields: &mut Fields, content: Value<'_>) {
    let address = content.str_at(&["repository", "url"]).or_else(|| content.str_at(&["repository", "viewUrl"]));
    let named = content.str_at(&["repository", "id"]);
    // A change names its repository as its source.
    let change = content.str_at(&["change", "source"]);
    fields.text(Field::CiRepo, address.and_then(git_remote::repo).or_else(|| named.or(change).map(ToOwned::to_owned)));
}

fn run(fields: &mut Fields, subject: Value<'_>, content: Value<'_>, kind: &str) {
    let id = scalar(subject, &["id"]);
    let (what, _) = kind.split_once('.').unwrap_or((kind, ""));
    let outer = scalar(content, &["pipelineRun", "id"]);
    match what {
        "pipelinerun" => {
            fields.text(Field::CiRunId, id);
            fields.text(Field::CiWorkflow, content.str_at(&["pipelineName"]));
        }
        "taskrun" | "build" | "testcaserun" | "testsuiterun" => {
            fields.text(Field::CiJobId, id);
            fields.text(Field::CiRunId, outer);
        }
        "branch" => fields.text(Field::CiRef, id.map(|name| git_remote::full_ref(&name, false))),
        "change" => {
            // Mostly a number; elsewhere a name of the tool's own.
            fields.int(Field::ChangeNumber, id.as_deref().and_then(|id| id.parse().ok()));
            fields.text(Field::ConfigId, id);
        }
        "repository" => fields.text(Field::CiRepo, content.str_at(&["url"]).and_then(git_remote::repo).or(id)),
        "artifact" => {}
        _ => fields.text(Field::ConfigId, id),
    }
    let name = ["taskName", "name", "description", "testCase"].iter().find_map(|key| content.str_at(&[key]));
    fields.text(Field::Message, name);
    fields.text(Field::CiTrigger, content.str_at(&["trigger", "type"]));
}
