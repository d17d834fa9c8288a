//! Certificates made by hand, whole and spoiled: what is read of them and what is not.

use proptest::prelude::*;

use der::asn1::{AnyRef, OctetStringRef};
use der::{Tag, TagNumber, Tagged};

use super::*;

/// A value of DER with its tag and length.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let inner = parts.concat();
    let length = match u16::try_from(inner.len()).unwrap() {
        short @ 0..128 => vec![short as u8],
        middle @ 128..256 => vec![0x81, middle as u8],
        long => [&[0x82][..], &long.to_be_bytes()].concat(),
    };
    [&[tag][..], &length, &inner].concat()
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der(0x01, &[&[0xff]]) } else { Vec::new() };
    der(0x30, &[&der(0x06, &[oid]), &critical, &der(0x04, &[value])])
}

fn claim_of(number: u8, value: &[u8]) -> Vec<u8> {
    extension(&[FULCIO, &[number]].concat(), false, value)
}

fn text(text: &str) -> Vec<u8> {
    der(0x0c, &[text.as_bytes()])
}

const URI: &str = "https://github.com/acme/app/.github/workflows/r.yml@refs/heads/main";

fn extensions() -> Vec<u8> {
    let all = [
        extension(SUBJECT_ALT_NAME, true, &der(0x30, &[&der(0x86, &[URI.as_bytes()])])),
        claim_of(1, b"https://old.example"),
        claim_of(8, &text("https://token.actions.githubusercontent.com")),
        claim_of(2, b"push"),
        claim_of(3, b"0ld"),
        claim_of(5, b"acme/old"),
        claim_of(6, b"refs/heads/old"),
        claim_of(11, &text("github-hosted")),
        claim_of(12, &text("https://github.com/acme/app")),
        claim_of(13, &text("5ha")),
        claim_of(21, &text("https://github.com/acme/app/actions/runs/77/attempts/2")),
    ];
    der(0x30, &all.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// The parts of what is signed, in their order; a certificate is made of them again by [`whole`].
fn parts() -> Vec<Vec<u8>> {
    let algorithm = der(0x30, &[&der(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03]])]);
    let name = der(0x30, &[&der(0x31, &[&der(0x30, &[&der(0x06, &[&[0x55, 0x04, 0x0a]]), &text("sigstore.dev")])])]);
    let time = |text: &str| der(0x17, &[text.as_bytes()]);
    vec![
        der(0xa0, &[&der(0x02, &[&[2]])]),
        der(0x02, &[&[1, 2, 3]]),
        algorithm.clone(),
        name.clone(),
        der(0x30, &[&time("250612120216Z"), &time("250612121216Z")]),
        name,
        der(0x30, &[&algorithm, &der(0x03, &[&[0, 4, 5, 6]])]),
        der(0xa3, &[&extensions()]),
    ]
}

fn whole(parts: &[Vec<u8>]) -> Vec<u8> {
    let signed = der(0x30, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let algorithm = der(0x30, &[&der(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03]])]);
    der(0x30, &[&signed, &algorithm, &der(0x03, &[&[0, 7, 8, 9]])])
}

fn assert_claims(certificate: &[u8]) {
    let claims = read(certificate).unwrap();
    assert_eq!(claims.identity.as_deref(), Some(URI));
    assert_eq!(claims.issuer, Some("https://token.actions.githubusercontent.com"));
    assert_eq!((claims.repo, claims.sha), (Some("acme/app"), Some("5ha")));
    assert_eq!((claims.git_ref, claims.trigger), (Some("refs/heads/old"), Some("push")));
    assert_eq!((claims.runner, claims.run_id), (Some("github-hosted"), Some("77")));
    assert_eq!((claims.attempt, claims.not_before), (Some(2), Timestamp::parse("2025-06-12T12:02:16Z")));
}

#[test]
fn names_are_stepped_over_whatever_is_in_them() {
    assert_claims(&whole(&parts()));
    // Without a version it is the first.
    assert_claims(&whole(&parts()[1..]));
    for malformed in [
        der(0x30, &[]),
        der(0x30, &[&[0xff; 40]]),
        der(0x30, &[&[0x31, 0x82, 0xff]]),
        der(0x30, &[&der(0x31, &[&der(0x30, &[&der(0x0c, &[b"\xc3\x28"])])])]),
        der(0x30, &[&[0x31, 0x80, 0, 0]]),
    ] {
        for at in [3, 5] {
            let mut spoiled = parts();
            spoiled[at].clone_from(&malformed);
            assert_claims(&whole(&spoiled));
        }
    }
    // The same holds of algorithm and key.
    for at in [2, 6] {
        let mut spoiled = parts();
        spoiled[at] = der(0x30, &[&[0xff; 9]]);
        assert_claims(&whole(&spoiled));
    }
}

