//! The 65,536 entries of one chunk: growing in memory, then sealed to disk once and never changed.
//!
//! Values that few entries share are found by hash (`postings.rs`). Values that many share, such as the line, have one
//! compressed bitmap of rows each. Scores lie in buckets sorted by score, so that a range reads only its own. Times lie
//! in row order; that they nearly always ascend makes the smallest and largest time of 256 rows, the zone, decide most
//! rows unread.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use roaring::RoaringBitmap;

use super::{
    codec::{Malformed, Reader, decode_numbers, encode_numbers, put_varint},
    codec_u64, keys,
    postings::{Chains, Hash, Hashed, Level},
    store::{Fault, Store},
};
use crate::{
    core::counter::stands_at,
    ports::index::{EntryKind, Facts},
    types::{Blake3Digest, Verdict},
};

/// Rows of a chunk. A bitmap of 65,536 bits is one container of the `roaring` crate; reading the unsealed rest of
/// the log at start takes about half a second for a full chunk.
pub(super) const CHUNK_ROWS: u32 = 65_536;
/// Rows whose times are summed up by a smallest and a largest.
pub(super) const ZONE_ROWS: u32 = 256;
/// Rows whose times are read at once: 5 KiB.
pub(super) const BLOCK_ROWS: u32 = 1024;
/// Scores in one bucket: 6 KiB.
const SCORE_BUCKET_ROWS: usize = 1024;
/// The time of an entry that tells none. No filter matches it.
pub(super) const NO_TIME: i64 = -1;

/// Fields with a bitmap per value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Field {
    Kind = 0,
    Verdict = 1,
    Line = 2,
    Station = 3,
    Camera = 4,
    Product = 5,
    RecipeName = 6,
    RecipeDigest = 7,
    /// One value: has a score.
    Scored = 8,
}

/// Smallest and largest time of [`ZONE_ROWS`] rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    pub(super) min: i64,
    pub(super) max: i64,
}

/// Rows that can be searched, on disk or in memory.
pub(super) trait Rows {
    fn len(&self) -> u32;
    /// The rows with this value; `None` when there are none.
    fn bitmap(&self, field: Field, value: &[u8]) -> Result<Option<Cow<'_, RoaringBitmap>>, Fault>;
    /// Every value of a field.
    fn values(&self, field: Field) -> Vec<&[u8]>;
    fn zones(&self) -> &[Zone];
    /// Times of the rows from `block * BLOCK_ROWS` on.
    fn times(&self, block: u32) -> Result<Cow<'_, [i64]>, Fault>;
    /// The rows whose score's ordered bits lie in `low..=high`.
    fn scored(&self, low: u32, high: u32) -> Result<RoaringBitmap, Fault>;
}

/// The verdict's value in bitmaps.
pub(super) fn verdict_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Ok => 1,
        Verdict::NotOk => 2,
        Verdict::NotDecidable => 3,
    }
}

/// The kind's value in bitmaps.
pub(super) fn kind_code(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Decision => 0,
        EntryKind::Gap => 1,
        EntryKind::Recipe => 2,
        EntryKind::Access => 3,
        EntryKind::Key => 4,
        EntryKind::Start => 5,
        EntryKind::PeriodClose => 6,
        EntryKind::Retention => 7,
        EntryKind::Other => 255,
    }
}

/// The chunk that grows, in memory.
#[derive(Default)]
pub(super) struct Tail {
    /// By field and value.
    bitmaps: BTreeMap<Vec<u8>, RoaringBitmap>,
    times: Vec<i64>,
    zones: Vec<Zone>,
    /// Row and ordered bits.
    scores: Vec<(u16, u32)>,
    chains: [Chains; 3],
    /// By [`keys::camera`].
    pub(super) counters: BTreeMap<Vec<u8>, u64>,
    pub(super) tip: Option<Blake3Digest>,
}

