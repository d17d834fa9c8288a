//! Keys that the client of a store cannot ask for: with empty parts (`a//b`), parts of dots, control characters, a slash at an end.
//!
//! It takes no such key, and no listing that has one in it. Whoever reads a listing before the client does writes such a key so that
//! it is taken ([`passed`]); here it is again what it is ([`key`]), is found like any other object, and named as lost once it
//! is to be read.

use object_store::path::Path;

/// Begins a key that was written otherwise; nobody else's begins so.
const MARK: char = '\u{e000}';

/// The path of a key, if the client takes it.
#[must_use]
pub fn path(key: &str) -> Option<Path> {
    Path::parse(key).ok().filter(|path| path.as_ref() == key && !key.starts_with(MARK))
}

/// Whether the client takes a folder, which ends with a slash or is the bucket itself.
#[must_use]
pub fn is_folder(folder: &str) -> bool {
    path(folder.strip_suffix('/').unwrap_or(folder)).is_some_and(|path| path.is_root() == folder.is_empty())
}

/// A key as the client takes it, whatever it is.
#[must_use]
pub fn passed(key: &str) -> String {
    format!("{MARK}{}", hex::encode(key))
}

/// The key of what the client lists.
#[must_use]
pub fn key(listed: &Path) -> String {
    let listed = listed.as_ref();
    let passed = listed.strip_prefix(MARK).and_then(|text| String::from_utf8(hex::decode(text).ok()?).ok());
    passed.unwrap_or_else(|| listed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_client_takes_as_it_is() {
        for key in ["a", "a/b.json", "2026/11/26/x y&z.json", "ä/%2F"] {
            assert_eq!(path(key).unwrap().as_ref(), key);
        }
        for key in ["", "a//b", "/a", "a/", "a/../b", ".", "a\u{1}", "\u{e000}61", "//"] {
            assert!(path(key).is_none() || key.is_empty(), "{key:?}");
        }
        for (folder, taken) in [("", true), ("a/", true), ("a/b/", true), ("/", false), ("a//", false), ("../", false)]
        {
            assert_eq!(is_folder(folder), taken, "{folder:?}");
        }
    }

    proptest! {
        #[test]
        fn every_key_comes_back(of in "([a-z./]|\\PC|[\\x00-\\x1f]|\u{e000}){1,30}") {
            let listed = Path::parse(passed(&of)).unwrap();
            prop_assert_eq!(key(&listed), of.clone());
            if let Some(taken) = path(&of) {
                prop_assert_eq!(key(&taken), of);
            }
        }
    }
}
