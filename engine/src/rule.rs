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

    /// What a finding of this level counts if its rule says nothing: 5 to 90.
    #[must_use]
    pub const fn risk(self) -> u8 {
        match self {
            Self::Informational => 5,
            Self::Low => 15,
            Self::Medium => 40,
            Self::High => 70,
            Self::Critical => 90,
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
    /// Id or name of the member whose match resolves a finding about its absence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_on: Option<String>,
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
    /// How much a finding counts when findings about the same entity are added up, 0 to 100: the document's `risk`, or what
    /// [`Level::risk`] says.
    pub risk: u8,
}

/// A rule.
#[derive(Clone, Debug)]
pub enum Rule {
    /// Looks at one event.
    Detection(DetectionRule),
    /// Looks at several matches of other rules.
    Correlation(CorrelationRule),
    /// Asks the lake on a schedule. Detection itself only turns its rows into findings.
    Sql(SqlRule),
}

impl Rule {
    /// What every rule has.
    #[must_use]
    pub const fn meta(&self) -> &RuleMeta {
        match self {
            Self::Detection(rule) => &rule.meta,
            Self::Correlation(rule) => &rule.meta,
            Self::Sql(rule) => &rule.meta,
        }
    }

    /// What every rule has, to change it.
    pub const fn meta_mut(&mut self) -> &mut RuleMeta {
        match self {
            Self::Detection(rule) => &mut rule.meta,
            Self::Correlation(rule) => &mut rule.meta,
            Self::Sql(rule) => &mut rule.meta,
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
    /// Length of the window, in event time; under [`CorrelationRule::session_gap`] the longest a session may last.
    pub timespan: Duration,
    /// Session windows instead of sliding ones: a signal later than this after the one before begins a new session.
    pub session_gap: Option<Duration>,
    /// Evaluate on arrival instead of when the watermark passes.
    pub early: bool,
    /// Which names the group-by fields are.
    pub taxonomy: Taxonomy,
}

/// How a correlation combines matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    /// A number computed over the matches in the window lies within bounds: `event_count`, `value_count`, `value_sum`,
    /// `value_avg`, `value_percentile`, `value_median`.
    Aggregate {
        /// What is computed.
        metric: Metric,
        /// Between what.
        bounds: Bounds,
    },
    /// Matches of several members inside the window, and none of others: `temporal`, `temporal_ordered`.
    Temporal {
        /// The members must match in the order they are listed in.
        ordered: bool,
        /// Any of these suffices. Each has at least one member that must match.
        clauses: Vec<TemporalClause>,
    },
    /// A value that its group has not had before: `value_new`. `timespan` is how long a value is remembered.
    New {
        /// The fields whose values, together, are judged; an event that lacks one is not counted.
        fields: Vec<String>,
        /// What a group must have seen before it can find anything.
        learn: Learn,
    },
    /// A value that makes up little of what its group has had within `timespan`: `value_rare`.
    Rare {
        /// The fields whose values, together, are judged.
        fields: Vec<String>,
        /// The share of the value among all, from 0 to 1, this event included.
        bounds: Bounds,
        /// Fewest events of a group on which a share is judged.
        min: u64,
    },
    /// A count far from what its group has had in earlier buckets of length `timespan`: `value_spike`.
    Spike {
        /// Count distinct values of this field instead of events.
        field: Option<String>,
        /// The robust deviation z = (n − median) / max(1.4826 · MAD, √median, 1), and how it has to compare. Above
        /// zero with `gt`/`gte`: a spike, found while it grows. Below with `lt`/`lte`: a drop, found when the bucket ends.
        comparison: Comparison,
        /// With what z is compared.
        deviation: f64,
        /// Smallest count that may be a spike.
        floor: u64,
        /// How far back earlier buckets count.
        baseline: Duration,
        /// Compare only with buckets at the same hour of the week (UTC).
        hour_of_week: bool,
        /// A group with fewer earlier buckets is cold: there a spike needs the floor alone, and a drop is never found.
        learn_buckets: u64,
    },
}

/// What an aggregate correlation computes over its window.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// Matches.
    Events,
    /// Distinct values of these fields taken together; a match that lacks one is not counted.
    Distinct(Vec<String>),
    /// The sum of a numeric field; a match whose field is no number is not counted.
    Sum(String),
    /// Its mean.
    Average(String),
    /// Its percentile (0 to 100), by the nearest-rank method; 50 is the median.
    Percentile(String, f64),
}

/// Comparisons all of which must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds(pub Vec<(Comparison, Number)>);

/// One way for a temporal correlation to hold, in numbers of members.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TemporalClause {
    /// Members that must match, ascending; never empty.
    pub present: Vec<u16>,
    /// Members that must not match. Ordered, the place in the list says on which side of the last present member one
    /// must be missing: listed before it, from one window back up to it; listed after it, up to one window later.
    /// Unordered, on both sides.
    pub absent: Vec<u16>,
}

/// What a group must have seen before a first-seen rule can find anything in it: all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learn {
    /// Events.
    pub events: u64,
    /// Time since its first event.
    pub for_: Duration,
}

