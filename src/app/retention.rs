//! `lineproof retention`: what is over by the configured periods, shown or deleted; and the service's own runs.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::{cli::DataArgs, client, erase::counted};
use crate::{
    edge::{
        convert,
        pb::{Due, RunRequest, RunResponse},
    },
    services::retention::{RetentionError, RetentionService},
};

/// How often the service looks whether a run is due.
const LOOK: Duration = Duration::from_secs(60);
/// Looks that are left out after a run that failed.
const LOOKS_AFTER_FAILURE: u32 = 60;

#[derive(Debug, Subcommand)]
pub enum RetentionCommand {
    /// Say what a run would delete
    Plan(RunArgs),
    /// Delete what is over
    Run(RunArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Facts for machines instead of sentences
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// # Errors
/// When the data directory does not answer, or the disk refuses.
pub fn run(command: &RetentionCommand) -> anyhow::Result<ExitCode> {
    let (args, dry_run) = match command {
        RetentionCommand::Plan(args) => (args, true),
        RetentionCommand::Run(args) => (args, false),
    };
    let answer = client::with_office(&args.data.data, async |office| {
        office.retention().run(RunRequest { dry_run }).await.map_err(client::said)
    })?;
    let answer = answer.into_inner();
    if args.json {
        println!("{}", json(&answer))
    } else {
        print!("{}", words(&answer))
    }
    Ok(ExitCode::SUCCESS)
}

fn words(answer: &RunResponse) -> String {
    let mut text = String::new();
    for due in &answer.due {
        if due.packs == 0 && due.entries == 0 {
            let what = match due.what.as_str() {
                "images" => counted(due.kept, "pack of images is", "packs of images are"),
                _ => counted(due.kept, "entry with private values is", "entries with private values are"),
            };
            let days = format!("of days before {}: {}", before(due), due.rule);
            text.push_str(&format!("{what} over and kept because of holds, {days}\n"));
            continue;
        }
        let what = match due.what.as_str() {
            "images" => {
                let images = counted(due.images, "image", "images");
                format!("{images} in {}, {} bytes", counted(due.packs, "pack", "packs"), due.bytes)
            }
            _ => {
                let values = counted(due.values, "private value", "private values");
                format!("{values} of {}", counted(due.entries, "entry", "entries"))
            }
        };
        let kept = if due.kept > 0 { format!("; {} kept because of holds", due.kept) } else { String::new() };
        text.push_str(&format!("{what}, of days before {}: {}{kept}\n", before(due), due.rule));
    }
    if answer.due.is_empty() {
        text.push_str("nothing is over\n");
    }
    let recorded: Vec<String> = answer.recorded.iter().map(ToString::to_string).collect();
    text.push_str(&match recorded.as_slice() {
        [] => "nothing is deleted yet\n".to_owned(),
        recorded => format!("recorded as entry {}\n", recorded.join(", ")),
    });
    text
}

fn json(answer: &RunResponse) -> serde_json::Value {
    let due = |due: &Due| {
        serde_json::json!({
            "what": due.what, "class": due.class, "before": before(due), "rule": due.rule, "packs": due.packs,
            "images": due.images, "bytes": due.bytes, "entries": due.entries, "values": due.values, "kept": due.kept,
        })
    };
    serde_json::json!({ "due": answer.due.iter().map(due).collect::<Vec<_>>(), "recorded": answer.recorded })
}

fn before(due: &Due) -> String {
    let time = due.before.and_then(|before| convert::instant("before", before).ok());
    time.map(|time| time.day()).unwrap_or_default()
}

/// Runs retention every so many hours, reckoned from the last run in the log, until `stopper` fires.
pub(super) async fn keep_running(service: Arc<RetentionService>, every_h: u32, stopper: CancellationToken) {
    let mut waits = 0;
    loop {
        if waits == 0 {
            let service = service.clone();
            let ran = tokio::task::spawn_blocking(move || run_if_due(&service, every_h)).await;
            if let Ok(Err(error)) = ran {
                tracing::error!(%error, "retention did not run; it is tried again in an hour");
                waits = LOOKS_AFTER_FAILURE;
            }
        }
        waits = waits.saturating_sub(1);
        tokio::select! {
            () = stopper.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn run_if_due(service: &RetentionService, every_h: u32) -> Result<(), RetentionError> {
    let period_nanos = i64::from(every_h) * 3_600_000_000_000;
    let (now, _) = service.clock.now();
    if service.last_run()?.is_some_and(|last| now.unix_nanos() - last.unix_nanos() < period_nanos) {
        return Ok(());
    }
    let (plan, recorded) = service.run()?;
    let packs: usize = plan.images.iter().map(|due| due.packs.len()).sum();
    let entries: usize = plan.private.iter().map(|due| due.entries.len()).sum();
    tracing::info!(packs, entries, recorded = recorded.len(), "retention ran");
    Ok(())
}
