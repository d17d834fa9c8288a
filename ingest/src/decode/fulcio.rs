//! What a Fulcio certificate says about who signed, from which source, in which run.
//!
//! Source: sigstore/fulcio `docs/oid-info.md`. Nothing is verified here: this is what the certificate claims.

use der::asn1::Utf8StringRef;
use der::{Decode, Encode};
use engine::time::Timestamp;
use pipeproof_engine as engine;
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Root of Fulcio's extensions.
const FULCIO: &str = "1.3.6.1.4.1.57264.1.";
/// Object id of the subject alternative name.
const SUBJECT_ALT_NAME: &str = "2.5.29.17";

/// Claims of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) identity: Option<String>,
    pub(super) issuer: Option<String>,
    pub(super) not_before: Option<Timestamp>,
    /// `owner/name`.
    pub(super) repo: Option<String>,
    pub(super) sha: Option<String>,
    pub(super) git_ref: Option<String>,
    pub(super) trigger: Option<String>,
    pub(super) runner: Option<String>,
    pub(super) workflow_ref: Option<String>,
    pub(super) run_id: Option<String>,
    pub(super) attempt: Option<i64>,
}

/// Reads a DER certificate; `None` if it is not one.
pub(super) fn read(der: &[u8]) -> Option<Claims> {
    let certificate = Certificate::from_der(der).ok()?.tbs_certificate;
    let seconds = certificate.validity.not_before.to_unix_duration().as_secs();
    let mut claims = Claims { not_before: i64::try_from(seconds).ok().map(Timestamp::from_secs), ..Claims::default() };
    for extension in certificate.extensions.unwrap_or_default() {
        let oid = extension.extn_id.to_string();
        let value = extension.extn_value.as_bytes();
        if oid == SUBJECT_ALT_NAME {
            claims.identity = SubjectAltName::from_der(value).ok().and_then(|names| names.0.iter().find_map(name));
        } else if let Some(number) = oid.strip_prefix(FULCIO) {
            claim(&mut claims, number, value);
        }
    }
    Some(claims)
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        GeneralName::Rfc822Name(mail) => Some(mail.to_string()),
        // Username identities: a UTF-8 string inside.
        GeneralName::OtherName(other) => {
            let bytes = other.value.to_der().ok()?;
            Some(Utf8StringRef::from_der(&bytes).ok()?.as_str().to_owned())
        }
        _ => None,
    }
}

fn claim(claims: &mut Claims, number: &str, value: &[u8]) {
    // Up to .7 the value is the bare text, from .8 on a DER string.
    let bare = || std::str::from_utf8(value).ok().map(ToOwned::to_owned);
    let text = || Utf8StringRef::from_der(value).ok().map(|text| text.as_str().to_owned());
    match number {
        "1" => claims.issuer = claims.issuer.take().or_else(bare),
        "8" => claims.issuer = text(),
        "2" => claims.trigger = claims.trigger.take().or_else(bare),
        "3" => claims.sha = claims.sha.take().or_else(bare),
        "5" => claims.repo = claims.repo.take().or_else(bare),
        "6" => claims.git_ref = claims.git_ref.take().or_else(bare),
        "9" => claims.workflow_ref = text(),
        "11" => claims.runner = text(),
        "12" => claims.repo = text().map(|url| path_of(&url).to_owned()),
        "13" => claims.sha = text(),
        "14" => claims.git_ref = text(),
        "20" => claims.trigger = text(),
        "21" => {
            if let Some(url) = text() {
                // https://github.com/OWNER/REPO/actions/runs/ID/attempts/N
                let mut parts = url.split('/').skip_while(|part| *part != "runs").skip(1);
                claims.run_id = parts.next().map(ToOwned::to_owned);
                claims.attempt = parts.nth(1).and_then(|text| text.parse().ok());
            }
        }
        _ => {}
    }
}

/// The path of a URL without the leading slash.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(_, path)| path)
}
