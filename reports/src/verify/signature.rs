//! Who signed: both Sigstore bundles against the trust root that the anchor vouches for.
//!
//! With `--key` the anchor pins the authority's certificate: the pack's own trust root is used only if its one authority is
//! that certificate. Then the chain is: anchor → certificate of the pack → tag manifest → the trust root and checkpoint
//! key inside the pack, which the tag manifest lists. An attacker who rebuilds the pack with other keys has another
//! authority, and one who keeps ours cannot sign. With `--trusted-root` the auditor's file is used and the pack's ignored.
//! Without an anchor the pack's own is used, and that establishes nothing.

use der::Decode as _;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::spki::DecodePublicKey as _;
use pipeproof_engine::merkle::Hash;
use serde_json::Value;
use sigstore_trust_root::{CertificateAuthority, SIGSTORE_PRODUCTION_TRUSTED_ROOT, TrustedRoot};
use sigstore_types::Bundle;
use sigstore_verify::{VerificationPolicy, VerificationResult, Verifier};

use crate::checkpoint::hash;
use crate::keys::{Instance, fingerprint, pem};
use crate::pack::bag::{MESSAGE_BUNDLE, SIGNATURE, SIGNING_CERTIFICATE, SIGNING_KEY, STATEMENT_BUNDLE, TAGMANIFEST};
use crate::signing::certificate;
use crate::signing::statement::PREDICATE_TYPE;
use crate::verify::report::{Check, Report, Signer};
use crate::verify::{Anchor, Options, Unpacked};

/// The pack's own trust root.
pub(super) const TRUSTED_ROOT: &str = "verify/trusted_root.json";
/// The pack's own checkpoint key.
pub(super) const CHECKPOINT_KEY: &str = "verify/keys/checkpoint.pub";
const CA: &str = "verify/keys/ca.pem";

/// What a signature that held says.
#[derive(Debug)]
pub(super) struct Signed {
    /// Instance whose certificate it is; `None` if it is not one of ours.
    pub(super) instance: Option<Instance>,
    /// Key of its checkpoints.
    pub(super) checkpoint: VerifyingKey,
    /// Seal tree as the signature's log entry saw it.
    pub(super) seal_size: u64,
    /// Its root.
    pub(super) seal_root: Hash,
}

/// The trust root to verify with.
struct Root {
    root: TrustedRoot,
    established: bool,
    how: String,
}

pub(super) fn check(pack: &Unpacked, options: &Options, report: &mut Report) -> Option<Signed> {
    let mut check = Check::new("signature");
    let signed = verify(pack, options, &mut check, report);
    report.checks.push(check);
    signed
}

fn verify(pack: &Unpacked, options: &Options, check: &mut Check, report: &mut Report) -> Option<Signed> {
    let root = match root(pack, options) {
        Ok(root) => root,
        Err((subject, reason)) => {
            check.fail(subject, reason);
            return None;
        }
    };
    check.say(root.how.clone());
    let policy = match policy(options, &root) {
        Ok(policy) => policy,
        Err((subject, reason)) => {
            check.fail(subject, reason);
            return None;
        }
    };
    let artifact = pack.get(TAGMANIFEST).unwrap_or_default();
    let (message, result) = bundle(pack, MESSAGE_BUNDLE, artifact, (&root.root, &policy), check)?;
    let statement = bundle(pack, STATEMENT_BUNDLE, artifact, (&root.root, &policy), check);
    if let Some((statement, _)) = &statement {
        same_signer(&message, statement, check);
        about_this(pack, statement, check);
    }
    detached(pack, &message, check);

    let identity = result.identity().map(|identity| identity.as_str().to_owned()).unwrap_or_default();
    let issuer = result.issuer().unwrap_or_default().to_owned();
    let instance =
        identity.strip_prefix(Instance::ISSUER).and_then(|rest| rest.strip_prefix('/')).and_then(Instance::new);
    // A certificate of one instance must not pass for another's: the name in it is the authority's own.
    let authority = root.root.fulcio_certs().first().map(|der| der.as_bytes().to_vec());
    let vouching =
        authority.as_deref().and_then(|der| certificate::read_authority(der).ok()).map(|(instance, _)| instance);
    if instance.is_some() && instance != vouching {
        check.fail(SIGNING_CERTIFICATE, "names another instance than the authority that signed it");
    }
    match pack.get(CA).and_then(|text| der_of(std::str::from_utf8(text).ok()?, "CERTIFICATE")) {
        Some(der) if Some(&der) == authority.as_ref() => {}
        _ => check.fail(CA, "is not the certificate of the authority that signed"),
    }
    report.signer = Some(Signer {
        identity,
        issuer,
        signed_at: result.integrated_time().map(|time| time.to_string()),
        fingerprint: authority.as_deref().map(fingerprint),
        established: root.established,
    });
    let (seal_size, seal_root) = match seal_state(&message) {
        Some(state) => state,
        None => {
            check.fail(MESSAGE_BUNDLE, "has no inclusion proof that can be read");
            return None;
        }
    };
    let Some(checkpoint) = pack.text(CHECKPOINT_KEY).and_then(|pem| VerifyingKey::from_public_key_pem(pem).ok()) else {
        check.fail(CHECKPOINT_KEY, "is not an Ed25519 public key in PEM");
        return None;
    };
    Some(Signed { instance, checkpoint, seal_size, seal_root })
}

