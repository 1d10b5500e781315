//! Recipes, products and their notes, where the configuration says: the disk behind the registry.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::{
    adapters::{
        model_store::{Kind, ModelStore},
        recipe_files::{self, TextStore},
    },
    app::config::{self, Config},
    core::model_signature::PublicKey,
    ports::recipes::{AssignmentHistory, LoadedRecipe, ProductPlan, RecipeShelf},
    types::{Blake3Digest, ProductId, RecipeRef},
};

/// The notes' name in a data directory.
const NOTES_NAME: &str = "assigned";
/// Version of the notes.
const NOTES_FORMAT: u32 = 1;
/// Longest notes in bytes: some 4,000 products with as many former recipes as are noted.
const NOTES_BYTES_MAX: u64 = 16 << 20;

/// The keys of `[models] signers`; none where no signature is asked for.
///
/// # Errors
/// A sentence with the key that cannot be read.
pub(in crate::app) fn signers(config: &Config) -> Result<Option<Vec<PublicKey>>, String> {
    let paths = &config.models.signers;
    let keys = paths.iter().map(|path| recipe_files::keys::read_public(path)).collect::<Result<Vec<_>, _>>();
    Ok(Some(keys.map_err(|error| format!("[models] signers: {error}"))?).filter(|keys| !keys.is_empty()))
}

/// The folders of `[models]`, and the stores beside the log.
pub(super) struct Shelf {
    recipes: PathBuf,
    calibrations: PathBuf,
    /// Who may have signed them; a sentence where a key cannot be read: nothing is loaded then. None: no signature is asked for.
    signers: Result<Option<Vec<PublicKey>>, String>,
    texts: TextStore,
    models: ModelStore,
}

impl Shelf {
    pub fn new(config: &Config, texts: TextStore, models: ModelStore) -> Self {
        let folders = &config.models;
        let (recipes, calibrations) = (folders.recipes.clone(), folders.calibrations.clone());
        Self { recipes, calibrations, signers: signers(config), texts, models }
    }

    fn keep_models(&self, loaded: &LoadedRecipe) -> io::Result<()> {
        self.models.keep(Kind::Model, loaded.recipe.model.digest, &loaded.model)?;
        match loaded.recipe.template.as_ref().zip(loaded.template.as_ref()) {
            Some((named, bytes)) => self.models.keep(Kind::Template, named.file.digest, bytes),
            None => Ok(()),
        }
    }
}

impl RecipeShelf for Shelf {
    fn list(&self) -> Result<Vec<RecipeRef>, String> {
        recipe_files::list(&self.recipes)
    }

    fn load(&self, name: &RecipeRef) -> Result<LoadedRecipe, String> {
        let signers = self.signers.as_ref().map_err(Clone::clone)?;
        recipe_files::load(&self.recipes, &self.calibrations, signers.as_deref(), name)
    }

    fn digest(&self, name: &RecipeRef) -> Result<Blake3Digest, String> {
        recipe_files::text(&self.recipes, name).map(|text| Blake3Digest::of(text.as_bytes()))
    }

    fn keep(&self, recipe: &LoadedRecipe) -> Result<(), String> {
        let name = recipe.recipe.reference();
        self.texts.keep(recipe).map_err(|error| format!("its texts could not be kept: {error}"))?;
        if let Err(error) = self.keep_models(recipe) {
            tracing::error!(recipe = %name, %error, "the model could not be kept: what it decides cannot be decided again until a start can keep it");
        }
        Ok(())
    }
}

/// `[[product]]` of `lineproof.toml`, and `assigned` beside it.
pub(super) struct ConfiguredProducts {
    data_dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Notes {
    format: u32,
    products: AssignmentHistory,
}

impl ConfiguredProducts {
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    /// Puts `bytes` into the place of a file of the data directory, which holds the old ones or the new ones at any instant.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        // A link stays one: what it leads to may be another's to manage.
        let path = self.data_dir.join(name);
        let path = fs::canonicalize(&path).unwrap_or(path);
        let new = path.with_extension("new");
        let write = || {
            let mut file = fs::File::create(&new)?;
            // The configuration may be for its owner alone.
            if let Ok(old) = fs::metadata(&path) {
                file.set_permissions(old.permissions())?;
                // The owner stays where this process may say so; else it is its own already.
                let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
            }
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            fs::File::open(path.parent().unwrap_or(&self.data_dir))?.sync_all()
        };
        write().map_err(|error: io::Error| {
            let _ = fs::remove_file(&new);
            format!("{} cannot be written: {error}", path.display())
        })
    }
}

