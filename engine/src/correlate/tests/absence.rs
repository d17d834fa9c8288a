//! What must not happen, on either side, and what is known of it.

use super::*;

/// Pushed (0) and not signed (1) within a minute after.
fn unsigned() -> CorrelationRule {
    rule(temporal(true, &[0], &[1]), 2)
}

/// Deployed (1) without approval (0) in the minute before.
fn unapproved() -> CorrelationRule {
    rule(temporal(true, &[1], &[0]), 2)
}

/// Either side.
fn alone() -> CorrelationRule {
    rule(temporal(false, &[0], &[1]), 2)
}

#[test]
fn what_must_follow_is_missed_when_its_time_is_over() {
    assert_eq!(times(unsigned(), &[(0, 0)]), [60], "the finding's time is the end of the window");
    assert_eq!(times(unsigned(), &[(0, 0), (59, 1)]), [0_i64; 0]);
    assert_eq!(times(unsigned(), &[(0, 0), (60, 1)]), [0_i64; 0], "a window includes its end");
    assert_eq!(times(unsigned(), &[(0, 0), (61, 1)]), [60]);
    assert_eq!(times(unsigned(), &[(0, 1), (1, 0)]), [61], "what came before does not follow");
    assert_eq!(times(unsigned(), &[(0, 0), (0, 1)]), [0_i64; 0], "at the same time, later in the log");
    assert_eq!(times(unsigned(), &[(0, 1), (0, 0)]), [60], "at the same time, earlier in the log");
    assert_eq!(times(unsigned(), &[(0, 0), (10, 0), (65, 1)]), [60], "the second was signed in time");
}

#[test]
fn it_is_found_at_the_watermark_and_not_before() {
    let mut run = Run::new(unsigned());
    run.hit(0, 0);
    assert!(run.advance(secs(30)).is_empty());
    assert!(run.advance(Timestamp::from_micros(59_999_999)).is_empty());
    assert_eq!(run.advance(secs(60)), [60]);
    assert_eq!(run.fired[0].anchor.as_ref().map(|anchor| anchor.time), Some(secs(0)), "it hangs on what happened");
    assert!(run.advance(secs(200)).is_empty());
}

#[test]
fn what_must_precede_is_missed_at_once() {
    let mut run = Run::new(unapproved());
    run.hit(100, 1);
    assert_eq!(run.advance(secs(100)), [100]);
    assert_eq!(times(unapproved(), &[(40, 0), (100, 1)]), [0_i64; 0], "a window includes its start");
    assert_eq!(times(unapproved(), &[(39, 0), (100, 1)]), [100]);
    assert_eq!(times(unapproved(), &[(100, 1), (101, 0)]), [100], "too late is not before");
    assert_eq!(times(unapproved(), &[(90, 0), (100, 1), (110, 1)]), [0_i64; 0], "one approval serves two");
}

#[test]
fn without_an_order_both_sides_count() {
    assert_eq!(times(alone(), &[(100, 0)]), [160]);
    assert_eq!(times(alone(), &[(40, 1), (100, 0)]), [0_i64; 0]);
    assert_eq!(times(alone(), &[(100, 0), (160, 1)]), [0_i64; 0]);
    assert_eq!(times(alone(), &[(39, 1), (100, 0), (161, 1)]), [160]);
}

#[test]
fn a_late_counter_event_takes_back_what_was_not_said_yet() {
    let mut run = Run::new(unsigned());
    run.hit(0, 0);
    assert!(run.advance(secs(30)).is_empty());
    run.hit(10, 1);
    assert_eq!(run.end(), [0_i64; 0]);
    assert_eq!(run.state.counts().late, 1);
    // One that came before what it should follow takes nothing back.
    let mut run = Run::new(unsigned());
    run.hit(20, 0);
    assert!(run.advance(secs(30)).is_empty());
    run.hit(10, 1);
    assert_eq!(run.end(), [80]);
}

