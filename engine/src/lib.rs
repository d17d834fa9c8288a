//! The vocabulary and the machine of pipeproof: events, rule plans, matching, correlation, dedup, findings, incidents,
//! Merkle trees, and the ports for clock and store.
//!
//! It is pure: no network, no database, no DataFusion, and detection reads no clock. What it is not: the rule language
//! (`rules`), anything about a source's format (`ingest`), or anything kept on disk (`ingest` for the log, `record` for the rest).

pub mod clock;
mod columns;
pub mod commit;
mod compiler;
pub mod control;
pub mod correlate;
pub mod coverage;
pub mod dedup;
pub mod deferred;
pub mod detect;
pub mod event;
pub mod exception;
pub mod explain;
pub mod failpoint;
pub mod feed;
pub mod fields;
pub mod finding;
pub mod incident;
mod intern;
pub mod invariant;
pub mod json;
mod keywords;
pub mod lookup;
mod matcher;
pub mod merkle;
pub mod ocsf;
pub mod plan;
pub mod predicate;
mod program;
mod reader;
pub mod record;
pub mod redaction;
pub mod rule;
mod scan;
pub mod sequence;
pub mod silence;
pub mod source;
mod spelling;
pub mod sql;
mod state;
pub mod table;
pub mod time;
pub mod watermark;
