//! in-toto statements, bare or in DSSE envelopes: SLSA provenance above all. Parsed, not verified.
//!
//! Source: in-toto attestation framework, DSSE v1. Envelopes of some builders carry the signer's certificate beside the
//! signature; npm's registry hands out bundles.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use engine::fields::Field;
use engine::json::{Json, Value};
use engine::record::Record;
use pipeproof_engine as engine;

use super::{DEPTH_MAX, DERIVED_MAX, Draft, Undecodable, fulcio, object, sigstore_bundle, statement};

const EXPECTED: &str = "an in-toto statement";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    if let Some(attestations) = root.get("attestations").filter(|list| list.is_array()) {
        // npm's registry answers with the bundles of a version: publication and provenance.
        let bundles = attestations.items().take(DERIVED_MAX).filter_map(|one| one.get("bundle"));
        let each = bundles.map(sigstore_bundle::bundle).collect::<Result<Vec<_>, _>>()?;
        return Ok(each.into_iter().flatten().collect());
    }
    one(root)
}

fn one(root: Value<'_>) -> Result<Vec<Draft>, Undecodable> {
    if root.get("verificationMaterial").is_some() {
        return sigstore_bundle::bundle(root);
    }
    if root.get("payloadType").is_some() {
        return envelope(root);
    }
    let mut draft = Draft::new("artifact.attested", "signing");
    of_statement(&mut draft, root)?;
    Ok(per_subject(draft, root))
}

/// A DSSE envelope around a statement.
pub(super) fn envelope(root: Value<'_>) -> Result<Vec<Draft>, Undecodable> {
    let shape = |problem| Undecodable::Shape { expected: EXPECTED, problem };
    let payload = root.str_at(&["payload"]).and_then(decoded).ok_or_else(|| shape("its `payload` is not Base64"))?;
    let inner = Json::parse_within(&payload, DEPTH_MAX)?;
    let signature = root.get("signatures").and_then(|list| list.items().next());
    let signature = signature.filter(|signature| signature.str_at(&["sig"]).is_some_and(|sig| !sig.is_empty()));
    let action = if signature.is_some() { "artifact.signed" } else { "artifact.attested" };
    let mut draft = Draft::new(action, "signing");
    let claims =
        signature.and_then(|signature| signature.str_at(&["cert"])).and_then(pem).and_then(|der| fulcio::read(&der));
    if let Some(claims) = &claims {
        draft.time = claims.not_before;
        sigstore_bundle::who(&mut draft.fields, claims);
    }
    draft.fields.text(Field::SignatureStatus, signature.map(|_| "unverified"));
    of_statement(&mut draft, inner.root())?;
    Ok(per_subject(draft, inner.root()))
}

fn of_statement(draft: &mut Draft, root: Value<'_>) -> Result<(), Undecodable> {
    if root.get("predicateType").is_none() || !root.get("subject").is_some_and(Value::is_array) {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `subject` and `predicateType`" });
    }
    let made = statement::set(&mut draft.fields, root);
    draft.time = draft.time.or(made);
    Ok(())
}

/// One event per artifact; one without a digest still says that something was attested.
fn per_subject(draft: Draft, root: Value<'_>) -> Vec<Draft> {
    let kept: Vec<Field> = draft.fields.iter().map(|(field, _)| field).collect();
    let action = draft.fields.get_text(Field::Action).unwrap_or_default().to_owned();
    let mut drafts: Vec<Draft> = statement::subjects(root)
        .into_iter()
        .map(|(name, digest)| {
            let mut one = draft.derive(&kept, &action, "signing");
            one.fields.text(Field::ArtifactName, name);
            one.fields.text(Field::ArtifactDigest, Some(digest));
            one
        })
        .collect();
    if drafts.is_empty() {
        let mut draft = draft;
        draft.fields.text(Field::ArtifactName, statement::first(root));
        drafts.push(draft);
    }
    drafts
}

/// DSSE leaves both alphabets of Base64 open.
fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// The first certificate of a PEM text.
fn pem(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}
