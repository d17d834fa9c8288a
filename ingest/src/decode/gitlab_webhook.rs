//! GitLab webhooks of projects and groups.
//!
//! Source: GitLab "Webhook events". The payload names its kind, the header `X-Gitlab-Event` repeats it. Times are written
//! in three ways; a push has none, and that of its commits is older, so it happened when it was received. Events of the
//! instance (system hooks) are told by `event_name` alone.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::git_remote::{self, full_ref, told_ref};
use super::{Draft, Undecodable, gitlab_system, name, object, outcome, scalar, tier, time_at};

const EXPECTED: &str = "a GitLab webhook payload";
/// What stands for no commit.
const NONE: &str = "0000000000000000000000000000000000000000";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let kind = root.str_at(&["object_kind"]).or_else(|| root.str_at(&["event_name"]));
    let Some(kind) = kind.filter(|kind| !kind.is_empty()) else {
        let problem = "it has neither `object_kind` nor `event_name`: a custom template must keep one";
        return Err(Undecodable::Shape { expected: EXPECTED, problem });
    };
    let mut draft = Draft::default();
    common(&mut draft.fields, root, kind);
    match kind {
        "push" | "tag_push" => push(&mut draft, root, kind),
        "merge_request" => merge_request(&mut draft, root),
        "pipeline" => pipeline(&mut draft, root),
        "build" => job(&mut draft, root),
        "deployment" => deployment(&mut draft, root),
        "release" => release(&mut draft, root),
        _ => {
            if !gitlab_system::decode(&mut draft, root, kind) {
                generic(&mut draft, root, kind);
            }
        }
    }
    Ok(vec![draft])
}

fn common(fields: &mut Fields, root: Value<'_>, kind: &str) {
    fields.text(Field::CiProvider, Some("gitlab"));
    // `project_name` is a path in older versions and a title in newer ones: only addresses are safe.
    let address = || {
        let repository = root.get("repository")?;
        ["git_http_url", "homepage", "url"].iter().find_map(|key| git_remote::repo(repository.str_at(&[key])?))
    };
    let path = [&["project", "path_with_namespace"][..], &["path_with_namespace"], &["project_path_with_namespace"]];
    let path = path.iter().find_map(|path| root.str_at(path)).map(ToOwned::to_owned);
    fields.text(Field::CiRepo, path.or_else(address));
    fields.text(Field::ScmDefaultBranch, root.str_at(&["project", "default_branch"]));
    // In events about members `user_username` is whom it was done to.
    let own = matches!(kind, "push" | "tag_push" | "repository_update");
    let pusher = || root.str_at(&["user_username"]).or_else(|| root.str_at(&["user_name"])).filter(|_| own);
    let actor = root.str_at(&["user", "username"]).or_else(pusher).or_else(|| root.str_at(&["user", "name"]));
    if let Some(actor) = actor.filter(|actor| !actor.is_empty()) {
        fields.text(Field::ActorId, Some(actor));
        fields.text(Field::ActorType, Some(actor_type(actor)));
    }
}

/// Access tokens of projects and groups act as users named after them: `project_42_bot_9a8b`.
pub(super) fn actor_type(username: &str) -> &'static str {
    let token = ["project_", "group_"].iter().any(|head| username.starts_with(head)) && username.contains("_bot");
    let own = ["ghost", "support-bot", "alert-bot", "security-bot", "duo-developer"].contains(&username);
    if token || own || username.starts_with("service_account_") { "service" } else { "human" }
}

fn push(draft: &mut Draft, root: Value<'_>, kind: &str) {
    let fields = &mut draft.fields;
    let (before, after) = (root.str_at(&["before"]), root.str_at(&["after"]));
    let gone = after == Some(NONE);
    name(fields, if gone { "git.ref_deleted" } else { "git.push" }, "scm");
    fields.text(Field::CiRef, root.str_at(&["ref"]).map(|name| full_ref(name, kind == "tag_push")));
    fields.text(Field::ScmBefore, before);
    fields.text(Field::ScmAfter, after);
    fields.text(Field::CiSha, root.str_at(&["checkout_sha"]).or(after).filter(|_| !gone));
    fields.text(Field::Outcome, Some("success"));
    let last = root.get("commits").and_then(|commits| commits.items().last());
    fields.text(Field::Message, last.and_then(|commit| commit.str_at(&["message"])));
}

