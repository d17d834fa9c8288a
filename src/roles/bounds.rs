//! Says in the log that a rule, a table or a part of the program dropped what it should remember, because a bound was reached: something
//! may have been missed.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use pipeproof_engine::control::Control;
use pipeproof_engine::time::Timestamp;

use crate::node::Shared;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often at most each is spoken of.
const SAY_EVERY: Duration = Duration::from_secs(3_600);

/// What a rule or table dropped, and what that means.
const DROPPED: &str = "signals, groups or rows were dropped at a bound: it may have missed something";

/// What holds something: its name, how much it dropped since the start, and what of.
type Dropped<'a> = (&'a str, u64, &'static str);

/// What was said of what holds something: how much it had dropped, and when.
type Said = BTreeMap<String, (u64, Timestamp)>;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let mut said = Said::new();
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let status = shared.status();
        let rules = status.rules.iter().map(|rule| (rule.rule.as_str(), rule.evicted, DROPPED));
        let tables = status.tables.iter().map(|table| (table.table.as_str(), table.evicted, DROPPED));
        let parts = parts(&shared);
        for control in due(&mut said, rules.chain(tables).chain(parts), shared.clock.now()) {
            if let Err(error) = shared.control(control).await {
                tracing::warn!(error = %error, "cannot write down that a bound was reached");
            }
        }
    }
}

/// Bounds that no single rule or table has, by what they bound. The blank keeps their names from those of tables and packaged rules.
fn parts(shared: &Shared) -> [Dropped<'static>; 4] {
    let counters = *shared.counters.read().unwrap_or_else(PoisonError::into_inner);
    [
        (
            "quiet times",
            counters.quiet_unkept,
            "findings found no room among what rules are quiet about: the same may be said again before its time",
        ),
        (
            "sql episodes",
            counters.episodes_forgotten,
            "episodes of sql rules were forgotten at a bound: what goes on is found again",
        ),
        (
            "items seen",
            shared.store.item_sets_made_room(),
            "sets of items were forgotten before their time: what of them is sent again is taken for new",
        ),
        (
            "numbered streams",
            counters.numbers_unwatched,
            "numbers came in streams that their source has no room for: what is missing of these is not noticed",
        ),
    ]
}

fn due<'a>(said: &mut Said, dropped: impl Iterator<Item = Dropped<'a>>, now: Timestamp) -> Vec<Control> {
    let mut due = Vec::new();
    for (name, all, what) in dropped {
        let before = said.get(name).copied();
        let (told, at) = before.unwrap_or_default();
        if all <= told || before.is_some() && now < at.plus(SAY_EVERY) {
            continue;
        }
        said.insert(name.to_owned(), (all, now));
        let reason = format!("{} {what}", all - told);
        due.push(Control::BoundReached { rule: name.to_owned(), dropped: all - told, reason });
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_said_at_once_and_then_once_an_hour() {
        let mut said = Said::new();
        let mut at = |secs, dropped| {
            let all = [("quiet rule", 0, DROPPED), ("busy rule", dropped, DROPPED)];
            let due = due(&mut said, all.into_iter(), Timestamp::from_secs(secs));
            let dropped = due.into_iter().map(|control| match control {
                Control::BoundReached { rule, dropped, reason } => {
                    assert_eq!(reason, format!("{dropped} {DROPPED}"));
                    (rule, dropped)
                }
                other => panic!("{other:?}"),
            });
            dropped.collect::<Vec<_>>()
        };
        let busy = |dropped| vec![("busy rule".to_owned(), dropped)];
        assert_eq!((at(10, 0), at(20, 5)), (vec![], busy(5)));
        assert_eq!((at(30, 5), at(40, 9), at(3_630, 12), at(3_640, 12)), (vec![], vec![], busy(7), vec![]));
    }
}
