//! Measured: how many secrets of each family are found in the places where they leak, and how often ordinary text is taken
//! for secrets. `cargo test -p pipeproof-ingest --lib redact::measured -- --nocapture` prints the figures.

mod lines;
mod places;
mod planted;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::planted::{BASE62 as ALPHANUMERIC, Form, HEX, KINDS, Kind, Planted, one, some};
use super::*;

const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const WORD: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn redactor() -> &'static Redactor {
    static REDACTOR: std::sync::LazyLock<Redactor> = std::sync::LazyLock::new(|| Redactor::new(&[7; 32]));
    &REDACTOR
}

/// How many of those planted were found, by name.
#[derive(Default)]
struct Recall(BTreeMap<String, (usize, usize)>, Vec<String>);

impl Recall {
    fn count(&mut self, name: impl Into<String>, found: bool, text: &str) {
        let count = self.0.entry(name.into()).or_default();
        count.1 += 1;
        count.0 += usize::from(found);
        if !found && self.1.len() < 20 {
            self.1.push(text.chars().take(600).collect());
        }
    }

    fn at_least_99_in_100(&self) {
        for (name, (found, planted)) in &self.0 {
            println!("{name:<40} {found} of {planted}");
        }
        for (name, (found, planted)) in &self.0 {
            assert!(found * 100 >= planted * 99, "{name}: {found} of {planted}\n{:#?}", self.1);
        }
    }
}

/// Whether a text is free of a secret after redaction, in a job log and as a value of an item.
fn is_gone(secret: &Planted, text: &str) -> bool {
    let left = |redacted: &[u8]| {
        let shown = String::from_utf8_lossy(redacted);
        secret.needles.iter().any(|needle| shown.contains(needle.as_str()))
    };
    let (log, found) = redactor().text(&Bytes::copy_from_slice(text.as_bytes()));
    let item = serde_json::json!({"message": text, "n": [1, {"level": "info"}]}).to_string();
    let (item, found_in_item) = redactor().body(SourceType::Json, &Bytes::from(item));
    // A stronger family may name the place, but one does.
    !left(&log) && !left(&item) && !found.is_empty() && !found_in_item.is_empty()
}

#[test]
fn at_least_99_in_100_secrets_of_each_family_are_found() {
    let mut random = StdRng::seed_from_u64(20_261_126);
    let mut recall = Recall::default();
    for Kind { family, form, make, .. } in KINDS {
        for _ in 0..40 {
            for around in places::around(*form) {
                let secret = make(&mut random);
                let (log, lines) = places::LOGS[random.random_range(0..places::LOGS.len())];
                let text = lines(&around(&secret.text));
                let found = is_gone(&secret, &text);
                recall.count(family.name(), found, &text);
                recall.count(format!("  in the log of {log}"), found, &text);
            }
        }
        // Whatever there are few places for is asked for as often.
        for _ in 0..if *form == Form::Word { 0 } else { 200 } {
            let secret = make(&mut random);
            let (log, lines) = places::LOGS[random.random_range(0..places::LOGS.len())];
            let text = lines(&secret.text);
            let found = is_gone(&secret, &text);
            recall.count(family.name(), found, &text);
            recall.count(format!("  in the log of {log}"), found, &text);
        }
    }
    kubernetes(&mut random, &mut recall);
    scanners(&mut random, &mut recall);
    let measured: Vec<&str> = Family::ALL.iter().map(|family| family.name()).collect();
    assert!(
        measured.iter().all(|name| recall.0.contains_key(*name)),
        "every family is measured: {:?}",
        recall.0.keys()
    );
    recall.at_least_99_in_100();
}

/// Words, keys and noise as Secrets hold them, in what an API server and an admission webhook say.
fn kubernetes(random: &mut StdRng, recall: &mut Recall) {
    for _ in 0..300 {
        let value = some(random, ALPHANUMERIC, 16);
        let encoded = STANDARD.encode(&value);
        let object = match random.random_range(0..3) {
            0 => serde_json::json!({"kind": "Secret", "metadata": {"name": "db"}, "data": {"password": encoded}}),
            1 => serde_json::json!({"kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": value}}),
            _ => {
                serde_json::json!({"metadata": {"name": "db", "annotations": {"kubectl.kubernetes.io/last-applied-configuration":
                serde_json::json!({"stringData": {"password": value}}).to_string()}}})
            }
        };
        let (kind, body) = match random.random_range(0..3) {
            0 => (
                SourceType::KubernetesAudit,
                serde_json::json!({"auditID": "1", "objectRef": {"resource": "secrets"}, "requestObject": object}),
            ),
            1 => (
                SourceType::KubernetesAdmission,
                serde_json::json!({"request": {"uid": "u", "resource": {"resource": "secrets"}, "object": object}}),
            ),
            _ => (
                SourceType::KubernetesAudit,
                serde_json::json!({"auditID": "1", "objectRef": {"resource": "secrets"},
                    "responseObject": {"kind": "SecretList", "items": [object]}}),
            ),
        };
        let (after, found) = redactor().body(kind, &Bytes::from(body.to_string()));
        let after = String::from_utf8_lossy(&after);
        let gone = !after.contains(&value) && !after.contains(encoded.trim_end_matches('='));
        let told = found.iter().any(|one| one.family == Family::KubernetesSecret.name());
        recall.count(Family::KubernetesSecret.name(), gone && told, &body.to_string());
    }
}

