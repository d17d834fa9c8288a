//! Package URLs (purl-spec): the digest in one that names an image.

use super::images;

/// The SHA-256 digest of `pkg:oci/name@sha256%3A…` and of its older form `pkg:docker/name@sha256:…`.
pub(super) fn digest(url: &str) -> Option<String> {
    let (_, rest) = url.strip_prefix("pkg:")?.rsplit_once('@')?;
    let version = rest.split(['?', '#']).next().unwrap_or(rest);
    let digest = version.replace("%3A", ":").replace("%3a", ":").to_lowercase();
    images::is_digest(&digest).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let plain = format!("sha256:{}", "0b".repeat(32));
        let escaped = plain.replace(':', "%3A");
        assert_eq!(digest(&format!("pkg:oci/app@{escaped}?arch=amd64")), Some(plain.clone()));
        assert_eq!(digest(&format!("pkg:docker/app@{plain}")), Some(plain));
        assert_eq!(digest("pkg:golang/example.com/app@234fd47e07d1004f0aed9c"), None);
        assert_eq!(digest("nonsense"), None);
    }
}
