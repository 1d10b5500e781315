//! Somebody changes the data directory of a stopped service: single bits, ends of files, entries, whole histories.
//!
//! Detected means: `fsck` names it, or the next start refuses to append, or the next start writes the file again from the
//! write-ahead log (healed). What is not detected is red, wherever it lies.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Tally, check,
    dice::Dice,
    victim::{self, Work},
};

/// A full bundle with its private records, and a partial one.
const FRAMES: u64 = 300;

pub fn run(wanted: u64, dice: &mut Dice, tally: &mut Tally) {
    let workshop = check::workshop();
    *tally = histories(workshop.path());
    let data = workshop.path().join("data");
    check::fsck(&data).expect("an unchanged directory is whole");
    entries_changed_with_the_tree(&data, workshop.path(), dice, tally);
    let files = files(&data);
    let mut by_place: BTreeMap<String, u64> = BTreeMap::new();
    let mut healed = 0;
    while tally.happened < wanted {
        let path = &files[dice.index(files.len())];
        let name = path.strip_prefix(&data).expect("below").display().to_string();
        let good = fs::read(path).expect("a file");
        let (bytes, what) = change(&good, dice);
        // Behind the last record of a pack is nobody's image: a crash may leave bytes there, too.
        if name.starts_with("images/") && bytes.len() > good.len() {
            continue;
        }
        fs::write(path, &bytes).expect("a file");
        match detected(&data, &workshop.path().join("copy")) {
            Detected::Named => {}
            Detected::Healed => healed += 1,
            Detected::No => tally.broken.push(format!("{name}: {what}")),
        }
        fs::write(path, good).expect("a file");
        tally.happened += 1;
        *by_place.entry(name.split('/').next().expect("a name").to_owned()).or_default() += 1;
    }
    let told: Vec<String> = by_place.iter().map(|(place, count)| format!("{place} {count}")).collect();
    tally.note = format!("{}; {healed} healed", told.join(", "));
}

fn append(data: &Path, folder: &Path, first: u64, count: u64) {
    let (acks, output) = victim::run(None, data, folder, &Work { first, count, group: 8, close: true, forget: false });
    assert!(output.status.success() && acks.len() as u64 == count, "{}", String::from_utf8_lossy(&output.stderr));
}

