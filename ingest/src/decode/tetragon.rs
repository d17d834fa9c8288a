//! Tetragon events: `{"process_exec": …, "time": …, "node_name": …}`, the key saying what kind it is.
//!
//! Source: cilium/tetragon `api/v1/tetragon/events.proto` as JSON: 64-bit numbers may be text, an `auid` of 4294967295 is
//! none.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, images, object, outcome, scalar, time_at};

const EXPECTED: &str = "a Tetragon event";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let Some((kind, event)) = root.entries().find(|(key, value)| key.starts_with("process_") && value.is_object())
    else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no member `process_…`" });
    };
    let action = match kind {
        "process_exec" => "process.started",
        "process_exit" => "process.exited",
        "process_connect" => "net.connected",
        "process_listen" => "net.listened",
        "process_dns" => "net.resolved",
        "process_loader" => "file.accessed",
        "process_throttle" => "sensor.reported",
        // Probes: what they saw is told by their arguments.
        _ => probed(event),
    };
    let mut draft = Draft::new(action, "runtime");
    draft.time = time_at(root, &["time"]);
    let fields = &mut draft.fields;
    let text = |path: &[&str]| event.str_at(path).filter(|text| !text.is_empty());
    fields.text(Field::ProcessPath, text(&["process", "binary"]));
    fields.text(Field::ProcessArgs, text(&["process", "arguments"]));
    fields.text(Field::ProcessParent, text(&["parent", "binary"]));
    fields.text(Field::ActorId, scalar(event, &["process", "uid"]).map(|uid| format!("uid:{uid}")));
    fields.text(Field::Message, text(&["function_name"]).or_else(|| text(&["message"])));
    fields.text(Field::AlertRule, text(&["policy_name"]));
    if let Some(pod) = event.at(&["process", "pod"]) {
        fields.text(Field::ActorType, Some("workload"));
        fields.text(Field::K8sKind, Some("pods"));
        fields.text(Field::K8sNamespace, pod.str_at(&["namespace"]));
        fields.text(Field::K8sName, pod.str_at(&["name"]));
        image(fields, pod);
    }
    fields.text(Field::K8sCluster, root.str_at(&["cluster_name"]));
    fields.text(Field::NetIp, text(&["destination_ip"]).or_else(|| text(&["ip"])));
    let port = scalar(event, &["destination_port"]).or_else(|| scalar(event, &["port"]));
    fields.int(Field::NetPort, port.and_then(|port| port.parse().ok()));
    fields.text(Field::FilePath, text(&["path"]));
    arguments(fields, event);
    // What was stopped is a failure of whoever tried.
    if let Some(done) = text(&["action"]) {
        let stopped = ["SIGKILL", "OVERRIDE", "NOTIFYENFORCER", "SIGNAL"].iter().any(|way| done.ends_with(way));
        fields.text(Field::Outcome, Some(outcome(!stopped)));
        fields.text(Field::Reason, Some(done));
    } else if let Some(code) = scalar(event, &["status"]).and_then(|code| code.parse::<i64>().ok()) {
        fields.text(Field::Outcome, Some(outcome(code == 0)));
    }
    Ok(vec![draft])
}

fn probed(event: Value<'_>) -> &'static str {
    let has = |key: &str| event.get("args").is_some_and(|args| args.items().any(|arg| arg.get(key).is_some()));
    if has("file_arg") || has("path_arg") || has("linux_binprm_arg") {
        "file.accessed"
    } else if has("sock_arg") || has("sockaddr_arg") {
        "net.connected"
    } else {
        "process.traced"
    }
}

fn image(fields: &mut Fields, pod: Value<'_>) {
    let name = pod.str_at(&["container", "image", "name"]);
    name.into_iter().for_each(|name| images::set(fields, name));
    // `docker-pullable://REPO@sha256:…`
    let id = pod.str_at(&["container", "image", "id"]).map(|id| id.split_once("://").map_or(id, |(_, rest)| rest));
    fields.text(Field::ArtifactDigest, id.and_then(|id| images::parse(id).digest));
}

fn arguments(fields: &mut Fields, event: Value<'_>) {
    for argument in event.get("args").into_iter().flat_map(Value::items) {
        let paths = [&["file_arg", "path"][..], &["path_arg", "path"], &["linux_binprm_arg", "path"]];
        fields.text(Field::FilePath, paths.iter().find_map(|path| argument.str_at(path)));
        if let Some(socket) = argument.get("sock_arg").or_else(|| argument.get("sockaddr_arg")) {
            fields.text(Field::NetIp, socket.str_at(&["daddr"]).or_else(|| socket.str_at(&["addr"])));
            let port = scalar(socket, &["dport"]).or_else(|| scalar(socket, &["port"]));
            fields.int(Field::NetPort, port.and_then(|port| port.parse().ok()));
        }
    }
}
