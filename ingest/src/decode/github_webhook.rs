//! GitHub webhook deliveries.
//!
//! Source: GitHub "Webhook events and payloads". The payload does not name its event: the header `X-GitHub-Event` does,
//! kept as an attribute. Where it is missing (a file of payloads), the event is inferred from the payload's shape.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::git_remote::told_ref;
use super::github_times::{created_or_updated, subject_time};
use super::{
    Draft, Undecodable, github_alerts, github_config, github_ref, images, name, object, outcome, scalar, tier, time_at,
    time_of,
};

const EXPECTED: &str = "a GitHub webhook payload";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let named = record.envelope.attributes.get("x-github-event").map(String::as_str);
    let Some(event) = named.or_else(|| infer(root)) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "no X-GitHub-Event header and no known shape" });
    };
    let mut draft = Draft::default();
    let action = root.str_at(&["action"]).unwrap_or_default();
    common(&mut draft.fields, root);
    match event {
        "push" => push(&mut draft, root),
        "create" | "delete" => git_ref(&mut draft, root, event),
        "pull_request" | "pull_request_target" => pull_request(&mut draft, root, action),
        "pull_request_review" => review(&mut draft, root, action),
        "workflow_run" => run(&mut draft, root, action),
        "workflow_job" => job(&mut draft, root, action),
        "check_run" | "check_suite" => check(&mut draft, root, event, action),
        "workflow_dispatch" | "repository_dispatch" => {
            name(&mut draft.fields, "run.dispatched", "job");
            let default = root.str_at(&["repository", "default_branch"]);
            let named = root.str_at(&["ref"]).or_else(|| root.str_at(&["branch"]));
            draft.fields.text(Field::CiRef, named.and_then(|name| told_ref(name, None, default)));
            draft.fields.text(Field::CiWorkflow, root.str_at(&["workflow"]));
            draft.fields.text(Field::CiTrigger, Some(event));
        }
        "deployment" => deployment(&mut draft, root),
        "deployment_status" => deployment_status(&mut draft, root),
        "deployment_review" => deployment_review(&mut draft, root, action),
        "package" | "registry_package" => package(&mut draft, root, event, action),
        "release" => release(&mut draft, root, action),
        _ => {
            if !github_alerts::decode(&mut draft, root, event, action)
                && !github_config::decode(&mut draft, root, event, action)
            {
                generic(&mut draft, root, event, action);
            }
        }
    }
    Ok(vec![draft])
}

