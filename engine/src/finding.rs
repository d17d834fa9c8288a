//! The finding: what a rule says about events, under an id derived from what decided it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::rule::{Level, RuleState};
use crate::time::Timestamp;

/// Which event a finding hangs on, per operator. The id of a finding is derived from it, so this table must not change
/// without a new version of [`finding_id`].
///
/// | operator | anchor |
/// |---|---|
/// | single event | the event |
/// | a number over a window (`event_count`, `value_count`, `value_sum`, ...) | the event that made the condition true after it was false |
/// | `temporal`, `temporal_ordered` | the last event that matched a member which must match, also where others must not |
/// | `value_new`, `value_rare` | the event with the value |
/// | `value_spike` | the event that made it a spike |
/// | `value_spike`, a drop | source `pipeproof`, item `bucket:` and the start of the bucket |
///
/// The time of a finding is that of its anchor, but the end of the window where something had to be missing after it, and
/// the end of the bucket of a drop. A finding that stands for an event in another correlation happens at its own time.
///
/// An event is named by (source, item, number inside the record), not by its position, so that the same item gives
/// the same finding wherever it is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Anchor {
    /// Source instance.
    pub source: String,
    /// Item (see [`crate::record::Envelope::item`]).
    pub item: String,
    /// Number inside the record.
    pub sub: u32,
}

/// Derives a finding's id: `f-` and 128 bits of SHA-256 over rule id, semantic digest, group key and anchor, each
/// with its length before it.
#[must_use]
pub fn finding_id(rule_id: &str, digest: &str, key: &BTreeMap<String, String>, anchor: &Anchor) -> String {
    let mut hash = Sha256::new_with_prefix(b"pipeproof finding v1\n");
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    part(rule_id);
    part(digest);
    for (name, value) in key {
        part(name);
        part(value);
    }
    part(&anchor.source);
    part(&anchor.item);
    hash.update(anchor.sub.to_le_bytes());
    format!("f-{}", short_hex(&hash.finalize()))
}

/// The first 128 bits of a hash in hexadecimal.
#[must_use]
pub fn short_hex(hash: &[u8]) -> String {
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// An event as a finding cites it: enough to read the finding without the event, and to find and prove the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CitedEvent {
    /// Event id, `PARTITION-INDEX-NUMBER`.
    pub id: String,
    /// Source instance.
    pub source: String,
    /// Source type.
    pub source_type: String,
    /// When it happened.
    pub time: Timestamp,
    /// When we received it.
    pub received: Timestamp,
    /// The rule it matched (a member's id under a correlation).
    pub rule: String,
    /// Its normalised fields.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Derived id.
    pub id: String,
    /// The rule's id.
    pub rule_id: String,
    /// The rule's title.
    pub rule_title: String,
    /// The rule's semantic digest.
    pub rule_digest: String,
    /// Severity.
    pub level: Level,
    /// How much it counts, 0 to 100, when findings about the same entity are added up.
    #[serde(default)]
    pub risk: u8,
    /// State of the rule when it fired.
    pub state: RuleState,
    /// Title of the alert, placeholders filled.
    pub title: String,
    /// Event time of the anchor.
    pub time: Timestamp,
    /// Event time of the earliest cited event whose source says one: the start of what was found.
    pub occurred: Option<Timestamp>,
    /// Received time of the earliest cited event.
    pub available: Timestamp,
    /// Record time at which the rule fired: the received time of the record (or tick) that decided it.
    pub fired: Timestamp,
    /// Whether a cited event was history: loaded as backfill, or older than the connection of its source.
    pub retro: bool,
    /// Group key of a correlation, or the dedup fields of a single event.
    pub key: BTreeMap<String, String>,
    /// Who or what it is about, as `kind:value`.
    pub entities: Vec<String>,
    /// The events.
    pub events: Vec<CitedEvent>,
    /// Why: `field predicate value`, one per clause that matched.
    pub because: Vec<String>,
    /// Controls the rule is evidence for, by framework.
    pub controls: BTreeMap<String, Vec<String>>,
    /// Sigma tags of the rule.
    pub tags: Vec<String>,
    /// The incident it opened or joined, unless the rule is in staging.
    pub incident: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_change_and_depend_on_every_part() {
        let anchor = Anchor { source: "s".into(), item: "id:1".into(), sub: 0 };
        let key = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let id = finding_id("r", "d", &key, &anchor);
        assert_eq!(id.len(), 34);
        let others = [
            finding_id("r2", "d", &key, &anchor),
            finding_id("r", "d2", &key, &anchor),
            finding_id("r", "d", &BTreeMap::new(), &anchor),
            finding_id("rd", "", &key, &anchor),
            finding_id("r", "d", &key, &Anchor { sub: 1, ..anchor.clone() }),
            finding_id("r", "d", &key, &Anchor { item: "id:2".into(), ..anchor.clone() }),
        ];
        assert!(others.iter().all(|other| *other != id));
        assert_eq!(id, finding_id("r", "d", &key, &anchor));
    }
}
