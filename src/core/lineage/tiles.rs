//! The log as static files, byte for byte as c2sp.org/tlog-tiles says: paths, hash tiles, entry bundles.

use std::fmt;

use super::{
    entry::ENTRY_BYTES_MAX,
    tree::{EMPTY_ROOT, HashReader, node_hash},
};
use crate::types::Sha256Digest;

/// Hashes in a full tile and entries in a full bundle.
pub const TILE_WIDTH: u64 = 256;
/// Levels of the Merkle tree that one tile spans.
pub const TILE_HEIGHT: u32 = 8;
/// Bytes of a full hash tile.
pub const HASH_TILE_BYTES: usize = 256 * 32;
/// Most bytes of an entry bundle: 256 entries of 8 KiB, each behind its two-byte length.
pub const BUNDLE_BYTES_MAX: usize = 256 * (ENTRY_BYTES_MAX + 2);
/// Highest tile level a log of 2^63 entries reaches; the specification allows up to 63.
pub const TILE_LEVEL_MAX: u8 = 7;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    #[error("a hash tile of {width} hashes has {} bytes, this one has {found}", u64::from(*.width) * 32)]
    HashTileLength { width: u16, found: usize },
    #[error("the entry bundle ends within entry {entry} of {width}")]
    BundleShort { entry: u16, width: u16 },
    #[error("the entry bundle has {extra} bytes after its last entry, number {width}")]
    BundleLong { width: u16, extra: usize },
    #[error("entry {entry} of the bundle has {found} bytes; at most {ENTRY_BYTES_MAX} are allowed")]
    EntryLength { entry: u16, found: usize },
    #[error("a bundle has 1 to 256 entries, not {0}")]
    BundleWidth(usize),
}

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Merkle tree hashes at this tile level, 0 being the leaf hashes.
    Hashes(u8),
    /// The entries themselves.
    Entries,
}

impl TileKind {
    /// The tile level; entries lie beside level 0.
    fn level(self) -> u32 {
        match self {
            Self::Hashes(level) => u32::from(level),
            Self::Entries => 0,
        }
    }
}

/// How many hashes a log of `size` entries has at a tile level.
fn nodes(size: u64, level: u32) -> u64 {
    size.checked_shr(level * TILE_HEIGHT).unwrap_or(0)
}

/// One tile or bundle by its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    pub kind: TileKind,
    pub index: u64,
    /// 1 to 256; below 256 the tile is partial.
    pub width: u16,
}

impl Tile {
    /// The tile of this kind and index in a log of `size` entries; `None` when it would be empty.
    #[must_use]
    pub fn in_log(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let nodes = nodes(size, kind.level());
        let width = nodes.saturating_sub(index.checked_mul(TILE_WIDTH)?).min(TILE_WIDTH);
        let width = u16::try_from(width).expect("a width is at most 256");
        (width > 0).then_some(Self { kind, index, width })
    }

    #[must_use]
    pub fn is_full(self) -> bool {
        u64::from(self.width) == TILE_WIDTH
    }

    /// The full tile in the same place.
    #[must_use]
    pub fn full(self) -> Self {
        Self { width: 256, ..self }
    }

    /// The bytes of this tile or bundle, taken from those of a wider one: a partial tile is the beginning of every later
    /// one. `None` when the other is not as wide.
    #[must_use]
    pub fn beginning_of(self, wider: &[u8]) -> Option<&[u8]> {
        let mut end = 0;
        match self.kind {
            TileKind::Hashes(_) => end = usize::from(self.width) * 32,
            TileKind::Entries => {
                for _ in 0..self.width {
                    let length = wider.get(end..)?.first_chunk::<2>()?;
                    end += 2 + usize::from(u16::from_be_bytes(*length));
                }
            }
        }
        wider.get(..end)
    }

    /// The path below the log's prefix, `tile/0/x001/234.p/7`.
    #[must_use]
    pub fn path(self) -> String {
        self.to_string()
    }

