//! One file of an evidence pack: a path inside the pack's `data/` folder, its exact bytes, and what it is for.
//!
//! It is not a file on disk: the parts of a pack are made in memory and sealed by whoever writes the pack.

/// A file of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackFile {
    /// Path below `data/`, with `/` between the parts: `10_controls/CM-06/population.csv`.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it is, in one line, for the pack's index.
    pub description: String,
}

impl PackFile {
    /// A file of these bytes.
    #[must_use]
    pub fn new(path: impl Into<String>, bytes: impl Into<Vec<u8>>, description: impl Into<String>) -> Self {
        Self { path: path.into(), bytes: bytes.into(), description: description.into() }
    }
}
