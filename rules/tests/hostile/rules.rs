//! Hostile rule files.

use pipeproof_engine::plan::{Plan, Routing};
use pipeproof_rules::{Lists, RuleSet, load};
use proptest::prelude::*;

use super::{GOOD, rule, swiftly};
use crate::harness::{Sample, errors, event};

/// Loads a hostile file beside a good one, and checks that the good rule still works. Gives the set, and what the hostile
/// rule says about the event.
fn beside(text: &str, native: &str) -> (RuleSet, bool) {
    swiftly(|| {
        let files = [("good.yml".to_owned(), GOOD.to_owned()), ("hostile.yml".to_owned(), text.to_owned())];
        let set = load(&files, &Lists::new());
        assert!(set.diagnostics.iter().all(|problem| problem.file == "hostile.yml"), "{:?}", set.diagnostics);
        let plan = Plan::compile(set.rules.clone()).unwrap();
        let samples = [
            Sample::new(std::time::Duration::ZERO, "{\"good\":\"yes\"}"),
            Sample::new(std::time::Duration::ZERO, native),
        ];
        let events = [event(0, &samples[0]), event(1, &samples[1])];
        let hits = plan.select(&events, &Routing::Unrouted);
        let hit =
            |at: usize, id: &str| hits.iter().any(|hit| hit.event == at && plan.rules()[hit.rule].meta().id == id);
        assert!(hit(0, "good"), "the rule beside it no longer matches");
        let hostile = hit(1, "hostile");
        (set, hostile)
    })
}

/// The beginning of what was said.
fn short(errors: &[String]) -> String {
    errors.iter().flat_map(|error| error.chars().chain(['\n'])).take(300).collect()
}

/// The file must be refused with this code, in words short enough to read.
fn refused(text: &str, code: &str) {
    let (set, _) = beside(text, "{}");
    let errors = errors(&set);
    assert!(errors.iter().any(|error| error.contains(code)), "no {code} in {}", short(&errors));
    assert!(errors.len() <= 20, "{} errors for one mistake", errors.len());
    assert!(
        errors.iter().all(|error| error.len() < 2_000),
        "an error of {:?} bytes",
        errors.iter().map(String::len).max()
    );
    assert!(!set.rules.iter().any(|rule| rule.meta().id == "hostile"));
}

/// The file must load and match.
fn matches(text: &str, native: &str) {
    let (set, hit) = beside(text, native);
    assert!(errors(&set).is_empty(), "{}", short(&errors(&set)));
    assert!(hit, "{native:.100}");
}

