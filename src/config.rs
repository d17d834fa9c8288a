//! The one configuration file, `pipeproof.yaml`: read, checked as a whole, every problem named.
//!
//! Checking does no I/O besides reading the secrets it names; unknown keys are errors.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeproof_engine::control::EnrichmentFile;
use pipeproof_engine::record::ITEM_BYTES_MAX;
use pipeproof_engine::source::SourceType;
use pipeproof_ingest::authentic::{AcceptedCertificate, Issuer};
use pipeproof_ingest::log::LogOptions;
use pipeproof_ingest::receive::Secret;
use serde::Deserialize;

use crate::enrichment::Configured;
use crate::intake::collects::{Collect, RawCollects};
use crate::intake::configured::{RawReads, Reads};
use crate::intake::identity::{Accepted, KeysAt};
use crate::public_address;
use crate::registry::{LABELS_RULE, are_labels, is_source_name};
use crate::roles::{Patience, RawPatience, Retention};
use crate::tls::TlsFiles;

/// A checked configuration.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) listen: Option<String>,
    /// Where senders reach the server, if that is not where it listens.
    pub(crate) public_url: Option<String>,
    /// It ends with the command that started it: nobody is to send to where it listens.
    pub(crate) passing: bool,
    /// Certificate and key of the HTTP server; plain HTTP without.
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) sources: Vec<ConfiguredSource>,
    pub(crate) targets: Vec<ConfiguredTarget>,
    /// Folder of further rules.
    pub(crate) rules: Option<PathBuf>,
    /// Whether the shipped rules run.
    pub(crate) shipped_rules: bool,
    /// The rules stay those the log says are in force, whatever this configuration would ask for.
    pub(crate) keep_rules: bool,
    /// How often the lake takes in what was detected.
    pub(crate) archive_every: Duration,
    /// How often a checkpoint of the log is sealed.
    pub(crate) seal_every: Duration,
    /// How much may wait for the log's writer, and how long it gathers.
    pub(crate) log: LogOptions,
    /// How much of the log is kept as data.
    pub(crate) retention: Retention,
    /// Items that detection holds in memory at most, to recognise them; [`ITEMS_IN_MEMORY`] without.
    pub(crate) items_in_memory: Option<usize>,
    /// Bytes of memory near which nothing more is taken in; the control group's limit without.
    pub(crate) memory_bytes: Option<u64>,
    /// Address files; without a configuration file, those in force stay.
    pub(crate) enrichment: Option<Configured>,
    /// When a source is silent for too long; `None`: nobody looks.
    pub(crate) patience: Option<Patience>,
}

/// A source that the file connects.
#[derive(Debug)]
pub(crate) struct ConfiguredSource {
    pub(crate) name: String,
    pub(crate) source_type: SourceType,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) secrets: Vec<Secret>,
    /// Whose identity tokens it accepts.
    pub(crate) identity: Option<Accepted>,
    /// Whose client certificates it accepts.
    pub(crate) certificate: Option<AcceptedCertificate>,
    /// Where it is read from, besides what is sent.
    pub(crate) reads: Reads,
    /// What is fetched for it.
    pub(crate) collects: Vec<Collect>,
}

/// A webhook that the file delivers to.
#[derive(Debug)]
pub(crate) struct ConfiguredTarget {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) secrets: Vec<SecretText>,
    pub(crate) allow_private: bool,
}

/// Text that never prints itself.
#[derive(Clone)]
pub(crate) struct SecretText(pub(crate) String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Where a server listens that is not told.
pub(crate) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7391);

/// How often the lake takes in what was detected: a file every five seconds at most, and an event is in SQL soon.
pub(crate) const ARCHIVE_EVERY: Duration = Duration::from_secs(5);

/// Items that detection holds in memory at most: about 100 MB. Older ones are remembered in the store.
pub(crate) const ITEMS_IN_MEMORY: usize = 1_000_000;
/// What it may be told to hold.
const ITEMS_IN_MEMORY_RANGE: std::ops::RangeInclusive<usize> = 1_000..=100_000_000;

/// Least memory it may be told to make do with, bytes.
const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// Bytes a file of the log may be told to hold.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;

/// How often a checkpoint of the log is sealed.
pub(crate) const SEAL_EVERY: Duration = Duration::from_secs(60);

