//! The log: cited records are leaves of their partition, checkpoints are leaves of the seal tree, and the seal tree only
//! grew: from those checkpoints to the pack's own signature, and from whatever the auditor kept of earlier times.

use std::collections::BTreeMap;

use pipeproof_engine::merkle::{Hash, leaf_hash, verify_consistency};
use serde::Deserialize;

use crate::checkpoint::{Checkpoint, Proof, hash};
use crate::keys::Instance;
use crate::pack::bag::SEAL_CONSISTENCY;
use crate::pack::proofs::{self, Growth, SetProof};
use crate::pack::{PreviousPack, citations, set_proof};
use crate::verify::records::Leaves;
use crate::verify::report::{Check, Report};
use crate::verify::signature::Signed;
use crate::verify::{Options, Previous, Unpacked};

/// Checkpoints that held, by partition.
type Checkpoints = BTreeMap<u32, Checkpoint>;
/// States of the seal tree that are shown to be of one history with the pack's signature: root by size.
type SealStates = BTreeMap<u64, Hash>;

pub(super) fn check(pack: &Unpacked, options: &Options, signed: Option<&Signed>, leaves: &Leaves, report: &mut Report) {
    let index = read_index(pack);
    // The public Sigstore instance signs in another name than ours; then the index, which is signed, says whose log it is.
    let listed = index.instance.as_ref().and_then(|instance| Instance::new(&instance.id));
    let instance = signed.and_then(|signed| signed.instance.clone()).or_else(|| listed.clone());
    let (Some(signed), Some(instance)) = (signed, &instance) else {
        for name in ["checkpoints", "proofs"] {
            let mut check = Check::new(name);
            check.not_done("no signature held, so there is no key to check them with");
            report.checks.push(check);
        }
        return;
    };
    let mut check = Check::new("checkpoints");
    let states = seal_growth(pack, signed, &mut check);
    if listed.as_ref() != Some(instance) {
        check.fail("data/pack.json", "names another instance than the one that signed");
    }
    let checkpoints = partitions(pack, signed, instance, (&index, &states), &mut check);
    check.examined = (checkpoints.len() + states.len()) as u64;
    report.checks.push(check);
    report.checks.push(record_proofs(pack, signed, instance, (&checkpoints, leaves)));
    if let Some(previous) = &options.previous {
        report.checks.push(earlier(pack, previous, (signed, instance), (&index, &checkpoints, &states)));
    }
}

#[derive(Default, Deserialize)]
struct Index {
    checkpoints: Vec<Listed>,
    previous: Option<PreviousPack>,
    instance: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Deserialize)]
struct Listed {
    partition: u32,
    size: u64,
    root: String,
    seal_index: u64,
}

/// What the index says; that it can be read at all is checked elsewhere.
fn read_index(pack: &Unpacked) -> Index {
    serde_json::from_slice(pack.get("data/pack.json").unwrap_or_default()).unwrap_or_default()
}

/// The states of the seal tree that lead to the one the pack's signature saw.
fn seal_growth(pack: &Unpacked, signed: &Signed, check: &mut Check) -> SealStates {
    let mut states = SealStates::from([(signed.seal_size, signed.seal_root)]);
    let bytes = pack.get(SEAL_CONSISTENCY).unwrap_or_default();
    let growths: Vec<Growth> = match serde_json::from_slice(bytes) {
        Ok(growths) => growths,
        Err(cause) => {
            check.fail(SEAL_CONSISTENCY, format!("cannot be read: {cause}"));
            return states;
        }
    };
    for growth in &growths {
        match grown(growth) {
            Some((old, new)) if growth.new_size == signed.seal_size && new == signed.seal_root => {
                states.insert(growth.old_size, old);
            }
            _ => check.fail(
                SEAL_CONSISTENCY,
                format!(
                    "does not show that the seal tree of {} leaves grew to the {} of the pack's signature",
                    growth.old_size, signed.seal_size
                ),
            ),
        }
    }
    states
}

/// Old and new root, if one grew from the other.
fn grown(growth: &Growth) -> Option<(Hash, Hash)> {
    let (old, new) = (hash(&growth.old_root)?, hash(&growth.new_root)?);
    let hashes = growth.hashes.iter().map(|node| hash(node)).collect::<Option<Vec<Hash>>>()?;
    verify_consistency(growth.old_size, growth.new_size, &old, &new, &hashes).then_some((old, new))
}

