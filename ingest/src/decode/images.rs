//! Image references: `registry/repo:tag@sha256:…` taken apart.

use engine::fields::{Field, Fields};
use pipeproof_engine as engine;

/// Parts of an image reference as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image<'a> {
    /// Repository without tag and digest.
    pub(super) repo: &'a str,
    /// `sha256:` and 64 hexadecimal digits.
    pub(super) digest: Option<&'a str>,
}

/// Takes a reference apart.
pub(super) fn parse(reference: &str) -> Image<'_> {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest).filter(|digest| is_digest(digest))),
        None => (reference, None),
    };
    // A colon after the last slash starts a tag; one before it belongs to a registry's port.
    let tag = name.rfind(':').filter(|colon| name.get(*colon..).is_some_and(|rest| !rest.contains('/')));
    Image { repo: tag.and_then(|colon| name.get(..colon)).unwrap_or(name), digest }
}

/// Sets what a reference names.
pub(super) fn set(fields: &mut Fields, reference: &str) {
    let parts = parse(reference);
    fields.text(Field::ArtifactName, Some(reference));
    fields.text(Field::ArtifactRepo, Some(parts.repo));
    fields.text(Field::ArtifactDigest, parts.digest);
}

/// The text of a SHA-256 digest with its prefix.
pub(super) fn digest(bytes: &[u8; 32]) -> String {
    let digit = |number: u8| number + if number < 10 { b'0' } else { b'a' - 10 };
    let mut digits = [0; 64];
    for (byte, digits) in bytes.iter().zip(digits.as_chunks_mut::<2>().0) {
        *digits = [digit(byte / 16), digit(byte % 16)];
    }
    ["sha256:", std::str::from_utf8(&digits).unwrap_or_default()].concat()
}

/// Whether a text is a SHA-256 digest with its prefix.
pub(super) fn is_digest(text: &str) -> bool {
    // To look at all digits at once is quicker than to look for the first that is none.
    let are_digits = |hex: &str| hex.bytes().fold(true, |all, byte| all & byte.is_ascii_hexdigit());
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && are_digits(hex))
}

/// The first image reference with a digest in free text, as admission messages quote it.
pub(super) fn find(text: &str) -> Option<&str> {
    // Most messages quote none.
    memchr::memchr(b'@', text.as_bytes())?;
    let stop = |char: char| char.is_whitespace() || "\"'`,;()[]{}<>".contains(char);
    text.split(stop).map(|word| word.trim_end_matches([':', '.'])).find(|word| {
        let image = parse(word);
        image.digest.is_some() && !image.repo.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let bytes = std::array::from_fn(|at| (at * 37) as u8);
        assert_eq!(super::digest(&bytes), format!("sha256:{}", hex::encode(bytes)));
        assert!(is_digest(&super::digest(&[0xff; 32])));
    }

    #[test]
    fn references() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (reference, repo, with) in [
            ("nginx".to_owned(), "nginx", false),
            ("nginx:1.2".to_owned(), "nginx", false),
            ("localhost:5000/a/b".to_owned(), "localhost:5000/a/b", false),
            ("localhost:5000/a/b:v1".to_owned(), "localhost:5000/a/b", false),
            (format!("ghcr.io/acme/app:v1@{digest}"), "ghcr.io/acme/app", true),
            (format!("ghcr.io/acme/app@{digest}"), "ghcr.io/acme/app", true),
            ("ghcr.io/acme/app@sha256:short".to_owned(), "ghcr.io/acme/app", false),
        ] {
            let image = parse(&reference);
            assert_eq!((image.repo, image.digest), (repo, with.then_some(digest.as_str())), "{reference}");
        }
        let message = format!("spec.containers[0].image ghcr.io/acme/app@{digest}: no matching signatures");
        assert_eq!(find(&message).map(str::to_owned), Some(format!("ghcr.io/acme/app@{digest}")));
        assert_eq!(find("user@example.com"), None);
    }
}