/// Everything but the keys and the lock.
fn files(data: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![data.to_owned()]);
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).expect("a folder") {
            let path = item.expect("an item").path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::metadata(&path).is_ok_and(|file| file.len() > 0) && !path.starts_with(data.join("keys")) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// One bit, one byte, a lost end, a longer end, or two places exchanged.
fn change(good: &[u8], dice: &mut Dice) -> (Vec<u8>, String) {
    let mut bytes = good.to_vec();
    let at = dice.index(bytes.len());
    let what = match dice.below(20) {
        0 => {
            bytes.truncate(at);
            format!("cut at byte {at} of {}", good.len())
        }
        1 => {
            let more = 1 + dice.index(100);
            bytes.extend(dice.bytes(more));
            format!("{more} bytes longer than {}", good.len())
        }
        2 if bytes.len() > 64 => {
            let (from, to) = (dice.index(bytes.len() - 32), dice.index(bytes.len() - 32));
            (0..32).for_each(|offset| bytes.swap(from + offset, to + offset));
            format!("32 bytes at {from} exchanged with those at {to}")
        }
        3 => {
            bytes[at] = bytes[at].wrapping_add(1 + dice.bytes(1)[0] % 255);
            format!("byte {at} of {} is {:#04x}, was {:#04x}", good.len(), bytes[at], good[at])
        }
        _ => {
            let bit = dice.below(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} of {}", good.len())
        }
    };
    if bytes == good {
        bytes[at] ^= 1;
        return (bytes, format!("bit 0 of byte {at}"));
    }
    (bytes, what)
}

enum Detected {
    Named,
    Healed,
    No,
}

fn detected(data: &Path, copy: &Path) -> Detected {
    if check::fsck(data).is_err() {
        return Detected::Named;
    }
    let _ = fs::remove_dir_all(copy);
    check::copy(data, copy);
    match victim::open(copy) {
        Err(_) => Detected::Named,
        Ok(opened) if opened.report.read_only.is_some() => Detected::Named,
        // The start tells of a torn end in its entry, and every entry is still there.
        Ok(opened) if opened.report.rewritten_files > 0 || opened.report.torn_bytes > 0 => {
            opened.log.shutdown();
            let size = opened.report.size;
            drop(opened);
            if size == FRAMES && check::fsck(copy).is_ok() { Detected::Healed } else { Detected::No }
        }
        Ok(_) => Detected::No,
    }
}

/// Makes `data` below the workshop, and tries rollback, an older anchor, a fork, and files that are gone on copies of it.
pub fn histories(workshop: &Path) -> Tally {
    let (data, older) = (workshop.join("data"), workshop.join("older"));
    victim::create(&data);
    append(&data, workshop, 0, FRAMES - 40);
    check::copy(&data, &older);
    append(&data, workshop, FRAMES - 40, 40);
    let (data, older) = (&data, &older);
    let mut tally = Tally::default();
    let copy = workshop.join("history");
    let mut try_one = |what: &str, change: &dyn Fn(&Path)| {
        let _ = fs::remove_dir_all(&copy);
        check::copy(data, &copy);
        change(&copy);
        let at_start = match victim::open(&copy) {
            Err(_) => true,
            Ok(opened) => opened.report.read_only.is_some(),
        };
        if !at_start {
            tally.broken.push(format!("{what}: the start goes on"));
        }
        tally.happened += 1;
    };
    let back = |name: &'static str| {
        move |copy: &Path| {
            let (from, to) = (older.join(name), copy.join(name));
            if from.is_dir() {
                fs::remove_dir_all(&to).expect("a folder");
                check::copy(&from, &to);
            } else {
                fs::copy(from, to).expect("a file");
            }
        }
    };
    try_one("log and write-ahead log rolled back", &|copy| {
        ["log", "wal", "private"].into_iter().for_each(|name| back(name)(copy));
    });
    try_one("write-ahead log rolled back", &back("wal"));
    try_one("anchor rolled back", &back("anchor"));
    try_one("anchor gone", &|copy| fs::remove_file(copy.join("anchor")).expect("a file"));
    try_one("write-ahead log gone", &|copy| fs::remove_dir_all(copy.join("wal")).expect("a folder"));
    try_one("log and anchor of another history", &|copy| {
        let fork = workshop.join("fork");
        let _ = fs::remove_dir_all(&fork);
        check::copy(older, &fork);
        append(&fork, workshop, 5_000, 40);
        fs::copy(fork.join("anchor"), copy.join("anchor")).expect("a file");
    });
    try_one("another history behind this anchor", &|copy| {
        let fork = workshop.join("fork");
        for name in ["log", "wal", "private"] {
            fs::remove_dir_all(copy.join(name)).expect("a folder");
            check::copy(&fork.join(name), &copy.join(name));
        }
    });
    tally
}

/// Entries exchanged, or one changed, in bundle and hash tile alike, so that each tile fits its neighbours.
fn entries_changed_with_the_tree(data: &Path, workshop: &Path, dice: &mut Dice, tally: &mut Tally) {
    let copy = workshop.join("entries");
    for round in 0..8 {
        let _ = fs::remove_dir_all(&copy);
        check::copy(data, &copy);
        let bundle = copy.join("log/tile/entries/000");
        let mut entries = check::split(&fs::read(&bundle).expect("a bundle"));
        let (one, other) = (dice.index(256), dice.index(256));
        if round % 2 == 0 && one != other {
            entries.swap(one, other);
        } else {
            let verdict = br#""verdict":"OK""#;
            let at = entries[one].windows(verdict.len()).position(|window| window == verdict).expect("a verdict");
            entries[one][at + 11..at + 13].copy_from_slice(b"KO");
        }
        let joined = entries.iter().flat_map(|entry| {
            let length = u16::try_from(entry.len()).expect("short").to_be_bytes();
            length.into_iter().chain(entry.iter().copied())
        });
        fs::write(&bundle, joined.collect::<Vec<u8>>()).expect("a file");
        let hashes = entries.iter().flat_map(|entry| lineproof::core::lineage::tree::leaf_hash(entry).0);
        fs::write(copy.join("log/tile/0/000"), hashes.collect::<Vec<u8>>()).expect("a file");
        // Without the write-ahead log's copy nothing is healed: a forger would take that away, too.
        if matches!(detected(&copy, &workshop.join("copy")), Detected::No) {
            tally.broken.push(format!("entries {one} and {other} changed with their hash tile"));
        }
        tally.happened += 1;
    }
}