impl Tail {
    /// Adds one entry; `hash` keys private values.
    pub(super) fn push(&mut self, facts: &Facts, hash: impl Fn(Hashed, &str) -> Hash) {
        let row = self.len();
        assert!(row < CHUNK_ROWS, "a full chunk is sealed before the next entry comes");
        self.mark(Field::Kind, &[kind_code(facts.kind)], row);
        if let Some(verdict) = facts.verdict {
            self.mark(Field::Verdict, &[verdict_code(verdict)], row);
        }
        let names = [
            (Field::Line, facts.line.as_ref().map(|id| id.as_str())),
            (Field::Station, facts.station.as_ref().map(|id| id.as_str())),
            (Field::Camera, facts.camera.as_ref().map(|id| id.as_str())),
            (Field::Product, facts.product.as_ref().map(|id| id.as_str())),
        ];
        for (field, name) in names {
            if let Some(name) = name {
                self.mark(field, name.as_bytes(), row);
            }
        }
        if let Some((name, digest)) = &facts.recipe {
            self.mark(Field::RecipeName, name.as_str().as_bytes(), row);
            self.mark(Field::RecipeDigest, &digest.0, row);
        }
        if let Some(score) = facts.score {
            self.mark(Field::Scored, &[], row);
            self.scores.push((row as u16, score.ordered_bits()));
        }
        let time = facts.time.map_or(NO_TIME, |time| time.unix_nanos());
        if row.is_multiple_of(ZONE_ROWS) {
            self.zones.push(Zone { min: time, max: time });
        }
        let zone = self.zones.last_mut().expect("the first row of a zone pushes it");
        *zone = Zone { min: zone.min.min(time), max: zone.max.max(time) };
        self.times.push(time);
        let serial = facts.serial.as_ref().map(|serial| hash(Hashed::Serial, serial.as_str()));
        let lot = facts.lot.as_ref().map(|lot| hash(Hashed::Lot, lot.as_str()));
        self.chains[Hashed::Frame as usize].push(facts.frame);
        self.chains[Hashed::Serial as usize].push(serial);
        self.chains[Hashed::Lot as usize].push(lot);
        if let (Some(line), Some(camera), Some(counter)) = (&facts.line, &facts.camera, facts.counter) {
            let camera = keys::camera(line, camera);
            let before = self.counters.get(&camera).copied();
            self.counters.insert(camera, stands_at(before, counter));
        }
        self.tip = Some(facts.digest);
    }

    fn mark(&mut self, field: Field, value: &[u8], row: u32) {
        let key = [&[field as u8], value].concat();
        self.bitmaps.entry(key).or_default().try_push(row).expect("rows come in order");
    }

    /// Makes these rows no longer found by what is hashed.
    pub(super) fn forget(&mut self, hashed: Hashed, rows: &BTreeSet<u32>) {
        self.chains[hashed as usize].forget(rows);
    }

    pub(super) fn rows_of(&self, hashed: Hashed, hash: &Hash) -> Vec<u32> {
        self.chains[hashed as usize].rows(hash)
    }

    /// Writes the full chunk under its number; nothing refers to it yet.
    pub(super) fn seal(&self, store: &Store, chunk: u32) -> Result<Head, Fault> {
        assert_eq!(self.len(), CHUNK_ROWS, "only a full chunk is sealed");
        let mut dictionary = Vec::with_capacity(self.bitmaps.len());
        for (field_and_value, bitmap) in &self.bitmaps {
            let mut bitmap = bitmap.clone();
            bitmap.optimize();
            let mut bytes = Vec::with_capacity(bitmap.serialized_size());
            bitmap.serialize_into(&mut bytes).expect("writing to memory does not fail");
            store.put(&keys::bitmap(chunk, field_and_value), &bytes)?;
            dictionary.push(field_and_value.clone());
        }
        for (block, times) in (0..).zip(self.times.chunks(BLOCK_ROWS as usize)) {
            store.put(&keys::times(chunk, block), &encode_numbers(times))?;
        }
        let mut by_score = self.scores.clone();
        by_score.sort_unstable_by_key(|&(row, bits)| (bits, row));
        let mut score_buckets = Vec::new();
        for (bucket, pairs) in (0..).zip(by_score.chunks_mut(SCORE_BUCKET_ROWS)) {
            score_buckets.push((pairs[0].1, pairs[pairs.len() - 1].1));
            pairs.sort_unstable();
            let bytes: Vec<u8> =
                pairs.iter().flat_map(|(row, bits)| row.to_le_bytes().into_iter().chain(bits.to_le_bytes())).collect();
            store.put(&keys::scores(chunk, bucket), &bytes)?;
        }
        for hashed in Hashed::ALL {
            self.chains[hashed as usize]
                .buckets(|bucket, bytes| store.put(&keys::postings(hashed, Level::Chunk, chunk, bucket), &bytes))?;
        }
        for (camera, counter) in &self.counters {
            let before = store.find(camera, codec_u64)?;
            store.put(camera, &stands_at(before, *counter).to_le_bytes())?;
        }
        let tip = self.tip.expect("a full chunk has a last entry");
        let head = Head { tip, zones: self.zones.clone(), score_buckets, dictionary };
        store.put(&keys::head(chunk), &head.encode())?;
        Ok(head)
    }
}

