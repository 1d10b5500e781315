//! Two auditors compare what they were shown: whether two signed checkpoints can be of one log that only grew.

use std::fmt;

use crate::{
    core::{
        export::{
            Lang,
            keys::Signed,
            verify::{LogFiles, Problem},
            words,
        },
        lineage::{
            tiles::{HASH_TILE_BYTES, Tile, TileHashes, parse_hash_tile},
            tree::{self, consistency_proof, verify_consistency},
        },
    },
    types::Sha256Digest,
};

/// What an auditor holds: a checkpoint, and what besides it tells of earlier ones.
pub struct Held<'a> {
    pub signed: &'a Signed,
    pub past: Past<'a>,
}

/// What is known of the log's past below a checkpoint.
pub enum Past<'a> {
    /// Nothing, as with a passport or an export.
    Nothing,
    /// A consistency proof from one earlier size, as in a request to a witness.
    Proof { old: u64, hashes: &'a [Sha256Digest] },
    /// The log's own tiles.
    Tiles(&'a dyn LogFiles),
}

/// What comparing two checkpoints of one log shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// They are of different logs: nothing to compare.
    OtherLog,
    /// The same size and root.
    Same,
    /// The smaller is a beginning of the larger.
    Grown { from: u64, to: u64 },
    /// The log's key signed two histories. `proof` leads from the root the larger one has at the smaller's size to the
    /// larger one's root; empty when the sizes are equal.
    Fork { at: u64, proof: Vec<Sha256Digest> },
    /// Nothing at hand links the two sizes.
    Unlinked { from: u64, to: u64 },
}

/// Compares two checkpoints whose signatures were checked.
///
/// # Errors
/// [`Problem`] when tiles or a proof that should link the two do not lead to the signed root themselves: then they
/// prove nothing about the other.
pub fn compare(one: &Held<'_>, other: &Held<'_>) -> Result<Comparison, Problem> {
    let (old, new) = if one.signed.facts.size <= other.signed.facts.size { (one, other) } else { (other, one) };
    let (from, to) = (&old.signed.facts, &new.signed.facts);
    if from.origin != to.origin {
        return Ok(Comparison::OtherLog);
    }
    if from.size == to.size {
        let same = from.root == to.root;
        return Ok(if same { Comparison::Same } else { Comparison::Fork { at: from.size, proof: Vec::new() } });
    }
    if from.size == 0 {
        let proof = Vec::new();
        let grown = from.root == tree::EMPTY_ROOT;
        return Ok(if grown { grown_from(from.size, to.size) } else { Comparison::Fork { at: 0, proof } });
    }
    match &new.past {
        Past::Proof { old, hashes } if *old == from.size => {
            match verify_consistency(from.size, &from.root, to.size, &to.root, hashes) {
                Ok(()) => Ok(grown_from(from.size, to.size)),
                // The proof holds for another beginning: whoever made it signed both.
                Err(tree::ProofError::OldRoot { found, .. })
                    if verify_consistency(from.size, &found, to.size, &to.root, hashes).is_ok() =>
                {
                    Ok(Comparison::Fork { at: from.size, proof: hashes.to_vec() })
                }
                Err(error) => Err(Problem::Consistency(error)),
            }
        }
        Past::Tiles(files) => {
            let reader = TileHashes::new(to.size, |tile: Tile| read_tile(*files, tile));
            let root = tree::root(from.size, &reader)?;
            let proof = consistency_proof(from.size, to.size, &reader)?;
            // Only tiles that lead to the signed root speak for whoever signed it.
            verify_consistency(from.size, &root, to.size, &to.root, &proof)
                .map_err(|_| Problem::Root { size: to.size })?;
            let same = root == from.root;
            Ok(if same { grown_from(from.size, to.size) } else { Comparison::Fork { at: from.size, proof } })
        }
        Past::Nothing | Past::Proof { .. } => Ok(Comparison::Unlinked { from: from.size, to: to.size }),
    }
}

fn grown_from(from: u64, to: u64) -> Comparison {
    Comparison::Grown { from, to }
}

/// Why a tile cannot be read, for people.
#[derive(Debug)]
pub struct TileProblem(pub Problem);

impl std::error::Error for TileProblem {}

impl fmt::Display for TileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&words::wrong(&self.0, Lang::En))
    }
}

/// The hashes of a tile out of a log's files. A log may delete a partial tile once the full one is there, and a larger
/// log may have a wider one only.
///
/// # Errors
/// [`Problem`] when it is missing or no tile.
pub fn read_tile(files: &dyn LogFiles, tile: Tile) -> Result<Vec<Sha256Digest>, Problem> {
    let read = |tile: Tile| -> Result<Option<Vec<Sha256Digest>>, Problem> {
        let path = tile.path();
        let bytes = files
            .read(&path, HASH_TILE_BYTES as u64)
            .map_err(|error| Problem::Unreadable { place: path.clone(), reason: error.to_string() })?;
        let parse = |bytes: Vec<u8>| parse_hash_tile(&bytes, tile.width).map_err(|error| Problem::Tile { path, error });
        bytes.map(parse).transpose()
    };
    if let Some(hashes) = read(tile)? {
        return Ok(hashes);
    }
    let missing = || Problem::MissingTile { path: tile.path() };
    let mut hashes = read(tile.full())?.ok_or_else(missing)?;
    hashes.truncate(usize::from(tile.width));
    Ok(hashes)
}