/// Every checkpoint that the index names: signed, in the seal tree, and consistent with the one at the start.
fn partitions(
    pack: &Unpacked,
    signed: &Signed,
    instance: &Instance,
    (index, states): (&Index, &SealStates),
    check: &mut Check,
) -> Checkpoints {
    let mut good = Checkpoints::new();
    for listed in &index.checkpoints {
        let path = format!("data/{}", proofs::note_path("end", listed.partition));
        let origin = instance.partition_origin(listed.partition);
        let Some(note) = pack.text(&path) else {
            check.fail(&path, "is missing or not text");
            continue;
        };
        let checkpoint = match Checkpoint::open(note, &origin, &signed.checkpoint) {
            Ok(checkpoint) => checkpoint,
            Err(cause) => {
                check.fail(&path, cause.to_string());
                continue;
            }
        };
        if checkpoint.size != listed.size || hash(&listed.root) != Some(checkpoint.root) {
            check.fail(&path, "is not the checkpoint that the index names");
        }
        let proof_path = format!("data/{}", proofs::checkpoint_path(listed.partition));
        let sealed = pack
            .text(&proof_path)
            .ok_or_else(|| "is missing or not text".to_owned())
            .and_then(|text| Proof::read(text).map_err(|cause| cause.to_string()))
            .and_then(|proof| {
                let leaf = leaf_hash(note.as_bytes());
                let seal = proof.verify(&leaf, &instance.seal_origin(), &signed.checkpoint);
                Ok((proof.index, seal.map_err(|cause| cause.to_string())?))
            });
        match sealed {
            Err(cause) => check.fail(&proof_path, cause),
            Ok((at, _)) if at != listed.seal_index => {
                check.fail(&proof_path, "is not of the leaf that the index names")
            }
            Ok((_, seal)) if states.get(&seal.size) != Some(&seal.root) => {
                check.fail(&proof_path, "its seal tree is not shown to have grown to the one of the pack's signature");
            }
            Ok(_) => {}
        }
        from_start(pack, signed, &checkpoint, listed.partition, check);
        good.insert(listed.partition, checkpoint);
    }
    good
}

/// The checkpoint at the start of the period, if the pack has one.
fn from_start(pack: &Unpacked, signed: &Signed, end: &Checkpoint, partition: u32, check: &mut Check) {
    let path = format!("data/{}", proofs::note_path("start", partition));
    let Some(note) = pack.get(&path) else { return };
    let start = std::str::from_utf8(note)
        .map_err(|cause| cause.to_string())
        .and_then(|note| Checkpoint::open(note, &end.origin, &signed.checkpoint).map_err(|cause| cause.to_string()));
    let start = match start {
        Ok(start) => start,
        Err(cause) => return check.fail(path, cause),
    };
    let growth_path = format!("data/{}", proofs::growth_path(partition));
    let growth: Option<Growth> = pack.get(&growth_path).and_then(|bytes| serde_json::from_slice(bytes).ok());
    let held = growth.is_some_and(|growth| {
        growth.old_size == start.size && growth.new_size == end.size && grown(&growth) == Some((start.root, end.root))
    });
    if !held {
        check.fail(growth_path, "does not show that the log grew from the start checkpoint to the end one");
    }
}

/// Every record of the pack is in the log, and every cited one has its own proof.
fn record_proofs(
    pack: &Unpacked,
    signed: &Signed,
    instance: &Instance,
    (checkpoints, leaves): (&Checkpoints, &Leaves),
) -> Check {
    let mut check = Check::new("proofs");
    for (partition, checkpoint) in checkpoints {
        check.count();
        let path = format!("data/{}", proofs::set_path(*partition));
        let held: Vec<(u64, Hash)> = leaves
            .iter()
            .filter(|(position, _)| position.partition == *partition)
            .map(|(position, leaf)| (position.index, *leaf))
            .collect();
        if set_root(pack.get(&path), *partition, checkpoint, &held) != Some(checkpoint.root) {
            check.fail(path, format!("does not prove that the pack's records of partition {partition} are in the log"));
        }
    }
    for position in leaves.keys().filter(|position| !checkpoints.contains_key(&position.partition)) {
        check.fail(format!("record {position}"), "is of a partition without a checkpoint that held");
    }
    for (path, bytes) in pack.data().filter(|(path, _)| path.starts_with("40_proofs/records/")) {
        check.count();
        if let Err(cause) = record_proof(path, bytes, (signed, instance), checkpoints, leaves) {
            check.fail(format!("data/{path}"), cause);
        }
    }
    for (path, bytes) in pack.data().filter(|(path, _)| citations::is_citing(path)) {
        let found = match citations::of_table(path, bytes) {
            Ok(found) => found,
            Err(cause) => {
                check.fail(format!("data/{path}"), format!("{cause}"));
                continue;
            }
        };
        for citation in found {
            check.count();
            let proof = citation.event.map(|event| format!("data/{}", proofs::record_path(event.position)));
            if proof.is_none_or(|proof| pack.get(&proof).is_none()) {
                let subject = format!("data/{path} row {} column {}", citation.row, citation.column);
                check.fail(subject, format!("cites {:.60}, for which the pack has no proof", citation.text));
            }
        }
    }
    check
}

