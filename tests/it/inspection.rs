//! The line integrator's journey: frames in, verdicts out, nothing lost and nothing doubled.

use lineproof::edge::pb;
use tokio_stream::{StreamExt as _, iter};

use crate::harness::{Plant, block_on, part, request, simulated_png};

#[test]
fn a_frame_gets_a_verdict_whose_entry_is_in_the_log() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let answer = service.inspection().await.inspect(part(1)).await.unwrap().into_inner();
        assert_ne!(answer.verdict(), pb::Verdict::Undefined);
        assert_eq!(answer.recipe, "machined-surface@1.1.0");
        assert_eq!(answer.labels.len(), 4);
        assert!(!answer.duplicate);
        assert!(answer.timings.is_some_and(|timings| timings.infer_us > 0 && timings.commit_us > 0));

        let mut history = service.history().await;
        let by = pb::get_decision_request::By::EntryIndex(answer.entry_index);
        let row = history.get_decision(pb::GetDecisionRequest { by: Some(by) }).await.unwrap().into_inner();
        let row = row.decision.unwrap();
        assert_eq!((row.frame_id.as_str(), row.leaf_hash), ("f1", answer.leaf_hash));
        assert_eq!(row.serial, "SN-00001");
        let entry = String::from_utf8(row.entry).unwrap();
        assert!(!entry.contains("SN-00001") && !entry.contains("LOT-7"), "private values stand in the entry: {entry}");
    });
}

#[test]
fn every_frame_of_a_stream_gets_exactly_one_answer() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let mut frames: Vec<_> = (1..=20).map(part).collect();
        frames[4].image_blake3 = vec![0; 32];
        frames[9].line = "nowhere".into();
        let stream = service.inspection().await.inspect_stream(iter(frames)).await.unwrap().into_inner();
        let answers: Vec<_> = stream.map(|answer| answer.unwrap()).collect().await;
        let mut decided = Vec::new();
        let mut refused = Vec::new();
        for answer in answers {
            match answer.outcome.unwrap() {
                pb::inspect_stream_response::Outcome::Decided(_) => decided.push(answer.frame_id),
                pb::inspect_stream_response::Outcome::Refused(refusal) => {
                    refused.push((answer.frame_id, refusal.reason))
                }
            }
        }
        assert_eq!(decided.len(), 18);
        refused.sort();
        let expected = [("f10", "unknown_station"), ("f5", "digest_mismatch")].map(|(id, why)| (id.into(), why.into()));
        assert_eq!(refused, expected);
    });
}

#[test]
fn a_retry_gets_the_same_entry_also_after_a_crash_and_other_bytes_are_refused() {
    let plant = Plant::new();
    let service = plant.serve();
    let first = block_on(async {
        let mut client = service.inspection().await;
        let first = client.inspect(part(1)).await.unwrap().into_inner();
        let again = client.inspect(part(1)).await.unwrap().into_inner();
        assert!(again.duplicate);
        assert_eq!((again.entry_index, &again.leaf_hash), (first.entry_index, &first.leaf_hash));
        first
    });
    service.kill();

    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        let again = client.inspect(part(1)).await.unwrap().into_inner();
        assert!(again.duplicate);
        assert_eq!((again.entry_index, &again.leaf_hash), (first.entry_index, &first.leaf_hash));
        assert_eq!((again.verdict, again.score), (first.verdict, first.score));

        let mut other = request(1, simulated_png(2));
        other.frame_id = "f1".into();
        let status = client.inspect(other).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::AlreadyExists, "{status}");
    });
    assert!(service.stop().code == Some(0));
    let kinds = crate::evidence::entry_kinds(&plant.data());
    assert_eq!(kinds.iter().filter(|kind| *kind == "decision").count(), 1, "{kinds:?}");
    let offered = crate::evidence::entries(&plant.data(), "access");
    let reused = offered.iter().filter(|entry| entry.contains("frame_id_reused")).count();
    assert_eq!(reused, 1, "{offered:?}");
}

