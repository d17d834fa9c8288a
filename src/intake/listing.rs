//! Listings of a store as its client takes them: one key that it does not take would cost the whole listing, and whoever may write
//! to a bucket could stop it from being read.

use pipeproof_ingest::objects::keys;
use quick_xml::escape::unescape;

/// Largest answer with a listing, bytes: a thousand keys of 1,024 bytes, escaped, and what is said of them.
pub(super) const LISTING_BYTES_MAX: usize = 16 << 20;

/// Whether a request asks for a listing of a bucket.
pub(super) fn is_listing(uri: &http::Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "list-type=2"))
}

/// An answer of `ListObjectsV2` in which every key is one that is taken; none if it is so as it stands.
pub(super) fn readable(answer: &[u8]) -> Option<String> {
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
}
