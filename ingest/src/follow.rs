//! Files that grow, followed through rotation: what was added to them, line by line, and how far each was read.
//!
//! A file is known by its inode and how it begins, so that it stays the same file when it is renamed, and is another one
//! when its name or inode is used again. What is read is told before it counts as read: after a crash the same lines may
//! be read again, and are recognised as repetitions.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::unwrap::whole_words;

/// How much of a file's beginning tells it from another one of the same inode, bytes.
const HEAD_BYTES: usize = 64;
/// Most bytes read from a file at a time, unless one line is longer.
const READ_BYTES: usize = 1 << 20;
/// Longest line that is read whole, bytes: what a record does not hold of it is cut once its secrets are replaced. One that is
/// longer still is told in pieces of whole words.
const LINE_BYTES_MAX: usize = 16 << 20;
/// Most lines told at a time.
const READ_LINES: usize = 5_000;
/// Endings of files that hold what was read before, compressed by whoever rotates.
const COMPRESSED: &[&str] = &["gz", "zst", "xz", "bz2", "zip"];

/// How far files were read, by device and inode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    files: BTreeMap<String, Mark>,
}

/// How far a file was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Bytes read.
    offset: u64,
    /// How it begins, hexadecimal: up to [`HEAD_BYTES`] of it.
    head: String,
}

/// Whole lines that were added to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The file, as it is called now.
    pub path: PathBuf,
    /// Where it starts in the file, bytes.
    pub offset: u64,
    /// The lines.
    pub lines: Bytes,
    key: String,
    mark: Mark,
}

impl Chunk {
    /// Which file it is, whatever it is called.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.key
    }
}

/// Follows a file or the files of a folder.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    marks: Marks,
    /// Nothing was ever read: what was rotated before is history and not followed.
    first: bool,
}

impl Follower {
    /// Follows a file, with the names it is rotated to (the same name and something after it), or every file of a
    /// folder. `marks` is how far it was read before.
    #[must_use]
    pub fn new(path: PathBuf, marks: Option<Marks>) -> Self {
        Self { path, first: marks.is_none(), marks: marks.unwrap_or_default() }
    }

    /// How far files were read.
    #[must_use]
    pub const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Counts a chunk as read.
    pub fn done(&mut self, chunk: &Chunk) {
        self.marks.files.insert(chunk.key.clone(), chunk.mark.clone());
    }

