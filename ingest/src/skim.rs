//! Finding the parts of JSON text by brackets and strings alone: where a value ends, which members an object has.
//!
//! What it is not: a parser. It accepts much that is not JSON, never fails on what is, does not recurse, and keeps every
//! part as the bytes the source sent. Decoders parse properly.

use std::borrow::Cow;
use std::ops::Range;

/// The text without a byte order mark and white space around it.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.trim_ascii()
}

/// The first place from `at` on that is not white space.
pub(crate) fn skip_space(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The place after the string whose opening quote is at `at`; `None` if it does not end.
pub(crate) fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut place = at + 1;
    loop {
        match text.get(place)? {
            b'"' => return Some(place + 1),
            b'\\' => place += 2,
            _ => place += 1,
        }
    }
}

/// The place after the value that starts at `at`; `None` if it does not end or none starts there.
pub(crate) fn value_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => string_end(text, at),
        b'{' | b'[' => {
            let (mut depth, mut place) = (0_usize, at);
            loop {
                match text.get(place)? {
                    b'"' => place = string_end(text, place)?,
                    b'{' | b'[' => {
                        depth += 1;
                        place += 1;
                    }
                    b'}' | b']' => {
                        depth -= 1;
                        place += 1;
                        if depth == 0 {
                            return Some(place);
                        }
                    }
                    _ => place += 1,
                }
            }
        }
        b'}' | b']' | b',' | b':' => None,
        _ => {
            let rest = text.get(at..)?;
            let len = rest.iter().take_while(|byte| !matches!(byte, b',' | b'}' | b']' | b':' | b'"' | b'{' | b'['));
            let len = len.take_while(|byte| !byte.is_ascii_whitespace()).count();
            Some(at + len)
        }
    }
}

/// The elements of an array, no more than one beyond `max`; `None` if it is not one by its brackets.
pub(crate) fn elements(array: &[u8], max: usize) -> Option<Vec<Range<usize>>> {
    if array.first() != Some(&b'[') {
        return None;
    }
    let mut found = Vec::new();
    let mut at = skip_space(array, 1);
    if array.get(at) == Some(&b']') {
        return Some(found);
    }
    loop {
        let end = value_end(array, at)?;
        found.push(at..end);
        if found.len() > max {
            return Some(found);
        }
        at = skip_space(array, end);
        match array.get(at)? {
            b',' => at = skip_space(array, at + 1),
            b']' => return Some(found),
            _ => return None,
        }
    }
}

/// The members of an object: key as written between its quotes, and where the value stands. Stops where the text stops
/// to look like an object.
pub(crate) fn members(object: &[u8]) -> Members<'_> {
    let at = if object.first() == Some(&b'{') { 1 } else { object.len() };
    Members { object, at }
}

/// See [`members`].
pub(crate) struct Members<'a> {
    object: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = skip_space(self.object, self.at);
        if self.object.get(key) != Some(&b'"') {
            return None;
        }
        let key_end = string_end(self.object, key)?;
        let colon = skip_space(self.object, key_end);
        if self.object.get(colon) != Some(&b':') {
            return None;
        }
        let value = skip_space(self.object, colon + 1);
        let end = value_end(self.object, value)?;
        let after = skip_space(self.object, end);
        self.at = if self.object.get(after) == Some(&b',') { after + 1 } else { self.object.len() };
        Some((self.object.get(key + 1..key_end - 1)?, value..end))
    }
}

/// The value of a member; where a key is repeated, the last one, as most readers of JSON have it.
pub(crate) fn member<'a>(object: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let found = members(object).filter(|(name, _)| unescape(name) == key.as_bytes()).last()?;
    object.get(found.1)
}

/// Follows keys from object to object.
pub(crate) fn at<'a>(object: &'a [u8], path: &[&str]) -> Option<&'a [u8]> {
    path.iter().try_fold(object, |value, key| member(value, key))
}

