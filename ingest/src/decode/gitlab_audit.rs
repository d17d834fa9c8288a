//! GitLab audit events: streamed, or lines of `audit_json.log`.
//!
//! Source: GitLab "Audit event schema" and "Audit event types". `details` has no schema; `custom_message` is text or an
//! object. Authors that are no users have numbers below zero or a class of their own. An audit event is of something done,
//! except for sign-ins that failed.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, object, outcome, scalar, time_at};

const EXPECTED: &str = "a GitLab audit event";

/// Event type → action, category, kind of setting, whether it loosens a guard (`None`: it does not say).
type Meaning = (&'static str, &'static str, &'static str, Option<bool>);
const MEANINGS: &[(&str, Meaning)] = &[
    ("protected_branch_created", ("protected_branch.create", "config", "branch_protection", Some(false))),
    ("protected_branch_removed", ("protected_branch.destroy", "config", "branch_protection", Some(true))),
    ("protected_branch_updated", ("protected_branch.update", "config", "branch_protection", None)),
    (
        "protected_branch_code_owner_approval_required_updated",
        ("protected_branch.update", "config", "branch_protection", None),
    ),
    ("protected_tag_created", ("protected_tag.create", "config", "branch_protection", Some(false))),
    ("protected_tag_removed", ("protected_tag.destroy", "config", "branch_protection", Some(true))),
    ("protected_branch_allow_force_push_updated", ("protected_branch.update", "config", "branch_protection", None)),
    ("environment_protected", ("environment.add_protection_rule", "config", "environment_rule", Some(false))),
    ("environment_unprotected", ("environment.remove_protection_rule", "config", "environment_rule", Some(true))),
    (
        "protected_environment_approval_rule_deleted",
        ("environment.remove_protection_rule", "config", "environment_rule", Some(true)),
    ),
    ("approval_rule_created", ("approval_rule.create", "config", "ruleset", Some(false))),
    ("approval_rule_deleted", ("approval_rule.destroy", "config", "ruleset", Some(true))),
    ("approval_rule_destroyed", ("approval_rule.destroy", "config", "ruleset", Some(true))),
    ("update_approval_rules", ("approval_rule.update", "config", "ruleset", None)),
    (
        "skip_secret_push_protection",
        ("secret_scanning_push_protection.bypass", "config", "secret_scanning", Some(true)),
    ),
    (
        "skip_pre_receive_secret_detection",
        ("secret_scanning_push_protection.bypass", "config", "secret_scanning", Some(true)),
    ),
    ("push_rules_reject_unsigned_commits_changed", ("push_rule.update", "config", "branch_protection", None)),
    ("personal_access_token_created", ("token.created", "token", "", None)),
    ("personal_access_token_revoked", ("token.revoked", "token", "", None)),
    ("project_access_token_created", ("token.created", "token", "", None)),
    ("project_access_token_deleted", ("token.deleted", "token", "", None)),
    ("group_access_token_created", ("token.created", "token", "", None)),
    ("group_access_token_deleted", ("token.deleted", "token", "", None)),
    ("deploy_token_created", ("token.created", "token", "", None)),
    ("deploy_token_deleted", ("token.deleted", "token", "", None)),
    ("deploy_token_revoked", ("token.revoked", "token", "", None)),
    ("deploy_token_destroyed", ("token.deleted", "token", "", None)),
    ("group_deploy_token_created", ("token.created", "token", "", None)),
    ("group_deploy_token_revoked", ("token.revoked", "token", "", None)),
    ("group_deploy_token_destroyed", ("token.deleted", "token", "", None)),
    ("deploy_key_added", ("token.created", "token", "deploy_key", None)),
    ("deploy_key_removed", ("token.deleted", "token", "deploy_key", None)),
    ("add_ssh_key", ("token.created", "token", "", None)),
    ("remove_ssh_key", ("token.deleted", "token", "", None)),
    ("cluster_agent_token_created", ("token.created", "token", "", None)),
    ("cluster_agent_token_revoked", ("token.revoked", "token", "", None)),
    ("ci_variable_created", ("secret.written", "secret", "", None)),
    ("ci_variable_updated", ("secret.written", "secret", "", None)),
    ("ci_variable_deleted", ("secret.deleted", "secret", "", None)),
    ("ci_group_variable_created", ("secret.written", "secret", "", None)),
    ("ci_group_variable_updated", ("secret.written", "secret", "", None)),
    ("ci_group_variable_deleted", ("secret.deleted", "secret", "", None)),
    ("variable_viewed_api", ("secret.read", "secret", "", None)),
    ("member_created", ("access.added", "config", "member", None)),
    ("member_updated", ("access.edited", "config", "member", None)),
    ("member_destroyed", ("access.removed", "config", "member", None)),
    ("merge_request_create", ("change.opened", "scm", "", None)),
    ("approval_created", ("change.reviewed", "scm", "", None)),
    ("merge_request_merged", ("change.merged", "scm", "", None)),
    ("project_visibility_level_updated", ("repo.visibility_changed", "config", "repository", None)),
    ("set_runner_associated_projects", ("runner.assigned", "config", "runner", None)),
    ("ci_runner_registered", ("runner.registered", "config", "runner", None)),
    ("ci_runner_unregistered", ("runner.removed", "config", "runner", None)),
    ("user_login", ("user.login", "audit", "", None)),
    ("login_failed_with_standard_authentication", ("user.login", "audit", "", None)),
    ("login_failed_with_otp_authentication", ("user.login", "audit", "", None)),
    ("omniauth_login_failed", ("user.login", "audit", "", None)),
];

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    if root.get("entity_type").is_none() || root.get("author_id").is_none() {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `author_id` and `entity_type`" });
    }
    let time = time_at(root, &["created_at"]).or_else(|| time_at(root, &["time"]));
    let mut draft = Draft { time, ..Draft::default() };
    let kind = text(root, "event_type").or_else(|| text(root, "event_name")).or_else(|| header(record));
    name(&mut draft.fields, root, kind);
    who_and_where(&mut draft.fields, root);
    what(&mut draft.fields, root, kind.unwrap_or_default());
    Ok(vec![draft])
}

