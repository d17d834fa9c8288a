//! The demo's traffic: the embedded requests of one documented attack, with times moved to end at a given instant.
//!
//! Pure: sends nothing, reads no clock, draws no randomness but from the seed. The format is described in `data/README.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use serde::Deserialize;
use serde_json::Value;

const REPLAY: &str = include_str!("data/replay.ndjson");

/// A source instance the replay sends to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplaySource {
    /// Its name, as in the URL.
    pub(crate) name: &'static str,
    /// Its type.
    pub(crate) source_type: SourceType,
    /// Its labels.
    pub(crate) labels: &'static [(&'static str, &'static str)],
}

/// The source instances of the replay, to be connected before it is sent.
pub(crate) const SOURCES: &[ReplaySource] = &[
    ReplaySource { name: "acme-github", source_type: SourceType::GithubWebhook, labels: &[("org", "acme")] },
    ReplaySource { name: "acme-github-audit", source_type: SourceType::Json, labels: &[("org", "acme")] },
    ReplaySource { name: "acme-joblogs", source_type: SourceType::GithubJoblog, labels: &[("org", "acme")] },
    ReplaySource { name: "acme-vault", source_type: SourceType::VaultAudit, labels: &[("env", "prod")] },
    ReplaySource {
        name: "acme-prod",
        source_type: SourceType::KubernetesAudit,
        labels: &[("cluster", "prod-eu"), ("env", "prod")],
    },
    ReplaySource { name: "acme-aws", source_type: SourceType::AwsCloudtrail, labels: &[("env", "prod")] },
    ReplaySource { name: "acme-signatures", source_type: SourceType::SigstoreBundle, labels: &[] },
];

/// Names of the shipped rules that the attack trips, in the order of the story.
pub(crate) const MUST_FIND: &[&str] = &[
    "known_bad_action",
    "secret_in_log",
    "runner_secrets_dumped",
    "ci_identity_off_network",
    "secret_read_burst",
    "prod_secret_off_network",
    "long_lived_credential_created",
    "protection_disabled",
    "workflow_guardrails_loosened",
    "protection_lifted_push_restored",
    "secret_store_weakened",
    "admission_policy_weakened",
    "unverified_image_admitted",
    "audit_stream_disabled",
];

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// When it is sent in the story.
    pub(crate) at: Timestamp,
    /// Source instance.
    pub(crate) source: String,
    /// Its type.
    pub(crate) source_type: SourceType,
    /// Headers, without signature and authorisation.
    pub(crate) headers: BTreeMap<String, String>,
    /// Query parameters.
    pub(crate) query: BTreeMap<String, String>,
    /// Body.
    pub(crate) body: Bytes,
    /// What it is.
    pub(crate) note: String,
}

