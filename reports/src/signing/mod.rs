//! Signing with a private Sigstore instance that lives in a folder: a certificate authority, a certificate log's
//! timestamp, and a transparency log (the seal tree), all of the instance's own keys and all offline.
//!
//! What comes out are the public formats, so that unmodified public tools check them: a Sigstore bundle v0.3 with
//! `hashedrekord` or `dsse` 0.0.1 entries, `trusted_root.json`, `trust_config.json`, a detached signature for openssl.
//! It is not keyless signing with the public instance, and proves nothing against the owner of the keys.

pub mod certificate;
pub mod entry;
pub mod statement;
pub mod trust;
