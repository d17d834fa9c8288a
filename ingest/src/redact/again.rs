//! Redacting twice is redacting once, whatever secrets, halves of secrets, wrappings and placeholders stand next to one
//! another.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::tests::{redactor, secrets};
use super::*;

/// What is close to being a secret, gives a neighbour its context, or decides where a text is cut.
const NEAR: &[&str] = &[
    "ghp_",
    "2E77c8fc9455ddc3ba22591cwH",
    "46",
    "ghgp_",
    "V1ZFV4dWJIUmlSVUo1V2xk",
    "hehri",
    "\0",
    "\"",
    "\\",
    "\\\"",
    "\\u0067",
    "\\u0000",
    "\\/",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    " ",
    "\n",
    "=",
    "-",
    "_",
    ".",
    "@",
    "://",
    "https://",
    "https://u:",
    "Bearer ",
    "Authorization: ",
    "x-api-key: ",
    "x-api-key: my-",
    "PRIVATE-TOKEN=",
    "github_token=",
    "gh_token: ",
    "aws_secret_access_key = ",
    "session_token=",
    "AccountKey=",
    "?sig=",
    "_authToken=",
    "-----BEGIN PRIVATE KEY-----",
    "-----END PRIVATE KEY-----",
    "\"value\":\"",
    "\",\"isSecret\":true",
    "\\\"value\\\":\\\"",
    "\\\",\\\"isSecret\\\":true",
    "redacted:",
    "redacted:jwt:",
    "redacted:jwt:00112233:",
    "hmac-sha256:",
    "github-token:",
    "8Q~",
    "hvs.",
    "eyJ",
    "npm_",
    "AKIA",
    "Z2hw",
    "\"secretAccessKey\":\"",
    "\"authorization\":\"",
    "{\"Secret\":\"",
    "\"Match\":\"key = ",
    "{\"objectRef\":{\"resource\":\"secrets\"},\"requestObject\":{\"data\":",
    "{\"kind\":\"Secret\",\"data\":{\"a\":\"",
];

/// Bytes of the kinds that stand next to secrets.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let near = || proptest::sample::select(NEAR).prop_map(|text| text.as_bytes().to_vec());
    let secret = || (0..secrets().len()).prop_map(|number| secrets().swap_remove(number).1.into_bytes());
    let half = (secret(), 0..100_usize, any::<bool>()).prop_map(|(secret, share, head)| {
        let (before, after) = secret.split_at(secret.len() * share / 100);
        if head { before.to_vec() } else { after.to_vec() }
    });
    let placeholder = secret().prop_map(|secret| redactor().text(&Bytes::from(secret)).0.to_vec());
    let torn = (secret(), 0..80_usize).prop_map(|(secret, len)| {
        let placeholder = redactor().text(&Bytes::from(secret)).0;
        placeholder.slice(..len.min(placeholder.len())).to_vec()
    });
    let plain = prop_oneof![
        4 => near(),
        3 => secret(),
        2 => half,
        2 => placeholder,
        1 => torn,
        2 => "[A-Za-z0-9]{1,40}".prop_map(String::into_bytes),
        1 => "[0-9a-f]{32,40}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 1..8),
    ];
    plain.prop_recursive(3, 12, 4, |inner| {
        (proptest::collection::vec(inner, 1..4), 0..4_u8).prop_map(|(parts, how)| {
            let text = parts.concat();
            match how {
                0 => STANDARD.encode(&text).into_bytes(),
                1 => STANDARD.encode(STANDARD.encode(&text)).into_bytes(),
                2 => String::from_utf8_lossy(&text).encode_utf16().flat_map(u16::to_le_bytes).collect(),
                _ => serde_json::to_vec(&String::from_utf8_lossy(&text)).unwrap(),
            }
        })
    })
}

/// One of each kind that is redacted in a way of its own.
const KINDS: &[SourceType] = &[
    SourceType::Json,
    SourceType::GithubJoblog,
    SourceType::KubernetesAudit,
    SourceType::Gitleaks,
    SourceType::VaultAudit,
];

fn holds(bytes: &Bytes, kinds: &[SourceType]) {
    let redactor = redactor();
    for kind in kinds {
        let (once, _) = redactor.body(*kind, bytes);
        let (twice, found) = redactor.body(*kind, &once);
        assert_eq!((&twice, &found), (&once, &Vec::new()), "{kind} {bytes:?}");
    }
    let mut once = BTreeMap::from([("a".to_owned(), String::from_utf8_lossy(bytes).into_owned())]);
    redactor.attributes(&mut once);
    let mut twice = once.clone();
    assert_eq!((redactor.attributes(&mut twice), &twice), (Vec::new(), &once), "{bytes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn twice_is_once(parts in proptest::collection::vec(part(), 1..8)) {
        holds(&Bytes::from(parts.concat()), KINDS);
    }

    /// The same as values and keys of JSON, where names say what a value is.
    #[test]
    fn twice_is_once_in_json(parts in proptest::collection::vec((part(), part(), 0..6_u8), 1..4)) {
        let mut members = serde_json::Map::new();
        for (key, value, name) in &parts {
            let name = match name {
                0 => "authorization".into(),
                1 => "secretAccessKey".into(),
                2 => "data".into(),
                3 => "Secret".into(),
                4 => "m".into(),
                _ => String::from_utf8_lossy(key),
            };
            members.insert(name.into_owned(), String::from_utf8_lossy(value).into());
        }
        let object = serde_json::json!({"kind": "Secret", "metadata": {"name": "n"}, "data": members});
        holds(&Bytes::from(serde_json::json!({"requestObject": object, "list": [members]}).to_string()), KINDS);
        holds(&Bytes::from(serde_json::Value::Object(members).to_string()), KINDS);
    }
}