/// The trust root that the options ask for.
fn root(pack: &Unpacked, options: &Options) -> Result<Root, (String, String)> {
    let parse = |text: &str, subject: &str| {
        TrustedRoot::from_json(text).map_err(|cause| (subject.to_owned(), format!("is not a trusted root: {cause}")))
    };
    let own = || {
        let text = pack.text(TRUSTED_ROOT).ok_or((TRUSTED_ROOT.to_owned(), "is missing".to_owned()))?;
        let root = parse(text, TRUSTED_ROOT)?;
        match root.fulcio_certs().as_slice() {
            [_one] if root.certificate_authorities.len() == 1 => Ok(root),
            _ => Err((TRUSTED_ROOT.to_owned(), "does not have exactly one authority with one certificate".to_owned())),
        }
    };
    match &options.anchor {
        Some(Anchor::TrustedRoot(text)) => {
            let mut root = parse(text, "the trusted root given")?;
            // One of several authorities must not sign in the name of another's instance: only the one that the pack
            // shows counts, if the root has it.
            let shown = pack.text(CA).and_then(|text| der_of(text, "CERTIFICATE")).unwrap_or_default();
            let is_shown = |authority: &CertificateAuthority| matches!(&authority.cert_chain.certificates[..], [one] if one.raw_bytes.as_bytes() == shown);
            if root.certificate_authorities.iter().any(is_shown) {
                root.certificate_authorities.retain(is_shown);
            }
            Ok(Root { root, established: true, how: "against the trusted root given".to_owned() })
        }
        Some(Anchor::Key(pem)) => {
            let root = own()?;
            let authority = root.fulcio_certs().first().map(|der| der.as_bytes().to_vec()).unwrap_or_default();
            if !vouches(pem, &authority)? {
                let reason = format!(
                    "its authority (SHA-256 fingerprint {}) is not the key given: this pack was signed by somebody else",
                    fingerprint(&authority)
                );
                return Err((TRUSTED_ROOT.to_owned(), reason));
            }
            Ok(Root { root, established: true, how: "against the key given".to_owned() })
        }
        None if options.identity.is_some() => Ok(Root {
            root: parse(SIGSTORE_PRODUCTION_TRUSTED_ROOT, "the public Sigstore root")?,
            established: true,
            how: "against the public Sigstore instance".to_owned(),
        }),
        None => Ok(Root {
            root: own()?,
            established: false,
            how: "against the keys inside the pack, which prove nothing about who made it".to_owned(),
        }),
    }
}

/// Whether the anchor, a certificate or a public key in PEM, is that of the authority.
fn vouches(anchor: &str, authority: &[u8]) -> Result<bool, (String, String)> {
    let subject = "the key given".to_owned();
    if let Some(certificate) = der_of(anchor, "CERTIFICATE") {
        return Ok(certificate == authority);
    }
    let Some(key) = der_of(anchor, "PUBLIC KEY") else {
        return Err((subject, "is neither a certificate nor a public key in PEM".to_owned()));
    };
    Ok(certificate::certified_key(authority).is_ok_and(|certified| certified == key))
}

/// The first block of that label in a PEM text.
fn der_of(text: &str, label: &str) -> Option<Vec<u8>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let from = text.find(&begin)?;
    let to = text.get(from..)?.find(&end)? + from + end.len();
    let (found, document) = der::Document::from_pem(text.get(from..to)?).ok()?;
    (found == label && der::AnyRef::from_der(document.as_bytes()).is_ok()).then(|| document.into_vec())
}