#[test]
fn ten_thousand_alternations() {
    let words: Vec<String> = (0..10_000).map(|number| format!("word{number}x")).collect();
    matches(&rule(&format!("s: {{a|re: '{}'}}", words.join("|")), "s"), r#"{"a":"..word9999x"}"#);
    // More than the automaton has room for is refused, not tried.
    let classes: Vec<String> = (0..10_000).map(|number| format!("\\w{{10}}{number}\\pL+")).collect();
    refused(&rule(&format!("s: {{a|re: '{}'}}", classes.join("|")), "s"), "E0116");
}

#[test]
fn expressions_that_take_others_forever() {
    let long = "a".repeat(50_000);
    for pattern in ["(a+)+$", "(a|a)*b", "(a|aa)+$", "(.*)*x", "^(([a-z])+.)+[A-Z]([a-z])+$", "(a?){50}a{50}x"] {
        let (set, hit) = beside(&rule(&format!("s: {{a|re: '{pattern}'}}"), "s"), &format!("{{\"a\":\"{long}!\"}}"));
        assert!(errors(&set).is_empty(), "{pattern}: {:?}", errors(&set));
        assert!(!hit, "{pattern}");
    }
    for pattern in ["((a{1000}){1000}){1000}", "(((a{100}){100}){100}){100}", "\\pL{50000}"] {
        refused(&rule(&format!("s: {{a|re: '{pattern}'}}"), "s"), "E0116");
    }
    refused(&rule(&format!("s: {{a|re: '{}a{}'}}", "(".repeat(20_000), ")".repeat(20_000)), "s"), "E0116");
}

#[test]
fn patterns_that_take_others_forever() {
    let long = "a".repeat(20_000);
    for pattern in [format!("{}b", "*a".repeat(60)), format!("*{}b", "?".repeat(60)), format!("{}*b", "*a?".repeat(30))]
    {
        let (set, hit) = beside(&rule(&format!("s: {{a: '{pattern}'}}"), "s"), &format!("{{\"a\":\"{long}\"}}"));
        assert!(errors(&set).is_empty() && !hit, "{pattern}");
    }
}

#[test]
fn files_of_ten_megabytes() {
    refused(&format!("{}# {}", rule("s: {a: x}", "s"), "x".repeat(10_000_000)), "E0100");
    matches(&format!("{}description: {}\n", rule("s: {a: x}", "s"), "x".repeat(9_900_000)), r#"{"a":"x"}"#);
    refused(&"- ".repeat(2_000_000), "E010");
    refused(&"[".repeat(5_000_000), "E010");
    refused(&"{a: ".repeat(1_000_000), "E010");
    refused(&"a: &x [*x, ".repeat(500_000), "E010");
    refused(&"\u{0}".repeat(5_000_000), "E010");
    refused(&"&a ".repeat(1_000_000), "E010");
}

#[test]
fn yaml_that_unfolds() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", ")));
    }
    refused(&bomb, "E0103");
    refused(&format!("{}x: &x [*x]\n", rule("s: {a: x}", "s")), "E0101");
    // A wide value repeated often is as good a bomb as a deep one.
    let wide = vec!["x"; 10_000].join(", ");
    refused(&format!("a: &a [{wide}]\nb: [{}]\n", vec!["*a"; 10_000].join(", ")), "E0103");
    {
        let text = "x".repeat(100_000);
        let bomb = format!(
            "{}x: &a {text}
y: [{}]
",
            rule("s: {a: x}", "s"),
            vec!["*a"; 2_000].join(", ")
        );
        refused(&bomb, "E0103");
    }
}

