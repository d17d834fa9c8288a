//! Rows of tables: what opens, closes, holds and is found.

use proptest::prelude::*;

use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn event(index: u64) -> EventId {
    EventId { position: Position { partition: 0, index }, sub: 0 }
}

fn shape() -> Arc<Shape> {
    Arc::new(Shape {
        columns: vec!["run".into(), "repo".into(), "result".into()],
        signatures: vec![vec![0], vec![0, 1], vec![], vec![2]],
        max_open: Duration::from_secs(100),
        retain: Duration::from_secs(300),
        grace: Duration::from_secs(5),
        entries_max: ENTRIES_MAX,
    })
}

/// An opening of `run`, or its closing that adds a result.
fn entry(edge: Edge, secs: i64, index: u64, run: &str, repo: &str) -> Entry {
    let columns = match edge {
        Edge::Open => Texts::of([Some(run), Some(repo), None]),
        Edge::Close => Texts::of([None, Some("other"), Some(repo)]),
    };
    Entry { time: at(secs), event: event(index), edge, key: Texts::of([Some(run)]), columns }
}

fn held(rows: &Rows, signature: u16, values: &[&str], secs: i64) -> bool {
    let values = Texts::of(values.iter().copied().map(Some));
    rows.any(&Query { signature, values: &values, at: Some(at(secs)), as_of: at(secs) }, |_| true)
}

fn rows(entries: impl IntoIterator<Item = Entry>) -> Rows {
    let mut rows = Rows::new(shape());
    entries.into_iter().for_each(|entry| rows.feed(entry));
    rows
}

#[test]
fn a_row_holds_from_its_opening_to_its_closing_and_the_grace_around_it() {
    let rows = rows([entry(Edge::Open, 1_000, 1, "r", "app"), entry(Edge::Close, 1_050, 2, "r", "ok")]);
    for (secs, expected) in [(994, false), (995, true), (1_020, true), (1_055, true), (1_056, false)] {
        assert_eq!(held(&rows, 0, &["r"], secs), expected, "{secs}");
        assert_eq!(held(&rows, 1, &["r", "app"], secs), expected, "{secs}");
        assert_eq!(held(&rows, 2, &[], secs), expected, "{secs}");
    }
    assert!(!held(&rows, 0, &["R"], 1_020), "letter case counts");
    assert!(!held(&rows, 1, &["r", "other"], 1_055), "the closing does not overwrite");
}

#[test]
fn a_row_without_closing_ends_by_itself_and_a_new_opening_ends_the_one_before() {
    let open = rows([entry(Edge::Open, 1_000, 1, "r", "app")]);
    assert!(held(&open, 0, &["r"], 1_105));
    assert!(!held(&open, 0, &["r"], 1_106));
    let again = rows([entry(Edge::Open, 1_000, 1, "r", "one"), entry(Edge::Open, 1_050, 2, "r", "two")]);
    assert!(!held(&again, 1, &["r", "one"], 1_060));
    assert!(held(&again, 1, &["r", "two"], 1_060));
    assert!(held(&again, 1, &["r", "one"], 1_040));
}

#[test]
fn a_closing_waits_for_its_opening_and_may_stand_at_the_same_instant() {
    let late = rows([entry(Edge::Close, 1_010, 2, "r", "ok"), entry(Edge::Open, 1_000, 3, "r", "app")]);
    assert!(held(&late, 0, &["r"], 1_010));
    assert!(!held(&late, 0, &["r"], 1_050));
    let alone = rows([entry(Edge::Close, 1_010, 2, "r", "ok")]);
    assert!(!held(&alone, 0, &["r"], 1_005), "nobody knows when it began");
    let skipped = rows([entry(Edge::Close, 1_000, 1, "r", "skipped"), entry(Edge::Open, 1_000, 2, "r", "app")]);
    assert!(held(&skipped, 0, &["r"], 1_000));
    assert!(!held(&skipped, 0, &["r"], 1_050));
    let rerun = rows([
        entry(Edge::Open, 900, 0, "r", "one"),
        entry(Edge::Open, 950, 2, "r", "two"),
        entry(Edge::Close, 950, 3, "r", "ok"),
    ]);
    assert!(held(&rerun, 1, &["r", "two"], 1_000), "the closing is of what was open before");
}

#[test]
fn what_the_closing_adds_is_seen_once_it_has_happened() {
    let rows = rows([entry(Edge::Open, 1_000, 1, "r", "app"), entry(Edge::Close, 1_050, 2, "r", "failed")]);
    assert!(!held(&rows, 3, &["failed"], 1_044));
    assert!(held(&rows, 3, &["failed"], 1_045), "within the grace");
    assert!(held(&rows, 3, &["failed"], 1_055));
    assert!(!held(&rows, 3, &["failed"], 1_056));
}

