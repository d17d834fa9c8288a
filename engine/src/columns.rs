//! A batch of events as Arrow columns: only the fields some rule reads, taken in one pass over each event.
//!
//! A path trie directs the pass over simd-json's tape, so that whatever no rule reads is stepped over. Each column is
//! a dictionary: its distinct values once (Arrow `StringArray` and their kinds), and per row the list of its values'
//! numbers (Arrow offsets and `UInt32Array`). What this is not: a table of events for storage; see the lake for that.

use std::fmt;

use arrow_array::{Array as _, StringArray, UInt32Array};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use simd_json::{Buffers, Node, StaticNode, Tape};

use crate::event::Event;
use crate::fields::{Field, Value};
use crate::intern::{Interner, Kind, hash, seed};
use crate::json::{CompactWriter, DEPTH_MAX, float_text};
use crate::rule::Taxonomy;

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ColumnKey {
    /// A field of the `cicd` taxonomy.
    Normalised(Field),
    /// A path into the native JSON.
    Native(String),
    /// Every scalar of the native JSON: what keywords are looked up in.
    Everything,
}

impl ColumnKey {
    /// The column a field name of a rule stands for.
    pub(crate) fn of(taxonomy: Taxonomy, field: &str) -> Self {
        let normalised = match taxonomy {
            Taxonomy::Cicd => Field::from_name(field),
            Taxonomy::Sigma => None,
        };
        normalised.map_or_else(|| Self::Native(field.to_owned()), Self::Normalised)
    }
}

/// A column of one batch.
#[derive(Debug)]
pub(crate) struct Column {
    /// Distinct values.
    pub(crate) values: StringArray,
    /// Their kinds.
    pub(crate) kinds: Vec<Kind>,
    /// Where each row's list begins and the last one ends.
    pub(crate) offsets: OffsetBuffer<i32>,
    /// Numbers of values.
    pub(crate) keys: UInt32Array,
}

impl Column {
    /// The numbers of the values of a row.
    pub(crate) fn row(&self, row: usize) -> &[u32] {
        let range = self.offsets.get(row).zip(self.offsets.get(row + 1));
        range.and_then(|(start, end)| self.keys.values().get(*start as usize..*end as usize)).unwrap_or_default()
    }

    /// Kind and text of a value.
    pub(crate) fn value(&self, key: u32) -> (Kind, &str) {
        let index = key as usize;
        match self.kinds.get(index) {
            Some(kind) if index < self.values.len() => (*kind, self.values.value(index)),
            _ => (Kind::Empty, ""),
        }
    }
}

/// One place in the path trie.
#[derive(Debug, Default)]
struct TrieNode {
    column: Option<u32>,
    /// (hash, key, node); a key may hold dots, since JSON keys may.
    children: Vec<(u64, Box<str>, u32)>,
    /// Open addressing over `children` when there are many; 0 is empty, else index + 1.
    slots: Vec<u16>,
}

/// Which columns to build.
#[derive(Debug)]
pub(crate) struct Schema {
    keys: Vec<ColumnKey>,
    /// Whether some predicate looks at the JSON text of objects, per column.
    object_text: Vec<bool>,
    /// (field, column), sorted.
    normalised: Vec<(Field, u32)>,
    everything: Option<u32>,
    trie: Vec<TrieNode>,
    seed: u64,
}

impl Schema {
    /// A schema of these columns; `object_text` says of each whether the JSON text of objects is wanted.
    pub(crate) fn new(columns: Vec<(ColumnKey, bool)>) -> Self {
        let (keys, object_text) = columns.into_iter().unzip();
        let mut schema =
            Self { keys, object_text, normalised: Vec::new(), everything: None, trie: Vec::new(), seed: seed() };
        for (column, key) in (0_u32..).zip(schema.keys.clone()) {
            match key {
                ColumnKey::Normalised(field) => schema.normalised.push((field, column)),
                ColumnKey::Native(path) => schema.add_path(&path, column),
                ColumnKey::Everything => schema.everything = Some(column),
            }
        }
        schema.normalised.sort_unstable();
        schema.trie.iter_mut().for_each(TrieNode::index);
        schema
    }

