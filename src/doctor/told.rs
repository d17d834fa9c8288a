//! What is kept in two places is told alike in both: findings, incident steps, deliveries, windows and dead letters by store and lake,
//! sources and tokens by the registry and the control records it is folded from.

use std::collections::BTreeMap;

use pipeproof_record::alike;
use serde_json::Value;

use super::{Check, Looked};
use crate::node::PARTITION;
use crate::registry::Registry;
use crate::roles::fold_registry;

/// The lake tells every finding once, and as the store does.
pub(super) fn findings(looked: &Looked<'_>) -> Check {
    let check = "findings in the lake";
    // Both are in order and the store has each once: where they agree one by one, none is there twice.
    match looked.handle.block_on(looked.lake.differing_findings(&looked.shared.store)) {
        Ok((count, differing)) => {
            let problems: Vec<_> =
                differing.iter().map(|id| format!("finding {id} is not told alike by store and lake")).collect();
            Check::of(check, &problems, format!("{count} findings, each once, as in the store"))
        }
        Err(error) => Check::of(check, &[crate::chain(&error)], String::new()),
    }
}

pub(super) fn feeds(looked: &Looked<'_>) -> Check {
    let check = "feeds in the lake";
    match looked.handle.block_on(alike::feeds(looked.lake, &looked.shared.store)) {
        Ok(tables) => {
            let problems: Vec<String> = tables.values().flat_map(|compared| compared.differing.clone()).collect();
            let counts: Vec<_> =
                tables.iter().map(|(table, compared)| format!("{} `{table}`", compared.rows)).collect();
            Check::of(check, &problems, format!("as in the store: rows of {}", counts.join(", ")))
        }
        Err(error) => Check::of(check, &[crate::chain(&error)], String::new()),
    }
}

pub(super) fn dead_letters(looked: &Looked<'_>) -> Check {
    let check = "dead letters";
    let redacted = looked.redacted.keys().copied().collect();
    let compared = alike::dead_letters(looked.lake, &looked.shared.store, (PARTITION, looked.archived), &redacted);
    match looked.handle.block_on(compared) {
        Ok(compared) => {
            Check::of(check, &compared.differing, format!("{} are those of the lake's records", compared.rows))
        }
        Err(error) => Check::of(check, &[crate::chain(&error)], String::new()),
    }
}

/// Sources, tokens and everything else that decides are what the control records say, read from the first one on.
pub(super) fn registry(looked: &Looked<'_>) -> Check {
    let check = "registry";
    let kept = looked.shared.registry().clone();
    let again = fold_registry(Registry::default(), &looked.shared.log, looked.lake, Some(kept.position));
    let again = match again {
        Ok(again) => again,
        Err(error) => return Check::of(check, &[crate::chain(&error)], String::new()),
    };
    let (kept, again) = (serde_json::to_value(&kept), serde_json::to_value(&again));
    let problems = match (kept, again) {
        (Ok(kept), Ok(again)) => differing(&kept, &again),
        (kept, again) => kept.err().into_iter().chain(again.err()).map(|error| error.to_string()).collect(),
    };
    Check::of(check, &problems, "it is what the control records say".to_owned())
}

/// Where two registries differ: the part, and the name in it.
fn differing(kept: &Value, again: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let members = |value: &Value| value.as_object().unwrap_or(&empty).clone();
    let (kept, again) = (members(kept), members(again));
    let mut problems = Vec::new();
    let parts: BTreeMap<&String, ()> = kept.keys().chain(again.keys()).map(|part| (part, ())).collect();
    for part in parts.into_keys() {
        let (one, other) = (kept.get(part), again.get(part));
        if one == other {
            continue;
        }
        match (one.and_then(Value::as_object), other.and_then(Value::as_object)) {
            (Some(one), Some(other)) => {
                let names: BTreeMap<&String, ()> = one.keys().chain(other.keys()).map(|name| (name, ())).collect();
                let differ = names.into_keys().filter(|name| one.get(*name) != other.get(*name));
                // Names alone: what differs may be the hash of a token.
                problems
                    .extend(differ.map(|name| format!("`{name}` of its {part} is not what the control records say")));
            }
            _ => problems.push(format!("its {part} is not what the control records say")),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::differing;

    #[test]
    fn what_differs_is_named_without_its_content() {
        let kept = json!({"position": 3, "tokens": {"a": {"hash": "x"}, "b": 1}, "sources": {}});
        assert_eq!(differing(&kept, &kept), [] as [&str; 0]);
        let again = json!({"position": 4, "tokens": {"a": {"hash": "y"}, "c": 2}, "sources": {}});
        assert_eq!(
            differing(&kept, &again),
            [
                "its position is not what the control records say",
                "`a` of its tokens is not what the control records say",
                "`b` of its tokens is not what the control records say",
                "`c` of its tokens is not what the control records say",
            ]
        );
    }
}
