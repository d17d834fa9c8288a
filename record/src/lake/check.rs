//! Whether the lake's files still are what was written: each data file carries the start of its digest in its name, and
//! the table's log says how long it is.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::{Snapshot, Table};

/// A file of the lake that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Snapshot {
    /// Reads every data file and compares it with the digest in its name. Blocks, and returns what is damaged or missing.
    #[must_use]
    pub fn damaged_files(&self) -> Vec<Damage> {
        let mut damaged = Vec::new();
        for path in Table::ALL.iter().flat_map(|table| self.files(*table)) {
            let named = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.rsplit('-').next());
            let why = match std::fs::read(path) {
                Err(error) => Some(error.to_string()),
                Ok(bytes) => {
                    let digest = hex::encode(Sha256::digest(&bytes).get(..6).unwrap_or_default());
                    (named != Some(digest.as_str())).then(|| "its content is not what its name says".to_owned())
                }
            };
            damaged.extend(why.map(|why| Damage { path: path.clone(), why }));
        }
        damaged
    }
}
