//! The schemes in which senders sign a request or name a shared token.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::record::Authenticity;
use engine::time::Timestamp;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use http::HeaderMap;
use pipeproof_engine as engine;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use super::{Proof, Secret};

/// How far a signature's time may be from ours, either way (Standard Webhooks, "Verifying webhook authenticity").
const WINDOW: Duration = Duration::from_secs(5 * 60);

/// A scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `X-Hub-Signature-256: sha256=HEX` over the body (GitHub, "Validating webhook deliveries").
    Github,
    /// `X-Signature: ALGORITHM=HEX` over the body (Flux, provider type `generic-hmac`).
    GenericHmac,
    /// `webhook-signature: v1,BASE64 …` over `ID.TIME.BODY` (Standard Webhooks; GitLab's signing token).
    StandardWebhooks,
    /// `circleci-signature: v1=HEX` over the body (CircleCI, "Webhooks").
    CircleCi,
    /// `X-Buildkite-Signature: timestamp=TIME,signature=HEX` over `TIME.BODY` (Buildkite, "Webhooks").
    Buildkite,
    /// A token that is the secret itself, in this header.
    Token(&'static str),
}

impl Scheme {
    /// The header without which it proves nothing.
    pub(super) const fn header(self) -> &'static str {
        match self {
            Self::Github => "x-hub-signature-256",
            Self::GenericHmac => "x-signature",
            Self::StandardWebhooks => "webhook-signature",
            Self::CircleCi => "circleci-signature",
            Self::Buildkite => "x-buildkite-signature",
            Self::Token(name) => name,
        }
    }

    pub(super) fn check(self, headers: &HeaderMap, body: &[u8], secrets: &[Secret], now: Timestamp) -> Proof {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let own = header(self.header());
        let signed = |made_by: Option<String>| proven(Authenticity::Hmac, made_by);
        match self {
            Self::Github => signed(own.and_then(|given| {
                let given = hex::decode(given.strip_prefix("sha256=")?).ok()?;
                made_by(secrets, |key| is_mac::<Hmac<Sha256>>(key, &[body], &given))
            })),
            Self::GenericHmac => signed(own.and_then(|given| generic(given, body, secrets))),
            Self::CircleCi => signed(own.and_then(|given| circleci(given, body, secrets))),
            Self::StandardWebhooks => {
                let names = ["webhook-id", "webhook-timestamp"].map(header);
                let ([Some(id), Some(time)], Some(given)) = (names, own) else { return Proof::None };
                within_window(time, now, signed(standard_webhooks((id, time, given), body, secrets)))
            }
            Self::Buildkite => {
                let Some(given) = own else { return Proof::None };
                let part = |name: &str| given.split(',').find_map(|part| part.trim().strip_prefix(name));
                let (Some(time), Some(signature)) = (part("timestamp="), part("signature=")) else {
                    return Proof::None;
                };
                let Ok(signature) = hex::decode(signature) else { return Proof::None };
                let parts = [time.as_bytes(), b".", body];
                let made_by = made_by(secrets, |key| is_mac::<Hmac<Sha256>>(key, &parts, &signature));
                within_window(time, now, signed(made_by))
            }
            Self::Token(name) => {
                let Some(given) = headers.get(name) else { return Proof::None };
                proven(Authenticity::Token, made_by(secrets, |key| bool::from(key.ct_eq(given.as_bytes()))))
            }
        }
    }
}

fn proven(auth: Authenticity, made_by: Option<String>) -> Proof {
    made_by.map_or(Proof::None, |key_id| Proof::Proven { auth, key_id })
}

/// A proof counts within the window around the time it was signed for, seconds since 1970.
fn within_window(time: &str, now: Timestamp, proof: Proof) -> Proof {
    let Ok(time) = time.parse::<i64>() else { return Proof::None };
    let apart = now.micros_since(Timestamp::from_secs(time)).unsigned_abs();
    if matches!(proof, Proof::Proven { .. }) && u128::from(apart) > WINDOW.as_micros() { Proof::Stale } else { proof }
}

/// The id of the secret that fits. All are tried, whichever fits.
fn made_by(secrets: &[Secret], fits: impl Fn(&[u8]) -> bool) -> Option<String> {
    let mut found = None;
    for secret in secrets.iter().filter(|secret| !secret.bytes.is_empty()) {
        if fits(&secret.bytes) {
            found = Some(secret.id.clone());
        }
    }
    found
}

