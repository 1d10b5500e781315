//! The line closes its periods: what it announced is decided, a gap, called lost, or missing, and who verifies hears it.

use std::process::Output;

use lineproof::edge::pb::{self, inspection_service_client::InspectionServiceClient};
use tonic::{Code, transport::Channel};

use crate::{
    evidence::{entries, verify},
    harness::{Plant, Service, block_on, part, request, text},
};

fn announce(period: &str, first: Option<u64>, last: u64) -> pb::ClosePeriodRequest {
    pb::ClosePeriodRequest {
        line: "line-1".into(),
        station: "station-1".into(),
        camera: "cam-1".into(),
        period: period.into(),
        first_counter: first,
        last_counter: last,
        ..pb::ClosePeriodRequest::default()
    }
}

async fn close(
    client: &mut InspectionServiceClient<Channel>,
    request: pb::ClosePeriodRequest,
) -> pb::ClosePeriodResponse {
    client.close_period(request).await.expect("the period is closed").into_inner()
}

async fn inspect(client: &mut InspectionServiceClient<Channel>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        client.inspect(part(number)).await.expect("a verdict");
    }
}

/// The command as a person at the line types it.
fn close_period(plant: &Plant, service: &Service, arguments: &[&str]) -> Output {
    let server = format!("http://{}", service.address);
    plant.run(&[&["close-period", "--server", &server], arguments].concat())
}

/// What the auditor hears of the whole log and of an export of everything: both agree.
fn verified(plant: &Plant) -> (Option<i32>, String) {
    let output = plant.run(&["export", "--out", "all.zip"]);
    assert!(output.status.success(), "{}", text(&output));
    let (log, export) = (verify(&plant.data(), &plant.vkey()), verify(&plant.folder().join("all.zip"), &plant.vkey()));
    assert_eq!(log.status.code(), export.status.code(), "{}\n{}", text(&log), text(&export));
    let fsck = plant.run(&["fsck"]);
    assert_eq!(fsck.status.code(), log.status.code(), "{}", text(&fsck));
    (log.status.code(), text(&log))
}

#[test]
fn frames_lost_on_the_line_are_missing_until_the_line_says_so() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        inspect(&mut client, [1, 2, 5, 6]).await;
        // Frame 7 comes and is refused: that is a gap. Frames 8 to 10 never come.
        let refused = client.inspect(request(7, b"no image".to_vec())).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    });
    let output = close_period(&plant, &service, &["--period", "early", "--first", "1", "--last", "10"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let export = plant.run(&["export", "--out", "at-once.zip"]);
    assert!(export.status.success(), "{}", text(&export));
    let at_once = verify(&plant.folder().join("at-once.zip"), &plant.vkey());
    assert_eq!(at_once.status.code(), Some(1), "an export right after the close holds it: {}", text(&at_once));
    assert!(text(&output).contains("4 decided, 3 noted as gaps, 0 called lost, 3 missing"), "{}", text(&output));
    assert!(text(&output).contains("--lost 8-10"), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));
    let (code, said) = verified(&plant);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("3 frames announced by the line (counter 8-10)"), "{said}");

    let service = plant.serve();
    let again = ["--period", "early", "--first", "1", "--last", "10", "--lost", "8-10"];
    let output = close_period(&plant, &service, &again);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = close_period(&plant, &service, &again);
    assert!(text(&output).contains("was there before"), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(entries(&plant.data(), "period_close").len(), 2, "what was said first stays");
    let (code, said) = verified(&plant);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("4 decided, 3 noted as gaps, 3 it calls lost, 0 missing"), "{said}");
}

