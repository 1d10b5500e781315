//! The Merkle tree of RFC 6962 section 2.1: hashes, roots, and proofs that an entry is in the log or that the log
//! only grew.
//!
//! Making proofs asks a [`HashReader`] for hashes of complete subtrees; checking them needs nothing but the proof.

use sha2::{Digest as _, Sha256};

use crate::types::Sha256Digest;

/// Most hashes in an inclusion or a consistency proof: a tree of 2^64 leaves has 64 levels, and a consistency proof
/// adds the hash it starts from.
pub const PROOF_HASHES_MAX: usize = 65;

/// The root of the tree without entries: SHA-256 of nothing (RFC 6962 section 2.1).
pub const EMPTY_ROOT: Sha256Digest = Sha256Digest([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// Why a proof does not prove what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("entry {index} is not in a log of {size} entries")]
    NoSuchEntry { index: u64, size: u64 },
    #[error("a log of {old} entries cannot have grown to {new}")]
    Shrunk { old: u64, new: u64 },
    #[error("the proof has {found} hashes, which is not the number a proof for this place in the log has")]
    Length { found: usize },
    #[error("the proof leads to the root {found}, the checkpoint says {expected}: the entry or the proof was changed")]
    Root { found: Sha256Digest, expected: Sha256Digest },
    #[error(
        "the proof leads to the earlier root {found}, the earlier checkpoint says {expected}: the log was rewritten"
    )]
    OldRoot { found: Sha256Digest, expected: Sha256Digest },
}

/// The hash of an entry: SHA-256 of a zero byte and the entry's bytes.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Sha256Digest {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(entry);
    Sha256Digest(hasher.finalize().into())
}

/// The hash above two others: SHA-256 of a one byte and both.
#[must_use]
pub fn node_hash(left: &Sha256Digest, right: &Sha256Digest) -> Sha256Digest {
    let mut bytes = [0; 65];
    bytes[0] = 1;
    bytes[1..33].copy_from_slice(&left.0);
    bytes[33..].copy_from_slice(&right.0);
    Sha256Digest(Sha256::digest(bytes).into())
}

/// Knows the hashes of complete subtrees.
pub trait HashReader {
    type Error;

    /// The hash over the `2^level` leaves that begin at leaf `index * 2^level`; asked only for subtrees that lie
    /// wholly in the tree.
    ///
    /// # Errors
    /// Whatever keeps the reader from answering.
    fn hash(&self, level: u32, index: u64) -> Result<Sha256Digest, Self::Error>;
}

/// The root of the tree over the first `size` leaves.
///
/// # Errors
/// The reader's.
pub fn root<R: HashReader + ?Sized>(size: u64, reader: &R) -> Result<Sha256Digest, R::Error> {
    if size == 0 { Ok(EMPTY_ROOT) } else { subtree(0, size, reader) }
}

