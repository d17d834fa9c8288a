//! Sigstore bundles, v0.1 to v0.3: who says to have signed what, and when. Parsed, not verified: the status is
//! `unverified` whatever the bundle claims.
//!
//! Source: sigstore/protobuf-specs `sigstore_bundle.proto`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::fields::{Field, Fields};
use engine::json::{Json, Value};
use engine::record::Record;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::fulcio::{self, Claims};
use super::{Draft, Undecodable, object, statement, subject};

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
    let signed = signed(root).ok_or_else(|| shape("it names no readable subject"))?;
    let claims = certificate(material).as_deref().and_then(fulcio::read).unwrap_or_default();
    let mut draft = Draft::new("artifact.signed", "signing");
    draft.time = integrated(material).or(claims.not_before);
    who(&mut draft.fields, &claims);
    draft.fields.text(Field::SignatureStatus, Some("unverified"));
    if let Some(statement) = &signed.statement {
        let made = statement::set(&mut draft.fields, statement.root());
        draft.time = draft.time.or(made);
    }
    let kept: Vec<Field> = draft.fields.iter().map(|(field, _)| field).collect();
    let mut drafts: Vec<Draft> = signed
        .subjects
        .iter()
        .map(|(name, digest)| {
            let mut one = draft.derive(&kept, "artifact.signed", "signing");
            one.fields.text(Field::ArtifactName, name.as_deref());
            one.fields.text(Field::ArtifactDigest, Some(digest.as_str()));
            one
        })
        .collect();
    if drafts.is_empty() {
        // npm names packages by SHA-512 only.
        draft
            .fields
            .text(Field::ArtifactName, signed.statement.as_ref().and_then(|said| statement::first(said.root())));
        drafts.push(draft);
    }
    Ok(drafts)
}

fn is_known(media: &str) -> bool {
    // The version went from a parameter into the name with v0.3; the earlier spelling of it exists too.
    ["0.1", "0.2", "0.3"].iter().any(|version| {
        media == format!("application/vnd.dev.sigstore.bundle+json;version={version}")
            || media == format!("application/vnd.dev.sigstore.bundle.v{version}+json")
    })
}

/// What was signed: names where the statement has them, and digests.
struct Signed {
    subjects: Vec<(Option<String>, String)>,
    statement: Option<Json>,
}

fn signed(root: Value<'_>) -> Option<Signed> {
    if let Some(digest) = root.at(&["messageSignature", "messageDigest"]) {
        let known = matches!(digest.str_at(&["algorithm"]), Some("SHA2_256") | None);
        let bytes = STANDARD.decode(digest.str_at(&["digest"])?).ok().filter(|bytes| known && bytes.len() == 32)?;
        let digest = format!("sha256:{}", hex::encode(bytes));
        return Some(Signed { subjects: vec![(None, digest)], statement: None });
    }
    let payload = STANDARD.decode(root.str_at(&["dsseEnvelope", "payload"])?).ok()?;
    let statement = Json::parse_within(&payload, super::DEPTH_MAX).ok()?;
    statement.at(&["subject"])?.items().next()?;
    Some(Signed { subjects: statement::subjects(statement.root()), statement: Some(statement) })
}

fn certificate(material: Value<'_>) -> Option<Vec<u8>> {
    let first = || material.at(&["x509CertificateChain", "certificates"])?.items().next();
    let leaf = material.get("certificate").or_else(first)?;
    STANDARD.decode(leaf.str_at(&["rawBytes"])?).ok()
}

/// When the log took the signature in. Entries of Rekor v2 have no such time.
fn integrated(material: Value<'_>) -> Option<Timestamp> {
    let entry = material.get("tlogEntries")?.items().next()?;
    let time = entry.get("integratedTime")?.scalar()?;
    time.parse().ok().filter(|secs| *secs > 0).map(Timestamp::from_secs)
}

pub(super) fn who(fields: &mut Fields, claims: &Claims) {
    fields.text(Field::SignatureIdentity, claims.identity.as_deref());
    fields.text(Field::SignatureIssuer, claims.issuer.as_deref());
    fields.text(Field::ActorId, claims.identity.as_deref());
    if let Some(issuer) = &claims.issuer {
        fields.text(Field::CiProvider, subject::ci_provider(issuer));
        fields.text(Field::ActorType, Some(subject::signer(issuer, claims.identity.as_deref())));
    }
    fields.text(Field::CiRepo, claims.repo.as_deref());
    fields.text(Field::CiSha, claims.sha.as_deref());
    fields.text(Field::CiRef, claims.git_ref.as_deref());
    fields.text(Field::CiTrigger, claims.trigger.as_deref());
    fields.text(Field::CiWorkflowRef, claims.workflow_ref.as_deref());
    fields.text(Field::CiRunId, claims.run_id.as_deref());
    fields.int(Field::CiAttempt, claims.attempt);
    fields.text(Field::RunnerKind, claims.runner.as_deref());
}
