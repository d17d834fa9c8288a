//! `rules` and `exceptions`: what decides on a server, and how that is changed.

use std::path::Path;

use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::collect::http::escaped;
use serde_json::{Value, json};

use super::arguments::{ChangeOptions, CoverageTable, ExceptionOptions, ExceptionsAction, Format, RulesAction};
use super::stored::{list, text, with};
use super::{Failure, show};
use crate::client::Place;

type Done = Result<(), Failure>;

pub(super) async fn rules(action: RulesAction, place: &Place, format: Option<Format>) -> Done {
    let (path, body) = match action {
        RulesAction::List => return rules_list(place, format).await,
        RulesAction::Coverage { by } => return coverage(by, place, format).await,
        RulesAction::Deploy { dir, change } => {
            ("/v1/rules".to_owned(), json!({ "files": files(&dir)?, "by": said(&change) }))
        }
        RulesAction::Reload { change } => ("/v1/rules/reload".to_owned(), said(&change)),
        RulesAction::Activate { rule, change } => (state_path(&rule, "activate"), said(&change)),
        RulesAction::Staging { rule, change } => (state_path(&rule, "staging"), said(&change)),
        RulesAction::Pause { rule, change } => (state_path(&rule, "pause"), said(&change)),
    };
    let outcome = with(place, async |client| client.post(&path, &body).await).await?;
    changed(&outcome, format)
}

fn said(change: &ChangeOptions) -> Value {
    json!({ "actor": actor(), "approved_by": change.approved_by, "note": change.note })
}

/// Who acts: the user of this shell, as far as the server believes it.
fn actor() -> Option<String> {
    std::env::var("USER").ok().filter(|name| !name.is_empty())
}

fn state_path(rule: &str, verb: &str) -> String {
    format!("/v1/rules/{}/{verb}", escaped(rule))
}

/// The files of a folder as a deployment sends them.
fn files(dir: &Path) -> Result<Vec<Value>, Failure> {
    let files = pipeproof_rules::read_folder(dir).map_err(|error| Failure::Usage(crate::chain(&error)))?;
    if files.is_empty() {
        return Err(Failure::Usage(format!("there are no rules in {}", dir.display())));
    }
    Ok(files.into_iter().map(|(path, text)| json!({ "path": path, "text": text })).collect())
}

fn changed(outcome: &Value, format: Option<Format>) -> Done {
    if show::format(format) != Format::Human {
        return show::object(outcome, format);
    }
    let record = outcome.get("record").and_then(Value::as_u64);
    let set = text(outcome, "set");
    match record {
        Some(record) => show::plain(&format!("set {set} is in force from record {record} on"))?,
        None => show::plain(&format!("nothing to change: set {set} stays in force"))?,
    }
    for what in ["added", "removed", "changed", "exceptions"] {
        for id in list(outcome, what) {
            show::plain(&format!("  {what:<10} {}", id.as_str().unwrap_or_default()))?;
        }
    }
    for (id, state) in outcome.get("states").and_then(Value::as_object).into_iter().flatten() {
        show::plain(&format!("  {:<10} {id}", state.as_str().unwrap_or_default()))?;
    }
    if text(outcome, "approval") == "same-person" {
        show::diagnostic("note: author and approver are the same person, and the record says so");
    }
    if outcome.get("warnings").and_then(Value::as_u64).unwrap_or(0) > 0 {
        show::diagnostic(&format!("note: {} warnings; `pipeproof check DIR` shows them", outcome["warnings"]));
    }
    if outcome.get("in_effect") == Some(&Value::Bool(false)) {
        show::diagnostic("note: detection has not reached the record yet");
    }
    Ok(())
}

async fn rules_list(place: &Place, format: Option<Format>) -> Done {
    let answer = with(place, async |client| client.get("/v1/rules").await).await?;
    if let Some(trouble) = answer.get("trouble").filter(|trouble| !trouble.is_null()) {
        show::diagnostic(&format!(
            "since {} the rules of program and configuration cannot be used, the set before stays in force: {}",
            text(trouble, "since"),
            text(trouble, "problem")
        ));
    }
    if show::format(format) == Format::Human {
        if let Some(in_force) = answer.get("in_force") {
            let by = match text(in_force, "approval") {
                "two-persons" => format!(", approved by {}", text(in_force, "approved_by")),
                "same-person" => ", approved by the same person".to_owned(),
                _ => String::new(),
            };
            let (set, at, actor) = (text(in_force, "set"), text(in_force, "at"), text(in_force, "actor"));
            let record = in_force.get("record").and_then(Value::as_u64).unwrap_or(0);
            show::diagnostic(&format!("set {set} from record {record}, {at}, by {actor}{by}"));
        }
    } else if show::format(format) == Format::Json {
        return show::object(&answer, format);
    }
    let mut rows = list(&answer, "rules");
    for row in &mut rows {
        if let Some(row) = row.as_object_mut() {
            let short =
                row.get("digest").and_then(Value::as_str).and_then(|digest| digest.get(..12)).map(str::to_owned);
            row.insert("short_digest".to_owned(), json!(short));
            let learning = row.get("status").and_then(|status| status.get("learning_until")).cloned();
            row.insert("learning_until".to_owned(), json!(learning));
        }
    }
    let columns = [
        "level",
        "state",
        "sight",
        "learning_until",
        "findings",
        "name",
        "title",
        "version",
        "short_digest",
        "file",
        "id",
    ];
    show::rows(&rows, &columns, format)
}