/// Longest a group may gather records.
const GROUP_DELAY_MS_MAX: u64 = 10_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read configuration {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("configuration {path} is not valid: {message}")]
    Syntax { path: PathBuf, message: String },
    #[error("configuration {path} has {} problem(s):\n{}", problems.len(), problems.join("\n"))]
    Problems { path: PathBuf, problems: Vec<String> },
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDedup {
    items_in_memory: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u32,
    listen: Option<String>,
    /// Where senders reach the server: what `sources add` prints, such as `https://pipeproof.example`.
    public_url: Option<String>,
    tls: Option<TlsFiles>,
    #[serde(default)]
    sources: Vec<RawSource>,
    #[serde(default)]
    targets: Vec<RawTarget>,
    #[serde(default)]
    rules: RawRules,
    archive_every: Option<String>,
    seal_every: Option<String>,
    memory_bytes: Option<u64>,
    #[serde(default)]
    dedup: RawDedup,
    #[serde(default)]
    log: RawLog,
    #[serde(default)]
    enrichment: RawEnrichment,
    #[serde(default)]
    silence: RawPatience,
}

/// The queue of the log's writer. What is beyond a limit is answered 503 with Retry-After.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    /// Records that may wait, from 1 on. 200,000 unless set.
    queue_records: Option<usize>,
    /// Bytes that may wait, from 1 MiB on. 128 MiB unless set.
    queue_bytes: Option<usize>,
    /// How long a group gathers records before it is written and synced, up to 10,000 ms. None unless set: what comes
    /// during a sync is the next group anyway. Worth it where each sync is slow or costs money.
    group_delay_ms: Option<u64>,
    /// Bytes at which a file of the log is closed, from 1 MiB to 1 GiB. 64 MiB unless set.
    segment_bytes: Option<u64>,
    /// How long records stay in the log as data, such as `7d`, once detection and lake have passed them. 7 days unless set.
    keep: Option<String>,
    /// Bytes of the log beyond which older files go before that. 1 GiB unless set.
    keep_bytes: Option<u64>,
    /// How often files are looked at that may go, such as `60s`. A minute unless set.
    retire_every: Option<String>,
}

/// Address files (MMDB).
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEnrichment {
    asn: Option<PathBuf>,
    geo: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    name: String,
    #[serde(rename = "type")]
    source_type: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    secrets: Vec<RawSecret>,
    identity: Option<RawIdentity>,
    #[serde(default)]
    reads: RawReads,
    #[serde(default)]
    collects: RawCollects,
}

/// Whom a source accepts: identity tokens (JWT), as Pub/Sub push sends one of Google's, or client certificates.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIdentity {
    /// `iss`. Google unless set.
    issuer: Option<String>,
    /// `aud`, as the sender was told.
    audience: Option<String>,
    /// The one account that may send.
    email: Option<String>,
    /// The issuer's keys (JSON Web Key Set): a file, or where to fetch them. Google's unless set.
    keys_file: Option<PathBuf>,
    keys_url: Option<String>,
    client_certificate: Option<RawCertificate>,
}

/// Which client certificates are accepted. Everything that is set must fit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCertificate {
    /// The whole subject, as `openssl x509 -subject -nameopt RFC2253` prints it.
    subject: Option<String>,
    /// One of its alternative names: DNS, IP address, e-mail or URI.
    san: Option<String>,
    /// Its SPIFFE id; with `/*` at its end, all below it.
    spiffe: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTarget {
    name: String,
    url: String,
    #[serde(default)]
    secrets: Vec<RawSecret>,
    #[serde(default)]
    allow_private: bool,
}

/// Where a secret is; never the secret itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSecret {
    env: Option<String>,
    file: Option<PathBuf>,
}

