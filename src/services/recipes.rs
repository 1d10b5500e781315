//! The recipes in use: which serves a product, and why one cannot serve.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::inspect::request::Refusal;
use crate::{
    ports::recipes::LoadedRecipe,
    types::{ProductId, RecipeRef},
};

#[derive(Clone)]
enum Slot {
    Ready(Arc<LoadedRecipe>),
    Unavailable(String),
}

/// Recipes by name, and the recipe of each product. A book is never changed while frames are resolved by it: another takes
/// its place.
#[derive(Clone, Default)]
pub struct RecipeBook {
    recipes: BTreeMap<String, (RecipeRef, Slot)>,
    products: HashMap<ProductId, RecipeRef>,
}

impl RecipeBook {
    /// The recipe for a frame: the one it names, else its product's.
    ///
    /// # Errors
    /// [`Refusal::NoRecipe`] and [`Refusal::RecipeUnavailable`].
    pub fn resolve(&self, named: Option<&RecipeRef>, product: &ProductId) -> Result<Arc<LoadedRecipe>, Refusal> {
        let name = named.or_else(|| self.products.get(product)).ok_or_else(|| {
            Refusal::NoRecipe(format!(
                "no recipe is configured for product {product} and the frame names none; add a [[product]] to lineproof.toml"
            ))
        })?;
        match self.recipes.get(name.as_str()) {
            Some((_, Slot::Ready(recipe))) => Ok(Arc::clone(recipe)),
            Some((_, Slot::Unavailable(reason))) => {
                Err(Refusal::RecipeUnavailable { recipe: name.clone(), reason: reason.clone() })
            }
            None => Err(Refusal::NoRecipe(format!(
                "there is no recipe {name} here; this service has {}",
                self.names().collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// Takes a recipe that can serve.
    pub fn add(&mut self, recipe: Arc<LoadedRecipe>) {
        let name = recipe.recipe.reference();
        self.recipes.insert(name.as_str().to_owned(), (name, Slot::Ready(recipe)));
    }

    /// Takes a recipe that cannot serve.
    pub fn add_unavailable(&mut self, name: RecipeRef, reason: String) {
        self.recipes.insert(name.as_str().to_owned(), (name, Slot::Unavailable(reason)));
    }

    /// Forgets a recipe.
    pub fn remove(&mut self, name: &RecipeRef) {
        self.recipes.remove(name.as_str());
    }

    /// Has frames of `product` that name no recipe inspected by `recipe`, whether it can serve or not.
    pub fn assign(&mut self, product: ProductId, recipe: RecipeRef) {
        self.products.insert(product, recipe);
    }

    /// Leaves a product without a recipe.
    pub fn unassign(&mut self, product: &ProductId) {
        self.products.remove(product);
    }

    /// The products and their recipes, in no order.
    pub fn products(&self) -> impl Iterator<Item = (&ProductId, &RecipeRef)> {
        self.products.iter()
    }

    /// The product that a recipe inspects, if it is exactly one.
    #[must_use]
    pub fn only_product_of(&self, recipe: &RecipeRef) -> Option<&ProductId> {
        let mut inspected = self.products.iter().filter(|(_, of)| *of == recipe).map(|(product, _)| product);
        inspected.next().filter(|_| inspected.next().is_none())
    }

    /// The recipe of this name, if it can serve.
    #[must_use]
    pub fn serving(&self, name: &RecipeRef) -> Option<&Arc<LoadedRecipe>> {
        match self.recipes.get(name.as_str()) {
            Some((_, Slot::Ready(recipe))) => Some(recipe),
            Some((_, Slot::Unavailable(_))) | None => None,
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