    fn reads_native(&self) -> bool {
        self.everything.is_some() || !self.trie.is_empty()
    }

    fn add_path(&mut self, path: &str, column: u32) {
        let segments: Vec<&str> = path.split('.').collect();
        if self.trie.is_empty() {
            self.trie.push(TrieNode::default());
        }
        // A node for every prefix of the path, then an edge for every run of segments: `a.b.c` is found under the keys
        // a → b → c, a → "b.c", "a.b" → c and "a.b.c".
        let mut nodes = vec![0_u32];
        for segment in &segments {
            let parent = nodes.last().copied().unwrap_or_default();
            let child = self.child(parent, segment).unwrap_or_else(|| self.add_child(parent, segment));
            nodes.push(child);
        }
        for start in 0..segments.len() {
            for end in start + 2..=segments.len() {
                let key = segments.get(start..end).unwrap_or_default().join(".");
                let (Some(&from), Some(&to)) = (nodes.get(start), nodes.get(end)) else { continue };
                if self.child(from, &key).is_none() {
                    self.add_edge(from, &key, to);
                }
            }
        }
        if let Some(node) = nodes.last().and_then(|last| self.trie.get_mut(*last as usize)) {
            node.column = Some(column);
        }
    }

    fn add_child(&mut self, parent: u32, key: &str) -> u32 {
        let node = u32::try_from(self.trie.len()).unwrap_or(u32::MAX);
        self.trie.push(TrieNode::default());
        self.add_edge(parent, key, node);
        node
    }

    fn add_edge(&mut self, parent: u32, key: &str, node: u32) {
        let hash = hash(self.seed, key.as_bytes());
        if let Some(parent) = self.trie.get_mut(parent as usize) {
            parent.children.push((hash, key.into(), node));
        }
    }

    fn child(&self, node: u32, key: &str) -> Option<u32> {
        self.trie.get(node as usize)?.child(self.seed, key)
    }

    /// Builds the columns of `events`, in the order of the schema.
    pub(crate) fn extract<'e>(&self, events: impl Iterator<Item = &'e Event>, scratch: &mut Scratch) -> Vec<Column> {
        let mut builder = Builder {
            schema: self,
            columns: self.keys.iter().map(|_| ColumnBuilder::new(self.seed)).collect(),
            row: 0,
            number: String::new(),
        };
        let mut tape = std::mem::replace(&mut scratch.tape, Tape(Vec::new()));
        for event in events {
            builder.fields(event);
            if self.reads_native() {
                scratch.text.clear();
                scratch.text.extend_from_slice(&event.native);
                let mut open = tape.reset();
                // An event whose native text is no JSON has no native fields; decoding refused it long before.
                if simd_json::fill_tape(&mut scratch.text, &mut scratch.buffers, &mut open).is_ok() {
                    if !self.trie.is_empty() {
                        builder.walk(&open.0, 0, 0);
                    }
                    if let Some(column) = self.everything {
                        builder.everything(&open.0, column);
                    }
                }
                tape = open.reset();
            }
            builder.row += 1;
        }
        scratch.tape = tape;
        let rows = builder.row;
        builder.columns.into_iter().map(|column| column.finish(rows)).collect()
    }
}

