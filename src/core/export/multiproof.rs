//! One Merkle proof for many entries: RFC 6962 subtree hashes in the order in which a reader asks for them.

use crate::{core::lineage::tree::node_hash, types::Sha256Digest};

/// Hashes one proof may have per entry: a tree of 2^64 leaves has 64 levels.
pub const HASHES_PER_ENTRY_MAX: usize = 64;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProofError {
    #[error("there are no entries to prove")]
    Empty,
    #[error("the indexes do not ascend: {next} comes after {before}")]
    Order { before: u64, next: u64 },
    #[error("index {index} is not below the tree's size {size}")]
    Beyond { index: u64, size: u64 },
    #[error("the proof ends too early")]
    Short,
    #[error("the proof has {0} hashes more than it needs")]
    Long(usize),
    #[error("the inclusion proof of index {index} in a tree of {size} has {found} hashes")]
    Inclusion { index: u64, size: u64, found: usize },
}

/// A leaf with its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub index: u64,
    pub hash: Sha256Digest,
}

/// Where RFC 6962 splits a tree of `size` > 1 leaves: the largest power of two below it.
fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

fn check(indexes: impl Iterator<Item = u64>, size: u64) -> Result<(), ProofError> {
    let mut before = None;
    for index in indexes {
        if index >= size {
            return Err(ProofError::Beyond { index, size });
        }
        if let Some(before) = before.filter(|before| *before >= index) {
            return Err(ProofError::Order { before, next: index });
        }
        before = Some(index);
    }
    before.map(|_| ()).ok_or(ProofError::Empty)
}

/// Gathers the proof of `indexes` in a tree of `size` out of single inclusion proofs. Asks `inclusion` only for
/// entries that border on a gap of the selection, each at most once in a row.
///
/// # Errors
/// What `inclusion` reports, and [`ProofError`] for a selection or a proof that does not fit the tree.
pub fn build<E: From<ProofError>>(
    indexes: &[u64],
    size: u64,
    mut inclusion: impl FnMut(u64) -> Result<Vec<Sha256Digest>, E>,
) -> Result<Vec<Sha256Digest>, E> {
    check(indexes.iter().copied(), size)?;
    let mut wanted = Vec::new();
    collect(indexes, 0, size, 0, &mut wanted);
    let mut last: Option<(u64, Vec<Sha256Digest>)> = None;
    let mut proof = Vec::with_capacity(wanted.len());
    for Wanted { neighbour, depth } in wanted {
        if last.as_ref().is_none_or(|(index, _)| *index != neighbour) {
            last = Some((neighbour, inclusion(neighbour)?));
        }
        let (_, path) = last.as_ref().expect("set just above");
        // An inclusion proof runs from the leaf's sibling to the root's child; depth counts from the root.
        let wrong = ProofError::Inclusion { index: neighbour, size, found: path.len() };
        let at = path.len().checked_sub(depth + 1).ok_or(wrong)?;
        proof.push(path[at]);
    }
    Ok(proof)
}

/// A subtree without selected entries: the sibling, at `depth` splits below the root, of one that holds `neighbour`.
struct Wanted {
    neighbour: u64,
    depth: usize,
}

fn collect(indexes: &[u64], start: u64, end: u64, depth: usize, wanted: &mut Vec<Wanted>) {
    if end - start == 1 {
        return;
    }
    let middle = start + split(end - start);
    let (left, right) = indexes.split_at(indexes.partition_point(|index| *index < middle));
    match (left.last(), right.first()) {
        (None, Some(neighbour)) => wanted.push(Wanted { neighbour: *neighbour, depth }),
        (Some(_), _) => collect(left, start, middle, depth + 1, wanted),
        (None, None) => unreachable!("a subtree without selected entries is not entered"),
    }
    match (left.last(), right.first()) {
        (Some(neighbour), None) => wanted.push(Wanted { neighbour: *neighbour, depth }),
        _ => collect(right, middle, end, depth + 1, wanted),
    }
}

/// The root that `leaves` and `proof` lead to in a tree of `size`.
///
/// # Errors
/// [`ProofError`] when leaves or proof do not fit the tree.
pub fn root(leaves: &[Leaf], size: u64, proof: &[Sha256Digest]) -> Result<Sha256Digest, ProofError> {
    check(leaves.iter().map(|leaf| leaf.index), size)?;
    let mut hashes = proof.iter();
    let root = subtree(leaves, 0, size, &mut hashes)?;
    if hashes.as_slice().is_empty() { Ok(root) } else { Err(ProofError::Long(hashes.as_slice().len())) }
}

