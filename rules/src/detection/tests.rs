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
    let context = Context::new(Taxonomy::Sigma, &lists);
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
        Condition::Lookup(lookup) => {
            let keys = lookup.keys.iter().map(|(field, column)| format!("{column} = {field}"));
            let columns = lookup.columns.iter().map(|(column, predicate)| format!("{column} {}", words(predicate)));
            let during = lookup.during.iter().map(|field| format!("during {field}"));
            let parts: Vec<String> = keys.chain(columns).chain(during).collect();
            format!("{}[{}]", lookup.table, parts.join(", "))
        }
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
        ("a|hour: 3", "a hour eq 3"),
        ("a|hour|gte: 22", "a hour gte 22"),
        ("a|minute|lt: 5", "a minute lt 5"),
        ("a|day: [1, 15]", "(a day eq 1 | a day eq 15)"),
        ("a|week|lte: 53", "a week lte 53"),
        ("a|month|neq: 12", "!a month eq 12"),
        ("a|year|gt: 2025", "a year gt 2025"),
        ("a|re|dotall|ignorecase: x", "a matches /(?is)x/"),
        ("a|re|contains: x", "a matches /x/"),
        ("a|fieldref|contains|cased: b", "a contains field b (case-sensitive)"),
        ("a|utf16le|base64: A", "a = 'QQA=' (case-sensitive)"),
        ("a|utf16be|base64: A", "a = 'AEE=' (case-sensitive)"),
        ("a|utf16|base64: A", "a = '//5BAA==' (case-sensitive)"),
        ("a|wide|base64: é", "a = '6QA=' (case-sensitive)"),
        ("a|wide|contains: Ab", "a contains 'A\0b\0'"),
        ("a|utf16be: A*b", "a matches '\0A*\0b'"),
        ("a|utf16: A", "a = '\u{feff}A\0'"),
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
    check("s: [x, {a: y}, 7]\ncondition: s\n", "(* contains 'x' | a = 'y' | * contains '7')");
    check("s: {a.b.c: x}\ncondition: s\n", "a.b.c = 'x'");
}

#[test]
fn lookups() {
    let shaped = |text: &str| compile_text(&format!("s:\n{text}condition: s\n")).0.map(|condition| shape(&condition));
    let check = |text: &str, expected: &str| assert_eq!(shaped(text).as_deref(), Some(expected), "{text}");
    check("  ci.run_id|lookup: jobs.run_id\n", "jobs[run_id = ci.run_id]");
    check(
        "  a: x\n  token.repo|lookup: jobs.repo\n  token.ref|lookup: jobs.ref\n  time|during: jobs\n",
        "(a = 'x' & jobs[repo = token.repo, ref = token.ref, during time])",
    );
    check(
        "  r|lookup: jobs.run\n  jobs.env|startswith: prod\n  jobs.tier|gte: 2\n",
        "jobs[run = r, env starts with 'prod', tier >= 2]",
    );
    check(
        "  r|lookup: jobs.run\n  jobs.env: [prod, live]\n",
        "(jobs[run = r, env = 'prod'] | jobs[run = r, env = 'live'])",
    );
    check(
        "  r|lookup: jobs.run\n  jobs.env|contains|all: [p, l]\n",
        "jobs[run = r, env contains 'p', env contains 'l']",
    );
    check("  r|lookup: jobs.run\n  s|lookup: tokens.id\n", "(jobs[run = r] & tokens[id = s])");
    check("  jobs.run: x\n", "jobs.run = 'x'");
    for (text, code, said) in [
        ("  r|lookup: jobs.run\n  jobs.env|neq: prod\n", "E0118", "a search of its own"),
        ("  time|during: jobs\n  t|during: jobs\n", "E0118", "twice"),
        ("  r|lookup: jobs.run\n  jobs.env|contian: prod\n", "E0110", "contains"),
    ] {
        let (none, problems) = compile_text(&format!("s:\n{text}condition: s\n"));
        assert!(none.is_none() && problems[0].contains(code) && problems[0].contains(said), "{text}: {problems:?}");
    }
}

#[test]
fn a_small_file_cannot_ask_for_endless_tests() {
    let mut lists = Lists::new();
    lists.set("many", (0..9_999).map(|number| number.to_string()).collect());
    let lines: String = (0..200).map(|number| format!("  f{number}|expand: '%many%'\n")).collect();
    let mut report = Report::new("x.yml");
    let documents = crate::yaml::read(&format!("s:\n{lines}condition: s\n"), &mut report);
    let context = Context::new(Taxonomy::Sigma, &lists);
    assert!(compile(&documents[0], &context, &mut report).is_none());
    assert!(report.found[0].message.contains("more than 1000000 tests"), "{:?}", report.found[0]);
}

#[test]
fn what_is_refused() {
    for (text, code, said) in [
        ("a|contain: x", "E0110", "did you mean `contains`?"),
        ("a|hour: 24", "E0113", "from 0 to 23"),
        ("a|month: x", "E0113", "whole number"),
        ("a|gte|hour: 3", "E0112", "write `hour|gte`"),
        ("a|hour|minute: 3", "E0112", "exclude"),
        ("a|hour|contains: 3", "E0112", "does not go with"),
        ("a|hour|gte|lte: 3", "E0112", "exclude"),
        ("a|fieldref: b*", "E0113", "no field name"),
        ("a|lookup: t", "E0118", "takes a column"),
        ("a|during: t.c", "E0118", "takes a table"),
        ("a|contains|lookup: t.c", "E0118", "is no lookup"),
        ("a|lookup|neq: t.c", "E0118", "is no lookup"),
        ("a|lookup: [t.c]", "E0118", "takes a column"),
        ("a|looukp: t.c", "E0110", "did you mean `lookup`?"),
        ("a|contains|startswith: x", "E0112", "exclude"),
        ("a|contains|contains: x", "E0112", "twice"),
        ("a|contains|re: x", "E0112", "first"),
        ("a|i: x", "E0112", "belongs to `re`"),
        ("a|exists|contains: true", "E0112", "does not go with"),
        ("a|wide: é", "E0113", "is no text"),
        ("a|wide|utf16be: x", "E0113", "encoded already"),
        ("a|wide|windash: ' -x'", "E0113", "before encodings"),
        ("a|contains|base64: x", "E0112", "after encodings"),
        ("a|re|cidr: x", "E0112", "exclude"),
        ("a|exists: yes", "E0113", "true or false"),
        ("a|re: '('", "E0116", "cannot be used"),
        ("a|re: '(?=x)'", "E0116", "look-around"),
        (r"a|re: '(a)\1'", "E0116", "backreferences"),
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
    warned("s: {a: yes}\ncondition: s\n", "W0206");
    warned("s: {a|expand: '%none%'}\ncondition: not s\n", "W0217");
    warned("s: {a: x}\nt: {a: y}\ncondition: s\n", "W0203");
    let mut report = Report::new("x.yml");
    check_field("actor.idd", Place::default(), Taxonomy::Cicd, &mut report);
    assert_eq!(report.found[0].severity, Severity::Warning);
    assert_eq!(report.found[0].help.as_deref(), Some("did you mean `actor.id`?"));
}
