//! Bodies as the lake keeps them. What compresses badly stands apart from the text around it: a value that has a column of its own is
//! left out, and digits in base 16 are packed, two to a byte, into the column `packed`. Marks say where what is missing belongs.

use std::borrow::Cow;

use engine::fields::{Field, Fields};
use memchr::{memchr, memmem};
use pipeproof_engine as engine;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::columns::field_column;

/// Begins a mark; no byte of UTF-8. The byte after it says what stands there.
const MARK: u8 = 0xff;
/// The mark's own byte.
const ITSELF: u8 = 0;
/// The item; after it the fields that are [`CUT`].
const ITEM: u8 = 1;
/// A UUID in lower case: 16 bytes of `packed`.
const UUID: u8 = 0x40;
/// A word of so many pairs of digits in lower case, which are as many bytes of `packed`: `0x44` to `0x7f`.
const WORD: u8 = 0x40;
const PAIRS: std::ops::RangeInclusive<u8> = 4..=0x3f;
/// How many digits a UUID has before its first hyphen.
const UUID_HEAD: usize = 8;
/// A shorter value is left where it is.
const CUT_BYTES_MIN: usize = 8;
/// Fields whose values differ from event to event and stand in bodies as they are. Their marks are numbered in this order, so it is
/// only added to at the end.
const CUT: &[Field] =
    &[Field::TokenId, Field::SrcIp, Field::CiSha, Field::K8sName, Field::ActorId, Field::ArtifactDigest];

/// The columns of a row that values of its body stand in, in the order [`whole_body`] takes them.
pub(crate) fn cut_columns() -> impl Iterator<Item = String> {
    std::iter::once("item".to_owned()).chain(CUT.iter().map(|field| field_column(*field)))
}

/// The body without what other columns of its row hold, and the column `packed`, which is null for a body that is whole.
pub(super) fn shortened<'a>(body: &'a [u8], item: &str, fields: &Fields) -> (Cow<'a, [u8]>, Option<Vec<u8>>) {
    let values = CUT.iter().map(|field| fields.get_text(*field).unwrap_or_default());
    let mut cuts: Vec<(usize, usize, u8)> = Vec::new();
    for (value, mark) in std::iter::once(own_id(item).unwrap_or_default()).chain(values).zip(ITEM..) {
        if value.len() >= CUT_BYTES_MIN {
            cuts.extend(memmem::find_iter(body, value).map(|at| (at, value.len(), mark)));
        }
    }
    // Of those that overlap the first, and of two that begin together the longer one.
    cuts.sort_unstable_by_key(|(at, len, mark)| (*at, std::cmp::Reverse(*len), *mark));
    let mut short = Short { body: Vec::with_capacity(body.len()), packed: Vec::new() };
    let mut done = 0;
    for (at, len, mark) in cuts {
        if let Some(before) = body.get(done..at) {
            short.text(before);
            short.body.extend([MARK, mark]);
            done = at + len;
        }
    }
    short.text(body.get(done..).unwrap_or_default());
    if short.body == body {
        return (Cow::Borrowed(body), None);
    }
    (Cow::Owned(short.body), Some(short.packed))
}

/// The exact bytes of a body, from what the lake keeps of it and, of the same row, the column `packed` and the values of
/// [`cut_columns`]. The relation `events` does the same.
///
/// Rows of the version before have nothing packed and, if their body lacks anything, it is the item: at the byte `item_at`.
#[must_use]
pub(crate) fn whole_body<'a>(
    body: &'a [u8],
    packed: Option<&[u8]>,
    item_at: Option<i32>,
    value: impl Fn(usize) -> Option<&'a str>,
) -> Cow<'a, [u8]> {
    let whole = match (packed, item_at) {
        (None, None) => return Cow::Borrowed(body),
        (None, Some(at)) => value(0).and_then(|item| put_item_back(body, item, at)),
        (Some(packed), _) => put_back(body, packed, value),
    };
    // What makes no sense was not written by us: its leaf hash will say so.
    whole.map_or(Cow::Borrowed(body), Cow::Owned)
}

fn put_item_back(body: &[u8], item: &str, at: i32) -> Option<Vec<u8>> {
    let (before, behind) = body.split_at_checked(usize::try_from(at).ok()?)?;
    Some([before, own_id(item)?.as_bytes(), behind].concat())
}

