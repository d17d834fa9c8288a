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
