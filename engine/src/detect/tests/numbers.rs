//! Numbered events: what their windows say, and what an older state makes of them.

use super::*;

/// The windows of the source as they stand after a stream, by hour.
fn windows(detector: &mut Detector, stream: Vec<Decoded>) -> BTreeMap<Timestamp, (Completeness, String)> {
    let commit = detector.apply(stream, Timestamp::default()).unwrap();
    let own = commit.windows.into_iter().filter(|window| window.source == "src");
    own.map(|window| (window.end, (window.status, window.basis))).collect()
}

const HOUR: i64 = 3_600;
const START: i64 = 400 * HOUR;

#[test]
fn a_missing_number_makes_a_gap_until_it_comes_and_the_hour_is_whole_once_the_next_is_there() {
    let mut detector = Detector::new(plan(), 0);
    let at = |index, secs: i64, item| event(index, START + secs, START + secs - 1, "act.c", "x/one", item);
    let end = |hour: i64| Timestamp::from_secs(START + hour * HOUR);
    let told = windows(&mut detector, vec![at(0, 10, 0), at(1, 20, 1), at(2, 30, 3)]);
    assert_eq!(told[&end(1)].0, Completeness::Gap);
    assert!(told[&end(1)].1.starts_with("1 numbered events are missing, 3-3 of of x/one among them"), "{told:?}");
    // In the hour after next: two hours and what was missing in the first.
    let told = windows(&mut detector, vec![at(3, 2 * HOUR + 5, 4)]);
    assert_eq!(told[&end(3)].0, Completeness::NotEstablished);
    assert_eq!(told[&end(1)].0, Completeness::Gap, "still");
    let late = event(4, START + 2 * HOUR + 9, START + 25, "act.c", "x/one", 2);
    let told = windows(&mut detector, vec![late]);
    assert_eq!(told[&end(1)].0, Completeness::Complete);
    assert!(told[&end(1)].1.starts_with("sequence numbers without a gap; not receiving for"), "{told:?}");
    let told = windows(&mut detector, vec![at(5, 20 * HOUR, 9)]);
    assert_eq!(told[&end(3)].0, Completeness::Gap, "four numbers are missing after it: {told:?}");
    assert_eq!(told[&end(21)].0, Completeness::Gap, "or in the hour in which the next one came");
    assert!(!told.contains_key(&end(1)), "what is whole stays so");
}

#[test]
fn a_source_that_is_removed_takes_its_numbers_with_it() {
    let mut detector = Detector::new(plan(), 0);
    let stream = vec![event(0, START, START, "act.c", "x/one", 0), event(1, START, START, "act.c", "x/one", 5)];
    detector.apply(stream, Timestamp::default()).unwrap();
    let [status] = &detector.stream_status()[..] else { panic!("one stream") };
    assert_eq!((status.missing, &status.ranges[..], status.by), (4, &[(2, 5)][..], "sender"));
    let removed = Control::SourceRemoved { name: "src".to_owned(), actor: "ann".to_owned() };
    detector.apply(vec![control(2, START + 1, &removed)], Timestamp::default()).unwrap();
    assert_eq!(detector.stream_status(), []);
}

#[test]
fn a_state_of_the_version_before_is_read() {
    let mut detector = Detector::new(plan(), 0);
    let stream = vec![control(0, START, &Control::Tick {})];
    let commit = detector.apply(stream, Timestamp::default()).unwrap();
    let (version, rest) = commit.delta.split_first().unwrap();
    let before = rest.strip_suffix(crate::state::ADDED_SINCE).expect("what was added is empty here");
    assert_eq!(*version, crate::state::VERSION_BEFORE + 1);
    let delta = [&[crate::state::VERSION_BEFORE], before].concat();
    let restored = Restored { position: commit.to, snapshot: None, deltas: vec![delta] };
    let again = Detector::restore(plan(), 0, &restored).unwrap();
    assert_eq!(again.snapshot().unwrap(), detector.snapshot().unwrap());
}
