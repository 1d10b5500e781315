//! A plant changes its log's signing key: before, while and after, everybody can verify with what they have.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use lineproof::core::lineage::{
    checkpoint::Checkpoint,
    rotation::{Rotation, RotationEvent, Said},
};

use crate::{
    erase::{killed, private_keys},
    evidence::all_entries,
    faults::copy_folder,
    harness::{Plant, Service, block_on, lineproof, part, skipped, text},
    syscalls::{has_strace, injected},
};

/// Runs the service for one more part and stops it.
fn one_part(plant: &Plant, number: u64) {
    let service = plant.serve();
    block_on(async { service.inspection().await.inspect(part(number)).await.expect("a verdict") });
    assert_eq!(service.stop().code, Some(0));
}

fn file(plant: &Plant, name: &str, bytes: &[u8]) -> PathBuf {
    let path = plant.folder().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

/// What `lineproof verify` and clients/verify-py say of it, which must be the same: 0 genuine, 1 refused.
fn verify(evidence: &Path, key: &Path, handovers: &[&Path]) -> (i32, String) {
    let mut ours = lineproof();
    ours.arg("verify").arg(evidence).arg("--key").arg(key).args(["--lang", "en"]);
    for handover in handovers {
        ours.arg("--handover").arg(handover);
    }
    let output = ours.output().unwrap();
    let code = output.status.code().unwrap();
    if let Ok(python) = std::env::var("LINEPROOF_PYTHON") {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/verify-py/lineproof_verify.py");
        let theirs = Command::new(python).arg(script).arg(evidence).arg(key).args(handovers).output().unwrap();
        assert_eq!(theirs.status.code(), Some(code), "{}\n{}", text(&output), text(&theirs));
    }
    (code, text(&output))
}

fn last_checkpoint(plant: &Plant) -> String {
    fs::read_to_string(plant.data().join("log/checkpoint")).unwrap()
}

#[test]
fn the_logs_key_changes_and_every_holder_of_a_key_can_go_on_verifying() {
    let plant = Plant::new();
    let old = fs::read(plant.vkey()).unwrap();
    let old_key = file(&plant, "old.vkey", &old);
    one_part(&plant, 1);
    good(&plant.run(&["passport", "SN-00001", "--out", "before.tlog-proof"]));

    // Too early, and nothing is changed by it.
    let refused = plant.run(&["keys", "retire"]);
    assert!(!refused.status.success() && text(&refused).contains("keys rotate"), "{}", text(&refused));
    let said = good(&plant.run(&["keys", "rotate"]));
    assert!(said.contains("restart the service"), "{said}");
    let refused = plant.run(&["keys", "retire"]);
    assert!(!refused.status.success() && text(&refused).contains("does not say yet"), "{}", text(&refused));
    assert!(!plant.run(&["keys", "rotate"]).status.success(), "one change at a time");
    let both = fs::read_to_string(plant.vkey()).unwrap();
    let new = both.lines().last().unwrap().to_owned();
    assert_eq!(both, format!("{}{new}\n", String::from_utf8_lossy(&old)));
    let new_key = file(&plant, "new.vkey", new.as_bytes());

    // Both sign: whoever has either key, or both, verifies.
    one_part(&plant, 2);
    assert_eq!(last_checkpoint(&plant).matches("\n\u{2014} ").count(), 2, "{}", last_checkpoint(&plant));
    good(&plant.run(&["passport", "SN-00002", "--out", "while.tlog-proof"]));
    good(&plant.run(&["export", "--out", "while.zip"]));
    let at = |name: &str| plant.folder().join(name);
    for key in [&old_key, &new_key, &plant.vkey()] {
        assert_eq!(verify(&at("while.tlog-proof"), key, &[]).0, 0);
        assert_eq!(verify(&plant.data(), key, &[]).0, 0);
    }
    for key in [&old_key, &plant.vkey()] {
        assert_eq!(verify(&at("while.zip"), key, &[]).0, 0, "the current key signs exports");
    }
    let listed = good(&plant.run(&["keys", "list"]));
    assert!(listed.contains("current: ") && listed.contains("next: signs"), "{listed}");

    // The old key ends. A service that runs meanwhile is no obstacle.
    let service = plant.serve();
    let said = good(&plant.run(&["keys", "retire"]));
    assert!(said.contains("--handover"), "{said}");
    assert_eq!(service.stop().code, Some(0));
    // Evidence that is given before the next start, under a checkpoint of both.
    good(&plant.run(&["export", "--out", "between.zip"]));
    for key in [&new_key, &plant.vkey()] {
        assert_eq!(verify(&plant.folder().join("between.zip"), key, &[]).0, 0);
    }
    assert!(!fs::read_to_string(plant.data().join("keys/log.skey")).unwrap().trim().contains('\n'));
    one_part(&plant, 3);
    assert_eq!(last_checkpoint(&plant).matches("\n\u{2014} ").count(), 1);
    good(&plant.run(&["passport", "SN-00003", "--out", "after.tlog-proof"]));
    good(&plant.run(&["export", "--out", "after.zip"]));
    let listed = good(&plant.run(&["keys", "list"]));
    assert!(listed.contains("retired") && !listed.contains("next: "), "{listed}");
    let handovers: Vec<PathBuf> =
        fs::read_dir(plant.data().join("log/handover")).unwrap().map(|item| item.unwrap().path()).collect();
    let [handover] = &handovers[..] else { panic!("{handovers:?}") };

    // What was given before still holds for holders of the old key; what comes after needs the new one, or the handover.
    assert_eq!(verify(&at("before.tlog-proof"), &old_key, &[]).0, 0);
    for evidence in [at("after.tlog-proof"), at("after.zip"), plant.data()] {
        assert_eq!(verify(&evidence, &new_key, &[]).0, 0);
        assert_eq!(verify(&evidence, &plant.vkey(), &[]).0, 0);
        let (code, said) = verify(&evidence, &old_key, &[]);
        assert!(code == 1 && said.contains("none of the given keys"), "{said}");
        let (code, said) = verify(&evidence, &old_key, &[handover]);
        assert!(code == 0 && said.contains("Handover: entry"), "{said}");
    }
    // A policy that lists the old key lists the one it was changed for.
    let policy = file(&plant, "policy", format!("log {}quorum none\n", String::from_utf8_lossy(&old)).as_bytes());
    let mut with_policy = lineproof();
    with_policy.arg("verify").arg(at("after.zip")).arg("--policy").arg(&policy);
    assert_eq!(with_policy.output().unwrap().status.code(), Some(1));
    good(&with_policy.arg("--handover").arg(handover).output().unwrap());
    let (code, said) = verify(handover, &old_key, &[]);
    assert!(code == 0 && said.contains(&new), "{said}");
    // A passport of something else hands nothing over; a changed one is none.
    assert_eq!(verify(&at("after.zip"), &old_key, &[&at("while.tlog-proof")]).0, 1);
    let bent = fs::read_to_string(handover).unwrap().replacen("index ", "index 1", 1);
    assert_eq!(verify(&at("after.zip"), &old_key, &[&file(&plant, "bent", bent.as_bytes())]).0, 1);

    // The log itself tells of it, once each.
    let entries = all_entries(&plant.data());
    let said: Vec<Said> = entries.iter().filter_map(|entry| Rotation::read(entry.as_bytes())).collect();
    let old_line = String::from_utf8_lossy(&old).trim().to_owned();
    let announced = Said { event: RotationEvent::Announced, vkey: new };
    assert_eq!(said, [announced, Said { event: RotationEvent::Retired, vkey: old_line }]);
    let fsck = plant.run(&["fsck"]);
    assert!(fsck.status.success(), "{}", text(&fsck));
}

#[test]
fn a_checkpoint_under_a_retired_key_is_refused() {
    let plant = Plant::new();
    let secret = fs::read(plant.data().join("keys/log.skey")).unwrap();
    let old_key = file(&plant, "old.vkey", &fs::read(plant.vkey()).unwrap());
    good(&plant.run(&["keys", "rotate"]));
    one_part(&plant, 1);
    good(&plant.run(&["keys", "retire"]));
    one_part(&plant, 2);
    // The thief kept a copy of the key that was destroyed here.
    let checkpoint = Checkpoint::peek(&last_checkpoint(&plant)).unwrap();
    let line = String::from_utf8(secret).unwrap();
    let note = {
        let signer = signed_note::StandardSigner::new(line.trim()).unwrap();
        let mut note = signed_note::Note::new(checkpoint.text().as_bytes(), &[]).unwrap();
        note.add_sigs(&[&signer]).unwrap();
        String::from_utf8(note.to_bytes()).unwrap()
    };
    fs::write(plant.data().join("log/checkpoint"), note).unwrap();
    let (code, said) = verify(&plant.data(), &old_key, &[]);
    assert!(code == 1 && said.contains("retired"), "{said}");
    let ended = plant.try_serve().err().expect("a log under another key is not served");
    assert!(ended.log.contains("signed with another key"), "{}", ended.log);
}

#[test]
fn a_copy_of_the_keys_from_the_overlap_is_enough_for_what_comes_after() {
    let plant = Plant::new();
    good(&plant.run(&["backup", "--new-key", "backup.key"]));
    let recipient = good(&plant.run(&["backup", "--new-key", "second.key"]));
    let recipient = recipient.split_whitespace().find(|word| word.starts_with("age1")).unwrap().to_owned();
    let backup =
        |more: &[&str]| good(&plant.run(&[&["backup", "--recipient", &recipient, "--to", "store"], more].concat()));
    good(&plant.run(&["keys", "rotate"]));
    one_part(&plant, 1);
    backup(&["--new-store"]);
    let kept = plant.folder().join("kept-keys");
    copy_keys(&plant, &kept);
    good(&plant.run(&["keys", "retire"]));
    let after = plant.folder().join("keys-after");
    copy_keys(&plant, &after);
    one_part(&plant, 2);
    backup(&[]);
    let manifests = || -> Vec<String> {
        let items = fs::read_dir(plant.folder().join("store/backups")).unwrap();
        let mut names: Vec<String> = items
            .filter_map(|item| item.unwrap().file_name().to_str()?.strip_suffix(".manifest").map(str::to_owned))
            .collect();
        names.sort();
        names
    };
    let [older, newer] = &manifests()[..] else { panic!("{:?}", manifests()) };
    let vkey = plant.vkey().display().to_string();
    let restore = |keys: &Path, to: &str, more: &[&str]| {
        let keys = keys.display().to_string();
        let usual = ["restore", "store", "--data", to, "--key", &vkey, "--identity", "second.key", "--keys", &keys];
        plant.run(&[&usual[..], more].concat())
    };
    let restored = |to: &str| {
        let dir = plant.folder().join(to);
        let served = Service::spawn(lineproof().arg("serve").arg("--data").arg(&dir));
        let service = served.unwrap_or_else(|ended| panic!("{}", ended.log));
        assert_eq!(service.stop().code, Some(0));
        let fsck =
            lineproof().args(["fsck", "--data"]).arg(&dir).arg("--key").arg(dir.join("log.vkey")).output().unwrap();
        good(&fsck);
        assert_eq!(verify(&dir, &plant.vkey(), &[]).0, 0);
        let entries = all_entries(&dir);
        entries.iter().filter_map(|entry| Rotation::read(entry.as_bytes())).map(|said| said.event).collect::<Vec<_>>()
    };
    let both_events = [RotationEvent::Announced, RotationEvent::Retired];

    // The newer backup with the copy from the overlap: the log says which key it is at.
    good(&restore(&kept, "one", &["--unwitnessed"]));
    assert_eq!(restored("one"), both_events);
    assert_eq!(fs::read_dir(plant.folder().join("one/log/handover")).unwrap().count(), 1, "it cannot be made again");
    // The older one with the keys from after: the log says of the old key that it is retired.
    let refused = restore(&after, "two", &["--unwitnessed", "--backup", older]);
    assert!(text(&refused).contains("second history"), "{}", text(&refused));
    fs::remove_file(plant.folder().join(format!("store/backups/{newer}.manifest"))).unwrap();
    good(&restore(&after, "two", &["--unwitnessed"]));
    assert_eq!(restored("two"), both_events);

    // The copy put back in place of lost keys serves, and `retire` brings it up to date.
    fs::remove_dir_all(plant.data().join("keys")).unwrap();
    fs::rename(&kept, plant.data().join("keys")).unwrap();
    one_part(&plant, 3);
    let said = good(&plant.run(&["keys", "retire"]));
    assert!(said.contains("retired"), "{said}");
    one_part(&plant, 4);
    good(&plant.run(&["fsck"]));
}

fn copy_keys(plant: &Plant, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["log.skey", "master.key"] {
        fs::copy(plant.data().join("keys").join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_witness_by_files_that_knows_only_the_old_key_spoils_no_export() {
    let plant = Plant::new();
    let witness = plant.folder().join("witness");
    let old_key = file(&plant, "old.vkey", &fs::read(plant.vkey()).unwrap());
    good(
        &lineproof()
            .args(["witness", "init", "--name", "oem.example/w", "--log"])
            .arg(&old_key)
            .arg(&witness)
            .output()
            .unwrap(),
    );
    let vkey = fs::read_to_string(witness.join("witness.vkey")).unwrap();
    let config = fs::read_to_string(plant.data().join("lineproof.toml")).unwrap();
    let table = format!("{config}\n[[witness]]\nname = \"oem\"\nvkey = \"{}\"\n", vkey.trim());
    fs::write(plant.data().join("lineproof.toml"), table).unwrap();
    one_part(&plant, 1);
    good(&plant.run(&["keys", "rotate"]));
    one_part(&plant, 2);
    let refused = plant.run(&["keys", "retire"]);
    assert!(text(&refused).contains("no witnessed checkpoint"), "{}", text(&refused));
    good(&plant.run(&["witness", "request", "request"]));
    let mut sign = lineproof();
    sign.args(["witness", "sign", "--dir"]).arg(&witness).arg(plant.folder().join("request"));
    good(&sign.output().unwrap());
    good(&plant.run(&["witness", "import", "request.cosigned"]));
    // It gave the lines back with its own between those of the log.
    let at = |name: &str| plant.folder().join(name);
    good(&plant.run(&["export", "--out", "while.zip"]));
    good(&plant.run(&["passport", "SN-00001", "--out", "while.tlog-proof"]));
    for key in [&old_key, &plant.vkey()] {
        assert_eq!(verify(&at("while.zip"), key, &[]).0, 0);
        assert_eq!(verify(&at("while.tlog-proof"), key, &[]).0, 0);
    }
    good(&plant.run(&["keys", "retire"]));
    one_part(&plant, 3);
    good(&plant.run(&["export", "--out", "after.zip"]));
    good(&plant.run(&["passport", "SN-00001", "--out", "after.tlog-proof"]));
    assert_eq!(verify(&at("after.zip"), &plant.vkey(), &[]).0, 0);
    assert_eq!(verify(&at("after.tlog-proof"), &plant.vkey(), &[]).0, 0);
}

#[test]
fn a_key_under_which_anybody_can_sign_is_none() {
    let plant = Plant::new();
    one_part(&plant, 1);
    good(&plant.run(&["passport", "SN-00001", "--out", "part.tlog-proof"]));
    let top = |first: u8, last: u8| [&[first][..], &[0xff; 30], &[last]].concat();
    let mut bytes = vec![
        [&[1][..], &[0; 31]].concat(),
        vec![0; 32],
        // No point of the curve, the prime and more, minus one, and one with the sign of a zero.
        [&[2][..], &[0; 31]].concat(),
        top(0xed, 0x7f),
        top(0xee, 0xff),
        top(0xec, 0x7f),
        [&[1][..], &[0; 30], &[0x80]].concat(),
    ];
    for order_8 in [
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    ] {
        bytes.push((0..32).map(|at| u8::from_str_radix(&order_8[at * 2..at * 2 + 2], 16).unwrap()).collect());
    }
    let log = "plant.example/log";
    for key in bytes {
        let material = [&[1][..], &key].concat();
        let id = signed_note::key_id(log, &material);
        let line = format!("{log}+{id:08x}+{}", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &material));
        let (code, said) =
            verify(&plant.folder().join("part.tlog-proof"), &file(&plant, "weak.vkey", line.as_bytes()), &[]);
        assert_eq!(code, 2, "{key:?}: {said}");
    }
    // What is no text, or too long, is no handover.
    for handover in [&b"\xff\xfe"[..], &[b'a'; 300_000]] {
        let handover = file(&plant, "handover", handover);
        assert_eq!(verify(&plant.folder().join("part.tlog-proof"), &plant.vkey(), &[&handover]).0, 1);
    }
}

#[test]
fn what_one_master_key_sealed_opens_under_the_next_and_the_one_before_is_destroyed() {
    let plant = Plant::new();
    // More than a bundle, so that private records lie in a file as well as in the write-ahead log.
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        for number in 1..=300 {
            client.inspect(part(number)).await.expect("a verdict");
        }
    });
    assert_eq!(service.stop().code, Some(0));
    let before = fs::read_to_string(plant.data().join("keys/master.key")).unwrap();
    let refused = plant.run(&["keys", "retire", "sealing"]);
    assert!(!refused.status.success() && text(&refused).contains("rotate sealing"), "{}", text(&refused));
    good(&plant.run(&["keys", "rotate", "sealing"]));
    assert!(!plant.run(&["keys", "rotate", "sealing"]).status.success(), "one change at a time");
    assert!(!plant.run(&["keys", "retire", "sealing"]).status.success(), "the log does not say it yet");
    one_part(&plant, 301);
    let opens = |number: &str| {
        let out = format!("{number}.tlog-proof");
        good(&plant.run(&["passport", number, "--out", &out]));
        let (code, said) = verify(&plant.folder().join(out), &plant.vkey(), &[]);
        assert!(code == 0 && said.contains(number), "{said}");
    };
    opens("SN-00001");
    opens("SN-00301");
    good(&plant.run(&["fsck"]));

    // Not while the service runs.
    let service = plant.serve();
    assert!(!plant.run(&["keys", "retire", "sealing"]).status.success());
    assert_eq!(service.stop().code, Some(0));
    let said = good(&plant.run(&["keys", "retire", "sealing"]));
    assert!(!said.contains("under no key") && said.contains("destroyed master key"), "{said}");
    assert!(said.contains("sealed 300 private records"), "{said}");
    let now = fs::read_to_string(plant.data().join("keys/master.key")).unwrap();
    assert!(now.lines().count() == 1 && !before.contains(now.trim()), "the old key is gone");
    // Everything opens under the new key alone: private values in files and in the write-ahead log, and every image.
    good(&plant.run(&["fsck"]));
    opens("SN-00001");
    opens("SN-00301");
    one_part(&plant, 302);
    opens("SN-00302");
    good(&plant.run(&["fsck"]));
    let entries = all_entries(&plant.data());
    let said: Vec<&String> = entries.iter().filter(|entry| entry.contains(r#""kind":"rotation""#)).collect();
    assert!(said.len() == 2 && said[0].contains("announced") && said[1].contains("retired"), "{said:?}");
    assert!(said.iter().all(|entry| entry.contains(r#""sealing":""#)), "{said:?}");
    // With the key that was destroyed nothing opens any more.
    fs::write(plant.data().join("keys/master.key"), before).unwrap();
    let fsck = plant.run(&["fsck"]);
    assert_eq!(fsck.status.code(), Some(1), "{}", text(&fsck));
}

/// Kills a command at each of its system calls in turn. After each kill everything opens and verifies at once; the same
/// command again, or what it says is to be done first, brings it to its end.
fn killed_everywhere(plant: &Plant, arguments: &[&str], is_done: impl Fn() -> bool) {
    let base = plant.folder().join("base");
    copy_folder(&plant.data(), &base);
    let (mut before, mut after) = (0, 0);
    for syscall in ["fsync", "fdatasync", "rename", "pwrite64", "unlink"] {
        for number in 1.. {
            fs::remove_dir_all(plant.data()).unwrap();
            copy_folder(&base, &plant.data());
            private_keys(&plant.data());
            let report = plant.folder().join("strace");
            let output = killed(plant, arguments, syscall, number, &report);
            if output.status.success() {
                assert_eq!(injected(&report), 0, "killed, and it ended well");
                break;
            }
            let at = format!("{arguments:?} killed at {syscall} {number}");
            if is_done() {
                after += 1;
            } else {
                before += 1;
                good(&plant.run(arguments));
                assert!(is_done(), "{at}");
            }
            good(&plant.run(&["fsck"]));
            good(&plant.run(&["passport", "SN-00001", "--out", "part.tlog-proof"]));
            let (code, said) = verify(&plant.folder().join("part.tlog-proof"), &plant.vkey(), &[]);
            assert!(code == 0 && said.contains("SN-00001"), "{at}: {said}");
        }
    }
    println!("{arguments:?}: {before} kills before the deed, {after} after it");
    assert!(before > 1 && after > 0, "{before} kills before the deed, {after} after it");
    fs::remove_dir_all(base).unwrap();
}

#[test]
fn a_change_of_keys_killed_at_any_system_call_is_done_again_or_was_done() {
    if !has_strace() {
        return skipped("no strace that can inject");
    }
    let plant = Plant::new();
    one_part(&plant, 1);
    let lines = |name: &str| fs::read_to_string(plant.data().join("keys").join(name)).unwrap().lines().count();
    // One change at a time: each is noted in the log by a start.
    killed_everywhere(&plant, &["keys", "rotate"], || lines("log.skey") == 2);
    one_part(&plant, 2);
    killed_everywhere(&plant, &["keys", "rotate", "sealing"], || lines("master.key") == 2);
    one_part(&plant, 3);
    killed_everywhere(&plant, &["keys", "retire"], || lines("log.skey") == 1);
    one_part(&plant, 4);
    killed_everywhere(&plant, &["keys", "retire", "sealing"], || lines("master.key") == 1);
    one_part(&plant, 5);
    let entries = all_entries(&plant.data());
    assert_eq!(entries.iter().filter(|entry| entry.contains(r#""kind":"rotation""#)).count(), 4);
}
