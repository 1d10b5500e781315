//! What an earlier release left: its data directory is opened, read, proven and gone on with.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tonic::Code;

use crate::{
    evidence::all_entries,
    harness::{Plant, block_on, part, text},
};

/// Release 0.1.0, data directory 1, entries version 1; `tests/fixtures/README.md` says how it was made.
const RELEASE_0_1_0: &[u8] = include_bytes!("../fixtures/data-format-1.zip");
/// What lies in it.
const ENTRIES: usize = 271;
const NOT_OK: usize = 4;
const LOT_7: usize = 6;

/// The fixture as the data directory of a plant, with the models of this release, which the fixture leaves out.
fn older() -> Plant {
    let plant = Plant::new();
    let today = plant.folder().join("today");
    fs::rename(plant.data(), &today).unwrap();
    unzip(RELEASE_0_1_0, plant.folder());
    for (name, mode) in [("keys", 0o700), ("keys/log.skey", 0o600), ("keys/master.key", 0o600)] {
        fs::set_permissions(plant.data().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for folder in ["models", "calibration"] {
        fs::rename(today.join(folder), plant.data().join(folder)).unwrap();
    }
    plant.edit_config("127.0.0.1:7443", "127.0.0.1:0");
    plant.edit_config("[inspect]", "[office]\naddress = \"127.0.0.1:0\"\n\n[inspect]");
    let recipe = |folder: &Path| {
        let config = fs::read_to_string(folder.join("lineproof.toml")).unwrap();
        config.lines().find(|line| line.starts_with("recipe = ")).unwrap().to_owned()
    };
    plant.edit_config(&recipe(&plant.data()), &recipe(&today));
    plant
}

fn unzip(bytes: &[u8], folder: &Path) {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    for number in 0..archive.len() {
        let mut file = archive.by_index(number).unwrap();
        let path = folder.join(file.enclosed_name().unwrap());
        fs::create_dir_all(if file.is_dir() { &path } else { path.parent().unwrap() }).unwrap();
        if file.is_file() {
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            fs::write(path, content).unwrap();
        }
    }
}

/// Runs a command that must succeed, and returns what it printed.
fn run(plant: &Plant, arguments: &[&str]) -> String {
    let output = plant.run(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_data_directory_of_release_0_1_0_is_read_proven_and_gone_on_with() {
    let plant = older();
    let before = all_entries(&plant.data());
    assert_eq!(before.len(), ENTRIES);
    assert!(before.iter().all(|entry| entry.contains("\"v\":1,") || entry.contains("\"v\":1}")), "entries version 1");

    let found = run(&plant, &["fsck", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!((found["published"].as_u64(), found["images"].as_u64()), (Some(ENTRIES as u64), Some(NOT_OK as u64)));

    // Its evidence, and evidence made of it today.
    for evidence in ["SN-00301.tlog-proof", "report.zip", "data"] {
        run(&plant, &["verify", evidence, "--key", "data/log.vkey"]);
    }
    let listed = |arguments: &[&str]| run(&plant, &[&["history", "--json"], arguments].concat()).lines().count();
    assert_eq!(listed(&["--verdict", "NOT_OK"]), NOT_OK);
    assert_eq!(listed(&["--lot", "LOT-7"]), LOT_7);
    assert_eq!(run(&plant, &["show", "78", "--json"]).trim_end(), before[78]);
    run(&plant, &["passport", "S22-000075", "--out", "today.tlog-proof"]);
    run(&plant, &["export", "--lot", "LOT-7", "--out", "today.zip"]);

    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        let answer = client.inspect(part(1001)).await.unwrap().into_inner();
        assert!(answer.entry_index >= ENTRIES as u64);
        // The old entries are known as frames, too.
        let mut reused = part(1002);
        reused.frame_id = "S22-000075".into();
        let status = client.inspect(reused).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
        assert!(status.message().contains("entry 78"), "{}", status.message());
    });
    assert_eq!(service.stop().code, Some(0));

    let after = all_entries(&plant.data());
    assert_eq!(after[..ENTRIES], before, "the old entries are the bytes they were");
    assert!(after.iter().any(|entry| entry.contains("\"id\":\"f1001\"")));
    run(&plant, &["fsck"]);
    for evidence in ["SN-00301.tlog-proof", "report.zip", "today.tlog-proof", "today.zip", "data"] {
        run(&plant, &["verify", evidence, "--key", "data/log.vkey"]);
    }
}

#[test]
fn a_data_directory_of_a_newer_release_is_refused_and_not_touched() {
    let plant = older();
    fs::write(plant.data().join("format"), "lineproof-data 999\n").unwrap();
    // A newer release may also have newer keys in its configuration: the format is what must be told.
    plant.edit_config("[plant]", "[plant]\nsomething_newer = true");
    let before = contents(&plant.data());

    let ended = plant.try_serve().err().expect("a newer format is not served");
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(ended.log.contains("newer release") && ended.log.contains("format 999"), "{}", ended.log);
    for command in [&["fsck"][..], &["reindex"], &["history"], &["show", "78"], &["passport", "SN-00301"], &["export"]]
    {
        let output = plant.run(command);
        assert_ne!(output.status.code(), Some(0), "{command:?}");
        assert!(text(&output).contains("newer release"), "{command:?}: {}", text(&output));
    }
    assert!(contents(&plant.data()) == before, "something was changed");
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    found
}
