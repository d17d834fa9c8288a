//! Planted secrets of every family, in every place and wrapping: none survives, and nothing else changes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

pub(super) fn redactor() -> &'static Redactor {
    static REDACTOR: std::sync::LazyLock<Redactor> = std::sync::LazyLock::new(|| Redactor::new(&[7; 32]));
    &REDACTOR
}

/// One secret of each family that is recognised by itself. Put together here, so that no scanner of this repository
/// takes them for real.
pub(super) fn secrets() -> Vec<(Family, String)> {
    let long = "aZ3bY4cX5dW6eV7fU8gT9hS0iR1jQ2kP3lO4";
    let pem = format!("-----BEGIN RSA {0} KEY-----\n{1}\n{1}\n-----END RSA {0} KEY-----", "PRIVATE", long);
    vec![
        (Family::GithubToken, format!("gh{}_{long}", 'p')),
        (Family::GithubToken, format!("gh{}_{long}", 's')),
        (Family::GithubToken, format!("github_{}_11{long}_{long}", "pat")),
        (Family::AwsAccessKey, format!("AK{}QWERTYUIOP234567", "IA")),
        (Family::GcpApiKey, format!("AI{}{}", "za", &long[..35])),
        (Family::GcpOauthToken, format!("ya{}.{long}", 29)),
        (Family::SlackToken, format!("xo{}b-1234567890-{}", 'x', &long[..24])),
        (Family::SlackWebhook, format!("https://hooks.{}.com/services/T00000000/B00000000/{}", "slack", &long[..24])),
        (Family::NpmToken, format!("np{}_{long}", 'm')),
        (Family::VaultToken, format!("hv{}.{long}", 's')),
        (Family::Jwt, format!("ey{0}hbGciOiJSUzI1NiJ9.ey{0}zdWIiOiJyZXBvOmEvYiJ9.{long}", 'J')),
        (Family::AwsSecretKey, format!("aws_secret_access_key = {}{}", long, "Ab1/")),
        (Family::AwsSessionToken, format!("AWS_SESSION_TOKEN={}", long.repeat(4))),
        (Family::UrlCredentials, format!("https://bot:{}@example.com/x.git", &long[..20])),
        (Family::AuthorizationHeader, format!("Authorization: Basic {}", &long[..24])),
        (Family::PrivateKey, pem),
    ]
}

/// What must not be found anywhere afterwards: the part of the secret that is random.
const CORE: &str = "aZ3bY4cX5dW6eV7fU8gT";

fn gone(family: Family, text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let core = if family == Family::AwsAccessKey { "QWERTYUIOP234567" } else { CORE };
    !text.contains(core)
}

fn families(redacted: &[Redacted]) -> Vec<&str> {
    redacted.iter().map(|item| item.family.as_str()).collect()
}

#[test]
fn every_family_is_found_in_text_and_in_json() {
    let redactor = redactor();
    for (family, secret) in secrets() {
        let (text, found) = redactor.text(&Bytes::from(format!("before {secret} after")));
        assert!(gone(family, &text), "{secret} -> {}", String::from_utf8_lossy(&text));
        assert!(families(&found).contains(&family.name()), "{secret}: {found:?}");
        assert!(text.starts_with(b"before ") && text.ends_with(b" after"));

        let body =
            serde_json::json!({"message": format!("x{secret}y"), "n": 1, "list": ["kept", {"k": secret}]}).to_string();
        let (body, found) = redactor.body(SourceType::Json, &Bytes::from(body));
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(gone(family, &body), "{}", String::from_utf8_lossy(&body));
        assert!(families(&found).contains(&family.name()));
        assert_eq!((&json["n"], &json["list"][0]), (&1.into(), &"kept".into()));
        let again = redactor.body(SourceType::Json, &body);
        assert_eq!(again, (body, vec![]), "what was redacted stays");
    }
}

#[test]
fn a_token_in_the_address_of_a_remote_goes_once() {
    let redactor = redactor();
    let token = &secrets()[0].1;
    let text = |text: String| redactor.text(&Bytes::from(text)).0;
    for secret in [token.as_str(), "amveam@dev4m@dev@dev", "0123456789-0123456789-abc"] {
        let once = text(format!("https://{secret}@git.example/app"));
        assert!(once.starts_with(b"https://redacted:") && once.ends_with(b"@git.example/app"), "{once:?}");
        assert_eq!(text(String::from_utf8(once.to_vec()).unwrap()), once, "what was redacted stays");
    }
    // Who only calls himself so has a password all the same.
    for password in ["hunter2", "github-token:0011:22", "nonsense:bbdeae50:d1826e616117f8bf2e815a3af27bfd9b"] {
        let found = text(format!("https://redacted:{password}@git.example/app"));
        assert!(!found.windows(password.len()).any(|window| window == password.as_bytes()), "{found:?}");
    }
}