/// The ref that holds the head of a merge request in the project that says so: its branch, or, of a fork, the one that GitLab keeps
/// for it. A fork's branch may have any name, `main` too.
fn of_change(change: Value<'_>, root: Value<'_>, branch: &str) -> Option<String> {
    let id = |key: &str| scalar(change, &[key]);
    let (source, target, own) = (id("source_project_id"), id("target_project_id"), scalar(root, &["project", "id"]));
    if source.is_some() && (source == target || source == own) {
        return Some(full_ref(branch, false));
    }
    let here = own.is_none() || own == target;
    id("iid").filter(|_| here).map(|iid| format!("refs/merge-requests/{iid}/head"))
}

/// The ref a pipeline runs on. Of one for a merge request the name is its source branch, which may be a fork's.
fn of_pipeline(root: Value<'_>, run: Value<'_>) -> Option<String> {
    let name = run.str_at(&["ref"]).filter(|name| !name.is_empty())?;
    if run.str_at(&["source"]) == Some("merge_request_event") && !name.starts_with("refs/") {
        return of_change(root.get("merge_request").filter(|change| change.is_object())?, root, name);
    }
    let tag = run.get("tag").and_then(Value::as_bool) == Some(true);
    Some(full_ref(name, tag))
}

fn merge_request(draft: &mut Draft, root: Value<'_>) {
    let Some(change) = root.get("object_attributes") else { return generic(draft, root, "merge_request") };
    let state = change.str_at(&["state"]).unwrap_or_default();
    let done = change.str_at(&["action"]).unwrap_or(match state {
        "merged" => "merge",
        "closed" => "close",
        _ => "update",
    });
    let (action, time) = match done {
        "open" => ("change.opened", "created_at"),
        "reopen" => ("change.opened", "updated_at"),
        "merge" => ("change.merged", "updated_at"),
        "close" => ("change.closed", "updated_at"),
        "approved" | "approval" => ("change.reviewed", "updated_at"),
        "unapproved" | "unapproval" => ("change.review_dismissed", "updated_at"),
        _ => ("change.updated", "updated_at"),
    };
    let fields = &mut draft.fields;
    name(fields, action, "scm");
    fields.text(Field::Outcome, Some("success"));
    fields.int(Field::ChangeNumber, change.get("iid").and_then(Value::as_i64));
    let user = root.str_at(&["user", "username"]);
    // The author is a number; the name of the same number stands with who did this.
    let author = scalar(change, &["author_id"]);
    let same = author.is_some() && author == scalar(root, &["user", "id"]);
    fields.text(Field::ChangeAuthor, user.filter(|_| same).map(ToOwned::to_owned).or(author));
    fields.text(Field::ChangeBase, change.str_at(&["target_branch"]));
    let head = change.str_at(&["last_commit", "id"]);
    fields.text(Field::ChangeHead, head);
    fields.text(Field::CiSha, head);
    let branch = change.str_at(&["source_branch"]);
    fields.text(Field::CiRef, branch.and_then(|branch| of_change(change, root, branch)));
    fields.text(Field::Message, change.str_at(&["title"]));
    match action {
        "change.merged" => {
            fields.text(Field::ChangeMergedBy, user);
            fields.text(Field::ScmAfter, change.str_at(&["merge_commit_sha"]));
        }
        "change.reviewed" => fields.text(Field::ChangeReviewState, Some("approved")),
        "change.review_dismissed" => fields.text(Field::ChangeReviewState, Some("dismissed")),
        _ => {}
    }
    draft.time = time_at(change, &[time]).or_else(|| time_at(change, &["updated_at"]));
}