impl RawSecret {
    /// The secret, or what is wrong with it.
    pub(crate) fn read(&self) -> Result<SecretText, String> {
        let text = match (&self.env, &self.file) {
            (Some(name), None) => std::env::var(name).map_err(|_| format!("environment variable {name} is not set")),
            (None, Some(path)) => {
                fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
            }
            _ => Err("give either env: NAME or file: PATH".to_owned()),
        }?;
        let text = text.trim();
        if text.len() < 8 { Err("shorter than 8 characters".to_owned()) } else { Ok(SecretText(text.to_owned())) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRules {
    dir: Option<PathBuf>,
    #[serde(default = "yes")]
    shipped: bool,
}

impl Default for RawRules {
    fn default() -> Self {
        Self { dir: None, shipped: true }
    }
}

const fn yes() -> bool {
    true
}

impl Config {
    /// What runs without a file.
    pub(crate) fn embedded() -> Self {
        Self {
            shipped_rules: true,
            archive_every: ARCHIVE_EVERY,
            seal_every: SEAL_EVERY,
            patience: Some(Patience::default()),
            ..Self::default()
        }
    }

    /// What a command runs for itself on stored data: it decides nothing that a server would decide.
    pub(crate) fn of_commands() -> Self {
        Self { keep_rules: true, passing: true, patience: None, retention: Retention::ALL, ..Self::embedded() }
    }

    /// Whose identity tokens are accepted, by source.
    pub(crate) fn identities(&self) -> impl Iterator<Item = (String, Accepted)> + '_ {
        self.sources.iter().filter_map(|source| Some((source.name.clone(), source.identity.clone()?)))
    }

    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: Raw = serde_saphyr::from_str(text)
            .map_err(|error| ConfigError::Syntax { path: path.to_owned(), message: error.to_string() })?;
        let mut problems = Vec::new();
        if raw.version != 1 {
            problems.push(format!("version: this binary reads version 1, not {}", raw.version));
        }
        let mut config = Self {
            listen: raw.listen,
            tls: raw.tls,
            rules: raw.rules.dir,
            shipped_rules: raw.rules.shipped,
            archive_every: ARCHIVE_EVERY,
            seal_every: SEAL_EVERY,
            enrichment: Some(
                [(EnrichmentFile::Asn, raw.enrichment.asn), (EnrichmentFile::Geo, raw.enrichment.geo)]
                    .into_iter()
                    .filter_map(|(file, path)| Some((file, path?)))
                    .collect(),
            ),
            ..Self::default()
        };
        for (name, text, set) in [
            ("archive_every", raw.archive_every, &mut config.archive_every),
            ("seal_every", raw.seal_every, &mut config.seal_every),
        ] {
            let Some(text) = text else { continue };
            match pipeproof_engine::time::parse_span(&text) {
                Some(span) if !span.is_zero() => *set = span,
                _ => problems.push(format!("{name}: `{text}` is not a span such as 5s or 1m")),
            }
        }
        if let Some(text) = &raw.public_url {
            match public_address::checked(text) {
                Ok(url) => config.public_url = Some(url),
                Err(problem) => problems.push(format!("public_url: {problem}")),
            }
        }
        config.patience = Some(raw.silence.checked(&mut problems));
        config.log = log_options(&raw.log, &mut problems);
        config.retention = retention(&raw.log, &mut problems);
        config.memory_bytes = raw.memory_bytes;
        if raw.memory_bytes.is_some_and(|bytes| bytes < MEMORY_BYTES_MIN) {
            problems.push(format!("memory_bytes: less than {MEMORY_BYTES_MIN}"));
        }
        config.items_in_memory = raw.dedup.items_in_memory;
        if raw.dedup.items_in_memory.is_some_and(|items| !ITEMS_IN_MEMORY_RANGE.contains(&items)) {
            let (least, most) = ITEMS_IN_MEMORY_RANGE.into_inner();
            problems.push(format!("dedup.items_in_memory: not {least} to {most}"));
        }
        for (at, source) in raw.sources.into_iter().enumerate() {
            let here = format!("sources[{at}]");
            if !is_source_name(&source.name) {
                problems.push(format!("{here}.name: `{}` is not 1 to 64 of a-z 0-9 . _ -", source.name));
            }
            if config.sources.iter().any(|known| known.name == source.name) {
                problems.push(format!("{here}.name: `{}` is the name of another source", source.name));
            }
            if !are_labels(&source.labels) {
                problems.push(format!("{here}.labels: {LABELS_RULE}"));
            }
            let source_type = source.source_type.parse::<SourceType>().map_err(|error| error.to_string());
            let secrets = read_secrets(&source.secrets, &here, &mut problems);
            match source_type {
                Ok(source_type) => config.sources.push(ConfiguredSource {
                    reads: source.reads.checked(&here, &source.name, &mut problems),
                    certificate: source.identity.as_ref().and_then(|raw| certificate(raw, &here, &mut problems)),
                    collects: source.collects.checked(&here, source_type, &mut problems),
                    identity: source.identity.and_then(|raw| accepted(raw, &here, &mut problems)),
                    name: source.name,
                    source_type,
                    labels: source.labels,
                    secrets: secrets
                        .into_iter()
                        .enumerate()
                        .map(|(number, secret)| Secret { id: format!("config-{number}"), bytes: secret.0.into_bytes() })
                        .collect(),
                }),
                Err(error) => problems.push(format!("{here}.type: {error}")),
            }
        }
        for (at, target) in raw.targets.into_iter().enumerate() {
            let secrets = read_secrets(&target.secrets, &format!("targets[{at}]"), &mut problems);
            if config.targets.iter().any(|known| known.name == target.name) {
                problems.push(format!("targets[{at}].name: `{}` is the name of another target", target.name));
            }
            config.targets.push(ConfiguredTarget {
                name: target.name,
                url: target.url,
                secrets,
                allow_private: target.allow_private,
            });
        }
        if let Some(tls) = &config.tls {
            tls.check("tls", &mut problems);
        }
        for (at, source) in config.sources.iter().enumerate().filter(|(_, source)| source.certificate.is_some()) {
            let syslog = source.reads.syslog.as_ref().and_then(|syslog| syslog.tls.as_ref());
            if !config.tls.iter().chain(syslog).any(|tls| tls.client_ca.is_some()) {
                problems.push(format!(
                    "sources[{at}].identity.client_certificate: nobody asks for one: set tls.client_ca, or client_ca where syslog listens"
                ));
            }
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Problems { path: path.to_owned(), problems }) }
    }
}

