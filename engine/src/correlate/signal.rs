//! A match of a member rule as correlation keeps it: small, because a rule may hold millions of them.
//!
//! What decides order stands in the open; everything else a finding may need later is one block of bytes, shared by all
//! rules that look at the match. Names of sources and fields are written as numbers of the detector's list of [`Names`].

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::EventId;
use crate::fields::Value;
use crate::finding::{Anchor, CitedEvent};
use crate::time::Timestamp;

/// Names that signals hold as numbers. Numbers are never reused, so that what was kept stays readable.
#[derive(Clone, Debug, Default)]
pub struct Names {
    list: Vec<Arc<str>>,
    by_name: HashMap<Arc<str>, u32>,
    told: usize,
}

impl Names {
    /// The number of a name, new or old.
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.by_name.get(name) {
            return *number;
        }
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        let name: Arc<str> = name.into();
        self.list.push(Arc::clone(&name));
        self.by_name.insert(name, number);
        number
    }

    /// The name of a number; empty for one that was never given.
    #[must_use]
    pub fn name(&self, number: u32) -> &str {
        self.list.get(number as usize).map_or("", |name| &**name)
    }

    /// The names that are new since they were last taken.
    pub fn take_new(&mut self) -> Vec<String> {
        let new = self.list.get(self.told..).unwrap_or_default().iter().map(|name| name.to_string()).collect();
        self.told = self.list.len();
        new
    }

    /// Every name, in the order of numbers.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|name| &**name)
    }

    /// Puts back names, as restoring does.
    pub fn restore(&mut self, names: Vec<String>) {
        for name in names {
            self.number(&name);
        }
        self.told = self.list.len();
    }
}

/// A match of a member rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// When it happened: the event's time, or the time of the finding it stands for.
    pub time: Timestamp,
    /// Place in the log: order among equal times.
    pub event: EventId,
    /// Number of the member in the rule's list.
    pub member: u16,
    /// Everything else.
    pub detail: Detail,
}

impl Signal {
    /// What signals are ordered by.
    #[must_use]
    pub const fn order(&self) -> (Timestamp, EventId, u16) {
        (self.time, self.event, self.member)
    }

    /// What names the event in the id of a finding.
    #[must_use]
    pub fn anchor(&self, names: &Names) -> Anchor {
        let head = self.detail.head();
        Anchor { source: names.name(head.source).to_owned(), item: head.item.to_owned(), sub: self.event.sub }
    }

    /// The event as a finding cites it, under the id of the rule it matched.
    #[must_use]
    pub fn cite(&self, rule: &str, names: &Names) -> CitedEvent {
        let head = self.detail.head();
        CitedEvent {
            id: self.event.to_string(),
            source: names.name(head.source).to_owned(),
            source_type: names.name(head.source_type).to_owned(),
            time: head.time,
            received: head.received,
            rule: rule.to_owned(),
            fields: self.detail.fields().map(|(name, value)| (names.name(name).to_owned(), value.to_json())).collect(),
        }
    }
}

/// What a signal's block says before its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head<'d> {
    /// Name of the source instance.
    pub source: u32,
    /// Name of its type.
    pub source_type: u32,
    /// The item the event came in.
    pub item: &'d str,
    /// Time of the event.
    pub time: Timestamp,
    /// When it was received.
    pub received: Timestamp,
    /// The source says when it happened.
    pub time_known: bool,
    /// History: backfill, or older than the source's connection.
    pub retro: bool,
}

/// A field's value inside a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldValue<'d> {
    /// Text.
    Text(&'d str),
    /// An integer.
    Int(i64),
    /// Another number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A point in time.
    Time(Timestamp),
}

impl<'d> FieldValue<'d> {
    /// From a normalised value.
    #[must_use]
    pub fn of(value: &'d Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text),
            Value::Int(number) => Self::Int(*number),
            Value::Bool(truth) => Self::Bool(*truth),
            Value::Time(time) => Self::Time(*time),
        }
    }

    /// Appends its text.
    pub fn write(self, to: &mut String) {
        use std::fmt::Write as _;
        // Writing to a string does not fail.
        match self {
            Self::Text(text) => to.push_str(text),
            Self::Int(number) => {
                write!(to, "{number}").ok();
            }
            Self::Float(number) => {
                write!(to, "{number}").ok();
            }
            Self::Bool(truth) => to.push_str(if truth { "true" } else { "false" }),
            Self::Time(time) => {
                write!(to, "{time}").ok();
            }
        }
    }

    /// As text.
    #[must_use]
    pub fn to_text(self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn to_json(self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Int(number) => number.into(),
            Self::Float(number) => number.into(),
            Self::Bool(truth) => truth.into(),
            Self::Time(time) => time.to_string().into(),
        }
    }
}

/// The block of bytes of a signal.
///
/// Flags, times of event and receipt, names of source and type, item; then number and value of every field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail(Arc<[u8]>);

