//! The tree over the log's leaves, of which memory holds what is above blocks of 1,024 leaves: 64 bytes a block. Leaf hashes are read
//! from their side file when somebody asks for what is below, and are believed if the root of their block comes out.
//!
//! The roots of whole blocks are kept in a side file of their own, in the form of leaf hashes, so that opening does not read the hashes
//! of everything that ever was. The file is a copy: what it lacks is computed, and that what it has is right a sealed root says.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use engine::merkle::{Hash, Nodes, Tree};
use pipeproof_engine as engine;

use super::disk::Disk;
use super::hashes::{self, Kept};

/// Name of the file of block roots.
pub(crate) const FILE: &str = "blocks";
/// Level of the tree on which a block is one node. In unit tests a few records are to make many blocks.
pub(crate) const LEVEL: u32 = if cfg!(test) { 2 } else { 10 };
/// Leaves of a block.
pub(crate) const BLOCK: u64 = 1 << LEVEL;

/// Blocks whose leaves stay in memory once they were read: a proof asks for that of its leaf and for that in which the tree ends.
const BLOCKS_READ: usize = 4;

/// What of the log's tree is in memory.
#[derive(Debug)]
pub(crate) struct LogTree {
    /// Roots of whole blocks: the levels of the tree from [`LEVEL`] on.
    blocks: Tree,
    /// Leaves behind the last whole block.
    open: Tree,
}

/// Where a node is found.
pub(crate) enum Found {
    /// In memory, if it is there at all.
    Here(Option<Hash>),
    /// Below a whole block.
    Below(Below),
}

/// A node below a whole block.
pub(crate) struct Below {
    number: u64,
    root: Hash,
    level: u32,
    within: u64,
}

impl LogTree {
    /// A tree of whole blocks alone.
    pub(crate) const fn new(blocks: Tree) -> Self {
        Self { blocks, open: Tree::new() }
    }

    /// Number of leaves.
    pub(crate) fn size(&self) -> u64 {
        self.blocks.size() * BLOCK + self.open.size()
    }

    /// Adds a leaf. Returns the number and the root of the block that it makes whole.
    pub(crate) fn push(&mut self, leaf: Hash) -> Option<(u64, Hash)> {
        self.open.push(leaf);
        if self.open.size() < BLOCK {
            return None;
        }
        let root = self.open.root(BLOCK)?;
        self.open = Tree::new();
        Some((self.blocks.push(root), root))
    }

    /// Root of a whole block.
    pub(crate) fn block(&self, number: u64) -> Option<Hash> {
        self.blocks.leaf(number)
    }

    /// The node, as [`Nodes::node`], or where it is read.
    pub(crate) fn find(&self, level: u32, at: u64) -> Found {
        let Some(below) = LEVEL.checked_sub(level).filter(|below| *below > 0) else {
            return Found::Here(self.blocks.node(level - LEVEL, at));
        };
        let number = at >> below;
        let within = at - (number << below);
        match self.block(number) {
            Some(root) => Found::Below(Below { number, root, level, within }),
            None if number == self.blocks.size() => Found::Here(self.open.node(level, within)),
            None => Found::Here(None),
        }
    }
}

/// Leaves of whole blocks, from the side file. Nobody holds the tree while it is read.
#[derive(Debug)]
pub(crate) struct BlockLeaves {
    disk: Arc<dyn Disk>,
    /// The blocks that were asked for last, latest first; without a tree those that are damaged.
    last: Mutex<VecDeque<(u64, Option<Tree>)>>,
}

