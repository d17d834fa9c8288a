//! Where senders reach this server: what the configuration says, else where it listens. Commands on this machine come
//! by another door, which nobody else must be told.

use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

use reqwest::Url;

use crate::config::LISTEN;

/// What to know where nobody said how senders reach us.
const UNSAID: &str = "public_url is not set in pipeproof.yaml: the address below is where the server listens, and senders may need another one";

/// The address that senders are told.
#[derive(Debug, Default)]
pub(crate) struct PublicAddress {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    configured: Option<String>,
    listening: Option<String>,
}

impl PublicAddress {
    /// As the configuration says, from [`checked`].
    pub(crate) fn new(configured: Option<String>) -> Self {
        Self { known: RwLock::new(Known { configured, listening: None }) }
    }

    /// The configuration was read again.
    pub(crate) fn configure(&self, configured: Option<String>) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).configured = configured;
    }

    /// Where the server listens for others.
    pub(crate) fn listens(&self, encrypted: bool, address: SocketAddr) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).listening = Some(url(encrypted, address));
    }

    /// The beginning of every address that a sender is told, without a slash at its end; and what to know about it, if
    /// nobody set it. Without a server it is where one listens that is not told otherwise.
    pub(crate) fn base(&self) -> (String, Option<&'static str>) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match (&known.configured, &known.listening) {
            (Some(configured), _) => (configured.clone(), None),
            (None, Some(listening)) => (listening.clone(), Some(UNSAID)),
            (None, None) => (url(false, LISTEN), Some(UNSAID)),
        }
    }
}

/// A listener's address as a URL.
pub(crate) fn url(encrypted: bool, address: SocketAddr) -> String {
    format!("{}://{address}", if encrypted { "https" } else { "http" })
}

/// `public_url` as it may be put into any sender's configuration: scheme, host, perhaps a port and a path, and nothing that
/// would have to be quoted there.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn checked(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not an address such as https://pipeproof.example");
    let url: Url = text.parse().map_err(|_| wrong())?;
    let plain = url.path().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte));
    let alone =
        url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() || !plain || !alone {
        return Err(wrong());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_is_told_else_where_it_listens() {
        let address = PublicAddress::default();
        assert_eq!(address.base(), ("http://127.0.0.1:7391".to_owned(), Some(UNSAID)));
        address.listens(true, "192.0.2.7:8443".parse().unwrap());
        assert_eq!(address.base(), ("https://192.0.2.7:8443".to_owned(), Some(UNSAID)));
        address.configure(Some("https://pipeproof.example".to_owned()));
        assert_eq!(address.base(), ("https://pipeproof.example".to_owned(), None));
    }

    #[test]
    fn a_public_url_has_nothing_that_would_need_quoting() {
        for (given, taken) in [
            ("https://pipeproof.example", "https://pipeproof.example"),
            ("https://Pipeproof.example:8443/", "https://pipeproof.example:8443"),
            ("http://[::1]:7391", "http://[::1]:7391"),
            ("https://acme.example/audit/pipeproof/", "https://acme.example/audit/pipeproof"),
        ] {
            assert_eq!(checked(given).as_deref(), Ok(taken));
        }
        for wrong in [
            "pipeproof.example",
            "ftp://pipeproof.example",
            "https://",
            "https://u@pipeproof.example",
            "https://u:p@pipeproof.example",
            "https://pipeproof.example?a=b",
            "https://pipeproof.example#a",
            "https://pipeproof.example/it's",
            "https://pipeproof.example/$(id)",
        ] {
            assert!(checked(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