impl Rows for Tail {
    fn len(&self) -> u32 {
        self.times.len() as u32
    }

    fn bitmap(&self, field: Field, value: &[u8]) -> Result<Option<Cow<'_, RoaringBitmap>>, Fault> {
        Ok(self.bitmaps.get([&[field as u8], value].concat().as_slice()).map(Cow::Borrowed))
    }

    fn values(&self, field: Field) -> Vec<&[u8]> {
        let from = vec![field as u8];
        self.bitmaps.range(from..).take_while(|(key, _)| key[0] == field as u8).map(|(key, _)| &key[1..]).collect()
    }

    fn zones(&self) -> &[Zone] {
        &self.zones
    }

    fn times(&self, block: u32) -> Result<Cow<'_, [i64]>, Fault> {
        let start = (block * BLOCK_ROWS) as usize;
        Ok(Cow::Borrowed(&self.times[start..self.times.len().min(start + BLOCK_ROWS as usize)]))
    }

    fn scored(&self, low: u32, high: u32) -> Result<RoaringBitmap, Fault> {
        let rows = self.scores.iter().filter(|(_, bits)| (low..=high).contains(bits)).map(|&(row, _)| u32::from(row));
        Ok(RoaringBitmap::from_sorted_iter(rows).expect("rows come in order"))
    }
}

/// What is known of a sealed chunk without reading it: about 6 KiB, kept in memory.
pub(super) struct Head {
    /// Digest of the chunk's last entry.
    pub(super) tip: Blake3Digest,
    zones: Vec<Zone>,
    /// Smallest and largest score of each bucket, as ordered bits.
    score_buckets: Vec<(u32, u32)>,
    /// Field and value of every bitmap, sorted.
    dictionary: Vec<Vec<u8>>,
}

impl Head {
    pub(super) fn last_time(&self) -> i64 {
        self.zones.iter().map(|zone| zone.max).max().unwrap_or(NO_TIME)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.tip.0.to_vec();
        for zone in &self.zones {
            out.extend_from_slice(&zone.min.to_le_bytes());
            out.extend_from_slice(&zone.max.to_le_bytes());
        }
        out.extend_from_slice(&(self.score_buckets.len() as u16).to_le_bytes());
        for (min, max) in &self.score_buckets {
            out.extend_from_slice(&min.to_le_bytes());
            out.extend_from_slice(&max.to_le_bytes());
        }
        put_varint(&mut out, self.dictionary.len() as u32);
        for value in &self.dictionary {
            put_varint(&mut out, value.len() as u32);
            out.extend_from_slice(value);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let tip = Blake3Digest(reader.array()?);
        let zone = |_| Ok(Zone { min: reader.i64()?, max: reader.i64()? });
        let zones = (0..CHUNK_ROWS / ZONE_ROWS).map(zone).collect::<Result<_, _>>()?;
        let count = reader.u16()?;
        let bucket = |_| Ok((reader.u32()?, reader.u32()?));
        let score_buckets = (0..count).map(bucket).collect::<Result<_, _>>()?;
        let count = reader.varint()?;
        let value = |_| {
            let len = reader.varint()? as usize;
            reader.take(len).map(<[u8]>::to_vec)
        };
        let dictionary: Vec<Vec<u8>> = (0..count).map(value).collect::<Result<_, _>>()?;
        reader.end()?;
        if !dictionary.is_sorted() || dictionary.iter().any(Vec::is_empty) {
            return Err(Malformed("a sorted dictionary"));
        }
        Ok(Self { tip, zones, score_buckets, dictionary })
    }
}

/// A sealed chunk.
pub(super) struct Sealed<'a> {
    pub(super) store: &'a Store,
    pub(super) chunk: u32,
    pub(super) head: &'a Head,
}

