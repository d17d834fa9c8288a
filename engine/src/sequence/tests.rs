//! Numbers in any order, again and anew, and what windows say of them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::source::SourceType;

const SOURCE: &str = "bus";
const STREAM_NAME: &str = "cloudevents//ci";

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(3_600 * 1_000 + secs)
}

/// A number that happened `happened` and came `received` seconds into the hour.
fn see(all: &mut Numberings, number: u64, happened: i64, received: i64, repeated: bool) -> bool {
    let numbered = Numbered { stream: STREAM_NAME, number, sparse: false };
    let arrival = Arrival { happened: Some(at(happened)), received: at(received), history: false, repeated };
    all.observe(SOURCE, numbered, arrival)
}

fn stream(all: &Numberings) -> &Stream {
    all.of(SOURCE).next().unwrap().1
}

fn ranges(missing: &[Missing]) -> Vec<(u64, u64)> {
    missing.iter().map(|range| (range.from, range.to)).collect()
}

fn window(hour: i64, records: u64) -> SourceWindow {
    SourceWindow {
        source: SOURCE.to_owned(),
        source_type: SourceType::Cloudevents,
        start: at(hour * 3_600),
        end: at((hour + 1) * 3_600),
        records,
        events: records,
        duplicates: 0,
        dead_letters: 0,
        max_lag_secs: 0,
        max_skew_secs: 0,
        down_secs: 0,
        status: Completeness::NotEstablished,
        basis: String::new(),
    }
}

/// Which ranges a set of numbers leaves out.
fn left_out(seen: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let pairs = seen.iter().zip(seen.iter().skip(1));
    pairs.filter(|(low, high)| **low + 1 < **high).map(|(low, high)| (low + 1, high - 1)).collect()
}

proptest! {
    #[test]
    fn any_order_any_repetition_any_restore_leave_the_same_ranges(
        arrivals in proptest::collection::vec((1_u64..60, any::<bool>()), 1..120),
    ) {
        let mut whole = Numberings::default();
        let mut restored = Numberings::default();
        let mut seen = BTreeSet::new();
        for (step, (number, cut)) in (0_i64..).zip(arrivals) {
            // Events of one second come in any order too.
            let happened = i64::try_from(number).unwrap() / 3;
            let repeated = !seen.insert(number);
            see(&mut whole, number, happened, 100 + step, repeated);
            see(&mut restored, number, happened, 100 + step, repeated);
            if cut {
                let (streams, hours) = restored.take_changes();
                let (all_streams, all_hours) = restored.as_changes();
                let mut next = Numberings::default();
                next.restore(all_streams, all_hours, at(100 + step));
                // What changed is what restoring needs to be told again.
                next.restore(streams, hours, at(100 + step));
                restored = next;
            }
        }
        prop_assert_eq!(ranges(&stream(&whole).missing), left_out(&seen));
        prop_assert_eq!(stream(&whole), stream(&restored));
        prop_assert_eq!(stream(&whole).restarts, 0);
        prop_assert_eq!(whole.as_changes(), restored.as_changes());
    }
}

#[test]
fn changes_alone_bring_back_what_was_there() {
    let (mut live, mut copy) = (Numberings::default(), Numberings::default());
    for (number, repeated) in [(5, false), (9, false), (6, false), (9, true), (2, false)] {
        see(&mut live, number, i64::try_from(number).unwrap(), 100, repeated);
        let (streams, hours) = live.take_changes();
        copy.restore(streams, hours, at(100));
        assert_eq!(copy.as_changes(), live.as_changes());
    }
    live.remove(SOURCE);
    let (streams, hours) = live.take_changes();
    copy.restore(streams, hours, at(100));
    assert_eq!((copy.as_changes(), copy.sources().count()), (live.as_changes(), 0));
}

#[test]
fn a_numbering_that_begins_anew_is_no_gap_and_its_late_events_fill_the_old_one() {
    let mut all = Numberings::default();
    for (number, second) in [(7, 10), (8, 11), (10, 13)] {
        see(&mut all, number, second, second, false);
    }
    assert_eq!(ranges(&stream(&all).missing), [(9, 9)]);
    // The sender starts again five seconds later, and its first message is lost.
    assert!(see(&mut all, 1, 18, 18, false));
    see(&mut all, 3, 20, 20, false);
    assert_eq!((stream(&all).restarts, ranges(&stream(&all).missing)), (1, vec![(2, 2)]));
    // From before: it is none of the new numbering's.
    see(&mut all, 9, 12, 21, false);
    see(&mut all, 11, 14, 22, false);
    assert_eq!((stream(&all).last, ranges(&stream(&all).missing), stream(&all).open()), (3, vec![(2, 2)], 1));
    see(&mut all, 2, 19, 23, false);
    assert_eq!(stream(&all).open(), 0);
}

