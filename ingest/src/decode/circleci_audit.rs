//! CircleCI audit log entries.
//!
//! Source: CircleCI "Audit logs". Actions join their words with dots here and hyphens there; both are read alike. Rows of
//! the CSV export come here as the entries they are, see `unwrap::circleci_csv`.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, circleci_webhook, object, outcome, scalar, time_at};
use crate::unwrap::circleci_csv;

const EXPECTED: &str = "an entry of CircleCI's audit log";

/// Action, words joined with dots → action, category, kind of setting, kind of token.
const MEANINGS: &[(&str, &str, &str, &str, &str)] = &[
    ("context.secrets.accessed", "secret.read", "secret", "", ""),
    ("context.env_var.store", "secret.written", "secret", "", ""),
    ("context.env_var.delete", "secret.deleted", "secret", "", ""),
    ("context.create", "context.created", "config", "secret_store", ""),
    ("context.delete", "context.deleted", "config", "secret_store", ""),
    ("project.env_var.create", "secret.written", "secret", "", ""),
    ("project.env_var.delete", "secret.deleted", "secret", "", ""),
    ("project.ssh_key.create", "token.created", "token", "deploy_key", "deploy_key"),
    ("project.ssh_key.delete", "token.deleted", "token", "deploy_key", "deploy_key"),
    ("project.api_token.create", "token.created", "token", "", "static"),
    ("project.api_token.delete", "token.deleted", "token", "", "static"),
    ("checkout.key.create", "token.created", "token", "deploy_key", "deploy_key"),
    ("checkout.key.delete", "token.deleted", "token", "deploy_key", "deploy_key"),
    ("webhook.create", "webhook.created", "config", "webhook", ""),
    ("webhook.delete", "webhook.deleted", "config", "webhook", ""),
    ("webhook.update", "webhook.updated", "config", "webhook", ""),
    ("project.settings.update", "project.configured", "config", "project", ""),
    ("organization.settings.update", "organization.configured", "config", "organization", ""),
    ("workflow.start", "run.started", "job", "", ""),
    ("workflow.cancel", "run.cancelled", "job", "", ""),
    ("workflow.error", "run.finished", "job", "", ""),
    ("workflow.retry", "run.queued", "job", "", ""),
    ("workflow.job.scheduled", "job.queued", "job", "", ""),
    ("workflow.job.start", "job.started", "job", "", ""),
    ("workflow.job.finish", "job.finished", "job", "", ""),
    ("workflow.job.cancel", "job.cancelled", "job", "", ""),
    ("workflow.job.approve", "deploy.approved", "deploy", "", ""),
    ("user.logged_in", "user.login", "audit", "", ""),
    ("user.logged_out", "user.logout", "audit", "", ""),
];

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    if let Some(columns) = circleci_csv::columns_of(&record.body) {
        return Err(Undecodable::Columns { expected: EXPECTED, columns });
    }
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let Some(action) = root.str_at(&["action"]).filter(|_| root.get("occurred_at").is_some()) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `action` and `occurred_at`" });
    };
    let words = action.replace('-', ".");
    let known = MEANINGS.iter().find(|(name, ..)| *name == words);
    let mut draft = match known {
        Some((_, action, category, ..)) => Draft::new(*action, category),
        None => Draft::new(format!("circleci.{words}"), "audit"),
    };
    draft.time = time_at(root, &["occurred_at"]);
    let fields = &mut draft.fields;
    who(fields, root);
    run(fields, root);
    let (name, id) = (root.str_at(&["target", "name"]), scalar(root, &["target", "id"]));
    match known {
        Some((_, _, "secret", ..)) => {
            fields.text(Field::SecretStore, Some("circleci"));
            let variable = scalar(root, &["payload", "env_var", "name"]).or_else(|| scalar(root, &["payload", "name"]));
            let of = root.str_at(&["payload", "context_name"]).or(name).map(ToOwned::to_owned).or(id);
            let path = [of, variable].into_iter().flatten().collect::<Vec<_>>().join("/");
            fields.text(Field::SecretPath, Some(path));
            // Which variables of a context a job was given.
            let titles = root.at(&["payload", "environment_variable_titles"]).into_iter().flat_map(Value::items);
            fields.text(Field::Message, Some(titles.filter_map(Value::as_str).collect::<Vec<_>>().join(",")));
        }
        Some((_, _, "token", object, kind)) => {
            fields.text(Field::TokenKind, Some(*kind));
            fields.text(Field::TokenIssuer, Some("circleci"));
            fields.text(Field::TokenId, id);
            fields.text(Field::ConfigObject, Some(*object));
        }
        Some((_, _, "config", object, _)) => {
            fields.text(Field::ConfigObject, Some(*object));
            fields.text(Field::ConfigId, name.map(ToOwned::to_owned).or(id));
        }
        _ => fields.text(Field::ConfigId, name.map(ToOwned::to_owned).or(id)),
    }
    Ok(vec![draft])
}

fn who(fields: &mut Fields, root: Value<'_>) {
    fields.text(Field::CiProvider, Some("circleci"));
    fields.text(
        Field::ActorId,
        root.str_at(&["actor", "name"]).map(ToOwned::to_owned).or_else(|| scalar(root, &["actor", "id"])),
    );
    fields.text(
        Field::ActorType,
        root.str_at(&["actor", "type"]).map(|kind| match kind {
            "user" => "human",
            // What a running job does, the platform does for it.
            "job" | "task" | "build" => "ci",
            _ => "service",
        }),
    );
    fields.text(
        Field::SrcIp,
        root.str_at(&["request", "ip_address"]).or_else(|| root.str_at(&["common_fields", "source_ip"])),
    );
    let said = root.get("success").and_then(Value::as_bool);
    let common = || root.str_at(&["common_fields", "outcome"]).map(|word| word.eq_ignore_ascii_case("success"));
    if fields.get_text(Field::Category) == Some("job") {
        // That the entry was written well says nothing of how the job went.
        let status = ["job", "workflow"].iter().find_map(|what| root.str_at(&["payload", what, "status"]));
        fields.text(Field::Outcome, status.map(|status| outcome(matches!(status, "success" | "not_run"))));
        fields.text(Field::Reason, status);
        return;
    }
    fields.text(Field::Outcome, said.or_else(common).map(outcome));
    fields.text(Field::Reason, scalar(root, &["common_fields", "status"]));
}

/// The project, workflow and job an entry is about: under `payload`, or its scope and target.
fn run(fields: &mut Fields, root: Value<'_>) {
    let of = |what: &str, key: &str| {
        let paths: [&[&str]; 3] =
            [&["payload", &format!("{what}_{key}")], &["payload", what, key], &["metadata", what, key]];
        paths.iter().find_map(|path| scalar(root, path))
    };
    let target =
        |kind: &str| scalar(root, &["target", "id"]).filter(|_| root.str_at(&["target", "type"]) == Some(kind));
    fields.text(Field::CiRunId, of("workflow", "id").or_else(|| target("workflow")));
    fields.text(Field::CiJobId, of("job", "id").or_else(|| target("job")));
    fields.text(Field::CiWorkflow, of("workflow", "name"));
    let slug = of("project", "slug").or_else(|| {
        let project =
            |side: &str| root.str_at(&[side, "name"]).filter(|_| root.str_at(&[side, "type"]) == Some("project"));
        project("target").or_else(|| project("scope")).map(ToOwned::to_owned)
    });
    // A project that is not named after its repository has ids in its place.
    fields.text(Field::CiRepo, slug.as_deref().and_then(circleci_webhook::slug));
}
