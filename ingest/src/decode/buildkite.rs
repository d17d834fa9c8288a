//! Buildkite: webhooks, the same events through Amazon EventBridge, and audit events.
//!
//! Sources: Buildkite "Webhooks", "Amazon EventBridge", "Audit events API". The REST interface calls an audit event
//! `SecretReadEvent`, GraphQL `SECRET_READ`; both are read alike. Of a webhook `sender` is who set it up, so who acted is
//! the creator of the build.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::git_remote::{self, full_ref};
use super::{Draft, Undecodable, name, object, outcome, scalar, time_at};

const EXPECTED: &str = "a Buildkite event";

/// Start of an audit event's name → action, category, kind of setting.
const AUDIT: &[(&str, &str, &str, &str)] = &[
    ("secret_read", "secret.read", "secret", ""),
    ("secret_created", "secret.written", "secret", ""),
    ("secret_updated", "secret.written", "secret", ""),
    ("secret_deleted", "secret.deleted", "secret", ""),
    ("secret_queried", "secret.list", "secret", ""),
    ("api_access_token_created", "token.created", "token", ""),
    ("user_api_access_token_created", "token.created", "token", ""),
    ("api_access_token_revoked", "token.revoked", "token", ""),
    ("cluster_token_created", "token.created", "token", ""),
    ("cluster_token_deleted", "token.deleted", "token", ""),
    ("agent_token_created", "token.created", "token", ""),
    ("agent_token_revoked", "token.revoked", "token", ""),
    ("pipeline_created", "workflow.created", "config", "workflow"),
    ("pipeline_updated", "workflow.updated", "config", "workflow"),
    ("pipeline_deleted", "workflow.deleted", "config", "workflow"),
    ("notification_service_deleted", "audit_log.disabled", "audit", "webhook"),
    ("notification_service_disabled", "audit_log.disabled", "audit", "webhook"),
    ("notification_service_", "webhook.changed", "config", "webhook"),
    ("organization_member_created", "access.added", "config", "member"),
    ("organization_member_deleted", "access.removed", "config", "member"),
    ("organization_member_updated", "access.edited", "config", "member"),
    ("organization_updated", "organization.configured", "config", "organization"),
    ("sso_provider_", "organization.configured", "config", "organization"),
];

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    if let Some(kind) = root.str_at(&["type"]).filter(|_| root.get("occurred_at").is_some()) {
        return Ok(vec![audit(root, kind)]);
    }
    // EventBridge says `Job Finished` where a webhook says `job.finished`.
    let detail = root.get("detail").filter(|detail| detail.is_object());
    let bridged = root.str_at(&["detail-type"]).filter(|_| detail.is_some());
    let named = record.envelope.attributes.get("x-buildkite-event").map(String::as_str);
    let event = match (root.str_at(&["event"]), bridged) {
        (Some(event), _) => event.to_owned(),
        (None, Some(title)) => title.to_lowercase().replacen(' ', ".", 1).replace(' ', "_"),
        (None, None) => named.unwrap_or_default().to_owned(),
    };
    let Some((what, verb)) = event.split_once('.').or_else(|| (event == "ping").then_some(("ping", ""))) else {
        let problem = "it has no `event`, `detail-type` or `type` and `occurred_at`";
        return Err(Undecodable::Shape { expected: EXPECTED, problem });
    };
    let body = detail.unwrap_or(root);
    let mut draft = Draft::default();
    common(&mut draft.fields, body);
    match what {
        "build" => build(&mut draft, body, verb),
        "job" => job(&mut draft, body, verb),
        "agent" => agent(&mut draft, body, verb),
        _ => name(&mut draft.fields, &format!("buildkite.{event}"), "audit"),
    }
    draft.time = draft.time.or_else(|| time_at(root, &["time"]));
    Ok(vec![draft])
}

/// Webhooks call it `id`, EventBridge `uuid`.
fn id(value: Value<'_>) -> Option<String> {
    scalar(value, &["uuid"]).or_else(|| scalar(value, &["id"]))
}

