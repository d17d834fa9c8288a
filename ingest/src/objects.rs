//! Objects that providers put into buckets: which of them were read, what a notification says about one, and whether the
//! provider's own signed lists say that all of them are there.
//!
//! What it is not: a client of any store. Nothing here opens a connection: an [`object_store::ObjectStore`] is handed in.

pub mod content;
pub mod digest;
pub mod keys;
pub mod listing;
pub mod notice;
pub mod opened;
pub mod seen;
