//! Which folders of a bucket are looked at: those of days on which something may still be stored. A provider's service writes
//! to folders of its own, and only those of the source's type are entered.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde_json::Value;

use super::super::{CollectError, Cursors};
use super::Wanted;
use crate::objects::keys;
use crate::objects::opened::Bucket;
use crate::objects::seen::{LATE_MAX, Span, is_over, span};

/// How often folders are looked for at least: every fifth time that objects are. What is new today is in folders that are known, or that began with the day.
const FIND_EVERY: Duration = Duration::from_secs(10 * 60);
/// How long after midnight new folders are looked for each time.
const NEW_DAY: Duration = Duration::from_secs(20 * 60);
/// Most folders.
const FOLDERS_MAX: usize = 5_000;

/// A folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Folder {
    /// Its path, with a slash at its end; empty for the bucket itself.
    pub(super) path: String,
    /// Folders in it are part of it.
    pub(super) deep: bool,
}

/// The folders that are known.
#[derive(Debug, Default)]
pub(super) struct Folders {
    objects: BTreeSet<Folder>,
    digests: BTreeSet<String>,
    found: Option<Timestamp>,
    /// Old days are looked at when folders are looked for.
    fresh: bool,
}

impl Folders {
    /// Looks for folders if it is time, and gives the streams that are over.
    pub(super) async fn find(
        &mut self,
        bucket: &Bucket,
        wanted: &Wanted,
        begin: Timestamp,
        now: Timestamp,
        cursors: &Cursors,
    ) -> Result<Vec<(String, Value)>, CollectError> {
        let midnight = now.micros_since(Timestamp::from_secs(0)).rem_euclid(86_400_000_000);
        let due = self.found.is_none_or(|found| {
            found.plus((wanted.every * 5).min(FIND_EVERY).max(wanted.every)) <= now
                || midnight < i64::try_from(NEW_DAY.as_micros()).unwrap_or(0)
        });
        self.fresh = due;
        if !due {
            return Ok(Vec::new());
        }
        let mut found = Self { found: Some(now), fresh: true, ..Self::default() };
        // Something that happened on the day before is stored on the day on which we begin.
        let from = begin.minus(LATE_MAX);
        let roots = if wanted.prefixes.is_empty() { vec![String::new()] } else { wanted.prefixes.clone() };
        let mut open: VecDeque<String> = roots.into();
        let mut looked = 0;
        while let Some(path) = open.pop_front() {
            if !is_own(&path, wanted.source_type, wanted.keys.is_some())
                || is_done(&path, wanted.source_type, from, now)
            {
                continue;
            }
            let digest = is_digest(&path);
            if wanted.flat || span(&path).is_some_and(|span| span >= leaf(wanted.source_type)) {
                if digest {
                    found.digests.insert(path);
                } else {
                    found.objects.insert(Folder { path, deep: true });
                }
                continue;
            }
            if !keys::is_folder(&path) {
                found.objects.insert(Folder { path, deep: true });
                continue;
            }
            looked += 1;
            if looked > FOLDERS_MAX {
                let problem = format!("there are more than {FOLDERS_MAX} folders: name prefixes, or set layout: flat");
                return Err(CollectError::Content { asked: bucket.name.clone(), problem });
            }
            let (objects, folders) = bucket.look(&path).await?;
            open.extend(folders);
            if !objects.is_empty() && !digest {
                found.objects.insert(Folder { path, deep: false });
            }
        }
        let over = |stream: &str| {
            let folder = stream.strip_prefix("folder:").or_else(|| stream.strip_prefix("digests:"));
            folder.is_some_and(|folder| is_done(folder, wanted.source_type, from, now))
        };
        let over =
            cursors.iter().filter(|(stream, _)| over(stream)).map(|(stream, _)| (stream.to_owned(), Value::Null));
        let over = over.collect();
        *self = found;
        Ok(over)
    }

    /// Folders to look at in a round: old days less often.
    pub(super) fn objects(&self, now: Timestamp) -> VecDeque<Folder> {
        // A day that ended a while ago.
        let old = |folder: &Folder| is_over(&folder.path, now.minus(LATE_MAX), now.plus(LATE_MAX - NEW_DAY));
        self.objects.iter().filter(|folder| self.fresh || !old(folder)).cloned().collect()
    }

    pub(super) fn digests(&self) -> VecDeque<String> {
        self.digests.iter().cloned().collect()
    }
}

/// The last part of a layout that names a span: what is below is one folder.
const fn leaf(source_type: SourceType) -> Span {
    match source_type {
        // Documented as `YYYY/MM/HH/MM`: what looks like a day may be an hour of any day.
        SourceType::GithubAudit => Span::Month,
        _ => Span::Day,
    }
}

fn is_done(path: &str, source_type: SourceType, from: Timestamp, now: Timestamp) -> bool {
    span(path).is_some_and(|span| span <= leaf(source_type)) && is_over(path, from, now)
}

/// Whether a folder holds CloudTrail's digests.
pub(super) fn is_digest(path: &str) -> bool {
    path.split('/').any(|part| part == "CloudTrail-Digest")
}

/// Whether a folder or object may be one of the source's type; `digests`: those are wanted, too.
pub(super) fn is_own(path: &str, source_type: SourceType, digests: bool) -> bool {
    if source_type != SourceType::AwsCloudtrail {
        return true;
    }
    if is_digest(path) && !digests {
        return false;
    }
    // `AWSLogs/[o-ORGANISATION/]ACCOUNT/SERVICE/…`, perhaps below a prefix.
    let mut parts = path.split('/').skip_while(|part| *part != "AWSLogs").skip(1).filter(|part| !part.is_empty());
    let is_account = |part: &str| part.starts_with("o-") || part.bytes().all(|byte| byte.is_ascii_digit());
    parts.find(|part| !is_account(part)).is_none_or(|service| service.starts_with("CloudTrail"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_the_service_are_entered() {
        for (path, own) in [
            ("", true),
            ("org/AWSLogs/", true),
            ("AWSLogs/o-abc/111122223333/", true),
            ("AWSLogs/111122223333/CloudTrail/eu-central-1/2026/", true),
            ("AWSLogs/111122223333/CloudTrail-Insight/", true),
            ("AWSLogs/111122223333/CloudTrail-Digest/eu-central-1/", true),
            ("AWSLogs/111122223333/Config/", false),
            ("AWSLogs/o-abc/111122223333/vpcflowlogs/", false),
        ] {
            assert_eq!(is_own(path, SourceType::AwsCloudtrail, true), own, "{path}");
        }
        assert!(!is_own("AWSLogs/1/CloudTrail-Digest/x/", SourceType::AwsCloudtrail, false));
        assert!(is_own("AWSLogs/1/Config/", SourceType::Json, true));
    }
}
