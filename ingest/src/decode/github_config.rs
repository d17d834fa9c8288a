//! GitHub webhook events that change a guard, a credential or who has access.

use engine::fields::{Field, Fields};
use engine::json::Value;
use pipeproof_engine as engine;

use super::github_times::subject_time;
use super::{Draft, name, scalar, time_at};

/// Decodes such an event; `false` if it is none of them.
pub(super) fn decode(draft: &mut Draft, root: Value<'_>, event: &str, action: &str) -> bool {
    draft.time = subject_time(root, event, action);
    match event {
        "branch_protection_rule" => protection_rule(draft, root, action),
        "branch_protection_configuration" => protection_switch(draft, action),
        "repository_ruleset" => ruleset(draft, root, action),
        "exemption_request_push_ruleset" | "bypass_request_push_ruleset" => ruleset_bypass(draft, root, event, action),
        "security_and_analysis" => security_features(draft, root),
        "secret_scanning_alert" => secret_alert(draft, root, action),
        "deploy_key" => deploy_key(draft, root, action),
        "personal_access_token_request" => token_request(draft, root, action),
        "meta" => hook_deleted(draft, root),
        "repository" | "public" => repository(draft, event, action),
        "installation" | "installation_repositories" => app(draft, root, action),
        "member" | "membership" | "organization" | "team" | "team_add" | "org_block" => {
            access(draft, root, event, action);
        }
        _ => return false,
    }
    true
}

fn guard(fields: &mut Fields, object: &str, id: Option<String>, weakens: Option<bool>) {
    fields.text(Field::ConfigObject, Some(object));
    fields.text(Field::ConfigId, id);
    fields.truth(Field::ConfigWeakens, weakens);
}

fn protection_rule(draft: &mut Draft, root: Value<'_>, action: &str) {
    let fields = &mut draft.fields;
    let verb = match action {
        "created" => "create",
        "deleted" => "destroy",
        _ => "update",
    };
    name(fields, &format!("protected_branch.{verb}"), "config");
    let rule = root.get("rule").unwrap_or(root);
    let weakens = match action {
        "created" => false,
        "deleted" => true,
        _ => {
            let changes = root.get("changes").into_iter().flat_map(Value::entries);
            let changed: Vec<(&str, bool)> =
                changes.map(|(key, change)| (key, attribute_weakens(key, change.get("from"), rule.get(key)))).collect();
            let keys: Vec<&str> = changed.iter().map(|(key, _)| *key).collect();
            fields.text(Field::ConfigAttribute, Some(keys.join(",")));
            if let [(key, _)] = changed.as_slice() {
                fields.text(Field::ConfigValue, rule.get(key).map(|value| value.text().into_owned()));
            }
            changed.iter().any(|(_, weakens)| *weakens)
        }
    };
    guard(fields, "branch_protection", rule.str_at(&["name"]).map(ToOwned::to_owned), Some(weakens));
}

/// Whether an attribute of a branch protection rule became looser.
fn attribute_weakens(key: &str, from: Option<Value<'_>>, to: Option<Value<'_>>) -> bool {
    let (Some(from), Some(to)) = (from, to) else { return false };
    // `allow_…` attributes guard by being off; `ignore_approvals…` and `authorized…` guard by being on.
    let inverted = key.starts_with("allow_");
    let rank = |value: Value<'_>| -> Option<i64> {
        value.as_bool().map(i64::from).or_else(|| value.as_i64()).or_else(|| match value.as_str()? {
            "off" => Some(0),
            "non_admins" => Some(1),
            "everyone" => Some(2),
            _ => None,
        })
    };
    if let (Some(before), Some(after)) = (rank(from), rank(to)) {
        return if inverted { after > before } else { after < before };
    }
    if from.is_array() && to.is_array() {
        let fewer = from.items().any(|item| !to.items().any(|other| other.text() == item.text()));
        let more = to.items().any(|item| !from.items().any(|other| other.text() == item.text()));
        // Of required checks fewer is looser; of people who may do something, more is.
        return if key.ends_with("actor_names") { more } else { fewer };
    }
    false
}

