//! Addresses of Git repositories: `owner/name` out of the many ways to write one.

/// The path of a repository's address, without `.git`, a ref after `@` and the host: `owner/name`, or longer where groups
/// are nested. `None` if it names no path of at least two parts.
pub(super) fn repo(address: &str) -> Option<String> {
    let address = address.strip_prefix("git+").unwrap_or(address);
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        // git@host:owner/name
        None => match address.split_once(':') {
            Some((host, path)) if !host.contains('/') => path,
            // host/owner/name
            _ => address.split_once('/').filter(|(host, _)| host.contains('.'))?.1,
        },
    };
    // A ref is part of an address in provenance: …/name@refs/heads/main.
    let path = path.split(['@', '?', '#']).next().unwrap_or(path).trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    path.contains('/').then(|| path.to_owned())
}

/// The ref behind `@` of an address in provenance.
pub(super) fn reference(address: &str) -> Option<&str> {
    address.rsplit_once('@').map(|(_, reference)| reference).filter(|reference| reference.starts_with("refs/"))
}

/// The full ref of a branch or tag.
pub(super) fn full_ref(name: &str, tag: bool) -> String {
    if name.starts_with("refs/") {
        return name.to_owned();
    }
    format!("refs/{}/{name}", if tag { "tags" } else { "heads" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (address, expected) in [
            ("https://github.com/acme/app.git", Some("acme/app")),
            ("https://user@gitlab.example.com/group/sub/app", Some("group/sub/app")),
            ("git+https://github.com/acme/app@refs/heads/main", Some("acme/app")),
            ("git@github.com:acme/app.git", Some("acme/app")),
            ("ssh://git@example.com:2222/acme/app.git", Some("acme/app")),
            ("github.com/acme/app", Some("acme/app")),
            ("acme/app", None),
            ("https://github.com/", None),
            ("", None),
            (":::", None),
        ] {
            assert_eq!(repo(address).as_deref(), expected, "{address}");
        }
        assert_eq!(reference("git+https://github.com/a/b@refs/tags/v1"), Some("refs/tags/v1"));
        assert_eq!(reference("git@github.com:a/b"), None);
        assert_eq!(full_ref("v1", true), "refs/tags/v1");
    }
}
