//! The rules of a node: what a set consists of and where it is kept, how one is put in force, what it covers.
//!
//! A `RulesDeployed` control record at position p means: from p on, this set decides. The content is on stable storage
//! before the record is appended, so whoever reads the record can have the rules: detection, a restart, a backtest.

mod ask;
mod compile;
mod content;
mod coverage;
mod deploy;
mod exceptions;
mod in_force;

pub(crate) use ask::InMemory;
pub(crate) use compile::{SetError, compile, problems, read};
pub(crate) use content::{ContentError, Layer};
pub(crate) use coverage::{Connected, coverage, sights};
pub(crate) use deploy::{
    ChangeError, Mandate, Outcome, add_exception, deploy, reload, remove_exception, set_state, start,
};
pub(crate) use exceptions::{Draft, Fields, listed};
pub(crate) use in_force::{RuleSets, kept_plan, plan_of};