/// The event whose payload has this shape. More telling members come first.
fn infer(root: Value<'_>) -> Option<&'static str> {
    const SHAPES: &[(&[&str], &str)] = &[
        (&["workflow_job"], "workflow_job"),
        (&["deployment_status"], "deployment_status"),
        (&["check_run"], "check_run"),
        (&["check_suite"], "check_suite"),
        (&["workflow_run", "approver"], "deployment_review"),
        (&["workflow_run", "reviewers"], "deployment_review"),
        (&["deployment"], "deployment"),
        (&["workflow_run", "workflow"], "workflow_run"),
        (&["pull_request", "review"], "pull_request_review"),
        (&["pull_request", "comment"], "pull_request_review_comment"),
        (&["pull_request", "thread"], "pull_request_review_thread"),
        (&["pull_request", "number"], "pull_request"),
        (&["issue", "comment"], "issue_comment"),
        (&["issue"], "issues"),
        (&["ref", "before", "after"], "push"),
        (&["ref", "ref_type", "master_branch"], "create"),
        (&["ref", "ref_type", "pusher_type"], "delete"),
        (&["rule", "repository"], "branch_protection_rule"),
        (&["repository_ruleset"], "repository_ruleset"),
        (&["release"], "release"),
        (&["key"], "deploy_key"),
        (&["personal_access_token_request"], "personal_access_token_request"),
        (&["zen"], "ping"),
        (&["hook", "hook_id"], "meta"),
        (&["forkee"], "fork"),
        (&["alert", "commit_oid"], "code_scanning_alert"),
        (&["registry_package"], "registry_package"),
        (&["package"], "package"),
        (&["pages"], "gollum"),
        (&["build"], "page_build"),
        (&["inputs", "workflow"], "workflow_dispatch"),
        (&["client_payload"], "repository_dispatch"),
        (&["state", "context", "sha"], "status"),
        (&["comment"], "commit_comment"),
        (&["security_advisory"], "security_advisory"),
        (&["discussion"], "discussion"),
        (&["label"], "label"),
        (&["milestone"], "milestone"),
        (&["membership"], "organization"),
        (&["member", "team"], "membership"),
        (&["member"], "member"),
        (&["team", "repository"], "team_add"),
        (&["team"], "team"),
        (&["blocked_user"], "org_block"),
        (&["project_card"], "project_card"),
        (&["project_column"], "project_column"),
        (&["project"], "project"),
        (&["projects_v2_item"], "projects_v2_item"),
        (&["marketplace_purchase"], "marketplace_purchase"),
        (&["sponsorship"], "sponsorship"),
        (&["installation", "repositories_added"], "installation_repositories"),
        (&["installation", "repository_selection"], "installation_repositories"),
    ];
    if let Some(alert) = root.get("alert") {
        let kinds: [(&str, &'static str); 4] = [
            ("secret_type", "secret_scanning_alert"),
            ("dependency", "dependabot_alert"),
            ("affected_package_name", "repository_vulnerability_alert"),
            ("rule", "code_scanning_alert"),
        ];
        return kinds.iter().find(|(member, _)| alert.get(member).is_some()).map(|(_, event)| *event);
    }
    if let Some((_, event)) = SHAPES.iter().find(|(members, _)| members.iter().all(|member| root.get(member).is_some()))
    {
        return Some(event);
    }
    let action = root.str_at(&["action"]);
    let has = |member: &str| root.get(member).is_some();
    match action {
        Some("started") if has("repository") => Some("watch"),
        Some("created" | "deleted") if has("starred_at") => Some("star"),
        Some("revoked") if has("sender") => Some("github_app_authorization"),
        Some(_) if has("installation") && !has("repository") => Some("installation"),
        Some(_) if has("repository") => Some("repository"),
        None if has("repository") && has("sender") => Some("public"),
        _ => None,
    }
}

fn common(fields: &mut Fields, root: Value<'_>) {
    fields.text(Field::CiProvider, Some("github"));
    fields.text(Field::CiRepo, root.str_at(&["repository", "full_name"]));
    fields.text(Field::ScmDefaultBranch, root.str_at(&["repository", "default_branch"]));
    let login = root.str_at(&["sender", "login"]);
    fields.text(Field::ActorId, login);
    if let Some(login) = login {
        fields.text(Field::ActorType, Some(actor_type(login, root.str_at(&["sender", "type"]))));
    }
}

/// The token of a workflow acts as `github-actions[bot]`; other bots are apps.
fn actor_type(login: &str, kind: Option<&str>) -> &'static str {
    match kind {
        _ if login == "github-actions[bot]" || login == "github-actions" => "ci",
        // GitHub itself raises alerts as the organisation `github`.
        Some("Bot" | "Organization") => "service",
        _ if login.ends_with("[bot]") => "service",
        _ => "human",
    }
}

fn push(draft: &mut Draft, root: Value<'_>) {
    let fields = &mut draft.fields;
    name(fields, "git.push", "scm");
    fields.text(Field::CiRef, root.str_at(&["ref"]));
    fields.text(Field::CiSha, root.str_at(&["after"]));
    fields.text(Field::ScmBefore, root.str_at(&["before"]));
    fields.text(Field::ScmAfter, root.str_at(&["after"]));
    fields.truth(Field::ScmForced, root.at(&["forced"]).and_then(Value::as_bool));
    if fields.get(Field::ActorId).is_none() {
        fields.text(Field::ActorId, root.str_at(&["pusher", "name"]));
    }
    fields.text(Field::Message, root.str_at(&["head_commit", "message"]));
    // A commit's own time is its author's; GitHub's is when the repository was pushed to. Servers that speak GitHub's form, as Gogs
    // does, say neither that nor which commit is the head: it is the last.
    let last = || root.get("commits")?.items().last()?.get("timestamp");
    draft.time = time_at(root, &["repository", "pushed_at"])
        .or_else(|| time_at(root, &["head_commit", "timestamp"]))
        .or_else(|| time_of(last()?));
}

fn git_ref(draft: &mut Draft, root: Value<'_>, event: &str) {
    let action = if event == "create" { "git.ref_created" } else { "git.ref_deleted" };
    name(&mut draft.fields, action, "scm");
    if let Some(short) = root.str_at(&["ref"]) {
        let folder = if root.str_at(&["ref_type"]) == Some("tag") { "tags" } else { "heads" };
        draft.fields.text(Field::CiRef, Some(format!("refs/{folder}/{short}")));
    }
    draft.time = time_at(root, &["repository", "pushed_at"]);
}

fn change(fields: &mut Fields, root: Value<'_>) {
    let Some(change) = root.get("pull_request") else { return };
    fields.int(Field::ChangeNumber, change.at(&["number"]).and_then(Value::as_i64));
    fields.text(Field::ChangeAuthor, change.str_at(&["user", "login"]));
    fields.text(Field::ChangeBase, change.str_at(&["base", "ref"]));
    fields.text(Field::ChangeHead, change.str_at(&["head", "sha"]));
    fields.text(Field::ChangeMergedBy, change.str_at(&["merged_by", "login"]));
    fields.text(Field::CiSha, change.str_at(&["head", "sha"]));
    fields.text(Field::CiRef, github_ref::of_change(change));
    fields.text(Field::Message, change.str_at(&["title"]));
}

fn pull_request(draft: &mut Draft, root: Value<'_>, action: &str) {
    change(&mut draft.fields, root);
    let change = root.get("pull_request").unwrap_or(root);
    let merged = change.at(&["merged"]).and_then(Value::as_bool) == Some(true);
    let (action, time) = match action {
        "opened" => ("change.opened".to_owned(), "created_at"),
        "reopened" => ("change.opened".to_owned(), "updated_at"),
        "synchronize" => ("change.updated".to_owned(), "updated_at"),
        "closed" if merged => ("change.merged".to_owned(), "merged_at"),
        "closed" => ("change.closed".to_owned(), "closed_at"),
        other => (format!("change.{other}"), "updated_at"),
    };
    name(&mut draft.fields, &action, "scm");
    if merged {
        draft.fields.text(Field::ScmAfter, change.str_at(&["merge_commit_sha"]));
    }
    draft.time = time_at(change, &[time]).or_else(|| time_at(change, &["updated_at"]));
}

fn review(draft: &mut Draft, root: Value<'_>, action: &str) {
    change(&mut draft.fields, root);
    let fields = &mut draft.fields;
    let action = match action {
        "submitted" => "change.reviewed",
        "dismissed" => "change.review_dismissed",
        _ => "change.review_edited",
    };
    name(fields, action, "scm");
    fields.text(Field::ChangeReviewState, root.str_at(&["review", "state"]).map(str::to_lowercase));
    fields.text(Field::CiSha, root.str_at(&["review", "commit_id"]));
    fields.text(Field::Message, None::<String>);
    draft.time = if action == "change.reviewed" {
        time_at(root, &["review", "submitted_at"])
    } else {
        time_at(root, &["pull_request", "updated_at"])
    };
}

fn conclusion(fields: &mut Fields, conclusion: Option<&str>) {
    if let Some(word) = conclusion {
        // `neutral` and `skipped` do not fail a run; `cancelled`, `timed_out`, `action_required`, `stale` do not pass it.
        fields.text(Field::Outcome, Some(outcome(matches!(word, "success" | "neutral" | "skipped"))));
        fields.text(Field::Reason, Some(word));
    }
}

fn run(draft: &mut Draft, root: Value<'_>, action: &str) {
    let Some(run) = root.get("workflow_run") else { return generic(draft, root, "workflow_run", action) };
    let (action, time) = match action {
        // A run keeps the time of its first attempt.
        "requested" if run.at(&["run_attempt"]).and_then(Value::as_i64).is_some_and(|attempt| attempt > 1) => {
            ("run.queued".to_owned(), "run_started_at")
        }
        "requested" => ("run.queued".to_owned(), "created_at"),
        "in_progress" => ("run.started".to_owned(), "run_started_at"),
        "completed" => ("run.finished".to_owned(), "updated_at"),
        other => (format!("run.{other}"), "updated_at"),
    };
    name(&mut draft.fields, &action, "job");
    set_run(&mut draft.fields, root, run);
    let fields = &mut draft.fields;
    fields.text(Field::CiWorkflow, root.str_at(&["workflow", "name"]).or_else(|| run.str_at(&["name"])));
    if let (Some(path), Some(git_ref)) = (run.str_at(&["path"]), fields.get_text(Field::CiRef)) {
        let path = path.split_once('@').map_or(path, |(path, _)| path);
        let workflow_ref = format!("{path}@{git_ref}");
        fields.text(Field::CiWorkflowRef, Some(workflow_ref));
    }
    fields.text(Field::ActorId, run.str_at(&["triggering_actor", "login"]));
    conclusion(fields, run.str_at(&["conclusion"]));
    draft.time = time_at(run, &[time]).or_else(|| time_at(run, &["updated_at"]));
}

fn set_run(fields: &mut Fields, root: Value<'_>, run: Value<'_>) {
    fields.text(Field::CiRunId, scalar(run, &["id"]));
    fields.int(Field::CiAttempt, run.at(&["run_attempt"]).and_then(Value::as_i64));
    let default = root.str_at(&["repository", "default_branch"]);
    fields.text(Field::CiRef, github_ref::of_run(run, root.get("repository"), default));
    fields.int(Field::ChangeNumber, github_ref::pull_request(run));
    fields.text(Field::CiSha, run.str_at(&["head_sha"]));
    fields.text(Field::CiTrigger, run.str_at(&["event"]));
}

fn job(draft: &mut Draft, root: Value<'_>, action: &str) {
    let Some(job) = root.get("workflow_job") else { return generic(draft, root, "workflow_job", action) };
    let (action, time) = match action {
        "queued" => ("job.queued".to_owned(), "created_at"),
        "waiting" => ("job.waiting".to_owned(), "created_at"),
        "in_progress" => ("job.started".to_owned(), "started_at"),
        "completed" => ("job.finished".to_owned(), "completed_at"),
        other => (format!("job.{other}"), "started_at"),
    };
    let fields = &mut draft.fields;
    name(fields, &action, "job");
    fields.text(Field::CiRunId, scalar(job, &["run_id"]));
    fields.text(Field::CiJobId, scalar(job, &["id"]));
    fields.int(Field::CiAttempt, job.at(&["run_attempt"]).and_then(Value::as_i64));
    // Neither what started the run nor whose branch `head_branch` is: a fork's `main` would look like this repository's.
    fields.text(Field::CiSha, job.str_at(&["head_sha"]));
    fields.text(Field::CiWorkflow, job.str_at(&["workflow_name"]));
    fields.text(Field::CiEnvironment, root.str_at(&["deployment", "environment"]));
    fields.text(Field::Message, job.str_at(&["name"]));
    fields.text(Field::RunnerName, job.str_at(&["runner_name"]));
    let labels: Vec<&str> = job.get("labels").into_iter().flat_map(Value::items).filter_map(Value::as_str).collect();
    fields.text(Field::RunnerLabels, Some(labels.join(",")));
    if let Some(kind) = runner_kind(job.str_at(&["runner_group_name"]), &labels) {
        fields.text(Field::RunnerKind, Some(kind));
    }
    conclusion(fields, job.str_at(&["conclusion"]));
    draft.time =
        time_at(job, &[time]).or_else(|| time_at(job, &["started_at"])).or_else(|| time_at(job, &["created_at"]));
}

/// GitHub says it nowhere outright: its own runners are in the group `GitHub Actions`, others carry the label.
fn runner_kind(group: Option<&str>, labels: &[&str]) -> Option<&'static str> {
    const HOSTED: &[&str] = &["ubuntu-", "windows-", "macos-"];
    if labels.iter().any(|label| label.eq_ignore_ascii_case("self-hosted")) {
        Some("self-hosted")
    } else if group == Some("GitHub Actions")
        || labels.iter().any(|label| HOSTED.iter().any(|os| label.starts_with(os)))
    {
        Some("github-hosted")
    } else {
        group.map(|_| "self-hosted")
    }
}

