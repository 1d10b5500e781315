//! The auditor's journey: evidence is checked offline with nothing but a public key, and a forgery is refused.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::harness::{Plant, block_on, lineproof, part, text};

/// The stored bytes of every entry a checkpoint covers, read from the plain files as a stranger would:
/// C2SP tlog-tiles entry bundles, uint16 length before each entry.
pub fn all_entries(data: &Path) -> Vec<String> {
    let checkpoint = fs::read_to_string(data.join("log/checkpoint")).expect("a checkpoint");
    let size: u64 = checkpoint.lines().nth(1).expect("a size line").parse().expect("a size");
    let mut entries = Vec::new();
    for bundle in 0..size.div_ceil(256) {
        let width = (size - bundle * 256).min(256);
        let full = data.join("log/tile/entries").join(tile_path(bundle));
        let partial = PathBuf::from(format!("{}.p/{width}", full.display()));
        let bytes = fs::read(&full).or_else(|_| fs::read(&partial)).expect("an entry bundle");
        let mut rest = bytes.as_slice();
        for _ in 0..width {
            let (length, tail) = rest.split_first_chunk::<2>().expect("a length");
            let (entry, tail) = tail.split_at(usize::from(u16::from_be_bytes(*length)));
            entries.push(String::from_utf8(entry.to_vec()).expect("entries are UTF-8"));
            rest = tail;
        }
    }
    entries
}

fn tile_path(mut n: u64) -> String {
    let mut path = format!("{:03}", n % 1000);
    n /= 1000;
    while n > 0 {
        path = format!("x{:03}/{path}", n % 1000);
        n /= 1000;
    }
    path
}

pub fn entry_kinds(data: &Path) -> Vec<String> {
    let kind = |entry: &String| {
        let value: serde_json::Value = serde_json::from_str(entry).expect("entries are JSON");
        value["kind"].as_str().expect("entries have a kind").to_owned()
    };
    all_entries(data).iter().map(kind).collect()
}

/// How many entries there are beside those that say who asked: asking adds some.
pub fn entries_told(data: &Path) -> usize {
    entry_kinds(data).iter().filter(|kind| *kind != "access").count()
}

pub fn entries(data: &Path, kind: &str) -> Vec<String> {
    let needle = format!("\"kind\":\"{kind}\"");
    all_entries(data).into_iter().filter(|entry| entry.contains(&needle)).collect()
}

/// The auditor's binary, built without the server, when the test run made one; else the full one.
fn verifier() -> Command {
    match std::env::var_os("LINEPROOF_VERIFIER") {
        Some(path) => Command::new(path),
        None => lineproof(),
    }
}

pub fn verify(file: &Path, key: &Path) -> std::process::Output {
    verifier().arg("verify").arg(file).arg("--key").arg(key).output().expect("the verifier runs")
}

/// A plant that inspected `parts` and was stopped.
fn inspected(parts: u64) -> Plant {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        for number in 1..=parts {
            client.inspect(part(number)).await.unwrap();
        }
    });
    assert_eq!(service.stop().code, Some(0));
    plant
}

#[test]
fn passport_export_and_log_verify_offline_and_a_changed_byte_does_not() {
    let plant = inspected(12);
    let output = plant.run(&["passport", "SN-00003", "--out", "part.tlog-proof"]);
    assert!(output.status.success(), "{}", text(&output));
    let output = plant.run(&["export", "--line", "line-1", "--out", "report.zip"]);
    assert!(output.status.success(), "{}", text(&output));

    let other = Plant::new();
    for name in ["part.tlog-proof", "report.zip", "data"] {
        let file = plant.folder().join(name);
        let output = verify(&file, &plant.vkey());
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output));
        let output = verify(&file, &other.vkey());
        assert_eq!(output.status.code(), Some(1), "{name} verifies under a stranger's key: {}", text(&output));
    }
    for name in ["part.tlog-proof", "report.zip"] {
        let original = fs::read(plant.folder().join(name)).unwrap();
        for position in (0..original.len()).step_by(original.len() / 40 + 1) {
            let mut forged = original.clone();
            forged[position] ^= 1;
            let path = plant.folder().join(format!("forged-{name}"));
            fs::write(&path, forged).unwrap();
            let output = verify(&path, &plant.vkey());
            assert_eq!(output.status.code(), Some(1), "{name} with byte {position} changed: {}", text(&output));
        }
    }
}

#[test]
fn a_cose_receipt_holds_for_us_and_for_an_implementation_of_others() {
    let plant = inspected(5);
    let output = plant.run(&["passport", "SN-00002", "--out", "part.tlog-proof", "--cose"]);
    assert!(output.status.success(), "{}", text(&output));
    let (receipt, entry) = (plant.folder().join("part.receipt.cbor"), plant.folder().join("part.entry.json"));
    let output = verify(&receipt, &plant.vkey());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("Receipt: a root of the log"), "{}", text(&output));
    let others = |entry: &Path| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/verify_receipt.py");
        let arguments = [Path::new(script), &receipt, entry, &plant.vkey()];
        Command::new(python()).args(arguments).output().expect("Python runs")
    };
    let output = others(&entry);
    assert!(output.status.success(), "{}", text(&output));

    // What a receipt cannot say, and what nobody believes.
    let policy = plant.folder().join("none.policy");
    fs::write(&policy, format!("log {}\nquorum none\n", fs::read_to_string(plant.vkey()).unwrap().trim())).unwrap();
    let output = verifier().arg("verify").arg(&receipt).arg("--policy").arg(&policy).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("carries no cosignatures"), "{}", text(&output));
    let output = verify(&receipt, &Plant::new().vkey());
    assert_eq!(output.status.code(), Some(1), "a stranger's key: {}", text(&output));
    let original = fs::read_to_string(&entry).unwrap();
    fs::write(&entry, original.replace("SN-", "SX-").replacen("\"OK\"", "\"NO\"", 1).replace("cam-1", "cam-2"))
        .unwrap();
    assert_ne!(fs::read_to_string(&entry).unwrap(), original);
    let output = verify(&receipt, &plant.vkey());
    assert_eq!(output.status.code(), Some(1), "a changed entry: {}", text(&output));
    assert!(!others(&entry).status.success());
    fs::remove_file(&entry).unwrap();
    let output = verify(&receipt, &plant.vkey());
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("part.entry.json"), "{}", text(&output));
}

