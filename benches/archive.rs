//! What it costs to make images durable: packs against one file per image, in groups as the log commits them.
//!
//! `cargo bench --bench archive`. Files are written unsealed, so whatever packs lose to sealing they lose here.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use lineproof::{
    adapters::{archive::PackArchive, keys::Keys},
    ports::archive::{ImageArchive as _, RetentionClass},
    types::Blake3Digest,
};

const IMAGES: usize = 1000;
const IMAGE_BYTES: usize = 200_000;
const GROUP: usize = 8;
const ROUNDS: usize = 3;

type Images = Vec<(Blake3Digest, Vec<u8>)>;

fn main() {
    // On the disk the project lies on; a temporary folder is often only memory.
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the measurement");
    let images: Images = (0..IMAGES)
        .map(|number| {
            let mut bytes = vec![0; IMAGE_BYTES];
            blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
            (Blake3Digest::of(&bytes), bytes)
        })
        .collect();
    println!("{IMAGES} images of {IMAGE_BYTES} bytes, durable in groups of {GROUP}; best of {ROUNDS} rounds");
    let ways: [(&str, fn(&Path, &Images)); 5] = [
        ("sealed packs, one fdatasync per group", packs),
        ("the same, sealed and put by two threads", packs_by_two),
        ("one file each, fdatasync each, folder fsync per group", file_each),
        ("one file each, one syncfs per group", syncfs),
        ("no durability: one file each, no sync", no_sync),
    ];
    let mut best = [Duration::MAX; 5];
    for round in 0..ROUNDS {
        for (way, (name, run)) in ways.iter().enumerate() {
            let folder = disk.path().join(format!("{round}-{way}"));
            fs::create_dir(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
            // What earlier rounds left in memory is not charged to this one.
            rustix::fs::sync();
            let start = Instant::now();
            run(&folder, &images);
            best[way] = best[way].min(start.elapsed());
            fs::remove_dir_all(&folder).expect("the measured folder can be removed");
        }
    }
    for ((name, _), time) in ways.iter().zip(best) {
        let per_image = time / IMAGES as u32;
        let ratio = time.as_secs_f64() / best[0].as_secs_f64();
        println!(
            "{name:54} {per_image:>9.1?} per image  {:>7.0} images/s  {ratio:>5.2} x",
            IMAGES as f64 / time.as_secs_f64()
        );
    }
}

fn archive(folder: &Path) -> PackArchive {
    let keys = Keys::create(&folder.join("keys"), "bench.example").expect("keys");
    PackArchive::open(folder.join("images"), keys.image_sealer()).expect("an archive")
}

fn put(archive: &PackArchive, (digest, bytes): &(Blake3Digest, Vec<u8>)) {
    let class = RetentionClass::new("not_ok").expect("a class");
    let time = "2026-11-23T12:00:00Z".parse().expect("a time");
    archive.put(&class, time, *digest, bytes).expect("an image is put");
}

fn packs(folder: &Path, images: &Images) {
    let archive = archive(folder);
    for group in images.chunks(GROUP) {
        group.iter().for_each(|image| put(&archive, image));
        archive.sync().expect("a group is synced");
    }
}

fn packs_by_two(folder: &Path, images: &Images) {
    let archive = archive(folder);
    for group in images.chunks(GROUP) {
        std::thread::scope(|scope| {
            for half in group.chunks(GROUP / 2) {
                let archive = &archive;
                scope.spawn(move || half.iter().for_each(|image| put(archive, image)));
            }
        });
        archive.sync().expect("a group is synced");
    }
}

fn write(folder: &Path, (digest, bytes): &(Blake3Digest, Vec<u8>)) -> File {
    let mut file = File::create(folder.join(digest.hex())).expect("a file");
    file.write_all(bytes).expect("an image is written");
    file
}

fn file_each(folder: &Path, images: &Images) {
    for group in images.chunks(GROUP) {
        for image in group {
            write(folder, image).sync_data().expect("a file is synced");
        }
        File::open(folder).and_then(|folder| folder.sync_all()).expect("the folder is synced");
    }
}

fn syncfs(folder: &Path, images: &Images) {
    let folder_file = File::open(folder).expect("the folder");
    for group in images.chunks(GROUP) {
        for image in group {
            drop(write(folder, image));
        }
        rustix::fs::syncfs(&folder_file).expect("the file system is synced");
    }
}

fn no_sync(folder: &Path, images: &Images) {
    for image in images {
        drop(write(folder, image));
    }
}