impl Sealed<'_> {
    /// Adds the rows of one score bucket whose bits `wanted` says yes to.
    fn read_scores(&self, bucket: usize, wanted: impl Fn(u32) -> bool, rows: &mut RoaringBitmap) -> Result<(), Fault> {
        let key = keys::scores(self.chunk, bucket as u8);
        self.store.read(&key, |bytes| {
            if !bytes.len().is_multiple_of(6) {
                return Err(Malformed("scores of 6 bytes each"));
            }
            let pairs = bytes.chunks_exact(6).map(|pair| {
                (u16::from_le_bytes([pair[0], pair[1]]), u32::from_le_bytes([pair[2], pair[3], pair[4], pair[5]]))
            });
            rows.extend(pairs.filter(|&(_, bits)| wanted(bits)).map(|(row, _)| u32::from(row)));
            Ok(())
        })
    }
}

impl Rows for Sealed<'_> {
    fn len(&self) -> u32 {
        CHUNK_ROWS
    }

    fn bitmap(&self, field: Field, value: &[u8]) -> Result<Option<Cow<'_, RoaringBitmap>>, Fault> {
        let field_and_value = [&[field as u8], value].concat();
        if self.head.dictionary.binary_search(&field_and_value).is_err() {
            return Ok(None);
        }
        let read = |bytes: &[u8]| RoaringBitmap::deserialize_from(bytes).map_err(|_| Malformed("a roaring bitmap"));
        let bitmap = self.store.read(&keys::bitmap(self.chunk, &field_and_value), read)?;
        Ok(Some(Cow::Owned(bitmap)))
    }

    fn values(&self, field: Field) -> Vec<&[u8]> {
        let start = self.head.dictionary.partition_point(|value| value[0] < field as u8);
        self.head.dictionary[start..]
            .iter()
            .take_while(|value| value[0] == field as u8)
            .map(|value| &value[1..])
            .collect()
    }

    fn zones(&self) -> &[Zone] {
        &self.head.zones
    }

    fn times(&self, block: u32) -> Result<Cow<'_, [i64]>, Fault> {
        let read = |bytes: &[u8]| decode_numbers(bytes, BLOCK_ROWS as usize);
        self.store.read(&keys::times(self.chunk, block as u8), read).map(Cow::Owned)
    }

    /// Reads whichever is less: the buckets inside the range, or those outside it.
    fn scored(&self, low: u32, high: u32) -> Result<RoaringBitmap, Fault> {
        let is_in = |bits: u32| (low..=high).contains(&bits);
        let buckets = self.head.score_buckets.iter().enumerate();
        let inside = buckets.clone().filter(|(_, (min, max))| is_in(*min) && is_in(*max)).count();
        let mut rows = RoaringBitmap::new();
        if inside * 2 <= self.head.score_buckets.len() {
            for (bucket, _) in buckets.filter(|(_, (min, max))| *max >= low && *min <= high) {
                self.read_scores(bucket, is_in, &mut rows)?;
            }
            return Ok(rows);
        }
        for (bucket, _) in buckets.filter(|(_, (min, max))| !(is_in(*min) && is_in(*max))) {
            self.read_scores(bucket, |bits| !is_in(bits), &mut rows)?;
        }
        let scored = self.bitmap(Field::Scored, &[])?.map(Cow::into_owned).unwrap_or_default();
        Ok(scored - rows)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_reads_back_what_it_wrote() {
        let head = Head {
            tip: Blake3Digest::of(b"entry"),
            zones: (0..256).map(|n| Zone { min: n, max: n + 1 }).collect(),
            score_buckets: vec![(1, 5), (5, u32::MAX)],
            dictionary: vec![vec![0, 0], b"\x02line-1".to_vec(), b"\x02line-2".to_vec(), vec![8]],
        };
        let back = Head::decode(&head.encode()).unwrap();
        assert_eq!((back.tip, back.zones, back.score_buckets), (head.tip, head.zones, head.score_buckets));
        assert_eq!(back.dictionary, head.dictionary);
    }

    proptest! {
        #[test]
        fn a_damaged_head_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
            let _ = Head::decode(&bytes);
        }
    }
}
