//! `pipeproof evidence` and `pipeproof controls`.

use std::path::Path;

use pipeproof_reports::controls::catalogue;
use pipeproof_reports::verify::{self, Anchor, Options, Outcome, Previous, Report, Verdict};
use serde_json::{Value, json};

use super::arguments::{EvidenceAction, Format, ListAction};
use super::{Failure, show};
use crate::client::{Client, ClientError, Place};

pub(super) async fn evidence(action: EvidenceAction, place: &Place, format: Option<Format>) -> Result<(), Failure> {
    match action {
        EvidenceAction::Build { framework, from, to, as_of, out } => {
            let body = json!({ "framework": framework, "from": from, "to": to, "as_of": as_of });
            let client = Client::connect(place).await?;
            let built = build(&client, &body, &out).await;
            client.close().await?;
            let mut built = built?;
            built["path"] = out.display().to_string().into();
            if show::format(format) != Format::Human {
                return show::object(&built, format);
            }
            show::plain(&format!("sealed {}\n{}", built["pack"].as_str().unwrap_or_default(), out.display()))?;
            results(&built, format)
        }
        EvidenceAction::List => {
            let client = Client::connect(place).await?;
            let answer = client.get("/v1/evidence").await;
            client.close().await?;
            let packs = answer?.get("packs").and_then(Value::as_array).cloned().unwrap_or_default();
            show::rows(&packs, &["pack", "framework", "from", "to", "as_of", "created", "digest"], format)
        }
        EvidenceAction::Anchor { out } => {
            let client = Client::connect(place).await?;
            let answer = client.get("/v1/anchor").await;
            client.close().await?;
            let answer = answer?;
            let pem = answer.get("pem").and_then(Value::as_str).unwrap_or_default();
            match out {
                None => show::line(pem.trim_end()),
                Some(path) => {
                    std::fs::write(&path, pem).map_err(|source| io(&path, "write", source))?;
                    let print = answer.get("fingerprint").and_then(Value::as_str).unwrap_or_default();
                    show::diagnostic(&format!(
                        "{} written; its SHA-256 fingerprint, to be told by another way: {print}",
                        path.display()
                    ));
                    Ok(())
                }
            }
        }
        EvidenceAction::Verify { file, key, identity, trusted_root, previous, reperform } => {
            let anchor = match (key, trusted_root) {
                (Some(path), _) => Some(Anchor::Key(read(&path)?)),
                (None, Some(path)) => Some(Anchor::TrustedRoot(read(&path)?)),
                (None, None) => None,
            };
            let unpacked = verify::read(&file).map_err(|error| Failure::Other(crate::chain(&error)))?;
            let previous = previous.as_deref().map(earlier).transpose()?;
            let reperformed = if reperform {
                Some(
                    crate::evidence::reperform(&unpacked)
                        .await
                        .map_err(|error| Failure::Other(crate::chain(&error)))?,
                )
            } else {
                None
            };
            let options = Options { anchor, identity, issuer: None, previous, reperformed };
            let report = verify::verify(&unpacked, &options);
            show_report(&report, format)?;
            match report.verdict() {
                Verdict::Verified => Ok(()),
                Verdict::SignerNotEstablished | Verdict::Failed => Err(Failure::Unverified),
            }
        }
    }
}

async fn build(client: &Client, body: &Value, out: &Path) -> Result<Value, ClientError> {
    let built = client.post("/v1/evidence", body).await?;
    let name = built.get("pack").and_then(Value::as_str).unwrap_or_default();
    let zip = client.download(&format!("/v1/evidence/{name}")).await?;
    std::fs::write(out, zip).map_err(|source| ClientError::File { path: out.to_owned(), source })?;
    Ok(built)
}

fn results(built: &Value, format: Option<Format>) -> Result<(), Failure> {
    let results = built.get("results").and_then(Value::as_array).cloned().unwrap_or_default();
    show::rows(&results, &["control", "title", "sentence"], format)
}

/// An earlier pack, or a checkpoint as it was deposited.
fn earlier(path: &Path) -> Result<Previous, Failure> {
    if path.extension().is_some_and(|extension| extension == "zip") {
        let pack = verify::read(path).map_err(|error| Failure::Other(crate::chain(&error)))?;
        return Ok(Previous::Pack(Box::new(pack)));
    }
    read(path).map(Previous::Checkpoint)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|source| io(path, "read", source))
}

fn io(path: &Path, verb: &str, source: std::io::Error) -> Failure {
    Failure::Io { doing: format!("{verb} {}", path.display()), source }
}

fn show_report(report: &Report, format: Option<Format>) -> Result<(), Failure> {
    if show::format(format) != Format::Human {
        let mut value = serde_json::to_value(report).unwrap_or_default();
        value["verdict"] = serde_json::to_value(report.verdict()).unwrap_or_default();
        value["summary"] = report.summary().into();
        return show::object(&value, format);
    }
    for check in &report.checks {
        let mark = match check.outcome {
            Outcome::Ok => "ok    ",
            Outcome::Failed => "FAILED",
            Outcome::NotDone => "-     ",
        };
        show::plain(&format!("{mark} {} ({}) {}", check.name, check.examined, check.detail))?;
        for failure in &check.failures {
            show::plain(&format!("         {}: {}", failure.subject, failure.reason))?;
        }
    }
    if let Some(signer) = &report.signer {
        show::plain(&format!("signed by {} (issuer {})", signer.identity, signer.issuer))?;
    }
    show::plain(&format!("{}: {}", report.pack, report.summary()))
}

pub(super) fn controls(action: &ListAction, format: Option<Format>) -> Result<(), Failure> {
    let ListAction::List = action;
    let controls = catalogue::controls().map_err(|error| Failure::Other(crate::chain(&error)))?;
    let frameworks = catalogue::frameworks().map_err(|error| Failure::Other(crate::chain(&error)))?;
    let rows: Vec<Value> = controls
        .iter()
        .map(|control| {
            let mut row = json!({ "id": control.id, "title": control.title });
            for framework in &frameworks {
                row[&framework.framework] = json!(framework.controls.get(&control.id));
            }
            row
        })
        .collect();
    let mut columns = vec!["id", "title"];
    columns.extend(frameworks.iter().map(|framework| framework.framework.as_str()));
    show::rows(&rows, &columns, format)
}
