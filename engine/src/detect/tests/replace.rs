//! Another plan in the middle of a stream.

use super::*;

const SETS: [&str; 2] = ["all", "few"];

/// Everything, or without some of the rules that others look at.
fn plan_of(set: &str) -> Arc<Plan> {
    let mut rules = rules();
    if set == "few" {
        rules.retain(|rule| !["many", "lonely", "outer", "spike"].contains(&rule.meta().id.as_str()));
    }
    Arc::new(Plan::compile(rules).unwrap())
}

fn deployed(index: u64, received: i64, set: &str) -> Decoded {
    let record = crate::control::RulesRecord {
        set: set.to_owned(),
        rules: Vec::new(),
        exceptions: Vec::new(),
        change: Some(crate::control::RulesChange::Deploy {}),
        actor: "test".to_owned(),
        approved_by: None,
        approval: crate::control::Approval::None,
        note: None,
    };
    control(index, received, &Control::RulesDeployed(record))
}

/// The set that a record puts in force.
fn set_of(decoded: &Decoded) -> Option<String> {
    match serde_json::from_slice(&decoded.record.body) {
        Ok(Control::RulesDeployed(record)) => Some(record.set),
        _ => None,
    }
}

/// Runs a stream as the detect role does: it parts batches at deployments, switches there, and keeps the state whole.
/// `restart` stops and goes on after every commit and after every switch.
fn run_sets(stream: &[Decoded], size: usize, restart: bool) -> (Vec<String>, Vec<u8>) {
    let mut detector = Detector::new(plan_of("few"), 0);
    let mut restored = Restored::default();
    let again = |restored: &Restored| {
        let plan = |set: Option<&str>| Ok::<_, std::convert::Infallible>(plan_of(set.unwrap_or("few")));
        Detector::restore_under(0, restored, plan).unwrap()
    };
    let mut ids = Vec::new();
    for batch in stream.chunks(size) {
        let mut parts: Vec<Vec<Decoded>> = Vec::new();
        for decoded in batch {
            match parts.last_mut() {
                Some(part) if set_of(decoded).is_none() => part.push(decoded.clone()),
                _ => parts.push(vec![decoded.clone()]),
            }
        }
        for part in parts {
            if let Some(set) = set_of(&part[0]) {
                detector.replace_plan(plan_of(&set));
                let position = detector.position();
                restored =
                    Restored { position, snapshot: Some((position, detector.snapshot().unwrap())), deltas: Vec::new() };
                if restart {
                    // The record is not evaluated yet: it is met again under the set before it.
                    detector = again(&restored);
                    detector.replace_plan(plan_of(&set));
                }
            }
            let commit = detector.apply(part, Timestamp::default()).unwrap();
            ids.extend(commit.findings.iter().map(|finding| finding.id.clone()));
            restored.position = commit.to;
            restored.deltas.push(commit.delta);
            if restart {
                detector = again(&restored);
            }
        }
    }
    (ids, detector.snapshot().unwrap())
}

/// The stream with deployments at some of its places.
fn with_deployments(stream: &[Decoded], places: &[usize]) -> Vec<Decoded> {
    let mut log: Vec<Decoded> = Vec::new();
    for (at, decoded) in stream.iter().enumerate() {
        let received = decoded.record.envelope.received.as_micros() / 1_000_000;
        if let Some(turn) = places.iter().position(|place| *place == at) {
            log.push(deployed(log.len() as u64, received, SETS[turn % SETS.len()]));
        }
        let index = log.len() as u64;
        let mut moved = Decoded { index, ..decoded.clone() };
        for event in moved.events.iter_mut().flatten() {
            event.id.position.index = index;
        }
        log.push(moved);
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_switch_concludes_the_same_wherever_it_is_cut_and_restored(
        stream in streams(), places in proptest::collection::btree_set(0_usize..40, 0..4), size in 1_usize..9,
    ) {
        let log = with_deployments(&stream, &places.into_iter().collect::<Vec<_>>());
        let (ids, state) = run_sets(&log, 1, false);
        prop_assert_eq!(&run_sets(&log, size, false).0, &ids);
        let restarted = run_sets(&log, size, true);
        prop_assert_eq!(&restarted.0, &ids);
        prop_assert_eq!(restarted.1, state);
    }
}

fn tick(index: u64, at: i64) -> Decoded {
    control(index, at, &Control::Tick {})
}

#[test]
fn a_rule_that_stays_remembers_and_one_that_was_away_does_not() {
    let b = |index, at| event(index, at, at, "act.b", "x/one", index);
    let found = |middle: Vec<Decoded>| {
        let mut stream = vec![deployed(0, 1_000_000, "all"), b(1, 1_000_001), b(2, 1_000_002), tick(3, 1_000_090)];
        stream.extend(middle);
        stream.extend([b(6, 1_000_100), tick(7, 1_000_300)]);
        let mut detector = Detector::new(plan_of("few"), 0);
        let mut found = BTreeSet::new();
        for decoded in stream {
            if let Some(set) = set_of(&decoded) {
                detector.replace_plan(plan_of(&set));
                assert_eq!(detector.plan().rules().len(), plan_of(&set).rules().len());
            }
            let commit = detector.apply(vec![decoded], Timestamp::default()).unwrap();
            found.extend(commit.findings.into_iter().map(|finding| finding.rule_id));
        }
        assert!(detector.rule_set().is_some());
        found
    };
    let undisturbed = found(Vec::new());
    assert!(undisturbed.contains("many") && undisturbed.contains("soon"), "{undisturbed:?}");
    let replaced = found(vec![deployed(4, 1_000_091, "few"), deployed(5, 1_000_092, "all")]);
    assert!(replaced.contains("soon"), "it was there all along: {replaced:?}");
    assert!(!replaced.contains("many"), "it was away: {replaced:?}");
}
