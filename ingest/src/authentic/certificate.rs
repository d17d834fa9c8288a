//! Client certificates: what the certificate that a sender proved on its connection says about it (RFC 5280), and whether
//! a source accepts it.
//!
//! What it is not: the check of the chain, of the signature and of revocation. The connection's handshake did that.

use std::net::IpAddr;
use std::str::FromStr;

use der::Decode;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::RdnSequence;

/// Most alternative names that are read of one certificate.
const NAMES_MAX: usize = 256;

/// What a client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 over its DER, 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints it between colons.
    pub fingerprint: String,
    /// Its subject (RFC 4514): `CN=shipper,O=acme`; empty if it has none.
    pub subject: String,
    /// Until when it is valid. A connection may live longer.
    pub not_after: Timestamp,
    names: Vec<AlternativeName>,
}

/// A subject alternative name of the kinds that are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AlternativeName {
    /// In lower case.
    Dns(String),
    Email(String),
    Uri(String),
    Ip(IpAddr),
}

/// Why a certificate cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It is no X.509 certificate.
    #[error("cannot read the client's certificate")]
    Der(#[from] der::Error),
    /// It names more than anybody needs.
    #[error("the client's certificate has more than {NAMES_MAX} alternative names")]
    Names,
}

/// Which certificates a source accepts. Everything that is set must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptedCertificate {
    subject: Option<String>,
    san: Option<AlternativeName>,
    spiffe: Option<Spiffe>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Spiffe {
    One(String),
    /// Every identity below this path, which ends in `/`.
    Below(String),
}

/// Why a rule for certificates is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityRuleError {
    /// Every certificate of the authority would do.
    #[error("give at least one of subject, san and spiffe: else every certificate of the authority would do")]
    Empty,
    /// The subject is no distinguished name.
    #[error(
        "subject `{0}` is no distinguished name such as CN=shipper,O=acme (RFC 4514, as `openssl x509 -nameopt RFC2253` prints it)"
    )]
    Subject(String),
    /// The alternative name is empty.
    #[error("san is empty")]
    San,
    /// The SPIFFE id is none.
    #[error(
        "spiffe `{0}` is no id such as spiffe://acme.example/ns/ci/sa/shipper; `/*` at its end accepts every id below"
    )]
    Spiffe(String),
}

impl ClientCertificate {
    /// Reads a certificate's DER.
    ///
    /// # Errors
    /// [`CertificateError`] if it is no certificate, or names too much.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = Certificate::from_der(der)?;
        let certificate = certificate.tbs_certificate;
        let mut names = Vec::new();
        if let Some((_, SubjectAltName(all))) = certificate.get::<SubjectAltName>()? {
            if all.len() > NAMES_MAX {
                return Err(CertificateError::Names);
            }
            names = all.iter().filter_map(AlternativeName::of).collect();
        }
        let seconds = certificate.validity.not_after.to_unix_duration().as_secs();
        Ok(Self {
            fingerprint: hex::encode(Sha256::digest(der)),
            subject: certificate.subject.to_string(),
            not_after: Timestamp::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)),
            names,
        })
    }

    /// What stands for it as a key's id in records.
    #[must_use]
    pub fn key_id(&self) -> String {
        format!("sha256:{}", self.fingerprint)
    }

    /// The one URI of a SPIFFE certificate; none if it has none or several (X509-SVID, §2).
    fn spiffe(&self) -> Option<&str> {
        let mut uris = self.names.iter().filter_map(|name| match name {
            AlternativeName::Uri(uri) => Some(uri.as_str()),
            AlternativeName::Dns(_) | AlternativeName::Email(_) | AlternativeName::Ip(_) => None,
        });
        let one = uris.next()?;
        uris.next().is_none().then_some(one)
    }
}

