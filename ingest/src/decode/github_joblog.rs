//! GitHub Actions job logs: text, whose header says more than any API (token permissions, and which commit each action
//! resolved to).
//!
//! Token permissions, secret source, runner and actions stand in the first step, "Set up job", which the runner writes. What looks the same
//! further down was printed by the job, which may print anything.
//!
//! Source: logs themselves; a line is `2026-06-21T05:34:27.7289936Z ` and text, continuation lines may lack the stamp.

use bytes::Bytes;
use engine::fields::{Field, Fields};
use engine::record::Record;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::{DERIVED_MAX, Draft, ORIGIN, Undecodable, images, leave_out};
use crate::receive::{CHUNK, CHUNKS};

/// Permissions of a token at most.
const PERMISSIONS_MAX: usize = 64;
/// Lines of the group of a package at most.
const PACKAGE_LINES_MAX: usize = 8;

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let text = text(&record.body)?;
    let mut log = Draft::new("job.log", "job");
    job(&mut log.fields, record);
    let mut derived = Vec::new();
    let mut secrets = None;
    let mut time = None;
    let mut left_out = 0;
    // A log is cut into chunks; the runner's own words are in the first.
    let mut setting_up = is_first(record);
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    while let Some(line) = lines.next() {
        let (stamp, line) = split_stamp(line);
        time = stamp.or(time);
        log.time = log.time.or(time);
        if derived.len() >= DERIVED_MAX {
            left_out += usize::from(cache(line).is_some());
            continue;
        }
        if let Some((action, key)) = cache(line) {
            derived.push((time, Found::Cache(action, key.to_owned())));
        }
        if !setting_up {
            continue;
        }
        if let Some(reference) = line.strip_prefix("Download action repository '") {
            derived.extend(action(reference).map(|found| (time, Found::Action(found))));
        } else if let Some(reference) = line.strip_prefix("##[group]Download immutable action package '") {
            derived.extend(package(reference, &mut lines).map(|found| (time, Found::Action(found))));
        } else if line == "##[group]GITHUB_TOKEN Permissions" {
            derived.push((time, Found::Token(permissions(&mut lines))));
        } else if let Some(source) = line.strip_prefix("Secret source: ") {
            // Actions, Dependabot, Codespaces or None: whose secrets the job may read.
            secrets = Some(format!("github.{}", source.trim().to_lowercase()));
        } else if let Some(job) = line.strip_prefix("Complete job name: ") {
            log.fields.text(Field::Message, Some(job));
            setting_up = false;
        } else if line.starts_with("##[group]Run ") {
            setting_up = false;
        } else if let Some(name) = line.strip_prefix("Runner name: ") {
            log.fields.text(Field::RunnerName, Some(name.trim_matches('\'')));
        } else if let Some(group) = line.strip_prefix("Runner group name: ") {
            let hosted = group.trim_matches('\'') == "GitHub Actions";
            log.fields.text(Field::RunnerKind, Some(if hosted { "github-hosted" } else { "self-hosted" }));
        } else if line == "Hosted Compute Agent" {
            log.fields.text(Field::RunnerKind, Some("github-hosted"));
        }
    }
    log.native = Some(native(record, &text));
    let mut drafts = vec![];
    for (time, found) in derived {
        let mut draft = match found {
            Found::Action(found) => {
                let mut draft = log.derive(ORIGIN, "action.resolved", "job");
                draft.fields.text(Field::ActionRef, Some(found.reference));
                draft.fields.text(Field::ActionSha, Some(found.sha));
                draft.fields.text(Field::ArtifactDigest, found.digest);
                draft
            }
            Found::Token(permissions) => token(&log, &permissions),
            Found::Cache(action, key) => {
                let mut draft = log.derive(ORIGIN, action, "job");
                draft.fields.text(Field::ConfigObject, Some("cache"));
                draft.fields.text(Field::ConfigId, Some(key));
                draft
            }
        };
        draft.time = time.or(draft.time);
        drafts.push(draft);
    }
    log.fields.text(Field::SecretStore, secrets);
    drafts.insert(0, log);
    leave_out(&mut drafts, left_out);
    Ok(drafts)
}

/// Whether a log begins with this chunk.
pub(super) fn is_first(record: &Record) -> bool {
    record.envelope.attributes.get(CHUNK).is_none_or(|chunk| chunk == "0")
}

/// Whether a log ends with this chunk.
pub(super) fn is_last(record: &Record) -> bool {
    let number = |name: &str| record.envelope.attributes.get(name)?.parse::<u64>().ok();
    number(CHUNKS).is_none_or(|count| number(CHUNK).is_none_or(|chunk| chunk + 1 >= count))
}

enum Found {
    Action(Action),
    Token(Vec<(String, String)>),
    Cache(&'static str, String),
}

/// An action that the runner downloaded.
struct Action {
    /// `owner/repo@ref`.
    reference: String,
    /// The commit that is.
    sha: String,
    /// Digest of the package it was published as, if it was.
    digest: Option<String>,
}

/// What actions/cache and those built on it print of a cache: the key says which.
fn cache(line: &str) -> Option<(&'static str, &str)> {
    const FORMS: &[(&str, &str)] = &[
        ("Cache restored from key: ", "cache.restored"),
        ("Cache saved with key: ", "cache.saved"),
        ("Cache not found for input keys: ", "cache.missed"),
    ];
    FORMS.iter().find_map(|(start, action)| Some((*action, line.strip_prefix(start)?.trim())))
}

/// The text of a chunk. A stray byte is shown as such; what is mostly not text is none.
pub(super) fn text(body: &[u8]) -> Result<std::borrow::Cow<'_, str>, Undecodable> {
    let text = String::from_utf8_lossy(body);
    let strange = text.chars().filter(|char| matches!(char, '\u{fffd}' | '\0')).count();
    if strange * 20 > body.len() { Err(Undecodable::Text) } else { Ok(text) }
}

