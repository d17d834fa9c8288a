//! Control records: everything that changes what we would conclude is a record of source `pipeproof`.
//!
//! They are our own audit trail, and what makes a replay exact: a replay reads them where the live run did.

use serde::{Deserialize, Serialize};

use crate::incident::Verb;
use crate::rule::RuleState;
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

/// A set of rules that was put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesRecord {
    /// Digest of the set: its content is kept under it.
    pub set: String,
    /// The rules.
    pub rules: Vec<DeployedRule>,
    /// The exceptions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<DeployedException>,
    /// What changed. Versions that did not keep the content of sets did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<RulesChange>,
    /// Who deployed it.
    pub actor: String,
    /// Who approved it, as the deployer says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// Whether that is somebody else.
    #[serde(default)]
    pub approval: Approval,
    /// Why, in the deployer's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whether a change was looked at by two persons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// Nobody is said to have approved it.
    #[default]
    None,
    /// Whoever made it is said to have approved it.
    SamePerson,
    /// Somebody else is said to have approved it.
    TwoPersons,
}

impl Approval {
    /// Judges a change that `author` made. Names are compared without regard to case and surrounding blanks.
    #[must_use]
    pub fn judge(author: &str, approver: Option<&str>) -> Self {
        match approver.map(str::trim).filter(|name| !name.is_empty()) {
            None => Self::None,
            Some(name) if name.to_lowercase() == author.trim().to_lowercase() => Self::SamePerson,
            Some(_) => Self::TwoPersons,
        }
    }
}

/// What made a new set of rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RulesChange {
    /// The program started with other shipped rules, or another configuration, than the set in force has.
    Start {
        /// Version of the program.
        version: String,
    },
    /// The configured folder was read again.
    Reload {},
    /// Somebody deployed a folder.
    Deploy {},
    /// Somebody changed the state of a rule.
    State {
        /// Its id.
        rule: String,
        /// The state before.
        from: RuleState,
        /// The state now.
        to: RuleState,
    },
    /// Somebody added exceptions.
    ExceptionAdded {
        /// Their ids.
        ids: Vec<String>,
    },
    /// Somebody took an exception back.
    ExceptionRemoved {
        /// Its id.
        id: String,
    },
}

/// An exception of a deployed set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployedException {
    /// Id.
    pub id: String,
    /// Digest over what it decides.
    pub digest: String,
    /// From when on it no longer applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Why it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approved_by: Vec<String>,
    /// Where it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

/// A rule of a deployed set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployedRule {
    /// Id.
    pub id: String,
    /// Semantic digest.
    pub digest: String,
    /// State.
    pub state: RuleState,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deploy_of_an_earlier_version_is_read() {
        let old = r#"{"kind":"rules-deployed","set":"ab","rules":[{"id":"r","digest":"d","state":"staging"}],"actor":"pipeproof"}"#;
        let Control::RulesDeployed(record) = serde_json::from_str(old).unwrap() else { panic!("another kind") };
        assert_eq!((record.set.as_str(), record.change, record.approval), ("ab", None, Approval::None));
        assert_eq!(record.rules[0].state, RuleState::Staging);
    }

    #[test]
    fn an_approver_is_somebody_else() {
        assert_eq!(Approval::judge("alice", None), Approval::None);
        assert_eq!(Approval::judge("alice", Some(" ")), Approval::None);
        assert_eq!(Approval::judge("alice", Some("Alice ")), Approval::SamePerson);
        assert_eq!(Approval::judge("alice", Some("bob")), Approval::TwoPersons);
    }
}
