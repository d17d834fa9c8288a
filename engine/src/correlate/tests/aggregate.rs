//! Numbers over a window.

use proptest::prelude::*;

use super::*;

fn aggregate(metric: Metric, bounds: Bounds) -> CorrelationRule {
    rule(Operator::Aggregate { metric, bounds }, 1)
}

fn distinct(count: i128) -> CorrelationRule {
    aggregate(Metric::Distinct(vec!["v".into()]), bounds(Comparison::Gte, count))
}

fn gte(number: f64) -> Bounds {
    Bounds(vec![(Comparison::Gte, Number::Float(number))])
}

#[test]
fn a_count_fires_once_while_it_holds_and_again_after_it_did_not() {
    let three = || rule(at_least(3), 1);
    assert_eq!(times(three(), &[(0, 0), (10, 0), (20, 0), (30, 0)]), [20]);
    assert_eq!(times(three(), &[(0, 0), (10, 0), (200, 0), (210, 0), (220, 0)]), [220]);
    assert_eq!(times(three(), &[(0, 0), (30, 0), (60, 0)]), [60], "a window includes its ends");
    assert_eq!(times(three(), &[(0, 0), (30, 0), (61, 0)]), [0_i64; 0]);
    assert_eq!(times(three(), &[(0, 0), (1, 0), (2, 0), (500, 0), (501, 0), (502, 0)]), [2, 502]);
    // It held at 2, not at 61.5 and 62 any more, and holds again at 63.
    assert_eq!(times(three(), &[(0, 0), (1, 0), (2, 0), (70, 0), (71, 0), (72, 0)]), [2, 72], "it is armed again");
}

#[test]
fn a_window_ends_to_the_microsecond() {
    let edge = |last: i64| {
        let mut run = Run::new(rule(at_least(2), 1));
        run.hit(0, 0);
        run.at(Timestamp::from_micros(last), 0, &[("k", "a")]);
        run.end().len()
    };
    assert_eq!(edge(60_000_000), 1);
    assert_eq!(edge(60_000_001), 0);
}

#[test]
fn arrival_order_does_not_matter_and_time_is_the_events_own() {
    let three = || rule(at_least(3), 1);
    assert_eq!(times(three(), &[(20, 0), (0, 0), (10, 0), (30, 0)]), [20]);
    assert_eq!(times(three(), &[(3_600, 0), (0, 0), (10, 0)]), [0_i64; 0], "an early clock does not fill the window");
}

#[test]
fn groups_do_not_mix_and_an_event_without_its_key_is_not_counted() {
    let mut run = Run::new(rule(at_least(2), 1));
    run.at(secs(0), 0, &[("k", "a")]);
    run.at(secs(1), 0, &[("k", "b")]);
    run.at(secs(2), 0, &[]);
    run.at(secs(3), 0, &[]);
    assert_eq!(run.end(), [0_i64; 0]);
    run.fired.clear();
    let mut run = Run::new(rule(at_least(2), 1));
    for (at, key) in [(0, "a"), (1, "b"), (2, "b"), (3, "a")] {
        run.at(secs(at), 0, &[("k", key)]);
    }
    run.end();
    let keys: Vec<_> = run.fired.iter().map(Fired::key).collect();
    assert_eq!(keys, [["b"], ["a"]]);
}

#[test]
fn a_large_count_is_counted_and_the_latest_events_are_cited() {
    let mut run = Run::new(rule(at_least(5_000), 1));
    for at in 0..6_000 {
        run.at(Timestamp::from_millis(at), 0, &[("k", "a")]);
    }
    run.end();
    assert_eq!(run.fired.len(), 1);
    let fired = &run.fired[0];
    assert_eq!(fired.what, What::Aggregate { value: "5000".into(), count: 5_000 });
    assert_eq!(fired.signals.len(), CITED_MAX);
    assert_eq!(fired.signals.last(), fired.anchor.as_ref());
    assert_eq!(fired.time, Timestamp::from_millis(4_999));
    let mut none = Run::new(rule(at_least(5_000), 1));
    for at in 0..6_000 {
        // 4,616 within any minute.
        none.at(Timestamp::from_millis(at * 13), 0, &[("k", "a")]);
    }
    assert_eq!(none.end(), [0_i64; 0]);
}

#[test]
fn several_bounds_must_all_hold() {
    let two_to_three = Bounds(vec![(Comparison::Gt, Number::Int(1)), (Comparison::Lte, Number::Int(3))]);
    let between = aggregate(Metric::Events, two_to_three);
    assert_eq!(times(between, &[(0, 0), (1, 0), (2, 0), (3, 0), (100, 0), (101, 0)]), [1, 101]);
    let not_two = aggregate(Metric::Events, bounds(Comparison::Neq, 2));
    assert_eq!(times(not_two, &[(0, 0), (1, 0), (2, 0)]), [0, 2]);
    let few = aggregate(Metric::Events, bounds(Comparison::Lt, 2));
    assert_eq!(times(few, &[(0, 0), (30, 0), (100, 0)]), [0, 100], "an empty window forgets that it held");
}