#[test]
fn sigterm_drains_admitted_frames_and_publishes_a_checkpoint_over_them() {
    let plant = Plant::new();
    let service = plant.serve();
    let decided = block_on(async {
        let (frames, incoming) = tokio::sync::mpsc::channel(64);
        let mut client = service.inspection().await;
        for number in 1..=24 {
            frames.send(part(number)).await.unwrap();
        }
        let stream = client.inspect_stream(tokio_stream::wrappers::ReceiverStream::new(incoming)).await.unwrap();
        let mut stream = stream.into_inner();
        let first = stream.next().await.unwrap().unwrap();
        service.ask_to_stop();
        drop(frames);
        let mut answers = vec![first];
        while let Some(Ok(answer)) = stream.next().await {
            answers.push(answer);
        }
        let decided = |answer: &pb::InspectStreamResponse| match &answer.outcome {
            Some(pb::inspect_stream_response::Outcome::Decided(decided)) => Some(decided.entry_index),
            _ => None,
        };
        answers.iter().filter_map(decided).collect::<Vec<_>>()
    });
    let ended = service.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(!decided.is_empty());
    let kinds = crate::evidence::entry_kinds(&plant.data());
    for index in decided {
        assert_eq!(kinds[usize::try_from(index).unwrap()], "decision");
    }
}

#[test]
fn a_counter_jump_becomes_a_gap_entry() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        for number in [1, 2, 6] {
            client.inspect(part(number)).await.unwrap();
        }
    });
    assert_eq!(service.stop().code, Some(0));
    let gaps = crate::evidence::entries(&plant.data(), "gap");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(gaps[0].contains(r#""count":3,"first":3,"#) && gaps[0].contains(r#""last":5"#), "{}", gaps[0]);

    // The counter is followed across a restart, too.
    let service = plant.serve();
    block_on(async { service.inspection().await.inspect(part(9)).await.unwrap() });
    assert_eq!(service.stop().code, Some(0));
    let gaps = crate::evidence::entries(&plant.data(), "gap");
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert!(gaps[1].contains(r#""count":2,"first":7,"#), "{}", gaps[1]);
}

#[test]
fn a_full_queue_refuses_with_a_retry_hint_and_loses_nothing() {
    let plant = Plant::new();
    plant.edit_config("queue_frames_per_line = 64", "queue_frames_per_line = 1");
    plant.edit_config("workers = 0", "workers = 1");
    let service = plant.serve();
    block_on(async {
        let frames: Vec<_> = (1..=32).map(part).collect();
        let stream = service.inspection().await.inspect_stream(iter(frames)).await.unwrap().into_inner();
        let answers: Vec<_> = stream.map(|answer| answer.unwrap()).collect().await;
        assert_eq!(answers.len(), 32);
        let refusal = |answer: &pb::InspectStreamResponse| match &answer.outcome {
            Some(pb::inspect_stream_response::Outcome::Refused(refusal)) => Some(refusal.clone()),
            _ => None,
        };
        let refusals: Vec<_> = answers.iter().filter_map(refusal).collect();
        assert!(!refusals.is_empty(), "a queue of one took 32 frames at once");
        for refusal in refusals {
            assert_eq!(refusal.code, tonic::Code::ResourceExhausted as i32);
            assert!(refusal.retry_after.is_some(), "{refusal:?}");
        }
        // What was refused can be sent again, and is then decided once.
        let mut client = service.inspection().await;
        for number in 1..=32 {
            client.inspect(part(number)).await.unwrap();
        }
        wait_until_indexed(&service, 32).await;
    });
    assert_eq!(service.stop().code, Some(0));
    let kinds = crate::evidence::entry_kinds(&plant.data());
    assert_eq!(kinds.iter().filter(|kind| *kind == "decision").count(), 32);
    assert!(kinds.iter().any(|kind| kind == "gap"));
}

/// History follows the published checkpoint; waits for it to hold `count` decisions.
pub async fn wait_until_indexed(service: &crate::harness::Service, count: u64) {
    let mut history = service.history().await;
    loop {
        let counted = history.count_decisions(pb::CountDecisionsRequest::default()).await.unwrap().into_inner();
        if counted.ok + counted.not_ok + counted.not_decidable >= count {
            return;
        }
        tokio::task::yield_now().await;
    }
}
