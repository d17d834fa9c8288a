//! What a control test came to: four words, numbers, and how far they reach.

use pipeproof_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::completeness::{Assessment, Unevaluated};
use crate::kpi::text::duration;

/// A half-open UTC period and the state of knowledge it is looked at with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// First moment in it.
    pub from: Timestamp,
    /// First moment after it.
    pub to: Timestamp,
    /// What was known then is used, nothing later.
    pub as_of: Timestamp,
}

impl Period {
    /// The end of what can be judged: nothing after `as_of` is known.
    #[must_use]
    pub fn horizon(&self) -> Timestamp {
        self.to.min(self.as_of)
    }
}

/// What a test found. There is no word for conformity among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// The population holds `n` items, and none is an exception.
    NoExceptionsNoted {
        /// Items.
        n: u64,
    },
    /// `k` of the `n` items are exceptions.
    ExceptionsNoted {
        /// Exceptions, counted by their key.
        k: u64,
        /// Items.
        n: u64,
    },
    /// The population is empty: whether the control works could not show.
    NoOccurrence,
    /// The record does not allow a result for any part of the period.
    NotEvaluated {
        /// Why.
        why: String,
    },
}

impl Outcome {
    /// The words used in reports.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::NoExceptionsNoted { n } => format!("no exceptions noted (0 of {n})"),
            Self::ExceptionsNoted { k, n } => format!("exceptions noted ({k} of {n})"),
            Self::NoOccurrence => "no occurrence".to_owned(),
            Self::NotEvaluated { why } => format!("not evaluated: {why}"),
        }
    }
}

/// The result of one test over one period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlResult {
    /// Id of the test.
    pub control: String,
    /// Its title.
    pub title: String,
    /// Digest of what decides it (see [`super::definition::Control::digest`]).
    pub digest: String,
    /// Period.
    pub period: Period,
    /// What it found.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The same as a sentence, with how far it reaches.
    pub sentence: String,
    /// What limits the result.
    pub qualifiers: Vec<String>,
    /// Seconds of the period for which the sources' record stands.
    pub evaluated_secs: f64,
    /// Seconds of the period that lie before `as_of`.
    pub period_secs: f64,
    /// Parts of the period that are not evaluated, by source.
    pub not_evaluated: Vec<Unevaluated>,
    /// Rows of the exceptions query; several may concern one item.
    pub exception_rows: u64,
}

/// Decides the outcome. `n` items, `k` exceptions.
///
/// Exceptions stay exceptions wherever they were found. The absence of exceptions, and of any occurrence, is said only
/// of what could be evaluated; where nothing could, the test is not evaluated.
#[must_use]
pub fn decide(n: u64, k: u64, assessment: &Assessment) -> Outcome {
    if k > 0 {
        return Outcome::ExceptionsNoted { k, n };
    }
    if let Some(why) = assessment.nothing_evaluated() {
        return Outcome::NotEvaluated { why };
    }
    if n == 0 { Outcome::NoOccurrence } else { Outcome::NoExceptionsNoted { n } }
}

/// The outcome as a sentence that cannot be read as more than it is.
#[must_use]
pub fn sentence(outcome: &Outcome, assessment: &Assessment) -> String {
    let words = outcome.words();
    if assessment.unevaluated.is_empty() || matches!(outcome, Outcome::NotEvaluated { .. }) {
        return words;
    }
    let (part, whole) = (duration(assessment.evaluated_secs), duration(assessment.period_secs));
    format!("{words}; the record stands for {part} of {whole}, the rest is not evaluated")
}
