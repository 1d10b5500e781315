//! Sealing the keys of packs anew, under the newest of the plant's keys, so that an older one can be destroyed
//! (`docs/spec/rotation.md`). A sealed key is overwritten where it lies, which a crash may leave half done; so what is to be
//! written is durable before, and whoever opens the archive next writes it again.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{
    PackArchive,
    format::{PackKey, Resealed, WRAPPED_KEY},
    io_error, pack_name, pack_numbers,
};
use crate::ports::{
    archive::{ArchiveError, RetentionClass, is_day},
    sealer::Sealer,
};

/// Below the archive: the sealed keys that are being written, one JSON object a line.
const JOURNAL: &str = "resealing";

/// What became of the packs' keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResealedPacks {
    pub packs: u64,
    /// That open under no key of the plant, and stay as they are.
    pub unopened: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Below the archive: class, day, name.
    pack: [String; 3],
    /// The sealed key in hex.
    key: String,
}

impl PackArchive {
    /// Seals the key of every pack under `newest`. Nobody else may use the archive meanwhile.
    ///
    /// # Errors
    /// [`ArchiveError::Io`]; then it is finished by whoever opens the archive next, or has not begun.
    pub fn reseal(&self, newest: &dyn Sealer) -> Result<ResealedPacks, ArchiveError> {
        let (mut lines, mut done) = (Vec::new(), ResealedPacks::default());
        let failed = |error| io_error(&self.root, error);
        for class in names(&self.root).map_err(failed)? {
            let Ok(name) = RetentionClass::new(&class) else { continue };
            for day in names(&self.root.join(&class)).map_err(failed)?.into_iter().filter(|day| is_day(day)) {
                let folder = self.root.join(&class).join(&day);
                for number in pack_numbers(&folder).map_err(failed)? {
                    let path = folder.join(pack_name(number));
                    let file = File::open(&path).map_err(|error| io_error(&path, error))?;
                    let resealed = PackKey::reseal(&file, &*self.sealer, newest, (&name, &day, number));
                    match resealed.map_err(|error| io_error(&path, error))? {
                        Resealed::Stays => {}
                        Resealed::Unopened => done.unopened += 1,
                        Resealed::Sealed(key) => lines.push(Line {
                            pack: [class.clone(), day.clone(), pack_name(number)],
                            key: data_encoding::HEXLOWER.encode(&key),
                        }),
                    }
                }
            }
        }
        done.packs = lines.len() as u64;
        write_journal(&self.root, &lines).map_err(failed)?;
        finish(&self.root).map_err(failed)?;
        Ok(done)
    }
}

/// Writes what an interrupted run left to be written.
pub(super) fn finish(root: &Path) -> io::Result<()> {
    let journal = root.join(JOURNAL);
    let text = match fs::read_to_string(&journal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    for line in text.lines() {
        let Line { pack: [class, day, name], key } = serde_json::from_str(line)?;
        let key = data_encoding::HEXLOWER.decode(key.as_bytes()).ok().filter(|key| key.len() == WRAPPED_KEY.len());
        let key = key.ok_or_else(|| io::Error::other("a line of it is no sealed key of a pack"))?;
        let is_pack = RetentionClass::new(&class).is_ok() && is_day(&day) && !name.contains('/');
        if !is_pack {
            return Err(io::Error::other("a line of it names no pack"));
        }
        match File::options().write(true).open(root.join(class).join(day).join(name)) {
            // Destroyed and removed since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => {
                let file = file?;
                file.write_all_at(&key, WRAPPED_KEY.start as u64)?;
                file.sync_data()?;
            }
        }
    }
    fs::remove_file(&journal)?;
    File::open(root)?.sync_all()
}

fn write_journal(root: &Path, lines: &[Line]) -> io::Result<()> {
    let (path, temporary) = (root.join(JOURNAL), root.join(format!("{JOURNAL}.tmp")));
    let mut file = File::create(&temporary)?;
    for line in lines {
        serde_json::to_writer(&mut file, line)?;
        file.write_all(b"\n")?;
    }
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(root)?.sync_all()
}

/// The folders in a folder, in order.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for item in fs::read_dir(folder)? {
        let item = item?;
        if item.file_type()?.is_dir() {
            names.extend(item.file_name().into_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}