impl ProductPlan for ConfiguredProducts {
    fn read(&self) -> Result<Vec<(ProductId, RecipeRef)>, String> {
        let config = Config::load(&self.data_dir).map_err(|error| error.to_string())?;
        Ok(config.products.into_iter().map(|product| (product.product, product.recipe)).collect())
    }

    fn set(&self, product: &ProductId, recipe: Option<&RecipeRef>) -> Result<(), String> {
        let path = self.data_dir.join(config::FILE_NAME);
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
        let changed = with_recipe(&text, product, recipe).map_err(|error| failed(&error))?;
        Config::parse(&path, &changed).map_err(|error| error.to_string())?;
        self.replace(config::FILE_NAME, changed.as_bytes())
    }

    fn history(&self) -> Result<AssignmentHistory, String> {
        let path = self.data_dir.join(NOTES_NAME);
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(AssignmentHistory::new()),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let notes: Result<Notes, _> = serde_json::from_reader(io::BufReader::new(file.take(NOTES_BYTES_MAX)));
        match notes {
            Ok(Notes { format: NOTES_FORMAT, products }) => Ok(products),
            Ok(Notes { format, .. }) => {
                Err(format!("{} has format {format}; this release reads {NOTES_FORMAT}", path.display()))
            }
            Err(error) => Err(format!("{}: {error}; remove it, and nothing is lost but roll-backs", path.display())),
        }
    }

    fn put_history_aside(&self) -> Result<(), String> {
        let path = self.data_dir.join(NOTES_NAME);
        fs::rename(&path, path.with_extension("damaged")).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn note(&self, history: &AssignmentHistory) -> Result<(), String> {
        let notes = Notes { format: NOTES_FORMAT, products: history.clone() };
        let bytes = serde_json::to_vec(&notes).map_err(|error| error.to_string())?;
        self.replace(NOTES_NAME, &bytes)
    }
}

/// The configuration with another recipe for one product, or without the product, and otherwise as it was, comments and all.
fn with_recipe(text: &str, product: &ProductId, recipe: Option<&RecipeRef>) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let products = document.entry("product").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let products = products.as_array_of_tables_mut();
    let products = products.ok_or("`product` is written as one list; write it as [[product]] tables")?;
    let Some(recipe) = recipe else {
        products.retain(|table| table.get("product").and_then(Item::as_str) != Some(product.as_str()));
        return Ok(document.to_string());
    };
    let named = products.iter_mut().find(|table| table.get("product").and_then(Item::as_str) == Some(product.as_str()));
    match named.and_then(|table| table.get_mut("recipe")).and_then(Item::as_value_mut) {
        Some(written) => {
            // What stands behind it on its line stays.
            let decor = written.decor().clone();
            *written = recipe.as_str().into();
            *written.decor_mut() = decor;
        }
        None => {
            let mut table = Table::new();
            table.insert("product", value(product.as_str()));
            table.insert("recipe", value(recipe.as_str()));
            products.push(table);
        }
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changing_a_recipe_leaves_every_other_byte_of_the_configuration() {
        let text = "# Plant\n[plant]\nname = \"Werk\"\n\n# Who inspects what\n[[product]]\nproduct = \"a\"\nrecipe  =  \"x@1.0.0\"   # since May\n\n[[product]]\nproduct = \"b\"\nrecipe = \"y@1.0.0\"\n";
        let recipe = RecipeRef::new("x@1.1.0").unwrap();
        let changed = with_recipe(text, &"a".parse().unwrap(), Some(&recipe)).unwrap();
        assert_eq!(changed, text.replace("x@1.0.0", "x@1.1.0"));
        let added = with_recipe(text, &"c".parse().unwrap(), Some(&recipe)).unwrap();
        assert_eq!(added, format!("{text}\n[[product]]\nproduct = \"c\"\nrecipe = \"x@1.1.0\"\n"));
        assert_eq!(with_recipe(&added, &"c".parse().unwrap(), None).unwrap(), text);
        assert!(with_recipe("product = []", &"c".parse().unwrap(), Some(&recipe)).unwrap_err().contains("[[product]]"));
    }

    #[test]
    fn notes_are_read_back_and_damaged_ones_say_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let products = ConfiguredProducts::new(folder.path());
        assert!(products.history().unwrap().is_empty());
        let record = |byte| crate::core::lineage::entry::RecipeRecord {
            digest: Blake3Digest([byte; 32]),
            name: RecipeRef::new(format!("x@1.0.{byte}")).unwrap(),
        };
        let history = AssignmentHistory::from([("a".parse().unwrap(), vec![record(2), record(1)])]);
        products.note(&history).unwrap();
        assert_eq!(products.history().unwrap(), history);
        fs::write(folder.path().join(NOTES_NAME), "{\"format\":1,\"prod").unwrap();
        assert!(products.history().unwrap_err().contains("remove it"));
    }
}