    /// What was added since the last time, oldest file first. There is more where a chunk is told: read again.
    ///
    /// # Errors
    /// If the folder or a file cannot be read. That the file itself does not exist is no error: it may come.
    pub fn read(&mut self) -> io::Result<Option<Chunk>> {
        let files = self.files()?;
        let keys: Vec<String> = files.iter().map(|(_, about)| key(about)).collect();
        // What is gone needs no mark; a folder that cannot be read does not get here.
        self.marks.files.retain(|known, _| keys.contains(known));
        if std::mem::take(&mut self.first) {
            self.pass_history(&files)?;
        }
        for ((path, _), key) in files.iter().zip(keys) {
            if let Some(chunk) = self.read_file(path, key)? {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// The files to follow, the one that was changed first before the others.
    fn files(&self) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
        let whole_folder = self.path.is_dir();
        let folder = if whole_folder { Some(self.path.as_path()) } else { self.path.parent() };
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let compressed = path.extension().is_some_and(|kind| COMPRESSED.iter().any(|known| kind == *known));
            let wanted = if whole_folder { !own.starts_with('.') } else { is_rotated(&own, &name) };
            if !wanted || compressed {
                continue;
            }
            match fs::metadata(&path) {
                Ok(about) if about.is_file() => found.push((path, about)),
                Ok(_) => {}
                // Renamed between listing and looking.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // Written within one tick of the file system's clock: a rotated one was there first.
        let order = |path: &PathBuf| (*path == self.path, std::cmp::Reverse(path.clone()));
        found.sort_by_key(|(path, about)| (about.mtime(), about.mtime_nsec(), order(path)));
        Ok(found)
    }

    /// At the first start, what was rotated already counts as read.
    fn pass_history(&mut self, files: &[(PathBuf, fs::Metadata)]) -> io::Result<()> {
        for (path, about) in files.iter().filter(|(path, _)| !self.path.is_dir() && *path != self.path) {
            let head = head(&mut File::open(path)?)?;
            self.marks.files.insert(key(about), Mark { offset: about.len(), head });
        }
        Ok(())
    }

    fn read_file(&self, path: &Path, key: String) -> io::Result<Option<Chunk>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.metadata()?.len();
        let head = head(&mut file)?;
        let known = self.marks.files.get(&key).filter(|mark| head.starts_with(&mark.head) && mark.offset <= len);
        let offset = known.map_or(0, |mark| mark.offset);
        if offset == len {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        let mut reader = file.take(READ_BYTES as u64);
        while reader.read_to_end(&mut bytes)? > 0 && bytes.len() < LINE_BYTES_MAX && !bytes.contains(&b'\n') {
            reader.set_limit(READ_BYTES as u64);
        }
        let Some(end) = end_of_lines(&bytes) else { return Ok(None) };
        bytes.truncate(end);
        let mark = Mark { offset: offset + end as u64, head };
        Ok(Some(Chunk { path: path.to_owned(), offset, lines: Bytes::from(bytes), key, mark }))
    }
}

/// Where the last whole line ends; the last whole word if it is one line that is too long.
fn end_of_lines(bytes: &[u8]) -> Option<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let last = ends.take(READ_LINES).last();
    last.or_else(|| (bytes.len() >= LINE_BYTES_MAX).then(|| whole_words(bytes)))
}

/// Whether a file's name is one that `name` is rotated to: `audit.log`, `audit.log.1`, `audit.log-20261126`,
/// `audit-2026-11-26.log`.
fn is_rotated(own: &str, name: &str) -> bool {
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let after = |rest: &str| rest.is_empty() || rest.starts_with(['.', '-', '_']);
    own.strip_prefix(name).is_some_and(after)
        || (!kind.is_empty()
            && own.strip_prefix(stem).and_then(|rest| rest.strip_suffix(kind)?.strip_suffix('.')).is_some_and(
                |middle| middle.starts_with(['-', '_', '.']) && middle.bytes().any(|byte| byte.is_ascii_digit()),
            ))
}

fn key(about: &fs::Metadata) -> String {
    format!("{}-{}", about.dev(), about.ino())
}

fn head(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    file.take(HEAD_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Log {
        folder: tempfile::TempDir,
        follower: Follower,
    }

    impl Log {
        fn new() -> Self {
            let folder = tempfile::TempDir::new().unwrap();
            let follower = Follower::new(folder.path().join("audit.log"), Some(Marks::default()));
            Self { folder, follower }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn append(&self, name: &str, text: &str) {
            let mut file = File::options().create(true).append(true).open(self.path(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.path(from), self.path(to)).unwrap();
        }

        /// Everything new, as lines.
        fn lines(&mut self) -> Vec<String> {
            let mut found = Vec::new();
            while let Some(chunk) = self.follower.read().unwrap() {
                self.follower.done(&chunk);
                found.extend(String::from_utf8(chunk.lines.to_vec()).unwrap().lines().map(str::to_owned));
            }
            found
        }

        /// As after a restart.
        fn again(&mut self) {
            let text = serde_json::to_string(self.follower.marks()).unwrap();
            self.follower = Follower::new(self.path("audit.log"), Some(serde_json::from_str(&text).unwrap()));
        }
    }

    #[test]
    fn lines_are_told_once_they_end_and_once() {
        let mut log = Log::new();
        assert!(log.lines().is_empty(), "it may come later");
        log.append("audit.log", "a\nb\nhalf");
        assert_eq!(log.lines(), ["a", "b"]);
        log.append("audit.log", " a line\n");
        assert_eq!(log.lines(), ["half a line"]);
        assert!(log.lines().is_empty());
        log.again();
        assert!(log.lines().is_empty());
    }

    #[test]
    fn what_is_told_counts_as_read_only_when_that_is_said() {
        let mut log = Log::new();
        log.append("audit.log", "a\n");
        let first = log.follower.read().unwrap().unwrap();
        assert_eq!(log.follower.read().unwrap().as_ref(), Some(&first), "taken by nobody, told again");
        log.follower.done(&first);
        assert_eq!(log.follower.read().unwrap(), None);
    }

    #[test]
    fn renaming_copying_and_truncating_lose_nothing() {
        let mut log = Log::new();
        log.append("audit.log", "a\n");
        assert_eq!(log.lines(), ["a"]);
        // Renamed, and written to for a while, as logrotate does without copytruncate.
        log.append("audit.log", "b\n");
        log.rename("audit.log", "audit.log.1");
        log.append("audit.log.1", "c\n");
        log.append("audit.log", "d\n");
        assert_eq!(log.lines(), ["b", "c", "d"]);
        // Rotated while we were away.
        log.append("audit.log", "e\n");
        log.rename("audit.log.1", "audit.log.2");
        log.rename("audit.log", "audit-2026-11-26.log");
        log.append("audit.log", "f\n");
        log.again();
        assert_eq!(log.lines(), ["e", "f"]);
        // Truncated and written anew: the same inode, another beginning, also where it has grown longer than before.
        fs::write(log.path("audit.log"), "other\nlines\n").unwrap();
        assert_eq!(log.lines(), ["other", "lines"]);
        // Compressed by whoever rotates: read already.
        log.append("audit.log.3.gz", "x\n");
        log.append("unrelated.log", "x\n");
        assert!(log.lines().is_empty());
    }

    #[test]
    fn at_the_first_start_what_was_rotated_is_history() {
        let folder = tempfile::TempDir::new().unwrap();
        fs::write(folder.path().join("audit.log.1"), "old\n").unwrap();
        fs::write(folder.path().join("audit.log"), "new\n").unwrap();
        let mut follower = Follower::new(folder.path().join("audit.log"), None);
        let chunk = follower.read().unwrap().unwrap();
        assert_eq!((&chunk.lines[..], chunk.offset), (&b"new\n"[..], 0));
        follower.done(&chunk);
        assert_eq!(follower.read().unwrap(), None);
        let mut whole = Follower::new(folder.path().to_owned(), None);
        let mut found = 0;
        while let Some(chunk) = whole.read().unwrap() {
            whole.done(&chunk);
            found += 1;
        }
        assert_eq!(found, 2, "of a folder every file is followed");
    }

    #[test]
    fn a_line_without_end_is_cut_between_words_and_many_lines_come_in_parts() {
        let mut log = Log::new();
        let long = "x".repeat(READ_BYTES * 3 + 10);
        log.append("audit.log", &format!("{long}\nb\n"));
        assert_eq!(log.lines(), [long.as_str(), "b"], "longer than what is read at a time, and whole");
        let endless = "xyz ".repeat(LINE_BYTES_MAX / 4);
        log.append("audit.log", &format!("{}token-that-is-cut", &endless[..LINE_BYTES_MAX - 8]));
        assert_eq!(log.lines().iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX - 8]);
        log.append("audit.log", "\n");
        assert_eq!(log.lines(), ["token-that-is-cut"]);
        log.append("audit.log", &"y\n".repeat(READ_LINES * 2 + 1));
        assert_eq!(log.lines().len(), READ_LINES * 2 + 1);
    }

    #[test]
    fn names_that_belong_together() {
        for own in ["audit.log", "audit.log.1", "audit.log-20261126", "audit-2026-11-26.log", "audit.2.log"] {
            assert!(is_rotated(own, "audit.log"), "{own}");
        }
        for own in ["audit.logs", "audit-errors.log", "other.log", "audit", "myaudit.log"] {
            assert!(!is_rotated(own, "audit.log"), "{own}");
        }
    }
}