fn common(fields: &mut Fields, body: Value<'_>) {
    fields.text(Field::CiProvider, Some("buildkite"));
    let pipeline = body.get("pipeline");
    fields.text(Field::CiWorkflow, pipeline.and_then(|pipeline| pipeline.str_at(&["slug"])));
    let address = pipeline.and_then(|pipeline| pipeline.str_at(&["repository"]).or_else(|| pipeline.str_at(&["repo"])));
    fields.text(Field::CiRepo, address.and_then(git_remote::repo));
    let default = pipeline.and_then(|pipeline| pipeline.str_at(&["default_branch"]));
    fields.text(Field::ScmDefaultBranch, default);
    let Some(build) = body.get("build").filter(|build| build.is_object()) else { return };
    fields.text(Field::CiRunId, id(build));
    fields.text(Field::CiSha, build.str_at(&["commit"]).filter(|commit| *commit != "HEAD"));
    fields.text(Field::CiRef, build_ref(build, address.and_then(git_remote::repo)));
    fields.int(Field::ChangeNumber, scalar(build, &["pull_request", "id"]).and_then(|id| id.parse().ok()));
    fields.text(Field::CiTrigger, build.str_at(&["source"]));
    let creator = build.get("creator").filter(|creator| creator.is_object());
    let person = creator.and_then(|creator| creator.str_at(&["email"]).or_else(|| creator.str_at(&["name"])));
    // Builds of webhooks and schedules of people who have no account have no creator.
    fields.text(Field::ActorId, person.or_else(|| pipeline?.str_at(&["slug"])));
    fields.text(Field::ActorType, Some(if person.is_some() { "human" } else { "ci" }));
}

/// The ref of a build of the pipeline's repository. The branch of a fork's pull request may have any name, `main` too.
pub(super) fn build_ref(build: Value<'_>, repository: Option<String>) -> Option<String> {
    let head = build.str_at(&["pull_request", "repository"]).filter(|address| !address.is_empty());
    if head.is_some_and(|head| git_remote::repo(head).is_none_or(|head| Some(head) != repository)) {
        return None;
    }
    let tag = build.str_at(&["tag"]).filter(|tag| !tag.is_empty());
    tag.or_else(|| build.str_at(&["branch"])).map(|name| full_ref(name, tag.is_some()))
}

fn build(draft: &mut Draft, body: Value<'_>, verb: &str) {
    let build = body.get("build").unwrap_or(body);
    let (action, times): (String, &[&str]) = match verb {
        "scheduled" | "created" => ("run.queued".to_owned(), &["scheduled_at", "created_at"]),
        "running" | "started" => ("run.started".to_owned(), &["started_at"]),
        "finished" => ("run.finished".to_owned(), &["finished_at"]),
        // A job failed, others still run: the build's end is yet to come.
        other => (format!("run.{other}"), &[]),
    };
    name(&mut draft.fields, &action, "job");
    draft.fields.text(Field::Message, build.str_at(&["message"]));
    let state = build.str_at(&["state"]).unwrap_or_default();
    if action == "run.finished" {
        // One that waits for somebody is finished for now.
        let blocked = state == "blocked" || build.get("blocked").and_then(Value::as_bool) == Some(true);
        let success = matches!(state, "passed" | "skipped" | "not_run") || blocked;
        draft.fields.text(Field::Outcome, Some(outcome(success)));
        draft.fields.text(Field::Reason, Some(if blocked { "blocked" } else { state }));
    }
    draft.time = times.iter().find_map(|key| time_at(build, &[key]));
}

fn job(draft: &mut Draft, body: Value<'_>, verb: &str) {
    let job = body.get("job").unwrap_or(body);
    let (action, time): (String, &str) = match verb {
        "scheduled" => ("job.queued".to_owned(), "scheduled_at"),
        "started" => ("job.started".to_owned(), "started_at"),
        "finished" => ("job.finished".to_owned(), "finished_at"),
        "activated" => ("deploy.approved".to_owned(), "unblocked_at"),
        other => (format!("job.{other}"), "created_at"),
    };
    let fields = &mut draft.fields;
    name(fields, &action, if verb == "activated" { "deploy" } else { "job" });
    fields.text(Field::CiJobId, id(job));
    fields.text(
        Field::Message,
        job.str_at(&["name"]).or_else(|| job.str_at(&["label"])).or_else(|| job.str_at(&["step_key"])),
    );
    fields.int(
        Field::CiAttempt,
        job.get("retries_count").and_then(Value::as_i64).map(|retries| retries.saturating_add(1)),
    );
    if let Some(person) = job.str_at(&["unblocked_by", "email"]).or_else(|| job.str_at(&["unblocked_by", "name"])) {
        fields.text(Field::ActorId, Some(person));
        fields.text(Field::ActorType, Some("human"));
    }
    if let Some(agent) = job.get("agent").filter(|agent| agent.is_object()) {
        runner(fields, agent);
    }
    if verb == "finished" {
        let state = job.str_at(&["state"]).unwrap_or_default();
        let passed = job.get("passed").and_then(Value::as_bool);
        let exit = scalar(job, &["exit_status"]);
        // `finished` is both in EventBridge: the exit status tells.
        let success = passed.unwrap_or(state == "passed" || (state == "finished" && exit.as_deref() == Some("0")));
        fields.text(Field::Outcome, Some(outcome(success)));
        fields.text(Field::Reason, exit.map(|exit| format!("{state}, exit status {exit}")).or(Some(state.to_owned())));
    }
    draft.time = time_at(job, &[time]);
}

