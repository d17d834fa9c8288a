//! Says in the log that a rule or a table dropped what it should remember, because a bound was reached: it may have missed something.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::control::Control;
use pipeproof_engine::time::Timestamp;

use crate::node::Shared;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often at most each is spoken of.
const SAY_EVERY: Duration = Duration::from_secs(3_600);

/// What was said of a rule or table: how much it had dropped, and when.
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
        let rules = status.rules.iter().map(|rule| (rule.rule.as_str(), rule.evicted));
        let tables = status.tables.iter().map(|table| (table.table.as_str(), table.evicted));
        for control in due(&mut said, rules.chain(tables), shared.clock.now()) {
            if let Err(error) = shared.control(control).await {
                tracing::warn!(error = %error, "cannot write down that a bound was reached");
            }
        }
    }
}

fn due<'a>(said: &mut Said, dropped: impl Iterator<Item = (&'a str, u64)>, now: Timestamp) -> Vec<Control> {
    let mut due = Vec::new();
    for (name, all) in dropped {
        let before = said.get(name).copied();
        let (told, at) = before.unwrap_or_default();
        if all <= told || before.is_some() && now < at.plus(SAY_EVERY) {
            continue;
        }
        said.insert(name.to_owned(), (all, now));
        let reason =
            format!("{} signals, groups or rows were dropped at a bound: it may have missed something", all - told);
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
            let due =
                due(&mut said, [("quiet rule", 0), ("busy rule", dropped)].into_iter(), Timestamp::from_secs(secs));
            let dropped = due.into_iter().map(|control| match control {
                Control::BoundReached { rule, dropped, .. } => (rule, dropped),
                other => panic!("{other:?}"),
            });
            dropped.collect::<Vec<_>>()
        };
        let busy = |dropped| vec![("busy rule".to_owned(), dropped)];
        assert_eq!((at(10, 0), at(20, 5)), (vec![], busy(5)));
        assert_eq!((at(30, 5), at(40, 9), at(3_630, 12), at(3_640, 12)), (vec![], vec![], busy(7), vec![]));
    }
}
