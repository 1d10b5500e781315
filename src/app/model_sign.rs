//! `lineproof model sign|verify|new-key`: who vouches for a recipe folder.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{config::Config, server::signers};
use crate::{
    adapters::recipe_files::{
        self, keys,
        signed::{self, FolderError, SignedFolder},
    },
    core::model_signature::{Differences, PublicKey, ResourceName, SIGNATURE_FILE, Signed, short},
    ports::recipes::LoadedRecipe,
    types::RecipeRef,
};

/// Which folder is meant.
#[derive(Debug, Args)]
struct Target {
    /// A recipe's folder, or NAME@VERSION in the recipe folder of the data directory
    #[arg(value_name = "FOLDER|NAME@VERSION")]
    recipe: String,
    /// Data directory whose recipe folder is meant
    #[arg(long, short = 'd', env = "LINEPROOF_DATA", default_value = "lineproof-data", value_name = "DIR")]
    data: PathBuf,
    /// Facts for machines instead of sentences
    #[arg(long)]
    json: bool,
}

/// The signature lies in the folder as model.sig, in the format of OpenSSF Model Signing 1.0. It vouches for every file in the
/// folder, and by the digests in the recipe for the calibration.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 signed, 1 it was not signed, 2 the command could not be carried out.\n\
                  `model_signing verify key FOLDER --signature FOLDER/model.sig --public_key PUB.pem` verifies it, too.")]
pub struct SignArgs {
    #[command(flatten)]
    target: Target,
    /// Private key of P-256 in PEM
    #[arg(long, value_name = "KEY.pem")]
    key: PathBuf,
    /// Sign anew what is signed already
    #[arg(long)]
    replace: bool,
}

/// Says which files were altered, are missing or were added since somebody signed the folder.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 the signature holds and the recipe is whole, 1 not, 2 the check could not be made."
)]
pub struct VerifyArgs {
    #[command(flatten)]
    target: Target,
    /// Public key of P-256 in PEM; may be given several times. Without one, those of [models] signers
    #[arg(long = "key", value_name = "PUB.pem")]
    keys: Vec<PathBuf>,
}

/// The private key signs what plants then load: keep it off the machines that inspect.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 made, 2 the command could not be carried out.")]
pub struct NewKeyArgs {
    /// Private key's file, PKCS#8 in PEM, for its owner alone; the public one lies beside it with the ending .pub
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Facts for machines instead of sentences
    #[arg(long)]
    json: bool,
}

/// A folder, and what is known of where it lies.
struct Found {
    folder: PathBuf,
    /// Unset where the folder was named by its path.
    named: Option<(RecipeRef, Config)>,
}

impl Target {
    fn find(&self) -> anyhow::Result<Found> {
        let path = Path::new(&self.recipe);
        let reference =
            RecipeRef::new(self.recipe.clone()).ok().filter(|name| name.as_str().contains('@') && !path.is_dir());
        let Some(reference) = reference else {
            if !path.is_dir() {
                bail!("{} is no folder, and no recipe's NAME@VERSION", self.recipe);
            }
            return Ok(Found { folder: path.to_owned(), named: None });
        };
        let config = Config::load(&self.data).context("a recipe folder may be named by its path instead")?;
        let folder = recipe_files::folder_of(&config.models.recipes, &reference);
        if !folder.is_dir() {
            bail!("there is no recipe {reference}: {} is no folder", folder.display());
        }
        Ok(Found { folder, named: Some((reference, config)) })
    }
}

impl Found {
    /// As the service loads it.
    fn load(&self, signers: Option<&[PublicKey]>) -> Result<LoadedRecipe, String> {
        match &self.named {
            Some((reference, config)) => {
                let models = &config.models;
                recipe_files::load(&models.recipes, &models.calibrations, signers, reference)
            }
            None => recipe_files::load_folder(&self.folder, None, signers),
        }
    }

    /// What is said of the calibration, which lies elsewhere.
    fn calibration(&self, loaded: &LoadedRecipe) -> String {
        match (&loaded.recipe.calibration, &self.named) {
            (None, _) => "none".to_owned(),
            (Some(named), Some(_)) => format!("{}, which is as the recipe says", named.file),
            (Some(named), None) => format!("{} {}, not looked at: it lies elsewhere", named.file, named.digest),
        }
    }
}

/// What a command came to.
struct Report {
    holds: bool,
    words: String,
    facts: Value,
}

pub fn run_sign(args: &SignArgs) -> ExitCode {
    tell("sign", args.target.json, sign(args))
}

pub fn run_verify(args: &VerifyArgs) -> ExitCode {
    tell("verify", args.target.json, verify(args))
}

pub fn run_new_key(args: &NewKeyArgs) -> ExitCode {
    tell("new-key", args.json, new_key(args))
}

