//! The plan against hand-written cases and against the oracle.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::oracle;
use super::*;
use crate::event::EventId;
use crate::fields::Fields;
use crate::program::ROWS;
use crate::record::{Authenticity, CollectionMode};
use crate::rule::{
    AffixKind, AlertSpec, Comparison, Condition, CorrelationRule, Level, Number, Operator, Predicate, RuleMeta,
    TextTest, TimePart, WildcardPart,
};
use crate::time::Timestamp;

fn event(kind: SourceType, native: &str, fields: Fields) -> Event {
    Event {
        id: EventId::default(),
        source: "s".into(),
        source_type: kind,
        item: "id:1".into(),
        time: Timestamp::from_secs(1),
        time_known: true,
        received: Timestamp::from_secs(1),
        auth: Authenticity::Own,
        mode: CollectionMode::Live,
        fields,
        native: Bytes::copy_from_slice(native.as_bytes()),
    }
}

fn json(native: &str) -> Event {
    event(SourceType::Json, native, Fields::default())
}

fn meta(id: &str) -> RuleMeta {
    RuleMeta {
        id: id.to_owned(),
        name: None,
        title: id.to_owned(),
        level: Level::Medium,
        version: None,
        digest: format!("digest of {id}"),
        state: RuleState::Active,
        emits: true,
        alert: AlertSpec::default(),
        tags: Vec::new(),
        controls: BTreeMap::new(),
        requires: Vec::new(),
        author: None,
        risk: 0,
    }
}

fn logsource(text: &str) -> Logsource {
    let mut parts = text.split('/').map(|part| Some(part.to_owned()).filter(|part| !part.is_empty() && part != "*"));
    Logsource { product: parts.next().flatten(), service: parts.next().flatten(), category: parts.next().flatten() }
}

fn detection(id: &str, source: &str, taxonomy: Taxonomy, condition: Condition) -> Rule {
    Rule::Detection(DetectionRule { meta: meta(id), logsource: logsource(source), taxonomy, condition })
}

fn field(name: &str, predicate: Predicate) -> Condition {
    Condition::Field { field: name.to_owned(), predicate }
}

fn plain(kind: AffixKind, text: &str) -> Predicate {
    Predicate::Text { test: TextTest::Plain { kind, text: text.to_owned() }, cased: false }
}

fn equals(text: &str) -> Predicate {
    plain(AffixKind::Equals, text)
}

fn wildcard(text: &str) -> Predicate {
    let parts = text.chars().map(|char| match char {
        '*' => WildcardPart::Any,
        '?' => WildcardPart::One,
        other => WildcardPart::Literal(other.to_string()),
    });
    Predicate::Text { test: TextTest::Wildcard(parts.collect()), cased: false }
}

/// Whether `condition` matches `native`, by the plan, the oracle and the explanation, which must agree.
fn matches(condition: &Condition, native: &str) -> bool {
    let plan = Plan::compile(vec![detection("r", "x", Taxonomy::Sigma, condition.clone())]).unwrap();
    let event = json(native);
    let selected = !plan.select(std::slice::from_ref(&event), &Routing::Unrouted).is_empty();
    assert_eq!(oracle::matches(Taxonomy::Sigma, condition, &event), selected, "{condition:?} on {native}");
    assert_eq!(plan.explain(0, &event).matched, selected, "{condition:?} on {native}");
    selected
}

