//! Faults: killed, damaged, full. Nothing acknowledged is lost, nothing is doubled, nothing false is served.

use std::{collections::HashMap, fs, path::PathBuf};

use lineproof::edge::pb;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::{
    disk::{Filler, SmallDisk, free_bytes},
    evidence::{all_entries, entry_kinds},
    harness::{Plant, block_on, part, skipped, text},
    syscalls::reads,
};

/// Kills under load; `LINEPROOF_KILLS` asks for more (docs/reliability.md).
#[test]
fn kill_minus_nine_under_load_loses_and_doubles_nothing_acknowledged() {
    let kills: u32 = std::env::var("LINEPROOF_KILLS").map_or(5, |text| text.parse().expect("a number of kills"));
    let seed: u64 = std::env::var("LINEPROOF_SEED").map_or(20_261_123, |text| text.parse().expect("a seed"));
    let plant = Plant::new();
    // Distinct bytes under the same pixels: a part costs a copy here, not a rendering.
    let base = crate::harness::simulated_png(1);
    let mut acknowledged: HashMap<String, (u64, Vec<u8>)> = HashMap::new();
    let (mut next, mut random, mut unanswered) = (1_u64, seed, 0_u64);
    for _ in 0..kills {
        let service = plant.serve();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let answers_before_the_kill = 1 + (random >> 33) % 60;
        let (asked, answered) = block_on(async {
            let (frames, incoming) = tokio::sync::mpsc::channel(8);
            let first = next;
            let base = base.clone();
            let sender = tokio::spawn(async move {
                let mut number = first;
                // Parts of the last round are sent again: those that were acknowledged must come back as duplicates.
                for again in first.saturating_sub(20).max(1)..first {
                    if frames.send(numbered(&base, again)).await.is_err() {
                        return number;
                    }
                }
                while frames.send(numbered(&base, number)).await.is_ok() {
                    number += 1;
                }
                number
            });
            let mut client = service.inspection().await;
            let stream = client.inspect_stream(tokio_stream::wrappers::ReceiverStream::new(incoming)).await.unwrap();
            let mut stream = stream.into_inner();
            let mut answered = Vec::new();
            let mut service = Some(service);
            while let Some(Ok(answer)) = stream.next().await {
                if let Some(pb::inspect_stream_response::Outcome::Decided(decided)) = answer.outcome {
                    answered.push((answer.frame_id, decided));
                }
                if answered.len() as u64 >= answers_before_the_kill
                    && let Some(service) = service.take()
                {
                    service.kill();
                }
            }
            assert!(service.is_none(), "the stream ended before the kill");
            drop(stream);
            (sender.await.unwrap(), answered)
        });
        for (frame, decided) in answered {
            let found = (decided.entry_index, decided.leaf_hash);
            if let Some(before) = acknowledged.get(&frame) {
                assert_eq!(before, &found, "frame {frame} was acknowledged twice with different entries");
            }
            acknowledged.insert(frame, found);
        }
        unanswered += asked - next;
        next = asked;
    }
    let service = plant.serve();
    assert_eq!(service.stop().code, Some(0));
    let entries = all_entries(&plant.data());
    let mut frames: HashMap<String, u64> = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let value: serde_json::Value = serde_json::from_str(entry).unwrap();
        if value["kind"] == "decision" {
            let frame = value["frame"]["id"].as_str().unwrap().to_owned();
            let doubled = frames.insert(frame.clone(), index as u64);
            assert_eq!(doubled, None, "frame {frame} has two decisions");
        }
    }
    for (frame, (index, _)) in &acknowledged {
        assert_eq!(frames.get(frame), Some(index), "acknowledged frame {frame} is lost");
    }
    let output = plant.run(&["fsck"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(acknowledged.len() as u32 >= kills, "the load was no load");
    println!(
        "seed {seed}: {kills} kills, {} acknowledged, {} entries, up to {unanswered} under way at a kill",
        acknowledged.len(),
        entries.len()
    );
}

/// The same picture under bytes of its own: a PNG may be followed by nothing, so the number goes into the pixels.
fn numbered(base: &[u8], number: u64) -> pb::InspectRequest {
    let mut image = image::load_from_memory(base).expect("a PNG").into_luma8();
    for (bit, pixel) in image.as_mut().iter_mut().take(48).enumerate() {
        *pixel = (*pixel & 0xfe) | u8::from(number >> bit & 1 == 1);
    }
    let (width, height) = image.dimensions();
    crate::harness::request(number, crate::harness::encode(image.as_raw(), width, height, image::ImageFormat::Bmp))
}

#[test]
fn a_damaged_log_is_not_appended_to_and_stays_readable() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        for number in 1..=5 {
            client.inspect(part(number)).await.unwrap();
        }
    });
    service.stop();
    // In the middle of the write-ahead log, with whole records behind it: no torn tail, somebody changed it.
    let wal = only_file_in(&plant.data().join("wal"));
    let mut bytes = fs::read(&wal).unwrap();
    let place = bytes.windows(10).position(|window| window == br#""camera":""#).unwrap();
    bytes[place + 3] ^= 1;
    fs::write(&wal, bytes).unwrap();

    let service = plant.serve();
    block_on(async {
        let status = service.inspection().await.inspect(part(6)).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("read-only"), "{}", status.message());
        let checkpoint = service.audit().await.get_checkpoint(pb::GetCheckpointRequest {}).await.unwrap().into_inner();
        assert!(!checkpoint.note.is_empty());
    });
}

