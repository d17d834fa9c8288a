//! The rule language: Sigma YAML (v2.1 detections, correlations, filters; v2.2 conditions of correlations), our additions
//! to it and our metadata, compiled to the engine's rules, with positions, "did you mean", and the tests inside rules.
//!
//! What it is not: matching and correlating, which is the engine's. What is not supported is refused by name; nothing
//! in a rule is ignored silently except metadata that has no meaning for us.

mod condition;
mod correlation;
mod detection;
mod diagnostic;
mod digest;
mod exemplar;
mod files;
mod filter;
mod inline;
mod library;
mod link;
mod lint;
mod lists;
mod load;
mod lookup;
mod metadata;
mod modifiers;
mod rows;
mod run;
mod sql;
mod table;
mod value;
mod yaml;

pub use diagnostic::{Code, Diagnostic, Place, Severity};
pub use files::{ReadError, read_dir, read_lists};
pub use inline::{Expected, RuleTest, TestEvent};
pub use library::{library, library_lists};
pub use lists::Lists;
pub use load::{Origin, RuleSet, RuleTests, load, load_with};
pub use modifiers::known_modifiers;
pub use run::{Got, SqlEvent, SqlRunner, TestOutcome, run_tests, run_tests_with};
