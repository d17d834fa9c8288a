//! Merkle trees of RFC 6962 §2.1 (RFC 9162 §2.1): append, root, inclusion and consistency proofs, and their checks.
//!
//! Roots and proofs are answered by whatever knows the roots of complete subtrees ([`Nodes`]). [`Tree`] keeps all of them in memory, 64
//! bytes a leaf; only leaf hashes need to be stored, the levels are rebuilt from them.

use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Hash of a leaf: SHA-256 over `0x00 ‖ data`.
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Hash {
    Sha256::new_with_prefix([0]).chain_update(data).finalize().into()
}

/// Hash of an inner node: SHA-256 over `0x01 ‖ left ‖ right`.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Hash of the empty tree: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Roots of complete subtrees, which is what roots and proofs of any size are made of.
pub trait Nodes {
    /// Number of leaves.
    fn size(&self) -> u64;

    /// Root of the 2^`level` leaves from `at` · 2^`level` on: for level 0 a leaf hash. `None` when they are not all there.
    fn node(&self, level: u32, at: u64) -> Option<Hash>;

    /// The hash of leaf `index`.
    fn leaf(&self, index: u64) -> Option<Hash> {
        self.node(0, index)
    }

    /// Root over the first `size` leaves; `None` when there are fewer.
    fn root(&self, size: u64) -> Option<Hash> {
        if size > self.size() {
            return None;
        }
        if size == 0 { Some(empty_root()) } else { subtree(self, 0, size) }
    }

    /// Audit path of leaf `index` in the tree of the first `size` leaves (RFC 6962 §2.1.1).
    fn inclusion_proof(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if index >= size || size > self.size() {
            return None;
        }
        let (mut start, mut end) = (0, size);
        let mut path = Vec::new();
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                path.push(subtree(self, middle, end)?);
                end = middle;
            } else {
                path.push(subtree(self, start, middle)?);
                start = middle;
            }
        }
        path.reverse();
        Some(path)
    }

    /// Proof that the tree of `old` leaves is a prefix of the tree of `new` leaves (RFC 6962 §2.1.2).
    fn consistency_proof(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        if old > new || new > self.size() {
            return None;
        }
        if old == 0 || old == new {
            return Some(Vec::new());
        }
        let (mut start, mut end) = (0, new);
        let mut whole = true;
        let mut proof = Vec::new();
        while old != end {
            let middle = start + split(end - start);
            if old <= middle {
                proof.push(subtree(self, middle, end)?);
                end = middle;
            } else {
                proof.push(subtree(self, start, middle)?);
                start = middle;
                whole = false;
            }
        }
        if !whole {
            proof.push(subtree(self, start, end)?);
        }
        proof.reverse();
        Some(proof)
    }
}

/// Root of the leaves `start..end`, where `start` is where RFC 6962's recursion would cut.
fn subtree<N: Nodes + ?Sized>(nodes: &N, start: u64, end: u64) -> Option<Hash> {
    let len = end - start;
    if len.is_power_of_two() {
        let level = len.trailing_zeros();
        return nodes.node(level, start >> level);
    }
    let middle = start + split(len);
    Some(node_hash(&subtree(nodes, start, middle)?, &subtree(nodes, middle, end)?))
}

/// An append-only tree, whole in memory.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// `levels[0]` holds leaf hashes; `levels[n]` the roots of complete subtrees of 2^n leaves.
    levels: Vec<Vec<Hash>>,
}

impl Nodes for Tree {
    fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    fn node(&self, level: u32, at: u64) -> Option<Hash> {
        self.levels.get(usize::try_from(level).ok()?)?.get(usize::try_from(at).ok()?).copied()
    }
}

impl Tree {
    /// An empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self { levels: Vec::new() }
    }

    /// Adds a leaf by its hash and returns its index.
    pub fn push(&mut self, leaf: Hash) -> u64 {
        let index = self.size();
        let mut hash = leaf;
        let mut level = 0;
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let Some(nodes) = self.levels.get_mut(level) else { return index };
            nodes.push(hash);
            let len = nodes.len();
            if len % 2 == 1 {
                return index;
            }
            if let [.., left, right] = nodes.as_slice() {
                hash = node_hash(left, right);
            }
            level += 1;
        }
    }
}

impl Extend<Hash> for Tree {
    fn extend<I: IntoIterator<Item = Hash>>(&mut self, leaves: I) {
        for leaf in leaves {
            self.push(leaf);
        }
    }
}

/// The largest power of two below `len`, for `len` of at least 2.
const fn split(len: u64) -> u64 {
    1 << (63 - (len - 1).leading_zeros())
}

/// Whether `path` proves that `leaf` stands at `index` in the tree of `size` leaves with that `root` (RFC 9162 §2.1.3.2).
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node % 2 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows the tree of `old` leaves to be a prefix of the tree of `new` leaves (RFC 9162 §2.1.4.2).
#[must_use]
pub fn verify_consistency(old: u64, new: u64, old_root: &Hash, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let (first, rest) = if old.is_power_of_two() {
        (*old_root, proof)
    } else {
        let Some((first, rest)) = proof.split_first() else { return false };
        (*first, rest)
    };
    let (mut node, mut last) = (old - 1, new - 1);
    while node % 2 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node % 2 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962 §2.1 as it is written there: the oracle.
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(usize::try_from(split(leaves.len() as u64)).unwrap());
                node_hash(&mth(left), &mth(right))
            }
        }
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    #[test]
    fn roots_and_all_proofs_agree_with_the_rfc() {
        let all = leaves(70);
        let mut tree = Tree::new();
        for leaf in &all {
            tree.push(*leaf);
        }
        for size in 0..=70_u64 {
            let root = mth(&all[..usize::try_from(size).unwrap()]);
            assert_eq!(tree.root(size), Some(root));
            for index in 0..size {
                let path = tree.inclusion_proof(index, size).unwrap();
                let leaf = all[usize::try_from(index).unwrap()];
                assert!(verify_inclusion(&leaf, index, size, &path, &root), "{index} of {size}");
                assert!(!verify_inclusion(&leaf, index ^ 1, size, &path, &root) || size == 1);
                let mut bent = path.clone();
                if let Some(first) = bent.first_mut() {
                    first[0] ^= 1;
                    assert!(!verify_inclusion(&leaf, index, size, &bent, &root));
                }
            }
            for old in 0..=size {
                let proof = tree.consistency_proof(old, size).unwrap();
                let old_root = tree.root(old).unwrap();
                assert!(verify_consistency(old, size, &old_root, &root, &proof), "{old} in {size}");
                if old > 0 && old < size {
                    assert!(!verify_consistency(old, size, &leaf_hash(b"other"), &root, &proof));
                }
            }
        }
        assert_eq!(tree.root(71), None);
    }

    #[test]
    fn known_roots() {
        // The certificate-transparency reference implementation's vectors.
        assert_eq!(hex::encode(empty_root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex::encode(leaf_hash(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    }
}