fn only_file_in(folder: &std::path::Path) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().expect("a file");
    assert!(files.next().is_none(), "more than one file in {}", folder.display());
    file
}

#[test]
fn a_log_rolled_back_behind_its_anchor_is_refused() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async { service.inspection().await.inspect(part(1)).await.unwrap() });
    service.stop();
    let saved = plant.folder().join("saved");
    copy_folder(&plant.data(), &saved);
    let service = plant.serve();
    block_on(async { service.inspection().await.inspect(part(2)).await.unwrap() });
    service.stop();
    for folder in ["log", "wal", "private"] {
        fs::remove_dir_all(plant.data().join(folder)).unwrap();
        copy_folder(&saved.join(folder), &plant.data().join(folder));
    }
    let service = plant.serve();
    block_on(async {
        let status = service.inspection().await.inspect(part(3)).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("anchor"), "{}", status.message());
    });
}

pub fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_ruined_index_is_rebuilt_from_the_log() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        for number in 1..=5 {
            client.inspect(part(number)).await.unwrap();
        }
        crate::inspection::wait_until_indexed(&service, 5).await;
    });
    service.stop();
    for entry in fs::read_dir(plant.data().join("index")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::write(path, b"no index").unwrap();
        }
    }
    let service = plant.serve();
    block_on(async {
        let again = service.inspection().await.inspect(part(2)).await.unwrap().into_inner();
        assert!(again.duplicate, "the lost index forgot a frame");
        crate::inspection::wait_until_indexed(&service, 5).await;
    });
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(entry_kinds(&plant.data()).iter().filter(|kind| *kind == "decision").count(), 5);
}

#[test]
fn below_the_disk_reserve_there_are_no_verdicts_and_reading_goes_on() {
    let plant = Plant::new();
    plant.edit_config("disk_reserve_bytes = 268435456", "disk_reserve_bytes = 9000000000000000000");
    let service = plant.serve();
    block_on(async {
        let status = service.inspection().await.inspect(part(1)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("reserve"), "{}", status.message());
        let listed = service.history().await.list_decisions(pb::ListDecisionsRequest::default()).await.unwrap();
        assert!(listed.into_inner().decisions.is_empty());
    });
}

#[test]
fn a_really_full_disk_stops_verdicts_and_nothing_else_until_there_is_room() {
    const RESERVE: u64 = 8 << 20;
    let disk = match SmallDisk::mount(64 << 20) {
        Ok(disk) => disk,
        Err(why) => return skipped(&why),
    };
    let root = disk.root().to_owned();
    let plant = Plant::below(root.clone(), disk);
    plant.edit_config("disk_reserve_bytes = 268435456", &format!("disk_reserve_bytes = {RESERVE}"));
    plant.edit_config("ok_share = 0.1", "ok_share = 1.0");
    let service = plant.serve();
    let acknowledged = block_on(async {
        let mut client = service.inspection().await;
        let mut acknowledged = Vec::new();
        for number in 1..=20 {
            acknowledged.push(client.inspect(part(number)).await.unwrap().into_inner().entry_index);
        }
        crate::inspection::wait_until_indexed(&service, 20).await;

        // Somebody else's file grows, into the reserve and then to the last byte.
        let mut filler = Filler::new(&root);
        for leave in [RESERVE / 2, 0] {
            filler.fill(leave);
            assert!(free_bytes(&root) <= leave, "the disk is not full");
            for number in 21..=40 {
                let status = client.inspect(part(number)).await.unwrap_err();
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert!(status.message().contains("free space"), "{}", status.message());
            }
            assert_eq!(reads(&service).await, 20);
            let again = client.inspect(part(7)).await.unwrap().into_inner();
            assert!(again.duplicate, "a decided frame is answered without room");
        }
        drop(filler);

        // The same process goes on; no look at the disk is believed longer than a tenth of a second.
        let room = std::time::Instant::now();
        for number in 21..=40 {
            let answer = loop {
                match client.inspect(part(number)).await {
                    Ok(answer) => break answer.into_inner(),
                    Err(status) => assert!(room.elapsed().as_secs() < 10, "no verdicts with room again: {status}"),
                }
            };
            acknowledged.push(answer.entry_index);
        }
        crate::inspection::wait_until_indexed(&service, 40).await;
        acknowledged
    });
    let ended = service.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let entries = all_entries(&plant.data());
    for (number, index) in (1..).zip(&acknowledged) {
        let id = format!("\"id\":\"f{number}\"");
        let found: Vec<u64> = (0..).zip(&entries).filter(|(_, entry)| entry.contains(&id)).map(|(at, _)| at).collect();
        assert_eq!(found, [*index], "part {number}");
    }
    let output = plant.run(&["fsck"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}
