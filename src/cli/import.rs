//! `pipeproof import`: files and folders sent to a source as history, and what became of them. What was sent is counted in the files
//! ([`count`]), what became of it where it ended up; an import in which the two differ fails.

mod count;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use pipeproof_engine::source::SourceType;
use pipeproof_ingest::receive::parts;
use serde_json::{Value, json};

use super::arguments::{Format, ImportOptions};
use super::{Failure, show};
use crate::client::{Client, ClientError, Place};

/// Largest file once it is decompressed.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// About how large a request is, bytes.
const BODY_BYTES: usize = 4 << 20;
/// Most values of a request.
const BODY_VALUES: usize = 10_000;
/// How often a request is repeated that the server cannot take just now, and how long is waited in between.
const TRIES: u32 = 60;
const WAIT: Duration = Duration::from_secs(1);

pub(super) async fn import(options: &ImportOptions, place: &Place, format: Option<Format>) -> Result<(), Failure> {
    let mut files = Vec::new();
    for path in &options.files {
        gather(path, &mut files)?;
    }
    files.sort();
    let client = Client::connect(place).await?;
    let done = send_all(&client, &options.source, &files).await;
    client.close().await?;
    let account = done?;
    show::object(&account.shown(&options.source), format)?;
    account.adds_up()
}

/// What was sent, and what the server says of it.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Items counted in the files.
    sent: u64,
    /// Records that the server wrote of them.
    taken: u64,
    /// Of these, records that the lake holds as events.
    accepted: u64,
    /// Repetitions.
    duplicates: u64,
    /// Records that could not be decoded.
    dead_letters: u64,
}

impl Account {
    fn shown(self, source: &str) -> Value {
        json!({
            "source": source,
            "sent": self.sent,
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "dead_letters": self.dead_letters,
        })
    }

    fn adds_up(self) -> Result<(), Failure> {
        let Self { sent, taken, accepted, duplicates, dead_letters } = self;
        if sent == accepted + duplicates + dead_letters {
            return Ok(());
        }
        Err(Failure::Other(format!(
            "the import does not add up: the files hold {sent} items, the server wrote {taken} records, and of these {accepted} are \
             events, {duplicates} repetitions and {dead_letters} dead letters; look at the server's log, and import the files \
             again: what is there is recognised"
        )))
    }
}

/// Every file of a folder, at any depth.
fn gather(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |source| Failure::Client(ClientError::File { path: path.to_owned(), source });
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // A link may lead back to where it stands.
        if !entry.file_type().map_err(failed)?.is_symlink() {
            gather(&entry.path(), files)?;
        }
    }
    Ok(())
}

async fn send_all(client: &Client, source: &str, files: &[PathBuf]) -> Result<Account, ClientError> {
    let kind = source_type(client, source).await?.unwrap_or(SourceType::Json);
    let is_text = kind.info().free_text;
    let bar = progress(files);
    let mut account = Account::default();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for path in files {
        bar.set_message(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let whole = read(path).map_err(|source| ClientError::File { path: path.clone(), source })?;
        if !is_text {
            account.sent += count::items(kind, &whole);
        }
        let bodies = if is_text { vec![whole] } else { parts(&whole, BODY_BYTES, BODY_VALUES) };
        for body in bodies.into_iter().filter(|body| !body.trim_ascii().is_empty()) {
            let answer = send(client, source, &body).await?;
            let taken = answer.get("accepted").and_then(Value::as_u64).unwrap_or(0);
            account.taken += taken;
            // In how many pieces a log is kept shows once its secrets are out, and it is one at least.
            account.sent += if is_text { taken.max(1) } else { 0 };
            ranges.extend(range(&answer));
        }
        bar.inc(path.metadata().map_or(0, |about| about.len()));
    }
    bar.finish_and_clear();
    outcome(client, source, &ranges, &mut account).await?;
    Ok(account)
}

/// A bar on a terminal, nothing elsewhere.
fn progress(files: &[PathBuf]) -> ProgressBar {
    let bytes = files.iter().filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum();
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta} {wide_msg}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A file without its compression, which its first bytes show.
fn read(path: &Path) -> std::io::Result<Bytes> {
    let bytes = std::fs::read(path)?;
    let mut whole = Vec::new();
    let read = if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::bufread::MultiGzDecoder::new(bytes.as_slice()).take(FILE_BYTES_MAX + 1).read_to_end(&mut whole)?
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        zstd::stream::read::Decoder::new(bytes.as_slice())?.take(FILE_BYTES_MAX + 1).read_to_end(&mut whole)?
    } else {
        whole = bytes;
        whole.len()
    };
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes: cut it")));
    }
    Ok(Bytes::from(whole))
}

