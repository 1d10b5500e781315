//! The commands people type. Exit 0 done, 1 a check failed, 2 usage.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use super::{verify, verify_page};

/// Visual quality inspection that can prove itself.
#[derive(Debug, Parser)]
#[command(name = "lineproof", version, propagate_version = true, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[cfg_attr(feature = "server", expect(clippy::large_enum_variant, reason = "made once per process"))]
#[derive(Debug, Subcommand)]
enum Command {
    /// Check a passport, an export or a data directory's log offline, with nothing but public keys
    Verify(verify::VerifyArgs),
    /// Write the page that checks exports and passports in a browser, without this program and without network
    VerifyPage(verify_page::PageArgs),
    #[cfg(feature = "server")]
    #[command(flatten)]
    Server(ServerCommand),
}

#[cfg(feature = "server")]
#[expect(clippy::large_enum_variant, reason = "made once per process")]
#[derive(Debug, Subcommand)]
enum ServerCommand {
    /// Show the whole way on a simulated line: verdicts, a passport, a report, and a forgery that is refused
    Demo(super::demo::DemoArgs),
    /// Make a data directory: keys, a commented lineproof.toml, a first recipe
    Init(InitArgs),
    /// Run the service
    Serve(DataArgs),
    /// The line PC's side: stream a folder of images, or simulated parts
    Camera(super::camera::CameraArgs),
    /// Say how many frames and parts a camera had, and hear whether the log accounts for all of them
    ClosePeriod(super::camera::close::ClosePeriodArgs),
    /// Search decisions
    History(super::search::HistoryArgs),
    /// Show one decision: its entry index, or LINE/CAMERA/FRAME-ID
    Show(super::evidence::ShowArgs),
    /// Write the passport of a part, checkable offline
    Passport(super::evidence::PassportArgs),
    /// Write the evidence of many parts as one ZIP with a report
    Export(super::evidence::ExportArgs),
    /// Destroy a serial number, lot or person's name wherever it is filed; every proof stays valid
    Erase(super::erase::EraseArgs),
    /// Legal holds: what must not be destroyed
    #[command(subcommand)]
    Hold(super::hold::HoldCommand),
    /// Delete images and private values whose time is over, as lineproof.toml says
    #[command(subcommand)]
    Retention(super::retention::RetentionCommand),
    /// Decide recorded frames again, and say whether the same comes out
    Replay(super::replay::ReplayArgs),
    /// Answer an auditor's nonce with the entries it picks and their proofs
    Challenge(super::challenge::ChallengeArgs),
    /// Models and recipes: look at them, add them, and choose which inspects a product
    #[command(subcommand)]
    Model(super::model::ModelCommand),
    /// Measure how a model runs best on this machine, and what to write into lineproof.toml
    Tune(super::tune::TuneArgs),
    /// The process in which a model is loaded and run for the first time; the service starts it
    #[command(name = crate::adapters::trial::SUBCOMMAND, hide = true)]
    ModelTrial,
    /// Derive everything in a data directory again and compare
    Fsck(super::fsck::FsckArgs),
    /// Build the search index anew from the log
    Reindex(super::search::ReindexArgs),
    /// Copy the data directory, encrypted and only what is new, while the service runs
    Backup(super::backup::BackupArgs),
    /// Make a data directory out of a backup, or try whether that works (--drill)
    Restore(super::backup::RestoreArgs),
    /// Show the log's keys, and change its signing key for another
    #[command(subcommand)]
    Keys(super::keys::KeysCommand),
    /// A small certificate authority, for plants without one
    #[command(subcommand)]
    Pki(super::pki::PkiCommand),
    /// Vouch for others' logs that they have one history, or ask for it by files
    #[command(subcommand)]
    Witness(super::witness::WitnessCommand),
}

/// Where the data directory is.
#[derive(Clone, Debug, Args)]
pub struct DataArgs {
    /// Data directory, as `lineproof init` made it
    #[arg(long, short = 'd', env = "LINEPROOF_DATA", default_value = "lineproof-data", value_name = "DIR")]
    pub data: PathBuf,
}

