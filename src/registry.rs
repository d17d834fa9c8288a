//! Sources, tokens and the set of rules in force: a fold over control records, so that the log says who could send what,
//! and what decided, and when.
//!
//! A copy with its log position is kept in `registry.json`, so that a start needs only the records after it. It carries a keyed hash: one
//! that was edited or damaged is not used, and the records are read from the first one on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeproof_engine::control::{Approval, Collected, Control, Lost, RulesChange, SourceRecord, TokenRecord};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::authentic::{self, ClientCertificate};
use pipeproof_ingest::enrich::History;
use pipeproof_ingest::receive::{Secret, SourceSettings};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::redaction::Ordered;
use crate::scope::Scope;
use crate::secret_keys::SecretKey;

/// Everything that may send or ask.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Registry {
    /// Index of the first log record not folded in.
    pub(crate) position: u64,
    pub(crate) sources: BTreeMap<String, SourceRecord>,
    pub(crate) tokens: BTreeMap<String, TokenRecord>,
    /// Which address files held where.
    #[serde(default)]
    pub(crate) addresses: History,
    /// End of the last run of each rule that asks the lake, by the rule's digest.
    #[serde(default)]
    pub(crate) sql_runs: BTreeMap<String, Timestamp>,
    /// Records of dead letters that were read again.
    #[serde(default)]
    pub(crate) read_again: BTreeSet<u64>,
    /// Files of the operator's that cannot be used, and why.
    #[serde(default)]
    pub(crate) refused: BTreeMap<String, String>,
    /// Records that were found damaged on disk, by the log they stood in.
    #[serde(default)]
    pub(crate) damaged: BTreeMap<String, Damaged>,
    /// How far collectors have come, by source and collector.
    #[serde(default)]
    pub(crate) collected: BTreeMap<String, BTreeMap<String, CollectedSoFar>>,
    /// Payloads that were dropped or are about to be, by the index of the record that orders it.
    #[serde(default)]
    pub(crate) redactions: BTreeMap<u64, Ordered>,
    /// The set of rules whose record is the last one, if its content was kept.
    #[serde(default)]
    pub(crate) rules: Option<RulesInForce>,
}

/// How far a collector has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CollectedSoFar {
    /// When its last record was written.
    pub(crate) at: Timestamp,
    pub(crate) cursors: BTreeMap<String, serde_json::Value>,
    /// Items it fetched since it began.
    pub(crate) items: u64,
    /// How much of what it looked for could not be had.
    pub(crate) lost: u64,
}

/// What is on record of damage to a log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Damaged {
    /// Ranges of records.
    pub(crate) records: Vec<(u64, u64)>,
    /// Those of them that are held nowhere else, and when that was written down.
    pub(crate) lost: Vec<(Lost, Timestamp)>,
}

impl Damaged {
    /// Whether a record is held nowhere.
    pub(crate) fn is_lost(&self, index: u64) -> bool {
        self.lost.iter().any(|(lost, _)| (lost.first..lost.end).contains(&index))
    }
}

/// The set of rules in force, and how it came to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RulesInForce {
    /// Digest of its content.
    pub(crate) set: String,
    /// Index of the record that put it in force.
    pub(crate) record: u64,
    pub(crate) at: Timestamp,
    pub(crate) change: RulesChange,
    pub(crate) actor: String,
    pub(crate) approved_by: Option<String>,
    pub(crate) approval: Approval,
    pub(crate) note: Option<String>,
}

/// Who is asking.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Token id.
    pub(crate) id: String,
    pub(crate) scopes: Vec<String>,
    /// The one source it may send to.
    pub(crate) source: Option<String>,
    /// The client certificate proved on the connection.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
    /// Whether a token was presented; else the certificate alone stands for the sender.
    pub(crate) by_token: bool,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRefusal {
    #[error("a bearer token is needed: Authorization: Bearer TOKEN")]
    Missing,
    #[error("the bearer token is not known here, or was revoked")]
    Unknown,
    #[error("the bearer token has expired")]
    Expired,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("cannot read or write {path}")]
    Io {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write the registry {path}")]
    Format {
        path: String,
        #[source]
        source: serde_json::Error,
    },
}

