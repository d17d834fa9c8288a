//! YAML with positions: documents as trees whose every node and key knows its line and column.
//!
//! Every file is hostile: size, depth and what aliases expand to are limited, and a repeated key is an error, since
//! readers differ on which one counts.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::diagnostic::{Code, Place, Report};

/// Largest file: 10 MB.
pub(crate) const FILE_BYTES_MAX: usize = 10_000_000;
/// Deepest nesting.
const DEPTH_MAX: usize = 64;
/// Most nodes of one file, those that aliases repeat included; a long text counts as several.
const NODES_MAX: usize = 1_000_000;
/// Bytes of text that count as one more node.
const TEXT_NODE: usize = 64;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) data: Data,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    /// Text, with whether it was written without quotes.
    Scalar(String, bool),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

/// A scalar, resolved by YAML 1.2's core schema.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    Text(&'a str),
    Int(i128),
    Float(f64),
    Bool(bool),
    Null,
}

impl Node {
    /// What a scalar stands for; `None` for lists and maps.
    pub(crate) fn scalar(&self) -> Option<Scalar<'_>> {
        let Data::Scalar(text, plain) = &self.data else { return None };
        if !plain {
            return Some(Scalar::Text(text));
        }
        Some(match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
            "true" | "True" | "TRUE" => Scalar::Bool(true),
            "false" | "False" | "FALSE" => Scalar::Bool(false),
            other => number(other).unwrap_or(Scalar::Text(other)),
        })
    }

    /// The text of a scalar, whatever it stands for.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(text, _) => Some(text),
            Data::List(_) | Data::Map(_) => None,
        }
    }

    pub(crate) fn list(&self) -> Option<&[Node]> {
        match &self.data {
            Data::List(items) => Some(items),
            Data::Scalar(..) | Data::Map(_) => None,
        }
    }

    pub(crate) fn map(&self) -> Option<&[(Key, Node)]> {
        match &self.data {
            Data::Map(entries) => Some(entries),
            Data::Scalar(..) | Data::List(_) => None,
        }
    }

    /// The value under `key` of a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.map()?.iter().find(|(name, _)| name.text == key).map(|(_, value)| value)
    }

    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.scalar() {
            Some(Scalar::Text(_)) => "a text",
            Some(Scalar::Int(_) | Scalar::Float(_)) => "a number",
            Some(Scalar::Bool(_)) => "a boolean",
            Some(Scalar::Null) => "nothing",
            None if self.list().is_some() => "a list",
            None => "a mapping",
        }
    }
}

fn number(text: &str) -> Option<Scalar<'_>> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|char: char| char.is_ascii_digit() || char == '.') {
        return None;
    }
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Scalar::Int);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return i128::from_str_radix(digits, 16).ok().map(Scalar::Int);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i128::from_str_radix(digits, 8).ok().map(Scalar::Int);
    }
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    if !unsigned.bytes().all(plain) {
        return None;
    }
    text.parse().ok().map(Scalar::Float)
}

/// Reads all documents of a file; what cannot be read is reported, and ends the reading.
pub(crate) fn read(text: &str, report: &mut Report<'_>) -> Vec<Node> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes, more than {FILE_BYTES_MAX}", text.len());
        report.add(Code::File, Place { line: 1, column: 1 }, message);
        return Vec::new();
    }
    let mut reader = Reader { report, anchors: BTreeMap::new(), nodes: 0, open: Vec::new(), documents: Vec::new() };
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    while let Some(next) = parser.next_event() {
        let (event, span) = match next {
            Ok(next) => next,
            Err(error) => {
                let marker = error.marker();
                let place = Place { line: marker.line(), column: marker.col() + 1 };
                reader.report.add(Code::Yaml, place, format!("not valid YAML: {}", error.info()));
                break;
            }
        };
        if !reader.event(event, span) {
            break;
        }
    }
    reader.documents
}

/// A list or map that is being read.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value.
    key: Option<Key>,
    keys: BTreeSet<String>,
}

struct Reader<'r, 'f> {
    report: &'r mut Report<'f>,
    /// Finished anchored nodes with their size.
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    open: Vec<Open>,
    documents: Vec<Node>,
}