/// Agents run where the organisation put them, unless a cluster's queue is hosted.
fn runner(fields: &mut Fields, agent: Value<'_>) {
    fields.text(Field::RunnerName, agent.str_at(&["name"]).map(ToOwned::to_owned).or_else(|| id(agent)));
    fields.text(Field::RunnerIp, agent.str_at(&["ip_address"]).or_else(|| agent.str_at(&["ip"])));
    let tags: Vec<&str> = agent.get("meta_data").into_iter().flat_map(Value::items).filter_map(Value::as_str).collect();
    let hosted = agent.str_at(&["hostname"]).is_some_and(|host| host.contains("hosted.buildkite"));
    fields.text(Field::RunnerKind, Some(if hosted { "buildkite-hosted" } else { "self-hosted" }));
    fields.text(Field::RunnerLabels, Some(tags.join(",")));
}

fn agent(draft: &mut Draft, body: Value<'_>, verb: &str) {
    let agent = body.get("agent").unwrap_or(body);
    let fields = &mut draft.fields;
    name(fields, &format!("runner.{verb}"), "job");
    runner(fields, agent);
    // Its creator made the token it registered with, once: what it does is its own.
    fields.text(Field::ActorId, agent.str_at(&["name"]));
    fields.text(Field::ActorType, Some("ci"));
    let time = match verb {
        "disconnected" => "disconnected_at",
        "lost" => "lost_at",
        "stopping" | "stopped" => "stopped_at",
        _ => "connected_at",
    };
    draft.time = time_at(agent, &[time]).or_else(|| time_at(agent, &["created_at"]).filter(|_| verb == "connected"));
}

fn audit(root: Value<'_>, kind: &str) -> Draft {
    let kind = snake(kind.strip_suffix("Event").unwrap_or(kind));
    let known = AUDIT.iter().find(|(start, ..)| kind.starts_with(start));
    let mut draft = match known {
        Some((_, action, category, _)) => Draft::new(*action, category),
        None => Draft::new(format!("buildkite.{kind}"), "audit"),
    };
    draft.time = time_at(root, &["occurred_at"]);
    let fields = &mut draft.fields;
    fields.text(Field::CiProvider, Some("buildkite"));
    fields.text(Field::Outcome, Some("success"));
    let actor = root.get("actor").unwrap_or(root);
    fields.text(Field::ActorId, actor.str_at(&["name"]).map(ToOwned::to_owned).or_else(|| id(actor)));
    let actor_type = actor.str_at(&["type"]).map(|kind| match snake(kind).as_str() {
        "user" => "human",
        "agent" | "job" => "ci",
        _ => "service",
    });
    fields.text(Field::ActorType, actor_type);
    let context = root.get("context").unwrap_or(root);
    let ip = context.str_at(&["request_ip"]).or_else(|| context.str_at(&["request_ip_address"]));
    fields.text(Field::SrcIp, ip.or_else(|| context.str_at(&["agent_ip"])));
    fields.text(Field::UserAgent, context.str_at(&["request_user_agent"]));
    fields
        .text(Field::CiJobId, context.str_at(&["job_uuid"]).map(ToOwned::to_owned).or_else(|| id(context.get("job")?)));
    fields.text(
        Field::CiRunId,
        context.str_at(&["build_uuid"]).map(ToOwned::to_owned).or_else(|| id(context.get("build")?)),
    );
    let subject = root.get("subject").unwrap_or(root);
    let named = subject.str_at(&["name"]).map(ToOwned::to_owned).or_else(|| id(subject));
    match known {
        Some((_, _, "secret", _)) => {
            fields.text(Field::SecretStore, Some("buildkite"));
            fields.text(Field::SecretPath, named);
        }
        Some((_, _, "token", _)) => {
            fields.text(Field::TokenKind, Some("static"));
            fields.text(Field::TokenIssuer, Some("buildkite"));
            fields.text(Field::TokenId, id(subject));
        }
        Some((_, _, _, object)) => {
            fields.text(Field::ConfigObject, Some(*object));
            fields.text(Field::ConfigId, named);
        }
        None => fields.text(Field::ConfigId, named),
    }
    draft
}

/// `SecretRead` and `SECRET_READ` as `secret_read`. Initials in a row are one word.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut before_lower = false;
    for char in name.chars() {
        if char.is_ascii_uppercase() && before_lower {
            out.push('_');
        }
        before_lower = char.is_ascii_lowercase() || char.is_ascii_digit();
        out.push(if char == ' ' { '_' } else { char.to_ascii_lowercase() });
    }
    out
}
