//! What a process did on a machine. Process ids and host names stand in the native event: rules have no use for them, OCSF requires them.

use super::Class;
use super::object::Object;
use super::resource;
use super::taken::Taken;
use crate::event::Event;
use crate::fields::Field;
use crate::json::{Json, Value};
use crate::source::SourceType;

struct Seen {
    pid: Option<i64>,
    /// The sensor's own id of the process, unique over restarts.
    uid: Option<String>,
    host: Option<String>,
}

fn seen(event: &Event) -> Seen {
    let nothing = Seen { pid: None, uid: None, host: None };
    let Ok(native) = Json::parse(&event.native) else { return nothing };
    let root = native.root();
    let int = |path: &[&str]| root.at(path).and_then(Value::as_i64);
    let text = |path: &[&str]| root.str_at(path).filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    match event.source_type {
        SourceType::Tetragon => {
            let inner = root.entries().find(|(key, value)| key.starts_with("process_") && value.is_object());
            let process = inner.and_then(|(_, value)| value.get("process"));
            Seen {
                pid: process.and_then(|process| process.get("pid")).and_then(Value::as_i64),
                uid: process.and_then(|process| process.str_at(&["exec_id"])).map(ToOwned::to_owned),
                host: text(&["node_name"]),
            }
        }
        SourceType::Tracee => Seen {
            pid: int(&["hostProcessId"])
                .or_else(|| int(&["processId"]))
                .or_else(|| int(&["workload", "process", "host_pid"]).or_else(|| int(&["workload", "process", "pid"]))),
            uid: None,
            host: text(&["hostName"]).or_else(|| text(&["container", "name"])),
        },
        SourceType::Falco => Seen {
            pid: root.get("output_fields").and_then(|fields| fields.get("proc.pid")).and_then(Value::as_i64),
            uid: None,
            host: text(&["hostname"]),
        },
        _ => nothing,
    }
}

fn process(seen: &Seen, taken: &Taken<'_>) -> Option<Object> {
    if seen.pid.is_none() && seen.uid.is_none() {
        return None;
    }
    let path = taken.text(Field::ProcessPath);
    let mut process = Object::default()
        .with("pid", seen.pid)
        .with("uid", seen.uid.as_deref())
        .with("name", path.and_then(base_name))
        .with("path", path)
        .with("cmd_line", taken.text(Field::ProcessArgs));
    if let Some(user) = resource::user(taken) {
        process.set("user", user);
    }
    Some(process)
}

fn base_name(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| !name.is_empty())
}

fn device(seen: &Seen, taken: &Taken<'_>) -> Option<Object> {
    let name = seen.host.as_deref().or_else(|| taken.text(Field::RunnerName)).or_else(|| taken.text(Field::K8sName))?;
    Some(Object::default().with("type_id", 0).with("type", "Unknown").with("hostname", name))
}

/// A process or file activity: `None` where no process or machine is identified.
pub(super) fn on_host(body: &mut Object, class: Class, event: &Event, taken: &Taken<'_>) -> Option<()> {
    let seen = seen(event);
    let process = process(&seen, taken)?;
    body.set("device", device(&seen, taken)?);
    body.set("actor", Object::default().with("process", process.clone()));
    if class == Class::FILE {
        let path = taken.text(Field::FilePath)?;
        let name = base_name(path)?;
        body.set("file", Object::default().with("name", name).with("path", path).with("type_id", 0));
    } else {
        body.set("process", process);
    }
    Some(())
}

/// A connection or a look-up: `None` where neither side is told.
pub(super) fn network(body: &mut Object, class: Class, taken: &Taken<'_>) -> Option<()> {
    let far = destination(taken);
    if class == Class::DNS
        && let Some(name) = taken.text(Field::NetDomain)
    {
        body.set("query", Object::default().with("hostname", name));
    }
    let near = taken.text(Field::K8sName).map(|name| Object::default().with("name", name));
    let near =
        near.or_else(|| resource::runner(taken).map(|_| Object::default().with("name", taken.text(Field::RunnerName))));
    if far.is_none() && near.is_none() {
        return None;
    }
    body.set("dst_endpoint", far);
    body.set("src_endpoint", near);
    body.set("actor", resource::actor_if_known(taken));
    Some(())
}

fn destination(taken: &Taken<'_>) -> Option<Object> {
    let ip = taken.text(Field::NetIp).filter(|ip| ip.parse::<std::net::IpAddr>().is_ok());
    let endpoint = Object::default().with("ip", ip).with("hostname", taken.text(Field::NetDomain));
    let endpoint = endpoint.some()?;
    Some(endpoint.with("port", taken.int(Field::NetPort).filter(|port| (0..=65_535).contains(port))))
}

/// What an alert was raised over.
pub(super) fn evidence(event: &Event, taken: &Taken<'_>) -> Option<Object> {
    let seen = seen(event);
    let mut evidence = Object::default();
    evidence.set("process", process(&seen, taken));
    if let Some((path, name)) = taken.text(Field::FilePath).and_then(|path| Some((path, base_name(path)?))) {
        evidence.set("file", Object::default().with("name", name).with("path", path).with("type_id", 0));
    }
    evidence.set("dst_endpoint", destination(taken));
    evidence.set("device", device(&seen, taken));
    evidence.set("actor", resource::actor_if_known(taken));
    evidence.some()
}
