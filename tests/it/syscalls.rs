//! System calls that fail on order: `strace` runs the service and answers in the kernel's place.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use lineproof::edge::pb;
use tonic::Code;

use crate::{
    evidence::all_entries,
    harness::{Plant, Service, block_on, lineproof, part, skipped, text},
};

/// Whether `strace` can inject here.
pub fn has_strace() -> bool {
    let output = Command::new("strace").args(["-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// `lineproof serve` under strace, which is the grandchild: the child is the service, to be killed and waited for.
pub fn serve_injected(plant: &Plant, path: &Path, syscall: &str, fault: &str, report: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-o"]).arg(report).arg("-P").arg(path);
    command.args(["-e", &format!("trace={syscall}"), "-e", &format!("inject={syscall}:{fault}")]);
    command.arg(lineproof().get_program()).arg("serve").arg("--data").arg(plant.data());
    command
}

/// How many calls strace answered itself.
pub fn injected(report: &Path) -> usize {
    std::fs::read_to_string(report).unwrap_or_default().matches("(INJECTED)").count()
}

#[test]
fn a_failed_sync_of_the_write_ahead_log_ends_the_service_unanswered_and_the_next_start_verifies() {
    if !has_strace() {
        return skipped("no strace that can inject");
    }
    // Of the syncs of the write-ahead log, a start needs three: its own entry, the configuration's and the recipe's.
    for failing in 4..7_u64 {
        let plant = Plant::new();
        let service = plant.serve();
        let first = block_on(async { service.inspection().await.inspect(part(1)).await.unwrap().into_inner() });
        assert_eq!(service.stop().code, Some(0));
        let mut acknowledged = vec![(1, first.entry_index)];

        let report: PathBuf = plant.folder().join("strace");
        let wal = plant.data().join("wal/00000000000000000000.wal");
        let fault = format!("error=EIO:when={failing}");
        let service = Service::spawn(&mut serve_injected(&plant, &wal, "fdatasync", &fault, &report));
        let service = service.unwrap_or_else(|ended| panic!("{}", ended.log));
        let mut unanswered = 2;
        block_on(async {
            let mut client = service.inspection().await;
            loop {
                match client.inspect(part(unanswered)).await {
                    Ok(answer) => acknowledged.push((unanswered, answer.into_inner().entry_index)),
                    Err(status) => {
                        assert_eq!(status.code(), Code::Unavailable, "{status}");
                        break;
                    }
                }
                unanswered += 1;
                assert!(unanswered < 10, "the sync that should fail did not");
            }
        });
        assert_eq!(unanswered, failing - 2, "answered without a sync of its own");
        let ended = service.wait();
        assert_eq!(ended.code, Some(1), "{}", ended.log);
        assert!(ended.log.contains("the log stopped after a failed write"), "{}", ended.log);
        assert!(ended.log.contains("Input/output error"), "{}", ended.log);
        assert_eq!(injected(&report), 1, "strace injected something else than one failed sync");

        let service = plant.serve();
        block_on(async {
            let mut client = service.inspection().await;
            for (number, index) in &acknowledged {
                let again = client.inspect(part(*number)).await.unwrap().into_inner();
                assert!(again.duplicate, "part {number} is lost");
                assert_eq!(again.entry_index, *index);
            }
            // Whole or not at all: either way the line PC's retry ends in one entry.
            let retried = client.inspect(part(unanswered)).await.unwrap().into_inner();
            acknowledged.push((unanswered, retried.entry_index));
        });
        assert_eq!(service.stop().code, Some(0));
        assert_decided_once(&plant, &acknowledged);
        let output = plant.run(&["fsck"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
}

/// Every part has one decision, at the index its line PC was told.
fn assert_decided_once(plant: &Plant, acknowledged: &[(u64, u64)]) {
    let entries = all_entries(&plant.data());
    let decided = |entry: &String, number: u64| entry.contains(&format!("\"id\":\"f{number}\""));
    for (number, index) in acknowledged {
        let found: Vec<u64> =
            (0..).zip(&entries).filter(|(_, entry)| decided(entry, *number)).map(|(at, _)| at).collect();
        assert_eq!(found, [*index], "part {number}");
    }
}

/// Reads what a service that takes no verdicts still has to answer.
pub async fn reads(service: &Service) -> usize {
    let checkpoint = service.audit().await.get_checkpoint(pb::GetCheckpointRequest {}).await.unwrap().into_inner();
    assert!(!checkpoint.note.is_empty());
    let listed = service.history().await.list_decisions(pb::ListDecisionsRequest::default()).await.unwrap();
    listed.into_inner().decisions.len()
}
