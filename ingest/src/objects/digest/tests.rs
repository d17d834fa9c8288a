//! A chain of digests signed as the provider signs them, and every way to tamper with it.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use serde_json::{Value, json};

use super::*;

pub(crate) const BUCKET: &str = "trail";

pub(crate) struct Provider {
    key: KeyPair,
    pub(crate) keys: PublicKeys,
}

impl Provider {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        // The provider lists keys in PKCS #1.
        let listed = json!({"PublicKeyList": [{
            "Value": STANDARD.encode(key.public_key().as_ref()),
            "ValidityStartTime": 1.0, "ValidityEndTime": 2.0, "Fingerprint": "f1"
        }]});
        let keys = PublicKeys::read(listed.to_string().as_bytes()).unwrap();
        Self { key, keys }
    }

    /// A digest of an hour, after `before`, with its content and signature.
    pub(crate) fn digest(&self, hour: u32, before: Option<&Link>, files: &[(&str, &[u8])]) -> (Value, Vec<u8>, String) {
        let object = object(hour);
        let listed: Vec<Value> = files
            .iter()
            .map(|(name, content)| {
                json!({"s3Bucket": BUCKET, "s3Object": name, "hashAlgorithm": "SHA-256",
                       "hashValue": hex::encode(Sha256::digest(content)),
                       "oldestEventTime": "2026-11-26T10:00:00Z", "newestEventTime": "2026-11-26T10:59:00Z"})
            })
            .collect();
        let previous = before.map(|link| link.object.split_once('/').unwrap().1.to_owned());
        let digest = json!({
            "awsAccountId": "111122223333",
            "digestStartTime": format!("2026-11-26T{hour:02}:00:00Z"),
            "digestEndTime": format!("2026-11-26T{:02}:00:00Z", hour + 1),
            "digestS3Bucket": BUCKET, "digestS3Object": object,
            "digestPublicKeyFingerprint": "f1", "digestSignatureAlgorithm": "SHA256withRSA",
            "newestEventTime": "2026-11-26T10:59:00Z", "oldestEventTime": "2026-11-26T10:00:00Z",
            "previousDigestS3Bucket": before.map(|_| BUCKET), "previousDigestS3Object": previous,
            "previousDigestHashValue": before.map(|link| &link.hash), "previousDigestHashAlgorithm": "SHA-256",
            "previousDigestSignature": before.map(|link| &link.signature),
            "logFiles": listed,
        });
        let content = digest.to_string().into_bytes();
        let signature = self.sign(&digest, &content);
        (digest, content, signature)
    }

    fn sign(&self, digest: &Value, content: &[u8]) -> String {
        let text = |name: &str| digest[name].as_str().unwrap_or("null").to_owned();
        let signed = format!(
            "{}\n{}/{}\n{}\n{}",
            text("digestEndTime"),
            text("digestS3Bucket"),
            text("digestS3Object"),
            hex::encode(Sha256::digest(content)),
            text("previousDigestSignature")
        );
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        hex::encode(signature)
    }

    pub(crate) fn verified(&self, hour: u32, content: &[u8], signature: &str) -> (Digest, Link) {
        let digest = Digest::read(content).unwrap();
        let link = digest.verify((BUCKET, &object(hour)), content, signature, &self.keys).unwrap();
        (digest, link)
    }
}

pub(crate) fn object(hour: u32) -> String {
    format!(
        "AWSLogs/111122223333/CloudTrail-Digest/eu-central-1/2026/11/26/111122223333_CloudTrail-Digest_eu-central-1_t_eu-central-1_20261126T{hour:02}0000Z.json.gz"
    )
}

fn hashes<'a>(files: &'a [(&'a str, &'a [u8])]) -> impl Fn(&str, &str) -> Option<[u8; 32]> + 'a {
    move |bucket, key| {
        assert_eq!(bucket, BUCKET);
        files.iter().find(|(name, _)| *name == key).map(|(_, content)| Sha256::digest(content).into())
    }
}

const FILES: &[(&str, &[u8])] = &[("a.json.gz", b"{\"Records\":[1]}"), ("b.json.gz", b"{\"Records\":[2]}")];

#[test]
fn a_chain_that_holds_is_complete_hour_by_hour() {
    let provider = Provider::new();
    let (_, content, signature) = provider.digest(10, None, FILES);
    let (digest, first) = provider.verified(10, &content, &signature);
    assert_eq!(digest.previous(), None);
    let verdict = digest.judge(None, hashes(FILES)).unwrap();
    assert_eq!((verdict.status, verdict.files, verdict.faults.len()), (Status::Complete, 2, 0));
    assert_eq!(
        (verdict.from.to_string().as_str(), verdict.to.to_string().as_str()),
        ("2026-11-26T10:00:00Z", "2026-11-26T11:00:00Z")
    );
    // An hour without log files is proven to have none.
    let (_, content, signature) = provider.digest(11, Some(&first), &[]);
    let (digest, _) = provider.verified(11, &content, &signature);
    assert_eq!(digest.judge(Some(&first), hashes(&[])).unwrap().status, Status::Complete);
}