#[test]
fn a_placeholder_names_family_key_and_fingerprint() {
    let redactor = redactor();
    let (_, secret) = &secrets()[0];
    let (text, found) = redactor.text(&Bytes::from(format!("{secret} {secret}")));
    let fingerprint = redactor.fingerprint(secret.as_bytes());
    assert_eq!((fingerprint.len(), redactor.key_id().len()), (32, 8));
    let placeholder = format!("redacted:github-token:{}:{fingerprint}", redactor.key_id());
    assert_eq!(text, format!("{placeholder} {placeholder}"));
    assert_eq!(found, [Redacted { family: "github-token".to_owned(), fingerprint: fingerprint.clone(), count: 2 }]);
    assert_ne!(Redactor::new(&[8; 32]).fingerprint(secret.as_bytes()), fingerprint);
    assert!(!format!("{redactor:?}").contains("7, 7"));
}

#[test]
fn base64_once_and_twice_at_every_alignment_and_over_lines() {
    let redactor = redactor();
    for (family, secret) in secrets() {
        // Too weak a sign when it cannot be seen: only where a name stands next to it.
        if matches!(family, Family::UrlCredentials | Family::AuthorizationHeader | Family::AwsSessionToken) {
            continue;
        }
        for before in 0..4 {
            let inner = format!("{}{secret}{}", "p".repeat(before), "{\"isSecret\":true}");
            let once = STANDARD.encode(&inner);
            let twice = STANDARD.encode(&once);
            for wrapped in
                [&once, &twice, &STANDARD.encode(format!("xy{once}")), &once.replace('+', "-").replace('/', "_")]
            {
                for text in [
                    format!("out: {wrapped}\n"),
                    format!("token={wrapped}"),
                    serde_json::json!({"m": wrapped}).to_string(),
                ] {
                    let (redacted, found) = redactor.text(&Bytes::from(text.clone()));
                    assert!(families(&found).contains(&family.name()), "{family:?} {before} {text}");
                    assert!(!redacted.windows(24).any(|part| wrapped.as_bytes()[8..].starts_with(part)));
                }
            }
        }
    }
    // As `base64` breaks lines, with and without the time stamps of a job log.
    let (_, secret) = &secrets()[0];
    for stamp in ["", "2025-03-15T10:00:00.1234567Z "] {
        for at in 0..8 {
            let inner = format!("{}{secret} {}", "some words before it ".repeat(at), "and more behind it ".repeat(8));
            let encoded = STANDARD.encode(inner);
            let lines: Vec<String> = encoded
                .as_bytes()
                .chunks(76)
                .map(|line| format!("{stamp}{}", std::str::from_utf8(line).unwrap()))
                .collect();
            let text = format!("{stamp}start\n{}\n{stamp}end\n", lines.join("\n"));
            let (redacted, found) = redactor.text(&Bytes::from(text));
            assert_eq!(families(&found), ["github-token"], "{at}");
            assert!(redacted.starts_with(format!("{stamp}start\n").as_bytes()));
            // After a full last line a word alone on its own line cannot be told from more base64.
            if lines.last().unwrap().len() - stamp.len() < 60 {
                assert!(redacted.ends_with(format!("\n{stamp}end\n").as_bytes()));
            }
        }
    }
}

#[test]
fn a_runners_memory_is_recognised_whatever_its_secrets_are() {
    let token = &secrets()[0].1;
    let key = &secrets()[11].1["aws_secret_access_key = ".len()..];
    let dump = format!(
        "\"DB_PASSWORD\":{{\"value\":\"hunter \\\"2\\\"\",\"isSecret\":true}}\n\"GITHUB_TOKEN\":{{\"value\":\"{token}\",\"isSecret\":true}}\n\
         \"AWS_SECRET_ACCESS_KEY\":{{\"value\":\"{key}\",\"isSecret\":true}}\n\"SHELL\":{{\"value\":\"bash\",\"isSecret\":false}}\n"
    );
    let once = STANDARD.encode(&dump);
    let json = serde_json::to_string(&dump).unwrap();
    for text in [dump.clone(), once.clone(), STANDARD.encode(once), json] {
        let (redacted, found) = redactor().text(&Bytes::from(format!("before {text} after")));
        let mut names = families(&found);
        names.dedup();
        assert_eq!(names, ["aws-secret-key", "github-token", "runner-secret"], "{text}");
        let shown = String::from_utf8_lossy(&redacted);
        assert!(!shown.contains("hunter") && !shown.contains(CORE), "{shown}");
        assert!(shown.starts_with("before ") && shown.ends_with(" after"));
    }
    let alone = STANDARD.encode("\"DB_PASSWORD\":{\"value\":\"hunter2\",\"isSecret\":true}");
    assert_eq!(families(&redactor().text(&Bytes::from(alone)).1), ["runner-secret"]);
}

