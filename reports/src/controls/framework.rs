//! Which control tests speak to which requirement of a framework. Identifiers only: the frameworks' texts are not ours.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::definition::{Control, ControlError};

/// A mapping from control tests to a framework's identifiers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Framework {
    /// Short name, as in `--framework`.
    pub framework: String,
    /// Its name.
    pub title: String,
    /// Which edition the identifiers are from.
    pub version: String,
    /// How a test relates to a requirement: it covers part of it.
    pub relationship: String,
    /// Whose judgement the mapping is.
    pub basis: String,
    /// Control test → requirements.
    pub controls: BTreeMap<String, Vec<String>>,
    /// Areas that events of a delivery pipeline say nothing about.
    #[serde(default)]
    pub not_evidenced: Vec<String>,
}

impl Framework {
    /// Reads a mapping.
    ///
    /// # Errors
    /// [`ControlError::Yaml`] names the file and what is wrong.
    pub fn read(file: &str, yaml: &str) -> Result<Self, ControlError> {
        serde_saphyr::from_str(yaml)
            .map_err(|error| ControlError::Yaml { file: file.to_owned(), reason: error.to_string() })
    }

    /// The tests of `controls` that the framework asks for, in their order.
    #[must_use]
    pub fn select<'a>(&self, controls: &'a [Control]) -> Vec<&'a Control> {
        controls.iter().filter(|control| self.controls.contains_key(&control.id)).collect()
    }

    /// Requirement → control tests.
    #[must_use]
    pub fn by_requirement(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut requirements: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (control, ids) in &self.controls {
            for id in ids {
                requirements.entry(id).or_default().push(control);
            }
        }
        requirements
    }
}
