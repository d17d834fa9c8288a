//! Base64 and PEM as records carry them: which spellings are read, and what is said of the others.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use engine::event::Event;
use engine::record::Position;
use engine::source::SourceType;
use pipeproof_engine as engine;
use serde_json::{Value, json};

use super::{assert_fields, decoded, fields, record};
use crate::decode::decode;

/// Entries of a log, one of which has its certificate as PEM and one as it is.
const ENTRIES: &str = include_str!("../../../../tests/fixtures/rekor_entry/sigstore-conformance-tlog-entries.ndjson");

/// The bodies of the entries with a certificate in PEM (`dsse`) and with a bare one (`hashedrekord`).
fn bodies() -> (Value, Value) {
    let body = |line: &str| -> Value {
        let entry: Value = serde_json::from_str(line).unwrap();
        serde_json::from_slice(&STANDARD.decode(entry["canonicalizedBody"].as_str().unwrap()).unwrap()).unwrap()
    };
    (body(ENTRIES.lines().nth(1).unwrap()), body(ENTRIES.lines().nth(3).unwrap()))
}

/// A certificate of a CI job, as DER.
fn certificate() -> Vec<u8> {
    let verifier = &bodies().1["spec"]["hashedRekordV002"]["signature"]["verifier"];
    STANDARD.decode(verifier["x509Certificate"]["rawBytes"].as_str().unwrap()).unwrap()
}

/// The first of such texts whose Base64 is padded and has both letters in which the alphabets differ.
fn telling(text: impl Fn(&str) -> String) -> String {
    let fits = |text: &String| {
        let encoded = STANDARD.encode(text);
        encoded.contains('+') && encoded.contains('/') && encoded.contains('a') && encoded.ends_with('=')
    };
    (0..9).map(|more| text(&format!("~~~~~?????{}", "a".repeat(more)))).find(fits).unwrap()
}

fn statement() -> String {
    telling(|more| {
        json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://example.com/x",
            "subject": [{"name": more, "digest": {"sha256": "a".repeat(64)}}], "predicate": {}})
        .to_string()
    })
}

/// Ways of writing it that are not the one.
fn odd(text: &str) -> Vec<(&'static str, String)> {
    let standard = STANDARD.encode(text);
    let lines = standard.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>();
    let bare = standard.trim_end_matches('=');
    // The bits of the last letter that belong to no byte.
    let last = if standard.ends_with("==") { "/==" } else { "/=" };
    vec![
        ("no padding", STANDARD_NO_PAD.encode(text)),
        ("too much padding", format!("{bare}===")),
        ("padding inside", format!("{}=={bare}", &standard[..2])),
        ("lines", lines.join("\n")),
        ("a line break at the end", format!("{standard}\n")),
        ("a blank before it", format!(" {standard}")),
        ("both alphabets", format!("{}{}", standard.replacen('+', "-", 1), "")),
        ("stray bits", format!("{}{last}", &bare[..bare.len() - 1])),
        ("cut", standard[..standard.len() - 5].to_owned()),
        ("a letter of none", standard.replacen('a', "é", 1)),
        ("a null byte in a long run", format!("{}\0{}", &standard[..64], &standard[65..])),
        ("one letter", "e".to_owned()),
    ]
}

fn reason(kind: SourceType, body: &Value) -> String {
    decode(Position::default(), &record(kind, &[], body.to_string())).unwrap_err().to_string()
}

#[test]
fn an_envelope_may_have_either_alphabet_and_nothing_else() {
    let text = statement();
    let envelope =
        |payload: &str| json!({"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": []});
    for payload in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
        let event = &decoded(SourceType::IntotoStatement, &[], envelope(&payload).to_string())[0];
        assert_fields(
            event,
            &[("action", "artifact.attested"), ("artifact.digest", &format!("sha256:{}", "a".repeat(64)))],
        );
    }
    for (what, payload) in odd(&text) {
        let reason = reason(SourceType::IntotoStatement, &envelope(&payload));
        assert!(reason.contains("its `payload` is not Base64"), "{what}: {reason}");
    }
    // No bytes are no statement.
    assert!(reason(SourceType::IntotoStatement, &envelope("")).contains("cannot read the body as JSON"));
}

#[test]
fn a_bundle_and_an_entry_have_the_standard_alphabet() {
    let text = statement();
    let bundle = |payload: &str| {
        json!({"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial": {},
            "dsseEnvelope": {"payload": payload}})
    };
    let entry = |body: &str| json!({"body": body, "logIndex": 7});
    let body = telling(|more| json!({"kind": "hashedrekord", "spec": {}, "apiVersion": more}).to_string());
    let event = &decoded(SourceType::SigstoreBundle, &[], bundle(&STANDARD.encode(&text)).to_string())[0];
    assert_fields(event, &[("action", "artifact.signed"), ("artifact.digest", &format!("sha256:{}", "a".repeat(64)))]);
    let event = &decoded(SourceType::RekorEntry, &[], entry(&STANDARD.encode(&body)).to_string())[0];
    assert_fields(event, &[("config.id", "7"), ("message", "hashedrekord")]);
    let other = |text: &str| ("the other alphabet", URL_SAFE.encode(text));
    for (what, payload) in odd(&text).into_iter().chain([other(&text)]) {
        let reason = reason(SourceType::SigstoreBundle, &bundle(&payload));
        assert!(reason.contains("it names no readable subject"), "{what}: {reason}");
    }
    for (what, text) in odd(&body).into_iter().chain([other(&body)]) {
        let reason = reason(SourceType::RekorEntry, &entry(&text));
        assert!(reason.contains("its body is not Base64"), "{what}: {reason}");
    }
}

