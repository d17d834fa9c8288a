//! Whether what is stored still agrees with itself: leaves derived again from the lake, trees from the leaves, findings from the
//! records, repetitions from their items, the registry from its records, and what store and lake both tell against each other. It
//! changes nothing, and goes through everything a part at a time.

mod records;
mod repetitions;
mod told;
mod twice;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pipeproof_engine::control::{Control, OWN_SOURCE};
use pipeproof_engine::invariant::Invariant;
use pipeproof_engine::merkle::Nodes as _;
use pipeproof_engine::plan::Plan;
use pipeproof_engine::record::Authenticity;
use pipeproof_engine::rule::Rule;
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::log::Log;
use pipeproof_record::lake::{RedactedRecord, Snapshot};
use pipeproof_record::store::ForgottenDuplicates;
use pipeproof_reports::checkpoint::Checkpoint;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::backtest::{self, Deciding, Line, Request, Summary};
use crate::damage;
use crate::node::{NodeError, PARTITION, Shared};
use crate::registry::Damaged;
use crate::rules::kept_plan;

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
    // Nothing is retired or forgotten while it is looked at.
    let _turn = shared.copying.lock().await;
    let archived = *shared.archived.borrow();
    let lake = shared.lake.pin();
    let mut checks = vec![store(shared).await?, logs(shared), leaf_hashes(shared).await?];
    let forgotten = shared
        .store
        .forgotten_duplicates(PARTITION)
        .await
        .map_err(NodeError::part("read which records repeat others"))?;
    let damaged = shared.registry().damaged.get(damage::LOG).cloned().unwrap_or_default();
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
        let looked_at = Looked {
            shared: &shared,
            lake: &lake,
            archived,
            redacted: &redacted,
            forgotten,
            damaged: &damaged,
            handle: &handle,
        };
        checks.extend(records::redactions(&looked_at));
        checks.push(records::leaves(&looked_at));
        checks.push(repetitions::check(&looked_at));
        checks.push(checkpoints(&shared));
        checks.push(told::findings(&looked_at));
        checks.push(told::feeds(&looked_at));
        checks.push(told::dead_letters(&looked_at));
        checks.push(told::registry(&looked_at));
        checks.push(findings(&shared, &lake, !redacted.is_empty(), &handle));
        checks
    };
    tokio::task::spawn_blocking(work).await.map_err(NodeError::part("check the data"))
}

/// What is looked at.
struct Looked<'a> {
    shared: &'a Shared,
    lake: &'a Snapshot,
    /// Records that were archived when the lake was pinned.
    archived: u64,
    /// Records without payload.
    redacted: &'a BTreeMap<u64, RedactedRecord>,
    /// Verdicts that nobody asks for any more.
    forgotten: ForgottenDuplicates,
    /// What is on record as lost.
    damaged: &'a Damaged,
    handle: &'a Handle,
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

/// The kept leaf hashes are those that the tree was made of. What is damaged of them is mended, as opening the log does.
async fn leaf_hashes(shared: &Arc<Shared>) -> Result<Check, NodeError> {
    let size = shared.log.size();
    let mut problems = Vec::new();
    for first in (0..size).step_by(usize::try_from(Log::HASHES_AT_ONCE).unwrap_or(usize::MAX)) {
        let checked = damage::check_hashes(shared, first).await;
        match checked.unwrap_or_else(|error| Err(crate::chain(&error))) {
            Ok(0) => {}
            Ok(damaged) => {
                problems.push(format!("{damaged} from record {first} on were damaged, and are written again"))
            }
            Err(problem) => problems.push(problem),
        }
    }
    let mut fine = format!(
        "kept hashes of the first {} records are those of the tree",
        size / Log::HASHES_AT_ONCE * Log::HASHES_AT_ONCE
    );
    let mended = shared.mended_hashes.load(Ordering::Acquire);
    if mended > 0 {
        fine.push_str(&format!("; {mended} were damaged, and were written again after the start"));
    }
    Ok(Check::of("leaf hashes", &problems, fine))
}