impl BlockLeaves {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, last: Mutex::default() }
    }

    /// A node below a block, if the leaves there give the block's root.
    pub(crate) fn node(&self, asked: &Below) -> Option<Hash> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match last.iter().position(|(read, _)| *read == asked.number) {
            Some(at) => last.remove(at)?,
            None => match self.read(asked) {
                Ok(read) => (asked.number, read),
                // It may be read the next time.
                Err(error) => {
                    tracing::warn!(%error, "cannot read leaf hashes of the log");
                    return None;
                }
            },
        };
        last.truncate(BLOCKS_READ - 1);
        last.push_front(read);
        last.front()?.1.as_ref()?.node(asked.level, asked.within)
    }

    /// Forgets what was read: the side file was mended.
    pub(crate) fn forget_last(&self) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The leaves of a block, or `None` if they are damaged.
    fn read(&self, asked: &Below) -> io::Result<Option<Tree>> {
        let (from, to) = (asked.number * BLOCK, (asked.number + 1) * BLOCK);
        let file = self.disk.open(hashes::FILE, false)?;
        let kept = Kept::from_file(file.as_ref(), from, to)?;
        let read = leaves_of(&kept, asked.number, &BTreeMap::new()).0.ok().and_then(|leaves| {
            let mut tree = Tree::new();
            tree.extend(leaves);
            (tree.root(BLOCK) == Some(asked.root)).then_some(tree)
        });
        if read.is_none() {
            tracing::error!(from, to, "leaf hashes of the log are damaged; nothing that rests on them is proved");
        }
        Ok(read)
    }
}

/// A tree that nobody else has yet, with its leaves.
pub(crate) struct Opened<'o>(pub(crate) &'o LogTree, pub(crate) &'o BlockLeaves);

impl Nodes for Opened<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn node(&self, level: u32, at: u64) -> Option<Hash> {
        match self.0.find(level, at) {
            Found::Here(node) => node,
            Found::Below(below) => self.1.node(&below),
        }
    }
}

/// What reading the leaf hashes of a block again found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashesChecked {
    /// They are those the tree was made of.
    Whole,
    /// So many were damaged and are written again.
    Mended(u64),
    /// These records' hashes are needed from elsewhere: their entries are damaged or, if it is a whole block, somebody wrote one.
    Lost(Vec<u64>),
}

/// Reads the leaf hashes of a whole block, of which `root` is the root, and mends what is damaged with what is `known` from elsewhere.
pub(crate) fn check(
    disk: &dyn Disk,
    number: u64,
    root: Hash,
    known: &BTreeMap<u64, Hash>,
) -> io::Result<HashesChecked> {
    let mut file = disk.open(hashes::FILE, true)?;
    let kept = Kept::from_file(file.as_ref(), number * BLOCK, (number + 1) * BLOCK)?;
    let (leaves, damaged) = leaves_of(&kept, number, known);
    let leaves = match leaves {
        Ok(leaves) => leaves,
        Err(lost) => return Ok(HashesChecked::Lost(lost)),
    };
    let mut tree = Tree::new();
    tree.extend(leaves.iter().copied());
    if tree.root(BLOCK) != Some(root) {
        return Ok(HashesChecked::Lost((number * BLOCK..(number + 1) * BLOCK).collect()));
    }
    if damaged == 0 {
        return Ok(HashesChecked::Whole);
    }
    let mut entries = Vec::new();
    leaves.iter().for_each(|hash| hashes::write(&mut entries, hash));
    file.write_at(hashes::offset(number * BLOCK), &entries)?;
    file.sync()?;
    Ok(HashesChecked::Mended(damaged))
}

/// The leaf hashes of a block, or the records whose hashes nobody has; and how many entries do not say what they should.
fn leaves_of(kept: &Kept, number: u64, known: &BTreeMap<u64, Hash>) -> (Result<Vec<Hash>, Vec<u64>>, u64) {
    let (mut leaves, mut lost, mut damaged) = (Vec::new(), Vec::new(), 0);
    for index in number * BLOCK..(number + 1) * BLOCK {
        let stored = kept.get(index);
        let hash = known.get(&index).copied().or(stored).or_else(|| kept.mended(index));
        damaged += u64::from(hash != stored || stored.is_none());
        match hash {
            Some(hash) => leaves.push(hash),
            None => lost.push(index),
        }
    }
    (if lost.is_empty() { Ok(leaves) } else { Err(lost) }, damaged)
}

/// The roots of the first blocks, up to `count` and as far as the file has them undamaged.
pub(crate) fn kept_blocks(bytes: &[u8], count: u64) -> Tree {
    let mut blocks = Tree::new();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    blocks.extend(hashes::read(bytes).into_iter().take(count).map_while(|root| root));
    blocks
}
