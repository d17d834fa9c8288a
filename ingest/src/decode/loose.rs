//! Members looked up whatever the case of their key and with or without underscores: Azure writes `resultType`,
//! `ResultType` and, in its libraries' form, `result_type`; Gatekeeper logs `constraint_kind` and exports `kind`.

use std::borrow::Cow;

use engine::json::Value;
use pipeproof_engine as engine;

/// What members are looked up in: an object, or the [`Members`] of one that is asked for many.
pub(super) trait Object<'a>: Copy {
    /// The last member whose key is `key`, given in lower case without underscores.
    fn member(self, key: &str) -> Option<Value<'a>>;
}

impl<'a> Object<'a> for Value<'a> {
    fn member(self, key: &str) -> Option<Value<'a>> {
        self.find(key.len(), |written| is_same(written, key.as_bytes()))
    }
}

/// The members of an object with what tells most keys apart, so that each is looked at once and not for every lookup.
#[derive(Debug)]
pub(super) struct Members<'a> {
    object: Value<'a>,
    members: Vec<([u8; 2], &'a str, Value<'a>)>,
}

impl<'a> Members<'a> {
    pub(super) fn of(object: Value<'a>) -> Self {
        let members = object.entries().map(|(key, value)| (ends(key.as_bytes()), key, value));
        let mut all = Vec::with_capacity(USUAL);
        all.extend(members);
        Self { object, members: all }
    }

    pub(super) const fn object(&self) -> Value<'a> {
        self.object
    }
}

impl<'a> Object<'a> for &Members<'a> {
    fn member(self, key: &str) -> Option<Value<'a>> {
        let ends = ends(key.as_bytes());
        let fits = |written: &str| is_same(written.as_bytes(), key.as_bytes());
        let mut fitting = self.members.iter().rev().filter(|(own, written, _)| *own == ends && fits(written));
        fitting.next().map(|(_, _, value)| *value)
    }
}

/// What most objects do not have more members than.
const USUAL: usize = 24;

/// The member whose key is `key`, given in lower case without underscores.
pub(super) fn get<'a>(object: impl Object<'a>, key: &str) -> Option<Value<'a>> {
    object.member(key)
}

/// Follows keys from object to object.
pub(super) fn at<'a>(object: impl Object<'a>, path: &[&str]) -> Option<Value<'a>> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(object.member(first)?, |value, key| get(value, key))
}

/// The text at a path that is not empty. A value with a translation, `{"value": …, "localizedValue": …}`, is its value.
pub(super) fn text<'a>(object: impl Object<'a>, path: &[&str]) -> Option<&'a str> {
    let found = at(object, path)?;
    found.as_str().or_else(|| get(found, "value")?.as_str()).filter(|text| !text.is_empty())
}

/// A number or text at a path as text.
pub(super) fn scalar<'a>(object: impl Object<'a>, path: &[&str]) -> Option<Cow<'a, str>> {
    let found = at(object, path)?;
    found.scalar().or_else(|| get(found, "value")?.scalar()).filter(|text| !text.is_empty())
}

/// A whole number at a path, written as such or as text.
pub(super) fn int<'a>(object: impl Object<'a>, path: &[&str]) -> Option<i64> {
    scalar(object, path)?.parse().ok()
}

/// The first and the last letter of a key in lower case, as far as they tell keys apart that are not the same.
#[inline]
fn ends(key: &[u8]) -> [u8; 2] {
    let letter = |byte: Option<&u8>| byte.map_or(0, u8::to_ascii_lowercase);
    let is_letter = |byte: &&u8| **byte != b'_';
    [letter(key.iter().find(is_letter)), letter(key.iter().rfind(is_letter))]
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

    #[test]
    fn members_are_found_as_in_the_object() {
        let json = Json::parse(
            br#"{"Result_Type": 0, "resulttype": 1, "_a_": 2, "": 3, "__": 4, "a\u00e9": 5, "B": 6, "b": {"c_": 7}, "K": 8}"#,
        );
        let json = json.unwrap();
        let members = Members::of(json.root());
        for key in ["resulttype", "a", "", "b", "k", "a\u{e9}", "c", "result", "typeresult"] {
            let plain = get(json.root(), key).map(Value::compact);
            assert_eq!(get(&members, key).map(Value::compact), plain, "{key}");
        }
        assert_eq!((int(&members, &["resulttype"]), int(&members, &["b", "c"])), (Some(1), Some(7)));
        assert_eq!((int(&members, &["a"]), get(&members, "c").is_none()), (Some(2), true));
    }
}
