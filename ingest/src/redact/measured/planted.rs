//! Secrets as their vendors make them: made up here by the formats they document, not by the patterns that look for them, and
//! put together so that no scanner of this repository takes them for real.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};

use super::super::Family;

pub(super) const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
pub(super) const HEX: &[u8] = b"0123456789abcdef";
const BASE32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const DIGITS: &[u8] = b"0123456789";

pub(super) fn some(random: &mut StdRng, of: &[u8], len: usize) -> String {
    (0..len).map(|_| char::from(of[random.random_range(0..of.len())])).collect()
}

pub(super) fn one<'a>(random: &mut StdRng, of: &[&'a str]) -> &'a str {
    of[random.random_range(0..of.len())]
}

fn bytes(random: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill_bytes(&mut bytes);
    bytes
}

fn base64(random: &mut StdRng, len: usize) -> String {
    STANDARD.encode(bytes(random, len))
}

fn base64url(random: &mut StdRng, len: usize) -> String {
    URL_SAFE_NO_PAD.encode(bytes(random, len))
}

fn uuid(random: &mut StdRng) -> String {
    let parts = [8, 4, 4, 4, 12].map(|len| some(random, HEX, len));
    parts.join("-")
}

/// A password as managers make them, escaped for a URL.
fn password(random: &mut StdRng) -> String {
    some(random, b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789!*._-~", 18)
}

/// What a secret can stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One word that is known by itself: any syntax may be around it.
    Word,
    /// With the name it is known by, in the syntax it was written in.
    Named,
    /// Lines.
    Lines,
}

/// A secret, as it is written, and what of it must be found nowhere.
#[derive(Clone, Debug)]
pub(super) struct Planted {
    pub(super) text: String,
    pub(super) needles: Vec<String>,
}

fn word(text: String) -> Planted {
    let middle = text.len() / 2;
    Planted { needles: vec![text[middle - 6..middle + 6].to_owned()], text }
}

fn named(text: String, secret: &str) -> Planted {
    Planted { text, needles: vec![secret[1..secret.len() - 1].to_owned()] }
}

/// One kind of secret: its family, whether it is found in base64 too, what it can stand in, and how one is made.
pub(super) struct Kind {
    pub(super) family: Family,
    /// Whether it has a beginning to look for in base64.
    pub(super) wrapped: bool,
    pub(super) form: Form,
    pub(super) make: fn(&mut StdRng) -> Planted,
}

const fn kind(family: Family, wrapped: bool, form: Form, make: fn(&mut StdRng) -> Planted) -> Kind {
    Kind { family, wrapped, form, make }
}

/// GitHub, "Behind GitHub's new authentication token formats": 30 random characters, and the CRC-32 of them in six.
fn github(random: &mut StdRng, prefix: &str) -> String {
    let token = some(random, BASE62, 30);
    let mut crc = flate2::Crc::new();
    crc.update(token.as_bytes());
    let mut sum = crc.sum();
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[usize::try_from(sum % 62).unwrap()];
        sum /= 62;
    }
    format!("{prefix}_{token}{}", std::str::from_utf8(&digits).unwrap())
}

/// AWS's own examples of how a secret key is named where it is written down.
fn aws_secret(random: &mut StdRng) -> Planted {
    let key = base64(random, 30);
    let text = match random.random_range(0..9) {
        0 => format!("aws_secret_access_key = {key}"),
        1 => format!("export AWS_SECRET_ACCESS_KEY={key}"),
        2 => format!("AWS_SECRET_ACCESS_KEY: '{key}'"),
        3 => format!("\"SecretAccessKey\": \"{key}\","),
        4 => format!("<SecretAccessKey>{key}</SecretAccessKey>"),
        5 => format!("AWS Secret Access Key [None]: {key}"),
        6 => format!("secret_key = \"{key}\""),
        7 => format!("docker run -e AWS_SECRET_ACCESS_KEY={key} app"),
        _ => format!("{{\\\"secretAccessKey\\\":\\\"{key}\\\"}}"),
    };
    named(text, &key)
}