#[test]
fn a_certificate_without_its_outline_claims_nothing() {
    let sound = whole(&parts());
    for at in 0..parts().len() - 1 {
        let mut other = parts();
        // Another tag where the outline has to have its own.
        other[at][0] = 0x04;
        assert_eq!(read(&whole(&other)), None, "part {at}");
    }
    // The version and the extensions may be left out, all else not.
    for at in 1..parts().len() - 1 {
        let mut less = parts();
        less.remove(at);
        assert_eq!(read(&whole(&less)), None, "part {at}");
    }
    let time = |text: &str| der(0x17, &[text.as_bytes()]);
    for validity in [
        der(0x30, &[]),
        der(0x30, &[&time("250612120216Z")]),
        der(0x30, &[&time("251312120216Z"), &time("250612121216Z")]),
        der(0x30, &[&time("2506121202Z"), &time("250612121216Z")]),
        der(0x30, &[&text("250612120216Z"), &time("250612121216Z")]),
    ] {
        let mut spoiled = parts();
        spoiled[4] = validity;
        assert_eq!(read(&whole(&spoiled)), None);
    }
    for spoiled in [
        [&sound[..], &[0]].concat(),
        der(0x31, &[&sound]),
        der(0x30, &[&sound]),
        der(0x30, &[&der(0x30, &[]), &der(0x30, &[]), &der(0x03, &[&[0]])]),
        // A length that is not the shortest, and one that is not said.
        [&[0x30, 0x83, 0][..], &sound[2..]].concat(),
        [&[0x30, 0x80][..], &sound[4..], &[0, 0]].concat(),
        Vec::new(),
    ] {
        assert_eq!(read(&spoiled), None);
    }
}

#[test]
fn an_extension_that_is_none_spoils_the_outline() {
    let with = |list: Vec<u8>| {
        let mut parts = parts();
        parts[7] = der(0xa3, &[&list]);
        whole(&parts)
    };
    let oid = der(0x06, &[SUBJECT_ALT_NAME]);
    for broken in [
        der(0x30, &[&der(0x04, &[b"x"])]),
        der(0x30, &[&der(0x30, &[&oid])]),
        der(0x30, &[&der(0x30, &[&oid, &der(0x0c, &[b"x"])])]),
        der(0x30, &[&der(0x30, &[&oid, &der(0x01, &[&[1]]), &der(0x04, &[b"x"])])]),
        der(0x30, &[&der(0x30, &[&der(0x02, &[&[1]]), &der(0x04, &[b"x"])])]),
        der(0x31, &[]),
        Vec::new(),
    ] {
        assert_eq!(read(&with(broken)), None);
    }
    // One whose value says nothing leaves the others as they are.
    let mut list = claim_of(8, b"\x0c\x05abc");
    list.extend(claim_of(13, &text("5ha")));
    list.extend(extension(SUBJECT_ALT_NAME, false, &der(0x30, &[&der(0x86, &[b"\xff"])])));
    let certificate = with(der(0x30, &[&list]));
    let claims = read(&certificate).unwrap();
    assert_eq!((claims.issuer, claims.identity, claims.sha), (None, None, Some("5ha")));
}

#[test]
fn the_identity_is_the_first_name_that_can_be_one() {
    let identity = |names: &[&[u8]]| {
        let list = der(0x30, &[&extension(SUBJECT_ALT_NAME, false, &der(0x30, names))]);
        let mut parts = parts();
        parts[7] = der(0xa3, &[&list]);
        read(&whole(&parts)).unwrap().identity.map(|name| name.to_string())
    };
    let (uri, mail, dns) = (der(0x86, &[b"https://a"]), der(0x81, &[b"ann@example.com"]), der(0x82, &[b"a.example"]));
    // Fulcio's `username` identities: a UTF-8 string of a type of its own.
    let oid = der(0x06, &[&[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x07]]);
    let user = der(0xa0, &[&oid, &der(0xa0, &[&text("ann!example.com")])]);
    for (names, expected) in [
        (&[&uri[..]][..], Some("https://a")),
        (&[&mail], Some("ann@example.com")),
        (&[&user], Some("ann!example.com")),
        (&[&dns], None),
        (&[&dns, &mail, &uri], Some("ann@example.com")),
        (&[], None),
        // One that is none spoils them all.
        (&[&uri, &der(0x82, &[b"\xff"])], None),
        (&[&uri, b"\x86\x05a"], None),
        (&[&der(0xa6, &[b"https://a"])], None),
    ] {
        assert_eq!(identity(names).as_deref(), expected, "{names:?}");
    }
}

