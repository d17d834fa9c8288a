//! Paths, limits, and that nothing hostile panics.

use proptest::prelude::*;

use super::*;

fn texts(json: &str, path: &str) -> Vec<String> {
    let json = Json::parse(json.as_bytes()).unwrap();
    json.root().lookup(path).into_iter().map(|value| value.text().into_owned()).collect()
}

#[test]
fn sigma_paths() {
    let table: &[(&str, &str, &[&str])] = &[
        (r#"{"a":{"b":1}}"#, "a.b", &["1"]),
        (r#"{"a.b":1}"#, "a.b", &["1"]),
        (r#"{"a.b":{"c.d":true}}"#, "a.b.c.d", &["true"]),
        (r#"{"@timestamp":"t","evt.time":"u"}"#, "@timestamp", &["t"]),
        (r#"{"evt":{"time":"n"},"evt.time":"u"}"#, "evt.time", &["n", "u"]),
        (r#"{"a":[{"b":1},{"b":[2,3]},{"c":4},5]}"#, "a.b", &["1", "2", "3"]),
        (r#"{"a":[[1],[2,[3]]]}"#, "a", &["1", "2", "3"]),
        (r#"{"a":{"b":{"c":"x\"y"}}}"#, "a.b", &[r#"{"c":"x\"y"}"#]),
        (r#"{"a":[]}"#, "a", &["[]"]),
        (r#"{"a":[]}"#, "a.b", &[]),
        (r#"{"a":null}"#, "a", &["null"]),
        (r#"{"ab":1}"#, "a", &[]),
        (r#"{"":{"x":1}}"#, ".x", &["1"]),
        (r#"[{"a":1},{"a":2}]"#, "a", &["1", "2"]),
        (r#"{"a":1.0,"b":18446744073709551615}"#, "a", &["1.0"]),
        (r#"{"a":1.0,"b":18446744073709551615}"#, "b", &["18446744073709551615"]),
    ];
    for (json, path, expected) in table {
        assert_eq!(texts(json, path), *expected, "{path} in {json}");
    }
}

#[test]
fn typed_access() {
    let json =
        Json::parse(br#"{"s":"x","n":-3,"b":true,"z":null,"a":[1,"two"],"o":{"k":{"d":"deep"}},"s":"y"}"#).unwrap();
    assert_eq!(json.str_at(&["s"]), Some("y"), "the last of repeated keys");
    assert_eq!(json.at(&["n"]).and_then(Value::as_i64), Some(-3));
    assert_eq!(json.at(&["n"]).and_then(Value::as_u64), None);
    assert_eq!(json.at(&["b"]).and_then(Value::as_bool), Some(true));
    assert!(json.at(&["z"]).is_some_and(Value::is_null));
    assert_eq!(json.at(&["a"]).map(|value| value.items().count()), Some(2));
    assert_eq!(json.str_at(&["o", "k", "d"]), Some("deep"));
    assert!(json.at(&["o", "missing"]).is_none());
    assert!(json.at(&["s", "x"]).is_none());
}

#[test]
fn limits_and_errors() {
    let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    assert!(Json::parse(&deep(DEPTH_MAX)).is_ok());
    assert!(matches!(Json::parse(&deep(DEPTH_MAX + 1)), Err(JsonError::Depth(DEPTH_MAX))));
    assert!(matches!(Json::parse(&deep(1_000_000)), Err(JsonError::Depth(_))));
    assert!(check_depth(br#"{"a":"[[[[\"[[["}"#, 1).is_ok());
    for bad in ["", "{", "{\"a\":}", "nul", "{} x", "{\"a\":\"\u{1}\"}", "[1,]", "\"\\ud800\""] {
        assert!(matches!(Json::parse(bad.as_bytes()), Err(JsonError::Syntax { .. })), "{bad:?}");
    }
    assert!(Json::parse(b"{\"a\":\"\xff\"}").is_err());
}

proptest! {
    #[test]
    fn compact_text_is_what_serde_json_writes(value in arbitrary_json()) {
        let expected = serde_json::to_string(&value).unwrap();
        let spaced = serde_json::to_string_pretty(&value).unwrap();
        let json = Json::parse(spaced.as_bytes()).unwrap();
        prop_assert_eq!(json.root().compact(), expected);
    }

    #[test]
    fn tokens_are_as_the_tape_for_any_value(value in arbitrary_json()) {
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            assert_as_tape(text.as_bytes(), DEPTH_MAX);
        }
    }

    #[test]
    fn tokens_are_as_the_tape_for_anything_like_json(text in r#"[\[{]("[a\\"u0é
]{0,6}"|[-0-9.eE]{1,22}|[\[\]{},: ]|true|null){0,9}[\]}]"#) {
        assert_as_tape(text.as_bytes(), 4);
    }

    #[test]
    fn tokens_of_long_strings_are_as_the_tape(
        strings in proptest::collection::vec(r#"[a-zA-Z0-9+/=é ]{400,900}(\\(["\\/bfnrtx]|u00[0-9a-f]{2}))?[a-z]{0,9}"#, 2..8),
        at in any::<proptest::sample::Index>(),
        odd in r#"[\[\]{},:"\\ 0-9a-z\x01\n-]{0,3}"#,
    ) {
        let members: Vec<String> = strings.iter().map(|text| format!(r#"{{"k":"{text}", "n": -1.5,"t":[true,null]}}"#)).collect();
        let mut text = format!("[{}]", members.join(","));
        assert_as_tape(text.as_bytes(), 8);
        // Nearly valid ones, too.
        let mut at = at.index(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.insert_str(at, &odd);
        assert_as_tape(text.as_bytes(), 8);
        text.truncate(at);
        assert_as_tape(text.as_bytes(), 8);
    }

    /// What is left out is left out, and makes no difference to what is read: nor does it let pass what is not valid.
    #[test]
    fn parts_left_out_are_valid(
        value in arbitrary_json(),
        beside in arbitrary_json(),
        at in any::<proptest::sample::Index>(),
        odd in r#"([\[\]{},:"\\ 0-9a-z\x01\n-]|\\u00|\\ud8e3|1e5){0,2}"#,
    ) {
        let whole = |part: &str| format!(r#"{{"a":[{beside},{{"left":{part},"b":{beside}}}],"left":{part},"c":1}}"#);
        let json = Json::parse_without(whole(&value.to_string()).as_bytes(), 64, &["out", "left"]).unwrap();
        let out = if value.is_object() || value.is_array() { "null".to_owned() } else { value.to_string() };
        let full = Json::parse(whole(&value.to_string()).as_bytes()).unwrap().root().compact();
        let short = Json::parse(whole(&out).as_bytes()).unwrap().root().compact();
        // All is there where the tape had to be read.
        let seen = json.root().compact();
        prop_assert!(seen == short || seen == full, "{}", seen);
        let mut part = value.to_string();
        let mut at = at.index(part.len() + 1);
        while !part.is_char_boundary(at) {
            at -= 1;
        }
        part.insert_str(at, &odd);
        for depth in [4, 64] {
            let text = whole(&part);
            let (without, with) = (Json::parse_without(text.as_bytes(), depth, &["left"]), Json::parse_within(text.as_bytes(), depth));
            prop_assert_eq!(without.is_ok(), with.is_ok(), "{}", text);
        }
    }

    /// Each step of the search, and what is left over after each.
    #[test]
    fn the_end_of_plain_text_is_found_wherever_it_is(
        plain in proptest::collection::vec(prop_oneof![3 => Just(b'x'), 1 => any::<u8>()], 0..700),
        at in any::<proptest::sample::Index>(),
        odd in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let is_end = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
        let mut bytes: Vec<u8> = plain.into_iter().map(|byte| if is_end(&byte) { b'z' } else { byte }).collect();
        let at = at.index(bytes.len() + 1);
        bytes.splice(at..at, odd);
        let mut plain = strings::PlainText::of(&bytes);
        for from in (0..bytes.len().min(20)).chain([at, bytes.len()]) {
            let expected = bytes[from..].iter().position(is_end).map_or(bytes.len(), |within| from + within);
            prop_assert_eq!(plain.end(from), expected);
            prop_assert_eq!(strings::PlainText::of(&bytes).end(from), expected);
            prop_assert_eq!(strings::is_plain(&bytes[from..]), expected == bytes.len());
        }
        prop_assert_eq!(plain.end(bytes.len() + 2), bytes.len() + 2);
    }

    /// A text that stays where it is reads as its copy does.
    #[test]
    fn a_text_that_is_borrowed_is_the_same(value in arbitrary_json(), odd in r#"[\[\]{},:"\\ 0-9a-z-]{0,2}"#) {
        let text = format!("{{\"a\":{value}}}{odd}");
        match (Parsed::of(text.as_bytes(), 64, &[]), Json::parse_within(text.as_bytes(), 64)) {
            (Ok(borrowed), Ok(copied)) => prop_assert_eq!(borrowed.root().compact(), copied.root().compact()),
            (borrowed, copied) => prop_assert_eq!(borrowed.is_ok(), copied.is_ok()),
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(json) = Json::parse(&bytes) {
            let _ = (json.root().compact(), json.root().lookup("a.b"));
        }
    }
}

fn arbitrary_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        "\\PC{0,12}".prop_map(Into::into),
        "[\u{0}-\u{7f}]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::btree_map("\\PC{0,6}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn parts_are_left_out_at_any_depth() {
    let json = Json::parse_without(
        br#"{"left":{"a":[1,"\n",{"left":2}]},"b":[{"left":[]},{"left":"text"},{"c":{"left":[{},[[3]]],"d":4}}]}"#,
        64,
        &["left"],
    );
    let expected = r#"{"left":null,"b":[{"left":null},{"left":"text"},{"c":{"left":null,"d":4}}]}"#;
    assert_eq!(json.unwrap().root().compact(), expected);
    assert!(Json::parse_without(br#"{"left":[1,]}"#, 64, &["left"]).is_err());
    assert!(matches!(Json::parse_without(br#"{"left":[[1]]}"#, 2, &["left"]), Err(JsonError::Depth(2))));
}

#[test]
fn texts_of_long_strings_that_are_not_whole_are_left_to_the_tape() {
    let long = "x".repeat(2000);
    for left in [
        // Many tokens, at once or after a while.
        r#"["a","#.repeat(900),
        format!(r#"["{long}",{}1]"#, "\"\",".repeat(900)),
        // Line breaks, outside of strings and in one.
        format!("[\n\"{long}\"]"),
        format!("[\"{long}\u{1}\"]"),
        // No end.
        format!("[\"{long}"),
        format!("[\"{long}\\"),
        format!("[\"{long}\\\""),
        format!("[\"{long}\", 12"),
        "[]".to_owned(),
    ] {
        assert!(tokens::parse(left.as_bytes(), 8, &[]).is_none_or(|_| left.ends_with(']')), "{left}");
    }
    let bytes = [b"[\"", long.as_bytes(), b"\xff\"]"].concat();
    assert!(Json::parse(&bytes).is_err());
}

/// As a reader sees it, whichever way it was read.
fn seen(json: &Json) -> String {
    let one = |at| {
        let value = json_value(json, at);
        format!("{:?} {:?} {:?} {:?}", value.scalar(), value.as_i64(), value.as_u64(), value.as_f64())
    };
    let all: Vec<String> = (0..json.nodes.len()).map(one).collect();
    format!("{} {all:?}", json.root().compact())
}

fn json_value(json: &Json, at: usize) -> Value<'_> {
    Value { json, at }
}

/// What the walk over tokens reads is what the tape has, and nothing is read that the tape refuses.
#[track_caller]
fn assert_as_tape(text: &[u8], max_depth: usize) -> bool {
    let walked = tokens::parse(text, max_depth, &[]);
    let taped = Json::parse_by_tape(text, max_depth);
    if let Some(walked) = &walked {
        let taped = taped.unwrap_or_else(|error| panic!("{:?}: {error}", String::from_utf8_lossy(text)));
        assert_eq!(seen(walked), seen(&taped), "{:?}", String::from_utf8_lossy(text));
    }
    walked.is_some()
}

#[test]
fn tokens_give_what_the_tape_gives() {
    for text in [
        r#"{"a" : [ 1 , -2, 0, 0.5, -0.0, 123456789012345678, 12.50, "x\"y\\" , {} , [ ] , [[]], null,true ,false ] }"#,
        r#"{"\u0041\n":"\u00e9\u2028\/\b\f\r\t","é":"日本 \\u0041","":""}"#,
        "[1234567890123456789,9999999999999999999,-9223372036854775807,1234567890123456789.5]",
        "[\"a\"\n,\t\"b\" ]\r\n",
        r#"{"a":{"b":{"c":[{"d":1},{"d":2}]}},"a":3}"#,
    ] {
        assert!(assert_as_tape(text.as_bytes(), 64), "{text}");
    }
    for left in [
        r#"["\ud83d\ude00"]"#,
        "[1e3]",
        "[-0]",
        "[12345678901234567890]",
        "[-9223372036854775808]",
        "1",
        "\"x\"",
        "",
        "[1,]",
        "[01]",
        "[1.]",
        "[tru]",
        "[truex]",
        r#"{"a"}"#,
        r#"{"a":1,}"#,
        r#"{1:2}"#,
        r#"["\x"]"#,
        r#"["\u00"]"#,
        r#"["\u+041"]"#,
        "[1] 2",
        "[1]]",
        "[}",
        "[",
        r#"["a" "b"]"#,
        "[\"a\u{1}\"]",
    ] {
        assert!(!assert_as_tape(left.as_bytes(), 64), "{left}");
    }
    let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    assert!(assert_as_tape(&deep(8), 8) && !assert_as_tape(&deep(9), 8));
}
