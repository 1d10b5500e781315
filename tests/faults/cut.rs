//! A power cut at a random moment, modelled from the record of a run.
//!
//! What a disk may look like then: bytes that were synced are there. Of the bytes written since, any page may be there,
//! be as it was, or be zeros beyond the old end. A name that was created, renamed or removed since its folder was synced
//! may be there or not, each for itself: that is harsher than any journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Tally,
    check::{self, check},
    dice::Dice,
    forget::{DELETED, ERASED, Forgotten},
    trace::{self, Call},
    victim::{self, Ack, Work},
};

const PAGE_BYTES: usize = 4096;

/// A run to be cut.
pub struct Scene {
    pub name: &'static str,
    /// What was on the disk before, all of it synced.
    base: Disk,
    data: PathBuf,
    calls: Vec<Call>,
    lines: (usize, usize),
}

pub fn run(wanted: u64, dice: &mut Dice, tally: &mut Tally) {
    if !trace::has_strace() {
        tally.skipped = Some("no strace that can inject".into());
        return;
    }
    let workshop = check::workshop();
    let mut scenes: Vec<Scene> = Vec::new();
    let (mut acknowledged, mut torn, mut forgotten, mut gone_on) = (0, 0, 0, 0);
    while tally.happened < wanted {
        // A new record now and then: threads meet differently each time.
        if tally.happened.is_multiple_of(500) {
            scenes = record_scenes(workshop.path(), tally.happened, "");
        }
        let (cut, found) = cut_one(&scenes, workshop.path(), dice);
        acknowledged += cut.acks.len();
        torn += u64::from(cut.lost);
        match found {
            Ok(after) => {
                forgotten += u64::from(after.erasures > 0);
                gone_on += u64::from(after.erasures > 0 && !cut.told.contains(ERASED));
            }
            Err(reason) => tally.broken.push(format!("{} cut at line {}: {reason}", cut.scene, cut.line)),
        }
        tally.happened += 1;
    }
    if acknowledged == 0 || torn == 0 {
        tally.broken.push("nothing was acknowledged or nothing was lost: the cuts prove nothing".into());
    }
    if forgotten == 0 || gone_on == 0 {
        tally.broken.push("no cut met an erasure, or none in the middle of one: the cuts prove nothing of it".into());
    }
    tally.note = format!(
        "{acknowledged} acknowledgements held, {torn} cuts lost unsynced bytes or names, {forgotten} left an erasure done, \
         {gone_on} of them before it had returned"
    );
}

/// What a cut met.
pub struct Cut {
    scene: &'static str,
    line: usize,
    acks: Vec<Ack>,
    /// What had returned of the forgetting.
    told: BTreeSet<&'static str>,
    /// Whether something that had been written is not there.
    lost: bool,
}

/// Cuts one of the runs at one moment, starts on what is left, and checks.
pub fn cut_one(scenes: &[Scene], workshop: &Path, dice: &mut Dice) -> (Cut, Result<Forgotten, String>) {
    let scene = &scenes[dice.index(scenes.len())];
    let line = scene.lines.0 + dice.index(scene.lines.1 - scene.lines.0 + 2);
    let target = workshop.join("after");
    let _ = fs::remove_dir_all(&target);
    let (acks, told, lost) = scene.cut(line, dice, &target);
    let found = check(&target, &acks).and_then(|after| match () {
        () if told.contains(ERASED) && after.erasures == 0 => {
            Err("an erasure that had returned is not in the log".into())
        }
        () if told.contains(DELETED) && !after.packs => {
            Err("a run of retention that had returned is not in the log".into())
        }
        () => Ok(after),
    });
    (Cut { scene: scene.name, line, acks, told, lost }, found)
}

