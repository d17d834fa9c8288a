//! Rules as YAML text and events as JSON, made so that they often have something to do with each other.

use proptest::prelude::*;
use serde_json::{Value, json};

/// The id of every generated rule.
pub(crate) const ID: &str = "00000000-0000-4000-8000-000000000001";

/// Fragments of values: few, so that rules and events meet.
const WORDS: &[&str] =
    &["", "a", "b", "ab", "aB", "A b", "a-b", " -a", "/b", "é", "É", "1", "12", "true", "a\\b", "a*", "b?a", "a\nb"];
/// The same as rules write them, wildcards and escapes among them.
const PATTERNS: &[&str] = &[
    "", "a", "b", "ab", "AB", "a b", "*", "a*", "*b", "*a*", "a*b", "?", "a?b", "?*", "a*b*", "*a?*", "é", "1", "12",
    "tr*", r"a\b", r"a\\b", r"a\*", r"a\\*", r"b\?a", r"*\**", r"a\\\*", " -a", "/b", "a-b",
];
const REGEXES: &[&str] = &["a", "^a", "b$", "^a.b$", "a|b", "^(a|b)+$", "[0-9]+", "^$", "A", "a.b", r"\\", "^[^a]*$"];
const FIELDS: &[&str] = &["a", "b", "c", "a.b", "b.c", "a.b.c"];

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(from)
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => pick(WORDS).prop_map(|text| json!(text)),
        2 => (pick(WORDS), pick(WORDS)).prop_map(|(left, right)| json!(format!("{left}{right}"))),
        2 => prop_oneof![Just(0_i64), Just(1), Just(12), Just(-1), Just(9_007_199_254_740_993)].prop_map(|number| json!(number)),
        1 => prop_oneof![Just(1.0), Just(1.5), Just(-0.5)].prop_map(|number: f64| json!(number)),
        1 => any::<bool>().prop_map(|truth| json!(truth)),
        1 => Just(Value::Null),
        1 => prop_oneof![Just("10.1.2.3"), Just("192.168.0.1"), Just("::ffff:10.0.0.1"), Just("fd00::1")].prop_map(|text| json!(text)),
        1 => prop_oneof![Just("YQ=="), Just("YWI="), Just("YgBhAA==")].prop_map(|text| json!(text)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 3, |inner| {
        let key = prop_oneof![Just("a"), Just("b"), Just("c"), Just("b.c")];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::vec((key, inner), 0..3).prop_map(|pairs| Value::Object(
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

/// An event.
pub(crate) fn event() -> impl Strategy<Value = Value> {
    let key = prop_oneof![4 => Just("a"), 4 => Just("b"), 2 => Just("c"), 1 => Just("a.b"), 1 => Just("d")];
    proptest::collection::vec((key, value()), 0..4)
        .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
}

fn quoted(text: &str) -> String {
    // Double quotes with JSON's escapes are YAML.
    json!(text).to_string()
}

fn strings() -> impl Strategy<Value = Vec<String>> {
    let one = prop_oneof![
        5 => pick(PATTERNS).prop_map(str::to_owned),
        1 => (pick(PATTERNS), pick(PATTERNS)).prop_map(|(left, right)| format!("{left}{right}")),
    ];
    proptest::collection::vec(one.prop_map(|text| quoted(&text)), 1..4)
}

fn list(values: &[String]) -> String {
    if values.len() == 1 { values[0].clone() } else { format!("[{}]", values.join(", ")) }
}

/// `field|modifiers: values`.
fn item() -> impl Strategy<Value = (String, String)> {
    let affix = prop_oneof![3 => Just(""), 3 => Just("|contains"), 1 => Just("|startswith"), 1 => Just("|endswith")];
    let neq = prop_oneof![5 => Just(""), 1 => Just("|neq")];
    let cased = prop_oneof![4 => Just(""), 1 => Just("|cased")];
    let plain = prop_oneof![
        3 => proptest::sample::select(&["0", "1", "12", "-1", "1.5", "9007199254740993", "9007199254740992", "true", "false", "null", "''"][..])
            .prop_map(|text| vec![text.to_owned()]),
        1 => Just(vec!["1".to_owned(), "a*".to_owned(), "true".to_owned()]),
    ];
    let regexes = proptest::collection::vec(pick(REGEXES).prop_map(quoted), 1..3);
    let flags = prop_oneof![3 => Just(""), 1 => Just("|i"), 1 => Just("|s"), 1 => Just("|m|i")];
    let networks = proptest::collection::vec(
        proptest::sample::select(&["10.0.0.0/8", "192.168.0.0/16", "'fd00::/8'", "0.0.0.0/0"][..])
            .prop_map(str::to_owned),
        1..3,
    );
    let compare = proptest::sample::select(&["|lt", "|lte", "|gt", "|gte"][..]);
    let number = proptest::sample::select(&["0", "1", "12", "1.5", "-1", "9007199254740992"][..]);
    let encoders = proptest::sample::select(
        &["|base64", "|base64|contains", "|base64offset|contains", "|wide|base64", "|wide|base64offset|contains"][..],
    );
    let literal =
        proptest::collection::vec(proptest::sample::select(&["a", "ab", "b"][..]).prop_map(str::to_owned), 1..3);
    let windash =
        proptest::collection::vec(proptest::sample::select(&[" -a", "/b", "a-b", "-a*"][..]).prop_map(quoted), 1..3);
    prop_oneof![
        10 => (affix.clone(), cased, neq.clone(), any::<bool>(), strings()).prop_map(|(affix, cased, neq, all, values)| {
            let all = if all && values.len() > 1 { "|all" } else { "" };
            (format!("{affix}{cased}{all}{neq}"), list(&values))
        }),
        4 => (neq.clone(), plain).prop_map(|(neq, values)| (neq.to_owned(), list(&values))),
        3 => (flags, neq.clone(), any::<bool>(), regexes).prop_map(|(flags, neq, all, values)| {
            let all = if all && values.len() > 1 { "|all" } else { "" };
            (format!("|re{flags}{all}{neq}"), list(&values))
        }),
        2 => (neq.clone(), networks).prop_map(|(neq, values)| (format!("|cidr{neq}"), list(&values))),
        2 => (compare, number).prop_map(|(compare, number)| (compare.to_owned(), number.to_owned())),
        1 => any::<bool>().prop_map(|present| ("|exists".to_owned(), present.to_string())),
        2 => (affix, neq, pick(FIELDS)).prop_map(|(affix, neq, other)| (format!("|fieldref{affix}{neq}"), other.to_owned())),
        1 => (encoders, literal).prop_map(|(encoders, values)| (encoders.to_owned(), list(&values))),
        1 => windash.prop_map(|values| ("|windash|contains".to_owned(), list(&values))),
    ]
}

fn search() -> impl Strategy<Value = String> {
    let map = proptest::collection::vec((pick(FIELDS), item()), 1..4)
        .prop_map(|items| {
            let mut lines: Vec<String> = Vec::new();
            for (field, (modifiers, values)) in items {
                let key = format!("\"{field}{modifiers}\": ");
                if !lines.iter().any(|line| line.starts_with(&key)) {
                    lines.push(format!("{key}{values}"));
                }
            }
            format!("{{{}}}", lines.join(", "))
        })
        .boxed();
    let keyword = proptest::sample::select(&["\"a\"", "\"b*\"", "1", "\"A?\"", "\"a\\\\*\"", "\"é\""][..]);
    let keywords = proptest::collection::vec(keyword, 1..3).prop_map(|words| format!("[{}]", words.join(", ")));
    let every = Just("{\"|all\": [\"a\", \"b\"]}".to_owned());
    prop_oneof![
        8 => map.clone(),
        2 => proptest::collection::vec(map, 1..3).prop_map(|maps| format!("[{}]", maps.join(", "))),
        1 => keywords,
        1 => every,
    ]
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        6 => proptest::sample::select(&["sel_a", "sel_b", "other", "_hidden"][..]).prop_map(str::to_owned),
        2 => proptest::sample::select(&["1 of sel_*", "all of sel_*", "1 of them", "all of them", "any of *e*", "1 of _*"][..])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 10, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} and {right}")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} or {right}")),
            inner.clone().prop_map(|inner| format!("not {inner}")),
            inner.prop_map(|inner| format!("({inner})")),
        ]
    })
}

/// A rule.
pub(crate) fn rule() -> impl Strategy<Value = String> {
    let conditions = proptest::collection::vec(condition().prop_map(|text| quoted(&text)), 1..3);
    (search(), search(), search(), search(), conditions).prop_map(|(one, two, three, four, conditions)| {
        format!(
            "title: generated\nid: {ID}\nlogsource: {{category: x}}\ndetection:\n    sel_a: {one}\n    sel_b: {two}\n    \
             other: {three}\n    _hidden: {four}\n    condition: {}\n",
            list(&conditions)
        )
    })
}
