//! SPDX documents in JSON: 2.2 and 2.3, and 3.0, which is another shape altogether (a JSON-LD graph).
//!
//! Source: SPDX specification 2.3, `creationInfo`, `packages`, `relationships`; 3.0.1, Core and Software profiles.

use engine::fields::Field;
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, images, object, purl, time_at};

const EXPECTED: &str = "an SPDX document";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let mut draft = Draft::new("sbom.created", "scan");
    if root.str_at(&["spdxVersion"]).is_some() {
        document(&mut draft, root);
    } else if let Some(graph) = root.get("@graph").filter(|_| is_spdx_3(root)) {
        graph_3(&mut draft, graph);
    } else {
        let problem = "it has neither `spdxVersion` nor a `@graph` in the context of SPDX 3";
        return Err(Undecodable::Shape { expected: EXPECTED, problem });
    }
    Ok(vec![draft])
}

fn is_spdx_3(root: Value<'_>) -> bool {
    let Some(context) = root.get("@context") else { return false };
    context.as_str().into_iter().chain(context.items().filter_map(Value::as_str)).any(|text| text.contains("spdx.org"))
}

fn document(draft: &mut Draft, root: Value<'_>) {
    draft.time = time_at(root, &["creationInfo", "created"]);
    let version = root.str_at(&["spdxVersion"]).unwrap_or_default();
    let fields = &mut draft.fields;
    fields.text(Field::SbomFormat, Some(version.replacen('-', " ", 1)));
    let packages: Vec<Value<'_>> = root.get("packages").into_iter().flat_map(Value::items).collect();
    fields.int(Field::SbomComponents, i64::try_from(packages.len()).ok());
    fields.text(Field::ConfigId, root.str_at(&["documentNamespace"]));
    // `Tool: syft-0.57.0`, `Person: Jane Doe (mail)`, `Organization: …`.
    let creators: Vec<&str> =
        root.at(&["creationInfo", "creators"]).into_iter().flat_map(Value::items).filter_map(Value::as_str).collect();
    let named = |kind: &str| creators.iter().find_map(|creator| creator.strip_prefix(kind)).map(str::trim);
    let (tool, person) = (named("Tool:"), named("Person:"));
    fields.text(Field::ScanTool, tool);
    fields.text(Field::ActorId, tool.or(person).or_else(|| named("Organization:")));
    // A document that a tool wrote was made by the tool, on whose behalf ever.
    fields.text(Field::ActorType, tool.map(|_| "service").or_else(|| person.map(|_| "human")));
    let name = root.str_at(&["name"]);
    let about = described(root, &packages);
    let artifact = about.and_then(|package| package.str_at(&["name"])).or(name);
    fields.text(Field::ArtifactName, about.and_then(address).or(artifact));
    fields.text(Field::ArtifactDigest, about.and_then(digest));
}

/// The package a document describes, by its members or by the relationship that says so.
fn described<'a>(root: Value<'a>, packages: &[Value<'a>]) -> Option<Value<'a>> {
    let related = || {
        let mut relations = root.get("relationships").into_iter().flat_map(Value::items);
        relations.find_map(|relation| {
            let describes = relation.str_at(&["relationshipType"]) == Some("DESCRIBES")
                && relation.str_at(&["spdxElementId"]) == Some("SPDXRef-DOCUMENT");
            relation.str_at(&["relatedSpdxElement"]).filter(|_| describes)
        })
    };
    let id = root.get("documentDescribes").and_then(|list| list.items().next()?.as_str()).or_else(related)?;
    packages.iter().copied().find(|package| package.str_at(&["SPDXID"]) == Some(id))
}

fn address(package: Value<'_>) -> Option<&str> {
    let mut references = package.get("externalRefs").into_iter().flat_map(Value::items);
    let purl = references.find(|reference| reference.str_at(&["referenceType"]) == Some("purl"))?;
    purl.str_at(&["referenceLocator"])
}

fn digest(package: Value<'_>) -> Option<String> {
    let mut checksums = package.get("checksums").into_iter().flat_map(Value::items);
    let hash = checksums.find(|sum| sum.str_at(&["algorithm"]) == Some("SHA256"));
    let hash =
        hash.and_then(|sum| sum.str_at(&["checksumValue"])).map(|hash| format!("sha256:{}", hash.to_lowercase()));
    let version = package.str_at(&["versionInfo"]).map(ToOwned::to_owned);
    let mut found = [address(package).and_then(purl::digest), version, hash].into_iter().flatten();
    found.find(|digest| images::is_digest(digest))
}

/// SPDX 3: elements of a graph, named by their types.
fn graph_3(draft: &mut Draft, graph: Value<'_>) {
    let of = |kind: &'static str| graph.items().filter(move |element| element.str_at(&["type"]) == Some(kind));
    let info = of("CreationInfo").next();
    draft.time = info.and_then(|info| time_at(info, &["created"]));
    let fields = &mut draft.fields;
    let version = info.and_then(|info| info.str_at(&["specVersion"])).unwrap_or("3");
    fields.text(Field::SbomFormat, Some(format!("SPDX {version}")));
    fields.int(Field::SbomComponents, i64::try_from(of("software_Package").count()).ok());
    let id_of =
        |element: Value<'_>| element.str_at(&["spdxId"]).or_else(|| element.str_at(&["@id"])).map(ToOwned::to_owned);
    fields.text(Field::ConfigId, of("SpdxDocument").next().and_then(id_of));
    let find = |id: &str| graph.items().find(|element| element.str_at(&["spdxId"]) == Some(id));
    let first = |key: &str| info?.get(key)?.items().next()?.as_str();
    let (tool, author) = (first("createdUsing"), first("createdBy"));
    let name = |id: &str| find(id).and_then(|element| element.str_at(&["name"])).unwrap_or(id).to_owned();
    fields.text(Field::ScanTool, tool.map(name));
    fields.text(Field::ActorId, tool.or(author).map(name));
    let person = author.and_then(find).and_then(|agent| agent.str_at(&["type"])) == Some("Person");
    fields.text(Field::ActorType, tool.map(|_| "service").or_else(|| person.then_some("human")));
    let root = of("software_Sbom").chain(of("SpdxDocument")).find_map(|element| {
        let root = element.get("rootElement")?;
        root.as_str().or_else(|| root.items().next()?.as_str())
    });
    // The root of a document may be the bill of materials, whose root is the thing.
    let Some(about) = root.and_then(find) else { return };
    fields.text(Field::ArtifactName, about.str_at(&["software_packageUrl"]).or_else(|| about.str_at(&["name"])));
    let hashes = about.get("verifiedUsing").into_iter().flat_map(Value::items);
    let hash = hashes
        .filter(|hash| hash.str_at(&["algorithm"]) == Some("sha256"))
        .find_map(|hash| hash.str_at(&["hashValue"]));
    let digest = hash.map(|hash| format!("sha256:{}", hash.to_lowercase())).filter(|digest| images::is_digest(digest));
    fields.text(Field::ArtifactDigest, about.str_at(&["software_packageUrl"]).and_then(purl::digest).or(digest));
}
