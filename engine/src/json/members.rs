//! Going through what an object or array holds.

use super::{Json, Node, Value};

/// Keys and values of an object.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    pub(super) json: &'a Json,
    pub(super) at: usize,
    pub(super) end: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, Value<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let key = Value { json: self.json, at: self.at }.as_str().unwrap_or_default();
        let value = Value { json: self.json, at: self.at + 1 };
        self.at = match self.json.node(self.at) {
            Node::Key { after, .. } => after as usize,
            _ => self.json.after(self.at + 1),
        };
        Some((key, value))
    }
}

/// Elements of an array.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    pub(super) json: &'a Json,
    pub(super) at: usize,
    pub(super) end: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let value = Value { json: self.json, at: self.at };
        self.at = self.json.after(self.at);
        Some(value)
    }
}