/// Records victims, with this planted in them.
pub fn record_scenes(workshop: &Path, round: u64, planted: &str) -> Vec<Scene> {
    let work = Work { first: 0, count: 24, group: 3, close: true, forget: false };
    let mut scenes = Vec::new();
    for name in ["a new log", "a log that was killed", "a bundle filled", "an erasure", "an erasure over a full bundle"]
    {
        let folder = workshop.join(format!("{round}-{}", scenes.len()));
        let data = folder.join("data");
        victim::create(&data);
        let first = match name {
            "a new log" => 0,
            "a log that was killed" | "an erasure" => run_before(&data, &folder, 20),
            _ => run_before(&data, &folder, 246),
        };
        let before = Disk::read(&data);
        let (calls, _) = trace::record(
            &data,
            &folder,
            &Work { first, forget: name.starts_with("an erasure"), ..work.clone() },
            planted,
        );
        scenes.push(Scene::new(name, before, &data, calls));
    }
    scenes
}

/// An earlier run that left without closing; returns the next frame.
fn run_before(data: &Path, folder: &Path, count: u64) -> u64 {
    let work = Work { first: 0, count, group: 8, close: false, forget: false };
    let (acks, output) = victim::run(None, data, folder, &work);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    acks.len() as u64
}

impl Scene {
    fn new(name: &'static str, base: Disk, data: &Path, calls: Vec<Call>) -> Self {
        let touching = |call: &&Call| call.touches(data);
        let first = calls.iter().find(touching).expect("a victim touches its data").began;
        let last = calls.iter().rfind(touching).expect("a victim touches its data").ended;
        Self { name, base, data: data.to_owned(), calls, lines: (first, last) }
    }

    /// Lays the disk out as it may be after a cut before `line`, and returns what had been acknowledged, what was told
    /// of the forgetting, and whether anything was lost.
    fn cut(&self, line: usize, dice: &mut Dice, target: &Path) -> (Vec<Ack>, BTreeSet<&'static str>, bool) {
        let mut disk = self.base.clone();
        let (mut acks, mut told) = (Vec::new(), BTreeSet::new());
        // Beginnings and ends in the order of the record.
        let mut moments: Vec<(usize, bool, &Call)> = Vec::new();
        for call in &self.calls {
            moments.push((call.began, false, call));
            moments.push((call.ended, true, call));
        }
        moments.sort_by_key(|(at, is_end, _)| (*at, *is_end));
        for (at, is_end, call) in moments.into_iter().take_while(|(at, ..)| *at < line) {
            match (call.name.as_str(), is_end) {
                ("sendto", false) => {
                    let text = String::from_utf8_lossy(&call.bytes(1)).into_owned();
                    acks.extend(Ack::parse(&text));
                    told.extend([ERASED, DELETED].into_iter().find(|word| *word == text));
                }
                ("fsync" | "fdatasync" | "syncfs", false) => disk.begin_sync(call, &self.data),
                ("fsync" | "fdatasync" | "syncfs", true) => disk.end_sync(call),
                (_, true) if call.result >= 0 => disk.change(at, call, &self.data),
                _ => {}
            }
        }
        let lost = disk.lay_out(dice, target);
        // What a victim never touches and nobody wrote.
        check::copy(&self.data.join("keys"), &target.join("keys"));
        (acks, told, lost)
    }
}

/// A file's bytes, on the disk and in the page cache.
#[derive(Clone, Default)]
struct File {
    synced: Vec<u8>,
    now: Vec<u8>,
}

/// What a name led to since its folder was synced: at first what is on the disk for certain.
#[derive(Clone)]
struct Name {
    states: Vec<(usize, Option<usize>)>,
}

/// The data directory, with paths relative to it.
#[derive(Clone, Default)]
pub struct Disk {
    files: Vec<File>,
    names: BTreeMap<PathBuf, Name>,
    /// Folders, with whether their own name is durable.
    folders: BTreeMap<PathBuf, bool>,
    /// Folders that were removed, which were empty then, and when.
    removed: BTreeMap<PathBuf, usize>,
    /// Syncs under way, by thread: what they make durable.
    syncs: BTreeMap<u32, Sync>,
}

#[derive(Clone)]
struct Sync {
    at: usize,
    files: Vec<(usize, Vec<u8>)>,
    folders: BTreeSet<PathBuf>,
}

