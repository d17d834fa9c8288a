//! A webhook target: where messages go, how they are signed, and what egress it is allowed.
//!
//! Only the generic webhook exists; pagers and chat systems have formats of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use super::egress::EgressPolicy;
use super::retry::Schedule;
use super::sign::WebhookSecret;

/// How many messages of different incidents are under way to one target at once.
pub const CONCURRENCY: usize = 4;

/// What a target is set up with.
#[derive(Clone)]
pub struct TargetSettings {
    /// Its name, unique among targets; receipts are kept under it.
    pub name: String,
    /// Where to.
    pub url: String,
    /// Signing secrets: the current one first, then those still valid while rotating. None: messages are unsigned.
    pub secrets: Vec<WebhookSecret>,
    /// Further request headers, such as `Authorization`; their values are treated as secrets.
    pub headers: BTreeMap<String, String>,
    /// Whether private and loopback addresses may be reached, and those also over plain http.
    pub allow_private: bool,
    /// When failed attempts are repeated.
    pub schedule: Schedule,
}

impl fmt::Debug for TargetSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TargetSettings")
            .field("name", &self.name)
            .field("url", &"[redacted]")
            .field("secrets", &self.secrets)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("allow_private", &self.allow_private)
            .field("schedule", &self.schedule)
            .finish()
    }
}

/// A target whose settings were checked.
#[derive(Clone)]
pub struct Target {
    pub(super) name: String,
    pub(super) url: Url,
    pub(super) secrets: Vec<WebhookSecret>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) policy: EgressPolicy,
    pub(super) schedule: Schedule,
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Target").field("name", &self.name).field("at", &self.place()).finish_non_exhaustive()
    }
}

/// Why a target cannot be used. Neither its URL nor its headers' values are repeated: both may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL with a host.
    #[error("the url of target `{0}` is not a URL with a host")]
    Url(String),
    /// Neither https nor http.
    #[error("target `{name}` has a url of scheme `{scheme}`; deliveries go over https")]
    Scheme {
        /// Target.
        name: String,
        /// The scheme.
        scheme: String,
    },
    /// Plain http to anywhere but a private address.
    #[error(
        "target `{0}` has a plain http url; use https, or set `allow_private: true` if it stands on a private network"
    )]
    Plain(String),
    /// User and password in the URL.
    #[error("target `{0}` has a user name or password in its url; put them into a header `Authorization`")]
    Credentials(String),
    /// An address that deliveries may not go to.
    #[error(
        "target `{name}` stands at {address}, where deliveries may not go; set `allow_private: true` if it is meant"
    )]
    Address {
        /// Target.
        name: String,
        /// The address.
        address: IpAddr,
    },
    /// Not an HTTP header, or one that delivery sets itself.
    #[error(
        "target `{name}` sets a header `{header}` that is not a valid HTTP header or that every delivery sets itself"
    )]
    Header {
        /// Target.
        name: String,
        /// The header's name.
        header: String,
    },
    /// The HTTP client cannot be built.
    #[error("cannot set up an HTTP client for target `{name}`: {reason}")]
    Client {
        /// Target.
        name: String,
        /// Why.
        reason: String,
    },
}

impl Target {
    /// Checks a target's settings. Names are resolved only when something is sent.
    ///
    /// # Errors
    /// [`TargetError`] for the first thing that is wrong.
    pub fn new(settings: TargetSettings) -> Result<Self, TargetError> {
        let TargetSettings { name, url, secrets, headers, allow_private, schedule } = settings;
        let url = Url::parse(url.trim()).map_err(|_| TargetError::Url(name.clone()))?;
        let policy = if allow_private { EgressPolicy::AllowPrivate } else { EgressPolicy::Public };
        let plain = match url.scheme() {
            "https" => false,
            "http" => true,
            scheme => return Err(TargetError::Scheme { scheme: scheme.to_owned(), name }),
        };
        if plain && !allow_private {
            return Err(TargetError::Plain(name));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Credentials(name));
        }
        let host = url.host_str().ok_or_else(|| TargetError::Url(name.clone()))?;
        // The client connects to a literal address without asking the resolver, so it is checked here.
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>()
            && !policy.allows(address, plain)
        {
            return Err(TargetError::Address { name, address });
        }
        let mut checked = Vec::with_capacity(headers.len());
        for (header, value) in headers {
            let wrong = || TargetError::Header { name: name.clone(), header: header.clone() };
            let key = HeaderName::from_bytes(header.as_bytes()).map_err(|_| wrong())?;
            let mut value = HeaderValue::from_str(&value).map_err(|_| wrong())?;
            let own = ["host", "content-type", "content-length", "transfer-encoding", "connection"];
            if own.contains(&key.as_str()) || key.as_str().starts_with("webhook-") {
                return Err(wrong());
            }
            value.set_sensitive(true);
            checked.push((key, value));
        }
        Ok(Self { name, url, secrets, headers: checked, policy, schedule })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Scheme, host and port: what can be shown of the URL, whose path often is a secret.
    #[must_use]
    pub fn place(&self) -> String {
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", self.url.scheme(), self.url.host_str().unwrap_or_default())
    }

    pub(super) fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, allow_private: bool) -> TargetSettings {
        TargetSettings {
            name: "t".to_owned(),
            url: url.to_owned(),
            secrets: Vec::new(),
            headers: BTreeMap::new(),
            allow_private,
            schedule: Schedule::default(),
        }
    }

    #[test]
    fn urls_are_checked_before_anything_is_sent() {
        let refused = [
            ("nonsense", false),
            ("ftp://example.org/", false),
            ("http://example.org/", false),
            ("file:///etc/passwd", true),
            ("https://user:secret@example.org/", false),
            ("https://127.0.0.1/", false),
            ("https://[::1]/", false),
            ("https://[::ffff:10.0.0.1]/", false),
            ("https://2130706433/", false),
            ("https://0x7f.1/", false),
            ("https://169.254.169.254/latest", true),
            ("http://1.1.1.1/", true),
            ("https://10.1.2.3:8443/", false),
        ];
        for (url, allow_private) in refused {
            assert!(Target::new(settings(url, allow_private)).is_err(), "{url}");
        }
        let taken = [
            ("https://example.org/hook/T0/secret", false),
            ("https://1.1.1.1/", false),
            ("http://127.0.0.1:9/", true),
            ("https://[fc00::1]/", true),
            ("http://receiver.internal/", true),
        ];
        for (url, allow_private) in taken {
            let target = Target::new(settings(url, allow_private)).unwrap();
            assert!(!format!("{target:?}").contains("secret"), "{target:?}");
        }
    }

    #[test]
    fn headers_cannot_take_over_what_delivery_sets() {
        for header in ["webhook-id", "Webhook-Signature", "Host", "content-length", "bad header"] {
            let mut settings = settings("https://example.org/", false);
            settings.headers.insert(header.to_owned(), "x".to_owned());
            assert!(matches!(Target::new(settings), Err(TargetError::Header { .. })), "{header}");
        }
        let mut settings = settings("https://example.org/", false);
        settings.headers.insert("Authorization".to_owned(), "Bearer hush".to_owned());
        assert!(!format!("{settings:?}").contains("hush"));
        assert!(!format!("{:?}", Target::new(settings).unwrap()).contains("hush"));
    }
}