fn check(draft: &mut Draft, root: Value<'_>, event: &str, action: &str) {
    let Some(check) = root.get(event) else { return generic(draft, root, event, action) };
    let fields = &mut draft.fields;
    name(fields, if action == "completed" { "check.finished" } else { "check.started" }, "job");
    fields.text(Field::CiSha, check.str_at(&["head_sha"]));
    let branch = check.str_at(&["head_branch"]).or_else(|| check.str_at(&["check_suite", "head_branch"]));
    fields.text(Field::CiRef, github_ref::of_check(check, branch));
    fields.text(Field::Message, check.str_at(&["name"]).or_else(|| check.str_at(&["app", "slug"])));
    if let Some((_, rest)) = check.str_at(&["details_url"]).and_then(|url| url.split_once("/actions/runs/")) {
        // …/actions/runs/RUN/job/JOB
        let mut parts = rest.split(['/', '?']);
        fields.text(Field::CiRunId, parts.next());
        fields.text(Field::CiJobId, parts.next().filter(|part| *part == "job").and_then(|_| parts.next()));
    }
    conclusion(fields, check.str_at(&["conclusion"]));
    let times = match action {
        "completed" => ["completed_at", "updated_at"],
        "created" | "requested" => ["started_at", "created_at"],
        // Asked for once more: when, the check does not say.
        _ => return,
    };
    draft.time = times.iter().find_map(|time| time_at(check, &[time]));
}