#[test]
fn a_google_cloud_entry_is_read_by_every_name_that_public_rules_have_for_it() {
    let entry = r#"{"protoPayload":{"methodName":"storage.buckets.delete","serviceName":"storage.googleapis.com"}}"#;
    let wrapped = format!(r#"{{"data":{entry}}}"#);
    let renamed = r#"{"gcp.audit.method_name":"storage.buckets.delete"}"#;
    for name in ["gcp.audit.method_name", "protoPayload.methodName", "data.protoPayload.methodName"] {
        for native in [entry, &wrapped, renamed] {
            assert!(matches(&field(name, equals("storage.buckets.delete")), native), "{name} of {native}");
            assert!(!matches(&field(name, Predicate::Null), native), "{name} of {native}");
        }
    }
    assert!(matches(&field("data.protoPayload.serviceName", equals("storage.googleapis.com")), entry));
    assert!(!matches(&field("data.other", equals("x")), r#"{"other":"x"}"#), "of nothing else");
    // Two rules that name the same field differently share it.
    let rules = ["gcp.audit.method_name", "data.protoPayload.methodName"]
        .map(|name| detection(name, "gcp", Taxonomy::Sigma, field(name, equals("storage.buckets.delete"))));
    let plan = Plan::compile(rules.to_vec()).unwrap();
    assert_eq!(plan.select(&[json(entry)], &Routing::Unrouted).len(), 2);
}

#[test]
fn predicates_mean_what_sigma_says() {
    use AffixKind::{Contains, EndsWith, StartsWith};
    let table: Vec<(Predicate, &str, &[&str], &[&str])> = vec![
        (equals("Foo"), "case-insensitive, whole", &[r#""fOO""#, r#"["x","FOO"]"#], &[r#""foobar""#, "null", "[]"]),
        (equals("ÄΣ"), "Unicode case", &[r#""äσ""#], &[r#""aσ""#]),
        (equals(""), "empty text present", &[r#""""#], &["null", r#"" ""#, "[]", "0"]),
        (equals("5"), "text form of a number", &["5", r#""5""#], &["5.0", r#""05""#]),
        (equals("TRUE"), "text form of a boolean", &["true", r#""true""#], &["false", "1"]),
        (plain(Contains, "b c"), "contains", &[r#""ab cd""#, r#"{"x":"B C"}"#], &[r#""abc""#]),
        (plain(Contains, ""), "anything but null", &[r#""""#, "0", "{}"], &["null", "[]"]),
        (plain(StartsWith, "ab"), "starts", &[r#""ABC""#], &[r#""cab""#, r#"{"ab":1}"#]),
        (plain(EndsWith, "bc"), "ends", &[r#""abcBC""#], &[r#""bca""#]),
        (plain(Contains, "45"), "in a number", &["14567"], &["4"]),
        (wildcard("a*b?d"), "pattern", &[r#""AxxBcd""#, r#""ab\nbcd""#, r#""abbd""#], &[r#""abd""#, r#""abcde""#]),
        (wildcard("*"), "anything", &[r#""""#, "1", "{}"], &["null", "[]"]),
        (wildcard("?"), "one character", &[r#""é""#, "5"], &[r#""""#, r#""ab""#]),
        (wildcard("?b*b"), "one, then", &[r#""abb""#, r#""abxbxb""#], &[r#""ab""#]),
        (wildcard("*a?a*"), "overlap", &[r#""aaba""#, r#"{"k":"axa"}"#], &[r#""aa""#]),
        (
            Predicate::Text { test: TextTest::Plain { kind: AffixKind::Equals, text: "Foo".into() }, cased: true },
            "cased",
            &[r#""Foo""#],
            &[r#""foo""#],
        ),
        (Predicate::Number(Number::Int(4624)), "number", &["4624", r#""4624""#, "4624.0"], &[r#""04624""#, "46240"]),
        (
            Predicate::Number(Number::Int(9_007_199_254_740_993)),
            "exact beyond 2^53",
            &["9007199254740993"],
            &["9007199254740992"],
        ),
        (Predicate::Number(Number::Float(1.5)), "float", &["1.5", r#""1.5""#, "15e-1"], &["1", "1.50001"]),
        (Predicate::Bool(true), "boolean", &["true", r#""True""#], &["false", r#""yes""#, "1"]),
        (Predicate::Null, "null", &["null", "[null,1]"], &[r#""""#, "0", "[]", "{}"]),
        (Predicate::Exists(true), "exists", &["null", "[]", "{}", "0", r#""""#], &[]),
        (Predicate::Exists(false), "exists not", &[], &["null", "[]", "0"]),
        (Predicate::Regex("^a.c$".into()), "regex", &[r#""abc""#], &[r#""ABC""#, r#""xabc""#]),
        (Predicate::Regex("(?i)B+".into()), "regex unanchored", &[r#""abbc""#, r#"{"x":"b"}"#], &[r#""ac""#, "null"]),
        (
            Predicate::Cidr("10.0.0.0/8".parse().unwrap()),
            "network",
            &[r#""10.2.3.4""#, r#""::ffff:10.1.1.1""#],
            &[r#""11.0.0.1""#, r#""10.2.3.4:80""#, "10"],
        ),
        (
            Predicate::Compare(Comparison::Gte, Number::Int(10)),
            "compare",
            &["10", "10.5", r#""11""#, "[1,12]"],
            &["9.99", r#""x""#, "null", "true"],
        ),
        (
            Predicate::Compare(Comparison::Lt, Number::Int(9_007_199_254_740_993)),
            "compare exactly",
            &["9007199254740992"],
            &["9007199254740993"],
        ),
        (Predicate::Compare(Comparison::Neq, Number::Float(0.5)), "differs", &["1", "0"], &["0.5", r#""x""#]),
    ];
    for (predicate, what, held, failed) in table {
        let condition = field("a.b", predicate);
        for value in held {
            assert!(matches(&condition, &format!(r#"{{"a":{{"b":{value}}}}}"#)), "{what}: {value} should hold");
            assert!(matches(&condition, &format!(r#"{{"a.b":{value}}}"#)), "{what}: {value} should hold, dotted key");
        }
        for value in failed {
            assert!(!matches(&condition, &format!(r#"{{"a":[{{"b":{value}}}]}}"#)), "{what}: {value} should fail");
        }
    }
}

#[test]
fn missing_fields() {
    let missing = r#"{"other":1}"#;
    assert!(matches(&field("a", Predicate::Null), missing));
    assert!(matches(&field("a", Predicate::Exists(false)), missing));
    assert!(!matches(&field("a", wildcard("*")), missing));
    assert!(matches(&Condition::Not(Box::new(field("a", equals("x")))), missing), "`neq` matches what is missing");
    assert!(matches(&Condition::And(Vec::new()), missing));
    assert!(!matches(&Condition::Or(Vec::new()), missing));
}

#[test]
fn keywords_look_everywhere_but_at_keys() {
    let native = r#"{"a":["x",{"b":"needle in hay"}],"n":4624,"key":{}}"#;
    assert!(matches(&Condition::Keyword(plain(AffixKind::Contains, "NEEDLE")), native));
    assert!(matches(&Condition::Keyword(plain(AffixKind::Contains, "4624")), native));
    assert!(!matches(&Condition::Keyword(plain(AffixKind::Contains, "key")), native));
    let both = ["needle", "x"].map(|word| Condition::Keyword(plain(AffixKind::Contains, word)));
    assert!(matches(&Condition::And(both.to_vec()), native), "all of them, in different values");
}

#[test]
fn field_references() {
    let reference = |kind| field("a", Predicate::FieldRef { field: "b".into(), kind, cased: false });
    assert!(matches(&reference(AffixKind::Equals), r#"{"a":"X","b":"x"}"#));
    assert!(matches(&reference(AffixKind::Equals), r#"{"a":5,"b":["4","5"]}"#));
    assert!(!matches(&reference(AffixKind::Equals), r#"{"a":null,"b":null}"#));
    assert!(!matches(&reference(AffixKind::Equals), "{}"));
    assert!(matches(&reference(AffixKind::EndsWith), r#"{"a":"xyz","b":"YZ"}"#));
}

#[test]
fn routing_shows_events_to_the_rules_of_their_logsource() {
    let anything = || Condition::And(Vec::new());
    let plan = Plan::compile(vec![
        detection("cloudtrail", "aws/cloudtrail", Taxonomy::Sigma, anything()),
        detection("aws", "aws", Taxonomy::Sigma, anything()),
        detection("github audit", "github/audit", Taxonomy::Sigma, anything()),
        detection("cicd", "cicd", Taxonomy::Cicd, anything()),
        detection("cicd token", "cicd/*/token", Taxonomy::Cicd, anything()),
        detection("proxy", "*/*/proxy", Taxonomy::Sigma, anything()),
    ])
    .unwrap();
    let names = |event: Event, routing: &Routing| -> Vec<String> {
        let matches = plan.select(&[event], routing);
        matches.iter().map(|found| plan.rules()[found.rule].meta().id.clone()).collect()
    };
    let with_category = |category: &str| {
        let mut fields = Fields::default();
        fields.text(Field::Category, Some(category));
        fields
    };
    let by_source = |kind, fields| names(event(kind, "{}", fields), &Routing::BySource);
    assert_eq!(
        by_source(SourceType::AwsCloudtrail, with_category("token")),
        ["cloudtrail", "aws", "cicd", "cicd token"]
    );
    assert_eq!(by_source(SourceType::AwsCloudtrail, with_category("cloud")), ["cloudtrail", "aws", "cicd"]);
    assert_eq!(by_source(SourceType::GithubWebhook, with_category("scm")), ["cicd"]);
    assert_eq!(by_source(SourceType::Json, Fields::default()), ["cicd", "cicd token"], "no category restricts nothing");
    assert_eq!(by_source(SourceType::Json, with_category("proxy")), ["cicd", "proxy"]);
    let by = |text: &str| names(json("{}"), &Routing::ByLogsource(logsource(text)));
    assert_eq!(by("aws/cloudtrail"), ["cloudtrail", "aws"], "CloudTrail is no proxy's log");
    assert_eq!(by("aws/elb"), ["aws", "proxy"], "this might be");
    assert_eq!(by("github/audit"), ["github audit"]);
    assert_eq!(by("cicd/*/token"), ["cicd", "cicd token"]);
    assert_eq!(names(json("{}"), &Routing::Unrouted).len(), 6);
}

#[test]
fn taxonomies() {
    let mut fields = Fields::default();
    fields.text(Field::Action, Some("git.push"));
    fields.int(Field::SrcAsn, Some(8075));
    let event = event(SourceType::Json, r#"{"action":"native","extra":{"x":1}}"#, fields);
    let rule = |taxonomy, condition| detection("r", "cicd", taxonomy, condition);
    let hits =
        |rule| !Plan::compile(vec![rule]).unwrap().select(std::slice::from_ref(&event), &Routing::BySource).is_empty();
    assert!(hits(rule(Taxonomy::Cicd, field("action", equals("git.push")))));
    assert!(hits(rule(Taxonomy::Cicd, field("src.asn", Predicate::Number(Number::Int(8075))))));
    assert!(hits(rule(Taxonomy::Cicd, field("extra.x", equals("1")))), "other names are native");
    assert!(hits(rule(Taxonomy::Sigma, field("action", equals("native")))));
    let reader = FieldReader::new(&event);
    assert_eq!(reader.text(Taxonomy::Cicd, "action").as_deref(), Some("git.push"));
    assert_eq!(reader.text(Taxonomy::Sigma, "action").as_deref(), Some("native"));
    assert_eq!(reader.text(Taxonomy::Cicd, "extra.x").as_deref(), Some("1"));
    assert_eq!(reader.text(Taxonomy::Cicd, "src.ip"), None);
}

fn correlation(id: &str, members: &[&str]) -> Rule {
    Rule::Correlation(CorrelationRule {
        meta: meta(id),
        operator: Operator::Temporal { ordered: true, clauses: Vec::new() },
        members: members.iter().map(ToString::to_string).collect(),
        group_by: Vec::new(),
        aliases: BTreeMap::new(),
        timespan: Duration::from_secs(1),
        session_gap: None,
        early: false,
        taxonomy: Taxonomy::Cicd,
    })
}

#[test]
fn plans_that_are_refused() {
    let rule = |id: &str| detection(id, "cicd", Taxonomy::Cicd, Condition::And(Vec::new()));
    assert!(matches!(Plan::compile(vec![rule("a"), rule("a")]), Err(PlanError::Duplicate(name)) if name == "a"));
    assert!(matches!(Plan::compile(vec![correlation("c", &["b"])]), Err(PlanError::UnknownMember { .. })));
    let circle = vec![rule("a"), correlation("c", &["a", "d"]), correlation("d", &["c"])];
    assert!(matches!(Plan::compile(circle), Err(PlanError::Cycle(_))));
    let bad = detection("r", "cicd", Taxonomy::Cicd, field("f", Predicate::Regex("(".into())));
    assert!(matches!(Plan::compile(vec![bad]), Err(PlanError::Regex { .. })));
    let plan = Plan::compile(vec![rule("a"), correlation("c", &["a", "a"]), correlation("d", &["c"])]).unwrap();
    assert_eq!(plan.members(1), [0, 0]);
    assert_eq!(plan.members(2), [1]);
}

#[test]
fn set_digest_covers_id_digest_and_state_but_not_order() {
    let rule = |id: &str| detection(id, "cicd", Taxonomy::Cicd, Condition::And(Vec::new()));
    let digest = |rules| Plan::compile(rules).unwrap().set_digest();
    let base = digest(vec![rule("a"), rule("b")]);
    assert_eq!(base, digest(vec![rule("b"), rule("a")]));
    let mut staged = rule("a");
    staged.meta_mut().state = RuleState::Staging;
    assert_ne!(base, digest(vec![staged, rule("b")]));
    assert_ne!(base, digest(vec![rule("a")]));
    let mut paused = rule("a");
    paused.meta_mut().state = RuleState::Paused;
    let plan = Plan::compile(vec![paused]).unwrap();
    assert!(plan.select(&[json("{}")], &Routing::Unrouted).is_empty(), "paused rules never match");
}

#[test]
fn explanations_name_field_test_and_values() {
    let condition = Condition::And(vec![
        Condition::Or(vec![field("a", equals("x")), field("a", equals("y"))]),
        Condition::Not(Box::new(field("b", equals("z")))),
    ]);
    let plan = Plan::compile(vec![detection("r", "x", Taxonomy::Sigma, condition)]).unwrap();
    let explanation = plan.explain(0, &json(r#"{"a":"Y","b":"q"}"#));
    assert!(explanation.matched);
    assert_eq!(explanation.because(), ["a = 'y' (Y)", "not b = 'z' (q)"]);
    let explanation = plan.explain(0, &json(r#"{"a":"w"}"#));
    assert!(!explanation.matched);
    let lines: Vec<_> = explanation.clauses.iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["a = 'x' or = 'y' (w)", "not b = 'z' (missing)"]);
}

#[test]
fn repeated_keys_and_keys_with_dots_are_all_seen() {
    let both = Condition::And(vec![field("a.b", equals("x")), field("a.b", equals("y"))]);
    for native in [r#"{"a":{"b":"x","b":"y"}}"#, r#"{"a":{"b":"x"},"a":{"b":"y"}}"#, r#"{"a.b":"x","a":[{"b":"y"}]}"#] {
        assert!(matches(&both, native), "{native}");
    }
}

#[test]
fn recognised_events_go_to_their_logsource_whatever_else_comes() {
    let anything = || Condition::And(Vec::new());
    let plan = Plan::compile(vec![
        detection("aws", "aws/cloudtrail", Taxonomy::Sigma, anything()),
        detection("k8s", "kubernetes/audit", Taxonomy::Sigma, field("a", equals("x"))),
        detection("proxy", "*/*/proxy", Taxonomy::Sigma, anything()),
    ])
    .unwrap();
    let texts = [
        r#"{"product":"aws","service":"cloudtrail"}"#,
        r#"{"a":"x","product":"kubernetes","service":"audit"}"#,
        r#"{"a":"x","product":"KUBERNETES","service":"Audit"}"#,
        r#"{"a":"x","product":"\u006bubernetes"}"#,
        r#"{"a":"x","product":"unheard of"}"#,
        r#"{"a":"x","product":"aws","product":"kubernetes"}"#,
        r#"{"a":"x","b":{"product":"aws"}}"#,
        r#"{"a":"x","product":"aws","product":5}"#,
        r#"{"a":"x","category":"proxy","service":"audit"}"#,
        "no JSON",
        r#"{"product":"aws","service":"cloudtrail","category":"proxy"}"#,
        r#"{"product":"aws","service":"elb"}"#,
    ];
    // What is known to be CloudTrail or a cluster's audit log is no proxy's, unless it says so.
    let expected: [&[usize]; 12] =
        [&[0], &[1], &[1], &[1, 2], &[2], &[1, 2], &[0, 1, 2], &[0, 1, 2], &[1, 2], &[0, 2], &[0, 2], &[2]];
    // In many orders, since what the events before were decides where an event is first looked at.
    for shift in 0..texts.len() {
        for step in [1, 3, 7] {
            let order: Vec<usize> = (0..texts.len() * 4).map(|n| (n * step + shift) % texts.len()).collect();
            let events: Vec<Event> = order.iter().map(|n| json(texts[*n])).collect();
            let matches = plan.select(&events, &Routing::Recognised);
            for (index, of) in order.iter().enumerate() {
                let rules: Vec<usize> =
                    matches.iter().filter(|found| found.event == index).map(|found| found.rule).collect();
                assert_eq!(rules, expected[*of], "{}", texts[*of]);
            }
        }
    }
}

#[test]
fn more_logsources_than_are_gathered_at_once() {
    let rules = (0..100)
        .map(|n| detection(&format!("r{n}"), &format!("p{n}"), Taxonomy::Sigma, field("a", equals(&format!("x{n}")))));
    let plan = Plan::compile(rules.collect::<Vec<_>>()).unwrap();
    let texts = (0..300).map(|n| {
        let own = n * 37 % 100;
        json(&format!(r#"{{"a":"x{own}","product":"p{own}"}}"#))
    });
    let events: Vec<Event> = texts.collect();
    let expected: Vec<_> = (0..300).map(|event| Match { event, rule: event * 37 % 100 }).collect();
    assert_eq!(plan.select(&events, &Routing::Recognised), expected);
}

#[test]
fn keywords_are_found_however_rare_they_are() {
    let keyword = |text: &str| Condition::Keyword(plain(AffixKind::Contains, text));
    let conditions = [
        Condition::And(vec![keyword("post"), keyword("/long/enough/")]),
        Condition::Not(Box::new(keyword("absent"))),
        Condition::And(vec![keyword("\"quoted\""), field("a", equals("x"))]),
        keyword("={{"),
        Condition::Or(vec![
            field("a", equals("y")),
            Condition::And(vec![keyword("post"), keyword("$"), keyword("long/")]),
        ]),
        Condition::Not(Box::new(Condition::And(vec![keyword("post"), keyword("long/")]))),
        Condition::And(vec![Condition::Not(Box::new(keyword("post"))), keyword("quoted")]),
        Condition::Keyword(equals("absent")),
        Condition::Keyword(plain(AffixKind::StartsWith, "a p")),
        Condition::Keyword(wildcard("*lo?g*enough/")),
        keyword("200"),
        keyword("true"),
    ];
    for condition in &conditions {
        for native in [
            r#"{"a":"x","b":"POST \/long\/enough\/"}"#,
            r#"{"a":"x","b":["a post","/LONG/enough/"]}"#,
            r#"{"a":"x","b":"\"QUOTED\""}"#,
            r#"{"a":"x","absent":1,"post":"/long/enough/"}"#,
            r#"{"a":"x","b":"absent={{"}"#,
            r#"{"a":"x","b":"ab\u0073ent"}"#,
            r#"{"a":"x","b":1.5,"c":"={"}"#,
            r#"{"a":"x","b":120030,"c":{"true":"absent"}}"#,
            r#"{"a":"x","200":[true,2.200,"absent"]}"#,
            r#"{"post":"a post","c":[{"absent" : 200 }]}"#,
        ] {
            matches(condition, native);
        }
    }
}

#[test]
fn a_large_batch_is_matched_like_single_events() {
    let rules = vec![
        detection("seven", "x", Taxonomy::Sigma, field("n", plain(AffixKind::EndsWith, "7"))),
        detection(
            "not seven",
            "x",
            Taxonomy::Sigma,
            Condition::Not(Box::new(field("n", plain(AffixKind::EndsWith, "7")))),
        ),
    ];
    let plan = Plan::compile(rules).unwrap();
    let events: Vec<_> = (0..3 * ROWS + 5).map(|n| json(&format!(r#"{{"n":{n}}}"#))).collect();
    let expected: Vec<_> = (0..events.len()).map(|event| Match { event, rule: usize::from(event % 10 != 7) }).collect();
    assert_eq!(plan.select(&events, &Routing::Unrouted), expected);
}

fn text() -> impl Strategy<Value = String> {
    // Letters whose lower case is ASCII, two letters or not what it seems, and what JSON escapes.
    let odd = prop_oneof![Just("Ä"), Just("ä"), Just("\u{212a}"), Just("\u{130}"), Just("ß"), Just("Σ"), Just("\u{1}")];
    proptest::collection::vec(
        prop_oneof![4 => "[abABkK]", 2 => odd.prop_map(str::to_owned), 2 => "[15. \n]", 1 => "[\"/\\\\{}:,]", 1 => "abab|k1/a"],
        0..5,
    )
    .prop_map(|parts| parts.concat())
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        4 => (-12_i128..120).prop_map(Number::Int),
        1 => prop_oneof![Just(i128::from(u64::MAX)), Just(i128::from(i64::MIN)), Just(9_007_199_254_740_993), Just(2026)]
            .prop_map(Number::Int),
        4 => (-20_i32..200).prop_map(|tenths| Number::Float(f64::from(tenths) / 10.0)),
    ]
}

fn predicate() -> impl Strategy<Value = Predicate> {
    let kind = prop_oneof![
        Just(AffixKind::Equals),
        Just(AffixKind::Contains),
        Just(AffixKind::StartsWith),
        Just(AffixKind::EndsWith)
    ];
    let comparison = prop_oneof![
        Just(Comparison::Lt),
        Just(Comparison::Lte),
        Just(Comparison::Gt),
        Just(Comparison::Gte),
        Just(Comparison::Eq),
        Just(Comparison::Neq)
    ];
    let part = prop_oneof![Just(WildcardPart::Any), Just(WildcardPart::One), text().prop_map(WildcardPart::Literal)];
    prop_oneof![
        4 => (kind.clone(), text(), any::<bool>()).prop_map(|(kind, text, cased)| Predicate::Text {
            test: TextTest::Plain { kind, text },
            cased
        }),
        3 => (proptest::collection::vec(part, 0..5), any::<bool>())
            .prop_map(|(parts, cased)| Predicate::Text { test: TextTest::Wildcard(parts), cased }),
        1 => number().prop_map(Predicate::Number),
        1 => any::<bool>().prop_map(Predicate::Bool),
        1 => Just(Predicate::Null),
        1 => any::<bool>().prop_map(Predicate::Exists),
        1 => prop_oneof!["[ab]\\.?[ab1]", Just("(?i)^a".to_owned()), Just("1$".to_owned())].prop_map(Predicate::Regex),
        1 => Just(Predicate::Cidr("10.1.0.0/16".parse().unwrap())),
        1 => (time_part(), comparison.clone(), prop_oneof![0_i64..60, Just(2026)])
            .prop_map(|(part, comparison, number)| Predicate::TimePart(part, comparison, number)),
        1 => (comparison, number()).prop_map(|(comparison, number)| Predicate::Compare(comparison, number)),
        1 => (name(), kind, any::<bool>())
            .prop_map(|(field, kind, cased)| Predicate::FieldRef { field, kind, cased }),
    ]
}

fn time_part() -> impl Strategy<Value = TimePart> {
    prop_oneof![
        Just(TimePart::Minute),
        Just(TimePart::Hour),
        Just(TimePart::Day),
        Just(TimePart::Week),
        Just(TimePart::Month),
        Just(TimePart::Year)
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("a.b".to_owned()),
        Just("a.b.c".to_owned()),
        Just("b.c".to_owned()),
        Just("action".to_owned()),
        Just("src.ip".to_owned()),
    ]
}

fn value_test() -> impl Strategy<Value = Predicate> {
    predicate().prop_filter("a test of a value", |test| {
        !matches!(test, Predicate::Null | Predicate::Exists(_) | Predicate::FieldRef { .. })
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        6 => (name(), predicate()).prop_map(|(field, predicate)| Condition::Field { field, predicate }),
        1 => value_test().prop_map(Condition::Keyword),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Condition::And),
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Condition::Or),
            inner.prop_map(|part| Condition::Not(Box::new(part))),
        ]
    })
}

fn native() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        2 => (-12_i64..120).prop_map(Value::from),
        1 => (-20_i32..200).prop_map(|tenths| Value::from(f64::from(tenths) / 10.0)),
        1 => prop_oneof![Just(u64::MAX), Just(9_007_199_254_740_993), Just(1_767_614_400)].prop_map(Value::from),
        1 => Just(Value::from(i64::MIN)),
        1 => prop_oneof![Just("2026-01-05T12:34:56Z"), Just("2026-01-05 02:34:56.5"), Just("1767614400000")]
            .prop_map(Value::from),
        1 => prop_oneof![Just("10.1.2.3"), Just("10.2.2.3"), Just("::ffff:10.1.0.9")].prop_map(Value::from),
        4 => text().prop_map(Value::from),
    ];
    let keys = prop_oneof![Just("a"), Just("b"), Just("c"), Just("a.b"), Just("b.c"), Just("a.b.c"), Just("action")];
    let object = move |inner: BoxedStrategy<Value>| {
        proptest::collection::btree_map(keys.clone().prop_map(str::to_owned), inner, 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
            .boxed()
    };
    let inner = leaf.prop_recursive(3, 20, 4, {
        let object = object.clone();
        move |inner| {
            prop_oneof![proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from), object(inner.boxed())]
        }
    });
    object(inner.boxed())
}

fn arbitrary_event() -> impl Strategy<Value = Event> {
    let ip = proptest::option::of(prop_oneof![Just("10.1.9.9".to_owned()), text()]);
    (written(), proptest::option::of(text()), ip).prop_map(|(native, action, ip)| {
        let mut fields = Fields::default();
        fields.text(Field::Action, action);
        fields.text(Field::SrcIp, ip);
        event(SourceType::Json, &native, fields)
    })
}

/// JSON, compact or not; one in four with keys repeated, one in ten with escapes where none are needed.
fn written() -> impl Strategy<Value = String> {
    (native(), native(), 0..4, any::<bool>(), 0..10).prop_map(|(value, more, repeats, pretty, escapes)| {
        let write = |value: &serde_json::Value| {
            if pretty { serde_json::to_string_pretty(value).unwrap() } else { value.to_string() }
        };
        let mut text = write(&value);
        let empty = |value: &serde_json::Value| value.as_object().is_none_or(serde_json::Map::is_empty);
        if repeats == 0 && !empty(&value) && !empty(&more) {
            text = format!("{},{}", text.trim_end_matches('}'), write(&more).trim_start_matches('{'));
            if serde_json::from_str::<serde_json::Value>(&text).is_err() {
                text = write(&value);
            }
        }
        if escapes == 0 { text.replace('/', "\\/").replace('k', "\\u006b") } else { text }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn the_plan_agrees_with_the_oracle(
        conditions in proptest::collection::vec((condition(), any::<bool>()), 1..8),
        events in proptest::collection::vec(arbitrary_event(), 1..8),
        again in 1_usize..4,
    ) {
        let rules: Vec<_> = conditions
            .into_iter()
            .enumerate()
            .map(|(number, (condition, cicd))| {
                let taxonomy = if cicd { Taxonomy::Cicd } else { Taxonomy::Sigma };
                detection(&number.to_string(), "cicd", taxonomy, condition)
            })
            .collect();
        let plan = Plan::compile(rules).unwrap();
        // The same values several times over, so that what is remembered of them is asked for.
        let events: Vec<Event> = std::iter::repeat_n(&events, again).flatten().cloned().collect();
        let mut expected = Vec::new();
        for (event, of) in events.iter().enumerate() {
            for (number, rule) in plan.rules().iter().enumerate() {
                let Rule::Detection(rule) = rule else { continue };
                let holds = oracle::matches(rule.taxonomy, &rule.condition, of);
                prop_assert_eq!(plan.explain(number, of).matched, holds, "explain {:?}\n{:?}", rule.condition, of);
                if holds {
                    expected.push(Match { event, rule: number });
                }
            }
        }
        let context = || format!("{:?}\n{:?}", plan.rules(), events);
        prop_assert_eq!(plan.select(&events, &Routing::Unrouted), expected.clone(), "unrouted {}", context());
        prop_assert_eq!(plan.select(&events, &Routing::BySource), expected.clone(), "by source {}", context());
        prop_assert_eq!(plan.select(&events, &Routing::Unrouted), expected, "again {}", context());
    }
}
