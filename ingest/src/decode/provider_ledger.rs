//! A provider's own ledger: what it lists of runs, deployments and merged changes, an entry each.
//!
//! An entry is `{"provider", "kind": "run" | "deployment" | "change", "scope", "id", "object", "status"?}`, where `object` is what
//! the provider's API gave and `status` what it gave apart about how it ended. It says that something exists at the provider,
//! not that it happened now: rules are shown the provider's events, reconciliation is shown these.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::git_remote::{repo, told_ref};
use super::{Draft, Undecodable, buildkite, github_ref, gitlab_webhook, object, outcome, scalar, tier, time_at};

const EXPECTED: &str = "an entry of a provider's ledger";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let part = |key: &str| root.str_at(&[key]).filter(|text| !text.is_empty());
    let (Some(provider), Some(kind), Some(scope), Some(id), Some(entry)) =
        (part("provider"), part("kind"), part("scope"), part("id"), root.get("object"))
    else {
        let problem = "it has no `provider`, `kind`, `scope`, `id` and `object`";
        return Err(Undecodable::Shape { expected: EXPECTED, problem });
    };
    let action = match kind {
        "run" => "ledger.run",
        "deployment" => "ledger.deployment",
        "change" => "ledger.change",
        _ => {
            return Err(Undecodable::Shape {
                expected: EXPECTED,
                problem: "its kind is not run, deployment or change",
            });
        }
    };
    let mut draft = Draft::new(action, "ledger");
    let fields = &mut draft.fields;
    fields.text(Field::CiProvider, Some(provider));
    // Jenkins' jobs and Buildkite's pipelines are no repositories.
    let named = matches!(provider, "github" | "gitlab");
    fields.text(Field::CiRepo, Some(scope).filter(|_| named));
    fields.text(Field::ConfigObject, Some(kind));
    draft.time = match kind {
        "run" => run(fields, provider, scope, id, entry),
        "deployment" => deployment(fields, id, entry, root.get("status")),
        _ => change(fields, id, entry),
    };
    Ok(vec![draft])
}

fn first(value: Value<'_>, paths: &[&[&str]]) -> Option<String> {
    paths.iter().find_map(|path| scalar(value, path)).filter(|text| !text.is_empty())
}

fn first_time(value: Value<'_>, keys: &[&str]) -> Option<Timestamp> {
    keys.iter().find_map(|key| time_at(value, &[key]))
}

fn person(fields: &mut Fields, who: Option<String>) {
    let kind = who.as_deref().filter(|who| !who.is_empty()).map(|who| match who {
        "github-actions[bot]" => "ci",
        _ if who.ends_with("[bot]") => "service",
        // Nobody else calls a user what GitLab calls those of its tokens.
        _ => gitlab_webhook::actor_type(who),
    });
    fields.text(Field::ActorType, kind);
    fields.text(Field::ActorId, who);
}

/// How it went, in any provider's words; none while it goes on.
fn verdict(state: &str) -> Option<&'static str> {
    const GOOD: &[&str] = &[
        "success",
        "neutral",
        "skipped",
        "passed",
        "not_run",
        "not_built",
        // A deployment that another has taken the place of succeeded before.
        "inactive",
    ];
    const BAD: &[&str] = &[
        "failure",
        "failed",
        "error",
        "canceled",
        "cancelled",
        "aborted",
        "timed_out",
        "action_required",
        "stale",
        "startup_failure",
        "unstable",
        "broken",
    ];
    let good = GOOD.contains(&state);
    (good || BAD.contains(&state)).then(|| outcome(good))
}

