//! `lineproof model check`: what is in a model file, and whether this service would load it.

use std::{
    fmt::Write as _,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{model_add, model_sign, model_unbake, registry};
use crate::adapters::ort::{OrtRuntime, find_library};
use crate::{
    adapters::trial::{self, ProcessTrial},
    core::{
        model::{self, ASSUMED_SIDE_PX, ElementType, MODEL_BYTES_MAX, ModelFacts, ModelRefusal, TensorFact},
        recipe::{Recipe, TEXT_BYTES_MAX},
    },
    ports::inference::{InferenceError, ModelSpec, ModelTrial as _, SessionOptions, TrialReport},
    types::Blake3Digest,
};

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Say what is in an ONNX file, and whether this service would load it
    Check(CheckArgs),
    /// Make a recipe folder for an exported model: what its exporter wrote down, and questions about the rest
    Add(model_add::AddArgs),
    /// Give out the raw score and map of an anomalib export, in a new file
    Unbake(model_unbake::UnbakeArgs),
    /// Sign a recipe folder, so that plants that ask for it load it
    Sign(model_sign::SignArgs),
    /// Say who signed a recipe folder, and whether everything in it is as signed
    Verify(model_sign::VerifyArgs),
    /// Make a key that signs recipe folders
    NewKey(model_sign::NewKeyArgs),
    /// List recipes, whether they serve, and the products they inspect
    List(registry::ListArgs),
    /// Have a recipe inspect a product from now on, without stopping the line
    Activate(registry::ActivateArgs),
    /// Take back the latest change of a product's recipe
    Rollback(registry::RollbackArgs),
    /// Take up what changed in the recipe folder and in the [[product]] tables of lineproof.toml
    Reload(registry::ReloadArgs),
}

/// The file is judged by what it says, then loaded and run once in a process of its own.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 this service would load it, 1 it would not, 2 the check could not be made.")]
pub struct CheckArgs {
    /// An ONNX file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The recipe that is to use it; without one, its own image input and all its outputs are tried
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<PathBuf>,
    /// ONNX Runtime's library, where `ORT_DYLIB_PATH` names none and none lies beside this program
    #[arg(long, value_name = "LIBRARY")]
    onnxruntime: Option<PathBuf>,
    /// Facts for machines instead of sentences
    #[arg(long)]
    json: bool,
}

/// # Errors
/// When the data directory does not answer, or nothing was changed.
pub fn run(command: &ModelCommand) -> anyhow::Result<ExitCode> {
    match command {
        ModelCommand::Check(args) => Ok(run_check(args)),
        ModelCommand::Add(args) => Ok(model_add::run(args)),
        ModelCommand::Unbake(args) => Ok(model_unbake::run(args)),
        ModelCommand::Sign(args) => Ok(model_sign::run_sign(args)),
        ModelCommand::Verify(args) => Ok(model_sign::run_verify(args)),
        ModelCommand::NewKey(args) => Ok(model_sign::run_new_key(args)),
        ModelCommand::List(args) => registry::list(args),
        ModelCommand::Activate(args) => registry::activate(args),
        ModelCommand::Rollback(args) => registry::roll_back(args),
        ModelCommand::Reload(args) => registry::reload(args),
    }
}

