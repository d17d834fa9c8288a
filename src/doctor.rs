//! Whether what is stored still agrees with itself: leaves derived again from the lake, trees from the leaves, findings from the
//! records, and the counts of all of them against each other. It changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::merkle::leaf_hash;
use pipeproof_engine::record::encode_parts;
use pipeproof_engine::rule::Rule;
use pipeproof_engine::time::Timestamp;
use pipeproof_record::lake::{RedactedRecord, Skip, Snapshot};
use pipeproof_reports::checkpoint::Checkpoint;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::backtest::{self, Deciding, Line, Request, Summary};
use crate::damage;
use crate::node::{NodeError, PARTITION, Shared};

/// How long it waits for the lake to take in what is there.
const FLUSH: Duration = Duration::from_secs(120);
/// Records, files and ids that are named at most in one check.
const NAMED: usize = 10;

/// One thing that was checked.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) check: &'static str,
    pub(crate) holds: bool,
    pub(crate) detail: String,
}

impl Check {
    fn of(check: &'static str, problems: &[String], fine: String) -> Self {
        let named = problems.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        let more = problems.len().saturating_sub(NAMED);
        let detail = match (problems.is_empty(), more) {
            (true, _) => fine,
            (false, 0) => named,
            (false, more) => format!("{named}; and {more} more"),
        };
        Self { check, holds: problems.is_empty(), detail }
    }
}

/// Runs every check.
pub(crate) async fn verify(shared: &Arc<Shared>) -> Result<Vec<Check>, NodeError> {
    if !shared.flush_lake(FLUSH).await {
        return Err(NodeError::part("check the data")("the lake has not taken in what was received: try again"));
    }
    let archived = *shared.archived.borrow();
    let lake = shared.lake.pin();
    let mut checks = vec![store(shared).await?, logs(shared)];
    let repeated = shared
        .store
        .duplicate_indexes(PARTITION, 0..archived)
        .await
        .map_err(NodeError::part("read which records repeat others"))?;
    let (shared, handle) = (Arc::clone(shared), Handle::current());
    let work = move || {
        checks.push(files(&lake));
        let redacted = match lake.redacted(PARTITION) {
            Ok(redacted) => redacted,
            Err(error) => {
                checks.push(Check::of("redacted records", &[crate::chain(&error)], String::new()));
                BTreeMap::new()
            }
        };
        checks.extend(redactions(&shared, &redacted, &repeated));
        checks.push(leaves(&shared, &lake, archived, (&repeated, &redacted)));
        checks.push(checkpoints(&shared));
        checks.push(told_alike(&shared, &lake, &handle));
        checks.push(findings(&shared, &lake, !redacted.is_empty(), &handle));
        checks
    };
    tokio::task::spawn_blocking(work).await.map_err(NodeError::part("check the data"))
}

async fn store(shared: &Shared) -> Result<Check, NodeError> {
    let problems = match shared.store.problems().await {
        Ok(problems) => problems,
        Err(error) => vec![crate::chain(&error)],
    };
    Ok(Check::of("store", &problems, "the database is whole".to_owned()))
}

/// What of the logs was found damaged when they were opened: it is set aside, and the records of it are not read.
fn logs(shared: &Shared) -> Check {
    let mut problems = Vec::new();
    for (name, report) in &shared.damage {
        problems.extend(report.quarantined.iter().map(|it| {
            format!("{} of the {name}, {}: {}", damage::named(it.records.start, it.records.end), it.segment, it.reason)
        }));
        problems.extend(
            report.bad_headers.iter().map(|segment| format!("the header of {segment} of the {name} is damaged")),
        );
    }
    Check::of("logs", &problems, "what was read when they were opened was what had been written".to_owned())
}

fn files(lake: &Snapshot) -> Check {
    let damaged = lake.damaged_files();
    let problems: Vec<_> = damaged.iter().map(|damage| format!("{}: {}", damage.path.display(), damage.why)).collect();
    Check::of("lake files", &problems, "every data file is what was written".to_owned())
}

