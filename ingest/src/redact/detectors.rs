//! What a secret looks like: families, found anywhere in text.
//!
//! Keywords first (one Aho–Corasick pass), then the pattern of each family whose keyword occurred. Patterns are not
//! anchored: a secret glued to other text is still one. `wrapped.rs` finds the same families inside base64.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use regex::bytes::Regex;

use super::wrapped::{self, Wrapped};

/// A family of secrets. The order decides which one names a place where two overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// PEM private keys, service account keys included.
    PrivateKey,
    /// GitHub tokens.
    GithubToken,
    /// Long-term access key ids; temporary ones (`ASIA…`) are identifiers and stay.
    AwsAccessKey,
    /// Secret access keys, next to their name.
    AwsSecretKey,
    /// Session tokens.
    AwsSessionToken,
    /// Google API keys.
    GcpApiKey,
    /// Google OAuth access tokens and client secrets.
    GcpOauthToken,
    /// GitLab tokens: personal, project and group access, deploy, runner, job, trigger, feed, agent.
    GitlabToken,
    /// Azure storage and messaging keys, client secrets of Entra applications, signatures of shared access.
    AzureSecret,
    /// Slack tokens.
    SlackToken,
    /// Slack incoming webhook addresses.
    SlackWebhook,
    /// npm tokens.
    NpmToken,
    /// PyPI upload tokens.
    PypiToken,
    /// Stripe keys, and secrets of Standard Webhooks, which look like Stripe's.
    StripeKey,
    /// Vault tokens.
    VaultToken,
    /// JSON Web Tokens.
    Jwt,
    /// Any secret in the form in which a runner's memory holds it: `"NAME":{"value":"…","isSecret":true}`.
    RunnerSecret,
    /// Passwords and tokens in the user part of a URL.
    UrlCredentials,
    /// Credentials after `Authorization:` or `Bearer`.
    AuthorizationHeader,
    /// Content of Kubernetes Secrets.
    KubernetesSecret,
    /// What a scanner for secrets shows as found.
    ScannerFinding,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 21] = [
        Self::PrivateKey,
        Self::GithubToken,
        Self::AwsAccessKey,
        Self::AwsSecretKey,
        Self::AwsSessionToken,
        Self::GcpApiKey,
        Self::GcpOauthToken,
        Self::GitlabToken,
        Self::AzureSecret,
        Self::SlackToken,
        Self::SlackWebhook,
        Self::NpmToken,
        Self::PypiToken,
        Self::StripeKey,
        Self::VaultToken,
        Self::Jwt,
        Self::RunnerSecret,
        Self::UrlCredentials,
        Self::AuthorizationHeader,
        Self::KubernetesSecret,
        Self::ScannerFinding,
    ];

    /// The name in records, events and rules.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PrivateKey => "private-key",
            Self::GithubToken => "github-token",
            Self::AwsAccessKey => "aws-access-key",
            Self::AwsSecretKey => "aws-secret-key",
            Self::AwsSessionToken => "aws-session-token",
            Self::GcpApiKey => "gcp-api-key",
            Self::GcpOauthToken => "gcp-oauth-token",
            Self::GitlabToken => "gitlab-token",
            Self::AzureSecret => "azure-secret",
            Self::SlackToken => "slack-token",
            Self::SlackWebhook => "slack-webhook",
            Self::NpmToken => "npm-token",
            Self::PypiToken => "pypi-token",
            Self::StripeKey => "stripe-key",
            Self::VaultToken => "vault-token",
            Self::Jwt => "jwt",
            Self::RunnerSecret => "runner-secret",
            Self::UrlCredentials => "url-credentials",
            Self::AuthorizationHeader => "authorization-header",
            Self::KubernetesSecret => "kubernetes-secret",
            Self::ScannerFinding => "scanner-finding",
        }
    }

    /// Whether finding one means that a secret leaked. The others are removed, but by design of what carries them, or
    /// by too weak a sign, they are no leak.
    #[must_use]
    pub fn is_leak(name: &str) -> bool {
        ![Self::UrlCredentials, Self::AuthorizationHeader, Self::KubernetesSecret, Self::ScannerFinding]
            .iter()
            .any(|weak| weak.name() == name)
    }

    const fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