/// Member of the saved copy beside those of the registry: what tells it from one that somebody else wrote.
const SEAL: &str = "seal";

impl Registry {
    /// Reads the copy. One that this key did not seal says nothing: whoever can write the file could name any token. `None` then.
    pub(crate) fn load(path: &Path, key: &SecretKey) -> Result<Option<Self>, RegistryError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(Self::default())),
            Err(source) => return Err(RegistryError::Io { path: path.display().to_string(), source }),
        };
        let Ok(serde_json::Value::Object(mut members)) = serde_json::from_slice(&bytes) else { return Ok(None) };
        let seal = members.remove(SEAL);
        let Ok(registry) = serde_json::from_value::<Self>(serde_json::Value::Object(members)) else { return Ok(None) };
        let expected = registry.seal(key).map_err(Self::format(path))?;
        let holds = seal.as_ref().and_then(serde_json::Value::as_str);
        let holds = holds.is_some_and(|seal| bool::from(seal.as_bytes().ct_eq(expected.as_bytes())));
        Ok(holds.then_some(registry))
    }

    fn format(path: &Path) -> impl Fn(serde_json::Error) -> RegistryError {
        move |source| RegistryError::Format { path: path.display().to_string(), source }
    }

    fn seal(&self, key: &SecretKey) -> Result<String, serde_json::Error> {
        Ok(hex::encode(key.mac(&[b"registry v1", &serde_json::to_vec(self)?])))
    }

    pub(crate) fn save(&self, path: &Path, key: &SecretKey) -> Result<(), RegistryError> {
        let io = |source| RegistryError::Io { path: path.display().to_string(), source };
        let mut value = serde_json::to_value(self).map_err(Self::format(path))?;
        if let Some(members) = value.as_object_mut() {
            members.insert(SEAL.to_owned(), self.seal(key).map_err(Self::format(path))?.into());
        }
        let bytes = serde_json::to_vec_pretty(&value).map_err(Self::format(path))?;
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary).map_err(io)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io)?;
        fs::rename(&temporary, path).map_err(io)?;
        if let Some(folder) = path.parent() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        }
        Ok(())
    }

    /// Folds in the control record at `index`, received `at`.
    pub(crate) fn apply(&mut self, control: &Control, index: u64, at: Timestamp) {
        self.addresses.observe(index, control);
        match control {
            Control::SourceAdded(source) => {
                self.sources.insert(source.name.clone(), source.clone());
            }
            Control::SourceRotated { name, generation, .. } => {
                if let Some(source) = self.sources.get_mut(name) {
                    source.generation = *generation;
                }
            }
            Control::SourceRemoved { name, .. } => {
                self.sources.remove(name);
                self.collected.remove(name);
                // A token that could only send to it can do nothing any more.
                self.tokens.retain(|_, token| token.source.as_deref() != Some(name));
            }
            Control::TokenCreated(token) => {
                self.tokens.insert(token.id.clone(), token.clone());
            }
            Control::TokenRevoked { id, .. } => {
                self.tokens.remove(id);
            }
            Control::RulesDeployed(record) => {
                // Without saying what changed, the record is of a version that did not keep content.
                self.rules = record.change.clone().map(|change| RulesInForce {
                    set: record.set.clone(),
                    record: index,
                    at,
                    change,
                    actor: record.actor.clone(),
                    approved_by: record.approved_by.clone(),
                    approval: record.approval,
                    note: record.note.clone(),
                });
            }
            Control::Collected(record) => self.collected(record, at),
            Control::RecordsDamaged(record) if record.more => {}
            Control::RecordsDamaged(record) => {
                let damaged = self.damaged.entry(record.name.clone()).or_default();
                damaged.records.extend(&record.records);
                damaged.lost.extend(record.lost.iter().map(|lost| (*lost, at)));
            }
            Control::DeadLettersReplayed { records, .. } => self.read_again.extend(records),
            Control::ConfigurationRefused { file, reason } => {
                self.refused.insert(file.clone(), reason.clone());
            }
            Control::ConfigurationMended { file } => {
                self.refused.remove(file);
            }
            Control::RecordsRedacted(order) => {
                self.redactions.insert(index, Ordered { at, order: order.clone(), done: None });
            }
            Control::RedactionDone(done) => {
                if let Some(ordered) = self.redactions.get_mut(&done.redaction) {
                    ordered.done = Some(done.clone());
                }
            }
            Control::SqlRun(run) => {
                let last = self.sql_runs.entry(run.digest.clone()).or_insert(run.to);
                *last = (*last).max(run.to);
            }
            Control::Tick {}
            | Control::SourceSilent { .. }
            | Control::SourceHeard { .. }
            | Control::BoundReached { .. }
            | Control::Started { .. }
            | Control::Stopped { .. }
            | Control::IncidentStep { .. }
            | Control::EnrichmentLoaded { .. }
            | Control::PackSealed { .. }
            | Control::PackDownloaded { .. } => {}
        }
    }

    /// The redaction that dropped a record's payload, or is about to, and the record that orders it.
    pub(crate) fn redaction_of(&self, index: u64) -> Option<(u64, Ordered)> {
        let found = self.redactions.iter().find(|(_, ordered)| ordered.order.records.contains(&index));
        found.map(|(order, ordered)| (*order, ordered.clone()))
    }

    fn collected(&mut self, record: &Collected, at: Timestamp) {
        let of_source = self.collected.entry(record.name.clone()).or_default();
        let fresh = || CollectedSoFar { at, cursors: BTreeMap::new(), items: 0, lost: 0 };
        let so_far = of_source.entry(record.collector.clone()).or_insert_with(fresh);
        so_far.at = at;
        so_far.items += record.items;
        so_far.lost += record.lost.len() as u64;
        for (stream, cursor) in &record.cursors {
            if cursor.is_null() {
                so_far.cursors.remove(stream);
            } else {
                so_far.cursors.insert(stream.clone(), cursor.clone());
            }
        }
    }

    /// Who a token belongs to.
    pub(crate) fn caller(&self, token: &str, key: &SecretKey, now: Timestamp) -> Result<Caller, TokenRefusal> {
        let id = token_id(token).ok_or(TokenRefusal::Unknown)?;
        let record = self.tokens.get(id).ok_or(TokenRefusal::Unknown)?;
        let hash = hex::encode(key.mac(&[token.as_bytes()]));
        if !bool::from(hash.as_bytes().ct_eq(record.hash.as_bytes())) {
            return Err(TokenRefusal::Unknown);
        }
        if record.expires.is_some_and(|expires| expires <= now) {
            return Err(TokenRefusal::Expired);
        }
        Ok(Caller {
            id: record.id.clone(),
            scopes: record.scopes.clone(),
            source: record.source.clone(),
            certificate: None,
            by_token: true,
        })
    }
}

