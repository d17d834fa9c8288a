//! The shipped control tests and frameworks, built into the program. A file that is not listed here is not shipped.

use super::definition::{Control, ControlError};
use super::framework::Framework;

macro_rules! files {
    ($($name:literal),+ $(,)?) => { &[$(($name, include_str!(concat!("../../controls/", $name)))),+] };
}

/// The control tests: file name and text.
pub const CONTROL_FILES: &[(&str, &str)] = files![
    "CM-01.yml",
    "CM-02.yml",
    "CM-06.yml",
    "CM-07.yml",
    "CM-08.yml",
    "AI-01.yml",
    "AI-04.yml",
    "AI-05.yml",
    "AI-06.yml",
    "IA-01.yml",
    "IA-02.yml",
    "IA-03.yml",
    "IA-05.yml",
    "IA-12.yml",
    "LM-01.yml",
    "LM-02.yml",
    "LM-04.yml",
    "LM-05.yml",
    "LM-06.yml",
    "IR-01.yml",
];

/// The frameworks: file name and text.
pub const FRAMEWORK_FILES: &[(&str, &str)] =
    files!["frameworks/soc2.yml", "frameworks/iso27001.yml", "frameworks/nist-800-53.yml", "frameworks/slsa.yml"];

/// The shipped control tests, in the order of the list.
///
/// # Errors
/// [`ControlError`] if one does not load; a test of this crate rules that out.
pub fn controls() -> Result<Vec<Control>, ControlError> {
    CONTROL_FILES.iter().map(|(file, text)| Control::read(file, text)).collect()
}

/// The shipped frameworks.
///
/// # Errors
/// As [`controls`].
pub fn frameworks() -> Result<Vec<Framework>, ControlError> {
    FRAMEWORK_FILES.iter().map(|(file, text)| Framework::read(file, text)).collect()
}

/// The framework of that name, `soc2`.
///
/// # Errors
/// As [`controls`].
pub fn framework(name: &str) -> Result<Option<Framework>, ControlError> {
    Ok(frameworks()?.into_iter().find(|framework| framework.framework == name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everything_shipped_loads_and_every_mapping_names_a_test() {
        let controls = controls().unwrap();
        let ids: BTreeSet<_> = controls.iter().map(|control| control.id.clone()).collect();
        assert_eq!(ids.len(), controls.len());
        for (control, (file, _)) in controls.iter().zip(CONTROL_FILES) {
            assert_eq!(format!("{}.yml", control.id), *file);
        }
        for framework in frameworks().unwrap() {
            for (control, requirements) in &framework.controls {
                assert!(ids.contains(control), "{} names {control}", framework.framework);
                assert!(!requirements.is_empty(), "{} {control}", framework.framework);
            }
        }
        for name in ["soc2", "iso27001"] {
            let framework = framework(name).unwrap().unwrap();
            assert_eq!(framework.select(&controls).len(), controls.len(), "{name} leaves tests out");
            assert!(!framework.by_requirement().is_empty());
        }
    }

    #[test]
    fn every_file_in_the_folder_is_listed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/controls");
        for (listed, folder) in [(CONTROL_FILES, folder.to_owned()), (FRAMEWORK_FILES, format!("{folder}/frameworks"))]
        {
            let listed: BTreeSet<_> = listed.iter().map(|(file, _)| file.rsplit('/').next().unwrap()).collect();
            for entry in std::fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(!name.ends_with(".yml") || listed.contains(name.as_str()), "{name} is not shipped");
            }
        }
    }
}
