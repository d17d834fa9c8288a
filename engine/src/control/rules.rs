//! The control record of a deployed set of rules.

use serde::{Deserialize, Serialize};

use crate::rule::RuleState;
use crate::time::Timestamp;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;

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
