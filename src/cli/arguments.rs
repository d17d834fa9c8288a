//! Arguments of every command.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pipeproof_engine::time::Timestamp;

use crate::client::Place;

/// Watches a software delivery pipeline and proves what it saw.
#[derive(Debug, Parser)]
#[command(name = "pipeproof", version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Data folder
    #[arg(long, global = true, default_value = "pipeproof-data", env = "PIPEPROOF_DATA")]
    data: PathBuf,
    /// A server to ask instead of the data folder
    #[arg(long, global = true, env = "PIPEPROOF_URL")]
    url: Option<String>,
    /// Its token; better in the environment than here
    #[arg(long, global = true, env = "PIPEPROOF_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// How results are written; human on a terminal, json elsewhere
    #[arg(long, global = true)]
    pub(crate) format: Option<Format>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    pub(crate) fn place(&self) -> Place {
        Place { data: self.data.clone(), url: self.url.clone(), token: self.token.clone() }
    }
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Human,
    Json,
    Jsonl,
    Csv,
    Junit,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(ServeOptions),
    /// Show everything on a fresh folder: replay a documented attack, findings, incident, KPIs, a verified pack
    Demo(DemoOptions),
    /// Check rules and configuration (pipeproof.yaml): positions, codes, "did you mean"
    Check(RuleFiles),
    /// Run the tests inside rules
    Test(RuleFiles),
    /// Run rules over events without a server: NDJSON in, findings as NDJSON out
    Eval(EvalOptions),
    /// Say which clause of a rule an event satisfies, and which not
    Explain(ExplainOptions),
    /// Replay stored records with other rules, and compare with what the live run or another set of rules found
    Backtest(BacktestOptions),
    /// Send files to a source as history
    Import(ImportOptions),
    /// Connect, list, rotate and remove sources
    #[command(subcommand)]
    Sources(SourcesAction),
    /// Create, list and revoke API tokens
    #[command(subcommand)]
    Token(TokenAction),
    /// Rules in force: list, deploy, activate, pause, and what they cover
    #[command(subcommand)]
    Rules(RulesAction),
    /// Exceptions to rules: add, list, remove
    #[command(subcommand)]
    Exceptions(ExceptionsAction),
    /// Records that could not be decoded: list them, read again what this version can
    #[command(subcommand)]
    Deadletters(DeadLettersAction),
    /// Deliveries and their receipts
    #[command(subcommand)]
    Deliveries(ListAction),
    /// Findings, newest first
    Findings(FindingsOptions),
    /// Stored events, a JSON line each, in the order they were received
    Events(EventsOptions),
    /// Events as a running server detects them, a JSON line each, until Ctrl-C
    Tail(TailOptions),
    /// Read-only SQL over the lake
    Sql(SqlOptions),
    /// MTTD and the MTTR family over a period
    Kpi(KpiOptions),
    /// Incidents and what is done about them
    #[command(subcommand)]
    Incidents(IncidentsAction),
    /// Build and verify evidence packs
    #[command(subcommand)]
    Evidence(EvidenceAction),
    /// Drop the payload of a stored record for good: a secret slipped through. Its leaf hash stays, and who, when and why
    Redact(RedactOptions),
    /// Copy the data folder into an empty one, also while a server runs
    Backup {
        /// Folder that does not exist or is empty
        to: PathBuf,
    },
    /// Check a backup and make the data folder (--data) from it; that must not exist or be empty
    Restore {
        /// The backup
        from: PathBuf,
    },
    /// Where log, detection and lake stand, and whether events are accepted
    Doctor {
        /// Derive leaves, trees, findings and counts again and compare them with what is stored; exit 5 if they differ
        #[arg(long)]
        verify: bool,
    },
    /// Control tests
    #[command(subcommand)]
    Controls(ListAction),
}

