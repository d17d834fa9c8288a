//! Which ref an event is about: never that of another repository, nor a branch where it may be a tag.

use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::{Value, json};

use super::{assert_fields, decoded};

fn one(kind: SourceType, headers: &[(&str, &str)], body: &Value) -> engine::event::Event {
    decoded(kind, headers, body.to_string()).remove(0)
}

fn github(event: &str, body: Value) -> engine::event::Event {
    let mut whole = json!({"repository": {"id": 1, "full_name": "acme/app", "default_branch": "main"}, "sender": {"login": "ann", "type": "User"}});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    one(SourceType::GithubWebhook, &[("x-github-event", event)], &whole)
}

/// What a run says of itself, by the event that started it, its bare name and the repository its head is in.
fn run(event: &str, head: &str, repository: u64, pull_requests: &Value) -> Value {
    json!({"id": 77, "event": event, "head_branch": head, "head_sha": "c", "path": ".github/workflows/ci.yml@main",
        "repository": {"id": 1, "full_name": "acme/app"}, "head_repository": {"id": repository},
        "pull_requests": pull_requests, "conclusion": "success", "updated_at": "2026-03-15T10:00:00Z"})
}

#[test]
fn a_run_of_a_forks_main_is_not_one_of_main() {
    let change = json!([{"number": 9}]);
    let several = json!([{"number": 9}, {"number": 10}]);
    let table: &[(&str, &str, u64, &Value, &str)] = &[
        ("push", "main", 1, &json!([]), "refs/heads/main"),
        ("workflow_dispatch", "main", 1, &json!([]), "refs/heads/main"),
        ("schedule", "main", 1, &json!([]), "refs/heads/main"),
        ("merge_group", "gh-readonly-queue/main/pr-9-a", 1, &json!([]), "refs/heads/gh-readonly-queue/main/pr-9-a"),
        ("release", "v1.2", 1, &json!([]), "refs/tags/v1.2"),
        ("dynamic", "refs/pull/9/merge", 1, &json!([]), "refs/pull/9/merge"),
        // A branch or a tag.
        ("push", "v1.2", 1, &json!([]), "-"),
        ("workflow_dispatch", "v1.2", 1, &json!([]), "-"),
        ("pull_request", "feature", 1, &change, "refs/pull/9/merge"),
        ("pull_request_review", "feature", 1, &change, "refs/pull/9/merge"),
        ("pull_request", "feature", 1, &several, "-"),
        // Of a fork GitHub lists no pull request.
        ("pull_request", "main", 2, &json!([]), "-"),
        ("pull_request_target", "main", 2, &json!([]), "-"),
        ("pull_request_target", "main", 1, &change, "-"),
        ("workflow_run", "main", 2, &json!([]), "-"),
        ("push", "main", 2, &json!([]), "-"),
    ];
    for (event, head, repository, changes, expected) in table {
        let run = run(event, head, *repository, changes);
        let workflow = format!(".github/workflows/ci.yml@{expected}");
        let workflow = if *expected == "-" { "-" } else { &workflow };
        assert_fields(
            &github("workflow_run", json!({"action": "completed", "workflow_run": run})),
            &[("ci.ref", expected), ("ci.workflow_ref", workflow), ("ci.trigger", event), ("ci.run_id", "77")],
        );
        let review = json!({"action": "approved", "workflow_run": run, "environment": "prod"});
        assert_fields(&github("deployment_review", review), &[("ci.ref", expected)]);
        let deployment = json!({"deployment": {"id": 4, "ref": "main", "sha": "c"}, "workflow_run": run});
        assert_fields(&github("deployment", deployment.clone()), &[("ci.ref", expected), ("ci.sha", "c")]);
        assert_fields(&github("deployment_status", deployment), &[("ci.ref", expected)]);
        // The list of runs does not say which branch is the default.
        let entry = json!({"provider": "github", "kind": "run", "scope": "acme/app", "id": "77/1", "object": run});
        let listed = if *expected == "refs/heads/main" && *event != "schedule" { "-" } else { expected };
        assert_fields(&one(SourceType::ProviderLedger, &[], &entry), &[("ci.ref", listed)]);
    }
    let gone = json!({"id": 1, "event": "push", "head_branch": "main", "head_repository": null});
    assert_fields(
        &github("workflow_run", json!({"action": "completed", "workflow_run": gone})),
        &[("ci.ref", "-"), ("ci.workflow_ref", "-")],
    );
    let entry = |event: &str| {
        json!({"action": "workflows.completed_workflow_run", "repo": "acme/app", "actor": "ann", "workflow_run_id": 7,
            "event": event, "head_branch": "main"})
    };
    for (event, expected) in [("pull_request", "-"), ("push", "-"), ("schedule", "refs/heads/main")] {
        assert_fields(&one(SourceType::GithubAudit, &[], &entry(event)), &[("ci.ref", expected)]);
    }
}

