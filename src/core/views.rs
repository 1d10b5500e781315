//! What the model looks at: the whole frame, or the part of it around the recipe's region.

use super::recipe::Recipe;
use crate::types::Bounds;

/// The views of a frame of `frame_px`, in the order in which the model sees them; at least one, each within the frame.
#[must_use]
pub fn of(recipe: &Recipe, frame_px: (u32, u32)) -> Vec<Bounds> {
    let window = recipe.region.as_ref().filter(|region| region.crop).map(|region| region.around);
    vec![window.unwrap_or(Bounds::whole(frame_px))]
}
