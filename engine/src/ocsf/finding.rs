//! Findings of others: alerts, vulnerabilities, policy results, weaknesses in code, and the scans that found them.

use super::object::Object;
use super::taken::Taken;
use super::{action, millis, resource, runtime};
use crate::event::Event;
use crate::fields::Field;

/// What every finding says.
fn info(event: &Event, taken: &Taken<'_>, title: Option<&str>) -> Object {
    let uid = taken.text(Field::LeakFingerprint).map_or_else(|| event.id.to_string(), ToOwned::to_owned);
    let mut info = Object::default()
        .with("uid", uid)
        .with("title", title.unwrap_or_else(|| action(event)))
        .with("created_time", millis(event.time));
    let rule = [Field::AlertRule, Field::ScanRule, Field::K8sPolicy].into_iter().find_map(|field| taken.text(field));
    if let Some(rule) = rule {
        info.set("analytic", Object::default().with("name", rule).with("type_id", 1).with("type", "Rule"));
    }
    info
}

fn common(body: &mut Object, event: &Event, taken: &Taken<'_>, title: Option<&str>) {
    body.set("finding_info", info(event, taken, title));
    body.list("resources", resource::all(taken));
    let (id, caption) = if action(event).ends_with(".resolved") { (4, "Resolved") } else { (1, "New") };
    body.set("status_id", id);
    body.set("status", caption);
    body.set("status_detail", taken.text(Field::Reason));
}

pub(super) fn detection(body: &mut Object, event: &Event, taken: &Taken<'_>) {
    let leak = taken.text(Field::LeakType).map(|family| format!("secret found: {family}"));
    let title = leak.as_deref().or_else(|| taken.text(Field::AlertRule)).or_else(|| taken.text(Field::ScanRule));
    common(body, event, taken, title);
    body.list("evidences", runtime::evidence(event, taken).into_iter().collect());
}

/// A vulnerability must be named, by a CVE or an advisory.
pub(super) fn vulnerability(body: &mut Object, event: &Event, taken: &Taken<'_>) -> Option<()> {
    let rule = taken.text(Field::ScanRule)?;
    common(body, event, taken, Some(rule));
    let mut found =
        Object::default().with("severity", taken.text(Field::ScanSeverity)).with("desc", taken.text(Field::Message));
    let named = Object::default().with("uid", rule);
    found.set(if rule.starts_with("CVE-") { "cve" } else { "advisory" }, named);
    found.list("affected_packages", taken.text(Field::ScanLocation).and_then(package).into_iter().collect());
    body.list("vulnerabilities", vec![found]);
    Some(())
}

/// A package by its URL, `pkg:TYPE/NAMESPACE/NAME@VERSION?QUALIFIERS` (package-url specification).
fn package(url: &str) -> Option<Object> {
    let plain = url.strip_prefix("pkg:")?.split(['?', '#']).next()?;
    let (path, version) = plain.rsplit_once('@')?;
    let name = path.split_once('/')?.1;
    let package = Object::default().with("name", name).with("version", version).with("purl", url);
    (!name.is_empty() && !version.is_empty()).then_some(package)
}

pub(super) fn compliance(body: &mut Object, event: &Event, taken: &Taken<'_>) {
    let control = [Field::K8sPolicy, Field::ScanRule].into_iter().find_map(|field| taken.text(field));
    let title = control.or_else(|| taken.text(Field::Message));
    let outcome = taken.text(Field::Outcome);
    common(body, event, taken, title);
    let (id, caption) = match outcome {
        Some("success") => (1, "Pass"),
        Some("failure") => (3, "Fail"),
        // What a scanner finds is what failed.
        _ if taken.text(Field::ScanKind).is_some() => (3, "Fail"),
        _ => (0, "Unknown"),
    };
    let compliance = Object::default()
        .with("control", control.unwrap_or_else(|| action(event)))
        .with("status_id", id)
        .with("status", caption);
    body.set("compliance", compliance);
}

pub(super) fn posture(body: &mut Object, event: &Event, taken: &Taken<'_>) {
    common(body, event, taken, taken.text(Field::ScanRule));
    let named = [Field::CiRepo, Field::ArtifactName, Field::ScanTool].into_iter().find_map(|field| taken.text(field));
    body.set("application", Object::default().with("name", named.unwrap_or(event.source.as_ref())));
}

/// A scan, or the making of a bill of materials, which lists what a scan would.
pub(super) fn scan(event: &Event, taken: &Taken<'_>) -> Object {
    let named = [Field::ScanTool, Field::SbomFormat].into_iter().find_map(|field| taken.text(field));
    let name = named.unwrap_or_else(|| event.source_type.name());
    Object::default().with("type_id", 99).with("type", action(event)).with("name", name)
}
