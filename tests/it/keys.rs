//! A plant changes its log's signing key: before, while and after, everybody can verify with what they have.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use lineproof::core::lineage::{
    checkpoint::Checkpoint,
    rotation::{Rotation, RotationEvent, Said},
};

use crate::{
    evidence::all_entries,
    harness::{Plant, block_on, lineproof, part, text},
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