const GOOGLE: &str = "https://accounts.google.com";
const GOOGLE_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";

fn certificate(raw: &RawIdentity, here: &str, problems: &mut Vec<String>) -> Option<AcceptedCertificate> {
    let RawCertificate { subject, san, spiffe } = raw.client_certificate.as_ref()?;
    AcceptedCertificate::new(subject.as_deref(), san.as_deref(), spiffe.as_deref())
        .map_err(|error| problems.push(format!("{here}.identity.client_certificate: {error}")))
        .ok()
}

fn accepted(raw: RawIdentity, here: &str, problems: &mut Vec<String>) -> Option<Accepted> {
    let says_nothing = raw.issuer.is_none() && raw.email.is_none() && raw.keys_file.is_none() && raw.keys_url.is_none();
    let Some(audience) = raw.audience else {
        if raw.client_certificate.is_none() || !says_nothing {
            problems.push(format!("{here}.identity.audience: the audience of the tokens is missing"));
        }
        return None;
    };
    let issuer = raw.issuer.unwrap_or_else(|| GOOGLE.to_owned());
    let keys = match (raw.keys_file, raw.keys_url) {
        (Some(path), None) => KeysAt::File(path),
        (None, Some(url)) => KeysAt::Url(url),
        (None, None) if issuer == GOOGLE => KeysAt::Url(GOOGLE_KEYS.to_owned()),
        _ => {
            problems.push(format!("{here}.identity: give keys_file or keys_url, the keys of {issuer}"));
            return None;
        }
    };
    if let KeysAt::Url(url) = &keys
        && !url.starts_with("https://")
    {
        // Whoever can change the keys on their way can sign anything.
        problems.push(format!("{here}.identity.keys_url: `{url}` is not https"));
        return None;
    }
    if audience.is_empty() {
        problems.push(format!("{here}.identity.audience: empty, every token of the issuer would do"));
        return None;
    }
    Some(Accepted { issuer: Issuer { issuer, audience, email: raw.email }, keys })
}

fn log_options(raw: &RawLog, problems: &mut Vec<String>) -> LogOptions {
    let mut options = LogOptions::default();
    match raw.queue_records {
        Some(0) => problems.push("log.queue_records: at least 1".to_owned()),
        Some(records) => options.queue_records_max = records,
        None => {}
    }
    match raw.queue_bytes {
        Some(bytes) if bytes < ITEM_BYTES_MAX => {
            problems.push(format!("log.queue_bytes: at least {ITEM_BYTES_MAX}, the largest event; what is larger than the queue waits alone"));
        }
        Some(bytes) => options.queue_bytes_max = bytes,
        None => {}
    }
    match raw.segment_bytes {
        Some(bytes) if !SEGMENT_BYTES.contains(&bytes) => problems.push("log.segment_bytes: 1 MiB to 1 GiB".to_owned()),
        Some(bytes) => options.segment_bytes = bytes,
        None => {}
    }
    match raw.group_delay_ms {
        Some(ms) if ms > GROUP_DELAY_MS_MAX => {
            problems.push(format!("log.group_delay_ms: at most {GROUP_DELAY_MS_MAX}, every sender waits for it"));
        }
        Some(ms) => options.group_delay = Duration::from_millis(ms),
        None => {}
    }
    options
}