fn files(lake: &Snapshot) -> Check {
    let damaged = lake.damaged_files();
    let problems: Vec<_> = damaged.iter().map(|damage| format!("{}: {}", damage.path.display(), damage.why)).collect();
    Check::of("lake files", &problems, "every data file is what was written".to_owned())
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
    let remembering = match some_redacted {
        true => remembering(shared, lake),
        false => Ok(BTreeSet::new()),
    };
    let remembering = match remembering {
        Ok(remembering) => remembering,
        Err(error) => return Check::of(check, &[crate::chain(&error)], String::new()),
    };
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
            if !differing.is_empty() {
                shared.violated(Invariant::FoundAsReference);
            }
            Check::of(check, &differing, fine)
        }
        Err(error) => Check::of(check, &[crate::chain(&error)], String::new()),
    }
}

/// How the record of a deployed set begins.
const DEPLOYED: &[u8] = br#"{"kind":"rules-deployed""#;

/// Rules whose findings depend on more than the events they cite, of every set that is replayed: without a redacted record they may
/// conclude otherwise. A rule that was removed since has findings all the same.
fn remembering(shared: &Shared, lake: &Snapshot) -> Result<BTreeSet<String>, NodeError> {
    let mut rules = BTreeSet::new();
    add_remembering(shared.rules.head().plan(), &mut rules);
    for set in replayed_sets(lake)? {
        let plan = kept_plan(shared.rules.root(), &set);
        let plan = plan.map_err(NodeError::part("read a set of rules that was in force"))?;
        add_remembering(&plan, &mut rules);
    }
    Ok(rules)
}

/// The sets that a replay of the lake switches to, as detection did.
fn replayed_sets(lake: &Snapshot) -> Result<BTreeSet<String>, NodeError> {
    let mut sets = BTreeSet::new();
    for stored in lake.records_from(PARTITION, OWN_SOURCE, 0).map_err(NodeError::part("read the lake"))? {
        let stored = stored.map_err(NodeError::part("read the lake"))?;
        // Ticks are most of them.
        if !stored.body.starts_with(DEPLOYED) {
            continue;
        }
        // What this version cannot read is not replayed either.
        let Ok(record) = stored.decode() else { continue };
        let envelope = &record.envelope;
        if envelope.auth == Authenticity::Own
            && envelope.source_type == SourceType::Pipeproof
            && let Ok(Control::RulesDeployed(deployed)) = serde_json::from_slice(&record.body)
            // Without its change it is of a version that kept no content: nothing switches there.
            && deployed.change.is_some()
        {
            sets.insert(deployed.set);
        }
    }
    Ok(sets)
}

/// Adds those of one set.
fn add_remembering(plan: &Plan, rules: &mut BTreeSet<String>) {
    let remembers = |(number, rule): &(usize, &Rule)| {
        !matches!(rule, Rule::Detection(_)) || !plan.lookups(*number).is_empty() || rule.meta().alert.quiet.is_some()
    };
    rules.extend(plan.rules().iter().enumerate().filter(remembers).map(|(_, rule)| rule.meta().id.clone()));
}

#[cfg(test)]
mod tests {
    use pipeproof_engine::plan::Content;
    use pipeproof_rules::library_files;

    use super::*;
    use crate::rules::plan_of;

    #[test]
    fn a_rule_that_remembers_does_so_after_it_was_removed() {
        let shipped = library_files().filter(|(path, _)| path.ends_with("state_bound_reached.yml"));
        let files = shipped.map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
        let mut rules = BTreeSet::new();
        // It is quiet for a day about what it spoke of.
        add_remembering(&plan_of(files).unwrap(), &mut rules);
        add_remembering(&Plan::compile(Content::default()).unwrap(), &mut rules);
        assert_eq!(rules, BTreeSet::from(["5a3f0f4e-7d0b-4a3c-9f57-1f1d6c0b8e42".to_owned()]));
    }
}
