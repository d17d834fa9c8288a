//! `check` and `test`: the rule language without a server.

use std::path::{Path, PathBuf};

use pipeproof_rules::{Severity, run_tests_with};
use serde_json::Value;

use super::arguments::{Format, RuleFiles};
use super::{Failure, show};
use crate::rules as rule_sets;

pub(super) fn read(paths: &[PathBuf]) -> Result<pipeproof_rules::RuleSet, Failure> {
    // Without any path, the shipped rules are meant.
    rule_sets::read(paths.is_empty(), paths).map_err(|error| Failure::Usage(crate::chain(&error)))
}

pub(super) fn check(options: &RuleFiles, format: Option<Format>) -> Result<(), Failure> {
    let (configurations, rules): (Vec<PathBuf>, Vec<PathBuf>) =
        options.paths.iter().cloned().partition(|path| is_configuration(path));
    for path in &configurations {
        crate::config::Config::load(path).map_err(|error| Failure::Usage(crate::chain(&error)))?;
        show::diagnostic(&format!("{}: the configuration is valid", path.display()));
    }
    if rules.is_empty() && !configurations.is_empty() {
        return Ok(());
    }
    let set = read(&rules)?;
    if format.is_some_and(|format| format != Format::Human) {
        let rows: Vec<Value> =
            set.diagnostics.iter().filter_map(|problem| serde_json::to_value(problem).ok()).collect();
        show::rows(&rows, &["severity", "code", "file", "line", "column", "message", "help"], format)?;
    } else {
        for problem in &set.diagnostics {
            show::plain(&problem.render(set.text(&problem.file).unwrap_or_default()))?;
        }
    }
    let errors = set.diagnostics.iter().filter(|problem| problem.severity == Severity::Error).count();
    let others = set.diagnostics.len() - errors;
    show::diagnostic(&format!("{} rules, {errors} errors, {others} warnings", set.rules.len()));
    if errors > 0 { Err(Failure::Usage("the rules have errors".to_owned())) } else { Ok(()) }
}

/// Whether a file is a configuration by its name: `pipeproof.yaml`, `pipeproof.yml` or `ANYTHING.pipeproof.yaml`.
fn is_configuration(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
        let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml"));
        stem.is_some_and(|stem| stem == "pipeproof" || stem.ends_with(".pipeproof"))
    })
}

pub(super) fn test(options: &RuleFiles, format: Option<Format>) -> Result<(), Failure> {
    let set = read(&options.paths)?;
    if set.has_errors() {
        return Err(Failure::Usage(format!("the rules have errors:\n{}", rule_sets::problems(&set))));
    }
    let outcomes = run_tests_with(&set, Some(&crate::rules::InMemory));
    let skipped = outcomes.iter().filter(|outcome| outcome.skipped).count();
    let failed = outcomes.iter().filter(|outcome| !outcome.passed && !outcome.skipped).count();
    match show::format(format) {
        Format::Junit => show::line(&junit(&outcomes, failed))?,
        Format::Human => {
            for outcome in &outcomes {
                let mark = match outcome {
                    outcome if outcome.passed => "ok     ",
                    outcome if outcome.skipped => "skipped",
                    _ => "FAILED ",
                };
                show::plain(&format!("{mark} {}:{} {} / {}", outcome.file, outcome.line, outcome.title, outcome.name))?;
                if let Some(message) = &outcome.message {
                    show::plain(&format!("         {message}"))?;
                }
            }
            let passed = outcomes.len() - failed - skipped;
            show::plain(&format!("{passed} passed, {failed} failed, {skipped} skipped"))?;
        }
        Format::Json | Format::Jsonl | Format::Csv => {
            let rows: Vec<Value> = outcomes.iter().filter_map(|outcome| serde_json::to_value(outcome).ok()).collect();
            show::rows(&rows, &["passed", "skipped", "file", "line", "title", "name", "message"], format)?;
        }
    }
    if failed > 0 { Err(Failure::Found) } else { Ok(()) }
}

fn junit(outcomes: &[pipeproof_rules::TestOutcome], failed: usize) -> String {
    let escape = |text: &str| {
        show::visible(text, false)
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;")
    };
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"pipeproof rules\" tests=\"{}\" failures=\"{failed}\" skipped=\"{}\">\n",
        outcomes.len(),
        outcomes.iter().filter(|outcome| outcome.skipped).count()
    );
    for outcome in outcomes {
        xml.push_str(&format!(
            "  <testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\"",
            escape(&outcome.title),
            escape(&outcome.name),
            escape(&outcome.file),
            outcome.line
        ));
        match &outcome.message {
            Some(message) if outcome.skipped => {
                xml.push_str(&format!("><skipped message=\"{}\"/></testcase>\n", escape(message)));
            }
            Some(message) => xml.push_str(&format!("><failure message=\"{}\"/></testcase>\n", escape(message))),
            None => xml.push_str("/>\n"),
        }
    }
    xml.push_str("</testsuite>");
    xml
}
