//! The definitions, number by number.

use pipeproof_engine::incident::{Incident, IncidentStep, Status, Verb};
use pipeproof_engine::rule::Level;

use super::files::{incident_table, pack_files};
use super::text::duration;
use super::*;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: i64 = 3_600;

fn after(secs: i64) -> Timestamp {
    Timestamp::from_micros(START.as_micros() + secs * 1_000_000)
}

/// Occurred at the start, available after 60 s, detected after 61 s.
fn incident(id: &str) -> IncidentTimes {
    IncidentTimes {
        id: id.to_owned(),
        title: format!("about {id}"),
        level: Level::High,
        retro: false,
        is_test: false,
        occurred: Some(START),
        available: after(60),
        detected: after(61),
        acknowledged: None,
        contained: None,
        remediated: None,
        first_remediated: None,
        verified: None,
        closed: None,
        reopened: 0,
        dismissed: false,
    }
}

fn request() -> KpiRequest {
    KpiRequest::new(START, after(30 * 86_400), after(30 * 86_400))
}

fn response<'a>(report: &'a KpiReport, kind: &str) -> &'a ResponseFigures {
    &report.response.iter().find(|response| response.kind == kind).unwrap().figures
}

#[test]
fn golden_numbers_of_the_response() {
    let as_of = after(100 * HOUR);
    let done = [2, 3, 5, 8, 12, 30].map(|hours| {
        let mut row = incident(&format!("done-{hours}"));
        row.detected = START;
        row.available = START;
        row.remediated = Some(after(hours * HOUR));
        row.verified = Some(after(hours * HOUR + 60));
        row
    });
    let open = [40, 55, 70].map(|hours| {
        let mut row = incident(&format!("open-{hours}"));
        row.detected = after((100 - hours) * HOUR);
        row.available = row.detected;
        row
    });
    let rows: Vec<_> = done.into_iter().chain(open).collect();
    let report = report(&rows, &KpiRequest::new(START, as_of, as_of));
    let figures = response(&report, "MTTRemediate");
    let hours = |hours: f64| Some(hours * 3_600.0);
    assert_eq!((figures.done.n, figures.done.mean_secs), (6, hours(10.0)));
    assert_eq!((figures.done.median_secs, figures.done.p90_secs), (hours(5.0), hours(30.0)));
    assert_eq!(figures.done.max_secs, hours(30.0));
    assert_eq!(figures.n_open, 3);
    let ages: Vec<_> = figures.open.iter().map(|open| open.age_secs / 3_600.0).collect();
    assert_eq!(ages, [70.0, 55.0, 40.0]);
    assert_eq!((figures.survival.median_secs, figures.survival.p90_secs), (hours(12.0), None));
    assert_eq!((figures.survival.rmst_secs.unwrap() / 36.0).round() / 100.0, 30.67);
    let text = report.to_text();
    assert!(text.contains("MTTRemediate  mean time to remediate"), "{text}");
    assert!(text.contains("median 12 h 0 min, p90 not reached, restricted mean to 3 d 0 h 30 h 40 min"), "{text}");
    assert!(text.contains("mean 10 h 0 min, median 5 h 0 min (n=6: 2 h 0 min, 3 h 0 min"), "{text}");
    assert!(!text.contains("MTTR ") && !text.contains("MTTR:"), "a bare MTTR in\n{text}");
}

#[test]
fn time_to_detect_is_the_sum_of_its_parts_and_unknown_occurrences_are_left_out() {
    let mut slow = incident("slow");
    slow.detected = after(100);
    let mut unknown = incident("unknown");
    unknown.occurred = None;
    unknown.detected = after(63);
    let report = report(&[incident("quick"), slow, unknown], &request());
    let detect = &report.detect;
    assert_eq!((detect.incidents, detect.occurrence_known), (3, 2));
    assert_eq!(detect.occurrence_coverage_percent, Some(66.67));
    assert_eq!(detect.time_to_detect.mean_secs, Some(80.5));
    assert_eq!((detect.source_lag.mean_secs, detect.detection_lag.mean_secs), (Some(60.0), Some(20.5)));
    assert_eq!((detect.engine_detection_lag.n, detect.engine_detection_lag.median_secs), (3, Some(3.0)));
    assert_eq!(report.detect_by_level["high"].time_to_detect.n, 2);
}

