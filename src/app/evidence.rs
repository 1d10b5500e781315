//! `lineproof passport`, `export` and `show`: evidence for those who ask.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;

use super::{
    cli::{DataArgs, now, usage},
    client,
    history::{SearchArgs, ShownErased},
    search,
    verify::entry_beside,
    witness::plant,
};
use crate::{
    core::{
        export::{CHECKPOINT, zip::Archive},
        lineage::passport::Passport,
    },
    edge::{
        convert,
        pb::{self, get_decision_request::By, get_passport_request::Of},
    },
};

#[derive(Debug, Args)]
pub struct PassportArgs {
    /// Serial number of the part, or `#INDEX` for one entry
    serial: String,
    /// File to write; a part decided more than once gets `-2`, `-3`, … Default: SERIAL.tlog-proof
    #[arg(long, short = 'o', value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write the proof as a COSE receipt (RFC 9942, for SCITT tools) and the entry it is of
    #[arg(long)]
    cose: bool,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    search: SearchArgs,
    /// File to write
    #[arg(long, short = 'o', default_value = "report.zip", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Entry index, or LINE/CAMERA/FRAME-ID
    id: String,
    /// Only the entry's bytes, as the log holds them
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// # Errors
/// When the part has no decision, or a file cannot be written.
pub fn passport(args: &PassportArgs) -> anyhow::Result<ExitCode> {
    let of = match args.serial.strip_prefix('#') {
        Some(index) => Of::EntryIndex(index.parse().with_context(|| format!("{index:?} is no entry index"))?),
        None => Of::Serial(args.serial.clone()),
    };
    let request = pb::GetPassportRequest { of: Some(of) };
    let answer = client::with_office(&args.data.data, async |office| {
        office.audit().get_passport(request).await.map_err(client::said)
    })?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.tlog-proof", file_stem(&args.serial))));
    for (number, passport) in answer.into_inner().passports.iter().enumerate() {
        let path = if number == 0 { out.clone() } else { numbered(&out, number + 1) };
        write_whole(&path, passport.text.as_bytes())?;
        println!("wrote {} (entry {})", path.display(), passport.entry_index);
        for erased in passport.erased.iter().cloned().map(search::erased) {
            println!("  it does not open the {}: {}", erased.field, erased.words());
        }
        let read = Passport::parse(&passport.text).context("the service's passport")?;
        say_whether_witnessed(&args.data.data, &read.checkpoint)?;
        if args.cose {
            let receipt = path.with_extension("receipt.cbor");
            let entry = entry_beside(&receipt);
            write_whole(&entry, &read.entry)?;
            write_whole(&receipt, &passport.receipt)?;
            println!("wrote {} and {}", receipt.display(), entry.display());
        }
    }
    println!("check it anywhere: lineproof verify {} --key log.vkey", out.display());
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// When nothing matches, or the file cannot be written.
pub fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let filter = match args.search.filter(now()?) {
        Ok(filter) => convert::filter_message(&filter),
        Err(reason) => return Ok(usage(&reason)),
    };
    let bytes = client::with_office(&args.data.data, async |office| download(office, filter, &args.out).await)?;
    println!("wrote {} ({bytes} bytes)", args.out.display());
    say_whether_witnessed(&args.data.data, &checkpoint_of_export(&args.out)?)?;
    println!("check it anywhere: lineproof verify {} --key log.vkey", args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// Evidence that is given before enough witnesses cosigned is genuine, but an auditor with a policy refuses it.
fn say_whether_witnessed(data_dir: &Path, checkpoint: &str) -> anyhow::Result<()> {
    match plant::is_witnessed(data_dir, checkpoint)? {
        None => {}
        Some(true) => println!("  its checkpoint is cosigned as the witness policy asks"),
        Some(false) => println!(
            "  NOT WITNESSED YET: its checkpoint lacks cosignatures the witness policy asks for; fetch it again when the witnesses answered"
        ),
    }
    Ok(())
}

fn checkpoint_of_export(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let archive = Archive::open(&bytes).context("the service's export")?;
    let mut reader = archive.reader(CHECKPOINT).context("the service's export has no checkpoint")?;
    Ok(std::io::read_to_string(&mut reader)?)
}

/// Streams an export into a file that appears only when it is whole.
async fn download(office: &client::Office, filter: pb::DecisionFilter, out: &Path) -> anyhow::Result<u64> {
    let request = pb::ExportRequest { filter: Some(filter) };
    let mut stream = office.audit().export(request).await.map_err(client::said)?.into_inner();
    let temporary = temporary_beside(out);
    let mut file = fs::File::create(&temporary).with_context(|| temporary.display().to_string())?;
    let progress = progress_bar();
    let mut written = 0;
    while let Some(chunk) = stream.message().await.map_err(client::said)? {
        file.write_all(&chunk.data).with_context(|| temporary.display().to_string())?;
        written += chunk.data.len() as u64;
        progress.set_position(written);
    }
    progress.finish_and_clear();
    file.sync_all()?;
    fs::rename(&temporary, out).with_context(|| out.display().to_string())?;
    Ok(written)
}

fn progress_bar() -> indicatif::ProgressBar {
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{spinner} exporting {bytes} {bytes_per_sec} {elapsed}");
    indicatif::ProgressBar::new_spinner().with_style(style.expect("the template is valid"))
}

/// # Errors
/// When there is no such decision.
pub fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let by = parse_id(&args.id)?;
    let request = pb::GetDecisionRequest { by: Some(by) };
    let answer = client::with_office(&args.data.data, async |office| {
        office.history().get_decision(request).await.map_err(client::said)
    })?;
    let row = answer.into_inner().decision.context("the service answered without a decision")?;
    let mut out = std::io::stdout().lock();
    if args.json {
        out.write_all(&row.entry)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let entry: serde_json::Value = serde_json::from_slice(&row.entry).context("the entry is no JSON")?;
    writeln!(out, "entry     {}", row.entry_index)?;
    writeln!(out, "leaf hash sha256:{}", data_encoding::HEXLOWER.encode(&row.leaf_hash))?;
    let erased: Vec<ShownErased> = row.erased.iter().cloned().map(search::erased).collect();
    writeln!(out, "serial    {}", value_or_why_not("serial", &row.serial, &erased))?;
    writeln!(out, "lot       {}", value_or_why_not("lot", &row.lot, &erased))?;
    serde_json::to_writer_pretty(&mut out, &entry)?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}

fn value_or_why_not(field: &str, value: &str, erased: &[ShownErased]) -> String {
    if !value.is_empty() {
        return value.to_owned();
    }
    erased.iter().find(|erased| erased.field == field).map_or_else(|| "-".into(), ShownErased::words)
}

fn parse_id(id: &str) -> anyhow::Result<By> {
    if let Ok(index) = id.parse() {
        return Ok(By::EntryIndex(index));
    }
    let mut parts = id.splitn(3, '/').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(line), Some(camera), Some(frame_id)) => Ok(By::Frame(pb::FrameName { line, camera, frame_id })),
        _ => bail!("{id:?} names no decision; give an entry index or LINE/CAMERA/FRAME-ID"),
    }
}

/// A serial as a file name: what a file system may not like becomes `_`.
fn file_stem(serial: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    serial.chars().map(keep).collect()
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{number}{extension}"))
}

fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.part"))
}

pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = temporary_beside(path);
    fs::write(&temporary, bytes).with_context(|| temporary.display().to_string())?;
    fs::rename(&temporary, path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_become_harmless_file_names() {
        assert_eq!(file_stem("../[)>06 12/Ø"), "______06_12_Ø");
        assert_eq!(numbered(Path::new("a/b.tlog-proof"), 2), Path::new("a/b-2.tlog-proof"));
    }
}
