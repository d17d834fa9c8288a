//! in-toto statements, bare or in DSSE envelopes: SLSA provenance above all. Parsed, not verified.
//!
//! Source: in-toto attestation framework, DSSE v1. Envelopes of some builders carry the signer's certificate beside the
//! signature; npm's registry hands out bundles.

use engine::fields::Field;
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{DERIVED_MAX, Draft, Undecodable, armour, fulcio, leave_out, object, sigstore_bundle, statement};

const EXPECTED: &str = "an in-toto statement";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    if let Some(attestations) = root.get("attestations").filter(|list| list.is_array()) {
        // npm's registry answers with the bundles of a version: publication and provenance.
        let bundles = attestations.items().take(DERIVED_MAX).filter_map(|one| one.get("bundle"));
        let each = bundles.map(sigstore_bundle::bundle).collect::<Result<Vec<_>, _>>()?;
        let mut drafts = each.into_iter().flatten().collect::<Vec<_>>();
        leave_out(&mut drafts, attestations.items().skip(DERIVED_MAX).count());
        return Ok(drafts);
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
    Ok(statement::per_subject(draft, root))
}

/// A DSSE envelope around a statement.
pub(super) fn envelope(root: Value<'_>) -> Result<Vec<Draft>, Undecodable> {
    let shape = |problem| Undecodable::Shape { expected: EXPECTED, problem };
    let payload =
        root.str_at(&["payload"]).and_then(armour::either).ok_or_else(|| shape("its `payload` is not Base64"))?;
    let inner = statement::parse(&payload)?;
    let signature = root.get("signatures").and_then(|list| list.items().next());
    let signature = signature.filter(|signature| signature.str_at(&["sig"]).is_some_and(|sig| !sig.is_empty()));
    let action = if signature.is_some() { "artifact.signed" } else { "artifact.attested" };
    let mut draft = Draft::new(action, "signing");
    let certificate = signature.and_then(|signature| signature.str_at(&["cert"])).and_then(armour::certificate);
    if let Some(claims) = certificate.as_deref().and_then(fulcio::read) {
        draft.time = claims.not_before;
        sigstore_bundle::who(&mut draft.fields, &claims);
    }
    draft.fields.text(Field::SignatureStatus, signature.map(|_| "unverified"));
    of_statement(&mut draft, inner.root())?;
    Ok(statement::per_subject(draft, inner.root()))
}

fn of_statement(draft: &mut Draft, root: Value<'_>) -> Result<(), Undecodable> {
    if root.get("predicateType").is_none() || !root.get("subject").is_some_and(Value::is_array) {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `subject` and `predicateType`" });
    }
    let made = statement::set(&mut draft.fields, root);
    draft.time = draft.time.or(made);
    Ok(())
}