#[test]
fn a_late_counter_event_of_another_group_does_not_count() {
    let mut run = Run::new(unsigned());
    run.hit(0, 0);
    run.advance(secs(30));
    run.at(secs(10), 1, &[("k", "b")]);
    assert_eq!(run.end(), [60]);
}

#[test]
fn a_silent_source_parks_it_until_it_is_heard() {
    let mut run = Run::new(unsigned());
    run.hit(0, 0);
    run.hit(5, 0);
    run.blind = true;
    assert!(run.advance(secs(100)).is_empty());
    assert_eq!(run.state.size(&run.rule).blind, 2);
    run.restart();
    assert!(run.advance(secs(10_000)).is_empty(), "however long it is silent");
    run.hit(50, 1);
    assert_eq!(run.state.size(&run.rule).blind, 0, "what it says late still counts");
    run.hit(20_000, 0);
    assert!(run.advance(secs(20_100)).is_empty());
    run.blind = false;
    assert_eq!(run.advance(secs(20_101)), [20_060]);
    // Looking back is no different.
    let mut run = Run::new(unapproved());
    run.blind = true;
    run.hit(0, 1);
    assert!(run.advance(secs(100)).is_empty());
    assert_eq!(run.state.size(&run.rule).blind, 1);
    run.blind = false;
    assert_eq!(run.advance(secs(101)), [0]);
}

#[test]
fn what_is_parked_waits_until_the_backlog_has_come() {
    let mut run = Run::new(unsigned());
    run.shape.settle = MINUTE;
    run.now = secs(1_000);
    run.hit(0, 0);
    run.blind = true;
    assert!(run.advance(secs(900)).is_empty());
    run.blind = false;
    run.now = secs(2_000);
    assert!(run.advance(secs(1_900)).is_empty());
    run.now = secs(2_059);
    assert!(run.advance(secs(1_959)).is_empty());
    run.now = secs(2_060);
    assert_eq!(run.advance(secs(1_960)), [60]);
}

#[test]
fn silence_itself_can_be_looked_for() {
    // Something, and nothing of the same after it.
    let silence = || rule(temporal(true, &[0], &[0]), 1);
    assert_eq!(times(silence(), &[(0, 0), (50, 0), (100, 0), (300, 0)]), [160, 360]);
    let mut run = Run::new(silence());
    run.blind = true;
    run.hit(0, 0);
    assert_eq!(run.advance(secs(100)), [60], "no silence is waited out here");
}

#[test]
fn a_clause_without_absence_wins_and_the_other_is_void() {
    let clauses = vec![
        TemporalClause { present: vec![0], absent: vec![1] },
        TemporalClause { present: vec![0, 2], absent: Vec::new() },
    ];
    let either = || rule(Operator::Temporal { ordered: true, clauses: clauses.clone() }, 3);
    assert_eq!(times(either(), &[(0, 0), (10, 2)]), [10]);
    assert_eq!(times(either(), &[(0, 0), (5, 1), (10, 2)]), [10]);
    assert_eq!(times(either(), &[(0, 0)]), [60]);
    assert_eq!(times(either(), &[(0, 0), (5, 1)]), [0_i64; 0]);
}

#[test]
fn a_finding_is_resolved_by_what_comes_after_all() {
    let mut rule = unsigned();
    rule.meta.alert.resolve_on = Some("m1".into());
    let mut run = Run::new(rule);
    run.hit(0, 0);
    assert_eq!(run.advance(secs(70)), [60]);
    run.at(secs(80), 1, &[("k", "b")]);
    assert!(run.advance(secs(90)).is_empty());
    run.restart();
    run.hit(85, 1);
    assert_eq!(run.fired.len(), 2);
    let What::Resolved(anchor) = &run.fired[1].what else { panic!("{:?}", run.fired[1].what) };
    assert_eq!((anchor.time, run.fired[1].time), (secs(0), secs(85)));
    run.hit(100, 1);
    run.end();
    assert_eq!(run.fired.len(), 2, "once");
}