/// What was found by the fuzz target, and what is next to it.
#[test]
fn what_once_changed_again_does_not() {
    let token = &secrets()[0].1;
    let key = redactor().key_id().to_owned();
    let placeholder = format!("redacted:github-token:{key}:{}", redactor().fingerprint(b"x"));
    for text in [
        // Zeros in a string, and base64 glued to a token.
        b"\x01\"ghp_2E77c8fc9455ddc3ba22591cwH\x0046ghgp_1F292XVEk1ZFV4dWJIUmlSVUo1V2xkrhehri".to_vec(),
        // The first word of a placeholder is as long as the shortest credential.
        b"x-api-key: abcdefghij".to_vec(),
        format!("https://{token}:x-oauth-basic@git.example/app").into_bytes(),
        format!("{{\"DB\":{{\"value\":\"{token} hunter2\",\"isSecret\":true}}").into_bytes(),
        format!("https://u:{placeholder}{placeholder}@git.example/app {placeholder}{token}").into_bytes(),
    ] {
        holds(&Bytes::from(text), SourceType::ALL);
    }
}

/// A placeholder is not torn, what stands beside one goes, and one that only begins like one is none.
#[test]
fn placeholders_stay_whole_and_hide_nothing() {
    let redactor = redactor();
    let token = &secrets()[0].1;
    let text = |text: String| String::from_utf8(redactor.text(&Bytes::from(text)).0.to_vec()).unwrap();
    let placeholder = text(token.clone());
    for (before, after) in
        [("x-api-key: ", ""), ("https://", "@h"), ("https://u:", "@h"), ("ghp_", ""), ("session_token=", " ")]
    {
        let once = format!("{before}{placeholder}{after}");
        assert_eq!(text(once.clone()), once);
    }
    // Letters of the placeholder are no part of a secret before it.
    let before = text(format!("Bearer abcdefgh1jkl-{placeholder} x"));
    assert!(!before.contains("abcdefgh1jkl") && before.ends_with(&format!("{placeholder} x")), "{before}");
    for hidden in ["redacted:hunter2hunter2", "redacted:jwt:hunter2hunter2"] {
        let mut hidden_in =
            vec![format!("https://u:{hidden}@h"), format!("\"A\":{{\"value\":\"{hidden}\",\"isSecret\":true}}")];
        hidden_in.push(format!("\"A\":{{\"value\":\"{placeholder} hunter2\",\"isSecret\":true}}"));
        for whole in hidden_in {
            assert!(!text(whole.clone()).contains("hunter2"), "{whole}");
        }
    }
    let body = format!(
        "{{\"authorization\":\"redacted:hunter2hunter2\",\"a\":{{\"authorization\":\"{placeholder} hunter2\"}}}}"
    );
    let (body, found) = redactor.body(SourceType::Json, &Bytes::from(body));
    assert!(found.len() == 2 && !String::from_utf8_lossy(&body).contains("hunter2"), "{body:?}");
}

/// Each secret that goes brings the next one into reach: it ends, and what is left over goes whole.
#[test]
fn a_chain_of_secrets_ends() {
    let password = "p".repeat(400);
    let text = Bytes::from(format!("https://u:{}", format!("{password}@").repeat(500)));
    for kind in [SourceType::GithubJoblog, SourceType::Json] {
        let (once, found) = redactor().body(kind, &text);
        assert!(!found.is_empty() && once.len() < 200, "{} bytes are left", once.len());
    }
    holds(&text, KINDS);
}

/// Where what was found is, also after a later pass moved it: a job log's chunks tell their own secrets.
#[test]
fn places_move_along() {
    let (one, two) = (&secrets()[0].1, &secrets()[3].1);
    // The first password is as long as addresses are looked at; without it the second is in reach.
    let password = "p".repeat(400);
    let text =
        format!("{one} https://u:{password}@{password}@h {two} https://{one}:x-oauth-basic@h x-api-key: 12345678");
    let output = redactor().scan_text(text.as_bytes(), &mut OpenKey::default());
    let text = String::from_utf8(output.bytes).unwrap();
    assert_eq!(output.found.len(), 7, "{text}");
    let gone =
        |(_, _, fingerprint): &&(usize, Family, String)| *fingerprint == redactor().fingerprint(password.as_bytes());
    assert_eq!(output.found.iter().filter(gone).count(), 1);
    for (place, family, fingerprint) in output.found.iter().filter(|found| !gone(found)) {
        let placeholder = format!("redacted:{}:{}:{fingerprint}", family.name(), redactor().key_id());
        assert!(text[*place..].starts_with(&placeholder), "{placeholder} at {place} of {text}");
    }
}