/// Every record that is no repetition is in the lake, once, in order, and its leaf is the one in the tree.
fn leaves(
    shared: &Shared,
    lake: &Snapshot,
    archived: u64,
    (repeated, redacted): (&BTreeSet<u64>, &BTreeMap<u64, RedactedRecord>),
) -> Check {
    let check = "leaves";
    let mut problems = Vec::new();
    let mut next = 0;
    let mut count = 0_u64;
    let records = match lake.records(PARTITION, &Skip::default()) {
        Ok(records) => records,
        Err(error) => return Check::of(check, &[crate::chain(&error)], String::new()),
    };
    for stored in records {
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                problems.push(crate::chain(&error));
                break;
            }
        };
        let index = stored.index;
        if index < next {
            problems.push(format!("record {index} is in the lake twice or out of order"));
            continue;
        }
        problems.extend(missing(shared, next..index, (repeated, redacted)));
        next = index + 1;
        count += 1;
        let leaf = encode_parts(stored.envelope.as_bytes(), &stored.salt, &stored.body);
        let same = leaf.is_ok_and(|leaf| shared.log.leaf_hash(index) == Some(leaf_hash(&leaf)));
        if !same {
            problems.push(format!("record {index} of the lake is not the leaf in the tree"));
        }
    }
    problems.extend(missing(shared, next..archived.max(next), (repeated, redacted)));
    let left_out = repeated.len();
    let without = redacted.len();
    let fine = format!(
        "{count} records of the lake are the tree's leaves; {left_out} repeat others, {without} have no payload any more"
    );
    Check::of(check, &problems, fine)
}

/// Every redaction was carried through: the log has no payload there, and the lake the leaf hash that the tree has. None, if there were
/// none.
fn redactions(shared: &Shared, redacted: &BTreeMap<u64, RedactedRecord>, repeated: &BTreeSet<u64>) -> Option<Check> {
    let registry = shared.registry();
    if registry.redactions.is_empty() && redacted.is_empty() {
        return None;
    }
    let mut problems = Vec::new();
    let mut told = Vec::new();
    for (order, ordered) in &registry.redactions {
        if ordered.done.is_none() {
            problems.push(format!("the redaction ordered by record {order} is not done"));
            continue;
        }
        told.push(format!("{:?} {}", ordered.order.records, ordered.note(*order)));
        for index in &ordered.order.records {
            if shared.log.read(*index, 1, 1).is_ok_and(|leaves| leaves.first().is_some_and(|(at, _)| at == index)) {
                problems.push(format!("record {index} is redacted, and the log has its payload"));
            }
            if !redacted.contains_key(index) && !repeated.contains(index) {
                problems.push(format!("record {index} is redacted, and the lake does not say so"));
            }
        }
    }
    for (index, record) in redacted {
        if shared.log.leaf_hash(*index) != Some(record.leaf_hash) {
            problems.push(format!("the leaf hash of the redacted record {index} is not the one in the tree"));
        }
        if registry.redaction_of(*index).is_none() {
            problems.push(format!("the lake says that record {index} is redacted, and no record of the log orders it"));
        }
    }
    Some(Check::of("redacted records", &problems, told.join("; ")))
}

fn missing(
    shared: &Shared,
    range: std::ops::Range<u64>,
    (repeated, redacted): (&BTreeSet<u64>, &BTreeMap<u64, RedactedRecord>),
) -> Vec<String> {
    let lost = range.filter(|index| !repeated.contains(index) && !redacted.contains_key(index));
    lost.map(|index| match shared.log.read(index, 1, 1).ok().and_then(|leaves| leaves.first().map(|(at, _)| *at)) {
        Some(found) if found == index => format!("record {index} is in the log and not in the lake"),
        _ => format!("record {index} is lost as data: a gap"),
    })
    .collect()
}