#[test]
fn periods_go_on_over_a_restart_and_a_retry_finds_what_stands() {
    let plant = Plant::new();
    let service = plant.serve();
    let first = block_on(async {
        let mut client = service.inspection().await;
        // The line runs on while the first period is closed.
        inspect(&mut client, 1..=6).await;
        let closed = close(&mut client, announce("one", Some(1), 4)).await;
        assert_eq!((closed.decided, closed.complete, closed.since), (4, true, 0));
        closed
    });
    service.kill();
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        let again = close(&mut client, announce("one", Some(1), 4)).await;
        assert_eq!((again.duplicate, again.entry_index, &again.leaf_hash), (true, first.entry_index, &first.leaf_hash));
        inspect(&mut client, [8]).await;
        let second = close(&mut client, pb::ClosePeriodRequest { parts: Some(4), ..announce("two", None, 8) }).await;
        assert_eq!((second.first_counter, second.decided, second.gaps), (5, 3, 1), "frame 7 is a noted jump");
        assert!(second.complete);

        let refusal = |request| async { service.inspection().await.close_period(request).await.unwrap_err().code() };
        assert_eq!(
            refusal(announce("three", Some(12), 14)).await,
            Code::FailedPrecondition,
            "frames 9 to 11 are skipped"
        );
        assert_eq!(refusal(announce("two", Some(5), 9)).await, Code::AlreadyExists);
        assert_eq!(refusal(announce("three", None, 8)).await, Code::FailedPrecondition, "nothing is new");
        assert_eq!(refusal(announce("three", Some(9), 8)).await, Code::InvalidArgument);
        assert_eq!(refusal(announce("th/ree", None, 9)).await, Code::InvalidArgument);
        let stranger = pb::ClosePeriodRequest { camera: "cam-9".into(), ..announce("one", Some(1), 4) };
        assert_eq!(refusal(stranger).await, Code::NotFound);
    });
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(entries(&plant.data(), "period_close").len(), 2);
    let (code, said) = verified(&plant);
    assert_eq!(code, Some(0), "{said}");
    let output = plant.run(&["reindex"]);
    assert!(output.status.success(), "{}", text(&output));
    let output = plant.run(&["export", "--part", "SN-00002", "--out", "one.zip"]);
    assert!(output.status.success(), "{}", text(&output));
    let output = verify(&plant.folder().join("one.zip"), &plant.vkey());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("only as the log states, because this is a selection"), "{}", text(&output));
}

#[test]
fn a_camera_that_counts_from_anew_and_parts_that_no_camera_saw() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        inspect(&mut client, 1..=3).await;
        assert!(close(&mut client, announce("one", Some(1), 3)).await.complete);
        for number in [1, 3] {
            let frame = pb::InspectRequest { frame_id: format!("again-{number}"), ..part(number) };
            client.inspect(frame).await.expect("a verdict");
        }
        let anew = pb::ClosePeriodRequest { counter_restarted: true, ..announce("two", Some(1), 3) };
        let closed = close(&mut client, anew.clone()).await;
        assert_eq!(closed.missing_counters, [pb::CounterRange { first: 2, last: 2 }], "the old frame 2 does not count");
        let lost = pb::ClosePeriodRequest { lost: vec![pb::CounterRange { first: 2, last: 2 }], ..anew };
        assert!(close(&mut client, lost).await.complete);

        inspect(&mut client, [4]).await;
        let short = pb::ClosePeriodRequest { parts: Some(3), ..announce("three", None, 4) };
        let closed = close(&mut client, short.clone()).await;
        assert_eq!((closed.complete, closed.missing, closed.frames_short), (false, 0, 2));
    });
    assert_eq!(service.stop().code, Some(0));
    let (code, said) = verified(&plant);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("parts for 2 frames more than its camera took"), "{said}");
}

