//! What StepSecurity's Harden-Runner agent reports of a GitHub-hosted job: names looked up, connections made, source files
//! overwritten.
//!
//! Source: step-security/agent `apiclient.go`. The agent posts to an address that names repository and job; whoever relays
//! its reports adds them as `repo`, `run_id` and `job_id`. There is no id: equal bytes are one report.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, loose, object, outcome, time_of};

const EXPECTED: &str = "a Harden-Runner report";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let text = |key: &str| loose::text(root, &[key]);
    let action = if text("filetype").is_some() {
        "file.written"
    } else if text("port").is_some() || text("status").is_some() || loose::get(root, "tool").is_some() {
        "net.connected"
    } else if text("domainname").is_some() {
        "net.resolved"
    } else {
        return Err(Undecodable::Shape {
            expected: EXPECTED,
            problem: "it has no `domainName`, `ipAddress` or `filetype`",
        });
    };
    let mut draft = Draft::new(action, "runtime");
    draft.time = loose::get(root, "timestamp").and_then(time_of);
    let fields = &mut draft.fields;
    fields.text(Field::NetDomain, text("domainname").map(|name| name.trim_end_matches('.')));
    fields.text(Field::NetIp, text("ipaddress"));
    fields.int(Field::NetPort, loose::int(root, &["port"]));
    fields.text(Field::FilePath, text("filename").or_else(|| text("path")));
    let status = text("status");
    let refused = status.is_some_and(|status| ["dropped", "blocked", "denied"].contains(&&*status.to_lowercase()));
    fields.text(Field::Outcome, status.map(|_| outcome(!refused)));
    fields.text(Field::Reason, text("reason").or(status));
    fields.text(Field::AlertRule, text("matchedpolicy"));
    fields.text(Field::Message, text("filetype").map(|kind| format!("{kind} file written")));
    if let Some(tool) = loose::get(root, "tool") {
        process(fields, tool);
    }
    fields.text(Field::CiProvider, Some("github"));
    fields.text(Field::CiRepo, text("repo").or_else(|| text("repository")));
    fields.text(Field::CiRunId, loose::scalar(root, &["runid"]));
    fields.text(Field::CiJobId, ["jobid", "correlationid"].iter().find_map(|key| loose::scalar(root, &[key])));
    fields.text(Field::ActorType, Some("ci"));
    Ok(vec![draft])
}

fn process(fields: &mut Fields, tool: Value<'_>) {
    fields.text(Field::ProcessPath, loose::text(tool, &["name"]));
    fields.text(Field::ProcessParent, loose::text(tool, &["parent", "name"]));
}
