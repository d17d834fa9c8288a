//! What a configuration says about ways in other than HTTP: files to follow, syslog to listen for, topics to read.

use std::net::SocketAddr;
use std::path::PathBuf;

use pipeproof_ingest::kafka;
use serde::Deserialize;

use crate::config::RawSecret;
use crate::tls::TlsFiles;

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
    /// Speak TLS (RFC 5425).
    tls: Option<TlsFiles>,
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
    /// TLS, and SASL. Without it the brokers are spoken to in plain text.
    security: Option<RawSecurity>,
}

/// How brokers are spoken to: over TLS, unless told otherwise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSecurity {
    /// Authorities of the brokers' certificates (PEM). The operating system's unless set.
    ca: Option<PathBuf>,
    /// Our own certificate and its key (PEM), where brokers ask for one.
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    sasl: Option<RawSasl>,
    /// No TLS: name and password are readable on their way.
    #[serde(default)]
    allow_plaintext: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSasl {
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    mechanism: String,
    username: String,
    password: RawSecret,
}

/// Where syslog is listened for, and how.
#[derive(Clone, Debug)]
pub(crate) struct Syslog {
    pub(crate) listen: SocketAddr,
    pub(crate) tls: Option<TlsFiles>,
}

/// The ways in of a source, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) syslog: Option<Syslog>,
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
            if let Some(tls) = &syslog.tls {
                tls.check(&format!("{here}.reads.syslog.tls"), problems);
            } else if !syslog.listen.ip().is_loopback() && !syslog.allow_plaintext {
                problems.push(format!(
                    "{here}.reads.syslog.listen: {} is reachable from other machines in plain text: set tls, or say allow_plaintext: true",
                    syslog.listen
                ));
            }
            Syslog { listen: syslog.listen, tls: syslog.tls }
        });
        let kafka = self.kafka.map(|kafka| {
            if kafka.brokers.is_empty() || kafka.topics.is_empty() {
                problems.push(format!("{here}.reads.kafka: at least one of brokers and topics"));
            }
            let group = kafka.group.unwrap_or_else(|| format!("pipeproof-{source}"));
            let here = format!("{here}.reads.kafka.security");
            let security = kafka.security.map(|raw| raw.checked(&here, problems)).unwrap_or_default();
            kafka::Settings { brokers: kafka.brokers, topics: kafka.topics, group, security }
        });
        Reads { files: self.files, syslog, kafka }
    }
}

impl RawSecurity {
    fn checked(self, here: &str, problems: &mut Vec<String>) -> kafka::Security {
        let certificate = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                problems.push(format!("{here}: cert and key go together"));
                None
            }
        };
        if self.allow_plaintext && (self.ca.is_some() || certificate.is_some()) {
            problems.push(format!("{here}.allow_plaintext: without TLS, certificates are of no use"));
        }
        let tls = (!self.allow_plaintext).then_some(kafka::Tls { ca: self.ca, certificate });
        let sasl = self.sasl.and_then(|sasl| {
            let password = sasl.password.read();
            let password = password.map_err(|problem| problems.push(format!("{here}.sasl.password: {problem}"))).ok();
            let mechanism = kafka::Mechanism::named(&sasl.mechanism);
            if mechanism.is_none() {
                let known = kafka::Mechanism::ALL.map(kafka::Mechanism::name).join(", ");
                problems.push(format!("{here}.sasl.mechanism: `{}` is none of {known}", sasl.mechanism));
            }
            Some(kafka::Sasl { mechanism: mechanism?, username: sasl.username, password: password?.0 })
        });
        kafka::Security { tls, sasl }
    }
}