async fn coverage(by: Option<CoverageTable>, place: &Place, format: Option<Format>) -> Done {
    let answer = with(place, async |client| client.get("/v1/rules/coverage").await).await?;
    let coverage = answer.get("coverage").cloned().unwrap_or_default();
    let shown = show::format(format);
    if by.is_none() && matches!(shown, Format::Json | Format::Junit) {
        return show::object(&answer, format);
    }
    let all = [
        CoverageTable::Sources,
        CoverageTable::Rules,
        CoverageTable::Attack,
        CoverageTable::Owasp,
        CoverageTable::Controls,
    ];
    let tables: &[CoverageTable] = match by {
        Some(CoverageTable::Rules) => &[CoverageTable::Rules],
        Some(CoverageTable::Sources) => &[CoverageTable::Sources],
        Some(CoverageTable::Attack) => &[CoverageTable::Attack],
        Some(CoverageTable::Owasp) => &[CoverageTable::Owasp],
        Some(CoverageTable::Controls) => &[CoverageTable::Controls],
        None if shown == Format::Human => &all,
        None => &[CoverageTable::Rules],
    };
    for (at, table) in tables.iter().enumerate() {
        if at > 0 {
            show::plain("")?;
        }
        let counts = ["id", "title", "active", "staging", "paused", "seeing", "blind"];
        match table {
            CoverageTable::Sources => {
                show::rows(&list(&coverage, "sources"), &["name", "type", "records_24h"], format)?;
            }
            CoverageTable::Rules => {
                show::rows(&list(&coverage, "rules"), &["sight", "state", "title", "missing", "id"], format)?;
            }
            CoverageTable::Attack => {
                let columns: Vec<&str> = counts.into_iter().filter(|name| *name != "title").collect();
                show::rows(&list(&coverage, "attack"), &columns, format)?;
            }
            CoverageTable::Owasp => show::rows(&list(&coverage, "owasp_cicd"), &counts, format)?,
            CoverageTable::Controls => {
                let mut rows = Vec::new();
                for (framework, controls) in coverage.get("controls").and_then(Value::as_object).into_iter().flatten() {
                    for mut row in controls.as_array().cloned().unwrap_or_default() {
                        if let Some(row) = row.as_object_mut() {
                            row.insert("framework".to_owned(), framework.as_str().into());
                        }
                        rows.push(row);
                    }
                }
                show::rows(&rows, &["framework", "id", "active", "staging", "paused", "seeing", "blind"], format)?;
            }
        }
    }
    Ok(())
}

pub(super) async fn exceptions(action: ExceptionsAction, place: &Place, format: Option<Format>) -> Done {
    match action {
        ExceptionsAction::List => {
            let answer = with(place, async |client| client.get("/v1/exceptions").await).await?;
            let columns = ["state", "expires", "let_go", "title", "rules", "reason", "approved_by", "ticket", "id"];
            show::rows(&list(&answer, "exceptions"), &columns, format)
        }
        ExceptionsAction::Add(options) => {
            let body = exception(options)?;
            let outcome = with(place, async |client| client.post("/v1/exceptions", &body).await).await?;
            changed(&outcome, format)
        }
        ExceptionsAction::Matches { id, after } => {
            let path = format!("/v1/exceptions/{}/matches?after={after}", escaped(&id));
            let answer = with(place, async |client| client.get(&path).await).await?;
            show::rows(&list(&answer, "matches"), &["seq", "time", "rule", "event", "committed"], format)
        }
        ExceptionsAction::Remove { id } => {
            let path = format!("/v1/exceptions/{}", escaped(&id));
            let outcome = with(place, async |client| client.delete(&path).await).await?;
            changed(&outcome, format)
        }
    }
}

fn exception(options: ExceptionOptions) -> Result<Value, Failure> {
    let document = match &options.file {
        Some(path) => {
            let read = std::fs::read_to_string(path);
            Some(read.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?)
        }
        None => None,
    };
    let expires: Option<Timestamp> = options.expires;
    Ok(json!({
        "document": document, "rule": options.rule, "title": options.title, "where": options.conditions,
        "reason": options.reason, "approved_by": options.approved_by, "ticket": options.ticket,
        "expires": expires, "actor": actor(),
    }))
}