fn run_check(args: &CheckArgs) -> ExitCode {
    match check(args) {
        Ok(found) => {
            if args.json {
                println!("{}", found.json());
            } else {
                print!("{}", found.words());
            }
            ExitCode::from(u8::from(found.trial.is_err()))
        }
        Err(error) => {
            eprintln!("lineproof model check: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The child in which a model is tried.
///
/// # Errors
/// When whoever started it does not speak with it.
pub fn trial() -> anyhow::Result<ExitCode> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    trial::run_child(OrtRuntime::load_from, &mut input, &mut output)?;
    Ok(ExitCode::SUCCESS)
}

/// What a check found.
struct Found {
    file: PathBuf,
    digest: Blake3Digest,
    bytes: usize,
    /// The rule it broke, if its file alone was reason enough.
    facts: Result<ModelFacts, ModelRefusal>,
    /// As a sentence why this service would not load it.
    trial: Result<TrialReport, String>,
}

fn check(args: &CheckArgs) -> anyhow::Result<Found> {
    let bytes: Arc<[u8]> = read_up_to(&args.file, MODEL_BYTES_MAX)?.into();
    let digest = Blake3Digest::of(&bytes);
    let recipe = args.recipe.as_deref().map(read_recipe).transpose()?;
    let library = find_library(args.onnxruntime.as_deref())?;

    let by_recipe = recipe.as_ref().map(|recipe| ModelSpec::of_recipe(recipe, Arc::clone(&bytes)));
    let facts = model::check(&bytes, by_recipe.as_ref().map(|spec| spec.shape));
    let trial = match (&facts, by_recipe) {
        (Err(refusal), _) => Err(refusal.to_string()),
        (Ok(_), Some(spec)) if spec.digest != digest => {
            Err(format!("the recipe names {}; release a new recipe version for this file", spec.digest))
        }
        (Ok(_), Some(spec)) => try_out(&spec, library)?,
        (Ok(facts), None) => match spec_of(facts, bytes.clone(), digest) {
            Ok(spec) => try_out(&spec, library)?,
            Err(reason) => Err(reason),
        },
    };
    Ok(Found { file: args.file.clone(), digest, bytes: bytes.len(), facts, trial })
}

pub(super) fn try_out(spec: &ModelSpec, library: PathBuf) -> anyhow::Result<Result<TrialReport, String>> {
    let trial = ProcessTrial::new(library).context("this program cannot start itself anew")?;
    Ok(trial.try_out(spec, &SessionOptions::default()).map_err(|error| match error {
        InferenceError::Trial { reason, .. } => reason,
        other => other.to_string(),
    }))
}

/// What a session of this file is made from, by its recipe or by what it says itself; or why not.
pub(super) fn spec_of_file(file: &Path, recipe: Option<&Path>) -> anyhow::Result<Result<ModelSpec, String>> {
    let bytes: Arc<[u8]> = read_up_to(file, MODEL_BYTES_MAX)?.into();
    let digest = Blake3Digest::of(&bytes);
    if let Some(recipe) = recipe {
        let spec = ModelSpec::of_recipe(&read_recipe(recipe)?, bytes);
        let other = || format!("the recipe names {}, this file has {digest}", spec.digest);
        return Ok(if spec.digest == digest { Ok(spec) } else { Err(other()) });
    }
    Ok(match model::check(&bytes, None) {
        Ok(facts) => spec_of(&facts, bytes, digest),
        Err(refusal) => Err(refusal.to_string()),
    })
}

/// What a recipe could say of a model: its one image input, and its outputs of float32.
pub(super) fn spec_of(facts: &ModelFacts, bytes: Arc<[u8]>, digest: Blake3Digest) -> Result<ModelSpec, String> {
    let [input] = facts.inputs.as_slice() else {
        let inputs = facts.inputs.iter().map(tensor).collect::<Vec<_>>().join(", ");
        return Err(format!("one image tensor is fed, it takes {}: {inputs}", facts.inputs.len()));
    };
    let (Some(ElementType::Float32), Some([batch, channels, height, width])) = (input.element, input.dims.as_deref())
    else {
        return Err(format!("an image tensor is float32 [N, C, H, W], its input is {}", tensor(input)));
    };
    let channels = channels.unwrap_or(3);
    if batch.is_some_and(|batch| batch != 1) || !matches!(channels, 1 | 3) {
        return Err(format!("one image of 1 or 3 channels is fed at a time, its input is {}", tensor(input)));
    }
    let is_read = |output: &&TensorFact| output.element.is_none_or(|element| element == ElementType::Float32);
    let outputs: Vec<String> = facts.outputs.iter().filter(is_read).map(|output| output.name.clone()).collect();
    if outputs.is_empty() {
        return Err("a recipe reads outputs of float32, and it has none".into());
    }
    let shape = [1, channels, height.unwrap_or(ASSUMED_SIDE_PX), width.unwrap_or(ASSUMED_SIDE_PX)];
    let shape = shape.map(|dim| usize::try_from(dim).unwrap_or(usize::MAX));
    Ok(ModelSpec { bytes, digest, input: input.name.clone(), template: None, shape, outputs })
}

fn read_recipe(path: &Path) -> anyhow::Result<Recipe> {
    let text = String::from_utf8(read_up_to(path, TEXT_BYTES_MAX)?);
    let text = text.with_context(|| format!("{} is not UTF-8 text", path.display()))?;
    Recipe::parse(&text).with_context(|| path.display().to_string())
}

pub(super) fn read_up_to(path: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).with_context(|| path.display().to_string())?;
    if bytes.len() > bytes_max {
        bail!("{} is longer than {bytes_max} bytes, more than is ever read", path.display());
    }
    Ok(bytes)
}

impl Found {
    fn words(&self) -> String {
        let mut text = format!("{}\n  digest      {}\n", self.file.display(), self.digest);
        // Writing to a String does not fail.
        let _ = match &self.facts {
            Ok(facts) => self.facts_in_words(&mut text, facts),
            Err(_) => writeln!(text, "  size        {} bytes", self.bytes),
        };
        let _ = match &self.trial {
            Ok(report) => writeln!(
                text,
                "  canary      {}\n  trial       {}\nthis service would load it.",
                report.canary,
                trial_in_words(report)
            ),
            Err(reason) => writeln!(text, "this service would NOT load it: {reason}"),
        };
        text
    }

    fn facts_in_words(&self, text: &mut String, facts: &ModelFacts) -> std::fmt::Result {
        let operators: Vec<String> = facts.operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(text, "  size        {} bytes, {} numbers in constants", facts.bytes, facts.parameters)?;
        let producer = if facts.producer.is_empty() { "-".to_owned() } else { clean(&facts.producer) };
        writeln!(text, "  written by  {producer}, IR version {}, operator set {}", facts.ir_version, facts.opset)?;
        for input in &facts.inputs {
            writeln!(text, "  input       {}", tensor(input))?;
        }
        for output in &facts.outputs {
            writeln!(text, "  output      {}", tensor(output))?;
        }
        writeln!(text, "  operators   {} nodes: {}", facts.nodes(), operators.join(", "))?;
        let (largest, node) = &facts.largest_tensor;
        let multiplications = facts.multiplications as f64 / 1e9;
        writeln!(
            text,
            "  a frame     {multiplications:.2} billion multiplications, largest tensor {} ({node})",
            megabytes(*largest)
        )?;
        for (key, value) in &facts.metadata {
            writeln!(text, "  metadata    {}: {}", clean(key), clean(value))?;
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let tensors = |list: &[TensorFact]| {
            let one = |fact: &TensorFact| {
                let element = fact.element.map(|element| element.to_string());
                json!({ "name": fact.name, "type": element, "shape": fact.dims })
            };
            list.iter().map(one).collect::<Vec<_>>()
        };
        let facts = self.facts.as_ref().ok().map(|facts| {
            json!({
                "ir_version": facts.ir_version,
                "opset": facts.opset,
                "producer": facts.producer,
                "inputs": tensors(&facts.inputs),
                "outputs": tensors(&facts.outputs),
                "operators": facts.operators,
                "parameters": facts.parameters,
                "multiplications": facts.multiplications,
                "largest_tensor_bytes": facts.largest_tensor.0,
                "folded_bytes": facts.folded_bytes,
                "metadata": facts.metadata,
            })
        });
        json!({
            "file": self.file,
            "digest": self.digest,
            "bytes": self.bytes,
            "facts": facts,
            "would_load": self.trial.is_ok(),
            "reason": self.trial.as_ref().err(),
            "rule": self.facts.as_ref().err().map(|refusal| refusal.kind.as_str()),
            "trial": self.trial.as_ref().ok(),
        })
    }
}

pub(super) fn trial_in_words(report: &TrialReport) -> String {
    let TrialReport { load_ms, run_ms, peak_bytes, .. } = report;
    format!("loaded in {load_ms} ms, first run {run_ms} ms, {} of memory", megabytes(*peak_bytes))
}

/// Name, type and shape of an input or output; `?` is an open dimension.
fn tensor(fact: &TensorFact) -> String {
    let element = fact.element.map_or("of no declared type".to_owned(), |element| element.to_string());
    let dim = |dim: &Option<u64>| dim.map_or("?".to_owned(), |dim| dim.to_string());
    let shape = fact.dims.as_ref().map(|dims| dims.iter().map(dim).collect::<Vec<_>>().join(", "));
    let shape = shape.map_or("of no declared shape".to_owned(), |shape| format!("[{shape}]"));
    format!("{} {element} {shape}", clean(&fact.name))
}

/// Text from the file as a terminal may show it.
pub(super) fn clean(text: &str) -> String {
    const CHARS_MAX: usize = 160;
    let cut: String = text.chars().take(CHARS_MAX).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{more}", cut.escape_debug())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
