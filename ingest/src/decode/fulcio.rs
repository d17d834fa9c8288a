//! What a Fulcio certificate says about who signed, from which source, in which run.
//!
//! Source: sigstore/fulcio `docs/oid-info.md`, RFC 5280 section 4.1. Nothing is verified here: this is what the certificate
//! claims. So only its outline is read and what the claims are in; names and keys are stepped over.

use std::borrow::Cow;

use chrono::NaiveDate;
use der::asn1::{BitStringRef, Utf8StringRef};
use der::{Decode, Encode, Reader, SliceReader};
use engine::time::Timestamp;
use pipeproof_engine as engine;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

use self::values::Values;
use super::git_remote::after_scheme;

mod values;

/// Root of Fulcio's extensions, `1.3.6.1.4.1.57264.1`, as DER writes it. The number of the claim follows.
const FULCIO: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01];
/// Object id of the subject alternative name, `2.5.29.17`.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Claims of a certificate, as they are written in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims<'d> {
    pub(super) identity: Option<Cow<'d, str>>,
    pub(super) issuer: Option<&'d str>,
    pub(super) not_before: Option<Timestamp>,
    /// `owner/name`.
    pub(super) repo: Option<&'d str>,
    pub(super) sha: Option<&'d str>,
    pub(super) git_ref: Option<&'d str>,
    pub(super) trigger: Option<&'d str>,
    pub(super) runner: Option<&'d str>,
    pub(super) workflow_ref: Option<&'d str>,
    pub(super) run_id: Option<&'d str>,
    pub(super) attempt: Option<i64>,
}

/// Reads a DER certificate; `None` if it is not one.
pub(super) fn read(der: &[u8]) -> Option<Claims<'_>> {
    let mut claims = Claims::default();
    let not_before = outline(der, |oid, value| {
        if oid == SUBJECT_ALT_NAME {
            claims.identity = identity(value);
        } else if let Some((number, FULCIO)) = oid.split_last() {
            claim(&mut claims, *number, value);
        }
    });
    claims.not_before = Some(not_before?);
    Some(claims)
}

/// From when a certificate is valid; what it is extended by is handed on as object ids and values.
fn outline<'d>(der: &'d [u8], mut extended: impl FnMut(&'d [u8], &'d [u8])) -> Option<Timestamp> {
    let mut certificate = Values::of(values::only(der, values::SEQUENCE)?);
    let mut signed = Values::of(certificate.next_as(values::SEQUENCE)?);
    certificate.next_as(values::SEQUENCE)?;
    BitStringRef::from_der(certificate.rest()).ok()?;

    let (mut tag, _) = signed.next()?;
    if tag == values::tagged(0) {
        // The version, which is left out where it is 1.
        (tag, _) = signed.next()?;
    }
    if tag != values::INTEGER {
        return None;
    }
    // Signature algorithm and issuer.
    signed.next_as(values::SEQUENCE)?;
    signed.next_as(values::SEQUENCE)?;
    let not_before = not_before(signed.next_as(values::SEQUENCE)?)?;
    // Subject and its key.
    signed.next_as(values::SEQUENCE)?;
    signed.next_as(values::SEQUENCE)?;
    while !signed.rest().is_empty() {
        let (tag, part) = signed.next()?;
        if tag != values::tagged(3) {
            continue;
        }
        let mut list = Values::of(values::only(part, values::SEQUENCE)?);
        while !list.rest().is_empty() {
            let mut extension = Values::of(list.next_as(values::SEQUENCE)?);
            let oid = extension.next_as(values::OBJECT_ID)?;
            let (mut tag, mut value) = extension.next()?;
            // Whether it is critical, which is left out where it is not.
            if tag == values::BOOLEAN && matches!(value, [0 | 0xff]) {
                (tag, value) = extension.next()?;
            }
            if tag != values::OCTETS {
                return None;
            }
            extended(oid, value);
        }
    }
    Some(not_before)
}

/// The first of two times.
fn not_before(validity: &[u8]) -> Option<Timestamp> {
    let usual = usual_time(validity).and_then(|(time, rest)| usual_time(rest).map(|_| time));
    usual.or_else(|| {
        let mut validity = SliceReader::new(validity).ok()?;
        let not_before: Time = validity.decode().ok()?;
        validity.decode::<Time>().ok()?;
        i64::try_from(not_before.to_unix_duration().as_secs()).ok().map(Timestamp::from_secs)
    })
}

/// A time of this half of the century as nearly every certificate has it, `YYMMDDHHMMSSZ`, and what comes after it.
fn usual_time(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (time, rest) = der.split_first_chunk::<15>()?;
    let [0x17, 13, digits @ .., b'Z'] = time else { return None };
    let mut numbers = [0; 6];
    for (number, digits) in numbers.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [tens, ones] = digits.map(|digit| digit.wrapping_sub(b'0'));
        if tens > 9 || ones > 9 {
            return None;
        }
        *number = u32::from(tens * 10 + ones);
    }
    let [year, month, day, hour, minute, second] = numbers;
    if year >= 50 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(i32::try_from(2000 + year).ok()?, month, day)?;
    let days = date.signed_duration_since(NaiveDate::default()).num_days();
    Some((Timestamp::from_secs(days * 86_400 + i64::from(hour * 3_600 + minute * 60 + second)), rest))
}

/// The first of a subject's alternative names that can be an identity.
fn identity(names: &[u8]) -> Option<Cow<'_, str>> {
    if let Some(only) = only(names) {
        return Some(Cow::Borrowed(only));
    }
    SubjectAltName::from_der(names).ok().and_then(|names| names.0.iter().find_map(name)).map(Cow::Owned)
}

/// The name, where it is one URI or address alone: nearly always.
fn only(names: &[u8]) -> Option<&str> {
    let mut names = Values::of(values::only(names, values::SEQUENCE)?);
    let (tag, name) = names.next()?;
    let fits = matches!(tag, values::URI | values::MAIL) && name.is_ascii() && names.rest().is_empty();
    std::str::from_utf8(name).ok().filter(|_| fits)
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

fn claim<'d>(claims: &mut Claims<'d>, number: u8, value: &'d [u8]) {
    // Up to .7 the value is the bare text, from .8 on a DER string.
    let bare = || std::str::from_utf8(value).ok();
    let text = || std::str::from_utf8(values::only(value, values::TEXT)?).ok();
    match number {
        1 => claims.issuer = claims.issuer.or_else(bare),
        8 => claims.issuer = text(),
        2 => claims.trigger = claims.trigger.or_else(bare),
        3 => claims.sha = claims.sha.or_else(bare),
        5 => claims.repo = claims.repo.or_else(bare),
        6 => claims.git_ref = claims.git_ref.or_else(bare),
        9 => claims.workflow_ref = text(),
        11 => claims.runner = text(),
        12 => claims.repo = text().map(path_of),
        13 => claims.sha = text(),
        14 => claims.git_ref = text(),
        20 => claims.trigger = text(),
        21 => {
            if let Some(url) = text() {
                // https://github.com/OWNER/REPO/actions/runs/ID/attempts/N
                let mut parts = url.split('/').skip_while(|part| *part != "runs").skip(1);
                claims.run_id = parts.next();
                claims.attempt = parts.nth(1).and_then(|text| text.parse().ok());
            }
        }
        _ => {}
    }
}

/// The path of a URL without the leading slash.
fn path_of(url: &str) -> &str {
    let rest = after_scheme(url).unwrap_or(url);
    rest.split_once('/').map_or(rest, |(_, path)| path)
}

#[cfg(test)]
mod tests;
