//! `lineproof passport`, `export` and `show`: evidence for those who ask.

use std::{
    fmt, fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use data_encoding::HEXLOWER;

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
    types::Sha256Digest,
};

#[derive(Debug, Args)]
pub struct PassportArgs {
    /// Serial number of the part, or `#INDEX` for one entry
    serial: String,
    /// File to write; a part decided more than once gets `-2`, `-3`, … Default: SERIAL.tlog-proof, with eight hex digits
    /// of its SHA-256 where the serial has characters that file names should not have
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
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.tlog-proof", file_stem(&args.serial))));
    need_file_name(&out)?;
    let request = pb::GetPassportRequest { of: Some(of) };
    let answer = client::with_office(&args.data.data, async |office| {
        office.audit().get_passport(request).await.map_err(client::said)
    })?;
    for (number, passport) in answer.into_inner().passports.iter().enumerate() {
        let path = if number == 0 { out.clone() } else { numbered(&out, number + 1) };
        write_whole(&path, passport.text.as_bytes())?;
        say(format_args!("wrote {} (entry {})", path.display(), passport.entry_index))?;
        for erased in passport.erased.iter().cloned().map(search::erased) {
            say(format_args!("  it does not open the {}: {}", erased.field, erased.words()))?;
        }
        let read = Passport::parse(&passport.text).context("the service's passport")?;
        say_whether_witnessed(&args.data.data, &read.checkpoint)?;
        if args.cose {
            let receipt = receipt_beside(&path);
            let entry = entry_beside(&receipt);
            write_whole(&entry, &read.entry)?;
            write_whole(&receipt, &passport.receipt)?;
            say(format_args!("wrote {} and {}", receipt.display(), entry.display()))?;
        }
    }
    say(format_args!("check it anywhere: lineproof verify {} --key log.vkey", out.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// When nothing matches, or the file cannot be written.
pub fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let filter = match args.search.filter(now()?) {
        Ok(filter) => convert::filter_message(&filter),
        Err(reason) => return Ok(usage(&reason)),
    };
    need_file_name(&args.out)?;
    let bytes = client::with_office(&args.data.data, async |office| download(office, filter, &args.out).await)?;
    say(format_args!("wrote {} ({bytes} bytes)", args.out.display()))?;
    say_whether_witnessed(&args.data.data, &checkpoint_of_export(&args.out)?)?;
    say(format_args!("check it anywhere: lineproof verify {} --key log.vkey", args.out.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Evidence that is given before enough witnesses cosigned is genuine, but an auditor with a policy refuses it.
fn say_whether_witnessed(data_dir: &Path, checkpoint: &str) -> anyhow::Result<()> {
    let words = match plant::is_witnessed(data_dir, checkpoint)? {
        None => return Ok(()),
        Some(true) => "its checkpoint is cosigned as the witness policy asks",
        Some(false) => {
            "NOT WITNESSED YET: its checkpoint lacks cosignatures the witness policy asks for; fetch it again when the witnesses answered"
        }
    };
    say(format_args!("  {words}"))?;
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
    if args.json {
        say(format_args!("{}", std::str::from_utf8(&row.entry).context("the entry is no JSON")?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = Vec::new();
    let entry: serde_json::Value = serde_json::from_slice(&row.entry).context("the entry is no JSON")?;
    writeln!(out, "entry     {}", row.entry_index)?;
    writeln!(out, "leaf hash sha256:{}", HEXLOWER.encode(&row.leaf_hash))?;
    let erased: Vec<ShownErased> = row.erased.iter().cloned().map(search::erased).collect();
    writeln!(out, "serial    {}", value_or_why_not("serial", &row.serial, &erased))?;
    writeln!(out, "lot       {}", value_or_why_not("lot", &row.lot, &erased))?;
    if let Some(client) = erased.iter().find(|erased| erased.field == "client") {
        writeln!(out, "client    {}", client.words())?;
    }
    serde_json::to_writer_pretty(&mut out, &entry)?;
    say(format_args!("{}", String::from_utf8_lossy(&out)))?;
    Ok(ExitCode::SUCCESS)
}

fn value_or_why_not(field: &str, value: &str, erased: &[ShownErased]) -> String {
    if !value.is_empty() {
        return value.to_owned();
    }
    erased.iter().find(|erased| erased.field == field).map_or_else(|| "-".into(), ShownErased::words)
}

pub(super) fn parse_id(id: &str) -> anyhow::Result<By> {
    if let Ok(index) = id.parse() {
        return Ok(By::EntryIndex(index));
    }
    let mut parts = id.splitn(3, '/').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(line), Some(camera), Some(frame_id)) => Ok(By::Frame(pb::FrameName { line, camera, frame_id })),
        _ => bail!("{id:?} names no decision; give an entry index or LINE/CAMERA/FRAME-ID"),
    }
}

/// Prints a line. A reader that has seen enough, such as `head`, ends neither the command nor the files it writes.
pub(super) fn say(line: fmt::Arguments<'_>) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// A serial as a file name: what a file system may not like becomes `_`, and a digest tells such serials apart.
fn file_stem(serial: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let stem: String = serial.chars().map(keep).collect();
    if stem == serial {
        return stem;
    }
    format!("{stem}-{}", HEXLOWER.encode(&Sha256Digest::of(serial.as_bytes()).0[..4]))
}

/// The receipt of `part.tlog-proof` is `part.receipt.cbor`; any other name is kept whole, because a serial may have dots.
fn receipt_beside(passport: &Path) -> PathBuf {
    let name = passport.file_name().unwrap_or_default().to_string_lossy();
    passport.with_file_name(format!("{}.receipt.cbor", name.strip_suffix(".tlog-proof").unwrap_or(&name)))
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

/// Refuses the name of a folder before anything is written beside it.
fn need_file_name(path: &Path) -> anyhow::Result<()> {
    let ends_as_folder = path.as_os_str().to_string_lossy().ends_with(std::path::is_separator);
    if ends_as_folder || path.file_name().is_none() || path.is_dir() {
        bail!("{} is a folder; give the name of a file with -o", path.display());
    }
    Ok(())
}

pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    need_file_name(path)?;
    let temporary = temporary_beside(path);
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The reason is told; that the rest cannot be removed either would add nothing.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_become_harmless_file_names() {
        assert_eq!(file_stem("SN-00042"), "SN-00042");
        let digits = file_stem("../[)>06 12/Ø").strip_prefix("______06_12_Ø-").map(str::len);
        assert_eq!(digits, Some(8));
        let alike = ["A.B", "A/B", "A_B", "A B"].map(file_stem);
        assert_eq!(alike.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{alike:?}");
        assert_eq!(numbered(Path::new("a/b.tlog-proof"), 2), Path::new("a/b-2.tlog-proof"));
    }

    #[test]
    fn a_receipt_keeps_the_dots_of_a_serial() {
        assert_eq!(receipt_beside(Path::new("a/SN.12")), Path::new("a/SN.12.receipt.cbor"));
        assert_eq!(receipt_beside(Path::new("SN.12.tlog-proof")), Path::new("SN.12.receipt.cbor"));
        assert_eq!(entry_beside(&receipt_beside(Path::new("SN.12"))), Path::new("SN.12.entry.json"));
    }
}