#[test]
fn a_job_and_a_check_do_not_say_whose_branch_it_is() {
    let job = json!({"id": 8, "run_id": 77, "head_branch": "main", "head_sha": "c"});
    assert_fields(
        &github("workflow_job", json!({"action": "in_progress", "workflow_job": job})),
        &[("action", "job.started"), ("ci.ref", "-"), ("ci.sha", "c"), ("ci.run_id", "77")],
    );
    let change =
        |head: u64| json!([{"number": 9, "head": {"ref": "x", "repo": {"id": head}}, "base": {"repo": {"id": 1}}}]);
    for (branch, changes, expected) in
        [("x", change(1), "refs/heads/x"), ("x", change(2), "-"), ("main", change(1), "-"), ("main", json!([]), "-")]
    {
        for event in ["check_suite", "check_run"] {
            let check = json!({"head_branch": branch, "head_sha": "c", "pull_requests": changes});
            assert_fields(
                &github(event, json!({"action": "completed", event: check})),
                &[("action", "check.finished"), ("ci.ref", expected)],
            );
        }
    }
    let asked = json!({"branch": "main", "action": "x", "client_payload": {}});
    assert_fields(&github("repository_dispatch", asked), &[("ci.ref", "refs/heads/main")]);
    // A deployment of a tool that writes to the repository: a branch, a tag or a commit.
    for (name, expected) in [("main", "refs/heads/main"), ("v1.2", "-"), ("refs/tags/v1", "refs/tags/v1")] {
        let deployment = json!({"deployment": {"id": 4, "ref": name, "sha": "c"}});
        assert_fields(&github("deployment", deployment), &[("ci.ref", expected)]);
    }
    // That of a run which is not told has the name of the run's head.
    let deployment =
        json!({"deployment": {"id": 4, "ref": "main", "sha": "c", "creator": {"login": "github-actions[bot]"}}});
    assert_fields(&github("deployment", deployment), &[("ci.ref", "-")]);
}

#[test]
fn a_change_from_a_fork_has_the_ref_that_is_kept_for_it() {
    let change = |head: Value| {
        json!({"action": "opened", "pull_request": {"number": 9, "head": {"ref": "main", "sha": "c", "repo": head},
            "base": {"ref": "main", "repo": {"id": 1}}}})
    };
    for (head, expected) in [
        (json!({"id": 1}), "refs/heads/main"),
        (json!({"id": 2}), "refs/pull/9/head"),
        // The fork is gone.
        (json!(null), "refs/pull/9/head"),
    ] {
        assert_fields(&github("pull_request", change(head)), &[("ci.ref", expected), ("change.number", "9")]);
    }
    let merge = |source: u64, project: u64| {
        json!({"object_kind": "merge_request", "project": {"id": project, "path_with_namespace": "acme/app"},
            "object_attributes": {"iid": 9, "action": "open", "source_branch": "main", "source_project_id": source, "target_project_id": 1}})
    };
    for (source, expected) in [(1, "refs/heads/main"), (2, "refs/merge-requests/9/head")] {
        assert_fields(&one(SourceType::GitlabWebhook, &[], &merge(source, 1)), &[("ci.ref", expected)]);
    }
}

