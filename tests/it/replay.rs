//! Recorded frames are decided again, and what comes out is noted.

use std::{fs, path::Path, process::Command};

use lineproof::core::lineage::replay::{NotReplayable, Outcome, Replay};

use crate::{
    evidence::{all_entries, entries, verify},
    harness::{Plant, block_on, lineproof, part, request, text},
};

const NONCE: &str = "00112233445566778899aabbccddeeff";

fn plant() -> Plant {
    let plant = Plant::new();
    plant.edit_config("ok_share = 0.1", "ok_share = 1.0");
    plant
}

/// What the last entry of kind replay says.
fn last_replay(plant: &Plant) -> Replay {
    let entry = entries(&plant.data(), "replay").pop().expect("a replay is noted");
    Replay::read(entry.as_bytes()).expect("a replay as the specification writes it")
}

/// Entry index of every decision, with its verdict.
fn decisions(plant: &Plant) -> Vec<(usize, String)> {
    let all = all_entries(&plant.data()).into_iter().enumerate();
    let parsed = all.map(|(index, entry)| (index, serde_json::from_str::<serde_json::Value>(&entry).expect("JSON")));
    let decisions = parsed.filter(|(_, entry)| entry["kind"] == "decision");
    decisions.map(|(index, entry)| (index, entry["verdict"].as_str().expect("a verdict").to_owned())).collect()
}

fn inspect(plant: &Plant, numbers: std::ops::RangeInclusive<u64>) {
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        for number in numbers {
            client.inspect(part(number)).await.expect("a verdict");
        }
    });
    assert_eq!(service.stop().code, Some(0));
}

