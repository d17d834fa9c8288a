//! Entries of GitHub's audit log, as a source of their own or as plain JSON: their action keeps its name, and those that
//! change a guard say so.
//!
//! Source: GitHub "Audit log events for your organization"; attribute names as seen in samples. Where an entry does not
//! tell whether a guard became looser, `config.weakens` stays open, or is true where loosening is the usual case.

use engine::fields::{CompactString, Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, github_ref, object, outcome, scalar, time_at};

const EXPECTED: &str = "an entry of GitHub's audit log";

/// Start of an action → kind of setting, category, and whether it loosens (`None`: by its value).
const GUARDS: &[(&str, &str, &str, Option<bool>)] = &[
    ("protected_branch.create", "branch_protection", "config", Some(false)),
    ("protected_branch.destroy", "branch_protection", "config", Some(true)),
    ("protected_branch.policy_override", "branch_protection", "config", Some(true)),
    ("protected_branch.update_", "branch_protection", "config", None),
    ("repository_ruleset.create", "ruleset", "config", Some(false)),
    ("repository_ruleset.destroy", "ruleset", "config", Some(true)),
    ("repository_ruleset.update", "ruleset", "config", None),
    ("environment.remove_protection_rule", "environment_rule", "config", Some(true)),
    ("environment.update_protection_rule", "environment_rule", "config", None),
    ("environment.add_protection_rule", "environment_rule", "config", Some(false)),
    ("secret_scanning_push_protection.bypass", "secret_scanning", "config", Some(true)),
    ("repository_secret_scanning_push_protection.disable", "secret_scanning", "config", Some(true)),
    ("repository_secret_scanning.disable", "secret_scanning", "config", Some(true)),
    ("org.secret_scanning_push_protection_disable", "secret_scanning", "config", Some(true)),
    ("secret_scanning.disable", "secret_scanning", "config", Some(true)),
    ("business_secret_scanning.disable", "secret_scanning", "config", Some(true)),
    ("repo.advanced_security_disabled", "secret_scanning", "config", Some(true)),
    ("repo.immutable_releases_settings_disabled", "workflow_permissions", "config", Some(true)),
    ("audit_log_streaming.destroy", "audit_log", "audit", Some(true)),
    ("audit_log_streaming.disable", "audit_log", "audit", Some(true)),
    ("audit_log_streaming.", "audit_log", "audit", None),
    ("hook.destroy", "webhook", "audit", Some(true)),
    ("hook.events_changed", "webhook", "audit", Some(true)),
    ("hook.config_changed", "webhook", "audit", Some(true)),
    ("hook.", "webhook", "audit", None),
];
/// Ends of an action of an organisation, enterprise or repository that sets what workflows may do.
const WORKFLOW_GUARDS: &[&str] = &[
    ".set_default_workflow_permissions",
    ".set_workflow_permission_can_approve_pr",
    ".set_fork_pr_workflows_policy",
    ".set_actions_fork_pr_approvals_policy",
    ".actions_enabled",
];
/// Actions that create a credential, and its kind.
const TOKENS: &[(&str, &str)] = &[
    ("personal_access_token.access_granted", "pat"),
    ("personal_access_token.create", "pat"),
    ("oauth_access.create", "pat"),
    ("public_key.create", "deploy_key"),
    ("deploy_key.create", "deploy_key"),
];

/// How a token is named under `programmatic_access_type`, and its kind.
const ACCESS_TYPES: &[(&str, &str)] =
    &[("personal access token", "pat"), ("public key", "deploy_key"), ("app", "app"), ("oauth", "app")];

/// An entry of the stream, the REST interface or an export.
pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let Some(action) = root.str_at(&["action"]).filter(|action| !action.is_empty()) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `action`" });
    };
    let mut draft =
        Draft { time: time_at(root, &["@timestamp"]).or_else(|| time_at(root, &["created_at"])), ..Draft::default() };
    draft.fields.text(Field::Action, Some(action));
    entry(&mut draft.fields, root, action);
    run(&mut draft.fields, root);
    about(&mut draft.fields, root, action);
    Ok(vec![draft])
}

/// Adds what an audit log entry among plain JSON says; leaves other JSON alone.
pub(super) fn recognise(draft: &mut Draft, root: Value<'_>) {
    let text = |key: &str| root.str_at(&[key]);
    let Some(action) = text("action").filter(|action| action.contains('.')) else { return };
    let stamped = root.get("@timestamp").is_some() || root.get("created_at").is_some();
    let placed = ["org", "repo", "business", "user"].iter().any(|key| text(key).is_some());
    if stamped && placed {
        entry(&mut draft.fields, root, action);
    }
}

