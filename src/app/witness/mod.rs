//! `lineproof witness …`: the OEM's side ([`own`]) and the plant's ([`plant`]). User guide: `docs/witness.md`.

pub mod own;
pub mod plant;

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::cli::DataArgs;
use crate::core::witness::request::REQUEST_BYTES_MAX;

#[derive(Debug, Subcommand)]
pub enum WitnessCommand {
    /// Make a witness: a key and a commented witness.toml
    Init(InitArgs),
    /// Run a witness
    Serve(ServeArgs),
    /// On the plant's side: write what a witness needs to cosign, to be carried there
    Request(RequestArgs),
    /// On the witness's side: cosign a request that was carried here
    Sign(SignArgs),
    /// On the plant's side: take in what a witness cosigned
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder to make
    pub dir: PathBuf,
    /// Name of the witness, a schema-less URL that is yours, such as oem.example/witness
    #[arg(long)]
    pub name: String,
    /// File with the public key of a log to vouch for, as the plant hands it out; may be given several times
    #[arg(long, value_name = "VKEYFILE")]
    pub log: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Folder that `lineproof witness init` made
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct RequestArgs {
    /// File to write
    pub file: PathBuf,
    /// Which [[witness]] of lineproof.toml it is for; not needed when only one has no url
    #[arg(long)]
    pub witness: Option<String>,
    /// Entries the witness cosigned last, if it says so; otherwise what was imported from it last
    #[arg(long, value_name = "ENTRIES")]
    pub old: Option<u64>,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Debug, Args)]
pub struct SignArgs {
    /// Request that the plant wrote
    pub file: PathBuf,
    /// The witness's folder
    #[arg(long)]
    pub dir: PathBuf,
    /// File to write; default: FILE.cosigned
    #[arg(long, short = 'o', value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// File that the witness wrote
    pub file: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
}

/// # Errors
/// With what to do about it.
pub fn run(command: &WitnessCommand) -> anyhow::Result<ExitCode> {
    match command {
        WitnessCommand::Init(args) => own::init(args)?,
        WitnessCommand::Serve(args) => {
            super::logging::init();
            own::serve(&args.dir)?;
        }
        WitnessCommand::Request(args) => plant::request(args)?,
        WitnessCommand::Sign(args) => own::sign(args)?,
        WitnessCommand::Import(args) => plant::import(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A request, or a cosigned checkpoint, which is shorter.
fn read_text(path: &Path) -> anyhow::Result<String> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut text = String::new();
    file.take(REQUEST_BYTES_MAX as u64 + 1).read_to_string(&mut text).with_context(|| path.display().to_string())?;
    if text.len() > REQUEST_BYTES_MAX {
        bail!("{} has more than {REQUEST_BYTES_MAX} bytes; it is no file of a witness", path.display());
    }
    Ok(text)
}

/// Writes a file whole or not at all, and durably: it is carried away on a stick.
fn write_whole(path: &Path, text: &str) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.part"));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| temporary.display().to_string())?;
    fs::rename(&temporary, path).with_context(|| path.display().to_string())
}