/// The source's own id of an item, up to what we put behind it.
fn own_id(item: &str) -> Option<&str> {
    item.strip_prefix("id:")?.split('/').next()
}

fn put_back<'a>(mut body: &[u8], mut packed: &[u8], value: impl Fn(usize) -> Option<&'a str>) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(body.len() * 2);
    while let Some(at) = memchr(MARK, body) {
        let (text, rest) = body.split_at_checked(at)?;
        whole.extend_from_slice(text);
        let (mark, rest) = rest.get(1..)?.split_first()?;
        match *mark {
            ITSELF => whole.push(MARK),
            UUID => {
                let bytes = packed.split_off(..size_of::<Uuid>())?;
                let text = &mut [0; Hyphenated::LENGTH];
                let uuid = Uuid::from_slice(bytes).ok()?.hyphenated().encode_lower(text);
                whole.extend_from_slice(uuid.as_bytes());
            }
            mark if mark > WORD => {
                let bytes = packed.split_off(..usize::from(mark - WORD))?;
                whole.extend_from_slice(hex::encode(bytes).as_bytes());
            }
            mark => {
                let number = usize::from(mark - ITEM);
                let value = value(number)?;
                whole.extend_from_slice(if number == 0 { own_id(value)? } else { value }.as_bytes());
            }
        }
        body = rest;
    }
    whole.extend_from_slice(body);
    packed.is_empty().then_some(whole)
}

/// What is written of a body.
struct Short {
    body: Vec<u8>,
    packed: Vec<u8>,
}

impl Short {
    /// Text between values that are cut out.
    fn text(&mut self, text: &[u8]) {
        let mut rest = text;
        while let Some((first, behind)) = rest.split_first() {
            if !first.is_ascii_alphanumeric() {
                self.body.push(*first);
                if *first == MARK {
                    self.body.push(ITSELF);
                }
                rest = behind;
                continue;
            }
            let word = rest.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(rest.len());
            rest = self.word(rest, word);
        }
    }

    /// The word that the text begins with, or the UUID. Returns what is behind it.
    fn word<'t>(&mut self, text: &'t [u8], len: usize) -> &'t [u8] {
        if len == UUID_HEAD
            && let Some((uuid, behind)) = text.split_at_checked(Hyphenated::LENGTH)
            && behind.first().is_none_or(|byte| !byte.is_ascii_alphanumeric())
            && !uuid.iter().any(u8::is_ascii_uppercase)
            && let Ok(uuid) = Uuid::try_parse_ascii(uuid)
        {
            self.body.extend([MARK, UUID]);
            self.packed.extend_from_slice(uuid.as_bytes());
            return behind;
        }
        let (word, behind) = text.split_at_checked(len).unwrap_or((text, &[]));
        let pairs = u8::try_from(len / 2).unwrap_or(u8::MAX);
        // Decimal numbers are let be: most repeat or count up, which shows in text.
        let mut bytes = [0; *PAIRS.end() as usize];
        if PAIRS.contains(&pairs)
            && let Some(bytes) = bytes.get_mut(..usize::from(pairs))
            && !word.iter().any(u8::is_ascii_uppercase)
            && !word.iter().all(u8::is_ascii_digit)
            && hex::decode_to_slice(word, bytes).is_ok()
        {
            self.body.extend([MARK, WORD + pairs]);
            self.packed.extend_from_slice(bytes);
        } else {
            self.body.extend_from_slice(word);
        }
        behind
    }
}

#[cfg(test)]
mod tests {
    use engine::fields::Value;
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0f4d9a3e-7c52-4a0e-9a41-d1b2c3d4e5f6";
    const SHA: &str = "89abcdef0123456789abcdef0123456789abcdef";

    fn values<'a>(item: &'a str, fields: &'a Fields) -> impl Fn(usize) -> Option<&'a str> {
        move |number| match number.checked_sub(1) {
            None => Some(item),
            Some(number) => fields.get_text(*CUT.get(number)?),
        }
    }

