//! Commands over stored data: each is a call of the API.

use serde_json::{Value, json};

use super::arguments::{
    DeadLettersAction, EventsOptions, FindingsOptions, Format, IncidentsAction, KpiOptions, ListAction, RedactOptions,
    SourcesAction, SqlOptions, TailOptions, TokenAction,
};
use super::{Failure, show};
use crate::client::{Client, ClientError, Place};
use crate::sender::FILES;

type Done = Result<(), Failure>;

/// Runs one exchange with the server and lets go of it, whatever came out.
pub(super) async fn with<T>(
    place: &Place,
    work: impl AsyncFnOnce(&Client) -> Result<T, ClientError>,
) -> Result<T, Failure> {
    let client = Client::connect(place).await?;
    let result = work(&client).await;
    client.close().await?;
    Ok(result?)
}

pub(super) fn list(value: &Value, name: &str) -> Vec<Value> {
    value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}

pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(super) async fn sources(action: SourcesAction, place: &Place, format: Option<Format>) -> Done {
    match action {
        SourcesAction::Add { name, source_type, labels, connected } => {
            let labels: serde_json::Map<String, Value> =
                labels.into_iter().map(|(name, value)| (name, value.into())).collect();
            let body = json!({ "name": name, "type": source_type, "labels": labels, "connected": connected });
            let added = with(place, async |client| client.post("/v1/sources", &body).await).await?;
            connected_source(&added, format)
        }
        SourcesAction::Rotate { name } => {
            let path = format!("/v1/sources/{name}/rotate");
            let rotated = with(place, async |client| client.post(&path, &json!({})).await).await?;
            connected_source(&rotated, format)
        }
        SourcesAction::Remove { name } => {
            let path = format!("/v1/sources/{name}");
            let removed = with(place, async |client| client.delete(&path).await).await?;
            show::object(&removed, format)
        }
        SourcesAction::File { name: None } => FILES.iter().try_for_each(|(name, _)| show::line(name)),
        SourcesAction::File { name: Some(name) } => match FILES.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => show::line(text.trim_end()),
            None => Err(Failure::Usage(format!("there is no file `{name}`: `pipeproof sources file` lists them"))),
        },
        SourcesAction::List => {
            let answer = with(place, async |client| client.get("/v1/sources").await).await?;
            let columns = [
                "name",
                "type",
                "connected",
                "last_event",
                "last_24h.rate_per_minute",
                "last_24h.lag_p50_s",
                "last_24h.lag_p99_s",
                "last_24h.skew_s",
                "last_24h.records",
                "last_24h.duplicates",
                "last_24h.dead_letters",
                "last_24h.gaps",
                "sequence.missing",
                "silence.silent_since",
                "this_hour.status",
                "collecting",
            ];
            let mut sources = list(&answer, "sources");
            for source in &mut sources {
                source["collecting"] = collecting(source);
            }
            show::rows(&sources, &columns, format)
        }
    }
}

/// How a source's collectors do, in a line.
fn collecting(source: &Value) -> Value {
    let one = |collector: &Value| {
        let name = text(collector, "collector");
        let error = collector.get("last_error").and_then(|error| error.get("error")).and_then(Value::as_str);
        let troubled = list(collector, "troubled");
        match (text(collector, "state"), error, troubled.first()) {
            ("failing", Some(error), _) => format!("{name} failing: {error}"),
            ("partial", _, Some(first)) => {
                let (what, member, why) = (text(first, "what"), text(first, "member"), text(first, "error"));
                format!("{name} without {} lists, {what} of {member}: {why}", troubled.len())
            }
            (state, ..) => format!("{name} {state}"),
        }
    };
    let told: Vec<String> = list(source, "collectors").iter().map(one).collect();
    if told.is_empty() { Value::Null } else { told.join("; ").into() }
}

fn connected_source(source: &Value, format: Option<Format>) -> Done {
    if show::format(format) != Format::Human {
        return show::object(source, format);
    }
    for (label, name) in
        [("source", "name"), ("type", "type"), ("url", "url"), ("token", "token"), ("secret", "secret")]
    {
        if let Some(value) = source.get(name).and_then(Value::as_str) {
            show::plain(&format!("{label:<8}{value}"))?;
        }
    }
    show::plain(&format!("\nat the sender (shown once):\n\n{}", text(source, "sender")))
}

