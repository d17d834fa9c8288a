//! The conformance table as it lies in `tests/conformance/`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    pub(crate) area: String,
    pub(crate) cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) says: String,
    pub(crate) basis: String,
    pub(crate) decided_by: String,
    #[serde(default)]
    pub(crate) lists: BTreeMap<String, Vec<String>>,
    pub(crate) rules: String,
    pub(crate) refuse: Option<String>,
    #[serde(default)]
    pub(crate) events: Vec<Given>,
    pub(crate) until: Option<f64>,
    pub(crate) firings: Option<Vec<Firing>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Given {
    pub(crate) event: String,
    #[serde(rename = "match")]
    pub(crate) matches: Option<bool>,
    pub(crate) at: Option<f64>,
    pub(crate) arrives: Option<f64>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
pub(crate) struct Firing {
    pub(crate) event: usize,
    pub(crate) group: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) rule: Option<String>,
}

/// All files.
pub(crate) fn tables() -> Vec<Table> {
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
pub(crate) fn first_id(text: &str) -> Option<&str> {
    let first = text.split("\n---").next()?;
    first.lines().find_map(|line| line.trim_start_matches("- ").strip_prefix("id: "))
}
