//! Rules and events that are meant to break the engine: every one is a clear error or a counted limit, within seconds,
//! and the rules and events beside it work as if it were not there.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on has to stop")]

#[path = "hostile/events.rs"]
mod events;
mod harness;
#[path = "hostile/rules.rs"]
mod rules;
#[path = "hostile/streams.rs"]
mod streams;

use std::time::Instant;

/// Runs `work` and says how long it took, to be read by people: a machine under load proves nothing.
fn swiftly<T>(work: impl FnOnce() -> T) -> T {
    #[allow(clippy::disallowed_methods, reason = "how long it takes is said, not tested")]
    let start = Instant::now();
    let done = work();
    eprintln!("took {:?}", start.elapsed());
    done
}

/// A plain rule that stands beside the hostile ones; matches `{"good":"yes"}`.
const GOOD: &str =
    "title: good\nid: good\nlogsource: {category: x}\ndetection:\n    s: {good: 'yes'}\n    condition: s\n";

/// A rule with these lines of searches, and a condition.
fn rule(searches: &str, condition: &str) -> String {
    format!(
        "title: hostile\nid: hostile\nlogsource: {{category: x}}\ndetection:\n    {searches}\n    condition: {condition}\n"
    )
}