#[test]
fn numbers_that_came_before_and_come_again_for_other_events_are_a_new_numbering() {
    let mut all = Numberings::default();
    for number in 1..=5 {
        see(&mut all, number, 10, 10, false);
    }
    // One is lost right after the start.
    see(&mut all, 2, 11, 11, false);
    assert_eq!((stream(&all).restarts, ranges(&stream(&all).missing)), (1, vec![(1, 1)]));
    // Items of one message share its number.
    see(&mut all, 2, 11, 11, false);
    assert_eq!(stream(&all).restarts, 1);
}

#[test]
fn a_window_is_whole_once_the_next_number_is_there_and_a_gap_while_one_is_missing() {
    let mut all = Numberings::default();
    for (number, second) in [(1, 10), (2, 20), (4, 40)] {
        see(&mut all, number, second, second, false);
    }
    let judged = |all: &Numberings, hour, records| all.judge(&window(hour, records)).unwrap();
    let (status, basis) = judged(&all, 0, 3);
    assert_eq!(
        (status, basis.as_str()),
        (Completeness::Gap, "1 numbered events are missing, 3-3 of cloudevents//ci among them")
    );
    see(&mut all, 3, 30, 50, false);
    assert_eq!(judged(&all, 0, 4).0, Completeness::NotEstablished, "what came last may not have been the last");
    assert_eq!(judged(&all, 1, 0).0, Completeness::NotEstablished);
    // Two hours later nothing was left out.
    see(&mut all, 5, 7_300, 7_300, false);
    assert_eq!(judged(&all, 0, 4), (Completeness::Complete, "sequence numbers without a gap".to_owned()));
    assert_eq!(judged(&all, 1, 0).0, Completeness::Complete, "an hour of silence");
    assert_eq!(judged(&all, 0, 5).0, Completeness::NotEstablished, "one of them has no number");
    see(&mut all, 7, 7_400, 11_000, false);
    assert_eq!(judged(&all, 2, 1).0, Completeness::Gap);
    assert_eq!(judged(&all, 3, 1).0, Completeness::Gap, "it was due before the one that came then");
    assert_eq!(judged(&all, 0, 4).0, Completeness::Complete);
    assert_eq!(all.judge(&window(-1, 4)), None, "before there were numbers");
}

#[test]
fn offsets_that_are_skipped_are_told_and_prove_nothing() {
    let mut all = Numberings::default();
    let mut see = |number, received| {
        let numbered = Numbered { stream: "kafka/audit/0", number, sparse: true };
        let arrival = Arrival { happened: Some(at(-500)), received: at(received), history: false, repeated: false };
        all.observe(SOURCE, numbered, arrival)
    };
    for number in [7, 8, 8, 11] {
        see(number, 10);
    }
    assert_eq!(all.judge(&window(0, 4)), None);
    assert_eq!(all.skipped(&window(0, 4)).as_deref(), Some("2 offsets of its topics held nothing for us"));
    assert_eq!(all.skipped(&window(1, 0)), None);
}

#[test]
fn history_fills_gaps_and_opens_none() {
    let mut all = Numberings::default();
    let history = |all: &mut Numberings, number| {
        let numbered = Numbered { stream: STREAM_NAME, number, sparse: false };
        let arrival = Arrival { happened: Some(at(1)), received: at(100), history: true, repeated: false };
        all.observe(SOURCE, numbered, arrival)
    };
    assert!(!history(&mut all, 3), "a numbering that nobody watches");
    assert_eq!(all.sources().count(), 0);
    see(&mut all, 10, 10, 10, false);
    see(&mut all, 14, 14, 14, false);
    for number in [3, 12, 99] {
        history(&mut all, number);
    }
    assert_eq!((stream(&all).first, stream(&all).last), (10, 14));
    assert_eq!(ranges(&stream(&all).missing), [(11, 11), (13, 13)]);
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_given_up_is_counted() {
    let mut all = Numberings::default();
    for step in 0..=2 * RANGES_MAX as u64 {
        see(&mut all, 1 + 2 * step, 10, 10, false);
    }
    assert_eq!(stream(&all).missing.len(), RANGES_MAX);
    assert_eq!((stream(&all).lost, stream(&all).open()), (RANGES_MAX as u64, RANGES_MAX as u64));
    let gap = all.judge(&window(0, 1)).unwrap();
    assert_eq!(gap.0, Completeness::Gap);
    let nine_days = at(9 * 86_400);
    all.expire(nine_days);
    assert_eq!(all.of(SOURCE).count(), 0, "nobody counts any more");
    let mut many = Numberings::default();
    for number in 0..=STREAMS_MAX {
        let name = format!("syslog/{number}");
        let arrival = Arrival { happened: None, received: at(1), history: false, repeated: false };
        many.observe(SOURCE, Numbered { stream: &name, number: 1, sparse: false }, arrival);
    }
    assert_eq!((many.of(SOURCE).count(), many.unwatched()), (STREAMS_MAX, 1));
    see(&mut all, 1, 10, 10, false);
    see(&mut all, 3, 10, 10, false);
    see(&mut all, 4, 7 * 86_400, 7 * 86_400, false);
    all.expire(nine_days);
    assert_eq!((stream(&all).lost, stream(&all).open()), (1, 0), "what is missing for eight days does not come");
}
