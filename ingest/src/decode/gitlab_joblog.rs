//! GitLab job traces: text that the runner writes, with escape sequences and marks of sections.
//!
//! Source: GitLab "Job logs", gitlab-runner `helpers/trace` and traces themselves. Lines have a time only with
//! `FF_TIMESTAMPS` (`2024-05-22T12:43:46.962646Z 00O text`, `+` marks a continuation); sections always do
//! (`section_start:1560896352:name`).
//!
//! Runner, commit and images are read before the job's script, and how the job ended in the last line: between them stands
//! what the job printed, which may be anything, marks of sections too.

use engine::fields::{Field, Fields};
use engine::record::Record;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::github_joblog::{attribute, is_first, is_last, native, text};
use super::{DERIVED_MAX, Draft, ORIGIN, Undecodable, images, outcome};

/// Longest mark of a section: prefix, seconds, a name and its options.
const SECTION_BYTES_MAX: usize = 512;
/// How the line begins that says which image a container is started from.
const USING_IMAGE: &str = "Using docker image ";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let text = text(&record.body)?;
    let mut log = Draft::new("job.log", "job");
    job(&mut log.fields, record);
    let mut resolved = Vec::new();
    let mut time = None;
    let mut words = if is_first(record) { Words::Runners } else { Words::Jobs };
    // A section's mark is followed by a carriage return and the line that is shown.
    for part in text.split(['\n', '\r']) {
        let (stamp, line) = split_stamp(part);
        let line = without_escapes(line);
        time = stamp.or_else(|| section(&line)).or(time);
        log.time = log.time.or(time);
        let line = line.trim();
        words = words.after(line);
        if words == Words::Runners {
            header(&mut log.fields, line);
        }
        if words != Words::Jobs
            && let Some((image, digest)) = image(line).filter(|_| resolved.len() < DERIVED_MAX)
        {
            resolved.push((time, image.to_owned(), digest.to_owned()));
        }
        if words == Words::Image && line.starts_with(USING_IMAGE) {
            // Now the container starts, and its entry point may print.
            words = Words::Jobs;
        }
    }
    if is_last(record) {
        let lines = text.rsplit(['\n', '\r']).map(|part| without_escapes(split_stamp(part).1));
        if let Some(line) = lines.map(|line| line.trim().to_owned()).find(|line| !line.is_empty()) {
            end(&mut log.fields, &line);
        }
    }
    log.native = Some(native(record, &text));
    let mut drafts: Vec<Draft> = resolved
        .into_iter()
        .map(|(time, image, digest)| {
            let mut draft = log.derive(ORIGIN, "image.resolved", "job");
            draft.time = time.or(draft.time);
            draft.fields.text(Field::ArtifactRepo, Some(images::parse(&image).repo));
            draft.fields.text(Field::ArtifactName, Some(image));
            draft.fields.text(Field::ArtifactDigest, Some(digest));
            draft
        })
        .collect();
    drafts.insert(0, log);
    Ok(drafts)
}

/// Whose words a line is among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// The runner prepares: nothing of the job's has run yet.
    Runners,
    /// The section of the script has begun: the runner says which image it uses, if it says it, before anything else.
    Image,
    /// Whatever the job, its hooks or its services print.
    Jobs,
}

impl Words {
    /// Whose words a line is, behind others: every command of a script is echoed (`$ make`) before it runs.
    fn after(self, line: &str) -> Self {
        const SCRIPTS: &[&str] = &["step_script", "build_script", "after_script"];
        if self == Self::Jobs || line.starts_with("$ ") {
            return Self::Jobs;
        }
        let begun = line.strip_prefix("section_start:").and_then(|rest| rest.split_once(':'));
        // Options in brackets may follow the name.
        let name = begun.and_then(|(_, name)| name.split('[').next());
        match self {
            _ if name.is_some_and(|name| SCRIPTS.contains(&name) || name.starts_with("step_")) => Self::Image,
            // Of a service that does not start, the runner shows what it logged.
            Self::Runners if line.starts_with("*** WARNING: Service") || line.starts_with("Service container logs") => {
                Self::Jobs
            }
            Self::Image if !(line.is_empty() || line.starts_with("Executing \"") || line.starts_with("Using ")) => {
                Self::Jobs
            }
            same => same,
        }
    }
}

