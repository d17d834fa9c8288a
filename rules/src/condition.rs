//! The condition language of Sigma: `or` < `and` < `not` < `1|any|all of` < parentheses.

use std::collections::{BTreeMap, BTreeSet};

use pipeproof_engine::rule::Condition;

use crate::diagnostic::{Code, Place, Report, did_you_mean};

/// Deepest nesting of parentheses and `not`.
const DEPTH_MAX: usize = 64;

/// Most tests a condition may have once its searches are filled in; naming a large search often would exceed it.
const TESTS_MAX: usize = 1_000_000;

/// The searches of a detection by name.
#[derive(Debug, Default)]
pub(crate) struct Searches {
    by_name: BTreeMap<String, (Condition, usize)>,
    tests: usize,
}

impl Searches {
    pub(crate) fn insert(&mut self, name: String, search: Condition) {
        let size = size(&search);
        self.by_name.insert(name, (search, size));
    }
}

fn size(condition: &Condition) -> usize {
    match condition {
        Condition::And(parts) | Condition::Or(parts) => 1 + parts.iter().map(size).sum::<usize>(),
        Condition::Not(part) => 1 + size(part),
        Condition::Field { .. } | Condition::Keyword(_) | Condition::Lookup(_) => 1,
    }
}

/// Reads a condition over the searches. Names used are added to `used`; problems are reported at `place`.
pub(crate) fn parse(
    text: &str,
    place: Place,
    searches: &mut Searches,
    used: &mut BTreeSet<String>,
    report: &mut Report<'_>,
) -> Option<Condition> {
    let tokens = match tokens(text) {
        Ok(tokens) => tokens,
        Err((code, message)) => {
            report.add(code, place, message);
            return None;
        }
    };
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), searches, used, depth: 0 };
    let parsed = parser.or().and_then(|condition| match parser.tokens.next() {
        None => Ok(condition),
        Some(token) => Err(unexpected(&token)),
    });
    match parsed {
        Ok(condition) => Some(condition),
        Err(problem) => {
            report.add_help(
                problem.code,
                place,
                format!("condition `{}`: {}", shown(text), problem.message),
                problem.help,
            );
            None
        }
    }
}

struct Problem {
    code: Code,
    message: String,
    help: Option<String>,
}

impl Problem {
    fn syntax(message: impl Into<String>) -> Self {
        Self { code: Code::ConditionSyntax, message: message.into(), help: None }
    }
}

/// Sigma's keywords are lower case, as in pySigma; `AND` would be the name of a search.
fn unexpected(token: &str) -> Problem {
    let lower = token.to_ascii_lowercase();
    let keyword = token != lower && matches!(lower.as_str(), "and" | "or" | "not" | "of" | "all" | "any" | "them");
    Problem { help: keyword.then(|| format!("write `{lower}`")), ..Problem::syntax(format!("unexpected `{token}`")) }
}

fn tokens(text: &str) -> Result<Vec<String>, (Code, String)> {
    let mut tokens: Vec<String> = Vec::new();
    let mut word = String::new();
    for char in text.chars() {
        if char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '*') {
            word.push(char);
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        match char {
            '(' | ')' => tokens.push(char.to_string()),
            '|' => {
                let message = "aggregations after `|` are obsolete; write a correlation rule";
                return Err((Code::Obsolete, message.to_owned()));
            }
            space if space.is_whitespace() => {}
            other => return Err((Code::ConditionSyntax, format!("unexpected character `{other}` in a condition"))),
        }
    }
    if !word.is_empty() {
        tokens.push(word);
    }
    Ok(tokens)
}

struct Parser<'c> {
    tokens: std::iter::Peekable<std::vec::IntoIter<String>>,
    searches: &'c mut Searches,
    used: &'c mut BTreeSet<String>,
    depth: usize,
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Condition, Problem> {
        let mut parts = vec![self.and()?];
        while self.tokens.next_if(|token| token == "or").is_some() {
            parts.push(self.and()?);
        }
        Ok(single(parts, Condition::Or))
    }

    fn and(&mut self) -> Result<Condition, Problem> {
        let mut parts = vec![self.not()?];
        while self.tokens.next_if(|token| token == "and").is_some() {
            parts.push(self.not()?);
        }
        Ok(single(parts, Condition::And))
    }

    fn not(&mut self) -> Result<Condition, Problem> {
        if self.tokens.next_if(|token| token == "not").is_none() {
            return self.term();
        }
        self.descend()?;
        let part = self.not()?;
        self.depth -= 1;
        Ok(Condition::Not(Box::new(part)))
    }

    fn descend(&mut self) -> Result<(), Problem> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Problem::syntax(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(())
    }

    fn term(&mut self) -> Result<Condition, Problem> {
        let Some(token) = self.tokens.next() else {
            return Err(Problem::syntax("it ends where a search is expected"));
        };
        if token == "(" {
            self.descend()?;
            let inner = self.or()?;
            self.depth -= 1;
            return match self.tokens.next() {
                Some(close) if close == ")" => Ok(inner),
                _ => Err(Problem::syntax("a parenthesis is not closed")),
            };
        }
        if token == ")" || token == "and" || token == "or" || token == "of" {
            return Err(unexpected(&token));
        }
        if self.tokens.next_if(|next| next == "of").is_some() {
            return self.of(&token);
        }
        if token.contains('*') {
            return Err(Problem::syntax(format!("the pattern `{token}` needs `1 of` or `all of` before it")));
        }
        self.search(&token)
    }

    fn of(&mut self, quantity: &str) -> Result<Condition, Problem> {
        let all = match quantity {
            "all" => true,
            "1" | "any" => false,
            other => {
                let message = format!("`{other} of` is no quantity; there are `1 of`, `any of` and `all of`");
                return Err(Problem::syntax(message));
            }
        };
        let Some(pattern) = self.tokens.next() else {
            return Err(Problem::syntax("nothing follows `of`"));
        };
        let names: Vec<String> = if pattern == "them" {
            self.searches.by_name.keys().filter(|name| !name.starts_with('_')).cloned().collect()
        } else {
            let hidden = pattern.starts_with('_');
            let fits = |name: &&String| (hidden || !name.starts_with('_')) && glob(&pattern, name);
            self.searches.by_name.keys().filter(fits).cloned().collect()
        };
        if names.is_empty() {
            return Err(Problem {
                code: Code::UndefinedIdentifier,
                message: format!("no search is called like `{pattern}`"),
                help: did_you_mean(pattern.trim_matches(['*', '_']), self.searches.by_name.keys().map(String::as_str)),
            });
        }
        let parts = names.iter().map(|name| self.search(name)).collect::<Result<Vec<_>, _>>()?;
        Ok(single(parts, if all { Condition::And } else { Condition::Or }))
    }

    fn search(&mut self, name: &str) -> Result<Condition, Problem> {
        let Some((condition, size)) = self.searches.by_name.get(name) else {
            let known = self.searches.by_name.keys().map(String::as_str).chain(["and", "or", "not", "all", "them"]);
            return Err(Problem {
                code: Code::UndefinedIdentifier,
                message: format!("the search `{name}` is not defined"),
                help: did_you_mean(name, known),
            });
        };
        self.searches.tests = self.searches.tests.saturating_add(*size);
        if self.searches.tests > TESTS_MAX {
            return Err(Problem::syntax(format!("with its searches filled in it has more than {TESTS_MAX} tests")));
        }
        self.used.insert(name.to_owned());
        Ok(condition.clone())
    }
}

