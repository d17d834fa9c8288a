//! The rule language: Sigma YAML (v2.1 detections, correlations `event_count` and `temporal_ordered`) and our metadata,
//! compiled to the engine's rules, with positions, "did you mean", and the tests inside rules.
//!
//! What it is not: matching and correlating, which is the engine's. What is not supported is refused by name; nothing
//! in a rule is ignored silently except metadata that has no meaning for us.

mod condition;
mod correlation;
mod detection;
mod diagnostic;
mod digest;
mod files;
mod folder;
mod inline;
mod library;
mod lists;
mod load;
mod metadata;
mod run;
mod value;
mod yaml;

pub use detection::known_modifiers;
pub use diagnostic::{Code, Diagnostic, Place, Severity};
pub use files::{ReadError, read_dir, read_lists};
pub use folder::{is_content, read_folder};
pub use inline::{Expected, RuleTest, TestEvent};
pub use library::{ACTIVE, library, library_files, library_lists};
pub use lists::Lists;
pub use load::{Origin, RuleSet, RuleTests, load};
pub use run::{Got, TestOutcome, run_tests};
