//! Trivy: reports of the command line (`--format json`) and the custom resources of the Trivy operator.
//!
//! Source: aquasecurity/trivy `pkg/types/report.go` (SchemaVersion 2; `Results` is absent where nothing was scanned) and
//! aquasecurity/trivy-operator `pkg/apis/aquasecurity/v1alpha1`. A CycloneDX or SPDX document that Trivy writes is not a
//! report: send it as what it is.

use engine::fields::Field;
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::scan::{self, Finding};
use super::{Draft, Undecodable, object, time_at};

const EXPECTED: &str = "a Trivy report";
const OPERATOR_GROUP: &str = "aquasecurity.github.io/";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    if root.str_at(&["apiVersion"]).is_some_and(|version| version.starts_with(OPERATOR_GROUP)) {
        return operator(root);
    }
    if root.get("SchemaVersion").is_none() || root.get("ArtifactType").is_none() {
        let problem = "it has neither `SchemaVersion` and `ArtifactType` nor an `apiVersion` of the Trivy operator";
        return Err(Undecodable::Shape { expected: EXPECTED, problem });
    }
    let mut report = scan::report("trivy", root.str_at(&["Trivy", "Version"]));
    report.time = time_at(root, &["CreatedAt"]);
    let name = root.str_at(&["ArtifactName"]);
    if matches!(root.str_at(&["ArtifactType"]), Some("container_image")) {
        let pushed = root.at(&["Metadata", "RepoDigests"]).and_then(|list| list.items().next()?.as_str());
        let tagged = root.at(&["Metadata", "RepoTags"]).and_then(|list| list.items().next()?.as_str());
        scan::image(&mut report.fields, root.str_at(&["Metadata", "Reference"]).or(tagged).or(name), pushed);
    } else {
        report.fields.text(Field::ArtifactName, name);
    }
    repository(&mut report, root);
    let mut findings = Vec::new();
    for result in root.get("Results").into_iter().flat_map(Value::items) {
        let target = result.str_at(&["Target"]);
        findings.extend(list(result, "Vulnerabilities").map(vulnerability));
        findings.extend(list(result, "Misconfigurations").filter(|check| failed(*check)).map(|check| Finding {
            kind: "misconfiguration",
            rule: check.str_at(&["ID"]).or_else(|| check.str_at(&["AVDID"])),
            severity: scan::severity(check.str_at(&["Severity"])),
            location: scan::place(target, line(check, &["CauseMetadata", "StartLine"])),
            message: check.str_at(&["Message"]).or_else(|| check.str_at(&["Title"])),
            reason: check.str_at(&["Status"]),
        }));
        findings.extend(list(result, "Secrets").map(|secret| Finding {
            kind: "secret",
            rule: secret.str_at(&["RuleID"]),
            severity: scan::severity(secret.str_at(&["Severity"])),
            location: scan::place(target, line(secret, &["StartLine"])),
            message: secret.str_at(&["Title"]),
            reason: None,
        }));
        findings.extend(list(result, "Licenses").map(|license| Finding {
            kind: "license",
            rule: license.str_at(&["Name"]),
            severity: scan::severity(license.str_at(&["Severity"])),
            location: license.str_at(&["PkgName"]).or(target).map(ToOwned::to_owned),
            message: license.str_at(&["Category"]),
            reason: None,
        }));
    }
    let total = findings.len();
    Ok(scan::with_findings(report, findings, total))
}

/// A scanned repository says which one and at which commit.
fn repository(report: &mut Draft, root: Value<'_>) {
    let metadata = root.get("Metadata").unwrap_or(root);
    let address = metadata.str_at(&["RepoURL"]).or_else(|| metadata.str_at(&["Repo", "URL"]));
    report.fields.text(Field::CiRepo, address.and_then(super::git_remote::repo));
    report.fields.text(Field::CiSha, metadata.str_at(&["Commit"]));
}

fn list<'a>(value: Value<'a>, key: &str) -> impl Iterator<Item = Value<'a>> {
    value.get(key).into_iter().flat_map(Value::items)
}

/// With `--include-non-failures` checks that passed are listed too.
fn failed(check: Value<'_>) -> bool {
    !matches!(check.str_at(&["Status"]), Some("PASS" | "EXCEPTION"))
}

fn line(value: Value<'_>, path: &[&str]) -> Option<i64> {
    value.at(path).and_then(Value::as_i64).filter(|line| *line > 0)
}

