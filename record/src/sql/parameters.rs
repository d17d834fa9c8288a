//! Parameters of a query, written into its text as literals: `:P0`, `:P1` and any other `:NAME`.

use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::SqlError;

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// A point in time, as a timestamp of microseconds without zone, like the times in the fact views.
    Time(Timestamp),
    /// Text.
    Text(String),
    /// An integer.
    Int(i64),
}

impl Parameter {
    /// The parameters of a control test over `[from, to)`.
    #[must_use]
    pub const fn period(from: Timestamp, to: Timestamp) -> [(&'static str, Self); 2] {
        [("P0", Self::Time(from)), ("P1", Self::Time(to))]
    }

    fn literal(&self) -> String {
        match self {
            Self::Time(time) => format!("CAST('{time}' AS TIMESTAMP(6))"),
            Self::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Self::Int(number) => format!("({number})"),
        }
    }
}

/// The text with every `:NAME` outside literals, quoted names and comments replaced by its value.
pub(super) fn substitute(text: &str, parameters: &[(&str, Parameter)]) -> Result<String, SqlError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '\'' | '"' => quoted(rest, first),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            // A cast.
            ':' if rest.starts_with("::") => 2,
            ':' => {
                let name = name(rest.get(1..).unwrap_or_default());
                if !name.is_empty() {
                    let (_, value) = parameters
                        .iter()
                        .find(|(known, _)| *known == name)
                        .ok_or_else(|| SqlError::NoParameter(name.to_owned()))?;
                    out.push_str(&value.literal());
                    rest = rest.get(1 + name.len()..).unwrap_or_default();
                    continue;
                }
                1
            }
            other => other.len_utf8(),
        };
        let (copied, after) = rest.split_at(taken);
        out.push_str(copied);
        rest = after;
    }
    Ok(out)
}

/// Length of a quoted piece, its quotes included; a doubled quote does not end it.
fn quoted(text: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(end) = text.get(at..).and_then(|rest| rest.find(quote)) {
        at += end + 1;
        if !text.get(at..).is_some_and(|rest| rest.starts_with(quote)) {
            return at;
        }
        at += 1;
    }
    text.len()
}

fn name(text: &str) -> &str {
    if !text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        return "";
    }
    let end = text.find(|other: char| !other.is_ascii_alphanumeric() && other != '_').unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_parameters_are_replaced() {
        let parameters = [("P0", Parameter::Time(Timestamp::from_secs(0))), ("who", Parameter::Text("o'neil".into()))];
        for (text, expected) in [
            ("at >= :P0", "at >= CAST('1970-01-01T00:00:00Z' AS TIMESTAMP(6))"),
            ("a = :who", "a = 'o''neil'"),
            ("a = ':P0'", "a = ':P0'"),
            ("a = 'it''s :P0'", "a = 'it''s :P0'"),
            (r#"":P0" = 1"#, r#"":P0" = 1"#),
            ("1 -- :P9\n", "1 -- :P9\n"),
            ("1 /* :P9 */ + :who", "1 /* :P9 */ + 'o''neil'"),
            ("a::varchar", "a::varchar"),
            ("map[1:2]", "map[1:2]"),
            ("'ü' = :who", "'ü' = 'o''neil'"),
            ("'open :P0", "'open :P0"),
        ] {
            assert_eq!(substitute(text, &parameters).unwrap(), expected, "{text}");
        }
        assert!(matches!(substitute(":P1", &parameters), Err(SqlError::NoParameter(name)) if name == "P1"));
    }

    proptest! {
        #[test]
        fn text_without_colons_is_left_alone(text in "[^:]*") {
            prop_assert_eq!(substitute(&text, &[]).unwrap(), text);
        }

        #[test]
        fn any_text_ends(text in ".*") {
            drop(substitute(&text, &[("P0", Parameter::Int(1))]));
        }
    }
}