#[test]
fn recorded_frames_come_out_the_same_to_the_bit_also_when_their_recipe_is_gone() {
    let plant = plant();
    inspect(&plant, 1..=6);
    let first = decisions(&plant)[0].0.to_string();
    // The recipe's folder is gone, as after a change of models.
    fs::remove_dir_all(plant.data().join("models")).unwrap();
    fs::create_dir(plant.data().join("models")).unwrap();
    let output = plant.run(&["replay", &first, "line-1/cam-1/f2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("2 decisions were decided again: 2 bit-exact"), "{}", text(&output));
    let output = plant.run(&["replay", "--since", "1h", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(text(&output).matches(r#""outcome":"exact""#).count(), 6, "{}", text(&output));
    assert!(last_replay(&plant).outcomes().all(|(_, outcome)| outcome == Outcome::Exact));
    let output = plant.run(&["replay", "--sample", "4"]);
    assert!(text(&output).contains("4 decisions were decided again: 4 bit-exact"), "{}", text(&output));
    assert_eq!(verify(&plant.data(), &plant.vkey()).status.code(), Some(0));
}

#[test]
fn a_raw_frame_finds_its_stride_again() {
    let plant = plant();
    // The shipped recipe takes raw Mono8: 300 x 260 pixels in rows of 320 bytes.
    let mut frame = request(1, (0..320_u32 * 260).map(|at| (at * 7 % 251) as u8).collect());
    let image = frame.image.as_mut().expect("an image");
    image.raw =
        Some(lineproof::edge::pb::RawLayout { pfnc: 0x0108_0001, width_px: 300, height_px: 260, stride_bytes: 320 });
    let service = plant.serve();
    block_on(async { service.inspection().await.inspect(frame).await.expect("a verdict") });
    assert_eq!(service.stop().code, Some(0));
    let output = plant.run(&["replay", "line-1/cam-1/f1"]);
    assert!(text(&output).contains("bit-exact"), "{}", text(&output));
}

#[test]
fn what_cannot_be_decided_again_is_said_and_noted_with_its_reason() {
    let plant = Plant::new();
    plant.edit_config("ok_share = 0.1", "ok_share = 0.0");
    inspect(&plant, 1..=12);
    let decisions = decisions(&plant);
    let with = |wanted: &str| decisions.iter().find(|(_, verdict)| verdict == wanted).expect(wanted).0;
    let (ok, bad) = (with("OK").to_string(), with("NOT_OK").to_string());
    let reasons = |replay: &Replay| replay.outcomes().map(|(_, outcome)| outcome).collect::<Vec<_>>();

    let output = plant.run(&["replay", &ok]);
    assert_eq!(output.status.code(), Some(1), "nothing could be run: {}", text(&output));
    assert!(text(&output).contains("its image was not kept"), "{}", text(&output));
    assert_eq!(reasons(&last_replay(&plant)), [Outcome::NotReplayable(NotReplayable::NotArchived)]);

    // The model is changed on the disk, then the image's pack is gone.
    let models = plant.data().join("kept-models");
    let model = fs::read_dir(&models).unwrap().next().expect("a kept model").unwrap().path();
    let bytes = fs::read(&model).unwrap();
    fs::write(&model, [&bytes[..], b"x"].concat()).unwrap();
    let output = plant.run(&["replay", &bad]);
    assert!(
        output.status.code() == Some(1) && text(&output).contains("is not kept here, or its file was changed"),
        "{}",
        text(&output)
    );
    assert_eq!(reasons(&last_replay(&plant)), [Outcome::NotReplayable(NotReplayable::NoModel)]);
    fs::write(&model, bytes).unwrap();
    assert_eq!(plant.run(&["replay", &bad]).status.code(), Some(0));
    fs::remove_dir_all(plant.data().join("images/not_ok")).unwrap();
    let output = plant.run(&["replay", &bad, &ok]);
    assert!(text(&output).contains("its image was destroyed"), "{}", text(&output));
    assert!(text(&output).contains("1 image_gone, 1 not_archived"), "{}", text(&output));

    let output = plant.run(&["replay", "0"]);
    assert!(!output.status.success() && text(&output).contains("only decisions"), "{}", text(&output));
    assert_eq!(plant.run(&["replay"]).status.code(), Some(2));
    assert_eq!(plant.run(&["replay", "--sample", "0"]).status.code(), Some(2));
    assert_eq!(plant.run(&["replay", "--since", "yesterday"]).status.code(), Some(2));
}

#[test]
fn a_nonce_picks_what_is_decided_again_and_any_other_answer_is_refused() {
    let plant = plant();
    inspect(&plant, 1..=20);
    let held = plant.folder().join("held");
    fs::copy(plant.data().join("log/checkpoint"), &held).unwrap();
    // The log goes on, and the service runs.
    let service = plant.serve();
    block_on(async { service.inspection().await.inspect(part(21)).await.expect("a verdict") });
    let output =
        plant.run(&["challenge", NONCE, "--count", "12", "--replay", "--checkpoint", "held", "--out", "a.challenge"]);
    assert!(output.status.success() && text(&output).contains("bit-exact"), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));
    let file = plant.folder().join("a.challenge");
    let check = |file: &Path, more: &[&str]| {
        let mut command = lineproof();
        command.current_dir(plant.folder()).arg("verify").arg(file).arg("--key").arg(plant.vkey()).args(more);
        command.output().expect("the binary runs")
    };
    let output = check(&file, &["--nonce", NONCE, "--count", "12", "--replays", "--against", "held"]);
    assert!(output.status.success() && text(&output).contains("none differs"), "{}", text(&output));
    assert_eq!(check(&file, &["--count", "11"]).status.code(), Some(1), "another question");
    let output = plant.run(&["challenge", NONCE, "--count", "12", "--checkpoint", "held", "--out", "plain.challenge"]);
    assert!(output.status.success(), "{}", text(&output));
    let output = check(&plant.folder().join("plain.challenge"), &["--replays"]);
    assert!(output.status.code() == Some(1) && text(&output).contains("decided again"), "{}", text(&output));
    // The log that goes on holds both checkpoints.
    let output = check(&file, &["--against", &plant.data().display().to_string()]);
    assert!(output.status.success() && text(&output).contains("kept its beginning"), "{}", text(&output));
    let genuine = fs::read_to_string(&file).unwrap();
    assert!(genuine.starts_with("lineproof challenge 2\n"), "{genuine}");
    let replayed = last_replay(&plant).outcomes().count();
    assert_eq!(genuine.lines().filter(|line| line.starts_with("replay ")).count(), 1);
    assert!((1..=12).contains(&replayed), "{replayed}");

    // Replays of other decisions, made later: genuine entries, but not of what was picked.
    let more = plant.run(&["replay", "--since", "1h"]);
    assert!(more.status.success(), "{}", text(&more));
    let forged = plant.folder().join("forged.challenge");
    for (from, to) in [
        ("lineproof challenge 2", "lineproof challenge 1"),
        ("\nreplay ", "\nreplay 1"),
        ("\nreplay-proof ", "\nconsistency "),
        ("\nlater ", "\nlater A"),
        // The same nonce over another checkpoint, and another nonce, are other challenges.
        (NONCE, "00112233445566778899aabbccddeefe"),
    ] {
        assert!(genuine.contains(from), "{from}");
        fs::write(&forged, genuine.replacen(from, to, 1)).unwrap();
        assert_eq!(verify(&forged, &plant.vkey()).status.code(), Some(1), "{from:?} as {to:?}");
    }
}

#[test]
fn the_service_decides_a_sample_again_every_night() {
    let plant = plant();
    inspect(&plant, 1..=3);
    // The next minute is night; the one after it, if that is so near that the service may not listen by then.
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(20);
    let at = (now + jiff::SignedDuration::from_secs(60)).strftime("%H:%M").to_string();
    plant.edit_config("[log]", &format!("[replay]\nnightly_sample = 2\nat = \"{at}\"\n\n[log]"));
    let service = plant.serve();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(180);
    while entries(&plant.data(), "replay").is_empty() {
        assert!(std::time::Instant::now() < until, "no replay by {at}");
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    let ended = service.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(last_replay(&plant).outcomes().filter(|(_, outcome)| *outcome == Outcome::Exact).count(), 2);
}

#[test]
fn a_replay_told_under_a_forked_log_is_caught_by_the_next_checkpoint() {
    // Two logs of one key: copies of one data directory, of which each goes on by itself.
    let plant = plant();
    inspect(&plant, 1..=8);
    let held = plant.folder().join("held");
    fs::copy(plant.data().join("log/checkpoint"), &held).unwrap();
    let fork = plant.folder().join("fork");
    let copied = Command::new("cp").arg("-a").arg(plant.data()).arg(&fork).status().expect("cp runs");
    assert!(copied.success());
    let fork_text = fork.display().to_string();
    let ask = ["challenge", NONCE, "--count", "8", "--replay", "--checkpoint", "held", "--out", "fork.challenge"];
    let output = plant.run(&[&ask[..], &["--data", &fork_text]].concat());
    assert!(output.status.success(), "{}", text(&output));
    // The log that everybody else sees goes on longer.
    for _ in 0..3 {
        let more = plant.run(&["challenge", NONCE, "--count", "8", "--out", "more.challenge"]);
        assert!(more.status.success(), "{}", text(&more));
    }
    let check = |against: &Path| {
        let mut command = lineproof();
        let file = plant.folder().join("fork.challenge");
        command.arg("verify").arg(file).arg("--key").arg(plant.vkey()).arg("--against").arg(against);
        command.output().expect("the binary runs")
    };
    assert!(check(&held).status.success(), "the earlier checkpoint is the one that was held");
    let output = check(&plant.data());
    assert!(output.status.code() == Some(1) && text(&output).contains("FORK"), "{}", text(&output));
}
