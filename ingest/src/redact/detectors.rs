//! What a secret looks like: families, found anywhere in text.
//!
//! Keywords first (one Aho–Corasick pass), then the pattern of each family whose keyword occurred, then, where a pattern says
//! too little, whether what it found is random. Patterns are not anchored: a secret glued to other text is still one.
//! `patterns.rs` has them, `pem.rs` finds private keys, `wrapped.rs` the same families inside base64.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use engine::source::SourceType;
use pipeproof_engine as engine;
use regex::bytes::Regex;

use super::entropy::{Looks, is_stand_in};
use super::patterns::{KEYWORDS, PATTERNS};
use super::pem::{self, OpenKey};
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

    /// Whether finding one in a record of this type is no leak: the record is about the credential, and its source writes it
    /// there by design.
    #[must_use]
    pub fn is_expected(name: &str, kind: SourceType) -> bool {
        match kind {
            // Each entry is a finding, and its event says so.
            SourceType::Gitleaks => name == Self::ScannerFinding.name(),
            // What STS answered; CloudTrail hides the secret key and writes the session token.
            SourceType::AwsCloudtrail => name == Self::AwsSessionToken.name(),
            // A Secret that was read or written: `secret.read` and its like are the event.
            _ => name == Self::KubernetesSecret.name(),
        }
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

/// How far the user part of a URL may reach.
const USERINFO_BYTES_MAX: usize = 512;

/// The detectors, compiled.
#[derive(Debug)]
pub(crate) struct Detectors {
    keywords: AhoCorasick,
    patterns: Vec<(Family, Regex, Looks)>,
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
            patterns: PATTERNS.iter().map(|(family, pattern, looks)| (*family, compile(pattern), *looks)).collect(),
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
    /// than placeholders. `key` is the private key that what came before left open, and then the one that this text does.
    pub(crate) fn scan(&self, text: &[u8], key: &mut OpenKey) -> Vec<Hit> {
        let mut hits = Vec::new();
        self.scan_depth(text, wrapped::DEPTH_MAX, key, &mut hits);
        merge(hits)
    }

    /// The same, also of what is a text only without its zeros: in UTF-16, as PowerShell writes files, every second byte of
    /// what secrets are made of is zero. The places are those of the plain text, if there is one.
    pub(crate) fn look(&self, text: &[u8], key: &mut OpenKey) -> (Option<Vec<u8>>, Vec<Hit>) {
        let zeros = text.contains(&0);
        if !zeros && !key.is_open() && !self.suspects(text) {
            return (None, Vec::new());
        }
        let before = zeros.then(|| key.clone());
        let hits = self.scan(text, key);
        let Some(before) = before.filter(|_| hits.is_empty()) else { return (None, hits) };
        *key = before;
        let plain: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
        let hits = self.scan(&plain, key);
        (Some(plain).filter(|_| !hits.is_empty()), hits)
    }

    /// Whether a text is placeholders and nothing else.
    pub(crate) fn is_redacted(&self, text: &[u8]) -> bool {
        !text.is_empty() && self.placeholder.find_iter(text).map(|found| found.len()).sum::<usize>() == text.len()
    }

    /// Scans text that was wrapped `wraps` levels less deep than the limit.
    pub(crate) fn scan_depth(&self, text: &[u8], wraps: usize, key: &mut OpenKey, hits: &mut Vec<Hit>) {
        let first = hits.len();
        let mut families = 0;
        for found in self.keywords.find_overlapping_iter(text) {
            let (_, of) = KEYWORDS.get(found.pattern().as_usize()).copied().unwrap_or_default();
            families |= of.iter().fold(0, |bits, family| bits | family.bit());
        }
        for (family, pattern, looks) in self.patterns.iter().filter(|(family, _, _)| families & family.bit() != 0) {
            for groups in pattern.captures_iter(text) {
                let secret = groups.get(1).or_else(|| groups.get(0));
                if let Some(secret) = secret.filter(|secret| looks.like(secret.as_bytes())) {
                    push(hits, *family, secret.range(), secret.as_bytes());
                }
            }
        }
        if key.is_open() || families & Family::PrivateKey.bit() != 0 {
            pem::scan(text, self.pem_begin.find_iter(text).map(|begin| begin.range()), key, hits);
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
                None if userinfo.len() >= 20 && Looks::NoName.like(userinfo) => start..end,
                None => return None,
            };
            let shown = text.get(secret.clone())?;
            (!is_stand_in(shown)).then_some(secret)
        })
    }
}

fn push(hits: &mut Vec<Hit>, family: Family, range: Range<usize>, secret: &[u8]) {
    // What the source hashed itself is not a secret.
    if !secret.starts_with(b"hmac-sha256:") {
        hits.push(Hit { range, found: vec![(family, secret.to_vec())] });
    }
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
