//! What a lane needs to look at frames of one recipe, made ready before the first one.

use std::sync::Arc;

use crate::{
    core::{
        decide::{DecideError, Decider},
        frame::{self, Scratch},
        mask::Mask,
        preprocess::Preprocessor,
        recipe::Template,
    },
    ports::{inference::InferenceSession, inference::Outputs, recipes::LoadedRecipe},
};

/// The preprocessor, with the region's mask and the prepared template, and the decider, which knows the views.
///
/// # Errors
/// A sentence for the operator when the region or the template cannot serve.
pub(super) fn of(loaded: &LoadedRecipe) -> Result<(Preprocessor, Decider), String> {
    let recipe = &loaded.recipe;
    let frame_px = recipe.frame.largest_px();
    let mask = recipe.region.as_ref().map(|region| Mask::new(region, frame_px).map(Arc::new));
    if mask == Some(None) {
        return Err("[region] leaves no pixel of the frame that counts".to_owned());
    }
    let mask = mask.flatten();
    let mut decider = Decider::new(mask.clone());
    let preprocessor = Preprocessor::new(recipe).filled(recipe, mask);
    let (Some(template), Some(bytes)) = (&recipe.template, &loaded.template) else {
        return Ok((preprocessor, decider));
    };
    let mut scratch = Scratch::default();
    let wrong = |error: &dyn std::fmt::Display| format!("[template] {}: {error}", template.file.file);
    let golden = frame::decode(bytes, None, &Template::rules(&recipe.frame), &mut scratch);
    let golden = golden.map_err(|error| wrong(&error))?;
    let views = decider.begin(recipe, frame_px);
    let preprocessor = preprocessor.compared_with(template.pair.clone(), &golden, &views);
    Ok((preprocessor.map_err(|error| wrong(&error))?, decider))
}

/// Runs the model once on zeros, so that the first frame meets a warm one.
///
/// # Errors
/// A sentence when it does not run, or gives maps too fine for the largest frame of a recipe with tiles.
pub(super) fn warm_up(
    loaded: &LoadedRecipe,
    preprocessor: &Preprocessor,
    session: &mut dyn InferenceSession,
    decider: &mut Decider,
    outputs: &mut Outputs,
) -> Result<(), String> {
    let recipe = &loaded.recipe;
    let shape = preprocessor.shape();
    let zeros = vec![0.0; shape.iter().product()];
    let second = preprocessor.has_second_input().then_some(zeros.as_slice());
    session.run_pair(&zeros, second, shape, outputs).map_err(|error| error.to_string())?;
    if recipe.tiling.is_some() {
        decider.begin(recipe, recipe.frame.largest_px());
        let added = decider.add(recipe, loaded.calibration.as_ref(), outputs);
        if let Err(error @ DecideError::Mosaic { .. }) = added {
            return Err(error.to_string());
        }
    }
    Ok(())
}