fn run(fields: &mut Fields, provider: &str, scope: &str, id: &str, entry: Value<'_>) -> Option<Timestamp> {
    // The id of an entry may end with the attempt; events name runs without it.
    let id = if provider == "github" { id.split('/').next().unwrap_or(id) } else { id };
    fields.text(Field::CiRunId, Some(id));
    fields.text(Field::ConfigId, Some(id));
    fields.int(Field::CiAttempt, entry.at(&["run_attempt"]).and_then(Value::as_i64));
    let result = match provider {
        "github" => entry.str_at(&["conclusion"]),
        "gitlab" => entry.str_at(&["status"]),
        "buildkite" => entry.str_at(&["state"]),
        _ => entry.str_at(&["result"]),
    };
    if let Some(result) = result.map(str::to_lowercase) {
        fields.text(Field::Outcome, verdict(&result));
        fields.text(Field::Reason, Some(result));
    }
    let workflow = match provider {
        "buildkite" | "jenkins" => Some(scope.to_owned()),
        _ => first(entry, &[&["name"]]),
    };
    fields.text(Field::CiWorkflow, workflow);
    if provider == "buildkite" {
        fields.text(Field::CiRepo, entry.str_at(&["pipeline", "repository"]).and_then(repo));
    }
    fields.text(Field::CiSha, first(entry, &[&["head_sha"], &["sha"], &["commit"]]).filter(|sha| sha != "HEAD"));
    fields.text(Field::CiRef, run_ref(provider, entry));
    fields.text(Field::CiTrigger, first(entry, &[&["event"], &["source"]]));
    person(
        fields,
        first(
            entry,
            &[&["triggering_actor", "login"], &["actor", "login"], &["user", "username"], &["creator", "email"]],
        ),
    );
    // Jenkins gives milliseconds and how many more it took.
    let began = time_at(entry, &["timestamp"]);
    let lasted = entry.at(&["duration"]).and_then(Value::as_i64).and_then(|millis| u64::try_from(millis).ok());
    let ended = began.zip(lasted).map(|(at, millis)| at.plus(std::time::Duration::from_millis(millis)));
    first_time(entry, &["finished_at", "updated_at", "created_at"]).or(ended)
}

/// The ref of a run, where the list tells it: GitHub's and GitLab's name branches and tags alike, and forks' branches too.
fn run_ref(provider: &str, entry: Value<'_>) -> Option<String> {
    match provider {
        "github" => github_ref::of_run(entry, None, entry.str_at(&["repository", "default_branch"])),
        "buildkite" => buildkite::build_ref(entry, entry.str_at(&["pipeline", "repository"]).and_then(repo)),
        _ => told_ref(&first(entry, &[&["ref"]])?, entry.get("tag").and_then(Value::as_bool), None),
    }
}

fn deployment(fields: &mut Fields, id: &str, entry: Value<'_>, status: Option<Value<'_>>) -> Option<Timestamp> {
    fields.text(Field::ConfigId, Some(id));
    let state = status.and_then(|status| status.str_at(&["state"])).or_else(|| entry.str_at(&["status"]));
    if let Some(state) = state {
        fields.text(Field::Outcome, verdict(state));
        fields.text(Field::Reason, Some(state));
    }
    let environment = first(entry, &[&["environment", "name"], &["environment"]]);
    fields.text(Field::Environment, entry.str_at(&["environment", "tier"]).or(environment.as_deref()).map(tier));
    fields.text(Field::CiEnvironment, environment);
    fields.text(Field::CiSha, first(entry, &[&["sha"]]));
    let tag = entry.at(&["deployable", "tag"]).and_then(Value::as_bool);
    fields.text(Field::CiRef, first(entry, &[&["ref"]]).and_then(|name| told_ref(&name, tag, None)));
    fields.text(Field::CiRunId, first(entry, &[&["deployable", "pipeline", "id"]]));
    fields.text(Field::CiJobId, first(entry, &[&["deployable", "id"]]));
    person(fields, first(entry, &[&["creator", "login"], &["user", "username"]]));
    status
        .and_then(|status| first_time(status, &["created_at"]))
        .or_else(|| first_time(entry, &["updated_at", "created_at"]))
}

fn change(fields: &mut Fields, id: &str, entry: Value<'_>) -> Option<Timestamp> {
    fields.text(Field::ConfigId, Some(id));
    fields.int(Field::ChangeNumber, id.parse().ok());
    fields.text(Field::Outcome, Some(outcome(true)));
    fields.text(Field::ChangeAuthor, first(entry, &[&["user", "login"], &["author", "username"]]));
    fields.text(Field::ChangeBase, first(entry, &[&["base", "ref"], &["target_branch"]]));
    fields.text(Field::ChangeHead, first(entry, &[&["head", "sha"], &["sha"]]));
    fields.text(Field::ScmAfter, first(entry, &[&["merge_commit_sha"], &["squash_commit_sha"]]));
    fields.text(Field::ChangeMergedBy, first(entry, &[&["merged_by", "login"], &["merge_user", "username"]]));
    fields.text(Field::Message, first(entry, &[&["title"]]));
    first_time(entry, &["merged_at", "updated_at"])
}