/// What an entry says whose key is written so.
fn entry_with(verifier: Value) -> Event {
    let body = json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {"signatures": [{"verifier": verifier}]}});
    let entry = json!({"canonicalizedBody": STANDARD.encode(body.to_string())});
    decoded(SourceType::RekorEntry, &[], entry.to_string()).remove(0)
}

#[test]
fn pem_is_read_however_its_lines_are_broken() {
    let der = STANDARD.encode(certificate());
    let broken = |width: usize, end: &str| {
        let lines = der.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap());
        lines.collect::<Vec<_>>().join(end)
    };
    let armour = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    let identity = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
    let ways = [
        armour(&broken(64, "\n")),
        armour(&broken(64, "\r\n")),
        armour(&broken(64, "\n\n")),
        armour(&broken(64, " \n")),
        armour(&broken(76, "\n")),
        armour(&broken(13, "\t")),
        armour(&broken(64, "\u{a0}")),
        armour(&der),
        armour(&format!("  {}", broken(64, "\n"))),
        format!("a line\n-----BEGIN X-----{}-----END Y-----", broken(64, "\n")),
        format!("{}{}", armour(&broken(64, "\n")), armour("AAAA")),
    ];
    for pem in &ways {
        let event = entry_with(STANDARD.encode(pem).into());
        assert_fields(&event, &[("signature.identity", identity), ("actor.type", "ci"), ("ci.run_id", "15609877086")]);
    }
    // What is in no armour, or spoiled in it, is a key like any other.
    let half = armour(&der[..der.len() - 3]);
    for (key, id) in [
        ("-----BEGIN CERTIFICATE-----\nAAAA".to_owned(), None),
        (half, None),
        (armour(&der.replacen('M', "*", 1)), None),
        (armour(&der.replace('+', "-")), None),
        (armour("\nAAAA\n"), Some("key:sha256:709e80c88487a2411e1ee4dfb9f22a861492d20c4765150c0c794abd70f8147c")),
        (armour("\nAA\nA\nA\n"), Some("key:sha256:709e80c88487a2411e1ee4dfb9f22a861492d20c4765150c0c794abd70f8147c")),
    ] {
        let event = entry_with(STANDARD.encode(&key).into());
        assert_fields(&event, &[("signature.identity", "-"), ("actor.type", "service")]);
        assert!(fields(&event)["actor.id"].starts_with("key:sha256:"), "{key}");
        if let Some(id) = id {
            assert_fields(&event, &[("actor.id", id)]);
        }
    }
    // Nor is text of no encoding.
    let event = entry_with(STANDARD.encode([b"\xff", armour(&der).as_bytes()].concat()).into());
    assert_fields(&event, &[("signature.identity", "-")]);
    // A key that is no Base64 says nothing.
    for (_, odd) in odd(&telling(|more| format!("-----BEGIN PUBLIC KEY-----{more} and what else there is of a key"))) {
        assert_fields(&entry_with(odd.into()), &[("actor.id", "-")]);
    }
}

#[test]
fn the_certificate_beside_a_signature_is_read_however_its_lines_are_broken() {
    let der = STANDARD.encode(certificate());
    let lines = der.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>();
    let armour = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    let envelope = |cert: &str| {
        json!({"payloadType": "application/vnd.in-toto+json", "payload": STANDARD.encode(statement()),
            "signatures": [{"sig": "AA==", "cert": cert}]})
        .to_string()
    };
    let repo = "sigstore-conformance/extremely-dangerous-public-oidc-beacon";
    for (cert, found) in [
        (armour(&lines.join("\n")), repo),
        (armour(&lines.join("\r\n")), repo),
        (armour(&der), repo),
        (format!("{}{}", armour(&lines.join("\n")), armour("AAAA")), repo),
        (armour(&lines.join("\n")).replace("CERTIFICATE", "X509 CERTIFICATE"), "-"),
        (armour(&lines.join("\n")).replace("END CERTIFICATE", "END X"), "-"),
        (lines.join("\n"), "-"),
        (armour(&lines[1..].join("\n")), "-"),
    ] {
        let event = &decoded(SourceType::IntotoStatement, &[], envelope(&cert))[0];
        assert_fields(event, &[("ci.repo", found), ("signature.status", "unverified")]);
    }
}

#[test]
fn a_bundles_certificate_that_is_no_base64_says_nothing() {
    let der = STANDARD.encode(certificate());
    let bundle = |raw: &str| {
        json!({"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"certificate": {"rawBytes": raw}},
            "dsseEnvelope": {"payload": STANDARD.encode(statement())}})
        .to_string()
    };
    for (raw, kind) in
        [(der.clone(), "ci"), (der.replace('+', "-"), "-"), (format!("{der}\n"), "-"), (der[1..].to_owned(), "-")]
    {
        assert_fields(&decoded(SourceType::SigstoreBundle, &[], bundle(&raw))[0], &[("actor.type", kind)]);
    }
}