#[test]
fn pipelines_of_gitlab_and_builds_of_others_are_told_from_those_of_forks() {
    let pipeline = |project: u64, source: Value| {
        json!({"object_kind": "pipeline", "project": {"id": project, "default_branch": "main"},
            "object_attributes": {"id": 5, "ref": "main", "tag": false, "source": "merge_request_event", "status": "success"},
            "merge_request": source})
    };
    let of = |source: u64| json!({"iid": 9, "source_project_id": source, "target_project_id": 1});
    for (project, request, expected) in [
        (1, of(1), "refs/heads/main"),
        (1, of(2), "refs/merge-requests/9/head"),
        // In the fork itself, whose branch it is.
        (2, of(2), "refs/heads/main"),
        (1, json!(null), "-"),
    ] {
        assert_fields(&one(SourceType::GitlabWebhook, &[], &pipeline(project, request)), &[("ci.ref", expected)]);
    }
    for (name, expected) in [("main", "refs/heads/main"), ("v1.2", "-")] {
        let body = json!({"object_kind": "deployment", "status": "success", "ref": name, "project": {"default_branch": "main"}});
        assert_fields(&one(SourceType::GitlabWebhook, &[], &body), &[("ci.ref", expected)]);
    }
    let build = |change: Value| {
        json!({"event": "build.finished", "pipeline": {"slug": "app", "repository": "git@github.com:acme/app.git"},
            "build": {"id": "b", "state": "passed", "branch": "main", "pull_request": change}})
    };
    for (change, expected, number) in [
        (json!(null), "refs/heads/main", "-"),
        (json!({"id": "9", "base": "main", "repository": "git://github.com/acme/app.git"}), "refs/heads/main", "9"),
        (json!({"id": "9", "base": "main", "repository": "git://github.com/eve/app.git"}), "-", "9"),
    ] {
        assert_fields(
            &one(SourceType::Buildkite, &[], &build(change)),
            &[("ci.ref", expected), ("change.number", number), ("ci.repo", "acme/app")],
        );
    }
    let job = |branch: &str| {
        json!({"type": "job-completed", "happened_at": "2026-03-15T10:00:00Z", "project": {"slug": "gh/acme/app"},
            "pipeline": {"vcs": {"target_repository_url": "https://github.com/acme/app", "branch": branch}}})
    };
    for (branch, expected) in [("main", "refs/heads/main"), ("pull/9", "refs/pull/9/head")] {
        assert_fields(&one(SourceType::CircleciWebhook, &[], &job(branch)), &[("ci.ref", expected)]);
    }
}

#[test]
fn a_pipeline_that_runs_again_is_not_of_the_day_it_was_created() {
    let times = |status: &str| {
        let event = one(
            SourceType::GitlabWebhook,
            &[],
            &json!({"object_kind": "pipeline", "object_attributes": {"id": 5, "status": status,
                "created_at": "2026-03-14T10:00:00Z", "finished_at": "2026-03-15T11:00:00Z"}}),
        );
        event.time_known.then(|| event.time.to_string())
    };
    assert_eq!(times("running"), None, "only when it was received");
    assert_eq!(times("pending"), None);
    assert_eq!(times("created").as_deref(), Some("2026-03-14T10:00:00Z"));
    assert_eq!(times("failed").as_deref(), Some("2026-03-15T11:00:00Z"));
    let job = |status: &str, more: Value| {
        let mut body =
            json!({"object_kind": "build", "build_status": status, "build_created_at": "2026-03-14 10:00:00 UTC"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        one(SourceType::GitlabWebhook, &[], &body).time_known
    };
    assert!(job("created", json!({})) && !job("pending", json!({})) && !job("running", json!({})));
    assert!(!job("canceled", json!({"build_started_at": "2026-03-14 10:00:00 UTC"})));
    assert!(job("success", json!({"build_finished_at": "2026-03-15 10:00:00 UTC"})));
}
