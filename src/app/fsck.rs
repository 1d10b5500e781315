//! `lineproof fsck`: checks everything that is on disk, on the plant's own machine, with the plant's keys.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;

use super::{
    cli::DataArgs,
    config::Config,
    erase::counted,
    keys::{self, log_key},
};
use crate::{
    adapters::{
        archive::PackArchive,
        log::{
            LogConfig,
            fsck::{Fsck, FsckReport},
        },
        model_store::{self, ModelStore},
        recipe_files::TextStore,
        sled_index::{Found, SledIndex},
    },
    core::lineage::checkpoint::VerifierKey,
    ports::index::FrameIndex as _,
    types::Blake3Digest,
};

/// Check the whole data directory: every entry, tile, checkpoint, private value and image. The service must be stopped.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 everything fits, 1 something is wrong or missing, 2 the check could not be made."
)]
pub struct FsckArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// File with the log's public key; otherwise the key in the data directory is believed.
    #[arg(long, value_name = "VKEYFILE")]
    pub key: Option<PathBuf>,
    /// Facts for machines instead of sentences.
    #[arg(long)]
    pub json: bool,
}

/// Checks, says what was checked on standard output, and returns 0 or 1; 2 when the check could not be made.
#[must_use]
pub fn run(args: &FsckArgs) -> ExitCode {
    match check(args) {
        Ok(report) if report.is_clean() && report.incomplete.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("lineproof fsck: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn check(args: &FsckArgs) -> anyhow::Result<FsckReport> {
    let data_dir = &args.data.data;
    let config = Config::load(data_dir)?;
    let keys = keys::open(data_dir)?;
    let key: VerifierKey = match &args.key {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            // Only the key that signs now: what an earlier one signed is no checkpoint that this log may stand at.
            log_key(&text, &keys).with_context(|| path.display().to_string())?.to_string().parse()?
        }
        None => keys.verifier_key().parse()?,
    };
    let config = LogConfig { anchor: config.log.anchor, ..LogConfig::new(data_dir) };
    let archive = PackArchive::open(data_dir.join("images"), keys.image_sealer())?;
    let (indexed_to, index_problem) = look_at_index(&data_dir.join("index"), keys.index_key())?;
    let fsck = Fsck { config: &config, key: &key, sealer: &*keys.private_sealer(), archive: &archive, indexed_to };
    let mut report = fsck.run(progress(args.json))?;
    let kept = kept_files(data_dir)?;
    let is_kept = |model: &Blake3Digest| {
        let name = format!("{}.onnx", model.hex());
        kept.iter().any(|(path, _)| path.file_name().is_some_and(|found| *found == *name))
    };
    report.models_not_kept = report.models.iter().filter(|model| !is_kept(model)).count() as u64;
    for (path, is_whole) in kept {
        report.kept_files += 1;
        if !is_whole {
            report.problem_count += 1;
            let path = path.display();
            report.problems.push(format!("{path} is not the file whose digest is its name: restore it from a backup"));
        }
    }
    if let Some(problem) = index_problem {
        report.problem_count += 1;
        report.problems.push(problem);
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        out.write_all(words(&report, data_dir).as_bytes())?;
    }
    Ok(report)
}

/// The recipes, calibrations and models that entries name by digest, and whether each is what its name says.
fn kept_files(data_dir: &Path) -> anyhow::Result<Vec<(PathBuf, bool)>> {
    let mut files = ModelStore::new(data_dir.join(model_store::FOLDER)).check()?;
    for (folder, extension) in TextStore::new(data_dir.join("texts")).digest_folders() {
        files.extend(model_store::digest_names(&folder, extension)?);
    }
    Ok(files)
}

/// How far the index reaches. A damaged one is moved aside, as every start does, and the next start rebuilds it.
fn look_at_index(path: &Path, key: [u8; 32]) -> anyhow::Result<(Option<u64>, Option<String>)> {
    if !path.exists() {
        return Ok((None, None));
    }
    let (index, found) = SledIndex::open(path, key)?;
    let problem = match found {
        Found::Whole | Found::New | Found::OtherKey => None,
        Found::Replaced { reason, aside } => Some(format!(
            "the index was unusable ({reason}) and lies in {} now; the next start rebuilds it",
            aside.display()
        )),
    };
    Ok((Some(index.indexed_to().0), problem))
}

/// A percentage on a terminal, nothing elsewhere.
pub(super) fn progress(quiet: bool) -> impl FnMut(u64, u64) {
    let show = !quiet && io::stderr().is_terminal();
    move |done, total| {
        if show {
            eprint!("\r{:3} %", done * 100 / total.max(1));
            if done == total {
                eprint!("\r     \r");
            }
        }
    }
}

pub(super) fn words(report: &FsckReport, data_dir: &Path) -> String {
    let mut lines = vec![
        format!(
            "{} entries are published, {} durable ones wait for their checkpoint",
            report.published, report.waiting
        ),
        format!("{} hash tiles were compared with what the entries lead to", report.tiles),
        format!(
            "{} private values open and fit their commitments, {} are not filed here",
            report.private_values, report.unopened
        ),
        format!("{} archived images were looked for and opened", report.images),
        format!("{} kept recipes, calibrations and models were held against their digests", report.kept_files),
    ];
    let periods = &report.periods;
    if periods.periods > 0 {
        lines.push(format!(
            "{} period closes were counted again: {} frames, {} decided, {} noted as gaps, {} called lost, {} missing",
            periods.periods, periods.frames, periods.decided, periods.gaps, periods.lost, periods.missing
        ));
    }
    if let Some(root) = report.root {
        lines.push(format!("the entries lead to the root {root}"));
    }
    if report.models_not_kept > 0 {
        let gone = counted(report.models_not_kept, "model is", "models are");
        lines.push(format!("{gone} not kept here: what they decided cannot be decided again (docs/replay.md)"));
    }
    if report.deleted_images > 0 {
        let gone = counted(report.deleted_images, "archived image is", "archived images are");
        lines.push(format!("{gone} gone, as entries say"));
    }
    if report.erased > 0 {
        let gone = counted(report.erased, "private value is", "private values are");
        lines.push(format!("{gone} gone, as entries say"));
    }
    if report.erasing {
        lines.push("an erasure was interrupted; the next start finishes it".into());
    }
    if report.torn_bytes > 0 {
        lines
            .push(format!("{} bytes of an entry nobody was promised will be cut at the next start", report.torn_bytes));
    }
    let mut text: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    for problem in &report.problems {
        text.push_str(&format!("  NO  {problem}\n"));
    }
    for incomplete in &report.incomplete {
        text.push_str(&format!("  NOT COMPLETE  {incomplete}\n"));
    }
    let untold = report.problem_count - report.problems.len() as u64;
    if untold > 0 {
        text.push_str(&format!("  NO  and {untold} more problems\n"));
    }
    let verdict = if report.is_clean() && !report.incomplete.is_empty() {
        format!(
            "{}: the directory is whole; the line announced frames of which it holds nothing.\n",
            data_dir.display()
        )
    } else if report.is_clean() {
        format!("{}: everything fits.\n", data_dir.display())
    } else {
        format!(
            "{}: {} problems. Keep this directory as it is, compare with a backup, and do not start the service on it.\n",
            data_dir.display(),
            report.problem_count
        )
    };
    text + &verdict
}
