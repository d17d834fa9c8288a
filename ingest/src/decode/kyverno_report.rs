//! Policy reports: `wgpolicyk8s.io` and `openreports.io` reports of Kyverno and of whoever else writes them, and Kyverno's
//! own ephemeral ones.
//!
//! Source: policy working group `PolicyReport` v1alpha2 to v1beta2, openreports `Report` v1alpha1. A report is a state, not
//! an event: each version of it repeats the results that still hold. One event says what the report sums up; one for each
//! result follows.

use bytes::Bytes;
use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::{
    Draft, Undecodable, images, keep_those_with_room, kubernetes_event, kubernetes_objects, leave_out, object, outcome,
    time_at,
};

const EXPECTED: &str = "a policy report";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let watched = kubernetes_event::watched(json.root());
    let root = watched.unwrap_or(json.root());
    if !is_report(root) {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "its `kind` is of no report we read" });
    }
    // Ephemeral reports hold the same below `spec`.
    let content = if root.get("results").is_some() { root } else { root.get("spec").unwrap_or(root) };
    let mut report = Draft::new("policy.reported", "admission");
    report.native = watched.map(|object| Bytes::from(object.compact()));
    let mut results: Vec<Value<'_>> = content.get("results").into_iter().flat_map(Value::items).collect();
    let latest = results.iter().filter_map(|result| evaluated(*result)).max();
    report.time = latest.or_else(|| time_at(root, &["metadata", "creationTimestamp"]));
    let fields = &mut report.fields;
    let scope = content.get("scope").or_else(|| content.get("owner")).or_else(|| owner(root));
    scope.into_iter().for_each(|scope| kubernetes_event::target(fields, scope));
    if fields.get(Field::K8sNamespace).is_none() {
        fields.text(Field::K8sNamespace, root.str_at(&["metadata", "namespace"]));
    }
    fields.text(Field::ActorId, reporter(root, content));
    fields.text(Field::ActorType, Some("service"));
    let failed = |result: &Value<'_>| !passed(verdict(*result));
    fields.text(Field::Outcome, Some(outcome(!results.iter().any(failed))));
    fields.text(Field::Message, content.get("summary").map(summary));
    let left_out = keep_those_with_room(&mut results, |result| match verdict(*result) {
        Some("fail" | "error") => 0,
        Some("warn") => 1,
        _ => 2,
    });
    let kept = [Field::K8sGroup, Field::K8sKind, Field::K8sNamespace, Field::K8sName, Field::ActorId, Field::ActorType];
    let result = |result: &Value<'_>| {
        let mut one = report.derive(&kept, "policy.evaluated", "admission");
        one.time = evaluated(*result).or(report.time);
        evaluation(&mut one.fields, *result);
        one
    };
    let mut drafts: Vec<Draft> = results.iter().map(result).collect();
    drafts.insert(0, report);
    leave_out(&mut drafts, left_out);
    Ok(drafts)
}

/// What a result says; of the working group's first versions, its `status`.
fn verdict(result: Value<'_>) -> Option<&str> {
    let text = |key: &str| result.str_at(&[key]).filter(|text| !text.is_empty());
    text("result").or_else(|| text("status"))
}

fn is_report(root: Value<'_>) -> bool {
    let version = root.str_at(&["apiVersion"]).unwrap_or_default();
    let group = version.split('/').next().unwrap_or_default();
    let known = ["wgpolicyk8s.io", "openreports.io", "reports.x-k8s.io", "reports.kyverno.io", "kyverno.io"];
    known.contains(&group) && root.str_at(&["kind"]).is_some_and(|kind| kind.ends_with("Report"))
}

fn owner(root: Value<'_>) -> Option<Value<'_>> {
    root.at(&["metadata", "ownerReferences"])?.items().next()
}

fn reporter<'a>(root: Value<'a>, content: Value<'a>) -> Option<&'a str> {
    let labels = ["app.kubernetes.io/managed-by", "policy.kubernetes.io/engine", "wgpolicyk8s.io/engine"];
    let labelled = labels.iter().find_map(|label| root.str_at(&["metadata", "labels", label]));
    // Older reports name who found it beside each result only.
    let found = || content.get("results")?.items().find_map(|result| result.str_at(&["source"]));
    content.str_at(&["source"]).or(labelled).or_else(found)
}

/// `{"seconds": …, "nanos": …}`; the seconds are text in some.
fn evaluated(result: Value<'_>) -> Option<Timestamp> {
    let secs: i64 = result.at(&["timestamp", "seconds"])?.scalar()?.parse().ok()?;
    let nanos = result.at(&["timestamp", "nanos"]).and_then(Value::as_i64).unwrap_or(0);
    (secs > 0).then(|| Timestamp::from_micros(secs.saturating_mul(1_000_000).saturating_add(nanos / 1_000)))
}

fn passed(result: Option<&str>) -> bool {
    matches!(result, Some("pass" | "skip") | None)
}

fn summary(counts: Value<'_>) -> String {
    let count = |(name, count): (&str, Value<'_>)| Some(format!("{name} {}", count.as_i64()?));
    counts.entries().filter_map(count).collect::<Vec<_>>().join(", ")
}

/// What one rule found about one resource.
fn evaluation(fields: &mut Fields, result: Value<'_>) {
    let text = |key: &str| result.str_at(&[key]).filter(|text| !text.is_empty());
    let verdict = verdict(result);
    fields.text(Field::Reason, verdict);
    fields.text(Field::Outcome, verdict.map(|verdict| outcome(passed(Some(verdict)))));
    let policy = text("policy").map(|policy| match text("rule").filter(|rule| *rule != policy) {
        Some(rule) => format!("{policy}/{rule}"),
        None => policy.to_owned(),
    });
    fields.text(Field::K8sPolicy, policy);
    fields.text(Field::AlertSeverity, text("severity").or_else(|| result.str_at(&["properties", "severity"])));
    fields.text(Field::ActorId, text("source"));
    // A policy of the working group calls its text `description`.
    let message = text("message").or_else(|| text("description")).unwrap_or_default();
    fields.text(Field::Message, Some(message));
    let resources = result.get("resources").or_else(|| result.get("subjects"));
    if let Some(resource) = resources.and_then(|list| list.items().next()) {
        kubernetes_event::target(fields, resource);
    }
    if verdict == Some("fail") {
        fields.text(Field::SignatureStatus, kubernetes_objects::denial(message));
    }
    if let Some(image) = images::find(message) {
        images::set(fields, image);
    }
}
