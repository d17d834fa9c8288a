//! Measured: how many secrets of each family are found in the places where they leak, and how often ordinary log lines
//! are taken for secrets. The secrets are made up here, so that no scanner of this repository takes them for real.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const ALPHANUMERIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const WORD: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const HEX: &[u8] = b"0123456789abcdef";

fn some(random: &mut StdRng, of: &[u8], len: usize) -> String {
    (0..len).map(|_| char::from(of[random.random_range(0..of.len())])).collect()
}

type Secret = fn(&mut StdRng) -> String;

/// Every kind of secret, by the family that it is found as.
const SECRETS: &[(Family, Secret)] = &[
    (Family::GithubToken, |r| {
        format!("gh{}_{}", ["p", "o", "u", "s", "r"][r.random_range(0..5)], some(r, ALPHANUMERIC, 36))
    }),
    (Family::GithubToken, |r| format!("github_{}_{}_{}", "pat", some(r, ALPHANUMERIC, 22), some(r, ALPHANUMERIC, 59))),
    (Family::GitlabToken, |r| {
        format!("gl{}-{}", ["pat", "dt", "rt", "cbt", "ptt", "soat"][r.random_range(0..6)], some(r, WORD, 20))
    }),
    (Family::GitlabToken, |r| format!("gl{}-{}.01.{}", "pat", some(r, WORD, 27), some(r, HEX, 9))),
    (Family::AwsAccessKey, |r| format!("AK{}{}", "IA", some(r, UPPER, 16))),
    (Family::AwsSecretKey, |r| format!("aws_secret_access_key={}", some(r, BASE64, 40))),
    (Family::AwsSessionToken, |r| format!("AWS_SESSION_TOKEN=IQoJb3JpZ2lu{}", some(r, BASE64, 300))),
    (Family::GcpApiKey, |r| format!("AI{}{}", "za", some(r, WORD, 35))),
    (Family::GcpOauthToken, |r| format!("ya{}.{}", 29, some(r, WORD, 120))),
    (Family::GcpOauthToken, |r| format!("GOC{}-{}", "SPX", some(r, WORD, 28))),
    (Family::AzureSecret, |r| format!("AccountKey={}==", some(r, BASE64, 86))),
    (Family::AzureSecret, |r| format!("SharedAccessKey={}=", some(r, BASE64, 43))),
    (Family::AzureSecret, |r| format!("{}8Q{}{}", some(r, ALPHANUMERIC, 3), "~", some(r, ALPHANUMERIC, 34))),
    (Family::SlackToken, |r| format!("xo{}b-{}-{}", "x", some(r, b"0123456789", 12), some(r, ALPHANUMERIC, 24))),
    (Family::SlackWebhook, |r| {
        format!(
            "https://hooks.{}.com/services/T{}/B{}/{}",
            "slack",
            some(r, UPPER, 9),
            some(r, UPPER, 9),
            some(r, ALPHANUMERIC, 24)
        )
    }),
    (Family::NpmToken, |r| format!("np{}_{}", "m", some(r, ALPHANUMERIC, 36))),
    (Family::PypiToken, |r| format!("py{}-AgEIcHlwaS5vcmc{}", "pi", some(r, WORD, 150))),
    (Family::StripeKey, |r| format!("{}k_{}_{}", ["s", "r"][r.random_range(0..2)], "live", some(r, ALPHANUMERIC, 24))),
    (Family::VaultToken, |r| format!("hv{}.{}", "s", some(r, WORD, 90))),
    (Family::Jwt, |r| format!("ey{0}hbGciOiJSUzI1NiJ9.ey{0}{1}.{2}", "J", some(r, WORD, 200), some(r, WORD, 342))),
    (Family::PrivateKey, |r| {
        let lines: Vec<String> = (0..12).map(|_| some(r, BASE64, 64)).collect();
        format!("-----BEGIN {0} KEY-----\n{1}\n-----END {0} KEY-----", "PRIVATE", lines.join("\n"))
    }),
];

