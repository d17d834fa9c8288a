//! Which fields rules read, and one pass over an event's tape that finds their values.
//!
//! A path trie directs the pass, so that whatever no rule reads is stepped over. Values are handed on as they are found
//! and never gathered. What this is not: a table of events for storage; see the lake for that.

use simd_json::{Node, StaticNode};

use crate::event::Event;
use crate::fields::{Field, Value};
use crate::intern::Kind;
use crate::json::{CompactWriter, DEPTH_MAX, float_text};
use crate::rule::Taxonomy;
use crate::spelling::Spelling;

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ColumnKey {
    /// A field of the `cicd` taxonomy.
    Normalised(Field),
    /// A path into the native JSON, as [`Spelling::canonical`] has it.
    Native(String),
    /// Every scalar of the native JSON: what keywords are looked up in.
    Everything,
}

impl ColumnKey {
    /// The column a field name of a rule stands for, in events whose native names are these.
    pub(crate) fn of(taxonomy: Taxonomy, spelling: Spelling, field: &str) -> Self {
        let normalised = match taxonomy {
            Taxonomy::Cicd => Field::from_name(field),
            Taxonomy::Sigma => None,
        };
        normalised.map_or_else(|| Self::Native(spelling.canonical(field).into_owned()), Self::Normalised)
    }
}

/// No place in the trie.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// Takes the values of an event as they are found.
pub(crate) trait Sink {
    /// A value of a column.
    fn value(&mut self, column: u32, kind: Kind, text: &str);
}

/// One place in the path trie.
#[derive(Debug, Default)]
struct TrieNode {
    column: Option<u32>,
    children: Vec<Child>,
    /// Open addressing over `children`; 0 is empty, else index + 1. Its length is a power of two, or 0 for no children.
    slots: Vec<u16>,
}

/// A way on from a place.
#[derive(Debug)]
struct Child {
    /// It may hold dots, since JSON keys may.
    key: Box<str>,
    /// See [`ends`].
    ends: (u64, u64),
    node: u32,
}

impl Child {
    #[inline]
    fn is(&self, key: &[u8], ends: (u64, u64)) -> bool {
        self.key.len() == key.len() && self.ends == ends && (key.len() <= 16 || self.key.as_bytes() == key)
    }
}

/// Which columns to fill.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    /// Whether some predicate looks at the JSON text of objects, per column.
    object_text: Vec<bool>,
    /// (field, column), sorted.
    normalised: Vec<(Field, u32)>,
    everything: Option<u32>,
    trie: Vec<TrieNode>,
}

impl Schema {
    /// A schema of these columns, whose native paths have these names; `object_text` says of each whether the JSON text of
    /// objects is wanted.
    pub(crate) fn new(columns: Vec<(ColumnKey, bool)>, spelling: Spelling) -> Self {
        let (keys, object_text): (Vec<_>, _) = columns.into_iter().unzip();
        let mut schema = Self { object_text, normalised: Vec::new(), everything: None, trie: Vec::new() };
        for (column, key) in (0_u32..).zip(keys) {
            match key {
                ColumnKey::Normalised(field) => schema.normalised.push((field, column)),
                ColumnKey::Native(path) => {
                    spelling.spellings(&path).into_iter().for_each(|path| schema.add_path(&path, column));
                }
                ColumnKey::Everything => schema.everything = Some(column),
            }
        }
        schema.normalised.sort_unstable();
        schema.trie.iter_mut().for_each(TrieNode::index);
        schema
    }

    /// Whether the native JSON has to be looked at.
    pub(crate) fn reads_native(&self) -> bool {
        self.everything.is_some() || !self.trie.is_empty()
    }

    /// The column of all scalars.
    #[inline]
    pub(crate) const fn everything(&self) -> Option<u32> {
        self.everything
    }

    /// The place of the whole.
    #[inline]
    pub(crate) const fn root(&self) -> u32 {
        if self.trie.is_empty() { NOWHERE } else { 0 }
    }

    /// The column of the values at a place.
    #[inline]
    pub(crate) fn column(&self, place: u32) -> Option<u32> {
        self.trie.get(place as usize)?.column
    }

    #[inline]
    pub(crate) fn has_children(&self, place: u32) -> bool {
        self.trie.get(place as usize).is_some_and(|node| !node.children.is_empty())
    }

