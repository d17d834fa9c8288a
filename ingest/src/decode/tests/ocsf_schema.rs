//! Checks an object against facts of the OCSF schema: required attributes, types, enumerations, constraints, and that
//! nothing is written that the class does not have. The facts are in `tests/fixtures/ocsf/schema-1.8.0.json`.

use std::sync::LazyLock;

use serde_json::{Map, Value};

static FACTS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../tests/fixtures/ocsf/schema-1.8.0.json")).unwrap());

/// What is wrong with an event's object; nothing if it is valid.
pub(super) fn faults(event: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let class = event["class_uid"].to_string();
    let Some(facts) = FACTS["classes"].get(&class) else { return vec![format!("no class {class}")] };
    let profiles: Vec<&str> =
        event["metadata"]["profiles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    check(event, facts, &profiles, "", &mut faults);
    if event["class_name"] != facts["name"] {
        faults.push(format!("class_name is {}, not {}", event["class_name"], facts["name"]));
    }
    if event["category_uid"] != facts["category"] {
        faults.push(format!("category_uid is {}", event["category_uid"]));
    }
    let (class, activity) = (event["class_uid"].as_i64(), event["activity_id"].as_i64());
    if class.zip(activity).map(|(class, activity)| class * 100 + activity) != event["type_uid"].as_i64() {
        faults.push("type_uid is not class_uid × 100 + activity_id".to_owned());
    }
    // An id other than 99 has the schema's caption.
    for (id, caption) in [
        ("activity_id", "activity_name"),
        ("severity_id", "severity"),
        ("status_id", "status"),
        ("auth_protocol_id", "auth_protocol"),
        ("action_id", "action"),
        ("disposition_id", "disposition"),
    ] {
        let (Some(number), Some(text)) = (event.get(id), event.get(caption)) else { continue };
        let expected = &facts["enums"][id][number.to_string()];
        if *number != 99 && text != expected {
            faults.push(format!("{caption} is {text}, {id} {number} is {expected}"));
        }
    }
    if event["metadata"]["version"] != FACTS["version"] {
        faults.push("metadata.version".to_owned());
    }
    faults
}

fn check(value: &Value, facts: &Value, profiles: &[&str], path: &str, faults: &mut Vec<String>) {
    let Some(object) = value.as_object() else {
        faults.push(format!("{path} is no object"));
        return;
    };
    let attributes = facts["attributes"].as_object().unwrap();
    for (name, kind) in attributes {
        let (kind, profile) = split(kind.as_str().unwrap());
        let asked = profile.is_none_or(|names| names.split('|').any(|name| profiles.contains(&name)));
        if kind.ends_with('!') && asked && !object.contains_key(name) {
            faults.push(format!("{path}{name} is required"));
        }
        if !asked && object.contains_key(name) {
            faults.push(format!("{path}{name} comes with profile {profile:?}, which is not named"));
        }
    }
    for (name, member) in object {
        let here = format!("{path}{name}");
        if here == "unmapped" {
            continue;
        }
        let Some(kind) = attributes.get(name).and_then(Value::as_str) else {
            faults.push(format!("{here} is not in the schema"));
            continue;
        };
        let kind = split(kind).0.trim_end_matches('!');
        match (kind.strip_suffix("[]"), member) {
            (Some(kind), Value::Array(items)) => {
                items.iter().for_each(|item| typed(item, kind, profiles, &here, faults));
            }
            (Some(_), _) => faults.push(format!("{here} is no list")),
            (None, _) => typed(member, kind, profiles, &here, faults),
        }
        if let Some(known) = facts["enums"].get(name)
            && known.get(member.to_string()).is_none()
        {
            faults.push(format!("{here} has no value {member}"));
        }
    }
    constraints(object, &facts["constraints"], path, faults);
}

fn split(kind: &str) -> (&str, Option<&str>) {
    kind.split_once('@').map_or((kind, None), |(kind, profile)| (kind, Some(profile)))
}

fn typed(value: &Value, kind: &str, profiles: &[&str], path: &str, faults: &mut Vec<String>) {
    if let Some(facts) = FACTS["objects"].get(kind) {
        check(value, facts, profiles, &format!("{path}."), faults);
        return;
    }
    let fits = match kind {
        "integer" | "long" | "timestamp" => value.is_i64() || value.is_u64(),
        "port" => value.as_u64().is_some_and(|port| port <= 65_535),
        "float" => value.is_number(),
        "boolean" => value.is_boolean(),
        "json" => true,
        "ip" => value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok()),
        _ => value.is_string(),
    };
    if !fits {
        faults.push(format!("{path} is no {kind}: {value}"));
    }
}

fn constraints(object: &Map<String, Value>, constraints: &Value, path: &str, faults: &mut Vec<String>) {
    let count = |names: &Value| {
        names.as_array().unwrap().iter().filter(|name| object.contains_key(name.as_str().unwrap())).count()
    };
    if let Some(names) = constraints.get("at_least_one").filter(|names| count(names) == 0) {
        faults.push(format!("{path} needs one of {names}"));
    }
    if let Some(names) = constraints.get("just_one").filter(|names| count(names) != 1) {
        faults.push(format!("{path} needs just one of {names}"));
    }
}

#[test]
fn what_is_wrong_is_found() {
    let good = serde_json::json!({
        "category_uid": 3, "class_uid": 3002, "class_name": "Authentication", "activity_id": 1, "activity_name": "Logon",
        "type_uid": 300_201, "time": 1, "severity_id": 1, "severity": "Informational", "user": {"name": "a"},
        "service": {"name": "s"}, "metadata": {"version": "1.8.0", "product": {"name": "p"}},
    });
    assert_eq!(faults(&good), Vec::<String>::new());
    for (pointer, value, fault) in [
        ("/user", serde_json::json!({}), "user. needs one of"),
        ("/activity_id", 44.into(), "activity_id has no value 44"),
        ("/activity_name", "Logoff".into(), "activity_name is"),
        ("/type_uid", 1.into(), "type_uid is not"),
        ("/time", "now".into(), "time is no timestamp"),
        ("/metadata/version", "1.9.0".into(), "metadata.version"),
        ("/service", serde_json::json!({"nome": "s"}), "service.nome is not in the schema"),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        let found = faults(&bad);
        assert!(found.iter().any(|found| found.starts_with(fault)), "{pointer}: {found:?}");
    }
    for name in ["user", "metadata", "time", "service"] {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(name);
        assert!(!faults(&bad).is_empty(), "{name}");
    }
}
