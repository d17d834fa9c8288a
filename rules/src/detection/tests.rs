//! What values and modifiers compile to, and what is refused.

use pipeproof_engine::explain::words;

use super::*;
use crate::diagnostic::Severity;

fn lists() -> Lists {
    let mut lists = Lists::new();
    lists.set("who", vec!["alice".to_owned(), "bot-*".to_owned()]);
    lists.set("nets", vec!["10.0.0.0/8".to_owned(), "192.168.0.1".to_owned()]);
    lists.set("none", Vec::new());
    lists
}

fn compile_text(text: &str) -> (Option<Condition>, Vec<String>) {
    let mut report = Report::new("x.yml");
    let documents = crate::yaml::read(text, &mut report);
    let lists = lists();
    let context = Context { taxonomy: Taxonomy::Sigma, lists: &lists };
    let compiled = documents.first().and_then(|document| compile(document, &context, &mut report));
    (compiled, report.found.iter().map(ToString::to_string).collect())
}

fn shape(condition: &Condition) -> String {
    let all = |parts: &[Condition], sign: &str| format!("({})", parts.iter().map(shape).collect::<Vec<_>>().join(sign));
    match condition {
        Condition::And(parts) => all(parts, " & "),
        Condition::Or(parts) => all(parts, " | "),
        Condition::Not(part) => format!("!{}", shape(part)),
        Condition::Field { field, predicate } => format!("{field} {}", words(predicate)),
        Condition::Keyword(predicate) => format!("* {}", words(predicate)),
        Condition::Lookup(lookup) => format!("lookup {}", lookup.table),
    }
}

/// The shape of a search `s` with one line.
fn line(text: &str) -> Result<String, String> {
    match compile_text(&format!("s:\n  {text}\ncondition: s\n")) {
        (Some(condition), _) => Ok(shape(&condition)),
        (None, problems) => Err(problems.join("\n")),
    }
}

#[test]
fn values_and_modifiers() {
    for (text, expected) in [
        ("a: x", "a = 'x'"),
        ("a: 5", "a = 5"),
        ("a: '5'", "a = '5'"),
        ("a: true", "a = true"),
        ("a: null", "a is missing or null"),
        ("a:", "a is missing or null"),
        ("a: ''", "a = ''"),
        ("a: x*", "a matches 'x*'"),
        ("a: [x, y]", "(a = 'x' | a = 'y')"),
        ("a|all: [x, y]", "(a = 'x' & a = 'y')"),
        ("a|contains: x", "a contains 'x'"),
        ("a|contains|all: [x, y]", "(a contains 'x' & a contains 'y')"),
        ("a|startswith: x?y", "a matches 'x?y*'"),
        ("a|endswith: 7", "a ends with '7'"),
        ("a|contains|cased: X", "a contains 'X' (case-sensitive)"),
        ("a|neq: x", "!a = 'x'"),
        ("a|neq: [x, y]", "!(a = 'x' | a = 'y')"),
        ("a|exists: false", "a is not present"),
        (r"a|re: '^x\d+$'", r"a matches /^x\d+$/"),
        ("a|re|i|m: x", "a matches /(?im)x/"),
        ("a|re|startswith: x", "a matches /^(?:x)/"),
        (r"a|re: 'a\<b\\<'", r"a matches /a<b\\</"),
        ("a|cidr: 10.1.2.3/8", "a in 10.0.0.0/8"),
        ("a|cidr: [10.0.0.0/8, 'fe80::/10']", "(a in 10.0.0.0/8 | a in fe80::/10)"),
        ("a|gte: 3", "a >= 3"),
        ("a|lt: 0.5", "a < 0.5"),
        ("a|fieldref: b", "a = field b"),
        ("a|fieldref|endswith|neq: b", "!a ends with field b"),
        ("a|base64: foobar", "a = 'Zm9vYmFy' (case-sensitive)"),
        ("a|wide|base64: A", "a = 'QQA=' (case-sensitive)"),
        (
            "a|base64offset|contains: foobar",
            "(a contains 'Zm9vYmFy' (case-sensitive) | a contains 'Zvb2Jhc' (case-sensitive) | a contains 'mb29iYX' (case-sensitive))",
        ),
        ("a|expand: '%who%'", "(a = 'alice' | a matches 'bot-*')"),
        ("a|contains|expand: 'x%who%'", "(a contains 'xalice' | a matches '*xbot-**')"),
        ("a|cidr|expand: '%nets%'", "(a in 10.0.0.0/8 | a in 192.168.0.1/32)"),
        ("a|expand: '%none%'", "()"),
        ("a: '%who%'", "a = '%who%'"),
        ("'|all': [x, 7]", "(* contains 'x' & * contains '7')"),
    ] {
        assert_eq!(line(text).as_deref(), Ok(expected), "{text}");
    }
    assert_eq!(line("a|windash|contains: ' -x'").unwrap().matches("contains").count(), 5);
}