impl Disk {
    fn read(data: &Path) -> Self {
        let mut disk = Self::default();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            disk.folders.insert(folder.clone(), true);
            for item in fs::read_dir(data.join(&folder)).expect("a folder") {
                let item = item.expect("an item");
                let path = folder.join(item.file_name());
                if item.path().is_dir() {
                    folders.push(path);
                } else {
                    let bytes = fs::read(item.path()).expect("a file");
                    disk.names.insert(path, Name { states: vec![(0, Some(disk.files.len()))] });
                    disk.files.push(File { synced: bytes.clone(), now: bytes });
                }
            }
        }
        disk
    }

    fn file_at(&self, path: &Path) -> Option<usize> {
        self.names.get(path)?.states.last()?.1
    }

    /// The file behind a descriptor, which may have lost its name since it was opened: `None` when no cut brings it back.
    fn file_behind(&self, call: &Call, at: usize, path: &Path) -> Option<usize> {
        if !call.is_nameless(at) {
            return self.file_at(path);
        }
        let (_, before) = self.names.get(path)?.states.split_last()?;
        before.iter().rev().find_map(|(_, file)| *file)
    }

    fn set_name(&mut self, at: usize, path: PathBuf, file: Option<usize>) {
        // A name that is new was for certain not there.
        let name = self.names.entry(path).or_insert(Name { states: vec![(0, None)] });
        name.states.push((at, file));
    }

    fn change(&mut self, at: usize, call: &Call, data: &Path) {
        let inside = |path: PathBuf| path.strip_prefix(data).map(Path::to_owned).ok();
        match call.name.as_str() {
            "openat" => self.open(at, call, inside(call.path_at(0))),
            "write" | "pwrite64" => {
                let Some(file) = call.file(0).and_then(inside).and_then(|path| self.file_behind(call, 0, &path)) else {
                    return;
                };
                let (bytes, now) = (call.bytes(1), &mut self.files[file].now);
                let written = usize::try_from(call.result).expect("not negative");
                // `write` is only used on files that are written once from their start to their end.
                let offset = if call.name == "pwrite64" { call.number(3) } else { now.len() };
                now.resize(now.len().max(offset + written), 0);
                now[offset..offset + written].copy_from_slice(&bytes[..written]);
            }
            "ftruncate" => {
                let Some(file) = call.file(0).and_then(inside).and_then(|path| self.file_behind(call, 0, &path)) else {
                    return;
                };
                self.files[file].now.resize(call.number(1), 0);
            }
            "rename" => {
                let (Some(from), Some(to)) = (inside(call.path(0)), inside(call.path(1))) else { return };
                let file = self.file_at(&from);
                self.set_name(at, to, file);
                self.set_name(at, from, None);
            }
            "unlink" => {
                if let Some(path) = inside(call.path(0)) {
                    self.set_name(at, path, None);
                }
            }
            "unlinkat" if call.arguments.last().is_some_and(|flags| flags == "0") => {
                if let Some(path) = inside(call.path_at(0)) {
                    self.set_name(at, path, None);
                }
            }
            "mkdir" => {
                if let Some(path) = inside(call.path(0)) {
                    self.folders.entry(path).or_insert(false);
                }
            }
            // An empty folder that is there or not makes no difference to anyone; but once it is gone for certain, so is
            // every name in it.
            "unlinkat" | "rmdir" => {
                let path = if call.name == "rmdir" { call.path(0) } else { call.path_at(0) };
                self.removed.extend(inside(path).map(|path| (path, at)));
            }
            other => {
                assert!(!call.touches(data), "{other} changes the disk, and the model does not know it: {call:?}");
            }
        }
    }

    fn open(&mut self, at: usize, call: &Call, path: Option<PathBuf>) {
        let (Some(path), Some(flags)) = (path, call.arguments.get(2)) else { return };
        match self.file_at(&path) {
            Some(file) if flags.contains("O_TRUNC") => self.files[file].now.clear(),
            None if flags.contains("O_CREAT") => {
                self.files.push(File::default());
                self.set_name(at, path, Some(self.files.len() - 1));
            }
            _ => {}
        }
    }

    fn begin_sync(&mut self, call: &Call, data: &Path) {
        let Some(path) = call.file(0).and_then(|path| path.strip_prefix(data).map(Path::to_owned).ok()) else { return };
        let mut sync = Sync { at: call.began, files: Vec::new(), folders: BTreeSet::new() };
        if call.name == "syncfs" {
            sync.files = (0..).zip(&self.files).map(|(file, content)| (file, content.now.clone())).collect();
            sync.folders = self.folders.keys().cloned().collect();
        } else if self.folders.contains_key(&path) {
            sync.folders.insert(path);
        } else if let Some(file) = self.file_behind(call, 0, &path) {
            sync.files.push((file, self.files[file].now.clone()));
        }
        self.syncs.insert(call.thread, sync);
    }

    fn end_sync(&mut self, call: &Call) {
        let Some(sync) = self.syncs.remove(&call.thread).filter(|_| call.result == 0) else { return };
        for (file, bytes) in sync.files {
            self.files[file].synced = bytes;
        }
        let in_synced = |path: &Path| path.parent().is_some_and(|parent| sync.folders.contains(parent));
        for (path, name) in &mut self.names {
            let folder = path.parent().expect("a file lies in a folder");
            let removed = self.removed.get(folder).filter(|at| **at < sync.at && in_synced(folder));
            let certain = if in_synced(path) { Some(sync.at) } else { removed.copied() };
            if let Some(until) = certain {
                let durable = name.states.iter().rposition(|(at, _)| *at < until).unwrap_or(0);
                name.states.drain(..durable);
            }
        }
        for (path, durable) in &mut self.folders {
            *durable |= in_synced(path);
        }
    }

    /// Writes what is left; true when something that was written is not there.
    fn lay_out(&self, dice: &mut Dice, target: &Path) -> bool {
        let luck = match dice.below(4) {
            0 => Luck::Nothing,
            1 => Luck::Everything,
            _ => Luck::Chance,
        };
        let mut lost = false;
        let mut there: BTreeSet<&Path> = BTreeSet::new();
        for (folder, durable) in &self.folders {
            let in_folder = folder.parent().is_none_or(|parent| there.contains(parent));
            if in_folder && (*durable || luck.keeps(dice)) {
                there.insert(folder);
                fs::create_dir_all(target.join(folder)).expect("a folder");
            } else {
                lost = true;
            }
        }
        for (path, name) in &self.names {
            let state = match luck {
                Luck::Nothing => 0,
                Luck::Everything => name.states.len() - 1,
                Luck::Chance => dice.index(name.states.len()),
            };
            lost |= state + 1 < name.states.len();
            let (Some(file), true) = (name.states[state].1, there.contains(path.parent().expect("below"))) else {
                continue;
            };
            let bytes = self.files[file].after(luck, dice);
            lost |= bytes != self.files[file].now;
            fs::write(target.join(path), bytes).expect("a file");
        }
        lost
    }
}

