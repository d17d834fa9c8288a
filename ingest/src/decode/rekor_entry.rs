//! Entries of a Rekor transparency log: who put which signature into it, and when. Parsed, not verified.
//!
//! Source: sigstore/rekor `pkg/types/*/…_schema.json` and sigstore/protobuf-specs `sigstore_rekor.proto`. Read are the
//! answers of the API (`{UUID: {body, integratedTime, …}}`), entries as bundles hold them (`canonicalizedBody`), and bodies
//! alone. Entries of Rekor v2 have no time: it is that of a timestamp beside the signature, which the log does not hold.

use std::borrow::Cow;

use engine::fields::{Field, Fields};
use engine::json::{Parsed, Value};
use engine::record::Record;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use sha2::{Digest as _, Sha256};

use super::{
    DEPTH_MAX, DERIVED_MAX, Draft, Undecodable, armour, fulcio, images, leave_out, object, sigstore_bundle, statement,
};

const EXPECTED: &str = "an entry of a Rekor log";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    if root.members(["kind", "body", "canonicalizedBody"]).iter().any(Option::is_some) {
        return entry(root, None).map(|draft| vec![draft]);
    }
    let mut answers = root.entries().filter(|(_, entry)| entry.get("body").is_some());
    let kept = answers.by_ref().take(DERIVED_MAX);
    let mut drafts: Vec<Draft> = kept.map(|(uuid, answer)| entry(answer, Some(uuid))).collect::<Result<_, _>>()?;
    leave_out(&mut drafts, answers.count());
    if drafts.is_empty() {
        return Err(Undecodable::Shape {
            expected: EXPECTED,
            problem: "it has no `body`, `canonicalizedBody` or `kind`",
        });
    }
    Ok(drafts)
}

fn entry(root: Value<'_>, uuid: Option<&str>) -> Result<Draft, Undecodable> {
    let shape = |problem| Undecodable::Shape { expected: EXPECTED, problem };
    let mut draft = Draft::new("artifact.signed", "signing");
    let [proposed, canonical, index, time, attestation] =
        root.members(["body", "canonicalizedBody", "logIndex", "integratedTime", "attestation"]);
    let time = time.and_then(Value::scalar).and_then(|text| text.parse().ok());
    draft.time = time.filter(|secs| *secs > 0).map(Timestamp::from_secs);
    draft.fields.text(Field::Outcome, Some("success"));
    let wrapped = proposed.and_then(Value::as_str).or_else(|| canonical.and_then(Value::as_str));
    if let Some(wrapped) = wrapped {
        let bytes = armour::standard(wrapped).ok_or_else(|| shape("its body is not Base64"))?;
        body(&mut draft, Parsed::of(&bytes, DEPTH_MAX, &[])?.root())?;
    } else {
        body(&mut draft, root)?;
    }
    draft.fields.text(Field::ConfigId, index.and_then(Value::scalar).or_else(|| uuid.map(Cow::Borrowed)));
    draft.fields.text(Field::SignatureStatus, Some("unverified"));
    // Logs that store attestations hand them out with the entry.
    let stored = attestation.and_then(|held| held.str_at(&["data"])).and_then(armour::standard);
    if let Some(stored) = stored.as_deref().and_then(|bytes| statement::parse(bytes).ok()) {
        statement::set(&mut draft.fields, stored.root());
        if let Some((name, digest)) = statement::subjects(stored.root()).next() {
            draft.fields.text(Field::ArtifactName, name);
            draft.fields.text(Field::ArtifactDigest, Some(digest));
        }
    }
    Ok(draft)
}

fn body(draft: &mut Draft, body: Value<'_>) -> Result<(), Undecodable> {
    let (Some(kind), Some(spec)) = (body.str_at(&["kind"]), body.get("spec")) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "its body has no `kind` and `spec`" });
    };
    // Version 0.0.2 of Rekor v2 puts everything under one member named after kind and version.
    let spec = spec.entries().find(|(key, _)| key.ends_with("V002")).map_or(spec, |(_, inner)| inner);
    // Fields come about in the order of their table: that is quicker.
    if let Some(key) = key(spec) {
        signer(draft, &key);
    }
    // What is signed in an envelope is its payload, and the artifact is named in there.
    if !matches!(kind, "dsse" | "intoto") {
        draft.fields.text(Field::ArtifactDigest, digest(spec));
        let name =
            spec.str_at(&["package", "headers", "Name"]).or_else(|| spec.str_at(&["package", "pkginfo", "pkgname"]));
        draft.fields.text(Field::ArtifactName, name);
    }
    draft.fields.text(Field::Message, Some(kind));
    Ok(())
}

/// The digest of what was signed: stated, or of the content that a proposed entry still carries.
fn digest(spec: Value<'_>) -> Option<String> {
    let data = ["data", "package", "archive", "chart", "metadata"].iter().find_map(|key| spec.get(key))?;
    let hash = data.get("hash").filter(|hash| hash.str_at(&["algorithm"]) == Some("sha256"));
    if let Some(value) = hash.and_then(|hash| hash.str_at(&["value"])) {
        return Some(format!("sha256:{}", value.to_lowercase())).filter(|digest| images::is_digest(digest));
    }
    if matches!(data.str_at(&["algorithm"]), Some("SHA2_256")) {
        let bytes = armour::standard(data.str_at(&["digest"])?)?;
        return <&[u8; 32]>::try_from(&*bytes).ok().map(images::digest);
    }
    let content = armour::standard(data.str_at(&["content"])?)?;
    Some(images::digest(&Sha256::digest(&*content).into()))
}

/// The key or certificate of the first signature, as bytes.
fn key(spec: Value<'_>) -> Option<armour::Opened> {
    let signature = spec.get("signature").filter(|signature| signature.is_object());
    let listed = || {
        let lists = [spec.get("signatures"), spec.at(&["content", "envelope", "signatures"])];
        lists.into_iter().flatten().find_map(|list| list.items().next())
    };
    let signature = signature.or_else(listed).unwrap_or(spec);
    if let Some(verifier) = signature.get("verifier") {
        let raw =
            verifier.str_at(&["x509Certificate", "rawBytes"]).or_else(|| verifier.str_at(&["publicKey", "rawBytes"]));
        return armour::standard(raw.or_else(|| verifier.as_str())?);
    }
    let holder = signature.get("publicKey").or_else(|| spec.get("publicKey"))?;
    armour::standard(holder.as_str().or_else(|| holder.str_at(&["content"]))?)
}

fn signer(draft: &mut Draft, key: &[u8]) {
    let pem = armour::pem(key);
    let der = pem.as_deref().unwrap_or(key);
    let fields: &mut Fields = &mut draft.fields;
    match fulcio::read(der) {
        Some(claims) if claims.identity.is_some() => {
            draft.time = draft.time.or(claims.not_before);
            sigstore_bundle::who(fields, &claims);
        }
        // A key says nothing but which one it is.
        _ => {
            let id = format!("key:{}", images::digest(&Sha256::digest(der).into()));
            fields.text(Field::ActorId, Some(id));
            fields.text(Field::ActorType, Some("service"));
        }
    }
}
