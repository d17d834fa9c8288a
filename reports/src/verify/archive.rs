//! Opening a pack that anyone may have made: limits on entries and sizes, no entry outside the one folder, none twice.
//!
//! Nothing is written to disk. An entry that is refused is remembered with its name, so that the report can say so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use zip::ZipArchive;
use zip::read::ZipReadOptions;

use crate::pack::bag;

/// Most entries.
const ENTRIES_MAX: usize = 500_000;
/// Most bytes of one entry, unpacked: 2 GiB.
const ENTRY_BYTES_MAX: u64 = 2 << 30;
/// Most bytes of all entries, unpacked: 8 GiB. They are held in memory.
const TOTAL_BYTES_MAX: u64 = 8 << 30;
/// Most refused entries that are remembered.
const REFUSED_MAX: usize = 1_000;
/// File type bits of a Unix mode, and the value of a symbolic link.
const MODE_TYPE: u32 = 0o170_000;
const MODE_LINK: u32 = 0o120_000;

/// Why a file cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system.
    #[error("cannot read pack {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// No ZIP file.
    #[error("{path} is not a zip file that can be read")]
    Zip {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: zip::result::ZipError,
    },
    /// Larger than a pack is.
    #[error("{path} has {what} than are read: {limit}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// More of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A name that stands for two files.
    #[error("{path} has two entries of one name")]
    Ambiguous {
        /// The file.
        path: PathBuf,
    },
    /// Not one folder with a bag.
    #[error("{path} does not hold one folder with a bag in it")]
    NoBag {
        /// The file.
        path: PathBuf,
    },
}

/// A pack's files in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Unpacked {
    name: String,
    files: BTreeMap<String, Vec<u8>>,
    /// Entries that are not taken, with the reason.
    refused: Vec<(String, String)>,
}

impl std::fmt::Debug for Unpacked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files: BTreeMap<&str, usize> =
            self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.len())).collect();
        formatter
            .debug_struct("Unpacked")
            .field("name", &self.name)
            .field("files", &files)
            .field("refused", &self.refused)
            .finish()
    }
}

impl Unpacked {
    /// Name of the folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Files by path inside the bag.
    #[must_use]
    pub const fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    /// A file.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// A file of text.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(self.get(path)?).ok()
    }

    /// Files of `data/` by path below it.
    pub fn data(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().filter_map(|(path, bytes)| Some((path.strip_prefix("data/")?, bytes.as_slice())))
    }

    /// SHA-256 of the tag manifest, hexadecimal: what identifies the pack.
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.get(bag::TAGMANIFEST).unwrap_or_default()))
    }

    pub(super) fn refused(&self) -> &[(String, String)] {
        &self.refused
    }
}

/// Opens a pack file.
///
/// # Errors
/// [`ReadError`].
pub fn read(path: &Path) -> Result<Unpacked, ReadError> {
    let file = File::open(path).map_err(|source| ReadError::File { path: path.to_owned(), source })?;
    read_from(std::io::BufReader::new(file), path)
}

/// Opens a pack in memory.
///
/// # Errors
/// [`ReadError`].
pub fn read_bytes(bytes: &[u8]) -> Result<Unpacked, ReadError> {
    read_from(Cursor::new(bytes), Path::new("the pack"))
}

fn read_from<R: Read + Seek>(reader: R, path: &Path) -> Result<Unpacked, ReadError> {
    let too_large = |what, limit| ReadError::TooLarge { path: path.to_owned(), what, limit };
    let mut zip = ZipArchive::new(reader).map_err(|source| ReadError::Zip { path: path.to_owned(), source })?;
    if zip.len() > ENTRIES_MAX {
        return Err(too_large("more entries", ENTRIES_MAX as u64));
    }
    if zip.has_duplicate_names() {
        return Err(ReadError::Ambiguous { path: path.to_owned() });
    }
    let mut taken = Taken::default();
    let mut left = TOTAL_BYTES_MAX;
    for index in 0..zip.len() {
        let Some(Ok(name)) = zip.name_for_index(index).map(|name| name.map(std::borrow::Cow::into_owned)) else {
            taken.refuse(&format!("entry {index}"), "has a name that is not text");
            continue;
        };
        let options = ZipReadOptions::new().enforce_header_consistency(true);
        let mut entry = match zip.by_index_with_options(index, options) {
            Ok(entry) => entry,
            Err(cause) => {
                taken.refuse(&name, &format!("cannot be read: {cause}"));
                continue;
            }
        };
        if name.ends_with('/') {
            continue;
        }
        if entry.unix_mode().is_some_and(|mode| mode & MODE_TYPE == MODE_LINK) {
            taken.refuse(&name, "is a symbolic link");
            continue;
        }
        let limit = left.min(ENTRY_BYTES_MAX);
        let mut bytes = Vec::new();
        match (&mut entry).take(limit + 1).read_to_end(&mut bytes) {
            Ok(len) if len as u64 > limit => return Err(too_large("more bytes in its files", limit)),
            Ok(len) => left -= len as u64,
            Err(cause) => {
                taken.refuse(&name, &format!("cannot be unpacked: {cause}"));
                continue;
            }
        }
        taken.take(name, bytes);
    }
    let no_bag = || ReadError::NoBag { path: path.to_owned() };
    let name = taken.folder.filter(|_| taken.files.contains_key("bagit.txt")).ok_or_else(no_bag)?;
    Ok(Unpacked { name, files: taken.files, refused: taken.refused })
}

#[derive(Default)]
struct Taken {
    folder: Option<String>,
    files: BTreeMap<String, Vec<u8>>,
    /// Paths in lower case: two files must not become one on another file system.
    seen: BTreeMap<String, ()>,
    refused: Vec<(String, String)>,
}

impl Taken {
    fn refuse(&mut self, name: &str, reason: &str) {
        if self.refused.len() < REFUSED_MAX {
            self.refused.push((name.chars().take(300).collect(), reason.to_owned()));
        }
    }

    fn take(&mut self, name: String, bytes: Vec<u8>) {
        if let Err(cause) = bag::check_path(&name) {
            return self.refuse(&name, &cause.to_string());
        }
        let Some((folder, path)) = name.split_once('/') else {
            return self.refuse(&name, "stands beside the pack's folder");
        };
        if self.folder.get_or_insert_with(|| folder.to_owned()) != folder {
            return self.refuse(&name, "stands in another folder than the first entry");
        }
        if self.seen.insert(path.to_ascii_lowercase(), ()).is_some() {
            return self.refuse(&name, "has the name of another entry but for upper and lower case");
        }
        self.files.insert(path.to_owned(), bytes);
    }
}