fn is_mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]], given: &[u8]) -> bool {
    // HMAC takes keys of any length.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return false };
    for part in parts {
        mac.update(part);
    }
    mac.verify_slice(given).is_ok()
}

fn generic(given: &str, body: &[u8], secrets: &[Secret]) -> Option<String> {
    let (algorithm, given) = given.split_once('=')?;
    let given = hex::decode(given).ok()?;
    let body = &[body];
    match algorithm {
        "sha224" => made_by(secrets, |key| is_mac::<Hmac<Sha224>>(key, body, &given)),
        "sha256" => made_by(secrets, |key| is_mac::<Hmac<Sha256>>(key, body, &given)),
        "sha384" => made_by(secrets, |key| is_mac::<Hmac<Sha384>>(key, body, &given)),
        "sha512" => made_by(secrets, |key| is_mac::<Hmac<Sha512>>(key, body, &given)),
        _ => None,
    }
}

/// Only the newest of the versions it is signed in counts, and we know the first: an older one beside a newer one would
/// let somebody who broke the older one sign for both.
fn circleci(given: &str, body: &[u8], secrets: &[Secret]) -> Option<String> {
    let version = |part: &str| part.split_once('=')?.0.strip_prefix('v')?.parse::<u32>().ok();
    let parts = || given.split(',').map(str::trim);
    if parts().filter_map(version).max() != Some(1) {
        return None;
    }
    parts()
        .filter_map(|part| hex::decode(part.strip_prefix("v1=")?).ok())
        .find_map(|given| made_by(secrets, |key| is_mac::<Hmac<Sha256>>(key, &[body], &given)))
}

fn standard_webhooks((id, time, given): (&str, &str, &str), body: &[u8], secrets: &[Secret]) -> Option<String> {
    let parts = [id.as_bytes(), b".", time.as_bytes(), b".", body];
    // One signature for each secret that is valid at the sender.
    given
        .split(' ')
        .filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok())
        .find_map(|given| made_by(secrets, |secret| is_mac::<Hmac<Sha256>>(&standard_key(secret), &parts, &given)))
}

