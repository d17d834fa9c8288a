//! Control tests: populations and exceptions by SQL over the record, with what an auditor needs to rely on them.
//!
//! A test says what was found, never that anything is in conformity with a standard: that conclusion is the auditor's.
//! Where the record is known not to be whole, a test says so instead of passing.

pub mod catalogue;
pub mod completeness;
pub mod definition;
pub mod framework;
pub mod ipe;
pub mod lake_facts;
pub mod outcome;
pub mod render;
pub mod reperform;
pub mod run;
pub mod sheet;

#[cfg(test)]
mod tests;
