//! Positions by hash, for what nearly every entry has its own value of: frames, serial numbers, lots.
//!
//! A run of entries keeps its hashes in buckets by their first bits, so that a look-up reads one value of a few KiB per
//! run. A run covers one chunk; [`MERGE`] of them are merged into one, or the look-up that every frame makes (G6) would
//! grow by one read for each chunk: at 100 million entries 1,500 reads become 115.

use std::collections::{BTreeSet, HashMap};

use super::{
    codec::{Malformed, Reader, put_varint},
    store::Fault,
};

pub(super) type Hash = [u8; 16];

/// Chunks whose runs are merged into one run.
pub(super) const MERGE: u32 = 16;

/// What is hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hashed {
    Frame = 0,
    Serial = 1,
    Lot = 2,
}

impl Hashed {
    pub(super) const ALL: [Self; 3] = [Self::Frame, Self::Serial, Self::Lot];
}

/// The size of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Chunk = 0,
    Merged = 1,
}

impl Level {
    /// Buckets of either size hold about 256 hashes of 20 bytes where every entry has its own.
    pub(super) fn buckets(self) -> u16 {
        1 << self.bits()
    }

    pub(super) fn bucket_of(self, hash: &Hash) -> u16 {
        u16::from_be_bytes([hash[0], hash[1]]) >> (16 - self.bits())
    }

    fn bits(self) -> u32 {
        match self {
            Self::Chunk => 8,
            Self::Merged => 8 + MERGE.trailing_zeros(),
        }
    }
}

/// A hash and the rows that have it, ascending.
pub(super) type Group = (Hash, Vec<u32>);

/// Hash, number of rows, then each row as its distance from the one before.
pub(super) fn encode_bucket(groups: &[Group]) -> Vec<u8> {
    let mut out = Vec::with_capacity(groups.len() * 20);
    for (hash, rows) in groups {
        out.extend_from_slice(hash);
        put_varint(&mut out, rows.len() as u32);
        let mut before = 0;
        for &row in rows {
            put_varint(&mut out, row - before);
            before = row;
        }
    }
    out
}

/// Reads what [`encode_bucket`] wrote.
pub(super) fn decode_bucket(bytes: &[u8]) -> Result<Vec<Group>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut groups = Vec::with_capacity(bytes.len() / 20);
    while !reader.is_empty() {
        groups.push((reader.array()?, read_rows(&mut reader)?));
    }
    Ok(groups)
}

/// The rows of one hash in a bucket.
pub(super) fn find_in_bucket(bytes: &[u8], wanted: &Hash) -> Result<Vec<u32>, Malformed> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let hash: Hash = reader.array()?;
        if &hash == wanted {
            return read_rows(&mut reader);
        }
        if &hash > wanted {
            break;
        }
        for _ in 0..reader.varint()? {
            reader.varint()?;
        }
    }
    Ok(Vec::new())
}

fn read_rows(reader: &mut Reader<'_>) -> Result<Vec<u32>, Malformed> {
    let count = reader.varint()?;
    let mut rows = Vec::new();
    let mut row = 0_u32;
    for _ in 0..count {
        row = row.checked_add(reader.varint()?).ok_or(Malformed("rows below 2^32"))?;
        rows.push(row);
    }
    Ok(rows)
}

/// Rows by hash in the growing chunk: each row knows the next one with its hash, so a row costs two bytes and an entry
/// in the map only where its hash is new.
#[derive(Default)]
pub(super) struct Chains {
    /// First and last row of a hash.
    ends: HashMap<Hash, (u16, u16)>,
    /// The next row with the same hash; 0 ends a chain, because no row comes before row 0.
    next: Vec<u16>,
}

impl Chains {
    /// Adds the next row.
    pub(super) fn push(&mut self, hash: Option<Hash>) {
        let row = u16::try_from(self.next.len()).expect("a chunk has 65,536 rows");
        self.next.push(0);
        let Some(hash) = hash else { return };
        self.ends
            .entry(hash)
            .and_modify(|(_, last)| {
                self.next[usize::from(*last)] = row;
                *last = row;
            })
            .or_insert((row, row));
    }

    /// Takes these rows out of their chains.
    pub(super) fn forget(&mut self, rows: &BTreeSet<u32>) {
        let mut hashes = vec![None; self.next.len()];
        for (hash, &(first, _)) in &self.ends {
            let kept = self.chain(first).into_iter().filter(|row| !rows.contains(row));
            kept.for_each(|row| hashes[row as usize] = Some(*hash));
        }
        *self = Self::default();
        hashes.into_iter().for_each(|hash| self.push(hash));
    }

    pub(super) fn rows(&self, hash: &Hash) -> Vec<u32> {
        self.ends.get(hash).map_or_else(Vec::new, |&(first, _)| self.chain(first))
    }

    fn chain(&self, first: u16) -> Vec<u32> {
        let after = |&row: &u16| Some(self.next[usize::from(row)]).filter(|&next| next != 0);
        std::iter::successors(Some(first), after).map(u32::from).collect()
    }

