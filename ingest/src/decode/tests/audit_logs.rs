//! Audit logs of CI systems: what their entries join to.

use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::json;

use super::{assert_fields, decoded};

#[test]
fn audit_entries_name_run_secret_and_credential() {
    let entry = |body: serde_json::Value| decoded(SourceType::GithubAudit, &[], body.to_string()).remove(0);
    assert_fields(
        &entry(
            json!({"action": "workflows.completed_workflow_run", "@timestamp": 1_742_032_800_000_i64, "actor": "github-actions[bot]",
            "repo": "acme/app", "workflow_run_id": 77, "run_attempt": "2", "event": "push", "head_branch": "main", "head_sha": "c1"}),
        ),
        &[
            ("category", "job"),
            ("actor.type", "ci"),
            ("ci.run_id", "77"),
            ("ci.attempt", "2"),
            ("ci.trigger", "push"),
            // A branch or a tag: the entry does not tell.
            ("ci.ref", "-"),
            ("outcome", "success"),
        ],
    );
    assert_fields(
        &entry(
            json!({"action": "repo.create_actions_secret", "actor": "ann", "repo": "acme/app", "key": "DEPLOY_KEY"}),
        ),
        &[("category", "secret"), ("secret.path", "acme/app/DEPLOY_KEY"), ("secret.store", "github")],
    );
    assert_fields(
        &entry(json!({"action": "api.request", "actor": "x[bot]", "org": "acme", "status_code": 403, "token_id": 9,
            "programmatic_access_type": "GitHub App server-to-server token"})),
        &[
            ("outcome", "failure"),
            ("actor.type", "service"),
            ("token.id", "9"),
            ("token.kind", "app"),
            ("config.id", "acme"),
        ],
    );
    assert_fields(
        &entry(
            json!({"action": "protected_branch.rejected_ref_update", "actor": "ann", "actor_is_bot": "False", "repo": "a/b"}),
        ),
        &[("outcome", "failure"), ("actor.type", "human")],
    );
}

#[test]
fn a_project_of_circleci_is_a_repository_only_where_it_is_named_after_one() {
    let started = |slug: &str| {
        let body = json!({"action": "workflow.job.start", "occurred_at": "2026-03-02T09:01:11Z", "actor": {"type": "user", "name": "ann"},
            "payload": {"project": {"slug": slug}, "workflow": {"id": "w1"}, "job": {"id": "j1"}}});
        decoded(SourceType::CircleciAudit, &[], body.to_string()).remove(0)
    };
    for (slug, repo) in [
        ("gh/acme/app", "acme/app"),
        ("bitbucket/acme/app", "acme/app"),
        ("circleci/5f3b0f8e-0000-4000-8000-000000000001/5f3b0f8e-0000-4000-8000-000000000002", "-"),
    ] {
        let expected = [("action", "job.started"), ("ci.run_id", "w1"), ("ci.job_id", "j1"), ("ci.repo", repo)];
        assert_fields(&started(slug), &expected);
    }
}

#[test]
fn gitlab_tells_of_variables_read_and_of_deploy_tokens_of_groups() {
    let entry = |kind: &str, target: &str, name: &str, message: &str| {
        let body = json!({"author_id": 7, "author_name": "ann", "entity_type": "Project", "entity_path": "acme/app",
            "event_type": kind, "target_type": target, "target_details": name, "target_id": 12,
            "details": {"custom_message": message}, "created_at": "2026-03-02T09:01:11Z"});
        decoded(SourceType::GitlabAudit, &[], body.to_string()).remove(0)
    };
    let read = "CI/CD variable 'KEY' accessed with the API";
    assert_fields(
        &entry("variable_viewed_api", "Ci::Variable", "KEY", read),
        &[
            ("action", "secret.read"),
            ("category", "secret"),
            ("secret.path", "acme/app/KEY"),
            ("secret.store", "gitlab"),
            ("outcome", "success"),
        ],
    );
    let all = entry("variable_viewed_api", "Project", "app", "CI/CD variables accessed with the API");
    assert_fields(&all, &[("action", "secret.read"), ("secret.path", "acme/app")]);
    let hidden = format!("{read} (hidden variable, no value shown)");
    assert_fields(&entry("variable_viewed_api", "Ci::Variable", "KEY", &hidden), &[("action", "secret.list")]);
    for (kind, action) in [
        ("group_deploy_token_created", "token.created"),
        ("group_deploy_token_revoked", "token.revoked"),
        ("group_deploy_token_destroyed", "token.deleted"),
        ("deploy_token_destroyed", "token.deleted"),
    ] {
        let event = entry(kind, "DeployToken", "registry", "");
        assert_fields(&event, &[("action", action), ("token.kind", "static"), ("token.id", "12")]);
    }
}

