//! What is dropped when there is too much, and that it is counted.

use super::*;

#[test]
fn groups_are_evicted_by_their_oldest_last_signal() {
    let mut run = Run::new(rule(at_least(2), 1));
    run.shape.groups_max = 3;
    for (at, key) in [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "b"), (5, "a")] {
        run.at(secs(at), 0, &[("k", key)]);
    }
    assert_eq!(run.end(), [4], "the group that waited longest went, and begins anew");
    assert_eq!(run.state.counts().evicted, 2);
}

#[test]
fn groups_go_when_their_window_is_over() {
    let mut run = Run::new(rule(at_least(2), 1));
    for at in 0..100 {
        run.at(secs(at), 0, &[("k", &at.to_string())]);
    }
    run.advance(secs(99));
    assert_eq!(run.state.size(&run.rule).groups, 61, "those of the last minute, both ends included");
    run.advance(secs(500));
    assert_eq!((run.state.size(&run.rule).groups, run.state.counts().evicted), (0, 0));
}

#[test]
fn what_waits_furthest_in_the_future_goes_first() {
    let mut run = Run::new(rule(at_least(2), 1));
    run.shape.waiting_max = 3;
    for at in [0, 10_000, 20_000, 30_000, 40_000, 1, 2] {
        run.hit(at, 0);
    }
    assert_eq!(run.state.size(&run.rule).waiting, 3);
    assert_eq!(run.end(), [1]);
    assert_eq!(run.state.counts().evicted, 4);
}

#[test]
fn a_member_keeps_its_latest_matches() {
    let mut run = Run::new(rule(temporal(true, &[0, 1], &[]), 2));
    let many = temporal::MEMBER_SIGNALS_MAX as i64 + 10;
    for at in 0..many {
        run.at(Timestamp::from_millis(at), 0, &[("k", "a")]);
    }
    run.hit(10, 1);
    assert_eq!(run.end(), [10]);
    assert_eq!(run.state.counts().evicted, 10);
}

#[test]
fn obligations_of_one_group_are_bounded() {
    let mut run = Run::new(rule(temporal(true, &[0], &[1]), 2));
    for at in 0..5_000 {
        run.at(Timestamp::from_millis(at), 0, &[("k", "a")]);
    }
    run.advance(secs(5));
    assert_eq!(run.state.size(&run.rule).obligations, 1_024);
    assert!(run.state.counts().evicted >= 5_000 - 1_024);
}

#[test]
fn rules_share_what_all_of_them_may_keep() {
    let of = |rules: usize| {
        let mut run = Run::new(rule(at_least(2), 1));
        run.shape.share_with(rules);
        (run.shape.groups_max, run.shape.waiting_max)
    };
    assert_eq!(of(1), (GROUPS_MAX, WAITING_MAX), "a rule's own bound holds as well");
    for rules in [3, 10, 1_000] {
        let (groups, waiting) = of(rules);
        assert!(groups * rules <= GROUPS_IN_ALL && waiting * rules <= WAITING_IN_ALL, "{rules}");
        assert!((groups + 1) * rules > GROUPS_IN_ALL.min(GROUPS_MAX * rules), "{rules}: nothing is given away");
    }
    assert_eq!(of(usize::MAX), (1, 1));
}

#[test]
fn a_smaller_share_is_kept_to_as_soon_as_a_group_comes() {
    let mut run = Run::new(rule(at_least(2), 1));
    for (at, key) in [(0, "a"), (1, "b"), (2, "c"), (3, "d")] {
        run.at(secs(at), 0, &[("k", key)]);
    }
    run.advance(secs(4));
    run.shape.groups_max = 2;
    run.at(secs(5), 0, &[("k", "e")]);
    run.advance(secs(6));
    assert_eq!((run.state.size(&run.rule).groups, run.state.counts().evicted), (2, 3));
}