#[test]
fn a_long_dump_goes_whole_wherever_its_parts_begin() {
    for shift in 0..10 {
        let mut dump = "s".repeat(shift * 7);
        for number in 0..2000 {
            dump.push_str(&format!("\"NAME_{number}\":{{\"value\":\"hunter2-{number}\",\"isSecret\":true}}\n"));
        }
        let once = STANDARD.encode(&dump);
        for text in [STANDARD.encode(&once), once] {
            let (redacted, found) = redactor().text(&Bytes::from(format!("before {text} after")));
            assert_eq!(found.len(), 2000, "each is told");
            assert!(found.iter().all(|secret| secret.count == 1), "and none twice");
            let shown = String::from_utf8_lossy(&redacted);
            assert!(shown.len() < 2000, "{} bytes are left after {shift}", shown.len());
            assert!(shown.starts_with("before redacted:runner-secret:") && shown.ends_with(" after"), "{shown}");
        }
    }
}

#[test]
fn a_secret_that_comes_again_in_a_long_run_goes_again() {
    let token = &secrets()[0].1;
    let text = STANDARD.encode(format!("{token} {} {token} {}", "pad".repeat(20_000), "pad".repeat(40_000)));
    let (redacted, found) = redactor().text(&Bytes::from(text));
    assert_eq!(families(&found), ["github-token"]);
    assert_eq!(redactor().text(&redacted).1, [], "nothing is left to find");
}

#[test]
fn escapes_hide_nothing() {
    let redactor = redactor();
    let (_, token) = &secrets()[0];
    let spelled: String = token.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    for text in [spelled.clone(), spelled.replace("\\u0067", "g"), format!("\\/{token}"), token.replace('p', "\\u0070")]
    {
        let (body, found) = redactor.body(SourceType::Json, &Bytes::from(format!("{{\"a\":\"x {text}\"}}")));
        assert_eq!(families(&found), ["github-token"], "{text}");
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
        // The same in something that is not JSON.
        let (body, found) = redactor.body(SourceType::Json, &Bytes::from(format!("{{\"a\":\"x {text} ")));
        assert_eq!(families(&found), ["github-token"], "{text}");
        assert!(!skim::unescape(&body).windows(20).any(|part| part == &token.as_bytes()[..20]));
    }
    let slack = secrets()[7].1.replace('/', "\\/");
    let (_, found) = redactor.body(SourceType::Json, &Bytes::from(format!("{{\"a\":\"{slack}\"}}")));
    assert_eq!(families(&found), ["slack-webhook"]);
    let pem = serde_json::to_string(&secrets()[15].1).unwrap();
    let (body, found) = redactor.body(SourceType::GithubWebhook, &Bytes::from(format!("{{\"a\":{pem}}}")));
    assert_eq!(families(&found), ["private-key"]);
    assert!(gone(Family::PrivateKey, &body));
    // A key inside JSON inside JSON.
    let nested = serde_json::json!({"a": serde_json::json!({"private_key": secrets()[15].1}).to_string()}).to_string();
    let (body, _) = redactor.body(SourceType::Json, &Bytes::from(nested));
    assert!(gone(Family::PrivateKey, &body));
}

#[test]
fn what_is_not_json_is_redacted_all_the_same() {
    let redactor = redactor();
    for (family, secret) in secrets() {
        for body in
            [format!("{{\"a\":{secret}"), format!("\"{secret}"), format!("[1,{secret},"), format!("{{{secret}:\"\"}}")]
        {
            let mut bytes = body.into_bytes();
            bytes.push(0xff);
            let (redacted, _) = redactor.body(SourceType::VaultAudit, &Bytes::from(bytes));
            assert!(gone(family, &redacted), "{}", String::from_utf8_lossy(&redacted));
        }
    }
}

