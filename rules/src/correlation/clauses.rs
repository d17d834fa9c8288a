//! The condition of a temporal correlation: a boolean expression over rule names, brought into the form the engine
//! runs, an alternative of clauses each of which names the members that must match and those that must not.

use std::collections::BTreeSet;

use pipeproof_engine::rule::TemporalClause;

use crate::diagnostic::{Code, Place, Report, did_you_mean};

/// Most clauses an expression may come to.
const CLAUSES_MAX: usize = 64;
/// Deepest nesting of parentheses and `not`.
const DEPTH_MAX: usize = 64;

/// A clause while it is built: members that must match, members that must not.
type Literals = (BTreeSet<u16>, BTreeSet<u16>);

enum Expr {
    Member(u16),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
}

/// All members must match.
pub(crate) fn all(members: usize) -> Vec<TemporalClause> {
    let present = (0..members).filter_map(|number| u16::try_from(number).ok()).collect();
    vec![TemporalClause { present, absent: Vec::new() }]
}

/// Any `count` of the members must match; `None` if there are too many ways to choose them.
pub(crate) fn some(members: usize, count: usize) -> Option<Vec<TemporalClause>> {
    let mut ways: Vec<Vec<u16>> = vec![Vec::new()];
    for member in 0..u16::try_from(members).ok()? {
        let left = members - usize::from(member);
        let longer: Vec<Vec<u16>> = ways
            .iter()
            .filter(|way| way.len() < count)
            .map(|way| way.iter().copied().chain([member]).collect())
            .collect();
        // Those that can still become long enough without this member.
        ways.retain(|way| way.len() + left > count || way.len() == count);
        ways.extend(longer);
        if ways.len() > CLAUSES_MAX {
            return None;
        }
    }
    ways.retain(|way| way.len() == count);
    ways.sort();
    Some(ways.into_iter().map(|present| TemporalClause { present, absent: Vec::new() }).collect())
}

/// Reads an expression over `members`; what is wrong with it is reported.
pub(crate) fn read(
    text: &str,
    place: Place,
    members: &[(String, Place)],
    report: &mut Report<'_>,
) -> Option<Vec<TemporalClause>> {
    let mut parser = Parser { tokens: tokens(text).into_iter().peekable(), members, depth: 0, used: BTreeSet::new() };
    let parsed = parser.or().and_then(|expr| match parser.tokens.next() {
        None => Ok(expr),
        Some(token) => Err(syntax(format!("unexpected `{token}`"))),
    });
    let normal = parsed.and_then(|expr| {
        if let Some((name, place)) =
            members.iter().zip(0_u16..).find(|(_, number)| !parser.used.contains(number)).map(|(member, _)| member)
        {
            let message = format!("the condition does not say what the rule `{name}` is for");
            return Err(Problem { code: Code::CorrelationUse, message, help: None, place: Some(*place) });
        }
        normalise(&expr)
    });
    match normal {
        Ok(clauses) => Some(clauses),
        Err(problem) => {
            let message = match problem.place {
                Some(_) => problem.message,
                None => format!("condition `{text}`: {}", problem.message),
            };
            report.add_help(problem.code, problem.place.unwrap_or(place), message, problem.help);
            None
        }
    }
}

struct Problem {
    code: Code,
    message: String,
    help: Option<String>,
    place: Option<Place>,
}

fn syntax(message: impl Into<String>) -> Problem {
    Problem { code: Code::CorrelationCondition, message: message.into(), help: None, place: None }
}

/// Words, which may be ids and so hold hyphens and points, and parentheses.
fn tokens(text: &str) -> Vec<String> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    spaced.split_whitespace().map(str::to_owned).collect()
}

