//! The records: every leaf hash is worked out again from the parts in the Parquet files.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pipeproof_engine::merkle::{Hash, leaf_hash};
use pipeproof_engine::record::Position;

use crate::pack::records::{is_raw, read};
use crate::verify::Unpacked;
use crate::verify::report::{Check, Report};

/// Leaf hashes by position, each worked out from the record itself.
pub(super) type Leaves = BTreeMap<Position, Hash>;

pub(super) fn check(pack: &Unpacked, report: &mut Report) -> Leaves {
    let mut check = Check::new("records");
    let mut leaves = Leaves::new();
    let mut redacted = BTreeSet::new();
    // What rows without parts say of a record that some other row must hold.
    let mut said: BTreeMap<Position, (String, Option<Hash>)> = BTreeMap::new();
    for (path, bytes) in pack.data().filter(|(path, _)| is_raw(path)) {
        let outcome = read(&Bytes::copy_from_slice(bytes), |row| {
            check.count();
            let subject = || format!("data/{path} row {} (record {})", row.number, row.position);
            let Some(leaf) = row.leaf else {
                if let (Some(_), Some(hash)) = (&row.redacted, row.leaf_hash) {
                    // Whether the log has that hash there, the proof of all records says.
                    redacted.insert(row.position);
                    if leaves.insert(row.position, hash).is_some_and(|other| other != hash) {
                        check.fail(subject(), "another row has another leaf hash for this position");
                    }
                    return;
                }
                said.entry(row.position).or_insert_with(|| (subject(), row.leaf_hash));
                return;
            };
            let hash = leaf_hash(&leaf);
            if row.leaf_hash.is_some_and(|said| said != hash) {
                check.fail(subject(), "its leaf hash is not that of its envelope, salt and body");
            }
            if leaves.insert(row.position, hash).is_some_and(|other| other != hash) {
                check.fail(subject(), "another row holds another record for this position");
            }
        });
        if let Err(cause) = outcome {
            check.fail(format!("data/{path}"), format!("cannot be read as records: {cause}"));
        }
    }
    for (position, (subject, hash)) in said {
        match leaves.get(&position) {
            None => check.fail(subject, "no row holds the record itself"),
            Some(leaf) if hash.is_some_and(|hash| hash != *leaf) => {
                check.fail(subject, "its leaf hash is not that of the record");
            }
            Some(_) => {}
        }
    }
    if !redacted.is_empty() {
        check.say(format!("{} records were redacted: proved by their leaf hashes alone", redacted.len()));
    }
    report.checks.push(check);
    leaves
}
