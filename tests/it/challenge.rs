//! An auditor picks entries by a nonce; the plant has no say in which, and gives just those.

use std::fs;

use crate::{
    evidence::verify,
    harness::{Plant, block_on, lineproof, part, text},
};

const NONCE: &str = "00112233445566778899aabbccddeeff";

#[test]
fn a_nonce_given_after_a_checkpoint_picks_entries_that_the_plant_cannot_choose() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        for number in 1..=20 {
            client.inspect(part(number)).await.expect("a verdict");
        }
    });
    assert_eq!(service.stop().code, Some(0));
    // The auditor takes the checkpoint along; the log goes on; the nonce comes later.
    let held = plant.folder().join("held");
    fs::copy(plant.data().join("log/checkpoint"), &held).unwrap();
    let answer = |nonce: &str, checkpoint: &str, out: &str| {
        plant.run(&["challenge", nonce, "--count", "8", "--checkpoint", checkpoint, "--out", out])
    };
    let service = plant.serve();
    block_on(async { service.inspection().await.inspect(part(21)).await.expect("a verdict") });
    let output = answer(NONCE, "held", "answer.challenge");
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));

    let file = plant.folder().join("answer.challenge");
    let check = |file: &std::path::Path, more: &[&str]| {
        let mut command = lineproof();
        command.arg("verify").arg(file).arg("--key").arg(plant.vkey()).args(more);
        command.output().expect("the binary runs")
    };
    let held = held.display().to_string();
    let output = check(&file, &["--nonce", NONCE, "--against", &held]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("it is the nonce you gave"), "{}", text(&output));
    assert!(text(&output).contains("both show the same log"), "{}", text(&output));
    let output = check(&file, &[]);
    assert!(output.status.success() && text(&output).contains("whoever makes up the nonce"), "{}", text(&output));
    let output = check(&file, &["--nonce", &"ab".repeat(16)]);
    assert_eq!(output.status.code(), Some(1), "another nonce: {}", text(&output));

    // The nonce exchanged, an entry exchanged, a bit changed: refused.
    let genuine = fs::read_to_string(&file).unwrap();
    let forged = plant.folder().join("forged.challenge");
    let lines: Vec<&str> = genuine.lines().collect();
    let twice = genuine.replacen(lines[4], lines[3], 1);
    let other = genuine.replacen(NONCE, &"ab".repeat(16), 1);
    let fewer = genuine.replacen("count 8", "count 7", 1);
    let longer = genuine.replacen("count 8", "count 08", 1);
    for bad in [twice, other, fewer, longer] {
        fs::write(&forged, bad).unwrap();
        assert_eq!(verify(&forged, &plant.vkey()).status.code(), Some(1));
    }
    let stranger = Plant::new();
    assert_eq!(verify(&file, &stranger.vkey()).status.code(), Some(1));
    let held_note = fs::read_to_string(&held).unwrap();
    let root = held_note.lines().nth(2).unwrap();
    let foreign = held_note.replacen(root, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 1);
    fs::write(plant.folder().join("foreign"), foreign).unwrap();
    assert!(!answer(NONCE, "foreign", "no.challenge").status.success(), "a checkpoint of another history");
    assert_eq!(answer("xyz", "held", "no.challenge").status.code(), Some(2));
    // Who was given what stands in the log, and nothing else was written.
    let given = crate::evidence::entries(&plant.data(), "access");
    let is_given = |entry: &&String| entry.contains("\"event\":\"passport\"") || entry.contains("\"event\":\"export\"");
    assert_eq!(given.iter().filter(is_given).count(), 8);
    assert!(!genuine.contains("SN-00"), "serial numbers stay closed");
    let output = check(&plant.vkey(), &["--nonce", NONCE]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}