/// A new token: its text, to be shown once, and what is kept of it.
pub(crate) fn new_token(
    key: &SecretKey,
    scopes: &[Scope],
    source: Option<String>,
    expires: Option<Timestamp>,
    note: Option<String>,
    created: (Timestamp, &str),
) -> (String, TokenRecord) {
    let id = hex::encode(rand::random::<[u8; 6]>());
    let text = format!("{TOKEN_PREFIX}{id}_{}", hex::encode(rand::random::<[u8; 32]>()));
    let record = TokenRecord {
        hash: hex::encode(key.mac(&[text.as_bytes()])),
        scopes: scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        id,
        source,
        expires,
        note,
        created: created.0,
        actor: created.1.to_owned(),
    };
    (text, record)
}

/// What every token of ours begins with.
pub(crate) const TOKEN_PREFIX: &str = "ppt_";

fn token_id(token: &str) -> Option<&str> {
    let (id, secret) = token.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
    (secret.len() == 64).then_some(id)
}

/// The secret of a source at a generation: derived, never stored. 64 hexadecimal digits.
fn source_secret(key: &SecretKey, source: &str, generation: u32) -> String {
    hex::encode(key.mac(&[b"source secret v1", source.as_bytes(), &generation.to_le_bytes()]))
}

/// The secret in the form that senders of a type take. GitLab's audit streams take 16 to 24 characters (GitLab, "Audit
/// event streaming GraphQL API"): 24 digits are 96 bits, in a header that nobody can try more often than requests are
/// answered. Standard Webhooks write `whsec_` and base64 of 32 bytes.
pub(crate) fn sender_secret(key: &SecretKey, kind: SourceType, source: &str, generation: u32) -> String {
    let mut secret = source_secret(key, source, generation);
    if authentic::is_standard_webhook(kind) {
        return format!("whsec_{}", STANDARD.encode(hex::decode(secret).unwrap_or_default()));
    }
    if kind == SourceType::GitlabAudit {
        secret.truncate(24);
    }
    secret
}

