//! Alerts of GitHub's scanners: code scanning and Dependabot. Secret scanning is beside the guards, whose bypass it tells.

use engine::fields::Field;
use engine::json::Value;
use pipeproof_engine as engine;

use super::github_times::subject_time;
use super::scan::{self, Finding};
use super::{Draft, name, scalar};

/// Decodes such an event; `false` if it is none of them.
pub(super) fn decode(draft: &mut Draft, root: Value<'_>, event: &str, action: &str) -> bool {
    let Some(alert) = root.get("alert") else { return false };
    match event {
        "code_scanning_alert" => code(draft, root, alert),
        "dependabot_alert" => dependency(draft, alert),
        "repository_vulnerability_alert" => legacy(draft, alert),
        _ => return false,
    }
    let what = match action {
        "created" | "create" | "appeared_in_branch" | "reopened" | "reopened_by_user" | "reintroduced"
        | "auto_reopened" => "scan.found",
        "fixed" | "resolve" => "scan.fixed",
        "dismissed" | "dismiss" | "auto_dismissed" | "closed_by_user" => "scan.dismissed",
        _ => "scan.updated",
    };
    name(&mut draft.fields, what, "scan");
    draft.fields.text(Field::ConfigId, scalar(alert, &["number"]).or_else(|| scalar(alert, &["id"])));
    let dismissed = alert.str_at(&["dismissed_reason"]).or_else(|| alert.str_at(&["dismiss_reason"]));
    draft.fields.text(Field::Reason, dismissed.or_else(|| alert.str_at(&["state"])));
    draft.time = subject_time(root, event, action);
    true
}

fn code(draft: &mut Draft, root: Value<'_>, alert: Value<'_>) {
    let first = || alert.get("instances").and_then(|list| list.items().next());
    let instance = alert.get("most_recent_instance").filter(|instance| instance.is_object()).or_else(first);
    let rule = alert.get("rule").unwrap_or(alert);
    let severity = rule.str_at(&["security_severity_level"]).or_else(|| rule.str_at(&["severity"]));
    let place = instance.and_then(|instance| instance.get("location"));
    let line = place.and_then(|place| place.get("start_line")?.as_i64());
    let file = place.and_then(|place| place.str_at(&["path"]));
    let message = rule.str_at(&["description"]);
    let id = rule.str_at(&["id"]);
    let fields = &mut draft.fields;
    fields.text(Field::ScanTool, alert.str_at(&["tool", "name"]));
    let location = scan::place(file, line);
    scan::set(
        fields,
        Finding { kind: "code", rule: id, severity: scan::severity(severity), location, message, reason: None },
    );
    let sha = root.str_at(&["commit_oid"]).filter(|sha| !sha.is_empty());
    fields.text(Field::CiSha, sha.or_else(|| instance?.str_at(&["commit_sha"])));
    let git_ref = root.str_at(&["ref"]).filter(|name| !name.is_empty());
    fields.text(Field::CiRef, git_ref.or_else(|| instance?.str_at(&["ref"])));
}

fn dependency(draft: &mut Draft, alert: Value<'_>) {
    let advisory = alert.get("security_advisory").unwrap_or(alert);
    let id = advisory.str_at(&["cve_id"]).or_else(|| advisory.str_at(&["ghsa_id"]));
    let package = alert.at(&["dependency", "package"]);
    let location = package.and_then(|package| {
        Some(format!("pkg:{}/{}", purl_type(package.str_at(&["ecosystem"])?), package.str_at(&["name"])?))
    });
    draft.fields.text(Field::ScanTool, Some("dependabot"));
    scan::set(
        &mut draft.fields,
        Finding {
            kind: "vulnerability",
            rule: id,
            severity: scan::severity(advisory.str_at(&["severity"])),
            location,
            message: advisory.str_at(&["summary"]),
            reason: None,
        },
    );
}

/// The type of package URLs for one of GitHub's ecosystems.
fn purl_type(ecosystem: &str) -> &str {
    match ecosystem {
        "pip" => "pypi",
        "rubygems" => "gem",
        "go" => "golang",
        "rust" => "cargo",
        "actions" => "githubactions",
        other => other,
    }
}

/// The event Dependabot's alerts had before.
fn legacy(draft: &mut Draft, alert: Value<'_>) {
    draft.fields.text(Field::ScanTool, Some("dependabot"));
    scan::set(
        &mut draft.fields,
        Finding {
            kind: "vulnerability",
            rule: alert.str_at(&["external_identifier"]).or_else(|| alert.str_at(&["ghsa_id"])),
            severity: scan::severity(alert.str_at(&["severity"])),
            location: alert.str_at(&["affected_package_name"]).map(ToOwned::to_owned),
            message: None,
            reason: None,
        },
    );
}
