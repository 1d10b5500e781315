//! Retention's side of the archive: whole packs are destroyed, their key first.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::{
    PackArchive,
    format::{PACK_HEADER_BYTES, RECORD_HEADER_BYTES, RecordHeader, WRAPPED_KEY, record_bytes},
    io_error, lock, pack_name, pack_numbers,
};
use crate::ports::archive::{ArchiveError, ImageShredder, PackFacts, PackName, RetentionClass, is_day};

impl ImageShredder for PackArchive {
    fn packs_before(&self, class: &RetentionClass, day: &str) -> Result<Vec<PackFacts>, ArchiveError> {
        let folder = self.root.join(class.as_str());
        let mut days = Vec::new();
        let items = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| io_error(&folder, error))?,
        };
        for item in items {
            let name = item.map_err(|error| io_error(&folder, error))?.file_name();
            days.extend(name.to_str().filter(|name| is_day(name) && *name < day).map(str::to_owned));
        }
        days.sort_unstable();
        let mut packs = Vec::new();
        for day in days {
            let folder = folder.join(&day);
            for number in pack_numbers(&folder).map_err(|error| io_error(&folder, error))? {
                let path = folder.join(pack_name(number));
                let (images, bytes) = survey(&path).map_err(|error| io_error(&path, error))?;
                packs.push(PackFacts { name: PackName { day: day.clone(), number }, images, bytes });
            }
        }
        Ok(packs)
    }

    fn destroy(&self, class: &RetentionClass, packs: &[PackName]) -> Result<(), ArchiveError> {
        let class_folder = self.root.join(class.as_str());
        for packs in packs.chunk_by(|a, b| a.day == b.day) {
            let folder = class_folder.join(&packs[0].day);
            // Nothing is written for that day any more; the next sync must not look for what is gone.
            lock(&self.shelves).values_mut().for_each(|shelves| shelves.retain(|shelf| shelf.folder != folder));
            for PackName { number, .. } in packs {
                let path = folder.join(pack_name(*number));
                shred(&path).map_err(|error| io_error(&path, error))?;
            }
            let is_empty = remove_if_empty(&folder).map_err(|error| io_error(&folder, error))?;
            let left = if is_empty { &class_folder } else { &folder };
            if is_empty {
                lock(&self.unsynced).folders.remove(&folder);
            }
            File::open(left).and_then(|left| left.sync_all()).map_err(|error| io_error(left, error))?;
        }
        Ok(())
    }
}

/// Overwrites the pack's key, which destroys its images, and removes the file.
fn shred(path: &Path) -> io::Result<()> {
    let file = match File::options().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    file.write_all_at(&[0; WRAPPED_KEY.end - WRAPPED_KEY.start], WRAPPED_KEY.start as u64)?;
    file.sync_data()?;
    fs::remove_file(path)
}

fn remove_if_empty(folder: &Path) -> io::Result<bool> {
    match fs::remove_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(error) => Err(error),
    }
}

/// How many images a pack has, up to a torn one, and how many bytes.
fn survey(path: &Path) -> io::Result<(u64, u64)> {
    let file = File::open(path)?;
    let (mut images, mut offset) = (0, PACK_HEADER_BYTES as u64);
    let mut header = [0; RECORD_HEADER_BYTES];
    while file.read_exact_at(&mut header, offset).is_ok() {
        let Some(record) = RecordHeader::parse(&header, offset) else { break };
        images += 1;
        offset += record_bytes(record.length as usize);
    }
    Ok((images, file.metadata()?.len()))
}