#[test]
fn false_positives_exercises_and_hindsight_stay_apart() {
    let mut dismissed = incident("false");
    dismissed.dismissed = true;
    dismissed.closed = Some(after(500));
    let mut exercise = incident("drill");
    exercise.is_test = true;
    let mut retro = incident("old");
    retro.retro = true;
    retro.occurred = Some(after(-90 * 86_400));
    let report = report(&[dismissed, exercise, retro, incident("real")], &request());
    let expected = Cohort { detected: 4, dismissed: 1, exercises: 1, retro: 1, counted: 2 };
    assert_eq!(report.cohort, expected);
    assert_eq!(report.detect.time_to_detect.mean_secs, Some(61.0));
    assert_eq!(report.retro.dwell.values_secs, [90.0 * 86_400.0 + 61.0]);
    assert_eq!(response(&report, "MTTA").n_open, 2);
}

#[test]
fn cohorts_are_half_open_and_know_nothing_after_as_of() {
    let at = |id: &str, detected| {
        let mut row = incident(id);
        (row.detected, row.available) = (detected, detected);
        row
    };
    let (from, to) = (after(1_000), after(2_000));
    let rows = [at("before", after(999)), at("first", from), at("last", after(1_999)), at("after", to)];
    let ids = |as_of| {
        let report = report(&rows, &KpiRequest::new(from, to, as_of));
        incident_table(&report, &rows).rows.iter().map(|row| row[0].text()).collect::<Vec<_>>()
    };
    assert_eq!(ids(after(9_999)), ["first", "last"]);
    assert_eq!(ids(after(1_500)), ["first"]);
}

#[test]
fn small_contradictions_are_clamped_and_counted_larger_ones_listed() {
    let mut near = incident("near");
    near.available = after(-3);
    let mut far = incident("far");
    far.available = after(-6);
    let mut early = incident("early");
    early.acknowledged = Some(after(10));
    let report = report(&[near, far, early], &request());
    assert_eq!(report.clamped, 1);
    let listed: Vec<_> = report.data_quality.iter().map(|wrong| (wrong.incident.as_str(), wrong.secs)).collect();
    assert_eq!(listed, [("far", -6.0), ("early", -51.0)]);
    // near: 0 + 64; early: 60 + 1; far is in neither.
    assert_eq!(report.detect.time_to_detect.values_secs, [61.0, 64.0]);
    assert_eq!(report.detect.source_lag.values_secs, [0.0, 60.0]);
    assert_eq!(response(&report, "MTTA").done.n, 0);
    assert_eq!(response(&report, "MTTA").n_open, 2);
}

#[test]
fn skipped_steps_are_not_invented_and_unverified_remedies_do_not_count() {
    let mut closed_at_once = incident("closed");
    closed_at_once.closed = Some(after(161));
    let mut unverified = incident("unverified");
    unverified.acknowledged = Some(after(71));
    unverified.remediated = Some(after(261));
    let report = report(&[closed_at_once, unverified], &request());
    let ack = response(&report, "MTTA");
    assert_eq!((ack.done.values_secs.as_slice(), ack.n_skipped, ack.n_open), ([10.0].as_slice(), 1, 0));
    let contain = response(&report, "MTTC");
    assert_eq!((contain.done.n, contain.n_skipped, contain.n_open), (0, 2, 0));
    let remediate = response(&report, "MTTRemediate");
    assert_eq!((remediate.done.n, remediate.n_skipped, remediate.n_open), (0, 1, 1));
    let limit = ack.limit.unwrap();
    assert_eq!((limit.within, limit.past, limit.pending, limit.percent), (1, 0, 0, Some(100.0)));
}