fn set_deployment(fields: &mut Fields, root: Value<'_>) {
    let Some(deployment) = root.get("deployment") else { return };
    let environment = deployment.str_at(&["environment"]);
    fields.text(Field::CiEnvironment, environment);
    fields.text(Field::Environment, environment.map(tier));
    fields.text(Field::CiSha, deployment.str_at(&["sha"]));
    fields.text(Field::ConfigId, scalar(deployment, &["id"]));
    let run = root.get("workflow_run").filter(|run| run.is_object());
    let of_run = [&["creator", "login"][..], &["performed_via_github_app", "slug"]];
    let of_run =
        of_run.iter().any(|path| deployment.str_at(path).is_some_and(|name| name.starts_with("github-actions")));
    if run.is_none() && !of_run {
        // Somebody who may write to the repository named a branch, a tag or a commit of it.
        let default = root.str_at(&["repository", "default_branch"]);
        fields.text(Field::CiRef, deployment.str_at(&["ref"]).and_then(|name| told_ref(name, None, default)));
    }
    if let Some(run) = run {
        set_run(fields, root, run);
        fields.text(Field::CiWorkflow, run.str_at(&["name"]));
    }
}

fn deployment(draft: &mut Draft, root: Value<'_>) {
    name(&mut draft.fields, "deploy.started", "deploy");
    set_deployment(&mut draft.fields, root);
    draft.time = time_at(root, &["deployment", "created_at"]);
}