fn vulnerability(found: Value<'_>) -> Finding<'_> {
    let package = || {
        let name = found.str_at(&["PkgName"])?;
        Some(format!("{name}@{}", found.str_at(&["InstalledVersion"]).unwrap_or_default()))
    };
    Finding {
        kind: "vulnerability",
        rule: found.str_at(&["VulnerabilityID"]),
        severity: scan::severity(found.str_at(&["Severity"])),
        location: found.str_at(&["PkgIdentifier", "PURL"]).map(ToOwned::to_owned).or_else(package),
        message: found.str_at(&["Title"]),
        reason: found.str_at(&["Status"]),
    }
}

/// A resource of the operator. Its kind says what was looked for, its labels which workload it is about.
fn operator(root: Value<'_>) -> Result<Vec<Draft>, Undecodable> {
    let kind = root.str_at(&["kind"]).unwrap_or_default();
    let body = root.get("report").unwrap_or(root);
    if kind.ends_with("ComplianceReport") {
        return Ok(compliance(root));
    }
    let scanner = body.str_at(&["scanner", "version"]);
    let mut report = scan::report("trivy", scanner);
    report.time = time_at(body, &["updateTimestamp"]).or_else(|| time_at(root, &["metadata", "creationTimestamp"]));
    workload(&mut report, root);
    if let Some(repository) = body.str_at(&["artifact", "repository"]) {
        let registry = body.str_at(&["registry", "server"]).map(|server| format!("{server}/")).unwrap_or_default();
        let tag = body.str_at(&["artifact", "tag"]).map(|tag| format!(":{tag}")).unwrap_or_default();
        report.fields.text(Field::ArtifactName, Some(format!("{registry}{repository}{tag}")));
        report.fields.text(Field::ArtifactRepo, Some(format!("{registry}{repository}")));
    }
    let digest = body.str_at(&["artifact", "digest"]).filter(|digest| super::images::is_digest(digest));
    report.fields.text(Field::ArtifactDigest, digest);
    if kind.ends_with("SbomReport") {
        return Ok(vec![bill_of_materials(report, body)]);
    }
    let findings: Vec<Finding<'_>> = if kind.ends_with("VulnerabilityReport") {
        list(body, "vulnerabilities").map(operator_vulnerability).collect()
    } else if kind == "ExposedSecretReport" {
        list(body, "secrets").map(exposed_secret).collect()
    } else if kind.ends_with("Report") {
        // ConfigAudit, RbacAssessment, InfraAssessment and their cluster-wide forms.
        list(body, "checks")
            .filter(|check| check.at(&["success"]).and_then(Value::as_bool) == Some(false))
            .map(check)
            .collect()
    } else {
        return Err(Undecodable::Shape {
            expected: EXPECTED,
            problem: "its `kind` is no report of the Trivy operator",
        });
    };
    let total = findings.len();
    Ok(scan::with_findings(report, findings, total))
}

/// A compliance report is also the order for one: until it has run, it has no status.
fn compliance(root: Value<'_>) -> Vec<Draft> {
    let Some(status) = root.get("status").filter(|status| status.is_object()) else {
        let mut draft = scan::by("trivy", None, "scan.requested");
        draft.time = time_at(root, &["metadata", "creationTimestamp"]);
        workload(&mut draft, root);
        return vec![draft];
    };
    let mut report = scan::report("trivy", None);
    report.time = time_at(status, &["updateTimestamp"]);
    workload(&mut report, root);
    let count = |control: &Value<'_>| control.get("totalFail").and_then(Value::as_i64).unwrap_or(0);
    let fails = |control: &Value<'_>| {
        list(*control, "checks").any(|check| check.get("success").and_then(Value::as_bool) == Some(false))
    };
    // `reportType` decides which of the two there is.
    let summary = status.at(&["summaryReport", "controlCheck"]).into_iter().flat_map(Value::items);
    let detail = status.at(&["detailReport", "results"]).into_iter().flat_map(Value::items);
    let failed = summary.filter(|control| count(control) > 0).chain(detail.filter(fails));
    let findings: Vec<Finding<'_>> = failed
        .map(|control| Finding {
            kind: "misconfiguration",
            rule: control.str_at(&["id"]),
            severity: scan::severity(control.str_at(&["severity"])),
            location: None,
            message: control.str_at(&["name"]),
            reason: None,
        })
        .collect();
    let total = findings.len();
    scan::with_findings(report, findings, total)
}

fn workload(report: &mut Draft, root: Value<'_>) {
    let label = |name: &str| {
        let labels = root.at(&["metadata", "labels"])?;
        labels.str_at(&[&format!("trivy-operator.resource.{name}")])
    };
    let fields = &mut report.fields;
    fields.text(Field::K8sNamespace, label("namespace").or_else(|| root.str_at(&["metadata", "namespace"])));
    fields.text(Field::K8sKind, label("kind").map(|kind| format!("{}s", kind.to_lowercase())));
    fields.text(Field::K8sName, label("name").or_else(|| root.str_at(&["metadata", "name"])));
}

fn bill_of_materials(mut report: Draft, body: Value<'_>) -> Draft {
    report.fields.text(Field::Action, Some("sbom.created"));
    let version = body.str_at(&["components", "specVersion"]).unwrap_or_default();
    report.fields.text(Field::SbomFormat, Some(format!("CycloneDX {version}").trim_end()));
    let count = body.at(&["summary", "componentsCount"]).and_then(Value::as_i64);
    report.fields.int(Field::SbomComponents, count);
    report
}

fn operator_vulnerability(found: Value<'_>) -> Finding<'_> {
    let package = || {
        let name = found.str_at(&["resource"])?;
        Some(format!("{name}@{}", found.str_at(&["installedVersion"]).unwrap_or_default()))
    };
    Finding {
        kind: "vulnerability",
        rule: found.str_at(&["vulnerabilityID"]),
        severity: scan::severity(found.str_at(&["severity"])),
        location: found.str_at(&["packagePURL"]).map(ToOwned::to_owned).or_else(package),
        message: found.str_at(&["title"]),
        reason: None,
    }
}

fn exposed_secret(found: Value<'_>) -> Finding<'_> {
    Finding {
        kind: "secret",
        rule: found.str_at(&["ruleID"]),
        severity: scan::severity(found.str_at(&["severity"])),
        location: found.str_at(&["target"]).map(ToOwned::to_owned),
        message: found.str_at(&["title"]),
        reason: None,
    }
}

fn check(found: Value<'_>) -> Finding<'_> {
    Finding {
        kind: "misconfiguration",
        rule: found.str_at(&["checkID"]),
        severity: scan::severity(found.str_at(&["severity"])),
        location: None,
        message: found.str_at(&["title"]),
        reason: None,
    }
}