/// What becomes of that which was not synced.
#[derive(Clone, Copy)]
enum Luck {
    Nothing,
    Everything,
    Chance,
}

impl Luck {
    fn keeps(self, dice: &mut Dice) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Chance => dice.coin(),
        }
    }
}

impl File {
    fn after(&self, luck: Luck, dice: &mut Dice) -> Vec<u8> {
        match luck {
            Luck::Nothing => self.synced.clone(),
            Luck::Everything => self.now.clone(),
            Luck::Chance => self.mixed(dice),
        }
    }

    /// Each page is the old or the new one, and the end is the old, the new or one between.
    fn mixed(&self, dice: &mut Dice) -> Vec<u8> {
        if self.synced == self.now {
            return self.now.clone();
        }
        let (shorter, longer) = (self.synced.len().min(self.now.len()), self.synced.len().max(self.now.len()));
        let length = match dice.below(3) {
            0 => self.synced.len(),
            1 => self.now.len(),
            _ => shorter + dice.index(longer - shorter + 1),
        };
        let mut bytes = vec![0; length];
        for start in (0..length).step_by(PAGE_BYTES) {
            let source = if dice.coin() { &self.now } else { &self.synced };
            let end = (start + PAGE_BYTES).min(length).min(source.len());
            if start < end {
                bytes[start..end].copy_from_slice(&source[start..end]);
            }
        }
        bytes
    }
}