fn deployment_status(draft: &mut Draft, root: Value<'_>) {
    let state = root.str_at(&["deployment_status", "state"]).unwrap_or_default();
    let (action, success) = match state {
        "success" => ("deploy.finished", Some(true)),
        "failure" | "error" => ("deploy.finished", Some(false)),
        "inactive" => ("deploy.superseded", None),
        _ => ("deploy.progressed", None),
    };
    let fields = &mut draft.fields;
    name(fields, action, "deploy");
    fields.text(Field::Outcome, success.map(outcome));
    fields.text(Field::Reason, Some(state));
    set_deployment(fields, root);
    let environment = root.str_at(&["deployment_status", "environment"]);
    fields.text(Field::CiEnvironment, environment);
    fields.text(Field::Environment, environment.map(tier));
    draft.time = time_at(root, &["deployment_status", "created_at"]);
}

fn deployment_review(draft: &mut Draft, root: Value<'_>, action: &str) {
    let action = match action {
        "approved" => "deploy.approved",
        "rejected" => "deploy.rejected",
        _ => "deploy.review_requested",
    };
    let fields = &mut draft.fields;
    name(fields, action, "deploy");
    fields.text(Field::ActorId, root.str_at(&["approver", "login"]));
    let waiting = root
        .str_at(&["environment"])
        .or_else(|| root.get("workflow_job_runs")?.items().next()?.str_at(&["environment"]));
    fields.text(Field::CiEnvironment, waiting);
    fields.text(Field::Environment, waiting.map(tier));
    if let Some(run) = root.get("workflow_run") {
        set_run(fields, root, run);
    }
    draft.time = time_at(root, &["since"]);
}

