//! Identity tokens (JWT) and key sets (JWKS) of Pub/Sub push.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_fuzz::NOW;
use pipeproof_ingest::authentic::Issuer;

fuzz_target!(|data: &[u8]| {
    let cut = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (token, keys) = data.split_at(cut);
    let issuer = Issuer {
        issuer: "https://accounts.google.com".to_owned(),
        audience: "https://pipeproof.example".to_owned(),
        email: Some("push@acme.iam.gserviceaccount.com".to_owned()),
    };
    // Nobody has the key: no token is ever accepted.
    assert!(issuer.verify(&String::from_utf8_lossy(token), keys, NOW).is_err());
});
