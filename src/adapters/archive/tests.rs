//! The archive on a real disk: what is put comes back, what was touched does not, and a crash costs no known image.

use std::collections::HashSet;

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
};

use super::*;
use crate::ports::{
    archive::{ImageShredder as _, PackName},
    sealer::SealError,
};

/// Seals as the port says, under a key everybody knows.
struct OpenSecret;

/// Another key, which also opens what [`OpenSecret`] sealed if it is told to.
struct NextSecret {
    opens_older: bool,
}

impl Sealer for NextSecret {
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        OpenSecret.seal(&[aad, b"next"].concat(), plain)
    }

    fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let older = |error| if self.opens_older { OpenSecret.open(aad, sealed) } else { Err(error) };
        OpenSecret.open(&[aad, b"next"].concat(), sealed).or_else(older)
    }
}

impl Sealer for OpenSecret {
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce[..12]).unwrap();
        let sealed = Aes256Gcm::new(&[7; 32].into()).encrypt(nonce[..12].into(), Payload { msg: plain, aad }).unwrap();
        [&nonce[..], &sealed].concat()
    }

    fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, msg) = sealed.split_at_checked(24).ok_or(SealError::Short(sealed.len()))?;
        let opened = Aes256Gcm::new(&[7; 32].into()).decrypt(nonce[..12].into(), Payload { msg, aad });
        opened.ok().filter(|_| nonce[12..] == [0; 12]).ok_or(SealError::Changed)
    }
}

struct Plant {
    folder: tempfile::TempDir,
}

impl Plant {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    /// As a new process finds it.
    fn open(&self) -> PackArchive {
        PackArchive::open(self.images(), Arc::new(OpenSecret)).unwrap()
    }

    fn packs(&self) -> Vec<PathBuf> {
        let days = fs::read_dir(self.images()).unwrap().flat_map(|class| fs::read_dir(class.unwrap().path()).unwrap());
        let mut packs: Vec<_> =
            days.flat_map(|day| fs::read_dir(day.unwrap().path()).unwrap()).map(|e| e.unwrap().path()).collect();
        packs.sort();
        packs
    }
}

fn class(name: &str) -> RetentionClass {
    RetentionClass::new(name).unwrap()
}

