//! What is wrong with a rule file, where, and what was probably meant.
//!
//! Codes are stable: `E01xx` keeps a rule out of the set, `W02xx` does not.

use std::fmt;

use serde::Serialize;

/// Whether a rule can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The rule is left out.
    Error,
    /// The rule is used.
    Warning,
}

macro_rules! codes {
    ($($variant:ident, $code:literal, $meaning:literal;)+) => {
        /// What kind of problem it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $variant),+
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code as it is printed.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }
        }
    };
}

codes! {
    File, "E0100", "The file cannot be read as rules: too large or not UTF-8";
    Yaml, "E0101", "The file is not valid YAML";
    DuplicateKey, "E0102", "A key stands twice in one mapping";
    YamlLimit, "E0103", "The YAML is nested too deeply or expands to too much";
    Document, "E0104", "The document is no rule";
    MissingKey, "E0105", "A key that must be there is missing";
    WrongType, "E0106", "A value is of the wrong kind";
    UnknownKey, "E0107", "A key is not known at this place";
    UnknownModifier, "E0110", "A modifier is not one of Sigma's";
    ModifierUse, "E0112", "Modifiers are combined or used in a way Sigma does not allow";
    Value, "E0113", "A value does not fit its modifier";
    Placeholder, "E0114", "A placeholder names no list";
    EmptyList, "E0115", "A list of values is empty";
    Regex, "E0116", "A regular expression is outside what can be matched in time linear in the text (RE2)";
    UnknownTable, "E0117", "A lookup names a table or a column that does not exist";
    LookupUse, "E0118", "A lookup is put together in a way that cannot work";
    ConditionSyntax, "E0120", "A condition cannot be read";
    UndefinedIdentifier, "E0121", "A condition names a search that is not defined";
    Obsolete, "E0122", "A construct that Sigma has given up";
    UnknownCorrelation, "E0130", "The correlation type is not one of Sigma's";
    CorrelationCondition, "E0131", "The condition of a correlation cannot be read or cannot hold";
    UnknownMember, "E0132", "A correlation names a rule that does not exist";
    CorrelationUse, "E0133", "A correlation is put together in a way that cannot work";
    Duration, "E0134", "A length of time cannot be read";
    BadMember, "E0135", "A correlation names a rule that has errors";
    TableUse, "E0140", "A table is put together in a way that cannot work";
    TableFile, "E0141", "The file a table is read from cannot be used";
    FilterUse, "E0142", "An exception is put together in a way that cannot work";
    UnknownTarget, "E0143", "An exception names a rule that does not exist";
    Sql, "E0144", "A query is not one that can be run on a schedule";
    Duplicate, "E0151", "Two rules have the same id or name";
    Test, "E0160", "A test inside a rule cannot be read";
    UnknownField, "W0201", "A field is not in the cicd taxonomy and will be looked up as a native path";
    SimilarKey, "W0202", "A key is not known and looks like a misspelt one";
    UnusedSearch, "W0203", "A search is defined but no condition names it";
    NoId, "W0204", "A rule has neither id nor name";
    YesNo, "W0206", "An unquoted yes, no, on or off is text here but a boolean in older YAML";
    UnknownSource, "W0208", "A required source is neither a source type nor a feed";
    UnboundSource, "W0209", "A correlation looks at a rule that no source type feeds";
    UnknownGroupKey, "W0210", "A group key is not among the fields of the sources";
    AbsenceSource, "W0211", "The source of what must not happen is not among those the rule requires";
    AbsenceShort, "W0212", "What must not happen is awaited for less time than its source may be late";
    NoLearn, "W0213", "A rule on what is new begins without learning what is known";
    NoExpiry, "W0214", "An exception never ends";
    WideFilter, "W0215", "An exception covers more than the rule it is for";
    UnusedFilter, "W0216", "An exception covers no event of a rule it is for";
    EmptyNamedList, "W0217", "A list that a condition names is empty";
    SameDigest, "W0218", "Two rules find the same";
}

impl Code {
    /// Whether a rule with this problem can be used.
    #[must_use]
    pub fn severity(self) -> Severity {
        if self.name().starts_with('E') { Severity::Error } else { Severity::Warning }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A problem in a rule file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What kind of problem.
    pub code: Code,
    /// Whether the rule can be used.
    pub severity: Severity,
    /// The file, as it was named when loading.
    pub file: String,
    /// Where in it.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it, or what was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Place { line, column } = self.place;
        write!(formatter, "{}:{line}:{column}: {severity}[{}]: {}", self.file, self.code, self.message)?;
        match &self.help {
            Some(help) => write!(formatter, " ({help})"),
            None => Ok(()),
        }
    }
}