fn pem(random: &mut StdRng) -> Planted {
    // Beginnings of the formats: PKCS #8, PKCS #1, SEC 1, OpenSSH, encrypted PKCS #8.
    let (label, head, len, width): (_, &[u8], _, _) = match random.random_range(0..6) {
        0 => (
            "PRIVATE KEY",
            &b"\x30\x82\x04\xbe\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"[..],
            1200,
            64,
        ),
        1 => ("RSA PRIVATE KEY", &b"\x30\x82\x04\xa4\x02\x01\x00\x02\x82\x01\x01\x00"[..], 1180, 64),
        2 => ("EC PRIVATE KEY", &b"\x30\x77\x02\x01\x01\x04\x20"[..], 114, 64),
        3 => ("OPENSSH PRIVATE KEY", &b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0\0\0\0\x01"[..], 1700, 70),
        4 => (
            "ENCRYPTED PRIVATE KEY",
            &b"\x30\x82\x05\x35\x30\x5f\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d"[..],
            1300,
            64,
        ),
        // Ed25519: one line.
        _ => ("PRIVATE KEY", &b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"[..], 32, 64),
    };
    let body = STANDARD.encode([head, &bytes(random, len)].concat());
    let lines: Vec<&str> = body.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let headers = if label.starts_with("RSA") && random.random_bool(0.3) {
        format!("Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,{}\n\n", some(random, b"0123456789ABCDEF", 32))
    } else {
        String::new()
    };
    let text = format!("-----BEGIN {label}-----\n{headers}{}\n-----END {label}-----", lines.join("\n"));
    Planted { text, needles: lines.iter().map(|line| (*line).to_owned()).filter(|line| line.len() > 8).collect() }
}

fn jwt(random: &mut StdRng) -> Planted {
    let head = one(
        random,
        &[
            "{\"alg\":\"RS256\",\"typ\":\"JWT\"}",
            "{\"typ\":\"JWT\",\"alg\":\"RS256\",\"x5t\":\"eBZ_cn3sXYAd0ch4THBKHIgOwOE\",\"kid\":\"78167F727DEC5D801DD1C8784C704A1C880EC0E1\"}",
            "{\"kid\":\"a1\",\"alg\":\"ES256\"}",
            "{\"alg\":\"HS256\"}",
        ],
    );
    let claims = format!(
        "{{\"jti\":\"{}\",\"sub\":\"repo:acme/app:ref:refs/heads/main\",\"aud\":\"sts.example\",\"iat\":{}}}",
        uuid(random),
        random.random_range(1_700_000_000_u32..1_900_000_000)
    );
    let signature = base64url(random, 256);
    let needles = vec![signature[20..60].to_owned()];
    let encoded = [head, &claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    Planted { text: format!("{}.{}.{signature}", encoded[0], encoded[1]), needles }
}

fn url_credentials(random: &mut StdRng) -> Planted {
    let secret = password(random);
    let text = match random.random_range(0..7) {
        // A token alone, of a kind with no form of its own.
        6 => {
            let token = some(random, BASE62, 32);
            return named(format!("git clone https://{token}@git.acme.example/app"), &token);
        }
        0 => format!("https://deploy:{secret}@git.acme.example/app.git"),
        1 => format!("postgres://app:{secret}@db.acme.example:5432/app?sslmode=require"),
        2 => format!("redis://:{secret}@cache.acme.example:6379/0"),
        3 => format!("mongodb+srv://app:{secret}@cluster0.acme.example/test"),
        4 => format!("amqp://guest:{secret}@mq.acme.example"),
        _ => format!("fatal: unable to access 'https://x-access-token:{secret}@git.acme.example/a/b/': 403"),
    };
    named(text, &secret)
}

fn authorization(random: &mut StdRng) -> Planted {
    let (name, scheme, secret) = match random.random_range(0..8) {
        0 | 1 => ("Authorization", "Basic ", STANDARD.encode(format!("deploy:{}", password(random)))),
        2 => ("Authorization", "Bearer ", some(random, HEX, 40)),
        3 => ("Authorization", "Bearer ", base64url(random, 32)),
        4 => ("Authorization", "token ", some(random, HEX, 40)),
        5 => ("Authorization", "Splunk ", uuid(random)),
        6 => ("PRIVATE-TOKEN", "", some(random, BASE62, 20)),
        _ => ("X-Vault-Token", "", format!("s.{}", some(random, BASE62, 24))),
    };
    let text = match random.random_range(0..5) {
        0 => format!("{name}: {scheme}{secret}"),
        1 => format!("> {}: {scheme}{secret}", name.to_ascii_lowercase()),
        2 => format!("curl -H \"{name}: {scheme}{secret}\" https://api.acme.example/v1"),
        3 => format!("headers={{'{name}': '{scheme}{secret}'}}"),
        _ => format!("{{\"headers\":{{\"{name}\":\"{scheme}{secret}\"}}}}"),
    };
    named(text, &secret)
}

/// Shared access signatures: Microsoft, "Service SAS": HMAC-SHA256 in base64, encoded for a URL.
fn sas(random: &mut StdRng) -> Planted {
    let signature = base64(random, 32).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let fields = "sv=2024-11-04&ss=b&srt=co&sp=rl&se=2026-12-01T00:00:00Z&spr=https";
    let text = match random.random_range(0..3) {
        0 => format!("https://acme.blob.core.windows.net/logs?{fields}&sig={signature}"),
        1 => format!("BlobEndpoint=https://acme.blob.core.windows.net/;SharedAccessSignature={fields}&sig={signature}"),
        _ => {
            format!("https://acme.blob.core.windows.net/logs?{}\\u0026sig={signature}", fields.replace('&', "\\u0026"))
        }
    };
    named(text, &signature)
}

/// In the form in which a runner's memory holds it (GHSA-mrrh-fwg8-r2c3).
fn runner(random: &mut StdRng) -> Planted {
    let secret = password(random);
    named(format!("\"DB_PASSWORD\":{{\"value\":\"{secret}\",\"isSecret\":true}}"), &secret)
}

use Form::{Lines, Named, Word};

/// Every kind of secret.
pub(super) const KINDS: &[Kind] = &[
    kind(Family::GithubToken, true, Word, |r| {
        let prefix = one(r, &["ghp", "gho", "ghu", "ghs", "ghr"]);
        word(github(r, prefix))
    }),
    kind(Family::GithubToken, true, Word, |r| {
        word(format!("github_{}_{}_{}", "pat", some(r, BASE62, 22), some(r, BASE62, 59)))
    }),
    kind(Family::GithubToken, false, Named, |r| {
        let token = some(r, HEX, 40);
        let name = one(r, &["GITHUB_TOKEN=", "GH_TOKEN: ", "\"github_token\": \"", "export GITHUB_TOKEN='"]);
        named(format!("{name}{token}"), &token)
    }),
    kind(Family::GitlabToken, true, Word, |r| {
        let prefix = one(r, &["glpat", "gldt", "glft", "glsoat", "glffct", "glwt"]);
        word(format!("{prefix}-{}", &base64url(r, 16)[..20]))
    }),
    // Routable tokens: payload, its length, version and checksum.
    kind(Family::GitlabToken, true, Word, |r| {
        word(format!(
            "gl{}-{}.{}.{}",
            "pat",
            base64url(r, 33),
            some(r, b"0123456789", 2),
            some(r, b"0123456789abcdefghijklmnopqrstuvwxyz", 9)
        ))
    }),
    kind(Family::GitlabToken, true, Word, |r| match r.random_range(0..6) {
        0 => word(format!("glcbt-{}_{}", some(r, HEX, 2), &base64url(r, 16)[..20])),
        1 => word(format!("glptt-{}", some(r, HEX, 40))),
        2 => word(format!("glagent-{}", &base64url(r, 40)[..50])),
        3 => word(format!("gloas-{}", some(r, HEX, 64))),
        4 => word(format!("glrt-t{}_{}", r.random_range(1..4), &base64url(r, 16)[..20])),
        _ => word(format!("glimt-{}", &base64url(r, 20)[..25])),
    }),
    kind(Family::GitlabToken, false, Word, |r| word(format!("GR{}{}", "1348941", &base64url(r, 16)[..20]))),
    kind(Family::AwsAccessKey, true, Word, |r| word(format!("AK{}{}", "IA", some(r, BASE32, 16)))),
    kind(Family::AwsSecretKey, false, Named, aws_secret),
    kind(Family::AwsSecretKey, true, Named, |r| {
        let key = base64(r, 30);
        named(format!("aws_secret_access_key={key}"), &key)
    }),
    kind(Family::AwsSessionToken, true, Word, |r| {
        // Version, "origin_ec", and what only AWS can read.
        let token = STANDARD.encode([b"\x21\x0a\x09origin_ec\x10".as_slice(), &bytes(r, 500)].concat());
        let needles = vec![token[200..240].to_owned()];
        Planted { text: token, needles }
    }),
    kind(Family::AwsSessionToken, false, Named, |r| {
        let token = base64(r, 400);
        let name = one(r, &["AWS_SESSION_TOKEN=", "aws_session_token = ", "\"SessionToken\": \"", "<SessionToken>"]);
        named(format!("{name}{token}"), &token)
    }),
    kind(Family::GcpApiKey, true, Word, |r| word(format!("AI{}{}", "za", &base64url(r, 30)[..35]))),
    kind(Family::GcpOauthToken, true, Word, |r| {
        let sort = one(r, &["", "c.", "d."]);
        let len = r.random_range(90..700);
        word(format!("ya{}.{sort}{}", 29, base64url(r, len)))
    }),
    kind(Family::GcpOauthToken, true, Word, |r| word(format!("GOC{}-{}", "SPX", &base64url(r, 24)[..28]))),
    kind(Family::GcpOauthToken, false, Word, |r| word(format!("1/{}0{}", "/", base64url(r, 72)))),
    kind(Family::AzureSecret, true, Named, |r| {
        let key = base64(r, 64);
        named(
            format!("DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={key};EndpointSuffix=core.windows.net"),
            &key,
        )
    }),
    kind(Family::AzureSecret, true, Named, |r| {
        let key = base64(r, 32);
        named(
            format!("Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={key}"),
            &key,
        )
    }),
    kind(Family::AzureSecret, false, Named, sas),
    kind(Family::AzureSecret, false, Word, |r| {
        word(format!(
            "{}{}Q{}{}",
            some(r, BASE62, 3),
            r.random_range(7..9),
            "~",
            some(r, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_~.-", 34)
        ))
    }),
    kind(Family::AzureSecret, false, Word, |r| {
        let token = format!("{}{}{}", some(r, BASE62, 76), "AZDO", some(r, BASE62, 4));
        word(token)
    }),
    kind(Family::SlackToken, true, Word, |r| match r.random_range(0..4) {
        0 => word(format!("xo{}b-{}-{}-{}", "x", some(r, DIGITS, 12), some(r, DIGITS, 13), some(r, BASE62, 24))),
        1 => word(format!(
            "xo{}p-{}-{}-{}-{}",
            "x",
            some(r, DIGITS, 12),
            some(r, DIGITS, 12),
            some(r, DIGITS, 13),
            some(r, HEX, 32)
        )),
        2 => word(format!("xo{0}e.xo{0}p-1-{1}", "x", some(r, BASE62, 163))),
        _ => word(format!("xa{}-1-A{}-{}-{}", "pp", some(r, BASE32, 10), some(r, DIGITS, 13), some(r, HEX, 64))),
    }),
    kind(Family::SlackWebhook, true, Word, |r| {
        let path = format!("T{}/B{}/{}", some(r, BASE32, 10), some(r, BASE32, 10), some(r, BASE62, 24));
        let needles = vec![path[path.len() - 20..].to_owned()];
        Planted { text: format!("https://hooks.{}.com/services/{path}", "slack"), needles }
    }),
    kind(Family::NpmToken, true, Word, |r| word(github(r, "npm"))),
    kind(Family::NpmToken, false, Named, |r| {
        let token = uuid(r);
        named(format!("//registry.npmjs.org/:_authToken={token}"), &token)
    }),
    // PyPI: a macaroon (version, location, identifier, caveats) in base64, of pypi.org and of its test instance.
    kind(Family::PypiToken, true, Word, |r| {
        let location = one(r, &["pypi.org", "test.pypi.org"]);
        let mut macaroon = vec![2, 1, u8::try_from(location.len()).unwrap()];
        macaroon.extend(location.as_bytes());
        macaroon.extend([2, 36]);
        macaroon.extend(uuid(r).into_bytes());
        macaroon.extend(bytes(r, 60));
        word(format!("py{}-{}", "pi", URL_SAFE_NO_PAD.encode(macaroon)))
    }),
    kind(Family::StripeKey, true, Word, |r| {
        let len = if r.random_bool(0.5) { 24 } else { 99 };
        word(format!("{}k_{}_{}", one(r, &["s", "r"]), one(r, &["live", "test"]), some(r, BASE62, len)))
    }),
    kind(Family::StripeKey, true, Word, |r| word(format!("wh{}_{}", "sec", some(r, BASE62, 32)))),
    kind(Family::VaultToken, true, Word, |r| {
        let prefix = one(r, &["hvs", "hvb", "hvr"]);
        let len = if r.random_bool(0.5) { 24 } else { 95 };
        word(format!("{prefix}.{}", some(r, BASE62, len)))
    }),
    kind(Family::Jwt, true, Word, jwt),
    kind(Family::PrivateKey, true, Lines, pem),
    kind(Family::RunnerSecret, true, Named, runner),
    kind(Family::UrlCredentials, false, Named, url_credentials),
    kind(Family::AuthorizationHeader, false, Named, authorization),
];
