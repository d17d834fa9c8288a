//! Going through what an object or array holds.

use super::{Node, Parsed, Value};

/// Keys and values of an object.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    pub(super) json: &'a Parsed<'a>,
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
    pub(super) json: &'a Parsed<'a>,
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

impl<'a> Value<'a> {
    /// The members of these names of an object, found in one pass over it; each as [`Value::get`] gives it.
    #[inline]
    #[must_use]
    pub fn members<const N: usize>(self, keys: [&str; N]) -> [Option<Self>; N] {
        let mut found = [None; N];
        for (key, value) in self.entries() {
            for (name, found) in keys.iter().zip(&mut found) {
                // Most keys differ in length or in their last letter.
                if key.len() == name.len() && key.as_bytes().last() == name.as_bytes().last() && key == *name {
                    *found = Some(value);
                }
            }
        }
        found
    }
}
