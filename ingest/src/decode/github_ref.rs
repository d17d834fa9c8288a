//! Which ref GitHub's payloads are about, where they tell.
//!
//! `head_branch` of a run is a bare name: of a branch, of a tag, or of a branch in a fork, where anybody may call one `main`. A fork's
//! branch must never look like the repository's own, nor a tag like a branch. So a ref is said only where the event that started
//! the run, the repository its head is in, and the default branch leave one reading; otherwise there is none.
//!
//! Source: GitHub "Events that trigger workflows" (`GITHUB_REF` of each event), "Webhook events and payloads".

use engine::json::Value;
use pipeproof_engine as engine;

use super::git_remote::told_ref;
use super::scalar;

/// Events that run on the merge of a pull request, of a fork as well.
const ON_MERGE: &[&str] = &["pull_request", "pull_request_review", "pull_request_review_comment"];
/// Events that run on a branch of the repository itself, whatever caused them.
const ON_BRANCH: &[&str] = &[
    "schedule",
    "merge_group",
    "workflow_run",
    "repository_dispatch",
    "issues",
    "issue_comment",
    "discussion",
    "discussion_comment",
    "label",
    "milestone",
    "fork",
    "watch",
    "gollum",
    "public",
    "page_build",
    "branch_protection_rule",
    "check_run",
    "check_suite",
    "delete",
];

/// The ref of a workflow run in the repository it runs in. `repository` and `default` are what is said of that beside the run.
pub(super) fn of_run(run: Value<'_>, repository: Option<Value<'_>>, default: Option<&str>) -> Option<String> {
    let event = run.str_at(&["event"])?;
    let head = run.str_at(&["head_branch"]).filter(|head| !head.is_empty());
    if ON_MERGE.contains(&event) {
        return pull_request(run).map(|number| format!("refs/pull/{number}/merge"));
    }
    if is_foreign(run, repository) {
        return None;
    }
    of_event(event, head?, default)
}

/// The ref of a run that this event started, from its bare name.
pub(super) fn of_event(event: &str, head: &str, default: Option<&str>) -> Option<String> {
    match event {
        // Of a fork as well, and `pull_request_target` runs on the base: the name is of whoever asks to merge.
        _ if ON_MERGE.contains(&event) || event == "pull_request_target" => None,
        _ if head.starts_with("refs/") => Some(head.to_owned()),
        "release" => Some(format!("refs/tags/{head}")),
        _ if ON_BRANCH.contains(&event) => Some(format!("refs/heads/{head}")),
        // Of a branch or of a tag: `push`, `create`, `workflow_dispatch`, `deployment` and whatever comes to be.
        _ => told_ref(head, None, default),
    }
}

/// The number of the one pull request that a run names. GitHub lists none of forks, and all there are of a branch.
pub(super) fn pull_request(run: Value<'_>) -> Option<i64> {
    let mut listed = run.get("pull_requests")?.items();
    let number = listed.next()?.get("number")?.as_i64()?;
    listed.next().is_none().then_some(number)
}

/// Whether the head of a run is in another repository than the run, or in one that is gone.
fn is_foreign(run: Value<'_>, repository: Option<Value<'_>>) -> bool {
    let Some(head) = run.get("head_repository") else { return false };
    let own = run.get("repository").filter(|own| own.is_object()).or(repository);
    !own.is_some_and(|own| is_same(own, head))
}

/// Whether both are one repository: by id where both have one, else by name.
fn is_same(one: Value<'_>, other: Value<'_>) -> bool {
    let both = |key: &str| scalar(one, &[key]).zip(scalar(other, &[key]));
    both("id").or_else(|| both("full_name")).is_some_and(|(one, other)| one == other)
}

/// The ref that holds the head of a pull request: its branch, or, of a fork, the one that GitHub keeps for it.
pub(super) fn of_change(change: Value<'_>) -> Option<String> {
    let repos = change.at(&["head", "repo"]).zip(change.at(&["base", "repo"]));
    if repos.is_some_and(|(head, base)| is_same(head, base)) {
        return change.str_at(&["head", "ref"]).map(|branch| format!("refs/heads/{branch}"));
    }
    change.get("number").and_then(Value::as_i64).map(|number| format!("refs/pull/{number}/head"))
}

/// The branch that a check's commit is on, where a pull request of the repository itself vouches for it: the name alone may be
/// that of a tag, or of a fork's branch.
pub(super) fn of_check(check: Value<'_>, branch: Option<&str>) -> Option<String> {
    let listed =
        || [&["pull_requests"][..], &["check_suite", "pull_requests"]].into_iter().filter_map(|at| check.at(at));
    let vouches = |change: Value<'_>| {
        let repos = change.at(&["head", "repo"]).zip(change.at(&["base", "repo"]));
        change.str_at(&["head", "ref"]) == branch && repos.is_some_and(|(head, base)| is_same(head, base))
    };
    let branch = branch?;
    listed().flat_map(Value::items).any(vouches).then(|| format!("refs/heads/{branch}"))
}