fn header(record: &Record) -> Option<&str> {
    record.envelope.attributes.get("x-gitlab-audit-event-type").map(String::as_str)
}

/// A member of the event, or of its `details`, where earlier versions kept most.
fn text<'a>(root: Value<'a>, key: &str) -> Option<&'a str> {
    let found = root.str_at(&[key]).or_else(|| root.str_at(&["details", key]));
    found.filter(|text| !text.is_empty())
}

fn name(fields: &mut Fields, root: Value<'_>, kind: Option<&str>) {
    let Some(kind) = kind else {
        // Lines of older versions only say what changed.
        let change = text(root, "change").map(|change| change.replace(' ', "_"));
        fields.text(
            Field::Action,
            Some(change.map_or("gitlab.audit".to_owned(), |change| format!("gitlab.{change}_changed"))),
        );
        fields.text(Field::Category, Some("audit"));
        return;
    };
    if kind == "repository_git_operation" {
        let command = root.str_at(&["details", "custom_message", "action"]).unwrap_or_default();
        fields.text(Field::Action, Some(if command == "git-receive-pack" { "git.push" } else { "git.clone" }));
        fields.text(Field::Category, Some("scm"));
        return;
    }
    // Where audit events are streamed to: names differ by destination and scope.
    if kind.contains("streaming_destination")
        || kind.contains("logging_configuration")
        || kind.contains("s3_configuration")
    {
        let gone = kind.contains("destroy") || kind.contains("deleted") || kind.contains("deactivate");
        fields.text(Field::Action, Some(if gone { "audit_log.disabled" } else { "audit_log.changed" }));
        fields.text(Field::Category, Some("audit"));
        fields.text(Field::ConfigObject, Some("audit_log"));
        fields.truth(Field::ConfigWeakens, gone.then_some(true));
        return;
    }
    match MEANINGS.iter().find(|(name, _)| *name == kind) {
        Some((_, (action, category, object, weakens))) => {
            fields.text(Field::Action, Some(*action));
            fields.text(Field::Category, Some(*category));
            fields.text(Field::ConfigObject, Some(*object));
            fields.truth(Field::ConfigWeakens, *weakens);
        }
        None => {
            fields.text(Field::Action, Some(format!("gitlab.{kind}")));
            fields.text(Field::Category, Some("audit"));
        }
    }
}

