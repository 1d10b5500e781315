//! Recipes, as the protocol names models.

use std::sync::Arc;

use semver::Version;
use tonic::Status;

use super::pb;
use crate::{ports::recipes::LoadedRecipe, services::recipes::RecipeBook, types::RecipeRef};

/// The recipes of this service by name and version.
pub(super) struct Models {
    book: Arc<RecipeBook>,
}

impl Models {
    pub fn of(book: Arc<RecipeBook>) -> Self {
        Self { book }
    }

    /// The recipe that serves as this model; without a version, the highest that serves.
    pub fn serving(&self, name: &str, version: &str) -> Result<Arc<LoadedRecipe>, Status> {
        let named = self.book.ready().filter(|recipe| recipe.recipe.name == name);
        let found = if version.is_empty() {
            named.max_by_key(|recipe| Version::parse(&recipe.recipe.version).ok())
        } else {
            named.into_iter().find(|recipe| recipe.recipe.version == version)
        };
        found.ok_or_else(|| self.not_serving(name, version))
    }

    /// Whether it serves.
    pub fn is_ready(&self, name: &str, version: &str) -> Result<bool, Status> {
        match self.serving(name, version) {
            Ok(_) => Ok(true),
            Err(_) if self.unavailable().any(|(found, of)| found == name && (version.is_empty() || of == version)) => {
                Ok(false)
            }
            Err(not_found) => Err(not_found),
        }
    }

    /// Every version there is of a model, ascending.
    pub fn versions(&self, name: &str) -> Vec<String> {
        let ready: Vec<Arc<LoadedRecipe>> = self.book.ready().collect();
        let ready = ready.iter().map(|recipe| (recipe.recipe.name.as_str(), recipe.recipe.version.as_str()));
        let all = ready.chain(self.unavailable()).filter(|(found, _)| *found == name);
        let mut versions: Vec<String> = all.map(|(_, version)| version.to_owned()).collect();
        versions.sort_by_cached_key(|version| Version::parse(version).ok());
        versions
    }

    /// The repository's index.
    pub fn index(&self, only_ready: bool) -> Vec<pb::repository_index_response::ModelIndex> {
        let model = |name: &str, version: &str, state: &str, reason: &str| pb::repository_index_response::ModelIndex {
            name: name.into(),
            version: version.into(),
            state: state.into(),
            reason: reason.into(),
        };
        let mut models: Vec<_> =
            self.book.ready().map(|recipe| model(&recipe.recipe.name, &recipe.recipe.version, "READY", "")).collect();
        if !only_ready {
            models.extend(self.book.unavailable().map(|(recipe, reason)| {
                let (name, version) = parts(recipe);
                model(name, version, "UNAVAILABLE", reason)
            }));
        }
        models
    }

    fn unavailable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.book.unavailable().map(|(recipe, _)| parts(recipe))
    }

    fn not_serving(&self, name: &str, version: &str) -> Status {
        let wanted = |recipe: &RecipeRef| {
            let (found, of) = parts(recipe);
            found == name && (version.is_empty() || of == version)
        };
        if let Some((recipe, reason)) = self.book.unavailable().find(|(recipe, _)| wanted(recipe)) {
            return Status::failed_precondition(format!("model {recipe} cannot serve: {reason}"));
        }
        let there: Vec<String> =
            self.index(true).iter().map(|model| format!("{}@{}", model.name, model.version)).collect();
        let asked = if version.is_empty() { name.to_owned() } else { format!("{name}@{version}") };
        let asked: String = asked.chars().take(160).collect();
        Status::not_found(format!("there is no model {asked:?} here; this service has {}", there.join(", ")))
    }
}

/// Name and version of `name@version`.
fn parts(recipe: &RecipeRef) -> (&str, &str) {
    recipe.as_str().split_once('@').unwrap_or((recipe.as_str(), ""))
}