struct Parser<'m> {
    tokens: std::iter::Peekable<std::vec::IntoIter<String>>,
    members: &'m [(String, Place)],
    depth: usize,
    used: BTreeSet<u16>,
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Expr, Problem> {
        let mut parts = vec![self.and()?];
        while self.tokens.next_if(|token| token == "or").is_some() {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) })
    }

    fn and(&mut self) -> Result<Expr, Problem> {
        let mut parts = vec![self.not()?];
        while self.tokens.next_if(|token| token == "and").is_some() {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::And(parts) })
    }

    fn not(&mut self) -> Result<Expr, Problem> {
        if self.tokens.next_if(|token| token == "not").is_none() {
            return self.term();
        }
        self.descend()?;
        let part = self.not()?;
        self.depth -= 1;
        Ok(Expr::Not(Box::new(part)))
    }

    fn descend(&mut self) -> Result<(), Problem> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(syntax(format!("nested deeper than {DEPTH_MAX} levels"))) } else { Ok(()) }
    }

    fn term(&mut self) -> Result<Expr, Problem> {
        let Some(token) = self.tokens.next() else { return Err(syntax("it ends where a rule is expected")) };
        match token.as_str() {
            "(" => {
                self.descend()?;
                let inner = self.or()?;
                self.depth -= 1;
                match self.tokens.next() {
                    Some(close) if close == ")" => Ok(inner),
                    _ => Err(syntax("a parenthesis is not closed")),
                }
            }
            ")" | "and" | "or" => Err(syntax(format!("unexpected `{token}`"))),
            name => {
                let found = self.members.iter().zip(0_u16..).find(|((member, _), _)| member == name);
                let Some((_, number)) = found else {
                    let lower = name.to_ascii_lowercase();
                    let known = self.members.iter().map(|(member, _)| member.as_str());
                    let help = match lower.as_str() {
                        "and" | "or" | "not" => Some(format!("write `{lower}`")),
                        _ => did_you_mean(name, known),
                    };
                    let message = format!("`{name}` is none of the correlation's rules");
                    return Err(Problem { code: Code::UnknownMember, message, help, place: None });
                };
                self.used.insert(number);
                Ok(Expr::Member(number))
            }
        }
    }
}

fn normalise(expr: &Expr) -> Result<Vec<TemporalClause>, Problem> {
    if let Some(clause) = silence(expr) {
        return Ok(vec![clause]);
    }
    let mut clauses = distribute(expr, false)?;
    clauses.retain(|(present, absent)| present.is_disjoint(absent));
    if clauses.is_empty() {
        return Err(syntax("it can never hold"));
    }
    if clauses.iter().any(|(present, _)| present.is_empty()) {
        return Err(syntax("it can hold although no rule matches; in every alternative some rule has to"));
    }
    // What asks for more than another alternative adds nothing to it.
    let all = clauses.clone();
    let weaker = |other: &Literals, own: &Literals| {
        other != own && other.0.is_subset(&own.0) && other.1.is_subset(&own.1)
    };
    clauses.retain(|own| !all.iter().any(|other| weaker(other, own)));
    let mut clauses: Vec<TemporalClause> = clauses
        .into_iter()
        .map(|(present, absent)| TemporalClause {
            present: present.into_iter().collect(),
            absent: absent.into_iter().collect(),
        })
        .collect();
    clauses.sort();
    clauses.dedup();
    Ok(clauses)
}

/// A plain conjunction in which a rule stands both with and without `not`: it matched, and then fell silent.
fn silence(expr: &Expr) -> Option<TemporalClause> {
    let Expr::And(parts) = expr else { return None };
    let mut literals = Literals::default();
    for part in parts {
        match part {
            Expr::Member(number) => literals.0.insert(*number),
            Expr::Not(inner) => match **inner {
                Expr::Member(number) => literals.1.insert(number),
                _ => return None,
            },
            _ => return None,
        };
    }
    let (present, absent) = literals;
    if present.is_disjoint(&absent) {
        return None;
    }
    Some(TemporalClause { present: present.into_iter().collect(), absent: absent.into_iter().collect() })
}

fn distribute(expr: &Expr, negated: bool) -> Result<Vec<Literals>, Problem> {
    match (expr, negated) {
        (Expr::Member(number), false) => Ok(vec![(BTreeSet::from([*number]), BTreeSet::new())]),
        (Expr::Member(number), true) => Ok(vec![(BTreeSet::new(), BTreeSet::from([*number]))]),
        (Expr::Not(part), _) => distribute(part, !negated),
        (Expr::Or(parts), false) | (Expr::And(parts), true) => {
            let mut union = Vec::new();
            for part in parts {
                union.extend(distribute(part, negated)?);
                bounded(&mut union)?;
            }
            Ok(union)
        }
        (Expr::And(parts), false) | (Expr::Or(parts), true) => {
            let mut product = vec![Literals::default()];
            for part in parts {
                let right = distribute(part, negated)?;
                product = product
                    .iter()
                    .flat_map(|left| {
                        right.iter().map(|right| {
                            let both = |left: &BTreeSet<u16>, right: &BTreeSet<u16>| left.union(right).copied().collect();
                            (both(&left.0, &right.0), both(&left.1, &right.1))
                        })
                    })
                    .collect();
                bounded(&mut product)?;
            }
            Ok(product)
        }
    }
}

