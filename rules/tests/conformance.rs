//! The conformance table of `tests/conformance/`: every case through the public interface, exactly as
//! `docs/conformance.md` says any engine is to be judged by it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot read its table has to stop, and says what it saw"
)]

mod harness;

use std::collections::BTreeSet;
use std::time::Duration;

use harness::table::{Case, Firing, first_id, tables};
use harness::{Sample, errors, event, load_good, load_text, plan, run};
use pipeproof_engine::plan::Routing;
use pipeproof_engine::rule::Rule;
use pipeproof_rules::Lists;

/// Cases that do not pass yet, and why: a prefix of ids each. An entry none of whose cases fails is an error.
const OPEN: &[(&str, &str)] = &[];

#[test]
fn the_table_is_well_formed() {
    let mut ids = BTreeSet::new();
    for table in tables() {
        assert!(!table.cases.is_empty(), "{} has no cases", table.area);
        for case in &table.cases {
            assert!(ids.insert(case.id.clone()), "{} stands twice", case.id);
            assert!(case.id.starts_with(&format!("{}/", table.area)), "{} is not of its area", case.id);
            assert!(["text", "practice", "choice", "next", "extension"].contains(&case.basis.as_str()), "{}", case.id);
            assert!(!case.says.is_empty() && !case.decided_by.is_empty(), "{} says too little", case.id);
            let timed = case.events.iter().all(|given| given.at.is_some() && given.matches.is_none());
            let plain = case.events.iter().all(|given| given.at.is_none() && given.matches.is_some());
            let whole = match (&case.refuse, &case.firings) {
                (Some(_), None) => case.events.is_empty(),
                (None, Some(_)) => timed && !case.events.is_empty(),
                (None, None) => plain && !case.events.is_empty(),
                (Some(_), Some(_)) => false,
            };
            assert!(whole, "{} is of no kind", case.id);
        }
    }
    assert!(ids.len() >= 400, "only {} cases", ids.len());
}

#[test]
fn every_case_passes() {
    let mut failed: Vec<String> = Vec::new();
    let mut used = BTreeSet::new();
    let mut all = (0, 0);
    for table in tables() {
        let (mut passed, mut open) = (0, 0);
        for case in &table.cases {
            let listed = OPEN.iter().find(|(prefix, _)| case.id.starts_with(prefix));
            match (check(case), listed) {
                (Ok(()), _) => passed += 1,
                (Err(why), Some((prefix, _))) => {
                    eprintln!("open: {}: {why}", case.id);
                    used.insert(*prefix);
                    open += 1;
                }
                (Err(why), None) => failed.push(format!("{} [{}] {}: {why}", case.id, case.basis, case.says)),
            }
        }
        all = (all.0 + passed, all.1 + table.cases.len());
        eprintln!("{:>13}: {passed:>3} of {:>3} pass, {open} open", table.area, table.cases.len());
    }
    eprintln!("{:>13}: {:>3} of {:>3} pass", "together", all.0, all.1);
    for (prefix, why) in OPEN {
        eprintln!("open: {prefix}: {why}");
        if !used.contains(prefix) {
            failed.push(format!("{prefix} is listed as open, but no case of that name fails"));
        }
    }
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
}

fn check(case: &Case) -> Result<(), String> {
    let mut lists = Lists::new();
    case.lists.iter().for_each(|(name, values)| lists.set(name.clone(), values.clone()));
    match (&case.refuse, &case.firings) {
        (Some(_), _) => check_refused(case, &lists),
        (None, Some(firings)) => check_firings(case, firings, &lists),
        (None, None) => check_matches(case, &lists),
    }
}

fn check_refused(case: &Case, lists: &Lists) -> Result<(), String> {
    let set = load_text(&case.rules, lists);
    if errors(&set).is_empty() {
        return Err("it was not refused".to_owned());
    }
    let id = first_id(&case.rules);
    match set.rules.iter().any(|rule| Some(rule.meta().id.as_str()) == id) {
        true => Err(format!("it was loaded in spite of {:?}", errors(&set))),
        false => Ok(()),
    }
}

fn check_matches(case: &Case, lists: &Lists) -> Result<(), String> {
    let set = load_good(&case.rules, lists)?;
    let plan = plan(&set)?;
    let id = first_id(&case.rules).unwrap_or_default();
    let rule = plan.rules().iter().position(|rule| rule.meta().id == id).ok_or("the rule is not there")?;
    let samples: Vec<Sample> = (0_u64..)
        .zip(&case.events)
        .map(|(number, given)| Sample::new(Duration::from_secs(number), given.event.clone()))
        .collect();
    let found = run(&plan, &samples, Duration::ZERO)?;
    let of_rule = found.found.iter().filter(|found| found.finding.rule_id == id);
    let found: BTreeSet<usize> = of_rule.filter_map(|found| found.events.last().copied()).collect();
    let mut wrong = Vec::new();
    for (number, (given, sample)) in case.events.iter().zip(&samples).enumerate() {
        let wanted = given.matches.unwrap_or_default();
        if found.contains(&number) != wanted {
            wrong.push(format!("{} should {}match", given.event, if wanted { "" } else { "not " }));
        }
        // Matching many events at once, one alone, and explaining it come to the same; filters come after them.
        if plan.filters().is_empty() {
            let event = event(0, sample);
            let alone = plan.select(std::slice::from_ref(&event), &Routing::Unrouted);
            let alone = alone.iter().any(|hit| hit.rule == rule);
            let explained = plan.explain(rule, &event).matched;
            if alone != found.contains(&number) || explained != alone {
                wrong.push(format!("{}: select alone says {alone}, explain {explained}", given.event));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn check_firings(case: &Case, firings: &[Firing], lists: &Lists) -> Result<(), String> {
    let set = load_good(&case.rules, lists)?;
    let plan = plan(&set)?;
    let id = first_id(&case.rules).unwrap_or_default();
    let secs = |secs: f64| Duration::from_micros((secs * 1e6).round() as u64);
    let mut now = 0.0_f64;
    let mut samples = Vec::new();
    for given in &case.events {
        let at = given.at.unwrap_or_default();
        now = given.arrives.unwrap_or(at).max(now);
        samples.push(Sample { at: secs(at), arrives: secs(now), json: given.event.clone() });
    }
    let found = run(&plan, &samples, secs(case.until.unwrap_or_default()))?;
    let name = |id: &str| plan.rules().iter().map(Rule::meta).find(|meta| meta.id == id)?.name.clone();
    let mut got: Vec<Firing> = Vec::new();
    for found in found.found {
        let rule = (found.finding.rule_id != id).then(|| name(&found.finding.rule_id)).flatten();
        got.push(Firing { event: *found.events.last().ok_or("no event")?, group: found.finding.key, rule });
    }
    let mut wanted = firings.to_vec();
    got.sort();
    wanted.sort();
    if got == wanted { Ok(()) } else { Err(format!("expected {wanted:?}, got {got:?}")) }
}
