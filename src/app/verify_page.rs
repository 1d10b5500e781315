//! `lineproof verify-page FILE`: the page that checks evidence in a browser, for an auditor who runs no program of ours.

use std::{fs::File, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use crate::core::export::VERIFY_PAGE;

/// Write the page that checks evidence in a browser.
#[derive(Clone, Debug, clap::Args)]
pub struct PageArgs {
    /// File to write, which must not exist yet; `-` for standard output.
    #[arg(default_value = "verify.html", value_name = "FILE")]
    pub file: PathBuf,
}

/// Writes the page and says how to use it.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn run(args: &PageArgs) -> anyhow::Result<ExitCode> {
    if args.file.as_os_str() == "-" {
        std::io::stdout().lock().write_all(VERIFY_PAGE.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = || args.file.display().to_string();
    File::create_new(&args.file).and_then(|mut file| file.write_all(VERIFY_PAGE.as_bytes())).with_context(name)?;
    println!("wrote {}: open it in a browser; it needs no network", args.file.display());
    Ok(ExitCode::SUCCESS)
}
