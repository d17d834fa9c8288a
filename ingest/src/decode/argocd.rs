//! Argo CD: applications as its notifications send them, and its Kubernetes Events.
//!
//! The body of a notification is the operator's own template. The one we ship (`deploy/sources/argocd.md`) sends a part of
//! the Application object in its own shape, so that `{{toJson .app}}` works as well. Source: argoproj/argo-cd
//! `pkg/apis/application/v1alpha1/types.go`.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, ORIGIN, Undecodable, flux, git_remote, images, kubernetes_event, object, outcome, time_at};

const EXPECTED: &str = "an Argo CD application";
/// What webhooks of GitHub and Gogs, GitLab, Bitbucket and Azure DevOps have at their root. Argo CD takes them in to learn of pushes.
const GIT_WEBHOOKS: &[&str] =
    &["object_kind", "hook_id", "pull_request", "commits", "pusher", "eventKey", "publisherId", "package"];
const FROM_GIT: &str =
    "it is a Git provider's webhook, as Argo CD takes in: connect the provider as a source of its own";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    if root.get("involvedObject").is_some() || root.get("regarding").is_some() {
        return kubernetes_event::draft(root).map(|draft| vec![draft]);
    }
    if GIT_WEBHOOKS.iter().any(|key| root.get(key).is_some()) {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: FROM_GIT });
    }
    let app = root.get("app").or_else(|| root.get("application")).filter(|app| app.is_object()).unwrap_or(root);
    let named = app.str_at(&["metadata", "name"]).filter(|_| app.get("spec").is_some() || app.get("status").is_some());
    let Some(name) = named else {
        return Err(Undecodable::Shape {
            expected: EXPECTED,
            problem: "it has no `metadata.name` with `spec` or `status`",
        });
    };
    let operation = app.at(&["status", "operationState"]).filter(|state| state.is_object());
    let phase = operation.and_then(|state| state.str_at(&["phase"]));
    let (action, success) = match phase {
        Some("Running" | "Terminating") => ("deploy.started", None),
        Some("Succeeded") => ("deploy.finished", Some(true)),
        Some("Failed" | "Error") => ("deploy.finished", Some(false)),
        _ => ("deploy.reported", None),
    };
    let mut draft = Draft::new(action, "deploy");
    const TIMES: &[&[&str]] = &[
        &["status", "operationState", "finishedAt"],
        &["status", "operationState", "startedAt"],
        &["status", "reconciledAt"],
        &["metadata", "creationTimestamp"],
    ];
    draft.time = TIMES.iter().find_map(|path| time_at(app, path));
    let fields = &mut draft.fields;
    fields.text(Field::Outcome, success.map(outcome));
    fields.text(Field::Reason, phase.or_else(|| app.str_at(&["status", "health", "status"])));
    fields.text(Field::Message, operation.and_then(|state| state.str_at(&["message"])));
    fields.text(Field::K8sKind, Some("applications"));
    fields.text(Field::K8sGroup, Some("argoproj.io"));
    fields.text(Field::K8sName, Some(name));
    fields.text(Field::K8sCluster, app.str_at(&["spec", "destination", "name"]));
    fields.text(Field::K8sNamespace, app.str_at(&["spec", "destination", "namespace"]));
    who(fields, operation);
    what(fields, app, operation);
    let listed: Vec<&str> =
        app.at(&["status", "summary", "images"]).into_iter().flat_map(Value::items).filter_map(Value::as_str).collect();
    // A single image is what was deployed; of several each has an event.
    let mut drafts = Vec::new();
    if let [image] = listed.as_slice() {
        images::set(&mut draft.fields, image);
    } else {
        drafts.extend(listed.iter().map(|image| {
            let mut one = draft.derive(ORIGIN, "deploy.image", "deploy");
            images::set(&mut one.fields, image);
            one
        }));
    }
    drafts.insert(0, draft);
    Ok(drafts)
}

fn who(fields: &mut Fields, operation: Option<Value<'_>>) {
    let initiated = operation.and_then(|state| state.at(&["operation", "initiatedBy"]));
    let automated = initiated.and_then(|by| by.get("automated")).and_then(Value::as_bool) == Some(true);
    let user = initiated.and_then(|by| by.str_at(&["username"])).filter(|name| !name.is_empty());
    fields.text(Field::ActorId, user.or_else(|| automated.then_some("argocd")));
    let kind = match user {
        // A project's role is used by machines through its token: `proj:PROJECT:ROLE`.
        Some(user) if user.starts_with("proj:") => Some("service"),
        Some(_) => Some("human"),
        None => automated.then_some("service"),
    };
    fields.text(Field::ActorType, kind);
}

fn what(fields: &mut Fields, app: Value<'_>, operation: Option<Value<'_>>) {
    let source = app.at(&["spec", "source"]).or_else(|| app.at(&["spec", "sources"])?.items().next());
    fields.text(Field::CiRepo, source.and_then(|source| source.str_at(&["repoURL"])).and_then(git_remote::repo));
    let synced = operation.and_then(|state| state.at(&["syncResult", "revision"])?.as_str());
    let several = || operation.and_then(|state| state.at(&["syncResult", "revisions"])?.items().next()?.as_str());
    let revision = synced.or_else(several).or_else(|| app.str_at(&["status", "sync", "revision"]));
    fields.text(Field::CiSha, revision.filter(|sha| flux::is_sha(sha)));
    // A branch and a tag look the same here unless the ref is written in full.
    let target = source.and_then(|source| source.str_at(&["targetRevision"]));
    fields.text(Field::CiRef, target.filter(|name| name.starts_with("refs/")));
}