/// A place in a text that has to go, and the secrets in it: several when it is a wrapped text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) range: Range<usize>,
    pub(crate) found: Vec<(Family, Vec<u8>)>,
}

/// Keyword → families whose pattern is then tried. Matched without regard to case.
const KEYWORDS: &[(&str, &[Family])] = &[
    ("private key", &[Family::PrivateKey]),
    ("ghp_", &[Family::GithubToken]),
    ("gho_", &[Family::GithubToken]),
    ("ghu_", &[Family::GithubToken]),
    ("ghs_", &[Family::GithubToken]),
    ("ghr_", &[Family::GithubToken]),
    ("github_pat_", &[Family::GithubToken]),
    ("github_token", &[Family::GithubToken]),
    ("github-token", &[Family::GithubToken]),
    ("githubtoken", &[Family::GithubToken]),
    ("gh_token", &[Family::GithubToken]),
    ("akia", &[Family::AwsAccessKey]),
    ("abia", &[Family::AwsAccessKey]),
    ("acca", &[Family::AwsAccessKey]),
    ("secret_access_key", &[Family::AwsSecretKey]),
    ("secretaccesskey", &[Family::AwsSecretKey]),
    ("secret-access-key", &[Family::AwsSecretKey]),
    ("aws_secret", &[Family::AwsSecretKey]),
    ("secret access key", &[Family::AwsSecretKey]),
    ("session_token", &[Family::AwsSessionToken]),
    ("sessiontoken", &[Family::AwsSessionToken]),
    ("security-token", &[Family::AwsSessionToken]),
    ("security_token", &[Family::AwsSessionToken]),
    ("iqojb3jpz2lu", &[Family::AwsSessionToken]),
    ("fwogzxivyxdz", &[Family::AwsSessionToken]),
    ("aiza", &[Family::GcpApiKey]),
    ("ya29.", &[Family::GcpOauthToken]),
    ("gocspx-", &[Family::GcpOauthToken]),
    ("glpat-", &[Family::GitlabToken]),
    ("gldt-", &[Family::GitlabToken]),
    ("glrt", &[Family::GitlabToken]),
    ("glcbt-", &[Family::GitlabToken]),
    ("glptt-", &[Family::GitlabToken]),
    ("glft-", &[Family::GitlabToken]),
    ("glimt-", &[Family::GitlabToken]),
    ("glagent-", &[Family::GitlabToken]),
    ("gloas-", &[Family::GitlabToken]),
    ("glsoat-", &[Family::GitlabToken]),
    ("glffct-", &[Family::GitlabToken]),
    ("gr1348941", &[Family::GitlabToken]),
    ("accountkey", &[Family::AzureSecret]),
    ("account_key", &[Family::AzureSecret]),
    ("sharedaccesskey", &[Family::AzureSecret]),
    ("sig=", &[Family::AzureSecret]),
    ("q~", &[Family::AzureSecret]),
    ("xox", &[Family::SlackToken]),
    ("xapp-", &[Family::SlackToken]),
    ("hooks.slack.com", &[Family::SlackWebhook]),
    ("npm_", &[Family::NpmToken]),
    ("_authtoken", &[Family::NpmToken]),
    ("pypi-ageichlwas", &[Family::PypiToken]),
    ("sk_live_", &[Family::StripeKey]),
    ("sk_test_", &[Family::StripeKey]),
    ("rk_live_", &[Family::StripeKey]),
    ("rk_test_", &[Family::StripeKey]),
    ("whsec_", &[Family::StripeKey]),
    ("hvs.", &[Family::VaultToken]),
    ("hvb.", &[Family::VaultToken]),
    ("hvr.", &[Family::VaultToken]),
    ("eyj", &[Family::Jwt]),
    ("issecret", &[Family::RunnerSecret]),
    ("authorization", &[Family::AuthorizationHeader]),
    ("bearer", &[Family::AuthorizationHeader]),
    ("private-token", &[Family::AuthorizationHeader]),
    ("x-gitlab-", &[Family::AuthorizationHeader]),
    ("x-buildkite-token", &[Family::AuthorizationHeader]),
    ("x-vault-token", &[Family::AuthorizationHeader]),
    ("x-api-key", &[Family::AuthorizationHeader]),
];