/// `whsec_` and base64; any other secret is the key as it stands.
fn standard_key(secret: &[u8]) -> Vec<u8> {
    let encoded = secret.strip_prefix(b"whsec_");
    encoded.and_then(|encoded| STANDARD.decode(encoded).ok()).unwrap_or_else(|| secret.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_674_087_231);

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        let secret =
            |(number, text): (usize, &&str)| Secret { id: format!("k{number}"), bytes: text.as_bytes().to_vec() };
        texts.iter().enumerate().map(secret).collect()
    }

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        given.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn by(auth: Authenticity, key_id: &str) -> Proof {
        Proof::Proven { auth, key_id: key_id.to_owned() }
    }

    #[test]
    fn github_documentation_vector() {
        // The values of GitHub's own page on validating deliveries.
        let right = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let check = |given: &str, body: &[u8], keys: &[&str]| {
            Scheme::Github.check(&headers(&[("x-hub-signature-256", given)]), body, &secrets(keys), NOW)
        };
        let (body, key) = (b"Hello, World!", "It's a Secret to Everybody");
        assert_eq!(check(right, body, &["other", key]), by(Authenticity::Hmac, "k1"));
        assert_eq!(check(right, b"Hello, World", &[key]), Proof::None);
        assert_eq!(check(right, body, &["other", ""]), Proof::None);
        for bad in ["sha1=00", "sha256=", "sha256=zz", "757107ea", "sha256=7571", ""] {
            assert_eq!(check(bad, body, &[key]), Proof::None, "{bad}");
        }
        assert_eq!(Scheme::Github.check(&HeaderMap::new(), body, &secrets(&[key]), NOW), Proof::None);
        assert!(!format!("{:?}", secrets(&[key])).contains("Everybody"));
    }

    #[test]
    fn circleci_documentation_vector_and_no_way_back_to_an_older_version() {
        // The values of CircleCI's page on webhooks.
        let right = "v1=734cc62f32841568f45715aeb9f4d7891324e6d948e4c6c60c0621cdac48623a";
        let check = |given: &str, key: &str| {
            Scheme::CircleCi.check(&headers(&[("circleci-signature", given)]), b"hello world", &secrets(&[key]), NOW)
        };
        assert_eq!(check(right, "secret"), by(Authenticity::Hmac, "k0"));
        assert_eq!(check(right, "another"), Proof::None);
        assert_eq!(check(&format!("{right},v2=00"), "secret"), Proof::None, "v1 beside something newer");
        assert_eq!(check(&format!("v0=00, {right}"), "secret"), by(Authenticity::Hmac, "k0"));
        for bad in ["v1=", "v1=zz", "v2=734c", "734cc62f", "v1"] {
            assert_eq!(check(bad, "secret"), Proof::None, "{bad}");
        }
    }

    #[test]
    fn standard_webhooks_specification_vector_and_its_window() {
        // The values of the specification's reference libraries.
        let (id, time) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330");
        let (key, body) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", br#"{"test": 2432232314}"#);
        let right = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let check = |given: &str, keys: &[&str], late: i64| {
            let sent = headers(&[("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", given)]);
            Scheme::StandardWebhooks.check(&sent, body, &secrets(keys), Timestamp::from_secs(1_614_265_330 + late))
        };
        assert_eq!(check(right, &["other", key], 0), by(Authenticity::Hmac, "k1"));
        let several = format!("v1a,xx v1,AAAA {right}");
        assert_eq!(check(&several, &[key], 299), by(Authenticity::Hmac, "k0"), "one of several signatures");
        assert_eq!(check(right, &[key], 301), Proof::Stale);
        assert_eq!(check(right, &[key], -301), Proof::Stale);
        assert_eq!(check(right, &["whsec_AAAA"], 301), Proof::None, "a wrong signature is never merely late");
        assert_eq!(check("v1,", &[key], 0), Proof::None);
        let unnamed = headers(&[("webhook-signature", right)]);
        assert_eq!(Scheme::StandardWebhooks.check(&unnamed, body, &secrets(&[key]), NOW), Proof::None);
    }

    #[test]
    fn buildkite_signs_its_time_or_names_a_token() {
        let (time, body) = ("1674087231", b"{\"event\":\"ping\"}");
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(b"buildkite secret").unwrap();
        let mac = hex::encode(mac.chain_update(format!("{time}.")).chain_update(body).finalize().into_bytes());
        let given = format!("timestamp={time},signature={mac}");
        let sent = headers(&[("x-buildkite-signature", &given), ("x-buildkite-token", "a token")]);
        let keys = secrets(&["buildkite secret", "a token"]);
        assert_eq!(Scheme::Buildkite.check(&sent, body, &keys, NOW), by(Authenticity::Hmac, "k0"));
        assert_eq!(Scheme::Buildkite.check(&sent, body, &keys, Timestamp::from_secs(1_674_090_000)), Proof::Stale);
        assert_eq!(Scheme::Buildkite.check(&sent, b"{}", &keys, NOW), Proof::None);
        let token = Scheme::Token("x-buildkite-token");
        assert_eq!(token.check(&sent, body, &keys, NOW), by(Authenticity::Token, "k1"));
        assert_eq!(token.check(&sent, body, &secrets(&["a toke", "a token "]), NOW), Proof::None);
        assert_eq!(token.check(&headers(&[("x-buildkite-token", "")]), body, &secrets(&[""]), NOW), Proof::None);
    }

    #[test]
    fn flux_signs_with_any_of_the_sha_2_family() {
        let body = b"event";
        let sum = |text: &str| headers(&[("x-signature", text)]);
        let key = secrets(&["flux"]);
        let with = |name: &str, mac: Vec<u8>| {
            Scheme::GenericHmac.check(&sum(&format!("{name}={}", hex::encode(mac))), body, &key, NOW)
        };
        macro_rules! mac {
            ($hash:ty) => {
                <Hmac<$hash> as Mac>::new_from_slice(b"flux")
                    .unwrap()
                    .chain_update(body)
                    .finalize()
                    .into_bytes()
                    .to_vec()
            };
        }
        for (name, mac) in
            [("sha224", mac!(Sha224)), ("sha256", mac!(Sha256)), ("sha384", mac!(Sha384)), ("sha512", mac!(Sha512))]
        {
            assert_eq!(with(name, mac.clone()), by(Authenticity::Hmac, "k0"), "{name}");
            assert_eq!(with("sha1", mac), Proof::None);
        }
        let known = "sha256=6a7c0a8e";
        assert_eq!(Scheme::GenericHmac.check(&sum(known), body, &key, NOW), Proof::None, "a cut signature");
    }
}
