//! SARIF 2.1.0 logs of static analysis.
//!
//! Source: OASIS SARIF 2.1.0. Each run is an event with its results behind it. A run says when it was only in
//! `invocations`, which most tools leave out; where it comes from is `versionControlProvenance`.

use engine::fields::Field;
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::scan::{self, Finding};
use super::{DERIVED_MAX, Draft, Undecodable, git_remote, leave_out, object, outcome, scalar, time_at};

const EXPECTED: &str = "a SARIF log";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let shape = |problem| Undecodable::Shape { expected: EXPECTED, problem };
    let runs = root.get("runs").filter(|runs| runs.is_array()).ok_or_else(|| shape("it has no list `runs`"))?;
    if !root.str_at(&["version"]).is_some_and(|version| version.starts_with("2.")) {
        return Err(shape("its `version` is not 2"));
    }
    let mut drafts: Vec<Draft> = Vec::new();
    let mut left_out = 0;
    for one in runs.items() {
        let results = one.get("results");
        if results.is_some_and(|results| !results.is_array() && !results.is_null()) {
            return Err(shape("the `results` of a run are not a list"));
        }
        if drafts.len() >= DERIVED_MAX {
            left_out += 1 + results.into_iter().flat_map(Value::items).filter(|result| counts(*result)).count();
            continue;
        }
        drafts.extend(run(one));
    }
    leave_out(&mut drafts, left_out);
    if drafts.is_empty() {
        // A log without a run: something was asked and nothing analysed.
        drafts.push(scan::report("unnamed tool", None));
    }
    Ok(drafts)
}

fn run(run: Value<'_>) -> Vec<Draft> {
    let driver = run.at(&["tool", "driver"]).unwrap_or(run);
    let name = driver.str_at(&["name"]).filter(|name| !name.is_empty()).unwrap_or("unnamed tool");
    let version = driver.str_at(&["semanticVersion"]).or_else(|| driver.str_at(&["version"]));
    let mut report = scan::report(name, version);
    let invocation = run.get("invocations").and_then(|list| list.items().next());
    if let Some(invocation) = invocation {
        report.time = time_at(invocation, &["endTimeUtc"]).or_else(|| time_at(invocation, &["startTimeUtc"]));
        let done = invocation.get("executionSuccessful").and_then(Value::as_bool);
        report.fields.text(Field::Outcome, Some(outcome(done != Some(false))));
    }
    if let Some(source) = run.get("versionControlProvenance").and_then(|list| list.items().next()) {
        report.fields.text(Field::CiRepo, source.str_at(&["repositoryUri"]).and_then(git_remote::repo));
        report.fields.text(Field::CiSha, source.str_at(&["revisionId"]));
        report.fields.text(Field::CiRef, source.str_at(&["branch"]).map(|name| git_remote::full_ref(name, false)));
    }
    let results = run.get("results").into_iter().flat_map(Value::items);
    let findings: Vec<Finding<'_>> =
        results.filter(|result| counts(*result)).map(|result| finding(run, result)).collect();
    let total = findings.len();
    scan::with_findings(report, findings, total)
}

/// A result that passed, does not apply, was there before and is gone, or that somebody suppressed, is none.
fn counts(result: Value<'_>) -> bool {
    let kind = result.str_at(&["kind"]).unwrap_or("fail");
    let mut suppressed = result.get("suppressions").into_iter().flat_map(Value::items);
    matches!(kind, "fail" | "review" | "open")
        && result.str_at(&["baselineState"]) != Some("absent")
        && !suppressed.any(|one| matches!(one.str_at(&["status"]), None | Some("accepted")))
}

fn finding<'a>(run: Value<'a>, result: Value<'a>) -> Finding<'a> {
    let rule = rule(run, result);
    let id = result.str_at(&["ruleId"]).or_else(|| result.str_at(&["rule", "id"])).or_else(|| rule?.str_at(&["id"]));
    let location = result.get("locations").and_then(|list| list.items().next()?.get("physicalLocation"));
    let file = location.and_then(|location| location.get("artifactLocation")).and_then(|file| {
        let indexed = || {
            let index = file.get("index")?.as_u64()?;
            run.get("artifacts")?.items().nth(usize::try_from(index).ok()?)?.str_at(&["location", "uri"])
        };
        file.str_at(&["uri"]).or_else(indexed)
    });
    let line = location.and_then(|location| location.at(&["region", "startLine"])?.as_i64());
    let message = result.str_at(&["message", "text"]);
    let tags = rule.and_then(|rule| rule.at(&["properties", "tags"]));
    let is = |word: &str| tags.is_some_and(|tags| tags.items().any(|tag| tag.as_str() == Some(word)));
    let kind = if is("vulnerability") || id.is_some_and(|id| id.starts_with("CVE-") || id.starts_with("GHSA-")) {
        "vulnerability"
    } else if is("misconfiguration") {
        "misconfiguration"
    } else if is("secret") || run.str_at(&["tool", "driver", "name"]) == Some("gitleaks") {
        "secret"
    } else {
        "code"
    };
    Finding {
        kind,
        rule: id,
        severity: severity(rule, result),
        location: scan::place(file, line),
        message,
        reason: None,
    }
}

/// The rule of a result, by index or by id; beside the driver's there are those of its extensions.
fn rule<'a>(run: Value<'a>, result: Value<'a>) -> Option<Value<'a>> {
    let extension = result.at(&["rule", "toolComponent", "index"]).and_then(Value::as_u64);
    let component = match extension {
        Some(index) => run.at(&["tool", "extensions"])?.items().nth(usize::try_from(index).ok()?)?,
        None => run.at(&["tool", "driver"])?,
    };
    let index = result.get("ruleIndex").or_else(|| result.at(&["rule", "index"])).and_then(Value::as_u64);
    let rules = component.get("rules")?;
    match index.and_then(|index| usize::try_from(index).ok()) {
        Some(index) => rules.items().nth(index),
        None => {
            let id = result.str_at(&["ruleId"])?;
            rules.items().find(|rule| rule.str_at(&["id"]) == Some(id))
        }
    }
}

/// GitHub's convention for security results is a CVSS score as text; otherwise the level says it.
fn severity(rule: Option<Value<'_>>, result: Value<'_>) -> &'static str {
    let score = |value: Value<'_>| scalar(value, &["properties", "security-severity"])?.parse::<f64>().ok();
    if let Some(score) = score(result).or_else(|| score(rule?)) {
        return scan::by_score(score);
    }
    let level = result.str_at(&["level"]).or_else(|| rule?.str_at(&["defaultConfiguration", "level"]));
    // Without a level, the specification says `warning`.
    scan::severity(Some(level.unwrap_or("warning")))
}