fn split_stamp(line: &str) -> (Option<Timestamp>, &str) {
    let stamped = line.split_once("Z ").or_else(|| line.strip_suffix('Z').map(|stamp| (stamp, "")));
    match stamped.filter(|(stamp, _)| (19..=29).contains(&stamp.len()) && stamp.as_bytes().get(10) == Some(&b'T')) {
        Some((stamp, rest)) => match Timestamp::parse(stamp) {
            Some(time) => (Some(time), rest),
            None => (None, line),
        },
        None => (None, line),
    }
}

/// `owner/repo@ref' (SHA:…)`.
fn action(reference: &str) -> Option<Action> {
    let (action, rest) = reference.split_once('\'')?;
    let sha = rest.trim().strip_prefix("(SHA:")?.strip_suffix(')')?;
    Some(Action { reference: action.to_owned(), sha: sha.to_owned(), digest: None })
}

/// `owner/repo@ref'` and the lines of its group: of an action that is published as an immutable package the runner says
/// version, digest and commit, a line each.
fn package(reference: &str, lines: &mut std::str::Lines<'_>) -> Option<Action> {
    let (action, _) = reference.split_once('\'')?;
    let (mut sha, mut digest) = (None, None);
    for _ in 0..PACKAGE_LINES_MAX {
        // A line that is none of the group's is left to whoever reads on.
        let line = lines.clone().next().map(|line| split_stamp(line).1.trim())?;
        if let Some(commit) = line.strip_prefix("Source commit SHA: ") {
            sha = Some(commit.to_owned());
        } else if let Some(found) = line.strip_prefix("Digest: ") {
            digest = Some(found.to_owned()).filter(|found| images::is_digest(found));
        } else if !line.starts_with("Version: ") {
            break;
        }
        lines.next();
    }
    Some(Action { reference: action.to_owned(), sha: sha?, digest })
}

/// `Name: level`, where the level is one there is.
fn permission(line: &str) -> Option<(&str, &str)> {
    let (name, level) = split_stamp(line).1.split_once(": ")?;
    let level = level.trim();
    matches!(level, "read" | "write" | "none" | "admin").then_some((name, level))
}

/// `Name: level` up to the end of the group, names as the workflow syntax writes them.
fn permissions(lines: &mut std::str::Lines<'_>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    // A line that is none of the group's is left to whoever reads on.
    while let Some((name, level)) = lines.clone().next().and_then(permission)
        && found.len() < PERMISSIONS_MAX
    {
        lines.next();
        // `PullRequests` in the log is `pull-requests` in the workflow.
        let mut key = String::new();
        for char in name.chars() {
            if char.is_ascii_uppercase() && !key.is_empty() {
                key.push('-');
            }
            key.push(char.to_ascii_lowercase());
        }
        found.push((key, level.to_owned()));
    }
    found
}

/// The job's `GITHUB_TOKEN`: issued with these permissions.
fn token(log: &Draft, permissions: &[(String, String)]) -> Draft {
    let mut draft = log.derive(ORIGIN, "token.issued", "token");
    let fields = &mut draft.fields;
    let part = |field| log.fields.get(field).map(ToString::to_string).unwrap_or_default();
    let (run, job, attempt) = (part(Field::CiRunId), part(Field::CiJobId), part(Field::CiAttempt));
    if !run.is_empty() {
        fields.text(Field::TokenId, Some(format!("GITHUB_TOKEN:{run}:{job}:{attempt}")));
    }
    fields.text(Field::TokenKind, Some("app"));
    fields.text(Field::TokenIssuer, Some("github-actions"));
    fields.text(Field::TokenRepo, log.fields.get_text(Field::CiRepo));
    fields.text(Field::TokenRef, log.fields.get_text(Field::CiRef));
    let write: Vec<&str> =
        permissions.iter().filter(|(_, level)| level == "write").map(|(name, _)| name.as_str()).collect();
    fields.text(Field::ConfigAttribute, Some(write.join(",")));
    let all: Vec<String> = permissions.iter().map(|(name, level)| format!("{name}={level}")).collect();
    fields.text(Field::ConfigValue, Some(all.join(",")));
    draft
}

pub(super) fn attribute<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    record.envelope.attributes.get(&format!("joblog.{name}")).map(String::as_str)
}

fn job(fields: &mut Fields, record: &Record) {
    fields.text(Field::CiProvider, Some("github"));
    fields.text(Field::ActorType, Some("ci"));
    fields.text(Field::ActorId, attribute(record, "repo"));
    fields.text(Field::CiRepo, attribute(record, "repo"));
    fields.text(Field::CiRunId, attribute(record, "run_id"));
    fields.text(Field::CiJobId, attribute(record, "job_id"));
    fields.int(Field::CiAttempt, Some(attribute(record, "attempt").and_then(|text| text.parse().ok()).unwrap_or(1)));
    fields.text(Field::CiRef, attribute(record, "ref"));
    fields.text(Field::CiSha, attribute(record, "sha"));
    fields.text(Field::CiWorkflow, attribute(record, "workflow"));
    fields.text(Field::Message, attribute(record, "name"));
}

pub(super) fn native(record: &Record, text: &str) -> Bytes {
    let mut object = serde_json::Map::new();
    for (name, value) in &record.envelope.attributes {
        if let Some(name) = name.strip_prefix("joblog.") {
            object.insert(name.to_owned(), value.as_str().into());
        }
    }
    object.insert("log".to_owned(), text.into());
    Bytes::from(serde_json::Value::Object(object).to_string())
}