#[test]
fn distinct_values_are_counted_while_any_of_their_events_is_in_the_window() {
    assert_eq!(value_times(distinct(2), &[(0, "a"), (5, "a"), (40, "b"), (50, "b")]), [40]);
    assert_eq!(value_times(distinct(2), &[(0, "a"), (61, "b")]), [0_i64; 0]);
    assert_eq!(value_times(distinct(2), &[(0, "a"), (30, "a"), (61, "b")]), [61], "the later of two counts");
    let tuple = aggregate(Metric::Distinct(vec!["v".into(), "w".into()]), bounds(Comparison::Gte, 3));
    let mut run = Run::new(tuple);
    for (at, v, w) in [(0, "a", "b"), (1, "ab", ""), (2, "a", "b"), (3, "a", "c")] {
        run.at(secs(at), 0, &[("k", "a"), ("v", v), ("w", w)]);
    }
    run.at(secs(4), 0, &[("k", "a"), ("v", "d")]);
    assert_eq!(run.end(), [3], "together, and only where all are there");
    assert_eq!(run.fired[0].signals.len(), 3, "one event of each value is cited");
}

#[test]
fn sums_averages_and_percentiles_follow_the_window() {
    let field = || "v".to_owned();
    let sum = aggregate(Metric::Sum(field()), gte(10.0));
    assert_eq!(
        value_times(sum, &[(0, "4"), (10, "5.5"), (20, "none"), (30, "0.5"), (200, "9"), (201, "1")]),
        [30, 201]
    );
    let average = || aggregate(Metric::Average(field()), gte(10.0));
    assert_eq!(value_times(average(), &[(0, "5"), (1, "15"), (2, "1"), (3, "19")]), [1, 3]);
    assert_eq!(value_times(average(), &[(0, "-5"), (61, "10")]), [61], "what left the window counts no more");
    let median = aggregate(Metric::Percentile(field(), 50.0), gte(10.0));
    assert_eq!(value_times(median, &[(0, "1"), (1, "10"), (2, "11"), (3, "2"), (4, "100")]), [2, 4]);
    let mut run = Run::new(aggregate(Metric::Percentile(field(), 95.0), bounds(Comparison::Gt, 94)));
    for at in 0..=100 {
        run.at(Timestamp::from_millis(at), 0, &[("k", "a"), ("v", &at.to_string())]);
    }
    run.end();
    assert_eq!(run.fired[0].what, What::Aggregate { value: "95".into(), count: 101 });
}

#[test]
fn a_session_ends_with_a_gap_or_at_its_longest() {
    let session = |count| CorrelationRule { session_gap: Some(Duration::from_secs(20)), ..rule(at_least(count), 1) };
    assert_eq!(times(session(4), &[(0, 0), (20, 0), (40, 0), (60, 0)]), [60]);
    assert_eq!(times(session(4), &[(0, 0), (20, 0), (41, 0), (60, 0)]), [0_i64; 0], "a gap of 21 s");
    assert_eq!(times(session(5), &[(0, 0), (20, 0), (40, 0), (60, 0), (61, 0)]), [0_i64; 0], "longer than a minute");
    assert_eq!(times(session(2), &[(0, 0), (1, 0), (2, 0), (30, 0), (31, 0)]), [1, 31], "once a session");
}

#[test]
fn early_fires_on_arrival_and_once() {
    let mut run = Run::new(early(rule(at_least(3), 1)));
    let fired: Vec<usize> = [20, 0, 10, 30].into_iter().map(|at| run.hit(at, 0)).collect();
    assert_eq!(fired, [0, 0, 1, 0]);
    let hundred = [(100, 0), (0, 0), (50, 0)];
    assert_eq!(times(early(rule(at_least(3), 1)), &hundred), [0_i64; 0], "three, but never within a minute");
}

#[test]
fn early_does_not_believe_a_clock_that_runs_ahead() {
    let mut run = Run::new(early(rule(at_least(2), 1)));
    run.now = secs(1_000);
    assert_eq!(run.hit(5_000, 0), 0);
    assert_eq!(run.hit(990, 0), 0);
    assert_eq!(run.hit(995, 0), 1, "what claims to come from the future hides nothing");
}

#[test]
fn a_signal_behind_the_watermark_is_counted_and_decides_nothing() {
    let mut run = Run::new(rule(at_least(3), 1));
    run.hit(0, 0);
    run.hit(10, 0);
    assert!(run.advance(secs(30)).is_empty());
    run.hit(20, 0);
    assert_eq!(run.end(), [0_i64; 0]);
    assert_eq!(run.state.counts().late, 1);
}

