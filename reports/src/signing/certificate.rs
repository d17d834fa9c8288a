//! The certificates of an instance (RFC 5280): the authority's own, and the one made for a single pack, with the
//! extensions that Sigstore clients look for and an embedded certificate timestamp (RFC 6962 §3).

use std::str::FromStr as _;
use std::time::Duration;

use const_oid::ObjectIdentifier;
use der::asn1::{BitString, GeneralizedTime, Ia5String, OctetString, UtcTime};
use der::{Decode as _, Encode as _};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{self, DerSignature};
use p256::elliptic_curve::rand_core::{OsRng, RngCore as _};
use p256::pkcs8::EncodePublicKey as _;
use pipeproof_engine::time::Timestamp;
use sha2::{Digest as _, Sha256};
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::name::{Name, RdnSequence};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use crate::keys::Instance;

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Embedded certificate timestamps, RFC 6962 §3.3.
const SCT_LIST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11129.2.4.2");
/// Fulcio: issuer as raw text (deprecated, still what older clients read) and as UTF8String.
const FULCIO_ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");
const FULCIO_ISSUER_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");
/// How long a pack's certificate is valid: as Fulcio's.
const LEAF_SECS: i64 = 600;
/// How long an authority's certificate is valid: 20 years, so a pack outlives any retention rule we know of.
const AUTHORITY_SECS: i64 = 20 * 365 * 86_400;
const NAME_PREFIX: &str = "pipeproof instance ";

/// Why a certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// ASN.1.
    #[error("cannot encode or decode a certificate")]
    Der(#[from] der::Error),
    /// A public key.
    #[error("cannot encode a public key")]
    Key(#[from] p256::pkcs8::spki::Error),
    /// The name is not one that this program writes.
    #[error("the certificate's name is not that of a pipeproof instance")]
    Name,
    /// A time before 1970.
    #[error("time {0} cannot stand in a certificate")]
    Time(Timestamp),
}

type Result<T> = std::result::Result<T, CertificateError>;

/// Subject public key info of a key, DER.
///
/// # Errors
/// [`CertificateError::Key`] if the library cannot encode it.
pub fn spki(key: &ecdsa::VerifyingKey) -> Result<Vec<u8>> {
    Ok(key.to_public_key_der()?.into_vec())
}

/// Makes the self-issued certificate of an instance's authority, DER.
///
/// # Errors
/// [`CertificateError`] when a part cannot be encoded.
pub fn authority(instance: &Instance, key: &ecdsa::SigningKey, now: Timestamp) -> Result<Vec<u8>> {
    let spki = spki(key.verifying_key())?;
    let name = authority_name(instance)?;
    let extensions = vec![
        extension(true, &BasicConstraints { ca: true, path_len_constraint: Some(0) })?,
        extension(true, &KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign))?,
        extension(false, &SubjectKeyIdentifier(OctetString::new(key_identifier(&spki)?)?))?,
    ];
    let from = seconds(now)?;
    let unsigned = Unsigned { issuer: name.clone(), subject: name, spki: &spki, from, secs: AUTHORITY_SECS };
    sign(unsigned.fill(extensions)?, key)
}

/// Reads an authority's certificate: instance, and from when on it is valid in seconds since the Unix epoch.
///
/// # Errors
/// [`CertificateError`] when it is no certificate of an instance's authority.
pub fn read_authority(der: &[u8]) -> Result<(Instance, i64)> {
    let certificate = Certificate::from_der(der)?;
    let name = certificate
        .tbs_certificate
        .subject
        .0
        .iter()
        .flat_map(|part| part.0.iter())
        .find(|attribute| attribute.oid == COMMON_NAME)
        .and_then(|attribute| std::str::from_utf8(attribute.value.value()).ok())
        .and_then(|name| name.strip_prefix(NAME_PREFIX))
        .and_then(Instance::new)
        .ok_or(CertificateError::Name)?;
    let from = certificate.tbs_certificate.validity.not_before.to_unix_duration().as_secs();
    Ok((name, i64::try_from(from).unwrap_or(i64::MAX)))
}

/// Whether a certificate is one of this key.
#[must_use]
pub fn belongs(certificate: &[u8], key: &ecdsa::VerifyingKey) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else { return false };
    match (certificate.tbs_certificate.subject_public_key_info.to_der(), spki(key)) {
        (Ok(found), Ok(expected)) => found == expected,
        _ => false,
    }
}

