//! Hostile events.

use bytes::Bytes;
use pipeproof_engine::plan::{Plan, Routing};
use pipeproof_rules::{Lists, load};

use super::{GOOD, rule, swiftly};
use crate::harness::{Sample, event};

const RULES: &str = "title: any\nid: any\nlogsource: {category: x}\ndetection:\n    s: {a: '*'}\n    condition: s\n---\n\
    title: five\nid: five\nlogsource: {category: x}\ndetection:\n    s: {a: 5}\n    condition: s\n---\n\
    title: less\nid: less\nlogsource: {category: x}\ndetection:\n    s: {a|lt: 5}\n    condition: s\n---\n\
    title: word\nid: word\nlogsource: {category: x}\ndetection:\n    s: [needle]\n    condition: s\n---\n\
    title: deep\nid: deep\nlogsource: {category: x}\ndetection:\n    s: {a.b.c|contains: needle, d|re: '^x+$'}\n    condition: s\n";

/// Ids of the rules that match `bytes`, an event between two good ones, which must match as ever.
fn matched(bytes: impl Into<Bytes>) -> Vec<String> {
    let bytes = bytes.into();
    swiftly(|| {
        let files = [("good.yml".to_owned(), GOOD.to_owned()), ("rules.yml".to_owned(), RULES.to_owned())];
        let plan = Plan::compile(load(&files, &Lists::new()).rules).unwrap();
        let good = Sample::new(std::time::Duration::ZERO, "{\"good\":\"yes\"}");
        let mut events = vec![event(0, &good), event(1, &good), event(2, &good)];
        events[1].native = bytes;
        let hits = plan.select(&events, &Routing::Unrouted);
        let id = |rule: usize| plan.rules()[rule].meta().id.clone();
        for beside in [0, 2] {
            let of: Vec<String> = hits.iter().filter(|hit| hit.event == beside).map(|hit| id(hit.rule)).collect();
            assert_eq!(of, ["good"], "an event beside it");
        }
        let found: Vec<usize> = hits.iter().filter(|hit| hit.event == 1).map(|hit| hit.rule).collect();
        for rule in 0..plan.rules().len() {
            assert_eq!(
                plan.explain(rule, &events[1]).matched,
                found.contains(&rule),
                "explained otherwise: {}",
                id(rule)
            );
        }
        found.into_iter().map(id).collect()
    })
}

#[test]
fn nesting() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [1_000, 10_000, 1_000_000] {
            let text = format!("{{\"a\":{}1{}}}", open.repeat(depth), close.repeat(depth));
            assert_eq!(matched(text), Vec::<String>::new(), "{depth} deep");
            assert_eq!(matched(open.repeat(depth)), Vec::<String>::new(), "{depth} deep and not closed");
        }
    }
    let text = format!("{{\"a\":{}\"needle\"{}}}", "[".repeat(100), "]".repeat(100));
    assert_eq!(matched(text), ["any", "word"], "100 deep is fine");
}

