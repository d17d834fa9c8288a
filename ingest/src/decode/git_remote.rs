//! Addresses of Git repositories: `owner/name` out of the many ways to write one.

/// A text before and after the first place of another, as `str::split_once` has it. That searches for anything, and is slow
/// to begin; what addresses are taken apart at begins with a letter of which they have few.
pub(super) fn split_once<'t>(text: &'t str, at: &str) -> Option<(&'t str, &'t str)> {
    let is_here = |place: &usize| text.as_bytes().get(*place..).is_some_and(|rest| rest.starts_with(at.as_bytes()));
    let place = memchr::memchr_iter(*at.as_bytes().first()?, text.as_bytes()).find(is_here)?;
    Some((text.get(..place)?, text.get(place + at.len()..)?))
}

/// What comes after the first `://` of an address.
pub(super) fn after_scheme(address: &str) -> Option<&str> {
    split_once(address, "://").map(|(_, rest)| rest)
}

/// The path of a repository's address, without `.git`, a ref after `@` and the host: `owner/name`, or longer where groups
/// are nested. `None` if it names no path of at least two parts.
pub(super) fn repo(address: &str) -> Option<String> {
    let address = address.strip_prefix("git+").unwrap_or(address);
    let path = match after_scheme(address) {
        Some(rest) => rest.split_once('/')?.1,
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

/// The full ref of a name that may be a branch's or a tag's, where it is known which: the default branch is a branch.
pub(super) fn told_ref(name: &str, tag: Option<bool>, default: Option<&str>) -> Option<String> {
    let known = tag.or_else(|| (default == Some(name)).then_some(false));
    match known {
        Some(tag) => Some(full_ref(name, tag)),
        None => name.starts_with("refs/").then(|| name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_split_as_anywhere() {
        for text in ["", ":", "a://b://c", "::///", "é://ü", "a:/b", "://", ":::://x"] {
            assert_eq!(split_once(text, "://"), text.split_once("://"), "{text}");
            assert_eq!(split_once(text, ":/"), text.split_once(":/"), "{text}");
        }
    }

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
        assert_eq!(told_ref("v1", Some(true), Some("main")).as_deref(), Some("refs/tags/v1"));
        assert_eq!(told_ref("main", None, Some("main")).as_deref(), Some("refs/heads/main"));
        assert_eq!(told_ref("refs/merge-requests/7/head", None, None).as_deref(), Some("refs/merge-requests/7/head"));
        assert_eq!(told_ref("v1", None, Some("main")), None);
    }
}
