//! The product from outside: the real binary, real HTTP, real files. One file a subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "a test ends by panicking, and says what it left out"
)]

mod archive;
mod attack;
mod backpressure;
mod backtest;
mod bad_input;
mod collectors;
mod crash;
mod damage;
mod dedup;
mod delivery;
mod demo;
mod doctor;
mod doors;
mod enrichment;
mod evidence;
mod fuzzed;
mod github_app;
mod harness;
mod history;
mod incidents;
mod ingest;
mod kafka_security;
mod mmdb;
mod moto;
mod objects;
mod operations;
mod other_collectors;
mod provider;
mod real_senders;
mod redact;
mod redaction;
mod reload;
#[path = "../../src/demo/replay.rs"]
mod replay;
mod rules;
mod rules_admin;
mod senders;
mod shipped;
mod source_health;
mod sources;
mod sql_rules;
mod standins;
mod tail;
mod tidy;
mod tls;
mod ways_in;