fn protection_switch(draft: &mut Draft, action: &str) {
    let off = action == "disabled";
    name(&mut draft.fields, if off { "protected_branch.destroy" } else { "protected_branch.create" }, "config");
    guard(&mut draft.fields, "branch_protection", Some("*all*".to_owned()), Some(off));
    draft.fields.text(Field::ConfigAttribute, Some("all"));
    draft.fields.text(Field::ConfigValue, Some(action));
}

fn ruleset(draft: &mut Draft, root: Value<'_>, action: &str) {
    let fields = &mut draft.fields;
    let verb = match action {
        "created" => "create",
        "deleted" => "destroy",
        _ => "update",
    };
    name(fields, &format!("repository_ruleset.{verb}"), "config");
    let ruleset = root.get("repository_ruleset").unwrap_or(root);
    let rank = |word: Option<&str>| match word {
        Some("active") => Some(2),
        Some("evaluate") => Some(1),
        Some("disabled") => Some(0),
        _ => None,
    };
    let enforcement = ruleset.str_at(&["enforcement"]);
    let weakens = match action {
        "created" => Some(false),
        "deleted" => Some(true),
        _ => {
            let before = rank(root.str_at(&["changes", "enforcement", "from"]));
            let lower = before.zip(rank(enforcement)).is_some_and(|(before, after)| after < before);
            let part = |kind: &str, how: &str| {
                root.at(&["changes", kind, how]).is_some_and(|list| list.items().next().is_some())
            };
            let dropped = part("rules", "deleted") || part("conditions", "deleted");
            let altered = part("rules", "updated") || part("conditions", "updated");
            let keys: Vec<&str> =
                root.get("changes").into_iter().flat_map(Value::entries).map(|(key, _)| key).collect();
            fields.text(Field::ConfigAttribute, Some(keys.join(",")));
            // Whether an altered rule is looser cannot be told from the event.
            if lower || dropped { Some(true) } else { (!altered).then_some(false) }
        }
    };
    fields.text(Field::ConfigValue, enforcement);
    guard(fields, "ruleset", ruleset.str_at(&["name"]).map(ToOwned::to_owned), weakens);
}

fn ruleset_bypass(draft: &mut Draft, root: Value<'_>, event: &str, action: &str) {
    let granted = matches!(action, "approved" | "completed" | "response_submitted");
    let full = if granted { "protected_branch.policy_override".to_owned() } else { format!("github.{event}.{action}") };
    name(&mut draft.fields, &full, "config");
    guard(&mut draft.fields, "ruleset", scalar(root, &["exemption_request", "number"]), Some(granted));
}

fn security_features(draft: &mut Draft, root: Value<'_>) {
    let before = root.at(&["changes", "from", "security_and_analysis"]);
    let after = root.at(&["repository", "security_and_analysis"]);
    let status = |value: Value<'_>, key: &str| value.str_at(&[key, "status"]).map(ToOwned::to_owned);
    let mut off = Vec::new();
    for (key, was) in before.into_iter().flat_map(Value::entries) {
        let is = after.and_then(|after| status(after, key));
        if was.str_at(&["status"]) == Some("enabled") && is.as_deref() == Some("disabled") {
            off.push(key);
        }
    }
    let action = if off.iter().any(|key| key.starts_with("secret_scanning")) {
        "secret_scanning.disabled"
    } else if off.is_empty() {
        "security_feature.changed"
    } else {
        "security_feature.disabled"
    };
    name(&mut draft.fields, action, "config");
    guard(&mut draft.fields, "secret_scanning", None, Some(!off.is_empty()));
    draft.fields.text(Field::ConfigAttribute, Some(off.join(",")));
    if !off.is_empty() {
        draft.fields.text(Field::ConfigValue, Some("disabled"));
    }
}

