//! `lineproof model add`: from an exported model to a recipe folder that somebody only has to check.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::{
    config::Config,
    model::{self, clean, read_up_to, spec_of, try_out},
};
use crate::adapters::ort::find_library;
use crate::{
    adapters::recipe_files,
    core::{
        model::{MODEL_BYTES_MAX, check},
        recipe::{
            Recipe, TEXT_BYTES_MAX,
            draft::{Draft, MODEL_FILE, Wishes, draft},
        },
    },
    ports::inference::{ModelSpec, TrialReport},
    types::{Blake3Digest, RecipeRef},
};

/// The file is tried as `model check` tries it. What its exporter wrote into it becomes the recipe, the rest becomes
/// questions in the recipe, and no service loads it before they are answered.
#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    after_help = "Exit status: 0 added, 1 no recipe could serve this model or its version exists, 2 the command could not be carried out.\n\
                  A running service takes the folder up by `lineproof model reload`."
)]
pub struct AddArgs {
    /// An ONNX file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the recipe, a-z, 0-9 and -; without it, made of the file's name
    #[arg(long)]
    name: Option<String>,
    /// Semantic version of the recipe; one that exists is never overwritten
    #[arg(long, default_value = "1.0.0")]
    version: String,
    /// What the recipe is called for people
    #[arg(long, default_value = "")]
    title: String,
    /// Text file with the name of one class a line, in the order of the model's output
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// A label that is no defect, such as that of a good part; may be given several times
    #[arg(long = "ok", value_name = "LABEL", conflicts_with = "all_defects")]
    ok_labels: Vec<String>,
    /// Every label is a defect
    #[arg(long)]
    all_defects: bool,
    /// Size of the camera's frames in pixels, such as 1920x1200
    #[arg(long, value_name = "WxH", value_parser = frame_px)]
    frame: Option<(u32, u32)>,
    /// Score from which on a person looks at the part
    #[arg(long, value_name = "SCORE", value_parser = finite, allow_negative_numbers = true)]
    review: Option<f32>,
    /// Score from which on the part is bad
    #[arg(long, value_name = "SCORE", value_parser = finite, allow_negative_numbers = true)]
    reject: Option<f32>,
    /// Recipe folder; without it, the one of the data directory
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Data directory whose recipe folder is meant
    #[arg(long, short = 'd', env = "LINEPROOF_DATA", default_value = "lineproof-data", value_name = "DIR")]
    data: PathBuf,
    /// ONNX Runtime's library, where `ORT_DYLIB_PATH` names none and none lies beside this program
    #[arg(long, value_name = "LIBRARY")]
    onnxruntime: Option<PathBuf>,
    /// Facts for machines instead of sentences
    #[arg(long)]
    json: bool,
}

fn frame_px(text: &str) -> Result<(u32, u32), String> {
    let sides =
        text.split_once(['x', 'X']).and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.ok_or_else(|| "two numbers of pixels are expected, width first, such as 1920x1200".into())
}

fn finite(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|number: &f32| number.is_finite()).ok_or_else(|| "a number is expected".into())
}

/// What was added.
struct Added {
    folder: PathBuf,
    reference: RecipeRef,
    draft: Draft,
    trial: TrialReport,
}