fn missing(fields: &mut Fields, field: Field, value: Option<impl Into<CompactString>>) {
    if fields.get(field).is_none() {
        fields.text(field, value);
    }
}

fn entry(fields: &mut Fields, root: Value<'_>, action: &str) {
    let text = |key: &str| root.str_at(&[key]).filter(|text| !text.is_empty());
    missing(fields, Field::ActorId, text("actor").or_else(|| text("user")));
    missing(fields, Field::CiRepo, text("repo").or_else(|| text("repository")));
    missing(fields, Field::CiProvider, Some("github"));
    missing(fields, Field::SrcIp, text("actor_ip"));
    missing(fields, Field::SrcCountry, root.str_at(&["actor_location", "country_code"]));
    missing(fields, Field::UserAgent, text("user_agent"));
    // Without a token the id is 0.
    let token = scalar(root, &["token_id"]).filter(|id| id != "0");
    missing(fields, Field::TokenId, token.or_else(|| scalar(root, &["hashed_token"])));
    let access = text("programmatic_access_type").map(str::to_lowercase);
    let kind = access.and_then(|access| ACCESS_TYPES.iter().find(|(part, _)| access.contains(part)));
    missing(fields, Field::TokenKind, kind.map(|(_, kind)| *kind));
    missing(fields, Field::ActorType, text("actor").map(|actor| actor_type(root, actor)));
    missing(fields, Field::Category, Some(category(action)));
    missing(fields, Field::Outcome, Some(outcome(succeeded(root, action))));
    if let Some((_, kind)) = TOKENS.iter().find(|(name, _)| *name == action) {
        fields.text(Field::Category, Some("token"));
        missing(fields, Field::TokenKind, Some(*kind));
    }
    guard(fields, root, action);
}

