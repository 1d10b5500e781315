//! Another program takes the whole disk at once, in the middle of the load; and the whole disk of the backups, in turn the
//! one that an erasure needs.

use std::{
    collections::HashMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tonic::Code;

use crate::{
    Tally,
    dice::Dice,
    disk::{Filler, SmallDisk},
    harness::{Plant, Service, block_on, lineproof, part, text},
    retries::{Frames, assert_whole, serve},
};

const DISK_BYTES: u64 = 96 << 20;
const RESERVE_BYTES: u64 = 4 << 20;

pub fn run(wanted: u64, dice: &mut Dice, tally: &mut Tally) {
    let (mut kept_on, mut ended) = (0, 0);
    for _ in 0..wanted {
        let disk = match SmallDisk::mount(DISK_BYTES) {
            Ok(disk) => disk,
            Err(why) => return tally.skipped = Some(why),
        };
        let root = disk.root().to_owned();
        let plant = Plant::below(root.clone(), disk);
        plant.edit_config("disk_reserve_bytes = 268435456", &format!("disk_reserve_bytes = {RESERVE_BYTES}"));
        let Some(service) = serve(&plant, tally) else { return };
        let mut acknowledged = HashMap::new();
        let frames = Arc::new(Frames::new());
        let (full, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        block_on(async {
            let mut inspection = service.inspection().await;
            let load = tokio::spawn({
                let (frames, full, refused) = (frames.clone(), full.clone(), refused.clone());
                async move {
                    let mut answered = Vec::new();
                    for number in 1.. {
                        match inspection.inspect(frames.request(0, number)).await {
                            Ok(answer) => answered.push((number, answer.into_inner().entry_index)),
                            Err(status) => {
                                refused.store(true, Ordering::Relaxed);
                                return (answered, status, full.load(Ordering::Relaxed));
                            }
                        }
                    }
                    unreachable!("it ends with a refusal")
                }
            });
            tokio::time::sleep(Duration::from_millis(300 + dice.below(1500))).await;
            let mut filler = Filler::new(&root);
            full.store(true, Ordering::Relaxed);
            while !refused.load(Ordering::Relaxed) {
                filler.fill(0);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (answered, status, was_full) = load.await.expect("the load does not panic");
            acknowledged.extend(answered.into_iter().map(|(number, index)| ((0, number), index)));
            if !was_full || !matches!(status.code(), Code::ResourceExhausted | Code::Unavailable | Code::Internal) {
                tally.broken.push(format!("an unclear refusal: {status}"));
            }
        });
        // A write that met the last byte stops the log for good; then the process ends, and the next start verifies.
        let mut service = Some(service);
        let alive = service.as_mut().is_some_and(|service| service.child.try_wait().is_ok_and(|ended| ended.is_none()));
        if alive {
            kept_on += 1
        } else {
            ended += 1
        }
        let _ = service.take().map(|service| if alive { service.stop() } else { service.wait() });
        let Some(service) = serve(&plant, tally) else { return };
        block_on(async {
            let mut inspection = service.inspection().await;
            let number = 1_000_000;
            match inspection.inspect(frames.request(0, number)).await {
                Ok(answer) => drop(acknowledged.insert((0, number), answer.into_inner().entry_index)),
                Err(status) => tally.broken.push(format!("no verdict with room again: {status}")),
            }
        });
        service.stop();
        assert_whole(&plant, &acknowledged, tally);
        if let Err(reason) = backup_without_room() {
            tally.broken.push(format!("a backup without room: {reason}"));
        }
        if let Err(reason) = erasure_without_room() {
            tally.broken.push(format!("an erasure without room: {reason}"));
        }
        tally.happened += 1;
    }
    tally.note = format!("the service kept on {kept_on} times and ended for the next start {ended} times");
}

/// Runs a command that must end like this, and returns what it said.
fn runs(plant: &Plant, arguments: &[&str], ends_well: bool) -> Result<String, String> {
    runs_with(&mut lineproof(), plant, arguments, ends_well)
}

fn runs_with(command: &mut Command, plant: &Plant, arguments: &[&str], ends_well: bool) -> Result<String, String> {
    command.args(arguments).current_dir(plant.folder()).env("LINEPROOF_DATA", plant.data());
    let output = command.output().map_err(|error| error.to_string())?;
    let said = text(&output);
    if output.status.success() == ends_well { Ok(said) } else { Err(format!("{arguments:?}: {said}")) }
}

fn inspect(service: &Service, parts: std::ops::RangeInclusive<u64>) -> Result<(), String> {
    block_on(async {
        let mut client = service.inspection().await;
        for number in parts {
            client.inspect(part(number)).await.map_err(|status| format!("no verdict on part {number}: {status}"))?;
        }
        Ok(())
    })
}

/// The disk of the store is full to the last byte: no backup, the earlier one whole, verdicts as ever.
fn backup_without_room() -> Result<(), String> {
    let disk = SmallDisk::mount(16 << 20)?;
    let store = disk.mounted_at().join("store");
    let store = store.to_str().expect("a path of ours");
    let plant = Plant::new();
    let said = runs(&plant, &["backup", "--new-key", "backup.key"], true)?;
    let recipient = said.split_whitespace().find(|word| word.starts_with("age1")).ok_or("no public key")?.to_owned();
    let backup = ["backup", "--recipient", &recipient, "--to", store];
    let drill =
        ["restore", store, "--key", "data/log.vkey", "--identity", "backup.key", "--keys", "data/keys", "--drill"];
    let service = plant.serve();
    inspect(&service, 1..=3)?;
    let runs = |arguments: &[&str], ends_well: bool| {
        runs_with(
            disk.inside().arg(format!("--wd={}", plant.folder().display())).arg(lineproof().get_program()),
            &plant,
            arguments,
            ends_well,
        )
    };
    runs(&[&backup[..], &["--new-store"]].concat(), true)?;
    let names = runs(&["backup", "--to", store, "--list"], true)?;
    inspect(&service, 4..=6)?;
    let mut filler = Filler::new(disk.root());
    filler.fill(0);
    let said = runs(&backup, false)?;
    if !said.contains("No space left on device") {
        return Err(format!("an unclear error: {said}"));
    }
    if runs(&["backup", "--to", store, "--list"], true)? != names {
        return Err("a backup that failed is listed".into());
    }
    runs(&drill, true)?;
    inspect(&service, 7..=9)?;
    drop(filler);
    runs(&backup, true)?;
    runs(&drill, true)?;
    if runs(&["backup", "--to", store, "--list"], true)?.lines().count() != 2 {
        return Err("not both backups are listed".into());
    }
    let ended = service.stop();
    if ended.code == Some(0) { Ok(()) } else { Err(format!("the service ended with {:?}", ended.code)) }
}

/// The disk of the data is full to the last byte: the value is there and nothing says otherwise, or it is gone; with room
/// it goes, and verdicts go on.
fn erasure_without_room() -> Result<(), String> {
    let disk = SmallDisk::mount(DISK_BYTES)?;
    let root = disk.root().to_owned();
    let plant = Plant::below(root.clone(), disk);
    plant.edit_config("disk_reserve_bytes = 268435456", &format!("disk_reserve_bytes = {RESERVE_BYTES}"));
    let service = plant.try_serve().map_err(|ended| ended.log)?;
    inspect(&service, 1..=3)?;
    let erase = ["erase", "--part", "SN-00002", "--rule", "GDPR Art. 17", "--yes"];
    let mut filler = Filler::new(&root);
    filler.fill(0);
    let said = runs(&plant, &erase, false)?;
    if !["bytes free, under the reserve", "No space left on device", "not finished"]
        .iter()
        .any(|why| said.contains(why))
    {
        return Err(format!("an unclear error: {said}"));
    }
    drop(filler);
    // The log sees within seconds that there is room again.
    let begun = Instant::now();
    while let Err(reason) = runs(&plant, &erase, true) {
        if begun.elapsed() > Duration::from_secs(20) {
            return Err(reason);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    inspect(&service, 4..=6)?;
    if !runs(&plant, &["history", "--part", "SN-00002", "--json"], true)?.is_empty() {
        return Err("the value that was erased is found".into());
    }
    if service.stop().code != Some(0) {
        return Err("the service did not end well".into());
    }
    runs(&plant, &["fsck"], true).map(drop)
}