fn who_and_where(fields: &mut Fields, root: Value<'_>) {
    let author = text(root, "author_name").map(ToOwned::to_owned).or_else(|| scalar(root, &["author_id"]));
    fields.text(Field::ActorId, author);
    fields.text(Field::ActorType, Some(actor_type(root)));
    fields.text(Field::SrcIp, text(root, "ip_address").or_else(|| root.str_at(&["meta.remote_ip"])));
    fields.text(Field::CiProvider, Some("gitlab"));
    let path = text(root, "entity_path").or_else(|| root.str_at(&["meta.project"]));
    fields.text(Field::CiRepo, path.filter(|_| root.str_at(&["entity_type"]) == Some("Project")));
}

/// Deploy keys, deploy tokens, runners and the system itself are authors of their own classes, with numbers below zero
/// in older versions.
fn actor_type(root: Value<'_>) -> &'static str {
    let class = text(root, "author_class").unwrap_or_default();
    let bot = text(root, "author_name").is_some_and(|name| name.ends_with(" bot") || name.contains("_bot_"));
    if class.contains("Unauthenticated") {
        // Somebody at the sign-in page.
        "human"
    } else if class.contains("CiRunnerToken") || class.contains("CiJobToken") {
        "ci"
    } else if bot
        || (!class.is_empty() && class != "User")
        || root.get("author_id").and_then(Value::as_i64).is_some_and(|id| id < 0)
    {
        "service"
    } else {
        "human"
    }
}

fn what(fields: &mut Fields, root: Value<'_>, kind: &str) {
    let failed = kind.contains("failed") || text(root, "failed_login").is_some();
    fields.text(Field::Outcome, Some(outcome(!failed)));
    let target = text(root, "target_details");
    fields.text(Field::ConfigId, target);
    fields.text(Field::ConfigAttribute, text(root, "change"));
    fields.text(Field::ConfigValue, scalar(root, &["details", "to"]).or_else(|| scalar(root, &["to"])));
    if kind.starts_with("protected_branch_") && kind.ends_with("updated") {
        // To allow force pushes loosens; to require something tightens.
        let allows = kind.contains("force_push") || text(root, "change").is_some_and(|change| change.contains("force"));
        let on = scalar(root, &["details", "to"]).or_else(|| scalar(root, &["to"]));
        let on = on.and_then(|to| to.to_lowercase().parse::<bool>().ok());
        fields.truth(Field::ConfigWeakens, on.map(|on| on == allows));
    }
    let message = root.at(&["details", "custom_message"]);
    fields.text(Field::Message, message.map(|message| message.text().into_owned()));
    match fields.get_text(Field::Category) {
        Some("token") => {
            fields.text(Field::TokenId, scalar(root, &["target_id"]));
            fields.text(Field::TokenIssuer, Some("gitlab"));
            fields.text(Field::TokenKind, Some(token_kind(kind)));
        }
        Some("secret") => {
            fields.text(Field::SecretStore, Some("gitlab"));
            let of = text(root, "entity_path").unwrap_or_default();
            // All variables at once are those of the project or group itself.
            let all = matches!(text(root, "target_type"), Some("Project" | "Group"));
            let path = target.map(|name| if all { of.to_owned() } else { format!("{of}/{name}") });
            fields.text(Field::SecretPath, path);
            // That of a hidden variable is that it is there.
            if fields.get_text(Field::Message).is_some_and(|message| message.ends_with("no value shown)")) {
                fields.text(Field::Action, Some("secret.list"));
            }
        }
        _ => {}
    }
    if text(root, "target_type") == Some("MergeRequest") {
        fields.int(Field::ChangeNumber, root.at(&["details", "target_iid"]).and_then(Value::as_i64));
    }
}

fn token_kind(kind: &str) -> &'static str {
    if kind.starts_with("deploy_key") {
        "deploy_key"
    } else if kind.contains("personal_access_token") {
        "pat"
    } else {
        "static"
    }
}
