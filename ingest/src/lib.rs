//! Everything up to the log and out of it as events: authenticity, limits, unwrapping, redaction, the log itself, and
//! one pure decoder per source type.
//!
//! What it is not: an HTTP server (that is the binary's), a judge of what events mean (`engine`), or a store of
//! anything but records.

pub mod authentic;
pub mod collect;
pub mod decode;
pub mod enrich;
pub mod follow;
pub mod kafka;
pub mod limits;
pub mod log;
pub mod objects;
pub mod receive;
pub mod redact;
mod skim;
pub mod syslog;
mod unwrap;