#[test]
fn utf_16_hides_nothing() {
    let redactor = redactor();
    for (family, secret) in secrets() {
        for text in [format!("before {secret} after"), format!("{{\"a\":\"{secret}\"}}")] {
            for mark in [&[0xff_u8, 0xfe][..], &[]] {
                let little = text.encode_utf16().flat_map(u16::to_le_bytes);
                let bytes = Bytes::from(mark.iter().copied().chain(little).collect::<Vec<u8>>());
                for kind in [SourceType::Json, SourceType::GithubJoblog] {
                    let (redacted, found) = redactor.body(kind, &bytes);
                    let plain: Vec<u8> = redacted.iter().copied().filter(|byte| *byte != 0).collect();
                    assert!(gone(family, &plain) && !found.is_empty(), "{kind:?} {}", String::from_utf8_lossy(&plain));
                }
            }
        }
    }
    let bytes = Bytes::from_static(b"\0binary\0");
    assert_eq!(redactor.body(SourceType::Json, &bytes), (bytes.clone(), vec![]));
}

#[test]
fn values_that_are_secrets_by_their_name() {
    let redactor = redactor();
    let body = serde_json::json!({"responseElements": {"credentials": {"accessKeyId": "ASIAQWERTYUIOP234567",
        "sessionToken": "IQ".repeat(60), "expiration": "x"}}, "headers": {"authorization": ["Basic abcdefgh12345678"]},
        "secretAccessKey": "short"});
    let (body, found) = redactor.body(SourceType::AwsCloudtrail, &Bytes::from(body.to_string()));
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["responseElements"]["credentials"]["accessKeyId"], "ASIAQWERTYUIOP234567");
    assert_eq!(families(&found), ["authorization-header", "aws-session-token"]);
    assert!(!String::from_utf8_lossy(&body).contains("IQIQ"));
}

#[test]
fn identifiers_of_the_spine_stay_and_the_same_text_elsewhere_goes() {
    let key = format!("AK{}QWERTYUIOP234567", "IA");
    let body = serde_json::json!({"userIdentity": {"accessKeyId": key, "sessionContext": {"x": key}},
        "requestParameters": {"note": format!("use {key}")}})
    .to_string();
    let (body, found) = redactor().body(SourceType::AwsCloudtrail, &Bytes::from(body));
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["userIdentity"]["accessKeyId"], key.as_str());
    assert_eq!(json["userIdentity"]["sessionContext"]["x"], key.as_str());
    assert!(json["requestParameters"]["note"].as_str().unwrap().starts_with("use redacted:aws-access-key:"));
    assert_eq!(found.len(), 1);
    let ordinary = [
        "commit 0e58ed8671d6b60d0890c21b07f8835ace038e67",
        "arn:aws:sts::123456789012:assumed-role/x/ASIAQWERTYUIOP234567",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "git@github.com:acme/app.git ssh://git@github.com/acme/app https://x.org/a?mail=me@example.com",
        "https://user:***@github.com/acme/app AUTHORIZATION: basic ***",
        "hmac-sha256:0123456789abcdef0123456789abcdef",
        "authorization.k8s.io/decision: allow",
        "npm_config_registry, ghp_short, xoxo-hugs",
    ];
    for text in ordinary {
        assert_eq!(redactor().text(&Bytes::from(text)), (Bytes::from(text), vec![]));
    }
}

#[test]
fn the_content_of_kubernetes_secrets_goes_whole() {
    let event = |resource: &str, request: serde_json::Value| {
        let body = serde_json::json!({"auditID": "1", "verb": "create", "objectRef": {"resource": resource},
            "requestObject": request, "responseObject": {"kind": "Secret", "metadata": {"name": "db"}, "data": {"pw": "aHVudGVyMg=="}}});
        let (body, found) = redactor().body(SourceType::KubernetesAudit, &Bytes::from(body.to_string()));
        (serde_json::from_slice::<serde_json::Value>(&body).unwrap(), found)
    };
    let secret = serde_json::json!({"kind": "Secret", "stringData": {"pw": "hunter2"}, "metadata": {"name": "db",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"stringData\":{\"pw\":\"hunter2\"}}"}}});
    let (json, found) = event("secrets", secret);
    assert!(!json.to_string().contains("hunter2") && !json.to_string().contains("aHVudGVyMg"));
    assert_eq!(json["responseObject"]["metadata"]["name"], "db");
    assert!(json["requestObject"]["stringData"].as_str().unwrap().starts_with("redacted:kubernetes-secret:"));
    assert_eq!(found.len(), 3);
    let patch = serde_json::json!([{"op": "replace", "path": "/data/pw", "value": "aHVudGVyMg=="}]);
    assert!(!event("secrets", patch).0.to_string().contains("aHVudGVyMg"));
    let list = serde_json::json!({"kind": "SecretList", "items": [{"data": {"a": "aHVudGVyMg=="}}]});
    assert!(!event("secrets", list).0.to_string().contains("aHVudGVyMg"));
    let map = serde_json::json!({"auditID": "1", "objectRef": {"resource": "configmaps"}, "requestObject": {"kind": "ConfigMap", "data": {"a": "plain"}}});
    let bytes = Bytes::from(map.to_string());
    assert_eq!(redactor().body(SourceType::KubernetesAudit, &bytes), (bytes.clone(), vec![]));
}

