//! Tokens as an issuer signs them, and everything that must make them worthless.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// An issuer with a key of its own, for these tests only.
struct Authority {
    key: KeyPair,
    kid: &'static str,
}

impl Authority {
    fn new(kid: &'static str) -> Self {
        Self { key: KeyPair::generate(KeySize::Rsa2048).unwrap(), kid }
    }

    fn keys(&self) -> Vec<u8> {
        let public = self.key.public_key();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (n, e) = (public.modulus(), public.exponent());
        json!({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": self.kid,
            "n": part(n.big_endian_without_leading_zero()), "e": part(e.big_endian_without_leading_zero())}]})
        .to_string()
        .into_bytes()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "RS256", "kid": self.kid, "typ": "JWT"}), claims)
    }
}

fn issuer() -> Issuer {
    Issuer {
        issuer: "https://accounts.google.com".to_owned(),
        audience: "https://pipeproof.example/v1/events/gcp".to_owned(),
        email: Some("push@acme.iam.gserviceaccount.com".to_owned()),
    }
}

fn claims() -> Value {
    json!({"iss": "https://accounts.google.com", "aud": "https://pipeproof.example/v1/events/gcp", "sub": "1",
        "email": "push@acme.iam.gserviceaccount.com", "email_verified": true, "iat": 1_799_999_990, "exp": 1_800_003_590})
}

fn with(name: &str, value: Value) -> Value {
    let mut changed = claims();
    changed[name] = value;
    changed
}

#[test]
fn a_token_of_the_issuer_names_its_key() {
    let google = Authority::new("k1");
    assert_eq!(issuer().verify(&google.token(&claims()), &google.keys(), NOW).unwrap(), "k1");
    let old = with("iss", json!("accounts.google.com"));
    assert_eq!(issuer().verify(&google.token(&old), &google.keys(), NOW).unwrap(), "k1");
    let several = with("aud", json!(["x", "https://pipeproof.example/v1/events/gcp"]));
    assert_eq!(issuer().verify(&google.token(&several), &google.keys(), NOW).unwrap(), "k1");
}

#[test]
fn what_the_token_says_must_be_what_the_source_accepts() {
    let google = Authority::new("k1");
    let refused = |claims: &Value| issuer().verify(&google.token(claims), &google.keys(), NOW).unwrap_err().to_string();
    for (name, value) in [
        ("iss", json!("https://accounts.google.com.evil.example")),
        ("aud", json!("https://elsewhere.example")),
        ("aud", json!([])),
        ("email", json!("other@acme.iam.gserviceaccount.com")),
        ("email_verified", json!(false)),
    ] {
        let said = refused(&with(name, value.clone()));
        assert!(said.contains(name.trim_end_matches("_verified")), "{name} {value}: {said}");
    }
    for (name, value) in [("exp", 1_799_999_939), ("iat", 1_800_000_061)] {
        assert_eq!(refused(&with(name, json!(value))), "the identity token is not valid now", "{name}");
    }
    assert!(issuer().verify(&google.token(&with("exp", json!(1_799_999_941))), &google.keys(), NOW).is_ok(), "leeway");
}

#[test]
fn a_token_that_the_issuer_did_not_sign_proves_nothing() {
    let (google, other) = (Authority::new("k1"), Authority::new("k1"));
    let (keys, token) = (google.keys(), google.token(&claims()));
    assert!(issuer().verify(&other.token(&claims()), &keys, NOW).is_err(), "another key of the same name");
    assert!(matches!(
        issuer().verify(&Authority::new("k2").token(&claims()), &keys, NOW),
        Err(IdentityError::UnknownKey)
    ));
    for algorithm in ["none", "HS256", "RS512"] {
        let header = json!({"alg": algorithm, "kid": "k1"});
        assert!(issuer().verify(&google.sign(&header, &claims()), &keys, NOW).is_err(), "{algorithm}");
    }
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let forged = URL_SAFE_NO_PAD.encode(with("sub", json!("2")).to_string());
    for bad in [
        format!("{header}.{forged}.{signature}"),
        format!("{signed}."),
        signed.to_owned(),
        String::new(),
        "a.b.c".to_owned(),
        format!("{token}{}", "A".repeat(TOKEN_BYTES_MAX)),
    ] {
        assert!(issuer().verify(&bad, &keys, NOW).is_err(), "{bad:.80}");
    }
    assert!(matches!(issuer().verify(&token, b"{}", NOW), Err(IdentityError::Keys(_))));
}