impl AlternativeName {
    fn of(name: &GeneralName) -> Option<Self> {
        match name {
            GeneralName::DnsName(name) => Some(Self::Dns(name.as_str().to_ascii_lowercase())),
            GeneralName::Rfc822Name(name) => Some(Self::Email(name.as_str().to_owned())),
            GeneralName::UniformResourceIdentifier(name) => Some(Self::Uri(name.as_str().to_owned())),
            GeneralName::IpAddress(bytes) => {
                let bytes = bytes.as_bytes();
                let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
                four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(Self::Ip)
            }
            GeneralName::OtherName(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EdiPartyName(_)
            | GeneralName::RegisteredId(_) => None,
        }
    }

    /// Which kind a name in the configuration is follows from its form.
    fn written(text: &str) -> Self {
        if let Ok(address) = text.parse() {
            Self::Ip(address)
        } else if text.contains("://") {
            Self::Uri(text.to_owned())
        } else if text.contains('@') {
            Self::Email(text.to_owned())
        } else {
            Self::Dns(text.to_ascii_lowercase())
        }
    }
}

impl AcceptedCertificate {
    /// A rule from what the configuration says: `subject` a distinguished name, `san` one alternative name (DNS, address,
    /// e-mail or URI), `spiffe` an id, or all below it with `/*` at its end.
    ///
    /// # Errors
    /// [`IdentityRuleError`] if nothing is set, or what is set is not of its form.
    pub fn new(subject: Option<&str>, san: Option<&str>, spiffe: Option<&str>) -> Result<Self, IdentityRuleError> {
        if subject.is_none() && san.is_none() && spiffe.is_none() {
            return Err(IdentityRuleError::Empty);
        }
        let subject = subject.map(canonical).transpose()?;
        let san = match san.map(str::trim) {
            Some("") => return Err(IdentityRuleError::San),
            san => san.map(AlternativeName::written),
        };
        Ok(Self { subject, san, spiffe: spiffe.map(Spiffe::written).transpose()? })
    }

    /// Whether a certificate that was proven is accepted at this time.
    #[must_use]
    pub fn accepts(&self, certificate: &ClientCertificate, now: Timestamp) -> bool {
        now <= certificate.not_after
            && self.subject.as_ref().is_none_or(|subject| *subject == certificate.subject)
            && self.san.as_ref().is_none_or(|name| certificate.names.contains(name))
            && self.spiffe.as_ref().is_none_or(|id| certificate.spiffe().is_some_and(|given| id.accepts(given)))
    }
}

/// A distinguished name as a certificate's is printed: blanks around its parts say nothing.
fn canonical(text: &str) -> Result<String, IdentityRuleError> {
    let wrong = || IdentityRuleError::Subject(text.to_owned());
    let name = RdnSequence::from_str(&without_blanks(text)).map_err(|_| wrong())?;
    let printed = name.to_string();
    if name.is_empty() || printed.is_empty() { Err(wrong()) } else { Ok(printed) }
}

/// The text of a name without blanks after the commas between its parts; a comma that is escaped belongs to a value.
fn without_blanks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut escaped, mut between) = (false, true);
    for letter in text.trim().chars() {
        if between && letter == ' ' {
            continue;
        }
        between = !escaped && letter == ',';
        escaped = !escaped && letter == '\\';
        out.push(letter);
    }
    out
}

impl Spiffe {
    fn written(text: &str) -> Result<Self, IdentityRuleError> {
        let wrong = || IdentityRuleError::Spiffe(text.to_owned());
        let (domain, path) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
        let (path, below) = path.strip_suffix('*').map_or((path, false), |path| (path, true));
        if domain.is_empty() || path.contains('*') || (below && !(path.is_empty() || path.ends_with('/'))) {
            return Err(wrong());
        }
        if path.is_empty() && !below {
            return Err(wrong());
        }
        let id = format!("spiffe://{}/{path}", domain.to_ascii_lowercase());
        Ok(if below { Self::Below(id) } else { Self::One(id) })
    }

    fn accepts(&self, given: &str) -> bool {
        match self {
            Self::One(id) => id == given,
            Self::Below(path) => given.strip_prefix(path.as_str()).is_some_and(|rest| !rest.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests;