fn secret_alert(draft: &mut Draft, root: Value<'_>, action: &str) {
    let fields = &mut draft.fields;
    let alert = root.get("alert").unwrap_or(root);
    let bypassed = alert.at(&["push_protection_bypassed"]).and_then(Value::as_bool) == Some(true);
    match action {
        "created" if bypassed => {
            name(fields, "secret_scanning_push_protection.bypass", "config");
            guard(fields, "secret_scanning", scalar(alert, &["number"]), Some(true));
            fields.text(Field::ActorId, alert.str_at(&["push_protection_bypassed_by", "login"]));
        }
        "created" => {
            name(fields, "leak.detected", "leak");
            fields.text(Field::ConfigId, scalar(alert, &["number"]));
        }
        other => {
            name(fields, &format!("leak.{other}"), "leak");
            fields.text(Field::ConfigId, scalar(alert, &["number"]));
        }
    }
    fields.text(Field::LeakType, alert.str_at(&["secret_type"]));
    fields.int(Field::LeakCount, Some(1));
    if action == "created" && bypassed {
        // The alert is found after the push that was let through.
        draft.time = time_at(alert, &["push_protection_bypassed_at"]).or(draft.time);
    }
}

fn deploy_key(draft: &mut Draft, root: Value<'_>, action: &str) {
    let fields = &mut draft.fields;
    name(fields, if action == "deleted" { "token.deleted" } else { "token.created" }, "token");
    fields.text(Field::TokenKind, Some("deploy_key"));
    fields.text(Field::TokenId, scalar(root, &["key", "id"]));
    fields.text(Field::TokenIssuer, Some("github"));
    guard(fields, "deploy_key", root.str_at(&["key", "title"]).map(ToOwned::to_owned), None);
    fields.text(Field::ConfigAttribute, Some("read_only"));
    fields.text(Field::ConfigValue, scalar(root, &["key", "read_only"]));
}

fn token_request(draft: &mut Draft, root: Value<'_>, action: &str) {
    let fields = &mut draft.fields;
    let request = root.get("personal_access_token_request").unwrap_or(root);
    // When it was decided, the request does not say.
    draft.time = time_at(request, &["created_at"]).filter(|_| action == "created");
    let action = match action {
        "approved" => "token.created",
        "created" => "token.requested",
        _ => "token.denied",
    };
    name(fields, action, "token");
    fields.text(Field::TokenKind, Some("pat"));
    fields.text(Field::TokenId, scalar(request, &["token_id"]).or_else(|| scalar(request, &["id"])));
    fields.text(Field::TokenIssuer, Some("github"));
    fields.text(Field::ActorId, request.str_at(&["owner", "login"]));
    fields.time(Field::TokenExpires, time_at(request, &["token_expires_at"]));
}

fn hook_deleted(draft: &mut Draft, root: Value<'_>) {
    name(&mut draft.fields, "audit_log.disabled", "audit");
    guard(&mut draft.fields, "webhook", scalar(root, &["hook_id"]), Some(true));
    draft.fields.text(Field::ConfigAttribute, Some("deleted"));
}

fn repository(draft: &mut Draft, event: &str, action: &str) {
    let verb = if event == "public" { "publicized" } else { action };
    name(&mut draft.fields, &format!("repo.{verb}"), "config");
    guard(&mut draft.fields, "repository", None, (verb == "publicized").then_some(true));
}

/// An app got access to repositories, lost it, or may do other things now.
fn app(draft: &mut Draft, root: Value<'_>, action: &str) {
    let fields = &mut draft.fields;
    let verb = match action {
        "created" => "installed",
        "deleted" => "uninstalled",
        "new_permissions_accepted" => "permissions_changed",
        "added" => "repositories_added",
        "removed" => "repositories_removed",
        other => other,
    };
    name(fields, &format!("app.{verb}"), "config");
    let installed = root.get("installation").unwrap_or(root);
    guard(
        fields,
        "app",
        installed.str_at(&["app_slug"]).map(ToOwned::to_owned).or_else(|| scalar(installed, &["app_id"])),
        None,
    );
    fields.text(Field::ConfigAttribute, Some("permissions"));
    fields.text(Field::ConfigValue, installed.get("permissions").map(Value::compact));
}

fn access(draft: &mut Draft, root: Value<'_>, event: &str, action: &str) {
    let fields = &mut draft.fields;
    let full = if action.is_empty() { format!("access.{event}") } else { format!("access.{action}") };
    name(fields, &full, "config");
    fields.text(Field::ConfigObject, Some(event));
    let member =
        [&["member", "login"][..], &["membership", "user", "login"], &["team", "slug"], &["blocked_user", "login"]];
    fields.text(Field::ConfigId, member.iter().find_map(|path| root.str_at(path)));
}
