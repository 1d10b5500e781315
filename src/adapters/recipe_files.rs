//! Recipes, calibrations and models on disk, and the texts of every recipe that was ever in use.
//!
//! `models/<name>/<version>/recipe.toml` and what it names are read once. The texts go into
//! `texts/`, so that an export years later can show the recipe that decided, whatever has become of
//! the folder it came from.

pub mod keys;
pub mod signed;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use self::signed::SignedFolder;
use crate::{
    core::{
        model::MODEL_BYTES_MAX,
        model_signature::PublicKey,
        recipe::{Calibration, ENCODED_BYTES_MAX, Recipe},
    },
    ports::{
        recipes::{LoadedRecipe, RecipeFiles},
        texts::{RecipeTexts, TextError},
    },
    types::{Blake3Digest, RecipeRef, Sha256Digest},
};

/// Longest recipe, calibration or model card in bytes.
const TEXT_BYTES_MAX: u64 = 64 << 10;
/// A recipe's name in its folder.
const RECIPE_FILE: &str = "recipe.toml";
/// Its model card, where it has one.
const CARD_FILE: &str = "MODEL_CARD.md";

/// Every recipe below `recipes`, in order of name and version.
///
/// # Errors
/// A sentence when the folder itself cannot be read.
pub fn list(recipes: &Path) -> Result<Vec<RecipeRef>, String> {
    let mut found = Vec::new();
    for name in sub_folders(recipes)? {
        for version in sub_folders(&name)? {
            if !version.join(RECIPE_FILE).is_file() {
                continue;
            }
            let text = format!("{}@{}", file_name(&name), file_name(&version));
            found.push(RecipeRef::new(text).map_err(|error| format!("{}: {error}", version.display()))?);
        }
    }
    Ok(found)
}

/// The text of a recipe as it lies in the folder.
///
/// # Errors
/// A sentence when it cannot be read.
pub fn text(recipes: &Path, reference: &RecipeRef) -> Result<String, String> {
    read_text(&folder_of(recipes, reference).join(RECIPE_FILE))
}

/// Reads a recipe with everything it names and checks every digest; and with `signers`, that one of them signed its folder and
/// that everything in it is as signed.
///
/// # Errors
/// A sentence with what is wrong.
pub fn load(
    recipes: &Path,
    calibrations: &Path,
    signers: Option<&[PublicKey]>,
    reference: &RecipeRef,
) -> Result<LoadedRecipe, String> {
    let folder = folder_of(recipes, reference);
    let loaded = load_folder(&folder, Some(calibrations), signers)?;
    let found = loaded.recipe.reference();
    if found == *reference {
        return Ok(loaded);
    }
    Err(format!("{} calls itself {found}; its folder says {reference}", folder.join(RECIPE_FILE).display()))
}

/// As [`load`], wherever the folder lies. Without `calibrations`, the calibration that the recipe names is not looked for.
///
/// # Errors
/// A sentence with what is wrong.
pub fn load_folder(
    folder: &Path,
    calibrations: Option<&Path>,
    signers: Option<&[PublicKey]>,
) -> Result<LoadedRecipe, String> {
    let mut files = Folder::open(folder, signers)?;
    let (path, text) = (folder.join(RECIPE_FILE), files.text(RECIPE_FILE)?);
    let recipe = Recipe::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let calibration_text = match recipe.calibration.as_ref().zip(calibrations) {
        Some((named, calibrations)) => Some(read_checked(&calibrations.join(&named.file), named.digest)?),
        None => None,
    };
    let parse = |text: &str| {
        Calibration::parse(text).map_err(|error| format!("calibration of {}: {error}", recipe.reference()))
    };
    let calibration = calibration_text.as_deref().map(parse).transpose()?;
    if calibrations.is_some() {
        recipe.accept_calibration(calibration.as_ref()).map_err(|error| error.to_string())?;
    }
    let model = files.digested(&recipe.model.file, recipe.model.digest, MODEL_BYTES_MAX as u64)?;
    let template = recipe
        .template
        .as_ref()
        .map(|template| files.digested(&template.file.file, template.file.digest, ENCODED_BYTES_MAX).map(Into::into));
    let template = template.transpose()?;
    let model_card = if folder.join(CARD_FILE).is_file() { Some(files.text(CARD_FILE)?) } else { None };
    let signer = files.finish()?;
    let texts = RecipeFiles { recipe: text, calibration: calibration_text, model_card };
    Ok(LoadedRecipe { recipe, calibration, model: model.into(), template, texts, signer, tried: None })
}

