//! A file cut into bodies that a request may hold, so that the items are the same as of the whole.

use bytes::Bytes;

use super::split;
use crate::skim;

/// Members of an object that a file may be a list in.
const LISTS: &[&str] = &["Records", "records", "items"];

/// Cuts a text of JSON values into bodies of about `bytes_max` bytes and at most `items_max` values each. What cannot be
/// cut stays whole, however large it is.
#[must_use]
pub fn parts(text: &Bytes, bytes_max: usize, items_max: usize) -> Vec<Bytes> {
    let trimmed = text.slice_ref(skim::trim(text));
    let mut values: Vec<Bytes> = split(&trimmed, usize::MAX).into_iter().map(|range| trimmed.slice(range)).collect();
    if trimmed.len() <= bytes_max && values.len() <= items_max {
        // A list may hold more items than its file has values.
        let elements = values.iter().map(|value| elements(value).map_or(1, |elements| elements.len())).sum::<usize>();
        if elements <= items_max {
            return vec![trimmed];
        }
    }
    if let [one] = values.as_slice()
        && let Some(elements) = elements(one)
    {
        values = elements;
    }
    let mut parts = Vec::new();
    let mut group: Vec<Bytes> = Vec::new();
    let mut len = 0;
    for value in values {
        if !group.is_empty() && (len + value.len() > bytes_max || group.len() >= items_max) {
            parts.push(joined(&std::mem::take(&mut group)));
            len = 0;
        }
        len += value.len() + 1;
        group.push(value);
    }
    if !group.is_empty() {
        parts.push(joined(&group));
    }
    parts
}

/// The elements of an array, or of the array that an object is a wrapper of.
fn elements(value: &Bytes) -> Option<Vec<Bytes>> {
    let array = if value.first() == Some(&b'[') {
        value.clone()
    } else {
        let list =
            LISTS.iter().find_map(|name| skim::member(value, name).filter(|list| list.first() == Some(&b'[')))?;
        value.slice_ref(list)
    };
    let ranges = skim::elements(&array, usize::MAX)?;
    Some(ranges.into_iter().map(|range| array.slice(range)).collect())
}

/// Lines, or an array where a value goes over several.
fn joined(values: &[Bytes]) -> Bytes {
    let over_lines = values.iter().any(|value| value.contains(&b'\n'));
    let (open, between, close): (&[u8], &[u8], &[u8]) = if over_lines { (b"[", b",", b"]") } else { (b"", b"\n", b"") };
    Bytes::from([open, &values.join(between), close].concat())
}

#[cfg(test)]
mod tests {
    use engine::source::SourceType;
    use pipeproof_engine as engine;
    use proptest::prelude::*;

    use super::*;
    use crate::limits::Limits;
    use crate::unwrap::{Framing, items};

    fn texts(kind: SourceType, bodies: &[Bytes]) -> Vec<Bytes> {
        let of = |body: &Bytes| items(kind, Framing::Values, body, &Limits::default()).unwrap();
        bodies.iter().flat_map(of).map(|item| item.bytes).collect()
    }

    #[test]
    fn a_small_file_goes_as_it_is() {
        let file = Bytes::from_static(b" {\"Records\":[{\"a\":1}]}\n");
        assert_eq!(parts(&file, 1_000, 10), [&b"{\"Records\":[{\"a\":1}]}"[..]]);
        assert_eq!(parts(&Bytes::from_static(b"nonsense"), 2, 10), ["nonsense"]);
    }

    proptest! {
        #[test]
        fn the_parts_give_the_items_of_the_whole(
            numbers in proptest::collection::vec(0..2000_u32, 1..30), form in 0..4_u8, bytes_max in 20..200_usize, items_max in 1..10_usize,
        ) {
            let events: Vec<String> = numbers.iter().map(|n| format!("{{\"eventName\":\"A\",\"n\":{n}}}")).collect();
            let file = match form {
                0 => events.join("\n"),
                1 => format!("[{}]", events.join(",\n")),
                2 => format!("{{\"Records\":[\n{}]}}", events.join(",")),
                _ => events.join("\n").replace(",\"n\"", ",\n \"n\""),
            };
            let file = Bytes::from(file);
            let cut = parts(&file, bytes_max, items_max);
            prop_assert_eq!(texts(SourceType::AwsCloudtrail, &cut), texts(SourceType::AwsCloudtrail, &[file]));
            prop_assert!(cut.iter().all(|part| part.len() <= bytes_max + 60));
        }
    }
}
