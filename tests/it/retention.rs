//! Years go by: what is over goes, what is held or has no period stays, and every entry is there for ever.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
};

use lineproof::{
    adapters::{
        archive::PackArchive,
        keys::Keys,
        log::{
            LogConfig, LogHandle, LogStore, LogStoreReader,
            fsck::{Fsck, FsckReport},
        },
        sled_index::SledIndex,
    },
    core::lineage::{
        checkpoint::VerifierKey,
        entry::ClockState,
        private::{Opening, PrivateField},
        tree::{leaf_hash, verify_inclusion},
    },
    ports::{
        archive::{ImageArchive as _, ImageLocation, RetentionClass},
        clock::Clock,
        lineage::{Append, Appended, LogReader as _, LogWriter as _, PrivateRecord},
    },
    services::{
        history::Indexer,
        retention::{HoldRequest, RetentionBook, RetentionService, rules::ClassRule},
    },
    types::{Blake3Digest, EntryIndex, Instant, Verdict},
};

use crate::{
    erase::{fails, killed, private_keys, run},
    evidence::{entries, entries_told},
    faults::copy_folder,
    harness::{Plant, skipped, text},
    syscalls::{has_strace, injected},
};

const DECISION: &str = include_str!("../faults/decision.json");
const DAY_NANOS: i64 = 86_400_000_000_000;
/// 2016-01-01T12:00:00Z.
const BEGIN: i64 = 1_451_649_600_000_000_000;

/// A clock that is set by hand and, as every clock of the service, never goes back.
#[derive(Default)]
struct HandClock(AtomicI64);