/// The files of one recipe, held against the folder's signature where one is asked for. Each is read once.
struct Folder<'a> {
    folder: &'a Path,
    signed: Option<SignedFolder>,
}

impl<'a> Folder<'a> {
    fn open(folder: &'a Path, signers: Option<&[PublicKey]>) -> Result<Self, String> {
        let signed = signers.map(|keys| SignedFolder::open(folder, keys)).transpose();
        Ok(Self { folder, signed: signed.map_err(|error| error.to_string())? })
    }

    fn bytes(&mut self, file: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
        match &mut self.signed {
            None => read_bounded(&self.folder.join(file), bytes_max),
            Some(signed) => signed.read(file, bytes_max).map_err(|error| error.to_string()),
        }
    }

    fn text(&mut self, file: &str) -> Result<String, String> {
        utf8(&self.folder.join(file), self.bytes(file, TEXT_BYTES_MAX)?)
    }

    fn digested(&mut self, file: &str, digest: Blake3Digest, bytes_max: u64) -> Result<Vec<u8>, String> {
        let bytes = self.bytes(file, bytes_max)?;
        let found = Blake3Digest::of(&bytes);
        if found != digest {
            let path = self.folder.join(file);
            return Err(format!(
                "{} has digest {found}, the recipe names {digest}; restore the file or release a new recipe version",
                path.display()
            ));
        }
        Ok(bytes)
    }

    /// Who signed, once everything else in the folder is as signed, too.
    fn finish(self) -> Result<Option<Sha256Digest>, String> {
        let signed = self.signed.map(SignedFolder::finish).transpose();
        Ok(signed.map_err(|error| error.to_string())?.map(|signed| signed.signer))
    }
}

/// Adds a recipe and its model as a folder of their own, whole or not at all, durably. They are written into a folder
/// whose name begins with a dot, which [`list`] passes over, and which then gets its name in one step. After a crash
/// before that it lies there without effect, and may be deleted.
///
/// # Errors
/// Of kind `AlreadyExists`, whatever else happens at the same time, if this version is there; others when something
/// cannot be written.
pub fn add(recipes: &Path, reference: &RecipeRef, recipe: &str, model_file: &str, model: &[u8]) -> io::Result<PathBuf> {
    let folder = folder_of(recipes, reference);
    let versions = folder.parent().unwrap_or(recipes).to_owned();
    let is_new_name = !versions.exists();
    fs::create_dir_all(&versions)?;
    let unfinished = versions.join(format!(".{}.{}", file_name(&folder), std::process::id()));
    let written = write_folder(&unfinished, &[(RECIPE_FILE, recipe.as_bytes()), (model_file, model)]).and_then(|()| {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        Ok(renameat_with(CWD, &unfinished, CWD, &folder, RenameFlags::NOREPLACE)?)
    });
    if let Err(error) = written {
        // What is left of it has no effect; the error is what its reader needs to hear.
        let _ = fs::remove_dir_all(&unfinished);
        if is_new_name {
            let _ = fs::remove_dir(&versions);
        }
        return Err(error);
    }
    fs::File::open(&versions)?.sync_all()?;
    fs::File::open(recipes)?.sync_all()?;
    Ok(folder)
}