/// Where a secret leaks: as it is, in settings, commands, addresses and JSON, and with text glued to it.
const PLACES: &[fn(&str) -> String] = &[
    |secret| format!("{secret}\n"),
    |secret| format!("2026-11-26T10:00:00.1234567Z   TOKEN: {secret}\n"),
    |secret| format!("export SECRET=\"{secret}\" && ./deploy --verbose\n"),
    |secret| format!("curl -H 'X-Token: {secret}' https://api.example.com/v1/things\n"),
    |secret| format!("{{\"env\":{{\"A\":{}}}}}\n", serde_json::to_string(secret).unwrap()),
    |secret| format!("https://example.com/callback?x=1&token={secret}&y=2\n"),
    |secret| format!("error: invalid credentials ({secret}), giving up\n"),
    |secret| format!("\u{1b}[33m{secret}\u{1b}[0m\n"),
];

/// The part of a secret that says something.
fn core(secret: &str) -> &str {
    let lines: Vec<&str> = secret.lines().collect();
    let line = if lines.len() > 1 { lines[1] } else { secret };
    &line[line.len() - 15..line.len() - 2]
}

fn is_gone(secret: &str, text: &str) -> bool {
    let (redacted, found) = redactor().text(&Bytes::copy_from_slice(text.as_bytes()));
    !found.is_empty() && !String::from_utf8_lossy(&redacted).contains(core(secret))
}

fn redactor() -> &'static Redactor {
    static REDACTOR: std::sync::LazyLock<Redactor> = std::sync::LazyLock::new(|| Redactor::new(&[7; 32]));
    &REDACTOR
}

#[test]
fn at_least_99_in_100_secrets_of_each_family_are_found() {
    let mut random = StdRng::seed_from_u64(20_261_126);
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (family, secret) in SECRETS {
        for _ in 0..60 {
            let secret = secret(&mut random);
            for place in PLACES {
                let count = counts.entry(family.name()).or_default();
                count.1 += 1;
                count.0 += usize::from(is_gone(&secret, &place(&secret)));
            }
        }
    }
    for (family, (found, planted)) in &counts {
        println!("{family:<20} {found} of {planted}");
        assert!(found * 100 >= planted * 99, "{family}: {found} of {planted}");
    }
}

#[test]
fn base64_once_and_twice_hides_none_of_them() {
    let mut random = StdRng::seed_from_u64(1);
    let mut counts: BTreeMap<(&str, u8), (usize, usize)> = BTreeMap::new();
    for (family, secret) in SECRETS {
        // An Azure client secret has no beginning to look for: wrapped it cannot be told from noise.
        if *family == Family::AzureSecret && secret(&mut random).contains("Q~") {
            continue;
        }
        for _ in 0..40 {
            let secret = secret(&mut random);
            let filler = some(&mut random, b"abcdefgh ", random_len(&secret));
            let once = STANDARD.encode(format!("{filler}{secret}\n"));
            for (wraps, wrapped) in [(1, once.clone()), (2, STANDARD.encode(&once))] {
                let count = counts.entry((family.name(), wraps)).or_default();
                count.1 += 1;
                let (redacted, found) = redactor().text(&Bytes::from(format!("out: {wrapped}\n")));
                let left =
                    String::from_utf8_lossy(&redacted).contains(&wrapped[wrapped.len() / 2..wrapped.len() / 2 + 12]);
                count.0 += usize::from(!found.is_empty() && !left);
            }
        }
    }
    for ((family, wraps), (found, planted)) in &counts {
        println!("{family:<20} wrapped {wraps}: {found} of {planted}");
        assert!(found * 100 >= planted * 99, "{family} wrapped {wraps}: {found} of {planted}");
    }
}

fn random_len(secret: &str) -> usize {
    secret.bytes().map(usize::from).sum::<usize>() % 7
}

/// Lines as builds write them: digests, ids, paths, addresses, versions, encoded noise.
const LINES: &[Secret] = &[
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
fn at_most_one_in_10_000_ordinary_lines_is_taken_for_a_secret() {
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
