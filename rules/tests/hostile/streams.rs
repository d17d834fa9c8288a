//! Streams of events that are meant to fill the state.

use std::time::Duration;

use pipeproof_rules::Lists;

use super::swiftly;
use crate::harness::{Run, Sample, load_good, plan, run};

const MEMBER: &str =
    "---\ntitle: ev\nid: ev\nname: ev\nlogsource: {category: x}\ndetection:\n    s: {kind: a}\n    condition: s\n";

/// The same for events that are not there.
const NOTHING: &str = "title: ev\nid: ev\nlogsource: {category: x}\ndetection:\n    s: {kind: z}\n    condition: s\n";

fn correlation(body: &str) -> String {
    format!("title: c\nid: c\ncorrelation: {{rules: [ev], {body}}}\n{MEMBER}")
}

fn stream(rules: &str, samples: &[Sample], until: Duration) -> Run {
    swiftly(|| {
        let set = load_good(rules, &Lists::new()).unwrap();
        run(&plan(&set).unwrap(), samples, until).unwrap()
    })
}

fn samples(count: u64, step: Duration, json: impl Fn(u64) -> String) -> Vec<Sample> {
    (0..count).map(|number| Sample::new(step * u32::try_from(number).unwrap(), json(number))).collect()
}

/// A key that no two events share: groups are let go when their window is over, so the state is no larger in the end than
/// without the correlation.
#[test]
fn a_group_for_every_event() {
    let rules = correlation("type: event_count, group-by: [key], timespan: 10s, condition: {gte: 2}");
    let events =
        samples(20_000, Duration::from_millis(10), |number| format!("{{\"kind\":\"a\",\"key\":\"k{number}\"}}"));
    let with = stream(&rules, &events, Duration::from_secs(3_600));
    let without = stream(NOTHING, &events, Duration::from_secs(3_600));
    assert!(with.found.is_empty());
    let most = without.state_bytes + 20_000;
    assert!(
        with.state_bytes < most,
        "{} bytes of state after the window, {} without",
        with.state_bytes,
        without.state_bytes
    );
}

/// A single group that never rests: what it keeps is bounded, and what it gives up is counted.
#[test]
fn one_group_for_every_event() {
    let rules = correlation("type: event_count, group-by: [key], timespan: 1d, condition: {gte: 1000000}");
    let events = samples(30_000, Duration::from_millis(1), |_| "{\"kind\":\"a\",\"key\":\"k\"}".to_owned());
    let run = stream(&rules, &events, Duration::from_secs(3_600));
    let without = stream(NOTHING, &events, Duration::from_secs(3_600));
    assert!(run.found.is_empty());
    // Times alone may be kept for all of them; whole signals may not.
    let most = without.state_bytes + 30_000 * 40;
    assert!(run.state_bytes < most, "{} bytes of state, {} without", run.state_bytes, without.state_bytes);
}

/// Keys of a megabyte: kept short or refused, never by the thousand.
#[test]
fn keys_of_a_megabyte() {
    let rules = correlation("type: event_count, group-by: [key], timespan: 1h, condition: {gte: 2}");
    let events = samples(40, Duration::from_secs(1), |number| {
        format!("{{\"kind\":\"a\",\"key\":\"{}{number}\"}}", "k".repeat(1_000_000))
    });
    let run = stream(&rules, &events, Duration::from_secs(60));
    assert!(run.found.is_empty(), "two keys that differ at their ends are two keys");
    assert!(run.state_bytes < 100_000_000, "{} bytes of state", run.state_bytes);
}

/// Times far in the past and in the future.
#[test]
fn times_out_of_this_world() {
    let rules = correlation("type: event_count, group-by: [key], timespan: 1m, condition: {gte: 2}");
    let far = Duration::from_secs(86_400 * 365 * 200);
    let mut events = samples(4, Duration::from_secs(1), |_| "{\"kind\":\"a\",\"key\":\"k\"}".to_owned());
    events[1].at = far;
    events[2].at = Duration::ZERO;
    let run = stream(&rules, &events, Duration::from_secs(600));
    assert_eq!(run.found.len(), 1, "the others are judged as if it were not there");
    let rules = correlation("type: event_count, group-by: [key], timespan: 1000000y, condition: {gte: 2}");
    if let Ok(set) = load_good(&rules, &Lists::new()) {
        let run = swiftly(|| crate::harness::run(&plan(&set).unwrap(), &events, Duration::from_secs(600)).unwrap());
        assert_eq!(run.found.len(), 1);
    }
}