/// Why the embedded replay cannot be used: a mistake in the data, found by the test below.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// A line is not as the README says.
    #[error("cannot read line {line} of the demo's replay")]
    Line {
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A line has no body, or two.
    #[error("line {0} of the demo's replay needs exactly one of body, ndjson and lines")]
    Body(usize),
    /// A placeholder that does not exist.
    #[error("line {line} of the demo's replay has an unknown placeholder `{placeholder}`")]
    Placeholder {
        /// Line, from 1.
        line: usize,
        /// What stands between the braces.
        placeholder: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    before_end_ms: u64,
    source: String,
    #[serde(rename = "type")]
    source_type: SourceType,
    note: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    query: BTreeMap<String, String>,
    body: Option<Value>,
    ndjson: Option<Vec<Value>>,
    lines: Option<Vec<String>>,
}

/// The requests in the order they are sent, as if the last had been sent at `end`. Equal arguments give equal requests.
///
/// # Errors
/// [`ReplayError`] names the line of the embedded data that is wrong.
pub(crate) fn steps(end: Timestamp, seed: u64) -> Result<Vec<Step>, ReplayError> {
    let mut steps = Vec::new();
    for (index, text) in REPLAY.lines().enumerate() {
        let number = index + 1;
        let failed = |source| ReplayError::Line { line: number, source };
        let line: Line = serde_json::from_str(text).map_err(failed)?;
        let fill = Fill { end, seed, line: number };
        let body = match (line.body, line.ndjson, line.lines) {
            (Some(document), None, None) => serde_json::to_vec(&fill.value(document)?).map_err(failed)?,
            (None, Some(documents), None) => {
                let mut body = Vec::new();
                for document in documents {
                    serde_json::to_writer(&mut body, &fill.value(document)?).map_err(failed)?;
                    body.push(b'\n');
                }
                body
            }
            (None, None, Some(lines)) => {
                let mut body = String::new();
                for text in lines {
                    body.push_str(&fill.text(&text)?);
                    body.push('\n');
                }
                body.into_bytes()
            }
            _ => return Err(ReplayError::Body(number)),
        };
        steps.push(Step {
            at: end.minus(Duration::from_millis(line.before_end_ms)),
            source: line.source,
            source_type: line.source_type,
            headers: line.headers,
            query: line.query,
            body: body.into(),
            note: line.note,
        });
    }
    Ok(steps)
}

/// Replaces the placeholders of one line.
struct Fill {
    end: Timestamp,
    seed: u64,
    line: usize,
}

impl Fill {
    fn value(&self, value: Value) -> Result<Value, ReplayError> {
        Ok(match value {
            Value::String(text) => {
                let number = |prefix, unit: i64| {
                    let seconds = text.strip_prefix(prefix)?.strip_suffix("}}")?;
                    Some(self.before_end(seconds)?.as_micros().div_euclid(unit))
                };
                match number("{{epoch-", 1_000_000).or_else(|| number("{{epochms-", 1_000)) {
                    Some(time) => time.into(),
                    None => Value::String(self.text(&text)?),
                }
            }
            Value::Array(items) => {
                Value::Array(items.into_iter().map(|item| self.value(item)).collect::<Result<_, _>>()?)
            }
            Value::Object(members) => Value::Object(
                members
                    .into_iter()
                    .map(|(name, member)| Ok((name, self.value(member)?)))
                    .collect::<Result<_, ReplayError>>()?,
            ),
            other => other,
        })
    }

    fn text(&self, text: &str) -> Result<String, ReplayError> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let unknown = |name: &str| ReplayError::Placeholder { line: self.line, placeholder: name.to_owned() };
            let (name, after) = after.split_once("}}").ok_or_else(|| unknown(after))?;
            filled.push_str(before);
            filled.push_str(&self.placeholder(name).ok_or_else(|| unknown(name))?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn placeholder(&self, name: &str) -> Option<String> {
        if let Some(variables) = name.strip_prefix("memdump:") {
            return self.memory_dump(variables);
        }
        if let Some(secret) = name.strip_prefix("secret:") {
            return self.secret(secret);
        }
        if name.starts_with("key:") {
            return self.secret(name);
        }
        let (form, seconds) = name.split_once('-')?;
        let time = DateTime::<Utc>::from_timestamp_micros(self.before_end(seconds)?.as_micros())?;
        Some(match form {
            "s" => time.to_rfc3339_opts(SecondsFormat::Secs, true),
            "ms" => time.to_rfc3339_opts(SecondsFormat::Millis, true),
            "us" => time.to_rfc3339_opts(SecondsFormat::Micros, true),
            "ns" => time.to_rfc3339_opts(SecondsFormat::Nanos, true),
            "log" => format!("{}0Z", time.format("%Y-%m-%dT%H:%M:%S%.6f")),
            "aws" => time.format("%b %-d, %Y, %-I:%M:%S %p").to_string(),
            _ => return None,
        })
    }

    fn before_end(&self, seconds: &str) -> Option<Timestamp> {
        let seconds = seconds.parse::<f64>().ok().filter(|seconds| seconds.is_finite())?;
        // Negative is after the end: when something issued in the replay expires.
        Some(if seconds < 0.0 {
            self.end.plus(Duration::try_from_secs_f64(-seconds).ok()?)
        } else {
            self.end.minus(Duration::try_from_secs_f64(seconds).ok()?)
        })
    }

    /// What the malicious step of the attack printed: `grep -aoE '"[^"]+":\{"value":"[^"]*","isSecret":true\}' | sort -u |
    /// base64 -w 0 | base64 -w 0` over the runner's memory.
    fn memory_dump(&self, variables: &str) -> Option<String> {
        let mut lines = Vec::new();
        for variable in variables.split(',') {
            let (name, secret) = variable.split_once('=')?;
            lines.push(format!("\"{name}\":{{\"value\":\"{}\",\"isSecret\":true}}\n", self.secret(secret)?));
        }
        lines.sort();
        Some(STANDARD.encode(STANDARD.encode(lines.concat())))
    }

    /// `KIND:NAME`, or `key:PREFIX:NAME`: equal names give equal secrets under one seed.
    fn secret(&self, secret: &str) -> Option<String> {
        const ALPHANUMERIC: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        const BASE32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (kind, name) = secret.split_once(':')?;
        Some(match kind {
            "github-token" => format!("ghs_{}", self.random(secret, ALPHANUMERIC, 36)),
            "github-pat" => format!("ghp_{}", self.random(secret, ALPHANUMERIC, 36)),
            "npm-token" => format!("npm_{}", self.random(secret, ALPHANUMERIC, 36)),
            "aws-secret" => self.random(secret, BASE64, 40),
            "key" => {
                let (prefix, _) = name.split_once(':')?;
                format!("{prefix}{}", self.random(secret, BASE32, 16))
            }
            _ => return None,
        })
    }

    /// Characters drawn by splitmix64 from the seed and the name. Fakes need variety, not secrecy.
    fn random(&self, name: &str, alphabet: &[u8], len: usize) -> String {
        let mut state = name.bytes().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        (0..len)
            .filter_map(|_| {
                let at = next() % u64::try_from(alphabet.len()).ok()?;
                alphabet.get(usize::try_from(at).ok()?).map(|byte| char::from(*byte))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn texts() -> Vec<(Step, String)> {
        let steps = steps(END, 7).unwrap();
        steps.into_iter().map(|step| (step.clone(), String::from_utf8(step.body.to_vec()).unwrap())).collect()
    }

    #[test]
    fn every_request_is_complete_and_in_order() {
        let steps = texts();
        assert!(steps.len() > 40, "{} requests", steps.len());
        let mut last = Timestamp::MIN;
        for (step, text) in &steps {
            assert!(step.at >= last && step.at <= END, "{} is out of order", step.note);
            last = step.at;
            assert!(!text.contains("{{"), "{}: a placeholder is left", step.note);
            assert!(
                SOURCES.iter().any(|source| source.name == step.source && source.source_type == step.source_type),
                "{} is not in the table of sources",
                step.source
            );
            if !step.source_type.info().free_text {
                for line in text.lines() {
                    serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{}: {error}", step.note));
                }
            }
        }
    }

    #[test]
    fn intervals_are_kept_wherever_it_ends() {
        let early = steps(END, 7).unwrap();
        let late = steps(END.plus(Duration::from_secs(86_400)), 7).unwrap();
        for (early, late) in early.iter().zip(&late) {
            assert_eq!(late.at.micros_since(early.at), 86_400_000_000);
        }
        let text = |steps: &[Step]| String::from_utf8(steps[0].body.to_vec()).unwrap();
        assert!(text(&early).contains("2027-01-15T07:"), "{}", text(&early));
        assert!(text(&late).contains("2027-01-16T07:"), "{}", text(&late));
    }

    #[test]
    fn secrets_come_from_the_seed_and_are_printed_base64_twice() {
        let dump = |seed| {
            let steps = steps(END, seed).unwrap();
            let step = steps.iter().find(|step| step.note.starts_with("ATTACK 1 ")).unwrap();
            let text = String::from_utf8(step.body.to_vec()).unwrap();
            let line = text.lines().max_by_key(|line| line.len()).unwrap();
            let (_, blob) = line.split_once(' ').unwrap();
            let once = STANDARD.decode(blob).unwrap();
            String::from_utf8(STANDARD.decode(once).unwrap()).unwrap()
        };
        let shown = dump(7);
        assert!(shown.contains("\"github_token\":{\"value\":\"ghs_") && shown.contains("\"isSecret\":true"), "{shown}");
        assert_eq!(shown, dump(7));
        assert_ne!(shown, dump(8));
        assert!(!REPLAY.contains("ghs_") && !REPLAY.contains("ghp_") && !REPLAY.contains("npm_"));
    }

    #[test]
    fn the_key_that_is_handed_out_is_the_key_that_is_used() {
        let all: String = texts().into_iter().map(|(_, text)| text).collect();
        let fill = Fill { end: END, seed: 7, line: 0 };
        for name in ["key:ASIA:ci-413", "key:AKIA:backdoor"] {
            let key = fill.secret(name).unwrap();
            assert!(all.matches(&key).count() >= 2, "{name}");
        }
    }

    #[test]
    fn unknown_placeholders_are_refused() {
        let fill = Fill { end: END, seed: 7, line: 3 };
        for bad in ["{{x-1}}", "{{s-}}", "{{s-abc}}", "{{secret:nothing:x}}", "{{s-1"] {
            assert!(fill.text(bad).is_err(), "{bad}");
        }
        assert_eq!(fill.text("{{s-1}} {{log-0.5}}").unwrap(), "2027-01-15T07:59:59Z 2027-01-15T07:59:59.5000000Z");
        assert_eq!(fill.text("{{aws-0}}").unwrap(), "Jan 15, 2027, 8:00:00 AM");
    }
}