fn actor_type(root: Value<'_>, actor: &str) -> &'static str {
    // A boolean in one entry, `False` in the next.
    let bot = scalar(root, &["actor_is_bot"]).is_some_and(|text| text.eq_ignore_ascii_case("true"));
    match actor {
        "github-actions[bot]" | "github-actions" => "ci",
        "deploy_key" => "service",
        _ if bot || actor.ends_with("[bot]") => "service",
        _ => "human",
    }
}

/// An entry is of something done, unless it says by its name or a status that it was turned down.
fn succeeded(root: Value<'_>, action: &str) -> bool {
    let status = scalar(root, &["status_code"]).and_then(|text| text.parse::<u16>().ok());
    let refused = ["rejected", "failed", "denied"].iter().any(|word| action.contains(word));
    !refused && status.is_none_or(|status| status < 400)
}

/// The run, environment and change an entry is about; exports keep them under `data`.
fn run(fields: &mut Fields, root: Value<'_>) {
    let of = |key: &str| scalar(root, &[key]).or_else(|| scalar(root, &["data", key])).filter(|text| !text.is_empty());
    fields.text(Field::CiRunId, of("workflow_run_id"));
    fields.int(Field::CiAttempt, of("run_attempt").and_then(|text| text.parse().ok()));
    fields.text(Field::CiSha, of("head_sha"));
    // An entry does not say where the head is, nor which branch is the default.
    let of_event = of("event").zip(of("head_branch"));
    fields.text(Field::CiRef, of_event.and_then(|(event, head)| github_ref::of_event(&event, &head, None)));
    fields.text(Field::CiEnvironment, of("environment_name"));
    fields.text(Field::RunnerName, of("runner_name"));
    if fields.get(Field::CiRunId).is_some() {
        fields.text(Field::CiTrigger, of("event"));
        fields.text(Field::CiWorkflow, of("name"));
    }
}

/// What an entry is about where neither a repository nor a guard says it: a team, a person, an organisation. Secrets of
/// workflows are named by their key.
fn about(fields: &mut Fields, root: Value<'_>, action: &str) {
    let text = |key: &str| root.str_at(&[key]).filter(|text| !text.is_empty());
    if action.contains("_secret") && ["actions", "codespaces", "dependabot"].iter().any(|kind| action.contains(kind)) {
        fields.text(Field::Category, Some("secret"));
        fields.text(Field::SecretStore, Some("github"));
        let of = text("repo").or_else(|| text("org")).unwrap_or_default();
        fields.text(Field::SecretPath, text("key").map(|key| format!("{of}/{key}")));
    }
    if fields.get(Field::CiRepo).is_none() {
        let person = text("user").filter(|user| Some(*user) != text("actor"));
        missing(fields, Field::ConfigId, text("team").or(person).or_else(|| text("org")).or_else(|| text("business")));
    }
}

fn guard(fields: &mut Fields, root: Value<'_>, action: &str) {
    let known = GUARDS.iter().find(|(start, ..)| action.starts_with(start));
    let (object, category, weakens) = match known {
        Some((_, object, category, Some(weakens))) => (*object, *category, Some(*weakens)),
        Some((_, object, category, None)) => (*object, *category, by_value(root, action)),
        // Most of these loosen; what sets them tighter says so by its value.
        None if WORKFLOW_GUARDS.iter().any(|end| action.ends_with(end)) => {
            ("workflow_permissions", "config", Some(by_value(root, action).unwrap_or(true)))
        }
        None => return,
    };
    fields.text(Field::Category, Some(category));
    fields.text(Field::ConfigObject, Some(object));
    fields.truth(Field::ConfigWeakens, weakens);
    let id =
        ["name", "environment_name", "ruleset_name", "branch", "hook_id"].iter().find_map(|key| scalar(root, &[key]));
    fields.text(Field::ConfigId, id);
    let attribute = action.rsplit_once('.').map_or(action, |(_, verb)| verb);
    fields.text(Field::ConfigAttribute, Some(attribute.strip_prefix("update_").unwrap_or(attribute)));
    fields.text(Field::ConfigValue, new_value(root, action).map(|value| value.text().into_owned()));
}

/// The member that holds the new value of what the action set.
fn new_value<'a>(root: Value<'a>, action: &str) -> Option<Value<'a>> {
    let verb = action.rsplit_once('.').map_or(action, |(_, verb)| verb);
    let subject = ["update_", "set_"].iter().find_map(|head| verb.strip_prefix(head)).unwrap_or(verb);
    let names = [
        subject,
        "ruleset_enforcement",
        "new_policy",
        "policy",
        "new_value",
        "value",
        "permissions",
        "permission",
        "active",
        "enabled",
    ];
    names.iter().find_map(|name| root.get(name).or_else(|| root.at(&["data", name])))
}

/// Whether the new value is the looser one; `None` if it cannot be told.
fn by_value(root: Value<'_>, action: &str) -> Option<bool> {
    /// What a ruleset that is still in force lost, or whom it lets pass now.
    const LOST: &[&str] = &["ruleset_rules_deleted", "ruleset_conditions_deleted", "ruleset_bypass_actors_added"];
    let filled = |key: &str| {
        let value = root.get(key).or_else(|| root.at(&["data", key]));
        value.is_some_and(|value| {
            value.items().next().is_some() || value.as_str().is_some_and(|text| !matches!(text, "" | "[]"))
        })
    };
    if action == "repository_ruleset.update" && LOST.iter().any(|key| filled(key)) {
        return Some(true);
    }
    let value = new_value(root, action)?;
    // To allow something loosens; to require something tightens.
    let allows = action.contains("allow_") || action.contains("can_approve");
    let on = match value.text().to_lowercase().as_str() {
        "write" => return Some(true),
        "read" => return Some(false),
        "true" | "1" | "2" | "enabled" | "active" | "on" | "everyone" => true,
        "false" | "0" | "disabled" | "none" | "off" | "evaluate" => false,
        _ => return None,
    };
    Some(on == allows)
}

fn category(action: &str) -> &'static str {
    match action.split('.').next().unwrap_or_default() {
        "git" | "pull_request" | "pull_request_review" => "scm",
        "workflows" | "checks" => "job",
        "personal_access_token" | "oauth_access" | "public_key" | "deploy_key" | "oauth_application" => "token",
        "audit_log_streaming" | "hook" => "audit",
        "secret_scanning_alert" => "leak",
        "packages" => "registry",
        "environment"
        | "protected_branch"
        | "repository_ruleset"
        | "org"
        | "business"
        | "repo"
        | "team"
        | "user"
        | "enterprise"
        | "integration_installation"
        | "org_credential_authorization" => "config",
        _ => "cloud",
    }
}