fn job(fields: &mut Fields, record: &Record) {
    fields.text(Field::CiProvider, Some("gitlab"));
    fields.text(Field::ActorType, Some("ci"));
    fields.text(Field::ActorId, attribute(record, "repo"));
    fields.text(Field::CiRepo, attribute(record, "repo"));
    fields.text(Field::CiRunId, attribute(record, "run_id"));
    fields.text(Field::CiJobId, attribute(record, "job_id"));
    fields.text(Field::CiRef, attribute(record, "ref"));
    fields.text(Field::CiSha, attribute(record, "sha"));
    fields.text(Field::CiWorkflow, attribute(record, "workflow"));
    fields.text(Field::Message, attribute(record, "name"));
}

/// The time of a line and what follows its stream mark; the line as it is where it has none.
fn split_stamp(line: &str) -> (Option<Timestamp>, &str) {
    // Early versions padded the stream mark with NUL.
    let stamped =
        line.split_once("Z ").filter(|(stamp, _)| stamp.len() <= 29 && stamp.as_bytes().get(10) == Some(&b'T'));
    let Some((time, rest)) = stamped.and_then(|(stamp, rest)| Some((Timestamp::parse(stamp)?, rest))) else {
        return (None, line);
    };
    let mark = rest.get(..3).filter(|mark| mark.ends_with(['O', 'E']) || mark.contains('\0'));
    let rest = mark.and_then(|_| rest.get(3..)).unwrap_or(rest);
    (Some(time), rest.strip_prefix('+').unwrap_or(rest).trim_start_matches(' '))
}

/// When a section began or ended.
fn section(line: &str) -> Option<Timestamp> {
    let rest = line.strip_prefix("section_start:").or_else(|| line.strip_prefix("section_end:"))?;
    let (secs, _) = rest.split_once(':').filter(|_| rest.len() <= SECTION_BYTES_MAX)?;
    secs.parse().ok().filter(|secs| (1..100_000_000_000).contains(secs)).map(Timestamp::from_secs)
}

/// The text without ANSI escape sequences (`ESC [ … letter`).
fn without_escapes(line: &str) -> std::borrow::Cow<'_, str> {
    if !line.contains('\u{1b}') {
        return line.into();
    }
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((plain, tail)) = rest.split_once('\u{1b}') {
        out.push_str(plain);
        let tail = tail.strip_prefix('[').unwrap_or(tail);
        let end = tail.find(|char: char| char.is_ascii_alphabetic());
        rest = end.and_then(|end| tail.get(end + 1..)).unwrap_or_default();
    }
    out.push_str(rest);
    out.into()
}

/// What the runner says of itself and the commit.
fn header(fields: &mut Fields, line: &str) {
    if let Some(name) = line.strip_prefix("on ").filter(|_| fields.get(Field::RunnerName).is_none()) {
        // `on NAME TOKENSTART, system ID: ID`; names may hold blanks.
        let (name, _) = name.split_once(", system ID:").unwrap_or((name, ""));
        let name = name.rsplit_once(' ').map_or(name, |(name, _)| name);
        let hosted = name.contains(".gitlab.com") || name.contains(".saas-");
        fields.text(Field::RunnerName, Some(name));
        fields.text(Field::RunnerKind, Some(if hosted { "gitlab-hosted" } else { "self-hosted" }));
    } else if let Some(version) = line.strip_prefix("Running with ") {
        if fields.get(Field::UserAgent).is_none() {
            fields.text(Field::UserAgent, version.split(" (").next());
        }
    } else if let Some(rest) = line.strip_prefix("Checking out ") {
        // The commit is cut to eight digits: better than none, worse than what came with the log.
        if fields.get(Field::CiSha).is_none() {
            fields.text(Field::CiSha, rest.split_whitespace().next());
        }
    }
}

/// How the job ended: the last line, which the runner writes.
fn end(fields: &mut Fields, line: &str) {
    if line == "Job succeeded" {
        fields.text(Field::Outcome, Some(outcome(true)));
    } else if let Some(reason) = line.strip_prefix("ERROR: Job failed") {
        fields.text(Field::Outcome, Some(outcome(false)));
        let reason = reason.trim_start_matches([':', ' ']);
        fields.text(Field::Reason, Some(reason).filter(|reason| !reason.is_empty()).or(Some("failed")));
    }
}

/// `Using docker image sha256:… for NAME with digest REPO@sha256:… ...`: which image a name resolved to.
fn image(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix(USING_IMAGE)?;
    let (_, rest) = rest.split_once(" for ")?;
    let (name, rest) = rest.split_once(" with digest ")?;
    let digest = images::parse(rest.split_whitespace().next()?).digest?;
    Some((name, digest))
}