fn write_folder(folder: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    use io::Write as _;
    fs::create_dir(folder)?;
    for (name, bytes) in files {
        let mut file = fs::File::create_new(folder.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    fs::File::open(folder)?.sync_all()
}

/// Where a recipe lies.
#[must_use]
pub fn folder_of(recipes: &Path, reference: &RecipeRef) -> PathBuf {
    let (name, version) = reference.as_str().split_once('@').unwrap_or((reference.as_str(), ""));
    recipes.join(name).join(version)
}

fn read_checked(path: &Path, digest: Blake3Digest) -> Result<String, String> {
    let text = read_text(path)?;
    let found = Blake3Digest::of(text.as_bytes());
    if found == digest {
        Ok(text)
    } else {
        Err(format!("{} has digest {found}, the recipe names {digest}", path.display()))
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    utf8(path, read_bounded(path, TEXT_BYTES_MAX)?)
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    use io::Read as _;
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(failed)?.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("{} is longer than {bytes_max} bytes", path.display()));
    }
    Ok(bytes)
}

fn sub_folders(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: io::Error| format!("{}: {error}", folder.display());
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() && !file_name(&path).starts_with('.') {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The texts of every recipe that was ever in use, each under the digest that entries name.
#[derive(Clone, Debug)]
pub struct TextStore {
    folder: PathBuf,
}

impl TextStore {
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folders whose files are named by the BLAKE3 of their bytes, and the ending of those files. Model cards are not:
    /// they are named by their model.
    #[must_use]
    pub fn digest_folders(&self) -> [(PathBuf, &'static str); 2] {
        [RECIPE, CALIBRATION].map(|kind| (self.folder.join(kind.folder), kind.extension))
    }

    /// Keeps the texts of a recipe, durably, before its first decision is made.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn keep(&self, recipe: &LoadedRecipe) -> io::Result<()> {
        self.keep_text(RECIPE, recipe.recipe.digest, &recipe.texts.recipe)?;
        if let (Some(calibration), Some(text)) = (&recipe.calibration, &recipe.texts.calibration) {
            self.keep_text(CALIBRATION, calibration.digest, text)?;
        }
        match &recipe.texts.model_card {
            // A card may be edited after the model was released: the latest text counts.
            Some(text) => self.write(&self.path(MODEL_CARD, recipe.recipe.model.digest), text),
            None => Ok(()),
        }
    }

    fn keep_text(&self, kind: Kind, digest: Blake3Digest, text: &str) -> io::Result<()> {
        let path = self.path(kind, digest);
        // One that was cut or changed is written again.
        if fs::read(&path).is_ok_and(|found| found == text.as_bytes()) { Ok(()) } else { self.write(&path, text) }
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        use io::Write as _;
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        let temporary = path.with_extension("new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(folder)?.sync_all()?;
        fs::File::open(&self.folder)?.sync_all()
    }

    fn read(&self, kind: Kind, digest: Blake3Digest) -> Result<Option<Vec<u8>>, TextError> {
        let path = self.path(kind, digest);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TextError::Io { path: path.display().to_string(), source }),
        }
    }

    fn path(&self, kind: Kind, digest: Blake3Digest) -> PathBuf {
        self.folder.join(kind.folder).join(format!("{}.{}", digest.hex(), kind.extension))
    }
}

/// A folder of texts of one kind.
#[derive(Clone, Copy)]
struct Kind {
    folder: &'static str,
    extension: &'static str,
}

const RECIPE: Kind = Kind { folder: "recipe", extension: "toml" };
const CALIBRATION: Kind = Kind { folder: "calibration", extension: "toml" };
const MODEL_CARD: Kind = Kind { folder: "model-card", extension: "md" };

impl RecipeTexts for TextStore {
    fn recipe(&self, digest: Blake3Digest) -> Result<Option<Vec<u8>>, TextError> {
        self.read(RECIPE, digest)
    }

    fn calibration(&self, digest: Blake3Digest) -> Result<Option<Vec<u8>>, TextError> {
        self.read(CALIBRATION, digest)
    }

    fn model_card(&self, model: Blake3Digest) -> Result<Option<Vec<u8>>, TextError> {
        self.read(MODEL_CARD, model)
    }
}