fn package(draft: &mut Draft, root: Value<'_>, event: &str, action: &str) {
    let Some(package) = root.get(event) else { return generic(draft, root, event, action) };
    let fields = &mut draft.fields;
    name(fields, "artifact.published", "registry");
    let version = package.get("package_version");
    let digest = version.and_then(|version| {
        let tagged = version.str_at(&["container_metadata", "tag", "digest"]);
        [tagged, version.str_at(&["version"])].into_iter().flatten().find(|text| images::is_digest(text))
    });
    fields.text(Field::ArtifactDigest, digest);
    let url = version.and_then(|version| version.str_at(&["package_url"])).filter(|url| !url.is_empty());
    fields.text(Field::ArtifactName, url.or_else(|| package.str_at(&["name"])));
    let repo = match (package.str_at(&["namespace"]), package.str_at(&["name"])) {
        (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
        (_, name) => name.map(ToOwned::to_owned),
    };
    fields.text(Field::ArtifactRepo, repo);
    fields.text(Field::CiSha, version.and_then(|version| version.str_at(&["target_oid"])));
    draft.time = time_at(package, &["updated_at"]).or_else(|| time_at(package, &["created_at"]));
}

fn release(draft: &mut Draft, root: Value<'_>, action: &str) {
    name(&mut draft.fields, &format!("release.{action}"), "scm");
    let release = root.get("release").unwrap_or(root);
    draft.fields.text(Field::CiRef, release.str_at(&["tag_name"]).map(|tag| format!("refs/tags/{tag}")));
    draft.fields.text(Field::Message, release.str_at(&["name"]));
    draft.time = match action {
        "published" | "released" | "prereleased" => time_at(release, &["published_at"]),
        _ => created_or_updated(release, action),
    };
}

/// Any other event: named as GitHub names it, its time and its outcome where its subject says them.
fn generic(draft: &mut Draft, root: Value<'_>, event: &str, action: &str) {
    let full = if action.is_empty() { format!("github.{event}") } else { format!("github.{event}.{action}") };
    name(&mut draft.fields, &full, "scm");
    let state = match event {
        "status" => root.str_at(&["state"]),
        "page_build" => root.str_at(&["build", "status"]),
        _ => None,
    };
    // A status that is pending and a page that is being built have not ended.
    let success = match state {
        Some("success" | "built") => Some(true),
        Some("failure" | "error" | "errored") => Some(false),
        _ => None,
    };
    draft.fields.text(Field::Outcome, success.map(outcome));
    draft.fields.text(Field::Reason, state);
    draft.time = subject_time(root, event, action);
}
