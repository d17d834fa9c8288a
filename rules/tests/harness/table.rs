//! The conformance table as it lies in `tests/conformance/`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub area: String,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub id: String,
    pub says: String,
    pub basis: String,
    pub decided_by: String,
    #[serde(default)]
    pub lists: BTreeMap<String, Vec<String>>,
    pub rules: String,
    pub refuse: Option<String>,
    #[serde(default)]
    pub events: Vec<Given>,
    pub until: Option<f64>,
    pub firings: Option<Vec<Firing>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    pub event: String,
    #[serde(rename = "match")]
    pub matches: Option<bool>,
    pub at: Option<f64>,
    pub arrives: Option<f64>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
pub struct Firing {
    pub event: usize,
    pub group: BTreeMap<String, String>,
    #[serde(default)]
    pub rule: Option<String>,
}

/// All files.
pub fn tables() -> Vec<Table> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    paths.iter().map(read).collect()
}

/// The id that the first document of a text says.
pub fn first_id(text: &str) -> Option<&str> {
    let first = text.split("\n---").next()?;
    first.lines().find_map(|line| line.trim_start_matches("- ").strip_prefix("id: "))
}