    #[test]
    fn only_what_is_hard_to_compress_stands_apart() {
        let mut fields = Fields::default();
        fields.set(Field::SrcIp, Value::Text("10.20.30.40".into()));
        fields.set(Field::K8sName, Value::Text("web".into()));
        let item = format!("id:{ID}/stage");
        for (body, expected, bytes) in [
            (format!(r#"{{"id":"{ID}","again":"{ID}"}}"#), "{\"id\":\"\u{1}\",\"again\":\"\u{1}\"}", 0),
            (r#"{"ip":"10.20.30.40","name":"web"}"#.to_owned(), "{\"ip\":\"\u{3}\",\"name\":\"web\"}", 0),
            (format!("sha256:{SHA} of {SHA}"), "sha256:\u{54} of \u{54}", 40),
            ("1f4d9a3e-7c52-4a0e-9a41-d1b2c3d4e5f6.".to_owned(), "\u{40}.", 16),
            // In upper case, too short, odd, decimal, part of a longer word, or no UUID after all.
            ("0F4D9A3E abcdef 123456789abcdef 123456789012 deadbeefs".to_owned(), "", 0),
            ("0f4d9a3e-7c52-4a0e-9a41-d1b2c3d4e5f".to_owned(), "\u{44}-7c52-4a0e-9a41-d1b2c3d4e5f", 4),
        ] {
            let (short, packed) = shortened(body.as_bytes(), &item, &fields);
            let plain: Vec<u8> = short.iter().copied().filter(|byte| *byte != MARK).collect();
            let expected = if expected.is_empty() { body.as_str() } else { expected };
            assert_eq!(String::from_utf8(plain).unwrap(), expected);
            assert_eq!(packed.as_ref().map_or(0, Vec::len), bytes, "{body}");
            assert_eq!(whole_body(&short, packed.as_deref(), None, values(&item, &fields)).as_ref(), body.as_bytes());
        }
    }

    #[test]
    fn what_makes_no_sense_is_left_as_it_is() {
        let (item, fields) = (format!("id:{ID}"), Fields::default());
        // A mark without its second byte, of a field that is empty, of no column, with too few bytes packed, or too many.
        for (body, packed) in [
            (&b"a\xff"[..], &b""[..]),
            (b"a\xff\x02", b""),
            (b"a\xff\x3f", b""),
            (b"a\xff\x40", b"short"),
            (b"a\xff\x44", b"many of them"),
            (b"a\xff\x90", b"many"),
        ] {
            assert_eq!(whole_body(body, Some(packed), None, values(&item, &fields)).as_ref(), body);
        }
    }

    #[test]
    fn rows_of_the_version_before_are_read() {
        let (item, fields) = (format!("id:{ID}/stage"), Fields::default());
        let old = |body: &[u8], at| whole_body(body, None, at, values(&item, &fields)).into_owned();
        assert_eq!(old(b"{\"id\":\"\"}", Some(7)), format!("{{\"id\":\"{ID}\"}}").as_bytes());
        assert_eq!(old(b"\xff\x01", None), b"\xff\x01");
        assert_eq!(old(b"short", Some(6)), b"short");
    }

    proptest! {
        #[test]
        fn a_body_comes_back_whole(
            parts in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                prop::collection::vec(Just(MARK), 0..3),
                "[a-f0-9]{0,140}".prop_map(String::into_bytes),
                "[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{11,13}".prop_map(String::into_bytes),
                prop::sample::select(vec![ID, SHA, "10.20.30.40", "10.20.30.405", "\"", "-", "/"]).prop_map(|text| text.as_bytes().to_vec()),
            ], 0..12),
            item in prop::sample::select(vec![format!("id:{ID}"), format!("id:{SHA}/2"), "digest".to_owned(), "id:".to_owned()]),
            address in prop::option::of(prop::sample::select(vec!["10.20.30.40", "0.20.30.4", "30.405"])),
            commit in prop::option::of(prop::sample::select(vec![SHA, "89abcdef", &SHA[4..]])),
        ) {
            let body = parts.concat();
            let mut fields = Fields::default();
            if let Some(address) = address { fields.set(Field::SrcIp, Value::Text(address.into())); }
            if let Some(commit) = commit { fields.set(Field::CiSha, Value::Text(commit.into())); }
            let (short, packed) = shortened(&body, &item, &fields);
            let whole = whole_body(&short, packed.as_deref(), None, values(&item, &fields));
            prop_assert_eq!(whole.as_ref(), body.as_slice());
        }
    }
}