/// Takes out what stands twice; too many alternatives are refused before they become more.
fn bounded(clauses: &mut Vec<Literals>) -> Result<(), Problem> {
    clauses.sort();
    clauses.dedup();
    if clauses.len() > CLAUSES_MAX {
        return Err(syntax(format!("it comes to more than {CLAUSES_MAX} alternatives")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<(String, Place)> {
        names.iter().zip(1..).map(|(name, line)| ((*name).to_owned(), Place { line, column: 9 })).collect()
    }

    fn read_text(text: &str, members: &[&str]) -> Result<Vec<TemporalClause>, String> {
        let mut report = Report::new("x");
        let read = read(text, Place { line: 7, column: 3 }, &names(members), &mut report);
        read.ok_or_else(|| report.found[0].to_string())
    }

    fn shape(text: &str, members: &[&str]) -> String {
        let found = read_text(text, members).unwrap();
        let name = |number: &u16| members[usize::from(*number)].to_owned();
        let clause = |clause: &TemporalClause| {
            let absent = clause.absent.iter().map(|number| format!("-{}", name(number)));
            clause.present.iter().map(name).chain(absent).collect::<Vec<_>>().join(" ")
        };
        found.iter().map(clause).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn expressions_become_alternatives_of_clauses() {
        for (text, expected) in [
            ("a and b and c", "a b c"),
            ("a and (b or c)", "a b | a c"),
            ("a or b and not c", "a | b -c"),
            ("a and not (b or c)", "a -b -c"),
            ("a and not (b and c)", "a -b | a -c"),
            ("not not a and b and not c", "a b -c"),
            ("(a or b) and (a or c)", "a | b c"),
            ("(a or b) and not (a and b) and c", "a c -b | b c -a"),
            ("a and not a and b and c", "a b c -a"),
        ] {
            assert_eq!(shape(text, &["a", "b", "c"]), expected, "{text}");
        }
        assert_eq!(shape("x.y-1 and not 4d1ad041-eba7", &["x.y-1", "4d1ad041-eba7"]), "x.y-1 -4d1ad041-eba7");
        assert_eq!(shape("beat and not beat", &["beat"]), "beat -beat");
    }

    #[test]
    fn what_is_refused() {
        for (text, at, code, said) in [
            ("a and", "x:7:3", "E0131", "ends where"),
            ("(a and b", "x:7:3", "E0131", "not closed"),
            ("a b", "x:7:3", "E0131", "unexpected `b`"),
            ("a AND b", "x:7:3", "E0131", "unexpected `AND`"),
            ("a and c", "x:7:3", "E0132", "`c` is none"),
            ("a and bb and b", "x:7:3", "E0132", "did you mean `b`?"),
            ("a", "x:2:9", "E0133", "what the rule `b` is for"),
            ("not a and not b", "x:7:3", "E0131", "no rule matches"),
            ("a or not b", "x:7:3", "E0131", "no rule matches"),
            ("(a and not a and b) or (b and not b)", "x:7:3", "E0131", "never hold"),
        ] {
            let error = read_text(text, &["a", "b"]).unwrap_err();
            assert!(error.starts_with(at) && error.contains(code) && error.contains(said), "{text}: {error}");
        }
        let many: Vec<String> = (0..14).map(|number| format!("r{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let pairs: Vec<String> = many.chunks(2).map(|pair| format!("({} or {})", pair[0], pair[1])).collect();
        assert!(read_text(&pairs.join(" and "), &many).unwrap_err().contains("more than 64"));
        assert!(read_text(&format!("{}a", "not ".repeat(100)), &["a"]).unwrap_err().contains("deeper"));
    }

    #[test]
    fn so_many_of_the_members() {
        let shape = |members, count| {
            let clauses = some(members, count)?;
            Some(clauses.iter().map(|clause| format!("{:?}", clause.present)).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(shape(3, 2).unwrap(), "[0, 1] [0, 2] [1, 2]");
        assert_eq!(shape(3, 3).unwrap(), "[0, 1, 2]");
        assert_eq!(shape(3, 1).unwrap(), "[0] [1] [2]");
        assert_eq!(shape(40, 20), None);
    }
}
