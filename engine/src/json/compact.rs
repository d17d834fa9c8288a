//! Writing a tape as compact JSON, node by node, without recursion.

use super::{Node, Value, float_text, strings};

/// Writes a tape as compact JSON.
#[derive(Debug, Default)]
pub(crate) struct CompactWriter {
    out: String,
    /// Open containers: nodes left, whether an object, whether the next node is a key, whether it is the first.
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    left: usize,
    object: bool,
    key_next: bool,
    first: bool,
}

impl CompactWriter {
    /// A writer of a text of about so many bytes.
    pub(super) fn with_room(room: usize) -> Self {
        Self { out: String::with_capacity(room), open: Vec::new() }
    }

    /// Before each node: separator, and count it on every open container.
    fn before(&mut self, own: usize) {
        while self.open.last().is_some_and(|open| open.left == 0) {
            self.close();
        }
        if let Some(open) = self.open.last_mut() {
            if open.object && !open.key_next {
                self.out.push(':');
            } else if !open.first {
                self.out.push(',');
            }
            open.first = false;
            open.key_next = open.object && !open.key_next;
            open.left = open.left.saturating_sub(own);
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.pop() {
            self.out.push(if open.object { '}' } else { ']' });
        }
    }

    /// A string or a key.
    pub(crate) fn text(&mut self, text: &str) {
        self.before(1);
        self.out.push('"');
        // Nearly all text is written as it is; to look at all of it at once is quicker than to look for the first that is not.
        if strings::is_plain(text.as_bytes()) {
            self.out.push_str(text);
            self.out.push('"');
            return;
        }
        for char in text.chars() {
            match char {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                control if u32::from(control) < 0x20 => {
                    self.out.push_str(&format!("\\u{:04x}", u32::from(control)));
                }
                other => self.out.push(other),
            }
        }
        self.out.push('"');
    }

    /// A number, boolean or null.
    pub(crate) fn scalar(&mut self, text: &str) {
        self.before(1);
        self.out.push_str(text);
    }

    /// An object or array that holds the next `count` nodes.
    pub(crate) fn open(&mut self, count: usize, object: bool) {
        self.before(count.saturating_add(1));
        self.out.push(if object { '{' } else { '[' });
        self.open.push(Open { left: count, object, key_next: object, first: true });
    }

    /// The text written.
    pub(crate) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.out
    }
}

impl Value<'_> {
    /// The value as compact JSON, keys in the order written.
    #[must_use]
    pub fn compact(self) -> String {
        let nodes = self.json.nodes.get(self.at..self.json.after(self.at)).unwrap_or_default();
        let room = |node: &Node| match node {
            Node::Text { len, .. } | Node::Key { len, .. } => *len as usize + 3,
            _ => 8,
        };
        let mut writer = CompactWriter::with_room(nodes.iter().map(room).sum());
        for node in nodes {
            match *node {
                Node::Text { at, len } | Node::Key { at, len, .. } => writer.text(self.json.slice(at, len)),
                Node::Null => writer.scalar("null"),
                Node::Bool(truth) => writer.scalar(if truth { "true" } else { "false" }),
                Node::Int(number) => writer.scalar(&number.to_string()),
                Node::Uint(number) => writer.scalar(&number.to_string()),
                Node::Float(number) => writer.scalar(&float_text(number)),
                Node::Decimal { at, len } => writer.scalar(&float_text(self.json.decimal(at, len))),
                Node::Array { count } => writer.open(count as usize, false),
                Node::Object { count } => writer.open(count as usize, true),
            }
        }
        writer.finish()
    }
}