/// The stage a status is of, and whether that is success where it is an end.
fn stage(status: &str) -> (&'static str, Option<bool>) {
    match status {
        "created" | "pending" | "preparing" | "waiting_for_resource" | "scheduled" => ("queued", None),
        "manual" => ("waiting", None),
        "running" => ("started", None),
        "success" | "skipped" => ("finished", Some(true)),
        "failed" | "canceled" => ("finished", Some(false)),
        _ => ("updated", None),
    }
}

fn set_stage(fields: &mut Fields, what: &str, category: &str, status: &str) -> &'static str {
    let (stage, success) = stage(status);
    name(fields, &format!("{what}.{stage}"), category);
    fields.text(Field::Outcome, success.map(outcome));
    fields.text(Field::Reason, success.map(|_| status));
    stage
}

fn pipeline(draft: &mut Draft, root: Value<'_>) {
    let Some(run) = root.get("object_attributes") else { return generic(draft, root, "pipeline") };
    let stage = set_stage(&mut draft.fields, "run", "job", run.str_at(&["status"]).unwrap_or_default());
    let fields = &mut draft.fields;
    fields.text(Field::CiRunId, scalar(run, &["id"]));
    fields.text(Field::CiRef, of_pipeline(root, run));
    fields.text(Field::CiSha, run.str_at(&["sha"]));
    fields.text(Field::CiTrigger, run.str_at(&["source"]));
    fields.text(Field::CiWorkflow, run.str_at(&["name"]));
    fields.int(Field::ChangeNumber, root.at(&["merge_request", "iid"]).and_then(Value::as_i64));
    draft.time = match stage {
        "finished" => time_at(run, &["finished_at"]),
        // It is created once. A retry waits and runs again under the same `created_at`, perhaps on another day.
        "queued" if run.str_at(&["status"]) == Some("created") => time_at(run, &["created_at"]),
        _ => None,
    };
}

fn job(draft: &mut Draft, root: Value<'_>) {
    let stage = set_stage(&mut draft.fields, "job", "job", root.str_at(&["build_status"]).unwrap_or_default());
    let fields = &mut draft.fields;
    // In older versions only the commit says the pipeline: its `id` is the pipeline's.
    fields.text(Field::CiRunId, scalar(root, &["pipeline_id"]).or_else(|| scalar(root, &["commit", "id"])));
    fields.text(Field::CiJobId, scalar(root, &["build_id"]));
    let tag = root.get("tag").and_then(Value::as_bool) == Some(true);
    fields.text(Field::CiRef, root.str_at(&["ref"]).map(|name| full_ref(name, tag)));
    fields.text(Field::CiSha, root.str_at(&["sha"]));
    fields.text(Field::Message, root.str_at(&["build_name"]));
    if stage == "finished" {
        let reason = root.str_at(&["build_failure_reason"]).filter(|reason| *reason != "unknown_failure");
        if fields.get_text(Field::Outcome) == Some("failure") {
            fields.text(Field::Reason, reason);
        }
    }
    let environment = root.str_at(&["environment", "name"]);
    fields.text(Field::CiEnvironment, environment);
    fields.text(Field::Environment, environment.map(tier));
    runner(fields, root.get("runner").filter(|runner| runner.is_object()));
    draft.time = match stage {
        "finished" => first_time(root, &["build_finished_at", "build_finished_at_iso"]),
        "started" => first_time(root, &["build_started_at", "build_started_at_iso"]),
        // All jobs are created with their pipeline; one of a later stage, or that somebody starts by hand, waits later.
        _ if root.str_at(&["build_status"]) == Some("created") => {
            first_time(root, &["build_created_at", "build_created_at_iso"])
        }
        _ => None,
    };
}

