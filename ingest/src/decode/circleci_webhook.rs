//! CircleCI webhooks: `workflow-completed` and `job-completed`.
//!
//! Source: CircleCI "Outbound webhooks reference". They say who wrote the commit, not who started the run: the actor is the
//! project's CI.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, git_remote, object, outcome, scalar, time_at};

const EXPECTED: &str = "a CircleCI webhook payload";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let kind = root.str_at(&["type"]);
    let Some(kind) = kind.filter(|_| root.get("happened_at").is_some()) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `type` and `happened_at`" });
    };
    let action = match kind {
        "workflow-completed" => "run.finished".to_owned(),
        "job-completed" => "job.finished".to_owned(),
        other => format!("circleci.{other}"),
    };
    let mut draft = Draft::new(action, "job");
    let fields = &mut draft.fields;
    run(fields, root);
    let subject = root.get(if kind == "job-completed" { "job" } else { "workflow" });
    if let Some(status) = subject.and_then(|subject| subject.str_at(&["status"])) {
        fields.text(Field::Outcome, Some(outcome(matches!(status, "success" | "not_run"))));
        fields.text(Field::Reason, Some(status));
    }
    draft.time =
        subject.and_then(|subject| time_at(subject, &["stopped_at"])).or_else(|| time_at(root, &["happened_at"]));
    Ok(vec![draft])
}

fn run(fields: &mut Fields, root: Value<'_>) {
    fields.text(Field::CiProvider, Some("circleci"));
    let project = root.str_at(&["project", "slug"]).or_else(|| root.str_at(&["project", "name"]));
    fields.text(Field::ActorId, project);
    fields.text(Field::ActorType, Some("ci"));
    fields.text(Field::CiRunId, root.str_at(&["workflow", "id"]));
    fields.text(Field::CiWorkflow, root.str_at(&["workflow", "name"]));
    fields.text(Field::CiJobId, scalar(root, &["job", "id"]));
    fields.text(Field::Message, root.str_at(&["job", "name"]));
    fields.text(Field::CiTrigger, root.str_at(&["pipeline", "trigger", "type"]));
    let Some(vcs) = root.at(&["pipeline", "vcs"]) else {
        // Projects of GitHub Apps and GitLab have it under the trigger's parameters.
        let git = root.at(&["pipeline", "trigger_parameters", "git"]);
        let path = git.and_then(|git| git.str_at(&["repo_url"])).and_then(git_remote::repo);
        fields.text(Field::CiRepo, path.or_else(|| project.and_then(slug)));
        fields.text(Field::CiSha, git.and_then(|git| git.str_at(&["checkout_sha"])));
        // A tag's ref is written whole, a branch has a member of its own.
        let name = git.and_then(|git| git.str_at(&["ref"]));
        let branch = git.and_then(|git| git.str_at(&["branch"])).filter(|branch| !branch.is_empty());
        fields.text(Field::CiRef, name.and_then(|name| git_remote::told_ref(name, None, branch)));
        return;
    };
    // A fork's branch is built in the target's name: what counts is whose code it was.
    let address = vcs.str_at(&["origin_repository_url"]).or_else(|| vcs.str_at(&["target_repository_url"]));
    fields.text(Field::CiRepo, address.and_then(git_remote::repo).or_else(|| project.and_then(slug)));
    fields.text(Field::CiSha, vcs.str_at(&["revision"]));
    let tag = vcs.str_at(&["tag"]);
    let name = tag.or_else(|| vcs.str_at(&["branch"]));
    let change = name.and_then(|name| name.strip_prefix("pull/")).and_then(|number| number.parse::<u32>().ok());
    fields.text(
        Field::CiRef,
        match change {
            // Of a fork the branch is `pull/NUMBER`, which is no branch of anybody.
            Some(number) => Some(format!("refs/pull/{number}/head")),
            None => name.map(|name| git_remote::full_ref(name, tag.is_some())),
        },
    );
    fields.int(Field::ChangeNumber, change.map(i64::from));
}

/// `gh/acme/app`: the repository where the project is named after one.
pub(super) fn slug(slug: &str) -> Option<String> {
    let (host, path) = slug.split_once('/')?;
    matches!(host, "gh" | "github" | "bb" | "bitbucket").then(|| path.to_owned())
}
