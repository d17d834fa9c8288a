//! Alert delivery: takes messages out of the outbox and brings each to every target at least once, under an id that
//! stays the same over all attempts.
//!
//! It is not where messages come from (detection writes them in its own transaction) and not where they are kept (the
//! store is, behind [`outbox::Outbox`]).

pub mod body;
pub mod egress;
pub mod outbox;
pub mod receipt;
pub mod retry;
pub mod run;
pub mod send;
pub mod sign;
pub mod store_outbox;
pub mod target;

#[cfg(test)]
mod receiver;
#[cfg(test)]
mod tests;