fn tell(command: &str, json: bool, report: anyhow::Result<Report>) -> ExitCode {
    match report {
        Ok(Report { holds, words, facts }) => {
            match (json, holds) {
                (true, _) => println!("{facts}"),
                (false, true) => print!("{words}"),
                (false, false) => eprint!("{words}"),
            }
            ExitCode::from(u8::from(!holds))
        }
        Err(error) => {
            eprintln!("lineproof model {command}: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn sign(args: &SignArgs) -> anyhow::Result<Report> {
    let found = args.target.find()?;
    let key = keys::read_private(&args.key).map_err(anyhow::Error::msg)?;
    let refused = |reason: String| {
        let facts = json!({ "signed": false, "folder": found.folder, "reason": reason });
        Ok(Report { holds: false, words: format!("not signed: {reason}\n"), facts })
    };
    let path = found.folder.join(SIGNATURE_FILE);
    if path.exists() && !args.replace {
        return refused(format!("{} exists; --replace puts another signature in its place", path.display()));
    }
    // Nobody vouches for what no service would load.
    let loaded = match found.load(None) {
        Ok(loaded) => loaded,
        Err(reason) => return refused(reason),
    };
    let Signed { manifest, signer } = match signed::sign(&found.folder, &key) {
        Ok(signed) => signed,
        Err(error @ FolderError::Io { .. }) => return Err(error.into()),
        Err(error) => return refused(error.to_string()),
    };
    let recipe = loaded.recipe.reference();
    let mut words = format!("signed {recipe} with key {}\n", short(signer));
    words += &format!("  signature    {}\n  calibration  {}\n", path.display(), found.calibration(&loaded));
    words += &format!("  files        {}\n", listed(manifest.files.keys()));
    let facts = json!({
        "signed": true,
        "recipe": recipe.as_str(),
        "folder": found.folder,
        "signature": path,
        "signer": signer,
        "files": manifest.files.keys().map(ResourceName::as_str).collect::<Vec<_>>(),
    });
    Ok(Report { holds: true, words, facts })
}

fn verify(args: &VerifyArgs) -> anyhow::Result<Report> {
    let found = args.target.find()?;
    let keys = match (args.keys.as_slice(), &found.named) {
        ([], Some((_, config))) => signers(config).map_err(anyhow::Error::msg)?,
        (paths, _) => Some(read_keys(paths)?).filter(|keys| !keys.is_empty()),
    };
    let keys = keys.context("--key PUB.pem names the public key of whoever may sign; [models] signers names none")?;
    let held = SignedFolder::open(&found.folder, &keys).and_then(SignedFolder::finish);
    let Signed { manifest, signer } = match held {
        Ok(signed) => signed,
        Err(error @ FolderError::Io { .. }) => return Err(error.into()),
        Err(error) => return Ok(broken(&found.folder, &error)),
    };
    // That a signature holds is not all: it has to be over a recipe that is whole, and over all of it.
    let loaded = match found.load(Some(&keys)) {
        Ok(loaded) => loaded,
        Err(reason) => {
            let words = format!("key {} signed it, but no service would load it: {reason}\n", short(signer));
            let facts = json!({ "holds": false, "folder": found.folder, "signer": signer, "reason": reason,
                "altered": [], "missing": [], "added": [] });
            return Ok(Report { holds: false, words, facts });
        }
    };
    let recipe = loaded.recipe.reference();
    let mut words = format!("{recipe} is as key {} signed it\n", short(signer));
    words +=
        &format!("  calibration  {}\n  files        {}\n", found.calibration(&loaded), listed(manifest.files.keys()));
    let facts = json!({
        "holds": true,
        "recipe": recipe.as_str(),
        "folder": found.folder,
        "signer": signer,
        "files": manifest.files.keys().map(ResourceName::as_str).collect::<Vec<_>>(),
        "calibration": loaded.recipe.calibration.as_ref().map(|named| named.digest),
        "calibration_checked": loaded.calibration.is_some(),
    });
    Ok(Report { holds: true, words, facts })
}

/// A signature that does not hold.
fn broken(folder: &Path, error: &FolderError) -> Report {
    let (none, signer) = (Differences::default(), None);
    let (differences, signer) = match error {
        FolderError::Changed { differences, signer, .. } => (differences.as_ref(), Some(signer)),
        _ => (&none, signer),
    };
    let names = |names: &[ResourceName]| names.iter().map(ResourceName::as_str).map(str::to_owned).collect::<Vec<_>>();
    let facts = json!({
        "holds": false,
        "folder": folder,
        "signer": signer,
        "reason": error.to_string(),
        "altered": names(&differences.altered),
        "missing": names(&differences.missing),
        "added": names(&differences.added),
    });
    let words = match error {
        FolderError::Unsigned(_) => format!("{error}\n"),
        _ => format!("the signature does not hold: {error}\n"),
    };
    Report { holds: false, words, facts }
}

fn new_key(args: &NewKeyArgs) -> anyhow::Result<Report> {
    let public = args.out.with_extension("pub");
    if public == args.out {
        bail!("--out names the private key's file; .pub is the ending of the public one");
    }
    let key = keys::create(&args.out, &public).context("no key was made; --out may name another file")?;
    let words = format!(
        "made key {}\n  private  {}, for whoever may release models; keep it off the machines that inspect\n  \
         public   {}, for [models] signers in lineproof.toml\n",
        short(key.fingerprint()),
        args.out.display(),
        public.display()
    );
    let facts = json!({ "private": args.out, "public": public, "fingerprint": key.fingerprint() });
    Ok(Report { holds: true, words, facts })
}

fn read_keys(paths: &[PathBuf]) -> anyhow::Result<Vec<PublicKey>> {
    paths.iter().map(|path| keys::read_public(path).map_err(anyhow::Error::msg)).collect()
}

/// File names in one line.
fn listed<'a>(names: impl Iterator<Item = &'a ResourceName>) -> String {
    names.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
