//! Correlations of every type, and their digests.

use super::*;

#[test]
fn correlations_of_every_type() {
    let of = |lines: &str| {
        let text = format!(
            "title: C\nname: c\ncorrelation:\n    rules: [pushed]\n    group-by: [actor.id]\n{lines}---\n{RULE}"
        );
        let set = set(&text);
        let rule = set.rules.iter().find(|rule| rule.meta().id == "c").cloned();
        match rule {
            Some(Rule::Correlation(rule)) => Ok(rule),
            _ => Err(set.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        }
    };
    let shape = |lines: &str| format!("{:?}", of(&lines.replace(';', "\n").replace("  ", "    ")).unwrap().operator);
    for (lines, expected) in [
        (
            "  type: event_count;  timespan: 5m;  condition: {gte: 3, lt: 9};",
            "metric: Events, bounds: Bounds([(Lt, Int(9)), (Gte, Int(3))])",
        ),
        (
            "  type: value_count;  timespan: 5m;  condition: {field: [src.ip, src.asn], gt: 3};",
            "metric: Distinct([\"src.ip\", \"src.asn\"])",
        ),
        (
            "  type: value_sum;  timespan: 5m;  condition: {field: leak.count, gte: 1.5};",
            "metric: Sum(\"leak.count\"), bounds: Bounds([(Gte, Float(1.5))])",
        ),
        (
            "  type: value_avg;  timespan: 5m;  condition: {field: leak.count, eq: -2};",
            "metric: Average(\"leak.count\")",
        ),
        (
            "  type: value_median;  timespan: 5m;  condition: {field: leak.count, neq: 2};",
            "metric: Percentile(\"leak.count\", 50.0)",
        ),
        (
            "  type: value_percentile;  timespan: 5m;  condition: {field: leak.count, percentile: 99.5, lte: 2};",
            "metric: Percentile(\"leak.count\", 99.5)",
        ),
        (
            "  type: value_new;  timespan: 60d;  learn: {events: 2, for: 14d};  condition: {field: src.asn};",
            "New { fields: [\"src.asn\"], learn: Learn { events: 2, for_: 1209600s } }",
        ),
        (
            "  type: value_rare;  timespan: 60d;  condition: {field: src.asn, lte: 0.01, min: 200};",
            "Rare { fields: [\"src.asn\"], bounds: Bounds([(Lte, Float(0.01))]), min: 200 }",
        ),
        (
            "  type: value_spike;  timespan: 10m;  baseline: 28d;  season: hour_of_week;  condition: {lte: -5};",
            "Spike { field: None, comparison: Lte, deviation: -5.0, floor: 0, baseline: 2419200s, hour_of_week: true, learn_buckets: 5 }",
        ),
        (
            "  type: value_spike;  timespan: 10m;  baseline: 28d;  learn: {buckets: 3};  condition: {field: src.ip, gte: 8, floor: 10};",
            "Spike { field: Some(\"src.ip\"), comparison: Gte, deviation: 8.0, floor: 10, baseline: 2419200s, hour_of_week: false, learn_buckets: 3 }",
        ),
        (
            "  type: temporal;  timespan: 5m;  condition: pushed and not pushed;",
            "Temporal { ordered: false, clauses: [TemporalClause { present: [0], absent: [0] }] }",
        ),
    ] {
        let shape = shape(lines);
        assert!(shape.contains(expected), "{lines}: {shape}");
    }
    let session =
        of("    type: event_count\n    timespan: {session: 10m, max: 2h}\n    condition: {gte: 2}\n").unwrap();
    assert_eq!((session.timespan.as_secs(), session.session_gap.unwrap().as_secs()), (7_200, 600));
    let early = |lines: &str| of(&format!("    timespan: 5m\n    emit: early\n{lines}")).map(|rule| rule.early);
    assert_eq!(early("    type: value_count\n    condition: {field: src.ip, gte: 2}\n"), Ok(true));
    for (lines, said) in [
        ("    type: value_sum\n    condition: {field: src.ip, gte: 2}\n", "E0133"),
        ("    type: event_count\n    condition: {gte: 2, lt: 5}\n", "E0133"),
        ("    type: temporal\n    condition: pushed and not pushed\n", "E0133"),
        ("    type: value_new\n    condition: {field: src.ip}\n    learn: {events: 1}\n", "E0133"),
    ] {
        assert!(early(lines).unwrap_err().contains(said), "{lines}");
    }
    for (lines, at, said) in [
        (
            "    type: value_percentile\n    timespan: 5m\n    condition: {field: src.ip, gte: 2}\n",
            ":8:16",
            "percentile: 95",
        ),
        (
            "    type: value_percentile\n    timespan: 5m\n    condition: {field: src.ip, percentile: 101, gte: 2}\n",
            ":8:44",
            "0 to 100",
        ),
        (
            "    type: value_rare\n    timespan: 5m\n    condition: {field: src.ip, lte: 2, min: 3}\n",
            ":8:16",
            "between 0 and 1",
        ),
        ("    type: value_rare\n    timespan: 5m\n    condition: {field: src.ip, lte: 0.1}\n", ":8:16", "needs `min`"),
        (
            "    type: value_spike\n    timespan: 5m\n    baseline: 1d\n    condition: {gte: 8}\n",
            ":9:16",
            "needs `floor`",
        ),
        ("    type: value_spike\n    timespan: 5m\n    condition: {gte: 8, floor: 3}\n", ":4:5", "no `baseline`"),
        (
            "    type: value_spike\n    timespan: 1s\n    baseline: 90d\n    condition: {gte: 8, floor: 3}\n",
            ":8:15",
            "buckets",
        ),
        (
            "    type: value_spike\n    timespan: 5m\n    baseline: 1d\n    condition: {gte: -8, floor: 3}\n",
            ":9:16",
            "above zero",
        ),
        (
            "    type: value_spike\n    timespan: 5m\n    baseline: 1d\n    season: hour_of_day\n    condition: {gte: 8, floor: 3}\n",
            ":9:13",
            "hour_of_week",
        ),
        ("    type: value_sum\n    timespan: 5m\n    condition: {field: [a, b], gte: 2}\n", ":8:16", "single field"),
        (
            "    type: value_new\n    timespan: 5m\n    learn: {}\n    condition: {field: src.ip}\n",
            ":8:12",
            "`events`, `for`",
        ),
        ("    type: temporal_extended\n    timespan: 5m\n", ":4:5", "no `condition`"),
        ("    type: temporal\n    timespan: 5m\n", ":4:5", "at least two"),
        (
            "    type: temporal\n    timespan: {session: 1m, max: 5m}\n    condition: pushed and not pushed\n",
            ":7:15",
            "sessions go with",
        ),
        (
            "    type: value_new\n    timespan: 5m\n    baseline: 1d\n    condition: {field: src.ip}\n",
            ":8:5",
            "no key `baseline`",
        ),
    ] {
        let error = of(lines).unwrap_err();
        assert!(error.contains(at) && error.contains(said), "{lines}: {error}");
    }
}

#[test]
fn digests_tell_operators_apart() {
    let digest = |lines: &str| {
        let text = format!(
            "title: C\nname: c\ncorrelation:\n    rules: [a, b]\n    timespan: 5m\n{lines}---\n{}---\n{}",
            RULE.replace("name: pushed", "name: a"),
            RULE.replace("name: pushed", "name: b").replace("1850480", "1850481").replace("eve", "bob")
        );
        let set = set(&text);
        let rule = set.rules.iter().find(|rule| rule.meta().id == "c");
        rule.unwrap_or_else(|| panic!("{lines}: {:?}", set.diagnostics)).meta().digest.clone()
    };
    let all = [
        "    type: temporal\n",
        "    type: temporal_ordered\n",
        "    type: temporal\n    condition: a or b\n",
        "    type: temporal\n    condition: a and not b\n",
        "    type: temporal_ordered\n    condition: a and not b\n",
        "    type: event_count\n    condition: {gte: 3}\n",
        "    type: event_count\n    condition: {gte: 3, lte: 5}\n",
        "    type: value_count\n    condition: {field: src.ip, gte: 3}\n",
        "    type: value_count\n    condition: {field: [src.ip, src.asn], gte: 3}\n",
        "    type: value_sum\n    condition: {field: src.ip, gte: 3}\n",
        "    type: value_avg\n    condition: {field: src.ip, gte: 3}\n",
        "    type: value_median\n    condition: {field: src.ip, gte: 3}\n",
        "    type: value_percentile\n    condition: {field: src.ip, percentile: 95, gte: 3}\n",
        "    type: value_new\n    learn: {events: 3}\n    condition: {field: src.ip}\n",
        "    type: value_new\n    learn: {for: 3d}\n    condition: {field: src.ip}\n",
        "    type: value_rare\n    condition: {field: src.ip, lte: 0.1, min: 9}\n",
        "    type: value_spike\n    baseline: 9d\n    condition: {gte: 8, floor: 10}\n",
        "    type: value_spike\n    baseline: 9d\n    season: hour_of_week\n    condition: {gte: 8, floor: 10}\n",
    ];
    let digests: std::collections::BTreeSet<String> = all.iter().map(|lines| digest(lines)).collect();
    assert_eq!(digests.len(), all.len());
    let same = |left: &str, right: &str| assert_eq!(digest(left), digest(right), "{left} {right}");
    same("    type: temporal\n", "    type: temporal_extended\n    condition: b and a\n");
    same("    type: temporal\n    condition: {gte: 2}\n", "    type: temporal\n    condition: a and (b or b)\n");
    same(
        "    type: value_median\n    condition: {field: src.ip, gte: 3}\n",
        "    type: value_percentile\n    condition: {field: src.ip, percentile: 50, gte: 3}\n",
    );
    same(
        "    type: event_count\n    condition: {gte: 3, lte: 5}\n",
        "    type: event_count\n    condition: {lte: 5, gte: 3}\n",
    );
}

#[test]
fn native_correlations_take_the_names_of_their_members() {
    let text = "\
title: Many stops
name: stops
correlation: {type: event_count, rules: [stop], group-by: [userIdentity.arn], timespan: 5m, condition: {gte: 2}}
alert: {entity: ['identity:userIdentity.arn']}
---
title: Trail stopped
name: stop
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: StopLogging}, condition: s}
";
    let set = set(text);
    assert!(set.diagnostics.is_empty(), "{:?}", set.diagnostics);
    let rule = set.rules.iter().find(|rule| rule.meta().id == "stops").unwrap();
    assert!(matches!(rule, Rule::Correlation(rule) if rule.taxonomy == Taxonomy::Sigma));
}

#[test]
fn long_chains_and_circles_end() {
    let link = |number: usize| {
        COUNT.replace("name: many", &format!("name: c{number}")).replace("[pushed]", &format!("[c{}]", number - 1))
    };
    let chain = |length: usize| {
        let links: Vec<String> = (1..length).map(link).collect();
        format!("{}---\n{}", links.join("---\n"), RULE.replace("name: pushed", "name: c0"))
    };
    assert!(!set(&chain(20)).has_errors());
    let long = problems(&chain(60));
    assert!(long.iter().any(|problem| problem.contains("build on each other")), "{long:?}");
    let circle = format!("{}---\n{}", link(1).replace("[c0]", "[c2]"), link(2));
    assert!(problems(&circle).iter().all(|problem| problem.contains("leads back")));
}
