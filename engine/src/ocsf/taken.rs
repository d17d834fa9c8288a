//! The fields of an event, and which of them have found a place in the object.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::fields::{self, Field, Fields};
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Taken<'a> {
    fields: &'a Fields,
    taken: RefCell<BTreeSet<Field>>,
}

impl<'a> Taken<'a> {
    pub(super) fn new(fields: &'a Fields) -> Self {
        // The category is said by the class.
        Self { fields, taken: RefCell::new(BTreeSet::from([Field::Category])) }
    }

    fn take(&self, field: Field) -> Option<&'a fields::Value> {
        let value = self.fields.get(field)?;
        self.taken.borrow_mut().insert(field);
        Some(value)
    }

    pub(super) fn text(&self, field: Field) -> Option<&'a str> {
        match self.take(field)? {
            fields::Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self, field: Field) -> Option<i64> {
        match self.take(field)? {
            fields::Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn time(&self, field: Field) -> Option<Timestamp> {
        match self.take(field)? {
            fields::Value::Time(time) => Some(*time),
            _ => None,
        }
    }

    /// What has found no place, under its name in the taxonomy.
    pub(super) fn rest(&self) -> Map<String, Value> {
        let taken = self.taken.borrow();
        let rest = self.fields.iter().filter(|(field, _)| !taken.contains(field));
        rest.map(|(field, value)| (field.name().to_owned(), value.to_json())).collect()
    }
}