/// The text of a string or number at a path, unescaped; `None` for anything else, and for text that is not UTF-8.
pub(crate) fn text_at(object: &[u8], path: &[&str]) -> Option<String> {
    let value = at(object, path)?;
    let text = match value {
        [b'"', inner @ .., b'"'] => unescape(inner),
        [b'-' | b'0'..=b'9', ..] => Cow::Borrowed(value),
        _ => return None,
    };
    String::from_utf8(text.into_owned()).ok()
}

/// The text of a JSON string from what stands between its quotes. What is not a valid escape stays as it is.
pub(crate) fn unescape(inner: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = inner.iter().position(|byte| *byte == b'\\') else { return Cow::Borrowed(inner) };
    let mut out = inner.get(..first).unwrap_or_default().to_vec();
    let mut rest = inner.get(first..).unwrap_or_default();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let Some((escape, tail)) = rest.split_first() else {
            out.push(b'\\');
            break;
        };
        rest = tail;
        match escape {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'"' | b'\\' | b'/' => out.push(*escape),
            b'u' => rest = unescape_unicode(rest, &mut out),
            other => out.extend_from_slice(&[b'\\', *other]),
        }
    }
    Cow::Owned(out)
}

/// Reads `XXXX`, or `XXXX\uXXXX` for a surrogate pair, and returns what follows.
fn unescape_unicode<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some((unit, tail)) = hex4(rest) else {
        out.extend_from_slice(b"\\u");
        return rest;
    };
    let mut push = |char: char| out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    if let Some(char) = char::from_u32(unit) {
        push(char);
        return tail;
    }
    let low = tail.strip_prefix(b"\\u").and_then(hex4).filter(|(low, _)| (0xdc00..0xe000).contains(low));
    let pair = low.and_then(|(low, after)| {
        let high = unit.checked_sub(0xd800).filter(|high| *high < 0x400)?;
        Some((char::from_u32(0x1_0000 + (high << 10) + (low - 0xdc00))?, after))
    });
    match pair {
        Some((char, after)) => {
            push(char);
            after
        }
        None => {
            push(char::REPLACEMENT_CHARACTER);
            tail
        }
    }
}

fn hex4(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(4)?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_of_values() {
        let object = br#"{"a" : [1, "x]", {"b":2}] , "c":{"d":"\"}"},"e":null, "a":-3}"#;
        let found: Vec<_> = members(object)
            .map(|(key, value)| (std::str::from_utf8(key).unwrap(), std::str::from_utf8(&object[value]).unwrap()))
            .collect();
        assert_eq!(found, [("a", r#"[1, "x]", {"b":2}]"#), ("c", r#"{"d":"\"}"}"#), ("e", "null"), ("a", "-3")]);
        assert_eq!(text_at(object, &["c", "d"]).as_deref(), Some("\"}"));
        assert_eq!(text_at(object, &["a"]).as_deref(), Some("-3"), "the last of repeated keys");
        assert_eq!(elements(b"[ ]", 9), Some(vec![]));
        assert_eq!(elements(b"[1 , [2,3],\"]\" ]", 9), Some(vec![1..2, 5..10, 11..14]));
        for bad in [&b"[1"[..], b"[1 2]", b"{}", b"[,]", b"[1,"] {
            assert_eq!(elements(bad, 9), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn escapes() {
        for (inner, expected) in [
            (r"a\/b\\c\u0067hp", "a/b\\cghp"),
            (r"\ud83d\ude00", "😀"),
            (r"\ud83dx", "\u{fffd}x"),
            (r"\q\u12", "\\q\\u12"),
            ("tail\\", "tail\\"),
        ] {
            assert_eq!(unescape(inner.as_bytes()).as_ref(), expected.as_bytes(), "{inner}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_skimmed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (value_end(&bytes, 0), elements(&bytes, 9), members(&bytes).count(), unescape(&bytes).len());
        }

        #[test]
        fn unescape_agrees_with_serde(text in "\\PC{0,40}|[\u{0}-\u{1f}\"\\\\/a]{0,20}") {
            let json = serde_json::to_string(&text).unwrap();
            let inner = &json.as_bytes()[1..json.len() - 1];
            prop_assert_eq!(unescape(inner).into_owned(), text.as_bytes());
        }
    }
}
