//! The command line. Data goes to stdout, diagnostics to stderr.
//!
//! Exit codes: 0 ok · 1 findings or tests failed · 2 usage or rule error · 3 configuration · 4 runtime · 5 verification failed.

mod arguments;
mod backtest;
mod eval;
mod evidence;
mod explain;
mod import;
mod in_force;
mod rules;
mod serve;
pub(crate) mod show;
mod stored;
mod upkeep;

use std::process::ExitCode;

use clap::Parser;

pub(crate) use arguments::DemoOptions;
use arguments::{Arguments, Command};
pub(crate) use stored::timeline;

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Findings, or failed tests: the command itself worked.
    #[error("")]
    Found,
    /// What was asked is wrong.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The configuration asks for what cannot be.
    #[error("the configuration is not valid: {0}")]
    Configuration(String),
    #[error(transparent)]
    Client(#[from] crate::client::ClientError),
    #[error(transparent)]
    Node(#[from] crate::node::NodeError),
    #[error("cannot {doing}")]
    Io {
        doing: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Backup(#[from] crate::backup::BackupError),
    /// A pack or data that do not verify; the report was printed.
    #[error("")]
    Unverified,
    /// Anything else that went wrong.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Found => 1,
            Self::Usage(_) | Self::Node(crate::node::NodeError::Rules(_)) => 2,
            Self::Config(_) | Self::Configuration(_) | Self::Node(crate::node::NodeError::Configuration(_)) => 3,
            Self::Client(crate::client::ClientError::Refused { status: 400 | 404 | 409 | 413, .. }) => 2,
            Self::Backup(crate::backup::BackupError::Asked(_)) => 2,
            Self::Backup(crate::backup::BackupError::Damaged { .. }) => 5,
            Self::Backup(_) | Self::Client(_) | Self::Node(_) | Self::Io { .. } | Self::Other(_) => 4,
            Self::Unverified => 5,
        }
    }
}

pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging(&arguments);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(error = %error, "cannot start the runtime");
            return ExitCode::from(4);
        }
    };
    let done = runtime.block_on(command(arguments));
    // A blocking task that hangs (a stalled disk) does not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let said = crate::chain(&failure);
            if !said.is_empty() {
                show::diagnostic(&format!("error: {said}"));
            }
            ExitCode::from(failure.code())
        }
    }
}

async fn command(arguments: Arguments) -> Result<(), Failure> {
    let place = arguments.place();
    let format = arguments.format;
    match arguments.command {
        Command::Serve(options) => serve::serve(&options, &place).await,
        Command::Demo(options) => crate::demo::run(&options).await,
        Command::Check(options) => rules::check(&options, format),
        Command::Test(options) => rules::test(&options, format),
        Command::Eval(options) => eval::eval(&options, format),
        Command::Explain(options) => explain::explain(&options, format),
        Command::Backtest(options) => backtest::backtest(&options, &place, format).await,
        Command::Import(options) => import::import(&options, &place, format).await,
        Command::Sources(action) => stored::sources(action, &place, format).await,
        Command::Token(action) => stored::tokens(action, &place, format).await,
        Command::Rules(action) => in_force::rules(action, &place, format).await,
        Command::Exceptions(action) => in_force::exceptions(action, &place, format).await,
        Command::Deadletters(action) => stored::dead_letters(&action, &place, format).await,
        Command::Deliveries(action) => stored::deliveries(&action, &place, format).await,
        Command::Findings(options) => stored::findings(&options, &place, format).await,
        Command::Events(options) => stored::events(&options, &place).await,
        Command::Tail(options) => stored::tail(&options, &place).await,
        Command::Sql(options) => stored::sql(&options, &place, format).await,
        Command::Kpi(options) => stored::kpi(&options, &place, format).await,
        Command::Incidents(action) => stored::incidents(action, &place, format).await,
        Command::Redact(options) => stored::redact(&options, &place, format).await,
        Command::Backup { to } => upkeep::backup(&to, &place, format).await,
        Command::Restore { from } => upkeep::restore(&from, &place, format),
        Command::Doctor { verify } => upkeep::doctor(verify, &place, format).await,
        Command::Evidence(action) => evidence::evidence(action, &place, format).await,
        Command::Controls(action) => evidence::controls(&action, format),
    }
}

/// JSON logs for `serve`, plain ones for people; never to stdout, which is for data.
fn start_logging(arguments: &Arguments) {
    use tracing_subscriber::EnvFilter;
    let serving = matches!(arguments.command, Command::Serve(_));
    // The table library tells every step it takes, at length, and errors of its own twice: what fails reaches us as an error anyway.
    // Its vacuum says at every turn that keeping versions, which we ask for and test, is new in it.
    let default = if serving {
        "info,buoyant_kernel=off,deltalake=warn,deltalake_core::operations::vacuum=error"
    } else {
        "warn,buoyant_kernel=off,deltalake_core::operations::vacuum=error"
    };
    let filter = EnvFilter::try_from_env("PIPEPROOF_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if serving {
        builder.json().flatten_event(true).init();
    } else {
        builder.without_time().with_target(false).init();
    }
}
