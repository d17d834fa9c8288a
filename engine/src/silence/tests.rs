//! What is learned of pauses, and that it is restored.

use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600;
/// A Thursday at midnight, the start of a week here.
const START: i64 = 168 * HOUR * 2_900;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(START + secs)
}

fn of(rhythms: &Rhythms, now: i64) -> Silence {
    rhythms.silences(at(now)).next().unwrap()
}

#[test]
fn steps_hold_what_is_put_in_them_and_are_a_quarter_wide() {
    for secs in 1..100_000_u64 {
        let longest = longest(step(secs));
        assert!(longest >= secs && longest <= secs + secs / 4 + 1, "{secs} s is in the step up to {longest} s");
        assert!(step(secs + 1) >= step(secs));
    }
    assert!(longest(step(u64::MAX >> 3)) > 1 << 55);
}

#[test]
fn the_99th_percentile_of_its_own_pauses_is_what_is_usual() {
    let mut rhythms = Rhythms::default();
    let mut now = 0;
    rhythms.hear("hooks", at(now));
    assert_eq!(of(&rhythms, now).usual, None, "it never paused");
    // 990 pauses of half a minute, ten of an hour.
    for pause in 0..1_000 {
        now += if pause % 100 == 99 { HOUR } else { 30 };
        rhythms.hear("hooks", at(now));
    }
    let usual = of(&rhythms, now).usual.unwrap().as_secs();
    assert!((30..=37).contains(&usual), "{usual} s");
    for _ in 0..20 {
        now += HOUR;
        rhythms.hear("hooks", at(now));
    }
    let usual = of(&rhythms, now).usual.unwrap().as_secs();
    assert!((3_600..=4_500).contains(&usual), "three in a hundred are an hour long: {usual} s");
    assert_eq!(of(&rhythms, now + 500).silent, Duration::from_secs(500));
}

#[test]
fn nights_count_in_the_first_weeks_and_not_once_they_are_known() {
    let mut rhythms = Rhythms::default();
    // From eight to eighteen every day, for three weeks.
    for day in 0..21 {
        for minute in 0..600 {
            rhythms.hear("ci", at(day * 24 * HOUR + 8 * HOUR + minute * 60));
        }
        if day == 0 {
            assert_eq!(of(&rhythms, 24 * HOUR).silent.as_secs(), 6 * 3_600 + 60, "nobody knows yet that it is night");
        }
    }
    let evening = 20 * 24 * HOUR + 18 * HOUR;
    let morning = evening + 14 * HOUR;
    assert_eq!(of(&rhythms, morning).silent, Duration::from_secs(60), "what is left of the last hour");
    assert_eq!(of(&rhythms, morning + 1_000).silent, Duration::from_secs(1_060));
    assert!(of(&rhythms, morning).usual.unwrap() < Duration::from_secs(100));
}

#[test]
fn while_nobody_listens_nobody_is_silent() {
    let mut rhythms = Rhythms::default();
    rhythms.hear("hooks", at(0));
    rhythms.hear("hooks", at(10));
    rhythms.deaf(at(20), at(5_000));
    assert_eq!(of(&rhythms, 5_100).silent, Duration::from_secs(110));
    rhythms.told("hooks", Some(at(10)));
    assert_eq!(of(&rhythms, 5_100).told, Some(at(10)));
    rhythms.told("unknown", Some(at(10)));
    rhythms.remove("hooks");
    assert_eq!(rhythms.silences(at(0)).count(), 0);
}

proptest! {
    #[test]
    fn changes_and_snapshots_bring_back_the_same(
        steps in proptest::collection::vec((0_i64..4_000, 0_usize..3, 0_u8..20), 1..300),
    ) {
        let names = ["a", "b", "c"];
        let (mut live, mut copy) = (Rhythms::default(), Rhythms::default());
        let mut now = 0;
        for (pause, source, kind) in steps {
            now += pause;
            match kind {
                0 => live.deaf(at(now - pause), at(now)),
                1 => live.told(names[source], Some(at(now))),
                2 => live.told(names[source], None),
                3 => live.remove(names[source]),
                _ => live.hear(names[source], at(now)),
            }
            if kind % 3 == 0 {
                let changes = postcard::to_stdvec(&live.take_changes()).unwrap();
                let changes: Vec<RhythmChange> = postcard::from_bytes(&changes).unwrap();
                copy.restore(&changes);
            }
        }
        copy.restore(&live.take_changes());
        let mut anew = Rhythms::default();
        anew.restore(&live.as_changes());
        for other in [&copy, &anew] {
            prop_assert!(live.silences(at(now)).eq(other.silences(at(now))));
            prop_assert_eq!(live.as_changes(), other.as_changes());
        }
    }
}