#[test]
fn a_cut_certificate_is_none() {
    let sound = whole(&parts());
    for end in 0..sound.len() {
        assert_eq!(read(&sound[..end]), None, "{end} bytes");
    }
}

/// The same with a reader of DER that takes everything to pieces.
fn by_library(der: &[u8]) -> der::Result<Vec<(&[u8], &[u8])>> {
    fn sequence(any: AnyRef<'_>) -> der::Result<SliceReader<'_>> {
        any.tag().assert_eq(Tag::Sequence)?;
        SliceReader::new(any.value())
    }
    let tagged = |number| Tag::ContextSpecific { constructed: true, number };
    let mut certificate = sequence(AnyRef::from_der(der)?)?;
    let mut signed = sequence(certificate.decode()?)?;
    sequence(certificate.decode()?)?;
    certificate.decode::<BitStringRef<'_>>()?;
    certificate.finish(())?;
    let mut serial: AnyRef<'_> = signed.decode()?;
    if serial.tag() == tagged(TagNumber::N0) {
        serial = signed.decode()?;
    }
    serial.tag().assert_eq(Tag::Integer)?;
    sequence(signed.decode()?)?;
    sequence(signed.decode()?)?;
    let mut validity = sequence(signed.decode()?)?;
    validity.decode::<Time>()?;
    validity.decode::<Time>()?;
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
    Ok(extensions)
}

/// The outline by positions is what the library makes of it; and the only name is the first of the names it reads.
fn assert_as_library(der: &[u8]) {
    let mut extensions = Vec::new();
    let read = outline(der, |oid, value| extensions.push((oid, value))).is_some();
    let expected = by_library(der).ok();
    assert_eq!(read.then_some(&extensions), expected.as_ref());
    for (_, value) in extensions {
        if let Some(only) = only(value) {
            let names = SubjectAltName::from_der(value).unwrap();
            assert_eq!(names.0.iter().find_map(name).as_deref(), Some(only));
        }
        let text = values::only(value, values::TEXT).and_then(|text| std::str::from_utf8(text).ok());
        assert_eq!(text, Utf8StringRef::from_der(value).ok().map(|text| text.as_str()));
    }
}

proptest! {
    #[test]
    fn nearly_certificates_are_read_as_the_library_reads_them(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), 0_u8..4, any::<u8>()), 1..4),
        more in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut spoiled = whole(&parts());
        for (at, by, byte) in changes {
            let at = at.index(spoiled.len());
            match by {
                0 => spoiled[at] = byte,
                // Lengths are off by a little, tags are others.
                1 => spoiled[at] = spoiled[at].wrapping_add(1),
                2 => spoiled[at] ^= 0x20,
                _ => {
                    // One value in the place of another.
                    let from = at.min(spoiled.len() - 9);
                    let piece = spoiled[from..from + 9].to_vec();
                    let to = usize::from(byte) % (spoiled.len() - 9);
                    spoiled[to..to + 9].copy_from_slice(&piece);
                }
            }
            drop(read(&spoiled));
            assert_as_library(&spoiled);
        }
        spoiled.splice(0..0, more);
        assert_as_library(&spoiled);
    }

    #[test]
    fn any_bytes_are_read_as_the_library_reads_them(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        assert_as_library(&bytes);
        assert_as_library(&der(0x30, &[&der(0x30, &[&bytes]), &der(0x30, &[]), &der(0x03, &[&[0]])]));
        let mut parts = parts();
        parts[7] = der(0xa3, &[&der(0x30, &[&extension(SUBJECT_ALT_NAME, true, &bytes), &claim_of(8, &bytes)])]);
        assert_as_library(&whole(&parts));
    }
}

proptest! {
    #[test]
    fn times_are_as_der_reads_them(
        one in "[0-9]{12}Z|[0-5][0-9](0[1-9]|1[0-3])([0-2][0-9]|3[0-2])([01][0-9]|2[0-4])[0-6][0-9][0-6][0-9]Z",
        other in "[0-9]{12}Z|240229[0-2][0-9]5959Z|[0-9:]{12}.",
    ) {
        let seconds = |text: &str| {
            let time = Time::from_der(&der(0x17, &[text.as_bytes()])).ok()?;
            i64::try_from(time.to_unix_duration().as_secs()).ok().map(Timestamp::from_secs)
        };
        let expected = seconds(&one).filter(|_| seconds(&other).is_some());
        let both = [der(0x17, &[one.as_bytes()]), der(0x17, &[other.as_bytes()])].concat();
        prop_assert_eq!(not_before(&both), expected);
    }
}
