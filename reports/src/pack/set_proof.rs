//! One proof for many leaves of one tree: all hashes that are needed to reach the root from them, and no more.
//!
//! The tree is cut as RFC 6962 §2.1 cuts it, left before right. A subtree without a proven leaf contributes its hash; a
//! proven leaf contributes its own; anything else is cut again. The `.tlog-proof` files prove single records to public
//! tools; this proves every record in the pack in one pass.

use std::collections::BTreeMap;

use pipeproof_engine::merkle::{Hash, Nodes, node_hash};

/// The hashes that lead from the leaves at `indices` (ascending, none twice) to the root of the first `size` leaves; `None`
/// if the tree does not have them.
pub(crate) fn prove(tree: &dyn Nodes, size: u64, indices: &[u64]) -> Option<Vec<Hash>> {
    // Every subtree without a proven leaf is the sibling of one on the path of some proven leaf.
    let mut siblings = BTreeMap::new();
    for &index in indices {
        let mut path = tree.inclusion_proof(index, size)?.into_iter().rev();
        let (mut start, mut end) = (0, size);
        while end - start > 1 {
            let middle = start + split(end - start);
            let hash = path.next()?;
            if index < middle {
                siblings.insert((middle, end), hash);
                end = middle;
            } else {
                siblings.insert((start, middle), hash);
                start = middle;
            }
        }
    }
    if indices.is_empty() {
        return Some(tree.root(size).into_iter().collect());
    }
    let mut hashes = Vec::new();
    collect((0, size), indices, &siblings, &mut hashes)?;
    Some(hashes)
}

fn collect(
    (start, end): (u64, u64),
    indices: &[u64],
    siblings: &BTreeMap<(u64, u64), Hash>,
    hashes: &mut Vec<Hash>,
) -> Option<()> {
    if indices.is_empty() {
        hashes.push(*siblings.get(&(start, end))?);
        return Some(());
    }
    if end - start == 1 {
        return Some(());
    }
    let middle = start + split(end - start);
    let (left, right) = indices.split_at(indices.partition_point(|index| *index < middle));
    collect((start, middle), left, siblings, hashes)?;
    collect((middle, end), right, siblings, hashes)
}

/// The root that the leaves and the hashes lead to; `None` if there are too few or too many hashes, or leaves beyond the tree.
pub(crate) fn root(size: u64, leaves: &[(u64, Hash)], hashes: &[Hash]) -> Option<Hash> {
    if size == 0 || leaves.last().is_some_and(|(index, _)| *index >= size) {
        return None;
    }
    if !leaves.is_sorted_by(|one, next| one.0 < next.0) {
        return None;
    }
    let mut hashes = hashes.iter();
    let root = fold((0, size), leaves, &mut hashes)?;
    hashes.next().is_none().then_some(root)
}

fn fold((start, end): (u64, u64), leaves: &[(u64, Hash)], hashes: &mut std::slice::Iter<'_, Hash>) -> Option<Hash> {
    if leaves.is_empty() {
        return hashes.next().copied();
    }
    if end - start == 1 {
        return leaves.first().map(|(_, hash)| *hash);
    }
    let middle = start + split(end - start);
    let (left, right) = leaves.split_at(leaves.partition_point(|(index, _)| *index < middle));
    let left = fold((start, middle), left, hashes)?;
    let right = fold((middle, end), right, hashes)?;
    Some(node_hash(&left, &right))
}

/// The largest power of two below `len`, for `len` of at least 2.
const fn split(len: u64) -> u64 {
    1 << (63 - (len - 1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeproof_engine::merkle::{Tree, leaf_hash};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_set_of_leaves_leads_to_the_root(size in 1_u64..200, picks in prop::collection::btree_set(0_u64..200, 0..40), bend in 0_usize..1000) {
            let mut tree = Tree::new();
            for leaf in 0..size {
                tree.push(leaf_hash(&leaf.to_be_bytes()));
            }
            let indices: Vec<u64> = picks.into_iter().filter(|index| *index < size).collect();
            let leaves: Vec<(u64, Hash)> = indices.iter().map(|index| (*index, tree.leaf(*index).unwrap())).collect();
            let hashes = prove(&tree, size, &indices).unwrap();
            let expected = tree.root(size);
            prop_assert_eq!(root(size, &leaves, &hashes), expected);
            if !leaves.is_empty() {
                let mut bent = leaves.clone();
                let at = bend % bent.len();
                bent[at].1[0] ^= 1;
                prop_assert_ne!(root(size, &bent, &hashes), expected);
                let mut moved = leaves.clone();
                moved[at].0 = size;
                prop_assert_ne!(root(size, &moved, &hashes), expected);
            }
            let mut more = hashes.clone();
            more.push([0; 32]);
            prop_assert_eq!(root(size, &leaves, &more), None);
            if !hashes.is_empty() {
                prop_assert_eq!(root(size, &leaves, &hashes[1..]), None);
            }
        }
    }
}
