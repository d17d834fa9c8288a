//! Grype reports (`-o json`).
//!
//! Source: anchore/grype `grype/presenter/models/document.go`. A report in another of its formats (CycloneDX, SARIF) is
//! sent as that.

use engine::fields::Field;
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::scan::{self, Finding};
use super::{Draft, Undecodable, images, object, time_at};

const EXPECTED: &str = "a Grype report";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let Some(matches) = root.get("matches").filter(|_| root.get("descriptor").is_some()) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `matches` and `descriptor`" });
    };
    let version = root.str_at(&["descriptor", "version"]).filter(|version| !version.starts_with('['));
    let mut report = scan::report("grype", version);
    report.time = time_at(root, &["descriptor", "timestamp"]);
    let target = root.at(&["source", "target"]);
    let image = target.filter(|target| target.is_object());
    if let Some(image) = image {
        let pushed = image.get("repoDigests").and_then(|list| list.items().next()?.as_str());
        scan::image(&mut report.fields, image.str_at(&["userInput"]), pushed);
        if report.fields.get(Field::ArtifactDigest).is_none() {
            let digest = image.str_at(&["manifestDigest"]).filter(|digest| images::is_digest(digest));
            report.fields.text(Field::ArtifactDigest, digest);
        }
    } else {
        report.fields.text(Field::ArtifactName, target.and_then(Value::as_str));
    }
    let findings: Vec<Finding<'_>> = matches.items().map(finding).collect();
    let total = findings.len();
    Ok(scan::with_findings(report, findings, total))
}

fn finding(found: Value<'_>) -> Finding<'_> {
    let id = found.str_at(&["vulnerability", "id"]);
    // One flaw has an advisory's name in one database and a CVE in another: the CVE is what other tools say.
    let mut related = found.get("relatedVulnerabilities").into_iter().flat_map(Value::items);
    let cve = related.find_map(|other| other.str_at(&["id"]).filter(|id| id.starts_with("CVE-")));
    let artifact = found.get("artifact").unwrap_or(found);
    let package = || {
        let name = artifact.str_at(&["name"])?;
        Some(format!("{name}@{}", artifact.str_at(&["version"]).unwrap_or_default()))
    };
    Finding {
        kind: "vulnerability",
        rule: id.filter(|id| id.starts_with("CVE-")).or(cve).or(id),
        severity: scan::severity(found.str_at(&["vulnerability", "severity"])),
        location: artifact.str_at(&["purl"]).filter(|purl| !purl.is_empty()).map(ToOwned::to_owned).or_else(package),
        message: found.str_at(&["vulnerability", "description"]),
        reason: found.str_at(&["vulnerability", "fix", "state"]),
    }
}