/// Every sealed checkpoint is signed by our key, and the tree still has its root.
fn checkpoints(shared: &Shared) -> Check {
    let origin = shared.keys.instance().partition_origin(PARTITION);
    let key = shared.keys.public().checkpoint;
    let mut problems = Vec::new();
    let mut count = 0;
    let end = *shared.seal.durable().borrow();
    let mut next = 0;
    while next < end {
        let leaves = match shared.seal.read(next, 1_024, 4 << 20) {
            Ok(leaves) => leaves,
            Err(error) => {
                problems.push(crate::chain(&error));
                break;
            }
        };
        let Some((last, _)) = leaves.last() else { break };
        next = last + 1;
        for (index, leaf) in &leaves {
            let Ok(note) = std::str::from_utf8(leaf) else { continue };
            if note.lines().next() != Some(origin.as_str()) {
                continue;
            }
            count += 1;
            match Checkpoint::open(note, &origin, &key) {
                Err(error) => problems.push(format!("checkpoint {index}: {}", crate::chain(&error))),
                Ok(checkpoint) if shared.log.root(checkpoint.size) != Some(checkpoint.root) => {
                    problems
                        .push(format!("checkpoint {index}: the first {} records have another root", checkpoint.size));
                }
                Ok(_) => {}
            }
        }
    }
    Check::of("checkpoints", &problems, format!("{count} sealed checkpoints hold against the tree"))
}

/// The lake tells every finding once, and as the store does.
fn told_alike(shared: &Shared, lake: &Snapshot, handle: &Handle) -> Check {
    let check = "findings in the lake";
    let mut ids = BTreeSet::new();
    let mut problems = Vec::new();
    let findings = match lake.findings() {
        Ok(findings) => findings,
        Err(error) => return Check::of(check, &[crate::chain(&error)], String::new()),
    };
    for finding in findings {
        match finding {
            Ok(finding) if ids.contains(&finding.id) => problems.push(format!("finding {} is there twice", finding.id)),
            Ok(finding) => drop(ids.insert(finding.id)),
            Err(error) => {
                problems.push(crate::chain(&error));
                break;
            }
        }
    }
    match handle.block_on(lake.differing_findings(&shared.store)) {
        Ok(differing) => {
            problems.extend(differing.iter().map(|id| format!("finding {id} is not told alike by store and lake")));
        }
        Err(error) => problems.push(crate::chain(&error)),
    }
    Check::of(check, &problems, format!("{} findings, each once, as in the store", ids.len()))
}

/// The records of the lake, evaluated again under the rules that were in force, give the findings that are stored.
fn findings(shared: &Shared, lake: &Snapshot, some_redacted: bool, handle: &Handle) -> Check {
    let check = "findings derived again";
    let request = Request {
        rules: Deciding::InForce(shared.rules.root().to_owned()),
        against: None,
        from: Timestamp::from_secs(0),
        to: shared.clock.now(),
        warm_up: None,
        offline: false,
    };
    let remembering = if some_redacted { remembering(shared) } else { BTreeSet::new() };
    let mut differing = Vec::new();
    let mut may_differ = 0_u64;
    let mut tell = |line: Line| {
        if let Line::Finding(told) = line
            && told.change != backtest::Change::Identical
        {
            let rule = told.rule.get("id").and_then(serde_json::Value::as_str).unwrap_or_default();
            if remembering.contains(rule) {
                may_differ += 1;
            } else {
                let change = format!("{:?}", told.change).to_lowercase();
                differing.push(format!("finding {} of rule {rule} was {change}", told.id));
            }
        }
        !*shared.stopping.borrow()
    };
    match backtest::run(lake, shared.address_files.clone(), &request, handle, &mut tell) {
        Ok(Summary { identical, records, redacted, .. }) => {
            let mut fine = format!("{records} records give the same {identical} findings");
            if some_redacted {
                fine.push_str(&format!(
                    "; {redacted} rest on redacted records and are not compared, {may_differ} of rules that remember differ, \
                     which redacted records may explain"
                ));
            }
            Check::of(check, &differing, fine)
        }
        Err(error) => Check::of(check, &[crate::chain(&error)], String::new()),
    }
}

/// Rules whose findings depend on more than the events they cite: without a redacted record they may conclude otherwise.
fn remembering(shared: &Shared) -> BTreeSet<String> {
    let head = shared.rules.head();
    let plan = head.plan();
    let remembers = |(number, rule): &(usize, &Rule)| {
        !matches!(rule, Rule::Detection(_)) || !plan.lookups(*number).is_empty() || rule.meta().alert.quiet.is_some()
    };
    let rules = plan.rules().iter().enumerate().filter(remembers);
    rules.map(|(_, rule)| rule.meta().id.clone()).collect()
}