#[cfg(feature = "server")]
#[derive(Debug, Args)]
struct InitArgs {
    /// Folder to make
    #[arg(default_value = "lineproof-data", env = "LINEPROOF_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Name of the plant; stands on every report
    #[arg(long, default_value = "My plant")]
    plant: String,
    /// Name of the log in every checkpoint, a schema-less URL that is yours
    #[arg(long, default_value = "lineproof.local/plant")]
    origin: String,
    #[arg(long, default_value = "line-1")]
    line: crate::types::LineId,
    #[arg(long, default_value = "station-1")]
    station: crate::types::StationId,
    #[arg(long, default_value = "cam-1")]
    camera: crate::types::CameraId,
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lineproof: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Verify(args) => Ok(verify::run(&args)),
        Command::VerifyPage(args) => verify_page::run(&args),
        #[cfg(feature = "server")]
        Command::Server(command) => run_server_command(command),
    }
}

#[cfg(feature = "server")]
fn run_server_command(command: ServerCommand) -> anyhow::Result<ExitCode> {
    use super::{
        backup, camera, challenge, demo, erase, evidence, fsck, hold, init, keys, logging, model, pki, replay,
        retention, search, server, tune, witness,
    };

    match command {
        ServerCommand::Demo(args) => demo::run(&args),
        ServerCommand::Init(InitArgs { data, plant, origin, line, station, camera }) => {
            let vkey = init::init(&data, &init::InitOptions { plant, origin, line, station, camera })?;
            println!("made {}", data.display());
            println!("verifier key, for your auditors (also in {}):", data.join("log.vkey").display());
            println!("  {vkey}");
            println!(
                "back up {} apart from the data; without it no checkpoint can be signed",
                data.join("keys").display()
            );
            println!("next: look at {}, then `lineproof serve --data {0}`", data.display());
            Ok(ExitCode::SUCCESS)
        }
        ServerCommand::Serve(args) => {
            logging::init();
            server::serve(&args.data)
        }
        ServerCommand::Camera(args) => camera::run(&args).map(ExitCode::from),
        ServerCommand::ClosePeriod(args) => camera::close::run(&args),
        ServerCommand::History(args) => search::history(&args),
        ServerCommand::Show(args) => evidence::show(&args),
        ServerCommand::Passport(args) => evidence::passport(&args),
        ServerCommand::Export(args) => evidence::export(&args),
        ServerCommand::Erase(args) => erase::erase(&args),
        ServerCommand::Hold(command) => hold::run(&command),
        ServerCommand::Retention(command) => retention::run(&command),
        ServerCommand::Replay(args) => replay::run(&args),
        ServerCommand::Challenge(args) => challenge::run(&args),
        ServerCommand::Model(command) => model::run(&command),
        ServerCommand::Tune(args) => tune::run(&args),
        ServerCommand::ModelTrial => model::trial(),
        ServerCommand::Fsck(args) => Ok(fsck::run(&args)),
        ServerCommand::Reindex(args) => search::reindex(&args),
        ServerCommand::Backup(args) => backup::run(&args),
        ServerCommand::Restore(args) => backup::restore(&args),
        ServerCommand::Keys(command) => keys::run(&command),
        ServerCommand::Pki(command) => pki::run(&command),
        ServerCommand::Witness(command) => witness::run(&command),
    }
}

/// The clock of this machine, for ages such as `--from 8h`.
#[cfg(feature = "server")]
pub(super) fn now() -> anyhow::Result<crate::types::Instant> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(crate::types::Instant::from_unix_nanos(i64::try_from(since.as_nanos())?)?)
}

/// An argument that clap could not check.
#[cfg(feature = "server")]
pub(super) fn usage(reason: &str) -> ExitCode {
    eprintln!("lineproof: {reason}");
    ExitCode::from(2)
}