    /// Hands over every bucket of the chunk's run, empty ones too: a missing bucket is damage, not absence.
    pub(super) fn buckets(&self, mut put: impl FnMut(u16, Vec<u8>) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut hashes: Vec<(&Hash, u16)> = self.ends.iter().map(|(hash, &(first, _))| (hash, first)).collect();
        hashes.sort_unstable();
        let mut rest = hashes.as_slice();
        for bucket in 0..Level::Chunk.buckets() {
            let len = rest.partition_point(|(hash, _)| Level::Chunk.bucket_of(hash) <= bucket);
            let (here, after) = rest.split_at(len);
            rest = after;
            let groups: Vec<Group> = here.iter().map(|&(hash, first)| (*hash, self.chain(first))).collect();
            put(bucket, encode_bucket(&groups))?;
        }
        Ok(())
    }
}

/// A bucket without these rows; `None` when it has none of them.
pub(super) fn without(bytes: &[u8], rows: &BTreeSet<u32>) -> Result<Option<Vec<u8>>, Malformed> {
    let mut groups = decode_bucket(bytes)?;
    if !groups.iter().flat_map(|(_, rows)| rows).any(|row| rows.contains(row)) {
        return Ok(None);
    }
    groups.iter_mut().for_each(|(_, found)| found.retain(|row| !rows.contains(row)));
    groups.retain(|(_, found)| !found.is_empty());
    Ok(Some(encode_bucket(&groups)))
}

/// Merges the same bucket of [`MERGE`] neighbouring chunks' runs: the buckets of the merged run that it becomes.
pub(super) fn merge_buckets(chunks: &[Vec<Group>], chunk_rows: u32) -> Vec<Vec<Group>> {
    let mut merged = std::collections::BTreeMap::<Hash, Vec<u32>>::new();
    for (groups, chunk) in chunks.iter().zip(0..) {
        for (hash, rows) in groups {
            merged.entry(*hash).or_default().extend(rows.iter().map(|row| chunk * chunk_rows + row));
        }
    }
    let mut buckets = vec![Vec::new(); MERGE as usize];
    for (hash, rows) in merged {
        buckets[usize::from(Level::Merged.bucket_of(&hash)) % MERGE as usize].push((hash, rows));
    }
    buckets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(seed: u8) -> Hash {
        *blake3::hash(&[seed]).as_bytes().first_chunk().unwrap()
    }

    proptest! {
        #[test]
        fn a_bucket_gives_each_hash_its_rows(seeds in prop::collection::vec(prop::option::of(any::<u8>()), 1..400)) {
            let mut chains = Chains::default();
            seeds.iter().for_each(|seed| chains.push(seed.map(hash)));
            let mut buckets = Vec::new();
            chains.buckets(|_, bytes| { buckets.push(bytes); Ok(()) }).unwrap();
            for seed in 0..=255 {
                let rows: Vec<u32> = (0..).zip(&seeds).filter(|(_, s)| **s == Some(seed)).map(|(row, _)| row).collect();
                let bucket = &buckets[usize::from(Level::Chunk.bucket_of(&hash(seed)))];
                prop_assert_eq!(&find_in_bucket(bucket, &hash(seed)).unwrap(), &rows);
                prop_assert_eq!(&chains.rows(&hash(seed)), &rows);
            }
        }

        #[test]
        fn rows_that_are_forgotten_are_found_by_no_hash(
            seeds in prop::collection::vec(prop::option::of(any::<u8>()), 1..400),
            forgotten in prop::collection::btree_set(0_u32..400, 0..100),
        ) {
            let mut chains = Chains::default();
            seeds.iter().for_each(|seed| chains.push(seed.map(hash)));
            let mut buckets = Vec::new();
            chains.buckets(|_, bytes| { buckets.push(bytes); Ok(()) }).unwrap();
            chains.forget(&forgotten);
            for seed in 0..=255 {
                let rows = (0_u32..).zip(&seeds).filter(|(row, s)| **s == Some(seed) && !forgotten.contains(row));
                let rows: Vec<u32> = rows.map(|(row, _)| row).collect();
                prop_assert_eq!(&chains.rows(&hash(seed)), &rows);
                let bucket = &buckets[usize::from(Level::Chunk.bucket_of(&hash(seed)))];
                let bucket = without(bucket, &forgotten).unwrap().unwrap_or_else(|| bucket.clone());
                prop_assert_eq!(&find_in_bucket(&bucket, &hash(seed)).unwrap(), &rows);
            }
        }

        #[test]
        fn a_damaged_bucket_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_bucket(&bytes);
            let _ = find_in_bucket(&bytes, &hash(1));
        }
    }

    #[test]
    fn merging_keeps_every_row_and_sorts_by_the_longer_prefix() {
        let chunk = |seeds: std::ops::Range<u8>| {
            let mut groups: Vec<Group> = seeds.map(|seed| (hash(seed), vec![u32::from(seed)])).collect();
            groups.iter_mut().for_each(|(hash, _)| hash[0] = 7);
            groups.sort_unstable();
            groups
        };
        let buckets = merge_buckets(&[chunk(0..200), chunk(100..250)], 1000);
        let mut seen = 0;
        for (bucket, groups) in buckets.iter().enumerate() {
            assert!(groups.is_sorted());
            for (hash, rows) in groups {
                assert_eq!(usize::from(Level::Merged.bucket_of(hash)), 7 * 16 + bucket);
                seen += rows.len();
            }
        }
        assert_eq!(seen, 350);
        assert!(buckets.iter().flatten().any(|(_, rows)| rows.as_slice() == [150, 1150]));
    }
}