/// The proof that leaf `index` is in the tree of `size` leaves, its sibling first (RFC 6962 section 2.1.1).
///
/// # Panics
/// When `index` is not below `size`: the caller checks what was asked.
///
/// # Errors
/// The reader's.
pub fn inclusion_proof<R: HashReader + ?Sized>(
    index: u64,
    size: u64,
    reader: &R,
) -> Result<Vec<Sha256Digest>, R::Error> {
    assert!(index < size, "leaf {index} is in the tree of {size}");
    // From the root down, each step leaves a sibling behind; the proof lists them from the leaf up.
    let (mut lo, mut hi) = (0, size);
    let mut proof = Vec::new();
    while hi - lo > 1 {
        let middle = lo + split(hi - lo);
        if index < middle {
            proof.push(subtree(middle, hi, reader)?);
            hi = middle;
        } else {
            proof.push(subtree(lo, middle, reader)?);
            lo = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `old` leaves is a prefix of the tree of `new` leaves (RFC 6962 section 2.1.2).
///
/// # Panics
/// Unless `0 < old <= new`: the caller checks what was asked.
///
/// # Errors
/// The reader's.
pub fn consistency_proof<R: HashReader + ?Sized>(
    old: u64,
    new: u64,
    reader: &R,
) -> Result<Vec<Sha256Digest>, R::Error> {
    assert!(0 < old && old <= new, "a tree of {old} leaves is a prefix of one of {new}");
    let (mut lo, mut hi) = (0, new);
    let mut proof = Vec::new();
    // `old` stays within lo..=hi; the walk ends at the subtree that the old tree ends with.
    while old < hi {
        let middle = lo + split(hi - lo);
        if old <= middle {
            proof.push(subtree(middle, hi, reader)?);
            hi = middle;
        } else {
            proof.push(subtree(lo, middle, reader)?);
            lo = middle;
        }
    }
    // Whoever checks knows the old root already: when the walk ended at it, it is not repeated.
    if lo != 0 {
        proof.push(subtree(lo, hi, reader)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that `leaf` is leaf number `index` of the tree with `size` leaves and this root (RFC 9162 section 2.1.3.2).
///
/// # Errors
/// [`ProofError`] says what does not fit.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: &Sha256Digest,
    proof: &[Sha256Digest],
    root: &Sha256Digest,
) -> Result<(), ProofError> {
    let found = root_by_inclusion(index, size, leaf, proof)?;
    if found == *root { Ok(()) } else { Err(ProofError::Root { found, expected: *root }) }
}

/// The root that an inclusion proof leads to, for whoever has a signature over it instead of the root itself.
///
/// # Errors
/// [`ProofError`] when the proof is not as long as one of this leaf in a tree of this size.
pub fn root_by_inclusion(
    index: u64,
    size: u64,
    leaf: &Sha256Digest,
    proof: &[Sha256Digest],
) -> Result<Sha256Digest, ProofError> {
    if index >= size {
        return Err(ProofError::NoSuchEntry { index, size });
    }
    let (mut place, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length { found: proof.len() });
        }
        if place & 1 == 1 || place == last {
            hash = node_hash(sibling, &hash);
            skip_missing_siblings(&mut place, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        (place, last) = (place >> 1, last >> 1);
    }
    if last != 0 {
        return Err(ProofError::Length { found: proof.len() });
    }
    Ok(hash)
}

/// Checks that the tree of `old` leaves is a prefix of the tree of `new` leaves (RFC 9162 section 2.1.4.2).
///
/// # Errors
/// [`ProofError`] says what does not fit.
pub fn verify_consistency(
    old: u64,
    old_root: &Sha256Digest,
    new: u64,
    new_root: &Sha256Digest,
    proof: &[Sha256Digest],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Shrunk { old, new });
    }
    let length = ProofError::Length { found: proof.len() };
    if old == new || old == 0 {
        let start = if old == 0 { &EMPTY_ROOT } else { new_root };
        if old_root != start {
            return Err(ProofError::OldRoot { found: *start, expected: *old_root });
        }
        return if proof.is_empty() { Ok(()) } else { Err(length) };
    }
    let (mut place, mut last) = (old - 1, new - 1);
    let shift = place.trailing_ones();
    (place, last) = (place >> shift, last >> shift);
    // An old tree that is one complete subtree is where the proof starts, so its root is not in it.
    let (start, rest) =
        if place == 0 { (old_root, proof) } else { proof.split_first().ok_or_else(|| length.clone())? };
    let (mut old_hash, mut new_hash) = (*start, *start);
    for sibling in rest {
        if last == 0 {
            return Err(length);
        }
        if place & 1 == 1 || place == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            skip_missing_siblings(&mut place, &mut last);
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (place, last) = (place >> 1, last >> 1);
    }
    if last != 0 {
        return Err(length);
    }
    if old_hash != *old_root {
        return Err(ProofError::OldRoot { found: old_hash, expected: *old_root });
    }
    if new_hash == *new_root { Ok(()) } else { Err(ProofError::Root { found: new_hash, expected: *new_root }) }
}

/// On the right edge a node without a sibling moves up unchanged.
fn skip_missing_siblings(place: &mut u64, last: &mut u64) {
    while *place & 1 == 0 && *place != 0 {
        (*place, *last) = (*place >> 1, *last >> 1);
    }
}

/// How many leaves the left part of a tree of `leaves > 1` has: the largest power of two below.
fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// The hash over leaves `lo..hi`, where `lo` is a multiple of the largest power of two that fits.
fn subtree<R: HashReader + ?Sized>(lo: u64, hi: u64, reader: &R) -> Result<Sha256Digest, R::Error> {
    let leaves = hi - lo;
    if leaves.is_power_of_two() {
        let level = leaves.ilog2();
        return reader.hash(level, lo >> level);
    }
    let middle = lo + split(leaves);
    Ok(node_hash(&subtree(lo, middle, reader)?, &subtree(middle, hi, reader)?))
}

/// A tree that only grows, of which only the right edge is kept: 64 hashes for any number of leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Hashes of the complete subtrees the tree consists of, largest first: one per set bit of `size`.
    peaks: Vec<Sha256Digest>,
}

impl Frontier {
    /// The right edge of the first `size` leaves.
    ///
    /// # Errors
    /// The reader's.
    pub fn read<R: HashReader + ?Sized>(size: u64, reader: &R) -> Result<Self, R::Error> {
        let mut peaks = Vec::new();
        let mut start = 0;
        for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
            peaks.push(reader.hash(level, start >> level)?);
            start += 1 << level;
        }
        Ok(Self { size, peaks })
    }

    /// Adds one leaf by its hash.
    pub fn push(&mut self, leaf: Sha256Digest) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("a frontier has one peak per set bit of its size");
            hash = node_hash(&left, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    #[must_use]
    pub fn root(&self) -> Sha256Digest {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return EMPTY_ROOT };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The root of the tree over these leaf hashes.
#[must_use]
pub fn root_of(leaves: impl IntoIterator<Item = Sha256Digest>) -> Sha256Digest {
    let mut frontier = Frontier::default();
    leaves.into_iter().for_each(|leaf| frontier.push(leaf));
    frontier.root()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// The definition of RFC 6962 section 2.1, word for word and slow.
    fn mth(leaves: &[Sha256Digest]) -> Sha256Digest {
        match leaves.len() {
            0 => Sha256Digest::of(b""),
            1 => leaves[0],
            n => {
                let k = (1..).map(|i| 1_usize << i).take_while(|k| *k < n).last().unwrap_or(1);
                node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
            }
        }
    }

    fn leaves(count: u64) -> Vec<Sha256Digest> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    struct Naive(Vec<Sha256Digest>);

    impl HashReader for Naive {
        type Error = Infallible;
        fn hash(&self, level: u32, index: u64) -> Result<Sha256Digest, Infallible> {
            let (start, width) = (usize::try_from(index << level).unwrap(), 1_usize << level);
            Ok(mth(&self.0[start..start + width]))
        }
    }

    /// The same hashes for the crate we did not write.
    struct Theirs<'a>(&'a Naive);

    impl tlog_tiles::HashReader for Theirs<'_> {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::tlog::Error> {
            Ok(indexes
                .iter()
                .map(|index| {
                    let (level, n) = tlog_tiles::split_stored_hash_index(*index);
                    let Ok(hash) = self.0.hash(u32::from(level), n);
                    tlog_tiles::Hash(hash.0)
                })
                .collect())
        }
    }

    #[test]
    fn roots_match_the_definition_and_the_reference_vectors() {
        // The tree of certificate-transparency's reference tests: eight inputs and the root over them.
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let root = root_of(inputs.iter().map(|input| leaf_hash(input)));
        assert_eq!(root.hex(), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
        assert_eq!(root_of([]), EMPTY_ROOT);
        for size in 0..70 {
            let model = Naive(leaves(size));
            assert_eq!(root_of(model.0.clone()), mth(&model.0), "size {size}");
            assert_eq!(super::root(size, &model), Ok(mth(&model.0)), "size {size}");
            assert_eq!(Frontier::read(size, &model).unwrap().root(), mth(&model.0), "size {size}");
        }
    }

    #[test]
    fn every_proof_of_every_small_tree_is_the_reference_crates() {
        for size in 1..40 {
            let model = Naive(leaves(size));
            let root = mth(&model.0);
            for index in 0..size {
                let Ok(proof) = inclusion_proof(index, size, &model);
                let theirs = tlog_tiles::prove_record(size, index, &Theirs(&model)).unwrap();
                assert_eq!(
                    proof.iter().map(|h| h.0).collect::<Vec<_>>(),
                    theirs.iter().map(|h| h.0).collect::<Vec<_>>()
                );
                let leaf = model.0[usize::try_from(index).unwrap()];
                assert_eq!(verify_inclusion(index, size, &leaf, &proof, &root), Ok(()));
            }
            for old in 1..=size {
                let Ok(proof) = consistency_proof(old, size, &model);
                let theirs = tlog_tiles::prove_tree(size, old, &Theirs(&model)).unwrap();
                assert_eq!(
                    proof.iter().map(|h| h.0).collect::<Vec<_>>(),
                    theirs.iter().map(|h| h.0).collect::<Vec<_>>()
                );
                let old_root = mth(&model.0[..usize::try_from(old).unwrap()]);
                assert_eq!(verify_consistency(old, &old_root, size, &root, &proof), Ok(()), "{old} to {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_other_leaf_place_or_proof_is_accepted(size in 1_u64..300, at in any::<prop::sample::Index>(), change in any::<prop::sample::Index>()) {
            let model = Naive(leaves(size));
            let root = mth(&model.0);
            let index = at.index(usize::try_from(size).unwrap()) as u64;
            let leaf = model.0[usize::try_from(index).unwrap()];
            let Ok(proof) = inclusion_proof(index, size, &model);
            prop_assert_eq!(verify_inclusion(index, size, &leaf, &proof, &root), Ok(()));
            prop_assert!(verify_inclusion(index, size, &leaf_hash(b"another"), &proof, &root).is_err());
            for other in (0..size).filter(|other| *other != index) {
                prop_assert!(verify_inclusion(other, size, &leaf, &proof, &root).is_err());
            }
            prop_assert!(verify_inclusion(size, size, &leaf, &proof, &root).is_err());
            if !proof.is_empty() {
                let mut bent = proof.clone();
                bent[change.index(proof.len())].0[0] ^= 1;
                prop_assert!(verify_inclusion(index, size, &leaf, &bent, &root).is_err());
                prop_assert!(verify_inclusion(index, size, &leaf, &proof[1..], &root).is_err());
            }
            let longer: Vec<_> = proof.iter().copied().chain([leaf]).collect();
            prop_assert!(verify_inclusion(index, size, &leaf, &longer, &root).is_err());
        }

        #[test]
        fn a_rewritten_past_is_not_consistent(new in 2_u64..300, at in any::<prop::sample::Index>(), change in any::<prop::sample::Index>()) {
            let old = 1 + at.index(usize::try_from(new - 1).unwrap()) as u64;
            let before = Naive(leaves(old));
            let mut after = Naive(leaves(new));
            let (old_root, new_root) = (mth(&before.0), mth(&after.0));
            let Ok(proof) = consistency_proof(old, new, &after);
            prop_assert_eq!(verify_consistency(old, &old_root, new, &new_root, &proof), Ok(()));
            prop_assert!(verify_consistency(old, &old_root, new, &old_root, &proof).is_err());
            after.0[change.index(usize::try_from(old).unwrap())].0[0] ^= 1;
            let (rewritten_root, Ok(rewritten)) = (mth(&after.0), consistency_proof(old, new, &after));
            prop_assert!(verify_consistency(old, &old_root, new, &rewritten_root, &rewritten).is_err());
        }
    }
}
