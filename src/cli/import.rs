//! `pipeproof import`: files and folders sent to a source as history, and what became of them.

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
    show::object(&done?, format)
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

async fn send_all(client: &Client, source: &str, files: &[PathBuf]) -> Result<Value, ClientError> {
    let is_text = source_type(client, source).await?.is_some_and(|kind| kind.info().free_text);
    let bar = progress(files);
    let mut sent = 0;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for path in files {
        bar.set_message(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let whole = read(path).map_err(|source| ClientError::File { path: path.clone(), source })?;
        let bodies = if is_text { vec![whole] } else { parts(&whole, BODY_BYTES, BODY_VALUES) };
        for body in bodies.into_iter().filter(|body| !body.trim_ascii().is_empty()) {
            let answer = send(client, source, &body).await?;
            sent += answer.get("accepted").and_then(Value::as_u64).unwrap_or(0);
            ranges.extend(range(&answer));
        }
        bar.inc(path.metadata().map_or(0, |about| about.len()));
    }
    bar.finish_and_clear();
    let outcome = outcome(client, source, &ranges).await?;
    let count = |name: &str| outcome.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (duplicates, dead_letters) = (count("duplicates"), count("dead_letters"));
    Ok(json!({
        "source": source,
        "sent": sent,
        "accepted": sent.saturating_sub(duplicates + dead_letters),
        "duplicates": duplicates,
        "dead_letters": dead_letters,
    }))
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

/// What became of records: known once detection has passed them.
async fn outcome(client: &Client, source: &str, ranges: &[(u64, u64)]) -> Result<Value, ClientError> {
    let mut duplicates = 0;
    let mut dead_letters = 0;
    for some in merged(ranges).chunks(1_000) {
        let asked = json!({ "ranges": some, "source": source });
        let mut tries = 0;
        let answer = loop {
            match client.post("/v1/records/outcome", &asked).await {
                Err(ClientError::Refused { status: 503, .. }) if tries < TRIES => tries += 1,
                answer => break answer?,
            }
        };
        duplicates += answer.get("duplicates").and_then(Value::as_u64).unwrap_or(0);
        dead_letters += answer.get("dead_letters").and_then(Value::as_u64).unwrap_or(0);
    }
    Ok(json!({ "duplicates": duplicates, "dead_letters": dead_letters }))
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
