//! Bugs planted in our own code, which the checks of the other rows must find: a check that finds none of them proves
//! nothing. Only a build with the feature `planted-bugs` has them; `src/planted.rs` lists them.

use std::{fs, path::Path};

use lineproof::planted::plant;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::{
    Tally,
    check::{self, check},
    cut,
    dice::Dice,
    harness::{Plant, Service, block_on, lineproof, part},
    retries::{Frames, entries_of},
    tamper, trace,
    victim::{self, Work},
};

/// Cuts until a bug in the syncs must have shown.
const CUTS_MAX: u64 = 2_000;

/// Says what was found, or that nothing was.
type Catch = fn(&str, &Path, &mut Dice) -> Option<String>;

const BUGS: &[(&str, Catch)] = &[
    ("skip-wal-sync", power_cut),
    ("answer-before-sync", power_cut),
    ("skip-pack-sync", power_cut),
    ("skip-directory-sync", power_cut),
    ("drop-tail-at-recovery", start_after_kill),
    ("double-append-on-retry", start_after_kill),
    ("forget-anchor", rollback),
    ("sign-without-reading", wrong_tile),
    ("accept-flipped-tile", flipped_tile),
    ("ignore-client-digest", wrong_digest),
    ("ok-on-inference-error", failed_inference),
    ("answer-when-poisoned", poisoned_session),
    ("omit-gap", counter_jump),
];

pub fn run(_: u64, dice: &mut Dice, tally: &mut Tally) {
    if !trace::has_strace() {
        tally.skipped = Some("no strace that can inject".into());
        return;
    }
    for (bug, catch) in BUGS {
        let workshop = check::workshop();
        let found = catch(bug, workshop.path(), dice);
        plant("");
        tally.happened += 1;
        match found {
            Some(found) => println!("         {bug}: {found}"),
            None => tally.broken.push(format!("{bug} was planted and nobody noticed")),
        }
    }
    if let Err(reason) = flipped_in_memory() {
        tally.broken.push(format!("a bit that flips in memory while an entry is hashed: {reason}"));
    }
    tally.note = "and a bit flipped in memory was never signed".into();
}

fn power_cut(bug: &str, workshop: &Path, dice: &mut Dice) -> Option<String> {
    let scenes = cut::record_scenes(workshop, 0, bug);
    (0..CUTS_MAX).find_map(|_| cut::cut_one(&scenes, workshop, dice).1.err())
}

/// Acknowledged and left without a checkpoint; the bug is in the process that starts.
fn start_after_kill(bug: &str, workshop: &Path, _: &mut Dice) -> Option<String> {
    let data = workshop.join("data");
    victim::create(&data);
    let (acks, _) =
        victim::run(None, &data, workshop, &Work { first: 0, count: 5, group: 1, close: false, forget: false });
    plant(bug);
    check(&data, &acks).err()
}

fn rollback(bug: &str, workshop: &Path, _: &mut Dice) -> Option<String> {
    plant(bug);
    tamper::histories(workshop).broken.into_iter().next()
}

/// A tile is written wrong. Without the bug it is read back and never signed.
fn wrong_tile(bug: &str, workshop: &Path, _: &mut Dice) -> Option<String> {
    let run = |planted: &str| {
        let data = workshop.join(planted.replace(',', "-"));
        victim::create(&data);
        let work = Work { first: 0, count: 20, group: 2, close: true, forget: false };
        let (_, output) = victim::run(Some(victim::with(planted)), &data, workshop, &work);
        (output.status.success(), check::fsck(&data))
    };
    let (ended_well, _) = run("flip-tile");
    assert!(!ended_well, "a tile that was written wrong was signed without any bug");
    let (ended_well, found) = run(&format!("flip-tile,{bug}"));
    if ended_well { found.err() } else { Some("the log stopped".into()) }
}

fn flipped_tile(bug: &str, workshop: &Path, _: &mut Dice) -> Option<String> {
    let data = workshop.join("data");
    victim::create(&data);
    let (_, output) =
        victim::run(None, &data, workshop, &Work { first: 0, count: 20, group: 5, close: true, forget: false });
    assert!(output.status.success());
    let tile = data.join("log/tile/0/000.p/20");
    let flip = || {
        let mut bytes = fs::read(&tile).expect("a tile");
        bytes[40] ^= 4;
        fs::write(&tile, bytes).expect("a tile");
        victim::open(&data).map(|opened| opened.log.shutdown()).map_err(|error| error.to_string())?;
        check::fsck(&data)
    };
    assert_eq!(flip(), Ok(()), "healed without any bug");
    plant(bug);
    flip().err()
}