fn retention(raw: &RawLog, problems: &mut Vec<String>) -> Retention {
    let mut retention = Retention::default();
    for (name, text, span) in
        [("keep", &raw.keep, &mut retention.age), ("retire_every", &raw.retire_every, &mut retention.every)]
    {
        let Some(text) = text else { continue };
        match pipeproof_engine::time::parse_span(text) {
            Some(read) if !read.is_zero() => *span = read,
            _ => problems.push(format!("log.{name}: `{text}` is not a span such as 1h or 7d")),
        }
    }
    retention.bytes = raw.keep_bytes.unwrap_or(retention.bytes);
    retention
}

fn read_secrets(raw: &[RawSecret], here: &str, problems: &mut Vec<String>) -> Vec<SecretText> {
    let mut secrets = Vec::new();
    for (at, secret) in raw.iter().enumerate() {
        match secret.read() {
            Ok(secret) => secrets.push(secret),
            Err(problem) => problems.push(format!("{here}.secrets[{at}]: {problem}")),
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        Config::parse(text, Path::new("p.yaml")).unwrap_err().to_string()
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let text = "version: 2\nsources:\n  - {name: Acme, type: github.webhok}\ntargets:\n  - {name: t, url: 'https://x', secrets: [{}]}\n";
        let said = problems(text);
        for part in ["version", "sources[0].name", "github.webhook", "targets[0].secrets[0]"] {
            assert!(said.contains(part), "{part} is missing in: {said}");
        }
    }

    #[test]
    fn a_name_stands_for_one() {
        let said = problems(
            "version: 1\nsources:\n  - {name: a, type: json}\n  - {name: b, type: json}\n  - {name: a, type: falco}\n\
             targets:\n  - {name: t, url: 'https://x', secrets: []}\n  - {name: t, url: 'https://y', secrets: []}\n",
        );
        for part in ["sources[2].name: `a`", "targets[1].name: `t`"] {
            assert!(said.contains(part), "{part} is missing in: {said}");
        }
        assert!(!said.contains("sources[1]"), "{said}");
    }

    #[test]
    fn the_log_takes_its_limits_within_bounds() {
        let text = "version: 1\nlog: {queue_records: 5, queue_bytes: 2097152, group_delay_ms: 20}\n";
        let log = Config::parse(text, Path::new("p.yaml")).unwrap().log;
        assert_eq!((log.queue_records_max, log.queue_bytes_max), (5, 2 << 20));
        assert_eq!(log.group_delay, Duration::from_millis(20));
        let said = problems("version: 1\nlog: {queue_records: 0, queue_bytes: 1000, group_delay_ms: 60000}\n");
        for part in ["log.queue_records", "log.queue_bytes", "log.group_delay_ms"] {
            assert!(said.contains(part), "{part} is missing in: {said}");
        }
        let unset = Config::parse("version: 1\n", Path::new("p.yaml")).unwrap().log;
        assert_eq!(unset.queue_records_max, LogOptions::default().queue_records_max);
    }

    #[test]
    fn a_public_url_is_an_address_without_more() {
        let text = "version: 1\npublic_url: https://pipeproof.example/\n";
        let config = Config::parse(text, Path::new("p.yaml")).unwrap();
        assert_eq!(config.public_url.as_deref(), Some("https://pipeproof.example"));
        assert!(problems("version: 1\npublic_url: pipeproof.example\n").contains("public_url: `pipeproof.example`"));
    }

    #[test]
    fn unknown_keys_are_errors_that_name_the_alternatives() {
        let said = problems("version: 1\nlissten: 127.0.0.1:1\n");
        assert!(said.contains("lissten") && said.contains("listen"), "{said}");
    }
}
