//! The pipeproof binary: command line, configuration, wiring of roles, HTTP API. It holds no domain logic.

mod accept;
mod background;
mod backtest;
mod backup;
mod cli;
mod client;
mod config;
mod damage;
mod demo;
mod doctor;
mod enrichment;
mod evidence;
mod health;
mod http;
mod intake;
mod metrics;
mod node;
mod public_address;
mod redaction;
mod registry;
mod roles;
mod rules;
mod scope;
mod secret_keys;
mod sender;
mod server;
mod tls;
mod upkeep;

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Detection keeps many small pieces for long and gives them back in another order: a third of its time went to the
/// system's allocator. This one gives free memory back within seconds, under load as well: a server runs for months.
/// It serves C libraries, too: what compresses takes a hundred megabytes for a moment, on whichever thread it runs.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // Some libraries repeat their cause in their own message.
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

fn main() -> ExitCode {
    cli::run()
}