#[test]
fn without_an_instant_a_row_is_found_until_it_is_no_longer_kept() {
    let mut rows = rows([entry(Edge::Open, 1_000, 1, "r", "app"), entry(Edge::Close, 1_050, 2, "r", "ok")]);
    let values = Texts::of([Some("r")]);
    let any = |rows: &Rows, secs: i64| {
        rows.any(&Query { signature: 0, values: &values, at: None, as_of: at(secs) }, |_| true)
    };
    let found: Vec<bool> = [994, 995, 1_355, 1_356].into_iter().map(|secs| any(&rows, secs)).collect();
    assert_eq!(found, [false, true, true, false]);
    rows.sweep(at(1_355));
    assert!(any(&rows, 1_355));
    rows.sweep(at(1_356));
    assert_eq!((rows.len(), rows.groups.len(), rows.index.len()), (0, 0, 0));
}

#[test]
fn tests_are_of_the_same_row() {
    let rows = rows([entry(Edge::Open, 1_000, 1, "a", "one"), entry(Edge::Open, 1_000, 2, "b", "two")]);
    let values = Texts::of([Some("a")]);
    let query = Query { signature: 0, values: &values, at: Some(at(1_000)), as_of: at(1_000) };
    assert!(rows.any(&query, |row| row.get(1) == Some("one")));
    assert!(!rows.any(&query, |row| row.get(1) == Some("two")));
}

#[test]
fn given_rows_hold_when_they_say() {
    let always = (Timestamp::MIN, Timestamp::MAX, Texts::of([Some("x"), None, None]));
    let bounded = (at(1_000), at(2_000), Texts::of([Some("y"), None, None]));
    let rows = Rows::given(shape(), [always, bounded]);
    for (value, secs, expected) in
        [("x", -1_000_000, true), ("x", 9_999_999, true), ("y", 994, false), ("y", 2_005, true), ("y", 2_006, false)]
    {
        assert_eq!(held(&rows, 0, &[value], secs), expected, "{value} at {secs}");
    }
    let values = Texts::of([Some("y")]);
    let query = Query { signature: 0, values: &values, at: None, as_of: at(9_000_000) };
    assert!(rows.any(&query, |_| true), "a table that is written down forgets nothing");
}

#[test]
fn what_exceeds_a_bound_is_counted_and_the_oldest_goes() {
    let many = (0..=KEY_ENTRIES_MAX as u64).map(|index| entry(Edge::Open, 1_000 + index as i64, index, "r", "app"));
    let rows = rows(many);
    assert_eq!((rows.len(), rows.evicted()), (KEY_ENTRIES_MAX, 1));
    assert!(!held(&rows, 0, &["r"], 995), "the oldest is gone");
    assert!(held(&rows, 0, &["r"], 1_001));
}

/// The rows as they follow from what happened until `horizon`: written down once more, as simply as can be.
fn oracle(entries: &[Entry], run: &str, horizon: Timestamp) -> Vec<(Timestamp, Timestamp, Entry, Option<Entry>)> {
    let mut own: Vec<&Entry> = entries.iter().filter(|entry| entry.time <= horizon).collect();
    own.retain(|entry| entry.key.get(0) == Some(run));
    own.sort_by_key(|entry| (entry.time, entry.event));
    let mut instants: Vec<Timestamp> = own.iter().map(|entry| entry.time).collect();
    instants.dedup();
    let limit = |open: &Entry| open.time.plus(Duration::from_secs(100));
    let mut rows = Vec::new();
    let mut current: Option<&Entry> = None;
    for instant in instants {
        let of = |edge| own.iter().copied().filter(move |entry| entry.time == instant && entry.edge == edge);
        let close = of(Edge::Close).next();
        if let Some(open) = current.take_if(|open| limit(open) < instant) {
            rows.push((open.time, limit(open), open.clone(), None));
        }
        let had = current.is_some();
        if let Some(open) = current.take() {
            rows.push((open.time, instant, open.clone(), close.cloned()));
        }
        for open in of(Edge::Open) {
            if let Some(before) = current.replace(open) {
                rows.push((before.time, instant, before.clone(), None));
            }
        }
        if !had
            && let Some(close) = close
            && let Some(open) = current.take()
        {
            rows.push((open.time, instant, open.clone(), Some(close.clone())));
        }
    }
    if let Some(open) = current {
        rows.push((open.time, limit(open), open.clone(), None));
    }
    rows
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let one = (any::<bool>(), 0_i64..60, prop_oneof![Just("a"), Just("b")], prop_oneof![Just("x"), Just("y")]);
    proptest::collection::vec(one, 0..24).prop_map(|list| {
        let number = |(index, (open, tens, run, repo)): (usize, (bool, i64, &str, &str))| {
            let edge = if open { Edge::Open } else { Edge::Close };
            entry(edge, 1_000 + tens * 10, index as u64, run, repo)
        };
        list.into_iter().enumerate().map(number).collect()
    })
}

type Answers = Vec<bool>;

