//! The recipes in use: which serves a product, and why one cannot serve.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::inspect::request::Refusal;
use crate::{
    ports::recipes::{FoundRecipe, LoadedRecipe},
    types::{Blake3Digest, ProductId, RecipeRef},
};

enum Slot {
    Ready(Arc<LoadedRecipe>),
    Unavailable(String),
}

/// Recipes by name, and the recipe of each product.
#[derive(Default)]
pub struct RecipeBook {
    recipes: BTreeMap<String, (RecipeRef, Slot)>,
    products: HashMap<ProductId, RecipeRef>,
}

impl RecipeBook {
    /// Takes what was found in the recipe folder, and which recipe each product uses.
    #[must_use]
    pub fn new(found: Vec<FoundRecipe>, products: HashMap<ProductId, RecipeRef>) -> Self {
        let slot = |loaded| match loaded {
            Ok(recipe) => Slot::Ready(Arc::new(recipe)),
            Err(reason) => Slot::Unavailable(reason),
        };
        let recipes =
            found.into_iter().map(|(name, loaded)| (name.as_str().to_owned(), (name, slot(loaded)))).collect();
        Self { recipes, products }
    }

    /// The recipe for a frame: the one it names, else its product's.
    ///
    /// # Errors
    /// [`Refusal::NoRecipe`] and [`Refusal::RecipeUnavailable`].
    pub fn resolve(&self, named: Option<&RecipeRef>, product: &ProductId) -> Result<RecipeRef, Refusal> {
        let name = named.or_else(|| self.products.get(product)).ok_or_else(|| {
            Refusal::NoRecipe(format!(
                "no recipe is configured for product {product} and the frame names none; add a [[product]] to lineproof.toml"
            ))
        })?;
        match self.recipes.get(name.as_str()) {
            Some((_, Slot::Ready(_))) => Ok(name.clone()),
            Some((_, Slot::Unavailable(reason))) => {
                Err(Refusal::RecipeUnavailable { recipe: name.clone(), reason: reason.clone() })
            }
            None => Err(Refusal::NoRecipe(format!(
                "there is no recipe {name} here; this service has {}",
                self.names().collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// Notes what the recipe's model answered to the canary. Before the recipe is in use: nobody else may hold it.
    pub fn expect_canary(&mut self, recipe: &RecipeRef, answer: Blake3Digest) {
        if let Some((_, Slot::Ready(loaded))) = self.recipes.get_mut(recipe.as_str())
            && let Some(loaded) = Arc::get_mut(loaded)
        {
            loaded.canary = Some(answer);
        }
    }

    /// Takes a recipe out of service.
    pub fn mark_unavailable(&mut self, recipe: &RecipeRef, reason: String) {
        if let Some((_, slot)) = self.recipes.get_mut(recipe.as_str()) {
            *slot = Slot::Unavailable(reason);
        }
    }

    /// The recipes that can serve.
    pub fn ready(&self) -> impl Iterator<Item = Arc<LoadedRecipe>> + '_ {
        self.recipes.values().filter_map(|(_, slot)| match slot {
            Slot::Ready(recipe) => Some(Arc::clone(recipe)),
            Slot::Unavailable(_) => None,
        })
    }

    /// The recipes that cannot serve, and why.
    pub fn unavailable(&self) -> impl Iterator<Item = (&RecipeRef, &str)> + '_ {
        self.recipes.values().filter_map(|(name, slot)| match slot {
            Slot::Ready(_) => None,
            Slot::Unavailable(reason) => Some((name, reason.as_str())),
        })
    }

    fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.recipes.keys().map(String::as_str)
    }
}
