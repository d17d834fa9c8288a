//! `sigma-rust`: the match cases of the conformance table, and generated rules over what both engines understand.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sigma_rust::{event_from_json, rule_from_yaml};

use super::by_engine;
use super::disagreements::DISAGREEMENTS;
use crate::harness::table::{Case, tables};

/// Whether it gets a case right; `None` where it cannot be asked.
fn agrees(case: &Case) -> Option<bool> {
    // Lists, filters and correlations are not its business.
    if !case.lists.is_empty() || case.refuse.is_some() || case.firings.is_some() || case.rules.contains("\n---") {
        return None;
    }
    let right = || {
        let Ok(rule) = rule_from_yaml(&case.rules) else { return false };
        case.events
            .iter()
            .all(|given| event_from_json(&given.event).is_ok_and(|event| Some(rule.is_match(&event)) == given.matches))
    };
    // A panic of its is a disagreement.
    Some(std::panic::catch_unwind(right).unwrap_or(false))
}

#[test]
fn the_disagreements_with_sigma_rust_are_known() {
    let mut listed: BTreeSet<&str> = DISAGREEMENTS.iter().flat_map(|(_, ids)| *ids).copied().collect();
    let known = listed.len();
    let (mut asked, mut wrong) = (0, Vec::new());
    for case in tables().iter().flat_map(|table| &table.cases) {
        let Some(agrees) = agrees(case) else { continue };
        asked += 1;
        match (agrees, listed.remove(case.id.as_str())) {
            (true, true) => wrong.push(format!("{}: agrees, and is listed", case.id)),
            (false, false) => wrong.push(format!("{}: differs, and is not listed ({})", case.id, case.decided_by)),
            (true, false) | (false, true) => {}
        }
    }
    wrong.extend(listed.into_iter().map(|id| format!("{id}: no such case")));
    eprintln!(
        "sigma-rust answers {} of {asked} match cases as the table does; {known} known disagreements:",
        asked - known
    );
    for (sentence, ids) in DISAGREEMENTS {
        eprintln!("{:>4}  {sentence}", ids.len());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(from)
}

/// Rules of what both understand alike: text fields that are there, plain values, patterns with one star, conditions.
fn shared_rule() -> impl Strategy<Value = String> {
    let values = proptest::collection::vec(pick(&["a", "B", "ab", "a*", "*b", "*a*", "x?", "a b", "ba"]), 1..3);
    let modifiers = pick(&["", "|contains", "|startswith", "|endswith", "|contains|cased", "|endswith|cased"]);
    let item = (pick(&["one", "two", "three"]), modifiers, any::<bool>(), values).prop_map(
        |(field, modifiers, all, values)| {
            let all = if all && values.len() > 1 { "|all" } else { "" };
            let values: Vec<_> = values.iter().map(|value| format!("'{value}'")).collect();
            format!("'{field}{modifiers}{all}': [{}]", values.join(", "))
        },
    );
    let regex = (pick(&["one", "two"]), pick(&["^a", "b$", "a.b", "^(a|b)+$", "[a-b]x"]))
        .prop_map(|(field, regex)| format!("'{field}|re': '{regex}'"));
    let keywords = pick(&["[a]", "['x*', b]"]).prop_map(str::to_owned);
    let item = prop_oneof![6 => item, 1 => regex];
    let map = proptest::collection::btree_set(item, 1..3)
        .prop_map(|items| format!("{{{}}}", items.into_iter().collect::<Vec<_>>().join(", ")));
    let map = map.prop_filter("a key may stand once", |map| {
        let mut keys: Vec<_> =
            map.split("': ").map(|part| part.rsplit('\'').next().unwrap_or_default().to_owned()).collect();
        let before = keys.len();
        keys.sort();
        keys.dedup();
        keys.len() == before
    });
    let search = prop_oneof![
        5 => map.clone(),
        1 => proptest::collection::vec(map, 1..3).prop_map(|maps| format!("[{}]", maps.join(", "))),
    ];
    let search = prop_oneof![9 => search, 0 => keywords];
    let condition = pick(&[
        "sel_a",
        "sel_a and sel_b",
        "sel_a or sel_b and not other",
        "not (sel_a or sel_b) and other",
        "1 of sel_*",
        "all of sel_* or other",
        "all of them",
        "1 of them and not sel_a",
        "not 1 of sel_* and not other",
    ]);
    (search.clone(), search.clone(), search, condition).prop_map(|(one, two, three, condition)| {
        format!(
            "title: shared\nid: 00000000-0000-4000-8000-000000000001\nlogsource: {{category: x}}\ndetection:\n    sel_a: {one}\n    \
             sel_b: {two}\n    other: {three}\n    condition: {condition}\n"
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_agree_on_what_both_understand(
        rule in shared_rule(),
        events in proptest::collection::vec([pick(&["a", "b", "AB", "abba", "xa", "a b", "ba ab", "axb"]), pick(&["a", "Bx", "ab", "xb", "ba"]), pick(&["A", "b", "aab", "x"])], 10),
    ) {
        let texts: Vec<String> = events.iter().map(|[one, two, three]| serde_json::json!({"one": one, "two": two, "three": three}).to_string()).collect();
        let ours = by_engine(&rule, &texts).unwrap();
        let other = rule_from_yaml(&rule).unwrap();
        for (text, ours) in texts.iter().zip(ours) {
            prop_assert_eq!(ours, other.is_match(&event_from_json(text).unwrap()), "{}\n{}", rule, text);
        }
    }
}
