//! History of every source through `import`: all fixtures, and all samples where `PIPEPROOF_SAMPLES_DIR` names a folder of them. What was
//! sent is what became events, repetitions and dead letters, source by source, and nothing panics.

use std::path::{Path, PathBuf};

use pipeproof_engine::source::SourceType;
use serde_json::Value;

use crate::harness::{Server, files, left_out, tell};

/// Folder of samples, and the type of the source it is imported to. Folders of fixtures are named after their type.
const SAMPLES: &[(&str, &str)] = &[
    ("argo", "argocd"),
    ("argocd", "argocd"),
    ("aws_cloudtrail", "aws.cloudtrail"),
    ("aws_eventbridge", "aws.cloudtrail"),
    ("aws_findings", "json"),
    ("azure_monitor", "azure.activity"),
    ("cdevents", "cdevents"),
    ("cloudevents", "cloudevents"),
    ("falco", "falco"),
    ("flux", "flux"),
    ("gatekeeper", "gatekeeper.audit"),
    ("gcp_audit", "gcp.audit"),
    ("github_actions_log", "github.joblog"),
    ("github_audit", "github.audit"),
    ("github_webhook", "github.webhook"),
    ("gitlab_webhook", "gitlab.webhook"),
    ("gitleaks", "gitleaks"),
    ("grype", "grype"),
    ("harden_runner", "harden-runner"),
    ("jenkins", "jenkins"),
    ("k8s_admissionreview", "kubernetes.admission"),
    ("k8s_audit", "kubernetes.audit"),
    ("k8s_event", "kubernetes.event"),
    ("ocsf", "json"),
    ("okta", "okta"),
    ("opa_decision", "opa.decision"),
    ("otlp_logs", "otlp"),
    ("policy_report", "kyverno.report"),
    ("rekor", "rekor.entry"),
    ("sarif", "sarif"),
    ("sbom_cyclonedx", "sbom.cyclonedx"),
    ("sbom_spdx", "sbom.spdx"),
    ("sigstore_bundle", "sigstore.bundle"),
    ("slsa_provenance", "intoto.statement"),
    ("tetragon", "tetragon"),
    ("tracee", "tracee"),
    ("trivy", "trivy"),
];

/// A folder to import: what its source is called, its type, where the payloads are.
struct Folder {
    source: String,
    kind: String,
    path: PathBuf,
}

/// Folders of payloads, without what tests keep beside them. The name of a schema is no payload's.
fn folders(root: &Path, prefix: &str, kind_of: impl Fn(&str) -> Option<String>) -> Vec<Folder> {
    let mut found: Vec<Folder> = Vec::new();
    let mut all: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    // What build tools print is of no source.
    for path in all.into_iter().filter(|path| path.is_dir() && !path.ends_with("build_logs")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let has_payloads = files(&path).iter().any(|file| is_payload(file));
        if !has_payloads {
            continue;
        }
        let Some(kind) = kind_of(&name) else { panic!("{} is of no source type", path.display()) };
        found.push(Folder { source: format!("{prefix}-{}", name.replace('_', "-")), kind, path });
    }
    found
}

fn is_payload(file: &Path) -> bool {
    let name = file.file_name().unwrap().to_string_lossy();
    [".json", ".ndjson", ".csv", ".log"].iter().any(|end| name.ends_with(end))
        && !name.ends_with(".fields.ndjson")
        && !name.starts_with("schema-")
}

/// A payload without what a collection of samples wrapped it in; other lines as they are.
fn unwrapped(line: &str) -> String {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(mut object)) if object.contains_key("_path") && object.contains_key("doc") => {
            object.remove("doc").unwrap().to_string()
        }
        _ => line.to_owned(),
    }
}

/// Copies payloads; returns how many lines those files have that hold an item on each.
fn copied(from: &Path, to: &Path) -> u64 {
    let mut lines = 0;
    for (number, file) in files(from).into_iter().filter(|file| is_payload(file)).enumerate() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let target = to.join(format!("{number}-{name}"));
        if name.ends_with(".ndjson") {
            let text = std::fs::read_to_string(&file).unwrap();
            let all: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(unwrapped).collect();
            lines += all.len() as u64;
            std::fs::write(target, all.join("\n")).unwrap();
        } else {
            std::fs::copy(&file, target).unwrap();
        }
    }
    lines
}

async fn imported(folders: &[Folder]) {
    let server = Server::start();
    tell(&format!(
        "{:34} {:22} {:>6} {:>8} {:>10} {:>12}",
        "source", "type", "sent", "accepted", "duplicates", "dead letters"
    ));
    let mut total = 0;
    for folder in folders {
        server.add_source(&folder.source, &folder.kind, &[]);
        let payloads = tempfile::TempDir::new().unwrap();
        let lines = copied(&folder.path, payloads.path());
        let said = server.cli_json(&["import", "--source", &folder.source, &payloads.path().display().to_string()]);
        let count = |name: &str| said[name].as_u64().unwrap();
        let (sent, accepted) = (count("sent"), count("accepted"));
        let (duplicates, dead) = (count("duplicates"), count("dead_letters"));
        tell(&format!("{:34} {:22} {sent:6} {accepted:8} {duplicates:10} {dead:12}", folder.source, folder.kind));
        assert_eq!(sent, accepted + duplicates + dead, "{}: something vanished", folder.source);
        // A line is an item, or a wrapper of some.
        assert!(sent >= lines.max(1), "{}: {sent} items of {lines} lines", folder.source);
        let (source, kept) = (&folder.source, accepted + dead);
        let held = server.count(&format!("SELECT count(*) FROM events WHERE sub = 0 AND source = '{source}'")).await;
        assert_eq!(u64::try_from(held).unwrap(), kept, "{source}: the lake holds what is no repetition");
        total += sent;
    }
    let reasons =
        "SELECT source, dead_letter, count(*) FROM events WHERE dead_letter IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2";
    for reason in server.sql(reasons).await {
        tell(&format!("{}: {} × {}", reason[0].as_str().unwrap(), reason[2], reason[1].as_str().unwrap()));
    }
    tell(&format!("{total} items of {} sources", folders.len()));
    let (_, log) = server.terminate();
    let panics: Vec<_> = log.iter().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:?}");
}

fn kind_of_samples(name: &str) -> Option<String> {
    SAMPLES.iter().find(|(folder, _)| *folder == name).map(|(_, kind)| (*kind).to_owned())
}

#[tokio::test]
async fn every_fixture_that_is_imported_is_accounted_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Types have their names with dots, folders with underscores.
    let of_type = |name: &str| {
        let kind = SourceType::ALL.iter().find(|kind| kind.name().replace('.', "_") == name)?;
        Some(kind.name().to_owned())
    };
    let mut all = folders(&root.join("tests/fixtures"), "fixtures", of_type);
    all.extend(folders(&root.join("ingest/tests/fixtures"), "more", kind_of_samples));
    assert!(all.len() > 40, "{} folders", all.len());
    imported(&all).await;
}

#[tokio::test]
async fn every_sample_that_is_imported_is_accounted_for() {
    let Some(samples) = std::env::var_os("PIPEPROOF_SAMPLES_DIR") else {
        return left_out("the import of every sample", "PIPEPROOF_SAMPLES_DIR names no folder of samples");
    };
    imported(&folders(Path::new(&samples), "samples", kind_of_samples)).await;
}
