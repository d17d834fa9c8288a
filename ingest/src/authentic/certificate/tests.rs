//! Certificates that OpenSSL made, and who accepts them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Subject and alternative names of every kind: see [`reads_what_openssl_prints`].
const SHIPPER: &str = "
MIICOTCCAd+gAwIBAgIUbvJHD6trlpZQ5QxdHEGhKhYGZSEwCgYIKoZIzj0EAwIw
QTELMAkGA1UEBhMCREUxEzARBgNVBAoMCkFjbWUsIEluYy4xCzAJBgNVBAsMAmNp
MRAwDgYDVQQDDAdzaGlwcGVyMCAXDTI2MTEyNjEwNTkzMVoYDzIxMjYxMTAyMTA1
OTMxWjBBMQswCQYDVQQGEwJERTETMBEGA1UECgwKQWNtZSwgSW5jLjELMAkGA1UE
CwwCY2kxEDAOBgNVBAMMB3NoaXBwZXIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AASzHMbUcNhUOelhmitQSggbYOfWZy8ZWV5rp+GYk942V5RkbFiUU1ObjD//Qtdu
Mm8Dl3p+EVbESnFazD2Kbwoto4GyMIGvMB0GA1UdDgQWBBTeJU3ohpCHVGSoLz3v
HMJwZwoCljAfBgNVHSMEGDAWgBTeJU3ohpCHVGSoLz3vHMJwZwoCljAPBgNVHRMB
Af8EBTADAQH/MFwGA1UdEQRVMFOCEVNoaXAuYWNtZS5leGFtcGxlhwQKAAAHgRBv
cHNAYWNtZS5leGFtcGxlhiZzcGlmZmU6Ly9hY21lLmV4YW1wbGUvbnMvY2kvc2Ev
c2hpcHBlcjAKBggqhkjOPQQDAgNIADBFAiEAy+AaZQokNsuzCKZJRi4C2WVLuJc1
P2/409uzAjxTwRECICTNJMfwAHmX6xdq6480lBnJdUCdyqQHWTTAFkCeh2I8";
/// Two URIs.
const TWO: &str = "
MIIBsjCCAVigAwIBAgIUKlVacFsHPfFDQoSCjb5qOCZJF4AwCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAwwDdHdvMCAXDTI2MTEyNjEwNTkzMVoYDzIxMjYxMTAyMTA1OTMx
WjAOMQwwCgYDVQQDDAN0d28wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQniIoB
BHHAux783I+zlMFeqsdEIklfHNVpMfbTalRTiHqrbIbxA6fZYrA79doVgQ0mW+m+
XWy1wgjMkkhID6A8o4GRMIGOMB0GA1UdDgQWBBQHa36IEmwOlSZu41SNy06aq4/D
yDAfBgNVHSMEGDAWgBQHa36IEmwOlSZu41SNy06aq4/DyDAPBgNVHRMBAf8EBTAD
AQH/MDsGA1UdEQQ0MDKGF3NwaWZmZTovL2FjbWUuZXhhbXBsZS9hhhdzcGlmZmU6
Ly9hY21lLmV4YW1wbGUvYjAKBggqhkjOPQQDAgNIADBFAiEA56+gJ/pmQPAnPnPf
ImfJ1GfB/m/K/+mm7+Yboc9VcXcCIFHYjsYDvjuensQvkHybKGqOZGswZYydZnvW
NAUS6v5c";

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn certificate(pem: &str) -> ClientCertificate {
    let text: String = pem.split_whitespace().collect();
    ClientCertificate::read(&STANDARD.decode(text).unwrap()).unwrap()
}

#[test]
fn reads_what_openssl_prints() {
    let shipper = certificate(SHIPPER);
    assert_eq!(shipper.subject, "CN=shipper,OU=ci,O=Acme\\, Inc.,C=DE");
    assert_eq!(shipper.fingerprint, "1e1c0527ce1c1f2d1c9354b9c606e9c5dc3dbb40ac59ecdd978161626c8c0df9");
    assert_eq!(shipper.not_after.to_string(), "2126-11-02T10:59:31Z");
    assert_eq!(shipper.names.len(), 4);
    for cut in [0, 1, 100, 500] {
        let bytes = STANDARD.decode(SHIPPER.split_whitespace().collect::<String>()).unwrap();
        assert!(ClientCertificate::read(&bytes[..cut]).is_err(), "a certificate cut at {cut}");
    }
}

#[test]
fn what_is_set_must_fit() {
    let check = |subject, san, spiffe| {
        AcceptedCertificate::new(subject, san, spiffe).unwrap().accepts(&certificate(SHIPPER), NOW)
    };
    let id = "spiffe://acme.example/ns/ci/sa/shipper";
    for (subject, san, spiffe, expected) in [
        (Some("CN=shipper,OU=ci,O=Acme\\, Inc.,C=DE"), None, None, true),
        (Some(" CN=shipper, OU=ci, O=Acme\\, Inc., C=DE"), None, None, true),
        (Some("cn=shipper,ou=ci,o=Acme\\, Inc.,c=DE"), None, None, true),
        // A part of the name is not the name.
        (Some("CN=shipper"), None, None, false),
        (Some("C=DE,O=Acme\\, Inc.,OU=ci,CN=shipper"), None, None, false),
        (None, Some("ship.ACME.example"), None, true),
        (None, Some("acme.example"), None, false),
        (None, Some("10.0.0.7"), None, true),
        (None, Some("10.0.0.8"), None, false),
        (None, Some("ops@acme.example"), None, true),
        (None, Some(id), None, true),
        (None, None, Some(id), true),
        (None, None, Some("spiffe://acme.example/ns/ci/*"), true),
        (None, None, Some("spiffe://acme.example/*"), true),
        (None, None, Some("spiffe://acme.example/ns/c"), false),
        (None, None, Some("spiffe://acme.example/ns/prod/*"), false),
        (None, None, Some("spiffe://other.example/*"), false),
        (None, Some("10.0.0.7"), Some(id), true),
        (None, Some("10.0.0.8"), Some(id), false),
    ] {
        assert_eq!(check(subject, san, spiffe), expected, "{subject:?} {san:?} {spiffe:?}");
    }
}

#[test]
fn a_certificate_of_two_ids_or_past_its_end_is_nobody() {
    let below = AcceptedCertificate::new(None, None, Some("spiffe://acme.example/*")).unwrap();
    assert!(!below.accepts(&certificate(TWO), NOW), "which of the two would it be?");
    let shipper = certificate(SHIPPER);
    assert!(below.accepts(&shipper, shipper.not_after));
    assert!(!below.accepts(&shipper, shipper.not_after.plus(std::time::Duration::from_secs(1))));
}

#[test]
fn a_rule_that_says_nothing_or_nonsense_is_refused() {
    let wrong = |subject, san, spiffe| AcceptedCertificate::new(subject, san, spiffe).unwrap_err();
    assert_eq!(wrong(None, None, None), IdentityRuleError::Empty);
    for subject in ["", "shipper", "CN=a,,"] {
        assert!(matches!(wrong(Some(subject), None, None), IdentityRuleError::Subject(_)), "{subject}");
    }
    assert_eq!(wrong(None, Some(" "), None), IdentityRuleError::San);
    for spiffe in
        ["acme.example/x", "spiffe://acme.example", "spiffe:///x", "spiffe://acme.example/a*", "spiffe://a/*/b"]
    {
        assert!(matches!(wrong(None, None, Some(spiffe)), IdentityRuleError::Spiffe(_)), "{spiffe}");
    }
}
