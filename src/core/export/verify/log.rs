//! Checks a whole log: every entry and every tile, up to the signed root.

use std::io;

use rayon::prelude::*;

use super::{Findings, Problem, Step, complete, entry, gather, open_checkpoint};
use crate::{
    core::{
        export::{CHECKPOINT, consistency, keys::Keys},
        lineage::{
            checkpoint::CHECKPOINT_BYTES_MAX,
            entry::{ENTRY_BYTES_MAX, Entry},
            period::{Ledger, Mark, Place},
            rotation::{Rotation, RotationEvent, Said},
            tiles::{self, RightEdge, Tile, TileKind},
            tree::leaf_hash,
        },
    },
    types::Sha256Digest,
};

/// The newest checkpoint that satisfied the plant's policy (`docs/spec/witness.md`).
const WITNESSED: &str = "checkpoint.witnessed";
/// Bytes of a full bundle: 256 entries with their lengths.
const BUNDLE_BYTES_MAX: u64 = 256 * (ENTRY_BYTES_MAX as u64 + 2);
/// Bytes of a full tile: 256 hashes.
const TILE_BYTES: u64 = 256 * HASH_BYTES as u64;
const HASH_BYTES: usize = 32;
/// Bundles whose hashes are kept at a time, so that any log fits in memory.
const CHUNK_BUNDLES: usize = 256;

/// The files of a log in the C2SP tlog-tiles layout.
pub trait LogFiles: Sync {
    /// The bytes of the file at `path` below the log, `None` if it is not there.
    ///
    /// # Errors
    /// What the disk reports, also when the file has more than `bytes_max` bytes.
    fn read(&self, path: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>>;
}

/// Hashes every entry and every tile again. Calls `progress` with entries done and all entries.
#[must_use]
pub fn verify_log(files: &dyn LogFiles, keys: &Keys, progress: &mut dyn FnMut(u64, u64)) -> Findings {
    gather(|steps| check(files, keys, progress, steps))
}

fn check(
    files: &dyn LogFiles,
    keys: &Keys,
    progress: &mut dyn FnMut(u64, u64),
    steps: &mut Vec<Step>,
) -> Result<(), Problem> {
    let signed = open_checkpoint(&note_to_check(files, keys)?, keys, steps)?;
    let size = signed.facts.size;
    let latest = read(files, CHECKPOINT, CHECKPOINT_BYTES_MAX as u64)?;
    let latest = keys.open_checkpoint(&latest).map_err(Problem::Checkpoint)?.facts.size;
    if latest > size {
        steps.push(Step::NotWitnessed { entries: latest - size });
    }
    if size == 0 {
        return Err(Problem::EmptyLog);
    }
    let mut counts = Counts::default();
    let mut edge = RightEdge::default();
    let (bundles, mut tiles) = (size.div_ceil(256), 0);
    let (mut wrong_entry, mut ledger, mut wrong_period) = (None, Ledger::default(), None);
    let mut retired: Vec<String> = Vec::new();
    for start in (0..bundles).step_by(CHUNK_BUNDLES) {
        let end = (start + CHUNK_BUNDLES as u64).min(bundles);
        let checked: Vec<Result<Bundle, Problem>> =
            (start..end).into_par_iter().map(|index| Bundle::check(files, index, size)).collect();
        let mut full = Vec::new();
        for bundle in checked {
            let bundle = bundle?;
            counts.add(&bundle.counts);
            wrong_entry = wrong_entry.or(bundle.wrong_entry);
            retired.extend(bundle.retired);
            for (index, place, mark) in bundle.marks {
                let fault = ledger.take(index, place, mark).err();
                wrong_period = wrong_period.or(fault.map(|fault| Problem::Period { index, fault }));
            }
            bundle.leaves.into_iter().for_each(|leaf| edge.push(leaf, |tile, hashes| full.push((tile, hashes))));
        }
        tiles += check_tiles(files, &full)?;
        progress((end * 256).min(size), size);
    }
    let partial: Vec<(Tile, Vec<Sha256Digest>)> =
        edge.partials().map(|(tile, hashes)| (tile, hashes.to_vec())).collect();
    tiles += check_tiles(files, &partial)?;
    if edge.root() != signed.facts.root {
        return Err(Problem::Root { size });
    }
    if retired.contains(&signed.key.line()) {
        return Err(Problem::Retired { key: signed.key.key_id() });
    }
    // Only an entry that stands in the signed log can be called the plant's own mistake.
    if let Some(problem) = wrong_entry.or(wrong_period) {
        return Err(problem);
    }
    steps.push(Step::Tiles { tiles, bundles });
    let [ok, not_decidable, not_ok] = counts.verdicts;
    let decisions = ok + not_decidable + not_ok;
    let Counts { gaps, gap_frames, other, .. } = counts;
    steps.push(Step::Entries { decisions, gaps, gap_frames, other });
    steps.push(Step::Decisions { decisions, ok, not_ok, not_decidable });
    steps.push(Step::Root { root: signed.facts.root });
    let totals = ledger.totals();
    let outside = decisions.saturating_sub(totals.decided);
    steps.push(Step::Periods { totals, recounted: totals.periods, outside });
    complete(ledger.incomplete())
}

/// Who demands witnesses is shown the log as far as they vouch for it.
fn note_to_check(files: &dyn LogFiles, keys: &Keys) -> Result<Vec<u8>, Problem> {
    if keys.has_policy()
        && let Ok(note) = read(files, WITNESSED, CHECKPOINT_BYTES_MAX as u64)
    {
        return Ok(note);
    }
    read(files, CHECKPOINT, CHECKPOINT_BYTES_MAX as u64)
}

#[derive(Default)]
struct Counts {
    /// By [`Verdict`].
    verdicts: [u64; 3],
    gaps: u64,
    gap_frames: u64,
    other: u64,
}

impl Counts {
    /// Checks one entry and counts it.
    fn check(&mut self, index: u64, bytes: &[u8]) -> Result<Found, Problem> {
        let entry = entry::read(index, bytes)?;
        let found = Found::of(&entry, index, bytes);
        match entry {
            Entry::Decision(decision) => {
                consistency::check(&decision).map_err(|contradiction| Problem::Decision { index, contradiction })?;
                self.verdicts[decision.verdict as usize] += 1;
            }
            Entry::Gap(gap) => {
                self.gaps += 1;
                self.gap_frames = self.gap_frames.saturating_add(gap.count);
            }
            _ => self.other += 1,
        }
        Ok(found)
    }