#[test]
fn a_correction_names_again_what_was_counted() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        inspect(&mut client, 1..=6).await;
        let counted =
            pb::ClosePeriodRequest { parts: Some(4), frames_per_part: Some(2), ..announce("one", Some(1), 6) };
        assert!(!close(&mut client, counted.clone()).await.complete, "four parts give eight frames");
        for withdrawn in
            [announce("one", Some(1), 6), pb::ClosePeriodRequest { frames_per_part: None, ..counted.clone() }]
        {
            let refused = client.close_period(withdrawn).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains("names it again"), "{}", refused.message());
        }
        let right = pb::ClosePeriodRequest { parts: Some(3), ..counted };
        assert!(close(&mut client, right.clone()).await.complete);
        let withdrawn = client.close_period(announce("one", Some(1), 6)).await.unwrap_err();
        assert_eq!(withdrawn.code(), Code::FailedPrecondition, "a correction cannot be withdrawn either");
        assert!(close(&mut client, right).await.duplicate);
    });
    let output = close_period(&plant, &service, &["--period", "one", "--last", "6"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("--parts N"), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(entries(&plant.data(), "period_close").len(), 2);
    let (code, said) = verified(&plant);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_name_used_before_closes_no_other_run() {
    let plant = Plant::new();
    let service = plant.serve();
    let server = format!("http://{}", service.address);
    let run = |name: &str, close: &str| {
        let fixed = ["camera", "simulate", "--server", &server, "--quiet", "--parts", "4"];
        plant.run(&[&fixed[..], &["--run", name, close]].concat())
    };
    let output = run("monday", "--close-period=early-shift");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("all is accounted for"), "{}", text(&output));
    // The same frames again are a retry, and nothing new is claimed.
    let output = run("monday", "--close-period=early-shift");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("no period closed"), "{}", text(&output));
    // Other frames with the same counters.
    let output = run("tuesday", "--close-period=early-shift");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("early-shift was used already"), "{}", text(&output));
    assert!(!text(&output).contains("all is accounted for"), "{}", text(&output));
    let output = run("wednesday", "--close-period=wednesday-early");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(entries(&plant.data(), "period_close").len(), 2);
}

#[test]
fn the_command_asks_before_it_closes_what_is_likely_a_slip_and_names_its_arguments() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async { inspect(&mut service.inspection().await, 1..=2).await });
    let refused = |arguments: &[&str], code: i32, hint: &str| {
        let output = close_period(&plant, &service, arguments);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains(hint), "{}", text(&output));
    };
    refused(&["--first", "1", "--last", "9007199254740991"], 2, "--yes");
    refused(&["--last", "9007199254740991"], 2, "--first N");
    refused(&["--last", "2"], 1, "(--first N)");
    let output = close_period(&plant, &service, &["--period", "one", "--first", "1", "--last", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    refused(&["--period", "two", "--first", "9", "--last", "12"], 1, "--restarted --first N");
    // Whoever means it is heard: it is one close more, and says itself what is missing.
    let output = close_period(&plant, &service, &["--period", "two", "--last", "2000000", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(entries(&plant.data(), "period_close").len(), 2);
}

#[test]
fn a_line_pc_closes_the_period_of_its_run() {
    let plant = Plant::new();
    let service = plant.serve();
    let server = format!("http://{}", service.address);
    let run = |more: &[&str]| {
        let fixed = ["camera", "simulate", "--server", &server, "--state", "line.jsonl", "--quiet"];
        let output = plant.run(&[&fixed[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        text(&output)
    };
    let said = run(&["--parts", "5", "--close-period=early"]);
    assert!(said.contains("period early of line-1 / station-1 / cam-1: 5 frames, counters 1 to 5"), "{said}");
    let said = run(&["--parts", "5", "--first", "5", "--close-period"]);
    assert!(said.contains("5 frames, counters 6 to 10") && said.contains("all is accounted for"), "{said}");
    let said = run(&["--first", "10", "--parts", "8", "--rate", "2", "--close-period=hour", "--close-every-s", "1"]);
    assert!(said.matches("period hour").count() >= 2, "{said}");
    assert_eq!(service.stop().code, Some(0));
    let (code, said) = verified(&plant);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("periods of 18 frames: 18 decided"), "{said}");
    // From the first close on, all later periods are in the export whole; the first is only stated.
    let first: serde_json::Value = serde_json::from_str(&entries(&plant.data(), "period_close")[0]).unwrap();
    let output = plant.run(&["export", "--from", first["time"].as_str().unwrap(), "--out", "window.zip"]);
    assert!(output.status.success(), "{}", text(&output));
    let output = verify(&plant.folder().join("window.zip"), &plant.vkey());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(
        text(&output).contains("13 decisions") && text(&output).contains(", 1 only as the log states"),
        "{}",
        text(&output)
    );
}
