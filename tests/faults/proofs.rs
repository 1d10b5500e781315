//! Roots and proofs against the definition of RFC 6962, word for word and slow.

use std::convert::Infallible;

use lineproof::{
    core::lineage::tree::{
        EMPTY_ROOT, Frontier, HashReader, consistency_proof, inclusion_proof, leaf_hash, node_hash, root,
        verify_consistency, verify_inclusion,
    },
    types::Sha256Digest,
};

use crate::{Tally, dice::Dice};

/// Largest tree: more than one full tile.
const LEAVES_MAX: u64 = 300;

/// Section 2.1.
fn mth(leaves: &[Sha256Digest]) -> Sha256Digest {
    match leaves.len() {
        0 => EMPTY_ROOT,
        1 => leaves[0],
        n => {
            let k = n.next_power_of_two() / 2;
            node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
        }
    }
}

/// Section 2.1.1.
fn path(m: usize, leaves: &[Sha256Digest]) -> Vec<Sha256Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (mut proof, other) =
        if m < k { (path(m, &leaves[..k]), mth(&leaves[k..])) } else { (path(m - k, &leaves[k..]), mth(&leaves[..k])) };
    proof.push(other);
    proof
}

/// Section 2.1.2.
fn subproof(m: usize, leaves: &[Sha256Digest], known: bool) -> Vec<Sha256Digest> {
    if m == leaves.len() {
        return if known { Vec::new() } else { vec![mth(leaves)] };
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (mut proof, other) = if m <= k {
        (subproof(m, &leaves[..k], known), mth(&leaves[k..]))
    } else {
        (subproof(m - k, &leaves[k..], false), mth(&leaves[..k]))
    };
    proof.push(other);
    proof
}

struct Naive<'a>(&'a [Sha256Digest]);

impl HashReader for Naive<'_> {
    type Error = Infallible;

    fn hash(&self, level: u32, index: u64) -> Result<Sha256Digest, Infallible> {
        let (start, width) = (usize::try_from(index << level).expect("a small tree"), 1_usize << level);
        Ok(mth(&self.0[start..start + width]))
    }
}

pub fn run(wanted: u64, dice: &mut Dice, tally: &mut Tally) {
    for _ in 0..wanted {
        let size = 1 + dice.index(usize::try_from(LEAVES_MAX).expect("small"));
        let leaves: Vec<Sha256Digest> = (0..size).map(|_| leaf_hash(&dice.bytes(8))).collect();
        let (index, old) = (dice.index(size), 1 + dice.index(size));
        if let Err(reason) = compare(&leaves, index, old, dice) {
            tally.broken.push(format!("size {size}, leaf {index}, old size {old}: {reason}"));
        }
        tally.happened += 1;
    }
    tally.note = format!("trees of 1 to {LEAVES_MAX} leaves, each with one changed proof");
}

fn compare(leaves: &[Sha256Digest], index: usize, old: usize, dice: &mut Dice) -> Result<(), String> {
    let (size, reader) = (leaves.len() as u64, Naive(leaves));
    let expected = mth(leaves);
    let Ok(found) = root(size, &reader);
    let Ok(frontier) = Frontier::read(size, &reader);
    if found != expected || frontier.root() != expected {
        return Err("another root".into());
    }
    let (at, old_size) = (index as u64, old as u64);
    let Ok(inclusion) = inclusion_proof(at, size, &reader);
    if inclusion != path(index, leaves) {
        return Err("another inclusion proof".into());
    }
    let Ok(consistency) = consistency_proof(old_size, size, &reader);
    if consistency != subproof(old, leaves, true) {
        return Err("another consistency proof".into());
    }
    let old_root = mth(&leaves[..old]);
    verify_inclusion(at, size, &leaves[index], &inclusion, &expected).map_err(|error| error.to_string())?;
    verify_consistency(old_size, &old_root, size, &expected, &consistency).map_err(|error| error.to_string())?;
    // One bit, anywhere in what is checked.
    let bit = |dice: &mut Dice, hash: &mut Sha256Digest| hash.0[dice.index(32)] ^= 1 << dice.below(8);
    let mut changed = (leaves[index], inclusion, expected);
    match dice.index(2 + changed.1.len()) {
        0 => bit(dice, &mut changed.0),
        1 => bit(dice, &mut changed.2),
        at => bit(dice, &mut changed.1[at - 2]),
    }
    if verify_inclusion(at, size, &changed.0, &changed.1, &changed.2).is_ok() {
        return Err("a changed inclusion proof was accepted".into());
    }
    let mut changed = (old_root, consistency, expected);
    match dice.index(2 + changed.1.len()) {
        0 => bit(dice, &mut changed.0),
        1 => bit(dice, &mut changed.2),
        at => bit(dice, &mut changed.1[at - 2]),
    }
    if verify_consistency(old_size, &changed.0, size, &changed.2, &changed.1).is_ok() {
        return Err("a changed consistency proof was accepted".into());
    }
    Ok(())
}