fn set_root(bytes: Option<&[u8]>, partition: u32, checkpoint: &Checkpoint, held: &[(u64, Hash)]) -> Option<Hash> {
    let set: SetProof = serde_json::from_slice(bytes?).ok()?;
    if set.partition != partition || set.size != checkpoint.size {
        return None;
    }
    let hashes = set.hashes.iter().map(|node| hash(node)).collect::<Option<Vec<Hash>>>()?;
    set_proof::root(set.size, held, &hashes)
}

fn record_proof(
    path: &str,
    bytes: &[u8],
    (signed, instance): (&Signed, &Instance),
    checkpoints: &Checkpoints,
    leaves: &Leaves,
) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text")?;
    let proof = Proof::read(text).map_err(|cause| cause.to_string())?;
    let position = proofs::record_of(path).filter(|position| position.index == proof.index);
    let position = position.ok_or("is of another record than its name says")?;
    let leaf = leaves.get(&position).ok_or("is of a record that the pack does not hold")?;
    let origin = instance.partition_origin(position.partition);
    let seen = proof.verify(leaf, &origin, &signed.checkpoint).map_err(|cause| cause.to_string())?;
    if checkpoints.get(&position.partition) != Some(&seen) {
        return Err("is against another checkpoint than the pack's".to_owned());
    }
    Ok(())
}

/// What the auditor kept is of one history with this pack.
fn earlier(
    pack: &Unpacked,
    previous: &Previous,
    (signed, instance): (&Signed, &Instance),
    (index, checkpoints, states): (&Index, &Checkpoints, &SealStates),
) -> Check {
    let mut check = Check::new("previous");
    check.count();
    match previous {
        Previous::Checkpoint(note) => {
            if let Err(cause) = kept(pack, note, (signed, instance), checkpoints, states) {
                check.fail("the checkpoint given", cause);
            }
        }
        Previous::Pack(earlier) => {
            let named = index.previous.as_ref();
            if named.is_none_or(|named| named.pack != earlier.name() || named.digest != earlier.digest()) {
                let named = named.map_or("none", |named| named.pack.as_str());
                check.fail("data/pack.json", format!("names {named} as the pack before, not {}", earlier.name()));
                return check;
            }
            let state = crate::verify::signature::seal_state_of(earlier);
            match state {
                Some((size, root)) if states.get(&size) == Some(&root) => {
                    check.say(format!("the seal tree of {size} leaves that {} saw only grew", earlier.name()));
                }
                _ => check.fail(
                    SEAL_CONSISTENCY,
                    format!("does not show that the seal tree grew from the one that {} saw", earlier.name()),
                ),
            }
        }
    }
    check
}

/// A deposited checkpoint, of a partition or of the seal tree.
fn kept(
    pack: &Unpacked,
    note: &str,
    (signed, instance): (&Signed, &Instance),
    checkpoints: &Checkpoints,
    states: &SealStates,
) -> Result<(), String> {
    let claimed = Checkpoint::read_unverified(note).map_err(|cause| cause.to_string())?;
    let kept = Checkpoint::open(note, &claimed.origin, &signed.checkpoint).map_err(|cause| cause.to_string())?;
    if kept.origin == instance.seal_origin() {
        return match states.get(&kept.size) {
            Some(root) if *root == kept.root => Ok(()),
            Some(_) => {
                Err("has another root than this pack's history at the same size: the log was rewritten".to_owned())
            }
            None => Err(format!("the pack holds no proof from {} leaves of the seal tree", kept.size)),
        };
    }
    let (partition, end) = checkpoints
        .iter()
        .find(|(_, end)| end.origin == kept.origin)
        .ok_or_else(|| format!("is of {:?}, which the pack has no checkpoint of", kept.origin))?;
    let start = pack
        .text(&format!("data/{}", proofs::note_path("start", *partition)))
        .and_then(|note| Checkpoint::open(note, &kept.origin, &signed.checkpoint).ok());
    match [Some(end.clone()), start].into_iter().flatten().find(|own| own.size == kept.size) {
        Some(own) if own.root == kept.root => Ok(()),
        Some(_) => Err("has another root than this pack's history at the same size: the log was rewritten".to_owned()),
        None => Err(format!("the pack holds no proof from {} leaves of partition {partition}", kept.size)),
    }
}