#[test]
fn what_is_missing_is_a_gap_and_what_was_changed_is_invalid() {
    let provider = Provider::new();
    let (_, content, signature) = provider.digest(10, None, FILES);
    let (digest, first) = provider.verified(10, &content, &signature);
    let missing = digest.judge(None, hashes(&FILES[..1])).unwrap();
    assert_eq!((missing.status, missing.faults), (Status::Gap, vec!["b.json.gz is missing".to_owned()]));
    let changed = digest.judge(None, hashes(&[FILES[0], ("b.json.gz", b"{\"Records\":[]}")])).unwrap();
    assert_eq!(changed.status, Status::Invalid);
    assert!(changed.faults[0].contains("b.json.gz was changed"), "{:?}", changed.faults);
    // The digest of eleven is gone: twelve names it as the one before.
    let (_, content, signature) = provider.digest(11, Some(&first), &[]);
    let (_, second) = provider.verified(11, &content, &signature);
    let (_, content, signature) = provider.digest(12, Some(&second), &[]);
    let (third, _) = provider.verified(12, &content, &signature);
    let gap = third.judge(Some(&first), hashes(&[])).unwrap();
    assert_eq!((gap.status, gap.from), (Status::Gap, first.end), "{:?}", gap.faults);
    // The chain begins anew.
    let (_, content, signature) = provider.digest(12, None, &[]);
    let (anew, _) = provider.verified(12, &content, &signature);
    assert_eq!(anew.judge(Some(&first), hashes(&[])).unwrap().status, Status::Gap);
    // The digest before was replaced by another one.
    let replaced = Link { hash: "00".repeat(32), ..second };
    assert_eq!(third.judge(Some(&replaced), hashes(&[])).unwrap().status, Status::Invalid);
}

#[test]
fn many_faults_are_counted() {
    let provider = Provider::new();
    let names: Vec<String> = (0..100).map(|number| format!("{number}.json.gz")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"{}"[..])).collect();
    let (_, content, signature) = provider.digest(10, None, &files);
    let verdict = provider.verified(10, &content, &signature).0.judge(None, |_, _| None).unwrap();
    assert_eq!((verdict.faults.len(), verdict.faults.last().unwrap().as_str()), (21, "and 80 more"));
}

#[test]
fn nothing_but_what_the_provider_signed_for_this_place_verifies() {
    let provider = Provider::new();
    let (digest, content, signature) = provider.digest(10, None, FILES);
    let verify = |content: &[u8], signature: &str, key: &str, keys: &PublicKeys| {
        Digest::read(content).unwrap().verify((BUCKET, key), content, signature, keys)
    };
    assert!(verify(&content, &signature, &object(10), &provider.keys).is_ok());
    assert!(verify(&content, &signature.to_uppercase(), &object(10), &provider.keys).is_ok());
    // A file less, an hour less, another place, a byte of the signature, another key, no key.
    let mut shorter = digest.clone();
    shorter["logFiles"].as_array_mut().unwrap().pop();
    let shorter = shorter.to_string().into_bytes();
    assert!(matches!(verify(&shorter, &signature, &object(10), &provider.keys), Err(DigestError::Signature)));
    let mut later = digest.clone();
    later["digestEndTime"] = json!("2026-11-26T12:00:00Z");
    let later = later.to_string().into_bytes();
    assert!(matches!(verify(&later, &signature, &object(10), &provider.keys), Err(DigestError::Signature)));
    assert!(matches!(verify(&content, &signature, "copy.json.gz", &provider.keys), Err(DigestError::Moved { .. })));
    let flipped = format!("{}{}", if signature.starts_with('0') { "1" } else { "0" }, &signature[1..]);
    assert!(matches!(verify(&content, &flipped, &object(10), &provider.keys), Err(DigestError::Signature)));
    for none in ["", "zz"] {
        assert!(verify(&content, none, &object(10), &provider.keys).is_err(), "{none:?}");
    }
    assert!(matches!(verify(&content, &signature, &object(10), &Provider::new().keys), Err(DigestError::Signature)));
    assert!(matches!(
        verify(&content, &signature, &object(10), &PublicKeys::default()),
        Err(DigestError::UnknownKey(_))
    ));
    let mut weak = digest;
    weak["digestSignatureAlgorithm"] = json!("MD5withRSA");
    let weak = weak.to_string().into_bytes();
    assert!(matches!(verify(&weak, &signature, &object(10), &provider.keys), Err(DigestError::Algorithm(_))));
}

#[test]
fn keys_in_x509_form_and_nonsense_are_told_apart() {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let spki: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    assert_ne!(spki.as_ref(), key.public_key().as_ref(), "what ListPublicKeys gives is PKCS #1");
    assert!(matches!(PublicKeys::read(b"[]"), Err(DigestError::Keys(_))));
    let listed = br#"{"PublicKeyList":[{"Value":"*","Fingerprint":"f"}]}"#;
    assert!(matches!(PublicKeys::read(listed), Err(DigestError::Key(_))));
    for nonsense in ["", "{}", "[]", "{\"digestStartTime\": 1}"] {
        assert!(Digest::read(nonsense.as_bytes()).is_err(), "{nonsense}");
    }
}
