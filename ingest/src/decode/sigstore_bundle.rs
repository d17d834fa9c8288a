//! Sigstore bundles, v0.1 to v0.3: who says to have signed what, and when. Parsed, not verified: the status is
//! `unverified` whatever the bundle claims.
//!
//! Source: sigstore/protobuf-specs `sigstore_bundle.proto`.

use engine::fields::{Field, Fields};
use engine::json::{Parsed, Value};
use engine::record::Record;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::fulcio::{self, Claims};
use super::subject::Behind;
use super::{Draft, Undecodable, armour, images, object, statement};

const EXPECTED: &str = "a Sigstore bundle";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    bundle(json.root())
}

pub(super) fn bundle(root: Value<'_>) -> Result<Vec<Draft>, Undecodable> {
    let shape = |problem| Undecodable::Shape { expected: EXPECTED, problem };
    let media = root.str_at(&["mediaType"]).ok_or_else(|| shape("it has no `mediaType`"))?;
    if !is_known(media) {
        return Err(shape("its `mediaType` is of no version we read (0.1 to 0.3)"));
    }
    let material = root.get("verificationMaterial").ok_or_else(|| shape("it has no `verificationMaterial`"))?;
    let unread = || shape("it names no readable subject");
    let signed = signed(root).ok_or_else(unread)?;
    let statement = match &signed {
        Signed::Digest(_) => None,
        Signed::Payload(payload) => Some(statement_of(payload).ok_or_else(unread)?),
    };
    let certificate = certificate(material);
    let claims = certificate.as_deref().and_then(fulcio::read).unwrap_or_default();
    let mut draft = Draft::new("artifact.signed", "signing");
    draft.time = integrated(material).or(claims.not_before);
    who(&mut draft.fields, &claims);
    draft.fields.text(Field::SignatureStatus, Some("unverified"));
    if let Some(statement) = statement {
        let made = statement::set(&mut draft.fields, statement.root());
        draft.time = draft.time.or(made);
        // npm names packages by SHA-512 only.
        return Ok(statement::per_subject(draft, statement.root()));
    }
    if let Signed::Digest(digest) = &signed {
        draft.fields.text(Field::ArtifactDigest, Some(digest.as_str()));
    }
    Ok(vec![draft])
}

fn is_known(media: &str) -> bool {
    // The version went from a parameter into the name with v0.3; the earlier spelling of it exists too.
    let Some(rest) = media.strip_prefix("application/vnd.dev.sigstore.bundle") else { return false };
    let version = rest
        .strip_prefix("+json;version=")
        .or_else(|| rest.strip_prefix(".v").and_then(|rest| rest.strip_suffix("+json")));
    matches!(version, Some("0.1" | "0.2" | "0.3"))
}

/// What was signed: bytes of which the digest is known, or what should be a statement.
enum Signed {
    Digest(String),
    Payload(armour::Opened),
}

fn signed(root: Value<'_>) -> Option<Signed> {
    if let Some(digest) = root.at(&["messageSignature", "messageDigest"]) {
        let known = matches!(digest.str_at(&["algorithm"]), Some("SHA2_256") | None);
        let bytes = armour::standard(digest.str_at(&["digest"])?).filter(|_| known)?;
        return <&[u8; 32]>::try_from(&*bytes).ok().map(|bytes| Signed::Digest(images::digest(bytes)));
    }
    armour::standard(root.str_at(&["dsseEnvelope", "payload"])?).map(Signed::Payload)
}

/// The statement in a payload, if it is about something.
fn statement_of(payload: &[u8]) -> Option<Parsed<'_>> {
    let statement = statement::parse(payload).ok()?;
    let is_about_something = statement.at(&["subject"])?.items().next().is_some();
    is_about_something.then_some(statement)
}

fn certificate(material: Value<'_>) -> Option<armour::Opened> {
    let first = || material.at(&["x509CertificateChain", "certificates"])?.items().next();
    let leaf = material.get("certificate").or_else(first)?;
    armour::standard(leaf.str_at(&["rawBytes"])?)
}

/// When the log took the signature in. Entries of Rekor v2 have no such time.
fn integrated(material: Value<'_>) -> Option<Timestamp> {
    let entry = material.get("tlogEntries")?.items().next()?;
    let time = entry.get("integratedTime")?.scalar()?;
    time.parse().ok().filter(|secs| *secs > 0).map(Timestamp::from_secs)
}

pub(super) fn who(fields: &mut Fields, claims: &Claims<'_>) {
    let identity = claims.identity.as_deref();
    fields.text(Field::ActorId, identity);
    if let Some(issuer) = claims.issuer {
        let behind = Behind::of(issuer);
        fields.text(Field::ActorType, Some(behind.signer(identity)));
        fields.text(Field::CiProvider, behind.provider());
    }
    fields.text(Field::CiRepo, claims.repo);
    fields.text(Field::CiRunId, claims.run_id);
    fields.int(Field::CiAttempt, claims.attempt);
    fields.text(Field::CiRef, claims.git_ref);
    fields.text(Field::CiSha, claims.sha);
    fields.text(Field::CiTrigger, claims.trigger);
    fields.text(Field::CiWorkflowRef, claims.workflow_ref);
    fields.text(Field::RunnerKind, claims.runner);
    fields.text(Field::SignatureIdentity, identity);
    fields.text(Field::SignatureIssuer, claims.issuer);
}
