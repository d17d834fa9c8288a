//! Rule files and lists on disk.

use std::fs;
use std::path::{Path, PathBuf};

use crate::lists::Lists;
use crate::yaml::FILE_BYTES_MAX;

/// Deepest folder below the one given.
const DEPTH_MAX: usize = 32;

/// Why rule files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system refuses.
    #[error("cannot read rules from {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Too large for rules.
    #[error("{path} has {bytes} bytes, more than {FILE_BYTES_MAX}: this is no rule file")]
    Large {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Not text.
    #[error("{path} is not UTF-8 text")]
    Text {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a rule file, or all `*.yml` and `*.yaml` below a folder: (path, text) in the order of their paths.
///
/// # Errors
/// [`ReadError`] names the first file that cannot be read.
pub fn read_dir(path: &Path) -> Result<Vec<(String, String)>, ReadError> {
    let mut paths = Vec::new();
    collect(path, 0, &mut paths)?;
    // A file that was named itself is read whatever it is called.
    let is_rule = |file: &PathBuf| file == path || file.extension().is_some_and(|end| end == "yml" || end == "yaml");
    paths.retain(is_rule);
    paths.sort();
    paths.into_iter().map(|file| Ok((file.display().to_string(), read(&file)?))).collect()
}

/// Reads the lists beside rules: every `*.txt` in a folder `lists` below `path`, under its file's name.
///
/// # Errors
/// [`ReadError`] names the first file that cannot be read.
pub fn read_lists(path: &Path) -> Result<Lists, ReadError> {
    let mut paths = Vec::new();
    collect(path, 0, &mut paths)?;
    paths.sort();
    let mut lists = Lists::new();
    for file in paths {
        let listed = file.parent().and_then(Path::file_name).is_some_and(|folder| folder == "lists");
        if let (true, Some("txt"), Some(name)) =
            (listed, file.extension().and_then(|end| end.to_str()), file.file_stem().and_then(|name| name.to_str()))
        {
            lists.set_text(name, &read(&file)?);
        }
    }
    Ok(lists)
}

/// Reads a file that a rule file names; the error is one line.
pub(crate) fn read_line(path: &Path) -> Result<String, String> {
    read(path).map_err(|error| match error {
        ReadError::Io { path, cause } => format!("cannot read {}: {cause}", path.display()),
        other => other.to_string(),
    })
}

fn collect(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), ReadError> {
    let failed = |cause| ReadError::Io { path: path.to_owned(), cause };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    if depth >= DEPTH_MAX {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        // A link to a file is as good as the file; a link to a folder may lead in circles.
        let linked_folder = entry.file_type().map_err(failed)?.is_symlink() && path.is_dir();
        if !linked_folder && !entry.file_name().to_string_lossy().starts_with('.') {
            collect(&path, depth + 1, found)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, ReadError> {
    let failed = |cause| ReadError::Io { path: path.to_owned(), cause };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX as u64 {
        return Err(ReadError::Large { path: path.to_owned(), bytes });
    }
    let bytes = fs::read(path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| ReadError::Text { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_lists_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("b/two.yaml", "title: two");
        write("a/one.yml", "title: one");
        write("lists/who.txt", "alice\n");
        write("notes.txt", "no list");
        write(".git/x.yml", "no rule");
        let (rules, lists) = (read_dir(folder.path()).unwrap(), read_lists(folder.path()).unwrap());
        let texts: Vec<_> = rules.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["title: one", "title: two"]);
        assert_eq!(lists.names().collect::<Vec<_>>(), ["who"]);
        assert!(matches!(read_dir(&folder.path().join("missing")), Err(ReadError::Io { .. })));
    }
}