/// What the receiver needs to know of a source: the secret in force and the one before it.
pub(crate) fn settings(source: &SourceRecord, key: &SecretKey, configured: &[Secret]) -> SourceSettings {
    let generations = [Some(source.generation), source.generation.checked_sub(1)];
    let derived = generations.into_iter().flatten().map(|generation| {
        let secret = sender_secret(key, source.source_type, &source.name, generation);
        Secret { id: format!("g{generation}"), bytes: secret.into_bytes() }
    });
    SourceSettings {
        name: source.name.clone(),
        source_type: source.source_type,
        labels: source.labels.clone(),
        secrets: configured.iter().cloned().chain(derived).collect(),
        connected: source.connected,
    }
}

/// What labels must be: they travel in every record.
pub(crate) const LABELS_RULE: &str = "at most 32 labels, names up to 64 and values up to 256 bytes";

/// Whether these may be a source's labels.
pub(crate) fn are_labels(labels: &BTreeMap<String, String>) -> bool {
    labels.len() <= 32 && labels.iter().all(|(name, value)| (1..=64).contains(&name.len()) && value.len() <= 256)
}

/// Whether a name may be a source's: it stands in URLs, file paths and SQL.
pub(crate) fn is_source_name(name: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len())
        && name.bytes().all(ok)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name != SourceType::Pipeproof.name()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_keys::SecretKeys;

    #[test]
    fn a_copy_that_was_edited_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let keys = SecretKeys::load_or_create(&dir.path().join("keys")).unwrap();
        let path = dir.path().join("registry.json");
        assert_eq!(Registry::load(&path, &keys.token).unwrap().unwrap().position, 0, "there is none yet");
        let (_, token) = new_token(&keys.token, &[], None, None, None, (Timestamp::from_secs(7), "anna"));
        let (_, other) = new_token(&keys.token, &[], None, None, None, (Timestamp::from_secs(7), "mallory"));
        let mut registry = Registry { position: 9, ..Registry::default() };
        registry.tokens.insert(token.id.clone(), token.clone());
        registry.read_again.insert(4);
        registry.collected.entry("acme".into()).or_default().insert(
            "runs".into(),
            CollectedSoFar {
                at: Timestamp::from_secs(3),
                cursors: BTreeMap::from([("b".to_owned(), serde_json::json!({"z": 1, "a": [2]}))]),
                items: 1,
                lost: 0,
            },
        );
        registry.save(&path, &keys.token).unwrap();
        let loaded = Registry::load(&path, &keys.token).unwrap().unwrap();
        assert_eq!(serde_json::to_value(&loaded).unwrap(), serde_json::to_value(&registry).unwrap());

        let text = fs::read_to_string(&path).unwrap();
        let mut without: serde_json::Value = serde_json::from_str(&text).unwrap();
        without.as_object_mut().unwrap().remove(SEAL).unwrap();
        let without = without.to_string();
        for edited in
            [text.replace(&token.hash, &other.hash), text.replace(": 9", ": 8"), without, text[..90].to_owned()]
        {
            assert_ne!(edited, text);
            fs::write(&path, edited).unwrap();
            assert!(Registry::load(&path, &keys.token).unwrap().is_none());
        }
        fs::write(&path, &text).unwrap();
        assert!(Registry::load(&path, &keys.source).unwrap().is_none(), "of another key");
    }
}