impl Diagnostic {
    /// The problem with its source line and a caret under the place, for people. `text` is the file's text.
    #[must_use]
    pub fn render(&self, text: &str) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Place { line, column } = self.place;
        let mut out = format!("{severity}[{}]: {}\n  --> {}:{line}:{column}\n", self.code, self.message, self.file);
        if let Some(source) = text.lines().nth(line.saturating_sub(1)) {
            let number = line.to_string();
            let gutter = " ".repeat(number.len());
            // Tabs stay tabs, so that the caret stands where the terminal puts the character.
            let before = source.chars().take(column.saturating_sub(1));
            let indent: String = before.map(|char| if char == '\t' { '\t' } else { ' ' }).collect();
            out.push_str(&format!("{gutter} |\n{number} | {source}\n{gutter} | {indent}^\n"));
        }
        if let Some(help) = &self.help {
            out.push_str(&format!("  = help: {help}\n"));
        }
        out
    }
}

/// Most problems told of one file: a file with more is no rule file that somebody will mend line by line.
const PROBLEMS_MAX: usize = 1_000;
/// Longest name for which a similar one is looked for, in bytes.
const SIMILAR_BYTES_MAX: usize = 80;

/// Collects the problems of one file.
#[derive(Debug)]
pub(crate) struct Report<'f> {
    file: &'f str,
    pub(crate) found: Vec<Diagnostic>,
    errors: usize,
}

impl<'f> Report<'f> {
    pub(crate) fn new(file: &'f str) -> Self {
        Self { file, found: Vec::new(), errors: 0 }
    }

    pub(crate) fn add(&mut self, code: Code, place: Place, message: impl Into<String>) {
        self.add_help(code, place, message, None);
    }

    pub(crate) fn add_help(&mut self, code: Code, place: Place, message: impl Into<String>, help: Option<String>) {
        let severity = code.severity();
        self.errors += usize::from(severity == Severity::Error);
        // The first error is always told, or a file would be refused without a word.
        if self.found.len() >= PROBLEMS_MAX && (severity == Severity::Warning || self.errors > 1) {
            return;
        }
        self.found.push(Diagnostic {
            code,
            severity,
            file: self.file.to_owned(),
            place,
            message: message.into(),
            help,
        });
    }

    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// Whether so much is wrong that it is not worth the time to guess what was meant.
    pub(crate) fn is_crowded(&self) -> bool {
        self.found.len() >= PROBLEMS_MAX / 5
    }
}

/// "did you mean `x`?" for the known name nearest to `name`, if one is near.
pub(crate) fn did_you_mean<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(name, known).map(|near| format!("did you mean `{near}`?"))
}

/// The known name that a misspelt one most probably stands for.
pub(crate) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if name.len() > SIMILAR_BYTES_MAX {
        return None;
    }
    let limit = (name.chars().count() / 3).clamp(1, 3);
    // Each edit changes the length by at most one character of at most four bytes.
    let close = |other: &&str| other.len() <= SIMILAR_BYTES_MAX && other.len().abs_diff(name.len()) <= 4 * limit;
    let near = known.into_iter().filter(close).map(|other| (distance(name, other), other));
    let near = near.filter(|(steps, _)| *steps <= limit);
    near.min().map(|(_, other)| other)
}

/// Edits (insert, delete, replace, swap neighbours) between two names, letter case aside.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().collect();
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let width = right.len() + 1;
    let mut table = vec![0_usize; (left.len() + 1) * width];
    let get = |table: &[usize], row: usize, column: usize| table.get(row * width + column).copied().unwrap_or(0);
    for row in 0..=left.len() {
        for column in 0..=right.len() {
            let value = if row == 0 || column == 0 {
                row.max(column)
            } else {
                let same = left.get(row - 1) == right.get(column - 1);
                let mut least = get(&table, row - 1, column - 1) + usize::from(!same);
                least = least.min(get(&table, row - 1, column) + 1).min(get(&table, row, column - 1) + 1);
                let swapped = row > 1
                    && column > 1
                    && left.get(row - 1) == right.get(column - 2)
                    && left.get(row - 2) == right.get(column - 1);
                if swapped { least.min(get(&table, row - 2, column - 2) + 1) } else { least }
            };
            if let Some(slot) = table.get_mut(row * width + column) {
                *slot = value;
            }
        }
    }
    get(&table, left.len(), right.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["contains", "startswith", "endswith", "re", "cidr"];
        for (name, expected) in [
            ("contain", Some("contains")),
            ("startwith", Some("startswith")),
            ("endswiht", Some("endswith")),
            ("er", Some("re")),
            ("xyzzy", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }

    #[test]
    fn rendering_points_at_the_place() {
        let text = "title: x\ndetection:\n  s:\n    a|contain: b\n";
        let mut report = Report::new("rules/x.yml");
        let place = Place { line: 4, column: 7 };
        let help = did_you_mean("contain", ["contains"]);
        report.add_help(Code::UnknownModifier, place, "unknown modifier `contain`", help);
        let expected = "error[E0110]: unknown modifier `contain`\n  --> rules/x.yml:4:7\n  |\n4 |     a|contain: b\n  |       ^\n  = help: did you mean `contains`?\n";
        assert_eq!(report.found[0].render(text), expected);
    }

    #[test]
    fn codes_are_unique_and_ordered() {
        let names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
    }
}
