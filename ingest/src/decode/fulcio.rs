//! What a Fulcio certificate says about who signed, from which source, in which run.
//!
//! Source: sigstore/fulcio `docs/oid-info.md`, RFC 5280 section 4.1. Nothing is verified here: this is what the certificate
//! claims. So only its outline is read and what the claims are in; names and keys are stepped over.

use der::asn1::{AnyRef, BitStringRef, OctetStringRef, Utf8StringRef};
use der::{Decode, Encode, Reader, SliceReader, Tag, TagNumber, Tagged};
use engine::time::Timestamp;
use pipeproof_engine as engine;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

/// Root of Fulcio's extensions, `1.3.6.1.4.1.57264.1`, as DER writes it. The number of the claim follows.
const FULCIO: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01];
/// Object id of the subject alternative name, `2.5.29.17`.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

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
    let (not_before, extensions) = outline(der).ok()?;
    let seconds = not_before.to_unix_duration().as_secs();
    let mut claims = Claims { not_before: i64::try_from(seconds).ok().map(Timestamp::from_secs), ..Claims::default() };
    for (oid, value) in extensions {
        if oid == SUBJECT_ALT_NAME {
            claims.identity = SubjectAltName::from_der(value).ok().and_then(|names| names.0.iter().find_map(name));
        } else if let Some([number]) = oid.strip_prefix(FULCIO) {
            claim(&mut claims, *number, value);
        }
    }
    Some(claims)
}

/// An extension's object id and value.
type Extension<'d> = (&'d [u8], &'d [u8]);

/// From when a certificate is valid, and its extensions.
fn outline(der: &[u8]) -> der::Result<(Time, Vec<Extension<'_>>)> {
    let mut certificate = sequence(AnyRef::from_der(der)?)?;
    let mut signed = sequence(certificate.decode()?)?;
    sequence(certificate.decode()?)?;
    certificate.decode::<BitStringRef<'_>>()?;
    certificate.finish(())?;

    let mut serial: AnyRef<'_> = signed.decode()?;
    if serial.tag() == tagged(TagNumber::N0) {
        // The version, which is left out where it is 1.
        serial = signed.decode()?;
    }
    serial.tag().assert_eq(Tag::Integer)?;
    // Signature algorithm and issuer.
    sequence(signed.decode()?)?;
    sequence(signed.decode()?)?;
    let mut validity = sequence(signed.decode()?)?;
    let not_before = validity.decode()?;
    validity.decode::<Time>()?;
    // Subject and its key.
    sequence(signed.decode()?)?;
    sequence(signed.decode()?)?;
    let mut extensions = Vec::new();
    while !signed.is_finished() {
        let part: AnyRef<'_> = signed.decode()?;
        if part.tag() != tagged(TagNumber::N3) {
            continue;
        }
        let mut list = sequence(AnyRef::from_der(part.value())?)?;
        while !list.is_finished() {
            let mut extension = sequence(list.decode()?)?;
            let oid: AnyRef<'_> = extension.decode()?;
            oid.tag().assert_eq(Tag::ObjectIdentifier)?;
            if extension.peek_header()?.tag == Tag::Boolean {
                extension.decode::<bool>()?;
            }
            let value: OctetStringRef<'_> = extension.decode()?;
            extensions.push((oid.value(), value.as_bytes()));
        }
    }
    Ok((not_before, extensions))
}

/// A reader of what a sequence holds.
fn sequence(any: AnyRef<'_>) -> der::Result<SliceReader<'_>> {
    any.tag().assert_eq(Tag::Sequence)?;
    SliceReader::new(any.value())
}

const fn tagged(number: TagNumber) -> Tag {
    Tag::ContextSpecific { constructed: true, number }
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

fn claim(claims: &mut Claims, number: u8, value: &[u8]) {
    // Up to .7 the value is the bare text, from .8 on a DER string.
    let bare = || std::str::from_utf8(value).ok().map(ToOwned::to_owned);
    let text = || Utf8StringRef::from_der(value).ok().map(|text| text.as_str().to_owned());
    match number {
        1 => claims.issuer = claims.issuer.take().or_else(bare),
        8 => claims.issuer = text(),
        2 => claims.trigger = claims.trigger.take().or_else(bare),
        3 => claims.sha = claims.sha.take().or_else(bare),
        5 => claims.repo = claims.repo.take().or_else(bare),
        6 => claims.git_ref = claims.git_ref.take().or_else(bare),
        9 => claims.workflow_ref = text(),
        11 => claims.runner = text(),
        12 => claims.repo = text().map(|url| path_of(&url).to_owned()),
        13 => claims.sha = text(),
        14 => claims.git_ref = text(),
        20 => claims.trigger = text(),
        21 => {
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
