//! The query engine that the tests inside `sql:` rules borrow: the relations such a rule sees, over a few events in memory.

use std::collections::BTreeMap;

use pipeproof_engine::event::EventId;
use pipeproof_engine::fields::{Field, FieldKind, Fields, Value as FieldValue};
use pipeproof_engine::record::{Authenticity, CollectionMode, Position};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_record::lake::EventRow;
use pipeproof_record::sql::RuleSql;
use pipeproof_rules::{SqlEvent, SqlRunner};
use serde_json::Value;
use tokio::runtime::Handle;

/// Runs queries on the runtime this is called from, which must have more than one thread.
pub(crate) struct InMemory;

impl SqlRunner for InMemory {
    fn run(
        &self,
        query: &str,
        events: &[SqlEvent],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<BTreeMap<String, Value>>, String> {
        let rows: Vec<EventRow> = (0..).zip(events).map(|(index, event)| row(index, event)).collect();
        let ask = async { RuleSql::over_events(&rows).await?.query(query, &[], from, to).await };
        let answer = tokio::task::block_in_place(|| Handle::current().block_on(ask));
        answer.map(|answer| answer.rows).map_err(|error| crate::chain(&error))
    }
}

fn row(index: u64, event: &SqlEvent) -> EventRow {
    EventRow {
        id: EventId { position: Position { partition: 0, index }, sub: 0 },
        source: event.source.as_str().into(),
        source_type: event.source_type.parse().unwrap_or(SourceType::Json),
        item: format!("id:{index}").into(),
        time: event.time,
        time_known: true,
        received: event.received,
        auth: Authenticity::Bearer,
        key_id: None,
        mode: CollectionMode::Live,
        fields: fields(&event.fields),
        dead_letter: None,
        leaf: None,
    }
}

/// The fields of the `cicd` taxonomy, in its types; the lake has columns for no others.
fn fields(given: &BTreeMap<String, Value>) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in given {
        let Some(field) = Field::from_name(name) else { continue };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
            scalar => scalar.to_string(),
        };
        let typed = match field.kind() {
            FieldKind::Text => Some(FieldValue::Text(text.into())),
            FieldKind::Int => text.parse().ok().map(FieldValue::Int),
            FieldKind::Bool => text.parse().ok().map(FieldValue::Bool),
            FieldKind::Time => Timestamp::parse(&text).map(FieldValue::Time),
        };
        if let Some(typed) = typed {
            fields.set(field, typed);
        }
    }
    fields
}
