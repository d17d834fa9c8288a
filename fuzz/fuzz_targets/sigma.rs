//! Rules: Sigma YAML with our additions, from a text nobody vouches for to a plan, or diagnostics that point into it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_engine::plan::Plan;
use pipeproof_rules::{Lists, load};

fuzz_target!(|text: &str| {
    let files = vec![("rule.yml".to_owned(), text.to_owned())];
    let set = load(&files, &Lists::default());
    drop(set.render_diagnostics(&files));
    if !set.has_errors() {
        drop(Plan::compile(set.content()));
    }
});
