//! What all scanners' reports have in common: one event for the report, one for each thing it lists.

use engine::fields::{Field, Fields};
use pipeproof_engine as engine;

use super::images::{self, Image};
use super::{Draft, ORIGIN, keep_those_with_room, leave_out};

/// Fields of a report that each of its findings repeats.
const REPORT: &[Field] =
    &[Field::ArtifactDigest, Field::ArtifactName, Field::ArtifactRepo, Field::ScanTool, Field::ScanKind];

/// One thing a report lists.
#[derive(Debug, Default)]
pub(super) struct Finding<'a> {
    /// vulnerability, misconfiguration, secret, license or code.
    pub(super) kind: &'static str,
    pub(super) rule: Option<&'a str>,
    pub(super) severity: &'static str,
    pub(super) location: Option<String>,
    pub(super) message: Option<&'a str>,
    /// The tool's own judgement, where it has one: a check that failed, a scan that is suppressed.
    pub(super) reason: Option<&'a str>,
}

/// The event of a report. A report exists only when its scan has run, so that is a success.
pub(super) fn report(tool: &str, version: Option<&str>) -> Draft {
    let mut draft = by(tool, version, "scan.finished");
    draft.fields.text(Field::Outcome, Some("success"));
    draft
}

/// An event that a tool is the author of.
pub(super) fn by(tool: &str, version: Option<&str>, action: &str) -> Draft {
    let mut draft = Draft::new(action, "scan");
    let fields = &mut draft.fields;
    fields.text(Field::ScanTool, Some(tool));
    fields.text(Field::ActorId, Some(tool));
    fields.text(Field::ActorType, Some("service"));
    fields.text(Field::UserAgent, version.map(|version| format!("{tool}/{version}")));
    draft
}

/// The report with its findings behind it, the most severe ones where there are too many; `total` is how many there are.
pub(super) fn with_findings(mut report: Draft, mut findings: Vec<Finding<'_>>, total: usize) -> Vec<Draft> {
    let left_out = keep_those_with_room(&mut findings, |finding| rank(finding.severity));
    report.fields.int(Field::ScanFindings, i64::try_from(total).ok());
    // That the scan went well is the report's.
    let kept: Vec<Field> = ORIGIN.iter().chain(REPORT).copied().filter(|field| *field != Field::Outcome).collect();
    let mut drafts = Vec::with_capacity(findings.len() + 1);
    for finding in findings {
        let mut draft = report.derive(&kept, "scan.found", "scan");
        set(&mut draft.fields, finding);
        drafts.push(draft);
    }
    drafts.insert(0, report);
    leave_out(&mut drafts, left_out);
    drafts
}

/// Severities, the worst first. Of what nobody judged it is not known that it is harmless.
fn rank(severity: &str) -> usize {
    const ORDER: &[&str] = &["critical", "high", "unknown", "medium", "low", "info"];
    ORDER.iter().position(|word| *word == severity).unwrap_or(ORDER.len())
}

/// Sets what is known of a finding.
pub(super) fn set(fields: &mut Fields, finding: Finding<'_>) {
    fields.text(Field::ScanKind, Some(finding.kind));
    fields.text(Field::ScanRule, finding.rule);
    fields.text(Field::ScanSeverity, Some(finding.severity));
    fields.text(Field::ScanLocation, finding.location);
    fields.text(Field::Message, finding.message);
    fields.text(Field::Reason, finding.reason);
}

/// What was scanned, where it is an image: its reference and, of one that was pushed, its manifest's digest.
pub(super) fn image(fields: &mut Fields, name: Option<&str>, pushed: Option<&str>) {
    let by_digest = pushed.map(images::parse).filter(|image| image.digest.is_some());
    let by_name = name.map(images::parse);
    fields.text(Field::ArtifactName, name);
    fields.text(Field::ArtifactRepo, by_digest.or(by_name).map(|image: Image<'_>| image.repo));
    fields.text(Field::ArtifactDigest, by_digest.or(by_name).and_then(|image| image.digest));
}

/// A severity in one of the words of the taxonomy, from the scanner's own word.
pub(super) fn severity(word: Option<&str>) -> &'static str {
    match word.map(str::to_lowercase).as_deref() {
        Some("critical") => "critical",
        Some("high" | "error") => "high",
        Some("medium" | "moderate" | "warning") => "medium",
        Some("low" | "minor" | "note" | "negligible") => "low",
        Some("info" | "informational" | "none" | "recommendation") => "info",
        _ => "unknown",
    }
}

/// A severity from a CVSS score, by the ratings of its specification.
pub(super) fn by_score(score: f64) -> &'static str {
    match score {
        score if score >= 9.0 => "critical",
        score if score >= 7.0 => "high",
        score if score >= 4.0 => "medium",
        score if score > 0.0 => "low",
        _ => "info",
    }
}

/// `file:line`.
pub(super) fn place(file: Option<&str>, line: Option<i64>) -> Option<String> {
    let file = file.filter(|file| !file.is_empty())?;
    Some(line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")))
}
