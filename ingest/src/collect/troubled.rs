//! What of a collector cannot be had just now while the rest goes on: a repository that is gone, a feature that is off.
//!
//! It is kept among the cursors, so that the log says when it began and when it ended, and it is told with how the source does.
//! As long as it lasts nothing establishes that what is held of it is complete.

use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cursors::moved;
use super::{CollectError, Cursors, Page};

/// What the names of such streams begin with.
const PREFIX: &str = "troubled/";
/// What of an error is kept.
const ERROR_CHARS: usize = 500;

/// Why something is not had, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Troubled {
    /// Repository, project or job.
    pub member: String,
    /// What of it: `runs`, `deployments`, `logs`.
    pub what: String,
    /// Since when.
    pub since: Timestamp,
    /// In words.
    pub error: String,
}

impl Troubled {
    /// It, if this is the stream of one.
    #[must_use]
    pub fn of(stream: &str, cursor: &Value) -> Option<Self> {
        stream.strip_prefix(PREFIX)?;
        serde_json::from_value(cursor.clone()).ok()
    }
}

fn stream((what, member): (&str, &str)) -> String {
    format!("{PREFIX}{what}/{member}")
}

/// Something of a member cannot be had: it is written down once.
pub(super) fn begins(
    asked: (&str, &str),
    error: &CollectError,
    cursors: &Cursors,
    now: Timestamp,
    page: &mut Page,
) -> Result<(), CollectError> {
    let stream = stream(asked);
    if cursors.has(&stream) || page.cursors.iter().any(|(known, _)| *known == stream) {
        return Ok(());
    }
    let error = error.to_string().chars().take(ERROR_CHARS).collect();
    let (what, member) = (asked.0.to_owned(), asked.1.to_owned());
    page.cursors.push(moved(&stream, &Troubled { member, what, since: now, error })?);
    Ok(())
}

/// It can be had (again).
pub(super) fn over(asked: (&str, &str), cursors: &Cursors, page: &mut Page) {
    let stream = stream(asked);
    page.cursors.retain(|(known, _)| *known != stream);
    if cursors.has(&stream) {
        page.cursors.push((stream, Value::Null));
    }
}

/// Members that are not listed any more: what could not be had of them will not come.
pub(super) fn gone(members: &[String], cursors: &Cursors, page: &mut Page) {
    for (stream, cursor) in cursors.iter() {
        let Some(Troubled { member, what, since, error }) = Troubled::of(stream, cursor) else { continue };
        if !members.contains(&member) {
            page.lost.push(format!("{what} of {member} since {since}, which is not listed any more: {error}"));
            page.cursors.push((stream.to_owned(), Value::Null));
        }
    }
}
