//! Jenkins: lines of the audit-trail plugin, and events of the CloudEvents plugin.
//!
//! Sources: jenkinsci/audit-trail-plugin `AuditTrailFilter`, `AuditTrailRunListener`, `CredentialUsageListener`,
//! `ScriptUsageListener`, `AuthenticationAuditListener`; jenkinsci/cloudevents-plugin `JobModel`, `BuildModel`, `QueueModel`.
//! A line is a date in the words of an English `SimpleDateFormat`, without a zone, and free text; the Elasticsearch
//! logger puts the text under `message`.

use bytes::Bytes;
use engine::fields::{Field, Fields};
use engine::json::{Json, Value};
use engine::record::Record;
use pipeproof_engine as engine;

use super::{DEPTH_MAX, Draft, Undecodable, git_remote, jenkins_line, name, outcome, scalar, time_at};

const EXPECTED: &str = "a Jenkins event";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    if !record.body.trim_ascii_start().starts_with(b"{") {
        let text = std::str::from_utf8(&record.body).map_err(|_| Undecodable::Text)?;
        let mut draft = jenkins_line::decode(text).ok_or(Undecodable::Shape {
            expected: EXPECTED,
            problem: "it is neither JSON nor a line of the audit-trail plugin",
        })?;
        draft.native = Some(Bytes::from(serde_json::json!({ "message": text }).to_string()));
        return Ok(vec![draft]);
    }
    let json = Json::parse_within(&record.body, DEPTH_MAX)?;
    let root = json.root();
    // A structured CloudEvent, or only the data of a binary one.
    let data = root.get("data").filter(|data| data.is_object() && root.get("specversion").is_some()).unwrap_or(root);
    let mut draft = Draft::default();
    draft.fields.text(Field::CiProvider, Some("jenkins"));
    if data.get("build").is_some_and(Value::is_object) {
        build(&mut draft, data);
    } else if data.get("jenkinsQueueId").is_some() {
        queue(&mut draft, data);
    } else if data.get("createdDate").is_some() || data.get("updatedDate").is_some() || data.get("configFile").is_some()
    {
        item(&mut draft, data);
    } else if data.get("termReason").is_some() || data.get("nodeName").is_some() || data.get("computerName").is_some() {
        node(&mut draft, data);
    } else if let Some(mut line) = data.str_at(&["message"]).and_then(jenkins_line::decode) {
        line.time = line.time.or_else(|| time_at(data, &["@timestamp"]));
        return Ok(vec![line]);
    } else {
        let problem =
            "it has neither `build`, `jenkinsQueueId`, `configFile`, a node's name nor an audit-trail `message`";
        return Err(Undecodable::Shape { expected: EXPECTED, problem });
    }
    draft.time = draft.time.or_else(|| time_at(root, &["time"]));
    Ok(vec![draft])
}

/// Jenkins itself acts as `SYSTEM`, and who is not signed in as `anonymous`.
pub(super) fn actor(fields: &mut Fields, user: Option<&str>) {
    let Some(user) = user.filter(|user| !user.is_empty()) else { return };
    fields.text(Field::ActorId, Some(user));
    fields.text(Field::ActorType, Some(if user.eq_ignore_ascii_case("system") { "ci" } else { "human" }));
}

fn build(draft: &mut Draft, data: Value<'_>) {
    let build = data.get("build").unwrap_or(data);
    let fields = &mut draft.fields;
    let status = build.str_at(&["status"]);
    let action = match build.str_at(&["phase"]) {
        Some("STARTED") => "run.started",
        // The result is known; post-build steps may still run. `FINALIZED` says the same again when they have.
        Some("COMPLETED") => "run.finished",
        Some("FINALIZED") => "run.finalized",
        _ => "run.updated",
    };
    name(fields, action, "job");
    if action != "run.started"
        && let Some(status) = status
    {
        fields.text(Field::Outcome, Some(outcome(matches!(status, "SUCCESS" | "NOT_BUILT"))));
        fields.text(Field::Reason, Some(status.to_lowercase()));
    }
    actor(fields, data.str_at(&["userId"]));
    let number = scalar(build, &["number"]).unwrap_or_default();
    let job = full_name(data);
    // Numbers are counted per job, so only with it they name a run.
    fields.text(Field::CiRunId, job.as_ref().map(|job| format!("{job}#{number}")));
    fields.text(Field::CiWorkflow, job);
    fields.text(Field::CiRepo, build.str_at(&["scmState", "url"]).and_then(git_remote::repo));
    let branch = build.str_at(&["scmState", "branch"]).map(|branch| branch.strip_prefix("origin/").unwrap_or(branch));
    fields.text(Field::CiRef, branch.map(|branch| git_remote::full_ref(branch, false)));
    fields.text(Field::CiSha, build.str_at(&["scmState", "commit"]));
    draft.time = time_at(build, &["timestamp"]);
}

/// A job with the folders it is in, which only its address names.
fn full_name(data: Value<'_>) -> Option<String> {
    let name = data.str_at(&["name"]).or_else(|| data.str_at(&["displayName"]));
    data.str_at(&["url"]).and_then(jenkins_line::full_name).or_else(|| name.map(ToOwned::to_owned))
}

fn queue(draft: &mut Draft, data: Value<'_>) {
    let status = data.str_at(&["status"]).unwrap_or_default();
    let left = status == "LEFT";
    let fields = &mut draft.fields;
    name(fields, if left { "run.dequeued" } else { "run.queued" }, "job");
    fields.text(Field::Reason, Some(status.to_lowercase()));
    fields.text(Field::CiWorkflow, data.str_at(&["displayName"]));
    actor(fields, data.str_at(&["startedBy"]));
    draft.time = time_at(data, &["exitTime"]).filter(|_| left).or_else(|| time_at(data, &["entryTime"]));
}

/// A job was made, changed or deleted: its definition is what runs.
fn item(draft: &mut Draft, data: Value<'_>) {
    let action = match data.str_at(&["status"]) {
        Some("CREATED") => "workflow.created",
        Some("DELETED") => "workflow.deleted",
        _ => "workflow.updated",
    };
    let fields = &mut draft.fields;
    name(fields, action, "config");
    fields.text(Field::Outcome, Some("success"));
    actor(fields, data.str_at(&["userId"]));
    fields.text(Field::CiWorkflow, full_name(data));
    fields.text(Field::ConfigObject, Some("workflow"));
    fields.text(Field::ConfigId, data.str_at(&["url"]).map(ToOwned::to_owned).or_else(|| full_name(data)));
    draft.time = time_at(data, &["updatedDate"]).or_else(|| time_at(data, &["createdDate"]));
}

fn node(draft: &mut Draft, data: Value<'_>) {
    let status = data.str_at(&["status"]).unwrap_or("changed").to_lowercase();
    let fields = &mut draft.fields;
    name(fields, &format!("runner.{status}"), "job");
    fields.text(Field::RunnerName, data.str_at(&["nodeName"]).or_else(|| data.str_at(&["computerName"])));
    fields.text(Field::RunnerKind, Some("self-hosted"));
    fields.text(Field::ActorId, Some("SYSTEM"));
    fields.text(Field::ActorType, Some("ci"));
}
