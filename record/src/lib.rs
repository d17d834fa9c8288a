//! The memory of pipeproof: the store (what detection decided, in one database), the lake (every record, in Delta tables
//! anyone can open), and read-only SQL over the lake.
//!
//! It keeps and gives back; it judges nothing. It is the only crate that knows the database, Delta and DataFusion.

pub mod alike;
pub mod lake;
pub mod sql;
pub mod store;
