//! Console logs of Jenkins builds and logs of Buildkite jobs: text.
//!
//! Sources: Jenkins (`Started by …`, `Running on … in …`, `Checking out Revision …`, `Finished: …`; a time in brackets with the
//! Timestamper plugin) and Buildkite's agent (`ESC _bk;t=MILLISECONDS BEL` before what was printed then).
//!
//! Who started a build, where it runs and what it checked out is read before its first step, and how it ended in the last line:
//! between them stands what the build printed, which may be anything.

use engine::fields::{Field, Fields};
use engine::record::Record;
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::github_joblog::{attribute, is_first, is_last, native, text};
use super::{Draft, Undecodable, outcome};

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let text = text(&record.body)?;
    let mut log = Draft::new("job.log", "job");
    let jenkins = record.envelope.source_type == SourceType::JenkinsJoblog;
    let fields = &mut log.fields;
    fields.text(Field::CiProvider, Some(if jenkins { "jenkins" } else { "buildkite" }));
    fields.text(Field::ActorType, Some("ci"));
    fields.text(Field::ActorId, attribute(record, "workflow").or_else(|| attribute(record, "repo")));
    fields.text(Field::CiRepo, attribute(record, "repo").filter(|_| !jenkins));
    fields.text(Field::CiRunId, attribute(record, "run_id"));
    fields.text(Field::CiJobId, attribute(record, "job_id"));
    fields.int(Field::CiAttempt, attribute(record, "attempt").and_then(|attempt| attempt.parse().ok()));
    fields.text(Field::CiRef, attribute(record, "ref"));
    fields.text(Field::CiSha, attribute(record, "sha"));
    fields.text(Field::CiWorkflow, attribute(record, "workflow").or_else(|| attribute(record, "repo")));
    fields.text(Field::Message, attribute(record, "name"));
    let mut own = jenkins && is_first(record);
    for line in text.lines() {
        log.time = log.time.or_else(|| if jenkins { in_brackets(line) } else { agent_time(line) });
        own = own && is_own(without_time(line));
        if own {
            console(&mut log.fields, without_time(line).trim());
        }
    }
    let last = text.lines().map(without_time).rfind(|line| !line.trim().is_empty());
    if let Some(result) = last.and_then(|line| line.strip_prefix("Finished: ")).filter(|_| jenkins && is_last(record)) {
        let result = result.trim();
        log.fields.text(Field::Outcome, Some(outcome(matches!(result, "SUCCESS" | "NOT_BUILT"))));
        log.fields.text(Field::Reason, Some(result.to_lowercase()));
    }
    log.native = Some(native(record, &text));
    Ok(vec![log])
}

/// Whether a line is still before what the build itself prints: Jenkins announces each step (`[Pipeline] sh`, `[folder] $ command`,
/// and `+ command` by the shell) before anything of it is printed.
fn is_own(line: &str) -> bool {
    const QUIET: &[&str] =
        &["Start of Pipeline", "node", "{", "stage", "timestamps", "timeout", "properties", "checkout", "git"];
    let line = line.trim_start();
    if let Some(step) = line.strip_prefix("[Pipeline] ") {
        // A stage is begun with its name: `{ (Build)`.
        let step = step.split(" (").next().unwrap_or(step).trim();
        return QUIET.contains(&step);
    }
    let command = line.starts_with('[') && line.split_once("] ").is_some_and(|(_, rest)| rest.starts_with("$ "));
    !command && !line.starts_with("+ ")
}

/// What Jenkins says of the build before its first step.
fn console(fields: &mut Fields, line: &str) {
    if let Some(user) = line.strip_prefix("Started by user ") {
        fields.text(Field::ActorId, Some(user));
        fields.text(Field::ActorType, Some("human"));
    } else if let Some((node, _)) = line.strip_prefix("Running on ").and_then(|rest| rest.split_once(" in ")) {
        if fields.get(Field::RunnerName).is_none() {
            fields.text(Field::RunnerName, Some(node));
            fields.text(Field::RunnerKind, Some("self-hosted"));
        }
    } else if let Some(rest) = line.strip_prefix("Checking out Revision ")
        && fields.get(Field::CiSha).is_none()
    {
        fields.text(Field::CiSha, rest.split_whitespace().next());
    }
}

/// `[2026-11-26T10:00:00.123Z] text`.
fn in_brackets(line: &str) -> Option<Timestamp> {
    let (stamp, _) = line.strip_prefix('[')?.split_once(']')?;
    Timestamp::parse(stamp).filter(|_| stamp.len() >= 19)
}

fn without_time(line: &str) -> &str {
    if in_brackets(line).is_none() {
        return line;
    }
    line.split_once(']').map_or(line, |(_, rest)| rest.strip_prefix(' ').unwrap_or(rest))
}

fn agent_time(line: &str) -> Option<Timestamp> {
    let (_, rest) = line.split_once("\u{1b}_bk;t=")?;
    let (millis, _) = rest.split_once('\u{7}')?;
    millis.parse().ok().filter(|millis| (1..100_000_000_000_000).contains(millis)).map(Timestamp::from_millis)
}