#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    /// Configuration file
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one
    #[arg(long)]
    pub(crate) listen: Option<SocketAddr>,
    /// Where senders reach the server, such as https://pipeproof.example: what `sources add` prints
    #[arg(long, value_parser = crate::public_address::checked)]
    pub(crate) public_url: Option<String>,
    /// Certificate of the server and what stands between it and its authority (PEM)
    #[arg(long, requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Serve plain HTTP to other machines: something in front must do TLS
    #[arg(long)]
    pub(crate) allow_plaintext: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// End when everything was shown, with 0 if it all held
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RuleFiles {
    /// Rule files and folders; without any, the shipped rules
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct EvalOptions {
    /// Rule file or folder; may be repeated
    #[arg(long, required = true)]
    pub(crate) rules: Vec<PathBuf>,
    /// Decode events as this source type does
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Events are native JSON of this logsource, as product/service
    #[arg(long, conflicts_with = "source")]
    pub(crate) logsource: Option<String>,
    /// Try every rule on every event
    #[arg(long)]
    pub(crate) no_routing: bool,
    /// Print events/s, bytes/s and the number of rules on stderr
    #[arg(long)]
    pub(crate) stats: bool,
    /// Exit with 1 if something of at least this level is found
    #[arg(long)]
    pub(crate) fail_on: Option<String>,
    /// NDJSON files; - or none for stdin
    pub(crate) events: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainOptions {
    /// Id, name or file of the rule
    #[arg(long)]
    pub(crate) rule: String,
    /// Further rules to look in
    #[arg(long)]
    pub(crate) rules: Vec<PathBuf>,
    /// Decode the event as this source type does
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// File with one JSON event; - for stdin
    pub(crate) event: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct BacktestOptions {
    /// Rule file or folder; may be repeated. Without any, or as `live`: at each record the rules that were in force then
    #[arg(long)]
    pub(crate) rules: Vec<PathBuf>,
    /// Start of the period, by the time of findings, inclusive
    #[arg(long, value_parser = time)]
    pub(crate) from: Timestamp,
    /// End of the period, exclusive
    #[arg(long, value_parser = time)]
    pub(crate) to: Timestamp,
    /// Compare with `live` (what the server found), or with the rules in this file or folder
    #[arg(long, default_value = "live")]
    pub(crate) against: Vec<PathBuf>,
    /// Begin the replay this long before --from instead of where the log begins: faster, but what rests on earlier
    /// records may differ
    #[arg(long, value_parser = span)]
    pub(crate) warm_up: Option<std::time::Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportOptions {
    /// Name of the source
    #[arg(long)]
    pub(crate) source: String,
    /// Files and folders; gzip and zstd as they are
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SourcesAction {
    /// Connect a source; prints its URL, secret and a ready sender configuration
    Add {
        name: String,
        #[arg(long = "type")]
        source_type: String,
        /// name=value; travels with every event
        #[arg(long = "label", value_parser = key_value)]
        labels: Vec<(String, String)>,
        /// Since when its events count as live, as RFC 3339 (now if left out)
        #[arg(long, value_parser = time)]
        connected: Option<Timestamp>,
    },
    /// Sources and their health
    List,
    /// A new secret; the one before stays valid until the next rotation
    Rotate { name: String },
    /// Remove a source and its tokens
    Remove { name: String },
    /// Print a file for the other end: Terraform, policies, manifests, pages; without a name, which there are
    File { name: Option<String> },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Create a token; prints it alone
    Create {
        #[arg(long = "scope", required = true)]
        scopes: Vec<String>,
        /// Bind it to one source, or to the source named after a type
        #[arg(long)]
        source: Option<String>,
        /// When it expires, as RFC 3339
        #[arg(long, value_parser = time)]
        expires: Option<Timestamp>,
        #[arg(long)]
        note: Option<String>,
    },
    /// Tokens, without their secrets
    List,
    /// Revoke a token by its id
    Revoke { id: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersAction {
    /// List them, oldest first
    List {
        /// Of this source
        #[arg(long)]
        source: Option<String>,
    },
    /// Read again, as history, those that this version can decode
    Replay {
        /// Of this source
        #[arg(long)]
        source: Option<String>,
        /// Only these, by the index of their record
        records: Vec<u64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RedactOptions {
    /// Id of an event (0-INDEX-NUMBER) or a record (0-INDEX)
    #[arg(required_unless_present = "list")]
    pub(crate) event: Option<String>,
    /// Why, without what is to go: it is kept
    #[arg(long, required_unless_present = "list")]
    pub(crate) reason: Option<String>,
    /// Who approved it
    #[arg(long)]
    pub(crate) approved_by: Option<String>,
    /// List what was redacted
    #[arg(long, conflicts_with_all = ["event", "reason", "approved_by"])]
    pub(crate) list: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ListAction {
    /// List them
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RulesAction {
    /// Rules with state, version, digest, file and number of findings
    List,
    /// Put the rules, lists and tables of a folder in force: all of them, or nothing is changed
    Deploy {
        dir: PathBuf,
        #[command(flatten)]
        change: ChangeOptions,
    },
    /// Have a rule's findings page
    Activate {
        /// Id or name
        rule: String,
        #[command(flatten)]
        change: ChangeOptions,
    },
    /// Have a rule record findings without paging
    Staging {
        /// Id or name
        rule: String,
        #[command(flatten)]
        change: ChangeOptions,
    },
    /// Have a rule not run
    Pause {
        /// Id or name
        rule: String,
        #[command(flatten)]
        change: ChangeOptions,
    },
    /// Read the configured folder again
    Reload {
        #[command(flatten)]
        change: ChangeOptions,
    },
    /// Which rules can see their sources, and what that covers
    Coverage {
        /// Which table; all of them for people, rules for csv
        #[arg(long)]
        by: Option<CoverageTable>,
    },
}

/// A table of `rules coverage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CoverageTable {
    Rules,
    Sources,
    /// ATT&CK techniques
    Attack,
    /// OWASP's ten risks of CI/CD
    Owasp,
    /// SOC 2 and ISO 27001
    Controls,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeOptions {
    /// Who approved the change; recorded beside who makes it
    #[arg(long)]
    pub(crate) approved_by: Option<String>,
    /// Why
    #[arg(long)]
    pub(crate) note: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExceptionsAction {
    /// Exceptions, when they end, and how many matches they let go
    List,
    /// Let go of what a rule finds: a filter document, or fields with values
    Add(ExceptionOptions),
    /// Matches an exception let go, oldest first
    Matches {
        id: String,
        /// Those after this number only
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Take back an exception that was added
    Remove { id: String },
}

#[derive(Debug, Args)]
pub(crate) struct ExceptionOptions {
    /// File with one Sigma filter; it must have `expires` and `reason`
    #[arg(required_unless_present = "rule", conflicts_with_all = ["rule", "conditions", "title", "reason", "ticket", "expires"])]
    pub(crate) file: Option<PathBuf>,
    /// Id or name of the rule
    #[arg(long, requires = "conditions", requires = "reason", requires = "expires")]
    pub(crate) rule: Option<String>,
    /// field=value, as in a rule: all fields must fit; the same field again is another value for it
    #[arg(long = "where", value_parser = key_value)]
    pub(crate) conditions: Vec<(String, String)>,
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// Why
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Who answers for it
    #[arg(long)]
    pub(crate) approved_by: Option<String>,
    /// Where it was decided
    #[arg(long)]
    pub(crate) ticket: Option<String>,
    /// From when on it no longer applies: a date, or RFC 3339
    #[arg(long, value_parser = time)]
    pub(crate) expires: Option<Timestamp>,
}

#[derive(Debug, Args)]
pub(crate) struct FindingsOptions {
    /// Of this rule
    #[arg(long)]
    pub(crate) rule: Option<String>,
    /// At least this severe
    #[arg(long)]
    pub(crate) level: Option<String>,
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: usize,
}

/// In which words events are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventWords {
    /// Ours: `cicd` fields and the native event
    Json,
    /// Objects of the Open Cybersecurity Schema Framework
    Ocsf,
}

impl EventWords {
    /// What the API calls them.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ocsf => "ocsf",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct EventsOptions {
    /// In which words
    #[arg(long = "as", value_enum, default_value = "json")]
    pub(crate) words: EventWords,
    /// Received from here on, inclusive; a day before --to if left out
    #[arg(long, value_parser = time)]
    pub(crate) from: Option<Timestamp>,
    /// Received before this; now if left out
    #[arg(long, value_parser = time)]
    pub(crate) to: Option<Timestamp>,
    /// Of this source
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// With this action, such as secret.read
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Those after this event id
    #[arg(long)]
    pub(crate) after: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 10_000)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct TailOptions {
    /// In which words
    #[arg(long = "as", value_enum, default_value = "json")]
    pub(crate) words: EventWords,
    /// Of this source
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// With this action, such as secret.read
    #[arg(long)]
    pub(crate) action: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SqlOptions {
    /// The query; - for stdin
    pub(crate) query: String,
}

#[derive(Debug, Args)]
pub(crate) struct KpiOptions {
    /// Start, inclusive
    #[arg(long, value_parser = time)]
    pub(crate) from: Timestamp,
    /// End, exclusive
    #[arg(long, value_parser = time)]
    pub(crate) to: Timestamp,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IncidentsAction {
    /// Incidents, newest first
    List {
        /// Only those that are not over
        #[arg(long)]
        open: bool,
    },
    /// One incident
    Show { id: String },
    /// What happened, in order
    Timeline { id: String },
    /// Take ownership
    Ack(StepOptions),
    /// The damage is stopped
    Contain(StepOptions),
    /// The cause is removed
    Remediate(StepOptions),
    /// The remedy was checked
    Verify(StepOptions),
    /// It is over
    Close(StepOptions),
    /// It was not over
    Reopen(StepOptions),
    /// It was a false positive
    Dismiss(StepOptions),
}

#[derive(Debug, Args)]
pub(crate) struct StepOptions {
    pub(crate) id: String,
    #[arg(long)]
    pub(crate) note: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceAction {
    /// Build and seal a pack
    Build {
        #[arg(long, value_parser = ["soc2", "iso27001"])]
        framework: String,
        /// Start, inclusive
        #[arg(long, value_parser = time)]
        from: Timestamp,
        /// End, exclusive
        #[arg(long, value_parser = time)]
        to: Timestamp,
        /// What was known then (now if left out)
        #[arg(long, value_parser = time)]
        as_of: Option<Timestamp>,
        #[arg(long)]
        out: PathBuf,
    },
    /// Sealed packs
    List,
    /// Write the trust anchor that packs are verified against
    Anchor {
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Verify a pack, offline
    Verify {
        file: PathBuf,
        /// The anchor as `evidence anchor` wrote it: a certificate (PEM)
        #[arg(long)]
        key: Option<PathBuf>,
        /// The instance's identity, a URI
        #[arg(long)]
        identity: Option<String>,
        /// A Sigstore trusted root (JSON)
        #[arg(long)]
        trusted_root: Option<PathBuf>,
        /// An earlier pack or checkpoint this one must continue
        #[arg(long)]
        previous: Option<PathBuf>,
        /// Run every query of the pack again
        #[arg(long)]
        reperform: bool,
    },
}

fn span(text: &str) -> Result<std::time::Duration, String> {
    pipeproof_engine::time::parse_span(text).ok_or_else(|| "not a span such as 36h or 7d".to_owned())
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "not an RFC 3339 time or a date".to_owned())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}