/// The subject public key info inside a certificate, DER.
///
/// # Errors
/// [`CertificateError::Der`] when it is no certificate.
pub fn certified_key(certificate: &[u8]) -> Result<Vec<u8>> {
    Ok(Certificate::from_der(certificate)?.tbs_certificate.subject_public_key_info.to_der()?)
}

/// Makes the certificate for one pack, DER: valid for ten minutes from `now`, for code signing, with the instance as its
/// identity and a certificate timestamp by `ct`.
///
/// # Errors
/// [`CertificateError`] when a part cannot be encoded.
pub fn leaf(
    instance: &Instance,
    (ca, ct): (&ecdsa::SigningKey, &ecdsa::SigningKey),
    key: &ecdsa::VerifyingKey,
    now: Timestamp,
) -> Result<Vec<u8>> {
    let (ca_spki, leaf_spki) = (spki(ca.verifying_key())?, spki(key)?);
    let mut extensions = vec![
        extension(true, &KeyUsage(KeyUsages::DigitalSignature.into()))?,
        extension(false, &ExtendedKeyUsage(vec![CODE_SIGNING]))?,
        extension(false, &SubjectKeyIdentifier(OctetString::new(key_identifier(&leaf_spki)?)?))?,
        extension(
            false,
            &AuthorityKeyIdentifier {
                key_identifier: Some(OctetString::new(key_identifier(&ca_spki)?)?),
                ..AuthorityKeyIdentifier::default()
            },
        )?,
        // Critical because the subject is empty (RFC 5280 §4.2.1.6).
        extension(
            true,
            &SubjectAltName(vec![GeneralName::UniformResourceIdentifier(Ia5String::new(&instance.identity())?)]),
        )?,
        plain(FULCIO_ISSUER, Instance::ISSUER.as_bytes())?,
        plain(FULCIO_ISSUER_V2, &Instance::ISSUER.to_owned().to_der()?)?,
    ];
    let from = seconds(now)?;
    let issuer = authority_name(instance)?;
    let unsigned = Unsigned { issuer, subject: RdnSequence::default(), spki: &leaf_spki, from, secs: LEAF_SECS };
    let mut certificate = unsigned.fill(extensions.clone())?;
    let timestamp = certificate_timestamp(&certificate.to_der()?, &ca_spki, ct, from)?;
    // An OCTET STRING inside the extension's OCTET STRING (RFC 6962 §3.3).
    extensions.push(plain(SCT_LIST, &OctetString::new(timestamp)?.to_der()?)?);
    certificate.extensions = Some(extensions);
    sign(certificate, ca)
}

struct Unsigned<'a> {
    issuer: Name,
    subject: Name,
    spki: &'a [u8],
    from: u64,
    secs: i64,
}

impl Unsigned<'_> {
    fn fill(self, extensions: Vec<Extension>) -> Result<TbsCertificate> {
        let mut serial = [0; 16];
        OsRng.fill_bytes(&mut serial);
        // Positive, and not shorter than it looks.
        if let Some(first) = serial.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        let until = self.from.saturating_add(self.secs.unsigned_abs());
        Ok(TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&serial)?,
            signature: algorithm(),
            issuer: self.issuer,
            validity: Validity { not_before: time(self.from)?, not_after: time(until)? },
            subject: self.subject,
            subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(self.spki)?,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        })
    }
}

fn sign(tbs_certificate: TbsCertificate, key: &ecdsa::SigningKey) -> Result<Vec<u8>> {
    let signature: DerSignature = key.sign(&tbs_certificate.to_der()?);
    let signature = BitString::from_bytes(signature.as_bytes())?;
    Ok(Certificate { tbs_certificate, signature_algorithm: algorithm(), signature }.to_der()?)
}

const fn algorithm() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None }
}

fn authority_name(instance: &Instance) -> Result<Name> {
    Ok(RdnSequence::from_str(&format!("CN={NAME_PREFIX}{instance},O=pipeproof"))?)
}

/// RFC 7093 §2 method 1: the leftmost 160 bits of the SHA-256 of the public key's bits.
fn key_identifier(spki: &[u8]) -> Result<Vec<u8>> {
    let info = SubjectPublicKeyInfoOwned::from_der(spki)?;
    let mut digest = Sha256::digest(info.subject_public_key.raw_bytes()).to_vec();
    digest.truncate(20);
    Ok(digest)
}