#[test]
fn numbers() {
    assert_eq!(matched(r#"{"a":5}"#), ["any", "five"]);
    for text in [
        r#"{"a":NaN}"#,
        r#"{"a":Infinity}"#,
        r#"{"a":-Infinity}"#,
        r#"{"a":+5}"#,
        r#"{"a":05}"#,
        r#"{"a":.5}"#,
        r#"{"a":5.}"#,
    ] {
        assert_eq!(matched(text), Vec::<String>::new(), "{text} is not JSON");
    }
    for text in [r#"{"a":1e400}"#, r#"{"a":123456789012345678901234567890}"#, r#"{"a":1e-400}"#] {
        let found = matched(text);
        assert!(!found.contains(&"five".to_owned()), "{text}: {found:?}");
    }
    assert!(!matched(r#"{"a":1e400}"#).contains(&"less".to_owned()));
    assert!(!matched(format!("{{\"a\":{}}}", "9".repeat(100_000))).contains(&"less".to_owned()));
    assert!(!matched(format!("{{\"a\":\"{}\"}}", "9".repeat(100_000))).contains(&"less".to_owned()));
    assert!(!matched(format!("{{\"a\":5{}}}", "0".repeat(100_000))).contains(&"five".to_owned()));
}

#[test]
fn text_that_is_none() {
    for bytes in [
        &b"{\"a\":\"\xff\xfe\"}"[..],
        b"{\"a\":\"\xc3\"}",
        b"{\"\xff\":1}",
        b"\xff",
        b"",
        b" ",
        b"{",
        b"{\"a\"",
        b"\"a",
        b"{\"a\":1}}",
        b"{\"a\":\"\x01\"}",
        b"{\"a\":1,}",
    ] {
        assert_eq!(matched(bytes.to_vec()), Vec::<String>::new(), "{bytes:?}");
    }
    for text in
        [r#"{"a":"\ud800"}"#, r#"{"a":"\udc00\ud800"}"#, r#"{"a":"\ud800x"}"#, r#"{"a":"\u12"}"#, r#"{"a":"\x"}"#]
    {
        let found = matched(text);
        assert!(found.is_empty() || found == ["any"], "{text}: {found:?}");
    }
    assert_eq!(matched(r#"{"a":"\u0000needle"}"#), ["any", "word"]);
    for text in ["null", "1", "\"needle\"", "[]", "[{\"a\":5}]"] {
        matched(text);
    }
}

#[test]
fn sizes() {
    let keys: Vec<String> = (0..100_000).map(|number| format!("\"k{number}\":{number}")).collect();
    assert_eq!(matched(format!("{{{},\"a\":5}}", keys.join(","))), ["any", "five"]);
    assert_eq!(matched(format!("{{\"a\":\"{}needle\"}}", "x".repeat(10_000_000))), ["any", "word"]);
    assert_eq!(matched(format!("{{\"a\":[{}5]}}", "1,".repeat(500_000))), ["any", "five", "less"]);
    assert_eq!(
        matched(format!("{{\"d\":\"{}\",\"a\":{{\"b\":{{\"c\":\"needle\"}}}}}}", "x".repeat(1_000_000))),
        ["any", "word", "deep"]
    );
    let same: String = (0..100_000).map(|number| format!("\"a\":{number},")).collect();
    assert!(matched(format!("{{{same}\"a\":5}}")).contains(&"five".to_owned()), "100,000 times the same key");
    let name = "k".repeat(5_000_000);
    assert_eq!(matched(format!("{{\"{name}\":1,\"a\":5}}")), ["any", "five"]);
    let objects = "{\"b\":{\"c\":\"x\"}},".repeat(100_000);
    assert_eq!(
        matched(format!("{{\"d\":\"x\",\"a\":[{objects}{{\"b\":{{\"c\":\"needle\"}}}}]}}")),
        ["any", "word", "deep"]
    );
}

#[test]
fn keys_that_stand_twice() {
    for text in [r#"{"a":1,"a":5}"#, r#"{"a":{"b":1},"a":5}"#] {
        assert!(matched(text).contains(&"five".to_owned()), "{text}");
    }
}

#[test]
fn names_that_look_like_paths() {
    let files = [("x.yml".to_owned(), rule("s: {a..b: x}\n    t: {'.': x}\n    u: {'a.': x}", "1 of *"))];
    let plan = Plan::compile(load(&files, &Lists::new()).rules).unwrap();
    let hit = |text: &str| {
        !plan.select(&[event(0, &Sample::new(std::time::Duration::ZERO, text))], &Routing::Unrouted).is_empty()
    };
    assert!(hit(r#"{"a":{"":{"b":"x"}}}"#) && hit(r#"{"a..b":"x"}"#) && hit(r#"{".":"x"}"#) && hit(r#"{"a.":"x"}"#));
    assert!(!hit(r#"{"a":{"b":"x"}}"#) && !hit(r#"{"a":"x"}"#));
}
