//! Members looked up whatever the case of their key and with or without underscores: Azure writes `resultType`,
//! `ResultType` and, in its libraries' form, `result_type`; Gatekeeper logs `constraint_kind` and exports `kind`.

use engine::json::Value;
use pipeproof_engine as engine;

/// The member whose key is `key`, given in lower case without underscores.
pub(super) fn get<'a>(value: Value<'a>, key: &str) -> Option<Value<'a>> {
    value.find(key.len(), |written| is_same(written, key.as_bytes()))
}

/// Follows keys from object to object.
pub(super) fn at<'a>(value: Value<'a>, path: &[&str]) -> Option<Value<'a>> {
    path.iter().try_fold(value, |value, key| get(value, key))
}

/// The text at a path that is not empty. A value with a translation, `{"value": …, "localizedValue": …}`, is its value.
pub(super) fn text<'a>(value: Value<'a>, path: &[&str]) -> Option<&'a str> {
    let found = at(value, path)?;
    found.as_str().or_else(|| get(found, "value")?.as_str()).filter(|text| !text.is_empty())
}

/// A number or text at a path as text.
pub(super) fn scalar(value: Value<'_>, path: &[&str]) -> Option<String> {
    let found = at(value, path)?;
    let found = found.scalar().or_else(|| get(found, "value")?.scalar())?;
    Some(found.into_owned()).filter(|text| !text.is_empty())
}

/// A whole number at a path, written as such or as text.
pub(super) fn int(value: Value<'_>, path: &[&str]) -> Option<i64> {
    scalar(value, path)?.parse().ok()
}

#[inline]
fn is_same(written: &[u8], key: &[u8]) -> bool {
    // Most keys differ in how they begin or end; an underscore is never a letter of either case.
    let letter = |byte: Option<&u8>| byte.map(|byte| byte | 0x20);
    if (letter(written.first()) != letter(key.first()) && !written.starts_with(b"_"))
        || (letter(written.last()) != letter(key.last()) && !written.ends_with(b"_"))
    {
        return false;
    }
    if written.len() == key.len() {
        return written.eq_ignore_ascii_case(key);
    }
    written.iter().filter(|byte| **byte != b'_').map(u8::to_ascii_lowercase).eq(key.iter().copied())
}

#[cfg(test)]
mod tests {
    use engine::json::Json;

    use super::*;

    #[test]
    fn keys_of_any_case() {
        let json = Json::parse(
            br#"{"Result_Type": 0, "operation_name": {"value": "x", "localized_value": "y"}, "A": {"b_C": ""}}"#,
        );
        let json = json.unwrap();
        let root = json.root();
        assert_eq!((int(root, &["resulttype"]), text(root, &["operationname"])), (Some(0), Some("x")));
        assert!(
            at(root, &["a", "bc"]).is_some() && text(root, &["a", "bc"]).is_none() && get(root, "result").is_none()
        );
    }
}