impl TrieNode {
    fn index(&mut self) {
        if self.children.len() <= 4 || self.children.len() > usize::from(u16::MAX / 2) {
            return;
        }
        let len = (self.children.len() * 4).next_power_of_two();
        self.slots = vec![0; len];
        for (number, (hash, _, _)) in (1_u16..).zip(&self.children) {
            let mut at = *hash as usize & (len - 1);
            while self.slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & (len - 1);
            }
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = number;
            }
        }
    }

    fn child(&self, seed: u64, key: &str) -> Option<u32> {
        if self.slots.is_empty() {
            return self.children.iter().find(|(_, name, _)| **name == *key).map(|(_, _, node)| *node);
        }
        let hash = hash(seed, key.as_bytes());
        let mut at = hash as usize & (self.slots.len() - 1);
        loop {
            let index = self.slots.get(at)?.checked_sub(1)?;
            let (other, name, node) = self.children.get(usize::from(index))?;
            if *other == hash && **name == *key {
                return Some(*node);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

/// Memory that is used again from batch to batch.
pub(crate) struct Scratch {
    text: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Scratch").field("text_bytes", &self.text.capacity()).finish_non_exhaustive()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        // Deeper texts than a decoder accepts are not read here either; the limit is on what lies inside the root.
        Self { text: Vec::new(), buffers: Buffers::with_max_depth(0, DEPTH_MAX + 1), tape: Tape(Vec::new()) }
    }
}

struct ColumnBuilder {
    values: Interner,
    offsets: Vec<i32>,
    keys: Vec<u32>,
}

impl ColumnBuilder {
    fn new(seed: u64) -> Self {
        Self { values: Interner::new(seed), offsets: Vec::new(), keys: Vec::new() }
    }

    fn push(&mut self, row: usize, kind: Kind, text: &str) {
        // Neither limit can be reached by a batch of records: 2 GiB of text, 2^31 values.
        let Ok(start) = i32::try_from(self.keys.len()) else { return };
        let Some(key) = self.values.intern(kind, text) else { return };
        if self.offsets.len() <= row {
            self.offsets.resize(row + 1, start);
        }
        self.keys.push(key);
    }

    fn finish(mut self, rows: usize) -> Column {
        self.offsets.resize(rows + 1, i32::try_from(self.keys.len()).unwrap_or(i32::MAX));
        let texts = OffsetBuffer::new(ScalarBuffer::from(self.values.offsets));
        let (values, kinds) = match StringArray::try_new(texts, Buffer::from_vec(self.values.bytes), None) {
            Ok(values) => (values, self.values.kinds),
            // Texts come from `str`s, so this does not happen; if it did, the values would be lost, not misread.
            Err(_) => (StringArray::new_null(0), Vec::new()),
        };
        Column {
            values,
            kinds,
            offsets: OffsetBuffer::new(ScalarBuffer::from(self.offsets)),
            keys: UInt32Array::from(self.keys),
        }
    }
}

struct Builder<'s> {
    schema: &'s Schema,
    columns: Vec<ColumnBuilder>,
    row: usize,
    number: String,
}

impl Builder<'_> {
    fn push(&mut self, column: u32, kind: Kind, text: &str) {
        if let Some(column) = self.columns.get_mut(column as usize) {
            column.push(self.row, kind, text);
        }
    }

    fn fields(&mut self, event: &Event) {
        if self.schema.normalised.is_empty() {
            return;
        }
        for (field, value) in event.fields.iter() {
            let Ok(at) = self.schema.normalised.binary_search_by_key(&field, |(name, _)| *name) else { continue };
            let Some(&(_, column)) = self.schema.normalised.get(at) else { continue };
            match value {
                Value::Text(text) => self.push(column, Kind::Text, text),
                Value::Int(number) => self.push(column, Kind::Number, &number.to_string()),
                Value::Bool(truth) => self.push(column, Kind::Bool, if *truth { "true" } else { "false" }),
                Value::Time(time) => self.push(column, Kind::Text, &time.to_string()),
            }
        }
    }

    /// Takes what the trie asks for from the value at `at`. Recurses as deep as the text is nested, which is limited.
    fn walk(&mut self, tape: &[Node<'_>], at: usize, place: u32) {
        let Some(trie) = self.schema.trie.get(place as usize) else { return };
        match tape.get(at) {
            Some(Node::Array { len: 0, .. }) => {
                if let Some(column) = trie.column {
                    self.push(column, Kind::Empty, "");
                }
            }
            Some(Node::Array { len, .. }) => {
                let mut item = at + 1;
                for _ in 0..*len {
                    self.walk(tape, item, place);
                    item = after(tape, item);
                }
            }
            Some(Node::Object { len, .. }) => {
                if let Some(column) = trie.column {
                    if self.schema.object_text.get(column as usize).copied().unwrap_or(false) {
                        self.push(column, Kind::Object, &compact(tape, at));
                    } else {
                        self.push(column, Kind::Object, "");
                    }
                }
                if trie.children.is_empty() {
                    return;
                }
                let mut key = at + 1;
                for _ in 0..*len {
                    if let Some(Node::String(name)) = tape.get(key)
                        && let Some(child) = trie.child(self.schema.seed, name)
                    {
                        self.walk(tape, key + 1, child);
                    }
                    key = after(tape, key + 1);
                }
            }
            Some(scalar) => {
                if let Some(column) = trie.column {
                    self.scalar(column, scalar);
                }
            }
            None => {}
        }
    }

    fn scalar(&mut self, column: u32, node: &Node<'_>) {
        use std::fmt::Write as _;
        let mut number = std::mem::take(&mut self.number);
        number.clear();
        let (kind, text) = match node {
            Node::String(text) => (Kind::Text, *text),
            Node::Static(StaticNode::Null) => (Kind::Null, ""),
            Node::Static(StaticNode::Bool(truth)) => (Kind::Bool, if *truth { "true" } else { "false" }),
            Node::Static(StaticNode::I64(value)) => {
                // Writing to a string does not fail.
                write!(number, "{value}").ok();
                (Kind::Number, number.as_str())
            }
            Node::Static(StaticNode::U64(value)) => {
                write!(number, "{value}").ok();
                (Kind::Number, number.as_str())
            }
            Node::Static(StaticNode::F64(value)) => {
                number.push_str(&float_text(*value));
                (Kind::Number, number.as_str())
            }
            Node::Array { .. } | Node::Object { .. } => (Kind::Empty, ""),
        };
        self.push(column, kind, text);
        self.number = number;
    }

    /// Puts every scalar that is not a key into `column`.
    fn everything(&mut self, tape: &[Node<'_>], column: u32) {
        // Ends of the open objects, innermost last; inside one, keys and values alternate.
        let mut at = 0;
        let mut open: Vec<(usize, bool)> = Vec::new();
        while let Some(node) = tape.get(at) {
            while open.last().is_some_and(|(end, _)| *end <= at) {
                open.pop();
            }
            if matches!(open.last(), Some((_, true))) {
                // A key; its value comes next.
                if let Some(node) = tape.get(at + 1) {
                    at += 1;
                    self.keyword(tape, node, at, column, &mut open);
                }
            } else {
                self.keyword(tape, node, at, column, &mut open);
            }
            at += 1;
        }
    }

    fn keyword(&mut self, tape: &[Node<'_>], node: &Node<'_>, at: usize, column: u32, open: &mut Vec<(usize, bool)>) {
        match node {
            Node::Object { .. } => open.push((after(tape, at), true)),
            Node::Array { .. } => open.push((after(tape, at), false)),
            Node::Static(StaticNode::Null) => {}
            scalar => self.scalar(column, scalar),
        }
    }
}

/// Index of the node after the value at `at`.
fn after(tape: &[Node<'_>], at: usize) -> usize {
    match tape.get(at) {
        Some(Node::Object { count, .. } | Node::Array { count, .. }) => at + 1 + count,
        _ => at + 1,
    }
}

fn compact(tape: &[Node<'_>], at: usize) -> String {
    let mut writer = CompactWriter::default();
    for node in tape.get(at..after(tape, at)).unwrap_or_default() {
        match node {
            Node::String(text) => writer.text(text),
            Node::Object { count, .. } => writer.open(*count, true),
            Node::Array { count, .. } => writer.open(*count, false),
            Node::Static(StaticNode::Null) => writer.scalar("null"),
            Node::Static(StaticNode::Bool(truth)) => writer.scalar(if *truth { "true" } else { "false" }),
            Node::Static(StaticNode::I64(number)) => writer.scalar(&number.to_string()),
            Node::Static(StaticNode::U64(number)) => writer.scalar(&number.to_string()),
            Node::Static(StaticNode::F64(number)) => writer.scalar(&float_text(*number)),
        }
    }
    writer.finish()
}
