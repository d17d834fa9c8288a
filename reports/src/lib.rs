//! What goes out: alert delivery, KPIs, control tests, evidence packs, signing, verifying.
//!
//! It reads what the record holds and writes files and messages. What it is not: the record itself (`record`), anything
//! that decides a finding (`engine`), or the HTTP API and command line (the binary).

pub mod checkpoint;
pub mod controls;
pub mod deliver;
pub mod keys;
pub mod kpi;
pub mod pack;
pub mod pack_file;
pub mod seal;
pub mod signing;
pub mod verify;