#[test]
fn limits_leave_young_incidents_pending() {
    let rows: Vec<_> = [(Some(3_600), 1), (Some(5 * 3_600), 2), (None, 3)]
        .map(|(acknowledged, number)| {
            let mut row = incident(&format!("i-{number}"));
            row.acknowledged = acknowledged.map(|secs| after(61 + secs));
            row
        })
        .to_vec();
    let attainment = |as_of| {
        let report = report(&rows, &KpiRequest::new(START, as_of, as_of));
        response(&report, "MTTA").limit.unwrap()
    };
    let young = attainment(after(2 * HOUR));
    assert_eq!((young.within, young.past, young.pending), (1, 1, 1));
    let old = attainment(after(20 * HOUR));
    assert_eq!((old.within, old.past, old.pending, old.percent), (1, 2, 0, Some(33.33)));
}

#[test]
fn nothing_detected_reads_as_no_occurrence() {
    let report = report(&[], &request());
    let text = report.to_text();
    assert!(text.contains("no occurrence") && !text.contains("0.00 s"), "{text}");
    assert_eq!(report.detect.occurrence_coverage_percent, None);
    let back: KpiReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(back, report);
}

#[test]
fn as_of_takes_back_later_steps() {
    let incident = Incident {
        id: "i-1".to_owned(),
        title: "t".to_owned(),
        level: Level::Low,
        status: Status::Acknowledged,
        entities: Vec::new(),
        findings: Vec::new(),
        occurred: None,
        available: START,
        opened: START,
        retro: false,
        acknowledged: Some(after(10)),
        contained: None,
        remediated: None,
        first_remediated: Some(after(20)),
        verified: None,
        closed: None,
        reopened: 1,
        recurs: None,
        steps: 6,
    };
    let step = |number, verb, secs| IncidentStep {
        incident: "i-1".to_owned(),
        number,
        verb,
        at: after(secs),
        actor: "a".to_owned(),
        note: None,
        finding: None,
    };
    let steps = [
        step(5, Verb::Reopen, 50),
        step(0, Verb::Open, 0),
        step(1, Verb::Ack, 10),
        step(2, Verb::Remediate, 20),
        step(3, Verb::Verify, 30),
        step(4, Verb::Dismiss, 40),
    ];
    let at = |secs| IncidentTimes::at(after(secs), &incident, after(1), &steps);
    assert_eq!(at(0), None);
    let then = at(30).unwrap();
    assert_eq!((then.remediated, then.verified, then.closed), (Some(after(20)), Some(after(30)), None));
    assert!(at(45).unwrap().dismissed);
    let now = at(99).unwrap();
    assert_eq!((now.remediated, now.first_remediated, now.reopened), (None, Some(after(20)), 1));
    assert!(!now.dismissed && now.closed.is_none());
}

#[test]
fn pack_files_are_the_same_each_time_and_hold_every_row() {
    let rows = [incident("b"), incident("a")];
    let report = report(&rows, &request());
    let files = pack_files(&report, &rows).unwrap();
    let turned = [rows[1].clone(), rows[0].clone()];
    assert_eq!(files, pack_files(&super::report(&turned, &request()), &turned).unwrap());
    let csv = String::from_utf8(files[1].bytes.clone()).unwrap();
    assert_eq!(csv.lines().count(), 3);
    assert!(csv.contains("\"a\",\"about a\",\"high\",\"yes\""), "{csv}");
}

#[test]
fn durations_read_as_people_say_them() {
    for (secs, text) in [
        (0.0, "0.00 s"),
        (0.424, "0.42 s"),
        (9.999, "10.0 s"),
        (42.06, "42.1 s"),
        (59.96, "1 min 0 s"),
        (242.0, "4 min 2 s"),
        (3_599.7, "1 h 0 min"),
        (36_300.0, "10 h 5 min"),
        (200_000.0, "2 d 7 h"),
        (-61.0, "-1 min 1 s"),
    ] {
        assert_eq!(duration(secs), text);
    }
}