#[test]
fn nothing_is_decided_before_the_watermark() {
    let mut run = Run::new(rule(at_least(2), 1));
    run.hit(0, 0);
    run.hit(10, 0);
    assert!(run.advance(Timestamp::from_micros(9_999_999)).is_empty());
    assert_eq!(run.advance(secs(10)), [10]);
}

/// What a window holds, the slow way.
fn plainly(events: &[(i64, i64)], count: i64) -> Vec<i64> {
    let mut sorted: Vec<(i64, usize, i64)> =
        events.iter().enumerate().map(|(index, (at, value))| (*at, index, *value)).collect();
    sorted.sort_unstable();
    let mut held = false;
    let mut fired = Vec::new();
    for (place, (end, ..)) in sorted.iter().enumerate() {
        let window = || sorted[..=place].iter().filter(|(at, ..)| *at >= end - 60);
        let values: std::collections::BTreeSet<i64> = window().map(|(.., value)| *value).collect();
        if window().count() == 1 {
            held = false;
        }
        let holds = values.len() as i64 >= count;
        if holds && !held {
            fired.push(*end);
        }
        held = holds;
    }
    fired
}

proptest! {
    #[test]
    fn a_distinct_count_agrees_with_counting_plainly(
        events in proptest::collection::vec((0_i64..400, 0_i64..6), 0..80),
        count in 1_i64..5,
    ) {
        let mut run = Run::new(distinct(i128::from(count)));
        for (at, value) in &events {
            run.value(*at, &value.to_string());
        }
        prop_assert_eq!(run.end(), plainly(&events, count));
    }

    #[test]
    fn where_watermarks_pass_and_restarts_happen_changes_nothing(
        events in proptest::collection::vec((0_i64..200, 0_i64..6), 0..60),
        metric in 0_usize..4,
        pace in 1_usize..7,
    ) {
        let field = || "v".to_owned();
        let metric = [Metric::Events, Metric::Distinct(vec![field()]), Metric::Sum(field()), Metric::Percentile(field(), 75.0)]
            [metric].clone();
        let operator = || Operator::Aggregate { metric: metric.clone(), bounds: bounds(Comparison::Gte, 3) };
        let mut whole = Run::new(rule(operator(), 1));
        let mut parts = Run::new(rule(operator(), 1));
        let mut sorted = events.clone();
        sorted.sort_unstable();
        for (number, (at, value)) in sorted.iter().enumerate() {
            whole.value(*at, &value.to_string());
            parts.value(*at, &value.to_string());
            if number % pace == 0 {
                parts.advance(secs(at - 1));
                parts.restart();
            }
        }
        prop_assert_eq!(parts.end(), whole.end());
    }
}

/// What a rule that asks for `least` fires over these matches in order, written down plainly: when, and what is cited.
fn cited_plainly(matches: &[(i64, u16)], least: usize, by_value: bool) -> Vec<(i64, Vec<i64>)> {
    let (mut fired, mut held) = (Vec::new(), false);
    for (number, (now, _)) in matches.iter().enumerate() {
        let window: Vec<(i64, u16)> =
            matches[..=number].iter().copied().filter(|(time, _)| now - time <= 60_000).collect();
        let latest: Vec<i64> = window
            .iter()
            .enumerate()
            .filter(|(at, (_, value))| !by_value || !window[at + 1..].iter().any(|(_, other)| other == value))
            .map(|(_, (time, _))| *time)
            .collect();
        let holds = latest.len() >= least;
        if holds && !held {
            fired.push((*now, latest[latest.len().saturating_sub(CITED_MAX)..].to_vec()));
        }
        held = holds;
    }
    fired
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_finding_far_away_is_found_and_cites_what_it_would_have(
        steps in proptest::collection::vec((1_i64..400, 0_u16..260), 300..900),
        least in 60_usize..230,
        by_value: bool,
        restarts in proptest::collection::vec(0_usize..900, 0..4),
    ) {
        let metric = if by_value { Metric::Distinct(vec!["v".into()]) } else { Metric::Events };
        let mut run = Run::new(aggregate(metric, bounds(Comparison::Gte, least as i128)));
        let mut matches = Vec::new();
        let mut now = 0;
        for (number, (pause, value)) in steps.into_iter().enumerate() {
            now += pause;
            matches.push((now, value));
            run.at(Timestamp::from_millis(now), 0, &[("k", "a"), ("v", &format!("value {value}"))]);
            if restarts.contains(&number) {
                run.advance(Timestamp::from_millis(now));
                run.restart();
            }
        }
        run.end();
        let millis = |time: Timestamp| time.as_micros() / 1_000;
        let fired: Vec<_> = run
            .fired
            .iter()
            .map(|one| (millis(one.time), one.signals.iter().map(|signal| millis(signal.time)).collect::<Vec<_>>()))
            .collect();
        prop_assert_eq!(fired, cited_plainly(&matches, least, by_value));
    }
}
