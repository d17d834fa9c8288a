//! Control records: everything that changes what we would conclude is a record of source `pipeproof`.
//!
//! They are our own audit trail, and what makes a replay exact: a replay reads them where the live run did.

mod damage;
mod redaction;
mod rules;

use serde::{Deserialize, Serialize};

pub use damage::{Lost, RecordsDamaged};
pub use redaction::{Dropped, RedactionDone, RedactionRecord};
pub use rules::{Approval, DeployedException, DeployedRule, RulesChange, RulesRecord};

use crate::commit::Completeness;
use crate::incident::Verb;
use crate::source::SourceType;
use crate::time::Timestamp;

/// Name of the source that control records come from.
pub const OWN_SOURCE: &str = "pipeproof";

/// A control record's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Control {
    /// A second has passed: time goes on although no source says so.
    Tick {},
    /// The program started on this folder.
    Started {
        /// Version of the program.
        version: String,
        /// Id of this run.
        run: String,
    },
    /// The program is stopping in good order.
    Stopped {
        /// Id of the run that ends.
        run: String,
    },
    /// From here on this set of rules decides: this record itself is the first that it is shown.
    RulesDeployed(RulesRecord),
    /// A `sql:` rule ran; detection turns its rows into findings.
    SqlRun(SqlRun),
    /// A source was connected, or its settings changed.
    SourceAdded(SourceRecord),
    /// A source has a new secret; the one before it stays valid until the next rotation.
    SourceRotated {
        /// Its name.
        name: String,
        /// Generation that is new.
        generation: u32,
        /// Who rotated it.
        actor: String,
    },
    /// A source was removed.
    SourceRemoved {
        /// Its name.
        name: String,
        /// Who removed it.
        actor: String,
    },
    /// A source says nothing for longer than it usually does.
    SourceSilent {
        /// Its name.
        name: String,
        /// When it last spoke.
        since: Timestamp,
        /// What it was measured by, in words.
        reason: String,
    },
    /// A source that was silent speaks again.
    SourceHeard {
        /// Its name.
        name: String,
        /// How it was silent, in words.
        note: String,
    },
    /// A token was created.
    TokenCreated(TokenRecord),
    /// A token was revoked.
    TokenRevoked {
        /// Its id.
        id: String,
        /// Who revoked it.
        actor: String,
    },
    /// Somebody did something about an incident.
    IncidentStep {
        /// Which.
        incident: String,
        /// What.
        verb: Verb,
        /// Who.
        actor: String,
        /// Why, in their words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// From here on addresses are looked up in this file, or in none.
    EnrichmentLoaded {
        /// Which file it replaces.
        file: EnrichmentFile,
        /// SHA-256 of it, hexadecimal; it is kept under this name. None: no file any more.
        digest: Option<String>,
    },
    /// A file of the operator's cannot be used; what was read before stays in force.
    ConfigurationRefused {
        /// `configuration`, `rules` or `addresses`.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that could not be used can be used again.
    ConfigurationMended {
        /// As in the record that refused it.
        file: String,
    },
    /// A bound on what is remembered was reached: a rule or a table dropped something, or memory is full and nothing is taken in.
    BoundReached {
        /// Id or name of the rule or table; `memory` for all of them together; else what it bounds, in two words.
        rule: String,
        /// Signals, groups or rows since the record before, or since the start.
        dropped: u64,
        /// The same in words.
        reason: String,
    },
    /// Records of a log are damaged on disk.
    RecordsDamaged(RecordsDamaged),
    /// A collector has come so far: what it fetched before is in the log.
    Collected(Collected),
    /// Dead letters that can be decoded by now are read again: a copy of each follows in the log.
    DeadLettersReplayed {
        /// Indexes of their records.
        records: Vec<u64>,
        /// Who asked for it.
        actor: String,
    },
    /// The payload of records is to be dropped everywhere.
    RecordsRedacted(RedactionRecord),
    /// It was.
    RedactionDone(RedactionDone),
    /// An evidence pack was sealed.
    PackSealed {
        /// Its name.
        pack: String,
        /// SHA-256 of its tag manifest, hexadecimal.
        digest: String,
        /// Who asked for it.
        actor: String,
    },
    /// An evidence pack was handed out.
    PackDownloaded {
        /// Its name.
        pack: String,
        /// To whom.
        actor: String,
    },
}

impl Control {
    /// Whether this is a tick, the one control record that only moves time.
    #[must_use]
    pub const fn is_tick(&self) -> bool {
        matches!(self, Self::Tick {})
    }
}

/// How far a collector has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collected {
    /// The source it fetches for.
    pub name: String,
    /// Which of the source's collectors.
    pub collector: String,
    /// Where it goes on, by stream, for the streams that moved; in its own words. Null: the stream is over.
    pub cursors: std::collections::BTreeMap<String, serde_json::Value>,
    /// From when to when everything that the provider lists of what it sent is held: start and end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<(Timestamp, Timestamp)>,
    /// Items fetched since the record before.
    #[serde(default)]
    pub items: u64,
    /// What should have been there and could not be had any more, or only in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
    /// Lists signed by the provider that what is held was compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed: Vec<SignedList>,
}

/// What came of comparing what is held with a list that the provider signed of what it delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedList {
    /// Which list: bucket and key of a CloudTrail digest.
    pub list: String,
    /// From when on it speaks, inclusive.
    pub from: Timestamp,
    /// Until when, exclusive.
    pub to: Timestamp,
    /// Whether everything it lists is held as the provider wrote it.
    pub status: Completeness,
    /// How many files it lists.
    pub files: u64,
    /// What is wrong, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

/// A run of a `sql:` rule over [`from`, `to`) of event time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlRun {
    /// Id of the rule.
    pub rule: String,
    /// Its semantic digest when it ran.
    pub digest: String,
    /// Start of what it looked at.
    pub from: Timestamp,
    /// End of what it looked at.
    pub to: Timestamp,
    /// Its rows: columns and their values as text; a null is missing.
    pub rows: Vec<std::collections::BTreeMap<String, String>>,
    /// There were more rows than are kept.
    #[serde(default)]
    pub truncated: bool,
}

/// A file of the operator's that says more about network addresses (MMDB).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnrichmentFile {
    /// Autonomous system and its organisation.
    Asn,
    /// Country and coordinates.
    Geo,
}

impl EnrichmentFile {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Asn, Self::Geo];

    /// The word used in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asn => "asn",
            Self::Geo => "geo",
        }
    }
}

/// A source instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// Its name, as in the URL.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub source_type: SourceType,
    /// Labels; they travel in every record of the source as `label.NAME`.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// From when on it is connected. Older events count as retroactive.
    pub connected: Timestamp,
    /// Generation of its secret.
    #[serde(default)]
    pub generation: u32,
    /// Who connected it.
    pub actor: String,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// Public id, part of the token's text.
    pub id: String,
    /// Keyed hash of the token, hexadecimal.
    pub hash: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// The one source it may send to, if it is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When it expires, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// Who created it.
    pub actor: String,
}