pub fn run(args: &AddArgs) -> ExitCode {
    match add(args) {
        Ok(Ok(added)) => {
            if args.json {
                println!("{}", added.json());
            } else {
                print!("{}", added.words(args));
            }
            ExitCode::SUCCESS
        }
        Ok(Err(reason)) => {
            if args.json {
                println!("{}", json!({ "added": false, "reason": reason }));
            } else {
                eprintln!("nothing was added: {reason}");
            }
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("lineproof model add: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// What was added, or as a sentence why nothing was.
fn add(args: &AddArgs) -> anyhow::Result<Result<Added, String>> {
    let recipes = match &args.into {
        Some(folder) => folder.clone(),
        None => {
            Config::load(&args.data)
                .context("--into DIR names a recipe folder without a data directory")?
                .models
                .recipes
        }
    };
    let bytes: Arc<[u8]> = read_up_to(&args.file, MODEL_BYTES_MAX)?.into();
    let (digest, reference, wishes) = (Blake3Digest::of(&bytes), reference(args)?, wishes(args)?);
    let library = find_library(args.onnxruntime.as_deref())?;
    if recipe_files::folder_of(&recipes, &reference).exists() {
        return Ok(Err(exists(&reference)));
    }

    let facts = match check(&bytes, None) {
        Ok(facts) => facts,
        Err(refusal) => return Ok(Err(refusal.to_string())),
    };
    let draft = match draft(&facts, digest, &reference, &wishes) {
        Ok(draft) => draft,
        Err(reason) => return Ok(Err(reason.to_string())),
    };
    let spec = if draft.questions.is_empty() {
        let recipe = Recipe::parse(&draft.text).context("the answers given do not make a recipe")?;
        Ok(ModelSpec::of_recipe(&recipe, Arc::clone(&bytes)))
    } else {
        spec_of(&facts, Arc::clone(&bytes), digest)
    };
    let trial = match spec {
        Ok(spec) => try_out(&spec, library)?,
        Err(reason) => Err(reason),
    };
    let trial = match trial {
        Ok(trial) => trial,
        Err(reason) => return Ok(Err(reason)),
    };
    match recipe_files::add(&recipes, &reference, &draft.text, MODEL_FILE, &bytes) {
        Ok(folder) => Ok(Ok(Added { folder, reference, draft, trial })),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Err(exists(&reference))),
        Err(error) => {
            Err(error).with_context(|| format!("{reference} could not be written below {}", recipes.display()))
        }
    }
}

fn exists(reference: &RecipeRef) -> String {
    format!("{reference} exists, and decisions may name it; give the new one another --version")
}

/// `name@version`, as a recipe may be called.
fn reference(args: &AddArgs) -> anyhow::Result<RecipeRef> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&args.file).context("no name can be made of the file's; give one with --name")?,
    };
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        bail!("--name {} may hold only a-z, 0-9 and -", clean(&name));
    }
    semver::Version::parse(&args.version)
        .with_context(|| format!("--version {} is no semantic version such as 1.0.0", clean(&args.version)))?;
    Ok(RecipeRef::new(format!("{name}@{}", args.version))?)
}

/// `Seat_Cover v2.onnx` is `seat-cover-v2`.
fn name_of(file: &Path) -> Option<String> {
    let stem = file.file_stem()?.to_str()?.to_ascii_lowercase();
    let name: Vec<&str> =
        stem.split(|char: char| !char.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    (!name.is_empty()).then(|| name.join("-"))
}

fn wishes(args: &AddArgs) -> anyhow::Result<Wishes> {
    let labels = args.labels.as_deref().map(read_labels).transpose()?;
    let ok_labels = (args.all_defects || !args.ok_labels.is_empty()).then(|| args.ok_labels.clone());
    Ok(Wishes {
        title: args.title.clone(),
        labels,
        ok_labels,
        frame_px: args.frame,
        review: args.review,
        reject: args.reject,
    })
}

fn read_labels(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = String::from_utf8(read_up_to(path, TEXT_BYTES_MAX)?);
    let text = text.with_context(|| format!("{} is not UTF-8 text", path.display()))?;
    let labels: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if labels.is_empty() {
        bail!("{} names no label; write one a line", path.display());
    }
    Ok(labels)
}

impl Added {
    fn words(&self, args: &AddArgs) -> String {
        let Self { folder, reference, draft, trial } = self;
        let mut text = format!("added {reference}: {}\n  folder      {}\n", clean(&draft.origin), folder.display());
        text += &format!("  trial       {}\n", model::trial_in_words(trial));
        let recipe = folder.join("recipe.toml");
        if draft.questions.is_empty() {
            text += &format!("next: look through {}, then\n", recipe.display());
        } else {
            text += &format!("no service loads it before these are answered in {}:\n", recipe.display());
            for question in &draft.questions {
                text += &format!("  {question}\n");
            }
            text += &format!(
                "then: lineproof model check {} --recipe {}\n",
                folder.join(MODEL_FILE).display(),
                recipe.display()
            );
        }
        let data = if args.into.is_some() { String::new() } else { format!(" --data {}", args.data.display()) };
        text += &format!(
            "  lineproof model reload{data}\n  lineproof model activate {reference} --product PRODUCT{data}\n"
        );
        text
    }

    fn json(&self) -> serde_json::Value {
        let question = |question: &crate::core::recipe::Question| json!({ "line": question.line, "key": question.key, "question": question.question });
        json!({
            "added": true,
            "recipe": self.reference.as_str(),
            "folder": self.folder,
            "origin": self.draft.origin,
            "questions": self.draft.questions.iter().map(question).collect::<Vec<_>>(),
            "trial": self.trial,
        })
    }
}