pub(super) async fn tokens(action: TokenAction, place: &Place, format: Option<Format>) -> Done {
    match action {
        TokenAction::Create { scopes, source, expires, note } => {
            let body = json!({ "scopes": scopes, "source": source, "expires": expires, "note": note });
            let created = with(place, async |client| client.post("/v1/tokens", &body).await).await?;
            show::line(text(&created, "token"))
        }
        TokenAction::List => {
            let answer = with(place, async |client| client.get("/v1/tokens").await).await?;
            show::rows(&list(&answer, "tokens"), &["id", "scopes", "source", "expires", "created", "note"], format)
        }
        TokenAction::Revoke { id } => {
            let revoked = with(place, async |client| client.delete(&format!("/v1/tokens/{id}")).await).await?;
            show::object(&revoked, format)
        }
    }
}

pub(super) async fn dead_letters(action: &DeadLettersAction, place: &Place, format: Option<Format>) -> Done {
    match action {
        DeadLettersAction::List { source } => {
            let path = match source {
                Some(source) => format!("/v1/deadletters?limit=1000&source={source}"),
                None => "/v1/deadletters?limit=1000".to_owned(),
            };
            let answer = with(place, async |client| client.get(&path).await).await?;
            let columns = ["index", "source", "received", "replayed", "reason"];
            show::rows(&list(&answer, "dead_letters"), &columns, format)
        }
        DeadLettersAction::Replay { source, records } => {
            let records = (!records.is_empty()).then_some(records);
            let body = json!({ "source": source, "records": records });
            let replayed = with(place, async |client| client.post("/v1/deadletters/replay", &body).await).await?;
            show::object(&replayed, format)
        }
    }
}

pub(super) async fn redact(options: &RedactOptions, place: &Place, format: Option<Format>) -> Done {
    let (Some(event), Some(reason)) = (&options.event, &options.reason) else {
        let answer = with(place, async |client| client.get("/v1/redactions").await).await?;
        let columns = ["redaction", "at", "records", "source", "actor", "approved_by", "done", "reason"];
        return show::rows(&list(&answer, "redactions"), &columns, format);
    };
    // An id is digits and dashes; anything else must not become part of a path.
    if !event.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return Err(Failure::Usage(format!("`{event}` is no id of an event (0-INDEX-NUMBER) or a record (0-INDEX)")));
    }
    let body = json!({
        "reason": reason, "approved_by": options.approved_by, "actor": std::env::var("USER").ok(),
    });
    let path = format!("/v1/records/{event}/redact");
    let redacted = with(place, async |client| client.post(&path, &body).await).await?;
    show::object(&redacted, format)
}

pub(super) async fn deliveries(action: &ListAction, place: &Place, format: Option<Format>) -> Done {
    let ListAction::List = action;
    let answer = with(place, async |client| client.get("/v1/deliveries").await).await?;
    let columns = ["target", "message", "state", "attempts", "status", "latency_ms", "delivered_at", "error"];
    show::rows(&list(&answer, "deliveries"), &columns, format)
}

pub(super) async fn findings(options: &FindingsOptions, place: &Place, format: Option<Format>) -> Done {
    let mut path = format!("/v1/findings?limit={}", options.limit);
    for (name, value) in [("rule", &options.rule), ("level", &options.level)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={value}"));
        }
    }
    let answer = with(place, async |client| client.get(&path).await).await?;
    show::rows(&list(&answer, "findings"), &["time", "level", "state", "title", "incident", "id"], format)
}

/// A line is a line in every format: whoever takes events in takes them one by one.
pub(super) async fn events(options: &EventsOptions, place: &Place) -> Done {
    let mut query = vec![("format", options.words.name().to_owned()), ("limit", options.limit.to_string())];
    let times = [("from", options.from), ("to", options.to)];
    query.extend(times.into_iter().filter_map(|(name, time)| Some((name, time?.to_string()))));
    let texts = [("source", &options.source), ("action", &options.action), ("after", &options.after)];
    query.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
    let mut failed = None;
    let asked = with(place, async |client| client.listed("/v1/events", &query, shown(&mut failed)).await).await;
    failed.map_or(asked, Err)
}

/// Only what a server detects from now on: a command's own server would have nothing to tell.
pub(super) async fn tail(options: &TailOptions, place: &Place) -> Done {
    let Some(client) = Client::running(place).await? else {
        let why = format!(
            "no server runs on {}: start one with `pipeproof serve`, or name one with --url",
            place.data.display()
        );
        return Err(Failure::Other(why));
    };
    let mut query = vec![("format", options.words.name().to_owned())];
    let texts = [("source", &options.source), ("action", &options.action)];
    query.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
    let mut failed = None;
    let asked = client.listed("/v1/tail", &query, shown(&mut failed)).await;
    failed.map_or(asked.map_err(Failure::from), Err)
}

