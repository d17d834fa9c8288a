//! Listings of a store as its client takes them: one key that it does not take would cost the whole listing, and whoever may write
//! to a bucket could stop it from being read.

use quick_xml::escape::unescape;

use super::keys;

/// An answer of `ListObjectsV2` in which every key is one that is taken; none if it is so as it stands.
#[must_use]
pub fn readable(answer: &[u8]) -> Option<String> {
    let xml = std::str::from_utf8(answer).ok()?;
    let mut out = String::new();
    let mut copied = 0;
    for (at, _) in xml.match_indices('<') {
        let rest = xml.get(at..)?;
        // What is asked for stands under `Prefix`, too, where nobody reads it.
        let Some((tag, folder)) =
            [("<Key>", false), ("<Prefix>", true)].into_iter().find(|(tag, _)| rest.starts_with(tag))
        else {
            continue;
        };
        let start = at + tag.len();
        let text = xml.get(start..)?.split('<').next().unwrap_or_default();
        let key = unescape(text);
        let taken = key.as_ref().is_ok_and(|key| if folder { keys::is_folder(key) } else { keys::path(key).is_some() });
        if !taken {
            out.push_str(xml.get(copied..start)?);
            out.push_str(&keys::passed(key.as_deref().unwrap_or(text)));
            copied = start + text.len();
        }
    }
    if out.is_empty() {
        return None;
    }
    out.push_str(xml.get(copied..)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_not_taken_is_written_otherwise() {
        let entry = |key: &str| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>");
        let listing = |keys: &[&str], folders: &[&str]| {
            let folders =
                folders.iter().map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"));
            let entries: Vec<String> = keys.iter().map(|key| entry(key)).chain(folders).collect();
            format!(
                "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><Prefix></Prefix>{}</ListBucketResult>",
                entries.concat()
            )
        };
        let fine = listing(&["a/b", "a/c&amp;d", "e&#xe4;"], &["a/", "2026/11/26/"]);
        assert_eq!(readable(fine.as_bytes()), None);
        let odd = ["a//b", "/a", "a/", "../x", "a&#x1;b", "a&amp;//b", "&bad;"];
        let written = readable(listing(&[&["a/b"], &odd[..]].concat(), &["a/", "a//", "/"]).as_bytes()).unwrap();
        let keys: Vec<String> = written
            .split("<Key>")
            .skip(1)
            .map(|rest| keys::key(&Path::parse(rest.split('<').next().unwrap()).unwrap()))
            .collect();
        assert_eq!(keys, ["a/b", "a//b", "/a", "a/", "../x", "a\u{1}b", "a&//b", "&bad;"]);
        let folders: Vec<String> = written
            .split("<CommonPrefixes><Prefix>")
            .skip(1)
            .map(|rest| keys::key(&Path::parse(rest.split('<').next().unwrap()).unwrap()))
            .collect();
        assert_eq!(folders, ["a", "a//", "/"]);
    }
    proptest! {
        /// Whatever a store answers, and whatever is in it: the client takes every key that is left.
        #[test]
        fn the_client_takes_what_any_answer_is_made_into(
            parts in proptest::collection::vec("(<Key>|<Prefix>)(&amp;|&#x1;|&|/|//|[.]{1,2}|[a-z>]{0,3}|é|\u{e000}){0,6}</", 0..6),
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            drop(readable(&bytes));
            let answer = parts.concat();
            let written = readable(answer.as_bytes()).unwrap_or(answer);
            for text in written.split(['<']).filter_map(|part| part.strip_prefix("Key>")) {
                prop_assert!(Path::parse(unescape(text).unwrap()).is_ok(), "{}", text);
            }
            for text in written.split(['<']).filter_map(|part| part.strip_prefix("Prefix>")) {
                let folder = unescape(text).unwrap();
                prop_assert!(Path::parse(folder.strip_suffix('/').unwrap_or(&folder)).is_ok(), "{}", text);
            }
        }
    }
}
