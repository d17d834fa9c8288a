//! When a GitHub webhook event happened. No payload says so at its top: its subject does, in the member that this action
//! sets. Any other time of the subject is an older one, and worse than none: without one the event has the time at which
//! it was received, a few seconds later.

use engine::json::Value;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::time_at;

/// Member of the subject that an action sets.
const SET_BY: &[(&str, &str)] = &[
    ("closed", "closed_at"),
    ("closed_by_user", "dismissed_at"),
    ("dismissed", "dismissed_at"),
    ("auto_dismissed", "auto_dismissed_at"),
    ("dismiss", "dismissed_at"),
    ("fixed", "fixed_at"),
    ("resolve", "fixed_at"),
    ("resolved", "resolved_at"),
    ("archived", "archived_at"),
    ("suspend", "suspended_at"),
    ("published", "published_at"),
    ("withdrawn", "withdrawn_at"),
];

/// When the subject of an event says that this action was.
pub(super) fn subject_time(root: Value<'_>, event: &str, action: &str) -> Option<Timestamp> {
    let subject = match event {
        "branch_protection_rule" => root.get("rule"),
        "deploy_key" => root.get("key"),
        "fork" => return time_at(root, &["forkee", "created_at"]),
        "page_build" => root.get("build"),
        "issues" => root.get("issue"),
        "issue_comment" | "commit_comment" | "pull_request_review_comment" | "discussion_comment" => {
            root.get("comment")
        }
        "pull_request_review_thread" => root.get("pull_request"),
        "organization" if action == "member_invited" => return time_at(root, &["invitation", "created_at"]),
        "star" => return time_at(root, &["starred_at"]),
        "status" => Some(root),
        "exemption_request_push_ruleset" | "bypass_request_push_ruleset" => match action {
            "response_submitted" => root.get("exemption_response"),
            _ => root.get("exemption_request"),
        },
        // Their subject is a person, a team or an organisation: its times are of its own life, not of this change.
        "member" | "membership" | "organization" | "team" | "team_add" | "org_block" => return None,
        // What a repository says of its last change is not moved by a change of its settings.
        "repository" if action != "created" => return None,
        other if other.ends_with("_alert") => root.get("alert"),
        other => root.get(other),
    }?;
    created_or_updated(subject, action)
}

/// The time of the subject that an action sets.
pub(super) fn created_or_updated(subject: Value<'_>, action: &str) -> Option<Timestamp> {
    let created = time_at(subject, &["created_at"]);
    match action {
        "created" | "create" | "opened" | "requested" => created.or_else(|| time_at(subject, &["updated_at"])),
        // Events without an action: a status, a build.
        "" => time_at(subject, &["updated_at"]).or(created),
        "response_submitted" => created,
        "deleted" | "removed" | "transferred" => None,
        _ => {
            let own = SET_BY.iter().find(|(name, _)| *name == action);
            let own = own.and_then(|(_, member)| time_at(subject, &[member]));
            // Where nothing changed since the creation, this action did not touch it.
            own.or_else(|| time_at(subject, &["updated_at"]).filter(|updated| Some(*updated) != created))
        }
    }
}