/// The type of the source, as far as it can be known. A source that is named after its type and does not exist yet is made.
async fn source_type(client: &Client, source: &str) -> Result<Option<SourceType>, ClientError> {
    let named = source.parse::<SourceType>().ok().filter(|kind| kind.is_external());
    let answer = match client.get("/v1/sources").await {
        // A token may send events and not read what sources there are.
        Err(ClientError::Refused { status: 403, .. }) => return Ok(named),
        answer => answer?,
    };
    let sources = answer.get("sources").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let known = sources.iter().find(|known| known.get("name").and_then(Value::as_str) == Some(source));
    if known.is_none() && named.is_some() {
        // It exists as soon as a token for it does.
        let token = json!({ "scopes": ["events:write"], "source": source, "note": "import" });
        client.post("/v1/tokens", &token).await?;
    }
    let known = known.and_then(|known| known.get("type")?.as_str()?.parse().ok());
    Ok(known.or(named))
}

async fn send(client: &Client, source: &str, body: &Bytes) -> Result<Value, ClientError> {
    let headers = [(crate::http::MODE_HEADER.to_owned(), "backfill".to_owned())];
    let mut tries = 0;
    loop {
        match client.post_events(source, &[], &headers, body.to_vec()).await {
            Err(ClientError::Refused { status: 503, .. }) if tries < TRIES => tries += 1,
            answer => return answer,
        }
        tokio::time::sleep(WAIT).await;
    }
}

fn range(answer: &Value) -> Option<(u64, u64)> {
    let records = answer.get("records")?;
    Some((records.get("from")?.as_u64()?, records.get("to")?.as_u64()?))
}

/// What became of records: known once detection and the lake have passed them.
async fn outcome(
    client: &Client,
    source: &str,
    ranges: &[(u64, u64)],
    account: &mut Account,
) -> Result<(), ClientError> {
    for some in merged(ranges).chunks(1_000) {
        let asked = json!({ "ranges": some, "source": source });
        let mut tries = 0;
        let answer = loop {
            match client.post("/v1/records/outcome", &asked).await {
                Err(ClientError::Refused { status: 503, .. }) if tries < TRIES => tries += 1,
                answer => break answer?,
            }
        };
        let count = |name: &str| {
            let counted = answer.get(name).and_then(Value::as_u64);
            counted.ok_or_else(|| ClientError::Answer(format!("{answer} does not say `{name}`")))
        };
        account.accepted += count("accepted")?;
        account.duplicates += count("duplicates")?;
        account.dead_letters += count("dead_letters")?;
    }
    Ok(())
}

/// Ranges that follow each other as one.
fn merged(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, to) in ranges {
        match merged.last_mut().filter(|last| last.1 == *from) {
            Some(last) => last.1 = *to,
            None => merged.push((*from, *to)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_follow_each_other_are_one() {
        assert_eq!(merged(&[(0, 5), (5, 9), (12, 13)]), [(0, 9), (12, 13)]);
    }

    #[test]
    fn an_item_that_is_nowhere_is_missed() {
        let whole = Account { sent: 5, taken: 5, accepted: 2, duplicates: 2, dead_letters: 1 };
        assert!(whole.adds_up().is_ok());
        // Not taken apart, lost between log and lake, and more than was there.
        for account in [
            Account { sent: 6, ..whole },
            Account { accepted: 1, ..whole },
            Account { dead_letters: 0, ..whole },
            Account { taken: 6, accepted: 3, ..whole },
        ] {
            let said = account.adds_up().unwrap_err().to_string();
            assert!(said.contains(&format!("hold {} items", account.sent)), "{said}");
        }
    }

    #[test]
    fn folders_are_read_at_any_depth_and_links_are_not_followed() {
        let folder = tempfile::TempDir::new().unwrap();
        let deep = folder.path().join("2026/11");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("a.json"), "{}").unwrap();
        std::fs::write(folder.path().join("b.json"), "{}").unwrap();
        std::os::unix::fs::symlink(folder.path(), deep.join("loop")).unwrap();
        let mut files = Vec::new();
        gather(folder.path(), &mut files).unwrap();
        files.sort();
        assert_eq!(files, [deep.join("a.json"), folder.path().join("b.json")]);
        assert!(gather(&folder.path().join("none"), &mut files).is_ok(), "reading it says that it is not there");
    }

    #[test]
    fn compression_is_known_by_the_first_bytes() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("events");
        for bytes in [b"{}".to_vec(), zstd::encode_all(&b"{}"[..], 1).unwrap()] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path).unwrap(), "{}");
        }
    }
}
