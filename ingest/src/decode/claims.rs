//! Claims of OIDC tokens of CI systems, where a relying party keeps them under their own names: Vault in the metadata that a role
//! maps, AWS STS in the tags of a session.
//!
//! Each system calls its run and its job otherwise, and the same claim is another thing elsewhere: `pipeline_id` is a run of
//! GitLab's, and at Buildkite the pipeline. What is set here is what the system's own events say of that run and job.
//!
//! Sources: GitHub "OpenID Connect reference", GitLab "ID token payload", Buildkite "OIDC claims", CircleCI "Format of the
//! OpenID Connect ID token".

use engine::fields::{Field, Fields};
use engine::json::Value;
use pipeproof_engine as engine;

use super::git_remote::{self, full_ref, told_ref};
use super::scalar;

/// The CI system whose claims these are, by the claim only it has.
pub(super) fn provider(claims: Value<'_>) -> Option<&'static str> {
    const OWN: &[(&str, &str)] = &[
        ("project_path", "gitlab"),
        ("pipeline_slug", "buildkite"),
        ("oidc.circleci.com/project-id", "circleci"),
        ("repository", "github"),
    ];
    OWN.iter().find(|(claim, _)| claims.get(claim).is_some()).map(|(_, provider)| *provider)
}

/// Sets what the claims of this CI system say and nothing said before.
pub(super) fn set(fields: &mut Fields, claims: Value<'_>, provider: Option<&str>) {
    let mut fill = |field: Field, text: Option<String>| {
        if fields.get(field).is_none() {
            fields.text(field, text);
        }
    };
    let first = |names: &[&str]| names.iter().find_map(|name| scalar(claims, &[name])).filter(|text| !text.is_empty());
    let (run, job, sha, trigger): (&[&str], &[&str], &[&str], &[&str]) = match provider {
        Some("github") => (&["run_id"], &["check_run_id", "job_id"], &["sha"], &["event_name"]),
        Some("gitlab") => (&["pipeline_id"], &["job_id"], &["sha"], &["pipeline_source"]),
        // Builds are known by an id that is no claim of every token; jobs are.
        Some("buildkite") => (&["build_id"], &["job_id"], &["build_commit"], &["build_source"]),
        Some("circleci") => (&["oidc.circleci.com/workflow-id"], &["oidc.circleci.com/job-id"], &[], &[]),
        _ => (&["run_id", "pipeline_id"], &["job_id", "check_run_id"], &["sha"], &["event_name"]),
    };
    for (field, names) in
        [(Field::CiRunId, run), (Field::CiJobId, job), (Field::CiSha, sha), (Field::CiTrigger, trigger)]
    {
        fill(field, first(names));
    }
    let repo = match provider {
        Some("circleci") => first(&["oidc.circleci.com/vcs-origin"]).and_then(|origin| git_remote::repo(&origin)),
        _ => first(&["repository", "project_path"]),
    };
    let git_ref = git_ref(claims, provider);
    for (field, text) in
        [(Field::CiRepo, &repo), (Field::TokenRepo, &repo), (Field::CiRef, &git_ref), (Field::TokenRef, &git_ref)]
    {
        fill(field, text.clone());
    }
    fill(Field::CiWorkflow, first(&["workflow", "pipeline_slug"]));
    fill(Field::CiWorkflowRef, first(&["workflow_ref", "job_workflow_ref"]));
    fill(Field::CiEnvironment, first(&["environment"]));
    if fields.get(Field::CiAttempt).is_none() {
        fields.int(Field::CiAttempt, first(&["run_attempt"]).and_then(|text| text.parse().ok()));
    }
}

/// The full ref: GitLab and Buildkite say bare names, and beside them whether they are a tag's.
fn git_ref(claims: Value<'_>, provider: Option<&str>) -> Option<String> {
    let said = |name: &str| scalar(claims, &[name]).filter(|text| !text.is_empty());
    match provider {
        Some("buildkite") => {
            said("build_tag").map(|tag| full_ref(&tag, true)).or_else(|| Some(full_ref(&said("build_branch")?, false)))
        }
        Some("circleci") => said("oidc.circleci.com/vcs-ref"),
        _ => {
            let tag = said("ref_type").map(|kind| kind == "tag");
            said("ref_path").or_else(|| told_ref(&said("ref")?, tag, None))
        }
    }
}