fn runner(fields: &mut Fields, runner: Option<Value<'_>>) {
    let Some(runner) = runner else { return };
    let description = runner.str_at(&["description"]);
    fields.text(Field::RunnerName, description.map(ToOwned::to_owned).or_else(|| scalar(runner, &["id"])));
    // As GitLab's own tokens call it: its hosted runners are those of the instance on gitlab.com.
    let hosted = description.is_some_and(|name| name.contains(".gitlab.com") || name.contains(".saas-"));
    fields.text(Field::RunnerKind, Some(if hosted { "gitlab-hosted" } else { "self-hosted" }));
    let tags: Vec<&str> = runner.get("tags").into_iter().flat_map(Value::items).filter_map(Value::as_str).collect();
    fields.text(Field::RunnerLabels, Some(tags.join(",")));
}

fn deployment(draft: &mut Draft, root: Value<'_>) {
    let stage = set_stage(&mut draft.fields, "deploy", "deploy", root.str_at(&["status"]).unwrap_or_default());
    let fields = &mut draft.fields;
    if stage == "queued" {
        name(fields, "deploy.requested", "deploy");
    }
    let environment = root.str_at(&["environment"]);
    fields.text(Field::CiEnvironment, environment);
    fields.text(Field::Environment, root.str_at(&["environment_tier"]).or(environment).map(tier));
    fields.text(Field::ConfigId, scalar(root, &["deployment_id"]));
    fields.text(Field::CiJobId, scalar(root, &["deployable_id"]));
    let default = root.str_at(&["project", "default_branch"]);
    fields.text(Field::CiRef, root.str_at(&["ref"]).and_then(|name| told_ref(name, None, default)));
    // The whole commit is only in its address.
    let whole = root.str_at(&["commit_url"]).and_then(|url| url.rsplit_once("/commit/")).map(|(_, sha)| sha);
    fields.text(Field::CiSha, whole.or_else(|| root.str_at(&["short_sha"])));
    fields.text(Field::Message, root.str_at(&["commit_title"]));
    draft.time = time_at(root, &["status_changed_at"]);
}

fn release(draft: &mut Draft, root: Value<'_>) {
    let action = match root.str_at(&["action"]) {
        Some("create") => "release.published",
        Some("delete") => "release.deleted",
        _ => "release.edited",
    };
    let fields = &mut draft.fields;
    name(fields, action, "scm");
    fields.text(Field::Outcome, Some("success"));
    fields.text(Field::CiRef, root.str_at(&["tag"]).map(|tag| full_ref(tag, true)));
    fields.text(Field::CiSha, root.str_at(&["commit", "id"]));
    fields.text(Field::Message, root.str_at(&["name"]));
    if action == "release.published" {
        draft.time = first_time(root, &["released_at", "created_at"]);
    }
}

fn first_time(value: Value<'_>, keys: &[&str]) -> Option<Timestamp> {
    keys.iter().find_map(|key| time_at(value, &[key]))
}

/// Any other event: named as GitLab names it, its time where its subject says one.
fn generic(draft: &mut Draft, root: Value<'_>, kind: &str) {
    let subject = root.get("object_attributes");
    let done = subject.and_then(|subject| subject.str_at(&["action"])).or_else(|| root.str_at(&["action"]));
    let full = done.map_or_else(|| format!("gitlab.{kind}"), |done| format!("gitlab.{kind}.{done}"));
    name(&mut draft.fields, &full, "scm");
    let fields = &mut draft.fields;
    fields.text(Field::Outcome, Some("success"));
    fields.text(Field::CiSha, root.str_at(&["commit", "id"]));
    fields.int(Field::ChangeNumber, root.at(&["merge_request", "iid"]).and_then(Value::as_i64));
    let Some(subject) = subject else { return };
    fields.text(Field::Message, subject.str_at(&["note"]).or_else(|| subject.str_at(&["title"])));
    let created = matches!(done, Some("open" | "create"));
    draft.time = if created { time_at(subject, &["created_at"]) } else { time_at(subject, &["updated_at"]) };
}