/// What gitleaks reports, in its own format and in SARIF, of secrets that only it knows the form of.
fn scanners(random: &mut StdRng, recall: &mut Recall) {
    for _ in 0..300 {
        let word = one(random, &["orange", "quiet lantern", "s3cret", "p@ss"]);
        let secret = format!("{word}-{}", some(random, b"abcdefghijklmnop", 6));
        let line = format!("password = \"{secret}\"");
        let (kind, body) = if random.random_bool(0.5) {
            let finding = serde_json::json!({"RuleID": "own", "StartLine": 3, "Match": line, "Secret": secret, "Line": line,
                "File": "app.py", "Commit": some(random, HEX, 40), "Fingerprint": "app.py:own:3"});
            (SourceType::Gitleaks, finding)
        } else {
            let region = serde_json::json!({"startLine": 3, "snippet": {"text": secret}});
            let log = serde_json::json!({"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "gitleaks"}}, "results": [
                {"ruleId": "own", "locations": [{"physicalLocation": {"region": region}}]}]}]});
            (SourceType::Sarif, log)
        };
        let (after, found) = redactor().body(kind, &Bytes::from(body.to_string()));
        let told = found.iter().any(|one| one.family == Family::ScannerFinding.name());
        let gone = !String::from_utf8_lossy(&after).contains(&secret);
        recall.count(Family::ScannerFinding.name(), gone && told, &body.to_string());
    }
}

#[test]
fn base64_once_and_twice_hides_none_of_them() {
    let mut random = StdRng::seed_from_u64(1);
    let mut recall = Recall::default();
    // What has no beginning of its own cannot be told from noise when it is wrapped.
    for Kind { family, make, .. } in KINDS.iter().filter(|kind| kind.wrapped) {
        for _ in 0..60 {
            let secret = make(&mut random);
            let before = random.random_range(0..9);
            let filler = some(&mut random, b"abcdefgh ", before);
            let once = STANDARD.encode(format!("{filler}{}\n", secret.text));
            let wide = STANDARD.encode(format!("user=ci\n{}\nregion=eu-central-1\n", secret.text).repeat(2));
            let broken: Vec<&str> = wide.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
            for (how, wrapped) in
                [("once", once.clone()), ("twice", STANDARD.encode(&once)), ("in lines of 76", broken.join("\n"))]
            {
                let (_, lines) = places::LOGS[random.random_range(0..places::LOGS.len())];
                let text = lines(&wrapped);
                let (redacted, found) = redactor().text(&Bytes::from(text.clone()));
                let shown = String::from_utf8_lossy(&redacted);
                let left = wrapped
                    .lines()
                    .any(|line| line.len() > 24 && shown.contains(&line[line.len() / 2 - 6..line.len() / 2 + 6]));
                recall.count(format!("{} {how}", family.name()), !found.is_empty() && !left, &text);
            }
        }
    }
    recall.at_least_99_in_100();
}

