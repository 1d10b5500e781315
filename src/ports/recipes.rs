//! A recipe with everything it names, as read from the disk.

use std::sync::Arc;

use super::inference::ModelSpec;
use crate::{
    core::recipe::{Calibration, Pair, Recipe},
    types::{Blake3Digest, RecipeRef},
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
    /// What the model answered to the canary in its trial, once that is over.
    pub canary: Option<Blake3Digest>,
}

/// A recipe in the folder, or the reason why it cannot serve.
pub type FoundRecipe = (RecipeRef, Result<LoadedRecipe, String>);

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