/// Family → pattern. The first group is the secret, or the whole match where there is none.
const PATTERNS: &[(Family, &str)] = &[
    (Family::GithubToken, r"gh[pousr]_[A-Za-z0-9_]{36,255}"),
    (Family::GithubToken, r"github_pat_[A-Za-z0-9_]{22,255}"),
    // Before 2021 a token was 40 hexadecimal digits, like a commit: only next to its name.
    (Family::GithubToken, r#"(?i)(?:github[_-]?|gh_)token["'\\\s:=>]{1,8}([0-9a-f]{40})(?:[^0-9a-z]|$)"#),
    (Family::AwsAccessKey, r"(?:AKIA|ABIA|ACCA)[A-Z0-9]{16}"),
    (
        Family::AwsSecretKey,
        r#"(?i)secret[_ -]?(?:access[_ -]?)?key["'\\\s:=>,]{1,12}(?:\{["'\\\s]{1,6}value["'\\\s:]{1,8})?([A-Za-z0-9/+]{40,128})"#,
    ),
    (
        Family::AwsSessionToken,
        r#"(?i)(?:session|security)[_-]?token["'\\\s:=>,]{1,12}(?:\{["'\\\s]{1,6}value["'\\\s:]{1,8})?([A-Za-z0-9/+=_-]{100,})"#,
    ),
    (Family::AwsSessionToken, r"(?:IQoJb3JpZ2lu|FwoGZXIvYXdz)[A-Za-z0-9/+=]{80,}"),
    (Family::GcpApiKey, r"AIza[0-9A-Za-z_-]{35}"),
    (Family::GcpOauthToken, r"ya29\.[0-9A-Za-z_-]{20,}"),
    (Family::GcpOauthToken, r"GOCSPX-[0-9A-Za-z_-]{28}"),
    (Family::GitlabToken, r"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|oas|soat|ffct)-[0-9A-Za-z_.=-]{20,300}"),
    (Family::GitlabToken, r"GR1348941[0-9A-Za-z_-]{20}"),
    (Family::AzureSecret, r#"(?i)account_?key["'\\\s:=]{1,8}([A-Za-z0-9+/]{80,88}={0,2})"#),
    (Family::AzureSecret, r#"(?i)sharedaccesskey["'\\\s:=]{1,8}([A-Za-z0-9+/]{42,44}={0,2})"#),
    // 32 bytes in base64, encoded for a URL.
    (Family::AzureSecret, r"(?i)[?&;]sig=([A-Za-z0-9%+/]{42,100}(?:%3d|=))"),
    (Family::AzureSecret, r"[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}"),
    (Family::SlackToken, r"xox[a-z](?:\.xox[a-z])?-[0-9A-Za-z-]{10,}"),
    (Family::SlackToken, r"xapp-[0-9A-Za-z-]{20,}"),
    (Family::SlackWebhook, r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,}"),
    (Family::NpmToken, r"npm_[A-Za-z0-9]{36,}"),
    (Family::NpmToken, r#"_authToken["'\\\s]{0,4}[:=]["'\\\s]{0,4}([A-Za-z0-9_./+=-]{16,})"#),
    (Family::PypiToken, r"pypi-AgEIcHlwaS[0-9A-Za-z_-]{50,}"),
    (Family::StripeKey, r"[rs]k_(?:live|test)_[0-9A-Za-z]{16,}"),
    (Family::StripeKey, r"whsec_[0-9A-Za-z+/=]{24,}"),
    (Family::VaultToken, r"hv[sbr]\.[A-Za-z0-9_-]{20,}"),
    (Family::Jwt, r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*"),
    (Family::RunnerSecret, r#""value"\s{0,4}:\s{0,4}"((?:[^"\\]|\\.)+)"\s{0,4},\s{0,4}"isSecret"\s{0,4}:\s{0,4}true"#),
    // The same inside a JSON string.
    (Family::RunnerSecret, r#"\\"value\\"\s{0,4}:\s{0,4}\\"(.+?)\\"\s{0,4},\s{0,4}\\"isSecret\\"\s{0,4}:\s{0,4}true"#),
    (
        Family::AuthorizationHeader,
        r#"(?i)authorization["'\\]{0,4}\s{0,4}[:=]\s{0,4}["'\\]{0,4}(?:(?:bearer|basic|token|splunk|apikey)\s+)?([A-Za-z0-9._~+/=-]{12,})"#,
    ),
    (
        Family::AuthorizationHeader,
        r#"(?i)(?:private-token|x-gitlab-token|x-gitlab-event-streaming-token|x-buildkite-token|x-vault-token|x-api-key)["'\\]{0,4}\s{0,4}[:=]\s{0,4}["'\\]{0,4}([A-Za-z0-9._~+/=-]{8,})"#,
    ),
    (Family::AuthorizationHeader, r"(?i)bearer\s+([A-Za-z0-9._~+/=-]{20,})"),
];

/// How far a PEM block may reach.
const PEM_BYTES_MAX: usize = 32 << 10;
/// How far the user part of a URL may reach.
const USERINFO_BYTES_MAX: usize = 512;

/// The detectors, compiled.
#[derive(Debug)]
pub(crate) struct Detectors {
    keywords: AhoCorasick,
    patterns: Vec<(Family, Regex)>,
    pem_begin: Regex,
    placeholder: Regex,
    wrapped: Wrapped,
}

impl Detectors {
    #[allow(clippy::expect_used, reason = "the patterns are constants of this file; every test compiles them")]
    pub(crate) fn new() -> Self {
        let keywords = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(KEYWORDS.iter().map(|(word, _)| word))
            .expect("the keywords fit an automaton");
        let compile = |pattern: &str| {
            let bytes = regex::bytes::RegexBuilder::new(pattern).unicode(false).build();
            bytes.expect("the pattern is a valid regular expression")
        };
        let families = Family::ALL.map(Family::name);
        Self {
            keywords,
            patterns: PATTERNS.iter().map(|(family, pattern)| (*family, compile(pattern))).collect(),
            pem_begin: compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,20}-----"),
            placeholder: compile(&format!("redacted:(?:{}):[0-9a-f]{{8}}:[0-9a-f]{{32}}", families.join("|"))),
            wrapped: Wrapped::new(),
        }
    }

    /// Whether a text can hold a secret at all. Cheap: most text cannot.
    pub(crate) fn suspects(&self, text: &[u8]) -> bool {
        self.keywords.is_match(text) || self.userinfos(text).next().is_some() || self.wrapped.suspects(text)
    }

    /// The places that have to go, in order and apart from one another. Each holds whole placeholders or none, and more
    /// than placeholders.
    pub(crate) fn scan(&self, text: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        self.scan_depth(text, wrapped::DEPTH_MAX, &mut hits);
        merge(hits)
    }

    /// The same, also of what is a text only without its zeros: in UTF-16, as PowerShell writes files, every second byte of
    /// what secrets are made of is zero. The places are those of the plain text, if there is one.
    pub(crate) fn look(&self, text: &[u8]) -> (Option<Vec<u8>>, Vec<Hit>) {
        let zeros = text.contains(&0);
        if !zeros && !self.suspects(text) {
            return (None, Vec::new());
        }
        let hits = self.scan(text);
        if !hits.is_empty() || !zeros {
            return (None, hits);
        }
        let plain: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
        let hits = self.scan(&plain);
        (Some(plain).filter(|_| !hits.is_empty()), hits)
    }

    /// Whether a text is placeholders and nothing else.
    pub(crate) fn is_redacted(&self, text: &[u8]) -> bool {
        !text.is_empty() && self.placeholder.find_iter(text).map(|found| found.len()).sum::<usize>() == text.len()
    }

    /// Scans text that was wrapped `wraps` levels less deep than the limit.
    pub(crate) fn scan_depth(&self, text: &[u8], wraps: usize, hits: &mut Vec<Hit>) {
        let first = hits.len();
        let mut families = 0;
        for found in self.keywords.find_overlapping_iter(text) {
            let (_, of) = KEYWORDS.get(found.pattern().as_usize()).copied().unwrap_or_default();
            families |= of.iter().fold(0, |bits, family| bits | family.bit());
        }
        for (family, pattern) in self.patterns.iter().filter(|(family, _)| families & family.bit() != 0) {
            for groups in pattern.captures_iter(text) {
                if let Some(secret) = groups.get(1).or_else(|| groups.get(0)) {
                    push(hits, *family, secret.range(), secret.as_bytes());
                }
            }
        }
        if families & Family::PrivateKey.bit() != 0 {
            self.scan_pem(text, hits);
        }
        for range in self.userinfos(text) {
            let secret = text.get(range.clone()).unwrap_or_default();
            push(hits, Family::UrlCredentials, range, secret);
        }
        self.wrapped.scan(self, text, wraps, hits);
        if hits.len() > first {
            let found = hits.split_off(first);
            hits.extend(self.without_placeholders(text, found));
        }
    }

    /// What an earlier pass put there is not a secret, and must not be torn: a hit is cut where it begins or ends in a
    /// placeholder, and is none if nothing else is in it. One that holds placeholders beside more goes with them.
    fn without_placeholders(&self, text: &[u8], mut hits: Vec<Hit>) -> Vec<Hit> {
        let kept: Vec<Range<usize>> = self.placeholder.find_iter(text).map(|found| found.range()).collect();
        if kept.is_empty() {
            return hits;
        }
        hits.retain_mut(|hit| {
            let Range { mut start, mut end } = hit.range;
            let first = kept.partition_point(|one| one.end <= start);
            let last = kept.partition_point(|one| one.start < end);
            let mut within = kept.get(first..last).unwrap_or_default().iter().peekable();
            if let Some(torn) = within.next_if(|one| one.start < start) {
                start = torn.end;
            }
            let mut covered = 0;
            for one in within {
                if one.end > end {
                    end = one.start;
                    break;
                }
                covered += one.len();
            }
            if start >= end || covered == end - start {
                return false;
            }
            if (start, end) != (hit.range.start, hit.range.end) {
                let cut = text.get(start..end).unwrap_or_default();
                let whole = text.get(hit.range.clone()).unwrap_or_default();
                hit.found
                    .iter_mut()
                    .filter(|(_, secret)| secret == whole)
                    .for_each(|(_, secret)| *secret = cut.to_vec());
                hit.range = start..end;
            }
            true
        });
        hits
    }

    /// Places of `user:password@` and `token@` in URLs: the password or token.
    fn userinfos<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
        let schemes = text.windows(3).enumerate().filter(|(_, window)| *window == b"://").map(|(at, _)| at + 3);
        schemes.filter_map(|start| {
            let rest = text.get(start..)?;
            let rest = rest.get(..USERINFO_BYTES_MAX).unwrap_or(rest);
            let stop = |byte: &u8| byte.is_ascii_whitespace() || b"/\"'<>`(){}?#\\".contains(byte);
            let authority = rest.iter().position(stop).and_then(|end| rest.get(..end)).unwrap_or(rest);
            // A password may hold an @ that should have been encoded.
            let userinfo = authority.get(..authority.iter().rposition(|byte| *byte == b'@')?)?;
            let end = start + userinfo.len();
            // Where a token was the name: its placeholder's colons are not before a password.
            let name =
                self.placeholder.find(userinfo).filter(|found| found.start() == 0).map_or(0, |found| found.end());
            let colon = userinfo.get(name..)?.iter().position(|byte| *byte == b':').map(|at| name + at);
            let secret = match colon {
                Some(colon) => start + colon + 1..end,
                None if userinfo.len() >= 20 => start..end,
                None => return None,
            };
            let shown = text.get(secret.clone())?;
            (!shown.is_empty() && shown.iter().any(|byte| *byte != b'*')).then_some(secret)
        })
    }

    fn scan_pem(&self, text: &[u8], hits: &mut Vec<Hit>) {
        let mut done = 0;
        for begin in self.pem_begin.find_iter(text).filter(|begin| !begin.is_empty()) {
            if begin.start() < done {
                continue;
            }
            let rest = text.get(begin.end()..).unwrap_or_default();
            let rest = rest.get(..PEM_BYTES_MAX).unwrap_or(rest);
            // Headers of encrypted keys, quotes and commas of the text a key may stand in.
            let near = rest.iter().take_while(|byte| is_pem_body(**byte) || b",\"'".contains(byte)).count();
            let marker = b"-----END ";
            let found =
                rest.get(..near).and_then(|near| near.windows(marker.len()).position(|window| window == marker));
            let end = match found {
                Some(at) => {
                    let tail = rest.get(at + marker.len()..).unwrap_or_default();
                    let tail = tail.get(..60).unwrap_or(tail);
                    let close = tail.windows(5).position(|window| window == b"-----");
                    at + marker.len() + close.map_or(tail.len(), |close| close + 5)
                }
                // Cut off: all that can still be key material.
                None => rest.iter().take_while(|byte| is_pem_body(**byte)).count(),
            };
            let range = begin.start()..begin.end() + end;
            done = range.end;
            let body = text.get(begin.end()..range.end).unwrap_or_default();
            // The same key reads the same however its lines were broken.
            let material = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
            let key: Vec<u8> = body.iter().copied().filter(material).collect();
            hits.push(Hit { range, found: vec![(Family::PrivateKey, key)] });
        }
    }
}

fn push(hits: &mut Vec<Hit>, family: Family, range: Range<usize>, secret: &[u8]) {
    // What the source hashed itself is not a secret.
    if !secret.starts_with(b"hmac-sha256:") {
        hits.push(Hit { range, found: vec![(family, secret.to_vec())] });
    }
}

const fn is_pem_body(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || byte.is_ascii_whitespace()
        || matches!(byte, b'+' | b'/' | b'=' | b'\\' | b':' | b'-' | b'.')
}

/// Joins hits that overlap. The family that comes first in [`Family`] names the place; a weaker one that found the same
/// bytes adds nothing, except that it came from a runner's memory.
fn merge(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_by_key(|hit| (hit.range.start, std::cmp::Reverse(hit.range.end)));
    let mut merged: Vec<Hit> = Vec::with_capacity(hits.len());
    for hit in hits {
        match merged.last_mut().filter(|last| hit.range.start < last.range.end) {
            Some(last) => {
                last.range.end = last.range.end.max(hit.range.end);
                let strength = |hit: &Hit| hit.found.iter().map(|(family, _)| *family).min();
                let (mut kept, weaker) = if strength(&hit) < strength(last) {
                    (hit.found, &last.found)
                } else {
                    (last.found.clone(), &hit.found)
                };
                // That it stood in a runner's memory says more than what it is.
                kept.extend(weaker.iter().filter(|(family, _)| *family == Family::RunnerSecret).cloned());
                last.found = kept;
            }
            None => merged.push(hit),
        }
    }
    merged
}