#[test]
fn guards_in_audit_logs_say_whether_they_loosened() {
    let github = |body: serde_json::Value| decoded(SourceType::GithubAudit, &[], body.to_string()).remove(0);
    for (key, value, weakens) in [
        ("ruleset_name", json!("r"), "false"),
        ("ruleset_rules_deleted", json!([{"type": "deletion"}]), "true"),
        ("ruleset_rules_deleted", json!([]), "false"),
        ("ruleset_bypass_actors_added", json!([{"actor_id": 1}]), "true"),
        ("ruleset_conditions_deleted", json!("[]"), "false"),
        ("data", json!({"ruleset_conditions_deleted": "[{\"id\":1}]"}), "true"),
    ] {
        let entry = github(json!({"action": "repository_ruleset.update", "actor": "ann", "repo": "acme/app",
            "ruleset_enforcement": "enabled", key: value}));
        assert_fields(&entry, &[("category", "config"), ("config.object", "ruleset"), ("config.weakens", weakens)]);
    }
    for action in ["secret_scanning.disable", "business_secret_scanning.disable"] {
        let off = github(json!({"action": action, "actor": "ann", "org": "acme"}));
        let expected = [("category", "config"), ("config.object", "secret_scanning"), ("config.weakens", "true")];
        assert_fields(&off, &expected);
    }

    let gitlab = |kind: &str, change: &str, to: serde_json::Value| {
        let body = json!({"id": "1", "author_id": 7, "entity_id": 3, "entity_type": "Project", "event_type": kind,
            "details": {"change": change, "from": false, "to": to, "author_name": "ann", "target_details": "main"}});
        decoded(SourceType::GitlabAudit, &[], body.to_string()).remove(0)
    };
    for (kind, change, to, weakens) in [
        ("protected_branch_updated", "allow force push", json!(true), "true"),
        ("protected_branch_updated", "allow force push", json!("false"), "false"),
        ("protected_branch_allow_force_push_updated", "", json!(true), "true"),
        ("protected_branch_code_owner_approval_required_updated", "require code owner approval", json!(false), "true"),
        ("protected_branch_updated", "allowed to push", json!("Maintainers"), "-"),
    ] {
        assert_fields(&gitlab(kind, change, to), &[("action", "protected_branch.update"), ("config.weakens", weakens)]);
    }
    for (kind, action, weakens) in [
        ("environment_protected", "environment.add_protection_rule", "false"),
        ("environment_unprotected", "environment.remove_protection_rule", "true"),
        ("protected_environment_approval_rule_deleted", "environment.remove_protection_rule", "true"),
    ] {
        assert_fields(&gitlab(kind, "", json!(null)), &[("action", action), ("config.weakens", weakens)]);
    }

    for kind in ["NOTIFICATION_SERVICE_DELETED", "NOTIFICATION_SERVICE_DISABLED", "NotificationServiceDeletedEvent"] {
        let body = json!({"uuid": "u", "type": kind, "occurred_at": "2026-03-15T10:00:00Z", "actor": {"name": "ann"}});
        let event = decoded(SourceType::Buildkite, &[], body.to_string()).remove(0);
        assert_fields(&event, &[("action", "audit_log.disabled"), ("category", "audit")]);
    }
}
