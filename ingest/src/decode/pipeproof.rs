//! The program's own control records, so that rules can watch the watcher.

use engine::fields::Field;
use engine::json::Json;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{DEPTH_MAX, Draft, Undecodable};

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = Json::parse_within(&record.body, DEPTH_MAX)?;
    let Some(kind) = json.str_at(&["kind"]) else {
        return Err(Undecodable::Shape { expected: "a control record", problem: "it has no `kind`" });
    };
    if kind == "tick" {
        return Ok(Vec::new());
    }
    let mut draft = Draft::new(format!("pipeproof.{kind}"), "audit");
    // Our own clock wrote it.
    draft.time = Some(record.envelope.received);
    let fields = &mut draft.fields;
    let actor = json.str_at(&["actor"]);
    fields.text(Field::ActorId, actor);
    // What a file of the configuration asks for, and what a start does, nobody does at that moment.
    let who = |actor| if matches!(actor, "configuration" | "program") { "service" } else { "human" };
    fields.text(Field::ActorType, actor.map(who));
    let failed = ["configuration-refused", "source-silent", "bound-reached", "records-damaged"].contains(&kind);
    fields.text(Field::Outcome, Some(if failed { "failure" } else { "success" }));
    let ids = ["id", "name", "incident", "pack", "set", "run", "rule", "file"];
    fields.text(Field::ConfigId, ids.iter().find_map(|key| json.str_at(&[key])));
    fields.text(Field::ConfigAttribute, json.str_at(&["verb"]).or_else(|| json.str_at(&["change", "what"])));
    fields.text(Field::Message, json.str_at(&["note"]).or_else(|| json.str_at(&["reason"])));
    Ok(vec![draft])
}
