//! What a verification found: checks one by one, each failure with the name of what failed, and one verdict.

use serde::Serialize;

use crate::verify::Unpacked;

/// Most failures listed of one check; the rest are counted.
const FAILURES_MAX: usize = 100;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It held.
    Ok,
    /// It did not hold.
    Failed,
    /// It could not be made, or there was nothing to check.
    NotDone,
}

/// Something that failed, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// File, row or proof.
    pub subject: String,
    /// What is wrong with it.
    pub reason: String,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// How many files, rows or proofs were looked at.
    pub examined: u64,
    /// What it rests on or why it was not done, in words.
    pub detail: String,
    /// What failed; at most 100 are listed.
    pub failures: Vec<Failure>,
    /// How many failed.
    pub failed: u64,
}

impl Check {
    /// A check that nothing has failed yet.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, outcome: Outcome::Ok, examined: 0, detail: String::new(), failures: Vec::new(), failed: 0 }
    }

    /// Counts one more thing looked at.
    pub(super) const fn count(&mut self) {
        self.examined += 1;
    }

    /// Says that something failed.
    pub(super) fn fail(&mut self, subject: impl Into<String>, reason: impl Into<String>) {
        self.outcome = Outcome::Failed;
        self.failed += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(Failure { subject: subject.into(), reason: reason.into() });
        }
    }

    /// Says in words what it rests on.
    pub(super) fn say(&mut self, detail: impl Into<String>) {
        self.detail = detail.into();
    }

    /// Says that it could not be made.
    pub(super) fn not_done(&mut self, why: impl Into<String>) {
        if self.outcome == Outcome::Ok {
            self.outcome = Outcome::NotDone;
        }
        self.detail = why.into();
    }
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// Identity in the pack's certificate.
    pub identity: String,
    /// Who vouched for it.
    pub issuer: String,
    /// When, as the log entry says, RFC 3339.
    pub signed_at: Option<String>,
    /// SHA-256 fingerprint of the authority's certificate inside the pack.
    pub fingerprint: Option<String>,
    /// Whether the anchor vouches for it.
    pub established: bool,
}

/// What it all comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything held, and the anchor vouches for the signer.
    Verified,
    /// Everything held, but nothing says who signed.
    SignerNotEstablished,
    /// Something did not hold.
    Failed,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Name of the pack: its folder in the archive.
    pub pack: String,
    /// SHA-256 of its tag manifest, hexadecimal.
    pub digest: String,
    /// Who signed it, if a signature held.
    pub signer: Option<Signer>,
    /// The checks in the order they were made.
    pub checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(pack: &Unpacked) -> Self {
        Self { pack: pack.name().to_owned(), digest: pack.digest(), signer: None, checks: Vec::new() }
    }

    /// What it comes to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.checks.iter().any(|check| check.outcome == Outcome::Failed) {
            return Verdict::Failed;
        }
        match &self.signer {
            Some(signer) if signer.established => Verdict::Verified,
            Some(_) => Verdict::SignerNotEstablished,
            None => Verdict::Failed,
        }
    }

    /// The verdict in words.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        match self.verdict() {
            Verdict::Verified => "verified",
            Verdict::SignerNotEstablished => "internally consistent, signer NOT established",
            Verdict::Failed => "verification FAILED",
        }
    }

    /// All failures with the check they belong to.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, &Failure)> {
        self.checks.iter().flat_map(|check| check.failures.iter().map(|failure| (check.name, failure)))
    }
}