    fn add(&mut self, more: &Self) {
        self.verdicts.iter_mut().zip(more.verdicts).for_each(|(sum, count)| *sum += count);
        self.gaps += more.gaps;
        self.gap_frames = self.gap_frames.saturating_add(more.gap_frames);
        self.other += more.other;
    }
}

/// What an entry says that others are held against.
enum Found {
    Nothing,
    /// Of a camera's counter.
    Mark(u64, Place, Mark),
    /// That a key signs no more.
    Retired(String),
}

impl Found {
    fn of(entry: &Entry, index: u64, bytes: &[u8]) -> Self {
        if let Some((place, mark)) = Mark::of(entry) {
            return Self::Mark(index, place, mark);
        }
        // Entries of kinds that are known say nothing of keys that retired.
        let said = matches!(entry, Entry::Unknown { .. }).then(|| Rotation::read(bytes)).flatten();
        match said {
            Some(Said { event: RotationEvent::Retired, vkey }) => Self::Retired(vkey),
            _ => Self::Nothing,
        }
    }
}

/// 256 entries, read and checked.
struct Bundle {
    leaves: Vec<Sha256Digest>,
    counts: Counts,
    /// What entries say of cameras' counters.
    marks: Vec<(u64, Place, Mark)>,
    /// Keys that entries say sign no more.
    retired: Vec<String>,
    /// The first entry that is not as it should be.
    wrong_entry: Option<Problem>,
}

impl Bundle {
    fn check(files: &dyn LogFiles, index: u64, size: u64) -> Result<Self, Problem> {
        let tile = Tile::in_log(TileKind::Entries, index, size).expect("only bundles within the log are asked for");
        let (bytes, width) = read_tile(files, tile, BUNDLE_BYTES_MAX)?;
        let entries = tiles::parse_bundle(&bytes, width).map_err(|error| Problem::Tile { path: tile.path(), error })?;
        let (leaves, marks) = (Vec::with_capacity(256), Vec::with_capacity(256));
        let mut bundle = Self { leaves, counts: Counts::default(), marks, retired: Vec::new(), wrong_entry: None };
        for (offset, bytes) in entries.iter().take(usize::from(tile.width)).enumerate() {
            bundle.leaves.push(leaf_hash(bytes));
            match bundle.counts.check(index * 256 + offset as u64, bytes) {
                Ok(Found::Mark(index, place, mark)) => bundle.marks.push((index, place, mark)),
                Ok(Found::Retired(vkey)) => bundle.retired.push(vkey),
                Ok(Found::Nothing) => {}
                Err(wrong) => bundle.wrong_entry = bundle.wrong_entry.or(Some(wrong)),
            }
        }
        Ok(bundle)
    }
}

/// Compares tiles on disk with the hashes the entries give.
fn check_tiles(files: &dyn LogFiles, tiles: &[(Tile, Vec<Sha256Digest>)]) -> Result<u64, Problem> {
    let compared: Vec<Result<(), Problem>> = tiles
        .par_iter()
        .map(|(tile, hashes)| {
            let (bytes, width) = read_tile(files, *tile, TILE_BYTES)?;
            let expected = tiles::encode_hash_tile(hashes);
            if bytes.starts_with(&expected) && bytes.len() == usize::from(width) * HASH_BYTES {
                return Ok(());
            }
            let same = bytes.chunks(HASH_BYTES).zip(expected.chunks(HASH_BYTES)).take_while(|(a, b)| a == b).count();
            let path = tile.path();
            match tile.kind {
                // Above a leaf hash there is one entry, which can be named.
                TileKind::Hashes(0) if same < hashes.len() && bytes.len() >= expected.len() => {
                    Err(Problem::EntryDiffers { index: tile.index * 256 + same as u64, tile: path })
                }
                _ => Err(Problem::TileDiffers { path }),
            }
        })
        .collect();
    compared.into_iter().collect::<Result<Vec<()>, Problem>>()?;
    Ok(tiles.len() as u64)
}

/// The bytes of a tile and the width they have. A log may delete a partial tile once the full one is there.
fn read_tile(files: &dyn LogFiles, tile: Tile, bytes_max: u64) -> Result<(Vec<u8>, u16), Problem> {
    match read(files, &tile.path(), bytes_max) {
        Err(Problem::MissingTile { .. }) if !tile.is_full() => {
            let full = read(files, &tile.full().path(), bytes_max);
            Ok((full.map_err(|_| Problem::MissingTile { path: tile.path() })?, 256))
        }
        read => Ok((read?, tile.width)),
    }
}

fn read(files: &dyn LogFiles, path: &str, bytes_max: u64) -> Result<Vec<u8>, Problem> {
    let read = files.read(path, bytes_max);
    let read = read.map_err(|error| Problem::Unreadable { place: path.into(), reason: error.to_string() })?;
    read.ok_or_else(|| Problem::MissingTile { path: path.into() })
}