/// A table of the rule set that rules look things up in. Every row holds for an interval of event time.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The name rules use.
    pub name: String,
    /// Title.
    pub title: String,
    /// SHA-256 (hexadecimal) over what decides its rows.
    pub digest: String,
    /// Where its rows come from.
    pub rows: TableRows,
    /// How far a row's interval is widened on both sides under `during`.
    pub grace: Duration,
}

/// Where a table's rows come from.
#[derive(Clone, Debug, PartialEq)]
pub enum TableRows {
    /// Matches of rules open and close them.
    Derived {
        /// Fields that identify a row; a match that lacks all of them opens none. A missing one is empty.
        key: Vec<String>,
        /// Ids or names of the rules that open a row, at the time of their match.
        open: Vec<String>,
        /// Ids or names of the rules that close it.
        close: Vec<String>,
        /// Column → field of the event that opens the row; the event that closes it fills in what was missing.
        columns: BTreeMap<String, String>,
        /// How long a row that is never closed holds.
        max_open: Duration,
        /// How long after its end a row is kept.
        retain: Duration,
        /// Which names the fields are.
        taxonomy: Taxonomy,
    },
    /// Written down: each row's values by column. They hold at all times, unless the columns `valid_from` and
    /// `valid_to` (RFC 3339) say otherwise.
    Given(Vec<BTreeMap<String, String>>),
}

/// An audited exception (Sigma filter): what a rule finds is let go where the condition does not hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Id.
    pub id: String,
    /// Title.
    pub title: String,
    /// SHA-256 (hexadecimal) over what it decides.
    pub digest: String,
    /// The rules it applies to, by id or name; `None` means every rule its logsource covers.
    pub rules: Option<Vec<String>>,
    /// Which events it is for.
    pub logsource: Logsource,
    /// Which names its fields are.
    pub taxonomy: Taxonomy,
    /// What must hold besides the rule's own condition.
    pub condition: Condition,
    /// From when on it no longer applies, judged on record time.
    pub expires: Option<crate::time::Timestamp>,
    /// Why it exists.
    pub reason: Option<String>,
    /// Who answers for it.
    pub approved_by: Vec<String>,
    /// Where it was decided.
    pub ticket: Option<String>,
}

/// A rule that asks the lake on a schedule.
#[derive(Clone, Debug)]
pub struct SqlRule {
    /// What every rule has.
    pub meta: RuleMeta,
    /// How often, in event time: runs end at multiples of this since the epoch.
    pub every: Duration,
    /// How far back a run looks: `:from` is this much before `:to`.
    pub lookback: Duration,
    /// Columns that identify a finding.
    pub key: Vec<String>,
    /// The query, with `:from` and `:to`.
    pub query: String,
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
    /// Some row of a table agrees with the event in every way named (`|lookup`, `|during`): decided once the watermark
    /// has passed what feeds the table.
    Lookup(Lookup),
}

impl Condition {
    /// Whether a lookup stands in it.
    #[must_use]
    pub fn has_lookup(&self) -> bool {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::has_lookup),
            Self::Not(part) => part.has_lookup(),
            Self::Field { .. } | Self::Keyword(_) => false,
            Self::Lookup(_) => true,
        }
    }

    /// The condition as far as the event alone decides it: it holds for every event for which this one holds with some
    /// answer of the lookups. `None` if there are no lookups.
    #[must_use]
    pub fn without_lookups(&self) -> Option<Self> {
        self.has_lookup().then(|| self.hopeful(false))
    }

    fn hopeful(&self, negated: bool) -> Self {
        let all = |parts: &[Self]| parts.iter().map(|part| part.hopeful(negated)).collect();
        match self {
            Self::And(parts) => Self::And(all(parts)),
            Self::Or(parts) => Self::Or(all(parts)),
            Self::Not(part) => Self::Not(Box::new(part.hopeful(!negated))),
            Self::Lookup(_) if negated => Self::Or(Vec::new()),
            Self::Lookup(_) => Self::And(Vec::new()),
            Self::Field { .. } | Self::Keyword(_) => self.clone(),
        }
    }
}

/// A semi-join of an event with a table: one row must satisfy all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    /// The table.
    pub table: String,
    /// Field of the event, column of the row: some value of the field equals the column's. Letter case counts.
    pub keys: Vec<(String, String)>,
    /// Tests on other columns of the same row.
    pub columns: Vec<(String, Predicate)>,
    /// The event's time, or the named field of type time, lies in the row's interval widened by the table's grace.
    pub during: Option<String>,
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
    /// A part of the date the value is (RFC 3339 text, no conversion of time zones; or seconds or milliseconds since
    /// the epoch, in UTC) compares so.
    TimePart(TimePart, Comparison, i64),
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

/// A part of a date (Sigma's time modifiers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimePart {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// Day of the month, 1 to 31.
    Day,
    /// ISO 8601 week, 1 to 53.
    Week,
    /// 1 to 12.
    Month,
    /// The year.
    Year,
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
