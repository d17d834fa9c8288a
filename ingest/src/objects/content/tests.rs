//! What stored bytes are: compressed or not, in lines or in a document, of any size, cut anywhere.

use std::io::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A reader that gives a few bytes at a time.
struct Drops<'a>(&'a [u8], usize);

impl Read for Drops<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(self.1).min(into.len());
        into[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn parts(stored: &[u8], step: usize) -> (Vec<Part>, Result<[u8; 32], ContentError>) {
    let mut parts = Parts::new(Drops(stored, step));
    let mut all = Vec::new();
    loop {
        match parts.next_part() {
            Ok(Some(part)) => all.push(part),
            Ok(None) => return (all, Ok(parts.hash().unwrap())),
            Err(error) => return (all, Err(error)),
        }
    }
}

fn bodies(parts: &[Part]) -> Vec<&[u8]> {
    parts
        .iter()
        .map(|part| match part {
            Part::Items(body) => &body[..],
            Part::LeftOut(what) => panic!("left out: {what}"),
        })
        .collect()
}

fn event(number: usize) -> Value {
    json!({"eventID": number, "text": "a \"quoted\" ]} text, ".repeat(20), "deep": [{"a": [1, 2]}]})
}

/// The numbers of the events in parts, in order.
fn numbers(parts: &[Part]) -> Vec<u64> {
    let mut found = Vec::new();
    for body in bodies(parts) {
        assert!(body.len() < PART_BYTES + (64 << 10), "{} bytes", body.len());
        for value in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
            let value = value.unwrap();
            let list = value.get("Records").unwrap_or(&value);
            let all = list.as_array().cloned().unwrap_or_else(|| vec![list.clone()]);
            found.extend(all.iter().map(|event| event["eventID"].as_u64().unwrap()));
        }
    }
    found
}

#[test]
fn a_small_object_is_one_part_as_it_is() {
    let content = br#"{"Records":[{"eventID":1}]}"#;
    for stored in [content.to_vec(), gzip(content), zstd::encode_all(&content[..], 1).unwrap()] {
        let (parts, hash) = parts(&stored, 7);
        assert_eq!(bodies(&parts), [content]);
        assert_eq!(hash.unwrap(), <[u8; 32]>::from(Sha256::digest(content)), "over the content, not what is stored");
    }
}

#[test]
fn a_large_object_of_any_form_comes_in_parts_and_whole() {
    let count = 10_000_u64;
    let events: Vec<Value> = (0..count).map(|number| event(usize::try_from(number).unwrap())).collect();
    let wrapped = json!({ "Records": events }).to_string();
    let array = serde_json::to_string_pretty(&events).unwrap();
    let lines = events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let values = events.iter().map(|event| serde_json::to_string_pretty(event).unwrap()).collect::<String>();
    for (name, content) in [("wrapped", wrapped), ("array", array), ("lines", lines), ("values", values)] {
        let (whole, hash) = parts(&gzip(content.as_bytes()), 64 << 10);
        assert!(whole.len() > 3, "{name}: {} parts", whole.len());
        assert_eq!(numbers(&whole), (0..count).collect::<Vec<_>>(), "{name}");
        assert_eq!(hash.unwrap(), <[u8; 32]>::from(Sha256::digest(&content)), "{name}");
        assert_eq!(parts(content.as_bytes(), 1_000).0, whole, "{name}: parts do not depend on how it was read");
    }
}

#[test]
fn documents_after_each_other_are_all_read() {
    let list = |from: usize| json!({"Records": (from..from + 3_000).map(event).collect::<Vec<_>>()}).to_string();
    let stored = [gzip(list(0).as_bytes()), gzip(list(3_000).as_bytes())].concat();
    assert_eq!(numbers(&parts(&stored, 4_096).0), (0..6_000).collect::<Vec<_>>());
}

#[test]
fn an_item_that_is_too_large_is_left_out_and_its_neighbours_are_not() {
    let huge = json!({"eventID": 1, "text": "x\\\"]}".repeat(ITEM_BYTES_MAX / 4)});
    for wrapped in [true, false] {
        let events = vec![event(0), huge.clone(), event(2)];
        let content = if wrapped { json!({ "Records": events }) } else { json!(events) }.to_string();
        let (all, hash) = parts(&gzip(content.as_bytes()), 64 << 10);
        hash.unwrap();
        let left: Vec<&Part> = all.iter().filter(|part| matches!(part, Part::LeftOut(_))).collect();
        assert_eq!(left, [&Part::LeftOut(format!("an item of {} bytes", huge.to_string().len()))]);
        let kept: Vec<Part> = all.into_iter().filter(|part| matches!(part, Part::Items(_))).collect();
        assert_eq!(numbers(&kept), [0, 2]);
    }
    let lines = format!("{}\n{huge}\n{}\n", event(0), event(2));
    let (all, _) = parts(lines.as_bytes(), 64 << 10);
    assert!(matches!(&all[1], Part::LeftOut(what) if what.starts_with("a line of")), "{:?}", all.len());
    assert_eq!((numbers(&all[..1]), numbers(&all[2..])), (vec![0], vec![2]));
}

#[test]
fn what_is_broken_says_so_after_what_was_whole() {
    let content = json!({"Records": (0..20_000).map(event).collect::<Vec<_>>()}).to_string();
    let stored = gzip(content.as_bytes());
    let (before, error) = parts(&stored[..stored.len() / 2], 4_096);
    assert!(matches!(error, Err(ContentError::Compression("gzip"))), "{error:?}");
    assert!(numbers(&before).len() > 1_000);
    let (before, error) = parts(&content.as_bytes()[..content.len() / 2], 4_096);
    assert!(matches!(error, Err(ContentError::Cut)), "{error:?}");
    assert!(numbers(&before).len() > 1_000);
    // Cut where it is small it is one part: a decoder says what is wrong with it.
    assert!(matches!(parts(&stored[..40], 8).1, Err(ContentError::Compression("gzip"))));
}

#[test]
fn trouble_of_the_store_is_told_from_a_broken_object() {
    struct Breaks(usize);
    impl Read for Breaks {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other(StoreTrouble("connection reset".to_owned())));
            }
            self.0 -= 1;
            into[..2].copy_from_slice(&[0x1f, 0x8b]);
            Ok(2)
        }
    }
    for after in [0, 1, 2] {
        let error = Parts::new(Breaks(after)).next_part().unwrap_err();
        assert!(error.is_temporary() || after == 2, "{after}: {error:?}");
    }
}

proptest::proptest! {
    #[test]
    fn taking_apart_never_panics_and_loses_no_byte_of_lines(mut content: Vec<u8>, step in 1_usize..50) {
        drop(parts(&content, step));
        content.retain(|byte| !b"{[ \n\t\r\x0c\x0b\x1f\x28\xef".contains(byte));
        // Nothing but ends of lines is nothing.
        content.push(b'x');
        let line = content.len() + 1;
        content.push(b'\n');
        let many = content.repeat(PART_BYTES / line + 3);
        let (all, _) = parts(&many, 64 << 10);
        proptest::prop_assert!(bodies(&all).concat() == many);
    }
}