fn policy(options: &Options, root: &Root) -> Result<VerificationPolicy, (String, String)> {
    let certs = root.root.fulcio_certs();
    let own = match certs.as_slice() {
        [one] => certificate::read_authority(one.as_bytes()).ok().map(|(instance, _)| instance),
        _ => None,
    };
    let mut policy = VerificationPolicy::any_identity();
    if let Some(identity) = options.identity.clone().or_else(|| own.as_ref().map(Instance::identity)) {
        policy = policy.require_identity(identity);
    }
    match (&options.issuer, own) {
        (Some(issuer), _) => Ok(policy.require_issuer(issuer)),
        (None, Some(_)) => Ok(policy.require_issuer(Instance::ISSUER)),
        (None, None) if options.identity.is_some() => {
            Err(("the identity given".to_owned(), "means nothing without the issuer that vouches for it".to_owned()))
        }
        (None, None) => {
            Err(("the trusted root given".to_owned(), "has several authorities: say whose identity".to_owned()))
        }
    }
}

/// Verifies one bundle over the tag manifest; returns it with what the verifier says.
fn bundle(
    pack: &Unpacked,
    path: &str,
    artifact: &[u8],
    (root, policy): (&TrustedRoot, &VerificationPolicy),
    check: &mut Check,
) -> Option<(Value, VerificationResult)> {
    check.count();
    let Some(text) = pack.text(path) else {
        check.fail(path, "is missing or not text");
        return None;
    };
    let verified = Bundle::from_json(text).map_err(|cause| cause.to_string()).and_then(|bundle| {
        let verifier = Verifier::new(root).map_err(|cause| cause.to_string())?;
        verifier.verify(artifact, &bundle, policy).map_err(|cause| cause.to_string())
    });
    let result = match verified {
        Ok(result) if result.certificate_verified() && result.sct_verified() && result.tlog_verified() => result,
        Ok(_) => {
            check.fail(path, "was accepted without its certificate, its timestamp and its log entry being checked");
            return None;
        }
        Err(cause) => {
            check.fail(path, format!("is not a signature over {TAGMANIFEST}: {cause}"));
            return None;
        }
    };
    match serde_json::from_str(text) {
        Ok(value) => Some((value, result)),
        Err(cause) => {
            check.fail(path, format!("is not json: {cause}"));
            None
        }
    }
}

const CERTIFICATE: &str = "/verificationMaterial/certificate/rawBytes";

fn same_signer(message: &Value, statement: &Value, check: &mut Check) {
    if message.pointer(CERTIFICATE) != statement.pointer(CERTIFICATE) {
        check.fail(STATEMENT_BUNDLE, "is signed with another certificate than the tag manifest");
    }
}

/// The statement is of our type and about the pack it lies in.
fn about_this(pack: &Unpacked, bundle: &Value, check: &mut Check) {
    let statement: Option<Value> = bundle
        .pointer("/dsseEnvelope/payload")
        .and_then(Value::as_str)
        .and_then(decode)
        .and_then(|payload| serde_json::from_slice(&payload).ok());
    let text = |pointer: &str| statement.as_ref().and_then(|value| value.pointer(pointer)).and_then(Value::as_str);
    if text("/predicateType") != Some(PREDICATE_TYPE) {
        check.fail(STATEMENT_BUNDLE, "is not a statement about an evidence pack");
    } else if text("/predicate/pack") != Some(pack.name()) {
        check.fail(STATEMENT_BUNDLE, "is about another pack");
    }
}

/// The files for openssl say the same as the bundle.
fn detached(pack: &Unpacked, bundle: &Value, check: &mut Check) {
    let at = |pointer: &str| bundle.pointer(pointer).and_then(Value::as_str).and_then(decode);
    let certificate = at(CERTIFICATE).unwrap_or_default();
    let key = certificate::certified_key(&certificate).unwrap_or_default();
    for (path, expected) in [
        (SIGNATURE, at("/messageSignature/signature").unwrap_or_default()),
        (SIGNING_CERTIFICATE, pem("CERTIFICATE", &certificate).into_bytes()),
        (SIGNING_KEY, pem("PUBLIC KEY", &key).into_bytes()),
    ] {
        check.count();
        if pack.get(path) != Some(&expected[..]) {
            check.fail(path, format!("does not say the same as {MESSAGE_BUNDLE}"));
        }
    }
}

/// Size and root of the seal tree in the bundle's inclusion proof, which the verifier has checked.
fn seal_state(bundle: &Value) -> Option<(u64, Hash)> {
    let proof = bundle.pointer("/verificationMaterial/tlogEntries/0/inclusionProof")?;
    let size = proof.get("treeSize")?.as_str()?.parse().ok()?;
    Some((size, hash(proof.get("rootHash")?.as_str()?)?))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// The seal tree's state in a pack's message bundle, of a pack that is verified elsewhere or identified by its digest.
pub(super) fn seal_state_of(pack: &Unpacked) -> Option<(u64, Hash)> {
    seal_state(&serde_json::from_str(pack.text(MESSAGE_BUNDLE)?).ok()?)
}