/// Lines as builds write them: digests, ids, paths, addresses, versions, encoded noise.
const LINES: &[fn(&mut StdRng) -> String] = &[
    |r| {
        format!(
            "2026-11-26T10:00:{:02}.1234567Z ##[group]Run actions/checkout@{}",
            r.random_range(0..60),
            some(r, HEX, 40)
        )
    },
    |r| format!("Download action repository 'acme/build@v4' (SHA:{})", some(r, HEX, 40)),
    |r| format!(" => => sha256:{} 3.41MB / 3.41MB", some(r, HEX, 64)),
    |r| {
        format!(
            "npm http fetch GET 200 https://registry.npmjs.org/left-pad/-/left-pad-1.{}.0.tgz 12ms",
            r.random_range(0..99)
        )
    },
    |r| format!("    integrity sha512-{}==", some(r, BASE64, 86)),
    |r| format!("go: downloading golang.org/x/sys v0.{}.0 h1:{}=", r.random_range(0..40), some(r, BASE64, 43)),
    |r| {
        format!(
            "request id {}-{}-4{}-a{}-{}",
            some(r, HEX, 8),
            some(r, HEX, 4),
            some(r, HEX, 3),
            some(r, HEX, 3),
            some(r, HEX, 12)
        )
    },
    |r| format!("arn:aws:sts::123456789012:assumed-role/deploy/AS{}{}", "IA", some(r, UPPER, 16)),
    |r| {
        format!(
            "pod/app-{}-{} condition met",
            some(r, b"bcdfghjklmnpqrstvwxz2456789", 10),
            some(r, b"bcdfghjklmnpqrstvwxz2456789", 5)
        )
    },
    |r| format!("git@github.com:acme/app.git {} -> FETCH_HEAD", some(r, HEX, 7)),
    |r| format!("uploading artifact {}.zip, etag \"{}\"", some(r, ALPHANUMERIC, 22), some(r, HEX, 32)),
    |r| format!("tlog entry index {} uuid {}", r.random_range(0..99_999_999), some(r, HEX, 80)),
    |r| format!("-----BEGIN CERTIFICATE----- {}", some(r, BASE64, 64)),
    |r| format!("test token::parses_{} ... ok", some(r, b"abcdefghijklmnop_", 30)),
    |r| format!("AUTHORIZATION: basic *** bearer token is masked {}", r.random_range(0..9)),
    |r| format!("data:image/png;base64,{}", some(r, BASE64, 200)),
    |r| format!("cache key: Linux-node-{}-{}", some(r, HEX, 64), some(r, WORD, 16)),
    |r| format!("https://user:***@github.com/acme/app?sig=short&sv=2024 {}", some(r, WORD, 12)),
    |r| {
        format!(
            "warning: unused variable `secret_key_{}` at src/lib.rs:{}:9",
            some(r, b"abc", 4),
            r.random_range(0..999)
        )
    },
    |r| {
        format!(
            "Requirement already satisfied: requests>=2.{} in ./venv/lib/python3.13/site-packages",
            r.random_range(0..40)
        )
    },
];

#[test]
fn at_most_one_in_10_000_made_up_lines_is_taken_for_a_secret() {
    let mut random = StdRng::seed_from_u64(42);
    let count = 60_000;
    let mut false_hits = Vec::new();
    for number in 0..count {
        let line = LINES[number % LINES.len()](&mut random);
        let (_, found) = redactor().text(&Bytes::from(line.clone()));
        if !found.is_empty() {
            false_hits.push(line);
        }
    }
    println!("{} of {count} lines", false_hits.len());
    assert!(false_hits.len() * 10_000 <= count, "{} of {count}: {:#?}", false_hits.len(), &false_hits[..5]);
}

/// What samples and fixtures hold that is a secret.
const TRUE: &[(SourceType, Family)] = &[
    // STS's answers, recorded with their tokens.
    (SourceType::AwsCloudtrail, Family::AwsSessionToken),
    (SourceType::Gitleaks, Family::ScannerFinding),
    (SourceType::Sarif, Family::ScannerFinding),
    (SourceType::KubernetesAudit, Family::KubernetesSecret),
    (SourceType::KubernetesAdmission, Family::KubernetesSecret),
];

#[test]
fn at_most_one_in_10_000_ordinary_lines_is_taken_for_a_secret() {
    let (mut lines, mut files, mut hits) = (0, std::collections::BTreeSet::new(), Vec::new());
    for (file, line) in lines::of_logs() {
        let (_, found) = redactor().text(&Bytes::from(line.clone()));
        hits.extend(found.into_iter().map(|one| format!("{file} {}: {line:.300}", one.family)));
        lines += 1;
        files.insert(file);
    }
    for (file, kind, body, count) in lines::of_items() {
        let (after, found) = redactor().body(kind, &body);
        let told = |one: &Redacted| TRUE.iter().any(|(of, family)| *of == kind && family.name() == one.family);
        for one in found.iter().filter(|one| !told(one)) {
            let after = String::from_utf8_lossy(&after);
            let at = after.find("redacted:").unwrap_or_default();
            let around = after.get(at.saturating_sub(200)..).unwrap_or_default();
            hits.push(format!("{file} {kind} {}: {around:.300}", one.family));
        }
        lines += count;
        files.insert(file);
    }
    println!("{} of {lines} lines of {} files\n{hits:#?}", hits.len(), files.len());
    assert!(lines > 40_000 && hits.len() * 10_000 <= lines, "{} of {lines}: {hits:#?}", hits.len());
}
