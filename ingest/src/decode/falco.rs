//! Falco alerts, as its outputs and falcosidekick send them.
//!
//! Source: falcosecurity/falco JSON output and supported fields. The keys of `output_fields` hold dots. Which of them an
//! alert carries is up to the rule's output.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, images, kubernetes_audit, object, time_at};

const EXPECTED: &str = "a Falco alert";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let (Some(rule), Some(priority)) = (root.str_at(&["rule"]), root.str_at(&["priority"])) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `rule` and `priority`" });
    };
    // Falco tells about itself under names that start like this.
    let own = rule.starts_with("Falco internal");
    let mut draft = Draft::new(if own { "sensor.reported" } else { "alert.raised" }, "runtime");
    draft.time = time_at(root, &["time"]).or_else(|| time_at(root, &["output_fields", "evt.time"]));
    let fields = &mut draft.fields;
    fields.text(Field::AlertRule, Some(rule));
    fields.text(Field::AlertSeverity, Some(priority.to_lowercase()));
    fields.text(Field::Message, root.str_at(&["output"]));
    if let Some(output) = root.get("output_fields") {
        match root.str_at(&["source"]) {
            Some("k8s_audit") => audited(fields, output),
            _ => syscall(fields, output),
        }
    }
    Ok(vec![draft])
}

/// Text of a field; `<NA>` stands for nothing.
fn text<'a>(output: Value<'a>, key: &str) -> Option<&'a str> {
    output.str_at(&[key]).filter(|text| !text.is_empty() && *text != "<NA>")
}

/// Fields of the plugin that reads a cluster's audit log.
fn audited(fields: &mut Fields, output: Value<'_>) {
    let user = text(output, "ka.user.name");
    fields.text(Field::ActorId, user);
    fields.text(Field::K8sUser, user);
    fields.text(Field::ActorType, user.map(kubernetes_audit::actor_type));
    fields.text(Field::K8sVerb, text(output, "ka.verb"));
    fields.text(Field::K8sNamespace, text(output, "ka.target.namespace"));
    fields.text(Field::K8sName, text(output, "ka.target.name"));
    let subresource = text(output, "ka.target.subresource").map(|part| format!("/{part}")).unwrap_or_default();
    fields.text(Field::K8sKind, text(output, "ka.target.resource").map(|resource| format!("{resource}{subresource}")));
    let code = output.get("ka.response.code").and_then(|code| code.scalar()?.parse::<u16>().ok());
    fields.text(Field::Outcome, code.map(|code| super::outcome(code < 400)));
    let image = output
        .get("ka.req.pod.containers.image")
        .and_then(|image| image.as_str().or_else(|| image.items().next()?.as_str()));
    image.into_iter().for_each(|image| images::set(fields, image));
}

/// Fields of what the kernel saw.
fn syscall(fields: &mut Fields, output: Value<'_>) {
    let first = |keys: &[&str]| keys.iter().find_map(|key| text(output, key));
    fields.text(Field::ActorId, first(&["user.name"]));
    let inside = first(&["k8s.pod.name"]).or_else(|| first(&["container.id"]).filter(|id| *id != "host"));
    fields.text(Field::ActorType, inside.map(|_| "workload"));
    fields.text(Field::ProcessPath, first(&["proc.exepath", "proc.exe", "proc.name"]));
    fields.text(Field::ProcessArgs, first(&["proc.cmdline"]));
    fields.text(Field::ProcessParent, first(&["proc.pexepath", "proc.pexe", "proc.pname"]));
    fields.text(Field::K8sNamespace, first(&["k8s.ns.name"]));
    fields.text(Field::K8sName, first(&["k8s.pod.name"]));
    fields.text(Field::K8sKind, first(&["k8s.pod.name"]).map(|_| "pods"));
    if let Some(repo) = first(&["container.image.repository"]) {
        let tag = first(&["container.image.tag"]).map(|tag| format!(":{tag}")).unwrap_or_default();
        fields.text(Field::ArtifactRepo, Some(repo));
        fields.text(Field::ArtifactName, Some(format!("{repo}{tag}")));
        fields
            .text(Field::ArtifactDigest, first(&["container.image.digest"]).filter(|digest| images::is_digest(digest)));
    }
    // A connection is `CLIENT:PORT->SERVER:PORT`, anything else with a name a file.
    match first(&["fd.name"]).map(|name| (name, name.split_once("->"))) {
        Some((_, Some((_, server)))) => {
            let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
            fields.text(Field::NetIp, Some(host));
            fields.int(Field::NetPort, port.parse().ok());
        }
        Some((name, None)) if name.starts_with('/') => fields.text(Field::FilePath, Some(name)),
        _ => {}
    }
    fields.text(Field::NetIp, first(&["fd.rip", "fd.sip"]));
    fields.text(Field::NetDomain, first(&["fd.sip.name", "fd.rip.name"]));
}