/// Shows a line, and keeps why it cannot be shown.
fn shown(failed: &mut Option<Failure>) -> impl FnMut(&[u8]) -> Result<(), ClientError> {
    |line| {
        show::line(&String::from_utf8_lossy(line)).map_err(|failure| {
            let told = ClientError::Answer(failure.to_string());
            *failed = Some(failure);
            told
        })
    }
}

pub(super) async fn sql(options: &SqlOptions, place: &Place, format: Option<Format>) -> Done {
    let query = if options.query == "-" { read_stdin()? } else { options.query.clone() };
    let answer = with(place, async |client| client.post("/v1/sql", &json!({ "query": query })).await).await?;
    let columns: Vec<String> =
        list(&answer, "columns").iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    // A column name may hold a dot, which `show::rows` would take for a path: rows are shown under flat names.
    let flat: Vec<String> = columns.iter().map(|name| name.replace('.', "_")).collect();
    let rows: Vec<Value> = list(&answer, "rows")
        .iter()
        .filter_map(Value::as_array)
        .map(|row| Value::Object(flat.iter().cloned().zip(row.iter().cloned()).collect()))
        .collect();
    show::rows(&rows, &flat.iter().map(String::as_str).collect::<Vec<_>>(), format)
}

pub(super) async fn kpi(options: &KpiOptions, place: &Place, format: Option<Format>) -> Done {
    let path = format!("/v1/kpi?from={}&to={}", options.from, options.to);
    let answer = with(place, async |client| client.get(&path).await).await?;
    if show::format(format) == Format::Human {
        return show::plain(text(&answer, "text"));
    }
    show::object(answer.get("kpi").unwrap_or(&answer), format)
}

pub(super) async fn incidents(action: IncidentsAction, place: &Place, format: Option<Format>) -> Done {
    let (verb, step) = match action {
        IncidentsAction::List { open } => {
            let path = format!("/v1/incidents?open={open}");
            let answer = with(place, async |client| client.get(&path).await).await?;
            return show::rows(
                &list(&answer, "incidents"),
                &["id", "level", "status", "opened", "title", "entities"],
                format,
            );
        }
        IncidentsAction::Show { id } => {
            let answer = with(place, async |client| client.get(&format!("/v1/incidents/{id}")).await).await?;
            return show::object(&answer, format);
        }
        IncidentsAction::Timeline { id } => {
            let answer = with(place, async |client| client.get(&format!("/v1/incidents/{id}")).await).await?;
            return show::rows(&timeline(&answer), &["at", "what", "who", "detail"], format);
        }
        IncidentsAction::Ack(step) => ("ack", step),
        IncidentsAction::Contain(step) => ("contain", step),
        IncidentsAction::Remediate(step) => ("remediate", step),
        IncidentsAction::Verify(step) => ("verify", step),
        IncidentsAction::Close(step) => ("close", step),
        IncidentsAction::Reopen(step) => ("reopen", step),
        IncidentsAction::Dismiss(step) => ("dismiss", step),
    };
    let body = json!({ "note": step.note, "actor": std::env::var("USER").ok() });
    let path = format!("/v1/incidents/{}/{verb}", step.id);
    let answer = with(place, async |client| client.post(&path, &body).await).await?;
    show::object(&answer, format)
}

/// What happened to an incident, in order: its findings by event time, and its steps by record time.
pub(crate) fn timeline(answer: &Value) -> Vec<Value> {
    let mut rows: Vec<Value> = list(answer, "findings")
        .iter()
        .map(|finding| json!({ "at": text(finding, "time"), "what": "event", "who": "", "detail": text(finding, "title") }))
        .collect();
    rows.extend(list(answer, "steps").iter().map(|step| {
        let detail = step.get("note").and_then(Value::as_str).or_else(|| step.get("finding").and_then(Value::as_str));
        json!({ "at": text(step, "at"), "what": text(step, "verb"), "who": text(step, "actor"), "detail": detail })
    }));
    rows.sort_by(|left, right| text(left, "at").cmp(text(right, "at")));
    rows
}

fn read_stdin() -> Result<String, Failure> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::io::stdin().lock().take(1 << 20).read_to_string(&mut text);
    read.map_err(|source| Failure::Io { doing: "read stdin".to_owned(), source })?;
    Ok(text)
}
