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

use super::recipes::RecipeBook;
use crate::{
    ports::inference::{ModelSpec, ModelTrial, SessionOptions},
    types::{Blake3Digest, RecipeRef},
};

/// What makes two trials the same one.
type Tried = (Blake3Digest, String, Option<String>, [usize; 4], Vec<String>);

/// Tries the model of every recipe that is ready, as many at a time as there are cores, and takes those that fail out
/// of service with the reason. Recipes that share a model, its input and its outputs share the trial.
pub fn try_all(book: &mut RecipeBook, trial: &dyn ModelTrial, options: &SessionOptions) {
    let started = Instant::now();
    let mut specs: HashMap<Tried, (ModelSpec, Vec<RecipeRef>)> = HashMap::new();
    for recipe in book.ready() {
        let spec = recipe.model_spec();
        let tried = (spec.digest, spec.input.clone(), spec.template.clone(), spec.shape, spec.outputs.clone());
        specs.entry(tried).or_insert_with(|| (spec, Vec::new())).1.push(recipe.recipe.reference());
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
    for (recipes, report) in ended.into_inner().unwrap_or_else(PoisonError::into_inner) {
        for recipe in recipes {
            match &report {
                Ok(report) => {
                    tracing::debug!(%recipe, ?report, "model tried");
                    book.expect_canary(recipe, report.canary);
                }
                Err(error) => {
                    let reason = error.to_string();
                    tracing::error!(%recipe, reason, "model is not let in; its recipe's frames are refused");
                    book.mark_unavailable(recipe, reason);
                }
            }
        }
    }
    let (models, took_ms) = (specs.len(), u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    tracing::info!(models, took_ms, "models tried in processes of their own");
}
