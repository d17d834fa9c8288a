//! First-seen and rare values, spikes and drops.

use proptest::prelude::*;

use super::*;
use crate::rule::Learn;

const HOUR: i64 = 3_600;

fn new(events: u64, for_secs: u64) -> CorrelationRule {
    let learn = Learn { events, for_: Duration::from_secs(for_secs) };
    CorrelationRule {
        timespan: Duration::from_secs(1_000),
        ..rule(Operator::New { fields: vec!["v".into()], learn }, 1)
    }
}

#[test]
fn a_value_is_new_once_in_a_group_that_has_learnt() {
    assert_eq!(value_times(new(2, 0), &[(0, "a"), (1, "a"), (2, "b"), (3, "b")]), [2]);
    assert_eq!(value_times(new(2, 0), &[(0, "a"), (1, "b"), (2, "b")]), [0_i64; 0], "first sightings are learnt");
    assert_eq!(value_times(new(0, 50), &[(0, "a"), (49, "b"), (50, "c")]), [50]);
    assert_eq!(value_times(new(3, 50), &[(0, "a"), (60, "b"), (61, "c"), (62, "d")]), [62], "all that is to be learnt");
    assert_eq!(value_times(new(0, 0), &[(0, "a"), (1, "a")]), [0]);
}

#[test]
fn a_value_not_seen_for_the_timespan_is_new_again() {
    assert_eq!(value_times(new(1, 0), &[(0, "a"), (1, "a"), (1_001, "a")]), [0_i64; 0]);
    assert_eq!(value_times(new(1, 0), &[(0, "a"), (1, "a"), (1_002, "a")]), [1_002]);
    assert_eq!(value_times(new(1, 0), &[(0, "a"), (2_001, "a")]), [0_i64; 0], "a group that long gone learns anew");
}

#[test]
fn watermarks_in_between_forget_nothing_too_early() {
    let mut run = Run::new(new(1, 0));
    run.value(0, "a");
    run.advance(secs(1_999));
    run.value(2_000, "a");
    assert_eq!(run.end(), [2_000]);
}

#[test]
fn a_rule_says_until_when_it_learns() {
    let mut run = Run::new(new(2, 50));
    for (at, key) in [(0, "a"), (30, "b")] {
        run.at(secs(at), 0, &[("k", key), ("v", "x")]);
    }
    run.advance(secs(31));
    let size = run.state.size(&run.rule);
    assert_eq!((size.learning, size.learning_until), (2, Some(secs(80))));
    run.at(secs(60), 0, &[("k", "b"), ("v", "x")]);
    run.at(secs(90), 0, &[("k", "b"), ("v", "x")]);
    run.advance(secs(91));
    let size = run.state.size(&run.rule);
    assert_eq!((size.learning, size.learning_until), (1, Some(secs(50))), "one has learnt, the other lacks events");
}

#[test]
fn history_teaches_and_finds_nothing() {
    let mut run = Run::new(new(2, 0));
    for (at, value) in [(500, "b"), (100, "a"), (300, "c")] {
        let signal = run.signal(secs(at), 0, &[("k", "a"), ("v", value)]);
        let Run { rule, shape, state, .. } = &mut run;
        state.teach(rule, shape, &signal);
    }
    run.value(600, "a");
    run.value(601, "d");
    assert_eq!(run.end(), [601]);
    assert_eq!(run.state.size(&run.rule).learning, 0);
}

#[test]
fn a_late_value_is_neither_found_nor_learnt() {
    let mut run = Run::new(new(1, 0));
    run.value(0, "a");
    run.advance(secs(100));
    run.value(50, "b");
    run.value(200, "b");
    assert_eq!(run.end(), [200]);
}

fn rare() -> CorrelationRule {
    let bounds = Bounds(vec![(Comparison::Lte, Number::Float(0.1))]);
    rule(Operator::Rare { fields: vec!["v".into()], bounds, min: 10 }, 1)
}

#[test]
fn a_value_is_rare_by_its_share() {
    let mut run = Run::new(rare());
    for at in 0..9 {
        run.value(at, "usual");
    }
    run.value(9, "odd");
    run.value(10, "odd");
    assert_eq!(run.end(), [9], "one of ten, then two of eleven");
    assert_eq!(run.fired[0].what, What::Rare { own: 1, all: 10 });
    let mut run = Run::new(rare());
    for at in 0..8 {
        run.value(at, "usual");
    }
    run.value(8, "odd");
    assert_eq!(run.end(), [0_i64; 0], "too few to judge");
}

#[test]
fn what_is_older_than_the_timespan_has_no_share() {
    let mut run = Run::new(rare());
    for at in 0..20 {
        run.value(at, "usual");
    }
    run.value(90, "odd");
    assert_eq!(run.end(), [0_i64; 0]);
}

fn spike(comparison: Comparison, deviation: f64, floor: u64) -> CorrelationRule {
    let operator = Operator::Spike {
        field: None,
        comparison,
        deviation,
        floor,
        baseline: Duration::from_secs(100 * 60),
        hour_of_week: false,
        learn_buckets: 5,
    };
    rule(operator, 1)
}

/// `count` matches in each of the minutes.
fn fill(run: &mut Run, minutes: std::ops::Range<i64>, count: i64) {
    for minute in minutes {
        for number in 0..count {
            run.hit(minute * 60 + number, 0);
        }
    }
}

