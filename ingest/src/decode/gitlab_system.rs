//! GitLab system hooks, and the events of members that group hooks share with them: who may do what, which projects,
//! users and keys there are.
//!
//! Source: GitLab "System hooks", "Group webhook events". They do not say who did it, only to whom it was done: that is
//! the audit event's.

use engine::fields::Field;
use engine::json::Value;
use pipeproof_engine as engine;

use super::gitlab_webhook::actor_type;
use super::{Draft, name, scalar, time_at};

/// How an event is named here.
struct Meaning {
    action: &'static str,
    category: &'static str,
    /// Kind of object, for settings.
    object: Option<&'static str>,
}

/// Decodes such an event; `false` if it is none of them.
pub(super) fn decode(draft: &mut Draft, root: Value<'_>, event: &str) -> bool {
    let Some(meaning) = meaning(event) else { return false };
    let fields = &mut draft.fields;
    name(fields, meaning.action, meaning.category);
    fields.text(Field::ConfigObject, meaning.object);
    fields.text(Field::Reason, Some(event));
    let failed = event == "user_failed_login";
    fields.text(Field::Outcome, Some(super::outcome(!failed)));
    let subject = ["user_username", "username", "email"].iter().find_map(|key| root.str_at(&[key]));
    match meaning.object {
        Some("member") => {
            fields.text(Field::ConfigId, subject);
            fields.text(Field::ConfigAttribute, Some("access_level"));
            let level = root.str_at(&["access_level"]).or_else(|| root.str_at(&["group_access"]));
            fields.text(Field::ConfigValue, level);
        }
        Some("group") => fields.text(Field::ConfigId, root.str_at(&["full_path"]).or_else(|| root.str_at(&["path"]))),
        Some("user") => fields.text(Field::ConfigId, subject),
        Some("repository") => fields.text(Field::ConfigValue, root.str_at(&["project_visibility"])),
        _ => {}
    }
    if meaning.category == "token" {
        fields.text(Field::TokenId, scalar(root, &["id"]));
        fields.text(Field::TokenKind, Some("static"));
        fields.text(Field::TokenIssuer, Some("gitlab"));
    }
    // People sign in and handle keys themselves.
    if matches!(meaning.category, "token" | "audit") {
        fields.text(Field::ActorId, subject);
        fields.text(Field::ActorType, subject.map(actor_type));
    }
    draft.time = time(root, event);
    true
}

fn meaning(event: &str) -> Option<Meaning> {
    let of = |action, category, object| Some(Meaning { action, category, object });
    match event {
        "project_create" => of("repo.created", "config", Some("repository")),
        "project_destroy" => of("repo.deleted", "config", Some("repository")),
        "project_rename" => of("repo.renamed", "config", Some("repository")),
        "project_transfer" => of("repo.transferred", "config", Some("repository")),
        "project_update" => of("repo.edited", "config", Some("repository")),
        "user_add_to_team" | "user_add_to_group" => of("access.added", "config", Some("member")),
        "user_remove_from_team" | "user_remove_from_group" => of("access.removed", "config", Some("member")),
        "user_update_for_team" | "user_update_for_group" => of("access.edited", "config", Some("member")),
        "user_access_request_to_project" | "user_access_request_to_group" => {
            of("access.requested", "config", Some("member"))
        }
        "group_create" | "subgroup_create" => of("group.created", "config", Some("group")),
        "group_destroy" | "subgroup_destroy" => of("group.deleted", "config", Some("group")),
        "group_rename" => of("group.renamed", "config", Some("group")),
        "user_create" => of("user.created", "config", Some("user")),
        "user_destroy" => of("user.deleted", "config", Some("user")),
        "user_rename" => of("user.renamed", "config", Some("user")),
        "user_failed_login" => of("user.login", "audit", None),
        "key_create" => of("token.created", "token", None),
        "key_destroy" => of("token.deleted", "token", None),
        _ => None,
    }
}

/// Creations and changes say when; of what is gone only older times are known.
fn time(root: Value<'_>, event: &str) -> Option<engine::time::Timestamp> {
    if event.contains("destroy") || event.contains("remove") {
        None
    } else if event.ends_with("_create") || event.contains("_add_to_") {
        time_at(root, &["created_at"])
    } else {
        time_at(root, &["updated_at"])
    }
}
