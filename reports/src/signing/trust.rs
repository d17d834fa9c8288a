//! What a verifier has to trust, in Sigstore's formats: `trusted_root.json`, and `trust_config.json` for sigstore-python.
//!
//! Both are derived from an instance's public keys. A copy inside a pack is a convenience: it is trusted only as far as
//! the certificate in it is the one the auditor got by another way.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use crate::keys::{Instance, PublicKeys};
use crate::signing::entry::{base64, log_id};

/// The trusted root of an instance.
#[must_use]
pub fn trusted_root(keys: &PublicKeys) -> Value {
    let valid = json!({"start": start(keys)});
    let host = keys.instance.log_host();
    let log = |url: String, spki: &[u8]| {
        json!({
            "baseUrl": url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": base64(spki),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": valid,
            },
            "logId": {"keyId": base64(log_id(spki))},
        })
    };
    json!({
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [log(format!("https://{host}"), &keys.seal)],
        "certificateAuthorities": [{
            "subject": {"organization": "pipeproof", "commonName": format!("pipeproof instance {}", keys.instance)},
            "uri": keys.instance.identity(),
            "certChain": {"certificates": [{"rawBytes": base64(&keys.ca_certificate)}]},
            "validFor": valid,
        }],
        "ctlogs": [log(format!("https://{host}/ct"), &keys.ct)],
        "timestampAuthorities": [],
    })
}

/// The trusted root with the signing configuration that sigstore-python demands beside it. The services it names do not
/// exist: verifying needs none of them.
#[must_use]
pub fn trust_config(keys: &PublicKeys) -> Value {
    let service = |url: String| json!({"url": url, "majorApiVersion": 1, "validFor": {"start": start(keys)}, "operator": keys.instance.log_host()});
    json!({
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": trusted_root(keys),
        "signingConfig": {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service(keys.instance.identity())],
            "oidcUrls": [service(Instance::ISSUER.to_owned())],
            "rekorTlogUrls": [service(format!("https://{}", keys.instance.log_host()))],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": [],
            "tsaConfig": {"selector": "ANY"},
        },
    })
}

fn start(keys: &PublicKeys) -> String {
    DateTime::from_timestamp(keys.valid_from_secs, 0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
}
