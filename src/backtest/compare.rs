//! What one side finds and the other does not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pipeproof_engine::finding::Finding;
use pipeproof_engine::redaction::Forgotten;
use pipeproof_engine::time::Timestamp;
use pipeproof_record::lake::Snapshot;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Change, Deciding, Line, Request, Summary, Tell, Told};
use crate::node::{NodeError, PARTITION};

/// What identifies a finding, shortened: enough that two different ones never agree.
type Name = [u8; 16];

fn name(parts: &[&str]) -> Name {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut short = [0; 16];
    short.copy_from_slice(hash.finalize().get(..16).unwrap_or(&[0; 16]));
    short
}

fn by_id(finding: &Finding) -> Name {
    name(&[&finding.id])
}

/// The same across versions of a rule: rule, key, and the event it hangs on.
fn by_anchor(finding: &Finding) -> Name {
    let mut parts = vec![finding.rule_id.as_str()];
    parts.extend(finding.key.iter().flat_map(|(field, value)| [field.as_str(), value.as_str()]));
    let time = finding.time.to_string();
    parts.push(finding.events.last().map_or(time.as_str(), |event| &event.id));
    name(&parts)
}

/// One finding of the side that is compared with.
struct Known {
    id: Name,
    digest: Name,
    fired: Timestamp,
    /// Kept where it is not in the lake, to be told if nothing matches it.
    told: Option<Box<Told>>,
    matched: bool,
}

pub(super) struct Comparison {
    against_live: bool,
    known: Vec<Known>,
    ids: HashMap<Name, usize>,
    anchors: HashMap<Name, Vec<usize>>,
    /// Findings on trial that nothing matched yet; the other side may still find them.
    waiting: BTreeMap<usize, Finding>,
    waiting_ids: HashMap<Name, usize>,
    waiting_anchors: HashMap<Name, usize>,
    not_compared: u64,
    /// Records without payload.
    redacted: Forgotten,
    rest_on_redacted: u64,
    identical: u64,
    other_version: u64,
    added: u64,
}

impl Comparison {
    pub(super) fn new(lake: &Snapshot, request: &Request) -> Result<Self, NodeError> {
        let mut this = Self {
            against_live: request.against.is_none(),
            known: Vec::new(),
            ids: HashMap::new(),
            anchors: HashMap::new(),
            waiting: BTreeMap::new(),
            waiting_ids: HashMap::new(),
            waiting_anchors: HashMap::new(),
            not_compared: 0,
            redacted: redacted_of(lake)?,
            rest_on_redacted: 0,
            identical: 0,
            other_version: 0,
            added: 0,
        };
        if this.against_live {
            let on_trial: Option<BTreeSet<&str>> = match &request.rules {
                Deciding::Fixed(plan) => Some(plan.rules().iter().map(|rule| rule.meta().id.as_str()).collect()),
                Deciding::InForce(_) => None,
            };
            for finding in lake.findings().map_err(NodeError::part("read the findings of the live run"))? {
                let finding = finding.map_err(NodeError::part("read the findings of the live run"))?;
                if finding.time < request.from || finding.time >= request.to {
                    continue;
                }
                if this.redacted.is_cited_by(&finding) {
                    this.rest_on_redacted += 1;
                    continue;
                }
                if on_trial.as_ref().is_none_or(|rules| rules.contains(finding.rule_id.as_str())) {
                    this.learn(&finding, None);
                } else {
                    this.not_compared += 1;
                }
            }
        }
        Ok(this)
    }

    /// How many records have no payload any more.
    pub(super) fn redacted_records(&self) -> usize {
        self.redacted.records.len()
    }

    fn learn(&mut self, finding: &Finding, told: Option<Box<Told>>) -> usize {
        let at = self.known.len();
        let (id, digest) = (by_id(finding), name(&[&finding.rule_digest]));
        self.known.push(Known { id, digest, fired: finding.fired, told, matched: false });
        self.ids.insert(id, at);
        self.anchors.entry(by_anchor(finding)).or_default().push(at);
        at
    }

