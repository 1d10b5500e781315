//! Sessions for recorded decisions: made of the recipe, calibration and model that a decision names by their digests.

use std::sync::Arc;

use super::{ReplayError, ReplayService};
use crate::{
    core::{
        lineage::{entry::Decision, replay::NotReplayable},
        recipe::{Calibration, Recipe},
    },
    ports::{
        inference::{InferenceError, Optimisation, Provider, SessionOptions},
        recipes::{LoadedRecipe, RecipeFiles},
    },
    services::inspect::{
        BATCH_FRAMES_MAX,
        batch::Repeated,
        examine::{Lane, LaneError, Observed},
    },
    types::Blake3Digest,
};

/// Sessions that one run keeps; a model's takes as much memory as a worker's. Decisions come recipe by recipe.
const LANES_MAX: usize = 2;
/// Most threads a session is given, whatever an entry says.
const THREADS_MAX: u32 = 256;

/// Why a decision does not run, or why none does.
pub(super) enum Failure {
    Not(NotReplayable, String),
    Error(ReplayError),
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        Self::Error(error)
    }
}

/// What a session is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    recipe: Blake3Digest,
    calibration: Option<Blake3Digest>,
    model: Blake3Digest,
    provider: Provider,
    threads: u32,
    optimisation: Optimisation,
    batch: u32,
}

/// The sessions used last, newest first.
#[derive(Default)]
pub(super) struct Lanes(Vec<(Key, Lane)>);

impl Lanes {
    /// The session for a decision, as it was recorded.
    pub fn of(&mut self, service: &ReplayService, decision: &Decision) -> Result<&mut Lane, Failure> {
        let runtime = &decision.runtime;
        let failed = |why: String| Failure::Not(NotReplayable::Failed, why);
        let provider = runtime.provider.parse::<Provider>();
        let provider = provider.map_err(|why| Failure::Not(NotReplayable::OtherProvider, why))?;
        let optimisation = Optimisation::parse(&runtime.optimisation);
        let optimisation = optimisation
            .ok_or_else(|| failed(format!("{:?} is no optimisation level of this release", runtime.optimisation)))?;
        if !(1..=THREADS_MAX).contains(&runtime.threads) {
            return Err(failed(format!("{} threads are none a session can have", runtime.threads)));
        }
        if !(1..=BATCH_FRAMES_MAX).contains(&(runtime.batch as usize)) {
            return Err(failed(format!("{} frames run together are none of this release", runtime.batch)));
        }
        let key = Key {
            recipe: decision.recipe.digest,
            calibration: decision.calibration,
            model: decision.model.digest,
            provider,
            threads: runtime.threads,
            optimisation,
            batch: runtime.batch,
        };
        let lane = match self.0.iter().position(|(found, _)| *found == key) {
            Some(at) => self.0.remove(at).1,
            None => {
                self.0.truncate(LANES_MAX - 1);
                load(service, decision, &key)?
            }
        };
        self.0.insert(0, (key, lane));
        Ok(&mut self.0[0].1)
    }
}

fn load(service: &ReplayService, decision: &Decision, key: &Key) -> Result<Lane, Failure> {
    let recipe = Arc::new(recorded_recipe(service, decision)?);
    let options = SessionOptions {
        provider: key.provider.clone(),
        intra_threads: key.threads as usize,
        optimisation: key.optimisation,
        ..SessionOptions::default()
    };
    let session = Lane::session(&recipe, service.runtime.as_ref(), &options, Arc::new(|_: &str| {}));
    let lane = session.and_then(|session| {
        let session: Observed = match key.batch {
            1 => session,
            frames => Box::new(Repeated::new(session, frames as usize, key.model)),
        };
        Lane::of(recipe, session)
    });
    match lane {
        Ok(lane) => Ok(lane),
        Err(LaneError::Runtime(
            error @ (InferenceError::LibraryMissing { .. }
            | InferenceError::Library { .. }
            | InferenceError::LibraryChanged { .. }),
        )) => Err(ReplayError::Runtime(error).into()),
        Err(error @ LaneError::Runtime(InferenceError::Provider { .. })) => {
            Err(Failure::Not(NotReplayable::OtherProvider, error.to_string()))
        }
        Err(error) => Err(Failure::Not(NotReplayable::Failed, error.to_string())),
    }
}

/// The recipe, calibration and model behind the digests of a decision.
fn recorded_recipe(service: &ReplayService, decision: &Decision) -> Result<LoadedRecipe, Failure> {
    let no_recipe = |why: String| Failure::Not(NotReplayable::NoRecipe, why);
    let digest = decision.recipe.digest;
    let text = kept_text(service.texts.recipe(digest).map_err(ReplayError::from)?, digest);
    let text = text.ok_or_else(|| no_recipe(format!("recipe {digest} is not kept here, or its file was changed")))?;
    let recipe = Recipe::parse(&text).map_err(|error| no_recipe(format!("recipe {digest}: {error}")))?;
    let calibration_text =
        match decision.calibration {
            None => None,
            Some(digest) => {
                let text = kept_text(service.texts.calibration(digest).map_err(ReplayError::from)?, digest);
                Some(text.ok_or_else(|| {
                    no_recipe(format!("calibration {digest} is not kept here, or its file was changed"))
                })?)
            }
        };
    let calibration = calibration_text.as_deref().map(Calibration::parse).transpose();
    let calibration = calibration.map_err(|error| no_recipe(format!("the calibration: {error}")))?;
    recipe.accept_calibration(calibration.as_ref()).map_err(|error| no_recipe(error.to_string()))?;
    let model = service.models.model(decision.model.digest).map_err(ReplayError::from)?;
    let no_model = || format!("model {} is not kept here, or its file was changed", decision.model.digest);
    let model = model.ok_or_else(|| Failure::Not(NotReplayable::NoModel, no_model()))?;
    if recipe.model.digest != decision.model.digest {
        return Err(no_recipe(format!("the decision names another model than its recipe, {}", recipe.model.digest)));
    }
    let template = match &recipe.template {
        None => None,
        Some(named) => {
            let template = service.models.template(named.file.digest).map_err(ReplayError::from)?;
            let no_template = || format!("template {} is not kept here, or its file was changed", named.file.digest);
            Some(template.ok_or_else(|| no_recipe(no_template()))?)
        }
    };
    let texts = RecipeFiles { recipe: text, calibration: calibration_text, model_card: None };
    Ok(LoadedRecipe { recipe, calibration, model, template, texts, signer: None, tried: None })
}

/// A text that is what its name says.
fn kept_text(bytes: Option<Vec<u8>>, digest: Blake3Digest) -> Option<String> {
    let bytes = bytes.filter(|bytes| Blake3Digest::of(bytes) == digest)?;
    String::from_utf8(bytes).ok()
}