fn answers(rows: &Rows) -> Answers {
    let mut answers = Vec::new();
    for secs in (980..1_720).step_by(15) {
        for shift in [-150, 0, 40] {
            for (signature, values) in
                [(0, vec!["a"]), (1, vec!["a", "x"]), (1, vec!["b", "y"]), (2, vec![]), (3, vec!["x"])]
            {
                let values = Texts::of(values.into_iter().map(Some));
                let query = Query { signature, values: &values, at: Some(at(secs + shift)), as_of: at(secs) };
                answers.push(rows.any(&query, |_| true));
                answers.push(rows.any(&Query { at: None, ..query }, |row| row.get(1) == Some("x")));
            }
        }
    }
    answers
}

fn expected(entries: &[Entry]) -> Answers {
    let mut answers = Vec::new();
    let secs = |secs: u64| Duration::from_secs(secs);
    for now in (980..1_720).step_by(15) {
        let horizon = at(now).plus(secs(5));
        let all: Vec<_> = ["a", "b"].iter().flat_map(|run| oracle(entries, run, horizon)).collect();
        for shift in [-150, 0, 40] {
            for (signature, values) in
                [(0, vec!["a"]), (1, vec!["a", "x"]), (1, vec!["b", "y"]), (2, vec![]), (3, vec!["x"])]
            {
                let column = |row: &(Timestamp, Timestamp, Entry, Option<Entry>), column: usize| {
                    let own = row.2.columns.get(column).map(str::to_owned);
                    own.or_else(|| row.3.as_ref()?.columns.get(column).map(str::to_owned))
                };
                let agrees = |row: &(Timestamp, Timestamp, Entry, Option<Entry>)| {
                    let columns: &[usize] = [&[0][..], &[0, 1], &[], &[2]][signature];
                    let kept = row.1.plus(secs(305)) >= at(now);
                    kept && columns
                        .iter()
                        .zip(&values)
                        .all(|(number, value)| column(row, *number).as_deref() == Some(value))
                };
                let when = at(now + shift);
                let during = |row: &(Timestamp, Timestamp, Entry, Option<Entry>)| {
                    row.0.minus(secs(5)) <= when && when <= row.1.plus(secs(5))
                };
                answers.push(all.iter().any(|row| agrees(row) && during(row)));
                answers.push(all.iter().any(|row| agrees(row) && column(row, 1).as_deref() == Some("x")));
            }
        }
    }
    answers
}

proptest! {
    // Every case asks for some thousands of answers.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn lookups_answer_what_follows_from_what_happened_in_any_order(
        list in entries().prop_shuffle(),
        restored in 0_usize..24,
    ) {
        let mut table = Rows::new(shape());
        let mut kept = Rows::new(shape());
        for (number, entry) in list.iter().enumerate() {
            table.feed(entry.clone());
            if number == restored {
                for change in table.take_changes() {
                    let bytes = postcard::to_stdvec(&change).unwrap();
                    kept.restore(postcard::from_bytes(&bytes).unwrap());
                }
                let mut snapshot = Rows::new(shape());
                table.as_changes().into_iter().for_each(|change| snapshot.restore(change));
                prop_assert_eq!(snapshot.as_changes(), kept.as_changes());
                table = std::mem::replace(&mut kept, snapshot);
            }
        }
        prop_assert_eq!(answers(&table), expected(&list));
        // A second delivery of the same events changes nothing.
        list.iter().for_each(|entry| table.feed(entry.clone()));
        prop_assert_eq!(answers(&table), expected(&list));
    }

    #[test]
    fn what_is_swept_changes_no_later_answer(list in entries(), oldest in 900_i64..2_500) {
        let mut table = rows(list.clone());
        let whole = rows(list);
        table.sweep(at(oldest));
        for secs in (oldest..oldest + 200).step_by(7) {
            for (signature, value) in [(0, "a"), (0, "b"), (3, "x")] {
                prop_assert_eq!(held(&table, signature, &[value], secs), held(&whole, signature, &[value], secs));
                let values = Texts::of([Some(value)]);
                let query = Query { signature, values: &values, at: None, as_of: at(secs) };
                prop_assert_eq!(table.any(&query, |_| true), whole.any(&query, |_| true));
            }
        }
    }
}

#[test]
fn a_table_keeps_its_share_of_what_all_may_keep() {
    let mut shape = Shape::clone(&shape());
    for (tables, most) in [(1, ENTRIES_MAX), (2, ENTRIES_MAX), (8, ENTRIES_IN_ALL / 8)] {
        shape.share_with(tables);
        assert_eq!(shape.entries_max, most, "{tables}");
    }
    shape.entries_max = 3;
    let mut rows = Rows::new(Arc::new(shape));
    (0..5).for_each(|index| rows.feed(entry(Edge::Open, 1_000 + index as i64, index, &index.to_string(), "app")));
    assert_eq!((rows.len(), rows.evicted()), (3, 2));
    assert!(!held(&rows, 0, &["1"], 1_001) && held(&rows, 0, &["2"], 1_002), "the oldest went");
}
