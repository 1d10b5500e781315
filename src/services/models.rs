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
        inference::{InferenceError, ModelSpec, ModelTrial, SessionOptions},
        recipes::LoadedRecipe,
    },
    types::Blake3Digest,
};

/// What makes two trials the same one.
type Tried = (Blake3Digest, String, Option<String>, [usize; 4], Vec<String>);

/// Tries the models of `recipes`, as many at a time as there are cores, and notes what each answered to the canary. Recipes that
/// share a model, its input and its outputs share the trial.
///
/// Returns, in the order of `recipes`, why each is not let in.
pub fn try_all(
    recipes: &mut [LoadedRecipe],
    trial: &dyn ModelTrial,
    options: &SessionOptions,
) -> Vec<Result<(), InferenceError>> {
    let started = Instant::now();
    let mut specs: HashMap<Tried, (ModelSpec, Vec<usize>)> = HashMap::new();
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
                    let report = trial.try_out(spec, options);
                    ended.lock().unwrap_or_else(PoisonError::into_inner).push((recipes, report));
                }
            });
        }
    });
    let mut results: Vec<_> = recipes.iter().map(|_| Ok(())).collect();
    for (tried, report) in ended.into_inner().unwrap_or_else(PoisonError::into_inner) {
        for at in tried {
            match &report {
                Ok(report) => {
                    tracing::debug!(recipe = %recipes[*at].recipe.reference(), ?report, "model tried");
                    recipes[*at].canary = Some(report.canary);
                }
                Err(error) => results[*at] = Err(error.clone()),
            }
        }
    }
    let (models, took_ms) = (specs.len(), u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    tracing::info!(models, took_ms, "models tried in processes of their own");
    results
}