fn noon() -> Instant {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn image(number: usize, length: usize) -> (Blake3Digest, Vec<u8>) {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (Blake3Digest::of(&bytes), bytes)
}

fn put(archive: &PackArchive, (digest, bytes): &(Blake3Digest, Vec<u8>)) -> ImageLocation {
    archive.put(&class("not_ok"), noon(), *digest, bytes).unwrap()
}

#[test]
fn an_image_comes_back_in_this_process_and_the_next() {
    let plant = Plant::new();
    let images: Vec<_> = [0, 1, 1000, 70_000].into_iter().enumerate().map(|(n, length)| image(n, length)).collect();
    let archive = plant.open();
    let places: Vec<_> = images.iter().map(|image| put(&archive, image)).collect();
    archive.sync().unwrap();
    assert_eq!(places[0].to_string(), "not_ok/2026-11-23/00000000:88");
    for archive in [archive, plant.open()] {
        for ((digest, bytes), place) in images.iter().zip(&places) {
            assert_eq!(archive.get(place, *digest).unwrap(), *bytes);
        }
        let wrong = archive.get(&places[1], images[2].0).unwrap_err();
        assert!(matches!(wrong, ArchiveError::Damaged { .. }), "{wrong}");
    }
}

#[test]
fn the_disk_shows_no_image() {
    let plant = Plant::new();
    let archive = plant.open();
    let bytes = b"a picture of a secret part ".repeat(10);
    put(&archive, &(Blake3Digest::of(&bytes), bytes));
    let pack = fs::read(&plant.packs()[0]).unwrap();
    assert!(!pack.windows(8).any(|window| window == b"a pictur"));
}

#[test]
fn an_image_is_stored_once_per_class_and_day_also_by_the_next_process() {
    let plant = Plant::new();
    let archive = plant.open();
    let (digest, bytes) = image(1, 500);
    let place = put(&archive, &(digest, bytes.clone()));
    assert_eq!(put(&archive, &(digest, bytes.clone())), place);
    assert_ne!(archive.put(&class("ok"), noon(), digest, &bytes).unwrap(), place);
    let tomorrow = "2026-11-24T00:00:00Z".parse().unwrap();
    assert_ne!(archive.put(&class("not_ok"), tomorrow, digest, &bytes).unwrap(), place);

    let next = plant.open();
    assert_eq!(put(&next, &(digest, bytes)), place);
    // Nobody knows whether the process before had synced it: this one does.
    assert_eq!(lock(&next.unsynced).packs.len(), 1);
    next.sync().unwrap();
}

#[test]
fn a_destroyed_pack_is_gone_for_good_and_the_archive_goes_on() {
    let plant = Plant::new();
    let archive = plant.open();
    let (first, second) = (image(1, 100), image(2, 300));
    let places = [put(&archive, &first), put(&archive, &second)];
    let kept = archive.put(&class("ok"), noon(), first.0, &first.1).unwrap();
    let later = archive.put(&class("not_ok"), "2026-11-25T00:00:00Z".parse().unwrap(), first.0, &first.1).unwrap();
    assert_eq!(archive.packs_before(&class("not_ok"), "2026-11-23").unwrap(), []);
    let packs = archive.packs_before(&class("not_ok"), "2026-11-25").unwrap();
    assert_eq!(packs.iter().map(|pack| (pack.name.day.as_str(), pack.images)).collect::<Vec<_>>(), [("2026-11-23", 2)]);
    // Somebody may hold the file open or have a link to it: without its key it says nothing.
    let copy = plant.folder.path().join("link");
    fs::hard_link(archive.path(&places[0]), &copy).unwrap();
    let names: Vec<PackName> = packs.into_iter().map(|pack| pack.name).collect();
    archive.destroy(&class("not_ok"), &names).unwrap();
    archive.destroy(&class("not_ok"), &names).unwrap();

    assert!(!plant.images().join("not_ok/2026-11-23").exists());
    assert!(fs::read(&copy).unwrap()[format::WRAPPED_KEY].iter().all(|byte| *byte == 0));
    for (place, digest) in places.iter().zip([first.0, second.0]) {
        assert!(matches!(archive.get(place, digest), Err(ArchiveError::Missing(_))));
    }
    assert!(archive.get(&kept, first.0).is_ok() && archive.get(&later, first.0).is_ok());
    // The folder was never synced before it went.
    archive.sync().unwrap();
    put(&archive, &image(3, 100));
    archive.sync().unwrap();
}

#[test]
fn a_straggler_of_yesterday_is_filed_under_yesterday() {
    let plant = Plant::new();
    let archive = plant.open();
    let at = |text: &str, number| {
        let (digest, bytes) = image(number, 100);
        archive.put(&class("ok"), text.parse().unwrap(), digest, &bytes).unwrap()
    };
    assert_eq!(at("2026-11-23T23:59:59.9Z", 1).day, "2026-11-23");
    assert_eq!(at("2026-11-24T00:00:00Z", 2).day, "2026-11-24");
    assert_eq!(at("2026-11-23T23:59:59.95Z", 3).to_string(), "ok/2026-11-23/00000001:88");
    assert_eq!(at("2026-11-24T00:00:00.1Z", 4).to_string(), "ok/2026-11-24/00000000:268");
}

#[test]
fn a_pack_somebody_else_made_is_left_alone() {
    let plant = Plant::new();
    let archive = plant.open();
    put(&archive, &image(1, 100));
    let other = plant.open();
    assert_eq!(put(&other, &image(2, 100)).pack, 1);
    let shelf = archive.shelf(&class("not_ok"), &noon().day()).unwrap();
    lock(&shelf.state).open = None;
    assert_eq!(put(&archive, &image(3, 100)).pack, 2);
}

#[test]
fn packs_roll_over_before_they_grow_too_long() {
    let plant = Plant::new();
    let mut archive = plant.open();
    archive.pack_bytes_max = 1000;
    let places: Vec<_> = (0..10).map(|n| put(&archive, &image(n, if n == 5 { 3000 } else { 300 }))).collect();
    archive.sync().unwrap();
    let packs: Vec<u32> = places.iter().map(|place| place.pack).collect();
    assert_eq!(packs, [0, 0, 1, 1, 2, 3, 4, 4, 5, 5], "two of 380 bytes fit; the long one has a pack of its own");
    for (number, place) in places.iter().enumerate() {
        archive.get(place, image(number, if number == 5 { 3000 } else { 300 }).0).unwrap();
    }
}

#[test]
fn many_threads_store_every_image_once_and_whole() {
    const THREADS: usize = 8;
    const IMAGES: usize = 60;
    let plant = Plant::new();
    let mut archive = plant.open();
    archive.pack_bytes_max = 40_000;
    let places: Vec<Vec<ImageLocation>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let archive = &archive;
                // Neighbours meet at the same images, each from another side.
                let order = move |n: usize| if thread % 2 == 0 { n } else { IMAGES - 1 - n };
                scope.spawn(move || {
                    let mut places = vec![None; IMAGES];
                    for number in (0..IMAGES).map(order) {
                        let (digest, bytes) = image(number, 1500 + number);
                        let place = put(archive, &(digest, bytes.clone()));
                        archive.sync().unwrap();
                        assert_eq!(archive.get(&place, digest).unwrap(), bytes);
                        places[number] = Some(place);
                    }
                    places.into_iter().map(Option::unwrap).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(places.iter().all(|others| *others == places[0]));
    assert_eq!(places[0].iter().map(ToString::to_string).collect::<HashSet<_>>().len(), IMAGES);
    let stored: u64 = plant.packs().iter().map(|pack| fs::metadata(pack).unwrap().len() - 88).sum();
    assert_eq!(stored, (0..IMAGES).map(|number| record_bytes(1500 + number)).sum::<u64>());
}

#[test]
fn every_changed_byte_of_pack_and_record_is_noticed() {
    let plant = Plant::new();
    let archive = plant.open();
    let (digest, bytes) = image(1, 40);
    let place = put(&archive, &(digest, bytes.clone()));
    let path = &plant.packs()[0];
    let whole = fs::read(path).unwrap();
    assert_eq!(whole.len(), 88 + 64 + 40 + 16);
    for position in 0..whole.len() {
        let mut changed = whole.clone();
        changed[position] ^= 0x10;
        fs::write(path, &changed).unwrap();
        let error = archive.get(&place, digest).unwrap_err();
        assert!(matches!(error, ArchiveError::Damaged { .. }), "byte {position}: {error}");
    }
    fs::write(path, &whole).unwrap();
    assert_eq!(archive.get(&place, digest).unwrap(), bytes);
}

#[test]
fn a_moved_pack_or_record_does_not_open() {
    let plant = Plant::new();
    let archive = plant.open();
    let (first, second) = (image(1, 100), image(2, 100));
    let (at_first, at_second) = (put(&archive, &first), put(&archive, &second));
    let path = plant.packs()[0].clone();
    let whole = fs::read(&path).unwrap();

    // Two sealed images change places, each with its header: offsets are part of the header's check.
    let (start, middle) = (at_first.offset as usize, at_second.offset as usize);
    let swapped = [&whole[..start], &whole[middle..], &whole[start..middle]].concat();
    fs::write(&path, swapped).unwrap();
    assert!(archive.get(&at_second, first.0).is_err());
    assert!(archive.get(&at_first, second.0).is_err());

    let class_ok = plant.images().join("ok/2026-11-23");
    fs::create_dir_all(&class_ok).unwrap();
    fs::write(class_ok.join("00000000.pack"), &whole).unwrap();
    let moved = ImageLocation { class: class("ok"), ..at_first.clone() };
    let error = archive.get(&moved, first.0).unwrap_err().to_string();
    assert!(error.contains("moved"), "{error}");
    fs::write(path.with_file_name("00000001.pack"), &whole).unwrap();
    assert!(archive.get(&ImageLocation { pack: 1, ..at_first }, first.0).is_err());
}

#[test]
fn a_pack_cut_anywhere_gives_its_whole_images_and_the_rest_is_stored_again_in_a_new_pack() {
    let images: Vec<_> = (0..3).map(|number| image(number, 50 + number)).collect();
    let plant = Plant::new();
    let archive = plant.open();
    let places: Vec<_> = images.iter().map(|image| put(&archive, image)).collect();
    drop(archive);
    let path = plant.packs()[0].clone();
    let whole = fs::read(&path).unwrap();
    let ends: Vec<u64> =
        places.iter().zip(&images).map(|(place, (_, bytes))| place.offset + record_bytes(bytes.len())).collect();
    let boundaries = [0, 16, 88].into_iter().chain(places.iter().map(|place| place.offset + 64)).chain(ends.clone());
    let cuts: BTreeSet<u64> = boundaries.flat_map(|at| [at.saturating_sub(1), at, at + 1]).collect();
    for cut in cuts.into_iter().filter(|cut| *cut <= whole.len() as u64) {
        fs::write(&path, &whole[..cut as usize]).unwrap();
        let next = plant.open();
        for ((image, place), end) in images.iter().zip(&places).zip(&ends) {
            let (digest, bytes) = image;
            if *end <= cut {
                assert_eq!(next.get(place, *digest).unwrap(), *bytes, "cut at {cut}");
                assert_eq!(put(&next, image), *place);
            } else {
                assert!(matches!(next.get(place, *digest), Err(ArchiveError::Damaged { .. })), "cut at {cut}");
                let again = put(&next, image);
                assert_eq!(again.pack, 1, "cut at {cut}");
                assert_eq!(next.get(&again, *digest).unwrap(), *bytes);
            }
        }
        next.sync().unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole[..cut as usize], "a pack of an earlier process is never written to");
        let _ = fs::remove_file(path.with_file_name("00000001.pack"));
    }
}

#[test]
fn a_record_whose_body_never_reached_the_disk_is_not_taken_for_the_image() {
    let plant = Plant::new();
    let archive = plant.open();
    let torn = image(1, 5000);
    let place = put(&archive, &torn);
    drop(archive);
    // After a power cut a hole reads as zeroes, with a whole header before and whole records behind it.
    let file = OpenOptions::new().write(true).open(&plant.packs()[0]).unwrap();
    file.write_all_at(&[0; 4000], place.offset + 64 + 500).unwrap();
    let next = plant.open();
    let again = put(&next, &torn);
    assert_ne!(again, place);
    assert_eq!(next.get(&again, torn.0).unwrap(), torn.1);
}

#[test]
fn a_failed_write_abandons_the_pack() {
    let plant = Plant::new();
    let archive = plant.open();
    let first = put(&archive, &image(1, 100));
    let shelf = archive.shelf(&class("not_ok"), &noon().day()).unwrap();
    {
        let mut state = lock(&shelf.state);
        let open = state.open.as_mut().unwrap();
        // A file that refuses to be written, as a failing disk does.
        let file = Arc::new(File::open(&plant.packs()[0]).unwrap());
        let (key, _) = PackKey::create(&OpenSecret, &class("not_ok"), &noon().day(), 0);
        open.pack = Arc::new(Pack { number: 0, file, key });
    }
    let (digest, bytes) = image(2, 100);
    let error = archive.put(&class("not_ok"), noon(), digest, &bytes).unwrap_err();
    assert!(matches!(error, ArchiveError::Io { .. }), "{error}");
    let second = put(&archive, &(digest, bytes));
    assert_eq!((first.pack, second.pack), (0, 1));
    archive.sync().unwrap();
}

#[test]
fn after_a_failed_sync_nothing_more_is_promised() {
    let plant = Plant::new();
    let archive = plant.open();
    let place = put(&archive, &image(1, 100));
    lock(&archive.unsynced).folders.insert(plant.folder.path().join("gone"));
    assert!(archive.sync().is_err());
    assert!(archive.sync().unwrap_err().to_string().contains("restart"));
    let (digest, bytes) = image(2, 100);
    assert!(archive.put(&class("ok"), noon(), digest, &bytes).is_err());
    archive.get(&place, image(1, 100).0).expect("reading goes on");
}

#[test]
fn an_image_whose_pack_key_was_destroyed_is_gone() {
    let plant = Plant::new();
    let archive = plant.open();
    let (digest, bytes) = image(1, 100);
    let place = put(&archive, &(digest, bytes));
    OpenOptions::new().write(true).open(&plant.packs()[0]).unwrap().write_all_at(&[0; 72], 16).unwrap();
    assert!(matches!(archive.get(&place, digest), Err(ArchiveError::Missing(_))));
    fs::remove_file(&plant.packs()[0]).unwrap();
    assert!(matches!(archive.get(&place, digest), Err(ArchiveError::Missing(_))));
}

#[test]
fn a_location_cannot_lead_out_of_the_archive() {
    let plant = Plant::new();
    let archive = plant.open();
    let place = ImageLocation { class: class("ok"), day: "../../keys".into(), pack: 0, offset: 0 };
    assert!(matches!(archive.get(&place, Blake3Digest::of(b"")), Err(ArchiveError::Missing(_))));
}

#[test]
fn only_one_call_writes_the_folders_and_an_idle_sync_does_nothing() {
    let plant = Plant::new();
    let archive = plant.open();
    put(&archive, &image(1, 100));
    assert_eq!(lock(&archive.unsynced).folders.len(), 4, "the data folder, the archive's, the class's, the day's");
    archive.sync().unwrap();
    put(&archive, &image(2, 100));
    let unsynced = lock(&archive.unsynced);
    assert_eq!((unsynced.packs.len(), unsynced.folders.len()), (1, 0));
}

#[test]
fn pack_keys_move_to_the_next_master_key_also_when_that_is_cut_off_anywhere() {
    let plant = Plant::new();
    let images = [image(1, 500), image(2, 700)];
    let places: Vec<ImageLocation> = {
        let archive = plant.open();
        let places = images.iter().map(|image| put(&archive, image)).collect();
        archive.sync().unwrap();
        places
    };
    let with = |opens_older| PackArchive::open(plant.images(), Arc::new(NextSecret { opens_older })).unwrap();
    let reads = |archive: &PackArchive| {
        places
            .iter()
            .zip(&images)
            .all(|(place, (digest, bytes))| archive.get(place, *digest).as_ref().ok() == Some(bytes))
    };
    assert!(reads(&with(true)) && !reads(&with(false)));
    let pack = plant.packs().remove(0);
    let before = fs::read(&pack).unwrap();

    let newest = NextSecret { opens_older: false };
    let done = with(true).reseal(&newest).unwrap();
    assert_eq!(done, ResealedPacks { packs: 1, unopened: 0 });
    assert!(reads(&with(false)));
    let after = fs::read(&pack).unwrap();
    assert_eq!((before.len(), &before[88..]), (after.len(), &after[88..]), "images stay as they are");
    assert_eq!(with(true).reseal(&newest).unwrap().packs, 0, "nothing is left to do");

    // A crash after the journal is durable, with any part of the sealed key written.
    let key = data_encoding::HEXLOWER.encode(&after[16..88]);
    let [class, day, name] = {
        let parts: Vec<String> =
            pack.strip_prefix(plant.images()).unwrap().iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        <[String; 3]>::try_from(parts).unwrap()
    };
    let journal = plant.images().join("resealing");
    for written in [0, 1, 35, 72] {
        fs::write(&pack, [&after[..16 + written], &before[16 + written..88], &after[88..]].concat()).unwrap();
        fs::write(&journal, format!("{{\"pack\":[\"{class}\",\"{day}\",\"{name}\"],\"key\":\"{key}\"}}\n")).unwrap();
        assert!(reads(&with(false)), "{written} bytes were written");
        assert!(!journal.exists());
    }
    // A pack that is destroyed stays destroyed, one that opens under no key stays as it is.
    fs::write(&pack, [&after[..16], &[0; 72], &after[88..]].concat()).unwrap();
    assert_eq!(with(true).reseal(&newest).unwrap(), ResealedPacks::default());
    fs::write(&pack, [&after[..16], &[1; 72], &after[88..]].concat()).unwrap();
    assert_eq!(with(true).reseal(&newest).unwrap(), ResealedPacks { packs: 0, unopened: 1 });
    // A journal that leads elsewhere is refused.
    fs::write(&journal, format!("{{\"pack\":[\"..\",\"{day}\",\"{name}\"],\"key\":\"{key}\"}}\n")).unwrap();
    assert!(PackArchive::open(plant.images(), Arc::new(OpenSecret)).is_err());
}