    /// Reads a path as [`Self::path`] writes it.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("tile/")?;
        let (kind, rest) = rest.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(level.parse().ok().filter(|level| *level <= 63)?),
        };
        let (rest, width) = match rest.split_once(".p/") {
            Some((rest, width)) => (rest, width.parse().ok().filter(|width| (1..256).contains(width))?),
            None => (rest, 256),
        };
        let mut index: u64 = 0;
        for part in rest.split('/') {
            let digits: u64 = part.strip_prefix('x').unwrap_or(part).parse().ok()?;
            index = index.checked_mul(1000)?.checked_add(digits)?;
        }
        let tile = Self { kind, index, width };
        // Every other spelling of the same place is no path of the specification.
        (tile.path() == path).then_some(tile)
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let groups =
            (1..).take_while(|group| 1000_u64.checked_pow(*group).is_some_and(|base| self.index >= base)).count();
        for group in (1..=u32::try_from(groups).expect("a u64 has at most seven groups")).rev() {
            write!(f, "x{:03}/", self.index / 1000_u64.pow(group) % 1000)?;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// Every tile and bundle of a log of `size` entries that a log of `from` entries had not, or had narrower.
pub fn tiles_between(from: u64, size: u64) -> impl Iterator<Item = Tile> {
    let kinds = (0..=TILE_LEVEL_MAX).map(TileKind::Hashes).chain([TileKind::Entries]);
    kinds.flat_map(move |kind| {
        let (old, new) = (nodes(from, kind.level()), nodes(size, kind.level()));
        let end = if new > old { new.div_ceil(TILE_WIDTH) } else { old / TILE_WIDTH };
        (old / TILE_WIDTH..end).filter_map(move |index| Tile::in_log(kind, index, size))
    })
}

/// The hashes of a tile.
///
/// # Errors
/// [`TileError::HashTileLength`].
pub fn parse_hash_tile(bytes: &[u8], width: u16) -> Result<Vec<Sha256Digest>, TileError> {
    if bytes.len() != usize::from(width) * 32 {
        return Err(TileError::HashTileLength { width, found: bytes.len() });
    }
    let (hashes, _) = bytes.as_chunks::<32>();
    Ok(hashes.iter().copied().map(Sha256Digest).collect())
}

/// The bytes of a hash tile.
#[must_use]
pub fn encode_hash_tile(hashes: &[Sha256Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The bytes of an entry bundle: each entry behind its length as two bytes, big-endian.
///
/// # Errors
/// [`TileError`] when there are no entries, too many, or one is too long.
pub fn encode_bundle<E: AsRef<[u8]>>(entries: &[E]) -> Result<Vec<u8>, TileError> {
    if entries.is_empty() || entries.len() as u64 > TILE_WIDTH {
        return Err(TileError::BundleWidth(entries.len()));
    }
    let mut bytes = Vec::with_capacity(entries.iter().map(|entry| entry.as_ref().len() + 2).sum());
    for (number, entry) in (0_u16..).zip(entries) {
        let entry = entry.as_ref();
        let length = u16::try_from(entry.len())
            .ok()
            .filter(|_| entry.len() <= ENTRY_BYTES_MAX)
            .ok_or(TileError::EntryLength { entry: number, found: entry.len() })?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// The entries of a bundle of `width` entries.
///
/// # Errors
/// [`TileError`] when the bytes are not exactly that many entries.
pub fn parse_bundle(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    let mut entries = Vec::with_capacity(usize::from(width.min(256)));
    let mut rest = bytes;
    for entry in 0..width {
        let short = TileError::BundleShort { entry, width };
        let (length, after) = rest.split_first_chunk::<2>().ok_or_else(|| short.clone())?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length > ENTRY_BYTES_MAX {
            return Err(TileError::EntryLength { entry, found: length });
        }
        let (bytes, after) = after.split_at_checked(length).ok_or(short)?;
        entries.push(bytes);
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err(TileError::BundleLong { width, extra: rest.len() }) }
}

/// The Merkle hash over `hashes` taken as leaves: the root of a full tile, or of an aligned part of one.
///
/// # Panics
/// Unless there is a power of two of them.
#[must_use]
pub fn subtree_root(hashes: &[Sha256Digest]) -> Sha256Digest {
    assert!(hashes.len().is_power_of_two(), "a complete subtree has a power of two leaves");
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    level[0]
}

/// Answers for the hashes of a log of `size` entries out of its hash tiles.
pub struct TileHashes<F> {
    size: u64,
    fetch: F,
}

impl<F, T, E> TileHashes<F>
where
    F: Fn(Tile) -> Result<T, E>,
    T: AsRef<[Sha256Digest]>,
{
    /// `fetch` returns the hashes of a tile, as many as the tile is wide.
    pub fn new(size: u64, fetch: F) -> Self {
        Self { size, fetch }
    }
}

impl<F, T, E> HashReader for TileHashes<F>
where
    F: Fn(Tile) -> Result<T, E>,
    T: AsRef<[Sha256Digest]>,
{
    type Error = E;

    fn hash(&self, level: u32, index: u64) -> Result<Sha256Digest, E> {
        let tile_level = u8::try_from(level / TILE_HEIGHT).expect("a tree has at most 64 levels");
        let within = level % TILE_HEIGHT;
        let first = index << within;
        let tile = Tile::in_log(TileKind::Hashes(tile_level), first / TILE_WIDTH, self.size)
            .expect("only subtrees within the tree are asked for");
        let offset = usize::try_from(first % TILE_WIDTH).expect("an offset is below 256");
        let hashes = (self.fetch)(tile)?;
        Ok(subtree_root(&hashes.as_ref()[offset..offset + (1 << within)]))
    }
}

/// The growing right edge of the log: the hashes of its partial tiles, one list per tile level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RightEdge {
    size: u64,
    levels: Vec<Vec<Sha256Digest>>,
}

impl RightEdge {
    /// The right edge of a log of `size` entries; `fetch` returns the hashes of a partial tile.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub fn read<E>(size: u64, mut fetch: impl FnMut(Tile) -> Result<Vec<Sha256Digest>, E>) -> Result<Self, E> {
        let mut levels = Vec::new();
        for level in 0..=TILE_LEVEL_MAX {
            let nodes = nodes(size, u32::from(level));
            if nodes == 0 {
                break;
            }
            let partial = Tile::in_log(TileKind::Hashes(level), nodes / TILE_WIDTH, size);
            levels.push(partial.map(&mut fetch).transpose()?.unwrap_or_default());
        }
        Ok(Self { size, levels })
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds one entry by its leaf hash. Every tile this fills is handed to `full`.
    pub fn push(&mut self, leaf: Sha256Digest, full: impl FnMut(Tile, Vec<Sha256Digest>)) {
        self.size += 1;
        self.push_at(0, leaf, full);
    }

    /// Adds 256 entries by the root of their full hash tile.
    ///
    /// # Panics
    /// Unless the edge ends with a full tile.
    pub fn push_full(&mut self, tile_root: Sha256Digest, full: impl FnMut(Tile, Vec<Sha256Digest>)) {
        assert_eq!(self.size % TILE_WIDTH, 0, "full tiles follow full tiles");
        self.size += TILE_WIDTH;
        if self.levels.is_empty() {
            self.levels.push(Vec::new());
        }
        self.push_at(1, tile_root, full);
    }

    fn push_at(&mut self, lowest: u8, hash: Sha256Digest, mut full: impl FnMut(Tile, Vec<Sha256Digest>)) {
        let mut hash = hash;
        for level in lowest..=TILE_LEVEL_MAX {
            let at = usize::from(level);
            if self.levels.len() == at {
                self.levels.push(Vec::with_capacity(256));
            }
            self.levels[at].push(hash);
            if (self.levels[at].len() as u64) < TILE_WIDTH {
                return;
            }
            let hashes = std::mem::take(&mut self.levels[at]);
            let index = nodes(self.size, u32::from(level) + 1) - 1;
            hash = subtree_root(&hashes);
            full(Tile { kind: TileKind::Hashes(level), index, width: 256 }, hashes);
        }
    }

    /// The partial hash tiles of this size.
    pub fn partials(&self) -> impl Iterator<Item = (Tile, &[Sha256Digest])> {
        (0_u8..).zip(&self.levels).filter(|(_, hashes)| !hashes.is_empty()).map(|(level, hashes)| {
            let index = nodes(self.size, u32::from(level) + 1);
            let width = u16::try_from(hashes.len()).expect("a partial tile is narrower than 256");
            (Tile { kind: TileKind::Hashes(level), index, width }, hashes.as_slice())
        })
    }

    #[must_use]
    pub fn root(&self) -> Sha256Digest {
        let mut root: Option<Sha256Digest> = None;
        for hashes in &self.levels {
            // The complete subtrees of a partial tile, smallest and rightmost first: one per set bit of its width.
            let mut end = hashes.len();
            for bit in (0..usize::BITS).filter(|bit| hashes.len() >> bit & 1 == 1) {
                let start = end - (1 << bit);
                let peak = subtree_root(&hashes[start..end]);
                root = Some(root.map_or(peak, |right| node_hash(&peak, &right)));
                end = start;
            }
        }
        root.unwrap_or(EMPTY_ROOT)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, convert::Infallible};

    use proptest::prelude::*;

    use super::*;
    use crate::core::lineage::tree::{self, Frontier, leaf_hash};

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = |kind, index, width| Tile { kind, index, width }.path();
        assert_eq!(tile(TileKind::Hashes(0), 0, 256), "tile/0/000");
        assert_eq!(tile(TileKind::Hashes(1), 999, 17), "tile/1/999.p/17");
        assert_eq!(tile(TileKind::Entries, 1_234_067, 256), "tile/entries/x001/x234/067");
        assert_eq!(tile(TileKind::Entries, 1000, 1), "tile/entries/x001/000.p/1");
        for path in [
            "tile/0/0",
            "tile/64/000",
            "tile/00/000",
            "tile/0/000.p/256",
            "tile/0/000.p/0",
            "tile/0/x000/001",
            "tile/0/000.p/01",
            "tile/0/../000",
            "tile/0/x001/x000",
            "tile/entries/",
        ] {
            assert_eq!(Tile::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_log_of_seventy_thousand_has_the_tiles_the_specification_counts() {
        let mut by_level: HashMap<(TileKind, bool), Vec<Tile>> = HashMap::new();
        for tile in tiles_between(0, 70_000) {
            by_level.entry((tile.kind, tile.is_full())).or_default().push(tile);
        }
        let count = |kind, full| by_level.get(&(kind, full)).map_or(0, Vec::len);
        assert_eq!(count(TileKind::Hashes(0), true), 273);
        assert_eq!(by_level[&(TileKind::Hashes(0), false)][0].width, 112);
        assert_eq!(count(TileKind::Hashes(1), true), 1);
        assert_eq!(by_level[&(TileKind::Hashes(1), false)][0].width, 17);
        assert_eq!(by_level[&(TileKind::Hashes(2), false)][0].width, 1);
        assert_eq!(count(TileKind::Entries, true), 273);
        assert_eq!(by_level.len(), 7);
        let at_256: Vec<_> = tiles_between(0, 256).map(Tile::path).collect();
        assert_eq!(at_256, ["tile/0/000", "tile/1/000.p/1", "tile/entries/000"]);
        let next: Vec<_> = tiles_between(256, 257).map(Tile::path).collect();
        assert_eq!(next, ["tile/0/001.p/1", "tile/entries/001.p/1"]);
    }

    #[test]
    fn a_bundle_that_is_cut_padded_or_overlong_is_refused() {
        let entries: Vec<Vec<u8>> = (0..5_u8).map(|i| vec![i; usize::from(i) * 100]).collect();
        let bytes = encode_bundle(&entries).unwrap();
        assert_eq!(parse_bundle(&bytes, 5).unwrap(), entries);
        for cut in 0..bytes.len() {
            assert!(parse_bundle(&bytes[..cut], 5).is_err(), "cut at {cut}");
        }
        assert_eq!(parse_bundle(&bytes, 4), Err(TileError::BundleLong { width: 4, extra: 402 }));
        assert_eq!(parse_bundle(&[0xff, 0xff, 0], 1), Err(TileError::EntryLength { entry: 0, found: 65_535 }));
        assert!(encode_bundle::<Vec<u8>>(&[]).is_err());
        assert!(encode_bundle(&[vec![0; ENTRY_BYTES_MAX + 1]]).is_err());
    }

    proptest! {
        #[test]
        fn paths_read_back(level in 0_u8..=63, index in any::<u64>(), width in 1_u16..=256) {
            for kind in [TileKind::Hashes(level), TileKind::Entries] {
                let tile = Tile { kind, index, width };
                prop_assert_eq!(Tile::parse(&tile.path()), Some(tile));
            }
        }

        #[test]
        fn their_paths_are_ours(level in 0_u8..=63, index in 0_u64..1 << 40, width in 1_u32..=256) {
            let theirs = tlog_tiles::Tile::new(8, level, index, width, false).path();
            let ours = Tile { kind: TileKind::Hashes(level), index, width: u16::try_from(width).unwrap() }.path();
            prop_assert_eq!(theirs.trim_start_matches("tile/8/"), ours.trim_start_matches("tile/"));
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn tiles_answer_for_the_tree(size in 1_u64..70_000, at in any::<prop::sample::Index>(), old in any::<prop::sample::Index>()) {
            let mut edge = RightEdge::default();
            let mut tiles: HashMap<Tile, Vec<Sha256Digest>> = HashMap::new();
            let mut frontier = Frontier::default();
            for i in 0..size {
                let leaf = leaf_hash(&i.to_be_bytes());
                frontier.push(leaf);
                edge.push(leaf, |tile, hashes| { tiles.insert(tile, hashes); });
            }
            for (tile, hashes) in edge.partials() {
                tiles.insert(tile, hashes.to_vec());
            }
            prop_assert_eq!(edge.root(), frontier.root());
            let expected: Vec<_> = tiles_between(0, size).filter(|tile| tile.kind != TileKind::Entries).collect();
            prop_assert_eq!(expected.len(), tiles.len());
            prop_assert!(expected.iter().all(|tile| tiles[tile].len() == usize::from(tile.width)));
            let reader = TileHashes::new(size, |tile| Ok::<_, Infallible>(tiles[&tile].clone()));
            prop_assert_eq!(tree::root(size, &reader), Ok(frontier.root()));
            prop_assert_eq!(&RightEdge::read(size, |tile| Ok::<_, Infallible>(tiles[&tile].clone())).unwrap(), &edge);
            let index = at.index(usize::try_from(size).unwrap()) as u64;
            let Ok(proof) = tree::inclusion_proof(index, size, &reader);
            prop_assert_eq!(tree::verify_inclusion(index, size, &leaf_hash(&index.to_be_bytes()), &proof, &frontier.root()), Ok(()));
            let old = 1 + old.index(usize::try_from(size).unwrap()) as u64;
            let Ok(proof) = tree::consistency_proof(old, size, &reader);
            let old_root = tree::root_of((0..old).map(|i| leaf_hash(&i.to_be_bytes())));
            prop_assert_eq!(tree::verify_consistency(old, &old_root, size, &frontier.root(), &proof), Ok(()));
        }
    }
}