    /// The place of a member of the objects at a place.
    #[inline]
    pub(crate) fn child(&self, place: u32, key: &[u8]) -> u32 {
        self.trie.get(place as usize).and_then(|node| node.child(key)).unwrap_or(NOWHERE)
    }

    /// Whether some predicate of a column looks at the JSON text of objects.
    #[inline]
    pub(crate) fn wants_text(&self, column: u32) -> bool {
        self.object_text.get(column as usize).copied().unwrap_or(false)
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
            let child = self.edge(parent, segment).unwrap_or_else(|| self.add_child(parent, segment));
            nodes.push(child);
        }
        // A path of more parts than JSON may be deep has too many runs; only its parts one by one lead on. Rules with such
        // fields are refused where they are loaded.
        let starts = if segments.len() <= DEPTH_MAX { segments.len() } else { 0 };
        for start in 0..starts {
            for end in start + 2..=segments.len() {
                let key = segments.get(start..end).unwrap_or_default().join(".");
                let (Some(&from), Some(&to)) = (nodes.get(start), nodes.get(end)) else { continue };
                if self.edge(from, &key).is_none() {
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
        if let Some(parent) = self.trie.get_mut(parent as usize) {
            parent.children.push(Child { key: key.into(), ends: ends(key.as_bytes()), node });
        }
    }

    fn edge(&self, node: u32, key: &str) -> Option<u32> {
        self.trie.get(node as usize)?.children.iter().find(|child| *child.key == *key).map(|child| child.node)
    }

    /// Hands on the values of the normalised fields.
    pub(crate) fn fields(&self, event: &Event, sink: &mut impl Sink) {
        if self.normalised.is_empty() {
            return;
        }
        for (field, value) in event.fields.iter() {
            let Ok(at) = self.normalised.binary_search_by_key(&field, |(name, _)| *name) else { continue };
            let Some(&(_, column)) = self.normalised.get(at) else { continue };
            match value {
                Value::Text(text) => sink.value(column, Kind::Text, text),
                Value::Int(number) => Digits::of(*number < 0, number.unsigned_abs()).give(column, sink),
                Value::Bool(truth) => sink.value(column, Kind::Bool, bool_text(*truth)),
                Value::Time(time) => sink.value(column, Kind::Text, &time.to_string()),
            }
        }
    }

    /// Hands on the values of the native fields.
    pub(crate) fn native(&self, tape: &[Node<'_>], sink: &mut impl Sink) {
        if !self.trie.is_empty() {
            self.walk(tape, 0, 0, sink);
        }
        if let Some(column) = self.everything {
            everything(tape, column, sink);
        }
    }

    /// Takes what the trie asks for from the value at `at`. Recurses as deep as the text is nested, which is limited.
    fn walk(&self, tape: &[Node<'_>], at: usize, place: u32, sink: &mut impl Sink) {
        let Some(trie) = self.trie.get(place as usize) else { return };
        match tape.get(at) {
            Some(Node::Array { len: 0, .. }) => {
                if let Some(column) = trie.column {
                    sink.value(column, Kind::Empty, "");
                }
            }
            Some(Node::Array { len, .. }) => {
                let mut item = at + 1;
                for _ in 0..*len {
                    self.walk(tape, item, place, sink);
                    item = after(tape, item);
                }
            }
            Some(Node::Object { len, .. }) => {
                if let Some(column) = trie.column {
                    if self.wants_text(column) {
                        sink.value(column, Kind::Object, &compact(tape, at));
                    } else {
                        sink.value(column, Kind::Object, "");
                    }
                }
                if trie.children.is_empty() {
                    return;
                }
                let mut key = at + 1;
                for _ in 0..*len {
                    if let Some(Node::String(name)) = tape.get(key)
                        && let Some(child) = trie.child(name.as_bytes())
                    {
                        self.walk(tape, key + 1, child, sink);
                    }
                    key = after(tape, key + 1);
                }
            }
            Some(value) => {
                if let Some(column) = trie.column {
                    scalar(column, value, sink);
                }
            }
            None => {}
        }
    }
}

impl TrieNode {
    fn index(&mut self) {
        if self.children.is_empty() || self.children.len() > usize::from(u16::MAX / 4) {
            return;
        }
        let len = (self.children.len() * 4).next_power_of_two();
        self.slots = vec![0; len];
        for (number, child) in (1_u16..).zip(&self.children) {
            let mut at = key_hash(child.key.len(), child.ends) & (len - 1);
            while self.slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & (len - 1);
            }
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = number;
            }
        }
    }

    #[inline]
    fn child(&self, key: &[u8]) -> Option<u32> {
        let ends = ends(key);
        if self.slots.is_empty() {
            return self.children.iter().find(|child| child.is(key, ends)).map(|child| child.node);
        }
        let mut at = key_hash(key.len(), ends) & (self.slots.len() - 1);
        loop {
            let index = self.slots.get(at)?.checked_sub(1)?;
            let child = self.children.get(usize::from(index))?;
            if child.is(key, ends) {
                return Some(child.node);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

/// The first and last eight bytes of a key, or of a shorter one all of it. With the length they tell keys of up to 16 bytes
/// apart, and nearly all longer ones.
#[inline]
fn ends(key: &[u8]) -> (u64, u64) {
    match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (key.first_chunk::<4>(), key.last_chunk::<4>()) {
            (Some(first), Some(last)) => {
                (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)) << 32)
            }
            _ => (key.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
        },
    }
}

/// A hash of a key by its length and its ends. They are the rules' own, so that no event can make the table slow.
#[inline]
fn key_hash(len: usize, (first, last): (u64, u64)) -> usize {
    let word = first ^ last.rotate_left(23) ^ (len as u64).rotate_left(57);
    (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize
}

/// An integer as JSON writes it.
struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    fn of(negative: bool, mut number: u64) -> Self {
        let mut digits = Self { bytes: [b'0'; 20], start: 20 };
        loop {
            digits.push(b'0' + (number % 10) as u8);
            number /= 10;
            if number == 0 {
                break;
            }
        }
        if negative {
            digits.push(b'-');
        }
        digits
    }

    fn push(&mut self, byte: u8) {
        // Twenty places hold the largest number, and the sign of the least.
        self.start = self.start.saturating_sub(1);
        if let Some(place) = self.bytes.get_mut(self.start) {
            *place = byte;
        }
    }

    fn give(&self, column: u32, sink: &mut impl Sink) {
        let text = self.bytes.get(self.start..).and_then(|bytes| std::str::from_utf8(bytes).ok());
        sink.value(column, Kind::Number, text.unwrap_or_default());
    }
}

const fn bool_text(truth: bool) -> &'static str {
    if truth { "true" } else { "false" }
}

fn scalar(column: u32, node: &Node<'_>, sink: &mut impl Sink) {
    match node {
        Node::String(text) => sink.value(column, Kind::Text, text),
        Node::Static(StaticNode::Null) => sink.value(column, Kind::Null, ""),
        Node::Static(StaticNode::Bool(truth)) => sink.value(column, Kind::Bool, bool_text(*truth)),
        Node::Static(StaticNode::I64(number)) => Digits::of(*number < 0, number.unsigned_abs()).give(column, sink),
        Node::Static(StaticNode::U64(number)) => Digits::of(false, *number).give(column, sink),
        Node::Static(StaticNode::F64(number)) => sink.value(column, Kind::Number, &float_text(*number)),
        Node::Array { .. } | Node::Object { .. } => {}
    }
}

/// Hands on every scalar that is not a key and not null.
fn everything(tape: &[Node<'_>], column: u32, sink: &mut impl Sink) {
    // Ends of the open objects and arrays, innermost last; inside an object, keys and values alternate.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut at = 0;
    while at < tape.len() {
        while open.last().is_some_and(|(end, _)| *end <= at) {
            open.pop();
        }
        if matches!(open.last(), Some((_, true))) {
            at += 1;
        }
        match tape.get(at) {
            Some(Node::Object { .. }) => open.push((after(tape, at), true)),
            Some(Node::Array { .. }) => open.push((after(tape, at), false)),
            Some(Node::Static(StaticNode::Null)) | None => {}
            Some(value) => scalar(column, value, sink),
        }
        at += 1;
    }
}

/// The last value of a member of the object that is the whole, if it is a text.
pub(crate) fn root_text<'t>(tape: &'t [Node<'_>], key: &str) -> Option<&'t str> {
    let Some(Node::Object { len, .. }) = tape.first() else { return None };
    let mut found = None;
    let mut at = 1;
    for _ in 0..*len {
        if matches!(tape.get(at), Some(Node::String(name)) if *name == key) {
            found = match tape.get(at + 1) {
                Some(Node::String(text)) => Some(*text),
                _ => None,
            };
        }
        at = after(tape, at + 1);
    }
    found
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