#[test]
fn searches() {
    let shaped = |text: &str| compile_text(text).0.map(|condition| shape(&condition));
    let check = |text: &str, expected: &str| assert_eq!(shaped(text).as_deref(), Some(expected), "{text}");
    check("s: {a: x, b: y}\ncondition: s\n", "(a = 'x' & b = 'y')");
    check("s: [{a: x}, {b: y}]\ncondition: s\n", "(a = 'x' | b = 'y')");
    check("s: [x, 'y*z']\ncondition: s\n", "(* contains 'x' | * matches '*y*z*')");
    check("s: x\ncondition: s\n", "* contains 'x'");
    check("s: {a: x}\nt: {b: y}\ncondition: [s, t]\n", "(a = 'x' | b = 'y')");
}

#[test]
fn what_is_refused() {
    for (text, code, said) in [
        ("a|contain: x", "E0110", "did you mean `contains`?"),
        ("a|hour: 3", "E0111", "not supported yet"),
        ("a|lookup: t.c", "E0111", "not supported yet"),
        ("a|contains|startswith: x", "E0112", "exclude"),
        ("a|contains|contains: x", "E0112", "twice"),
        ("a|contains|re: x", "E0112", "first"),
        ("a|i: x", "E0112", "belongs to `re`"),
        ("a|exists|contains: true", "E0112", "does not go with"),
        ("a|wide: x", "E0112", "followed by"),
        ("a|contains|base64: x", "E0112", "after encodings"),
        ("a|re|cidr: x", "E0112", "exclude"),
        ("a|exists: yes", "E0113", "true or false"),
        ("a|re: '('", "E0113", "cannot be used"),
        ("a|re: '(?=x)'", "E0113", "look-around"),
        ("a|cidr: x", "E0113", "CIDR"),
        ("a|gt: x", "E0113", "takes a number"),
        ("a|base64: x*", "E0113", "wildcards"),
        ("a|contains: null", "E0113", "missing value"),
        ("a|expand: '%whom%'", "E0114", "no list is called `whom`"),
        ("a: []", "E0115", "empty list"),
        ("a: {b: c}", "E0106", "mapping"),
        ("a: [[x]]", "E0106", "cannot be a list"),
    ] {
        let problem = line(text).unwrap_err();
        assert!(problem.contains(code) && problem.contains(said), "{text}: {problem}");
        assert!(problem.contains(":2:"), "position of {text}: {problem}");
    }
    let (none, problems) = compile_text("s: {a: x}\ntimeframe: 5m\ncondition: s\n");
    assert!(none.is_none() && problems[0].contains("E0122"), "{problems:?}");
    let (none, problems) = compile_text("s: {a: x}\n");
    assert!(none.is_none() && problems[0].contains("E0105"), "{problems:?}");
}

#[test]
fn warnings_keep_the_rule() {
    let warned = |text: &str, code: &str| {
        let (compiled, problems) = compile_text(text);
        assert!(compiled.is_some() && problems.iter().any(|problem| problem.contains(code)), "{text}: {problems:?}");
    };
    warned("s: {a|all: x}\ncondition: s\n", "W0205");
    warned("s: {a: yes}\ncondition: s\n", "W0206");
    warned("s: {a: x}\nt: {a: y}\ncondition: s\n", "W0203");
    let mut report = Report::new("x.yml");
    check_field("actor.idd", Place::default(), Taxonomy::Cicd, &mut report);
    assert_eq!(report.found[0].severity, Severity::Warning);
    assert_eq!(report.found[0].help.as_deref(), Some("did you mean `actor.id`?"));
}
