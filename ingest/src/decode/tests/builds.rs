//! What formats of source hosts and CI systems do not carry, told by the item itself: as in [`super::excused`].

use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::Value;

use super::excused::{any, any_is, at};
use super::measured::Part;

/// Lines of the audit-trail plugin are of requests, and of builds that ended; events of other plugins say how in their `status`.
pub(super) fn jenkins(part: Part, root: &Value, text: &str) -> Option<&'static str> {
    let judged = ["completed: ", "login", "used credentials"].iter().any(|word| text.contains(word))
        || any(root, &["/data/build/status", "/build/status"]);
    match part {
        Part::Outcome if !judged => Some("asked for: how it ended is not said"),
        Part::Join if !text.contains("job/") && !text.contains(" #") => Some("about the controller or a person"),
        _ => None,
    }
}

/// What a provider's list says of a run, a deployment or a change.
pub(super) fn ledger(part: Part, root: &Value) -> Option<&'static str> {
    let people = ["actor", "triggering_actor", "creator", "user"];
    let named = people.iter().any(|name| root.pointer(&format!("/object/{name}")).is_some_and(|who| !who.is_null()));
    match part {
        // Who merged a change is a field of its own.
        Part::Actor if !named => Some("the list does not say who did it"),
        Part::Outcome
            if ["in_progress", "queued", "pending", "waiting"].iter().any(|state| {
                any_is(root, "/status/state", state)
                    || any_is(root, "/object/status", state)
                    || root.to_string().contains(&format!("\"state\":\"{state}\""))
            }) =>
        {
            Some("it has not ended yet")
        }
        _ => None,
    }
}

pub(super) fn github_webhook(action: &str, part: Part, root: &Value) -> Option<&'static str> {
    let has = |name: &str| root.get(name).is_some();
    match part {
        Part::Outcome => {
            // A run or check that ended has a conclusion, a status of a deployment, commit or page a state.
            let judged = match action.split_once('.').map_or(action, |(subject, _)| subject) {
                "run" => any(root, &["/workflow_run/conclusion"]),
                "job" => any(root, &["/workflow_job/conclusion"]),
                "check" => any(root, &["/check_run/conclusion", "/check_suite/conclusion"]),
                "deploy" => ["success", "failure", "error"]
                    .iter()
                    .any(|word| at(root, "/deployment_status/state").as_deref() == Some(word)),
                _ => ["success", "failure", "error", "built", "errored"]
                    .iter()
                    .any(|word| ["/state", "/build/status"].iter().any(|path| at(root, path).as_deref() == Some(word))),
            };
            (!judged).then_some("nothing ended: it happened")
        }
        Part::Time => {
            // What runs, is merged, deployed, released or found has a time; that it was asked for, edited or
            // withdrawn has none.
            const TIMED: &[&str] =
                &["run.", "job.", "change.", "deploy.", "release.", "check.", "git.", "leak.", "artifact."];
            const UNTIMED: &[&str] = &[".dispatched", ".deleted", ".edited", ".reopened", "check.started"];
            let timed =
                TIMED.iter().any(|head| action.starts_with(head)) && !UNTIMED.iter().any(|end| action.ends_with(end));
            (!timed).then_some("the payload has no time of this action")
        }
        Part::Actor if !has("sender") => Some("GitHub itself says so"),
        Part::Join if !has("repository") => Some("about an organisation or app"),
        _ => None,
    }
}

pub(super) fn gitlab_webhook(action: &str, part: Part, root: &Value) -> Option<&'static str> {
    let has = |name: &str| root.get(name).is_some();
    match part {
        Part::Time => match action {
            "git.push" | "git.ref_deleted" => Some("a push has no time"),
            _ if action.ends_with("deleted") || action.ends_with("removed") => {
                Some("what is gone has older times only")
            }
            _ if !has("build_started_at") || action == "job.queued" => Some("the payload has no time of this action"),
            _ => None,
        },
        Part::Actor if !has("user") && !has("user_name") || has("event_name") => {
            Some("system hooks and releases do not say who did it")
        }
        Part::Join if action == "user.login" => Some("about a person, who is the actor"),
        Part::Outcome if action == "change.updated" => Some("nothing ended: it happened"),
        _ => None,
    }
}

pub(super) fn job_log(kind: SourceType, part: Part, text: &str) -> Option<&'static str> {
    // What a runner ends a log with, where it does.
    let ends: &[&str] = match kind {
        SourceType::GitlabJoblog => &["Job succeeded", "ERROR: Job failed"],
        SourceType::JenkinsJoblog => &["Finished: "],
        _ => &[],
    };
    match part {
        Part::Actor if !text.contains("Started by user ") => Some("the sender names the job in the request"),
        Part::Join if !text.contains("Checking out ") => Some("the sender names the job in the request"),
        Part::Outcome if !ends.iter().any(|end| text.contains(end)) => Some("the log does not say how the job ended"),
        Part::Time if kind == SourceType::JenkinsJoblog && !text.starts_with("[20") => {
            Some("a console log without the Timestamper plugin")
        }
        _ => None,
    }
}
