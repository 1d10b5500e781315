//! Lets models into the service: each is judged by its file, then tried in a process of its own, before this process
//! loads it.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use crate::{
    ports::{
        inference::{InferenceError, ModelSpec, ModelTrial, Provider, SessionOptions},
        recipes::{LoadedRecipe, Tried},
    },
    types::Blake3Digest,
};

/// What makes two trials the same one.
type TrialKey = (Blake3Digest, String, Option<String>, [usize; 4], Vec<String>);

/// Which execution providers run models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Providers {
    pub first: Provider,
    /// What may take its place for a model that it does not run, in this order. Nobody does unless somebody wrote it here.
    pub fall_back: Vec<Provider>,
}

impl Providers {
    fn in_order(&self) -> impl Iterator<Item = &Provider> {
        std::iter::once(&self.first).chain(&self.fall_back)
    }
}

/// Tries the models of `recipes`, as many at a time as there are cores, and notes what came of it. Recipes that
/// share a model, its input and its outputs share the trial.
///
/// Returns, in the order of `recipes`, why each is not let in.
pub fn try_all(
    recipes: &mut [LoadedRecipe],
    trial: &dyn ModelTrial,
    options: &SessionOptions,
    providers: &Providers,
) -> Vec<Result<(), InferenceError>> {
    let started = Instant::now();
    let mut specs: HashMap<TrialKey, (ModelSpec, Vec<usize>)> = HashMap::new();
    for (at, recipe) in recipes.iter().enumerate() {
        let spec = recipe.model_spec();
        let tried = (spec.digest, spec.input.clone(), spec.template.clone(), spec.shape, spec.outputs.clone());
        specs.entry(tried).or_insert_with(|| (spec, Vec::new())).1.push(at);
    }
    let specs: Vec<_> = specs.into_values().collect();
    let (next, ended) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(specs.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((spec, recipes)) = specs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = try_one(spec, trial, options, providers);
                    ended.lock().unwrap_or_else(PoisonError::into_inner).push((recipes, report));
                }
            });
        }
    });
    let mut results: Vec<_> = recipes.iter().map(|_| Ok(())).collect();
    for (tried, report) in ended.into_inner().unwrap_or_else(PoisonError::into_inner) {
        for at in tried {
            match &report {
                Ok(tried) => {
                    let recipe = recipes[*at].recipe.reference();
                    tracing::debug!(%recipe, ?tried, "model tried");
                    if let Some(why) = tried.not.last() {
                        tracing::warn!(%recipe, provider = %tried.provider, why, "model falls back to another execution provider");
                    }
                    recipes[*at].tried = Some(tried.clone());
                }
                Err(error) => results[*at] = Err(error.clone()),
            }
        }
    }
    let (models, took_ms) = (specs.len(), u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    tracing::info!(models, took_ms, "models tried in processes of their own");
    results
}

/// The first provider that runs the model. A model that is refused for what its file says is refused for all.
fn try_one(
    spec: &ModelSpec,
    trial: &dyn ModelTrial,
    options: &SessionOptions,
    providers: &Providers,
) -> Result<Tried, InferenceError> {
    let mut not = Vec::new();
    for provider in providers.in_order() {
        let options = SessionOptions { provider: provider.clone(), ..options.clone() };
        match trial.try_out(spec, &options) {
            Ok(report) => return Ok(Tried { canary: report.canary, provider: provider.clone(), not }),
            Err(error @ InferenceError::Refused { .. }) => return Err(error),
            Err(InferenceError::Trial { reason, .. }) => not.push(format!("{provider}: {reason}")),
            Err(error) => not.push(format!("{provider}: {error}")),
        }
    }
    Err(InferenceError::Trial { model: spec.digest, reason: not.join("; ") })
}