impl HandClock {
    fn set(&self, nanos: i64) {
        self.0.fetch_max(nanos, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> (Instant, ClockState) {
        (Instant::from_unix_nanos(self.0.load(Ordering::SeqCst)).unwrap(), ClockState::Free)
    }
}

/// The parts of a service that retention needs, on a real disk.
struct Office {
    log: LogHandle,
    reader: Arc<LogStoreReader>,
    archive: Arc<PackArchive>,
    index: Arc<SledIndex>,
    clock: Arc<HandClock>,
    retention: RetentionService,
}

/// A decision and what was filed of it.
struct Filed {
    index: EntryIndex,
    class: &'static str,
    day: i64,
    image: ImageLocation,
    digest: Blake3Digest,
    serial: String,
}

fn rule(class: &str, verdicts: &[Verdict], products: &[&str], days: (Option<u32>, Option<u32>)) -> ClassRule {
    ClassRule {
        class: RetentionClass::new(class).unwrap(),
        verdicts: verdicts.to_vec(),
        products: products.iter().map(|product| product.parse().unwrap()).collect(),
        images_days: days.0,
        private_days: days.1,
        basis: String::new(),
    }
}

impl Office {
    fn open(data: &Path, rules: Vec<ClassRule>) -> Self {
        let keys = Keys::open(&data.join("keys")).unwrap();
        let archive = Arc::new(PackArchive::open(data.join("images"), keys.image_sealer()).unwrap());
        let index = Arc::new(SledIndex::open(&data.join("index"), keys.index_key()).unwrap().0);
        let config = LogConfig { disk_reserve_bytes: 0, ..LogConfig::new(data) };
        let signer = Arc::new(keys.log_signer());
        let (log, reader, _) =
            LogStore::open(config, signer, keys.private_sealer(), archive.clone(), index.clone()).unwrap();
        let (reader, clock) = (Arc::new(reader), Arc::new(HandClock::default()));
        let retention = RetentionService {
            reader: reader.clone(),
            writer: Arc::new(log.clone()),
            eraser: Arc::new(log.clone()),
            images: archive.clone(),
            index: index.clone(),
            clock: clock.clone(),
            book: Arc::new(RetentionBook::new(reader.clone(), index.clone())),
            rules,
            turn: Mutex::default(),
        };
        Self { log, reader, archive, index, clock, retention }
    }

    /// A decision at the clock's time with an image in `class`.
    fn decide(&self, number: u64, verdict: &str, product: &str, class: &'static str) -> Filed {
        let image = number.to_le_bytes().repeat(200);
        let digest = Blake3Digest::of(&image);
        let (time, _) = self.clock.now();
        let location = self.archive.put(&RetentionClass::new(class).unwrap(), time, digest, &image).unwrap();
        let opening = |field, value: String| {
            let salt = Blake3Digest::of(value.as_bytes()).0[..16].try_into().unwrap();
            Opening { field, salt, value }
        };
        let serial = format!("SN-{number:05}");
        let openings = vec![opening(PrivateField::Lot, "LOT".into()), opening(PrivateField::Serial, serial.clone())];
        let mut entry: serde_json::Value = serde_json::from_str(DECISION).unwrap();
        entry["frame"] = serde_json::json!({ "counter": number, "id": format!("f{number}") });
        entry["image"]["encoded"] = digest.to_string().into();
        entry["image"]["archive"] = class.into();
        for opening in &openings {
            entry["private"][opening.field.name()] = opening.commitment().to_string().into();
        }
        entry["product"] = product.into();
        entry["time"] = time.to_string().into();
        entry["verdict"] = verdict.into();
        if verdict == "NOT_OK" {
            entry["scores"]["decision"] = "0x3f800000 1".into();
            entry["scores"]["labels"][0]["score"] = "0x3f800000 1".into();
        }
        let private = PrivateRecord { openings, image_at: Some(location.to_string()) };
        let (done, outcome) = mpsc::channel();
        let append = Append { entry: entry.to_string().into_bytes(), private, frame: None };
        self.log.submit(append, Box::new(move |result| done.send(result).unwrap()));
        let Ok(Appended::Written(receipt)) = outcome.recv().unwrap() else { panic!("an entry is written") };
        let day = time.unix_nanos() / DAY_NANOS;
        Filed { index: receipt.index, class, day, image: location, digest, serial }
    }

    fn index_all(&self) {
        self.log.checkpoint_now().unwrap();
        Indexer::new(self.reader.clone(), self.index.clone()).catch_up(|_| {}).unwrap();
    }

    fn has_image(&self, filed: &Filed) -> bool {
        self.archive.get(&filed.image, filed.digest).is_ok()
    }

    fn has_serial(&self, filed: &Filed) -> bool {
        self.reader.private(filed.index).unwrap().openings.iter().any(|opening| opening.value == filed.serial)
    }
}

fn checked(data: &Path) -> FsckReport {
    let keys = Keys::open(&data.join("keys")).unwrap();
    let archive = PackArchive::open(data.join("images"), keys.image_sealer()).unwrap();
    let key: VerifierKey = keys.verifier_key().parse().unwrap();
    let config = LogConfig::new(data);
    let sealer = keys.private_sealer();
    let fsck = Fsck { config: &config, key: &key, sealer: &*sealer, archive: &archive, indexed_to: None };
    fsck.run(|_, _| {}).unwrap()
}

fn fsck_is_clean(data: &Path) -> (u64, u64) {
    let report = checked(data);
    assert!(report.is_clean(), "{:?}", report.problems);
    (report.erased, report.deleted_images)
}

#[test]
fn ten_years_go_by_and_each_class_keeps_what_its_periods_say_and_holds_win() {
    const STEP_DAYS: i64 = 25;
    const STEPS: i64 = 146;
    let dir = tempfile::tempdir().unwrap();
    Keys::create(&dir.path().join("keys"), "plant.example/log").unwrap();
    let rules = vec![
        rule("gear", &[], &["gear"], (Some(1000), None)),
        rule("good", &[Verdict::Ok], &[], (Some(30), Some(400))),
        rule("bad", &[Verdict::NotOk], &[], (None, Some(1800))),
    ];
    let office = Office::open(dir.path(), rules.clone());
    let days = |class: &str| rules.iter().find(|rule| rule.class.as_str() == class).unwrap();
    let (mut all, mut number): (Vec<Filed>, u64) = (Vec::new(), 0);
    let mut hold: Option<(usize, EntryIndex)> = None;
    let mut released = false;
    for step in 0..STEPS {
        office.clock.set(BEGIN + step * STEP_DAYS * DAY_NANOS);
        // A clock that is set back changes nothing.
        office.clock.set(BEGIN);
        for (verdict, product, class) in
            [("OK", "flange", "good"), ("OK", "flange", "good"), ("NOT_OK", "flange", "bad"), ("OK", "gear", "gear")]
        {
            number += 1;
            all.push(office.decide(number, verdict, product, class));
        }
        office.index_all();
        if step == 20 {
            // One of two good parts whose images share a pack.
            let held = all.len() - 4;
            let request =
                HoldRequest { rule: "case 1".into(), serial: Some(all[held].serial.clone()), ..HoldRequest::default() };
            hold = Some((held, office.retention.add_hold(&request).unwrap()));
        }
        if step == 100 {
            office.retention.release_hold(hold.unwrap().1, "case closed").unwrap();
            released = true;
        }
        office.index_all();
        let plan = office.retention.plan().unwrap();
        let (done, recorded) = office.retention.run().unwrap();
        assert_eq!(plan, done, "what is planned is done");
        assert!(!recorded.is_empty(), "every run is noted");
        office.index_all();
        if step % 12 != 0 && step != STEPS - 1 && !(18..30).contains(&step) && step != 100 {
            continue;
        }
        let today = (BEGIN + step * STEP_DAYS * DAY_NANOS) / DAY_NANOS;
        let is_over = |filed: &Filed, days: Option<u32>| days.is_some_and(|days| filed.day < today - i64::from(days));
        let held = hold.filter(|_| !released).map(|(held, _)| held);
        for (at, filed) in all.iter().enumerate() {
            let shares_held_pack = held.is_some_and(|held| at == held || at == held + 1);
            let image = !is_over(filed, days(filed.class).images_days) || shares_held_pack;
            assert_eq!(office.has_image(filed), image, "image {at} ({}) at step {step}", filed.class);
            let serial = !is_over(filed, days(filed.class).private_days) || held == Some(at);
            assert_eq!(office.has_serial(filed), serial, "serial {at} ({}) at step {step}", filed.class);
        }
    }
    // Nothing else was touched: every entry is there, and proven by the newest checkpoint.
    let checkpoint = office.reader.checkpoint().unwrap();
    for filed in all.iter().step_by(50) {
        let entry = office.reader.entry(filed.index).unwrap();
        let proof = office.reader.inclusion_proof(filed.index, checkpoint.size).unwrap();
        verify_inclusion(filed.index.0, checkpoint.size, &leaf_hash(&entry), &proof, &checkpoint.root).unwrap();
    }
    office.log.shutdown();
    drop(office);
    let (erased, deleted_images) = fsck_is_clean(dir.path());
    assert!(erased > 300 && deleted_images > 300, "{erased} {deleted_images}");
    // Notes say how much: as many values as are gone.
    let sum = |what: &str| -> u64 {
        let of = |entry: &String| serde_json::from_str::<serde_json::Value>(entry).unwrap()["destroyed"][what].as_u64();
        entries(dir.path(), "retention").iter().filter_map(of).sum()
    };
    assert_eq!(sum("serial"), sum("lot"), "each had both");
    assert_eq!((sum("serial") + sum("lot"), sum("images")), (erased, deleted_images));
}

#[test]
fn a_class_that_takes_more_than_before_is_looked_through_from_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    Keys::create(&dir.path().join("keys"), "plant.example/log").unwrap();
    let narrow = rule("short", &[Verdict::NotOk], &[], (None, Some(30)));
    let wide = ClassRule { verdicts: Vec::new(), ..narrow.clone() };
    let mut office = Office::open(dir.path(), vec![narrow]);
    office.clock.set(BEGIN);
    let bad = office.decide(1, "NOT_OK", "flange", "bad");
    let good = office.decide(2, "OK", "flange", "good");
    office.clock.set(BEGIN + 100 * DAY_NANOS);
    office.index_all();
    office.retention.run().unwrap();
    assert_eq!((office.has_serial(&bad), office.has_serial(&good)), (false, true));
    office.retention.rules = vec![wide];
    office.index_all();
    office.retention.run().unwrap();
    assert!(!office.has_serial(&good), "it was over before the class took it");
    office.log.shutdown();
    drop(office);
    assert_eq!(fsck_is_clean(dir.path()).0, 4);
}

#[test]
fn fsck_misses_an_image_that_a_hold_kept_when_it_goes_after_the_others() {
    let dir = tempfile::tempdir().unwrap();
    Keys::create(&dir.path().join("keys"), "plant.example/log").unwrap();
    let office = Office::open(dir.path(), vec![rule("bad", &[Verdict::NotOk], &[], (Some(30), None))]);
    office.clock.set(BEGIN);
    let held = office.decide(1, "NOT_OK", "flange", "bad");
    office.clock.set(BEGIN + DAY_NANOS);
    let other = office.decide(2, "NOT_OK", "flange", "bad");
    let request = HoldRequest { rule: "case 3".into(), serial: Some(held.serial.clone()), ..HoldRequest::default() };
    office.retention.add_hold(&request).unwrap();
    office.clock.set(BEGIN + 100 * DAY_NANOS);
    office.index_all();
    office.retention.run().unwrap();
    assert_eq!((office.has_image(&held), office.has_image(&other)), (true, false));
    // It is over, and only kept.
    office.index_all();
    let plan = office.retention.plan().unwrap();
    let kept: Vec<_> = plan.images.iter().map(|due| (due.packs.len(), due.kept)).collect();
    assert_eq!(kept, [(0, 1)]);
    office.log.shutdown();
    drop(office);
    assert_eq!(fsck_is_clean(dir.path()).1, 1);
    fs::remove_dir_all(dir.path().join("images/bad").join(&held.image.day)).unwrap();
    let report = checked(dir.path());
    assert_eq!((report.problem_count, report.deleted_images), (1, 1), "{:?}", report.problems);
    assert!(report.problems[0].contains("more packs of its class are gone"), "{:?}", report.problems);
}

/// A plant with parts that were decided in 2016, and periods that are long over.
fn long_ago() -> Plant {
    let plant = Plant::new();
    let office = Office::open(&plant.data(), Vec::new());
    office.clock.set(BEGIN);
    for number in 0..6 {
        let (verdict, class) = if number % 2 == 0 { ("NOT_OK", "bad") } else { ("OK", "ok_sample") };
        office.decide(number, verdict, "flange", class);
    }
    office.index_all();
    office.log.shutdown();
    drop(office);
    let classes = "[retention]\nevery_h = 24\n\n[[retention.class]]\nname = \"bad\"\nverdicts = [\"NOT_OK\"]\n\
                   images_days = 365\nprivate_days = 730\nbasis = \"contract\"\n\n[log]\n";
    plant.edit_config("\n[log]\n", &format!("\n{classes}"));
    plant
}

fn packs(plant: &Plant, class: &str) -> usize {
    fs::read_dir(plant.data().join("images").join(class))
        .map_or(0, |days| days.flat_map(|day| fs::read_dir(day.unwrap().path()).unwrap()).count())
}

#[test]
fn the_operator_sees_what_is_over_and_the_service_deletes_it_by_itself() {
    let plant = long_ago();
    let plan: serde_json::Value = serde_json::from_str(&run(&plant, &["retention", "plan", "--json"])).unwrap();
    assert_eq!((plan["due"][0]["images"].as_u64(), plan["due"][1]["values"].as_u64()), (Some(3), Some(6)), "{plan}");
    assert_eq!(packs(&plant, "bad"), 1);
    run(&plant, &["passport", "SN-00002", "--out", "old.tlog-proof"]);

    let hold = run(&plant, &["hold", "add", "--rule", "case 2", "--part", "SN-00002"]);
    let hold = hold.split([' ', ':']).nth(1).unwrap().to_owned();
    let said = run(&plant, &["retention", "run"]);
    assert!(said.contains("4 private values of 2 entries") && said.contains("1 kept because of holds"), "{said}");
    assert_eq!(packs(&plant, "bad"), 1, "an image in the pack is held");
    let again = run(&plant, &["retention", "run"]);
    assert!(again.contains("1 pack of images is over and kept because of holds"), "{again}");
    assert!(again.contains("1 entry with private values is over and kept because of holds"), "{again}");
    assert!(!again.contains("nothing is over"), "{again}");
    fails(&plant, &["passport", "SN-00000"]);
    run(&plant, &["hold", "release", &hold, "--rule", "case closed"]);

    // A run is noted from today: the service does not run again before a day is over, a person may.
    let service = plant.serve();
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(packs(&plant, "bad"), 1);
    let said = run(&plant, &["retention", "run"]);
    assert!(said.contains("3 images in 1 pack,") && said.contains("2 private values of 1 entry,"), "{said}");
    assert_eq!((packs(&plant, "bad"), packs(&plant, "ok_sample")), (0, 1));
    assert!(run(&plant, &["retention", "run"]).contains("nothing is over"));
    let noted = entries(&plant.data(), "retention");
    assert!(noted.last().unwrap().contains("nothing was due"), "{noted:?}");
    let shown = run(&plant, &["show", "line-1/cam-1/f2"]);
    assert!(shown.contains("private values of class bad are kept 730 days (contract)"), "{shown}");
    run(&plant, &["fsck"]);
    run(&plant, &["verify", "old.tlog-proof", "--key", "data/log.vkey"]);

    // A service that starts where nothing ever ran does it at once.
    let plant = long_ago();
    let service = plant.serve();
    let begun = std::time::Instant::now();
    while packs(&plant, "bad") > 0 {
        assert!(begun.elapsed().as_secs() < 30, "the service does not delete what is over");
        std::thread::yield_now();
    }
    assert_eq!(service.stop().code, Some(0));
    run(&plant, &["fsck"]);
}

#[test]
fn a_run_killed_at_any_system_call_is_finished_by_the_next_start_or_never_began() {
    if !has_strace() {
        return skipped("no strace that can inject");
    }
    let plant = long_ago();
    let base = plant.folder().join("base");
    copy_folder(&plant.data(), &base);
    let before = entries_told(&base);
    let (mut untouched, mut deleted) = (0, 0);
    for syscall in ["fdatasync", "fsync", "rename", "pwrite64", "unlink", "rmdir"] {
        for number in 1.. {
            fs::remove_dir_all(plant.data()).unwrap();
            copy_folder(&base, &plant.data());
            private_keys(&plant.data());
            let report = plant.folder().join("strace");
            let output = killed(&plant, &["retention", "run"], syscall, number, &report);
            if output.status.success() {
                assert_eq!(injected(&report), 0, "killed, and it ended well");
                break;
            }
            let found = run(&plant, &["history", "--limit", "50", "--json"]);
            assert_eq!(found.lines().count(), 6, "a decision is lost");
            let serials = found.matches("\"serial\":").count();
            let output = plant.run(&["fsck"]);
            assert_eq!(output.status.code(), Some(0), "{syscall} {number}: {}", text(&output));
            assert!(!plant.data().join("erasing").exists());
            match (serials, packs(&plant, "bad"), entries_told(&plant.data()) - before) {
                (6, 1, 0) => untouched += 1,
                (3, 0, 2) => deleted += 1,
                other => panic!("{syscall} {number} left {other:?}"),
            }
            assert_eq!(packs(&plant, "ok_sample"), 1);
        }
    }
    assert!(untouched > 0 && deleted > 5, "{untouched} killed before, {deleted} after it was intended");
}