#[test]
fn the_content_of_kubernetes_secrets_goes_from_whatever_carries_them() {
    let secret = serde_json::json!({"kind": "Secret", "metadata": {"name": "db"}, "data": {"pw": "aHVudGVyMg=="}});
    let review = serde_json::json!({"request": {"uid": "u", "resource": {"resource": "secrets"}, "object": secret, "oldObject": secret}});
    let decision = serde_json::json!({"decision_id": "d", "input": review});
    let entry = serde_json::json!({"insertId": "i", "protoPayload": {"methodName": "io.k8s.core.v1.secrets.create",
        "request": {"@type": "core.k8s.io/v1.Secret", "data": {"pw": "aHVudGVyMg=="}}, "response": secret}});
    for (kind, body) in [
        (SourceType::KubernetesAdmission, review),
        (SourceType::OpaDecision, decision),
        (SourceType::GcpAudit, entry.clone()),
        (SourceType::KubernetesAudit, entry),
    ] {
        let (body, found) = redactor().body(kind, &Bytes::from(body.to_string()));
        let text = std::str::from_utf8(&body).unwrap();
        assert!(!text.contains("aHVudGVyMg") && text.contains("redacted:kubernetes-secret"), "{kind}: {text}");
        assert_eq!(found.iter().map(|one| one.count).sum::<u32>(), 2, "{kind}");
    }
    let pod = serde_json::json!({"request": {"resource": {"resource": "pods"}, "object": {"kind": "Pod", "data": {"a": "b"}}}});
    let bytes = Bytes::from(pod.to_string());
    assert_eq!(redactor().body(SourceType::KubernetesAdmission, &bytes), (bytes.clone(), vec![]));
}

#[test]
fn the_content_of_kubernetes_secrets_goes_from_events_that_are_cut() {
    let whole = serde_json::json!({"auditID": "1", "objectRef": {"resource": "secrets"},
        "requestObject": {"kind": "Secret", "metadata": {"name": "db"}, "stringData": {"a": "hunter2", "b": "hunter2"}}})
    .to_string();
    let unnamed = whole.replace("\"objectRef\":{\"resource\":\"secrets\"},", "");
    for whole in [whole, unnamed] {
        for len in 1..whole.len() {
            let (body, _) =
                redactor().body(SourceType::KubernetesAudit, &Bytes::copy_from_slice(&whole.as_bytes()[..len]));
            assert!(!body.windows(3).any(|part| part == b"hun"), "{}", String::from_utf8_lossy(&body));
        }
    }
}

