//! Rules and events by the thousand: the engine against an interpreter written from the specification alone, and
//! against `sigma-rust`, an engine of other people.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on has to stop, and says what it saw"
)]

#[path = "differential/disagreements.rs"]
mod disagreements;
#[path = "differential/generate.rs"]
mod generate;
mod harness;
#[path = "differential/interpreter.rs"]
mod interpreter;
#[path = "differential/other_engine.rs"]
mod other_engine;

use harness::{Sample, event, load_text, plan};
use pipeproof_engine::event::Event;
use pipeproof_engine::plan::Routing;
use pipeproof_rules::Lists;
use proptest::prelude::*;

/// Which events of `texts` the rule matches, by the engine: all in one batch, and each alone.
fn by_engine(rule: &str, texts: &[String]) -> Result<Vec<bool>, String> {
    let set = load_text(rule, &Lists::new());
    if set.rules.is_empty() {
        return Err(harness::errors(&set).join("\n"));
    }
    let plan = plan(&set)?;
    let samples = texts.iter().map(|text| Sample::new(std::time::Duration::ZERO, text.clone()));
    let events: Vec<Event> = (0..).zip(samples).map(|(index, sample)| event(index, &sample)).collect();
    let mut matched = vec![false; events.len()];
    for hit in plan.select(&events, &Routing::Unrouted) {
        matched[hit.event] = true;
    }
    for (event, matched) in events.iter().zip(&matched) {
        let alone = !plan.select(std::slice::from_ref(event), &Routing::Unrouted).is_empty();
        if alone != *matched {
            return Err(format!("alone {alone}, among others {matched}: {:?}", event.native));
        }
    }
    Ok(matched)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    /// 1,500 rules × 12 events each.
    #[test]
    fn the_engine_agrees_with_an_interpreter_of_the_specification(
        rule in generate::rule(),
        events in proptest::collection::vec(generate::event(), 12),
    ) {
        let texts: Vec<String> = events.iter().map(ToString::to_string).collect();
        let got = by_engine(&rule, &texts);
        let document = interpreter::read(&rule);
        let wanted: Vec<bool> = events.iter().map(|event| interpreter::matches(&document, event)).collect();
        let wrong: Vec<_> = texts.iter().zip(got.iter().flatten().zip(&wanted)).filter(|(_, (got, wanted))| got != wanted).collect();
        prop_assert!(got.is_ok(), "{rule}\n{got:?}");
        prop_assert!(wrong.is_empty(), "{rule}\n(event, (engine, interpreter)): {wrong:?}");
    }

    /// Several rules in one plan give what each gives alone.
    #[test]
    fn rules_do_not_disturb_each_other(
        rules in proptest::collection::vec(generate::rule(), 2..5),
        events in proptest::collection::vec(generate::event(), 6),
    ) {
        let texts: Vec<String> = events.iter().map(ToString::to_string).collect();
        let files: Vec<(String, String)> = (0..).zip(&rules).map(|(number, rule)| {
            (format!("{number}.yml"), rule.replace(generate::ID, &format!("rule-{number}")))
        }).collect();
        let set = pipeproof_rules::load(&files, &Lists::new());
        let plan = plan(&set).unwrap();
        let samples = texts.iter().map(|text| Sample::new(std::time::Duration::ZERO, text.clone()));
        let all: Vec<Event> = (0..).zip(samples).map(|(index, sample)| event(index, &sample)).collect();
        let together = plan.select(&all, &Routing::Unrouted);
        for (number, rule) in rules.iter().enumerate() {
            let alone = by_engine(rule, &texts).unwrap();
            let id = format!("rule-{number}");
            let place = plan.rules().iter().position(|rule| rule.meta().id == id).unwrap();
            for (at, alone) in alone.into_iter().enumerate() {
                prop_assert_eq!(together.iter().any(|hit| (hit.event, hit.rule) == (at, place)), alone, "{}\n{}", rule, texts[at]);
            }
        }
    }
}
