//! The examples of the language's description pass their own tests. They are not part of this repository: name a folder
//! with them in `PIPEPROOF_EXAMPLES_DIR`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot read its rules has to stop, and says what it saw"
)]

use std::path::PathBuf;

use pipeproof_rules::{Lists, load, read_dir, read_lists, run_tests};

#[test]
fn the_examples_pass() {
    let Some(folder) = std::env::var_os("PIPEPROOF_EXAMPLES_DIR").map(PathBuf::from) else {
        eprintln!("left out: PIPEPROOF_EXAMPLES_DIR names no folder of example rules");
        return;
    };
    let files = read_dir(&folder).unwrap();
    let mut lists = Lists::shipped();
    lists.extend(read_lists(&folder).unwrap());
    let set = load(&files, &lists);
    for problem in &set.diagnostics {
        eprintln!("{problem}");
    }
    assert!(!set.has_errors());
    let outcomes = run_tests(&set);
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.passed && !outcome.skipped)
        .map(|outcome| format!("{} / {}: {}", outcome.title, outcome.name, outcome.message.clone().unwrap_or_default()))
        .collect();
    let skipped = outcomes.iter().filter(|outcome| outcome.skipped).count();
    eprintln!("{} tests, {skipped} skipped, {} failed", outcomes.len(), failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
}