/// Seconds where they would be hours if every value were compared with all that stands before or after it.
#[test]
fn hostile_shapes_cost_no_more_than_their_size() {
    let started = std::time::Instant::now();
    let token = &secrets()[0].1;
    let key = "k".repeat(4 << 20);
    for body in [
        // Content that never ends, many times over.
        format!("{{\"objectRef\":{{\"resource\":\"secrets\"}},\"requestObject\":{}", "{\"data\":".repeat(200_000)),
        // A long key over many values.
        format!("{{\"{key}\":[\"{token}\"{}]}}", ",\"a\"".repeat(500_000)),
        format!("{{\"{key}\":{{\"a\":\"{token}\"{}}}}}", format!(",\"a\":\"{token}\"").repeat(20_000)),
        // Brackets that never close.
        format!("\"{token}\"{}", "[{".repeat(4 << 20)),
    ] {
        let (body, found) = redactor().body(SourceType::KubernetesAudit, &Bytes::from(body));
        assert!(!found.is_empty() && gone(Family::GithubToken, &body));
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn names_are_known_at_every_depth() {
    for depth in [3, 511, 512, 513, 3000] {
        let body = format!(
            "{}{{\"a\":[1],\"authorization\":\"Basic hunter2hunter2\"}}{}",
            "[{\"b\":".repeat(depth),
            "}]".repeat(depth)
        );
        let (body, found) = redactor().body(SourceType::Json, &Bytes::from(body));
        assert_eq!(families(&found), ["authorization-header"], "{depth}");
        assert!(!body.windows(6).any(|part| part == b"hunter"), "{depth}");
    }
}

#[test]
fn a_signed_bundle_is_not_touched() {
    let payload = STANDARD.encode(format!("{{\"x\":\"{}\"}}", secrets()[0].1));
    let body = serde_json::json!({"mediaType": "m", "dsseEnvelope": {"payload": payload}, "note": payload}).to_string();
    let (body, found) = redactor().body(SourceType::SigstoreBundle, &Bytes::from(body));
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["dsseEnvelope"]["payload"], payload.as_str());
    assert!(json["note"].as_str().unwrap().starts_with("redacted:github-token:"));
    assert_eq!(found.len(), 1);
}

#[test]
fn what_a_scanner_for_secrets_found_goes_whatever_it_looks_like() {
    let body =
        r#"{"RuleID":"own-rule","Secret":"plain words","Match":"key = plain words","Message":"plain words stay"}"#;
    let (after, found) = redactor().body(SourceType::Gitleaks, &Bytes::from_static(body.as_bytes()));
    let after: serde_json::Value = serde_json::from_slice(&after).unwrap();
    let expected =
        format!("redacted:scanner-finding:{}:{}", redactor().key_id(), redactor().fingerprint(b"plain words"));
    assert_eq!(after["Secret"], expected);
    assert!(after["Match"].as_str().unwrap().starts_with("redacted:scanner-finding:"));
    assert_eq!((after["Message"].as_str(), found.len()), (Some("plain words stay"), 2));
    // What the scanner masked itself says nothing.
    let masked = Bytes::from_static(br#"{"RuleID":"r","Secret":"*****","Match":""}"#);
    assert_eq!(redactor().body(SourceType::Gitleaks, &masked).0, masked);
    let log = |tool: &str| {
        let log = serde_json::json!({"runs": [{"tool": {"driver": {"name": tool}}, "results": [{"message": {"text": "a secret"},
            "locations": [{"physicalLocation": {"region": {"snippet": {"text": "a secret"}}}}]}]}]});
        redactor().body(SourceType::Sarif, &Bytes::from(log.to_string())).1.len()
    };
    assert_eq!((log("gitleaks"), log("CodeQL")), (1, 0), "elsewhere a snippet is the code in question");
}

proptest! {
    /// A secret in any text, glued to it, in a value, a key, or wrapped.
    #[test]
    fn planted_secrets_never_survive(
        before in "[ -~]{0,40}", after in "[ -~]{0,40}", number in 0..16_usize, place in 0..5_u8,
    ) {
        let (family, secret) = secrets().swap_remove(number);
        // What is glued on can only lengthen a secret, except for those known by exactly the text next to them.
        let glued = !matches!(family, Family::UrlCredentials | Family::AuthorizationHeader | Family::AwsSecretKey);
        let (before, after) = if glued { (before, after) } else { (format!("{before} "), format!(" {after}")) };
        let text = format!("{before}{secret}{after}");
        let redactor = redactor();
        let redacted = match place {
            0 => redactor.text(&Bytes::from(text)).0,
            1 => redactor.body(SourceType::Json, &Bytes::from(serde_json::json!({"m": text}).to_string())).0,
            2 => redactor.body(SourceType::GithubWebhook, &Bytes::from(serde_json::json!([{text: 1}]).to_string())).0,
            3 => redactor.body(SourceType::GithubJoblog, &Bytes::from(text)).0,
            _ => redactor.body(SourceType::Json, &Bytes::from(text)).0,
        };
        prop_assert!(gone(family, &redacted), "{:?} in {}", family, String::from_utf8_lossy(&redacted));
    }

    #[test]
    fn any_bytes_are_redacted_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        for kind in SourceType::ALL {
            drop(redactor().body(*kind, &bytes));
        }
    }

    /// JSON without secrets stays as it is, byte for byte, whatever its escapes.
    #[test]
    fn other_json_does_not_change(text in "\\PC{0,60}") {
        let body = Bytes::from(serde_json::json!({"a": text, "\\u0041": ["\\/"]}).to_string());
        let (after, found) = redactor().body(SourceType::Json, &body);
        prop_assume!(found.is_empty());
        prop_assert_eq!(after, body);
    }
}
