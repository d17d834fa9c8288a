//! A rule as the engine runs it: what `rules` compiles Sigma YAML to, and what a finding carries of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::source::Logsource;

/// Severity of a finding, as Sigma names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth recording.
    Informational,
    /// Low.
    Low,
    /// Medium; what a rule without a level has.
    #[default]
    Medium,
    /// High.
    High,
    /// Critical.
    Critical,
}

impl Level {
    /// 1 (informational) to 5 (critical).
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Informational => 1,
            Self::Low => 2,
            Self::Medium => 3,
            Self::High => 4,
            Self::Critical => 5,
        }
    }

    /// The word Sigma uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Whether a rule's findings page somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleState {
    /// Records findings, opens incidents and delivers alerts.
    #[default]
    Active,
    /// Records findings only.
    Staging,
    /// Does not run.
    Paused,
}

/// Which names a rule's fields are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Taxonomy {
    /// Names of [`crate::fields::Field`]; any other name is a native path.
    Cicd,
    /// Native field names of the product: paths into the JSON.
    #[default]
    Sigma,
}

/// What an alert of a rule says and how findings of the rule are grouped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertSpec {
    /// Title with `{field}` placeholders; the rule's title if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// `(kind, field)`: who or what the finding is about; incidents are joined by these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entity: Vec<(String, String)>,
    /// Fields that make two findings of a rule "the same" during `quiet`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dedup: Vec<String>,
    /// How long, in event time, the same finding is not repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Duration>,
}

/// What every rule has, whatever it detects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleMeta {
    /// The rule's `id`, or its `name` where it has none.
    pub id: String,
    /// The handle correlations refer to.
    pub name: Option<String>,
    /// Title.
    pub title: String,
    /// Severity.
    pub level: Level,
    /// `version:` of the document, if it says one; for people, not part of the digest.
    pub version: Option<u64>,
    /// SHA-256 (hexadecimal) over what decides a match: detection, correlation, members, lists; not title, tests or alert text.
    pub digest: String,
    /// Whether findings page.
    pub state: RuleState,
    /// False for a rule that only feeds correlations.
    pub emits: bool,
    /// Alert text and grouping.
    pub alert: AlertSpec,
    /// Sigma tags.
    pub tags: Vec<String>,
    /// Control ids by framework: `soc2`, `iso27001`.
    pub controls: BTreeMap<String, Vec<String>>,
    /// Source types without which the rule is blind.
    pub requires: Vec<String>,
    /// Author, licence and other attribution that must travel with a match (DRL 1.1).
    pub author: Option<String>,
}

/// A rule.
#[derive(Clone, Debug)]
pub enum Rule {
    /// Looks at one event.
    Detection(DetectionRule),
    /// Looks at several matches of other rules.
    Correlation(CorrelationRule),
}

impl Rule {
    /// What every rule has.
    #[must_use]
    pub const fn meta(&self) -> &RuleMeta {
        match self {
            Self::Detection(rule) => &rule.meta,
            Self::Correlation(rule) => &rule.meta,
        }
    }

    /// What every rule has, to change it.
    pub const fn meta_mut(&mut self) -> &mut RuleMeta {
        match self {
            Self::Detection(rule) => &mut rule.meta,
            Self::Correlation(rule) => &mut rule.meta,
        }
    }
}

/// A rule that looks at one event.
#[derive(Clone, Debug)]
pub struct DetectionRule {
    /// What every rule has.
    pub meta: RuleMeta,
    /// Which events it is for.
    pub logsource: Logsource,
    /// Which names its fields are.
    pub taxonomy: Taxonomy,
    /// What it looks for.
    pub condition: Condition,
}

/// A rule that looks at matches of other rules (Sigma correlation).
#[derive(Clone, Debug)]
pub struct CorrelationRule {
    /// What every rule has.
    pub meta: RuleMeta,
    /// How the matches are combined.
    pub operator: Operator,
    /// Ids or names of the rules it looks at, in the order written.
    pub members: Vec<String>,
    /// Fields whose values must agree; an event that lacks one is not counted.
    pub group_by: Vec<String>,
    /// Alias → (member rule → field); an alias may stand in `group_by`.
    pub aliases: BTreeMap<String, BTreeMap<String, String>>,
    /// Length of the window, in event time.
    pub timespan: Duration,
    /// Evaluate on arrival instead of when the watermark passes.
    pub early: bool,
    /// Which names the group-by fields are.
    pub taxonomy: Taxonomy,
}

/// How a correlation combines matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The number of matches in the window compares to `count` as `comparison` says.
    EventCount {
        /// How to compare.
        comparison: Comparison,
        /// What to compare with.
        count: u64,
    },
    /// A match of every member, in the order of `members`, inside the window.
    TemporalOrdered,
}

/// An ordering test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the operators")]
pub enum Comparison {
    Lt,
    Lte,
    Gt,
    Gte,
    Eq,
    Neq,
}

impl Comparison {
    /// Whether `left` compares to `right` in this way.
    #[must_use]
    pub fn holds<T: PartialOrd>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Lt => left < right,
            Self::Lte => left <= right,
            Self::Gt => left > right,
            Self::Gte => left >= right,
            Self::Eq => left == right,
            Self::Neq => left != right,
        }
    }
}

/// What an event must satisfy.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// All of them; true when empty.
    And(Vec<Condition>),
    /// Any of them; false when empty.
    Or(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
    /// A field satisfies a predicate: some value of it does, where it has several.
    Field {
        /// Field name as written.
        field: String,
        /// Test.
        predicate: Predicate,
    },
    /// Some value anywhere in the event satisfies the predicate (Sigma keywords).
    Keyword(Predicate),
}

/// A test on a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// Text test. Numbers and booleans are compared in their text form; an object in its compact JSON text, but only
    /// under `Contains` and patterns open at both ends; an array stands for its members.
    Text {
        /// How to compare.
        test: TextTest,
        /// Letter case counts.
        cased: bool,
    },
    /// The value equals this number, or is its text form.
    Number(Number),
    /// The value is this boolean, or its text form.
    Bool(bool),
    /// The field is missing or null.
    Null,
    /// The field is present (null counts as present) or not.
    Exists(bool),
    /// RE2-style regular expression, unanchored; flags are written into it as `(?ims)`.
    Regex(String),
    /// The value is an address inside this network.
    Cidr(IpNet),
    /// The value is a number that compares so.
    Compare(Comparison, Number),
    /// The value equals (or contains, starts with, ends with) the value of another field of the same event.
    FieldRef {
        /// The other field.
        field: String,
        /// How to compare.
        kind: AffixKind,
        /// Letter case counts.
        cased: bool,
    },
}

/// How two texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are Sigma's modifiers")]
pub enum AffixKind {
    Equals,
    Contains,
    StartsWith,
    EndsWith,
}

/// A text test.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextTest {
    /// No wildcard: compare as `kind` says.
    Plain {
        /// How to compare.
        kind: AffixKind,
        /// With what.
        text: String,
    },
    /// With wildcards: the whole value must match the pattern.
    Wildcard(Vec<WildcardPart>),
}

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WildcardPart {
    /// These characters.
    Literal(String),
    /// `?`: exactly one character.
    One,
    /// `*`: any characters, none included.
    Any,
}

/// A number as YAML or JSON wrote it; integers stay exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// An integer.
    Int(i128),
    /// Anything else.
    Float(f64),
}
