//! CycloneDX bills of materials (JSON, 1.2 to 1.7), VEX documents among them.
//!
//! Source: CycloneDX specification. Nearly everything is optional there, the time and the subject included.

use engine::fields::Field;
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::scan::{self, Finding};
use super::{Draft, Undecodable, images, object, purl, scalar, time_at};

const EXPECTED: &str = "a CycloneDX document";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    if root.str_at(&["bomFormat"]) != Some("CycloneDX") {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "its `bomFormat` is not `CycloneDX`" });
    }
    let mut draft = Draft::new("sbom.created", "scan");
    let metadata = root.get("metadata").unwrap_or(root);
    draft.time = time_at(metadata, &["timestamp"]);
    let fields = &mut draft.fields;
    let version = scalar(root, &["specVersion"]).unwrap_or_default();
    fields.text(Field::SbomFormat, Some(format!("CycloneDX {version}").trim_end()));
    let components = root.get("components").map_or(0, count);
    fields.int(Field::SbomComponents, Some(components));
    // A document that a tool wrote was made by the tool, on whose behalf ever.
    let (tool, author) = (tool(metadata), author(metadata));
    fields.text(Field::ScanTool, tool);
    fields.text(Field::ActorId, tool.or(author).or_else(|| metadata.str_at(&["manufacturer", "name"])));
    fields.text(Field::ActorType, tool.map(|_| "service").or_else(|| author.map(|_| "human")));
    fields.text(Field::ConfigId, root.str_at(&["serialNumber"]));
    if let Some(subject) = metadata.get("component") {
        describe(&mut draft, subject);
    }
    let findings: Vec<Finding<'_>> =
        root.get("vulnerabilities").into_iter().flat_map(Value::items).map(vulnerability).collect();
    let total = findings.len();
    if total == 0 {
        return Ok(vec![draft]);
    }
    Ok(scan::with_findings(draft, findings, total))
}

/// Components with those nested in them.
fn count(list: Value<'_>) -> i64 {
    let mut open: Vec<Value<'_>> = list.items().collect();
    let mut found = 0;
    while let Some(component) = open.pop() {
        found += 1;
        open.extend(component.get("components").into_iter().flat_map(Value::items));
    }
    found
}

/// The tool that wrote it: a list in earlier versions, components and services since 1.5.
fn tool(metadata: Value<'_>) -> Option<&str> {
    let tools = metadata.get("tools")?;
    let lists = [Some(tools), tools.get("components"), tools.get("services")];
    lists.into_iter().flatten().flat_map(Value::items).find_map(|tool| tool.str_at(&["name"]))
}

/// The person who says to have made it.
fn author(metadata: Value<'_>) -> Option<&str> {
    let person = metadata.get("authors").and_then(|list| list.items().next())?;
    person.str_at(&["email"]).or_else(|| person.str_at(&["name"]))
}

/// What the document is about: an image by its digest, any other artifact by its package URL or hash.
fn describe(draft: &mut Draft, subject: Value<'_>) {
    let fields = &mut draft.fields;
    let text = |key: &str| subject.str_at(&[key]).filter(|text| !text.is_empty());
    let (name, version, address) = (text("name"), text("version"), text("purl"));
    let hashes = subject.get("hashes").into_iter().flat_map(Value::items);
    let hash =
        hashes.filter(|hash| hash.str_at(&["alg"]) == Some("SHA-256")).find_map(|hash| hash.str_at(&["content"]));
    let digest = version
        .filter(|version| images::is_digest(version))
        .map(ToOwned::to_owned)
        .or_else(|| address.and_then(purl::digest))
        .or_else(|| {
            hash.map(|hash| format!("sha256:{}", hash.to_lowercase())).filter(|digest| images::is_digest(digest))
        });
    fields.text(Field::ArtifactDigest, digest);
    let plain = version.filter(|version| !images::is_digest(version));
    let named = name.map(|name| plain.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}")));
    let container = text("type") == Some("container");
    fields.text(Field::ArtifactRepo, name.filter(|_| container).map(|name| images::parse(name).repo));
    fields.text(Field::ArtifactName, address.map(ToOwned::to_owned).or(named));
}

fn vulnerability(found: Value<'_>) -> Finding<'_> {
    let mut ratings = found.get("ratings").into_iter().flat_map(Value::items);
    let severity = ratings.find_map(|rating| rating.str_at(&["severity"]));
    let place = found.get("affects").and_then(|list| list.items().next()?.str_at(&["ref"]));
    Finding {
        kind: "vulnerability",
        rule: found.str_at(&["id"]),
        severity: scan::severity(severity),
        location: place.map(ToOwned::to_owned),
        message: found.str_at(&["description"]),
        // VEX: not_affected, exploitable, resolved …
        reason: found.str_at(&["analysis", "state"]),
    }
}
