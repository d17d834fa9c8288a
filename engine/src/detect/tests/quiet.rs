//! How long a rule is quiet about what it has spoken of, and how much it remembers of that.

use std::time::Duration;

use super::*;

fn detector() -> Detector {
    let mut rule = detection("a", "act.a", true);
    rule.meta_mut().alert.quiet = Some(Duration::from_secs(3_600));
    rule.meta_mut().alert.dedup = vec!["ci.repo".into()];
    Detector::new(Arc::new(Plan::compile(vec![rule]).unwrap()), 0)
}

fn found(detector: &mut Detector, index: u64, repo: &str) -> usize {
    let at = 1_000_000 + i64::try_from(index).unwrap();
    detector.apply(vec![event(index, at, at, "act.a", repo, index)], Timestamp::default()).unwrap().findings.len()
}

#[test]
fn the_same_is_not_said_again() {
    let mut detector = detector();
    assert_eq!((found(&mut detector, 0, "x/one"), found(&mut detector, 1, "x/one")), (1, 0));
    assert_eq!(found(&mut detector, 2, "x/two"), 1);
}

#[test]
fn where_too_much_would_have_to_be_remembered_it_is_rather_said_twice() {
    let mut detector = detector();
    let remembered = |number| ((String::new(), vec![format!("{number}")]), Timestamp::from_secs(1_000_000));
    detector.state.quiet.extend((0..super::super::report::QUIET_MAX - 1).map(remembered));
    assert_eq!((found(&mut detector, 0, "x/one"), found(&mut detector, 1, "x/one")), (1, 0));
    assert_eq!((found(&mut detector, 2, "x/two"), found(&mut detector, 3, "x/two")), (1, 1));
    assert_eq!(detector.counters().evicted, 2, "and counted");
    assert_eq!(detector.counters().quiet_unkept, 2, "as what it is");
}
