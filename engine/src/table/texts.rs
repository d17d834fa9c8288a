//! Several texts, some of them missing, in one allocation: a table may hold millions of rows.

use serde::{Deserialize, Serialize};

/// Texts in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Texts(Box<str>);

impl Texts {
    /// From texts; `None` is a missing one.
    pub fn of<'t>(texts: impl IntoIterator<Item = Option<&'t str>>) -> Self {
        use std::fmt::Write as _;
        let mut all = String::new();
        for text in texts {
            match text {
                // Writing to a string does not fail.
                Some(text) => write!(all, "{}:{text}", text.len()).ok(),
                None => all.write_char('~').ok(),
            };
        }
        Self(all.into())
    }

    /// The texts. Damaged ones end the list.
    pub fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            if let Some(after) = rest.strip_prefix('~') {
                rest = after;
                return Some(None);
            }
            let (len, after) = rest.split_once(':')?;
            let (text, after) = after.split_at_checked(len.parse().ok()?)?;
            rest = after;
            Some(Some(text))
        })
    }

    /// The text with this number.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<&str> {
        self.iter().nth(number).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_back_whatever_they_hold() {
        let texts = [Some("a:1"), None, Some(""), Some("~3:ä"), None];
        let all = Texts::of(texts);
        assert_eq!(all.iter().collect::<Vec<_>>(), texts);
        assert_eq!(all.get(3), Some("~3:ä"));
        assert_eq!((all.get(1), all.get(9)), (None, None));
        assert_ne!(Texts::of([Some("a"), Some("b")]), Texts::of([Some("ab"), Some("")]));
        for end in (0..all.0.len()).filter(|end| all.0.is_char_boundary(*end)) {
            let cut = Texts(all.0[..end].into());
            assert!(cut.iter().count() <= texts.len(), "damage ends the list");
        }
    }
}
