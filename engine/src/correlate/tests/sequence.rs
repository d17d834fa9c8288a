//! Matches of several members inside a window.

use proptest::prelude::*;

use super::*;

fn in_order(members: u16) -> CorrelationRule {
    rule(temporal(true, &(0..members).collect::<Vec<_>>(), &[]), usize::from(members))
}

fn any_order(members: u16) -> CorrelationRule {
    rule(temporal(false, &(0..members).collect::<Vec<_>>(), &[]), usize::from(members))
}

#[test]
fn a_sequence_needs_its_order_inside_the_window() {
    assert_eq!(times(in_order(3), &[(0, 0), (10, 1), (20, 2)]), [20]);
    assert_eq!(times(in_order(3), &[(20, 2), (10, 1), (0, 0)]), [20], "arrival order does not matter");
    assert_eq!(times(in_order(3), &[(0, 1), (10, 0), (20, 2)]), [0_i64; 0]);
    assert_eq!(times(in_order(3), &[(0, 0), (10, 1), (60, 2)]), [60]);
    assert_eq!(times(in_order(3), &[(0, 0), (10, 1), (61, 2)]), [0_i64; 0]);
    assert_eq!(times(in_order(3), &[(0, 0), (10, 1), (20, 2), (25, 2)]), [20], "an event is used once");
    assert_eq!(times(in_order(3), &[(0, 0), (10, 1), (20, 2), (30, 0), (31, 1), (32, 2)]), [20, 32]);
    assert_eq!(times(in_order(2), &[(0, 0), (1, 0), (2, 1), (3, 1)]), [2, 3], "each occurrence is found");
}

#[test]
fn equal_times_are_ordered_by_the_log() {
    assert_eq!(times(in_order(2), &[(5, 0), (5, 1)]), [5]);
    assert_eq!(times(in_order(2), &[(5, 1), (5, 0)]), [0_i64; 0]);
}

#[test]
fn order_below_a_second_counts() {
    let pair = |first: i64, second: i64| {
        let mut run = Run::new(in_order(2));
        run.at(Timestamp::from_micros(second), 1, &[("k", "a")]);
        run.at(Timestamp::from_micros(first), 0, &[("k", "a")]);
        run.end().len()
    };
    assert_eq!(pair(1_000_001, 1_000_002), 1);
    assert_eq!(pair(1_000_002, 1_000_001), 0);
}

#[test]
fn an_event_that_matches_two_members_does_not_follow_itself() {
    let both = |rule: CorrelationRule| {
        let mut run = Run::new(rule);
        let signal = run.signal(secs(5), 0, &[("k", "a")]);
        run.admit(signal.clone());
        run.admit(Signal { member: 1, ..signal });
        run.end().len()
    };
    assert_eq!(both(in_order(2)), 0);
    assert_eq!(both(any_order(2)), 1, "without an order it satisfies both");
}

#[test]
fn without_an_order_the_last_one_is_the_anchor() {
    assert_eq!(times(any_order(3), &[(0, 2), (10, 0), (20, 1)]), [20]);
    assert_eq!(times(any_order(3), &[(0, 2), (10, 0), (61, 1)]), [0_i64; 0]);
    assert_eq!(times(any_order(2), &[(0, 0), (1, 0), (2, 1), (3, 1)]), [2, 3]);
}

#[test]
fn any_clause_suffices_and_an_event_decides_once() {
    let clause = |present: &[u16]| TemporalClause { present: present.to_vec(), absent: Vec::new() };
    let either = || rule(Operator::Temporal { ordered: false, clauses: vec![clause(&[0, 1]), clause(&[0, 2])] }, 3);
    assert_eq!(times(either(), &[(0, 0), (5, 2)]), [5]);
    assert_eq!(times(either(), &[(0, 0), (5, 1), (6, 2)]), [5], "what was used is used");
    assert_eq!(times(either(), &[(0, 1), (1, 2), (2, 0)]), [2], "one event, one finding");
}

#[test]
fn a_sequence_stays_inside_its_session() {
    let session = || CorrelationRule { session_gap: Some(Duration::from_secs(20)), ..in_order(2) };
    assert_eq!(times(session(), &[(0, 0), (20, 1)]), [20]);
    assert_eq!(times(session(), &[(0, 0), (21, 1)]), [0_i64; 0]);
}

#[test]
fn early_finds_a_sequence_when_its_last_piece_arrives() {
    let mut run = Run::new(early(in_order(3)));
    let fired: Vec<usize> =
        [(20, 2), (0, 0), (10, 1), (12, 1)].into_iter().map(|(at, member)| run.hit(at, member)).collect();
    assert_eq!(fired, [0, 0, 1, 0]);
    assert_eq!(run.fired[0].time, secs(20), "its time is the last event's");
}

/// Every sequence, the slow way: the latest predecessors, each used once.
fn plainly(events: &[(i64, u16)], members: u16) -> Vec<i64> {
    let mut left: Vec<(i64, usize, u16)> =
        events.iter().enumerate().map(|(index, (at, member))| (*at, index, *member)).collect();
    left.sort_unstable();
    let mut fired = Vec::new();
    let mut end = 0;
    while end < left.len() {
        let (at, _, member) = left[end];
        let mut used = vec![end];
        let mut wanted = members - 1;
        for place in (0..end).rev() {
            if wanted > 0 && left[place].2 + 1 == wanted && left[place].0 >= at - 60 {
                used.push(place);
                wanted -= 1;
            }
        }
        if member + 1 == members && wanted == 0 {
            fired.push(at);
            used.iter().for_each(|place| {
                left.remove(*place);
            });
            end = 0;
        } else {
            end += 1;
        }
    }
    fired
}

proptest! {
    #[test]
    fn sequences_agree_with_looking_plainly(events in proptest::collection::vec((0_i64..300, 0_u16..3), 0..60)) {
        prop_assert_eq!(times(in_order(3), &events), plainly(&events, 3));
    }

    #[test]
    fn restarts_change_nothing(
        mut events in proptest::collection::vec((0_i64..300, 0_u16..3), 0..60),
        ordered: bool,
        absent: bool,
    ) {
        events.sort_unstable();
        let rule = || rule(temporal(ordered, if absent { &[0, 2] } else { &[0, 1, 2] }, if absent { &[1] } else { &[] }), 3);
        let mut run = Run::new(rule());
        for (at, member) in &events {
            run.hit(*at, *member);
            run.advance(secs(at - 1));
            run.restart();
        }
        prop_assert_eq!(run.end(), times(rule(), &events));
    }
}