fn subtree(
    leaves: &[Leaf],
    start: u64,
    end: u64,
    hashes: &mut std::slice::Iter<'_, Sha256Digest>,
) -> Result<Sha256Digest, ProofError> {
    match leaves {
        [] => hashes.next().copied().ok_or(ProofError::Short),
        [leaf] if end - start == 1 => Ok(leaf.hash),
        _ => {
            let middle = start + split(end - start);
            let (left, right) = leaves.split_at(leaves.partition_point(|leaf| leaf.index < middle));
            let left = subtree(left, start, middle, hashes)?;
            let right = subtree(right, middle, end, hashes)?;
            Ok(node_hash(&left, &right))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lineage::tree::leaf_hash;

    fn leaf(index: u64) -> Leaf {
        Leaf { index, hash: leaf_hash(&index.to_le_bytes()) }
    }

    fn tree(start: u64, end: u64) -> Sha256Digest {
        if end - start == 1 {
            return leaf(start).hash;
        }
        let middle = start + split(end - start);
        node_hash(&tree(start, middle), &tree(middle, end))
    }

    /// RFC 6962's PATH, as it stands in section 2.1.1.
    fn path(index: u64, start: u64, end: u64) -> Vec<Sha256Digest> {
        if end - start == 1 {
            return Vec::new();
        }
        let middle = start + split(end - start);
        let (mut path, sibling) = if index < middle {
            (path(index, start, middle), tree(middle, end))
        } else {
            (path(index, middle, end), tree(start, middle))
        };
        path.push(sibling);
        path
    }

    #[test]
    fn every_selection_of_small_trees_is_proven_by_the_hashes_it_needs() {
        for size in 1..=9_u64 {
            for selection in 1..1_u64 << size {
                let indexes: Vec<u64> = (0..size).filter(|index| selection >> index & 1 == 1).collect();
                let leaves: Vec<Leaf> = indexes.iter().copied().map(leaf).collect();
                let proof = build::<ProofError>(&indexes, size, |index| Ok(path(index, 0, size))).unwrap();
                assert_eq!(root(&leaves, size, &proof), Ok(tree(0, size)), "{indexes:?} of {size}");
                assert!(root(&leaves, size, &[&proof[..], &[tree(0, 1)]].concat()).is_err());
                if let Some((_, short)) = proof.split_last() {
                    assert_eq!(root(&leaves, size, short), Err(ProofError::Short));
                }
            }
        }
    }

    #[test]
    fn one_entry_needs_its_inclusion_proof_and_a_long_run_little_more() {
        let mut asked = 0;
        let run: Vec<u64> = (300..900).collect();
        let proof = build::<ProofError>(&run, 1000, |index| {
            asked += 1;
            Ok(path(index, 0, 1000))
        })
        .unwrap();
        assert!(proof.len() <= 20 && asked <= proof.len(), "{} hashes, {asked} paths", proof.len());
        let one = build::<ProofError>(&[77], 1000, |index| Ok(path(index, 0, 1000))).unwrap();
        assert_eq!(one.len(), path(77, 0, 1000).len());
    }

    #[test]
    fn an_altered_moved_or_foreign_leaf_gives_another_root() {
        let indexes = [3, 4, 9];
        let proof = build::<ProofError>(&indexes, 12, |index| Ok(path(index, 0, 12))).unwrap();
        let mut leaves: Vec<Leaf> = indexes.map(leaf).into();
        leaves[1].hash.0[5] ^= 1;
        assert_ne!(root(&leaves, 12, &proof), Ok(tree(0, 12)));
        let moved = [Leaf { index: 2, ..leaf(3) }, leaf(4), leaf(9)];
        assert_ne!(root(&moved, 12, &proof), Ok(tree(0, 12)));
        assert_eq!(root(&[leaf(4), leaf(3)], 12, &proof), Err(ProofError::Order { before: 4, next: 3 }));
        assert_eq!(root(&[leaf(12)], 12, &proof), Err(ProofError::Beyond { index: 12, size: 12 }));
        assert_eq!(root(&[], 12, &proof), Err(ProofError::Empty));
    }
}