fn extension<E: der::Encode + const_oid::AssociatedOid>(critical: bool, value: &E) -> Result<Extension> {
    Ok(Extension { extn_id: E::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

fn plain(oid: ObjectIdentifier, value: &[u8]) -> Result<Extension> {
    Ok(Extension { extn_id: oid, critical: false, extn_value: OctetString::new(value)? })
}

fn seconds(time: Timestamp) -> Result<u64> {
    u64::try_from(time.as_micros().div_euclid(1_000_000)).map_err(|_| CertificateError::Time(time))
}

/// RFC 5280 §4.1.2.5 wants UTCTime up to 2049 and GeneralizedTime after; strict readers refuse anything else.
fn time(secs: u64) -> Result<Time> {
    const YEAR_2050: u64 = 2_524_608_000;
    let since = Duration::from_secs(secs);
    Ok(if secs < YEAR_2050 {
        Time::UtcTime(UtcTime::from_unix_duration(since)?)
    } else {
        Time::GeneralTime(GeneralizedTime::from_unix_duration(since)?)
    })
}

/// A `SignedCertificateTimestampList` of one (RFC 6962 §3.2, §3.3).
fn certificate_timestamp(precertificate: &[u8], issuer: &[u8], ct: &ecdsa::SigningKey, from: u64) -> Result<Vec<u8>> {
    let at = (from * 1_000).to_be_bytes();
    let mut signed = vec![0 /* v1 */, 0 /* certificate_timestamp */];
    signed.extend_from_slice(&at);
    signed.extend_from_slice(&[0, 1] /* precert_entry */);
    signed.extend_from_slice(&Sha256::digest(issuer));
    let len = u32::try_from(precertificate.len()).map_err(|_| der::Error::from(der::ErrorKind::Overflow))?;
    signed.extend_from_slice(len.to_be_bytes().get(1..).unwrap_or_default());
    signed.extend_from_slice(precertificate);
    signed.extend_from_slice(&[0, 0] /* no extensions */);
    let signature: DerSignature = ct.sign(&signed);
    let signature = signature.as_bytes();

    let mut timestamp = vec![0 /* v1 */];
    timestamp.extend_from_slice(&Sha256::digest(spki(ct.verifying_key())?));
    timestamp.extend_from_slice(&at);
    timestamp.extend_from_slice(&[0, 0] /* no extensions */);
    timestamp.extend_from_slice(&[4, 3] /* SHA-256, ECDSA */);
    timestamp.extend_from_slice(&block_len(signature)?);
    timestamp.extend_from_slice(signature);

    let mut list = Vec::with_capacity(timestamp.len() + 4);
    list.extend_from_slice(
        &u16::try_from(timestamp.len() + 2).map_err(|_| der::Error::from(der::ErrorKind::Overflow))?.to_be_bytes(),
    );
    list.extend_from_slice(&block_len(&timestamp)?);
    list.extend_from_slice(&timestamp);
    Ok(list)
}

fn block_len(bytes: &[u8]) -> Result<[u8; 2]> {
    Ok(u16::try_from(bytes.len()).map_err(|_| der::Error::from(der::ErrorKind::Overflow))?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_change_form_in_2050() {
        assert!(matches!(time(2_524_607_999).unwrap(), Time::UtcTime(_)));
        assert!(matches!(time(2_524_608_000).unwrap(), Time::GeneralTime(_)));
    }

    #[test]
    fn a_leaf_lives_ten_minutes_and_names_the_instance() {
        let instance = Instance::new("0123456789abcdef").unwrap();
        let (ca, ct, key) = (
            ecdsa::SigningKey::random(&mut OsRng),
            ecdsa::SigningKey::random(&mut OsRng),
            ecdsa::SigningKey::random(&mut OsRng),
        );
        let now = Timestamp::parse("2026-03-01T12:00:00.9Z").unwrap();
        let authority = authority(&instance, &ca, now).unwrap();
        assert_eq!(read_authority(&authority).unwrap(), (instance.clone(), 1_772_366_400));
        let leaf = leaf(&instance, (&ca, &ct), key.verifying_key(), now).unwrap();
        assert!(read_authority(&leaf).is_err());
        let leaf = Certificate::from_der(&leaf).unwrap().tbs_certificate;
        let validity = leaf.validity;
        assert_eq!(validity.not_before.to_unix_duration().as_secs(), 1_772_366_400);
        assert_eq!(validity.not_after.to_unix_duration().as_secs(), 1_772_366_400 + 600);
        let (critical, names) = leaf.get::<SubjectAltName>().unwrap().unwrap();
        assert!(critical);
        assert!(
            matches!(&names.0[..], [GeneralName::UniformResourceIdentifier(uri)] if uri.as_str() == instance.identity())
        );
    }
}
