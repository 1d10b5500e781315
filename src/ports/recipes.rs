//! A recipe with everything it names, as read from the disk.

use std::{collections::BTreeMap, sync::Arc};

use super::inference::{ModelSpec, Provider};
use crate::{
    core::{
        lineage::entry::RecipeRecord,
        recipe::{Calibration, Pair, Recipe},
    },
    types::{Blake3Digest, ProductId, RecipeRef, Sha256Digest},
};

/// Recipes one service holds; every worker keeps a session of each.
pub const RECIPES_MAX: usize = 32;

/// A recipe with everything it names, every digest checked.
#[derive(Debug)]
pub struct LoadedRecipe {
    pub recipe: Recipe,
    pub calibration: Option<Calibration>,
    /// The model file's bytes; their BLAKE3 is `recipe.model.digest`.
    pub model: Arc<[u8]>,
    /// The template's file where the recipe has one; its BLAKE3 is that in the recipe.
    pub template: Option<Arc<[u8]>>,
    pub texts: RecipeFiles,
    /// The fingerprint of the key that signed its folder; unset where no signature was asked for.
    pub signer: Option<Sha256Digest>,
    /// What its model's trial came to, once that is over.
    pub tried: Option<Tried>,
}

/// What the trial of a model came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// What it answered to the canary.
    pub canary: Blake3Digest,
    /// What ran it, and what runs it from then on.
    pub provider: Provider,
    /// Why no provider before this one in the configured order: one sentence each.
    pub not: Vec<String>,
}

/// The folder with the recipes, and where what of them decided is kept.
pub trait RecipeShelf: Send + Sync + 'static {
    /// Every recipe in the folder, whether it can be used or not, in order of name and version.
    ///
    /// # Errors
    /// A sentence when the folder itself cannot be read.
    fn list(&self) -> Result<Vec<RecipeRef>, String>;

    /// Reads one with everything it names and checks every digest, and its signature where one is asked for.
    ///
    /// # Errors
    /// A sentence with what is wrong.
    fn load(&self, name: &RecipeRef) -> Result<LoadedRecipe, String>;

    /// The digest of a recipe's text as it lies in the folder now.
    ///
    /// # Errors
    /// A sentence when it cannot be read.
    fn digest(&self, name: &RecipeRef) -> Result<Blake3Digest, String>;

    /// Keeps texts, model and template, durably, so that what the recipe decides can be shown and decided again years later.
    ///
    /// # Errors
    /// A sentence when the texts cannot be kept. That a model cannot is only said: verdicts do not need it.
    fn keep(&self, recipe: &LoadedRecipe) -> Result<(), String>;
}

/// Which recipe the operator wants for which product.
pub trait ProductPlan: Send + Sync + 'static {
    /// Every product with its recipe.
    ///
    /// # Errors
    /// A sentence when the configuration cannot be read.
    fn read(&self) -> Result<Vec<(ProductId, RecipeRef)>, String>;

    /// Changes the recipe of one product, durably, and nothing else; without a recipe, forgets the product.
    ///
    /// # Errors
    /// A sentence when the configuration cannot be written.
    fn set(&self, product: &ProductId, recipe: Option<&RecipeRef>) -> Result<(), String>;

    /// What inspected each product, the latest first. Empty where nothing was noted.
    ///
    /// # Errors
    /// A sentence when the notes cannot be read.
    fn history(&self) -> Result<AssignmentHistory, String>;

    /// Moves notes that cannot be read out of the way.
    ///
    /// # Errors
    /// A sentence when that fails.
    fn put_history_aside(&self) -> Result<(), String>;

    /// Replaces the notes, durably.
    ///
    /// # Errors
    /// A sentence when they cannot be written.
    fn note(&self, history: &AssignmentHistory) -> Result<(), String>;
}

/// What inspected each product: the recipe in use first, then what it replaced, at most [`ASSIGNMENTS_MAX`].
pub type AssignmentHistory = BTreeMap<ProductId, Vec<RecipeRecord>>;

/// Former recipes of one product that a roll-back can reach.
pub const ASSIGNMENTS_MAX: usize = 16;

/// The texts an auditor gets to see.
#[derive(Clone, Debug)]
pub struct RecipeFiles {
    pub recipe: String,
    pub calibration: Option<String>,
    pub model_card: Option<String>,
}

impl LoadedRecipe {
    #[must_use]
    pub fn calibration_digest(&self) -> Option<Blake3Digest> {
        self.calibration.as_ref().map(|calibration| calibration.digest)
    }

    /// As entries name it.
    #[must_use]
    pub fn record(&self) -> RecipeRecord {
        RecipeRecord { digest: self.recipe.digest, name: self.recipe.reference() }
    }

    /// What a session is loaded from.
    #[must_use]
    pub fn model_spec(&self) -> ModelSpec {
        ModelSpec::of_recipe(&self.recipe, Arc::clone(&self.model))
    }
}

impl ModelSpec {
    /// What a recipe says of its model.
    #[must_use]
    pub fn of_recipe(recipe: &Recipe, bytes: Arc<[u8]>) -> Self {
        let input = &recipe.input;
        let pair = recipe.template.as_ref().map(|template| &template.pair);
        Self {
            bytes,
            digest: recipe.model.digest,
            input: input.tensor.clone(),
            template: match pair {
                Some(Pair::Input { tensor }) => Some(tensor.clone()),
                Some(Pair::Stack | Pair::Difference) | None => None,
            },
            shape: input.shape(pair),
            outputs: recipe.output.tensor_names().map(str::to_owned).collect(),
        }
    }
}
