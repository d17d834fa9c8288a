//! gitleaks reports (`--report-format json`): secrets found in commits or files.
//!
//! Source: gitleaks/gitleaks `report/finding.go`. `Date` is the commit's, not the scan's. What it found was taken out of
//! `Secret` and `Match` before the record was written; the fingerprint in its place is that of the same secret elsewhere.

use engine::fields::Field;
use engine::json::{Json, Value};
use engine::record::Record;
use pipeproof_engine as engine;

use super::scan::{self, Finding};
use super::{DEPTH_MAX, Draft, Undecodable, time_at};

const EXPECTED: &str = "a gitleaks finding";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = Json::parse_within(&record.body, DEPTH_MAX)?;
    let root = json.root();
    if root.is_null() {
        // Older versions write this for a report without findings.
        return Ok(Vec::new());
    }
    let Some(rule) = root.str_at(&["RuleID"]).filter(|_| root.get("Secret").is_some()) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `RuleID` and `Secret`" });
    };
    let mut draft = Draft::new("leak.detected", "leak");
    draft.time = time_at(root, &["Date"]);
    let fields = &mut draft.fields;
    let text = |key: &str| root.str_at(&[key]).filter(|text| !text.is_empty());
    // Who committed it, as far as the commit says.
    let author = text("Email").or_else(|| text("Author"));
    fields.text(Field::ActorId, author);
    fields.text(Field::ActorType, author.map(|_| "human"));
    fields.text(Field::CiSha, text("Commit"));
    fields.text(Field::CiRepo, text("Link").and_then(repository));
    fields.text(Field::LeakType, Some(rule));
    fields.text(Field::LeakFingerprint, text("Secret").and_then(fingerprint).or_else(|| text("Fingerprint")));
    fields.int(Field::LeakCount, Some(1));
    fields.text(Field::ScanTool, Some("gitleaks"));
    let line = root.get("StartLine").and_then(Value::as_i64);
    let location = scan::place(text("File"), line);
    let message = text("Description");
    scan::set(
        fields,
        Finding { kind: "secret", rule: Some(rule), severity: "unknown", location, message, reason: None },
    );
    Ok(vec![draft])
}

/// The repository of a link to a line of a commit.
fn repository(link: &str) -> Option<String> {
    let end = ["/-/blob/", "/blob/", "/src/commit/", "/commit/"].iter().find_map(|mark| link.find(mark))?;
    super::git_remote::repo(link.get(..end)?)
}

/// The keyed fingerprint in a placeholder: `redacted:FAMILY:KEY:FINGERPRINT`.
fn fingerprint(placeholder: &str) -> Option<&str> {
    placeholder.strip_prefix("redacted:")?.rsplit_once(':').map(|(_, fingerprint)| fingerprint)
}