fn single(mut parts: Vec<Condition>, many: fn(Vec<Condition>) -> Condition) -> Condition {
    if parts.len() == 1 { parts.remove(0) } else { many(parts) }
}

/// Whether `name` fits a pattern whose `*` stands for anything.
fn glob(pattern: &str, name: &str) -> bool {
    let mut runs = pattern.split('*');
    let Some(mut rest) = runs.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut runs = runs.peekable();
    if runs.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(run) = runs.next() {
        if runs.peek().is_none() {
            return rest.ends_with(run);
        }
        match rest.find(run) {
            Some(at) => rest = rest.get(at + run.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}

/// A text as an error repeats it.
fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use pipeproof_engine::rule::Predicate;

    use super::*;

    fn shape(condition: &Condition) -> String {
        match condition {
            Condition::And(parts) => format!("({})", parts.iter().map(shape).collect::<Vec<_>>().join(" & ")),
            Condition::Or(parts) => format!("({})", parts.iter().map(shape).collect::<Vec<_>>().join(" | ")),
            Condition::Not(part) => format!("!{}", shape(part)),
            Condition::Field { field, .. } => field.clone(),
            Condition::Keyword(_) => "keyword".to_owned(),
            Condition::Lookup(lookup) => format!("lookup {}", lookup.table),
        }
    }

    fn read(text: &str) -> Result<String, String> {
        let names = ["a", "b", "sel_1", "sel_2", "filter_main", "_hidden", "_hidden_2"];
        let mut searches = Searches::default();
        for name in names {
            let search = Condition::Field { field: name.to_owned(), predicate: Predicate::Exists(true) };
            searches.insert(name.to_owned(), search);
        }
        let mut report = Report::new("x");
        let place = Place { line: 1, column: 1 };
        let parsed = parse(text, place, &mut searches, &mut BTreeSet::new(), &mut report);
        parsed.map(|condition| shape(&condition)).ok_or_else(|| report.found[0].to_string())
    }

    #[test]
    fn precedence_and_quantities() {
        for (text, expected) in [
            ("a", "a"),
            ("a or b and not a", "(a | (b & !a))"),
            ("(a or b) and a", "((a | b) & a)"),
            ("not not a", "!!a"),
            ("not a and b", "(!a & b)"),
            ("1 of sel_*", "(sel_1 | sel_2)"),
            ("any of sel_*", "(sel_1 | sel_2)"),
            ("all of sel_* and not 1 of filter_*", "((sel_1 & sel_2) & !filter_main)"),
            ("all of them", "(a & b & filter_main & sel_1 & sel_2)"),
            ("1 of _hid*", "(_hidden | _hidden_2)"),
            ("1 of *_1", "sel_1"),
            ("1 of sel_1", "sel_1"),
            ("a\n  and b", "(a & b)"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (text, code, said) in [
            ("", "E0120", "ends where"),
            ("a and", "E0120", "ends where"),
            ("(a", "E0120", "not closed"),
            ("a b", "E0120", "unexpected `b`"),
            ("a AND b", "E0120", "unexpected `AND` (write `and`)"),
            ("NOT a", "E0121", "did you mean `not`?"),
            ("sel_*", "E0120", "needs `1 of`"),
            ("2 of them", "E0120", "no quantity"),
            ("a | count() > 5", "E0122", "obsolete"),
            ("c", "E0121", "not defined"),
            ("filter_mian", "E0121", "did you mean `filter_main`?"),
            ("1 of nothing_*", "E0121", "no search"),
            ("a.b", "E0120", "unexpected character"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(code) && error.contains(said), "{text}: {error}");
        }
        let many = vec!["a"; TESTS_MAX + 1].join(" or ");
        assert!(read(&many).unwrap_err().contains("more than"));
        assert!(read(&format!("{}a{}", "(".repeat(100), ")".repeat(100))).unwrap_err().contains("deeper"));
        assert!(read(&format!("{} a", "not ".repeat(100))).unwrap_err().contains("deeper"));
    }
}
