//! What a configuration says about ways in other than HTTP: files to follow, syslog to listen for, topics to read.

use std::net::SocketAddr;
use std::path::PathBuf;

use pipeproof_ingest::kafka;
use serde::Deserialize;

/// The ways in of a source, as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawReads {
    /// Files and folders, followed through rotation.
    #[serde(default)]
    files: Vec<PathBuf>,
    syslog: Option<RawSyslog>,
    kafka: Option<RawKafka>,
}

/// Syslog over TCP (RFC 5424 or 3164, framed as RFC 6587).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSyslog {
    /// Address to listen on.
    listen: SocketAddr,
    /// Listen for other machines although nothing protects what they send on its way.
    #[serde(default)]
    allow_plaintext: bool,
}

/// A consumer group on topics.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKafka {
    /// Brokers to begin with, host:port.
    brokers: Vec<String>,
    topics: Vec<String>,
    /// Name of the consumer group. `pipeproof-SOURCE` unless set.
    group: Option<String>,
}

/// The ways in of a source, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) syslog: Option<SocketAddr>,
    pub(crate) kafka: Option<kafka::Settings>,
}

impl RawReads {
    /// Checks them; `here` is where they stand, `source` whose they are.
    pub(crate) fn checked(self, here: &str, source: &str, problems: &mut Vec<String>) -> Reads {
        for (at, path) in self.files.iter().enumerate() {
            if !path.is_absolute() {
                problems.push(format!("{here}.reads.files[{at}]: `{}` is not absolute", path.display()));
            }
        }
        let syslog = self.syslog.map(|syslog| {
            if !syslog.listen.ip().is_loopback() && !syslog.allow_plaintext {
                problems.push(format!(
                    "{here}.reads.syslog.listen: {} is reachable from other machines in plain text: say allow_plaintext: true, or put a TLS proxy before loopback",
                    syslog.listen
                ));
            }
            syslog.listen
        });
        let kafka = self.kafka.map(|kafka| {
            if kafka.brokers.is_empty() || kafka.topics.is_empty() {
                problems.push(format!("{here}.reads.kafka: at least one of brokers and topics"));
            }
            let group = kafka.group.unwrap_or_else(|| format!("pipeproof-{source}"));
            kafka::Settings { brokers: kafka.brokers, topics: kafka.topics, group }
        });
        Reads { files: self.files, syslog, kafka }
    }
}