impl Detail {
    /// From the bytes of [`DetailWriter::bytes`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What stands before the fields. Damaged bytes read as nothing.
    #[must_use]
    pub fn head(&self) -> Head<'_> {
        read_head(&mut Reader(&self.0)).unwrap_or_default()
    }

    /// The fields with the numbers of their names.
    pub fn fields(&self) -> impl Iterator<Item = (u32, FieldValue<'_>)> {
        let mut reader = Reader(&self.0);
        if read_head(&mut reader).is_none() {
            reader.0 = &[];
        }
        std::iter::from_fn(move || {
            let name = u32::try_from(reader.varint()?).ok()?;
            Some((name, reader.value()?))
        })
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: u32) -> Option<FieldValue<'_>> {
        self.fields().find(|(number, _)| *number == name).map(|(_, value)| value)
    }
}

impl Serialize for Detail {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Detail {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Detail;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Detail, E> {
                Ok(Detail::from_bytes(bytes))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// Writes the block of a signal; its memory is used again and again.
#[derive(Debug, Default)]
pub struct DetailWriter(Vec<u8>);

impl DetailWriter {
    /// Begins a block.
    pub fn begin(&mut self, head: &Head<'_>) {
        self.0.clear();
        self.0.push(u8::from(head.time_known) | (u8::from(head.retro) << 1));
        self.0.extend_from_slice(&head.time.as_micros().to_le_bytes());
        self.zigzag(head.received.micros_since(head.time));
        self.varint(u64::from(head.source));
        self.varint(u64::from(head.source_type));
        self.text(head.item);
    }

    /// Adds a field.
    pub fn field(&mut self, name: u32, value: FieldValue<'_>) {
        self.varint(u64::from(name));
        match value {
            FieldValue::Text(text) => {
                self.0.push(0);
                self.text(text);
            }
            FieldValue::Int(number) => {
                self.0.push(1);
                self.zigzag(number);
            }
            FieldValue::Bool(truth) => self.0.push(if truth { 2 } else { 3 }),
            FieldValue::Time(time) => {
                self.0.push(4);
                self.0.extend_from_slice(&time.as_micros().to_le_bytes());
            }
            FieldValue::Float(number) => {
                self.0.push(5);
                self.0.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    /// The block, to keep.
    #[must_use]
    pub fn detail(&self) -> Detail {
        Detail::from_bytes(&self.0)
    }

    /// The block.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn text(&mut self, text: &str) {
        self.varint(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn zigzag(&mut self, number: i64) {
        self.varint(((number << 1) ^ (number >> 63)) as u64);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number as u8) | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

fn read_head<'d>(reader: &mut Reader<'d>) -> Option<Head<'d>> {
    let flags = reader.byte()?;
    let time = Timestamp::from_micros(i64::from_le_bytes(reader.array()?));
    let received = Timestamp::from_micros(time.as_micros().saturating_add(reader.zigzag()?));
    Some(Head {
        time,
        received,
        source: u32::try_from(reader.varint()?).ok()?,
        source_type: u32::try_from(reader.varint()?).ok()?,
        item: reader.text()?,
        time_known: flags & 1 != 0,
        retro: flags & 2 != 0,
    })
}

struct Reader<'d>(&'d [u8]);

impl<'d> Reader<'d> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let number = self.varint()?;
        Some(((number >> 1) as i64) ^ -((number & 1) as i64))
    }

    fn text(&mut self) -> Option<&'d str> {
        let len = usize::try_from(self.varint()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn value(&mut self) -> Option<FieldValue<'d>> {
        Some(match self.byte()? {
            0 => FieldValue::Text(self.text()?),
            1 => FieldValue::Int(self.zigzag()?),
            2 => FieldValue::Bool(true),
            3 => FieldValue::Bool(false),
            4 => FieldValue::Time(Timestamp::from_micros(i64::from_le_bytes(self.array()?))),
            5 => FieldValue::Float(f64::from_le_bytes(self.array()?)),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_reads_back_and_damage_reads_as_nothing() {
        let mut writer = DetailWriter::default();
        let head = Head {
            source: 300,
            source_type: 2,
            item: "id:ä",
            time: Timestamp::from_secs(-5),
            received: Timestamp::from_secs(7),
            time_known: true,
            retro: false,
        };
        let fields = [
            (1, FieldValue::Text("x/one")),
            (2, FieldValue::Int(i64::MIN)),
            (900, FieldValue::Float(0.1)),
            (4, FieldValue::Bool(false)),
            (5, FieldValue::Time(Timestamp::from_micros(1))),
        ];
        writer.begin(&head);
        fields.iter().for_each(|(name, value)| writer.field(*name, *value));
        let detail = Detail::from_bytes(writer.bytes());
        assert_eq!(detail.head(), head);
        assert_eq!(detail.fields().collect::<Vec<_>>(), fields);
        for len in 0..writer.bytes().len() {
            let cut = Detail::from_bytes(&writer.bytes()[..len]);
            assert!(cut.fields().count() < fields.len());
        }
    }
}
