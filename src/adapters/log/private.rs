//! Sealed private records of a full bundle, one file of 256 beside each entry bundle. The format is `docs/spec/log.md`.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    files::{self, at, damaged},
    wal::SEALED_BYTES_MAX,
};
use crate::{
    core::lineage::{
        private::PrivateField,
        tiles::{TILE_WIDTH, Tile, TileKind},
    },
    ports::{
        lineage::{PrivateRecord, ReadError},
        sealer::Sealer,
    },
    types::Sha256Digest,
};

const MAGIC: [u8; 8] = *b"lp-prv\r\n";
const VERSION: u32 = 1;
/// Magic, version, four zero bytes, the number of the first entry, and where each of 256 records ends.
const HEADER_BYTES: usize = 24 + 256 * 4;
/// Longest private record before it is sealed.
pub(super) const PLAIN_BYTES_MAX: usize = 4 * 1024;

/// The file of a bundle: the entry bundle's path under `private/`.
pub(super) fn path(dir: &Path, bundle: u64) -> PathBuf {
    let tile = Tile { kind: TileKind::Entries, index: bundle, width: 256 }.path();
    dir.join(tile.trim_start_matches("tile/entries/"))
}

pub(super) fn encode(bundle: u64, records: &[Arc<[u8]>]) -> Vec<u8> {
    assert_eq!(records.len() as u64, TILE_WIDTH, "only full bundles have a file of private records");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + records.iter().map(|record| record.len()).sum::<usize>());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(bundle * TILE_WIDTH).to_be_bytes());
    let mut end = 0;
    for record in records {
        end += u32::try_from(record.len()).expect("a sealed record has at most 8 KiB");
        bytes.extend_from_slice(&end.to_be_bytes());
    }
    records.iter().for_each(|record| bytes.extend_from_slice(record));
    bytes
}

/// One sealed record, read without the others.
pub(super) fn read(dir: &Path, index: u64) -> Result<Vec<u8>, ReadError> {
    let (bundle, offset) = (index / TILE_WIDTH, index % TILE_WIDTH);
    let path = path(dir, bundle);
    let file = File::open(&path).map_err(at(&path))?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(at(&path))?;
    let (start, length) = place(&path, bundle, &header, usize::try_from(offset).expect("an offset is below 256"))?;
    let mut sealed = vec![0; length];
    file.read_exact_at(&mut sealed, HEADER_BYTES as u64 + start).map_err(at(&path))?;
    Ok(sealed)
}

/// Where a record begins behind the header, and how long it is.
fn place(path: &Path, bundle: u64, header: &[u8; HEADER_BYTES], offset: usize) -> Result<(u64, usize), ReadError> {
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if header[..8] != MAGIC || number(8) != VERSION || header[16..24] != (bundle * TILE_WIDTH).to_be_bytes() {
        return Err(damaged(path, "its head is not that of private records of these entries"));
    }
    let end = number(24 + offset * 4);
    let start = if offset == 0 { 0 } else { number(20 + offset * 4) };
    let length = end.checked_sub(start).map(|length| length as usize).filter(|length| *length <= SEALED_BYTES_MAX);
    let length = length.ok_or_else(|| damaged(path, "a record ends before it starts, or is too long"))?;
    Ok((u64::from(start), length))
}

/// Writes the file of a bundle again in which `reseal` may give entries other records, whole or not at all, and wipes
/// the file that it replaces and what a crash may have left beside it. Nothing where the file is not there yet.
pub(super) fn rewrite(
    dir: &Path,
    bundle: u64,
    mut reseal: impl FnMut(u64, &[u8]) -> Result<Option<Arc<[u8]>>, ReadError>,
) -> Result<(), ReadError> {
    let path = path(dir, bundle);
    let Some(bytes) = files::read(&path, HEADER_BYTES + 256 * SEALED_BYTES_MAX)? else { return Ok(()) };
    let (header, records) =
        bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| damaged(&path, "it ends within its head"))?;
    let mut is_changed = false;
    let mut kept: Vec<Arc<[u8]>> = Vec::with_capacity(256);
    for (offset, index) in (bundle * TILE_WIDTH..(bundle + 1) * TILE_WIDTH).enumerate() {
        let (start, length) = place(&path, bundle, header, offset)?;
        let start = usize::try_from(start).expect("an offset of 32 bits");
        let record = records.get(start..start + length).ok_or_else(|| damaged(&path, "it ends within a record"))?;
        let resealed = reseal(index, record)?.filter(|resealed| **resealed != *record);
        is_changed |= resealed.is_some();
        kept.push(resealed.unwrap_or_else(|| record.into()));
    }
    if is_changed {
        files::replace_and_wipe(&path, &encode(bundle, &kept))?;
    }
    files::remove(&path.with_extension("tmp"))
}

/// Seals a record to its entry. A record that says nothing takes no space.
pub(super) fn seal(sealer: &dyn Sealer, leaf: &Sha256Digest, record: &PrivateRecord) -> Result<Vec<u8>, String> {
    if *record == PrivateRecord::default() {
        return Ok(Vec::new());
    }
    let plain = serde_json::to_vec(record).map_err(|error| error.to_string())?;
    if plain.len() > PLAIN_BYTES_MAX {
        return Err(format!("its private record has {} bytes; at most {PLAIN_BYTES_MAX} are allowed", plain.len()));
    }
    Ok(sealer.seal(&leaf.0, &plain))
}

/// A record without the openings of these fields, sealed anew; `None` when it has none of them. One that does not open
/// says nothing to anybody and goes whole.
pub(super) fn without(
    sealer: &dyn Sealer,
    leaf: &Sha256Digest,
    sealed: &[u8],
    fields: &[PrivateField],
) -> Option<Arc<[u8]>> {
    let Ok(mut record) = open(sealer, leaf, sealed) else { return Some([].into()) };
    let before = record.openings.len();
    record.openings.retain(|opening| !fields.contains(&opening.field));
    let is_changed = record.openings.len() < before;
    is_changed.then(|| seal(sealer, leaf, &record).expect("it is shorter than it was").into())
}

/// Opens what [`seal`] made.
pub(super) fn open(sealer: &dyn Sealer, leaf: &Sha256Digest, sealed: &[u8]) -> Result<PrivateRecord, String> {
    if sealed.is_empty() {
        return Ok(PrivateRecord::default());
    }
    let plain = sealer.open(&leaf.0, sealed).map_err(|error| error.to_string())?;
    serde_json::from_slice(&plain).map_err(|error| error.to_string())
}