/// A service with these bugs.
fn serve(plant: &Plant, planted: &str) -> Service {
    let mut command = lineproof();
    command.arg("serve").arg("--data").arg(plant.data()).env("LINEPROOF_PLANTED", planted);
    Service::spawn(&mut command).unwrap_or_else(|ended| panic!("{}", ended.log))
}

fn wrong_digest(bug: &str, _: &Path, _: &mut Dice) -> Option<String> {
    let plant = Plant::new();
    let service = serve(&plant, bug);
    let mut request = part(1);
    request.image_blake3[0] ^= 1;
    let answered = block_on(async { service.inspection().await.inspect(request).await });
    match answered {
        Err(status) if status.code() == Code::InvalidArgument => None,
        other => Some(format!("answered {:?}", other.map(|answer| answer.into_inner().entry_index))),
    }
}

/// A session that computes wrong. Without the bug its frames are refused, and health and log say why.
fn poisoned_session(bug: &str, _: &Path, _: &mut Dice) -> Option<String> {
    let mut answered = None;
    for planted in ["wrong-canary".to_owned(), format!("wrong-canary,{bug}")] {
        let plant = Plant::new();
        let service = serve(&plant, &planted);
        let refused = || block_on(async { service.inspection().await.inspect(part(1)).await }).err();
        let first = refused().expect("the frame before which the canary failed is refused");
        assert_eq!(first.code(), Code::Internal, "{first}");
        assert!(first.message().contains("gives no verdict any more"), "{first}");
        let later = (0..20).map(|_| refused()).find(Option::is_none);
        if planted == "wrong-canary" {
            assert!(later.is_none(), "a poisoned session answered without any bug");
            let health = || block_on(service.health("recipe/machined-surface@1.1.0"));
            // Told by another task than the one that answers frames.
            assert!((0..10_000).any(|_| health() == ServingStatus::NotServing), "health does not tell");
            let ended = service.stop();
            assert!(ended.log.contains("a session is poisoned"), "{}", ended.log);
        } else {
            answered = later.map(|_| "a poisoned session answered".to_owned());
        }
    }
    answered
}

/// Inference is made to fail. Without the bug that is a refusal.
fn failed_inference(bug: &str, _: &Path, _: &mut Dice) -> Option<String> {
    let refused = |planted: &str| {
        let plant = Plant::new();
        let service = serve(&plant, planted);
        block_on(async { service.inspection().await.inspect(part(1)).await }).err().map(|status| status.code())
    };
    assert_eq!(refused("inference-error"), Some(Code::Internal), "a failed inference without any bug");
    let found = refused(&format!("inference-error,{bug}"));
    (found != Some(Code::Internal)).then(|| format!("not refused: {found:?}"))
}

/// A camera's counter jumps. Without the bug the log says so.
fn counter_jump(bug: &str, _: &Path, _: &mut Dice) -> Option<String> {
    let gaps = |planted: &str| {
        let plant = Plant::new();
        let service = serve(&plant, planted);
        let frames = Frames::new();
        block_on(async {
            let mut inspection = service.inspection().await;
            for number in [1, 2, 7] {
                inspection.inspect(frames.request(0, number)).await.expect("a verdict");
            }
        });
        service.stop();
        let is_gap = |entry: &Vec<u8>| String::from_utf8_lossy(entry).contains(r#""kind":"gap""#);
        entries_of(&plant.data()).iter().filter(|entry| is_gap(entry)).count()
    };
    assert_eq!(gaps("nothing"), 1, "a jump of the counter without any bug");
    (gaps(bug) == 0).then(|| "the counter jumped and the log does not say so".into())
}

/// What was hashed is not what was written: the log stops before it signs anything, and the next start hashes again.
/// The private record of such an entry is sealed to the wrong hash and stays closed; that is the price of bad memory.
fn flipped_in_memory() -> Result<(), String> {
    let workshop = check::workshop();
    let data = workshop.path().join("data");
    victim::create(&data);
    let work = Work { first: 0, count: 20, group: 2, close: true, forget: false };
    let (acks, output) = victim::run(Some(victim::with("flip-leaf")), &data, workshop.path(), &work);
    // The checkpoint over nothing, of the start.
    let checkpoint = fs::read_to_string(data.join("log/checkpoint")).unwrap_or_default();
    if output.status.success() || checkpoint.lines().nth(1) != Some("0") {
        return Err(format!("a checkpoint was signed over it: {checkpoint}"));
    }
    check::check_places(&data, &acks)
}
