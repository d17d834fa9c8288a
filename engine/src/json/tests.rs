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
