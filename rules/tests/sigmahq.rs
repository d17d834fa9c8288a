//! How many of SigmaHQ's rules load, and why the others do not. The rules are not part of this repository: name a
//! checkout of them in `PIPEPROOF_SIGMA_DIR`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeproof_engine::plan::Plan;
use pipeproof_rules::{Lists, Severity, load, read_dir};

#[test]
fn rules_of_sigmahq_load() {
    let Some(folder) = std::env::var_os("PIPEPROOF_SIGMA_DIR").map(PathBuf::from) else {
        eprintln!("left out: PIPEPROOF_SIGMA_DIR names no checkout of SigmaHQ/sigma");
        return;
    };
    let mut all = (0, 0);
    for part in [
        "rules",
        "rules-emerging-threats",
        "rules-threat-hunting",
        "rules-compliance",
        "rules-dfir",
        "rules-placeholder",
    ] {
        let path = folder.join(part);
        if !path.is_dir() {
            eprintln!("{part}: not there");
            continue;
        }
        let (files, loaded) = check(&path, part);
        all = (all.0 + files, all.1 + loaded);
    }
    eprintln!("together: {} of {} files", all.1, all.0);
    assert!(all.0 > 0, "no rules below {}", folder.display());
    // Rules that are refused are refused because of placeholders nobody filled in.
    assert!(all.1 * 100 >= all.0 * 98, "{} of {} load", all.1, all.0);
}

fn check(path: &Path, part: &str) -> (usize, usize) {
    let files = read_dir(path).unwrap();
    let set = load(&files, &Lists::new());
    let mut codes: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for problem in set.diagnostics.iter().filter(|problem| problem.severity == Severity::Error) {
        let entry = codes.entry(problem.code.name()).or_insert_with(|| (0, problem.to_string()));
        entry.0 += 1;
    }
    let mut warnings: BTreeMap<&str, usize> = BTreeMap::new();
    for problem in set.diagnostics.iter().filter(|problem| problem.severity == Severity::Warning) {
        *warnings.entry(problem.code.name()).or_default() += 1;
    }
    eprintln!("{part}: {} files, {} rules load; warnings {warnings:?}", files.len(), set.rules.len());
    for (code, (count, example)) in codes {
        eprintln!("    {code} × {count}, as in {example}");
    }
    let loaded = set.rules.len();
    let plan = Plan::compile(set.rules);
    assert!(plan.is_ok(), "{part}: {plan:?}");
    (files.len(), loaded)
}