#[test]
fn lists_of_a_hundred_thousand() {
    let words: Vec<String> = (0..100_000).map(|number| format!("w{number}x")).collect();
    for modifiers in ["", "|contains", "|endswith"] {
        matches(&rule(&format!("s: {{a{modifiers}: [{}]}}", words.join(", ")), "s"), r#"{"a":"w99999x"}"#);
    }
    let searches: Vec<String> = (0..20_000).map(|number| format!("s{number}: {{a: v{number}}}")).collect();
    matches(&rule(&searches.join("\n    "), "1 of s*"), r#"{"a":"v19999"}"#);
}

#[test]
fn conditions_without_end() {
    let searches = "s: {a: x}";
    {
        refused(&rule("s: {a: x}", &"(".repeat(100_000)), "E0120");
    }
    for (condition, code) in [
        (format!("{}s{}", "(".repeat(10_000), ")".repeat(10_000)), "E0120"),
        ("(".repeat(1_000_000), "E0120"),
        (format!("{}s", "not ".repeat(10_000)), "E0120"),
        (")".repeat(10_000), "E0120"),
        (format!("{}t", "s or ".repeat(50_000)), "E0121"),
        // A pattern of many stars.
        (format!("1 of {}z", "s*".repeat(10_000)), "E0121"),
    ] {
        let (set, _) = beside(&rule(searches, &condition), "{}");
        assert!(errors(&set).iter().any(|error| error.contains(code)) && set.rules.len() == 1, "{condition:.40}");
    }
    matches(&rule(searches, &format!("{}s", "s or ".repeat(20_000))), r#"{"a":"x"}"#);
    matches(&rule(searches, &format!("{}s", "s and ".repeat(20_000))), r#"{"a":"x"}"#);
}

#[test]
fn values_that_multiply() {
    refused(&rule(&format!("s: {{a|windash: '{}'}}", " -a".repeat(100)), "s"), "E011");
    let mut lists = Lists::new();
    lists.set("l", (0..1_000).map(|number| number.to_string()).collect());
    let text = rule("s: {a|expand: '%l%-%l%-%l%-%l%'}", "s");
    let set = swiftly(|| load(&[("hostile.yml".to_owned(), text)], &lists));
    assert!(errors(&set).len() == 1 && set.rules.is_empty(), "10^12 values");
}

#[test]
fn names_nobody_knows() {
    let unknown: String = (0..5_000).map(|number| format!("unknown_{number}: {{deep: [1, {{x: y}}]}}\n")).collect();
    matches(&format!("{}{unknown}", rule("s: {a: x}", "s")), r#"{"a":"x"}"#);
    {
        refused(&rule(&format!("s: {{'a{}': x}}", "|nonsense".repeat(100)), "s"), "E0110");
    }
    let (set, _) = beside(&rule(&format!("s: {{'a|{}': x}}", "n".repeat(100_000)), "s"), "{}");
    assert!(!errors(&set).is_empty() && set.rules.len() == 1);
    let field = "f".repeat(1_000_000);
    matches(&rule(&format!("s:\n        ? '{field}'\n        : x"), "s"), &format!("{{\"{field}\":\"x\"}}"));
    {
        refused(&rule(&format!("s: {{{}: x}}", vec!["a"; 300].join(".")), "s"), "E01");
    }
}

#[test]
fn correlations_that_lead_nowhere() {
    let link = |number: usize, to: usize| {
        format!(
            "---\ntitle: c{number}\nid: c{number}\nname: c{number}\ncorrelation: {{type: event_count, rules: [c{to}], timespan: 1m, condition: {{gte: 2}}}}\n"
        )
    };
    let circle: String = (0..300).map(|number| link(number, (number + 1) % 300)).collect();
    let (set, _) = beside(&circle, "{}");
    assert!(!errors(&set).is_empty() && set.rules.len() == 1, "a circle of 300");
    let chain: String = (0..300).map(|number| link(number, number + 1)).collect();
    let (set, _) = beside(
        &format!("{chain}---\n{}", rule("s: {a: x}", "s").replace("id: hostile", "id: hostile\nname: c300")),
        r#"{"a":"x"}"#,
    );
    assert!(set.rules.len() == 302 || !errors(&set).is_empty(), "a chain of 300: loaded, or refused in words");
    let many: Vec<String> = (0..20_000).map(|number| format!("r{number}")).collect();
    let text = format!(
        "title: c\nid: c\ncorrelation: {{type: event_count, rules: [{}], timespan: 1m, condition: {{gte: 2}}}}\n",
        many.join(", ")
    );
    let (set, _) = beside(&text, "{}");
    assert!(!errors(&set).is_empty() && set.rules.len() == 1, "20,000 members that do not exist");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Shipped rules with pieces cut out, doubled and overwritten are read or refused, and never break the reader.
    #[test]
    fn broken_files_are_read_or_refused(file in 0_usize..22, cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..30, "[ -~\n\t|*\\\\é]{0,6}"), 1..6)) {
        let library = pipeproof_rules::library();
        let (path, text) = &library[file % library.len()];
        let mut chars: Vec<char> = text.chars().collect();
        for (at, len, instead) in cuts {
            let at = at.index(chars.len().max(1)).min(chars.len());
            let end = (at + len).min(chars.len());
            chars.splice(at..end, instead.chars());
        }
        let text: String = chars.into_iter().collect();
        let set = load(&[(path.clone(), text.clone())], &pipeproof_rules::library_lists());
        let plan = Plan::compile(set.rules.clone());
        prop_assert!(plan.is_ok(), "{text}\n{plan:?}");
        let sample = Sample::new(std::time::Duration::ZERO, r#"{"action":"x","a":[1,{"b":null}]}"#);
        std::hint::black_box(plan.unwrap().select(&[event(0, &sample)], &Routing::Unrouted));
        let shown = set.render_diagnostics(&[(path.clone(), text)]);
        prop_assert!(shown.is_empty() == set.diagnostics.is_empty());
    }
}
