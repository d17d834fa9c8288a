//! Which topics are read from which brokers, how the brokers are spoken to, and what librdkafka is told of it.

use std::fmt;
use std::path::PathBuf;

/// Where to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Brokers to begin with, `host:port`.
    pub brokers: Vec<String>,
    /// Topics.
    pub topics: Vec<String>,
    /// Name of the consumer group: who reads on where it stopped.
    pub group: String,
    /// TLS and SASL; plain text without either.
    pub security: Security,
}

/// How the brokers are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// TLS, in which the brokers prove their names.
    pub tls: Option<Tls>,
    /// How we say who we are.
    pub sasl: Option<Sasl>,
}

/// TLS to the brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities of the brokers' certificates (PEM); the operating system's unless set.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key (PEM), where brokers ask for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// SASL with a name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// The name. Azure Event Hubs takes the words `$ConnectionString`.
    pub username: String,
    /// The password; for Event Hubs the connection string.
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Sasl");
        shown.field("mechanism", &self.mechanism).field("username", &self.username);
        shown.field("password", &"[redacted]").finish()
    }
}

/// SASL mechanisms with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The password itself (RFC 4616).
    Plain,
    /// A proof that one has it (RFC 5802, RFC 7677).
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// All of them, in the order errors name them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// Its name in SASL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    /// The mechanism of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }
}

/// What librdkafka is told (its `CONFIGURATION.md`).
pub(super) fn properties(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut properties = vec![
        ("bootstrap.servers", settings.brokers.join(",")),
        ("group.id", settings.group.clone()),
        ("enable.auto.commit", "false".to_owned()),
        ("auto.offset.reset", "earliest".to_owned()),
        // What a killed reader held is free again after so long; the default is 45 s.
        ("session.timeout.ms", "10000".to_owned()),
        // What waits for us in memory at most.
        ("queued.max.messages.kbytes", "16384".to_owned()),
        // Load balancers drop quiet connections without a word; Azure's do so after four minutes.
        ("socket.keepalive.enable", "true".to_owned()),
        ("metadata.max.age.ms", "180000".to_owned()),
    ];
    let Security { tls, sasl } = &settings.security;
    let protocol = match (tls, sasl) {
        (None, None) => return properties,
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    properties.push(("security.protocol", protocol.to_owned()));
    if let Some(tls) = tls {
        // The library is linked statically: without being told it would look where its own OpenSSL was built.
        let ca = tls.ca.as_ref().map_or_else(|| "probe".to_owned(), |ca| ca.display().to_string());
        properties.push(("ssl.ca.location", ca));
        properties.push(("ssl.endpoint.identification.algorithm", "https".to_owned()));
        if let Some((certificate, key)) = &tls.certificate {
            properties.push(("ssl.certificate.location", certificate.display().to_string()));
            properties.push(("ssl.key.location", key.display().to_string()));
        }
    }
    if let Some(sasl) = sasl {
        properties.push(("sasl.mechanism", sasl.mechanism.name().to_owned()));
        properties.push(("sasl.username", sasl.username.clone()));
        properties.push(("sasl.password", sasl.password.clone()));
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(security: Security) -> Vec<(&'static str, String)> {
        let settings = Settings {
            brokers: vec!["a:9093".to_owned(), "b:9093".to_owned()],
            topics: vec!["t".to_owned()],
            group: "g".to_owned(),
            security,
        };
        properties(&settings)
    }

    fn value<'a>(properties: &'a [(&'static str, String)], name: &str) -> Option<&'a str> {
        properties.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn plain_text_says_nothing_of_security() {
        let plain = told(Security::default());
        assert_eq!(value(&plain, "bootstrap.servers"), Some("a:9093,b:9093"));
        assert!(
            plain.iter().all(|(name, _)| !name.starts_with("s") || !name.contains("ssl") && !name.contains("sasl"))
        );
        assert_eq!(value(&plain, "security.protocol"), None);
    }

    #[test]
    fn event_hubs_are_sasl_plain_over_tls_with_the_connection_string() {
        let sasl = Sasl {
            mechanism: Mechanism::Plain,
            username: "$ConnectionString".to_owned(),
            password: "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKey=x".to_owned(),
        };
        assert!(!format!("{sasl:?}").contains("Endpoint"), "a password in debug output");
        let hubs = told(Security { tls: Some(Tls::default()), sasl: Some(sasl) });
        for (name, expected) in [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", "probe"),
            ("ssl.endpoint.identification.algorithm", "https"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "$ConnectionString"),
            ("sasl.password", "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKey=x"),
        ] {
            assert_eq!(value(&hubs, name), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_certificate_of_our_own_goes_with_its_key() {
        let certificate = Some(("/c.pem".into(), "/k.pem".into()));
        let told = told(Security { tls: Some(Tls { ca: Some("/ca.pem".into()), certificate }), sasl: None });
        assert_eq!(value(&told, "security.protocol"), Some("ssl"));
        assert_eq!(value(&told, "ssl.ca.location"), Some("/ca.pem"));
        assert_eq!(value(&told, "ssl.certificate.location"), Some("/c.pem"));
        assert_eq!(value(&told, "ssl.key.location"), Some("/k.pem"));
    }

    #[test]
    fn mechanisms_are_known_by_their_names() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::named(mechanism.name()), Some(mechanism));
        }
        assert_eq!(Mechanism::named("GSSAPI"), None);
    }
}