#[test]
fn files_of_parts_keep_apart_and_what_is_no_evidence_says_what_to_do() {
    let plant = inspected(3);
    let run = |arguments: &[&str]| {
        let output = plant.run(arguments);
        assert!(output.status.success(), "{}", text(&output));
    };
    // Serials with dots, as names: each receipt is of its own part.
    run(&["passport", "SN-00001", "--cose", "--out", "SN.1"]);
    run(&["passport", "SN-00002", "--cose", "--out", "SN.2"]);
    let receipts = ["SN.1", "SN.2"].map(|name| {
        let receipt = plant.folder().join(format!("{name}.receipt.cbor"));
        let output = verify(&receipt, &plant.vkey());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        fs::read(receipt).unwrap()
    });
    assert_ne!(receipts[0], receipts[1]);
    let output = verify(&plant.folder().join("SN.1.entry.json"), &plant.vkey());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("SN.1.receipt.cbor"), "{}", text(&output));
    fs::write(plant.folder().join("SN.2.receipt.cbor"), b"").unwrap();
    let output = verify(&plant.folder().join("SN.2.receipt.cbor"), &plant.vkey());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("it is empty"), "{}", text(&output));

    // The first entry of a log is no decision, and nobody calls it a part.
    assert_ne!(entry_kinds(&plant.data())[0], "decision");
    run(&["passport", "#0", "--out", "first.tlog-proof"]);
    let output = verify(&plant.folder().join("first.tlog-proof"), &plant.vkey());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("Entry: 0, ") && !text(&output).contains("decided"), "{}", text(&output));

    // A folder is no file, and nothing is left beside it.
    fs::create_dir(plant.folder().join("proofs")).unwrap();
    for folder in ["proofs", "proofs/", "none/"] {
        let output = plant.run(&["passport", "SN-00001", "--out", folder]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("is a folder"), "{}", text(&output));
    }
    let left = fs::read_dir(plant.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().ends_with(".part")).count(), 0);
}

#[test]
fn a_reader_that_has_seen_enough_ends_no_command() {
    let plant = inspected(2);
    for arguments in
        [&["passport", "SN-00002", "--out", "part.tlog-proof"][..], &["export"], &["show", "line-1/cam-1/f1"]]
    {
        let mut command = lineproof();
        command.args(arguments).current_dir(plant.folder()).env("LINEPROOF_DATA", plant.data());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output));
        assert!(!text(&output).contains("panicked"), "{arguments:?}: {}", text(&output));
    }
    assert!(plant.folder().join("part.tlog-proof").is_file() && plant.folder().join("report.zip").is_file());
}

/// The Python of `scripts/verify-py-env.sh`.
fn python() -> PathBuf {
    if let Some(given) = std::env::var_os("LINEPROOF_PYTHON") {
        return given.into();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/verify-py-env.sh");
    let output = Command::new(script).output().expect("the script starts");
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

#[test]
fn an_export_is_deterministic_and_opens_only_the_selected_parts() {
    let plant = inspected(6);
    let export = |out: &str| {
        let output = plant.run(&["export", "--part", "SN-00002", "--out", out]);
        assert!(output.status.success(), "{}", text(&output));
        fs::read(plant.folder().join(out)).unwrap()
    };
    let report = export("one.zip");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&report)).unwrap();
    let mut all = Vec::new();
    for index in 0..archive.len() {
        std::io::copy(&mut archive.by_index(index).unwrap(), &mut all).unwrap();
    }
    let all = String::from_utf8_lossy(&all);
    assert!(all.contains("SN-00002"));
    for other in ["SN-00001", "SN-00003", "SN-00006"] {
        assert!(!all.contains(other), "{other} is opened though it was not asked for");
    }
}

#[test]
fn fsck_finds_a_whole_directory_whole_and_any_change_in_the_log() {
    let plant = inspected(8);
    let output = plant.run(&["fsck"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let bundle = fs::read_dir(plant.data().join("log/tile/entries/000.p")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let output = plant.run(&["fsck"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}

#[test]
fn history_and_show_find_the_part_with_and_without_a_running_service() {
    let plant = inspected(5);
    let offline = plant.run(&["history", "--part", "SN-00004", "--json"]);
    assert!(offline.status.success(), "{}", text(&offline));
    assert!(text(&offline).contains("SN-00004"), "{}", text(&offline));
    let shown = plant.run(&["show", "line-1/cam-1/f4"]);
    assert!(shown.status.success() && text(&shown).contains("SN-00004"), "{}", text(&shown));

    plant.listen_at(&format!("127.0.0.1:{}", free_port()));
    let _service = plant.serve();
    let online = plant.run(&["history", "--part", "SN-00004", "--json"]);
    assert!(online.status.success(), "{}", text(&online));
    assert_eq!(text(&online), text(&offline));
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
