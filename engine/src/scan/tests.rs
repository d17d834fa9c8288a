//! Scanning against simd-json's tape: where it does not give up, both give the same values.

use proptest::prelude::*;

use super::*;
use crate::columns::ColumnKey;
use crate::reader::Reader;
use crate::spelling::Spelling;

#[derive(Default)]
struct Values(Vec<(u32, Kind, String)>);

impl Sink for Values {
    fn value(&mut self, column: u32, kind: Kind, text: &str) {
        self.0.push((column, kind, text.to_owned()));
    }
}

impl Values {
    fn sorted(mut self) -> Vec<(u32, String, String)> {
        let mut values: Vec<_> =
            self.0.drain(..).map(|(column, kind, text)| (column, format!("{kind:?}"), text)).collect();
        values.sort();
        values
    }
}

fn schema(everything: bool) -> Schema {
    let native = |path: &str, text: bool| (ColumnKey::Native(path.to_owned()), text);
    let mut columns =
        vec![native("a", true), native("a.b", false), native("b.c", true), native("a.b.c", true), native("ä", false)];
    if everything {
        columns.push((ColumnKey::Everything, false));
    }
    Schema::new(columns, Spelling::Written)
}

/// Values with their columns and kinds, and the last text of a member.
type Seen = (Vec<(u32, String, String)>, Option<String>);

/// The values by scanning, unless it gives up, and by the tape, if it is JSON; with the last text of a member.
fn both(text: &[u8], everything: bool) -> [Option<Seen>; 2] {
    let schema = schema(everything);
    let mut reader = Reader::default();
    reader.load(text);
    let scanned = reader.scan_for(Wanted { schema: &schema, everything, places: &[], members: &["c"] }).then(|| {
        let mut values = Values::default();
        reader.give(&mut values);
        (values.sorted(), reader.member(0).map(str::to_owned))
    });
    let read = reader.tape(|tape| {
        let mut values = Values::default();
        schema.native(tape?, &mut values);
        Some((values.sorted(), crate::columns::root_text(tape?, "c").map(str::to_owned)))
    });
    [scanned, read]
}

fn check(text: &[u8], scans: bool) {
    for everything in [false, true] {
        let [scanned, read] = both(text, everything);
        assert_eq!(scanned.is_some(), scans, "{}", String::from_utf8_lossy(text));
        if scans {
            assert_eq!(scanned, read, "{}", String::from_utf8_lossy(text));
        }
    }
}

#[test]
fn plain_texts_are_scanned() {
    for text in [
        r#"{"a":"x","b":{"c":[1,true,null,"y"]},"z":[{},[],{"q":[[]]}]}"#,
        r#"{"a":{"b":{"c":5},"x":[1,2,{"y":"z"}]}}"#,
        r#"{"a":{"b":-7,"b":"again"},"a":[],"c":"last","c":"really"}"#,
        r#"{"a.b":"dots","a.b.c":{"x":1},"b.c":"x"}"#,
        r#"{"a":"quote \" and \\ \n \/","c":"x"}"#,
        " { \"a\" : [ 1 ,\n2\t] , \"ä\" : \"Ä\" , \"b\":\"x\"  } ",
        r#"{"z":1}"#,
        "[]",
        "{}",
        r#"[{"a":123456789012345678},{"a":0}]"#,
    ] {
        check(text.as_bytes(), true);
    }
}

#[test]
fn other_texts_are_left_to_the_tape() {
    for text in [
        "",
        "{",
        "}",
        "5",
        r#""a""#,
        "null",
        "{\"a\":1}x",
        "{\"a\":1}{}",
        "{\"a\":01}",
        "{\"a\":-0}",
        "{\"a\":1e5}",
        "{\"a\":1e400}",
        "{\"a\":NaN}",
        "{\"a\":tru}",
        "{\"a\":truex}",
        "{\"a\":1234567890123456789}",
        "{\"a\":1.5}",
        "{\"a\" \"b\"}",
        "{\"a\":\"b\"\"c\"}",
        "{\"a\":\"b\"c}",
        "{\"a\":1,}",
        "{,}",
        "[1,]",
        "[1 2]",
        "{\"a\":[}",
        "{\"a\":{]",
        "{\"a\":\"\\u0041\"}",
        "{\"z\":\"\\q\"}",
        "{\"a\":\"\\",
        "{\"a\":{ \"x\":1}}",
        "{\"a\":{\"x\":1.5}}",
        "{\"a\":{\"x\":\"\\/\"}}",
        "{\"a\":\"\u{1}\"}",
        "{a:1}",
        "{\"a\":'x'}",
        "{\"a\":1 2}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1.}",
    ] {
        check(text.as_bytes(), false);
    }
    check(b"{\"a\":\"\xff\"}", false);
}

#[test]
fn depth_is_limited_as_the_tape_limits_it() {
    for depth in 1..200 {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let text = format!("{}0{}", open.repeat(depth), close.repeat(depth));
            let [scanned, read] = both(text.as_bytes(), true);
            assert_eq!(scanned.is_some(), read.is_some(), "{depth}");
        }
    }
    let deep = "[".repeat(100_000);
    assert_eq!(both(deep.as_bytes(), true), [None, None]);
}

/// Texts that are nearly JSON.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => "[a-c]".prop_map(|key| format!("\"{key}\":")),
        3 => Just("\"a.b\":".to_owned()),
        4 => "[ab\\\\\"/nä ]{0,5}".prop_map(|text| format!("\"{text}\"")),
        4 => "-?[0-9]{1,20}",
        2 => "-?[0-9]{1,3}[.][0-9]{0,3}",
        1 => "[0-9][eE][+-]?[0-9]",
        3 => prop_oneof![Just("true"), Just("false"), Just("null"), Just("tru")].prop_map(str::to_owned),
        12 => prop_oneof![Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just(" "), Just("\n")].prop_map(str::to_owned),
        1 => Just("\\".to_owned()),
        1 => Just("\"".to_owned()),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

/// JSON, with one byte changed or none.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        (-1_000_i64..1_000).prop_map(Value::from),
        "[a-c\\\\\"/\n\tä]{0,6}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec(("[a-c](\\.[bc])?|ä", inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    (value, any::<bool>(), proptest::option::of((any::<prop::sample::Index>(), any::<u8>()))).prop_map(
        |(value, pretty, damage)| {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let mut text = text.unwrap().into_bytes();
            if let Some((at, byte)) = damage {
                let at = at.index(text.len());
                text[at] = byte;
            }
            text
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn scanning_agrees_with_the_tape(text in prop_oneof![nearly(), damaged()], everything in any::<bool>()) {
        let [scanned, read] = both(&text, everything);
        if scanned.is_some() {
            prop_assert_eq!(scanned, read, "{}", String::from_utf8_lossy(&text));
        }
    }
}
