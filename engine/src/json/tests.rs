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
    let walked = tokens::parse(text, max_depth);
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