#[test]
fn a_spike_is_found_while_it_grows_and_once_a_bucket() {
    let mut run = Run::new(spike(Comparison::Gte, 8.0, 10));
    fill(&mut run, 0..8, 2);
    fill(&mut run, 10..12, 50);
    run.end();
    // Median 2, MAD 0: the scale is √2, and 14 is the first count 8 of it away.
    let times: Vec<i64> = run.fired.iter().map(|one| one.time.as_micros() / 1_000_000).collect();
    assert_eq!(times, [10 * 60 + 13, 11 * 60 + 13]);
    let What::Spike(found) = run.fired[0].what else { panic!("{:?}", run.fired[0].what) };
    assert_eq!((found.count, found.median, found.buckets, found.start), (14, 2.0, 8, secs(600)));
    assert!((found.z.unwrap() - 12.0 / 2.0_f64.sqrt()).abs() < 1e-9);
}

#[test]
fn a_cold_group_is_judged_by_the_floor_alone_and_a_steady_one_by_itself() {
    let mut run = Run::new(spike(Comparison::Gte, 8.0, 10));
    fill(&mut run, 0..4, 2);
    fill(&mut run, 4..5, 12);
    assert_eq!(run.end(), [4 * 60 + 9]);
    let mut run = Run::new(spike(Comparison::Gte, 8.0, 10));
    fill(&mut run, 20..26, 40);
    let learning = run.end().len();
    fill(&mut run, 26..30, 42);
    assert_eq!(run.end().len(), learning, "a group that always has 40");
}

#[test]
fn earlier_buckets_count_no_further_back_than_the_baseline() {
    let mut run = Run::new(spike(Comparison::Gte, 8.0, 3));
    fill(&mut run, 0..8, 40);
    run.end();
    run.fired.clear();
    run.state.passed = None;
    fill(&mut run, 200..201, 3);
    assert_eq!(run.end(), [200 * 60 + 2], "it is cold again");
}

#[test]
fn distinct_values_are_counted_where_a_field_is_named() {
    let mut rule = spike(Comparison::Gte, 8.0, 3);
    if let Operator::Spike { field, .. } = &mut rule.operator {
        *field = Some("v".into());
    }
    assert_eq!(value_times(rule, &[(0, "a"), (1, "a"), (2, "b"), (3, "b"), (4, "c"), (5, "d")]), [4]);
}

#[test]
fn only_the_same_hour_of_the_week_is_compared_with() {
    let mut rule = spike(Comparison::Gte, 8.0, 20);
    if let Operator::Spike { hour_of_week, baseline, learn_buckets, .. } = &mut rule.operator {
        (*hour_of_week, *learn_buckets) = (true, 2);
        *baseline = Duration::from_secs(21 * 86_400);
    }
    rule.timespan = Duration::from_secs(3_600);
    let mut run = Run::new(rule);
    let burst = |run: &mut Run, hour: i64, count| {
        for number in 0..count {
            run.hit(hour * HOUR + number, 0);
        }
    };
    for week in 0..3 {
        burst(&mut run, week * 168, 19);
        burst(&mut run, week * 168 + 1, 1);
    }
    burst(&mut run, 3 * 168, 21);
    assert_eq!(run.end(), [0_i64; 0], "busy as ever at this hour");
    run.state.passed = None;
    burst(&mut run, 3 * 168 + 1, 21);
    assert_eq!(run.end(), [(3 * 168 + 1) * HOUR + 19], "the hour after is quiet");
}

#[test]
fn a_drop_is_found_when_its_bucket_ends_also_without_any_event() {
    let mut run = Run::new(spike(Comparison::Lte, -5.0, 0));
    fill(&mut run, 0..8, 50);
    assert!(run.advance(secs(9 * 60 - 1)).is_empty());
    assert_eq!(run.advance(secs(9 * 60)), [9 * 60]);
    let What::Drop(found) = run.fired[0].what else { panic!("{:?}", run.fired[0].what) };
    assert_eq!((found.count, found.start), (0, secs(8 * 60)));
    assert!(run.fired[0].anchor.is_none());
    assert!(run.advance(secs(20 * 60)).is_empty(), "once, until it was no drop");
    fill(&mut run, 20..21, 50);
    fill(&mut run, 21..22, 3);
    assert_eq!(run.advance(secs(22 * 60)), [22 * 60]);
}

#[test]
fn a_drop_needs_a_warm_group() {
    let mut run = Run::new(spike(Comparison::Lte, -5.0, 0));
    fill(&mut run, 0..4, 50);
    assert_eq!(run.end(), [0_i64; 0]);
}

proptest! {
    #[test]
    fn restarts_and_watermarks_change_nothing(
        mut events in proptest::collection::vec((0_i64..2_000, 0_u8..4), 0..80),
        kind in 0_usize..4,
        pace in 1_usize..5,
    ) {
        events.sort_unstable();
        let make = || match kind {
            0 => new(2, 10),
            1 => rare(),
            2 => spike(Comparison::Gte, 2.0, 2),
            _ => spike(Comparison::Lte, -1.0, 0),
        };
        let mut whole = Run::new(make());
        let mut parts = Run::new(make());
        for (number, (at, value)) in events.iter().enumerate() {
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
