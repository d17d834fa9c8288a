//! Everything in a folder that rules are made of, as texts under relative paths: what a deployment sends and keeps.

use std::path::Path;

use crate::files::{ReadError, collect, read};

/// Whether a path (with `/`) is of a kind that rules are made of: rule documents, lists of values in a folder `lists`,
/// and files that tables are read from.
#[must_use]
pub fn is_content(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).as_deref() {
        Some("yml" | "yaml" | "csv" | "json") => true,
        Some("txt") => folder.rsplit('/').next() == Some("lists"),
        _ => false,
    }
}

/// Reads a folder, or a single file: (path relative to it, text), in the order of paths.
///
/// # Errors
/// [`ReadError`] names the first file that cannot be read.
pub fn read_folder(path: &Path) -> Result<Vec<(String, String)>, ReadError> {
    let mut paths = Vec::new();
    collect(path, 0, &mut paths)?;
    paths.sort();
    let mut files = Vec::new();
    for file in paths {
        let single = file == path;
        let relative = if single { file.file_name().map(Path::new) } else { file.strip_prefix(path).ok() };
        let parts: Option<Vec<&str>> =
            relative.map(|path| path.components().filter_map(|part| part.as_os_str().to_str()).collect());
        let Some(name) = parts.map(|parts| parts.join("/")).filter(|name| single || is_content(name)) else { continue };
        files.push((name, read(&file)?));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_rules_are_made_of_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for path in
            ["b/two.yaml", "a/one.yml", "a/lists/who.txt", "notes.txt", "tables/asn.csv", ".git/x.yml", "run.sh"]
        {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let paths: Vec<String> = read_folder(folder.path()).unwrap().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a/lists/who.txt", "a/one.yml", "b/two.yaml", "tables/asn.csv"]);
        let single = read_folder(&folder.path().join("a/one.yml")).unwrap();
        assert_eq!(single[0].0, "one.yml");
        assert!(read_folder(&folder.path().join("missing")).is_err());
    }
}