    /// A finding of the other set of rules.
    pub(super) fn other(&mut self, finding: Finding, tell: &mut Tell<'_>) {
        let told = Box::new(in_short(&finding, Change::Removed));
        self.learn(&finding, Some(told));
        let by_anchor = self.waiting_anchors.get(&by_anchor(&finding));
        let other_version =
            by_anchor.filter(|at| self.waiting.get(*at).is_some_and(|found| found.rule_digest != finding.rule_digest));
        let at = self.waiting_ids.get(&by_id(&finding)).or(other_version).copied();
        if let Some(waiting) = at.and_then(|at| self.waiting.remove(&at)) {
            self.trial(waiting, tell);
        }
    }

    /// A finding of the rules on trial. False if nobody listens.
    pub(super) fn trial(&mut self, finding: Finding, tell: &mut Tell<'_>) -> bool {
        let digest = name(&[&finding.rule_digest]);
        let same = self.ids.get(&by_id(&finding)).copied();
        let anchor = by_anchor(&finding);
        let found = same.or_else(|| {
            // The rule under another version: the id says that version, rule, key and event do not.
            let of = |at: &&usize| self.known.get(**at).is_some_and(|known| known.digest != digest && !known.matched);
            self.anchors.get(&anchor).and_then(|known| known.iter().find(of)).copied()
        });
        if let Some(at) = found
            && let Some(known) = self.known.get_mut(at)
        {
            known.matched = true;
            known.told = None;
            self.identical += 1;
            self.other_version += u64::from(same.is_none());
            return tell(Line::Finding(Box::new(in_short(&finding, Change::Identical))));
        }
        if self.against_live {
            self.added += 1;
            return tell(Line::Finding(Box::new(in_short(&finding, Change::Added))));
        }
        let at = self.waiting.last_key_value().map_or(0, |(last, _)| last + 1);
        self.waiting_ids.insert(by_id(&finding), at);
        self.waiting_anchors.insert(anchor, at);
        self.waiting.insert(at, finding);
        true
    }

    /// Tells what one side alone has.
    pub(super) fn finish(
        self,
        lake: &Snapshot,
        now: Timestamp,
        summary: &mut Summary,
        tell: &mut Tell<'_>,
    ) -> Result<(), NodeError> {
        summary.identical = self.identical;
        summary.other_version = self.other_version;
        summary.not_compared = self.not_compared;
        summary.redacted = self.rest_on_redacted;
        summary.added = self.added + self.waiting.len() as u64;
        for finding in self.waiting.values() {
            tell(Line::Finding(Box::new(in_short(finding, Change::Added))));
        }
        // What fired after the last record of the lake is not part of this replay.
        let missing = |known: &&Known| !known.matched && (!self.against_live || known.fired <= now);
        summary.removed = self.known.iter().filter(missing).count() as u64;
        if !self.against_live {
            for told in self.known.into_iter().filter(|known| !known.matched).filter_map(|known| known.told) {
                tell(Line::Finding(told));
            }
            return Ok(());
        }
        let missing: BTreeSet<Name> = self.known.iter().filter(missing).map(|known| known.id).collect();
        if !missing.is_empty() {
            for finding in lake.findings().map_err(NodeError::part("read the findings of the live run"))? {
                let finding = finding.map_err(NodeError::part("read the findings of the live run"))?;
                if missing.contains(&by_id(&finding)) {
                    tell(Line::Finding(Box::new(in_short(&finding, Change::Removed))));
                }
            }
        }
        Ok(())
    }
}

fn redacted_of(lake: &Snapshot) -> Result<Forgotten, NodeError> {
    let redacted = lake.redacted(PARTITION).map_err(NodeError::part("read which records were redacted"))?;
    Ok(Forgotten { partition: PARTITION, records: redacted.into_keys().collect(), ..Forgotten::default() })
}

fn in_short(finding: &Finding, change: Change) -> Told {
    Told {
        change,
        id: finding.id.clone(),
        rule: json!({
            "id": finding.rule_id, "title": finding.rule_title, "level": finding.level, "digest": finding.rule_digest,
        }),
        time: finding.time,
        title: finding.title.clone(),
        key: finding.key.clone(),
        events: finding.events.iter().map(|event| event.id.clone()).collect(),
        because: finding.because.clone(),
    }
}
