//! Lists of values that rules name as `%name%` under `expand`: runner networks, deployers, known-bad commits.

use std::collections::BTreeMap;

use crate::value::product;

/// Lists by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists(BTreeMap<String, Vec<String>>);

impl Lists {
    /// No lists.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The lists shipped with the rules.
    #[must_use]
    pub fn shipped() -> Self {
        crate::library::library_lists()
    }

    /// Sets a list, replacing the one of that name.
    pub fn set(&mut self, name: impl Into<String>, values: Vec<String>) {
        self.0.insert(name.into(), values);
    }

    /// Sets a list from text: one value a line; empty lines and what follows `#` at the start of a line or after a
    /// blank do not count.
    pub fn set_text(&mut self, name: impl Into<String>, text: &str) {
        let values = text.lines().map(|line| {
            let line = line.find(" #").and_then(|at| line.get(..at)).unwrap_or(line).trim();
            if line.starts_with('#') { "" } else { line }
        });
        self.set(name, values.filter(|line| !line.is_empty()).map(str::to_owned).collect());
    }

    /// Takes over the lists of `other`, which replace those of the same name.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The values of a list.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// The names of all lists.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Replaces every `%name%` of a text by each value of that list; `\%` is a percent sign.
    ///
    /// # Errors
    /// The name of a list that does not exist.
    pub(crate) fn expand(&self, text: &str) -> Result<Vec<String>, String> {
        let mut texts = vec![String::new()];
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, after) = (rest.get(..at).unwrap_or_default(), rest.get(at + 1..).unwrap_or_default());
            if let Some(before) = before.strip_suffix('\\') {
                texts.iter_mut().for_each(|text| text.push_str(&format!("{before}%")));
                rest = after;
                continue;
            }
            let name = after.find('%').and_then(|end| after.get(..end)).filter(|name| {
                !name.is_empty()
                    && name.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.'))
            });
            let Some(name) = name else {
                texts.iter_mut().for_each(|text| text.push_str(&format!("{before}%")));
                rest = after;
                continue;
            };
            let values = self.get(name).ok_or_else(|| name.to_owned())?;
            texts.iter_mut().for_each(|text| text.push_str(before));
            texts = product(&texts, values, |text, value| format!("{text}{value}")).map_err(|_| name.to_owned())?;
            rest = after.get(name.len() + 1..).unwrap_or_default();
        }
        texts.iter_mut().for_each(|text| text.push_str(rest));
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_placeholders() {
        let mut lists = Lists::new();
        lists.set_text("who", "# people\nalice\n\n bob # the builder\n");
        lists.set("empty", Vec::new());
        assert_eq!(lists.get("who").unwrap(), ["alice", "bob"]);
        assert_eq!(lists.expand("%who%").unwrap(), ["alice", "bob"]);
        assert_eq!(lists.expand("x-%who%-%who%").unwrap().len(), 4);
        assert_eq!(lists.expand(r"100\% of %who%").unwrap(), ["100% of alice", "100% of bob"]);
        assert_eq!(lists.expand("50% off").unwrap(), ["50% off"]);
        assert_eq!(lists.expand("%empty%").unwrap(), Vec::<String>::new());
        assert_eq!(lists.expand("%whom%"), Err("whom".to_owned()));
    }
}
