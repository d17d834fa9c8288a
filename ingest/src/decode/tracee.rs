//! Tracee events in both of its forms: one flat object with `eventName` and `args`, and since 0.24 `name`, `workload` and
//! `data`.
//!
//! Source: aquasecurity/tracee `types/trace/trace.go` and `api/v1beta1/event.proto` as JSON. Times are nanoseconds, RFC
//! 3339 text or seconds with nanoseconds; ids are numbers or names.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, images, object, outcome, scalar, time_of};

const EXPECTED: &str = "a Tracee event";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let name = root.str_at(&["eventName"]).or_else(|| root.str_at(&["name"]));
    let known = ["args", "data", "workload", "threat", "processName"].iter().any(|key| root.get(key).is_some());
    let Some(name) = name.filter(|_| known) else {
        return Err(Undecodable::Shape {
            expected: EXPECTED,
            problem: "it has no `eventName` or `name` with its data",
        });
    };
    let signature = root.get("metadata").or_else(|| root.get("threat")).filter(|found| found.is_object());
    let mut draft = Draft::new(if signature.is_some() { "alert.raised" } else { action(name) }, "runtime");
    draft.time = root.get("timestamp").and_then(time);
    let fields = &mut draft.fields;
    fields.text(Field::Message, Some(name));
    process(fields, root);
    place(fields, root);
    values(fields, root, name);
    // What a call came to is the kernel's own word for it; a signature's is not.
    let returned = root.get("returnValue").filter(|_| signature.is_none()).and_then(Value::as_i64);
    fields.text(Field::Outcome, returned.map(|code| outcome(code >= 0)));
    if let Some(signature) = signature {
        let title = signature.str_at(&["Properties", "signatureName"]).or_else(|| signature.str_at(&["name"]));
        fields.text(Field::AlertRule, title.or(Some(name)));
        let severity = scalar(signature, &["Properties", "Severity"]).or_else(|| scalar(signature, &["severity"]));
        fields.text(Field::AlertSeverity, severity.map(|severity| severity.to_lowercase()));
        let words = signature.str_at(&["Description"]).or_else(|| signature.str_at(&["description"]));
        fields.text(Field::Message, words);
    }
    Ok(vec![draft])
}

fn action(name: &str) -> &'static str {
    match name {
        "execve" | "execveat" | "sched_process_exec" => "process.started",
        "exit" | "exit_group" | "sched_process_exit" => "process.exited",
        "net_packet_dns" | "net_packet_dns_request" | "net_packet_dns_response" => "net.resolved",
        "security_socket_listen" | "listen" => "net.listened",
        "open" | "openat" | "openat2" | "vfs_read" | "vfs_write" | "vfs_readv" | "vfs_writev" | "magic_write" => {
            "file.accessed"
        }
        _ if name.starts_with("security_file") || name.starts_with("security_inode") => "file.accessed",
        _ if name.starts_with("net_") || name.contains("connect") => "net.connected",
        _ => "process.traced",
    }
}

fn time(value: Value<'_>) -> Option<Timestamp> {
    let Some(secs) = value.get("seconds") else { return time_of(value) };
    let secs: i64 = secs.scalar()?.parse().ok()?;
    let nanos = value.get("nanos").and_then(Value::as_i64).unwrap_or(0);
    Some(Timestamp::from_micros(secs.saturating_mul(1_000_000).saturating_add(nanos / 1_000)))
}

fn process(fields: &mut Fields, root: Value<'_>) {
    let text = |path: &[&str]| root.str_at(path).filter(|text| !text.is_empty());
    let workload = |path: &[&str]| root.at(&["workload", "process"])?.str_at(path).filter(|text| !text.is_empty());
    let path = text(&["executable", "path"]).or_else(|| workload(&["executable", "path"]));
    fields.text(Field::ProcessPath, path.or_else(|| text(&["processName"])).or_else(|| workload(&["thread", "name"])));
    let parent = root.at(&["workload", "process", "ancestors"]).and_then(|list| list.items().next());
    fields.text(Field::ProcessParent, parent.and_then(|parent| parent.str_at(&["executable", "path"])));
    let uid = scalar(root, &["userId"]).or_else(|| scalar(root, &["workload", "process", "real_user", "id", "value"]));
    fields.text(Field::ActorId, uid.map(|uid| format!("uid:{uid}")));
}

fn place(fields: &mut Fields, root: Value<'_>) {
    let first = |paths: &[&[&str]]| {
        paths.iter().find_map(|path| root.str_at(path).filter(|text| !text.is_empty())).map(ToOwned::to_owned)
    };
    let pod = first(&[&["kubernetes", "podName"], &["podName"], &["workload", "k8s", "pod", "name"]]);
    let namespace =
        first(&[&["kubernetes", "podNamespace"], &["podNamespace"], &["workload", "k8s", "namespace", "name"]]);
    let image = first(&[&["container", "image"], &["containerImage"], &["workload", "container", "image", "name"]]);
    let container = first(&[&["container", "id"], &["containerId"], &["workload", "container", "id"]]);
    fields.text(Field::ActorType, pod.as_ref().or(container.as_ref()).map(|_| "workload"));
    fields.text(Field::K8sKind, pod.as_ref().map(|_| "pods"));
    fields.text(Field::K8sName, pod);
    fields.text(Field::K8sNamespace, namespace);
    image.iter().for_each(|image| images::set(fields, image));
}

/// What was done: arguments as a list of names and values, or as one object.
fn values(fields: &mut Fields, root: Value<'_>, event: &str) {
    let listed = root.get("args").or_else(|| root.get("data")).into_iter().flat_map(Value::items);
    for argument in listed {
        let name = argument.str_at(&["name"]).unwrap_or_default();
        // The newer form puts a value under the name of its type.
        let typed =
            || argument.entries().filter(|(key, _)| !matches!(*key, "name" | "type")).map(|(_, value)| value).next();
        let Some(value) = argument.get("value").or_else(typed) else { continue };
        set(fields, event, name, value.get("value").unwrap_or(value));
    }
    for (name, value) in root.get("data").into_iter().flat_map(Value::entries) {
        set(fields, event, name, value);
    }
}

fn set(fields: &mut Fields, event: &str, name: &str, value: Value<'_>) {
    match name {
        // Of an answer the other side is the one that asked.
        "dst" | "dst_ip" | "dst_port" if action(event) == "net.resolved" => {}
        "pathname" | "file_path" | "path" => fields.text(Field::FilePath, value.as_str()),
        "argv" => {
            let words: Vec<&str> = value.items().filter_map(Value::as_str).collect();
            fields.text(Field::ProcessArgs, Some(words.join(" ")));
        }
        "dst" | "dst_ip" => fields.text(Field::NetIp, value.as_str()),
        "dst_port" => fields.int(Field::NetPort, value.scalar().and_then(|port| port.parse().ok())),
        "remote_addr" | "addr" => {
            let host = ["sin_addr", "sin6_addr"].iter().find_map(|key| value.str_at(&[key]));
            fields.text(Field::NetIp, host);
            let port = scalar(value, &["sin_port"]).or_else(|| scalar(value, &["sin6_port"]));
            fields.int(Field::NetPort, port.and_then(|port| port.parse().ok()));
        }
        "proto_dns" => {
            let question = value.get("questions").and_then(|list| list.items().next());
            fields.text(Field::NetDomain, question.and_then(|question| question.str_at(&["name"])));
        }
        _ => {}
    }
}
