//! `lineproof model unbake`: gives out the raw score and map of an anomalib export, in a new file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::model::{read_up_to, spec_of, try_out};
use crate::{
    adapters::ort::find_library,
    core::model::{
        MODEL_BYTES_MAX, check,
        unbake::{FROM_PROPERTY, Unbaked, unbake},
    },
    ports::inference::ModelSpec,
    types::Blake3Digest,
};

/// anomalib 2 scales its score and map by what it saw in validation and cuts them to 0..1, in the graph. This adds what goes into that
/// to the outputs, so that thresholds can be chosen on the raw scale. The old file is not changed.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 written, 1 there is nothing to take apart or the new file does not answer as the old one, 2 the command could \
                  not be carried out."
)]
pub struct UnbakeArgs {
    /// An ONNX file that anomalib 2 exported
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The new file, which must not exist; without it, FILE with .raw before its ending
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// ONNX Runtime's library, where `ORT_DYLIB_PATH` names none and none lies beside this program
    #[arg(long, value_name = "LIBRARY")]
    onnxruntime: Option<PathBuf>,
    /// Facts for machines instead of sentences
    #[arg(long)]
    json: bool,
}

pub fn run(args: &UnbakeArgs) -> ExitCode {
    let out = args.out.clone().unwrap_or_else(|| args.file.with_extension("raw.onnx"));
    match write(args, &out) {
        Ok(Ok(unbaked)) => {
            if args.json {
                println!("{}", in_json(&unbaked, &out));
            } else {
                print!("{}", in_words(&unbaked, &out));
            }
            ExitCode::SUCCESS
        }
        Ok(Err(reason)) => {
            if args.json {
                println!("{}", json!({ "written": false, "reason": reason }));
            } else {
                eprintln!("nothing was written: {reason}");
            }
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("lineproof model unbake: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn write(args: &UnbakeArgs, out: &Path) -> anyhow::Result<Result<Unbaked, String>> {
    if out.exists() {
        bail!("{} exists; name another file with --out", out.display());
    }
    let bytes = read_up_to(&args.file, MODEL_BYTES_MAX)?;
    let library = find_library(args.onnxruntime.as_deref())?;
    let unbaked = match unbake(&bytes) {
        Ok(unbaked) => unbaked,
        Err(reason) => return Ok(Err(reason.to_string())),
    };
    if let Err(reason) = answers_alike(bytes, &unbaked, &library)? {
        return Ok(Err(reason));
    }
    write_new(out, &unbaked.bytes).with_context(|| out.display().to_string())?;
    Ok(Ok(unbaked))
}

/// Runs both files on the same picture: whatever the old one gives, the new one gives to the bit.
fn answers_alike(old: Vec<u8>, new: &Unbaked, library: &Path) -> anyhow::Result<Result<(), String>> {
    let facts = match check(&old, None) {
        Ok(facts) => facts,
        Err(refusal) => return Ok(Err(refusal.to_string())),
    };
    let spec = match spec_of(&facts, old.into(), new.from) {
        Ok(spec) => spec,
        Err(reason) => return Ok(Err(reason)),
    };
    let new = ModelSpec { bytes: Arc::from(new.bytes.as_slice()), digest: new.digest, ..spec.clone() };
    let (before, after) = (try_out(&spec, library.to_owned())?, try_out(&new, library.to_owned())?);
    Ok(before.and_then(|before| {
        let after = after?;
        if before.canary == after.canary {
            Ok(())
        } else {
            Err("its old outputs would change; please report this".into())
        }
    }))
}

/// A file that is there whole or not at all, and never in the place of another.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use io::Write as _;

    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let unfinished = path.with_extension(format!("new.{}", std::process::id()));
    let written = (|| {
        let mut file = fs::File::create_new(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE)?)
    })();
    if written.is_err() {
        // The first error is what its reader needs to hear.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn in_words(unbaked: &Unbaked, out: &Path) -> String {
    let Unbaked { from, digest, outputs, .. } = unbaked;
    let mut text = format!("wrote {}\n  digest      {digest}\n  made from   {from}\n", out.display());
    for output in outputs {
        text += &output.words();
    }
    text += &format!("+ metadata {FROM_PROPERTY} and the thresholds; every other byte is as it was\n");
    text += &format!("next: lineproof model add {}\n", out.display());
    text
}

fn in_json(unbaked: &Unbaked, out: &Path) -> serde_json::Value {
    let digest = |digest: &Blake3Digest| digest.to_string();
    let outputs = unbaked.outputs.iter().map(|output| {
        json!({
            "name": output.name,
            "of": output.of,
            "value": output.value,
            "threshold": output.threshold,
            "range": output.range,
            "tail": output.tail,
        })
    });
    json!({
        "written": true,
        "file": out,
        "digest": digest(&unbaked.digest),
        "from": digest(&unbaked.from),
        "outputs": outputs.collect::<Vec<_>>(),
    })
}