impl Reader<'_, '_> {
    /// Takes in an event; false if reading must stop.
    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        let place = Place { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => true,
            Event::DocumentStart(_) => {
                self.anchors.clear();
                true
            }
            Event::Scalar(text, style, anchor, _) => {
                let data = Data::Scalar(text.into_owned(), style == ScalarStyle::Plain);
                self.finish(Node { place, data }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.start(place, Data::List(Vec::new()), anchor),
            Event::MappingStart(anchor, _) => self.start(place, Data::Map(Vec::new()), anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.finish(open.node, open.anchor),
                None => true,
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((node, size)) => {
                    let (node, size) = (node.clone(), *size);
                    self.nodes = self.nodes.saturating_add(size);
                    self.finish(Node { place, ..node }, 0)
                }
                None => {
                    self.report.add(Code::Yaml, place, "an alias refers to nothing that is finished before it");
                    false
                }
            },
        }
    }

    fn start(&mut self, place: Place, data: Data, anchor: usize) -> bool {
        if self.open.len() >= DEPTH_MAX {
            self.report.add(Code::YamlLimit, place, format!("nested deeper than {DEPTH_MAX} levels"));
            return false;
        }
        self.open.push(Open { node: Node { place, data }, anchor, key: None, keys: BTreeSet::new() });
        true
    }

    fn finish(&mut self, node: Node, anchor: usize) -> bool {
        self.nodes += if let Data::Scalar(..) = node.data { size(&node) } else { 1 };
        if self.nodes > NODES_MAX {
            self.report.add(Code::YamlLimit, node.place, format!("expands to more than {NODES_MAX} values"));
            return false;
        }
        if anchor > 0 {
            let size = size(&node);
            self.nodes = self.nodes.saturating_add(size);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return true;
        };
        match &mut open.node.data {
            Data::List(items) => items.push(node),
            Data::Map(entries) => match open.key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let place = node.place;
                    let Data::Scalar(text, _) = node.data else {
                        self.report.add(Code::WrongType, place, "a key must be a text");
                        return false;
                    };
                    if !open.keys.insert(text.clone()) {
                        self.report.add(Code::DuplicateKey, place, format!("the key `{text}` stands here twice"));
                    }
                    open.key = Some(Key { place, text });
                }
            },
            Data::Scalar(..) => {}
        }
        true
    }
}

fn size(node: &Node) -> usize {
    match &node.data {
        Data::Scalar(text, _) => 1 + text.len() / TEXT_NODE,
        Data::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Data::Map(entries) => {
            1 + entries.iter().map(|(key, value)| 1 + key.text.len() / TEXT_NODE + size(value)).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> (Vec<Node>, Vec<&'static str>) {
        let mut report = Report::new("x.yml");
        let documents = read(text, &mut report);
        (documents, report.found.iter().map(|problem| problem.code.name()).collect())
    }

    #[test]
    fn nodes_know_their_places() {
        let (documents, problems) = codes("a: 1\nb:\n    - x\n    - 'y'\n---\nc|re: {d: true}\n");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(documents.len(), 2);
        let list = documents[0].get("b").unwrap().list().unwrap();
        assert_eq!(list[1].place, Place { line: 4, column: 7 });
        let (key, value) = &documents[1].map().unwrap()[0];
        assert_eq!((key.text.as_str(), key.place), ("c|re", Place { line: 6, column: 1 }));
        assert_eq!(value.get("d").unwrap().scalar(), Some(Scalar::Bool(true)));
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        for (text, expected) in [
            ("12", Scalar::Int(12)),
            ("-3", Scalar::Int(-3)),
            ("0x1F", Scalar::Int(31)),
            ("1.5", Scalar::Float(1.5)),
            ("1e3", Scalar::Float(1000.0)),
            ("'12'", Scalar::Text("12")),
            ("yes", Scalar::Text("yes")),
            ("~", Scalar::Null),
            ("1.2.3.4", Scalar::Text("1.2.3.4")),
            ("2026-01-01", Scalar::Text("2026-01-01")),
            ("5m", Scalar::Text("5m")),
            ("0e58ed8671d6b60d0890c21b07f8835ace038e67", Scalar::Text("0e58ed8671d6b60d0890c21b07f8835ace038e67")),
        ] {
            let (documents, _) = codes(&format!("v: {text}\n"));
            assert_eq!(documents[0].get("v").unwrap().scalar(), Some(expected), "{text}");
        }
    }

    #[test]
    fn hostile_files_are_refused() {
        assert_eq!(codes("a: 1\na: 2\n").1, ["E0102"]);
        assert_eq!(codes("a: [1, 2\nb: 3\n").1, ["E0101"]);
        assert_eq!(codes(&"[".repeat(DEPTH_MAX + 1)).1, ["E0103"]);
        assert_eq!(codes(&"x".repeat(FILE_BYTES_MAX + 1)).1, ["E0100"]);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let before = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", ")));
        }
        assert_eq!(codes(&bomb).1, ["E0103"]);
        let long = "x".repeat(100_000);
        assert_eq!(codes(&format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 2_000].join(", "))).1, ["E0103"]);
        assert_eq!(codes("a: &x [*x]\n").1, ["E0101"], "an alias inside its own anchor");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_reported(text in "[a-z:\\-\\[\\]{}&*#'\" \n|>!%]{0,60}") {
            let (documents, problems) = codes(&text);
            proptest::prop_assert!(!documents.is_empty() || !problems.is_empty() || text.trim().is_empty() || documents.is_empty());
        }
    }
}
