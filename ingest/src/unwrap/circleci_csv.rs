//! CircleCI's audit log as the CSV that its web app and its server export: a row is an entry, a column one of its members,
//! and members that hold others are JSON.
//!
//! Sources: CircleCI "Audit logs" (the names of the members); Google SecOps' change log of its parser (names in capitals, and
//! `ACTOR_ID` for a member of a member). An entry becomes what the stream to a bucket has, so that one decoder reads both.

use bytes::Bytes;
use serde_json::{Map, Value};

/// Members that are objects.
const OBJECTS: &[&str] = &["actor", "target", "scope", "payload", "metadata", "request", "account", "organization"];
/// Without these a table is no audit log.
const NEEDED: &[&str] = &["action", "occurred_at"];
/// Most columns that are read.
const COLUMNS_MAX: usize = 64;
/// Most of a head that is shown of what is no audit log.
const SHOWN_MAX: usize = 200;

/// Its entries, no more than one beyond `max`. A row that has not as many fields as the head stays as it is, beside the others, and
/// so does the whole if it is another table or none.
pub(super) fn entries(text: &Bytes, max: usize) -> Vec<Bytes> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_ref());
    let head: Vec<String> = match reader.headers() {
        Ok(head) => head.iter().map(|name| name.trim().to_ascii_lowercase()).collect(),
        Err(_) => return vec![text.clone()],
    };
    let whole = head.len() <= COLUMNS_MAX && NEEDED.iter().all(|name| head.iter().any(|column| column == name));
    if !whole {
        return vec![text.clone()];
    }
    let mut found = Vec::new();
    let mut row = csv::ByteRecord::new();
    let mut start = at(reader.position());
    while found.len() <= max && matches!(reader.read_byte_record(&mut row), Ok(true)) {
        let end = at(reader.position());
        let fits = row.len() == head.len();
        let entry = std::str::from_utf8(row.as_slice()).ok().filter(|_| fits).map(|_| entry(&head, &row));
        found.push(entry.unwrap_or_else(|| text.slice(start.min(text.len())..end.min(text.len()))));
        start = end;
    }
    found
}

fn at(position: &csv::Position) -> usize {
    usize::try_from(position.byte()).unwrap_or(usize::MAX)
}

fn entry(head: &[String], row: &csv::ByteRecord) -> Bytes {
    let mut entry = Map::new();
    for (column, field) in head.iter().zip(row) {
        let text = String::from_utf8_lossy(field);
        if text.is_empty() {
            continue;
        }
        let nested = OBJECTS.contains(&column.as_str());
        let parsed = || serde_json::from_str::<Value>(&text).ok().filter(Value::is_object);
        let value = match (column.as_str(), text.to_ascii_lowercase().as_str()) {
            ("success", word @ ("true" | "false")) => Value::Bool(word == "true"),
            _ if nested => parsed().unwrap_or_else(|| Value::String(text.to_string())),
            _ => Value::String(text.to_string()),
        };
        // `ACTOR_ID` is the id of the actor.
        let part =
            column.rsplit_once('_').filter(|(of, part)| OBJECTS.contains(of) && ["id", "name", "type"].contains(part));
        match part {
            Some((of, part)) => {
                let object = entry.entry(of.to_owned()).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(object) = object {
                    object.insert(part.to_owned(), value);
                }
            }
            // What parts of it say already is not lost to a column that says it whole.
            None => match (entry.get_mut(column), value) {
                (Some(Value::Object(known)), Value::Object(whole)) => known.extend(whole),
                (_, value) => {
                    entry.insert(column.clone(), value);
                }
            },
        }
    }
    Bytes::from(Value::Object(entry).to_string())
}

/// The first line of what is no JSON, as it may be shown: names of columns, and nothing that could be anything else.
pub(crate) fn columns_of(body: &[u8]) -> Option<String> {
    let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) || !line.contains(&b',') {
        return None;
    }
    let name = |name: &[u8]| {
        let text = String::from_utf8_lossy(name.trim_ascii()).trim_matches('"').to_owned();
        let plain =
            text.len() <= 40 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-. ".contains(&byte));
        if plain { text } else { "?".to_owned() }
    };
    let mut shown = line.split(|byte| *byte == b',').map(name).collect::<Vec<_>>().join(", ");
    if shown.len() > SHOWN_MAX {
        shown.truncate(SHOWN_MAX);
        shown.push('…');
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Vec<Bytes> {
        entries(&Bytes::copy_from_slice(text.as_bytes()), 100)
    }

    fn parsed(entry: &Bytes) -> Value {
        serde_json::from_slice(entry).unwrap()
    }

    #[test]
    fn rows_are_entries_whatever_the_order_and_case_of_the_columns() {
        let rows = read(concat!(
            "id,version,occurred_at,action,success,actor,payload\n",
            "e-1,1,2026-03-15T10:00:00Z,context.create,true,\"{\"\"id\"\": \"\"u-1\"\", \"\"name\"\": \"\"ann\"\"}\",\"two\nlines\"\n",
            "e-2,1,2026-03-15T10:00:01Z,workflow.job.start,false,,\n",
        ));
        assert_eq!(rows.len(), 2);
        let expected = json!({"id": "e-1", "version": "1", "occurred_at": "2026-03-15T10:00:00Z", "action": "context.create",
            "success": true, "actor": {"id": "u-1", "name": "ann"}, "payload": "two\nlines"});
        assert_eq!(parsed(&rows[0]), expected);
        assert_eq!(parsed(&rows[1])["success"], json!(false));
        let capitals =
            read("ACTION,OCCURRED_AT,ACTOR_ID,ORGANIZATION_NAME,ACTOR\na,t,u-1,acme,\"{\"\"type\"\":\"\"user\"\"}\"\n");
        let expected = json!({"action": "a", "occurred_at": "t", "actor": {"id": "u-1", "type": "user"}, "organization": {"name": "acme"}});
        assert_eq!(parsed(&capitals[0]), expected);
    }

    #[test]
    fn what_does_not_fit_stays_as_it_is_beside_the_others() {
        let rows = read("action,occurred_at\na,t\nb\nc,t\n");
        assert_eq!(rows.iter().filter(|row| row.starts_with(b"{")).count(), 2);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1].trim_ascii(), b"b");
        let other = "name,value\na,b\n";
        assert_eq!(read(other), [Bytes::from(other)]);
        assert_eq!(columns_of(other.as_bytes()).as_deref(), Some("name, value"));
        assert_eq!(columns_of(b"secret=\"hunter2\",x\n").as_deref(), Some("?, x"));
        assert_eq!((columns_of(b"nonsense"), columns_of(b"{\"a\":1,\n")), (None, None));
        assert_eq!(entries(&Bytes::from_static(b"action,occurred_at\na,b\nc,d\ne,f\n"), 1).len(), 2, "one beyond");
    }
}
